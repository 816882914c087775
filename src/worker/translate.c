/* The translator: one basic block of guest code at a time into host code that keeps guest and host addresses the same.
 *
 * Instructions are copied as they are, but for
 *   - control transfers, which become jumps between translations, with the guest's own return addresses on the stack;
 *   - RIP-relative operands, which get a new displacement, or an absolute address in a register if out of reach;
 *   - operands in FS and GS, to whose address the base is added;
 *   - uses of the stolen registers, done with a scratch register that the instruction does not use:
 *         mov [spill], X; mov X, [guest r15]; insn with X for r15; mov [guest r15], X; mov X, [spill]
 *   - instructions that would leak this machine or leave the program: the block ends and the run loop decides.
 * A block begins with its count (engine.h) and, in log mode, with its log record:
 *     count; [log record header; r14 += record]; { [log the address of the store]; instruction }...; end
 * Nothing is ever written to the guest's stack but what the guest writes, and flags are only touched where they are dead.
 *
 * Invariants: 1. at `entry` all registers hold guest values but R15 (and R14 in log mode). 2. Only instructions named by a
 * fault point can fault, apart from the first store into the log. 3. Translating a block again at the same place with
 * the same request gives the same bytes. */
#include "worker/engine_int.h"

#include "worker/emit.h"

#include <Zydis/Zydis.h>

enum { FLAG_MASK = ZYDIS_CPUFLAG_CF | ZYDIS_CPUFLAG_PF | ZYDIS_CPUFLAG_AF | ZYDIS_CPUFLAG_ZF | ZYDIS_CPUFLAG_SF |
                   ZYDIS_CPUFLAG_OF };
enum { SIGILL_NO = 4, SIGTRAP_NO = 5, SIGSEGV_NO = 11, CODE_KERNEL = 0x80, CODE_ILLOPN = 2, CODE_MAPERR = 1,
       CODE_ACCERR = 2 };
enum { PROT_EXEC_BIT = 4 };

struct insn {
    uint64_t pc;
    uint8_t bytes[16];
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

/* What to do instead of executing an instruction. */
struct stop_rule {
    bool stops;
    uint8_t reason, trap;
    int signo, code;
};

static ZydisDecoder decoder;

void translate_init(void)
{
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

/* --- facts about instructions --- */

static unsigned gpr_number(ZydisRegister reg)
{
    ZydisRegister large = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
    return large >= ZYDIS_REGISTER_RAX && large <= ZYDIS_REGISTER_R15 ? (unsigned)(large - ZYDIS_REGISTER_RAX) : NO_REG;
}

static uint32_t registers_used(const struct insn *in)
{
    uint32_t used = 0;
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        unsigned numbers[3] = {NO_REG, NO_REG, NO_REG};
        if (op->type == ZYDIS_OPERAND_TYPE_REGISTER)
            numbers[0] = gpr_number(op->reg.value);
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            numbers[1] = gpr_number(op->mem.base);
            numbers[2] = gpr_number(op->mem.index);
        }
        for (int n = 0; n < 3; n++) {
            if (numbers[n] != NO_REG)
                used |= 1u << numbers[n];
        }
    }
    return used;
}

static const ZydisDecodedOperand *memory_operand(const struct insn *in, bool written)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.type != ZYDIS_MEMOP_TYPE_AGEN &&
            (!written || (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)))
            return op;
    }
    return NULL;
}

/* The operand that is addressed through FS or GS, NULL: none. */
static const ZydisDecodedOperand *segment_operand(const struct insn *in)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.type != ZYDIS_MEMOP_TYPE_AGEN &&
            (op->mem.segment == ZYDIS_REGISTER_FS || op->mem.segment == ZYDIS_REGISTER_GS))
            return op;
    }
    return NULL;
}

static const ZydisDecodedOperand *rip_operand(const struct insn *in)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP))
            return op;
    }
    return NULL;
}

static uint64_t rip_address(const struct insn *in, const ZydisDecodedOperand *op)
{
    uint64_t address = in->pc + in->z.length + (uint64_t)op->mem.disp.value;
    return op->mem.base == ZYDIS_REGISTER_EIP ? (uint32_t)address : address;
}

/* Is the address all in registers and displacement, or also relative to something or cut to 32 bits? */
static bool is_plain_address(const struct insn *in, const ZydisDecodedOperand *op)
{
    return in->z.address_width == 64 && op->mem.base != ZYDIS_REGISTER_RIP && (in->z.attributes & ZYDIS_ATTRIB_HAS_MODRM);
}

/* Can emit_copy() add the base of a segment to this operand? Not where RSI, RDI or RBX is implied (string instructions, xlat,
 * maskmov), nor to vectors of 32-bit addresses. */
static bool can_add_segment(const struct insn *in, const ZydisDecodedOperand *op)
{
    bool implied = op->encoding == ZYDIS_OPERAND_ENCODING_NONE;
    return !implied && (op->mem.type != ZYDIS_MEMOP_TYPE_VSIB || is_plain_address(in, op));
}

static bool is_string_store(const struct insn *in)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ:
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSQ:
        return true;
    case ZYDIS_MNEMONIC_MOVSD:
        return in->z.meta.category == ZYDIS_CATEGORY_STRINGOP;
    default:
        return false;
    }
}

static bool is_rep(const struct insn *in)
{
    return in->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
}

/* How much an instruction writes where, seen from its store slot. */
static uint8_t kind_of_store(const struct insn *in)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
        return STORE_STATE;
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_BNDMOV: // no operations on CPUs without MPX
    case ZYDIS_MNEMONIC_BNDSTX:
        return STORE_MASKED;
    default:
        break;
    }
    if (in->z.meta.category == ZYDIS_CATEGORY_SCATTER)
        return STORE_SCATTER;
    if (in->z.avx.mask.mode == ZYDIS_MASK_MODE_MERGING && in->z.avx.mask.reg != ZYDIS_REGISTER_K0)
        return STORE_MASKED;
    return STORE_PLAIN;
}

