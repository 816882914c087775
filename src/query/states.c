/* States at moments. Replays are kept in seats, each for one segment of the recording, and go back
 * and forth within it by snapshots (replay.h): from a kept state to any later one costs only the
 * run between them.
 *
 *   open: restore the segment's boundary, from a seat of another segment if there is one ---> snapshots are taken on the way of every run,
 *         evenly spread over the segment
 *   use:  nearest kept state at or before the moment (or where the seat stands) ---> run to the moment
 *
 * Where too much memory comes and goes for snapshots, the seat also holds an origin, a copy that
 * stays at the segment's start and is cloned. Seats that were used least recently are given up when
 * memory gets short.
 *
 * Searches go back over a segment more than once, and need no stacks of calls: they run faster
 * without, and have memory kept as it comes.
 *
 * Invariants: 1. A seat that is `busy` belongs to the thread that took it; the others and the list
 * are guarded by seats_lock. 2. From a snapshot that was taken without stacks of calls no state is
 * made that has them. The one at the segment's start has them. */
#include "query/query_int.h"

#include "base/log.h"
#include "index/boundary.h"

#include <stdio.h>

enum {
    EVENT_COST = 200000 /* of replaying an event, in instructions */,
    LEAST_PIECE = 800000,
    FIRST_PIECE = 5 * LEAST_PIECE,
    PAGE_COST = 3000 /* of a page in a snapshot, likewise */,
    MOST_SEATS = 64,
    LEAST_SEATS = 2,
    MEASURE_EVERY = 16 /* times that a seat is used */
};

struct seat {
    struct replay *replay;
    struct replay *origin; /* may be NULL */
    size_t segment;
    bool busy;
    bool tracked;      /* the stacks of calls are right where the replay stands */
    bool full;         /* no more snapshots can be taken */
    bool came_back;    /* it was put back to an earlier moment: it is worth while to keep states */
    bool keeps_memory; /* that comes: replay_snapshot_fetched() */
    size_t written;    /* pages that the segment writes */
    unsigned uses;     /* since its memory was measured */
    uint64_t used;
    uint64_t bytes;
    uint32_t kept; /* bit per snapshot */
    struct {
        struct moment at;
        uint64_t cost;
        bool tracked;
    } snapshots[WORKER_SNAPSHOTS];
    VEC(uint32_t) named; /* spaces whose pages have been named */
};

/* How far a replay is, in instructions or what takes as long. */
static uint64_t cost_of(const struct replay *r)
{
    return replay_icount_total(r) + EVENT_COST * replay_now(r).event;
}

static void give_back(struct query_engine *q, struct seat *seat);
static void give_up(struct query_engine *q, struct seat *seat);

/* --- opening a segment --- */

/* The idle seat with the nearest segment, at the start of which it can be put again; NULL: none. It
 * is busy then. */
static struct seat *take_neighbour(struct query_engine *q, size_t segment)
{
    struct seat *best = NULL;
    size_t least = SIZE_MAX;
    pthread_mutex_lock(&q->seats_lock);
    for (size_t i = 0; i < MOST_SEATS; i++) {
        struct seat *seat = &q->seats[i];
        size_t distance =
            seat->segment < segment ? segment - seat->segment : seat->segment - segment;
        // Before segment 0 nothing is there.
        if (seat->busy || !seat->replay || !seat->segment || !(seat->kept & 1) || distance >= least)
            continue;
        least = distance;
        best = seat;
    }
    if (best)
        best->busy = true;
    pthread_mutex_unlock(&q->seats_lock);
    return best;
}

/* After going back: spaces which are not yet will be made anew, by workers of which no pages have
 * been named. */
static void forget_later_spaces(struct seat *seat)
{
    size_t count, kept = 0;
    const uint32_t *spaces = replay_spaces(seat->replay, &count);
    vec_each (n, &seat->named) {
        bool there = false;
        for (size_t i = 0; i < count; i++)
            there |= spaces[i] == *n;
        if (there)
            seat->named.items[kept++] = *n;
    }
    seat->named.count = kept;
}

