/* Private parts of the replay room. */
#ifndef REPLAY_REPLAY_INT_H
#define REPLAY_REPLAY_INT_H

#include "replay/replay.h"
#include "x86/isa.h"

/* Fixed addresses of rr's own pages in every recorded program (rr AddressSpace.h,
 * preload_interface.h). */
#define RR_PAGE             0x70000000u
#define RR_THREAD_LOCALS    0x70001000u
#define RR_LIBRRPAGE        0x6fffd000u
#define USER_MEMORY_END     0x800000000000u /* 47 bits */
#define RR_STUB_TRACED      (RR_PAGE + 0x00)
#define RR_STUB_UNTRACED    (RR_PAGE + 0x06) /* performed in recording and replay */
#define RR_STUB_REPLAY_ONLY (RR_PAGE + 0x09)
#define RR_STUB_RECORD_ONLY (RR_PAGE + 0x0c) /* `xor eax, eax` in replay */
#define RR_STUB_P_UNTRACED  (RR_PAGE + 0x0f) /* the privileged twins */
#define RR_STUB_P_REPLAY    (RR_PAGE + 0x12)
#define RR_STUB_P_RECORD    (RR_PAGE + 0x15)
#define RR_STUB_ASSIST_END  (RR_PAGE + 0x1a) /* rip after the int3 of the replay assist */

struct object {
    uint32_t uid;
    uint64_t device, inode;
    int fd; /* memfd */
    uint64_t size;
    uint32_t mapping_count; /* over all spaces; the object ends when it falls to 0 */
    uint32_t keeper_count;  /* mappings in snapshots: an object that has ended may come back */
};

/* Descriptors which mean the memory of some task (fds.c). */
struct fd_entry {
    int32_t fd;
    uint32_t space; /* uid */
};
struct fd_table {
    uint32_t users; /* tasks */
    VEC(struct fd_entry) entries;
};

struct space {
    uint32_t uid;
    uint64_t id; /* unlike uid never given again when time has gone back */
    struct worker *worker;
    VEC(struct mapping) maps; /* sorted by start, disjoint */
    uint32_t task_count;
    unsigned next_slot;
    uint32_t thread_locals_of; /* serial of the task whose thread-locals page is in memory; 0: none
                                  yet */
    gaddr globals;             /* preload_globals, 0 before rrcall_init_preload */
    gaddr breakpoint_insn;     /* where the preload library commits a record */
    gaddr break_set;           /* the address given to worker_set_breaks, 0: none */
    uint64_t break_rax;        /* with it; 0: any */
    bool watch_stale;
    bool is_32bit; /* of a 32-bit program: its worker runs nothing and maps nothing (passed_over.c)
                    */
};

typedef VEC(struct task *) task_list;

struct task {
    struct task_info info;
    struct space *space;
    struct regs regs;
    gaddr scratch_start, scratch_end;
    gaddr syscallbuf, syscallbuf_end;
    gaddr rseq;
    uint32_t rseq_len, rseq_sig;
    struct fd_table *fds;
    int32_t own_ns_tid;             /* its number in its own pid namespace */
    uint32_t pid_ns;                /* serial of the first task of that namespace */
    uint32_t recorder_serial;       /* rr's number of the task: it is in names of files */
    int32_t cloned_fd, cloned_twin; /* the descriptor of its file of cloned data, and what it is
                                       duplicated to; -1: none */
    uint64_t cloned_offset;
    bool dying; /* killed within the syscall hook: its registers are not compared any more */
    bool ptrace_entered; /* the last frame was ENTERING_PTRACE */
    bool x87_cleared;    /* rr has cleared what the x87 unit did last, at an event; the worker will
                            before the task's next run */
    bool buffers_freed;  /* at the entry of exit */
    uint8_t *thread_locals; /* the page's contents while another task's is in memory; NULL: zeros */
};

struct object_page {
    uint32_t object;
    uint64_t offset;
};

/* Memory shared with others that a space of a 32-bit program maps. */
struct shared_outside {
    uint32_t space; /* uid */
    bool writable;
    uint64_t device, inode, offset; /* offset: of `start` */
    gaddr start, end;
};

