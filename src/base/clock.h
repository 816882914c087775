/* Time that only goes forward. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

/** Milliseconds since some moment before the program began (CLOCK_MONOTONIC). */
uint64_t now_ms(void);

#endif
