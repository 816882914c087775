/* Hooks: at chosen code addresses a row of registers and memory is kept, and the run goes on. */
#include "worker/hooks.h"

#include "worker/consume.h"
#include "worker/rows.h"

enum { MAX_HOOKS = 2048, MAX_BREAKS = 64, MAX_MEMORY = 32 };

static uint64_t hook_pcs[MAX_HOOKS] /* sorted */, break_pcs[MAX_BREAKS];
static size_t hook_count, break_count;
static struct hook_memory hook_memory[MAX_MEMORY];
static uint64_t hook_memory_count, hook_rows, hook_max_rows;
static bool hook_regs, hook_keep_last;
static uint64_t clock_stamp, clock_base;
static uint64_t stopped_at_stamp = UINT64_MAX, stopped_at_icount; /* the last hit, of the hooks that are set */
static struct rows rows;

void hooks_init(void)
{
    rows_init(&rows);
}

void hooks_clock(uint64_t stamp, uint64_t icount_base)
{
    clock_stamp = stamp;
    clock_base = icount_base;
}

static uint64_t hook_row_len(void)
{
    uint64_t len = sizeof(struct hook_row);
    for (uint64_t i = 0; i < hook_memory_count; i++)
        len += (hook_memory[i].len + 7u) & ~7u;
    return len;
}

static void set_all_breaks(void)
{
    static uint64_t all[MAX_HOOKS + MAX_BREAKS];
    size_t n = 0;
    for (size_t i = 0; i < hook_count; i++)
        all[n++] = hook_pcs[i];
    for (size_t i = 0; i < break_count; i++)
        all[n++] = break_pcs[i];
    engine_set_breaks(all, n);
}

void hooks_set_breaks(const uint64_t *pcs, uint64_t count)
{
    break_count = count < MAX_BREAKS ? count : MAX_BREAKS;
    for (size_t i = 0; i < break_count; i++)
        break_pcs[i] = pcs[i];
    set_all_breaks();
}

void hooks_select(const struct wire_command *c, const uint8_t *window)
{
    bool had = hook_count;
    hook_count = c->len < MAX_HOOKS ? c->len : MAX_HOOKS;
    hook_memory_count = c->consume.memory_count < MAX_MEMORY ? c->consume.memory_count : MAX_MEMORY;
    for (size_t i = 0; i < hook_count; i++) { // sorted, as they mostly are already
        size_t at = i;
        uint64_t pc = ((const uint64_t *)(const void *)window)[i];
        for (; at && hook_pcs[at - 1] > pc; at--)
            hook_pcs[at] = hook_pcs[at - 1];
        hook_pcs[at] = pc;
    }
    __builtin_memcpy(hook_memory, window + c->len * 8, hook_memory_count * sizeof(hook_memory[0]));
    hook_max_rows = c->consume.max_rows;
    hook_keep_last = c->consume.keep_last;
    hook_regs = c->consume.regs;
    hook_rows = 0;
    if (!hook_count)
        stopped_at_stamp = UINT64_MAX;
    if (!c->consume.keep_rows)
        rows_clear(&rows);
    else if (rows.len)
        hook_rows = 1;
    if (had || hook_count)
        set_all_breaks();
}

static bool is_hook(uint64_t pc)
{
    size_t low = 0, high = hook_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (hook_pcs[middle] < pc)
            low = middle + 1;
        else
            high = middle;
    }
    return low < hook_count && hook_pcs[low] == pc;
}

static bool is_one_of(uint64_t pc, const uint64_t *pcs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (pcs[i] == pc)
            return true;
    }
    return false;
}

bool hooks_is_break(uint64_t pc)
{
    return is_one_of(pc, break_pcs, break_count);
}