struct replay {
    struct trace *trace;
    struct x86_isa lacking; /* instruction sets: the recording's CPU has them, this one has not */
    struct engine_isa isa;  /* what workers are told of them */
    struct trace_cursor *cursor;
    struct worker *spare;                /* for the first program; NULL: one is made then */
    const struct frame *next;            /* peeked; NULL at the end */
    struct trace_position next_position; /* of `next`, for saving */
    bool prepared;                       /* prepare_frame(next) was done */
    uint32_t code_space; /* the space whose translations know all shared code; 0: none */
    bool skip_next_stop; /* the frame after a flush caused by death is not executed */
    struct moment now;
    struct moment until; /* of the present replay_run() */
    uint64_t icount_total, icount_here;
    bool dead;

    task_list tasks;
    VEC(struct space *) spaces;
    VEC(struct object *) objects;
    VEC(struct shared_outside) outside;
    uint32_t last_task, last_space, last_object;
    uint32_t renamed_tasks;      /* threads that took over their leader's tid by execve */
    VEC(struct task_info) infos; /* for replay_tasks() */
    VEC(uint32_t) uids;          /* for replay_spaces() */
    VEC(uint32_t) object_uids;
    VEC(struct addr_range) used; /* everything ever mapped */

    enum engine_mode mode;
    struct consume_request consume;
    bool consuming;
    VEC(struct watch_range) watches;
    bool watching;
    struct replay_snapshot *snapshots[WORKER_SNAPSHOTS];
    VEC(struct space *) parked; /* spaces that are not now, but are in a snapshot */
    uint64_t last_space_id;
    VEC(struct object_page) object_pages; /* that may have changed since the first of them */
    bool snapshots_broken;
    struct replay_observer observer;
    block_teller *tell_block; /* NULL: nobody wants to see translated blocks */
    void *tell_block_ctx;
    bool instrumented; /* rows may be gathered: keep workers' clocks */
};

/* space.c: mapping tables, memory of spaces, shared objects */
struct space *space_create(struct replay *r, uint32_t parent);
struct err *space_end(struct replay *r, struct space *s) nodiscard;
void space_free(struct replay *r, struct space *s);
struct space *space_by_uid(struct replay *r, uint32_t uid);
const struct mapping *space_mapping_at(const struct space *s, gaddr addr);
struct err *space_map_record(struct replay *r, struct space *s, const struct trace_mmap *m,
                             uint64_t delta, bool force_private) nodiscard;
struct err *space_map_zero(struct replay *r, struct space *s, gaddr start, gaddr end, int prot,
                           uint32_t mmap_idx) nodiscard;
struct err *space_unmap(struct replay *r, struct space *s, gaddr start, gaddr end) nodiscard;
struct err *space_protect(struct replay *r, struct space *s, gaddr start, gaddr end, int prot,
                          int64_t result) nodiscard;
struct err *space_move(struct replay *r, struct space *s, gaddr from, uint64_t from_len, gaddr to,
                       uint64_t to_len, bool keep) nodiscard;
struct err *space_discard(struct replay *r, struct space *s, gaddr start, gaddr end,
                          int advice) nodiscard;
struct err *space_write(struct replay *r, struct space *s, gaddr addr, const void *data,
                        uint64_t len) nodiscard;
/** Tells the observer of a write. */
void space_tell_written(struct replay *r, const struct space *s, gaddr addr, uint64_t len);
/** As space_write() of zeros, at no cost for what is zero anyway. */
struct err *space_zero(struct replay *r, struct space *s, gaddr addr, uint64_t len) nodiscard;
struct err *space_read(struct space *s, gaddr addr, void *out, size_t len) nodiscard;
struct err *space_realise(struct replay *r, struct space *s) nodiscard;
/** Unmaps from a copy what fork was told to leave out. */
struct err *space_drop_dontfork(struct replay *r, struct space *s) nodiscard;
/** Opens the file of a record that has one, which has to be as long as it was. */
struct err *space_open_file(struct replay *r, uint32_t mmap_idx, int *fd_out) nodiscard;
/** Maps `m`, which lies within a mapping of the table, into the worker. */
struct err *space_realise_one(struct replay *r, struct space *s, const struct mapping *m) nodiscard;
/** The same for a part of a mapping. */
struct err *space_realise_part(struct replay *r, struct space *s, const struct mapping *m,
                               gaddr start, gaddr end) nodiscard;
struct err *space_copy(struct replay *r, struct space *parent, struct space **out) nodiscard;
/** To be called before the space runs: forgets translations of code that other spaces may have
 * written, in memory shared with them. */
