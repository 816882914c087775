/* Where an execution's memory operands lie, and the registers that an instruction uses. */
#include "x86/x86_int.h"

#include <string.h>

unsigned x86_visible(const struct x86_insn *in, unsigned idx)
{
    for (unsigned i = 0; i < in->operand_count; i++) {
        if (in->operands[i].visible && idx-- == 0)
            return i;
    }
    return X86_NONE;
}

uint64_t x86_iterations(const struct x86_insn *in, const struct x86_run *run)
{
    if (!in->repeats)
        return 1;
    uint64_t before = x86_gpr(run->before, GPR_RCX),
             after = run->after ? x86_gpr(run->after, GPR_RCX) : 0;
    for (unsigned i = 0; i < in->operand_count; i++) {
        if (in->operands[i].kind == X86_MEMORY && in->operands[i].mem.address32)
            before = (uint32_t)before, after = (uint32_t)after;
    }
    return before - after;
}

static uint64_t cut(uint64_t v, unsigned len)
{
    return len >= 8 ? v : v & ((1ull << 8 * len) - 1);
}

static int64_t sign_extended(uint64_t v, unsigned len)
{
    unsigned shift = 64 - 8 * len;
    return (int64_t)(v << shift) >> shift;
}

/* The address without what differs between the elements of a gather. */
static gaddr plain_address(const struct x86_mem *m, const struct regs *regs)
{
    uint64_t at = (uint64_t)m->disp;
    if (m->base != X86_NONE)
        at += x86_gpr(regs, m->base);
    if (m->index != X86_NONE && m->how != X86_AT_VECTOR)
        at += cut(x86_gpr(regs, m->index), m->index_len) * m->scale;
    return at;
}

static gaddr finish_address(const struct x86_mem *m, const struct regs *regs, uint64_t at)
{
    if (m->address32)
        at = (uint32_t)at;
    if (m->segment)
        at += regs->r[m->segment == 1 ? UREG_FS_BASE : UREG_GS_BASE];
    return at;
}

/* Elements of a gather or scatter: those that the mask selects. */
static size_t vector_accesses(const struct x86_insn *in, const struct x86_run *run, unsigned idx,
                              struct x86_access *out)
{
    const struct x86_operand *op = &in->operands[idx];
    const struct x86_mem *m = &op->mem;
    unsigned element = x86_shapes[in->mnemonic].a,
             wide = element > m->index_len ? element : m->index_len;
    unsigned count = in->vector_len / wide;
    uint8_t mask[64], indices[64];
    const struct x86_operand *selector = in->mask ? NULL : &in->operands[x86_visible(in, 2)];
    unsigned mask_start = in->mask ? X86_MASK + 8u * in->mask : selector->start;
    struct x86_access any = {
        .reads = op->reads, .writes = op->writes, .maybe = true, .operand = (uint8_t)idx};
    out[0] = any;
    if (!run->registers || !run->registers(run->ctx, mask_start, in->mask ? 8 : 64, mask) ||
        !run->registers(run->ctx, X86_VECTOR + 64u * m->index, 64, indices))
        return 1;
    size_t n = 0;
    for (unsigned e = 0; e < count && n < X86_MAX_ACCESSES; e++) {
        bool on = in->mask ? mask[e / 8] >> e % 8 & 1 : mask[e * element + element - 1] >> 7;
        if (!on)
            continue;
        uint64_t index = 0;
        memcpy(&index, indices + e * m->index_len, m->index_len);
        uint64_t at =
            plain_address(m, run->before) + (uint64_t)sign_extended(index, m->index_len) * m->scale;
        out[n++] = (struct x86_access){.addr = finish_address(m, run->before, at),
                                       .len = element,
                                       .reads = op->reads,
                                       .writes = op->writes,
                                       .operand = (uint8_t)idx};
    }
    return n;
}

