#include "worker/insn.h"

#include "worker/emit.h"
#include "worker/evex.h"
#include "worker/far.h"

enum {
    SIGILL_NO = 4,
    SIGTRAP_NO = 5,
    SIGSEGV_NO = 11,
    CODE_KERNEL = 0x80,
    CODE_ILLOPN = 2,
    CODE_MAPERR = 1,
    CODE_ACCERR = 2
};
enum { PROT_EXEC_BIT = 4 };

static ZydisDecoder decoder;

void insn_init(void)
{
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

/* --- operands --- */

unsigned gpr_number(ZydisRegister reg)
{
    ZydisRegister large = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
    return large >= ZYDIS_REGISTER_RAX && large <= ZYDIS_REGISTER_R15
               ? (unsigned)(large - ZYDIS_REGISTER_RAX)
               : NO_REG;
}

uint32_t registers_used(const struct insn *in)
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

const ZydisDecodedOperand *memory_operand(const struct insn *in, bool written)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.type != ZYDIS_MEMOP_TYPE_AGEN &&
            (!written || (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)))
            return op;
    }
    return NULL;
}

const ZydisDecodedOperand *segment_operand(const struct insn *in)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && op->mem.type != ZYDIS_MEMOP_TYPE_AGEN &&
            (op->mem.segment == ZYDIS_REGISTER_FS || op->mem.segment == ZYDIS_REGISTER_GS))
            return op;
    }
    return NULL;
}

const ZydisDecodedOperand *rip_operand(const struct insn *in)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP))
            return op;
    }
    return NULL;
}

uint64_t rip_address(const struct insn *in, const ZydisDecodedOperand *op)
{
    uint64_t address = in->pc + in->z.length + (uint64_t)op->mem.disp.value;
    return op->mem.base == ZYDIS_REGISTER_EIP ? (uint32_t)address : address;
}

bool is_plain_address(const struct insn *in, const ZydisDecodedOperand *op)
{
    return in->z.address_width == 64 && op->mem.base != ZYDIS_REGISTER_RIP &&
           (in->z.attributes & ZYDIS_ATTRIB_HAS_MODRM);
}

int64_t popped_before(const struct insn *in, const ZydisDecodedOperand *op)
{
    if (in->z.mnemonic != ZYDIS_MNEMONIC_POP || gpr_number(op->mem.base) != RSP)
        return 0;
    return in->z.operand_width == 16 ? 2 : 8;
}

uint64_t memory_address(const struct engine_state *s, const struct insn *in,
                        const ZydisDecodedOperand *op)
{
    unsigned base = gpr_number(op->mem.base), index = gpr_number(op->mem.index);
    uint64_t address = (uint64_t)displacement(op);
    if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP)
        address = rip_address(in, op);
    if (base != NO_REG)
        address += s->regs[base];
    if (index != NO_REG)
        address += s->regs[index] * op->mem.scale;
    if (in->z.address_width == 32)
        address = (uint32_t)address;
    return address + (op->mem.segment == ZYDIS_REGISTER_FS   ? s->fs_base
                      : op->mem.segment == ZYDIS_REGISTER_GS ? s->gs_base
                                                             : 0);
}

int64_t displacement(const ZydisDecodedOperand *op)
{
    return op->mem.disp.has_displacement ? op->mem.disp.value : 0;
}

