/* Tests of expressions: CHECK(e) compares what this very program, which looks at itself, gets for
 * the text of e with what its compiler made of it. */
#ifndef SYM_EXPRESSION_TEST_H
#define SYM_EXPRESSION_TEST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Compares the value of `text` at the place of the call; a result of floating point as the bits of
 * a double. */
void check_here(const char *text, uint64_t bits, int is_real);
/** The same, but it may be optimized out. */
void check_perhaps(const char *text, uint64_t bits, int is_real);
/** The same, of an expression that calls functions of this program. */
void check_call(const char *text, uint64_t bits, int is_real);
/** It must fail with a message that contains `why`. */
void check_fails(const char *text, const char *why);
/** It must be shown as `shown`. */
void check_shown(const char *text, const char *shown);
/** What it is shown as must begin like that. */
void check_begins(const char *text, const char *begin);
/** Its parts from `first` on, `max` at most, must be "name=shown name=shown"; each that has an
 * expression must be the same by it. */
void check_parts(const char *text, uint64_t first, uint64_t max, const char *parts);
/** The number of expressions checked so far. */
void test_cplusplus(void);
void test_containers(void);
void test_random(void);
void test_calls(void);

static inline uint64_t bits_of_double(double d)
{
    uint64_t v;
    __builtin_memcpy(&v, &d, sizeof(v));
    return v;
}

#define CHECK(...)           check_here(#__VA_ARGS__, (uint64_t)(__VA_ARGS__), 0)
#define CHECK_REAL(...)      check_here(#__VA_ARGS__, bits_of_double((double)(__VA_ARGS__)), 1)
#define CHECK_CALL(...)      check_call(#__VA_ARGS__, (uint64_t)(__VA_ARGS__), 0)
#define CHECK_CALL_REAL(...) check_call(#__VA_ARGS__, bits_of_double((double)(__VA_ARGS__)), 1)
#define CHECK_PERHAPS(...)   check_perhaps(#__VA_ARGS__, (uint64_t)(__VA_ARGS__), 0)

#ifdef __cplusplus
}
#endif
#endif
