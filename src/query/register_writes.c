/* The last write to a register, found without looking at every instruction.
 *
 * Each code block that ever ran has a mask of the registers that it may write. The index tells
 * which blocks ran in a segment, so segments without a block that matters are passed over, and
 * their files not read. The others are run again with a log of executed blocks, in pieces between
 * kept states or in stretches that grow, backwards; the worker keeps only the last of those that
 * matter. Where the index tells that few of them ran in the segment, the run ends behind the last
 * one: what the program does then, it need not do again. What this finds is only a candidate; that
 * there is nothing behind it is certain: code that may have been different when it ran counts as
 * writing everything. */
#include "query/code_changes_int.h"
#include "query/uses_int.h"

#include <sys/syscall.h>

enum { FEW = 64, FIRST_STRETCH = 1 << 15, GROWTH = 8, LONGEST_BLOCK = 64 * X86_MAX_LEN };
static const uint64_t DECODED = 1ull << 63; /* no register has this bit */

/* What the blocks of one space may write. Kept as long as the query engine. */
struct block_masks {
    struct code_changes code;
    struct block_mask {
        uint64_t mask;         /* 0: not decoded yet */
        uint64_t touched;      /* registers that it may write or read */
        uint32_t after, until; /* good for segments in between */
    } * masks;                 /* of the blocks from code.first on */
    uint32_t *ran;             /* blocks, from code.first on, segment by segment */
    size_t *first_ran;         /* by segment: where it begins in `ran`; one more for the end */
};

struct register_index {
    VEC(struct block_masks *) spaces;
};

static void free_masks(struct block_masks *m)
{
    free(m->masks);
    free(m->ran);
    free(m->first_ran);
    code_changes_deinit(&m->code);
    free(m);
}

void register_index_free(struct register_index *x)
{
    if (!x)
        return;
    vec_each (it, &x->spaces)
        free_masks(*it);
    vec_deinit(&x->spaces);
    free(x);
}

/* --- masks --- */

/* Lists the blocks that ran in each segment. */
static void list_by_segment(const struct query_engine *q, struct block_masks *m)
{
    size_t segments, count;
    history_segments(q->history, &segments);
    const struct history_block *blocks = history_blocks(q->history, &count) + m->code.first;
    const struct history_run *runs = history_runs(q->history);
    size_t *end = m->first_ran = xnew_array(size_t, segments + 2);
    for (size_t i = 0; i < m->code.count; i++) {
        for (uint32_t k = 0; k < blocks[i].run_count; k++)
            end[runs[blocks[i].first_run + k].segment + 2]++;
    }
    for (size_t s = 0; s < segments; s++)
        end[s + 2] += end[s + 1];
    m->ran = xnew_array(uint32_t, end[segments + 1] + 1);
    for (size_t i = 0; i < m->code.count; i++) {
        for (uint32_t k = 0; k < blocks[i].run_count; k++)
            m->ran[end[runs[blocks[i].first_run + k].segment + 1]++] = (uint32_t)i;
    }
}

static struct err *masks_of(struct query_engine *q, uint32_t space, struct block_masks **out)
{
    if (!q->register_index)
        q->register_index = xnew(struct register_index);
    vec_each (it, &q->register_index->spaces) {
        if ((*it)->code.space == space) {
            *out = *it;
            return NULL;
        }
    }
    struct block_masks *m = xnew(struct block_masks);
    struct err *e = code_changes_init(q, space, &m->code);
    if (e) {
        free_masks(m);
        return e;
    }
    m->masks = xnew_array(struct block_mask, m->code.count + 1);
    list_by_segment(q, m);
    vec_push(&q->register_index->spaces, m);
    *out = m;
    return NULL;
}

uint64_t unlogged_registers(void)
{
    return x86_unit(X86_GPR) | x86_unit(X86_GPR + 8) | x86_unit(X86_GPR + 16) |
           x86_unit(X86_GPR + 24);
}

/* What system calls take. */
static uint64_t call_registers(void)
{
    return x86_unit(X86_GPR) | x86_unit(X86_GPR + 8 * 7) | x86_unit(X86_GPR + 8 * 6) |
           x86_unit(X86_GPR + 8 * 2) | x86_unit(X86_GPR + 8 * 10) | x86_unit(X86_GPR + 8 * 8) |
           x86_unit(X86_GPR + 8 * 9);
}

/* What a block may do with registers, as bits by x86_unit(). */
struct block_effect {
    uint64_t written, touched; /* touched: written or read */
    /* Indexes of instructions, with regard to the registers `wanted`. */
    unsigned last_writer, first_toucher;
};

/* The instructions of a block, one after the other. */
struct block_code {
    gaddr pc;
    unsigned len, at; /* bytes; of the next instruction */
    uint8_t bytes[LONGEST_BLOCK];
};

