/* Contents of memory at a boundary, from the versions of pages that segments left.
 *
 * Where a page's contents come from is found by going through the segments backwards from the
 * boundary, for all pages of a space together. The address range falls into pieces; each piece
 * grows a chain of versions, newest first, until one says what the page is without an older one:
 *
 *   segment      4       5       6       7 | boundary
 *   page A     whole           words   words    chain: 7 words, 6 words, 4 whole; closed
 *   page B     words           (remapped)       closed without a version: the page is what a fresh mapping has
 *   page C             zero            words    chain: 7 words, 5 zero; closed
 *   page D             words                    5 words, and no older one: it changes what a fresh mapping has
 *
 * A space made by fork goes on with its parent's versions from before the segment of the fork: what
 * the parent changed in that segment before the fork is stored for the copy, too.
 *
 * A program that writes arrays has a hundred thousand runs of pages, of which a question wants few.
 * So this is done for the pages that are wanted now, and for all of a space only roughly: which
 * pages have contents in the database at all. That takes the catalog's `changed`, where
 * neighbouring pages are one run.
 *
 * Then pages are made in slices. The chunks that hold the slice's versions are decoded by several
 * threads, but for those that are still in the cache; what is in them is applied in the order of
 * segments. */
#include "db/history_int.h"
#include "db/page_coder.h"

#include "base/allocator.h"
#include "base/cpus.h"

#include <pthread.h>

enum { SLICE_PAGES = 4096, MAX_THREADS = 8 };

/* --- which versions --- */

static const uint32_t NO_LINK = UINT32_MAX;

/* A version of a run of pages. Many pieces can share the newer end of a chain. */
struct link {
    uint32_t newer; /* what is to be applied after this one; NO_LINK: nothing */
    uint32_t segment;
    uint64_t page; /* that `first` stands for */
    uint32_t first;
    uint8_t kind; /* enum run_kind */
};

struct piece {
    uint64_t start, end;
    uint32_t oldest; /* link; NO_LINK: as in a fresh mapping */
    bool open;       /* an older version is wanted */
};
typedef VEC(struct piece) piece_list;

typedef VEC(struct addr_range) range_list;

struct resolved {
    piece_list pieces; /* sorted, disjoint */
    VEC(struct link) links;
    range_list closed; /* what pieces that are not open cover; sorted, no two touch */
};

static void resolved_deinit(struct resolved *r)
{
    vec_deinit(&r->pieces);
    vec_deinit(&r->links);
    vec_deinit(&r->closed);
}

/* A range that a segment says something about. */
struct saying {
    uint64_t start, end;
    const struct db_page_run *run; /* NULL: it was mapped afresh */
};
typedef VEC(struct saying) saying_list;

/* What a saying makes of [start, end), which was in the open piece `had`, or in none. */
static struct piece apply_saying(struct resolved *r, const struct saying *s, uint32_t segment,
                                 uint64_t start, uint64_t end, const struct piece *had)
{
    struct piece p = {start, end, had ? had->oldest : NO_LINK, false};
    if (!s->run)
        return p;
    vec_push(&r->links,
             (struct link){p.oldest, segment, s->run->page, s->run->first, s->run->kind});
    p.oldest = (uint32_t)r->links.count - 1;
    p.open = s->run->kind == RUN_WORDS;
    return p;
}

static void find_closed(struct resolved *r)
{
    r->closed.count = 0;
    vec_each (p, &r->pieces) {
        struct addr_range *last = r->closed.count ? &r->closed.items[r->closed.count - 1] : NULL;
        if (p->open)
            continue;
        if (last && last->end == p->start)
            last->end = p->end;
        else
            vec_push(&r->closed, (struct addr_range){p->start, p->end});
    }
}

/* What an older segment says of [start, end) matters only if some of it is not closed: of arrays
 * that are written again and again most of it does not. */
static bool matters(const struct resolved *r, uint64_t start, uint64_t end)
{
    size_t low = 0, high = r->closed.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (r->closed.items[middle].end > start)
            high = middle;
        else
            low = middle + 1;
    }
    return low == r->closed.count || r->closed.items[low].start > start ||
           r->closed.items[low].end < end;
}

