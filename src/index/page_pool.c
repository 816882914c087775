#include "index/page_pool.h"

#include "base/buf.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

/* A piece of memory: one huge page where the system has some, so that 511 pages cost one fault. The
 * first page has the counts. */
enum { SLAB_LEN = 2 << 20, SLAB_PAGES = SLAB_LEN / PAGE_SIZE };
struct slab {
    _Atomic uint32_t holders[SLAB_PAGES]; /* of each page; the first is this one */
};

/* `lock` guards all. */
struct page_pool {
    pthread_mutex_t lock;
    VEC(struct slab *) slabs;
    VEC(uint8_t *) free;
};

struct page_pool *page_pool_create(void)
{
    struct page_pool *p = xnew(struct page_pool);
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

void page_pool_destroy(struct page_pool *p)
{
    if (!p)
        return;
    vec_each (s, &p->slabs)
        munmap(*s, SLAB_LEN);
    vec_deinit(&p->slabs);
    vec_deinit(&p->free);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static struct slab *slab_of(const uint8_t *contents)
{
    return (struct slab *)((uintptr_t)contents & ~(uintptr_t)(SLAB_LEN - 1));
}

static _Atomic uint32_t *holders_of(const uint8_t *contents)
{
    struct slab *s = slab_of(contents);
    return &s->holders[(size_t)(contents - (const uint8_t *)s) / PAGE_SIZE];
}

static void add_slab_locked(struct page_pool *p)
{
    uint8_t *room =
        mmap(NULL, 2 * SLAB_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        abort(); // as malloc's users do
    uint8_t *slab = (uint8_t *)(((uintptr_t)room + SLAB_LEN - 1) & ~(uintptr_t)(SLAB_LEN - 1));
    size_t before = (size_t)(slab - room);
    if (before)
        munmap(room, before);
    if (before < SLAB_LEN)
        munmap(slab + SLAB_LEN, SLAB_LEN - before);
    madvise(slab, SLAB_LEN, MADV_HUGEPAGE);
    madvise(slab, SLAB_LEN, MADV_DONTFORK);
    vec_push(&p->slabs, (struct slab *)(void *)slab);
    for (size_t i = SLAB_PAGES - 1; i > 0; i--)
        vec_push(&p->free, slab + i * PAGE_SIZE);
}

const uint8_t *page_pool_add(struct page_pool *p, const uint8_t *contents)
{
    pthread_mutex_lock(&p->lock);
    if (!p->free.count)
        add_slab_locked(p);
    uint8_t *to = p->free.items[--p->free.count];
    pthread_mutex_unlock(&p->lock);
    memcpy(to, contents, PAGE_SIZE);
    atomic_store_explicit(holders_of(to), 1, memory_order_relaxed);
    return to;
}

void page_pool_hold(const uint8_t *contents)
{
    atomic_fetch_add_explicit(holders_of(contents), 1, memory_order_relaxed);
}

void page_pool_drop(struct page_pool *p, const uint8_t *contents)
{
    if (!contents || atomic_fetch_sub_explicit(holders_of(contents), 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_lock(&p->lock);
    vec_push(&p->free,
             (uint8_t *)slab_of(contents) + (contents - (const uint8_t *)slab_of(contents)));
    pthread_mutex_unlock(&p->lock);
}
