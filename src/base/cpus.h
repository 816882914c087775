/* How many CPUs there are to work on. */
#ifndef BASE_CPUS_H
#define BASE_CPUS_H

/** CPUs this process may run on (sched_getaffinity(2): fewer than the machine has in a container or
 * under taskset), 1 at least. */
unsigned usable_cpus(void);

#endif
