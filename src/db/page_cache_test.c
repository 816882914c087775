#include "db/page_cache.h"

#include "base/test.h"

enum { MANY = 100 };

static void keep_one(struct page_cache *c, uint32_t segment, uint32_t idx)
{
    struct cached_chunk *room = page_cache_room(c);
    room->chunk.count = segment + idx;
    page_cache_keep(c, room, segment, idx);
    page_cache_return(c, room);
}

TEST(a_chunk_is_found_by_segment_and_number)
{
    struct page_cache *c = page_cache_create();
    keep_one(c, 3, 5);
    struct cached_chunk *found = page_cache_find(c, 3, 5);
    assert_non_null(found);
    assert_int_equal(found->chunk.count, 8);
    assert_null(page_cache_find(c, 3, 4));
    assert_null(page_cache_find(c, 5, 3));
    page_cache_return(c, found);
    page_cache_destroy(c);
}

TEST(chunks_in_use_stay_what_they_are)
{
    struct page_cache *c = page_cache_create();
    keep_one(c, 0, 7);
    struct cached_chunk *held = page_cache_find(c, 0, 7);
    for (uint32_t i = 1; i <= MANY; i++)
        keep_one(c, i, 0);
    assert_int_equal(held->chunk.count, 7);
    struct cached_chunk *again = page_cache_find(c, 0, 7);
    assert_ptr_equal(again, held);
    page_cache_return(c, again);
    page_cache_return(c, held);
    for (uint32_t i = 1; i <= MANY; i++)
        keep_one(c, i, 0);
    assert_null(page_cache_find(c, 0, 7)); // it gave way at last
    page_cache_destroy(c);
}

TEST(there_is_room_when_all_are_in_use)
{
    struct page_cache *c = page_cache_create();
    struct cached_chunk *held[MANY];
    for (uint32_t i = 0; i < MANY; i++) {
        held[i] = page_cache_room(c);
        held[i]->chunk.count = i;
        page_cache_keep(c, held[i], i, 0);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(held[i]->chunk.count, i);
        page_cache_return(c, held[i]);
    }
    page_cache_destroy(c);
}

TEST_MAIN(t(a_chunk_is_found_by_segment_and_number), t(chunks_in_use_stay_what_they_are), t(there_is_room_when_all_are_in_use))
