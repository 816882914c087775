/* DWARF expressions as programs: where a variable is at every execution of one address.
 *
 * The same operations as in location.c, which computes them at one moment. Here the stack is the
 * program's; what is known of each number on it is its DWARF type, kept beside. Numbers of a type
 * are raw bits, zero-extended, as in location.c. */
#include "sym/expression_int.h"

enum { MOST_OPS = 200 };

/* Generic type: size 0. */
struct kind {
    uint8_t size, encoding;
};

struct making {
    struct frame *f;
    Dwarf_Attribute *attr;
    struct emitter *em; /* of the part at work */
    struct kind kinds[PROGRAM_MAX_STACK];
    unsigned depth;
    bool has_location;
    bool is_value;        /* stack_value: the number on top is the value */
    int reg;              /* the location is this register; -1: not */
    const uint8_t *bytes; /* the location is these constants; or NULL */
    size_t bytes_len;
};

void emit(struct emitter *em, enum program_code code, unsigned size, unsigned arg, uint64_t imm)
{
    if (em->count == PROGRAM_MAX_OPS) {
        em->full = true;
        return;
    }
    em->ops[em->count++] = (struct program_op){
        .code = (uint8_t)code, .size = (uint8_t)size, .arg = (uint16_t)arg, .imm = imm};
}

struct err *emit_register(struct emitter *em, unsigned dwarf_reg, unsigned size)
{
    static const uint8_t general[] = {
        [SYM_RAX] = UREG_RAX, [SYM_RDX] = UREG_RDX, [SYM_RCX] = UREG_RCX, [SYM_RBX] = UREG_RBX,
        [SYM_RSI] = UREG_RSI, [SYM_RDI] = UREG_RDI, [SYM_RBP] = UREG_RBP, [SYM_RSP] = UREG_RSP,
        [SYM_R8] = UREG_R8,   [SYM_R9] = UREG_R9,   [SYM_R10] = UREG_R10, [SYM_R11] = UREG_R11,
        [SYM_R12] = UREG_R12, [SYM_R13] = UREG_R13, [SYM_R14] = UREG_R14, [SYM_R15] = UREG_R15,
        [SYM_RIP] = UREG_RIP};
    if (dwarf_reg <= SYM_RIP) {
        emit(em, PROGRAM_REGISTER, 0, general[dwarf_reg], 0);
        if (size < 8 && size)
            emit(em, PROGRAM_CUT, size, 0, 0);
        return NULL;
    }
    if (dwarf_reg >= SYM_XMM0 && dwarf_reg <= SYM_XMM15) {
        emit(em, PROGRAM_VECTOR, size && size < 8 ? size : 8, dwarf_reg - SYM_XMM0, 0);
        return NULL;
    }
    if (dwarf_reg == SYM_FS_BASE || dwarf_reg == SYM_GS_BASE) {
        emit(em, PROGRAM_REGISTER, 0, dwarf_reg == SYM_FS_BASE ? UREG_FS_BASE : UREG_GS_BASE, 0);
        return NULL;
    }
    return err_new(ERR_UNSUPPORTED, "register %u cannot be read in an expression", dwarf_reg);
}

static struct err *damaged(const struct making *k, const char *what)
{
    return err_new(ERR_FORMAT, "%s: damaged location expression at 0x%jx: %s", k->f->m->path,
                   (uintmax_t)k->f->addr, what);
}

static struct err *known(struct making *k, struct kind kind)
{
    if (k->depth == PROGRAM_MAX_STACK / 2)
        return damaged(k, "stack overflow");
    k->kinds[k->depth++] = kind;
    return NULL;
}

static struct err *push_number(struct making *k, uint64_t v)
{
    emit_push(k->em, v);
    return known(k, (struct kind){0});
}

static struct err *need(const struct making *k, unsigned count)
{
    return k->depth < count ? damaged(k, "stack is empty") : NULL;
}

