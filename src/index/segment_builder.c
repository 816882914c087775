#include "index/segment_builder.h"

#include "base/log.h"
#include "index/system_calls.h"

#include <sys/uio.h>

/* Written pages of a space or object, as a hash table from (space, object, page). */
struct touched {
    struct db_written *slots; /* page UINT64_MAX: free */
    size_t cap, count;
};

struct builder {
    struct replay *replay;
    struct segment *out;
    struct page_base *base;
    struct touched touched;
    VEC(struct db_kernel_write) event_writes; /* of the event in progress */
    uint64_t last_total; /* instructions of all when the event before was applied */
    VEC(struct db_block) blocks;
    struct err *failed; /* in a callback that cannot fail */
    uint32_t created, ended;
    bool before; /* the segment begins */
};

/* --- touched pages --- */

static struct db_written *touch_page(struct touched *t, uint32_t space, uint32_t object,
                                     uint64_t page)
{
    if (t->count * 2 >= t->cap) {
        struct touched grown = {.cap = t->cap ? t->cap * 2 : 1024};
        grown.slots = xmalloc(grown.cap * sizeof(grown.slots[0]));
        for (size_t i = 0; i < grown.cap; i++)
            grown.slots[i].page = UINT64_MAX;
        for (size_t i = 0; i < t->cap; i++) {
            const struct db_written *w = &t->slots[i];
            if (w->page != UINT64_MAX)
                *touch_page(&grown, w->space, w->object, w->page) = *w;
        }
        free(t->slots);
        *t = grown;
    }
    size_t i = (page / PAGE_SIZE + ((uint64_t)space << 40) + ((uint64_t)object << 52)) *
                   0x9e3779b97f4a7c15ull >>
               20;
    for (;; i++) {
        struct db_written *w = &t->slots[i & (t->cap - 1)];
        if (w->page == UINT64_MAX) {
            *w = (struct db_written){.space = space, .object = object, .page = page};
            t->count++;
            return w;
        }
        if (w->page == page && w->space == space && w->object == object)
            return w;
    }
}

static void touch_range(struct touched *t, uint32_t space, uint32_t object, uint64_t start,
                        uint64_t len)
{
    uint64_t end = start + len;
    while (start < end) {
        uint64_t page = start & ~(uint64_t)(PAGE_SIZE - 1),
                 stop = page + PAGE_SIZE < end ? page + PAGE_SIZE : end;
        struct db_written *w = touch_page(t, space, object, page);
        for (uint64_t g = (start - page) / 8; g <= (stop - 1 - page) / 8; g++)
            w->granules[g / 64] |= 1ull << g % 64;
        start = stop;
    }
}

/* Fetches from a space's worker what its index has gathered. */
static struct err *drain(struct builder *b, uint32_t space)
{
    struct worker *w = replay_worker(b->replay, space);
    if (!w)
        return NULL;
    cleanup(buf_deinit) struct buf counts = {0}, pages = {0};
    TRY(worker_take_index(w, &counts, &pages));
    const struct block_count *c = (const void *)counts.data;
    for (size_t i = 0; i < counts.len / sizeof(*c); i++)
        vec_push(&b->blocks, (struct db_block){space, c[i].pc, c[i].insn_count, c[i].byte_len,
                                               c[i].end, c[i].ticks, c[i].count});
    const struct written_page *p = (const void *)pages.data;
    for (size_t i = 0; i < pages.len / sizeof(*p); i++) {
        const struct mapping *m = replay_mapping_at(b->replay, space, p[i].page);
        struct db_written *to = m && m->object ? touch_page(&b->touched, 0, object_uid(m->object),
                                                            m->offset + (p[i].page - m->start))
                                               : touch_page(&b->touched, space, 0, p[i].page);
        for (int k = 0; k < 8; k++)
            to->granules[k] |= p[i].granules[k];
    }
    return NULL;
}

static void drain_quietly(struct builder *b, uint32_t space)
{
    struct err *e = drain(b, space);
    if (e && !b->failed)
        b->failed = e;
    else
        err_free(e);
}

/* --- observing --- */

