/* A tree with types, into a program. Numbers on the stack are 64 bits wide: integers sign- or
 * zero-extended as their type says, floating point as double (a float is rounded after each
 * operation). */
#include "sym/expression_int.h"

/* What emit_place() found: an address on the stack, or bytes `off` on of a place in parts, of which
 * nothing is on the stack yet. */
struct view {
    bool in_memory;
    const struct place *place;
    uint64_t off;
};

static struct err *emit_value(struct compilation *c, struct node *n);
static struct err *emit_call(struct compilation *c, struct node *n);

static uint64_t bits_of(double d)
{
    uint64_t v;
    memcpy(&v, &d, sizeof(v));
    return v;
}

static void put(struct compilation *c, enum program_code code)
{
    emit(&c->em, code, 0, 0, 0);
}

static void put_ops(struct compilation *c, const struct program_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++)
        emit(&c->em, (enum program_code)ops[i].code, ops[i].size, ops[i].arg, ops[i].imm);
}

static void add_number(struct compilation *c, uint64_t v)
{
    if (!v)
        return;
    emit_push(&c->em, v);
    put(c, PROGRAM_ADD);
}

/* The number on top, as it would be in a variable of the type. */
static void narrow(struct compilation *c, const struct sym_type *t)
{
    if (is_real(t) && t->size == 4) {
        put(c, PROGRAM_F_TO_FLOAT);
        put(c, PROGRAM_F_FROM_FLOAT);
    } else if (!is_real(t) && t->size < 8 && t->size) {
        emit(&c->em, is_signed_type(t) ? PROGRAM_EXTEND : PROGRAM_CUT, (unsigned)t->size, 0, 0);
    }
}

static void truth(struct compilation *c, const struct sym_type *t)
{
    if (is_real(t)) {
        emit_push(&c->em, 0);
        put(c, PROGRAM_F_EQ);
        put(c, PROGRAM_IS_ZERO);
        return;
    }
    put(c, PROGRAM_IS_ZERO);
    put(c, PROGRAM_IS_ZERO);
}

static void real_to_integer(struct compilation *c, const struct sym_type *to)
{
    if (is_signed_type(to) || to->size < 8) {
        put(c, PROGRAM_F_TO_S);
        return;
    }
    const double half = 9223372036854775808.0; // of the range of 64 bits
    emit(&c->em, PROGRAM_COPY, 0, 0, 0);
    emit_push(&c->em, bits_of(half));
    put(c, PROGRAM_F_LT);
    emit(&c->em, PROGRAM_JUMP_ZERO, 0, 0, 2);
    put(c, PROGRAM_F_TO_S);
    emit(&c->em, PROGRAM_JUMP, 0, 0, 5);
    emit_push(&c->em, bits_of(half));
    put(c, PROGRAM_F_SUB);
    put(c, PROGRAM_F_TO_S);
    emit_push(&c->em, 1ull << 63);
    put(c, PROGRAM_XOR);
}

/* An integer of which a double would keep 53 bits, on its way to a float: its low bits become one,
 * so that it is rounded once. */
static void keep_sticky(struct compilation *c, const struct sym_type *from)
{
    const uint64_t low = (1 << 11) - 1;
    emit(&c->em, PROGRAM_COPY, 0, 0, 0);
    emit_push(&c->em, 53);
    put(c, is_signed_type(from) ? PROGRAM_SAR : PROGRAM_SHR);
    add_number(c, 1);
    emit_push(&c->em, 1);
    put(c, PROGRAM_LE_U); // it was 0 or -1: a double holds it
    put(c, PROGRAM_IS_ZERO);
    emit(&c->em, PROGRAM_JUMP_ZERO, 0, 0, 8);
    emit(&c->em, PROGRAM_COPY, 0, 0, 0);
    emit_push(&c->em, low);
    put(c, PROGRAM_AND);
    add_number(c, low);
    put(c, PROGRAM_OR);
    emit_push(&c->em, ~low);
    put(c, PROGRAM_AND);
}

static void convert(struct compilation *c, const struct sym_type *from, const struct sym_type *to)
{
    if (to->kind == SYM_BOOL) {
        truth(c, from);
        return;
    }
    if (is_real(to)) {
        if (!is_real(from) && from->size == 8 && to->size == 4)
            keep_sticky(c, from);
        if (!is_real(from))
            put(c, is_signed_type(from) ? PROGRAM_F_FROM_S : PROGRAM_F_FROM_U);
    } else if (is_real(from)) {
        real_to_integer(c, to);
    }
    bool widens = is_integer(from) && is_integer(to) && from->size < to->size;
    if (!widens || is_signed_type(from))
        narrow(c, to);
}

