/* Queries for executions: of a function with arguments and result, of a line, of addresses; their counts. */
#include "query/probes.h"

/* The state at a hit: its registers and pieces of memory known from the hit, everything else fetched when first needed. */
struct lazy_context {
    struct sym_context base;
    struct query_engine *q;
    const struct hit *hit;
    const struct pieces *pieces;
    bool have_frame;
    struct frame_context frame;
};

/* What is likely to be asked for, which the worker takes along with each hit: where registers point. */
struct pieces {
    struct hook_memory items[8];
    size_t count, len; /* len: bytes a hit */
};

static void add_piece(struct pieces *p, uint8_t base, uint16_t len)
{
    if (p->count == sizeof(p->items) / sizeof(p->items[0]))
        return;
    p->items[p->count++] = (struct hook_memory){.base = base, .len = len};
    p->len += len;
}

enum { POINTED_LEN = 256 };

/* Of pointers among the arguments; System V psABI 3.2.3, as far as it is easy. */
static void pieces_for_call(struct module *m, const struct sym_function *f, struct pieces *out)
{
    static const uint8_t order[] = {UREG_RDI, UREG_RSI, UREG_RDX, UREG_RCX, UREG_R8, UREG_R9};
    *out = (struct pieces){0};
    add_piece(out, UREG_RSP, 8); // the return address
    struct sym_variables params = {0};
    struct err *e = sym_function_parameters(m->sym, f, &params);
    size_t used = 0;
    for (size_t i = 0; !e && i < params.count && used < sizeof(order); i++) {
        enum sym_type_kind kind = params.items[i].type->kind;
        if (kind == SYM_POINTER || kind == SYM_REFERENCE)
            add_piece(out, order[used], POINTED_LEN);
        if (kind == SYM_ARRAY || kind == SYM_STRUCT || kind == SYM_UNION || kind == SYM_CLASS || kind == SYM_UNKNOWN_TYPE)
            break;
        used += kind != SYM_FLOAT && kind != SYM_COMPLEX;
    }
    err_free(e);
    sym_variables_deinit(&params);
}

static bool in_pieces(const struct lazy_context *c, gaddr addr, void *buf, size_t len)
{
    const uint8_t *bytes = c->hit->memory;
    for (size_t i = 0; c->pieces && i < c->pieces->count; i++) {
        const struct hook_memory *p = &c->pieces->items[i];
        uint64_t off = addr - c->hit->regs.r[p->base];
        if (!(c->hit->unreadable >> i & 1) && off < p->len && len <= p->len - off) {
            memcpy(buf, bytes + off, len);
            return true;
        }
        bytes += p->len;
    }
    return false;
}

static struct err *load_frame(struct lazy_context *c)
{
    if (c->have_frame)
        return NULL;
    struct replay *r;
    TRY(recall_failed(c->q, state_at(c->q, c->hit->moment, &r)));
    TRY(recall_failed(c->q, frame_context(c->q, r, c->hit->task, &c->frame)));
    c->have_frame = true;
    return NULL;
}

static struct err *lazy_memory(struct sym_context *base, gaddr addr, void *buf, size_t len)
{
    struct lazy_context *c = (struct lazy_context *)base;
    if (in_pieces(c, addr, buf, len))
        return NULL;
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
    return general_register(&c->hit->regs, number, buf, len);
}

static void lazy_init(struct lazy_context *c, struct query_engine *q, const struct hit *h, const struct pieces *pieces, uint64_t bias)
{
    c->base = (struct sym_context){.read_memory = lazy_memory, .read_register = lazy_register, .bias = bias};
    c->q = q;
    c->hit = h;
    c->pieces = pieces;
    c->have_frame = false;
}

/* --- executions of a function --- */

struct call_found {
    struct hit hit; /* owns its memory, as back does */
    uint64_t return_addr, sp, bias;
    bool have_return_addr;
    bool returned;
    struct hit back; /* right behind the return */
    json_t *row;
};

struct calls {
    VEC(struct call_found) items;
    size_t open;
    uint64_t link_start;
    struct pieces at_call, at_return;
    struct probes probes;
};

static bool collect_call(void *ctx, const struct hit *h)
{
    struct calls *c = ctx;
    struct call_found f = {.hit = *h, .sp = h->regs.r[UREG_RSP], .bias = h->regs.r[UREG_RIP] - c->link_start};
    f.hit.memory = xmemdup(h->memory, h->memory_len);
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
        f->back.memory = xmemdup(h->memory, h->memory_len);
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
    struct moment first = {UINT64_MAX, 0};
    vec_each (f, &c->items) {
        if (!f->have_return_addr)
            continue;
        c->open++;
        if (moment_cmp(f->hit.moment, first) < 0)
            first = f->hit.moment;
        places_at(q, f->return_addr, NULL, 0, &places);
    }
    struct window w = {.forward = true, .from = first, .limit = MOST};
    bool more;
    if (!c->open || !places.len)
        return NULL;
    const struct hit_wants wants = {.memory = c->at_return.items, .memory_count = c->at_return.count};
    return find_hits(q, (const void *)places.data, places.len / sizeof(struct hit_place), &w, &wants, match_return, c, &more);
}

