#include "trace/packed.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"

struct packed_stream packed_stream_of_blocks(struct block_reader *r, uint64_t off)
{
    return (struct packed_stream){.name = r->file->name, .blocks = r, .end_off = off};
}

struct packed_stream packed_stream_of_memory(const char *name, const void *data, size_t len,
                                             uint64_t off)
{
    const uint8_t *p = data;
    return (struct packed_stream){.name = name, .next = p, .end = p + len, .end_off = off + len};
}

/* Makes at least one byte available; none left is not an error here. */
static struct err *refill(struct packed_stream *s)
{
    if (s->next != s->end || !s->blocks)
        return NULL;
    size_t len;
    TRY(block_reader_at(s->blocks, s->end_off, &s->next, &len));
    s->end = len ? s->next + len : s->next;
    s->end_off += len;
    return NULL;
}

static struct err *truncated(const struct packed_stream *s)
{
    return err_new(ERR_FORMAT, "%s: message truncated at 0x%" PRIx64, s->name,
                   packed_stream_offset(s));
}

static inline struct err *next_byte(struct packed_stream *s, uint8_t *out)
{
    if (s->next == s->end) {
        TRY(refill(s));
        if (s->next == s->end)
            return truncated(s);
    }
    *out = *s->next++;
    return NULL;
}

static struct err *copy_bytes(struct packed_stream *s, uint8_t *out, size_t len)
{
    while (len) {
        TRY(refill(s));
        size_t n = (size_t)(s->end - s->next);
        if (!n)
            return truncated(s);
        if (n > len)
            n = len;
        memcpy(out, s->next, n);
        s->next += n;
        out += n;
        len -= n;
    }
    return NULL;
}

/* One word by its tag byte; a tag of 0x00 or 0xff begins a run, whose rest the stream remembers. */
static struct err *unpack_tagged(struct packed_stream *s, uint8_t *out)
{
    uint8_t tag = 0;
    TRY(next_byte(s, &tag));
    for (unsigned bit = 0; bit < 8; bit++) {
        out[bit] = 0;
        if (tag >> bit & 1)
            TRY(next_byte(s, &out[bit]));
    }
    uint8_t run = 0;
    if (tag == 0x00 || tag == 0xff)
        TRY(next_byte(s, &run));
    if (tag == 0x00)
        s->zero_words = run;
    if (tag == 0xff)
        s->literal_words = run;
    return NULL;
}

static struct err *unpack(struct packed_stream *s, uint8_t *out, size_t words)
{
    while (words) {
        size_t n = 1;
        if (s->zero_words) {
            n = s->zero_words < words ? s->zero_words : words;
            memset(out, 0, n * 8);
            s->zero_words -= (uint32_t)n;
        } else if (s->literal_words) {
            n = s->literal_words < words ? s->literal_words : words;
            TRY(copy_bytes(s, out, n * 8));
            s->literal_words -= (uint32_t)n;
        } else {
            TRY(unpack_tagged(s, out));
        }
        out += n * 8;
        words -= n;
    }
    return NULL;
}

/* The table before the segments: u32 count - 1, then a u32 length in words for each, padded to
 * whole words. */
static struct err *read_segment_table(struct packed_stream *s, uint64_t start, struct message *m,
                                      size_t *words_out)
{
    uint8_t table[(MESSAGE_MAX_SEGMENTS / 2 + 1) * 8];
    TRY(unpack(s, table, 1));
    uint32_t count = load_u32(table);
    if (count >= MESSAGE_MAX_SEGMENTS)
        return err_new(ERR_FORMAT, "%s: message at 0x%" PRIx64 ": unlikely number of segments",
                       s->name, start);
    count++;
    TRY(unpack(s, table + 8, count / 2));
    size_t words = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t len = load_u32(table + 4 + 4 * i);
        if (len > MESSAGE_MAX_WORDS - words)
            return err_new(ERR_FORMAT, "%s: message at 0x%" PRIx64 ": unlikely size", s->name,
                           start);
        m->segments[i] = (struct message_segment){.first = words, .words = len};
        words += len;
    }
    m->segment_count = count;
    *words_out = words;
    return NULL;
}

struct err *packed_stream_next(struct packed_stream *s, struct message *m, bool *end_out)
{
    TRY(refill(s));
    if (s->next == s->end) {
        *end_out = true;
        return NULL;
    }
    uint64_t start = packed_stream_offset(s);
    s->zero_words = s->literal_words = 0;
    size_t words;
    TRY(read_segment_table(s, start, m, &words));
    TRY(message_reset(m, words));
    // In pieces, so that memory grows with the input and not with what a damaged table claims.
    enum { PIECE = 1 << 14 };
    for (size_t done = 0; done < words;) {
        size_t n = words - done < PIECE ? words - done : PIECE;
        uint8_t *to;
        TRY(message_extend(m, n, &to));
        TRY(unpack(s, to, n));
        done += n;
    }
    if (s->zero_words || s->literal_words)
        return err_new(ERR_FORMAT, "%s: message at 0x%" PRIx64 ": a run crosses its end", s->name,
                       start);
    *end_out = false;
    return NULL;
}
