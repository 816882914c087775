/* Consumers of the log. One pass over each piece of log does all that is selected: counts of blocks, written granules,
 * watched writes, calls, and the stack of calls.
 *
 * The stack of calls (docs/architecture.md): a call at stack address S ends all calls of the same stack whose return address
 * lay at or below S. Stacks are told apart by the region of memory they are in; a call in another region than the last is
 * on a signal's or the syscall hook's stack if that region is new, and ends those of the regions above if it is not. */
#include "worker/consume.h"

#include "worker/engine_int.h"

enum { COUNT_SLOTS = 1 << 20, PAGE_SLOTS = 1 << 20, MAX_WATCH = 1024, MAX_STACK = 1 << 16, STACKS = 64, MAX_FLOORS = 32 };
#define ROWS_LEN (1ull << 30)

/* A growing array in reserved address space. */
struct rows {
    uint8_t *data;
    uint64_t len, taken;
};

static struct {
    bool index, calls, blocks, keep_last, track;
    uint64_t max_rows;
    uint64_t watch_count;
    struct addr_range watch[MAX_WATCH];
    uint64_t watch_min, watch_max;
} want;

static struct rows streams[STREAM_COUNT];
static uint64_t clock_stamp, clock_base;
static uint32_t run_slot;
static uint64_t run_offset;

static uint64_t *counts;              /* by block index, since the last flush */
static struct block_count *totals;    /* open addressing by pc, insn_count */
static uint64_t total_count;
static struct written_page *written;  /* open addressing by page */
static uint64_t written_count;
static struct written_page *last_written;

/* The stack of calls of a task slot. */
struct stack {
    uint32_t slot;
    bool used;
    uint32_t depth;
    struct addr_range region; /* of the last call */
    struct stack_entry *entries;
    struct stack_floor floors[MAX_FLOORS];
    uint32_t floor_count, floor; /* floor: of the present region */
};
static struct stack stacks[STACKS];

static void *reserve(uint64_t len)
{
    return engine_host_alloc(len);
}

static bool consume(void *ctx, const uint8_t *log, size_t len, uint64_t icount, uint32_t last_insns);

void consume_init(void)
{
    counts = reserve((1 << 20) * sizeof(counts[0]));
    totals = reserve(COUNT_SLOTS * sizeof(totals[0]));
    written = reserve((uint64_t)PAGE_SLOTS * sizeof(written[0]));
    for (int i = 0; i < STREAM_COUNT; i++)
        streams[i].data = reserve(ROWS_LEN);
    engine_set_consumer(consume, NULL);
}

/* --- index --- */

static void fold_counts(void)
{
    uint32_t blocks = engine_block_count();
    for (uint32_t i = 0; i < blocks; i++) {
        if (!counts[i])
            continue;
        const struct block_info *b = engine_block(i);
        uint64_t at = ((b->pc + b->insn_count) * 0x9e3779b97f4a7c15ull) >> 44;
        while (totals[at].count && (totals[at].pc != b->pc || totals[at].insn_count != b->insn_count ||
                                    totals[at].byte_len != b->byte_len))
            at = (at + 1) % COUNT_SLOTS;
        if (!totals[at].count) {
            if (++total_count > COUNT_SLOTS / 2)
                engine_host_fatal("too many blocks in one segment");
            totals[at] = (struct block_count){.pc = b->pc, .insn_count = b->insn_count, .byte_len = b->byte_len,
                                              .end = b->end, .ticks = b->ticks};
        }
        totals[at].count += counts[i];
        counts[i] = 0;
    }
}

void engine_host_before_flush(void)
{
    if (want.index)
        fold_counts();
}

static struct written_page *page_of(uint64_t page)
{
    if (last_written && last_written->page == page)
        return last_written;
    uint64_t at = ((page >> 12) * 0x9e3779b97f4a7c15ull) >> 44;
    while (written[at].page && written[at].page != page)
        at = (at + 1) % PAGE_SLOTS;
    if (!written[at].page) {
        if (++written_count > PAGE_SLOTS / 2)
            engine_host_fatal("too many pages written in one segment");
        written[at].page = page;
    }
    last_written = &written[at];
    return last_written;
}

