/* The last write to a register, found without looking at every instruction.
 *
 * Each code block that ever ran has a mask of the registers that it may write. A segment tells which blocks ran in it, so segments
 * without a block that matters are passed over. The others are run again with a log of executed blocks, in pieces between kept states or in
 * stretches that grow, backwards; the worker keeps only the last of those that matter. What this finds is only a candidate; that there
 * is nothing behind it is certain: code that may have been different when it ran counts as writing everything. */
#include "query/uses_int.h"

#include <sys/syscall.h>

enum { FIRST_STRETCH = 1 << 15, GROWTH = 8, LONGEST_BLOCK = 64 * X86_MAX_LEN };
static const uint64_t DECODED = 1ull << 63; /* no register has this bit */

/* Part of a page of code that was written in a segment. */
struct code_write {
    uint64_t page;
    uint32_t segment;
    uint64_t granules[8];
};

/* What the blocks of one space may write. Kept as long as the query engine. */
struct block_masks {
    uint32_t space;
    size_t first, count;  /* in history_blocks() */
    struct block_mask {
        uint64_t mask;    /* 0: not decoded yet */
        uint64_t touched; /* registers that it may write or read */
        uint32_t after, until; /* good for segments in between */
    } *masks;
    VEC(struct code_write) writes; /* by page, segment */
};

struct register_index {
    VEC(struct block_masks *) spaces;
};

void register_index_free(struct register_index *x)
{
    if (!x)
        return;
    vec_each (it, &x->spaces) {
        free((*it)->masks);
        vec_deinit(&(*it)->writes);
        free(*it);
    }
    vec_deinit(&x->spaces);
    free(x);
}

/* --- code that changes --- */

static int compare_writes(const void *a, const void *b)
{
    const struct code_write *x = a, *y = b;
    if (x->page != y->page)
        return x->page < y->page ? -1 : 1;
    return x->segment < y->segment ? -1 : x->segment > y->segment;
}

static bool has_code(const struct history_block *blocks, const struct block_masks *m, uint64_t page)
{
    size_t low = m->first, high = m->first + m->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (blocks[middle].pc + LONGEST_BLOCK < page)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < m->first + m->count && blocks[low].pc < page + PAGE_SIZE; low++) {
        if (blocks[low].pc + blocks[low].byte_len > page)
            return true;
    }
    return false;
}

static struct err *find_code_writes(struct query_engine *q, struct block_masks *m)
{
    size_t segments, count;
    history_segments(q->history, &segments);
    const struct history_block *blocks = history_blocks(q->history, &count);
    for (size_t i = 0; i < segments; i++) {
        const struct segment *s;
        TRY(history_part(q->history, i, PART_WRITTEN, &s));
        vec_each (w, &s->written) {
            // A shared object's pages may be code anywhere: not told apart, and rare.
            if (w->object || w->space != m->space || !has_code(blocks, m, w->page))
                continue;
            struct code_write *c = vec_add(&m->writes);
            *c = (struct code_write){.page = w->page, .segment = (uint32_t)i};
            memcpy(c->granules, w->granules, sizeof(c->granules));
        }
    }
    if (m->writes.count)
        qsort(m->writes.items, m->writes.count, sizeof(m->writes.items[0]), compare_writes);
    return NULL;
}

static bool touches(const struct code_write *w, gaddr start, gaddr end)
{
    gaddr from = start > w->page ? start - w->page : 0, to = end - w->page < PAGE_SIZE ? end - w->page : PAGE_SIZE;
    for (gaddr g = from / 8; g < (to + 7) / 8; g++) {
        if (w->granules[g / 64] >> g % 64 & 1)
            return true;
    }
    return false;
}

/* The segments nearest to `at` in which the bytes were written: the last one before or at, the first one behind. */
static void writes_around(const struct block_masks *m, gaddr start, gaddr end, uint32_t at, uint32_t *after, uint32_t *until)
{
    *after = UINT32_MAX; // none: counts as -1
    *until = UINT32_MAX;
    for (gaddr page = start & ~(gaddr)(PAGE_SIZE - 1); page < end; page += PAGE_SIZE) {
        size_t low = 0, high = m->writes.count;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (m->writes.items[middle].page < page)
                low = middle + 1;
            else
                high = middle;
        }
        for (; low < m->writes.count && m->writes.items[low].page == page; low++) {
            const struct code_write *w = &m->writes.items[low];
            if (!touches(w, start, end))
                continue;
            if (w->segment <= at && (*after == UINT32_MAX || w->segment > *after))
                *after = w->segment;
            if (w->segment > at && w->segment < *until)
                *until = w->segment;
        }
    }
}

