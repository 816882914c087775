#include "trace/writer.h"

#include "base/files.h"

#include <assert.h>
#include <brotli/encode.h>

enum { BROTLI_QUALITY = 5 }; /* what rr uses (CompressedWriter.cc) */

/* ---- messages */

static size_t add_words(struct buf *words, size_t count)
{
    size_t word = words->len / 8;
    buf_zeros(words, count * 8);
    return word;
}

static void set_word(struct buf *words, size_t word, uint64_t v)
{
    memcpy(words->data + word * 8, &v, sizeof(v));
}

static uint64_t struct_tag(uint16_t data_words, uint16_t ptr_count)
{
    return (uint64_t)data_words << 32 | (uint64_t)ptr_count << 48;
}

/* The low half of a near pointer at `from` to `to`: bits 2 to 31 are the distance from the
 * pointer's end. */
static uint64_t distance(size_t from, size_t to)
{
    assert(to > from && to - from - 1 < 1u << 29);
    return (uint64_t)(to - from - 1) << 2;
}

static size_t ptr_word(struct build_ref s, unsigned idx)
{
    assert(idx < s.ptr_count);
    return s.word + s.data_words + idx;
}

static void put(struct build_ref s, size_t off, const void *v, size_t len)
{
    assert(off + len <= s.data_words * 8u);
    memcpy(s.words->data + s.word * 8 + off, v, len);
}

struct build_ref build_root(struct buf *words, uint16_t data_words, uint16_t ptr_count)
{
    words->len = 0;
    add_words(words, 1u + data_words + ptr_count);
    set_word(words, 0, struct_tag(data_words, ptr_count));
    return (struct build_ref){words, 1, data_words, ptr_count};
}

void build_u8(struct build_ref s, size_t off, uint8_t v)
{
    put(s, off, &v, sizeof(v));
}

void build_u16(struct build_ref s, size_t off, uint16_t v)
{
    put(s, off, &v, sizeof(v));
}

void build_u32(struct build_ref s, size_t off, uint32_t v)
{
    put(s, off, &v, sizeof(v));
}

void build_u64(struct build_ref s, size_t off, uint64_t v)
{
    put(s, off, &v, sizeof(v));
}

void build_bit(struct build_ref s, size_t bit, bool v)
{
    assert(bit / 8 < s.data_words * 8u);
    uint8_t *byte = s.words->data + s.word * 8 + bit / 8;
    *byte = (uint8_t)((*byte & ~(1u << bit % 8)) | (unsigned)v << bit % 8);
}

/* A list of `count` elements with size code `kind`, in `words` words; returns its first word. */
static size_t build_list(struct build_ref s, unsigned idx, unsigned kind, size_t count,
                         size_t words)
{
    assert(count < 1u << 29);
    size_t from = ptr_word(s, idx), to = add_words(s.words, words);
    set_word(s.words, from, distance(from, to) | 1 | (uint64_t)kind << 32 | (uint64_t)count << 35);
    return to;
}

void build_data(struct build_ref s, unsigned idx, const void *data, size_t len)
{
    size_t word = build_list(s, idx, 2, len, (len + 7) / 8);
    if (len)
        memcpy(s.words->data + word * 8, data, len);
}

void build_text(struct build_ref s, unsigned idx, const char *text)
{
    build_data(s, idx, text, strlen(text) + 1);
}

struct build_ref build_struct(struct build_ref s, unsigned idx, uint16_t data_words,
                              uint16_t ptr_count)
{
    size_t from = ptr_word(s, idx), to = add_words(s.words, (size_t)data_words + ptr_count);
    set_word(s.words, from, distance(from, to) | struct_tag(data_words, ptr_count));
    return (struct build_ref){s.words, to, data_words, ptr_count};
}

struct build_ref build_structs(struct build_ref s, unsigned idx, uint32_t count,
                               uint16_t data_words, uint16_t ptr_count)
{
    size_t words = (size_t)count * (data_words + ptr_count);
    size_t tag = build_list(s, idx, 7, words, words + 1);
    set_word(s.words, tag, struct_tag(data_words, ptr_count) | (uint64_t)count << 2);
    return (struct build_ref){s.words, tag + 1, data_words, ptr_count};
}