static void on_sharing(void *ctx, struct replay *r, uint32_t space)
{
    drain_quietly(ctx, space);
}

static void on_wrote(void *ctx, struct replay *r, uint32_t space, gaddr addr, uint64_t len,
                     uint32_t object, uint64_t offset)
{
    struct builder *b = ctx;
    struct db_kernel_write w = object ? (struct db_kernel_write){0, object, offset, len}
                                      : (struct db_kernel_write){space, 0, addr, len};
    if (!b->before)
        touch_range(&b->touched, w.space, w.object, w.addr, w.len);
    vec_push(&b->event_writes, w);
}

static void on_remapped(void *ctx, struct replay *r, uint32_t space, gaddr start, gaddr end)
{
    struct builder *b = ctx;
    vec_push(&b->out->remaps, (struct db_remap){space, start, end});
    // A new mapping is a write, too: what was there is gone.
    vec_push(&b->event_writes, (struct db_kernel_write){space, 0, start, end - start});
}

static struct err *on_space_created(void *ctx, struct replay *r, uint32_t space, uint32_t parent)
{
    struct builder *b = ctx;
    vec_push(&b->out->spaces, (struct db_space){space, parent, replay_now(r)});
    TRY(system_calls_hook(r, space));
    if (!parent)
        return NULL;
    // The copy's pages are the parent's of this moment, which is no boundary: all that the parent
    // changed since the boundary must be stored for the copy.
    TRY(drain(b, parent));
    VEC(uint64_t) pages = {0};
    for (size_t i = 0; i < b->touched.cap; i++) {
        const struct db_written *w = &b->touched.slots[i];
        if (w->page != UINT64_MAX && w->space == parent && !w->object)
            vec_push(&pages, w->page);
    }
    vec_each (p, &pages)
        touch_page(&b->touched, space, 0, *p);
    vec_deinit(&pages);
    size_t count = b->out->remaps.count;
    for (size_t i = 0; i < count; i++) {
        struct db_remap m = b->out->remaps.items[i];
        if (m.space != parent)
            continue;
        m.space = space;
        vec_push(&b->out->remaps, m);
    }
    return NULL;
}

static struct err *take_stacks(struct builder *b, uint32_t space);

static struct err *on_space_ending(void *ctx, struct replay *r, uint32_t space)
{
    struct builder *b = ctx;
    TRY(system_calls_take(r, space, b->out));
    return drain(b, space);
}

static void on_task_created(void *ctx, struct replay *r, uint32_t serial, uint32_t parent)
{
    struct builder *b = ctx;
    b->created = serial;
    size_t count;
    uint32_t space = 0, parent_space = 0;
    const struct task_info *tasks = replay_tasks(r, &count);
    for (size_t i = 0; i < count; i++) {
        if (tasks[i].serial == serial)
            space = tasks[i].space;
        if (tasks[i].serial == parent)
            parent_space = tasks[i].space;
    }
    if (parent && space != parent_space)
        vec_push(&b->out->forks, (struct db_fork){serial, parent});
}

static void on_task_ended(void *ctx, struct replay *r, uint32_t serial)
{
    struct builder *b = ctx;
    b->ended = serial;
    vec_push(&b->out->ends, serial);
}

/* What the program wrote to its stdout or stderr: the recorder lets all of these calls through as
 * events of their own. */
static struct err *gather_output(struct builder *b, const struct frame *f, struct db_event *e)
{
    if (!frame_is_output(f))
        return NULL;
    e->fd = (uint8_t)f->regs.r[UREG_RDI];
    e->output_off = (uint32_t)b->out->output.len;
    TRY(replay_output(b->replay, f, &b->out->output));
    e->output_len = (uint32_t)(b->out->output.len - e->output_off);
    return NULL;
}

static bool looks(void *ctx, const struct frame *f)
{
    return frame_is_output(f) || system_call_names(f);
}

