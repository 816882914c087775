/* The run loop: finds or makes translations, enters them, and deals with every way out.
 *
 *      engine_run -> step -> enter stub -> [translated code, chained] -> leave stub -> handle_exit -> ...
 *                                              |  a signal: on_signal -> landing stub -> handle_fault
 *
 * Exactness. Counted blocks may trash flags that are dead at their start, so a state with exact
 * flags is only known at their end. The last CAREFUL instructions before any limit are therefore
 * run by exact blocks: cut translations without a count, one at a time. */
#include "worker/calls.h"
#include "worker/code.h"
#include "worker/evex.h"
#include "worker/far.h"
#include "worker/insn.h"
#include "worker/marks.h"
#include "worker/scatter.h"
#include "worker/syscalls.h"
#include "worker/x87.h"

#include "x86/xstate.h"

enum { CAREFUL = 2 * MAX_BLOCK_INSNS };

/* What the signal handler saw. */
struct fault {
    bool happened;
    int signo, code;
    uint64_t address, host_pc;
    uint64_t regs[16];
    uint64_t rflags;
};

static struct engine_layout layout;
static struct engine_state *state;
static uint8_t *enter_stub[ENGINE_MODES], *leave_stub[ENGINE_MODES], *evex_stub[ENGINE_MODES],
    *landing_stub;
static volatile struct fault fault;
static struct engine_task *loaded;  /* whose vector state is in the CPU */
static enum engine_mode entered;    /* mode of the code that runs */
static struct calls *running_calls; /* of the task that runs; NULL: they are not kept */
static uint8_t fresh_vectors[XSTATE_MAX] __attribute__((aligned(64)));
static log_consumer *consumer;
static void *consumer_ctx;
static uint64_t log_icount; /* instructions of this run before the first record in the log */
static bool consumer_stops;
static break_judge *judge;
static void *judge_ctx;

/* --- stubs --- */

static void emit_pops_and_ret(struct emitter *e)
{
    // cld; pop r15, r14, r13, r12, rbp, rbx; ret
    emit_bytes(
        e,
        (const uint8_t[]){0xfc, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3},
        12);
}

/* Where a register is while the engine has the CPU. NULL: the guest's is there already, and the
 * CPU's is of no account. */
static const void *home_of(unsigned reg, enum engine_mode mode)
{
    if (!(stolen_registers(mode) >> reg & 1))
        return &state->regs[reg];
    return reg == COUNTER ? &state->counter : reg == WOVEN ? &state->woven : NULL;
}

/* The guest's registers into the CPU, and on to state->resume. */
static void emit_enter(struct emitter *e, enum engine_mode mode)
{
    emit_bytes(e, (const uint8_t[]){0xff, 0x34, 0x25}, 3); // push [rflags]; popfq
    emit32(e, (uint32_t)(uintptr_t)&state->rflags);
    emit8(e, 0x9d);
    for (unsigned reg = RAX; reg <= R15; reg++) {
        const void *home = home_of(reg, mode);
        if (reg != RSP && home)
            emit_load(e, reg, home);
    }
    emit_load(e, RSP, &state->regs[RSP]);
    emit_jmp_abs(e, &state->resume);
}

/* The guest's registers out of the CPU, and the engine's stack. */
static void emit_leave(struct emitter *e, enum engine_mode mode)
{
    for (unsigned reg = RAX; reg <= R15; reg++) {
        const void *home = home_of(reg, mode);
        if (home)
            emit_store(e, home, reg);
    }
    emit_load(e, RSP, &state->host_rsp);
    emit_bytes(e, (const uint8_t[]){0x9c, 0x8f, 0x04, 0x25}, 4); // pushfq; pop [rflags]
    emit32(e, (uint32_t)(uintptr_t)&state->rflags);
    // The program may have its alignment checked, but the engine's accesses are not all aligned.
    emit_bytes(e, (const uint8_t[]){0xf7, 0x04, 0x25}, 3); // test dword [rflags], FLAG_AC
    emit32(e, (uint32_t)(uintptr_t)&state->rflags);
    emit32(e, FLAG_AC);
    emit_bytes(e, (const uint8_t[]){0x74, 0x03, 0x6a, FIXED_FLAGS & 0x7f, 0x9d},
               5); // jz +3; push; popfq
}

