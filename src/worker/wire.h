/* Between coordinator and worker. Commands, replies and bulk data are in a window of memory that
 * both map; each side waits for the other with a futex, actively for the first few microseconds. A
 * socket carries descriptors and the word to begin.
 *
 *   coordinator: fill command, posted++, wake ..................... answered == posted: read the reply
 *   worker:      ......................... posted changed: obey, fill the reply, answered = posted, wake
 *
 * What needs no answer waits in a queue for the next command, which saves a change of process each
 * time.
 *
 * Both ends are the same build, so this is no format: it may change at any time. The coordinator
 * does not trust replies beyond their sizes: a worker runs recorded code. */
#ifndef WORKER_WIRE_H
#define WORKER_WIRE_H

#include "worker/worker.h"

enum wire_op {
    WIRE_MAP,
    WIRE_UNMAP,
    WIRE_PROTECT,
    WIRE_MOVE,
    WIRE_DONTNEED,
    WIRE_READ,
    WIRE_WRITE,
    WIRE_SET_REGS,
    WIRE_GET_REGS,
    WIRE_SET_XSTATE,
    WIRE_GET_XSTATE,
    WIRE_DROP_TASK,
    WIRE_RUN,
    WIRE_BREAKS,
    WIRE_CONSUME,
    WIRE_CLOCK,
    WIRE_TAKE,
    WIRE_HOOKS,
    WIRE_STATS,
    WIRE_FORK,
    WIRE_SET_STACK,
    WIRE_PUSH_CALL,
    WIRE_RESET_INDEX,
    WIRE_STEPS,
    WIRE_SNAPSHOT,
    WIRE_PROBE,
    WIRE_ISA,
    WIRE_EXPECT,
    WIRE_DUMP,
    WIRE_STOPPED,
    WIRE_GO,
    WIRE_CPUID,
    WIRE_ABSENT,
    WIRE_FETCH_ALL,
};

/* Rows of the log's consumers; what index mode gathers; rows of hooks; steps; translated blocks. */
enum wire_stream {
    STREAM_ACCESSES,
    STREAM_CALLS,
    STREAM_BLOCKS,
    STREAM_LOGGED,
    STREAM_COUNTS = STREAM_LOGGED,
    STREAM_PAGES,
    STREAM_STACK,
    STREAM_FLOORS,
    STREAM_HOOKS,
    STREAM_HOOK_COUNTS,
    STREAM_STEPS,
    STREAM_STEP_MEMORY,
    STREAM_DUMP
};

enum wire_snapshot {
    SNAPSHOT_ADD,
    SNAPSHOT_TAKE,
    SNAPSHOT_RESTORING,
    SNAPSHOT_RESTORE,
    SNAPSHOT_FORGET,
    SNAPSHOT_FETCHED
};

/* Memory that is read along with a run, when it has stopped. */
enum { WIRE_PEEKS = 3 };
struct wire_peek {
    uint64_t addr;
    uint32_t len, at; /* at: in the room for peeks */
};

struct wire_run {
    struct engine_request request;
    struct regs regs;
    bool set_regs;
    struct wire_peek peeks[WIRE_PEEKS]; /* len 0: none */
};

struct wire_command {
    uint32_t op, slot;
    uint32_t fd_count; /* descriptors that wait in the socket */
    uint64_t start, end, offset, len;
    int32_t prot;
    uint32_t kind;
    union {
        struct wire_run run;
        struct regs regs;
        struct {
            uint8_t calls, blocks, loads, no_stores, keep_last, keep_rows;
            uint64_t watch_count, passed_count,
                max_rows; /* in the window: the watched ranges, then the passed blocks */
        } consume;
        struct {
            uint8_t keep_last, keep_rows, regs, count_only;
            uint64_t pc_count, entry_count, memory_count, print_count, programs_count, max_rows;
        } hooks;
        struct {
            uint8_t record, vectors, one_slot;
            uint32_t slot;
            uint64_t max_rows;
        } steps;
    };
};

/* WIRE_HOOKS, `len` bytes of the window: addresses; for each of them u64 its programs' number,
 * WIRE_NO_PROGRAMS: none; pieces of memory; u64 lengths of prints; then the programs, for each
 * number a condition and the prints: */
struct wire_program {
    uint32_t op_count, data_len, out_len,
        pad; /* then operations, then data and padding to 8. No operations: there is none */
};
#define WIRE_NO_PROGRAMS UINT64_MAX

struct wire_reply {
    int64_t error; /* errno, or 0 */
    uint64_t value, done;
    struct engine_result result;
    struct regs regs;
    uint32_t peeked[WIRE_PEEKS]; /* bytes read */
    uint32_t stopped; /* how many stops of the script were as expected; `result` and `regs` are
                         those of the last run */
};

/* A command that needs no answer, in the queue: it is obeyed before the next command. `len` bytes
 * follow, and padding to 8: WIRE_WRITE: data. WIRE_EXPECT: u64 bytes, all of these pages will be
 * written. WIRE_CLOCK: u64 icount. WIRE_BREAKS: struct wire_breaks and addresses. WIRE_SET_XSTATE:
 * an image, or nothing. WIRE_ISA: struct engine_isa. WIRE_CPUID: struct worker_cpuid. WIRE_MAP,
 * WIRE_UNMAP, WIRE_PROTECT, WIRE_DONTNEED: struct wire_range; the descriptor of a mapping waits in
 * the socket, before those of the command. */
