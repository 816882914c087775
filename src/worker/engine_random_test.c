/* Random programs on the bare CPU and under the engine: all registers, flags, vector registers,
 * memory and faults must agree, and the log must name every byte of memory that changed.
 *
 * A program is a few random instructions that Zydis can decode, their memory operands led into a
 * small buffer by a `mov register, immediate` before each, and now and then a branch. It runs once
 * natively and once in each of: count and log mode, in counted and in exact blocks.
 *
 *     engine_random_test [near|far|evex [seed [programs]]]     far: code caches out of reach of RIP-relative operands; evex: AVX-512
 *                                                              is emulated (evex.h), and programs are rich in it
 *
 * Not tried: what faults with UMIP or leaves the program, state-saving instructions (they show the
 * host's FIP), segment loads, popf, string instructions with 32-bit addresses in FS and GS. */
#include "worker/engine.h"
#include "worker/evex_refused.h"

#include "base/random.h"
#include "x86/random_insn.h"

#include <Zydis/Zydis.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define CPU_AT    0x2f000000ull /* struct cpu; also in the assembly below */
#define BUFFER_AT 0x30000000ull
#define CODE_AT   0x31000000ull
enum {
    BUFFER_LEN = 16384,
    CODE_LEN = 65536,
    TARGET_AT = 8192,
    TARGET_LEN = 1024,
    MAX_CODE = 1024,
    END_AT = 32768
};

struct cpu {
    uint64_t gpr[16]; /* in the order of machine code */
    uint64_t flags, host_rsp, start, exit;
    uint8_t pad[4096 - 160];
    uint8_t vectors[4096], host_vectors[4096];
};
static struct cpu *const cpu = (struct cpu *)CPU_AT;
static uint8_t *const buffer = (uint8_t *)BUFFER_AT;
static uint8_t *code; /* a second mapping of the code, which the programs cannot write */

/* How a run ended. */
struct outcome {
    uint64_t gpr[16], flags, rip;
    int signo, si_code; /* 0: at the end of the program */
    uint64_t fault_addr, icount, ticks;
    uint8_t vectors[4096];
    uint8_t memory[BUFFER_LEN];
};

/* --- the bare CPU --- */

extern const char native_exit[], native_landing[];
void native_run(void);
__asm__(
    ".text\n"
    "native_run:\n"
    "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "    mov $-1, %eax; mov $-1, %edx\n"
    "    xsave64 0x2f002000\n"
    "    mov $-1, %eax; mov $-1, %edx\n"
    "    xrstor64 0x2f001000\n"
    "    mov %rsp, 0x2f000088\n"
    "    push 0x2f000080; popfq\n"
    "    mov 0x2f000000, %rax; mov 0x2f000008, %rcx; mov 0x2f000010, %rdx; mov 0x2f000018, %rbx\n"
    "    mov 0x2f000020, %rsp; mov 0x2f000028, %rbp; mov 0x2f000030, %rsi; mov 0x2f000038, %rdi\n"
    "    mov 0x2f000040, %r8; mov 0x2f000048, %r9; mov 0x2f000050, %r10; mov 0x2f000058, %r11\n"
    "    mov 0x2f000060, %r12; mov 0x2f000068, %r13; mov 0x2f000070, %r14; mov 0x2f000078, %r15\n"
    "    jmp *0x2f000090\n"
    "native_exit:\n"
    "    mov %rax, 0x2f000000; mov %rcx, 0x2f000008; mov %rdx, 0x2f000010; mov %rbx, 0x2f000018\n"
    "    mov %rsp, 0x2f000020; mov %rbp, 0x2f000028; mov %rsi, 0x2f000030; mov %rdi, 0x2f000038\n"
    "    mov %r8, 0x2f000040; mov %r9, 0x2f000048; mov %r10, 0x2f000050; mov %r11, 0x2f000058\n"
    "    mov %r12, 0x2f000060; mov %r13, 0x2f000068; mov %r14, 0x2f000070; mov %r15, 0x2f000078\n"
    "    mov 0x2f000088, %rsp\n"
    "    pushfq; pop 0x2f000080\n"
    "native_landing:\n"
    "    mov 0x2f000088, %rsp\n"
    "    cld\n"
    "    mov $-1, %eax; mov $-1, %edx\n"
    "    xsave64 0x2f001000\n"
    "    mov $-1, %eax; mov $-1, %edx\n"
    "    xrstor64 0x2f002000\n"
    "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "    ret\n");

static volatile bool native;
static struct outcome *native_outcome;
static void (*engine_handler)(int, siginfo_t *, void *);

static void on_signal(int signo, siginfo_t *info, void *context)
{
    if (!native) {
        engine_handler(signo, info, context);
        return;
    }
    static const int from[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                 REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                 REG_R12, REG_R13, REG_R14, REG_R15};
    ucontext_t *uc = context;
    for (int i = 0; i < 16; i++)
        cpu->gpr[i] = (uint64_t)uc->uc_mcontext.gregs[from[i]];
    cpu->flags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL];
    native_outcome->rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    native_outcome->signo = signo;
    native_outcome->si_code = info->si_code;
    native_outcome->fault_addr = (uint64_t)(uintptr_t)info->si_addr;
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)native_landing;
    uc->uc_mcontext.gregs[REG_RSP] = (greg_t)cpu->host_rsp;
    uc->uc_mcontext.gregs[REG_EFL] &= ~0x40400ll;
}

