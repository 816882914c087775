#include "db/shared.h"

#include "base/buf.h"

#include <pthread.h>

struct place {
    void *thing; /* NULL: nothing is here */
    uint64_t number, used;
    unsigned users;
};

/* Things that found no place, since all were in use, belong to the one who made them. */
struct shared {
    pthread_mutex_t lock; /* guards the rest */
    void (*destroy)(void *thing);
    uint64_t clock;
    size_t count;
    struct place places[];
};

struct shared *shared_create(size_t count, void (*destroy)(void *thing))
{
    struct shared *s = xcalloc(1, sizeof(*s) + count * sizeof(s->places[0]));
    pthread_mutex_init(&s->lock, NULL);
    s->destroy = destroy;
    s->count = count;
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

/* An empty place, or else the one whose thing nobody has used for longest; NULL: all are in use. */
static struct place *oldest_locked(struct shared *s)
{
    struct place *best = NULL;
    for (size_t i = 0; i < s->count; i++) {
        struct place *p = &s->places[i];
        if (!p->thing)
            return p;
        if (!p->users && (!best || p->used < best->used))
            best = p;
    }
    return best;
}

void shared_add(struct shared *s, uint64_t number, void *thing)
{
    void *old = NULL;
    pthread_mutex_lock(&s->lock);
    struct place *p = oldest_locked(s);
    if (p) {
        old = p->thing;
        *p = (struct place){thing, number, ++s->clock, 1};
    }
    pthread_mutex_unlock(&s->lock);
    if (old)
        s->destroy(old);
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
