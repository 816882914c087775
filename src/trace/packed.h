/* Cap'n Proto's packed encoding and stream framing (capnproto.org/encoding.html): takes one message
 * after another out of a substream or a piece of memory. */
#ifndef TRACE_PACKED_H
#define TRACE_PACKED_H

#include "trace/block.h"
#include "trace/message.h"

/* Where the next message begins, and the bytes at hand. */
struct packed_stream {
    const char *name;            /* for messages */
    struct block_reader *blocks; /* NULL: memory only */
    const uint8_t *next, *end;
    uint64_t end_off; /* stream offset of `end` */
    /* The run the last tag began and that is not used up. */
    uint32_t zero_words, literal_words;
};

/** A stream over blocks from stream offset `off`, or over memory whose first byte is called `off`
 * in messages. */
struct packed_stream packed_stream_of_blocks(struct block_reader *r, uint64_t off);
struct packed_stream packed_stream_of_memory(const char *name, const void *data, size_t len,
                                             uint64_t off);
static inline uint64_t packed_stream_offset(const struct packed_stream *s)
{
    return s->end_off - (uint64_t)(s->end - s->next);
}

/**
 * Unpacks the next message into `m` (whose storage is used again). *end_out true: the stream ended
 * cleanly before it. Errors: ERR_FORMAT (cut short; sizes beyond MESSAGE_MAX_WORDS), those of the
 * blocks.
 */
struct err *packed_stream_next(struct packed_stream *s, struct message *m, bool *end_out) nodiscard;

#endif
