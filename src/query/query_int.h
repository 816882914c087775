/* Private parts of the query room. */
#ifndef QUERY_QUERY_INT_H
#define QUERY_QUERY_INT_H

#include "db/history.h"
#include "query/query.h"
#include "replay/replay.h"
#include "sources/sources.h"
#include "sym/sym.h"

#include "worker/worker.h"
#include "x86/x86.h"

#include <pthread.h>

/* A recorded task, over its whole life. */
struct known_task {
    uint32_t serial, parent; /* parent 0: none */
    int32_t tid;
    struct moment start, end;
    bool ended, is_thread;
    /* Executes a 32-bit program: at the end of its life, at any time of it. */
    bool is_32bit, was_32bit;
    uint32_t clone_flags;
    int32_t exit_status;
};

/* A file that was mapped with code in it. */
struct module {
    char *name;                      /* as in the recorded program's maps */
    char *path;                      /* of the file here; NULL: not in the trace */
    const struct trace_mmap *record; /* of its first mapping with code; borrowed from the trace */
    const char *backing;             /* as the trace names it; borrowed from there */
    char *comp_dir;         /* in place of what its compiler left (sources_comp_dir()); or NULL */
    struct sym_module *sym; /* NULL: not opened yet, or not possible */
    struct err *why;        /* why it is not */
    /* Run-time address = bias + link-time address; all at which it was ever mapped. */
    VEC(uint64_t) biases;
    bool know_tls;
    uint64_t tls_offset; /* module_tls_offset(), if know_tls */
};

/* Where a code address belongs. */
struct code_place {
    struct module *module; /* NULL: no file */
    uint64_t bias, link_addr;
};

struct seat;   /* states.c */
struct recall; /* recall.c */

#define DEFAULT_MEMORY (1ull << 30)

struct register_index; /* register_writes.c */
struct descriptors;    /* descriptors.c */
struct heap_calls;     /* heap_calls.c */

struct query_engine {
    struct trace *trace;
    struct history *history; /* NULL: it could not be opened again after it had grown */
    uint64_t look_again_ms;  /* whether it has, on the monotonic clock */
    struct query_options options;
    VEC(char *) source_maps;
    struct sources *sources;
    char *title;
    VEC(struct known_task) tasks; /* by serial - 1 */
    /* By event number: the task it belongs to, that ran towards it; 0: none. */
    VEC(uint32_t) runner;
    VEC(uint64_t) event_icount; /* by event number: instructions between the event before and it */
    VEC(struct module *) modules;
    VEC(struct presence *) presences;
    size_t worked_ahead; /* of them have been, by query_work_ahead() */
    struct seat *seats;  /* with clock guarded by seats_lock */
    pthread_mutex_t seats_lock;
    pthread_mutex_t history_lock; /* guards history while other threads may use it, and spare */
    struct worker *spare; /* for the first state: started while the engine opens; may be NULL */
    uint64_t clock;
    struct seat *borrowed; /* by state_at() */
    struct recall *recall;
    struct kept_rows *kept_rows;
    struct register_index *register_index;   /* NULL until needed */
    struct written_filters *written_filters; /* likewise */
    struct descriptors *descriptors;         /* likewise */
    struct heap_calls *heap_calls;           /* likewise */
    event_no last_event;
    struct query_sink *sink; /* of the query at work */
};

/* A question's place in time and on a stack. */
struct focus {
    struct moment moment;
    uint32_t task;  /* serial; 0: none runs */
    unsigned frame; /* of the stack with inline frames; 0: innermost */
};

/* One frame of a task's stack, without inline frames. */
struct frame_info {
    gaddr pc; /* innermost: the instruction; else the return address */
    gaddr
        sp; /* rsp while this frame is the innermost one: for callers, after the callee's return */
    bool innermost;
    bool interrupted;   /* by a signal, not by a call: pc is the instruction to go on with */
    bool by_signal;     /* the frame is a handler's: it was entered by a signal, not a call */
    struct moment call; /* of the call that made the frame; event 0: not known */
    gaddr entry_sp;     /* where its return address is; 0: not known */
    struct moment callee_call; /* not innermost: when it made the call to the next inner frame */
};

/* Is the frame's pc a return address, so that the call before it is what is meant? */
static inline bool frame_returns(const struct frame_info *f)
{
    return !f->innermost && !f->interrupted;
}

