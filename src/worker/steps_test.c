/* Steps and captures of memory, on programs of a few instructions. */
#include "worker/worker.h"

#include "base/test.h"

#include <signal.h>
#include <sys/mman.h>

enum { CODE = 0x400000, DATA = 0x600000, LEN = 0x10000 };
static const struct addr_range used[] = {{CODE, CODE + LEN}, {DATA, DATA + LEN}};

/* mov ecx, 1000; loop: dec ecx; jnz loop; syscall */
static const uint8_t count_down[] = {0xb9, 0xe8, 3, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0x0f, 0x05};

static struct worker *with_program(const void *code, size_t len)
{
    struct worker *w;
    assert_ok(worker_create(used, 2, &w));
    assert_ok(worker_map(w, CODE, CODE + LEN, PROT_READ | PROT_EXEC, MAP_KIND_ANON, -1, 0));
    assert_ok(worker_map(w, DATA, DATA + LEN, PROT_READ | PROT_WRITE, MAP_KIND_ANON, -1, 0));
    assert_ok(worker_write(w, CODE, code, len));
    return w;
}

static struct regs at_start(void)
{
    struct regs r = {0};
    r.r[UREG_RIP] = CODE;
    r.r[UREG_RSP] = DATA + LEN;
    r.r[UREG_EFLAGS] = 0x246;
    return r;
}

static struct engine_result run(struct worker *w, const struct engine_request *q,
                                const struct regs *set, struct regs *out)
{
    struct engine_result result;
    assert_ok(worker_run(w, 0, q, set, &result, out));
    return result;
}

static const struct engine_request all = {.max_icount = UINT64_MAX};

TEST(every_instruction_has_a_row_and_the_end_has_one)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    assert_ok(worker_set_steps(w, &(struct step_request){.record = true}));
    assert_ok(worker_set_icount(w, 9, 50));
    struct regs r = at_start(), out;
    struct engine_result stop = run(w, &all, &r, &out);
    assert_int_equal(stop.reason, STOP_SYSCALL);
    assert_int_equal(stop.icount, 2001);
    assert_int_equal(stop.ticks, 1000);
    cleanup(buf_deinit) struct buf rows = {0};
    assert_ok(worker_take_steps(w, &rows, NULL));
    const struct step_row *row = (const void *)rows.data;
    assert_int_equal(rows.len, 2003 * sizeof(*row)); // the system call, too, and the end
    for (unsigned i = 0; i < 2001; i++) {
        assert_int_equal(row[i].stamp, 9);
        assert_int_equal(row[i].icount, 50 + i);
        assert_false(row[i].end);
        assert_int_equal(row[i].regs.r[UREG_RIP], i == 0 ? CODE : i % 2 ? CODE + 5 : CODE + 7);
        if (i)
            assert_int_equal(row[i].regs.r[UREG_RCX], 1000 - i / 2);
        assert_int_equal(row[i].code_len, 15);
        assert_int_equal(row[i].code[0], i == 0 ? 0xb9 : i % 2 ? 0xff : 0x75);
    }
    assert_int_equal(row[2001].regs.r[UREG_RIP], CODE + 9);
    assert_true(row[2002].end);
    assert_int_equal(row[2002].reason, STOP_SYSCALL);
    assert_int_equal(row[2002].icount, row[2001].icount);
    // They are gone now, and nothing more is recorded once that is switched off.
    assert_ok(worker_set_steps(w, NULL));
    run(w, &all, &r, &out);
    rows.len = 0;
    assert_ok(worker_take_steps(w, &rows, NULL));
    assert_int_equal(rows.len, 0);
    worker_destroy(w);
}

