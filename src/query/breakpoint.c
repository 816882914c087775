#include "query/breakpoint.h"

#include "query/query_int.h"

struct search {
    const struct query_breakpoint *b;
    struct moment at;
    uint32_t task;
    bool found;
};

static bool take_hit(void *ctx, const struct hit *h)
{
    struct search *s = ctx;
    s->at = h->moment;
    s->task = h->task;
    s->found = s->b->wanted(s->b->ctx, h->task);
    return !s->found;
}

/* Few at a time, since they are kept, and most executions are by the process that is debugged. */
static struct err *search(struct query_engine *q, const struct query_breakpoint *b,
                          struct moment from, bool forward, struct search *s)
{
    enum { MOST = 256 };
    cleanup(buf_deinit) struct buf places = {0};
    places_at(q, b->pc, NULL, 0, &places);
    struct hit_place *place = (void *)places.data;
    size_t count = places.len / sizeof(*place);
    struct hook_programs programs = {0};
    if (b->condition)
        programs.condition = *b->condition;
    for (size_t i = 0; i < count && b->condition; i++)
        place[i].programs = &programs;
    struct window w = {.forward = forward, .from = from, .limit = 1};
    bool more = true;
    while (more && !s->found) {
        TRY(find_hits(q, place, count, &w, NULL, take_hit, s, &more));
        w.from = forward ? (struct moment){s->at.event, s->at.icount + 1} : s->at;
        w.limit = w.limit < MOST ? w.limit * 4 : w.limit;
    }
    return NULL;
}

struct err *query_find_execution(struct query_engine *q, const struct query_breakpoint *b,
                                 struct moment from, bool forward, const atomic_bool *cancelled,
                                 struct moment *moment_out, uint32_t *task_out, bool *found_out)
{
    struct query_sink sink = {.cancelled = cancelled};
    struct search s = {.b = b};
    TRY(engine_begin(q, &sink));
    struct err *e = search(q, b, from, forward, &s);
    engine_end(q);
    TRY(e);
    *moment_out = s.at;
    *task_out = s.task;
    *found_out = s.found;
    return NULL;
}
