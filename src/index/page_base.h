/* What pages held when the segment in work began: with that, a page is stored as its changes
 * (db/page_coder.h), or not at all if it has not changed. Pages that no segment of this build has
 * changed yet are not known: they are stored whole. One thread. */
#ifndef INDEX_PAGE_BASE_H
#define INDEX_PAGE_BASE_H

#include "index/page_pool.h"

struct page_base;
/** At most max_pages pages are known; with more all is forgotten. The pool is borrowed. */
struct page_base *page_base_create(struct page_pool *pool, size_t max_pages) nodiscard;
/** NULL is fine. */
void page_base_destroy(struct page_base *b);
DEFINE_CLEANUP(struct page_base *, page_base_destroy)
/**
 * At the segment's end the page holds `now`. False: that is what it held before, too.
 *
 * Else *now_out are the contents, and *before_out those of before, NULL if they are not known; the
 * caller holds both.
 */
bool page_base_change(struct page_base *b, uint32_t space, uint32_t object, uint64_t page,
                      const uint8_t *now, const uint8_t **now_out,
                      const uint8_t **before_out) nodiscard;
/** The range of a space was mapped afresh or is gone. */
void page_base_forget(struct page_base *b, uint32_t space, gaddr start, gaddr end);

#endif
