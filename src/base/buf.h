/* Memory and growing things: allocation that aborts when memory is gone (for small, trusted sizes),
 * formatted strings, byte buffers, and vectors. Sizes that come from input use buf_try_reserve()
 * and a cap. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/cleanup.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

void *xmalloc(size_t len) nodiscard;
void *xcalloc(size_t count, size_t size) nodiscard;
void *xrealloc(void *p, size_t len) nodiscard;
char *xstrdup(const char *s) nodiscard;
void *xmemdup(const void *p, size_t len) nodiscard;
#define xnew(type)              ((type *)xcalloc(1, sizeof(type)))
#define xnew_array(type, count) ((type *)xcalloc((count), sizeof(type)))

/** printf into a new heap string, owned by the caller. */
char *str_format(const char *format, ...) __attribute__((format(printf, 1, 2))) nodiscard;
char *str_vformat(const char *format, va_list args) __attribute__((format(printf, 1, 0))) nodiscard;
/** For tables; never 0. */
uint64_t str_hash(const char *s);
static inline bool str_eq(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}
static inline bool str_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* A growing byte buffer; also a string builder. Zero-initialise it; buf_deinit frees. */
struct buf {
    uint8_t *data;
    size_t len, cap;
};
void buf_deinit(struct buf *b);
void buf_reserve(struct buf *b, size_t more);
/** As buf_reserve, but false when there is no memory. */
bool buf_try_reserve(struct buf *b, size_t more) nodiscard;
void buf_add(struct buf *b, const void *data, size_t len);
void buf_zeros(struct buf *b, size_t len);
void buf_str(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** Appends little-endian integers, and unsigned LEB128. */
void buf_u8(struct buf *b, uint8_t v);
void buf_u16(struct buf *b, uint16_t v);
void buf_u32(struct buf *b, uint32_t v);
void buf_u64(struct buf *b, uint64_t v);
void buf_uleb(struct buf *b, uint64_t v);
/** The contents as a C string (a NUL is kept after the data); borrowed until the next change. */
const char *buf_cstr(struct buf *b);
/** Takes the contents out as a heap string. */
char *buf_steal_str(struct buf *b) nodiscard;

/* Vectors: VEC(type) declares an anonymous struct {type *items; size_t count, cap;};
 * zero-initialise. */
#define VEC(type)          \
    struct {               \
        type *items;       \
        size_t count, cap; \
    }
void vec_grow_bytes(void **items, size_t *cap, size_t need, size_t size);
#define vec_reserve(v, more) \
    vec_grow_bytes((void **)&(v)->items, &(v)->cap, (v)->count + (more), sizeof(*(v)->items))
#define vec_push(v, ...)                          \
    do {                                          \
        vec_reserve(v, 1);                        \
        (v)->items[(v)->count++] = (__VA_ARGS__); \
    } while (0)
/* Appends a zeroed element and yields a pointer to it, valid until the next growth. */
#define vec_add(v)                                               \
    ({                                                           \
        vec_reserve(v, 1);                                       \
        memset(&(v)->items[(v)->count], 0, sizeof(*(v)->items)); \
        &(v)->items[(v)->count++];                               \
    })
#define vec_deinit(v)              \
    do {                           \
        free((v)->items);          \
        (v)->items = NULL;         \
        (v)->count = (v)->cap = 0; \
    } while (0)
#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define vec_each(it, v) \
    for (__typeof__(*(v)->items) *it = (v)->items; it < (v)->items + (v)->count; it++)

#endif