static void make_stubs(uint8_t *at, uint8_t *end)
{
    struct emitter e = {.at = at, .limit = end};
    for (int mode = 0; mode < ENGINE_MODES; mode++) {
        enter_stub[mode] = e.at;
        // push rbx, rbp, r12..r15
        emit_bytes(
            &e, (const uint8_t[]){0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57}, 10);
        emit_store(&e, &state->host_rsp, RSP);
        emit_enter(&e, mode);

        leave_stub[mode] = e.at;
        emit_leave(&e, mode);
        emit_pops_and_ret(&e);

        evex_stub[mode] = e.at;
        emit_leave(&e, mode);
        emit_bytes(&e, (const uint8_t[]){0xfc, 0x48, 0x83, 0xec, 0x08},
                   5); // cld; sub rsp, 8: calls begin at a multiple of 16
        emit_load(&e, RDI, &state->evex);
        emit_bytes(&e, (const uint8_t[]){0xff, 0x14, 0x25}, 3); // call [execute_evex]
        emit32(&e, (uint32_t)(uintptr_t)&state->execute_evex);
        emit_enter(&e, mode);
    }
    landing_stub = e.at; // RSP is set by on_signal()
    emit_pops_and_ret(&e);
    if (e.full)
        engine_host_fatal("no room for the engine's stubs");
}

/* --- signals --- */

/* struct ucontext of the kernel: general registers begin at byte 40, in this order. */
enum {
    UC_R8,
    UC_R9,
    UC_R10,
    UC_R11,
    UC_R12,
    UC_R13,
    UC_R14,
    UC_R15,
    UC_RDI,
    UC_RSI,
    UC_RBP,
    UC_RBX,
    UC_RDX,
    UC_RAX,
    UC_RCX,
    UC_RSP,
    UC_RIP,
    UC_EFLAGS
};
static const uint8_t uc_of_gpr[16] = {UC_RAX, UC_RCX, UC_RDX, UC_RBX, UC_RSP, UC_RBP,
                                      UC_RSI, UC_RDI, UC_R8,  UC_R9,  UC_R10, UC_R11,
                                      UC_R12, UC_R13, UC_R14, UC_R15};

/* rep movsb from engine_copy, and four loads: faults there end the copy. */
extern const char engine_copy_insn[], engine_copy_end[], engine_load_insns[],
    engine_load_insns_end[], engine_load_failed[];
__asm__(".globl sys_sigreturn_stub\n"
        ".hidden sys_sigreturn_stub\n"
        ".text\n"
        "sys_sigreturn_stub:\n"
        "    mov $15, %eax\n"
        "    syscall\n");
__asm__(".globl engine_copy_insn, engine_copy_end\n"
        ".hidden engine_copy_insn, engine_copy_end\n"
        ".text\n"
        ".type engine_copy_bytes, @function\n"
        "engine_copy_bytes:\n" // (to, from, len): bytes left
        "    mov %rdx, %rcx\n"
        "engine_copy_insn:\n"
        "    rep movsb\n"
        "engine_copy_end:\n"
        "    mov %rcx, %rax\n"
        "    ret\n");
uint64_t engine_copy_bytes(void *to, const void *from, uint64_t len) __asm__("engine_copy_bytes");
__asm__(".globl engine_load_insns, engine_load_insns_end, engine_load_failed\n"
        ".hidden engine_load_insns, engine_load_insns_end, engine_load_failed\n"
        ".text\n"
        ".type engine_load, @function\n"
        "engine_load:\n" // (to, from, len): 1 if it worked
        "    cmp $4, %rdx\n"
        "engine_load_insns:\n"
        "    ja 8f\n"
        "    je 4f\n"
        "    test $1, %dl\n"
        "    jnz 1f\n"
        "    movzwl (%rsi), %eax\n"
        "    mov %ax, (%rdi)\n"
        "    jmp 9f\n"
        "1:  movzbl (%rsi), %eax\n"
        "    mov %al, (%rdi)\n"
        "    jmp 9f\n"
        "4:  mov (%rsi), %eax\n"
        "    mov %eax, (%rdi)\n"
        "    jmp 9f\n"
        "8:  mov (%rsi), %rax\n"
        "    mov %rax, (%rdi)\n"
        "9:  mov $1, %eax\n"
        "    ret\n"
        "engine_load_insns_end:\n"
        "engine_load_failed:\n"
        "    xor %eax, %eax\n"
        "    ret\n");
uint64_t engine_load(void *to, const void *from, uint64_t len) __asm__("engine_load");

/* What the guest's instruction did is over: on to the engine, behind enter(). */
static void land(uint64_t *gregs)
{
    fault.happened = true;
    gregs[UC_RIP] = (uint64_t)(uintptr_t)landing_stub;
    gregs[UC_RSP] = state->host_rsp; // not every kernel returns from a signal to a stack pointer
                                     // that is no address
    gregs[UC_EFLAGS] &= ~(uint64_t)(FLAG_AC | 0x400); // and DF
}

/* An access of an emulated instruction faulted: as if the guest's own had, with its registers where
 * the call put them. */