static struct kind top(const struct making *k, unsigned below)
{
    return k->kinds[k->depth - 1 - below];
}

static struct err *make(struct making *k, const Dwarf_Op *ops, size_t count);

/* Pushes what another expression gives as a number: a frame base, a CFA. */
static struct err *make_number(struct making *k, Dwarf_Attribute *attr, const Dwarf_Op *ops,
                               size_t count)
{
    struct frame plain = *k->f;
    plain.function = NULL; // it must not ask for itself
    struct making inner = {.f = &plain, .attr = attr, .em = k->em, .reg = -1};
    TRY(make(&inner, ops, count));
    if (inner.reg >= 0)
        TRY(emit_register(k->em, (unsigned)inner.reg, 8));
    else if (inner.bytes || inner.depth != 1)
        return damaged(k, "it gives no number");
    return known(k, (struct kind){0});
}

static struct err *make_cfa(struct making *k)
{
    Dwarf_Op *ops;
    size_t count;
    cleanup(freep) Dwarf_Frame *rules = NULL;
    if (k->f->has_cfa)
        return damaged(k, "a CFA that is defined by itself");
    TRY(find_unwind_rules(k->f, &rules));
    if (dwarf_frame_cfa(rules, &ops, &count) != 0 || count == 0)
        return err_dwarf(k->f->m, "unwind information");
    k->f->has_cfa = true;
    struct err *e = make_number(k, NULL, ops, count);
    k->f->has_cfa = false;
    return e;
}

static struct err *make_frame_base(struct making *k)
{
    Dwarf_Attribute attr;
    Dwarf_Op *ops;
    size_t count;
    struct frame *f = k->f;
    if (!f->function || f->function->pub.source != SYM_DWARF)
        return err_new(ERR_NOT_FOUND, "%s: no function's frame at 0x%jx", f->m->path,
                       (uintmax_t)f->addr);
    Dwarf_Die die = f->function->die;
    if (!dwarf_attr_integrate(&die, DW_AT_frame_base, &attr) ||
        dwarf_getlocation_addr(&attr, f->addr, &ops, &count, 1) != 1)
        return err_new(ERR_NOT_FOUND, "%s: no frame base at 0x%jx", f->m->path, (uintmax_t)f->addr);
    return make_number(k, &attr, ops, count);
}

static struct err *make_indexed(struct making *k, const Dwarf_Op *op, uint64_t bias)
{
    Dwarf_Attribute inner;
    Dwarf_Addr addr;
    if (!k->attr || dwarf_getlocation_attr(k->attr, op, &inner) != 0 ||
        dwarf_formaddr(&inner, &addr) != 0)
        return damaged(k, "bad address index");
    return push_number(k, addr + bias);
}

/* --- arithmetic --- */

static bool is_float(struct kind kind)
{
    return kind.encoding == DW_ATE_float;
}

static bool is_signed(struct kind kind)
{
    return !kind.size || kind.encoding == DW_ATE_signed || kind.encoding == DW_ATE_signed_char;
}

static void on_both(struct making *k, enum program_code code, unsigned size)
{
    emit(k->em, code, size, 0, 0);
    emit(k->em, PROGRAM_SWAP, 0, 0, 0);
    emit(k->em, code, size, 0, 0);
    emit(k->em, PROGRAM_SWAP, 0, 0, 0);
}

