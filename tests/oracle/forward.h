/* The forward half of the dataflow oracle: which instructions use the bytes of a value, found by
 * looking at every one. */
#ifndef ORACLE_FORWARD_H
#define ORACLE_FORWARD_H

#include "query/query.h"
#include "replay/replay.h"
#include "x86/x86.h"

/* A byte, wherever it is seen from. */
struct held {
    bool memory;
    uint32_t owner, object; /* task of a register; space of private memory */
    uint64_t at;
};
struct held physical(struct replay *r, uint32_t task, uint32_t space, struct x86_place p);

/* Begins to follow bytes of a register, or memory of a space, from a moment on. */
void forward_begin(struct replay *r, struct moment m, uint32_t task, uint32_t space, bool memory,
                   uint64_t at, unsigned len);
/** An instruction that was executed, at least in part; both are as the replay stands behind it. */
void forward_step(struct replay *r, struct moment at, uint32_t task, uint32_t space,
                  const struct x86_insn *in, const struct x86_run *run);
/** A system call instruction that is about to be executed or attempted. */
void forward_call(struct replay *r, struct moment at, uint32_t task, uint32_t space,
                  const struct x86_insn *in, const struct regs *regs);
/** An event (or what prepares it) changes memory, of a space or an object; what follows is not
 * compared. */
void forward_memory_changed(struct moment at, uint32_t space, uint32_t object, uint64_t start,
                            uint64_t len);
/** It may change registers of a task, or copy them: bits by x86_unit(). */
void forward_registers_changed(struct moment at, uint32_t task, uint64_t units);
/** A space was copied. */
void forward_space_copied(struct moment at, uint32_t space);
/** Asks the query engine about all; adds to the numbers of comparisons and of failures. */
void forward_check(struct query_engine *q, unsigned *checks, unsigned *failures);

#endif
