/* Queries for executions: of a function with arguments and result, of a line, of addresses; their counts. */
#include "query/query_int.h"

/* The state at a hit, its registers known from the hit, everything else fetched when first needed. */
struct lazy_context {
    struct sym_context base;
    struct query_engine *q;
    struct moment moment;
    uint32_t task;
    struct regs regs;
    bool have_frame;
    struct frame_context frame;
};

static struct err *load_frame(struct lazy_context *c)
{
    if (c->have_frame)
        return NULL;
    struct replay *r;
    TRY(state_at(c->q, c->moment, &r));
    TRY(frame_context(c->q, r, c->task, &c->frame));
    c->have_frame = true;
    return NULL;
}

static struct err *lazy_memory(struct sym_context *base, gaddr addr, void *buf, size_t len)
{
    struct lazy_context *c = (struct lazy_context *)base;
    TRY(load_frame(c));
    return c->frame.base.read_memory(&c->frame.base, addr, buf, len);
}

static struct err *lazy_register(struct sym_context *base, unsigned number, void *buf, size_t len)
{
    struct lazy_context *c = (struct lazy_context *)base;
    if (number > SYM_RIP) {
        TRY(load_frame(c));
        return c->frame.base.read_register(&c->frame.base, number, buf, len);
    }
    return general_register(&c->regs, number, buf, len);
}

static void lazy_init(struct lazy_context *c, struct query_engine *q, const struct hit *h, uint64_t bias)
{
    memset(c, 0, sizeof(*c));
    c->base.read_memory = lazy_memory;
    c->base.read_register = lazy_register;
    c->base.bias = bias;
    c->q = q;
    c->moment = h->moment;
    c->task = h->task;
    c->regs = h->regs;
}

/* --- executions of a function --- */

struct call_found {
    struct hit hit;
    uint64_t return_addr, sp, bias;
    bool have_return_addr;
    bool returned;
    struct hit back; /* right behind the return */
};

struct calls {
    VEC(struct call_found) items;
    size_t open;
    uint64_t link_start;
};

static bool collect_call(void *ctx, const struct hit *h)
{
    struct calls *c = ctx;
    struct call_found f = {.hit = *h, .sp = h->regs.r[UREG_RSP], .bias = h->regs.r[UREG_RIP] - c->link_start};
    f.hit.memory = NULL;
    f.have_return_addr = !(h->unreadable & 1);
    f.return_addr = load_u64(h->memory);
    vec_push(&c->items, f);
    return true;
}

static bool match_return(void *ctx, const struct hit *h)
{
    struct calls *c = ctx;
    vec_each (f, &c->items) {
        if (f->returned || !f->have_return_addr || f->hit.task != h->task || f->return_addr != h->regs.r[UREG_RIP] ||
            h->regs.r[UREG_RSP] <= f->sp || moment_cmp(h->moment, f->hit.moment) <= 0)
            continue;
        f->returned = true;
        f->back = *h;
        f->back.memory = NULL;
        c->open--;
    }
    return c->open > 0;
}

static int by_moment(const void *a, const void *b)
{
    const struct call_found *x = a, *y = b;
    return moment_cmp(x->hit.moment, y->hit.moment);
}

/* Finds where the calls return, all in one pass: the first time that their return address is reached with the stack above. */
static struct err *find_returns(struct query_engine *q, struct calls *c)
{
    enum { MOST = 20000 };
    cleanup(buf_deinit) struct buf places = {0};
    size_t spaces;
    const struct db_space *space = history_spaces(q->history, &spaces);
    struct moment first = {UINT64_MAX, 0};
    vec_each (f, &c->items) {
        if (!f->have_return_addr)
            continue;
        c->open++;
        if (moment_cmp(f->hit.moment, first) < 0)
            first = f->hit.moment;
        for (size_t s = 0; s < spaces; s++) {
            struct hit_place p = {space[s].space, f->return_addr};
            bool known = false;
            const struct hit_place *have = (const void *)places.data;
            for (size_t k = 0; k < places.len / sizeof(p); k++)
                known |= have[k].space == p.space && have[k].pc == p.pc;
            if (!known && count_hits(q, &p, 1, NULL))
                buf_add(&places, &p, sizeof(p));
        }
    }
    struct window w = {.forward = true, .from = first, .limit = MOST};
    bool more;
    if (!c->open || !places.len)
        return NULL;
    return find_hits(q, (const void *)places.data, places.len / sizeof(struct hit_place), &w, NULL, 0, match_return, c, &more);
}

static struct err *give_call(struct query_engine *q, struct module *m, const struct sym_function *f, const struct call_found *call)
{
    json_t *row = json_object();
    json_object_set_new(row, "focus", json_focus(q, call->hit.moment, call->hit.task, 0));
    json_object_set_new(row, "task", json_task(q, call->hit.task));
    json_object_set_new(row, "function", json_function(q, m, f));
    struct lazy_context c;
    lazy_init(&c, q, &call->hit, call->bias);
    json_object_set_new(row, "args", json_arguments(m, f, &c.base));
    if (!call->returned) {
        json_object_set_new(row, "noReturn", json_true());
        return give(q, row);
    }
    json_object_set_new(row, "end", json_moment(call->back.moment));
    const struct sym_type *type;
    struct err *e = sym_return_type(m->sym, f, &type);
    if (!e && type->kind != SYM_VOID) {
        struct sym_value v = {0};
        lazy_init(&c, q, &call->back, call->bias);
        struct err *why = sym_read_return_value(m->sym, f, &c.base, &v);
        json_object_set_new(row, "result", json_value(m->sym, type, &v, &c.base, why));
        sym_value_deinit(&v);
    }
    err_free(e);
    return give(q, row);
}