/* As the block is in the replay now; false: it cannot be read. */
static bool read_block(struct query_engine *q, struct replay *r, uint32_t space, gaddr pc,
                       unsigned byte_len, struct block_code *out)
{
    out->pc = pc;
    out->len = byte_len;
    out->at = 0;
    if (byte_len > sizeof(out->bytes))
        return false;
    struct err *e =
        recall_memory(q, r, space, pc, out->bytes, byte_len); // many blocks are on one page
    bool good = !e;
    err_free(e);
    return good;
}

/* False: there is no further one, or none that can be. */
static bool next_insn(struct block_code *c, struct x86_insn *out)
{
    if (c->at >= c->len || !x86_decode(c->bytes + c->at, c->len - c->at, c->pc + c->at, out))
        return false;
    c->at += out->len;
    return true;
}

/* Is the block in memory that other mappings may show, too? What is written there is not told as
 * changes of code. */
static bool is_shared(struct replay *r, uint32_t space, gaddr pc, unsigned byte_len)
{
    size_t count;
    const struct mapping *maps = replay_mappings(r, space, &count);
    bool shared = false;
    for (size_t i = mappings_behind(maps, count, pc); i < count && maps[i].start < pc + byte_len;
         i++)
        shared |= maps[i].object != NULL;
    return shared;
}

/* As the block is in the replay now; everything if it cannot be read, or is in shared memory. */
static struct block_effect block_effect(struct query_engine *q, struct replay *r, uint32_t space,
                                        gaddr pc, unsigned byte_len, unsigned insns,
                                        uint64_t wanted)
{
    struct block_code code;
    struct x86_insn in;
    struct block_effect out = {DECODED, DECODED, insns - 1, insns};
    bool good = !is_shared(r, space, pc, byte_len) && read_block(q, r, space, pc, byte_len, &code);
    for (unsigned i = 0; code.at < code.len && good; i++) {
        good = next_insn(&code, &in);
        if (!good)
            break;
        // Some system calls of the recorder's the replayer carries out itself: they have results.
        // All take arguments.
        uint64_t written = in.written | (in.class == X86_SYSCALL ? x86_unit(X86_GPR) : 0);
        uint64_t touched = written | in.read | (is_system_call(&in) ? call_registers() : 0);
        out.written |= written;
        out.touched |= touched;
        if (written & wanted)
            out.last_writer = i;
        if (touched & wanted && out.first_toucher == insns)
            out.first_toucher = i;
    }
    return good ? out : (struct block_effect){UINT64_MAX, UINT64_MAX, insns - 1, 0};
}

/* Index in history_blocks(), or SIZE_MAX. */
static size_t find_block(const struct history_block *blocks, const struct block_masks *m,
                         const struct db_block *b)
{
    size_t low = m->code.first, end = low + m->code.count, high = end;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (blocks[middle].pc < b->pc)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < end && blocks[low].pc == b->pc; low++) {
        if (blocks[low].byte_len == b->byte_len)
            return low;
    }
    return SIZE_MAX;
}

typedef VEC(struct passed_block) block_list;

/* What is known of the code that ran in a segment. */
struct segment_code {
    bool matters; /* some of it might have written one of the registers (or, if asked for, read it)
                   */
    uint64_t in_gaps; /* registers that may be written (or read) by what the replayer carries out
                         itself: bits by x86_unit() */
    bool changing; /* in the segment itself, nobody knows when: it has to be looked at where it ran
                    */
    struct moment since; /* else all of this holds from then on; before, code was different */
    struct moment until; /* if what is read is asked for: up to then */
    block_list passed;   /* the blocks that do not matter */
};

/* Is the code in the segment what the mask was made from? */
static bool is_good_for(const struct block_mask *known, size_t segment)
{
    return (known->after == UINT32_MAX || segment > known->after) && segment < known->until;
}

/* The mask of a block, an index in m->masks, decoded if it was not yet as it is at `before`; NULL:
 * not for this segment. */
static struct err *mask_of(struct query_engine *q, struct block_masks *m, size_t idx,
                           struct moment before, size_t segment, struct block_mask **out)
{
    size_t count;
    const struct history_block *b = &history_blocks(q->history, &count)[m->code.first + idx];
    struct block_mask *known = &m->masks[idx];
    *out = NULL;
    if (!known->mask) {
        struct replay *r;
        uint32_t here = (uint32_t)history_segment_at(q->history, before);
        code_changed_around(&m->code, b->pc, b->pc + b->byte_len, here, &known->after,
                            &known->until);
        if (known->after == here) // before that moment, or behind it
            return NULL;
        TRY(plain_state_at(q, before, &r));
        struct block_effect effect =
            block_effect(q, r, m->code.space, b->pc, b->byte_len, b->insn_count, 0);
        known->mask = effect.written;
        known->touched = effect.touched;
    }
    if (is_good_for(known, segment))
        *out = known;
    return NULL;
}

