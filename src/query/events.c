/* Queries answered from the events alone: output, signals, tasks, events. */
#include "query/query_int.h"

struct err *walk_events(struct query_engine *q, const struct window *w, event_visitor *each,
                        void *ctx, bool *more_out)
{
    size_t segments, at = history_segment_at(q->history, w->from), left = w->limit;
    history_segments(q->history, &segments);
    for (;;) {
        TRY(check_cancel(q));
        const struct segment *s;
        TRY(history_part(q->history, at, PART_EVENTS, &s));
        for (size_t k = 0; k < s->events.count; k++) {
            const struct db_event *e = &s->events.items[w->forward ? k : s->events.count - 1 - k];
            struct moment before = {e->number - 1, e->icount};
            if (!window_holds(w, before))
                continue;
            bool is_row = false;
            if (left == 0) {
                *more_out = true;
                return NULL;
            }
            TRY(each(q, s, e, ctx, &is_row));
            left -= is_row;
        }
        if (w->forward ? at + 1 >= segments : at == 0)
            return NULL;
        at = w->forward ? at + 1 : at - 1;
    }
}

static json_t *event_row(const struct query_engine *q, const struct db_event *e)
{
    return json_pack("{so, so}", "focus",
                     json_focus(q, (struct moment){e->number - 1, e->icount}, e->task, 0), "task",
                     json_task(q, e->task));
}

static struct err *each_output(struct query_engine *q, const struct segment *s,
                               const struct db_event *e, void *ctx, bool *is_row)
{
    const bool *all = ctx;
    const struct known_task *t = known_task(q, e->task);
    if (!e->output_len)
        return NULL;
    // The root process and its threads, unless all are wanted.
    while (t && t->is_thread)
        t = known_task(q, t->parent);
    if (!*all && (!t || t->serial != 1))
        return NULL;
    *is_row = true;
    // The focus is the entry of the system call: the bytes are still where they were made.
    json_t *row = event_row(q, e);
    json_object_set_new(row, "fd", json_integer(e->fd));
    json_object_set_new(row, "text",
                        json_text((const char *)s->output.data + e->output_off, e->output_len));
    return give(q, row);
}

struct err *query_stdouterr(struct query_engine *q, json_t *params)
{
    struct window w;
    TRY(param_window(q, params, 1000, &w));
    bool all = json_is_true(json_object_get(params, "all"));
    return walk_events(q, &w, each_output, &all, &q->sink->more);
}

json_t *signal_row(const struct query_engine *q, const struct db_event *e)
{
    static const char *const dispositions[] = {"fatal", "handler", "ignored"};
    char name[32];
    json_t *row = event_row(q, e);
    json_object_set_new(row, "signal", json_string(signal_name(e->signo, name, sizeof(name))));
    json_object_set_new(row, "number", json_integer(e->signo));
    json_object_set_new(row, "code", json_integer(e->si_code));
    if (e->signo == 11 || e->signo == 7 || e->signo == 8 || e->signo == 4)
        json_object_set_new(row, "address", json_hex(e->fault_addr));
    json_object_set_new(row, "fatal", json_boolean(e->disposition == SIGNAL_FATAL));
    json_object_set_new(row, "disposition",
                        json_string(e->disposition < 3 ? dispositions[e->disposition] : "unknown"));
    return row;
}

static struct err *each_signal(struct query_engine *q, const struct segment *s,
                               const struct db_event *e, void *ctx, bool *is_row)
{
    if (e->kind != FRAME_SIGNAL)
        return NULL;
    *is_row = true;
    return give(q, signal_row(q, e));
}

struct err *query_signals(struct query_engine *q, json_t *params)
{
    struct window w;
    TRY(param_window(q, params, 50, &w));
    return walk_events(q, &w, each_signal, NULL, &q->sink->more);
}

static struct err *each_event(struct query_engine *q, const struct segment *s,
                              const struct db_event *e, void *ctx, bool *is_row)
{
    char name[64];
    *is_row = true;
    json_t *row = event_row(q, e);
    json_object_set_new(row, "number", json_integer((json_int_t)e->number));
    json_object_set_new(row, "name", json_string(event_name(q, e, name, sizeof(name))));
    if (e->kind == FRAME_SYSCALL && e->syscall_state == SYSCALL_EXITING) {
        char detail[64];
        snprintf(detail, sizeof(detail),
                 (int64_t)e->result < 0 && (int64_t)e->result > -4096 ? "= %lld" : "= %#llx",
                 (long long)e->result);
        json_object_set_new(row, "detail", json_string(detail));
    }
    return give(q, row);
}

