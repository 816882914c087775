/* Where the bytes that an instruction writes came from.
 *
 * A byte of the destination has an index i in its operand. Each shape (shapes.c) has a function
 * that says for i which byte of which source it is. Around these, alike for all: what lies behind
 * the operand and becomes zero; masks.
 *
 *     vpunpcklbw ymm1{k1}{z}, ymm2, ymm3    i = 18: in lane 1, the second byte -> byte 16 of ymm3
 *                                           i = 40: behind the operand         -> 0
 *                                           bit 18 of k1 is clear              -> 0
 */
#include "x86/x86_int.h"

#include <string.h>

struct flow {
    const struct x86_insn *in;
    const struct x86_run *run;
    const struct shape_info *shape;
    unsigned dest; /* operand */
    unsigned i, n; /* byte of it, and how many it has */
    unsigned first, second,
        third;     /* sources: operands, or X86_NONE. With one source all three are it */
    unsigned last; /* the last source */
    bool has_imm;
    uint64_t imm;
    struct x86_place to;
    struct x86_origin out;
};

/* --- answers --- */

static void constant(struct flow *f, unsigned value)
{
    f->out = (struct x86_origin){.kind = X86_CONST, .value = (uint8_t)value};
}

static void computed(struct flow *f)
{
    f->out = (struct x86_origin){.kind = X86_COMPUTED};
}

static void untouched(struct flow *f)
{
    f->out = (struct x86_origin){.kind = X86_UNTOUCHED};
}

static void unknown(struct flow *f, const char *why)
{
    f->out = (struct x86_origin){.kind = X86_UNKNOWN, .why = why};
}

static bool memory_place(const struct flow *f, unsigned op, unsigned byte, struct x86_place *out)
{
    struct x86_access some[X86_MAX_ACCESSES];
    size_t n = x86_accesses(f->in, f->run, some);
    for (size_t i = 0; i < n; i++) {
        if (some[i].operand == op) {
            *out = (struct x86_place){true, some[i].addr + byte};
            return true;
        }
    }
    return false;
}

/* The byte of a source operand; elements that are broadcast from memory come again and again. */
static bool place_in(const struct flow *f, unsigned op, unsigned byte, struct x86_place *out)
{
    const struct x86_operand *o = &f->in->operands[op];
    if (o->kind == X86_MEMORY)
        return memory_place(f, op, o->len ? byte % o->len : byte, out);
    if (o->kind != X86_REGISTER)
        return false;
    *out = (struct x86_place){false, o->start + byte};
    return true;
}

static void copy(struct flow *f, unsigned op, unsigned byte)
{
    const struct x86_operand *o = &f->in->operands[op];
    struct x86_place from;
    if (o->kind == X86_IMMEDIATE) {
        constant(f, byte < 8 ? (unsigned)(o->imm >> 8 * byte & 0xff) : 0);
    } else if (!place_in(f, op, byte, &from)) {
        unknown(f, "an operand's address is not known");
    } else if (!from.memory && from.at >= X86_CONTROL) {
        unknown(f, "control registers and selectors are not followed");
    } else if (from.memory == f->to.memory && from.at == f->to.at) {
        untouched(f);
    } else {
        f->out = (struct x86_origin){.kind = X86_COPY, .from = from};
    }
}

static void sign_of(struct flow *f, unsigned op, unsigned byte)
{
    struct x86_place from;
    if (place_in(f, op, byte, &from))
        f->out = (struct x86_origin){.kind = X86_SIGN, .from = from};
    else
        unknown(f, "an operand's address is not known");
}

/* --- values that steer --- */

static bool read_register(const struct flow *f, unsigned start, unsigned len, uint8_t *out)
{
    return x86_read_regs(f->run->before, start, len, out) ||
           (f->run->registers && f->run->registers(f->run->ctx, start, len, out));
}

/* Reads bytes of a source operand; false, and the answer is given, if they are not known. */
static bool control(struct flow *f, unsigned op, unsigned byte, unsigned len, uint8_t *out)
{
    const struct x86_operand *o = &f->in->operands[op];
    struct x86_place from;
    bool ok = place_in(f, op, byte, &from);
    if (ok && from.memory)
        ok = f->run->memory && f->run->memory(f->run->ctx, false, from.at,
                                              o->len && len > o->len ? o->len : len, out);
    else if (ok)
        ok = read_register(f, (unsigned)from.at, len, out);
    if (!ok)
        unknown(f, "depends on a register's value, which is not known");
    return ok;
}

static bool mask_bit(struct flow *f, unsigned element, bool *on)
{
    uint8_t mask[8];
    if (!read_register(f, X86_MASK + 8u * f->in->mask, 8, mask)) {
        unknown(f, "depends on a mask register, whose value is not known");
        return false;
    }
    *on = mask[element / 8] >> element % 8 & 1;
    return true;
}

static bool after_flag(struct flow *f, enum x86_flag flag, bool *on)
{
    uint8_t v;
    if (!f->run->after) {
        unknown(f, "the registers after the instruction are not known");
        return false;
    }
    x86_read_regs(f->run->after, X86_FLAGS + flag, 1, &v);
    *on = v;
    return true;
}

/* Conditions by their number in machine code (SDM 2A, appendix B, table B-10). */
static bool condition(const struct regs *regs, unsigned code)
{
    uint8_t f[X86_OTHER_FLAGS];
    x86_read_regs(regs, X86_FLAGS, X86_OTHER_FLAGS, f);
    bool on = false;
    switch (code / 2) {
    case 0:
        on = f[X86_OF];
        break;
    case 1:
        on = f[X86_CF];
        break;
    case 2:
        on = f[X86_ZF];
        break;
    case 3:
        on = f[X86_CF] || f[X86_ZF];
        break;
    case 4:
        on = f[X86_SF];
        break;
    case 5:
        on = f[X86_PF];
        break;
    case 6:
        on = f[X86_SF] != f[X86_OF];
        break;
    case 7:
        on = f[X86_ZF] || f[X86_SF] != f[X86_OF];
        break;
    }
    return on != (code & 1);
}

static bool same_register(const struct flow *f, unsigned a, unsigned b)
{
    if (a == b || a == X86_NONE || b == X86_NONE)
        return false;
    const struct x86_operand *x = &f->in->operands[a], *y = &f->in->operands[b];
    return x->kind == X86_REGISTER && y->kind == X86_REGISTER && x->start == y->start &&
           x->len == y->len;
}

/* --- general instructions --- */

static unsigned find_operand(const struct x86_insn *in, unsigned kind, bool hidden, bool reads)
{
    for (unsigned i = 0; i < in->operand_count; i++) {
        const struct x86_operand *o = &in->operands[i];
        if (o->kind == kind && o->visible != hidden && (reads ? o->reads : o->writes))
            return i;
    }
    return X86_NONE;
}

