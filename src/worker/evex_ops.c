/* Operations that are computed element by element. */
#include "worker/evex.h"

static uint64_t element_at(const uint8_t *v, unsigned element, unsigned i)
{
    v += i * element;
    switch (element) {
    case 1:
        return *v;
    case 2:
        return *(const uint16_t *)(const void *)v;
    case 4:
        return *(const uint32_t *)(const void *)v;
    default:
        return *(const uint64_t *)(const void *)v;
    }
}

static void set_element(uint8_t *v, unsigned element, unsigned i, uint64_t value)
{
    v += i * element;
    switch (element) {
    case 1:
        *v = (uint8_t)value;
        break;
    case 2:
        *(uint16_t *)(void *)v = (uint16_t)value;
        break;
    case 4:
        *(uint32_t *)(void *)v = (uint32_t)value;
        break;
    default:
        *(uint64_t *)(void *)v = value;
    }
}

static int64_t as_signed(uint64_t v, unsigned element)
{
    unsigned shift = 64 - 8 * element;
    return (int64_t)(v << shift) >> shift;
}

static void copy(uint8_t *to, const uint8_t *from, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        to[i] = from[i];
}

static void copy_words(uint8_t *to, const uint8_t *from, unsigned len)
{
    for (unsigned i = 0; i < len; i += 8)
        *(uint64_t *)(void *)(to + i) = *(const uint64_t *)(const void *)(from + i);
}

static void clear(uint8_t *v, unsigned len)
{
    for (unsigned i = 0; i < len; i += 8)
        *(uint64_t *)(void *)(v + i) = 0;
}

static uint64_t *out_value(struct evex_work *w)
{
    return (uint64_t *)(void *)w->out;
}

/* --- moves --- */

void evex_move(struct evex_work *w)
{
    copy_words(w->out, w->src[0], w->in->len);
}

void evex_blend(struct evex_work *w)
{
    copy_words(w->old, w->src[0], w->in->len);
    copy_words(w->out, w->src[1], w->in->len);
}

/* vmovd, vmovq, vmovss and vmovsd in all their forms. */
void evex_move_low(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    const struct evex_operand *from = &in->src[in->src[1].kind ? 1 : 0];
    unsigned len = from->element < from->len ? from->element : from->len;
    clear(w->out, 16);
    if (in->src[1].kind)
        copy_words(w->out, w->src[0], 16);
    if (w->mask & 1 || !in->mask)
        set_element(w->out, len, 0, element_at(w->src[in->src[1].kind ? 1 : 0], len, 0));
}

void evex_move_half(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    const uint64_t *a = (const uint64_t *)(const void *)w->src[0],
                   *b = (const uint64_t *)(const void *)w->src[1];
    uint64_t *out = out_value(w);
    if (!in->src[1].kind) { // a store
        out[0] = a[in->what == EVEX_HIGH_HALF];
        return;
    }
    out[0] = in->what == EVEX_HIGH_HALF ? a[0] : in->what == EVEX_HIGH_TO_LOW ? b[1] : b[0];
    out[1] = in->what == EVEX_HIGH_HALF ? b[0] : a[1];
}

void evex_extract_element(struct evex_work *w)
{
    unsigned element = w->in->src[0].element, count = 16 / element;
    *out_value(w) = element_at(w->src[0], element, w->in->imm & (count - 1));
}

void evex_insert_element(struct evex_work *w)
{
    unsigned element = w->in->dst.element, count = 16 / element;
    copy_words(w->out, w->src[0], 16);
    set_element(w->out, element, w->in->imm & (count - 1),
                *(const uint64_t *)(const void *)w->src[1]);
}

void evex_insert(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned len = in->src[1].len;
    copy_words(w->out, w->src[0], in->len);
    copy_words(w->out + len * (in->imm & (in->len / len - 1u)), w->src[1], len);
}

void evex_extract(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned len = in->dst.len;
    copy_words(w->out, w->src[0] + len * (in->imm & (in->len / len - 1u)), len);
}

void evex_broadcast(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned len = in->what ? in->what : in->dst.element;
    for (unsigned at = 0; at < in->len; at += len)
        copy(w->out + at, w->src[0], len);
}

/* --- element by element --- */

static uint64_t saturated(int64_t v)
{
    return (uint64_t)(v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : v);
}

static uint64_t dot_bytes(uint64_t sum, uint64_t a, uint64_t b, bool saturates)
{
    int64_t v = (int32_t)sum;
    for (unsigned i = 0; i < 4; i++)
        v += (int64_t)(a >> 8 * i & 0xff) * (int8_t)(b >> 8 * i);
    return saturates ? saturated(v) : (uint64_t)v;
}

