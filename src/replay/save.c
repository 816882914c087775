/* Saving a replay's state as bytes, rebuilding it, and cloning a live one. Memory contents are not
 * in the bytes: whoever restores brings the pages (see struct page_source).
 *
 * The layout is part of the database's format: docs/format.md, "replay state". All integers are
 * unsigned LEB128 unless said; SAVE_VERSION changes with it. */
#include "replay/replay_int.h"

#include <sys/mman.h>

enum { SAVE_VERSION = 3 };

/* Tables of descriptors are written with the first task that has them; others name that task. */
static void save_fds(struct buf *out, const struct replay *r, const struct task *task)
{
    vec_each (it, &r->tasks) {
        if ((*it)->fds != task->fds)
            continue;
        buf_uleb(out, (*it)->info.serial);
        if (*it != task)
            return;
        break;
    }
    buf_uleb(out, task->fds->entries.count);
    vec_each (e, &task->fds->entries) {
        buf_uleb(out, (uint32_t)e->fd);
        buf_uleb(out, e->space);
    }
}

static void save_task(struct buf *out, const struct replay *r, const struct task *task,
                      const struct xstate *x)
{
    const struct task_info *i = &task->info;
    buf_uleb(out, i->serial);
    buf_uleb(out, (uint32_t)i->tid);
    buf_uleb(out, i->space);
    buf_uleb(out, i->slot);
    buf_uleb(out, (uint32_t)i->tgid);
    buf_uleb(out, i->parent);
    buf_uleb(out, (uint64_t)i->ticks);
    buf_u8(out, (uint8_t)(i->in_syscall | task->dying << 1 | task->ptrace_entered << 2 |
                          task->buffers_freed << 3 | task->x87_cleared << 4));
    buf_uleb(out, task->scratch_start);
    buf_uleb(out, task->scratch_end);
    buf_uleb(out, task->syscallbuf);
    buf_uleb(out, task->syscallbuf_end);
    buf_uleb(out, task->rseq);
    buf_uleb(out, task->rseq_len);
    buf_uleb(out, task->rseq_sig);
    buf_uleb(out, (uint32_t)task->own_ns_tid);
    buf_uleb(out, task->pid_ns);
    buf_uleb(out, task->recorder_serial);
    buf_uleb(out, (uint32_t)task->cloned_fd);
    buf_uleb(out, (uint32_t)task->cloned_twin);
    buf_uleb(out, task->cloned_offset);
    save_fds(out, r, task);
    buf_add(out, &task->regs, sizeof(task->regs));
    size_t len = task->thread_locals ? PAGE_SIZE : 0;
    while (len && !task->thread_locals[len - 1])
        len--;
    buf_uleb(out, len);
    buf_add(out, task->thread_locals, len);
    buf_uleb(out, x->len);
    buf_add(out, x->data, x->len);
}

static void save_space(struct buf *out, const struct space *s)
{
    buf_uleb(out, s->uid);
    buf_uleb(out, s->next_slot);
    buf_uleb(out, s->thread_locals_of);
    buf_uleb(out, s->globals);
    buf_uleb(out, s->breakpoint_insn);
    buf_u8(out, s->is_32bit);
    buf_uleb(out, s->maps.count);
    gaddr last = 0;
    vec_each (m, &s->maps) {
        buf_uleb(out, (m->start - last) / PAGE_SIZE);
        buf_uleb(out, (m->end - m->start) / PAGE_SIZE);
        last = m->end;
        buf_u8(out, (uint8_t)(m->prot | m->dontfork << 3 | m->kind << 4));
        buf_uleb(out, (uint32_t)m->flags);
        buf_uleb(out, m->object ? m->object->uid : 0);
        buf_uleb(out, m->offset);
        buf_uleb(out, (uint64_t)m->mmap_idx + 1);
    }
}

