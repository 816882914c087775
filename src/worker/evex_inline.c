/* Emulated instructions that need no call: code for AVX2 in their place, some ten times as fast.
 * For what is frequent: whole registers moved, computed by a VEX instruction on each half, compared
 * into an opmask; opmasks to and from general registers, and kortest.
 *
 * Vector registers s, t and u and a general register x are put aside where they are needed. Memory
 * is accessed before anything is written, so what faults leaves all as it was: the upper half of a
 * result is computed first, with the lower half of memory kept in u. With a mask all of the memory
 * is read, in the hope that it is there; if it faults, the instruction is done again, with a call.
 * No flags are touched. */
#include "worker/evex.h"

#include "worker/maker.h"

enum {
    VECTOR_MOVE_LOAD = 0x6f,
    VECTOR_MOVE_STORE = 0x7f,
    PP_66 = 1,
    PP_F3 = 2,
    MAP_0F = 1,
    MAP_0F3A = 3
};
enum { S, T, U };

/* An operand of a VEX instruction: a vector register; memory at an address below 2 GiB, at [x +
 * off], or at [x * 8 + an address]. */
struct place {
    enum { IN_REGISTER, ABSOLUTE, BEHIND_X, SCALED_X } kind;
    unsigned reg, off;
    const void *at;
};

struct inliner {
    struct block_maker *m;
    const struct insn *in;
    const struct evex_insn *p;
    unsigned x;
    unsigned y[3];    /* S, T, U */
    unsigned vectors; /* mask of those that are put aside */
    bool x_used;
    uint8_t spilled[4];
};

static void emit_place(struct emitter *e, unsigned reg, struct place to)
{
    reg &= 7;
    switch (to.kind) {
    case IN_REGISTER:
        emit8(e, (uint8_t)(0xc0 | reg << 3 | (to.reg & 7)));
        break;
    case ABSOLUTE:
        emit8(e, (uint8_t)(0x04 | reg << 3));
        emit8(e, 0x25);
        emit32(e, (uint32_t)(uintptr_t)to.at);
        break;
    case BEHIND_X:
        emit8(e, (uint8_t)(0x40 | reg << 3 | (to.reg & 7)));
        emit8(e, (uint8_t)to.off);
        break;
    default:
        emit8(e, (uint8_t)(0x04 | reg << 3));
        emit8(e, (uint8_t)(0xc5 | (to.reg & 7) << 3));
        emit32(e, (uint32_t)(uintptr_t)to.at);
    }
}

