/* Queries for values in a frame of the stack: its variables, and expressions. */
#include "query/probes.h"

struct frame_at_focus {
    struct focus focus;
    struct frame_context c;
    struct code_place place; /* of the frame's instruction, or of the call it has made */
};

static struct err *take_frame(struct query_engine *q, json_t *params, struct frame_at_focus *out)
{
    struct replay *r;
    uint32_t space;
    struct focus f;
    struct frame_context *c = &out->c;
    gaddr pc;
    TRY(focus_state(q, params, &f, &r, &space));
    if (f.frame) {
        frame_list frames = {0};
        struct err *e = stack_at(q, f.moment, f.task, &frames);
        struct frame_info wanted = {0};
        if (!e && f.frame >= frames.count)
            e = err_new(ERR_NOT_FOUND, "the stack has only %zu frames", frames.count);
        if (!e)
            wanted = frames.items[f.frame];
        vec_deinit(&frames);
        TRY(e);
        // A caller's registers are those it had when it made the call; its memory is today's.
        TRY(state_at(q, wanted.callee_call, &r));
        TRY(frame_context(q, r, f.task, c));
        struct regs regs = c->regs;
        TRY(state_at(q, f.moment, &r));
        TRY(frame_context(q, r, f.task, c));
        c->regs = regs;
        c->no_xstate = true;
        c->regs.r[UREG_RSP] = wanted.sp;
        c->regs.r[UREG_RIP] = wanted.pc;
        pc = wanted.pc - frame_returns(&wanted);
    } else {
        TRY(frame_context(q, r, f.task, c));
        pc = c->regs.r[UREG_RIP];
    }
    out->focus = f;
    out->place = place_of(q, r, space, pc);
    c->base.bias = out->place.bias;
    c->base.tls_offset = out->place.module ? thread_locals_of(c, out->place.module, out->place.bias) : 0;
    return NULL;
}

/* {name, value, expression?, unfolds?}. expression: what names the value; NULL: nothing does. Takes over why. */
static json_t *value_row(struct sym_module *sym, const char *name, const struct sym_type *type, struct sym_value *v, struct sym_context *c,
                         struct err *why, const char *expression)
{
    bool parts = !why && sym_value_has_children(sym, v, c);
    json_t *row = json_pack("{so, so}", "name", json_text(name, strlen(name)), "value", json_value(sym, type, v, c, why));
    if (expression)
        json_object_set_new(row, "expression", json_text(expression, strlen(expression)));
    if (expression && parts)
        json_object_set_new(row, "unfolds", json_true());
    return row;
}

/* --- variables --- */

/* Is there no other variable of that name in a block further in? */
static bool is_visible(const struct sym_variables *vars, size_t idx)
{
    const char *name = vars->items[idx].name;
    for (size_t i = idx + 1; name && i < vars->count; i++) {
        if (vars->items[i].name && str_eq(vars->items[i].name, name))
            return false;
    }
    return name != NULL;
}

struct err *query_variables(struct query_engine *q, json_t *params)
{
    struct frame_at_focus f;
    struct sym_module *sym;
    TRY(take_frame(q, params, &f));
    if (!f.place.module)
        return err_new(ERR_NOT_FOUND, "no debug information: this code is not from a file");
    TRY(module_sym(q, f.place.module, &sym));
    const char *none = sym_module_no_dwarf(sym);
    if (none)
        return err_new(ERR_NOT_FOUND, "%s", none);
    struct sym_variables vars = {0};
    TRY(sym_variables_at(sym, f.place.link_addr, 0, &vars));
    struct err *e = NULL;
    for (size_t i = 0; i < vars.count && !e; i++) {
        const struct sym_variable *var = &vars.items[i];
        struct sym_value v = {0};
        struct err *why = sym_read_variable(sym, var, f.place.link_addr, &f.c.base, &v);
        const char *name = var->name ? var->name : "";
        json_t *row = value_row(sym, name, var->type, &v, &f.c.base, why, is_visible(&vars, i) ? name : NULL);
        json_object_set_new(row, "kind", json_string(var->is_parameter ? "parameter" : "local"));
        e = give(q, row);
        sym_value_deinit(&v);
    }
    sym_variables_deinit(&vars);
    return e;
}

/* --- expressions --- */

/* A program's view of a frame. */
struct looking {
    struct frame_context *c;
    struct err *failed; /* other than for memory that is not there */
};

