/* Compiling expressions, and what their runs gave. */
#include "sym/expression_int.h"

static void compilation_deinit(struct compilation *c)
{
    sym_variables_deinit(&c->variables);
    vec_deinit(&c->calls);
    free(c->no_variables);
    sym_pool_deinit(&c->pool);
}

static struct err *compile(struct compilation *c, struct sym_expression *out)
{
    struct node *root;
    struct err *e = sym_variables_at(c->m, c->request->addr, c->request->inlined, &c->variables);
    if (e) { // registers and constants still work
        c->no_variables = xstrdup(err_message(e));
        err_free(e);
    }
    struct sym_variables of_call = {0};
    if (c->request->call)
        err_free(sym_inlined_parameters(c->m, c->request->call, &of_call));
    vec_each (v, &of_call)
        vec_push(&c->variables, *v); // inner blocks' come last
    sym_variables_deinit(&of_call);
    err_free(sym_function_at(c->m, c->request->addr, &c->function));
    TRY(parse_expression(c, &root));
    TRY(resolve_child(c, &root, 0));
    TRY(emit_expression(c, root, out));
    const char *wrong = program_check(&out->program);
    return wrong ? err_new(ERR_LIMIT, "the expression is too long: %s", wrong) : NULL;
}

/* They are borrowed from the compilation until then. */
static void keep_calls(struct compilation *c, struct sym_expression *e)
{
    e->calls = xmemdup(c->calls.items, c->calls.count * sizeof(struct sym_call));
    for (size_t i = 0; i < c->calls.count; i++)
        e->calls[i].text = e->calls[i].text ? xmemdup(e->calls[i].text, e->calls[i].size) : NULL;
}

struct err *sym_expression_compile(struct sym_module *m,
                                   const struct sym_expression_request *request,
                                   struct sym_expression *out)
{
    HOLD(m);
    cleanup(freep) struct compilation *c = xnew(struct compilation);
    struct sym_expression made = {0};
    c->m = m;
    c->request = request;
    struct err *e = compile(c, &made);
    if (!e) {
        made.program.ops = xmemdup(c->em.ops, c->em.count * sizeof(c->em.ops[0]));
        made.program.data = xmemdup(c->em.data, c->em.data_len + 1);
        keep_calls(c, &made);
        *out = made;
    }
    compilation_deinit(c);
    return e;
}

void sym_expression_deinit(struct sym_expression *e)
{
    free((void *)(uintptr_t)e->program.ops);
    free((void *)(uintptr_t)e->program.data);
    for (size_t i = 0; i < e->program.call_count; i++)
        free((void *)(uintptr_t)e->calls[i].text);
    free(e->calls);
    *e = (struct sym_expression){0};
}

/* --- calls --- */

/* An argument into its registers, or onto the stack. number: it, or where it is. */
static struct err *pass(const struct sym_call_argument *a, uint64_t number,
                        struct sym_caller *caller, struct sym_call_frame *f)
{
    uint64_t eightbytes[2] = {number};
    if (a->stack >= 0) {
        if (a->copied)
            return caller->memory->read_memory(caller->memory, number, f->stack + a->stack,
                                               a->copied);
        memcpy(f->stack + a->stack, &number, sizeof(number));
        return NULL;
    }
    if (a->copied)
        TRY(caller->memory->read_memory(caller->memory, number, eightbytes, a->copied));
    for (unsigned i = 0; i < a->part_count; i++) {
        const struct sym_call_part *part = &a->parts[i];
        if (part->kind != SYM_PART_NONE)
            (part->kind == SYM_PART_VECTOR ? f->vectors : f->integers)[part->number] =
                eightbytes[i];
    }
    return NULL;
}

/* What came back: a number, or where a class is. */
static struct err *take_result(const struct sym_call *call, const struct sym_call_frame *f,
                               struct sym_caller *caller, uint64_t *out)
{
    uint64_t eightbytes[2] = {0};
    if (call->result_in_memory) {
        *out = f->rax;
        return NULL;
    }
    for (unsigned i = 0; i < call->result_count; i++) {
        const struct sym_call_part *part = &call->result[i];
        if (part->kind != SYM_PART_NONE)
            eightbytes[i] = part->kind == SYM_PART_VECTOR ? f->xmm[part->number]
                            : part->number                ? f->rdx
                                                          : f->rax;
    }
    if (call->result_size)
        return caller->place(caller, eightbytes, call->result_size, out);
    *out = eightbytes[0];
    return NULL;
}

