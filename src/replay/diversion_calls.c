/* System calls in a diversion. Those are answered that concern its own memory only, or that say
 * what is known; the kernel's part is played as far as a C library needs it to allocate memory, to
 * print, and to take locks that nobody holds. All others fail with ENOSYS.
 *
 * Numbers and results: Linux' x86-64 ABI (the manual pages of section 2). */
#include "replay/diversion_int.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

enum {
    MOST_WRITTEN = 1 << 20,
    MOST_PIECES = 1024,
    FIRST_RRCALL = 1000,
    LAST_RRCALL = 1099 /* rr preload_interface.h */
};

struct call {
    struct diversion *d;
    struct task *task;
    struct space *space;
    const struct diversion_request *request;
    uint64_t arg[6];
    enum call_end end;
    int64_t result;
    int signal;
};

static gaddr page_up(gaddr a)
{
    return (a + PAGE_SIZE - 1) & ~(gaddr)(PAGE_SIZE - 1);
}

/* Takes over e: memory that is not there is the program's own mistake. */
static struct err *fault_is_result(struct call *c, struct err *e)
{
    if (e && err_kind(e) == ERR_FAULT) {
        err_free(e);
        c->result = -EFAULT;
        return NULL;
    }
    return e;
}

/* --- output --- */

static struct err *put_out(struct call *c, gaddr addr, uint64_t len)
{
    if (c->result < 0)
        c->result = 0;
    if (len > MOST_WRITTEN)
        len = MOST_WRITTEN;
    cleanup(freep) uint8_t *data = xmalloc(len ? len : 1);
    TRY(space_read(c->space, addr, data, len));
    if (len)
        c->request->output(c->request->ctx, data, len);
    c->result += (int64_t)len;
    return NULL;
}

static bool is_output(const struct call *c)
{
    return c->arg[0] == 1 || c->arg[0] == 2;
}

static struct err *call_write(struct call *c)
{
    return is_output(c) ? fault_is_result(c, put_out(c, c->arg[1], c->arg[2])) : NULL;
}

static struct err *call_writev(struct call *c)
{
    if (!is_output(c))
        return NULL;
    if (c->arg[2] > MOST_PIECES) {
        c->result = -EINVAL;
        return NULL;
    }
    struct err *e = NULL;
    for (uint64_t i = 0; i < c->arg[2] && !e; i++) {
        struct iovec piece;
        e = space_read(c->space, c->arg[1] + i * sizeof(piece), &piece, sizeof(piece));
        if (!e)
            e = put_out(c, (gaddr)(uintptr_t)piece.iov_base, piece.iov_len);
    }
    return fault_is_result(c, e);
}

static struct err *call_ioctl(struct call *c)
{
    if (is_output(c))
        c->result = -ENOTTY;
    return NULL;
}

/* --- memory --- */

/* The end of what is in the way of [start, end), also of the worker's own; 0: nothing. */
static gaddr in_the_way(const struct space *s, gaddr start, gaddr end)
{
    const struct addr_range *own = worker_own_range(s->worker, start, end);
    size_t i = mappings_behind(s->maps.items, s->maps.count, start);
    if (own)
        return own->end;
    return i < s->maps.count && s->maps.items[i].start < end ? s->maps.items[i].end : 0;
}

gaddr diversion_find_room(const struct space *s, uint64_t len)
{
    static const gaddr first = 0x200000000000, limit = 0x7f0000000000;
    gaddr at = first, next;
    while (len < limit - at && (next = in_the_way(s, at, at + len)))
        at = page_up(next);
    return len < limit - at ? at : 0;
}

static struct err *call_mmap(struct call *c)
{
    gaddr addr = c->arg[0];
    uint64_t len = page_up(c->arg[1]), flags = c->arg[3];
    bool fixed = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE);
    if (!(flags & MAP_ANONYMOUS) || !(flags & MAP_PRIVATE))
        return NULL;
    c->result = -ENOMEM;
    if (!c->arg[1] || len < c->arg[1] ||
        (fixed && (addr % PAGE_SIZE || addr > USER_MEMORY_END || len > USER_MEMORY_END - addr)))
        c->result = -EINVAL;
    else if ((flags & MAP_FIXED_NOREPLACE) == MAP_FIXED_NOREPLACE &&
             in_the_way(c->space, addr, addr + len))
        c->result = -EEXIST;
    else if (len <= DIVERSION_MOST_MAPPED - c->d->mapped &&
             !(fixed && worker_own_range(c->space->worker, addr, addr + len))) {
        if (!fixed)
            addr = diversion_find_room(c->space, len);
        if (!addr)
            return NULL;
        TRY(space_map_zero(c->d->replay, c->space, addr, addr + len, (int)c->arg[2] & 7,
                           UINT32_MAX));
        c->d->mapped += len;
        c->result = (int64_t)addr;
    }
    return NULL;
}

