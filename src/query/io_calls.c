/* Buffered calls.
 *
 * The recorder's library makes most system calls itself, through a stub that does nothing when it is replayed (rr's page: "untraced, recording
 * only"), and writes a record of each to a buffer, whose contents an event brings back before the task runs through these calls again:
 *
 *                                          records of write = 5, read = 3, close = 0 are put into the buffer
 *     ... stub: rax = write, rdi, rsi ...  the record at (buffer's header + bytes recorded so far): its result
 *     ... stub: rax = read ...
 *     ... stub: rax = close ...
 *     SYSCALLBUF_FLUSH                     which has the records in the trace
 *
 * So the arguments are the registers at executions of the stub, and a small program reads there where the record is. Facts: rr,
 * src/preload/preload_interface.h (struct syscallbuf_hdr, syscallbuf_record, preload_thread_locals), src/preload/rr_page_instructions.S. */
#include "query/io_calls_int.h"

#include <sys/socket.h>
#include <sys/syscall.h>

/* rr's page: untraced, recording only; untraced, of which wanted is only the read of a cloned file. */
static const gaddr stub_addresses[] = {0x7000000c, 0x70000006};
enum { BUFFER_POINTER = 0x70001000 + 48 };      /* thread-locals page: of the buffer's header */
enum { RECORD_RESULT = 0, RECORD_NUMBER = 8, RECORD_HEADER = 16 };

/* What calls are taken. */
static const uint16_t wanted[] = {
    SYS_read, SYS_write, SYS_open, SYS_close, SYS_lseek, SYS_mmap, SYS_ioctl, SYS_pread64, SYS_pwrite64, SYS_readv, SYS_writev,
    SYS_pipe, SYS_dup, SYS_dup2, SYS_sendfile, SYS_socket, SYS_connect, SYS_accept, SYS_sendto, SYS_recvfrom, SYS_sendmsg,
    SYS_recvmsg, SYS_shutdown, SYS_bind, SYS_listen, SYS_socketpair, SYS_fcntl, SYS_truncate, SYS_ftruncate, SYS_chdir,
    SYS_fchdir, SYS_chroot, SYS_pivot_root, SYS_setns, SYS_mount, SYS_umount2, SYS_rename, SYS_link, SYS_unlink, SYS_creat,
    SYS_mknod, SYS_openat, SYS_mknodat, SYS_unlinkat, SYS_renameat, SYS_linkat, SYS_splice, SYS_tee, SYS_vmsplice, SYS_fallocate,
    SYS_accept4, SYS_dup3, SYS_pipe2, SYS_preadv, SYS_pwritev, SYS_recvmmsg, SYS_sendmmsg, SYS_renameat2, SYS_memfd_create,
    SYS_copy_file_range, SYS_preadv2, SYS_pwritev2, SYS_unshare, SYS_close_range, SYS_openat2, SYS_pidfd_getfd,
};
enum { WANTED_WORDS = 8 };

static bool is_wanted(uint64_t no)
{
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        if (wanted[i] == no)
            return true;
    }
    return false;
}

/* --- executions of the stub --- */

/* A call of the library's, before its record is looked at. */
struct stub_call {
    struct moment at;
    uint32_t task, space;
    struct regs regs;
    gaddr header;
    uint32_t recorded; /* bytes of records before its own */
};
typedef VEC(struct stub_call) stub_call_list;

struct stub_print {
    struct hook_print print;
    uint64_t header;
    uint32_t recorded, unused;
};

static bool keep_stub_call(void *ctx, const struct hit *h)
{
    stub_call_list *list = ctx;
    struct stub_print p;
    if (h->condition != PROGRAM_OK || h->memory_len < sizeof(p))
        return true;
    memcpy(&p, h->memory, sizeof(p));
    if (p.print.end == PROGRAM_OK)
        vec_push(list, (struct stub_call){h->moment, h->task, h->space, h->regs, p.header, p.recorded});
    return true;
}

