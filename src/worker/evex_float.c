/* Conversions of floating point that only AVX-512 has, and classes of numbers: by integer
 * arithmetic. */
#include "worker/evex_soft.h"

/* Shifts a magnitude to the right, and rounds it. */
static uint64_t shift_and_round(struct soft_context *c, uint64_t v, unsigned by, bool negative)
{
    if (!by)
        return v;
    uint64_t whole = by < 64 ? v >> by : 0,
             rest = by < 64 ? v << (64 - by)
                    : v     ? 1
                            : 0,
             half = 1ull << 63;
    if (by == 64)
        rest = v;
    int against_half = rest > half ? 1 : rest == half ? 0 : -1;
    if (rest)
        c->flags |= SOFT_PRECISION;
    return whole + soft_rounds_up(c, negative, whole & 1, rest != 0, against_half);
}

/* `bytes` of a number, to an integer of `to` bytes. */
static uint64_t to_integer(struct soft_context *c, uint64_t v, unsigned bytes, unsigned to,
                           bool is_signed)
{
    struct soft_format f = soft_format(bytes);
    bool negative = v >> (8 * bytes - 1) & 1;
    uint64_t mantissa = v & ((1ull << f.mantissa) - 1);
    int exponent = (int)(v >> f.mantissa & ((1u << f.exponent) - 1));
    uint64_t most = is_signed  ? (1ull << (8 * to - 1)) - 1 + negative
                    : negative ? 0
                               : ~0ull >> (64 - 8 * to);
    uint64_t indefinite = is_signed ? 1ull << (8 * to - 1) : ~0ull >> (64 - 8 * to);
    if (exponent == 0 && c->zero_denormals)
        mantissa = 0;
    if (exponent)
        mantissa |= 1ull << f.mantissa;
    else
        exponent = 1;
    int up = exponent - f.bias - (int)f.mantissa; // the value is mantissa * 2^up
    unsigned before = c->flags;
    uint64_t magnitude =
        up >= 0 ? mantissa << (up & 63)
                : shift_and_round(c, mantissa, up < -127 ? 127u : (unsigned)-up, negative);
    if (up + (int)f.mantissa >= 64 || magnitude > most) { // too large, infinite, or not a number
        c->flags = before | SOFT_INVALID;
        return indefinite;
    }
    return negative ? -magnitude : magnitude;
}

/* An integer of 64 bits to a number of `bytes`. */
static uint64_t from_integer(struct soft_context *c, uint64_t v, unsigned bytes, bool negative)
{
    struct soft_format f = soft_format(bytes);
    uint64_t sign = (uint64_t)negative << (8 * bytes - 1), magnitude = negative ? -v : v;
    if (!magnitude)
        return 0;
    unsigned length = 64 - (unsigned)__builtin_clzll(magnitude), kept = f.mantissa + 1;
    uint64_t exponent = (uint64_t)f.bias + length - 1;
    uint64_t mantissa = length > kept ? shift_and_round(c, magnitude, length - kept, negative)
                                      : magnitude << (kept - length);
    // The leading one adds to the exponent; so does a carry out of rounding.
    return sign | (((exponent - 1) << f.mantissa) + mantissa);
}

void evex_convert(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned which = in->src[1].kind ? 1 : 0, from = in->src[which].element, to = in->dst.element;
    bool is_signed = in->what & EVEX_CONVERT_SIGNED;
    if (which) // a scalar
        for (unsigned i = 0; i < 2; i++)
            soft_put(w->out, 8, i, soft_get(w->src[0], 8, i));
    if (!w->mask)
        return;
    struct soft_context c = soft_begin(in);
    if (in->what & EVEX_CONVERT_TRUNCATES)
        c.rounding = SOFT_TO_ZERO;
    for (unsigned i = 0; i < in->count; i++) {
        if (!(w->mask >> i & 1))
            continue;
        uint64_t v = soft_get(w->src[which], from, i);
        if (in->what & EVEX_CONVERT_TO_INTEGER) {
            v = to_integer(&c, v, from, to, is_signed);
        } else {
            bool negative = is_signed && v >> (8 * from - 1);
            v = from_integer(&c, negative && from == 4 ? v | ~0ull << 32 : v, to, negative);
        }
        soft_put(w->out, to, i, v);
    }
    soft_end(in, &c);
}

/* Bits of the immediate of vfpclass (SDM 2C). */
enum {
    QUIET_NAN = 1,
    PLUS_ZERO = 2,
    MINUS_ZERO = 4,
    PLUS_INFINITY = 8,
    MINUS_INFINITY = 16,
    DENORMAL = 32,
    NEGATIVE = 64,
    SIGNALING_NAN = 128
};

static unsigned class_of(const struct soft_context *c, uint64_t v, unsigned bytes)
{
    struct soft_format f = soft_format(bytes);
    bool negative = v >> (8 * bytes - 1) & 1;
    uint64_t mantissa = v & ((1ull << f.mantissa) - 1),
             exponent = v >> f.mantissa & ((1u << f.exponent) - 1);
    if (exponent == (1u << f.exponent) - 1)
        return mantissa >> (f.mantissa - 1) ? QUIET_NAN
               : mantissa                   ? SIGNALING_NAN
               : negative                   ? MINUS_INFINITY
                                            : PLUS_INFINITY;
    if (exponent == 0 && (mantissa == 0 || c->zero_denormals))
        return negative ? MINUS_ZERO : PLUS_ZERO;
    return (exponent ? 0 : DENORMAL) | (negative ? NEGATIVE : 0);
}

void evex_classify(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    uint64_t result = 0;
    uint32_t mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    struct soft_context c = {.zero_denormals = mxcsr & SOFT_DENORMALS_ARE_ZERO};
    for (unsigned i = 0; i < in->count; i++)
        result |= (uint64_t)((class_of(&c, soft_get(w->src[0], in->src[0].element, i),
                                       in->src[0].element) &
                              in->imm) != 0)
                  << i;
    *(uint64_t *)(void *)w->out = result & w->mask;
}

/* To the nearest, and denormals are zeros, whatever MXCSR says; no exceptions (SDM 2C,
 * VCVTNEPS2BF16). */
static uint64_t bf16_of(uint32_t v)
{
    uint32_t exponent = v >> 23 & 0xff, mantissa = v & 0x7fffff;
    if (exponent == 0)
        return v >> 16 & 0x8000;
    if (exponent == 0xff && mantissa)
        return v >> 16 | 0x40;
    return (v + 0x7fff + (v >> 16 & 1)) >> 16;
}

/* Of two sources the second one is the lower half. */
void evex_to_bf16(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned of_one = in->src[1].kind ? in->count / 2u : in->count, lower = in->src[1].kind ? 1 : 0;
    for (unsigned i = 0; i < in->count; i++) {
        uint64_t v =
            i < of_one ? soft_get(w->src[lower], 4, i) : soft_get(w->src[0], 4, i - of_one);
        *(uint16_t *)(void *)(w->out + 2 * i) = (uint16_t)bf16_of((uint32_t)v);
    }
}
