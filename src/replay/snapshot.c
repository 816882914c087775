/* Snapshots of a replay, to go back to (replay.h). The worker keeps pages and vector state
 * (worker.h); here is everything else: tasks, mapping tables, the position in the trace, and the
 * contents of shared memory.
 *
 * Going back puts mappings back first, only where they differ; then each worker restores its pages;
 * then shared memory is written. A space that ends, or that is not yet at the time that is gone
 * back to, is parked with its worker as long as a snapshot has it. */
#include "replay/replay_int.h"

#include <sys/mman.h>

enum { MAX_OBJECT_PAGES = 4096 };

struct saved_space {
    struct space state; /* maps is a copy, which keeps its objects */
    struct buf stack;   /* of all its tasks, in index mode: struct stack_entry */
};

struct replay_snapshot {
    struct moment now;
    uint64_t icount_total;
    struct trace_position next_position;
    bool prepared, skip_next_stop;
    uint32_t last_task, last_space, last_object, renamed_tasks;
    task_list tasks; /* copies */
    VEC(struct saved_space) spaces;
    VEC(struct shared_outside) outside;
    /* Contents, by index in replay.object_pages; NULL: there was no such page. */
    VEC(uint8_t *) object_pages;
};

static void free_snapshot(struct replay *r, struct replay_snapshot *s)
{
    if (!s)
        return;
    vec_each (t, &s->tasks)
        task_free(*t);
    vec_each (saved, &s->spaces) {
        vec_each (m, &saved->state.maps) {
            if (m->object)
                object_let_go(r, m->object);
        }
        vec_deinit(&saved->state.maps);
        buf_deinit(&saved->stack);
    }
    vec_each (p, &s->object_pages)
        free(*p);
    vec_deinit(&s->tasks);
    vec_deinit(&s->spaces);
    vec_deinit(&s->outside);
    vec_deinit(&s->object_pages);
    free(s);
}

void snapshots_free(struct replay *r)
{
    vec_each (s, &r->parked)
        space_free(r, *s);
    vec_deinit(&r->parked);
    for (unsigned i = 0; i < WORKER_SNAPSHOTS; i++) {
        free_snapshot(r, r->snapshots[i]);
        r->snapshots[i] = NULL;
    }
    vec_deinit(&r->object_pages);
}

/* --- spaces that are not now --- */

static struct saved_space *find_saved(const struct replay_snapshot *s, uint64_t id)
{
    vec_each (it, &s->spaces) {
        if (it->state.id == id)
            return it;
    }
    return NULL;
}

/* Leaves nothing in the worker that belongs to this moment. Shared mappings go: a space that is not
 * now keeps no object alive. */
static struct err *park(struct replay *r, struct space *s)
{
    struct hook_request no_hooks = {0};
    struct consume_request nothing = {0};
    TRY(worker_set_hooks(s->worker, &no_hooks));
    TRY(worker_set_steps(s->worker, NULL));
    TRY(worker_consume(s->worker, &nothing));
    TRY(worker_snapshot_restoring(s->worker));
    size_t kept = 0;
    for (size_t i = 0; i < s->maps.count; i++) {
        struct mapping *m = &s->maps.items[i];
        if (!m->object) {
            s->maps.items[kept++] = *m;
            continue;
        }
        object_release(r, m->object);
        TRY(worker_unmap(s->worker, m->start, m->end));
    }
    s->maps.count = kept;
    return NULL;
}

static void take_off(struct replay *r, const struct space *s)
{
    size_t i = 0;
    while (r->spaces.items[i] != s)
        i++;
    memmove(&r->spaces.items[i], &r->spaces.items[i + 1],
            (r->spaces.count - i - 1) * sizeof(r->spaces.items[0]));
    r->spaces.count--;
}

struct err *space_retire(struct replay *r, struct space *s)
{
    bool in_snapshot = false;
    for (unsigned i = 0; i < WORKER_SNAPSHOTS; i++)
        in_snapshot |= r->snapshots[i] && find_saved(r->snapshots[i], s->id);
    take_off(r, s);
    if (!in_snapshot || r->snapshots_broken) {
        space_free(r, s);
        return NULL;
    }
    vec_push(&r->parked, s);
    return park(r, s);
}

/* Takes the spaces of the snapshot that are parked back, and makes the list what it was, but for
 * spaces which are too many. False: one is gone. */
