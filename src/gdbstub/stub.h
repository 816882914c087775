/* Shows gdb a process of a recording as a remote target that can run backward. */
#ifndef GDBSTUB_STUB_H
#define GDBSTUB_STUB_H

#include "base/err.h"
#include "base/types.h"

struct query_engine;
struct gdb_stub;

struct gdb_stub_options {
    struct query_engine *q; /* borrowed, and used by nobody else meanwhile */
    bool at_first_focus;    /* else at `moment` */
    struct moment moment;
    uint32_t task;          /* 0: whichever runs then */
    const char *scripts_of; /* directory of the trace of which the scripts for gdb are executed, by
                               gdb_run(); NULL: none. Borrowed */
};

/** fd: a connected stream socket or a pseudoterminal's master, with gdb at the other end; owned by
 * the stub from now on, also on failure. */
struct err *gdb_stub_create(int fd, const struct gdb_stub_options *options,
                            struct gdb_stub **out) nodiscard;
void gdb_stub_destroy(struct gdb_stub *s);
DEFINE_CLEANUP(struct gdb_stub *, gdb_stub_destroy)
/** Answers until gdb leaves. */
void gdb_stub_run(struct gdb_stub *s);

/* Where gdb stands, and the task that it shows. */
struct gdb_position {
    struct moment moment;
    uint32_t task;
    int32_t tid;
};
/** Any thread. */
struct gdb_position gdb_stub_position(struct gdb_stub *s);
/** Reads "EVENT" or "EVENT+INSTRUCTIONS"; false: it is neither. */
bool gdb_read_moment(const char *text, struct moment *out) nodiscard;

#endif