/* Is it a range of pages that are no one else's? */
static bool check_range(struct call *c, bool mapped)
{
    gaddr start = c->arg[0];
    uint64_t len = page_up(c->arg[1]);
    c->result = -EINVAL;
    if (start % PAGE_SIZE || len < c->arg[1] || len > USER_MEMORY_END ||
        start > USER_MEMORY_END - len)
        return false;
    if (mapped)
        c->result = -ENOMEM;
    if (worker_own_range(c->space->worker, start, start + len) ||
        (mapped && !diversion_covers(c->space, start, len)))
        return false;
    c->result = 0;
    return len != 0;
}

static struct err *call_munmap(struct call *c)
{
    return check_range(c, false)
               ? space_unmap(c->d->replay, c->space, c->arg[0], page_up(c->arg[0] + c->arg[1]))
               : NULL;
}

static struct err *call_mprotect(struct call *c)
{
    if (!check_range(c, true))
        return NULL;
    return space_protect(c->d->replay, c->space, c->arg[0], page_up(c->arg[0] + c->arg[1]),
                         (int)c->arg[2] & 7, 0);
}

static struct err *call_madvise(struct call *c)
{
    if (!check_range(c, true) || c->arg[2] != MADV_DONTNEED)
        return NULL;
    return space_discard(c->d->replay, c->space, c->arg[0], page_up(c->arg[0] + c->arg[1]),
                         MADV_DONTNEED);
}

/* A copy is made by who asks for it. */
static struct err *call_mremap(struct call *c)
{
    c->result = -ENOMEM;
    return NULL;
}

/* The heap's end; its mapping in *heap, NULL: there is none. Where the break itself was within its
 * last page is not known. */
static gaddr find_heap(const struct call *c, const struct mapping **heap)
{
    size_t count;
    const struct trace_mmap *records = trace_mmaps(c->d->replay->trace, &count);
    *heap = NULL;
    vec_each (m, &c->space->maps) {
        if (m->mmap_idx < count && str_eq(records[m->mmap_idx].name, "[heap]"))
            *heap = m;
    }
    return *heap ? (*heap)->end : 0;
}

static struct err *call_brk(struct call *c)
{
    struct diversion *d = c->d;
    const struct mapping *heap;
    gaddr end = find_heap(c, &heap), want = c->arg[0], new_end = page_up(want);
    if (!d->brk)
        d->brk = end;
    c->result = (int64_t)d->brk;
    if (!heap || want < heap->start || want > USER_MEMORY_END)
        return NULL;
    if (new_end > end) {
        if (new_end - end > DIVERSION_MOST_MAPPED - d->mapped || in_the_way(c->space, end, new_end))
            return NULL;
        TRY(space_map_zero(d->replay, c->space, end, new_end, heap->prot, heap->mmap_idx));
        d->mapped += new_end - end;
    }
    d->brk = want;
    c->result = (int64_t)want;
    return NULL;
}

/* --- time and other tasks --- */

static struct err *call_clock(struct call *c)
{
    const struct frame *f = c->d->replay->next;
    if (!f || !(c->arg[0] == CLOCK_MONOTONIC || c->arg[0] == CLOCK_MONOTONIC_RAW ||
                c->arg[0] == CLOCK_MONOTONIC_COARSE))
        return NULL; // the recording tells no other one
    double seconds = f->monotonic_sec > 0 && f->monotonic_sec < 1e15 ? f->monotonic_sec : 0;
    struct timespec now = {.tv_sec = (time_t)seconds};
    now.tv_nsec = (long)((seconds - (double)now.tv_sec) * 1e9);
    c->result = 0;
    return fault_is_result(c, diversion_store(c->space, c->arg[1], &now, sizeof(now)));
}

/* Nobody else runs, so nobody is woken, and who would have to wait, would for ever. */
static struct err *call_futex(struct call *c)
{
    uint32_t now;
    switch (c->arg[1] & FUTEX_CMD_MASK) {
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET:
    case FUTEX_REQUEUE:
    case FUTEX_CMP_REQUEUE:
    case FUTEX_UNLOCK_PI:
        c->result = 0;
        return NULL;
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET: {
        struct err *e = space_read(c->space, c->arg[0], &now, sizeof(now));
        if (!e && now != (uint32_t)c->arg[2])
            c->result = -EAGAIN;
        else if (!e && c->arg[3])
            c->result = -ETIMEDOUT;
        else if (!e)
            c->end = CALL_WAITS;
        return fault_is_result(c, e);
    }
    case FUTEX_LOCK_PI:
        c->end = CALL_WAITS;
        return NULL;
    default:
        return NULL;
    }
}