/* --- places --- */

/* What a function returned lies in memory if it is of a class. */
bool is_place(const struct node *n)
{
    return n->kind == NODE_NAME || (n->kind == NODE_CALL && is_record(n->type)) ||
           (n->kind == NODE_UNARY && n->op == '*') ||
           ((n->kind == NODE_MEMBER || n->kind == NODE_ARRAY) && is_place(n->a));
}

static struct err *emit_place(struct compilation *c, struct node *n, struct view *out)
{
    switch (n->kind) {
    case NODE_NAME:
        *out = (struct view){.in_memory = n->place->kind == PLACE_MEMORY, .place = n->place};
        if (out->in_memory)
            put_ops(c, n->place->ops, n->place->count);
        return NULL;
    case NODE_UNARY:
        *out = (struct view){.in_memory = true};
        return emit_value(c, n->a);
    case NODE_CALL:
        *out = (struct view){.in_memory = true};
        return emit_call(c, n);
    case NODE_MEMBER:
        TRY(emit_place(c, n->a, out));
        if (out->in_memory)
            add_number(c, n->offset);
        out->off += n->offset;
        return NULL;
    default: // NODE_ARRAY
        TRY(emit_place(c, n->a, out));
        return out->in_memory ? NULL
                              : err_at(c, ERR_UNSUPPORTED, n->column,
                                       "what is in a register has no neighbours");
    }
}

static const struct part *part_at(const struct place *p, uint64_t off)
{
    for (size_t i = 0; i < p->part_count; i++) {
        if (off >= p->parts[i].off && off - p->parts[i].off < p->parts[i].len)
            return &p->parts[i];
    }
    return NULL;
}

/* Pushes `size` bytes (1, 2, 4 or 8), zero-extended, of a value in parts. */
static struct err *emit_part(struct compilation *c, const struct node *n, const struct place *place,
                             uint64_t off, unsigned size)
{
    const struct part *p = part_at(place, off);
    uint64_t in = p ? off - p->off : 0, v = 0;
    if (!p || p->is_missing)
        return err_at(c, ERR_NOT_FOUND, n->column, "partly optimized out");
    if (size > p->len - in)
        return err_at(c, ERR_UNSUPPORTED, n->column, "a number in more than one piece");
    if (p->bytes) {
        memcpy(&v, p->bytes + in, size);
        emit_push(&c->em, v);
        return NULL;
    }
    if (p->vector >= 0) {
        if (in + size > 64)
            return err_at(c, ERR_UNSUPPORTED, n->column, "more than a vector register holds");
        emit(&c->em, PROGRAM_VECTOR, size, (unsigned)p->vector, in);
        return NULL;
    }
    if (!p->is_address && in + size > 8)
        return err_at(c, ERR_UNSUPPORTED, n->column, "more than a register holds");
    put_ops(c, p->ops, p->count);
    if (p->is_address) {
        add_number(c, in);
        emit(&c->em, PROGRAM_LOAD, size, 0, 0);
        return NULL;
    }
    if (in) {
        emit_push(&c->em, in * 8);
        put(c, PROGRAM_SHR);
    }
    if (size < 8)
        emit(&c->em, PROGRAM_CUT, size, 0, 0);
    return NULL;
}

static unsigned load_size(uint64_t bytes)
{
    return bytes <= 1 ? 1 : bytes <= 2 ? 2 : bytes <= 4 ? 4 : 8;
}

/* The value of a scalar at a place. */
static struct err *emit_scalar(struct compilation *c, struct node *n)
{
    struct view v;
    const struct sym_type *t = n->type;
    uint64_t bytes = n->bit_size ? (n->bit_off + n->bit_size + 7) / 8 : t->size;
    unsigned size = load_size(bytes);
    if (bytes > 8 || (!n->bit_size && size != t->size))
        return err_at(c, ERR_UNSUPPORTED, n->column, "%.100s has an odd size", t->name);
    TRY(emit_place(c, n, &v));
    if (v.in_memory)
        emit(&c->em, PROGRAM_LOAD, size, 0, 0);
    else
        TRY(emit_part(c, n, v.place, v.off, size));
    if (n->bit_size) {
        emit_push(&c->em, 64 - n->bit_off - n->bit_size);
        put(c, PROGRAM_SHL);
        emit_push(&c->em, 64 - n->bit_size);
        put(c, is_signed_type(t) ? PROGRAM_SAR : PROGRAM_SHR);
    } else if (is_real(t) && size == 4) {
        put(c, PROGRAM_F_FROM_FLOAT);
    } else if (!is_real(t) && size < 8 && is_signed_type(t)) {
        emit(&c->em, PROGRAM_EXTEND, size, 0, 0);
    }
    return NULL;
}

