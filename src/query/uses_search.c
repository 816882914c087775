/* The next moment at which something may happen to a value that is followed forwards: segment by
 * segment, what the events say; then the instructions before that, by running the segment with its
 * accesses to the bytes in memory watched, and with the code blocks logged that touch the
 * registers. Reads are in no index, so a value that rests in memory costs a run of all that lies
 * between. */
#include "query/streams_int.h"
#include "query/uses_int.h"

#include <sys/syscall.h>

/* Lowers *best to m. */
static void lower(struct moment m, struct moment *best)
{
    if (moment_cmp(m, *best) < 0)
        *best = m;
}

static bool has_memory(const struct uses *u)
{
    vec_each (item, &u->items) {
        if (item->len && item->memory)
            return true;
    }
    return false;
}

/* --- events --- */

static uint64_t units_of(const struct use_item *item)
{
    return x86_unit((unsigned)item->at) | x86_unit((unsigned)item->at + item->len - 1);
}

/* Arguments of system calls, and rax. */
static bool is_argument(const struct use_item *item)
{
    uint64_t reg = item->at / 8;
    return item->at < X86_RIP && (reg == 0 || reg == 2 || (reg >= 6 && reg <= 10));
}

static bool written_at(const struct segment *s, const struct db_event *e,
                       const struct use_item *item)
{
    uint64_t at = item->object ? item->object_at : item->at;
    for (uint32_t i = 0; item->memory && i < e->write_count; i++) {
        const struct db_kernel_write *w = &s->kernel_writes.items[e->write_idx + i];
        if (w->object == item->object && (item->object || w->space == item->space) &&
            w->addr < at + item->len && w->addr + w->len > at)
            return true;
    }
    return false;
}

static bool concerns(const struct uses *u, const struct segment *s, const struct db_event *e,
                     const struct use_item *item)
{
    bool call = e->kind == FRAME_SYSCALL, entering = call && e->syscall_state != SYSCALL_EXITING;
    if (!item->len)
        return false;
    if (e->created_task &&
        (item->memory || known_task(u->q, e->created_task)->parent == item->task))
        return true;
    bool execs = call && !entering && e->syscall_arch == ARCH_X86_64 &&
                 (e->syscall_no == SYS_execve || e->syscall_no == SYS_execveat);
    if (item->memory)
        return execs || written_at(s, e, item) ||
               (item->saving && call && e->syscall_no == SYS_rt_sigreturn &&
                e->task == item->saving->task);
    return e->task == item->task && ((event_registers(e) & units_of(item)) || e->ended_task ||
                                     (entering && is_argument(item)));
}

/* The first event of the segment after `from` that concerns an item: right before it, or its
 * preparation. */
static struct err *search_events(struct uses *u, size_t segment, struct moment from,
                                 struct moment *best)
{
    const struct segment *s;
    TRY(history_part(u->q->history, segment, PART_EVENTS, &s));
    vec_each (e, &s->events) {
        if (e->number <= from.event)
            continue;
        struct moment at = {e->number - 1, e->icount};
        if (moment_cmp(at, *best) >= 0)
            break;
        vec_each (item, &u->items) {
            if (!concerns(u, s, e, item))
                continue;
            // What the event wants in memory is there right behind the one before; its system call
            // is one instruction earlier.
            if (item->memory && written_at(s, e, item))
                at.icount = 0;
            else if (at.icount)
                at.icount--;
            lower(moment_cmp(at, from) < 0 ? from : at, best);
            return NULL;
        }
    }
    return NULL;
}

/* --- memory --- */

static struct err *take_rows(struct replay *r, uint32_t space, struct moment from,
                             struct moment *best)
{
    cleanup(buf_deinit) struct buf rows = {0};
    TRY(worker_take_rows(replay_worker(r, space), &rows, NULL, NULL));
    const struct access_row *row = (const void *)rows.data;
    for (size_t i = 0; i < rows.len / sizeof(*row); i++) {
        struct moment at = {row[i].stamp, row[i].icount};
        if (moment_cmp(at, from) >= 0)
            lower(at, best);
    }
    return NULL;
}

struct taking {
    struct moment from, *best;
};

static struct err *on_ending(void *ctx, struct replay *r, uint32_t space)
{
    struct taking *t = ctx;
    return take_rows(r, space, t->from, t->best);
}

