/* Opening a database, and the table of queries. */
#include "query/query_int.h"

#include "base/clock.h"
#include "base/log.h"
#include "sources/tree.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

struct err *check_cancel(struct query_engine *q)
{
    if (q->sink && q->sink->cancelled && atomic_load(q->sink->cancelled))
        return err_new(ERR_CANCELLED, "cancelled");
    return NULL;
}

uint32_t task_running_at(const struct query_engine *q, struct moment m)
{
    return m.event + 1 < q->runner.count ? q->runner.items[m.event + 1] : 0;
}

const struct known_task *known_task(const struct query_engine *q, uint32_t serial)
{
    return serial && serial <= q->tasks.count ? &q->tasks.items[serial - 1] : NULL;
}

struct err *space_of_task(struct replay *r, uint32_t task, uint32_t *out)
{
    size_t count;
    const struct task_info *tasks = replay_tasks(r, &count);
    for (size_t i = 0; i < count; i++) {
        if (tasks[i].serial == task) {
            *out = tasks[i].space;
            return NULL;
        }
    }
    return err_new(ERR_NOT_FOUND, "task %u does not exist at this moment", task);
}

struct moment end_of_recording(const struct query_engine *q)
{
    size_t count;
    const struct history_segment *s = history_segments(q->history, &count);
    return s[count - 1].end;
}

/* --- opening --- */

static struct known_task *task_slot(struct query_engine *q, uint32_t serial)
{
    while (q->tasks.count < serial) {
        struct known_task *t = vec_add(&q->tasks);
        t->serial = (uint32_t)q->tasks.count;
    }
    return &q->tasks.items[serial - 1];
}

/* Tasks, and which of them each event belongs to, from the events of all segments. */
static struct err *read_tasks(struct query_engine *q)
{
    size_t segments, records;
    history_segments(q->history, &segments);
    const struct trace_task_event *record = trace_task_events(q->trace, &records);
    size_t next = 0;
    vec_push(&q->runner, 0);
    vec_push(&q->event_icount, 0);
    for (size_t i = 0; i < segments; i++) {
        const struct segment *s;
        TRY(history_part(q->history, i, PART_EVENTS, &s));
        vec_each (e, &s->events) {
            if (e->number != q->runner.count || e->task > e->number || e->created_task > e->number)
                return err_new(ERR_FORMAT, "segment %zu: event %llu is out of order", i,
                               (unsigned long long)e->number);
            vec_push(&q->runner, e->task);
            vec_push(&q->event_icount, e->icount);
            const struct trace_task_event *clone = NULL, *exit = NULL, *exec = NULL;
            while (next < records && record[next].event <= e->number) {
                if (record[next].event == e->number) {
                    if (record[next].kind == TASK_CLONE)
                        clone = &record[next];
                    if (record[next].kind == TASK_EXIT)
                        exit = &record[next];
                    if (record[next].kind == TASK_EXEC)
                        exec = &record[next];
                }
                next++;
            }
            if (e->created_task) {
                struct known_task *t = task_slot(q, e->created_task);
                t->start = (struct moment){e->number, 0};
                t->tid = clone ? clone->tid : exec ? exec->tid : 0;
                t->parent = clone ? e->task : 0;
                t->clone_flags = clone ? clone->clone_flags : 0;
                t->is_thread = clone && (clone->clone_flags & 0x10000); // CLONE_THREAD
                const struct known_task *parent = known_task(q, t->parent);
                t->is_32bit = t->was_32bit = parent && parent->is_32bit;
            }
            if (exec && e->task) { // the event's number is one of the new program's architecture
                struct known_task *t = task_slot(q, e->task);
                t->is_32bit = e->kind == FRAME_SYSCALL && e->syscall_arch == ARCH_X86;
                t->was_32bit |= t->is_32bit;
            }
            if (e->ended_task) {
                struct known_task *t = task_slot(q, e->ended_task);
                t->end = (struct moment){e->number - 1, e->icount};
                t->ended = true;
                t->exit_status = exit ? exit->exit_status : 0;
            }
        }
    }
    q->last_event = q->runner.count - 1;
    return NULL;
}

