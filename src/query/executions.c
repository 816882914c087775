/* Queries for executions: of a function with arguments and result, of a line, of addresses; their
 * counts. */
#include "query/call_search_int.h"
#include "query/calls_int.h"

/* The state at a hit: its registers and pieces of memory known from the hit, everything else
 * fetched when first needed. */
struct lazy_context {
    struct sym_context base;
    struct query_engine *q;
    const struct hit *hit;
    const struct pieces *pieces;
    bool have_frame;
    struct frame_context frame;
};

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

static void lazy_init(struct lazy_context *c, struct query_engine *q, const struct hit *h,
                      const struct pieces *pieces, uint64_t bias)
{
    c->base = (struct sym_context){
        .read_memory = lazy_memory, .read_register = lazy_register, .bias = bias};
    c->q = q;
    c->hit = h;
    c->pieces = pieces;
    c->have_frame = false;
}

/* --- executions of a function --- */

/* The function's calls, and those that were compiled into their callers. */
struct calls {
    struct call_search search; /* also for inlined calls: its items */
    struct probes inlined_probes;
    struct sym_inlined_list copies;
    struct buf inlined; /* struct hit_place */
};

/* Did it return? By the stacks of calls at its entry and before the instruction that returned. */
static struct err *confirm_return(struct query_engine *q, struct call_found *f)
{
    struct moment last;
    struct x86_insn in;
    struct regs regs;
    TRY(next_instruction(q, f->back.moment, f->hit.task, false, &last));
    TRY(instruction_at(q, last, f->hit.task, &in, &regs));
    if (in.class != X86_RETURN || regs.r[UREG_RSP] != f->sp) {
        f->returned = false;
        return NULL;
    }
    frame_list entry = {0}, end = {0};
    struct err *e = stack_at(q, f->hit.moment, f->hit.task, &entry);
    if (!e)
        e = stack_at(q, last, f->hit.task, &end);
    // Of a function that was jumped to in other ways than from another's end the stack does not
    // tell.
    if (!e && entry.items[0].entry_sp == f->sp)
        f->returned = end.items[0].entry_sp == f->sp &&
                      moment_cmp(entry.items[0].call, end.items[0].call) == 0;
    vec_deinit(&entry);
    vec_deinit(&end);
    return e;
}

static json_t *call_row(struct query_engine *q, struct module *m, const struct sym_function *f,
                        const struct sym_type *result, const struct calls *calls,
                        const struct call_found *call)
{
    json_t *row = json_object();
    json_object_set_new(row, "focus", json_focus(q, call->hit.moment, call->hit.task, 0));
    json_object_set_new(row, "task", json_task(q, call->hit.task));
    json_object_set_new(row, "function", json_function(q, m, f));
    struct lazy_context c;
    if (call->copy) {
        lazy_init(&c, q, &call->hit, NULL, call->bias);
        json_object_set_new(row, "inlined", json_true());
        json_object_set_new(row, "args", json_arguments(m, f, call->copy, &c.base));
        probes_add(q, &calls->inlined_probes, &call->hit, call->hit.memory, &c.base, row);
        return row;
    }
    lazy_init(&c, q, &call->hit, &calls->search.at_call, call->bias);
    json_object_set_new(row, "args", arguments_at(q, call->hit.moment, m, f, &c.base));
    probes_add(q, &calls->search.probes, &call->hit, call->hit.memory + calls->search.pieces.len,
               &c.base, row);
    if (!call->returned) {
        json_object_set_new(row, "noReturn", json_true());
        return row;
    }
    json_object_set_new(row, "end", json_moment(call->back.moment));
    if (result) {
        struct sym_value v = {0};
        lazy_init(&c, q, &call->back, &calls->search.at_return, call->bias);
        struct err *why = sym_read_return_value(m->sym, f, &c.base, &v);
        json_object_set_new(row, "result", json_value(m->sym, result, &v, &c.base, why));
        sym_value_deinit(&v);
    }
    return row;
}

static bool collect_inlined(void *ctx, const struct hit *h)
{
    struct calls *c = ctx;
    const struct hit_place *places = (const void *)c->inlined.data;
    struct call_found f = {.hit = *h};
    for (size_t i = 0; i < c->inlined.len / sizeof(*places); i++) {
        if (is_hit_of(&places[i], h))
            f.bias = places[i].bias;
    }
    for (size_t i = 0; i < c->copies.count; i++) {
        if (c->copies.items[i].entry == h->regs.r[UREG_RIP] - f.bias)
            f.copy = &c->copies.items[i];
    }
    f.hit.memory = xmemdup(h->memory, h->memory_len);
    vec_push(&c->search.items, f);
    return true;
}

