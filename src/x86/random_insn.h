/* Random instructions, for tests that execute them on the bare CPU. */
#ifndef X86_RANDOM_INSN_H
#define X86_RANDOM_INSN_H

#include "base/random.h"

#include <Zydis/Zydis.h>
#include <stdbool.h>

/* R, X and B of a prefix: often set, so that the upper registers are met. */
static inline uint8_t random_extension_bits(uint64_t *state)
{
    return (uint8_t)((random_below(state, 100) < 60 ? 4 : 0) |
                     (random_below(state, 100) < 60 ? 2 : 0) |
                     (random_below(state, 100) < 60 ? 1 : 0));
}

/* True if a test can execute it: it neither leaves the program nor tells of the machine nor changes
 * how it runs. */
static inline bool random_harmless(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_VTX:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT:
    case ZYDIS_CATEGORY_RDWRFSGS:
    case ZYDIS_CATEGORY_RDRAND:
    case ZYDIS_CATEGORY_RDSEED:
    case ZYDIS_CATEGORY_RDPID:
    case ZYDIS_CATEGORY_RDPRU:
    case ZYDIS_CATEGORY_SGX:
    case ZYDIS_CATEGORY_CET:
    case ZYDIS_CATEGORY_UINTR:
    case ZYDIS_CATEGORY_AMX_TILE:
    case ZYDIS_CATEGORY_PKU:
    case ZYDIS_CATEGORY_UFMA:
        return false;
    default:
        break;
    }
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
    case ZYDIS_MNEMONIC_MONITORX:
    case ZYDIS_MNEMONIC_MWAITX:
    case ZYDIS_MNEMONIC_TPAUSE:
    case ZYDIS_MNEMONIC_UMWAIT:
    case ZYDIS_MNEMONIC_UMONITOR:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_CLZERO:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_XTEST:
    case ZYDIS_MNEMONIC_XEND:
    case ZYDIS_MNEMONIC_XABORT:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
        return false;
    default:
        break;
    }
    if (z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
        return false;
    for (unsigned i = 0; i < z->operand_count; i++) {
        if (op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && op[i].reg.value == ZYDIS_REGISTER_RSP &&
            op[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT &&
            (op[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            return false; // some virtual machines lose the program if they are interrupted while
                          // RSP is no address
        if (op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (op[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
            ZydisRegisterGetClass(op[i].reg.value) == ZYDIS_REGCLASS_SEGMENT)
            return false;
    }
    return true;
}

#endif
