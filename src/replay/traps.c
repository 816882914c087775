/* Instructions whose answers depend on the machine: they are given as the recording machine gave
 * them. */
#include "replay/replay_int.h"

#include "x86/x86.h"
#include "x86/xstate.h"

enum {
    CPU_NODE_SELECTOR = 0x7b,
    FLAG_ZF = 0x40
};                            /* Linux arch/x86/include/asm/segment.h:__CPUNODE_SEG */
enum { XINUSE_OFFSET = 512 }; /* XSTATE_BV in an XSAVE image */

/* General registers in the order of machine code. */
static const uint8_t ureg_of[16] = {UREG_RAX, UREG_RCX, UREG_RDX, UREG_RBX, UREG_RSP, UREG_RBP,
                                    UREG_RSI, UREG_RDI, UREG_R8,  UREG_R9,  UREG_R10, UREG_R11,
                                    UREG_R12, UREG_R13, UREG_R14, UREG_R15};

static struct err *fetch(struct task *task, uint8_t code[X86_MAX_LEN], size_t *len_out)
{
    struct err *e =
        worker_read(task->space->worker, task->regs.r[UREG_RIP], code, X86_MAX_LEN, len_out);
    if (e && err_kind(e) != ERR_FAULT)
        return e;
    err_free(e);
    return NULL;
}

/* Writes a register operand; 32-bit writes clear the upper half, 16-bit writes leave the rest
 * alone. */
static void set_operand(struct task *task, const struct x86_operand *op, uint64_t value)
{
    uint64_t *reg = &task->regs.r[ureg_of[op->start / 8 % 16]];
    if (op->len == 2)
        value = (*reg & ~0xffffull) | (value & 0xffff);
    else if (op->len == 4)
        value = (uint32_t)value;
    *reg = value;
}

/* The number of the CPU, as TSC_AUX and the limit of a segment tell it: the node, which Linux puts
 * above it, is not recorded and taken for 0. */
static struct err *cpu_number(const struct replay *r, const struct task *task, uint64_t *out)
{
    int32_t cpu = trace_header(r->trace)->bind_to_cpu;
    if (cpu < 0)
        return err_new(
            ERR_UNSUPPORTED,
            "the instruction at %#llx asks which CPU it runs on, and the recording does not tell",
            (unsigned long long)task->regs.r[UREG_RIP]);
    *out = (uint64_t)cpu;
    return NULL;
}

static struct err *decode(struct task *task, struct x86_insn *in, bool *decoded)
{
    uint8_t code[X86_MAX_LEN];
    size_t len;
    TRY(fetch(task, code, &len));
    *decoded = x86_decode(code, len, task->regs.r[UREG_RIP], in) && in->operand_count >= 1 &&
               in->operands[0].kind == X86_REGISTER;
    return NULL;
}

static struct err *answer_rdpid(struct replay *r, struct task *task, bool *answered)
{
    struct x86_insn in;
    uint64_t cpu = 0;
    TRY(decode(task, &in, answered));
    if (!*answered)
        return NULL;
    TRY(cpu_number(r, task, &cpu));
    set_operand(task, &in.operands[0], cpu);
    return NULL;
}

static struct err *read_selector(struct task *task, const struct x86_insn *in, unsigned operand,
                                 uint16_t *out)
{
    const struct x86_operand *op = &in->operands[operand];
    if (op->kind == X86_REGISTER) {
        *out = (uint16_t)task->regs.r[ureg_of[op->start / 8 % 16]];
        return NULL;
    }
    struct x86_run run = {.before = &task->regs, .after = &task->regs};
    struct x86_access accesses[X86_MAX_ACCESSES];
    if (x86_accesses(in, &run, accesses) < 1)
        return err_new(ERR_UNSUPPORTED, "a selector that is no operand");
    return space_read(task->space, accesses[0].addr, out, sizeof(*out));
}

/* lsl of the segment whose limit tells the CPU. Others depend on the recording machine's kernel. */
static struct err *answer_lsl(struct replay *r, struct task *task, bool *answered)
{
    struct x86_insn in;
    uint16_t selector;
    uint64_t cpu = 0;
    TRY(decode(task, &in, answered));
    if (!*answered)
        return NULL;
    TRY(read_selector(task, &in, 1, &selector));
    if ((selector | 3) != CPU_NODE_SELECTOR) {
        *answered = false;
        return NULL;
    }
    TRY(cpu_number(r, task, &cpu));
    set_operand(task, &in.operands[0], cpu);
    task->regs.r[UREG_EFLAGS] |= FLAG_ZF;
    return NULL;
}

/* Is the descriptor one that the program makes itself, by modify_ldt(2) or set_thread_area(2)?
 * Workers have none of these, and not all kernels load them. */