TEST(a_run_in_steps_ends_as_any_other)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    for (int stepping = 0; stepping < 2; stepping++) {
        assert_ok(worker_set_steps(w, stepping ? &(struct step_request){.record = true} : NULL));
        struct regs r = at_start(), out;
        // A limit.
        struct engine_result stop = run(w, &(struct engine_request){.max_icount = 17}, &r, &out);
        assert_int_equal(stop.reason, STOP_LIMIT);
        assert_int_equal(stop.icount, 17);
        // Ticks and registers.
        struct engine_request match = {
            .max_icount = UINT64_MAX, .use_match = true, .stop_ticks = 20, .match = out};
        match.match.r[UREG_RCX] = 972 - 1;
        match.match.r[UREG_RIP] = CODE + 7;
        stop = run(w, &match, NULL, &out);
        assert_int_equal(stop.reason, STOP_MATCH);
        assert_int_equal(out.r[UREG_RCX], 971);
        assert_int_equal(stop.ticks, 20);
        // Registers that never come.
        match.match.r[UREG_RBX] = 5;
        stop = run(w, &match, NULL, &out);
        assert_int_equal(stop.reason, STOP_TICKS);
        assert_true(stop.passed);
        // Ticks alone.
        stop = run(
            w,
            &(struct engine_request){.max_icount = UINT64_MAX, .use_ticks = true, .stop_ticks = 3},
            NULL, &out);
        assert_int_equal(stop.reason, STOP_TICKS);
        assert_int_equal(stop.ticks, 3);
        // A break address; the run that begins there passes it once.
        assert_ok(worker_set_breaks(w, (const gaddr[]){CODE + 7}, 1, NULL));
        stop = run(w, &all, NULL, &out);
        assert_int_equal(stop.reason, STOP_BREAK);
        assert_int_equal(stop.icount, 1);
        stop = run(w, &all, NULL, &out);
        assert_int_equal(stop.reason, STOP_BREAK);
        assert_int_equal(stop.icount, 2);
        assert_ok(worker_set_breaks(w, NULL, 0, NULL));
    }
    worker_destroy(w);
}

TEST(there_are_no_more_rows_than_asked_for)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    assert_ok(worker_set_steps(w, &(struct step_request){.record = true, .max_rows = 7}));
    struct regs r = at_start();
    struct engine_result stop = run(w, &all, &r, NULL);
    assert_int_equal(stop.reason, STOP_CONSUMER);
    assert_int_equal(stop.icount, 7);
    cleanup(buf_deinit) struct buf rows = {0};
    assert_ok(worker_take_steps(w, &rows, NULL));
    assert_int_equal(rows.len, 8 * sizeof(struct step_row));
    worker_destroy(w);
}

TEST(a_fault_leaves_its_instruction_and_an_end)
{
    static const uint8_t code[] = {
        0xbf, 0xff, 0xff, 0x60, 0,    0xb9,
        3,    0,    0,    0,    0xf3, 0xaa}; // mov edi, DATA + LEN - 1; mov ecx, 3; rep stosb
    struct worker *w = with_program(code, sizeof(code));
    assert_ok(worker_set_steps(w, &(struct step_request){.record = true}));
    struct regs r = at_start(), out;
    struct engine_result stop = run(w, &all, &r, &out);
    assert_int_equal(stop.reason, STOP_FAULT);
    assert_int_equal(stop.signo, SIGSEGV);
    cleanup(buf_deinit) struct buf rows = {0};
    assert_ok(worker_take_steps(w, &rows, NULL));
    const struct step_row *row = (const void *)rows.data;
    assert_int_equal(rows.len, 4 * sizeof(*row));
    assert_int_equal(row[2].regs.r[UREG_RCX], 3);
    assert_true(row[3].end);
    assert_int_equal(row[3].reason, STOP_FAULT);
    assert_int_equal(row[3].icount, row[2].icount);
    assert_int_equal(row[3].regs.r[UREG_RCX], 2); // one byte was stored
    worker_destroy(w);
}

TEST(vector_state_comes_along)
{
    static const uint8_t code[] = {0x66, 0x0f, 0xd4, 0xc1, 0x66, 0x0f,
                                   0xd4, 0xc1, 0x0f, 0x05}; // paddq xmm0, xmm1, twice; syscall
    struct worker *w = with_program(code, sizeof(code));
    struct xstate x;
    assert_ok(worker_set_xstate(w, 0, NULL));
    assert_ok(worker_get_xstate(w, 0, &x));
    x.data[160] = 1;
    x.data[176] = 10;
    x.data[512] |= 2;
    assert_ok(worker_set_xstate(w, 0, &x));
    assert_ok(worker_set_steps(w, &(struct step_request){.record = true, .vectors = true}));
    struct regs r = at_start();
    run(w, &all, &r, NULL);
    cleanup(buf_deinit) struct buf rows = {0};
    assert_ok(worker_take_steps(w, &rows, NULL));
    size_t len = sizeof(struct step_row) + XSTATE_MAX;
    assert_int_equal(rows.len, 4 * len);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(rows.data[i * len + sizeof(struct step_row) + 160],
                         i < 3 ? 1 + 10 * i : 21);
    worker_destroy(w);
}

