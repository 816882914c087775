#include "base/allocator.h"

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

void allocator_setup(void)
{
    mallopt(M_MMAP_THRESHOLD, 32 << 20); // the most that glibc takes (mallopt(3))
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    mallopt(M_TOP_PAD, 1 << 20);
}

void *allocate_large(size_t len)
{
    const size_t large = 2 << 20;
    if (len < large)
        return malloc(len + 1);
    if (len > PTRDIFF_MAX - large)
        return NULL;
    size_t rounded = (len + large - 1) / large * large;
    void *p = aligned_alloc(large, rounded);
    if (!p)
        return malloc(len);
    madvise(p, rounded, MADV_HUGEPAGE);
    return p;
}
