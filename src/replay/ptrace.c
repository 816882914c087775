/* Recorded programs that trace others. What a tracer reads is data in the trace, and what it writes
 * to memory too; but when it sets registers of another task, that has to be done again here (rr
 * Task.cc:on_syscall_exit_arch). */
#include "replay/replay_int.h"

#include <elf.h>
#include <sched.h>
#include <sys/ptrace.h>

enum {
    PTRACE_SYSEMU_NO = 31,
    PTRACE_SYSEMU_SINGLESTEP_NO = 32,
    PTRACE_ARCH_PRCTL_NO = 30
};                                                             /* asm/ptrace-abi.h */
enum { ARCH_SET_GS_CODE = 0x1001, ARCH_SET_FS_CODE = 0x1002 }; /* asm/prctl.h */
enum { HDR_LOCKED = 14, LOCKED_BY_TRACER = 2 };                /* rr preload_interface.h */
enum { LEGACY_LEN = 512, IMAGE_MAX = 1 << 16 };                /* of XSAVE images */

struct task *traced_task(struct replay *r, const struct task *tracer, int32_t pid)
{
    vec_each (it, &r->tasks) {
        if ((*it)->own_ns_tid == pid && (*it)->pid_ns == tracer->pid_ns)
            return *it;
    }
    return task_by_tid(r, pid);
}

struct err *ptrace_enter(struct replay *r, const struct frame *f, struct task *tracer)
{
    const uint64_t *reg = f->regs.r;
    struct task *target = traced_task(r, tracer, (int32_t)reg[UREG_RSI]);
    bool lock;
    switch (reg[UREG_RDI]) {
    case PTRACE_SYSCALL:
    case PTRACE_SINGLESTEP:
    case PTRACE_SYSEMU_NO:
    case PTRACE_SYSEMU_SINGLESTEP_NO:
        lock = true;
        break;
    case PTRACE_CONT:
    case PTRACE_DETACH:
        lock = false;
        break;
    default:
        return NULL;
    }
    if (!target || !target->syscallbuf)
        return NULL; // the latter also if it is a 32-bit task
    uint8_t before;
    TRY(space_read(target->space, target->syscallbuf + HDR_LOCKED, &before, 1));
    uint8_t after = (uint8_t)(lock ? before | LOCKED_BY_TRACER : before & ~LOCKED_BY_TRACER);
    return before == after
               ? NULL
               : space_write(r, target->space, target->syscallbuf + HDR_LOCKED, &after, 1);
}

/* The kernel lets only these flags be set (arch/x86/kernel/ptrace.c:FLAG_MASK), and TF and RF are
 * never in our registers. */
static void set_flags(struct task *target, uint64_t value)
{
    const uint64_t settable = 0x44cd5; // CF PF AF ZF SF DF OF NT AC
    target->regs.r[UREG_EFLAGS] = (target->regs.r[UREG_EFLAGS] & ~settable) | (value & settable);
}

static struct err *set_regs(struct task *tracer, struct task *target, gaddr from)
{
    struct regs regs; // struct user_regs_struct has the same order
    TRY(space_read(tracer->space, from, &regs, sizeof(regs)));
    uint64_t flags = regs.r[UREG_EFLAGS];
    regs.r[UREG_EFLAGS] = target->regs.r[UREG_EFLAGS];
    target->regs = regs;
    set_flags(target, flags);
    return NULL;
}

static struct err *set_legacy_state(struct task *tracer, struct task *target, gaddr from)
{
    struct xstate x;
    TRY(worker_get_xstate(target->space->worker, target->info.slot, &x));
    TRY(space_read(tracer->space, from, x.data, LEGACY_LEN));
    uint64_t present = load_u64(x.data + LEGACY_LEN) | 3;
    memcpy(x.data + LEGACY_LEN, &present, sizeof(present));
    return worker_set_xstate(target->space->worker, target->info.slot, &x);
}

static struct err *set_regset(struct replay *r, struct task *tracer, struct task *target,
                              uint64_t type, gaddr iovec)
{
    uint8_t iov[16];
    TRY(space_read(tracer->space, iovec, iov, sizeof(iov)));
    gaddr base = load_u64(iov);
    uint64_t len = load_u64(iov + 8);
    switch (type) {
    case NT_PRSTATUS:
        return set_regs(tracer, target, base);
    case NT_PRFPREG:
        return set_legacy_state(tracer, target, base);
    case NT_X86_XSTATE: {
        if (len > IMAGE_MAX)
            return err_new(ERR_FORMAT, "extra registers of %llu bytes", (unsigned long long)len);
        cleanup(freep) uint8_t *image = xmalloc(IMAGE_MAX);
        struct xstate x;
        TRY(space_read(tracer->space, base, image, len));
        TRY(xstate_convert(r->trace, image, len, &x));
        return worker_set_xstate(target->space->worker, target->info.slot, &x);
    }
    default:
        return err_new(ERR_UNSUPPORTED, "PTRACE_SETREGSET of type %#llx", (unsigned long long)type);
    }
}

struct err *ptrace_exit(struct replay *r, const struct frame *f, struct task *tracer)
{
    const uint64_t *reg = f->regs.r;
    uint64_t addr = reg[UREG_RDX], data = reg[UREG_R10];
    struct task *target = traced_task(r, tracer, (int32_t)reg[UREG_RSI]);
    if (!target || target->space->is_32bit)
        return NULL;
    switch (reg[UREG_RDI]) {
    case PTRACE_SETREGS:
        return set_regs(tracer, target, data);
    case PTRACE_SETFPREGS:
        return set_legacy_state(tracer, target, data);
    case PTRACE_SETREGSET:
        return set_regset(r, tracer, target, addr, data);
    case PTRACE_POKEUSER:
        // Debug registers lie behind the others; what they bring about is in the trace.
        if (addr / 8 == UREG_EFLAGS)
            set_flags(target, data);
        else if (addr / 8 < UREG_COUNT)
            target->regs.r[addr / 8] = data;
        return NULL;
    case PTRACE_ARCH_PRCTL_NO:
        if (data == ARCH_SET_FS_CODE)
            target->regs.r[UREG_FS_BASE] = addr;
        else if (data == ARCH_SET_GS_CODE)
            target->regs.r[UREG_GS_BASE] = addr;
        return NULL;
    default:
        return NULL;
    }
}
