/* Instructions from their bytes: the door to Zydis. What Zydis tells about operands is put into
 * terms of the register file, and corrected where it is wrong or keeps silent. */
#include "x86/x86_int.h"

#include <Zydis/Zydis.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static ZydisDecoder decoder;
static ZydisFormatter formatter;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init(void)
{
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
    ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_ADDR_PADDING_ABSOLUTE,
                              ZYDIS_PADDING_DISABLED);
    ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_ADDR_PADDING_RELATIVE,
                              ZYDIS_PADDING_DISABLED);
    ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_DISP_PADDING,
                              ZYDIS_PADDING_DISABLED);
    ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_IMM_PADDING, ZYDIS_PADDING_DISABLED);
}

/* --- registers --- */

uint64_t x86_unit(unsigned byte)
{
    unsigned bit;
    if (byte < X86_RIP)
        bit = byte / 8;
    else if (byte < X86_FLAGS)
        bit = 16;
    else if (byte < X86_VECTOR)
        bit = 17;
    else if (byte < X86_MASK)
        bit = 18 + (byte - X86_VECTOR) / 64;
    else if (byte < X86_X87)
        bit = 50 + (byte - X86_MASK) / 8;
    else
        bit = byte < X86_MXCSR ? 58 : byte < X86_CONTROL ? 59 : 60;
    return 1ull << bit;
}

static uint64_t units(unsigned start, unsigned len)
{
    uint64_t all = 0;
    for (unsigned at = start; at < start + len; at++)
        all |= x86_unit(at);
    return all;
}

/* The place of a register. len: of the register; the operand may use less. */
static struct x86_span span_of(ZydisRegister reg)
{
    unsigned general = ZYDIS_REGISTER_NONE, len = 0;
    if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL)
        return (struct x86_span){(uint16_t)(8 * (reg - ZYDIS_REGISTER_AL)), 1};
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        return (struct x86_span){(uint16_t)(8 * (reg - ZYDIS_REGISTER_AH) + 1), 1};
    if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
        return (struct x86_span){(uint16_t)(8 * (4 + reg - ZYDIS_REGISTER_SPL)), 1};
    if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
        general = reg - ZYDIS_REGISTER_AX, len = 2;
    if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
        general = reg - ZYDIS_REGISTER_EAX, len = 4;
    if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
        general = reg - ZYDIS_REGISTER_RAX, len = 8;
    if (len)
        return (struct x86_span){(uint16_t)(8 * general), (uint16_t)len};
    if (reg >= ZYDIS_REGISTER_XMM0 && reg <= ZYDIS_REGISTER_XMM31)
        return (struct x86_span){(uint16_t)(X86_VECTOR + 64 * (reg - ZYDIS_REGISTER_XMM0)), 16};
    if (reg >= ZYDIS_REGISTER_YMM0 && reg <= ZYDIS_REGISTER_YMM31)
        return (struct x86_span){(uint16_t)(X86_VECTOR + 64 * (reg - ZYDIS_REGISTER_YMM0)), 32};
    if (reg >= ZYDIS_REGISTER_ZMM0 && reg <= ZYDIS_REGISTER_ZMM31)
        return (struct x86_span){(uint16_t)(X86_VECTOR + 64 * (reg - ZYDIS_REGISTER_ZMM0)), 64};
    if (reg >= ZYDIS_REGISTER_K0 && reg <= ZYDIS_REGISTER_K7)
        return (struct x86_span){(uint16_t)(X86_MASK + 8 * (reg - ZYDIS_REGISTER_K0)), 8};
    if (reg >= ZYDIS_REGISTER_MM0 && reg <= ZYDIS_REGISTER_MM7)
        return (struct x86_span){(uint16_t)(X86_X87 + 10 * (reg - ZYDIS_REGISTER_MM0)), 8};
    if (reg >= ZYDIS_REGISTER_ST0 && reg <= ZYDIS_REGISTER_ST7)
        return (struct x86_span){X86_X87, 80}; // which one depends on the stack
    if (reg == ZYDIS_REGISTER_MXCSR)
        return (struct x86_span){X86_MXCSR, 4};
    if (reg == ZYDIS_REGISTER_RIP)
        return (struct x86_span){X86_RIP, 8};
    return (struct x86_span){X86_CONTROL, X86_REGISTER_BYTES - X86_CONTROL};
}

