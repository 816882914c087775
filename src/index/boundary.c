#include "index/boundary.h"

/* What pages of a space hold at a boundary, for a worker that asks for them in time. */
struct boundary_contents {
    struct worker_contents base;
    uint32_t space;
    struct page_map *map;
};

struct place {
    struct history *history;
    size_t segment, near_segment;
    struct boundary_contents *last; /* of the space that was read last; NULL: none was */
};

static struct err *put_fetched(void *ctx, uint64_t addr, const uint8_t *pages, size_t count)
{
    return worker_fetch_put(ctx, addr, pages, count);
}

static struct err *read_contents(struct worker_contents *c, gaddr start, gaddr end, struct worker_fetch *to)
{
    const struct page_sink sink = {to, put_fetched, NULL, NULL, NULL};
    return page_map_read(((struct boundary_contents *)c)->map, start, end, &sink);
}

static void destroy_contents(struct worker_contents *c)
{
    page_map_destroy(((struct boundary_contents *)c)->map);
    free(c);
}

static struct boundary_contents *contents_of(struct place *p, uint32_t space)
{
    if (p->last && p->last->space == space)
        return p->last;
    struct boundary_contents *c = xnew(struct boundary_contents);
    c->base = (struct worker_contents){1, read_contents, destroy_contents};
    c->space = space;
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

static struct err *give_pages(void *ctx, uint32_t space, uint32_t object, const struct page_taker *taker)
{
    struct place *p = ctx;
    const struct page_sink sink = {taker->ctx, taker->put, taker->fresh, NULL, taker->later};
    if (object)
        return history_pages(p->history, p->segment, space, object, &sink);
    return page_map_read(contents_of(p, space)->map, 0, UINT64_MAX, &sink);
}

static struct err *give_changes(void *ctx, uint32_t space, const struct addr_range *also, size_t count, const struct page_taker *taker)
{
    const struct place *p = ctx;
    const struct page_sink sink = {taker->ctx, taker->put, taker->fresh, taker->reset, taker->later};
    return history_page_changes(p->history, p->near_segment, p->segment, space, also, count, &sink);
}

struct err *boundary_restore(struct history *h, struct trace *t, size_t segment, const struct restore_help *help, size_t near_segment,
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
