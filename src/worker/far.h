/* Far branches that stay in the program's code segment: RET, IRET and JMP with a selector.
 * Freestanding. */
#ifndef WORKER_FAR_H
#define WORKER_FAR_H

#include "worker/insn.h"

/** Is it one that far_branch() can carry out if its selectors are the usual ones? */
bool is_far_branch(const struct insn *in);

enum far_outcome { FAR_DONE, FAR_FAULTS, FAR_UNSUPPORTED };
/** Carries out the far branch at *pc, all guest registers being in the state page. *pc is the
 * target then, or *fault_out the address that could not be read. Unsupported: it goes to other
 * segments, or faults otherwise; nothing is changed. */
enum far_outcome far_branch(struct engine_state *s, uint64_t *pc, uint64_t *fault_out);

#endif