static struct err *on_event(void *ctx, struct replay *r, const struct frame *f)
{
    struct builder *b = ctx;
    if (b->failed)
        return steal(b->failed);
    replay_warn_32bit(f);
    size_t count;
    uint32_t serial = 0, space = 0;
    const struct task_info *tasks = replay_tasks(r, &count);
    for (size_t i = 0; i < count; i++) {
        if (tasks[i].tid != f->tid)
            continue;
        serial = tasks[i].serial;
        space = tasks[i].space;
    }
    struct db_event e = {.number = f->event,
                         .kind = (uint8_t)f->kind,
                         .syscall_state = (uint8_t)f->syscall_state,
                         .syscall_arch = (uint8_t)f->syscall_arch,
                         .syscall_no = f->syscall_no,
                         .task = serial,
                         .result = f->regs.r[UREG_RAX],
                         .ticks = f->ticks,
                         .rip = f->regs.r[UREG_RIP],
                         .time = f->monotonic_sec,
                         .created_task = b->created,
                         .ended_task = b->ended};
    if (!serial)
        e.task = b->ended;
    uint64_t total = replay_icount_total(r);
    e.icount = total - b->last_total;
    if (b->out->events.count == 0)
        e.icount += b->out->start.icount;
    b->last_total = total;
    b->created = b->ended = 0;
    if (f->siginfo) {
        memcpy(&e.signo, f->siginfo, 4);
        memcpy(&e.si_code, f->siginfo + 8, 4);
        memcpy(&e.fault_addr, f->siginfo + 16, 8);
        e.disposition = (uint8_t)f->disposition;
    }
    for (size_t i = 0; i < f->task_count; i++) {
        if (f->tasks[i].kind == TASK_EXEC && serial)
            vec_push(&b->out->execs, serial);
    }
    TRY(gather_output(b, f, &e));
    if (serial)
        TRY(system_calls_event(r, f, space, (struct moment){f->event - 1, e.icount}, b->out));
    e.write_count = (uint32_t)b->event_writes.count;
    vec_each (w, &b->event_writes)
        vec_push(&b->out->kernel_writes, *w);
    b->event_writes.count = 0;
    vec_push(&b->out->events, e);
    return NULL;
}

/* --- the end of a segment --- */

static int compare_blocks(const void *a, const void *b)
{
    const struct db_block *x = a, *y = b;
    if (x->space != y->space)
        return x->space < y->space ? -1 : 1;
    if (x->pc != y->pc)
        return x->pc < y->pc ? -1 : 1;
    return x->byte_len < y->byte_len ? -1 : x->byte_len > y->byte_len;
}

static int compare_written(const void *a, const void *b)
{
    const struct db_written *x = a, *y = b;
    if (x->object != y->object)
        return x->object < y->object ? -1 : 1;
    if (x->space != y->space)
        return x->space < y->space ? -1 : 1;
    return x->page < y->page ? -1 : x->page > y->page;
}

static void sum_blocks(struct builder *b)
{
    qsort(b->blocks.items, b->blocks.count, sizeof(b->blocks.items[0]), compare_blocks);
    vec_each (k, &b->blocks) {
        struct db_block *last =
            b->out->blocks.count ? &b->out->blocks.items[b->out->blocks.count - 1] : NULL;
        if (last && compare_blocks(last, k) == 0)
            last->count += k->count;
        else
            vec_push(&b->out->blocks, *k);
    }
}

enum { PAGES_AT_ONCE = 64 };

/* Reads neighbouring pages as they are now. Fewer than `count` if what follows is gone. */
static struct err *read_now(struct builder *b, const struct db_written *w, size_t count,
                            uint8_t *out, size_t *count_out)
{
    size_t done = 0;
    struct err *e;
    if (w->object) {
        e = replay_read_object(b->replay, w->object, w->page, out, count * PAGE_SIZE);
        done = e ? 0 : count * PAGE_SIZE;
    } else {
        e = replay_read(b->replay, w->space, w->page, out, count * PAGE_SIZE, &done);
    }
    if (e && err_kind(e) != ERR_FAULT && err_kind(e) != ERR_NOT_FOUND)
        return e;
    err_free(e);
    *count_out = done / PAGE_SIZE;
    return NULL;
}

