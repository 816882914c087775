/* Executions of code addresses. The block index tells in which segments an address ran; those are run again with hooks at the
 * addresses, nearest segment first, until there are enough. */
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

static struct err *gather_rows(struct hooking *h, struct replay *r, struct moment until)
{
    const struct replay_observer observer = {.ctx = h, .space_created = on_created, .space_ending = on_ending};
    replay_set_observer(r, &observer);
    size_t count;
    const uint32_t *list = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++)
        TRY(set_hooks(h, r, list[i], false));
    h->rows.len = 0;
    TRY(replay_run(r, until, UINT64_MAX, NULL));
    list = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++)
        TRY(worker_take_hook_rows(replay_worker(r, list[i]), &h->rows));
    return NULL;
}

/* Runs one segment from `from` (or its start) to `until` and gathers the rows. */
static struct err *run_segment(struct query_engine *q, struct hooking *h, size_t segment, struct moment from, struct moment until)
{
    struct lease lease;
    TRY(lend_replay(q, segment, from, &lease));
    struct err *e = gather_rows(h, lease.replay, until);
    return_replay(q, &lease, !e);
    return e;
}

static struct err *visit_rows(struct query_engine *q, struct hooking *h, size_t row_len, const struct window *w, size_t *left,
                              bool (*each)(void *ctx, const struct hit *hit), void *ctx, bool *stopped)
{
    size_t n = h->rows.len / row_len;
    qsort_r(h->rows.data, n, row_len, compare_rows, NULL);
    for (size_t k = 0; k < n && !*stopped; k++) {
        const struct hook_row *row = (const void *)(h->rows.data + row_len * (w->forward ? k : n - 1 - k));
        struct hit hit = {.moment = {row->stamp, row->icount}, .regs = row->regs, .memory = (const uint8_t *)(row + 1),
                          .unreadable = row->unreadable};
        if (w->forward ? moment_cmp(hit.moment, w->from) < 0 : moment_cmp(hit.moment, w->from) >= 0)
            continue;
        hit.task = task_running_at(q, hit.moment);
        if (*left == 0) {
            *stopped = true;
            return NULL;
        }
        --*left;
        if (!each(ctx, &hit))
            *stopped = true;
    }
    return NULL;
}

struct err *find_hits(struct query_engine *q, const struct hit_place *places, size_t count, const struct window *w,
                      const struct hook_memory *memory, size_t memory_count, bool (*each)(void *ctx, const struct hit *h),
                      void *ctx, bool *more_out)
{
    *more_out = false;
    size_t segments;
    const struct history_segment *segment = history_segments(q->history, &segments);
    cleanup(freep) uint64_t *buckets = xnew_array(uint64_t, segments);
    if (!count || !count_hits(q, places, count, buckets))
        return NULL;
    struct hooking h = {.places = places, .count = count,
                        .request = {.memory = memory, .memory_count = memory_count, .regs = true,
                                    .max_rows = w->limit + 1, .keep_last = !w->forward}};
    size_t row_len = sizeof(struct hook_row);
    for (size_t i = 0; i < memory_count; i++)
        row_len += (memory[i].len + 7u) & ~7u;
    size_t at = history_segment_at(q->history, w->from), left = w->limit;
    bool stopped = false;
    struct err *e = NULL;
    while (!stopped && !e) {
        e = check_cancel(q);
        if (!e && buckets[at]) {
            struct moment until = segment[at].end;
            if (!w->forward && moment_cmp(w->from, until) < 0)
                until = w->from;
            struct moment from = w->forward ? w->from : segment[at].start;
            e = run_segment(q, &h, at, from, until);
            if (!e) {
                size_t had = left;
                e = visit_rows(q, &h, row_len, w, &left, each, ctx, &stopped);
                if (stopped && left == 0 && had)
                    *more_out = true;
            }
        }
        if (w->forward ? at + 1 >= segments : at == 0)
            break;
        at = w->forward ? at + 1 : at - 1;
    }
    buf_deinit(&h.rows);
    vec_deinit(&h.pcs);
    return e;
}