static uint8_t general_number(ZydisRegister reg)
{
    if (reg == ZYDIS_REGISTER_NONE)
        return X86_NONE;
    struct x86_span s = span_of(reg);
    return s.start < X86_RIP ? (uint8_t)(s.start / 8) : X86_NONE;
}

/* --- operands --- */

/* Zydis 4.0 takes R13D for a base where 32-bit addresses have none (SDM 2A, table 2-3: mod 0, base
 * 5). */
static bool lacks_base(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
    return (z->attributes & ZYDIS_ATTRIB_HAS_SIB) && z->raw.modrm.mod == 0 &&
           (z->raw.sib.base & 7) == 5 && op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
}

static bool is_state(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        return true;
    default:
        return false;
    }
}

static bool is_bit_test(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_BT || m == ZYDIS_MNEMONIC_BTS || m == ZYDIS_MNEMONIC_BTR ||
           m == ZYDIS_MNEMONIC_BTC;
}

static void fill_memory(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *all,
                        const ZydisDecodedOperand *op, struct x86_insn *in, struct x86_operand *out)
{
    struct x86_mem *m = &out->mem;
    bool hidden = op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
    out->kind = op->mem.type == ZYDIS_MEMOP_TYPE_AGEN || op->mem.type == ZYDIS_MEMOP_TYPE_MIB
                    ? X86_ADDRESS
                    : X86_MEMORY;
    m->base = general_number(op->mem.base);
    m->index = general_number(op->mem.index);
    m->index_len = 8;
    m->scale = op->mem.scale ? op->mem.scale : 1;
    m->address32 = z->address_width == 32;
    m->disp = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
    m->segment = op->mem.segment == ZYDIS_REGISTER_FS   ? 1
                 : op->mem.segment == ZYDIS_REGISTER_GS ? 2
                                                        : 0;
    if (op->mem.type == ZYDIS_MEMOP_TYPE_MIB)
        m->index = X86_NONE;
    if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP)
        m->disp += (int64_t)(in->pc + in->len);
    if (lacks_base(z, op)) {
        m->base = X86_NONE;
        m->disp = z->raw.disp.value;
    }
    if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
        m->how = X86_AT_VECTOR;
        m->index = (uint8_t)((span_of(op->mem.index).start - X86_VECTOR) / 64);
        // vgatherDps and the like have 32-bit indices: the letter in front of the element's kind.
        const char *name = ZydisMnemonicGetString(z->mnemonic);
        const char *at = strstr(name, "gather");
        at = at ? at + 6 : strstr(name, "scatter") ? strstr(name, "scatter") + 7 : "q";
        m->index_len = *at == 'd' ? 4 : 8;
    }
    if (hidden &&
        (z->meta.category == ZYDIS_CATEGORY_PUSH || z->meta.category == ZYDIS_CATEGORY_CALL))
        m->how = X86_AT_PUSH;
    if (!hidden && z->mnemonic == ZYDIS_MNEMONIC_POP && m->base == GPR_RSP)
        m->how = X86_AT_POP_DEST;
    if (z->meta.category == ZYDIS_CATEGORY_STRINGOP)
        m->how = X86_AT_STRING;
    if (z->mnemonic == ZYDIS_MNEMONIC_XLAT) {
        m->index = GPR_RAX;
        m->index_len = 1;
    }
    if (is_bit_test(z->mnemonic) && all[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
        m->how = X86_AT_BIT;
    if (is_state(z->mnemonic)) {
        m->how = X86_AT_STATE;
        out->len = 0;
    }
    if (z->mnemonic == ZYDIS_MNEMONIC_FNSTENV || z->mnemonic == ZYDIS_MNEMONIC_FLDENV)
        out->len = 28;
    if (z->mnemonic == ZYDIS_MNEMONIC_FNSAVE || z->mnemonic == ZYDIS_MNEMONIC_FRSTOR)
        out->len = 108;
}

/* Bytes that a mask instruction moves, by the last letter of its name. */
static uint16_t mask_width(ZydisMnemonic m)
{
    const char *name = ZydisMnemonicGetString(m);
    switch (name[strlen(name) - 1]) {
    case 'b':
        return 1;
    case 'w':
        return 2;
    case 'd':
        return 4;
    default:
        return 8;
    }
}

static void fill_register(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op,
                          struct x86_insn *in, struct x86_operand *out)
{
    struct x86_span s = span_of(op->reg.value);
    uint16_t size = op->size / 8;
    out->kind = X86_REGISTER;
    out->start = s.start;
    out->len = s.start < X86_X87 && size && size < s.len ? size : s.len;
    if (s.start >= X86_MASK && s.start < X86_X87)
        out->len = z->meta.category == ZYDIS_CATEGORY_KMASK ? mask_width(z->mnemonic) : 8;
    if (!out->writes)
        return;
    if (s.start < X86_RIP && s.len == 4)
        out->zeroed = 4;
    if (s.start >= X86_VECTOR && s.start < X86_MASK && in->vex)
        out->zeroed = (uint16_t)(64 - out->len);
    if (s.start >= X86_MASK && s.start < X86_X87)
        out->zeroed = (uint16_t)(8 - out->len);
    if (s.start >= X86_X87 && s.start < X86_MXCSR && s.len == 8)
        out->zeroed = 2;
    // What is left of these if the condition fails differs between CPUs.
    if (z->mnemonic == ZYDIS_MNEMONIC_BSF || z->mnemonic == ZYDIS_MNEMONIC_BSR) {
        out->len = (uint16_t)(out->len + out->zeroed);
        out->zeroed = 0;
        out->reads = true;
    }
}

static bool touches_no_memory(const ZydisDecodedInstruction *z)
{
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_WIDENOP:
    case ZYDIS_CATEGORY_PREFETCH:
    case ZYDIS_CATEGORY_PREFETCHWT1:
        return true;
    default:
        break;
    }
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
    case ZYDIS_MNEMONIC_CLDEMOTE:
        return true;
    default:
        return false;
    }
}

