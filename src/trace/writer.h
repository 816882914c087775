/* The other direction: building Cap'n Proto messages, packing them, and writing blocks. For packing
 * traces, and for tests, which make small traces of their own. */
#ifndef TRACE_WRITER_H
#define TRACE_WRITER_H

#include "base/buf.h"
#include "base/err.h"
#include "trace/message.h"

#include <stdbool.h>
#include <stdint.h>

/* A struct in a message under construction, by place: stays valid while the message grows. */
struct build_ref {
    struct buf *words;
    size_t word;
    uint16_t data_words, ptr_count;
};

/** Begins a message of one segment in `words` (emptied), and yields its root struct. */
struct build_ref build_root(struct buf *words, uint16_t data_words, uint16_t ptr_count);
/** Scalars at byte `off` of the data section; in our own control, so bounds are asserted. */
void build_u8(struct build_ref s, size_t off, uint8_t v);
void build_u16(struct build_ref s, size_t off, uint16_t v);
void build_u32(struct build_ref s, size_t off, uint32_t v);
void build_u64(struct build_ref s, size_t off, uint64_t v);
void build_bit(struct build_ref s, size_t bit, bool v);
/** Things for pointer number `idx` to point to. */
void build_data(struct build_ref s, unsigned idx, const void *data, size_t len);
void build_text(struct build_ref s, unsigned idx, const char *text);
struct build_ref build_struct(struct build_ref s, unsigned idx, uint16_t data_words,
                              uint16_t ptr_count);
/** Lists: of structs (yields the first; build_next the one after), of 32-bit integers, of pointers
 * (as a struct of them). */
struct build_ref build_structs(struct build_ref s, unsigned idx, uint32_t count,
                               uint16_t data_words, uint16_t ptr_count);
struct build_ref build_next(struct build_ref element);
void build_i32s(struct build_ref s, unsigned idx, const int32_t *values, uint32_t count);
struct build_ref build_pointers(struct build_ref s, unsigned idx, uint16_t count);

/** Appends to `out` the stream framing of one segment and its words, in the packed encoding. */
void pack_message(struct buf *out, const void *words, size_t len);
/** The same of a message that was read, with all its segments. */
void pack_read_message(struct buf *out, const struct message *m);
/** Appends the packed encoding of bytes that are whole words. */
void pack_words(struct buf *out, const void *words, size_t len);

/* Collects a substream and writes it as blocks. */
struct block_writer {
    const char *name; /* for messages */
    int fd;
    size_t block_size;
    struct buf pending;
};

#define BLOCK_SIZE_EVENTS (1u << 20) /* rr's, for `events` and `data` */
#define BLOCK_SIZE_MMAPS  (1u << 16) /* and for `mmaps` and `tasks` */

struct err *block_writer_add(struct block_writer *w, const void *data, size_t len) nodiscard;
/** Writes what is pending. The descriptor stays the caller's. */
struct err *block_writer_finish(struct block_writer *w) nodiscard;
void block_writer_deinit(struct block_writer *w);

#endif
