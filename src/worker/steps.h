/* Steps: a stretch run one instruction at a time within the worker, with the registers before each.
 * Freestanding. */
#ifndef WORKER_STEPS_H
#define WORKER_STEPS_H

#include "worker/wire.h"

void steps_init(void);
void steps_clock(uint64_t stamp, uint64_t icount_base);
void steps_select(const struct wire_command *c, const uint8_t *window);
/** Runs a task, in steps or pieces if any are asked for, else all at once (hooks_run). */
void steps_run(struct engine_task *task, uint32_t slot, const struct engine_request *q,
               struct engine_result *out);
/** In a copy of the process: rows are the other's. */
void steps_forked(void);
/** Moves rows (STREAM_STEPS) or memory (STREAM_STEP_MEMORY) into the window: bytes put there;
 * *left_out: bytes that remain. */
uint64_t steps_take(uint32_t stream, uint8_t *window, uint64_t len, uint64_t *left_out);

#endif
