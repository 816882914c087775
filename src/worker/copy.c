/* Copying instructions: into host code, with other registers and displacements where they have to
 * differ. */
#include "worker/evex.h"
#include "worker/maker.h"
#include "worker/x87.h"

/* Which bits name a register operand: the field and its extension in REX, VEX, EVEX or XOP. */
enum field { FIELD_REG, FIELD_RM, FIELD_BASE, FIELD_INDEX, FIELD_OPCODE, FIELD_VVVV };

static void set_bit(uint8_t *byte, unsigned bit, bool value)
{
    *byte = (uint8_t)((*byte & ~(1u << bit)) | (unsigned)value << bit);
}

/* Sets extension bit R, X or B of a copied instruction. which: 2 = R, 1 = X, 0 = B. */
static void set_extension(const struct insn *in, uint8_t *bytes, unsigned which, bool value)
{
    const ZydisDecodedInstructionRaw *raw = &in->z.raw;
    switch (in->z.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
    case ZYDIS_INSTRUCTION_ENCODING_3DNOW:
        if (in->z.attributes & ZYDIS_ATTRIB_HAS_REX)
            set_bit(&bytes[raw->rex.offset], which, value);
        break;
    case ZYDIS_INSTRUCTION_ENCODING_VEX: // inverted; the two-byte form only has R
        if (raw->vex.size == 2) {
            if (which == 2)
                set_bit(&bytes[raw->vex.offset + 1], 7, !value);
        } else {
            set_bit(&bytes[raw->vex.offset + 1], 5 + which, !value);
        }
        break;
    case ZYDIS_INSTRUCTION_ENCODING_XOP:
        set_bit(&bytes[raw->xop.offset + 1], 5 + which, !value);
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        set_bit(&bytes[raw->evex.offset + 1], 5 + which, !value);
        break;
    default:
        break;
    }
}

static void set_field(const struct insn *in, uint8_t *bytes, enum field field, unsigned reg)
{
    const ZydisDecodedInstructionRaw *raw = &in->z.raw;
    uint8_t low = reg & 7;
    bool high = reg >= 8;
    switch (field) {
    case FIELD_REG:
        bytes[raw->modrm.offset] = (uint8_t)((bytes[raw->modrm.offset] & ~0x38) | low << 3);
        set_extension(in, bytes, 2, high);
        break;
    case FIELD_RM:
        bytes[raw->modrm.offset] = (uint8_t)((bytes[raw->modrm.offset] & ~7) | low);
        set_extension(in, bytes, 0, high);
        break;
    case FIELD_BASE:
        bytes[raw->sib.offset] = (uint8_t)((bytes[raw->sib.offset] & ~7) | low);
        set_extension(in, bytes, 0, high);
        break;
    case FIELD_INDEX:
        bytes[raw->sib.offset] = (uint8_t)((bytes[raw->sib.offset] & ~0x38) | low << 3);
        set_extension(in, bytes, 1, high);
        break;
    case FIELD_OPCODE: { // the last opcode byte, right before any immediate
        uint8_t at = (uint8_t)(raw->imm[0].size ? raw->imm[0].offset - 1 : in->z.length - 1);
        bytes[at] = (uint8_t)((bytes[at] & ~7) | low);
        set_extension(in, bytes, 0, high);
        break;
    }
    case FIELD_VVVV: {
        uint8_t *byte =
            in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_XOP    ? &bytes[raw->xop.offset + 2]
            : in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ? &bytes[raw->evex.offset + 2]
            : raw->vex.size == 2                                ? &bytes[raw->vex.offset + 1]
                                                                : &bytes[raw->vex.offset + 2];
        *byte = (uint8_t)((*byte & ~0x78) | (~reg & 15) << 3);
        break;
    }
    }
}

