/* Executions of one address, for debuggers: their conditions come compiled. */
#ifndef QUERY_BREAKPOINT_H
#define QUERY_BREAKPOINT_H

#include "base/program.h"
#include "query/query.h"

struct query_breakpoint {
    gaddr pc;
    const struct program *condition; /* checked; stops where it holds or cannot be told. NULL: none.
                                        Borrowed for the call */
    void *ctx;
    bool (*wanted)(void *ctx, uint32_t task); /* executions by other tasks are passed over */
};
/** The first execution at or after `from`, or the last before it. *moment_out: before the
 * instruction. Costs as those of the query address-execution. */
struct err *query_find_execution(struct query_engine *q, const struct query_breakpoint *b,
                                 struct moment from, bool forward, const atomic_bool *cancelled,
                                 struct moment *moment_out, uint32_t *task_out,
                                 bool *found_out) nodiscard;

#endif
