/* Replay: runs a recorded program again, all of its processes, exactly, and stops at any moment.
 * The public header of this room.
 *
 * A struct replay is the state of everything recorded at one moment: tasks, address spaces (each in
 * a worker), shared memory objects, position in the trace. It only moves forward. Every event's
 * registers and ticks are compared with the recording; a mismatch is ERR_DIVERGED naming event,
 * task, what differed, both values. Such a replay is then dead.
 *
 * One thread per struct replay. The trace is borrowed and must outlive it. */
#ifndef REPLAY_REPLAY_H
#define REPLAY_REPLAY_H

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/types.h"
#include "trace/trace.h"
#include "worker/worker.h"

struct replay;
struct space;
struct task;

/* A shared memory object (a MAP_SHARED file or anonymous shared memory); uids count from 1 in order
 * of creation, in the same order in every replay. */
struct object;

/* One mapping of a space. */
enum mapping_kind { MAPPING_ANON, MAPPING_FILE, MAPPING_SHARED };
struct mapping {
    gaddr start, end;
    int prot, flags;
    enum mapping_kind kind;
    bool dontfork;         /* madvise(MADV_DONTFORK): not in the copy that fork makes */
    struct object *object; /* MAPPING_SHARED */
    uint64_t offset;       /* into the file or object, of `start` */
    uint32_t mmap_idx;     /* record in trace_mmaps() that it came from (for the file's name);
                              UINT32_MAX: none */
};

/** Opens a replay that stands before the first event (moment 0,0); the first run executes from the
 * first exec. */
struct err *replay_open(struct trace *t, struct replay **out) nodiscard;
/** Likewise; takes *spare, a worker made by replay_spare() or NULL, for the first program (and
 * leaves NULL). */
struct err *replay_open_with(struct trace *t, struct worker **spare, struct replay **out) nodiscard;
void replay_close(struct replay *r);
DEFINE_CLEANUP(struct replay *, replay_close)

struct moment replay_now(const struct replay *r);
/** True when the last event has been applied. */
bool replay_at_end(const struct replay *r);
/** Instructions retired by all tasks since the start, and since the state was opened, cloned or
 * restored. */
uint64_t replay_icount_total(const struct replay *r);
uint64_t replay_icount_here(const struct replay *r);

/**
 * Runs forward to exactly `until` or, if `max_icount` instructions (all tasks together, from now)
 * come first, to exactly there; or to the end of the trace. A moment behind the last instruction
 * before the next event gives the state right after that event's predecessor's last instruction:
 * replay_now() tells where it stopped. With log consumers that have max_rows the run can end early:
 * *stopped_out (may be NULL) is then true.
 */
struct err *replay_run(struct replay *r, struct moment until, uint64_t max_icount,
                       bool *stopped_out) nodiscard;
static const struct moment MOMENT_END = {UINT64_MAX, UINT64_MAX};

/** Appends the names of instruction sets that the recording's CPU had and this one lacks, with
 * commas between them; nothing: none. A recording whose programs use one of them cannot be replayed
 * here: the run ends with ERR_UNSUPPORTED at the first such instruction. Not AVX-512 where that is
 * emulated. */
void replay_lacking(const struct replay *r, struct buf *out);
/** The recording's CPU had AVX-512 and this one has not: what programs use of it is emulated, some
 * of it is not supported (docs/replay.md). */
bool replay_emulates_avx512(const struct replay *r);
/** As if this CPU lacked a feature, too (x86/isa.h:x86_isa_remove). Before the first run.
 * ERR_NOT_FOUND: there is no such feature. */
struct err *replay_hide_feature(struct replay *r, const char *feature) nodiscard;

/** Warns where the frame is the exec of a 32-bit program, which will not be replayed. For
 * observers' event(). */
void replay_warn_32bit(const struct frame *f);

/**
 * For people: how a replay whose run failed got to where it stands. Appends the last `count`
 * instructions before, each with the registers that it changed, and what is mapped under the
 * program counter. Costs another replay up to there.
 */
