/* Instruction sets: which ones a CPU has, and which one an instruction belongs to. */
#ifndef X86_ISA_H
#define X86_ISA_H

#include "base/buf.h"
#include "base/types.h"

/* A bit for each instruction set, by its number in the Zydis we are built with. Sets that no bit of
 * cpuid announces are in none. */
enum { X86_ISA_WORDS = 4 };
struct x86_isa {
    uint64_t bits[X86_ISA_WORDS];
};

/* cpuid as some CPU answers it: {eax, ebx, ecx, edx}. */
typedef void x86_cpuid(void *ctx, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

/** The sets that a CPU has and its kernel lets programs use (xcr0: its XCR0). */
void x86_isa_of_cpu(x86_cpuid *cpuid, void *ctx, uint64_t xcr0, struct x86_isa *out);
/** Those of the CPU that this runs on. */
void x86_isa_of_host(struct x86_isa *out);
/** What is in `a` and not in `b`. */
struct x86_isa x86_isa_without(const struct x86_isa *a, const struct x86_isa *b);
bool x86_isa_is_empty(const struct x86_isa *isa);
/** Takes all sets of a feature out, by its name in cpuid's description (case does not matter).
 * False: there is no such feature. */
bool x86_isa_remove(struct x86_isa *isa, const char *feature);
/** Does this, which one CPU lacks and another has, hold something of AVX-512 that all CPUs since
 * the second generation have with it (F, CD, BW, DQ, VL)? */
bool x86_isa_has_avx512(const struct x86_isa *lacking);
/** Takes all of AVX-512 out. */
void x86_isa_remove_avx512(struct x86_isa *isa);
/** Appends the names of features whose sets are in `isa`, with commas between them. */
void x86_isa_names(const struct x86_isa *isa, struct buf *out);
/** The first feature that the instruction needs and whose sets are in `isa`; NULL: none, or no
 * instruction. */
const char *x86_isa_of_insn(const uint8_t *code, size_t len, const struct x86_isa *isa);

#endif
