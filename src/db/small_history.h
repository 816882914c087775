/* For tests: a small random database, and what is in it by a model that keeps everything. */
#ifndef DB_SMALL_HISTORY_H
#define DB_SMALL_HISTORY_H

#include "db/history.h"

enum { SMALL_PAGES = 24, SMALL_SPACES = 6, SMALL_OBJECT = 1, SMALL_MAX_SEGMENTS = 64 };

/* All memory at one boundary. Space s is memory[s - 1]; the last is the shared object. */
struct small_state {
    bool alive[SMALL_SPACES + 1];
    uint8_t memory[SMALL_SPACES + 1][SMALL_PAGES][PAGE_SIZE];
    VEC(struct db_call) calls;
};

struct small_history {
    struct history_plan plan;
    size_t count;           /* segments */
    struct small_state *at; /* count + 1 of them: at each boundary */
};

/** Address of a page. */
uint64_t small_page_addr(size_t page);
/** What a fresh mapping has in a page of a space: zeros, or a file's contents. */
void small_fresh_page(size_t page, uint8_t *out);
/** Writes plan and segments of a database into dir, an empty directory. Without `meta`: see
 * history_join(). */
struct err *small_history_create(const char *dir, uint64_t seed, size_t segments,
                                 struct small_history **out) nodiscard;
void small_history_destroy(struct small_history *s);

#endif