struct err *space_recheck_code(struct replay *r, struct space *s) nodiscard;
struct err *space_instrument(struct replay *r, struct space *s) nodiscard;
struct err *space_refresh_watch(struct replay *r, struct space *s) nodiscard;
struct err *object_create(struct replay *r, uint64_t device, uint64_t inode, uint64_t size,
                          struct object **out) nodiscard;
struct object *object_by_uid(struct replay *r, uint32_t uid);
void object_free(struct object *o);
/** Gives up a mapping's claim. */
void object_release(struct replay *r, struct object *o);
/** Gives up that of a mapping in a snapshot. */
void object_let_go(struct replay *r, struct object *o);

/* replay.c */
/** A replay without tasks, its next frame at `position`. */
struct err *replay_begin(struct trace *t, struct trace_position position,
                         struct replay **out) nodiscard;
/** Reads the next frame ahead. */
struct err *replay_peek(struct replay *r) nodiscard;

/* snapshot.c */
void snapshots_free(struct replay *r);
/** Takes a space off the list that has no tasks any more. It is freed, or parked if a snapshot has
 * it. */
struct err *space_retire(struct replay *r, struct space *s) nodiscard;
/** Makes the worker of s, which maps what the table `have` says, map what `want` says, where they
 * differ. What was mapped anew is added to *anew, which may be NULL: struct addr_range, rising. */
struct err *space_switch_mappings(struct replay *r, struct space *s, const struct space *have,
                                  const struct space *want, struct buf *anew) nodiscard;
/** To be called before anything but the program writes to shared memory. */
void snapshots_before_shared_write(struct replay *r, struct object *o, uint64_t offset,
                                   uint64_t len);

/* task.c */
struct err *task_create(struct replay *r, int32_t tid, struct space *s, uint32_t parent,
                        struct task **out) nodiscard;
void task_destroy(struct replay *r, struct task *task);
/** Frees a task that is in no list. */
void task_free(struct task *task);
/** Appends copies of tasks; those that share a table of descriptors share one in the copies, too.
 */
void tasks_copy(const task_list *from, task_list *to);
struct task *task_by_tid(struct replay *r, int32_t tid);
struct task *task_by_serial(struct replay *r, uint32_t serial);
struct err *task_install_thread_locals(struct replay *r, struct task *task) nodiscard;
struct err *task_init_thread_locals(struct replay *r, struct task *task,
                                    const struct task *parent) nodiscard;
struct err *task_load_xstate(struct replay *r, struct task *task, const struct frame *f) nodiscard;
struct err *task_free_buffers(struct replay *r, struct task *task) nodiscard;
/** Reads the record which the preload library is about to commit: what the buffered system call
 * returned. */
struct err *task_pending_record(struct replay *r, struct task *task, uint16_t *number_out,
                                int64_t *result_out) nodiscard;
void task_load_regs(struct task *task, const struct regs *regs);

/* reach.c: running to the point where a frame happens */
enum reached { REACHED, REACH_LIMIT, REACH_CONSUMER };
/** Things a frame wants done before the program runs towards it. */
struct err *prepare_frame(struct replay *r, const struct frame *f) nodiscard;
struct err *reach_frame(struct replay *r, const struct frame *f, uint64_t max_icount,
                        enum reached *out) nodiscard;

/* ahead.c */
/** To be called right before worker_run() towards a system call's entry f: the run may then go on
 * by itself. */
struct err *send_ahead(struct replay *r, const struct frame *f, struct task *task,
                       uint64_t max_icount) nodiscard;

/* apply.c: a frame's effects */
/** clone, fork or vfork is about to be done: the new task with its space, registers as its
 * parent's, and what the record of the trace says of it. */
struct err *create_child(struct replay *r, const struct frame *f, struct task *parent,
                         struct task **out, uint32_t *flags_out) nodiscard;
/** True where a ptrace stop at the system call's entry has brought the task to this ENTER frame
 * already. */
bool already_entered(const struct replay *r, const struct frame *f, const struct task *task);
struct err *apply_frame(struct replay *r, const struct frame *f) nodiscard;
struct err *apply_writes(struct replay *r, const struct frame *f, size_t first) nodiscard;
struct err *diverged(const struct replay *r, const struct frame *f, const char *format, ...)
    __attribute__((format(printf, 3, 4))) nodiscard;
struct err *compare_regs(const struct replay *r, const struct frame *f, const struct regs *have,
                         uint32_t skip) nodiscard;
