#include "db/small_history.h"

#include "base/random.h"

enum { OBJECT_SLOT = SMALL_SPACES };

struct maker {
    struct small_history *h;
    uint64_t random;
    struct small_state now, *before; /* the segment in the making: at its start */
    struct segment segment;
    size_t space_count;
    bool touched[SMALL_SPACES + 1][SMALL_PAGES], remapped[SMALL_SPACES + 1][SMALL_PAGES],
        existed[SMALL_SPACES + 1];
};

static size_t below(struct maker *m, size_t n)
{
    return random_below(&m->random, n);
}

uint64_t small_page_addr(size_t page)
{
    return (16 + page) * PAGE_SIZE;
}

void small_fresh_page(size_t page, uint8_t *out)
{
    memset(out, 0, PAGE_SIZE);
    for (size_t i = 0; page % 3 == 0 && i < PAGE_SIZE; i += 8)
        out[i] = (uint8_t)(page + i / 8);
}

/* --- what happens in a segment --- */

static void write_words(struct maker *m, size_t slot, size_t page)
{
    for (size_t n = 1 + below(m, 8); n; n--) {
        uint64_t v = next_random(&m->random);
        memcpy(m->now.memory[slot][page] + 8 * below(m, PAGE_SIZE / 8), &v, 8);
    }
    m->touched[slot][page] = true;
}

static void write_page(struct maker *m, size_t slot, size_t page)
{
    uint64_t kind = below(m, 4), start = next_random(&m->random) % 1000;
    for (size_t i = 0; i < PAGE_SIZE; i += 8) {
        uint64_t v = kind == 0   ? 0
                     : kind == 1 ? start + i
                     : kind == 2 ? start
                                 : next_random(&m->random);
        memcpy(m->now.memory[slot][page] + i, &v, 8);
    }
    m->touched[slot][page] = true;
}

static void remap(struct maker *m, size_t slot, size_t page)
{
    size_t end = page + 1 + below(m, SMALL_PAGES - page);
    vec_push(&m->segment.remaps,
             (struct db_remap){(uint32_t)slot + 1, small_page_addr(page), small_page_addr(end)});
    for (size_t i = page; i < end; i++) {
        small_fresh_page(i, m->now.memory[slot][i]);
        m->touched[slot][i] = false;
        m->remapped[slot][i] = true;
    }
}

static void exec_space(struct maker *m)
{
    size_t slot = m->space_count++;
    for (size_t i = 0; i < SMALL_PAGES; i++)
        small_fresh_page(i, m->now.memory[slot][i]);
    m->now.alive[slot] = true;
    vec_push(&m->segment.spaces, (struct db_space){(uint32_t)slot + 1, 0, m->segment.start});
}

/* As the builder does it: what the parent changed since the boundary is stored for the copy, and
 * its remaps are the copy's. */
static void fork_space(struct maker *m, size_t parent)
{
    size_t slot = m->space_count++;
    memcpy(m->now.memory[slot], m->now.memory[parent], sizeof(m->now.memory[slot]));
    m->now.alive[slot] = true;
    memcpy(m->touched[slot], m->touched[parent], sizeof(m->touched[slot]));
    vec_push(&m->segment.spaces,
             (struct db_space){(uint32_t)slot + 1, (uint32_t)parent + 1, m->segment.start});
    vec_push(&m->segment.forks, (struct db_fork){(uint32_t)slot + 1, (uint32_t)parent + 1});
    size_t count = m->segment.remaps.count;
    for (size_t i = 0; i < count; i++) {
        struct db_remap r = m->segment.remaps.items[i];
        if (r.space == parent + 1) {
            r.space = (uint32_t)slot + 1;
            vec_push(&m->segment.remaps, r);
        }
    }
}

static void act(struct maker *m)
{
    size_t slot = below(m, SMALL_SPACES + 1), page = below(m, SMALL_PAGES), what = below(m, 20);
    if (!m->now.alive[slot])
        return;
    if (what < 12)
        write_words(m, slot, page);
    else if (what < 17)
        write_page(m, slot, page);
    else if (slot == OBJECT_SLOT)
        return;
    else if (what == 17)
        remap(m, slot, page);
    else if (m->space_count < SMALL_SPACES)
        what == 18 ? exec_space(m) : fork_space(m, slot);
}

