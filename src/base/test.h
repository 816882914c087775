/* Unit tests over cmocka: TEST(name) { ... } and a main made by TEST_MAIN(t(a), t(b)). Names are
 * sentences. */
#ifndef BASE_TEST_H
#define BASE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TEST(name) static void name(void **state __attribute__((unused)))
#define t(name)    cmocka_unit_test(name)
#define TEST_MAIN(...)                                    \
    int main(void)                                        \
    {                                                     \
        const struct CMUnitTest tests[] = {__VA_ARGS__};  \
        return cmocka_run_group_tests(tests, NULL, NULL); \
    }

/* Fails the test with the message of an error. */
#define assert_ok(expression)                    \
    do {                                         \
        struct err *ok_err = (expression);       \
        if (ok_err)                              \
            fail_msg("%s", err_message(ok_err)); \
    } while (0)

#endif
