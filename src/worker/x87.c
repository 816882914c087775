#include "worker/x87.h"

#include "worker/code.h"

#include "x86/xstate.h"

/* Images of FXSAVE and XSAVE (SDM 1, table 10-2), of FNSTENV with 32-bit and with 16-bit operands
 * (SDM 1, figures 8-9 and 8-11). */
enum {
    FSW_AT = 2,
    RESERVED_AT = 5,
    FOP_AT = 6,
    FIP_AT = 8,
    FDP_AT = 16,
    MXCSR_MASK_AT = 28,
    HEADER_AT = 512
};
enum {
    ENV_FSW = 4,
    ENV_FIP = 12,
    ENV_FCS = 16,
    ENV_FOP = 18,
    ENV_FDP = 20,
    ENV_FDS = 24,
    ENV_LEN = 28
};
enum {
    SHORT_FSW = 2,
    SHORT_FIP = 6,
    SHORT_FCS = 8,
    SHORT_FDP = 10,
    SHORT_FDS = 12,
    SHORT_LEN = 14
};
enum { ERROR_SUMMARY = 0x80, USER_CS = 0x33, USER_SS = 0x2b, OPCODE_MASK = 0x7ff };

enum x87_effect x87_effect_of(const struct insn *in)
{
    if (kind_of_store(in) == STORE_STATE)
        return X87_SHOWS;
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_FNINIT:
        return X87_CLEARS;
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        return X87_LOADS;
    case ZYDIS_MNEMONIC_FNCLEX: // these control the unit only
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
        return X87_NONE;
    default:
        return in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
                       in->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (in->z.opcode & 0xf8) == 0xd8
                   ? X87_MOVES
                   : X87_NONE;
    }
}

/* --- noting --- */

static void emit_store_imm64(struct emitter *e, const uint64_t *address, uint64_t v)
{
    if ((uint64_t)(int64_t)(int32_t)v == v) {
        emit8(e, 0x48); // mov qword [address], v
        emit_store_imm(e, address, (uint32_t)v);
        return;
    }
    emit_store_imm(e, address, (uint32_t)v);
    emit_store_imm(e, (const uint8_t *)address + 4, (uint32_t)(v >> 32));
}

/* The offset within its segment of the instruction's operand; registers are as they were before it.
 */
static void emit_data(struct block_maker *m, const struct insn *in)
{
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    ZydisDecodedOperand op = *memory_operand(in, false);
    emit_store_imm(e, &s->x87.data_selector, op.mem.segment == ZYDIS_REGISTER_SS ? USER_SS : 0);
    op.mem.segment = ZYDIS_REGISTER_DS;
    unsigned x = m->weaves ? SCRATCH : pick_scratch(registers_used(in) | m->stolen, false);
    if (!m->weaves)
        emit_store(e, &s->spill[2], x);
    emit_address(m, in, &op, 0, 0, x);
    emit_store(e, &s->x87.data, x);
    if (!m->weaves)
        emit_load(e, x, &s->spill[2]);
}

static uint32_t opcode_of(const struct insn *in)
{
    return (uint32_t)(in->z.opcode & 7) << 8 | in->bytes[in->z.raw.modrm.offset];
}

/* Will the next instruction of the block note itself whatever happens, but for SIGFPE? */
static bool noted_by_next(const struct block_maker *m, unsigned idx)
{
    const struct insn *next = &m->insns[idx + 1];
    return idx + 1 < m->count && x87_effect_of(next) == X87_MOVES && !memory_operand(next, false);
}

void x87_note_before_fault(struct engine_state *s, uint64_t before)
{
    static struct insn in;
    uint64_t ignored;
    vectors_save();
    if (!insn_decode(before, &in, &ignored).stops && x87_effect_of(&in) == X87_MOVES) {
        s->x87.pc = before;
        if (!engine_isa()->x87_data_of_exceptions)
            s->x87.opcode = opcode_of(&in);
    }
    vectors_load();
}

void x87_emit_note(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    enum x87_effect effect = x87_effect_of(in);
    if (effect == X87_CLEARS) {
        emit_store_imm64(e, &s->x87.pc, 0);
        emit_store_imm64(e, &s->x87.data, 0);
        emit_store_imm(e, &s->x87.opcode, 0);
        emit_store_imm(e, &s->x87.data_selector, 0);
    }
    if (effect != X87_MOVES)
        return;
    bool all = !engine_isa()->x87_data_of_exceptions;
    if (all && memory_operand(in, false))
        emit_data(m, in);
    if (noted_by_next(m, idx))
        return;
    emit_store_imm64(e, &s->x87.pc, in->pc);
    if (all)
        emit_store_imm(e, &s->x87.opcode, opcode_of(in));
}

/* --- showing and loading --- */

static uint64_t load(const uint8_t *p, unsigned len)
{
    uint64_t v = 0;
    __builtin_memcpy(&v, p, len);
    return v;
}

