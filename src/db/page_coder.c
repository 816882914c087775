#include "db/page_coder.h"

#include "base/bytes.h"

#include <emmintrin.h>
#include <zstd.h>

enum { WORD = 8, WORDS_PER_PAGE = PAGE_SIZE / WORD };

/* A page with more changed words than this is stored whole. */
enum { MAX_CHANGED = WORDS_PER_PAGE * 3 / 4 };

/* --- filters --- */

/* First `op` with the word `stride` bytes earlier (0 before the start), then, if `planes` is not 0,
 * the bytes of elements of so many bytes are laid out plane by plane: byte 0 of each, byte 1 of
 * each... The numbers are part of the format. */
enum filter_op { KEEP, SUBTRACT, XOR };
static const struct filter {
    enum filter_op op;
    size_t stride, planes;
} filters[] = {
    {KEEP, 0, 0}, {KEEP, 0, 4}, {KEEP, 0, 8}, {XOR, 8, 8}, {SUBTRACT, 32, 8},
};
enum { FILTER_COUNT = sizeof(filters) / sizeof(filters[0]) };

static void store_u64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof(v));
}

/* The i-th byte of each of eight words becomes the i-th word. */
static void transpose(uint64_t w[8])
{
    static const uint64_t masks[] = {0x00000000ffffffff, 0x0000ffff0000ffff, 0x00ff00ff00ff00ff};
    for (unsigned step = 0, apart = 4; apart; step++, apart /= 2) {
        for (unsigned i = 0; i < 8; i++) {
            if (i & apart)
                continue;
            uint64_t swap = (w[i] >> 8 * apart ^ w[i + apart]) & masks[step];
            w[i + apart] ^= swap;
            w[i] ^= swap << 8 * apart;
        }
    }
}

/* Of elements of 8 bytes; count: elements. */
static void lay_out_planes(const uint8_t *in, size_t count, uint8_t *out)
{
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        uint64_t w[8];
        memcpy(w, in + WORD * i, sizeof(w));
        transpose(w);
        for (size_t k = 0; k < 8; k++)
            store_u64(out + k * count + i, w[k]);
    }
    for (; i < count; i++) {
        for (size_t k = 0; k < 8; k++)
            out[k * count + i] = in[i * WORD + k];
    }
}

/* len: a multiple of WORD. in and out differ. */
static void apply_filter(const struct filter *f, const uint8_t *in, size_t len, uint8_t *out)
{
    cleanup(freep) uint8_t *changed = NULL;
    if (f->op != KEEP) {
        changed = xmalloc(len + 1);
        for (size_t i = 0; i < len; i += WORD) {
            uint64_t v = load_u64(in + i),
                     earlier = i >= f->stride ? load_u64(in + i - f->stride) : 0;
            store_u64(changed + i, f->op == XOR ? v ^ earlier : v - earlier);
        }
        in = changed;
    }
    if (!f->planes) {
        memcpy(out, in, len);
        return;
    }
    size_t count = len / f->planes;
    if (f->planes == WORD) {
        lay_out_planes(in, count, out);
        return;
    }
    for (size_t k = 0; k < f->planes; k++) {
        for (size_t i = 0; i < count; i++)
            out[k * count + i] = in[i * f->planes + k];
    }
}

/* Makes elements of `planes` (4 or 8) bytes from their planes; count: elements. Sixteen at a time:
 * where registers of planes are shuffled like cards, the first half with the second one, as often
 * as the number of planes can be halved, all bytes of an element are together. */
static inline __attribute__((always_inline)) void join_planes(const uint8_t *in, size_t count,
                                                              size_t planes, uint8_t *out)
{
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        __m128i now[WORD], next[WORD];
        for (size_t k = 0; k < planes; k++)
            now[k] = _mm_loadu_si128((const void *)(in + k * count + i));
        for (size_t halves = planes; halves > 1; halves /= 2) {
            for (size_t k = 0; k < planes / 2; k++) {
                next[2 * k] = _mm_unpacklo_epi8(now[k], now[k + planes / 2]);
                next[2 * k + 1] = _mm_unpackhi_epi8(now[k], now[k + planes / 2]);
            }
            memcpy(now, next, planes * sizeof(now[0]));
        }
        for (size_t k = 0; k < planes; k++)
            _mm_storeu_si128((void *)(out + i * planes + 16 * k), now[k]);
    }
    for (; i < count; i++) {
        for (size_t k = 0; k < planes; k++)
            out[i * planes + k] = in[k * count + i];
    }
}

