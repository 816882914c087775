/* What the database knows of one segment: the stretch of the recording between two boundaries. Knows neither x86 nor DWARF;
 * states are opaque bytes. docs/format.md gives the layouts. */
#ifndef DB_SEGMENT_H
#define DB_SEGMENT_H

#include "base/types.h"
#include "db/chunk_file.h"

/* Kinds of chunk. */
enum {
    CHUNK_META = 1, CHUNK_BOUNDARY = 2, CHUNK_BLOCKS = 3, CHUNK_WRITTEN = 4, CHUNK_PAGES = 5, CHUNK_REMAPS = 6,
    CHUNK_EVENTS = 7, CHUNK_STACKS = 8, CHUNK_PAGE_DATA = 9,
    CHUNK_SEGMENTS = 10, CHUNK_BLOCK_INDEX = 11, CHUNK_PAGE_INDEX = 12
};

/* A call that has not returned yet. */
struct db_call {
    uint32_t task;
    struct moment at;  /* of the call instruction */
    gaddr block;       /* start of the block that ends with the call; 0: a signal handler was entered */
    gaddr return_addr;
    gaddr sp;          /* where the return address is */
};
/* Calls from before the segment with sp in [start, end) and sp <= `floor` have ended in it. */
struct db_floor {
    uint32_t task;
    gaddr start, end, floor;
};

struct db_block {
    uint32_t space;
    gaddr pc;
    uint16_t insn_count, byte_len;
    uint8_t end, ticks;
    uint64_t count;
};

/* Bytes written, by 8-byte granule. Of a space (object 0) or of a shared object (space 0, page: offset). */
struct db_written {
    uint32_t space, object;
    uint64_t page;
    uint64_t granules[8];
};

/* The contents of a page at the end of the segment. */
struct db_page {
    uint32_t space, object;
    uint64_t page;
    uint64_t data_off; /* in the page data; UINT64_MAX: zeros */
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

/* A process that fork made: it begins with its parent's calls. */
struct db_fork {
    uint32_t child, parent; /* tasks */
};

/* What happened at an event. */
struct db_kernel_write {
    uint32_t space, object;
    uint64_t addr; /* address, or offset in the object */
    uint64_t len;
};
struct db_event {
    event_no number;
    uint8_t kind;          /* enum frame_kind */
    uint8_t syscall_state;
    uint8_t syscall_arch;
    int32_t syscall_no;
    uint32_t task;         /* serial, 0: none */
    uint64_t result;       /* of a system call's exit */
    uint64_t icount;       /* instructions since the event before */
    int64_t ticks;
    gaddr rip;
    double time;           /* seconds, CLOCK_MONOTONIC of the recorder */
    int32_t signo, si_code;
    uint64_t fault_addr;
    uint8_t disposition;
    uint32_t write_idx, write_count; /* in struct segment's kernel writes */
    uint8_t fd;            /* 1 or 2: output */
    uint32_t output_off, output_len; /* in output */
    uint32_t created_task; /* serial */
    uint32_t ended_task;
};

struct segment {
    /* boundary */
    struct moment start, end;
    uint64_t icount_start, icount; /* instructions before it, and in it */
    struct buf state;              /* of the replay room */
    VEC(struct db_call) stacks;    /* calls made in it that have not returned at its end; in a stacks file: all, at its start */
    VEC(struct db_floor) floors;
    VEC(struct db_fork) forks;
    VEC(uint32_t) execs;           /* tasks that executed another program: their calls of before are void */
    /* index */
    VEC(struct db_block) blocks;   /* by space, pc */
    VEC(struct db_written) written; /* by object, space, page */
    VEC(struct db_remap) remaps;
    VEC(struct db_space) spaces;
    VEC(struct db_page) pages;     /* by object, space, page */
    struct buf page_data;
    /* events */
    VEC(struct db_event) events;
    VEC(struct db_kernel_write) kernel_writes;
    struct buf output;
};

void segment_deinit(struct segment *s);
/** Writes a segment file. */
struct err *segment_write(const struct segment *s, const char *path, int level, uint64_t *bytes_out) nodiscard;

/* Parts that can be read one by one; each fills its members only. */
enum segment_part { PART_BOUNDARY, PART_BLOCKS, PART_WRITTEN, PART_PAGES, PART_EVENTS, PART_STACKS };
enum { PAGES_PER_CHUNK = 64 }; /* page data is cut into chunks of this many pages */
/** Appends the page data chunk number `idx`. */
struct err *segment_read_page_data(struct chunk_file *f, size_t idx, struct buf *out) nodiscard;
struct err *segment_read(struct chunk_file *f, enum segment_part part, struct segment *s) nodiscard;
/** Writes new stacks: file of one chunk beside the segment, made when the segments are joined. */
struct err *segment_write_stacks(const struct segment *s, const char *path, int level) nodiscard;

#endif
