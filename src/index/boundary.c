#include "index/boundary.h"

struct place {
    struct history *history;
    size_t segment, near_segment;
};

static struct err *give_pages(void *ctx, uint32_t space, uint32_t object, const struct page_taker *taker)
{
    const struct place *p = ctx;
    const struct page_sink sink = {taker->ctx, taker->put, taker->fresh, NULL};
    return history_pages(p->history, p->segment, space, object, &sink);
}

static struct err *give_changes(void *ctx, uint32_t space, const struct addr_range *also, size_t count, const struct page_taker *taker)
{
    const struct place *p = ctx;
    const struct page_sink sink = {taker->ctx, taker->put, taker->fresh, taker->reset};
    return history_page_changes(p->history, p->near_segment, p->segment, space, also, count, &sink);
}

struct err *boundary_restore(struct history *h, struct trace *t, size_t segment, const struct restore_help *help, size_t near_segment,
                             struct replay **out)
{
    if (segment == 0)
        return replay_open(t, out);
    const struct segment *s;
    TRY(history_part(h, segment, PART_BOUNDARY, &s));
    struct bytes blob = bytes_of(s->state.data, s->state.len);
    struct place place = {h, segment, near_segment};
    const struct page_source source = {&place, give_pages, give_changes};
    cleanup(freep) char *path = history_segment_path(history_dir(h), segment);
    return err_prefix(replay_restore(t, &blob, &source, help ? help : &(struct restore_help){0}, out), "%s", path);
}
