#include "worker/absent.h"

#include "worker/ranges.h"
#include "worker/wire.h"

enum { MAX_RANGES = 1 << 17, LARGE = 8 << 20, SMALL_CHUNK = 128 << 10 };

static struct ranges absent;

void absent_init(void)
{
    ranges_init(&absent, MAX_RANGES);
}

bool absent_add(uint64_t start, uint64_t end)
{
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
    uint64_t len = r->end - r->start >= LARGE ? (uint64_t)WIRE_FETCH_LEN : (uint64_t)SMALL_CHUNK, start = addr & ~(len - 1);
    out->start = r->start > start ? r->start : start;
    out->end = r->end < start + len ? r->end : start + len;
    return true;
}
