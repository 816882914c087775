/* How malloc(3) gets its memory from the system. */
#ifndef BASE_ALLOCATOR_H
#define BASE_ALLOCATOR_H

#include "base/err.h"

#include <stddef.h>

/** For main(): large buffers come from the heap, which keeps what is freed (up to 64 MiB). By
 * default each is mapped anew, and its pages cost a fault each: a fifth of the time of some
 * queries. */
void allocator_setup(void);
/** Memory for free(3), not cleared, in large pages where there can be some: faults for each small
 * one may cost more than what is done with it. NULL: there is none. */
void *allocate_large(size_t len) nodiscard;

#endif