static bool look_at_memory(void *ctx, uint64_t addr, void *out, size_t len)
{
    struct looking *l = ctx;
    struct err *e = l->c->base.read_memory(&l->c->base, addr, out, len);
    bool ok = !e;
    if (e && err_kind(e) != ERR_FAULT && !l->failed)
        l->failed = steal(e);
    err_free(e);
    return ok;
}

static bool look_at_vector(void *ctx, unsigned number, unsigned off, void *out, size_t len)
{
    struct looking *l = ctx;
    uint8_t low[16];
    struct err *e = number < 16 && off + len <= sizeof(low) ? l->c->base.read_register(&l->c->base, SYM_XMM0 + number, low, sizeof(low))
                                                            : err_new(ERR_NOT_FOUND, "not known");
    bool ok = !e;
    if (ok)
        memcpy(out, low + off, len);
    if (e && err_kind(e) != ERR_NOT_FOUND && !l->failed)
        l->failed = steal(e);
    err_free(e);
    return ok;
}

/* Runs the expression in the frame. */
static struct err *value_now(struct sym_module *sym, const struct sym_expression *e, struct frame_context *c, struct sym_value *out)
{
    struct looking l = {.c = c};
    const struct program_host host = {.regs = &c->regs, .read_memory = look_at_memory, .read_vector = look_at_vector, .ctx = &l};
    cleanup(freep) uint8_t *output = xcalloc(1, e->program.out_len + 1);
    uint64_t result = 0;
    enum program_end end = program_run(&e->program, &host, output, &result);
    return l.failed ? l.failed : sym_expression_value(sym, e, end, result, output, out);
}

static struct err *give_parts(struct query_engine *q, struct sym_module *sym, const char *text, const struct sym_value *v, struct frame_context *c,
                              uint64_t first, size_t max)
{
    struct sym_children parts = {0};
    TRY(sym_value_children(sym, v, &c->base, first, max + 1, &parts));
    struct err *e = NULL;
    q->sink->more = parts.count > max;
    for (size_t i = 0; i < parts.count && i < max && !e; i++) {
        struct sym_child *p = &parts.items[i];
        cleanup(freep) char *expression = sym_child_expression(p, text);
        static const struct sym_type unknown = {.kind = SYM_UNKNOWN_TYPE, .name = ""};
        const struct sym_type *type = p->value.type ? p->value.type : &unknown;
        e = give(q, value_row(sym, p->name, type, &p->value, &c->base, steal(p->reason), expression));
    }
    sym_children_deinit(&parts);
    return e;
}

struct err *query_evaluate(struct query_engine *q, json_t *params)
{
    enum { MOST_PARTS = 1000 };
    struct frame_at_focus f;
    const char *text;
    uint64_t first = 0, max = 100;
    TRY(param_string(params, "expression", &text));
    if (json_object_get(params, "first"))
        TRY(param_u64(params, "first", &first));
    if (json_object_get(params, "max"))
        TRY(param_u64(params, "max", &max));
    if (max < 1 || max > MOST_PARTS)
        return err_new(ERR_USAGE, "max is 1 to %d", MOST_PARTS);
    TRY(take_frame(q, params, &f));
    struct module *m;
    struct sym_module *sym;
    struct sym_expression_request request = {.text = text, .addr = f.place.link_addr, .bias = f.place.bias, .now = &f.c.base};
    TRY(module_for_expressions(q, f.place.module, &m, &request));
    TRY(module_sym(q, m, &sym));
    f.c.base.bias = request.bias;
    f.c.base.tls_offset = request.tls_offset = thread_locals_of(&f.c, m, request.bias);
    struct sym_expression e;
    TRY(sym_expression_compile(sym, &request, &e));
    struct sym_value v = {0};
    struct err *why = value_now(sym, &e, &f.c, &v), *failed = NULL;
    bool told = !why || err_kind(why) == ERR_FAULT || err_kind(why) == ERR_NOT_FOUND || err_kind(why) == ERR_UNSUPPORTED;
    if (!told)
        failed = steal(why);
    else if (json_is_true(json_object_get(params, "children")))
        failed = why ? steal(why) : give_parts(q, sym, text, &v, &f.c, first, max);
    else
        failed = give(q, value_row(sym, text, e.type, &v, &f.c.base, steal(why), text));
    sym_value_deinit(&v);
    sym_expression_deinit(&e);
    return failed;
}
