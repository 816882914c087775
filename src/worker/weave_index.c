/* What the index variant weaves into a block: marks of the memory it writes, and its calls and
 * returns.
 *
 * Marks. The shadow of address A is the byte at shadow_base + A / 8, 1 if any of these 8 bytes is
 * written; shadow_base is the CPU's GS base here. R14 ends in 3, which is what a shift by R14
 * shifts by, so a mark is
 *     lea r11, [address]; shrx r11, r11, r14; mov byte gs:[r11], 1
 * When a block's stores are marked within it does not matter, so those with the same registers in
 * their addresses are marked together, before the first of them: their first byte, every eighth,
 * and their last, each kind of remainder by 8 with an address of its own. RSP is taken for a
 * multiple of 8; where it may cease to be one there is a check:
 *     pdep r11, rsp, [7 << 12]; mov r11, [r11 + page]       faults if RSP & 7
 * and the run loop does with exact blocks, which take nothing for granted, until it is one again.
 *
 * Calls. An entry of the stack of calls (calls.h) begins at R14 - 3. A call writes one and goes on;
 * a return compares the last one's RSP with its own and leaves to the run loop if they differ. */
#include "worker/maker.h"

#include "worker/calls.h"
#include "worker/x87.h"

/* --- planning --- */

struct versions {
    uint8_t of[16];    /* how often each register was changed */
    int64_t rsp_moved; /* since its last version */
};

static struct mark_group *find_group(struct block_maker *m, const struct mark_group *like)
{
    for (unsigned i = m->group_count; i-- > 0;) {
        struct mark_group *g = &m->groups[i];
        if (g->base != like->base || g->index != like->index ||
            g->base_version != like->base_version || g->index_version != like->index_version ||
            (g->op == NULL) != (like->op == NULL))
            continue;
        if (g->op &&
            (g->op->mem.scale != like->op->mem.scale ||
             g->op->mem.segment != like->op->mem.segment || !is_plain_address(g->first, g->op) ||
             !is_plain_address(like->first, like->op)))
            continue;
        if (g->base == NO_REG && g->index == NO_REG &&
            !g->op) { // absolute: not too far from each other
            int64_t distance = g->stores[0].off - like->stores[0].off;
            if (distance < -(1 << 20) || distance > 1 << 20)
                continue;
        }
        return g;
    }
    return NULL;
}

static void add_store(struct block_maker *m, struct mark_group store)
{
    struct mark_group *g = find_group(m, &store);
    if (!g) {
        g = &m->groups[m->group_count++];
        *g = store;
        g->count = 0;
    }
    g->stores[g->count++] = store.stores[0];
}

static void add_stack_store(struct block_maker *m, unsigned idx, const struct versions *v,
                            int64_t off, unsigned len)
{
    add_store(m, (struct mark_group){.insn = (uint16_t)idx,
                                     .base = RSP,
                                     .index = NO_REG,
                                     .base_version = v->of[RSP],
                                     .rsp_moved = v->rsp_moved,
                                     .stores = {{v->rsp_moved + off, len}}});
}

bool store_needs_range(const struct insn *in)
{
    if (is_string_store(in))
        return is_rep(in);
    const ZydisDecodedOperand *op = memory_operand(in, true);
    return in->z.mnemonic == ZYDIS_MNEMONIC_ENTER ||
           (op && in->z.meta.category != ZYDIS_CATEGORY_PUSH &&
            (kind_of_store(in) == STORE_STATE || kind_of_store(in) == STORE_SCATTER));
}