static void mark(uint64_t addr, uint64_t size)
{
    uint64_t first = addr >> 3, last = (addr + size - 1) >> 3;
    if (first >> 9 == last >> 9) { // within a page
        struct written_page *p = page_of(addr & ~(uint64_t)(PAGE_SIZE - 1));
        for (uint64_t g = first; g <= last; g++)
            p->granules[g >> 6 & 7] |= 1ull << (g & 63);
        return;
    }
    for (uint64_t g = first; g <= last; g++) {
        struct written_page *p = page_of(g >> 9 << 12);
        p->granules[g >> 6 & 7] |= 1ull << (g & 63);
    }
}

/* --- rows --- */

/* Adds a row; false: the run is to stop. */
static bool add_row(uint32_t stream, const void *row, uint64_t size)
{
    struct rows *r = &streams[stream];
    if (want.max_rows && r->len / size >= want.max_rows && want.keep_last) {
        // A ring would do; twice the wanted rows, compacted now and then, is simpler to hand over.
        if (r->len / size >= 2 * want.max_rows) {
            uint64_t keep = want.max_rows * size;
            __builtin_memmove(r->data, r->data + r->len - keep, keep);
            r->len = keep;
        }
    }
    if (r->len + size > ROWS_LEN)
        return false;
    __builtin_memcpy(r->data + r->len, row, size);
    r->len += size;
    return want.keep_last || !want.max_rows || r->len / size < want.max_rows;
}

static bool watched(uint64_t start, uint64_t end)
{
    if (end <= want.watch_min || start >= want.watch_max)
        return false;
    for (uint64_t i = 0; i < want.watch_count; i++) {
        if (start < want.watch[i].end && end > want.watch[i].start)
            return true;
    }
    return false;
}

/* --- the stack of calls --- */

static struct stack *stack_of(uint32_t slot)
{
    static struct stack *last;
    if (last && last->used && last->slot == slot)
        return last;
    struct stack *s = &stacks[slot % STACKS];
    for (unsigned i = 0; i < STACKS; i++, s = s + 1 == stacks + STACKS ? stacks : s + 1) {
        if (s->used && s->slot == slot)
            return last = s;
        if (!s->used)
            break;
    }
    if (s->used)
        return NULL; // more threads in one segment than we keep stacks for
    s->used = true;
    s->slot = slot;
    if (!s->entries)
        s->entries = reserve(MAX_STACK * sizeof(s->entries[0]));
    return last = s;
}

static void enter_region(struct stack *s, uint64_t sp)
{
    if (sp >= s->region.start && sp < s->region.end)
        return;
    s->region = host_region(sp);
    for (s->floor = 0; s->floor < s->floor_count && s->floors[s->floor].region != s->region.start; s->floor++) {
    }
    if (s->floor == s->floor_count && s->floor_count < MAX_FLOORS)
        s->floors[s->floor_count++] = (struct stack_floor){.region = s->region.start, .slot = s->slot};
    for (uint32_t i = s->depth; i-- > 0;) {
        if (s->entries[i].region == s->region.start) {
            s->depth = i + 1;
            break;
        }
    }
}

static void track_call(const struct call_row *c)
{
    struct stack *s = stack_of(c->slot);
    if (!s)
        return;
    enter_region(s, c->sp);
    if (s->floor < MAX_FLOORS && s->floors[s->floor].floor < c->sp)
        s->floors[s->floor].floor = c->sp;
    while (s->depth && s->entries[s->depth - 1].region == s->region.start && s->entries[s->depth - 1].sp <= c->sp)
        s->depth--;
    if (s->depth == MAX_STACK) {
        // Endless recursion: the oldest half goes.
        __builtin_memmove(s->entries, s->entries + MAX_STACK / 2, MAX_STACK / 2 * sizeof(s->entries[0]));
        s->depth = MAX_STACK / 2;
    }
    s->entries[s->depth++] = (struct stack_entry){.stamp = c->stamp, .icount = c->icount, .pc = c->pc,
                                                  .return_addr = c->return_addr, .sp = c->sp,
                                                  .region = s->region.start, .slot = c->slot};
}