static const struct {
    uint8_t dwarf;
    uint8_t generic_or_signed, without_sign, real;
    bool compares, swaps, negates;
} operations[] = {
    {DW_OP_and, PROGRAM_AND, PROGRAM_AND, 0, false, false, false},
    {DW_OP_or, PROGRAM_OR, PROGRAM_OR, 0, false, false, false},
    {DW_OP_xor, PROGRAM_XOR, PROGRAM_XOR, 0, false, false, false},
    {DW_OP_plus, PROGRAM_ADD, PROGRAM_ADD, PROGRAM_F_ADD, false, false, false},
    {DW_OP_minus, PROGRAM_SUB, PROGRAM_SUB, PROGRAM_F_SUB, false, false, false},
    {DW_OP_mul, PROGRAM_MUL, PROGRAM_MUL, PROGRAM_F_MUL, false, false, false},
    {DW_OP_div, PROGRAM_DIV_S, PROGRAM_DIV_U, PROGRAM_F_DIV, false, false, false},
    {DW_OP_mod, PROGRAM_MOD_S, PROGRAM_MOD_U, 0, false, false, false},
    {DW_OP_shl, PROGRAM_SHL, PROGRAM_SHL, 0, false, false, false},
    {DW_OP_shr, PROGRAM_SHR, PROGRAM_SHR, 0, false, false, false},
    {DW_OP_shra, PROGRAM_SAR, PROGRAM_SAR, 0, false, false, false},
    {DW_OP_eq, PROGRAM_EQ, PROGRAM_EQ, PROGRAM_F_EQ, true, false, false},
    {DW_OP_ne, PROGRAM_EQ, PROGRAM_EQ, PROGRAM_F_EQ, true, false, true},
    {DW_OP_lt, PROGRAM_LT_S, PROGRAM_LT_U, PROGRAM_F_LT, true, false, false},
    {DW_OP_le, PROGRAM_LE_S, PROGRAM_LE_U, PROGRAM_F_LE, true, false, false},
    {DW_OP_gt, PROGRAM_LT_S, PROGRAM_LT_U, PROGRAM_F_LT, true, true, false},
    {DW_OP_ge, PROGRAM_LE_S, PROGRAM_LE_U, PROGRAM_F_LE, true, true, false},
};

static struct err *make_binary(struct making *k, int atom, bool *known_out)
{
    size_t i = 0, n = sizeof(operations) / sizeof(operations[0]);
    while (i < n && operations[i].dwarf != atom)
        i++;
    *known_out = i < n;
    if (i == n)
        return NULL;
    TRY(need(k, 2));
    struct kind kind = top(k, 1);
    bool real = is_float(kind), shifts = atom == DW_OP_shl || atom == DW_OP_shr;
    if (real && !operations[i].real)
        return damaged(k, "not an operation on floating point numbers");
    // Unsigned on the generic type, by convention (location.c).
    bool with_sign = is_signed(kind) && !(atom == DW_OP_mod && !kind.size);
    if (real && kind.size == 4)
        on_both(k, PROGRAM_F_FROM_FLOAT, 0);
    else if (kind.size && kind.size < 8 && is_signed(kind) && !shifts)
        on_both(k, PROGRAM_EXTEND, kind.size);
    if (operations[i].swaps)
        emit(k->em, PROGRAM_SWAP, 0, 0, 0);
    emit(k->em,
         real        ? operations[i].real
         : with_sign ? operations[i].generic_or_signed
                     : operations[i].without_sign,
         0, 0, 0);
    if (operations[i].negates)
        emit(k->em, PROGRAM_IS_ZERO, 0, 0, 0);
    k->depth--;
    k->kinds[k->depth - 1] = operations[i].compares ? (struct kind){0} : kind;
    if (operations[i].compares)
        return NULL;
    if (real && kind.size == 4)
        emit(k->em, PROGRAM_F_TO_FLOAT, 0, 0, 0);
    else if (kind.size && kind.size < 8)
        emit(k->em, PROGRAM_CUT, kind.size, 0, 0);
    return NULL;
}

