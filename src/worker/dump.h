/* Blocks as they are translated, for people who look for the translator's errors. Off unless asked
 * for. Freestanding. */
#ifndef WORKER_DUMP_H
#define WORKER_DUMP_H

#include "worker/wire.h"

void dump_select(bool on);
uint64_t dump_take(uint8_t *window, uint64_t len, uint64_t *left_out);

#endif
