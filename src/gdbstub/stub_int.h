/* Private parts of the gdbstub room. */
#ifndef GDBSTUB_STUB_INT_H
#define GDBSTUB_STUB_INT_H

#include "gdbstub/agent.h"
#include "gdbstub/packet.h"
#include "gdbstub/past.h"
#include "gdbstub/stub.h"

#include <pthread.h>

/* What is known of the nearest time that something happens, so that gdb's many short runs cost no
 * search each. Good for every place between `from` and the stop. */
struct nearest {
    bool valid, found;
    struct moment from, after; /* after: of an access, behind it */
    struct past_stop stop;
};

/* kind: as in the Z packets (E.2): 0 and 1 breakpoints, 2 of writes, 3 of reads, 4 of both. One
 * that gdb removes is kept, for what is known of it: gdb removes all whenever the program stops,
 * and inserts them again. */
struct breakpoint {
    char kind;
    bool inserted;
    gaddr addr;
    uint64_t len;
    program_ops condition; /* none: there is no condition, or gdb has to test it */
    struct nearest ahead, behind;
};

/* Why gdb is told that the program stands. */
enum stop_why {
    STOP_PLAIN,
    STOP_STEPPED,
    STOP_BREAKPOINT,
    STOP_ACCESS,
    STOP_SIGNAL,
    STOP_START,
    STOP_END,
    STOP_EXEC,
    STOP_INTERRUPT,
    STOP_ELSEWHERE
};

enum { MOST_FILES = 16 };

struct gdb_stub {
    struct packet_link *link;
    const char *packet_end; /* of the packet at work */
    struct past past;
    struct moment now;
    uint32_t task, process; /* the task that has stopped, and its process */
    uint32_t general;       /* the one whose state gdb asks for */
    struct nearest signal_ahead, signal_behind;
    struct moment told_signal; /* the signal of this moment has been reported */
    uint64_t passed;           /* signals that gdb does not want to hear of, by number - 1 */
    VEC(struct breakpoint) breakpoints;
    enum stop_why why;
    int signal;    /* STOP_SIGNAL: Linux' number */
    char hit_kind; /* STOP_BREAKPOINT, STOP_ACCESS: of the breakpoint */
    gaddr hit_addr;
    const struct past_exec *told_exec; /* the program that gdb knows of */
    bool swbreak, hwbreak, exec_events, processes, done;
    int32_t pid; /* for gdb, all along: that of the process with which it began */
    struct query_diversion *diversion; /* what gdb has changed, see divert.c; NULL: nothing */
    bool told_forgets;                 /* the user knows that changes are */
    uint32_t diverted;                 /* the task whose registers were changed last, 0: none */
    gaddr modid_at;                    /* see tls.c; 0: not known */
    struct buf registers; /* of registers_task at registers_at or in the diversion, as digits */
    struct moment registers_at;
    uint32_t registers_task;
    int files[MOST_FILES]; /* opened by gdb; -1: none */
    struct buf answer;     /* scratch */
    bool started;          /* gdb has "run" the program: the next run ends where it begins */
    bool jumps;            /* the next run goes to `jump` */
    struct gdb_position jump;
    VEC(struct gdb_position) kept; /* checkpoints, by number - 1; task 0: deleted */
    pthread_mutex_t lock;          /* of `shown` */
    struct gdb_position shown;     /* what gdb knows of now and general */
};

/* How gdb wants the program to run. */
struct resume {
    bool forward;
    uint32_t step;                /* this task by one instruction; 0: until something happens */
    gaddr range_start, range_end; /* step on while within; both 0: one instruction */
};

/** Moves to where the run ends and says why in s->why. */
struct err *resume(struct gdb_stub *s, const struct resume *r) nodiscard;
/** Puts the session at a moment. ERR_NOT_FOUND: the task does not live then. */
struct err *move_to(struct gdb_stub *s, struct moment m, uint32_t task) nodiscard;

/* Their places in a `g` packet's order. */
enum { REGISTER_RBP = 6, REGISTER_RSP = 7, REGISTER_RIP = 16, REGISTER_ORIG_RAX = 57 };
/** The registers of the general task, now, as digits in s->registers. */
struct err *fetch_registers(struct gdb_stub *s) nodiscard;
/** A line that gdb shows; more than one may come before an answer. */
void send_output(struct gdb_stub *s, const char *line);
void send_text(struct gdb_stub *s, const void *text, size_t len);

/* divert.c: what gdb changes */
struct err *divert_write_register(struct gdb_stub *s, uint64_t number,
                                  const char *digits) nodiscard;
/** digits: of a `G` packet */
struct err *divert_write_registers(struct gdb_stub *s, const char *digits) nodiscard;
struct err *divert_write_memory(struct gdb_stub *s, gaddr addr, const void *data,
                                size_t len) nodiscard;
/** Up to the first byte that is not mapped. ERR_FAULT: none is. */
struct err *divert_read_memory(struct gdb_stub *s, gaddr addr, size_t len,
                               struct buf *out) nodiscard;
/** Do registers differ from the recorded ones, so that a run does not go on with what was recorded?
 */
struct err *divert_goes_on(struct gdb_stub *s, bool *out) nodiscard;
/** Runs in the diversion. s->why and so on say how it ended. */
struct err *divert_run(struct gdb_stub *s, const struct resume *r) nodiscard;
/** Forgets all changes. */
void divert_end(struct gdb_stub *s);

/** As many bytes of the general task's memory, now, as are mapped from addr on. ERR_FAULT: none. */
struct err *read_memory(struct gdb_stub *s, gaddr addr, size_t len, struct buf *out) nodiscard;
/** Answers with an error; takes over e. */
void send_error(struct gdb_stub *s, struct err *e);
/** "TID" or "pPID.TID". False: it is no single thread ("-1", "0"), or nonsense. */
bool read_thread(const char **text, uint64_t *tid_out) nodiscard;
/** NULL: there is none now. */
const struct past_task *thread_by_tid(struct gdb_stub *s, uint64_t tid);

/* tls.c: qSymbol and qGetTLSAddr packets */
void handle_symbol(struct gdb_stub *s, const char *args);
void handle_thread_local(struct gdb_stub *s, const char *args);

/* monitor.c: qRcmd packets */
void handle_monitor(struct gdb_stub *s, const char *args);

/* files.c: vFile packets */
void handle_file(struct gdb_stub *s, const char *args);
void close_files(struct gdb_stub *s);

/* Numbers of the protocol: hexadecimal without prefix. Leaves *text behind them. False: there is
 * none. */
bool read_hex(const char **text, uint64_t *out) nodiscard;
int gdb_signal(int linux_number);
int linux_signal(int gdb_number);

#endif