struct build_ref build_next(struct build_ref element)
{
    element.word += (size_t)element.data_words + element.ptr_count;
    return element;
}

void build_i32s(struct build_ref s, unsigned idx, const int32_t *values, uint32_t count)
{
    size_t word = build_list(s, idx, 4, count, (count + 1) / 2);
    if (count)
        memcpy(s.words->data + word * 8, values, count * sizeof(*values));
}

struct build_ref build_pointers(struct build_ref s, unsigned idx, uint16_t count)
{
    return (struct build_ref){s.words, build_list(s, idx, 6, count, count), 0, count};
}

/* ---- packed encoding */

static uint8_t tag_of(const uint8_t *word)
{
    unsigned tag = 0;
    for (unsigned i = 0; i < 8; i++)
        tag |= (unsigned)(word[i] != 0) << i;
    return (uint8_t)tag;
}

/* How many of the next words, 255 at most, continue a run: zeros after a zero word; after a full
 * one, words with at most one zero byte, which are cheaper to copy than to tag. */
static uint8_t run_length(const uint8_t *p, const uint8_t *end, bool zeros)
{
    unsigned n = 0;
    for (; p < end && n < 255; p += 8, n++) {
        uint8_t tag = tag_of(p);
        if (zeros ? tag != 0 : __builtin_popcount(tag) < 7)
            break;
    }
    return (uint8_t)n;
}

void pack_read_message(struct buf *out, const struct message *m)
{
    cleanup(buf_deinit) struct buf table = {0};
    buf_u32(&table, m->segment_count - 1);
    for (uint32_t i = 0; i < m->segment_count; i++)
        buf_u32(&table, (uint32_t)m->segments[i].words);
    buf_zeros(&table, -table.len % 8);
    pack_words(out, table.data, table.len);
    pack_words(out, m->data.data, m->data.len);
}

void pack_words(struct buf *out, const void *words, size_t len)
{
    assert(len % 8 == 0);
    const uint8_t *p = words, *end = p + len;
    while (p < end) {
        uint8_t tag = tag_of(p);
        buf_u8(out, tag);
        for (unsigned i = 0; i < 8; i++)
            if (p[i])
                buf_u8(out, p[i]);
        p += 8;
        if (tag != 0x00 && tag != 0xff)
            continue;
        uint8_t run = run_length(p, end, tag == 0x00);
        buf_u8(out, run);
        if (tag == 0xff)
            buf_add(out, p, run * 8u);
        p += run * 8u;
    }
}

void pack_message(struct buf *out, const void *words, size_t len)
{
    uint32_t table[2] = {0, (uint32_t)(len / 8)};
    pack_words(out, table, sizeof(table));
    pack_words(out, words, len);
}

/* ---- blocks */

static struct err *write_block(struct block_writer *w, const uint8_t *data, size_t len)
{
    size_t packed_len = BrotliEncoderMaxCompressedSize(len);
    cleanup(freep) uint8_t *packed = xmalloc(packed_len);
    if (!BrotliEncoderCompress(BROTLI_QUALITY, BROTLI_DEFAULT_WINDOW, BROTLI_MODE_GENERIC, len,
                               data, &packed_len, packed))
        return err_new(ERR_LIMIT, "%s: cannot compress a block of %zu bytes", w->name, len);
    uint32_t header[2] = {(uint32_t)packed_len, (uint32_t)len};
    TRY(write_all(w->fd, w->name, header, sizeof(header)));
    return write_all(w->fd, w->name, packed, packed_len);
}

struct err *block_writer_add(struct block_writer *w, const void *data, size_t len)
{
    buf_add(&w->pending, data, len);
    size_t done = 0;
    struct err *e = NULL;
    for (; !e && w->pending.len - done >= w->block_size; done += w->block_size)
        e = write_block(w, w->pending.data + done, w->block_size);
    if (done) {
        w->pending.len -= done;
        memmove(w->pending.data, w->pending.data + done, w->pending.len);
    }
    return e;
}

struct err *block_writer_finish(struct block_writer *w)
{
    if (w->pending.len)
        TRY(write_block(w, w->pending.data, w->pending.len));
    w->pending.len = 0;
    return NULL;
}

void block_writer_deinit(struct block_writer *w)
{
    buf_deinit(&w->pending);
}