struct err *query_events(struct query_engine *q, json_t *params)
{
    struct window w;
    TRY(param_window(q, params, 50, &w));
    return walk_events(q, &w, each_event, NULL, &q->sink->more);
}

/* --- tasks --- */

const char *exe_of(const struct query_engine *q, const struct trace_task_event *exec)
{
    size_t count;
    const struct trace_mmap *maps = trace_mmaps(q->trace, &count);
    for (size_t i = 0; i < count; i++) {
        if (maps[i].event == exec->event && maps[i].start <= exec->exe_base &&
            exec->exe_base < maps[i].end)
            return maps[i].name;
    }
    return NULL;
}

static struct err *give_task(struct query_engine *q, const struct known_task *t)
{
    size_t records;
    const struct trace_task_event *record = trace_task_events(q->trace, &records);
    json_t *row = json_object(), *execs = json_array();
    const char *name = NULL;
    json_object_set_new(row, "task", json_task(q, t->serial));
    if (t->parent)
        json_object_set_new(row, "parent", json_task(q, t->parent));
    json_object_set_new(row, "kind", json_string(t->is_thread ? "thread" : "process"));
    if (t->was_32bit)
        json_object_set_new(row, "bits", json_integer(32));
    const char *how = !t->parent                  ? "initial"
                      : t->is_thread              ? "clone"
                      : (t->clone_flags & 0x4000) ? "vfork"
                                                  : "fork";
    json_object_set_new(row, "how", json_string(how));
    json_object_set_new(row, "start", json_moment(t->start));
    for (size_t i = 0; i < records; i++) {
        if (record[i].kind != TASK_EXEC || record[i].event >= q->runner.count ||
            q->runner.items[record[i].event] != t->serial)
            continue;
        json_t *argv = json_array();
        for (size_t k = 0; k < record[i].argc; k++)
            json_array_append_new(argv, json_text(record[i].argv[k], strlen(record[i].argv[k])));
        const struct db_event *e;
        TRY(event_at(q, record[i].event, &e, NULL));
        json_t *exec =
            json_pack("{so, so, si}", "moment", json_moment((struct moment){record[i].event, 0}),
                      "argv", argv, "bits", e->syscall_arch == ARCH_X86 ? 32 : 64);
        const char *exe = exe_of(q, &record[i]);
        if (exe)
            json_object_set_new(exec, "exe", json_text(exe, strlen(exe)));
        json_array_append_new(execs, exec);
        name = strrchr(record[i].file_name, '/') ? strrchr(record[i].file_name, '/') + 1
                                                 : record[i].file_name;
    }
    for (const struct known_task *p = t; !name && p; p = known_task(q, p->parent)) {
        for (size_t i = 0; i < records && !name; i++) {
            if (record[i].kind == TASK_EXEC && record[i].event < q->runner.count &&
                q->runner.items[record[i].event] == p->serial)
                name = strrchr(record[i].file_name, '/') ? strrchr(record[i].file_name, '/') + 1
                                                         : record[i].file_name;
        }
    }
    json_object_set_new(row, "execs", execs);
    json_object_set_new(row, "name", json_text(name ? name : "?", strlen(name ? name : "?")));
    if (t->ended) {
        json_object_set_new(row, "end", json_moment(t->end));
        json_t *exits = json_pack("{si}", "status", t->exit_status >> 8 & 0xff);
        if (t->exit_status & 0x7f) {
            char signal[32];
            json_object_set_new(
                exits, "signal",
                json_string(signal_name(t->exit_status & 0x7f, signal, sizeof(signal))));
        }
        json_object_set_new(row, "exits", exits);
    }
    return give(q, row);
}

struct err *query_task_tree(struct query_engine *q, json_t *params)
{
    vec_each (t, &q->tasks)
        TRY(give_task(q, t));
    return NULL;
}

struct err *query_current_tasks(struct query_engine *q, json_t *params)
{
    struct focus f;
    TRY(param_focus(q, params, &f));
    vec_each (t, &q->tasks) {
        if (moment_cmp(t->start, f.moment) <= 0 && (!t->ended || moment_cmp(f.moment, t->end) <= 0))
            TRY(give_task(q, t));
    }
    return NULL;
}