/* states.c */
void seats_open(struct query_engine *q);
void seats_close(struct query_engine *q);
/** A replay that stands exactly at `m`, with stacks of calls; borrowed until the next call. */
struct err *state_at(struct query_engine *q, struct moment m, struct replay **out) nodiscard;
/** The same, but maybe without stacks of calls: for who follows something from moment to moment,
 * and needs no stacks. Memory that comes is kept, so that to go back costs little. */
struct err *plain_state_at(struct query_engine *q, struct moment m, struct replay **out) nodiscard;
/** Has a replay stand at `m`, or where it is of use for that, for whoever asks next. Any thread,
 * while the query is at work. */
struct err *visit_state(struct query_engine *q, struct moment m) nodiscard;
/** Is there a replay in the segment? */
bool has_state_in(struct query_engine *q, size_t segment);
/** Ends the loan of the last state_at() or plain_state_at(). */
void release_state(struct query_engine *q);

/* states_ahead.c: states that a query is about to ask for, made ready by threads while it asks for
 * another one. */
enum { MOST_STATES_AHEAD = 8 };
struct states_ahead {
    struct query_engine *q;
    size_t here; /* segment of which there is a replay, or which is asked for now */
    size_t count, begun;
    struct state_ahead {
        struct query_engine *q;
        struct moment at;
        size_t segment;
        bool started;
        pthread_t thread;
    } items[MOST_STATES_AHEAD];
};
void states_ahead_init(struct states_ahead *a, struct query_engine *q, struct moment here);
/** Adds a state, in the order in which they will be asked for. Of each segment the first counts,
 * and more than there is room for do not. */
void states_ahead_add(struct states_ahead *a, struct moment m);
/** Starts threads for what was added. but_first: not for the first state, which is to be asked for
 * now, unless others have been begun. */
void states_ahead_begin(struct states_ahead *a, bool but_first);
/** Waits until nobody is about the segment of `m`: before state_at(). */
void states_ahead_await(struct states_ahead *a, struct moment m);
/** Waits for all. */
void states_ahead_deinit(struct states_ahead *a);

/* A replay on loan, to run with instrumentation up to its segment's end. */
struct lease {
    struct replay *replay;
    struct seat *seat;
};
/** A replay of the segment which stands at `from`, or at the segment's start if that is later, in
 * count mode. Any thread. */
struct err *lend_replay(struct query_engine *q, size_t segment, struct moment from,
                        struct lease *out) nodiscard;
/** The same in index mode, with stacks of calls. */
struct err *lend_with_stacks(struct query_engine *q, size_t segment, struct moment from,
                             struct lease *out) nodiscard;
/** lend_replay() to the engine's own thread, which needs the replay of the last state_at() no more:
 * that may be the one that is lent, so that no second one has to be made for the segment. The
 * thread will come back there: memory that comes is kept. */
struct err *lend_instead(struct query_engine *q, size_t segment, struct moment from,
                         struct lease *out) nodiscard;
/** From where a replay of the segment can be lent at no cost, at last, before m: the segment's
 * start if nowhere else. */
struct moment lendable_before(struct query_engine *q, size_t segment, struct moment m);
/** usable false: something failed in the meantime. */
void return_replay(struct query_engine *q, struct lease *lease, bool usable);

/* recall.c: what was learned of moments, kept in bounded tables */
void recall_open(struct query_engine *q);
void recall_close(struct query_engine *q);
/** As replay_read() for a space of a replay, of which pages that were read at the same moment
 * before are remembered. */
struct err *recall_memory(struct query_engine *q, struct replay *r, uint32_t space, gaddr addr,
                          void *out, size_t len) nodiscard;
/** The arguments of a call of which `entry` is the first moment; borrowed; NULL: not remembered. */
json_t *recall_arguments(struct query_engine *q, struct moment entry, const struct sym_function *f);
/** json_arguments(), remembered if nothing failed that might not fail next time. */
json_t *arguments_at(struct query_engine *q, struct moment entry, struct module *m,
                     const struct sym_function *f, struct sym_context *c);
/** Passes e on, and notes if it tells nothing about the moment itself: the worker died, the query
 * was cancelled. */
struct err *recall_failed(struct query_engine *q, struct err *e) nodiscard;
void recall_begin(struct query_engine *q);
/** Was something noted since recall_begin()? */
bool recall_has_failed(const struct query_engine *q);

/* engine.c */
/** To be called before anything is asked of the engine, and engine_end() behind it. sink: borrowed
 * until then. */
