/* Running the program to the point where the next frame happened.
 *
 * What stops it there depends on the frame: nothing, a system call instruction, a trapped
 * instruction, a fault, a code address, or a count of ticks and a set of registers. On the way the
 * program may execute instructions which the engine does not: cpuid and the like are answered from
 * the recording, and the preload library's untraced system calls are carried out or skipped. */
#include "replay/replay_int.h"

#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum how { HOW_NONE, HOW_SYSCALL, HOW_TRAP, HOW_FAULT, HOW_ADDRESS, HOW_MATCH, HOW_FLUSH };

static bool is_restart(const struct frame *f)
{
    return f->syscall_no == (f->syscall_arch == ARCH_X86_64 ? 219 : 0);
}

/* Events whose instruction faults by itself, as against those that rr finds by ticks and registers
 * (rr ReplaySession.cc:treat_signal_event_as_deterministic). */
static bool faults_by_itself(const struct frame *f)
{
    int signo = (int32_t)load_u32(f->siginfo), code = (int32_t)load_u32(f->siginfo + 8);
    if (!f->signal_deterministic || signo == SIGBUS ||
        (signo == SIGSEGV && code == 4 /* SEGV_PKUERR */))
        return false;
    return signo != SIGTRAP || code == SI_KERNEL;
}

static enum how how_reached(const struct replay *r, const struct frame *f)
{
    switch (f->kind) {
    case FRAME_SYSCALL:
        return f->syscall_state == SYSCALL_EXITING || is_restart(f) ? HOW_NONE : HOW_SYSCALL;
    case FRAME_PATCH_SYSCALL:
        return HOW_SYSCALL;
    case FRAME_PATCH_VSYSCALL:
    case FRAME_PATCH_TRAPPING_INSTRUCTION:
        return HOW_ADDRESS;
    case FRAME_INSTRUCTION_TRAP:
        return HOW_TRAP;
    case FRAME_SIGNAL:
        return faults_by_itself(f) ? HOW_FAULT : HOW_MATCH;
    case FRAME_SCHED:
        return HOW_MATCH;
    case FRAME_SYSCALLBUF_FLUSH:
        return HOW_FLUSH;
    default:
        return HOW_NONE;
    }
}

static uint32_t record_bytes(struct replay *r, const struct frame *f, struct buf *data,
                             struct err **e)
{
    *e = f->write_count ? trace_read_write(r->cursor, &f->writes[0], data) : NULL;
    return !*e && data->len >= 4 ? load_u32(data->data) : 0;
}

/* What the frame wants in memory before its task runs towards it: the records of a syscall buffer,
 * which the program makes again (it keeps the header itself), or the flag
 * notify_on_syscall_hook_exit. False: nothing. */
static bool prepared_range(const struct replay *r, const struct task *task, const struct frame *f,
                           gaddr *addr_out, uint64_t *len_out)
{
    size_t header = trace_header(r->trace)->syscallbuf_hdr_size;
    if (f->kind == FRAME_SYSCALLBUF_FLUSH && f->write_count && f->writes[0].size > header) {
        *addr_out = f->writes[0].addr + header;
        *len_out = f->writes[0].size - header;
        return true;
    }
    *addr_out = task->syscallbuf + 13;
    *len_out = 1;
    return f->kind == FRAME_SYSCALL && f->syscall_state != SYSCALL_EXITING && task->syscallbuf &&
           f->syscall_no == trace_header(r->trace)->rrcall_base + 2;
}

struct err *prepare_frame(struct replay *r, const struct frame *f)
{
    static const uint8_t one = 1;
    struct task *task = f && r->tasks.count ? task_by_tid(r, f->tid) : NULL;
    gaddr addr;
    uint64_t len;
    if (!task || task->space->is_32bit || !prepared_range(r, task, f, &addr, &len))
        return NULL;
    if (f->kind != FRAME_SYSCALLBUF_FLUSH)
        return space_write(r, task->space, addr, &one, 1);
    cleanup(buf_deinit) struct buf data = {0};
    TRY(trace_read_write(r->cursor, &f->writes[0], &data));
    return space_write(r, task->space, addr, data.data + (data.len - len), len);
}

void replay_tell_prepared(struct replay *r)
{
    const struct frame *f = r->prepared ? r->next : NULL;
    const struct task *task = f && r->tasks.count ? task_by_tid(r, f->tid) : NULL;
    gaddr addr;
    uint64_t len;
    if (task && !task->space->is_32bit && prepared_range(r, task, f, &addr, &len))
        space_tell_written(r, task->space, addr, len);
}