static void list_written(struct builder *b)
{
    struct segment *out = b->out;
    for (size_t i = 0; i < b->touched.cap; i++) {
        if (b->touched.slots[i].page != UINT64_MAX)
            vec_push(&out->written, b->touched.slots[i]);
    }
    if (out->written.count)
        qsort(out->written.items, out->written.count, sizeof(out->written.items[0]),
              compare_written);
}

static void add_change(struct builder *b, const struct db_written *w, const uint8_t *contents)
{
    struct db_page page = {.space = w->space, .object = w->object, .page = w->page};
    if (page_base_change(b->base, w->space, w->object, w->page, contents, &page.now, &page.before))
        vec_push(&b->out->pages, page);
}

static bool is_remapped(const struct segment *s, uint32_t space, uint64_t page)
{
    size_t low = 0, high = s->remaps.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct db_remap *m = &s->remaps.items[middle];
        if (m->space < space || (m->space == space && m->end <= page))
            low = middle + 1;
        else
            high = middle;
    }
    return low < s->remaps.count && s->remaps.items[low].space == space &&
           s->remaps.items[low].start <= page;
}

/* Neighbouring pages. What was mapped in this segment and holds what its file does needs no
 * contents: it may have been written before, as libraries are, which the recorder's data fill
 * before their parts are mapped. */
static struct err *add_changes(struct builder *b, const struct db_written *w,
                               const uint8_t *contents, size_t count)
{
    cleanup(freep) uint8_t *files = NULL;
    for (size_t i = 0, read = 0; i < count; i++) {
        bool remapped = !w->object && is_remapped(b->out, w->space, w[i].page);
        const uint8_t *page = contents + i * PAGE_SIZE;
        if (remapped && i >= read) {
            size_t n;
            files = files ? files : xmalloc(count * PAGE_SIZE);
            TRY(replay_read_files(b->replay, w->space, w[i].page, count - i, files + i * PAGE_SIZE,
                                  &n));
            read = i + n;
        }
        if (!remapped || i >= read || memcmp(page, files + i * PAGE_SIZE, PAGE_SIZE) != 0)
            add_change(b, &w[i], page);
    }
    return NULL;
}

/* Takes the contents of the written pages; neighbours in one go. Pages that are gone are left out.
 */
static struct err *take_pages(struct builder *b)
{
    struct segment *out = b->out;
    vec_each (r, &out->remaps)
        page_base_forget(b->base, r->space, r->start, r->end);
    cleanup(freep) uint8_t *room = xmalloc(PAGES_AT_ONCE * PAGE_SIZE);
    for (size_t i = 0; i < out->written.count;) {
        const struct db_written *w = &out->written.items[i];
        size_t n = 1, had;
        while (i + n < out->written.count && n < PAGES_AT_ONCE && w[n].space == w->space &&
               w[n].object == w->object && w[n].page == w->page + n * PAGE_SIZE)
            n++;
        TRY(read_now(b, w, n, room, &had));
        if (!had && w->object && n > 1) { // the object ends somewhere in the run
            n = 1;
            TRY(read_now(b, w, n, room, &had));
        }
        TRY(add_changes(b, w, room, had));
        i += had < n ? had + 1 : n;
    }
    return NULL;
}

static uint32_t serial_of(struct replay *r, uint32_t space, unsigned slot)
{
    size_t count;
    const struct task_info *tasks = replay_tasks(r, &count);
    for (size_t i = 0; i < count; i++) {
        if (tasks[i].space == space && tasks[i].slot == slot)
            return tasks[i].serial;
    }
    return 0;
}

static struct err *take_stacks(struct builder *b, uint32_t space)
{
    cleanup(buf_deinit) struct buf entries = {0}, floors = {0};
    TRY(worker_take_stack(replay_worker(b->replay, space), &entries, &floors));
    const struct stack_entry *e = (const void *)entries.data;
    for (size_t i = 0; i < entries.len / sizeof(*e); i++) {
        uint32_t serial = serial_of(b->replay, space, e[i].slot);
        if (serial)
            vec_push(&b->out->stacks,
                     (struct db_call){
                         serial, {e[i].stamp, e[i].icount}, e[i].pc, e[i].return_addr, e[i].sp});
    }
    const struct stack_floor *f = (const void *)floors.data;
    for (size_t i = 0; i < floors.len / sizeof(*f); i++) {
        uint32_t serial = serial_of(b->replay, space, f[i].slot);
        if (serial)
            vec_push(&b->out->floors, (struct db_floor){serial, f[i].start, f[i].end, f[i].floor});
    }
    return NULL;
}

