/* What all oracles share: the same random questions in every run, counted checks, the first
 * failures shown. One program each includes it once. */
#ifndef ORACLE_CHECK_H
#define ORACLE_CHECK_H

#include "base/err.h"
#include "base/random.h"

#include <stdio.h>
#include <stdlib.h>

#define FIRST_RANDOM_STATE 88172645463325252ull
static uint64_t random_state = FIRST_RANDOM_STATE;
static unsigned failures, checks;

static inline uint64_t random_number(void)
{
    return next_random(&random_state);
}

/* Ends the program with an error's message. */
static inline void must(struct err *e)
{
    if (!e)
        return;
    printf("FAIL: %s\n", err_message(e));
    exit(1);
}

#define CHECK(condition, ...)                  \
    do {                                       \
        checks++;                              \
        if (!(condition) && failures++ < 30) { \
            printf("FAIL: " __VA_ARGS__);      \
            putchar('\n');                     \
        }                                      \
    } while (0)

#endif
