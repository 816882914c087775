#include "gdbstub/past.h"

#include "gdbstub/hex.h"
#include "gdbstub/registers.h"
#include "query/breakpoint.h"
#include "query/diversion.h"
#include "query/query.h"

static bool keep_row(void *ctx, json_t *row)
{
    json_array_append_new(ctx, row);
    return true;
}

static void decref(json_t **j)
{
    json_decref(*j);
}

/* Runs a query; takes over params. *rows_out is the caller's. */
static struct err *ask(struct past *p, const char *name, json_t *params, json_t **rows_out)
{
    json_t *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row, .cancelled = p->cancelled};
    struct err *e = query_run(p->q, name, params, &sink);
    json_decref(params);
    if (e)
        json_decref(rows);
    else
        *rows_out = rows;
    return e;
}

static json_t *focus_json(struct moment m, uint32_t task)
{
    json_t *f = json_pack("{so}", "moment", json_moment(m));
    if (task)
        json_object_set_new(f, "task", json_pack("{si}", "serial", (int)task));
    return f;
}

static uint32_t serial_of(const json_t *task)
{
    return (uint32_t)json_integer_value(json_object_get(task, "serial"));
}

static char *string_of(const json_t *s)
{
    return json_is_string(s) ? xstrdup(json_string_value(s)) : NULL;
}

/* A row's focus. */
static void stop_of(const json_t *row, struct past_stop *out)
{
    const json_t *focus = json_object_get(row, "focus");
    *out = (struct past_stop){moment_of_json(json_object_get(focus, "moment")),
                              serial_of(json_object_get(focus, "task")), 0};
}

static void add_task(struct past *p, json_t *row)
{
    uint32_t serial = serial_of(json_object_get(row, "task")),
             parent = serial_of(json_object_get(row, "parent"));
    const struct past_task *maker = past_task(p, parent);
    bool thread = json_is_string(json_object_get(row, "kind")) &&
                  str_eq(json_string_value(json_object_get(row, "kind")), "thread");
    const json_t *end = json_object_get(row, "end");
    struct past_task task = {
        .serial = serial,
        .parent = parent,
        .process = thread && maker ? maker->process : serial,
        .tid = (int32_t)json_integer_value(json_object_get(json_object_get(row, "task"), "tid")),
        .start = moment_of_json(json_object_get(row, "start")),
        .end = end ? moment_of_json(end) : p->end,
        .name = string_of(json_object_get(row, "name"))};
    vec_push(&p->tasks, task);
    size_t i;
    json_t *exec;
    json_array_foreach(json_object_get(row, "execs"), i, exec)
    {
        struct past_exec x = {task.process,
                              moment_of_json(json_object_get(exec, "moment")),
                              string_of(json_object_get(exec, "exe")),
                              {0}};
        size_t k;
        json_t *argument;
        json_array_foreach(json_object_get(exec, "argv"), k, argument)
            buf_add(&x.arguments, json_string_value(argument), json_string_length(argument) + 1);
        vec_push(&p->execs, x);
    }
}

struct err *past_open(struct past *p, struct query_engine *q)
{
    *p = (struct past){.q = q};
    cleanup(decref) json_t *info = NULL, *tasks = NULL;
    TRY(ask(p, "info", json_object(), &info));
    p->end = moment_of_json(json_object_get(json_array_get(info, 0), "end"));
    TRY(ask(p, "task-tree", json_object(), &tasks));
    size_t i;
    json_t *row;
    json_array_foreach(tasks, i, row) add_task(p, row);
    return NULL;
}

void past_close(struct past *p)
{
    vec_each (t, &p->tasks)
        free(t->name);
    vec_each (x, &p->execs) {
        free(x->exe);
        buf_deinit(&x->arguments);
    }
    vec_deinit(&p->tasks);
    vec_deinit(&p->execs);
}

/* --- tasks and programs --- */

