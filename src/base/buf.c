#include "base/buf.h"

#include <assert.h>

static void *must(void *p)
{
    if (!p) {
        fputs("pernosco: out of memory\n", stderr);
        abort();
    }
    return p;
}

void *xmalloc(size_t len)
{
    return must(malloc(len ? len : 1));
}

void *xcalloc(size_t count, size_t size)
{
    return must(calloc(count ? count : 1, size ? size : 1));
}

void *xrealloc(void *p, size_t len)
{
    return must(realloc(p, len ? len : 1));
}

char *xstrdup(const char *s)
{
    return must(strdup(s));
}

void *xmemdup(const void *p, size_t len)
{
    void *copy = xmalloc(len);
    if (len)
        memcpy(copy, p, len);
    return copy;
}

char *str_vformat(const char *format, va_list args)
{
    char *s;
    if (vasprintf(&s, format, args) < 0)
        must(NULL);
    return s;
}

char *str_format(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *s = str_vformat(format, args);
    va_end(args);
    return s;
}

void buf_deinit(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

bool buf_try_reserve(struct buf *b, size_t more)
{
    if (more <= b->cap - b->len)
        return true;
    if (more > SIZE_MAX / 4 - b->len)
        return false;
    size_t cap = b->cap ? b->cap : 64;
    while (cap - b->len < more)
        cap *= 2;
    uint8_t *data = realloc(b->data, cap);
    if (!data)
        return false;
    b->data = data;
    b->cap = cap;
    return true;
}

void buf_reserve(struct buf *b, size_t more)
{
    if (!buf_try_reserve(b, more))
        must(NULL);
}

void buf_add(struct buf *b, const void *data, size_t len)
{
    if (!len)
        return;
    buf_reserve(b, len);
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

void buf_zeros(struct buf *b, size_t len)
{
    if (!len)
        return;
    buf_reserve(b, len);
    memset(b->data + b->len, 0, len);
    b->len += len;
}

void buf_str(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cleanup(freep) char *s = str_vformat(format, args);
    va_end(args);
    buf_str(b, s);
}

void buf_u8(struct buf *b, uint8_t v)
{
    buf_add(b, &v, sizeof(v));
}

void buf_u16(struct buf *b, uint16_t v)
{
    buf_add(b, &v, sizeof(v));
}

void buf_u32(struct buf *b, uint32_t v)
{
    buf_add(b, &v, sizeof(v));
}

void buf_u64(struct buf *b, uint64_t v)
{
    buf_add(b, &v, sizeof(v));
}

void buf_uleb(struct buf *b, uint64_t v)
{
    do {
        uint8_t byte = v & 0x7f;
        v >>= 7;
        buf_u8(b, v ? byte | 0x80 : byte);
    } while (v);
}

const char *buf_cstr(struct buf *b)
{
    buf_reserve(b, 1);
    b->data[b->len] = 0;
    return (const char *)b->data;
}

char *buf_steal_str(struct buf *b)
{
    buf_cstr(b);
    char *s = (char *)b->data;
    *b = (struct buf){0};
    return s;
}

void vec_grow_bytes(void **items, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap)
        return;
    size_t grown = *cap ? *cap * 2 : 8;
    if (grown < need)
        grown = need;
    assert(grown < SIZE_MAX / size);
    *items = xrealloc(*items, grown * size);
    *cap = grown;
}

uint64_t str_hash(const char *s)
{
    uint64_t h = 0xcbf29ce484222325u; // FNV-1a
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 0x100000001b3u;
    return h ? h : 1;
}