/* --- operators --- */

static struct err *emit_converted(struct compilation *c, struct node *n, const struct sym_type *to)
{
    TRY(emit_value(c, n));
    if (is_scalar(n->type))
        convert(c, n->type, to);
    return NULL;
}

static struct err *emit_truth(struct compilation *c, struct node *n)
{
    TRY(emit_value(c, n));
    truth(c, n->type);
    return NULL;
}

/* Where a jump is put that is told later how far it goes: to the end of what has been emitted by
 * then. */
static size_t jump(struct compilation *c, enum program_code code)
{
    put(c, code);
    return c->em.count - 1;
}

static void land(struct compilation *c, size_t jump)
{
    if (!c->em.full)
        c->em.ops[jump].imm = c->em.count - jump - 1;
}

static struct err *emit_logic(struct compilation *c, struct node *n)
{
    bool both = n->op == OP2('&', '&');
    TRY(emit_truth(c, n->a));
    if (!both)
        put(c, PROGRAM_IS_ZERO);
    size_t decided = jump(c, PROGRAM_JUMP_ZERO);
    TRY(emit_truth(c, n->b));
    size_t end = jump(c, PROGRAM_JUMP);
    land(c, decided);
    emit_push(&c->em, !both);
    land(c, end);
    return NULL;
}

static struct err *emit_choice(struct compilation *c, struct node *n)
{
    TRY(emit_truth(c, n->a));
    size_t otherwise = jump(c, PROGRAM_JUMP_ZERO);
    TRY(emit_converted(c, n->b, n->type));
    size_t end = jump(c, PROGRAM_JUMP);
    land(c, otherwise);
    TRY(emit_converted(c, n->c, n->type));
    land(c, end);
    return NULL;
}

static struct err *emit_comparison(struct compilation *c, struct node *n)
{
    const struct sym_type *a = n->a->type, *b = n->b->type;
    bool numbers = (is_integer(a) || is_real(a)) && (is_integer(b) || is_real(b));
    const struct sym_type *t =
        numbers ? common_type(promoted(n->a), promoted(n->b)) : builtin("unsigned long");
    TRY(emit_converted(c, n->a, t));
    TRY(emit_converted(c, n->b, t));
    bool real = is_real(t), with_sign = is_signed_type(t);
    if (n->op == OP2('=', '=') || n->op == OP2('!', '=')) {
        put(c, real ? PROGRAM_F_EQ : PROGRAM_EQ);
        if (n->op == OP2('!', '='))
            put(c, PROGRAM_IS_ZERO);
        return NULL;
    }
    if ((n->op & 0xff) == '>')
        put(c, PROGRAM_SWAP);
    bool or_equal = n->op >> 8 == '=';
    put(c, or_equal ? (real        ? PROGRAM_F_LE
                       : with_sign ? PROGRAM_LE_S
                                   : PROGRAM_LE_U)
                    : (real        ? PROGRAM_F_LT
                       : with_sign ? PROGRAM_LT_S
                                   : PROGRAM_LT_U));
    return NULL;
}

static const struct sym_type *element(const struct sym_type *t)
{
    return t->kind == SYM_POINTER || t->kind == SYM_ARRAY ? t->target : NULL;
}

static struct err *emit_pointer_arithmetic(struct compilation *c, struct node *n)
{
    const struct sym_type *target = element(n->a->type);
    uint64_t size = target->size ? target->size : 1; // void *, as gcc
    TRY(emit_value(c, n->a));
    TRY(emit_value(c, n->b));
    if (element(n->b->type)) {
        put(c, PROGRAM_SUB);
        if (size > 1) {
            emit_push(&c->em, size);
            put(c, PROGRAM_DIV_S);
        }
        return NULL;
    }
    if (size > 1) {
        emit_push(&c->em, size);
        put(c, PROGRAM_MUL);
    }
    put(c, n->op == '+' ? PROGRAM_ADD : PROGRAM_SUB);
    return NULL;
}

