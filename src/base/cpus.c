#include "base/cpus.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>

unsigned usable_cpus(void)
{
    // The kernel refuses a set that is smaller than its own: on machines with more CPUs than
    // cpu_set_t has room for.
    for (int room = CPU_SETSIZE; room <= 1 << 20; room *= 2) {
        cpu_set_t *cpus = CPU_ALLOC((size_t)room);
        if (!cpus)
            return 1;
        size_t size = CPU_ALLOC_SIZE((size_t)room);
        int refused = sched_getaffinity(0, size, cpus) ? errno : 0,
            n = refused ? 0 : CPU_COUNT_S(size, cpus);
        CPU_FREE(cpus);
        if (refused != EINVAL)
            return n < 1 ? 1 : (unsigned)n;
    }
    return 1;
}
