#include "worker/vectors.h"

#include "x86/xstate.h"

void vector_of_image(const uint8_t *image, unsigned n, uint8_t out[VECTOR_LEN])
{
    if (n >= 16) {
        __builtin_memcpy(out, image + xstate_offset(XSTATE_HI16_ZMM) + 64 * (n - 16), 64);
        return;
    }
    __builtin_memcpy(out, image + 160 + 16 * n, 16);
    __builtin_memcpy(out + 16, image + xstate_offset(XSTATE_AVX) + 16 * n, 16);
    __builtin_memcpy(out + 32, image + xstate_offset(XSTATE_ZMM_HI256) + 32 * n, 32);
}

void vector_low(unsigned n, uint8_t out[16])
{
#define ONE(N)                                                              \
    case N:                                                                 \
        __asm__ volatile("movups %%xmm" #N ", (%0)" ::"r"(out) : "memory"); \
        break;
    switch (n) {
        // clang-format off
        ONE(0) ONE(1) ONE(2) ONE(3) ONE(4) ONE(5) ONE(6) ONE(7)
        ONE(8) ONE(9) ONE(10) ONE(11) ONE(12) ONE(13) ONE(14) ONE(15)
    default:
        __builtin_memset(out, 0, 16);
        // clang-format on
    }
#undef ONE
}
