/* In which segments memory may have been written. The database has a list of granules for each
 * segment, which takes a file to open and a table to unpack, and a search may go through all
 * segments again and again, most of which have nothing. So of each list that was read a filter
 * stays: a bit for each hash of a page that is on it. */
#include "query/query_int.h"

enum {
    LEAST_BITS = 512,
    MOST_BITS = 1 << 19,
    MOST_PAGES = 64 /* of a range that is looked up by filter */
};
#define MOST_BYTES (32ull << 20) /* of all filters */

struct written_filters {
    size_t count; /* segments */
    uint64_t bytes;
    struct written_filter {
        uint64_t *bits; /* NULL: none yet */
        uint64_t mask;
    } * of;
};

void written_filters_free(struct written_filters *f)
{
    for (size_t i = 0; f && i < f->count; i++)
        free(f->of[i].bits);
    if (f)
        free(f->of);
    free(f);
}

static uint64_t hash(uint32_t space, uint32_t object, uint64_t page)
{
    uint64_t h = (page / PAGE_SIZE + ((uint64_t)space << 40) + ((uint64_t)object << 52)) *
                 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

/* Makes the filter of a segment, if there is room for it. */
static struct err *make_filter(struct query_engine *q, size_t segment)
{
    struct written_filters *all = q->written_filters;
    struct written_filter *f = &all->of[segment];
    const struct segment *s;
    TRY(history_part(q->history, segment, PART_WRITTEN, &s));
    uint64_t bits = LEAST_BITS;
    while (bits < 8 * s->written.count && bits < MOST_BITS)
        bits *= 2;
    if (all->bytes + bits / 8 > MOST_BYTES)
        return NULL;
    all->bytes += bits / 8;
    f->mask = bits - 1;
    f->bits = xnew_array(uint64_t, bits / 64);
    vec_each (w, &s->written) {
        uint64_t h = hash(w->space, w->object, w->page) & f->mask;
        f->bits[h / 64] |= 1ull << h % 64;
    }
    return NULL;
}

struct err *may_be_written(struct query_engine *q, size_t segment, uint32_t space, uint32_t object,
                           uint64_t start, uint64_t end, bool *out)
{
    size_t count;
    history_segments(q->history, &count);
    if (!q->written_filters) {
        q->written_filters = xnew(struct written_filters);
        q->written_filters->count = count;
        q->written_filters->of = xnew_array(struct written_filter, count);
    }
    struct written_filter *f = &q->written_filters->of[segment];
    if (!f->bits)
        TRY(make_filter(q, segment));
    uint64_t first = start & ~(uint64_t)(PAGE_SIZE - 1);
    bool possible = !f->bits || (end - first) / PAGE_SIZE >= MOST_PAGES;
    for (uint64_t page = first; page < end && !possible; page += PAGE_SIZE) {
        uint64_t h = hash(space, object, page) & f->mask;
        possible = f->bits[h / 64] >> h % 64 & 1;
    }
    *out = false;
    return possible ? history_written(q->history, segment, space, object, start, end, out) : NULL;
}
