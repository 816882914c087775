/* Vector registers, for conditions and scatters. Freestanding. */
#ifndef WORKER_VECTORS_H
#define WORKER_VECTORS_H

#include <stdint.h>

enum { VECTOR_LEN = 64, VECTOR_COUNT = 32 };

/** Register n of an XSAVE image in this CPU's layout (x86/xstate.h). */
void vector_of_image(const uint8_t *image, unsigned n, uint8_t out[VECTOR_LEN]);
/** The low 16 bytes of register n, 0 to 15, as they are in the CPU. */
void vector_low(unsigned n, uint8_t out[16]);

#endif
