/* Registers by the names that the query `registers` gives them. Private to the query room. */
#ifndef QUERY_REGISTERS_H
#define QUERY_REGISTERS_H

#include "base/types.h"

#include <jansson.h>
#include <stdbool.h>

/** The query's rows, an array that is the caller's. */
json_t *registers_rows(const struct regs *regs, const struct xstate *x, bool all);
/** Changes len bytes (little-endian) of a register, from byte `offset` on; of control words, what
 * goes beyond their length is left out. False: there is no such register or it cannot be changed
 * (segments, but for what they are), and regs and x are to be thrown away. */
bool registers_set(struct regs *regs, struct xstate *x, const char *name, size_t offset,
                   const void *data, size_t len);

#endif