static void move(struct flow *f)
{
    const struct x86_insn *in = f->in;
    const struct x86_operand *dest = &in->operands[f->dest];
    unsigned from = x86_visible(in, 1);
    if (dest->kind == X86_MEMORY && !dest->visible) // push, movdir64b
        from = from == X86_NONE ? x86_visible(in, 0) : from;
    else if (from == X86_NONE) // pop, lods, xlat
        from = find_operand(in, X86_MEMORY, true, true);
    if (from == X86_NONE && in->mnemonic)
        from = find_operand(in, X86_REGISTER, true, true); // stmxcsr
    if (from == X86_NONE ||
        (dest->kind == X86_REGISTER && !dest->visible && dest->start == 8 * GPR_RSP)) {
        computed(f); // the stack pointer
        return;
    }
    const struct x86_operand *o = &in->operands[from];
    if (o->kind == X86_MEMORY && o->mem.how == X86_AT_STRING) { // lods: the last one stays
        uint64_t n = x86_iterations(in, f->run);
        bool down = f->run->before->r[UREG_EFLAGS] >> 10 & 1;
        if (dest->start != X86_GPR + 8 * GPR_RAX) {
            n ? computed(f) : untouched(f); // RSI, RCX
        } else if (n == 0) {
            untouched(f);
        } else {
            copy(f, from, 0);
            f->out.from.at += (down ? 0 : (n - 1) * o->len) + f->i;
        }
    } else if (o->kind == X86_IMMEDIATE) {
        constant(f, (unsigned)(o->imm >> 8 * f->i & 0xff));
    } else if (f->i < o->len) {
        copy(f, from, f->i);
    } else {
        constant(f, 0);
    }
}

static void sign_extend(struct flow *f)
{
    unsigned len = f->in->operands[f->second].len;
    if (f->i < len)
        copy(f, f->second, f->i);
    else
        sign_of(f, f->second, len - 1);
}

static void cmpxchg(struct flow *f)
{
    unsigned dest = x86_visible(f->in, 0), source = x86_visible(f->in, 1);
    bool equal;
    if (!after_flag(f, X86_ZF, &equal))
        return;
    if (f->dest == dest) {
        if (equal)
            copy(f, source, f->i);
        else
            untouched(f);
    } else if (equal) {
        untouched(f);
    } else {
        copy(f, dest, f->i);
    }
}

/* The bytes behind the 32-bit operands of cmpxchg: only what is really written is extended. */
static void cmpxchg_upper(struct flow *f)
{
    bool equal, is_dest = f->dest == x86_visible(f->in, 0);
    if (!after_flag(f, X86_ZF, &equal))
        return;
    if (is_dest && !equal)
        unknown(f, "what is left of a register after a failed cmpxchg differs between CPUs");
    else if (is_dest || !equal)
        constant(f, 0);
    else
        untouched(f);
}

/* rdx:rax against memory; rcx:rbx goes there. */
static void cmpxchg_pair(struct flow *f)
{
    unsigned half = f->shape->a;
    bool equal, upper = f->i >= f->n;
    const struct x86_operand *o = &f->in->operands[f->dest];
    if (!after_flag(f, X86_ZF, &equal))
        return;
    if (o->kind == X86_MEMORY) {
        if (!equal)
            untouched(f);
        else
            f->out = (struct x86_origin){
                .kind = X86_COPY,
                .from = {false, f->i < half ? 8 * GPR_RBX + f->i : 8 * GPR_RCX + f->i - half}};
    } else if (equal) {
        untouched(f);
    } else if (upper) {
        constant(f, 0);
    } else {
        copy(f, x86_visible(f->in, 0), o->start == 8 * GPR_RDX ? half + f->i : f->i);
    }
}

static void lea(struct flow *f)
{
    const struct x86_operand *o = &f->in->operands[f->second];
    const struct x86_mem *m = &o->mem;
    if (m->base == X86_NONE && m->index == X86_NONE)
        constant(f, (unsigned)((m->address32 ? (uint32_t)m->disp : (uint64_t)m->disp) >> 8 * f->i &
                               0xff));
    else if (m->index == X86_NONE && m->disp == 0 && !(m->address32 && f->i >= 4))
        f->out = (struct x86_origin){.kind = X86_COPY, .from = {false, 8u * m->base + f->i}};
    else if (m->base == X86_NONE && m->disp == 0 && m->scale == 1 && !(m->address32 && f->i >= 4))
        f->out = (struct x86_origin){.kind = X86_COPY, .from = {false, 8u * m->index + f->i}};
    else
        computed(f);
    if (f->out.kind == X86_COPY && !f->to.memory && f->out.from.at == f->to.at)
        untouched(f);
}

/* and, or, xor: bytes that the immediate passes, clears or sets. */
static void logic(struct flow *f)
{
    enum shape shape = f->shape->shape;
    if (shape == SHAPE_XOR && same_register(f, f->first, f->second)) {
        constant(f, 0);
    } else if (shape != SHAPE_XOR && same_register(f, f->first, f->second)) {
        copy(f, f->first, f->i);
    } else if (f->has_imm) {
        unsigned v = f->imm >> 8 * f->i & 0xff;
        if (shape == SHAPE_AND ? v == 0xff : v == 0)
            copy(f, f->first, f->i);
        else if (shape != SHAPE_XOR && v == (shape == SHAPE_AND ? 0 : 0xff))
            constant(f, v);
        else
            computed(f);
    } else {
        computed(f);
    }
}

/* Shifts by whole bytes. */
static void shift(struct flow *f)
{
    const struct x86_insn *in = f->in;
    bool by_register =
        !f->has_imm && f->second != f->first && in->operands[f->second].kind == X86_REGISTER;
    unsigned source = f->first, n = f->n, i = f->i;
    uint64_t count = f->has_imm    ? f->imm
                     : by_register ? x86_gpr(f->run->before, in->operands[f->second].start / 8)
                                   : 1;
    if (in->vex && !by_register) // rorx
        source = f->second;
    count &= n == 8 ? 63 : 31;
    enum shape shape = f->shape->shape;
    if (shape == SHAPE_ROTATE_LEFT || shape == SHAPE_ROTATE_RIGHT)
        count %= 8 * n;
    if (count % 8) {
        computed(f);
        return;
    }
    unsigned by = (unsigned)(count / 8);
    switch (shape) {
    case SHAPE_SHIFT_LEFT:
        if (i < by)
            constant(f, 0);
        else
            copy(f, source, i - by);
        break;
    case SHAPE_SHIFT_RIGHT:
        if (i + by >= n)
            constant(f, 0);
        else
            copy(f, source, i + by);
        break;
    case SHAPE_SHIFT_SIGNED:
        if (i + by >= n)
            sign_of(f, source, n - 1);
        else
            copy(f, source, i + by);
        break;
    case SHAPE_ROTATE_LEFT:
        copy(f, source, (i + n - by) % n);
        break;
    default:
        copy(f, source, (i + by) % n);
        break;
    }
}

