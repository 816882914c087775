/* Tasks of 32-bit programs. The engine runs 64-bit code only, so these are passed over: their
 * frames keep the tree of tasks, registers at events and the table of descriptors right, and
 * nothing else. Their spaces have a worker, as all have, but no mappings, so nobody can read what
 * is not known.
 *
 * All other tasks stay exact, as rr records what comes into a task from outside. It does not where
 * a program acts on another task's memory or registers directly:
 *
 *   shared memory      r->outside lists what 32-bit tasks have mapped shared. If one may write to what a 64-bit task has mapped, too,
 *                      that is refused, from when both have it
 *   /proc/PID/mem      refused when a 32-bit task has a descriptor of a 64-bit task's
 *   ptrace             of a 64-bit task by a 32-bit one: refused
 *
 * Each refusal is an ERR_UNSUPPORTED with event, task and reason. */
#include "replay/replay_int.h"

#include "base/log.h"

#include <sys/mman.h>
#include <unistd.h>

/* Numbers of system calls of i386 (Linux arch/x86/entry/syscalls/syscall_32.tbl). */
enum {
    X86_FORK = 2,
    X86_PTRACE = 26,
    X86_MUNMAP = 91,
    X86_CLONE = 120,
    X86_MPROTECT = 125,
    X86_VFORK = 190,
    X86_PKEY_MPROTECT = 380
};

