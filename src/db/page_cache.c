#include "db/page_cache.h"

#include <pthread.h>

enum { SLOTS = 32 };

/* Chunks that are not kept belong to their one user. */
struct page_cache {
    pthread_mutex_t lock; /* guards all of it */
    uint64_t clock;
    struct cached_chunk *slots[SLOTS];
};

static void destroy_chunk(struct cached_chunk *c)
{
    if (c)
        page_chunk_deinit(&c->chunk);
    free(c);
}

struct page_cache *page_cache_create(void)
{
    struct page_cache *c = xnew(struct page_cache);
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

void page_cache_destroy(struct page_cache *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < SLOTS; i++)
        destroy_chunk(c->slots[i]);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

struct cached_chunk *page_cache_find(struct page_cache *c, uint32_t segment, uint32_t idx)
{
    struct cached_chunk *found = NULL;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < SLOTS && !found; i++) {
        struct cached_chunk *at = c->slots[i];
        if (!at || at->segment != segment || at->idx != idx)
            continue;
        found = at;
        found->users++;
        found->used = ++c->clock;
    }
    pthread_mutex_unlock(&c->lock);
    return found;
}

/* A slot that is empty or else holds the chunk that nobody has used for longest; NULL: all are in use. */
static struct cached_chunk **oldest_locked(struct page_cache *c)
{
    struct cached_chunk **best = NULL;
    for (size_t i = 0; i < SLOTS; i++) {
        struct cached_chunk **at = &c->slots[i];
        if (!*at)
            return at;
        if (!(*at)->users && (!best || (*at)->used < (*best)->used))
            best = at;
    }
    return best;
}

struct cached_chunk *page_cache_room(struct page_cache *c)
{
    pthread_mutex_lock(&c->lock);
    struct cached_chunk **slot = oldest_locked(c), *room = slot ? *slot : NULL;
    if (slot)
        *slot = NULL;
    pthread_mutex_unlock(&c->lock);
    if (!room)
        room = xnew(struct cached_chunk);
    room->users = 1;
    room->kept = false;
    return room;
}

void page_cache_keep(struct page_cache *c, struct cached_chunk *room, uint32_t segment, uint32_t idx)
{
    struct cached_chunk *old = NULL;
    room->segment = segment;
    room->idx = idx;
    pthread_mutex_lock(&c->lock);
    struct cached_chunk **slot = oldest_locked(c);
    if (slot) {
        old = *slot;
        *slot = room;
        room->kept = true;
        room->used = ++c->clock;
    }
    pthread_mutex_unlock(&c->lock);
    destroy_chunk(old);
}

void page_cache_return(struct page_cache *c, struct cached_chunk *chunk)
{
    if (!chunk)
        return;
    pthread_mutex_lock(&c->lock);
    bool gone = --chunk->users == 0 && !chunk->kept;
    pthread_mutex_unlock(&c->lock);
    if (gone)
        destroy_chunk(chunk);
}
