/* Where a scatter instruction stores: only its vector registers tell. Freestanding. */
#ifndef WORKER_SCATTER_H
#define WORKER_SCATTER_H

#include <stdint.h>

/** Calls each(address, len) for every element of the scatter instruction at pc, whether its mask
 * lets it or not (the mask is gone when the instruction is done). base: the address without the
 * index; vectors: an image of XSAVE. */
void scatter_elements(uint64_t pc, uint64_t base, const uint8_t *vectors,
                      void (*each)(uint64_t address, uint64_t len));

#endif