static bool is_own_descriptor(uint16_t selector)
{
    enum { LOCAL = 4, FIRST_TLS = 12, LAST_TLS = 14 }; // Linux arch/x86/include/asm/segment.h
    return selector & LOCAL || (selector >> 3 >= FIRST_TLS && selector >> 3 <= LAST_TLS);
}

/* lar, verr, verw: of the kernel's segments this machine's own answer, since those of Linux are the
 * same everywhere. */
static struct err *answer_rights(struct task *task, enum trap_insn which, bool *answered)
{
    uint8_t code[X86_MAX_LEN];
    size_t len;
    struct x86_insn in;
    uint16_t selector;
    uint32_t rights = 0;
    bool good;
    TRY(fetch(task, code, &len));
    if (!x86_decode(code, len, task->regs.r[UREG_RIP], &in) ||
        in.operand_count <= (which == TRAP_LAR))
        return NULL;
    TRY(read_selector(task, &in, which == TRAP_LAR, &selector));
    if (is_own_descriptor(selector))
        return NULL;
    if (which == TRAP_LAR)
        __asm__("lar %k2, %0" : "+r"(rights), "=@ccz"(good) : "r"(selector));
    else if (which == TRAP_VERR)
        __asm__("verr %1" : "=@ccz"(good) : "r"(selector));
    else
        __asm__("verw %1" : "=@ccz"(good) : "r"(selector));
    if (which == TRAP_LAR && good)
        set_operand(task, &in.operands[0], rights);
    task->regs.r[UREG_EFLAGS] =
        (task->regs.r[UREG_EFLAGS] & ~(uint64_t)FLAG_ZF) | (good ? FLAG_ZF : 0);
    *answered = true;
    return NULL;
}

static uint64_t recorded_xcr0(const struct trace *t)
{
    uint64_t value = trace_header(t)->xcr0;
    if (!value) {
        uint32_t leaf[4];
        trace_cpuid(t, 0xd, 0, leaf);
        value = (uint64_t)leaf[3] << 32 | leaf[0];
    }
    return value;
}

static struct err *answer_xgetbv(struct replay *r, struct task *task, bool *answered)
{
    uint64_t *reg = task->regs.r, value = recorded_xcr0(r->trace);
    uint32_t which = (uint32_t)reg[UREG_RCX];
    if (which > 1)
        return NULL; // it faults
    if (which == 1) {
        // The state in use (SDM 1, 13.6). PKRU always is, under Linux.
        struct xstate x;
        TRY(worker_get_xstate(task->space->worker, task->info.slot, &x));
        value &= load_u64(x.data + XINUSE_OFFSET) | 1u << 9;
    }
    reg[UREG_RAX] = (uint32_t)value;
    reg[UREG_RDX] = value >> 32;
    *answered = true;
    return NULL;
}

static struct err *answer_cpuid(struct replay *r, struct task *task, bool *answered)
{
    uint64_t *reg = task->regs.r;
    uint32_t out[4];
    if (trace_header(r->trace)->has_cpuid_faulting)
        return NULL; // then it is an event
    trace_cpuid(r->trace, (uint32_t)reg[UREG_RAX], (uint32_t)reg[UREG_RCX], out);
    reg[UREG_RAX] = out[0];
    reg[UREG_RBX] = out[1];
    reg[UREG_RCX] = out[2];
    reg[UREG_RDX] = out[3];
    *answered = true;
    return NULL;
}

struct err *answer_trap(struct replay *r, struct task *task, const struct engine_result *stop,
                        bool *answered)
{
    *answered = false;
    switch (stop->trap) {
    case TRAP_CPUID:
        TRY(answer_cpuid(r, task, answered));
        break;
    case TRAP_XGETBV:
        TRY(answer_xgetbv(r, task, answered));
        break;
    case TRAP_RDPID:
        TRY(answer_rdpid(r, task, answered));
        break;
    case TRAP_LSL:
        TRY(answer_lsl(r, task, answered));
        break;
    case TRAP_LAR:
    case TRAP_VERR:
    case TRAP_VERW:
        TRY(answer_rights(task, stop->trap, answered));
        break;
    default:
        break;
    }
    if (*answered)
        task->regs.r[UREG_RIP] += stop->insn_len;
    return NULL;
}

const char *describe_insn(struct task *task, char *out, size_t len)
{
    uint8_t code[X86_MAX_LEN];
    size_t code_len = 0;
    err_free(fetch(task, code, &code_len));
    return x86_format(code, code_len, task->regs.r[UREG_RIP], out, len);
}

/* --- instruction sets --- */

static void recorded_cpuid(void *ctx, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    trace_cpuid(ctx, leaf, subleaf, out);
}

