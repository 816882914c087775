/* DWARF expressions: where a variable is at one address, in one frame. DWARF 5 sections 2.5
 * and 2.6.
 *
 * A stack machine over 64-bit numbers; typed operations (DW_OP_convert and its like, which gcc uses
 * for optimised floating point and narrow integers) carry the size and encoding of their base type
 * along. Bounds: MAX_STACK values, MAX_STEPS operations, MAX_DEPTH expressions within expressions.
 */
#include "sym/sym_int.h"

enum { MAX_STACK = 64, MAX_STEPS = 10000, MAX_PIECES = 256 };

/* A number on the stack. size 0 is DWARF's generic type: an unsigned 64-bit address. */
struct slot {
    uint64_t bits;
    uint8_t size;
    uint8_t encoding; /* DW_ATE_* */
};

struct machine {
    struct frame *f;
    Dwarf_Attribute *attr;
    struct slot stack[MAX_STACK];
    unsigned depth;
    bool has_location; /* a register, value or bytes; else the top of the stack is an address */
    struct location location;
    struct pieces pieces;
};

static struct err *err_expression(struct machine *vm, const char *what)
{
    return err_new(ERR_FORMAT, "%s: damaged location expression at 0x%jx: %s", vm->f->m->path,
                   (uintmax_t)vm->f->addr, what);
}

static struct err *push_slot(struct machine *vm, struct slot s)
{
    if (vm->depth == MAX_STACK)
        return err_expression(vm, "stack overflow");
    vm->stack[vm->depth++] = s;
    return NULL;
}

static struct err *push(struct machine *vm, uint64_t v)
{
    return push_slot(vm, (struct slot){.bits = v});
}

static struct err *pop_slot(struct machine *vm, struct slot *out)
{
    if (!vm->depth)
        return err_expression(vm, "stack is empty");
    *out = vm->stack[--vm->depth];
    return NULL;
}

static struct err *pop(struct machine *vm, uint64_t *out)
{
    struct slot s = {0};
    TRY(pop_slot(vm, &s));
    *out = s.bits;
    return NULL;
}

static struct err *push_register_plus(struct machine *vm, unsigned reg, uint64_t off)
{
    uint64_t v;
    TRY(read_word(vm->f->ctx, reg, &v));
    return push(vm, v + off);
}

static struct err *push_memory(struct machine *vm, uint64_t addr, size_t size, uint8_t encoding)
{
    uint64_t v = 0;
    if (size == 0 || size > 8)
        return err_expression(vm, "bad size of a memory read");
    TRY(vm->f->ctx->read_memory(vm->f->ctx, addr, &v, size));
    return push_slot(
        vm, (struct slot){.bits = v, .size = encoding ? (uint8_t)size : 0, .encoding = encoding});
}

static void set_location(struct machine *vm, struct location l)
{
    vm->has_location = true;
    vm->location = l;
}

/* ---- Arithmetic ---- */

static int64_t signed_of(struct slot s)
{
    return s.size && s.size < 8 ? (int64_t)(s.bits << (64 - 8 * s.size)) >> (64 - 8 * s.size)
                                : (int64_t)s.bits;
}

static bool is_float(struct slot s)
{
    return s.encoding == DW_ATE_float;
}

static double float_of(struct slot s)
{
    if (s.size == 4) {
        float f;
        memcpy(&f, &s.bits, 4);
        return (double)f;
    }
    double d;
    memcpy(&d, &s.bits, 8);
    return d;
}

static struct slot slot_of_float(double d, uint8_t size)
{
    struct slot s = {.size = size, .encoding = DW_ATE_float};
    float f = (float)d;
    if (size == 4)
        memcpy(&s.bits, &f, 4);
    else
        memcpy(&s.bits, &d, 8);
    return s;
}

static uint64_t cut(uint64_t bits, unsigned size)
{
    return size && size < 8 ? bits & ((1ull << (8 * size)) - 1) : bits;
}

static bool is_signed(struct slot s)
{
    return !s.size || s.encoding == DW_ATE_signed || s.encoding == DW_ATE_signed_char;
}

