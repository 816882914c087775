/* Segments that were replayed become files: compared, compressed and written by threads of their
 * own, while the replay goes on.
 *
 *   encoders_add()     queue      an encoder (or the one who adds, if the queue is full)
 *   ─────────────> [ 7, 6, 5 ] ─────────────> 000004.part ─> 000004
 *
 * Files can become whole in another order than that of their segments. */
#ifndef INDEX_ENCODERS_H
#define INDEX_ENCODERS_H

#include "db/segment.h"
#include "index/page_pool.h"

struct encoders;
struct encoders_options {
    const char *dir;        /* of the database; borrowed */
    uint64_t build;         /* its number */
    int level;              /* of compression */
    struct page_pool *pool; /* to which the segments' pages are dropped; borrowed */
    unsigned threads;       /* 0: encoders_add() does it */
};
struct err *encoders_create(const struct encoders_options *options,
                            struct encoders **out) nodiscard;
/** What waits is dropped, what is in work is finished. NULL is fine. */
void encoders_destroy(struct encoders *e);
DEFINE_CLEANUP(struct encoders *, encoders_destroy)
/** Takes over *s, whose pages are held. May encode a segment itself. An error is the first that any
 * segment had. */
struct err *encoders_add(struct encoders *e, size_t number, struct segment *s) nodiscard;
/** Encodes all that waits, and returns when no thread has anything left. */
struct err *encoders_finish(struct encoders *e) nodiscard;

#endif