/* Appends a row; its length depends on the selection only, so rows can be dropped from the front. False: stop. */
static bool record_hit(const struct engine_task *task, uint32_t slot, uint64_t icount)
{
    uint64_t size = hook_row_len();
    if (hook_max_rows && hook_keep_last)
        rows_keep_last(&rows, hook_max_rows, size);
    if (rows.len + size > ROWS_LEN)
        return false;
    struct hook_row *row = (struct hook_row *)(void *)(rows.data + rows.len);
    row->stamp = clock_stamp;
    row->icount = clock_base + icount;
    row->slot = slot;
    row->data_len = (uint32_t)(size - sizeof(*row));
    row->unreadable = 0;
    if (hook_regs)
        row->regs = task->regs;
    else {
        row->regs.r[UREG_RIP] = task->regs.r[UREG_RIP];
        row->regs.r[UREG_RSP] = task->regs.r[UREG_RSP];
    }
    uint8_t *to = (uint8_t *)(row + 1);
    for (uint64_t i = 0; i < hook_memory_count; i++) {
        const struct hook_memory *m = &hook_memory[i];
        uint64_t addr = (m->base < UREG_COUNT ? task->regs.r[m->base] : 0) + (uint64_t)m->offset;
        uint64_t pointer;
        bool ok = true;
        if (m->deref) {
            ok = engine_copy_from_guest(&pointer, addr, 8) == 8;
            addr = pointer + (uint64_t)m->offset2;
        }
        uint64_t room = (m->len + 7u) & ~7u;
        __builtin_memset(to, 0, room);
        if (!ok || engine_copy_from_guest(to, addr, m->len) != m->len)
            row->unreadable |= 1ull << (i & 63);
        to += room;
    }
    rows.len += size;
    hook_rows++;
    return !hook_max_rows || hook_keep_last || hook_rows < hook_max_rows;
}

void hooks_run(struct engine_task *task, uint32_t slot, const struct engine_request *q, struct engine_result *out)
{
    struct engine_request rest = *q;
    uint64_t icount = 0, ticks = 0;
    // A run that begins at a hook has not hit it yet, unless it stopped there before.
    bool first = true;
    for (;;) {
        consume_begin(slot, icount);
        if (first && hook_count && rest.max_icount && is_hook(task->regs.r[UREG_RIP]) &&
            (stopped_at_stamp != clock_stamp || stopped_at_icount != clock_base)) {
            stopped_at_stamp = clock_stamp;
            stopped_at_icount = clock_base;
            if (!record_hit(task, slot, 0)) {
                *out = (struct engine_result){.reason = STOP_CONSUMER};
                return;
            }
        }
        first = false;
        rest.stamp = clock_stamp;
        rest.icount_base = clock_base + icount;
        engine_run(task, &rest, out);
        icount += out->icount;
        ticks += out->ticks;
        uint64_t pc = task->regs.r[UREG_RIP];
        if (out->reason != STOP_BREAK || !is_hook(pc))
            break;
        bool go_on = record_hit(task, slot, icount);
        stopped_at_stamp = clock_stamp;
        stopped_at_icount = clock_base + icount;
        if (is_one_of(pc, break_pcs, break_count))
            break;
        if (!go_on) {
            out->reason = STOP_CONSUMER;
            break;
        }
        rest.max_icount = q->max_icount == UINT64_MAX ? UINT64_MAX : q->max_icount - icount;
        rest.stop_ticks = q->stop_ticks - ticks;
        if (rest.max_icount == 0) {
            out->reason = STOP_LIMIT;
            break;
        }
    }
    consume_end(task);
    out->icount = icount;
    out->ticks = ticks;
}

uint64_t hooks_take(uint8_t *window, uint64_t len, uint64_t *left_out)
{
    // Of rows of which only the last are kept there may be more than were asked for.
    uint64_t most = hook_keep_last && hook_max_rows ? hook_max_rows * hook_row_len() : UINT64_MAX;
    if (rows.taken == 0 && rows.len > most)
        rows.taken = rows.len - most;
    return rows_take(&rows, window, len, left_out);
}
