/* Following values backwards: what dataflow.c and flow_events.c share. */
#ifndef QUERY_DATAFLOW_INT_H
#define QUERY_DATAFLOW_INT_H

#include "query/execution_int.h"

enum { MOST_ITEMS = 1024 };

/* A run of bytes whose origin is wanted, as they are at `before`: right before the instruction
 * there, or after the event if its icount is 0. */
struct flow_item {
    uint32_t len;    /* 0: no item any more */
    uint32_t offset; /* in the value asked about, or in the input of an operation */
    bool memory;
    bool known;    /* `value` is */
    bool searched; /* `before` is the result of a search: the write is just before it */
    bool ahead; /* `before` is later than what the sweep at work has reached: the next one is for it
                 */
    uint32_t task;   /* whose register; of memory: a task of the space */
    uint32_t space;  /* of memory */
    uint32_t object; /* of shared memory, else 0 */
    uint64_t at;     /* address, or byte of the register file (x86.h) */
    uint64_t object_at;
    struct moment before;
    uint32_t parent;  /* id of the row that led here; 0: none */
    unsigned depth;   /* operations gone through */
    unsigned saved;   /* pairs of push and pop left out since the last row */
    unsigned skip_at; /* how many of them it takes for flow_skip_saves() */
    json_t *held; /* the row of a pop until it is known whether it belongs to such a pair; owned */
    uint64_t held_register;
    uint8_t value[MOST_BYTES];
};

struct flow {
    struct query_engine *q;
    bool arithmetic, show_saves;
    unsigned max_depth;
    size_t limit;
    uint32_t rows;  /* given so far; the last row's id */
    uint64_t moves; /* items that were replaced by others or ended */
    bool cut;       /* the limit was reached */
    VEC(struct flow_item) items;
    struct insn_cache *cache;
    struct stretch ahead; /* run before its time */
};

/** Part of an item. */
struct flow_item flow_part(const struct flow_item *item, uint32_t from, uint32_t len);
/** Puts an item onto the list. Memory: looks up whether it is shared, and takes it apart where a
 * mapping ends. */
void flow_add(struct flow *f, const struct stretch *s, struct flow_item item);
/** The same for memory as it is at the item's own moment, which need not be in the stretch at work.
 */
struct err *flow_add_at(struct flow *f, struct flow_item item) nodiscard;
/** Gives a row about an item, which is at `at`. Takes over `row`: its "kind" and what else belongs
 * to it; adds id, parent, offset, length, value, focus, task. ERR_LIMIT (f->cut is set): there are
 * enough. */
struct err *flow_give(struct flow *f, struct flow_item *item, struct moment at, uint32_t task,
                      json_t *row, uint32_t *id_out) nodiscard;
/** {register} or {address, length}. */
json_t *flow_place(const struct flow_item *item);

/** What event `number` did to the items whose `before` is behind it; the others are left alone. */
struct err *flow_event(struct flow *f, const struct stretch *s, event_no number) nodiscard;
/** What the replayer wrote to items at step i, in the midst of a run. */
struct err *flow_acted(struct flow *f, const struct stretch *s, size_t i) nodiscard;
/** What the replayer did to items at step i, a system call that it carried out itself. */
struct err *flow_carried_out(struct flow *f, const struct stretch *s, size_t i) nodiscard;
/** Ends items for which no write was found anywhere: initial contents of shared memory, or unknown.
 */
struct err *flow_origin(struct flow *f, const struct stretch *s, struct flow_item *item) nodiscard;
/** Goes back over many pairs of push and pop in callees, if the item has been following such pairs:
 * they are left out. *skipped_out: item->before is another moment now. */
struct err *flow_skip_saves(struct flow *f, struct flow_item *item, bool *skipped_out) nodiscard;

#endif
