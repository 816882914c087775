/* Where a function was called, and where the calls returned.
 *
 * Forward both come from one run (follow_hits()): it stops behind an entry from an address that is
 * new, and goes on with that address among the places that are looked for, which stay until the
 * call is over. Calls that were found otherwise (backward, under a condition) are followed
 * likewise, from the first of them on.
 *
 * Where few calls lie in much code all of it has to be run. The index tells which segments that is;
 * they are shared out, in parts of about the same cost, to as many threads as there are processors:
 *
 *     segments   | 3 |   | 1 | 2 |   |   | 4 | 1 |     calls in them; 10 are wanted
 *     parts      <------------------><----------->     each finds those that were entered in it ...
 *     runs       >-----------------------> >------->   ... and goes on until the last of them has returned */
#include "query/call_search_int.h"

#include "base/cpus.h"

enum { RETURN_OPS = 4, MOST_PARTS = 16 };
/* What a part costs at least (segment_cost()): to open one costs some ten milliseconds. */
#define LEAST_PART 25000000ull

/* Return addresses of calls that are open, with the lowest of the calls' stack pointers. */
struct return_place {
    uint32_t space;
    gaddr pc, sp;
};

/* The calls that were entered from a moment until another one. */
struct part {
    const struct call_search *c;
    struct moment from, until;
    size_t limit, open;
    found_list items;
    bool more;         /* than the limit */
    bool all_found;    /* calls are not looked for any more, returns are */
    struct buf places; /* struct hit_place */
    VEC(struct return_place) returns;
    VEC(struct program_op) ops; /* of the conditions of return places */
    struct hook_programs *programs;
    struct program *no_prints;
    struct err *failed;
};

void add_piece(struct pieces *p, uint8_t base, uint16_t len)
{
    if (p->count == sizeof(p->items) / sizeof(p->items[0]))
        return;
    p->items[p->count++] = (struct hook_memory){.base = base, .len = len};
    p->len += len;
}

/* Of pointers among the arguments, by the calling convention as far as it is easy. */
static void pieces_for_call(struct module *m, const struct sym_function *f, struct pieces *out)
{
    *out = (struct pieces){0};
    add_piece(out, UREG_RSP, 8); // the return address
    struct sym_variables params = {0};
    struct err *e = sym_function_parameters(m->sym, f, &params);
    size_t used = 0;
    for (size_t i = 0; !e && i < params.count && used < CALL_ARGUMENT_REGISTERS; i++) {
        enum sym_type_kind kind = params.items[i].type->kind;
        if (kind == SYM_POINTER || kind == SYM_REFERENCE)
            add_piece(out, call_argument_registers[used], POINTED_LEN);
        if (kind == SYM_ARRAY || kind == SYM_STRUCT || kind == SYM_UNION || kind == SYM_CLASS ||
            kind == SYM_UNKNOWN_TYPE)
            break;
        used += kind != SYM_FLOAT && kind != SYM_COMPLEX;
    }
    err_free(e);
    sym_variables_deinit(&params);
}

void found_list_deinit(found_list *l)
{
    vec_each (call, l) {
        json_decref(call->row);
        free((void *)(uintptr_t)call->hit.memory);
        free((void *)(uintptr_t)call->back.memory);
    }
    vec_deinit(l);
}

static void part_deinit(struct part *p)
{
    found_list_deinit(&p->items);
    buf_deinit(&p->places);
    vec_deinit(&p->returns);
    vec_deinit(&p->ops);
    free(p->programs);
    free(p->no_prints);
    err_free(p->failed);
}

/* --- what the run meets --- */

static bool collect_call(void *ctx, const struct hit *h)
{
    struct part *p = ctx;
    struct call_found f = {
        .hit = *h, .sp = h->regs.r[UREG_RSP], .bias = h->regs.r[UREG_RIP] - p->c->link_start};
    f.hit.memory = xmemdup(h->memory, h->memory_len);
    f.have_return_addr = f.open = !(h->unreadable & 1);
    f.return_addr = load_u64(h->memory);
    p->open += f.open;
    vec_push(&p->items, f);
    return true;
}

static bool is_entry(const struct call_search *c, const struct hit *h)
{
    const struct hit_place *p = (const void *)c->entries.data;
    for (size_t i = 0; i < c->entries.len / sizeof(*p); i++) {
        if (is_hit_of(&p[i], h))
            return true;
    }
    return false;
}

