/* Consumers of the log. One pass over each piece of log does all that is selected: watched
 * accesses, calls, blocks. */
#include "worker/consume.h"

#include "worker/code.h"
#include "worker/rows.h"

enum { MAX_WATCH = 1024, PASSED_BITS = 15, PASSED_SLOTS = 1 << PASSED_BITS };

static struct {
    bool calls, blocks, keep_last;
    bool kinds[LOAD_GATHER + 1]; /* of accesses that are watched for */
    uint64_t max_rows;
    uint64_t watch_count;
    struct addr_range watch[MAX_WATCH];
    uint64_t watch_min, watch_max;
} want;

/* Blocks of which no row is wanted: a table of keys, 0 where nothing is; twice as large as it gets
 * full. */
static uint64_t passed[PASSED_SLOTS];
static uint64_t passed_count;

static struct rows streams[STREAM_LOGGED];
static uint64_t clock_stamp, clock_base;
static uint32_t run_slot;
static uint64_t run_offset;

/* A `rep` access that was interrupted in its midst: where it got to shows when it goes on, or at
 * the end of the run. At most the two of `rep movs`. */
static struct cut_access {
    bool pending;
    uint8_t kind, size, segment;
    uint64_t before, icount, pc;
} cut_accesses[3];
static bool any_cut;

static bool consume(void *ctx, const uint8_t *log, size_t len, uint64_t icount,
                    uint32_t last_insns);

void consume_init(void)
{
    for (int i = 0; i < STREAM_LOGGED; i++)
        rows_init(&streams[i]);
    engine_set_consumer(consume, NULL);
}

/* --- rows --- */

static const uint32_t row_lens[] = {[STREAM_ACCESSES] = sizeof(struct access_row),
                                    [STREAM_CALLS] = sizeof(struct call_row),
                                    [STREAM_BLOCKS] = sizeof(struct block_row)};