static void fault_of_evex(uint64_t rip)
{
    const struct evex_insn *in = (const struct evex_insn *)(uintptr_t)state->evex;
    fault.signo = evex_signal(in, rip, fault.signo, fault.code);
    fault.host_pc = in->resume - 1;
    for (int i = 0; i < 16; i++)
        fault.regs[i] = state->regs[i];
    fault.regs[COUNTER] = state->counter;
    if (entered != ENGINE_COUNT)
        fault.regs[WOVEN] = state->woven;
    fault.rflags = state->rflags;
}

static void on_signal(int signo, void *info, void *context)
{
    __asm__ volatile("pushfq; andl %0, (%%rsp); popfq"
                     :
                     : "i"(~FLAG_AC)
                     : "memory", "cc"); // the kernel leaves it set
    uint64_t *gregs = (uint64_t *)((uint8_t *)context + 40);
    uint64_t rip = gregs[UC_RIP], address = *(const uint64_t *)((const uint8_t *)info + 16);
    if (signo == 11 && engine_host_fetch(address))
        return;
    if (rip == (uint64_t)(uintptr_t)engine_copy_insn) {
        gregs[UC_RIP] = (uint64_t)(uintptr_t)engine_copy_end;
        return;
    }
    if (rip >= (uint64_t)(uintptr_t)engine_load_insns &&
        rip < (uint64_t)(uintptr_t)engine_load_insns_end) {
        gregs[UC_RIP] = (uint64_t)(uintptr_t)engine_load_failed;
        return;
    }
    fault.code = *(const int *)((const uint8_t *)info + 8);
    fault.address = address;
    fault.signo = signo;
    if (evex_accesses_guest(rip)) {
        fault_of_evex(rip);
        land(gregs);
        return;
    }
    if (!code_is_host(rip))
        engine_host_fatal("the engine itself faulted");
    if (running_calls && signo == 11) {
        uint64_t lowered = calls_overflow(running_calls, address, gregs[UC_R14]);
        gregs[UC_R14] -= lowered;
        if (lowered || marks_fault(address))
            return;
    }
    fault.host_pc = rip;
    for (int i = 0; i < 16; i++)
        fault.regs[i] = gregs[uc_of_gpr[i]];
    fault.rflags = gregs[UC_EFLAGS];
    land(gregs);
}

static uint8_t signal_stack[65536] __attribute__((aligned(64)));

void engine_install_handlers(void)
{
    static const int signals[] = {4, 5, 7, 8, 11}; // SIGILL SIGTRAP SIGBUS SIGFPE SIGSEGV
    sys_sigaltstack(signal_stack, sizeof(signal_stack));
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sys_sigaction(signals[i], on_signal);
}

/* --- running --- */

/* Components of the vector state that are in the CPU, of the lower 32: for an image. */
static uint32_t in_cpu(void)
{
    return (uint32_t)(XSTATE_KEPT & ~(uint64_t)(engine_isa()->emulates_avx512 ? XSTATE_AVX512 : 0));
}

/* Vector state between the CPU, with what is emulated, and an image. */
void engine_save_vectors(uint8_t image[XSTATE_MAX])
{
    __asm__ volatile("xsave64 (%0)" ::"r"(image), "a"(in_cpu()), "d"(-1) : "memory");
    if (engine_isa()->emulates_avx512)
        evex_to_image(image);
    x87_to_image(state, image);
}

static void load_vectors(const uint8_t *image)
{
    __asm__ volatile("xrstor64 (%0)" ::"r"(image), "a"(in_cpu()), "d"(-1) : "memory");
    if (engine_isa()->emulates_avx512)
        evex_from_image(image);
    x87_from_image(state, image);
}

struct run {
    struct engine_task *task;
    const struct engine_request *request;
    struct engine_result *result;
    uint64_t pc;
    uint64_t icount, ticks;
    uint32_t link;   /* exit record to be linked with the next block; UINT32_MAX: none */
    bool indirect;   /* the next block goes into the table of indirect branches */
    uint64_t passed; /* a break address reached at this icount is executed */
    enum {
        GO,
        STEP_UNGUARDED,
        STEP_ALONE,
        STEP_BARE
    } how; /* STEP_UNGUARDED: the next instruction writes to its own page of code,
  or its emulation has to be called;
  STEP_ALONE: what is woven in before it, for it or for others, faults;
  STEP_BARE: it is executed with nothing woven in, since that faults */
};

static void drain(uint32_t last_insns, uint64_t icount_now)
{
    uint64_t len = state->woven - layout.log_area;
    if (len && consumer &&
        !consumer(consumer_ctx, (const uint8_t *)(uintptr_t)layout.log_area, len, log_icount,
                  last_insns))
        consumer_stops = true;
    state->woven = layout.log_area;
    log_icount = icount_now;
}

static bool logs(const struct run *run)
{
    return run->request->mode >= ENGINE_LOG;
}

static void flush(struct run *run)
{
    if (logs(run))
        drain(UINT32_MAX, run->icount);
    code_flush();
    run->link = UINT32_MAX;
    run->indirect = false;
}