/* shld, shrd: what is shifted in comes from the second operand. */
static void double_shift(struct flow *f)
{
    unsigned n = f->n, i = f->i;
    uint64_t count = f->has_imm ? f->imm : x86_gpr(f->run->before, GPR_RCX);
    count &= n == 8 ? 63 : 31;
    if (count % 8 || count > 8 * n) {
        computed(f);
        return;
    }
    unsigned by = (unsigned)(count / 8), other = x86_visible(f->in, 1);
    if (f->shape->shape == SHAPE_DOUBLE_LEFT)
        i < by ? copy(f, other, n - by + i) : copy(f, f->first, i - by);
    else
        i + by < n ? copy(f, f->first, i + by) : copy(f, other, i + by - n);
}

/* movs, with all that overlapping source and destination do: element after element. */
static void string_move(struct flow *f, gaddr at)
{
    const struct regs *regs = f->run->before;
    uint64_t size = f->in->operands[f->dest].len, to = x86_gpr(regs, GPR_RDI),
             from = x86_gpr(regs, GPR_RSI);
    bool down = regs->r[UREG_EFLAGS] >> 10 & 1;
    const struct x86_operand *source =
        &f->in->operands[find_operand(f->in, X86_MEMORY, true, true)];
    if (source->mem.address32)
        to = (uint32_t)to, from = (uint32_t)from;
    if (source->mem.segment)
        from += regs->r[source->mem.segment == 1 ? UREG_FS_BASE : UREG_GS_BASE];
    uint64_t distance = to - from;
    if (!down && distance >= size && at - to >= distance && at - to < (1ull << 48))
        at = to + (at - to) % distance;
    for (;;) {
        uint64_t done =
            down ? (to + size - 1 - at) / size : (at - to) / size; // elements moved before this one
        uint64_t source_at = at - distance;
        bool moved = down ? done && source_at < to + size && source_at >= to + size - done * size
                          : source_at >= to && source_at < to + done * size;
        if (!moved) {
            f->out = (struct x86_origin){.kind = X86_COPY, .from = {true, source_at}};
            break;
        }
        at = source_at;
    }
    if (f->out.from.at == f->to.at)
        untouched(f);
}

static void string_store(struct flow *f, gaddr at)
{
    uint64_t size = f->in->operands[f->dest].len, to = x86_gpr(f->run->before, GPR_RDI);
    if (f->in->operands[f->dest].mem.address32)
        to = (uint32_t)to;
    f->out = (struct x86_origin){.kind = X86_COPY,
                                 .from = {false, 8 * GPR_RAX + ((at - to) & (size - 1))}};
}

static void string_instruction(struct flow *f)
{
    if (f->to.memory && f->shape->shape == SHAPE_STRING_STORE)
        string_store(f, f->to.at);
    else if (f->to.memory)
        string_move(f, f->to.at);
    else if (x86_iterations(f->in, f->run) == 0)
        untouched(f);
    else
        computed(f); // RSI, RDI, RCX
}

/* --- vectors --- */

static unsigned lane_of(const struct flow *f)
{
    return f->n < 16 ? 0 : f->i & ~15u;
}

static void scalar(struct flow *f, bool moves)
{
    bool three = f->first != f->second;
    if (f->i < f->shape->a || f->in->operands[f->dest].start >= X86_MASK) // vcmpss makes a mask
        moves ? copy(f, f->second, f->i) : computed(f);
    else if (f->in->vex && three && f->shape->b != 2)
        copy(f, f->first, f->i);
    else if (moves)
        constant(f, 0); // from memory
    else
        untouched(f);
}

/* movlps, movhps, movhlps, movlhps: a half of a register from the operand that is half as long;
 * with three operands, the other half from the first source. */
static void half(struct flow *f, bool high)
{
    if (f->n == 8)
        copy(f, f->second, f->i);
    else if ((f->i >= 8) == high)
        copy(f, f->second, f->i % 8);
    else
        copy(f, f->first, f->i);
}

static void shuffle_bits(struct flow *f, unsigned source, unsigned width, unsigned element)
{
    unsigned e = f->i % 16 / element, bits = width == 2 ? 3 : 1;
    unsigned shift = width == 2 ? 2 * e : f->i / element;
    copy(f, source, lane_of(f) + (unsigned)(f->imm >> shift & bits) * element + f->i % element);
}

static void permute_lane(struct flow *f)
{
    unsigned element = f->shape->a;
    uint8_t v[8];
    if (f->has_imm) {
        shuffle_bits(f, f->second, element == 4 ? 2 : 1, element);
    } else if (control(f, f->second, f->i - f->i % element, element, v)) {
        unsigned which = element == 4 ? v[0] & 3 : v[0] >> 1 & 1;
        copy(f, f->first, lane_of(f) + which * element + f->i % element);
    }
}

static void permute(struct flow *f)
{
    unsigned element = f->shape->a;
    uint8_t v[8];
    if (control(f, f->first, f->i - f->i % element, element, v))
        copy(f, f->second, (v[0] & (f->n / element - 1)) * element + f->i % element);
}

static void permute_2(struct flow *f)
{
    unsigned element = f->shape->a, count = f->n / element;
    bool dest_is_table = f->shape->b;
    uint8_t v[8] = {0};
    if (!control(f, dest_is_table ? f->first : f->dest, f->i - f->i % element, element, v))
        return;
    unsigned which = (unsigned)(v[0] | (element > 1 ? v[1] << 8 : 0)) & (2 * count - 1);
    unsigned table = which >= count ? f->second : dest_is_table ? f->dest : f->first;
    copy(f, table, which % count * element + f->i % element);
}

static void permute_128(struct flow *f)
{
    unsigned bits = (unsigned)(f->imm >> (f->i >= 16 ? 4 : 0)) & 0xf;
    if (bits & 8)
        constant(f, 0);
    else
        copy(f, bits & 2 ? f->second : f->first, (bits & 1) * 16 + f->i % 16);
}

static void shuffle_128(struct flow *f)
{
    unsigned lane = f->i / 16, lanes = f->n / 16;
    unsigned which = lanes == 2 ? f->imm >> lane & 1 : f->imm >> 2 * lane & 3;
    copy(f, lane < lanes / 2 ? f->first : f->second, which * 16 + f->i % 16);
}