static struct err *mask_for(struct query_engine *q, struct block_masks *m, const struct db_block *b,
                            struct moment before, size_t segment, struct block_mask **out)
{
    size_t count, i = find_block(history_blocks(q->history, &count), m, b);
    *out = NULL;
    return i == SIZE_MAX ? NULL : mask_of(q, m, i - m->code.first, before, segment, out);
}

/* Does the index tell that nothing which ran in the segment writes one of the registers? before: a
 * moment at which there is a state of the space. */
static struct err *rules_out(struct query_engine *q, struct block_masks *m, struct moment before,
                             size_t segment, uint64_t wanted, bool *out)
{
    struct block_mask *known;
    *out = !(wanted & unlogged_registers());
    for (size_t i = m->first_ran[segment]; i < m->first_ran[segment + 1] && *out; i++) {
        TRY(mask_of(q, m, m->ran[i], before, segment, &known));
        *out = known && !(known->mask & wanted);
    }
    return NULL;
}

static void note_effect(const struct db_block *b, uint64_t effect, uint64_t wanted,
                        struct segment_code *out)
{
    if (b->end == END_STOP) // rdpid, lsl and lar have any register for their result
        out->in_gaps |= effect;
    if (effect & wanted)
        out->matters = true;
    else
        vec_push(&out->passed, (struct passed_block){b->pc, b->insn_count});
}

/* A moment of the segment with the code that ran last before `end`. */
static struct moment before_end(const struct query_engine *q, size_t segment, struct moment end)
{
    size_t count;
    if (moment_cmp(end, history_segments(q->history, &count)[segment].end) < 0)
        return end; // else that may be another segment's state
    return end.icount ? (struct moment){end.event, end.icount - 1}
                      : moment_before_event(q, end.event);
}

/* Blocks that are, or were at another time, different from what is known of them: as they are
 * before `end`; reads: as they are at `end`. */
static struct err *look_at_changed(struct query_engine *q, struct block_masks *m,
                                   const struct db_block *const *blocks, size_t count,
                                   size_t segment, struct moment end, uint64_t wanted, bool reads,
                                   struct segment_code *out)
{
    struct replay *r;
    struct block_code code;
    bool known;
    if (!reads)
        end = before_end(q, segment, end);
    TRY(reads ? code_same_until(q, &m->code, segment, end, &out->until, &known)
              : code_same_since(q, &m->code, segment, end, &out->since, &known));
    out->changing = !known;
    out->matters |= !known;
    if (!known)
        return NULL;
    TRY(plain_state_at(q, end, &r));
    for (size_t i = 0; i < count; i++) {
        const struct db_block *b = blocks[i];
        // What is not there has not run since, or does not until there is a change.
        if (!read_block(q, r, b->space, b->pc, b->byte_len, &code))
            continue;
        struct block_effect effect =
            block_effect(q, r, b->space, b->pc, b->byte_len, b->insn_count, wanted);
        note_effect(b, reads ? effect.touched : effect.written, wanted, out);
    }
    return NULL;
}

/* What ran in the segment before `end`; or, if what it reads matters, too, from `end` on. before: a
 * moment at which there is a state of the space. out->changing: (reads) changed code is not to be
 * looked at: it is read block by block. */
static struct err *look_at_segment(struct query_engine *q, struct moment before, size_t segment,
                                   struct moment end, uint32_t space, uint64_t wanted, bool reads,
                                   struct segment_code *out)
{
    struct block_masks *m;
    const struct segment *s;
    size_t count;
    VEC(const struct db_block *) changed = {0};
    TRY(masks_of(q, space, &m));
    TRY(history_part(q->history, segment, PART_BLOCKS, &s));
    bool unseen = reads && out->changing;
    out->passed.count = 0;
    out->changing = false;
    out->since = history_segments(q->history, &count)[segment].start;
    out->until = history_segments(q->history, &count)[segment].end;
    out->in_gaps = reads ? unlogged_registers() | call_registers() : unlogged_registers();
    out->matters = wanted & out->in_gaps;
    struct err *e = NULL;
    for (size_t i = 0; i < s->blocks.count && !e; i++) {
        const struct db_block *b = &s->blocks.items[i];
        struct block_mask *known = NULL;
        if (b->space != space)
            continue;
        e = mask_for(q, m, b, before, segment, &known);
        if (known)
            note_effect(b, reads ? known->touched : known->mask, wanted, out);
        else
            vec_push(&changed, b);
    }
    if (changed.count && unseen)
        out->changing = out->matters = true;
    else if (changed.count && !e)
        e = look_at_changed(q, m, changed.items, changed.count, segment, end, wanted, reads, out);
    vec_deinit(&changed);
    return e;
}