static void make_title(struct query_engine *q)
{
    size_t records;
    const struct trace_task_event *record = trace_task_events(q->trace, &records);
    struct buf title = {0};
    for (size_t i = 0; i < records && !title.len; i++) {
        if (record[i].kind != TASK_EXEC)
            continue;
        for (size_t k = 0; k < record[i].argc && title.len < 80; k++) {
            const char *arg = record[i].argv[k], *slash = k == 0 ? strrchr(arg, '/') : NULL;
            buf_printf(&title, "%s%.60s", k ? " " : "", slash ? slash + 1 : arg);
        }
    }
    q->title = title.len ? buf_steal_str(&title) : xstrdup("recording");
    buf_deinit(&title);
}

/* What is made from the database: everything but the trace, its modules and the options. */
static struct err *open_history(struct query_engine *q)
{
    cleanup(freep) char *db = str_format("%s/db", trace_dir(q->trace));
    TRY(history_open_best(db, trace_header(q->trace)->uuid, &q->history));
    return read_tasks(q);
}

static void close_history(struct query_engine *q)
{
    register_index_free(q->register_index);
    q->register_index = NULL;
    written_filters_free(q->written_filters);
    q->written_filters = NULL;
    descriptors_free(q->descriptors);
    q->descriptors = NULL;
    heap_calls_free(q->heap_calls);
    q->heap_calls = NULL;
    history_close(q->history);
    q->history = NULL;
    vec_deinit(&q->tasks);
    vec_deinit(&q->runner);
    vec_deinit(&q->event_icount);
}

static const char *program_binary(void *ctx, size_t idx)
{
    const struct query_engine *q = ctx;
    return q->modules.items[idx]->backing;
}

static const char *program_build_id(void *ctx, size_t idx)
{
    struct query_engine *q = ctx;
    struct sym_module *sym;
    struct err *e = module_sym(q, q->modules.items[idx], &sym);
    bool is_known = !e;
    err_free(e);
    return is_known ? sym_module_build_id(sym) : NULL;
}

static void open_sources(struct query_engine *q)
{
    const struct sources_programs programs = {.ctx = q,
                                              .count = q->modules.count,
                                              .binary = program_binary,
                                              .build_id = program_build_id};
    q->sources = sources_open(trace_dir(q->trace), &programs,
                              (const char *const *)q->source_maps.items, q->source_maps.count / 2);
    vec_each (m, &q->modules) {
        const char *dir = sources_comp_dir(q->sources, (*m)->backing);
        (*m)->comp_dir = dir ? xstrdup(dir) : NULL;
        if (dir && (*m)->sym) // opened for its build id
            sym_module_set_comp_dir((*m)->sym, dir);
    }
}

struct err *query_engine_open(const char *dir, const struct query_options *options,
                              struct query_engine **out)
{
    cleanup(query_engine_closep) struct query_engine *q = xnew(struct query_engine);
    q->options.memory_bytes =
        options && options->memory_bytes ? options->memory_bytes : DEFAULT_MEMORY;
    q->options.parts = options ? options->parts : 0;
    seats_open(q);
    recall_open(q);
    kept_rows_open(q);
    TRY(trace_open(dir, &q->trace));
    err_free(
        replay_spare(q->trace, &q->spare)); // what is wrong will be told when a worker is needed
    for (size_t i = 0; options && i < 2 * options->source_map_count; i++)
        vec_push(&q->source_maps, xstrdup(options->source_maps[i]));
    TRY(open_history(q));
    make_title(q);
    modules_open(q);
    open_sources(q);
    *out = steal(q);
    return NULL;
}

void query_engine_close(struct query_engine *q)
{
    if (!q)
        return;
    seats_close(q);
    worker_destroy(q->spare);
    recall_close(q);
    kept_rows_close(q);
    sources_close(q->sources);
    presences_deinit(q);
    modules_close(q);
    close_history(q);
    trace_close(q->trace);
    vec_each (s, &q->source_maps)
        free(*s);
    vec_deinit(&q->source_maps);
    free(q->title);
    free(q);
}