static size_t operand_accesses(const struct x86_insn *in, const struct x86_run *run, unsigned idx,
                               struct x86_access *out)
{
    const struct x86_operand *op = &in->operands[idx];
    const struct x86_mem *m = &op->mem;
    if (m->how == X86_AT_VECTOR)
        return vector_accesses(in, run, idx, out);
    uint64_t at = plain_address(m, run->before), len = op->len;
    bool maybe = false;
    switch (m->how) {
    case X86_AT_PUSH:
        at -= len;
        break;
    case X86_AT_POP_DEST:
        at += len;
        break;
    case X86_AT_STRING: {
        uint64_t n = x86_iterations(in, run);
        if (n == 0)
            return 0;
        if (run->before->r[UREG_EFLAGS] >> 10 & 1)
            at -= (n - 1) * len;
        len *= n;
        break;
    }
    case X86_AT_BIT: {
        const struct x86_operand *bit = &in->operands[x86_visible(in, 1)];
        int64_t number =
            sign_extended(cut(x86_gpr(run->before, bit->start / 8), bit->len), bit->len);
        at += (uint64_t)((number >> (bit->len == 2 ? 4 : bit->len == 4 ? 5 : 6)) * (int64_t)len);
        break;
    }
    case X86_AT_STATE:
        len = XSTATE_MAX;
        maybe = true;
        break;
    default:
        maybe = op->writes && (in->mask != 0 || x86_shapes[in->mnemonic].shape == SHAPE_MASK_MOVE ||
                               x86_shapes[in->mnemonic].shape == SHAPE_MASK_STORE);
        break;
    }
    *out = (struct x86_access){.addr = finish_address(m, run->before, at),
                               .len = len,
                               .reads = op->reads,
                               .writes = op->writes,
                               .maybe = maybe,
                               .operand = (uint8_t)idx};
    return 1;
}

size_t x86_accesses(const struct x86_insn *in, const struct x86_run *run,
                    struct x86_access out[X86_MAX_ACCESSES])
{
    size_t n = 0;
    for (unsigned i = 0; i < in->operand_count; i++) {
        struct x86_access some[X86_MAX_ACCESSES];
        size_t count = in->operands[i].kind == X86_MEMORY ? operand_accesses(in, run, i, some) : 0;
        for (size_t k = 0; k < count && n < X86_MAX_ACCESSES; k++)
            out[n++] = some[k];
    }
    return n;
}

/* --- registers --- */

static size_t add_span(struct x86_span *out, size_t n, unsigned start, unsigned len)
{
    for (size_t i = 0; i < n; i++) {
        if (start >= out[i].start && start + len <= out[i].start + out[i].len)
            return n;
        if (start <= out[i].start && start + len >= out[i].start + out[i].len) {
            out[i] = (struct x86_span){(uint16_t)start, (uint16_t)len};
            return n;
        }
    }
    if (n < X86_MAX_SPANS)
        out[n++] = (struct x86_span){(uint16_t)start, (uint16_t)len};
    return n;
}

static size_t add_flags(struct x86_span *out, size_t n, uint8_t flags)
{
    for (unsigned i = 0; i < X86_FLAG_COUNT;) {
        unsigned end = i;
        while (end < X86_FLAG_COUNT && flags >> end & 1)
            end++;
        if (end > i)
            n = add_span(out, n, X86_FLAGS + i, end - i);
        i = end + 1;
    }
    return n;
}

size_t x86_registers_read(const struct x86_insn *in, struct x86_span out[X86_MAX_SPANS])
{
    size_t n = 0;
    for (unsigned i = 0; i < in->operand_count; i++) {
        const struct x86_operand *op = &in->operands[i];
        if (op->kind == X86_REGISTER && op->reads)
            n = add_span(out, n, op->start, op->len);
        if (op->kind != X86_MEMORY && op->kind != X86_ADDRESS)
            continue;
        if (op->mem.base != X86_NONE)
            n = add_span(out, n, 8u * op->mem.base, 8);
        if (op->mem.index != X86_NONE && op->mem.how == X86_AT_VECTOR)
            n = add_span(out, n, X86_VECTOR + 64u * op->mem.index, in->vector_len);
        else if (op->mem.index != X86_NONE)
            n = add_span(out, n, 8u * op->mem.index, op->mem.index_len);
    }
    return add_flags(out, n, in->flags_read);
}

size_t x86_registers_written(const struct x86_insn *in, struct x86_span out[X86_MAX_SPANS])
{
    size_t n = 0;
    for (unsigned i = 0; i < in->operand_count; i++) {
        const struct x86_operand *op = &in->operands[i];
        if (op->kind == X86_REGISTER && op->writes)
            n = add_span(out, n, op->start, op->len + op->zeroed);
    }
    return add_flags(out, n, in->flags_written);
}
