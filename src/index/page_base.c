#include "index/page_base.h"

enum state { FREE, KNOWN, UNKNOWN };
struct entry {
    uint32_t space, object;
    uint64_t page;
    enum state state;  /* UNKNOWN: it changed since the job began, to what is not known */
    uint8_t *contents; /* KNOWN */
};

struct page_base {
    struct replay *start;
    VEC(struct db_remap) gone; /* what `start` says of these is not true any more */
    struct entry *entries; /* hash table */
    size_t cap, used, known, max_pages;
};

struct page_base *page_base_create(struct replay *start, size_t max_pages)
{
    struct page_base *b = xnew(struct page_base);
    b->start = start;
    b->max_pages = max_pages;
    return b;
}

static void forget_all(struct page_base *b)
{
    for (size_t i = 0; i < b->cap; i++)
        free(b->entries[i].contents);
    free(b->entries);
    b->entries = NULL;
    b->cap = b->used = b->known = 0;
    replay_close(b->start);
    b->start = NULL;
    vec_deinit(&b->gone);
}

void page_base_destroy(struct page_base *b)
{
    if (!b)
        return;
    forget_all(b);
    free(b);
}

static struct entry *find(struct page_base *b, uint32_t space, uint32_t object, uint64_t page)
{
    size_t i = (page / PAGE_SIZE + ((uint64_t)space << 40) + ((uint64_t)object << 52)) * 0x9e3779b97f4a7c15ull >> 20;
    for (;; i++) {
        struct entry *e = &b->entries[i & (b->cap - 1)];
        if (e->state == FREE || (e->page == page && e->space == space && e->object == object))
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
        if (e->state != FREE)
            *find(b, e->space, e->object, e->page) = *e;
    }
    free(old.entries);
}

static struct entry *find_or_add(struct page_base *b, uint32_t space, uint32_t object, uint64_t page)
{
    if (b->used * 2 >= b->cap)
        grow(b);
    struct entry *e = find(b, space, object, page);
    if (e->state == FREE) {
        *e = (struct entry){.space = space, .object = object, .page = page, .state = UNKNOWN};
        b->used++;
    }
    return e;
}

static void forget(struct page_base *b, struct entry *e)
{
    if (e->state != KNOWN)
        return;
    b->known--;
    free(e->contents);
    e->contents = NULL;
    e->state = UNKNOWN;
}

/* What the frozen replay has of the pages. */
static void read_start(struct page_base *b, uint32_t space, uint32_t object, uint64_t page, size_t count, uint8_t *out, bool *known_out)
{
    size_t done = 0;
    struct err *e = NULL;
    if (b->start && object) {
        e = replay_read_object(b->start, object, page, out, count * PAGE_SIZE);
        done = e ? 0 : count * PAGE_SIZE;
    } else if (b->start) {
        e = replay_read(b->start, space, page, out, count * PAGE_SIZE, &done);
    }
    err_free(e);
    for (size_t i = 0; i < count; i++)
        known_out[i] = i < done / PAGE_SIZE;
    vec_each (g, &b->gone) {
        for (size_t i = 0; i < count && !object && g->space == space; i++)
            known_out[i] &= page + i * PAGE_SIZE < g->start || page + i * PAGE_SIZE >= g->end;
    }
}

void page_base_get(struct page_base *b, uint32_t space, uint32_t object, uint64_t page, size_t count, uint8_t *out, bool *known_out)
{
    read_start(b, space, object, page, count, out, known_out);
    for (size_t i = 0; i < count && b->cap; i++) {
        const struct entry *e = find(b, space, object, page + i * PAGE_SIZE);
        if (e->state == KNOWN)
            memcpy(out + i * PAGE_SIZE, e->contents, PAGE_SIZE);
        if (e->state != FREE)
            known_out[i] = e->state == KNOWN;
    }
}

void page_base_put(struct page_base *b, uint32_t space, uint32_t object, uint64_t page, const uint8_t *now)
{
    if (b->known == b->max_pages)
        forget_all(b);
    if (!b->max_pages)
        return;
    struct entry *e = find_or_add(b, space, object, page);
    if (e->state != KNOWN) {
        e->contents = xmalloc(PAGE_SIZE);
        e->state = KNOWN;
        b->known++;
    }
    memcpy(e->contents, now, PAGE_SIZE);
}

void page_base_forget(struct page_base *b, uint32_t space, gaddr start, gaddr end)
{
    if (b->start)
        vec_push(&b->gone, (struct db_remap){space, start, end});
    if ((end - start) / PAGE_SIZE < b->used) {
        for (gaddr page = start; page < end; page += PAGE_SIZE)
            forget(b, find(b, space, 0, page));
        return;
    }
    for (size_t i = 0; i < b->cap; i++) {
        struct entry *e = &b->entries[i];
        if (e->space == space && !e->object && e->page >= start && e->page < end)
            forget(b, e);
    }
}