struct err *replay_save(struct replay *r, struct buf *out)
{
    buf_uleb(out, SAVE_VERSION);
    const struct trace_position *p = &r->next_position;
    buf_uleb(out, p->event);
    buf_uleb(out, p->events_offset);
    buf_uleb(out, p->data_offset);
    buf_uleb(out, p->mmap_idx);
    buf_uleb(out, p->task_idx);
    buf_uleb(out, r->now.event);
    buf_uleb(out, r->now.icount);
    buf_uleb(out, r->icount_total);
    buf_u8(out, (uint8_t)(r->prepared | r->skip_next_stop << 1));
    buf_uleb(out, r->last_task);
    buf_uleb(out, r->last_space);
    buf_uleb(out, r->last_object);
    buf_uleb(out, r->renamed_tasks);
    size_t object_count;
    replay_objects(r, &object_count);
    buf_uleb(out, object_count);
    vec_each (it, &r->objects) {
        const struct object *o = *it;
        if (!o->mapping_count)
            continue;
        buf_uleb(out, o->uid);
        buf_uleb(out, o->device);
        buf_uleb(out, o->inode);
        buf_uleb(out, o->size);
    }
    buf_uleb(out, r->spaces.count);
    vec_each (s, &r->spaces)
        save_space(out, *s);
    buf_uleb(out, r->outside.count);
    vec_each (o, &r->outside) {
        buf_uleb(out, o->space);
        buf_u8(out, o->writable);
        buf_uleb(out, o->device);
        buf_uleb(out, o->inode);
        buf_uleb(out, o->offset);
        buf_uleb(out, o->start);
        buf_uleb(out, o->end);
    }
    buf_uleb(out, r->tasks.count);
    vec_each (it, &r->tasks) {
        struct xstate x;
        TRY(worker_get_xstate((*it)->space->worker, (*it)->info.slot, &x));
        save_task(out, r, *it, &x);
    }
    return NULL;
}

static struct err *bad_state(const char *what)
{
    return err_new(ERR_FORMAT, "saved state: %s makes no sense", what);
}

/* What a state is made from besides its blob. */
struct restoring {
    const struct page_source *pages;
    struct restore_help help;
    VEC(struct buf) anew; /* of each space: what was mapped anew in a copy of the near one's */
    VEC(bool) copied;
};

/* A copy of another replay's worker, without its tasks and without what it was told to look for. */
static struct err *copy_worker(struct replay *near, const struct space *from, struct worker **out)
{
    struct consume_request nothing = {0};
    struct hook_request no_hooks = {0};
    TRY(worker_fork(from->worker, out));
    vec_each (it, &near->tasks) {
        if ((*it)->space == from)
            TRY(worker_drop_task(*out, (*it)->info.slot));
    }
    TRY(worker_consume(*out, &nothing));
    TRY(worker_set_steps(*out, NULL));
    return worker_set_hooks(*out, &no_hooks);
}

/* The worker of a space that has its table. */
static struct err *make_worker(struct replay *r, struct space *s, struct restoring *how)
{
    struct space *from = how->help.near ? space_by_uid(how->help.near, s->uid) : NULL;
    vec_push(&how->anew, (struct buf){0});
    vec_push(&how->copied, from != NULL);
    if (!from) {
        if (how->help.spare && *how->help.spare)
            s->worker = steal(*how->help.spare);
        else
            TRY(worker_create(r->used.items, r->used.count, &s->worker));
        TRY(tell_machine(r, s->worker));
        return space_realise(r, s);
    }
    TRY(copy_worker(how->help.near, from, &s->worker));
    s->break_set = from->break_set;
    s->break_rax = from->break_rax;
    return space_switch_mappings(r, s, from, s, &how->anew.items[how->anew.count - 1]);
}