/* Bytes an xsave-like instruction may write: its operand has no size of its own. */
static uint16_t size_of_store(const struct insn *in, const ZydisDecodedOperand *op)
{
    unsigned size = op->size / 8;
    if (kind_of_store(in) == STORE_STATE && size < 512)
        size = in->z.mnemonic == ZYDIS_MNEMONIC_FNSTENV ? 28 : in->z.mnemonic == ZYDIS_MNEMONIC_FNSAVE ? 108 : XSTATE_MAX;
    return (uint16_t)(size ? size : 8);
}

static struct stop_rule rule_for(const struct insn *in)
{
    struct stop_rule rule = {.stops = true, .reason = STOP_TRAP};
    const struct stop_rule fault = {.stops = true, .reason = STOP_FAULT, .signo = SIGSEGV_NO, .code = CODE_KERNEL};
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSENTER:
        rule.reason = STOP_SYSCALL;
        return rule;
    case ZYDIS_MNEMONIC_INT:
        if (in->z.raw.imm[0].value.u != 0x80)
            return fault;
        rule.reason = STOP_SYSCALL;
        return rule;
    case ZYDIS_MNEMONIC_RDTSC:
        rule.trap = TRAP_RDTSC;
        return rule;
    case ZYDIS_MNEMONIC_RDTSCP:
        rule.trap = TRAP_RDTSCP;
        return rule;
    case ZYDIS_MNEMONIC_CPUID:
        rule.trap = TRAP_CPUID;
        return rule;
    case ZYDIS_MNEMONIC_XGETBV:
        rule.trap = TRAP_XGETBV;
        return rule;
    case ZYDIS_MNEMONIC_RDRAND:
        rule.trap = TRAP_RDRAND;
        return rule;
    case ZYDIS_MNEMONIC_RDSEED:
        rule.trap = TRAP_RDSEED;
        return rule;
    case ZYDIS_MNEMONIC_RDPID:
        rule.trap = TRAP_RDPID;
        return rule;
    case ZYDIS_MNEMONIC_RDPMC:
        rule.trap = TRAP_OTHER;
        return rule;
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        rule.trap = TRAP_SEGMENT_BASE;
        return rule;
    case ZYDIS_MNEMONIC_INT3:
        return (struct stop_rule){.stops = true, .reason = STOP_FAULT, .signo = SIGTRAP_NO, .code = CODE_KERNEL};
    case ZYDIS_MNEMONIC_INT1:
        return (struct stop_rule){.stops = true, .reason = STOP_FAULT, .signo = SIGTRAP_NO, .code = 1};
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
        return (struct stop_rule){.stops = true, .reason = STOP_FAULT, .signo = SIGILL_NO, .code = CODE_ILLOPN};
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT:
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
        return fault;
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_XABORT:
        rule.reason = STOP_UNSUPPORTED;
        return rule;
    default:
        break;
    }
    if (in->z.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
        return fault;
    const ZydisDecodedOperand *in_segment = segment_operand(in);
    if (in_segment && !can_add_segment(in, in_segment)) {
        rule.reason = STOP_UNSUPPORTED;
        return rule;
    }
    bool branch = in->z.meta.category == ZYDIS_CATEGORY_COND_BR || in->z.meta.category == ZYDIS_CATEGORY_UNCOND_BR ||
                  in->z.meta.category == ZYDIS_CATEGORY_CALL || in->z.meta.category == ZYDIS_CATEGORY_RET;
    bool near = in->z.meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT || in->z.meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR;
    rule.reason = STOP_UNSUPPORTED;
    if ((branch && (!near || in->z.operand_width == 16)) || in->z.mnemonic == ZYDIS_MNEMONIC_IRETQ ||
        in->z.mnemonic == ZYDIS_MNEMONIC_IRETD || in->z.mnemonic == ZYDIS_MNEMONIC_IRET)
        return rule;
    rule.stops = false;
    return rule;
}

/* Flags whose old values an instruction may need, and those it surely gives new values. Shifts by CL and repeated compares
 * leave the flags alone when their count is 0. */
static void flags_of(const struct insn *in, uint32_t *needed, uint32_t *written)
{
    const ZydisAccessedFlags *f = in->z.cpu_flags;
    *needed = f ? f->tested & FLAG_MASK : 0;
    *written = f ? (f->modified | f->set_0 | f->set_1 | f->undefined) & FLAG_MASK : 0;
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        *written = 0;
        break;
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_LAHF:
        *needed = FLAG_MASK;
        break;
    default:
        // What is undefined after an instruction is really a function of the old flags or the operands: keep it exact.
        if (f && f->undefined & FLAG_MASK)
            *written = (f->modified | f->set_0 | f->set_1) & FLAG_MASK & ~f->undefined;
        break;
    }
    if (is_rep(in))
        *written = 0;
}

/* --- emitting --- */

struct block_maker {
    struct translation *t;
    struct emitter hot, cold;
    struct insn insns[MAX_BLOCK_INSNS];
    unsigned count;
    uint32_t stolen;     /* mask of stolen registers */
    uint32_t slots;      /* log slots so far, while emitting */
    uint32_t record_len;
};

static struct block_maker maker; /* one thread, and too large for the stack */

static void *guest_reg(const struct block_maker *m, unsigned reg)
{
    return &m->t->state->regs[reg];
}

static const void *segment_base(const struct block_maker *m, const ZydisDecodedOperand *op)
{
    return op->mem.segment == ZYDIS_REGISTER_FS ? &m->t->state->fs_base : &m->t->state->gs_base;
}

static uint32_t new_exit(struct block_maker *m, struct exit_record x)
{
    x.block = m->t->block_idx;
    m->t->exits[m->t->exit_count] = x;
    return m->t->first_exit + m->t->exit_count++;
}

