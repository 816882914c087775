/* What the log variants weave into a block: its record, and the addresses of its accesses
 * (engine.h). */
#include "worker/maker.h"

static void add(struct block_maker *m, unsigned insn, uint8_t kind, unsigned size)
{
    struct translation *t = m->t;
    t->accesses[t->info.access_count++] =
        (struct access_desc){.insn = (uint8_t)insn, .kind = kind, .size = (uint16_t)size};
    t->info.slot_count =
        (uint16_t)(t->info.slot_count + (kind == STORE_REP || kind == LOAD_REP ? 2 : 1));
}

static bool is_push(const struct insn *in)
{
    return in->z.meta.category == ZYDIS_CATEGORY_PUSH;
}

static bool is_pop(const struct insn *in)
{
    return in->z.meta.category == ZYDIS_CATEGORY_POP || in->z.mnemonic == ZYDIS_MNEMONIC_LEAVE;
}

static unsigned stack_size(const struct insn *in)
{
    return in->z.operand_width == 16 ? 2 : 8;
}

/* Registers that a string instruction reads memory at. */
static bool string_loads(const struct insn *in, unsigned reg)
{
    if (in->z.meta.category != ZYDIS_CATEGORY_STRINGOP)
        return false;
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *op = &in->op[i];
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && gpr_number(op->mem.base) == reg &&
            (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ))
            return true;
    }
    return false;
}

static unsigned string_size(const struct insn *in)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        if (in->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return in->op[i].size / 8;
    }
    return 1;
}

static uint8_t kind_of_load(const struct insn *in)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FLDENV:
        return LOAD_STATE;
    default:
        break;
    }
    if (in->z.meta.category == ZYDIS_CATEGORY_GATHER)
        return LOAD_GATHER;
    switch (kind_of_store(in)) {
    case STORE_PLAIN:
        return LOAD_PLAIN;
    case STORE_STATE: // fxsave and its like read nothing
        return LOAD_STATE;
    default:
        return LOAD_MASKED;
    }
}

/* What an instruction other than of strings reads besides the top of the stack; NULL: nothing. */
static const ZydisDecodedOperand *loaded_operand(const struct insn *in)
{
    const ZydisDecodedOperand *op = memory_operand(in, false);
    bool named = op && (op->encoding != ZYDIS_OPERAND_ENCODING_NONE ||
                        in->z.mnemonic == ZYDIS_MNEMONIC_XLAT);
    return named && op->actions & ZYDIS_OPERAND_ACTION_MASK_READ ? op : NULL;
}

static void plan_loads(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    uint8_t kind = is_rep(in) ? LOAD_REP : LOAD_PLAIN;
    if (string_loads(in, RSI)) {
        const ZydisDecodedOperand *segment = segment_operand(in);
        add(m, idx, kind, string_size(in));
        if (segment)
            m->t->accesses[m->t->info.access_count - 1].segment =
                segment->mem.segment == ZYDIS_REGISTER_FS ? 1 : 2;
    }
    if (string_loads(in, RDI))
        add(m, idx, kind, string_size(in));
    if (in->z.meta.category == ZYDIS_CATEGORY_STRINGOP)
        return;
    if (is_pop(in) || in->z.meta.category == ZYDIS_CATEGORY_RET)
        add(m, idx, LOAD_PLAIN, stack_size(in));
    const ZydisDecodedOperand *op = loaded_operand(in);
    if (op)
        add(m, idx, kind_of_load(in), kind_of_load(in) == LOAD_STATE ? XSTATE_MAX : op->size / 8u);
}

static void plan_stores(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    if (in->z.meta.category == ZYDIS_CATEGORY_CALL) {
        add(m, idx, STORE_CALL, 8);
        return;
    }
    if (is_push(in)) {
        add(m, idx, STORE_PLAIN, stack_size(in));
        return;
    }
    if (in->z.mnemonic == ZYDIS_MNEMONIC_ENTER) {
        add(m, idx, STORE_STATE, 8 * (1 + (unsigned)(in->z.raw.imm[1].value.u & 31)));
        return;
    }
    if (is_string_store(in)) {
        add(m, idx, is_rep(in) ? STORE_REP : STORE_PLAIN, string_size(in));
        return;
    }
    const ZydisDecodedOperand *op = memory_operand(in, true);
    if (op)
        add(m, idx, kind_of_store(in), size_of_store(in, op));
}

void plan_log(struct block_maker *m)
{
    for (unsigned i = 0; i < m->count; i++) {
        if (m->t->mode == ENGINE_LOG_LOADS)
            plan_loads(m, i);
        plan_stores(m, i);
    }
    m->record_len = 8 + 8u * m->t->info.slot_count;
    m->t->record_len = m->record_len;
}

