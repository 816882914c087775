/* Blocks: the framing of the files `events`, `data`, `mmaps` and `tasks`. A file is a row of
 * independent brotli streams, each behind two u32: compressed length, uncompressed length (rr
 * CompressedWriter.cc). What they decompress to, put end to end, is the substream; offsets into it
 * are "stream offsets" here. */
#ifndef TRACE_BLOCK_H
#define TRACE_BLOCK_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK_HEADER_LEN 8u
/* rr writes blocks of 1 MiB at most; more than this is damage, not data. */
#define BLOCK_MAX_SIZE (64u << 20)

struct block {
    uint64_t file_off;   /* of the header */
    uint64_t stream_off; /* of the first byte it decompresses to */
    uint32_t len;        /* compressed, without the header */
    uint32_t size;       /* uncompressed */
};

/* An open substream and where its blocks stand. Immutable after open, so any thread may read
 * through it. */
struct block_file {
    char *name; /* "events" ...: for messages */
    int fd;
    struct block *blocks;
    size_t count;
    uint64_t size;     /* of the whole stream, uncompressed */
    uint64_t file_len; /* bytes on disk */
};

/** Opens DIR/NAME and reads the headers of all blocks. Errors: ERR_OS, ERR_FORMAT (a block runs
 * past the end). */
struct err *block_file_open(const char *dir, const char *name, struct block_file *out) nodiscard;
void block_file_close(struct block_file *f);

#define BLOCK_SLOTS 4

/* Reads a block_file at any offset, keeping the last few blocks decompressed. Belongs to one
 * thread. */
struct block_reader {
    const struct block_file *file;
    struct block_slot {
        uint8_t *data; /* NULL: empty */
        size_t idx;
        uint64_t used; /* when, by `clock` */
    } slots[BLOCK_SLOTS];
    uint64_t clock;
};

void block_reader_init(struct block_reader *r, const struct block_file *file);
void block_reader_deinit(struct block_reader *r);
/**
 * The bytes from stream offset `off` to the end of their block; *len_out 0 at the end of the
 * stream. Borrowed until BLOCK_SLOTS further calls.
 */
struct err *block_reader_at(struct block_reader *r, uint64_t off, const uint8_t **out,
                            size_t *len_out) nodiscard;
/** Copies `len` bytes from `off`; ERR_FORMAT if the stream ends before. */
struct err *block_reader_copy(struct block_reader *r, uint64_t off, void *out,
                              size_t len) nodiscard;

#endif
