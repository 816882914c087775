/* Floating point of one element by integer arithmetic, for what no VEX instruction does: how it
 * rounds and which exceptions it meets. */
#ifndef WORKER_EVEX_SOFT_H
#define WORKER_EVEX_SOFT_H

#include "worker/evex.h"

/* Bits of MXCSR (SDM 1, 10.2.3). */
enum {
    SOFT_INVALID = 1,
    SOFT_DENORMAL = 2,
    SOFT_ZERO_DIVIDE = 4,
    SOFT_OVERFLOW = 8,
    SOFT_UNDERFLOW = 0x10,
    SOFT_PRECISION = 0x20,
    SOFT_DENORMALS_ARE_ZERO = 0x40,
    SOFT_ALL_MASKED = 0x1f80,
    SOFT_ROUNDING_AT = 13,
    SOFT_FLUSH_TO_ZERO = 0x8000
};
enum { SOFT_TO_NEAREST, SOFT_DOWNWARDS, SOFT_UPWARDS, SOFT_TO_ZERO }; /* MXCSR.RC */

/* How the instruction rounds, and which exceptions it has met. */
struct soft_context {
    unsigned rounding, flags;
    bool zero_denormals, flush_to_zero;
};

static inline struct soft_context soft_begin(const struct evex_insn *in)
{
    uint32_t mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    if (!in->rounding && (mxcsr & SOFT_ALL_MASKED) != SOFT_ALL_MASKED)
        evex_give_up();
    bool given = in->rounding && in->rounding != EVEX_SAE;
    return (struct soft_context){.rounding = given ? (unsigned)in->rounding - EVEX_NEAREST
                                                   : mxcsr >> SOFT_ROUNDING_AT & 3u,
                                 .zero_denormals = mxcsr & SOFT_DENORMALS_ARE_ZERO,
                                 .flush_to_zero = mxcsr & SOFT_FLUSH_TO_ZERO};
}

/* Shows the exceptions in MXCSR, unless the instruction suppresses them. */
static inline void soft_end(const struct evex_insn *in, const struct soft_context *c)
{
    uint32_t mxcsr;
    if (in->rounding || !c->flags)
        return;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    mxcsr |= c->flags;
    __asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
}

/* The layout of binary32 or binary64 (IEEE 754). */
struct soft_format {
    unsigned mantissa, exponent; /* bits */
    int bias;
};

static inline struct soft_format soft_format(unsigned bytes)
{
    return bytes == 8 ? (struct soft_format){52, 11, 1023} : (struct soft_format){23, 8, 127};
}

/* Is 1 to be added to a magnitude that was cut off after its last bit? rest: what was cut off,
 * compared with half of that bit. */
static inline bool soft_rounds_up(const struct soft_context *c, bool negative, bool odd, bool any,
                                  int against_half)
{
    switch (c->rounding) {
    case SOFT_TO_NEAREST:
        return against_half > 0 || (against_half == 0 && odd);
    case SOFT_DOWNWARDS:
        return negative && any;
    case SOFT_UPWARDS:
        return !negative && any;
    default:
        return false;
    }
}

/* Element i of a vector. */
static inline uint64_t soft_get(const uint8_t *v, unsigned element, unsigned i)
{
    return element == 8 ? *(const uint64_t *)(const void *)(v + 8 * i)
                        : *(const uint32_t *)(const void *)(v + 4 * i);
}

static inline void soft_put(uint8_t *v, unsigned element, unsigned i, uint64_t value)
{
    if (element == 8)
        *(uint64_t *)(void *)(v + 8 * i) = value;
    else
        *(uint32_t *)(void *)(v + 4 * i) = (uint32_t)value;
}

#endif