/* Enters translated code. `budget`: what the counter counts down from. */
static void enter(struct run *run, enum engine_mode mode, uint8_t *host, uint64_t budget)
{
    state->resume = (uint64_t)(uintptr_t)host;
    state->leave = (uint64_t)(uintptr_t)leave_stub[mode];
    state->call_evex = (uint64_t)(uintptr_t)evex_stub[mode];
    state->counter = budget << ICOUNT_SHIFT;
    entered = mode;
    fault.happened = false;
    code.stats.exits++;
    running_calls = engine_keeps_calls(mode) ? run->task->calls : NULL;
    if (running_calls)
        state->woven = running_calls->top;
    ((void (*)(void))(uintptr_t)enter_stub[mode])();
}

/* The calls that were made since the last enter(), of which `budget` is what calls_settle() wants.
 */
static void settle(struct run *run, enum engine_mode mode, uint64_t budget)
{
    if (!engine_keeps_calls(mode))
        return;
    run->task->calls->top = state->woven;
    calls_settle(run->task->calls, budget, run->request->stamp,
                 run->request->icount_base + run->icount);
}

/* Marks what a store stored that only the run loop can tell of. */
static void mark_stored(const struct exit_record *x)
{
    uint64_t start = state->range_start, now = state->regs[RDI];
    switch (x->range) {
    case RANGE_STRING:
        if (now > start)
            marks_range(start, now - start);
        else if (now < start)
            marks_range(now + x->size, start - now);
        break;
    case RANGE_SCATTER: {
        static uint8_t vectors[XSTATE_MAX] __attribute__((aligned(64)));
        engine_save_vectors(vectors);
        scatter_elements(x->pc - x->insn_len, start, vectors, marks_range);
        load_vectors(vectors);
        break;
    }
    default:
        marks_range(start, x->size);
    }
}

/* Such a store faulted in its midst. */
static void mark_part(const struct block *b)
{
    for (uint32_t i = b->first_exit; i < b->stale_exit; i++) {
        if (code.exits[i].kind == EXIT_RANGE)
            mark_stored(&code.exits[i]);
    }
}

/* A guest instruction faulted, or what is woven in before it: finds which, restores the guest's
 * registers, and says what it means. Returns true if the run is over. */
static bool handle_fault(struct run *run, uint32_t *insns_done, uint32_t *block_out)
{
    uint32_t idx = code_block_of_host(fault.host_pc);
    struct block *b = &code.blocks[idx];
    const struct translation *t = code_fault_points(idx);
    const struct fault_point *point = NULL;
    uint32_t off = (uint32_t)(fault.host_pc - (uint64_t)(uintptr_t)b->start);
    for (unsigned i = 0; i < t->point_count; i++) {
        if (t->points[i].host_off <= off)
            point = &t->points[i];
    }
    if (!point)
        engine_host_fatal("a fault where none can be");
    uint32_t stolen = stolen_registers(b->mode);
    for (int i = 0; i < 16; i++) {
        if (!(stolen >> i & 1))
            state->regs[i] = fault.regs[i];
    }
    for (int i = 0; i < 4; i++) {
        if (point->spilled[i] != 0xff)
            state->regs[point->spilled[i]] = state->spill[i];
    }
    if (point->based != 0xff)
        state->regs[point->based] -= point->based_in_gs ? state->gs_base : state->fs_base;
    for (unsigned i = 0; i < FAULT_VECTORS; i++) {
        if (point->vectors[i] != 0xff)
            evex_load_aside(point->vectors[i], i);
    }
    state->counter = fault.regs[COUNTER];
    if (b->mode != ENGINE_COUNT)
        state->woven = fault.regs[WOVEN];
    state->rflags = fault.rflags & ~0x10100ull;
    if (!b->exact)
        state->counter += ((uint64_t)(b->info.insn_count - point->insn) << ICOUNT_SHIFT) -
                          (point->insn < b->info.insn_count ? b->info.ticks : 0);
    *insns_done = point->insn;
    *block_out = idx;
    run->pc = t->insn_pc[point->insn];
    if (b->mode >= ENGINE_LOG && fault.address >= layout.log_area + ENGINE_LOG_LEN &&
        fault.address < layout.log_area + ENGINE_LOG_LEN + PAGE_SIZE && !point->guest) {
        *block_out = UINT32_MAX; // the log is full, nothing of the block is done
        return false;
    }
    if (fault.signo == 8 && point->insn)
        x87_note_before_fault(state, t->insn_pc[point->insn - 1]);
    bool again = false;
    if (fault.signo == 11 && fault.code == 2 && point->guest && code_release_page(fault.address)) {
        run->how = STEP_UNGUARDED;
        again = true;
    } else if (point->hopeful) {
        run->how = STEP_UNGUARDED;
        again = true;
    } else if (!point->guest) {
        // RSP is found to be no multiple of 8; or what was to be marked or logged has no place, so
        // the instruction will fault.
        bool unaligned = fault.address - code.alignment_page < ALIGNMENT_MASK + PAGE_SIZE;
        run->how = unaligned ? GO : b->info.insn_count > 1 ? STEP_ALONE : STEP_BARE;
        again = true;
    }
    if (b->mode == ENGINE_INDEX) {
        // The block was counted whole.
        --*b->count;
        unsigned begun = point->insn + !again;
        if (begun)
            engine_host_begun(&b->info, begun);
        if (point->guest && point->insn + 1u == b->info.insn_count)
            mark_part(b);
    }
    if (again)
        return false;
    if (b->mode != run->request->mode && run->request->mode == ENGINE_INDEX) // STEP_BARE
        engine_host_begun(&b->info, 1);
    // Exceptions of floating point are not emulated, if not masked.
    bool unsupported = evex_gave_up() || (fault.signo == 8 && point->vectors[0] != 0xff);
    run->result->reason = unsupported ? STOP_UNSUPPORTED : STOP_FAULT;
    run->result->signo = fault.signo;
    run->result->si_code = fault.code;
    // Of an illegal instruction or a failed division the address is that of the instruction.
    run->result->fault_addr = fault.signo == 4 || fault.signo == 8 ? run->pc : fault.address;
    run->result->host_pc = fault.host_pc;
    return true;
}