/* A stub that leaves translated code as exit `idx`. */
static void emit_exit(struct block_maker *m, struct emitter *e, uint32_t idx)
{
    emit_store_imm(e, &m->t->state->exit_idx, idx);
    emit_jmp_abs(e, &m->t->state->leave);
}

/* Makes `field` (the rel32 of a branch) go to a stub for guest address `pc`, to be linked later. */
static void exit_to(struct block_maker *m, uint8_t *field, uint64_t pc)
{
    if (m->hot.full || m->cold.full)
        return;
    patch_rel32(field, m->cold.at);
    uint32_t idx = new_exit(m, (struct exit_record){.kind = EXIT_DIRECT, .pc = pc, .patch = m->t->exact ? NULL : field});
    emit_exit(m, &m->cold, idx);
}

static void add_point(struct block_maker *m, unsigned insn, unsigned a, unsigned b, unsigned c, unsigned d)
{
    m->t->points[m->t->point_count++] = (struct fault_point){
        .host_off = (uint32_t)(m->hot.at - m->t->hot),
        .insn = (uint16_t)insn,
        .spilled = {(uint8_t)a, (uint8_t)b, (uint8_t)c, (uint8_t)d},
    };
}

/* The count at the block's start; see engine.h. */
static void emit_count(struct block_maker *m, unsigned count, unsigned ticks, bool flags_dead)
{
    struct engine_state *s = m->t->state;
    int32_t amount = (int32_t)(count << ICOUNT_SHIFT) - (int32_t)ticks;
    uint32_t idx = new_exit(m, (struct exit_record){.kind = EXIT_BUDGET, .pc = m->t->pc});
    struct emitter *e = &m->hot;
    uint8_t *field;
    if (flags_dead) {
        emit_bytes(e, (const uint8_t[]){0x49, 0x81, 0xef}, 3); // sub r15, amount
        emit32(e, (uint32_t)amount);
        field = emit_jcc(e, 8); // js
    } else {
        emit_bytes(e, (const uint8_t[]){0x4d, 0x8d, 0xbf}, 3); // lea r15, [r15 - amount]
        emit32(e, (uint32_t)-amount);
        emit_store(e, &s->counter_copy, R15);
        emit_store(e, &s->spill[0], RCX);
        emit_bytes(e, (const uint8_t[]){0x0f, 0xb6, 0x0c, 0x25}, 4); // movzx ecx, byte [counter_copy + 7]
        emit32(e, (uint32_t)(uintptr_t)&s->counter_copy + 7);
        emit_bytes(e, (const uint8_t[]){0xe3, 0x05}, 2); // jrcxz over the jump
        field = emit_jmp(e);
        emit_load(e, RCX, &s->spill[0]);
    }
    if (e->full || m->cold.full)
        return;
    patch_rel32(field, m->cold.at);
    struct emitter *c = &m->cold;
    if (flags_dead) {
        emit_bytes(c, (const uint8_t[]){0x49, 0x81, 0xc7}, 3); // add r15, amount
        emit32(c, (uint32_t)amount);
    } else {
        emit_load(c, RCX, &s->spill[0]);
        emit_bytes(c, (const uint8_t[]){0x4d, 0x8d, 0xbf}, 3);
        emit32(c, (uint32_t)amount);
    }
    emit_exit(m, c, idx);
}

static void emit_log_header(struct block_maker *m)
{
    struct emitter *e = &m->hot;
    // The far end of the record first: if the log is full this faults before anything is done.
    add_point(m, 0, NO_REG, NO_REG, NO_REG, NO_REG);
    emit_mem(e, 8, 0x89, R15, R14, NO_REG, 1, (int32_t)m->record_len - 8); // mov [r14 + record_len - 8], r15
    emit_mem(e, 0, 0xc7, 0, R14, NO_REG, 1, 0);                            // mov dword [r14], block
    emit32(e, m->t->block_idx);
    emit_mem(e, 8, 0x8d, R14, R14, NO_REG, 1, (int32_t)m->record_len); // lea r14, [r14 + record_len]
}

/* A register that `used` leaves free. low: one of the first eight without RSP and RBP, for operands that must not need REX. */
static unsigned pick_scratch(uint32_t used, bool low)
{
    static const uint8_t order[] = {RAX, RDX, RSI, RDI, RBX, RCX, R8, R9, R10, R11};
    for (unsigned i = 0; i < (low ? 6 : 10); i++) {
        if (!(used >> order[i] & 1))
            return order[i];
    }
    return NO_REG;
}

/* mov [r14 + the next slot], reg */
static void emit_slot(struct block_maker *m, unsigned reg)
{
    int32_t off = 8 + 8 * (int32_t)m->slots - (int32_t)m->record_len;
    m->slots++;
    emit_mem(&m->hot, 8, 0x89, reg, R14, NO_REG, 1, off);
}