struct err *engine_begin(struct query_engine *q, struct query_sink *sink) nodiscard;
void engine_end(struct query_engine *q);
struct err *check_cancel(struct query_engine *q) nodiscard;
uint32_t task_running_at(const struct query_engine *q, struct moment m);
const struct known_task *known_task(const struct query_engine *q, uint32_t serial);
/** The last moment at or before `m` at which `task` was about to run or had just run; what "its
 * state at m" means. */
struct err *space_of_task(struct replay *r, uint32_t task, uint32_t *out) nodiscard;
struct moment end_of_recording(const struct query_engine *q);
/** The end of the run towards an event: the last moment at which nothing of it has happened. */
static inline struct moment moment_before_event(const struct query_engine *q, event_no number)
{
    return (struct moment){number - 1, q->event_icount.items[number]};
}
/** Number of instructions before `m`, over the whole recording (for scales). */

/* modules.c */
void modules_open(struct query_engine *q);
void modules_close(struct query_engine *q);
/** Is it the module's file that is mapped? Another file of its name, which came to its place, is
 * another module. */
bool module_is_mapped_by(const struct module *m, const struct trace_mmap *r);
/** What code is at `pc` of a mapping: made by trace_mmaps() record `mmap_idx`, at map_start, of its
 * file from map_offset. */
struct code_place place_in(struct query_engine *q, uint32_t mmap_idx, gaddr map_start,
                           uint64_t map_offset, gaddr pc);
/** What code is at `pc` of the space, now. */
struct code_place place_of(struct query_engine *q, struct replay *r, uint32_t space, gaddr pc);
/** Likewise of any space, by what was mapped there last, whether or not it still was: a guess. */
struct code_place place_by_records(struct query_engine *q, struct moment m, gaddr pc);
/** Opens the module's symbols. ERR_NOT_FOUND with the reason. */
struct err *module_sym(struct query_engine *q, struct module *m, struct sym_module **out) nodiscard;
/** All of sym_prepare(), with progress. ERR_CANCELLED. */
struct err *prepare_symbols(struct query_engine *q, struct sym_module *sym,
                            enum sym_purpose purpose) nodiscard;
/** Name of the file that an exec started, as in the maps right after it; NULL: not known. Borrowed.
 */
const char *exe_of(const struct query_engine *q, const struct trace_task_event *exec);
/** sym_module_tls_offset() of a module that was executed as a program; 0: it was not, or has no
 * thread-local variables. */
uint64_t module_tls_offset(struct query_engine *q, struct module *m);
/* thread_locals.c */
struct frame_context;
/** The task's thread pointer less this is where its thread-local variables of a module begin. 0:
 * the module has none, or they cannot be found; of libraries by what glibc's dynamic linker knows
 * at that moment. */
uint64_t thread_locals_of(struct frame_context *c, struct module *m, uint64_t bias);

size_t module_index(const struct query_engine *q, const struct module *m);

/* basic.c */
/** The state a focus means: at its moment, or, if another task runs then, still of its own task,
 * which stands still. */
struct err *focus_state(struct query_engine *q, json_t *params, struct focus *f, struct replay **r,
                        uint32_t *space) nodiscard;

/* stack.c */
typedef VEC(struct frame_info) frame_list;
/** The frames of a task at m, innermost first. */
struct err *stack_at(struct query_engine *q, struct moment m, uint32_t task,
                     frame_list *out) nodiscard;
/** The last segment at the start of which a call had not ended that had not at `from`: the segment
 * of `from`, or a later one. Its return address is at `sp`. *known_out false: that cannot be told,
 * so deep are the calls. Any thread. */
struct err *last_live_segment(struct query_engine *q, uint32_t task, gaddr sp, struct moment from,
                              size_t *out, bool *known_out) nodiscard;
/** Did the task execute an instruction between two moments? */
bool task_ran(const struct query_engine *q, uint32_t task, struct moment from, struct moment until);
/** The run of writable mappings around an address: one stack. */
struct addr_range stack_region(struct replay *r, uint32_t space, gaddr addr);

/* presence.c: when a module's code was where it was */
struct event_span {
    event_no from,
        until; /* events have taken effect: moments from (from, 0) on, before (until, 0) */
};
struct presence {
    VEC(struct event_span) spans; /* by time, apart from each other */
};
/** When the module's code, at a bias, was at `pc` of a space. *out NULL: at no time anything else
 * was there. Kept by the engine. */