/* Carries out wrfsbase or wrgsbase at run->pc (SDM 2B). Returns true if it faults. */
static bool write_segment_base(struct run *run, unsigned insn_len)
{
    unsigned reg;
    bool gs, wide;
    vectors_save();
    insn_segment_base(run->pc, &reg, &gs, &wide);
    vectors_load();
    uint64_t value = wide ? state->regs[reg] : (uint32_t)state->regs[reg];
    if ((uint64_t)((int64_t)(value << 16) >> 16) != value) {
        run->result->reason = STOP_FAULT;
        run->result->signo = 11;
        run->result->si_code = 0x80; // SI_KERNEL
        return true;
    }
    *(gs ? &state->gs_base : &state->fs_base) = value;
    run->pc += insn_len;
    run->icount++;
    return false;
}

/* Carries out a far branch at run->pc. Returns true if the run is over. */
static bool go_far(struct run *run)
{
    uint64_t address = 0;
    switch (far_branch(state, &run->pc, &address)) {
    case FAR_DONE:
        run->icount++;
        if (engine_keeps_calls(run->request->mode))
            calls_returned(run->task->calls, state->regs[RSP] - 8);
        return false;
    case FAR_FAULTS:
        run->result->reason = STOP_FAULT;
        run->result->signo = 11;
        run->result->si_code = engine_host_prot(address) < 0 ? 1 : 2; // SEGV_MAPERR, SEGV_ACCERR
        run->result->fault_addr = address;
        return true;
    default:
        run->result->reason = STOP_UNSUPPORTED;
        return true;
    }
}

/* What to do about exit x. Returns true if the run is over. */
static bool handle_exit(struct run *run, uint32_t idx)
{
    const struct exit_record *x = &code.exits[idx];
    run->link = UINT32_MAX;
    run->indirect = false;
    switch (x->kind) {
    case EXIT_DIRECT:
        run->pc = x->pc;
        if (x->patch)
            run->link = idx;
        return false;
    case EXIT_RETURN:
        // The call that returns is not the last one on the stack of calls.
        calls_returned(run->task->calls, state->regs[RSP] - x->pc);
        run->pc = state->target;
        run->indirect = true;
        return false;
    case EXIT_STACK:
        calls_returned(run->task->calls, state->regs[RSP] - 8);
        run->pc = x->pc;
        return false;
    case EXIT_RANGE:
        mark_stored(x);
        if (x->x87)
            x87_executed(state, x->pc, x->insn_len);
        run->pc = x->pc;
        return false;
    case EXIT_X87:
        x87_executed(state, x->pc, x->insn_len);
        run->pc = x->pc;
        return false;
    case EXIT_INDIRECT:
        run->pc = state->target;
        run->indirect = true;
        return false;
    case EXIT_STOP:
        run->pc = x->pc;
        if (run->request->mode == ENGINE_INDEX)
            engine_host_begun(&code.blocks[x->block].info, 1);
        if (x->stop == STOP_TRAP && x->trap == TRAP_SEGMENT_BASE)
            return write_segment_base(run, x->insn_len);
        if (x->stop == STOP_TRAP && x->trap == TRAP_FAR)
            return go_far(run);
        run->result->reason = x->stop;
        run->result->trap = x->trap;
        run->result->insn_len = x->insn_len;
        run->result->signo = x->signo;
        run->result->si_code = x->si_code;
        run->result->fault_addr = 0;
        if (x->stop == STOP_FAULT && x->signo == 5) // the trap is reported behind the instruction
            run->pc += x->insn_len;
        else if (x->stop == STOP_FAULT && x->si_code != 0x80)
            run->result->fault_addr = (uint64_t)(uintptr_t)x->patch;
        return true;
    default: // EXIT_BUDGET, EXIT_STALE
        run->pc = x->pc;
        return false;
    }
}

