/* A growing array of rows in reserved address space, handed over piece by piece. Freestanding. */
#ifndef WORKER_ROWS_H
#define WORKER_ROWS_H

#include "worker/engine.h"
#include "worker/syscalls.h"

#define ROWS_LEN (1ull << 30)

struct rows {
    uint8_t *data;
    uint64_t len, taken; /* bytes */
};

static inline void rows_init(struct rows *r)
{
    r->data = engine_host_alloc(ROWS_LEN);
    sys_wipe_on_fork(r->data, ROWS_LEN); // a copy begins without rows (rows_clear())
}

static inline void rows_clear(struct rows *r)
{
    r->len = r->taken = 0;
}

/** False: there is no room. */
static inline bool rows_add(struct rows *r, const void *row, uint64_t size)
{
    if (r->len + size > ROWS_LEN)
        return false;
    __builtin_memcpy(r->data + r->len, row, size);
    r->len += size;
    return true;
}

/** Drops all but the last `count` rows, if that has not been done lately: there may be twice as
 * many. */
static inline void rows_keep_last(struct rows *r, uint64_t count, uint64_t size)
{
    if (r->len < 2 * count * size)
        return;
    __builtin_memmove(r->data, r->data + r->len - count * size, count * size);
    r->len = count * size;
}

/** Moves at most len bytes into the window: bytes put there; *left_out: bytes that remain. When
 * none do the array is empty. */
static inline uint64_t rows_take(struct rows *r, uint8_t *window, uint64_t len, uint64_t *left_out)
{
    uint64_t n = r->len - r->taken < len ? r->len - r->taken : len;
    __builtin_memcpy(window, r->data + r->taken, n);
    r->taken += n;
    *left_out = r->len - r->taken;
    if (!*left_out)
        rows_clear(r);
    return n;
}

#endif
