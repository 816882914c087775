/* Executions of code addresses. The block index tells in which segments an address ran; those are
 * run again with hooks at the addresses, nearest segment first, until there are enough; whether
 * there are more behind them is for the index to tell. Forward, rows are looked at whenever some
 * have been gathered; backward, the first segment is run in pieces between kept states, the last
 * piece first, and then more and more segments at a time, since to run through one costs much less
 * than to open one.
 *
 * Places can change while a search goes on forward (follow_hits()): of the calls of a function the
 * return addresses are learned on the way.
 *
 * A place may be of a module's code, which is at its address for a part of the time only
 * (presence.c): its hook is there for that part, and a run stops in between where one comes or
 * goes.
 *
 * Where there is a condition it may take all segments to find one hit. Then they are run in waves:
 * as many stretches of segments at a time as there are processors, which are looked at in order.
 * The first wave is a single segment, for it may be enough, and stretches get longer. */
#include "query/query_int.h"

#include "base/cpus.h"

#include <errno.h>
#include <time.h>

enum { LONGEST_BLOCK = 64 * 15 };
/* Segments. To run through one costs much less than to open one. */
enum { MOST_AT_ONCE = 64 };
/* What costs as much as so many instructions: to open a segment, and to restore, for whoever has
 * not come from the segment before, what it is about to change and what that is computed from, for
 * each page that changes. */
enum { OPENING = 32000000, RESTORING = 16000 };
/* Instructions between two looks at whether the asker still wants it. */
#define PIECE 20000000ull

/* Does the block hold the address? Blocks are known by their extent; an address in the middle of an
 * instruction would count, too, but never gets a hit. */
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
        if (blocks[middle].space < space ||
            (blocks[middle].space == space && blocks[middle].pc < pc))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Walks through the blocks that hold a place: *at is 0 at first. NULL: there are no more. */
static const struct history_block *next_holder(const struct query_engine *q,
                                               const struct hit_place *p, size_t *at)
{
    size_t count;
    const struct history_block *blocks = history_blocks(q->history, &count);
    if (!*at)
        *at = first_block(q, p->space, p->pc > LONGEST_BLOCK ? p->pc - LONGEST_BLOCK : 0);
    while (*at < count && blocks[*at].space == p->space && blocks[*at].pc <= p->pc) {
        const struct history_block *b = &blocks[(*at)++];
        if (holds(b, p))
            return b;
    }
    return NULL;
}

/* The executions of a place by the index, in segments in which it is there for this share of the
 * time, or more. */
static uint64_t count_place(const struct query_engine *q, const struct hit_place *p,
                            enum presence_share least, enum presence_share most, uint64_t *buckets)
{
    size_t segments, at = 0;
    uint64_t total = 0;
    const struct history_run *runs = history_runs(q->history);
    const struct history_segment *segment = history_segments(q->history, &segments);
    for (const struct history_block *b; (b = next_holder(q, p, &at));) {
        for (uint32_t r = 0; r < b->run_count; r++) {
            const struct history_run *run = &runs[b->first_run + r];
            enum presence_share share = presence_between(p->presence, segment[run->segment].start,
                                                         segment[run->segment].end);
            uint64_t count = share >= least && share <= most ? run->count : 0;
            total += count;
            if (buckets)
                buckets[run->segment] += count;
        }
    }
    return total;
}

/* The same of one segment, whether it is there or not. */
static uint64_t count_in_segment(const struct query_engine *q, const struct hit_place *p,
                                 size_t segment)
{
    size_t at = 0;
    uint64_t total = 0;
    const struct history_run *runs = history_runs(q->history);
    for (const struct history_block *b; (b = next_holder(q, p, &at));) {
        for (uint32_t r = 0; r < b->run_count; r++)
            total += runs[b->first_run + r].segment == segment ? runs[b->first_run + r].count : 0;
    }
    return total;
}

uint64_t count_hits(const struct query_engine *q, const struct hit_place *places, size_t count,
                    uint64_t *buckets)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += count_place(q, &places[i], PRESENT_PARTLY, PRESENT_ALWAYS, buckets);
    return total;
}