void consume_set_stack(uint32_t slot, const uint8_t *entries, uint64_t len)
{
    struct stack *s = stack_of(slot);
    if (!s)
        return;
    s->depth = 0;
    s->region = (struct addr_range){0};
    for (uint64_t off = 0; off + sizeof(struct stack_entry) <= len && s->depth < MAX_STACK; off += sizeof(struct stack_entry)) {
        __builtin_memcpy(&s->entries[s->depth], entries + off, sizeof(struct stack_entry));
        s->entries[s->depth].region = host_region(s->entries[s->depth].sp).start;
        s->entries[s->depth].slot = slot;
        s->depth++;
    }
}

/* --- the pass over the log --- */

static bool consume(void *ctx, const uint8_t *log, size_t len, uint64_t icount, uint32_t last_insns)
{
    const uint8_t *end = log + len;
    bool go_on = true;
    uint64_t at = clock_base + run_offset + icount;
    while (log < end) {
        uint32_t idx = *(const uint32_t *)(const void *)log;
        const struct block_info *b = engine_block(idx);
        const uint64_t *slots = (const uint64_t *)(const void *)(log + 8);
        log += 8 + 8u * b->slot_count;
        bool partial = log >= end && last_insns != UINT32_MAX;
        uint32_t done = partial ? last_insns : b->insn_count;
        if (want.index) {
            if (!partial)
                counts[idx]++;
        }
        if (want.blocks) {
            struct block_row row = {clock_stamp, at, b->pc, (uint16_t)done, b->byte_len, run_slot};
            go_on &= add_row(STREAM_BLOCKS, &row, sizeof(row));
        }
        for (uint32_t i = 0; i < b->store_count; i++) {
            const struct store_desc *d = &b->stores[i];
            uint64_t addr = *slots++, size = d->size;
            if (d->kind == STORE_REP) {
                uint64_t after = *slots++;
                if (d->insn >= done)
                    break; // interrupted or faulted: what it did is seen when it goes on
                if (after >= addr) {
                    size = after - addr;
                } else {
                    size = addr - after;
                    addr = after + d->size;
                }
                if (!size)
                    continue;
            } else if (d->insn >= done) {
                break;
            }
            if (want.index)
                mark(addr, size);
            if (want.watch_count && watched(addr, addr + size)) {
                struct write_row row = {.stamp = clock_stamp, .icount = at + d->insn, .pc = b->pc, .addr = addr,
                                        .size = (uint32_t)size, .kind = d->kind, .slot = run_slot};
                go_on &= add_row(STREAM_WRITES, &row, sizeof(row));
            }
            if (d->kind == STORE_CALL && (want.calls || want.track)) {
                struct call_row row = {.stamp = clock_stamp, .icount = at + d->insn, .pc = b->pc,
                                       .return_addr = b->pc + b->byte_len, .sp = addr, .slot = run_slot};
                if (want.track)
                    track_call(&row);
                if (want.calls)
                    go_on &= add_row(STREAM_CALLS, &row, sizeof(row));
            }
        }
        at += done;
    }
    return go_on;
}

/* --- the wire --- */

static void forget(void)
{
    if (want.index) {
        for (uint32_t i = 0; i < engine_block_count(); i++)
            counts[i] = 0;
    }
    if (total_count)
        __builtin_memset(totals, 0, COUNT_SLOTS * sizeof(totals[0]));
    if (written_count)
        __builtin_memset(written, 0, (uint64_t)PAGE_SLOTS * sizeof(written[0]));
    total_count = written_count = 0;
    last_written = NULL;
    for (int i = 0; i < STREAM_COUNT; i++) {
        if (i != STREAM_HOOKS)
            streams[i].len = streams[i].taken = 0;
    }
}

