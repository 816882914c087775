/* What gdb wants to know of a process, asked of the query engine. Nothing here knows of packets. */
#ifndef GDBSTUB_PAST_H
#define GDBSTUB_PAST_H

#include "base/buf.h"
#include "base/err.h"
#include "base/program.h"
#include "base/types.h"

#include <stdatomic.h>

struct query_diversion;
struct query_engine;

/* A recorded task. */
struct past_task {
    uint32_t serial, process; /* process: serial of its first task */
    uint32_t parent;          /* 0: none */
    int32_t tid;
    struct moment start, end; /* end: of the recording, if it has none */
    char *name;
};
/* The program that a process executes from a moment on. */
struct past_exec {
    uint32_t process;
    struct moment moment;
    char *exe;            /* path as recorded; NULL: not known */
    struct buf arguments; /* each with a NUL behind it */
};

struct past {
    struct query_engine *q;       /* borrowed */
    const atomic_bool *cancelled; /* ends what is asked; borrowed; NULL: nobody does */
    VEC(struct past_task) tasks;  /* in order of serials */
    VEC(struct past_exec) execs;
    struct moment end;
};

/** Learns of the recording's tasks. */
struct err *past_open(struct past *p, struct query_engine *q) nodiscard;
void past_close(struct past *p);

/** Where a session begins. */
struct err *past_first_focus(struct past *p, struct moment *m_out, uint32_t *task_out) nodiscard;
/** The task that runs at m, 0: none. */
struct err *past_task_at(struct past *p, struct moment m, uint32_t *out) nodiscard;
/** NULL: there is none. */
const struct past_task *past_task(const struct past *p, uint32_t serial);
static inline bool past_alive(const struct past_task *t, struct moment m)
{
    return moment_cmp(t->start, m) <= 0 && moment_cmp(m, t->end) < 0;
}
/** The program that a process executes at m, or the first that it does later; NULL: none is known.
 */
const struct past_exec *past_exec_at(const struct past *p, uint32_t process, struct moment m);
struct moment past_process_start(const struct past *p, uint32_t process);

/** All registers, appended in the order and form of gdb's `g` packet; of unavailable ones "xx" for
 * each byte. See registers.h. */
struct err *past_registers(struct past *p, struct moment m, uint32_t task,
                           struct buf *out) nodiscard;
/** The same in a diversion, as they are now. */
struct err *past_diverted_registers(struct query_diversion *d, uint32_t task,
                                    struct buf *out) nodiscard;
/** As many bytes from addr on as are mapped, at most len (at most 65536). ERR_FAULT: none. */
struct err *past_memory(struct past *p, struct moment m, uint32_t task, gaddr addr, size_t len,
                        struct buf *out) nodiscard;
/** The auxiliary vector as the kernel gave it to the program that the process executes at m (System
 * V psABI 3.4.3). */
struct err *past_auxv(struct past *p, uint32_t process, struct moment m, struct buf *out) nodiscard;
/** What /proc/PID/maps would show of the task's process, appended as text. Devices and inodes are
 * not known. */
struct err *past_maps(struct past *p, struct moment m, uint32_t task, struct buf *out) nodiscard;
/** The siginfo_t of the signal that stops the task at m, appended. ERR_NOT_FOUND: none does. */
struct err *past_siginfo(struct past *p, struct moment m, uint32_t task, struct buf *out) nodiscard;
/** A file of the recording by its name in the maps, or one of debug information by its build id; fd
 * owned by the caller. */
struct err *past_open_file(struct past *p, const char *name, int *fd_out) nodiscard;

/* Something that stops a run. */
struct past_stop {
    struct moment moment;
    uint32_t task;
    int signal; /* Linux' number; 0: none */
};
/** The next instruction of a task, or the one before, and where that is (pc_out may be NULL).
 * ERR_NOT_FOUND: it has none. */
struct err *past_step(struct past *p, struct moment m, uint32_t task, bool forward,
                      struct moment *out, gaddr *pc_out) nodiscard;
/** The nearest execution of code address pc by the process: at or after `from`, or before it.
 * condition: checked, it holds there or cannot be told; NULL: none. */
struct err *past_execution(struct past *p, uint32_t process, gaddr pc,
                           const struct program *condition, struct moment from, bool forward,
                           struct past_stop *out, bool *found_out) nodiscard;
/** The nearest access to memory as the task has it at m, by anyone; `access` as the query's.
 * out->moment: before it. after_out: behind it. */
struct err *past_access(struct past *p, uint32_t task, struct moment m, gaddr addr, uint64_t len,
                        const char *access, struct moment from, bool forward, struct past_stop *out,
                        struct moment *after_out, bool *found_out) nodiscard;
/** The nearest signal to a task of the process, of those with a bit (number - 1) clear in `passed`.
 */
struct err *past_signal(struct past *p, uint32_t process, uint64_t passed, struct moment from,
                        bool forward, struct past_stop *out, bool *found_out) nodiscard;

#endif