/* Is rax among `wanted`? A bit of a mask for each number. */
static size_t make_condition(struct program_op *ops)
{
    size_t n = 0;
    uint64_t masks[WANTED_WORDS] = {0};
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        masks[wanted[i] / 64] |= 1ull << wanted[i] % 64;
    ops[n++] = (struct program_op){.code = PROGRAM_PUSH};
    for (unsigned i = 0; i < WANTED_WORDS; i++) {
        if (!masks[i])
            continue;
        ops[n++] = (struct program_op){.code = PROGRAM_PUSH, .imm = masks[i]};
        ops[n++] = (struct program_op){.code = PROGRAM_REGISTER, .arg = UREG_RAX};
        ops[n++] = (struct program_op){.code = PROGRAM_PUSH, .imm = 64 * i};
        ops[n++] = (struct program_op){.code = PROGRAM_SUB}; // of another word: 64 or more, by which a shift gives 0
        ops[n++] = (struct program_op){.code = PROGRAM_SHR};
        ops[n++] = (struct program_op){.code = PROGRAM_OR};
    }
    ops[n++] = (struct program_op){.code = PROGRAM_PUSH, .imm = 1};
    ops[n++] = (struct program_op){.code = PROGRAM_AND};
    ops[n++] = (struct program_op){.code = PROGRAM_END};
    return n;
}

static int stubs_by_time(const void *a, const void *b)
{
    const struct stub_call *x = a, *y = b;
    return moment_cmp(x->at, y->at);
}

static struct err *find_stub_calls(struct query_engine *q, stub_call_list *out)
{
    static const struct program_op where[] = {
        {.code = PROGRAM_PUSH, .imm = BUFFER_POINTER}, {.code = PROGRAM_LOAD, .size = 8}, {.code = PROGRAM_COPY},
        {.code = PROGRAM_OUT, .size = 8}, {.code = PROGRAM_LOAD, .size = 4}, {.code = PROGRAM_OUT, .size = 4, .arg = 8},
        {.code = PROGRAM_END}};
    struct program_op condition[6 * WANTED_WORDS + 4];
    const struct program print = {.ops = where, .count = sizeof(where) / sizeof(where[0]), .out_len = 12};
    const uint32_t print_len = sizeof(struct stub_print) - sizeof(struct hook_print);
    const struct hook_programs programs = {.condition = {.ops = condition, .count = make_condition(condition)}, .prints = &print};
    const struct hit_wants wants = {.print_lens = &print_len, .print_count = 1};
    const struct window all = {.forward = true, .limit = SIZE_MAX - 1};
    cleanup(buf_deinit) struct buf places = {0};
    for (size_t i = 0; i < sizeof(stub_addresses) / sizeof(stub_addresses[0]); i++)
        places_at(q, stub_addresses[i], NULL, 0, &places);
    struct hit_place *place = (void *)places.data;
    size_t count = places.len / sizeof(*place);
    for (size_t i = 0; i < count; i++)
        place[i].programs = &programs;
    bool more;
    TRY(find_hits(q, place, count, &all, &wants, keep_stub_call, out, &more));
    if (out->count)
        qsort(out->items, out->count, sizeof(out->items[0]), stubs_by_time);
    return NULL;
}

/* --- going through the events --- */

/* A task's state while the events go by. */
struct reading_task {
    uint32_t call;            /* that it is in, plus 1; 0: none */
    uint32_t space;
};