/* --- masks --- */

static struct err *masks_of(struct query_engine *q, uint32_t space, struct block_masks **out)
{
    if (!q->register_index)
        q->register_index = xnew(struct register_index);
    vec_each (it, &q->register_index->spaces) {
        if ((*it)->space == space) {
            *out = *it;
            return NULL;
        }
    }
    size_t count, low = 0;
    const struct history_block *blocks = history_blocks(q->history, &count);
    while (low < count && blocks[low].space != space)
        low++;
    size_t end = low;
    while (end < count && blocks[end].space == space)
        end++;
    struct block_masks *m = xnew(struct block_masks);
    m->space = space;
    m->first = low;
    m->count = end - low;
    m->masks = xnew_array(struct block_mask, m->count + 1);
    struct err *e = find_code_writes(q, m);
    if (e) {
        free(m->masks);
        vec_deinit(&m->writes);
        free(m);
        return e;
    }
    vec_push(&q->register_index->spaces, m);
    *out = m;
    return NULL;
}

uint64_t unlogged_registers(void)
{
    return x86_unit(X86_GPR) | x86_unit(X86_GPR + 8) | x86_unit(X86_GPR + 16) | x86_unit(X86_GPR + 24);
}

/* What system calls take. */
static uint64_t call_registers(void)
{
    return x86_unit(X86_GPR) | x86_unit(X86_GPR + 8 * 7) | x86_unit(X86_GPR + 8 * 6) | x86_unit(X86_GPR + 8 * 2) |
           x86_unit(X86_GPR + 8 * 10) | x86_unit(X86_GPR + 8 * 8) | x86_unit(X86_GPR + 8 * 9);
}

/* What a block may do with registers, as bits by x86_unit(). */
struct block_effect {
    uint64_t written, touched;  /* touched: written or read */
    unsigned last_writer, first_toucher; /* indexes of instructions, with regard to the registers `wanted` */
};

/* The instructions of a block, one after the other. */
struct block_code {
    gaddr pc;
    unsigned len, at; /* bytes; of the next instruction */
    uint8_t bytes[LONGEST_BLOCK];
};

