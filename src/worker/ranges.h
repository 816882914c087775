/* Sets of addresses as sorted ranges. Freestanding. */
#ifndef WORKER_RANGES_H
#define WORKER_RANGES_H

#include "base/types.h"

#include <stddef.h>

/* Disjoint ranges, no two of which touch. */
struct ranges {
    struct addr_range *items;
    size_t count, cap;
};
/** Gives an empty set room for so many ranges. */
void ranges_init(struct ranges *r, size_t cap);
/** False: there is no room; nothing has changed. */
bool ranges_add(struct ranges *r, uint64_t start, uint64_t end);
bool ranges_drop(struct ranges *r, uint64_t start, uint64_t end);
/** The first range of the set in [start, end). */
bool ranges_next(const struct ranges *r, uint64_t start, uint64_t end, struct addr_range *out);
/** The range that has addr; NULL: none. */
const struct addr_range *ranges_at(const struct ranges *r, uint64_t addr);

#endif
