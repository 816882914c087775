/* Calls of a function, found in the whole recording: what executions.c and call_search.c share. */
#ifndef QUERY_CALL_SEARCH_INT_H
#define QUERY_CALL_SEARCH_INT_H

#include "query/probes.h"

enum { POINTED_LEN = 256 }; /* bytes that are taken along of what a pointer points to */

/* Memory that the worker takes along with each hit since it is likely to be asked for: where
 * registers point. */
struct pieces {
    struct hook_memory items[8];
    size_t count, len; /* len: bytes a hit */
};

struct call_found {
    struct hit hit; /* owns its memory, as back does */
    uint64_t return_addr, sp, bias;
    bool have_return_addr;
    bool open;              /* looked for: it may yet return */
    bool returned, certain; /* certain: the stack of calls told it */
    struct hit back;        /* right behind the return */
    bool have_last;         /* the segment with its end is known: last_live_segment() */
    size_t last;
    const struct sym_inlined
        *copy; /* an inlined call: it has no frame and returns to nowhere; NULL: it is none */
    json_t *row;
};
typedef VEC(struct call_found) found_list;

struct call_search {
    struct query_engine *q;
    uint64_t link_start;                      /* of the function */
    struct pieces at_call, at_return, pieces; /* the last: both, as they come with each hit */
    struct probes probes;
    struct buf entries; /* struct hit_place */
    found_list items;   /* in no particular order */
    bool more;          /* than the limit */
};

void add_piece(struct pieces *p, uint8_t base, uint16_t len);
void found_list_deinit(found_list *l);
/** Finds calls of the function within the window, at least as many as are wanted if there are, and
 * where they return. The caller has set q, what is wanted at the return, and the probes'
 * expressions; call_search_deinit() is to be called in any case. */
struct err *call_search_run(struct call_search *c, struct module *m, const struct sym_function *f,
                            const struct window *w) nodiscard;
void call_search_deinit(struct call_search *c);

#endif
