/* Conditions and print expressions of executions: compiled for each place, and what they gave in
 * the user's terms. */
#include "query/probes.h"

#include "query/caller.h"

/* What was compiled for one place of the code: where the same module has the same bias, in all
 * spaces. */
struct compiled {
    struct hook_programs programs;
    const struct hit_place *place; /* one of those for which it was compiled */
    struct module *module;
    struct program *print_programs; /* programs.prints; borrowed from `prints` */
    struct sym_expression condition, *prints;
    struct err *why_no_condition, **why_no_print;
    bool *calls; /* of prints: it calls functions of the program, and is computed when a row is told
                  */
};

struct err *probes_take(json_t *params, struct probes *out)
{
    *out = (struct probes){0};
    json_t *condition = json_object_get(params, "condition"),
           *print = json_object_get(params, "print"), *text;
    if (condition && !json_is_string(condition))
        return err_new(ERR_USAGE, "condition is a string");
    if (print && !json_is_array(print))
        return err_new(ERR_USAGE, "print is a list of expressions");
    if (json_array_size(print) > PROBES_MOST_PRINTS)
        return err_new(ERR_LIMIT, "%zu expressions to print; at most %d", json_array_size(print),
                       PROBES_MOST_PRINTS);
    size_t i;
    json_array_foreach(print, i, text)
    {
        if (!json_is_string(text))
            return err_new(ERR_USAGE, "print is a list of expressions");
        out->print[out->print_count++] = json_string_value(text);
    }
    // One of nothing but blanks is an empty field of a form.
    const char *wanted = json_string_value(condition);
    out->condition = wanted && wanted[strspn(wanted, " \t\n")] ? wanted : NULL;
    return NULL;
}

static void free_compiled(struct compiled *c, size_t print_count)
{
    for (size_t i = 0; i < print_count; i++) {
        sym_expression_deinit(&c->prints[i]);
        err_free(c->why_no_print[i]);
    }
    sym_expression_deinit(&c->condition);
    err_free(c->why_no_condition);
    free(c->prints);
    free(c->print_programs);
    free(c->why_no_print);
    free(c->calls);
    free(c);
}

void probes_deinit(struct probes *p)
{
    vec_each (c, &p->compiled)
        free_compiled(*c, p->print_count);
    vec_deinit(&p->compiled);
}

/* --- compiling --- */

/* The frame of source that is meant at an address: the innermost, at a function's entry the
 * function's own. */
static size_t frame_meant(struct sym_module *m, vaddr addr, bool at_entry)
{
    struct sym_frames chain = {0};
    struct err *e = at_entry ? sym_inline_chain(m, addr, &chain) : NULL;
    size_t idx = !e && chain.count ? chain.count - 1 : 0;
    err_free(e);
    sym_frames_deinit(&chain);
    return idx;
}

struct err *module_for_expressions(struct query_engine *q, struct module *m, struct module **out,
                                   struct sym_expression_request *r)
{
    if (!m && q->modules.count) {
        m = q->modules.items[0];
        r->bias = m->biases.count ? m->biases.items[0] : 0;
        r->addr = UINT64_MAX; // in no function
    }
    if (!m)
        return err_new(ERR_NOT_FOUND, "the recording has no program with code");
    *out = m;
    return NULL;
}

static struct err *compile(struct query_engine *q, struct module *m,
                           const struct sym_expression_request *r, const char *what,
                           struct sym_expression *out)
{
    struct sym_module *sym;
    TRY(module_sym(q, m, &sym));
    struct err *e = sym_expression_compile(sym, r, out);
    return e ? err_prefix(e, "%s \"%.100s\"", what, r->text) : NULL;
}

/* In place of a condition that does not compile: 0 / 0. It always fails. */
static const struct program_op divide[] = {
    {.code = PROGRAM_PUSH}, {.code = PROGRAM_PUSH}, {.code = PROGRAM_DIV_U}, {.code = PROGRAM_END}};
static const struct program never_told = {.ops = divide,
                                          .count = sizeof(divide) / sizeof(divide[0])};

