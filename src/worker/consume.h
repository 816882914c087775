/* Log consumers: what a worker learns from runs of the log variants, gathered where they run.
 * Freestanding. */
#ifndef WORKER_CONSUME_H
#define WORKER_CONSUME_H

#include "worker/wire.h"

void consume_init(void);
void consume_select(const struct wire_command *c, const uint8_t *window);
void consume_clock(uint64_t stamp, uint64_t icount_base);
/** Moves rows of a stream into the window: bytes put there; *left_out: bytes that remain. */
uint64_t consume_take(uint32_t stream, uint8_t *window, uint64_t len, uint64_t *left_out);
/** To be called before a run of `slot` that begins `icount` instructions after the clock's base. */
void consume_begin(uint32_t slot, uint64_t icount);
/** To be called after a run. */
void consume_end(const struct engine_task *task);

#endif
