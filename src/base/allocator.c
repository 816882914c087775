#include "base/allocator.h"

#include <malloc.h>

void allocator_setup(void)
{
    mallopt(M_MMAP_THRESHOLD, 32 << 20); // the most that glibc takes (mallopt(3))
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    mallopt(M_TOP_PAD, 1 << 20);
}