static void store(uint8_t *p, unsigned len, uint64_t v)
{
    __builtin_memcpy(p, &v, len);
}

/* An unmasked exception is pending, and the CPU that recorded tells operand and opcode of such
 * only. The CPU told `data`, with the base of FS or GS. Decodes by hand (SDM 2A, 2.1): Zydis uses
 * vector registers, and these may be the guest's. */
static void note_exception(struct engine_state *s, uint64_t data)
{
    struct x87_pointers *p = &s->x87;
    uint8_t bytes[15] = {0};
    uint64_t base = 0;
    unsigned at = 0, rex = 0;
    engine_copy_from_guest(bytes, p->pc, sizeof(bytes));
    for (; at < 12 && (bytes[at] & 0xf8) != 0xd8; at++) {
        base = bytes[at] == 0x64 ? s->fs_base : bytes[at] == 0x65 ? s->gs_base : base;
        rex = bytes[at];
    }
    uint8_t modrm = bytes[at + 1], mod = modrm >> 6, rm = modrm & 7, sib_base = bytes[at + 2] & 7;
    p->opcode = (uint32_t)(bytes[at] & 7) << 8 | modrm;
    if (mod == 3)
        return;
    bool extended = (rex & 0xf1) == 0x41;
    bool stack = !extended && (rm == 4 ? sib_base == 4 || (sib_base == 5 && mod) : rm == 5 && mod);
    p->data = data == p->data ? data : data - base; // once only
    p->data_selector = stack && !base ? USER_SS : 0;
}

/* In an environment of 28 bytes or, narrow, 14. */
static void show_in_environment(struct engine_state *s, uint8_t *env, bool narrow)
{
    const struct x87_pointers *p = &s->x87;
    if (load(env + (narrow ? SHORT_FSW : ENV_FSW), 2) & ERROR_SUMMARY &&
        engine_isa()->x87_data_of_exceptions)
        note_exception(s, load(env + (narrow ? SHORT_FDP : ENV_FDP), narrow ? 2 : 4));
    bool selectors = !engine_isa()->x87_no_selectors;
    store(env + (narrow ? SHORT_FIP : ENV_FIP), narrow ? 2 : 4, p->pc);
    store(env + (narrow ? SHORT_FCS : ENV_FCS), 2, selectors && p->pc ? USER_CS : 0);
    if (!narrow)
        store(env + ENV_FOP, 2, p->opcode);
    store(env + (narrow ? SHORT_FDP : ENV_FDP), narrow ? 2 : 4, p->data);
    store(env + (narrow ? SHORT_FDS : ENV_FDS), 2, selectors ? p->data_selector : 0);
}

static void load_environment(struct x87_pointers *p, const uint8_t *env, bool narrow)
{
    p->pc = load(env + (narrow ? SHORT_FIP : ENV_FIP), narrow ? 2 : 4);
    p->data = load(env + (narrow ? SHORT_FDP : ENV_FDP), narrow ? 2 : 4);
    p->data_selector = env[narrow ? SHORT_FDS : ENV_FDS];
    p->opcode = narrow ? 0 : (uint32_t)load(env + ENV_FOP, 2) & OPCODE_MASK;
}

/* In an image of FXSAVE or XSAVE. Without REX.W offsets have 32 bits, and selectors are behind
 * them. */
static void show_in_image(struct engine_state *s, uint8_t *image, bool wide)
{
    static const struct x87_pointers none;
    bool pending = load(image + FSW_AT, 2) & ERROR_SUMMARY,
         selectors = !engine_isa()->x87_no_selectors;
    if (pending && engine_isa()->x87_data_of_exceptions)
        note_exception(s, load(image + FDP_AT, wide ? 8 : 4));
    const struct x87_pointers *shown =
        engine_isa()->x87_saves_pending && !pending ? &none : &s->x87;
    store(image + FOP_AT, 2, shown->opcode);
    store(image + FIP_AT, 8,
          wide ? shown->pc
               : (uint32_t)shown->pc | (uint64_t)(selectors && shown->pc ? USER_CS : 0) << 32);
    store(image + FDP_AT, 8,
          wide ? shown->data
               : (uint32_t)shown->data | (uint64_t)(selectors ? shown->data_selector : 0) << 32);
}

void x87_from_image(struct engine_state *s, const uint8_t *image)
{
    s->x87 = (struct x87_pointers){.pc = load(image + FIP_AT, 8),
                                   .data = load(image + FDP_AT, 8),
                                   .data_selector = image[RESERVED_AT],
                                   .opcode = (uint32_t)load(image + FOP_AT, 2) & OPCODE_MASK};
}

void x87_to_image(struct engine_state *s, uint8_t *image)
{
    if (load(image + FSW_AT, 2) & ERROR_SUMMARY && engine_isa()->x87_data_of_exceptions)
        note_exception(s, load(image + FDP_AT, 8));
    store(image + FIP_AT, 8, s->x87.pc);
    store(image + FDP_AT, 8, s->x87.data);
    store(image + FOP_AT, 2, s->x87.opcode);
    image[RESERVED_AT] =
        (uint8_t)s->x87
            .data_selector; // no CPU looks there, and there is no other place in the 64-bit image
}