uint32_t registers_written(const struct insn *in)
{
    uint32_t written = 0;
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        unsigned reg = op->type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_number(op->reg.value) : NO_REG;
        if (reg != NO_REG && (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            written |= 1u << reg;
    }
    return written;
}

static bool is_byte_mask_store(const struct insn *in)
{
    return in->z.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
           in->z.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
           in->z.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

bool is_implied_address(const struct insn *in, const ZydisDecodedOperand *op)
{
    return op->encoding == ZYDIS_OPERAND_ENCODING_NONE &&
           (in->z.meta.category == ZYDIS_CATEGORY_STRINGOP ||
            in->z.mnemonic == ZYDIS_MNEMONIC_XLAT || is_byte_mask_store(in));
}

/* Can copying add the base of a segment to this operand? Not to 32 bits of an implied register, nor
 * to vectors of 32-bit addresses. */
static bool can_add_segment(const struct insn *in, const ZydisDecodedOperand *op)
{
    if (op->encoding == ZYDIS_OPERAND_ENCODING_NONE)
        return in->z.address_width == 64 && is_implied_address(in, op);
    return op->mem.type != ZYDIS_MEMOP_TYPE_VSIB || is_plain_address(in, op);
}

bool is_string_store(const struct insn *in)
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

bool is_rep(const struct insn *in)
{
    return in->z.attributes &
           (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
}

bool is_bit_string(const struct insn *in)
{
    return in->z.operand_count > 1 && in->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           (in->z.mnemonic == ZYDIS_MNEMONIC_BTS || in->z.mnemonic == ZYDIS_MNEMONIC_BTR ||
            in->z.mnemonic == ZYDIS_MNEMONIC_BTC);
}

/* --- stores --- */

uint8_t kind_of_store(const struct insn *in)
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

/* The operand of an xsave-like instruction has no size of its own. */
uint16_t size_of_store(const struct insn *in, const ZydisDecodedOperand *op)
{
    unsigned size = op->size / 8;
    if (kind_of_store(in) == STORE_STATE && size < 512)
        size = in->z.mnemonic == ZYDIS_MNEMONIC_FNSTENV  ? 28
               : in->z.mnemonic == ZYDIS_MNEMONIC_FNSAVE ? 108
                                                         : XSTATE_MAX;
    return (uint16_t)(size ? size : 8);
}

/* --- flags and RSP --- */

/* Shifts by CL and repeated compares
 * leave the flags alone when their count is 0. */
void flags_of(const struct insn *in, uint32_t *needed, uint32_t *written)
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
        // What is undefined after an instruction is really a function of the old flags or the
        // operands: keep it exact.
        if (f && f->undefined & FLAG_MASK)
            *written = (f->modified | f->set_0 | f->set_1) & FLAG_MASK & ~f->undefined;
        break;
    }
    if (is_rep(in))
        *written = 0;
}

/* The immediate by which `add rsp`, `sub rsp` or `lea rsp, [rsp + disp]` moves it; 0: none of
 * these. */
static int64_t rsp_adjustment(const struct insn *in)
{
    if (in->z.operand_count < 2 || in->op[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
        in->op[0].reg.value != ZYDIS_REGISTER_RSP)
        return 0;
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
        return in->op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? in->op[1].imm.value.s : 0;
    case ZYDIS_MNEMONIC_SUB:
        return in->op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? -in->op[1].imm.value.s : 0;
    case ZYDIS_MNEMONIC_LEA:
        return in->z.address_width == 64 && in->op[1].mem.base == ZYDIS_REGISTER_RSP &&
                       in->op[1].mem.index == ZYDIS_REGISTER_NONE
                   ? displacement(&in->op[1])
                   : 0;
    default:
        return 0;
    }
}

enum rsp_effect rsp_effect_of(const struct insn *in)
{
    if (!(registers_written(in) >> RSP & 1))
        return RSP_KEEPS;
    switch (in->z.meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
        return in->z.raw.imm[0].size && in->z.meta.category == ZYDIS_CATEGORY_RET &&
                       in->z.raw.imm[0].value.u % 8
                   ? RSP_ALIGNS
                   : RSP_KEEPS;
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP:
        if (in->z.mnemonic == ZYDIS_MNEMONIC_POP && in->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            gpr_number(in->op[0].reg.value) == RSP)
            return RSP_SWITCHES;
        return in->z.operand_width == 16 ? RSP_ALIGNS : RSP_KEEPS;
    default:
        break;
    }
    int64_t moved = rsp_adjustment(in);
    if (moved)
        return moved % 8 ? RSP_ALIGNS : RSP_KEEPS;
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_ADD:
        return RSP_ALIGNS;
    case ZYDIS_MNEMONIC_MOV:
        return in->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                       in->op[1].reg.value == ZYDIS_REGISTER_RBP
                   ? RSP_ALIGNS
                   : RSP_SWITCHES;
    case ZYDIS_MNEMONIC_LEA:
        return in->op[1].mem.base == ZYDIS_REGISTER_RBP || in->op[1].mem.base == ZYDIS_REGISTER_RSP
                   ? RSP_ALIGNS
                   : RSP_SWITCHES;
    default:
        return RSP_SWITCHES;
    }
}

int64_t rsp_move_of(const struct insn *in)
{
    switch (in->z.meta.category) {
    case ZYDIS_CATEGORY_PUSH:
        return -8;
    case ZYDIS_CATEGORY_POP:
        return 8;
    default:
        return rsp_adjustment(in);
    }
}

/* --- decoding --- */

static struct engine_isa isa;

void engine_set_isa(const struct engine_isa *given)
{
    isa = *given;
}

const struct engine_isa *engine_isa(void)
{
    return &isa;
}

/* Is the instruction of a set that not both CPUs have? */
static bool is_of(const uint64_t sets[ENGINE_ISA_WORDS], const struct insn *in)
{
    return sets[in->z.meta.isa_set / 64] >> in->z.meta.isa_set % 64 & 1;
}

static bool is_of_knc(const struct insn *in)
{
    switch (in->z.meta.isa_set) {
    case ZYDIS_ISA_SET_KNCE:
    case ZYDIS_ISA_SET_KNCV:
    case ZYDIS_ISA_SET_KNCJKBR:
    case ZYDIS_ISA_SET_KNC_MISC:
    case ZYDIS_ISA_SET_KNCSTREAM:
        return true;
    default:
        return false;
    }
}