static void plan_store(struct block_maker *m, unsigned idx, const struct versions *v)
{
    const struct insn *in = &m->insns[idx];
    if (in->z.meta.category == ZYDIS_CATEGORY_CALL || in->z.meta.category == ZYDIS_CATEGORY_PUSH) {
        unsigned len = in->z.operand_width == 16 ? 2 : 8;
        add_stack_store(m, idx, v, -(int64_t)len, len);
        return;
    }
    if (store_needs_range(in) || is_bit_string(in))
        return;
    const ZydisDecodedOperand *op = memory_operand(in, true);
    if (!op)
        return;
    uint32_t len = is_string_store(in) ? op->size / 8u : size_of_store(in, op);
    if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP) {
        if (op->mem.segment != ZYDIS_REGISTER_FS && op->mem.segment != ZYDIS_REGISTER_GS) {
            add_store(m, (struct mark_group){.insn = (uint16_t)idx,
                                             .base = NO_REG,
                                             .index = NO_REG,
                                             .stores = {{(int64_t)rip_address(in, op), len}}});
            return;
        }
    }
    unsigned base = gpr_number(op->mem.base), index = gpr_number(op->mem.index);
    bool segment = op->mem.segment == ZYDIS_REGISTER_FS || op->mem.segment == ZYDIS_REGISTER_GS;
    int64_t off = displacement(op) + popped_before(in, op);
    if (base == RSP && index == NO_REG && !segment && is_plain_address(in, op)) {
        add_stack_store(m, idx, v, off, len);
        return;
    }
    add_store(m, (struct mark_group){.insn = (uint16_t)idx,
                                     .base = (uint8_t)base,
                                     .index = (uint8_t)index,
                                     .first = in,
                                     .op = op,
                                     .base_version = base == NO_REG ? 0 : v->of[base],
                                     .index_version = index == NO_REG ? 0 : v->of[index],
                                     .rsp_moved = base == RSP ? v->rsp_moved : 0,
                                     .stores = {{off + (base == RSP ? v->rsp_moved : 0), len}}});
}

void plan_marks(struct block_maker *m)
{
    struct versions v = {0};
    m->group_count = 0;
    for (unsigned i = 0; i < m->count; i++) {
        const struct insn *in = &m->insns[i];
        plan_store(m, i, &v);
        uint32_t written = registers_written(in);
        if (written >> RSP & 1 && rsp_effect_of(in) == RSP_KEEPS) {
            v.rsp_moved += rsp_move_of(in);
            written &= ~(1u << RSP);
        }
        if (written >> RSP & 1)
            v.rsp_moved = 0;
        for (unsigned reg = 0; reg < 16; reg++)
            v.of[reg] = (uint8_t)(v.of[reg] + (written >> reg & 1));
    }
}

/* --- marks --- */

/* Marks the shadow bytes at R11 + `offs`, which rise. */
static void emit_bytes_of_ones(struct block_maker *m, const int32_t *offs, unsigned count)
{
    struct emitter *e = &m->hot;
    for (unsigned i = 0; i < count;) {
        unsigned run = 1;
        while (run < 4 && i + run < count && offs[i + run] == offs[i] + (int32_t)run)
            run++;
        unsigned len = run == 4 ? 4 : run >= 2 ? 2 : 1;
        if (len == 2)
            emit8(e, 0x66);
        emit_bytes(e, (const uint8_t[]){0x65, 0x41, len == 1 ? 0xc6 : 0xc7},
                   3); // mov gs:[r11 + off], ones
        if (offs[i] == 0) {
            emit8(e, 0x03);
        } else if (offs[i] < 128) {
            emit_bytes(e, (const uint8_t[]){0x43, (uint8_t)offs[i]}, 2);
        } else {
            emit8(e, 0x83);
            emit32(e, (uint32_t)offs[i]);
        }
        emit_bytes(e, (const uint8_t[]){1, 1, 1, 1}, len);
        i += len;
    }
}

static void emit_shift(struct block_maker *m)
{
    emit_bytes(&m->hot, (const uint8_t[]){0xc4, 0x42, 0x8b, 0xf7, 0xdb}, 5); // shrx r11, r11, r14
}

/* Loads the address that is `off` from the group's address without displacement. */
static void emit_group_address(struct block_maker *m, const struct mark_group *g, int64_t off)
{
    if (g->op)
        emit_address(m, g->first, g->op, off - g->rsp_moved - displacement(g->op), 0, SCRATCH);
    else
        emit_mem(&m->hot, 8, 0x8d, SCRATCH, RSP, NO_REG, 1, (int32_t)(off - g->rsp_moved));
}

