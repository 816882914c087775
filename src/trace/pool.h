/* A bump allocator for what lives exactly as long as one frame or one trace. */
#ifndef TRACE_POOL_H
#define TRACE_POOL_H

#include <stddef.h>

struct pool {
    struct pool_chunk *chunks; /* newest first */
};

/** Zeroed memory, aligned to 16 bytes. Sizes must be bounded by the caller; aborts when there is no
 * memory. */
void *pool_alloc(struct pool *p, size_t len);
char *pool_str(struct pool *p, const void *text, size_t len);
/** Frees everything, keeping one chunk for what comes next. */
void pool_reset(struct pool *p);
void pool_deinit(struct pool *p);

#endif