static bool unpark(struct replay *r, const struct replay_snapshot *s)
{
    for (size_t k = 0; k < s->spaces.count; k++) {
        const struct space *old = &s->spaces.items[k].state;
        struct space *found = NULL;
        vec_each (it, &r->spaces)
            found = (*it)->id == old->id ? *it : found;
        for (size_t i = 0; i < r->parked.count && !found; i++) {
            if (r->parked.items[i]->id != old->id)
                continue;
            found = r->parked.items[i];
            r->parked.items[i] = r->parked.items[--r->parked.count];
            vec_push(&r->spaces, found);
        }
        if (!found)
            return false;
        // Into the place it had.
        take_off(r, found);
        vec_push(&r->spaces, found);
        memmove(&r->spaces.items[k + 1], &r->spaces.items[k],
                (r->spaces.count - k - 1) * sizeof(r->spaces.items[0]));
        r->spaces.items[k] = found;
    }
    return true;
}

/* --- shared memory --- */

static uint8_t *read_object_page(struct replay *r, const struct object_page *p)
{
    struct object *o = object_by_uid(r, p->object);
    if (!o || !o->mapping_count || p->offset > o->size || o->size - p->offset < PAGE_SIZE)
        return NULL;
    uint8_t *page = xmalloc(PAGE_SIZE);
    if (pread(o->fd, page, PAGE_SIZE, (off_t)p->offset) != PAGE_SIZE) {
        free(page);
        return NULL;
    }
    return page;
}

/* Adds a page to those which are kept: what it holds now it has held at all snapshots. */
static struct err *keep_object_page(struct replay *r, uint32_t object, uint64_t offset)
{
    vec_each (p, &r->object_pages) {
        if (p->object == object && p->offset == offset)
            return NULL;
    }
    if (r->object_pages.count == MAX_OBJECT_PAGES)
        return err_new(ERR_LIMIT, "too much shared memory for a snapshot");
    struct object_page page = {object, offset};
    vec_push(&r->object_pages, page);
    for (unsigned i = 0; i < WORKER_SNAPSHOTS; i++) {
        if (r->snapshots[i])
            vec_push(&r->snapshots[i]->object_pages, read_object_page(r, &page));
    }
    return NULL;
}

void snapshots_before_shared_write(struct replay *r, struct object *o, uint64_t offset,
                                   uint64_t len)
{
    bool any = false;
    for (unsigned i = 0; i < WORKER_SNAPSHOTS; i++)
        any |= r->snapshots[i] != NULL;
    for (uint64_t at = offset & ~(uint64_t)(PAGE_SIZE - 1);
         any && !r->snapshots_broken && at < offset + len; at += PAGE_SIZE) {
        struct err *e = keep_object_page(r, o->uid, at);
        r->snapshots_broken = e != NULL;
        err_free(e);
    }
}

/* Writes an object's page through all mappings, so that translations of it go. */
static struct err *write_object_page(struct replay *r, const struct object_page *p,
                                     const uint8_t *bytes)
{
    uint8_t now[PAGE_SIZE];
    struct object *o = object_by_uid(r, p->object);
    if (!o || !o->mapping_count)
        return NULL; // it is not, or not yet
    if (pread(o->fd, now, PAGE_SIZE, (off_t)p->offset) != PAGE_SIZE)
        return err_new(ERR_OS, "cannot read shared memory");
    if (memcmp(now, bytes, PAGE_SIZE) == 0)
        return NULL;
    if (pwrite(o->fd, bytes, PAGE_SIZE, (off_t)p->offset) != PAGE_SIZE)
        return err_os("cannot write shared memory");
    vec_each (s, &r->spaces) {
        vec_each (m, &(*s)->maps) {
            if (m->object == o && p->offset >= m->offset &&
                p->offset - m->offset < m->end - m->start)
                TRY(worker_write((*s)->worker, m->start + (p->offset - m->offset), bytes,
                                 PAGE_SIZE));
        }
    }
    return NULL;
}

/* --- taking --- */

struct err *replay_snapshot_pages(struct replay *r, uint32_t space, uint32_t object,
                                  const uint64_t *pages, size_t count)
{
    if (object) {
        for (size_t i = 0; i < count; i++)
            TRY(keep_object_page(r, object, pages[i]));
        return NULL;
    }
    struct space *s = space_by_uid(r, space);
    return s ? worker_snapshot_pages(s->worker, pages, count)
             : NULL; // one that is made later needs nothing
}