static int32_t own_number(const struct call *c, int32_t tid)
{
    const struct task *t = task_by_tid(c->d->replay, tid);
    return t ? t->own_ns_tid : tid;
}

static struct err *call_getpid(struct call *c)
{
    c->result = own_number(c, c->task->info.tgid);
    return NULL;
}

static struct err *call_gettid(struct call *c)
{
    c->result = own_number(c, c->task->info.tid);
    return NULL;
}

static struct err *call_kill(struct call *c)
{
    uint64_t to = c->task->regs.r[UREG_RAX] == SYS_tgkill ? c->arg[1] : c->arg[0];
    uint64_t signal = c->task->regs.r[UREG_RAX] == SYS_tgkill ? c->arg[2] : c->arg[1];
    if (signal > 64 || ((int32_t)to != own_number(c, c->task->info.tid) &&
                        (int32_t)to != own_number(c, c->task->info.tgid)))
        return NULL;
    c->result = 0;
    c->signal = (int)signal;
    c->end = signal ? CALL_SIGNALS : CALL_ANSWERED;
    return NULL;
}

/* No signal will come, so that it is all the same which are blocked. That none were is a guess that
 * nothing depends on. */
static struct err *call_sigprocmask(struct call *c)
{
    static const uint64_t none;
    c->result = 0;
    return c->arg[2] ? fault_is_result(c, diversion_store(c->space, c->arg[2], &none, sizeof(none)))
                     : NULL;
}

static struct err *call_nothing(struct call *c)
{
    c->result = 0;
    return NULL;
}

static struct err *call_end(struct call *c)
{
    c->end = CALL_ENDS;
    return NULL;
}

static struct err *call_wait(struct call *c)
{
    c->end = CALL_WAITS;
    return NULL;
}

/* --- the table --- */

static const struct {
    int number;
    struct err *(*answer)(struct call *c); /* leaves -ENOSYS where it has no answer */
} answers[] = {
    {SYS_write, call_write},
    {SYS_writev, call_writev},
    {SYS_ioctl, call_ioctl},
    {SYS_mmap, call_mmap},
    {SYS_munmap, call_munmap},
    {SYS_mprotect, call_mprotect},
    {SYS_madvise, call_madvise},
    {SYS_mremap, call_mremap},
    {SYS_brk, call_brk},
    {SYS_clock_gettime, call_clock},
    {SYS_futex, call_futex},
    {SYS_getpid, call_getpid},
    {SYS_gettid, call_gettid},
    {SYS_kill, call_kill},
    {SYS_tkill, call_kill},
    {SYS_tgkill, call_kill},
    {SYS_rt_sigprocmask, call_sigprocmask},
    {SYS_set_robust_list, call_nothing},
    {SYS_sched_yield, call_nothing},
    {SYS_nanosleep, call_nothing},
    {SYS_clock_nanosleep, call_nothing},
    {SYS_exit, call_end},
    {SYS_exit_group, call_end},
    {SYS_pause, call_wait},
    {SYS_rt_sigsuspend, call_wait},
};

struct err *diversion_call(struct diversion *d, struct task *task,
                           const struct diversion_request *request, enum call_end *end,
                           int64_t *result, int *signal)
{
    const uint64_t *reg = task->regs.r;
    struct call c = {.d = d,
                     .task = task,
                     .space = task->space,
                     .request = request,
                     .end = CALL_ANSWERED,
                     .result = -ENOSYS,
                     .arg = {reg[UREG_RDI], reg[UREG_RSI], reg[UREG_RDX], reg[UREG_R10],
                             reg[UREG_R8], reg[UREG_R9]}};
    int64_t number = (int64_t)reg[UREG_RAX];
    for (size_t i = 0; i < ARRAY_COUNT(answers); i++) {
        if (answers[i].number == number)
            TRY(answers[i].answer(&c));
    }
    if (number >= FIRST_RRCALL && number <= LAST_RRCALL)
        c.result = 0; // the recorder's library tells the recorder something
    else if (c.end == CALL_ANSWERED && c.result == -ENOSYS)
        request->refused(request->ctx, number);
    *end = c.end;
    *result = c.result;
    *signal = c.signal;
    return NULL;
}