/* Gives the general registers that the instruction names other names: name[r] for r. */
static void rename_registers(const struct insn *in, uint8_t *bytes, const uint8_t name[16])
{
    bool sib = in->z.attributes & ZYDIS_ATTRIB_HAS_SIB;
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            unsigned base = gpr_number(op->mem.base), index = gpr_number(op->mem.index);
            if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
                continue;
            if (base != NO_REG && name[base] != base)
                set_field(in, bytes, sib ? FIELD_BASE : FIELD_RM, name[base]);
            if (index != NO_REG && name[index] != index && sib)
                set_field(in, bytes, FIELD_INDEX, name[index]);
            continue;
        }
        unsigned reg = op->type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_number(op->reg.value) : NO_REG;
        if (reg == NO_REG || name[reg] == reg)
            continue;
        switch (op->encoding) {
        case ZYDIS_OPERAND_ENCODING_MODRM_REG:
            set_field(in, bytes, FIELD_REG, name[reg]);
            break;
        case ZYDIS_OPERAND_ENCODING_MODRM_RM:
            set_field(in, bytes, FIELD_RM, name[reg]);
            break;
        case ZYDIS_OPERAND_ENCODING_OPCODE:
            set_field(in, bytes, FIELD_OPCODE, name[reg]);
            break;
        case ZYDIS_OPERAND_ENCODING_NDSNDD:
            set_field(in, bytes, FIELD_VVVV, name[reg]);
            break;
        default:
            break;
        }
    }
}

/* Makes the memory operand of a copied instruction plain [x], x being one of the registers that
 * need no REX, SIB or displacement. */
static void set_plain_operand(const struct insn *in, uint8_t *bytes, unsigned *len, unsigned x)
{
    const ZydisDecodedInstructionRaw *raw = &in->z.raw;
    if (!(in->z.attributes &
          ZYDIS_ATTRIB_HAS_MODRM)) { // mov between the accumulator and an absolute address
        static const uint8_t with_modrm[] = {0x8a, 0x8b, 0x88, 0x89}; // of 0xa0 to 0xa3
        bytes[raw->disp.offset - 1] = with_modrm[in->z.opcode & 3];
        bytes[raw->disp.offset] = (uint8_t)x;
        set_extension(in, bytes, 2, false);
        set_extension(in, bytes, 0, false);
        *len = raw->disp.offset + 1u;
        return;
    }
    unsigned rest = raw->modrm.offset + 1u + (in->z.attributes & ZYDIS_ATTRIB_HAS_SIB ? 1 : 0) +
                    raw->disp.size / 8u;
    bytes[raw->modrm.offset] = (uint8_t)((bytes[raw->modrm.offset] & 0x38) | x);
    set_extension(in, bytes, 0, false);
    __builtin_memmove(bytes + raw->modrm.offset + 1, bytes + rest, *len - rest);
    *len -= rest - raw->modrm.offset - 1u;
}

const void *segment_base(const struct block_maker *m, const ZydisDecodedOperand *op)
{
    return op->mem.segment == ZYDIS_REGISTER_FS ? &m->t->state->fs_base : &m->t->state->gs_base;
}

void emit_address(struct block_maker *m, const struct insn *in, const ZydisDecodedOperand *op,
                  int64_t inside, int64_t behind, unsigned x)
{
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    unsigned base = gpr_number(op->mem.base), index = gpr_number(op->mem.index),
             scale = op->mem.scale ? op->mem.scale : 1;
    int64_t disp = displacement(op) + inside;
    bool narrow = in->z.address_width == 32,
         in_segment = op->mem.segment == ZYDIS_REGISTER_FS || op->mem.segment == ZYDIS_REGISTER_GS;
    unsigned y = pick_scratch(registers_used(in) | m->stolen | 1u << x, false);
    if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP) {
        emit_imm64(e, x, rip_address(in, op) + (uint64_t)behind);
        behind = 0;
    } else if (base == NO_REG && index == NO_REG) {
        emit_imm64(e, x, (narrow ? (uint32_t)disp : (uint64_t)disp) + (uint64_t)behind);
        behind = 0;
    } else {
        bool base_stolen = is_stolen(m, base), index_stolen = is_stolen(m, index);
        // One stolen register is loaded into x, another one, or one that x must not hide, into y.
        bool use_y = (base_stolen && index_stolen && base != index) ||
                     (base_stolen && index == x && !index_stolen) ||
                     (index_stolen && base == x && !base_stolen);
        if (use_y)
            emit_store(e, &s->spill[3], y);
        if (base_stolen) {
            bool into_y = use_y && !index_stolen;
            emit_load(e, into_y ? y : x, guest_reg(m, base));
            if (index == base) {
                index = x;
                index_stolen = false;
            }
            base = into_y ? y : x;
        }
        if (index_stolen) {
            emit_load(e, use_y ? y : x, guest_reg(m, index));
            index = use_y ? y : x;
        }
        if (narrow)
            emit8(e, 0x67);
        else
            disp += behind;
        emit_mem(e, 8, 0x8d, x, base, index, scale, (int32_t)disp);
        if (!narrow)
            behind = 0;
        if (use_y)
            emit_load(e, y, &s->spill[3]);
    }
    if (in_segment) {
        emit_store(e, &s->spill[3], y);
        emit_load(e, y, segment_base(m, op));
        emit_mem(e, 8, 0x8d, x, x, y, 1, 0);
        emit_load(e, y, &s->spill[3]);
    }
    if (behind)
        emit_mem(e, 8, 0x8d, x, x, NO_REG, 1, (int32_t)behind);
}