#define SKIP(reg) (1u << (reg))

/* fds.c: descriptors of /proc/PID/mem */
struct fd_table *fd_table_create(void);
struct fd_table *fd_table_share(struct fd_table *t);
struct fd_table *fd_table_copy(const struct fd_table *from);
void fd_table_release(struct fd_table *t);
void fds_exec(struct task *task, const struct frame *f);
/** What a finished system call means to the table; f->regs are its registers. Before the frame's
 * memory writes. */
struct err *fds_exit_of_syscall(struct replay *r, const struct frame *f,
                                struct task *task) nodiscard;
/** The space that /proc/TID/mem or /proc/PID/task/TID/mem means, as rr sees these names; 0: none.
 */
uint32_t space_of_path(struct replay *r, const char *path);
/** The effect of write, pwrite64, writev or pwritev on other tasks' memory; file_offset is used
 * where regs have none. */
struct err *fds_write(struct replay *r, struct task *task, int64_t number, const struct regs *regs,
                      int64_t result, int64_t file_offset) nodiscard;

/* cloned.c: reads from the trace's own files */
/** args: of the task's rrcall_init_buffers, in its memory. */
struct err *cloned_init(struct task *task, gaddr args) nodiscard;
/** A system call which is made only in replay; task->regs are at it. */
void cloned_replay_only_call(struct task *task);
/** The buffered read at which task->regs stand, which returned `result`. */
struct err *cloned_read(struct replay *r, struct task *task, int64_t result) nodiscard;
/** A read that was an event of the trace. */
void cloned_traced_read(struct task *task, const struct regs *regs);

/* ptrace.c: what the ptrace calls of recorded programs do to other tasks */
/** The task which a number means to `tracer`: in its own pid namespace first. May be NULL. */
struct task *traced_task(struct replay *r, const struct task *tracer, int32_t pid);
struct err *ptrace_enter(struct replay *r, const struct frame *f, struct task *tracer) nodiscard;
struct err *ptrace_exit(struct replay *r, const struct frame *f, struct task *tracer) nodiscard;

/* traps.c: instructions whose answers depend on the machine */
/** Compares the CPU of the recording with this one. */
void compare_cpus(struct replay *r);
/** Tells a new worker about the recording's CPU. */
struct err *tell_machine(const struct replay *r, struct worker *w) nodiscard;
/** The instruction set which the recording's CPU had and this one lacks, and which the instruction
 * where the task stands needs; or NULL. */
const char *lacking_feature(const struct replay *r, struct task *task);
/** Carries out the trapped instruction at which the task stands; *answered false: this one has no
 * answer here. */
struct err *answer_trap(struct replay *r, struct task *task, const struct engine_result *stop,
                        bool *answered) nodiscard;
/** The instruction at which the task stands, as text; returns `out`. */
const char *describe_insn(struct task *task, char *out, size_t len);

/* dump.c */
/** Tells of the blocks that were translated in the space since the last time. */
struct err *tell_blocks(struct replay *r, struct space *s) nodiscard;

/* exec.c */
struct err *apply_exec(struct replay *r, const struct frame *f) nodiscard;

/* passed_over.c: tasks of 32-bit programs */
/** The successful exec of a 32-bit program, once the task has its new space. */
struct err *passed_over_exec(struct replay *r, const struct frame *f, struct task *task) nodiscard;
/** Any other frame of such a task but its end. */
struct err *apply_passed_over(struct replay *r, const struct frame *f, struct task *task) nodiscard;
/** A write of the trace into memory of such a task: nothing, unless a 64-bit task sees that memory.
 */
struct err *passed_over_write(struct replay *r, const struct frame *f, const struct task *task,
                              const struct mem_write *w) nodiscard;
/** To be called after any frame that mapped something: ERR_UNSUPPORTED if a 32-bit task can write
 * to what a 64-bit one has mapped. */
struct err *check_outside(const struct replay *r, const struct frame *f) nodiscard;
/** Forgets what a space has mapped. */
void outside_forget(struct replay *r, uint32_t space);

/* xstate.c: the recording CPU's XSAVE image in this CPU's layout */
/* As if the x87 unit had done nothing yet. */
void xstate_clear_x87(struct xstate *x);
struct err *xstate_convert(const struct trace *t, const uint8_t *image, size_t len,
                           struct xstate *out) nodiscard;
uint32_t xstate_size(void);

#endif
