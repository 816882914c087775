#include "x86/isa.h"

#include <pthread.h>

#include <Zydis/Zydis.h>
#include <strings.h>

enum { EAX, EBX, ECX, EDX };
enum { XCR0_AVX = 6, XCR0_AVX512 = 0xe6, MAX_SETS = 15 };

/* A bit of cpuid, and the sets which it takes (SDM 2A, CPUID; AMD APM 3, appendix E). A set may
 * need several features: with vectors of less than 512 bits AVX512VL is one of them. Sets whose
 * instructions do nothing where they are unknown (CET, MPX, CLDEMOTE) are left out, and so are
 * those that the engine answers itself (RDRAND, RDTSCP, RDPID, FSGSBASE, RTM) and XSAVEOPT, which
 * rr hides. */
// clang-format off
static const struct feature {
    const char *name;
    uint32_t leaf, subleaf;
    uint8_t reg, bit, xcr0;
    uint8_t sets[MAX_SETS]; /* 0: no more */
} features[] = {
#define S(set) ZYDIS_ISA_SET_##set
    {"SSE3", 1, 0, ECX, 0, 0, {S(SSE3), S(SSE3X87)}},
    {"PCLMULQDQ", 1, 0, ECX, 1, 0, {S(PCLMULQDQ)}},
    {"SSSE3", 1, 0, ECX, 9, 0, {S(SSSE3), S(SSSE3MMX)}},
    {"FMA", 1, 0, ECX, 12, XCR0_AVX, {S(FMA)}},
    {"CMPXCHG16B", 1, 0, ECX, 13, 0, {S(CMPXCHG16B)}},
    {"SSE4_1", 1, 0, ECX, 19, 0, {S(SSE4)}},
    {"SSE4_2", 1, 0, ECX, 20, 0, {S(SSE42)}},
    {"MOVBE", 1, 0, ECX, 22, 0, {S(MOVBE)}},
    {"POPCNT", 1, 0, ECX, 23, 0, {S(POPCNT)}},
    {"AES", 1, 0, ECX, 25, 0, {S(AES), S(AVXAES)}},
    {"AVX", 1, 0, ECX, 28, XCR0_AVX, {S(AVX), S(AVXAES)}},
    {"F16C", 1, 0, ECX, 29, XCR0_AVX, {S(F16C)}},
    {"BMI1", 7, 0, EBX, 3, 0, {S(BMI1)}},
    {"AVX2", 7, 0, EBX, 5, XCR0_AVX, {S(AVX2), S(AVX2GATHER)}},
    {"BMI2", 7, 0, EBX, 8, 0, {S(BMI2)}},
    {"AVX512F", 7, 0, EBX, 16, XCR0_AVX512, {S(AVX512F_128), S(AVX512F_128N), S(AVX512F_256), S(AVX512F_512), S(AVX512F_KOP),
                                               S(AVX512F_SCALAR), S(AVX512_GFNI_128), S(AVX512_GFNI_256), S(AVX512_GFNI_512),
                                               S(AVX512_VAES_128), S(AVX512_VAES_256), S(AVX512_VAES_512),
                                               S(AVX512_VPCLMULQDQ_128), S(AVX512_VPCLMULQDQ_256), S(AVX512_VPCLMULQDQ_512)}},
    {"AVX512DQ", 7, 0, EBX, 17, XCR0_AVX512, {S(AVX512DQ_128), S(AVX512DQ_128N), S(AVX512DQ_256), S(AVX512DQ_512), S(AVX512DQ_KOP),
                                                S(AVX512DQ_SCALAR)}},
    {"ADX", 7, 0, EBX, 19, 0, {S(ADOX_ADCX)}},
    {"AVX512_IFMA", 7, 0, EBX, 21, XCR0_AVX512, {S(AVX512_IFMA_128), S(AVX512_IFMA_256), S(AVX512_IFMA_512)}},
    {"CLFLUSHOPT", 7, 0, EBX, 23, 0, {S(CLFLUSHOPT)}},
    {"CLWB", 7, 0, EBX, 24, 0, {S(CLWB)}},
    {"AVX512PF", 7, 0, EBX, 26, XCR0_AVX512, {S(AVX512PF_512)}},
    {"AVX512ER", 7, 0, EBX, 27, XCR0_AVX512, {S(AVX512ER_512), S(AVX512ER_SCALAR)}},
    {"AVX512CD", 7, 0, EBX, 28, XCR0_AVX512, {S(AVX512CD_128), S(AVX512CD_256), S(AVX512CD_512)}},
    {"SHA", 7, 0, EBX, 29, 0, {S(SHA)}},
    {"AVX512BW", 7, 0, EBX, 30, XCR0_AVX512, {S(AVX512BW_128), S(AVX512BW_128N), S(AVX512BW_256), S(AVX512BW_512), S(AVX512BW_KOP)}},
    {"AVX512VL", 7, 0, EBX, 31, XCR0_AVX512, {S(AVX512F_128), S(AVX512F_256), S(AVX512DQ_128), S(AVX512DQ_256), S(AVX512BW_128),
                                                S(AVX512BW_256), S(AVX512CD_128), S(AVX512CD_256)}},
    {"AVX512_VBMI", 7, 0, ECX, 1, XCR0_AVX512, {S(AVX512_VBMI_128), S(AVX512_VBMI_256), S(AVX512_VBMI_512)}},
    {"PKU", 7, 0, ECX, 4, 0, {S(PKU)}},
    {"WAITPKG", 7, 0, ECX, 5, 0, {S(WAITPKG)}},
    {"AVX512_VBMI2", 7, 0, ECX, 6, XCR0_AVX512, {S(AVX512_VBMI2_128), S(AVX512_VBMI2_256), S(AVX512_VBMI2_512)}},
    {"GFNI", 7, 0, ECX, 8, 0, {S(GFNI), S(AVX_GFNI), S(AVX512_GFNI_128), S(AVX512_GFNI_256), S(AVX512_GFNI_512)}},
    {"VAES", 7, 0, ECX, 9, XCR0_AVX, {S(VAES), S(AVX512_VAES_128), S(AVX512_VAES_256), S(AVX512_VAES_512)}},
    {"VPCLMULQDQ", 7, 0, ECX, 10, XCR0_AVX, {S(VPCLMULQDQ), S(AVX512_VPCLMULQDQ_128), S(AVX512_VPCLMULQDQ_256),
                                               S(AVX512_VPCLMULQDQ_512)}},
    {"AVX512_VNNI", 7, 0, ECX, 11, XCR0_AVX512, {S(AVX512_VNNI_128), S(AVX512_VNNI_256), S(AVX512_VNNI_512)}},
    {"AVX512_BITALG", 7, 0, ECX, 12, XCR0_AVX512, {S(AVX512_BITALG_128), S(AVX512_BITALG_256), S(AVX512_BITALG_512)}},
    {"AVX512_VPOPCNTDQ", 7, 0, ECX, 14, XCR0_AVX512, {S(AVX512_VPOPCNTDQ_128), S(AVX512_VPOPCNTDQ_256), S(AVX512_VPOPCNTDQ_512)}},
    {"MOVDIRI", 7, 0, ECX, 27, 0, {S(MOVDIR)}},
    {"AVX512_4VNNIW", 7, 0, EDX, 2, XCR0_AVX512, {S(AVX512_4VNNIW_512)}},
    {"AVX512_4FMAPS", 7, 0, EDX, 3, XCR0_AVX512, {S(AVX512_4FMAPS_512), S(AVX512_4FMAPS_SCALAR)}},
    {"AVX512_VP2INTERSECT", 7, 0, EDX, 8, XCR0_AVX512, {S(AVX512_VP2INTERSECT_128), S(AVX512_VP2INTERSECT_256),
                                                          S(AVX512_VP2INTERSECT_512)}},
    {"SERIALIZE", 7, 0, EDX, 14, 0, {S(SERIALIZE)}},
    {"AVX512_FP16", 7, 0, EDX, 23, XCR0_AVX512, {S(AVX512_FP16_128), S(AVX512_FP16_128N), S(AVX512_FP16_256), S(AVX512_FP16_512),
                                                   S(AVX512_FP16_SCALAR)}},
    {"AVX_VNNI", 7, 1, EAX, 4, XCR0_AVX, {S(AVX_VNNI)}},
    {"AVX512_BF16", 7, 1, EAX, 5, XCR0_AVX512, {S(AVX512_BF16_128), S(AVX512_BF16_256), S(AVX512_BF16_512)}},
    {"XSAVEC", 0xd, 1, EAX, 1, 0, {S(XSAVEC)}},
    {"LZCNT", 0x80000001, 0, ECX, 5, 0, {S(LZCNT)}},
    {"SSE4A", 0x80000001, 0, ECX, 6, 0, {S(SSE4A)}},
    {"XOP", 0x80000001, 0, ECX, 11, XCR0_AVX, {S(XOP)}},
    {"FMA4", 0x80000001, 0, ECX, 16, XCR0_AVX, {S(FMA4)}},
    {"TBM", 0x80000001, 0, ECX, 21, 0, {S(TBM)}},
    {"3DNOW", 0x80000001, 0, EDX, 31, 0, {S(AMD3DNOW)}},
#undef S
};
// clang-format on
enum { FEATURE_COUNT = sizeof(features) / sizeof(features[0]) };
_Static_assert(ZYDIS_ISA_SET_MAX_VALUE < 64 * X86_ISA_WORDS, "more instruction sets than bits");

