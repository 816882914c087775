/* Several windowed questions as one: their rows together, in order of time. */
#include "query/query_int.h"

/* Whose rows have each a moment at `focus`, and come in order of time. */
static const struct {
    const char *name;
    query_function *run;
} joinable[] = {
    {"execution", query_execution},
    {"breakpoint", query_breakpoint},
    {"address-execution", query_address_execution},
    {"watchpoint", query_watchpoint},
    {"stdouterr", query_stdouterr},
    {"signals", query_signals},
    {"alerts", query_alerts},
    {"events", query_events},
    {"callees", query_callees},
};

struct joined {
    json_t *row;
    struct moment moment;
    size_t of; /* the subquery */
};

struct join {
    const struct window *w;
    VEC(struct joined) rows;
};

/* Away from the window's start; -1: x is nearer. */
static int compare_away(const struct join *j, struct moment x, struct moment y)
{
    return j->w->forward ? moment_cmp(x, y) : moment_cmp(y, x);
}

static int compare_rows(const void *a, const void *b, void *ctx)
{
    const struct joined *x = a, *y = b;
    const struct join *j = ctx;
    int order = compare_away(j, x->moment, y->moment);
    return order           ? order
           : j->w->forward ? (x->of > y->of) - (x->of < y->of)
                           : (x->of < y->of) - (x->of > y->of);
}

/* Runs a subquery (number `of`) over the window. *bound: how far from the window's start all rows
 * are known, lowered if it has more. */
static struct err *run_subquery(struct query_engine *q, json_t *sub, size_t of, struct join *j,
                                struct moment *bound, bool *more)
{
    const char *name;
    TRY(param_string(sub, "query", &name));
    query_function *run = NULL;
    for (size_t i = 0; i < ARRAY_COUNT(joinable); i++)
        run = str_eq(joinable[i].name, name) ? joinable[i].run : run;
    if (!run)
        return err_new(ERR_USAGE, "%.40s cannot be joined", name);
    json_t *params = json_object_get(sub, "params");
    if (params && !json_is_object(params))
        return err_new(ERR_USAGE, "params must be an object");
    params = params ? json_copy(params) : json_object();
    json_object_set_new(params, "direction", json_string(j->w->forward ? "forward" : "backward"));
    json_object_set_new(params, "from", json_moment(j->w->from));
    json_object_set_new(params, "limit", json_integer((json_int_t)j->w->limit));

    json_t *rows = json_array(), *row;
    bool has_more;
    struct err *e = collect_rows(q, run, params, rows, &has_more);
    size_t i;
    struct moment last = j->w->from;
    json_array_foreach(rows, i, row)
    {
        last = moment_of_json(json_object_get(json_object_get(row, "focus"), "moment"));
        json_object_set_new(row, "of", json_integer((json_int_t)of));
        vec_push(&j->rows, (struct joined){json_incref(row), last, of});
    }
    json_decref(rows);
    json_decref(params);
    if (e || !has_more)
        return e;
    *more = true;
    if (compare_away(j, last, *bound) < 0)
        *bound = last;
    return NULL;
}

static struct err *join_rows(struct query_engine *q, json_t *subqueries, struct join *j)
{
    struct moment bound = j->w->forward ? MOMENT_END : (struct moment){0};
    bool more = false;
    for (size_t i = 0; i < json_array_size(subqueries); i++)
        TRY(run_subquery(q, json_array_get(subqueries, i), i, j, &bound, &more));
    if (j->rows.count)
        qsort_r(j->rows.items, j->rows.count, sizeof(j->rows.items[0]), compare_rows, j);
    size_t given = 0;
    for (; given < j->rows.count; given++) {
        struct joined *row = &j->rows.items[given];
        // Rows of one moment are not parted, so that one can go on behind them.
        bool same = given && moment_cmp(row->moment, row[-1].moment) == 0;
        if (compare_away(j, row->moment, bound) > 0 || (given >= j->w->limit && !same))
            break;
        TRY(give(q, steal(row->row)));
    }
    q->sink->more = more || given < j->rows.count;
    return NULL;
}

struct err *query_join(struct query_engine *q, json_t *params)
{
    enum { MOST = 16 };
    struct window w;
    TRY(param_window(q, params, 50, &w));
    json_t *subqueries = json_object_get(params, "subqueries");
    if (!json_is_array(subqueries) || json_array_size(subqueries) < 1 ||
        json_array_size(subqueries) > MOST)
        return err_new(ERR_USAGE, "subqueries is a list of 1 to %d", MOST);
    struct join j = {.w = &w};
    struct err *e = join_rows(q, subqueries, &j);
    vec_each (row, &j.rows)
        json_decref(row->row);
    vec_deinit(&j.rows);
    return e;
}
