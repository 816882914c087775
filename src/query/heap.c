/* The life of heap memory: which allocation an address belongs to at a moment, who made it, who
 * ends it; and all that live at a moment.
 *
 * An allocation begins where the function that made it has returned, and ends where one that frees
 * it is entered, of whichever task of its space. What a process had when it forked is its child's,
 * too, and ends there by itself: an allocation's history is that of the space, before the fork that
 * made it of its parent's.
 *
 *     parent   ---malloc--------fork-----------free---     the parent's view
 *                                `-----free-----------     the child's: malloc ... fork, free */
#include "query/heap_int.h"

enum { NEAR = 64 /* bytes behind an allocation that may have been meant to be in it */ };

/* A space's past: the space itself, then those that it was copied from, until these moments. */
struct ancestor {
    uint32_t space;
    struct moment until;
};
typedef VEC(struct ancestor) ancestor_list;
typedef VEC(struct moment) moment_list;

static void find_ancestors(struct query_engine *q, uint32_t space, ancestor_list *out)
{
    size_t count;
    const struct db_space *s = history_spaces(q->history, &count);
    struct moment until = MOMENT_END;
    for (bool more = true; more && out->count < count;) {
        vec_push(out, (struct ancestor){space, until});
        more = false;
        for (size_t i = 0; i < count && !more; i++) {
            if (s[i].space != space || !s[i].parent)
                continue;
            more = true;
            space = s[i].parent;
            until = s[i].at;
        }
    }
}

static bool belongs(const ancestor_list *l, const struct heap_call *c)
{
    vec_each (a, l) {
        if (a->space == c->space)
            return moment_cmp(c->entry, a->until) < 0;
    }
    return false;
}

/* Is it a call by which an allocation was there at m? */
static bool is_made_by(const ancestor_list *l, const struct heap_call *c, struct moment m)
{
    return c->start && moment_cmp(c->back, m) <= 0 && belongs(l, c);
}

/* --- one address --- */

struct question {
    struct query_engine *q;
    struct focus focus;
    uint32_t space;
    gaddr address;
    size_t limit, found;        /* allocations */
    bool live;                  /* one of them is alive at the focus */
    struct heap_call neighbour; /* the nearest that is alive, and ends a few bytes before the
                                   address; start 0: none is known */
    ancestor_list ancestors;
};

/* The task on whose stack the address is; 0: none. */
static uint32_t task_of_stack(struct replay *r, uint32_t space, const struct mapping *m)
{
    size_t count;
    const struct task_info *tasks = replay_tasks(r, &count);
    for (size_t i = 0; i < count; i++) {
        struct regs regs;
        struct err *e = tasks[i].space == space ? replay_regs(r, tasks[i].serial, &regs) : NULL;
        bool here = !e && tasks[i].space == space && regs.r[UREG_RSP] >= m->start &&
                    regs.r[UREG_RSP] < m->end;
        err_free(e);
        if (here)
            return tasks[i].serial;
    }
    return 0;
}

/* What the address is, whoever allocated it. *is_stack_out: of a program's first thread, where
 * nothing is ever allocated. */
static struct err *give_place(struct question *x, struct replay *r, bool *is_stack_out)
{
    const struct mapping *m = replay_mapping_at(r, x->space, x->address);
    json_t *row = json_pack("{ss, so}", "kind", "place", "address", json_hex(x->address));
    *is_stack_out = false;
    if (m) {
        json_t *mapping = json_mapping(x->q, m);
        uint32_t task = task_of_stack(r, x->space, m);
        *is_stack_out = str_eq(json_string_value(json_object_get(mapping, "name")), "[stack]");
        json_object_set_new(row, "mapping", mapping);
        if (task)
            json_object_set_new(row, "stackOf", json_task(x->q, task));
    }
    return give(x->q, row);
}

/* How far the search for the end of an allocation is. */
struct end_search {
    struct heap_call alloc, end;
    struct heap_walk walk;
    bool begun, ended;
};

