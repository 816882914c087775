/* The translator: one basic block of guest code at a time into host code that keeps guest and host
 * addresses the same.
 *
 * Instructions are copied as they are (copy.c), but for
 *   - control transfers, which become jumps between translations, with the guest's own return addresses on the stack;
 *   - RIP-relative operands, which get a new displacement, or an absolute address in a register if out of reach;
 *   - operands in FS and GS, to whose address the base is added;
 *   - uses of the stolen registers, done with a scratch register that the instruction does not use:
 *         mov [spill], X; mov X, [guest r15]; insn with X for r15; mov [guest r15], X; mov X, [spill]
 *   - instructions that would leak this machine or leave the program: the block ends and the run loop decides.
 * A block begins with its count (engine.h), and what its variant asks for is woven in (weave_log.c,
 * weave_index.c):
 *     count; [log record header; r14 += record]; { [addresses or marks of what it accesses]; instruction }...; end
 * Nothing is ever written to the guest's stack but what the guest writes, and flags are only
 * touched where they are dead.
 *
 * Invariants: 1. at `entry` all registers hold guest values but the stolen ones. 2. Only what is
 * named by a fault point can fault. 3. Translating a block again at the same place with the same
 * request gives the same bytes. */
#include "worker/maker.h"

#include "worker/x87.h"

const uint8_t nothing_spilled[4] = {NO_REG, NO_REG, NO_REG, NO_REG};

static struct block_maker maker; /* one thread, and too large for the stack */

uint32_t new_exit(struct block_maker *m, struct exit_record x)
{
    x.block = m->t->block_idx;
    m->t->exits[m->t->exit_count] = x;
    return m->t->first_exit + m->t->exit_count++;
}

void emit_exit(struct block_maker *m, struct emitter *e, uint32_t idx)
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
    uint32_t idx = new_exit(
        m,
        (struct exit_record){.kind = EXIT_DIRECT, .pc = pc, .patch = m->t->exact ? NULL : field});
    emit_exit(m, &m->cold, idx);
}

void add_point(struct block_maker *m, unsigned insn, const uint8_t spilled[4], bool guest)
{
    struct fault_point *p = &m->t->points[m->t->point_count++];
    *p = (struct fault_point){
        .host_off = (uint32_t)(m->hot.at - m->t->hot), .insn = (uint16_t)insn, .guest = guest};
    __builtin_memcpy(p->spilled, spilled, sizeof(p->spilled));
    __builtin_memset(p->vectors, NO_REG, sizeof(p->vectors));
    p->based = NO_REG;
}

unsigned pick_scratch(uint32_t used, bool low)
{
    static const uint8_t order[] = {RAX, RDX, RSI, RDI, RBX, RCX, R8, R9, R10, R11};
    for (unsigned i = 0; i < (low ? 6 : 10); i++) {
        if (!(used >> order[i] & 1))
            return order[i];
    }
    return NO_REG;
}

/* The count at the block's start; see engine.h. */
static void emit_count(struct block_maker *m)
{
    struct engine_state *s = m->t->state;
    int32_t amount = (int32_t)(m->count << ICOUNT_SHIFT) - m->t->info.ticks;
    struct emitter *e = &m->hot;
    if (m->flags == FLAGS_DIE) {
        emit_bytes(e, (const uint8_t[]){0x49, 0x81, 0xef}, 3); // sub r15, amount
        emit32(e, (uint32_t)amount);
    } else {
        emit_bytes(e, (const uint8_t[]){0x4d, 0x8d, 0xbf}, 3); // lea r15, [r15 - amount]
        emit32(e, (uint32_t)-amount);
    }
    if (m->flags == FLAGS_LATE)
        return;
    uint32_t idx = new_exit(m, (struct exit_record){.kind = EXIT_BUDGET, .pc = m->t->pc});
    uint8_t *field;
    if (m->flags == FLAGS_DIE) {
        field = emit_jcc(e, 8); // js
    } else {
        emit_store(e, &s->counter_copy, COUNTER);
        emit_store(e, &s->spill[0], RCX);
        emit_bytes(e, (const uint8_t[]){0x0f, 0xb6, 0x0c, 0x25},
                   4); // movzx ecx, byte [counter_copy + 7]
        emit32(e, (uint32_t)(uintptr_t)&s->counter_copy + 7);
        emit_bytes(e, (const uint8_t[]){0xe3, 0x05}, 2); // jrcxz over the jump
        field = emit_jmp(e);
        emit_load(e, RCX, &s->spill[0]);
    }
    if (e->full || m->cold.full)
        return;
    patch_rel32(field, m->cold.at);
    struct emitter *c = &m->cold;
    if (m->flags == FLAGS_DIE) {
        emit_bytes(c, (const uint8_t[]){0x49, 0x81, 0xc7}, 3); // add r15, amount
    } else {
        emit_load(c, RCX, &s->spill[0]);
        emit_bytes(c, (const uint8_t[]){0x4d, 0x8d, 0xbf}, 3); // lea r15, [r15 + amount]
    }
    emit32(c, (uint32_t)amount);
    emit_exit(m, c, idx);
}

