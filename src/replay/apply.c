/* What each kind of frame does to the recorded state, once the program has got there. First comes
 * the proof that it got there as recorded: ticks and registers. */
#include "replay/replay_int.h"

#include "base/log.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Offsets in struct syscallbuf_hdr, the same in every release (rr preload_interface.h). */
enum {
    HDR_NUM_REC_BYTES = 0,
    HDR_MPROTECT_COUNTS = 4,
    HDR_ABORT_COMMIT = 12,
    HDR_SIGS_GENERATION = 24
};
enum { TL_RSEQ = 128 }; /* in struct preload_thread_locals, rr 5.7 and later */
enum { ENOSYS_RESULT = -38, SYSCALL_FLAGS = 0x246 };

struct err *diverged(const struct replay *r, const struct frame *f, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cleanup(freep) char *what = str_vformat(format, args);
    va_end(args);
    const char *call = f->kind == FRAME_SYSCALL
                           ? trace_syscall_name(r->trace, f->syscall_arch, f->syscall_no)
                           : NULL;
    return err_new(
        ERR_DIVERGED, "replay diverged at event %llu (%s%s%s%s), task %d: %s; last good event %llu",
        (unsigned long long)f->event, trace_frame_name(f->kind), call ? " " : "", call ? call : "",
        f->kind != FRAME_SYSCALL              ? ""
        : f->syscall_state == SYSCALL_EXITING ? " exit"
                                              : " entry",
        f->tid, what, (unsigned long long)f->event - 1);
}

static const char *const reg_names[UREG_COUNT] = {
    "r15",    "r14", "r13", "r12",     "rbp",     "rbx", "r11",      "r10", "r9",
    "r8",     "rax", "rcx", "rdx",     "rsi",     "rdi", "orig_rax", "rip", "cs",
    "eflags", "rsp", "ss",  "fs_base", "gs_base", "ds",  "es",       "fs",  "gs",
};

/* Compares as rr does (Registers.cc:compare_register_files), and rsp as well, which has always
 * agreed. `skip`: SKIP() bits. */
struct err *compare_regs(const struct replay *r, const struct frame *f, const struct regs *have,
                         uint32_t skip)
{
    skip |= SKIP(UREG_EFLAGS) | SKIP(UREG_CS) | SKIP(UREG_SS) | SKIP(UREG_DS) | SKIP(UREG_ES);
    if ((int64_t)have->r[UREG_ORIG_RAX] < 0 || (int64_t)f->regs.r[UREG_ORIG_RAX] < 0)
        skip |= SKIP(UREG_ORIG_RAX);
    for (uint32_t i = 0; i < UREG_COUNT; i++) {
        if (!(skip & SKIP(i)) && have->r[i] != f->regs.r[i])
            return diverged(r, f, "%s is %#llx, the recording has %#llx (rip %#llx, ticks %lld)",
                            reg_names[i], (unsigned long long)have->r[i],
                            (unsigned long long)f->regs.r[i], (unsigned long long)have->r[UREG_RIP],
                            (long long)f->ticks);
    }
    return NULL;
}

static struct err *check_ticks(const struct replay *r, const struct frame *f,
                               const struct task *task)
{
    if (task->info.ticks != f->ticks)
        return diverged(r, f, "ticks are %lld, the recording has %lld (rip %#llx)",
                        (long long)task->info.ticks, (long long)f->ticks,
                        (unsigned long long)task->regs.r[UREG_RIP]);
    return NULL;
}

/* Bytes which lie in more than one block of the trace's data. */
static struct err *apply_bytes(struct replay *r, struct space *s, gaddr addr, uint64_t data_offset,
                               uint64_t size)
{
    static const size_t step = 1 << 20;
    cleanup(freep) uint8_t *data = xmalloc(size < step ? (size_t)size : step);
    for (uint64_t done = 0; done < size;) {
        size_t n = size - done < step ? (size_t)(size - done) : step;
        TRY(trace_read_data(r->cursor, data_offset + done, data, n));
        TRY(space_write(r, s, addr + done, data, n));
        done += n;
    }
    return NULL;
}