struct err *code_presence(struct query_engine *q, const struct module *m, uint64_t bias, gaddr pc,
                          uint32_t space, const struct presence **out) nodiscard;
/** p may be NULL. */
bool is_present(const struct presence *p, event_no event);
enum presence_share { PRESENT_NEVER, PRESENT_PARTLY, PRESENT_ALWAYS };
/** Between two moments, the second one not included. */
enum presence_share presence_between(const struct presence *p, struct moment from,
                                     struct moment until);
/** The first event behind another at which it comes or goes; UINT64_MAX: none. */
event_no presence_changes_behind(const struct presence *p, event_no event);
void presences_deinit(struct query_engine *q);

/* hits.c: executions */
struct hit_place {
    uint32_t space;
    gaddr pc;
    struct module *module; /* of the code there, NULL: not known; and its bias */
    uint64_t bias;
    const struct hook_programs *programs; /* what to run at each hit; NULL: nothing. Borrowed */
    bool entry;                           /* a function is entered here: for follow_hits() */
    const struct presence *presence; /* when this code is there: other executions of the address are
                                        none of the place. NULL: always */
};
struct hit {
    struct moment moment; /* before the instruction */
    uint32_t task, space;
    struct regs regs;
    const uint8_t *memory; /* the pieces asked for, each padded to 8 bytes, then the prints
                              (worker.h:hook_row); borrowed for the call */
    size_t memory_len;
    uint64_t unreadable;
    uint64_t condition, condition_result; /* PROGRAM_OK, or why the condition cannot be told */
    struct moment entered, returned;      /* hit_wants.calls: as in hook_row; {0, 0}: not known */
};
/* What to take along with each hit. All zeros: registers only. */
struct hit_wants {
    const struct hook_memory *memory;
    size_t memory_count;
    const uint32_t *print_lens;
    size_t print_count;
    bool calls; /* hit.entered and hit.returned, too */
};
struct window {
    bool forward;
    struct moment from;
    size_t limit;
    struct moment since; /* backward: segments that end before are not run */
};
static inline bool window_holds(const struct window *w, struct moment m)
{
    return w->forward ? moment_cmp(m, w->from) >= 0 : moment_cmp(m, w->from) < 0;
}
/** Calls `each` for executions of any of the places, in order of time away from `from`; each
 * returns false to stop. Where places have conditions: for those executions of which they hold, or
 * cannot be told; segments are then run on all cores at a time. wants: may be NULL. */
struct err *find_hits(struct query_engine *q, const struct hit_place *places, size_t count,
                      const struct window *w, const struct hit_wants *wants,
                      bool (*each)(void *ctx, const struct hit *h), void *ctx,
                      bool *more_out) nodiscard;
/** What it costs to run through a segment, and to restore what it changes, as a number of
 * instructions. */
uint64_t segment_cost(const struct query_engine *q, size_t segment);
/* Places that change while their executions are looked for. */
struct hit_source {
    void *ctx;
    /**
     * What to look for from the start of *segment on (which may be raised to a segment before which
     * there is nothing), or, if it is SIZE_MAX, from the last hit on: entries first, none if
     * nothing is wanted any more. Borrowed until the next call.
     *
     * batch_out: hits after which it is asked again, at the latest.
     */
    struct err *(*places)(void *ctx, size_t *segment, const struct hit_place **out,
                          size_t *count_out, size_t *batch_out);
};
/** Calls `each` for executions of a source's places from a moment on, in order of time, until it
 * returns false. The source is asked again behind an entry of which the return address is not among
 * the places, before the program goes on: it can add it. Any thread; the engine's own has released
 * its state before. */
struct err *follow_hits(struct query_engine *q, const struct hit_source *source, struct moment from,
                        const struct hit_wants *wants, bool (*each)(void *ctx, const struct hit *h),
                        void *ctx) nodiscard;
/** Executions of the places of which the condition holds, or fails: for each segment added to
 * `held` and `failed`, by running all of them. */
struct err *count_held(struct query_engine *q, const struct hit_place *places, size_t count,
                       uint64_t *held, uint64_t *failed) nodiscard;
/** Adds (space, pc) of each space in which pc ran, whatever code was there, but those that `out`
 * has. m, bias: what code it is; NULL and 0 if no expression asks. */