/* Calls of a few tasks: some made, some ended. The order of things is that of compose_calls(). */
static void call_things(struct maker *m, size_t idx)
{
    uint32_t task = 1 + (uint32_t)below(m, 3);
    gaddr stack = 0x7000 + 0x200 * below(m, 2), floor = stack + 16 * below(m, 32);
    if (below(m, 3) == 0)
        vec_push(&m->segment.floors, (struct db_floor){task, stack, stack + 0x200, floor});
    for (size_t n = below(m, 4); n; n--)
        vec_push(&m->segment.stacks, (struct db_call){1 + (uint32_t)below(m, 3),
                                                      {idx, n},
                                                      0x400000 + 16 * n,
                                                      0x400008 + 16 * n,
                                                      stack + 16 * below(m, 32)});
    if (below(m, 20) == 0)
        vec_push(&m->segment.execs, task);
    if (below(m, 20) == 0)
        vec_push(&m->segment.ends, task);
}

static void make_index(struct maker *m)
{
    for (size_t n = 1 + below(m, 5); n; n--)
        vec_push(&m->segment.blocks,
                 (struct db_block){1, 0x400000 + 64 * n, 3, 12, 1, 1, 1 + below(m, 1000)});
    for (size_t slot = 0; slot <= SMALL_SPACES; slot++) {
        for (size_t page = 0; page < SMALL_PAGES; page++) {
            bool object = slot == OBJECT_SLOT;
            struct db_written w = {object ? 0 : (uint32_t)slot + 1,
                                   object ? SMALL_OBJECT : 0,
                                   small_page_addr(page),
                                   {0}};
            for (size_t i = 0; i < 8; i++)
                w.granules[i] = below(m, 2) ? UINT64_MAX : next_random(&m->random);
            if (m->touched[slot][page])
                vec_push(&m->segment.written, w);
        }
    }
}

/* --- its file --- */

static void list_pages(struct maker *m)
{
    for (size_t slot = 0; slot <= SMALL_SPACES; slot++) {
        bool object = slot == OBJECT_SLOT;
        for (size_t page = 0; page < SMALL_PAGES; page++) {
            bool known = m->existed[slot] && !m->remapped[slot][page] && below(m, 8);
            if (m->touched[slot][page])
                vec_push(&m->segment.pages,
                         (struct db_page){object ? 0 : (uint32_t)slot + 1,
                                          object ? SMALL_OBJECT : 0, small_page_addr(page),
                                          m->now.memory[slot][page],
                                          known ? m->before->memory[slot][page] : NULL});
        }
    }
}

static struct err *write_file(struct maker *m, const char *dir, size_t idx)
{
    cleanup(freep) char *path = history_segment_path(dir, idx);
    list_pages(m);
    segment_merge_remaps(&m->segment);
    return segment_write(path, history_build_number(&m->h->plan), idx, 1 + (int)(idx % 5),
                         &m->segment);
}

/* Calls by the definition, for compose_calls() to be held against. */
static void follow_calls(struct maker *m)
{
    const struct segment *s = &m->segment;
    VEC(struct db_call) *calls = (void *)&m->now.calls;
    vec_each (f, &s->forks) {
        for (size_t i = 0, n = calls->count; i < n; i++) {
            struct db_call c = calls->items[i];
            c.task = f->child;
            if (calls->items[i].task == f->parent)
                vec_push(calls, c);
        }
    }
    for (size_t i = calls->count; i-- > 0;) {
        const struct db_call *c = &calls->items[i];
        bool over = false;
        vec_each (t, &s->execs)
            over |= c->task == *t;
        vec_each (f, &s->floors)
            over |= f->task == c->task && c->sp >= f->start && c->sp < f->end && c->sp <= f->floor;
        if (over)
            memmove(&calls->items[i], &calls->items[i + 1], (--calls->count - i) * sizeof(*c));
    }
    vec_each (c, &s->stacks)
        vec_push(calls, *c);
    for (size_t i = calls->count; i-- > 0;) {
        bool over = false;
        vec_each (t, &s->ends)
            over |= calls->items[i].task == *t;
        if (over)
            memmove(&calls->items[i], &calls->items[i + 1],
                    (--calls->count - i) * sizeof(calls->items[0]));
    }
}