static struct err *save_space(struct replay *r, const struct space *s, unsigned idx,
                              struct replay_snapshot *out)
{
    struct saved_space saved = {.state = *s};
    saved.state.maps.items = xmemdup(s->maps.items, s->maps.count * sizeof(s->maps.items[0]));
    saved.state.maps.cap = s->maps.count;
    vec_each (m, &saved.state.maps) {
        if (m->object)
            m->object->keeper_count++;
    }
    vec_push(&out->spaces, saved);
    TRY(worker_snapshot_take(s->worker, idx));
    if (!engine_keeps_calls(r->mode))
        return NULL;
    return worker_take_stack(s->worker, &out->spaces.items[out->spaces.count - 1].stack, NULL);
}

struct err *replay_snapshot(struct replay *r, unsigned idx)
{
    if (r->dead || r->snapshots_broken || idx >= WORKER_SNAPSHOTS)
        return err_new(ERR_LIMIT, "no snapshot can be taken");
    free_snapshot(r, r->snapshots[idx]);
    r->snapshots[idx] = NULL;
    struct replay_snapshot *s = xnew(struct replay_snapshot);
    s->now = r->now;
    s->icount_total = r->icount_total;
    s->next_position = r->next_position;
    s->prepared = r->prepared;
    s->skip_next_stop = r->skip_next_stop;
    s->last_task = r->last_task;
    s->last_space = r->last_space;
    s->last_object = r->last_object;
    s->renamed_tasks = r->renamed_tasks;
    tasks_copy(&r->tasks, &s->tasks);
    vec_each (o, &r->outside)
        vec_push(&s->outside, *o);
    vec_each (p, &r->object_pages)
        vec_push(&s->object_pages, read_object_page(r, p));
    struct err *e = NULL;
    vec_each (it, &r->spaces) {
        if (!e)
            e = save_space(r, *it, idx, s);
    }
    if (e)
        free_snapshot(r, s);
    else
        r->snapshots[idx] = s;
    return e;
}

struct err *replay_snapshot_fetched(struct replay *r)
{
    vec_each (s, &r->spaces)
        TRY(worker_snapshot_fetched((*s)->worker, true));
    return NULL;
}

/* --- going back --- */

/* Is the same thing mapped at `at`, but for the protection? */
static bool same_mapping(const struct mapping *a, const struct mapping *b, gaddr at)
{
    return a->kind == b->kind && a->object == b->object &&
           (a->kind == MAPPING_ANON ||
            (a->offset + (at - a->start) == b->offset + (at - b->start) &&
             a->mmap_idx == b->mmap_idx));
}

static const struct mapping *mapping_in(const struct space *s, size_t *next, gaddr at)
{
    while (*next < s->maps.count && s->maps.items[*next].end <= at)
        ++*next;
    return *next < s->maps.count && s->maps.items[*next].start <= at ? &s->maps.items[*next] : NULL;
}

/* Where one of the tables begins or ends a mapping next. */
static gaddr next_border(const struct space *s, size_t next, gaddr at, gaddr limit)
{
    if (next == s->maps.count)
        return limit;
    const struct mapping *m = &s->maps.items[next];
    gaddr border = m->start > at ? m->start : m->end;
    return border < limit ? border : limit;
}

/* Makes [start, end) be mapped as in `want`, which may be NULL. */
static struct err *put_mapping(struct replay *r, struct space *s, const struct mapping *have,
                               const struct mapping *want, gaddr start, gaddr end, struct buf *anew)
{
    if (!want)
        return have ? worker_unmap(s->worker, start, end) : NULL;
    if (have && same_mapping(have, want, start))
        return have->prot == want->prot ? NULL : worker_protect(s->worker, start, end, want->prot);
    if (anew)
        buf_add(anew, &(struct addr_range){start, end}, sizeof(struct addr_range));
    return space_realise_part(r, s, want, start, end);
}

struct err *space_switch_mappings(struct replay *r, struct space *s, const struct space *have,
                                  const struct space *want, struct buf *anew)
{
    static const gaddr top = 0x800000000000;
    size_t i = 0, k = 0;
    for (gaddr at = 0; at < top;) {
        const struct mapping *is = mapping_in(have, &i, at), *will = mapping_in(want, &k, at);
        gaddr end = next_border(want, k, at, next_border(have, i, at, top));
        TRY(put_mapping(r, s, is, will, at, end, anew));
        at = end;
    }
    return NULL;
}

