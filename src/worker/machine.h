/* CPUID as the recording's CPU answers it. Freestanding. */
#ifndef WORKER_MACHINE_H
#define WORKER_MACHINE_H

#include "worker/worker.h"

/** The table, which is copied; at most WORKER_MAX_CPUID. None: CPUID ends a run, as at first. */
void machine_set_cpuid(const struct worker_cpuid *table, uint64_t count);
/** For machine_run(): instructions of this run are told as `stamp` and instructions since
 * `icount_base`. */
void machine_clock(uint64_t stamp, uint64_t icount_base);
/** Runs a task; CPUID on the way is answered and passed if the request wants that. An instruction
 * that is answered counts as one. */
void machine_run(struct engine_task *task, uint32_t slot, const struct engine_request *q,
                 struct engine_result *out);

#endif
