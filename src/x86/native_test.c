/* What this room says of instructions against the CPU: random instructions in random states,
 * executed once.
 *
 *   untouched, copies, constants, signs   every byte of all registers and of memory must be as said
 *   computed bytes                        must come out the same when everything that is no input is changed
 *
 *     x86_native_test [seed [instructions]]
 *
 * Instructions that the CPU lacks or that fault are passed over. Not tried: control transfers,
 * system instructions, state areas (all these are in x86_test.c), string instructions in FS and GS. */
#include "x86/random_insn.h"
#include "x86/x86_int.h"

#include <Zydis/Zydis.h>

#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define CPU_AT    0x2f000000ull /* struct cpu; also in the assembly below */
#define BUFFER_AT 0x30000000ull
#define CODE_AT   0x31000000ull
enum { BUFFER_LEN = 8192, TARGET_AT = 3072, TARGET_LEN = 2048 };

struct cpu {
    uint64_t gpr[16]; /* in the order of machine code */
    uint64_t flags, host_rsp, start;
    uint8_t pad[4096 - 152];
    uint8_t vectors[4096], host_vectors[4096];
};
static struct cpu *const cpu = (struct cpu *)CPU_AT;
static uint8_t *const buffer = (uint8_t *)BUFFER_AT;
static uint8_t *code;

struct state {
    uint64_t gpr[16], flags;
    uint8_t vectors[4096];
    uint8_t memory[BUFFER_LEN];
};

void native_run(void);
extern const char native_exit[], native_landing[];
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

static volatile bool faulted;

static void on_signal(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    if (uc->uc_mcontext.gregs[REG_RIP] < (greg_t)CODE_AT ||
        uc->uc_mcontext.gregs[REG_RIP] > (greg_t)CODE_AT + 64) {
        signal(signo, SIG_DFL);
        return;
    }
    faulted = true;
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)native_landing;
    uc->uc_mcontext.gregs[REG_RSP] = (greg_t)cpu->host_rsp;
    uc->uc_mcontext.gregs[REG_EFL] &= ~0x40400ll;
}

static bool execute(const uint8_t *insn, size_t len, const struct state *before,
                    struct state *after)
{
    static const uint8_t jump[] = {0xff, 0x25, 0, 0, 0, 0};
    memcpy(cpu->gpr, before->gpr, sizeof(cpu->gpr));
    memcpy(cpu->vectors, before->vectors, 4096);
    memcpy(buffer, before->memory, BUFFER_LEN);
    cpu->flags = before->flags;
    cpu->start = CODE_AT;
    memcpy(code, insn, len);
    memcpy(code + len, jump, 6);
    uint64_t target = (uint64_t)(uintptr_t)native_exit;
    memcpy(code + len + 6, &target, 8);
    faulted = false;
    native_run();
    memcpy(after->gpr, cpu->gpr, sizeof(cpu->gpr));
    memcpy(after->vectors, cpu->vectors, 4096);
    memcpy(after->memory, buffer, BUFFER_LEN);
    after->flags = cpu->flags;
    return !faulted;
}

/* --- the register file in a state --- */

static unsigned ymm_at, mask_at, zmm_high_at,
    high_zmm_at; /* offsets in the XSAVE area; 0: the CPU has not got it */

static void find_offsets(void)
{
    unsigned a, b, c, d;
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    unsigned *const at[] = {[2] = &ymm_at, [5] = &mask_at, [6] = &zmm_high_at, [7] = &high_zmm_at};
    for (unsigned i = 2; i < 8; i++) {
        if (at[i] && low >> i & 1 && __get_cpuid_count(0xd, i, &a, &b, &c, &d))
            *at[i] = b;
    }
}

static uint8_t *vector_byte(struct state *s, unsigned reg, unsigned byte)
{
    if (reg >= 16)
        return high_zmm_at ? &s->vectors[high_zmm_at + 64 * (reg - 16) + byte] : NULL;
    if (byte < 16)
        return &s->vectors[160 + 16 * reg + byte];
    if (byte < 32)
        return ymm_at ? &s->vectors[ymm_at + 16 * reg + byte - 16] : NULL;
    return zmm_high_at ? &s->vectors[zmm_high_at + 32 * reg + byte - 32] : NULL;
}

