/* Functions of the program that an expression calls: run from a moment, in a diversion
 * (replay/diversion.h) that is thrown away with the answer. */
#ifndef QUERY_CALLER_H
#define QUERY_CALLER_H

#include "query/query_int.h"
#include "replay/diversion.h"
#include "sym/expression.h"

#define CALLER_MOST_INSTRUCTIONS 300000000ull /* of all calls of a caller together */

/* The program at a moment and, from the first call on, as the calls have left it. Variables and
 * registers of the frame stay those of the moment. Of one query; deinit before its end. */
struct caller {
    struct sym_context base;  /* the memory as it is now, and the frame's registers */
    struct sym_caller caller; /* for expressions */
    struct frame_context *frame;
    struct diversion *diversion; /* NULL: nothing was called yet */
    struct regs regs;            /* of the task, where it was diverted */
    gaddr stack, stack_end;      /* what was mapped for the calls */
    gaddr top;                   /* above it is what was placed */
    const struct module *module; /* of the function that was called last; or NULL */
    uint64_t left;               /* instructions */
    struct err *failed;          /* of the call that ended the run; owned */
    char *refused; /* a system call that failed for want of a kernel, and where it was made; heap */
};

/** frame: at the moment, and its replay stands there until the first call, or longer; borrowed. */
void caller_init(struct caller *c, struct frame_context *frame);
void caller_deinit(struct caller *c);
/** Runs an expression compiled with c->caller. Errors: of sym_expression_value(); ERR_UNSUPPORTED
 * and ERR_LIMIT with what happened in which function; ERR_CANCELLED. */
struct err *caller_evaluate(struct caller *c, struct sym_module *sym,
                            const struct sym_expression *e, struct sym_value *out) nodiscard;
/** Takes the address (of a value as json_value()) and the pointer out of `value` where the
 * recording has something else or nothing there at the moment: what a call has left. */
void caller_forget_addresses(struct caller *c, const struct sym_value *v, json_t *value);

#endif
