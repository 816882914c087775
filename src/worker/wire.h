/* Between coordinator and worker: one fixed-size message each way over a SOCK_SEQPACKET socket, bulk data in a shared window.
 * Both ends are the same build, so this is no format: it may change at any time. The coordinator does not trust replies
 * beyond their sizes: a worker runs recorded code. */
#ifndef WORKER_WIRE_H
#define WORKER_WIRE_H

#include "worker/worker.h"

enum wire_op {
    WIRE_MAP, WIRE_UNMAP, WIRE_PROTECT, WIRE_MOVE, WIRE_DONTNEED, WIRE_READ, WIRE_WRITE, WIRE_SET_REGS, WIRE_GET_REGS,
    WIRE_SET_XSTATE, WIRE_GET_XSTATE, WIRE_DROP_TASK, WIRE_RUN, WIRE_BREAKS, WIRE_CONSUME, WIRE_CLOCK, WIRE_TAKE,
    WIRE_HOOKS, WIRE_STATS, WIRE_FORK, WIRE_SET_STACK, WIRE_PROBE,
};

enum wire_stream { STREAM_WRITES, STREAM_CALLS, STREAM_BLOCKS, STREAM_HOOKS, STREAM_COUNTS, STREAM_PAGES, STREAM_STACK, STREAM_FLOORS,
                   STREAM_COUNT };

struct wire_run {
    struct engine_request request;
    struct regs regs;
    bool set_regs;
};

struct wire_command {
    uint32_t op, slot;
    uint64_t start, end, offset, len;
    int32_t prot;
    uint32_t kind;
    union {
        struct wire_run run;
        struct regs regs;
        struct {
            uint8_t index, calls, blocks, keep_last, keep_rows, keep_stacks, track, regs;
            uint64_t watch_count, max_rows, memory_count;
        } consume;
    };
};

struct wire_reply {
    int64_t error; /* errno, or 0 */
    uint64_t value, done;
    struct engine_result result;
    struct regs regs;
};

enum { WINDOW_LEN = 4 << 20 };

/* What a new worker finds at its start; written by the coordinator. */
struct wire_boot {
    struct engine_layout layout;
    struct addr_range keep;       /* image, stack, heap, window: all that stays mapped */
    uint64_t window, heap, heap_len;
    int32_t socket;
    int32_t lifeline; /* read end of a pipe that is never written: when nobody holds the other end, SIGKILL comes */
};

#endif