static struct err *make_unary(struct making *k, const Dwarf_Op *op)
{
    TRY(need(k, 1));
    struct kind kind = top(k, 0);
    if (is_float(kind) && op->atom == DW_OP_neg) {
        emit_push(k->em, 1ull << (8 * kind.size - 1));
        emit(k->em, PROGRAM_XOR, 0, 0, 0);
        return NULL;
    }
    if (is_float(kind) || op->atom == DW_OP_abs)
        return err_new(ERR_UNSUPPORTED, "location with operation 0x%x in an expression",
                       (unsigned)op->atom);
    if (op->atom == DW_OP_plus_uconst) {
        emit_push(k->em, op->number);
        emit(k->em, PROGRAM_ADD, 0, 0, 0);
    } else {
        emit(k->em, op->atom == DW_OP_neg ? PROGRAM_NEG : PROGRAM_NOT, 0, 0, 0);
    }
    if (kind.size && kind.size < 8)
        emit(k->em, PROGRAM_CUT, kind.size, 0, 0);
    return NULL;
}

/* --- typed operations --- */

static struct err *base_kind(struct making *k, const Dwarf_Op *op, struct kind *out)
{
    Dwarf_Die die;
    uint64_t size, encoding;
    *out = (struct kind){0};
    bool may_be_generic = op->atom == DW_OP_convert || op->atom == DW_OP_GNU_convert ||
                          op->atom == DW_OP_reinterpret || op->atom == DW_OP_GNU_reinterpret;
    if (may_be_generic && op->number == 0)
        return NULL;
    if (!k->attr || dwarf_getlocation_die(k->attr, op, &die) != 0 ||
        !die_unsigned(&die, DW_AT_byte_size, &size) ||
        !die_unsigned(&die, DW_AT_encoding, &encoding))
        return damaged(k, "bad base type");
    bool is_size = size == 1 || size == 2 || size == 4 || size == 8;
    if (!is_size || encoding > UINT8_MAX || (encoding == DW_ATE_float && size < 4))
        return err_new(ERR_UNSUPPORTED, "location with numbers of %ju bytes", (uintmax_t)size);
    *out = (struct kind){(uint8_t)size, (uint8_t)encoding};
    return NULL;
}

static struct err *make_conversion(struct making *k, const Dwarf_Op *op)
{
    struct kind to;
    TRY(base_kind(k, op, &to));
    TRY(need(k, 1));
    struct kind from = top(k, 0);
    k->kinds[k->depth - 1] = to;
    bool only_bits = op->atom == DW_OP_reinterpret || op->atom == DW_OP_GNU_reinterpret;
    if (!only_bits && is_float(from) && from.size == 4)
        emit(k->em, PROGRAM_F_FROM_FLOAT, 0, 0, 0);
    if (!only_bits && !is_float(from) && from.size && from.size < 8 && is_signed(from))
        emit(k->em, PROGRAM_EXTEND, from.size, 0, 0);
    if (!only_bits && is_float(to) && !is_float(from))
        emit(k->em, is_signed(from) ? PROGRAM_F_FROM_S : PROGRAM_F_FROM_U, 0, 0, 0);
    if (!only_bits && is_float(from) && !is_float(to))
        emit(k->em, PROGRAM_F_TO_S, 0, 0, 0);
    if (!only_bits && is_float(to) && to.size == 4)
        emit(k->em, PROGRAM_F_TO_FLOAT, 0, 0, 0);
    else if (!is_float(to) && to.size && to.size < 8)
        emit(k->em, PROGRAM_CUT, to.size, 0, 0);
    return NULL;
}

static struct err *make_typed(struct making *k, const Dwarf_Op *op)
{
    struct kind kind;
    switch (op->atom) {
    case DW_OP_const_type:
    case DW_OP_GNU_const_type: {
        TRY(base_kind(k, op, &kind));
        const uint8_t *data =
            (const uint8_t *)(uintptr_t)op->number2; // libdw: a length byte, then the bytes
        uint64_t v = 0;
        if (!data || data[0] != kind.size)
            return damaged(k, "bad typed constant");
        memcpy(&v, data + 1, kind.size);
        emit_push(k->em, v);
        return known(k, kind);
    }
    case DW_OP_regval_type:
    case DW_OP_GNU_regval_type:
        TRY(base_kind(k, op, &kind));
        TRY(emit_register(k->em, (unsigned)op->number, kind.size));
        return known(k, kind);
    case DW_OP_deref_type:
    case DW_OP_GNU_deref_type:
        TRY(base_kind(k, op, &kind));
        TRY(need(k, 1));
        emit(k->em, PROGRAM_LOAD, kind.size, 0, 0);
        k->kinds[k->depth - 1] = kind;
        return NULL;
    default:
        return make_conversion(k, op);
    }
}

