/* Chunks of page data that were taken apart last. The pages of a state are made few at a time, when they are touched, and most of them
 * come from the same chunks: to decode one takes as long as the query's run. */
#ifndef DB_PAGE_CACHE_H
#define DB_PAGE_CACHE_H

#include "db/page_coder.h"

/* `chunk` is immutable between page_cache_keep() and page_cache_return(); the rest belongs to the cache. */
struct cached_chunk {
    uint32_t segment, idx;
    unsigned users;
    bool kept;
    uint64_t used;
    struct page_chunk chunk;
};

/* Holds a bounded number of chunks, some 0.5 MB each at most. Any thread. */
struct page_cache;
struct page_cache *page_cache_create(void) nodiscard;
/** All chunks have been returned. NULL is fine. */
void page_cache_destroy(struct page_cache *c);
/** The chunk of a segment, to be returned; NULL: it is not there. */
struct cached_chunk *page_cache_find(struct page_cache *c, uint32_t segment, uint32_t idx) nodiscard;
/** Room to decode a chunk into, of one that was not used for long where there is one; to be returned. */
struct cached_chunk *page_cache_room(struct page_cache *c) nodiscard;
/** From now on others find what was decoded into the room. */
void page_cache_keep(struct page_cache *c, struct cached_chunk *room, uint32_t segment, uint32_t idx);
/** NULL is fine. */
void page_cache_return(struct page_cache *c, struct cached_chunk *chunk);

#endif
