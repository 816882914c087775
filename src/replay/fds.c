/* Descriptors of /proc/PID/mem. What a recorded program writes to one of them goes into the memory
 * of another (or of itself); the recorder does not store such writes, so they are done again here
 * (rr ProcMemMonitor.cc). To know which descriptor is one, tables of descriptors are kept as the
 * kernel keeps them: shared by CLONE_FILES, copied by fork, filtered by exec. They hold nothing
 * else. Targets are spaces by uid; an exec of the target makes the descriptor useless, as it does
 * in the kernel. */
#include "replay/replay_int.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>

struct fd_table *fd_table_create(void)
{
    struct fd_table *t = xnew(struct fd_table);
    t->users = 1;
    return t;
}

struct fd_table *fd_table_share(struct fd_table *t)
{
    t->users++;
    return t;
}

struct fd_table *fd_table_copy(const struct fd_table *from)
{
    struct fd_table *t = fd_table_create();
    vec_each (e, &from->entries)
        vec_push(&t->entries, *e);
    return t;
}

void fd_table_release(struct fd_table *t)
{
    if (!t || --t->users)
        return;
    vec_deinit(&t->entries);
    free(t);
}

static uint32_t target_of(const struct fd_table *t, int32_t fd)
{
    vec_each (e, &t->entries) {
        if (e->fd == fd)
            return e->space;
    }
    return 0;
}

/* space 0: the descriptor is not, or no longer, one of these. */
static void set_target(struct fd_table *t, int32_t fd, uint32_t space)
{
    for (size_t i = 0; i < t->entries.count; i++) {
        if (t->entries.items[i].fd == fd) {
            t->entries.items[i] = t->entries.items[--t->entries.count];
            break;
        }
    }
    if (space)
        vec_push(&t->entries, (struct fd_entry){fd, space});
}

static void own_table(struct task *task)
{
    struct fd_table *copy = fd_table_copy(task->fds);
    fd_table_release(task->fds);
    task->fds = copy;
}

void fds_exec(struct task *task, const struct frame *f)
{
    own_table(task);
    for (size_t i = 0; i < f->exec_fd_count; i++)
        set_target(task->fds, f->exec_fds[i], 0);
}

uint32_t space_of_path(struct replay *r, const char *path)
{
    int tid, end = 0;
    if (!path)
        return 0;
    if ((sscanf(path, "/proc/%d/mem%n", &tid, &end) != 1 || !end) &&
        (sscanf(path, "/proc/%*d/task/%d/mem%n", &tid, &end) != 1 || !end))
        return 0;
    struct task *target = path[end] ? NULL : task_by_tid(r, tid);
    return target ? target->space->uid : 0;
}

/* Copies what the task wrote into the target, from its `offset` on, which moves on. */
static struct err *copy_range(struct replay *r, struct task *task, uint32_t target, gaddr from,
                              uint64_t len, gaddr *offset)
{
    struct space *s = space_by_uid(r, target);
    if (!s || s->is_32bit)
        return NULL; // it has ended or executed another program; or that one is passed over
    for (uint64_t done = 0; done < len;) {
        uint8_t piece[PAGE_SIZE];
        size_t n = len - done < sizeof(piece) ? (size_t)(len - done) : sizeof(piece);
        TRY(space_read(task->space, from + done, piece, n));
        TRY(space_write(r, s, *offset, piece, n));
        *offset += n;
        done += n;
    }
    return NULL;
}

static struct err *copy_vector(struct replay *r, struct task *task, uint32_t target, gaddr iov,
                               uint64_t count, uint64_t len, gaddr offset)
{
    for (uint64_t i = 0; i < count && len; i++) {
        uint8_t entry[16];
        TRY(space_read(task->space, iov + 16 * i, entry, sizeof(entry)));
        uint64_t n = load_u64(entry + 8) < len ? load_u64(entry + 8) : len;
        TRY(copy_range(r, task, target, load_u64(entry), n, &offset));
        len -= n;
    }
    return NULL;
}

struct err *fds_write(struct replay *r, struct task *task, int64_t number, const struct regs *regs,
                      int64_t result, int64_t file_offset)
{
    const uint64_t *reg = regs->r;
    bool is_vector = number == SYS_writev || number == SYS_pwritev;
    uint32_t target = target_of(task->fds, (int32_t)reg[UREG_RDI]);
    if (!is_vector && number != SYS_write && number != SYS_pwrite64)
        return NULL; // rr 5.7 and later have another call that asks for assistance:
                     // prctl(PR_SET_NAME)
    if (!target || result <= 0 || trace_header(r->trace)->explicit_proc_mem)
        return NULL;
    gaddr offset =
        number == SYS_pwrite64 || number == SYS_pwritev ? reg[UREG_R10] : (gaddr)file_offset;
    if (!is_vector)
        return copy_range(r, task, target, reg[UREG_RSI], (uint64_t)result, &offset);
    return copy_vector(r, task, target, reg[UREG_RSI], reg[UREG_RDX], (uint64_t)result, offset);
}

struct err *fds_exit_of_syscall(struct replay *r, const struct frame *f, struct task *task)
{
    const uint64_t *reg = f->regs.r;
    int64_t result = (int64_t)reg[UREG_RAX];
    for (size_t i = 0; i < f->opened_fd_count; i++)
        set_target(task->fds, f->opened_fds[i].fd, space_of_path(r, f->opened_fds[i].path));
    if (result < 0 || f->syscall_arch != ARCH_X86_64)
        return NULL;
    switch (f->syscall_no) {
    case SYS_fcntl:
        if (reg[UREG_RSI] != F_DUPFD && reg[UREG_RSI] != F_DUPFD_CLOEXEC)
            return NULL;
        // fall through
    case SYS_dup:
    case SYS_dup2:
    case SYS_dup3:
        set_target(task->fds, (int32_t)result, target_of(task->fds, (int32_t)reg[UREG_RDI]));
        return NULL;
    case SYS_close:
        set_target(task->fds, (int32_t)reg[UREG_RDI], 0);
        return NULL;
    case SYS_unshare:
        if (reg[UREG_RDI] & CLONE_FILES)
            own_table(task);
        return NULL;
    case SYS_write:
    case SYS_pwrite64:
    case SYS_writev:
    case SYS_pwritev:
        return fds_write(r, task, f->syscall_no, &f->regs, result,
                         f->extra == EXTRA_WRITE_OFFSET ? f->write_offset : 0);
    default:
        return NULL;
    }
}