/* Layouts of XSAVE images differ between vendors, and their lengths with what else a CPU has. */
static void compare_xsave(struct replay *r)
{
    uint64_t xcr0 = recorded_xcr0(r->trace);
    r->isa.xcr0 = xcr0;
    r->isa.emulates_xsave = xcr0 && xcr0 != xstate_xcr0();
    for (uint32_t i = XSTATE_AVX; i < ENGINE_COMPONENTS; i++) {
        uint32_t leaf[4];
        if (!(xcr0 >> i & 1))
            continue;
        trace_cpuid(r->trace, 0xd, i, leaf);
        r->isa.components[i] = (struct engine_component){
            .size = leaf[0], .offset = leaf[1], .aligned = leaf[2] >> 1 & 1};
        r->isa.emulates_xsave |= leaf[0] != xstate_component_len(i) || leaf[1] != xstate_offset(i);
    }
}

static void compare_isa(struct replay *r, const struct x86_isa *here)
{
    struct x86_isa recorded;
    x86_isa_of_cpu(recorded_cpuid, r->trace, recorded_xcr0(r->trace), &recorded);
    r->lacking = x86_isa_without(&recorded, here);
    if (x86_isa_has_avx512(&r->lacking)) { // then none of it is executed by this CPU
        struct x86_isa rest = *here;
        x86_isa_remove_avx512(&rest);
        r->lacking = x86_isa_without(&recorded, &rest);
        r->isa.emulates_avx512 = true;
    }
    memcpy(r->isa.lacking, r->lacking.bits, sizeof(r->isa.lacking));
    // With CPUID faulting the recorder may have hidden what the CPU has: then nothing is known to
    // be undefined.
    struct x86_isa undefined = {0};
    if (!trace_header(r->trace)->has_cpuid_faulting && trace_header(r->trace)->cpuid_count)
        undefined = x86_isa_without(here, &recorded);
    memcpy(r->isa.undefined, undefined.bits, sizeof(r->isa.undefined));
}

static void tell_images(struct replay *r)
{
    uint32_t leaf[4];
    trace_cpuid(r->trace, 7, 0, leaf);
    r->isa.x87_data_of_exceptions = leaf[1] >> 6 & 1;
    r->isa.x87_no_selectors = leaf[1] >> 13 & 1;
    trace_cpuid(r->trace, 0x80000001, 0, leaf);
    if (trace_header(r->trace)->cpuid_count)
        r->isa.mxcsr_mask = 0xffff | (leaf[2] >> 7 & 1) << 17; // MM goes with misaligned SSE: AMD
    r->isa.x87_saves_pending =
        trace_header(r->trace)->clear_fip_fdp; // rr clears where a CPU does so
}

void compare_cpus(struct replay *r)
{
    struct x86_isa here;
    x86_isa_of_host(&here);
    compare_isa(r, &here);
    compare_xsave(r);
    tell_images(r);
}

struct err *replay_hide_feature(struct replay *r, const char *feature)
{
    struct x86_isa here, all;
    x86_isa_of_host(&here);
    all = x86_isa_without(&here, &r->lacking);
    if (!x86_isa_remove(&all, feature))
        return err_new(ERR_NOT_FOUND, "no CPU feature is called %s", feature);
    compare_isa(r, &all);
    return NULL;
}

void replay_lacking(const struct replay *r, struct buf *out)
{
    struct x86_isa missed = r->lacking;
    if (r->isa.emulates_avx512)
        x86_isa_remove_avx512(&missed);
    x86_isa_names(&missed, out);
}

struct err *tell_machine(const struct replay *r, struct worker *w)
{
    const struct trace_header *h = trace_header(r->trace);
    TRY(worker_set_isa(w, &r->isa));
    if (h->has_cpuid_faulting || h->cpuid_count > WORKER_MAX_CPUID)
        return NULL; // then each CPUID is an event, or too many answers are left to answer_cpuid()
    VEC(struct worker_cpuid) table = {0};
    for (size_t i = 0; i < h->cpuid_count; i++) {
        const struct cpuid_record *c = &h->cpuid[i];
        vec_push(&table,
                 (struct worker_cpuid){c->eax_in, c->ecx_in, c->eax, c->ebx, c->ecx, c->edx});
    }
    struct err *e = worker_set_cpuid(w, table.items, table.count);
    vec_deinit(&table);
    return e;
}

bool replay_emulates_avx512(const struct replay *r)
{
    return r->isa.emulates_avx512;
}

const char *lacking_feature(const struct replay *r, struct task *task)
{
    uint8_t code[X86_MAX_LEN];
    size_t len = 0;
    err_free(fetch(task, code, &len));
    return x86_isa_of_insn(code, len, &r->lacking);
}