struct err *query_engine_confine(const struct query_engine *q, const char *const *more,
                                 size_t more_count)
{
    VEC(const char *) paths = {0};
    for (size_t i = 0; i < more_count; i++)
        vec_push(&paths, more[i]);
    for (size_t i = 1; i < q->source_maps.count; i += 2) // pairs FROM, TO
        vec_push(&paths, q->source_maps.items[i]);
    struct err *e = trace_confine_reading(q->trace, paths.items, paths.count);
    vec_deinit(&paths);
    return e;
}

/* A database in the making is opened anew when there is more of it; seldom enough that this takes a
 * small part of the time. */
static struct err *follow_growth(struct query_engine *q)
{
    enum { PAUSE_MS = 1000, SHARE = 20 };
    uint64_t start = now_ms();
    if (q->history &&
        (history_complete(q->history) || start < q->look_again_ms || !history_grew(q->history)))
        return NULL;
    seats_close(q);
    seats_open(q);
    recall_close(q);
    kept_rows_close(q);
    recall_open(q);
    kept_rows_open(q);
    presences_deinit(q);
    close_history(q);
    TRY(open_history(q));
    q->look_again_ms = now_ms() + PAUSE_MS + SHARE * (now_ms() - start);
    return NULL;
}

const char *query_title(const struct query_engine *q)
{
    return q->title;
}

/* --- sources --- */

struct err *query_open_source(const struct query_engine *q, const char *path, int *fd_out)
{
    struct source_place place;
    TRY(sources_find(q->sources, path, &place));
    cleanup(freep) char *url = place.url;
    if (url)
        return err_new(ERR_NOT_FOUND, "%s: is at %s, which this server does not fetch", path, url);
    *fd_out = place.fd;
    return NULL;
}

/* --- the table --- */

static const struct {
    const char *name;
    query_function *run;
} queries[] = {
    {"info", query_info},
    {"complete-frame", query_complete_frame},
    {"stack", query_stack},
    {"variables", query_variables},
    {"registers", query_registers},
    {"siginfo", query_siginfo},
    {"memory", query_memory},
    {"search", query_search},
    {"execution", query_execution},
    {"breakpoint", query_breakpoint},
    {"address-execution", query_address_execution},
    {"watchpoint", query_watchpoint},
    {"step", query_step},
    {"stdouterr", query_stdouterr},
    {"signals", query_signals},
    {"alerts", query_alerts},
    {"task-tree", query_task_tree},
    {"current-tasks", query_current_tasks},
    {"dynamicAnnotations", query_annotations},
    {"source", query_source},
    {"maps", query_maps},
    {"events", query_events},
    {"functions-in-file", query_functions_in_file},
    {"counts", query_counts},
    {"evaluate", query_evaluate},
    {"instructions", query_instructions},
    {"dataflow", query_dataflow},
    {"uses", query_uses},
    {"call", query_call},
    {"callees", query_callees},
    {"timeline", query_timeline},
    {"join", query_join},
    {"allocation", query_allocation},
    {"allocations", query_allocations},
};

struct err *query_lay_out_sources(const struct query_engine *q, const char *root, bool all)
{
    static const char *const everything[] = {"/", "/"};
    struct sources_beside beside = {(const char *const *)q->source_maps.items,
                                    q->source_maps.count / 2};
    if (all && !beside.count)
        beside = (struct sources_beside){everything, 1};
    return sources_lay_out(q->sources, root, QUERY_RELATIVE_SOURCES, &beside);
}

struct err *engine_begin(struct query_engine *q, struct query_sink *sink)
{
    TRY(follow_growth(q));
    q->sink = sink;
    return NULL;
}

void engine_end(struct query_engine *q)
{
    release_state(q);
    q->sink = NULL;
}

struct err *query_run(struct query_engine *q, const char *name, json_t *params,
                      struct query_sink *sink)
{
    if (params && !json_is_object(params) && !json_is_null(params))
        return err_new(ERR_USAGE, "params must be an object");
    for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
        if (!str_eq(queries[i].name, name))
            continue;
        sink->more = false;
        TRY(engine_begin(q, sink));
        struct err *e = queries[i].run(q, params);
        engine_end(q);
        return e;
    }
    return err_new(ERR_USAGE, "there is no query %.40s", name);
}
