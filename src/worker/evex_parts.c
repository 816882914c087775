/* What AVX-512 does with the parts of floating-point numbers: exponents, mantissas, scaling,
 * ranges, fractions, and fixing up of special values (SDM 2C: VGETEXP, VGETMANT, VSCALEF, VRANGE,
 * VREDUCE, VRNDSCALE, VFIXUPIMM). */
#include "worker/evex_soft.h"

/* --- numbers --- */

enum kind { ZERO, FINITE, INFINITE, QUIET, SIGNALING };
struct number {
    uint64_t bits;
    enum kind kind;
    bool negative, denormal;
    int exponent; /* FINITE: mantissa * 2^exponent, the mantissa's highest bit being that of a
                     normal number */
    uint64_t mantissa;
};

static struct number unpack(const struct soft_context *c, struct soft_format f, uint64_t v)
{
    uint64_t mantissa = v & ((1ull << f.mantissa) - 1), most = (1u << f.exponent) - 1,
             exponent = v >> f.mantissa & most;
    struct number n = {.bits = v,
                       .kind = FINITE,
                       .negative = v >> (f.mantissa + f.exponent) & 1,
                       .mantissa = mantissa};
    n.exponent = (int)exponent - f.bias - (int)f.mantissa;
    if (exponent == most) {
        n.kind = !mantissa ? INFINITE : mantissa >> (f.mantissa - 1) ? QUIET : SIGNALING;
    } else if (exponent) {
        n.mantissa |= 1ull << f.mantissa;
    } else if (!mantissa || c->zero_denormals) {
        n.kind = ZERO;
    } else {
        unsigned up = (unsigned)__builtin_clzll(mantissa) - (63 - f.mantissa);
        n.mantissa = mantissa << up;
        n.exponent += 1 - (int)up;
        n.denormal = true;
    }
    return n;
}

static bool is_nan(const struct number *n)
{
    return n->kind >= QUIET;
}

static uint64_t sign_of(struct soft_format f, bool negative)
{
    return (uint64_t)negative << (f.mantissa + f.exponent);
}

static uint64_t infinity(struct soft_format f, bool negative)
{
    return sign_of(f, negative) | ((1ull << f.exponent) - 1) << f.mantissa;
}

static uint64_t quiet(struct soft_format f, uint64_t v)
{
    return v | 1ull << (f.mantissa - 1);
}

static uint64_t indefinite(struct soft_format f)
{
    return quiet(f, infinity(f, true));
}

/* 2^exponent */
static uint64_t power(struct soft_format f, bool negative, int exponent)
{
    return sign_of(f, negative) | (uint64_t)(exponent + f.bias) << f.mantissa;
}

static uint64_t invalid(struct soft_context *c, uint64_t result)
{
    c->flags |= SOFT_INVALID;
    return result;
}

static unsigned length_of(unsigned __int128 v)
{
    uint64_t high = (uint64_t)(v >> 64), low = (uint64_t)v;
    return high ? 128 - (unsigned)__builtin_clzll(high) : 64 - (unsigned)__builtin_clzll(low);
}

/* What is cut off by a shift to the right, by 1 to 127, compared with half of the last bit that
 * stays. */
static int against_half(unsigned __int128 v, unsigned by)
{
    unsigned __int128 half = (unsigned __int128)1 << (by - 1), rest = v & ((half << 1) - 1);
    return rest > half ? 1 : rest == half ? 0 : -1;
}

/* The number of magnitude v * 2^exponent, v not 0, rounded; of more than the mantissa's bits only
 * where it is not tiny. */
static uint64_t pack(struct soft_context *c, struct soft_format f, bool negative,
                     unsigned __int128 v, int exponent)
{
    int leading = exponent + (int)length_of(v) - 1, least = 1 - f.bias;
    bool tiny = leading < least;
    if (tiny && c->flush_to_zero) {
        c->flags |= SOFT_UNDERFLOW | SOFT_PRECISION;
        return sign_of(f, negative);
    }
    int last = (tiny ? least : leading) - (int)f.mantissa; // the exponent of the last bit
    uint64_t kept;
    if (last <= exponent) {
        kept = (uint64_t)(v << (exponent - last));
    } else {
        unsigned by = (unsigned)(last - exponent) < 127 ? (unsigned)(last - exponent) : 127u;
        unsigned __int128 whole = v >> by;
        kept = (uint64_t)whole;
        if (v != whole << by) {
            c->flags |= tiny ? SOFT_PRECISION | SOFT_UNDERFLOW : SOFT_PRECISION;
            kept += soft_rounds_up(c, negative, kept & 1, true, against_half(v, by));
        }
    }
    // The leading one, and a carry out of rounding, add to the exponent.
    uint64_t biased = tiny ? 0 : (uint64_t)(leading + f.bias - 1);
    if (leading > f.bias || biased + (kept >> f.mantissa) >= (1u << f.exponent) - 1) {
        c->flags |= SOFT_OVERFLOW | SOFT_PRECISION;
        bool up = soft_rounds_up(c, negative, true, true, 1);
        return infinity(f, negative) - !up;
    }
    return sign_of(f, negative) | ((biased << f.mantissa) + kept);
}