static struct err *finish(struct builder *b)
{
    size_t count;
    const uint32_t *list = replay_spaces(b->replay, &count);
    cleanup(freep) uint32_t *spaces = xmemdup(list, count * sizeof(*list));
    for (size_t i = 0; i < count; i++) {
        TRY(drain(b, spaces[i]));
        TRY(take_stacks(b, spaces[i]));
        TRY(system_calls_take(b->replay, spaces[i], b->out));
    }
    if (b->failed)
        return steal(b->failed);
    sum_blocks(b);
    list_written(b);
    segment_merge_remaps(b->out);
    system_calls_sort(b->out);
    return b->base ? take_pages(b) : NULL;
}

/* Takes what the space that runs now has written. */
static struct err *drain_running(struct builder *b)
{
    size_t count;
    uint32_t running = replay_running(b->replay);
    const struct task_info *tasks = replay_tasks(b->replay, &count);
    for (size_t i = 0; i < count; i++) {
        if (tasks[i].serial == running)
            return drain(b, tasks[i].space);
    }
    return NULL;
}

/* In pieces, each of which may be the last one. */
static struct err *run(struct builder *b, const struct segment_rule *rule)
{
    enum { PIECES = 8, LEAST_PIECE = 200000 };
    struct replay *r = b->replay;
    struct moment until = {replay_now(r).event + rule->events, 0};
    uint64_t piece = rule->icount / PIECES > LEAST_PIECE ? rule->icount / PIECES : LEAST_PIECE,
             start = replay_icount_total(r), done = 0;
    do {
        uint64_t next = done + piece < rule->icount ? done + piece : rule->icount;
        bool stopped;
        TRY(replay_run(r, until, next - done, &stopped));
        if (stopped)
            return err_new(ERR_LIMIT, "too many buffered system calls in a segment");
        done = replay_icount_total(r) - start;
        if (done < next || done == rule->icount)
            return NULL;
        TRY(drain_running(b));
    } while (b->touched.count < rule->pages);
    return NULL;
}

static struct err *build(struct builder *b, const struct segment_rule *rule)
{
    struct replay *r = b->replay;
    struct segment *out = b->out;
    out->start = replay_now(r);
    out->icount_start = replay_icount_total(r);
    b->last_total = out->icount_start;
    TRY(replay_save(r, &out->state));
    const struct replay_observer observer = {
        .ctx = b,
        .event = on_event,
        .looks = looks,
        .wrote = on_wrote,
        .remapped = on_remapped,
        .sharing_changes = on_sharing,
        .space_created = on_space_created,
        .space_ending = on_space_ending,
        .task_created = on_task_created,
        .task_ended = on_task_ended,
    };
    TRY(replay_set_mode(r, ENGINE_INDEX, NULL));
    replay_set_observer(r, &observer);
    size_t count;
    const uint32_t *spaces = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++)
        TRY(system_calls_hook(r, spaces[i]));
    // What was written for the first event before the segment begins is that event's, but it is the
    // segment before that has the granules.
    b->before = true;
    replay_tell_prepared(r);
    b->before = false;
    TRY(run(b, rule));
    out->end = replay_now(r);
    out->icount = replay_icount_total(r) - out->icount_start;
    return finish(b);
}

struct err *segment_build(struct replay *r, const struct segment_rule *rule, struct page_base *base,
                          struct segment *out)
{
    struct builder b = {.replay = r, .out = out, .base = base};
    struct err *e = build(&b, rule);
    replay_set_observer(r, NULL);
    free(b.touched.slots);
    vec_deinit(&b.event_writes);
    vec_deinit(&b.blocks);
    err_free(b.failed);
    return e;
}