void emit_bit_offset(struct block_maker *m, const struct insn *in)
{
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    unsigned reg = gpr_number(in->op[1].reg.value), width = in->op[1].size;
    uint32_t busy = registers_used(in) | m->stolen;
    unsigned x = SCRATCH, y = pick_scratch(busy, false), z = pick_scratch(busy | 1u << y, false);
    emit_store(e, &s->spill[3], y);
    emit_store(e, &s->spill[1], z);
    if (is_stolen(m, reg)) {
        emit_load(e, y, guest_reg(m, reg));
        reg = y;
    }
    emit8(e, (uint8_t)(0x48 | (y >= 8 ? 4 : 0) | (reg >= 8 ? 1 : 0)));
    if (width == 16)
        emit8(e, 0x0f);
    emit8(e, width == 16 ? 0xbf : width == 32 ? 0x63 : 0x8b); // movsx y, reg
    emit8(e, (uint8_t)(0xc0 | (y & 7) << 3 | (reg & 7)));
    emit_imm64(e, z, width == 16 ? 4 : width == 32 ? 5 : 6);
    emit8(e, 0xc4); // sarx y, y, z: leaves the flags alone
    emit8(e, (uint8_t)((y >= 8 ? 0 : 0x80) | 0x40 | (y >= 8 ? 0 : 0x20) | 2));
    emit8(e, (uint8_t)(0x80 | (~z & 15) << 3 | 2));
    emit8(e, 0xf7);
    emit8(e, (uint8_t)(0xc0 | (y & 7) << 3 | (y & 7)));
    emit_mem(e, 8, 0x8d, x, x, y, width / 8, 0);
    emit_load(e, z, &s->spill[1]);
    emit_load(e, y, &s->spill[3]);
}

/* Puts the base of the operand's segment into its address, and DS in place of the segment. Returns
 * the register that it takes, whose value is in spill[3] then. `name`: the registers that now hold
 * the guest's. */
static unsigned emit_add_segment(struct block_maker *m, const struct insn *in,
                                 const ZydisDecodedOperand *op, uint8_t *bytes, unsigned *len,
                                 uint32_t busy, const uint8_t name[16])
{
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    bool plain = is_plain_address(in, op);
    unsigned base = gpr_number(op->mem.base), index = gpr_number(op->mem.index);
    int64_t disp = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
    base = base == NO_REG ? NO_REG : name[base];
    index = index == NO_REG ? NO_REG : name[index];
    unsigned x = pick_scratch(busy, true);
    if (x == NO_REG && plain && (in->z.attributes & ZYDIS_ATTRIB_HAS_REX)) // cmpxchg16b uses many
        x = pick_scratch(busy, false);
    if (x == NO_REG)
        engine_host_fatal("no register left to address a segment");
    for (unsigned i = 0; i < in->z.raw.prefix_count; i++) {
        if (bytes[i] == 0x64 || bytes[i] == 0x65 || (bytes[i] == 0x67 && !plain))
            bytes[i] = 0x3e;
    }
    emit_store(e, &s->spill[3], x);
    if (plain) {
        emit_load(e, x, segment_base(m, op));
        if (base != NO_REG)
            emit_mem(e, 8, 0x8d, x, base, x, 1, (int32_t)popped_before(in, op));
        else
            bytes[in->z.raw.modrm.offset] |= 0x80; // a displacement of 32 bits behind a base in SIB
        set_field(in, bytes, in->z.attributes & ZYDIS_ATTRIB_HAS_SIB ? FIELD_BASE : FIELD_RM, x);
        return x;
    }
    unsigned y = pick_scratch(busy | 1u << x, false);
    if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP) {
        emit_imm64(e, x, rip_address(in, op));
    } else if (base == NO_REG && index == NO_REG) {
        emit_imm64(e, x, in->z.address_width == 32 ? (uint32_t)disp : (uint64_t)disp);
    } else {
        emit8(e, 0x67);
        emit_mem(e, 8, 0x8d, x, base, index, op->mem.scale ? op->mem.scale : 1, (int32_t)disp);
    }
    emit_store(e, &s->hit, y);
    emit_load(e, y, segment_base(m, op));
    emit_mem(e, 8, 0x8d, x, x, y, 1, 0);
    emit_load(e, y, &s->hit);
    set_plain_operand(in, bytes, len, x);
    return x;
}