/* Puts this program's handler in front of the engine's. */
static void wrap_handlers(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    struct {
        void *handler;
        uint64_t flags;
        void *restorer;
        uint64_t mask;
    } action;
    for (size_t i = 0; i < 5; i++) {
        syscall(SYS_rt_sigaction, signals[i], NULL, &action, 8);
        *(void **)&engine_handler = action.handler;
        *(void (**)(int, siginfo_t *, void *)) & action.handler = on_signal;
        syscall(SYS_rt_sigaction, signals[i], &action, NULL, 8);
    }
}

/* --- hosting the engine --- */

static uint64_t this_seed;

void engine_host_fatal(const char *message)
{
    fprintf(stderr, "engine: %s, with seed %lu\n", message, this_seed);
    abort();
}

static uint64_t begun_insns; /* index mode: instructions begun, whatever became of them */

__attribute__((target("general-regs-only"))) static void note_count(const struct block_info *b,
                                                                    uint64_t count)
{
    begun_insns += count * b->insn_count;
}

void engine_host_before_flush(void)
{
    engine_take_counts(note_count);
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
    return (struct addr_range){addr & ~0xfffull, (addr | 0xfff) + 1};
}

__attribute__((target("general-regs-only"))) void engine_host_begun(const struct block_info *b,
                                                                    unsigned begun)
{
    (void)b;
    begun_insns += begun;
}

void *engine_host_alloc(size_t len)
{
    void *p =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        abort();
    return p;
}

int engine_host_prot(uint64_t addr)
{
    if (addr >= CODE_AT && addr < CODE_AT + CODE_LEN)
        return PROT_READ | PROT_EXEC; // the programs do not write it
    if (addr >= BUFFER_AT && addr < BUFFER_AT + BUFFER_LEN)
        return PROT_READ | PROT_WRITE;
    return -1;
}

/* --- random programs --- */

static uint64_t seed;

static uint64_t rnd(void)
{
    return next_random(&seed);
}

static uint64_t below(uint64_t n)
{
    return random_below(&seed, n);
}

static bool chance(unsigned percent)
{
    return below(100) < percent;
}

static ZydisDecoder decoder;
static uint8_t program[MAX_CODE];
static size_t program_len;
static uint64_t fs_base, gs_base;
static bool may_fault, uses_gs, emulates;

static void put(const void *bytes, size_t len)
{
    memcpy(program + program_len, bytes, len);
    program_len += len;
}

static void put_mov(unsigned reg, uint64_t v)
{
    uint8_t head[2] = {(uint8_t)(0x48 | (reg >= 8 ? 1 : 0)), (uint8_t)(0xb8 | (reg & 7))};
    put(head, 2);
    put(&v, 8);
}

static int gpr_of(ZydisRegister reg)
{
    ZydisRegister large = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
    return large >= ZYDIS_REGISTER_RAX && large <= ZYDIS_REGISTER_R15
               ? (int)(large - ZYDIS_REGISTER_RAX)
               : -1;
}

static uint8_t random_modrm(void)
{
    uint8_t mod = chance(30) ? 3 : (uint8_t)below(3);
    uint8_t reg = chance(50) ? (uint8_t)(6 + below(2)) : (uint8_t)below(8);
    uint8_t rm = chance(15)   ? 4
                 : chance(10) ? 5
                 : chance(50) ? (uint8_t)(6 + below(2))
                              : (uint8_t)below(8);
    return (uint8_t)(mod << 6 | reg << 3 | rm);
}

