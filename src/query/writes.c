/* Writes to memory: by instructions, found by running again the segments in which the coarse index
 * has the bytes written (backward in pieces between kept states, the last piece first), and by
 * recorded kernel effects, from the events. Reads: by running all segments. Memory is followed to
 * where it came from: a shared object through all its mappings, a forked process' memory into its
 * parent. */
#include "query/stretch_int.h"

#include <sys/mman.h>

/* A physical range: private memory of a space, or part of a shared object. */
struct physical {
    uint32_t space, object;
    uint64_t start, end;
    gaddr view;                /* the address asked about that `start` stands for */
    struct moment from, until; /* this is where the bytes were between these */
};

typedef VEC(struct physical) physical_list;

static void add_private(const struct query_engine *q, uint32_t space, gaddr addr, uint64_t len,
                        physical_list *out);

/* The first moment of m's segment with the same mappings: they come and go with events. */
static struct moment with_same_mappings(const struct query_engine *q, struct moment m)
{
    size_t count;
    struct moment start =
                      history_segments(q->history, &count)[history_segment_at(q->history, m)].start,
                  event = {m.event, 0};
    return !m.event                       ? m
           : moment_cmp(start, event) > 0 ? start
                                          : event; // before the first event there is nothing
}

static struct err *resolve(struct query_engine *q, struct moment m, uint32_t task, gaddr addr,
                           uint64_t len, physical_list *out)
{
    struct replay *r;
    uint32_t space;
    TRY(plain_state_at(q, with_same_mappings(q, m), &r));
    TRY(space_of_task(r, task, &space));
    size_t count;
    const struct mapping *maps = replay_mappings(r, space, &count);
    struct moment end = {UINT64_MAX, UINT64_MAX};
    bool mapped = false;
    for (size_t i = 0; i < count; i++) {
        gaddr start = maps[i].start > addr ? maps[i].start : addr,
              stop = maps[i].end < addr + len ? maps[i].end : addr + len;
        if (start >= stop)
            continue;
        mapped = true;
        if (!maps[i].object)
            continue;
        uint64_t at = maps[i].offset + (start - maps[i].start);
        vec_push(out,
                 (struct physical){
                     0, object_uid(maps[i].object), at, at + (stop - start), start, {0, 0}, end});
    }
    if (!mapped)
        return err_new(ERR_FAULT, "nothing is mapped at %#llx at this moment",
                       (unsigned long long)addr);
    add_private(q, space, addr, len, out);
    return NULL;
}

/* Private memory of a space. If fork made it: before that, the bytes were the parent's. */
static void add_private(const struct query_engine *q, uint32_t space, gaddr addr, uint64_t len,
                        physical_list *out)
{
    vec_push(out,
             (struct physical){space, 0, addr, addr + len, addr, {0, 0}, {UINT64_MAX, UINT64_MAX}});
    size_t spaces;
    const struct db_space *known = history_spaces(q->history, &spaces);
    for (unsigned depth = 0; depth < 64; depth++) {
        const struct db_space *s = NULL;
        for (size_t i = 0; i < spaces; i++) {
            if (known[i].space == space)
                s = &known[i];
        }
        struct physical *last = &out->items[out->count - 1];
        if (!s)
            break;
        last->from = s->at;
        if (!s->parent)
            break;
        vec_push(out, (struct physical){s->parent, 0, addr, addr + len, addr, {0, 0}, s->at});
        space = s->parent;
    }
}

/* An access that may be one of those wanted. */
struct candidate {
    struct write_hit hit;
    bool placed; /* no: hit.addr is an address in `space`; place() is to say whether it is in one of
                    the places */
    bool elements;  /* a gather or scatter: hit.addr says nothing */
    uint32_t space; /* not placed */
};

static int compare_hits(const void *a, const void *b)
{
    const struct write_hit *x = &((const struct candidate *)a)->hit,
                           *y = &((const struct candidate *)b)->hit;
    int order = moment_cmp(x->moment, y->moment);
    if (!order)
        order = (x->event > y->event) - (x->event < y->event);
    return order
               ? order
               : (y->read > x->read) - (y->read < x->read); // an instruction reads before it writes
}

/* What an event wants in memory before the program runs towards it is written right behind the
 * event before: the records of a syscall buffer, and the flag for a hook's exit (replay:
 * prepare_frame). It is the first write of the event. */