bool is_hit_of(const struct hit_place *p, const struct hit *h)
{
    return p->pc == h->regs.r[UREG_RIP] && p->space == h->space &&
           is_present(p->presence, h->moment.event);
}

static void add_place(const struct hit_place *p, struct buf *out)
{
    const struct hit_place *have = (const void *)out->data;
    for (size_t k = 0; k < out->len / sizeof(*p); k++) {
        if (have[k].space == p->space && have[k].pc == p->pc && have[k].presence == p->presence)
            return;
    }
    buf_add(out, p, sizeof(*p));
}

void places_at(const struct query_engine *q, gaddr pc, struct module *m, uint64_t bias,
               struct buf *out)
{
    size_t spaces;
    const struct db_space *space = history_spaces(q->history, &spaces);
    for (size_t s = 0; s < spaces; s++) {
        struct hit_place p = {.space = space[s].space, .pc = pc, .module = m, .bias = bias};
        if (count_hits(q, &p, 1, NULL))
            add_place(&p, out);
    }
}

struct err *places_of(struct query_engine *q, struct module *m, const uint64_t *link_addrs,
                      size_t count, struct buf *out)
{
    size_t spaces;
    const struct db_space *space = history_spaces(q->history, &spaces);
    for (size_t i = 0; i < count; i++) {
        vec_each (bias, &m->biases) {
            for (size_t s = 0; s < spaces; s++) {
                struct hit_place p = {.space = space[s].space,
                                      .pc = link_addrs[i] + *bias,
                                      .module = m,
                                      .bias = *bias};
                if (!count_hits(q, &p, 1, NULL))
                    continue;
                TRY(code_presence(q, m, *bias, p.pc, p.space, &p.presence));
                if (!p.presence || count_hits(q, &p, 1, NULL)) // then it ran while it was there
                    add_place(&p, out);
            }
        }
    }
    return NULL;
}

/* --- running a segment with hooks --- */

struct hooking {
    const struct hit_place *places;
    size_t count;
    struct hook_request request;
    bool calls; /* are wanted */
    VEC(gaddr) pcs;
    VEC(const struct hook_programs *) programs; /* of each of them */
    struct buf rows;                            /* their slots replaced by their spaces */
    struct hook_counts counts;                  /* as far as they have been taken */
};

static void hooking_deinit(struct hooking *h)
{
    vec_deinit(&h->pcs);
    vec_deinit(&h->programs);
    buf_deinit(&h->rows);
}

static struct err *set_hooks(struct hooking *h, struct replay *r, uint32_t space)
{
    event_no now = replay_now(r).event;
    h->pcs.count = h->programs.count = 0;
    bool any = false;
    size_t entry_count = 0;
    for (size_t i = 0; i < h->count; i++) {
        if (h->places[i].space != space || !is_present(h->places[i].presence, now))
            continue;
        vec_push(&h->pcs, h->places[i].pc);
        vec_push(&h->programs, h->places[i].programs);
        any |= h->places[i].programs != NULL;
        entry_count += h->places[i].entry;
    }
    struct hook_request request = h->request;
    request.pcs = h->pcs.items;
    request.pc_count = h->pcs.count;
    request.entry_count = entry_count;
    request.programs = any ? h->programs.items : NULL;
    return worker_set_hooks(replay_worker(r, space), &request);
}

/* What a space has gathered. */
static struct err *take_gathered(struct hooking *h, struct replay *r, uint32_t space)
{
    size_t before = h->rows.len, row_len = worker_hook_row_len(&h->request);
    struct worker *w = replay_worker(r, space);
    struct hook_counts counts = {0};
    if (h->request.count_only)
        TRY(worker_hook_counts(w, &counts));
    else
        TRY(worker_take_hook_rows(w, &h->rows));
    h->counts.hits += counts.hits;
    h->counts.held += counts.held;
    h->counts.failed += counts.failed;
    for (size_t at = before; at + row_len <= h->rows.len; at += row_len)
        ((struct hook_row *)(void *)(h->rows.data + at))->slot = space;
    return NULL;
}

static struct err *on_created(void *ctx, struct replay *r, uint32_t space, uint32_t parent)
{
    return set_hooks(ctx, r, space);
}

static struct err *on_ending(void *ctx, struct replay *r, uint32_t space)
{
    return take_gathered(ctx, r, space);
}

