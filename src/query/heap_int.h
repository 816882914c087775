/* Calls of the allocator's functions (malloc, free and their like): what heap_calls.c finds and
 * keeps, heap.c asks. */
#ifndef QUERY_HEAP_INT_H
#define QUERY_HEAP_INT_H

#include "query/query_int.h"

enum heap_kind {
    HEAP_ALLOCATES,
    HEAP_FREES,
    HEAP_MOVES /* realloc: frees what it was given, if it succeeds */
};

struct heap_function {
    const char *symbol; /* the linker's */
    const char *name;   /* as programs say */
    uint8_t kind;       /* enum heap_kind */
    uint8_t old;        /* argument, from 1: what is freed; 0: none */
    /* Arguments: their product (count 0: the first alone) is the size in bytes. */
    uint8_t size, count;
    uint8_t indirect; /* argument: where the result is put, if the call returns 0; 0: it returns the
                         result */
};

/* A call. */
struct heap_call {
    struct moment entry;   /* at its first instruction */
    struct moment back;    /* right behind its return; {0, 0}: it has none, or is of no interest */
    struct moment made;    /* of the call instruction; {0, 0}: not known */
    gaddr return_addr, sp; /* sp: at the entry */
    gaddr start;           /* what it returned; 0: nothing */
    gaddr old;             /* what it was given to free; 0: nothing */
    uint64_t size;         /* as asked for */
    const struct heap_function *function;
    uint32_t task, space;
    uint32_t outer; /* within a pass: 1 + index of the innermost call that was at work in its task;
                       0: none */
};

/* Those that were entered in a segment, in order of their entries. A call that another one makes to
 * do its work (operator new calls malloc) is not among them, if both were entered in one pass: the
 * outer one is whom the program asked. */
struct heap_log {
    struct heap_call *items;
    size_t count;
    bool made;
    uint64_t used;
};

/** Does the call end the life of what it was given? From its entry on. */
static inline bool heap_call_frees(const struct heap_call *c)
{
    return c->old &&
           (c->function->kind == HEAP_FREES ||
            (c->function->kind == HEAP_MOVES && (c->start || (c->back.event && !c->size))));
}

/* A walk through the logs of all segments, in order of time away from the one that it begins with.
 */
struct heap_walk {
    bool forward;
    size_t at;            /* the next segment; beyond their number: none is left */
    size_t longest;       /* stretch of segments that is run at a time */
    uint64_t done, total; /* instructions, for progress */
};

/** Finds where the allocator's functions are. ERR_NOT_FOUND: no module with symbols of them ran. */
struct err *heap_find_functions(struct query_engine *q) nodiscard;
/** The function whose entry the registers are at; NULL: none. */
const struct heap_function *heap_function_at(const struct query_engine *q, uint32_t space,
                                             struct moment m, const struct regs *regs);
void heap_walk_init(struct query_engine *q, bool forward, struct moment from,
                    struct heap_walk *out);
/**
 * The log of the next segment; borrowed until the next call of this function for any walk. NULL:
 * there is none.
 *
 * Cost: segments in which the functions ran are run again, more and more at a time, on all CPUs,
 * unless their log is kept.
 */
struct err *heap_walk_next(struct query_engine *q, struct heap_walk *w,
                           const struct heap_log **out) nodiscard;

#endif