/* Adds the base of the operand's segment to the register that the instruction implies for its
 * address, and makes the segment DS. Returns a register that holds the base, and whose value is in
 * spill[3]. */
static unsigned emit_base_segment(struct block_maker *m, const struct insn *in,
                                  const ZydisDecodedOperand *op, uint8_t *bytes, uint32_t busy)
{
    struct emitter *e = &m->hot;
    unsigned reg = gpr_number(op->mem.base), x = pick_scratch(busy, false);
    for (unsigned i = 0; i < in->z.raw.prefix_count; i++) {
        if (bytes[i] == 0x64 || bytes[i] == 0x65)
            bytes[i] = 0x3e;
    }
    emit_store(e, &m->t->state->spill[3], x);
    emit_load(e, x, segment_base(m, op));
    emit_mem(e, 8, 0x8d, reg, reg, x, 1, 0); // lea reg, [reg + x]
    return x;
}

/* Takes the base in x off the register again, whatever the instruction has made of it; the flags
 * stay. */
static void emit_unbase_segment(struct block_maker *m, const ZydisDecodedOperand *op, unsigned x)
{
    struct emitter *e = &m->hot;
    unsigned reg = gpr_number(op->mem.base);
    emit_bytes(
        e, (const uint8_t[]){(uint8_t)(0x48 | (x >= 8 ? 1 : 0)), 0xf7, (uint8_t)(0xd0 | (x & 7))},
        3);                                  // not x
    emit_mem(e, 8, 0x8d, reg, reg, x, 1, 1); // lea reg, [reg + x + 1]
}

/* Is the register's old value of no account, since all of it is set? */
static bool only_sets(const struct insn *in, unsigned reg)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_POP:
        break;
    default:
        return false;
    }
    if (in->op[0].type != ZYDIS_OPERAND_TYPE_REGISTER || gpr_number(in->op[0].reg.value) != reg ||
        in->op[0].size < 32)
        return false;
    const ZydisDecodedOperand *from = &in->op[1];
    if (in->z.mnemonic == ZYDIS_MNEMONIC_POP)
        return true;
    if (from->type == ZYDIS_OPERAND_TYPE_REGISTER)
        return gpr_number(from->reg.value) != reg;
    return from->type != ZYDIS_OPERAND_TYPE_MEMORY ||
           (gpr_number(from->mem.base) != reg && gpr_number(from->mem.index) != reg);
}

/* Puts a value that `load` emits code for into a register of the guest. */
static unsigned begin_set(struct block_maker *m, unsigned reg)
{
    if (!is_stolen(m, reg))
        return reg;
    if (m->weaves)
        return SCRATCH;
    emit_store(&m->hot, &m->t->state->spill[0], RAX);
    return RAX;
}

static void end_set(struct block_maker *m, unsigned reg, unsigned x)
{
    if (x == reg && !is_stolen(m, reg))
        return;
    emit_store(&m->hot, guest_reg(m, reg), x);
    if (!m->weaves)
        emit_load(&m->hot, x, &m->t->state->spill[0]);
}

/* rdfsbase or rdgsbase: a load. */
static void emit_read_segment_base(struct block_maker *m, const struct insn *in)
{
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    unsigned reg = gpr_number(in->op[0].reg.value), x = begin_set(m, reg);
    emit_load(e, x, in->z.mnemonic == ZYDIS_MNEMONIC_RDFSBASE ? &s->fs_base : &s->gs_base);
    if (in->z.operand_width == 32) {
        emit8(e, (uint8_t)(x >= 8 ? 0x45 : 0x40)); // mov x32, x32: clears the upper half
        emit8(e, 0x89);
        emit8(e, (uint8_t)(0xc0 | (x & 7) << 3 | (x & 7)));
    }
    end_set(m, reg, x);
}