static enum program_code arithmetic(unsigned op, bool real, bool with_sign)
{
    switch (op) {
    case '+':
        return real ? PROGRAM_F_ADD : PROGRAM_ADD;
    case '-':
        return real ? PROGRAM_F_SUB : PROGRAM_SUB;
    case '*':
        return real ? PROGRAM_F_MUL : PROGRAM_MUL;
    case '/':
        return real ? PROGRAM_F_DIV : with_sign ? PROGRAM_DIV_S : PROGRAM_DIV_U;
    case '%':
        return with_sign ? PROGRAM_MOD_S : PROGRAM_MOD_U;
    case '&':
        return PROGRAM_AND;
    case '|':
        return PROGRAM_OR;
    case '^':
        return PROGRAM_XOR;
    case OP2('<', '<'):
        return PROGRAM_SHL;
    default:
        return with_sign ? PROGRAM_SAR : PROGRAM_SHR;
    }
}

static struct err *emit_binary(struct compilation *c, struct node *n)
{
    if (n->op == OP2('&', '&') || n->op == OP2('|', '|'))
        return emit_logic(c, n);
    if (n->op == OP2('=', '=') || n->op == OP2('!', '=') || n->op == '<' || n->op == '>' ||
        n->op == OP2('<', '=') || n->op == OP2('>', '='))
        return emit_comparison(c, n);
    if (element(n->a->type))
        return emit_pointer_arithmetic(c, n);
    bool shifts = n->op == OP2('<', '<') || n->op == OP2('>', '>');
    TRY(emit_converted(c, n->a, n->type));
    TRY(emit_converted(c, n->b, shifts ? builtin("unsigned long") : n->type));
    put(c, arithmetic(n->op, is_real(n->type), is_signed_type(n->type)));
    narrow(c, n->type);
    return NULL;
}

static struct err *emit_unary(struct compilation *c, struct node *n)
{
    struct view v;
    switch (n->op) {
    case 'z':
        emit_push(&c->em, n->a->type->size);
        return NULL;
    case '&':
        if (n->a->kind == NODE_CONSTANT) // a function
            return emit_value(c, n->a);
        if (!is_place(n->a) || n->a->bit_size || n->a->kind == NODE_CALL)
            return err_at(c, ERR_USAGE, n->column, "what has no place has no address");
        TRY(emit_place(c, n->a, &v));
        return v.in_memory
                   ? NULL
                   : err_at(c, ERR_NOT_FOUND, n->column, "it is in a register, and has no address");
    case '!':
        TRY(emit_truth(c, n->a));
        put(c, PROGRAM_IS_ZERO);
        return NULL;
    default:
        TRY(emit_converted(c, n->a, n->type));
        if (n->op == '-')
            put(c, is_real(n->type) ? PROGRAM_F_NEG : PROGRAM_NEG);
        else if (n->op == '~')
            put(c, PROGRAM_NOT);
        narrow(c, n->type);
        return NULL;
    }
}

static struct err *emit_text(struct compilation *c, struct node *n)
{
    size_t len = strlen(n->text);
    TRY(emit_value(c, n->a));
    if (len > PROGRAM_MAX_DATA - c->em.data_len)
        return err_at(c, ERR_LIMIT, n->column, "the strings are too long");
    emit(&c->em, n->number ? PROGRAM_STRING_FIND : PROGRAM_STRING_EQUAL, 0,
         (unsigned)c->em.data_len, len);
    memcpy(c->em.data + c->em.data_len, n->text, len);
    c->em.data_len += len;
    return NULL;
}

static struct err *emit_register_value(struct compilation *c, struct node *n)
{
    if (c->request->now) {
        uint64_t v = 0;
        TRY(read_word(c->request->now, (unsigned)n->number, &v));
        emit_push(&c->em, v);
    } else {
        TRY(emit_register(&c->em, (unsigned)n->number, 8));
    }
    if (n->reg_off) {
        emit_push(&c->em, 8ull * n->reg_off);
        put(c, PROGRAM_SHR);
    }
    if (n->reg_size < 8)
        emit(&c->em, PROGRAM_CUT, n->reg_size, 0, 0);
    return NULL;
}

