/* Random numbers for tests and benchmarks: the same ones in every run (xorshift64*: Marsaglia 2003,
 * Vigna 2016). */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stdint.h>

/* The next one; *state is never 0. */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1dull;
}

/* One below n, which is not 0. */
static inline uint64_t random_below(uint64_t *state, uint64_t n)
{
    return (next_random(state) >> 11) % n;
}

#endif