static void fill_operand(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *all,
                         const ZydisDecodedOperand *op, struct x86_insn *in)
{
    struct x86_operand *out = &in->operands[in->operand_count];
    *out = (struct x86_operand){.reads = op->actions & ZYDIS_OPERAND_ACTION_MASK_READ,
                                .writes = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE,
                                .maybe = op->actions & ZYDIS_OPERAND_ACTION_CONDWRITE,
                                .visible = op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN,
                                .element = (uint8_t)(op->element_size / 8),
                                .len = op->size / 8};
    switch (op->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        if (ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_FLAGS ||
            ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_IP ||
            (op->encoding == ZYDIS_OPERAND_ENCODING_MASK && op->reg.value == ZYDIS_REGISTER_K0))
            return; // flags have their own fields, and the next address is no value
        fill_register(z, op, in, out);
        if (op->encoding == ZYDIS_OPERAND_ENCODING_MASK) {
            in->mask = (uint8_t)(op->reg.value - ZYDIS_REGISTER_K0);
            out->visible = false;
        }
        break;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        if (touches_no_memory(z))
            return;
        fill_memory(z, all, op, in, out);
        in->writes_memory |= out->kind == X86_MEMORY && out->writes;
        in->reads_memory |= out->kind == X86_MEMORY && out->reads;
        break;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        out->kind = X86_IMMEDIATE;
        out->imm = op->imm.value.u;
        break;
    default:
        return;
    }
    in->operand_count++;
}

/* --- flags --- */