static struct err *binary_float(struct machine *vm, int op, struct slot a, struct slot b)
{
    double x = float_of(a), y = float_of(b);
    switch (op) {
    case DW_OP_plus:
        return push_slot(vm, slot_of_float(x + y, a.size));
    case DW_OP_minus:
        return push_slot(vm, slot_of_float(x - y, a.size));
    case DW_OP_mul:
        return push_slot(vm, slot_of_float(x * y, a.size));
    case DW_OP_div:
        return push_slot(vm, slot_of_float(x / y, a.size));
    case DW_OP_eq:
        return push(vm, x == y);
    case DW_OP_ne:
        return push(vm, x != y);
    case DW_OP_lt:
        return push(vm, x < y);
    case DW_OP_le:
        return push(vm, x <= y);
    case DW_OP_gt:
        return push(vm, x > y);
    case DW_OP_ge:
        return push(vm, x >= y);
    default:
        return err_expression(vm, "not an operation on floating point numbers");
    }
}

static struct err *divide(struct machine *vm, int op, struct slot a, struct slot b, uint64_t *out)
{
    if (!cut(b.bits, b.size))
        return err_new(ERR_NOT_FOUND, "division by zero in a location expression");
    if (op == DW_OP_mod && !a.size) { // unsigned on the generic type, by convention
        *out = a.bits % b.bits;
    } else if (is_signed(a)) {
        int64_t x = signed_of(a), y = signed_of(b);
        *out = y == -1 ? (op == DW_OP_mod ? 0 : 0 - (uint64_t)x)
                       : (uint64_t)(op == DW_OP_mod ? x % y : x / y);
    } else {
        *out = op == DW_OP_mod ? a.bits % b.bits : a.bits / b.bits;
    }
    return NULL;
}

static struct err *binary(struct machine *vm, int op)
{
    struct slot a = {0}, b = {0};
    TRY(pop_slot(vm, &b));
    TRY(pop_slot(vm, &a));
    if (is_float(a))
        return binary_float(vm, op, a, b);
    uint64_t x = a.bits, y = b.bits, r = 0;
    int64_t sx = signed_of(a), sy = signed_of(b);
    bool less = is_signed(a) ? sx < sy : x < y, equal = is_signed(a) ? sx == sy : x == y;
    switch (op) {
    case DW_OP_and:
        r = x & y;
        break;
    case DW_OP_or:
        r = x | y;
        break;
    case DW_OP_xor:
        r = x ^ y;
        break;
    case DW_OP_plus:
        r = x + y;
        break;
    case DW_OP_minus:
        r = x - y;
        break;
    case DW_OP_mul:
        r = x * y;
        break;
    case DW_OP_div:
    case DW_OP_mod:
        TRY(divide(vm, op, a, b, &r));
        break;
    case DW_OP_shl:
        r = y < 64 ? x << y : 0;
        break;
    case DW_OP_shr:
        r = y < 64 ? x >> y : 0;
        break;
    case DW_OP_shra:
        r = (uint64_t)(sx >> (y < 64 ? y : 63));
        break;
    case DW_OP_eq:
        return push(vm, equal);
    case DW_OP_ne:
        return push(vm, !equal);
    case DW_OP_lt:
        return push(vm, less);
    case DW_OP_le:
        return push(vm, less || equal);
    case DW_OP_gt:
        return push(vm, !less && !equal);
    case DW_OP_ge:
        return push(vm, !less);
    default:
        break;
    }
    return push_slot(vm, (struct slot){cut(r, a.size), a.size, a.encoding});
}

static struct err *unary(struct machine *vm, int op, uint64_t operand)
{
    struct slot s = {0};
    TRY(pop_slot(vm, &s));
    if (is_float(s)) {
        double d = float_of(s);
        return push_slot(
            vm, slot_of_float(op == DW_OP_neg || (op == DW_OP_abs && d < 0) ? -d : d, s.size));
    }
    switch (op) {
    case DW_OP_neg:
        s.bits = 0 - s.bits;
        break;
    case DW_OP_not:
        s.bits = ~s.bits;
        break;
    case DW_OP_abs:
        s.bits = signed_of(s) < 0 ? 0 - (uint64_t)signed_of(s) : s.bits;
        break;
    default:
        s.bits += operand; // DW_OP_plus_uconst
        break;
    }
    s.bits = cut(s.bits, s.size);
    return push_slot(vm, s);
}

/* ---- Typed operations ---- */