static void random_bytes(uint8_t *b)
{
    uint8_t *start = b;
    unsigned form = emulates && chance(70) ? (chance(10) ? 10u : 8u) : (unsigned)below(10);
    if (form == 10) { // of opmasks, for the most part
        bool shift = chance(20);
        *b++ = 0xc4;
        *b++ = shift ? 0xe3 : 0xe1;
        *b++ = (uint8_t)((rnd() & 0x87) | 0x40 | 8 * below(8));
        *b++ = (uint8_t)(shift        ? 0x30 + below(4)
                         : chance(40) ? 0x90 + below(10)
                                      : 0x40 + below(12));
        *b++ = chance(70) ? (uint8_t)(0xc0 | below(64)) : random_modrm();
        while (b < start + 24)
            *b++ = (uint8_t)rnd();
        return;
    }
    if (chance(2)) { // an address in an implied register, in FS or GS
        static const uint8_t opcodes[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xac, 0xad, 0xd7, 0x0f};
        *b++ = chance(50) ? 0x64 : 0x65;
        if (chance(50))
            *b++ = chance(50) ? 0xf2 : 0xf3;
        else if (chance(50))
            *b++ = 0x66;
        if (chance(50))
            *b++ = (uint8_t)(0x40 | below(16));
        *b = opcodes[below(sizeof(opcodes))];
        if (*b++ == 0x0f) { // maskmovq, maskmovdqu
            *b++ = 0xf7;
            *b++ = (uint8_t)(0xc0 | below(64));
        }
        while (b < start + 24)
            *b++ = (uint8_t)rnd();
        return;
    }
    if (form < 6) {
        if (chance(5))
            *b++ = 0x67;
        if (chance(6))
            *b++ = chance(50) ? 0x64 : 0x65;
        if (chance(4))
            *b++ = 0xf0;
        if (chance(20))
            *b++ = 0x66;
        if (chance(20))
            *b++ = chance(50) ? 0xf2 : 0xf3;
        if (chance(65))
            *b++ = (uint8_t)(0x40 | (chance(50) ? 8 : 0) | random_extension_bits(&seed));
        if (form >= 2)
            *b++ = 0x0f;
        if (form >= 4)
            *b++ = form == 4 ? 0x38 : 0x3a;
        *b++ = (uint8_t)rnd();
    } else if (form < 8) {
        if (chance(5))
            *b++ = 0x67;
        if (chance(40)) {
            *b++ = 0xc5;
            *b++ = (uint8_t)rnd();
        } else {
            *b++ = 0xc4;
            *b++ = (uint8_t)((7 & ~random_extension_bits(&seed)) << 5 | (1 + below(3)));
            *b++ = (uint8_t)(chance(40) ? (rnd() & 0x87) | 0x10 * below(2) | 8 * below(2) : rnd());
        }
        *b++ = (uint8_t)rnd();
    } else {
        static const uint8_t maps[] = {1, 2, 3, 5, 6};
        static const struct {
            uint8_t map, prefix,
                opcode; // computed by rules of their own: evex_parts.c and some of evex_ops.c
        } chosen[] = {{2, 1, 0x42}, {2, 1, 0x43}, {3, 1, 0x26}, {3, 1, 0x27}, {3, 1, 0x56},
                      {3, 1, 0x57}, {2, 1, 0x2c}, {2, 1, 0x2d}, {3, 1, 0x50}, {3, 1, 0x51},
                      {3, 1, 0x54}, {3, 1, 0x55}, {3, 1, 0x08}, {3, 1, 0x09}, {3, 1, 0x0a},
                      {3, 1, 0x0b}, {2, 1, 0xcf}, {3, 1, 0xce}, {3, 1, 0xcf}, {2, 3, 0x72},
                      {2, 2, 0x72}, {2, 2, 0x52}, {2, 3, 0x68}};
        unsigned n =
            emulates && chance(25) ? (unsigned)below(sizeof(chosen) / sizeof(chosen[0])) : 0xff;
        *b++ = 0x62;
        *b++ = (uint8_t)((7 & ~random_extension_bits(&seed)) << 5 | (chance(80) ? 0x10 : 0) |
                         (n < 0xff ? chosen[n].map : maps[below(chance(90) ? 3 : 5)]));
        *b++ = (uint8_t)(n < 0xff ? (rnd() & 0xf8) | 4 | chosen[n].prefix : rnd() | 4);
        *b++ = (uint8_t)(chance(50) ? rnd() & ~0x90 : rnd());
        *b++ = (uint8_t)(n < 0xff ? chosen[n].opcode : rnd());
    }
    *b++ = random_modrm();
    while (b < start + 24)
        *b++ = (uint8_t)rnd();
}

static bool wanted(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
    if (!random_harmless(z, op) || z->mnemonic == ZYDIS_MNEMONIC_MOVDIR64B)
        return false;
    for (unsigned i = 0; i < z->operand_count; i++) {
        if (op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            op[i].encoding == ZYDIS_OPERAND_ENCODING_NONE && z->address_width == 32 &&
            (op[i].mem.segment == ZYDIS_REGISTER_FS || op[i].mem.segment == ZYDIS_REGISTER_GS))
            return false; // the engine tells that it cannot
        if (op[i].type == ZYDIS_OPERAND_TYPE_MEMORY && op[i].mem.segment == ZYDIS_REGISTER_FS &&
            (op[i].mem.base == ZYDIS_REGISTER_RIP || op[i].mem.base == ZYDIS_REGISTER_EIP))
            return false; // cannot be led to the buffer
    }
    return true;
}

