/* Every instruction of AVX-512 that Zydis knows, in every form: it is emulated, or it is one of
 * those that are known not to be (evex_refused.h). Prints those. What the emulated ones compute is
 * compared with the CPU by engine_random_test. */
#include "worker/evex.h"
#include "worker/evex_refused.h"
#include "worker/insn.h"

#include <stdio.h>
#include <stdlib.h>

/* --- what the engine wants of its host, and does not use here --- */

void engine_host_fatal(const char *message)
{
    fprintf(stderr, "engine: %s\n", message);
    abort();
}

void engine_host_before_flush(void)
{
}

uint64_t engine_host_alias(uint64_t page, uint64_t behind)
{
    return 0;
}

bool engine_host_fetch(uint64_t addr)
{
    return false;
}

struct addr_range engine_host_region(uint64_t addr)
{
    return (struct addr_range){addr, addr + 1};
}

void engine_host_begun(const struct block_info *b, unsigned begun)
{
}

void *engine_host_alloc(size_t len)
{
    abort();
}

int engine_host_prot(uint64_t addr)
{
    return -1;
}

/* --- the walk --- */

enum { EMULATED = 1, REFUSED = 2 };
static uint8_t found[ZYDIS_MNEMONIC_MAX_VALUE + 1];
static unsigned wrong;

static void look_at(const ZydisDecoder *decoder, const uint8_t *code, size_t len)
{
    struct insn in = {0};
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(decoder, code, len, &in.z, in.op)) ||
        !evex_concerns(&in))
        return;
    if (strncmp(ZydisISASetGetString(in.z.meta.isa_set), "KNC", 3) ==
        0) // undefined on all CPUs that rr runs on
        return;
    memcpy(in.bytes, code, len);
    struct evex_insn prepared;
    bool refused = !evex_prepare(&in, &prepared);
    found[in.z.mnemonic] |= refused ? REFUSED : EMULATED;
    if (refused == evex_is_refused(&in.z))
        return;
    if (wrong++ < 20) {
        printf("%s is%s emulated:", ZydisMnemonicGetString(in.z.mnemonic), refused ? " not" : "");
        for (unsigned i = 0; i < in.z.length; i++)
            printf(" %02x", code[i]);
        printf("\n");
    }
}

/* Both forms of ModRM with all values of its reg field, and two immediates. */
static void look_at_operands(const ZydisDecoder *decoder, uint8_t *code, size_t len)
{
    static const uint8_t immediates[] = {0x00, 0x35}; // vrndscale to integers, and not
    for (unsigned form = 0; form < 4; form++) {
        for (unsigned reg = 0; reg < 8; reg++) {
            code[len] = (uint8_t)((form & 1 ? 0xc0 : 0) | reg << 3 | 4);
            code[len + 1] = form & 1 ? immediates[form >> 1]
                                     : 0x08; // SIB; with vectors for an index it is xmm1
            code[len + 2] = immediates[form >> 1];
            look_at(decoder, code, len + 3);
        }
    }
}

static void walk_evex(const ZydisDecoder *decoder)
{
    static const uint8_t maps[] = {1, 2, 3, 5, 6};
    for (unsigned m = 0; m < sizeof(maps); m++) {
        for (unsigned opcode = 0; opcode < 256; opcode++) {
            for (unsigned i = 0; i < 4 * 2 * 4 * 2 * 2;
                 i++) { // prefix, W, length or rounding, b, mask
                unsigned prefix = i & 3, w = i >> 2 & 1, length = i >> 3 & 3, b = i >> 5 & 1,
                         mask = i >> 6 & 1;
                uint8_t code[9] = {0x62, (uint8_t)(0xf0 | maps[m]),
                                   (uint8_t)(w << 7 | 0x74 | prefix),
                                   (uint8_t)(length << 5 | b << 4 | 8 | mask), (uint8_t)opcode};
                look_at_operands(decoder, code, 5);
                code[2] |= 0x78; // no register in vvvv
                look_at_operands(decoder, code, 5);
            }
        }
    }
}

static void walk_opmasks(const ZydisDecoder *decoder)
{
    for (unsigned map = 1; map <= 3; map++) {
        for (unsigned opcode = 0; opcode < 256; opcode++) {
            for (unsigned i = 0; i < 4 * 2 * 2 * 2; i++) { // prefix, W, L, vvvv
                uint8_t code[8] = {0xc4, (uint8_t)(0xe0 | map),
                                   (uint8_t)((i >> 2 & 1) << 7 | (i >> 4 & 1 ? 0x78 : 0x70) |
                                             (i >> 3 & 1) << 2 | (i & 3)),
                                   (uint8_t)opcode};
                look_at_operands(decoder, code, 4);
            }
        }
    }
}

int main(void)
{
    ZydisDecoder decoder;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    walk_evex(&decoder);
    walk_opmasks(&decoder);
    unsigned emulated = 0, refused = 0;
    for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        emulated += (found[m] & EMULATED) != 0;
        refused += (found[m] & REFUSED) != 0;
        if (found[m] & REFUSED)
            printf("%s%s\n", ZydisMnemonicGetString((ZydisMnemonic)m),
                   found[m] & EMULATED ? " (in part)" : "");
    }
    printf("these %u are not emulated, %u are; %u are not as they should be\n", refused, emulated,
           wrong);
    return wrong || !emulated;
}