/* The first `len` bytes of a write. It may be large, and its holes larger than memory. */
static struct err *apply_write(struct replay *r, struct space *s, const struct mem_write *w,
                               uint64_t len)
{
    struct write_piece piece;
    for (size_t i = 0; mem_write_piece(w, i, &piece) && piece.offset < len; i++) {
        uint64_t size = piece.size < len - piece.offset ? piece.size : len - piece.offset;
        const uint8_t *data;
        size_t n;
        if (!size)
            continue;
        if (piece.hole) {
            TRY(space_zero(r, s, w->addr + piece.offset, size));
            continue;
        }
        TRY(trace_data_at(r->cursor, piece.data_offset, &data, &n));
        if (n >= size)
            TRY(space_write(r, s, w->addr + piece.offset, data, size));
        else
            TRY(apply_bytes(r, s, w->addr + piece.offset, piece.data_offset, size));
    }
    return NULL;
}

/* The frame's writes from `first` on, each into the space of its own task. */
struct err *apply_writes(struct replay *r, const struct frame *f, size_t first)
{
    for (size_t i = first; i < f->write_count; i++) {
        const struct mem_write *w = &f->writes[i];
        if (w->size == 0 || w->addr == 0)
            continue;
        struct task *task = task_by_tid(r, w->tid);
        if (!task)
            return err_new(ERR_FORMAT, "event %llu: write %zu is for unknown task %d",
                           (unsigned long long)f->event, i, w->tid);
        if (task->space->is_32bit) {
            TRY(passed_over_write(r, f, task, w));
            continue;
        }
        if (w->addr >= RR_THREAD_LOCALS && w->addr < RR_THREAD_LOCALS + PAGE_SIZE)
            TRY(task_install_thread_locals(r, task));
        uint64_t len = w->size;
        if (w->size_is_conservative || f->kind == FRAME_SIGNAL_HANDLER) {
            // The recorder did not look where the mapping ends.
            gaddr end = w->addr;
            const struct mapping *m;
            while (end - w->addr < len && (m = space_mapping_at(task->space, end)))
                end = m->end;
            if (end - w->addr < len)
                len = end - w->addr;
        }
        TRY(err_prefix(apply_write(r, task->space, w, len), "event %llu: write %zu",
                       (unsigned long long)f->event, i));
    }
    return NULL;
}

static struct err *map_all(struct replay *r, struct space *s, const struct frame *f)
{
    for (size_t i = 0; i < f->mmap_count; i++)
        TRY(space_map_record(r, s, &f->mmaps[i], 0, false));
    return NULL;
}

/* --- clone, fork, vfork --- */

struct err *create_child(struct replay *r, const struct frame *f, struct task *parent,
                         struct task **out, uint32_t *flags_out)
{
    const struct trace_task_event *event = NULL;
    for (size_t i = 0; i < f->task_count; i++) {
        if (f->tasks[i].kind == TASK_CLONE)
            event = &f->tasks[i];
    }
    if (!event)
        return err_new(ERR_FORMAT, "event %llu: no record of the task that clone made",
                       (unsigned long long)f->event);
    uint32_t flags = event->clone_flags;
    bool shares = flags & CLONE_VM;
    struct space *s = parent->space;
    if (!shares)
        TRY(space_copy(r, parent->space, &s));
    struct task *child;
    TRY(task_create(r, event->tid, s, parent->info.serial, &child));
    fd_table_release(child->fds);
    child->fds = flags & CLONE_FILES ? fd_table_share(parent->fds) : fd_table_copy(parent->fds);
    child->x87_cleared = parent->x87_cleared;
    child->own_ns_tid = event->own_ns_tid ? event->own_ns_tid : event->tid;
    if (!(flags & CLONE_NEWPID) && child->own_ns_tid != 1)
        child->pid_ns = parent->pid_ns;
    child->info.tgid = flags & CLONE_THREAD ? parent->info.tgid : event->tid;
    if (!shares) {
        s->task_count = 1;
        child->info.slot = parent->info.slot;
        s->next_slot = parent->info.slot + 1;
        s->thread_locals_of = 0;
    } else {
        struct xstate x;
        TRY(worker_get_xstate(s->worker, parent->info.slot, &x));
        TRY(worker_set_xstate(s->worker, child->info.slot, &x));
    }
    if (!shares) {
        child->rseq = parent->rseq;
        child->rseq_len = parent->rseq_len;
        child->rseq_sig = parent->rseq_sig;
    }
    child->regs = parent->regs;
    child->regs.r[UREG_RAX] = 0;
    *out = child;
    *flags_out = flags;
    return NULL;
}