static uint64_t dot_words(uint64_t sum, uint64_t a, uint64_t b, bool saturates)
{
    int64_t v = (int64_t)(int32_t)sum + (int64_t)(int16_t)a * (int16_t)b +
                (int64_t)(int16_t)(a >> 16) * (int16_t)(b >> 16);
    return saturates ? saturated(v) : (uint64_t)v;
}

static uint64_t rotate_left(uint64_t v, unsigned by, unsigned bits)
{
    by &= bits - 1;
    return by ? v << by | v >> (bits - by) : v;
}

/* `high`'s upper bits of the two, shifted left. */
static uint64_t shift_double(uint64_t high, uint64_t low, unsigned by, unsigned bits)
{
    by &= bits - 1;
    return by ? high << by | low >> (bits - by) : high;
}

static uint64_t shift_double_right(uint64_t low, uint64_t high, unsigned by, unsigned bits)
{
    by &= bits - 1;
    return by ? low >> by | high << (bits - by) : low;
}

static uint64_t compute(const struct evex_work *w, uint64_t a, uint64_t b, uint64_t old,
                        unsigned element)
{
    const struct evex_insn *in = w->in;
    unsigned bits = 8 * element;
    int64_t sa = as_signed(a, element), sb = as_signed(b, element);
    const uint64_t mask52 = (1ull << 52) - 1;
    switch (in->what) {
    case EVEX_MIN:
        return a < b ? a : b;
    case EVEX_MAX:
        return a > b ? a : b;
    case EVEX_MIN_SIGNED:
        return sa < sb ? a : b;
    case EVEX_MAX_SIGNED:
        return sa > sb ? a : b;
    case EVEX_ABS:
        return sa < 0 ? -a : a;
    case EVEX_MULTIPLY:
        return a * b;
    case EVEX_SRA_ALL: // by an immediate, or by what the second operand begins with
        b = in->src[1].kind ? *(const uint64_t *)(const void *)w->src[1] : in->imm;
        return (uint64_t)(sa >> (b < bits ? b : bits - 1));
    case EVEX_SRA:
        return (uint64_t)(sa >> (b < bits ? b : bits - 1));
    case EVEX_SLL:
        return b < bits ? a << b : 0;
    case EVEX_SRL:
        return b < bits ? a >> b : 0;
    case EVEX_ROL_IMM:
        return rotate_left(a, in->imm, bits);
    case EVEX_ROR_IMM:
        return rotate_left(a, bits - in->imm % bits, bits);
    case EVEX_ROL:
        return rotate_left(a, (unsigned)(b % bits), bits);
    case EVEX_ROR:
        return rotate_left(a, (unsigned)(bits - b % bits), bits);
    case EVEX_LEADING_ZEROS:
        return a ? (uint64_t)__builtin_clzll(a) - (64 - bits) : bits;
    case EVEX_POPULATION: {
        uint64_t count = 0;
        for (; a; a &= a - 1)
            count++;
        return count;
    }
    case EVEX_SHLD_IMM:
        return shift_double(a, b, in->imm, bits);
    case EVEX_SHRD_IMM:
        return shift_double_right(a, b, in->imm, bits);
    case EVEX_SHLD:
        return shift_double(old, a, (unsigned)(b % bits), bits);
    case EVEX_SHRD:
        return shift_double_right(old, a, (unsigned)(b % bits), bits);
    case EVEX_MADD52_LOW:
        return old + ((a & mask52) * (b & mask52) & mask52);
    case EVEX_MADD52_HIGH:
        return old + (uint64_t)((unsigned __int128)(a & mask52) * (b & mask52) >> 52);
    case EVEX_DOT_BYTES:
    case EVEX_DOT_BYTES_SATURATED:
        return dot_bytes(old, a, b, in->what == EVEX_DOT_BYTES_SATURATED);
    default:
        return dot_words(old, a, b, in->what == EVEX_DOT_WORDS_SATURATED);
    }
}

void evex_elements(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned element = in->dst.element;
    for (unsigned i = 0; i < in->count; i++) {
        if (w->mask >> i & 1)
            set_element(w->out, element, i,
                        compute(w, element_at(w->src[0], element, i),
                                element_at(w->src[1], element, i), element_at(w->old, element, i),
                                element));
    }
}