/* Runs translated code from run->pc for at most `budget` instructions, chained blocks. Returns true
 * if the run is over. */
static bool run_chained(struct run *run, uint64_t budget)
{
    if (budget > MAX_BUDGET)
        budget = MAX_BUDGET;
    enum engine_mode mode = run->request->mode;
    uint32_t idx = code_block(run->pc, mode, run->link, run->indirect);
    if (idx == UINT32_MAX) {
        flush(run);
        idx = code_block(run->pc, mode, UINT32_MAX, false);
        if (idx == UINT32_MAX)
            engine_host_fatal("a block does not fit into an empty code cache");
    }
    run->link = UINT32_MAX;
    run->indirect = false;
    enter(run, mode, code.blocks[idx].entry, budget);
    bool over;
    uint32_t done = UINT32_MAX, faulted = UINT32_MAX;
    settle(run, mode, budget);
    if (fault.happened)
        over = handle_fault(run, &done, &faulted);
    else
        over = handle_exit(run, (uint32_t)state->exit_idx);
    uint64_t ran = budget - (uint64_t)((int64_t)state->counter >> ICOUNT_SHIFT);
    run->ticks += state->counter & MAX_BUDGET;
    run->icount += ran;
    if (fault.happened && logs(run))
        drain(faulted == UINT32_MAX ? UINT32_MAX : done, run->icount);
    return over;
}

/* Runs at most `max_insns` instructions of one block. */
static bool run_exact(struct run *run, uint64_t max_insns)
{
    enum engine_mode mode = run->how == STEP_BARE ? ENGINE_COUNT : run->request->mode;
    bool unguarded = run->how == STEP_UNGUARDED || run->how == STEP_BARE;
    if (max_insns > MAX_BLOCK_INSNS)
        max_insns = MAX_BLOCK_INSNS;
    run->how = GO;
    uint32_t idx = code_exact(run->pc, mode, (unsigned)max_insns, unguarded);
    if (idx == UINT32_MAX) {
        flush(run);
        idx = code_exact(run->pc, mode, (unsigned)max_insns, unguarded);
        if (idx == UINT32_MAX)
            engine_host_fatal("a block does not fit into an empty code cache");
    }
    const struct block *b = &code.blocks[idx];
    uint32_t insns = b->info.insn_count, ticks = b->info.ticks;
    enter(run, mode, b->entry, 0);
    settle(run, mode, insns);
    run->link = UINT32_MAX;
    run->indirect = false;
    if (fault.happened) {
        uint32_t done, faulted;
        bool over = handle_fault(run, &done, &faulted);
        run->icount += done;
        if (mode >= ENGINE_LOG)
            drain(faulted == UINT32_MAX ? UINT32_MAX : done, run->icount);
        return over;
    }
    if (mode != run->request->mode && run->request->mode == ENGINE_INDEX)
        engine_host_begun(&b->info, insns);
    run->icount += insns;
    run->ticks += ticks;
    bool over = handle_exit(run, (uint32_t)state->exit_idx);
    run->link = UINT32_MAX;
    run->indirect = false;
    return over;
}

static const uint8_t gpr_of_ureg[] = {
    [UREG_R15] = R15, [UREG_R14] = R14, [UREG_R13] = R13, [UREG_R12] = R12, [UREG_RBP] = RBP,
    [UREG_RBX] = RBX, [UREG_R11] = R11, [UREG_R10] = R10, [UREG_R9] = R9,   [UREG_R8] = R8,
    [UREG_RAX] = RAX, [UREG_RCX] = RCX, [UREG_RDX] = RDX, [UREG_RSI] = RSI, [UREG_RDI] = RDI};

static bool matches(const struct run *run)
{
    const struct regs *want = &run->request->match;
    if (run->pc != want->r[UREG_RIP])
        return false;
    for (int i = UREG_R15; i <= UREG_RDI; i++) {
        if (state->regs[gpr_of_ureg[i]] != want->r[i])
            return false;
    }
    return true;
}

/* In the midst of a `rep` string instruction: does the iterations that lead to the wanted
 * registers, if there are any. */