/* A byte of the register file, or NULL: not in this CPU, or no byte of its own (flags). */
static uint8_t *register_byte(struct state *s, unsigned at)
{
    if (at < X86_RIP)
        return (uint8_t *)s->gpr + at;
    if (at >= X86_VECTOR && at < X86_MASK)
        return vector_byte(s, (at - X86_VECTOR) / 64, (at - X86_VECTOR) % 64);
    if (at >= X86_MASK && at < X86_X87)
        return mask_at ? &s->vectors[mask_at + at - X86_MASK] : NULL;
    if (at >= X86_X87 && at < X86_MXCSR) {
        unsigned top = s->vectors[3] >> 3 & 7; // the area holds st(0) first
        return &s->vectors[32 + 16 * (((at - X86_X87) / 10 - top) & 7) + (at - X86_X87) % 10];
    }
    if (at >= X86_MXCSR && at < X86_CONTROL)
        return &s->vectors[24 + at - X86_MXCSR];
    return NULL;
}

static bool byte_value(struct state *s, struct x86_place at, uint8_t *out)
{
    static const uint8_t bits[] = {0, 2, 4, 6, 7, 10, 11};
    if (at.memory) {
        if (at.at - BUFFER_AT >= BUFFER_LEN)
            return false;
        *out = s->memory[at.at - BUFFER_AT];
        return true;
    }
    if (at.at >= X86_FLAGS && at.at < X86_FLAGS + X86_OTHER_FLAGS) {
        *out = s->flags >> bits[at.at - X86_FLAGS] & 1;
        return true;
    }
    uint8_t *p = register_byte(s, (unsigned)at.at);
    if (!p)
        return false;
    *out = *p;
    return true;
}

static bool read_registers(void *ctx, unsigned start, unsigned len, uint8_t *out)
{
    for (unsigned i = 0; i < len; i++) {
        if (!byte_value(ctx, (struct x86_place){false, start + i}, &out[i]))
            out[i] = 0; // not in this CPU
    }
    return true;
}

static struct state before, after, changed, after_changed;

static bool read_memory(void *ctx, bool is_after, gaddr addr, unsigned len, uint8_t *out)
{
    for (unsigned i = 0; i < len; i++) {
        if (!byte_value(is_after ? &after : &before, (struct x86_place){true, addr + i}, &out[i]))
            return false;
    }
    return true;
}

static void to_regs(const struct state *s, struct regs *out)
{
    static const uint8_t uregs[] = {UREG_RAX, UREG_RCX, UREG_RDX, UREG_RBX, UREG_RSP, UREG_RBP,
                                    UREG_RSI, UREG_RDI, UREG_R8,  UREG_R9,  UREG_R10, UREG_R11,
                                    UREG_R12, UREG_R13, UREG_R14, UREG_R15};
    memset(out, 0, sizeof(*out));
    for (int i = 0; i < 16; i++)
        out->r[uregs[i]] = s->gpr[i];
    out->r[UREG_EFLAGS] = s->flags;
    out->r[UREG_RIP] = CODE_AT;
}

/* --- random things --- */

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

static void random_fill(uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)rnd();
}

static void random_state(struct state *s)
{
    for (int i = 0; i < 16; i++)
        s->gpr[i] = chance(20) ? below(80) : rnd() >> (chance(30) ? 32 : 0);
    s->flags = (rnd() & 0x8d5) | 0x202 | (chance(20) ? 0x400 : 0);
    memset(s->vectors, 0, 4096);
    uint32_t mxcsr = 0x1f80;
    uint16_t control = 0x37f;
    memcpy(s->vectors, &control, 2);
    memcpy(s->vectors + 24, &mxcsr, 4);
    s->vectors[4] = 0xff; // all x87 registers in use
    uint64_t components = 3 | (ymm_at ? 4 : 0) | (mask_at ? 0xe0 : 0);
    memcpy(s->vectors + 512, &components, 8);
    for (unsigned at = X86_VECTOR; at < X86_MXCSR; at++) {
        uint8_t *p = register_byte(s, at);
        if (p)
            *p = (uint8_t)rnd();
    }
    random_fill(s->memory, BUFFER_LEN);
    // Accumulators that equal what they are compared with.
    if (chance(40))
        memcpy(s->memory + TARGET_AT, &s->gpr[0], 8);
}