TEST(memory_is_captured_at_its_moments)
{
    // mov edi, DATA; mov al, 1; loop: stosb; inc eax; cmp eax, 50; jne loop; syscall
    static const uint8_t code[] = {0xbf, 0,    0,    0x60, 0,    0xb8, 1,    0,    0,    0,
                                   0xaa, 0xff, 0xc0, 0x83, 0xf8, 50,   0x75, 0xf8, 0x0f, 0x05};
    struct worker *w = with_program(code, sizeof(code));
    const struct step_capture captures[] = {
        {6, 0, DATA, 4},       {7, 100, DATA, 4},  {7, 102, DATA, 3}, {7, 103, DATA, 3},
        {7, 103, 0x500000, 8}, {7, 298, DATA, 60}, {7, 400, DATA, 8}, {8, 0, DATA, 1},
    };
    assert_ok(
        worker_set_steps(w, &(struct step_request){.captures = captures, .capture_count = 8}));
    assert_ok(worker_set_icount(w, 7, 100));
    struct regs r = at_start();
    struct engine_result stop = run(w, &all, &r, NULL);
    assert_int_equal(stop.reason, STOP_SYSCALL);
    assert_int_equal(stop.icount, 2 + 49 * 4);
    assert_ok(worker_set_icount(w, 8, 0));
    run(w, &(struct engine_request){.max_icount = 0}, NULL, NULL);
    cleanup(buf_deinit) struct buf rows = {0}, memory = {0};
    assert_ok(worker_take_steps(w, &rows, &memory));
    assert_int_equal(rows.len, 0);
    const uint8_t *at = memory.data;
    static const struct {
        unsigned done, len, first;
    } want[] = {{0, 8, 0}, {4, 8, 0},   {3, 8, 0}, {3, 8, 1},
                {0, 8, 0}, {60, 64, 1}, {0, 8, 0}, {1, 8, 1}};
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(*(const uint64_t *)(const void *)at, want[i].done);
        assert_int_equal(at[8], want[i].first);
        if (want[i].len == 64)
            assert_int_equal(at[8 + 48], 49);
        at += 8 + want[i].len;
    }
    assert_int_equal(at - memory.data, memory.len);
    worker_destroy(w);
}

TEST(other_tasks_are_left_alone)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    assert_ok(
        worker_set_steps(w, &(struct step_request){.record = true, .one_slot = true, .slot = 1}));
    struct regs r = at_start();
    struct engine_result result;
    for (unsigned slot = 0; slot < 3; slot++)
        assert_ok(worker_run(w, slot, &all, &r, &result, NULL));
    cleanup(buf_deinit) struct buf rows = {0};
    assert_ok(worker_take_steps(w, &rows, NULL));
    const struct step_row *row = (const void *)rows.data;
    assert_int_equal(rows.len, 2003 * sizeof(*row));
    assert_int_equal(row->slot, 1);
    worker_destroy(w);
}

TEST(hooks_see_the_same_in_steps)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    gaddr pc = CODE + 7;
    for (int stepping = 0; stepping < 2; stepping++) {
        assert_ok(
            worker_set_hooks(w, &(struct hook_request){.pcs = &pc, .pc_count = 1, .regs = true}));
        assert_ok(worker_set_steps(w, stepping ? &(struct step_request){.record = true} : NULL));
        assert_ok(worker_set_icount(w, 3 + (uint64_t)stepping, 0));
        struct regs r = at_start();
        run(w, &all, &r, NULL);
        cleanup(buf_deinit) struct buf rows = {0};
        assert_ok(worker_take_hook_rows(w, &rows));
        const struct hook_row *row = (const void *)rows.data;
        assert_int_equal(rows.len, 1000 * sizeof(*row));
        for (unsigned i = 0; i < 1000; i++)
            assert_int_equal(row[i].icount, 2 + 2 * i);
    }
    worker_destroy(w);
}

TEST_MAIN(t(every_instruction_has_a_row_and_the_end_has_one), t(a_run_in_steps_ends_as_any_other),
          t(there_are_no_more_rows_than_asked_for), t(a_fault_leaves_its_instruction_and_an_end),
          t(vector_state_comes_along), t(memory_is_captured_at_its_moments),
          t(other_tasks_are_left_alone), t(hooks_see_the_same_in_steps))
