/* A worker, as its coordinator sees it: a confined process which holds one recorded address space
 * at its recorded addresses and runs its code. It obeys the commands below and nothing else; it has
 * no file system and no network, and recorded system calls are never executed. The public header of
 * this room, for the rooms above.
 *
 * A worker belongs to one thread of the coordinator. After a failure of the worker process itself
 * (killed, crashed) each call gives ERR_OS "worker died: ...". */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "base/buf.h"
#include "base/err.h"
#include "base/program.h"
#include "base/types.h"
#include "worker/engine.h"

#include <stdatomic.h>

struct worker;

/**
 * Starts an empty worker.
 *
 * used: all ranges that the recording maps at any time in any space (sorted, disjoint). The
 * worker's own memory is put elsewhere. Borrowed for the call.
 */
struct err *worker_create(const struct addr_range *used, size_t used_count,
                          struct worker **out) nodiscard;
/** Ends the process and frees. NULL is fine. */
void worker_destroy(struct worker *w);
DEFINE_CLEANUP(struct worker *, worker_destroy)
/** Copies the worker with all of its memory (copy on write; MAP_SHARED memory stays shared), tasks
 * and translations. */
struct err *worker_fork(struct worker *w, struct worker **out) nodiscard;

/** The first of the worker's own ranges, none of which the recording uses, that [start, end)
 * overlaps; NULL: memory may be mapped there. */
const struct addr_range *worker_own_range(const struct worker *w, gaddr start, gaddr end);

/** Tells the worker about instruction sets that not both CPUs have (x86/isa.h has the bits). Before
 * it runs anything; copies inherit it. */
struct err *worker_set_isa(struct worker *w, const struct engine_isa *isa) nodiscard;

/* What CPUID gives for EAX and ECX; ecx_in UINT32_MAX: for any. */
struct worker_cpuid {
    uint32_t eax_in, ecx_in, eax, ebx, ecx, edx;
};
#define WORKER_MAX_CPUID 1024
/** Answers of CPUID, the first that fits, or zeros, for runs which want them from the worker
 * (engine_request.answer_cpuid); copies inherit it. */
struct err *worker_set_cpuid(struct worker *w, const struct worker_cpuid *table,
                             size_t count) nodiscard;

/* Memory. Addresses and lengths are page aligned where the kernel wants it; protections are PROT_*.
 *
 * A round trip to the worker costs tens of microseconds where processors are busy. So what needs no
 * answer is queued and done before the next command: mapping, unmapping, protecting, discarding,
 * worker_queue_write(), worker_set_xstate(), worker_set_cpuid(), worker_set_icount() and
 * worker_set_breaks(). If that fails, the next call and all later ones give the error. */

enum map_kind {
    MAP_KIND_ANON,         /* private zero pages */
    MAP_KIND_PRIVATE_FILE, /* private mapping of fd at offset */
    MAP_KIND_SHARED,       /* shared mapping of fd (a memfd) at offset */
};
/** Maps [start, end), replacing what is there. fd is borrowed; opened for reading (writing too if
 * shared and prot says). */
struct err *worker_map(struct worker *w, gaddr start, gaddr end, int prot, enum map_kind kind,
                       int fd, uint64_t offset) nodiscard;
struct err *worker_unmap(struct worker *w, gaddr start, gaddr end) nodiscard;
struct err *worker_protect(struct worker *w, gaddr start, gaddr end, int prot) nodiscard;
/** Moves mappings: mremap(2) with MREMAP_MAYMOVE|MREMAP_FIXED; keep: leave an empty mapping behind
 * (DONTUNMAP). */
struct err *worker_move(struct worker *w, gaddr old_start, uint64_t old_len, gaddr new_start,
                        uint64_t new_len, bool keep) nodiscard;
/** madvise(MADV_DONTNEED). */
struct err *worker_dontneed(struct worker *w, gaddr start, gaddr end) nodiscard;
/** Reads guest memory. ERR_FAULT with the first address that could not be read; *done_out (may be
 * NULL) bytes read. Ignores protection: PROT_NONE pages are readable too. */
struct err *worker_read(struct worker *w, gaddr addr, void *out, size_t len,
                        size_t *done_out) nodiscard;
/** Writes guest memory, ignoring protection (restored after), and drops translations of it.
 * ERR_FAULT if unmapped. */
struct err *worker_write(struct worker *w, gaddr addr, const void *data, size_t len) nodiscard;
/** The same, but the worker does it only before its next command, for memory that is private to the
 * worker. */
