/* A whole database, opened for reading: a directory with one file a segment and an index over all
 * of them.
 *
 *   plan     for which trace and with which options the segments are made; written first
 *   NNNNNN   segments
 *   meta     the index; written last
 *
 * A database that is being made, or whose making was interrupted, is in a directory of the same
 * name with ".new" behind it, and has no `meta`. It can be read as far as it goes: the index is
 * then made in memory.
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

/* What a database is made from, and how. Databases with the same plan have the same contents. */
struct history_plan {
    uint8_t trace[16]; /* uuid */
    uint64_t program;  /* stands for the version of the program that made it */
    /* A segment ends after so many instructions or events. */
    uint64_t segment_icount, segment_events;
};

/** A number for this very program (a hash of its file): other versions have others. 0 if it cannot
 * be read. */
uint64_t history_this_program(void);
/** What goes into the headers of all files of the database. */
uint64_t history_build_number(const struct history_plan *plan);
/** Writes `plan` into the directory, which must have none. */
struct err *history_start(const char *dir, const struct history_plan *plan) nodiscard;
/** Reads it. ERR_NOT_FOUND if there is none. */
struct err *history_read_plan(const char *dir, struct history_plan *out) nodiscard;
/** The segments from 0 on that are there and whole: how many, and the end of the last one. */
struct err *history_count_segments(const char *dir, const struct history_plan *plan,
                                   size_t *count_out) nodiscard;
/** Writes `meta` for the segment files 0..count-1 in dir. */
struct err *history_join(const char *dir, const struct history_plan *plan, size_t count,
                         int level) nodiscard;
/** Path of a segment's file; heap string. */
char *history_segment_path(const char *dir, size_t idx) nodiscard;

/* --- reading --- */

/**
 * Opens the database in `dir`, complete or not. uuid: 16 bytes, of the trace.
 *
 * Errors: ERR_NOT_FOUND (no database, or nothing in it yet), ERR_FORMAT (damaged, or of another
 * trace), ERR_UNSUPPORTED (another version), ERR_OS.
 */
struct err *history_open(const char *dir, const uint8_t *uuid, struct history **out) nodiscard;
/** As history_open(), but if there is no such directory, of the one in the making: `dir`.new. */
struct err *history_open_best(const char *dir, const uint8_t *uuid, struct history **out) nodiscard;
void history_close(struct history *h);
DEFINE_CLEANUP(struct history *, history_close)

/** Is the index of a complete database that of its segments? ERR_FORMAT if not. Reads all of them.
 */
struct err *history_check_index(const struct history *h) nodiscard;
/** The directory that was opened; borrowed. */
const char *history_dir(const struct history *h);
/** False: the database is in the making; its segments end before the recording does. */
bool history_complete(const struct history *h);
/** Of a database in the making: is there more of it now, or is it complete? */
bool history_grew(const struct history *h);
const struct history_plan *history_plan(const struct history *h);
const struct history_segment *history_segments(const struct history *h, size_t *count_out);
/** Index of the segment whose stretch holds m (start <= m < end; the last one holds everything
 * behind). */
size_t history_segment_at(const struct history *h, struct moment m);
/** How many pages hold something else at the segment's end than at its start. */
uint64_t history_changed_pages(const struct history *h, size_t segment);
/** Size of all files, looked up. */
uint64_t history_bytes(const struct history *h);

/* Where the bytes of a database go. */
enum history_content {
    CONTENT_BOUNDARIES,
    CONTENT_PAGES,
    CONTENT_PAGE_TABLES,
    CONTENT_WRITTEN,
    CONTENT_BLOCKS,
    CONTENT_EVENTS,
    CONTENT_STACKS,
    CONTENT_OTHER,
    CONTENT_COUNT
};
struct err *history_content_bytes(struct history *h, uint64_t out[CONTENT_COUNT]) nodiscard;
const char *history_content_name(enum history_content c);

/** Blocks sorted by (space, pc). */
const struct history_block *history_blocks(const struct history *h, size_t *count_out);
const struct history_run *history_runs(const struct history *h);
/** Spaces and how they began, by uid order of creation. */
const struct db_space *history_spaces(const struct history *h, size_t *count_out);

/** Opens a segment's file. Any thread. */
struct err *history_open_segment(const struct history *h, size_t segment,
                                 struct chunk_file **out) nodiscard;
/** Parts of a segment, kept in a bounded cache; borrowed until the next call for another segment's
 * same part. */
struct err *history_part(struct history *h, size_t segment, enum segment_part part,
                         const struct segment **out) nodiscard;
/** Calls that had not returned at the segment's start, grouped by task, outermost first; as
 * history_part(). */
struct err *history_stacks(struct history *h, size_t segment, const struct segment **out) nodiscard;

/** Was any byte of [start, end) of a space (object 0) or object (space 0) written in the segment,
 * by the coarse index? */
struct err *history_written(struct history *h, size_t segment, uint32_t space, uint32_t object,
                            uint64_t start, uint64_t end, bool *out) nodiscard;

/* Takes the contents of memory at a boundary. */
struct page_sink {
    void *ctx;
    /** Neighbouring pages; borrowed for the call. */
    struct err *(*put)(void *ctx, uint64_t addr, const uint8_t *pages, size_t count);
    /** Fills a page with what a fresh mapping has there: the file's contents or zeros. Called
     * before anything is put. NULL: zeros. */
    struct err *(*fresh)(void *ctx, uint64_t addr, uint8_t *page);
    /** For history_page_changes(): these pages have to become what they are in a fresh mapping,
     * where one is. Before fresh() of them. */
    struct err *(*reset)(void *ctx, uint64_t start, uint64_t end);
    /** Are the pages from start on to be read later, from a page map? May lower *end, which the
     * answer is for. whole: fresh() would not be asked for them. NULL: none are. */
    bool (*later)(void *ctx, uint64_t start, uint64_t *end, bool whole);
};
/** Visits the contents at the segment's start of all pages of a space or object that differ from a
 * fresh mapping, in rising order, runs of neighbours together. */
struct err *history_pages(struct history *h, size_t segment, uint32_t space, uint32_t object,
                          const struct page_sink *sink) nodiscard;
/** The same for what may differ between the starts of segments `from` and `to`, either of which may
 * be the later one, and for the ranges in `also` (rising, disjoint), of a space that is at both:
 * what pages hold at `to`. */
struct err *history_page_changes(struct history *h, size_t from, size_t to, uint32_t space,
                                 const struct addr_range *also, size_t also_count,
                                 const struct page_sink *sink) nodiscard;

/* The same contents, made page by page when they are wanted. Reads the history's files and tables,
 * not its cache: any thread, also while another one uses the history, which has to outlive the map.
 */
struct page_map;
/** The contents of a space (object 0) or object at the segment's start. */
void history_page_map(struct history *h, size_t segment, uint32_t space, uint32_t object,
                      struct page_map **out);
void page_map_destroy(struct page_map *m);
DEFINE_CLEANUP(struct page_map *, page_map_destroy)
/** Visits those in [start, end), as history_pages() does. */
struct err *page_map_read(const struct page_map *m, uint64_t start, uint64_t end,
                          const struct page_sink *sink) nodiscard;
/** Decodes one of the chunks that the contents of [start, end), at most 2 MiB, are made from, for
 * page_map_read() to find it. False: all are there already, or one cannot be read. */
bool page_map_work_ahead(const struct page_map *m, uint64_t start, uint64_t end);

#endif
