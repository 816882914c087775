#include "query/code_changes_int.h"

enum { LONGEST_BLOCK = 64 * 15, MOST_CHANGES = 100000 };

void code_changes_deinit(struct code_changes *c)
{
    vec_deinit(&c->writes);
    for (size_t i = 0; i < sizeof(c->kept) / sizeof(c->kept[0]); i++)
        vec_deinit(&c->kept[i].all);
}

/* --- segment by segment --- */

static int compare_writes(const void *a, const void *b)
{
    const struct code_write *x = a, *y = b;
    if (x->page != y->page)
        return x->page < y->page ? -1 : 1;
    return x->segment < y->segment ? -1 : x->segment > y->segment;
}

/* The first address at or behind `start` that lies in a block of the space; `end` if there is none
 * before it. */
static gaddr first_code(const struct history_block *blocks, const struct code_changes *c,
                        gaddr start, gaddr end)
{
    size_t low = c->first, high = c->first + c->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (blocks[middle].pc + LONGEST_BLOCK < start)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < c->first + c->count && blocks[low].pc < end; low++) {
        if (blocks[low].pc + blocks[low].byte_len > start)
            return blocks[low].pc > start ? blocks[low].pc : start;
    }
    return end;
}

static void add_write(struct code_changes *c, uint32_t segment, gaddr start, gaddr end)
{
    struct code_write *w = vec_add(&c->writes);
    *w = (struct code_write){.page = start & ~(gaddr)(PAGE_SIZE - 1), .segment = segment};
    for (gaddr g = (start - w->page) / 8; g < (end - w->page + 7) / 8; g++)
        w->granules[g / 64] |= 1ull << g % 64;
}

/* What is mapped anew is not among the written granules, but with the events. */
static void add_event_writes(const struct segment *s, uint32_t segment,
                             const struct history_block *blocks, struct code_changes *c)
{
    vec_each (w, &s->kernel_writes) {
        gaddr end = w->addr + w->len;
        for (gaddr at = w->addr;
             w->space == c->space && !w->object && (at = first_code(blocks, c, at, end)) < end;) {
            gaddr page_end = (at & ~(gaddr)(PAGE_SIZE - 1)) + PAGE_SIZE;
            gaddr start = page_end - PAGE_SIZE > w->addr ? page_end - PAGE_SIZE : w->addr;
            add_write(c, segment, start, page_end < end ? page_end : end);
            at = page_end;
        }
    }
}

struct err *code_changes_init(struct query_engine *q, uint32_t space, struct code_changes *out)
{
    size_t segments, count;
    const struct history_block *blocks = history_blocks(q->history, &count);
    out->space = space;
    while (out->first < count && blocks[out->first].space != space)
        out->first++;
    while (out->first + out->count < count && blocks[out->first + out->count].space == space)
        out->count++;
    history_segments(q->history, &segments);
    for (size_t i = 0; i < segments; i++) {
        const struct segment *s;
        TRY(history_part(q->history, i, PART_WRITTEN, &s));
        vec_each (w, &s->written) {
            // A shared object's pages may be code anywhere: who looks at code asks for them
            // (register_writes.c: is_shared).
            if (w->object || w->space != space ||
                first_code(blocks, out, w->page, w->page + PAGE_SIZE) == w->page + PAGE_SIZE)
                continue;
            struct code_write *c = vec_add(&out->writes);
            *c = (struct code_write){.page = w->page, .segment = (uint32_t)i};
            memcpy(c->granules, w->granules, sizeof(c->granules));
        }
        TRY(history_part(q->history, i, PART_EVENTS, &s));
        add_event_writes(s, (uint32_t)i, blocks, out);
    }
    if (out->writes.count)
        qsort(out->writes.items, out->writes.count, sizeof(out->writes.items[0]), compare_writes);
    return NULL;
}

static bool touches(const struct code_write *w, gaddr start, gaddr end)
{
    gaddr from = start > w->page ? start - w->page : 0,
          to = end - w->page < PAGE_SIZE ? end - w->page : PAGE_SIZE;
    for (gaddr g = from / 8; g < (to + 7) / 8; g++) {
        if (w->granules[g / 64] >> g % 64 & 1)
            return true;
    }
    return false;
}

