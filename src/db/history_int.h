/* Private parts of an open database. */
#ifndef DB_HISTORY_INT_H
#define DB_HISTORY_INT_H

#include "db/catalog.h"
#include "db/shared.h"

enum { CACHE_SLOTS = 64 };
enum { CACHED_CALLS = PART_CALLS + 1 }; /* all calls at the segment's start */
struct cached {
    size_t segment;
    int part; /* enum segment_part, or CACHED_CALLS */
    bool full;
    uint64_t used;
    struct segment s;
};

struct history {
    char *path;
    int dir;
    uint64_t build;
    bool complete;
    struct history_plan plan;
    struct catalog catalog;
    struct chunk_file *meta; /* NULL: in the making */
    struct cached cache[CACHE_SLOTS];
    uint64_t clock;
    struct shared *files;  /* struct chunk_file by segment */
    struct shared *chunks; /* struct page_chunk by segment and number (pages.c) */
};

/* A segment's file, borrowed: history_return_file(). Any thread. */
struct err *history_segment_file(const struct history *h, size_t segment,
                                 struct chunk_file **out) nodiscard;
void history_return_file(const struct history *h, struct chunk_file *f);
/* For `chunks`. */
void page_chunk_drop(void *chunk);

#endif
