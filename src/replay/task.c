/* Recorded threads: registers while they do not run, the buffers rr gave them, and the
 * thread-locals page.
 *
 * The page at 0x70001000 is one virtual page whose contents belong to the running thread. It is in
 * memory for the thread that ran last in the space, and put aside for the others. */
#include "replay/replay_int.h"

#include "base/log.h"

/* Offsets in struct preload_thread_locals, the same in every release (rr preload_interface.h). */
enum { TL_ALT_STACK = 0, TL_NESTING_LEVEL = 24, TL_SAVED_FLAGS = 28 };

static bool slot_is_free(const struct replay *r, const struct space *s, unsigned slot)
{
    vec_each (it, &r->tasks) {
        if ((*it)->space == s && (*it)->info.slot == slot)
            return false;
    }
    return true;
}

/* The new task has its own table of descriptors and pid namespace; the caller may give it its
 * parent's. */
struct err *task_create(struct replay *r, int32_t tid, struct space *s, uint32_t parent,
                        struct task **out)
{
    if (s->task_count >= WORKER_MAX_TASKS)
        return err_new(ERR_LIMIT, "more than %d threads at a time in one process",
                       WORKER_MAX_TASKS);
    unsigned slot = s->next_slot % WORKER_MAX_TASKS;
    while (!slot_is_free(r, s, slot))
        slot = (slot + 1) % WORKER_MAX_TASKS;
    s->next_slot = slot + 1;
    struct task *task = xnew(struct task);
    task->info = (struct task_info){.serial = ++r->last_task,
                                    .tid = tid,
                                    .tgid = tid,
                                    .space = s->uid,
                                    .parent = parent,
                                    .slot = slot,
                                    .is_32bit = s->is_32bit};
    task->recorder_serial = task->info.serial + r->renamed_tasks;
    task->cloned_fd = task->cloned_twin = -1;
    task->own_ns_tid = tid;
    task->pid_ns = task->info.serial;
    task->fds = fd_table_create();
    task->space = s;
    s->task_count++;
    vec_push(&r->tasks, task);
    *out = task;
    return NULL;
}

void task_destroy(struct replay *r, struct task *task)
{
    for (size_t i = 0; i < r->tasks.count; i++) {
        if (r->tasks.items[i] == task) {
            memmove(&r->tasks.items[i], &r->tasks.items[i + 1],
                    (r->tasks.count - i - 1) * sizeof(r->tasks.items[0]));
            r->tasks.count--;
            break;
        }
    }
    task_free(task);
}

void task_free(struct task *task)
{
    free(task->thread_locals);
    fd_table_release(task->fds);
    free(task);
}

void tasks_copy(const task_list *from, task_list *to)
{
    size_t before = to->count;
    for (size_t i = 0; i < from->count; i++) {
        struct task *task = xmemdup(from->items[i], sizeof(*task));
        if (task->thread_locals)
            task->thread_locals = xmemdup(task->thread_locals, PAGE_SIZE);
        size_t same = 0;
        while (from->items[same]->fds != task->fds)
            same++;
        task->fds =
            same < i ? fd_table_share(to->items[before + same]->fds) : fd_table_copy(task->fds);
        vec_push(to, task);
    }
}

struct task *task_by_tid(struct replay *r, int32_t tid)
{
    vec_each (it, &r->tasks) {
        if ((*it)->info.tid == tid)
            return *it;
    }
    return NULL;
}

struct task *task_by_serial(struct replay *r, uint32_t serial)
{
    vec_each (it, &r->tasks) {
        if ((*it)->info.serial == serial)
            return *it;
    }
    return NULL;
}

/* Loads a frame's registers. RF and TF are artefacts of how rr stopped. */
void task_load_regs(struct task *task, const struct regs *regs)
{
    task->regs = *regs;
    task->regs.r[UREG_EFLAGS] &= ~0x10100ull;
}

struct err *task_install_thread_locals(struct replay *r, struct task *task)
{
    struct space *s = task->space;
    if (s->thread_locals_of == task->info.serial)
        return NULL;
    if (!space_mapping_at(s, RR_THREAD_LOCALS))
        return NULL;
    struct task *owner = task_by_serial(r, s->thread_locals_of);
    if (owner && owner->space == s) {
        if (!owner->thread_locals)
            owner->thread_locals = xmalloc(PAGE_SIZE);
        TRY(space_read(s, RR_THREAD_LOCALS, owner->thread_locals, PAGE_SIZE));
    }
    static const uint8_t zeros[PAGE_SIZE];
    TRY(space_write(r, s, RR_THREAD_LOCALS, task->thread_locals ? task->thread_locals : zeros,
                    PAGE_SIZE));
    s->thread_locals_of = task->info.serial;
    return NULL;
}

/* The page of a new thread or process: zeros but for the stack its syscall hook uses, and what it
 * inherits. */
struct err *task_init_thread_locals(struct replay *r, struct task *task, const struct task *parent)
{
    uint8_t *page = xcalloc(1, PAGE_SIZE);
    if (parent) {
        // The parent just ran, so in its space the page in memory is its own.
        uint8_t inherited[8];
        TRY(space_read(parent->space, RR_THREAD_LOCALS + TL_NESTING_LEVEL, inherited,
                       sizeof(inherited)));
        memcpy(page + TL_NESTING_LEVEL, inherited, sizeof(inherited));
    }
    memcpy(page + TL_ALT_STACK, &task->scratch_end, sizeof(task->scratch_end));
    free(task->thread_locals);
    task->thread_locals = page;
    return NULL;
}

/* It stands behind those records that the buffer's header counts. */
struct err *task_pending_record(struct replay *r, struct task *task, uint16_t *number_out,
                                int64_t *result_out)
{
    uint32_t bytes, header = trace_header(r->trace)->syscallbuf_hdr_size;
    uint8_t record[16];
    if (!task->syscallbuf)
        return err_new(ERR_FORMAT, "a buffered system call without a buffer");
    TRY(space_read(task->space, task->syscallbuf, &bytes, sizeof(bytes)));
    TRY(space_read(task->space, task->syscallbuf + header + bytes, record, sizeof(record)));
    *result_out = (int64_t)load_u64(record);
    *number_out = load_u16(record + 8);
    return NULL;
}

/* Sets the vector state to a frame's extra registers, if it has any. */
struct err *task_load_xstate(struct replay *r, struct task *task, const struct frame *f)
{
    if (!f->extra_regs)
        return NULL;
    struct xstate x;
    TRY(xstate_convert(r->trace, f->extra_regs, f->extra_regs_len, &x));
    return worker_set_xstate(task->space->worker, task->info.slot, &x);
}

/* Unmaps the thread's scratch memory and syscall buffer. */
struct err *task_free_buffers(struct replay *r, struct task *task)
{
    if (task->buffers_freed)
        return NULL;
    task->buffers_freed = true;
    if (task->scratch_end)
        TRY(space_unmap(r, task->space, task->scratch_start, task->scratch_end));
    if (task->syscallbuf)
        TRY(space_unmap(r, task->space, task->syscallbuf, task->syscallbuf_end));
    task->syscallbuf = 0;
    return NULL;
}