/* The bit number in a register of bts, btr, btc reaches beyond the memory operand: adds its words to the address in `x`. */
static void emit_bit_offset(struct block_maker *m, const struct insn *in, unsigned x, unsigned y)
{
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    unsigned reg = gpr_number(in->op[1].reg.value), width = in->op[1].size;
    unsigned z = pick_scratch(registers_used(in) | m->stolen | 1u << x | 1u << y, false);
    emit_store(e, &s->spill[3], y);
    emit_store(e, &s->spill[1], z);
    if (m->stolen >> reg & 1) {
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

/* Logs the address of `op`, before the instruction runs. */
static void emit_log_address(struct block_maker *m, const struct insn *in, const ZydisDecodedOperand *op)
{
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    unsigned base = gpr_number(op->mem.base), index = gpr_number(op->mem.index);
    uint32_t used = registers_used(in) | m->stolen;
    unsigned x = pick_scratch(used, false), y = pick_scratch(used | 1u << x, false);
    int64_t disp = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
    if (in->z.mnemonic == ZYDIS_MNEMONIC_POP && base == RSP)
        disp += 8; // the address is computed with RSP already moved
    emit_store(e, &s->spill[2], x);
    if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP) {
        emit_imm64(e, x, rip_address(in, op));
    } else if (base == NO_REG && index == NO_REG && op->mem.type != ZYDIS_MEMOP_TYPE_VSIB) {
        emit_imm64(e, x, in->z.address_width == 32 ? (uint32_t)disp : (uint64_t)disp);
    } else {
        bool second = (base != NO_REG && m->stolen >> base & 1) && (index != NO_REG && m->stolen >> index & 1) && base != index;
        bool use_y = second;
        if (use_y)
            emit_store(e, &s->spill[3], y);
        if (base != NO_REG && m->stolen >> base & 1) {
            emit_load(e, x, guest_reg(m, base));
            if (index == base)
                index = x;
            base = x;
        }
        if (index != NO_REG && m->stolen >> index & 1) {
            emit_load(e, use_y ? y : x, guest_reg(m, index));
            index = use_y ? y : x;
        }
        if (in->z.address_width == 32)
            emit8(e, 0x67);
        emit_mem(e, 8, 0x8d, x, base, index, op->mem.scale ? op->mem.scale : 1, (int32_t)disp);
        if (use_y)
            emit_load(e, y, &s->spill[3]);
    }
    if (op->mem.segment == ZYDIS_REGISTER_FS || op->mem.segment == ZYDIS_REGISTER_GS) {
        emit_store(e, &s->spill[3], y);
        emit_load(e, y, segment_base(m, op));
        emit_mem(e, 8, 0x8d, x, x, y, 1, 0);
        emit_load(e, y, &s->spill[3]);
    }
    if (in->z.operand_count > 1 && in->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
        (in->z.mnemonic == ZYDIS_MNEMONIC_BTS || in->z.mnemonic == ZYDIS_MNEMONIC_BTR || in->z.mnemonic == ZYDIS_MNEMONIC_BTC))
        emit_bit_offset(m, in, x, y);
    emit_slot(m, x);
    emit_load(e, x, &s->spill[2]);
}

static void emit_log_push(struct block_maker *m, uint32_t used, int32_t size)
{
    unsigned x = pick_scratch(used | m->stolen, false);
    emit_store(&m->hot, &m->t->state->spill[2], x);
    emit_mem(&m->hot, 8, 0x8d, x, RSP, NO_REG, 1, -size);
    emit_slot(m, x);
    emit_load(&m->hot, x, &m->t->state->spill[2]);
}

/* --- copying, with other registers and displacements --- */

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
        uint8_t *byte = in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_XOP    ? &bytes[raw->xop.offset + 2]
                        : in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ? &bytes[raw->evex.offset + 2]
                        : raw->vex.size == 2                                ? &bytes[raw->vex.offset + 1]
                                                                            : &bytes[raw->vex.offset + 2];
        *byte = (uint8_t)((*byte & ~0x78) | (~reg & 15) << 3);
        break;
    }
    }
}

/* Names register `to` wherever the instruction names general register `from`. */
static void rename_register(const struct insn *in, uint8_t *bytes, unsigned from, unsigned to)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            bool sib = in->z.attributes & ZYDIS_ATTRIB_HAS_SIB;
            if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
                continue;
            if (gpr_number(op->mem.base) == from)
                set_field(in, bytes, sib ? FIELD_BASE : FIELD_RM, to);
            if (gpr_number(op->mem.index) == from && sib)
                set_field(in, bytes, FIELD_INDEX, to);
        } else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_number(op->reg.value) == from) {
            switch (op->encoding) {
            case ZYDIS_OPERAND_ENCODING_MODRM_REG:
                set_field(in, bytes, FIELD_REG, to);
                break;
            case ZYDIS_OPERAND_ENCODING_MODRM_RM:
                set_field(in, bytes, FIELD_RM, to);
                break;
            case ZYDIS_OPERAND_ENCODING_OPCODE:
                set_field(in, bytes, FIELD_OPCODE, to);
                break;
            case ZYDIS_OPERAND_ENCODING_NDSNDD:
                set_field(in, bytes, FIELD_VVVV, to);
                break;
            default:
                break;
            }
        }
    }
}

static bool writes_register(const struct insn *in, unsigned reg)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_number(op->reg.value) == reg &&
            (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            return true;
    }
    return false;
}

/* Makes the memory operand of a copied instruction plain [x], x being one of the registers that need no REX, SIB or displacement. */
static void set_plain_operand(const struct insn *in, uint8_t *bytes, unsigned *len, unsigned x)
{
    const ZydisDecodedInstructionRaw *raw = &in->z.raw;
    if (!(in->z.attributes & ZYDIS_ATTRIB_HAS_MODRM)) { // mov between the accumulator and an absolute address
        static const uint8_t with_modrm[] = {0x8a, 0x8b, 0x88, 0x89}; // of 0xa0 to 0xa3
        bytes[raw->disp.offset - 1] = with_modrm[in->z.opcode & 3];
        bytes[raw->disp.offset] = (uint8_t)x;
        set_extension(in, bytes, 2, false);
        set_extension(in, bytes, 0, false);
        *len = raw->disp.offset + 1u;
        return;
    }
    unsigned rest = raw->modrm.offset + 1u + (in->z.attributes & ZYDIS_ATTRIB_HAS_SIB ? 1 : 0) + raw->disp.size / 8u;
    bytes[raw->modrm.offset] = (uint8_t)((bytes[raw->modrm.offset] & 0x38) | x);
    set_extension(in, bytes, 0, false);
    __builtin_memmove(bytes + raw->modrm.offset + 1, bytes + rest, *len - rest);
    *len -= rest - raw->modrm.offset - 1u;
}

/* Puts the base of the operand's segment into its address, and DS in place of the segment. Returns the register that it
 * takes, whose value is in spill[3] then. `name`: the registers that now hold the guest's. */