struct err *past_first_focus(struct past *p, struct moment *m_out, uint32_t *task_out)
{
    cleanup(decref) json_t *info = NULL;
    TRY(ask(p, "info", json_object(), &info));
    const json_t *focus = json_object_get(json_array_get(info, 0), "firstFocus");
    *m_out = moment_of_json(json_object_get(focus, "moment"));
    *task_out = serial_of(json_object_get(focus, "task"));
    return NULL;
}

struct err *past_task_at(struct past *p, struct moment m, uint32_t *out)
{
    cleanup(decref) json_t *rows = NULL;
    TRY(ask(p, "complete-frame", json_pack("{so}", "focus", focus_json(m, 0)), &rows));
    *out = serial_of(json_object_get(json_array_get(rows, 0), "task"));
    return NULL;
}

const struct past_task *past_task(const struct past *p, uint32_t serial)
{
    vec_each (t, &p->tasks) {
        if (t->serial == serial)
            return t;
    }
    return NULL;
}

const struct past_exec *past_exec_at(const struct past *p, uint32_t process, struct moment m)
{
    const struct past_exec *first = NULL;
    for (const struct past_task *t = past_task(p, process); t; t = past_task(p, t->parent)) {
        const struct past_exec *last = NULL;
        vec_each (x, &p->execs) {
            if (x->process != t->process)
                continue;
            if (moment_cmp(x->moment, m) <= 0)
                last = x;
            else if (!first)
                first = x;
        }
        if (last)
            return last;
        m = t->start; // a child goes on with what its parent executed then
    }
    return first;
}

struct moment past_process_start(const struct past *p, uint32_t process)
{
    const struct past_task *t = past_task(p, process);
    return t ? t->start : (struct moment){0};
}

/* --- state --- */

static void add_registers(const json_t *rows, struct buf *out)
{
    struct known_register *known = xnew_array(struct known_register, json_array_size(rows));
    size_t i, count = 0;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        struct known_register *k = &known[count++];
        const char *value = json_string_value(json_object_get(row, "value"));
        k->name = json_string_value(json_object_get(row, "name"));
        if (value && str_starts(value, "0x")) {
            uint64_t v = strtoull(value, NULL, 16);
            k->len = sizeof(v);
            memcpy(k->value, &v, sizeof(v));
        } else {
            cleanup(buf_deinit) struct buf bytes = {0};
            hex_read_bytes(value ? value : "", &bytes);
            k->len = bytes.len < sizeof(k->value) ? bytes.len : sizeof(k->value);
            if (k->len)
                memcpy(k->value, bytes.data, k->len);
        }
    }
    registers_packet(known, count, out);
    free(known);
}

struct err *past_registers(struct past *p, struct moment m, uint32_t task, struct buf *out)
{
    cleanup(decref) json_t *rows = NULL;
    TRY(ask(p, "registers", json_pack("{so, sb}", "focus", focus_json(m, task), "all", 1), &rows));
    add_registers(rows, out);
    return NULL;
}

struct err *past_diverted_registers(struct query_diversion *d, uint32_t task, struct buf *out)
{
    cleanup(decref) json_t *rows = NULL;
    TRY(query_diversion_registers(d, task, &rows));
    add_registers(rows, out);
    return NULL;
}

struct err *past_memory(struct past *p, struct moment m, uint32_t task, gaddr addr, size_t len,
                        struct buf *out)
{
    cleanup(decref) json_t *rows = NULL;
    TRY(ask(p, "memory",
            json_pack("{so, so, sI}", "focus", focus_json(m, task), "address", json_hex(addr),
                      "length", (json_int_t)len),
            &rows));
    const json_t *row = json_array_get(rows, 0);
    cleanup(buf_deinit) struct buf bytes = {0};
    const char *text = json_string_value(json_object_get(row, "bytes"));
    hex_read_bytes(text ? text : "", &bytes);
    // Up to the first hole.
    size_t good = bytes.len;
    const json_t *hole = json_array_get(json_array_get(json_object_get(row, "unmapped"), 0), 0);
    if (hole) {
        uint64_t at = strtoull(json_string_value(hole), NULL, 16);
        good = at - addr < good ? at - addr : good;
    }
    if (!good)
        return err_new(ERR_FAULT, "nothing is mapped at 0x%llx", (unsigned long long)addr);
    buf_add(out, bytes.data, good);
    return NULL;
}