/* Counts an entry of the block, in index mode. */
static void emit_entry_count(struct block_maker *m)
{
    struct emitter *e = &m->hot;
    int32_t rel;
    if (m->flags == FLAGS_DIE) {
        emit_bytes(e, (const uint8_t[]){0x48, 0x83, 0x05}, 3); // add qword [rip + count], 1
        rel = (int32_t)((uint8_t *)m->t->count - (e->at + 5));
        emit32(e, (uint32_t)rel);
        emit8(e, 1);
        return;
    }
    for (int store = 0; store < 2; store++) {
        if (store)
            emit_mem(e, 8, 0x8d, SCRATCH, SCRATCH, NO_REG, 1, 1);
        emit_bytes(e, (const uint8_t[]){0x4c, store ? 0x89 : 0x8b, 0x1d},
                   3); // mov r11, [rip + count], and back
        rel = (int32_t)((uint8_t *)m->t->count - (e->at + 4));
        emit32(e, (uint32_t)rel);
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
        const ZydisDecodedInstruction *last = &m->insns[m->count - 1].z;
        struct exit_record x = {.kind = EXIT_INDIRECT};
        if (engine_keeps_calls(m->t->mode) && m->t->info.end == END_RET)
            x = (struct exit_record){.kind = EXIT_RETURN,
                                     .pc = 8 +
                                           (last->raw.imm[0].size ? last->raw.imm[0].value.u : 0)};
        emit_exit(m, e, new_exit(m, x));
        return;
    }
    emit_store(e, &s->spill[1], RDX);
    emit_store(e, &s->spill[2], RAX);
    emit_bytes(e, (const uint8_t[]){0x0f, 0xb7, 0xd1}, 3);       // movzx edx, cx
    emit_bytes(e, (const uint8_t[]){0x48, 0x8b, 0x04, 0xd5}, 4); // mov rax, [negated + rdx * 8]
    emit32(e, (uint32_t)(uintptr_t)m->t->table->negated);
    emit_store(e, &s->target, RCX);
    emit_bytes(e, (const uint8_t[]){0x48, 0x8d, 0x0c, 0x01}, 4); // lea rcx, [rcx + rax]
    if (m->flags == FLAGS_LATE) {                                // a negative count is a miss, too
        emit_bytes(e, (const uint8_t[]){0xc4, 0xc3, 0xfb, 0xf0, 0xc7, 44},
                   6); // rorx rax, r15, 44: its upper bits below
        emit_bytes(e, (const uint8_t[]){0x0f, 0xb7, 0xc0}, 3);       // movzx eax, ax
        emit_bytes(e, (const uint8_t[]){0x48, 0x8d, 0x0c, 0x01}, 4); // lea rcx, [rcx + rax]
    }
    emit_bytes(e, (const uint8_t[]){0xe3, 0x05}, 2); // jrcxz hit
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
    struct emitter *e = &m->hot;
    const ZydisDecodedOperand *op = &in->op[0];
    static const uint8_t rcx_spilled[4] = {RCX, NO_REG, NO_REG, NO_REG};
    if (op->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        unsigned reg = gpr_number(op->reg.value);
        if (is_stolen(m, reg)) {
            emit_load(e, RCX, guest_reg(m, reg));
        } else if (reg != RCX) {
            emit8(e, (uint8_t)(0x48 | (reg >= 8 ? 4 : 0))); // mov rcx, reg
            emit8(e, 0x89);
            emit8(e, (uint8_t)(0xc0 | (reg & 7) << 3 | RCX));
        }
        return;
    }
    unsigned base = gpr_number(op->mem.base), index = gpr_number(op->mem.index),
             scale = op->mem.scale ? op->mem.scale : 1;
    int32_t disp = (int32_t)displacement(op);
    if (!is_plain_address(in, op) || segment_operand(in) || is_stolen(m, base) ||
        is_stolen(m, index)) {
        emit_address(m, in, op, 0, 0, RCX);
        base = RCX;
        index = NO_REG;
        disp = 0;
    }
    add_point(m, idx, rcx_spilled, true);
    emit_mem(e, 8, 0x8b, RCX, base, index, scale, disp);
}

