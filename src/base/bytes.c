#include "base/bytes.h"

const uint8_t *bytes_take(struct bytes *b, size_t len)
{
    if (b->failed || len > b->len - b->pos) {
        b->failed = true;
        return NULL;
    }
    const uint8_t *p = b->data + b->pos;
    b->pos += len;
    return p;
}

void bytes_skip(struct bytes *b, size_t len)
{
    bytes_take(b, len);
}

void bytes_seek(struct bytes *b, size_t pos)
{
    if (pos > b->len)
        b->failed = true;
    else
        b->pos = pos;
}

uint8_t bytes_u8(struct bytes *b)
{
    const uint8_t *p = bytes_take(b, 1);
    return p ? *p : 0;
}

uint16_t bytes_u16(struct bytes *b)
{
    const uint8_t *p = bytes_take(b, 2);
    return p ? load_u16(p) : 0;
}

uint32_t bytes_u32(struct bytes *b)
{
    const uint8_t *p = bytes_take(b, 4);
    return p ? load_u32(p) : 0;
}

uint64_t bytes_u64(struct bytes *b)
{
    const uint8_t *p = bytes_take(b, 8);
    return p ? load_u64(p) : 0;
}

uint64_t bytes_uleb(struct bytes *b)
{
    if (!b->failed && b->pos < b->len && b->data[b->pos] < 0x80) // as most numbers are
        return b->data[b->pos++];
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = bytes_u8(b);
        if (shift == 63 && byte > 1)
            break;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return b->failed ? 0 : v;
    }
    b->failed = true;
    return 0;
}

size_t bytes_count(struct bytes *b, size_t min_size)
{
    uint64_t count = bytes_uleb(b);
    if (count > bytes_left(b) / (min_size ? min_size : 1)) {
        b->failed = true;
        return 0;
    }
    return (size_t)count;
}