/* Leads the memory operands of the instruction in `b` to the buffer. */
static bool lead_operands(uint8_t *b, const ZydisDecodedInstruction *z,
                          const ZydisDecodedOperand *op)
{
    for (unsigned i = 0; i < z->operand_count; i++) {
        if (op[i].type != ZYDIS_OPERAND_TYPE_MEMORY ||
            (op[i].mem.base == ZYDIS_REGISTER_RIP || op[i].mem.base == ZYDIS_REGISTER_EIP))
            continue;
        const ZydisDecodedOperandMem *m = &op[i].mem;
        bool no_base = z->raw.modrm.mod == 0 && (z->raw.sib.base & 7) == 5 &&
                       (z->attributes & ZYDIS_ATTRIB_HAS_SIB) &&
                       op[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM; // Zydis 4.0 says R13D
        int64_t disp = no_base ? z->raw.disp.value : m->disp.has_displacement ? m->disp.value : 0;
        uint64_t target = BUFFER_AT + TARGET_AT + below(TARGET_LEN);
        if (chance(60))
            target &= ~63ull;
        if (emulates &&
            chance(10)) // across a border of pages; behind the last one nothing is mapped
            target = BUFFER_AT + (may_fault && chance(50) ? BUFFER_LEN : 12288) - below(80);
        int base = no_base ? -1 : gpr_of(m->base), index = gpr_of(m->index);
        uint64_t segment = m->segment == ZYDIS_REGISTER_FS   ? fs_base
                           : m->segment == ZYDIS_REGISTER_GS ? gs_base
                                                             : 0;
        uint64_t rest = target - segment - (uint64_t)disp;
        uint64_t index_value = below(16);
        if (base >= 0 && base == index) {
            put_mov((unsigned)base, rest / (1 + m->scale));
        } else if (base >= 0) {
            if (index >= 0)
                put_mov((unsigned)index, index_value);
            put_mov((unsigned)base, rest - (index >= 0 ? index_value * m->scale : 0));
        } else if (index >= 0) {
            put_mov((unsigned)index, rest / m->scale);
        } else if (z->raw.disp.size == 32) {
            uint32_t at = (uint32_t)(target - segment);
            memcpy(b + z->raw.disp.offset, &at, 4);
        }
    }
    if (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        put_mov(1, below(20));
    if (z->mnemonic == ZYDIS_MNEMONIC_BT || z->mnemonic == ZYDIS_MNEMONIC_BTS ||
        z->mnemonic == ZYDIS_MNEMONIC_BTR || z->mnemonic == ZYDIS_MNEMONIC_BTC) {
        int reg = op[1].type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_of(op[1].reg.value) : -1;
        bool in_address = op[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                          (gpr_of(op[0].mem.base) == reg || gpr_of(op[0].mem.index) == reg);
        if (in_address)
            return false; // would reach far
        if (reg >= 0)
            put_mov((unsigned)reg, below(4000) - 2000);
    }
    // Divisions that fit.
    if ((z->mnemonic == ZYDIS_MNEMONIC_DIV || z->mnemonic == ZYDIS_MNEMONIC_IDIV) && chance(60)) {
        put_mov(0, below(100));
        put_mov(2, 0);
    }
    return true;
}

static bool uses(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op,
                 ZydisRegister segment)
{
    for (unsigned i = 0; i < z->operand_count; i++) {
        if (op[i].type == ZYDIS_OPERAND_TYPE_MEMORY && op[i].mem.segment == segment)
            return true;
    }
    return false;
}

static void put_random_insn(void)
{
    for (;;) {
        uint8_t b[32];
        random_bytes(b);
        ZydisDecodedInstruction z;
        ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
        if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, b, 15, &z, op)) || !wanted(&z, op))
            continue;
        size_t before = program_len;
        // FS is this program's own thread area, which must not be written.
        bool astray = may_fault && chance(3) && !uses(&z, op, ZYDIS_REGISTER_FS);
        if (!astray && !lead_operands(b, &z, op)) {
            program_len = before;
            continue;
        }
        for (unsigned i = 0; i < z.operand_count; i++) {
            if (op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                (op[i].mem.base == ZYDIS_REGISTER_RIP || op[i].mem.base == ZYDIS_REGISTER_EIP)) {
                uint64_t segment = op[i].mem.segment == ZYDIS_REGISTER_GS ? gs_base : 0;
                int32_t rel = (int32_t)(BUFFER_AT + TARGET_AT + below(TARGET_LEN) / 64 * 64 -
                                        (CODE_AT + program_len + z.length) - segment);
                memcpy(b + z.raw.disp.offset, &rel, 4);
            }
        }
        uses_gs |= uses(&z, op, ZYDIS_REGISTER_GS);
        put(b, z.length);
        return;
    }
}

/* A branch; whatever it does, execution goes on at the program's end as it is then. */
static void put_branch(void)
{
    static const uint8_t skipped[] = {0x4d, 0x8d, 0x64, 0x24, 0x01}; // lea r12, [r12 + 1]
    unsigned reg = (unsigned)below(16);
    if (reg == 4)
        reg = 15;
    uint8_t rex = (uint8_t)(0x41), low = reg & 7;
    uint64_t slot = BUFFER_AT + TARGET_AT + 512;
    switch (below(10)) {
    case 0: { // jcc rel8
        uint8_t b[] = {(uint8_t)(0x70 | below(16)), sizeof(skipped)};
        put(b, 2);
        put(skipped, sizeof(skipped));
        break;
    }
    case 1: { // jcc rel32
        uint8_t b[] = {0x0f, (uint8_t)(0x80 | below(16)), sizeof(skipped), 0, 0, 0};
        put(b, 6);
        put(skipped, sizeof(skipped));
        break;
    }
    case 2: { // loop, loope, loopne, jrcxz
        uint8_t b[] = {0x67, (uint8_t)(0xe0 | below(4)), sizeof(skipped)};
        if (chance(50))
            put_mov(1, below(3));
        unsigned skip = chance(80);
        put(b + skip, 3 - skip);
        put(skipped, sizeof(skipped));
        break;
    }
    case 3: { // jmp
        uint8_t b[] = {0xeb, sizeof(skipped)};
        put(b, 2);
        put(skipped, sizeof(skipped));
        break;
    }
    case 4: { // call rel32
        uint8_t b[] = {0xe8, 0, 0, 0, 0};
        put_mov(4, slot + 16 * below(8));
        put(b, 5);
        break;
    }
    case 5: { // push; ret, ret imm16
        put_mov(4, slot);
        put_mov(0, CODE_AT + program_len + 10 + 1 + 3);
        uint8_t b[] = {0x50, 0xc2, (uint8_t)(8 * below(8)), 0};
        put(b, 4);
        break;
    }
    case 6: { // jmp or call reg
        bool call = chance(50);
        put_mov(4, slot);
        put_mov(reg, CODE_AT + program_len + 10 + (reg >= 8 ? 3 : 2));
        uint8_t b[] = {rex, 0xff, (uint8_t)((call ? 0xd0 : 0xe0) | low)};
        put(b + (reg >= 8 ? 0 : 1), reg >= 8 ? 3 : 2);
        break;
    }
    default: { // jmp or call through memory: [base + index + disp8], the same register twice or
               // two, or [rip + disp]
        bool call = chance(50), rip = chance(20);
        unsigned index = (unsigned)(chance(60) ? 14 + below(2) : below(16)), base = reg;
        if (index == 4)
            index = 3;
        if (rip) {
            put_mov(0, CODE_AT + program_len + 10 + 8 + 6 + 10);
            uint8_t store[] = {0x48, 0x89, 0x04, 0x25}; // mov [slot], rax
            put(store, 4);
            uint32_t at = (uint32_t)slot;
            put(&at, 4);
            put_mov(4, slot + 256);
            uint8_t b[] = {0xff, call ? 0x15 : 0x25};
            put(b, 2);
            int32_t rel = (int32_t)(slot - (CODE_AT + program_len + 4));
            put(&rel, 4);
            break;
        }
        // The target goes through RAX before the address registers are set.
        size_t setup = base == index ? 10 : 20;
        put_mov(0, CODE_AT + program_len + 10 + 8 + 10 + setup + 5);
        uint8_t store[] = {0x48, 0x89, 0x04, 0x25};
        put(store, 4);
        uint32_t at = (uint32_t)slot;
        put(&at, 4);
        put_mov(4, slot + 256);
        if (base == index) {
            put_mov(base, (slot - 16) / 2);
        } else {
            put_mov(base, slot - 16 - 40);
            put_mov(index, 40);
        }
        uint8_t b[] = {(uint8_t)(0x40 | (base >= 8 ? 1 : 0) | (index >= 8 ? 2 : 0)), 0xff,
                       (uint8_t)((call ? 0x50 : 0x60) | 4),
                       (uint8_t)((index & 7) << 3 | (base & 7)), 16};
        put(b, 5);
        break;
    }
    }
}

