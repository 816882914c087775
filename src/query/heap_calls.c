/* What the allocator was asked for: all calls of malloc, free and their like, with what they were
 * given and what they returned.
 *
 * The index tells in which segments these functions ran. Those are run again with hooks at the
 * functions' entries and at the addresses that they return to; the latter are learned on the way
 * (follow_hits()), and known to the passes that come after. A call ends where its return address is
 * reached with the stack pointer right above it.
 *
 *     segments   | 3 |   | 1 | 2 |   |   | 4 | 1 |     a walk, backward from the end
 *     waves                                  <--->     one segment, for it may be enough
 *                        <-----------><----->          then stretches of them, one for each processor,
 *                <--->                                 that get longer and longer
 *     runs               >------------->               each goes on until what was entered in it has returned
 *
 * What was found is kept, for what a question about one address needs is what the next one needs,
 * too.
 *
 * Calls within calls: operator new calls malloc, musl's aligned_alloc calls malloc for more than it
 * returns of. Both are hooked; the inner one is dropped if it is about the same memory. A C
 * library's allocator calls itself in other ways that no symbol tells of: these are no calls here. */
#include "query/heap_int.h"

#include "base/cpus.h"
#include "query/stretch_int.h"

enum {
    MOST_STRETCHES = 16,
    LONGEST_STRETCH = 16, /* segments */
    MOST_HITS = 1 << 20,  /* in a stretch of more than one segment */
    MOST_SITES = 1500,    /* a worker has 2048 hooks for a space */
    BATCH = 1 << 13,      /* rows */
};
#define MOST_KEPT (128ull << 20) /* bytes of logs */

/* POSIX, malloc(3), and the C++ ABI's names of the standard's operators new and delete. */
static const struct heap_function FUNCTIONS[] = {
    {"malloc", "malloc", HEAP_ALLOCATES, .size = 1},
    {"calloc", "calloc", HEAP_ALLOCATES, .size = 1, .count = 2},
    {"realloc", "realloc", HEAP_MOVES, .old = 1, .size = 2},
    {"reallocarray", "reallocarray", HEAP_MOVES, .old = 1, .size = 2, .count = 3},
    {"aligned_alloc", "aligned_alloc", HEAP_ALLOCATES, .size = 2},
    {"memalign", "memalign", HEAP_ALLOCATES, .size = 2},
    {"posix_memalign", "posix_memalign", HEAP_ALLOCATES, .size = 3, .indirect = 1},
    {"valloc", "valloc", HEAP_ALLOCATES, .size = 1},
    {"pvalloc", "pvalloc", HEAP_ALLOCATES, .size = 1},
    {"free", "free", HEAP_FREES, .old = 1},
    {"cfree", "cfree", HEAP_FREES, .old = 1},
    {"_Znwm", "operator new", HEAP_ALLOCATES, .size = 1},
    {"_Znam", "operator new[]", HEAP_ALLOCATES, .size = 1},
    {"_ZnwmRKSt9nothrow_t", "operator new", HEAP_ALLOCATES, .size = 1},
    {"_ZnamRKSt9nothrow_t", "operator new[]", HEAP_ALLOCATES, .size = 1},
    {"_ZnwmSt11align_val_t", "operator new", HEAP_ALLOCATES, .size = 1},
    {"_ZnamSt11align_val_t", "operator new[]", HEAP_ALLOCATES, .size = 1},
    {"_ZnwmSt11align_val_tRKSt9nothrow_t", "operator new", HEAP_ALLOCATES, .size = 1},
    {"_ZnamSt11align_val_tRKSt9nothrow_t", "operator new[]", HEAP_ALLOCATES, .size = 1},
    {"_ZdlPv", "operator delete", HEAP_FREES, .old = 1},
    {"_ZdaPv", "operator delete[]", HEAP_FREES, .old = 1},
    {"_ZdlPvm", "operator delete", HEAP_FREES, .old = 1},
    {"_ZdaPvm", "operator delete[]", HEAP_FREES, .old = 1},
    {"_ZdlPvSt11align_val_t", "operator delete", HEAP_FREES, .old = 1},
    {"_ZdaPvSt11align_val_t", "operator delete[]", HEAP_FREES, .old = 1},
    {"_ZdlPvmSt11align_val_t", "operator delete", HEAP_FREES, .old = 1},
    {"_ZdaPvmSt11align_val_t", "operator delete[]", HEAP_FREES, .old = 1},
    {"_ZdlPvRKSt9nothrow_t", "operator delete", HEAP_FREES, .old = 1},
    {"_ZdaPvRKSt9nothrow_t", "operator delete[]", HEAP_FREES, .old = 1},
};