static int compare_users(const void *a, const void *b)
{
    const struct register_user *x = a, *y = b;
    return (x->pc > y->pc) - (x->pc < y->pc);
}

/* Adds the instructions of a block that may write the register or push it, as it is in the replay.
 */
static void add_users(struct query_engine *q, struct replay *r, const struct db_block *b,
                      uint64_t unit, register_users *out)
{
    struct block_code code;
    struct register_user u;
    bool good = read_block(q, r, b->space, b->pc, b->byte_len, &code);
    for (unsigned i = 0; i < b->insn_count && good; i++) {
        u.pc = code.pc + code.at;
        good = next_insn(&code, &u.insn);
        if (good && (u.insn.written & unit || (u.insn.class == X86_PUSH && u.insn.read & unit)))
            vec_push(out, u);
    }
}

struct err *register_users_of(struct query_engine *q, uint32_t space, unsigned reg, size_t segment,
                              struct moment at, size_t most, struct moment *since,
                              register_users *out, bool *known_out)
{
    struct block_masks *m;
    struct replay *r;
    const struct segment *s;
    uint64_t unit = x86_unit(reg);
    at = before_end(q, segment, at);
    TRY(masks_of(q, space, &m));
    TRY(code_same_since(q, &m->code, segment, at, since, known_out));
    if (!*known_out)
        return NULL;
    TRY(plain_state_at(q, at, &r));
    TRY(history_part(q->history, segment, PART_BLOCKS, &s));
    for (size_t i = 0; i < s->blocks.count && *known_out; i++) {
        const struct db_block *b = &s->blocks.items[i];
        struct block_mask *known;
        if (b->space != space)
            continue;
        TRY(mask_for(q, m, b, at, segment, &known));
        if (known && !(known->touched & unit))
            continue;
        // The result of rdpid, lsl and lar is in no block of a log.
        *known_out = !is_shared(r, space, b->pc, b->byte_len);
        *known_out &=
            b->end != END_STOP ||
            !(block_effect(q, r, space, b->pc, b->byte_len, b->insn_count, 0).written & unit);
        add_users(q, r, b, unit, out);
    }
    size_t n = 0;
    if (out->count)
        qsort(out->items, out->count, sizeof(out->items[0]), compare_users);
    vec_each (u, out) {
        if (!n || out->items[n - 1].pc != u->pc) // blocks overlap
            out->items[n++] = *u;
    }
    out->count = n;
    *known_out &= n <= most;
    return NULL;
}

/* --- events --- */

uint64_t event_registers(const struct db_event *e)
{
    uint64_t all = UINT64_MAX, ax = x86_unit(X86_GPR), cx = x86_unit(X86_GPR + 8),
             dx = x86_unit(X86_GPR + 16), bx = x86_unit(X86_GPR + 24), r11 = x86_unit(X86_GPR + 88),
             base = x86_unit(X86_FS_BASE);
    switch (e->kind) {
    case FRAME_SYSCALL:
        if (e->syscall_arch != ARCH_X86_64 || e->syscall_no == SYS_rt_sigreturn ||
            e->syscall_no == SYS_execve || e->syscall_no == SYS_execveat || e->ended_task ||
            e->created_task)
            return all;
        return ax | cx | r11 | dx | base | x86_unit(X86_FLAGS) |
               (e->syscall_no == SYS_pkey_alloc ? x86_unit(X86_CONTROL) : 0);
    case FRAME_INSTRUCTION_TRAP:
        return ax | bx | cx | dx | x86_unit(X86_FLAGS);
    case FRAME_PATCH_SYSCALL:
        return cx | r11 | x86_unit(X86_FLAGS);
    case FRAME_SIGNAL_HANDLER:
    case FRAME_SIGNAL_DELIVERY:
        return all;
    default:
        return 0;
    }
}

struct err *last_register_event(struct query_engine *q, uint32_t task, uint64_t wanted,
                                struct moment after, struct moment before, event_no *out)
{
    *out = 0;
    for (event_no n = before.event; n > after.event; n--) {
        if (n >= q->runner.count || q->runner.items[n] != task)
            continue;
        const struct db_event *e;
        TRY(event_at(q, n, &e, NULL));
        if (event_registers(e) & wanted) {
            *out = n;
            return NULL;
        }
    }
    return NULL;
}

/* --- searching --- */

enum { EFFECTS = 1024 };

struct logged {
    uint32_t space;
    struct known_effect {
        gaddr pc;
        uint16_t insns;
        struct block_effect effect;
    } * effects;                    /* EFFECTS of them, hashed by pc */
    struct buf blocks;              /* struct block_row */
    struct buf stores;              /* struct access_row: into code, or near it */
    VEC(struct addr_range) changed; /* by events */
};

static void logged_deinit(struct logged *l)
{
    free(l->effects);
    buf_deinit(&l->blocks);
    buf_deinit(&l->stores);
    vec_deinit(&l->changed);
}

