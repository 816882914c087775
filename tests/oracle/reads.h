/* The oracle of reads and writes as `watchpoint` tells them: what every instruction accesses, held
 * against the rows. */
#ifndef ORACLE_READS_H
#define ORACLE_READS_H

#include "query/query.h"
#include "replay/replay.h"
#include "x86/x86.h"

/* Begins to look at who reads some bytes of a space, from a moment on. */
void reads_begin(struct replay *r, struct moment m, uint32_t task, uint32_t space, gaddr at,
                 unsigned len);
/** An instruction that was executed, at least in part; the replay stands behind it. */
void reads_step(struct replay *r, struct moment at, uint32_t task, uint32_t space,
                const struct x86_insn *in, const struct x86_run *run);
/** Asks the query engine about all; adds to the numbers of comparisons and of failures. */
void reads_check(struct query_engine *q, unsigned *checks, unsigned *failures);

#endif