static void random_program(void)
{
    program_len = 0;
    may_fault = chance(20);
    uses_gs = false;
    size_t count = 1 + below(12);
    for (size_t i = 0; i < count; i++) {
        if (chance(12))
            put_branch();
        else
            put_random_insn();
    }
    // The end differs natively and under the engine: it is out of the programs' sight.
    int32_t rel = (int32_t)(END_AT - (program_len + 5));
    put("\xe9", 1);
    put(&rel, 4);
}

/* A double, or two floats, of moderate size, or special ones. */
static uint64_t random_numbers(void)
{
    switch (below(4)) {
    case 0:
        return 0x3ff0000040000000ull + below(1000);
    case 1:
        return (rnd() & 0x800fffffffffffffull) | (1023 - 20 + below(100)) << 52;
    case 2:
        return (rnd() & 0x807fffff807fffffull) | (127 - 20 + below(100)) << 23 |
               (127 - 20 + below(100)) << 55;
    default: {
        static const uint64_t special[] = {0x7ff0000000000000,
                                           0xfff0000000000000,
                                           0x7ff8000000000000,
                                           0x7ff0000000000001,
                                           1,
                                           0x8000000000000000,
                                           0x000fffffffffffff,
                                           0x7f8000007fc00000,
                                           0x7f800001ff800000,
                                           0x0000000100400000,
                                           0x43e0000000000000,
                                           0x5f0000004f800000,
                                           0xc3e0000000000000};
        return special[below(sizeof(special) / sizeof(special[0]))];
    }
    }
}

static void random_state(struct outcome *s)
{
    memset(s, 0, sizeof(*s));
    for (int i = 0; i < 16; i++) {
        unsigned kind = (unsigned)below(4);
        s->gpr[i] = kind == 0   ? rnd()
                    : kind == 1 ? below(64)
                    : kind == 2 ? BUFFER_AT + TARGET_AT + below(TARGET_LEN)
                                : rnd() >> 32;
    }
    s->gpr[4] = BUFFER_AT + TARGET_AT + 8 * below(64);
    s->flags = 0x202 | (rnd() & 0x8d5) | (chance(20) ? 0x400 : 0);
    for (int i = 0; i < BUFFER_LEN; i++)
        s->memory[i] = (uint8_t)rnd();
    for (int i = 0; i < 4096; i += 8) {
        uint64_t v = chance(50) ? rnd() : chance(50) ? random_numbers() : below(1000);
        memcpy(s->vectors + i, &v, 8);
    }
    // Legacy area: FCW, FSW, abridged FTW, FOP, FIP, FDP, MXCSR; then the xsave header.
    memset(s->vectors, 0, 32);
    uint16_t fcw = (uint16_t)(0x37f & ~(chance(20) ? 0xc00u : 0)), fsw = (uint16_t)(below(8) << 11);
    uint32_t mxcsr = 0x1f80 | (uint32_t)(below(4) << 13);
    if (chance(20)) // DAZ and FTZ
        mxcsr |= (uint32_t)(below(2) << 6 | below(2) << 15);
    memcpy(s->vectors, &fcw, 2);
    memcpy(s->vectors + 2, &fsw, 2);
    s->vectors[4] = (uint8_t)(chance(50) ? rnd() : 0);
    memcpy(s->vectors + 24, &mxcsr, 4);
    memset(s->vectors + 28, 0, 4);
    for (int i = 0; i < 8; i++)
        memset(s->vectors + 32 + 16 * i + 10, 0, 6);
    memset(s->vectors + 416, 0, 512 - 416 + 64);
    uint64_t features = 0xe7;
    memcpy(s->vectors + 512, &features, 8);
}

/* Makes images of the vector state comparable: initial components get their values, pointers of the
 * x87 unit (with what x87.c adds) go. */