void evex_ternary(struct evex_work *w)
{
    const uint64_t *a = (const uint64_t *)(const void *)w->old,
                   *b = (const uint64_t *)(const void *)w->src[0],
                   *c = (const uint64_t *)(const void *)w->src[1];
    for (unsigned i = 0; i < w->in->len / 8u; i++) {
        uint64_t v = 0;
        for (unsigned k = 0; k < 8; k++) {
            if (w->in->imm >> k & 1)
                v |= (k & 4 ? a[i] : ~a[i]) & (k & 2 ? b[i] : ~b[i]) & (k & 1 ? c[i] : ~c[i]);
        }
        out_value(w)[i] = v;
    }
}

void evex_narrow(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned from = in->src[0].element, to = in->dst.element;
    int64_t most = (int64_t)(1ull << (8 * to - 1)) - 1, least = -most - 1;
    uint64_t all = (1ull << 8 * to) - 1;
    for (unsigned i = 0; i < in->count; i++) {
        uint64_t v = element_at(w->src[0], from, i);
        int64_t s = as_signed(v, from);
        if (in->what == EVEX_UNSIGNED)
            v = v > all ? all : v;
        else if (in->what == EVEX_SIGNED)
            v = (uint64_t)(s > most ? most : s < least ? least : s);
        set_element(w->out, to, i, v);
    }
}

/* --- opmasks out of vectors, and back --- */

void evex_compare(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned element = in->src[0].element;
    uint64_t result = 0, flip = in->what == EVEX_SIGNED ? 1ull << (8 * element - 1) : 0;
    for (unsigned i = 0; i < in->count; i++) {
        uint64_t a = element_at(w->src[0], element, i) ^ flip,
                 b = element_at(w->src[1], element, i) ^ flip;
        bool equal = a == b, less = a < b;
        bool v = (in->imm & 3) == 0   ? equal
                 : (in->imm & 3) == 1 ? less
                 : (in->imm & 3) == 2 ? less || equal
                                      : false;
        result |= (uint64_t)(v != (in->imm >> 2 & 1)) << i;
    }
    *out_value(w) = result & w->mask;
}

void evex_test(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned element = in->src[0].element;
    uint64_t result = 0;
    for (unsigned i = 0; i < in->count; i++) {
        bool v = element_at(w->src[0], element, i) & element_at(w->src[1], element, i);
        result |= (uint64_t)(v != (in->what == EVEX_NOT)) << i;
    }
    *out_value(w) = result & w->mask;
}

void evex_vector_to_mask(struct evex_work *w)
{
    *out_value(w) = evex_signs(w->src[0], w->in->src[0].element, w->in->count);
}

void evex_mask_to_vector(struct evex_work *w)
{
    uint64_t k = *(const uint64_t *)(const void *)w->src[0];
    for (unsigned i = 0; i < w->in->count; i++)
        set_element(w->out, w->in->dst.element, i, k >> i & 1 ? ~0ull : 0);
}

void evex_broadcast_mask(struct evex_work *w)
{
    uint64_t k = *(const uint64_t *)(const void *)w->src[0];
    for (unsigned i = 0; i < w->in->count; i++)
        set_element(w->out, w->in->dst.element, i, w->in->what == 1 ? (uint8_t)k : (uint16_t)k);
}

/* Bits of 64 that are chosen by bytes: one for a mask, or eight in a row, with what follows, for a
 * byte. */
void evex_shuffle_bits(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    bool bytes = in->what == EVEX_WHOLE_BYTES;
    const uint8_t *chosen = w->src[bytes ? 0 : 1];
    uint64_t result = 0;
    for (unsigned i = 0; i < in->len; i++) {
        uint64_t v = rotate_left(element_at(w->src[bytes ? 1 : 0], 8, i / 8),
                                 (64u - (chosen[i] & 63u)) & 63, 64);
        if (bytes)
            w->out[i] = (uint8_t)v;
        else
            result |= (v & 1) << i;
    }
    if (!bytes)
        *out_value(w) = result & w->mask;
}

/* --- elements from elsewhere --- */

void evex_permute(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned element = in->dst.element, count = in->count;
    for (unsigned i = 0; i < count; i++)
        set_element(w->out, element, i,
                    element_at(w->src[1], element,
                               (unsigned)element_at(w->src[0], element, i) & (count - 1)));
}

void evex_permute_two(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned element = in->dst.element, count = in->count;
    const uint8_t *index = in->what == EVEX_INDEX_FIRST ? w->old : w->src[0],
                  *first = in->what == EVEX_INDEX_FIRST ? w->src[0] : w->old;
    for (unsigned i = 0; i < count; i++) {
        unsigned at = (unsigned)element_at(index, element, i);
        set_element(w->out, element, i,
                    element_at(at & count ? w->src[1] : first, element, at & (count - 1)));
    }
}