/* rax: stop only with this in RAX; 0: always. */
static struct err *set_break(struct space *s, gaddr pc, uint64_t rax)
{
    if (s->break_set == pc && s->break_rax == rax)
        return NULL;
    s->break_set = pc;
    s->break_rax = rax;
    return worker_set_breaks(s->worker, &pc, pc ? 1 : 0, rax ? &rax : NULL);
}

/* What is looked at after a run, as a rule: the page of thread-locals if it may have to make room
 * for another thread's, the header of the buffer, the area of restartable sequences. Memory that
 * others share may change without us. */
static void peek_at(struct space *s, const struct task *task)
{
    enum { HEADER_LEN = 32, RSEQ_LEN = 20 };
    const struct addr_range likely[WORKER_PEEKS] = {
        {RR_THREAD_LOCALS, RR_THREAD_LOCALS + (s->task_count > 1 ? PAGE_SIZE : 0)},
        {task->syscallbuf, task->syscallbuf + (task->syscallbuf ? HEADER_LEN : 0)},
        {task->rseq, task->rseq + (task->rseq ? RSEQ_LEN : 0)},
    };
    struct addr_range ranges[WORKER_PEEKS];
    size_t count = 0;
    for (size_t i = 0; i < WORKER_PEEKS; i++) {
        const struct mapping *m =
            likely[i].start < likely[i].end ? space_mapping_at(s, likely[i].start) : NULL;
        if (m && !m->object && likely[i].end <= m->end)
            ranges[count++] = likely[i];
    }
    worker_peek(s->worker, ranges, count);
}

/* A system call instruction in the rr page that is no event of the trace. Returns false if it is
 * none of these. */
static struct err *untraced_syscall(struct replay *r, struct task *task, bool *handled)
{
    uint64_t *reg = task->regs.r;
    uint16_t number;
    int64_t result;
    *handled = true;
    switch (reg[UREG_RIP]) {
    case RR_STUB_REPLAY_ONLY:
    case RR_STUB_P_REPLAY:
        cloned_replay_only_call(task);
        break;
    case RR_STUB_UNTRACED:
    case RR_STUB_P_UNTRACED:
        TRY(task_pending_record(r, task, &number, &result));
        if (reg[UREG_RAX] == SYS_mprotect)
            TRY(space_protect(r, task->space, reg[UREG_RDI], reg[UREG_RDI] + reg[UREG_RSI],
                              (int)reg[UREG_RDX], result));
        else if (reg[UREG_RAX] == SYS_madvise && (result >= 0 || result == -ENOMEM))
            TRY(space_discard(r, task->space, reg[UREG_RDI], reg[UREG_RDI] + reg[UREG_RSI],
                              (int)reg[UREG_RDX]));
        else if (reg[UREG_RAX] == SYS_read)
            TRY(cloned_read(r, task, result));
        else if (reg[UREG_RAX] != SYS_madvise)
            return err_new(ERR_UNSUPPORTED, "an untraced system call %lld",
                           (long long)reg[UREG_RAX]);
        break;
    default:
        *handled = false;
        return NULL;
    }
    reg[UREG_RAX] = 0;
    reg[UREG_RIP] += 2;
    return NULL;
}

/* A buffered call whose effect has to be made again: a write to /proc/PID/mem (rr
 * ReplaySession.cc:do_replay_assist). */
static struct err *assist(struct replay *r, struct task *task)
{
    uint16_t number;
    int64_t result;
    TRY(task_pending_record(r, task, &number, &result));
    return fds_write(r, task, number, &task->regs, result, 0);
}

/* int 0x80 and sysenter are faults where the recording kernel had no 32-bit system calls. */
static bool is_foreign_call(const struct task *task, const struct engine_result *stop)
{
    uint8_t insn[2] = {0};
    struct err *e = space_read(task->space, task->regs.r[UREG_RIP], insn, sizeof(insn));
    err_free(e);
    return stop->insn_len == 2 &&
           ((insn[0] == 0xcd && insn[1] == 0x80) || (insn[0] == 0x0f && insn[1] == 0x34));
}

/* Does the frame's signal come of a fault that raises `signo`? Where the kernel cannot write the
 * frame of its handler, it sends SIGSEGV instead (Linux kernel/signal.c:signal_setup_done). */
