#include "index/boundary.h"

#include <pthread.h>

/* What pages of a space hold at a boundary, for a worker that asks for them in time. */
struct boundary_contents {
    struct worker_contents base;
    uint32_t space;
    struct page_map *map;
    pthread_mutex_t lock;           /* guards the rest */
    struct addr_range next;         /* follows what was read last */
    unsigned next_steps;            /* that are worth while for it */
    VEC(struct addr_range) written; /* in the segment: what is read, as a rule; less and less */
};

/* What is worked ahead for at once; and so much that is written is not gone through: there would be
 * no room to keep it. */
enum { AHEAD_LEN = 32 * PAGE_SIZE, MOST_WRITTEN = 512 /* pages */, NEXT_STEPS = 6 };

struct place {
    struct history *history;
    size_t segment, near_segment;
    struct boundary_contents *last; /* of the space that was read last; NULL: none was */
};

static struct err *put_fetched(void *ctx, uint64_t addr, const uint8_t *pages, size_t count)
{
    return worker_fetch_put(ctx, addr, pages, count);
}

static struct err *read_contents(struct worker_contents *c, gaddr start, gaddr end,
                                 struct worker_fetch *to)
{
    struct boundary_contents *b = (struct boundary_contents *)c;
    const struct page_sink sink = {to, put_fetched, NULL, NULL, NULL};
    pthread_mutex_lock(&b->lock);
    b->next = (struct addr_range){end, end + (end - start)};
    b->next_steps = NEXT_STEPS;
    pthread_mutex_unlock(&b->lock);
    return page_map_read(b->map, start, end, &sink);
}

/* Takes the next piece of what is written, from the last one on. False: there is no more. */
static bool take_written(struct boundary_contents *b, struct addr_range *out)
{
    if (!b->written.count)
        return false;
    struct addr_range *last = &b->written.items[b->written.count - 1];
    *out = *last;
    if (out->end - out->start > AHEAD_LEN)
        out->start = out->end - AHEAD_LEN;
    last->end = out->start;
    b->written.count -= last->end == last->start;
    return true;
}

static bool work_ahead(struct worker_contents *c)
{
    struct boundary_contents *b = (struct boundary_contents *)c;
    bool worked = false;
    if (pthread_mutex_trylock(&b->lock) != 0)
        return false; // another replay's thread is at it
    if (b->next_steps)
        worked = page_map_work_ahead(b->map, b->next.start, b->next.end);
    b->next_steps = worked ? b->next_steps - 1 : 0;
    struct addr_range piece;
    while (!worked && take_written(b, &piece)) {
        worked = page_map_work_ahead(b->map, piece.start, piece.end);
        if (worked) // there may be more of it
            vec_push(&b->written, piece);
    }
    pthread_mutex_unlock(&b->lock);
    return worked;
}

static void destroy_contents(struct worker_contents *c)
{
    struct boundary_contents *b = (struct boundary_contents *)c;
    page_map_destroy(b->map);
    pthread_mutex_destroy(&b->lock);
    vec_deinit(&b->written);
    free(b);
}

static void find_written(struct place *p, struct boundary_contents *b)
{
    const struct segment *s;
    struct err *e = history_part(p->history, p->segment, PART_WRITTEN, &s);
    for (size_t i = 0; !e && s->written.count <= MOST_WRITTEN && i < s->written.count; i++) {
        const struct db_written *w = &s->written.items[i];
        struct addr_range *last = b->written.count ? &b->written.items[b->written.count - 1] : NULL;
        if (w->object || w->space != b->space)
            continue;
        if (last && last->end == w->page)
            last->end += PAGE_SIZE;
        else
            vec_push(&b->written, (struct addr_range){w->page, w->page + PAGE_SIZE});
    }
    err_free(e); // who needs it will be told
}

static struct boundary_contents *contents_of(struct place *p, uint32_t space)
{
    if (p->last && p->last->space == space)
        return p->last;
    struct boundary_contents *c = xnew(struct boundary_contents);
    c->base = (struct worker_contents){1, read_contents, destroy_contents, work_ahead};
    c->space = space;
    pthread_mutex_init(&c->lock, NULL);
    find_written(p, c);
    history_page_map(p->history, p->segment, space, 0, &c->map);
    if (p->last)
        worker_contents_release(&p->last->base);
    return p->last = c;
}

static struct worker_contents *give_contents(void *ctx, uint32_t space)
{
    struct boundary_contents *c = contents_of(ctx, space);
    atomic_fetch_add(&c->base.uses, 1);
    return &c->base;
}

static struct err *give_pages(void *ctx, uint32_t space, uint32_t object,
                              const struct page_taker *taker)
{
    struct place *p = ctx;
    const struct page_sink sink = {taker->ctx, taker->put, taker->fresh, NULL, taker->later};
    if (object)
        return history_pages(p->history, p->segment, space, object, &sink);
    return page_map_read(contents_of(p, space)->map, 0, UINT64_MAX, &sink);
}

static struct err *give_changes(void *ctx, uint32_t space, const struct addr_range *also,
                                size_t count, const struct page_taker *taker)
{
    const struct place *p = ctx;
    const struct page_sink sink = {taker->ctx, taker->put, taker->fresh, taker->reset,
                                   taker->later};
    return history_page_changes(p->history, p->near_segment, p->segment, space, also, count, &sink);
}

struct err *boundary_restore(struct history *h, struct trace *t, size_t segment,
                             const struct restore_help *help, size_t near_segment,
                             struct replay **out)
{
    if (segment == 0)
        return help && help->spare ? replay_open_with(t, help->spare, out) : replay_open(t, out);
    const struct segment *s;
    TRY(history_part(h, segment, PART_BOUNDARY, &s));
    struct bytes blob = bytes_of(s->state.data, s->state.len);
    struct place place = {h, segment, near_segment, NULL};
    const struct page_source source = {&place, give_pages, give_changes, give_contents};
    cleanup(freep) char *path = history_segment_path(history_dir(h), segment);
    struct err *e = replay_restore(t, &blob, &source, help ? help : &(struct restore_help){0}, out);
    if (place.last)
        worker_contents_release(&place.last->base);
    return err_prefix(e, "%s", path);
}