static struct err *watch(struct uses *u, struct replay *r, struct moment from, struct moment *best)
{
    VEC(struct watch_range) ranges = {0};
    vec_each (item, &u->items) {
        uint64_t at = item->object ? item->object_at : item->at;
        if (item->len && item->memory)
            vec_push(&ranges, (struct watch_range){item->object ? 0 : item->space, item->object, at,
                                                   at + item->len});
    }
    struct moment until = *best;
    struct taking t = {from, best};
    const struct replay_observer observer = {.ctx = &t, .space_ending = on_ending};
    replay_set_observer(r, &observer);
    const struct consume_request consume = {.loads = true, .max_rows = 1};
    struct err *e = replay_set_watch(r, ranges.items, ranges.count, &consume);
    vec_deinit(&ranges);
    TRY(e);
    bool stopped;
    TRY(replay_run(r, until, UINT64_MAX, &stopped));
    size_t count;
    const uint32_t *spaces = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++)
        TRY(take_rows(r, spaces[i], from, best));
    return NULL;
}

static struct err *search_memory(struct uses *u, size_t segment, struct moment from,
                                 struct moment *best)
{
    struct lease lease;
    if (!has_memory(u) || moment_cmp(from, *best) >= 0)
        return NULL;
    TRY(lend_instead(u->q, segment, from, &lease));
    struct err *e = watch(u, lease.replay, from, best);
    return_replay(u->q, &lease, !e);
    return e;
}

/* May the system call give out bytes of the item, or take them from another process' memory? */
static bool may_send(const struct descriptors *d, const struct io_call *c,
                     const struct use_item *item)
{
    if (c->no == SYS_process_vm_readv || c->no == SYS_ptrace || is_of_memory(d, c))
        return item->len && item->memory;
    bool simple = c->no == SYS_write || c->no == SYS_pwrite64 || c->no == SYS_sendto;
    bool sends = io_call_writes(c->no) || c->no == SYS_process_vm_writev;
    if (!item->len || !item->memory || !sends ||
        (!item->object && c->space && c->space != item->space))
        return false;
    return !simple || item->object ||
           (c->args[1] < item->at + item->len && item->at < c->args[1] + c->args[2]);
}

/* System calls that give memory out or take it, events and buffered ones. */
static struct err *search_sends(struct uses *u, struct moment from, struct moment *best)
{
    const struct descriptors *d;
    if (!has_memory(u))
        return NULL;
    TRY(descriptors_of(u->q, &d));
    for (size_t i = io_call_from(&d->io, from);
         i < d->io.calls.count && moment_cmp(d->io.calls.items[i].at, *best) < 0; i++) {
        vec_each (item, &u->items) {
            if (may_send(d, &d->io.calls.items[i], item)) {
                lower(d->io.calls.items[i].at, best);
                return NULL;
            }
        }
    }
    return NULL;
}

/* --- registers --- */

static struct err *search_registers(struct uses *u, struct moment from, struct moment *best)
{
    // All items of a task in one go.
    for (size_t k = 0; k < u->items.count; k++) {
        const struct use_item *item = &u->items.items[k];
        uint64_t units = 0;
        bool first = item->len && !item->memory;
        for (size_t i = 0; i < u->items.count; i++) {
            const struct use_item *other = &u->items.items[i];
            if (!other->len || other->memory || other->task != item->task)
                continue;
            first &= i >= k;
            units |= units_of(other);
        }
        if (!first || moment_cmp(from, *best) >= 0)
            continue;
        struct replay *r;
        uint32_t space;
        struct moment at;
        bool found;
        TRY(plain_state_at(u->q, from, &r));
        struct err *gone = space_of_task(r, item->task, &space);
        if (gone) {
            err_free(gone);
            continue;
        }
        TRY(next_register_use(u->q, item->task, space, units, from, *best, &at, &found));
        if (found)
            lower(at, best);
    }
    return NULL;
}

struct err *use_search(struct uses *u, struct moment from, struct moment *out, bool *found_out)
{
    size_t segments, at = history_segment_at(u->q->history, from);
    const struct history_segment *segment = history_segments(u->q->history, &segments);
    if (moment_cmp(from, segment[at].end) >= 0)
        at++;
    for (*found_out = false; at < segments; at++) {
        struct moment end = segment[at].end, best = end;
        if (moment_cmp(from, segment[at].start) < 0)
            from = segment[at].start;
        TRY(check_cancel(u->q));
        if (u->q->sink->progress)
            u->q->sink->progress(u->q->sink->ctx, (double)at / (double)segments);
        vec_each (a, &u->arrivals) {
            struct moment m = use_arrival_time(u, a);
            lower(moment_cmp(m, from) < 0 ? from : m, &best);
        }
        TRY(search_events(u, at, from, &best));
        TRY(search_sends(u, from, &best));
        TRY(search_registers(u, from, &best));
        TRY(search_memory(u, at, from, &best));
        if (moment_cmp(best, end) < 0) {
            *out = best;
            *found_out = true;
            return NULL;
        }
        from = end;
    }
    return NULL;
}