/* --- one operand --- */

static uint64_t get_exponent(struct soft_context *c, struct soft_format f, const struct number *a)
{
    switch (a->kind) {
    case ZERO:
        return infinity(f, true);
    case FINITE: {
        int exponent = a->exponent + (int)f.mantissa;
        c->flags |= a->denormal ? SOFT_DENORMAL : 0;
        return exponent
                   ? pack(c, f, exponent < 0, (unsigned)(exponent < 0 ? -exponent : exponent), 0)
                   : 0;
    }
    case INFINITE:
        return infinity(f, false);
    case QUIET:
        return a->bits;
    default:
        return invalid(c, quiet(f, a->bits));
    }
}

static uint64_t get_mantissa(struct soft_context *c, struct soft_format f, const struct number *a,
                             unsigned imm)
{
    enum { INTERVAL = 3, POSITIVE = 4, NEGATIVE_IS_INVALID = 8 };
    bool negative = a->negative && !(imm & POSITIVE);
    if (is_nan(a))
        return a->kind == QUIET ? a->bits : invalid(c, quiet(f, a->bits));
    if (a->kind == ZERO)
        return power(f, negative, 0);
    if (a->negative && imm & NEGATIVE_IS_INVALID)
        return invalid(c, indefinite(f));
    if (a->kind == INFINITE)
        return power(f, negative, 0);
    c->flags |= a->denormal ? SOFT_DENORMAL : 0;
    bool odd = (a->exponent + (int)f.mantissa) & 1,
         upper_half = a->mantissa >> (f.mantissa - 1) & 1;
    const bool halved[] = {false, odd, true, upper_half}; // [1, 2), [1/2, 2), [1/2, 1), [3/4, 3/2)
    return power(f, negative, halved[imm & INTERVAL] ? -1 : 0) |
           (a->mantissa & ((1ull << f.mantissa) - 1));
}

/* Immediates of vrndscale and vreduce. */
enum { FROM_MXCSR = 4, QUIETLY = 8, FRACTION_AT = 4 };

static struct soft_context rounding_of(const struct soft_context *c, unsigned imm)
{
    struct soft_context result = *c;
    if (!(imm & FROM_MXCSR))
        result.rounding = imm & 3;
    return result;
}

/* The magnitude of a multiple of 2^-fraction is v * 2^-fraction + rest * 2^exponent; v is rounded.
 */
struct multiple {
    uint64_t v, rest;
    unsigned by; /* the last bit of v is 2^by of the last one of `rest` */
    bool up;     /* v is 1 more than that */
};

static struct multiple round_to_multiple(const struct soft_context *c, const struct number *a,
                                         unsigned imm)
{
    unsigned by = (unsigned)(-(int)(imm >> FRACTION_AT) - a->exponent);
    struct multiple m = {.v = by < 64 ? a->mantissa >> by : 0, .by = by};
    m.rest = by < 64 ? a->mantissa - (m.v << by) : a->mantissa;
    m.up = m.rest && soft_rounds_up(c, a->negative, m.v & 1, true,
                                    against_half(a->mantissa, by < 127 ? by : 127));
    m.v += m.up;
    return m;
}

static bool is_multiple(const struct number *a, unsigned imm)
{
    return a->exponent >= -(int)(imm >> FRACTION_AT);
}

static uint64_t round_scale(struct soft_context *c, struct soft_format f, const struct number *a,
                            unsigned imm)
{
    if (a->kind == ZERO)
        return sign_of(f, a->negative);
    if (a->kind == SIGNALING)
        return invalid(c, quiet(f, a->bits));
    if (a->kind != FINITE || is_multiple(a, imm))
        return a->bits;
    struct soft_context rounding = rounding_of(c, imm);
    struct multiple m = round_to_multiple(&rounding, a, imm);
    if (m.rest && !(imm & QUIETLY))
        c->flags |= SOFT_PRECISION;
    return m.v ? pack(c, f, a->negative, m.v, -(int)(imm >> FRACTION_AT)) : sign_of(f, a->negative);
}