void emit_copy(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    uint32_t used = registers_used(in), written = registers_written(in);
    uint8_t bytes[16];
    __builtin_memcpy(bytes, in->bytes, sizeof(bytes));
    unsigned len = in->z.length;

    if (in->emulated) {
        evex_emit(m, idx);
        return;
    }
    if (in->z.mnemonic == ZYDIS_MNEMONIC_LEA && in->op[1].mem.base == ZYDIS_REGISTER_RIP &&
        in->z.operand_width == 64) {
        unsigned reg = gpr_number(in->op[0].reg.value), x = begin_set(m, reg);
        emit_imm64(e, x, rip_address(in, &in->op[1]));
        end_set(m, reg, x);
        return;
    }
    if (in->z.mnemonic == ZYDIS_MNEMONIC_RDFSBASE || in->z.mnemonic == ZYDIS_MNEMONIC_RDGSBASE) {
        emit_read_segment_base(m, in);
        return;
    }

    uint8_t spilled[4] = {NO_REG, NO_REG, NO_REG, NO_REG};
    uint32_t busy = used | m->stolen;
    uint8_t renamed[3], renamed_to[3], count = 0;
    uint8_t name[16] = {RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI,
                        R8,  R9,  R10, R11, R12, R13, R14, R15};
    for (unsigned reg = R8; reg <= R15; reg++) {
        if (!(used & m->stolen & 1u << reg))
            continue;
        unsigned x = SCRATCH;
        if (!m->weaves || count) {
            x = pick_scratch(busy, false);
            spilled[count] = (uint8_t)x;
            emit_store(e, &s->spill[count], x);
        }
        busy |= 1u << x;
        if (!only_sets(in, reg))
            emit_load(e, x, guest_reg(m, reg));
        name[reg] = (uint8_t)x;
        renamed[count] = (uint8_t)reg;
        renamed_to[count++] = (uint8_t)x;
    }
    if (count)
        rename_registers(in, bytes, name);
    const ZydisDecodedOperand *segment = segment_operand(in), *rip = rip_operand(in);
    bool implied = segment && is_implied_address(in, segment);
    if (implied) {
        spilled[3] = (uint8_t)emit_base_segment(m, in, segment, bytes, busy);
    } else if (segment) {
        spilled[3] = (uint8_t)emit_add_segment(m, in, segment, bytes, &len, busy, name);
    } else if (rip) {
        uint64_t address = rip_address(in, rip);
        int64_t rel = (int64_t)(address - ((uint64_t)(uintptr_t)e->at + len));
        if (rel == (int32_t)rel && rip->mem.base == ZYDIS_REGISTER_RIP) {
            int32_t rel32 = (int32_t)rel;
            __builtin_memcpy(bytes + in->z.raw.disp.offset, &rel32, 4);
        } else { // out of reach
            unsigned x = pick_scratch(busy, true);
            spilled[3] = (uint8_t)x;
            emit_store(e, &s->spill[3], x);
            emit_imm64(e, x, address);
            set_plain_operand(in, bytes, &len, x);
        }
    }
    add_point(m, idx, spilled, true);
    if (implied) {
        struct fault_point *p = &m->t->points[m->t->point_count - 1];
        p->based = (uint8_t)gpr_number(segment->mem.base);
        p->based_in_gs = segment->mem.segment == ZYDIS_REGISTER_GS;
    }
    emit_bytes(e, bytes, len);
    if (implied)
        emit_unbase_segment(m, segment, spilled[3]);
    if (engine_isa()->emulates_avx512)
        evex_emit_upper(m, in);
    if (spilled[3] != NO_REG)
        emit_load(e, spilled[3], &s->spill[3]);
    for (unsigned i = 0; i < count; i++) {
        if (written >> renamed[i] & 1)
            emit_store(e, guest_reg(m, renamed[i]), renamed_to[i]);
    }
    for (unsigned i = count; i-- > 0;) {
        if (spilled[i] != NO_REG)
            emit_load(e, spilled[i], &s->spill[i]);
    }
    x87_emit_note(m, idx);
}