static void normalise(uint8_t *v)
{
    uint64_t have;
    memcpy(&have, v + 512, 8);
    static const struct {
        int bit, off, len;
    } parts[] = {{0, 32, 128}, {1, 160, 256}, {2, 576, 256}, {5, 0, 64}, {6, 0, 512}, {7, 0, 1024}};
    if (!(have & 1)) {
        memset(v, 0, 24);
        v[0] = 0x7f;
        v[1] = 3;
    }
    memset(v + 5, 0, 19);
    memset(v + 28, 0, 4);
    for (size_t i = 0; i < 6; i++) {
        int off = parts[i].off;
        if (!off) {
            uint32_t a = 0xd, b, c = (uint32_t)parts[i].bit, d;
            static int offsets[8];
            if (!offsets[c]) {
                uint32_t leaf = c;
                __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(leaf), "=d"(d));
                offsets[parts[i].bit] = (int)b;
            }
            off = offsets[parts[i].bit];
        }
        if (!(have >> parts[i].bit & 1))
            memset(v + off, 0, (size_t)parts[i].len);
        if (parts[i].bit == 0) {
            for (int r = 0; r < 8; r++)
                memset(v + 32 + 16 * r + 10, 0, 6);
        }
    }
    memset(v + 416, 0, 512 - 416 + 64);
}

/* --- running --- */

#define SHADOW_BASE 0x500000000000ull

/* The CPU's GS base: the programs' for them, and for the engine what its marks go by. Setting it
 * takes microseconds. */
static void set_gs(uint64_t base)
{
    static uint64_t now;
    if (now != base)
        syscall(SYS_arch_prctl, 0x1001, base); // ARCH_SET_GS
    now = base;
}

static void run_native(const struct outcome *start, struct outcome *end)
{
    *end = *start;
    native_outcome = end;
    memcpy(code, program, program_len);
    memcpy(code + END_AT, (const uint8_t[]){0xff, 0x24, 0x25, 0x98, 0x00, 0x00, 0x2f},
           7); // jmp [cpu->exit]
    memcpy(buffer, start->memory, BUFFER_LEN);
    memcpy(cpu->gpr, start->gpr, sizeof(cpu->gpr));
    memcpy(cpu->vectors, start->vectors, sizeof(cpu->vectors));
    cpu->flags = start->flags;
    cpu->start = CODE_AT;
    cpu->exit = (uint64_t)(uintptr_t)native_exit;
    end->rip = CODE_AT + END_AT;
    set_gs(uses_gs ? gs_base : SHADOW_BASE);
    native = true;
    native_run();
    native = false;
    memcpy(end->gpr, cpu->gpr, sizeof(end->gpr));
    end->flags = cpu->flags & 0xcd5;
    memcpy(end->vectors, cpu->vectors, sizeof(end->vectors));
    memcpy(end->memory, buffer, BUFFER_LEN);
    normalise(end->vectors);
}

static const uint8_t ureg_of[16] = {UREG_RAX, UREG_RCX, UREG_RDX, UREG_RBX, UREG_RSP, UREG_RBP,
                                    UREG_RSI, UREG_RDI, UREG_R8,  UREG_R9,  UREG_R10, UREG_R11,
                                    UREG_R12, UREG_R13, UREG_R14, UREG_R15};

static uint8_t noted[BUFFER_LEN]; /* bytes the log says are written */
static uint64_t log_insns;
static bool log_strange;

static void note(uint64_t address, uint64_t len, bool exact)
{
    if (address - BUFFER_AT >= BUFFER_LEN || len > BUFFER_LEN - (address - BUFFER_AT)) {
        log_strange |= exact;
        return;
    }
    memset(noted + (address - BUFFER_AT), 1, len);
}

static uint8_t saved_log[65536];
static size_t saved_len[16];
static uint32_t saved_insns[16];
static unsigned saved_count;

/* The guest's vector registers are in the CPU here: no call of libc. */
__attribute__((target("general-regs-only"))) static bool
save_log(void *ctx, const uint8_t *log, size_t len, uint64_t icount, uint32_t last_insns)
{
    (void)ctx;
    (void)icount;
    uint8_t *to = saved_log;
    for (unsigned i = 0; i < saved_count; i++)
        to += saved_len[i];
    saved_len[saved_count] = len;
    saved_insns[saved_count++] = last_insns;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(log), "+c"(len)::"memory");
    return true;
}

static void read_log(const uint8_t *log, size_t len, uint32_t last_insns)
{
    const uint8_t *end = log + len;
    while (log < end) {
        uint32_t idx;
        memcpy(&idx, log, 4);
        const struct block_info *b = engine_block(idx);
        const uint64_t *slot = (const uint64_t *)(const void *)(log + 8);
        log += 8 + 8 * b->slot_count;
        uint32_t insns = log == end && last_insns != UINT32_MAX ? last_insns : b->insn_count;
        log_insns += insns;
        for (unsigned i = 0; i < b->access_count; i++) {
            const struct access_desc *s = &b->accesses[i];
            // A store that faulted may have been done in part.
            bool done = s->insn < insns;
            if (s->insn > insns)
                continue;
            switch (s->kind) {
            case STORE_REP:
                if (done && slot[0] <= slot[1])
                    note(slot[0], slot[1] - slot[0], true);
                else if (done)
                    note(slot[1] + s->size, slot[0] - slot[1], true);
                else
                    memset(noted, 1, sizeof(noted));
                slot += 2;
                break;
            case STORE_SCATTER:
                memset(noted, 1, sizeof(noted));
                slot++;
                break;
            case LOAD_PLAIN:
            case LOAD_MASKED:
            case LOAD_STATE:
            case LOAD_GATHER:
                slot++;
                break;
            case LOAD_REP:
                slot += 2;
                break;
            default:
                note(*slot++, s->size, s->kind == STORE_PLAIN && done);
            }
        }
    }
}