static unsigned emit_add_segment(struct block_maker *m, const struct insn *in, const ZydisDecodedOperand *op, uint8_t *bytes,
                                 unsigned *len, uint32_t busy, const uint8_t name[16])
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
        bool popped = in->z.mnemonic == ZYDIS_MNEMONIC_POP && base == RSP; // addressed with RSP already moved
        emit_load(e, x, segment_base(m, op));
        if (base != NO_REG)
            emit_mem(e, 8, 0x8d, x, base, x, 1, popped ? 8 : 0);
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
    emit_store(e, &s->spill[2], y);
    emit_load(e, y, segment_base(m, op));
    emit_mem(e, 8, 0x8d, x, x, y, 1, 0);
    emit_load(e, y, &s->spill[2]);
    set_plain_operand(in, bytes, len, x);
    return x;
}

/* rdfsbase or rdgsbase: a load. */
static void emit_read_segment_base(struct block_maker *m, const struct insn *in)
{
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    unsigned reg = gpr_number(in->op[0].reg.value);
    const uint64_t *from = in->z.mnemonic == ZYDIS_MNEMONIC_RDFSBASE ? &s->fs_base : &s->gs_base;
    unsigned x = m->stolen >> reg & 1 ? RAX : reg;
    if (x != reg)
        emit_store(e, &s->spill[0], x);
    emit_load(e, x, from);
    if (in->z.operand_width == 32) {
        emit8(e, (uint8_t)(x >= 8 ? 0x45 : 0x40)); // mov x32, x32: clears the upper half
        emit8(e, 0x89);
        emit8(e, (uint8_t)(0xc0 | (x & 7) << 3 | (x & 7)));
    }
    if (x != reg) {
        emit_store(e, guest_reg(m, reg), x);
        emit_load(e, x, &s->spill[0]);
    }
}

/* Emits instruction `idx` of the block with its stolen registers and RIP-relative operand replaced. */
static void emit_copy(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    uint32_t used = registers_used(in);
    uint8_t bytes[16];
    __builtin_memcpy(bytes, in->bytes, sizeof(bytes));
    unsigned len = in->z.length;

    if (in->z.mnemonic == ZYDIS_MNEMONIC_LEA && in->op[1].mem.base == ZYDIS_REGISTER_RIP && in->z.operand_width == 64) {
        unsigned dest = gpr_number(in->op[0].reg.value);
        uint64_t address = in->pc + len + (uint64_t)in->op[1].mem.disp.value;
        if (!(m->stolen >> dest & 1)) {
            emit_imm64(e, dest, address);
            return;
        }
        emit_store(e, &s->spill[0], RAX);
        emit_imm64(e, RAX, address);
        emit_store(e, guest_reg(m, dest), RAX);
        emit_load(e, RAX, &s->spill[0]);
        return;
    }

    if (in->z.mnemonic == ZYDIS_MNEMONIC_RDFSBASE || in->z.mnemonic == ZYDIS_MNEMONIC_RDGSBASE) {
        emit_read_segment_base(m, in);
        return;
    }

    unsigned spilled[4] = {NO_REG, NO_REG, NO_REG, NO_REG};
    uint32_t busy = used | m->stolen;
    unsigned renamed[2] = {NO_REG, NO_REG}, count = 0;
    uint8_t renamed_to[16] = {RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15};
    for (unsigned reg = R14; reg <= R15; reg++) {
        if (!(used & m->stolen & 1u << reg))
            continue;
        unsigned x = pick_scratch(busy, false);
        busy |= 1u << x;
        spilled[count] = x;
        renamed[count++] = reg;
        emit_store(e, &s->spill[count - 1], x);
        emit_load(e, x, guest_reg(m, reg));
        rename_register(in, bytes, reg, x);
    }
    const ZydisDecodedOperand *segment = segment_operand(in), *rip = rip_operand(in);
    if (segment) {
        for (unsigned i = 0; i < count; i++)
            renamed_to[renamed[i]] = (uint8_t)spilled[i];
        spilled[3] = emit_add_segment(m, in, segment, bytes, &len, busy, renamed_to);
    } else if (rip) {
        uint64_t address = rip_address(in, rip);
        int64_t rel = (int64_t)(address - ((uint64_t)(uintptr_t)e->at + len));
        if (rel == (int32_t)rel && rip->mem.base == ZYDIS_REGISTER_RIP) {
            int32_t rel32 = (int32_t)rel;
            __builtin_memcpy(bytes + in->z.raw.disp.offset, &rel32, 4);
        } else { // out of reach
            unsigned x = pick_scratch(busy, true);
            spilled[3] = x;
            emit_store(e, &s->spill[3], x);
            emit_imm64(e, x, address);
            set_plain_operand(in, bytes, &len, x);
        }
    }
    add_point(m, idx, spilled[0], spilled[1], spilled[2], spilled[3]);
    emit_bytes(e, bytes, len);
    if (spilled[3] != NO_REG)
        emit_load(e, spilled[3], &s->spill[3]);
    for (unsigned i = 0; i < count; i++) {
        if (writes_register(in, renamed[i]))
            emit_store(e, guest_reg(m, renamed[i]), spilled[i]);
    }
    for (unsigned i = count; i-- > 0;)
        emit_load(e, spilled[i], &s->spill[i]);
}

static void add_store(struct block_maker *m, unsigned insn, uint8_t kind, uint16_t size)
{
    m->t->stores[m->t->info.store_count++] = (struct store_desc){.insn = (uint8_t)insn, .kind = kind, .size = size};
    m->t->info.slot_count = (uint16_t)(m->t->info.slot_count + (kind == STORE_REP ? 2 : 1));
}

