/* Queries for executions: of a function with arguments and result, of a line, of addresses; their counts. */
#include "query/calls_int.h"
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
    bool open;      /* looked for: it may yet return */
    bool returned, certain; /* certain: the stack of calls told it */
    struct hit back; /* right behind the return */
    bool have_last; /* the segment with its end is known: last_live_segment() */
    size_t last;
    const struct sym_inlined *copy; /* an inlined call: it has no frame and returns to nowhere; NULL: it is none */
    json_t *row;
};

/* Return addresses of calls that are open, with the lowest of the calls' stack pointers. */
struct return_place {
    uint32_t space;
    gaddr pc, sp;
};

struct calls {
    struct query_engine *q;
    VEC(struct call_found) items;
    size_t limit, open;
    bool more;      /* than the limit */
    bool all_found; /* calls are not looked for any more, returns are */
    uint64_t link_start;
    struct pieces at_call, at_return, pieces; /* the last: both, as they come with each hit */
    struct probes probes, inlined_probes;
    struct sym_inlined_list copies;
    struct buf entries, places, inlined; /* struct hit_place */
    VEC(struct return_place) returns;
    VEC(struct program_op) ops; /* of the conditions of return places */
    struct hook_programs *programs;
    struct program *no_prints;
};

enum { RETURN_OPS = 4 };

static bool collect_call(void *ctx, const struct hit *h)
{
    struct calls *c = ctx;
    struct call_found f = {.hit = *h, .sp = h->regs.r[UREG_RSP], .bias = h->regs.r[UREG_RIP] - c->link_start};
    f.hit.memory = xmemdup(h->memory, h->memory_len);
    f.have_return_addr = f.open = !(h->unreadable & 1);
    f.return_addr = load_u64(h->memory);
    c->open += f.open;
    vec_push(&c->items, f);
    return true;
}

static bool is_entry(const struct calls *c, const struct hit *h)
{
    const struct hit_place *p = (const void *)c->entries.data;
    for (size_t i = 0; i < c->entries.len / sizeof(*p); i++) {
        if (p[i].space == h->space && p[i].pc == h->regs.r[UREG_RIP])
            return true;
    }
    return false;
}

/* The first time that the return address is reached with the stack above, the call is over: as a rule by returning, but it might have been left by a longjmp
 * before, and another one have returned to the same place. */
static void match_return(struct calls *c, const struct hit *h)
{
    vec_each (f, &c->items) {
        if (!f->open || f->hit.task != h->task || f->return_addr != h->regs.r[UREG_RIP] || h->regs.r[UREG_RSP] <= f->sp ||
            moment_cmp(h->moment, f->hit.moment) <= 0)
            continue;
        f->open = false;
        f->returned = true;
        f->certain = h->returned.event + h->returned.icount && moment_cmp(f->hit.entered, h->returned) == 0;
        f->back = *h;
        f->back.memory = xmemdup(h->memory + c->at_call.len, c->at_return.len);
        f->back.unreadable = h->unreadable >> c->at_call.count;
        c->open--;
    }
}

static bool on_hit(void *ctx, const struct hit *h)
{
    struct calls *c = ctx;
    match_return(c, h);
    if (!c->all_found && is_entry(c, h)) {
        if (c->items.count == c->limit)
            c->more = c->all_found = true;
        else
            collect_call(c, h);
    }
    return !c->all_found || c->open;
}

/* --- what is still looked for --- */

/* Gives up a call that has ended before the segment otherwise than by returning. first: lowered to the segment in which it may return. */
static struct err *look_ahead(struct calls *c, struct call_found *f, size_t segment, size_t *first)
{
    size_t count;
    const struct history_segment *s = history_segments(c->q->history, &count);
    if (!f->have_last && moment_cmp(f->hit.moment, s[segment].start) < 0) {
        bool known;
        TRY(last_live_segment(c->q, f->hit.task, f->sp, f->hit.moment, &f->last, &known));
        f->have_last = known;
    }
    // It may have returned to the very end of a segment, to go on in a later one.
    if (f->have_last && f->last + 1 < segment && task_ran(c->q, f->hit.task, s[f->last + 1].start, s[segment].start)) {
        f->open = false;
        c->open--;
    } else {
        size_t from = f->have_last && f->last > segment ? f->last : segment;
        *first = from < *first ? from : *first;
    }
    return NULL;
}

static void add_return(struct calls *c, const struct call_found *f)
{
    vec_each (p, &c->returns) {
        if (p->space == f->hit.space && p->pc == f->return_addr) {
            p->sp = f->sp < p->sp ? f->sp : p->sp;
            return;
        }
    }
    vec_push(&c->returns, (struct return_place){f->hit.space, f->return_addr, f->sp});
}