struct err *worker_queue_write(struct worker *w, gaddr addr, const void *data,
                               size_t len) nodiscard;

/* Tasks: each thread of the space has a slot 0..WORKER_MAX_TASKS-1 chosen by the caller. */
#define WORKER_MAX_TASKS 4096
struct err *worker_set_regs(struct worker *w, unsigned slot, const struct regs *regs) nodiscard;
struct err *worker_get_regs(struct worker *w, unsigned slot, struct regs *out) nodiscard;
/** xstate NULL: initial state. */
struct err *worker_set_xstate(struct worker *w, unsigned slot, const struct xstate *x) nodiscard;
struct err *worker_get_xstate(struct worker *w, unsigned slot, struct xstate *out) nodiscard;
struct err *worker_drop_task(struct worker *w, unsigned slot) nodiscard;
/** Runs a task; see engine.h. Its registers after the stop come back in *regs_out (may be NULL). If
 * `set` is not NULL these registers are loaded first (one round trip instead of two). */
struct err *worker_run(struct worker *w, unsigned slot, const struct engine_request *request,
                       const struct regs *set, struct engine_result *result,
                       struct regs *regs_out) nodiscard;
/* Sending a worker ahead: who knows what is to be done at the stops to come puts it into a script,
 * and the worker goes on by itself from stop to stop. Everything is then asked for again, as it
 * would be without: the calls of worker_run() have their results already. A run that does not stop
 * as expected is the last one. */
struct worker_stop {
    struct regs regs;
    uint64_t ticks; /* retired in the run */
    uint32_t mask;  /* bit for each of `regs` that has to be equal */
    uint8_t reason; /* enum stop_reason */
    uint8_t insn_len;
    uint8_t pad[2];
};
enum { WORKER_MAX_AHEAD = 32, WORKER_AHEAD_BYTES = 24 << 10 /* of data, for all together */ };
/** Begins a script for the next worker_run(). False: there is no room now. */
bool worker_ahead_begin(struct worker *w);
/** If the run before stops like this: what is queued from here on is done... */
struct err *worker_ahead_stop(struct worker *w, const struct worker_stop *stop) nodiscard;
/** ...and the task runs again with these registers. At most WORKER_MAX_AHEAD times. */
struct err *worker_ahead_run(struct worker *w, unsigned slot, const struct regs *regs) nodiscard;
/** What is queued from here on is done before the first run, as ever. */
void worker_ahead_end(struct worker *w);

/** Addresses at which runs stop with STOP_BREAK; replaces the set. rax not NULL: only if RAX is
 * that. */
struct err *worker_set_breaks(struct worker *w, const gaddr *pcs, size_t count,
                              const uint64_t *rax) nodiscard;
/** Memory that is likely to be looked at after runs from now on, at most WORKER_PEEKS ranges:
 * worker_read() of it costs no round trip while nothing else happens. Borrows for the call. */
#define WORKER_PEEKS 3
void worker_peek(struct worker *w, const struct addr_range *ranges, size_t count);

/* What is learned from runs with ENGINE_LOG and ENGINE_LOG_LOADS. Several consumers may be on at
 * once; worker_consume() replaces the selection and forgets what was gathered. Times of rows are
 * `icount`s: instructions retired before the instruction in question, counted from `icount_base`
 * given with worker_set_icount() (the caller sets it before each run to the task's instructions
 * since the last event), and `stamp`, an opaque u64 given along with it (the caller's event
 * number). */
