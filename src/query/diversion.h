/* Diversions: a moment of the past that is changed and goes on in another way, without a trace in
 * the recording or its database. For debuggers that call functions of the program; see
 * replay/diversion.h. */
#ifndef QUERY_DIVERSION_H
#define QUERY_DIVERSION_H

#include "query/query.h"

struct query_diversion;

/** Begins one at a moment. Its tasks are known by serial, as ever. */
struct err *query_divert(struct query_engine *q, struct moment m,
                         struct query_diversion **out) nodiscard;
/** Before the engine is closed. */
void query_diversion_end(struct query_diversion *d);
DEFINE_CLEANUP(struct query_diversion *, query_diversion_end)

/** The rows of the query `registers` with "all", as they are now; an array that is the caller's. */
struct err *query_diversion_registers(struct query_diversion *d, uint32_t task,
                                      json_t **rows_out) nodiscard;
/** Changes len bytes of a register, by its name there, from byte `offset` on. ERR_USAGE: it cannot
 * be changed. */
struct err *query_diversion_set_register(struct query_diversion *d, uint32_t task, const char *name,
                                         size_t offset, const void *data, size_t len) nodiscard;
/** Reads up to the first byte that is not mapped; *done_out bytes. */
struct err *query_diversion_read(struct query_diversion *d, uint32_t task, gaddr addr, void *out,
                                 size_t len, size_t *done_out) nodiscard;
/** Writes all, or ERR_FAULT. */
struct err *query_diversion_write(struct query_diversion *d, uint32_t task, gaddr addr,
                                  const void *data, size_t len) nodiscard;

enum query_diversion_why {
    DIVERTED_STEPPED,
    DIVERTED_BREAK,
    DIVERTED_SIGNAL,
    DIVERTED_ENDS,
    DIVERTED_WAITS,
    DIVERTED_TOO_LONG
};
struct query_diversion_run {
    uint32_t task; /* the only one that runs */
    const gaddr *breaks;
    size_t break_count;
    bool step; /* one instruction; a break address where it begins is passed either way */
    const atomic_bool
        *cancelled; /* ends it: ERR_CANCELLED, and the task stands where it was then; may be NULL */
    void *ctx;
    void (*output)(void *ctx, const void *data,
                   size_t len); /* what the program wrote to descriptors 1 and 2 */
    void (*refused)(void *ctx,
                    const char *syscall); /* not available: once for each in a diversion */
    /* results */
    enum query_diversion_why why;
    int signal; /* DIVERTED_SIGNAL: Linux' number */
    gaddr pc;   /* where the task stands */
};
/** Runs a task, at most QUERY_DIVERSION_MOST instructions: DIVERTED_TOO_LONG. */
struct err *query_diversion_run(struct query_diversion *d,
                                struct query_diversion_run *run) nodiscard;
#define QUERY_DIVERSION_MOST 2000000000ull

#endif
