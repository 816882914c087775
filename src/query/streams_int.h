/* Bytes that a system call of one task handed to the kernel, and one of another took from it; or
 * that are in a file which is mapped, or were taken from another process' memory. */
#ifndef QUERY_STREAMS_INT_H
#define QUERY_STREAMS_INT_H

#include "query/descriptors_int.h"

enum { MOST_MOVES = 16, MOST_PIECES = 1024 /* of one call */, MOST_COMPARED = 4096 /* bytes */ };

static inline uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* --- stream_calls.c --- */

/* A run of memory that a call takes or fills. */
struct piece {
    gaddr addr;
    uint64_t len;
};
typedef VEC(struct piece) piece_list;
/** The memory of a call, in the order of its bytes; of process_vm_readv(2), process_vm_writev(2)
 * the caller's. message: which one, of sendmmsg(2) and recvmmsg(2); else 0. The caller of this
 * frees the list, also after an error. */
struct err *call_pieces(struct query_engine *q, const struct io_call *c, unsigned message,
                        uint32_t *space_out, piece_list *out) nodiscard;
/** Appends the pieces of a vector (struct iovec) in memory of a space. */
struct err *read_pieces(struct replay *r, uint32_t space, gaddr at, uint64_t count,
                        piece_list *out) nodiscard;
/** Which of the call's bytes is at addr, how many before it and how many from it on are at
 * neighbouring addresses; false: none. */
bool place_of_addr(const piece_list *pieces, gaddr addr, uint64_t *offset_out, uint64_t *before_out,
                   uint64_t *len_out);
/** The same the other way round. */
bool addr_of_place(const piece_list *pieces, uint64_t offset, gaddr *addr_out, uint64_t *before_out,
                   uint64_t *len_out);

/** The message of a call of which a byte is at addr, which byte of it that is, how many before it
 * and from it on are at neighbouring addresses; *found_out false: none. pieces: its memory; the
 * caller frees it, also after an error. */
struct err *find_in_call(struct query_engine *q, const struct io_call *c, gaddr addr,
                         uint32_t *space_out, piece_list *pieces, unsigned *message_out,
                         uint64_t *at_out, uint64_t *before_out, uint64_t *here_out,
                         bool *found_out) nodiscard;
/** Bytes that a call moved, at most. */
uint64_t size_of_call(const struct io_call *c);
/** The stream of a read or write; NULL: none is known. */
const struct stream *stream_of_call(const struct descriptors *d, const struct io_call *c);
/** Does the call read or write memory of a process by a descriptor? */
static inline bool is_of_memory(const struct descriptors *d, const struct io_call *c)
{
    const struct stream *s = stream_of_call(d, c);
    return s && s->kind == STREAM_MEMORY;
}
/** Of a read or write; NULL: which bytes of the stream it is about is not known. */
const struct transfer *transfer_of_call(const struct stream *s, const struct io_call *c);
/** Which of its call's messages a transfer is. */
unsigned message_of(const struct descriptors *d, const struct stream *s, const struct transfer *t);
/** "pipe", "socket", "file", "eventfd", "process". */
const char *stream_through(const struct stream *s);
/* Memory of a space, or of an object, at a moment; or bytes that are known. */
struct memory_at {
    struct moment at;
    uint32_t space, object; /* 0: not of one */
    uint64_t addr;
    const uint8_t *value; /* NULL: not known */
};
/** Are the bytes there the same (of many: the first MOST_COMPARED)? len: of known ones at most what
 * there is. */
struct err *stream_compare(struct query_engine *q, const struct memory_at *x,
                           const struct memory_at *y, uint64_t len, bool *same_out) nodiscard;
/** The reason if they are not. */
extern const char stream_not_the_same[];
/** Takes over an error: memory that is not there, as a recording may have it whatever its calls
 * say, is a reason and no error. */
struct err *unless_unreadable(struct err *e, const char **why_out) nodiscard;
/** Does it put bytes into memory of which it can be told where they were before? By its number. */
bool io_call_puts(int32_t no);
/** The call that put bytes at `addr` by event `number`; NULL: there is none. Borrowed. */
struct err *stream_read_at(struct query_engine *q, event_no number, uint32_t task, gaddr addr,
                           const struct io_call **out) nodiscard;
/** The last system call before a moment that the recorder's library made itself in the run which
 * the moment is in; NULL: none. Borrowed. */
struct err *stream_buffered_before(struct query_engine *q, struct moment m, uint32_t task,
                                   const struct io_call **out) nodiscard;
/** The system call that the task is about to make at a moment; NULL: it has nothing to do with
 * descriptors. Borrowed. */
struct err *stream_call_at(struct query_engine *q, struct moment m, uint32_t task,
                           const struct io_call **out) nodiscard;
/** The call as text: "read(0x3, ...) = 0x5"; heap string. */
char *io_call_text(const struct query_engine *q, const struct io_call *c) nodiscard;
/** The protocol's "writer": {focus, task, fd, text} of a call that wrote. */
json_t *stream_writer(const struct query_engine *q, const struct io_call *write);
/** The protocol's "moves": [{focus, task, text}]. */
json_t *stream_moves(const struct query_engine *q, const struct io_call *const *moves,
                     unsigned count);