static bool has(const struct x86_isa *isa, unsigned set)
{
    return isa->bits[set / 64] >> set % 64 & 1;
}

static void add_all(const struct feature *f, struct x86_isa *isa)
{
    for (unsigned i = 0; i < MAX_SETS && f->sets[i]; i++)
        isa->bits[f->sets[i] / 64] |= 1ull << f->sets[i] % 64;
}

static void remove_all(const struct feature *f, struct x86_isa *isa)
{
    for (unsigned i = 0; i < MAX_SETS && f->sets[i]; i++)
        isa->bits[f->sets[i] / 64] &= ~(1ull << f->sets[i] % 64);
}

void x86_isa_of_cpu(x86_cpuid *cpuid, void *ctx, uint64_t xcr0, struct x86_isa *out)
{
    *out = (struct x86_isa){0};
    for (size_t i = 0; i < FEATURE_COUNT; i++)
        add_all(&features[i], out);
    for (size_t i = 0; i < FEATURE_COUNT; i++) {
        const struct feature *f = &features[i];
        uint32_t answer[4];
        cpuid(ctx, f->leaf, f->subleaf, answer);
        if (!(answer[f->reg] >> f->bit & 1) || (xcr0 & f->xcr0) != f->xcr0)
            remove_all(f, out);
    }
}

