#include "db/shared.h"

#include "base/buf.h"

#include <pthread.h>

struct place {
    void *thing; /* NULL: nothing is here */
    uint64_t number, used;
    size_t bytes;
    unsigned users;
};

/* Things that found no place, since all were in use, belong to the one who made them. */
struct shared {
    pthread_mutex_t lock; /* guards the rest */
    void (*destroy)(void *thing);
    uint64_t clock;
    size_t count, bytes, most_bytes;
    struct place places[];
};

struct shared *shared_create(size_t count, size_t bytes, void (*destroy)(void *thing))
{
    struct shared *s = xcalloc(1, sizeof(*s) + count * sizeof(s->places[0]));
    pthread_mutex_init(&s->lock, NULL);
    s->destroy = destroy;
    s->count = count;
    s->most_bytes = bytes;
    return s;
}

void shared_destroy(struct shared *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->count; i++) {
        if (s->places[i].thing)
            s->destroy(s->places[i].thing);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static struct place *place_locked(struct shared *s, uint64_t number)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->places[i].thing && s->places[i].number == number)
            return &s->places[i];
    }
    return NULL;
}

void *shared_find(struct shared *s, uint64_t number)
{
    pthread_mutex_lock(&s->lock);
    struct place *p = place_locked(s, number);
    void *thing = p ? p->thing : NULL;
    if (p) {
        p->users++;
        p->used = ++s->clock;
    }
    pthread_mutex_unlock(&s->lock);
    return thing;
}

bool shared_has(struct shared *s, uint64_t number)
{
    pthread_mutex_lock(&s->lock);
    bool has = place_locked(s, number) != NULL;
    pthread_mutex_unlock(&s->lock);
    return has;
}

/* NULL: all places are taken. */
static struct place *empty_locked(struct shared *s)
{
    for (size_t i = 0; i < s->count; i++) {
        if (!s->places[i].thing)
            return &s->places[i];
    }
    return NULL;
}

/* Takes out what nobody has used for longest; NULL: all is in use. */
static void *take_oldest_locked(struct shared *s)
{
    struct place *best = NULL;
    for (size_t i = 0; i < s->count; i++) {
        struct place *p = &s->places[i];
        if (p->thing && !p->users && (!best || p->used < best->used))
            best = p;
    }
    if (!best)
        return NULL;
    void *thing = best->thing;
    s->bytes -= best->bytes;
    best->thing = NULL;
    return thing;
}

void shared_add(struct shared *s, uint64_t number, void *thing, size_t bytes)
{
    void *old;
    do {
        pthread_mutex_lock(&s->lock);
        struct place *p = empty_locked(s);
        old = !p || s->bytes + bytes > s->most_bytes ? take_oldest_locked(s) : NULL;
        if (!old && p) {
            *p = (struct place){thing, number, ++s->clock, bytes, 1};
            s->bytes += bytes;
        }
        pthread_mutex_unlock(&s->lock);
        if (old)
            s->destroy(old);
    } while (old);
}

void shared_return(struct shared *s, void *thing)
{
    bool kept = false;
    if (!thing)
        return;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->count && !kept; i++) {
        kept = s->places[i].thing == thing;
        s->places[i].users -= kept;
    }
    pthread_mutex_unlock(&s->lock);
    if (!kept)
        s->destroy(thing);
}
