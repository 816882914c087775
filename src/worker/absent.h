/* Memory whose contents are still with the coordinator. Its pages have no access; at the first
 * touch by the program or by the worker itself the contents of a chunk around are asked for
 * (worker_main.c). So a state costs what a run from it touches, not what the program has.
 *
 * A table of ranges, and how large a chunk is; who fetches and protects is the host. Freestanding.
 */
#ifndef WORKER_ABSENT_H
#define WORKER_ABSENT_H

#include "base/types.h"

void absent_init(void);
/** False: the table is full. Ranges of pages; what is in the table already stays. */
bool absent_add(uint64_t start, uint64_t end);
/** These pages have contents now, or none are wanted any more. False: the table is full. */
bool absent_drop(uint64_t start, uint64_t end);
/** The first absent range in [start, end). */
bool absent_next(uint64_t start, uint64_t end, struct addr_range *out);
/** What to fetch when `addr` is touched, at most WIRE_FETCH_LEN bytes; false: it is not absent. */
bool absent_chunk(uint64_t addr, struct addr_range *out);

#endif