/* Adds a row; false: the run is to stop. */
static bool add_row(uint32_t stream, const void *row)
{
    struct rows *r = &streams[stream];
    if (want.max_rows && want.keep_last)
        rows_keep_last(r, want.max_rows, row_lens[stream]);
    return rows_add(r, row, row_lens[stream]) &&
           (want.keep_last || !want.max_rows || r->len / row_lens[stream] < want.max_rows);
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

/* --- blocks that are passed over --- */

static uint64_t passed_key(uint64_t pc, uint64_t insn_count)
{
    return pc ^ insn_count << 48;
}

/* Where the key is, or is to be. */
static uint64_t *passed_slot(uint64_t key)
{
    uint64_t at = key * 0x9e3779b97f4a7c15ull >> (64 - PASSED_BITS);
    while (passed[at] && passed[at] != key)
        at = (at + 1) % PASSED_SLOTS;
    return &passed[at];
}

static inline bool is_passed(const struct block_info *b)
{
    return passed_count && *passed_slot(passed_key(b->pc, b->insn_count));
}

static void set_passed(const struct passed_block *all, uint64_t count)
{
    if (passed_count)
        __builtin_memset(passed, 0, sizeof(passed));
    passed_count = count < WORKER_MOST_PASSED ? count : WORKER_MOST_PASSED;
    for (uint64_t i = 0; i < passed_count; i++) {
        uint64_t key = passed_key(all[i].pc, all[i].insn_count);
        *passed_slot(key) = key;
    }
}

/* --- the pass over the log --- */

/* [addr, addr + size) was accessed. False: the run is to stop. */
static inline bool accessed(uint64_t pc, uint64_t addr, uint64_t size, uint8_t kind,
                            uint64_t icount)
{
    if (!want.kinds[kind] ||
        (kind != STORE_SCATTER && kind != LOAD_GATHER && !watched(addr, addr + size)))
        return true;
    struct access_row row = {.stamp = clock_stamp,
                             .icount = icount,
                             .pc = pc,
                             .addr = addr,
                             .size = size < UINT32_MAX ? (uint32_t)size : UINT32_MAX,
                             .kind = kind,
                             .slot = run_slot};
    return add_row(STREAM_ACCESSES, &row);
}

static bool accessed_string(const struct cut_access *a, uint64_t after)
{
    if (after == a->before)
        return true;
    bool up = after > a->before;
    uint64_t start = up ? a->before : after + a->size, end = up ? after : a->before + a->size;
    return accessed(a->pc, start, end - start, a->kind, a->icount);
}

/* The interrupted string accesses have got to where the next block, which begins with the same
 * instruction, or the end of the run says. `slots`, `b`: the next block's; NULL: the registers are
 * in `regs`. */
static bool end_cut_accesses(const struct block_info *b, const uint64_t *slots,
                             const struct regs *regs)
{
    bool go_on = true;
    for (unsigned i = 0; i < 3; i++) {
        struct cut_access *a = &cut_accesses[i];
        if (!a->pending)
            continue;
        a->pending = false;
        uint64_t after = a->before;
        const bool by_rsi = a->kind == LOAD_REP && i == 0;
        if (regs)
            after = regs->r[by_rsi ? UREG_RSI : UREG_RDI] + (a->segment == 1 ? regs->r[UREG_FS_BASE]
                                                             : a->segment    ? regs->r[UREG_GS_BASE]
                                                                             : 0);
        else if (i < b->access_count && b->accesses[i].insn == 0 && b->accesses[i].kind == a->kind)
            after = slots[2 * i];
        go_on &= accessed_string(a, after);
    }
    any_cut = false;
    return go_on;
}

/* Calls, strings, blocks: whatever is not wanted often or seldom seen. */
static bool take_record(const struct block_info *b, const uint64_t *slots, uint64_t at,
                        uint32_t done)
{
    bool go_on = true;
    if (want.blocks && done && (done < b->insn_count || !is_passed(b))) {
        struct block_row row = {clock_stamp,
                                at,
                                b->pc,
                                (uint16_t)done,
                                done < b->insn_count ? code_prefix_len(b, done) : b->byte_len,
                                run_slot};
        go_on &= add_row(STREAM_BLOCKS, &row);
    }
    if (any_cut)
        go_on &= end_cut_accesses(b, slots, NULL);
    unsigned cut = 0;
    for (uint32_t i = 0; i < b->access_count; i++) {
        const struct access_desc *d = &b->accesses[i];
        bool rep = d->kind == STORE_REP || d->kind == LOAD_REP;
        uint64_t addr = *slots++, icount = at + d->insn, after = rep ? *slots++ : 0;
        if (d->insn > done || (d->insn == done && !rep))
            break;
        if (rep) {
            struct cut_access a = {true,   d->kind, (uint8_t)d->size, d->segment, addr,
                                   icount, b->pc};
            if (d->insn < done) {
                go_on &= accessed_string(&a, after);
            } else if (cut < 3) {
                cut_accesses[cut++] = a;
                any_cut = true;
            }
            continue;
        }
        go_on &= accessed(b->pc, addr, d->size, d->kind, icount);
        if (d->kind == STORE_CALL && want.calls) {
            struct call_row row = {.stamp = clock_stamp,
                                   .icount = icount,
                                   .pc = b->pc,
                                   .return_addr = b->pc + b->byte_len,
                                   .sp = addr,
                                   .slot = run_slot};
            go_on &= add_row(STREAM_CALLS, &row);
        }
    }
    return go_on;
}

static bool consume(void *ctx, const uint8_t *log, size_t len, uint64_t icount, uint32_t last_insns)
{
    const uint8_t *end = log + len;
    uint64_t at = clock_base + run_offset + icount;
    const struct block *blocks = (const struct block *)(const void *)engine_block(0);
    bool go_on = true;
    while (log < end) {
        const struct block_info *b = &blocks[*(const uint32_t *)(const void *)log].info;
        const uint64_t *slots = (const uint64_t *)(const void *)(log + 8);
        log += 8 + 8u * b->slot_count;
        bool cut = log >= end && last_insns < b->insn_count;
        bool strings = b->slot_count != b->access_count;
        bool calls = want.calls && (b->end == END_CALL || b->end == END_INDIRECT_CALL);
        if (__builtin_expect(cut || strings || calls || any_cut || (want.blocks && !is_passed(b)),
                             0)) {
            go_on &= take_record(b, slots, at, cut ? last_insns : b->insn_count);
        } else if (want.watch_count) {
            for (uint32_t i = 0; i < b->access_count; i++) {
                const struct access_desc *d = &b->accesses[i];
                go_on &= accessed(b->pc, slots[i], d->size, d->kind, at + d->insn);
            }
        }
        at += cut ? last_insns : b->insn_count;
    }
    return go_on;
}

void consume_end(const struct engine_task *task)
{
    if (any_cut)
        end_cut_accesses(NULL, NULL, &task->regs);
}

/* --- the wire --- */

void consume_select(const struct wire_command *c, const uint8_t *window)
{
    for (int i = 0; i < STREAM_LOGGED && !c->consume.keep_rows; i++)
        rows_clear(&streams[i]);
    want.calls = c->consume.calls;
    want.blocks = c->consume.blocks;
    want.keep_last = c->consume.keep_last;
    want.max_rows = c->consume.max_rows;
    want.watch_count = c->consume.watch_count < MAX_WATCH ? c->consume.watch_count : MAX_WATCH;
    set_passed((const void *)(window + want.watch_count * sizeof(want.watch[0])),
               c->consume.passed_count);
    want.watch_min = UINT64_MAX;
    want.watch_max = 0;
    for (uint64_t i = 0; i < want.watch_count; i++) {
        __builtin_memcpy(&want.watch[i], window + i * sizeof(want.watch[0]), sizeof(want.watch[0]));
        if (want.watch[i].start < want.watch_min)
            want.watch_min = want.watch[i].start;
        if (want.watch[i].end > want.watch_max)
            want.watch_max = want.watch[i].end;
    }
    for (int kind = 0; kind <= LOAD_GATHER; kind++)
        want.kinds[kind] =
            want.watch_count && (kind >= LOAD_PLAIN ? c->consume.loads : !c->consume.no_stores);
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

uint64_t consume_take(uint32_t stream, uint8_t *window, uint64_t len, uint64_t *left_out)
{
    *left_out = 0;
    if (stream >= STREAM_LOGGED)
        return 0;
    struct rows *r = &streams[stream];
    // Of a stream that keeps its last rows only those count that were asked for.
    if (r->taken == 0 && want.keep_last && want.max_rows &&
        r->len > want.max_rows * row_lens[stream])
        r->taken = r->len - want.max_rows * row_lens[stream];
    return rows_take(r, window, len, left_out);
}