static struct err *restore_space(struct replay *r, struct bytes *b, struct restoring *how)
{
    struct space *s = space_create(r, 0);
    s->uid = (uint32_t)bytes_uleb(b);
    s->next_slot = (unsigned)bytes_uleb(b);
    s->thread_locals_of = (uint32_t)bytes_uleb(b);
    s->globals = bytes_uleb(b);
    s->breakpoint_insn = bytes_uleb(b);
    s->is_32bit = bytes_u8(b) & 1;
    size_t record_count;
    const struct trace_mmap *records = trace_mmaps(r->trace, &record_count);
    uint64_t page = 0;
    for (size_t n = bytes_count(b, 7); n; n--) {
        uint64_t gap = bytes_uleb(b), pages = bytes_uleb(b);
        struct mapping m = {0};
        uint8_t bits = bytes_u8(b);
        m.prot = bits & 7;
        m.dontfork = bits & 8;
        m.kind = (enum mapping_kind)(bits >> 4);
        m.flags = (int)bytes_uleb(b);
        uint32_t object = (uint32_t)bytes_uleb(b);
        m.offset = bytes_uleb(b);
        m.mmap_idx = (uint32_t)(bytes_uleb(b) - 1);
        const uint64_t limit = USER_MEMORY_END / PAGE_SIZE;
        if (b->failed || gap > limit || pages > limit || page + gap + pages > limit || pages == 0)
            return bad_state("a mapping's range");
        m.start = (page + gap) * PAGE_SIZE;
        page += gap + pages;
        m.end = page * PAGE_SIZE;
        m.object = object_by_uid(r, object);
        if (m.kind > MAPPING_SHARED || (m.kind == MAPPING_SHARED) != (m.object != NULL) ||
            (m.object &&
             (m.offset > m.object->size || m.end - m.start > m.object->size - m.offset)) ||
            (m.kind == MAPPING_FILE &&
             (m.mmap_idx >= record_count || records[m.mmap_idx].source != MMAP_FILE)))
            return bad_state("a mapping");
        if (m.object)
            m.object->mapping_count++;
        vec_push(&s->maps, m);
    }
    return make_worker(r, s, how);
}

static struct err *restore_fds(struct replay *r, struct task *task, struct bytes *b)
{
    uint32_t owner_serial = (uint32_t)bytes_uleb(b);
    struct task *owner = task_by_serial(r, owner_serial);
    if (b->failed || !owner)
        return bad_state("a task's descriptors");
    if (owner != task) {
        task->fds = fd_table_share(owner->fds);
        return NULL;
    }
    task->fds = fd_table_create();
    for (size_t n = bytes_count(b, 2); n; n--) {
        int32_t fd = (int32_t)bytes_uleb(b);
        uint32_t space = (uint32_t)bytes_uleb(b);
        vec_push(&task->fds->entries, (struct fd_entry){fd, space});
    }
    return NULL;
}

static struct err *restore_task(struct replay *r, struct bytes *b)
{
    struct task_info i = {0};
    i.serial = (uint32_t)bytes_uleb(b);
    i.tid = (int32_t)bytes_uleb(b);
    i.space = (uint32_t)bytes_uleb(b);
    i.slot = (unsigned)bytes_uleb(b);
    i.tgid = (int32_t)bytes_uleb(b);
    i.parent = (uint32_t)bytes_uleb(b);
    i.ticks = (int64_t)bytes_uleb(b);
    uint8_t bits = bytes_u8(b);
    i.in_syscall = bits & 1;
    struct space *s = space_by_uid(r, i.space);
    if (b->failed || !s || i.slot >= WORKER_MAX_TASKS || task_by_serial(r, i.serial))
        return bad_state("a task");
    struct task *task = xnew(struct task);
    vec_push(&r->tasks, task);
    task->info = i;
    task->info.is_32bit = s->is_32bit;
    task->space = s;
    s->task_count++;
    task->dying = bits & 2;
    task->ptrace_entered = bits & 4;
    task->buffers_freed = bits & 8;
    task->x87_cleared = bits & 16;
    task->scratch_start = bytes_uleb(b);
    task->scratch_end = bytes_uleb(b);
    task->syscallbuf = bytes_uleb(b);
    task->syscallbuf_end = bytes_uleb(b);
    task->rseq = bytes_uleb(b);
    task->rseq_len = (uint32_t)bytes_uleb(b);
    task->rseq_sig = (uint32_t)bytes_uleb(b);
    task->own_ns_tid = (int32_t)bytes_uleb(b);
    task->pid_ns = (uint32_t)bytes_uleb(b);
    task->recorder_serial = (uint32_t)bytes_uleb(b);
    task->cloned_fd = (int32_t)bytes_uleb(b);
    task->cloned_twin = (int32_t)bytes_uleb(b);
    task->cloned_offset = bytes_uleb(b);
    TRY(restore_fds(r, task, b));
    const uint8_t *regs = bytes_take(b, sizeof(task->regs));
    size_t len = bytes_count(b, 1);
    const uint8_t *locals = bytes_take(b, len);
    if (b->failed || len > PAGE_SIZE || task->syscallbuf > task->syscallbuf_end)
        return bad_state("a task");
    memcpy(&task->regs, regs, sizeof(task->regs));
    if (len) {
        task->thread_locals = xcalloc(1, PAGE_SIZE);
        memcpy(task->thread_locals, locals, len);
    }
    len = bytes_count(b, 1);
    const uint8_t *image = bytes_take(b, len);
    if (b->failed || len > XSTATE_MAX)
        return bad_state("a task's vector state");
    if (len != xstate_size())
        return err_new(ERR_UNSUPPORTED,
                       "the database was built on a CPU with other vector registers");
    struct xstate x = {.len = (uint32_t)len};
    memcpy(x.data, image, len);
    return worker_set_xstate(s->worker, i.slot, &x);
}

