/* Consumers of the log. One pass over each piece of log does all that is selected: counts of blocks, written granules,
 * watched writes, calls, and the stack of calls.
 *
 * The stack of calls (docs/architecture.md): a call at stack address S ends all calls of the same stack whose return address
 * lay at or below S. Stacks are told apart by the region of memory they are in; a call in another region than the last is
 * on a signal's or the syscall hook's stack if that region is new, and ends those of the regions above if it is not. */
#include "worker/consume.h"

#include "worker/engine_int.h"

#include <Zydis/Zydis.h>

enum { MAX_WATCH = 1024, MAX_STACK = 1 << 16, STACKS = 64, MAX_FLOORS = 32 };
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

/* The rows of a stream, found by their first bytes. Its hash table is as large as the rows need, so that little is cleared for
 * the next segment. */
struct set {
    uint32_t stream, row_len;
    uint32_t *slots; /* index of the row + 1, open addressing */
    uint64_t cap;
};
enum { SET_FIRST_CAP = 1 << 10, SET_MAX_CAP = 1 << 26 };

static uint64_t *counts; /* by block index, since the last flush */
static struct set totals = {STREAM_COUNTS, sizeof(struct block_count), NULL, SET_FIRST_CAP};
static struct set written = {STREAM_PAGES, sizeof(struct written_page), NULL, SET_FIRST_CAP};
enum { RECENT = 64 };
static struct {
    uint64_t page;
    struct written_page *row;
} recent[RECENT]; /* by low bits of the page number */

/* A `rep` store that was interrupted in its midst: where it got to shows when it goes on, or at the end of the run. */
static struct {
    bool pending;
    uint64_t before, size, icount, pc;
} cut_store;

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
    totals.slots = reserve(SET_MAX_CAP * sizeof(uint32_t));
    written.slots = reserve(SET_MAX_CAP * sizeof(uint32_t));
    for (int i = 0; i < STREAM_COUNT; i++)
        streams[i].data = reserve(ROWS_LEN);
    engine_set_consumer(consume, NULL);
}

/* --- index --- */

static uint32_t *set_slot(const struct set *set, uint64_t key, uint32_t key2)
{
    const uint8_t *rows = streams[set->stream].data;
    uint64_t at = ((key ^ (uint64_t)key2 << 40) * 0x9e3779b97f4a7c15ull) >> 32;
    for (;; at++) {
        uint32_t *slot = &set->slots[at & (set->cap - 1)];
        if (!*slot)
            return slot;
        const uint8_t *row = rows + (uint64_t)(*slot - 1) * set->row_len;
        if (*(const uint64_t *)(const void *)row == key &&
            (set != &totals || *(const uint32_t *)(const void *)(row + 8) == key2))
            return slot;
    }
}

/* The row of a key, a new one if there is none: only the key is set then. */
static void *set_row(struct set *set, uint64_t key, uint32_t key2)
{
    struct rows *r = &streams[set->stream];
    uint32_t *slot = set_slot(set, key, key2);
    if (*slot)
        return r->data + (uint64_t)(*slot - 1) * set->row_len;
    uint64_t count = r->len / set->row_len;
    if (r->len + set->row_len > ROWS_LEN || 2 * count >= SET_MAX_CAP)
        engine_host_fatal("too much for the index of one segment");
    if (2 * count >= set->cap) {
        set->cap *= 4;
        __builtin_memset(set->slots, 0, set->cap * sizeof(set->slots[0]));
        for (uint64_t i = 0; i < count; i++) {
            const uint8_t *row = r->data + i * set->row_len;
            uint32_t row_key2 = set == &totals ? *(const uint32_t *)(const void *)(row + 8) : 0;
            *set_slot(set, *(const uint64_t *)(const void *)row, row_key2) = (uint32_t)i + 1;
        }
        slot = set_slot(set, key, key2);
    }
    uint8_t *row = r->data + r->len;
    __builtin_memset(row, 0, set->row_len);
    *(uint64_t *)(void *)row = key;
    if (set == &totals)
        *(uint32_t *)(void *)(row + 8) = key2;
    r->len += set->row_len;
    *slot = (uint32_t)count + 1;
    return row;
}

static void set_clear(struct set *set)
{
    streams[set->stream].len = streams[set->stream].taken = 0;
    set->cap = SET_FIRST_CAP;
    __builtin_memset(set->slots, 0, set->cap * sizeof(set->slots[0]));
}

static void add_count(const struct block_info *b, uint16_t insn_count, uint16_t byte_len, uint8_t end, uint64_t count)
{
    struct block_count *total = set_row(&totals, b->pc, (uint32_t)byte_len << 16 | insn_count);
    total->end = end;
    total->ticks = end == b->end ? b->ticks : 0;
    total->count += count;
}

static void fold_counts(void)
{
    uint32_t blocks = engine_block_count();
    for (uint32_t i = 0; i < blocks; i++) {
        if (!counts[i])
            continue;
        const struct block_info *b = engine_block(i);
        add_count(b, b->insn_count, b->byte_len, b->end, counts[i]);
        counts[i] = 0;
    }
}

