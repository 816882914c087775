/* A successful execve: the task gets a new space, all of which the frame describes. */
#include "replay/replay_int.h"

#include "base/log.h"

#include <fcntl.h>
#include <sys/mman.h>

enum { REPLAY_PAGE_OFFSET = 0x4000 }; /* in librrpage.so */

/* What the rr page holds in replay, for traces without a librrpage.so to take it from. */
static void synthesise_rr_page(const struct trace_header *h, uint8_t page[PAGE_SIZE])
{
    static const uint8_t call[] = {0x0f, 0x05, 0xc3}, zero[] = {0x31, 0xc0, 0xc3},
                         assist[] = {0x90, 0xcc, 0xc3};
    static const uint8_t *const stubs[] = {call, call, call, call, zero, call, call, zero, assist};
    for (size_t i = 0; i < 9; i++)
        memcpy(page + 3 * i, stubs[i], 3);
    memset(page + 27, 0xff, 8);
    if (!h->uses_globals_in_replay) {
        memcpy(page + 27, "\1\0\0", 4);
        memset(page + 31, 0xff, 8);
    }
}

static struct err *read_rr_page(struct replay *r, const struct frame *f, uint8_t page[PAGE_SIZE])
{
    memset(page, 0, PAGE_SIZE);
    for (size_t i = 0; i < f->mmap_count; i++) {
        const struct trace_mmap *m = &f->mmaps[i];
        if (m->start != RR_LIBRRPAGE || m->source != MMAP_FILE)
            continue;
        cleanup(freep) char *path = trace_backing_path(r->trace, m);
        cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return err_os("cannot open %s", path);
        if (pread(fd, page, PAGE_SIZE, REPLAY_PAGE_OFFSET) != PAGE_SIZE)
            return err_new(ERR_FORMAT, "%s: no replay page in it", path);
        return NULL;
    }
    synthesise_rr_page(trace_header(r->trace), page);
    return NULL;
}

/* The task which execs. When a thread other than the leader did, the leader has ended by now and
 * the last thread of the group takes over its tid. */
static struct err *find_execing(struct replay *r, const struct frame *f, struct task **out)
{
    struct task *task = task_by_tid(r, f->tid);
    vec_each (it, &r->tasks) {
        if (!task && (*it)->info.tgid == f->tid)
            task = *it;
    }
    if (!task && r->tasks.count)
        return err_new(ERR_FORMAT, "event %llu: exec by unknown task %d",
                       (unsigned long long)f->event, f->tid);
    if (task && task->info.tid != f->tid) {
        task->info.tid = f->tid;
        task->recorder_serial = r->last_task + ++r->renamed_tasks;
    }
    *out = task; // NULL: the first exec
    return NULL;
}

struct err *apply_exec(struct replay *r, const struct frame *f)
{
    struct task *task = NULL;
    TRY(find_execing(r, f, &task));
    struct space *old = task ? task->space : NULL;
    struct space *s = space_create(r, 0);
    s->is_32bit = f->arch == ARCH_X86;
    if (r->spare)
        s->worker = steal(r->spare);
    else
        TRY(worker_create(r->used.items, r->used.count, &s->worker));
    TRY(tell_machine(r, s->worker));
    TRY(space_instrument(r, s));
    if (task) {
        task->space = s;
        task->info.space = s->uid;
        task->info.slot = s->next_slot++;
        task->info.is_32bit = s->is_32bit;
        s->task_count++;
        old->task_count--;
    } else {
        TRY(task_create(r, f->tid, s, 0, &task));
    }
    fds_exec(task, f);
    free(task->thread_locals);
    task->thread_locals = NULL;
    task->scratch_start = task->scratch_end = task->syscallbuf = task->syscallbuf_end = 0;
    task->rseq = 0;
    task->cloned_fd = task->cloned_twin = -1;
    task->buffers_freed = false;
    task->ptrace_entered = false;
    if (old && old->task_count == 0)
        TRY(space_end(r, old));
    if (r->observer.space_created)
        TRY(r->observer.space_created(r->observer.ctx, r, s->uid, 0));
    if (task->info.parent == 0 && r->last_task == 1 && r->observer.task_created && !old)
        r->observer.task_created(r->observer.ctx, r, task->info.serial, 0);
    if (s->is_32bit)
        return passed_over_exec(r, f, task);

    // Roles of the mappings are told by address (rr page, thread-locals page) and position (scratch
    // memory is last).
    for (size_t i = 0; i < f->mmap_count; i++) {
        const struct trace_mmap *m = &f->mmaps[i];
        if (m->start == RR_PAGE) {
            uint8_t page[PAGE_SIZE];
            TRY(read_rr_page(r, f, page));
            TRY(space_map_zero(r, s, RR_PAGE, RR_PAGE + PAGE_SIZE, PROT_READ | PROT_EXEC,
                               UINT32_MAX));
            TRY(space_write(r, s, RR_PAGE, page, PAGE_SIZE));
        } else if (i == f->mmap_count - 1) {
            task->scratch_start = m->start;
            task->scratch_end = m->end;
            TRY(space_map_record(r, s, m, 0, true));
        } else {
            TRY(space_map_record(r, s, m, 0, m->start == RR_THREAD_LOCALS));
        }
    }
    TRY(apply_writes(r, f, 0));
    TRY(task_init_thread_locals(r, task, NULL));
    s->thread_locals_of = 0;
    TRY(task_install_thread_locals(r, task));
    task_load_regs(task, &f->regs);
    TRY(worker_set_xstate(s->worker, task->info.slot, NULL));
    return task_load_xstate(r, task, f);
}
