/* The strings that a program is started with, and where its predecessor had them. */
#ifndef QUERY_EXEC_STRINGS_INT_H
#define QUERY_EXEC_STRINGS_INT_H

#include "query/query_int.h"

struct exec_string {
    /* In memory of the old program before the event, and of the new one behind it. */
    gaddr from, to;
    uint64_t len; /* with the zero at the end */
};
struct exec_strings {
    uint32_t old_space, new_space;
    VEC(struct exec_string) all;
};

/** Arguments and environment of the program that a task began to execute with event `number`; none
 * of the recording's first program. The caller calls exec_strings_deinit(), also after an error.
 * Cost: two states, and all these strings are read. */
struct err *exec_strings_of(struct query_engine *q, event_no number, uint32_t task,
                            struct exec_strings *out) nodiscard;
void exec_strings_deinit(struct exec_strings *s);

#endif
