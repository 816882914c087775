/* Builds the worker's program: worker.so and libZydis.so, relocated for an address, as one
 * executable file. */
#ifndef WORKER_LOADER_H
#define WORKER_LOADER_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/** Length of the program in memory, whatever its address. */
struct err *loader_image_len(uint64_t *out) nodiscard;
/** The program for `base`, a descriptor for execveat(2); kept and shared between workers, borrowed
 * for ever. Any thread. */
struct err *loader_image_for(uint64_t base, int *fd_out) nodiscard;

#endif