/* --- stream_source.c --- */

/* Where bytes that a call put into memory were before. */
struct stream_source {
    bool known;
    const char *why;  /* why not; NULL: there is no reason to tell */
    uint32_t len;     /* this is about so many of the bytes; the rest came otherwise */
    struct moment at; /* then they were in memory of a space, of the task, or in its registers */
    uint32_t task, space;
    bool in_register;
    uint64_t addr;
    const struct io_call *write; /* that handed them over; NULL: no call did */
    struct moment writer;        /* when it did, or they were stored there */
    const char *through;         /* "pipe", "socket", "file", "mapping", "process", "eventfd" */
    bool has_offset;
    uint64_t offset; /* of the first byte in the stream or file; of a message: in it */
    const struct io_call *moves[MOST_MOVES]; /* by which the kernel moved them from stream to
                                                stream, the last one first */
    unsigned move_count;
};

/** Where the bytes were that the call put at [addr, addr + len): an address in the caller's memory;
 * of process_vm_writev(2), ptrace(2) and writes to /proc/PID/mem in the other's; of other writes,
 * to a file that is mapped, an offset in the file. The bytes of both sides are compared. there:
 * when the call had put them there, if that is not io_call_end(); or NULL. */
struct err *stream_source_of(struct query_engine *q, const struct io_call *call,
                             const struct moment *there, uint64_t addr, uint32_t len,
                             struct stream_source *out) nodiscard;

/* --- stream_copies.c --- */

/* Bytes that a call put somewhere else. */
struct stream_copy {
    const struct io_call *call;
    uint32_t from, len; /* of the bytes asked about */
    uint32_t task, space;
    gaddr addr; /* where they are in memory of the space behind the call */
    const char *through;
    bool has_offset;
    uint64_t offset;                         /* as in struct stream_source */
    const struct io_call *moves[MOST_MOVES]; /* the first one first */
    unsigned move_count;
    bool acted; /* they come when the replayer makes the effect of a buffered call again; whether
                   they are the same was not compared */
};
typedef VEC(struct stream_copy) stream_copy_list;
/** Which calls took the bytes [addr, addr + len) that `write` gives out, in order of time. why_out:
 * why it is not known, or not of all; else NULL. The caller frees the list, also after an error. */
struct err *stream_copies_of(struct query_engine *q, const struct io_call *write, gaddr addr,
                             uint32_t len, stream_copy_list *out, const char **why_out) nodiscard;
/** Which calls took the bytes [offset, offset + len) of a shared object that were put there before
 * `since`, if it is a file's; likewise. value: what they are. */
struct err *stream_copies_of_stored(struct query_engine *q, uint32_t object, uint64_t offset,
                                    const uint8_t *value, uint32_t len, struct moment since,
                                    stream_copy_list *out, const char **why_out) nodiscard;
/** What a call takes of memory [addr, addr + len) of a space that is another process', as a rule
 * (process_vm_readv(2), ...); likewise. */
struct err *stream_copies_taken(struct query_engine *q, const struct io_call *call, uint32_t space,
                                gaddr addr, uint32_t len, stream_copy_list *out) nodiscard;

/* --- file_contents.c --- */

/* What made a byte of a file what it is. */
struct file_origin {
    const struct transfer *write; /* NULL: no write */
    bool stored;                  /* by a store to the file's mapping: then */
    struct write_hit store;
    uint32_t object;
    const char *why; /* why that is not known, or not of use */
};
/** Of the byte at an offset of a file, as it is when a call reads (or maps) it; *len, of bytes from
 * there on, becomes less where others differ. */
struct err *file_origin_of(struct query_engine *q, const struct stream *s, uint64_t offset,
                           const struct io_call *reader, uint32_t *len,
                           struct file_origin *out) nodiscard;
/** The last of the file's writes to the byte before the call, or what cut it off; NULL: there is
 * none. */
const struct transfer *file_write_at(const struct descriptors *d, const struct stream *s,
                                     uint64_t offset, const struct io_call *reader, uint32_t *len,
                                     const char **why_out);
/** Where a space has an object's byte mapped, if possible that of the task; false: nowhere. */
bool place_of_object(struct replay *r, uint32_t task, uint32_t object, uint64_t offset,
                     uint32_t *space_out, gaddr *addr_out);

/* --- other_memory.c --- */

/** As stream_source_of(), of calls that have to do with another process' memory; or of
 * /proc/PID/mem. */
struct err *other_memory_source(struct query_engine *q, const struct io_call *call,
                                const struct moment *there, gaddr addr,
                                struct stream_source *out) nodiscard;
/** The part of [addr, addr + len) of the space that the call takes from there to elsewhere, if it
 * has to do with another process' memory: *out; its len 0: none of it. Of more than one part the
 * first. */
struct err *other_memory_copy(struct query_engine *q, const struct io_call *call, uint32_t space,
                              gaddr addr, uint32_t len, struct stream_copy *out) nodiscard;

#endif