void code_changed_around(const struct code_changes *c, gaddr start, gaddr end, uint32_t at,
                         uint32_t *after_out, uint32_t *until_out)
{
    *after_out = UINT32_MAX; // none: counts as -1
    *until_out = UINT32_MAX;
    for (gaddr page = start & ~(gaddr)(PAGE_SIZE - 1); page < end; page += PAGE_SIZE) {
        size_t low = 0, high = c->writes.count;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (c->writes.items[middle].page < page)
                low = middle + 1;
            else
                high = middle;
        }
        for (; low < c->writes.count && c->writes.items[low].page == page; low++) {
            const struct code_write *w = &c->writes.items[low];
            if (!touches(w, start, end))
                continue;
            if (w->segment <= at && (*after_out == UINT32_MAX || w->segment > *after_out))
                *after_out = w->segment;
            if (w->segment > at && w->segment < *until_out)
                *until_out = w->segment;
        }
    }
}

/* --- moment by moment --- */

/* Does [start, end) share a byte with a block that ran in the segment? Its blocks come by space and
 * pc. */
static bool ran_there(const struct segment *s, uint32_t space, gaddr start, gaddr end)
{
    size_t low = 0, high = s->blocks.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct db_block *b = &s->blocks.items[middle];
        if (b->space < space || (b->space == space && b->pc + LONGEST_BLOCK < start))
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < s->blocks.count && s->blocks.items[low].space == space &&
           s->blocks.items[low].pc < end;
         low++) {
        if (s->blocks.items[low].pc + s->blocks.items[low].byte_len > start)
            return true;
    }
    return false;
}

static int compare_changes(const void *a, const void *b)
{
    return moment_cmp(((const struct code_change *)a)->at, ((const struct code_change *)b)->at);
}

/* A buffered madvise(2) has its effect where it was called; the database has it with the event that
 * has the buffer. */
static void add_event_changes(const struct segment *events, const struct segment *blocks,
                              uint32_t space, struct segment_changes *out)
{
    vec_each (e, &events->events) {
        for (uint32_t i = 0; i < e->write_count; i++) {
            const struct db_kernel_write *w = &events->kernel_writes.items[e->write_idx + i];
            if (!w->object && w->space == space &&
                ran_there(blocks, space, w->addr, w->addr + w->len))
                vec_push(&out->all, (struct code_change){w->addr,
                                                         w->addr + w->len,
                                                         {e->number, 0},
                                                         e->kind == FRAME_SYSCALLBUF_FLUSH});
        }
    }
}

/* The pages of blocks that ran of which instructions may have written parts: what events did not
 * write. */
static void find_stored_pages(const struct code_changes *c, const struct segment *blocks,
                              const struct segment_changes *by_events, struct buf *out)
{
    vec_each (w, &c->writes) {
        struct code_write left = *w;
        if (w->segment != by_events->segment)
            continue;
        vec_each (e, &by_events->all) {
            gaddr start = e->start > w->page ? e->start - w->page : 0,
                  end = e->end > w->page ? e->end - w->page : 0;
            for (gaddr g = start / 8; g < 512 && g < (end + 7) / 8; g++)
                left.granules[g / 64] &= ~(1ull << g % 64);
        }
        bool stored = false;
        for (gaddr g = 0; g < 512 && !stored; g++)
            stored = (left.granules[g / 64] >> g % 64 & 1) &&
                     ran_there(blocks, c->space, w->page + 8 * g, w->page + 8 * g + 8);
        if (stored)
            buf_add(out,
                    &(struct watch_range){
                        .space = c->space, .start = w->page, .end = w->page + PAGE_SIZE},
                    sizeof(struct watch_range));
    }
}

/* Stores of a running segment. */
struct gathering {
    const struct segment *blocks;
    uint32_t space;
    struct segment_changes *out;
};

static struct err *take_stores(void *ctx, struct replay *r, uint32_t space)
{
    struct gathering *g = ctx;
    cleanup(buf_deinit) struct buf rows = {0};
    if (space != g->space || !replay_worker(r, space))
        return NULL;
    TRY(worker_take_rows(replay_worker(r, space), &rows, NULL, NULL));
    const struct access_row *row = (const void *)rows.data;
    for (size_t i = 0; i < rows.len / sizeof(*row); i++) {
        struct code_change c = {
            row[i].addr, row[i].addr + row[i].size, {row[i].stamp, row[i].icount + 1}, false};
        if (row[i].kind == STORE_SCATTER) // anywhere
            c.start = 0, c.end = UINT64_MAX;
        if (ran_there(g->blocks, g->space, c.start, c.end))
            vec_push(&g->out->all, c);
    }
    return NULL;
}