/* The stores of an instruction, in the order in which they are logged. */
static void find_stores(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    if (in->z.meta.category == ZYDIS_CATEGORY_CALL) {
        add_store(m, idx, STORE_CALL, 8);
        return;
    }
    if (in->z.meta.category == ZYDIS_CATEGORY_PUSH) {
        add_store(m, idx, STORE_PLAIN, in->z.operand_width == 16 ? 2 : 8);
        return;
    }
    if (is_string_store(in)) {
        add_store(m, idx, is_rep(in) ? STORE_REP : STORE_PLAIN, (uint16_t)(in->z.operand_width / 8));
        if (in->z.mnemonic == ZYDIS_MNEMONIC_STOSB || in->z.mnemonic == ZYDIS_MNEMONIC_MOVSB)
            m->t->stores[m->t->info.store_count - 1].size = 1;
        return;
    }
    const ZydisDecodedOperand *op = memory_operand(in, true);
    if (op)
        add_store(m, idx, kind_of_store(in), size_of_store(in, op));
}

static void emit_body(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    if (m->t->mode != ENGINE_LOG) {
        emit_copy(m, idx);
        return;
    }
    if (in->z.meta.category == ZYDIS_CATEGORY_PUSH) {
        emit_log_push(m, registers_used(in), in->z.operand_width == 16 ? 2 : 8);
        emit_copy(m, idx);
    } else if (is_string_store(in)) {
        emit_slot(m, RDI);
        emit_copy(m, idx);
        if (is_rep(in))
            emit_slot(m, RDI);
    } else {
        const ZydisDecodedOperand *op = memory_operand(in, true);
        if (op)
            emit_log_address(m, in, op);
        emit_copy(m, idx);
    }
}

/* --- ends of blocks --- */

/* Jumps to the guest address in RCX, whose guest value is in spill[0]. */
static void emit_indirect(struct block_maker *m)
{
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    if (m->t->exact) { // the run loop looks at every block in between
        emit_store(e, &s->target, RCX);
        emit_load(e, RCX, &s->spill[0]);
        emit_exit(m, e, new_exit(m, (struct exit_record){.kind = EXIT_INDIRECT}));
        return;
    }
    emit_store(e, &s->spill[1], RDX);
    emit_store(e, &s->spill[2], RAX);
    emit_bytes(e, (const uint8_t[]){0x0f, 0xb7, 0xd1}, 3); // movzx edx, cx
    emit_bytes(e, (const uint8_t[]){0x48, 0x8b, 0x04, 0xd5}, 4); // mov rax, [negated + rdx * 8]
    emit32(e, (uint32_t)(uintptr_t)m->t->table->negated);
    emit_store(e, &s->target, RCX);
    emit_bytes(e, (const uint8_t[]){0x48, 0x8d, 0x0c, 0x01}, 4); // lea rcx, [rcx + rax]
    emit_bytes(e, (const uint8_t[]){0xe3, 0x05}, 2);             // jrcxz hit
    uint8_t *miss = emit_jmp(e);
    emit_bytes(e, (const uint8_t[]){0xff, 0x24, 0xd5}, 3); // hit: jmp [host + rdx * 8]
    emit32(e, (uint32_t)(uintptr_t)m->t->table->host);
    if (e->full || m->cold.full)
        return;
    patch_rel32(miss, m->cold.at);
    emit_load(&m->cold, RAX, &s->spill[2]);
    emit_load(&m->cold, RDX, &s->spill[1]);
    emit_load(&m->cold, RCX, &s->spill[0]);
    emit_exit(m, &m->cold, new_exit(m, (struct exit_record){.kind = EXIT_INDIRECT}));
}

/* Loads the operand of an indirect jump or call into RCX, which has been put into spill[0]. */
static void emit_load_target(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    const ZydisDecodedOperand *op = &in->op[0];
    if (op->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        unsigned reg = gpr_number(op->reg.value);
        if (m->stolen >> reg & 1) {
            emit_load(e, RCX, guest_reg(m, reg));
        } else if (reg != RCX) {
            emit8(e, (uint8_t)(0x48 | (reg >= 8 ? 4 : 0))); // mov rcx, reg
            emit8(e, 0x89);
            emit8(e, (uint8_t)(0xc0 | (reg & 7) << 3 | RCX));
        }
        return;
    }
    unsigned base = gpr_number(op->mem.base), index = gpr_number(op->mem.index);
    int64_t disp = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
    if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP) {
        emit_imm64(e, RCX, rip_address(in, op));
        base = RCX;
        index = NO_REG;
        disp = 0;
    }
    unsigned x = NO_REG;
    bool base_stolen = base != NO_REG && m->stolen >> base & 1, index_stolen = index != NO_REG && m->stolen >> index & 1;
    if (base_stolen || index_stolen) {
        // RCX may be the other half of the address, so it cannot be the scratch register unless both are stolen.
        x = pick_scratch(registers_used(in) | m->stolen | 1u << RCX, false);
        emit_store(e, &s->spill[3], x);
        if (base_stolen && index_stolen && base != index) {
            emit_load(e, x, guest_reg(m, base));
            emit_load(e, RCX, guest_reg(m, index));
            base = x;
            index = RCX;
        } else {
            emit_load(e, x, guest_reg(m, base_stolen ? base : index));
            if (base_stolen && index_stolen)
                base = index = x;
            else if (base_stolen)
                base = x;
            else
                index = x;
        }
    }
    bool narrow = in->z.address_width == 32;
    unsigned scale = op->mem.scale ? op->mem.scale : 1;
    if (segment_operand(in)) {
        unsigned y = pick_scratch(registers_used(in) | m->stolen | 1u << RCX | (x == NO_REG ? 0 : 1u << x), false);
        if (narrow)
            emit8(e, 0x67);
        emit_mem(e, 8, 0x8d, RCX, base, index, scale, (int32_t)disp);
        emit_store(e, &s->spill[1], y);
        emit_load(e, y, segment_base(m, op));
        emit_mem(e, 8, 0x8d, RCX, RCX, y, 1, 0);
        emit_load(e, y, &s->spill[1]);
        base = RCX;
        index = NO_REG;
        disp = 0;
        narrow = false;
    }
    add_point(m, idx, RCX, NO_REG, NO_REG, x);
    if (narrow)
        emit8(e, 0x67);
    emit_mem(e, 8, 0x8b, RCX, base, index, scale, (int32_t)disp);
    if (x != NO_REG)
        emit_load(e, x, &s->spill[3]);
}