static uint8_t flag_bits(ZydisAccessedFlagsMask mask)
{
    static const ZydisAccessedFlagsMask bits[X86_OTHER_FLAGS] = {
        ZYDIS_CPUFLAG_CF, ZYDIS_CPUFLAG_PF, ZYDIS_CPUFLAG_AF, ZYDIS_CPUFLAG_ZF,
        ZYDIS_CPUFLAG_SF, ZYDIS_CPUFLAG_DF, ZYDIS_CPUFLAG_OF};
    uint8_t out = 0;
    for (unsigned i = 0; i < X86_OTHER_FLAGS; i++) {
        out |= mask & bits[i] ? (uint8_t)(1u << i) : 0;
        mask &= ~bits[i];
    }
    return (uint8_t)(out | (mask ? 1u << X86_OTHER_FLAGS : 0));
}

static void fill_flags(const ZydisDecodedInstruction *z, struct x86_insn *in)
{
    const ZydisAccessedFlags *f = z->cpu_flags;
    in->flags_read = f ? flag_bits(f->tested) : 0;
    in->flags_written = f ? flag_bits(f->modified | f->set_0 | f->set_1 | f->undefined) : 0;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_LAHF:
        in->flags_read = 0xff;
        break;
    case ZYDIS_MNEMONIC_VTESTPS:
    case ZYDIS_MNEMONIC_VTESTPD:
    case ZYDIS_MNEMONIC_VPTEST:
    case ZYDIS_MNEMONIC_PTEST:
        in->flags_written =
            1 << X86_CF | 1 << X86_PF | 1 << X86_AF | 1 << X86_ZF | 1 << X86_SF | 1 << X86_OF;
        break;
    default:
        break;
    }
}

static uint8_t class_of(const ZydisDecodedInstruction *z)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSENTER:
        return X86_SYSCALL;
    case ZYDIS_MNEMONIC_INT:
        return z->raw.imm[0].value.u == 0x80 ? X86_SYSCALL : X86_PLAIN;
    case ZYDIS_MNEMONIC_PUSH:
        return X86_PUSH;
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_LEAVE:
        return X86_POP;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
        return X86_TRAP;
    default:
        break;
    }
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_CALL:
        return X86_CALL;
    case ZYDIS_CATEGORY_RET:
        return X86_RETURN;
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
        return X86_JUMP;
    default:
        return X86_PLAIN;
    }
}

/* --- decoding --- */

static void add_hidden(struct x86_insn *in, unsigned start, unsigned len, bool reads, bool writes)
{
    if (in->operand_count < X86_MAX_OPERANDS)
        in->operands[in->operand_count++] = (struct x86_operand){.kind = X86_REGISTER,
                                                                 .reads = reads,
                                                                 .writes = writes,
                                                                 .start = (uint16_t)start,
                                                                 .len = (uint16_t)len};
}

/* Zydis leaves out some of RSI, RDI and RCX. */
static void add_string_registers(struct x86_insn *in)
{
    static const uint8_t numbers[] = {GPR_RSI, GPR_RDI, GPR_RCX};
    bool wanted[3] = {false, false, in->repeats};
    for (unsigned i = 0; i < in->operand_count; i++) {
        const struct x86_operand *o = &in->operands[i];
        if (o->kind == X86_MEMORY && o->mem.base == GPR_RSI)
            wanted[0] = true;
        if (o->kind == X86_MEMORY && o->mem.base == GPR_RDI)
            wanted[1] = true;
    }
    for (unsigned k = 0; k < 3; k++) {
        for (unsigned i = 0; i < in->operand_count; i++) {
            if (in->operands[i].kind == X86_REGISTER && in->operands[i].start == 8 * numbers[k])
                wanted[k] = false;
        }
        if (wanted[k])
            add_hidden(in, 8u * numbers[k], 8, true, true);
    }
}