/* The first time that the return address is reached with the stack above, the call is over: as a
 * rule by returning, but it might have been left by a longjmp before, and another one have returned
 * to the same place. */
static void match_return(struct part *p, const struct hit *h)
{
    vec_each (f, &p->items) {
        if (!f->open || f->hit.task != h->task || f->return_addr != h->regs.r[UREG_RIP] ||
            h->regs.r[UREG_RSP] <= f->sp || moment_cmp(h->moment, f->hit.moment) <= 0)
            continue;
        f->open = false;
        f->returned = true;
        f->certain =
            h->returned.event + h->returned.icount && moment_cmp(f->hit.entered, h->returned) == 0;
        f->back = *h;
        f->back.memory = xmemdup(h->memory + p->c->at_call.len, p->c->at_return.len);
        f->back.unreadable = h->unreadable >> p->c->at_call.count;
        p->open--;
    }
}

static bool on_hit(void *ctx, const struct hit *h)
{
    struct part *p = ctx;
    match_return(p, h);
    if (!p->all_found && is_entry(p->c, h)) {
        bool inside = moment_cmp(h->moment, p->until) < 0;
        p->more |= inside && p->items.count == p->limit;
        p->all_found = !inside || p->more;
        if (!p->all_found)
            collect_call(p, h);
    }
    return !p->all_found || p->open;
}

/* --- what is still looked for --- */

/* Gives up a call that has ended before the segment otherwise than by returning. first: lowered to
 * the segment in which it may return. */
static struct err *look_ahead(struct part *p, struct call_found *f, size_t segment, size_t *first)
{
    size_t count;
    struct query_engine *q = p->c->q;
    const struct history_segment *s = history_segments(q->history, &count);
    if (!f->have_last && moment_cmp(f->hit.moment, s[segment].start) < 0) {
        bool known;
        TRY(last_live_segment(q, f->hit.task, f->sp, f->hit.moment, &f->last, &known));
        f->have_last = known;
    }
    // It may have returned to the very end of a segment, to go on in a later one.
    if (f->have_last && f->last + 1 < segment &&
        task_ran(q, f->hit.task, s[f->last + 1].start, s[segment].start)) {
        f->open = false;
        p->open--;
    } else {
        size_t from = f->have_last && f->last > segment ? f->last : segment;
        *first = from < *first ? from : *first;
    }
    return NULL;
}

static void add_return(struct part *p, const struct call_found *f)
{
    vec_each (r, &p->returns) {
        if (r->space == f->hit.space && r->pc == f->return_addr) {
            r->sp = f->sp < r->sp ? f->sp : r->sp;
            return;
        }
    }
    vec_push(&p->returns, (struct return_place){f->hit.space, f->return_addr, f->sp});
}

/* A hit is of interest if rsp is above the lowest call's. */
static void set_conditions(struct part *p)
{
    size_t count = p->returns.count;
    free(p->programs);
    p->programs = xnew_array(struct hook_programs, count + 1);
    p->ops.count = 0;
    vec_each (r, &p->returns) {
        vec_push(&p->ops, (struct program_op){.code = PROGRAM_PUSH, .imm = r->sp});
        vec_push(&p->ops, (struct program_op){.code = PROGRAM_REGISTER, .arg = UREG_RSP});
        vec_push(&p->ops, (struct program_op){.code = PROGRAM_LT_U});
        vec_push(&p->ops, (struct program_op){.code = PROGRAM_END});
    }
    for (size_t i = 0; i < count; i++)
        p->programs[i] = (struct hook_programs){
            .condition = {.ops = &p->ops.items[RETURN_OPS * i], .count = RETURN_OPS},
            .prints = p->no_prints};
}

static void list_places(struct part *p)
{
    p->places.len = 0;
    if (!p->all_found)
        buf_add(&p->places, p->c->entries.data, p->c->entries.len);
    size_t entries = p->places.len / sizeof(struct hit_place);
    for (size_t i = 0; i < p->returns.count; i++) {
        struct hit_place place = {.space = p->returns.items[i].space, .pc = p->returns.items[i].pc};
        bool both = false; // a place can be an entry and behind a call that does not return
        for (size_t k = 0; k < entries; k++) {
            const struct hit_place *entry =
                (const struct hit_place *)(const void *)p->places.data + k;
            both |= entry->space == place.space && entry->pc == place.pc;
        }
        // As long as calls are looked for, those to come may be deeper.
        place.programs = p->all_found ? &p->programs[i] : NULL;
        if (!both)
            buf_add(&p->places, &place, sizeof(place));
    }
}

