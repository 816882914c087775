#include "worker/absent.h"

#include "worker/ranges.h"
#include "worker/wire.h"

enum { MAX_RANGES = 1 << 17, MAX_LARGE = 1 << 12, LARGE = 8 << 20, SMALL_CHUNK = 128 << 10 };

static struct ranges absent;
static struct ranges large; /* what large arrays were in, also where it is not absent any more */

void absent_init(void)
{
    ranges_init(&absent, MAX_RANGES);
    ranges_init(&large, MAX_LARGE);
}

bool absent_add(uint64_t start, uint64_t end)
{
    if (end - start >= LARGE)
        ranges_add(&large, start, end); // where there is no room chunks are small
    return ranges_add(&absent, start, end);
}

bool absent_drop(uint64_t start, uint64_t end)
{
    return ranges_drop(&absent, start, end);
}

bool absent_next(uint64_t start, uint64_t end, struct addr_range *out)
{
    return ranges_next(&absent, start, end, out);
}

bool absent_chunk(uint64_t addr, struct addr_range *out)
{
    const struct addr_range *r = ranges_at(&absent, addr);
    if (!r)
        return false;
    // Of a large array a large page; it will be gone through.
    uint64_t len = ranges_at(&large, addr) ? (uint64_t)WIRE_FETCH_LEN : (uint64_t)SMALL_CHUNK,
             start = addr & ~(len - 1);
    out->start = r->start > start ? r->start : start;
    out->end = r->end < start + len ? r->end : start + len;
    return true;
}