/* Pushes the guest's return address. target_loaded: RCX is in spill[0] at this point. */
static void emit_push_return(struct block_maker *m, unsigned idx, bool target_loaded)
{
    const struct insn *in = &m->insns[idx];
    struct emitter *e = &m->hot;
    uint64_t address = in->pc + in->z.length;
    const uint8_t spilled[4] = {target_loaded ? RCX : NO_REG, NO_REG, NO_REG, NO_REG};
    add_point(m, idx, spilled, true);
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
    bool branches = m->t->info.end != END_FALL;
    if (branches && m->t->mode >= ENGINE_LOG)
        emit_log_end(m, idx);
    else if (branches && m->t->mode == ENGINE_INDEX)
        emit_marks(m, idx);
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
            emit_bytes(e, (const uint8_t[]){0xb8, 0, 0, 0, 0},
                       5); // the transaction aborts, with no reason in EAX
        exit_to(m, emit_jmp(e), target);
        return;
    case END_CALL:
        emit_push_return(m, idx, false);
        if (engine_keeps_calls(m->t->mode))
            emit_call_entry(m);
        exit_to(m, emit_jmp(e), target);
        return;
    case END_RET: {
        int32_t more = in->z.raw.imm[0].size ? (int32_t)in->z.raw.imm[0].value.u : 0;
        emit_store(e, &s->spill[0], RCX);
        add_point(m, idx, nothing_spilled, true);
        emit8(e, 0x59); // pop rcx
        if (more)
            emit_mem(e, 8, 0x8d, RSP, RSP, NO_REG, 1, more);
        if (engine_keeps_calls(m->t->mode))
            emit_return_entry(m, 8 + more);
        emit_indirect(m);
        return;
    }
    case END_INDIRECT_JMP:
    case END_INDIRECT_CALL:
        emit_store(e, &s->spill[0], RCX);
        emit_load_target(m, idx);
        if (m->t->info.end == END_INDIRECT_CALL) {
            emit_push_return(m, idx, true);
            if (engine_keeps_calls(m->t->mode))
                emit_call_entry(m);
        }
        emit_indirect(m);
        return;
    default:
        exit_to(m, emit_jmp(e), next);
        return;
    }
}

/* --- blocks --- */

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
    m->t->indirect_entry = m->t->falls ? NULL : m->hot.at;
    if (!m->t->falls) {
        emit_load(&m->hot, RAX, &s->spill[2]);
        emit_load(&m->hot, RDX, &s->spill[1]);
        emit_load(&m->hot, RCX, &s->spill[0]);
    }
    m->t->entry = m->hot.at;
}

bool insn_is_rep(uint64_t pc, unsigned *size_out, bool *source_out, bool *dest_out)
{
    static struct insn in;
    uint64_t address;
    struct stop_rule rule = insn_decode(pc, &in, &address);
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
    insn_decode(pc, &in, &address);
    *reg_out = gpr_number(in.op[0].reg.value);
    *gs_out = in.z.mnemonic == ZYDIS_MNEMONIC_WRGSBASE;
    *wide_out = in.z.operand_width == 64;
}