/* What an expression is asked for at a place, but its text. */
static struct err *request_at(struct query_engine *q, const struct probes *p,
                              const struct hit_place *place, struct module **m,
                              struct sym_expression_request *r)
{
    struct sym_module *sym;
    *r = (struct sym_expression_request){.addr = place->pc - place->bias, .bias = place->bias};
    TRY(module_for_expressions(q, place->module, m, r));
    TRY(module_sym(q, *m, &sym));
    r->inlined = place->module ? frame_meant(sym, r->addr, p->at_entry) : 0;
    r->at_entry = p->at_entry && place->module;
    for (size_t i = 0; p->calls && i < p->calls->count && !r->call; i++)
        r->call = p->calls->items[i].entry == r->addr ? &p->calls->items[i] : NULL;
    r->tls_offset = module_tls_offset(q, *m);
    return NULL;
}

static bool find_anything(struct sym_caller *c, const char *linkage_name, gaddr *out)
{
    *out = 0;
    return true;
}

/* *calls: it has a meaning, but calls functions, so that there is no program that can run within
 * the worker. */
static struct err *compile_print(struct query_engine *q, struct module *m,
                                 struct sym_expression_request *r, struct sym_expression *out,
                                 bool *calls)
{
    struct sym_caller nobody = {.find = find_anything};
    bool needs_caller = false;
    r->needs_caller = &needs_caller;
    struct err *e = compile(q, m, r, "print", out);
    r->needs_caller = NULL;
    if (!e || !needs_caller)
        return e;
    err_free(e);
    r->caller = &nobody;
    e = compile(q, m, r, "print", out);
    r->caller = NULL;
    *calls = !e;
    if (!e)
        sym_expression_deinit(out);
    return e;
}

static struct err *compile_at(struct query_engine *q, struct probes *p,
                              const struct hit_place *place, struct compiled **out)
{
    struct module *m = NULL;
    struct sym_expression_request r;
    TRY(request_at(q, p, place, &m, &r));
    struct compiled *c = xnew(struct compiled);
    *c = (struct compiled){.place = place, .module = m};
    c->prints = xnew_array(struct sym_expression, p->print_count + 1);
    c->print_programs = xnew_array(struct program, p->print_count + 1);
    c->why_no_print = xnew_array(struct err *, p->print_count + 1);
    c->calls = xnew_array(bool, p->print_count + 1);
    vec_push(&p->compiled, c);
    if (p->condition) {
        r.text = p->condition;
        r.condition = true;
        c->why_no_condition = compile(q, m, &r, "condition", &c->condition);
        c->programs.condition = c->why_no_condition ? never_told : c->condition.program;
    }
    r.condition = false;
    for (size_t i = 0; i < p->print_count; i++) {
        r.text = p->print[i];
        c->why_no_print[i] = compile_print(q, m, &r, &c->prints[i], &c->calls[i]);
        if (c->why_no_print[i] || c->calls[i])
            continue;
        c->print_programs[i] = c->prints[i].program;
        uint32_t len = ((uint32_t)c->print_programs[i].out_len + 7) & ~7u;
        p->print_lens[i] = len > p->print_lens[i] ? len : p->print_lens[i];
    }
    c->programs.prints = c->print_programs;
    *out = c;
    return NULL;
}

static struct compiled *find_compiled(const struct probes *p, const struct hit_place *place)
{
    vec_each (c, &p->compiled) {
        const struct hit_place *have = (*c)->place;
        if (have->pc == place->pc && have->module == place->module && have->bias == place->bias)
            return *c;
    }
    return NULL;
}

/* An expression that means nothing anywhere is the asker's mistake. One that means something only
 * here and there is not. */
static struct err *check_some(struct probes *p)
{
    for (size_t i = 0; i < p->print_count + 1; i++) {
        struct err **first = NULL;
        bool some = false;
        vec_each (c, &p->compiled) {
            struct err **why = i ? &(*c)->why_no_print[i - 1] : &(*c)->why_no_condition;
            first = first ? first : why;
            some |= !*why;
        }
        if (first && !some)
            return steal(*first);
    }
    return NULL;
}

