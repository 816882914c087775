/* The main loop: run the task of the next frame to where it happened, apply its effects, go on;
 * stop at a moment. */
#include "replay/replay_int.h"

#include "base/log.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static int by_start(const void *a, const void *b)
{
    const struct addr_range *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* Everything that is mapped at any time in any space: workers keep out of there. */
static void collect_used(struct replay *r)
{
    size_t count;
    const struct trace_mmap *maps = trace_mmaps(r->trace, &count);
    VEC(struct addr_range) all = {0};
    for (size_t i = 0; i < count; i++) {
        if (maps[i].start < maps[i].end &&
            maps[i].end <= USER_MEMORY_END) // others are refused when they are to be mapped
            vec_push(&all, (struct addr_range){maps[i].start, maps[i].end});
    }
    vec_push(&all, (struct addr_range){RR_LIBRRPAGE, RR_THREAD_LOCALS + PAGE_SIZE});
    qsort(all.items, all.count, sizeof(all.items[0]), by_start);
    vec_each (a, &all) {
        if (r->used.count && a->start <= r->used.items[r->used.count - 1].end) {
            if (a->end > r->used.items[r->used.count - 1].end)
                r->used.items[r->used.count - 1].end = a->end;
        } else {
            vec_push(&r->used, *a);
        }
    }
    vec_deinit(&all);
}

struct err *replay_peek(struct replay *r)
{
    r->next_position = trace_cursor_position(r->cursor);
    TRY(trace_cursor_next(r->cursor, &r->next));
    r->prepared = false;
    return NULL;
}

struct err *replay_begin(struct trace *t, struct trace_position position, struct replay **out)
{
    if (trace_header(t)->ticks_semantics)
        return err_new(ERR_UNSUPPORTED, "the recording's ticks are taken branches, as AMD's family "
                                        "15h counts them; they cannot be counted here");
    struct replay *r = xnew(struct replay);
    r->trace = t;
    compare_cpus(r);
    collect_used(r);
    struct err *e = trace_cursor_open(t, &r->cursor);
    if (!e && (position.event || position.events_offset))
        e = trace_cursor_seek(r->cursor, position);
    if (!e)
        e = replay_peek(r);
    if (e) {
        replay_close(r);
        return e;
    }
    *out = r;
    return NULL;
}

struct err *replay_spare(struct trace *t, struct worker **out)
{
    struct replay r = {.trace = t};
    collect_used(&r);
    struct err *e = worker_create(r.used.items, r.used.count, out);
    vec_deinit(&r.used);
    return e;
}

struct err *replay_open(struct trace *t, struct replay **out)
{
    return replay_begin(t, (struct trace_position){0}, out);
}

struct err *replay_open_with(struct trace *t, struct worker **spare, struct replay **out)
{
    TRY(replay_open(t, out));
    (*out)->spare = steal(*spare);
    return NULL;
}

void replay_close(struct replay *r)
{
    if (!r)
        return;
    while (r->tasks.count)
        task_destroy(r, r->tasks.items[0]);
    vec_each (s, &r->spaces)
        space_free(r, *s);
    worker_destroy(r->spare);
    snapshots_free(r);
    vec_each (o, &r->objects)
        object_free(*o);
    trace_cursor_close(r->cursor);
    vec_deinit(&r->tasks);
    vec_deinit(&r->spaces);
    vec_deinit(&r->objects);
    vec_deinit(&r->infos);
    vec_deinit(&r->uids);
    vec_deinit(&r->object_uids);
    vec_deinit(&r->used);
    vec_deinit(&r->watches);
    vec_deinit(&r->outside);
    free(r);
}

struct moment replay_now(const struct replay *r)
{
    return r->now;
}

bool replay_at_end(const struct replay *r)
{
    return !r->next;
}

uint64_t replay_icount_total(const struct replay *r)
{
    return r->icount_total;
}

uint64_t replay_icount_here(const struct replay *r)
{
    return r->icount_here;
}

static struct err *run(struct replay *r, struct moment until, uint64_t max_icount, bool *stopped)
{
    uint64_t start = r->icount_here;
    r->until = until;
    while (r->next && moment_cmp(r->now, until) < 0) {
        uint64_t done = r->icount_here - start;
        if (done >= max_icount)
            break;
        uint64_t left = max_icount == UINT64_MAX ? UINT64_MAX : max_icount - done;
        if (r->now.event == until.event && until.icount - r->now.icount < left)
            left = until.icount - r->now.icount;
        if (!r->prepared) {
            TRY(prepare_frame(r, r->next));
            r->prepared = true;
        }
        enum reached reached;
        TRY(reach_frame(r, r->next, left, &reached));
        if (reached == REACH_CONSUMER) {
            *stopped = true;
            break;
        }
        if (reached == REACH_LIMIT)
            continue;
        // Arriving at the frame while `until` lies behind the last instruction before it: stay
        // here.
        if (r->now.event == until.event)
            break;
        const struct frame *f = r->next;
        struct moment before = r->now;
        r->now = (struct moment){f->event, 0};
        struct err *e = apply_frame(r, f);
        if (e) {
            r->now = before;
            return e;
        }
        if (r->observer.event)
            TRY(r->observer.event(r->observer.ctx, r, f));
        TRY(replay_peek(r));
        // What a frame wants done beforehand belongs to the moment right after the frame before it.
        TRY(prepare_frame(r, r->next));
        r->prepared = true;
    }
    return NULL;
}

struct err *replay_run(struct replay *r, struct moment until, uint64_t max_icount,
                       bool *stopped_out)
{
    bool stopped = false;
    if (r->dead)
        return err_new(ERR_DIVERGED, "this replay has failed before");
    struct err *e = run(r, until, max_icount, &stopped);
    if (e)
        r->dead = true;
    else if (stopped_out)
        *stopped_out = stopped;
    return e;
}

bool frame_is_output(const struct frame *f)
{
    const uint64_t *reg = f->regs.r;
    return f->kind == FRAME_SYSCALL && f->syscall_arch == ARCH_X86_64 &&
           f->syscall_state == SYSCALL_EXITING &&
           (f->syscall_no == SYS_write || f->syscall_no == SYS_writev) &&
           (reg[UREG_RDI] == 1 || reg[UREG_RDI] == 2) && (int64_t)reg[UREG_RAX] > 0;
}

/* --- looking --- */

const struct task_info *replay_tasks(struct replay *r, size_t *count_out)
{
    r->infos.count = 0;
    vec_each (it, &r->tasks)
        vec_push(&r->infos, (*it)->info);
    *count_out = r->infos.count;
    return r->infos.items;
}

uint32_t replay_running(const struct replay *r)
{
    if (!r->next)
        return 0;
    vec_each (it, &r->tasks) {
        if ((*it)->info.tid == r->next->tid)
            return (*it)->info.serial;
    }
    return 0;
}

const uint8_t *replay_next_siginfo(const struct replay *r)
{
    return r->next && r->next->kind == FRAME_SIGNAL ? r->next->siginfo : NULL;
}

static struct err *find_task(struct replay *r, uint32_t serial, struct task **out)
{
    *out = task_by_serial(r, serial);
    if (!*out)
        return err_new(ERR_NOT_FOUND, "task %u does not exist at this moment", serial);
    return NULL;
}

struct err *replay_regs(struct replay *r, uint32_t serial, struct regs *out)
{
    struct task *task;
    TRY(find_task(r, serial, &task));
    *out = task->regs;
    return NULL;
}

struct err *replay_xstate(struct replay *r, uint32_t serial, struct xstate *out)
{
    struct task *task;
    TRY(find_task(r, serial, &task));
    TRY(worker_get_xstate(task->space->worker, task->info.slot, out));
    if (task->x87_cleared)
        xstate_clear_x87(out);
    return NULL;
}

const uint32_t *replay_spaces(struct replay *r, size_t *count_out)
{
    r->uids.count = 0;
    vec_each (it, &r->spaces)
        vec_push(&r->uids, (*it)->uid);
    *count_out = r->uids.count;
    return r->uids.items;
}

const struct mapping *replay_mappings(struct replay *r, uint32_t space, size_t *count_out)
{
    struct space *s = space_by_uid(r, space);
    *count_out = s ? s->maps.count : 0;
    return s ? s->maps.items : NULL;
}

const struct mapping *replay_mapping_at(struct replay *r, uint32_t space, gaddr addr)
{
    struct space *s = space_by_uid(r, space);
    return s ? space_mapping_at(s, addr) : NULL;
}

uint32_t object_uid(const struct object *o)
{
    return o->uid;
}

uint64_t object_size(const struct object *o)
{
    return o->size;
}

const uint32_t *replay_objects(struct replay *r, size_t *count_out)
{
    r->object_uids.count = 0;
    vec_each (it, &r->objects) {
        if ((*it)->mapping_count)
            vec_push(&r->object_uids, (*it)->uid);
    }
    *count_out = r->object_uids.count;
    return r->object_uids.items;
}

struct err *replay_read_object(struct replay *r, uint32_t object, uint64_t offset, void *out,
                               size_t len)
{
    struct object *o = object_by_uid(r, object);
    if (!o || !o->mapping_count)
        return err_new(ERR_NOT_FOUND, "shared memory object %u does not exist at this moment",
                       object);
    if (offset > o->size || len > o->size - offset)
        return err_new(ERR_FAULT, "offset %#llx is behind the end of shared memory object %u",
                       (unsigned long long)(offset + len), object);
    ssize_t n = pread(o->fd, out, len, (off_t)offset);
    if (n < 0 || (size_t)n != len)
        return err_os("cannot read shared memory");
    return NULL;
}

struct err *replay_read(struct replay *r, uint32_t space, gaddr addr, void *out, size_t len,
                        size_t *done_out)
{
    struct space *s = space_by_uid(r, space);
    if (!s)
        return err_new(ERR_NOT_FOUND, "address space %u does not exist at this moment", space);
    return worker_read(s->worker, addr, out, len, done_out);
}

struct err *replay_output(struct replay *r, const struct frame *f, struct buf *out)
{
    struct task *t = task_by_tid(r, f->tid);
    const uint64_t *reg = f->regs.r;
    bool is_writev = f->syscall_no == SYS_writev;
    uint64_t left = reg[UREG_RAX];
    uint64_t pieces = !is_writev ? 1 : reg[UREG_RDX] < UIO_MAXIOV ? reg[UREG_RDX] : UIO_MAXIOV;
    struct err *e = NULL;
    for (uint64_t i = 0; t && left && i < pieces && !e; i++) {
        uint64_t piece[2] = {reg[UREG_RSI], left}; // a struct iovec
        size_t done = 0;
        if (is_writev)
            e = replay_read(r, t->info.space, reg[UREG_RSI] + 16 * i, piece, sizeof(piece), NULL);
        uint64_t len = piece[1] < left ? piece[1] : left;
        if (!e && !buf_try_reserve(out, len))
            e = err_new(ERR_LIMIT, "no memory for %llu bytes of output", (unsigned long long)len);
        if (!e) {
            e = replay_read(r, t->info.space, piece[0], out->data + out->len, len, &done);
            out->len += done;
        }
        left -= len;
    }
    if (e && err_kind(e) == ERR_FAULT)
        err_free(steal(e));
    return e;
}

uint64_t replay_memory(const struct replay *r)
{
    uint64_t total = 0;
    vec_each (s, &r->spaces)
        total += worker_memory((*s)->worker);
    vec_each (s, &r->parked)
        total += worker_memory((*s)->worker);
    return total;
}

struct worker *replay_worker(struct replay *r, uint32_t space)
{
    struct space *s = space_by_uid(r, space);
    return s ? s->worker : NULL;
}

/* --- instrumentation --- */

void replay_set_observer(struct replay *r, const struct replay_observer *observer)
{
    r->observer = observer ? *observer : (struct replay_observer){0};
    r->instrumented =
        r->mode != ENGINE_COUNT || r->observer.space_created || r->observer.code_mapped;
}

struct err *replay_set_mode(struct replay *r, enum engine_mode mode,
                            const struct consume_request *consume)
{
    r->mode = mode;
    r->consume = consume ? *consume : (struct consume_request){0};
    r->consume.watch = NULL;
    r->consume.watch_count = 0;
    r->watching = false;
    r->watches.count = 0;
    r->instrumented =
        r->mode != ENGINE_COUNT || r->observer.space_created || r->observer.code_mapped;
    vec_each (s, &r->spaces)
        TRY(engine_keeps_calls(mode) ? worker_reset_index((*s)->worker, true)
                                     : space_instrument(r, *s));
    return NULL;
}

struct err *replay_set_watch(struct replay *r, const struct watch_range *ranges, size_t count,
                             const struct consume_request *consume)
{
    TRY(replay_set_mode(r, consume->loads ? ENGINE_LOG_LOADS : ENGINE_LOG, consume));
    for (size_t i = 0; i < count; i++)
        vec_push(&r->watches, ranges[i]);
    r->watching = true;
    vec_each (s, &r->spaces) {
        (*s)->watch_stale = true;
        TRY(space_refresh_watch(r, *s));
    }
    return NULL;
}