struct put_ctx {
    struct replay *replay;
    struct space *space;
    struct object *object;
    VEC(struct addr_range) later; /* pages whose contents come when they are touched */
    int file;                     /* the file that was read last, by its record; -1: none */
    uint32_t mmap_idx;
};

/* Private memory can come later, but where it is the file's contents with changes. */
static bool comes_later(void *ctx, gaddr start, gaddr *end, bool whole)
{
    struct put_ctx *put = ctx;
    const struct mapping *m = space_mapping_at(put->space, start);
    bool later = m && (m->kind == MAPPING_ANON || (m->kind == MAPPING_FILE && whole));
    if (m && m->end < *end)
        *end = m->end;
    struct addr_range *last = put->later.count ? &put->later.items[put->later.count - 1] : NULL;
    if (later && last && last->end == start)
        last->end = *end;
    else if (later)
        vec_push(&put->later, (struct addr_range){start, *end});
    return later;
}

static struct err *put_pages(void *ctx, uint64_t addr, const uint8_t *pages, size_t count)
{
    struct put_ctx *put = ctx;
    if (!put->object)
        return worker_queue_write(put->space->worker, addr, pages, count * PAGE_SIZE);
    if (addr > put->object->size || count * PAGE_SIZE > put->object->size - addr)
        return bad_state("a shared page");
    ssize_t n = pwrite(put->object->fd, pages, count * PAGE_SIZE, (off_t)addr);
    if (n < 0 || (size_t)n != count * PAGE_SIZE)
        return err_os("cannot write shared memory");
    return NULL;
}

struct err *replay_read_files(struct replay *r, uint32_t space, gaddr addr, size_t count,
                              uint8_t *out, size_t *done_out)
{
    const struct mapping *m = replay_mapping_at(r, space, addr);
    *done_out = 0;
    if (!m || m->kind != MAPPING_FILE)
        return NULL;
    if (count > (m->end - addr) / PAGE_SIZE)
        count = (m->end - addr) / PAGE_SIZE;
    cleanup(closep) int file = -1;
    TRY(space_open_file(r, m->mmap_idx, &file));
    ssize_t n = pread(file, out, count * PAGE_SIZE, (off_t)(m->offset + (addr - m->start)));
    if (n < 0)
        return err_os("cannot read a mapped file");
    memset(out + n, 0, count * PAGE_SIZE - (size_t)n); // behind the end of its file
    *done_out = count;
    return NULL;
}

/* A page as it is in its file: the worker, which has it, too, need not be asked. */
static struct err *fresh_page(void *ctx, uint64_t addr, uint8_t *page)
{
    struct put_ctx *put = ctx;
    const struct mapping *m = put->object ? NULL : space_mapping_at(put->space, addr);
    size_t done = 0;
    if (m && m->kind == MAPPING_FILE) {
        if (put->file < 0 || put->mmap_idx != m->mmap_idx) {
            closep(&put->file);
            put->file = -1;
            TRY(space_open_file(put->replay, m->mmap_idx, &put->file));
            put->mmap_idx = m->mmap_idx;
        }
        ssize_t n = pread(put->file, page, PAGE_SIZE, (off_t)(m->offset + (addr - m->start)));
        if (n < 0)
            return err_os("cannot read a mapped file");
        done = (size_t)n;
    }
    memset(page + done, 0, PAGE_SIZE - done); // behind the end of its file
    return NULL;
}