static struct err *gather_stores(struct replay *r, const struct watch_range *ranges, size_t count,
                                 struct moment until, struct gathering *g)
{
    enum { MOST_RANGES = 1000 };
    const struct replay_observer observer = {.ctx = g, .space_ending = take_stores};
    const struct consume_request consume = {.max_rows = MOST_CHANGES};
    struct watch_range some[MOST_RANGES];
    size_t n = 0;
    bool stopped;
    for (size_t i = 0; i < count; i++) {
        if (n && (some[n - 1].end == ranges[i].start || n == MOST_RANGES))
            some[n - 1].end = ranges[i].end;
        else
            some[n++] = ranges[i];
    }
    replay_set_observer(r, &observer);
    TRY(replay_set_watch(r, some, n, &consume));
    TRY(replay_run(r, until, UINT64_MAX, &stopped));
    g->out->known = !stopped;
    return take_stores(g, r, g->space);
}

/* What changed in a segment, to code that ran in it. run: it may be run for that; else it is not
 * known if instructions may have changed code. */
static struct err *changes_in(struct query_engine *q, struct code_changes *c, size_t segment,
                              bool run, const struct segment_changes **out)
{
    for (size_t i = 0; i < sizeof(c->kept) / sizeof(c->kept[0]); i++) {
        *out = &c->kept[i];
        if (c->kept[i].made && c->kept[i].segment == segment && !(run && c->kept[i].not_run))
            return NULL;
    }
    struct segment_changes *made =
        &c->kept[c->next_kept++ % (sizeof(c->kept) / sizeof(c->kept[0]))];
    const struct segment *blocks, *events;
    size_t count;
    *out = made;
    made->made = false;
    made->known = true;
    made->segment = (uint32_t)segment;
    made->all.count = 0;
    TRY(history_part(q->history, segment, PART_BLOCKS, &blocks));
    TRY(history_part(q->history, segment, PART_EVENTS, &events));
    add_event_changes(events, blocks, c->space, made);
    cleanup(buf_deinit) struct buf ranges = {0};
    find_stored_pages(c, blocks, made, &ranges);
    made->not_run = ranges.len && !run;
    if (made->not_run) {
        made->known = false;
    } else if (ranges.len) {
        const struct history_segment *s = &history_segments(q->history, &count)[segment];
        struct gathering g = {blocks, c->space, made};
        struct lease lease;
        TRY(lend_instead(q, segment, s->start, &lease));
        struct err *e = gather_stores(lease.replay, (const void *)ranges.data,
                                      ranges.len / sizeof(struct watch_range), s->end, &g);
        return_replay(q, &lease, !e);
        TRY(e);
    }
    if (made->all.count)
        qsort(made->all.items, made->all.count, sizeof(made->all.items[0]), compare_changes);
    made->made = true;
    return NULL;
}

struct err *code_same_since(struct query_engine *q, struct code_changes *c, size_t segment,
                            struct moment at, struct moment *since, bool *known_out)
{
    const struct segment_changes *changes;
    TRY(changes_in(q, c, segment, true, &changes));
    *known_out = changes->known;
    vec_each (change, &changes->all) {
        *known_out &= !change->early || at.event + 1 != change->at.event || !at.icount;
        if (moment_cmp(change->at, at) <= 0 && moment_cmp(change->at, *since) > 0)
            *since = change->at;
    }
    return NULL;
}

struct err *code_same_until(struct query_engine *q, struct code_changes *c, size_t segment,
                            struct moment at, struct moment *until, bool *known_out)
{
    const struct segment_changes *changes;
    TRY(changes_in(q, c, segment, false, &changes));
    *known_out = changes->known;
    vec_each (change, &changes->all) {
        // One that may be early is in the run before its event.
        struct moment first = change->early ? (struct moment){change->at.event - 1, 0} : change->at;
        *known_out &= !change->early || at.event + 1 != change->at.event;
        if (moment_cmp(first, at) > 0 && moment_cmp(first, *until) < 0)
            *until = first;
    }
    return NULL;
}