/* --- calls --- */

static void put_call(struct compilation *c, size_t call, size_t numbers)
{
    emit(&c->em, PROGRAM_CALL, 0, (unsigned)numbers, call);
}

/* A null pointer to a class is one to its base class, too. */
static void shift_pointer(struct compilation *c, uint64_t shift)
{
    if (!shift)
        return;
    emit(&c->em, PROGRAM_COPY, 0, 0, 0);
    size_t null = jump(c, PROGRAM_JUMP_ZERO);
    add_number(c, shift);
    land(c, null);
}

static struct err *emit_number_for(struct compilation *c, const struct passing *p)
{
    TRY(emit_converted(c, p->node, p->type));
    if (is_real(p->type) && p->type->size == 4)
        put(c, PROGRAM_F_TO_FLOAT);
    return NULL;
}

static struct err *emit_argument(struct compilation *c, const struct passing *p)
{
    struct view v;
    switch (p->how) {
    case PASS_TEXT:
        put_call(c, p->call, 0);
        return NULL;
    case PASS_TEMPORARY:
        TRY(emit_number_for(c, p));
        put_call(c, p->call, 1);
        return NULL;
    case PASS_ADDRESS:
        TRY(emit_place(c, p->node, &v));
        add_number(c, p->shift);
        return v.in_memory ? NULL
                           : err_at(c, ERR_NOT_FOUND, p->node->column,
                                    "it is in a register, and has no address");
    default:
        TRY(emit_number_for(c, p));
        shift_pointer(c, p->shift);
        return NULL;
    }
}

/* What the function returned: a number, an address that is a reference, or where an object of a
 * class is. */
static struct err *emit_call(struct compilation *c, struct node *n)
{
    const struct call_site *site = n->site;
    if (site->kind == TARGET_KNOWN)
        emit_push(&c->em, site->target);
    else if (site->kind == TARGET_POINTER)
        TRY(emit_value(c, site->pointer));
    for (size_t i = 0; i < site->count; i++) {
        TRY(emit_argument(c, &site->args[i]));
        if (i > 0 || site->kind != TARGET_SLOT)
            continue;
        emit(&c->em, PROGRAM_COPY, 0, 0,
             0); // the object's table of virtual functions (Itanium C++ ABI 2.5)
        emit(&c->em, PROGRAM_LOAD, 8, 0, 0);
        add_number(c, 8 * site->target);
        emit(&c->em, PROGRAM_LOAD, 8, 0, 0);
        put(c, PROGRAM_SWAP);
    }
    put_call(c, site->call, site->count + 1);
    if (is_real(n->type) && n->type->size == 4)
        put(c, PROGRAM_F_FROM_FLOAT);
    else if (is_integer(n->type) && n->type->size < 8)
        emit(&c->em, is_signed_type(n->type) ? PROGRAM_EXTEND : PROGRAM_CUT,
             (unsigned)n->type->size, 0, 0);
    return NULL;
}

/* The value on the stack; of an array its address. */
static struct err *emit_value(struct compilation *c, struct node *n)
{
    struct view v;
    if (c->em.full)
        return err_at(c, ERR_LIMIT, n->column, "the expression is too long");
    if (n->type->kind == SYM_ARRAY) {
        if (!is_place(n))
            return err_at(c, ERR_USAGE, n->column, "what has no place has no address");
        TRY(emit_place(c, n, &v));
        return v.in_memory
                   ? NULL
                   : err_at(c, ERR_UNSUPPORTED, n->column, "an array that is not in memory");
    }
    if (n->type->kind == SYM_REFERENCE) // what it refers to is asked for by who is above
        return n->kind == NODE_CALL ? emit_call(c, n) : emit_scalar(c, n);
    if (!is_scalar(n->type))
        return err_at(c, ERR_USAGE, n->column, "%.100s is no number", n->type->name);
    switch (n->kind) {
    case NODE_NUMBER:
    case NODE_CONSTANT:
        emit_push(&c->em, n->number);
        return NULL;
    case NODE_REAL:
        emit_push(&c->em, bits_of(n->real));
        narrow(c, n->type);
        return NULL;
    case NODE_REGISTER:
        return emit_register_value(c, n);
    case NODE_CAST:
        return emit_converted(c, n->a, n->type);
    case NODE_CHOICE:
        return emit_choice(c, n);
    case NODE_BINARY:
        return emit_binary(c, n);
    case NODE_STREQ:
        return emit_text(c, n);
    case NODE_CALL:
        return emit_call(c, n);
    case NODE_UNARY:
        return n->op == '*' ? emit_scalar(c, n) : emit_unary(c, n);
    default:
        return emit_scalar(c, n);
    }
}