void evex_shuffle_lanes(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned lanes = in->len / 16, bits = lanes == 4 ? 2 : 1;
    for (unsigned i = 0; i < lanes; i++) {
        unsigned from = in->imm >> i * bits & (lanes - 1);
        copy_words(w->out + 16 * i, w->src[i < lanes / 2 ? 0 : 1] + 16 * from, 16);
    }
}

/* Elements of 64 bits out of the same 128 bits, from the two sources in turn, or from the only one.
 */
void evex_shuffle_pairs(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    for (unsigned i = 0; i < in->count; i++) {
        const uint8_t *from = w->src[i & 1 && in->src[1].kind ? 1 : 0];
        set_element(w->out, 8, i, element_at(from, 8, (i & ~1u) + (in->imm >> i & 1)));
    }
}

void evex_align(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned element = in->dst.element, count = in->count, by = in->imm & (count - 1);
    for (unsigned i = 0; i < count; i++) {
        unsigned at = i + by;
        set_element(w->out, element, i,
                    at < count ? element_at(w->src[1], element, at)
                               : element_at(w->src[0], element, at - count));
    }
}

void evex_conflict(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned element = in->dst.element;
    for (unsigned i = 0; i < in->count; i++) {
        uint64_t same = 0;
        for (unsigned k = 0; k < i; k++)
            same |=
                (uint64_t)(element_at(w->src[0], element, i) == element_at(w->src[0], element, k))
                << k;
        set_element(w->out, element, i, same);
    }
}

static unsigned sum_of_differences(const uint8_t *a, const uint8_t *b)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < 4; i++)
        sum += a[i] > b[i] ? a[i] - b[i] : b[i] - a[i];
    return sum;
}

void evex_double_sad(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    for (unsigned lane = 0; lane < in->len; lane += 16) {
        uint8_t chosen[16];
        for (unsigned i = 0; i < 4; i++)
            set_element(chosen, 4, i, element_at(w->src[1] + lane, 4, in->imm >> 2 * i & 3));
        for (unsigned i = 0; i < 8; i++) {
            unsigned a = i / 4 * 8 + i / 2 % 2 * 4, b = i / 4 * 8 + i % 4;
            set_element(w->out + lane, 2, i, sum_of_differences(w->src[0] + lane + a, chosen + b));
        }
    }
}

static unsigned ones(uint64_t v)
{
    unsigned count = 0;
    for (; v; v &= v - 1)
        count++;
    return count;
}

void evex_compress(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned element = in->dst.element, count = 0;
    for (unsigned i = 0; i < in->count; i++) {
        if (w->mask >> i & 1)
            set_element(w->out, element, count++, element_at(w->src[0], element, i));
    }
    if (in->dst.kind == EVEX_MEMORY) {
        if (count)
            evex_store(w->address, w->out, count * element);
        w->done = true;
        return;
    }
    w->mask = count == 64 ? ~0ull : (1ull << count) - 1;
}

void evex_expand(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned element = in->dst.element, count = 0;
    if (in->src[0].kind == EVEX_MEMORY && w->mask)
        evex_load(w->src[0], w->address, ones(w->mask) * element);
    for (unsigned i = 0; i < in->count; i++) {
        if (w->mask >> i & 1)
            set_element(w->out, element, i, element_at(w->src[0], element, count++));
    }
}

/* --- GF(2^8), with the polynomial x^8 + x^4 + x^3 + x + 1 --- */

static uint8_t galois_product(uint8_t a, uint8_t b)
{
    unsigned result = 0, power = a;
    for (; b; b >>= 1) {
        result ^= b & 1 ? power : 0;
        power = power << 1 ^ (power & 0x80 ? 0x11b : 0);
    }
    return (uint8_t)result;
}

/* a^254; of 0 that is 0 */
static uint8_t galois_inverse(uint8_t a)
{
    uint8_t result = 1, power = a;
    for (unsigned i = 0; i < 7; i++) {
        power = galois_product(power, power);
        result = galois_product(result, power);
    }
    return result;
}

/* Bit i of the result is the parity of v and byte 7 - i of the matrix. */
static uint8_t galois_affine(uint64_t matrix, uint8_t v, uint8_t added)
{
    unsigned result = 0;
    for (unsigned i = 0; i < 8; i++)
        result |= (ones(matrix >> 8 * (7 - i) & v) & 1u) << i;
    return (uint8_t)(result ^ added);
}

void evex_galois(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    for (unsigned i = 0; i < in->len; i++) {
        uint8_t v = w->src[0][i];
        if (in->what == EVEX_GALOIS_AFFINE_INVERSE)
            v = galois_inverse(v);
        w->out[i] = in->what == EVEX_GALOIS_MULTIPLY
                        ? galois_product(v, w->src[1][i])
                        : galois_affine(element_at(w->src[1], 8, i / 8), v, in->imm);
    }
}