static struct err *reset_pages(void *ctx, gaddr start, gaddr end)
{
    struct put_ctx *put = ctx;
    vec_each (m, &put->space->maps) {
        gaddr from = m->start > start ? m->start : start, to = m->end < end ? m->end : end;
        if (from < to)
            TRY(space_realise_part(put->replay, put->space, m, from, to));
    }
    return NULL;
}

/* anew: NULL, or what was mapped anew in a copy of another state's space. */
static struct err *restore_space_memory(struct replay *r, struct space *s, const struct buf *anew,
                                        const struct page_source *pages)
{
    struct put_ctx put = {.replay = r, .space = s, .file = -1};
    const struct page_taker taker = {&put, put_pages, fresh_page, reset_pages, comes_later};
    struct err *e = anew ? pages->changes(pages->ctx, s->uid, (const void *)anew->data,
                                          anew->len / sizeof(struct addr_range), &taker)
                         : pages->pages(pages->ctx, s->uid, 0, &taker);
    if (!e && put.later.count) {
        struct worker_contents *c = pages->contents(pages->ctx, s->uid);
        e = worker_set_absent(s->worker, c, put.later.items, put.later.count);
        worker_contents_release(c);
    }
    vec_deinit(&put.later);
    closep(&put.file);
    return e;
}

struct err *replay_settle(struct replay *r)
{
    vec_each (s, &r->spaces)
        TRY(worker_fetch_all((*s)->worker));
    vec_each (s, &r->parked)
        TRY(worker_fetch_all((*s)->worker));
    return NULL;
}

static struct err *restore_memory(struct replay *r, const struct restoring *how)
{
    const struct page_source *pages = how->pages;
    vec_each (o, &r->objects) {
        struct put_ctx put = {.object = *o, .file = -1};
        const struct page_taker taker = {&put, put_pages, fresh_page, NULL, NULL};
        TRY(pages->pages(pages->ctx, 0, (*o)->uid, &taker));
    }
    for (size_t i = 0; i < r->spaces.count; i++)
        TRY(restore_space_memory(r, r->spaces.items[i],
                                 how->copied.items[i] ? &how->anew.items[i] : NULL, pages));
    return NULL;
}

static struct err *restore_body(struct replay *r, struct bytes *b, struct restoring *how)
{
    r->now.event = bytes_uleb(b);
    r->now.icount = bytes_uleb(b);
    r->icount_total = bytes_uleb(b);
    uint8_t bits = bytes_u8(b);
    r->prepared = bits & 1;
    r->skip_next_stop = bits & 2;
    uint32_t last_task = (uint32_t)bytes_uleb(b), last_space = (uint32_t)bytes_uleb(b),
             last_object = (uint32_t)bytes_uleb(b);
    r->renamed_tasks = (uint32_t)bytes_uleb(b);
    for (size_t n = bytes_count(b, 4); n; n--) {
        uint32_t uid = (uint32_t)bytes_uleb(b);
        uint64_t device = bytes_uleb(b), inode = bytes_uleb(b), size = bytes_uleb(b);
        if (b->failed || size > 1ull << 46)
            return bad_state("a shared memory object");
        struct object *o;
        TRY(object_create(r, device, inode, size, &o));
        o->uid = uid;
    }
    size_t near_objects = 0;
    if (how->help.near)
        replay_objects(how->help.near, &near_objects);
    if (near_objects || r->objects.count)
        how->help.near = NULL; // shared memory would have to be copied
    for (size_t n = bytes_count(b, 8); n; n--)
        TRY(restore_space(r, b, how));
    for (size_t n = bytes_count(b, 7); n; n--) {
        struct shared_outside *o = vec_add(&r->outside);
        o->space = (uint32_t)bytes_uleb(b);
        o->writable = bytes_u8(b) & 1;
        o->device = bytes_uleb(b);
        o->inode = bytes_uleb(b);
        o->offset = bytes_uleb(b);
        o->start = bytes_uleb(b);
        o->end = bytes_uleb(b);
    }
    for (size_t n = bytes_count(b, 200); n; n--)
        TRY(restore_task(r, b));
    if (b->failed)
        return bad_state("its end");
    r->last_task = last_task;
    r->last_space = last_space;
    r->last_object = last_object;
    return restore_memory(r, how);
}