/* The first piece that ends behind addr. */
static size_t first_piece(const struct resolved *r, uint64_t addr)
{
    size_t low = 0, high = r->pieces.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (r->pieces.items[middle].end > addr)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Puts `with` in the place of the pieces [first, end). */
static void replace_pieces(piece_list *p, size_t first, size_t end, const piece_list *with)
{
    vec_reserve(p, with->count);
    if (p->count > end)
        memmove(p->items + first + with->count, p->items + end,
                (p->count - end) * sizeof(p->items[0]));
    if (with->count)
        memcpy(p->items + first, with->items, with->count * sizeof(p->items[0]));
    p->count = p->count - (end - first) + with->count;
}

/* Lays sorted sayings of an older segment under the pieces: they matter where there is no piece or
 * an open one. */
static void add_sayings(struct resolved *r, const saying_list *sayings, uint32_t segment)
{
    piece_list out = {0};
    if (!sayings->count)
        return;
    size_t first = first_piece(r, sayings->items[0].start), i = first;
    struct piece rest = i < r->pieces.count
                            ? r->pieces.items[i]
                            : (struct piece){UINT64_MAX, UINT64_MAX, NO_LINK, false};
#define NEXT_PIECE()                                   \
    (rest = ++i < r->pieces.count ? r->pieces.items[i] \
                                  : (struct piece){UINT64_MAX, UINT64_MAX, NO_LINK, false})
    vec_each (s, sayings) {
        uint64_t at = s->start;
        while (at < s->end) {
            if (rest.end <= at) {
                vec_push(&out, rest);
                NEXT_PIECE();
                continue;
            }
            if (rest.start >= s->end) {
                vec_push(&out, apply_saying(r, s, segment, at, s->end, NULL));
                break;
            }
            if (rest.start > at) {
                vec_push(&out, apply_saying(r, s, segment, at, rest.start, NULL));
                at = rest.start;
            }
            if (rest.start < at) {
                struct piece before = rest;
                before.end = at;
                vec_push(&out, before);
                rest.start = at;
            }
            struct piece both = rest;
            if (s->end < both.end)
                both.end = s->end;
            vec_push(&out,
                     both.open ? apply_saying(r, s, segment, both.start, both.end, &both) : both);
            at = both.end;
            if (rest.end > at)
                rest.start = at;
            else
                NEXT_PIECE();
        }
    }
#undef NEXT_PIECE
    if (i < r->pieces.count)
        r->pieces.items[i] = rest; // of which a part may be done
    replace_pieces(&r->pieces, first, i, &out);
    vec_deinit(&out);
    find_closed(r);
}

/* What is to be resolved. */
struct inquiry {
    const struct catalog *catalog;
    uint32_t space, object;
    struct addr_range range;
    bool rough; /* all versions count as zeros */
};

static uint64_t end_of_run(const struct db_page_run *r)
{
    return r->page + (uint64_t)r->count * PAGE_SIZE;
}

/* A segment's runs from the first one on that ends in the inquiry's range or behind it, or belongs
 * to a later space or object. */
static const struct db_page_run *first_run(const struct inquiry *q, size_t segment,
                                           const struct db_page_run **end_out)
{
    const struct catalog_place *at = &q->catalog->places.items[segment];
    const struct db_page_run *runs =
        q->rough ? q->catalog->changed.items : q->catalog->page_runs.items;
    size_t low = q->rough ? at[0].changed : at[0].runs,
           high = q->rough ? at[1].changed : at[1].runs;
    *end_out = runs + high;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct db_page_run *r = &runs[middle];
        if (r->object != q->object ? r->object < q->object
            : r->space != q->space ? r->space < q->space
                                   : end_of_run(r) <= q->range.start)
            low = middle + 1;
        else
            high = middle;
    }
    return runs + low;
}

static size_t first_remap(const struct catalog *c, size_t segment, uint32_t space)
{
    size_t low = c->places.items[segment].remaps, high = c->places.items[segment + 1].remaps;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c->remaps.items[middle].space < space)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Adds what is said of [start, end), as far as it is asked about and matters. */
static void add_saying(saying_list *out, const struct resolved *r, const struct inquiry *q,
                       uint64_t start, uint64_t end, const struct db_page_run *run)
{
    if (start < q->range.start)
        start = q->range.start;
    if (end > q->range.end)
        end = q->range.end;
    if (start < end && matters(r, start, end))
        vec_push(out, (struct saying){start, end, run});
}