void engine_host_before_flush(void)
{
    if (want.index)
        fold_counts();
}

/* Bytes of the first `insns` instructions at pc. */
static uint16_t prefix_len(const struct block_info *b, uint32_t insns)
{
    static uint8_t vectors[XSTATE_MAX] __attribute__((aligned(64))); // Zydis may use them, and the guest's are loaded
    static uint8_t bytes[16 * MAX_BLOCK_INSNS];
    uint64_t have = engine_copy_from_guest(bytes, b->pc, b->byte_len < sizeof(bytes) ? b->byte_len : sizeof(bytes)), len = 0;
    __asm__ volatile("xsave64 (%0)" ::"r"(vectors), "a"(-1), "d"(-1) : "memory");
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (uint32_t i = 0; i < insns && len < have; i++) {
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, bytes + len, have - len, &z)))
            break;
        len += z.length;
    }
    __asm__ volatile("xrstor64 (%0)" ::"r"(vectors), "a"(-1), "d"(-1) : "memory");
    return (uint16_t)len;
}

static struct written_page *page_of(uint64_t page)
{
    uint64_t i = page / PAGE_SIZE % RECENT;
    if (recent[i].page != page || !recent[i].row) {
        recent[i].row = set_row(&written, page, 0);
        recent[i].page = page;
    }
    return recent[i].row;
}

