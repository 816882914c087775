/* Conditions of breakpoints as gdb gives them: bytecode ("Debugging with GDB", appendix F, The GDB
 * Agent Expression Mechanism). */
#ifndef GDBSTUB_AGENT_H
#define GDBSTUB_AGENT_H

#include "base/buf.h"
#include "base/program.h"

typedef VEC(struct program_op) program_ops;

/**
 * Appends what a `Z` packet says of conditions to a program that is 1 where any of them holds.
 * text: ";X LENGTH,BYTECODE", again "X..." for each; other parts are passed over. No operations:
 * there is no condition.
 *
 * Returns false where it says something that has no meaning as a program: floating point, tracing,
 * jumps backward, or nonsense. gdb, which tests conditions once more where it is told of a stop, is
 * to be told of each execution then.
 */
bool agent_compile(const char *text, program_ops *out) nodiscard;

#endif