static bool is_prepared(const struct query_engine *q, const struct db_event *e, uint32_t idx,
                        const struct db_kernel_write *w)
{
    if (idx || e->number < 2)
        return false;
    if (e->kind == FRAME_SYSCALLBUF_FLUSH)
        return w->object || w->addr < 0x70001000 ||
               w->addr >= 0x70002000; // not the thread's page: that comes with the event
    return e->kind == FRAME_SYSCALL && e->syscall_state != SYSCALL_EXITING && w->len == 1 &&
           e->syscall_no == trace_header(q->trace)->rrcall_base + 2;
}

/* Those of an event, of segment s, in [from, until). */
static void add_event_writes(const struct query_engine *q, const struct segment *s,
                             const struct db_event *e, const physical_list *places,
                             struct moment from, struct moment until, struct buf *hits)
{
    for (uint32_t i = 0; i < e->write_count; i++) {
        const struct db_kernel_write *w = &s->kernel_writes.items[e->write_idx + i];
        vec_each (p, places) {
            struct moment at = {e->number - 1, e->icount};
            if (is_prepared(q, e, i, w))
                at = moment_before_event(q, e->number - 1);
            // A space's first bytes come with the event that makes it; what that does to the parent
            // comes behind the copying.
            if (w->space != p->space || w->object != p->object || w->addr >= p->end ||
                w->addr + w->len <= p->start || e->number >= p->until.event ||
                moment_cmp(at, from) < 0 || moment_cmp(at, until) >= 0)
                continue;
            uint64_t start = w->addr > p->start ? w->addr : p->start;
            uint64_t end = w->addr + w->len < p->end ? w->addr + w->len : p->end;
            struct write_hit h = {.moment = at,
                                  .task = e->task,
                                  .addr = p->view + (start - p->start),
                                  .size = end - start,
                                  .event = e->number};
            // One row for all pieces of an event that touch one range.
            struct write_hit *last =
                hits->len ? &((struct candidate *)(void *)(hits->data + hits->len) - 1)->hit : NULL;
            if (last && last->event == h.event && last->addr <= h.addr &&
                h.addr + h.size <= last->addr + last->size)
                continue;
            buf_add(hits, &(struct candidate){.hit = h, .placed = true}, sizeof(struct candidate));
        }
    }
}

/* Those of [from, until) in a segment. */
static struct err *add_kernel_writes(struct query_engine *q, size_t segment,
                                     const physical_list *places, struct moment from,
                                     struct moment until, struct buf *hits)
{
    const struct segment *s;
    size_t count;
    TRY(history_part(q->history, segment, PART_EVENTS, &s));
    vec_each (e, &s->events)
        add_event_writes(q, s, e, places, from, until, hits);
    // What was prepared in it for the first event behind it.
    event_no next = history_segments(q->history, &count)[segment].end.event + 1;
    const struct db_event *e;
    if (next > q->last_event)
        return NULL;
    TRY(event_at(q, next, &e, &s));
    add_event_writes(q, s, e, places, from, until, hits);
    return NULL;
}

/* Is [addr, addr + size) of a space in one of the places, with the mappings as they are in the
 * replay? Fills in addr and size. */
static bool in_places(struct replay *r, const physical_list *places, uint32_t space, gaddr addr,
                      uint64_t size, struct write_hit *h)
{
    size_t count;
    const struct mapping *maps = replay_mappings(r, space, &count);
    for (size_t i = 0; i < count; i++) {
        if (addr >= maps[i].end || addr + size <= maps[i].start)
            continue;
        vec_each (p, places) {
            uint64_t start = addr;
            if (p->object != (maps[i].object ? object_uid(maps[i].object) : 0) ||
                (!p->object && p->space != space) || moment_cmp(h->moment, p->from) < 0 ||
                moment_cmp(h->moment, p->until) >= 0)
                continue;
            if (p->object)
                start = addr - maps[i].start + maps[i].offset;
            if (start >= p->end || start + size <= p->start)
                continue;
            h->addr = p->view + (start - p->start);
            h->size = size;
            return true;
        }
    }
    return false;
}

static bool vector_registers(void *ctx, unsigned start, unsigned len, uint8_t *out)
{
    return read_xstate(ctx, start, len, out);
}