void consume_select(const struct wire_command *c, const uint8_t *window)
{
    if (!c->consume.keep_rows) {
        forget();
        for (unsigned i = 0; i < STACKS && !c->consume.keep_stacks; i++) {
            stacks[i].used = false;
            stacks[i].depth = stacks[i].floor_count = 0;
            stacks[i].region = (struct addr_range){0};
        }
    }
    want.index = c->consume.index;
    want.calls = c->consume.calls;
    want.blocks = c->consume.blocks;
    want.keep_last = c->consume.keep_last;
    want.track = c->consume.track;
    want.max_rows = c->consume.max_rows;
    want.watch_count = c->consume.watch_count < MAX_WATCH ? c->consume.watch_count : MAX_WATCH;
    want.watch_min = UINT64_MAX;
    want.watch_max = 0;
    for (uint64_t i = 0; i < want.watch_count; i++) {
        __builtin_memcpy(&want.watch[i], window + i * sizeof(want.watch[0]), sizeof(want.watch[0]));
        if (want.watch[i].start < want.watch_min)
            want.watch_min = want.watch[i].start;
        if (want.watch[i].end > want.watch_max)
            want.watch_max = want.watch[i].end;
    }
}

void consume_clock(uint64_t stamp, uint64_t icount_base)
{
    clock_stamp = stamp;
    clock_base = icount_base;
}

void consume_begin(uint32_t slot, uint64_t icount)
{
    run_slot = slot;
    run_offset = icount;
}

/* Tables become rows when they are asked for. */
static void list_table(uint32_t stream)
{
    struct rows *r = &streams[stream];
    if (stream == STREAM_COUNTS) {
        fold_counts();
        for (uint64_t i = 0; i < COUNT_SLOTS && total_count; i++) {
            if (totals[i].count) {
                __builtin_memcpy(r->data + r->len, &totals[i], sizeof(totals[i]));
                r->len += sizeof(totals[i]);
                totals[i].count = 0;
            }
        }
        total_count = 0;
    } else if (stream == STREAM_PAGES) {
        for (uint64_t i = 0; i < PAGE_SLOTS && written_count; i++) {
            if (written[i].page) {
                __builtin_memcpy(r->data + r->len, &written[i], sizeof(written[i]));
                r->len += sizeof(written[i]);
                __builtin_memset(&written[i], 0, sizeof(written[i]));
            }
        }
        written_count = 0;
        last_written = NULL;
    } else if (stream == STREAM_STACK) {
        for (unsigned i = 0; i < STACKS; i++) {
            if (!stacks[i].used)
                continue;
            __builtin_memcpy(r->data + r->len, stacks[i].entries, stacks[i].depth * sizeof(struct stack_entry));
            r->len += stacks[i].depth * sizeof(struct stack_entry);
        }
    } else if (stream == STREAM_FLOORS) {
        for (unsigned i = 0; i < STACKS; i++) {
            if (!stacks[i].used)
                continue;
            __builtin_memcpy(r->data + r->len, stacks[i].floors, stacks[i].floor_count * sizeof(struct stack_floor));
            r->len += stacks[i].floor_count * sizeof(struct stack_floor);
        }
    }
}

uint64_t consume_take(uint32_t stream, uint8_t *window, uint64_t len, uint64_t *left_out)
{
    *left_out = 0;
    if (stream >= STREAM_COUNT)
        return 0;
    struct rows *r = &streams[stream];
    if (r->len == 0)
        list_table(stream);
    uint64_t n = r->len - r->taken < len ? r->len - r->taken : len;
    __builtin_memcpy(window, r->data + r->taken, n);
    r->taken += n;
    *left_out = r->len - r->taken;
    if (!*left_out)
        r->len = r->taken = 0;
    return n;
}

/* --- hooks --- */

enum { MAX_HOOKS = 2048, MAX_MEMORY = 32 };
static uint64_t hook_pcs[MAX_HOOKS], break_pcs[64];
static size_t hook_count, break_count;
static struct hook_memory hook_memory[MAX_MEMORY];
static uint64_t hook_memory_count, hook_max_rows, hook_rows;
static bool hook_keep_last, hook_regs;

