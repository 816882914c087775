/* Conversions between floating point and integers that only AVX-512 has, and classes of numbers: by integer arithmetic. */
#include "worker/evex.h"

enum { INVALID = 1, PRECISION = 0x20, DENORMALS_ARE_ZERO = 0x40, ALL_MASKED = 0x1f80, ROUNDING_AT = 13 };
enum { TO_NEAREST, DOWNWARDS, UPWARDS, TO_ZERO }; /* MXCSR.RC */

/* How the instruction rounds, and which exceptions it has met. */
struct context {
    unsigned rounding, flags;
    bool zero_denormals;
};

static struct context begin(const struct evex_insn *in)
{
    uint32_t mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    if (!in->rounding && (mxcsr & ALL_MASKED) != ALL_MASKED)
        evex_give_up();
    bool given = in->rounding && in->rounding != EVEX_SAE;
    return (struct context){.rounding = given ? (unsigned)in->rounding - EVEX_NEAREST : mxcsr >> ROUNDING_AT & 3u,
                            .zero_denormals = mxcsr & DENORMALS_ARE_ZERO};
}

static void end(const struct evex_insn *in, const struct context *c)
{
    uint32_t mxcsr;
    if (in->rounding || !c->flags)
        return;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    mxcsr |= c->flags;
    __asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
}

/* The layout of binary32 or binary64 (IEEE 754). */
struct format {
    unsigned mantissa, exponent; /* bits */
    int bias;
};

static struct format format_of(unsigned bytes)
{
    return bytes == 8 ? (struct format){52, 11, 1023} : (struct format){23, 8, 127};
}

/* Is 1 to be added to a magnitude that was cut off after its last bit? rest: what was cut off, compared with half of that bit. */
static bool rounds_up(const struct context *c, bool negative, bool odd, bool any, int against_half)
{
    switch (c->rounding) {
    case TO_NEAREST:
        return against_half > 0 || (against_half == 0 && odd);
    case DOWNWARDS:
        return negative && any;
    case UPWARDS:
        return !negative && any;
    default:
        return false;
    }
}

/* Shifts a magnitude to the right, and rounds it. */
static uint64_t shift_and_round(struct context *c, uint64_t v, unsigned by, bool negative)
{
    if (!by)
        return v;
    uint64_t whole = by < 64 ? v >> by : 0, rest = by < 64 ? v << (64 - by) : v ? 1 : 0, half = 1ull << 63;
    if (by == 64)
        rest = v;
    int against_half = rest > half ? 1 : rest == half ? 0 : -1;
    if (rest)
        c->flags |= PRECISION;
    return whole + rounds_up(c, negative, whole & 1, rest != 0, against_half);
}

/* `bytes` of a number, to an integer of `to` bytes. */
static uint64_t to_integer(struct context *c, uint64_t v, unsigned bytes, unsigned to, bool is_signed)
{
    struct format f = format_of(bytes);
    bool negative = v >> (8 * bytes - 1) & 1;
    uint64_t mantissa = v & ((1ull << f.mantissa) - 1);
    int exponent = (int)(v >> f.mantissa & ((1u << f.exponent) - 1));
    uint64_t most = is_signed ? (1ull << (8 * to - 1)) - 1 + negative : negative ? 0 : ~0ull >> (64 - 8 * to);
    uint64_t indefinite = is_signed ? 1ull << (8 * to - 1) : ~0ull >> (64 - 8 * to);
    if (exponent == 0 && c->zero_denormals)
        mantissa = 0;
    if (exponent)
        mantissa |= 1ull << f.mantissa;
    else
        exponent = 1;
    int up = exponent - f.bias - (int)f.mantissa; // the value is mantissa * 2^up
    unsigned before = c->flags;
    uint64_t magnitude = up >= 0 ? mantissa << (up & 63) : shift_and_round(c, mantissa, up < -127 ? 127u : (unsigned)-up, negative);
    if (up + (int)f.mantissa >= 64 || magnitude > most) { // too large, infinite, or not a number
        c->flags = before | INVALID;
        return indefinite;
    }
    return negative ? -magnitude : magnitude;
}

