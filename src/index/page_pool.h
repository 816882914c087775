/* Contents of pages, each kept once and shared by all who hold it: what pages hold now
 * (page_base.h), and segments that wait to be written (encoders.h). Contents do not change. All of
 * it is memory of its own, in large pieces, which forks of the process do not get. */
#ifndef INDEX_PAGE_POOL_H
#define INDEX_PAGE_POOL_H

#include "base/cleanup.h"
#include "base/types.h"

#include <stddef.h>

struct page_pool;
struct page_pool *page_pool_create(void) nodiscard;
/** Contents that are still held are gone, too. NULL is fine. */
void page_pool_destroy(struct page_pool *p);
DEFINE_CLEANUP(struct page_pool *, page_pool_destroy)
/** Copies PAGE_SIZE bytes. The result has one holder. Any thread, as the following. */
const uint8_t *page_pool_add(struct page_pool *p, const uint8_t *contents) nodiscard;
/** One more holder. */
void page_pool_hold(const uint8_t *contents);
/** One holder less. NULL is fine. */
void page_pool_drop(struct page_pool *p, const uint8_t *contents);

#endif