/* Operands that are halves of a vector register: Zydis gives their length and not which half. */
static void correct_halves(const ZydisDecodedInstruction *z, struct x86_insn *in)
{
    struct x86_operand *op = in->operands;
    bool to_high = false, from_high = false;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_MOVHPS:
    case ZYDIS_MNEMONIC_MOVHPD:
    case ZYDIS_MNEMONIC_VMOVHPS:
    case ZYDIS_MNEMONIC_VMOVHPD:
        to_high = op[0].kind == X86_REGISTER && !in->vex;
        from_high = op[0].kind == X86_MEMORY;
        break;
    case ZYDIS_MNEMONIC_MOVLHPS:
        to_high = true;
        break;
    case ZYDIS_MNEMONIC_MOVHLPS:
    case ZYDIS_MNEMONIC_VMOVHLPS:
        from_high = true;
        break;
    default:
        return;
    }
    struct x86_operand *source = &op[z->mnemonic == ZYDIS_MNEMONIC_VMOVHLPS ? 2 : 1];
    if (to_high)
        op[0].start += 8;
    if (from_high)
        source->start += 8;
    if (to_high)
        op[0].len = 8;
    if (from_high || to_high || z->mnemonic == ZYDIS_MNEMONIC_MOVHLPS)
        source->len = 8;
}

/* What Zydis does not say. */
static void complete(const ZydisDecodedInstruction *z, struct x86_insn *in)
{
    struct x86_operand *op = in->operands;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_RDFSBASE:
        add_hidden(in, X86_FS_BASE, 8, true, false);
        break;
    case ZYDIS_MNEMONIC_RDGSBASE:
        add_hidden(in, X86_GS_BASE, 8, true, false);
        break;
    case ZYDIS_MNEMONIC_WRFSBASE:
        add_hidden(in, X86_FS_BASE, 8, false, true);
        break;
    case ZYDIS_MNEMONIC_WRGSBASE:
        add_hidden(in, X86_GS_BASE, 8, false, true);
        break;
    case ZYDIS_MNEMONIC_SYSCALL: // the kernel's doing, seen at the event
        in->operand_count = 0;
        in->flags_read = in->flags_written = 0;
        break;
    case ZYDIS_MNEMONIC_VMOVQ: // of a vector register it moves the low half
        if (op[1].kind == X86_REGISTER && op[1].len > 8)
            op[1].len = 8;
        break;
    case ZYDIS_MNEMONIC_INSERTQ: // the upper half is undefined after these
    case ZYDIS_MNEMONIC_EXTRQ:
        op[0].len = 16;
        op[0].reads = true;
        break;
    case ZYDIS_MNEMONIC_VP2INTERSECTD: // writes a pair
    case ZYDIS_MNEMONIC_VP2INTERSECTQ:
        op[0].start = (uint16_t)(X86_MASK + (op[0].start - X86_MASK) / 16 * 16);
        op[0].len = 16;
        op[0].zeroed = 0;
        break;
    case ZYDIS_MNEMONIC_CMPXCHG:
        // The destination keeps its upper half if the comparison succeeds; see flow.c.
        for (unsigned i = 0; i < in->operand_count; i++) {
            op[i].reads = true;
            if (op[i].kind == X86_REGISTER && op[i].writes)
                op[i].maybe = true;
        }
        break;
    default:
        break;
    }
    correct_halves(z, in);
    if (z->mnemonic == ZYDIS_MNEMONIC_PAUSE &&
        z->raw.rex.B) { // Zydis overlooks that REX.B makes it an exchange with r8
        uint16_t len = z->operand_width / 8;
        in->mnemonic = ZYDIS_MNEMONIC_XCHG;
        in->operand_count = 2;
        for (unsigned i = 0; i < 2; i++)
            op[i] = (struct x86_operand){.kind = X86_REGISTER,
                                         .reads = true,
                                         .writes = true,
                                         .visible = true,
                                         .start = i ? 0 : 64,
                                         .len = len,
                                         .zeroed = len == 4 ? 4 : 0};
    }
    if (z->meta.category == ZYDIS_CATEGORY_STRINGOP)
        add_string_registers(in);
    if (z->meta.category == ZYDIS_CATEGORY_X87_ALU || z->meta.category == ZYDIS_CATEGORY_FCMOV)
        add_hidden(in, X86_X87, 80, true, true);
    // String instructions move from RSI and RDI; merging needs the old destination.
    for (unsigned i = 0; i < in->operand_count; i++) {
        if (z->meta.category == ZYDIS_CATEGORY_STRINGOP && op[i].kind == X86_REGISTER &&
            op[i].writes && !op[i].visible)
            op[i].reads |= op[i].start != X86_GPR + 8 * GPR_RAX;
    }
}