struct err *replay_explain(const struct replay *failed, uint64_t count, struct buf *out) nodiscard;
/** Appends "0x401136 (/usr/bin/x+0x1136, mapped 0x401000-0x402000 r-x)". */
void replay_describe_place(struct replay *r, uint32_t space, gaddr addr, struct buf *out);

/** A second replay in the same state, going its own way: workers are forked, shared memory copied.
 * Observer, hooks and consumers are not inherited. */
struct err *replay_clone(struct replay *r, struct replay **out) nodiscard;

/* --- Tasks and spaces --- */

/* Tasks are known by serial: 1, 2... in order of creation, the same in every replay of the trace.
 *
 * Those of 32-bit programs are not run: they execute no instruction, and their spaces have no
 * mappings. Their registers are those of their last event. Where they may have an effect on another
 * task's memory or registers that is not in the trace, the run ends with ERR_UNSUPPORTED. */
struct task_info {
    uint32_t serial;
    int32_t tid;    /* as recorded */
    uint32_t space; /* uid */
    unsigned slot;  /* in its space's worker */
    int32_t tgid;
    uint32_t parent; /* serial, 0: none */
    int64_t ticks;
    bool in_syscall; /* between the entry and the exit of a system call */
    bool is_32bit;   /* executes a 32-bit program: passed over, see below */
};
/** The tasks that exist now, by rising serial; borrowed until the next run. */
const struct task_info *replay_tasks(struct replay *r, size_t *count_out);
/** Serial of the task that executes at this moment (the one of the next frame), 0 at the end or
 * before the first exec. */
uint32_t replay_running(const struct replay *r);
/** Registers of a task now. ERR_NOT_FOUND if there is none. */
struct err *replay_regs(struct replay *r, uint32_t serial, struct regs *out) nodiscard;
struct err *replay_xstate(struct replay *r, uint32_t serial, struct xstate *out) nodiscard;

/* Spaces have uids: 1, 2... in order of creation (first exec, fork, exec), the same in every
 * replay. */
/** uids of the spaces that exist now. */
const uint32_t *replay_spaces(struct replay *r, size_t *count_out);
/** Mappings of a space, sorted by address; borrowed until the next run. NULL if there is no such
 * space. */
const struct mapping *replay_mappings(struct replay *r, uint32_t space, size_t *count_out);
/** Index of the first of sorted mappings that ends behind addr; count: none does. */
size_t mappings_behind(const struct mapping *maps, size_t count, gaddr addr);
/** The mapping of a space that holds addr, as above; NULL: none. */
const struct mapping *replay_mapping_at(struct replay *r, uint32_t space, gaddr addr);
uint32_t object_uid(const struct object *o);
uint64_t object_size(const struct object *o);
struct err *replay_read_object(struct replay *r, uint32_t object, uint64_t offset, void *out,
                               size_t len) nodiscard;
/** Reads what the private mapping of a file at addr, a page, holds when it is new: pages up to its
 * end or, at most, `count`. *done_out: how many, 0 if something else is there. */
struct err *replay_read_files(struct replay *r, uint32_t space, gaddr addr, size_t count,
                              uint8_t *out, size_t *done_out) nodiscard;
/** All objects alive. */
const uint32_t *replay_objects(struct replay *r, size_t *count_out);
/** Reads memory; ERR_FAULT at the first unmapped byte, *done_out bytes were read. PROT_NONE is
 * readable. */
struct err *replay_read(struct replay *r, uint32_t space, gaddr addr, void *out, size_t len,
                        size_t *done_out) nodiscard;
/** Bytes of memory that the workers have to themselves, about. */
uint64_t replay_memory(const struct replay *r);
/** The worker of a space, for hooks, consumers and their rows. NULL if none. */
struct worker *replay_worker(struct replay *r, uint32_t space);

/* --- Instrumentation --- */

