/* The byte cursor: the only way input is parsed. It fails once and stays failed; reads after that
 * give zeros. Every end check comes before a value is trusted as an index or a size. All integers
 * are little-endian. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes {
    const uint8_t *data;
    size_t len;
    size_t pos;
    bool failed;
};

static inline struct bytes bytes_of(const void *data, size_t len)
{
    return (struct bytes){.data = (const uint8_t *)data, .len = len};
}

static inline size_t bytes_left(const struct bytes *b)
{
    return b->failed ? 0 : b->len - b->pos;
}

/** The next `len` bytes, or NULL (and the cursor has failed) if there are fewer. Borrowed from the
 * data. */
const uint8_t *bytes_take(struct bytes *b, size_t len);
void bytes_skip(struct bytes *b, size_t len);
void bytes_seek(struct bytes *b, size_t pos);
uint8_t bytes_u8(struct bytes *b);
uint16_t bytes_u16(struct bytes *b);
uint32_t bytes_u32(struct bytes *b);
uint64_t bytes_u64(struct bytes *b);
/** Unsigned LEB128 of at most 64 bits. */
uint64_t bytes_uleb(struct bytes *b);
/** A count of things of at least `min_size` bytes each that are still to come: fails if they cannot
 * fit. */
size_t bytes_count(struct bytes *b, size_t min_size);

/* Loads from possibly unaligned memory. */
static inline uint16_t load_u16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}
static inline uint32_t load_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}
static inline uint64_t load_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

#endif
