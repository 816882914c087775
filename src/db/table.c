#include "db/table.h"

#include <stdlib.h>

/* Calls of memcpy() with a size that is no constant would take most of the time of reading a table.
 */
static uint64_t load(const uint8_t *p, size_t size)
{
    switch (size) {
    case 1:
        return *p;
    case 4:
        return load_u32(p);
    case 8:
        return load_u64(p);
    }
    uint64_t v = 0;
    memcpy(&v, p, size);
    return v;
}

static void store(uint8_t *p, size_t size, uint64_t v)
{
    switch (size) {
    case 1:
        *p = (uint8_t)v;
        return;
    case 4:
        memcpy(p, &v, 4);
        return;
    case 8:
        memcpy(p, &v, 8);
        return;
    }
    memcpy(p, &v, size);
}

static uint64_t sign_extend(uint64_t v, size_t size)
{
    unsigned unused = 64 - 8 * (unsigned)size;
    return (uint64_t)((int64_t)(v << unused) >> unused);
}

/* Small numbers of either sign become small unsigned ones. */
static uint64_t fold(uint64_t v)
{
    return v << 1 ^ (uint64_t)((int64_t)v >> 63);
}

static uint64_t unfold(uint64_t v)
{
    return v >> 1 ^ -(v & 1);
}

static uint64_t base_of(const struct table *t, const struct column *c, const uint8_t *rows,
                        size_t row)
{
    const uint8_t *at = rows + row * t->row_size;
    switch (c->from) {
    case FROM_ABOVE:
        return row ? load(at - t->row_size + c->offset, c->size) : 0;
    case FROM_MEMBER:
        return load(at + c->base, c->size);
    case FROM_ZERO:
        break;
    }
    return 0;
}

void table_put(const struct table *t, const void *rows, size_t count, struct buf *out)
{
    buf_uleb(out, count);
    for (size_t k = 0; k < t->column_count; k++) {
        const struct column *c = &t->columns[k];
        for (size_t i = 0; i < count; i++) {
            uint64_t v = load((const uint8_t *)rows + i * t->row_size + c->offset, c->size);
            buf_uleb(out, fold(sign_extend(v - base_of(t, c, rows, i), c->size)));
        }
    }
}

size_t table_get(const struct table *t, struct bytes *b, void **rows_out)
{
    *rows_out = NULL;
    size_t count = bytes_count(b, t->column_count);
    if (!count)
        return 0;
    uint8_t *rows = calloc(count, t->row_size);
    if (!rows) {
        b->failed = true;
        return 0;
    }
    for (size_t k = 0; k < t->column_count; k++) {
        const struct column *c = &t->columns[k];
        for (size_t i = 0; i < count; i++) {
            uint64_t difference = unfold(bytes_uleb(b));
            if (difference != sign_extend(difference, c->size))
                b->failed = true;
            store(rows + i * t->row_size + c->offset, c->size, base_of(t, c, rows, i) + difference);
        }
    }
    if (b->failed) {
        free(rows);
        return 0;
    }
    *rows_out = rows;
    return count;
}

size_t table_difference(const struct table *t, const void *a, size_t a_count, const void *b,
                        size_t b_count)
{
    size_t count = a_count < b_count ? a_count : b_count;
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < t->column_count; k++) {
            size_t at = i * t->row_size + t->columns[k].offset;
            if (memcmp((const uint8_t *)a + at, (const uint8_t *)b + at, t->columns[k].size) != 0)
                return i;
        }
    }
    return a_count == b_count ? SIZE_MAX : count;
}
