/* A diversion: a copy of a replay that is no longer bound to the recording. Its registers and
 * memory may be changed, and a task of it run, as a debugger does that calls a function of the
 * program. The replay that it was made from never sees anything of it.
 *
 * No system call is executed in it: a few that concern nothing but its own memory are answered
 * (diversion_calls.c), the others fail. The other tasks stand still. One thread per diversion. */
#ifndef REPLAY_DIVERSION_H
#define REPLAY_DIVERSION_H

#include "replay/replay.h"

struct diversion;

/** Copies `at`, which is borrowed for the call. */
struct err *diversion_begin(struct replay *at, struct diversion **out) nodiscard;
void diversion_end(struct diversion *d);
DEFINE_CLEANUP(struct diversion *, diversion_end)

/** To look at tasks, registers, mappings and memory as they are now. It must not be run. Borrowed.
 */
struct replay *diversion_replay(struct diversion *d);
/** ERR_NOT_FOUND: there is no such task. */
struct err *diversion_set_regs(struct diversion *d, uint32_t task,
                               const struct regs *regs) nodiscard;
struct err *diversion_set_xstate(struct diversion *d, uint32_t task,
                                 const struct xstate *x) nodiscard;
/** Writes all of [addr, addr + len), whatever the protection, or ERR_FAULT. */
struct err *diversion_write(struct diversion *d, uint32_t task, gaddr addr, const void *data,
                            size_t len) nodiscard;

/** Maps so many bytes (rounded up to pages) of zeros in a task's memory, which can be read and
 * written, above as many pages as a stack that grows down must not get into: DIVERSION_GUARD bytes.
 * *out: where they begin. ERR_LIMIT: no room. */
struct err *diversion_map(struct diversion *d, uint32_t task, uint64_t len, gaddr *out) nodiscard;
enum { DIVERSION_GUARD = 1 << 20 };

enum { DIVERSION_MOST_BREAKS = 64 };
struct diversion_request {
    uint32_t task;
    const gaddr *breaks; /* at most DIVERSION_MOST_BREAKS. A run that begins at one passes it */
    size_t break_count;
    uint64_t max_icount; /* at least 1 */
    void *ctx;
    /** The program wrote to descriptor 1 or 2. */
    void (*output)(void *ctx, const void *data, size_t len);
    /** A system call was answered with ENOSYS. */
    void (*refused)(void *ctx, int64_t number);
};
enum diversion_why {
    DIVERSION_LIMIT, /* exactly max_icount instructions were executed, where a system call counts as
                        one */
    DIVERSION_BREAK, /* likewise or earlier, before the instruction at a break address */
    DIVERSION_SIGNAL, /* before an instruction that raises `signal`, or behind a call that sends it
                         to the task itself */
    DIVERSION_ENDS,   /* at a system call that would end the task */
    DIVERSION_WAITS   /* at a system call that would wait for another task */
};
struct diversion_stop {
    enum diversion_why why;
    int signal;
    uint64_t icount; /* executed in this run */
};
/** Errors: ERR_NOT_FOUND; ERR_LIMIT; ERR_UNSUPPORTED: an instruction whose result nobody knows, the
 * task stands before it. */
struct err *diversion_run(struct diversion *d, const struct diversion_request *request,
                          struct diversion_stop *out) nodiscard;

#endif