static struct err *apply_clone(struct replay *r, const struct frame *f, struct task *parent)
{
    if (f->mmap_count == 0)
        return err_new(ERR_FORMAT, "event %llu: clone without scratch memory",
                       (unsigned long long)f->event);
    TRY(task_install_thread_locals(r, parent));
    struct task *child;
    uint32_t flags;
    TRY(create_child(r, f, parent, &child, &flags));
    struct space *s = child->space;
    bool shares = s == parent->space;
    child->regs.r[UREG_RCX] = UINT64_MAX;
    child->regs.r[UREG_R11] = child->regs.r[UREG_EFLAGS] = SYSCALL_FLAGS;
    if (f->syscall_no == SYS_clone) {
        if (parent->regs.r[UREG_RSI])
            child->regs.r[UREG_RSP] = parent->regs.r[UREG_RSI];
        if (flags & CLONE_SETTLS)
            child->regs.r[UREG_FS_BASE] = parent->regs.r[UREG_R8];
    }
    if (!shares) {
        if (r->observer.space_created)
            TRY(r->observer.space_created(r->observer.ctx, r, s->uid, parent->space->uid));
        // Buffers of threads that do not exist in the copy.
        vec_each (it, &r->tasks) {
            struct task *other = *it;
            if (other->space != parent->space || other == parent || other->buffers_freed)
                continue;
            TRY(space_unmap(r, s, other->scratch_start, other->scratch_end));
            if (other->syscallbuf)
                TRY(space_unmap(r, s, other->syscallbuf, other->syscallbuf_end));
        }
        TRY(space_drop_dontfork(r, s));
    }
    for (size_t i = 0; i < f->mmap_count; i++)
        TRY(space_map_record(r, s, &f->mmaps[i], 0,
                             i == f->mmap_count - 1 || f->mmaps[i].start == RR_THREAD_LOCALS));
    child->scratch_start = f->mmaps[f->mmap_count - 1].start;
    child->scratch_end = f->mmaps[f->mmap_count - 1].end;
    TRY(task_init_thread_locals(r, child, parent));
    if (!shares)
        TRY(task_install_thread_locals(r, child));
    if (r->observer.task_created)
        r->observer.task_created(r->observer.ctx, r, child->info.serial, parent->info.serial);
    return NULL;
}

/* --- system calls --- */

static bool is_clone(const struct frame *f)
{
    return f->syscall_arch == ARCH_X86_64 &&
           (f->syscall_no == SYS_clone || f->syscall_no == SYS_fork || f->syscall_no == SYS_vfork);
}

static bool last_of_group(const struct replay *r, const struct task *task)
{
    vec_each (it, &r->tasks) {
        if (*it != task && (*it)->info.tgid == task->info.tgid)
            return false;
    }
    return true;
}

bool already_entered(const struct replay *r, const struct frame *f, const struct task *task)
{
    if (!task->ptrace_entered || f->kind != FRAME_SYSCALL || f->syscall_state != SYSCALL_ENTERING ||
        task->info.ticks != f->ticks)
        return false;
    struct err *e = compare_regs(r, f, &task->regs, 0);
    err_free(e);
    return !e;
}

