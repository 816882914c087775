#include "db/page_coder.h"

#include "base/random.h"
#include "base/test.h"

#include <stdio.h>

/* Contents that suit one filter or another. */
static void fill(uint8_t *page, unsigned kind, uint64_t *random)
{
    uint64_t walk = 0;
    for (size_t i = 0; i < PAGE_SIZE; i += 8) {
        uint64_t v = 0;
        switch (kind) {
        case 0:
            v = next_random(random);
            break;
        case 1: // numbers of 4 bytes, many of them 0
            for (unsigned half = 0; half < 64; half += 32)
                v |= (next_random(random) % 2 ? next_random(random) % 0x30000 : 0) << half;
            break;
        case 2: // numbers of 8 bytes
            v = (next_random(random) % 7) << 56 | 0x1234567890ab00 | next_random(random) % 11;
            break;
        case 3: // the difference from the word before has one bit
            walk ^= 1ull << next_random(random) % 64;
            v = walk;
            break;
        default: // steps of a structure of 32 bytes
            v = i / 32 * 0x1000003 + i % 32 * 0x123456789;
        }
        memcpy(page + i, &v, 8);
    }
}

TEST(pages_come_back_from_every_filter_whole_and_as_words)
{
    static uint8_t now[PAGES_PER_CHUNK][PAGE_SIZE], before[PAGES_PER_CHUNK][PAGE_SIZE],
        page[PAGE_SIZE];
    uint64_t random = 42;
    struct page_coder *coder = page_coder_create();
    struct page_chunk *chunk = xnew(struct page_chunk);
    unsigned filters_seen = 0;
    for (unsigned round = 0; round < 60; round++) {
        struct page_image images[PAGES_PER_CHUNK];
        size_t count = 1 + next_random(&random) % PAGES_PER_CHUNK;
        for (size_t i = 0; i < count; i++) {
            fill(before[i], round % 5, &random);
            fill(now[i], (round / 5) % 5, &random);
            bool words = round % 3 && next_random(&random) % 4;
            if (words && next_random(&random) % 2) // few changes
                memcpy(now[i] + 8, before[i] + 8, PAGE_SIZE - 16);
            images[i] = (struct page_image){now[i], words ? before[i] : NULL};
        }
        cleanup(buf_deinit) struct buf data = {0};
        page_chunk_encode(coder, images, count, &data);
        filters_seen |= 1u << (data.data[1] & 0x7f) | 1u << data.data[2];
        assert_true(page_chunk_decode(data.data, data.len, chunk));
        assert_int_equal(chunk->count, count);
        for (size_t i = 0; i < count; i++) {
            memcpy(page, before[i], PAGE_SIZE);
            page_chunk_apply(chunk, i, page);
            assert_memory_equal(page, now[i], PAGE_SIZE);
        }
        // Cut anywhere it is refused.
        for (size_t len = 0; len < data.len; len += 1 + len / 3)
            assert_false(page_chunk_decode(data.data, len, chunk));
    }
    assert_int_equal(filters_seen, 0x1f);
    page_chunk_deinit(chunk);
    free(chunk);
    page_coder_destroy(coder);
}

TEST(the_form_of_a_page_is_the_least_that_tells_it)
{
    static uint8_t now[PAGE_SIZE], before[PAGE_SIZE];
    assert_int_equal(page_form(now, NULL), PAGE_ZERO);
    assert_int_equal(page_form(now, before), PAGE_SAME);
    before[7] = 1;
    assert_int_equal(page_form(now, before), PAGE_ZERO);
    now[100] = 1;
    assert_int_equal(page_form(now, NULL), PAGE_WHOLE);
    assert_int_equal(page_form(now, before), PAGE_WORDS);
    memset(now, 1, 3500);
    assert_int_equal(page_form(now, before), PAGE_WHOLE);
}

TEST_MAIN(t(pages_come_back_from_every_filter_whole_and_as_words),
          t(the_form_of_a_page_is_the_least_that_tells_it))
