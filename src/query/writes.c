/* Writes to memory: by instructions, found by running again the segments in which the coarse index has the bytes written, and by
 * recorded kernel effects, from the events. Memory is followed to where it came from: a shared object through all its mappings,
 * a forked process' memory into its parent. */
#include "query/query_int.h"

#include <sys/mman.h>

/* A physical range: private memory of a space, or part of a shared object. */
struct physical {
    uint32_t space, object;
    uint64_t start, end;
    gaddr view;       /* the address asked about that `start` stands for */
    struct moment from, until; /* this is where the bytes were between these */
};

typedef VEC(struct physical) physical_list;

static void add_private(const struct query_engine *q, uint32_t space, gaddr addr, uint64_t len, physical_list *out);

static struct err *resolve(struct query_engine *q, struct moment m, uint32_t task, gaddr addr, uint64_t len, physical_list *out)
{
    struct replay *r;
    uint32_t space;
    TRY(state_at(q, m, &r));
    TRY(space_of_task(r, task, &space));
    size_t count;
    const struct mapping *maps = replay_mappings(r, space, &count);
    struct moment end = {UINT64_MAX, UINT64_MAX};
    bool mapped = false;
    for (size_t i = 0; i < count; i++) {
        gaddr start = maps[i].start > addr ? maps[i].start : addr, stop = maps[i].end < addr + len ? maps[i].end : addr + len;
        if (start >= stop)
            continue;
        mapped = true;
        if (!maps[i].object)
            continue;
        uint64_t at = maps[i].offset + (start - maps[i].start);
        vec_push(out, (struct physical){0, object_uid(maps[i].object), at, at + (stop - start), start, {0, 0}, end});
    }
    if (!mapped)
        return err_new(ERR_FAULT, "nothing is mapped at %#llx at this moment", (unsigned long long)addr);
    add_private(q, space, addr, len, out);
    return NULL;
}

/* Private memory of a space. If fork made it: before that, the bytes were the parent's. */
static void add_private(const struct query_engine *q, uint32_t space, gaddr addr, uint64_t len, physical_list *out)
{
    vec_push(out, (struct physical){space, 0, addr, addr + len, addr, {0, 0}, {UINT64_MAX, UINT64_MAX}});
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

static int compare_hits(const void *a, const void *b)
{
    const struct write_hit *x = a, *y = b;
    int order = moment_cmp(x->moment, y->moment);
    return order ? order : (x->event > y->event) - (x->event < y->event);
}

/* What an event wants in memory before the program runs towards it is written right behind the event before: the records of a
 * syscall buffer, and the flag for a hook's exit (replay: prepare_frame). It is the first write of the event. */
static bool is_prepared(const struct query_engine *q, const struct db_event *e, uint32_t idx, const struct db_kernel_write *w)
{
    if (idx || e->number < 2)
        return false;
    if (e->kind == FRAME_SYSCALLBUF_FLUSH)
        return w->object || w->addr < 0x70001000 || w->addr >= 0x70002000; // not the thread's page: that comes with the event
    return e->kind == FRAME_SYSCALL && e->syscall_state != SYSCALL_EXITING && w->len == 1 &&
           e->syscall_no == trace_header(q->trace)->rrcall_base + 2;
}

static void add_kernel_writes(const struct query_engine *q, const struct segment *s, const physical_list *places, struct buf *hits)
{
    vec_each (e, &s->events) {
        for (uint32_t i = 0; i < e->write_count; i++) {
            const struct db_kernel_write *w = &s->kernel_writes.items[e->write_idx + i];
            vec_each (p, places) {
                struct moment at = {e->number - 1, e->icount};
                if (is_prepared(q, e, i, w))
                    at = (struct moment){e->number - 2, q->event_icount.items[e->number - 1]};
                // A space's first bytes come with the event that makes it; what that does to the parent comes behind the copying.
                if (w->space != p->space || w->object != p->object || w->addr >= p->end || w->addr + w->len <= p->start ||
                    e->number >= p->until.event)
                    continue;
                uint64_t start = w->addr > p->start ? w->addr : p->start;
                uint64_t end = w->addr + w->len < p->end ? w->addr + w->len : p->end;
                struct write_hit h = {.moment = at, .task = e->task, .addr = p->view + (start - p->start),
                                      .size = end - start, .event = e->number};
                // One row for all pieces of an event that touch one range.
                struct write_hit *last = hits->len ? (struct write_hit *)(void *)(hits->data + hits->len) - 1 : NULL;
                if (last && last->event == h.event && last->addr <= h.addr && h.addr + h.size <= last->addr + last->size)
                    continue;
                buf_add(hits, &h, sizeof(h));
            }
        }
    }
}

/* Writes come by address in whatever space made them; back to the address that was asked about. */
static bool to_view(struct replay *r, const physical_list *places, uint32_t space, const struct access_row *row, struct write_hit *h)
{
    struct moment at = {row->stamp, row->icount};
    vec_each (p, places) {
        uint64_t start = row->addr, size = row->size;
        if (p->object) {
            size_t count;
            const struct mapping *maps = replay_mappings(r, space, &count);
            bool found = false;
            for (size_t i = 0; i < count && !found; i++) {
                if (maps[i].object && object_uid(maps[i].object) == p->object && row->addr < maps[i].end &&
                    row->addr + size > maps[i].start) {
                    start = row->addr - maps[i].start + maps[i].offset;
                    found = start < p->end && start + size > p->start;
                }
            }
            if (!found)
                continue;
        } else if (p->space != space || start >= p->end || start + size <= p->start || moment_cmp(at, p->from) < 0 ||
                   moment_cmp(at, p->until) >= 0) {
            continue;
        }
        *h = (struct write_hit){.moment = at, .addr = p->view + (start - p->start), .size = size,
                                .possible = row->kind == STORE_MASKED || row->kind == STORE_STATE || row->kind == STORE_SCATTER};
        return true;
    }
    return false;
}

struct taking {
    const physical_list *places;
    struct buf *hits;
};

static struct err *take_rows(struct taking *t, struct replay *r, uint32_t space)
{
    cleanup(buf_deinit) struct buf rows = {0};
    TRY(worker_take_rows(replay_worker(r, space), &rows, NULL, NULL));
    const struct access_row *row = (const void *)rows.data;
    for (size_t i = 0; i < rows.len / sizeof(*row); i++) {
        struct write_hit h;
        if (to_view(r, t->places, space, &row[i], &h))
            buf_add(t->hits, &h, sizeof(h));
    }
    return NULL;
}

static struct err *on_ending(void *ctx, struct replay *r, uint32_t space)
{
    return take_rows(ctx, r, space);
}

static struct err *gather_rows(struct replay *r, const physical_list *places, const struct window *w, struct moment until,
                               struct buf *hits)
{
    VEC(struct watch_range) ranges = {0};
    vec_each (p, places)
        vec_push(&ranges, (struct watch_range){p->space, p->object, p->start, p->end});
    struct taking t = {places, hits};
    const struct replay_observer observer = {.ctx = &t, .space_ending = on_ending};
    replay_set_observer(r, &observer);
    struct err *e = replay_set_watch(r, ranges.items, ranges.count, WATCH_STORES, w->limit + 1, !w->forward);
    vec_deinit(&ranges);
    TRY(e);
    bool stopped = true;
    while (stopped) { // a consumer that is full stops the run: enough rows, unless they are all out of the window
        stopped = false;
        TRY(replay_run(r, until, UINT64_MAX, &stopped));
        if (stopped)
            break;
    }
    size_t count;
    const uint32_t *spaces = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++)
        TRY(take_rows(&t, r, spaces[i]));
    return NULL;
}