/* Where a function begins, and what it is. */
struct heap_entry {
    struct hit_place place;
    const struct heap_function *function;
};

/* Where calls return to. */
struct heap_site {
    uint32_t space;
    gaddr pc;
};
typedef VEC(struct heap_site) site_list; /* by space and address */

struct heap_calls {
    VEC(struct heap_entry) entries; /* by space and address */
    struct buf places;              /* struct hit_place of the entries */
    site_list sites;                /* that passes have met */
    uint64_t *buckets;              /* executions of entries, by segment */
    struct heap_log *logs;          /* by segment */
    size_t segments;
    uint64_t bytes, clock;
};

void heap_calls_free(struct heap_calls *h)
{
    if (!h)
        return;
    for (size_t i = 0; i < h->segments; i++)
        free(h->logs[i].items);
    free(h->logs);
    free(h->buckets);
    vec_deinit(&h->entries);
    buf_deinit(&h->places);
    vec_deinit(&h->sites);
    free(h);
}

/* --- where the functions are --- */

static int compare_places(uint32_t space_a, gaddr pc_a, uint32_t space_b, gaddr pc_b)
{
    if (space_a != space_b)
        return space_a < space_b ? -1 : 1;
    return pc_a < pc_b ? -1 : pc_a > pc_b;
}

static int by_place(const void *x, const void *y)
{
    const struct heap_entry *a = x, *b = y;
    return compare_places(a->place.space, a->place.pc, b->place.space, b->place.pc);
}

/* Is it the symbol itself, not a function of some class or namespace that is named alike? */
static bool is_symbol(const struct sym_function *f, const char *symbol)
{
    return f->range_count && str_eq(f->linkage_name ? f->linkage_name : f->name, symbol);
}

static struct err *add_entries(struct query_engine *q, struct module *m,
                               const struct heap_function *f, struct heap_calls *h)
{
    enum { MOST_NAMESAKES = 16 };
    const struct sym_function *found[MOST_NAMESAKES];
    size_t count = 0;
    err_free(sym_symbols_named(m->sym, f->symbol, MOST_NAMESAKES, found,
                               &count)); // most modules have none
    for (size_t i = 0; i < count; i++) {
        size_t before = h->places.len / sizeof(struct hit_place);
        if (is_symbol(found[i], f->symbol))
            TRY(places_of(q, m, &found[i]->start, 1, &h->places));
        struct hit_place *places = (void *)h->places.data;
        for (size_t k = before; k < h->places.len / sizeof(*places); k++) {
            places[k].entry = true;
            vec_push(&h->entries, (struct heap_entry){places[k], f});
        }
    }
    return NULL;
}

static struct err *find_entries(struct query_engine *q, struct heap_calls *h)
{
    vec_each (m, &q->modules) {
        struct sym_module *sym;
        struct err *e = module_sym(q, *m, &sym);
        if (e) { // a module without symbols tells nothing
            err_free(e);
            continue;
        }
        TRY(check_cancel(q));
        for (size_t i = 0; i < ARRAY_COUNT(FUNCTIONS); i++)
            TRY(add_entries(q, *m, &FUNCTIONS[i], h));
    }
    if (!h->entries.count)
        return err_new(ERR_NOT_FOUND, "nothing is known of allocations: no function named malloc "
                                      "ran, or symbols do not tell where it is");
    qsort(h->entries.items, h->entries.count, sizeof(h->entries.items[0]), by_place);
    return NULL;
}

struct err *heap_find_functions(struct query_engine *q)
{
    if (q->heap_calls)
        return NULL;
    struct heap_calls *h = xnew(struct heap_calls);
    history_segments(q->history, &h->segments);
    h->buckets = xnew_array(uint64_t, h->segments);
    h->logs = xnew_array(struct heap_log, h->segments);
    struct err *e = find_entries(q, h);
    if (e) {
        heap_calls_free(h);
        return e;
    }
    count_hits(q, (const void *)h->places.data, h->entries.count, h->buckets);
    q->heap_calls = h;
    return NULL;
}

/* --- a pass over some segments --- */

struct pass {
    struct query_engine *q;
    const struct heap_calls *known;
    size_t first, last; /* segments */
    struct moment from, until;
    VEC(struct heap_call) calls; /* in order of their entries */
    VEC(size_t) open;            /* calls that have not returned yet */
    size_t awaited;              /* of these: whose result is of interest */
    bool all_entered;
    site_list sites;
    struct buf places; /* struct hit_place: what is looked for */
    struct err *failed;
};