static void unpack(struct flow *f)
{
    unsigned element = f->shape->a, lane = f->n < 16 ? 8 : 16, o = f->i % lane, e = o / element;
    unsigned from = e / 2 + (f->shape->b ? lane / element / 2 : 0);
    copy(f, e & 1 ? f->second : f->first, lane_of(f) + from * element + o % element);
}

static void align(struct flow *f, unsigned lane, unsigned element)
{
    unsigned base = f->i - f->i % lane;
    uint64_t by = element > 1 ? (f->imm & (lane / element - 1)) * element : f->imm;
    uint64_t at = f->i % lane + by;
    if (at < lane)
        copy(f, f->second, base + (unsigned)at);
    else if (at < 2 * lane)
        copy(f, f->first, base + (unsigned)at - lane);
    else
        constant(f, 0);
}

static void bytes_shift(struct flow *f, bool left)
{
    unsigned o = f->i % 16;
    uint64_t by = f->imm > 16 ? 16 : f->imm;
    unsigned source = f->in->vex ? f->second : f->dest;
    if (left ? o < by : o + by >= 16)
        constant(f, 0);
    else
        copy(f, source, left ? f->i - (unsigned)by : f->i + (unsigned)by);
}

static void shuffle_bytes(struct flow *f)
{
    uint8_t v;
    if (!control(f, f->second, f->i, 1, &v))
        return;
    if (v & 0x80)
        constant(f, 0);
    else
        copy(f, f->first, f->n < 16 ? v & 7 : lane_of(f) + (v & 15));
}

static void blend_var(struct flow *f)
{
    unsigned element = f->shape->a;
    uint8_t v[8];
    if (control(f, f->third, f->i - f->i % element, element, v))
        copy(f, v[element - 1] & 0x80 ? f->second : f->first, f->i);
}

static void blend_mask(struct flow *f)
{
    bool on = true;
    if (f->in->mask && !mask_bit(f, f->i / f->shape->a, &on))
        return;
    if (!on && f->in->mask_zeroes)
        constant(f, 0);
    else
        copy(f, on ? f->second : f->first, f->i);
}

static void insert_ps(struct flow *f)
{
    unsigned e = f->i / 4, to = f->imm >> 4 & 3, from = f->imm >> 6 & 3;
    if (f->imm >> e & 1)
        constant(f, 0);
    else if (e != to)
        copy(f, f->first, f->i);
    else
        copy(f, f->second,
             (f->in->operands[f->second].kind == X86_MEMORY ? 0 : from * 4) + f->i % 4);
}

static void insert(struct flow *f)
{
    unsigned size = f->shape->a, e = f->i / size;
    if (e == (f->imm & (f->n / size - 1)))
        copy(f, f->second, f->i % size);
    else
        copy(f, f->first, f->i);
}

static void extract(struct flow *f)
{
    unsigned size = f->shape->a, len = f->in->operands[f->second].len;
    if (f->i >= size)
        constant(f, 0);
    else
        copy(f, f->second, (unsigned)(f->imm & (len / size - 1)) * size + f->i);
}

static void extend(struct flow *f, bool is_signed)
{
    unsigned from = f->shape->a, to = f->shape->b, e = f->i / to, o = f->i % to;
    if (o < from)
        copy(f, f->second, e * from + o);
    else if (is_signed)
        sign_of(f, f->second, e * from + from - 1);
    else
        constant(f, 0);
}

static void truncate_elements(struct flow *f)
{
    unsigned to = f->shape->a, from = f->shape->b, e = f->i / to;
    if (e * from >= f->in->operands[f->second].len)
        constant(f, 0);
    else
        copy(f, f->second, e * from + f->i % to);
}

static void shift_elements(struct flow *f)
{
    unsigned element = f->shape->a, o = f->i % element;
    unsigned source = f->in->vex ? f->second : f->dest;
    if (!f->has_imm || (f->imm % 8 && f->imm < 8 * element)) {
        computed(f);
        return;
    }
    uint64_t by = f->imm / 8 > element ? element : f->imm / 8;
    bool left = f->shape->shape == SHAPE_ELEMENT_LEFT;
    if (left ? o >= by : o + by < element)
        copy(f, source, left ? f->i - (unsigned)by : f->i + (unsigned)by);
    else if (f->shape->shape == SHAPE_ELEMENT_SIGNED)
        sign_of(f, source, f->i - o + element - 1);
    else
        constant(f, 0);
}

/* vpternlog: tables that name one of their inputs, or none. */
static void ternary(struct flow *f)
{
    switch (f->imm & 0xff) {
    case 0:
    case 0xff:
        constant(f, (unsigned)f->imm & 0xff);
        break;
    case 0xf0:
        untouched(f);
        break;
    case 0xcc:
        copy(f, f->first, f->i);
        break;
    case 0xaa:
        copy(f, f->second, f->i);
        break;
    default:
        computed(f);
    }
}

static void mask_move(struct flow *f)
{
    unsigned element = f->shape->a;
    uint8_t v[8];
    if (!control(f, f->first, f->i - f->i % element, element, v))
        return;
    if (v[element - 1] & 0x80)
        copy(f, f->second, f->i);
    else if (f->to.memory)
        untouched(f);
    else
        constant(f, 0);
}

/* maskmovdqu: the bytes of the first operand that the second selects go to memory. */
static void mask_store(struct flow *f)
{
    uint8_t v;
    if (!control(f, x86_visible(f->in, 1), f->i, 1, &v))
        return;
    if (v & 0x80)
        copy(f, x86_visible(f->in, 0), f->i);
    else
        untouched(f);
}

/* Which element of memory goes to or comes from element e of the register; SIZE_MAX: not selected.
 */
static bool selected_access(struct flow *f, unsigned e, unsigned operand, struct x86_access *out,
                            bool *on)
{
    struct x86_access some[X86_MAX_ACCESSES];
    size_t n = x86_accesses(f->in, f->run, some), at = 0;
    uint8_t mask[64];
    unsigned element = f->shape->a, start = f->in->mask
                                                ? X86_MASK + 8u * f->in->mask
                                                : f->in->operands[x86_visible(f->in, 2)].start;
    if ((n == 1 && some[0].len == 0) || !read_register(f, start, f->in->mask ? 8 : 64, mask)) {
        unknown(f, "depends on a register's value, which is not known");
        return false;
    }
    for (unsigned k = 0; k <= e; k++) {
        *on = f->in->mask ? mask[k / 8] >> k % 8 & 1 : mask[k * element + element - 1] >> 7;
        if (k < e && *on)
            at++;
    }
    if (*on && at < n)
        *out = some[at];
    return true;
}

static unsigned vector_count(const struct flow *f, unsigned operand)
{
    unsigned element = f->shape->a, index = f->in->operands[operand].mem.index_len;
    return f->in->vector_len / (element > index ? element : index);
}

