#include "trace/pool.h"

#include "base/buf.h"

enum { CHUNK_LEN = 16 << 10 };

struct pool_chunk {
    struct pool_chunk *next;
    size_t len, used;
    uint8_t data[] __attribute__((aligned(16)));
};

void *pool_alloc(struct pool *p, size_t len)
{
    len = (len + 15) & ~(size_t)15;
    struct pool_chunk *c = p->chunks;
    if (!c || len > c->len - c->used) {
        size_t room = len > CHUNK_LEN ? len : CHUNK_LEN;
        c = xmalloc(sizeof(*c) + room);
        *c = (struct pool_chunk){.next = p->chunks, .len = room};
        p->chunks = c;
    }
    void *data = c->data + c->used;
    c->used += len;
    return memset(data, 0, len);
}

char *pool_str(struct pool *p, const void *text, size_t len)
{
    char *s = pool_alloc(p, len + 1);
    if (len)
        memcpy(s, text, len);
    return s;
}

void pool_reset(struct pool *p)
{
    if (!p->chunks)
        return;
    while (p->chunks->next) {
        struct pool_chunk *c = p->chunks;
        p->chunks = c->next;
        free(c);
    }
    p->chunks->used = 0;
}

void pool_deinit(struct pool *p)
{
    while (p->chunks) {
        struct pool_chunk *c = p->chunks;
        p->chunks = c->next;
        free(c);
    }
}