static struct err *base_type(struct machine *vm, const Dwarf_Op *op, struct slot *out)
{
    Dwarf_Die die;
    uint64_t size, encoding;
    *out = (struct slot){0};
    bool generic = (op->atom == DW_OP_convert || op->atom == DW_OP_GNU_convert ||
                    op->atom == DW_OP_reinterpret || op->atom == DW_OP_GNU_reinterpret) &&
                   op->number == 0;
    if (generic)
        return NULL;
    if (!vm->attr || dwarf_getlocation_die(vm->attr, op, &die) != 0 ||
        !die_unsigned(&die, DW_AT_byte_size, &size) ||
        !die_unsigned(&die, DW_AT_encoding, &encoding))
        return err_expression(vm, "bad base type");
    if (size == 0 || size > 8 || encoding > UINT8_MAX ||
        (encoding == DW_ATE_float && size != 4 && size != 8))
        return err_new(ERR_UNSUPPORTED, "location expression with numbers of %ju bytes",
                       (uintmax_t)size);
    out->size = (uint8_t)size;
    out->encoding = (uint8_t)encoding;
    return NULL;
}

static struct err *convert(struct machine *vm, const Dwarf_Op *op)
{
    struct slot from = {0}, to = {0};
    TRY(base_type(vm, op, &to));
    TRY(pop_slot(vm, &from));
    if (op->atom == DW_OP_reinterpret || op->atom == DW_OP_GNU_reinterpret) {
        to.bits = cut(from.bits, to.size);
    } else if (is_float(to)) {
        double d = is_float(from)    ? float_of(from)
                   : is_signed(from) ? (double)signed_of(from)
                                     : (double)from.bits;
        to = slot_of_float(d, to.size);
    } else if (is_float(from)) {
        double d = float_of(from);
        // out of range conversions are undefined in C: give 0
        if (d > -9.2e18 && d < 9.2e18)
            to.bits = cut((uint64_t)(int64_t)d, to.size);
    } else {
        to.bits =
            cut(from.size && is_signed(from) ? (uint64_t)signed_of(from) : from.bits, to.size);
    }
    return push_slot(vm, to);
}

static struct err *typed(struct machine *vm, const Dwarf_Op *op)
{
    struct slot s = {0};
    uint64_t addr;
    switch (op->atom) {
    case DW_OP_const_type:
    case DW_OP_GNU_const_type: {
        TRY(base_type(vm, op, &s));
        Dwarf_Block block;
        const uint8_t *data =
            (const uint8_t *)(uintptr_t)op->number2; // libdw: a length byte, then the bytes
        block.length = data ? data[0] : 0;
        if (block.length != s.size)
            return err_expression(vm, "bad typed constant");
        memcpy(&s.bits, data + 1, s.size);
        return push_slot(vm, s);
    }
    case DW_OP_regval_type:
    case DW_OP_GNU_regval_type:
        TRY(base_type(vm, op, &s));
        TRY(vm->f->ctx->read_register(vm->f->ctx, (unsigned)op->number, &s.bits, s.size));
        return push_slot(vm, s);
    case DW_OP_deref_type:
    case DW_OP_GNU_deref_type:
        TRY(base_type(vm, op, &s));
        TRY(pop(vm, &addr));
        return push_memory(vm, addr, s.size, s.encoding);
    default:
        return convert(vm, op);
    }
}

/* ---- Operations that ask the frame ---- */

static struct err *frame_base(struct frame *f, uint64_t *out)
{
    Dwarf_Attribute attr;
    if (!f->function || f->function->pub.source != SYM_DWARF)
        return err_new(ERR_NOT_FOUND, "%s: no function's frame at 0x%jx", f->m->path,
                       (uintmax_t)f->addr);
    Dwarf_Die die = f->function->die;
    if (!dwarf_attr_integrate(&die, DW_AT_frame_base, &attr))
        return err_new(ERR_NOT_FOUND, "%s: %s has no frame base", f->m->path,
                       f->function->pub.name);
    struct frame outer = *f;
    outer.function = NULL; // a frame base must not ask for itself
    Dwarf_Op *ops;
    size_t count;
    if (dwarf_getlocation_addr(&attr, f->addr, &ops, &count, 1) != 1)
        return err_new(ERR_NOT_FOUND, "%s: no frame base at 0x%jx", f->m->path, (uintmax_t)f->addr);
    return location_evaluate_number(&outer, &attr, ops, count, NULL, out);
}