static struct err *read_words(struct past *p, struct moment m, uint32_t task, gaddr addr,
                              uint64_t *words, size_t count)
{
    cleanup(buf_deinit) struct buf bytes = {0};
    TRY(past_memory(p, m, task, addr, count * 8, &bytes));
    if (bytes.len != count * 8)
        return err_new(ERR_FAULT, "nothing is mapped at 0x%llx",
                       (unsigned long long)(addr + bytes.len));
    memcpy(words, bytes.data, bytes.len);
    return NULL;
}

struct err *past_auxv(struct past *p, uint32_t process, struct moment m, struct buf *out)
{
    enum { MOST_STRINGS = 1 << 20, MOST_PAIRS = 64 };
    const struct past_exec *x = past_exec_at(p, process, m);
    if (!x)
        return err_new(ERR_NOT_FOUND, "the program's start is not in the recording");
    // argc, argv and NULL, environment and NULL, auxiliary vector.
    cleanup(decref) json_t *rows = NULL;
    TRY(ask(p, "registers", json_pack("{so}", "focus", focus_json(x->moment, x->process)), &rows));
    gaddr at = 0;
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        if (str_eq(json_string_value(json_object_get(row, "name")), "rsp"))
            at = strtoull(json_string_value(json_object_get(row, "value")), NULL, 16);
    }
    uint64_t argc, word = 1, pair[2];
    TRY(read_words(p, x->moment, x->process, at, &argc, 1));
    if (argc > MOST_STRINGS)
        return err_new(ERR_FORMAT, "the program has %llu arguments", (unsigned long long)argc);
    at += 8 * (argc + 2);
    for (unsigned n = 0; word && n < MOST_STRINGS; n++, at += 8)
        TRY(read_words(p, x->moment, x->process, at, &word, 1));
    for (unsigned n = 0; n < MOST_PAIRS; n++, at += 16) {
        TRY(read_words(p, x->moment, x->process, at, pair, 2));
        buf_add(out, pair, sizeof(pair));
        if (!pair[0])
            return NULL;
    }
    return err_new(ERR_FORMAT, "the auxiliary vector has no end");
}

static uint64_t number_of(const json_t *row, const char *name)
{
    const char *text = json_string_value(json_object_get(row, name));
    return text ? strtoull(text, NULL, 16) : 0;
}

/* proc(5) */
struct err *past_maps(struct past *p, struct moment m, uint32_t task, struct buf *out)
{
    cleanup(decref) json_t *rows = NULL;
    TRY(ask(p, "maps", json_pack("{so}", "focus", focus_json(m, task)), &rows));
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *name = json_string_value(json_object_get(row, "name"));
        buf_printf(out, "%llx-%llx %s %08llx 00:00 0 %s%s\n",
                   (unsigned long long)number_of(row, "start"),
                   (unsigned long long)number_of(row, "end"),
                   json_string_value(json_object_get(row, "prot")),
                   (unsigned long long)number_of(row, "offset"),
                   name && *name ? "                    " : "", name ? name : "");
    }
    return NULL;
}

struct err *past_siginfo(struct past *p, struct moment m, uint32_t task, struct buf *out)
{
    cleanup(decref) json_t *rows = NULL;
    TRY(ask(p, "siginfo", json_pack("{so}", "focus", focus_json(m, task)), &rows));
    hex_read_bytes(json_string_value(json_object_get(json_array_get(rows, 0), "bytes")), out);
    return NULL;
}

struct err *past_open_file(struct past *p, const char *name, int *fd_out)
{
    struct err *e = query_open_mapped(p->q, name, fd_out);
    if (!e)
        return NULL;
    err_free(e);
    return query_open_debug(p->q, name, fd_out);
}

/* --- what stops a run --- */