/* --- elements that are in both vectors: a pair of masks --- */

void evex_intersect(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned element = in->src[0].element, count = in->len / element;
    uint64_t first = 0, second = 0;
    for (unsigned i = 0; i < count; i++) {
        for (unsigned k = 0; k < count; k++) {
            bool equal = element_at(w->src[0], element, i) == element_at(w->src[1], element, k);
            first |= (uint64_t)equal << i;
            second |= (uint64_t)equal << k;
        }
    }
    evex_registers->k[in->dst.number & ~1u] = first;
    evex_registers->k[in->dst.number | 1u] = second;
    w->done = true;
}

/* --- elements in memory, by their indices --- */

static uint64_t address_of_element(const struct evex_work *w, const uint8_t *indices, unsigned i)
{
    const struct evex_insn *in = w->in;
    return w->address + (uint64_t)as_signed(element_at(indices, in->what, i), in->what) * in->scale;
}

static unsigned indexed_count(const struct evex_insn *in, unsigned element)
{
    return in->len / (element > in->what ? element : in->what);
}

/* An element at a time, from the first on: what is done is done when one of them faults (SDM 2C,
 * VGATHERDPS). The first one makes what is behind the vector zero. */
void evex_gather(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned n = in->dst.number, element = in->dst.element, count = indexed_count(in, element);
    uint8_t indices[EVEX_LEN];
    uint64_t *k = &evex_registers->k[in->mask];
    bool any = false;
    copy_words(indices, evex_vector(in->index), EVEX_LEN);
    for (unsigned i = 0; i < count; i++) {
        uint64_t v, address = address_of_element(w, indices, i);
        if (!(*k >> i & 1))
            continue;
        if (engine_copy_from_guest(&v, address, element) != element) {
            if (any)
                clear(evex_registers->v[n] + in->len, EVEX_LEN - in->len);
            if (n < 16)
                evex_load_low(n);
            evex_load(&v, address, element); // faults
        }
        set_element(evex_registers->v[n], element, i, v);
        *k &= ~(1ull << i);
        any = true;
    }
    *k = 0;
    clear(evex_registers->v[n] + count * element, EVEX_LEN - count * element);
    w->done = true;
}

void evex_scatter(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned element = in->src[0].element, count = indexed_count(in, element);
    const uint8_t *indices = evex_vector(in->index), *from = evex_vector(in->src[0].number);
    uint64_t *k = &evex_registers->k[in->mask];
    for (unsigned i = 0; i < count; i++) {
        if (!(*k >> i & 1))
            continue;
        evex_store(address_of_element(w, indices, i), from + i * element, element);
        *k &= ~(1ull << i);
    }
    *k = 0;
    w->done = true;
}

/* --- opmasks --- */

static void set_mask_flags(bool zero, bool carry)
{
    enum { CF = 1, ZF = 0x40, ARITHMETIC = 0x8d5 };
    *evex_flags() = (*evex_flags() & ~(uint64_t)ARITHMETIC) | (zero ? ZF : 0) | (carry ? CF : 0);
}

void evex_mask_op(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned bits = 8 * (in->what >> 4);
    uint64_t all = bits == 64 ? ~0ull : (1ull << bits) - 1;
    uint64_t a = *(const uint64_t *)(const void *)w->src[0] & all,
             b = *(const uint64_t *)(const void *)w->src[1] & all, v = 0;
    switch (in->what & 15) {
    case EVEX_K_AND:
        v = a & b;
        break;
    case EVEX_K_ANDN:
        v = ~a & b;
        break;
    case EVEX_K_OR:
        v = a | b;
        break;
    case EVEX_K_XOR:
        v = a ^ b;
        break;
    case EVEX_K_XNOR:
        v = ~(a ^ b);
        break;
    case EVEX_K_NOT:
        v = ~a;
        break;
    case EVEX_K_ADD:
        v = a + b;
        break;
    case EVEX_K_SHIFTL:
        v = in->imm < bits ? a << in->imm : 0;
        break;
    case EVEX_K_SHIFTR:
        v = in->imm < bits ? a >> in->imm : 0;
        break;
    case EVEX_K_MOV:
        v = a;
        break;
    case EVEX_K_UNPACK:
        v = a << bits / 2 | (b & all >> bits / 2);
        break;
    case EVEX_K_ORTEST:
        set_mask_flags((a | b) == 0, (a | b) == all);
        break;
    default:
        set_mask_flags((a & b) == 0, (~a & b) == 0);
    }
    *out_value(w) = v & all;
}