static void random_bytes(uint8_t *b)
{
    uint8_t *start = b;
    unsigned form = (unsigned)below(10);
    if (form < 6) {
        if (chance(5))
            *b++ = 0x67;
        if (chance(4))
            *b++ = 0xf0;
        if (chance(25))
            *b++ = 0x66;
        if (chance(25))
            *b++ = chance(50) ? 0xf2 : 0xf3;
        if (chance(50))
            *b++ = (uint8_t)(0x40 | (chance(50) ? 8 : 0) | random_extension_bits(&seed));
        if (form >= 2)
            *b++ = 0x0f;
        if (form >= 4)
            *b++ = form == 4 ? 0x38 : 0x3a;
        *b++ = (uint8_t)rnd();
    } else if (form < 8) {
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
        *b++ = 0x62;
        *b++ = (uint8_t)((7 & ~random_extension_bits(&seed)) << 5 | (chance(80) ? 0x10 : 0) |
                         maps[below(chance(90) ? 3 : 5)]);
        bool two_operands = chance(30); // vvvv has to be 15 then
        *b++ = (uint8_t)((rnd() & (two_operands ? 0x80 : 0xfc)) | (two_operands ? 0x78 : 0) | 4 |
                         (chance(60) ? 1 : rnd() & 3));
        *b++ = (uint8_t)((chance(50) ? rnd() & ~0x90 : rnd()) | (two_operands ? 8 : 0));
        *b++ = (uint8_t)rnd();
    }
    uint8_t mod = chance(50) ? 3 : (uint8_t)below(3);
    *b++ = (uint8_t)(mod << 6 | (rnd() & 0x3f));
    random_fill(b, (size_t)(start + 24 - b));
    if (chance(50)) // immediates that mean something
        b[0] = (uint8_t)(below(9) * 8);
}

static bool wanted(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
        return false;
    default:
        return random_harmless(z, op) &&
               !(z->attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS));
    }
}

/* Changes the state so that the memory operands lie within the buffer. False: cannot be. */
static bool lead_operands(const struct x86_insn *in, struct state *s, uint64_t *keep)
{
    s->gpr[GPR_RSP] = BUFFER_AT + TARGET_AT + 8 * below(100);
    *keep |= 1u << GPR_RSP;
    for (unsigned i = 0; i < in->operand_count; i++) {
        const struct x86_operand *o = &in->operands[i];
        const struct x86_mem *m = &o->mem;
        if (o->kind != X86_MEMORY)
            continue;
        uint64_t target =
            BUFFER_AT + TARGET_AT + (chance(70) ? below(TARGET_LEN) & ~63ull : below(TARGET_LEN));
        if (chance(30))
            target = BUFFER_AT + TARGET_AT;
        if (m->base == X86_NONE && m->index == X86_NONE)
            return false;
        if (m->how == X86_AT_VECTOR) {
            if (m->base == X86_NONE)
                return false;
            // Indices that are small.
            for (unsigned k = 0; k < 64; k++) {
                uint8_t *p = vector_byte(s, m->index, k);
                if (p)
                    *p = k % m->index_len ? 0 : (uint8_t)below(40);
            }
            s->gpr[m->base] = target - (uint64_t)m->disp;
            *keep |= 1u << m->base | 1ull << (16 + m->index);
            continue;
        }
        if (m->how == X86_AT_STRING) {
            s->gpr[m->base] = target + below(64);
            *keep |= 1u << m->base;
            continue;
        }
        uint64_t rest = target - (uint64_t)m->disp;
        if (m->index_len == 1) {
            s->gpr[m->base] = rest;
        } else if (m->base == m->index) {
            if (m->how == X86_AT_BIT)
                return false;
            s->gpr[m->base] = rest / (1u + m->scale);
        } else if (m->base != X86_NONE) {
            if (m->index != X86_NONE)
                s->gpr[m->index] = below(16);
            s->gpr[m->base] = rest - (m->index != X86_NONE ? s->gpr[m->index] * m->scale : 0);
        } else {
            s->gpr[m->index] = rest / m->scale;
        }
        *keep |=
            (m->base == X86_NONE ? 0 : 1u << m->base) | (m->index == X86_NONE ? 0 : 1u << m->index);
        if (m->how == X86_AT_BIT) {
            unsigned bit = in->operands[x86_visible(in, 1)].start / 8;
            if (bit == m->base || bit == m->index)
                return false;
            s->gpr[bit] = below(4000) - 2000;
            *keep |= 1u << bit;
        }
    }
    if (in->repeats) {
        s->gpr[GPR_RCX] = below(40);
        if (*keep & 1u << GPR_RSI && *keep & 1u << GPR_RDI && chance(60)) // overlap
            s->gpr[GPR_RDI] = s->gpr[GPR_RSI] + below(24) - 12;
        *keep |= 1u << GPR_RCX;
    }
    return s->gpr[GPR_RSP] >= BUFFER_AT && s->gpr[GPR_RSP] < BUFFER_AT + BUFFER_LEN;
}