static struct err *restore_space(struct replay *r, struct space *s, const struct saved_space *saved,
                                 unsigned idx)
{
    const struct space *old = &saved->state;
    TRY(worker_snapshot_restoring(s->worker));
    TRY(space_switch_mappings(
        r, s, s, old,
        NULL)); // of what was unmapped or mapped anew since the worker holds all pages
    TRY(worker_snapshot_restore(s->worker, idx));
    struct space was = *s;
    *s = *old;
    s->worker = was.worker;
    s->break_set = was.break_set;
    s->break_rax = was.break_rax;
    s->watch_stale = true;
    s->maps.items = xmemdup(old->maps.items, old->maps.count * sizeof(old->maps.items[0]));
    s->maps.cap = old->maps.count;
    vec_each (m, &s->maps) {
        if (m->object)
            m->object->mapping_count++;
    }
    vec_each (m, &was.maps) {
        if (m->object)
            object_release(r, m->object);
    }
    vec_deinit(&was.maps);
    return NULL;
}

static bool has_slot(const struct replay_snapshot *s, uint32_t space, unsigned slot)
{
    vec_each (it, &s->tasks) {
        if ((*it)->info.space == space && (*it)->info.slot == slot)
            return true;
    }
    return false;
}

/* Ends all tasks. The workers keep those that will be again. */
static struct err *drop_tasks(struct replay *r, const struct replay_snapshot *s)
{
    while (r->tasks.count)
        task_destroy(r, r->tasks.items[0]);
    for (size_t k = 0; k < s->spaces.count; k++) {
        const struct space *space = r->spaces.items[k];
        for (unsigned slot = 0; slot < space->next_slot && slot < WORKER_MAX_TASKS; slot++) {
            if (!has_slot(s, space->uid, slot))
                TRY(worker_drop_task(space->worker, slot));
        }
    }
    return NULL;
}

static void restore_tasks(struct replay *r, const struct replay_snapshot *s)
{
    tasks_copy(&s->tasks, &r->tasks);
    vec_each (it, &r->tasks)
        (*it)->space = space_by_uid(r, (*it)->info.space);
}

static struct err *restore_stacks(struct replay *r, const struct replay_snapshot *s)
{
    vec_each (it, &s->tasks) {
        const struct task *t = *it;
        const struct saved_space *saved = s->spaces.items;
        while (saved->state.uid != t->info.space)
            saved++;
        VEC(struct stack_entry) entries = {0};
        const struct stack_entry *e = (const void *)saved->stack.data;
        for (size_t i = 0; i < saved->stack.len / sizeof(*e); i++) {
            if (e[i].slot == t->info.slot)
                vec_push(&entries, e[i]);
        }
        struct err *failed = worker_set_stack(space_by_uid(r, t->info.space)->worker, t->info.slot,
                                              entries.items, entries.count);
        vec_deinit(&entries);
        TRY(failed);
    }
    return NULL;
}

static struct err *go_back(struct replay *r, const struct replay_snapshot *s, unsigned idx)
{
    TRY(drop_tasks(r, s));
    while (r->spaces.count > s->spaces.count)
        TRY(space_retire(r, r->spaces.items[r->spaces.count - 1]));
    for (size_t i = 0; i < s->spaces.count; i++)
        TRY(restore_space(r, r->spaces.items[i], &s->spaces.items[i], idx));
    restore_tasks(r, s);
    r->outside.count = 0;
    vec_each (o, &s->outside)
        vec_push(&r->outside, *o);
    for (size_t i = 0; i < s->object_pages.count; i++) {
        if (s->object_pages.items[i])
            TRY(write_object_page(r, &r->object_pages.items[i], s->object_pages.items[i]));
    }
    if (engine_keeps_calls(r->mode))
        TRY(restore_stacks(r, s));
    TRY(trace_cursor_seek(r->cursor, s->next_position));
    TRY(replay_peek(r));
    r->now = s->now;
    r->icount_total = s->icount_total;
    r->prepared = s->prepared;
    r->skip_next_stop = s->skip_next_stop;
    r->last_task = s->last_task;
    r->last_space = s->last_space;
    r->last_object = s->last_object;
    r->renamed_tasks = s->renamed_tasks;
    r->code_space = 0;
    return NULL;
}

struct err *replay_go_back(struct replay *r, unsigned idx, bool *done_out)
{
    const struct replay_snapshot *s = idx < WORKER_SNAPSHOTS ? r->snapshots[idx] : NULL;
    *done_out = false;
    if (r->dead || r->snapshots_broken || !s)
        return NULL;
    r->dead = true;
    if (!unpark(r, s))
        return NULL;
    struct err *e = go_back(r, s, idx);
    if (!e) {
        r->dead = false;
        *done_out = true;
        return NULL;
    }
    if (err_kind(e) != ERR_LIMIT)
        return e;
    err_free(e); // too much has changed for the workers to know what
    return NULL;
}
