/* Replays one segment in index mode and gathers what the database keeps of it. */
#ifndef INDEX_SEGMENT_BUILDER_H
#define INDEX_SEGMENT_BUILDER_H

#include "db/segment.h"
#include "index/page_base.h"
#include "replay/replay.h"

/* A segment ends after this many instructions or events, whichever comes first, or when it has
 * written about so many pages, which is looked at now and then: to get to a moment in it these
 * pages and those they are computed from may have to be restored. Every run of the same trace with
 * the same numbers cuts it at the same moments. */
struct segment_rule {
    uint64_t icount;
    uint64_t events;
    uint64_t pages;
};
enum { SEGMENT_PAGES = 2048 };

/**
 * Runs `r` (which stands at the segment's start) to the segment's end and fills *out
 * (zero-initialised). r is left at the end with no observer.
 *
 * base: what pages held at the start; brought up to date with the segment's end. out->pages are
 * those that changed; the caller holds their contents (page_pool.h), even after an error. NULL:
 * pages are not wanted.
 */
struct err *segment_build(struct replay *r, const struct segment_rule *rule, struct page_base *base,
                          struct segment *out) nodiscard;

#endif