static void emit_vex(struct emitter *e, unsigned l, unsigned map, unsigned pp, unsigned w,
                     unsigned opcode, unsigned reg, unsigned vvvv, struct place rm)
{
    bool x = rm.kind == SCALED_X && rm.reg >= 8,
         b = (rm.kind == IN_REGISTER || rm.kind == BEHIND_X) && rm.reg >= 8;
    emit8(e, 0xc4);
    emit8(e, (uint8_t)((reg >= 8 ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | map));
    emit8(e, (uint8_t)(w << 7 | (~vvvv & 15) << 3 | l << 2 | pp));
    emit8(e, (uint8_t)opcode);
    emit_place(e, reg, rm);
}

static struct place in_register(unsigned reg)
{
    return (struct place){.kind = IN_REGISTER, .reg = reg};
}

static struct place absolute(const void *at)
{
    return (struct place){.kind = ABSOLUTE, .at = at};
}

static struct place behind_x(const struct inliner *c, unsigned off)
{
    return (struct place){.kind = BEHIND_X, .reg = c->x, .off = off};
}

static void emit_load_vector(const struct inliner *c, unsigned reg, struct place from)
{
    if (from.kind == IN_REGISTER && from.reg == reg)
        return;
    emit_vex(&c->m->hot, 1, MAP_0F, PP_F3, 0, VECTOR_MOVE_LOAD, reg, 0, from);
}

static void emit_store_vector(const struct inliner *c, struct place to, unsigned reg)
{
    emit_vex(&c->m->hot, 1, MAP_0F, PP_F3, 0, VECTOR_MOVE_STORE, reg, 0, to);
}

static void emit_store_byte(struct emitter *e, const void *at, uint8_t v)
{
    emit_bytes(e, (const uint8_t[]){0xc6, 0x04, 0x25}, 3); // mov byte [at], v
    emit32(e, (uint32_t)(uintptr_t)at);
    emit8(e, v);
}

static void emit_store_zero(struct emitter *e, const void *at)
{
    emit_bytes(e, (const uint8_t[]){0x48, 0xc7, 0x04, 0x25}, 4); // mov qword [at], 0
    emit32(e, (uint32_t)(uintptr_t)at);
    emit32(e, 0);
}

/* Stores a part of a general register. */
static void emit_store_part(struct emitter *e, const void *at, unsigned reg, unsigned bytes)
{
    if (bytes == 2)
        emit8(e, 0x66);
    emit8(e, (uint8_t)(0x40 | (bytes == 8 ? 8 : 0) | (reg >= 8 ? 4 : 0)));
    emit8(e, bytes == 1 ? 0x88 : 0x89);
    emit_place(e, reg, absolute(at));
}

/* --- halves of registers --- */

static struct place low_of(unsigned n)
{
    return n < 16 ? in_register(n) : absolute(evex_registers->v[n]);
}

/* May use x. */
static struct place high_of(const struct inliner *c, unsigned n)
{
    struct emitter *e = &c->m->hot;
    if (n >= 16)
        return absolute(&evex_registers->v[n][EVEX_LOW]);
    if (c->x >= 8)
        emit8(e, 0x44);
    emit_bytes(e, (const uint8_t[]){0x0f, 0xb6}, 2); // movzx x, byte [upper[n]]
    emit_place(e, c->x, absolute(&evex_registers->upper[n]));
    return (struct place){.kind = SCALED_X, .reg = c->x, .at = &evex_registers->v[n][EVEX_LOW]};
}

static void set_high(const struct inliner *c, unsigned n, unsigned reg)
{
    emit_store_vector(c, absolute(&evex_registers->v[n][EVEX_LOW]), reg);
    if (n < 16)
        emit_store_byte(&c->m->hot, &evex_registers->upper[n], EVEX_UPPER_KEPT);
}

static void clear_high(const struct inliner *c, unsigned n)
{
    if (n < 16) {
        emit_store_byte(&c->m->hot, &evex_registers->upper[n], EVEX_UPPER_ZERO);
        return;
    }
    for (unsigned i = EVEX_LOW; i < EVEX_LEN; i += 8)
        emit_store_zero(&c->m->hot, &evex_registers->v[n][i]);
}

static bool is_vector(const struct evex_operand *op)
{
    return op->kind == EVEX_VECTOR;
}

/* --- what is put aside --- */

static void begin(struct inliner *c, struct block_maker *m, unsigned idx, const struct evex_insn *p,
                  unsigned vectors, bool x_used)
{
    *c = (struct inliner){.m = m,
                          .in = &m->insns[idx],
                          .p = p,
                          .vectors = vectors,
                          .x_used = x_used,
                          .spilled = {NO_REG, NO_REG, NO_REG, NO_REG}};
    uint32_t used = 0;
    const struct evex_operand *ops[3] = {&p->dst, &p->src[0], &p->src[1]};
    for (unsigned i = 0; i < 3; i++) {
        if (is_vector(ops[i]) && ops[i]->number < 16)
            used |= 1u << ops[i]->number;
    }
    for (unsigned i = 0, n = 0; i < 3; n++) {
        if (!(used >> n & 1))
            c->y[i++] = n;
    }
    // Not RAX and RCX, which kortest and tests of alignment use.
    c->x = m->weaves
               ? SCRATCH
               : pick_scratch(registers_used(c->in) | m->stolen | 1u << RAX | 1u << RCX, false);
    if (x_used && !m->weaves) {
        c->spilled[0] = (uint8_t)c->x;
        emit_store(&m->hot, &m->t->state->spill[0], c->x);
    }
    uint8_t lanes[FAULT_VECTORS];
    for (unsigned i = 0; i < 3; i++) {
        lanes[i] = vectors >> i & 1 ? (uint8_t)c->y[i] : NO_REG;
        if (vectors >> i & 1)
            emit_store_vector(c, absolute(evex_registers->aside[i]), c->y[i]);
    }
    add_point(m, idx, c->spilled, true);
    struct fault_point *point = &m->t->points[m->t->point_count - 1];
    __builtin_memcpy(point->vectors, lanes, sizeof(lanes));
    point->hopeful = p->mask;
}

static void end(const struct inliner *c)
{
    for (unsigned i = 0; i < 3; i++) {
        if (c->vectors >> i & 1)
            emit_load_vector(c, c->y[i], absolute(evex_registers->aside[i]));
    }
    if (c->spilled[0] != NO_REG)
        emit_load(&c->m->hot, c->x, &c->m->t->state->spill[0]);
}

/* The same point as before, from here on; with a register in spill[1]. */
static void repeat_point(struct block_maker *m, const struct fault_point *before, uint8_t spilled)
{
    add_point(m, before->insn, before->spilled, true);
    struct fault_point *p = &m->t->points[m->t->point_count - 1];
    __builtin_memcpy(p->vectors, before->vectors, sizeof(p->vectors));
    p->spilled[1] = spilled;
    p->hopeful = before->hopeful;
}

/* The address of the memory operand into x; faults if it is to be a multiple of 64 and is not. */
static void emit_guest_address(const struct inliner *c)
{
    struct block_maker *m = c->m;
    struct emitter *e = &m->hot;
    const ZydisDecodedOperand *op = memory_operand(c->in, false);
    emit_address(m, c->in, op, 0, 0, c->x);
    if (!c->p->aligned || c->p->len != EVEX_LEN)
        return;
    struct fault_point before = m->t->points[m->t->point_count - 1];
    emit_store(e, &m->t->state->spill[1], RCX);
    emit_bytes(e,
               (const uint8_t[]){(uint8_t)(c->x >= 8 ? 0x41 : 0x40), 0x0f, 0xb6,
                                 (uint8_t)(0xc8 | (c->x & 7))},
               4);                                         // movzx ecx, x
    emit_bytes(e, (const uint8_t[]){0x0f, 0xb6, 0x89}, 3); // movzx ecx, byte [rcx + low_bits]
    emit32(e, (uint32_t)(uintptr_t)evex_registers->low_bits);
    emit_bytes(e, (const uint8_t[]){0xe3, 12}, 2); // jrcxz over the fault
    repeat_point(m, &before, RCX);
    emit_bytes(e, (const uint8_t[]){0x48, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x8a, 0x09},
               12); // mov rcx, 1 << 63; mov cl, [rcx]
    emit_load(e, RCX, &m->t->state->spill[1]);
    repeat_point(m, &before, NO_REG);
}

/* --- what a mask lets through --- */

enum { MAP_0F38 = 2, OPCODE_PAND = 0xdb, OPCODE_PXOR = 0xef };

/* vpcmpeq for elements of each size. */
static void emit_equal(const struct inliner *c, unsigned l, unsigned element, unsigned reg,
                       unsigned a, struct place b)
{
    static const uint8_t opcodes[] = {[1] = 0x74, [2] = 0x75, [4] = 0x76, [8] = 0x29};
    emit_vex(&c->m->hot, l, element == 8 ? MAP_0F38 : MAP_0F, PP_66, 0, opcodes[element], reg, a,
             b);
}

/* All ones in those elements of T that are on in the mask, for one half. */
static void emit_mask(const struct inliner *c, bool high)
{
    static const uint8_t broadcasts[] = {
        [1] = 0x58, [2] = 0x79, [4] = 0x58, [8] = 0x59}; // of 4, 2, 4 and 8 bytes
    static const uint8_t bits_of[] = {[1] = 0, [2] = 1, [4] = 2, [8] = 3};
    struct emitter *e = &c->m->hot;
    unsigned element = c->p->dst.element, t = c->y[T],
             at = high && element < 8 ? EVEX_LOW / element / 8 : 0;
    const uint8_t *bits = evex_registers->bits[bits_of[element] + (high && element == 8)];
    emit_vex(e, 1, MAP_0F38, PP_66, 0, broadcasts[element], t, 0,
             absolute((const uint8_t *)&evex_registers->k[c->p->mask] + at));
    if (element == 1)
        emit_vex(e, 1, MAP_0F38, PP_66, 0, 0x00, t, t, absolute(evex_registers->spread)); // vpshufb
    emit_vex(e, 1, MAP_0F, PP_66, 0, OPCODE_PAND, t, t, absolute(bits));
    emit_equal(c, 1, element, t, t, absolute(bits));
}

/* Puts S into `to` where the mask says so: in other elements stays what `old` has, which may be the
 * same, or zeros come. Uses T. */
static void emit_merge(const struct inliner *c, bool high, unsigned to, unsigned old)
{
    struct emitter *e = &c->m->hot;
    emit_mask(c, high);
    if (c->p->zeroing) {
        emit_vex(e, 1, MAP_0F, PP_66, 0, OPCODE_PAND, to, c->y[S], in_register(c->y[T]));
        return;
    }
    emit_vex(e, 1, MAP_0F3A, PP_66, 0, 0x4c, to, old,
             in_register(c->y[S])); // vpblendvb to, old, s, t
    emit8(e, (uint8_t)(c->y[T] << 4));
}

/* What is in S becomes a half of register n. */
static void emit_masked_half(const struct inliner *c, bool high, unsigned n)
{
    unsigned u = c->y[U];
    bool in_cpu = !high && n < 16;
    if (!in_cpu && !c->p->zeroing)
        emit_load_vector(c, u, high ? high_of(c, n) : low_of(n));
    emit_merge(c, high, in_cpu ? n : c->y[S], in_cpu ? n : u);
    if (high)
        set_high(c, n, c->y[S]);
    else if (!in_cpu)
        emit_store_vector(c, low_of(n), c->y[S]);
}

/* Behind a result of 16 bytes, blended with 32, there are zeros. */
static void emit_cut(const struct inliner *c, unsigned n)
{
    if (c->p->len > 16)
        return;
    unsigned y = n < 16 ? n : c->y[S];
    emit_vex(&c->m->hot, 0, MAP_0F, PP_F3, 0, VECTOR_MOVE_LOAD, y, 0,
             in_register(y)); // vmovdqu y, y
    if (n >= 16)
        emit_store_vector(c, low_of(n), y);
}

/* --- by a VEX instruction for each half --- */

static bool is_whole(const struct evex_insn *p, const struct evex_operand *op)
{
    return op->kind == EVEX_NONE ||
           ((op->kind == EVEX_VECTOR || op->kind == EVEX_MEMORY) && op->len == p->len);
}

/* By an immediate: the destination is in vvvv. */
static bool is_shift(const struct insn *in)
{
    return in->op[0].encoding == ZYDIS_OPERAND_ENCODING_NDSNDD;
}

static void emit_operation(const struct inliner *c, bool high, unsigned reg, unsigned vvvv,
                           struct place rm)
{
    const uint8_t *code = c->p->code;
    unsigned l = high || c->p->len >= EVEX_LOW, w = code[2] >> 7, pp = code[2] & 3,
             map = code[1] & 31;
    if (is_shift(c->in) && rm.kind != IN_REGISTER) {
        emit_load_vector(c, c->y[S], rm);
        rm = in_register(c->y[S]);
    }
    if (is_shift(c->in)) // ModRM.reg is opcode, and the destination in vvvv
        emit_vex(&c->m->hot, l, map, pp, w, code[3], code[4] >> 3 & 7, reg, rm);
    else
        emit_vex(&c->m->hot, l, map, pp, w, code[3], reg, vvvv, rm);
    if (c->in->z.raw.imm[0].size)
        emit8(&c->m->hot, code[5]);
}

/* The upper half of a source. One in memory is addressed here, and its lower half kept for
 * low_source(). */
static struct place high_source(struct inliner *c, const struct evex_operand *op)
{
    if (op->kind != EVEX_MEMORY)
        return high_of(c, op->number);
    emit_guest_address(c);
    emit_load_vector(c, c->y[U], behind_x(c, 0));
    return behind_x(c, EVEX_LOW);
}

/* The lower half. has_high: after high_source(). */
static struct place low_source(struct inliner *c, const struct evex_operand *op, bool has_high)
{
    if (op->kind != EVEX_MEMORY)
        return low_of(op->number);
    if (has_high)
        return in_register(c->y[U]);
    emit_guest_address(c);
    return behind_x(c, 0);
}

static bool inline_native(struct block_maker *m, unsigned idx, const struct evex_insn *p)
{
    if ((p->mask && p->is_float) || p->broadcast || p->rounding ||
        p->lane != (p->len == 16 ? 16 : EVEX_LOW) || p->dst.kind != EVEX_VECTOR ||
        !is_whole(p, &p->dst) || !is_whole(p, &p->src[0]) || !is_whole(p, &p->src[1]) ||
        m->insns[idx].z.mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH)
        return false;
    bool two = p->src[1].kind, whole = p->len == EVEX_LEN,
         fma = m->insns[idx].z.meta.category == ZYDIS_CATEGORY_VFMA;
    const struct evex_operand *b = &p->src[two ? 1 : 0];
    bool memory = b->kind == EVEX_MEMORY;
    if (memory && (p->mask || is_shift(&m->insns[idx]))) // VEX has shifts of registers only
        return false;
    if (m->insns[idx].z.mnemonic == ZYDIS_MNEMONIC_VINSERTPS &&
        b->number >= 16) // of memory it takes the first element, whatever the immediate
        return false;
    unsigned d = p->dst.number, a = p->src[0].number;
    struct inliner inliner, *c = &inliner;
    begin(c, m, idx, p,
          1u << S | (fma || p->mask ? 1u << T : 0) | ((memory && whole) || p->mask ? 1u << U : 0),
          memory || whole);
    unsigned first = fma ? c->y[T] : c->y[S]; // for the first operand
    if (whole) {
        if (fma)
            emit_load_vector(c, c->y[S], high_of(c, d));
        if (two)
            emit_load_vector(c, first, high_of(c, a));
        struct place rm = high_source(c, b);
        emit_operation(c, true, c->y[S], two ? first : 0, rm);
        if (p->mask)
            emit_masked_half(c, true, d);
        else
            set_high(c, d, c->y[S]);
    }
    unsigned to = d < 16 && !p->mask ? d : c->y[S];
    if (fma)
        emit_load_vector(c, to, low_of(d));
    if (two && a >= 16)
        emit_load_vector(c, first, low_of(a));
    struct place rm = low_source(c, b, whole);
    emit_operation(c, false, to, two ? (a >= 16 ? first : a) : 0, rm);
    if (p->mask) {
        emit_masked_half(c, false, d);
        emit_cut(c, d);
    } else if (d >= 16) {
        emit_store_vector(c, low_of(d), to);
    }
    if (!whole)
        clear_high(c, d);
    end(c);
    return true;
}

/* --- moves --- */

/* vmovdqu, vmovdqa if `aligned`, of all of a register's lower half or of 16 bytes. */
static void emit_move(const struct inliner *c, bool store, unsigned reg, struct place to)
{
    bool aligned = c->p->aligned && c->p->len <= EVEX_LOW;
    emit_vex(&c->m->hot, c->p->len >= EVEX_LOW, MAP_0F, aligned ? PP_66 : PP_F3, 0,
             store ? VECTOR_MOVE_STORE : VECTOR_MOVE_LOAD, reg, 0, to);
}

static void inline_load(struct block_maker *m, unsigned idx, const struct evex_insn *p)
{
    unsigned d = p->dst.number;
    bool whole = p->len == EVEX_LEN;
    struct inliner inliner, *c = &inliner;
    begin(c, m, idx, p, 1u << S | (whole || p->mask ? 1u << T : 0) | (p->mask ? 1u << U : 0), true);
    emit_guest_address(c);
    if (p->mask) {
        if (whole) {
            emit_load_vector(c, c->y[S], behind_x(c, 0));
            emit_load_vector(c, c->y[S], behind_x(c, EVEX_LOW));
            emit_masked_half(c, true, d);
            emit_address(m, c->in, memory_operand(c->in, false), 0, 0, c->x);
        }
        emit_move(c, false, c->y[S], behind_x(c, 0));
        emit_masked_half(c, false, d);
        if (!whole) {
            emit_cut(c, d);
            clear_high(c, d);
        }
        end(c);
        return;
    }
    if (whole) {
        emit_load_vector(c, c->y[S], behind_x(c, 0));
        emit_load_vector(c, c->y[T], behind_x(c, EVEX_LOW));
        set_high(c, d, c->y[T]);
    } else {
        emit_move(c, false, c->y[S], behind_x(c, 0));
        clear_high(c, d);
    }
    if (d < 16)
        emit_load_vector(c, d, in_register(c->y[S]));
    else
        emit_store_vector(c, low_of(d), c->y[S]);
    end(c);
}

static void inline_store(struct block_maker *m, unsigned idx, const struct evex_insn *p)
{
    unsigned n = p->src[0].number;
    bool whole = p->len == EVEX_LEN;
    struct inliner inliner, *c = &inliner;
    begin(c, m, idx, p, 1u << S | (whole ? 1u << T : 0), true);
    if (whole)
        emit_load_vector(c, c->y[T], high_of(c, n));
    emit_guest_address(c);
    if (whole) { // the lower half is written as it is first: if it cannot be, nor must the upper
                 // half
        emit_load_vector(c, c->y[S], behind_x(c, 0));
        emit_store_vector(c, behind_x(c, 0), c->y[S]);
        emit_store_vector(c, behind_x(c, EVEX_LOW), c->y[T]);
    }
    unsigned from = n < 16 ? n : c->y[S];
    emit_load_vector(c, from, low_of(n));
    emit_move(c, true, from, behind_x(c, 0));
    end(c);
}

static bool inline_move(struct block_maker *m, unsigned idx, const struct evex_insn *p)
{
    bool memory = p->src[0].kind == EVEX_MEMORY || p->dst.kind == EVEX_MEMORY;
    if (p->dst.kind == EVEX_MEMORY && p->mask)
        return false;
    if (memory) {
        if (p->dst.kind == EVEX_MEMORY)
            inline_store(m, idx, p);
        else
            inline_load(m, idx, p);
        return true;
    }
    unsigned d = p->dst.number, n = p->src[0].number;
    struct inliner inliner, *c = &inliner;
    begin(c, m, idx, p, 1u << S | (p->mask ? 1u << T | 1u << U : 0), p->len == EVEX_LEN);
    if (p->len == EVEX_LEN) {
        emit_load_vector(c, c->y[S], high_of(c, n));
        if (p->mask)
            emit_masked_half(c, true, d);
        else
            set_high(c, d, c->y[S]);
    } else {
        clear_high(c, d);
    }
    if (p->mask) {
        emit_load_vector(c, c->y[S], low_of(n));
        emit_masked_half(c, false, d);
        emit_cut(c, d);
        end(c);
        return true;
    }
    unsigned to = d < 16 ? d : c->y[S];
    emit_vex(&m->hot, p->len >= EVEX_LOW, MAP_0F, PP_F3, 0, VECTOR_MOVE_LOAD, to, 0, low_of(n));
    if (d >= 16)
        emit_store_vector(c, low_of(d), to);
    end(c);
    return true;
}

/* An element of memory, of a vector register or of a general one, everywhere. */
static bool inline_broadcast(struct block_maker *m, unsigned idx, const struct evex_insn *p)
{
    static const uint8_t opcodes[] = {[1] = 0x78, [2] = 0x79, [4] = 0x58, [8] = 0x59};
    const struct evex_operand *from = &p->src[0];
    if (p->mask || p->what)
        return false;
    unsigned d = p->dst.number, element = p->dst.element;
    bool stolen = from->kind == EVEX_GENERAL && is_stolen(m, from->number);
    struct inliner inliner, *c = &inliner;
    begin(c, m, idx, p, 1u << S, stolen || from->kind == EVEX_MEMORY);
    struct place rm =
        from->kind == EVEX_VECTOR ? low_of(from->number) : absolute(evex_registers->masked);
    if (from->kind == EVEX_MEMORY) {
        emit_guest_address(c);
        rm = behind_x(c, 0);
    } else if (from->kind == EVEX_GENERAL) {
        if (stolen)
            emit_load(&m->hot, c->x, guest_reg(m, from->number));
        emit_store_part(&m->hot, evex_registers->masked, stolen ? c->x : from->number, element);
    }
    emit_vex(&m->hot, p->len >= EVEX_LOW, MAP_0F38, PP_66, 0, opcodes[element], c->y[S], 0, rm);
    if (p->len == EVEX_LEN)
        set_high(c, d, c->y[S]);
    else
        clear_high(c, d);
    if (d < 16)
        emit_load_vector(c, d, in_register(c->y[S]));
    else
        emit_store_vector(c, low_of(d), c->y[S]);
    end(c);
    return true;
}

/* --- vpternlog --- */

static struct place operand_half(const struct inliner *c, const struct evex_operand *op, bool high)
{
    if (op->kind == EVEX_MEMORY) // only without an upper half
        return in_register(c->y[U]);
    return high ? high_of(c, op->number) : low_of(op->number);
}

/* The function of three bits as a sum, without carry, of products: bit i of the result says whether
 * that of the operands of i's bits is in it. */
static unsigned products_of(unsigned imm)
{
    for (unsigned var = 1; var < 8; var *= 2) {
        for (unsigned i = 0; i < 8; i++) {
            if (i & var)
                imm ^= (imm >> (i ^ var) & 1) << i;
        }
    }
    return imm;
}

/* The function of a half, in S. Uses T. */
static void emit_ternary(const struct inliner *c, bool high)
{
    struct emitter *e = &c->m->hot;
    const struct evex_operand *operands[3] = {&c->p->src[1], &c->p->src[0],
                                              &c->p->dst}; // of bits 0, 1 and 2
    unsigned products = products_of(c->p->imm), s = c->y[S], t = c->y[T];
    emit_load_vector(c, s, absolute(products & 1 ? evex_registers->ones : evex_registers->zeros));
    for (unsigned i = 1; i < 8; i++) {
        if (!(products >> i & 1))
            continue;
        unsigned first = (unsigned)__builtin_ctz(i);
        if (i & (i - 1)) {
            emit_load_vector(c, t, operand_half(c, operands[first], high));
            for (unsigned k = first + 1; k < 3; k++) {
                if (i >> k & 1)
                    emit_vex(e, 1, MAP_0F, PP_66, 0, OPCODE_PAND, t, t,
                             operand_half(c, operands[k], high));
            }
            emit_vex(e, 1, MAP_0F, PP_66, 0, OPCODE_PXOR, s, s, in_register(t));
        } else {
            emit_vex(e, 1, MAP_0F, PP_66, 0, OPCODE_PXOR, s, s,
                     operand_half(c, operands[first], high));
        }
    }
}

static bool inline_ternary(struct block_maker *m, unsigned idx, const struct evex_insn *p)
{
    bool memory = p->src[1].kind == EVEX_MEMORY, whole = p->len == EVEX_LEN;
    if (p->mask || p->broadcast || (memory && whole))
        return false;
    unsigned d = p->dst.number;
    struct inliner inliner, *c = &inliner;
    begin(c, m, idx, p, 1u << S | 1u << T | (memory ? 1u << U : 0), memory || whole);
    if (memory) {
        emit_guest_address(c);
        emit_move(c, false, c->y[U], behind_x(c, 0));
    }
    if (whole) {
        emit_ternary(c, true);
        set_high(c, d, c->y[S]);
    }
    emit_ternary(c, false);
    if (d < 16)
        emit_load_vector(c, d, in_register(c->y[S]));
    else
        emit_store_vector(c, low_of(d), c->y[S]);
    if (!whole) {
        emit_cut(c, d);
        clear_high(c, d);
    }
    end(c);
    return true;
}

/* --- compares --- */

/* How a comparison is done by what there is: equality, "greater" of signed elements, and the lesser
 * of unsigned ones. */
struct comparison {
    enum { BY_CODE, EQUAL, GREATER, LEAST, TESTED } how; /* LEAST: a is the lesser one, or equal */
    bool inverted, swapped;                              /* swapped: of b with a */
};

static bool plan_comparison(const struct evex_insn *p, struct comparison *out)
{
    *out = (struct comparison){.how = BY_CODE};
    if (p->run == evex_native_compare)
        return true;
    if (p->run == evex_test) {
        *out = (struct comparison){.how = TESTED, .inverted = p->what != EVEX_NOT};
        return true;
    }
    bool is_signed = p->what == EVEX_SIGNED, negated = p->imm & 4;
    switch (p->imm & 3) {
    case 0: // equal
        *out = (struct comparison){.how = EQUAL, .inverted = negated};
        return true;
    case 1: // less
        *out = (struct comparison){.how = is_signed ? GREATER : LEAST,
                                   .inverted = is_signed ? negated : !negated,
                                   .swapped = true};
        break;
    case 2: // less or equal
        *out = (struct comparison){.how = is_signed ? GREATER : LEAST,
                                   .inverted = is_signed ? !negated : negated};
        break;
    default:
        return false;
    }
    return is_signed || p->src[0].element < 8;
}

/* The comparison of one half, or less, as a vector of ones and zeros: in `to`. LEAST uses U. */
static void emit_compared(const struct inliner *c, const struct comparison *by, unsigned to,
                          unsigned a, struct place b)
{
    static const uint8_t greater[] = {[1] = 0x64, [2] = 0x65, [4] = 0x66, [8] = 0x37},
                         least[] = {[1] = 0xda, [2] = 0x3a, [4] = 0x3b};
    const struct evex_insn *p = c->p;
    unsigned l = p->len >= EVEX_LOW, element = p->src[0].element;
    if (by->how == GREATER) {
        emit_vex(&c->m->hot, l, element == 8 ? MAP_0F38 : MAP_0F, PP_66, 0, greater[element], to, a,
                 b);
    } else if (by->how == LEAST) {
        emit_vex(&c->m->hot, l, element == 1 ? MAP_0F : MAP_0F38, PP_66, 0, least[element], c->y[U],
                 a, b);
        emit_equal(c, l, element, to, a, in_register(c->y[U]));
    } else if (by->how == BY_CODE) {
        emit_vex(&c->m->hot, l, p->code[1] & 31, p->code[2] & 3, p->code[2] >> 7, p->code[3], to, a,
                 b);
        if (c->in->z.raw.imm[0].size)
            emit8(&c->m->hot, p->code[5]);
    } else if (by->how == TESTED) {
        emit_vex(&c->m->hot, l, MAP_0F, PP_66, 0, OPCODE_PAND, to, a, b);
        emit_equal(c, l, element, to, to, absolute(evex_registers->zeros));
    } else {
        emit_equal(c, l, element, to, a, b);
    }
    if (by->inverted)
        emit_vex(&c->m->hot, l, MAP_0F, PP_66, 0, OPCODE_PXOR, to, to,
                 absolute(evex_registers->ones));
}

/* One bit of each element of S, or with two halves of S and then T, to `k`. */
static void emit_signs(const struct inliner *c, uint8_t *k)
{
    struct emitter *e = &c->m->hot;
    const struct evex_insn *p = c->p;
    unsigned element = p->src[0].element, l = p->len >= EVEX_LOW;
    bool whole = p->len == EVEX_LEN;
    emit_store_zero(e, k);
    if (element == 8 && whole) { // to elements of 4 bytes
        emit_vex(e, 1, MAP_0F, 0, 0, 0xc6, c->y[S], c->y[S],
                 in_register(c->y[T])); // vshufps s, s, t
        emit8(e, 0x88);
        emit_vex(e, 1, MAP_0F3A, PP_66, 1, 0x00, c->y[S], 0, in_register(c->y[S])); // vpermq s, s
        emit8(e, 0xd8);
        element = 4;
        whole = false;
    }
    for (unsigned half = 0; half < 1u + whole; half++) {
        unsigned y = c->y[half ? T : S];
        if (element == 2) { // to bytes, and what is doubled away
            emit_vex(e, l, MAP_0F, PP_66, 0, 0x63, y, y,
                     absolute(evex_registers->zeros)); // vpacksswb y, y, zeros
            if (l) {
                emit_vex(e, 1, MAP_0F3A, PP_66, 1, 0x00, y, 0, in_register(y));
                emit8(e, 0xd8);
            }
        }
        if (element <= 2)
            emit_vex(e, l, MAP_0F, PP_66, 0, 0xd7, c->x, 0, in_register(y)); // vpmovmskb x, y
        else
            emit_vex(e, l, MAP_0F, element == 8 ? PP_66 : 0, 0, 0x50, c->x, 0,
                     in_register(y)); // vmovmskps, vmovmskpd
        unsigned bytes = EVEX_LOW / element / 8;
        emit_store_part(e, k + half * bytes, c->x, bytes ? bytes : 1);
    }
}

static bool inline_compare(struct block_maker *m, unsigned idx, const struct evex_insn *p)
{
    struct comparison by;
    const struct evex_operand *b = &p->src[1];
    bool memory = b->kind == EVEX_MEMORY, whole = p->len == EVEX_LEN;
    if (p->broadcast || p->rounding || p->scalar || p->dst.kind != EVEX_MASK ||
        (p->mask && p->is_float))
        return false;
    if (!plan_comparison(p, &by) || (memory && (by.swapped || (whole && by.how == LEAST))))
        return false;
    unsigned a = p->src[by.swapped].number;
    if (by.swapped)
        b = &p->src[0];
    struct inliner inliner, *c = &inliner;
    begin(c, m, idx, p,
          1u << S | (whole ? 1u << T : 0) | ((memory && whole) || by.how == LEAST ? 1u << U : 0),
          true);
    unsigned s = c->y[S], t = c->y[T];
    if (whole) {
        emit_load_vector(c, t, high_of(c, a));
        struct place rm = high_source(c, b);
        emit_compared(c, &by, t, t, rm);
    }
    struct place rm = low_source(c, b, whole);
    if (a >= 16)
        emit_load_vector(c, s, low_of(a));
    emit_compared(c, &by, s, a >= 16 ? s : a, rm);
    uint8_t *k = (uint8_t *)&evex_registers->k[p->dst.number];
    if (!p->mask) {
        emit_signs(c, k);
    } else {
        emit_signs(c, evex_registers->masked);
        emit_vex(&m->hot, 0, MAP_0F, PP_F3, 0, 0x7e, s, 0,
                 absolute(evex_registers->masked)); // vmovq s, [masked]
        emit_vex(&m->hot, 0, MAP_0F, PP_66, 0, OPCODE_PAND, s, s,
                 absolute(&evex_registers->k[p->mask]));
        emit_vex(&m->hot, 0, MAP_0F, PP_66, 0, 0xd6, s, 0, absolute(k)); // vmovq [k], s
    }
    end(c);
    return true;
}

/* --- opmasks --- */

/* Loads `bytes` of an opmask, zero-extended. */
static void emit_load_mask(struct emitter *e, unsigned reg, const uint64_t *k, unsigned bytes)
{
    emit8(e, (uint8_t)(0x40 | (bytes == 8 ? 8 : 0) | (reg >= 8 ? 4 : 0)));
    if (bytes <= 2)
        emit8(e, 0x0f);
    emit8(e, bytes == 1 ? 0xb6 : bytes == 2 ? 0xb7 : 0x8b);
    emit_place(e, reg, absolute(k));
}

static void inline_mask_move(struct block_maker *m, unsigned idx, const struct evex_insn *p,
                             unsigned bytes)
{
    struct emitter *e = &m->hot;
    struct inliner inliner, *c = &inliner;
    unsigned from = p->src[0].number, to = p->dst.number;
    bool stolen = (p->src[0].kind == EVEX_GENERAL && is_stolen(m, from)) ||
                  (p->dst.kind == EVEX_GENERAL && is_stolen(m, to)),
         between = p->src[0].kind == p->dst.kind;
    begin(c, m, idx, p, 0, stolen || between);
    if (p->dst.kind == EVEX_GENERAL) {
        emit_load_mask(e, stolen ? c->x : to, &evex_registers->k[from], bytes);
        if (stolen)
            emit_store(e, guest_reg(m, to), c->x);
    } else {
        unsigned reg = stolen || between ? c->x : from;
        if (stolen)
            emit_load(e, reg, guest_reg(m, from));
        if (between)
            emit_load_mask(e, reg, &evex_registers->k[from], bytes);
        emit_store_zero(e, &evex_registers->k[to]);
        emit_store_part(e, &evex_registers->k[to], reg, bytes);
    }
    end(c);
}

/* kortest: ZF if all bits are 0, CF if all are 1; the other flags become 0. */
static void inline_mask_test(struct block_maker *m, unsigned idx, const struct evex_insn *p,
                             unsigned bytes)
{
    struct emitter *e = &m->hot;
    struct inliner inliner, *c = &inliner;
    begin(c, m, idx, p, 0, true);
    uint8_t r = (uint8_t)(c->x >= 8 ? 4 : 0), b = (uint8_t)(c->x >= 8 ? 1 : 0), low = c->x & 7;
    emit_store(e, &m->t->state->spill[1], RAX);
    emit_load_mask(e, c->x, &evex_registers->k[p->src[0].number], bytes);
    if (bytes == 2)
        emit8(e, 0x66);
    emit8(e, (uint8_t)(0x40 | (bytes == 8 ? 8 : 0) | r));
    emit8(e, bytes == 1 ? 0x0a : 0x0b); // or x, [k]
    emit_place(e, c->x, absolute(&evex_registers->k[p->src[1].number]));
    if (bytes == 2)
        emit8(e, 0x66);
    emit8(e, (uint8_t)(0x40 | (bytes == 8 ? 8 : 0) | b));
    emit_bytes(e, (const uint8_t[]){bytes == 1 ? 0x80 : 0x83, (uint8_t)(0xf8 | low), 0xff},
               3);                                         // cmp x, -1
    emit_bytes(e, (const uint8_t[]){0x0f, 0x93, 0xc0}, 3); // setae al
    emit_bytes(e,
               (const uint8_t[]){(uint8_t)(0x48 | r | b), 0x85, (uint8_t)(0xc0 | low << 3 | low)},
               3); // test x, x
    emit_bytes(e, (const uint8_t[]){(uint8_t)(0x40 | b), 0x0f, 0x94, (uint8_t)(0xc0 | low)},
               4); // sete x
    emit_bytes(e, (const uint8_t[]){(uint8_t)(0x40 | b), 0xc0, (uint8_t)(0xe0 | low), 6},
               4); // shl x, 6
    emit_bytes(e, (const uint8_t[]){(uint8_t)(0x40 | b), 0x0a, (uint8_t)(0xc0 | low)},
               3);                                         // or al, x: clears OF
    emit_bytes(e, (const uint8_t[]){0x88, 0xc4, 0x9e}, 3); // mov ah, al; sahf
    emit_load(e, RAX, &m->t->state->spill[1]);
    end(c);
}

bool evex_emit_inline(struct block_maker *m, unsigned idx, const struct evex_insn *p)
{
    if (p->run == evex_native)
        return inline_native(m, idx, p);
    if (p->run == evex_move)
        return inline_move(m, idx, p);
    if (p->run == evex_ternary)
        return inline_ternary(m, idx, p);
    if (p->run == evex_broadcast)
        return inline_broadcast(m, idx, p);
    if (p->run == evex_native_compare || p->run == evex_compare || p->run == evex_test)
        return inline_compare(m, idx, p);
    if (p->run == evex_mask_op && (p->what & 15) == EVEX_K_MOV && p->src[0].kind != EVEX_MEMORY &&
        p->dst.kind != EVEX_MEMORY) {
        inline_mask_move(m, idx, p, p->what >> 4);
        return true;
    }
    if (p->run == evex_mask_op && (p->what & 15) == EVEX_K_ORTEST) {
        inline_mask_test(m, idx, p, p->what >> 4);
        return true;
    }
    return false;
}
