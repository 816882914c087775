/* How contents of pages are put into chunks of page data, before zstd. docs/format.md, "page data".
 *
 * Three things make pages smaller, by far more than a higher level of zstd does:
 *
 *   words     A page that the reader knows an older version of is stored as the 8-byte words that changed: 64 bytes of bits that
 *             say which, and the words. (objects of the benchmarks: 5.2 MB become 1.0 MB.)
 *   filters   Arrays of numbers look random to zstd byte by byte. The words of a chunk are laid out anew: all first bytes, all second
 *             bytes..., after each word had an earlier one taken from it. (stream: 97 MB become 21 MB.)
 *   trial     Which filter suits a chunk is tried on a sample of it with the fastest zstd.
 *
 * A chunk has two sections, each with a filter of its own: the changed words of all pages, one page
 * after the other, and the pages that are stored whole. */
#ifndef DB_PAGE_CODER_H
#define DB_PAGE_CODER_H

#include "base/buf.h"
#include "base/types.h"

enum { PAGES_PER_CHUNK = 128 };

/* A page to store. */
struct page_image {
    const uint8_t *now;
    const uint8_t *before; /* store as words: what the reader will have when it comes to this one;
                              NULL: store the page whole */
};

/* Room and a compressor for trials. One thread. */
struct page_coder;
struct page_coder *page_coder_create(void) nodiscard;
/** NULL is fine. */
void page_coder_destroy(struct page_coder *c);
/** Appends the chunk of `count` pages, at most PAGES_PER_CHUNK. */
void page_chunk_encode(struct page_coder *c, const struct page_image *pages, size_t count,
                       struct buf *out);
/** How a page is best stored. */
enum page_form { PAGE_SAME, PAGE_WORDS, PAGE_WHOLE, PAGE_ZERO };
/** before: NULL if there is none. PAGE_SAME and PAGE_WORDS only with one. */
enum page_form page_form(const uint8_t *now, const uint8_t *before);

/* A chunk, taken apart. */
struct page_chunk {
    size_t count;
    bool words_are_xor;                /* of old and new, instead of the new ones */
    struct buf words, whole;           /* the two sections, unfiltered */
    uint8_t bits[PAGES_PER_CHUNK][64]; /* of pages stored as words */
    bool is_words[PAGES_PER_CHUNK];
    uint32_t off[PAGES_PER_CHUNK]; /* in the page's section */
};
void page_chunk_deinit(struct page_chunk *c);
/** False: the bytes break the format. c is zero-initialised, or one that was used before. */
bool page_chunk_decode(const uint8_t *data, size_t len, struct page_chunk *c) nodiscard;
/** Makes `page` the idx-th page of the chunk. One stored as words needs the version before in
 * `page`. idx < c->count. */
void page_chunk_apply(const struct page_chunk *c, size_t idx, uint8_t *page);

#endif
