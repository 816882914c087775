/* The stack of calls of a task: those which have not returned, as the index variant of translations
 * keeps it.
 *
 * Entries of CALL_LEN bytes, in the order in which the calls were made. A call adds one, and a
 * return takes the last one off, in translated code, if its RSP is the return's. All else is for
 * calls_returned(): when RSP says that the call which ends is another one, those of the same stack
 * with their return addresses at or below that place have ended, too (longjmp, exceptions). Stacks
 * are told apart by the region of memory they lie in, writable mappings without a gap: the entries
 * of another one than RSP is on (a signal's, a coroutine's) stay, below those of the present one.
 *
 * What is not settled (the time of an entry, its address) is made so whenever translated code is
 * left. Freestanding. */
#ifndef WORKER_CALLS_H
#define WORKER_CALLS_H

#include "base/types.h"

#include <stddef.h>

/* R14 is an entry's address + CALLS_TAG: the end of the stack. A shift by R14 is a shift by
 * CALLS_TAG. */
enum { CALLS_TAG = 3, CALL_LEN = 64, MAX_CALLS = 1 << 15, MAX_FLOORS = 32 };
/* Offsets of what translated code writes. */
enum { CALL_SP = 0, CALL_TIME = 8, CALL_BLOCK = 16 };

struct call_entry {
    uint64_t sp;    /* where the return address is */
    uint64_t time;  /* R15 at the call; settled: instructions since event `stamp` before the call */
    uint32_t block; /* that ends with the call */
    uint32_t settled; /* enum: 0 no, SETTLED, OVER */
    uint64_t stamp;
    uint64_t pc; /* of the block; 0: a signal handler was entered when the program was to go on at
                    return_addr */
    uint64_t return_addr;
    uint64_t pad[2];
};
_Static_assert(sizeof(struct call_entry) == CALL_LEN, "entries of the stack of calls");

/* Calls on the stack in [start, end) that are not here (they are from before these were begun) have
 * ended if their return addresses are at or below `floor`. */
struct call_floor {
    uint64_t start, end, floor;
};

struct calls {
    struct call_entry *entries; /* [0] is no call, and equals no RSP */
    uint64_t top;               /* as in R14 */
    struct call_floor floors[MAX_FLOORS];
    uint32_t floor_count;
    struct calls *next_free;
};

/** Made, or one that was freed; empty. */
struct calls *calls_create(void);
void calls_free(struct calls *c);
void calls_clear(struct calls *c);
size_t calls_count(const struct calls *c);
/** Settles the entries made in translated code that was entered with `budget` after `icount`
 * instructions since `stamp`. */
void calls_settle(struct calls *c, uint64_t budget, uint64_t stamp, uint64_t icount);
/** The call whose return address is at sp, the last one; the call at `sp` which was the last one
 * until it returned. NULL: that is not known. Valid until the recorded program goes on. */
const struct call_entry *calls_last(const struct calls *c, uint64_t sp);
const struct call_entry *calls_over(const struct calls *c, uint64_t sp);
/** A return address at `sp` has been consumed, or RSP was set to sp + 8: calls up to there have
 * ended. */
void calls_returned(struct calls *c, uint64_t sp);
/** Adds a settled entry. */
void calls_push(struct calls *c, const struct call_entry *e);
/** Takes those off that must have ended since a later call of the same stack was made at or above
 * them, and raises the floors to what there is. */
void calls_normalise(struct calls *c);
/** If `address` is behind the end of the entries: makes room, and returns by how many bytes R14 is
 * to be lowered. */
uint64_t calls_overflow(struct calls *c, uint64_t address, uint64_t top);

#endif
