#include "worker/ranges.h"

#include "worker/engine.h"
#include "worker/freestanding.h"

void ranges_init(struct ranges *r, size_t cap)
{
    *r = (struct ranges){engine_host_alloc(cap * sizeof(r->items[0])), 0, cap};
}

/* The first range that ends behind addr. */
static size_t first_behind(const struct ranges *r, uint64_t addr)
{
    size_t low = 0, high = r->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (r->items[middle].end > addr)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Replaces ranges [first, last) by `count` others. */
static bool replace(struct ranges *r, size_t first, size_t last, const struct addr_range *with,
                    size_t count)
{
    if (r->count - (last - first) + count > r->cap)
        return false;
    memmove(&r->items[first + count], &r->items[last], (r->count - last) * sizeof(r->items[0]));
    r->count = r->count - (last - first) + count;
    memcpy(&r->items[first], with, count * sizeof(r->items[0]));
    return true;
}

bool ranges_add(struct ranges *r, uint64_t start, uint64_t end)
{
    struct addr_range all = {start, end};
    size_t first = first_behind(r, start ? start - 1 : 0),
           last = first; // one that ends where this begins joins it
    for (; last < r->count && r->items[last].start <= end; last++) {
        all.start = r->items[last].start < all.start ? r->items[last].start : all.start;
        all.end = r->items[last].end > all.end ? r->items[last].end : all.end;
    }
    return replace(r, first, last, &all, 1);
}

bool ranges_drop(struct ranges *r, uint64_t start, uint64_t end)
{
    struct addr_range rest[2];
    size_t count = 0, first = first_behind(r, start), last = first;
    for (; last < r->count && r->items[last].start < end; last++) {
        if (r->items[last].start < start)
            rest[count++] = (struct addr_range){r->items[last].start, start};
        if (r->items[last].end > end)
            rest[count++] = (struct addr_range){end, r->items[last].end};
    }
    return first == last || replace(r, first, last, rest, count);
}

bool ranges_next(const struct ranges *r, uint64_t start, uint64_t end, struct addr_range *out)
{
    size_t i = first_behind(r, start);
    if (start >= end || i == r->count || r->items[i].start >= end)
        return false;
    out->start = r->items[i].start > start ? r->items[i].start : start;
    out->end = r->items[i].end < end ? r->items[i].end : end;
    return true;
}

const struct addr_range *ranges_at(const struct ranges *r, uint64_t addr)
{
    size_t i = first_behind(r, addr);
    return i < r->count && r->items[i].start <= addr ? &r->items[i] : NULL;
}
