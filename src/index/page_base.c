#include "index/page_base.h"

#include "base/buf.h"

#include <stdlib.h>

struct entry {
    bool used;
    uint32_t space, object;
    uint64_t page;
    const uint8_t *contents; /* held; NULL: not known any more */
};

struct page_base {
    struct page_pool *pool;
    struct entry *entries; /* hash table */
    size_t cap, used, known, max_pages;
};

struct page_base *page_base_create(struct page_pool *pool, size_t max_pages)
{
    struct page_base *b = xnew(struct page_base);
    b->pool = pool;
    b->max_pages = max_pages;
    return b;
}

static void forget_all(struct page_base *b)
{
    for (size_t i = 0; i < b->cap; i++)
        page_pool_drop(b->pool, b->entries[i].contents);
    free(b->entries);
    b->entries = NULL;
    b->cap = b->used = b->known = 0;
}

void page_base_destroy(struct page_base *b)
{
    if (!b)
        return;
    forget_all(b);
    free(b);
}

/* The page's entry, or the free one that it may have. */
static struct entry *find(struct page_base *b, uint32_t space, uint32_t object, uint64_t page)
{
    size_t i = (page / PAGE_SIZE + ((uint64_t)space << 40) + ((uint64_t)object << 52)) *
                   0x9e3779b97f4a7c15ull >>
               20;
    for (;; i++) {
        struct entry *e = &b->entries[i & (b->cap - 1)];
        if (!e->used || (e->page == page && e->space == space && e->object == object))
            return e;
    }
}

static void grow(struct page_base *b)
{
    struct page_base old = *b;
    b->cap = old.cap ? 2 * old.cap : 1024;
    b->entries = xnew_array(struct entry, b->cap);
    for (size_t i = 0; i < old.cap; i++) {
        const struct entry *e = &old.entries[i];
        if (e->used)
            *find(b, e->space, e->object, e->page) = *e;
    }
    free(old.entries);
}

static struct entry *find_or_add(struct page_base *b, uint32_t space, uint32_t object,
                                 uint64_t page)
{
    if (b->used * 2 >= b->cap)
        grow(b);
    struct entry *e = find(b, space, object, page);
    if (!e->used) {
        *e = (struct entry){.used = true, .space = space, .object = object, .page = page};
        b->used++;
    }
    return e;
}

static void forget(struct page_base *b, struct entry *e)
{
    if (!e->contents)
        return;
    b->known--;
    page_pool_drop(b->pool, e->contents);
    e->contents = NULL;
}

bool page_base_change(struct page_base *b, uint32_t space, uint32_t object, uint64_t page,
                      const uint8_t *now, const uint8_t **now_out, const uint8_t **before_out)
{
    *before_out = NULL;
    if (!b->max_pages) {
        *now_out = page_pool_add(b->pool, now);
        return true;
    }
    struct entry *e = find_or_add(b, space, object, page);
    if (e->contents && memcmp(e->contents, now, PAGE_SIZE) == 0)
        return false;
    if (!e->contents && b->known == b->max_pages) {
        forget_all(b);
        e = find_or_add(b, space, object, page);
    }
    if (e->contents)
        b->known--;
    *before_out = e->contents; // who held it was the table
    *now_out = e->contents = page_pool_add(b->pool, now);
    page_pool_hold(e->contents);
    b->known++;
    return true;
}

void page_base_forget(struct page_base *b, uint32_t space, gaddr start, gaddr end)
{
    if ((end - start) / PAGE_SIZE < b->used) {
        for (gaddr page = start; page < end; page += PAGE_SIZE)
            forget(b, find(b, space, 0, page));
        return;
    }
    for (size_t i = 0; i < b->cap; i++) {
        struct entry *e = &b->entries[i];
        if (e->used && e->space == space && !e->object && e->page >= start && e->page < end)
            forget(b, e);
    }
}
