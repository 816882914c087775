/* Executions of code addresses. The block index tells in which segments an address ran; those are run again with hooks at the
 * addresses, nearest segment first, until there are enough. Forward, rows are looked at whenever some have been gathered; backward, a
 * segment is run in pieces between kept states, the last piece first. */
#include "query/query_int.h"

#include "worker/worker.h"

enum { LONGEST_BLOCK = 64 * 15 };

/* Does the block hold the address? Blocks are known by their extent; an address in the middle of an instruction would count, too,
 * but never gets a hit. */
static bool holds(const struct history_block *b, const struct hit_place *p)
{
    return b->space == p->space && p->pc >= b->pc && p->pc < b->pc + b->byte_len;
}

static size_t first_block(const struct query_engine *q, uint32_t space, gaddr pc)
{
    size_t count, low = 0;
    const struct history_block *blocks = history_blocks(q->history, &count);
    size_t high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (blocks[middle].space < space || (blocks[middle].space == space && blocks[middle].pc < pc))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint64_t count_hits(const struct query_engine *q, const struct hit_place *places, size_t count, uint64_t *buckets)
{
    size_t block_count;
    uint64_t total = 0;
    const struct history_block *blocks = history_blocks(q->history, &block_count);
    const struct history_run *runs = history_runs(q->history);
    for (size_t i = 0; i < count; i++) {
        gaddr from = places[i].pc > LONGEST_BLOCK ? places[i].pc - LONGEST_BLOCK : 0;
        for (size_t k = first_block(q, places[i].space, from); k < block_count && blocks[k].space == places[i].space &&
                                                               blocks[k].pc <= places[i].pc; k++) {
            if (!holds(&blocks[k], &places[i]))
                continue;
            total += blocks[k].total;
            for (uint32_t r = 0; buckets && r < blocks[k].run_count; r++)
                buckets[runs[blocks[k].first_run + r].segment] += runs[blocks[k].first_run + r].count;
        }
    }
    return total;
}

void places_of(struct query_engine *q, struct module *m, const uint64_t *link_addrs, size_t count, struct buf *out)
{
    size_t spaces;
    const struct db_space *space = history_spaces(q->history, &spaces);
    for (size_t i = 0; i < count; i++) {
        vec_each (bias, &m->biases) {
            for (size_t s = 0; s < spaces; s++) {
                struct hit_place p = {space[s].space, link_addrs[i] + *bias};
                bool known = false;
                const struct hit_place *have = (const void *)out->data;
                for (size_t k = 0; k < out->len / sizeof(p); k++)
                    known |= have[k].space == p.space && have[k].pc == p.pc;
                if (!known && count_hits(q, &p, 1, NULL))
                    buf_add(out, &p, sizeof(p));
            }
        }
    }
}

/* --- running a segment with hooks --- */

struct hooking {
    const struct hit_place *places;
    size_t count;
    struct hook_request request;
    VEC(gaddr) pcs;
    struct buf rows; /* of spaces that ended */
};

static struct err *set_hooks(struct hooking *h, struct replay *r, uint32_t space, bool keep)
{
    h->pcs.count = 0;
    for (size_t i = 0; i < h->count; i++) {
        if (h->places[i].space == space)
            vec_push(&h->pcs, h->places[i].pc);
    }
    struct hook_request request = h->request;
    request.pcs = h->pcs.items;
    request.pc_count = h->pcs.count;
    request.keep_rows = keep;
    return worker_set_hooks(replay_worker(r, space), &request);
}

static struct err *on_created(void *ctx, struct replay *r, uint32_t space, uint32_t parent)
{
    return set_hooks(ctx, r, space, false);
}

static struct err *on_ending(void *ctx, struct replay *r, uint32_t space)
{
    struct hooking *h = ctx;
    return worker_take_hook_rows(replay_worker(r, space), &h->rows);
}

static int compare_rows(const void *a, const void *b, void *size)
{
    const struct hook_row *x = a, *y = b;
    return moment_cmp((struct moment){x->stamp, x->icount}, (struct moment){y->stamp, y->icount});
}

/* Who asked, and how many rows are still wanted. */
struct visiting {
    struct query_engine *q;
    const struct window *w;
    size_t row_len, left;
    bool (*each)(void *ctx, const struct hit *h);
    void *ctx;
    bool stopped, more;
};

static void visit_rows(struct visiting *v, struct buf *rows)
{
    size_t n = rows->len / v->row_len;
    qsort_r(rows->data, n, v->row_len, compare_rows, NULL);
    for (size_t k = 0; k < n && !v->stopped; k++) {
        const struct hook_row *row = (const void *)(rows->data + v->row_len * (v->w->forward ? k : n - 1 - k));
        struct hit hit = {.moment = {row->stamp, row->icount}, .regs = row->regs, .memory = (const uint8_t *)(row + 1),
                          .unreadable = row->unreadable};
        if (v->w->forward ? moment_cmp(hit.moment, v->w->from) < 0 : moment_cmp(hit.moment, v->w->from) >= 0)
            continue;
        hit.task = task_running_at(v->q, hit.moment);
        if (v->left == 0) {
            v->stopped = v->more = true;
            return;
        }
        v->left--;
        v->stopped = !v->each(v->ctx, &hit);
    }
    rows->len = 0;
}

/* Runs to `until`, and visits rows in batches, of which the first is small: often it is enough. */
static struct err *visit_run(struct hooking *h, struct replay *r, struct moment until, struct visiting *v)
{
    enum { FIRST_BATCH = 128 };
    const struct replay_observer observer = {.ctx = h, .space_created = on_created, .space_ending = on_ending};
    replay_set_observer(r, &observer);
    h->rows.len = 0;
    size_t most = v->left + 1;
    bool full = true;
    for (size_t batch = FIRST_BATCH; full && !v->stopped; batch *= 8) {
        h->request.max_rows = v->w->forward && batch < most ? batch : most;
        size_t count;
        const uint32_t *list = replay_spaces(r, &count);
        for (size_t i = 0; i < count; i++)
            TRY(set_hooks(h, r, list[i], false));
        TRY(check_cancel(v->q));
        TRY(replay_run(r, until, UINT64_MAX, &full));
        list = replay_spaces(r, &count);
        for (size_t i = 0; i < count; i++)
            TRY(worker_take_hook_rows(replay_worker(r, list[i]), &h->rows));
        if (v->w->forward || !full) // backward the last rows come first
            visit_rows(v, &h->rows);
    }
    return NULL;
}

/* Runs from `from` (or the segment's start) to `until`, which may be in a later segment. */
static struct err *visit_segment(struct hooking *h, size_t segment, struct moment from, struct moment until, struct visiting *v)
{
    struct lease lease;
    TRY(lend_replay(v->q, segment, from, &lease));
    struct err *e = visit_run(h, lease.replay, until, v);
    // Behind the segment's end it cannot be used to go back: the program may have written other pages than the segment's.
    size_t count;
    const struct history_segment *s = &history_segments(v->q->history, &count)[segment];
    return_replay(v->q, &lease, !e && moment_cmp(replay_now(lease.replay), s->end) <= 0);
    return e;
}

struct err *find_hits(struct query_engine *q, const struct hit_place *places, size_t count, const struct window *w,
                      const struct hook_memory *memory, size_t memory_count, bool (*each)(void *ctx, const struct hit *h),
                      void *ctx, bool *more_out)
{
    enum { MOST_SKIPPED = 8, MOST_AT_ONCE = 64 }; // segments
    *more_out = false;
    size_t segments;
    const struct history_segment *segment = history_segments(q->history, &segments);
    cleanup(freep) uint64_t *buckets = xnew_array(uint64_t, segments);
    if (!count || !count_hits(q, places, count, buckets))
        return NULL;
    struct hooking h = {.places = places, .count = count,
                        .request = {.memory = memory, .memory_count = memory_count, .regs = true, .keep_last = !w->forward}};
    struct visiting v = {.q = q, .w = w, .row_len = sizeof(struct hook_row), .left = w->limit, .each = each, .ctx = ctx};
    for (size_t i = 0; i < memory_count; i++)
        v.row_len += (memory[i].len + 7u) & ~7u;
    size_t at = history_segment_at(q->history, w->from);
    struct err *e = NULL;
    while (!v.stopped && !e) {
        e = check_cancel(q);
        if (!e && buckets[at] && w->forward) {
            size_t last = at; // of a stretch: to run through a segment costs much less than to open one
            for (size_t k = at; k < segments && k - last <= MOST_SKIPPED && k - at < MOST_AT_ONCE; k++)
                last = buckets[k] ? k : last;
            e = visit_segment(&h, at, w->from, segment[last].end, &v);
            at = last;
        }
        struct moment until = moment_cmp(w->from, segment[at].end) < 0 ? w->from : segment[at].end;
        while (!e && buckets[at] && !w->forward && !v.stopped && moment_cmp(segment[at].start, until) < 0) {
            struct moment from = lendable_before(q, at, until);
            e = visit_segment(&h, at, from, until, &v);
            until = from;
        }
        if (w->forward ? at + 1 >= segments : at == 0)
            break;
        at = w->forward ? at + 1 : at - 1;
    }
    *more_out = v.more;
    buf_deinit(&h.rows);
    vec_deinit(&h.pcs);
    return e;
}