/* Calls made while running. Each may be NULL. They must not run or close the replay. */
struct replay_observer {
    void *ctx;
    /** An event's effects have been applied; replay_now() is (event, 0). */
    struct err *(*event)(void *ctx, struct replay *r, const struct frame *f);
    /** May event(), or what is called before it for the same event, read memory or vector state
     * then? If not, the replay may be ahead with these, which saves time. NULL: at any event, if
     * any of event(), wrote() and remapped() is there, else at none. */
    bool (*looks)(void *ctx, const struct frame *f);
    /** Memory changed other than by the program's instructions: recorded kernel effects, the
     * syscall buffer, exec images, mapping contents. In `space` (0: by object only), and if the
     * memory is shared, object/offset too. Called before the event() of the event. `addr`,`len`
     * cover what changed; new zero or file-backed mappings are reported by mapped(), not here. */
    void (*wrote)(void *ctx, struct replay *r, uint32_t space, gaddr addr, uint64_t len,
                  uint32_t object, uint64_t offset);
    /** A range got a new mapping, was unmapped, moved here or made zero (madvise): its former
     * content is void. */
    void (*remapped)(void *ctx, struct replay *r, uint32_t space, gaddr start, gaddr end);
    /** Mappings of shared objects in the space are about to come or go: what was written so far
     * belongs to the old ones. */
    void (*sharing_changes)(void *ctx, struct replay *r, uint32_t space);
    /** A space came to be: by exec (parent 0), or as a copy of `parent`. Its worker exists. */
    struct err *(*space_created)(void *ctx, struct replay *r, uint32_t space, uint32_t parent);
    /** The space's executable mappings changed (also after creation): hooks by address may need a
     * change. */
    struct err *(*code_mapped)(void *ctx, struct replay *r, uint32_t space);
    /** The space is about to vanish: last chance to take rows from its worker. */
    struct err *(*space_ending)(void *ctx, struct replay *r, uint32_t space);
    /** A task came to be (parent: serial) or ended. */
    void (*task_created)(void *ctx, struct replay *r, uint32_t serial, uint32_t parent);
    void (*task_ended)(void *ctx, struct replay *r, uint32_t serial);
};
void replay_set_observer(struct replay *r, const struct replay_observer *observer);
/** Tells the observer (wrote) of what has been written already for the sake of the next event: for
 * one who comes in between. */
void replay_tell_prepared(struct replay *r);
/** The siginfo_t of the signal that the next event is; borrowed until the next run. NULL: it is
 * none. */
enum { SIGINFO_LEN = 128 };
const uint8_t *replay_next_siginfo(const struct replay *r);
/** Is it the exit of a write to stdout or stderr? The recorder lets all of these through as events.
 */
bool frame_is_output(const struct frame *f);
/** Within the event that is that frame: appends what the call put out, up to the first byte that
 * cannot be read. */
struct err *replay_output(struct replay *r, const struct frame *f, struct buf *out) nodiscard;

/** Selects translation mode for all runs from now on; with the log variants `consume` (copied,
 * applied to all workers, also future ones; what it points to is borrowed until the next call;
 * NULL: nothing is gathered). With ENGINE_CALLS and ENGINE_INDEX workers begin with empty stacks of
 * calls, and with the latter to gather for the index afresh; signal handlers are put on them, too.
 * Rows carry stamp = event, icount = instructions since that event: the moment before the
 * instruction. The running task of a stamp is that of event stamp + 1. */
struct err *replay_set_mode(struct replay *r, enum engine_mode mode,
                            const struct consume_request *consume) nodiscard;
/** With ENGINE_LOG, or ENGINE_LOG_LOADS if consume->loads, and watches: physical ranges instead of
 * consume->watch, kept right while mappings change. A range is either in a space's private memory
 * (object 0) or in a shared object (space 0; start, end are offsets). */
struct watch_range {
    uint32_t space, object;
    uint64_t start, end;
};
struct err *replay_set_watch(struct replay *r, const struct watch_range *ranges, size_t count,
                             const struct consume_request *consume) nodiscard;

/* Gets a translated block as text, for people: a line about it, then its instructions beside those
 * of the host that they became. */
typedef void block_teller(void *ctx, const char *text);
/** From now on `tell` gets every block soon after its translation. Not for a replay whose speed
 * matters. NULL: no more. */
struct err *replay_tell_blocks(struct replay *r, block_teller *tell, void *ctx) nodiscard;