static struct err *refused(const struct frame *f, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static struct err *refused(const struct frame *f, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cleanup(freep) char *why = str_vformat(format, args);
    va_end(args);
    return err_new(ERR_UNSUPPORTED, "event %llu, task %d: a 32-bit program %s",
                   (unsigned long long)f->event, f->tid, why);
}

/* --- shared memory --- */

/* What is unmapped in part is kept as a whole: rather refused than wrong. */
static void outside_unmap(struct replay *r, uint32_t space, gaddr start, gaddr end)
{
    size_t kept = 0;
    vec_each (o, &r->outside) {
        if (o->space != space || o->start < start || o->end > end)
            r->outside.items[kept++] = *o;
    }
    r->outside.count = kept;
}

void outside_forget(struct replay *r, uint32_t space)
{
    outside_unmap(r, space, 0, UINT64_MAX);
}

/* Is the mapping of a 64-bit space memory of this kind? */
static bool is_same_memory(const struct replay *r, const struct mapping *m,
                           const struct shared_outside *o)
{
    if (m->object)
        return m->object->device == o->device && m->object->inode == o->inode;
    if (m->kind != MAPPING_FILE || !(m->flags & MAP_SHARED))
        return false;
    size_t count;
    const struct trace_mmap *records = trace_mmaps(r->trace, &count);
    return records[m->mmap_idx].device == o->device && records[m->mmap_idx].inode == o->inode;
}

static const struct task *task_that_maps(const struct replay *r, const struct shared_outside *o)
{
    vec_each (t, &r->tasks) {
        if ((*t)->space->is_32bit)
            continue;
        vec_each (m, &(*t)->space->maps) {
            if (is_same_memory(r, m, o))
                return *t;
        }
    }
    return NULL;
}

struct err *check_outside(const struct replay *r, const struct frame *f)
{
    vec_each (o, &r->outside) {
        const struct task *other = o->writable ? task_that_maps(r, o) : NULL;
        if (other)
            return err_new(ERR_UNSUPPORTED,
                           "event %llu, task %d: a 32-bit program can write to memory at %#llx "
                           "that task %d has mapped, "
                           "too: what it writes is not in the recording",
                           (unsigned long long)f->event, f->tid, (unsigned long long)o->start,
                           other->info.tid);
    }
    return NULL;
}

static void outside_map(struct replay *r, const struct frame *f, uint32_t space)
{
    for (size_t i = 0; i < f->mmap_count; i++) {
        const struct trace_mmap *m = &f->mmaps[i];
        outside_unmap(r, space, m->start, m->end);
        if ((m->flags & MAP_SHARED) && m->start != RR_THREAD_LOCALS && m->start < m->end)
            vec_push(&r->outside, (struct shared_outside){.space = space,
                                                          .writable = m->prot & PROT_WRITE,
                                                          .device = m->device,
                                                          .inode = m->inode,
                                                          .offset = (uint64_t)m->file_offset,
                                                          .start = m->start,
                                                          .end = m->end});
    }
}

static void outside_copy(struct replay *r, uint32_t from, uint32_t to)
{
    for (size_t i = 0, count = r->outside.count; i < count; i++) {
        struct shared_outside o = r->outside.items[i];
        if (o.space != from)
            continue;
        o.space = to;
        vec_push(&r->outside, o);
    }
}

/* Does the object hold, from `offset` on, what the trace says? */
static bool holds(const struct object *o, uint64_t offset, const uint8_t *data, size_t len)
{
    uint8_t page[PAGE_SIZE];
    while (len) {
        size_t n = len < sizeof(page) ? len : sizeof(page);
        if (pread(o->fd, page, n, (off_t)offset) != (ssize_t)n || memcmp(page, data, n) != 0)
            return false;
        offset += n;
        data += n;
        len -= n;
    }
    return true;
}

struct err *passed_over_write(struct replay *r, const struct frame *f, const struct task *task,
                              const struct mem_write *w)
{
    vec_each (it, &r->outside) {
        const struct shared_outside *o = it;
        if (o->space != task->space->uid || w->addr >= o->end ||
            (w->addr < o->start && w->size <= o->start - w->addr))
            continue;
        const struct task *other = task_that_maps(r, o);
        if (!other)
            continue;
        // A mapping's first contents are in the trace; they are what the others have made of it.
        cleanup(buf_deinit) struct buf data = {0};
        TRY(trace_read_write(r->cursor, w, &data));
        bool same = w->addr >= o->start && w->size <= o->end - w->addr;
        vec_each (object, &r->objects) {
            if ((*object)->mapping_count && (*object)->device == o->device &&
                (*object)->inode == o->inode)
                same =
                    same && holds(*object, o->offset + (w->addr - o->start), data.data, data.len);
        }
        if (!same)
            return refused(f, "gets data into memory at %#llx that task %d has mapped, too",
                           (unsigned long long)w->addr, other->info.tid);
    }
    return NULL;
}

/* --- frames --- */

/* Does any program of the recording have 64 bits? */
static struct err *find_64bit(const struct trace *t, bool *out)
{
    cleanup(trace_cursor_closep) struct trace_cursor *c = NULL;
    TRY(trace_cursor_open(t, &c));
    *out = false;
    for (;;) {
        const struct frame *f;
        TRY(trace_cursor_next(c, &f));
        if (!f)
            return NULL;
        for (size_t i = 0; i < f->task_count && !*out; i++)
            *out = f->tasks[i].kind == TASK_EXEC && f->arch == ARCH_X86_64;
        if (*out)
            return NULL;
    }
}

struct err *passed_over_exec(struct replay *r, const struct frame *f, struct task *task)
{
    if (task->info.serial == 1) {
        bool any;
        TRY(find_64bit(r->trace, &any));
        if (!any)
            return refused(f, "is executed, and no 64-bit one in the whole recording");
    }
    vec_each (e, &task->fds->entries) {
        const struct space *s = space_by_uid(r, e->space);
        if (s && !s->is_32bit && !trace_header(r->trace)->explicit_proc_mem)
            return refused(f,
                           "has descriptor %d of another task's memory: what it writes there is "
                           "not in the recording",
                           e->fd);
    }
    outside_map(r, f, task->space->uid);
    TRY(apply_writes(r, f, 0));
    task_load_regs(task, &f->regs);
    return worker_set_xstate(task->space->worker, task->info.slot, NULL);
}

static struct err *clone_child(struct replay *r, const struct frame *f, struct task *parent)
{
    struct task *child;
    uint32_t flags;
    TRY(create_child(r, f, parent, &child, &flags));
    if (child->space != parent->space) {
        outside_copy(r, parent->space->uid, child->space->uid);
        if (r->observer.space_created)
            TRY(r->observer.space_created(r->observer.ctx, r, child->space->uid,
                                          parent->space->uid));
    }
    if (r->observer.task_created)
        r->observer.task_created(r->observer.ctx, r, child->info.serial, parent->info.serial);
    return NULL;
}

static struct err *enter(struct replay *r, const struct frame *f, struct task *task)
{
    bool is_call = f->syscall_arch == ARCH_X86 && f->syscall_state == SYSCALL_ENTERING;
    task->info.in_syscall = true;
    if (is_call &&
        (f->syscall_no == X86_FORK || f->syscall_no == X86_CLONE || f->syscall_no == X86_VFORK) &&
        !f->failed_during_preparation)
        return clone_child(r, f, task);
    if (is_call && f->syscall_no == X86_PTRACE && f->regs.r[UREG_RBX]) {
        const struct task *target = traced_task(r, task, (int32_t)f->regs.r[UREG_RCX]);
        if (target && !target->space->is_32bit)
            return refused(f, "traces task %d: what it sets there is not in the recording",
                           target->info.tid);
    }
    return NULL;
}

static struct err *leave(struct replay *r, const struct frame *f, struct task *task)
{
    uint32_t space = task->space->uid;
    gaddr start = f->regs.r[UREG_RBX],
          end = start + ((f->regs.r[UREG_RCX] + PAGE_SIZE - 1) & ~(uint64_t)(PAGE_SIZE - 1));
    int32_t result = (int32_t)f->regs.r[UREG_RAX];
    task->info.in_syscall = false;
    for (size_t i = 0; i < f->opened_fd_count; i++) {
        const struct space *s = space_by_uid(r, space_of_path(r, f->opened_fds[i].path));
        if (s && !s->is_32bit && !trace_header(r->trace)->explicit_proc_mem)
            return refused(f, "opens %s: what it writes there is not in the recording",
                           f->opened_fds[i].path);
    }
    if (f->syscall_arch != ARCH_X86)
        return NULL;
    if (f->syscall_no == X86_MUNMAP && result == 0)
        outside_unmap(r, space, start, end);
    if ((f->syscall_no == X86_MPROTECT || f->syscall_no == X86_PKEY_MPROTECT) &&
        (f->regs.r[UREG_RDX] & PROT_WRITE)) {
        vec_each (o, &r->outside)
            o->writable |= o->space == space && start < o->end && o->start < end;
        return check_outside(r, f);
    }
    return NULL;
}

struct err *apply_passed_over(struct replay *r, const struct frame *f, struct task *task)
{
    if (f->has_regs && f->arch != ARCH_X86)
        return err_new(
            ERR_FORMAT,
            "event %llu: task %d, which executes a 32-bit program, has registers of a 64-bit one",
            (unsigned long long)f->event, f->tid);
    task->info.ticks = f->ticks;
    if (f->has_regs)
        task_load_regs(task, &f->regs);
    if (f->kind == FRAME_SYSCALL)
        TRY(f->syscall_state == SYSCALL_EXITING ? leave(r, f, task) : enter(r, f, task));
    // A new task's memory comes with the parent's frame.
    outside_map(r, f, task->space->uid);
    return apply_writes(r, f, 0);
}

void replay_warn_32bit(const struct frame *f)
{
    for (size_t i = 0; i < f->task_count; i++) {
        if (f->tasks[i].kind == TASK_EXEC && f->arch == ARCH_X86)
            log_warn("event %llu: task %d executes a 32-bit program, which is not replayed",
                     (unsigned long long)f->event, f->tid);
    }
}