static bool match_within_rep(struct run *run)
{
    const struct regs *want = &run->request->match;
    unsigned size;
    bool source, dest;
    if (run->pc != want->r[UREG_RIP])
        return false;
    uint64_t rcx = state->regs[RCX], k = rcx - want->r[UREG_RCX];
    if (rcx <= want->r[UREG_RCX])
        return false;
    vectors_save();
    bool rep = insn_is_rep(run->pc, &size, &source, &dest);
    vectors_load();
    if (!rep)
        return false;
    uint64_t moved = state->rflags & 0x400 ? -k * size : k * size;
    for (int i = UREG_R15; i <= UREG_RDI; i++) {
        uint64_t have = state->regs[gpr_of_ureg[i]];
        if (i == UREG_RCX || i == UREG_RAX)
            continue;
        if ((i == UREG_RSI && source) || (i == UREG_RDI && dest))
            have += moved;
        if (have != want->r[i])
            return false;
    }
    uint64_t pc = run->pc, icount = run->icount;
    state->regs[RCX] = k;
    if (run_exact(run, 1)) // faulted on the way
        return true;
    run->icount = icount;
    run->pc = pc;
    state->regs[RCX] += want->r[UREG_RCX];
    return false;
}

/* To the task, from where they are while it runs. */
static void save_registers(const struct run *run)
{
    struct regs *to = &run->task->regs;
    for (int i = UREG_R15; i <= UREG_RDI; i++)
        to->r[i] = state->regs[gpr_of_ureg[i]];
    to->r[UREG_RSP] = state->regs[RSP];
    to->r[UREG_RIP] = run->pc;
    to->r[UREG_FS_BASE] = state->fs_base;
    to->r[UREG_GS_BASE] = state->gs_base;
    to->r[UREG_EFLAGS] = (state->rflags & USER_FLAGS) | FIXED_FLAGS;
}

/* One step of a run. Returns true if it is over. */
static bool step(struct run *run)
{
    const struct engine_request *q = run->request;
    uint64_t left = q->max_icount - run->icount;
    if (left == 0) {
        run->result->reason = STOP_LIMIT;
        return true;
    }
    if (consumer_stops) {
        run->result->reason = STOP_CONSUMER;
        return true;
    }
    bool timed = q->use_ticks || q->use_match;
    uint64_t ticks_left = timed ? q->stop_ticks - run->ticks : UINT64_MAX;
    if (timed && run->ticks > q->stop_ticks) {
        run->result->reason = STOP_TICKS;
        run->result->passed = true;
        return true;
    }
    if (ticks_left == 0) {
        if (q->use_ticks) {
            run->result->reason = STOP_TICKS;
            return true;
        }
        if (matches(run)) {
            run->result->reason = STOP_MATCH;
            return true;
        }
    }
    if (code.break_count && run->icount != run->passed && run->how == GO &&
        code_is_break(run->pc)) {
        run->passed = run->icount;
        if (judge)
            save_registers(run);
        if (!judge || judge(judge_ctx, run->task, run->icount)) {
            run->result->reason = STOP_BREAK;
            return true;
        }
        run->link = UINT32_MAX; // who comes here is to come to the run loop again
        run->indirect = false;
    }
    if (run->how != GO)
        return run_exact(run, 1);
    if (ticks_left == 0) {
        if (match_within_rep(run))
            return true;
        if (matches(run)) {
            run->result->reason = STOP_MATCH;
            return true;
        }
        return run_exact(run, 1);
    }
    uint64_t most = left < ticks_left ? left : ticks_left;
    bool aligned = q->mode != ENGINE_INDEX || state->regs[RSP] % 8 == 0;
    if (most > CAREFUL + MAX_BLOCK_INSNS && aligned)
        return run_chained(run, most - CAREFUL);
    return run_exact(run, most);
}

void engine_run(struct engine_task *task, const struct engine_request *request,
                struct engine_result *result)
{
    struct run run = {.task = task,
                      .request = request,
                      .result = result,
                      .pc = task->regs.r[UREG_RIP],
                      .link = UINT32_MAX,
                      .passed = request->judge_start && judge ? UINT64_MAX : 0};
    __builtin_memset(result, 0, sizeof(*result));
    if (loaded != task) {
        if (loaded)
            engine_save_vectors(loaded->xstate);
        load_vectors(task->xstate_valid ? task->xstate : fresh_vectors);
        task->xstate_valid = true;
        loaded = task;
    }
    state->woven = layout.log_area;
    if (engine_keeps_calls(request->mode) && !task->calls)
        task->calls = calls_create();
    log_icount = 0;
    consumer_stops = false;
    for (int i = UREG_R15; i <= UREG_RDI; i++)
        state->regs[gpr_of_ureg[i]] = task->regs.r[i];
    state->regs[RSP] = task->regs.r[UREG_RSP];
    state->fs_base = task->regs.r[UREG_FS_BASE];
    state->gs_base = task->regs.r[UREG_GS_BASE];
    state->rflags = (task->regs.r[UREG_EFLAGS] & USER_FLAGS) | FIXED_FLAGS;
    while (!step(&run)) {
    }
    if (logs(&run))
        drain(UINT32_MAX, run.icount);
    save_registers(&run);
    result->icount = run.icount;
    result->ticks = run.ticks;
}

