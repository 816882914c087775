/* What the database knows of one segment: the stretch of the recording between two boundaries.
 * Knows neither x86 nor DWARF; states are opaque bytes. docs/format.md gives the layouts. */
#ifndef DB_SEGMENT_H
#define DB_SEGMENT_H

#include "base/types.h"
#include "db/chunk_file.h"
#include "db/table.h"

/* Kinds of chunk in a segment's file. */
enum {
    CHUNK_BOUNDARY = 1,
    CHUNK_BLOCKS = 2,
    CHUNK_WRITTEN = 3,
    CHUNK_PAGES = 4,
    CHUNK_EVENTS = 5,
    CHUNK_STACKS = 6,
    CHUNK_PAGE_DATA = 7,
    CHUNK_CALLS = 8,
};

/* A call that has not returned yet. */
struct db_call {
    uint32_t task;
    struct moment at; /* of the call instruction */
    gaddr block; /* start of the block that ends with the call; 0: a signal handler was entered */
    gaddr return_addr;
    gaddr sp; /* where the return address is */
};
/* Calls from before the segment with sp in [start, end) and sp <= `floor` have ended in it. */
struct db_floor {
    uint32_t task;
    gaddr start, end, floor;
};
/* A process that fork made: it begins with its parent's calls. */
struct db_fork {
    uint32_t child, parent; /* tasks */
};

struct db_block {
    uint32_t space;
    gaddr pc;
    uint16_t insn_count, byte_len;
    uint8_t end, ticks;
    uint64_t count;
};

/* Bytes written, by 8-byte granule. Of a space (object 0) or of a shared object (space 0, page:
 * offset). */
struct db_written {
    uint32_t space, object;
    uint64_t page;
    uint64_t granules[8];
};

/* Neighbouring pages that were changed, as they are at the end of the segment. */
enum run_kind {
    RUN_ZERO,  /* zeros; not in the page data */
    RUN_WHOLE, /* stored whole */
    RUN_WORDS, /* stored as changes of the contents at the start of the segment */
};
struct db_page_run {
    uint32_t space, object;
    uint64_t page;  /* address, or offset in the object */
    uint32_t count; /* pages */
    uint32_t
        first; /* number of the first among the pages in the segment's page data; RUN_ZERO: 0 */
    uint8_t kind;
};

/* A page that was written, to be stored. */
struct db_page {
    uint32_t space, object;
    uint64_t page;         /* address, or offset in the object */
    const uint8_t *now;    /* PAGE_SIZE bytes: contents at the end of the segment; borrowed */
    const uint8_t *before; /* at its start; borrowed. NULL: not known, or not what the page's newest
                              version says, as it was mapped afresh */
};

/* Contents before the segment do not matter any more: the range was mapped afresh, or is gone. */
struct db_remap {
    uint32_t space;
    gaddr start, end;
};

/* A space that began in this segment. */
struct db_space {
    uint32_t space, parent; /* parent 0: exec */
    struct moment at;
};

/* What happened at an event. */
struct db_kernel_write {
    uint32_t space, object;
    uint64_t addr; /* address, or offset in the object */
    uint64_t len;
};
struct db_event {
    event_no number;
    uint8_t kind; /* enum frame_kind */
    uint8_t syscall_state;
    uint8_t syscall_arch;
    int32_t syscall_no;
    uint32_t task;   /* serial, 0: none */
    uint64_t result; /* of a system call's exit */
    uint64_t icount; /* instructions since the event before */
    int64_t ticks;
    gaddr rip;
    double time; /* seconds, CLOCK_MONOTONIC of the recorder */
    int32_t signo, si_code;
    uint64_t fault_addr;
    uint8_t disposition;
    uint32_t write_idx, write_count; /* in struct segment's kernel writes */
    uint8_t fd;                      /* 1 or 2: output */
    uint32_t output_off, output_len; /* in output */
    uint32_t created_task;           /* serial */
    uint32_t ended_task;
};

/* A system call which the recorder's library made itself: what the trace does not tell of it. */
struct db_buffered_call {
    struct moment at; /* right before it */
    uint32_t space;
    int32_t no; /* x86-64 */
    uint64_t args[6];
    gaddr header;      /* of the buffer in which its record is */
    uint32_t recorded; /* bytes of records before its own */
};
/* What an argument of a system call points to: a path, or a socket's address. */
struct db_call_text {
    struct moment at;  /* right before the call */
    uint8_t idx;       /* 0: the first such argument, 1: the second */
    uint32_t len, off; /* in struct segment's call_text */
};

struct segment {
    /* boundary */
    struct moment start, end;
    uint64_t icount_start, icount; /* instructions before it, and in it */
    struct buf state;              /* of the replay room, at its start */
    /* stacks */
    VEC(struct db_call) stacks; /* calls made in it that have not returned at its end */
    VEC(struct db_floor) floors;
    VEC(struct db_fork) forks;
    VEC(uint32_t) execs; /* tasks that executed another program: their calls of before are void */
    VEC(uint32_t) ends;  /* tasks that ended */
    /* index */
    VEC(struct db_block) blocks;    /* by space, pc */
    VEC(struct db_written) written; /* by object, space, page */
    /* pages */
    VEC(struct db_page) pages;    /* by object, space, page; for segment_write() only */
    VEC(struct db_page_run) runs; /* by object, space, page; filled by segment_write() */
    VEC(struct db_remap) remaps;  /* by space, start; disjoint once written */
    VEC(struct db_space) spaces;
    /* events */
    VEC(struct db_event) events;
    VEC(struct db_kernel_write) kernel_writes;
    struct buf output;
    /* system calls */
    VEC(struct db_buffered_call) buffered_calls; /* by time */
    VEC(struct db_call_text) call_texts;         /* by time */
    struct buf call_text;
};
void segment_deinit(struct segment *s);

/* --- writing --- */

/** Sorts s->remaps and merges those that touch each other. */
void segment_merge_remaps(struct segment *s);
/**
 * Creates the segment's file. Fills s->runs; remaps have to be merged. level: 1..22.
 *
 * After an error there is no file. Any thread; takes some 2 MiB while it works.
 */
struct err *segment_write(const char *path, uint64_t build, uint64_t number, int level,
                          struct segment *s) nodiscard;

/* --- reading --- */

struct err *segment_file_open(int dir, const char *name, const char *shown, uint64_t build,
                              uint64_t number, struct chunk_file **out) nodiscard;
/* Parts that can be read one by one; each fills its members only. */
enum segment_part {
    PART_BOUNDARY,
    PART_BLOCKS,
    PART_WRITTEN,
    PART_PAGES,
    PART_EVENTS,
    PART_STACKS,
    PART_CALLS
};
struct err *segment_read(const struct chunk_file *f, enum segment_part part,
                         struct segment *s) nodiscard;

/** What differs first between two segments in state, blocks, written granules, remaps, spaces,
 * calls, events and system calls: a heap string, or NULL. Both as segment_read() gives them, or as
 * they were written. */
char *segment_difference(const struct segment *a, const struct segment *b) nodiscard;

/* Tables that are in the index over all segments, too, and what has to hold of them for who looks
 * things up in them: runs are sorted and disjoint, remaps too, all are below 2^48. */
extern const struct table db_call_table, db_page_run_table, db_remap_table, db_space_table;
bool page_runs_are_sound(const struct db_page_run *runs, size_t count);
bool remaps_are_sound(const struct db_remap *remaps, size_t count);

#endif
