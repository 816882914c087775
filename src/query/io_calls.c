/* System calls from the trace's events, and those that the recorder's library made itself
 * (index/system_calls.c): the database has their arguments and where their records are, the trace
 * has the records. */
#include "query/io_calls_int.h"

#include "index/system_calls.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>

enum {
    RECORD_RESULT = 0,
    RECORD_NUMBER = 8,
    RECORD_HEADER = 16
}; /* rr, src/preload/preload_interface.h: struct syscallbuf_record */

/* What the database has, of all segments. */
struct kept_calls {
    VEC(struct db_buffered_call) buffered;
    VEC(struct db_call_text) texts;
    struct buf text;
};

/* --- going through the events --- */

/* A task's state while the events go by. */
struct reading_task {
    uint32_t call; /* that it is in, plus 1; 0: none */
    uint32_t space;
};

struct reading {
    struct query_engine *q;
    struct io_calls *out;
    struct trace_cursor *data;      /* another than that of the events, whose frames have to stay */
    VEC(struct reading_task) tasks; /* by serial */
    struct mem_write records;       /* of the next event, if it is a flush; else of no size */
    size_t next_task;               /* of the engine's, that may begin next */
};

static struct reading_task *task_of(struct reading *g, uint32_t serial)
{
    while (g->tasks.count <= serial)
        vec_add(&g->tasks);
    return &g->tasks.items[serial];
}

static bool makes_two(int32_t no)
{
    return no == SYS_pipe || no == SYS_pipe2 || no == SYS_socketpair;
}

static gaddr pair_at(const struct io_call *c)
{
    return c->no == SYS_socketpair ? c->args[3] : c->args[0];
}

static struct err *read_buffered(struct reading *g, const struct db_buffered_call *s)
{
    const struct mem_write *w = &g->records;
    uint32_t task = task_running_at(g->q, s->at);
    uint64_t record = trace_header(g->q->trace)->syscallbuf_hdr_size + (uint64_t)s->recorded;
    uint8_t head[RECORD_HEADER];
    if (s->header != w->addr || record > w->size || w->size - record < RECORD_HEADER)
        return NULL; // it became an event, after all
    TRY(trace_read_data(g->data, w->data_offset + record, head, sizeof(head)));
    if (load_u16(head + RECORD_NUMBER) != s->no)
        return NULL;
    event_no flush = s->at.event + 1;
    struct io_call c = {.at = s->at,
                        .begin = flush,
                        .end = flush,
                        .task = task,
                        .space = s->space,
                        .no = s->no,
                        .buffered = true,
                        .done = true,
                        .result = (int64_t)load_u64(head + RECORD_RESULT),
                        .fds = {-1, -1},
                        .offsets = {-1, -1}};
    memcpy(c.args, s->args, sizeof(c.args));
    uint64_t pair = pair_at(&c) - w->addr;
    if (makes_two(c.no) && c.result == 0 && pair < w->size && w->size - pair >= sizeof(c.fds))
        TRY(trace_read_data(g->data, w->data_offset + pair, c.fds, sizeof(c.fds)));
    vec_push(
        &g->out->points,
        (struct io_point){.kind = IO_END, .task = task, .call = (uint32_t)g->out->calls.count});
    vec_push(&g->out->calls, c);
    return NULL;
}

bool io_call_moves(const struct io_call *c, struct io_move *out)
{
    const uint64_t *a = c->args;
    switch (c->no) {
    case SYS_splice:
    case SYS_copy_file_range:
        *out = (struct io_move){(int32_t)a[0], (int32_t)a[2], {a[1], a[3]}};
        return true;
    case SYS_sendfile:
        *out = (struct io_move){(int32_t)a[1], (int32_t)a[0], {a[2], 0}};
        return true;
    default:
        return false;
    }
}

static void read_entry(struct reading *g, const struct frame *f, uint32_t task)
{
    struct reading_task *t = task_of(g, task);
    t->call = 0;
    if (!system_call_is_kept((uint64_t)f->syscall_no) || f->failed_during_preparation)
        return;
    struct io_call c = {.at = moment_before_event(g->q, f->event),
                        .begin = f->event,
                        .task = task,
                        .space = t->space,
                        .no = f->syscall_no,
                        .fds = {-1, -1},
                        .offsets = {-1, -1}};
    system_call_args(&f->regs, c.args);
    vec_push(
        &g->out->points,
        (struct io_point){.kind = IO_BEGIN, .task = task, .call = (uint32_t)g->out->calls.count});
    vec_push(&g->out->calls, c);
    t->call = (uint32_t)g->out->calls.count;
}

/* A socket's address as bytes in hexadecimal, so that equal ones are equal: of AF_UNIX the path up
 * to its end, of IPv4 and IPv6 (also of one in the other) port and address. NULL: there is none.
 * told: by the recorder, which has ports in the machine's order (rr, util.cc:
 * read_proc_net_socket_addresses). */
