#include "worker/gather.h"

#include "worker/calls.h"
#include "worker/code.h"
#include "worker/marks.h"
#include "worker/rows.h"

static struct rows counts, pages, stack, floors;
static bool counts_listed, pages_listed;

/* Rows of `counts`, found by block: open addressing, as large as the rows need. */
enum { FIRST_CAP = 1 << 10, MAX_CAP = 1 << 24 };
static uint32_t *slots; /* index of the row + 1 */
static uint64_t cap = FIRST_CAP;

void gather_init(void)
{
    rows_init(&counts);
    rows_init(&pages);
    rows_init(&stack);
    rows_init(&floors);
    slots = engine_host_alloc(MAX_CAP * sizeof(slots[0]));
}

/* --- counts of blocks --- */

static uint32_t *find_slot(uint64_t pc, uint16_t insn_count, uint16_t byte_len)
{
    const struct block_count *row = (const struct block_count *)(const void *)counts.data;
    uint64_t at = ((pc ^ (uint64_t)byte_len << 40) * 0x9e3779b97f4a7c15ull) >> 32;
    for (;; at++) {
        uint32_t *slot = &slots[at & (cap - 1)];
        if (!*slot)
            return slot;
        const struct block_count *have = &row[*slot - 1];
        if (have->pc == pc && have->insn_count == insn_count && have->byte_len == byte_len)
            return slot;
    }
}

static void grow(void)
{
    const struct block_count *row = (const struct block_count *)(const void *)counts.data;
    uint64_t n = counts.len / sizeof(*row);
    if (cap == MAX_CAP)
        engine_host_fatal("too many blocks in one segment");
    cap *= 4;
    __builtin_memset(slots, 0, cap * sizeof(slots[0]));
    for (uint64_t i = 0; i < n; i++)
        *find_slot(row[i].pc, row[i].insn_count, row[i].byte_len) = (uint32_t)i + 1;
}

static void add_count(uint64_t pc, unsigned insn_count, unsigned byte_len, uint8_t end,
                      uint8_t ticks, uint64_t count)
{
    struct block_count row = {.pc = pc,
                              .insn_count = (uint16_t)insn_count,
                              .byte_len = (uint16_t)byte_len,
                              .end = end,
                              .ticks = ticks,
                              .count = count};
    uint32_t *slot = find_slot(pc, row.insn_count, row.byte_len);
    if (*slot) {
        ((struct block_count *)(void *)counts.data)[*slot - 1].count += count;
        return;
    }
    uint64_t n = counts.len / sizeof(row);
    if (2 * n >= cap) {
        grow();
        slot = find_slot(pc, row.insn_count, row.byte_len);
    }
    if (!rows_add(&counts, &row, sizeof(row)))
        engine_host_fatal("too many blocks in one segment");
    *slot = (uint32_t)n + 1;
}

static void take_count(const struct block_info *b, uint64_t count)
{
    add_count(b->pc, b->insn_count, b->byte_len, b->end, b->ticks, count);
}

void engine_host_before_flush(void)
{
    engine_take_counts(take_count);
}

void engine_host_begun(const struct block_info *b, unsigned begun)
{
    if (b->end == END_STOP || begun == b->insn_count)
        add_count(b->pc, begun, b->byte_len, b->end, b->ticks, 1);
    else
        add_count(b->pc, begun, code_prefix_len(b, begun), END_FALL, 0, 1);
}

static void clear_counts(void)
{
    rows_clear(&counts);
    cap = FIRST_CAP;
    __builtin_memset(slots, 0, cap * sizeof(slots[0]));
    counts_listed = false;
}

/* --- written granules --- */

static void take_page(uint64_t page, const uint64_t granules[8])
{
    struct written_page row = {.page = page};
    __builtin_memcpy(row.granules, granules, sizeof(row.granules));
    if (!rows_add(&pages, &row, sizeof(row)))
        engine_host_fatal("too many pages written in one segment");
}

/* --- stacks of calls --- */

static void list_calls(uint32_t slot, struct calls *c)
{
    calls_normalise(c);
    size_t n = calls_count(c);
    for (size_t i = 1; i <= n; i++) {
        const struct call_entry *e = &c->entries[i];
        struct stack_entry row = {.stamp = e->stamp,
                                  .icount = e->time,
                                  .pc = e->pc,
                                  .return_addr = e->return_addr,
                                  .sp = e->sp,
                                  .slot = slot};
        if (!rows_add(&stack, &row, sizeof(row)))
            engine_host_fatal("too many calls");
    }
    for (uint32_t i = 0; i < c->floor_count; i++) {
        struct stack_floor row = {.start = c->floors[i].start,
                                  .end = c->floors[i].end,
                                  .floor = c->floors[i].floor,
                                  .slot = slot};
        rows_add(&floors, &row, sizeof(row));
    }
}

uint64_t gather_take_stacks(uint32_t stream, struct engine_task *const *tasks, uint8_t *window,
                            uint64_t len, uint64_t *left_out)
{
    struct rows *r = stream == STREAM_STACK ? &stack : &floors;
    if (r->taken == 0) {
        rows_clear(&stack);
        rows_clear(&floors);
        for (uint32_t slot = 0; slot < WORKER_MAX_TASKS; slot++) {
            if (tasks[slot] && tasks[slot]->calls)
                list_calls(slot, tasks[slot]->calls);
        }
    }
    return rows_take(r, window, len, left_out);
}

void gather_push_call(struct engine_task *task, const uint8_t *entry)
{
    struct stack_entry row;
    __builtin_memcpy(&row, entry, sizeof(row));
    const struct call_entry e = {.sp = row.sp,
                                 .time = row.icount,
                                 .settled = 1,
                                 .stamp = row.stamp,
                                 .pc = row.pc,
                                 .return_addr = row.return_addr};
    if (task->calls)
        calls_push(task->calls, &e);
}

void gather_set_stack(struct engine_task *task, const uint8_t *entries, uint64_t len)
{
    if (!task->calls)
        task->calls = calls_create();
    calls_clear(task->calls);
    for (uint64_t off = 0; off + sizeof(struct stack_entry) <= len;
         off += sizeof(struct stack_entry))
        gather_push_call(task, entries + off);
}

/* --- the wire --- */

void gather_reset(void)
{
    engine_take_counts(NULL);
    engine_take_marks(NULL);
    clear_counts();
    rows_clear(&pages);
    pages_listed = false;
}

uint64_t gather_take(uint32_t stream, uint8_t *window, uint64_t len, uint64_t *left_out)
{
    uint64_t n;
    if (stream == STREAM_COUNTS) {
        if (!counts_listed)
            engine_take_counts(take_count);
        counts_listed = true;
        n = rows_take(&counts, window, len, left_out);
        if (!*left_out)
            clear_counts();
        return n;
    }
    if (!pages_listed)
        engine_take_marks(take_page);
    pages_listed = true;
    n = rows_take(&pages, window, len, left_out);
    if (!*left_out)
        pages_listed = false;
    return n;
}
