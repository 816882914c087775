/* Stacks from history: the calls that a task has made and not returned from, not what happens to lie on its stack. */
#include "query/query_int.h"

#include <sys/mman.h>

/* The run of writable mappings around an address: one stack. As in the worker (host_region). */
static struct addr_range region_of(struct replay *r, uint32_t space, gaddr addr)
{
    size_t count;
    const struct mapping *maps = replay_mappings(r, space, &count);
    for (size_t i = 0; i < count; i++) {
        if (addr < maps[i].start || addr >= maps[i].end)
            continue;
        size_t first = i, last = i;
        while (first && maps[first - 1].end == maps[first].start && (maps[first - 1].prot & PROT_WRITE))
            first--;
        while (last + 1 < count && maps[last].end == maps[last + 1].start && (maps[last + 1].prot & PROT_WRITE))
            last++;
        return (struct addr_range){maps[first].start, maps[last].end};
    }
    return (struct addr_range){addr, addr + 1};
}

struct err *stack_at(struct query_engine *q, struct moment m, uint32_t task, frame_list *out)
{
    struct replay *r;
    TRY(tracked_at(q, m, &r));
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
    size_t n = entries.len / sizeof(*e), depth = 0;
    VEC(struct stack_entry) calls = {0};
    for (size_t i = 0; i < n; i++) {
        if (e[i].slot == slot)
            vec_push(&calls, e[i]);
    }
    depth = calls.count;
    // Returns are not logged: calls whose return address lies below the stack pointer are over, and so are those on other stacks
    // above the last on this one.
    gaddr rsp = regs.r[UREG_RSP];
    struct addr_range here = region_of(r, space, rsp);
    size_t last_here = SIZE_MAX;
    for (size_t i = 0; i < depth; i++) {
        if (calls.items[i].sp >= here.start && calls.items[i].sp < here.end)
            last_here = i;
    }
    if (last_here != SIZE_MAX)
        depth = last_here + 1;
    while (depth && calls.items[depth - 1].sp >= here.start && calls.items[depth - 1].sp < here.end &&
           calls.items[depth - 1].sp < rsp)
        depth--;
    struct frame_info f = {.pc = regs.r[UREG_RIP], .sp = rsp, .innermost = true};
    for (size_t i = depth;; i--) {
        const struct stack_entry *call = i ? &calls.items[i - 1] : NULL;
        if (call) {
            f.call = (struct moment){call->stamp, call->icount};
            f.entry_sp = call->sp;
        }
        vec_push(out, f);
        if (!call)
            break;
        f = (struct frame_info){.pc = call->return_addr, .sp = call->sp + 8,
                                .callee_call = {call->stamp, call->icount}};
    }
    vec_deinit(&calls);
    return NULL;
}