static void host_cpuid(void *ctx, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    uint32_t highest, b, c, d;
    __asm__("cpuid" : "=a"(highest), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf & 0x80000000), "c"(0));
    out[EAX] = out[EBX] = out[ECX] = out[EDX] = 0;
    if (leaf <= highest)
        __asm__("cpuid"
                : "=a"(out[EAX]), "=b"(out[EBX]), "=c"(out[ECX]), "=d"(out[EDX])
                : "a"(leaf), "c"(subleaf));
}

static struct x86_isa host;
static pthread_once_t host_asked =
    PTHREAD_ONCE_INIT; /* in a virtual machine each CPUID costs tens of microseconds */

static void ask_host(void)
{
    uint32_t answer[4], low = 0, high = 0;
    host_cpuid(NULL, 1, 0, answer);
    if (answer[ECX] >> 27 & 1) // OSXSAVE
        __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    x86_isa_of_cpu(host_cpuid, NULL, (uint64_t)high << 32 | low, &host);
}

void x86_isa_of_host(struct x86_isa *out)
{
    pthread_once(&host_asked, ask_host);
    *out = host;
}

struct x86_isa x86_isa_without(const struct x86_isa *a, const struct x86_isa *b)
{
    struct x86_isa result;
    for (unsigned i = 0; i < X86_ISA_WORDS; i++)
        result.bits[i] = a->bits[i] & ~b->bits[i];
    return result;
}

bool x86_isa_is_empty(const struct x86_isa *isa)
{
    for (unsigned i = 0; i < X86_ISA_WORDS; i++) {
        if (isa->bits[i])
            return false;
    }
    return true;
}

bool x86_isa_remove(struct x86_isa *isa, const char *feature)
{
    for (size_t i = 0; i < FEATURE_COUNT; i++) {
        if (strcasecmp(features[i].name, feature) == 0) {
            remove_all(&features[i], isa);
            return true;
        }
    }
    return false;
}

static bool any_of(const struct feature *f, const struct x86_isa *isa)
{
    for (unsigned i = 0; i < MAX_SETS && f->sets[i]; i++) {
        if (has(isa, f->sets[i]))
            return true;
    }
    return false;
}

bool x86_isa_has_avx512(const struct x86_isa *lacking)
{
    static const uint8_t sets[] = {ZYDIS_ISA_SET_AVX512F_512, ZYDIS_ISA_SET_AVX512CD_512,
                                   ZYDIS_ISA_SET_AVX512BW_512, ZYDIS_ISA_SET_AVX512DQ_512,
                                   ZYDIS_ISA_SET_AVX512F_256};
    for (size_t i = 0; i < sizeof(sets); i++) {
        if (has(lacking, sets[i]))
            return true;
    }
    return false;
}

void x86_isa_remove_avx512(struct x86_isa *isa)
{
    for (size_t i = 0; i < FEATURE_COUNT; i++) {
        if (features[i].xcr0 == XCR0_AVX512)
            remove_all(&features[i], isa);
    }
}

void x86_isa_names(const struct x86_isa *isa, struct buf *out)
{
    const char *between = "";
    for (size_t i = 0; i < FEATURE_COUNT; i++) {
        if (any_of(&features[i], isa)) {
            buf_printf(out, "%s%s", between, features[i].name);
            between = ", ";
        }
    }
}

const char *x86_isa_of_insn(const uint8_t *code, size_t len, const struct x86_isa *isa)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction in;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, code, len, &in)) ||
        !has(isa, in.meta.isa_set))
        return NULL;
    for (size_t i = 0; i < FEATURE_COUNT; i++) {
        for (unsigned n = 0; n < MAX_SETS && features[i].sets[n]; n++) {
            if (features[i].sets[n] == in.meta.isa_set)
                return features[i].name;
        }
    }
    return NULL;
}