struct err *replay_restore(struct trace *t, struct bytes *b, const struct page_source *pages,
                           const struct restore_help *help, struct replay **out)
{
    if (bytes_uleb(b) != SAVE_VERSION)
        return err_new(ERR_FORMAT, "saved state: unknown version");
    struct trace_position p;
    p.event = bytes_uleb(b);
    p.events_offset = bytes_uleb(b);
    p.data_offset = bytes_uleb(b);
    p.mmap_idx = bytes_uleb(b);
    p.task_idx = bytes_uleb(b);
    if (b->failed)
        return bad_state("its position");
    cleanup(replay_closep) struct replay *r = NULL;
    TRY(replay_begin(t, p, &r));
    struct restoring how = {.pages = pages, .help = *help};
    struct err *e = restore_body(r, b, &how);
    vec_each (anew, &how.anew)
        buf_deinit(anew);
    vec_deinit(&how.anew);
    vec_deinit(&how.copied);
    TRY(e);
    *out = steal(r);
    return NULL;
}

/* --- cloning --- */

static struct err *clone_object(struct replay *copy, const struct object *from)
{
    struct object *o;
    TRY(object_create(copy, from->device, from->inode, from->size, &o));
    o->uid = from->uid;
    static const size_t piece = 1 << 20;
    cleanup(freep) uint8_t *data = xmalloc(piece);
    // Sparse: only what holds data is copied.
    for (off_t at = lseek(from->fd, 0, SEEK_DATA); at >= 0;) {
        off_t end = lseek(from->fd, at, SEEK_HOLE);
        while (at < end) {
            size_t len = (size_t)(end - at) < piece ? (size_t)(end - at) : piece;
            if (pread(from->fd, data, len, at) != (ssize_t)len ||
                pwrite(o->fd, data, len, at) != (ssize_t)len)
                return err_os("cannot copy shared memory");
            at += (off_t)len;
        }
        at = lseek(from->fd, end, SEEK_DATA);
    }
    return NULL;
}

static struct err *clone_space(struct replay *copy, const struct space *from)
{
    struct space *s = space_create(copy, 0);
    struct space fresh = *from;
    fresh.id = s->id;
    fresh.worker = NULL;
    fresh.watch_stale = false;
    fresh.task_count = 0;
    fresh.maps.items = xmemdup(from->maps.items, from->maps.count * sizeof(from->maps.items[0]));
    fresh.maps.cap = from->maps.count;
    *s = fresh;
    vec_each (m, &s->maps) {
        if (!m->object)
            continue;
        m->object = object_by_uid(copy, m->object->uid);
        m->object->mapping_count++;
    }
    TRY(worker_fork(from->worker, &s->worker));
    vec_each (m, &s->maps) {
        if (m->object)
            TRY(worker_map(s->worker, m->start, m->end, m->prot, MAP_KIND_SHARED, m->object->fd,
                           m->offset));
    }
    struct consume_request none = {0};
    struct hook_request no_hooks = {0};
    TRY(worker_consume(s->worker, &none));
    return worker_set_hooks(s->worker, &no_hooks);
}

struct err *replay_clone(struct replay *from, struct replay **out)
{
    if (from->dead)
        return err_new(ERR_DIVERGED, "this replay has failed before");
    cleanup(replay_closep) struct replay *r = NULL;
    TRY(replay_begin(from->trace, from->next_position, &r));
    r->prepared = from->prepared;
    r->skip_next_stop = from->skip_next_stop;
    r->now = from->now;
    r->icount_total = from->icount_total;
    vec_each (o, &from->objects) {
        if ((*o)->mapping_count)
            TRY(clone_object(r, *o));
    }
    vec_each (s, &from->spaces)
        TRY(clone_space(r, *s));
    vec_each (o, &from->outside)
        vec_push(&r->outside, *o);
    tasks_copy(&from->tasks, &r->tasks);
    vec_each (it, &r->tasks) {
        (*it)->space = space_by_uid(r, (*it)->info.space);
        (*it)->space->task_count++;
    }
    r->last_task = from->last_task;
    r->last_space = from->last_space;
    r->last_object = from->last_object;
    r->renamed_tasks = from->renamed_tasks;
    *out = steal(r);
    return NULL;
}
