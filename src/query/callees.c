/* The calls that one frame makes itself.
 *
 * From a moment on, a stretch is run in steps, and rsp tells the rest: a call instruction at the
 * frame's own level makes a callee; it has ended when rsp is above its return address, on the same
 * stack. A callee that lasts beyond the stretch is not gone through: its end is looked for
 * (call_find_end()), and the next stretch begins there. Backward likewise: from inside of a callee
 * one goes on before its call, which the stack of calls knows. */
#include "query/calls_int.h"
#include "query/execution_int.h"

enum { SHORT_STRETCH = 2000, LONG_STRETCH = 1 << 17 };

enum callee_kind { BY_CALL, BY_SIGNAL, BY_JUMP /* a tail call: it takes the frame's place */ };
struct callee {
    struct made_call call;
    enum callee_kind kind;
    bool ended;
    struct call_end end;
};

struct callees {
    struct query_engine *q;
    struct made_call frame;
    call_list calls;          /* the stack at the moment that was looked at last */
    VEC(struct callee) found; /* in the order in which they are given */
    struct window w;
    bool over; /* the frame has ended, or began */
    struct insn_cache *cache;
};

static bool same_call(const struct made_call *a, const struct made_call *b)
{
    return a->sp == b->sp && (!a->sp || moment_cmp(a->call, b->call) == 0);
}

/* The frame's callee at a moment; NULL: the frame's own code runs. The frame has ended: over. */
static struct err *callee_at(struct callees *c, struct moment m, const struct made_call **out)
{
    *out = NULL;
    c->calls.count = 0;
    struct err *e = calls_at(c->q, m, c->frame.task, &c->calls);
    if (e && err_kind(e) == ERR_NOT_FOUND) { // the task has ended
        err_free(e);
        c->over = true;
        return NULL;
    }
    TRY(e);
    for (size_t i = 0; i < c->calls.count; i++) {
        if (!same_call(&c->calls.items[i], &c->frame))
            continue;
        *out = i ? &c->calls.items[i - 1] : NULL;
        return NULL;
    }
    c->over = true;
    return NULL;
}

/* --- a stretch --- */

/* Going through a stretch. */
struct going {
    struct callees *c;
    struct stretch stretch;
    struct addr_range region; /* the frame's stack */
    VEC(struct callee) found;
    struct callee inner;  /* that is at work; call.sp 0: none */
    size_t inner_idx;     /* in found; SIZE_MAX: made before the stretch */
    size_t event;         /* the next one */
    struct x86_insn last; /* of the step before */
    struct regs last_regs;
    bool have_last;
};

static bool on_stack(const struct going *g, gaddr sp)
{
    return sp >= g->region.start && sp < g->region.end;
}

static void make_inner(struct going *g, struct callee made)
{
    g->inner = made;
    g->inner_idx = g->found.count;
    vec_push(&g->found, made);
}

static void end_inner(struct going *g, struct moment at, enum call_left left)
{
    if (g->inner_idx != SIZE_MAX) {
        struct callee *f = &g->found.items[g->inner_idx];
        f->ended = true;
        f->end = (struct call_end){.left = left, .at = at};
    }
    g->inner.call.sp = 0;
}

/* Signals that were delivered up to the step: a handler is something like a callee. */
static void take_signals(struct going *g, const struct stretch_step *st)
{
    for (; g->event < g->stretch.events.count &&
           g->stretch.events.items[g->event].number <= st->at.event;
         g->event++) {
        const struct stretch_event *e = &g->stretch.events.items[g->event];
        if (e->kind != FRAME_SIGNAL_HANDLER || e->task != g->c->frame.task || !e->have_after ||
            g->inner.call.sp)
            continue;
        struct made_call call = {.task = e->task,
                                 .entry = {e->number, 0},
                                 .sp = e->after.r[UREG_RSP],
                                 .by_signal = true,
                                 .call = moment_before_event(g->c->q, e->number)};
        make_inner(g, (struct callee){.call = call, .kind = BY_SIGNAL});
    }
}

static bool inner_ended(const struct going *g, gaddr sp)
{
    const struct made_call *c = &g->inner.call;
    if (on_stack(g, sp))
        return sp > c->sp ||
               !on_stack(
                   g,
                   c->sp); // a handler on a stack of its own is over when this one is back in use
    return c->by_signal && !on_stack(g, c->sp) && sp > c->sp && sp - c->sp == 8;
}

/* The function that begins at pc, if it is another than the one of `from`. */
static bool is_other_function(const struct going *g, const struct stretch_step *st, gaddr from,
                              gaddr pc)
{
    struct query_engine *q = g->c->q;
    const struct sym_function *f[2] = {NULL, NULL};
    gaddr at[2] = {from, pc};
    uint64_t link[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        const struct stretch_mapping *m = stretch_mapping_at(&g->stretch, st->space, at[i], st->at);
        struct code_place p =
            m ? place_in(q, m->mmap_idx, m->start, m->offset, at[i]) : (struct code_place){0};
        struct sym_module *sym;
        struct err *e = p.module ? module_sym(q, p.module, &sym) : NULL;
        if (!e && p.module)
            e = sym_function_at(sym, p.link_addr, &f[i]);
        err_free(e);
        link[i] = p.link_addr;
    }
    return f[1] && f[1] != f[0] && link[1] == f[1]->start;
}

