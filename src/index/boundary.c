#include "index/boundary.h"

struct place {
    struct history *history;
    size_t segment;
};

static struct err *give_pages(void *ctx, uint32_t space, uint32_t object, const struct page_taker *taker)
{
    const struct place *p = ctx;
    const struct page_sink sink = {taker->ctx, taker->put, taker->fresh};
    return history_pages(p->history, p->segment, space, object, &sink);
}

struct err *boundary_restore(struct history *h, struct trace *t, size_t segment, struct replay **out)
{
    if (segment == 0)
        return replay_open(t, out);
    const struct segment *s;
    TRY(history_part(h, segment, PART_BOUNDARY, &s));
    struct bytes blob = bytes_of(s->state.data, s->state.len);
    struct place place = {h, segment};
    const struct page_source source = {&place, give_pages};
    cleanup(freep) char *path = history_segment_path(history_dir(h), segment);
    return err_prefix(replay_restore(t, &blob, &source, out), "%s", path);
}