static struct err *on_ending(void *ctx, struct replay *r, uint32_t space)
{
    struct logged *l = ctx;
    return space == l->space
               ? worker_take_rows(replay_worker(r, space), &l->stores, NULL, &l->blocks)
               : NULL;
}

static void on_wrote(void *ctx, struct replay *r, uint32_t space, gaddr addr, uint64_t len,
                     uint32_t object, uint64_t offset)
{
    struct logged *l = ctx;
    if (space == l->space)
        vec_push(&l->changed, (struct addr_range){addr, addr + len});
}

static void on_remapped(void *ctx, struct replay *r, uint32_t space, gaddr start, gaddr end)
{
    on_wrote(ctx, r, space, start, end - start, 0, 0);
}

/* Logs the blocks up to `until`, but those passed over, and what becomes of code that is written in
 * the segment. most: of the last rows; or, if stopped_out is not NULL, of the first ones, with
 * which the run may end; 0: all. */
static struct err *log_blocks(struct replay *r, const struct block_masks *m, uint32_t segment,
                              struct moment until, const block_list *passed, size_t most,
                              bool *stopped_out, struct logged *log)
{
    enum { MOST_RANGES = 1000 };
    VEC(struct watch_range) ranges = {0};
    vec_each (w, &m->code.writes) {
        struct watch_range *last = ranges.count ? &ranges.items[ranges.count - 1] : NULL;
        if (w->segment != segment)
            continue;
        if (last && (last->end == w->page || ranges.count == MOST_RANGES))
            last->end = w->page + PAGE_SIZE;
        else
            vec_push(&ranges, (struct watch_range){.space = log->space,
                                                   .start = w->page,
                                                   .end = w->page + PAGE_SIZE});
    }
    const struct replay_observer observer = {
        .ctx = log, .space_ending = on_ending, .wrote = on_wrote, .remapped = on_remapped};
    replay_set_observer(r, &observer);
    const struct consume_request consume = {.blocks = true,
                                            .passed = passed->items,
                                            .passed_count = passed->count,
                                            .max_rows = most,
                                            .keep_last = most && !stopped_out};
    struct err *e = replay_set_watch(r, ranges.items, ranges.count, &consume);
    vec_deinit(&ranges);
    TRY(e);
    TRY(replay_run(r, until, UINT64_MAX, stopped_out));
    return replay_worker(r, log->space)
               ? worker_take_rows(replay_worker(r, log->space), &log->stores, NULL, &log->blocks)
               : NULL;
}

/* Was code of [start, end) changed while blocks were logged? */
static bool code_changed(const struct logged *l, gaddr start, gaddr end)
{
    const struct access_row *row = (const void *)l->stores.data;
    for (size_t i = 0; i < l->stores.len / sizeof(*row); i++) {
        if (row[i].addr < end && row[i].addr + row[i].size > start)
            return true;
    }
    vec_each (c, &l->changed) {
        if (c->start < end && c->end > start)
            return true;
    }
    return false;
}

/* The effect of a block that was logged by a replay, which stands where the log ends. */
static const struct block_effect *effect_of_row(struct query_engine *q, struct replay *r,
                                                const struct block_masks *m, uint32_t segment,
                                                struct logged *l, const struct block_row *row,
                                                uint64_t wanted)
{
    if (!l->effects)
        l->effects = xnew_array(struct known_effect, EFFECTS);
    struct known_effect *known = &l->effects[(row->pc ^ row->pc >> 12) % EFFECTS];
    if (known->pc == row->pc && known->insns == row->insn_count)
        return &known->effect;
    uint32_t after, end;
    gaddr row_end = row->pc + row->byte_len;
    code_changed_around(&m->code, row->pc, row_end, segment, &after, &end);
    *known = (struct known_effect){
        row->pc, row->insn_count, {UINT64_MAX, UINT64_MAX, row->insn_count - 1u, 0}};
    if (after != segment || !code_changed(l, row->pc, row_end))
        known->effect =
            block_effect(q, r, l->space, row->pc, row->byte_len, row->insn_count, wanted);
    return &known->effect;
}

/* What is looked for. */
struct register_search {
    struct query_engine *q;
    struct block_masks *masks;
    uint32_t task, space;
    uint64_t wanted;
    struct segment_code code; /* of the segment that is searched */
};

/* An instruction that writes one of the registers, and how often it ran in the segment by the
 * index, but for what was met. Exact however runs cut blocks: each execution of an instruction is
 * in one block that was executed, whole or in part. */
struct writer {
    gaddr pc;
    uint64_t unmet;
};
typedef VEC(struct writer) writer_list;

static bool is_in_block(const struct writer *w, gaddr pc, unsigned byte_len)
{
    return w->pc >= pc && w->pc - pc < byte_len;
}