/* A hit is of interest if rsp is above the lowest call's. */
static void set_conditions(struct calls *c)
{
    size_t count = c->returns.count;
    free(c->programs);
    c->programs = xnew_array(struct hook_programs, count + 1);
    c->ops.count = 0;
    vec_each (p, &c->returns) {
        vec_push(&c->ops, (struct program_op){.code = PROGRAM_PUSH, .imm = p->sp});
        vec_push(&c->ops, (struct program_op){.code = PROGRAM_REGISTER, .arg = UREG_RSP});
        vec_push(&c->ops, (struct program_op){.code = PROGRAM_LT_U});
        vec_push(&c->ops, (struct program_op){.code = PROGRAM_END});
    }
    for (size_t i = 0; i < count; i++)
        c->programs[i] = (struct hook_programs){.condition = {.ops = &c->ops.items[RETURN_OPS * i], .count = RETURN_OPS}, .prints = c->no_prints};
}

static void list_places(struct calls *c)
{
    c->places.len = 0;
    if (!c->all_found)
        buf_add(&c->places, c->entries.data, c->entries.len);
    size_t entries = c->places.len / sizeof(struct hit_place);
    for (size_t i = 0; i < c->returns.count; i++) {
        struct hit_place p = {.space = c->returns.items[i].space, .pc = c->returns.items[i].pc};
        bool both = false; // a place can be an entry and behind a call that does not return
        for (size_t k = 0; k < entries; k++) {
            const struct hit_place *entry = (const struct hit_place *)(const void *)c->places.data + k;
            both |= entry->space == p.space && entry->pc == p.pc;
        }
        // As long as calls are looked for, those to come may be deeper.
        p.programs = c->all_found ? &c->programs[i] : NULL;
        if (!both)
            buf_add(&c->places, &p, sizeof(p));
    }
}

static struct err *wanted_places(void *ctx, size_t *segment, const struct hit_place **out, size_t *count_out, size_t *batch_out)
{
    enum { MOST_ROWS = 256 };
    struct calls *c = ctx;
    size_t first = SIZE_MAX;
    c->returns.count = 0;
    vec_each (f, &c->items) {
        if (f->open && *segment != SIZE_MAX)
            TRY(look_ahead(c, f, *segment, &first));
        if (f->open)
            add_return(c, f);
    }
    set_conditions(c);
    list_places(c);
    if (c->all_found && c->open && *segment != SIZE_MAX)
        *segment = first;
    // An entry and a return of each call that is wanted.
    size_t rows = c->open + (c->all_found ? 0 : 2 * (c->limit + 1 - c->items.count));
    *batch_out = rows < MOST_ROWS ? rows + !rows : MOST_ROWS;
    *out = (const void *)c->places.data;
    *count_out = c->places.len / sizeof(struct hit_place);
    return NULL;
}

static int by_moment(const void *a, const void *b)
{
    const struct call_found *x = a, *y = b;
    return moment_cmp(x->hit.moment, y->hit.moment);
}

/* Finds where the calls return, and, unless they are known already, the calls themselves on the way. */
static struct err *follow_calls(struct calls *c, struct moment from, const struct hit_wants *wants)
{
    const struct hit_source source = {c, wanted_places};
    return follow_hits(c->q, &source, from, wants, on_hit, c);
}

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
    // Of a function that was jumped to in other ways than from another's end the stack does not tell.
    if (!e && entry.items[0].entry_sp == f->sp)
        f->returned = end.items[0].entry_sp == f->sp && moment_cmp(entry.items[0].call, end.items[0].call) == 0;
    vec_deinit(&entry);
    vec_deinit(&end);
    return e;
}

static json_t *call_row(struct query_engine *q, struct module *m, const struct sym_function *f, const struct sym_type *result,
                        const struct calls *calls, const struct call_found *call)
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
    lazy_init(&c, q, &call->hit, &calls->at_call, call->bias);
    json_object_set_new(row, "args", arguments_at(q, call->hit.moment, m, f, &c.base));
    probes_add(q, &calls->probes, &call->hit, call->hit.memory + calls->pieces.len, &c.base, row);
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
static struct err *find_calls(struct query_engine *q, struct module *m, const struct sym_function *f, const struct window *w, struct calls *c)
{
    c->q = q;
    c->limit = w->limit;
    c->link_start = f->start;
    c->probes.at_entry = true;
    places_of(q, m, &f->start, 1, &c->entries);
    struct hit_place *places = (void *)c->entries.data;
    size_t count = c->entries.len / sizeof(*places);
    TRY(probes_compile(q, &c->probes, places, count));
    pieces_for_call(m, f, &c->at_call);
    c->pieces = c->at_call;
    for (size_t i = 0; i < c->at_return.count; i++)
        add_piece(&c->pieces, c->at_return.items[i].base, c->at_return.items[i].len);
    c->no_prints = xnew_array(struct program, c->probes.print_count + 1);
    const struct hit_wants wants = {.memory = c->pieces.items, .memory_count = c->pieces.count, .print_lens = c->probes.print_lens,
                                    .print_count = c->probes.print_count, .calls = true};
    if (w->forward && !c->probes.condition) {
        for (size_t i = 0; i < count; i++)
            places[i].entry = true;
        return follow_calls(c, w->from, &wants);
    }
    TRY(find_hits(q, places, count, w, &wants, collect_call, c, &c->more));
    c->all_found = true;
    struct moment from = MOMENT_END;
    vec_each (call, &c->items) {
        if (call->open && moment_cmp(call->hit.moment, from) < 0)
            from = call->hit.moment;
    }
    return c->open ? follow_calls(c, from, &wants) : NULL;
}