static struct err *call_function(const struct sym_call *call, const uint64_t *args,
                                 struct sym_caller *caller, uint64_t *out)
{
    cleanup(freep) struct sym_call_frame *f = xnew(struct sym_call_frame);
    f->target = args[0];
    f->vector_count = call->vectors;
    f->stack_len = call->stack_len;
    if (call->result_in_memory)
        TRY(caller->place(caller, NULL, call->result_size, &f->integers[0]));
    for (unsigned i = 0; i < call->arg_count; i++)
        TRY(pass(&call->args[i], args[1 + i], caller, f));
    TRY(caller->call(caller, call->name, f));
    return take_result(call, f, caller, out);
}

struct err *sym_expression_call(const struct sym_expression *e, uint64_t number,
                                const uint64_t *args, struct sym_caller *caller, uint64_t *out)
{
    const struct sym_call *call = &e->calls[number];
    switch (call->kind) {
    case SYM_CALL_TEXT:
        return caller->place(caller, call->text, call->size, out);
    case SYM_CALL_TEMPORARY:
        return caller->place(caller, &args[0], call->size, out);
    default:
        return call_function(call, args, caller, out);
    }
}

struct err *sym_expression_failure(enum program_end end, uint64_t result)
{
    switch (end) {
    case PROGRAM_FAULT:
        return err_new(ERR_FAULT, "0x%jx cannot be read", (uintmax_t)result);
    case PROGRAM_DIVIDED:
        return err_new(ERR_NOT_FOUND, "division by zero, or too large a quotient");
    default:
        return err_new(ERR_NOT_FOUND, "vector register %ju is not known here", (uintmax_t)result);
    }
}

/* Did the program come as far as the value, and only the string behind it could not be read? */
static bool value_is_known(const struct sym_expression *e, const uint8_t *output)
{
    return e->text_len && output[e->text_at + e->text_len];
}

struct err *sym_expression_value(struct sym_module *m, const struct sym_expression *e,
                                 enum program_end end, uint64_t result, const uint8_t *output,
                                 struct sym_value *out)
{
    if (end != PROGRAM_OK && !(end == PROGRAM_FAULT && value_is_known(e, output)))
        return sym_expression_failure(end, result);
    uint64_t most = e->in_out ? SYM_EXPRESSION_MAX : sizeof(result);
    struct sym_value v = {
        .type = e->type, .where = SYM_COMPUTED, .len = e->type->size < most ? e->type->size : most};
    if (e->in_memory && end == PROGRAM_OK) {
        v.where = SYM_IN_MEMORY;
        v.address = result;
    }
    v.bytes = xmemdup(e->in_out ? (const void *)output : &result, v.len);
    *out = v;
    return NULL;
}

static struct err *read_text(struct sym_context *ctx, gaddr addr, void *buf, size_t len)
{
    struct sym_expression_context *c = (struct sym_expression_context *)ctx;
    uint64_t off = addr - c->text_addr;
    if (off < c->text_len && len <= c->text_len - off) {
        memcpy(buf, c->text + off, len);
        return NULL;
    }
    if (!c->otherwise)
        return err_new(ERR_FAULT, "0x%jx was not kept", (uintmax_t)addr);
    return c->otherwise->read_memory(c->otherwise, addr, buf, len);
}

void sym_expression_context_init(struct sym_expression_context *c, const struct sym_expression *e,
                                 enum program_end end, const uint8_t *output,
                                 struct sym_context *otherwise)
{
    *c =
        (struct sym_expression_context){.base = {.read_memory = read_text}, .otherwise = otherwise};
    if (otherwise)
        c->base.bias = otherwise->bias;
    if (!e->text_len || end != PROGRAM_OK)
        return;
    memcpy(&c->text_addr, output, sizeof(c->text_addr));
    c->text = output + e->text_at;
    c->text_len = e->text_len;
}
