/* States that a query is about to ask for: each is made ready in its seat (states.c) by a thread of
 * its own. That it was only a guess costs time and nothing else: who asks gets the state at the
 * moment that is asked for. */
#include "query/query_int.h"

#include "base/cpus.h"

void states_ahead_init(struct states_ahead *a, struct query_engine *q, struct moment here)
{
    *a = (struct states_ahead){.q = q, .here = history_segment_at(q->history, here)};
}

static struct state_ahead *of_segment(struct states_ahead *a, size_t segment)
{
    for (size_t i = 0; i < a->count; i++) {
        if (a->items[i].segment == segment)
            return &a->items[i];
    }
    return NULL;
}

void states_ahead_add(struct states_ahead *a, struct moment m)
{
    size_t segment = history_segment_at(a->q->history, m);
    if (segment != a->here && a->count < MOST_STATES_AHEAD && !of_segment(a, segment))
        a->items[a->count++] = (struct state_ahead){.q = a->q, .at = m, .segment = segment};
}

static void *make_ready(void *ctx)
{
    struct state_ahead *s = ctx;
    err_free(visit_state(s->q, s->at)); // who asks for it will be told
    return NULL;
}

void states_ahead_begin(struct states_ahead *a, bool but_first)
{
    size_t most = usable_cpus() - 1; // the query itself has one
    if (but_first && !a->begun && a->count) {
        a->begun = 1;
        most++;
    }
    for (; a->begun < a->count && a->begun < most; a->begun++) {
        struct state_ahead *s = &a->items[a->begun];
        s->started = pthread_create(&s->thread, NULL, make_ready, s) == 0;
    }
}

static void finish(struct state_ahead *s)
{
    if (s && s->started)
        pthread_join(s->thread, NULL);
    if (s)
        s->started = false;
}

void states_ahead_await(struct states_ahead *a, struct moment m)
{
    finish(of_segment(a, history_segment_at(a->q->history, m)));
}

void states_ahead_deinit(struct states_ahead *a)
{
    for (size_t i = 0; i < a->count; i++)
        finish(&a->items[i]);
}
