#include "db/shared.h"

#include "base/buf.h"
#include "base/test.h"

enum { PLACES = 8, MANY = 50 };

static unsigned destroyed;

static void destroy(void *thing)
{
    *(int *)thing = -1;
    free(thing);
    destroyed++;
}

static int *add(struct shared *s, int number)
{
    int *thing = xmalloc(sizeof(*thing));
    *thing = number;
    shared_add(s, (uint64_t)number, thing, 10);
    return thing;
}

TEST(what_was_used_last_stays)
{
    struct shared *s = shared_create(PLACES, SIZE_MAX, destroy);
    destroyed = 0;
    for (int i = 0; i < MANY; i++) {
        shared_return(s, add(s, i));
        int *first = shared_find(s, 0);
        assert_non_null(first);
        assert_int_equal(*first, 0);
        shared_return(s, first);
    }
    assert_int_equal(destroyed, MANY - PLACES);
    assert_null(shared_find(s, 1));
    for (uint64_t i = MANY - PLACES + 1; i < MANY; i++)
        assert_true(shared_has(s, i));
    shared_destroy(s);
    assert_int_equal(destroyed, MANY);
}

TEST(what_is_in_use_is_not_destroyed)
{
    struct shared *s = shared_create(PLACES, SIZE_MAX, destroy);
    int *held = add(s, 1000), *again = shared_find(s, 1000);
    assert_ptr_equal(held, again);
    shared_return(s, again);
    for (int i = 0; i < MANY; i++)
        shared_return(s, add(s, i));
    assert_int_equal(*held, 1000);
    shared_return(s, held);
    for (int i = 0; i < MANY; i++)
        shared_return(s, add(s, i));
    assert_false(shared_has(s, 1000)); // it gave way at last
    shared_destroy(s);
}

TEST(more_than_there_are_places_may_be_in_use)
{
    struct shared *s = shared_create(PLACES, SIZE_MAX, destroy);
    int *held[MANY];
    destroyed = 0;
    for (int i = 0; i < MANY; i++)
        held[i] = add(s, i);
    assert_int_equal(destroyed, 0);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(*held[i], i);
        shared_return(s, held[i]);
    }
    assert_int_equal(destroyed, MANY - PLACES);
    shared_destroy(s);
}

TEST(no_more_bytes_are_kept_than_wanted)
{
    struct shared *s = shared_create(PLACES, 35, destroy);
    destroyed = 0;
    for (int i = 0; i < MANY; i++)
        shared_return(s, add(s, i));
    assert_int_equal(destroyed, MANY - 3);
    for (uint64_t i = MANY - 3; i < MANY; i++)
        assert_true(shared_has(s, i));
    int *held[4] = {add(s, 100), add(s, 101), add(s, 102),
                    add(s, 103)}; // what is in use may be more
    for (int i = 0; i < 4; i++)
        assert_int_equal(*held[i], 100 + i);
    for (int i = 0; i < 4; i++)
        shared_return(s, held[i]);
    shared_return(s, add(s, 104));
    assert_true(shared_has(s, 104));
    assert_false(shared_has(s, 100));
    shared_destroy(s);
    assert_int_equal(destroyed, MANY + 5);
}

TEST_MAIN(t(what_was_used_last_stays), t(no_more_bytes_are_kept_than_wanted),
          t(what_is_in_use_is_not_destroyed), t(more_than_there_are_places_may_be_in_use))
