#include "index/check.h"

#include "index/boundary.h"
#include "index/segment_builder.h"

#include <fcntl.h>

/* Of a mapping without knowledge of what is present in it, so much is compared. */
#define BLIND_BYTES (64ull << 20)
enum { PIECE_PAGES = 64 };

struct check {
    struct history *history;
    size_t segment;
    struct replay *replay, *restored; /* at the same boundary */
};

static struct err *differs(const struct check *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static struct err *differs(const struct check *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cleanup(freep) char *what = str_vformat(format, args);
    va_end(args);
    cleanup(freep) char *path = history_segment_path(history_dir(c->history), c->segment);
    struct moment now = replay_now(c->replay);
    return err_new(
        ERR_DIVERGED,
        "%s: at event %llu, instruction %llu the database and a second replay differ: %s", path,
        (unsigned long long)now.event, (unsigned long long)now.icount, what);
}

/* --- tasks --- */

static struct err *check_task(const struct check *c, const struct task_info *a,
                              const struct task_info *b)
{
    static const char *const names[UREG_COUNT] = {
        "r15",    "r14", "r13", "r12",     "rbp",     "rbx", "r11",      "r10", "r9",
        "r8",     "rax", "rcx", "rdx",     "rsi",     "rdi", "orig_rax", "rip", "cs",
        "eflags", "rsp", "ss",  "fs_base", "gs_base", "ds",  "es",       "fs",  "gs"};
    if (a->serial != b->serial || a->tid != b->tid || a->space != b->space || a->slot != b->slot ||
        a->ticks != b->ticks || a->in_syscall != b->in_syscall || a->is_32bit != b->is_32bit)
        return differs(c, "task %u (tid %d, ticks %lld) is task %u (tid %d, ticks %lld)", b->serial,
                       b->tid, (long long)b->ticks, a->serial, a->tid, (long long)a->ticks);
    struct regs x, y;
    TRY(replay_regs(c->replay, a->serial, &x));
    TRY(replay_regs(c->restored, a->serial, &y));
    for (int i = 0; i < UREG_COUNT; i++) {
        if (x.r[i] != y.r[i])
            return differs(c, "task %u: %s is %#llx, should be %#llx", a->serial, names[i],
                           (unsigned long long)y.r[i], (unsigned long long)x.r[i]);
    }
    struct xstate v, w;
    TRY(replay_xstate(c->replay, a->serial, &v));
    TRY(replay_xstate(c->restored, a->serial, &w));
    for (uint32_t i = 0; i < v.len; i++) {
        if (v.len != w.len || v.data[i] != w.data[i])
            return differs(c, "task %u: byte %u of the vector state", a->serial, i);
    }
    return NULL;
}

static struct err *check_tasks(const struct check *c)
{
    size_t a_count, b_count;
    const struct task_info *a = replay_tasks(c->replay, &a_count),
                           *b = replay_tasks(c->restored, &b_count);
    if (a_count != b_count)
        return differs(c, "%zu tasks, should be %zu", b_count, a_count);
    for (size_t i = 0; i < a_count; i++)
        TRY(check_task(c, &a[i], &b[i]));
    return NULL;
}

/* --- memory --- */

/* Which pages of a worker were ever touched: proc_pid_pagemap(5). Not to be had of another user's
 * processes. */
struct presence {
    int fd;
};

static struct presence presence_open(struct replay *r, uint32_t space)
{
    cleanup(freep) char *path = str_format("/proc/%d/pagemap", worker_pid(replay_worker(r, space)));
    return (struct presence){open(path, O_RDONLY | O_CLOEXEC)};
}

/* Is any of the pages there? True if it is not known. */
static bool presence_any(const struct presence *p, gaddr start, size_t count)
{
    uint64_t entries[PIECE_PAGES];
    const uint64_t present = 3ull << 62; // or in the swap
    if (p->fd < 0 ||
        pread(p->fd, entries, count * 8, (off_t)(start / PAGE_SIZE * 8)) != (ssize_t)(count * 8))
        return true;
    uint64_t any = 0;
    for (size_t i = 0; i < count; i++)
        any |= entries[i];
    return any & present;
}

static size_t first_difference(const uint8_t *a, const uint8_t *b, size_t len)
{
    size_t i = 0;
    while (i < len && a[i] == b[i])
        i++;
    return i;
}

static struct err *check_piece(const struct check *c, uint32_t space, gaddr start, size_t count)
{
    static uint8_t a[PIECE_PAGES * PAGE_SIZE], b[PIECE_PAGES * PAGE_SIZE];
    size_t a_done, b_done;
    struct err *e = replay_read(c->replay, space, start, a, count * PAGE_SIZE, &a_done);
    err_free(e);
    e = replay_read(c->restored, space, start, b, count * PAGE_SIZE, &b_done);
    err_free(e);
    if (a_done != b_done)
        return differs(c, "space %u: memory at %#llx can be read to %#zx bytes, should be %#zx",
                       space, (unsigned long long)start, b_done, a_done);
    if (memcmp(a, b, a_done) == 0)
        return NULL;
    size_t at = first_difference(a, b, a_done);
    return differs(c, "space %u: the byte at %#llx is %#x, should be %#x", space,
                   (unsigned long long)(start + at), b[at], a[at]);
}

static struct err *check_mapping(const struct check *c, uint32_t space, const struct mapping *m,
                                 const struct presence *a, const struct presence *b)
{
    bool blind = a->fd < 0 || b->fd < 0;
    gaddr end = blind && m->end - m->start > BLIND_BYTES ? m->start + BLIND_BYTES : m->end;
    for (gaddr at = m->start; at < end; at += PIECE_PAGES * PAGE_SIZE) {
        size_t count = (end - at) / PAGE_SIZE < PIECE_PAGES ? (end - at) / PAGE_SIZE : PIECE_PAGES;
        if (presence_any(a, at, count) || presence_any(b, at, count))
            TRY(check_piece(c, space, at, count));
    }
    return NULL;
}

static struct err *check_mappings(const struct check *c, uint32_t space, const struct presence *p,
                                  const struct presence *q)
{
    size_t a_count, b_count;
    const struct mapping *a = replay_mappings(c->replay, space, &a_count),
                         *b = replay_mappings(c->restored, space, &b_count);
    if (a_count != b_count)
        return differs(c, "space %u has %zu mappings, should have %zu", space, b_count, a_count);
    for (size_t i = 0; i < a_count; i++) {
        if (a[i].start != b[i].start || a[i].end != b[i].end || a[i].prot != b[i].prot ||
            a[i].kind != b[i].kind || a[i].offset != b[i].offset ||
            (a[i].object ? object_uid(a[i].object) : 0) !=
                (b[i].object ? object_uid(b[i].object) : 0))
            return differs(c, "space %u: the mapping at %#llx", space,
                           (unsigned long long)a[i].start);
        TRY(check_mapping(c, space, &a[i], p, q));
    }
    return NULL;
}

static struct err *check_space(const struct check *c, uint32_t space)
{
    struct presence a = presence_open(c->replay, space), b = presence_open(c->restored, space);
    struct err *e = check_mappings(c, space, &a, &b);
    if (a.fd >= 0)
        close(a.fd);
    if (b.fd >= 0)
        close(b.fd);
    return e;
}

static struct err *check_spaces(const struct check *c)
{
    size_t a_count, b_count;
    const uint32_t *a = replay_spaces(c->replay, &a_count),
                   *b = replay_spaces(c->restored, &b_count);
    if (a_count != b_count || memcmp(a, b, a_count * sizeof(a[0])) != 0)
        return differs(c, "%zu address spaces, should be %zu", b_count, a_count);
    cleanup(freep) uint32_t *spaces = xmemdup(a, a_count * sizeof(a[0]));
    for (size_t i = 0; i < a_count; i++)
        TRY(check_space(c, spaces[i]));
    return NULL;
}

/* --- the whole --- */

static struct err *check_boundary(struct check *c, struct trace *t)
{
    TRY(boundary_restore(c->history, t, c->segment, NULL, 0, &c->restored));
    struct err *e = NULL;
    if (moment_cmp(replay_now(c->replay), replay_now(c->restored)) != 0 ||
        replay_icount_total(c->replay) != replay_icount_total(c->restored))
        e = differs(c, "the database has another moment here");
    if (!e)
        e = check_tasks(c);
    if (!e)
        e = check_spaces(c);
    replay_close(c->restored);
    c->restored = NULL;
    return e;
}

static struct err *check_segment(struct check *c)
{
    const struct history_plan *plan = history_plan(c->history);
    const struct segment_rule rule = {plan->segment_icount, plan->segment_events, SEGMENT_PAGES};
    cleanup(segment_deinit) struct segment now = {0}, stored = {0};
    TRY(segment_build(c->replay, &rule, NULL, &now));
    static const enum segment_part parts[] = {PART_BOUNDARY, PART_BLOCKS, PART_WRITTEN, PART_PAGES,
                                              PART_EVENTS,   PART_STACKS, PART_CALLS};
    cleanup(chunk_file_closep) struct chunk_file *f = NULL;
    TRY(history_open_segment(c->history, c->segment, &f));
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        TRY(segment_read(f, parts[i], &stored));
    cleanup(freep) char *what = segment_difference(&stored, &now);
    return what ? differs(c, "%s", what) : NULL;
}

static struct err *check_all(struct check *c, struct trace *t,
                             struct err *(*each)(void *ctx, struct replay *r), void *ctx)
{
    size_t count;
    const struct history_segment *segments = history_segments(c->history, &count);
    for (; c->segment < count; c->segment++) {
        TRY(check_boundary(c, t));
        TRY(check_segment(c));
        if (moment_cmp(replay_now(c->replay), segments[c->segment].end) != 0)
            return differs(c, "the segment ends elsewhere");
        TRY(each(ctx, c->replay));
    }
    return history_complete(c->history) && !replay_at_end(c->replay)
               ? differs(c, "the recording goes on")
               : NULL;
}

struct err *index_check(struct history *h, struct trace *t,
                        struct err *(*each)(void *ctx, struct replay *r), void *ctx)
{
    cleanup(replay_closep) struct replay *r = NULL;
    TRY(replay_open(t, &r));
    struct check c = {.history = h, .replay = r};
    TRY(history_check_index(h));
    return check_all(&c, t, each, ctx);
}