/* Where inlined calls begin. copies: by address. */
static struct err *inlined_places(struct query_engine *q, struct module *m,
                                  const struct sym_inlined_list *copies, struct buf *out)
{
    for (size_t i = 0; i < copies->count; i++) {
        if (i == 0 || copies->items[i].entry != copies->items[i - 1].entry)
            TRY(places_of(q, m, &copies->items[i].entry, 1, out));
    }
    return NULL;
}

/* The function's calls within the window that were compiled into their callers. */
static struct err *find_inlined(struct query_engine *q, struct module *m,
                                const struct sym_function *f, const struct window *w,
                                struct calls *c)
{
    TRY(prepare_symbols(q, m->sym, SYM_FOR_CALLS));
    TRY(sym_inlined_copies(m->sym, f, &c->copies));
    TRY(inlined_places(q, m, &c->copies, &c->inlined));
    c->inlined_probes.calls = &c->copies;
    size_t count = c->inlined.len / sizeof(struct hit_place);
    if (!count)
        return NULL;
    TRY(probes_compile(q, &c->inlined_probes, (void *)c->inlined.data, count));
    const struct hit_wants wants = {.print_lens = c->inlined_probes.print_lens,
                                    .print_count = c->inlined_probes.print_count};
    bool more = false;
    TRY(find_hits(q, (const void *)c->inlined.data, count, w, &wants, collect_inlined, c, &more));
    c->search.more |= more;
    return NULL;
}

static int by_moment(const void *a, const void *b)
{
    const struct call_found *x = a, *y = b;
    return moment_cmp(x->hit.moment, y->hit.moment);
}

static void calls_deinit(struct calls *c)
{
    call_search_deinit(&c->search);
    probes_deinit(&c->inlined_probes);
    sym_inlined_list_deinit(&c->copies);
    buf_deinit(&c->inlined);
}

/* Whose executions are asked for. */
struct function_question {
    json_t *params;
    struct module *m;
    const struct sym_function *f;
};

static struct err *give_calls(struct query_engine *q, const struct window *w, void *ctx)
{
    const struct function_question *a = ctx;
    struct calls c = {.search.q = q};
    found_list *found = &c.search.items;
    TRY(probes_take(a->params, &c.search.probes));
    TRY(probes_take(a->params, &c.inlined_probes));
    const struct sym_type *result = NULL;
    err_free(sym_return_type(a->m->sym, a->f, &result));
    if (result && result->kind == SYM_VOID)
        result = NULL;
    if (result && (result->kind == SYM_POINTER || result->kind == SYM_REFERENCE))
        add_piece(&c.search.at_return, UREG_RAX, POINTED_LEN);
    struct err *e = a->f->range_count ? call_search_run(&c.search, a->m, a->f, w) : NULL;
    if (!e)
        e = find_inlined(q, a->m, a->f, w, &c);
    // What they need of other states is taken in order of time.
    if (!e && found->count)
        qsort(found->items, found->count, sizeof(found->items[0]), by_moment);
    size_t wanted = found->count < w->limit ? found->count : w->limit,
           first = w->forward ? 0 : found->count - wanted;
    c.search.more |= wanted < found->count;
    for (size_t i = first; !e && i < first + wanted; i++) {
        struct call_found *call = &found->items[i];
        if (!(e = check_cancel(q)) && call->returned && !call->certain)
            e = confirm_return(q, call);
        if (!e)
            call->row = call_row(q, a->m, a->f, result, &c, call);
    }
    for (size_t i = 0; !e && i < wanted; i++)
        e = give(q, steal(found->items[w->forward ? i : found->count - 1 - i].row));
    q->sink->more = c.search.more;
    calls_deinit(&c);
    return e;
}