static void set_all_breaks(void)
{
    static uint64_t all[MAX_HOOKS + 64];
    size_t n = 0;
    for (size_t i = 0; i < hook_count; i++)
        all[n++] = hook_pcs[i];
    for (size_t i = 0; i < break_count; i++)
        all[n++] = break_pcs[i];
    engine_set_breaks(all, n);
}

void hooks_set_breaks(const uint64_t *pcs, uint64_t count)
{
    break_count = count < 64 ? count : 64;
    for (size_t i = 0; i < break_count; i++)
        break_pcs[i] = pcs[i];
    set_all_breaks();
}

void hooks_select(const struct wire_command *c, const uint8_t *window)
{
    bool had = hook_count;
    hook_count = c->len < MAX_HOOKS ? c->len : MAX_HOOKS;
    hook_memory_count = c->consume.memory_count < MAX_MEMORY ? c->consume.memory_count : MAX_MEMORY;
    __builtin_memcpy(hook_pcs, window, hook_count * sizeof(hook_pcs[0]));
    __builtin_memcpy(hook_memory, window + c->len * 8, hook_memory_count * sizeof(hook_memory[0]));
    hook_max_rows = c->consume.max_rows;
    hook_keep_last = c->consume.keep_last;
    hook_regs = c->consume.regs;
    hook_rows = 0;
    if (!c->consume.keep_rows)
        streams[STREAM_HOOKS].len = streams[STREAM_HOOKS].taken = 0;
    else if (streams[STREAM_HOOKS].len)
        hook_rows = 1;
    if (had || hook_count)
        set_all_breaks();
}

static bool is_one_of(uint64_t pc, const uint64_t *pcs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (pcs[i] == pc)
            return true;
    }
    return false;
}

/* Appends a row; its length depends on the selection only, so rows can be dropped from the front. False: stop. */
static bool record_hit(const struct engine_task *task, uint64_t icount)
{
    struct rows *r = &streams[STREAM_HOOKS];
    uint64_t size = sizeof(struct hook_row);
    for (uint64_t i = 0; i < hook_memory_count; i++)
        size += (hook_memory[i].len + 7u) & ~7u;
    if (hook_max_rows && hook_keep_last && r->len >= 2 * hook_max_rows * size) {
        uint64_t keep = hook_max_rows * size;
        __builtin_memmove(r->data, r->data + r->len - keep, keep);
        r->len = keep;
    }
    if (r->len + size > ROWS_LEN)
        return false;
    struct hook_row *row = (struct hook_row *)(void *)(r->data + r->len);
    row->stamp = clock_stamp;
    row->icount = clock_base + icount;
    row->slot = run_slot;
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
    r->len += size;
    hook_rows++;
    return !hook_max_rows || hook_keep_last || hook_rows < hook_max_rows;
}

void hooks_run(struct engine_task *task, uint32_t slot, const struct engine_request *q, struct engine_result *out)
{
    struct engine_request rest = *q;
    uint64_t icount = 0, ticks = 0;
    // A run that begins at a hook has not hit it yet, unless it stopped there before.
    static uint64_t stopped_at_stamp = UINT64_MAX, stopped_at_icount;
    bool first = true;
    for (;;) {
        consume_begin(slot, icount);
        if (first && hook_count && rest.max_icount && is_one_of(task->regs.r[UREG_RIP], hook_pcs, hook_count) &&
            (stopped_at_stamp != clock_stamp || stopped_at_icount != clock_base)) {
            stopped_at_stamp = clock_stamp;
            stopped_at_icount = clock_base;
            if (!record_hit(task, 0)) {
                *out = (struct engine_result){.reason = STOP_CONSUMER};
                return;
            }
        }
        first = false;
        engine_run(task, &rest, out);
        icount += out->icount;
        ticks += out->ticks;
        uint64_t pc = task->regs.r[UREG_RIP];
        if (out->reason != STOP_BREAK || !is_one_of(pc, hook_pcs, hook_count))
            break;
        bool go_on = record_hit(task, icount);
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
    out->icount = icount;
    out->ticks = ticks;
}
