/* A whole database, opened for reading: a directory with one file a segment and an index over all of them.
 *
 *   meta            segments, block index, page index; written last
 *   NNNNNN          segment files
 *   NNNNNN.stacks   each task's calls at the segment's start
 *
 * Used by one thread. */
#ifndef DB_HISTORY_H
#define DB_HISTORY_H

#include "db/segment.h"

struct history_segment {
    struct moment start, end;
    uint64_t icount_start, icount;
};

/* A code block that ran, and where. */
struct history_block {
    uint32_t space;
    gaddr pc;
    uint16_t insn_count, byte_len;
    uint8_t end, ticks;
    uint32_t first_run, run_count; /* in history_runs() */
    uint64_t total;
};
struct history_run {
    uint32_t segment;
    uint64_t count;
};

struct history;

/* --- making --- */

/** Writes `meta` and the stacks files for the segment files 0..count-1 in dir. uuid: 16 bytes, of the trace. */
struct err *history_join(const char *dir, size_t count, const uint8_t *uuid, int level) nodiscard;
/** Path of a segment's file; heap string. */
char *history_segment_path(const char *dir, size_t idx) nodiscard;

/* --- reading --- */

/** Opens dir. ERR_NOT_FOUND if there is no database; ERR_FORMAT if it is of another trace. */
struct err *history_open(const char *dir, const uint8_t *uuid, struct history **out) nodiscard;
void history_close(struct history *h);
DEFINE_CLEANUP(struct history *, history_close)

const struct history_segment *history_segments(const struct history *h, size_t *count_out);
/** Index of the segment whose stretch holds m (start <= m < end; the last one holds everything behind). */
size_t history_segment_at(const struct history *h, struct moment m);
uint64_t history_bytes(const struct history *h);

/** Blocks sorted by (space, pc). */
const struct history_block *history_blocks(const struct history *h, size_t *count_out);
const struct history_run *history_runs(const struct history *h);
/** Spaces and how they began, by uid order of creation. */
const struct db_space *history_spaces(const struct history *h, size_t *count_out);

/** Parts of a segment, kept in a bounded cache; borrowed until the next call for another segment's same part. */
struct err *history_part(struct history *h, size_t segment, enum segment_part part, const struct segment **out) nodiscard;
/** Calls that had not returned at the segment's start, grouped by task, outermost first; as history_part(). */
struct err *history_stacks(struct history *h, size_t segment, const struct segment **out) nodiscard;

/** Was any byte of [start, end) of a space (object 0) or object (space 0) written in the segment, by the coarse index? */
struct err *history_written(struct history *h, size_t segment, uint32_t space, uint32_t object, uint64_t start, uint64_t end,
                            bool *out) nodiscard;
/** Visits the contents at the segment's start of all pages of a space or object that differ from a fresh mapping, in rising
 * order, runs of neighbours together. */
struct err *history_pages(struct history *h, size_t segment, uint32_t space, uint32_t object,
                          struct err *(*put)(void *ctx, uint64_t addr, const uint8_t *pages, size_t count), void *ctx) nodiscard;

#endif