/* A replay at a segment's start: from a neighbour, of which only what differs has to be changed, or
 * else from nothing. */
static struct err *restore(struct query_engine *q, size_t segment, struct replay **out)
{
    struct seat *near = segment ? take_neighbour(q, segment) : NULL;
    bool there = false;
    struct err *e = near ? replay_set_mode(near->replay, ENGINE_CALLS, NULL) : NULL;
    if (near && !e)
        e = replay_go_back(near->replay, 0, &there);
    if (!e) {
        pthread_mutex_lock(&q->history_lock);
        const struct restore_help help = {there ? near->replay : NULL, &q->spare};
        e = boundary_restore(q->history, q->trace, segment, &help, there ? near->segment : 0, out);
        pthread_mutex_unlock(&q->history_lock);
    }
    if (!near)
        return e;
    near->tracked = true;
    forget_later_spaces(near);
    if (there)
        give_back(q, near);
    else
        give_up(q, near);
    return e;
}

/* Starts keeping stacks of calls in a replay at a segment's start. */
static struct err *begin_tracking(struct query_engine *q, struct replay *r, size_t segment)
{
    TRY(replay_set_mode(r, ENGINE_CALLS, NULL));
    const struct segment *s;
    VEC(struct stack_entry) entries = {0};
    size_t count;
    const struct task_info *tasks = replay_tasks(r, &count);
    pthread_mutex_lock(&q->history_lock);
    struct err *e = history_stacks(q->history, segment, &s);
    for (size_t i = 0; i < count && !e; i++) {
        entries.count = 0;
        vec_each (c, &s->stacks) {
            if (c->task == tasks[i].serial)
                vec_push(&entries, (struct stack_entry){.stamp = c->at.event,
                                                        .icount = c->at.icount,
                                                        .pc = c->block,
                                                        .return_addr = c->return_addr,
                                                        .sp = c->sp,
                                                        .slot = tasks[i].slot});
        }
        if (entries.count)
            e = worker_set_stack(replay_worker(r, tasks[i].space), tasks[i].slot, entries.items,
                                 entries.count);
    }
    pthread_mutex_unlock(&q->history_lock);
    vec_deinit(&entries);
    return e;
}

/* Names the pages which the segment's program writes, of spaces of which they have not been named:
 * a space may be new. */
static struct err *name_pages(struct query_engine *q, struct seat *seat)
{
    size_t count;
    const uint32_t *spaces = replay_spaces(seat->replay, &count);
    bool all_named = true;
    for (size_t i = 0; i < count && all_named; i++) {
        bool known = false;
        vec_each (n, &seat->named)
            known |= *n == spaces[i];
        all_named = known;
    }
    if (all_named)
        return NULL;
    VEC(uint64_t) pages = {0};
    const struct segment *s;
    pthread_mutex_lock(&q->history_lock);
    struct err *e = history_part(q->history, seat->segment, PART_WRITTEN, &s);
    // They come sorted by object, space and page.
    for (size_t i = 0; !e && i < s->written.count;) {
        const struct db_written *first = &s->written.items[i];
        pages.count = 0;
        for (; i < s->written.count && s->written.items[i].object == first->object &&
               s->written.items[i].space == first->space;
             i++)
            vec_push(&pages, s->written.items[i].page);
        e = replay_snapshot_pages(seat->replay, first->space, first->object, pages.items,
                                  pages.count);
    }
    pthread_mutex_unlock(&q->history_lock);
    vec_deinit(&pages);
    seat->written = e ? 0 : s->written.count;
    seat->named.count = 0;
    for (size_t i = 0; i < count; i++)
        vec_push(&seat->named, spaces[i]);
    return e;
}