struct wire_queued {
    uint32_t op, len;
    uint64_t start; /* address, stamp or slot */
};
struct wire_breaks {
    uint64_t rax; /* runs stop only if RAX is this, if `if_rax` */
    uint32_t if_rax, pad;
};
struct wire_range {
    uint64_t end;
    int32_t prot;
    uint32_t kind;           /* enum map_kind */
    uint64_t offset, object; /* object: number of the shared memory */
};
/* A script behind the queue lets a run go on by itself, as long as it stops where it is expected
 * to: WIRE_STOPPED with a struct worker_stop, queued commands, WIRE_GO with a struct regs and the
 * slot; and so on, and last a WIRE_GO. The next run begins with these registers; mode and limit are
 * those of the first. What each stop had come to is in the window, a struct wire_stopped for each.
 */
struct wire_stopped {
    uint64_t icount;
    struct regs regs;
};

/* The first queued command that failed: what comes behind a failure is of no use. */
struct wire_failure {
    uint32_t op; /* 0 with error 0: none */
    int32_t error;
    uint64_t start, end; /* WIRE_WRITE: start is the address that has no memory */
};

struct wire_control {
    uint32_t posted; /* futex: number of the last command */
    uint32_t worker_sleeps;
    uint32_t answered; /* futex: number of the last command answered; WIRE_DEAD: the worker gave up;
                          WIRE_WANTS: in the midst of the command it needs the contents of
                          [fetch_start, fetch_end) */
    uint32_t coordinator_sleeps;
    uint32_t queued;             /* bytes of the queue that come before this command */
    uint32_t script;             /* bytes behind them */
    struct wire_failure failure; /* of the queue */
    struct wire_command command;
    struct wire_reply reply;
    uint32_t fetched; /* futex: changes when contents are in the window's file */
    uint64_t fetch_start, fetch_end;
    uint64_t fetch_present[8]; /* bit per page: it has contents; the others are zeros */
};
/* Exit statuses of a worker that could not begin. */
enum { WIRE_NO_EXEC = 95, WIRE_NO_MEMORY = 96 };
#define WIRE_DEAD  0xffffffffu
#define WIRE_WANTS 0xfffffffeu

/* Behind the bulk data come the control page, the room for peeks, and the queue. The window's file
 * goes on with contents that the worker wants. The coordinator, which writes them once, does so by
 * system calls. The worker maps the first of them, WIRE_FETCH_NEAR bytes, which are used again and
 * again; what lies behind them it reads by system calls, too: to map it would cost a fault for each
 * page. */
enum {
    WINDOW_LEN = 4 << 20,
    CONTROL_LEN = PAGE_SIZE,
    PEEK_LEN = 2 * PAGE_SIZE,
    QUEUE_LEN = 128 << 10,
    WIRE_FETCH_LEN = 2 << 20,
    WIRE_FETCH_NEAR = 128 << 10,
    PEEK_AT = WINDOW_LEN + CONTROL_LEN,
    QUEUE_AT = PEEK_AT + PEEK_LEN,
    SHARED_LEN = QUEUE_AT + QUEUE_LEN,
    FETCH_AT = SHARED_LEN,
    MAPPED_LEN = FETCH_AT + WIRE_FETCH_NEAR,
    BOOT_AT = FETCH_AT + WIRE_FETCH_LEN
};
_Static_assert(WIRE_FETCH_LEN == 8 * 64 * PAGE_SIZE, "fetch_present has a bit for each page");
_Static_assert(sizeof(struct wire_control) <= CONTROL_LEN, "the control page is too small");

/* How to wait. Sleeping and being woken costs some 10 us, and several times that where processors
 * are virtual and idle; but a side that waits actively while the other needs the processor only
 * delays it. So: wait actively as long as that works; after SPIN_TRIES failures in a row go to
 * sleep at once, and try again at every SPIN_AGAIN-th time. Trying is long enough to outlast the
 * other's being woken, or both would remain asleep. */
enum { SPIN_COUNTS = 150000, SPIN_TRIES = 8, SPIN_AGAIN = 128 };
struct wire_patience {
    uint32_t failures;
};

/* Waits actively until *word is not `old`; false: the caller is to sleep. */
static inline bool wire_spin(const uint32_t *word, uint32_t old, struct wire_patience *p)
{
    if (p->failures >= SPIN_TRIES) {
        if (++p->failures < SPIN_TRIES + SPIN_AGAIN)
            return false;
        p->failures = SPIN_TRIES - 2;
    }
    uint64_t start = __builtin_ia32_rdtsc();
    do {
        if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != old) {
            p->failures = 0;
            return true;
        }
        __builtin_ia32_pause();
    } while (__builtin_ia32_rdtsc() - start < SPIN_COUNTS);
    p->failures++;
    return false;
}

/* What a new worker finds at its start: in the window's file, of which its first argument names the
 * descriptor, behind the window at BOOT_AT. The ranges that the recording uses are a page further
 * on; it moves them to the heap, where they are the first thing. */
struct wire_boot {
    struct engine_layout layout;
    struct addr_range keep; /* image, window, heap: all that stays mapped */
    uint64_t window, heap, heap_len;
    int32_t window_fd; /* set by the worker itself */
    int32_t socket;
    int32_t lifeline; /* read end of a pipe that is never written: when nobody holds the other end,
                         SIGKILL comes */
};

#endif