static void gather(struct flow *f)
{
    const struct x86_operand *o = &f->in->operands[f->dest];
    unsigned element = f->shape->a, memory = find_operand(f->in, X86_MEMORY, false, true);
    struct x86_access a = {0};
    bool on;
    if (f->dest != x86_visible(f->in, 0) || f->i >= o->len) {
        constant(f, 0); // the mask, which shows how far it got
    } else if (f->i / element >= vector_count(f, memory)) {
        constant(f, 0);
    } else if (selected_access(f, f->i / element, memory, &a, &on)) {
        if (on)
            f->out = (struct x86_origin){.kind = X86_COPY, .from = {true, a.addr + f->i % element}};
        else
            untouched(f);
    }
}

static void scatter(struct flow *f)
{
    if (!f->to.memory) {
        constant(f, 0);
        return;
    }
    unsigned element = f->shape->a, memory = f->dest;
    // Where elements overlap the last one wins (SDM 2C, VPSCATTERDD).
    for (unsigned e = vector_count(f, memory); e-- > 0;) {
        struct x86_access a = {0};
        bool on;
        if (!selected_access(f, e, memory, &a, &on))
            return;
        if (on && f->to.at >= a.addr && f->to.at - a.addr < a.len) {
            copy(f, x86_visible(f->in, 1), e * element + (unsigned)(f->to.at - a.addr));
            return;
        }
    }
    untouched(f);
}

static void compress_expand(struct flow *f, bool expand)
{
    unsigned element = f->shape->a, e = f->i / element, count = f->in->vector_len / element;
    bool on = true;
    if (!f->in->mask) {
        copy(f, f->second, f->i);
        return;
    }
    unsigned seen = 0;
    for (unsigned k = 0; k < count; k++) {
        if (!mask_bit(f, k, &on))
            return;
        if (expand && k == e) {
            if (on)
                copy(f, f->second, seen * element + f->i % element);
            else if (f->in->mask_zeroes)
                constant(f, 0);
            else
                untouched(f);
            return;
        }
        if (!expand && on && seen == e) {
            copy(f, f->second, k * element + f->i % element);
            return;
        }
        seen += on;
    }
    if (f->in->mask_zeroes)
        constant(f, 0);
    else
        untouched(f);
}

/* --- areas of state (SDM 1, 10.5 and 13.4) --- */

enum {
    AREA_MXCSR = 24,
    AREA_XMM = 160,
    AREA_XMM_END = 416,
    AREA_HEADER = 512,
    AREA_YMM = 576,
    AREA_YMM_END = 832
};

static uint64_t requested(const struct flow *f)
{
    return f->shape->a == 0 && (f->shape->shape == SHAPE_SAVE || f->shape->shape == SHAPE_RESTORE)
               ? 3
               : (x86_gpr(f->run->before, GPR_RDX) << 32) |
                     (uint32_t)x86_gpr(f->run->before, GPR_RAX);
}

static void save(struct flow *f)
{
    unsigned i = f->i, component = i < AREA_XMM_END ? 1 : 2;
    if (!((i >= AREA_XMM && i < AREA_XMM_END) || (i >= AREA_YMM && i < AREA_YMM_END))) {
        unknown(f, "this part of a saved state is not followed");
        return;
    }
    if (f->shape->a == 0 ? component == 2 : !(requested(f) >> component & 1)) {
        untouched(f);
        return;
    }
    uint8_t in_use;
    if (f->shape->a >= 2) {
        // What is in its initial state may be left out; the header written along tells.
        struct x86_place header;
        if (!memory_place(f, f->dest, AREA_HEADER, &header) || !f->run->memory ||
            !f->run->memory(f->run->ctx, true, header.at, 1, &in_use)) {
            unknown(f, "whether this part was saved is not known");
            return;
        }
        if (!(in_use >> component & 1)) {
            f->shape->a == 2 ? untouched(f)
                             : unknown(f, "whether this part was saved is not known");
            return;
        }
    }
    unsigned reg = (i - (component == 1 ? AREA_XMM : AREA_YMM)) / 16;
    f->out = (struct x86_origin){
        .kind = X86_COPY,
        .from = {false, X86_VECTOR + 64 * reg + (component == 1 ? 0 : 16) + i % 16}};
}

static void restore(struct flow *f)
{
    unsigned at = (unsigned)f->to.at, reg = (at - X86_VECTOR) / 64, byte = (at - X86_VECTOR) % 64;
    unsigned area = find_operand(f->in, X86_MEMORY, false, true), component = byte < 16 ? 1 : 2;
    if (f->to.memory || at < X86_VECTOR) {
        untouched(f);
        return;
    }
    if (at >= X86_MASK || reg >= 16 || byte >= 32) {
        if (f->shape->a == 0 && at >= X86_VECTOR && at < X86_X87)
            untouched(f);
        else
            unknown(f, "this part of a restored state is not followed");
        return;
    }
    if (f->shape->a == 0 ? component == 2 : !(requested(f) >> component & 1)) {
        untouched(f);
        return;
    }
    unsigned offset = component == 1 ? AREA_XMM + 16 * reg + byte : AREA_YMM + 16 * reg + byte - 16;
    struct x86_place header;
    uint8_t in_use = 3;
    if (!memory_place(f, area, AREA_HEADER, &header) ||
        (f->shape->a &&
         (!f->run->memory || !f->run->memory(f->run->ctx, false, header.at, 1, &in_use)))) {
        unknown(f, "which parts were restored is not known");
        return;
    }
    if (in_use >> component & 1)
        f->out =
            (struct x86_origin){.kind = X86_COPY, .from = {true, header.at - AREA_HEADER + offset}};
    else
        constant(f, 0);
}

/* --- all together --- */