static inline void mark(uint64_t addr, uint64_t size)
{
    uint64_t first = addr >> 3, last = (addr + size - 1) >> 3;
    struct written_page *p = page_of(addr & ~(uint64_t)(PAGE_SIZE - 1));
    p->granules[first >> 6 & 7] |= 1ull << (first & 63);
    for (uint64_t g = first + 1; g <= last; g++) {
        if ((g & 511) == 0)
            p = page_of(g << 3);
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

/* What a store wrote, [addr, addr + size). False: the run is to stop. */
static inline bool stored(const struct block_info *b, uint64_t addr, uint64_t size, uint8_t kind, uint64_t icount, bool index,
                          bool watch)
{
    if (index)
        mark(addr, size);
    if (!watch || (kind != STORE_SCATTER && !watched(addr, addr + size)))
        return true;
    struct write_row row = {.stamp = clock_stamp, .icount = icount, .pc = b->pc, .addr = addr,
                            .size = size < UINT32_MAX ? (uint32_t)size : UINT32_MAX, .kind = kind, .slot = run_slot};
    return add_row(STREAM_WRITES, &row, sizeof(row));
}

static bool stored_string(const struct block_info *b, uint64_t before, uint64_t after, uint64_t size, uint64_t icount)
{
    if (after == before)
        return true;
    uint64_t start = after > before ? before : after + size, end = after > before ? after : before + size;
    return stored(b, start, end - start, STORE_REP, icount, want.index, want.watch_count);
}

/* The interrupted string store is found to have got to `after`. */
static bool end_cut_store(uint64_t after)
{
    struct block_info b = {.pc = cut_store.pc};
    cut_store.pending = false;
    return stored_string(&b, cut_store.before, after, cut_store.size, cut_store.icount);
}

/* Calls, strings, blocks: whatever is not wanted often or seldom seen. */
static bool take_record(const struct block_info *b, const uint64_t *slots, uint64_t at, uint32_t done)
{
    bool go_on = true;
    if (want.blocks && done) {
        struct block_row row = {clock_stamp, at, b->pc, (uint16_t)done,
                                done < b->insn_count ? prefix_len(b, done) : b->byte_len, run_slot};
        go_on &= add_row(STREAM_BLOCKS, &row, sizeof(row));
    }
    for (uint32_t i = 0; i < b->store_count; i++) {
        const struct store_desc *d = &b->stores[i];
        uint64_t addr = *slots++, icount = at + d->insn;
        if (cut_store.pending) // what goes on is a block that begins with the same instruction
            go_on &= end_cut_store(d->kind == STORE_REP && d->insn == 0 ? addr : cut_store.before);
        if (d->kind == STORE_REP) {
            uint64_t after = *slots++;
            if (d->insn == done) {
                cut_store = (__typeof__(cut_store)){true, addr, d->size, icount, b->pc};
                break;
            }
            if (d->insn > done)
                break;
            go_on &= stored_string(b, addr, after, d->size, icount);
            continue;
        }
        if (d->insn >= done)
            break;
        go_on &= stored(b, addr, d->size, d->kind, icount, want.index, want.watch_count);
        if (d->kind == STORE_CALL && (want.calls || want.track)) {
            struct call_row row = {.stamp = clock_stamp, .icount = icount, .pc = b->pc,
                                   .return_addr = b->pc + b->byte_len, .sp = addr, .slot = run_slot};
            if (want.track)
                track_call(&row);
            if (want.calls)
                go_on &= add_row(STREAM_CALLS, &row, sizeof(row));
        }
    }
    return go_on;
}

/* `wants_calls`, `watch`, `index` are constants: a loop of its own for each selection. */
static inline __attribute__((always_inline)) bool pass(const uint8_t *log, const uint8_t *end, uint64_t at, uint32_t last_insns,
                                                       bool index, bool watch, bool wants_calls)
{
    const struct block *blocks = (const struct block *)(const void *)engine_block(0);
    bool go_on = true;
    while (log < end) {
        uint32_t idx = *(const uint32_t *)(const void *)log;
        const struct block_info *b = &blocks[idx].info;
        const uint64_t *slots = (const uint64_t *)(const void *)(log + 8);
        log += 8 + 8u * b->slot_count;
        if (__builtin_expect(log >= end && last_insns < b->insn_count, 0)) {
            if (index && last_insns)
                add_count(b, (uint16_t)last_insns, prefix_len(b, last_insns), END_FALL, 1);
            return go_on & take_record(b, slots, at, last_insns);
        }
        if (index)
            counts[idx]++;
        bool plain = b->slot_count == b->store_count && !cut_store.pending;
        bool calls = b->end == END_CALL || b->end == END_INDIRECT_CALL;
        if (__builtin_expect(!plain || (wants_calls && calls), 0)) {
            go_on &= take_record(b, slots, at, b->insn_count);
        } else {
            for (uint32_t i = 0; i < b->store_count; i++)
                go_on &= stored(b, slots[i], b->stores[i].size, b->stores[i].kind, at + b->stores[i].insn, index, watch);
        }
        at += b->insn_count;
    }
    return go_on;
}

static bool consume(void *ctx, const uint8_t *log, size_t len, uint64_t icount, uint32_t last_insns)
{
    const uint8_t *end = log + len;
    uint64_t at = clock_base + run_offset + icount;
    if (want.blocks) {
        bool go_on = true;
        while (log < end) {
            uint32_t idx = *(const uint32_t *)(const void *)log;
            const struct block_info *b = engine_block(idx);
            const uint64_t *slots = (const uint64_t *)(const void *)(log + 8);
            log += 8 + 8u * b->slot_count;
            uint32_t done = log >= end && last_insns < b->insn_count ? last_insns : b->insn_count;
            if (want.index && done == b->insn_count)
                counts[idx]++;
            else if (want.index && done)
                add_count(b, (uint16_t)done, prefix_len(b, done), END_FALL, 1);
            go_on &= take_record(b, slots, at, done);
            at += done;
        }
        return go_on;
    }
    bool wants_calls = want.calls || want.track;
    if (want.index && !want.watch_count)
        return wants_calls ? pass(log, end, at, last_insns, true, false, true) : pass(log, end, at, last_insns, true, false, false);
    if (want.index)
        return pass(log, end, at, last_insns, true, true, wants_calls);
    if (want.watch_count)
        return pass(log, end, at, last_insns, false, true, wants_calls);
    return wants_calls ? pass(log, end, at, last_insns, false, false, true) : true;
}

void consume_end(const struct engine_task *task)
{
    if (cut_store.pending)
        end_cut_store(task->regs.r[UREG_RDI]);
}

/* --- the wire --- */

static void forget(void)
{
    if (want.index) {
        for (uint32_t i = 0; i < engine_block_count(); i++)
            counts[i] = 0;
    }
    set_clear(&totals);
    set_clear(&written);
    __builtin_memset(recent, 0, sizeof(recent));
    for (int i = 0; i < STREAM_COUNT; i++)
        streams[i].len = streams[i].taken = 0;
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

/* Of a stream that keeps its last rows only those count that were asked for. */
static void drop_oldest(uint32_t stream)
{
    static const uint32_t row_lens[] = {[STREAM_WRITES] = sizeof(struct write_row), [STREAM_CALLS] = sizeof(struct call_row),
                                        [STREAM_BLOCKS] = sizeof(struct block_row)};
    struct rows *r = &streams[stream];
    uint64_t most = UINT64_MAX;
    if (stream <= STREAM_BLOCKS && want.keep_last && want.max_rows)
        most = want.max_rows * row_lens[stream];
    if (r->len > most)
        r->taken = r->len - most;
}

uint64_t consume_take(uint32_t stream, uint8_t *window, uint64_t len, uint64_t *left_out)
{
    *left_out = 0;
    if (stream >= STREAM_COUNT)
        return 0;
    struct rows *r = &streams[stream];
    if (r->taken == 0) {
        list_table(stream);
        drop_oldest(stream);
    }
    uint64_t n = r->len - r->taken < len ? r->len - r->taken : len;
    __builtin_memcpy(window, r->data + r->taken, n);
    r->taken += n;
    *left_out = r->len - r->taken;
    if (*left_out)
        return n;
    r->len = r->taken = 0;
    if (stream == STREAM_COUNTS)
        set_clear(&totals);
    if (stream == STREAM_PAGES) {
        set_clear(&written);
        __builtin_memset(recent, 0, sizeof(recent));
    }
    return n;
}