static void go_back_over(struct resolved *r, const struct inquiry *q, size_t segment)
{
    const struct catalog *c = q->catalog;
    saying_list sayings = {0};
    const struct db_page_run *end;
    for (const struct db_page_run *run = first_run(q, segment, &end); run < end; run++) {
        if (run->space != q->space || run->object != q->object || run->page >= q->range.end)
            break;
        add_saying(&sayings, r, q, run->page, end_of_run(run), run);
    }
    add_sayings(r, &sayings, (uint32_t)segment);
    // Pages of the segment hold what they do at its end, after any mapping in it.
    sayings.count = 0;
    for (size_t i = first_remap(c, segment, q->space);
         !q->object && i < c->places.items[segment + 1].remaps; i++) {
        const struct db_remap *m = &c->remaps.items[i];
        if (m->space != q->space || m->start >= q->range.end)
            break;
        add_saying(&sayings, r, q, m->start, m->end, NULL);
    }
    add_sayings(r, &sayings, (uint32_t)segment);
    vec_deinit(&sayings);
}

static const struct db_space *find_space(const struct catalog *c, uint32_t space, size_t *segment)
{
    for (size_t i = 0; i < c->spaces.count; i++) {
        if (c->spaces.items[i].space == space) {
            *segment = c->space_segments.items[i];
            return &c->spaces.items[i];
        }
    }
    return NULL;
}

/* before: the segment at whose start the contents are wanted. */
static void resolve(struct resolved *r, struct inquiry q, size_t before)
{
    for (unsigned generation = 0; generation < 1u << 16; generation++) {
        size_t began = 0;
        const struct db_space *s = q.object ? NULL : find_space(q.catalog, q.space, &began);
        while (before > began && matters(r, q.range.start, q.range.end))
            go_back_over(r, &q, --before);
        if (!s || !s->parent || !matters(r, q.range.start, q.range.end))
            return;
        q.space = s->parent;
        if (began < before)
            before = began;
    }
}

/* --- their contents --- */

/* A version of one page of a slice. */
struct wanted {
    uint32_t segment, chunk, idx; /* idx: in the chunk */
    uint32_t slot;                /* page of the slice */
    bool words;
};