/* Keeps the present state as snapshot idx, if there is room. */
static struct err *keep(struct query_engine *q, struct seat *seat, unsigned idx)
{
    if (idx == WORKER_SNAPSHOTS || seat->full)
        return NULL;
    struct err *e = name_pages(q, seat);
    seat->kept &= ~(1u << idx);
    if (!e)
        e = replay_snapshot(seat->replay, idx);
    if (e && err_kind(e) == ERR_LIMIT) {
        err_free(e);
        seat->full = true;
        return NULL;
    }
    TRY(e);
    seat->kept |= 1u << idx;
    seat->snapshots[idx].at = replay_now(seat->replay);
    seat->snapshots[idx].cost = cost_of(seat->replay);
    seat->snapshots[idx].tracked = seat->tracked;
    return NULL;
}

/* Makes the seat's replay stand at the segment's start. */
static struct err *begin(struct query_engine *q, struct seat *seat)
{
    replay_close(seat->replay);
    seat->replay = NULL;
    seat->kept = 0;
    seat->named.count = 0;
    seat->full = seat->keeps_memory = false;
    if (seat->origin)
        TRY(replay_clone(seat->origin, &seat->replay));
    else
        TRY(restore(q, seat->segment, &seat->replay));
    TRY(begin_tracking(q, seat->replay, seat->segment));
    seat->tracked = true;
    return keep(q, seat, 0);
}

static void close_seat(struct seat *seat)
{
    replay_close(seat->replay);
    replay_close(seat->origin);
    vec_deinit(&seat->named);
    *seat = (struct seat){0};
}

void seats_open(struct query_engine *q)
{
    pthread_mutex_init(&q->seats_lock, NULL);
    pthread_mutex_init(&q->history_lock, NULL);
    q->seats = xnew_array(struct seat, MOST_SEATS);
}

void seats_close(struct query_engine *q)
{
    for (size_t i = 0; q->seats && i < MOST_SEATS; i++)
        close_seat(&q->seats[i]);
    free(q->seats);
    pthread_mutex_destroy(&q->seats_lock);
    pthread_mutex_destroy(&q->history_lock);
}

/* --- memory --- */

/* Gives up seats until the rest is within the limit. The caller holds the lock. */
static void shrink_locked(struct query_engine *q)
{
    for (;;) {
        struct seat *oldest = NULL;
        uint64_t total = 0;
        size_t count = 0;
        for (size_t i = 0; i < MOST_SEATS; i++) {
            struct seat *seat = &q->seats[i];
            if (!seat->replay)
                continue;
            count++;
            total += seat->bytes;
            if (!seat->busy && (!oldest || seat->used < oldest->used))
                oldest = seat;
        }
        if (!oldest || count <= LEAST_SEATS || total <= q->options.memory_bytes)
            return;
        close_seat(oldest);
    }
}

/* --- taking and giving back --- */

/* The last kept state of a seat at or before m, its index; WORKER_SNAPSHOTS: none. tracked: one
 * with stacks of calls. */
static unsigned last_kept(const struct seat *seat, struct moment m, bool tracked)
{
    unsigned best = WORKER_SNAPSHOTS;
    for (unsigned i = 0; i < WORKER_SNAPSHOTS; i++) {
        if ((seat->kept >> i & 1) && (seat->snapshots[i].tracked || !tracked) &&
            moment_cmp(seat->snapshots[i].at, m) <= 0 &&
            (best == WORKER_SNAPSHOTS ||
             moment_cmp(seat->snapshots[i].at, seat->snapshots[best].at) > 0))
            best = i;
    }
    return best;
}

/* From where a seat would run to m: a moment, {0, 0} if it has to begin. */
static struct moment start_for(const struct seat *seat, struct moment m, bool tracked)
{
    unsigned kept = last_kept(seat, m, tracked);
    struct moment start = kept < WORKER_SNAPSHOTS ? seat->snapshots[kept].at : (struct moment){0};
    struct moment now = replay_now(seat->replay);
    return (seat->tracked || !tracked) && moment_cmp(now, m) <= 0 && moment_cmp(now, start) > 0
               ? now
               : start;
}