static void undo_filter(const struct filter *f, const uint8_t *in, size_t len, uint8_t *out)
{
    if (!f->planes)
        memcpy(out, in, len);
    else if (f->planes == WORD)
        join_planes(in, len / WORD, WORD, out);
    else
        join_planes(in, len / 4, 4, out);
    if (f->op == KEEP)
        return;
    for (size_t i = f->stride; i < len; i += WORD) {
        uint64_t v = load_u64(out + i), earlier = load_u64(out + i - f->stride);
        store_u64(out + i, f->op == XOR ? v ^ earlier : v + earlier);
    }
}

/* --- encoding --- */

enum { SAMPLE = 16384 };

struct page_coder {
    ZSTD_CCtx *zstd;
    size_t packed_cap;
    uint8_t *packed;
    uint8_t filtered[SAMPLE];
    struct buf words, xored, whole, bits; /* of the chunk in the making */
};

struct page_coder *page_coder_create(void)
{
    struct page_coder *c = xnew(struct page_coder);
    c->zstd = ZSTD_createCCtx();
    c->packed_cap = ZSTD_compressBound(SAMPLE);
    c->packed = xmalloc(c->packed_cap);
    return c;
}

void page_coder_destroy(struct page_coder *c)
{
    if (!c)
        return;
    ZSTD_freeCCtx(c->zstd);
    free(c->packed);
    buf_deinit(&c->words);
    buf_deinit(&c->xored);
    buf_deinit(&c->whole);
    buf_deinit(&c->bits);
    free(c);
}

enum page_form page_form(const uint8_t *now, const uint8_t *before)
{
    size_t changed = 0;
    uint64_t bits = 0;
    for (size_t i = 0; i < PAGE_SIZE; i += WORD) {
        uint64_t word = load_u64(now + i);
        bits |= word;
        changed += before && word != load_u64(before + i);
    }
    if (before && !changed)
        return PAGE_SAME;
    if (!bits)
        return PAGE_ZERO;
    return before && changed <= MAX_CHANGED ? PAGE_WORDS : PAGE_WHOLE;
}

/* Size of a sample of the section (its middle) under a filter. */
static size_t try_filter(struct page_coder *c, const struct filter *f, const struct buf *section)
{
    size_t len = section->len < SAMPLE ? section->len : SAMPLE,
           start = (section->len - len) / 2 / WORD * WORD;
    apply_filter(f, section->data + start, len, c->filtered);
    size_t n =
        c->zstd ? ZSTD_compressCCtx(c->zstd, c->packed, c->packed_cap, c->filtered, len, 1) : 0;
    return ZSTD_isError(n) ? SIZE_MAX : n;
}

/* Sets *best to the filter that suits the section; returns what its sample comes to. */
static size_t choose_filter(struct page_coder *c, const struct buf *section, uint8_t *best)
{
    size_t least = SIZE_MAX;
    *best = 0;
    for (uint8_t i = 0; i < FILTER_COUNT && section->len; i++) {
        size_t n = try_filter(c, &filters[i], section);
        if (n >= least)
            continue;
        least = n;
        *best = i;
    }
    return least;
}

static void add_changed(struct page_coder *c, const struct page_image *p)
{
    uint8_t map[64] = {0};
    for (size_t i = 0; i < WORDS_PER_PAGE; i++) {
        uint64_t now = load_u64(p->now + WORD * i), before = load_u64(p->before + WORD * i);
        if (now == before)
            continue;
        map[i / 8] |= (uint8_t)(1 << i % 8);
        buf_u64(&c->words, now);
        buf_u64(&c->xored, now ^ before);
    }
    buf_add(&c->bits, map, sizeof(map));
}