static uint64_t reduce(struct soft_context *c, struct soft_format f, const struct number *a,
                       unsigned imm)
{
    struct soft_context rounding = rounding_of(c, imm);
    uint64_t zero = sign_of(f, rounding.rounding == SOFT_DOWNWARDS);
    if (is_nan(a))
        return a->kind == QUIET ? a->bits : invalid(c, quiet(f, a->bits));
    if (a->kind == INFINITE)
        return 0;
    if (a->kind == ZERO || is_multiple(a, imm))
        return zero;
    struct multiple m = round_to_multiple(&rounding, a, imm);
    if (!m.rest)
        return zero;
    unsigned __int128 rest = m.rest;
    int exponent = a->exponent;
    if (m.up) { // what is missing to the multiple, in as many bits as there are; the rest shows in
                // the last one
        enum { MOST = 120 };
        unsigned less = m.by > MOST ? m.by - MOST : 0;
        uint64_t cut = less < 64 ? m.rest >> less : 0;
        bool inexact = less && (less >= 64 || cut << less != m.rest);
        rest = ((unsigned __int128)1 << (m.by - less)) - cut - inexact;
        rest |= inexact;
        exponent += (int)less;
    }
    rounding.flags = 0;
    uint64_t result = pack(&rounding, f, a->negative != m.up, rest, exponent);
    if (!(imm & QUIETLY))
        c->flags |=
            rounding.flags & SOFT_PRECISION; // underflow, of what is flushed to zero, is not shown
    return result;
}

/* --- two operands --- */

/* The largest integer not above b, as far as it matters to exponents. */
static int floor_of(const struct number *b)
{
    enum { MOST = 1 << 16 };
    if (b->kind != FINITE)
        return 0;
    if (b->exponent >= 0)
        return b->negative ? -MOST : MOST;
    unsigned by = (unsigned)-b->exponent;
    uint64_t whole = by < 64 ? b->mantissa >> by : 0;
    bool any = by < 64 ? b->mantissa != whole << by : true;
    if (whole > MOST)
        return b->negative ? -MOST : MOST;
    return b->negative ? -(int)whole - any : (int)whole;
}

static uint64_t scale(struct soft_context *c, struct soft_format f, const struct number *a,
                      const struct number *b)
{
    if (a->kind == SIGNALING)
        return invalid(c, quiet(f, a->bits));
    if (b->kind == SIGNALING)
        return invalid(c, quiet(f, a->kind == QUIET ? a->bits : b->bits));
    if (a->kind == QUIET && b->kind == INFINITE)
        return b->negative ? 0 : infinity(f, false);
    if (is_nan(a))
        return a->bits;
    if (is_nan(b))
        return b->bits;
    c->flags |= a->denormal ? SOFT_DENORMAL : 0; // not if b is
    if (b->kind == INFINITE) {
        if (a->kind == (b->negative ? INFINITE : ZERO))
            return invalid(c, indefinite(f));
        return b->negative ? sign_of(f, a->negative) : infinity(f, a->negative);
    }
    if (a->kind == ZERO)
        return sign_of(f, a->negative);
    return a->kind == INFINITE ? a->bits
                               : pack(c, f, a->negative, a->mantissa, a->exponent + floor_of(b));
}

/* Of magnitudes and signs, as integers. */
static bool at_most(uint64_t a, uint64_t b, uint64_t sign, bool magnitudes)
{
    uint64_t x = a & ~sign, y = b & ~sign;
    if (magnitudes)
        return x <= y;
    if ((a ^ b) & sign)
        return a & sign;
    return a & sign ? x >= y : x <= y;
}

static uint64_t range(struct soft_context *c, struct soft_format f, const struct number *a,
                      const struct number *b, unsigned imm)
{
    enum {
        MAXIMUM = 1,
        MAGNITUDES = 2,
        SIGN_AT = 2,
        SIGN_OF_FIRST = 0,
        SIGN_OF_RESULT,
        POSITIVE,
        NEGATIVE
    };
    uint64_t sign = sign_of(f, true), x = a->kind == ZERO ? a->bits & sign : a->bits,
             y = b->kind == ZERO ? b->bits & sign : b->bits, result;
    if (a->kind == SIGNALING)
        return invalid(c, quiet(f, a->bits));
    if (b->kind == SIGNALING)
        return invalid(c, quiet(f, b->bits));
    if ((a->denormal && b->kind != QUIET) || (b->denormal && a->kind != QUIET))
        c->flags |= SOFT_DENORMAL;
    if (b->kind == QUIET)
        result = x;
    else if (a->kind == QUIET)
        result = y;
    else if ((x ^ y) == sign && imm & MAGNITUDES) // of equal magnitudes the negative one is less
        result = imm & MAXIMUM ? x & ~sign : x | sign;
    else
        result = at_most(x, y, sign, imm & MAGNITUDES) == !(imm & MAXIMUM) ? x : y;
    switch (imm >> SIGN_AT & 3) {
    case SIGN_OF_FIRST:
        return (result & ~sign) | (x & sign);
    case SIGN_OF_RESULT:
        return result;
    case POSITIVE:
        return result & ~sign;
    default:
        return result | sign;
    }
}