static bool collect_inlined(void *ctx, const struct hit *h)
{
    struct calls *c = ctx;
    const struct hit_place *places = (const void *)c->inlined.data;
    struct call_found f = {.hit = *h};
    for (size_t i = 0; i < c->inlined.len / sizeof(*places); i++) {
        if (places[i].space == h->space && places[i].pc == h->regs.r[UREG_RIP])
            f.bias = places[i].bias;
    }
    for (size_t i = 0; i < c->copies.count; i++) {
        if (c->copies.items[i].entry == h->regs.r[UREG_RIP] - f.bias)
            f.copy = &c->copies.items[i];
    }
    f.hit.memory = xmemdup(h->memory, h->memory_len);
    vec_push(&c->items, f);
    return true;
}

/* Where inlined calls begin. copies: by address. */
static void inlined_places(struct query_engine *q, struct module *m, const struct sym_inlined_list *copies, struct buf *out)
{
    for (size_t i = 0; i < copies->count; i++) {
        if (i == 0 || copies->items[i].entry != copies->items[i - 1].entry)
            places_of(q, m, &copies->items[i].entry, 1, out);
    }
}

/* The function's calls within the window that were compiled into their callers. */
static struct err *find_inlined(struct query_engine *q, struct module *m, const struct sym_function *f, const struct window *w, struct calls *c)
{
    TRY(sym_inlined_copies(m->sym, f, &c->copies));
    inlined_places(q, m, &c->copies, &c->inlined);
    c->inlined_probes.calls = &c->copies;
    size_t count = c->inlined.len / sizeof(struct hit_place);
    if (!count)
        return NULL;
    TRY(probes_compile(q, &c->inlined_probes, (void *)c->inlined.data, count));
    const struct hit_wants wants = {.print_lens = c->inlined_probes.print_lens, .print_count = c->inlined_probes.print_count};
    bool more = false;
    TRY(find_hits(q, (const void *)c->inlined.data, count, w, &wants, collect_inlined, c, &more));
    c->more |= more;
    return NULL;
}

static void calls_deinit(struct calls *c)
{
    vec_each (call, &c->items) {
        json_decref(call->row);
        free((void *)(uintptr_t)call->hit.memory);
        free((void *)(uintptr_t)call->back.memory);
    }
    vec_deinit(&c->items);
    probes_deinit(&c->probes);
    probes_deinit(&c->inlined_probes);
    sym_inlined_list_deinit(&c->copies);
    buf_deinit(&c->entries);
    buf_deinit(&c->inlined);
    buf_deinit(&c->places);
    vec_deinit(&c->returns);
    vec_deinit(&c->ops);
    free(c->programs);
    free(c->no_prints);
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
    TRY(probes_take(params, &c.inlined_probes));
    const struct sym_type *result = NULL;
    err_free(sym_return_type(m->sym, f, &result));
    if (result && result->kind == SYM_VOID)
        result = NULL;
    if (result && (result->kind == SYM_POINTER || result->kind == SYM_REFERENCE))
        add_piece(&c.at_return, UREG_RAX, POINTED_LEN);
    struct err *e = f->range_count ? find_calls(q, m, f, &w, &c) : NULL;
    if (!e)
        e = find_inlined(q, m, f, &w, &c);
    // What they need of other states is taken in order of time.
    if (!e && c.items.count)
        qsort(c.items.items, c.items.count, sizeof(c.items.items[0]), by_moment);
    size_t wanted = c.items.count < w.limit ? c.items.count : w.limit, first = w.forward ? 0 : c.items.count - wanted;
    c.more |= wanted < c.items.count;
    for (size_t i = first; !e && i < first + wanted; i++) {
        struct call_found *call = &c.items.items[i];
        if (!(e = check_cancel(q)) && call->returned && !call->certain)
            e = confirm_return(q, call);
        if (!e)
            call->row = call_row(q, m, f, result, &c, call);
    }
    for (size_t i = 0; !e && i < wanted; i++) {
        struct call_found *call = &c.items.items[w.forward ? i : c.items.count - 1 - i];
        e = give(q, steal(call->row));
    }
    q->sink->more = c.more;
    calls_deinit(&c);
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

/* The function's, line's or addresses' places, and where there is a condition their programs. inlined: places of inlined calls of the function instead. */
static struct err *counted_places(struct query_engine *q, json_t *params, bool inlined, struct sym_inlined_list *copies, struct probes *probes,
                                  struct buf *places)
{
    if (json_object_get(params, "function")) {
        struct module *m;
        const struct sym_function *f;
        TRY(param_function(q, params, &m, &f));
        if (inlined)
            TRY(sym_inlined_copies(m->sym, f, copies));
        else if (f->range_count)
            places_of(q, m, &f->start, 1, places);
        inlined_places(q, m, copies, places);
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
    cleanup(freep) uint64_t *buckets = xnew_array(uint64_t, segments), *failed = xnew_array(uint64_t, segments);
    uint64_t total = 0, failures = 0;
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
            count_hits(q, (const void *)places.data, count, buckets);
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