/* --- checking --- */

static uint64_t checked[X86_UNKNOWN + 1];
static unsigned failures;

static void fail(const uint8_t *insn, const struct x86_insn *in, const char *what,
                 struct x86_place at, const struct x86_origin *o)
{
    char text[160], name[40];
    if (failures++ > 40)
        return;
    x86_format(insn, in->len, CODE_AT, text, sizeof(text));
    printf("%s [", text);
    for (unsigned i = 0; i < in->len; i++)
        printf("%02x", insn[i]);
    uint8_t b = 0, a = 0;
    byte_value(&before, at, &b);
    byte_value(&after, at, &a);
    if (at.memory)
        snprintf(name, sizeof(name), "memory +%#llx", (unsigned long long)(at.at - BUFFER_AT));
    else
        x86_register_name((unsigned)at.at, 1, name, sizeof(name));
    printf("]: %s: %s was %02x, is %02x, kind %u value %02x from %s %#llx\n", what, name, b, a,
           o->kind, o->value, o->from.memory ? "memory" : "register",
           (unsigned long long)o->from.at);
}

static void check_byte(const uint8_t *insn, const struct x86_insn *in, const struct x86_run *run,
                       struct x86_place at)
{
    uint8_t is, was, source;
    if (!byte_value(&before, at, &was) || !byte_value(&after, at, &is))
        return;
    // The mask of what is written must say at least as much as the answers for each byte.
    struct x86_origin o = {.kind = X86_UNTOUCHED};
    if (at.memory || in->written & x86_unit((unsigned)at.at) || chance(1))
        o = x86_origin_of(in, run, at);
    checked[o.kind]++;
    switch (o.kind) {
    case X86_UNTOUCHED:
        if (is != was)
            fail(insn, in, "changed", at, &o);
        break;
    case X86_COPY:
    case X86_SIGN:
        if (!byte_value(&before, o.from, &source))
            fail(insn, in, "no source", at, &o);
        else if (is != (o.kind == X86_COPY ? source : source & 0x80 ? 0xff : 0))
            fail(insn, in, o.kind == X86_COPY ? "no copy" : "no sign", at, &o);
        break;
    case X86_CONST:
        if (is != o.value)
            fail(insn, in, "no constant", at, &o);
        break;
    default:
        break;
    }
    if (o.kind != X86_UNTOUCHED && !at.memory && !(in->written & x86_unit((unsigned)at.at)))
        fail(insn, in, "not in the mask of what is written", at, &o);
}

static bool is_input(const struct x86_input *in, size_t n, struct x86_place at)
{
    for (size_t i = 0; i < n; i++) {
        if (in[i].from.memory == at.memory && at.at - in[i].from.at < in[i].len)
            return true;
    }
    return false;
}

/* Changes all that is no input of the byte, and looks whether it comes out the same. */
static void check_inputs(const uint8_t *insn, const struct x86_insn *in, const struct x86_run *run,
                         struct x86_place at, uint64_t keep)
{
    struct x86_input inputs[32];
    size_t n = x86_inputs_of(in, run, at, inputs, 32);
    random_state(&changed);
    for (unsigned r = 0; r < X86_RIP; r++) {
        if (keep >> r / 8 & 1 || is_input(inputs, n, (struct x86_place){false, r}))
            *register_byte(&changed, r) = *register_byte(&before, r);
    }
    for (unsigned r = X86_VECTOR; r < X86_MXCSR; r++) {
        uint8_t *p = register_byte(&changed, r);
        bool kept = (r < X86_MASK && keep >> (16 + (r - X86_VECTOR) / 64) & 1) ||
                    (r >= X86_MASK && r < X86_X87 && in->mask);
        if (p && (kept || is_input(inputs, n, (struct x86_place){false, r})))
            *p = *register_byte(&before, r);
    }
    for (unsigned m = 0; m < BUFFER_LEN; m++) {
        if (is_input(inputs, n, (struct x86_place){true, BUFFER_AT + m}))
            changed.memory[m] = before.memory[m];
    }
    static const uint8_t bits[] = {0, 2, 4, 6, 7, 10, 11};
    for (unsigned i = 0; i < X86_OTHER_FLAGS; i++) {
        if (i == X86_DF || is_input(inputs, n, (struct x86_place){false, X86_FLAGS + i}))
            changed.flags = (changed.flags & ~(1ull << bits[i])) | (before.flags & 1ull << bits[i]);
    }
    uint8_t was, is;
    if (!execute(insn, in->len, &changed, &after_changed) || !byte_value(&after, at, &was) ||
        !byte_value(&after_changed, at, &is))
        return;
    if (was != is) {
        struct x86_origin o = {.kind = X86_COMPUTED, .value = is};
        fail(insn, in, "depends on more", at, &o);
    }
}