struct err *probes_compile(struct query_engine *q, struct probes *p, struct hit_place *places,
                           size_t count)
{
    if (!p->condition && !p->print_count)
        return NULL;
    p->places = places;
    p->place_count = count;
    for (size_t i = 0; i < count; i++) {
        struct compiled *c = find_compiled(p, &places[i]);
        if (!c)
            TRY(compile_at(q, p, &places[i], &c));
        places[i].programs = &c->programs;
    }
    return check_some(p);
}

/* --- what they gave --- */

json_t *json_expression_value(struct sym_module *m, const struct sym_expression *e,
                              enum program_end end, uint64_t result, const uint8_t *output,
                              struct sym_context *ctx)
{
    struct sym_value v = {0};
    struct err *why = sym_expression_value(m, e, end, result, output, &v);
    struct sym_expression_context text;
    sym_expression_context_init(&text, e, end, output, ctx);
    json_t *o = json_value(m, e->type, &v, &text.base, why);
    sym_value_deinit(&v);
    return o;
}

/* The value of an expression that calls functions, at a hit. */
static json_t *value_with_calls(struct query_engine *q, const struct probes *p,
                                const struct compiled *c, const struct hit *h, const char *text)
{
    struct replay *r;
    struct frame_context frame;
    struct module *m;
    struct sym_expression_request request;
    struct sym_expression e = {0};
    struct caller caller = {0};
    struct sym_value v = {0};
    struct err *why = request_at(q, p, c->place, &m, &request);
    if (!why)
        why = recall_failed(q, state_at(q, h->moment, &r));
    if (!why)
        why = recall_failed(q, frame_context(q, r, h->task, &frame));
    if (!why) {
        frame.base.bias = request.bias;
        frame.base.tls_offset = request.tls_offset;
        caller_init(&caller, &frame);
        request.text = text;
        request.now = &frame.base;
        request.caller = &caller.caller;
        why = sym_expression_compile(m->sym, &request, &e);
    }
    if (!why)
        why = recall_failed(q, caller_evaluate(&caller, m->sym, &e, &v));
    static const struct sym_type unknown = {.kind = SYM_UNKNOWN_TYPE, .name = ""};
    bool known = !why;
    json_t *value = json_value(c->module->sym, e.type ? e.type : &unknown, &v, &caller.base, why);
    if (known)
        caller_forget_addresses(&caller, &v, value);
    sym_value_deinit(&v);
    sym_expression_deinit(&e);
    caller_deinit(&caller);
    return value;
}

void probes_add(struct query_engine *q, const struct probes *p, const struct hit *h,
                const uint8_t *prints, struct sym_context *ctx, json_t *row)
{
    const struct compiled *c = NULL;
    for (size_t i = 0; i < p->place_count && !c; i++) {
        if (is_hit_of(&p->places[i], h))
            c = find_compiled(p, &p->places[i]);
    }
    if (!c)
        return;
    struct err *why = NULL;
    if (h->condition != PROGRAM_OK)
        why = sym_expression_failure((enum program_end)h->condition, h->condition_result);
    const char *message = c->why_no_condition ? err_message(c->why_no_condition)
                          : why               ? err_message(why)
                                              : NULL;
    if (message)
        json_object_set_new(row, "conditionError", json_text(message, strlen(message)));
    err_free(why);
    json_t *list = json_array();
    for (size_t i = 0; i < p->print_count; i++) {
        const struct hook_print *print = (const void *)prints;
        const uint8_t *output = prints + sizeof(*print);
        json_t *value;
        if (c->why_no_print[i]) {
            const char *text = err_message(c->why_no_print[i]);
            value = json_pack("{so, ss}", "why", json_text(text, strlen(text)), "type", "");
        } else if (c->calls[i]) {
            value = value_with_calls(q, p, c, h, p->print[i]);
        } else {
            value = json_expression_value(c->module->sym, &c->prints[i],
                                          (enum program_end)print->end, print->result, output, ctx);
        }
        json_array_append_new(list, json_pack("{so, so}", "name",
                                              json_text(p->print[i], strlen(p->print[i])), "value",
                                              value));
        prints += sizeof(*print) + p->print_lens[i];
    }
    if (p->print_count)
        json_object_set(row, "prints", list);
    json_decref(list);
}
