#include "base/cpus.h"

#include "base/buf.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

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

void work_side_by_side(void *(*work)(void *item), void *items, size_t size, size_t count)
{
    pthread_t *threads = xnew_array(pthread_t, count + 1);
    size_t started = 1;
    while (started < count &&
           pthread_create(&threads[started], NULL, work, (char *)items + started * size) == 0)
        started++;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || i >= started)
            work((char *)items + i * size);
    }
    for (size_t i = 1; i < started; i++)
        pthread_join(threads[i], NULL);
    free(threads);
}