void places_at(const struct query_engine *q, gaddr pc, struct module *m, uint64_t bias,
               struct buf *out);
/** The places of code of a module, by link-time addresses, where it ran. */
struct err *places_of(struct query_engine *q, struct module *m, const uint64_t *link_addrs,
                      size_t count, struct buf *out) nodiscard;
/** The places of a line's code, in any module, where it ran. *line, of which there may be no code,
 * becomes the next line that has some. places: empty. *file_out, NULL before: how the debug
 * information names the file; heap string. */
struct err *places_of_line(struct query_engine *q, const char *file, uint64_t *line,
                           struct buf *places, char **file_out) nodiscard;
/** Executions of the places, by the index alone: total, and per segment added to `buckets` (one per
 * segment; may be NULL). In segments in which other code came to a place, or went from there, those
 * of either count. */
uint64_t count_hits(const struct query_engine *q, const struct hit_place *places, size_t count,
                    uint64_t *buckets);
/** The same exactly: runs those segments. */
struct err *count_executions(struct query_engine *q, const struct hit_place *places, size_t count,
                             uint64_t *buckets, uint64_t *total_out) nodiscard;
/** Is it the place's: its space and address, and its code was there? */
bool is_hit_of(const struct hit_place *p, const struct hit *h);

/* kept_rows.c: executions that were told before */
void kept_rows_open(struct query_engine *q);
void kept_rows_close(struct query_engine *q);
/** Gives the rows of a window, each with its "focus", and sets the sink's `more`. */
typedef struct err *window_query(struct query_engine *q, const struct window *w, void *ctx);
/** Runs a query of which the rows depend on nothing but the parameters without the window; for what
 * has been told before it is not run again. */
struct err *run_with_kept_rows(struct query_engine *q, const char *name, json_t *params,
                               const struct window *w, window_query *run, void *ctx) nodiscard;

/* steps.c */
/** The first time from `from` on that the task reaches the return address of a call with the stack
 * above `sp`, where that address was. *out is touched only if there is one. */
struct err *find_return(struct query_engine *q, struct moment from, uint32_t task,
                        gaddr return_addr, gaddr sp, struct moment *out, bool *found_out) nodiscard;

/* writes.c */
struct write_hit {
    struct moment moment; /* before the write (or read) */
    uint32_t task;
    gaddr addr; /* as in the space that was asked about; what was written of the range, or more */
    uint64_t size;
    event_no event; /* 0: an instruction; else the event whose effects wrote */
    bool possible;  /* masked or the like: may have left these bytes alone */
    bool read;
};
/* The first moment at which the written bytes are there. */
static inline struct moment moment_behind_write(const struct write_hit *h)
{
    return h->event ? (struct moment){h->event, 0}
                    : (struct moment){h->moment.event, h->moment.icount + 1};
}
enum { WATCH_STORES = 1, WATCH_LOADS = 2 };
/** Accesses to memory as it is at the focus: `what` is WATCH_STORES, WATCH_LOADS (by instructions:
 * what the kernel reads is not recorded) or both. Reads are in no index: with WATCH_LOADS every
 * segment of the window is run. */
struct err *find_accesses(struct query_engine *q, unsigned what, const struct focus *f, gaddr addr,
                          uint64_t len, const struct window *w,
                          bool (*each)(void *ctx, const struct write_hit *h), void *ctx,
                          bool *more_out) nodiscard;

/** The last write before a moment to any of the bytes: private memory of a space (object 0), also
 * while it was the parent's of which fork made a copy; or of a shared object, start and end being
 * offsets. out->addr is in these terms. A new mapping counts as a write. */
struct err *last_write(struct query_engine *q, uint32_t space, uint32_t object, uint64_t start,
                       uint64_t end, struct moment before, struct write_hit *out,
                       bool *found_out) nodiscard;
/** All writes to private memory of a space from `since` on, backward from the window's moment, as
 * find_accesses(); what was the parent's before a fork is not looked at. */
struct err *find_private_writes(struct query_engine *q, uint32_t space,
                                const struct addr_range *ranges, size_t count, struct moment since,
                                const struct window *w,
                                bool (*each)(void *ctx, const struct write_hit *h), void *ctx,
                                bool *more_out) nodiscard;

/* written.c */
void written_filters_free(struct written_filters *f);
/** Was any byte of [start, end) of a space (object 0) or object (space 0) written in the segment?
 * As history_written(), but most segments where it was not are told at once when they have been
 * looked at before. */