static struct err *apply_enter(struct replay *r, const struct frame *f, struct task *task)
{
    bool restart = f->syscall_no == (f->syscall_arch == ARCH_X86_64 ? 219 : 0);
    if (!restart && !r->skip_next_stop && !already_entered(r, f, task)) {
        uint64_t *reg = task->regs.r;
        reg[UREG_RIP] = f->regs.r[UREG_RIP];
        reg[UREG_ORIG_RAX] = f->regs.r[UREG_RIP] == RR_STUB_RECORD_ONLY + 2 ||
                                     f->regs.r[UREG_RIP] == RR_STUB_P_RECORD + 2
                                 ? f->regs.r[UREG_ORIG_RAX]
                                 : reg[UREG_RAX];
        reg[UREG_RAX] = (uint64_t)ENOSYS_RESULT;
        if (f->syscall_arch == ARCH_X86_64) {
            reg[UREG_RCX] = UINT64_MAX;
            reg[UREG_R11] = SYSCALL_FLAGS;
        } else {
            reg[UREG_R8] = reg[UREG_R9] = reg[UREG_R10] = reg[UREG_R11] = 0;
        }
        TRY(compare_regs(r, f, &task->regs, 0));
    }
    task_load_regs(task, &f->regs);
    task->info.in_syscall = true;
    task->ptrace_entered = f->syscall_state == SYSCALL_ENTERING_PTRACE;
    if (f->syscall_state == SYSCALL_ENTERING_PTRACE)
        return apply_writes(r, f, 0);
    if (is_clone(f) && !f->failed_during_preparation) {
        TRY(apply_clone(r, f, task));
    } else if (f->syscall_arch == ARCH_X86_64 &&
               (f->syscall_no == SYS_exit ||
                (f->syscall_no == SYS_exit_group && last_of_group(r, task)))) {
        TRY(apply_writes(r, f, 0));
        return task_free_buffers(r, task);
    } else {
        if (f->syscall_arch == ARCH_X86_64 && f->syscall_no == SYS_ptrace)
            TRY(ptrace_enter(r, f, task));
        TRY(map_all(r, task->space, f));
    }
    return apply_writes(r, f, 0);
}

static struct err *apply_mremap(struct replay *r, const struct frame *f, struct task *task)
{
    const uint64_t *reg = f->regs.r;
    uint64_t round = PAGE_SIZE - 1;
    uint64_t old_len = (reg[UREG_RSI] + round) & ~round, new_len = (reg[UREG_RDX] + round) & ~round;
    if (old_len < reg[UREG_RSI] || new_len < reg[UREG_RDX])
        return err_new(ERR_FORMAT, "event %llu: mremap sizes make no sense",
                       (unsigned long long)f->event);
    bool keep = reg[UREG_R10] & 4; // MREMAP_DONTUNMAP
    TRY(space_move(r, task->space, reg[UREG_RDI], old_len, reg[UREG_RAX], new_len, keep));
    // The first record describes what moved, a second one what was added.
    for (size_t i = 1; i < f->mmap_count; i++)
        TRY(space_map_record(r, task->space, &f->mmaps[i], 0, false));
    return NULL;
}

static struct err *apply_brk(struct replay *r, const struct frame *f, struct task *task)
{
    for (size_t i = 0; i < f->mmap_count; i++) {
        const struct trace_mmap *m = &f->mmaps[i];
        if (m->start == m->end)
            continue;
        if (m->flags)
            TRY(space_map_record(r, task->space, m, 0, true));
        else
            TRY(space_unmap(r, task->space, m->start, m->end));
    }
    return NULL;
}

static struct err *apply_madvise(struct replay *r, const struct frame *f, struct task *task)
{
    const uint64_t *reg = f->regs.r;
    for (size_t i = 0; i < f->madvise_range_count; i++)
        TRY(space_discard(r, task->space, f->madvise_ranges[i].start, f->madvise_ranges[i].end,
                          (int)reg[UREG_RDX]));
    // ENOMEM: there are gaps, and the rest was done (madvise(2)). rr 5.8 and later say what was
    // done if a call failed.
    if (f->extra == EXTRA_MADVISE_RANGES ||
        ((int64_t)reg[UREG_RAX] < 0 && (int64_t)reg[UREG_RAX] != -ENOMEM))
        return NULL;
    return space_discard(r, task->space, reg[UREG_RDI], reg[UREG_RDI] + reg[UREG_RSI],
                         (int)reg[UREG_RDX]);
}