static int compare_wanted(const void *a, const void *b)
{
    const struct wanted *x = a, *y = b;
    if (x->segment != y->segment)
        return x->segment < y->segment ? -1 : 1;
    if (x->chunk != y->chunk)
        return x->chunk < y->chunk ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* Pages in the making. */
struct slice {
    const struct history *history;
    uint8_t *pages; /* room for `most` of them */
    size_t most;
    VEC(uint64_t) addrs; /* of each page */
    VEC(struct wanted) wanted;
    VEC(size_t) jobs; /* where a chunk's begin in `wanted`, and the end */
    /* Guarded by lock: */
    pthread_mutex_t lock;
    pthread_cond_t turn_changed;
    size_t next_job, turn; /* the job to take, the job whose chunk is to be applied */
    struct err *failed;
};

static struct err *bad_page(const struct history *h, const struct wanted *w)
{
    cleanup(chunk_file_closep) struct chunk_file *f = NULL;
    TRY(history_open_segment(h, w->segment, &f));
    return chunk_file_bad(f, CHUNK_PAGE_DATA, w->chunk, 0);
}

void page_chunk_drop(void *chunk)
{
    page_chunk_deinit(chunk);
    free(chunk);
}

static uint64_t number_of(const struct wanted *w)
{
    return (uint64_t)w->segment << 32 | w->chunk;
}

/* packed: room that is used again and again. */
static struct err *load_chunk(const struct history *h, const struct wanted *w, struct buf *packed,
                              struct page_chunk *chunk)
{
    struct chunk_file *f;
    TRY(history_segment_file(h, w->segment, &f));
    packed->len = 0;
    struct err *e = chunk_file_read(f, CHUNK_PAGE_DATA, w->chunk, packed);
    history_return_file(h, f);
    TRY(e);
    return page_chunk_decode(packed->data, packed->len, chunk) ? NULL : bad_page(h, w);
}

/* *out is to be returned; NULL after an error. */
static struct err *get_chunk(const struct history *h, const struct wanted *w, struct buf *packed,
                             struct page_chunk **out)
{
    *out = shared_find(h->chunks, number_of(w));
    if (*out)
        return NULL;
    struct page_chunk *chunk = xnew(struct page_chunk);
    struct err *e = load_chunk(h, w, packed, chunk);
    if (e) {
        page_chunk_drop(chunk);
        return e;
    }
    shared_add(h->chunks, number_of(w), chunk,
               sizeof(*chunk) + chunk->words.cap + chunk->whole.cap);
    *out = chunk;
    return NULL;
}

static struct err *apply_chunk(struct slice *s, size_t job, const struct page_chunk *chunk)
{
    for (size_t i = s->jobs.items[job]; i < s->jobs.items[job + 1]; i++) {
        const struct wanted *w = &s->wanted.items[i];
        if (w->idx >= chunk->count || w->words != chunk->is_words[w->idx])
            return bad_page(s->history, w);
        page_chunk_apply(chunk, w->idx, s->pages + (size_t)w->slot * PAGE_SIZE);
    }
    return NULL;
}

static size_t take_job(struct slice *s)
{
    pthread_mutex_lock(&s->lock);
    size_t job = s->failed ? SIZE_MAX : s->next_job++;
    pthread_mutex_unlock(&s->lock);
    return job;
}

static void *work(void *ctx)
{
    struct slice *s = ctx;
    cleanup(buf_deinit) struct buf packed = {0};
    for (size_t job; (job = take_job(s)) < s->jobs.count - 1;) {
        struct page_chunk *chunk;
        struct err *e =
            get_chunk(s->history, &s->wanted.items[s->jobs.items[job]], &packed, &chunk);
        pthread_mutex_lock(&s->lock);
        while (s->turn != job)
            pthread_cond_wait(&s->turn_changed, &s->lock);
        if (!e && !s->failed)
            e = apply_chunk(s, job, chunk);
        if (e && !s->failed)
            s->failed = e;
        else
            err_free(e);
        s->turn++;
        pthread_cond_broadcast(&s->turn_changed);
        pthread_mutex_unlock(&s->lock);
        shared_return(s->history->chunks, chunk);
    }
    return NULL;
}

static void sort_wanted(struct slice *s)
{
    if (s->wanted.count)
        qsort(s->wanted.items, s->wanted.count, sizeof(s->wanted.items[0]), compare_wanted);
    s->jobs.count = 0;
    for (size_t i = 0; i < s->wanted.count; i++) {
        const struct wanted *w = &s->wanted.items[i];
        if (i == 0 || w->segment != w[-1].segment || w->chunk != w[-1].chunk)
            vec_push(&s->jobs, i);
    }
    vec_push(&s->jobs, s->wanted.count);
}

static struct err *decode_slice(struct slice *s)
{
    sort_wanted(s);
    s->next_job = s->turn = 0;
    size_t to_decode = 0, threads = usable_cpus(), started = 0;
    for (size_t job = 0; job + 1 < s->jobs.count; job++)
        to_decode +=
            !shared_has(s->history->chunks, number_of(&s->wanted.items[s->jobs.items[job]]));
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    if (threads > to_decode / 4)
        threads = to_decode / 4; // a thread has to be worth its while
    pthread_t ids[MAX_THREADS];
    while (started + 1 < threads && pthread_create(&ids[started], NULL, work, s) == 0)
        started++;
    work(s);
    for (size_t i = 0; i < started; i++)
        pthread_join(ids[i], NULL);
    return steal(s->failed);
}

static struct err *put_slice(struct slice *s, const struct page_sink *sink)
{
    for (size_t i = 0; i < s->addrs.count;) {
        size_t n = 1;
        while (i + n < s->addrs.count && s->addrs.items[i + n] == s->addrs.items[i] + n * PAGE_SIZE)
            n++;
        TRY(sink->put(sink->ctx, s->addrs.items[i], s->pages + i * PAGE_SIZE, n));
        i += n;
    }
    return NULL;
}

static struct err *finish_slice(struct slice *s, const struct page_sink *sink)
{
    if (!s->addrs.count)
        return NULL;
    TRY(decode_slice(s));
    TRY(put_slice(s, sink));
    s->addrs.count = s->wanted.count = 0;
    return NULL;
}

/* Takes a page into the slice: its beginning now, its versions later. */
static struct err *add_page(struct slice *s, const struct resolved *r, const struct piece *p,
                            uint64_t addr, const struct page_sink *sink)
{
    uint32_t slot = (uint32_t)s->addrs.count;
    uint8_t *page = s->pages + (size_t)slot * PAGE_SIZE;
    if (r->links.items[p->oldest].kind == RUN_WORDS && sink->fresh)
        TRY(sink->fresh(sink->ctx, addr, page));
    else if (r->links.items[p->oldest].kind != RUN_WHOLE)
        memset(page, 0, PAGE_SIZE);
    vec_push(&s->addrs, addr);
    for (uint32_t at = p->oldest; at != NO_LINK; at = r->links.items[at].newer) {
        const struct link *l = &r->links.items[at];
        uint32_t idx = l->first + (uint32_t)((addr - l->page) / PAGE_SIZE);
        if (l->kind != RUN_ZERO)
            vec_push(&s->wanted,
                     (struct wanted){l->segment, idx / PAGES_PER_CHUNK, idx % PAGES_PER_CHUNK, slot,
                                     l->kind == RUN_WORDS});
    }
    return NULL;
}

static struct err *add_pages(struct slice *s, const struct resolved *r, const struct piece *p,
                             uint64_t start, uint64_t end, const struct page_sink *sink)
{
    for (uint64_t addr = start; addr < end; addr += PAGE_SIZE) {
        if (s->addrs.count == s->most)
            TRY(finish_slice(s, sink));
        TRY(add_page(s, r, p, addr, sink));
    }
    return NULL;
}

/* The part of piece i that is in [start, end) and has contents; false: nothing is. */
static bool piece_part(const struct resolved *r, size_t i, uint64_t start, uint64_t end,
                       struct addr_range *out)
{
    const struct piece *p = &r->pieces.items[i];
    *out = (struct addr_range){p->start > start ? p->start : start, p->end < end ? p->end : end};
    return p->oldest != NO_LINK && out->start < out->end;
}

/* Takes the pages in [start, end), all of which are resolved, into the slice. */
static struct err *make_pages(struct slice *s, const struct resolved *r, uint64_t start,
                              uint64_t end, const struct page_sink *sink)
{
    struct addr_range part;
    for (size_t i = first_piece(r, start); i < r->pieces.count && r->pieces.items[i].start < end;
         i++) {
        if (!piece_part(r, i, start, end, &part))
            continue;
        while (part.start < part.end) {
            uint64_t until = part.end;
            bool whole = r->links.items[r->pieces.items[i].oldest].kind != RUN_WORDS;
            if (!sink->later || !sink->later(sink->ctx, part.start, &until, whole))
                TRY(add_pages(s, r, &r->pieces.items[i], part.start, until, sink));
            part.start = until;
        }
    }
    return NULL;
}

/* Room for the pages of a slice, as chunks of memory are wanted all the time: memory that was used
 * before is there already. */
enum { KEPT_PAGES = 512 /* 2 MiB */, MOST_KEPT = 4 };
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the rest */
static uint8_t *kept[MOST_KEPT];
static size_t kept_count;

/* NULL: there is no memory. */
static uint8_t *take_room(size_t pages)
{
    if (pages > KEPT_PAGES)
        return allocate_large(pages * PAGE_SIZE);
    pthread_mutex_lock(&kept_lock);
    uint8_t *room = kept_count ? kept[--kept_count] : NULL;
    pthread_mutex_unlock(&kept_lock);
    return room ? room : allocate_large(KEPT_PAGES * PAGE_SIZE);
}

static void return_room(uint8_t *room, size_t pages)
{
    pthread_mutex_lock(&kept_lock);
    bool keep = pages <= KEPT_PAGES && kept_count < MOST_KEPT;
    if (keep)
        kept[kept_count++] = room;
    pthread_mutex_unlock(&kept_lock);
    if (!keep)
        free(room);
}

static struct err *begin_slice(struct slice *s, const struct history *h, size_t most)
{
    if (most > SLICE_PAGES)
        most = SLICE_PAGES;
    *s = (struct slice){.history = h,
                        .most = most,
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .turn_changed = PTHREAD_COND_INITIALIZER};
    s->pages = take_room(most);
    return s->pages ? NULL : err_new(ERR_LIMIT, "no memory for pages");
}

static void end_slice(struct slice *s)
{
    return_room(s->pages, s->most);
    vec_deinit(&s->addrs);
    vec_deinit(&s->wanted);
    vec_deinit(&s->jobs);
}

struct page_map {
    const struct history *history;
    size_t segment;
    uint32_t space, object;
};

static void resolve_range(struct resolved *r, const struct page_map *m, struct addr_range range,
                          bool rough)
{
    resolve(r, (struct inquiry){&m->history->catalog, m->space, m->object, range, rough},
            m->segment);
}

/* Appends [start, end), or lengthens the last range by it. */
static void append_range(range_list *l, uint64_t start, uint64_t end)
{
    if (start >= end)
        return;
    if (l->count && l->items[l->count - 1].end == start)
        l->items[l->count - 1].end = end;
    else
        vec_push(l, (struct addr_range){start, end});
}

/* Appends the parts of a range that have contents to `full`, the others to `bare` (may be NULL). */
static void split_range(const struct resolved *rough, struct addr_range range, range_list *full,
                        range_list *bare)
{
    uint64_t at = range.start;
    struct addr_range part;
    for (size_t i = first_piece(rough, range.start);
         i < rough->pieces.count && rough->pieces.items[i].start < range.end; i++) {
        if (!piece_part(rough, i, range.start, range.end, &part))
            continue;
        if (bare)
            append_range(bare, at, part.start);
        append_range(full, part.start, part.end);
        at = part.end;
    }
    if (bare)
        append_range(bare, at, range.end);
}

/* Takes out of the ranges what can be left for later. */
static void leave_for_later(range_list *ranges, const struct page_sink *sink)
{
    range_list now = {0};
    vec_each (r, ranges) {
        for (uint64_t start = r->start, until; start < r->end; start = until) {
            until = r->end;
            if (!sink->later || !sink->later(sink->ctx, start, &until, false))
                append_range(&now, start, until);
        }
    }
    vec_deinit(ranges);
    ranges->items = now.items;
    ranges->count = now.count;
    ranges->cap = now.cap;
}

/* Resets what has nothing but a fresh mapping's contents to begin with. */
static struct err *reset_bare(const struct resolved *r, struct addr_range range,
                              const struct page_sink *sink)
{
    uint64_t at = range.start;
    vec_each (p, &r->pieces) {
        if (p->oldest == NO_LINK || r->links.items[p->oldest].kind == RUN_WORDS)
            continue;
        if (at < p->start)
            TRY(sink->reset(sink->ctx, at, p->start));
        at = p->end;
    }
    return at < range.end ? sink->reset(sink->ctx, at, range.end) : NULL;
}

static size_t count_pages(const range_list *ranges)
{
    uint64_t count = 0;
    vec_each (r, ranges)
        count += (r->end - r->start) / PAGE_SIZE;
    return count < SLICE_PAGES ? (size_t)count : SLICE_PAGES;
}

/* The contents of all that is in the ranges. resets: of what has them not yet. */
static struct err *deliver(const struct page_map *m, const range_list *ranges,
                           const struct page_sink *sink, bool resets)
{
    struct slice s;
    if (!ranges->count)
        return NULL;
    TRY(begin_slice(&s, m->history, count_pages(ranges)));
    struct err *e = NULL;
    for (size_t i = 0; i < ranges->count && !e; i++) {
        cleanup(resolved_deinit) struct resolved r = {0};
        resolve_range(&r, m, ranges->items[i], false);
        if (resets)
            e = reset_bare(&r, ranges->items[i], sink);
        if (!e)
            e = make_pages(&s, &r, ranges->items[i].start, ranges->items[i].end, sink);
    }
    if (!e)
        e = finish_slice(&s, sink);
    end_slice(&s);
    return e;
}

struct err *history_pages(struct history *h, size_t segment, uint32_t space, uint32_t object,
                          const struct page_sink *sink)
{
    const struct page_map m = {h, segment, space, object};
    return page_map_read(&m, 0, UINT64_MAX, sink);
}

void history_page_map(struct history *h, size_t segment, uint32_t space, uint32_t object,
                      struct page_map **out)
{
    struct page_map *m = xnew(struct page_map);
    *m = (struct page_map){h, segment, space, object};
    *out = m;
}

void page_map_destroy(struct page_map *m)
{
    free(m);
}

struct err *page_map_read(const struct page_map *m, uint64_t start, uint64_t end,
                          const struct page_sink *sink)
{
    cleanup(resolved_deinit) struct resolved rough = {0};
    range_list ranges = {0};
    if (!sink->later && (end - start) / PAGE_SIZE <= KEPT_PAGES) {
        append_range(&ranges, start, end);
    } else {
        resolve_range(&rough, m, (struct addr_range){start, end}, true);
        split_range(&rough, (struct addr_range){start, end}, &ranges, NULL);
        leave_for_later(&ranges, sink);
    }
    struct err *e = deliver(m, &ranges, sink, false);
    vec_deinit(&ranges);
    return e;
}

/* The first of the chunks with versions of pages in [start, end) that is not at hand. */
static bool find_missing(const struct history *h, const struct resolved *r, uint64_t start,
                         uint64_t end, struct wanted *out)
{
    struct addr_range part;
    for (size_t i = first_piece(r, start); i < r->pieces.count && r->pieces.items[i].start < end;
         i++) {
        if (!piece_part(r, i, start, end, &part))
            continue;
        for (uint32_t at = r->pieces.items[i].oldest; at != NO_LINK;
             at = r->links.items[at].newer) {
            const struct link *l = &r->links.items[at];
            uint32_t first = l->first + (uint32_t)((part.start - l->page) / PAGE_SIZE);
            uint32_t last = first + (uint32_t)((part.end - part.start) / PAGE_SIZE) - 1;
            for (uint32_t chunk = first / PAGES_PER_CHUNK;
                 l->kind != RUN_ZERO && chunk <= last / PAGES_PER_CHUNK; chunk++) {
                *out = (struct wanted){.segment = l->segment, .chunk = chunk};
                if (!shared_has(h->chunks, number_of(out)))
                    return true;
            }
        }
    }
    return false;
}

bool page_map_work_ahead(const struct page_map *m, uint64_t start, uint64_t end)
{
    cleanup(resolved_deinit) struct resolved r = {0};
    cleanup(buf_deinit) struct buf packed = {0};
    struct wanted missing;
    struct page_chunk *chunk;
    resolve_range(&r, m, (struct addr_range){start, end}, false);
    if (!find_missing(m->history, &r, start, end, &missing))
        return false;
    struct err *e = get_chunk(m->history, &missing, &packed, &chunk);
    bool done = !e;
    err_free(e); // who wants it will be told
    shared_return(m->history->chunks, chunk);
    return done;
}

/* --- what differs --- */

static int by_start(const void *a, const void *b)
{
    const struct addr_range *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* Sorts, and joins what overlaps or touches. */
static void join_ranges(range_list *l)
{
    size_t n = 0;
    if (l->count)
        qsort(l->items, l->count, sizeof(l->items[0]), by_start);
    vec_each (r, l) {
        if (n && r->start <= l->items[n - 1].end) {
            if (r->end > l->items[n - 1].end)
                l->items[n - 1].end = r->end;
        } else {
            l->items[n++] = *r;
        }
    }
    l->count = n;
}

/* What a segment changes of a space's memory. */
static void add_changes(range_list *out, const struct catalog *c, size_t segment, uint32_t space)
{
    const struct inquiry all = {c, space, 0, {0, UINT64_MAX}, true};
    const struct db_page_run *end;
    for (const struct db_page_run *run = first_run(&all, segment, &end);
         run < end && run->space == space && !run->object; run++)
        vec_push(out, (struct addr_range){run->page, end_of_run(run)});
    for (size_t i = first_remap(c, segment, space);
         i < c->places.items[segment + 1].remaps && c->remaps.items[i].space == space; i++)
        vec_push(out, (struct addr_range){c->remaps.items[i].start, c->remaps.items[i].end});
}

struct err *history_page_changes(struct history *h, size_t from, size_t to, uint32_t space,
                                 const struct addr_range *also, size_t also_count,
                                 const struct page_sink *sink)
{
    const struct page_map m = {h, to, space, 0};
    cleanup(resolved_deinit) struct resolved rough = {0};
    range_list changed = {0}, full = {0}, bare = {0};
    for (size_t i = 0; i < also_count; i++)
        vec_push(&changed, also[i]);
    for (size_t segment = from < to ? from : to; segment < (from < to ? to : from); segment++)
        add_changes(&changed, &h->catalog, segment, space);
    join_ranges(&changed);
    resolve_range(&rough, &m, (struct addr_range){0, UINT64_MAX}, true);
    vec_each (c, &changed)
        split_range(&rough, *c, &full, &bare);
    struct err *e = NULL;
    vec_each (b, &bare) {
        if (!e)
            e = sink->reset(sink->ctx, b->start, b->end);
    }
    leave_for_later(&full, sink);
    if (!e)
        e = deliver(&m, &full, sink, true);
    vec_deinit(&changed);
    vec_deinit(&full);
    vec_deinit(&bare);
    return e;
}