void engine_sync_xstate(struct engine_task *task)
{
    if (loaded != task) {
        if (!task->xstate_valid)
            __builtin_memcpy(task->xstate, fresh_vectors, sizeof(task->xstate));
        task->xstate_valid = true;
        return;
    }
    engine_save_vectors(task->xstate);
    loaded = NULL;
}

void engine_clear_x87(struct engine_task *task)
{
    if (loaded == task)
        x87_clear(state);
    else if (task->xstate_valid)
        x87_clear_image(task->xstate);
}

void engine_xstate_changed(struct engine_task *task)
{
    if (loaded == task)
        loaded = NULL;
}

void engine_task_gone(struct engine_task *task)
{
    if (loaded == task)
        loaded = NULL;
    if (task->calls)
        calls_free(task->calls);
    task->calls = NULL;
}

/* --- the rest of the interface --- */

void engine_set_consumer(log_consumer *c, void *ctx)
{
    consumer = c;
    consumer_ctx = ctx;
}

void engine_set_judge(break_judge *j, void *ctx)
{
    judge = j;
    judge_ctx = ctx;
}

const struct block_info *engine_block(uint32_t idx)
{
    return &code.blocks[idx].info;
}

uint32_t engine_block_count(void)
{
    return code.block_count;
}

void engine_take_counts(void (*each)(const struct block_info *b, uint64_t count))
{
    for (uint32_t i = 0; i < code.block_count; i++) {
        struct block *b = &code.blocks[i];
        if (b->mode != ENGINE_INDEX || !*b->count)
            continue;
        if (each)
            each(&b->info, *b->count);
        *b->count = 0;
    }
}

void engine_take_marks(void (*each)(uint64_t page, const uint64_t granules[8]))
{
    marks_take(each);
}

void engine_get_stats(struct engine_stats *out)
{
    *out = code.stats;
}

size_t engine_copy_from_guest(void *out, uint64_t addr, size_t len)
{
    return len - engine_copy_bytes(out, (const void *)(uintptr_t)addr, len);
}

bool engine_load_from_guest(void *out, uint64_t addr, size_t len)
{
    return engine_load(out, (const void *)(uintptr_t)addr, len);
}

size_t engine_copy_to_guest(uint64_t addr, const void *data, size_t len)
{
    return len - engine_copy_bytes((void *)(uintptr_t)addr, data, len);
}

void engine_init(const struct engine_layout *l)
{
    layout = *l;
    if (sys_mmap(l->low_area, ENGINE_LOW_AREA_LEN, 7, 0x4032, -1, 0) != l->low_area)
        engine_host_fatal("cannot map the engine's low area");
    uint8_t *low = (uint8_t *)(uintptr_t)l->low_area;
    enum {
        STUBS_AT = 0x1000,
        ALIGNMENT_AT = 0x4000,
        EVEX_AT = 0xd000,
        TABLES_AT = 0x200000,
        HUGE_PAGE = 0x200000
    };
    state = code.state = (struct engine_state *)low;
    state->alignment = ALIGNMENT_MASK;
    code.alignment_page = l->low_area + ALIGNMENT_AT;
    if (sys_mprotect(code.alignment_page + PAGE_SIZE, ALIGNMENT_MASK, 0) != 0)
        engine_host_fatal("cannot protect the engine's low area");
    // Two modes in each: entries all over their tables are used from the first calls on. Of a
    // replay mostly those of one are in use.
    sys_huge_pages(l->low_area + TABLES_AT, 2 * HUGE_PAGE);
    for (unsigned mode = 0; mode < ENGINE_MODES; mode++)
        code.tables[mode] =
            (struct indirect_table *)(low + TABLES_AT + mode * sizeof(struct indirect_table));
    state->execute_evex = (uint64_t)(uintptr_t)evex_execute;
    evex_init((struct evex_registers *)(void *)(low + EVEX_AT), state);
    make_stubs(low + STUBS_AT, low + STUBS_AT + 0x2000);
    if (sys_mmap(l->log_area, ENGINE_LOG_LEN, 3, 0x4032, -1, 0) != l->log_area ||
        sys_mmap(l->log_area + ENGINE_LOG_LEN, PAGE_SIZE, 0, 0x4032, -1, 0) !=
            l->log_area + ENGINE_LOG_LEN)
        engine_host_fatal("cannot map the engine's log");
    static const uint32_t mxcsr = 0x1f80;
    static const uint16_t fcw = 0x37f;
    __builtin_memcpy(fresh_vectors, &fcw, 2);
    __builtin_memcpy(fresh_vectors + 24, &mxcsr, 4);
    code_init(l);
    marks_init(l);
    engine_install_handlers();
}
