#include "base/cpus.h"
#include "base/test.h"

#include <sched.h>

static void counts_what_it_may_run_on(void **state)
{
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    assert_int_equal(usable_cpus(), CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++) {
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    }
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(usable_cpus(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

static void *add_one(void *item)
{
    ++*(int *)item;
    return NULL;
}

static void each_item_is_worked_on_once(void **state)
{
    int items[40] = {0};
    for (size_t count = 0; count <= 40; count += 20) {
        work_side_by_side(add_one, items, sizeof(items[0]), count);
        for (size_t i = 0; i < 40; i++)
            assert_int_equal(items[i], count < 20 ? 0 : count == 20 ? i < 20 : 1 + (i < 20));
    }
}

TEST_MAIN(t(counts_what_it_may_run_on), t(each_item_is_worked_on_once))