static void take_instruction(struct going *g, size_t i)
{
    const struct stretch_step *st = &g->stretch.steps.items[i];
    bool partial;
    const struct x86_insn *in = insn_cached(g->c->cache, st->row);
    g->have_last = in != NULL;
    if (!in)
        return;
    g->last = *in;
    g->last_regs = st->row->regs;
    const struct regs *before = &st->row->regs;
    if (g->inner.call.sp || !on_stack(g, before->r[UREG_RSP]) ||
        (in->class != X86_CALL && in->class != X86_JUMP) || stretch_repeated(&g->stretch, i))
        return;
    const struct step_row *after = stretch_after(&g->stretch, i, &partial);
    if (!after)
        return;
    struct made_call call = {.task = st->task,
                             .call = st->at,
                             .entry = {st->at.event, st->at.icount + 1},
                             .sp = after->regs.r[UREG_RSP],
                             .return_addr = in->pc + in->len};
    if (in->class == X86_CALL && call.sp == before->r[UREG_RSP] - 8)
        make_inner(g, (struct callee){.call = call, .kind = BY_CALL});
    if (in->class == X86_JUMP && after->regs.r[UREG_RIP] != call.return_addr &&
        is_other_function(g, st, in->pc, after->regs.r[UREG_RIP])) {
        call.sp = g->c->frame.sp;
        call.return_addr = g->c->frame.return_addr;
        vec_push(&g->found, ((struct callee){.call = call, .kind = BY_JUMP}));
    }
}

static void take_step(struct going *g, size_t i)
{
    const struct stretch_step *st = &g->stretch.steps.items[i];
    take_signals(g, st);
    gaddr sp = st->row->regs.r[UREG_RSP];
    if (g->inner.call.sp && inner_ended(g, sp)) {
        bool returned =
            g->inner.kind == BY_SIGNAL || (g->have_last && g->last.class == X86_RETURN &&
                                           g->last_regs.r[UREG_RSP] == g->inner.call.sp);
        end_inner(g, st->at, returned ? LEFT_RETURN : LEFT_UNWOUND);
    }
    if (g->c->frame.sp && on_stack(g, sp) && sp > g->c->frame.sp)
        g->c->over = true;
    else if (!st->row->end)
        take_instruction(g, i);
}

/* The callees of [from, until); `inner`: the one at work at `from`. */
static struct err *go_through(struct callees *c, struct moment from, struct moment until,
                              const struct made_call *inner, struct going *g)
{
    struct replay *r;
    uint32_t space;
    struct regs regs;
    *g = (struct going){.c = c, .inner_idx = SIZE_MAX};
    if (inner)
        g->inner = (struct callee){.call = *inner, .kind = inner->by_signal ? BY_SIGNAL : BY_CALL};
    TRY(stretch_run(c->q, from, until, c->frame.task, false, &g->stretch));
    TRY(state_at(c->q, from, &r));
    TRY(space_of_task(r, c->frame.task, &space));
    TRY(replay_regs(r, c->frame.task, &regs));
    g->region = stack_region(r, space, c->frame.sp ? c->frame.sp : regs.r[UREG_RSP]);
    TRY(state_at(c->q, until, &r));
    size_t count;
    if (replay_mappings(r, space, &count)) { // it may have grown
        struct addr_range later = stack_region(r, space, g->region.end - 1);
        g->region.start = later.start < g->region.start && later.end == g->region.end
                              ? later.start
                              : g->region.start;
    }
    for (size_t i = 0; i < g->stretch.steps.count && !c->over; i++)
        take_step(g, i);
    return NULL;
}

static void going_deinit(struct going *g)
{
    stretch_deinit(&g->stretch);
    vec_deinit(&g->found);
}

/* --- the window --- */

static bool wanted(const struct callees *c, const struct callee *f)
{
    return window_holds(&c->w, f->call.entry);
}

static void keep(struct callees *c, const struct callee *f)
{
    if (wanted(c, f) && c->found.count <= c->w.limit)
        vec_push(&c->found, *f);
}

static struct moment later(struct moment a, struct moment b)
{
    return moment_cmp(a, b) > 0 ? a : b;
}

/* When the task runs next, from m on; false: never. */
static struct err *when_it_runs(struct callees *c, struct moment *m, bool *out)
{
    *out = true;
    if (task_running_at(c->q, *m) == c->frame.task)
        return NULL;
    struct err *e = next_instruction(c->q, *m, c->frame.task, true, m);
    *out = !e;
    if (e && err_kind(e) != ERR_NOT_FOUND)
        return e;
    err_free(e);
    return NULL;
}