static void by_shape(struct flow *f)
{
    const struct x86_insn *in = f->in;
    const struct shape_info *s = f->shape;
    switch ((enum shape)s->shape) {
    case SHAPE_COMPUTE:
        computed(f);
        break;
    case SHAPE_MOVE:
        move(f);
        break;
    case SHAPE_SIGN_EXTEND:
        sign_extend(f);
        break;
    case SHAPE_SCALAR_MOVE:
        if (in->operands[f->dest].kind == X86_MEMORY)
            copy(f, f->last, f->i);
        else
            scalar(f, true);
        break;
    case SHAPE_SCALAR:
        scalar(f, false);
        break;
    case SHAPE_EXCHANGE:
        copy(f, f->dest == x86_visible(in, 0) ? x86_visible(in, 1) : x86_visible(in, 0), f->i);
        break;
    case SHAPE_XADD:
        if (f->dest == x86_visible(in, 0))
            computed(f);
        else
            copy(f, x86_visible(in, 0), f->i);
        break;
    case SHAPE_CMPXCHG:
        cmpxchg(f);
        break;
    case SHAPE_CMPXCHG_PAIR:
        cmpxchg_pair(f);
        break;
    case SHAPE_CMOV:
        if (condition(f->run->before, s->a))
            copy(f, f->second, f->i);
        else
            untouched(f);
        break;
    case SHAPE_LEAVE:
        if (in->operands[f->dest].start == 8 * GPR_RBP)
            copy(f, find_operand(in, X86_MEMORY, true, true), f->i);
        else
            computed(f);
        break;
    case SHAPE_CALL:
        if (f->to.memory)
            constant(f, (unsigned)((in->pc + in->len) >> 8 * f->i & 0xff));
        else
            computed(f);
        break;
    case SHAPE_WIDEN_ACC:
        if (f->i < s->a)
            untouched(f);
        else
            f->out =
                (struct x86_origin){.kind = X86_SIGN, .from = {false, 8 * GPR_RAX + s->a - 1u}};
        break;
    case SHAPE_SIGN_ACC:
        f->out = (struct x86_origin){.kind = X86_SIGN, .from = {false, 8 * GPR_RAX + s->a - 1u}};
        break;
    case SHAPE_REVERSE:
        if (f->n == 2 && f->first == f->second)
            computed(f); // bswap of 16 bits is undefined
        else
            copy(f, f->second, f->n - 1 - f->i);
        break;
    case SHAPE_LEA:
        lea(f);
        break;
    case SHAPE_CLEAR_SAME:
        if (same_register(f, f->first, f->second) && !f->has_imm)
            constant(f, 0);
        else
            computed(f);
        break;
    case SHAPE_SET_SAME:
        if (same_register(f, f->first, f->second) &&
            !(in->operands[f->dest].start >= X86_MASK &&
              in->operands[f->first].start < X86_MASK)) // a mask has bits of its own
            constant(f, 0xff);
        else
            computed(f);
        break;
    case SHAPE_AND:
    case SHAPE_OR:
    case SHAPE_XOR:
        logic(f);
        break;
    case SHAPE_SHIFT_LEFT:
    case SHAPE_SHIFT_RIGHT:
    case SHAPE_SHIFT_SIGNED:
    case SHAPE_ROTATE_LEFT:
    case SHAPE_ROTATE_RIGHT:
        shift(f);
        break;
    case SHAPE_DOUBLE_LEFT:
    case SHAPE_DOUBLE_RIGHT:
        double_shift(f);
        break;
    case SHAPE_STRING_MOVE:
    case SHAPE_STRING_STORE:
        string_instruction(f);
        break;
    case SHAPE_READ_BASE:
        copy(f, in->operand_count - 1u, f->i);
        break;
    case SHAPE_WRITE_BASE:
        if (f->i < in->operands[0].len)
            copy(f, 0, f->i);
        else
            constant(f, 0);
        break;
    case SHAPE_LOW_HALF:
        half(f, false);
        break;
    case SHAPE_HIGH_HALF:
        half(f, true);
        break;
    case SHAPE_REPEAT: {
        unsigned pair = 2u * s->a;
        copy(f, f->second, f->i - f->i % pair + s->b * s->a + f->i % s->a);
        break;
    }
    case SHAPE_SHUFFLE_D:
        shuffle_bits(f, f->second, 2, 4);
        break;
    case SHAPE_SHUFFLE_LOW:
    case SHAPE_SHUFFLE_HIGH: {
        unsigned base = f->i & ~7u;
        if ((f->i % 16 >= 8) == (s->shape == SHAPE_SHUFFLE_HIGH))
            copy(f, f->second, base + (unsigned)(f->imm >> f->i % 8 / 2 * 2 & 3) * 2 + f->i % 2);
        else
            copy(f, f->second, f->i);
        break;
    }
    case SHAPE_SHUFFLE_W:
        copy(f, f->second, (unsigned)(f->imm >> f->i / 2 * 2 & 3) * 2 + f->i % 2);
        break;
    case SHAPE_SHUFFLE_PS:
        shuffle_bits(f, f->i % 16 < 8 ? f->first : f->second, 2, 4);
        break;
    case SHAPE_SHUFFLE_PD:
        shuffle_bits(f, f->i % 16 < 8 ? f->first : f->second, 1, 8);
        break;
    case SHAPE_PERMUTE_LANE:
        permute_lane(f);
        break;
    case SHAPE_PERMUTE_Q:
        if (f->has_imm)
            copy(f, f->second,
                 (f->i & ~31u) + (unsigned)(f->imm >> f->i % 32 / 8 * 2 & 3) * 8 + f->i % 8);
        else
            permute(f);
        break;
    case SHAPE_PERMUTE:
        permute(f);
        break;
    case SHAPE_PERMUTE_2:
        permute_2(f);
        break;
    case SHAPE_PERMUTE_128:
        permute_128(f);
        break;
    case SHAPE_SHUFFLE_128:
        shuffle_128(f);
        break;
    case SHAPE_UNPACK:
        unpack(f);
        break;
    case SHAPE_ALIGN:
        align(f, f->n < 16 ? 8 : 16, 1);
        break;
    case SHAPE_ALIGN_ELEMENTS:
        align(f, f->n, s->a);
        break;
    case SHAPE_BYTES_LEFT:
        bytes_shift(f, true);
        break;
    case SHAPE_BYTES_RIGHT:
        bytes_shift(f, false);
        break;
    case SHAPE_SHUFFLE_BYTES:
        shuffle_bytes(f);
        break;
    case SHAPE_BLEND: {
        unsigned e = s->a == 2 ? f->i % 16 / 2 : f->i / s->a;
        copy(f, f->imm >> e & 1 ? f->second : f->first, f->i);
        break;
    }
    case SHAPE_BLEND_VAR:
        blend_var(f);
        break;
    case SHAPE_BLEND_MASK:
        blend_mask(f);
        break;
    case SHAPE_INSERT_PS:
        insert_ps(f);
        break;
    case SHAPE_INSERT:
        insert(f);
        break;
    case SHAPE_EXTRACT:
        extract(f);
        break;
    case SHAPE_BROADCAST:
        copy(f, f->second, f->i % s->a);
        break;
    case SHAPE_EXTEND_ZERO:
        extend(f, false);
        break;
    case SHAPE_EXTEND_SIGN:
        extend(f, true);
        break;
    case SHAPE_TRUNCATE:
        truncate_elements(f);
        break;
    case SHAPE_ELEMENT_LEFT:
    case SHAPE_ELEMENT_RIGHT:
    case SHAPE_ELEMENT_SIGNED:
        shift_elements(f);
        break;
    case SHAPE_TERNARY:
        ternary(f);
        break;
    case SHAPE_MASK_MOVE:
        mask_move(f);
        break;
    case SHAPE_MASK_STORE:
        mask_store(f);
        break;
    case SHAPE_GATHER:
        gather(f);
        break;
    case SHAPE_SCATTER:
        scatter(f);
        break;
    case SHAPE_COMPRESS:
        compress_expand(f, false);
        break;
    case SHAPE_EXPAND:
        compress_expand(f, true);
        break;
    case SHAPE_MASK_UNPACK:
        copy(f, f->i < s->a ? f->second : f->first, f->i % s->a);
        break;
    case SHAPE_SAVE:
        save(f);
        break;
    case SHAPE_UNKNOWN:
        unknown(f, "what this instruction does depends on the CPU");
        break;
    case SHAPE_ZERO_UPPER:
    case SHAPE_ZERO_ALL:
    case SHAPE_RESTORE:
        break; // done before: these have no destination operands
    }
}