static bool is_signal_of_fault(const struct frame *f, int32_t signo)
{
    int32_t recorded = (int32_t)load_u32(f->siginfo);
    return recorded == signo ||
           (recorded == SIGSEGV && (int32_t)load_u32(f->siginfo + 8) == SI_KERNEL);
}

static const char *stop_name(enum stop_reason reason)
{
    static const char *const names[] = {
        [STOP_LIMIT] = "the instruction limit",
        [STOP_TICKS] = "the tick count",
        [STOP_MATCH] = "the registers",
        [STOP_SYSCALL] = "a system call",
        [STOP_TRAP] = "a trapped instruction",
        [STOP_FAULT] = "a fault",
        [STOP_BREAK] = "a code address",
        [STOP_CONSUMER] = "a consumer",
        [STOP_UNSUPPORTED] = "an unsupported instruction",
        [STOP_ERROR] = "an engine error",
    };
    return names[reason];
}

static struct err *unexpected_stop(const struct replay *r, const struct frame *f, struct task *task,
                                   const struct engine_result *stop)
{
    char text[100];
    unsigned long long rip = task->regs.r[UREG_RIP];
    if (rip == f->regs.r[UREG_RIP] && task->info.ticks == f->ticks)
        TRY(compare_regs(r, f, &task->regs, 0)); // names the register
    switch (stop->reason) {
    case STOP_FAULT:
        return diverged(r, f, "signal %d code %d at address %#llx raised at rip %#llx, ticks %lld",
                        stop->signo, stop->si_code, (unsigned long long)stop->fault_addr, rip,
                        (long long)task->info.ticks);
    case STOP_TRAP:
        if (stop->trap == TRAP_RDRAND || stop->trap == TRAP_RDSEED ||
            (stop->trap >= TRAP_LSL && stop->trap <= TRAP_OTHER))
            return err_new(
                ERR_UNSUPPORTED,
                "event %llu, task %d: `%s` at %#llx: what it gave is not in the recording",
                (unsigned long long)f->event, f->tid, describe_insn(task, text, sizeof(text)), rip);
        if (stop->trap == TRAP_RDTSC || stop->trap == TRAP_RDTSCP)
            return diverged(
                r, f,
                "`%s` at rip %#llx, ticks %lld was executed and is not recorded: the recording "
                "machine did not "
                "trap the TSC, or replay went astray before (want rip %#llx, ticks %lld)",
                describe_insn(task, text, sizeof(text)), rip, (long long)task->info.ticks,
                (unsigned long long)f->regs.r[UREG_RIP], (long long)f->ticks);
        return diverged(r, f, "`%s` at rip %#llx, ticks %lld (want rip %#llx, ticks %lld)",
                        describe_insn(task, text, sizeof(text)), rip, (long long)task->info.ticks,
                        (unsigned long long)f->regs.r[UREG_RIP], (long long)f->ticks);
    case STOP_UNSUPPORTED:
        if (lacking_feature(r, task))
            return err_new(ERR_UNSUPPORTED,
                           "event %llu, task %d: `%s` at %#llx needs %s, which the recording's CPU "
                           "had and this one lacks",
                           (unsigned long long)f->event, f->tid,
                           describe_insn(task, text, sizeof(text)), rip, lacking_feature(r, task));
        return err_new(ERR_UNSUPPORTED, "event %llu, task %d: `%s` at %#llx%s%s",
                       (unsigned long long)f->event, f->tid,
                       describe_insn(task, text, sizeof(text)), rip, *stop->error ? ": " : "",
                       stop->error);
    case STOP_ERROR:
        return err_new(ERR_OS, "event %llu: engine: %s", (unsigned long long)f->event, stop->error);
    default:
        return diverged(r, f, "stopped by %s at rip %#llx, ticks %lld (want rip %#llx, ticks %lld)",
                        stop_name(stop->reason), rip, (long long)task->info.ticks,
                        (unsigned long long)f->regs.r[UREG_RIP], (long long)f->ticks);
    }
}

