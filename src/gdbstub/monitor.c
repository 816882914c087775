/* Commands that are the stub's own: gdb passes on what is behind "monitor". */
#include "gdbstub/stub_int.h"

#include "gdbstub/hex.h"

#include <errno.h>

bool gdb_read_moment(const char *text, struct moment *out)
{
    char *end;
    errno = 0;
    *out = (struct moment){strtoull(text, &end, 10), 0};
    if (end == text || errno)
        return false;
    if (*end == '+') {
        text = end + 1;
        out->icount = strtoull(text, &end, 10);
    }
    return end != text && !*end && !errno;
}

static void add_place(const struct gdb_stub *s, struct moment m, uint32_t task, struct buf *out)
{
    const struct past_task *t = past_task(&s->past, task);
    buf_printf(out, "%llu+%llu, task %d\n", (unsigned long long)m.event,
               (unsigned long long)m.icount, t ? t->tid : 0);
}

static struct err *tell_when(struct gdb_stub *s, const char *args, struct buf *out)
{
    add_place(s, s->now, s->task, out);
    return NULL;
}

/* --- going somewhere: the next run, whichever, goes there. Backward is best: forward gdb steps
 * over breakpoints first. --- */

static struct err *jump_to(struct gdb_stub *s, struct moment m, uint32_t task)
{
    if (moment_cmp(m, s->past.end) > 0)
        return err_new(ERR_NOT_FOUND, "the recording ends at %llu+%llu",
                       (unsigned long long)s->past.end.event,
                       (unsigned long long)s->past.end.icount);
    if (!task)
        TRY(past_task_at(&s->past, m, &task));
    const struct past_task *t = past_task(&s->past, task);
    if (!t || !past_alive(t, m))
        return err_new(ERR_NOT_FOUND, "there is no such task at that moment");
    s->jump = (struct gdb_position){m, task, 0};
    s->jumps = true;
    return NULL;
}

/* "EVENT[+INSTRUCTIONS] [TASK]" */
static struct err *jump(struct gdb_stub *s, const char *args, struct buf *out)
{
    size_t len = strcspn(args, " ");
    cleanup(freep) char *moment = str_format("%.*s", (int)len, args);
    struct moment m;
    if (!gdb_read_moment(moment, &m))
        return err_new(ERR_USAGE, "a moment is EVENT or EVENT+INSTRUCTIONS");
    return jump_to(s, m, (uint32_t)strtoul(args + len, NULL, 10));
}

/* --- places to come back to --- */

static struct err *keep(struct gdb_stub *s, const char *args, struct buf *out)
{
    enum { MOST_KEPT = 10000 };
    if (s->kept.count == MOST_KEPT)
        return err_new(ERR_LIMIT, "there are %d checkpoints", MOST_KEPT);
    vec_push(&s->kept, (struct gdb_position){s->now, s->general, 0});
    buf_printf(out, "Checkpoint %zu at ", s->kept.count);
    add_place(s, s->now, s->general, out);
    return NULL;
}

static struct err *tell_kept(struct gdb_stub *s, const char *args, struct buf *out)
{
    for (size_t i = 0; i < s->kept.count; i++) {
        if (!s->kept.items[i].task)
            continue; // deleted
        buf_printf(out, "%zu at ", i + 1);
        add_place(s, s->kept.items[i].moment, s->kept.items[i].task, out);
    }
    if (!out->len)
        buf_str(out, "No checkpoints.\n");
    return NULL;
}

static struct err *find_kept(struct gdb_stub *s, const char *args, struct gdb_position **out)
{
    char *end;
    size_t number = strtoul(args, &end, 10);
    if (end == args || !number || number > s->kept.count || !s->kept.items[number - 1].task)
        return err_new(ERR_NOT_FOUND, "there is no checkpoint %.20s", args);
    *out = &s->kept.items[number - 1];
    return NULL;
}

static struct err *jump_to_kept(struct gdb_stub *s, const char *args, struct buf *out)
{
    struct gdb_position *to = NULL;
    TRY(find_kept(s, args, &to));
    return jump_to(s, to->moment, to->task);
}

static struct err *forget_kept(struct gdb_stub *s, const char *args, struct buf *out)
{
    struct gdb_position *kept = NULL;
    TRY(find_kept(s, args, &kept));
    kept->task = 0;
    return NULL;
}

/* --- the table --- */

static const struct {
    const char *name;
    struct err *(*run)(struct gdb_stub *s, const char *args, struct buf *out);
    const char *help;
} commands[] = {
    {"when", tell_when, "tells the moment, as EVENT+INSTRUCTIONS"},
    {"goto", jump, "EVENT+INSTRUCTIONS [TASK]: the next reverse-continue goes there"},
    {"checkpoint", keep, "keeps this place"},
    {"checkpoints", tell_kept, "tells the places that are kept"},
    {"restart", jump_to_kept, "NUMBER: the next reverse-continue goes to that place"},
    {"delete-checkpoint", forget_kept, "NUMBER: forgets that place"},
};

static struct err *execute(struct gdb_stub *s, const char *text, struct buf *out)
{
    size_t len = strcspn(text, " ");
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        if (strlen(commands[i].name) == len && strncmp(commands[i].name, text, len) == 0)
            return commands[i].run(s, text + len + strspn(text + len, " "), out);
    }
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++)
        buf_printf(out, "monitor %s: %s\n", commands[i].name, commands[i].help);
    return NULL;
}

void handle_monitor(struct gdb_stub *s, const char *args)
{
    cleanup(buf_deinit) struct buf command = {0}, said = {0};
    hex_read_bytes(args, &command);
    cleanup(err_freep) struct err *e = execute(s, buf_cstr(&command), &said);
    if (e) { // an error without a text is all that this packet has
        send_output(s, err_message(e));
        packet_send(s->link, "E01");
        return;
    }
    send_text(s, said.data, said.len);
    packet_send(s->link, "OK");
}