int main(int argc, char **argv)
{
    ZydisDecoder decoder;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 20260101;
    uint64_t wanted_count = argc > 2 ? strtoull(argv[2], NULL, 0) : 20000, count = 0, faults = 0;
    int prot = PROT_READ | PROT_WRITE;
    if (mmap(cpu, sizeof(*cpu), prot, MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
            MAP_FAILED ||
        mmap(buffer, BUFFER_LEN, prot, MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
            MAP_FAILED ||
        (code = mmap((void *)CODE_AT, 4096, prot | PROT_EXEC,
                     MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) == MAP_FAILED) {
        puts("skipped: the addresses are taken");
        return 77;
    }
    static uint8_t stack[1 << 16];
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof(stack)}, NULL);
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (int i = 0; i < 5; i++)
        sigaction(signals[i],
                  &(struct sigaction){.sa_sigaction = on_signal,
                                      .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER},
                  NULL);
    find_offsets();
    while (count < wanted_count && failures < 40) {
        uint8_t b[32];
        struct x86_insn in;
        ZydisDecodedInstruction z;
        ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
        random_bytes(b);
        if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, b, X86_MAX_LEN, &z, op)) ||
            !wanted(&z, op) || !x86_decode(b, X86_MAX_LEN, CODE_AT, &in))
            continue;
        uint64_t keep = 0;
        random_state(&before);
        if (!lead_operands(&in, &before, &keep))
            continue;
        if (!execute(b, in.len, &before, &after)) {
            faults++;
            continue;
        }
        count++;
        struct regs regs_before, regs_after;
        to_regs(&before, &regs_before);
        to_regs(&after, &regs_after);
        struct x86_run run = {.before = &regs_before,
                              .after = &regs_after,
                              .ctx = &before,
                              .registers = read_registers,
                              .memory = read_memory};
        struct x86_place computed = {0};
        unsigned seen = 0;
        for (unsigned at = 0; at < X86_MXCSR; at++) {
            struct x86_place p = {false, at};
            check_byte(b, &in, &run, p);
            if (at < X86_X87 && in.written & x86_unit(at) &&
                x86_origin_of(&in, &run, p).kind == X86_COMPUTED && below(++seen) == 0)
                computed = p;
        }
        struct x86_access accesses[X86_MAX_ACCESSES];
        size_t access_count = x86_accesses(&in, &run, accesses);
        for (unsigned at = 0; at < BUFFER_LEN; at++) {
            struct x86_place p = {true, BUFFER_AT + at};
            bool written = false;
            for (size_t i = 0; i < access_count; i++)
                written |= accesses[i].writes && p.at - accesses[i].addr < accesses[i].len;
            if (!written && before.memory[at] == after.memory[at])
                continue;
            if (x86_origin_of(&in, &run, p).kind == X86_COMPUTED && below(++seen) == 0)
                computed = p;
            check_byte(b, &in, &run, p);
        }
        bool is_flag = !computed.memory && computed.at >= X86_FLAGS && computed.at < X86_VECTOR;
        if (seen && !(is_flag && z.cpu_flags && z.cpu_flags->undefined) &&
            z.meta.category != ZYDIS_CATEGORY_X87_ALU)
            check_inputs(b, &in, &run, computed, keep);
    }
    printf("%lu instructions (%lu more faulted); bytes untouched %lu, copied %lu, constant %lu, "
           "signs %lu, computed %lu, unknown %lu\n",
           count, faults, checked[X86_UNTOUCHED], checked[X86_COPY], checked[X86_CONST],
           checked[X86_SIGN], checked[X86_COMPUTED], checked[X86_UNKNOWN]);
    return failures != 0;
}