static struct err *set_all_hooks(struct hooking *h, struct replay *r)
{
    size_t count;
    const uint32_t *list = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++)
        TRY(set_hooks(h, r, list[i]));
    return NULL;
}

/* Of runs that go on at the same time. */
struct run_watch {
    atomic_ullong ran;    /* instructions */
    atomic_bool unwanted; /* what the others have found is enough */
};

/* Runs to `until`, or until there are rows enough, with the hooks as they are. */
static struct err *run_piece(struct query_engine *q, struct hooking *h, struct replay *r,
                             struct moment until, struct run_watch *watch, bool *full_out)
{
    size_t count;
    const uint32_t *list;
    while (!*full_out && !replay_at_end(r) && moment_cmp(replay_now(r), until) < 0 &&
           !(watch && atomic_load(&watch->unwanted))) {
        uint64_t before = replay_icount_total(r);
        TRY(check_cancel(q));
        TRY(replay_run(r, until, PIECE, full_out));
        uint64_t done = replay_icount_total(r) - before;
        if (watch)
            atomic_fetch_add(&watch->ran, done);
        if (done < PIECE)
            break; // at `until`, or as far as its event goes
    }
    list = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++)
        TRY(take_gathered(h, r, list[i]));
    return NULL;
}

/* The next moment at which code comes to a place or goes. */
static struct moment next_change(const struct hooking *h, event_no now)
{
    event_no next = UINT64_MAX;
    for (size_t i = 0; i < h->count; i++) {
        event_no change = presence_changes_behind(h->places[i].presence, now);
        next = change < next ? change : next;
    }
    return next == UINT64_MAX ? MOMENT_END : (struct moment){next, 0};
}

