/* Executions that were told before. The past does not change: once all executions between two
 * moments have been told, another question of the same function or line, from a moment in between,
 * needs only those beyond. Each stretch that is kept grows at its ends:
 *
 *     asked from      a -->     limit      kept   [a ... b)
 *     then from         c -->                          rows from c on; if too few, those from b on are looked for
 *
 * Kept are the rows themselves, as many as MOST_BYTES of text; those that were used least recently
 * give way. */
#include "query/query_int.h"

enum { MOST_STRETCHES = 64, MOST_BYTES = 8 << 20 };

struct kept_row {
    struct moment at;
    json_t *row;
};

struct kept_stretch {
    char *key; /* the question but for its window; NULL: nothing is here */
    struct moment from, until;
    bool more_before, more_after; /* beyond there may be others */
    VEC(struct kept_row) rows;    /* all between from and until, in order of time */
    size_t bytes;
    uint64_t used;
};

struct kept_rows {
    struct kept_stretch stretches[MOST_STRETCHES];
    uint64_t clock;
};

void kept_rows_open(struct query_engine *q)
{
    q->kept_rows = xnew(struct kept_rows);
}

static void drop(struct kept_stretch *s)
{
    vec_each (r, &s->rows)
        json_decref(r->row);
    vec_deinit(&s->rows);
    free(s->key);
    *s = (struct kept_stretch){0};
}

void kept_rows_close(struct query_engine *q)
{
    for (size_t i = 0; q->kept_rows && i < MOST_STRETCHES; i++)
        drop(&q->kept_rows->stretches[i]);
    free(q->kept_rows);
    q->kept_rows = NULL;
}

/* --- running a question, with an eye on its rows --- */

struct watching {
    struct query_sink *asker;
    VEC(struct kept_row) rows;
    size_t bytes;
};

static bool watch_row(void *ctx, json_t *row)
{
    struct watching *w = ctx;
    struct kept_row kept = {
        moment_of_json(json_object_get(json_object_get(row, "focus"), "moment")), NULL};
    if (w->bytes <= MOST_BYTES) {
        kept.row = json_deep_copy(row); // who asked may change it
        w->bytes += json_dumpb(row, NULL, 0, JSON_COMPACT);
        vec_push(&w->rows, kept);
    }
    return w->asker->row(w->asker->ctx, row);
}

static void watch_progress(void *ctx, double share)
{
    struct watching *w = ctx;
    if (w->asker->progress)
        w->asker->progress(w->asker->ctx, share);
}

static void watching_deinit(struct watching *w)
{
    vec_each (r, &w->rows)
        json_decref(r->row);
    vec_deinit(&w->rows);
}

/* True in *sure_out: the rows are good for ever. */
static struct err *run_watched(struct query_engine *q, const struct window *w, window_query *run,
                               void *ctx, struct watching *watch, bool *sure_out)
{
    struct query_sink sink = {.ctx = watch,
                              .row = watch_row,
                              .progress = watch_progress,
                              .cancelled = q->sink->cancelled};
    *watch = (struct watching){.asker = q->sink};
    recall_begin(q);
    q->sink = &sink;
    struct err *e = run(q, w, ctx);
    q->sink = watch->asker;
    q->sink->more = sink.more;
    *sure_out = !e && !recall_has_failed(q) && watch->bytes <= MOST_BYTES &&
                (watch->rows.count || !sink.more);
    return e;
}

/* --- stretches --- */

/* Puts rows that were told behind the stretch; or before it, where they come latest first. */
static void extend(struct kept_stretch *s, struct watching *watch, bool forward, bool more)
{
    size_t count = watch->rows.count, old = s->rows.count;
    const struct kept_row *rows = watch->rows.items;
    struct moment last = count ? rows[count - 1].at : (struct moment){0};
    for (size_t i = 0; i < count; i++)
        vec_push(&s->rows, rows[i]);
    if (forward) {
        s->until = more ? (struct moment){last.event, last.icount + 1} : MOMENT_END;
        s->more_after = more;
    } else {
        struct kept_row *all = s->rows.items;
        if (old)
            memmove(all + count, all, old * sizeof(*all));
        for (size_t i = 0; i < count; i++)
            all[i] = rows[count - 1 - i];
        s->from = more ? last : (struct moment){0};
        s->more_before = more;
    }
    s->bytes += watch->bytes;
    watch->rows.count = 0;
}