struct err *may_be_written(struct query_engine *q, size_t segment, uint32_t space, uint32_t object,
                           uint64_t start, uint64_t end, bool *out) nodiscard;

/* register_writes.c */
void register_index_free(struct register_index *x);
/** The last time before a moment that the task may have written one of the registers (bits by
 * x86_unit()), in a space that it is in until then: the moment of an instruction, or the end of a
 * run whose event did it. *found_out false: it did not since its start. */
struct err *last_register_write(struct query_engine *q, uint32_t task, uint32_t space,
                                uint64_t registers, struct moment before, struct moment *out,
                                bool *found_out) nodiscard;
/** The first time in [from, until), which lie in one segment, that the task may write or read one
 * of the registers by an instruction. */
struct err *next_register_use(struct query_engine *q, uint32_t task, uint32_t space,
                              uint64_t registers, struct moment from, struct moment until,
                              struct moment *out, bool *found_out) nodiscard;
/** The registers of its task that an event may change, as bits by x86_unit(). */
uint64_t event_registers(const struct db_event *e);
/** The last event of the task between two moments that may have changed the registers; 0: none. */
struct err *last_register_event(struct query_engine *q, uint32_t task, uint64_t registers,
                                struct moment after, struct moment before, event_no *out) nodiscard;
/** Registers that are written by what the replayer carries out itself, which is in no block of a
 * log: cpuid, xgetbv, some system calls of the recorder's. */
uint64_t unlogged_registers(void);
typedef VEC(struct register_user {
    gaddr pc;
    struct x86_insn insn;
}) register_users;
/** Instructions of a space that may write a general register (a byte of the register file) or push
 * it, by rising pc: of all code that ran in the segment from *since until `at`, a moment of it, or
 * its end, when the space was there. *since is raised to where code is the same from then on.
 * *known_out false: some of the code cannot be told, or there are more than `most`. */
struct err *register_users_of(struct query_engine *q, uint32_t space, unsigned reg, size_t segment,
                              struct moment at, size_t most, struct moment *since,
                              register_users *out, bool *known_out) nodiscard;

/* descriptors.c */
void descriptors_free(struct descriptors *d);

/* heap_calls.c */
void heap_calls_free(struct heap_calls *h);
/* heap.c */
/** What the innermost call on the task's stack that frees memory was given; 0: there is none.
 * ERR_NOT_FOUND: no function that does is known. */
struct err *heap_freed_at(struct query_engine *q, struct moment m, uint32_t task,
                          gaddr *out) nodiscard;

/* own_frame.c */
/** Adds "focus", "task", "module", "function", "location" to a row: of the innermost caller at m,
 * at the entry of a library's function, that is the program's own. */
struct err *add_own_frame(struct query_engine *q, struct moment m, uint32_t task,
                          json_t *row) nodiscard;

/* json.c: values of the protocol */
json_t *json_task(const struct query_engine *q, uint32_t serial);
json_t *json_focus(const struct query_engine *q, struct moment m, uint32_t task, unsigned frame);
json_t *json_bytes(const uint8_t *p, size_t len);
/** A string that may hold anything: bytes that are no UTF-8 come as U+FFFD. */
json_t *json_text(const char *s, size_t len);
json_t *json_location(const char *file, int line, int column);
/** {start, end, prot, name} of a mapping. */
json_t *json_mapping(const struct query_engine *q, const struct mapping *m);
json_t *json_function(const struct query_engine *q, const struct module *m,
                      const struct sym_function *f);
struct err *param_focus(struct query_engine *q, json_t *params, struct focus *out) nodiscard;
struct err *param_moment(json_t *params, const char *name, struct moment *out) nodiscard;
struct err *param_window(struct query_engine *q, json_t *params, size_t limit,
                         struct window *out) nodiscard;
struct err *param_string(json_t *params, const char *name, const char **out) nodiscard;
struct err *param_u64(json_t *params, const char *name,
                      uint64_t *out) nodiscard; /* number, or string of hex with 0x */
/** "limit", 1 to `most`; *out stays what it is if it is not given. */
struct err *param_limit(json_t *params, uint64_t most, uint64_t *out) nodiscard;
struct err *param_function(struct query_engine *q, json_t *params, struct module **module,
                           const struct sym_function **out) nodiscard;