/* Is an element of a gather or scatter in one of the places? */
static struct err *place_elements(struct replay *r, const physical_list *places, uint32_t space,
                                  struct write_hit *h, bool *hit_out)
{
    struct regs regs;
    struct xstate xstate;
    uint8_t code[X86_MAX_LEN];
    size_t len = 0;
    struct x86_insn in;
    TRY(replay_regs(r, h->task, &regs));
    TRY(replay_xstate(r, h->task, &xstate));
    err_free(replay_read(r, space, regs.r[UREG_RIP], code, sizeof(code), &len));
    if (!x86_decode(code, len, regs.r[UREG_RIP], &in))
        return NULL;
    const struct x86_run run = {
        .before = &regs, .after = &regs, .ctx = xstate.data, .registers = vector_registers};
    struct x86_access all[X86_MAX_ACCESSES];
    size_t count = x86_accesses(&in, &run, all);
    for (size_t i = 0; i < count && !*hit_out; i++) {
        h->possible = all[i].maybe;
        *hit_out = (h->read ? all[i].reads : all[i].writes) &&
                   in_places(r, places, space, all[i].addr, all[i].len, h);
    }
    return NULL;
}

static struct err *place(struct query_engine *q, const physical_list *places, struct candidate *c,
                         bool *hit_out)
{
    struct replay *r;
    *hit_out = c->placed;
    if (c->placed)
        return NULL;
    TRY(plain_state_at(q, c->hit.moment, &r));
    if (c->elements)
        return place_elements(r, places, c->space, &c->hit, hit_out);
    *hit_out = in_places(r, places, c->space, c->hit.addr, c->hit.size, &c->hit);
    return NULL;
}

/* What is gathered from a segment. */
struct taking {
    const physical_list *places;
    bool shared; /* some are in shared objects */
    bool forward;
    size_t max_rows; /* for each space; 0: all */
    bool full;       /* rows may be missing at `whole` and beyond */
    struct moment whole;
    struct buf *hits; /* struct candidate */
};

static void take_row(struct taking *t, uint32_t space, const struct access_row *row)
{
    struct candidate c = {.elements = row->kind == STORE_SCATTER || row->kind == LOAD_GATHER,
                          .space = space};
    c.hit = (struct write_hit){.moment = {row->stamp, row->icount},
                               .addr = row->addr,
                               .size = row->size,
                               .read = row->kind >= LOAD_PLAIN,
                               .possible = row->kind == STORE_MASKED || row->kind == STORE_STATE ||
                                           row->kind == LOAD_MASKED || row->kind == LOAD_STATE};
    // Private memory needs no mappings to be placed: only rows of it come.
    vec_each (p, t->places) {
        c.placed |= !t->shared && !c.elements && p->space == space && row->addr < p->end &&
                    row->addr + row->size > p->start && moment_cmp(c.hit.moment, p->from) >= 0 &&
                    moment_cmp(c.hit.moment, p->until) < 0;
    }
    if (c.placed || c.elements || t->shared)
        buf_add(t->hits, &c, sizeof(c));
}

static struct err *take_rows(struct taking *t, struct replay *r, uint32_t space)
{
    cleanup(buf_deinit) struct buf rows = {0};
    TRY(worker_take_rows(replay_worker(r, space), &rows, NULL, NULL));
    const struct access_row *row = (const void *)rows.data;
    size_t count = rows.len / sizeof(*row);
    if (t->max_rows && count >= t->max_rows) {
        const struct access_row *end = t->forward ? &row[count - 1] : row;
        struct moment at = {end->stamp, end->icount};
        if (!t->full || (moment_cmp(at, t->whole) < 0) == t->forward)
            t->whole = at;
        t->full = true;
    }
    for (size_t i = 0; i < count; i++)
        take_row(t, space, &row[i]);
    return NULL;
}

static struct err *on_ending(void *ctx, struct replay *r, uint32_t space)
{
    return take_rows(ctx, r, space);
}

static struct err *gather_rows(struct replay *r, unsigned what, struct moment until,
                               struct taking *t)
{
    VEC(struct watch_range) ranges = {0};
    vec_each (p, t->places) {
        vec_push(&ranges, (struct watch_range){p->space, p->object, p->start, p->end});
        t->shared |= p->object != 0;
    }
    const struct replay_observer observer = {.ctx = t, .space_ending = on_ending};
    replay_set_observer(r, &observer);
    const struct consume_request consume = {.loads = what & WATCH_LOADS,
                                            .no_stores = !(what & WATCH_STORES),
                                            .max_rows = t->max_rows,
                                            .keep_last = !t->forward};
    struct err *e = replay_set_watch(r, ranges.items, ranges.count, &consume);
    vec_deinit(&ranges);
    TRY(e);
    bool stopped; // a consumer that is full stops the run
    TRY(replay_run(r, until, UINT64_MAX, &stopped));
    size_t count;
    const uint32_t *spaces = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++)
        TRY(take_rows(t, r, spaces[i]));
    return NULL;
}

