/* For tests: which instructions of AVX-512 are not emulated. docs/replay.md has this list, too;
 * evex_test.c proves that it is all. */
#ifndef WORKER_EVEX_REFUSED_H
#define WORKER_EVEX_REFUSED_H

#include <Zydis/Zydis.h>

#include <string.h>

static inline bool evex_is_refused(const ZydisDecodedInstruction *z)
{
    static const char *const sets[] = {"AVX512_FP16", "AVX512_4FMAPS", "AVX512_4VNNI", "AVX512ER",
                                       "AVX512PF"};
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        if (strncmp(ZydisISASetGetString(z->meta.isa_set), sets[i], strlen(sets[i])) == 0)
            return true;
    }
    switch (z->mnemonic) { // approximations
    case ZYDIS_MNEMONIC_VRCP14PS:
    case ZYDIS_MNEMONIC_VRCP14PD:
    case ZYDIS_MNEMONIC_VRCP14SS:
    case ZYDIS_MNEMONIC_VRCP14SD:
    case ZYDIS_MNEMONIC_VRSQRT14PS:
    case ZYDIS_MNEMONIC_VRSQRT14PD:
    case ZYDIS_MNEMONIC_VRSQRT14SS:
    case ZYDIS_MNEMONIC_VRSQRT14SD:
        return true;
    default:
        return false;
    }
}

#endif