static void copy_state(struct small_state *to, const struct small_state *from)
{
    *to = *from;
    memset(&to->calls, 0, sizeof(to->calls));
    vec_each (c, &from->calls)
        vec_push(&to->calls, *c);
}

static struct err *make_segment(struct maker *m, const char *dir, size_t idx)
{
    m->before = &m->h->at[idx];
    memset(m->touched, 0, sizeof(m->touched));
    memset(m->remapped, 0, sizeof(m->remapped));
    memcpy(m->existed, m->now.alive, sizeof(m->existed));
    m->segment.start = (struct moment){idx, idx % 3};
    m->segment.end = (struct moment){idx + 1, (idx + 1) % 3};
    m->segment.icount_start = 100 * idx;
    m->segment.icount = 100;
    buf_printf(&m->segment.state, "state %zu", idx);
    if (idx == 0)
        vec_push(&m->segment.spaces, (struct db_space){1, 0, m->segment.start});
    for (size_t n = below(m, 30); n; n--)
        act(m);
    call_things(m, idx);
    make_index(m);
    struct db_event e = {.number = idx + 1,
                         .kind = 3,
                         .syscall_no = -1,
                         .task = 1,
                         .ticks = 77,
                         .time = 1.5 + (double)idx,
                         .fd = 1,
                         .write_count = 1,
                         .output_len = 3};
    vec_push(&m->segment.events, e);
    vec_push(&m->segment.kernel_writes, (struct db_kernel_write){1, 0, 0x1000 * idx, 8});
    buf_str(&m->segment.output, "out");
    vec_push(&m->segment.buffered_calls,
             (struct db_buffered_call){{idx, 1}, 1, 257, {1, 2, 3, 4, 5, idx}, 0x7000, 16});
    for (uint32_t i = 0; i < 2; i++) {
        size_t off = m->segment.call_text.len;
        buf_printf(&m->segment.call_text, "path %zu %u", idx, i);
        vec_push(
            &m->segment.call_texts,
            (struct db_call_text){
                {idx, 1}, (uint8_t)i, (uint32_t)(m->segment.call_text.len - off), (uint32_t)off});
    }
    follow_calls(m);
    struct err *error = write_file(m, dir, idx);
    copy_state(&m->h->at[idx + 1], &m->now);
    segment_deinit(&m->segment);
    return error;
}

struct err *small_history_create(const char *dir, uint64_t seed, size_t segments,
                                 struct small_history **out)
{
    struct small_history *h = xnew(struct small_history);
    h->plan = (struct history_plan){
        .trace = {1, 2, 3}, .program = seed, .segment_icount = 100, .segment_events = 1};
    h->count = segments;
    h->at = xnew_array(struct small_state, segments + 1);
    struct maker *m = xnew(struct maker);
    *m = (struct maker){.h = h, .random = seed * 0x9e3779b97f4a7c15 + 1, .space_count = 1};
    m->now.alive[0] = m->now.alive[OBJECT_SLOT] = true;
    for (size_t i = 0; i < SMALL_PAGES; i++)
        small_fresh_page(i, m->now.memory[0][i]);
    copy_state(&h->at[0], &m->now);
    struct err *e = history_start(dir, &h->plan);
    for (size_t i = 0; i < segments && !e; i++)
        e = make_segment(m, dir, i);
    vec_deinit(&m->now.calls);
    free(m);
    if (e)
        small_history_destroy(h);
    else
        *out = h;
    return e;
}

void small_history_destroy(struct small_history *s)
{
    for (size_t i = 0; i <= s->count; i++)
        vec_deinit(&s->at[i].calls);
    free(s->at);
    free(s);
}