/* Inserts into a rising list without doubles. */
static void insert(int64_t *list, unsigned *count, int64_t v)
{
    unsigned at = *count;
    while (at && list[at - 1] > v)
        at--;
    if (at && list[at - 1] == v)
        return;
    for (unsigned i = *count; i > at; i--)
        list[i] = list[i - 1];
    list[at] = v;
    ++*count;
}

static int64_t floor_div8(int64_t v)
{
    return v >> 3;
}

enum { MAX_POINTS = 512 };

/* Marks `count` granules, given by the offsets of addresses with the same remainder. known: the
 * address of offset 0 is known to be a multiple of 8. */
static void emit_class(struct block_maker *m, const struct mark_group *g, const int64_t *granules,
                       unsigned count, int64_t rest)
{
    int32_t offs[MAX_POINTS];
    for (unsigned i = 0; i < count; i++)
        offs[i] = (int32_t)(granules[i] - granules[0]);
    if (g->base == NO_REG && g->index == NO_REG && !g->op) {
        emit_imm64(&m->hot, SCRATCH, (uint64_t)granules[0]);
    } else {
        emit_group_address(m, g, granules[0] * 8 + rest);
        emit_shift(m);
    }
    emit_bytes_of_ones(m, offs, count);
}

static void emit_group(struct block_maker *m, const struct mark_group *g)
{
    static int64_t granules[MAX_POINTS];
    bool absolute = g->base == NO_REG && g->index == NO_REG && !g->op;
    bool aligned = absolute || (g->base == RSP && !g->op && !m->t->exact);
    for (int64_t rest = 0; rest < 8; rest++) {
        unsigned count = 0;
        for (unsigned i = 0; i < g->count; i++) {
            int64_t start = g->stores[i].off, last = start + g->stores[i].len - 1;
            for (int64_t at = start; at <= last && count < MAX_POINTS - 1; at += 8) {
                if (aligned ? rest == 0 : (at & 7) == rest)
                    insert(granules, &count, floor_div8(at));
            }
            if (count < MAX_POINTS - 1 && (aligned ? rest == 0 : (last & 7) == rest))
                insert(granules, &count, floor_div8(last));
        }
        if (count)
            emit_class(m, g, granules, count, rest);
    }
}

void emit_marks(struct block_maker *m, unsigned idx)
{
    bool said = false;
    for (unsigned i = 0; i < m->group_count; i++) {
        if (m->groups[i].insn != idx)
            continue;
        if (!said)
            add_point(m, idx, nothing_spilled, false);
        said = true;
        emit_group(m, &m->groups[i]);
    }
}

/* A store with a bit number in its address. */
static void emit_bit_string_marks(struct block_maker *m, const struct insn *in)
{
    const ZydisDecodedOperand *op = memory_operand(in, true);
    for (int end = 0; op && end < 2; end++) {
        emit_address(m, in, op, 0, 0, SCRATCH);
        emit_bit_offset(m, in);
        if (end)
            emit_mem(&m->hot, 8, 0x8d, SCRATCH, SCRATCH, NO_REG, 1, op->size / 8 - 1);
        emit_shift(m);
        emit_bytes_of_ones(m, (const int32_t[]){0}, 1);
    }
}

/* Faults if RSP is no multiple of 8, with instruction idx done. */
static void emit_alignment_check(struct block_maker *m, unsigned idx)
{
    struct emitter *e = &m->hot;
    emit_bytes(e, (const uint8_t[]){0xc4, 0x62, 0xdb, 0xf5, 0x1c, 0x25},
               6); // pdep r11, rsp, [alignment]
    emit32(e, (uint32_t)(uintptr_t)&m->t->state->alignment);
    add_point(m, idx + 1, nothing_spilled, false);
    emit_mem(e, 8, 0x8b, SCRATCH, SCRATCH, NO_REG, 1, (int32_t)m->t->alignment_page);
}

