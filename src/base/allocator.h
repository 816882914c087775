/* How malloc(3) gets its memory from the system. */
#ifndef BASE_ALLOCATOR_H
#define BASE_ALLOCATOR_H

/** For main(): large buffers come from the heap, which keeps what is freed (up to 64 MiB). By default each is mapped anew, and its pages
 * cost a fault each: a fifth of the time of some queries. */
void allocator_setup(void);

#endif