static struct stop_rule rule_for(const struct insn *in)
{
    struct stop_rule rule = {.stops = true, .reason = STOP_TRAP};
    const struct stop_rule fault = {
        .stops = true, .reason = STOP_FAULT, .signo = SIGSEGV_NO, .code = CODE_KERNEL};
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
    case ZYDIS_MNEMONIC_LSL:
        rule.trap = TRAP_LSL;
        return rule;
    case ZYDIS_MNEMONIC_LAR:
        rule.trap = TRAP_LAR;
        return rule;
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
        rule.trap = in->z.mnemonic == ZYDIS_MNEMONIC_VERR ? TRAP_VERR : TRAP_VERW;
        return rule;
    case ZYDIS_MNEMONIC_RDPMC:
        rule.trap = TRAP_OTHER;
        return rule;
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        rule.trap = TRAP_SEGMENT_BASE;
        return rule;
    case ZYDIS_MNEMONIC_INT3:
        return (struct stop_rule){
            .stops = true, .reason = STOP_FAULT, .signo = SIGTRAP_NO, .code = CODE_KERNEL};
    case ZYDIS_MNEMONIC_INT1:
        return (struct stop_rule){
            .stops = true, .reason = STOP_FAULT, .signo = SIGTRAP_NO, .code = 1};
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
        return (struct stop_rule){
            .stops = true, .reason = STOP_FAULT, .signo = SIGILL_NO, .code = CODE_ILLOPN};
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
    case ZYDIS_MNEMONIC_XABORT:
        rule.reason = STOP_UNSUPPORTED;
        return rule;
    default:
        break;
    }
    if (in->z.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
        return fault;
    if (in->emulated) {
        if (is_of_knc(in) ||
            is_of(isa.undefined,
                  in)) // the first ones are decoded by Zydis, but of no CPU that rr runs on
            return (struct stop_rule){
                .stops = true, .reason = STOP_FAULT, .signo = SIGILL_NO, .code = CODE_ILLOPN};
        static struct evex_insn prepared;
        return (struct stop_rule){.stops = !evex_prepare(in, &prepared),
                                  .reason = STOP_UNSUPPORTED};
    }
    if (is_of(isa.lacking, in) || is_of(isa.undefined, in)) {
        // Without BMI1 and LZCNT these two are BSF and BSR.
        bool scans =
            in->z.mnemonic == ZYDIS_MNEMONIC_TZCNT || in->z.mnemonic == ZYDIS_MNEMONIC_LZCNT;
        if (is_of(isa.lacking, in) || scans)
            return (struct stop_rule){.stops = true, .reason = STOP_UNSUPPORTED};
        return (struct stop_rule){
            .stops = true, .reason = STOP_FAULT, .signo = SIGILL_NO, .code = CODE_ILLOPN};
    }
    const ZydisDecodedOperand *in_segment = segment_operand(in);
    if (in_segment && !can_add_segment(in, in_segment)) {
        rule.reason = STOP_UNSUPPORTED;
        return rule;
    }
    bool branch = in->z.meta.category == ZYDIS_CATEGORY_COND_BR ||
                  in->z.meta.category == ZYDIS_CATEGORY_UNCOND_BR ||
                  in->z.meta.category == ZYDIS_CATEGORY_CALL ||
                  in->z.meta.category == ZYDIS_CATEGORY_RET;
    bool near = in->z.meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT ||
                in->z.meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR;
    if (is_far_branch(in)) {
        rule.trap = TRAP_FAR;
        return rule;
    }
    rule.reason = STOP_UNSUPPORTED;
    if ((branch && (!near || in->z.operand_width == 16)) ||
        in->z.mnemonic == ZYDIS_MNEMONIC_IRETQ || in->z.mnemonic == ZYDIS_MNEMONIC_IRETD ||
        in->z.mnemonic == ZYDIS_MNEMONIC_IRET)
        return rule;
    rule.stops = false;
    return rule;
}

static struct stop_rule memory_fault(uint64_t address)
{
    return (struct stop_rule){.stops = true,
                              .reason = STOP_FAULT,
                              .signo = SIGSEGV_NO,
                              .code = engine_host_prot(address) < 0 ? CODE_MAPERR : CODE_ACCERR};
}

static bool executable(uint64_t address)
{
    int prot = engine_host_prot(address);
    return prot >= 0 && (prot & PROT_EXEC_BIT);
}

/* Zydis 4.0 takes R13D for a base where 32-bit addresses have none (SDM 2A, table 2-3: mod 0, base
 * 5). */
static void correct_missing_base(struct insn *in)
{
    const ZydisDecodedInstructionRaw *raw = &in->z.raw;
    if (!(in->z.attributes & ZYDIS_ATTRIB_HAS_SIB) || raw->modrm.mod != 0 ||
        (raw->sib.base & 7) != 5)
        return;
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        ZydisDecodedOperand *op = &in->op[i];
        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY ||
            op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
            continue;
        op->mem.base = ZYDIS_REGISTER_NONE;
        op->mem.disp.has_displacement = true;
        op->mem.disp.value = raw->disp.value;
    }
}

struct stop_rule insn_decode(uint64_t pc, struct insn *in, uint64_t *fault_address)
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
        return (struct stop_rule){
            .stops = true, .reason = STOP_FAULT, .signo = SIGILL_NO, .code = CODE_ILLOPN};
    }
    correct_missing_base(in);
    in->emulated =
        (isa.emulates_avx512 && evex_concerns(in)) || (isa.emulates_xsave && evex_saves_state(in));
    return rule_for(in);
}

enum block_end insn_end(const struct insn *in)
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