struct err *past_step(struct past *p, struct moment m, uint32_t task, bool forward,
                      struct moment *out, gaddr *pc_out)
{
    cleanup(decref) json_t *rows = NULL;
    TRY(ask(p, "step",
            json_pack("{so, ss, ss}", "focus", focus_json(m, task), "kind", "instruction",
                      "direction", forward ? "forward" : "backward"),
            &rows));
    struct past_stop stop;
    stop_of(json_array_get(rows, 0), &stop);
    *out = stop.moment;
    const char *pc = json_string_value(json_object_get(json_array_get(rows, 0), "pc"));
    if (pc_out && pc)
        *pc_out = strtoull(pc, NULL, 16);
    return NULL;
}

static json_t *with_window(json_t *params, struct moment from, bool forward, size_t limit)
{
    json_object_set_new(params, "direction", json_string(forward ? "forward" : "backward"));
    json_object_set_new(params, "from", json_moment(from));
    json_object_set_new(params, "limit", json_integer((json_int_t)limit));
    return params;
}

/* The first of the rows that is about the process, and about no signal of `passed`. *from: where
 * the window goes on behind what was seen. */
static bool first_of(const struct past *p, const json_t *rows, uint32_t process, uint64_t passed,
                     bool forward, struct moment *from, struct past_stop *out)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        stop_of(row, out);
        *from = forward ? (struct moment){out->moment.event, out->moment.icount + 1} : out->moment;
        out->signal = (int)json_integer_value(json_object_get(row, "number"));
        const struct past_task *t = past_task(p, out->task);
        bool wanted = out->signal < 1 || out->signal > 64 || !(passed >> (out->signal - 1) & 1);
        if (wanted && t && t->process == process)
            return true;
    }
    return false;
}

/* Who may stop a run: tasks of one process. */
struct owner {
    const struct past *past;
    uint32_t process;
};

static bool is_owner(void *ctx, uint32_t task)
{
    const struct owner *o = ctx;
    const struct past_task *t = past_task(o->past, task);
    return t && t->process == o->process;
}

struct err *past_execution(struct past *p, uint32_t process, gaddr pc,
                           const struct program *condition, struct moment from, bool forward,
                           struct past_stop *out, bool *found_out)
{
    struct owner owner = {p, process};
    const struct query_breakpoint b = {
        .pc = pc, .condition = condition, .ctx = &owner, .wanted = is_owner};
    out->signal = 0;
    return query_find_execution(p->q, &b, from, forward, p->cancelled, &out->moment, &out->task,
                                found_out);
}

struct err *past_access(struct past *p, uint32_t task, struct moment m, gaddr addr, uint64_t len,
                        const char *access, struct moment from, bool forward, struct past_stop *out,
                        struct moment *after_out, bool *found_out)
{
    cleanup(decref) json_t *rows = NULL;
    json_t *params = json_pack("{so, so, sI, ss}", "focus", focus_json(m, task), "address",
                               json_hex(addr), "length", (json_int_t)len, "access", access);
    TRY(ask(p, "watchpoint", with_window(params, from, forward, 1), &rows));
    const json_t *row = json_array_get(rows, 0);
    *found_out = row != NULL;
    if (!row)
        return NULL;
    stop_of(row, out);
    bool kernel = str_eq(json_string_value(json_object_get(row, "by")), "kernel");
    *after_out = kernel ? (struct moment){out->moment.event + 1, 0}
                        : (struct moment){out->moment.event, out->moment.icount + 1};
    return NULL;
}

struct err *past_signal(struct past *p, uint32_t process, uint64_t passed, struct moment from,
                        bool forward, struct past_stop *out, bool *found_out)
{
    enum { AT_A_TIME = 64 };
    *found_out = false;
    for (;;) {
        cleanup(decref) json_t *rows = NULL;
        TRY(ask(p, "signals", with_window(json_object(), from, forward, AT_A_TIME), &rows));
        *found_out = first_of(p, rows, process, passed, forward, &from, out);
        if (*found_out || json_array_size(rows) < AT_A_TIME)
            return NULL;
    }
}