enum { WORKER_MOST_PASSED = 1 << 14 };
struct passed_block {
    gaddr pc;
    uint64_t insn_count;
};
struct consume_request {
    bool calls;  /* calls: struct call_row, in order of time */
    bool blocks; /* every executed block: struct block_row, in order of time (bounded stretches
                    only) */
    const struct passed_block *passed; /* but for these, when they are executed as a whole; more
                                          than WORKER_MOST_PASSED: rows come of some */
    size_t passed_count;
    const struct addr_range *watch; /* accesses that overlap any of these: struct access_row */
    size_t watch_count;
    bool loads;      /* reads of watched ranges, too: only ENGINE_LOG_LOADS tells of them */
    bool no_stores;  /* reads only */
    size_t max_rows; /* per kind; 0: no limit. When reached the run ends with STOP_CONSUMER */
    bool keep_last;  /* with max_rows: keep the last rows instead of stopping */
    bool keep_rows;  /* do not forget what was gathered so far: only `watch` changes */
};
struct access_row {
    uint64_t stamp, icount;
    gaddr pc; /* start of the basic block of the instruction */
    gaddr addr;
    uint32_t size; /* bytes accessed; with REP: the whole range */
    uint8_t kind; /* enum access_kind: MASKED, STATE, SCATTER and GATHER rows are candidates only */
    uint8_t pad[3];
    uint32_t slot; /* task slot */
    uint32_t pad2;
};
struct call_row {
    uint64_t stamp, icount; /* of the call instruction */
    gaddr pc;               /* start of the basic block that ends with the call instruction */
    gaddr return_addr;
    gaddr sp; /* address of the pushed return address: rsp at the callee's entry */
    uint32_t slot, pad;
};
struct block_row {
    uint64_t stamp, icount;
    gaddr pc;
    uint16_t insn_count, byte_len;
    uint32_t slot;
};
struct err *worker_consume(struct worker *w, const struct consume_request *request) nodiscard;
struct err *worker_set_icount(struct worker *w, uint64_t stamp, uint64_t icount_base) nodiscard;
/** Takes (and empties) what was gathered: arrays appended to the buffers, NULL where not wanted. */
struct err *worker_take_rows(struct worker *w, struct buf *accesses, struct buf *calls,
                             struct buf *blocks) nodiscard;

/* What is learned from runs with ENGINE_INDEX. */

/* How often a block was begun. Each instruction that was begun counts, also one that faulted, and
 * system calls and such, which are blocks of their own; a block that faulted counts as a shorter
 * one, up to that instruction. */
struct block_count {
    gaddr pc;
    uint16_t insn_count, byte_len;
    uint8_t end, ticks; /* enum block_end */
    uint16_t pad;
    uint64_t count;
};
/* 512 bits, one per 8-byte granule of a page: a store to the granule happened. Exact for plain
 * stores. */
struct written_page {
    gaddr page;
    uint64_t granules[8];
};
/* A call that has not returned. `pc` is the start of the basic block that ends with the call
 * instruction, which itself ends at return_addr; 0: no call, a signal handler was entered when the
 * program was to go on at return_addr. */
struct stack_entry {
    uint64_t stamp, icount;
    gaddr pc, return_addr, sp;
    uint32_t slot, pad;
};
/* Calls from before the stack was set that are not on it: those with sp in [start, end) and sp <=
 * `floor` have ended. */
struct stack_floor {
    gaddr start, end, floor;
    uint32_t slot, pad;
};
/** Forgets counts and granules, and if told so the stacks of all tasks. */
struct err *worker_reset_index(struct worker *w, bool stacks) nodiscard;
/** Takes (and empties) counts and granules: arrays appended to the buffers. */
struct err *worker_take_index(struct worker *w, struct buf *block_counts,
                              struct buf *written_pages) nodiscard;
/** The calls of a task that have not returned, in the order in which they were made. */
struct err *worker_set_stack(struct worker *w, unsigned slot, const struct stack_entry *entries,
                             size_t count) nodiscard;
/** Adds one: a signal handler's. */
struct err *worker_push_call(struct worker *w, const struct stack_entry *entry) nodiscard;
/** Appends the stacks of all tasks (by entry.slot) and their floors (may be NULL). */
struct err *worker_take_stack(struct worker *w, struct buf *entries, struct buf *floors) nodiscard;

/* Hooks: captures at code addresses in ENGINE_COUNT runs, at native speed between hits. At each hit
 * the worker runs the condition of the address; if it holds, or cannot be told, appends a struct
 * hook_row, `memory_count` pieces of memory, and what its prints gave; and goes on. */
struct hook_memory {
    uint8_t base;  /* enum reg, or 0xff: absolute */
    uint8_t deref; /* 1: the piece lies where the 8 bytes at base + offset point, plus offset2 */
    uint16_t len;  /* at most 256 */
    int64_t offset, offset2;
};
/* What is computed at an address. Memory is readable whatever its protection, as with
 * worker_read(). */
