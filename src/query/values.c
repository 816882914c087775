/* Queries for values in a frame of the stack: its variables, and expressions. */
#include "query/caller.h"
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
    c->base.tls_offset =
        out->place.module ? thread_locals_of(c, out->place.module, out->place.bias) : 0;
    return NULL;
}

/* {name, value, expression?, unfolds?}. expression: what names the value; NULL: nothing does. Takes
 * over why. */
static json_t *value_row(struct sym_module *sym, const char *name, const struct sym_type *type,
                         struct sym_value *v, struct sym_context *c, struct err *why,
                         const char *expression)
{
    bool parts = !why && sym_value_has_children(sym, v, c);
    json_t *row = json_pack("{so, so}", "name", json_text(name, strlen(name)), "value",
                            json_value(sym, type, v, c, why));
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
        json_t *row =
            value_row(sym, name, var->type, &v, &f.c.base, why, is_visible(&vars, i) ? name : NULL);
        json_object_set_new(row, "kind", json_string(var->is_parameter ? "parameter" : "local"));
        e = give(q, row);
        sym_value_deinit(&v);
    }
    sym_variables_deinit(&vars);
    return e;
}

/* --- expressions --- */

/* Does the expression of a part name it by its address, which is that of another thing without the
 * call? */
static bool needs_call(const struct caller *caller, const struct sym_child *part)
{
    return caller->diversion && part->access && !strchr(part->access, '$');
}

static struct err *give_parts(struct query_engine *q, struct sym_module *sym, const char *text,
                              const struct sym_value *v, struct caller *caller, uint64_t first,
                              size_t max)
{
    struct sym_children parts = {0};
    TRY(sym_value_children(sym, v, &caller->base, first, max + 1, &parts));
    struct err *e = NULL;
    q->sink->more = parts.count > max;
    for (size_t i = 0; i < parts.count && i < max && !e; i++) {
        struct sym_child *p = &parts.items[i];
        cleanup(freep) char *expression =
            needs_call(caller, p) ? NULL : sym_child_expression(p, text);
        static const struct sym_type unknown = {.kind = SYM_UNKNOWN_TYPE, .name = ""};
        const struct sym_type *type = p->value.type ? p->value.type : &unknown;
        json_t *row =
            value_row(sym, p->name, type, &p->value, &caller->base, steal(p->reason), expression);
        caller_forget_addresses(caller, &p->value, json_object_get(row, "value"));
        e = give(q, row);
    }
    sym_children_deinit(&parts);
    return e;
}

/* Why there is no value is told in the row. */
static bool is_reason(const struct err *e)
{
    enum err_kind kind = err_kind(e);
    return kind == ERR_FAULT || kind == ERR_NOT_FOUND || kind == ERR_UNSUPPORTED ||
           kind == ERR_LIMIT;
}

struct wanted_parts {
    bool parts; /* instead of the whole */
    uint64_t first, max;
};

static struct err *give_value(struct query_engine *q, struct sym_module *sym,
                              const struct sym_expression *e, const char *text,
                              struct caller *caller, const struct wanted_parts *wanted)
{
    struct sym_value v = {0};
    struct err *why = caller_evaluate(caller, sym, e, &v), *failed = NULL;
    if (why && !is_reason(why)) {
        failed = why;
    } else if (wanted->parts) {
        failed = why ? why : give_parts(q, sym, text, &v, caller, wanted->first, wanted->max);
    } else {
        bool known = !why;
        json_t *row = value_row(sym, text, e->type, &v, &caller->base, why, text);
        if (known)
            caller_forget_addresses(caller, &v, json_object_get(row, "value"));
        failed = give(q, row);
    }
    sym_value_deinit(&v);
    return failed;
}

struct err *query_evaluate(struct query_engine *q, json_t *params)
{
    enum { MOST_PARTS = 1000 };
    struct frame_at_focus f;
    struct wanted_parts wanted = {.parts = json_is_true(json_object_get(params, "children")),
                                  .max = 100};
    const char *text;
    TRY(param_string(params, "expression", &text));
    if (json_object_get(params, "first"))
        TRY(param_u64(params, "first", &wanted.first));
    if (json_object_get(params, "max"))
        TRY(param_u64(params, "max", &wanted.max));
    if (wanted.max < 1 || wanted.max > MOST_PARTS)
        return err_new(ERR_USAGE, "max is 1 to %d", MOST_PARTS);
    TRY(take_frame(q, params, &f));
    struct module *m;
    struct sym_module *sym;
    struct caller caller;
    struct sym_expression_request request = {.text = text,
                                             .addr = f.place.link_addr,
                                             .bias = f.place.bias,
                                             .now = &f.c.base,
                                             .caller = &caller.caller};
    TRY(module_for_expressions(q, f.place.module, &m, &request));
    TRY(module_sym(q, m, &sym));
    f.c.base.bias = request.bias;
    f.c.base.tls_offset = request.tls_offset = thread_locals_of(&f.c, m, request.bias);
    caller_init(&caller, &f.c);
    struct sym_expression e;
    struct err *failed = sym_expression_compile(sym, &request, &e);
    if (!failed) {
        failed = give_value(q, sym, &e, text, &caller, &wanted);
        sym_expression_deinit(&e);
    }
    caller_deinit(&caller);
    return failed;
}