static void meet_block(writer_list *writers, const struct block_row *row)
{
    vec_each (w, writers)
        w->unmet -= w->unmet && is_in_block(w, row->pc, row->byte_len);
}

static uint64_t count_unmet(const writer_list *writers)
{
    uint64_t sum = 0;
    vec_each (w, writers)
        sum += w->unmet;
    return sum;
}

/* Is it known that the block writes none of the registers? */
static bool is_harmless(const struct register_search *s, const struct db_block *b, size_t segment)
{
    size_t count, i = find_block(history_blocks(s->q->history, &count), s->masks, b);
    const struct block_mask *known =
        i == SIZE_MAX ? NULL : &s->masks->masks[i - s->masks->code.first];
    return known && known->mask && is_good_for(known, segment) && !(known->mask & s->wanted);
}

/* The instructions of a block that write one of the registers, as they are in the replay. False:
 * not known. */
static bool add_writers(const struct register_search *s, struct replay *r, const struct db_block *b,
                        writer_list *out)
{
    struct block_code code;
    struct x86_insn in;
    if (is_shared(r, b->space, b->pc, b->byte_len) ||
        !read_block(s->q, r, b->space, b->pc, b->byte_len, &code))
        return false;
    while (code.at < code.len) {
        gaddr pc = code.pc + code.at;
        if (!next_insn(&code, &in))
            return false;
        bool known = false;
        vec_each (w, out)
            known |= w->pc == pc;
        if (in.written & s->wanted && !known)
            vec_push(out, (struct writer){pc, 0});
    }
    return true;
}

/* Which instructions write one of the registers in the segment, and how often, if they are few.
 * *few_out false: they are not, or it is not known. */
static struct err *list_writers(const struct register_search *s, struct replay *r, size_t segment,
                                writer_list *out, bool *few_out)
{
    enum { MOST_WRITERS = 256, MOST_EXECUTIONS = 20000 };
    const struct segment *part;
    *few_out = s->code.passed.count <= WORKER_MOST_PASSED;
    TRY(history_part(s->q->history, segment, PART_BLOCKS, &part));
    for (size_t i = 0; i < part->blocks.count && *few_out; i++) {
        const struct db_block *b = &part->blocks.items[i];
        if (b->space == s->space && !is_harmless(s, b, segment))
            *few_out = add_writers(s, r, b, out) && out->count <= MOST_WRITERS;
    }
    for (size_t i = 0; i < part->blocks.count && *few_out; i++) {
        const struct db_block *b = &part->blocks.items[i];
        vec_each (w, out)
            w->unmet += b->space == s->space && is_in_block(w, b->pc, b->byte_len) ? b->count : 0;
    }
    *few_out &= count_unmet(out) <= MOST_EXECUTIONS;
    return NULL;
}

/* Logs the blocks that matter from the segment's start on until all executions of the instructions
 * which write one of the registers have been met, or to `until`. */
static struct err *log_until_met(const struct register_search *s, struct replay *r, size_t segment,
                                 struct moment until, writer_list *writers, struct logged *log)
{
    bool stopped = true;
    size_t left;
    // There may be rows of parts of blocks, too, and other processes stop with rows of their own:
    // more and more at a time.
    for (unsigned n = 0; stopped && (left = count_unmet(writers)); n++) {
        size_t had = log->blocks.len, most = left << (n < 16 ? n : 16);
        TRY(check_cancel(s->q));
        TRY(log_blocks(r, s->masks, (uint32_t)segment, until, &s->code.passed, most, &stopped,
                       log));
        for (size_t at = had; at < log->blocks.len; at += sizeof(struct block_row))
            meet_block(writers, (const void *)(log->blocks.data + at));
    }
    return NULL;
}

/* The same for who wants the last row. *done_out false: those blocks are not few, and nothing was
 * done. */
static struct err *log_few(const struct register_search *s, struct replay *r, size_t segment,
                           struct moment from, struct moment until, struct logged *log,
                           bool *done_out)
{
    size_t segments;
    *done_out = false;
    // How often they ran is known of whole segments.
    if (moment_cmp(from, history_segments(s->q->history, &segments)[segment].start) != 0)
        return NULL;
    writer_list writers = {0};
    struct err *e = list_writers(s, r, segment, &writers, done_out);
    if (!e && *done_out)
        e = log_until_met(s, r, segment, until, &writers, log);
    vec_deinit(&writers);
    return e;
}