uint16_t insn_prefix_len(const struct block_info *b, unsigned insns)
{
    static struct insn in;
    uint64_t pc = b->pc, address;
    for (unsigned i = 0; i < insns && pc < b->pc + b->byte_len; i++) {
        insn_decode(pc, &in, &address);
        pc += in.z.length;
    }
    return (uint16_t)(pc - b->pc);
}

static void make_stop(struct block_maker *m, const struct insn *in, const struct stop_rule *rule,
                      uint64_t address)
{
    struct translation *t = m->t;
    t->info.end = END_STOP;
    t->info.byte_len = in->z.length;
    uint32_t idx = new_exit(m, (struct exit_record){.kind = EXIT_STOP,
                                                    .pc = t->pc,
                                                    .stop = rule->reason,
                                                    .trap = rule->trap,
                                                    .insn_len = in->z.length,
                                                    .signo = (uint8_t)rule->signo,
                                                    .si_code = rule->code});
    t->exits[t->exit_count - 1].patch = (uint8_t *)(uintptr_t)address;
    emit_exit(m, &m->hot, idx);
}

/* What instructions do with the flags they begin with: 1: new values for all, before any is used;
 * -1: some are used; 0: neither, so far. `unwritten`: of the flags, those without a new value yet.
 */
static int use_of_flags(const struct insn *in, uint32_t *unwritten)
{
    uint32_t needed, written;
    flags_of(in, &needed, &written);
    if (needed & *unwritten)
        return -1;
    *unwritten &= ~written;
    return *unwritten == 0;
}

/* Do the flags get new values from `pc` on, before any is used, within the page and without
 * branches? */
static bool flags_die_at(uint64_t pc, uint32_t unwritten)
{
    static struct insn in;
    enum { MOST = 16 };
    uint64_t page = pc & ~(uint64_t)(PAGE_SIZE - 1), address;
    for (unsigned i = 0; i < MOST; i++) {
        if (insn_decode(pc, &in, &address).stops ||
            ((pc + in.z.length - 1) & ~(uint64_t)(PAGE_SIZE - 1)) != page)
            return false;
        int use = use_of_flags(&in, &unwritten);
        if (use)
            return use > 0;
        if (insn_end(&in) != END_FALL)
            return false;
        pc += in.z.length;
    }
    return false;
}

/* What the count may do with the flags. A look at the block that follows makes this one depend on
 * that code. */
static enum flags_at_start flags_at_start(struct block_maker *m, bool special)
{
    struct translation *t = m->t;
    uint32_t unwritten = FLAG_MASK;
    int use = 0;
    for (unsigned i = 0; i < m->count && !use; i++)
        use = use_of_flags(&m->insns[i], &unwritten);
    if (use > 0)
        return FLAGS_DIE;
    if (special || t->info.end == END_RET || t->info.end == END_INDIRECT_JMP ||
        t->info.end == END_INDIRECT_CALL)
        return FLAGS_LATE;
    const struct insn *last = &m->insns[m->count - 1];
    uint64_t next = t->insn_pc[m->count];
    if (t->info.end == END_JMP || t->info.end == END_CALL)
        next += (uint64_t)last->z.raw.imm[0].value.s;
    uint64_t page = next & ~(uint64_t)(PAGE_SIZE - 1), first = t->pc & ~(uint64_t)(PAGE_SIZE - 1);
    bool one_page = ((t->insn_pc[m->count] - 1) & ~(uint64_t)(PAGE_SIZE - 1)) == first;
    if (use < 0 || t->info.end == END_JCC || !(one_page || page == first) ||
        !flags_die_at(next, unwritten))
        return FLAGS_LIVE;
    if (page != first)
        t->also_page = page;
    return FLAGS_DIE;
}

/* Is it for the stack of calls that the run loop has to know of RSP behind the instruction? */
static bool switches_stacks(const struct translation *t, const struct insn *in)
{
    return engine_keeps_calls(t->mode) && rsp_effect_of(in) == RSP_SWITCHES &&
           !store_needs_range(in);
}