/* The first call of a log that was entered at m or later. */
static size_t first_call(const struct heap_log *log, struct moment m)
{
    size_t low = 0, high = log->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (moment_cmp(log->items[middle].entry, m) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The first call that ends the allocation, if it was entered before `until`. Goes on in the segment
 * where it was. */
static struct err *find_end(struct question *x, struct end_search *s, struct moment until)
{
    const struct heap_log *log;
    if (!s->begun)
        heap_walk_init(x->q, true, s->alloc.back, &s->walk);
    s->begun = true;
    size_t segments;
    const struct history_segment *segment = history_segments(x->q->history, &segments);
    while (!s->ended && s->walk.at < segments && moment_cmp(segment[s->walk.at].start, until) < 0) {
        size_t at = s->walk.at;
        TRY(heap_walk_next(x->q, &s->walk, &log));
        for (size_t i = first_call(log, s->alloc.back);
             i < log->count && !s->ended && moment_cmp(log->items[i].entry, until) < 0; i++) {
            const struct heap_call *c = &log->items[i];
            s->ended = c->old == s->alloc.start && heap_call_frees(c) && belongs(&x->ancestors, c);
            s->end = *c;
        }
        if (!s->ended && moment_cmp(until, segment[at].end) < 0) {
            s->walk.at = at; // there may be more in it
            return NULL;
        }
    }
    return NULL;
}

/* Did one of the log's calls return, after an allocation's end and not behind `until`, what that
 * had? */
static bool has_successor(const struct question *x, const struct end_search *first,
                          const struct heap_log *log, struct moment until)
{
    for (size_t i = 0; i < log->count; i++) {
        const struct heap_call *c = &log->items[i];
        if (c->start == first->alloc.start && moment_cmp(c->back, first->end.entry) > 0 &&
            moment_cmp(c->back, until) <= 0 && belongs(&x->ancestors, c))
            return true;
    }
    return false;
}

/* The moments of calls that had not returned at the segment's start, the innermost ones of each
 * task: a call of an allocator is among these. */
static struct err *list_begun(struct query_engine *q, size_t segment, moment_list *out)
{
    enum { DEEPEST = 8 };
    const struct segment *s;
    TRY(history_stacks(q->history, segment, &s));
    for (size_t i = 0; i < s->stacks.count; i++) {
        // Grouped by task, outermost first.
        bool inner = i + DEEPEST >= s->stacks.count ||
                     s->stacks.items[i + DEEPEST].task != s->stacks.items[i].task;
        if (inner)
            vec_push(out, s->stacks.items[i].at);
    }
    return NULL;
}

/* Was the memory of an allocation that has ended allocated again by `until`? By a call that may
 * have been entered before the end, even before the allocation was made, and waited since. */
static struct err *find_successor(struct question *x, const struct end_search *first,
                                  struct moment until, bool *out)
{
    struct heap_walk w;
    const struct heap_log *log;
    moment_list begun = {0};
    size_t segment = history_segment_at(x->q->history, first->alloc.back);
    *out = false;
    heap_walk_init(x->q, false, until, &w);
    while (!*out && w.at + 1 > segment) { // before 0 comes SIZE_MAX
        TRY(heap_walk_next(x->q, &w, &log));
        *out = has_successor(x, first, log, until);
    }
    struct err *e = *out ? NULL : list_begun(x->q, segment, &begun);
    for (size_t i = 0; !e && !*out && i < begun.count; i++) {
        heap_walk_init(x->q, false, begun.items[i], &w);
        if (!(e = heap_walk_next(x->q, &w, &log)))
            *out = has_successor(x, first, log, until);
    }
    vec_deinit(&begun);
    return e;
}

/* The next call before the focus that frees an allocation which has ended, if nothing was allocated
 * there in between. *found_out false: none. */
static struct err *find_second_end(struct question *x, const struct end_search *first,
                                   struct heap_call *out, bool *found_out)
{
    struct heap_walk w;
    const struct heap_log *log;
    *found_out = false;
    heap_walk_init(x->q, true, first->end.entry, &w);
    bool done = first->end.start == first->alloc.start; // it was resized where it was
    while (!done) {
        TRY(heap_walk_next(x->q, &w, &log));
        done = !log;
        for (size_t i = log ? first_call(log, first->end.entry) : 0; !done && i < log->count; i++) {
            const struct heap_call *c = &log->items[i];
            done = moment_cmp(c->entry, x->focus.moment) >= 0;
            if (done || moment_cmp(c->entry, first->end.entry) <= 0 || !belongs(&x->ancestors, c))
                continue;
            *found_out = c->old == first->alloc.start && c->function->kind != HEAP_ALLOCATES;
            *out = *c;
            done = *found_out || c->start == first->alloc.start;
        }
    }
    bool successor = false;
    if (*found_out)
        TRY(find_successor(x, first, out->entry, &successor));
    *found_out &= !successor;
    return NULL;
}

static bool covers(const struct heap_call *c, gaddr address)
{
    uint64_t offset = address - c->start;
    return offset == 0 || offset < c->size;
}

/* Bytes from the end of an allocation that does not cover the address. */
static uint64_t behind(const struct heap_call *c, gaddr address)
{
    return address - c->start - c->size;
}

/* Gives a row that is about a call, with whose doing that was. */
static struct err *give_call(struct query_engine *q, const struct heap_call *c, json_t *row)
{
    struct err *e = add_own_frame(q, c->entry, c->task, row);
    if (!e)
        return give(q, row);
    json_decref(row);
    return e;
}

static struct err *give_allocation(struct question *x, const struct heap_call *c, bool ended)
{
    bool inside = covers(c, x->address);
    json_t *row =
        json_pack("{ss, sI, ss, so, sI, ss}", "kind", "allocation", "id", (json_int_t)x->found,
                  "state", ended ? "freed" : "alive", "start", json_hex(c->start), "size",
                  (json_int_t)c->size, "call", c->function->name);
    json_object_set_new(
        row, inside ? "offset" : "behind",
        json_integer((json_int_t)(inside ? x->address - c->start : behind(c, x->address))));
    json_object_set_new(row, "end", json_moment(c->back));
    return give_call(x->q, c, row);
}

static struct err *give_end(struct question *x, const struct heap_call *c, bool again)
{
    json_t *row = json_pack("{ss, sI, ss}", "kind", "free", "of", (json_int_t)x->found, "call",
                            c->function->name);
    if (again)
        json_object_set_new(row, "again", json_true());
    if (c->start)
        json_object_set_new(
            row, "moved",
            json_pack("{so, sI}", "start", json_hex(c->start), "size", (json_int_t)c->size));
    return give_call(x->q, c, row);
}

/* Gives an allocation, and its end. */
static struct err *tell_allocation(struct question *x, const struct heap_call *c)
{
    struct end_search s = {.alloc = *c};
    TRY(find_end(x, &s, x->focus.moment));
    x->found++;
    x->live |= !s.ended;
    TRY(give_allocation(x, c, s.ended));
    bool ended = s.ended, again = false;
    struct heap_call second;
    TRY(find_end(x, &s, MOMENT_END));
    if (s.ended)
        TRY(give_end(x, &s.end, false));
    if (ended)
        TRY(find_second_end(x, &s, &second, &again));
    return again ? give_end(x, &second, true) : NULL;
}

/* Notes the allocation if it is nearer to the address than what is known, and alive. */
static struct err *consider_neighbour(struct question *x, const struct heap_call *c)
{
    struct end_search s = {.alloc = *c};
    if (x->live ||
        (x->neighbour.start && behind(c, x->address) >= behind(&x->neighbour, x->address)))
        return NULL;
    TRY(find_end(x, &s, x->focus.moment));
    if (!s.ended)
        x->neighbour = *c;
    return NULL;
}

/* Those of one segment: `near`, the last one first. */
static struct err *tell_some(struct question *x, const struct heap_call *near, size_t count)
{
    for (size_t i = 0; i < count && x->found < x->limit; i++)
        TRY(covers(&near[i], x->address) ? tell_allocation(x, &near[i])
                                         : consider_neighbour(x, &near[i]));
    return NULL;
}

/* Back from the focus, until there are enough. */
static struct err *tell_lives(struct question *x)
{
    struct heap_walk w;
    const struct heap_log *log;
    TRY(heap_find_functions(x->q));
    heap_walk_init(x->q, false, x->focus.moment, &w);
    for (;;) {
        VEC(struct heap_call) near = {0}; // the log itself may go when others are asked for
        TRY(heap_walk_next(x->q, &w, &log));
        for (size_t i = log ? log->count : 0; i-- > 0;) {
            const struct heap_call *c = &log->items[i];
            if (is_made_by(&x->ancestors, c, x->focus.moment) &&
                (covers(c, x->address) || behind(c, x->address) < NEAR))
                vec_push(&near, *c);
        }
        struct err *e = tell_some(x, near.items, near.count);
        vec_deinit(&near);
        TRY(e);
        x->q->sink->more = x->found == x->limit;
        if (!log || x->found == x->limit)
            return x->neighbour.start && !x->live ? tell_allocation(x, &x->neighbour) : NULL;
    }
}

struct err *query_allocation(struct query_engine *q, json_t *params)
{
    enum { MOST = 1000 };
    struct question x = {.q = q};
    struct replay *r;
    uint64_t limit = 10;
    bool is_stack;
    TRY(param_u64(params, "address", &x.address));
    TRY(param_limit(params, MOST, &limit));
    x.limit = limit;
    TRY(focus_state(q, params, &x.focus, &r, &x.space));
    x.focus.moment = replay_now(r);
    TRY(give_place(&x, r, &is_stack));
    if (is_stack)
        return NULL;
    find_ancestors(q, x.space, &x.ancestors);
    struct err *e = tell_lives(&x);
    vec_deinit(&x.ancestors);
    return e;
}

/* --- all of them --- */

/* The allocations that are alive, by their addresses: a hash table with open addressing, of which
 * half is empty at least. */
struct live_table {
    struct heap_call *slots; /* start 0: nothing */
    size_t mask, count;      /* number of slots less 1 */
};

static size_t slot_of(const struct live_table *t, gaddr start)
{
    return (size_t)(start * 0x9e3779b97f4a7c15ull >> 20) & t->mask;
}

/* Where it is, or would be. */
static struct heap_call *find_slot(const struct live_table *t, gaddr start)
{
    size_t at = slot_of(t, start);
    while (t->slots[at].start && t->slots[at].start != start)
        at = (at + 1) & t->mask;
    return &t->slots[at];
}

static void live_add(struct live_table *t, const struct heap_call *c)
{
    if (2 * t->count >= t->mask) {
        struct live_table larger = {.mask = t->mask ? 2 * t->mask + 1 : 1023};
        larger.slots = xnew_array(struct heap_call, larger.mask + 1);
        for (size_t i = 0; t->slots && i <= t->mask; i++) {
            if (t->slots[i].start)
                *find_slot(&larger, t->slots[i].start) = t->slots[i];
        }
        larger.count = t->count;
        free(t->slots);
        *t = larger;
    }
    struct heap_call *slot = find_slot(t, c->start);
    t->count += !slot->start;
    *slot = *c;
}

static void live_remove(struct live_table *t, gaddr start)
{
    if (!t->slots || !find_slot(t, start)->start)
        return;
    size_t hole = (size_t)(find_slot(t, start) - t->slots);
    // What comes behind it and would not be found across a hole moves into it.
    for (size_t at = (hole + 1) & t->mask; t->slots[at].start; at = (at + 1) & t->mask) {
        if (((at - slot_of(t, t->slots[at].start)) & t->mask) >= ((at - hole) & t->mask)) {
            t->slots[hole] = t->slots[at];
            hole = at;
        }
    }
    t->slots[hole].start = 0;
    t->count--;
}

/* A change of what is alive: an allocation's begin or an end. */
struct change {
    struct moment at;
    struct heap_call call;
    bool ends;
};
typedef VEC(struct change) change_list;

static int by_time(const void *a, const void *b)
{
    const struct change *x = a, *y = b;
    int order = moment_cmp(x->at, y->at);
    return order ? order : (int)y->ends - (int)x->ends; // what ends comes first
}

/* Adds the changes until m that the log's calls make. */
static void list_changes(const ancestor_list *ancestors, const struct heap_log *log,
                         struct moment m, change_list *out)
{
    for (size_t i = 0; i < log->count; i++) {
        const struct heap_call *c = &log->items[i];
        if (moment_cmp(c->entry, m) < 0 && heap_call_frees(c) && belongs(ancestors, c))
            vec_push(out, (struct change){c->entry, *c, true});
        if (is_made_by(ancestors, c, m))
            vec_push(out, (struct change){c->back, *c, false});
    }
}

/* Makes those before `until` in order of time; later ones, of calls that go on for longer, stay. */
static void make_changes(struct live_table *t, change_list *changes, struct moment until)
{
    size_t left = 0;
    if (changes->count)
        qsort(changes->items, changes->count, sizeof(changes->items[0]), by_time);
    vec_each (c, changes) {
        if (moment_cmp(c->at, until) >= 0)
            changes->items[left++] = *c;
        else if (c->ends)
            live_remove(t, c->call.old);
        else
            live_add(t, &c->call);
    }
    changes->count = left;
}

/* Those that one place in the program made. */
struct group {
    uint64_t count, bytes;
    const struct heap_call *newest;
};
typedef VEC(struct group) group_list;

static int by_caller(const void *a, const void *b)
{
    const struct heap_call *x = *(const struct heap_call *const *)a,
                           *y = *(const struct heap_call *const *)b;
    if (x->return_addr != y->return_addr)
        return x->return_addr < y->return_addr ? -1 : 1;
    return moment_cmp(x->entry, y->entry);
}

static int by_bytes(const void *a, const void *b)
{
    const struct group *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return moment_cmp(x->newest->entry, y->newest->entry);
}

static void make_groups(const struct live_table *t, group_list *out)
{
    VEC(const struct heap_call *) calls = {0};
    for (size_t i = 0; t->slots && i <= t->mask; i++) {
        if (t->slots[i].start)
            vec_push(&calls, &t->slots[i]);
    }
    if (calls.count)
        qsort(calls.items, calls.count, sizeof(calls.items[0]), by_caller);
    for (size_t i = 0; i < calls.count; i++) {
        if (!i || calls.items[i]->return_addr != calls.items[i - 1]->return_addr)
            vec_push(out, (struct group){0});
        struct group *g = &out->items[out->count - 1];
        g->count++;
        g->bytes += calls.items[i]->size;
        g->newest = calls.items[i];
    }
    if (out->count)
        qsort(out->items, out->count, sizeof(out->items[0]), by_bytes);
    vec_deinit(&calls);
}

static struct err *give_groups(struct query_engine *q, const struct live_table *t,
                               const group_list *groups, size_t limit)
{
    uint64_t bytes = 0;
    vec_each (g, groups)
        bytes += g->bytes;
    TRY(give(q, json_pack("{ss, sI, sI, sI}", "kind", "total", "count", (json_int_t)t->count,
                          "bytes", (json_int_t)bytes, "callers", (json_int_t)groups->count)));
    q->sink->more = groups->count > limit;
    for (size_t i = 0; i < groups->count && i < limit; i++) {
        const struct group *g = &groups->items[i];
        TRY(check_cancel(q));
        json_t *row =
            json_pack("{ss, sI, sI, ss, so, sI}", "kind", "caller", "count", (json_int_t)g->count,
                      "bytes", (json_int_t)g->bytes, "call", g->newest->function->name, "start",
                      json_hex(g->newest->start), "size", (json_int_t)g->newest->size);
        TRY(give_call(q, g->newest, row));
    }
    return NULL;
}

static struct err *find_live(struct query_engine *q, const ancestor_list *ancestors,
                             struct moment m, struct live_table *out)
{
    struct heap_walk w;
    const struct heap_log *log;
    change_list changes = {0};
    size_t segments, last = history_segment_at(q->history, m);
    const struct history_segment *segment = history_segments(q->history, &segments);
    struct err *e = NULL;
    heap_walk_init(q, true, (struct moment){0}, &w);
    for (size_t at = 0; !e && at <= last; at++) {
        if ((e = heap_walk_next(q, &w, &log)))
            break;
        list_changes(ancestors, log, m, &changes);
        make_changes(out, &changes, at == last ? MOMENT_END : segment[at].end);
    }
    vec_deinit(&changes);
    return e;
}

struct err *query_allocations(struct query_engine *q, json_t *params)
{
    enum { MOST = 1000 };
    struct focus f;
    struct replay *r;
    uint32_t space;
    uint64_t limit = 50;
    TRY(param_limit(params, MOST, &limit));
    TRY(focus_state(q, params, &f, &r, &space));
    struct moment m = replay_now(r);
    TRY(heap_find_functions(q));
    ancestor_list ancestors = {0};
    struct live_table live = {0};
    group_list groups = {0};
    find_ancestors(q, space, &ancestors);
    struct err *e = find_live(q, &ancestors, m, &live);
    if (!e) {
        make_groups(&live, &groups);
        e = give_groups(q, &live, &groups, limit);
    }
    vec_deinit(&ancestors);
    vec_deinit(&groups);
    free(live.slots);
    return e;
}

/* --- of a call on the stack --- */

/* Is it the entry of a function that frees? *out: what it was given. */
static struct err *freed_by(struct query_engine *q, struct moment entry, uint32_t task, gaddr *out)
{
    struct replay *r;
    uint32_t space;
    struct regs regs;
    TRY(state_at(q, entry, &r));
    TRY(space_of_task(r, task, &space));
    TRY(replay_regs(r, task, &regs));
    const struct heap_function *f = heap_function_at(q, space, entry, &regs);
    *out = f && f->old ? regs.r[call_argument_registers[f->old - 1]] : 0;
    return NULL;
}

struct err *heap_freed_at(struct query_engine *q, struct moment m, uint32_t task, gaddr *out)
{
    enum { DEEPEST = 16 /* frames that an allocator has of its own */ };
    frame_list frames = {0};
    *out = 0;
    TRY(heap_find_functions(q));
    struct err *e = stack_at(q, m, task, &frames);
    for (size_t i = 0; !e && !*out && i < frames.count && i < DEEPEST; i++) {
        struct moment entry;
        if (!frames.items[i].entry_sp || frames.items[i].by_signal)
            break;
        e = next_instruction(q, frames.items[i].call, task, true, &entry);
        if (!e)
            e = freed_by(q, entry, task, out);
    }
    vec_deinit(&frames);
    return e;
}