static struct err *make_load(struct making *k, uint64_t size)
{
    TRY(need(k, 1));
    if (size != 1 && size != 2 && size != 4 && size != 8)
        return err_new(ERR_UNSUPPORTED, "location with a read of %ju bytes", (uintmax_t)size);
    emit(k->em, PROGRAM_LOAD, (unsigned)size, 0, 0);
    k->kinds[k->depth - 1] = (struct kind){0};
    return NULL;
}

static struct err *make_copy(struct making *k, uint64_t below)
{
    if (below >= k->depth)
        return damaged(k, "stack is too short");
    emit(k->em, PROGRAM_COPY, 0, (unsigned)below, 0);
    return known(k, top(k, (unsigned)below));
}

static struct err *make_location(struct making *k, const Dwarf_Op *op)
{
    Dwarf_Block block;
    k->has_location = true;
    switch (op->atom) {
    case DW_OP_regx:
        if (op->number > 255)
            return damaged(k, "bad register");
        k->reg = (int)op->number;
        return NULL;
    case DW_OP_stack_value:
        k->is_value = true;
        return need(k, 1);
    default: // DW_OP_implicit_value
        if (!k->attr || dwarf_getlocation_implicit_value(k->attr, op, &block) != 0)
            return damaged(k, "bad implicit value");
        k->bytes = block.data;
        k->bytes_len = block.length;
        return NULL;
    }
}

/* The offset is on the stack. */
static struct err *make_thread_local(struct making *k)
{
    if (!k->f->ctx->tls_offset)
        return err_new(ERR_UNSUPPORTED,
                       "thread-local variables of this library cannot be found here");
    emit(k->em, PROGRAM_REGISTER, 0, UREG_FS_BASE, 0);
    emit(k->em, PROGRAM_ADD, 0, 0, 0);
    emit_push(k->em, k->f->ctx->tls_offset);
    emit(k->em, PROGRAM_SUB, 0, 0, 0);
    return NULL;
}