void emit_log_header(struct block_maker *m)
{
    struct emitter *e = &m->hot;
    // The far end of the record first: if the log is full this faults before anything is done.
    add_point(m, 0, nothing_spilled, false);
    emit_mem(e, 8, 0x89, COUNTER, WOVEN, NO_REG, 1,
             (int32_t)m->record_len - 8);         // mov [r14 + record_len - 8], r15
    emit_mem(e, 0, 0xc7, 0, WOVEN, NO_REG, 1, 0); // mov dword [r14], block
    emit32(e, m->t->block_idx);
    emit_mem(e, 8, 0x8d, WOVEN, WOVEN, NO_REG, 1,
             (int32_t)m->record_len); // lea r14, [r14 + record_len]
}

/* mov [r14 + the next slot], reg */
static void emit_slot(struct block_maker *m, unsigned reg)
{
    int32_t off = 8 + 8 * (int32_t)m->slots - (int32_t)m->record_len;
    m->slots++;
    emit_mem(&m->hot, 8, 0x89, reg, WOVEN, NO_REG, 1, off);
}

static void emit_stack_slot(struct block_maker *m, int32_t off)
{
    if (off == 0) {
        emit_slot(m, RSP);
        return;
    }
    emit_mem(&m->hot, 8, 0x8d, SCRATCH, RSP, NO_REG, 1, off);
    emit_slot(m, SCRATCH);
}

/* Adds AL, which xlat's address has for an index, to the address in SCRATCH. */
static void emit_xlat_offset(struct block_maker *m, const struct insn *in)
{
    struct emitter *e = &m->hot;
    emit_store(e, &m->t->state->spill[3], RAX);
    emit_bytes(e, (const uint8_t[]){0x0f, 0xb6, 0xc0}, 3); // movzx eax, al
    if (in->z.address_width == 32)
        emit8(e, 0x67);
    emit_mem(e, 8, 0x8d, SCRATCH, SCRATCH, RAX, 1, 0);
    emit_load(e, RAX, &m->t->state->spill[3]);
}

static void emit_operand_slot(struct block_maker *m, const struct insn *in,
                              const ZydisDecodedOperand *op)
{
    emit_address(m, in, op, popped_before(in, op), 0, SCRATCH);
    if (is_bit_string(in))
        emit_bit_offset(m, in);
    if (in->z.mnemonic == ZYDIS_MNEMONIC_XLAT)
        emit_xlat_offset(m, in);
    emit_slot(m, SCRATCH);
}

void emit_logged(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    bool loads = m->t->mode == ENGINE_LOG_LOADS,
         string = in->z.meta.category == ZYDIS_CATEGORY_STRINGOP;
    if (string) {
        // Slots of REP come in pairs: the register before, and, once the instruction is done,
        // behind.
        static const uint8_t registers[3] = {RSI, RDI, RDI};
        const bool wanted[3] = {loads && string_loads(in, RSI), loads && string_loads(in, RDI),
                                is_string_store(in)};
        uint32_t first = m->slots;
        const ZydisDecodedOperand *segment = segment_operand(in); // of RSI
        for (int pass = 0; pass < 1 + is_rep(in); pass++) {
            if (pass == 1)
                emit_copy(m, idx);
            m->slots = first + (uint32_t)pass;
            for (int k = 0; k < 3; k++) {
                if (!wanted[k])
                    continue;
                if (segment && registers[k] == RSI)
                    emit_operand_slot(m, in, segment);
                else
                    emit_slot(m, registers[k]);
                m->slots += is_rep(in);
            }
        }
        m->slots -= is_rep(in) && m->slots > first;
        if (!is_rep(in))
            emit_copy(m, idx);
        return;
    }
    if (loads && in->z.mnemonic == ZYDIS_MNEMONIC_LEAVE)
        emit_slot(m, RBP);
    else if (loads && is_pop(in))
        emit_stack_slot(m, 0);
    const ZydisDecodedOperand *read = loads ? loaded_operand(in) : NULL;
    if (read)
        emit_operand_slot(m, in, read);
    if (is_push(in)) {
        emit_stack_slot(m, -(int32_t)stack_size(in));
    } else if (in->z.mnemonic == ZYDIS_MNEMONIC_ENTER) {
        emit_stack_slot(m, -8 * (int32_t)(1 + (in->z.raw.imm[1].value.u & 31)));
    } else {
        const ZydisDecodedOperand *op = memory_operand(in, true);
        if (op)
            emit_operand_slot(m, in, op);
    }
    emit_copy(m, idx);
}

void emit_log_end(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    bool loads = m->t->mode == ENGINE_LOG_LOADS;
    if (loads && in->z.meta.category == ZYDIS_CATEGORY_RET)
        emit_stack_slot(m, 0);
    const ZydisDecodedOperand *read = loads ? memory_operand(in, false) : NULL;
    if (read && read->encoding != ZYDIS_OPERAND_ENCODING_NONE)
        emit_operand_slot(m, in, read);
    if (in->z.meta.category == ZYDIS_CATEGORY_CALL)
        emit_stack_slot(m, -8);
}