static void add_filtered(const struct buf *section, uint8_t filter, struct buf *out)
{
    buf_reserve(out, section->len);
    apply_filter(&filters[filter], section->data, section->len, out->data + out->len);
    out->len += section->len;
}

void page_chunk_encode(struct page_coder *c, const struct page_image *pages, size_t count,
                       struct buf *out)
{
    uint8_t kinds[PAGES_PER_CHUNK / 8] = {0};
    c->words.len = c->xored.len = c->whole.len = c->bits.len = 0;
    for (size_t i = 0; i < count; i++) {
        if (pages[i].before) {
            kinds[i / 8] |= (uint8_t)(1 << i % 8);
            add_changed(c, &pages[i]);
        } else {
            buf_add(&c->whole, pages[i].now, PAGE_SIZE);
        }
    }
    uint8_t words_filter, xored_filter, whole_filter;
    bool use_xored =
        choose_filter(c, &c->xored, &xored_filter) < choose_filter(c, &c->words, &words_filter);
    choose_filter(c, &c->whole, &whole_filter);
    buf_u8(out, (uint8_t)count);
    buf_u8(out, use_xored ? xored_filter | 0x80 : words_filter);
    buf_u8(out, whole_filter);
    buf_add(out, kinds, (count + 7) / 8);
    buf_add(out, c->bits.data, c->bits.len);
    add_filtered(use_xored ? &c->xored : &c->words, use_xored ? xored_filter : words_filter, out);
    add_filtered(&c->whole, whole_filter, out);
}

/* --- decoding --- */

void page_chunk_deinit(struct page_chunk *c)
{
    buf_deinit(&c->words);
    buf_deinit(&c->whole);
}

static bool take_section(struct bytes *b, uint8_t filter, size_t len, struct buf *out)
{
    const uint8_t *p = bytes_take(b, len);
    if (!p || filter >= FILTER_COUNT)
        return false;
    out->len = 0;
    buf_reserve(out, len);
    undo_filter(&filters[filter], p, len, out->data);
    out->len = len;
    return true;
}

bool page_chunk_decode(const uint8_t *data, size_t len, struct page_chunk *c)
{
    struct bytes b = bytes_of(data, len);
    c->count = bytes_u8(&b);
    uint8_t words_filter = bytes_u8(&b), whole_filter = bytes_u8(&b);
    const uint8_t *kinds = bytes_take(&b, (c->count + 7) / 8);
    if (!kinds || !c->count || c->count > PAGES_PER_CHUNK)
        return false;
    uint32_t words_len = 0, whole_len = 0;
    for (size_t i = 0; i < c->count; i++) {
        c->is_words[i] = kinds[i / 8] >> i % 8 & 1;
        c->off[i] = c->is_words[i] ? words_len : whole_len;
        if (!c->is_words[i]) {
            whole_len += PAGE_SIZE;
            continue;
        }
        const uint8_t *bits = bytes_take(&b, 64);
        if (!bits)
            return false;
        memcpy(c->bits[i], bits, 64);
        for (size_t k = 0; k < 64; k += 8)
            words_len += WORD * (uint32_t)__builtin_popcountll(load_u64(bits + k));
    }
    c->words_are_xor = words_filter & 0x80;
    return take_section(&b, words_filter & 0x7f, words_len, &c->words) &&
           take_section(&b, whole_filter, whole_len, &c->whole) && !bytes_left(&b);
}

void page_chunk_apply(const struct page_chunk *c, size_t idx, uint8_t *page)
{
    if (!c->is_words[idx]) {
        memcpy(page, c->whole.data + c->off[idx], PAGE_SIZE);
        return;
    }
    const uint8_t *word = c->words.data + c->off[idx];
    for (size_t i = 0; i < WORDS_PER_PAGE; i += 64) {
        for (uint64_t bits = load_u64(c->bits[idx] + i / 8); bits; bits &= bits - 1) {
            uint8_t *at = page + WORD * (i + (size_t)__builtin_ctzll(bits));
            uint64_t v = load_u64(word);
            word += WORD;
            store_u64(at, c->words_are_xor ? v ^ load_u64(at) : v);
        }
    }
}