/* Pushes the guest's return address. target_loaded: RCX is in spill[0] at this point. */
static void emit_push_return(struct block_maker *m, unsigned idx, bool target_loaded)
{
    const struct insn *in = &m->insns[idx];
    struct emitter *e = &m->hot;
    uint64_t address = in->pc + in->z.length;
    if (m->t->mode == ENGINE_LOG)
        emit_log_push(m, 1u << RSP | (target_loaded ? 1u << RCX : 0), 8);
    add_point(m, idx, target_loaded ? RCX : NO_REG, NO_REG, NO_REG, NO_REG);
    if ((uint64_t)(int64_t)(int32_t)address == address) {
        emit8(e, 0x68); // push imm32
        emit32(e, (uint32_t)address);
        return;
    }
    if (m->cold.full || m->cold.limit - m->cold.at < 8) {
        e->full = true;
        return;
    }
    emit_bytes(e, (const uint8_t[]){0xff, 0x35}, 2); // push [rip + constant]
    emit32(e, 0);
    if (!e->full)
        patch_rel32(e->at - 4, m->cold.at);
    emit64(&m->cold, address);
}

static void emit_end(struct block_maker *m)
{
    unsigned idx = m->count - 1;
    const struct insn *in = &m->insns[idx];
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    uint64_t next = in->pc + in->z.length;
    uint64_t target = next + (uint64_t)in->z.raw.imm[0].value.s;
    switch (m->t->info.end) {
    case END_JCC: {
        uint8_t *taken;
        if (in->z.meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT && (in->z.opcode & 0xfc) == 0xe0 &&
            in->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT) { // loop, loope, loopne, jrcxz
            if (in->z.attributes & ZYDIS_ATTRIB_HAS_ADDRESSSIZE)
                emit8(e, 0x67);
            emit8(e, in->z.opcode);
            emit8(e, 5);
            uint8_t *fall = emit_jmp(e);
            taken = emit_jmp(e);
            exit_to(m, taken, target);
            exit_to(m, fall, next);
            return;
        }
        taken = emit_jcc(e, in->z.opcode & 15);
        uint8_t *fall = emit_jmp(e);
        exit_to(m, taken, target);
        exit_to(m, fall, next);
        return;
    }
    case END_JMP:
        if (in->z.mnemonic == ZYDIS_MNEMONIC_XBEGIN)
            emit_bytes(e, (const uint8_t[]){0xb8, 0, 0, 0, 0}, 5); // the transaction aborts, with no reason in EAX
        exit_to(m, emit_jmp(e), target);
        return;
    case END_CALL:
        emit_push_return(m, idx, false);
        exit_to(m, emit_jmp(e), target);
        return;
    case END_RET: {
        emit_store(e, &s->spill[0], RCX);
        add_point(m, idx, NO_REG, NO_REG, NO_REG, NO_REG);
        emit8(e, 0x59); // pop rcx
        if (in->z.raw.imm[0].size)
            emit_mem(e, 8, 0x8d, RSP, RSP, NO_REG, 1, (int32_t)in->z.raw.imm[0].value.u);
        emit_indirect(m);
        return;
    }
    case END_INDIRECT_JMP:
    case END_INDIRECT_CALL:
        emit_store(e, &s->spill[0], RCX);
        emit_load_target(m, idx);
        if (m->t->info.end == END_INDIRECT_CALL)
            emit_push_return(m, idx, true);
        emit_indirect(m);
        return;
    default:
        exit_to(m, emit_jmp(e), next);
        return;
    }
}

static uint8_t end_of(const struct insn *in)
{
    bool direct = in->z.operand_count && in->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    switch (in->z.meta.category) {
    case ZYDIS_CATEGORY_COND_BR:
        return in->z.mnemonic == ZYDIS_MNEMONIC_XBEGIN ? END_JMP : END_JCC;
    case ZYDIS_CATEGORY_UNCOND_BR:
        return direct ? END_JMP : END_INDIRECT_JMP;
    case ZYDIS_CATEGORY_CALL:
        return direct ? END_CALL : END_INDIRECT_CALL;
    case ZYDIS_CATEGORY_RET:
        return END_RET;
    default:
        return END_FALL;
    }
}

/* --- blocks --- */

static struct stop_rule memory_fault(uint64_t address)
{
    return (struct stop_rule){.stops = true, .reason = STOP_FAULT, .signo = SIGSEGV_NO,
                              .code = engine_host_prot(address) < 0 ? CODE_MAPERR : CODE_ACCERR};
}

static bool executable(uint64_t address)
{
    int prot = engine_host_prot(address);
    return prot >= 0 && (prot & PROT_EXEC_BIT);
}

/* Zydis 4.0 takes R13D for a base where 32-bit addresses have none (SDM 2A, table 2-3: mod 0, base 5). */
static void correct_missing_base(struct insn *in)
{
    const ZydisDecodedInstructionRaw *raw = &in->z.raw;
    if (!(in->z.attributes & ZYDIS_ATTRIB_HAS_SIB) || raw->modrm.mod != 0 || (raw->sib.base & 7) != 5)
        return;
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        ZydisDecodedOperand *op = &in->op[i];
        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
            continue;
        op->mem.base = ZYDIS_REGISTER_NONE;
        op->mem.disp.has_displacement = true;
        op->mem.disp.value = raw->disp.value;
    }
}