/* Is the byte behind the last element of a conversion to a narrower type? */
static bool behind_narrowed(const struct flow *f)
{
    const struct x86_operand *o = &f->in->operands[f->dest], *from = &f->in->operands[f->second];
    return f->first == f->second && f->in->vex && o->kind == X86_REGISTER && o->element &&
           from->element > o->element && f->i >= f->in->vector_len / from->element * o->element &&
           from->kind != X86_IMMEDIATE;
}

/* Does a mask leave the byte as it was, or clear it? */
static bool masked_out(struct flow *f)
{
    const struct x86_operand *o = &f->in->operands[f->dest];
    enum shape shape = f->shape->shape;
    bool vector = o->kind == X86_MEMORY || (o->start >= X86_VECTOR && o->start < X86_MASK);
    bool on;
    if (!f->in->mask || f->in->mask_controls || !vector || !o->element || shape == SHAPE_GATHER ||
        shape == SHAPE_SCATTER || shape == SHAPE_COMPRESS || shape == SHAPE_EXPAND)
        return false;
    if (f->in->scalar &&
        (shape == SHAPE_COMPUTE || shape == SHAPE_SCALAR || shape == SHAPE_SCALAR_MOVE) &&
        f->i >= o->element)
        return false;
    if (behind_narrowed(f)) {
        constant(f, 0);
        return true;
    }
    if (!mask_bit(f, f->i / o->element, &on))
        return true;
    if (on)
        return false;
    if (f->in->mask_zeroes && o->kind == X86_REGISTER)
        constant(f, 0);
    else
        untouched(f);
    return true;
}

static void fill_sources(struct flow *f)
{
    const struct x86_insn *in = f->in;
    unsigned sources[4], n = 0;
    for (unsigned k = 0; x86_visible(in, k) != X86_NONE; k++) {
        unsigned idx = x86_visible(in, k);
        if (in->operands[idx].kind == X86_IMMEDIATE) {
            f->has_imm = true;
            f->imm = in->operands[idx].imm;
        } else if (n < 4) {
            sources[n++] = idx;
        }
    }
    unsigned at = in->vex && n > 1 ? 1 : 0;
    f->first = n ? sources[at] : X86_NONE;
    f->second = n > at + 1 ? sources[at + 1] : f->first;
    f->third = n > at + 2 ? sources[at + 2] : f->second;
    f->last = n ? sources[n - 1] : X86_NONE;
    if (!in->vex) { // blendv: the selector is xmm0
        unsigned hidden = find_operand(in, X86_REGISTER, true, true);
        if (f->shape->shape == SHAPE_BLEND_VAR && hidden != X86_NONE)
            f->third = hidden;
    }
}

/* The operand that holds the byte and is written. Behind it, *extension is true. */
static bool find_destination(struct flow *f, bool *extension)
{
    const struct x86_insn *in = f->in;
    *extension = false;
    if (f->to.memory) {
        struct x86_access some[X86_MAX_ACCESSES];
        size_t n = in->writes_memory ? x86_accesses(in, f->run, some) : 0;
        for (size_t i = 0; i < n; i++) {
            if (some[i].writes && some[i].len && f->to.at - some[i].addr < some[i].len) {
                f->dest = some[i].operand;
                f->i = (unsigned)(f->to.at - some[i].addr);
                f->n = in->operands[f->dest].len;
                return true;
            }
        }
        // Elements at addresses that are not known might be anywhere.
        if (n && some[0].writes && some[0].len == 0) {
            f->dest = some[0].operand;
            return true;
        }
        return false;
    }
    for (unsigned k = 0; k < in->operand_count; k++) {
        const struct x86_operand *o = &in->operands[k];
        if (o->kind != X86_REGISTER || !o->writes || f->to.at < o->start ||
            f->to.at - o->start >= (uint64_t)o->len + o->zeroed)
            continue;
        f->dest = k;
        f->i = (unsigned)(f->to.at - o->start);
        f->n = o->len;
        *extension = f->i >= o->len;
        return true;
    }
    return false;
}

static bool shifts_by_zero(const struct flow *f)
{
    const struct x86_insn *in = f->in;
    switch (f->shape->shape) {
    case SHAPE_SHIFT_LEFT:
    case SHAPE_SHIFT_RIGHT:
    case SHAPE_SHIFT_SIGNED:
    case SHAPE_ROTATE_LEFT:
    case SHAPE_ROTATE_RIGHT:
    case SHAPE_DOUBLE_LEFT:
    case SHAPE_DOUBLE_RIGHT: {
        unsigned len = in->operands[x86_visible(in, 0)].len, last = x86_visible(in, 1);
        if (x86_visible(in, 2) != X86_NONE)
            last = x86_visible(in, 2);
        if (last == X86_NONE)
            return false;
        const struct x86_operand *o = &in->operands[last];
        uint64_t count = o->kind == X86_IMMEDIATE ? o->imm : x86_gpr(f->run->before, GPR_RCX);
        return (count & (len == 8 ? 63 : 31)) == 0;
    }
    default:
        return in->repeats && x86_iterations(in, f->run) == 0;
    }
}

static void flag_origin(struct flow *f)
{
    if (!(f->in->flags_written >> (f->to.at - X86_FLAGS) & 1) || shifts_by_zero(f))
        untouched(f);
    else
        computed(f);
}