/* A value for `a` from the table of 8 responses, by its class. */
static uint64_t fix_up(struct soft_context *c, struct soft_format f, uint64_t old,
                       const struct number *a, uint32_t table, unsigned imm)
{
    enum {
        AT_QUIET,
        AT_SIGNALING,
        AT_ZERO,
        AT_ONE,
        AT_MINUS_INFINITY,
        AT_INFINITY,
        AT_NEGATIVE,
        AT_POSITIVE
    };
    enum {
        ZERO_DIVIDES = 1,
        ZERO_INVALID = 2,
        ONE_DIVIDES = 4,
        ONE_INVALID = 8,
        SIGNALING_INVALID = 16,
        MINUS_INFINITY_INVALID = 32,
        NEGATIVE_INVALID = 64,
        INFINITY_INVALID = 128
    };
    static const uint8_t invalid_if[] = {[AT_SIGNALING] = SIGNALING_INVALID,
                                         [AT_ZERO] = ZERO_INVALID,
                                         [AT_ONE] = ONE_INVALID,
                                         [AT_MINUS_INFINITY] = MINUS_INFINITY_INVALID,
                                         [AT_INFINITY] = INFINITY_INVALID,
                                         [AT_NEGATIVE] = NEGATIVE_INVALID,
                                         [AT_POSITIVE] = 0};
    unsigned at = a->kind == QUIET       ? AT_QUIET
                  : a->kind == SIGNALING ? AT_SIGNALING
                  : a->kind == ZERO      ? AT_ZERO
                  : a->kind == INFINITE  ? (a->negative ? AT_MINUS_INFINITY : AT_INFINITY)
                  : a->negative          ? AT_NEGATIVE
                                         : AT_POSITIVE;
    if (a->bits == power(f, false, 0))
        at = AT_ONE;
    if (imm & invalid_if[at])
        c->flags |= SOFT_INVALID;
    if ((at == AT_ZERO && imm & ZERO_DIVIDES) || (at == AT_ONE && imm & ONE_DIVIDES))
        c->flags |= SOFT_ZERO_DIVIDE;
    uint64_t source = a->kind == ZERO ? a->bits & sign_of(f, true) : a->bits;
    bool wide = f.mantissa == 52;
    switch (table >> 4 * at & 15) {
    case 0:
        return old;
    case 1:
        return source;
    case 2:
        return quiet(f, is_nan(a) ? a->bits : source | infinity(f, false));
    case 3:
        return indefinite(f);
    case 4:
        return infinity(f, true);
    case 5:
        return infinity(f, false);
    case 6:
        return infinity(f, a->negative);
    case 7:
        return sign_of(f, true);
    case 8:
        return 0;
    case 9:
        return power(f, true, 0);
    case 10:
        return power(f, false, 0);
    case 11:
        return power(f, false, -1);
    case 12: // 90
        return wide ? 0x4056800000000000 : 0x42b40000;
    case 13: // half of pi
        return wide ? 0x3ff921fb54442d18 : 0x3fc90fdb;
    case 14:
        return infinity(f, false) - 1;
    default:
        return infinity(f, true) - 1;
    }
}

/* --- instructions --- */

void evex_parts(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned element = in->dst.element, last = in->src[1].kind ? 1 : 0;
    struct soft_format f = soft_format(element);
    if (in->scalar) // what is behind the number
        for (unsigned i = 0; i < 2; i++)
            soft_put(w->out, 8, i, soft_get(w->src[0], 8, i));
    if (!w->mask)
        return;
    struct soft_context c = soft_begin(in);
    for (unsigned i = 0; i < in->count; i++) {
        if (!(w->mask >> i & 1))
            continue;
        uint64_t first = soft_get(w->src[0], element, i),
                 second = soft_get(w->src[last], element, i), result;
        struct number a = unpack(&c, f, first),
                      b = unpack(&c, f, second); // b: the only one of those with one
        switch (in->what) {
        case EVEX_GET_EXPONENT:
            result = get_exponent(&c, f, &b);
            break;
        case EVEX_GET_MANTISSA:
            result = get_mantissa(&c, f, &b, in->imm);
            break;
        case EVEX_ROUND_SCALE:
            result = round_scale(&c, f, &b, in->imm);
            break;
        case EVEX_REDUCE:
            result = reduce(&c, f, &b, in->imm);
            break;
        case EVEX_SCALE:
            result = scale(&c, f, &a, &b);
            break;
        case EVEX_RANGE:
            result = range(&c, f, &a, &b, in->imm);
            break;
        default:
            result = fix_up(&c, f, soft_get(w->old, element, i), &a, (uint32_t)second, in->imm);
        }
        soft_put(w->out, element, i, result);
    }
    soft_end(in, &c);
}