/* Goes through logged blocks backwards. */
static void last_of_rows(const struct register_search *s, struct replay *r, uint32_t segment,
                         struct logged *l, struct moment until, struct moment *out, bool *found)
{
    const struct block_row *row = (const void *)l->blocks.data;
    struct moment behind = until; // where the block after this one begins, or its run ends
    for (size_t i = l->blocks.len / sizeof(*row); i-- > 0 && !*found;) {
        struct moment at = {row[i].stamp, row[i].icount};
        if (task_running_at(s->q, at) != s->task)
            continue;
        if (behind.event != at.event)
            behind = (struct moment){at.event, s->q->event_icount.items[at.event + 1]};
        if (at.icount + row[i].insn_count < behind.icount && s->wanted & s->code.in_gaps) {
            *found = true;
            *out = (struct moment){at.event, behind.icount - 1};
            break;
        }
        behind = at;
        const struct block_effect *effect =
            effect_of_row(s->q, r, s->masks, segment, l, &row[i], s->wanted);
        if (!(effect->written & s->wanted))
            continue;
        *found = true;
        *out = (struct moment){at.event, at.icount + effect->last_writer};
    }
}

/* Looks for the last block of [from, until) that may write one of the registers; both in one
 * segment. most: as log_blocks(). full: that many were logged, and there may be others. */
static struct err *search_stretch(const struct register_search *s, struct moment from,
                                  struct moment until, size_t most, struct moment *out, bool *found,
                                  bool *full)
{
    static const block_list none;
    uint32_t segment = (uint32_t)history_segment_at(s->q->history, from);
    struct lease lease;
    TRY(lend_instead(s->q, segment, from, &lease));
    struct logged log = {.space = s->space};
    bool done = false;
    struct err *e = most ? log_few(s, lease.replay, segment, from, until, &log, &done) : NULL;
    if (!e && !done)
        e = log_blocks(lease.replay, s->masks, segment, until, most ? &s->code.passed : &none, most,
                       NULL, &log);
    *found = false;
    if (!e)
        last_of_rows(s, lease.replay, segment, &log, until, out, found);
    *full = most && !done && log.blocks.len / sizeof(struct block_row) >= most;
    logged_deinit(&log);
    return_replay(s->q, &lease, !e);
    return e;
}

/* Are all rows wanted? What the replayer carries out shows by gaps between blocks, and changing
 * code has to be looked at. */
static bool takes_all_rows(const struct register_search *s)
{
    return s->code.changing || s->wanted & s->code.in_gaps;
}

/* Where the n-th part of the segment's [start, until) begins that gets a run of its own: at a kept
 * state, but if it takes all rows soon. */
static struct moment part_before(const struct register_search *s, size_t segment,
                                 struct moment start, struct moment until, unsigned n)
{
    uint64_t len = FIRST_STRETCH;
    struct moment from = until;
    for (unsigned i = 0; i < n; i++)
        len = len < 1ull << 40 ? len * GROWTH : len;
    for (unsigned i = 0; i < 1u << (n < 5 ? n : 5) && moment_cmp(from, start) > 0; i++)
        from = lendable_before(s->q, segment, from);
    struct moment near = moment_back(s->q, until, len);
    if (takes_all_rows(s) && moment_cmp(near, from) > 0)
        from = near;
    return moment_cmp(from, start) > 0 ? from : start;
}

/* Looks for the last instruction before *until in the segment which may write one of the registers.
 */
static struct err *search_segment(struct register_search *s, size_t segment, struct moment start,
                                  struct moment until, struct moment *out, bool *found)
{
    const struct known_task *t = known_task(s->q, s->task);
    release_state(s->q); // it is one of the kept states
    for (unsigned n = 0; moment_cmp(start, until) < 0 && !*found; n++) {
        struct moment from = s->code.matters ? part_before(s, segment, start, until, n) : start;
        bool full = false;
        event_no event;
        TRY(check_cancel(s->q));
        if (s->code.matters)
            TRY(search_stretch(s, from, until, takes_all_rows(s) ? 0 : FEW, out, found, &full));
        if (full && !*found)
            TRY(search_stretch(s, from, until, 0, out, found, &full));
        TRY(last_register_event(s->q, s->task, s->wanted, *found ? *out : from, until, &event));
        if (!event && t && moment_cmp(from, t->start) < 0 &&
            (!*found || moment_cmp(*out, t->start) < 0))
            event = t->start.event;
        if (event) {
            *out = moment_before_event(s->q, event);
            *found = true;
        }
        until = from;
    }
    return NULL;
}