void emit_marked(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    emit_marks(m, idx);
    if (is_bit_string(in)) {
        add_point(m, idx, nothing_spilled, false);
        emit_bit_string_marks(m, in);
    }
    emit_copy(m, idx);
    if (rsp_effect_of(in) == RSP_ALIGNS && !m->t->exact)
        emit_alignment_check(m, idx);
}

/* --- stores that end a block --- */

void emit_range_end(struct block_maker *m, unsigned idx)
{
    const struct insn *in = &m->insns[idx];
    struct engine_state *s = m->t->state;
    enum x87_effect x87 = x87_effect_of(in);
    struct exit_record x = {.kind = x87 == X87_LOADS ? EXIT_X87 : EXIT_STACK,
                            .x87 = x87 == X87_SHOWS,
                            .pc = in->pc + in->z.length,
                            .insn_len = in->z.length};
    if (store_needs_range(in)) {
        const ZydisDecodedOperand *op = memory_operand(in, true);
        x.kind = EXIT_RANGE;
        if (is_string_store(in)) {
            x.range = RANGE_STRING;
            x.size = op->size / 8;
            emit_store(&m->hot, &s->range_start, RDI);
        } else if (in->z.mnemonic == ZYDIS_MNEMONIC_ENTER) {
            x.size = (uint16_t)(8 * (1 + (in->z.raw.imm[1].value.u & 31)));
            emit_mem(&m->hot, 8, 0x8d, SCRATCH, RSP, NO_REG, 1, -(int32_t)x.size);
            emit_store(&m->hot, &s->range_start, SCRATCH);
        } else {
            x.range = kind_of_store(in) == STORE_SCATTER ? RANGE_SCATTER : RANGE_FIXED;
            x.size = size_of_store(in, op);
            emit_address(m, in, op, 0, 0, SCRATCH);
            emit_store(&m->hot, &s->range_start, SCRATCH);
        }
    }
    emit_marks(m, idx);
    emit_copy(m, idx);
    emit_exit(m, &m->hot, new_exit(m, x));
}

/* --- calls --- */

void emit_call_entry(struct block_maker *m)
{
    struct emitter *e = &m->hot;
    emit_mem(e, 8, 0x89, RSP, WOVEN, NO_REG, 1, -CALLS_TAG + CALL_SP);
    emit_mem(e, 8, 0x89, COUNTER, WOVEN, NO_REG, 1, -CALLS_TAG + CALL_TIME);
    emit_mem(e, 8, 0xc7, 0, WOVEN, NO_REG, 1, -CALLS_TAG + CALL_BLOCK);
    emit32(e, m->t->block_idx);
    emit_mem(e, 8, 0x8d, WOVEN, WOVEN, NO_REG, 1, CALL_LEN);
}

void emit_return_entry(struct block_maker *m, int64_t popped)
{
    struct engine_state *s = m->t->state;
    struct emitter *e = &m->hot;
    emit_store(e, &s->target, RCX);
    if (m->t->exact)
        return;
    emit_mem(e, 8, 0x8b, RCX, WOVEN, NO_REG, 1, -CALLS_TAG - CALL_LEN + CALL_SP);
    emit_bytes(e, (const uint8_t[]){0x48, 0xf7, 0xd1}, 3); // not rcx
    emit_mem(e, 8, 0x8d, RCX, RSP, RCX, 1, (int32_t)(1 - popped));
    emit_bytes(e, (const uint8_t[]){0xe3, 0x05}, 2); // jrcxz over the jump: it is the last one
    uint8_t *other = emit_jmp(e);
    emit_mem(e, 8, 0x8d, WOVEN, WOVEN, NO_REG, 1, -CALL_LEN);
    emit_load(e, RCX, &s->target);
    if (e->full || m->cold.full)
        return;
    patch_rel32(other, m->cold.at);
    emit_load(&m->cold, RCX, &s->spill[0]);
    emit_exit(m, &m->cold,
              new_exit(m, (struct exit_record){.kind = EXIT_RETURN, .pc = (uint64_t)popped}));
}