static struct err *entry_value(struct machine *vm, const Dwarf_Op *op)
{
    Dwarf_Attribute inner;
    Dwarf_Op *ops;
    size_t count;
    if (!vm->attr || dwarf_getlocation_attr(vm->attr, op, &inner) != 0 ||
        dwarf_getlocation(&inner, &ops, &count) != 0 || count != 1)
        return err_new(ERR_NOT_FOUND, "optimized out: known only when the function was entered");
    unsigned reg;
    if (ops[0].atom >= DW_OP_reg0 && ops[0].atom <= DW_OP_reg31)
        reg = ops[0].atom - DW_OP_reg0;
    else if (ops[0].atom == DW_OP_regx && ops[0].number < 256)
        reg = (unsigned)ops[0].number;
    else
        return err_new(ERR_NOT_FOUND, "optimized out: known only when the function was entered");
    if (!vm->f->ctx->read_entry_register)
        return err_new(ERR_NOT_FOUND, "optimized out: known only when the function was entered");
    uint64_t v = 0;
    TRY(vm->f->ctx->read_entry_register(vm->f->ctx, reg, &v, sizeof(v)));
    return push(vm, v);
}

static struct err *indexed_address(struct machine *vm, const Dwarf_Op *op, uint64_t bias)
{
    Dwarf_Attribute inner;
    Dwarf_Addr addr;
    if (!vm->attr || dwarf_getlocation_attr(vm->attr, op, &inner) != 0 ||
        dwarf_formaddr(&inner, &addr) != 0)
        return err_expression(vm, "bad address index");
    return push(vm, addr + bias);
}

static struct err *thread_local_address(struct machine *vm, struct sym_context *ctx,
                                        uint64_t offset)
{
    uint64_t pointer;
    if (!ctx->tls_offset)
        return err_new(ERR_UNSUPPORTED,
                       "thread-local variables of this library cannot be found here");
    TRY(ctx->read_register(ctx, SYM_FS_BASE, &pointer, sizeof(pointer)));
    return push(vm, pointer - ctx->tls_offset + offset);
}

static struct err *ask_frame(struct machine *vm, const Dwarf_Op *op)
{
    struct frame *f = vm->f;
    uint64_t v;
    switch (op->atom) {
    case DW_OP_fbreg:
        TRY(frame_base(f, &v));
        return push(vm, v + op->number);
    case DW_OP_call_frame_cfa:
        TRY(frame_cfa(f, &v));
        return push(vm, v);
    case DW_OP_addr:
        return push(vm, op->number + f->ctx->bias);
    case DW_OP_addrx:
    case DW_OP_GNU_addr_index:
        return indexed_address(vm, op, f->ctx->bias);
    case DW_OP_constx:
    case DW_OP_GNU_const_index:
        return indexed_address(vm, op, 0);
    case DW_OP_push_object_address:
        if (!f->has_object)
            return err_expression(vm, "no object");
        return push(vm, f->object);
    case DW_OP_form_tls_address:
    case DW_OP_GNU_push_tls_address:
        TRY(pop(vm, &v));
        return thread_local_address(vm, f->ctx, v);
    default:
        return entry_value(vm, op);
    }
}

/* ---- The stack ---- */

static struct err *pick(struct machine *vm, uint64_t idx)
{
    if (idx >= vm->depth)
        return err_expression(vm, "stack is too short");
    return push_slot(vm, vm->stack[vm->depth - 1 - idx]);
}

static struct err *permute(struct machine *vm, int op)
{
    unsigned need = op == DW_OP_swap ? 2 : 3;
    if (vm->depth < need)
        return err_expression(vm, "stack is too short");
    struct slot *top = &vm->stack[vm->depth - 1], last = *top;
    top[0] = top[-1];
    if (op == DW_OP_swap) {
        top[-1] = last;
    } else {
        top[-1] = top[-2];
        top[-2] = last;
    }
    return NULL;
}

/* ---- Locations ---- */

static struct err *end_piece(struct machine *vm, uint64_t bits, uint64_t bit_off)
{
    if (vm->pieces.count == MAX_PIECES)
        return err_expression(vm, "too many pieces");
    struct piece p = {.bits = bits, .bit_off = bit_off};
    if (vm->has_location)
        p.location = vm->location;
    else if (vm->depth)
        p.location =
            (struct location){.kind = LOCATION_MEMORY, .value = vm->stack[vm->depth - 1].bits};
    else
        p.is_missing = true;
    vm->depth = 0;
    vm->has_location = false;
    vec_push(&vm->pieces, p);
    return NULL;
}