static json_t *call_row(struct query_engine *q, struct module *m, const struct sym_function *f, const struct sym_type *result,
                        const struct calls *calls, const struct call_found *call)
{
    json_t *row = json_object();
    json_object_set_new(row, "focus", json_focus(q, call->hit.moment, call->hit.task, 0));
    json_object_set_new(row, "task", json_task(q, call->hit.task));
    json_object_set_new(row, "function", json_function(q, m, f));
    struct lazy_context c;
    lazy_init(&c, q, &call->hit, &calls->at_call, call->bias);
    json_object_set_new(row, "args", arguments_at(q, call->hit.moment, m, f, &c.base));
    probes_add(q, &calls->probes, &call->hit, call->hit.memory + calls->at_call.len, &c.base, row);
    if (!call->returned) {
        json_object_set_new(row, "noReturn", json_true());
        return row;
    }
    json_object_set_new(row, "end", json_moment(call->back.moment));
    if (result) {
        struct sym_value v = {0};
        lazy_init(&c, q, &call->back, &calls->at_return, call->bias);
        struct err *why = sym_read_return_value(m->sym, f, &c.base, &v);
        json_object_set_new(row, "result", json_value(m->sym, result, &v, &c.base, why));
        sym_value_deinit(&v);
    }
    return row;
}

/* The function's calls within the window, with what is to be said of their results. */
static struct err *find_calls(struct query_engine *q, json_t *params, struct module *m, const struct sym_function *f, const struct window *w,
                              struct calls *c, struct buf *places, bool *more_out)
{
    size_t count;
    c->link_start = f->start;
    c->probes.at_entry = true;
    places_of(q, m, &f->start, 1, places);
    count = places->len / sizeof(struct hit_place);
    TRY(probes_compile(q, &c->probes, (void *)places->data, count));
    pieces_for_call(m, f, &c->at_call);
    const struct hit_wants wants = {.memory = c->at_call.items, .memory_count = c->at_call.count, .print_lens = c->probes.print_lens,
                                    .print_count = c->probes.print_count};
    return find_hits(q, (const void *)places->data, count, w, &wants, collect_call, c, more_out);
}

struct err *query_execution(struct query_engine *q, json_t *params)
{
    struct module *m;
    const struct sym_function *f;
    struct window w;
    struct calls c = {0};
    TRY(param_function(q, params, &m, &f));
    TRY(param_window(q, params, 50, &w));
    TRY(probes_take(params, &c.probes));
    const struct sym_type *result = NULL;
    err_free(sym_return_type(m->sym, f, &result));
    if (result && result->kind == SYM_VOID)
        result = NULL;
    if (result && (result->kind == SYM_POINTER || result->kind == SYM_REFERENCE))
        add_piece(&c.at_return, UREG_RAX, POINTED_LEN);
    bool more = false;
    cleanup(buf_deinit) struct buf places = {0};
    struct err *e = find_calls(q, params, m, f, &w, &c, &places, &more);
    // Nearest first is how they were found; what they need of other states is taken in order of time.
    if (!e && c.items.count)
        qsort(c.items.items, c.items.count, sizeof(c.items.items[0]), by_moment);
    if (!e)
        e = find_returns(q, &c);
    for (size_t i = 0; !e && i < c.items.count; i++) {
        if (!(e = check_cancel(q)))
            c.items.items[i].row = call_row(q, m, f, result, &c, &c.items.items[i]);
    }
    for (size_t i = 0; !e && i < c.items.count; i++) {
        struct call_found *call = &c.items.items[w.forward ? i : c.items.count - 1 - i];
        e = give(q, steal(call->row));
    }
    q->sink->more = more;
    vec_each (call, &c.items) {
        json_decref(call->row);
        free((void *)(uintptr_t)call->hit.memory);
        free((void *)(uintptr_t)call->back.memory);
    }
    vec_deinit(&c.items);
    probes_deinit(&c.probes);
    return e;
}

/* --- executions of a line, or of addresses --- */

struct giving {
    struct query_engine *q;
    struct err *failed;
    json_t *location; /* borrowed; NULL: none */
    struct probes probes;
};

