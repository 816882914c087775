/* When a file's code was where it was: addresses are used again, by a library that takes another's
 * place, by the next program of a process, by memory in which code is made. */
#include "query/query_int.h"

#include <sys/mman.h>

static bool covers(const struct trace_mmap *record, gaddr pc)
{
    return record->start <= pc && pc < record->end;
}

/* Does the mapping have at its addresses what the module has at this bias? */
static bool is_of(const struct trace_mmap *record, const struct module *m, uint64_t bias)
{
    uint64_t its_bias = 0;
    if (!module_is_mapped_by(m, record) || !m->sym)
        return false;
    struct err *e = sym_module_bias(m->sym, record->start, (uint64_t)record->file_offset,
                                    record->prot & PROT_EXEC, &its_bias);
    bool same = !e && its_bias == bias;
    err_free(e);
    return same;
}

/* Was there ever anything else at the address? */
static bool is_contested(const struct query_engine *q, const struct module *m, uint64_t bias,
                         gaddr pc)
{
    size_t count;
    const struct trace_mmap *records = trace_mmaps(q->trace, &count);
    for (size_t i = 0; i < count; i++) {
        if (covers(&records[i], pc) && !is_of(&records[i], m, bias))
            return true;
    }
    return false;
}

/* Was the mapping made in this space? A new mapping is among what its event wrote. */
static struct err *is_in_space(struct query_engine *q, const struct trace_mmap *record,
                               uint32_t space, bool *out)
{
    const struct db_event *e;
    const struct segment *s;
    *out = false;
    if (record->event > q->last_event)
        return NULL; // behind what there is of a database that is being made
    TRY(event_at(q, record->event, &e, &s));
    for (uint32_t i = 0; i < e->write_count && !*out; i++) {
        const struct db_kernel_write *w = &s->kernel_writes.items[e->write_idx + i];
        *out = w->space == space && !w->object && w->addr < record->end &&
               w->addr + w->len > record->start;
    }
    return NULL;
}

static void add_span(struct presence *p, event_no from, event_no until)
{
    if (p->spans.count && p->spans.items[p->spans.count - 1].until == from)
        p->spans.items[p->spans.count - 1].until = until;
    else
        vec_push(&p->spans, (struct event_span){from, until});
}

/* Adds when the code was at `pc` of a space before event `end`; what a fork's parent had mapped is
 * the child's, too. */
static struct err *gather(struct query_engine *q, const struct module *m, uint64_t bias, gaddr pc,
                          uint32_t space, event_no end, struct presence *p)
{
    size_t count, space_count;
    const struct trace_mmap *records = trace_mmaps(q->trace, &count);
    const struct db_space *spaces = history_spaces(q->history, &space_count);
    event_no since = 0;
    bool there = false;
    for (size_t i = 0; i < space_count; i++) {
        if (spaces[i].space != space || !spaces[i].parent)
            continue;
        since = spaces[i].at.event;
        struct presence parents = {0};
        struct err *e = gather(q, m, bias, pc, spaces[i].parent, since, &parents);
        there = parents.spans.count && parents.spans.items[parents.spans.count - 1].until == since;
        vec_deinit(&parents.spans);
        TRY(e);
    }
    for (size_t i = 0; i < count && records[i].event < end; i++) {
        bool here = false;
        if (covers(&records[i], pc))
            TRY(is_in_space(q, &records[i], space, &here));
        if (!here)
            continue;
        if (there)
            add_span(p, since, records[i].event);
        since = records[i].event;
        there = is_of(&records[i], m, bias);
    }
    if (there)
        add_span(p, since, end);
    return NULL;
}

/* The same one for each time that the same is asked, so that there are few. */
static const struct presence *kept(struct query_engine *q, struct presence *p)
{
    vec_each (have, &q->presences) {
        if ((*have)->spans.count == p->spans.count &&
            memcmp((*have)->spans.items, p->spans.items,
                   p->spans.count * sizeof(p->spans.items[0])) == 0) {
            vec_deinit(&p->spans);
            return *have;
        }
    }
    struct presence *new = xnew(struct presence);
    *new = *p;
    vec_push(&q->presences, new);
    return new;
}

struct err *code_presence(struct query_engine *q, const struct module *m, uint64_t bias, gaddr pc,
                          uint32_t space, const struct presence **out)
{
    struct presence p = {0};
    *out = NULL;
    if (!is_contested(q, m, bias, pc))
        return NULL;
    struct err *e = gather(q, m, bias, pc, space, UINT64_MAX, &p);
    if (e)
        vec_deinit(&p.spans);
    else
        *out = kept(q, &p);
    return e;
}

bool is_present(const struct presence *p, event_no event)
{
    if (!p)
        return true;
    vec_each (s, &p->spans) {
        if (s->from <= event && event < s->until)
            return true;
    }
    return false;
}

enum presence_share presence_between(const struct presence *p, struct moment from,
                                     struct moment until)
{
    enum presence_share share = PRESENT_NEVER;
    if (!p)
        return PRESENT_ALWAYS;
    vec_each (s, &p->spans) {
        struct moment comes = {s->from, 0}, goes = {s->until, 0};
        if (moment_cmp(comes, from) <= 0 && moment_cmp(until, goes) <= 0)
            return PRESENT_ALWAYS;
        if (moment_cmp(comes, until) < 0 && moment_cmp(from, goes) < 0)
            share = PRESENT_PARTLY;
    }
    return share;
}

event_no presence_changes_behind(const struct presence *p, event_no event)
{
    event_no next = UINT64_MAX;
    for (size_t i = 0; p && i < p->spans.count; i++) {
        const struct event_span *s = &p->spans.items[i];
        next = s->from > event && s->from < next ? s->from : next;
        next = s->until > event && s->until < next ? s->until : next;
    }
    return next;
}

void presences_deinit(struct query_engine *q)
{
    vec_each (p, &q->presences) {
        vec_deinit(&(*p)->spans);
        free(*p);
    }
    vec_deinit(&q->presences);
}