static struct err *search_forth(struct callees *c)
{
    struct moment m = later(c->w.from, c->frame.entry), end = end_of_recording(c->q);
    for (uint64_t window = SHORT_STRETCH; !c->over && c->found.count <= c->w.limit;) {
        const struct made_call *inner;
        bool runs;
        TRY(check_cancel(c->q));
        TRY(when_it_runs(c, &m, &runs));
        if (!runs || moment_cmp(m, end) >= 0)
            return NULL;
        TRY(callee_at(c, m, &inner));
        if (c->over)
            return NULL;
        if (inner) {
            struct callee f = {
                .call = *inner, .kind = inner->by_signal ? BY_SIGNAL : BY_CALL, .ended = true};
            TRY(call_find_end(c->q, &f.call, m, &f.end));
            if (!c->found.count || !same_call(&c->found.items[c->found.count - 1].call, &f.call))
                keep(c, &f);
            else
                c->found.items[c->found.count - 1] = f;
            if (f.end.left == LEFT_NOT)
                return NULL;
            m = f.end.at;
            continue;
        }
        struct moment until = moment_forth(c->q, m, window);
        struct going g;
        struct err *e = go_through(c, m, until, NULL, &g);
        vec_each (f, &g.found) {
            if (!e)
                keep(c, f);
        }
        going_deinit(&g);
        TRY(e);
        m = until;
        window = window * 4 < LONG_STRETCH ? window * 4 : LONG_STRETCH;
    }
    return NULL;
}

static struct err *search_back(struct callees *c)
{
    struct moment m = c->w.from;
    for (uint64_t window = SHORT_STRETCH; c->found.count <= c->w.limit;) {
        const struct made_call *inner;
        TRY(check_cancel(c->q));
        if (task_running_at(c->q, m) != c->frame.task ||
            !m.icount) { // to right behind its last instruction
            struct err *e = next_instruction(c->q, m, c->frame.task, false, &m);
            if (e && err_kind(e) == ERR_NOT_FOUND) {
                err_free(e);
                return NULL;
            }
            TRY(e);
            m.icount++;
        }
        if (moment_cmp(m, c->frame.entry) <= 0)
            return NULL;
        TRY(callee_at(c, m, &inner));
        if (c->over)
            return NULL;
        if (inner) {
            keep(c,
                 &(struct callee){.call = *inner, .kind = inner->by_signal ? BY_SIGNAL : BY_CALL});
            m = inner->call;
            continue;
        }
        struct moment from = later(moment_back(c->q, m, window), c->frame.entry);
        TRY(callee_at(c, from, &inner));
        if (c->over)
            return NULL;
        struct made_call before = inner ? *inner : (struct made_call){0};
        struct going g;
        struct err *e = go_through(c, from, m, inner ? &before : NULL, &g);
        for (size_t i = g.found.count; i-- > 0 && !e;)
            keep(c, &g.found.items[i]);
        going_deinit(&g);
        TRY(e);
        m = from;
        window = window * 4 < LONG_STRETCH ? window * 4 : LONG_STRETCH;
    }
    return NULL;
}

/* --- the query --- */

static struct err *give_callee(struct callees *c, struct callee *f)
{
    static const char *const kinds[] = {
        [BY_CALL] = "call", [BY_SIGNAL] = "signal", [BY_JUMP] = "tail"};
    struct query_engine *q = c->q;
    struct replay *r;
    uint32_t space;
    struct regs regs;
    // A tail call ends as the frame does.
    const struct made_call *ending = f->kind == BY_JUMP ? &c->frame : &f->call;
    if (!f->ended)
        TRY(call_find_end(q, ending, f->call.entry, &f->end));
    json_t *row = json_pack("{ss, so}", "kind", kinds[f->kind], "callFocus",
                            json_focus(q, f->call.call, f->call.task, 0));
    struct err *e = call_describe(q, &f->call, &f->end, row);
    if (!e)
        e = state_at(q, f->call.call, &r);
    if (!e)
        e = space_of_task(r, f->call.task, &space);
    if (!e)
        e = replay_regs(r, f->call.task, &regs);
    if (e) {
        json_decref(row);
        return e;
    }
    json_t *site = json_object();
    describe_code(q, r, space, regs.r[UREG_RIP], false, site);
    if (json_object_get(site, "location"))
        json_object_set(row, "location", json_object_get(site, "location"));
    json_decref(site);
    return give(q, row);
}

struct err *query_callees(struct query_engine *q, json_t *params)
{
    struct focus focus;
    struct callees c = {.q = q};
    TRY(param_focus(q, params, &focus));
    TRY(param_window(q, params, 50, &c.w));
    struct err *e = calls_at(q, focus.moment, focus.task, &c.calls);
    if (!e && focus.frame >= c.calls.count)
        e = err_new(ERR_NOT_FOUND, "the stack has only %zu frames", c.calls.count);
    if (!e)
        c.frame = c.calls.items[focus.frame];
    c.cache = insn_cache_create();
    if (!e)
        e = c.w.forward ? search_forth(&c) : search_back(&c);
    q->sink->more = !e && c.found.count > c.w.limit;
    for (size_t i = 0; !e && i < c.found.count && i < c.w.limit; i++)
        e = give_callee(&c, &c.found.items[i]);
    free(c.cache);
    vec_deinit(&c.calls);
    vec_deinit(&c.found);
    return e;
}