struct err *last_register_write(struct query_engine *q, uint32_t task, uint32_t space,
                                uint64_t wanted, struct moment before, struct moment *out,
                                bool *found)
{
    struct register_search s = {.q = q, .task = task, .space = space, .wanted = wanted};
    size_t segments, at = history_segment_at(q->history, before);
    const struct history_segment *segment = history_segments(q->history, &segments);
    struct moment until = before;
    struct err *e = masks_of(q, space, &s.masks);
    *found = false;
    if (at > 0 && moment_cmp(segment[at].start, before) >= 0)
        at--;
    for (; !e && !*found; until = segment[at--].start) {
        bool nothing;
        e = rules_out(q, s.masks, before, at, wanted, &nothing);
        s.code.matters = s.code.changing = false;
        s.code.since = segment[at].start;
        if (!e && !nothing)
            e = look_at_segment(q, before, at, until, space, wanted, false, &s.code);
        if (!e) // events may write it, too
            e = search_segment(&s, at, s.code.since, until, out, found);
        if (!e && !*found && moment_cmp(segment[at].start, s.code.since) < 0) {
            s.code.changing = s.code.matters = true;
            e = search_segment(&s, at, segment[at].start, s.code.since, out, found);
        }
        if (at == 0)
            break;
    }
    vec_deinit(&s.code.passed);
    return e;
}

/* Looks for the first block of [from, until) that may touch one of the registers; both in one
 * segment. most: of blocks that matter are logged; with these the run may end before `until`
 * (full). 0: all blocks are. */
static struct err *search_forth(const struct register_search *s, struct moment from,
                                struct moment until, size_t most, struct moment *out, bool *found,
                                bool *full)
{
    static const block_list none;
    uint32_t segment = (uint32_t)history_segment_at(s->q->history, from);
    struct lease lease;
    TRY(lend_instead(s->q, segment, from, &lease));
    struct logged log = {.space = s->space};
    struct err *e = log_blocks(lease.replay, s->masks, segment, until,
                               most ? &s->code.passed : &none, most, full, &log);
    const struct block_row *row = (const void *)log.blocks.data;
    size_t count = log.blocks.len / sizeof(*row);
    bool gaps = s->wanted & s->code.in_gaps;
    struct moment reached = from;
    *found = false;
    for (size_t i = 0; !e && i < count && !*found; i++) {
        struct moment at = {row[i].stamp, row[i].icount};
        if (task_running_at(s->q, at) != s->task)
            continue;
        bool same_run = reached.event == at.event;
        if (gaps && same_run && reached.icount < at.icount) {
            *found = true;
            *out = reached;
            break;
        }
        reached = (struct moment){at.event, at.icount + row[i].insn_count};
        const struct block_effect *effect =
            effect_of_row(s->q, lease.replay, s->masks, segment, &log, &row[i], s->wanted);
        if (!(effect->touched & s->wanted))
            continue;
        *found = true;
        *out = (struct moment){at.event, at.icount + effect->first_toucher};
        if (moment_cmp(*out, from) < 0)
            *out = from;
    }
    logged_deinit(&log);
    return_replay(s->q, &lease, !e);
    return e;
}

/* In [from, until), in which code is what it is at `from`, or has to be looked at where it ran. */
static struct err *next_in_version(const struct register_search *s, struct moment from,
                                   struct moment until, struct moment *out, bool *found)
{
    size_t most = takes_all_rows(s) ? 0 : FEW;
    for (uint64_t len = FIRST_STRETCH; !*found && moment_cmp(from, until) < 0; len *= GROWTH) {
        struct moment end = most ? until : moment_forth(s->q, from, len);
        bool full;
        if (moment_cmp(end, until) > 0)
            end = until;
        TRY(check_cancel(s->q));
        TRY(search_forth(s, from, end, most, out, found, &full));
        if (!full || *found) {
            from = end;
            continue;
        }
        if (!most)
            return err_new(ERR_LIMIT, "more blocks run here than can be looked at");
        most = 0; // those were other tasks'
        len = FIRST_STRETCH / GROWTH;
    }
    return NULL;
}

struct err *next_register_use(struct query_engine *q, uint32_t task, uint32_t space,
                              uint64_t wanted, struct moment from, struct moment until,
                              struct moment *out, bool *found)
{
    struct register_search s = {.q = q, .task = task, .space = space, .wanted = wanted};
    uint64_t len = FIRST_STRETCH;
    *found = false;
    struct err *e = masks_of(q, space, &s.masks);
    // Code that changed is looked at only if there is no use soon.
    for (unsigned n = 0; !e && !*found && moment_cmp(from, until) < 0; n++) {
        struct moment near = moment_forth(q, from, len), end = until;
        s.code.changing = n == 0;
        e = look_at_segment(q, from, history_segment_at(q->history, from), from, space, wanted,
                            true, &s.code);
        if (moment_cmp(near, until) > 0)
            near = until;
        if (!s.code.changing && moment_cmp(s.code.until, until) < 0)
            end = s.code.until;
        if ((n == 0 && s.code.changing) ||
            moment_cmp(end, near) <
                0) { // or versions of it are too short to be looked at one by one
            s.code.changing = s.code.matters = true;
            end = near;
            len *= GROWTH;
        }
        if (!e && s.code.matters)
            e = next_in_version(&s, from, end, out, found);
        from = end;
    }
    vec_deinit(&s.code.passed);
    return e;
}