static struct err *make_step(struct making *k, const Dwarf_Op *op)
{
    int atom = op->atom;
    bool is_binary;
    if (atom >= DW_OP_lit0 && atom <= DW_OP_lit31)
        return push_number(k, (uint64_t)(atom - DW_OP_lit0));
    if ((atom >= DW_OP_breg0 && atom <= DW_OP_breg31) || atom == DW_OP_bregx) {
        unsigned reg = atom == DW_OP_bregx ? (unsigned)op->number : (unsigned)(atom - DW_OP_breg0);
        TRY(emit_register(k->em, reg, 8));
        emit_push(k->em, atom == DW_OP_bregx ? op->number2 : op->number);
        emit(k->em, PROGRAM_ADD, 0, 0, 0);
        return known(k, (struct kind){0});
    }
    if (atom >= DW_OP_reg0 && atom <= DW_OP_reg31) {
        k->has_location = true;
        k->reg = atom - DW_OP_reg0;
        return NULL;
    }
    TRY(make_binary(k, atom, &is_binary));
    if (is_binary)
        return NULL;
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
        return push_number(k, op->number);
    case DW_OP_addr:
        return push_number(k, op->number + k->f->ctx->bias);
    case DW_OP_addrx:
    case DW_OP_GNU_addr_index:
        return make_indexed(k, op, k->f->ctx->bias);
    case DW_OP_constx:
    case DW_OP_GNU_const_index:
        return make_indexed(k, op, 0);
    case DW_OP_fbreg:
        TRY(make_frame_base(k));
        emit_push(k->em, op->number);
        emit(k->em, PROGRAM_ADD, 0, 0, 0);
        return NULL;
    case DW_OP_call_frame_cfa:
        return make_cfa(k);
    case DW_OP_dup:
        return make_copy(k, 0);
    case DW_OP_over:
        return make_copy(k, 1);
    case DW_OP_pick:
        return make_copy(k, op->number);
    case DW_OP_drop:
        TRY(need(k, 1));
        emit(k->em, PROGRAM_DROP, 0, 0, 0);
        k->depth--;
        return NULL;
    case DW_OP_swap: {
        TRY(need(k, 2));
        emit(k->em, PROGRAM_SWAP, 0, 0, 0);
        struct kind kind = top(k, 0);
        k->kinds[k->depth - 1] = top(k, 1);
        k->kinds[k->depth - 2] = kind;
        return NULL;
    }
    case DW_OP_deref:
        return make_load(k, 8);
    case DW_OP_deref_size:
        return make_load(k, op->number);
    case DW_OP_neg:
    case DW_OP_not:
    case DW_OP_abs:
    case DW_OP_plus_uconst:
        return make_unary(k, op);
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
        return make_typed(k, op);
    case DW_OP_regx:
    case DW_OP_stack_value:
    case DW_OP_implicit_value:
        return make_location(k, op);
    case DW_OP_nop:
    case DW_OP_GNU_uninit:
        return NULL;
    case DW_OP_implicit_pointer:
    case DW_OP_GNU_implicit_pointer:
        return err_new(ERR_NOT_FOUND,
                       "optimized out: a pointer whose target lives only in registers");
    case DW_OP_entry_value:
    case DW_OP_GNU_entry_value:
        return err_new(ERR_NOT_FOUND, "optimized out: known only when the function was entered");
    case DW_OP_form_tls_address:
    case DW_OP_GNU_push_tls_address:
        return make_thread_local(k);
    default:
        return err_new(ERR_UNSUPPORTED, "location with operation 0x%x in an expression",
                       (unsigned)atom);
    }
}

static struct err *make(struct making *k, const Dwarf_Op *ops, size_t count)
{
    if (count > MOST_OPS)
        return damaged(k, "too long");
    for (size_t i = 0; i < count; i++)
        TRY(make_step(k, &ops[i]));
    return NULL;
}

/* --- places --- */

static bool copy_ops(const struct emitter *em, struct program_op *ops, size_t most, size_t *count)
{
    if (em->full || em->count > most)
        return false;
    memcpy(ops, em->ops, em->count * sizeof(ops[0]));
    *count = em->count;
    return true;
}

static struct err *too_long(void)
{
    return err_new(ERR_UNSUPPORTED, "its location is too long for an expression");
}

/* Ends a piece of `len` bytes, or the whole, and begins anew. */
static struct err *end_part(struct making *k, uint64_t off, uint64_t len, struct place *out)
{
    if (out->part_count == MAX_PARTS)
        return too_long();
    struct part *p = &out->parts[out->part_count++];
    *p = (struct part){.off = off, .len = len, .vector = -1};
    if (k->bytes) {
        if (k->bytes_len < len)
            return damaged(k, "bad implicit value");
        p->bytes = k->bytes;
    } else if (k->reg >= SYM_XMM0 && k->reg <= SYM_XMM15) {
        p->vector = k->reg - SYM_XMM0;
    } else if (k->reg >= 0) {
        TRY(emit_register(k->em, (unsigned)k->reg, 8));
    } else if (!k->depth) {
        p->is_missing = true;
    } else {
        p->is_address = !k->is_value;
    }
    if (!copy_ops(k->em, p->ops, sizeof(p->ops) / sizeof(p->ops[0]), &p->count))
        return too_long();
    k->em->count = 0;
    k->depth = 0;
    k->has_location = k->is_value = false;
    k->reg = -1;
    k->bytes = NULL;
    return NULL;
}