/* What is looked for, and how far it has got. */
struct search {
    unsigned what;
    const physical_list *places;
    struct window w;     /* `from` moves on; limit: what is left */
    struct moment since; /* backward: what is before is not wanted */
    bool (*each)(void *ctx, const struct write_hit *h);
    void *ctx;
    bool done, more;
    size_t given;       /* of the piece */
    struct moment last; /* given */
};

static struct err *run_piece(struct query_engine *q, struct search *s, size_t segment,
                             struct moment from, struct moment until, struct taking *t)
{
    struct lease lease;
    TRY(lend_instead(q, segment, from, &lease));
    struct err *e = gather_rows(lease.replay, s->what, until, t);
    return_replay(q, &lease, !e);
    return e;
}

/* Gives what was gathered, nearest first, but nothing beyond what may be missing. */
static struct err *give_hits(struct query_engine *q, struct search *s, const struct taking *t)
{
    bool forward = s->w.forward;
    size_t n = t->hits->len / sizeof(struct candidate);
    struct candidate *all = (void *)t->hits->data;
    if (n)
        qsort(all, n, sizeof(*all), compare_hits);
    size_t before = s->given;
    for (size_t k = 0; k < n && !s->done; k++) {
        struct candidate *c = &all[forward ? k : n - 1 - k];
        struct moment at = c->hit.moment;
        if (forward ? moment_cmp(at, s->w.from) < 0 : moment_cmp(at, s->w.from) >= 0)
            continue;
        if (t->full && (forward ? moment_cmp(at, t->whole) >= 0 : moment_cmp(at, t->whole) <= 0))
            break;
        if (!c->hit.event)
            c->hit.task = task_running_at(q, at);
        bool hit;
        TRY(check_cancel(q));
        TRY(place(q, s->places, c, &hit));
        if (!hit || (before && before--))
            continue;
        // The limit does not part those of one moment, as one asks on from the moment behind.
        if (s->w.limit == 0 && moment_cmp(at, s->last) != 0) {
            s->done = s->more = true;
            return NULL;
        }
        s->w.limit -= s->w.limit > 0;
        s->last = at;
        s->given++;
        s->done = !s->each(s->ctx, &c->hit);
    }
    return NULL;
}

/* May the segment have an access to one of the places? */
static struct err *may_hold(struct query_engine *q, const struct search *s, size_t segment,
                            bool *out)
{
    *out = s->what & WATCH_LOADS;
    for (size_t i = 0; i < s->places->count && !*out; i++) {
        const struct physical *p = &s->places->items[i];
        TRY(may_be_written(q, segment, p->space, p->object, p->start, p->end, out));
    }
    return NULL;
}

/* Accesses in [from, until) of a segment. */
static struct err *search_piece(struct query_engine *q, struct search *s, size_t segment, bool run,
                                struct moment from, struct moment until)
{
    // First no more rows than are wanted: one more tells that there are more, and the last one may
    // be half of an instruction's. If then some are missing, all.
    struct taking t = {.places = s->places, .forward = s->w.forward, .max_rows = s->w.limit + 2};
    s->given = 0;
    for (bool again = true; again && !s->done; t.max_rows = 0) {
        cleanup(buf_deinit) struct buf hits = {0};
        t.hits = &hits;
        t.full = false;
        if (s->what & WATCH_STORES)
            TRY(add_kernel_writes(q, segment, s->places, from, until, &hits));
        if (run)
            TRY(run_piece(q, s, segment, from, until, &t));
        TRY(give_hits(q, s, &t));
        again = t.full;
    }
    return NULL;
}

/* The limit is reached and no row beyond it was seen: the search ends. Whether there are more is
 * for the index to tell. */
static struct err *end_at_limit(struct query_engine *q, struct search *s, size_t segment, bool rest)
{
    size_t segments;
    history_segments(q->history, &segments);
    if (s->done || s->w.limit)
        return NULL;
    s->done = true;
    s->more = rest;
    for (size_t k = segment; !s->more && (s->w.forward ? k + 1 < segments : k > 0);) {
        k = s->w.forward ? k + 1 : k - 1;
        TRY(check_cancel(q));
        TRY(may_hold(q, s, k, &s->more));
    }
    return NULL;
}

