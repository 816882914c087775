#include "worker/calls.h"

#include "worker/engine_int.h"
#include "worker/syscalls.h"

enum { SETTLED = 1, OVER };
static struct calls *free_calls;

static struct call_entry *end_of(const struct calls *c)
{
    return (struct call_entry *)(uintptr_t)(c->top - CALLS_TAG);
}

static void set_end(struct calls *c, struct call_entry *end)
{
    c->top = (uint64_t)(uintptr_t)end + CALLS_TAG;
}

void calls_clear(struct calls *c)
{
    set_end(c, c->entries + 1);
    c->floor_count = 0;
}

void calls_free(struct calls *c)
{
    c->next_free = free_calls;
    free_calls = c;
}

struct calls *calls_create(void)
{
    if (free_calls) {
        struct calls *c = free_calls;
        free_calls = c->next_free;
        calls_clear(c);
        return c;
    }
    size_t len = MAX_CALLS * sizeof(struct call_entry);
    struct calls *c = engine_host_alloc(sizeof(*c));
    // engine_host_alloc() gives whole pages; the one behind the entries is taken away.
    c->entries = engine_host_alloc(len + PAGE_SIZE);
    sys_mprotect((uint64_t)(uintptr_t)c->entries + len, PAGE_SIZE, 0);
    calls_clear(c);
    return c;
}

size_t calls_count(const struct calls *c)
{
    return (size_t)(end_of(c) - c->entries) - 1;
}

void calls_settle(struct calls *c, uint64_t budget, uint64_t stamp, uint64_t icount)
{
    for (struct call_entry *e = end_of(c) - 1; e > c->entries && !e->settled; e--) {
        const struct block_info *b = engine_block(e->block);
        e->time = icount + budget - (uint64_t)((int64_t)e->time >> ICOUNT_SHIFT) - 1;
        e->stamp = stamp;
        e->pc = b->pc;
        e->return_addr = b->pc + b->byte_len;
        e->settled = SETTLED;
    }
}

const struct call_entry *calls_last(const struct calls *c, uint64_t sp)
{
    const struct call_entry *e = end_of(c) - 1;
    return e > c->entries && e->settled == SETTLED && e->sp == sp ? e : NULL;
}

const struct call_entry *calls_over(const struct calls *c, uint64_t sp)
{
    const struct call_entry *e = end_of(c);
    return e < c->entries + MAX_CALLS && e->settled && e->sp == sp
               ? e
               : NULL; // still there, as nothing was called since
}

static bool is_in(const struct addr_range *r, uint64_t sp)
{
    return sp >= r->start && sp < r->end;
}

static void raise_floor(struct calls *c, const struct addr_range *region, uint64_t sp)
{
    struct call_floor *f = c->floors;
    // The region may have grown since.
    while (f < c->floors + c->floor_count && !is_in(region, f->start) &&
           !(region->start >= f->start && region->start < f->end))
        f++;
    if (f == c->floors + MAX_FLOORS)
        return;
    if (f == c->floors + c->floor_count) {
        c->floor_count++;
        *f = (struct call_floor){region->start, region->end, sp};
    }
    f->start = region->start < f->start ? region->start : f->start;
    f->end = region->end > f->end ? region->end : f->end;
    f->floor = sp > f->floor ? sp : f->floor;
}

static void drop_those_over(struct calls *c, struct call_entry *from)
{
    struct call_entry *to = from, *end = end_of(c);
    for (; from < end; from++) {
        if (from->settled != OVER)
            *to++ = *from;
    }
    set_end(c, to);
}

/* Puts the entries of a region behind all others. */
static void move_to_end(struct calls *c, const struct addr_range *region)
{
    static struct call_entry present[MAX_CALLS];
    size_t count = 0;
    struct call_entry *to = c->entries + 1, *end = end_of(c);
    for (struct call_entry *from = to; from < end; from++) {
        if (is_in(region, from->sp))
            present[count++] = *from;
        else
            *to++ = *from;
    }
    __builtin_memcpy(to, present, count * sizeof(present[0]));
}

void calls_returned(struct calls *c, uint64_t sp)
{
    struct addr_range region = engine_host_region(sp);
    struct call_entry *e = end_of(c);
    bool known = false, mixed = false;
    // Those of this stack that have ended are the last of it.
    while (!known && e > c->entries + 1) {
        e--;
        if (!is_in(&region, e->sp))
            mixed = true;
        else if (e->sp > sp)
            known = true;
        else
            e->settled = OVER;
    }
    raise_floor(c, &region, sp);
    drop_those_over(c, e < c->entries + 1 ? c->entries + 1 : e);
    // The present stack's calls are to be the last, where translated code looks.
    if (mixed && known && !is_in(&region, end_of(c)[-1].sp))
        move_to_end(c, &region);
}

void calls_push(struct calls *c, const struct call_entry *e)
{
    if (calls_count(c) + 2 > MAX_CALLS)
        c->top -= calls_overflow(c, (uint64_t)(uintptr_t)(c->entries + MAX_CALLS), c->top);
    *end_of(c) = *e;
    c->top += CALL_LEN;
}

void calls_normalise(struct calls *c)
{
    struct call_entry *end = end_of(c);
    struct addr_range region = {0};
    bool over = false;
    for (struct call_entry *e = c->entries + 1; e < end; e++) {
        if (!is_in(&region, e->sp))
            region = engine_host_region(e->sp);
        raise_floor(c, &region, e->sp);
        // Earlier ones of the same stack at or below this one are over; they are not far, as a
        // rule.
        for (struct call_entry *before = e; before-- > c->entries + 1;) {
            if (before->settled == OVER || !is_in(&region, before->sp))
                continue;
            if (before->sp > e->sp)
                break;
            before->settled = OVER;
            over = true;
        }
    }
    if (over)
        drop_those_over(c, c->entries + 1);
}

uint64_t calls_overflow(struct calls *c, uint64_t address, uint64_t top)
{
    uint64_t end = (uint64_t)(uintptr_t)(c->entries + MAX_CALLS);
    if (address < end || address >= end + PAGE_SIZE || top - CALLS_TAG != end)
        return 0;
    // Endless recursion: the older half goes.
    enum { HALF = MAX_CALLS / 2 };
    __builtin_memmove(c->entries + 1, c->entries + HALF, HALF * sizeof(c->entries[0]));
    return (HALF - 1) * sizeof(c->entries[0]);
}