static struct err *run_segment(struct query_engine *q, size_t segment, const physical_list *places, const struct window *w,
                               struct moment end, struct buf *hits)
{
    struct lease lease;
    TRY(lend_replay(q, segment, w->forward ? w->from : (struct moment){0}, &lease));
    struct err *e = gather_rows(lease.replay, places, w, !w->forward && moment_cmp(w->from, end) < 0 ? w->from : end, hits);
    return_replay(q, &lease, !e);
    return e;
}

static struct err *search(struct query_engine *q, const physical_list *places, const struct window *w,
                          bool (*each)(void *ctx, const struct write_hit *h), void *ctx, bool *more_out)
{
    size_t segments, at = history_segment_at(q->history, w->from), left = w->limit;
    const struct history_segment *segment = history_segments(q->history, &segments);
    for (;;) {
        TRY(check_cancel(q));
        bool maybe = false;
        vec_each (p, places) {
            bool hit;
            TRY(history_written(q->history, at, p->space, p->object, p->start, p->end, &hit));
            maybe |= hit;
        }
        cleanup(buf_deinit) struct buf hits = {0};
        const struct segment *events;
        TRY(history_part(q->history, at, PART_EVENTS, &events));
        add_kernel_writes(q, events, places, &hits);
        if (maybe)
            TRY(run_segment(q, at, places, w, segment[at].end, &hits));
        size_t n = hits.len / sizeof(struct write_hit);
        struct write_hit *h = (void *)hits.data;
        if (n)
            qsort(h, n, sizeof(*h), compare_hits);
        for (size_t k = 0; k < n; k++) {
            struct write_hit *row = &h[w->forward ? k : n - 1 - k];
            if (w->forward ? moment_cmp(row->moment, w->from) < 0 : moment_cmp(row->moment, w->from) >= 0)
                continue;
            if (left-- == 0) {
                *more_out = true;
                return NULL;
            }
            if (!row->event)
                row->task = task_running_at(q, row->moment);
            if (!each(ctx, row))
                return NULL;
        }
        if (w->forward ? at + 1 >= segments : at == 0)
            return NULL;
        at = w->forward ? at + 1 : at - 1;
    }
}

struct err *find_writes(struct query_engine *q, uint32_t task, gaddr addr, uint64_t len, const struct window *w,
                        bool (*each)(void *ctx, const struct write_hit *h), void *ctx, bool *more_out)
{
    *more_out = false;
    physical_list places = {0};
    struct moment at = moment_cmp(w->from, end_of_recording(q)) > 0 ? end_of_recording(q) : w->from;
    struct err *e = resolve(q, at, task, addr, len, &places);
    if (!e)
        e = search(q, &places, w, each, ctx, more_out);
    vec_deinit(&places);
    return e;
}

static bool keep_hit(void *ctx, const struct write_hit *h)
{
    *(struct write_hit *)ctx = *h;
    return true;
}

struct err *last_write(struct query_engine *q, uint32_t space, uint32_t object, uint64_t start, uint64_t end, struct moment before,
                       struct write_hit *out, bool *found_out)
{
    physical_list places = {0};
    if (object)
        vec_push(&places, (struct physical){0, object, start, end, start, {0, 0}, {UINT64_MAX, UINT64_MAX}});
    else
        add_private(q, space, start, end - start, &places);
    const struct window w = {.from = before, .limit = 1};
    struct write_hit hit = {.size = UINT64_MAX};
    bool more;
    struct err *e = search(q, &places, &w, keep_hit, &hit, &more);
    vec_deinit(&places);
    TRY(e);
    *found_out = hit.size != UINT64_MAX;
    if (*found_out)
        *out = hit;
    return NULL;
}