void x87_clear_image(uint8_t *image)
{
    store(image + FIP_AT, 8, 0);
    store(image + FDP_AT, 8, 0);
    store(image + FOP_AT, 2, 0);
    image[RESERVED_AT] = 0;
}

void x87_clear(struct engine_state *s)
{
    s->x87 = (struct x87_pointers){0};
}

/* Does an instruction of the XSAVE feature set move the x87 unit's state, and is it in `image`? */
static bool moves_x87(const struct engine_state *s, const uint8_t *image, bool *in_image_out)
{
    *in_image_out = load(image + HEADER_AT, 8) >> XSTATE_X87 & 1;
    return s->regs[RAX] >> XSTATE_X87 & 1;
}

/* Does an FXSAVE or XSAVE write MXCSR and its mask? */
static bool saves_mxcsr(const struct engine_state *s, const struct insn *in, const uint8_t *image)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
        return true;
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
        return s->regs[RAX] & load(image + HEADER_AT, 8) & 1 << XSTATE_SSE;
    default:
        return s->regs[RAX] & (1 << XSTATE_SSE | 1 << XSTATE_AVX);
    }
}

static void show(struct engine_state *s, const struct insn *in, uint64_t address)
{
    bool is_env =
        in->z.mnemonic == ZYDIS_MNEMONIC_FNSTENV || in->z.mnemonic == ZYDIS_MNEMONIC_FNSAVE;
    bool narrow = in->z.operand_width == 16, present = true;
    bool fx = in->z.mnemonic == ZYDIS_MNEMONIC_FXSAVE || in->z.mnemonic == ZYDIS_MNEMONIC_FXSAVE64;
    unsigned len = !is_env ? HEADER_AT : narrow ? SHORT_LEN : ENV_LEN;
    uint8_t image[HEADER_AT + 8];
    if (engine_copy_from_guest(image, address, len + (is_env || fx ? 0 : 8)) < len)
        return; // another process's mapping of it may be gone
    bool shown = is_env || fx || (moves_x87(s, image, &present) && present);
    if (is_env)
        show_in_environment(s, image, narrow);
    else if (shown)
        show_in_image(s, image, in->z.attributes & ZYDIS_ATTRIB_HAS_REX && in->z.raw.rex.W);
    bool has_mask = !is_env && engine_isa()->mxcsr_mask && saves_mxcsr(s, in, image);
    if (has_mask)
        store(image + MXCSR_MASK_AT, 4, engine_isa()->mxcsr_mask);
    if (!shown && !has_mask)
        return;
    engine_copy_to_guest(address, image, is_env ? len : has_mask ? MXCSR_MASK_AT + 4 : FDP_AT + 8);
    if (in->z.mnemonic == ZYDIS_MNEMONIC_FNSAVE)
        x87_clear(s);
}

static void take(struct engine_state *s, const struct insn *in, uint64_t address)
{
    uint8_t image[HEADER_AT + 8];
    bool is_env =
             in->z.mnemonic == ZYDIS_MNEMONIC_FLDENV || in->z.mnemonic == ZYDIS_MNEMONIC_FRSTOR,
         present;
    bool fx =
        in->z.mnemonic == ZYDIS_MNEMONIC_FXRSTOR || in->z.mnemonic == ZYDIS_MNEMONIC_FXRSTOR64;
    bool narrow = in->z.operand_width == 16,
         wide = in->z.attributes & ZYDIS_ATTRIB_HAS_REX && in->z.raw.rex.W;
    unsigned len = is_env ? (narrow ? SHORT_LEN : ENV_LEN) : fx ? HEADER_AT : HEADER_AT + 8;
    if (engine_copy_from_guest(image, address, len) < len)
        return;
    if (is_env) {
        load_environment(&s->x87, image, narrow);
        return;
    }
    if (!fx && !moves_x87(s, image, &present))
        return;
    if (!fx && !present) {
        x87_clear(s);
        return;
    }
    image[RESERVED_AT] = 0;
    x87_from_image(s, image);
    if (!wide) {
        s->x87.data_selector = (uint8_t)(s->x87.data >> 32);
        s->x87.pc = (uint32_t)s->x87.pc;
        s->x87.data = (uint32_t)s->x87.data;
    }
}

void x87_executed(struct engine_state *s, uint64_t next, unsigned len)
{
    static struct insn in;
    uint64_t ignored;
    vectors_save();
    insn_decode(next - len, &in, &ignored);
    const ZydisDecodedOperand *op = memory_operand(&in, false);
    if (op && x87_effect_of(&in) == X87_SHOWS)
        show(s, &in, memory_address(s, &in, op));
    else if (op)
        take(s, &in, memory_address(s, &in, op));
    vectors_load();
}
