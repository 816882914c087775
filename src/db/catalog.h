/* The catalog: what has to be known of all segments together. It is in `meta`, or made in memory
 * from the segments' files. docs/format.md, "meta". Private to this room. */
#ifndef DB_CATALOG_H
#define DB_CATALOG_H

#include "db/history.h"

/* Kinds of chunk in `plan` and `meta`. */
enum {
    CHUNK_PLAN = 10,
    CHUNK_SEGMENTS = 11,
    CHUNK_BLOCK_INDEX = 12,
    CHUNK_PAGE_INDEX = 13,
    CHUNK_STACKS_AT = 14,
};

/* All calls that have not returned are stored for one in so many segments; from there they are
 * computed. */
enum { STACKS_EVERY = 16 };

/* Calls that have not returned, of all tasks: each task's outermost first. */
typedef VEC(struct db_call) call_list;
/** From the calls at a segment's start to those at its end. */
void compose_calls(call_list *calls, const struct segment *s);

/* Page runs and remaps are in the order of segments; here is where a segment's begin. */
struct catalog_place {
    size_t runs, remaps;
    size_t changed;
};

struct catalog {
    VEC(struct history_segment) segments;
    VEC(struct catalog_place) places; /* one more than segments */
    VEC(struct history_block) blocks;
    VEC(struct history_run) runs;
    VEC(struct db_page_run) page_runs;
    VEC(struct db_page_run) changed; /* the same pages in fewer runs, which only tell that they
                                        changed: kind and first are 0 */
    VEC(struct db_remap) remaps;
    VEC(struct db_space) spaces;
    VEC(uint32_t) space_segments; /* segment in which a space began */
    VEC(struct buf) stacks; /* of one that was made: tables of the calls at every STACKS_EVERY-th
                               segment's start */
};
void catalog_deinit(struct catalog *c);
/** Makes it from the files of segments 0..count-1. dir: descriptor of the directory `shown`. */
struct err *catalog_make(int dir, const char *shown, uint64_t build, size_t count,
                         struct catalog *c) nodiscard;
/** Writes the chunks of `meta`. */
struct err *catalog_write(const struct catalog *c, struct chunk_writer *w) nodiscard;
/** Is `meta` what catalog_write() would write? ERR_FORMAT if not. */
struct err *catalog_check(const struct catalog *c, const struct chunk_file *f) nodiscard;
/** Reads them, but the calls. */
struct err *catalog_read(const struct chunk_file *f, struct catalog *c) nodiscard;

#endif
