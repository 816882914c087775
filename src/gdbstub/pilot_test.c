#include "gdbstub/pilot.h"

#include "base/test.h"

static const struct pilot_place outermost = {{60, 3}, 2, 0}, third = {{70, 0}, 1, 3};

static void hear(struct pilot *p, const char *text)
{
    pilot_hear(p, text, strlen(text));
}

/* What it has sent since. */
static void assert_sent(struct pilot *p, const char *expected)
{
    assert_string_equal(buf_cstr(&p->out), expected);
    p->out.len = 0;
}

/* At its prompt. */
static struct pilot standing(void)
{
    struct pilot p;
    pilot_init(&p, &outermost);
    hear(&p, "=thread-group-added,id=\"i1\"\n(gdb) \n*stopped,frame={}\n(gdb) \n");
    assert_int_equal(p.state, PILOT_STANDS);
    assert_false(p.moved || p.redraw);
    assert_sent(&p, "");
    return p;
}

static void the_frame_to_begin_with_is_selected(void **state)
{
    struct pilot p;
    pilot_init(&p, &third);
    hear(&p, "*stopped,frame={}\n");
    assert_sent(&p, "1-stack-select-frame 3\n");
    hear(&p, "1^done\n");
    assert_int_equal(p.state, PILOT_STANDS);
    assert_false(p.moved);
    pilot_deinit(&p);
}

static void gdb_goes_to_a_focus_without_telling_of_it(void **state)
{
    struct pilot p = standing();
    pilot_want(&p, &third);
    assert_sent(&p, "1-interpreter-exec console \"goto 70+0 1\"\n");
    hear(&p, "1^running\n*running,thread-id=\"all\"\n(gdb) "
             "\n=library-loaded,id=\"x\"\n*stopped,reason=\"signal-received\"\n");
    assert_sent(&p, "2-stack-select-frame 3\n");
    hear(&p, "=thread-selected,id=\"1\",frame={level=\"3\",addr=\"0x1\"}\n2^done\n");
    assert_false(p.moved || p.redraw);
    hear(&p, "(gdb) \n");
    assert_true(p.redraw);
    assert_int_equal(p.state, PILOT_STANDS);
    pilot_deinit(&p);
}

static void only_the_last_wish_is_followed_and_none_while_it_runs(void **state)
{
    struct pilot p = standing();
    pilot_want(&p, &outermost);
    assert_sent(&p, "1-interpreter-exec console \"goto 60+3 2\"\n");
    pilot_want(&p, &third);
    pilot_want(&p, &outermost);
    assert_sent(&p, "");
    hear(&p, "1^running\n*stopped\n");
    assert_sent(&p, "2-interpreter-exec console \"goto 60+3 2\"\n");
    hear(&p, "2^running\n*stopped\n");
    assert_false(p.moved);
    hear(&p, "*running,thread-id=\"all\"\n");
    pilot_want(&p, &third);
    hear(&p, "*stopped,reason=\"breakpoint-hit\"\n");
    assert_true(p.moved && p.moved_frame == 0);
    assert_sent(&p, "");
    pilot_deinit(&p);
}

static void a_run_of_the_user_is_not_taken_for_the_way_to_a_focus(void **state)
{
    struct pilot p = standing();
    pilot_want(&p, &third);
    hear(&p, "*running,thread-id=\"all\"\n1^error,msg=\"Cannot execute this command while the "
             "target is running.\"\n*stopped\n");
    assert_true(p.moved);
    assert_int_equal(p.state, PILOT_STANDS);
    pilot_deinit(&p);
}

static void a_chosen_frame_is_told(void **state)
{
    struct pilot p = standing();
    hear(&p, "=thread-selected,id=\"2\",frame={level=\"12\",addr=\"0x0\"}\n");
    assert_true(p.moved && p.moved_frame == 12);
    pilot_want(&p, &third); // before anybody has acted on that
    assert_false(p.moved);
    pilot_deinit(&p);
}

static void what_the_target_says_is_shown(void **state)
{
    struct pilot p = standing();
    hear(&p, "@\"60+3, \\\"task\\\" 7\\n\\303\\244\"\n");
    assert_string_equal(buf_cstr(&p.said), "\r\033[K60+3, \"task\" 7\r\n\303\244");
    assert_true(p.redraw);
    pilot_deinit(&p);
}

static void nonsense_does_no_harm(void **state)
{
    struct pilot p = standing();
    hear(&p, "@\n@\"\\\n@\"\\7\n=thread-selected\n=thread-selected,frame={level=\"x\n^\n*"
             "\n99999999999999999999^done\n\n(\n");
    for (int i = 0; i < 100000; i++)
        hear(&p, "*stopped");
    hear(&p, "\n");
    assert_int_equal(p.state, PILOT_STANDS);
    for (int i = 0; i < 300000; i++)
        hear(&p, "@\"aaaa\"\n");
    assert_true(p.said.len < 70000);
    pilot_deinit(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        t(the_frame_to_begin_with_is_selected),
        t(gdb_goes_to_a_focus_without_telling_of_it),
        t(only_the_last_wish_is_followed_and_none_while_it_runs),
        t(a_run_of_the_user_is_not_taken_for_the_way_to_a_focus),
        t(a_chosen_frame_is_told),
        t(what_the_target_says_is_shown),
        t(nonsense_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
