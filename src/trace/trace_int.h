/* What the files of this room share: the open trace, and the decoders of the four kinds of message.
 */
#ifndef TRACE_TRACE_INT_H
#define TRACE_TRACE_INT_H

#include "trace/block.h"
#include "trace/message.h"
#include "trace/pool.h"
#include "trace/trace.h"

#include <pthread.h>

#define TRACE_VERSION 85
/* The newest forward compatibility version there is a description of (rr TraceStream.h; 5.6 to 5.9
 * write 3). */
#define TRACE_FORWARD_COMPATIBILITY 3

struct trace {
    char *dir;
    struct trace_header header;
    struct block_file events, data;
    struct trace_mmap *mmaps;
    size_t mmap_count;
    struct trace_task_event *tasks;
    size_t task_count;
    struct pool pool; /* strings and arrays of the above */
    pthread_mutex_t lock;
    event_no event_count; /* guarded by lock; 0: not counted */
};

/** Reads DIR/version. What `out` points to is allocated from `p`. */
struct err *header_read(const char *dir, struct pool *p, struct trace_header *out) nodiscard;
/** The Header message alone, from the bytes that follow the version line; `off` is where they stand
 * in the file. */
struct err *header_decode(const void *data, size_t len, uint64_t off, struct pool *p,
                          struct trace_header *out) nodiscard;

/* All records of `mmaps` or `tasks`; heap arrays, what they point to from `p`. */
struct err *mmaps_read(const char *dir, struct pool *p, struct trace_mmap **out,
                       size_t *count_out) nodiscard;
struct err *tasks_read(const char *dir, struct pool *p, struct trace_task_event **out,
                       size_t *count_out) nodiscard;

/** One MMap or TaskEvent message; `previous` is the event of the record before, as they must not go
 * back. */
struct err *mmap_decode(struct message *m, struct pool *p, event_no previous,
                        struct trace_mmap *out) nodiscard;
struct err *task_decode(struct message *m, struct pool *p, event_no previous,
                        struct trace_task_event *out) nodiscard;

/**
 * Decodes a Frame message: all fields but event, mmaps, tasks and the writes' data offsets, which
 * count from 0 here. `data_len_out`: bytes of `data` the frame owns. Arrays come from `p`;
 * registers and siginfo borrow from `m`.
 */
struct err *frame_decode(struct message *m, struct pool *p, struct frame *out,
                         uint64_t *data_len_out) nodiscard;

#endif