/* Unmaps the attachment that begins at the address. */
static struct err *apply_shmdt(struct replay *r, const struct frame *f, struct task *task)
{
    gaddr start = f->regs.r[UREG_RDI], end = start;
    const struct mapping *m = space_mapping_at(task->space, start);
    struct object *o = m ? m->object : NULL;
    while (m && o && m->object == o && m->offset == end - start) {
        end = m->end;
        m = space_mapping_at(task->space, end);
    }
    return space_unmap(r, task->space, start, end);
}

static struct err *apply_init_preload(struct replay *r, const struct frame *f, struct task *task)
{
    uint8_t params[96];
    TRY(space_read(task->space, f->regs.r[UREG_RDI], params, sizeof(params)));
    task->space->globals = load_u64(params + 64);
    task->space->breakpoint_insn = load_u64(params + 72);
    TRY(apply_writes(r, f, 0));
    static const uint8_t one = 1;
    if (trace_header(r->trace)->uses_globals_in_replay)
        TRY(space_write(r, task->space, task->space->globals, &one, 1)); // in_replay
    return NULL;
}

static struct err *apply_init_buffers(struct replay *r, const struct frame *f, struct task *task)
{
    for (size_t i = 0; i < f->mmap_count; i++) {
        TRY(space_map_record(r, task->space, &f->mmaps[i], 0, true));
        task->syscallbuf = f->mmaps[i].start;
        task->syscallbuf_end = f->mmaps[i].end;
    }
    TRY(apply_writes(r, f, 0));
    return f->mmap_count ? cloned_init(task, f->regs.r[UREG_RDI]) : NULL;
}

/* Effects on memory mappings and rr's own structures. */
static struct err *apply_special(struct replay *r, const struct frame *f, struct task *task,
                                 bool *writes_done)
{
    const uint64_t *reg = f->regs.r;
    bool failed = (int64_t)reg[UREG_RAX] < 0 && (int64_t)reg[UREG_RAX] >= -4095;
    int32_t rrcall = f->syscall_no - trace_header(r->trace)->rrcall_base;
    if (f->syscall_arch != ARCH_X86_64)
        return failed ? NULL : map_all(r, task->space, f);
    if (rrcall == 0 || rrcall == 1) {
        *writes_done = true;
        return rrcall == 0 ? apply_init_preload(r, f, task) : apply_init_buffers(r, f, task);
    }
    switch (f->syscall_no) {
    case SYS_mprotect:
    case SYS_pkey_mprotect:
        return space_protect(r, task->space, reg[UREG_RDI], reg[UREG_RDI] + reg[UREG_RSI],
                             (int)reg[UREG_RDX], (int64_t)reg[UREG_RAX]);
    case SYS_madvise:
        return apply_madvise(r, f, task);
    case SYS_brk:
        return apply_brk(r, f, task);
    }
    if (failed)
        return NULL;
    switch (f->syscall_no) {
    case SYS_munmap:
        return space_unmap(r, task->space, reg[UREG_RDI],
                           (reg[UREG_RDI] + reg[UREG_RSI] + PAGE_SIZE - 1) &
                               ~(uint64_t)(PAGE_SIZE - 1));
    case SYS_mremap:
        return apply_mremap(r, f, task);
    case SYS_shmdt:
        return apply_shmdt(r, f, task);
    case SYS_read:
        cloned_traced_read(task, &f->regs);
        return NULL;
    case SYS_ptrace:
        return ptrace_exit(r, f, task);
    case SYS_rseq:
        task->rseq = reg[UREG_RDX] & 1 ? 0 : reg[UREG_RDI];
        task->rseq_len = (uint32_t)reg[UREG_RSI];
        task->rseq_sig = (uint32_t)reg[UREG_R10];
        return NULL;
    default:
        return map_all(r, task->space, f);
    }
}