static void note_page(uint64_t page, const uint64_t granules[8])
{
    for (uint64_t i = 0; i < 512; i++) {
        if (granules[i / 64] >> i % 64 & 1)
            note(page + 8 * i, 8, true);
    }
}

static struct engine_task task;

static void run_engine(const struct outcome *start, struct outcome *end, enum engine_mode mode,
                       bool exact)
{
    memset(end, 0, sizeof(*end));
    begun_insns = 0;
    set_gs(SHADOW_BASE);
    memcpy(code + END_AT, "\x0f\x05", 2); // syscall
    engine_memory_changed(CODE_AT, MAX_CODE);
    memcpy(buffer, start->memory, BUFFER_LEN);
    for (int i = 0; i < 16; i++)
        task.regs.r[ureg_of[i]] = start->gpr[i];
    task.regs.r[UREG_RIP] = CODE_AT;
    task.regs.r[UREG_EFLAGS] = start->flags;
    task.regs.r[UREG_FS_BASE] = fs_base;
    task.regs.r[UREG_GS_BASE] = gs_base;
    engine_task_gone(&task);
    memcpy(task.xstate, start->vectors, sizeof(task.xstate));
    task.xstate_valid = true;
    memset(noted, 0, sizeof(noted));
    log_insns = 0;
    log_strange = false;
    struct engine_request q = {.mode = mode, .max_icount = exact ? 180 : UINT64_MAX};
    struct engine_result r;
    engine_run(&task, &q, &r);
    engine_sync_xstate(&task);
    const uint8_t *log = saved_log;
    for (unsigned i = 0; i < saved_count; log += saved_len[i++])
        read_log(log, saved_len[i], saved_insns[i]);
    saved_count = 0;
    if (mode == ENGINE_INDEX) {
        engine_take_marks(note_page);
        engine_take_counts(note_count);
        log_insns = begun_insns - 1; // the last one faulted, or is the system call at the end
    }
    for (int i = 0; i < 16; i++)
        end->gpr[i] = task.regs.r[ureg_of[i]];
    end->rip = task.regs.r[UREG_RIP];
    end->flags = task.regs.r[UREG_EFLAGS] & 0xcd5;
    end->icount = r.icount;
    end->ticks = r.ticks;
    memcpy(end->vectors, task.xstate, sizeof(end->vectors));
    memcpy(end->memory, buffer, BUFFER_LEN);
    normalise(end->vectors);
    if (r.reason == STOP_FAULT) {
        end->signo = r.signo;
        end->si_code = r.si_code;
        end->fault_addr = r.fault_addr;
    } else if (r.reason != STOP_SYSCALL) {
        end->signo = -(int)r.reason - 100;
    }
}

static void show_program(void)
{
    ZydisFormatter f;
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    for (size_t at = 0; at < program_len;) {
        ZydisDecodedInstruction z;
        ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
        char text[128];
        if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, program + at, program_len - at, &z, op)))
            return;
        ZydisFormatterFormatInstruction(&f, &z, op, z.operand_count_visible, text, sizeof(text),
                                        CODE_AT + at, NULL);
        printf("    %#llx %-50s", CODE_AT + at, text);
        for (int i = 0; i < z.length; i++)
            printf(" %02x", program[at + i]);
        printf("\n");
        at += z.length;
    }
}

static bool differs(const struct outcome *a, const struct outcome *b, bool exact)
{
    static const char *const names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    bool bad = false;
    for (int i = 0; i < 16; i++) {
        if (a->gpr[i] != b->gpr[i]) {
            printf("  %s: %#lx, engine %#lx\n", names[i], a->gpr[i], b->gpr[i]);
            bad = true;
        }
    }
    // In counted blocks flags that are dead at the start are not kept for a fault.
    uint64_t mask = a->signo && !exact ? 0x400 : 0xcd5;
    if ((a->flags ^ b->flags) & mask) {
        printf("  flags: %#lx, engine %#lx\n", a->flags, b->flags);
        bad = true;
    }
    if (a->rip != b->rip || a->signo != b->signo || a->si_code != b->si_code ||
        a->fault_addr != b->fault_addr) {
        printf("  rip %#lx signal %d code %d address %#lx, engine rip %#lx signal %d code %d "
               "address %#lx\n",
               a->rip, a->signo, a->si_code, a->fault_addr, b->rip, b->signo, b->si_code,
               b->fault_addr);
        bad = true;
    }
    for (int i = 0; i < 4096; i++) {
        if (a->vectors[i] != b->vectors[i]) {
            printf("  vector state at %d: %02x, engine %02x\n", i, a->vectors[i], b->vectors[i]);
            bad = true;
            break;
        }
    }
    for (int i = 0; i < BUFFER_LEN; i++) {
        if (a->memory[i] != b->memory[i]) {
            printf("  memory at %#llx: %02x, engine %02x\n", BUFFER_AT + i, a->memory[i],
                   b->memory[i]);
            bad = true;
            break;
        }
    }
    return bad;
}

static bool log_differs(const struct outcome *start, const struct outcome *end)
{
    for (int i = 0; i < BUFFER_LEN; i++) {
        if (start->memory[i] != end->memory[i] && !noted[i]) {
            printf("  the log misses a write to %#llx\n", BUFFER_AT + i);
            return true;
        }
    }
    if (log_strange && !end->signo && !may_fault) {
        printf("  the log has a write outside of the buffer\n");
        return true;
    }
    if (log_insns != end->icount) {
        printf("  the log has %lu instructions, the run %lu\n", log_insns, end->icount);
        return true;
    }
    return false;
}