/** Hands a row to the asker. ERR_CANCELLED if it wants no more. Takes ownership. */
struct err *give(struct query_engine *q, json_t *row) nodiscard;
typedef struct err *query_function(struct query_engine *q, json_t *params);
/** As query_stack(), without what other states than the focus' own tell: the calls that made the
 * frames, and their arguments. For other queries. */
query_function query_frames;
/** Runs a query for another one: its rows are added to the array `rows`. more_out: whether it has
 * more; may be NULL. */
struct err *collect_rows(struct query_engine *q, query_function *run, json_t *params, json_t *rows,
                         bool *more_out) nodiscard;

/* describe.c: what is at a moment, in source terms */

/* A task's frame at a moment, for reading variables. */
struct frame_context {
    struct sym_context base;
    struct query_engine *q;
    struct replay *replay;
    uint32_t space;
    struct regs regs;
    uint32_t task;
    bool no_xstate;   /* vector registers are not known */
    bool have_xstate; /* they have been read */
    struct xstate xstate;
};
/** Fills `out` for the task's innermost frame in the replay's present state. */
struct err *frame_context(struct query_engine *q, struct replay *r, uint32_t task,
                          struct frame_context *out) nodiscard;
/* The registers with the first integer arguments of a call at its entry; System V psABI 3.2.3. */
enum { CALL_ARGUMENT_REGISTERS = 6 };
extern const uint8_t call_argument_registers[CALL_ARGUMENT_REGISTERS];
/** A general register by DWARF number. */
struct err *general_register(const struct regs *regs, unsigned number, void *buf,
                             size_t len) nodiscard;
/** Adds "function", "location", "pc", "module" of a code address to row. `back`: a return address:
 * the call before it is meant. */
void describe_code(struct query_engine *q, struct replay *r, uint32_t space, gaddr pc, bool back,
                   json_t *row);
/** Adds "module", "function", "location" to row. */
void describe_place(struct query_engine *q, const struct code_place *p, json_t *row);
/** {text, type, address, size} or {why, type}. Takes over e. */
json_t *json_value(struct sym_module *m, const struct sym_type *type, struct sym_value *v,
                   struct sym_context *c, struct err *e);
/** Arguments as [{name, value}] when the context stands at the function's first instruction; or at
 * an inlined call's, `call`, else NULL. */
json_t *json_arguments(struct module *m, const struct sym_function *f,
                       const struct sym_inlined *call, struct sym_context *c);
const char *event_name(const struct query_engine *q, const struct db_event *e, char *out,
                       size_t len);
struct err *event_at(struct query_engine *q, event_no number, const struct db_event **out,
                     const struct segment **segment) nodiscard;
const char *signal_name(int signo, char *out, size_t len);
/** "read(0x3, ...) = 0x5"; result NULL: not known. Heap string. */
char *system_call_text(const struct query_engine *q, int32_t number, const uint64_t args[6],
                       const uint64_t *result) nodiscard;
/** The focus that a session begins with, and whether it is a fatal signal. */
struct err *first_focus(struct query_engine *q, struct focus *out, bool *signal) nodiscard;
/** The start of the next (or the last moment before the previous) instruction of the task.
 * ERR_NOT_FOUND at its ends. */
struct err *next_instruction(struct query_engine *q, struct moment m, uint32_t task, bool forward,
                             struct moment *out) nodiscard;

/* events.c */
typedef struct err *event_visitor(struct query_engine *q, const struct segment *s,
                                  const struct db_event *e, void *ctx, bool *is_row);
/** Calls `each` for events of the window, which sets *is_row for those that count towards its
 * limit. *more_out is set if there are more. */
struct err *walk_events(struct query_engine *q, const struct window *w, event_visitor *each,
                        void *ctx, bool *more_out) nodiscard;
/** A row of `signals` for the event of a signal. */
json_t *signal_row(const struct query_engine *q, const struct db_event *e);

/* The queries. Each is named as in docs/protocol.md. */
query_function query_info, query_complete_frame, query_stack, query_variables, query_registers,
    query_siginfo, query_memory, query_search, query_execution, query_breakpoint,
    query_address_execution, query_watchpoint, query_step, query_stdouterr, query_signals,
    query_alerts, query_task_tree, query_current_tasks, query_annotations, query_source, query_maps,
    query_events, query_functions_in_file, query_counts, query_evaluate, query_instructions,
    query_dataflow, query_uses, query_call, query_callees, query_timeline, query_join,
    query_allocation, query_allocations;

#endif