struct err *query_execution(struct query_engine *q, json_t *params)
{
    struct window w;
    struct function_question a = {.params = params};
    TRY(param_function(q, params, &a.m, &a.f));
    TRY(param_window(q, params, 50, &w));
    return run_with_kept_rows(q, "execution", params, &w, give_calls, &a);
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

static struct err *give_hits(struct query_engine *q, json_t *params, const struct window *w,
                             const struct buf *places, json_t *location)
{
    struct giving g = {.q = q, .location = location};
    size_t count = places->len / sizeof(struct hit_place);
    TRY(probes_take(params, &g.probes));
    bool more = false;
    struct err *e = probes_compile(q, &g.probes, (void *)places->data, count);
    const struct hit_wants wants = {.print_lens = g.probes.print_lens,
                                    .print_count = g.probes.print_count};
    if (!e)
        e = find_hits(q, (const void *)places->data, count, w, &wants, give_hit, &g, &more);
    q->sink->more = more;
    probes_deinit(&g.probes);
    if (e) {
        err_free(g.failed);
        return e;
    }
    return g.failed;
}

struct err *places_of_line(struct query_engine *q, const char *file, uint64_t *line,
                           struct buf *places, char **file_out)
{
    uint64_t wanted = *line;
    bool found = false;
    vec_each (m, &q->modules) {
        struct sym_module *sym;
        struct sym_places p = {0};
        struct err *e = module_sym(q, *m, &sym), *failed = NULL;
        if (!e)
            e = sym_addresses_of_line(sym, file, (unsigned)wanted, &p);
        if (!e && (!found || p.line < *line)) {
            found = true;
            *line = p.line;
            places->len = 0;
            free(*file_out);
            *file_out = xstrdup(p.file);
        }
        for (size_t i = 0; !e && p.line == *line && i < p.count && !failed; i++)
            failed = places_of(q, *m, &p.items[i].start, 1, places);
        err_free(e);
        sym_places_deinit(&p);
        TRY(failed);
    }
    return found ? NULL
                 : err_new(ERR_NOT_FOUND, "no code for %.200s:%llu", file,
                           (unsigned long long)wanted);
}

/* Of a query's file and line. *line becomes the line that was found. */
static struct err *line_places(struct query_engine *q, json_t *params, struct buf *places,
                               const char **file, uint64_t *line)
{
    cleanup(freep) char *found = NULL;
    TRY(param_string(params, "file", file));
    TRY(param_u64(params, "line", line));
    return places_of_line(q, *file, line, places, &found);
}

static struct err *give_line(struct query_engine *q, const struct window *w, void *ctx)
{
    cleanup(buf_deinit) struct buf places = {0};
    const char *file;
    uint64_t line;
    TRY(line_places(q, ctx, &places, &file, &line));
    json_t *location = json_location(file, (int)line, 0);
    struct err *e = give_hits(q, ctx, w, &places, location);
    json_decref(location);
    return e;
}

struct err *query_breakpoint(struct query_engine *q, json_t *params)
{
    struct window w;
    TRY(param_window(q, params, 50, &w));
    return run_with_kept_rows(q, "breakpoint", params, &w, give_line, params);
}

/* What the address is at the focus, in its task's space. */
static struct err *code_at_focus(struct query_engine *q, json_t *params, gaddr pc,
                                 struct code_place *out)
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
    struct window w;
    TRY(param_window(q, params, 50, &w));
    TRY(address_places(q, params, &places));
    return give_hits(q, params, &w, &places, NULL);
}

/* The function's, line's or addresses' places, and where there is a condition their programs.
 * inlined: places of inlined calls of the function instead. */
static struct err *counted_places(struct query_engine *q, json_t *params, bool inlined,
                                  struct sym_inlined_list *copies, struct probes *probes,
                                  struct buf *places)
{
    if (json_object_get(params, "function")) {
        struct module *m;
        const struct sym_function *f;
        TRY(param_function(q, params, &m, &f));
        if (inlined)
            TRY(sym_inlined_copies(m->sym, f, copies));
        else if (f->range_count)
            TRY(places_of(q, m, &f->start, 1, places));
        TRY(inlined_places(q, m, copies, places));
        probes->calls = copies;
        probes->at_entry = !inlined;
    } else if (inlined) {
        return NULL;
    } else if (json_object_get(params, "start")) {
        TRY(address_places(q, params, places));
    } else {
        const char *file;
        uint64_t line;
        TRY(line_places(q, params, places, &file, &line));
    }
    size_t count = places->len / sizeof(struct hit_place);
    return count ? probes_compile(q, probes, (void *)places->data, count) : NULL;
}

struct err *query_counts(struct query_engine *q, json_t *params)
{
    size_t segments;
    history_segments(q->history, &segments);
    cleanup(freep) uint64_t *buckets = xnew_array(uint64_t, segments),
                            *failed = xnew_array(uint64_t, segments);
    uint64_t total = 0, failures = 0, executed;
    for (int inlined = 0; inlined < 2; inlined++) {
        cleanup(buf_deinit) struct buf places = {0};
        struct probes probes;
        TRY(probes_take(params, &probes));
        probes.print_count = 0;
        struct sym_inlined_list copies = {0};
        struct err *e = counted_places(q, params, inlined, &copies, &probes, &places);
        size_t count = places.len / sizeof(struct hit_place);
        if (!e && count && probes.condition)
            e = count_held(q, (const void *)places.data, count, buckets, failed);
        else if (!e)
            e = count_executions(q, (const void *)places.data, count, buckets, &executed);
        probes_deinit(&probes);
        sym_inlined_list_deinit(&copies);
        TRY(e);
    }
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
