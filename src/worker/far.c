#include "worker/far.h"

#include "worker/code.h"

enum { USER_CS = 0x33, USER_SS = 0x2b, FLAG_TF = 0x100 };

static bool is_iret(const struct insn *in)
{
    return in->z.mnemonic == ZYDIS_MNEMONIC_IRETQ || in->z.mnemonic == ZYDIS_MNEMONIC_IRETD;
}

bool is_far_branch(const struct insn *in)
{
    if (in->z.operand_width == 16)
        return false;
    if (is_iret(in))
        return true;
    if (in->z.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
        return false;
    // JMP with REX.W has offsets of 64 bits on Intel's CPUs, and of 32 on AMD's.
    return in->z.meta.category == ZYDIS_CATEGORY_RET ||
           (in->z.meta.category == ZYDIS_CATEGORY_UNCOND_BR && in->z.operand_width == 32 &&
            memory_operand(in, false));
}

static bool is_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

static enum far_outcome load(uint64_t address, unsigned len, uint64_t *out, uint64_t *fault_out)
{
    *out = 0;
    if (!is_canonical(address))
        return FAR_UNSUPPORTED;
    *fault_out = address;
    return engine_load_from_guest(out, address, len) ? FAR_DONE : FAR_FAULTS;
}

/* SDM 2A, IRET: five values, also if no change of privilege asks for it. */
static enum far_outcome interrupt_return(struct engine_state *s, unsigned width, uint64_t *pc,
                                         uint64_t *fault_out)
{
    uint64_t popped[5];
    for (unsigned i = 0; i < 5; i++) {
        enum far_outcome outcome = load(s->regs[RSP] + i * width, width, &popped[i], fault_out);
        if (outcome != FAR_DONE)
            return outcome;
    }
    if ((uint16_t)popped[1] != USER_CS || (uint16_t)popped[4] != USER_SS || popped[2] & FLAG_TF ||
        !is_canonical(popped[0]))
        return FAR_UNSUPPORTED;
    *pc = popped[0];
    s->rflags = (popped[2] & USER_FLAGS) | FIXED_FLAGS;
    s->regs[RSP] = popped[3];
    return FAR_DONE;
}

static enum far_outcome jump(struct engine_state *s, const struct insn *in, uint64_t *pc,
                             uint64_t *fault_out)
{
    uint64_t target, selector, address = memory_address(s, in, memory_operand(in, false));
    enum far_outcome outcome = load(address, 4, &target, fault_out);
    if (outcome == FAR_DONE)
        outcome = load(address + 4, 2, &selector, fault_out);
    if (outcome != FAR_DONE)
        return outcome;
    if (selector != USER_CS)
        return FAR_UNSUPPORTED;
    *pc = target;
    return FAR_DONE;
}

static enum far_outcome far_return(struct engine_state *s, const struct insn *in, uint64_t *pc,
                                   uint64_t *fault_out)
{
    unsigned width = in->z.operand_width / 8;
    uint64_t target, selector;
    enum far_outcome outcome = load(s->regs[RSP], width, &target, fault_out);
    if (outcome == FAR_DONE)
        outcome = load(s->regs[RSP] + width, width, &selector, fault_out);
    if (outcome != FAR_DONE)
        return outcome;
    if ((uint16_t)selector != USER_CS || !is_canonical(target))
        return FAR_UNSUPPORTED;
    *pc = target;
    s->regs[RSP] += 2 * width + (in->z.raw.imm[0].size ? in->z.raw.imm[0].value.u : 0);
    return FAR_DONE;
}

enum far_outcome far_branch(struct engine_state *s, uint64_t *pc, uint64_t *fault_out)
{
    static struct insn in;
    uint64_t ignored;
    vectors_save();
    insn_decode(*pc, &in, &ignored);
    vectors_load();
    if (is_iret(&in))
        return interrupt_return(s, in.z.operand_width / 8, pc, fault_out);
    return in.z.meta.category == ZYDIS_CATEGORY_RET ? far_return(s, &in, pc, fault_out)
                                                    : jump(s, &in, pc, fault_out);
}
