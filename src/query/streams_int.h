/* Bytes that a system call of one task handed to the kernel, and one of another took from it. */
#ifndef QUERY_STREAMS_INT_H
#define QUERY_STREAMS_INT_H

#include "query/descriptors_int.h"

/* Where bytes that a call read were before. */
struct stream_source {
    const struct io_call *write; /* NULL: not known */
    const char *why;             /* why not */
    uint32_t len;                /* this is about so many of the bytes; the rest came otherwise */
    uint32_t space;
    gaddr addr;                  /* in the writer's memory at write->at */
    const char *through;         /* "pipe", "socket", "file" */
    uint64_t offset;             /* of the first byte in the stream; of a message: in it */
};

/** The read that put bytes at `addr` by event `number`; NULL: there is none. Borrowed. */
struct err *stream_read_at(struct query_engine *q, event_no number, uint32_t task, gaddr addr, const struct io_call **out) nodiscard;
/** Which write put the bytes into the stream that `read` took to [addr, addr + len). The bytes of both are compared. */
struct err *stream_source_of(struct query_engine *q, const struct io_call *read, gaddr addr, uint32_t len, struct stream_source *out) nodiscard;
/* Bytes of a write that a call read. */
struct stream_copy {
    const struct io_call *read;
    uint32_t from, len;  /* of the bytes asked about */
    uint32_t space;
    gaddr addr;          /* in the reader's memory */
    const char *through;
    uint64_t offset;     /* as in struct stream_source */
};
typedef VEC(struct stream_copy) stream_copy_list;
/** Which reads took the bytes [addr, addr + len) that `write` gives out, in order of time. why_out: why it is not known, or not of all; else
 * NULL. The caller frees the list, also after an error. */
struct err *stream_copies_of(struct query_engine *q, const struct io_call *write, gaddr addr, uint32_t len, stream_copy_list *out,
                             const char **why_out) nodiscard;
/** The system call that the task is about to make at a moment; NULL: it has nothing to do with descriptors. Borrowed. */
struct err *stream_call_at(struct query_engine *q, struct moment m, uint32_t task, const struct io_call **out) nodiscard;
/** The call as text: "read(0x3, ...) = 0x5"; heap string. */
char *io_call_text(const struct query_engine *q, const struct io_call *c) nodiscard;
/** The protocol's "writer": {focus, task, fd, text} of a call that wrote. */
json_t *stream_writer(const struct query_engine *q, const struct io_call *write);

#endif
