/* What every descriptor of every recorded task stands for, over the whole recording: open file
 * descriptions, and the streams of bytes (pipes, sockets) between them. */
#ifndef QUERY_DESCRIPTORS_INT_H
#define QUERY_DESCRIPTORS_INT_H

#include "query/io_calls_int.h"

enum stream_kind {
    STREAM_PIPE,
    STREAM_SOCKET,
    STREAM_FILE,
    STREAM_COUNTER /* eventfd(2): messages */,
    STREAM_MEMORY /* /proc/PID/mem: offsets are addresses */
};

/* A read or write that succeeded; or one half of a call that does both (struct io_move). */
struct transfer {
    uint32_t call; /* in io_calls */
    /* Bytes of the stream; of one of messages: offset is the message's number. */
    uint64_t offset, len;
    const char *why; /* why it is not known which bytes of the stream these are; NULL: it is */
    bool cuts;       /* of a file: no write, but what was there is gone */
    uint32_t other_stream, other; /* if it is half of a call: the other half's stream, and which of
                                     its transfers, plus 1; 0: it is all */
};
typedef VEC(struct transfer) transfer_list;

/* mmap(2) of a file. */
struct file_mapping {
    uint32_t call;
    bool shared, looked_up;
    uint32_t object; /* that it maps, if looked_up; 0: none, as it is private, or of a file that
                        nobody changes */
};

/* Bytes (or messages) which come out in the order in which they were put in; or the contents of a
 * file. */
struct stream {
    uint8_t kind; /* enum stream_kind */
    bool messages;
    transfer_list writes, reads; /* in order of time; of other than files also by rising offset */
    /* Offsets of the next of them; written of a file: its size, if size_known. */
    uint64_t written, taken;
    bool size_known;
    VEC(struct file_mapping) mappings; /* of a file, by time */
    bool stored_to;                    /* tasks may store to some of them */
    uint32_t opened;                   /* STREAM_MEMORY: the call that opened it */
    const char *why;                   /* why nothing is known of it any more; NULL: it is known */
};

/* An open file description (open(2)). */
struct description {
    uint32_t in, out;    /* streams that it reads and writes, numbers plus 1; 0: none */
    uint8_t socket_type; /* SOCK_STREAM, ... */
    bool writable, position_known, append; /* of a file */
    uint64_t position;
    const char *why; /* why it is not known what it stands for; NULL: it is known */
};

struct descriptors {
    struct io_calls io;
    VEC(struct stream) streams;
    VEC(struct description) descriptions; /* the first one is none */
};

/** Of the whole recording; made when it is first asked for, kept by the engine. Borrowed. Cost: as
 * io_calls_read(). */
struct err *descriptors_of(struct query_engine *q, const struct descriptors **out) nodiscard;

/** The object that a file's mapping is of; 0: none. stream: its number. */
struct err *mapped_object(struct query_engine *q, uint32_t stream, size_t mapping,
                          uint32_t *out) nodiscard;

/** Does the call take bytes in, or give them out, by its first argument? */
bool io_call_reads(int32_t no);
bool io_call_writes(int32_t no);

#endif
