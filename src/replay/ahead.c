/* Sending the worker ahead. The trace says what comes: this system call, its results, the next one
 * of the same task. So the worker is told all of that with the run towards the first, and goes on
 * by itself while it stops where the trace says (worker.h). The main loop then goes through the
 * same frames as ever, with every check; only that worker_run() has its answer already.
 *
 * What is foretold here has to be exactly what the main loop will do: worker_run() compares. So
 * only system calls are passed over whose exit does nothing but write to memory of this space and
 * load registers. Invariant: nobody looks into the worker while it is ahead: it is never sent
 * beyond the moment up to which the replay runs, nor beyond an event at which an observer wants to
 * look. */
#include "replay/replay_int.h"

#include <sys/syscall.h>

enum { MAX_WRITE = 4096, SYSCALL_LEN = 2 };

/* Has the exit effects on mappings, tasks, descriptors or anything else beside registers and memory
 * (apply.c, fds.c)? */
static bool has_other_effects(const struct replay *r, int32_t number)
{
    switch (number) {
    case SYS_mmap:
    case SYS_munmap:
    case SYS_mremap:
    case SYS_mprotect:
    case SYS_pkey_mprotect:
    case SYS_madvise:
    case SYS_brk:
    case SYS_shmat:
    case SYS_shmdt:
    case SYS_clone:
    case SYS_clone3:
    case SYS_fork:
    case SYS_vfork:
    case SYS_execve:
    case SYS_execveat:
    case SYS_exit:
    case SYS_exit_group:
    case SYS_ptrace:
    case SYS_rseq:
    case SYS_rt_sigreturn:
    case SYS_restart_syscall:
    case SYS_unshare:
        return true;
    default:
        return number < 0 || number >= trace_header(r->trace)->rrcall_base;
    }
}

/* The entry of a system call that is reached by running up to the instruction, and does nothing but
 * that. */
static bool is_plain_entry(const struct replay *r, const struct frame *f)
{
    gaddr at = f->regs.r[UREG_RIP] - SYSCALL_LEN;
    return f->kind == FRAME_SYSCALL && f->syscall_state == SYSCALL_ENTERING &&
           f->syscall_arch == ARCH_X86_64 && f->arch == ARCH_X86_64 &&
           !has_other_effects(r, f->syscall_no) && (int64_t)f->regs.r[UREG_ORIG_RAX] >= 0 &&
           at != RR_STUB_RECORD_ONLY && at != RR_STUB_P_RECORD && !f->failed_during_preparation &&
           !f->write_count && !f->mmap_count && !f->task_count;
}

/* Writes that become one command each. */
static bool are_plain_writes(const struct space *s, const struct frame *f, size_t *total)
{
    for (size_t i = 0; i < f->write_count; i++) {
        const struct mem_write *w = &f->writes[i];
        if (w->size > MAX_WRITE || w->hole_count || w->size_is_conservative || w->tid != f->tid)
            return false;
        if (w->addr < RR_THREAD_LOCALS + PAGE_SIZE && w->addr + w->size > RR_THREAD_LOCALS)
            return false;
        for (gaddr at = w->addr; at < w->addr + w->size;) {
            const struct mapping *m = space_mapping_at(s, at);
            if (!m || m->object)
                return false;
            at = m->end;
        }
        *total += w->size;
    }
    return *total <= WORKER_AHEAD_BYTES;
}

static bool is_plain_exit(const struct space *s, const struct frame *entry, const struct frame *f,
                          size_t *total)
{
    return f->kind == FRAME_SYSCALL && f->syscall_state == SYSCALL_EXITING &&
           f->syscall_arch == ARCH_X86_64 && f->syscall_no == entry->syscall_no &&
           f->tid == entry->tid && f->ticks == entry->ticks && !f->extra_regs &&
           (int64_t)f->regs.r[UREG_ORIG_RAX] != -2 && !f->mmap_count && !f->task_count &&
           !f->opened_fd_count && are_plain_writes(s, f, total);
}

static bool may_look(const struct replay *r, const struct frame *f)
{
    return r->observer.looks && r->observer.looks(r->observer.ctx, f);
}

/* What the run to an entry has come to when it stops (apply.c:apply_enter, and what of it the
 * kernel does). */
static struct worker_stop stop_at(const struct frame *f, int64_t ticks_before)
{
    struct worker_stop stop = {.regs = f->regs,
                               .ticks = (uint64_t)(f->ticks - ticks_before),
                               .reason = STOP_SYSCALL,
                               .insn_len = SYSCALL_LEN};
    stop.regs.r[UREG_RIP] -= SYSCALL_LEN;
    stop.regs.r[UREG_RAX] = f->regs.r[UREG_ORIG_RAX];
    stop.mask = SKIP(UREG_RIP) | SKIP(UREG_RSP) | SKIP(UREG_FS_BASE) | SKIP(UREG_GS_BASE);
    for (unsigned i = UREG_R15; i <= UREG_RDI; i++)
        stop.mask |= SKIP(i);
    stop.mask &= ~(SKIP(UREG_RCX) | SKIP(UREG_R11)); // the instruction overwrites them
    return stop;
}

static struct err *foretell_exit(struct replay *r, struct space *s, const struct task *task,
                                 const struct frame *f)
{
    for (size_t i = 0; i < f->write_count; i++) {
        const struct mem_write *w = &f->writes[i];
        uint8_t data[MAX_WRITE];
        if (!w->size || !w->addr)
            continue;
        TRY(trace_read_data(r->cursor, w->data_offset, data, (size_t)w->size));
        TRY(worker_queue_write(s->worker, w->addr, data, (size_t)w->size));
    }
    if (r->instrumented)
        TRY(worker_set_icount(s->worker, f->event, 0));
    struct task after = *task;
    task_load_regs(&after, &f->regs);
    return worker_ahead_run(s->worker, task->info.slot, &after.regs);
}

struct err *send_ahead(struct replay *r, const struct frame *f, struct task *task,
                       uint64_t max_icount)
{
    enum { NOT_WORTH_IT = 10000 };
    struct space *s = task->space;
    bool watched = r->observer.event || r->observer.wrote || r->observer.remapped;
    if (!is_plain_entry(r, f) || max_icount < NOT_WORTH_IT || r->tell_block ||
        (watched && !r->observer.looks) || task->dying || task->fds->entries.count ||
        s->thread_locals_of != task->info.serial || s->break_set || may_look(r, f))
        return NULL;
    size_t total = 0;
    int64_t ticks = task->info.ticks;
    struct err *e = NULL;
    bool begun = false;
    for (size_t n = 0; n < WORKER_MAX_AHEAD && !e; n++) {
        const struct frame *exit = trace_cursor_ahead(r->cursor, 2 * n),
                           *next = trace_cursor_ahead(r->cursor, 2 * n + 1);
        if (!exit || !next || next->event > r->until.event || next->tid != f->tid ||
            !is_plain_exit(s, f, exit, &total) || !is_plain_entry(r, next) || may_look(r, exit) ||
            may_look(r, next))
            break;
        if (!begun && !worker_ahead_begin(s->worker))
            return NULL;
        begun = true;
        const struct worker_stop stop = stop_at(f, ticks);
        e = worker_ahead_stop(s->worker, &stop);
        if (!e)
            e = foretell_exit(r, s, task, exit);
        ticks = f->ticks;
        f = next;
    }
    if (begun)
        worker_ahead_end(s->worker);
    return e;
}