static struct err *apply_exit_of_syscall(struct replay *r, const struct frame *f)
{
    int64_t result = (int64_t)f->regs.r[UREG_RAX];
    bool exec = (f->syscall_arch == ARCH_X86_64 &&
                 (f->syscall_no == SYS_execve || f->syscall_no == SYS_execveat)) ||
                (f->syscall_arch == ARCH_X86 && (f->syscall_no == 11 || f->syscall_no == 358));
    if (exec && result == 0)
        return apply_exec(r, f);
    struct task *task = task_by_tid(r, f->tid);
    if (!task)
        return err_new(ERR_FORMAT, "event %llu: unknown task %d", (unsigned long long)f->event,
                       f->tid);
    if (task->space->is_32bit)
        return apply_passed_over(r, f, task);
    task->info.in_syscall = false;
    task->ptrace_entered = false;
    bool sigreturn = f->syscall_arch == ARCH_X86_64 ? f->syscall_no == SYS_rt_sigreturn
                                                    : f->syscall_no == 119 || f->syscall_no == 173;
    bool vetoed = (int64_t)f->regs.r[UREG_ORIG_RAX] == -2;
    if (!task->dying)
        TRY(check_ticks(r, f, task));
    if (!sigreturn && !vetoed && !task->dying)
        TRY(compare_regs(r, f, &task->regs,
                         SKIP(UREG_RAX) | SKIP(UREG_ORIG_RAX) | SKIP(UREG_RDX) |
                             SKIP(UREG_FS_BASE) | SKIP(UREG_GS_BASE)));
    bool interrupted =
        !sigreturn && (result == -512 || result == -513 || result == -514 || result == -516);
    bool writes_done = false;
    if (!interrupted && !sigreturn && !vetoed)
        TRY(err_prefix(apply_special(r, f, task, &writes_done), "event %llu",
                       (unsigned long long)f->event));
    if (!interrupted && !vetoed)
        TRY(fds_exit_of_syscall(r, f, task));
    if (!writes_done)
        TRY(apply_writes(r, f, 0));
    task_load_regs(task, &f->regs);
    return task_load_xstate(r, task, f);
}

/* --- the rest --- */

/* A restartable sequence that was interrupted goes to its abort handler (rr
 * Task.cc:should_apply_rseq_abort). */
static struct err *abort_rseq(struct replay *r, struct task *task, bool by_signal)
{
    if (!task->rseq)
        return NULL;
    uint8_t area[20], descriptor[32], signature[4];
    struct err *e = space_read(task->space, task->rseq, area, sizeof(area));
    if (!e && load_u64(area + 8))
        e = space_read(task->space, load_u64(area + 8), descriptor, sizeof(descriptor));
    else if (!e)
        return NULL;
    gaddr abort_ip = e ? 0 : load_u64(descriptor + 24);
    if (!e)
        e = space_read(task->space, abort_ip - 4, signature, sizeof(signature));
    if (e) {
        err_free(e); // no such sequence
        return NULL;
    }
    uint64_t start = load_u64(descriptor + 8), len = load_u64(descriptor + 16),
             rip = task->regs.r[UREG_RIP];
    uint32_t inhibited = load_u32(descriptor + 4) | load_u32(area + 16);
    if (load_u32(descriptor) != 0 || start + len < start || abort_ip - start < len ||
        rip - start >= len || (inhibited & (by_signal ? 2 : 1)) ||
        load_u32(signature) != task->rseq_sig)
        return NULL;
    task->regs.r[UREG_RIP] = abort_ip;
    return NULL;
}

static struct err *apply_reset(struct replay *r, struct task *task)
{
    if (!task->syscallbuf)
        return NULL;
    uint32_t header = trace_header(r->trace)->syscallbuf_hdr_size, bytes;
    TRY(space_read(task->space, task->syscallbuf, &bytes, sizeof(bytes)));
    if (bytes > task->syscallbuf_end - task->syscallbuf - header)
        return err_new(ERR_FORMAT, "syscall buffer holds %u bytes, more than its size", bytes);
    cleanup(freep) uint8_t *zeros = xcalloc(1, bytes + 12);
    TRY(space_write(r, task->space, task->syscallbuf + header, zeros, bytes));
    TRY(space_write(r, task->space, task->syscallbuf + HDR_NUM_REC_BYTES, zeros, 12));
    return space_write(r, task->space, task->syscallbuf + HDR_SIGS_GENERATION, zeros, 4);
}

