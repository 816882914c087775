/* What a worker gathers in index mode: counts of blocks, written granules, stacks of calls.
 * Freestanding. */
#ifndef WORKER_GATHER_H
#define WORKER_GATHER_H

#include "worker/wire.h"

void gather_init(void);
/** Forgets counts and granules. */
void gather_reset(void);
/** As consume_take(), of STREAM_COUNTS and STREAM_PAGES. */
uint64_t gather_take(uint32_t stream, uint8_t *window, uint64_t len, uint64_t *left_out);
/** The same, of STREAM_STACK and STREAM_FLOORS, over all tasks: an array of WORKER_MAX_TASKS. */
uint64_t gather_take_stacks(uint32_t stream, struct engine_task *const *tasks, uint8_t *window,
                            uint64_t len, uint64_t *left_out);
/** Adds a struct stack_entry to a task's stack, if that is kept. */
void gather_push_call(struct engine_task *task, const uint8_t *entry);
/** Sets a task's stack to an array of struct stack_entry, outermost first. */
void gather_set_stack(struct engine_task *task, const uint8_t *entries, uint64_t len);

#endif
