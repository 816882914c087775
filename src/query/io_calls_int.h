/* The system calls of a recording that have to do with descriptors, of all tasks: those that are
 * events, and those which the recorder's library performed itself ("buffered"), of which the trace
 * holds the results only; the database has their arguments. */
#ifndef QUERY_IO_CALLS_INT_H
#define QUERY_IO_CALLS_INT_H

#include "query/query_int.h"

struct io_call {
    struct moment at;     /* right before the call */
    event_no begin, end;  /* its entry and exit (0: none); buffered: both are the event (a flush)
                             that has its record */
    uint32_t task, space; /* space 0: not known */
    int32_t no;           /* x86-64 */
    bool buffered;
    bool done;      /* `result` is known */
    char *paths[2]; /* of files that it names. bind, connect: [0] is the address as hexadecimal
                     * bytes; connect, accept over TCP: [1] is "local remote", likewise. Owned;
                     * NULL: none, or not known */
    uint64_t args[6];
    int64_t result;
    int32_t fds[2];     /* that pipe(2), socketpair(2) made */
    int64_t offsets[2]; /* splice(2) and the like: what the offsets that they were given (of input,
                           output) became; -1: none was, or it is not known */
    uint32_t description; /* of its first argument (mmap: of its file), in struct descriptors; 0:
                             not known */
    uint32_t transfer;    /* of a read or write, number in its stream plus 1; 0: none */
};

enum io_point_kind {
    IO_BEGIN,
    IO_END,   /* of calls.items[call]; a buffered call has an end only */
    IO_CLONE, /* `task` made `child` */
    IO_EXEC,
    IO_EXIT,    /* of `task` */
    IO_FOREIGN, /* `task` makes 32-bit system calls, or left the recording alive */
};
struct io_point {
    uint8_t kind; /* enum io_point_kind */
    uint32_t task, child, call;
};

struct io_calls {
    VEC(struct io_call) calls;   /* by `at` */
    VEC(struct io_point) points; /* in order of time */
};

/** Reads all of them. Cost: one pass through the events. */
struct err *io_calls_read(struct query_engine *q, struct io_calls *out) nodiscard;
void io_calls_deinit(struct io_calls *c);

/* A call that moves bytes from one descriptor to another within the kernel. */
struct io_move {
    int32_t from, to;
    gaddr offsets[2]; /* where it has the offsets in files, of input and output; 0: it goes by the
                         descriptor's */
};
/** Is it one? */
bool io_call_moves(const struct io_call *c, struct io_move *out);

/** When a call was over and its data there, if it has ended: of a buffered one they are there
 * beforehand. */
static inline struct moment io_call_end(const struct io_call *c)
{
    return c->buffered ? c->at : (struct moment){c->end, 0};
}

/** The call that was made at a moment, or (not buffered) ended with an event; NULL: none. */
const struct io_call *io_call_at(const struct io_calls *c, struct moment at, uint32_t task);
const struct io_call *io_call_ending(const struct io_calls *c, event_no end, uint32_t task);
/** The first call from `at` on; count if there is none. */
size_t io_call_from(const struct io_calls *c, struct moment at);

#endif