static struct err *apply_exit(struct replay *r, const struct frame *f, struct task *task)
{
    TRY(apply_writes(r, f, 0));
    TRY(task_free_buffers(r, task));
    struct space *s = task->space;
    if (r->observer.task_ended)
        r->observer.task_ended(r->observer.ctx, r, task->info.serial);
    if (--s->task_count == 0)
        TRY(space_end(r, s));
    else
        TRY(worker_drop_task(s->worker, task->info.slot));
    task_destroy(r, task);
    return NULL;
}

static struct err *apply_signal(struct replay *r, const struct frame *f, struct task *task)
{
    bool fault = f->signal_deterministic;
    if (!task->dying && !r->skip_next_stop) {
        TRY(check_ticks(r, f, task));
        TRY(compare_regs(r, f, &task->regs, 0));
    }
    if (!fault)
        TRY(abort_rseq(r, task, true));
    return apply_writes(r, f, 0);
}

static struct err *apply_patch_syscall(struct replay *r, const struct frame *f, struct task *task)
{
    TRY(check_ticks(r, f, task));
    TRY(compare_regs(r, f, &task->regs, SKIP(UREG_RCX) | SKIP(UREG_R11) | SKIP(UREG_ORIG_RAX)));
    task_load_regs(task, &f->regs);
    TRY(map_all(r, task->space, f));
    return apply_writes(r, f, 0);
}

static struct err *apply_trap(struct replay *r, const struct frame *f, struct task *task)
{
    TRY(check_ticks(r, f, task));
    TRY(compare_regs(r, f, &task->regs,
                     SKIP(UREG_RIP) | SKIP(UREG_RAX) | SKIP(UREG_RBX) | SKIP(UREG_RCX) |
                         SKIP(UREG_RDX)));
    task_load_regs(task, &f->regs);
    return apply_writes(r, f, 0);
}

/* From rr 5.7 on rseq(2) is buffered, and the preload library tells of it in the thread-locals
 * page. */
static struct err *take_rseq(struct replay *r, struct task *task)
{
    uint8_t told[16];
    if (trace_header(r->trace)->uses_globals_in_replay ||
        !space_mapping_at(task->space, RR_THREAD_LOCALS))
        return NULL;
    TRY(task_install_thread_locals(r, task));
    TRY(space_read(task->space, RR_THREAD_LOCALS + TL_RSEQ, told, sizeof(told)));
    if (load_u32(told + 8)) {
        task->rseq = load_u64(told);
        task->rseq_len = load_u32(told + 8);
        task->rseq_sig = load_u32(told + 12);
    }
    return NULL;
}

static struct err *apply_flush(struct replay *r, const struct frame *f, struct task *task)
{
    // A flush that happened no later than this point was caused by the task's death within the
    // hook; the next stop is then not executed.
    if (trace_header(r->trace)->buffered_syscall_forced_tick && task->space->breakpoint_insn &&
        task->regs.r[UREG_RIP] == task->space->breakpoint_insn && f->ticks <= task->info.ticks)
        r->skip_next_stop = true;
    TRY(take_rseq(r, task));
    return apply_writes(r, f, 1);
}

/* Puts a signal handler on the task's stack of calls: its return address is where the new RSP
 * points. */
static struct err *push_handler(struct replay *r, const struct frame *f, const struct task *task)
{
    const struct stack_entry entry = {.stamp = r->now.event,
                                      .icount = r->now.icount,
                                      .return_addr = task->regs.r[UREG_RIP],
                                      .sp = f->regs.r[UREG_RSP],
                                      .slot = task->info.slot};
    return worker_push_call(task->space->worker, &entry);
}