static char *address_text(const uint8_t *p, size_t len, bool told)
{
    struct buf out = {0};
    if (len < 2)
        return NULL;
    uint16_t family = load_u16(p);
    size_t from = 0;
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (family == AF_UNIX && len > 2 && p[2])
        len = 2 + strnlen((const char *)p + 2, len - 2);
    if (family == AF_INET && len > 8)
        len = 8;
    if (family == AF_INET6 && len > 24)
        len = 24;
    if (family == AF_INET || family == AF_INET6) {
        uint8_t port[2] = {p[2], len > 3 ? p[3] : 0};
        buf_printf(&out, "%02x%02x:", port[told], port[!told]);
        from = family == AF_INET                                         ? 4
               : len == 24 && memcmp(p + 8, mapped, sizeof(mapped)) == 0 ? 20
                                                                         : 8;
    }
    for (size_t i = from; i < len; i++)
        buf_printf(&out, "%02x", p[i]);
    return buf_steal_str(&out);
}

static struct err *read_exit(struct reading *g, const struct frame *f, uint32_t task)
{
    struct reading_task *t = task_of(g, task);
    if (!t->call)
        return NULL;
    struct io_call *c = &g->out->calls.items[t->call - 1];
    if (c->no != f->syscall_no)
        return NULL; // one that a signal handler made
    c->end = f->event;
    c->done = true;
    c->result = (int64_t)f->regs.r[UREG_RAX];
    if (f->regs.r[UREG_ORIG_RAX] == (uint64_t)-2) // it was not made: what it gives is a filter's or
                                                  // a tracer's word (rr, ReplaySession.cc)
        c->result = -1;
    if (f->socket_addrs[0] && f->socket_addrs[1] && !c->paths[1]) {
        cleanup(freep) char *local = address_text(f->socket_addrs[0], f->socket_addr_lens[0], true);
        cleanup(freep) char *remote =
            address_text(f->socket_addrs[1], f->socket_addr_lens[1], true);
        c->paths[1] = local && remote ? str_format("%s %s", local, remote) : NULL;
    }
    for (size_t i = 0; i < f->write_count && makes_two(c->no) && c->result == 0; i++) {
        const struct mem_write *w = &f->writes[i];
        if (w->addr == pair_at(c) && w->size >= sizeof(c->fds) && !w->hole_count)
            TRY(trace_read_data(g->data, w->data_offset, c->fds, sizeof(c->fds)));
    }
    struct io_move move;
    for (size_t i = 0; i < f->write_count && io_call_moves(c, &move) && c->result > 0; i++) {
        const struct mem_write *w = &f->writes[i];
        for (unsigned k = 0; k < 2 && w->size == 8 && !w->hole_count; k++) {
            if (move.offsets[k] && w->addr == move.offsets[k])
                TRY(trace_read_data(g->data, w->data_offset, &c->offsets[k],
                                    sizeof(c->offsets[k])));
        }
    }
    vec_push(&g->out->points, (struct io_point){.kind = IO_END, .task = task, .call = t->call - 1});
    t->call = 0;
    return NULL;
}

/* The space that began with an event: by exec (no parent), or of a new process; 0: none. */
static uint32_t space_begun(const struct reading *g, event_no number, bool has_parent)
{
    size_t count;
    const struct db_space *spaces = history_spaces(g->q->history, &count);
    for (size_t i = 0; i < count; i++) {
        if (spaces[i].at.event == number && (spaces[i].parent != 0) == has_parent)
            return spaces[i].space;
    }
    return 0;
}

static void read_task_events(struct reading *g, const struct frame *f, uint32_t task)
{
    const struct query_engine *q = g->q;
    for (; g->next_task < q->tasks.count && q->tasks.items[g->next_task].start.event <= f->event;
         g->next_task++) {
        const struct known_task *t = &q->tasks.items[g->next_task];
        uint32_t space = t->parent ? space_begun(g, f->event, true) : 0;
        task_of(g, t->serial)->space = t->parent && !space ? task_of(g, t->parent)->space : space;
        if (t->parent)
            vec_push(&g->out->points,
                     (struct io_point){.kind = IO_CLONE, .task = t->parent, .child = t->serial});
    }
    for (size_t i = 0; i < f->task_count; i++) {
        if (f->tasks[i].kind == TASK_DETACH)
            vec_push(&g->out->points, (struct io_point){.kind = IO_FOREIGN, .task = task});
        if (f->tasks[i].kind != TASK_EXEC)
            continue;
        task_of(g, task)->space = space_begun(g, f->event, false);
        vec_push(&g->out->points, (struct io_point){.kind = IO_EXEC, .task = task});
    }
    if (f->kind == FRAME_EXIT) {
        task_of(g, task)->call = 0;
        vec_push(&g->out->points, (struct io_point){.kind = IO_EXIT, .task = task});
    }
}