/* As the block is in the replay now; false: it cannot be read. */
static bool read_block(struct replay *r, uint32_t space, gaddr pc, unsigned byte_len, struct block_code *out)
{
    out->pc = pc;
    out->len = byte_len;
    out->at = 0;
    if (byte_len > sizeof(out->bytes))
        return false;
    struct err *e = replay_read(r, space, pc, out->bytes, byte_len, NULL);
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

/* As the block is in the replay now; everything if it cannot be read. */
static struct block_effect block_effect(struct replay *r, uint32_t space, gaddr pc, unsigned byte_len, unsigned insns, uint64_t wanted)
{
    struct block_code code;
    struct x86_insn in;
    struct block_effect out = {DECODED, DECODED, insns - 1, insns};
    bool good = read_block(r, space, pc, byte_len, &code);
    for (unsigned i = 0; i < insns && good; i++) {
        good = next_insn(&code, &in);
        if (!good)
            break;
        // Some system calls of the recorder's the replayer carries out itself: they have results. All take arguments.
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
static size_t find_block(const struct history_block *blocks, const struct block_masks *m, const struct db_block *b)
{
    size_t low = m->first, high = m->first + m->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (blocks[middle].pc < b->pc)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < m->first + m->count && blocks[low].pc == b->pc; low++) {
        if (blocks[low].byte_len == b->byte_len)
            return low;
    }
    return SIZE_MAX;
}

typedef VEC(struct passed_block) block_list;

/* What is known of the code that ran in a segment. */
struct segment_code {
    bool matters;     /* some of it might have written one of the registers (or, if asked for, read it) */
    uint64_t in_gaps; /* registers that may be written (or read) by what the replayer carries out itself: bits by x86_unit() */
    bool changing;    /* in the segment itself: it has to be looked at where it ran */
    block_list passed; /* the blocks that do not matter */
};

/* The mask of a block, decoded if it was not yet as it is at `before`; NULL: not for this segment. */
static struct err *mask_for(struct query_engine *q, struct block_masks *m, const struct db_block *b, struct moment before, size_t segment,
                            struct block_mask **out)
{
    size_t count, i = find_block(history_blocks(q->history, &count), m, b);
    *out = NULL;
    if (i == SIZE_MAX)
        return NULL;
    struct block_mask *known = &m->masks[i - m->first];
    if (!known->mask) {
        struct replay *r;
        uint32_t here = (uint32_t)history_segment_at(q->history, before);
        writes_around(m, b->pc, b->pc + b->byte_len, here, &known->after, &known->until);
        if (known->after == here) // before that moment, or behind it
            return NULL;
        TRY(state_at(q, before, &r));
        struct block_effect effect = block_effect(r, m->space, b->pc, b->byte_len, b->insn_count, 0);
        known->mask = effect.written;
        known->touched = effect.touched;
    }
    if ((known->after == UINT32_MAX || segment > known->after) && segment < known->until)
        *out = known;
    return NULL;
}

/* before: a moment at which there is a state of the space. */
static struct err *look_at_segment(struct query_engine *q, struct moment before, size_t segment, uint32_t space, uint64_t wanted, bool reads,
                                   struct segment_code *out)
{
    struct block_masks *m;
    TRY(masks_of(q, space, &m));
    const struct segment *s;
    TRY(history_part(q->history, segment, PART_BLOCKS, &s));
    out->passed.count = 0;
    out->changing = false;
    out->in_gaps = reads ? unlogged_registers() | call_registers() : unlogged_registers();
    out->matters = wanted & out->in_gaps;
    vec_each (b, &s->blocks) {
        if (b->space != space)
            continue;
        struct block_mask *known;
        TRY(mask_for(q, m, b, before, segment, &known));
        out->changing |= !known;
        if (known && b->end == END_STOP) // rdpid, lsl and lar have any register for their result
            out->in_gaps |= reads ? known->touched : known->mask;
        if (known && !((reads ? known->touched : known->mask) & wanted))
            vec_push(&out->passed, (struct passed_block){b->pc, b->insn_count});
        else
            out->matters = true;
    }
    return NULL;
}

/* Did the block run in one of the segments? */
static bool ran_in(const struct query_engine *q, const struct history_block *b, size_t first, size_t last)
{
    const struct history_run *runs = history_runs(q->history) + b->first_run;
    for (uint32_t i = 0; i < b->run_count; i++) {
        if (runs[i].segment >= first && runs[i].segment <= last)
            return true;
    }
    return false;
}

static int compare_users(const void *a, const void *b)
{
    const struct register_user *x = a, *y = b;
    return (x->pc > y->pc) - (x->pc < y->pc);
}

/* Adds the instructions of a block that may write the register or push it; false: the code is not there. */
static bool add_users(struct replay *r, const struct history_block *b, uint64_t unit, register_users *out)
{
    struct block_code code;
    struct register_user u;
    bool good = read_block(r, b->space, b->pc, b->byte_len, &code);
    for (unsigned i = 0; i < b->insn_count && good; i++) {
        u.pc = code.pc + code.at;
        good = next_insn(&code, &u.insn);
        if (good && (u.insn.written & unit || (u.insn.class == X86_PUSH && u.insn.read & unit)))
            vec_push(out, u);
    }
    return good;
}

struct err *register_users_of(struct query_engine *q, uint32_t space, unsigned reg, struct moment at, size_t most, size_t *first, size_t last,
                              register_users *out, bool *known_out)
{
    struct block_masks *m;
    struct replay *r;
    size_t count;
    TRY(masks_of(q, space, &m));
    const struct history_block *blocks = history_blocks(q->history, &count) + m->first;
    VEC(const struct history_block *) touching = {0};
    struct err *e = NULL;
    *known_out = true;
    for (size_t i = 0; i < m->count && *known_out && !e; i++) {
        const struct history_block *b = &blocks[i];
        const struct db_block like = {.space = space, .pc = b->pc, .insn_count = b->insn_count, .byte_len = b->byte_len};
        struct block_mask *known;
        if (!ran_in(q, b, *first, last))
            continue;
        e = mask_for(q, m, &like, at, last, &known);
        // The result of rdpid, lsl and lar is in no block of a log.
        *known_out = known && !(b->end == END_STOP && known->mask & x86_unit(reg));
        if (!known)
            break;
        if (known->after != UINT32_MAX && known->after >= *first)
            *first = known->after + 1;
        if (known->touched & x86_unit(reg))
            vec_push(&touching, b);
    }
    if (!e && *known_out)
        e = state_at(q, at, &r);
    for (size_t i = 0; i < touching.count && *known_out && !e; i++) {
        if (ran_in(q, touching.items[i], *first, last))
            *known_out = add_users(r, touching.items[i], x86_unit(reg), out);
    }
    vec_deinit(&touching);
    size_t n = 0;
    if (out->count)
        qsort(out->items, out->count, sizeof(out->items[0]), compare_users);
    vec_each (u, out) {
        if (!n || out->items[n - 1].pc != u->pc) // blocks overlap
            out->items[n++] = *u;
    }
    out->count = n;
    *known_out &= n <= most;
    return e;
}

/* --- events --- */

uint64_t event_registers(const struct db_event *e)
{
    uint64_t all = UINT64_MAX, ax = x86_unit(X86_GPR), cx = x86_unit(X86_GPR + 8), dx = x86_unit(X86_GPR + 16),
             bx = x86_unit(X86_GPR + 24), r11 = x86_unit(X86_GPR + 88), base = x86_unit(X86_FS_BASE);
    switch (e->kind) {
    case FRAME_SYSCALL:
        if (e->syscall_arch != ARCH_X86_64 || e->syscall_no == SYS_rt_sigreturn || e->syscall_no == SYS_execve ||
            e->syscall_no == SYS_execveat || e->ended_task || e->created_task)
            return all;
        return ax | cx | r11 | dx | base | x86_unit(X86_FLAGS) | (e->syscall_no == SYS_pkey_alloc ? x86_unit(X86_CONTROL) : 0);
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

struct err *last_register_event(struct query_engine *q, uint32_t task, uint64_t wanted, struct moment after, struct moment before,
                                event_no *out)
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
    } *effects;                     /* EFFECTS of them, hashed by pc */
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
    return space == l->space ? worker_take_rows(replay_worker(r, space), &l->stores, NULL, &l->blocks) : NULL;
}

static void on_wrote(void *ctx, struct replay *r, uint32_t space, gaddr addr, uint64_t len, uint32_t object, uint64_t offset)
{
    struct logged *l = ctx;
    if (space == l->space)
        vec_push(&l->changed, (struct addr_range){addr, addr + len});
}

static void on_remapped(void *ctx, struct replay *r, uint32_t space, gaddr start, gaddr end)
{
    on_wrote(ctx, r, space, start, end - start, 0, 0);
}

/* Logs the blocks up to `until`, but those passed over, and what becomes of code that is written in the segment. most: of the last rows; 0: all. */
static struct err *log_blocks(struct replay *r, const struct block_masks *m, uint32_t segment, struct moment until, const block_list *passed,
                              size_t most, struct logged *log)
{
    enum { MOST_RANGES = 1000 };
    VEC(struct watch_range) ranges = {0};
    vec_each (w, &m->writes) {
        struct watch_range *last = ranges.count ? &ranges.items[ranges.count - 1] : NULL;
        if (w->segment != segment)
            continue;
        if (last && (last->end == w->page || ranges.count == MOST_RANGES))
            last->end = w->page + PAGE_SIZE;
        else
            vec_push(&ranges, (struct watch_range){.space = log->space, .start = w->page, .end = w->page + PAGE_SIZE});
    }
    const struct replay_observer observer = {.ctx = log, .space_ending = on_ending, .wrote = on_wrote, .remapped = on_remapped};
    replay_set_observer(r, &observer);
    const struct consume_request consume = {.blocks = true, .passed = passed->items, .passed_count = passed->count, .max_rows = most, .keep_last = most};
    struct err *e = replay_set_watch(r, ranges.items, ranges.count, &consume);
    vec_deinit(&ranges);
    TRY(e);
    TRY(replay_run(r, until, UINT64_MAX, NULL));
    return replay_worker(r, log->space) ? worker_take_rows(replay_worker(r, log->space), &log->stores, NULL, &log->blocks) : NULL;
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
static const struct block_effect *effect_of_row(struct replay *r, const struct block_masks *m, uint32_t segment, struct logged *l,
                                                const struct block_row *row, uint64_t wanted)
{
    if (!l->effects)
        l->effects = xnew_array(struct known_effect, EFFECTS);
    struct known_effect *known = &l->effects[(row->pc ^ row->pc >> 12) % EFFECTS];
    if (known->pc == row->pc && known->insns == row->insn_count)
        return &known->effect;
    uint32_t after, end;
    gaddr row_end = row->pc + row->byte_len;
    writes_around(m, row->pc, row_end, segment, &after, &end);
    *known = (struct known_effect){row->pc, row->insn_count, {UINT64_MAX, UINT64_MAX, row->insn_count - 1u, 0}};
    if (after != segment || !code_changed(l, row->pc, row_end))
        known->effect = block_effect(r, l->space, row->pc, row->byte_len, row->insn_count, wanted);
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

/* Goes through logged blocks backwards. */
static void last_of_rows(const struct register_search *s, struct replay *r, uint32_t segment, struct logged *l, struct moment until,
                         struct moment *out, bool *found)
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
        const struct block_effect *effect = effect_of_row(r, s->masks, segment, l, &row[i], s->wanted);
        if (!(effect->written & s->wanted))
            continue;
        *found = true;
        *out = (struct moment){at.event, at.icount + effect->last_writer};
    }
}

/* Looks for the last block of [from, until) that may write one of the registers; both in one segment. most: as log_blocks(). full: that many
 * were logged, and there may be others. */
static struct err *search_stretch(const struct register_search *s, struct moment from, struct moment until, size_t most, struct moment *out,
                                  bool *found, bool *full)
{
    static const block_list none;
    uint32_t segment = (uint32_t)history_segment_at(s->q->history, from);
    struct lease lease;
    TRY(lend_instead(s->q, segment, from, &lease));
    struct logged log = {.space = s->space};
    struct err *e = log_blocks(lease.replay, s->masks, segment, until, most ? &s->code.passed : &none, most, &log);
    *found = false;
    if (!e)
        last_of_rows(s, lease.replay, segment, &log, until, out, found);
    *full = most && log.blocks.len / sizeof(struct block_row) >= most;
    logged_deinit(&log);
    return_replay(s->q, &lease, !e);
    return e;
}

/* Are all rows wanted? What the replayer carries out shows by gaps between blocks, and changing code has to be looked at. */
static bool takes_all_rows(const struct register_search *s)
{
    return s->code.changing || s->wanted & s->code.in_gaps;
}

/* Where the n-th part of the segment's [start, until) begins that gets a run of its own: at a kept state, but if it takes all rows soon. */
static struct moment part_before(const struct register_search *s, size_t segment, struct moment start, struct moment until, unsigned n)
{
    uint64_t len = FIRST_STRETCH;
    struct moment from = until;
    for (unsigned i = 0; i < n; i++)
        len = len < 1ull << 40 ? len * GROWTH : len;
    for (unsigned i = 0; i < 1u << (n < 5 ? n : 5) && moment_cmp(from, start) > 0; i++)
        from = lendable_before(s->q, segment, from);
    struct moment near = moment_back(s->q, until, len);
    return takes_all_rows(s) && moment_cmp(near, from) > 0 ? near : from;
}

/* Looks for the last instruction before *until in the segment which may write one of the registers. */
static struct err *search_segment(struct register_search *s, size_t segment, struct moment start, struct moment until, struct moment *out,
                                  bool *found)
{
    enum { FEW = 64 };
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
        if (!event && t && moment_cmp(from, t->start) < 0 && (!*found || moment_cmp(*out, t->start) < 0))
            event = t->start.event;
        if (event) {
            *out = moment_before_event(s->q, event);
            *found = true;
        }
        until = from;
    }
    return NULL;
}

struct err *last_register_write(struct query_engine *q, uint32_t task, uint32_t space, uint64_t wanted, struct moment before,
                                struct moment *out, bool *found)
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
        e = look_at_segment(q, before, at, space, wanted, false, &s.code);
        if (!e)
            e = search_segment(&s, at, segment[at].start, until, out, found);
        if (at == 0)
            break;
    }
    vec_deinit(&s.code.passed);
    return e;
}