static struct err *apply(struct replay *r, const struct frame *f)
{
    if (r->tasks.count == 0 || (f->kind == FRAME_SYSCALL && f->syscall_state == SYSCALL_EXITING)) {
        // Before the first exec there is nothing to apply to: rr's own child is not recorded.
        bool first_exec = f->kind == FRAME_SYSCALL && f->syscall_state == SYSCALL_EXITING &&
                          f->regs.r[UREG_RAX] == 0 &&
                          (f->syscall_arch == ARCH_X86_64
                               ? f->syscall_no == SYS_execve || f->syscall_no == SYS_execveat
                               : f->syscall_no == 11 || f->syscall_no == 358);
        if (r->tasks.count == 0 && (!first_exec || r->last_task > 0))
            return NULL;
        return apply_exit_of_syscall(r, f);
    }
    struct task *task = task_by_tid(r, f->tid);
    if (!task) {
        if (f->kind == FRAME_SYSCALLBUF_RESET)
            return NULL;
        return err_new(ERR_FORMAT, "event %llu: unknown task %d", (unsigned long long)f->event,
                       f->tid);
    }
    if (task->space->is_32bit && f->kind != FRAME_EXIT)
        return apply_passed_over(r, f, task);
    bool skipping = r->skip_next_stop;
    struct err *e = NULL;
    switch (f->kind) {
    case FRAME_SYSCALL:
        if (!skipping && !task->dying)
            e = check_ticks(r, f, task);
        if (!e)
            e = apply_enter(r, f, task);
        break;
    case FRAME_INSTRUCTION_TRAP:
        e = apply_trap(r, f, task);
        break;
    case FRAME_PATCH_SYSCALL:
        e = apply_patch_syscall(r, f, task);
        break;
    case FRAME_PATCH_TRAPPING_INSTRUCTION:
        e = check_ticks(r, f, task);
        if (!e)
            e = compare_regs(r, f, &task->regs, SKIP(UREG_ORIG_RAX));
        // fall through
    case FRAME_PATCH_VSYSCALL:
    case FRAME_PATCH_AFTER_SYSCALL:
    case FRAME_GROW_MAP:
        if (!e)
            e = map_all(r, task->space, f);
        if (!e)
            e = apply_writes(r, f, 0);
        break;
    case FRAME_SYSCALLBUF_ABORT_COMMIT:
        if (task->syscallbuf) {
            static const uint8_t one = 1;
            e = space_write(r, task->space, task->syscallbuf + HDR_ABORT_COMMIT, &one, 1);
        }
        if (!e)
            e = apply_writes(r, f, 0);
        break;
    case FRAME_SYSCALLBUF_RESET:
        e = apply_reset(r, task);
        break;
    case FRAME_SYSCALLBUF_FLUSH:
        e = apply_flush(r, f, task);
        break;
    case FRAME_SCHED:
        if (!task->dying && !skipping) {
            e = check_ticks(r, f, task);
            if (!e)
                e = compare_regs(r, f, &task->regs, 0);
        }
        if (!e)
            e = abort_rseq(r, task, false);
        if (!e)
            e = apply_writes(r, f, 0);
        break;
    case FRAME_SIGNAL:
        e = apply_signal(r, f, task);
        break;
    case FRAME_SIGNAL_HANDLER:
    case FRAME_SIGNAL_DELIVERY:
        e = apply_writes(r, f, 0);
        if (!e && f->kind == FRAME_SIGNAL_HANDLER && engine_keeps_calls(r->mode))
            e = push_handler(r, f, task);
        task_load_regs(task, &f->regs);
        if (!e && f->kind == FRAME_SIGNAL_HANDLER)
            e = task_load_xstate(r, task, f);
        break;
    case FRAME_EXIT:
        e = apply_exit(r, f, task);
        break;
    case FRAME_KIND_COUNT:
        break;
    }
    if (skipping && (f->kind == FRAME_SYSCALL || f->kind == FRAME_SCHED || f->kind == FRAME_SIGNAL))
        r->skip_next_stop = false;
    return e;
}

struct err *apply_frame(struct replay *r, const struct frame *f)
{
    TRY(apply(r, f));
    struct task *task = trace_header(r->trace)->clear_fip_fdp ? task_by_tid(r, f->tid) : NULL;
    if (task)
        task->x87_cleared = true; // src/RecordTask.cc:RecordTask::record_event
    return f->mmap_count ? check_outside(r, f) : NULL;
}
