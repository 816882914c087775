/* Replays one segment in log mode and gathers what the database keeps of it. */
#ifndef INDEX_SEGMENT_BUILDER_H
#define INDEX_SEGMENT_BUILDER_H

#include "index/page_base.h"

/* A segment ends after this many instructions or events, whichever comes first; every run of the same trace with the same
 * numbers cuts it at the same moments. */
struct segment_rule {
    uint64_t icount;
    uint64_t events;
};

/**
 * Runs `r` (which stands at the segment's start) to the segment's end, hands the pages that were written to `w` and fills the rest of
 * *out (zero-initialised). r is left at the end with no observer.
 *
 * base: what pages held at the start; brought up to date with the segment's end. w and base NULL: pages are not wanted.
 */
struct err *segment_build(struct replay *r, const struct segment_rule *rule, struct page_base *base, struct segment_writer *w,
                          struct segment *out) nodiscard;
/** The same run without gathering anything. */
struct err *segment_skip(struct replay *r, const struct segment_rule *rule) nodiscard;

#endif