/* Does it work on the lowest element only? */
static bool is_scalar(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
    const char *name = ZydisMnemonicGetString(z->mnemonic), *end = name + strlen(name) - 2;
    return (strcmp(end, "ss") == 0 || strcmp(end, "sd") == 0 || strcmp(end, "sh") == 0) &&
           z->meta.category != ZYDIS_CATEGORY_BROADCAST &&
           op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           (op[0].element_type == ZYDIS_ELEMENT_TYPE_FLOAT16 ||
            op[0].element_type == ZYDIS_ELEMENT_TYPE_FLOAT32 ||
            op[0].element_type == ZYDIS_ELEMENT_TYPE_FLOAT64);
}

static void fill_masks(struct x86_insn *in)
{
    struct x86_span spans[X86_MAX_SPANS];
    size_t n = x86_registers_read(in, spans);
    for (size_t i = 0; i < n; i++)
        in->read |= units(spans[i].start, spans[i].len);
    const struct shape_info *shape = &x86_shapes[in->mnemonic];
    n = x86_registers_written(in, spans);
    for (size_t i = 0; i < n; i++)
        in->written |= units(spans[i].start, spans[i].len);
    if (shape->shape == SHAPE_ZERO_ALL || shape->shape == SHAPE_ZERO_UPPER)
        in->written |= units(X86_VECTOR, 16 * 64);
    if (shape->shape == SHAPE_RESTORE)
        in->written |= units(X86_VECTOR, X86_REGISTER_BYTES - X86_VECTOR);
}

bool x86_decode(const uint8_t *bytes, size_t len, gaddr pc, struct x86_insn *out)
{
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    pthread_once(&once, init);
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, bytes, len, &z, op)))
        return false;
    memset(out, 0, sizeof(*out));
    out->pc = pc;
    out->len = z.length;
    out->mnemonic = (uint16_t)z.mnemonic;
    out->vector_len = z.avx.vector_length / 8;
    out->vex = z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ||
               z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
               z.encoding == ZYDIS_INSTRUCTION_ENCODING_XOP;
    out->repeats =
        z.meta.category == ZYDIS_CATEGORY_STRINGOP &&
        (z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE));
    out->mask_zeroes = z.avx.mask.mode == ZYDIS_MASK_MODE_ZEROING ||
                       z.avx.mask.mode == ZYDIS_MASK_MODE_CONTROL_ZEROING;
    out->mask_controls = z.avx.mask.mode == ZYDIS_MASK_MODE_CONTROL ||
                         z.avx.mask.mode == ZYDIS_MASK_MODE_CONTROL_ZEROING;
    out->conditional = z.meta.category == ZYDIS_CATEGORY_CMOV ||
                       z.meta.category == ZYDIS_CATEGORY_SETCC ||
                       z.meta.category == ZYDIS_CATEGORY_COND_BR;
    out->class = class_of(&z);
    fill_flags(&z, out);
    for (unsigned i = 0; i < z.operand_count && out->operand_count < X86_MAX_OPERANDS; i++)
        fill_operand(&z, op, &op[i], out);
    complete(&z, out);
    out->scalar = is_scalar(&z, op);
    fill_masks(out);
    return true;
}

const char *x86_format(const uint8_t *bytes, size_t len, gaddr pc, char *out, size_t out_len)
{
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    pthread_once(&once, init);
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, bytes, len, &z, op)) ||
        ZYAN_FAILED(ZydisFormatterFormatInstruction(&formatter, &z, op, z.operand_count_visible,
                                                    out, out_len, pc, NULL)))
        snprintf(out, out_len, "(bad)");
    return out;
}