static void pass_deinit(struct pass *p)
{
    vec_deinit(&p->calls);
    vec_deinit(&p->open);
    vec_deinit(&p->sites);
    buf_deinit(&p->places);
    err_free(p->failed);
}

static bool is_awaited(const struct heap_call *c)
{
    return c->function->kind != HEAP_FREES;
}

/* The first that is not before the place. */
static size_t find_site(const site_list *l, uint32_t space, gaddr pc)
{
    size_t low = 0, high = l->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare_places(l->items[middle].space, l->items[middle].pc, space, pc) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void add_site(site_list *l, uint32_t space, gaddr pc)
{
    size_t at = find_site(l, space, pc);
    if (at < l->count && l->items[at].space == space && l->items[at].pc == pc)
        return;
    vec_push(l, (struct heap_site){0});
    memmove(&l->items[at + 1], &l->items[at], (l->count - 1 - at) * sizeof(l->items[0]));
    l->items[at] = (struct heap_site){space, pc};
}

static const struct heap_entry *first_entry(const struct heap_calls *h, uint32_t space, gaddr pc)
{
    size_t low = 0, high = h->entries.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct hit_place *p = &h->entries.items[middle].place;
        if (compare_places(p->space, p->pc, space, pc) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return h->entries.items + low;
}

/* What is entered at a hit; NULL: nothing. */
static const struct heap_function *function_entered(const struct heap_calls *h,
                                                    const struct hit *hit)
{
    const struct heap_entry *end = h->entries.items + h->entries.count;
    for (const struct heap_entry *e = first_entry(h, hit->space, hit->regs.r[UREG_RIP]);
         e < end && e->place.space == hit->space && e->place.pc == hit->regs.r[UREG_RIP]; e++) {
        if (is_hit_of(&e->place, hit))
            return e->function;
    }
    return NULL;
}

const struct heap_function *heap_function_at(const struct query_engine *q, uint32_t space,
                                             struct moment m, const struct regs *regs)
{
    const struct hit hit = {.moment = m, .space = space, .regs = *regs};
    return function_entered(q->heap_calls, &hit);
}

static bool is_known(struct moment m)
{
    return m.event || m.icount;
}

static void drop_open(struct pass *p, size_t at)
{
    p->awaited -= is_awaited(&p->calls.items[p->open.items[at]]);
    memmove(&p->open.items[at], &p->open.items[at + 1],
            (p->open.count - 1 - at) * sizeof(p->open.items[0]));
    p->open.count--;
}

/* The calls that have returned to here: more than one if they had jumped to each other. */
static void close_returned(struct pass *p, const struct hit *h)
{
    for (size_t i = p->open.count; i-- > 0;) {
        struct heap_call *c = &p->calls.items[p->open.items[i]];
        if (c->task != h->task || c->return_addr != h->regs.r[UREG_RIP] ||
            c->sp + 8 != h->regs.r[UREG_RSP] || moment_cmp(h->moment, c->entry) <= 0 ||
            (is_known(c->made) && is_known(h->returned) && moment_cmp(c->made, h->returned) != 0))
            continue;
        c->back = h->moment;
        if (is_awaited(c))
            c->start = h->regs.r[UREG_RAX];
        drop_open(p, i);
    }
}

/* Those of the task at whose place on the stack another call is: they were left by longjmp or the
 * like. */
static void close_left(struct pass *p, const struct heap_call *new)
{
    for (size_t i = p->open.count; i-- > 0;) {
        const struct heap_call *c = &p->calls.items[p->open.items[i]];
        if (c->task == new->task && c->sp == new->sp &&is_known(c->made) && is_known(new->made) &&
            moment_cmp(c->made, new->made) != 0)
            drop_open(p, i);
    }
}

static uint64_t argument(const struct hit *h, uint8_t number)
{
    return number ? h->regs.r[call_argument_registers[number - 1]] : 0;
}

static void enter(struct pass *p, const struct hit *h, const struct heap_function *f)
{
    struct heap_call c = {.entry = h->moment,
                          .made = h->entered,
                          .sp = h->regs.r[UREG_RSP],
                          .function = f,
                          .task = h->task,
                          .space = h->space,
                          .old = argument(h, f->indirect ? f->indirect : f->old),
                          .size = argument(h, f->size)};
    if (f->count)
        c.size *= argument(h, f->count);
    if (h->unreadable & 1)
        return;
    c.return_addr = load_u64(h->memory);
    add_site(&p->sites, c.space, c.return_addr); // else the run would stop there each time
    if (f->kind == HEAP_FREES && !c.old)
        return;
    close_left(p, &c);
    for (size_t i = p->open.count; i-- > 0 && !c.outer;) {
        const struct heap_call *o = &p->calls.items[p->open.items[i]];
        if (o->task == c.task && o->sp >= c.sp)
            c.outer = (uint32_t)p->open.items[i] + 1;
    }
    vec_push(&p->open, p->calls.count);
    vec_push(&p->calls, c);
    p->awaited += is_awaited(&c);
}

static bool on_hit(void *ctx, const struct hit *h)
{
    struct pass *p = ctx;
    const struct heap_function *f;
    close_returned(p, h);
    p->all_entered |= moment_cmp(h->moment, p->until) >= 0;
    if (!p->all_entered && (f = function_entered(p->known, h)))
        enter(p, h, f);
    return !p->all_entered || p->awaited;
}

/* Gives up calls that have ended before the segment otherwise than by returning. first: lowered to
 * the segment in which one may return. */
static struct err *look_ahead(struct pass *p, size_t segment, size_t *first)
{
    size_t count;
    const struct history_segment *s = history_segments(p->q->history, &count);
    for (size_t i = p->open.count; i-- > 0;) {
        const struct heap_call *c = &p->calls.items[p->open.items[i]];
        size_t last;
        bool known, gone = !is_awaited(c);
        if (!gone) {
            TRY(last_live_segment(p->q, c->task, c->sp, c->entry, &last, &known));
            // It may have returned to the very end of a segment, to go on in a later one.
            gone = known && last + 1 < segment &&
                   task_ran(p->q, c->task, s[last + 1].start, s[segment].start);
            size_t from = known && last > segment ? last : segment;
            *first = !gone && from < *first ? from : *first;
        }
        if (gone)
            drop_open(p, i);
    }
    return NULL;
}

/* Forgets sites that are not needed at the moment: there are too many. */
static void thin_sites(struct pass *p)
{
    if (p->sites.count <= MOST_SITES)
        return;
    p->sites.count = 0;
    vec_each (i, &p->open)
        add_site(&p->sites, p->calls.items[*i].space, p->calls.items[*i].return_addr);
}

static void list_places(struct pass *p)
{
    p->places.len = 0;
    if (!p->all_entered)
        buf_add(&p->places, p->known->places.data, p->known->places.len);
    const struct heap_entry *end = p->known->entries.items + p->known->entries.count;
    vec_each (s, &p->sites) {
        // A place can be an entry and behind a call that does not return.
        const struct heap_entry *e = first_entry(p->known, s->space, s->pc);
        bool both =
            e < end && e->place.space == s->space && e->place.pc == s->pc && !p->all_entered;
        struct hit_place place = {.space = s->space, .pc = s->pc};
        if (!both)
            buf_add(&p->places, &place, sizeof(place));
    }
}

static struct err *wanted_places(void *ctx, size_t *segment, const struct hit_place **out,
                                 size_t *count_out, size_t *batch_out)
{
    struct pass *p = ctx;
    size_t segments, first = SIZE_MAX;
    bool at_start = *segment != SIZE_MAX;
    p->all_entered |=
        at_start &&
        moment_cmp(history_segments(p->q->history, &segments)[*segment].start, p->until) >= 0;
    if (at_start && p->all_entered)
        TRY(look_ahead(p, *segment, &first));
    if (p->all_entered) {
        p->sites.count = 0;
        vec_each (i, &p->open)
            add_site(&p->sites, p->calls.items[*i].space, p->calls.items[*i].return_addr);
    }
    thin_sites(p);
    list_places(p);
    if (at_start && p->all_entered && p->awaited)
        *segment = first;
    *batch_out = BATCH;
    *out = (const void *)p->places.data;
    *count_out = p->places.len / sizeof(struct hit_place);
    return NULL;
}

static void *run_pass(void *arg)
{
    static const struct hook_memory return_addr = {.base = UREG_RSP, .len = 8};
    struct pass *p = arg;
    const struct hit_source source = {p, wanted_places};
    const struct hit_wants wants = {.memory = &return_addr, .memory_count = 1, .calls = true};
    p->failed = follow_hits(p->q, &source, p->from, &wants, on_hit, p);
    return NULL;
}

/* --- what passes have found --- */

static int by_back(const void *x, const void *y)
{
    const struct heap_call *const *a = x, *const *b = y;
    if ((*a)->space != (*b)->space)
        return (*a)->space < (*b)->space ? -1 : 1;
    return moment_cmp((*a)->back, (*b)->back);
}

/* Reads where the results of some calls were put: calls of one space that returned in one segment.
 */
static struct err *read_results(struct query_engine *q, struct heap_call **calls, size_t count)
{
    cleanup(buf_deinit) struct buf memory = {0};
    cleanup(freep) struct step_capture *captures = xnew_array(struct step_capture, count);
    for (size_t i = 0; i < count; i++)
        captures[i] =
            (struct step_capture){calls[i]->back.event, calls[i]->back.icount, calls[i]->old, 8};
    TRY(stretch_memory(q, calls[0]->space, captures, count, &memory));
    for (size_t i = 0; i < count && 16 * (i + 1) <= memory.len; i++) {
        bool ok = load_u64(memory.data + 16 * i) == 8;
        calls[i]->start = ok ? load_u64(memory.data + 16 * i + 8) : 0;
    }
    return NULL;
}

/* Fills in `start` of calls that put their result into memory (posix_memalign). */
static struct err *find_results(struct query_engine *q, struct pass *p)
{
    enum { MOST_CAPTURES = 100000 };
    VEC(struct heap_call *) waiting = {0};
    vec_each (c, &p->calls) {
        if (!c->function->indirect)
            continue;
        if (c->back.event && !c->start) // it returned 0
            vec_push(&waiting, c);
        c->start = 0;
    }
    struct err *e = NULL;
    if (waiting.count)
        qsort(waiting.items, waiting.count, sizeof(waiting.items[0]), by_back);
    for (size_t i = 0, n; !e && i < waiting.count; i += n) {
        size_t segment = history_segment_at(q->history, waiting.items[i]->back);
        for (n = 1; i + n < waiting.count && n < MOST_CAPTURES &&
                    waiting.items[i + n]->space == waiting.items[i]->space &&
                    history_segment_at(q->history, waiting.items[i + n]->back) == segment;
             n++)
            ;
        e = read_results(q, waiting.items + i, n);
    }
    vec_each (c, &p->calls)
        c->old = c->function->indirect ? 0 : c->old;
    vec_deinit(&waiting);
    return e;
}

/* Is the call a part of what another one does about the same memory? */
static bool is_part(const struct pass *p, const struct heap_call *c)
{
    for (const struct heap_call *o = c; o->outer;) {
        o = &p->calls.items[o->outer - 1];
        bool same_start = c->start && o->start - c->start < (c->size ? c->size : 1),
             same_old = c->old && c->old == o->old;
        if (c->function->kind == HEAP_FREES ? same_old : same_start)
            return true;
    }
    return false;
}

static void keep_log(struct query_engine *q, size_t segment, const struct heap_call *calls,
                     size_t count)
{
    struct heap_calls *h = q->heap_calls;
    struct heap_log *l = &h->logs[segment];
    h->bytes += count * sizeof(*calls) - l->count * sizeof(*calls);
    free(l->items);
    *l = (struct heap_log){.items = count ? xmemdup(calls, count * sizeof(*calls)) : NULL,
                           .count = count,
                           .made = true,
                           .used = ++h->clock};
}

/* The pass' calls, each to the segment in which it was entered. */
static void keep_logs(struct query_engine *q, struct pass *p)
{
    size_t segments, at = 0;
    const struct history_segment *s = history_segments(q->history, &segments);
    for (size_t i = p->first; i <= p->last; i++) {
        size_t first = at;
        while (at < p->calls.count &&
               (i == p->last || moment_cmp(p->calls.items[at].entry, s[i].end) < 0))
            at++;
        keep_log(q, i, p->calls.items + first, at - first);
    }
}

static struct err *take_pass(struct query_engine *q, struct pass *p)
{
    TRY(find_results(q, p));
    size_t count = 0;
    // Parts are told by indices: none moves before all are known.
    cleanup(freep) bool *part = xnew_array(bool, p->calls.count + 1);
    for (size_t i = 0; i < p->calls.count; i++)
        part[i] = is_part(p, &p->calls.items[i]);
    for (size_t i = 0; i < p->calls.count; i++) {
        if (!part[i])
            p->calls.items[count++] = p->calls.items[i];
    }
    p->calls.count = count;
    keep_logs(q, p);
    vec_each (s, &p->sites) {
        if (q->heap_calls->sites.count < MOST_SITES)
            add_site(&q->heap_calls->sites, s->space, s->pc);
    }
    return NULL;
}

/* --- waves --- */

/* Logs that were not used for longest go; those from `since` on are needed. */
static void forget_logs(struct heap_calls *h, uint64_t since)
{
    while (h->bytes > MOST_KEPT) {
        struct heap_log *oldest = NULL;
        for (size_t i = 0; i < h->segments; i++) {
            struct heap_log *l = &h->logs[i];
            if (l->count && l->used < since && (!oldest || l->used < oldest->used))
                oldest = l;
        }
        if (!oldest)
            return;
        h->bytes -= oldest->count * sizeof(struct heap_call);
        free(oldest->items);
        *oldest = (struct heap_log){0};
    }
}

/* The next segments from *at on whose logs are not there, up to `len` of them, with nothing but
 * such and segments without calls between them. False: there is none. */
static bool next_stretch(const struct heap_calls *h, bool forward, size_t len, size_t *at,
                         size_t *first, size_t *last)
{
    size_t step = forward ? 1 : SIZE_MAX,
           found = 0; // backward it ends below 0, which is a large number
    uint64_t hits = 0;
    for (; *at < h->segments && found < len; *at += step) {
        if (!h->logs[*at].made && !h->buckets[*at])
            continue;
        if (found && (h->logs[*at].made || hits + h->buckets[*at] > MOST_HITS))
            break;
        if (h->logs[*at].made)
            continue;
        if (!found)
            *first = *last = *at;
        *(forward ? last : first) = *at;
        hits += h->buckets[*at];
        found++;
    }
    return found > 0;
}

/* Has the logs of the walk's next segments made. */
static struct err *run_wave(struct query_engine *q, struct heap_walk *w)
{
    struct pass passes[MOST_STRETCHES] = {0};
    struct heap_calls *h = q->heap_calls;
    size_t segments, count = 0, most = w->longest ? usable_cpus() : 1, at = w->at;
    const struct history_segment *s = history_segments(q->history, &segments);
    uint64_t since = h->clock;
    most = most < MOST_STRETCHES ? most : MOST_STRETCHES;
    while (count < most) {
        struct pass *p = &passes[count];
        if (!next_stretch(h, w->forward, w->longest + !w->longest, &at, &p->first, &p->last))
            break;
        *p = (struct pass){.q = q,
                           .known = h,
                           .first = p->first,
                           .last = p->last,
                           .from = s[p->first].start,
                           .until = s[p->last].end};
        vec_each (site, &h->sites)
            vec_push(&p->sites, *site);
        count++;
    }
    w->longest = !w->longest ? 1 : w->longest < LONGEST_STRETCH ? 2 * w->longest : w->longest;
    release_state(q);
    work_side_by_side(run_pass, passes, sizeof(passes[0]), count);
    struct err *e = NULL;
    for (size_t i = 0; i < count; i++) {
        if (!e && !(e = steal(passes[i].failed)))
            e = take_pass(q, &passes[i]);
        pass_deinit(&passes[i]);
    }
    forget_logs(h, since);
    return e;
}

void heap_walk_init(struct query_engine *q, bool forward, struct moment from, struct heap_walk *out)
{
    size_t segments;
    const struct history_segment *s = history_segments(q->history, &segments);
    *out = (struct heap_walk){.forward = forward, .at = history_segment_at(q->history, from)};
    for (size_t i = forward ? out->at : 0; i < (forward ? segments : out->at + 1); i++)
        out->total += s[i].icount;
}

struct err *heap_walk_next(struct query_engine *q, struct heap_walk *w, const struct heap_log **out)
{
    static const struct heap_log nothing;
    struct heap_calls *h = q->heap_calls;
    size_t segments;
    const struct history_segment *s = history_segments(q->history, &segments);
    *out = NULL;
    if (w->at >= segments)
        return NULL;
    TRY(check_cancel(q));
    if (h->buckets[w->at] && !h->logs[w->at].made)
        TRY(run_wave(q, w));
    *out = h->buckets[w->at] ? &h->logs[w->at] : &nothing;
    h->logs[w->at].used = ++h->clock;
    w->done += s[w->at].icount;
    w->at += w->forward ? 1 : SIZE_MAX; // backward it ends below 0, which is a large number
    if (q->sink->progress && w->done < w->total)
        q->sink->progress(q->sink->ctx, (double)w->done / (double)w->total);
    return NULL;
}