/* Decodes the instruction at pc into `in`. A rule that stops says that it cannot be executed. */
static struct stop_rule decode(uint64_t pc, struct insn *in, uint64_t *fault_address)
{
    *fault_address = pc;
    in->pc = pc;
    in->z.length = 1;
    if (!executable(pc))
        return memory_fault(pc);
    size_t len = sizeof(in->bytes) - 1;
    uint64_t next_page = (pc | (PAGE_SIZE - 1)) + 1;
    bool cut = next_page - pc < len && !executable(next_page);
    if (cut)
        len = next_page - pc;
    __builtin_memset(in->bytes, 0, sizeof(in->bytes));
    __builtin_memcpy(in->bytes, (const void *)(uintptr_t)pc, len);
    ZyanStatus status = ZydisDecoderDecodeFull(&decoder, in->bytes, len, &in->z, in->op);
    if (ZYAN_FAILED(status)) {
        in->z.length = 1;
        if (cut && status == ZYDIS_STATUS_NO_MORE_DATA) {
            *fault_address = next_page;
            return memory_fault(next_page);
        }
        return (struct stop_rule){.stops = true, .reason = STOP_FAULT, .signo = SIGILL_NO, .code = CODE_ILLOPN};
    }
    correct_missing_base(in);
    return rule_for(in);
}

static bool is_break(const struct translation *t, uint64_t pc)
{
    size_t low = 0, high = t->break_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (t->breaks[middle] < pc)
            low = middle + 1;
        else
            high = middle;
    }
    return low < t->break_count && t->breaks[low] == pc;
}

static void emit_indirect_entry(struct block_maker *m)
{
    struct engine_state *s = m->t->state;
    m->t->indirect_entry = m->hot.at;
    emit_load(&m->hot, RAX, &s->spill[2]);
    emit_load(&m->hot, RDX, &s->spill[1]);
    emit_load(&m->hot, RCX, &s->spill[0]);
    m->t->entry = m->hot.at;
}

bool insn_is_rep(uint64_t pc, unsigned *size_out, bool *source_out, bool *dest_out)
{
    static struct insn in;
    uint64_t address;
    struct stop_rule rule = decode(pc, &in, &address);
    if (rule.stops || in.z.meta.category != ZYDIS_CATEGORY_STRINGOP || !is_rep(&in))
        return false;
    uint32_t used = registers_used(&in);
    *size_out = 0;
    for (unsigned i = 0; i < in.z.operand_count; i++) {
        if (in.op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            *size_out = in.op[i].size / 8;
    }
    *source_out = used >> RSI & 1;
    *dest_out = used >> RDI & 1;
    return true;
}

void insn_segment_base(uint64_t pc, unsigned *reg_out, bool *gs_out, bool *wide_out)
{
    static struct insn in;
    uint64_t address;
    decode(pc, &in, &address);
    *reg_out = gpr_number(in.op[0].reg.value);
    *gs_out = in.z.mnemonic == ZYDIS_MNEMONIC_WRGSBASE;
    *wide_out = in.z.operand_width == 64;
}

static void make_stop(struct block_maker *m, const struct insn *in, const struct stop_rule *rule, uint64_t address)
{
    struct translation *t = m->t;
    t->info.end = END_STOP;
    t->info.byte_len = in->z.length;
    uint32_t idx = new_exit(m, (struct exit_record){.kind = EXIT_STOP, .pc = t->pc, .stop = rule->reason,
                                                    .trap = rule->trap, .insn_len = in->z.length,
                                                    .signo = (uint8_t)rule->signo, .si_code = rule->code});
    t->exits[t->exit_count - 1].patch = (uint8_t *)(uintptr_t)address;
    emit_exit(m, &m->hot, idx);
}

void translate_block(struct translation *t)
{
    struct block_maker *m = &maker;
    m->t = t;
    m->hot = (struct emitter){.at = t->hot, .limit = t->hot_end};
    m->cold = (struct emitter){.at = t->cold, .limit = t->cold_end};
    m->count = 0;
    m->slots = 0;
    m->stolen = t->mode == ENGINE_LOG ? 1u << R14 | 1u << R15 : 1u << R15;
    t->exit_count = 0;
    t->point_count = 0;
    t->record_len = 0;
    t->info = (struct block_info){.pc = t->pc, .end = END_FALL};
    emit_indirect_entry(m);

    uint64_t pc = t->pc, address;
    while (m->count < t->max_insns && m->count < MAX_BLOCK_INSNS) {
        if (m->count && is_break(t, pc))
            break;
        struct insn *in = &m->insns[m->count];
        struct stop_rule rule = decode(pc, in, &address);
        if (rule.stops) {
            if (m->count == 0)
                make_stop(m, in, &rule, address);
            break;
        }
        t->insn_pc[m->count++] = pc;
        pc += in->z.length;
        t->info.end = end_of(in);
        if (t->info.end != END_FALL)
            break;
    }
    if (m->count) {
        t->info.insn_count = (uint16_t)m->count;
        t->info.byte_len = (uint16_t)(pc - t->pc);
        t->info.ticks = t->info.end == END_JCC;
        bool dead = false;
        uint32_t unwritten = FLAG_MASK;
        for (unsigned i = 0; i < m->count; i++) {
            uint32_t needed, written;
            flags_of(&m->insns[i], &needed, &written);
            if (needed & unwritten)
                break;
            unwritten &= ~written;
            if (!unwritten) {
                dead = true;
                break;
            }
        }
        if (t->mode == ENGINE_LOG) {
            for (unsigned i = 0; i < m->count; i++)
                find_stores(m, i);
            m->record_len = 8 + 8u * t->info.slot_count;
            t->record_len = m->record_len;
        }
        if (!t->exact)
            emit_count(m, m->count, t->info.ticks, dead);
        if (t->mode == ENGINE_LOG)
            emit_log_header(m);
        unsigned plain = t->info.end == END_FALL ? m->count : m->count - 1;
        for (unsigned i = 0; i < plain; i++)
            emit_body(m, i);
        emit_end(m);
    }
    t->hot_out = m->hot.at;
    t->cold_out = m->cold.at;
    t->no_room = m->hot.full || m->cold.full;
}
