/* When code in private memory of a space changed: by the coarse index segment by segment, within a
 * segment moment by moment. */
#ifndef QUERY_CODE_CHANGES_INT_H
#define QUERY_CODE_CHANGES_INT_H

#include "query/query_int.h"

/* Part of a page of code that was written, or mapped anew, in a segment. */
struct code_write {
    uint64_t page;
    uint32_t segment;
    uint64_t granules[8];
};

struct code_change {
    gaddr start, end;
    struct moment at; /* here the new code is there */
    bool early;       /* or somewhere in the run before the event `at` */
};

/* Of one space. */
struct code_changes {
    uint32_t space;
    size_t first, count;           /* the space's blocks, in history_blocks() */
    VEC(struct code_write) writes; /* by page, segment */
    struct segment_changes {
        uint32_t segment;
        bool made, known;            /* known: these are all */
        bool not_run;                /* those of events only, as the segment was not run for it */
        VEC(struct code_change) all; /* by time */
    } kept[4];
    unsigned next_kept;
};

/** Fills `out`, which is all zeros, for a space. Reads the events of all segments. */
struct err *code_changes_init(struct query_engine *q, uint32_t space,
                              struct code_changes *out) nodiscard;
void code_changes_deinit(struct code_changes *c);
/** The segments nearest to `at` in which the bytes were written: the last one before or at,
 * UINT32_MAX: none; the first one behind, UINT32_MAX: none. */
void code_changed_around(const struct code_changes *c, gaddr start, gaddr end, uint32_t at,
                         uint32_t *after_out, uint32_t *until_out);
/** Raises *since, a moment of the segment, to the last change at or before `at` of a block that ran
 * in it: from then until `at` all code that ran is as it is at `at`. *known_out false: that cannot
 * be told. Runs the segment, the first time, if instructions may have changed code. */
struct err *code_same_since(struct query_engine *q, struct code_changes *c, size_t segment,
                            struct moment at, struct moment *since, bool *known_out) nodiscard;
/** Likewise forward: lowers *until, a moment of the segment or its end, to the first change behind
 * `at`. Not known if instructions may have changed code: where that is done (by JIT compilers) it
 * is done often, and to run the segment first would not pay. */
struct err *code_same_until(struct query_engine *q, struct code_changes *c, size_t segment,
                            struct moment at, struct moment *until, bool *known_out) nodiscard;

#endif