/* An integer of 64 bits to a number of `bytes`. */
static uint64_t from_integer(struct context *c, uint64_t v, unsigned bytes, bool negative)
{
    struct format f = format_of(bytes);
    uint64_t sign = (uint64_t)negative << (8 * bytes - 1), magnitude = negative ? -v : v;
    if (!magnitude)
        return 0;
    unsigned length = 64 - (unsigned)__builtin_clzll(magnitude), kept = f.mantissa + 1;
    uint64_t exponent = (uint64_t)f.bias + length - 1;
    uint64_t mantissa = length > kept ? shift_and_round(c, magnitude, length - kept, negative) : magnitude << (kept - length);
    // The leading one adds to the exponent; so does a carry out of rounding.
    return sign | (((exponent - 1) << f.mantissa) + mantissa);
}

static uint64_t get(const uint8_t *v, unsigned element, unsigned i)
{
    return element == 8 ? *(const uint64_t *)(const void *)(v + 8 * i) : *(const uint32_t *)(const void *)(v + 4 * i);
}

static void put(uint8_t *v, unsigned element, unsigned i, uint64_t value)
{
    if (element == 8)
        *(uint64_t *)(void *)(v + 8 * i) = value;
    else
        *(uint32_t *)(void *)(v + 4 * i) = (uint32_t)value;
}

void evex_convert(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned which = in->src[1].kind ? 1 : 0, from = in->src[which].element, to = in->dst.element;
    bool is_signed = in->what & EVEX_CONVERT_SIGNED;
    if (which) // a scalar
        for (unsigned i = 0; i < 2; i++)
            put(w->out, 8, i, get(w->src[0], 8, i));
    if (!w->mask)
        return;
    struct context c = begin(in);
    if (in->what & EVEX_CONVERT_TRUNCATES)
        c.rounding = TO_ZERO;
    for (unsigned i = 0; i < in->count; i++) {
        if (!(w->mask >> i & 1))
            continue;
        uint64_t v = get(w->src[which], from, i);
        if (in->what & EVEX_CONVERT_TO_INTEGER) {
            v = to_integer(&c, v, from, to, is_signed);
        } else {
            bool negative = is_signed && v >> (8 * from - 1);
            v = from_integer(&c, negative && from == 4 ? v | ~0ull << 32 : v, to, negative);
        }
        put(w->out, to, i, v);
    }
    end(in, &c);
}

/* Bits of the immediate of vfpclass (SDM 2C). */
enum { QUIET_NAN = 1, PLUS_ZERO = 2, MINUS_ZERO = 4, PLUS_INFINITY = 8, MINUS_INFINITY = 16, DENORMAL = 32, NEGATIVE = 64,
       SIGNALING_NAN = 128 };

static unsigned class_of(const struct context *c, uint64_t v, unsigned bytes)
{
    struct format f = format_of(bytes);
    bool negative = v >> (8 * bytes - 1) & 1;
    uint64_t mantissa = v & ((1ull << f.mantissa) - 1), exponent = v >> f.mantissa & ((1u << f.exponent) - 1);
    if (exponent == (1u << f.exponent) - 1)
        return mantissa >> (f.mantissa - 1) ? QUIET_NAN : mantissa ? SIGNALING_NAN : negative ? MINUS_INFINITY : PLUS_INFINITY;
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
    struct context c = {.zero_denormals = mxcsr & DENORMALS_ARE_ZERO};
    for (unsigned i = 0; i < in->count; i++)
        result |= (uint64_t)((class_of(&c, get(w->src[0], in->src[0].element, i), in->src[0].element) & in->imm) != 0) << i;
    *(uint64_t *)(void *)w->out = result & w->mask;
}