static struct err *compile_pieces(struct making *k, const Dwarf_Op *ops, size_t count,
                                  struct place *out)
{
    uint64_t at = 0;
    out->kind = PLACE_PARTS;
    for (size_t i = 0; i < count; i++) {
        if (ops[i].atom == DW_OP_bit_piece)
            return err_new(ERR_UNSUPPORTED, "a value in pieces of bits");
        if (ops[i].atom != DW_OP_piece) {
            TRY(make_step(k, &ops[i]));
            continue;
        }
        if (ops[i].number > UINT16_MAX)
            return damaged(k, "huge piece");
        TRY(end_part(k, at, ops[i].number, out));
        at += ops[i].number;
    }
    return NULL;
}

struct err *location_compile(struct frame *f, Dwarf_Attribute *attr, uint64_t size,
                             struct place *out)
{
    Dwarf_Op *ops;
    size_t count = 0;
    struct emitter em = {0};
    struct making k = {.f = f, .attr = attr, .em = &em, .reg = -1};
    *out = (struct place){0};
    int found = dwarf_getlocation_addr(attr, f->addr, &ops, &count, 1);
    if (found < 0)
        return err_dwarf(f->m, "location");
    if (found == 0 || count == 0)
        return err_new(ERR_NOT_FOUND, "optimized out at 0x%jx", (uintmax_t)f->addr);
    for (size_t i = 0; i < count; i++) {
        if (ops[i].atom == DW_OP_piece || ops[i].atom == DW_OP_bit_piece)
            return compile_pieces(&k, ops, count, out);
    }
    TRY(make(&k, ops, count));
    if (!k.has_location && k.depth) {
        out->kind = PLACE_MEMORY;
        return copy_ops(&em, out->ops, sizeof(out->ops) / sizeof(out->ops[0]), &out->count)
                   ? NULL
                   : too_long();
    }
    out->kind = PLACE_PARTS;
    return end_part(&k, 0, size, out);
}

struct err *place_of_arguments(const struct pieces *pieces, uint64_t size, bool by_reference,
                               struct place *out)
{
    *out = (struct place){.kind = PLACE_PARTS};
    uint64_t at = 0;
    vec_each (p, pieces) {
        struct emitter em = {0};
        uint64_t len = p->bits ? p->bits / 8 : by_reference ? 8 : size;
        bool in_memory = p->location.kind == LOCATION_MEMORY;
        struct part *part = &out->parts[out->part_count];
        if (out->part_count++ == MAX_PARTS)
            return too_long();
        *part = (struct part){
            .off = at, .len = len < size - at || by_reference ? len : size - at, .vector = -1};
        if (in_memory) {
            TRY(emit_register(&em, SYM_RSP, 8));
            emit_push(&em, p->location.value);
            emit(&em, PROGRAM_ADD, 0, 0, 0);
            if (by_reference)
                emit(&em, PROGRAM_LOAD, 8, 0, 0);
        } else if (p->location.value >= SYM_XMM0 && p->location.value <= SYM_XMM15) {
            part->vector = (int)(p->location.value - SYM_XMM0);
        } else {
            TRY(emit_register(&em, (unsigned)p->location.value, 8));
        }
        if (in_memory || by_reference) {
            out->kind = PLACE_MEMORY;
            return copy_ops(&em, out->ops, sizeof(out->ops) / sizeof(out->ops[0]), &out->count)
                       ? NULL
                       : too_long();
        }
        (void)copy_ops(&em, part->ops, sizeof(part->ops) / sizeof(part->ops[0]), &part->count);
        at += len;
    }
    return out->part_count ? NULL : err_new(ERR_NOT_FOUND, "it has no value");
}