static struct err *wanted_places(void *ctx, size_t *segment, const struct hit_place **out,
                                 size_t *count_out, size_t *batch_out)
{
    enum { MOST_ROWS = 256 };
    struct part *p = ctx;
    size_t first = SIZE_MAX, segments;
    if (*segment != SIZE_MAX &&
        moment_cmp(history_segments(p->c->q->history, &segments)[*segment].start, p->until) >= 0)
        p->all_found = true;
    p->returns.count = 0;
    vec_each (f, &p->items) {
        if (f->open && *segment != SIZE_MAX)
            TRY(look_ahead(p, f, *segment, &first));
        if (f->open)
            add_return(p, f);
    }
    set_conditions(p);
    list_places(p);
    if (p->all_found && p->open && *segment != SIZE_MAX)
        *segment = first;
    // An entry and a return of each call that is wanted.
    size_t rows = p->open + (p->all_found ? 0 : 2 * (p->limit + 1 - p->items.count));
    *batch_out = rows < MOST_ROWS ? rows + !rows : MOST_ROWS;
    *out = (const void *)p->places.data;
    *count_out = p->places.len / sizeof(struct hit_place);
    return NULL;
}

/* --- parts --- */

static struct hit_wants wants_of(const struct call_search *c)
{
    return (struct hit_wants){.memory = c->pieces.items,
                              .memory_count = c->pieces.count,
                              .print_lens = c->probes.print_lens,
                              .print_count = c->probes.print_count,
                              .calls = true};
}

/* Finds where the calls return, and, unless they are known already, the calls themselves on the
 * way. */
static struct err *follow_part(struct part *p)
{
    const struct hit_source source = {p, wanted_places};
    const struct hit_wants wants = wants_of(p->c);
    p->no_prints = xnew_array(struct program, p->c->probes.print_count + 1);
    return follow_hits(p->c->q, &source, p->from, &wants, on_hit, p);
}

static void *run_part(void *arg)
{
    struct part *p = arg;
    p->failed = follow_part(p);
    return NULL;
}

/* Runs the parts at the same time, the first by this thread. */
static struct err *follow_parts(struct call_search *c, struct part *parts, size_t count)
{
    struct err *e = NULL;
    release_state(c->q); // it is one of those that can be lent
    work_side_by_side(run_part, parts, sizeof(*parts), count);
    for (size_t i = 0; i < count; i++) {
        struct part *p = &parts[i];
        if (!e)
            e = steal(p->failed);
        vec_each (f, &p->items)
            vec_push(&c->items, *f);
        p->items.count = 0;
        c->more |= p->more;
    }
    return e;
}

static struct err *follow_alone(struct call_search *c, struct part *p)
{
    struct err *e = follow_parts(c, p, 1);
    part_deinit(p);
    return e;
}

/* --- which segments --- */

/* Segments with the calls that are wanted, or all there are. */
struct spread {
    size_t first, last;
    uint64_t calls, cost;
    bool more; /* there are calls in segments beyond */
};

/* Of the first segment not all calls may be within the window: they do not count for the limit. */
static struct spread spread_of(const struct query_engine *q, const uint64_t *buckets,
                               const struct window *w)
{
    size_t segments,
        step = w->forward ? 1 : SIZE_MAX; // backward it ends below 0, which is a large number
    history_segments(q->history, &segments);
    size_t start = history_segment_at(q->history, w->from);
    struct spread s = {.first = start, .last = start, .calls = buckets[start]};
    uint64_t enough = w->limit + s.calls;
    for (size_t at = start; at < segments; at += step) {
        bool wanted = at == start || s.calls < enough;
        s.more |= !wanted && buckets[at];
        if (!wanted || !buckets[at])
            continue;
        s.calls += at == start ? 0 : buckets[at];
        s.cost += segment_cost(q, at);
        *(w->forward ? &s.last : &s.first) = at;
    }
    return s;
}