static struct err *locate(struct machine *vm, const Dwarf_Op *op)
{
    Dwarf_Block block;
    uint64_t v;
    switch (op->atom) {
    case DW_OP_regx:
        set_location(vm, (struct location){.kind = LOCATION_REGISTER, .value = op->number});
        return NULL;
    case DW_OP_stack_value:
        TRY(pop(vm, &v));
        set_location(vm, (struct location){.kind = LOCATION_VALUE, .value = v});
        return NULL;
    case DW_OP_implicit_value:
        if (!vm->attr || dwarf_getlocation_implicit_value(vm->attr, op, &block) != 0)
            return err_expression(vm, "bad implicit value");
        set_location(vm, (struct location){.kind = LOCATION_BYTES,
                                           .bytes = block.data,
                                           .bytes_len = block.length});
        return NULL;
    case DW_OP_piece:
        return op->number > UINT32_MAX ? err_expression(vm, "huge piece")
                                       : end_piece(vm, op->number * 8, 0);
    case DW_OP_bit_piece:
        return op->number > UINT32_MAX || op->number2 > UINT32_MAX
                   ? err_expression(vm, "huge piece")
                   : end_piece(vm, op->number, op->number2);
    default:
        return err_new(ERR_NOT_FOUND,
                       "optimized out: a pointer whose target lives only in registers");
    }
}

/* ---- The loop ---- */

static struct err *jump(struct machine *vm, const Dwarf_Op *ops, size_t count, size_t *idx)
{
    // The operand counts from the end of the three-byte operation.
    Dwarf_Word target = ops[*idx].offset + 3 + (Dwarf_Word)(int64_t)(int16_t)ops[*idx].number;
    for (size_t i = 0; i < count; i++)
        if (ops[i].offset == target) {
            *idx = i;
            return NULL;
        }
    if (count && target > ops[count - 1].offset) {
        *idx = count; // the end
        return NULL;
    }
    return err_expression(vm, "jump into an operation");
}

static struct err *step(struct machine *vm, const Dwarf_Op *op)
{
    uint64_t addr;
    int atom = op->atom;
    if (atom >= DW_OP_lit0 && atom <= DW_OP_lit31)
        return push(vm, (uint64_t)(atom - DW_OP_lit0));
    if (atom >= DW_OP_breg0 && atom <= DW_OP_breg31)
        return push_register_plus(vm, (unsigned)(atom - DW_OP_breg0), op->number);
    if (atom >= DW_OP_reg0 && atom <= DW_OP_reg31) {
        set_location(vm, (struct location){.kind = LOCATION_REGISTER,
                                           .value = (uint64_t)(atom - DW_OP_reg0)});
        return NULL;
    }
    switch (atom) {
    case DW_OP_const1u:
    case DW_OP_const1s:
    case DW_OP_const2u:
    case DW_OP_const2s:
    case DW_OP_const4u:
    case DW_OP_const4s:
    case DW_OP_const8u:
    case DW_OP_const8s:
    case DW_OP_constu:
    case DW_OP_consts:
        return push(vm, op->number);
    case DW_OP_bregx:
        return op->number > 255 ? err_expression(vm, "bad register")
                                : push_register_plus(vm, (unsigned)op->number, op->number2);
    case DW_OP_dup:
        return pick(vm, 0);
    case DW_OP_over:
        return pick(vm, 1);
    case DW_OP_pick:
        return pick(vm, op->number);
    case DW_OP_drop:
        return pop(vm, &addr);
    case DW_OP_swap:
    case DW_OP_rot:
        return permute(vm, atom);
    case DW_OP_deref:
        TRY(pop(vm, &addr));
        return push_memory(vm, addr, 8, 0);
    case DW_OP_deref_size:
        TRY(pop(vm, &addr));
        return push_memory(vm, addr, op->number, 0);
    case DW_OP_neg:
    case DW_OP_not:
    case DW_OP_abs:
    case DW_OP_plus_uconst:
        return unary(vm, atom, op->number);
    case DW_OP_and:
    case DW_OP_or:
    case DW_OP_xor:
    case DW_OP_plus:
    case DW_OP_minus:
    case DW_OP_mul:
    case DW_OP_div:
    case DW_OP_mod:
    case DW_OP_shl:
    case DW_OP_shr:
    case DW_OP_shra:
    case DW_OP_eq:
    case DW_OP_ne:
    case DW_OP_lt:
    case DW_OP_le:
    case DW_OP_gt:
    case DW_OP_ge:
        return binary(vm, atom);
    case DW_OP_fbreg:
    case DW_OP_call_frame_cfa:
    case DW_OP_addr:
    case DW_OP_addrx:
    case DW_OP_GNU_addr_index:
    case DW_OP_constx:
    case DW_OP_GNU_const_index:
    case DW_OP_push_object_address:
    case DW_OP_form_tls_address:
    case DW_OP_GNU_push_tls_address:
    case DW_OP_entry_value:
    case DW_OP_GNU_entry_value:
        return ask_frame(vm, op);
    case DW_OP_const_type:
    case DW_OP_GNU_const_type:
    case DW_OP_regval_type:
    case DW_OP_GNU_regval_type:
    case DW_OP_deref_type:
    case DW_OP_GNU_deref_type:
    case DW_OP_convert:
    case DW_OP_GNU_convert:
    case DW_OP_reinterpret:
    case DW_OP_GNU_reinterpret:
        return typed(vm, op);
    case DW_OP_regx:
    case DW_OP_stack_value:
    case DW_OP_implicit_value:
    case DW_OP_piece:
    case DW_OP_bit_piece:
    case DW_OP_implicit_pointer:
    case DW_OP_GNU_implicit_pointer:
        return locate(vm, op);
    case DW_OP_nop:
    case DW_OP_GNU_uninit:
        return NULL;
    default:
        return err_new(ERR_UNSUPPORTED, "location expression with operation 0x%x", (unsigned)atom);
    }
}