struct hook_programs {
    struct program condition; /* its result 0: no row. No operations: there is none */
    const struct program
        *prints; /* print_count; those without operations print nothing here: PROGRAM_UNKNOWN */
};
struct hook_row {
    uint64_t stamp, icount;  /* before the instruction at pc */
    uint32_t slot, data_len; /* bytes that follow this struct: memory pieces (each padded to 8;
                                unreadable: zeros and bit i of `unreadable` set), then prints (each
                                a struct hook_print and print_lens[i] bytes of output) */
    uint64_t unreadable;
    struct regs regs;
    uint64_t condition, condition_result; /* PROGRAM_OK: it holds, or there is none. Else it failed:
                                             enum program_end and its result */
    /* In index mode, as far as the stack of calls tells, else 0: the call whose return address is
     * at rsp, so that a function is entered here; the call whose return address was right below
     * rsp, so that it has returned here. Times as of rows. */
    struct {
        uint64_t stamp, icount;
    } entered, returned;
};
struct hook_print {
    uint64_t end, result; /* enum program_end */
};
struct hook_request {
    const gaddr *pcs;
    size_t pc_count;
    const struct hook_memory *memory;
    size_t memory_count;
    const struct hook_programs *const
        *programs;              /* of each address; addresses may share them; NULL: none at all */
    const uint32_t *print_lens; /* multiples of 8, not less than out_len of the programs */
    size_t print_count;         /* at most HOOK_MAX_PRINTS */
    size_t max_rows;            /* stop (STOP_CONSUMER) when reached; 0: no limit */
    bool keep_last;             /* keep the last max_rows instead of stopping */
    bool keep_rows;             /* only the addresses change: rows gathered so far stay */
    bool regs;                  /* false: rows without registers are enough (regs zero) */
    bool count_only;            /* no rows */
    size_t entry_count; /* the first addresses are functions' entries: a run stops behind a row of
                           one whose return address has no hook */
};
enum { HOOK_MAX_PRINTS = 32 };
/* Since hooks were last set. */
struct hook_counts {
    uint64_t hits;   /* executions of the addresses */
    uint64_t held;   /* of these: the condition held, or there is none */
    uint64_t failed; /* the condition could not be told */
};
/** Replaces the hooks (pc_count 0: none) and forgets rows. Independent of worker_set_breaks.
 * Borrows for the call. ERR_USAGE: a program that program_check() refuses; ERR_LIMIT: too much of
 * something. */
struct err *worker_set_hooks(struct worker *w, const struct hook_request *request) nodiscard;
struct err *worker_take_hook_rows(struct worker *w, struct buf *rows) nodiscard;
/** Bytes of each row. */
size_t worker_hook_row_len(const struct hook_request *request);
struct err *worker_hook_counts(struct worker *w, struct hook_counts *out) nodiscard;

/* Steps: the registers before each instruction of a stretch, at some 100 ns each instead of a round
 * trip; and memory at chosen moments. Rows are times as with the log consumers. */
struct step_row {
    uint64_t stamp, icount; /* before the instruction at rip */
    uint32_t slot;
    uint8_t end; /* true: the state at the end of a run, of which `reason` (enum stop_reason) says
                    why. A row before it with the same time is that of an instruction which did not
                    complete: a system call, a fault, a `rep` cut short */
    uint8_t reason;
    uint8_t code_len; /* how much of `code` could be read */
    uint8_t pad;
    uint8_t code[16];
    struct regs regs;
};
/* A piece of memory as it is just before the instruction at a moment. */
struct step_capture {
    uint64_t stamp, icount;
    gaddr addr;
    uint64_t len; /* at most 4096 */
};
struct step_request {
    bool record; /* a step_row before each instruction; each followed by XSTATE_MAX bytes of vector
                    state if `vectors` */
    bool vectors;
    bool one_slot; /* record the task in `slot` only; others run at full speed */
    uint32_t slot;
    size_t max_rows; /* the run ends with STOP_CONSUMER when reached; 0: no limit but 1 GiB */
    const struct step_capture *captures; /* by rising time; at most 100000 */
    size_t capture_count;
};
/** Replaces what was asked for (NULL: nothing any more) and forgets rows. Hooks, breaks and
 * consumers go on as before. */
struct err *worker_set_steps(struct worker *w, const struct step_request *request) nodiscard;
/** Appends what was gathered, and empties it. memory: for each capture that was reached or passed
 * u64 bytes read (0: unreadable, or the moment did not come), then the bytes, padded to 8. Either
 * may be NULL. */
struct err *worker_take_steps(struct worker *w, struct buf *rows, struct buf *memory) nodiscard;