struct x86_origin x86_origin_of(const struct x86_insn *in, const struct x86_run *run,
                                struct x86_place to)
{
    struct flow f = {.in = in, .run = run, .shape = &x86_shapes[in->mnemonic], .to = to};
    static const struct shape_info string_move_info = {SHAPE_STRING_MOVE, 0, 0};
    bool extension;
    enum shape shape = f.shape->shape;
    if (shape == SHAPE_SCALAR_MOVE && in->operands[0].kind == X86_MEMORY &&
        in->operands[0].mem.how == X86_AT_STRING)
        f.shape = &string_move_info; // movsd
    if (!to.memory && to.at >= X86_FLAGS && to.at < X86_VECTOR) {
        flag_origin(&f);
        return f.out;
    }
    if (shape == SHAPE_RESTORE) {
        fill_sources(&f);
        restore(&f);
        return f.out;
    }
    if (shape == SHAPE_ZERO_ALL || shape == SHAPE_ZERO_UPPER) {
        bool in_vector = !to.memory && to.at >= X86_VECTOR && to.at < X86_VECTOR + 16 * 64;
        if (in_vector && (shape == SHAPE_ZERO_ALL || (to.at - X86_VECTOR) % 64 >= 16))
            constant(&f, 0);
        return f.out;
    }
    if (!find_destination(&f, &extension))
        return f.out;
    fill_sources(&f);
    const struct x86_operand *o = &in->operands[f.dest];
    if (o->kind == X86_REGISTER && o->start >= X86_X87 && o->start < X86_MXCSR && o->len == 80)
        unknown(&f, "x87 registers are not followed");
    else if (!f.to.memory && f.to.at >= X86_CONTROL)
        unknown(&f, "control registers are not followed");
    else if (extension && f.shape->shape == SHAPE_CMPXCHG)
        cmpxchg_upper(&f);
    else if (extension && f.shape->shape == SHAPE_CMPXCHG_PAIR)
        cmpxchg_pair(&f);
    else if (extension && in->repeats && x86_iterations(in, run) == 0)
        untouched(&f);
    else if (extension && f.to.at < X86_RIP && o->maybe && f.shape->shape != SHAPE_CMOV)
        computed(&f);
    else if (extension)
        constant(&f, f.to.at >= X86_X87 && f.to.at < X86_MXCSR ? 0xff : 0);
    else if (!masked_out(&f))
        by_shape(&f);
    return f.out;
}

/* --- inputs --- */

static size_t add_input(struct x86_input *out, size_t n, size_t max, struct x86_place from,
                        uint32_t len)
{
    for (size_t i = 0; i < n; i++) {
        if (out[i].from.memory == from.memory && out[i].from.at == from.at) {
            if (len > out[i].len)
                out[i].len = len;
            return n;
        }
    }
    if (n < max)
        out[n++] = (struct x86_input){from, len};
    return n;
}

size_t x86_inputs_of(const struct x86_insn *in, const struct x86_run *run, struct x86_place to,
                     struct x86_input *out, size_t max)
{
    struct flow f = {.in = in, .run = run, .shape = &x86_shapes[in->mnemonic], .to = to};
    bool extension, is_flag = !to.memory && to.at >= X86_FLAGS && to.at < X86_VECTOR;
    if (!is_flag && !find_destination(&f, &extension))
        return 0;
    fill_sources(&f);
    const struct shape_info *s = f.shape;
    if (s->shape == SHAPE_LEAVE)
        return add_input(out, 0, max, (struct x86_place){false, 8 * GPR_RBP}, 8);
    struct x86_access some[X86_MAX_ACCESSES];
    size_t accesses = x86_accesses(in, run, some), n = 0;
    // Elements one by one: only for sources as wide as the destination.
    unsigned element = is_flag || extension ? 0 : s->shape == SHAPE_SCALAR ? 0 : s->a;
    bool by_element =
        element &&
        (s->shape == SHAPE_COMPUTE || s->shape == SHAPE_CLEAR_SAME || s->shape == SHAPE_SET_SAME ||
         s->shape == SHAPE_AND || s->shape == SHAPE_OR || s->shape == SHAPE_XOR ||
         s->shape == SHAPE_TERNARY || s->shape == SHAPE_ELEMENT_LEFT ||
         s->shape == SHAPE_ELEMENT_RIGHT || s->shape == SHAPE_ELEMENT_SIGNED);
    bool carries = !is_flag && s->b == 1 &&
                   (s->shape == SHAPE_COMPUTE || s->shape == SHAPE_CLEAR_SAME) && !to.memory &&
                   to.at < X86_RIP;
    bool stack_pointer = !to.memory && to.at >= 8 * GPR_RSP && to.at < 8 * GPR_RSP + 8 &&
                         !in->operands[f.dest].visible && !is_flag;
    for (unsigned k = 0; k < in->operand_count; k++) {
        const struct x86_operand *o = &in->operands[k];
        bool is_mask = o->kind == X86_REGISTER && in->mask &&
                       o->start == X86_MASK + 8u * in->mask && !o->visible;
        if (o->kind == X86_ADDRESS) {
            if (o->mem.base != X86_NONE)
                n = add_input(out, n, max, (struct x86_place){false, 8u * o->mem.base},
                              f.i < 8 ? f.i + 1 : 8);
            if (o->mem.index != X86_NONE)
                n = add_input(out, n, max, (struct x86_place){false, 8u * o->mem.index},
                              f.i < 8 ? f.i + 1 : 8);
            continue;
        }
        if (!o->reads || is_mask || (o->kind != X86_REGISTER && o->kind != X86_MEMORY))
            continue;
        bool is_rsp = o->kind == X86_REGISTER && o->start == 8 * GPR_RSP && !o->visible;
        if (is_rsp != stack_pointer && (is_rsp || stack_pointer))
            continue; // push and pop: the value and the stack pointer have nothing to do with each
                      // other
        if (s->shape == SHAPE_SCALAR && s->b == 1 && k == f.first && f.first != f.second)
            continue;
        unsigned from = 0, len = o->len;
        if (s->shape == SHAPE_SCALAR && (k == f.first || k == f.dest) && len > s->a && !is_flag)
            len = s->a;
        bool is_count = k == f.second && f.first != f.second && s->shape >= SHAPE_ELEMENT_LEFT &&
                        s->shape <= SHAPE_ELEMENT_SIGNED;
        if (by_element && len == f.n && !is_count) {
            from = f.i - f.i % element;
            len = element;
        } else if (by_element && o->kind == X86_MEMORY && len == element) {
            from = 0; // broadcast
        } else if (carries && f.i < len) {
            len = f.i + 1;
        }
        if (o->kind == X86_REGISTER) {
            n = add_input(out, n, max, (struct x86_place){false, o->start + from}, len);
            continue;
        }
        for (size_t a = 0; a < accesses; a++) {
            if (some[a].operand == k)
                n = add_input(out, n, max, (struct x86_place){true, some[a].addr + from},
                              o->mem.how == X86_AT_ADDRESS && len
                                  ? len
                                  : (uint32_t)(some[a].len < 4096 ? some[a].len : 4096));
        }
    }
    for (unsigned i = 0; i < X86_FLAG_COUNT; i++) {
        if (in->flags_read >> i & 1)
            n = add_input(out, n, max, (struct x86_place){false, X86_FLAGS + i}, 1);
    }
    return n;
}
