/* For tests: a small trace in a fresh directory, with one frame of every kind and one record of
 * every sort. */
#ifndef TRACE_SMALL_TRACE_H
#define TRACE_SMALL_TRACE_H

#include "base/buf.h"
#include "trace/writer.h"

enum {
    SMALL_TRACE_FRAMES = 24, /* 12 per architecture, x86-64 first */
    SMALL_TRACE_DATA_LEN = 24 * 24,
    SMALL_TRACE_MMAPS =
        4, /* the last two of the files mmap_hardlink_2_some.so and _3_, which are not made */
    SMALL_TRACE_FILE_LEN = 0x1800,
    SMALL_TRACE_TASKS = 4,
};

/** Writes the trace, in blocks of `block_size` bytes, into a new directory under $TMPDIR; its name,
 * a heap string. */
char *small_trace_create(size_t block_size) nodiscard;
/** Writes it into a directory that exists. */
void small_trace_fill(const char *dir, size_t block_size);
/** Gives the trace other mappings: of code, each of a file. */
struct small_map {
    const char *name;    /* as the recorded program knew it */
    const char *backing; /* in the trace, or absolute */
};
void small_trace_map(const char *dir, const struct small_map *maps, size_t count);
/** Removes the directory and all in it; frees the name. */
void small_trace_destroy(char *dir);
static inline void small_trace_destroyp(char **dir)
{
    small_trace_destroy(*dir);
}

/** Reads and replaces a file of the directory. */
void small_trace_read(const char *dir, const char *file, struct buf *out);
void small_trace_write(const char *dir, const char *file, const void *data, size_t len);

/** Builds a Header of rr's release `minor` (5.4 to 5.9) in `words`: as long as that release made
 * it, fields it had set. */
void small_trace_header(struct buf *words, unsigned minor);

#endif