static struct seat *find_seat_locked(struct query_engine *q, size_t segment, struct moment m,
                                     bool tracked)
{
    struct seat *best = NULL, *spare = NULL;
    for (size_t i = 0; i < MOST_SEATS; i++) {
        struct seat *seat = &q->seats[i];
        if (seat->busy)
            continue;
        if (seat->replay && seat->segment == segment) {
            if (!best || moment_cmp(start_for(seat, m, tracked), start_for(best, m, tracked)) > 0)
                best = seat;
        } else if (!spare || (spare->replay && (!seat->replay || seat->used < spare->used))) {
            spare = seat;
        }
    }
    if (!best && spare) {
        close_seat(spare);
        spare->segment = segment;
        best = spare;
    }
    if (best) {
        best->busy = true;
        best->used = ++q->clock;
    }
    return best;
}

static void give_back(struct query_engine *q, struct seat *seat)
{
    uint64_t bytes = seat->bytes;
    if (seat->uses++ % MEASURE_EVERY == 0)
        bytes = replay_memory(seat->replay) + (seat->origin ? replay_memory(seat->origin) : 0);
    pthread_mutex_lock(&q->seats_lock);
    seat->bytes = bytes;
    seat->busy = false;
    shrink_locked(q);
    pthread_mutex_unlock(&q->seats_lock);
}

static void give_up(struct query_engine *q, struct seat *seat)
{
    pthread_mutex_lock(&q->seats_lock);
    close_seat(seat);
    pthread_mutex_unlock(&q->seats_lock);
}

/* Brings a seat to the nearest state at or before m that costs no run. tracked: the stacks are to
 * be right. */
static struct err *prepare(struct query_engine *q, struct seat *seat, struct moment m, bool tracked)
{
    if (!seat->replay)
        return begin(q, seat);
    struct moment start = start_for(seat, m, tracked);
    if (moment_cmp(start, replay_now(seat->replay)) == 0 && (seat->tracked || !tracked))
        return NULL;
    unsigned idx = last_kept(seat, m, tracked);
    bool done = false;
    if (idx < WORKER_SNAPSHOTS) {
        if (seat->tracked != tracked)
            TRY(replay_set_mode(seat->replay, tracked ? ENGINE_CALLS : ENGINE_COUNT, NULL));
        TRY(replay_go_back(seat->replay, idx, &done));
        forget_later_spaces(seat);
        seat->tracked = tracked;
        seat->came_back = true;
    }
    if (done)
        return NULL;
    // This segment needs an origin.
    if (!seat->origin && seat->segment > 0)
        TRY(restore(q, seat->segment, &seat->origin));
    return begin(q, seat);
}

static bool is_empty(struct replay *r)
{
    size_t count;
    replay_spaces(r, &count);
    return count == 0;
}

/* How far apart states are kept, as cost_of() counts. Before anybody came back to the segment, only
 * where to run there again would cost more than to keep them: whoever has just come may have one
 * question. */
static uint64_t piece_of(const struct query_engine *q, const struct seat *seat)
{
    size_t count;
    const struct history_segment *s = &history_segments(q->history, &count)[seat->segment];
    uint64_t piece =
        (s->icount + EVENT_COST * (s->end.event - s->start.event)) / (WORKER_SNAPSHOTS - 2) + 1;
    uint64_t least = seat->came_back || seat->keeps_memory ? LEAST_PIECE : FIRST_PIECE,
             pages = (uint64_t)PAGE_COST * seat->written;
    if ((!seat->came_back || !seat->tracked) && least < pages) // without stacks to run is cheap
        least = pages;
    return piece < least ? least : piece;
}