static size_t parts_for(const struct query_engine *q, uint64_t cost)
{
    size_t most = q->options.parts ? q->options.parts : usable_cpus();
    size_t pay = q->options.parts ? SIZE_MAX : cost / LEAST_PART;
    most = most < MOST_PARTS ? most : MOST_PARTS;
    return pay < most ? pay : most;
}

/* Shares the segments out. Returns the number of parts. */
static size_t share_out(struct call_search *c, const struct spread *s, const uint64_t *buckets,
                        const struct window *w, struct part *parts)
{
    size_t segments, count = parts_for(c->q, s->cost);
    const struct history_segment *segment = history_segments(c->q->history, &segments);
    uint64_t share = s->cost / (count + !count) + 1, done = 0;
    size_t n = 0;
    for (size_t at = s->first; count > 1 && at <= s->last; at++) {
        if (!buckets[at])
            continue;
        if (n <= done / share) { // so the first one, too
            if (n)
                parts[n - 1].until = segment[at].start;
            parts[n++] = (struct part){.c = c, .from = segment[at].start};
        }
        parts[n - 1].limit += buckets[at];
        done += segment_cost(c->q, at);
    }
    if (n) {
        parts[n - 1].until = w->forward ? segment[s->last].end : w->from;
        parts[0].from = w->forward ? w->from : parts[0].from;
    }
    return n;
}

/* Looks in parts, if that pays. */
static struct err *find_in_parts(struct call_search *c, const struct window *w, bool *done_out)
{
    enum { MOST_SURPLUS = 1000 }; // calls that are found and not wanted
    size_t segments;
    struct part parts[MOST_PARTS];
    history_segments(c->q->history, &segments);
    cleanup(freep) uint64_t *buckets = xnew_array(uint64_t, segments);
    *done_out = false;
    if (!count_hits(c->q, (const void *)c->entries.data, c->entries.len / sizeof(struct hit_place),
                    buckets))
        return NULL;
    const struct spread s = spread_of(c->q, buckets, w);
    size_t count = s.calls > w->limit + MOST_SURPLUS ? 0 : share_out(c, &s, buckets, w, parts);
    if (count < 2)
        return NULL;
    *done_out = true;
    struct err *e = follow_parts(c, parts, count);
    c->more |= s.more;
    for (size_t i = 0; i < count; i++)
        part_deinit(&parts[i]);
    return e;
}

/* --- the interface --- */

/* Finds the calls, then where they return. */
static struct err *find_then_follow(struct call_search *c, const struct window *w)
{
    struct part p = {.c = c, .limit = w->limit, .from = MOMENT_END, .all_found = true};
    const struct hit_wants wants = wants_of(c);
    struct err *e =
        find_hits(c->q, (const void *)c->entries.data, c->entries.len / sizeof(struct hit_place), w,
                  &wants, collect_call, &p, &c->more);
    vec_each (call, &p.items) {
        if (call->open && moment_cmp(call->hit.moment, p.from) < 0)
            p.from = call->hit.moment;
    }
    if (!e && p.open)
        return follow_alone(c, &p);
    vec_each (f, &p.items)
        vec_push(&c->items, *f);
    p.items.count = 0;
    part_deinit(&p);
    return e;
}

struct err *call_search_run(struct call_search *c, struct module *m, const struct sym_function *f,
                            const struct window *w)
{
    bool done = false;
    c->link_start = f->start;
    c->probes.at_entry = true;
    TRY(places_of(c->q, m, &f->start, 1, &c->entries));
    struct hit_place *places = (void *)c->entries.data;
    size_t count = c->entries.len / sizeof(*places);
    TRY(probes_compile(c->q, &c->probes, places, count));
    pieces_for_call(m, f, &c->at_call);
    c->pieces = c->at_call;
    for (size_t i = 0; i < c->at_return.count; i++)
        add_piece(&c->pieces, c->at_return.items[i].base, c->at_return.items[i].len);
    if (c->probes.condition || !count)
        return find_then_follow(c, w);
    for (size_t i = 0; i < count; i++)
        places[i].entry = true;
    TRY(find_in_parts(c, w, &done));
    if (done)
        return NULL;
    if (w->forward)
        return follow_alone(
            c, &(struct part){.c = c, .from = w->from, .until = MOMENT_END, .limit = w->limit});
    return find_then_follow(c, w);
}

void call_search_deinit(struct call_search *c)
{
    found_list_deinit(&c->items);
    probes_deinit(&c->probes);
    buf_deinit(&c->entries);
}