/* Is this stop the frame? If it is none but may happen on the way, *passed is set instead. */
static struct err *judge_stop(struct replay *r, const struct frame *f, struct task *task,
                              enum how how, uint64_t flush_value, const struct engine_result *stop,
                              bool *arrived, bool *passed)
{
    uint64_t rip = task->regs.r[UREG_RIP];
    *arrived = *passed = false;
    switch (stop->reason) {
    case STOP_SYSCALL:
        if (how == HOW_SYSCALL &&
            rip + (f->kind == FRAME_PATCH_SYSCALL ? 0 : stop->insn_len) == f->regs.r[UREG_RIP] &&
            task->info.ticks == f->ticks) {
            *arrived = true;
            return NULL;
        }
        if (how == HOW_FAULT && rip == f->regs.r[UREG_RIP] && task->info.ticks == f->ticks &&
            is_foreign_call(task, stop)) {
            *arrived = true;
            return NULL;
        }
        return untraced_syscall(r, task, passed);
    case STOP_TRAP:
        if (how == HOW_TRAP &&
            (stop->trap == TRAP_RDTSC || stop->trap == TRAP_RDTSCP ||
             (stop->trap == TRAP_CPUID && trace_header(r->trace)->has_cpuid_faulting))) {
            if (rip + stop->insn_len != f->regs.r[UREG_RIP])
                return unexpected_stop(r, f, task, stop);
            *arrived = true;
            return NULL;
        }
        if (how == HOW_FAULT && rip == f->regs.r[UREG_RIP] && task->info.ticks == f->ticks) {
            *arrived = true; // the program itself had asked for the fault: prctl(PR_SET_TSC),
                             // arch_prctl(ARCH_SET_CPUID)
            return NULL;
        }
        return answer_trap(r, task, stop, passed);
    case STOP_FAULT:
        if (how == HOW_FAULT && rip == f->regs.r[UREG_RIP] && is_signal_of_fault(f, stop->signo))
            *arrived = true;
        else if (stop->signo == SIGTRAP && rip == RR_STUB_ASSIST_END) {
            *passed = true;
            return assist(r, task);
        }
        return NULL;
    case STOP_BREAK:
        if (how == HOW_FLUSH)
            *arrived = task->regs.r[UREG_RAX] == flush_value;
        else if (how == HOW_SYSCALL)
            *arrived = rip + 2 == f->regs.r[UREG_RIP] && task->info.ticks == f->ticks;
        else if (how == HOW_ADDRESS)
            *arrived = rip == f->regs.r[UREG_RIP] && task->info.ticks == f->ticks;
        else if (how == HOW_MATCH && f->in_syscallbuf_hook && rip == f->in_syscallbuf_hook)
            *arrived = true;
        *passed = !*arrived;
        return NULL;
    case STOP_MATCH:
        *arrived = how == HOW_MATCH;
        return NULL;
    default:
        return NULL;
    }
}

/* Does the task stand at the break address because a limit ended the run just there? Then that run
 * did not report it, and the next one would pass it. Right after an event it stands there only if
 * that event was reached by this very address. */
static bool stands_at_break(const struct replay *r, const struct frame *f, const struct task *task,
                            enum how how, gaddr address, uint64_t flush_value)
{
    if (!address || r->now.icount == 0 || task->regs.r[UREG_RIP] != address)
        return false;
    return how == HOW_FLUSH ? task->regs.r[UREG_RAX] == flush_value
                            : how == HOW_MATCH || task->info.ticks == f->ticks;
}

/* The address to stop at, if the frame wants one. */
static gaddr break_address(const struct frame *f, const struct task *task, enum how how)
{
    switch (how) {
    case HOW_ADDRESS:
        return f->regs.r[UREG_RIP];
    case HOW_FLUSH:
        return task->space->breakpoint_insn;
    case HOW_MATCH:
        return f->kind == FRAME_SCHED ? f->in_syscallbuf_hook : 0;
    case HOW_SYSCALL: // a buffered call that blocked: the instruction in the replay page is no
                      // system call
        if (f->regs.r[UREG_RIP] == RR_STUB_RECORD_ONLY + 2 ||
            f->regs.r[UREG_RIP] == RR_STUB_P_RECORD + 2)
            return f->regs.r[UREG_RIP] - 2;
        return 0;
    default:
        return 0;
    }
}

static bool same_state(const struct replay *r, const struct frame *f, const struct task *task)
{
    struct err *e = task->info.ticks == f->ticks ? compare_regs(r, f, &task->regs, 0)
                                                 : err_new(ERR_DIVERGED, "ticks");
    err_free(e);
    return !e;
}