/* As what the present state is to be kept, if none near by is: a new snapshot, or one near by that
 * has no stacks of calls where this one has. WORKER_SNAPSHOTS: not at all. */
static unsigned place_to_keep(const struct seat *seat, uint64_t near)
{
    uint64_t now = cost_of(seat->replay);
    unsigned unused = WORKER_SNAPSHOTS, worse = WORKER_SNAPSHOTS;
    for (unsigned i = 0; i < WORKER_SNAPSHOTS; i++) {
        uint64_t at = seat->snapshots[i].cost;
        if (!(seat->kept >> i & 1))
            unused = unused < WORKER_SNAPSHOTS ? unused : i;
        else if ((now > at ? now - at : at - now) >= near)
            continue;
        else if (seat->tracked && !seat->snapshots[i].tracked)
            worse = i;
        else
            return WORKER_SNAPSHOTS;
    }
    return worse < WORKER_SNAPSHOTS ? worse : unused;
}

/* Runs to m, and keeps states on the way. */
static struct err *advance(struct query_engine *q, struct seat *seat, struct moment m)
{
    struct replay *r = seat->replay;
    uint64_t piece = piece_of(q, seat);
    while (!replay_at_end(r) && moment_cmp(replay_now(r), m) < 0) {
        // The first program's start is worth a state of its own: it makes a worker.
        bool starts = is_empty(r);
        struct moment before = replay_now(r),
                      until = {before.event + (starts ? 1 : piece / EVENT_COST + 1), 0};
        bool last = moment_cmp(m, until) <= 0;
        uint64_t icount = replay_icount_total(r);
        TRY(check_cancel(q));
        TRY(replay_run(r, last ? m : until, piece, NULL));
        starts &= !is_empty(r);
        if (last && !starts && replay_icount_total(r) - icount < piece)
            return NULL; // at m, or as far as its event goes
        if (seat->tracked || seat->keeps_memory)
            TRY(keep(q, seat, place_to_keep(seat, starts ? 0 : piece / 2)));
    }
    return NULL;
}

/* What a seat is wanted for. */
enum seat_use {
    USE_STATE, /* a state with stacks of calls */
    USE_CALLS, /* to run on from a moment, with them */
    USE_ONCE,  /* likewise, without */
    USE_AGAIN, /* likewise, more than once */
};

/* Has memory kept that comes from now on. */
static struct err *keep_memory(struct seat *seat)
{
    if (seat->keeps_memory)
        return NULL;
    seat->keeps_memory = true;
    return replay_snapshot_fetched(seat->replay);
}

static struct err *take_seat(struct query_engine *q, size_t segment, struct moment m,
                             enum seat_use use, struct seat **out)
{
    bool tracked = use == USE_STATE || use == USE_CALLS;
    pthread_mutex_lock(&q->seats_lock);
    struct seat *seat = find_seat_locked(q, segment, m, tracked);
    pthread_mutex_unlock(&q->seats_lock);
    if (!seat)
        return err_new(ERR_LIMIT, "too many questions at a time");
    struct err *e = prepare(q, seat, m, tracked);
    if (!e && !tracked) {
        seat->tracked = false;
        e = replay_set_mode(seat->replay, ENGINE_COUNT, NULL);
    }
    if (!e && (use == USE_AGAIN || seat->came_back))
        e = keep_memory(seat);
    if (!e)
        e = advance(q, seat, m);
    if (e) {
        give_up(q, seat);
        return e;
    }
    *out = seat;
    return NULL;
}

static struct err *borrow(struct query_engine *q, struct moment m, enum seat_use use,
                          struct replay **out)
{
    TRY(check_cancel(q));
    size_t segment = history_segment_at(q->history, m);
    struct seat *seat = q->borrowed;
    bool good = seat && seat->segment == segment && moment_cmp(replay_now(seat->replay), m) == 0 &&
                (seat->tracked || use != USE_STATE);
    if (!good) {
        release_state(q);
        TRY(take_seat(q, segment, m, use, &seat));
        q->borrowed = seat;
    }
    *out = seat->replay;
    return NULL;
}