/* --- Snapshots --- */

/* States that a replay can go back to at little cost: some 0.3 us for each page that the program
 * may have changed. They are good as long as the program changes no other pages than were named.
 * The worker of a space that ends lives on while a snapshot has the space. */
/** Names pages that the program may change from now on, besides those named before: of a space
 * (object 0; addresses) or of a shared object (space 0; offsets), rising. */
struct err *replay_snapshot_pages(struct replay *r, uint32_t space, uint32_t object,
                                  const uint64_t *pages, size_t count) nodiscard;
/** Keeps the present state as snapshot idx, 0 to WORKER_SNAPSHOTS - 1, in place of what it was; in
 * log mode with stacks of calls. Observer, mode, hooks and consumers are no part of it. ERR_LIMIT:
 * it cannot be kept (nothing else is wrong). */
struct err *replay_snapshot(struct replay *r, unsigned idx) nodiscard;
/** To be called by who will go back again and again: what memory held that comes when it is touched
 * is kept from now on, where otherwise large arrays would be read again. Of the spaces that there
 * are now. */
struct err *replay_snapshot_fetched(struct replay *r) nodiscard;
/** Goes back to a snapshot. *done_out false: not possible any more; the replay may then be
 * unusable. */
struct err *replay_go_back(struct replay *r, unsigned idx, bool *done_out) nodiscard;

/* --- Saving and restoring --- */

/** Appends everything but memory contents: a blob for replay_restore(). */
struct err *replay_save(struct replay *r, struct buf *out) nodiscard;

/* Takes memory contents of a saved state: calls of page_source.pages. */
struct page_taker {
    void *ctx;
    /** Neighbouring pages. */
    struct err *(*put)(void *ctx, uint64_t addr, const uint8_t *pages, size_t count);
    /** Fills a page with what a fresh mapping has there: the file's contents or zeros. Before put()
     * of the page. */
    struct err *(*fresh)(void *ctx, uint64_t addr, uint8_t *page);
    /** Makes pages be as in a fresh mapping. Before fresh() and put() of them. */
    struct err *(*reset)(void *ctx, gaddr start, gaddr end);
    /** Will the pages from start on be read from page_source.contents? May lower *end, which the
     * answer is for. whole: fresh() is not needed for them. NULL: no. */
    bool (*later)(void *ctx, gaddr start, gaddr *end, bool whole);
};
/* Gives the memory contents of a saved state: those pages which differ from a fresh mapping of
 * their file or zeros. Pages of one space (object 0) or one object (space 0), in rising order. */
struct page_source {
    void *ctx;
    struct err *(*pages)(void *ctx, uint32_t space, uint32_t object,
                         const struct page_taker *taker);
    /** The same of those pages of a space only which may differ from the state `near`, or are in
     * `also` (rising, disjoint); what is not given is the same in both states. First reset() of
     * what is as in a fresh mapping, or is to be made from that. */
    struct err *(*changes)(void *ctx, uint32_t space, const struct addr_range *also, size_t count,
                           const struct page_taker *taker);
    /** The contents of a space, to be read page by page while the state is in use; the caller's to
     * release. */
    struct worker_contents *(*contents)(void *ctx, uint32_t space);
};
/** What may make it cheap to rebuild a state. */
struct restore_help {
    struct replay *near;   /* may be NULL */
    struct worker **spare; /* a worker made by replay_spare(), which is taken (then NULL is left),
                              or NULL; may be NULL */
};
/** Reads all contents that are still to come; the source of a restored state may then go. */
struct err *replay_settle(struct replay *r) nodiscard;
/** Starts a worker for any state of the trace. It is the caller's to destroy. */
struct err *replay_spare(struct trace *t, struct worker **out) nodiscard;
/** Rebuilds a state. The blob is untrusted. help->near: NULL, or a replay of the same trace in a
 * state for which the source knows the changes: it stays as it is, and what both states have in
 * common costs little. */
struct err *replay_restore(struct trace *t, struct bytes *blob, const struct page_source *pages,
                           const struct restore_help *help, struct replay **out) nodiscard;

#endif