/* Translated blocks, for people who look for the translator's errors. */
struct block_dump {
    gaddr pc;
    uint64_t host, stubs; /* addresses of the translation and of the stubs that it leaves by */
    uint32_t guest_len, host_len, stubs_len;
    uint16_t insn_count;
    /* Enum engine_mode; exact: a cut translation, to stop in the midst of a block. */
    uint8_t mode, exact;
    uint8_t padding, pad[7];
    /* insn_count struct block_dump_insn, then the bytes of the guest's code, of the translation,
     * and of the stubs, then `padding` */
};
struct block_dump_insn {
    uint32_t guest, host; /* where the instruction is, and what it became, in these bytes */
};
/** From now on blocks are kept when they are translated; jumps between them are not there yet.
 * Copies of the worker do not inherit it. */
struct err *worker_dump_blocks(struct worker *w, bool on) nodiscard;
/** Appends what was kept, and forgets it. As a worker wrote it: not to be trusted. */
struct err *worker_take_dump(struct worker *w, struct buf *out) nodiscard;

/* Snapshots: states to which the worker goes back without a copy of its process, some 0.2 us for
 * each page in question. The program may change only those pages in between that were named with
 * worker_snapshot_pages() (and were not changed since the first snapshot); what the functions above
 * change is taken care of, up to a limit. */
#define WORKER_SNAPSHOTS 16
/** Adds pages (addresses, rising) to those which the program may change. Makes them present.
 * ERR_LIMIT: too many. */
struct err *worker_snapshot_pages(struct worker *w, const gaddr *pages, size_t count) nodiscard;
/** Keeps memory and vector state as snapshot idx, 0 to WORKER_SNAPSHOTS - 1, in place of what it
 * was. ERR_LIMIT: there is no room, or too much was mapped and unmapped since the last
 * worker_snapshot_forget(). */
struct err *worker_snapshot_take(struct worker *w, unsigned idx) nodiscard;
/** To be called before mappings are put back by hand, which must be done before
 * worker_snapshot_restore(). */
struct err *worker_snapshot_restoring(struct worker *w) nodiscard;
/** Puts back the memory that is mapped now and was mapped then, and vector state. Not: mappings,
 * tasks, hooks, consumers. ERR_LIMIT as worker_snapshot_take(); memory is then in disorder. */
struct err *worker_snapshot_restore(struct worker *w, unsigned idx) nodiscard;
/** Is absent memory (worker_set_absent()) of which most may change to be copied, too, when it
 * comes, from now on? Going back then costs 0.5 us a page where the contents would have to be read
 * again. A copy of the worker begins without. */
struct err *worker_snapshot_fetched(struct worker *w, bool keep) nodiscard;
/** Forgets pages and snapshots. */
struct err *worker_snapshot_forget(struct worker *w) nodiscard;

/* What a worker waits for. */
struct worker_fetch;
/** Gives neighbouring pages of the range that was asked for. */
struct err *worker_fetch_put(struct worker_fetch *to, gaddr addr, const uint8_t *pages,
                             size_t count) nodiscard;

/* Contents of memory that a worker gets when they are first touched. Shared by workers, counted;
 * `uses` begins with 1. */
struct worker_contents {
    atomic_uint uses;
    /** Gives the contents of [start, end), at most 2 MiB, by worker_fetch_put(); pages that it does
     * not give are zeros. Called in the course of any function that talks to a worker. */
    struct err *(*read)(struct worker_contents *c, gaddr start, gaddr end,
                        struct worker_fetch *to)nodiscard;
    void (*destroy)(struct worker_contents *c);
    /** What read() will have to do, as far as that can be guessed, is done by and by, while a
     * worker is waited for. Some 100 us at a time. False: there is nothing to do. May be NULL. */
    bool (*work_ahead)(struct worker_contents *c);
};
/** Lets go of contents; NULL is fine. */
void worker_contents_release(struct worker_contents *c);
/** From now on the pages of the ranges (private memory that is mapped; of a file only pages that
 * `c` gives) hold what `c` says, and what is still to come of an earlier call comes from `c`, too.
 * Holds on to c, as do copies of the worker. */
struct err *worker_set_absent(struct worker *w, struct worker_contents *c,
                              const struct addr_range *ranges, size_t count) nodiscard;
/** Gets all that is still to come, and lets go of the contents. Snapshots from before can be of no
 * use any more. */
struct err *worker_fetch_all(struct worker *w) nodiscard;

struct err *worker_stats(struct worker *w, struct engine_stats *out) nodiscard;
/** Makes the worker try a system call that its filter forbids: it dies. For tests of the filter. */
struct err *worker_probe(struct worker *w, uint64_t number) nodiscard;
/** Bytes of memory that the process has to itself, about. */
uint64_t worker_memory(const struct worker *w);
/** Process id, for diagnosis. */
int worker_pid(const struct worker *w);

#endif