/* Has the run loop something to do behind the instruction? */
static bool is_special(const struct translation *t, const struct insn *in)
{
    enum x87_effect x87 = x87_effect_of(in);
    return x87 == X87_SHOWS || x87 == X87_LOADS || switches_stacks(t, in) ||
           (t->mode == ENGINE_INDEX && store_needs_range(in));
}

/* Decodes the instructions of the block. Returns true if its last one is special. */
static bool take_instructions(struct block_maker *m)
{
    struct translation *t = m->t;
    uint64_t pc = t->pc, address;
    bool special = false;
    while (m->count < t->max_insns && m->count < MAX_BLOCK_INSNS && !special) {
        if (m->count && is_break(t, pc))
            break;
        struct insn *in = &m->insns[m->count];
        struct stop_rule rule = insn_decode(pc, in, &address);
        if (rule.stops) {
            if (m->count == 0)
                make_stop(m, in, &rule, address);
            break;
        }
        t->insn_pc[m->count++] = pc;
        pc += in->z.length;
        t->info.end = (uint8_t)insn_end(in);
        if (t->info.end != END_FALL)
            break;
        special = is_special(t, in);
    }
    t->insn_pc[m->count] = pc;
    t->info.insn_count = (uint16_t)m->count;
    if (m->count)
        t->info.byte_len = (uint16_t)(pc - t->pc);
    t->info.ticks = t->info.end == END_JCC;
    return special;
}

/* The end of a block behind an instruction that shows or loads what the x87 unit did last, or, in
 * calls mode, sets RSP anew. */
static void emit_special_end(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    bool stack = switches_stacks(m->t, in);
    if (m->t->mode >= ENGINE_LOG)
        emit_logged(m, idx);
    else
        emit_copy(m, idx);
    emit_exit(m, &m->hot,
              new_exit(m, (struct exit_record){.kind = stack ? EXIT_STACK : EXIT_X87,
                                               .pc = in->pc + in->z.length,
                                               .insn_len = in->z.length}));
}

static void emit_block(struct block_maker *m, bool special)
{
    struct translation *t = m->t;
    bool index = t->mode == ENGINE_INDEX, log = t->mode >= ENGINE_LOG;
    m->flags = t->exact ? FLAGS_LIVE : flags_at_start(m, special); // an exact block keeps all flags
    if (log)
        plan_log(m);
    if (index)
        plan_marks(m);
    if (!t->exact)
        emit_count(m);
    if (index)
        emit_entry_count(m);
    if (log)
        emit_log_header(m);
    unsigned plain = t->info.end == END_FALL && !special ? m->count : m->count - 1;
    for (unsigned i = 0; i < plain; i++) {
        t->insn_host[i] = (uint32_t)(m->hot.at - t->hot);
        if (log)
            emit_logged(m, i);
        else if (index)
            emit_marked(m, i);
        else
            emit_copy(m, i);
    }
    if (plain < m->count)
        t->insn_host[plain] = (uint32_t)(m->hot.at - t->hot);
    if (special && index)
        emit_range_end(m, plain);
    else if (special)
        emit_special_end(m, plain);
    else
        emit_end(m);
}

void translate_block(struct translation *t)
{
    struct block_maker *m = &maker;
    m->t = t;
    m->hot = (struct emitter){.at = t->hot, .limit = t->hot_end};
    m->cold = (struct emitter){.at = t->cold, .limit = t->cold_end};
    m->count = 0;
    m->slots = 0;
    m->stolen = stolen_registers(t->mode);
    m->weaves = t->mode != ENGINE_COUNT;
    t->exit_count = 0;
    t->point_count = 0;
    t->record_len = 0;
    t->also_page = 0;
    t->info = (struct block_info){.pc = t->pc, .end = END_FALL};
    emit_indirect_entry(m);
    bool special = take_instructions(m);
    if (m->count)
        emit_block(m, special);
    t->hot_out = m->hot.at;
    t->cold_out = m->cold.at;
    t->no_room = m->hot.full || m->cold.full;
}
