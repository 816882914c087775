#include "worker/scatter.h"

#include "worker/insn.h"
#include "worker/vectors.h"

void scatter_elements(uint64_t pc, uint64_t base, const uint8_t *vectors,
                      void (*each)(uint64_t address, uint64_t len))
{
    static struct insn in;
    uint64_t fault;
    uint8_t index[VECTOR_LEN];
    if (insn_decode(pc, &in, &fault).stops)
        return;
    const ZydisDecodedOperand *op = memory_operand(&in, true);
    if (!op || op->mem.type != ZYDIS_MEMOP_TYPE_VSIB)
        return;
    vector_of_image(vectors, (unsigned)ZydisRegisterGetId(op->mem.index), index);
    unsigned width = 0, element = op->element_size / 8u;
    switch (in.z.mnemonic) {
    case ZYDIS_MNEMONIC_VPSCATTERQD:
    case ZYDIS_MNEMONIC_VPSCATTERQQ:
    case ZYDIS_MNEMONIC_VSCATTERQPS:
    case ZYDIS_MNEMONIC_VSCATTERQPD:
        width = 8;
        break;
    default:
        width = 4;
    }
    unsigned count =
        in.z.avx.vector_length / 8u / (element > width ? element : width); // Zydis 4.0 counts one
    for (unsigned i = 0; i < count; i++) {
        int64_t v = 0;
        int32_t narrow;
        if (width == 8) {
            __builtin_memcpy(&v, index + 8 * i, 8);
        } else {
            __builtin_memcpy(&narrow, index + 4 * i, 4);
            v = narrow;
        }
        each(base + (uint64_t)v * op->mem.scale, element);
    }
}