static struct err *read_frame(struct reading *g, const struct frame *f)
{
    uint32_t task = f->event < g->q->runner.count ? g->q->runner.items[f->event] : 0;
    if (!task)
        return NULL; // before the first program, or beyond what the database has
    read_task_events(g, f, task);
    if (f->kind != FRAME_SYSCALL || !f->has_regs)
        return NULL;
    if (f->syscall_arch != ARCH_X86_64)
        vec_push(&g->out->points, (struct io_point){.kind = IO_FOREIGN, .task = task});
    else if (f->syscall_state == SYSCALL_ENTERING)
        read_entry(g, f, task);
    else if (f->syscall_state == SYSCALL_EXITING)
        return read_exit(g, f, task);
    return NULL;
}

static struct err *read_all(struct reading *g, const struct kept_calls *kept)
{
    cleanup(trace_cursor_closep) struct trace_cursor *c = NULL;
    TRY(trace_cursor_open(g->q->trace, &c));
    size_t next = 0;
    for (;;) {
        const struct frame *f;
        TRY(trace_cursor_next(c, &f));
        bool flush =
            f && f->kind == FRAME_SYSCALLBUF_FLUSH && f->write_count && !f->writes[0].hole_count;
        g->records = flush ? f->writes[0] : (struct mem_write){0};
        for (;
             next < kept->buffered.count && (!f || kept->buffered.items[next].at.event < f->event);
             next++)
            TRY(read_buffered(g, &kept->buffered.items[next]));
        if (!f || f->event > g->q->last_event)
            return NULL;
        TRY(read_frame(g, f));
        if (f->event % 1024 == 0)
            TRY(check_cancel(g->q));
    }
}

/* --- from the database --- */

static struct err *list_kept(struct query_engine *q, struct kept_calls *out)
{
    size_t segments;
    history_segments(q->history, &segments);
    for (size_t i = 0; i < segments; i++) {
        const struct segment *s;
        TRY(history_part(q->history, i, PART_CALLS, &s));
        vec_each (c, &s->buffered_calls)
            vec_push(&out->buffered, *c);
        vec_each (t, &s->call_texts) {
            struct db_call_text *kept = vec_add(&out->texts);
            *kept = *t;
            kept->off += (uint32_t)out->text.len;
        }
        buf_add(&out->text, s->call_text.data, s->call_text.len);
        if (out->text.len > UINT32_MAX)
            return err_new(ERR_LIMIT, "too many paths of system calls");
    }
    return NULL;
}

/* The paths and addresses of calls that have some. */
static void add_texts(struct io_calls *out, const struct kept_calls *kept)
{
    vec_each (t, &kept->texts) {
        size_t i = io_call_from(out, t->at);
        struct io_call *c = &out->calls.items[i];
        const uint8_t *text = kept->text.data + t->off;
        bool asked = i < out->calls.count && c->no == SYS_connect && c->result == -EINPROGRESS;
        if (i == out->calls.count || moment_cmp(c->at, t->at) != 0 || !c->done ||
            (c->result < 0 && !asked) || t->idx > 1 || c->paths[t->idx])
            continue;
        bool address = c->no == SYS_bind || c->no == SYS_connect;
        c->paths[t->idx] = address ? address_text(text, t->len, false)
                                   : str_format("%.*s", (int)t->len, (const char *)text);
    }
}

struct err *io_calls_read(struct query_engine *q, struct io_calls *out)
{
    *out = (struct io_calls){0};
    struct reading g = {.q = q, .out = out};
    struct kept_calls kept = {0};
    struct err *e = trace_cursor_open(q->trace, &g.data);
    if (!e)
        e = list_kept(q, &kept);
    if (!e)
        e = read_all(&g, &kept);
    if (!e)
        add_texts(out, &kept);
    trace_cursor_close(g.data);
    vec_deinit(&g.tasks);
    vec_deinit(&kept.buffered);
    vec_deinit(&kept.texts);
    buf_deinit(&kept.text);
    if (e)
        io_calls_deinit(out);
    return e;
}

void io_calls_deinit(struct io_calls *c)
{
    vec_each (call, &c->calls) {
        free(call->paths[0]);
        free(call->paths[1]);
    }
    vec_deinit(&c->calls);
    vec_deinit(&c->points);
}

/* --- asking --- */

size_t io_call_from(const struct io_calls *c, struct moment at)
{
    size_t low = 0, high = c->calls.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (moment_cmp(c->calls.items[middle].at, at) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct io_call *io_call_at(const struct io_calls *c, struct moment at, uint32_t task)
{
    for (size_t i = io_call_from(c, at);
         i < c->calls.count && moment_cmp(c->calls.items[i].at, at) == 0; i++) {
        if (c->calls.items[i].task == task)
            return &c->calls.items[i];
    }
    return NULL;
}

const struct io_call *io_call_ending(const struct io_calls *c, event_no end, uint32_t task)
{
    for (size_t i = io_call_from(c, (struct moment){end, 0}); i-- > 0;) {
        if (c->calls.items[i].task == task)
            return c->calls.items[i].end == end && !c->calls.items[i].buffered ? &c->calls.items[i]
                                                                               : NULL;
    }
    return NULL;
}