/* Runs to `until`, or until there are rows enough. Hooks are set. watch: may be NULL. */
static struct err *run_hooked(struct query_engine *q, struct hooking *h, struct replay *r,
                              struct moment until, struct run_watch *watch, bool *full_out)
{
    *full_out = false;
    for (;;) {
        struct moment change = next_change(h, replay_now(r).event);
        if (moment_cmp(until, change) <= 0)
            return run_piece(q, h, r, until, watch, full_out);
        TRY(run_piece(q, h, r, change, watch, full_out));
        if (*full_out || moment_cmp(replay_now(r), change) < 0)
            return NULL; // also if the others have found enough
        TRY(set_all_hooks(h, r));
    }
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
    bool sorted = true; // as they are where one worker ran
    for (size_t i = 1; i < n && sorted; i++)
        sorted =
            compare_rows(rows->data + (i - 1) * v->row_len, rows->data + i * v->row_len, NULL) <= 0;
    if (!sorted)
        qsort_r(rows->data, n, v->row_len, compare_rows, NULL);
    for (size_t k = 0; k < n && !v->stopped; k++) {
        const struct hook_row *row =
            (const void *)(rows->data + v->row_len * (v->w->forward ? k : n - 1 - k));
        struct hit hit = {.moment = {row->stamp, row->icount},
                          .space = row->slot,
                          .regs = row->regs,
                          .memory = (const uint8_t *)(row + 1),
                          .memory_len = v->row_len - sizeof(*row),
                          .unreadable = row->unreadable,
                          .condition = row->condition,
                          .condition_result = row->condition_result,
                          .entered = {row->entered.stamp, row->entered.icount},
                          .returned = {row->returned.stamp, row->returned.icount}};
        if (!window_holds(v->w, hit.moment))
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

static const struct replay_observer observer_of_hooks = {.space_created = on_created,
                                                         .space_ending = on_ending};

/* Runs to `until`, and visits rows in batches, of which the first is small: often it is enough. */
static struct err *visit_run(struct hooking *h, struct replay *r, struct moment until,
                             struct visiting *v)
{
    enum { FIRST_BATCH = 128 };
    struct replay_observer observer = observer_of_hooks;
    observer.ctx = h;
    replay_set_observer(r, &observer);
    h->rows.len = 0;
    size_t most = v->left + 1;
    bool full = true;
    for (size_t batch = FIRST_BATCH; full && !v->stopped; batch *= 8) {
        h->request.max_rows = v->w->forward && batch < most ? batch : most;
        TRY(set_all_hooks(h, r));
        TRY(run_hooked(v->q, h, r, until, NULL, &full));
        if (v->w->forward || !full) // backward the last rows come first
            visit_rows(v, &h->rows);
    }
    return NULL;
}

/* Behind the segment's end a replay cannot be used to go back: the program may have written other
 * pages than the segment's. */
static void end_lease(struct query_engine *q, size_t segment, struct lease *lease, bool usable)
{
    size_t count;
    const struct history_segment *s = &history_segments(q->history, &count)[segment];
    return_replay(q, lease, usable && moment_cmp(replay_now(lease->replay), s->end) <= 0);
}

static struct err *set_mode(const struct hooking *h, struct replay *r)
{
    return h->calls ? replay_set_mode(r, ENGINE_CALLS, NULL) : NULL;
}

/* Runs from `from` (or the segment's start) to `until`, which may be in a later segment. */
static struct err *visit_segment(struct hooking *h, size_t segment, struct moment from,
                                 struct moment until, struct visiting *v)
{
    struct lease lease;
    TRY(lend_instead(v->q, segment, from, &lease));
    struct err *e = set_mode(h, lease.replay);
    if (!e)
        e = visit_run(h, lease.replay, until, v);
    end_lease(v->q, segment, &lease, !e);
    return e;
}

/* All that were wanted have been found, and the segments up to `at` are done: whether there are
 * more is for the index to tell. */
static void end_at_limit(struct visiting *v, const uint64_t *buckets, size_t at, size_t segments)
{
    size_t first = v->w->forward ? at + 1 : 0, end = v->w->forward ? segments : at;
    if (v->stopped || v->left)
        return;
    v->stopped = true;
    for (size_t i = first; i < end; i++)
        v->more |= buckets[i] != 0;
}

/* --- one after the other --- */

/* What is counted, for each segment. */
struct tally {
    uint64_t *held, *failed;
};

/* The segments that a search goes through, in order. */
struct waves {
    struct query_engine *q;
    const uint64_t *buckets;
    const struct window *w;
    struct tally *tally;
    size_t next;    /* segment; beyond their number: none is left */
    uint64_t total; /* instructions of all of them */
    struct run_watch watch;
};

static void waves_begin(struct waves *v)
{
    size_t segments;
    const struct history_segment *segment = history_segments(v->q->history, &segments);
    v->next = history_segment_at(v->q->history, v->w->from);
    for (size_t i = 0; i < segments; i++) {
        if (v->buckets[i] && (v->w->forward ? i >= v->next : i <= v->next))
            v->total += segment[i].icount;
    }
}

uint64_t segment_cost(const struct query_engine *q, size_t segment)
{
    size_t segments;
    return history_segments(q->history, &segments)[segment].icount +
           RESTORING * history_changed_pages(q->history, segment);
}

/* What it costs, in instructions, that the segment and up to `len` in all where something ran begin
 * a stretch of their own. */
static uint64_t cost_of_opening(const struct waves *v, size_t segment, size_t len)
{
    size_t segments, step = v->w->forward ? 1 : SIZE_MAX;
    uint64_t cost = OPENING;
    history_segments(v->q->history, &segments);
    for (size_t n = 0; n < len && segment < segments && v->buckets[segment]; n++, segment += step)
        cost += RESTORING * history_changed_pages(v->q->history, segment);
    return cost;
}

/* The next stretch, of up to `len` segments where something ran, and those between them as far as
 * it costs less to run through these. False: there is none. */
static bool next_stretch(struct waves *v, size_t len, size_t *first, size_t *last)
{
    size_t segments,
        found = 0,
        step = v->w->forward ? 1 : SIZE_MAX; // backward it ends below 0, which is a large number
    uint64_t skipped = 0;                    // instructions
    const struct history_segment *segment = history_segments(v->q->history, &segments);
    for (size_t at = v->next; at < segments && found < len; at += step) {
        if (!v->w->forward && moment_cmp(segment[at].end, v->w->since) <= 0)
            break;
        if (!v->buckets[at]) {
            skipped += found ? segment[at].icount : 0;
            continue;
        }
        if (skipped > cost_of_opening(v, at, len - found))
            break;
        skipped = 0;
        *last = v->w->forward || !found ? at : *last;
        *first = v->w->forward && found ? *first : at;
        v->next = at + step;
        found++;
    }
    return found > 0;
}

/* Segment by segment, or some at a time: forward as many as there are, for a run ends when there is
 * enough; backward more and more. */
static struct err *visit_in_turn(struct hooking *h, const uint64_t *buckets, struct visiting *v)
{
    const struct window *w = v->w;
    struct waves order = {.q = v->q, .buckets = buckets, .w = w};
    size_t segments, first, last, len = w->forward ? MOST_AT_ONCE : 1;
    const struct history_segment *segment = history_segments(v->q->history, &segments);
    waves_begin(&order);
    for (; !v->stopped && next_stretch(&order, len, &first, &last);
         len = len < MOST_AT_ONCE ? 2 * len : len) {
        struct moment until = segment[last].end;
        TRY(check_cancel(v->q));
        if (!w->forward && moment_cmp(w->from, until) < 0)
            until = w->from;
        if (!w->forward)
            release_state(v->q); // it is one of the kept states
        while (!v->stopped && moment_cmp(segment[first].start, until) < 0) {
            struct moment from = w->forward     ? w->from
                                 : first < last ? segment[first].start
                                                : lendable_before(v->q, first, until);
            TRY(visit_segment(h, first, from, until, v));
            until = w->forward ? segment[first].start : from;
        }
        end_at_limit(v, buckets, w->forward ? last : first, segments);
    }
    return NULL;
}

/* --- places that change --- */

/* Which hits a run through a segment has met. */
struct met {
    uint32_t space;
    gaddr pc;
    uint64_t count;
};
typedef VEC(struct met) met_list;

static uint64_t *count_met(met_list *list, uint32_t space, gaddr pc)
{
    vec_each (m, list) {
        if (m->space == space && m->pc == pc)
            return &m->count;
    }
    vec_push(list, (struct met){space, pc, 0});
    return &list->items[list->count - 1].count;
}

/* How many executions of the places there are in the segment, by the index, but for those that have
 * been met. SIZE_MAX where it takes long to tell. */
static size_t count_unmet(const struct query_engine *q, const struct hooking *h, size_t segment,
                          met_list *met)
{
    enum { FEW = 16 };
    uint64_t unmet = 0;
    if (h->count > FEW || met->count > FEW)
        return SIZE_MAX;
    for (size_t i = 0; i < h->count; i++) {
        uint64_t all = count_in_segment(q, &h->places[i], segment),
                 seen = *count_met(met, h->places[i].space, h->places[i].pc);
        unmet += all > seen ? all - seen : 0;
    }
    return unmet;
}

/* Runs through what is left of the segment, as far as something can be met. */
static struct err *follow_run(struct hooking *h, struct replay *r, size_t segment,
                              struct visiting *v, const struct hit_source *source, size_t batch,
                              met_list *met)
{
    size_t segments;
    struct moment until = history_segments(v->q->history, &segments)[segment].end;
    struct replay_observer observer = observer_of_hooks;
    observer.ctx = h;
    replay_set_observer(r, &observer);
    h->rows.len = 0;
    size_t unmet;
    for (bool full = true; full && !v->stopped && (unmet = count_unmet(v->q, h, segment, met));) {
        size_t here = SIZE_MAX;
        h->request.max_rows = unmet < batch ? unmet : batch;
        TRY(set_all_hooks(h, r));
        TRY(run_hooked(v->q, h, r, until, NULL, &full));
        for (size_t at = 0; at < h->rows.len && met->count <= h->count; at += v->row_len) {
            const struct hook_row *row = (const void *)(h->rows.data + at);
            ++*count_met(met, row->slot, row->regs.r[UREG_RIP]);
        }
        visit_rows(v, &h->rows);
        if (full && !v->stopped)
            TRY(source->places(source->ctx, &here, &h->places, &h->count, &batch));
        v->stopped |= !h->count;
    }
    return NULL;
}

/* The first segment from *at on, and what to look for there. *more false: there is none. */
static struct err *next_to_follow(struct query_engine *q, const struct hit_source *source,
                                  struct hooking *h, size_t *at, size_t *batch, bool *more)
{
    size_t segments;
    history_segments(q->history, &segments);
    cleanup(freep) uint64_t *buckets = xnew_array(uint64_t, segments);
    for (*more = false; *at < segments && !*more;) {
        size_t next = *at;
        TRY(check_cancel(q));
        TRY(source->places(source->ctx, &next, &h->places, &h->count, batch));
        if (!h->count && next == *at)
            return NULL;
        memset(buckets, 0, segments * sizeof(*buckets));
        count_hits(q, h->places, h->count, buckets);
        while (h->count && next < segments && !buckets[next])
            next++;
        *more = next == *at; // else it is asked again for that segment
        *at = next;
    }
    return NULL;
}

/* What it costs, in instructions, to run on to the start of a segment. */
static uint64_t cost_of_running_to(const struct query_engine *q, const struct replay *r,
                                   size_t segment)
{
    size_t segments;
    const struct history_segment *all = history_segments(q->history, &segments);
    uint64_t cost = 0, now = replay_icount_total(r);
    for (size_t at = history_segment_at(q->history, replay_now(r)); at < segment; at++) {
        uint64_t done = now > all[at].icount_start ? now - all[at].icount_start : 0;
        double rest =
            done < all[at].icount ? (double)(all[at].icount - done) / (double)all[at].icount : 0;
        cost += (uint64_t)(rest * (double)segment_cost(q, at));
    }
    return cost;
}

/* Runs on from one segment to the next where that costs less than to open it. */
static struct err *follow(struct hooking *h, struct visiting *v, const struct hit_source *source,
                          struct lease *lease, size_t *opened)
{
    size_t batch, at = history_segment_at(v->q->history, v->w->from);
    for (bool more = true; more && !v->stopped; at++) {
        TRY(next_to_follow(v->q, source, h, &at, &batch, &more));
        if (!more)
            return NULL;
        if (lease->seat && cost_of_running_to(v->q, lease->replay, at) > OPENING)
            end_lease(v->q, *opened, lease, true);
        if (!lease->seat) {
            *opened = at;
            TRY((h->calls ? lend_with_stacks : lend_replay)(v->q, at, v->w->from, lease));
        }
        met_list met = {0};
        struct err *e = follow_run(h, lease->replay, at, v, source, batch, &met);
        vec_deinit(&met);
        TRY(e);
    }
    return NULL;
}

struct err *follow_hits(struct query_engine *q, const struct hit_source *source, struct moment from,
                        const struct hit_wants *wants, bool (*each)(void *ctx, const struct hit *h),
                        void *ctx)
{
    const struct window w = {.forward = true, .from = from, .limit = SIZE_MAX};
    struct hooking h = {.request = {.memory = wants->memory,
                                    .memory_count = wants->memory_count,
                                    .print_lens = wants->print_lens,
                                    .print_count = wants->print_count,
                                    .regs = true},
                        .calls = wants->calls};
    struct visiting v = {.q = q,
                         .w = &w,
                         .row_len = worker_hook_row_len(&h.request),
                         .left = w.limit,
                         .each = each,
                         .ctx = ctx};
    struct lease lease = {0};
    size_t opened = 0;
    struct err *e = follow(&h, &v, source, &lease, &opened);
    if (lease.seat)
        end_lease(q, opened, &lease, !e);
    hooking_deinit(&h);
    return e;
}

/* --- waves --- */

/* Segments first to last, run by a thread of its own. */
struct stretch_run {
    struct query_engine *q;
    struct hooking hooking;
    size_t first, last;
    struct moment from, until;
    struct tally *tally; /* NULL: rows are wanted */
    struct run_watch *watch;
    struct err *failed;
    bool started;
    pthread_t thread;
};

static struct err *run_for_rows(struct stretch_run *s, struct replay *r)
{
    bool full;
    TRY(set_all_hooks(&s->hooking, r));
    return run_hooked(s->q, &s->hooking, r, s->until, s->watch, &full);
}

static struct err *run_for_tally(struct stretch_run *s, struct replay *r)
{
    bool full;
    size_t segments;
    const struct history_segment *segment = history_segments(s->q->history, &segments);
    for (size_t i = s->first; i <= s->last; i++) {
        s->hooking.counts = (struct hook_counts){0};
        TRY(set_all_hooks(&s->hooking, r));
        TRY(run_hooked(s->q, &s->hooking, r, segment[i].end, s->watch, &full));
        s->tally->held[i] += s->hooking.counts.held;
        s->tally->failed[i] += s->hooking.counts.failed;
    }
    return NULL;
}

static void *run_stretch(void *arg)
{
    struct stretch_run *s = arg;
    struct lease lease;
    if ((s->failed = lend_replay(s->q, s->first, s->from, &lease)))
        return NULL;
    struct replay_observer observer = observer_of_hooks;
    observer.ctx = &s->hooking;
    replay_set_observer(lease.replay, &observer);
    if (!(s->failed = set_mode(&s->hooking, lease.replay)))
        s->failed = s->tally ? run_for_tally(s, lease.replay) : run_for_rows(s, lease.replay);
    end_lease(s->q, s->first, &lease, !s->failed);
    return NULL;
}

static void await(struct waves *v, pthread_t thread)
{
    for (;;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (pthread_timedjoin_np(thread, NULL, &until) != ETIMEDOUT)
            return;
        if (v->q->sink->progress && v->total)
            v->q->sink->progress(v->q->sink->ctx,
                                 (double)atomic_load(&v->watch.ran) / (double)v->total);
    }
}

/* Runs up to `most` stretches of `len` segments at a time. `each` gets them in order until it
 * returns false. */
static struct err *run_wave(struct waves *v, const struct hooking *like, size_t most, size_t len,
                            bool (*each)(void *ctx, struct stretch_run *s), void *ctx,
                            bool *go_on_out)
{
    size_t segments, count = 0;
    const struct history_segment *segment = history_segments(v->q->history, &segments);
    struct stretch_run *runs = xnew_array(struct stretch_run, most);
    while (count < most && next_stretch(v, len, &runs[count].first, &runs[count].last)) {
        struct stretch_run *s = &runs[count++];
        struct moment end = segment[s->last].end;
        s->q = v->q;
        s->hooking = (struct hooking){.places = like->places,
                                      .count = like->count,
                                      .request = like->request,
                                      .calls = like->calls};
        s->from = v->w->forward ? v->w->from : segment[s->first].start;
        s->until = v->w->forward || moment_cmp(end, v->w->from) < 0 ? end : v->w->from;
        s->tally = v->tally;
        s->watch = &v->watch;
    }
    for (size_t i = 0; i < count; i++) {
        runs[i].started = !pthread_create(&runs[i].thread, NULL, run_stretch, &runs[i]);
        if (!runs[i].started)
            runs[i].failed = err_new(ERR_LIMIT, "no more threads");
    }
    *go_on_out = count > 0;
    struct err *e = NULL;
    for (size_t i = 0; i < count; i++) {
        struct stretch_run *s = &runs[i];
        if (s->started)
            await(v, s->thread);
        bool wanted = !e && *go_on_out;
        if (wanted)
            e = steal(s->failed);
        if (wanted && !e)
            *go_on_out = each(ctx, s);
        if (e || !*go_on_out)
            atomic_store(&v->watch.unwanted, true);
        err_free(s->failed);
        hooking_deinit(&s->hooking);
    }
    free(runs);
    return e;
}

static size_t processors(void)
{
    enum { MOST = 16 };
    unsigned n = usable_cpus();
    return n > MOST ? MOST : n;
}

static bool visit_stretch(void *ctx, struct stretch_run *s)
{
    struct visiting *v = ctx;
    visit_rows(v, &s->hooking.rows);
    return !v->stopped;
}

static struct err *visit_in_waves(struct hooking *h, const uint64_t *buckets, struct visiting *v)
{
    struct waves waves = {.q = v->q, .buckets = buckets, .w = v->w};
    bool go_on = true;
    waves_begin(&waves);
    size_t most = 1;
    for (size_t len = 1; go_on; len = len < MOST_AT_ONCE ? 2 * len : len) {
        h->request.max_rows = v->left + 1;
        TRY(run_wave(&waves, h, most, len, visit_stretch, v, &go_on));
        most = processors();
    }
    return NULL;
}

/* --- the interface --- */

static bool is_conditional(const struct hit_place *places, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (places[i].programs && places[i].programs->condition.count)
            return true;
    }
    return false;
}

struct err *find_hits(struct query_engine *q, const struct hit_place *places, size_t count,
                      const struct window *w, const struct hit_wants *wants,
                      bool (*each)(void *ctx, const struct hit *h), void *ctx, bool *more_out)
{
    static const struct hit_wants nothing;
    *more_out = false;
    size_t segments;
    history_segments(q->history, &segments);
    cleanup(freep) uint64_t *buckets = xnew_array(uint64_t, segments);
    if (!count || !count_hits(q, places, count, buckets))
        return NULL;
    if (!wants)
        wants = &nothing;
    struct hooking h = {.places = places,
                        .count = count,
                        .request = {.memory = wants->memory,
                                    .memory_count = wants->memory_count,
                                    .print_lens = wants->print_lens,
                                    .print_count = wants->print_count,
                                    .regs = true,
                                    .keep_last = !w->forward},
                        .calls = wants->calls};
    struct visiting v = {.q = q,
                         .w = w,
                         .row_len = worker_hook_row_len(&h.request),
                         .left = w->limit,
                         .each = each,
                         .ctx = ctx};
    struct err *e = is_conditional(places, count) ? visit_in_waves(&h, buckets, &v)
                                                  : visit_in_turn(&h, buckets, &v);
    *more_out = v.more;
    hooking_deinit(&h);
    return e;
}

static bool go_on_always(void *ctx, struct stretch_run *s)
{
    return true;
}

/* Runs the segments of which the bucket is not 0. */
static struct err *tally_segments(struct query_engine *q, const struct hit_place *places,
                                  size_t count, const uint64_t *buckets, struct tally *tally)
{
    size_t segments;
    history_segments(q->history, &segments);
    const struct window all = {.forward = true};
    struct hooking h = {.places = places, .count = count, .request = {.count_only = true}};
    struct waves waves = {.q = q, .buckets = buckets, .w = &all, .tally = tally};
    bool go_on = true;
    waves_begin(&waves);
    // All of them are wanted: each processor opens one segment, and goes through its share. But
    // what writes much is run through in one go.
    size_t share = 0;
    uint64_t pages = 0;
    for (size_t i = 0; i < segments; i++) {
        share += buckets[i] != 0;
        pages += buckets[i] ? history_changed_pages(q->history, i) : 0;
    }
    size_t parts = RESTORING * pages > waves.total ? 1 : processors();
    share = share / parts + 1;
    while (go_on)
        TRY(run_wave(&waves, &h, parts, share, go_on_always, NULL, &go_on));
    return NULL;
}

struct err *count_held(struct query_engine *q, const struct hit_place *places, size_t count,
                       uint64_t *held, uint64_t *failed)
{
    size_t segments;
    history_segments(q->history, &segments);
    cleanup(freep) uint64_t *buckets = xnew_array(uint64_t, segments);
    if (!count || !count_hits(q, places, count, buckets))
        return NULL;
    return tally_segments(q, places, count, buckets, &(struct tally){held, failed});
}

struct err *count_executions(struct query_engine *q, const struct hit_place *places, size_t count,
                             uint64_t *buckets, uint64_t *total_out)
{
    size_t segments;
    history_segments(q->history, &segments);
    *total_out = 0;
    for (size_t i = 0; i < count; i++) {
        *total_out += count_place(q, &places[i], PRESENT_ALWAYS, PRESENT_ALWAYS, buckets);
        if (!places[i].presence)
            continue;
        cleanup(freep) uint64_t *partly = xnew_array(uint64_t, segments),
                                *held = xnew_array(uint64_t, segments),
                                *failed = xnew_array(uint64_t, segments);
        if (!count_place(q, &places[i], PRESENT_PARTLY, PRESENT_PARTLY, partly))
            continue;
        struct hit_place plain = places[i];
        plain.programs = NULL;
        TRY(tally_segments(q, &plain, 1, partly, &(struct tally){held, failed}));
        for (size_t k = 0; k < segments; k++) {
            *total_out += held[k];
            if (buckets)
                buckets[k] += held[k];
        }
    }
    return NULL;
}