/* Looks for the first block of [from, until) that may touch one of the registers; both in one segment. */
static struct err *search_forth(const struct register_search *s, struct moment from, struct moment until, struct moment *out, bool *found)
{
    static const block_list none;
    uint32_t segment = (uint32_t)history_segment_at(s->q->history, from);
    struct lease lease;
    TRY(lend_instead(s->q, segment, from, &lease));
    struct logged log = {.space = s->space};
    struct err *e = log_blocks(lease.replay, s->masks, segment, until, &none, 0, &log);
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
        const struct block_effect *effect = effect_of_row(lease.replay, s->masks, segment, &log, &row[i], s->wanted);
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

struct err *next_register_use(struct query_engine *q, uint32_t task, uint32_t space, uint64_t wanted, struct moment from,
                              struct moment until, struct moment *out, bool *found)
{
    struct register_search s = {.q = q, .task = task, .space = space, .wanted = wanted};
    *found = false;
    struct err *e = masks_of(q, space, &s.masks);
    if (!e)
        e = look_at_segment(q, from, history_segment_at(q->history, from), space, wanted, true, &s.code);
    for (uint64_t len = FIRST_STRETCH; !e && s.code.matters && !*found && moment_cmp(from, until) < 0; len *= GROWTH) {
        struct moment end = moment_forth(q, from, len);
        if (moment_cmp(end, until) > 0)
            end = until;
        e = check_cancel(q);
        if (!e)
            e = search_forth(&s, from, end, out, found);
        from = end;
    }
    vec_deinit(&s.code.passed);
    return e;
}