struct reading {
    struct query_engine *q;
    struct io_calls *out;
    struct trace_cursor *data; /* another than that of the events, whose frames have to stay */
    VEC(struct reading_task) tasks; /* by serial */
    struct mem_write records;  /* of the next event, if it is a flush; else of no size */
    size_t next_task;          /* of the engine's, that may begin next */
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

static struct err *read_buffered(struct reading *g, const struct stub_call *s)
{
    const struct mem_write *w = &g->records;
    uint64_t record = trace_header(g->q->trace)->syscallbuf_hdr_size + (uint64_t)s->recorded;
    uint8_t head[RECORD_HEADER];
    if (s->header != w->addr || record > w->size || w->size - record < RECORD_HEADER)
        return NULL; // it became an event, after all
    TRY(trace_read_data(g->data, w->data_offset + record, head, sizeof(head)));
    if (load_u16(head + RECORD_NUMBER) != s->regs.r[UREG_RAX])
        return NULL;
    event_no flush = s->at.event + 1;
    struct io_call c = {.at = s->at, .begin = flush, .end = flush,
                        .task = s->task, .space = s->space, .no = (int32_t)s->regs.r[UREG_RAX],
                        .buffered = true, .done = true, .result = (int64_t)load_u64(head + RECORD_RESULT), .fds = {-1, -1}};
    system_call_args(&s->regs, c.args);
    uint64_t pair = pair_at(&c) - w->addr;
    if (makes_two(c.no) && c.result == 0 && pair < w->size && w->size - pair >= sizeof(c.fds))
        TRY(trace_read_data(g->data, w->data_offset + pair, c.fds, sizeof(c.fds)));
    vec_push(&g->out->points, (struct io_point){.kind = IO_END, .task = s->task, .call = (uint32_t)g->out->calls.count});
    vec_push(&g->out->calls, c);
    return NULL;
}

static void read_entry(struct reading *g, const struct frame *f, uint32_t task)
{
    struct reading_task *t = task_of(g, task);
    t->call = 0;
    if (!is_wanted((uint64_t)f->syscall_no) || f->failed_during_preparation)
        return;
    struct io_call c = {.at = moment_before_event(g->q, f->event), .begin = f->event, .task = task,
                        .space = t->space, .no = f->syscall_no, .fds = {-1, -1}};
    system_call_args(&f->regs, c.args);
    vec_push(&g->out->points, (struct io_point){.kind = IO_BEGIN, .task = task, .call = (uint32_t)g->out->calls.count});
    vec_push(&g->out->calls, c);
    t->call = (uint32_t)g->out->calls.count;
}

/* A socket's address as bytes in hexadecimal, so that equal ones are equal: of AF_UNIX the path up to its end, of IPv4 and IPv6 (also of one in the
 * other) port and address. NULL: there is none. */
static char *address_text(const uint8_t *p, size_t len)
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
        buf_printf(&out, "%02x%02x:", p[2], len > 3 ? p[3] : 0);
        from = family == AF_INET ? 4 : len == 24 && memcmp(p + 8, mapped, sizeof(mapped)) == 0 ? 20 : 8;
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
    if (f->regs.r[UREG_ORIG_RAX] == (uint64_t)-2) // it was not made: what it gives is a filter's or a tracer's word (rr, ReplaySession.cc)
        c->result = -1;
    if (f->socket_addrs[0] && f->socket_addrs[1] && !c->paths[1]) {
        cleanup(freep) char *local = address_text(f->socket_addrs[0], f->socket_addr_lens[0]);
        cleanup(freep) char *remote = address_text(f->socket_addrs[1], f->socket_addr_lens[1]);
        c->paths[1] = local && remote ? str_format("%s %s", local, remote) : NULL;
    }
    for (size_t i = 0; i < f->write_count && makes_two(c->no) && c->result == 0; i++) {
        const struct mem_write *w = &f->writes[i];
        if (w->addr == pair_at(c) && w->size >= sizeof(c->fds) && !w->hole_count)
            TRY(trace_read_data(g->data, w->data_offset, c->fds, sizeof(c->fds)));
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
    for (; g->next_task < q->tasks.count && q->tasks.items[g->next_task].start.event <= f->event; g->next_task++) {
        const struct known_task *t = &q->tasks.items[g->next_task];
        uint32_t space = t->parent ? space_begun(g, f->event, true) : 0;
        task_of(g, t->serial)->space = t->parent && !space ? task_of(g, t->parent)->space : space;
        if (t->parent)
            vec_push(&g->out->points, (struct io_point){.kind = IO_CLONE, .task = t->parent, .child = t->serial});
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

static struct err *read_all(struct reading *g, const stub_call_list *stubs)
{
    cleanup(trace_cursor_closep) struct trace_cursor *c = NULL;
    TRY(trace_cursor_open(g->q->trace, &c));
    size_t next = 0;
    for (;;) {
        const struct frame *f;
        TRY(trace_cursor_next(c, &f));
        bool flush = f && f->kind == FRAME_SYSCALLBUF_FLUSH && f->write_count && !f->writes[0].hole_count;
        g->records = flush ? f->writes[0] : (struct mem_write){0};
        for (; next < stubs->count && (!f || stubs->items[next].at.event < f->event); next++)
            TRY(read_buffered(g, &stubs->items[next]));
        if (!f || f->event > g->q->last_event)
            return NULL;
        TRY(read_frame(g, f));
        if (f->event % 1024 == 0)
            TRY(check_cancel(g->q));
    }
}

/* --- paths --- */

enum { PATH_BYTES = 256, MOST_PATHS = 50000 }; /* longer ones are not known; at a time */

struct wanted_path {
    size_t segment;
    uint32_t call, idx;
    uint32_t space;
    struct step_capture capture;
};

/* Which arguments are paths; the second one of calls that have two. Negative: none. */
static void path_arguments(int32_t no, int out[2])
{
    out[0] = out[1] = -1;
    switch (no) {
    case SYS_open:
    case SYS_creat:
    case SYS_unlink:
    case SYS_truncate:
    case SYS_mknod:
    case SYS_chdir:
        out[0] = 0;
        return;
    case SYS_openat:
    case SYS_mknodat:
    case SYS_unlinkat:
    case SYS_openat2:
        out[0] = 1;
        return;
    case SYS_bind:
    case SYS_connect:
        out[0] = 1;
        return;
    case SYS_rename:
    case SYS_link:
        out[0] = 0;
        out[1] = 1;
        return;
    case SYS_renameat:
    case SYS_renameat2:
    case SYS_linkat:
        out[0] = 1;
        out[1] = 3;
        return;
    default:
        return;
    }
}

static int by_time(const void *a, const void *b)
{
    const struct wanted_path *x = a, *y = b;
    return moment_cmp((struct moment){x->capture.stamp, x->capture.icount}, (struct moment){y->capture.stamp, y->capture.icount});
}

/* Paths of one segment, which are read while it runs. */
struct path_reading {
    struct io_calls *out;
    const struct wanted_path *wants;
    size_t count;
};

static struct err *take_strings(struct path_reading *p, struct replay *r, uint32_t space)
{
    enum { EACH = 8 + PATH_BYTES };
    cleanup(buf_deinit) struct buf memory = {0};
    TRY(worker_take_steps(replay_worker(r, space), NULL, &memory));
    size_t at = 0;
    for (size_t i = 0; i < p->count && memory.len - at >= EACH; i++) {
        if (p->wants[i].space != space)
            continue;
        const char *text = (const char *)memory.data + at + 8;
        uint64_t done = load_u64(memory.data + at);
        done = done < PATH_BYTES ? done : PATH_BYTES;
        size_t len = strnlen(text, done);
        struct io_call *c = &p->out->calls.items[p->wants[i].call];
        char **path = &c->paths[p->wants[i].idx];
        if (c->no == SYS_bind || c->no == SYS_connect) {
            if (done >= c->args[2] && !*path)
                *path = address_text(memory.data + at + 8, c->args[2]);
        } else if (len < done && !*path) {
            *path = str_format("%.*s", (int)len, text);
        }
        at += EACH;
    }
    return NULL;
}

static struct err *want_strings(struct path_reading *p, struct replay *r, uint32_t space)
{
    VEC(struct step_capture) captures = {0};
    for (size_t i = 0; i < p->count; i++) {
        if (p->wants[i].space == space)
            vec_push(&captures, p->wants[i].capture);
    }
    const struct step_request request = {.captures = captures.items, .capture_count = captures.count};
    struct err *e = captures.count ? worker_set_steps(replay_worker(r, space), &request) : NULL;
    vec_deinit(&captures);
    return e;
}

static struct err *on_space_created(void *ctx, struct replay *r, uint32_t space, uint32_t parent)
{
    return want_strings(ctx, r, space);
}

static struct err *on_space_ending(void *ctx, struct replay *r, uint32_t space)
{
    return take_strings(ctx, r, space);
}

static struct err *run_for_strings(struct path_reading *p, struct replay *r)
{
    const struct replay_observer observer = {.ctx = p, .space_created = on_space_created, .space_ending = on_space_ending};
    replay_set_observer(r, &observer);
    size_t count;
    const uint32_t *spaces = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++)
        TRY(want_strings(p, r, spaces[i]));
    TRY(replay_run(r, (struct moment){p->wants[p->count - 1].capture.stamp + 1, 0}, UINT64_MAX, NULL));
    spaces = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++)
        TRY(take_strings(p, r, spaces[i]));
    return NULL;
}

/* The paths of all calls that have some, segment by segment. */
static struct err *read_paths(struct query_engine *q, struct io_calls *c)
{
    VEC(struct wanted_path) wants = {0};
    for (uint32_t i = 0; i < c->calls.count; i++) {
        const struct io_call *call = &c->calls.items[i];
        int args[2];
        path_arguments(call->no, args);
        for (uint32_t k = 0; k < 2 && args[k] >= 0 && call->done && call->result >= 0 && call->space; k++)
            vec_push(&wants, (struct wanted_path){history_segment_at(q->history, call->at), i, k, call->space,
                                                  {call->at.event, call->at.icount, call->args[args[k]], PATH_BYTES}});
    }
    struct err *e = NULL;
    if (wants.count)
        qsort(wants.items, wants.count, sizeof(wants.items[0]), by_time);
    for (size_t i = 0, n; i < wants.count && !e; i += n) {
        const struct wanted_path *first = &wants.items[i];
        for (n = 1; i + n < wants.count && n < MOST_PATHS && first[n].segment == first->segment; n++)
            ;
        struct path_reading p = {.out = c, .wants = first, .count = n};
        struct lease lease;
        e = check_cancel(q);
        if (!e)
            e = lend_instead(q, first->segment, (struct moment){first->capture.stamp, first->capture.icount}, &lease);
        if (e)
            break;
        e = run_for_strings(&p, lease.replay);
        return_replay(q, &lease, !e);
        if (q->sink->progress)
            q->sink->progress(q->sink->ctx, (double)(i + n) / (double)wants.count);
    }
    vec_deinit(&wants);
    return e;
}

struct err *io_calls_read(struct query_engine *q, struct io_calls *out)
{
    *out = (struct io_calls){0};
    struct reading g = {.q = q, .out = out};
    stub_call_list stubs = {0};
    struct err *e = trace_cursor_open(q->trace, &g.data);
    if (!e)
        e = find_stub_calls(q, &stubs);
    if (!e)
        e = read_all(&g, &stubs);
    trace_cursor_close(g.data);
    vec_deinit(&g.tasks);
    vec_deinit(&stubs);
    if (!e)
        e = read_paths(q, out);
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
    for (size_t i = io_call_from(c, at); i < c->calls.count && moment_cmp(c->calls.items[i].at, at) == 0; i++) {
        if (c->calls.items[i].task == task)
            return &c->calls.items[i];
    }
    return NULL;
}

const struct io_call *io_call_ending(const struct io_calls *c, event_no end, uint32_t task)
{
    for (size_t i = io_call_from(c, (struct moment){end, 0}); i-- > 0;) {
        if (c->calls.items[i].task == task)
            return c->calls.items[i].end == end && !c->calls.items[i].buffered ? &c->calls.items[i] : NULL;
    }
    return NULL;
}
