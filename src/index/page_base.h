/* What pages held when the segment in work began: with that, a page is stored as its changes (db/page_coder.h).
 *
 * Two sources: a frozen replay that stands where the job began, and, for the job's later segments, what was stored last. Pages
 * that neither knows are stored whole. One thread. */
#ifndef INDEX_PAGE_BASE_H
#define INDEX_PAGE_BASE_H

#include "db/segment.h"
#include "replay/replay.h"

struct page_base;
/** start: where the job begins; taken over; NULL: there is none. At most max_pages pages are kept; with more all is forgotten. */
struct page_base *page_base_create(struct replay *start, size_t max_pages) nodiscard;
/** NULL is fine. */
void page_base_destroy(struct page_base *b);
DEFINE_CLEANUP(struct page_base *, page_base_destroy)
/** Fetches `count` neighbouring pages; known_out[i] tells whether the i-th was to be had. */
void page_base_get(struct page_base *b, uint32_t space, uint32_t object, uint64_t page, size_t count, uint8_t *out, bool *known_out);
/** The segment is done and has left this in the page. */
void page_base_put(struct page_base *b, uint32_t space, uint32_t object, uint64_t page, const uint8_t *now);
/** The range of a space was mapped afresh or is gone. */
void page_base_forget(struct page_base *b, uint32_t space, gaddr start, gaddr end);

#endif
