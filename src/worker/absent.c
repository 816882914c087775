#include "worker/absent.h"

#include "worker/engine.h"
#include "worker/wire.h"

enum { MAX_RANGES = 1 << 17, LARGE = 8 << 20, SMALL_CHUNK = 128 << 10 };

static struct addr_range *ranges; /* sorted, disjoint */
static size_t range_count;

void absent_init(void)
{
    ranges = engine_host_alloc(MAX_RANGES * sizeof(ranges[0]));
}

/* The first range that ends behind addr. */
static size_t first_behind(uint64_t addr)
{
    size_t low = 0, high = range_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranges[middle].end > addr)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Replaces ranges [first, last) by `count` others. */
static bool replace(size_t first, size_t last, const struct addr_range *with, size_t count)
{
    if (range_count - (last - first) + count > MAX_RANGES)
        return false;
    memmove(&ranges[first + count], &ranges[last], (range_count - last) * sizeof(ranges[0]));
    range_count = range_count - (last - first) + count;
    memcpy(&ranges[first], with, count * sizeof(ranges[0]));
    return true;
}

bool absent_add(uint64_t start, uint64_t end)
{
    struct addr_range all = {start, end};
    size_t first = first_behind(start ? start - 1 : 0), last = first; // one that ends where this begins joins it
    for (; last < range_count && ranges[last].start <= end; last++) {
        all.start = ranges[last].start < all.start ? ranges[last].start : all.start;
        all.end = ranges[last].end > all.end ? ranges[last].end : all.end;
    }
    return replace(first, last, &all, 1);
}

bool absent_drop(uint64_t start, uint64_t end)
{
    struct addr_range rest[2];
    size_t count = 0, first = first_behind(start), last = first;
    for (; last < range_count && ranges[last].start < end; last++) {
        if (ranges[last].start < start)
            rest[count++] = (struct addr_range){ranges[last].start, start};
        if (ranges[last].end > end)
            rest[count++] = (struct addr_range){end, ranges[last].end};
    }
    return first == last || replace(first, last, rest, count);
}

bool absent_next(uint64_t start, uint64_t end, struct addr_range *out)
{
    size_t i = first_behind(start);
    if (start >= end || i == range_count || ranges[i].start >= end)
        return false;
    out->start = ranges[i].start > start ? ranges[i].start : start;
    out->end = ranges[i].end < end ? ranges[i].end : end;
    return true;
}

bool absent_chunk(uint64_t addr, struct addr_range *out)
{
    size_t i = first_behind(addr);
    if (i == range_count || ranges[i].start > addr)
        return false;
    const struct addr_range *r = &ranges[i];
    // Of a large array a large page; it will be gone through.
    uint64_t len = r->end - r->start >= LARGE ? (uint64_t)WIRE_FETCH_LEN : (uint64_t)SMALL_CHUNK, start = addr & ~(len - 1);
    out->start = r->start > start ? r->start : start;
    out->end = r->end < start + len ? r->end : start + len;
    return true;
}
