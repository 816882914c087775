/* Stacks from history: the calls that a task has made and not returned from, not what happens to
 * lie on its stack. */
#include "query/query_int.h"

#include <sys/mman.h>

/* As in the worker (host_region). */
struct addr_range stack_region(struct replay *r, uint32_t space, gaddr addr)
{
    size_t count;
    const struct mapping *maps = replay_mappings(r, space, &count);
    for (size_t i = 0; i < count; i++) {
        if (addr < maps[i].start || addr >= maps[i].end)
            continue;
        size_t first = i, last = i;
        while (first && maps[first - 1].end == maps[first].start &&
               (maps[first - 1].prot & PROT_WRITE))
            first--;
        while (last + 1 < count && maps[last].end == maps[last + 1].start &&
               (maps[last + 1].prot & PROT_WRITE))
            last++;
        return (struct addr_range){maps[first].start, maps[last].end};
    }
    return (struct addr_range){addr, addr + 1};
}

static int compare_times(const void *a, const void *b)
{
    const struct stack_entry *x = a, *y = b;
    return moment_cmp((struct moment){x->stamp, x->icount}, (struct moment){y->stamp, y->icount});
}

struct err *stack_at(struct query_engine *q, struct moment m, uint32_t task, frame_list *out)
{
    struct replay *r;
    TRY(state_at(q, m, &r));
    uint32_t space;
    struct regs regs;
    TRY(space_of_task(r, task, &space));
    TRY(replay_regs(r, task, &regs));
    unsigned slot = 0;
    size_t count;
    const struct task_info *tasks = replay_tasks(r, &count);
    for (size_t i = 0; i < count; i++) {
        if (tasks[i].serial == task)
            slot = tasks[i].slot;
    }
    cleanup(buf_deinit) struct buf entries = {0};
    TRY(worker_take_stack(replay_worker(r, space), &entries, NULL));
    const struct stack_entry *e = (const void *)entries.data;
    VEC(struct stack_entry) calls = {0};
    for (size_t i = 0; i < entries.len / sizeof(*e); i++) {
        if (e[i].slot == slot)
            vec_push(&calls, e[i]);
    }
    if (calls.count)
        qsort(calls.items, calls.count, sizeof(calls.items[0]), compare_times);
    // The calls on the stack that RSP is on; then those on the stack from which this one was
    // entered, as they were then: a signal's handler or the system call hook may run on a stack of
    // its own, and so do coroutines.
    struct addr_range here = stack_region(r, space, regs.r[UREG_RSP]);
    gaddr lowest = regs.r[UREG_RSP];
    struct frame_info f = {.pc = regs.r[UREG_RIP], .sp = lowest, .innermost = true};
    for (size_t end = calls.count, oldest = calls.count;; end = oldest) {
        for (size_t i = end; i-- > 0;) {
            const struct stack_entry *call = &calls.items[i];
            if (call->sp < here.start || call->sp >= here.end || call->sp < lowest)
                continue;
            oldest = i;
            f.call = (struct moment){call->stamp, call->icount};
            f.entry_sp = call->sp;
            f.by_signal = call->pc == 0;
            vec_push(out, f);
            f = (struct frame_info){.pc = call->return_addr,
                                    .sp = call->sp + 8,
                                    .interrupted = f.by_signal,
                                    .callee_call = f.call};
        }
        size_t other = oldest;
        while (other && calls.items[other - 1].sp >= here.start &&
               calls.items[other - 1].sp < here.end)
            other--;
        if (!other)
            break;
        here = stack_region(r, space, calls.items[other - 1].sp);
        lowest = 0;
        oldest = other;
    }
    vec_push(out, f);
    vec_deinit(&calls);
    return NULL;
}

/* Is the call on the stack of calls that the database has for the segment's start? */
static struct err *is_on_stack(struct query_engine *q, size_t segment, uint32_t task, gaddr sp,
                               struct moment before, bool *out, bool *known)
{
    enum {
        MOST_KEPT = 1 << 14
    }; // the worker drops the outer half of twice as many (worker/calls.h)
    static const struct segment nothing;
    const struct segment *s = &nothing;
    size_t count = 0;
    *out = false;
    pthread_mutex_lock(&q->history_lock);
    struct err *e = history_stacks(q->history, segment, &s);
    vec_each (c, &s->stacks) {
        count += c->task == task;
        *out |= c->task == task && c->sp == sp && moment_cmp(c->at, before) < 0;
    }
    pthread_mutex_unlock(&q->history_lock);
    *known &= count < MOST_KEPT;
    return e;
}

struct err *last_live_segment(struct query_engine *q, uint32_t task, gaddr sp, struct moment from,
                              size_t *out, bool *known_out)
{
    size_t segments, high, step = 1, low = history_segment_at(q->history, from);
    history_segments(q->history, &segments);
    bool live = true;
    *known_out = true;
    // Most calls are short: in steps that double, then by halving.
    for (high = low; live && high < segments; step *= 2) {
        low = high;
        high = low + step < segments ? low + step : segments;
        if (high < segments)
            TRY(is_on_stack(q, high, task, sp, from, &live, known_out));
    }
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        TRY(is_on_stack(q, middle, task, sp, from, &live, known_out));
        *(live ? &low : &high) = middle;
    }
    *out = low;
    return NULL;
}

bool task_ran(const struct query_engine *q, uint32_t task, struct moment from, struct moment until)
{
    for (event_no n = from.event + 1; n < q->runner.count && n <= until.event + 1; n++) {
        uint64_t first = n == from.event + 1 ? from.icount : 0, end = q->event_icount.items[n];
        if (n == until.event + 1 && until.icount < end)
            end = until.icount;
        if (q->runner.items[n] == task && first < end)
            return true;
    }
    return false;
}
