/* What was learned of moments: the past does not change, so an answer about a moment is good for
 * ever. Stacks of neighbouring moments share their outer frames, and formatting a string reads it
 * byte by byte; here both are looked up instead of asked for.
 *
 * Both tables are hashed by moment; an entry gives way to the next one with the same place. */
#include "query/query_int.h"

enum { PAGES = 512, CALLS = 8192 };

struct recall {
    struct {
        struct moment at;
        uint32_t space; /* 0: nothing here */
        gaddr addr;
        uint8_t *bytes; /* a page, or NULL: never used */
    } pages[PAGES];
    struct {
        struct moment entry;
        const struct sym_function *function;
        json_t *args; /* NULL: nothing here */
    } calls[CALLS];
    bool failed; /* while arguments are made: something did that tells nothing about the moment */
    bool any_failed; /* since recall_begin() */
};

void recall_open(struct query_engine *q)
{
    q->recall = xnew(struct recall);
}

void recall_close(struct query_engine *q)
{
    for (size_t i = 0; q->recall && i < CALLS; i++)
        json_decref(q->recall->calls[i].args);
    for (size_t i = 0; q->recall && i < PAGES; i++)
        free(q->recall->pages[i].bytes);
    free(q->recall);
    q->recall = NULL;
}

static uint64_t hash(struct moment m, uint64_t more)
{
    return ((m.event * 0x9e3779b97f4a7c15ull + m.icount) * 0x9e3779b97f4a7c15ull + more) *
               0x9e3779b97f4a7c15ull >>
           40;
}

struct err *recall_failed(struct query_engine *q, struct err *e)
{
    if (e && err_kind(e) != ERR_FAULT && err_kind(e) != ERR_NOT_FOUND)
        q->recall->failed = q->recall->any_failed = true;
    return e;
}

void recall_begin(struct query_engine *q)
{
    q->recall->any_failed = false;
}

bool recall_has_failed(const struct query_engine *q)
{
    return q->recall->any_failed;
}

struct err *recall_memory(struct query_engine *q, struct replay *r, uint32_t space, gaddr addr,
                          void *out, size_t len)
{
    struct moment now = replay_now(r);
    gaddr page = addr & ~(gaddr)(PAGE_SIZE - 1);
    if (len > PAGE_SIZE - (addr - page))
        return replay_read(r, space, addr, out, len, NULL);
    typeof(&q->recall->pages[0]) p = &q->recall->pages[hash(now, page >> 12) % PAGES];
    if (p->space != space || p->addr != page || moment_cmp(p->at, now) != 0) {
        p->space = 0;
        if (!p->bytes)
            p->bytes = xmalloc(PAGE_SIZE);
        struct err *e = replay_read(r, space, page, p->bytes, PAGE_SIZE, NULL);
        if (e) { // less than a page is there, or nothing
            err_free(e);
            return replay_read(r, space, addr, out, len, NULL);
        }
        p->at = now;
        p->addr = page;
        p->space = space;
    }
    memcpy(out, p->bytes + (addr - page), len);
    return NULL;
}

json_t *recall_arguments(struct query_engine *q, struct moment entry, const struct sym_function *f)
{
    typeof(&q->recall->calls[0]) c = &q->recall->calls[hash(entry, 0) % CALLS];
    return c->args && c->function == f && moment_cmp(c->entry, entry) == 0 ? c->args : NULL;
}

json_t *arguments_at(struct query_engine *q, struct moment entry, struct module *m,
                     const struct sym_function *f, struct sym_context *c)
{
    json_t *args = recall_arguments(q, entry, f);
    if (args)
        return json_incref(args);
    q->recall->failed = false;
    args = json_arguments(m, f, NULL, c);
    if (!q->recall->failed) {
        typeof(&q->recall->calls[0]) place = &q->recall->calls[hash(entry, 0) % CALLS];
        json_decref(place->args);
        place->args = json_incref(args);
        place->entry = entry;
        place->function = f;
    }
    return args;
}
