/* Hooks: captures at code addresses while a guest runs (worker.h). Freestanding. */
#ifndef WORKER_HOOKS_H
#define WORKER_HOOKS_H

#include "worker/wire.h"

void hooks_init(void);
void hooks_clock(uint64_t stamp, uint64_t icount_base);
/** False: the command makes no sense; there are no hooks then. */
bool hooks_select(const struct wire_command *c, const uint8_t *window);
/** rax NULL: whatever RAX is. */
void hooks_set_breaks(const uint64_t *pcs, uint64_t count, const uint64_t *rax);
/** Runs a task; hooks on the way are recorded and passed. */
void hooks_run(struct engine_task *task, uint32_t slot, const struct engine_request *q,
               struct engine_result *out);
/** Are these registers at one of the break addresses, as is wanted there? */
bool hooks_is_break(const struct regs *regs);
/** As consume_take(). */
uint64_t hooks_take(uint8_t *window, uint64_t len, uint64_t *left_out);
/** Puts a struct hook_counts into the window. */
uint64_t hooks_take_counts(uint8_t *window, uint64_t *left_out);

#endif
