/* How many CPUs there are to work on; work shared out to them. */
#ifndef BASE_CPUS_H
#define BASE_CPUS_H

#include <stddef.h>

/** CPUs this process may run on (sched_getaffinity(2): fewer than the machine has in a container or
 * under taskset), 1 at least. */
unsigned usable_cpus(void);

/** Does work(item) for each of `count` items of `size` bytes, the first in this thread, the others
 * in threads of their own, or in this one if there can be no more. Returns when all is done. */
void work_side_by_side(void *(*work)(void *item), void *items, size_t size, size_t count);

#endif