static struct kept_stretch *find_stretch(struct kept_rows *k, const char *key, struct moment from)
{
    for (size_t i = 0; i < MOST_STRETCHES; i++) {
        struct kept_stretch *s = &k->stretches[i];
        if (s->key && str_eq(s->key, key) && moment_cmp(s->from, from) <= 0 &&
            moment_cmp(from, s->until) <= 0)
            return s;
    }
    return NULL;
}

/* A place for another one. */
static struct kept_stretch *new_stretch(struct kept_rows *k)
{
    struct kept_stretch *oldest = &k->stretches[0];
    for (size_t i = 0; i < MOST_STRETCHES; i++) {
        struct kept_stretch *s = &k->stretches[i];
        if (!s->key || (oldest->key && s->used < oldest->used))
            oldest = s;
    }
    drop(oldest);
    return oldest;
}

/* Others of the same question that lie within it. */
static void drop_covered(struct kept_rows *k, const struct kept_stretch *by)
{
    for (size_t i = 0; i < MOST_STRETCHES; i++) {
        struct kept_stretch *s = &k->stretches[i];
        if (s != by && s->key && str_eq(s->key, by->key) && moment_cmp(by->from, s->from) <= 0 &&
            moment_cmp(s->until, by->until) <= 0)
            drop(s);
    }
}

static void keep_within_bounds(struct kept_rows *k)
{
    for (;;) {
        struct kept_stretch *oldest = NULL;
        size_t bytes = 0;
        for (size_t i = 0; i < MOST_STRETCHES; i++) {
            struct kept_stretch *s = &k->stretches[i];
            bytes += s->bytes;
            if (s->key && (!oldest || s->used < oldest->used))
                oldest = s;
        }
        if (bytes <= MOST_BYTES)
            return;
        drop(oldest);
    }
}

/* Gives what is kept of the window. */
static struct err *give_kept(struct query_engine *q, const struct kept_stretch *s,
                             const struct window *w, size_t *given_out, bool *rest_out)
{
    size_t given = 0, i = 0;
    while (i < s->rows.count && moment_cmp(s->rows.items[i].at, w->from) < 0)
        i++; // the first one from there on
    for (; given < w->limit && (w->forward ? i < s->rows.count : i > 0); given++) {
        TRY(check_cancel(q));
        TRY(give(q, json_deep_copy(s->rows.items[w->forward ? i++ : --i].row)));
    }
    *rest_out = w->forward ? i < s->rows.count : i > 0;
    *given_out = given;
    return NULL;
}

/* The question but for its window. */
static char *key_of(const char *name, json_t *params)
{
    json_t *rest = json_copy(params);
    static const char *const window[] = {"focus", "from", "direction", "limit"};
    for (size_t i = 0; i < sizeof(window) / sizeof(window[0]); i++)
        json_object_del(rest, window[i]);
    char *text = json_dumps(rest, JSON_COMPACT | JSON_SORT_KEYS),
         *key = str_format("%s %s", name, text);
    free(text);
    json_decref(rest);
    return key;
}

struct err *run_with_kept_rows(struct query_engine *q, const char *name, json_t *params,
                               const struct window *w, window_query *run, void *ctx)
{
    struct kept_rows *k = q->kept_rows;
    cleanup(freep) char *key = key_of(name, params);
    struct kept_stretch *s = find_stretch(k, key, w->from);
    struct window rest = *w;
    size_t given = 0;
    bool more = false, sure;
    if (s) {
        s->used = ++k->clock;
        TRY(give_kept(q, s, w, &given, &more));
        bool beyond = w->forward ? s->more_after : s->more_before;
        q->sink->more = more || (given == w->limit && beyond);
        if (given == w->limit || !beyond)
            return NULL;
        rest.from = w->forward ? s->until : s->from;
        rest.limit -= given;
    }
    struct watching watch;
    struct err *e = run_watched(q, &rest, run, ctx, &watch, &sure);
    if (sure && !s) {
        s = new_stretch(k);
        *s = (struct kept_stretch){.key = steal(key),
                                   .from = w->from,
                                   .until = w->from,
                                   .more_before = true,
                                   .more_after = true,
                                   .used = ++k->clock};
    }
    if (sure) {
        extend(s, &watch, w->forward, q->sink->more);
        drop_covered(k, s);
    }
    watching_deinit(&watch);
    keep_within_bounds(k);
    return e;
}