/* Forward in one go; backward in pieces between kept states, the last one first. */
static struct err *search_segment(struct query_engine *q, struct search *s, size_t segment)
{
    size_t count;
    const struct history_segment *at = &history_segments(q->history, &count)[segment];
    bool run;
    TRY(may_hold(q, s, segment, &run));
    if (s->w.forward) {
        TRY(search_piece(q, s, segment, run, s->w.from, at->end));
        return end_at_limit(q, s, segment, false);
    }
    struct moment until = moment_cmp(s->w.from, at->end) < 0 ? s->w.from : at->end;
    release_state(q); // it is one of the kept states
    bool rest = true;
    for (unsigned pieces = 1; rest && !s->done; pieces *= 2) { // which may be short
        struct moment from = until;
        for (unsigned i = 0; i < pieces && rest; i++) {
            from = run ? lendable_before(q, segment, from) : at->start;
            rest = moment_cmp(from, at->start) > 0 && moment_cmp(from, s->since) > 0;
        }
        TRY(search_piece(q, s, segment, run, from, until));
        TRY(end_at_limit(q, s, segment, rest));
        until = from;
    }
    return NULL;
}

static struct err *search(struct query_engine *q, struct search *s)
{
    size_t segments, at = history_segment_at(q->history, s->w.from);
    const struct history_segment *segment = history_segments(q->history, &segments);
    for (size_t done = 1;; done++) {
        TRY(check_cancel(q));
        if (q->sink->progress && s->what & WATCH_LOADS)
            q->sink->progress(q->sink->ctx, (double)done / (double)segments);
        TRY(search_segment(q, s, at));
        if (s->done || (s->w.forward ? at + 1 >= segments
                                     : at == 0 || moment_cmp(segment[at].start, s->since) <= 0))
            return NULL;
        at = s->w.forward ? at + 1 : at - 1;
    }
}

struct err *find_accesses(struct query_engine *q, unsigned what, const struct focus *f, gaddr addr,
                          uint64_t len, const struct window *w,
                          bool (*each)(void *ctx, const struct write_hit *h), void *ctx,
                          bool *more_out)
{
    *more_out = false;
    physical_list places = {0};
    struct err *e = resolve(q, f->moment, f->task, addr, len, &places);
    struct search s = {.what = what, .places = &places, .w = *w, .each = each, .ctx = ctx};
    if (!e)
        e = search(q, &s);
    *more_out = s.more;
    vec_deinit(&places);
    return e;
}

static bool keep_hit(void *ctx, const struct write_hit *h)
{
    *(struct write_hit *)ctx = *h;
    return false; // the first is the last
}

struct err *last_write(struct query_engine *q, uint32_t space, uint32_t object, uint64_t start,
                       uint64_t end, struct moment before, struct write_hit *out, bool *found_out)
{
    physical_list places = {0};
    if (object)
        vec_push(&places,
                 (struct physical){0, object, start, end, start, {0, 0}, {UINT64_MAX, UINT64_MAX}});
    else
        add_private(q, space, start, end - start, &places);
    struct write_hit hit = {.size = UINT64_MAX};
    struct search s = {.what = WATCH_STORES,
                       .places = &places,
                       .w = {.from = before, .limit = 1},
                       .each = keep_hit,
                       .ctx = &hit};
    struct err *e = search(q, &s);
    vec_deinit(&places);
    TRY(e);
    *found_out = hit.size != UINT64_MAX;
    if (*found_out)
        *out = hit;
    return NULL;
}

struct err *find_private_writes(struct query_engine *q, uint32_t space,
                                const struct addr_range *ranges, size_t count, struct moment since,
                                const struct window *w,
                                bool (*each)(void *ctx, const struct write_hit *h), void *ctx,
                                bool *more_out)
{
    physical_list places = {0};
    for (size_t i = 0; i < count; i++)
        vec_push(&places, (struct physical){space,
                                            0,
                                            ranges[i].start,
                                            ranges[i].end,
                                            ranges[i].start,
                                            since,
                                            {UINT64_MAX, UINT64_MAX}});
    struct search s = {
        .what = WATCH_STORES, .places = &places, .w = *w, .since = since, .each = each, .ctx = ctx};
    struct err *e = search(q, &s);
    *more_out = s.more;
    vec_deinit(&places);
    return e;
}
