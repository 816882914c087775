/* Following values forwards: what uses.c, uses_events.c and uses_search.c share. */
#ifndef QUERY_USES_INT_H
#define QUERY_USES_INT_H

#include "query/execution_int.h"

/* A register that may only be kept for a caller: rows that are not told until it is known that it
 * was not. */
struct use_saving {
    json_t *rows; /* array of {row, parent}; the first is that of the copy to memory */
    uint64_t reg; /* byte of the register file */
    uint32_t task, parent;
    bool lost; /* the register holds something else by now */
};

/* A run of bytes that hold (part of) the value now. Items never share a byte of memory or of a
 * register. */
struct use_item {
    uint32_t len;    /* 0: no item any more */
    uint32_t offset; /* in the value asked about */
    bool memory;
    uint32_t task;   /* whose register; of memory: a task of the space */
    uint32_t space;  /* of memory */
    uint32_t object; /* of shared memory, else 0 */
    uint64_t at;     /* address, or byte of the register file (x86.h) */
    uint64_t object_at;
    uint32_t parent; /* id of the row by which the bytes came there; 0: they were asked about */
    unsigned saved;  /* pairs of push and pop left out since */
    struct use_saving *saving; /* of memory; owned; NULL: none */
    uint8_t value[MOST_BYTES];
};

/* Bytes on their way to a task that reads them later. */
struct use_arrival {
    struct use_item item; /* as it is then */
    event_no event;       /* that puts them there, or (prepared) behind which they are put there */
    bool prepared;
    bool acted;  /* or they come in the run to `event`, when the replayer writes them: `at` is a
                    moment before that */
    json_t *row; /* that tells it; owned */
    struct moment at; /* of the row */
};

typedef VEC(struct use_arrival) arrival_list;

struct uses {
    struct query_engine *q;
    bool show_saves, follow;
    size_t limit;
    uint32_t rows;  /* given so far; the last row's id */
    uint64_t moves; /* uses and ends seen */
    bool cut;       /* a limit was reached */
    VEC(struct use_item) items;
    arrival_list arrivals;
    struct insn_cache *cache;
};

struct use_item use_part(const struct use_item *item, uint32_t from, uint32_t len);
/** Puts an item onto the list. Memory: looks up at `m` whether it is shared, and takes it apart
 * where a mapping ends. Takes over saving. */
struct err *use_add(struct uses *u, const struct stretch *s, struct moment m,
                    struct use_item item) nodiscard;
/** Takes bytes [from, from + len) out of the item at idx: they hold something else now. */
struct err *use_kill(struct uses *u, size_t idx, uint32_t from, uint32_t len) nodiscard;
/** As use_kill(), telling so in `row` (taken over, its kind is set). */
struct err *use_overwritten(struct uses *u, size_t idx, uint32_t from, uint32_t len,
                            struct moment at, uint32_t task, json_t *row) nodiscard;
/** Gives a row about bytes of an item. Takes over `row`: its kind and what else belongs to it.
 * ERR_LIMIT (u->cut is set): enough. */
struct err *use_give(struct uses *u, size_t idx, uint32_t from, uint32_t len, struct moment at,
                     uint32_t task, json_t *row, uint32_t *id_out) nodiscard;
/** Adds an item that comes from somewhere else at m, with a row that tells so of `at` (taken over).
 */
struct err *use_arrive(struct uses *u, const struct stretch *s, struct moment m,
                       struct use_item item, struct moment at, json_t *row) nodiscard;
/** When an arrival's bytes are there. */
struct moment use_arrival_time(const struct uses *u, const struct use_arrival *a);
/** Tells the rows that were kept back. */
struct err *use_tell(struct uses *u, struct use_item *item) nodiscard;
void use_drop_saving(struct use_item *item);
/** The bytes of item idx are now also in `to` (memory, task, space, at of it count): as by push, if
 * `saving`, of which nothing is told. */
struct err *use_save(struct uses *u, const struct stretch *s, size_t idx, struct use_item to,
                     struct moment at, uint32_t task, json_t *row) nodiscard;
/** Bytes that were kept are back in their register, of which nothing is told. */
struct err *use_restore(struct uses *u, const struct stretch *s, size_t idx, uint32_t task,
                        struct moment at) nodiscard;
/** Items from `first` on hold bytes that were put there before `since`: of those in memory of
 * mapped files, adds the copies that others read from the files. */
struct err *use_follow_files(struct uses *u, const struct stretch *s, size_t first,
                             struct moment since) nodiscard;
json_t *use_place(bool memory, uint64_t at, uint64_t len);

/** What event `number` did with the items. */
struct err *use_event(struct uses *u, const struct stretch *s, event_no number) nodiscard;
/** What was prepared in memory, right behind event `number`, for the next one. */
struct err *use_prepared(struct uses *u, const struct stretch *s, event_no number) nodiscard;
/** What the replayer wrote at step i, in the midst of a run. */
struct err *use_acted(struct uses *u, const struct stretch *s, size_t i) nodiscard;
/** A system call instruction at step i: what it hands to the kernel, and what the replayer did if
 * it carried it out itself. */
struct err *use_system_call(struct uses *u, const struct execution *x) nodiscard;
/** Is this the instruction of a system call? The recorder's library has some that do nothing when
 * replayed. */
bool is_system_call(const struct x86_insn *in);

/** The next moment from `from` on at which anything may happen to an item; *found_out false:
 * nothing does until the end. */
struct err *use_search(struct uses *u, struct moment from, struct moment *out,
                       bool *found_out) nodiscard;

#endif