/* --- the result --- */

static bool is_text_pointer(const struct sym_type *t)
{
    return is_pointer(t) && t->target && type_of(t->target)->is_char && t->target->size == 1;
}

/* The pointer is on top: its string goes into the output, behind a mark which says that the pointer
 * itself is known. */
static void emit_text_of(struct compilation *c, struct sym_expression *out, size_t at)
{
    out->text_at = (uint16_t)at;
    out->text_len = SYM_EXPRESSION_TEXT;
    emit_push(&c->em, 1);
    emit(&c->em, PROGRAM_OUT, 1, (unsigned)(at + SYM_EXPRESSION_TEXT), 0);
    emit(&c->em, PROGRAM_OUT_STRING, 0, (unsigned)at, SYM_EXPRESSION_TEXT);
    out->program.out_len = at + SYM_EXPRESSION_TEXT + 8;
}

static struct err *emit_parts(struct compilation *c, struct node *n, const struct view *v,
                              uint64_t len)
{
    for (uint64_t at = 0; at < len;) {
        const struct part *p = part_at(v->place, v->off + at);
        uint64_t left = p ? p->off + p->len - v->off - at : 8;
        left = left < len - at ? left : len - at;
        unsigned size = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        TRY(emit_part(c, n, v->place, v->off + at, size));
        emit(&c->em, PROGRAM_OUT, size, (unsigned)at, 0);
        at += size;
    }
    return NULL;
}

static struct err *emit_result(struct compilation *c, struct node *n, struct sym_expression *out)
{
    const struct sym_type *t = n->type;
    uint64_t len = t->size < SYM_EXPRESSION_MAX ? t->size : SYM_EXPRESSION_MAX;
    size_t room = (len + 7) & ~7ull;
    struct view v;
    if (t->kind == SYM_VOID && n->kind == NODE_CALL)
        return err_at(c, ERR_NOT_FOUND, n->column, "the function returns nothing");
    if (!t->size)
        return err_at(c, ERR_NOT_FOUND, n->column, "%.100s has no value, or its size is not known",
                      t->name);
    if (is_place(n) && !n->bit_size) {
        TRY(emit_place(c, n, &v));
        out->in_memory = v.in_memory;
        if (v.in_memory || !is_scalar(t)) {
            out->in_out = true;
            out->program.out_len = room;
            if (!v.in_memory)
                return emit_parts(c, n, &v, len);
            emit(&c->em, PROGRAM_COPY, 0, 0, 0);
            emit(&c->em, PROGRAM_OUT_MEMORY, 0, 0, len);
            if (is_text_pointer(t)) {
                emit(&c->em, PROGRAM_COPY, 0, 0, 0);
                emit(&c->em, PROGRAM_LOAD, 8, 0, 0);
                emit_text_of(c, out, room);
            }
            return NULL;
        }
    }
    TRY(emit_value(c, n));
    if (is_real(t) && t->size == 4)
        put(c, PROGRAM_F_TO_FLOAT);
    if (is_text_pointer(t)) {
        out->in_out = true;
        emit(&c->em, PROGRAM_COPY, 0, 0, 0);
        emit(&c->em, PROGRAM_OUT, 8, 0, 0);
        emit_text_of(c, out, 8);
    }
    return NULL;
}

struct err *emit_expression(struct compilation *c, struct node *root, struct sym_expression *out)
{
    out->type = root->type;
    if (c->request->condition) {
        if (!is_scalar(root->type) && root->type->kind != SYM_ARRAY)
            return err_at(c, ERR_USAGE, root->column, "%.100s is neither true nor false",
                          root->type->name);
        TRY(emit_truth(c, root));
    } else {
        TRY(emit_result(c, root, out));
    }
    put(c, PROGRAM_END);
    if (c->em.full)
        return err_at(c, ERR_LIMIT, 1, "the expression is too long");
    out->program.ops = c->em.ops;
    out->program.count = c->em.count;
    out->program.data = c->em.data;
    out->program.data_len = c->em.data_len;
    out->program.call_count = c->calls.count;
    return NULL;
}
