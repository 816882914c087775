/* The last write to a register, found without looking at every instruction.
 *
 * Each code block that ever ran has a mask of the registers that it may write. A segment tells which blocks ran in it, so segments
 * without a block that matters are passed over; in the others a log of executed blocks is kept of a stretch that grows, up to the
 * whole segment, and is read backwards. What this finds is only a candidate; that there is nothing behind it is certain: code
 * that was different at another time counts as writing everything. */
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

/* What the replayer carries out itself is in no block: cpuid, xgetbv, some system calls of the recorder's. */
static uint64_t carried_out(void)
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

/* As the block is in the replay now; everything if it cannot be read. */
static struct block_effect block_effect(struct replay *r, uint32_t space, gaddr pc, unsigned byte_len, unsigned insns, uint64_t wanted)
{
    uint8_t code[LONGEST_BLOCK];
    struct block_effect all = {UINT64_MAX, UINT64_MAX, insns - 1, 0};
    if (byte_len > sizeof(code))
        return all;
    struct err *e = replay_read(r, space, pc, code, byte_len, NULL);
    bool bad = e != NULL;
    err_free(e);
    struct block_effect out = {DECODED, DECODED, insns - 1, insns};
    for (unsigned i = 0, at = 0; i < insns && !bad; i++) {
        struct x86_insn in;
        bad = at >= byte_len || !x86_decode(code + at, byte_len - at, pc + at, &in);
        if (bad)
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
        at += in.len;
    }
    return bad ? all : out;
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

/* Might any block that ran in the segment have written one of the registers (or if `reads`, read it)? r: a replay that stands in
 * segment `here`. */
static struct err *segment_matters(struct query_engine *q, struct replay *r, uint32_t here, size_t segment, uint32_t space,
                                   uint64_t wanted, bool reads, bool *out)
{
    struct block_masks *m;
    TRY(masks_of(q, space, &m));
    size_t count;
    const struct history_block *blocks = history_blocks(q->history, &count);
    const struct segment *s;
    TRY(history_part(q->history, segment, PART_BLOCKS, &s));
    *out = true;
    if (wanted & (reads ? carried_out() | call_registers() : carried_out()))
        return NULL;
    vec_each (b, &s->blocks) {
        if (b->space != space)
            continue;
        size_t i = find_block(blocks, m, b);
        if (i == SIZE_MAX)
            return NULL;
        struct block_mask *known = &m->masks[i - m->first];
        if (!known->mask) {
            struct block_effect effect = block_effect(r, space, b->pc, b->byte_len, b->insn_count, 0);
            known->mask = effect.written;
            known->touched = effect.touched;
            writes_around(m, b->pc, b->pc + b->byte_len, here, &known->after, &known->until);
        }
        bool good = (known->after == UINT32_MAX || segment > known->after) && segment < known->until;
        if (!good || (reads ? known->touched : known->mask) & wanted)
            return NULL;
    }
    *out = false;
    return NULL;
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

/* The last event of the task between two moments that may have changed the registers; 0: none. */
static struct err *last_event_of(struct query_engine *q, uint32_t task, uint64_t wanted, struct moment after, struct moment before,
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

struct logged {
    uint32_t space;
    struct buf rows;
};

static struct err *on_ending(void *ctx, struct replay *r, uint32_t space)
{
    struct logged *l = ctx;
    return space == l->space ? worker_take_rows(replay_worker(r, space), NULL, NULL, &l->rows) : NULL;
}

static struct err *log_blocks(struct replay *r, struct moment until, struct logged *log)
{
    const struct replay_observer observer = {.ctx = log, .space_ending = on_ending};
    replay_set_observer(r, &observer);
    const struct consume_request consume = {.blocks = true};
    TRY(replay_set_mode(r, ENGINE_LOG, &consume));
    TRY(replay_run(r, until, UINT64_MAX, NULL));
    return replay_worker(r, log->space) ? worker_take_rows(replay_worker(r, log->space), NULL, NULL, &log->rows) : NULL;
}

/* Looks for the last block of [from, until) that may write one of the registers; both in one segment. */
static struct err *search_stretch(struct query_engine *q, uint32_t task, uint32_t space, uint64_t wanted, struct moment from,
                                  struct moment until, struct moment *out, bool *found)
{
    struct block_masks *m;
    TRY(masks_of(q, space, &m));
    uint32_t here = (uint32_t)history_segment_at(q->history, from);
    struct lease lease;
    TRY(lend_instead(q, here, from, &lease));
    struct replay *r = lease.replay;
    struct logged log = {.space = space};
    struct err *e = log_blocks(r, until, &log);
    const struct block_row *row = (const void *)log.rows.data;
    struct cached {
        gaddr pc;
        uint16_t insns;
        unsigned last;
        uint64_t mask;
    };
    enum { CACHE = 4096 };
    cleanup(freep) struct cached *cache = xnew_array(struct cached, CACHE);
    *found = false;
    struct moment behind = until; // where the block after this one begins, or its run ends
    for (size_t i = log.rows.len / sizeof(*row); !e && i-- > 0 && !*found;) {
        struct moment at = {row[i].stamp, row[i].icount};
        if (task_running_at(q, at) != task)
            continue;
        if (behind.event != at.event)
            behind = (struct moment){at.event, q->event_icount.items[at.event + 1]};
        if (at.icount + row[i].insn_count < behind.icount && wanted & carried_out()) {
            *found = true;
            *out = (struct moment){at.event, behind.icount - 1};
            break;
        }
        behind = at;
        struct cached *c = &cache[(row[i].pc ^ row[i].pc >> 12) % CACHE];
        if (c->pc != row[i].pc || c->insns != row[i].insn_count) {
            uint32_t after, end;
            *c = (struct cached){.pc = row[i].pc, .insns = row[i].insn_count};
            struct block_effect effect = block_effect(r, space, row[i].pc, row[i].byte_len, row[i].insn_count, wanted);
            c->mask = effect.written;
            c->last = effect.last_writer;
            writes_around(m, row[i].pc, row[i].pc + row[i].byte_len, here, &after, &end);
            if (after == here) { // it changed in this very segment
                c->mask = UINT64_MAX;
                c->last = row[i].insn_count - 1u;
            }
        }
        if (!(c->mask & wanted))
            continue;
        *found = true;
        *out = (struct moment){at.event, at.icount + c->last};
    }
    buf_deinit(&log.rows);
    return_replay(q, &lease, !e);
    return e;
}

struct err *last_register_write(struct query_engine *q, uint32_t task, uint32_t space, uint64_t wanted, struct moment before,
                                struct moment *out, bool *found)
{
    const struct known_task *t = known_task(q, task);
    size_t segments, at = history_segment_at(q->history, before), here = at;
    const struct history_segment *segment = history_segments(q->history, &segments);
    struct moment until = before;
    *found = false;
    if (at > 0 && moment_cmp(segment[at].start, before) >= 0)
        at--;
    for (;; until = segment[at].start, at--) {
        TRY(check_cancel(q));
        bool matters;
        struct replay *r;
        struct moment start = segment[at].start;
        TRY(state_at(q, before, &r));
        TRY(segment_matters(q, r, (uint32_t)here, at, space, wanted, false, &matters));
        for (uint64_t len = FIRST_STRETCH; moment_cmp(start, until) < 0; len *= GROWTH) {
            struct moment from = matters ? moment_back(q, until, len) : start;
            event_no event;
            if (matters)
                TRY(search_stretch(q, task, space, wanted, from, until, out, found));
            TRY(last_event_of(q, task, wanted, *found ? *out : from, until, &event));
            if (!event && t && moment_cmp(from, t->start) < 0 && (!*found || moment_cmp(*out, t->start) < 0))
                event = t->start.event;
            if (event) {
                *out = (struct moment){event - 1, q->event_icount.items[event]}; // the end of the run before
                *found = true;
            }
            if (*found)
                return NULL;
            until = from;
        }
        if (at == 0)
            return NULL;
    }
}

/* Looks for the first block of [from, until) that may touch one of the registers; both in one segment. */
static struct err *search_forth(struct query_engine *q, uint32_t task, uint32_t space, uint64_t wanted, struct moment from,
                                struct moment until, struct moment *out, bool *found)
{
    struct block_masks *m;
    TRY(masks_of(q, space, &m));
    uint32_t here = (uint32_t)history_segment_at(q->history, from);
    struct lease lease;
    TRY(lend_instead(q, here, from, &lease));
    struct logged log = {.space = space};
    struct err *e = log_blocks(lease.replay, until, &log);
    const struct block_row *row = (const void *)log.rows.data;
    size_t count = log.rows.len / sizeof(*row);
    bool gaps = wanted & (carried_out() | call_registers()); // what is in no block
    struct moment reached = from;
    *found = false;
    for (size_t i = 0; !e && i < count && !*found; i++) {
        struct moment at = {row[i].stamp, row[i].icount};
        if (task_running_at(q, at) != task)
            continue;
        bool same_run = reached.event == at.event;
        if (gaps && same_run && reached.icount < at.icount) {
            *found = true;
            *out = reached;
            break;
        }
        reached = (struct moment){at.event, at.icount + row[i].insn_count};
        uint32_t after, end;
        struct block_effect effect = block_effect(lease.replay, space, row[i].pc, row[i].byte_len, row[i].insn_count, wanted);
        writes_around(m, row[i].pc, row[i].pc + row[i].byte_len, here, &after, &end);
        if (after == here) // it changed in this very segment
            effect.touched = UINT64_MAX, effect.first_toucher = 0;
        if (!(effect.touched & wanted))
            continue;
        *found = true;
        *out = (struct moment){at.event, at.icount + effect.first_toucher};
        if (moment_cmp(*out, from) < 0)
            *out = from;
    }
    buf_deinit(&log.rows);
    return_replay(q, &lease, !e);
    return e;
}

struct err *next_register_use(struct query_engine *q, uint32_t task, uint32_t space, uint64_t wanted, struct moment from,
                              struct moment until, struct moment *out, bool *found)
{
    size_t at = history_segment_at(q->history, from);
    bool matters;
    struct replay *r;
    *found = false;
    TRY(state_at(q, from, &r));
    TRY(segment_matters(q, r, (uint32_t)at, at, space, wanted, true, &matters));
    for (uint64_t len = FIRST_STRETCH; matters && !*found && moment_cmp(from, until) < 0; len *= GROWTH) {
        struct moment end = moment_forth(q, from, len);
        if (moment_cmp(end, until) > 0)
            end = until;
        TRY(check_cancel(q));
        TRY(search_forth(q, task, space, wanted, from, end, out, found));
        from = end;
    }
    return NULL;
}
