/* Private parts of an open database. */
#ifndef DB_HISTORY_INT_H
#define DB_HISTORY_INT_H

#include "db/catalog.h"
#include "db/page_cache.h"

enum { CACHE_SLOTS = 64 };
enum { CACHED_CALLS = PART_STACKS + 1 }; /* all calls at the segment's start */
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
    struct page_cache *page_cache;
};

#endif