struct err *state_at(struct query_engine *q, struct moment m, struct replay **out)
{
    return borrow(q, m, USE_STATE, out);
}

struct err *plain_state_at(struct query_engine *q, struct moment m, struct replay **out)
{
    return borrow(q, m, USE_AGAIN, out);
}

bool has_state_in(struct query_engine *q, size_t segment)
{
    bool has = false;
    pthread_mutex_lock(&q->seats_lock);
    for (size_t i = 0; i < MOST_SEATS && !has; i++)
        has = q->seats[i].segment == segment && (q->seats[i].busy || q->seats[i].replay);
    pthread_mutex_unlock(&q->seats_lock);
    return has;
}

struct err *visit_state(struct query_engine *q, struct moment m)
{
    struct seat *seat;
    TRY(take_seat(q, history_segment_at(q->history, m), m, USE_STATE, &seat));
    give_back(q, seat);
    return NULL;
}

void release_state(struct query_engine *q)
{
    if (q->borrowed)
        give_back(q, q->borrowed);
    q->borrowed = NULL;
}

static struct err *lend(struct query_engine *q, size_t segment, struct moment from,
                        enum seat_use use, struct lease *out)
{
    size_t count;
    const struct history_segment *s = history_segments(q->history, &count);
    if (moment_cmp(from, s[segment].start) < 0)
        from = s[segment].start;
    struct seat *seat;
    TRY(take_seat(q, segment, from, use, &seat));
    seat->tracked = false; // when it comes back
    *out = (struct lease){seat->replay, seat};
    return NULL;
}

struct err *lend_replay(struct query_engine *q, size_t segment, struct moment from,
                        struct lease *out)
{
    return lend(q, segment, from, USE_ONCE, out);
}

struct err *lend_with_stacks(struct query_engine *q, size_t segment, struct moment from,
                             struct lease *out)
{
    return lend(q, segment, from, USE_CALLS, out);
}

struct err *lend_instead(struct query_engine *q, size_t segment, struct moment from,
                         struct lease *out)
{
    release_state(q);
    return lend(q, segment, from, USE_AGAIN, out);
}

struct moment lendable_before(struct query_engine *q, size_t segment, struct moment m)
{
    size_t count;
    struct moment best = history_segments(q->history, &count)[segment].start;
    pthread_mutex_lock(&q->seats_lock);
    for (size_t i = 0; i < MOST_SEATS; i++) {
        const struct seat *seat = &q->seats[i];
        for (unsigned k = 0;
             !seat->busy && seat->replay && seat->segment == segment && k < WORKER_SNAPSHOTS; k++) {
            struct moment at = seat->snapshots[k].at;
            if ((seat->kept >> k & 1) && moment_cmp(at, m) < 0 && moment_cmp(at, best) > 0)
                best = at;
        }
    }
    pthread_mutex_unlock(&q->seats_lock);
    return best;
}

void return_replay(struct query_engine *q, struct lease *lease, bool usable)
{
    if (!lease->seat)
        return;
    replay_set_observer(lease->replay, NULL);
    size_t count;
    const uint32_t *spaces = replay_spaces(lease->replay, &count);
    struct hook_request no_hooks = {0};
    struct err *e = usable ? replay_set_mode(lease->replay, ENGINE_COUNT, NULL) : NULL;
    usable &= !e;
    err_free(e);
    for (size_t i = 0; usable && i < count; i++) {
        struct worker *w = replay_worker(lease->replay, spaces[i]);
        e = worker_set_hooks(w, &no_hooks);
        if (!e)
            e = worker_set_steps(w, NULL);
        usable = !e;
        err_free(e);
    }
    if (usable)
        give_back(q, lease->seat);
    else
        give_up(q, lease->seat);
    *lease = (struct lease){0};
}