static void map_at(uint64_t at, size_t len, int prot)
{
    if (mmap((void *)at, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) !=
        (void *)at) {
        perror("mmap");
        exit(1);
    }
}

enum variant { NEAR, FAR, EVEX, VARIANTS };
static const char *const variant_names[VARIANTS] = {"near", "far", "evex"};

/* The run ended at an instruction that is not emulated. False if it ought to be. */
static bool may_stop(const struct outcome *end)
{
    ZydisDecodedInstruction z;
    ZyanStatus status =
        ZydisDecoderDecodeInstruction(&decoder, NULL, program + (end->rip - CODE_AT), 15, &z);
    return ZYAN_SUCCESS(status) && evex_is_refused(&z);
}

static int test_programs(enum variant variant, uint64_t first_seed, unsigned long programs)
{
    bool far = variant == FAR;
    emulates = variant == EVEX;
    map_at(CPU_AT, sizeof(struct cpu), PROT_READ | PROT_WRITE);
    map_at(BUFFER_AT, BUFFER_LEN, PROT_READ | PROT_WRITE);
    int fd = memfd_create("code", 0);
    if (fd < 0 || ftruncate(fd, CODE_LEN) != 0 ||
        mmap((void *)CODE_AT, CODE_LEN, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED_NOREPLACE, fd,
             0) != (void *)CODE_AT ||
        (code = mmap(NULL, CODE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED) {
        perror("code");
        exit(1);
    }
    static struct engine_layout layout;
    layout.low_area = 0x25a00000; // no bit or two away from what programs compute
    layout.low_area_len = ENGINE_LOW_AREA_LEN;
    layout.log_area = 0x200000000000;
    static const struct addr_range used = {BUFFER_AT, BUFFER_AT + BUFFER_LEN};
    layout.used = &used;
    layout.used_count = 1;
    layout.shadow_base = SHADOW_BASE;
    layout.shadow_fd = memfd_create("marks", 0);
    if (ftruncate(layout.shadow_fd, ENGINE_SHADOW_LEN) != 0)
        exit(1);
    layout.cache_areas[0] = far ? (struct addr_range){0x300000000000, 0x300010000000}
                                : (struct addr_range){0x34000000, 0x3c000000};
    layout.cache_area_count = 1;
    engine_init(&layout);
    if (emulates)
        engine_set_isa(&(struct engine_isa){.emulates_avx512 = true});
    wrap_handlers();
    engine_set_consumer(save_log, NULL);
    syscall(SYS_arch_prctl, 0x1003, &fs_base); // ARCH_GET_FS
    gs_base = 0x12345678;
    set_gs(SHADOW_BASE);
    static struct outcome start, want, got;
    static const char *const modes[] = {"count", "count, exact", "calls", "calls, exact",
                                        "index", "index, exact", "log",   "log, exact",
                                        "loads", "loads, exact"};
    unsigned failures = 0;
    unsigned long faults = 0, stopped = 0;
    for (unsigned long i = 0; i < programs && failures < 20; i++) {
        this_seed = first_seed + i;
        seed = this_seed * 0x9e3779b97f4a7c15ull + 1;
        for (int k = 0; k < 4; k++)
            rnd();
        random_program();
        random_state(&start);
        run_native(&start, &want);
        faults += want.signo != 0;
        uint64_t icount = 0, ticks = 0;
        for (int mode = 0; mode < 2 * ENGINE_MODES; mode++) {
            run_engine(&start, &got, (enum engine_mode)(mode / 2), mode & 1);
            if (emulates && got.signo == -100 - STOP_UNSUPPORTED && may_stop(&got)) {
                stopped++;
                break;
            }
            bool bad = differs(&want, &got, mode & 1);
            if (mode / 2 >= ENGINE_INDEX)
                bad |= log_differs(&start, &got);
            if (mode && (icount != got.icount || ticks != got.ticks)) {
                printf("  counts %lu, %lu, now %lu, %lu\n", icount, ticks, got.icount, got.ticks);
                bad = true;
            }
            icount = got.icount;
            ticks = got.ticks;
            if (bad) {
                printf("^ seed %lu, %s, %s\n", this_seed, variant_names[variant], modes[mode]);
                show_program();
                failures++;
                break;
            }
        }
    }
    printf("%s: %lu programs from seed %lu, %lu faulted, %lu stopped at what is not emulated, %u "
           "failures\n",
           variant_names[variant], programs, first_seed, faults, stopped, failures);
    fflush(stdout);
    return failures != 0;
}

int main(int argc, char **argv)
{
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    uint64_t first_seed = argc > 2 ? strtoul(argv[2], NULL, 0) : 1;
    unsigned long programs = argc > 3 ? strtoul(argv[3], NULL, 0) : 10000;
    int failed = 0;
    for (int variant = 0; variant < VARIANTS; variant++) { // the engine starts once per process
        if (argc > 1 && strcmp(argv[1], variant_names[variant]) != 0)
            continue;
        if (variant == EVEX && !__builtin_cpu_supports("avx512bw")) {
            printf("evex: this CPU has no AVX-512 to compare with\n");
            continue;
        }
        pid_t child = fork();
        if (!child)
            _exit(test_programs((enum variant)variant, first_seed, programs));
        int status = 1;
        waitpid(child, &status, 0);
        failed |= status;
    }
    return failed != 0;
}