struct err *reach_frame(struct replay *r, const struct frame *f, uint64_t max_icount,
                        enum reached *out)
{
    *out = REACHED;
    enum how how = how_reached(r, f);
    if (how == HOW_NONE || r->tasks.count == 0)
        return NULL;
    struct task *task = task_by_tid(r, f->tid);
    if (!task)
        return err_new(ERR_FORMAT, "event %llu: unknown task %d", (unsigned long long)f->event,
                       f->tid);
    if (task->space->is_32bit || already_entered(r, f, task))
        return NULL;
    if (r->skip_next_stop)
        return NULL;
    if (how == HOW_ADDRESS && task->info.ticks == f->ticks &&
        task->regs.r[UREG_RIP] == f->regs.r[UREG_RIP])
        return NULL;
    if ((how == HOW_MATCH || how == HOW_FAULT) && same_state(r, f, task))
        return NULL; // e.g. at a system call's exit; or a second signal in the same place
    uint64_t flush_value = 0;
    if (how == HOW_FLUSH) {
        cleanup(buf_deinit) struct buf data = {0};
        struct err *e;
        flush_value = record_bytes(r, f, &data, &e) / 8;
        TRY(e);
        if (!flush_value || !task->space->breakpoint_insn)
            return NULL;
    }
    TRY(task_install_thread_locals(r, task));
    struct space *s = task->space;
    TRY(space_recheck_code(r, s));
    gaddr address = break_address(f, task, how);
    if (stands_at_break(r, f, task, how, address, flush_value)) {
        task->dying |= how == HOW_MATCH;
        return NULL;
    }
    TRY(set_break(s, address, flush_value));
    peek_at(s, task);
    task->ptrace_entered = false;
    uint64_t left = max_icount;
    for (;;) {
        TRY(space_refresh_watch(r, s));
        if (r->instrumented)
            TRY(worker_set_icount(s->worker, r->now.event, r->now.icount));
        // A CPUID that faulted was the program's own wish.
        struct engine_request request = {.mode = r->mode,
                                         .max_icount = left,
                                         .answer_cpuid = how != HOW_FAULT,
                                         .clear_x87 = task->x87_cleared};
        if (how == HOW_MATCH) {
            if (f->ticks < task->info.ticks)
                return diverged(r, f, "ticks are %lld, the recording has %lld",
                                (long long)task->info.ticks, (long long)f->ticks);
            request.use_match = true;
            request.stop_ticks = (uint64_t)(f->ticks - task->info.ticks);
            request.match = f->regs;
        }
        if (how == HOW_SYSCALL)
            TRY(send_ahead(r, f, task, left));
        struct engine_result stop;
        TRY(worker_run(s->worker, task->info.slot, &request, &task->regs, &stop, &task->regs));
        task->x87_cleared = false;
        if (r->tell_block)
            TRY(tell_blocks(r, s));
        task->info.ticks += (int64_t)stop.ticks;
        r->now.icount += stop.icount;
        r->icount_total += stop.icount;
        r->icount_here += stop.icount;
        left -= stop.icount < left ? stop.icount : left;
        if (stop.reason == STOP_LIMIT || stop.reason == STOP_CONSUMER) {
            *out = stop.reason == STOP_LIMIT ? REACH_LIMIT : REACH_CONSUMER;
            return NULL;
        }
        bool arrived, passed;
        struct regs before = task->regs;
        if (stop.reason != STOP_BREAK && stop.reason != STOP_MATCH && left == 0 &&
            max_icount != UINT64_MAX) {
            // At the limit: an instruction that is carried out here would be one too many, but
            // arriving is not.
            bool may_pass =
                (stop.reason == STOP_TRAP && how != HOW_TRAP) ||
                (stop.reason == STOP_SYSCALL && before.r[UREG_RIP] >= RR_STUB_UNTRACED &&
                 before.r[UREG_RIP] < RR_PAGE + PAGE_SIZE);
            if (may_pass) {
                *out = REACH_LIMIT;
                return NULL;
            }
        }
        TRY(judge_stop(r, f, task, how, flush_value, &stop, &arrived, &passed));
        if (arrived) {
            if (how == HOW_MATCH && stop.reason == STOP_BREAK)
                task->dying = true;
            return NULL;
        }
        if (!passed)
            return unexpected_stop(r, f, task, &stop);
        if (before.r[UREG_RIP] != task->regs.r[UREG_RIP]) {
            // One instruction was carried out by us.
            r->now.icount++;
            r->icount_total++;
            r->icount_here++;
            left -= left ? 1 : 0;
            if (max_icount == UINT64_MAX)
                left = UINT64_MAX;
        }
    }
}