struct err *query_execution(struct query_engine *q, json_t *params)
{
    static const struct hook_memory return_address = {.base = UREG_RSP, .len = 8};
    struct module *m;
    const struct sym_function *f;
    struct window w;
    TRY(param_function(q, params, &m, &f));
    TRY(param_window(q, params, 50, &w));
    cleanup(buf_deinit) struct buf places = {0};
    places_of(q, m, &f->start, 1, &places);
    struct calls c = {.link_start = f->start};
    bool more = false;
    struct err *e = find_hits(q, (const void *)places.data, places.len / sizeof(struct hit_place), &w, &return_address, 1,
                              collect_call, &c, &more);
    // Nearest first is how they were found; returns are matched in order of time.
    if (!e && c.items.count)
        qsort(c.items.items, c.items.count, sizeof(c.items.items[0]), by_moment);
    if (!e)
        e = find_returns(q, &c);
    for (size_t i = 0; !e && i < c.items.count; i++)
        e = give_call(q, m, f, &c.items.items[w.forward ? i : c.items.count - 1 - i]);
    q->sink->more = more;
    vec_deinit(&c.items);
    return e;
}

/* --- executions of a line, or of addresses --- */

struct giving {
    struct query_engine *q;
    struct err *failed;
    json_t *location; /* borrowed; NULL: none */
};

static bool give_hit(void *ctx, const struct hit *h)
{
    struct giving *g = ctx;
    json_t *row = json_object();
    json_object_set_new(row, "focus", json_focus(g->q, h->moment, h->task, 0));
    json_object_set_new(row, "task", json_task(g->q, h->task));
    json_object_set_new(row, "pc", json_hex(h->regs.r[UREG_RIP]));
    if (g->location)
        json_object_set(row, "location", g->location);
    g->failed = give(g->q, row);
    return !g->failed;
}

static struct err *give_hits(struct query_engine *q, json_t *params, const struct buf *places, json_t *location)
{
    struct window w;
    TRY(param_window(q, params, 50, &w));
    struct giving g = {.q = q, .location = location};
    bool more = false;
    struct err *e = find_hits(q, (const void *)places->data, places->len / sizeof(struct hit_place), &w, NULL, 0, give_hit, &g,
                              &more);
    q->sink->more = more;
    if (e) {
        err_free(g.failed);
        return e;
    }
    return g.failed;
}

/* Where the line's code ran, in any module. *line becomes the line that was found. */
static struct err *line_places(struct query_engine *q, json_t *params, struct buf *places, const char **file, uint64_t *line)
{
    TRY(param_string(params, "file", file));
    TRY(param_u64(params, "line", line));
    bool found = false;
    uint64_t wanted = *line;
    vec_each (m, &q->modules) {
        struct sym_module *sym;
        struct sym_places p = {0};
        struct err *e = module_sym(q, *m, &sym);
        if (!e)
            e = sym_addresses_of_line(sym, *file, (unsigned)wanted, &p);
        if (!e) {
            found = true;
            *line = p.line;
            for (size_t i = 0; i < p.count; i++)
                places_of(q, *m, &p.items[i].start, 1, places);
        }
        err_free(e);
        sym_places_deinit(&p);
    }
    return found ? NULL : err_new(ERR_NOT_FOUND, "no code for %.200s:%llu", *file, (unsigned long long)wanted);
}

struct err *query_breakpoint(struct query_engine *q, json_t *params)
{
    cleanup(buf_deinit) struct buf places = {0};
    const char *file;
    uint64_t line;
    TRY(line_places(q, params, &places, &file, &line));
    json_t *location = json_location(file, (int)line, 0);
    struct err *e = give_hits(q, params, &places, location);
    json_decref(location);
    return e;
}

struct err *query_address_execution(struct query_engine *q, json_t *params)
{
    uint64_t start, end;
    TRY(param_u64(params, "start", &start));
    TRY(param_u64(params, "end", &end));
    if (end <= start || end - start > 256)
        return err_new(ERR_USAGE, "start to end is 1 to 256 bytes");
    cleanup(buf_deinit) struct buf places = {0};
    size_t spaces;
    const struct db_space *space = history_spaces(q->history, &spaces);
    for (size_t s = 0; s < spaces; s++) {
        for (gaddr pc = start; pc < end; pc++) {
            struct hit_place p = {space[s].space, pc};
            if (count_hits(q, &p, 1, NULL))
                buf_add(&places, &p, sizeof(p));
        }
    }
    return give_hits(q, params, &places, NULL);
}

struct err *query_counts(struct query_engine *q, json_t *params)
{
    cleanup(buf_deinit) struct buf places = {0};
    if (json_object_get(params, "function")) {
        struct module *m;
        const struct sym_function *f;
        TRY(param_function(q, params, &m, &f));
        places_of(q, m, &f->start, 1, &places);
    } else {
        const char *file;
        uint64_t line;
        TRY(line_places(q, params, &places, &file, &line));
    }
    size_t segments;
    history_segments(q->history, &segments);
    cleanup(freep) uint64_t *buckets = xnew_array(uint64_t, segments);
    uint64_t total = count_hits(q, (const void *)places.data, places.len / sizeof(struct hit_place), buckets);
    json_t *list = json_array();
    for (size_t i = 0; i < segments; i++)
        json_array_append_new(list, json_integer((json_int_t)buckets[i]));
    return give(q, json_pack("{sI, so}", "total", (json_int_t)total, "buckets", list));
}