static struct err *run(struct machine *vm, const Dwarf_Op *ops, size_t count)
{
    unsigned steps = 0;
    for (size_t i = 0; i < count;) {
        if (++steps > MAX_STEPS)
            return err_new(ERR_LIMIT, "location expression of more than %u steps",
                           (unsigned)MAX_STEPS);
        uint64_t condition = 1;
        if (ops[i].atom == DW_OP_bra)
            TRY(pop(vm, &condition));
        if (ops[i].atom == DW_OP_skip || (ops[i].atom == DW_OP_bra && condition)) {
            TRY(jump(vm, ops, count, &i));
            continue;
        }
        if (ops[i].atom != DW_OP_bra)
            TRY(step(vm, &ops[i]));
        i++;
    }
    if (!vm->pieces.count)
        TRY(end_piece(vm, 0, 0));
    return NULL;
}

struct err *location_evaluate(struct frame *f, Dwarf_Attribute *attr, const Dwarf_Op *ops,
                              size_t count, const uint64_t *initial, struct pieces *out)
{
    struct machine vm = {.f = f, .attr = attr};
    if (initial)
        TRY(push(&vm, *initial));
    struct err *e = run(&vm, ops, count);
    if (e) {
        vec_deinit(&vm.pieces);
        return e;
    }
    *out = vm.pieces;
    return NULL;
}

struct err *location_evaluate_number(struct frame *f, Dwarf_Attribute *attr, const Dwarf_Op *ops,
                                     size_t count, const uint64_t *initial, uint64_t *out)
{
    struct pieces pieces;
    TRY(location_evaluate(f, attr, ops, count, initial, &pieces));
    struct piece p = pieces.items[0];
    bool is_one =
        pieces.count == 1 && p.bits == 0 && !p.is_missing && p.location.kind != LOCATION_BYTES;
    vec_deinit(&pieces);
    if (!is_one)
        return err_new(ERR_FORMAT, "%s: expression at 0x%jx gives no number", f->m->path,
                       (uintmax_t)f->addr);
    if (p.location.kind == LOCATION_REGISTER)
        return read_word(f->ctx, (unsigned)p.location.value, out);
    *out = p.location.value;
    return NULL;
}

struct err *location_evaluate_attribute(struct frame *f, Dwarf_Attribute *attr, struct pieces *out)
{
    Dwarf_Op *ops;
    size_t count = 0;
    int found = dwarf_getlocation_addr(attr, f->addr, &ops, &count, 1);
    if (found < 0)
        return err_dwarf(f->m, "location");
    if (found == 0 || count == 0)
        return err_new(ERR_NOT_FOUND, "optimized out at 0x%jx", (uintmax_t)f->addr);
    return location_evaluate(f, attr, ops, count, NULL, out);
}