static bool give_hit(void *ctx, const struct hit *h)
{
    struct giving *g = ctx;
    json_t *row = json_object();
    struct lazy_context c;
    json_object_set_new(row, "focus", json_focus(g->q, h->moment, h->task, 0));
    json_object_set_new(row, "task", json_task(g->q, h->task));
    json_object_set_new(row, "pc", json_hex(h->regs.r[UREG_RIP]));
    if (g->location)
        json_object_set(row, "location", g->location);
    lazy_init(&c, g->q, h, NULL, 0);
    probes_add(g->q, &g->probes, h, h->memory, &c.base, row);
    g->failed = give(g->q, row);
    return !g->failed;
}

static struct err *give_hits(struct query_engine *q, json_t *params, const struct buf *places, json_t *location)
{
    struct window w;
    struct giving g = {.q = q, .location = location};
    size_t count = places->len / sizeof(struct hit_place);
    TRY(param_window(q, params, 50, &w));
    TRY(probes_take(params, &g.probes));
    bool more = false;
    struct err *e = probes_compile(q, &g.probes, (void *)places->data, count);
    const struct hit_wants wants = {.print_lens = g.probes.print_lens, .print_count = g.probes.print_count};
    if (!e)
        e = find_hits(q, (const void *)places->data, count, &w, &wants, give_hit, &g, &more);
    q->sink->more = more;
    probes_deinit(&g.probes);
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

/* What the address is at the focus, in its task's space. */
static struct err *code_at_focus(struct query_engine *q, json_t *params, gaddr pc, struct code_place *out)
{
    struct focus f;
    struct replay *r;
    uint32_t space;
    TRY(param_focus(q, params, &f));
    TRY(state_at(q, f.moment, &r));
    struct err *e = space_of_task(r, f.task, &space);
    if (!e)
        *out = place_of(q, r, space, pc);
    err_free(e); // the task is not there: neither is its code
    return NULL;
}

/* Where the addresses of "start" to "end" ran. */
static struct err *address_places(struct query_engine *q, json_t *params, struct buf *places)
{
    uint64_t start, end;
    TRY(param_u64(params, "start", &start));
    TRY(param_u64(params, "end", &end));
    if (end <= start || end - start > 256)
        return err_new(ERR_USAGE, "start to end is 1 to 256 bytes");
    struct code_place code = {0};
    if (json_object_get(params, "condition") || json_object_get(params, "print"))
        TRY(code_at_focus(q, params, start, &code));
    for (gaddr pc = start; pc < end; pc++)
        places_at(q, pc, code.module, code.bias, places);
    return NULL;
}

struct err *query_address_execution(struct query_engine *q, json_t *params)
{
    cleanup(buf_deinit) struct buf places = {0};
    TRY(address_places(q, params, &places));
    return give_hits(q, params, &places, NULL);
}

/* The function's, line's or addresses' places, and where there is a condition their programs. */
static struct err *counted_places(struct query_engine *q, json_t *params, struct probes *probes, struct buf *places)
{
    if (json_object_get(params, "function")) {
        struct module *m;
        const struct sym_function *f;
        TRY(param_function(q, params, &m, &f));
        places_of(q, m, &f->start, 1, places);
        probes->at_entry = true;
    } else if (json_object_get(params, "start")) {
        TRY(address_places(q, params, places));
    } else {
        const char *file;
        uint64_t line;
        TRY(line_places(q, params, places, &file, &line));
    }
    return probes_compile(q, probes, (void *)places->data, places->len / sizeof(struct hit_place));
}

struct err *query_counts(struct query_engine *q, json_t *params)
{
    cleanup(buf_deinit) struct buf places = {0};
    struct probes probes;
    TRY(probes_take(params, &probes));
    probes.print_count = 0;
    size_t segments;
    history_segments(q->history, &segments);
    cleanup(freep) uint64_t *buckets = xnew_array(uint64_t, segments), *failed = xnew_array(uint64_t, segments);
    uint64_t total = 0, failures = 0;
    struct err *e = counted_places(q, params, &probes, &places);
    size_t count = places.len / sizeof(struct hit_place);
    if (!e && probes.condition)
        e = count_held(q, (const void *)places.data, count, buckets, failed);
    else if (!e)
        count_hits(q, (const void *)places.data, count, buckets);
    probes_deinit(&probes);
    TRY(e);
    json_t *list = json_array();
    for (size_t i = 0; i < segments; i++) {
        json_array_append_new(list, json_integer((json_int_t)buckets[i]));
        total += buckets[i];
        failures += failed[i];
    }
    json_t *row = json_pack("{sI, so}", "total", (json_int_t)total, "buckets", list);
    if (failures)
        json_object_set_new(row, "failed", json_integer((json_int_t)failures));
    return give(q, row);
}
