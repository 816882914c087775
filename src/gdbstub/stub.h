/* Shows gdb a process of a recording as a remote target that can run backward. */
#ifndef GDBSTUB_STUB_H
#define GDBSTUB_STUB_H

#include "base/err.h"
#include "base/types.h"

struct query_engine;
struct gdb_stub;

struct gdb_stub_options {
    struct query_engine *q;  /* borrowed, and used by nobody else meanwhile */
    bool at_first_focus;     /* else at `moment` */
    struct moment moment;
    uint32_t task;           /* 0: whichever runs then */
    /* Called, from the thread that runs the stub, when gdb has moved. May be NULL. */
    void (*stopped)(void *ctx, struct moment m, uint32_t task);
    void *ctx;
};

/** fd: a connected stream socket to gdb; owned by the stub from now on, also on failure. */
struct err *gdb_stub_create(int fd, const struct gdb_stub_options *options, struct gdb_stub **out) nodiscard;
void gdb_stub_destroy(struct gdb_stub *s);
DEFINE_CLEANUP(struct gdb_stub *, gdb_stub_destroy)
/** Answers until gdb leaves. */
void gdb_stub_run(struct gdb_stub *s);
/** The next time gdb lets the program run it finds itself at m. Any thread. */
void gdb_stub_jump(struct gdb_stub *s, struct moment m, uint32_t task);
/** Ends a search that is at work. Any thread. */
void gdb_stub_interrupt(struct gdb_stub *s);

#endif
