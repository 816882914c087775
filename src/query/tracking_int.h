/* Going through the calls with descriptors: what descriptors.c, descriptor_files.c,
 * descriptor_moves.c and descriptor_sockets.c share. */
#ifndef QUERY_TRACKING_INT_H
#define QUERY_TRACKING_INT_H

#include "query/descriptors_int.h"

struct fd_slot {
    uint32_t description; /* 0: none, or one of which nothing is known */
    bool cloexec;
};
/* A file that is known by a path. */
struct named {
    char *path; /* owned */
    uint64_t hash;
    uint32_t stream; /* plus 1 */
    bool fifo;
};

/* Where a task's paths begin. Numbers stand for directories: the same number, the same directory.
 */
struct task_place {
    uint32_t root, directory;
};

/* A socket that takes connections. */
struct listener {
    uint32_t description;
    char *address; /* owned */
    /* Descriptions that are connected, or about to be, and were not accepted yet. */
    VEC(uint32_t) waiting;
    event_no connected, accepted; /* the last events with which such calls ended */
};

/* A socket that connects over TCP while its task does not wait for it: the recorder does not say
 * from which address. */
struct connecting {
    uint32_t description;
    char *address; /* to which; owned */
};

/* One between two addresses. */
struct connection {
    char *ends;       /* of who accepts: local, remote; owned */
    uint32_t in, out; /* streams of who accepts, plus 1 */
    bool made, taken; /* which of the two ends has been seen */
};

/* Descriptors that were sent with a message. */
struct parcel {
    uint32_t call;   /* sendmsg(2) */
    uint32_t stream; /* plus 1 */
    uint64_t offset; /* of the first byte of the message in the stream; or its number */
    VEC(uint32_t) descriptions;
};

struct fd_table {
    VEC(struct fd_slot) slots;
    unsigned users;
};

struct tracking {
    struct query_engine *q;
    struct descriptors *d;
    /* By task serial; NULL: none. Shared ones are there more than once. */
    VEC(struct fd_table *) tables;
    VEC(uint32_t) inside;          /* by task serial: the call it is in, plus 1; 0: none */
    VEC(struct task_place) places; /* by task serial */
    uint32_t last_place;
    VEC(struct named) names;
    VEC(struct listener) listeners;
    VEC(struct connecting) connecting;
    event_no connected; /* the last event with which such a call ended */
    VEC(struct connection) connections;
    VEC(struct parcel) parcels; /* that nobody has received */
};

/* --- descriptors.c --- */

/** The description of a descriptor; 0: not known. */
uint32_t fd_at(struct tracking *t, uint32_t task, uint64_t fd);
void fd_assign(struct tracking *t, uint32_t task, int64_t fd, uint32_t description, bool cloexec);
/** Numbers of what was added; a stream's plus 1. */
uint32_t add_description(struct tracking *t, struct description n);
uint32_t add_stream(struct tracking *t, enum stream_kind kind, bool messages, const char *why);
/** From now on nothing is known of it; stream: number plus 1. 0: nothing is done. */
void give_up_stream(struct tracking *t, uint32_t stream, const char *why);
void give_up(struct tracking *t, uint32_t description, const char *why);
static inline uint32_t call_index(const struct tracking *t, const struct io_call *c)
{
    return (uint32_t)(c - t->d->io.calls.items);
}

/** Puts a read or write at the end of a stream that is no file (number plus 1): its number in the
 * list, plus 1. len 0: of an empty message. stays: what was read can be read again. */
uint32_t add_transfer(struct tracking *t, uint32_t number, uint32_t call, bool reads, uint64_t len,
                      bool stays);

/* --- descriptor_moves.c --- */

/** splice(2), sendfile(2), copy_file_range(2) that have succeeded. */
void move_bytes(struct tracking *t, const struct io_call *c);
/** eventfd(2) */
void make_counter(struct tracking *t, const struct io_call *c);
/** A successful read or write of an eventfd. number: of its stream, plus 1. */
void transfer_count(struct tracking *t, struct io_call *c, uint32_t number);

/* --- descriptor_files.c --- */

/** A read or write of a file at an offset: its number in the list, plus 1. number: of the file's
 * stream, plus 1. */
uint32_t add_file_transfer(struct tracking *t, uint32_t number, uint32_t call, bool reads,
                           uint64_t at, bool known, uint64_t len);
/** The same where the descriptor's position is, which moves on. */
uint32_t add_file_transfer_here(struct tracking *t, struct description *d, uint32_t call,
                                bool reads, uint64_t len);
/** mmap(2) that has succeeded. */
void map_file(struct tracking *t, struct io_call *c);

void open_file(struct tracking *t, const struct io_call *c);
/** memfd_create(2) */
void open_memory(struct tracking *t, const struct io_call *c);
/** A successful read or write of a file. */
void transfer_file(struct tracking *t, struct io_call *c, struct description *d);
/** The file has this size from now on. number: of its stream, plus 1. */
void cut_file(struct tracking *t, uint32_t number, uint32_t call, uint64_t size);
/** mknod(2) */
void make_node(struct tracking *t, const struct io_call *c);
/** rename(2), link(2), unlink(2), truncate(2): what a path stands for changes. */
void change_name(struct tracking *t, const struct io_call *c);
/** chdir(2) of all threads of the process; root: chroot(2), mount(2) and the like, by which
 * absolute paths lead elsewhere, too. */
void change_place(struct tracking *t, uint32_t task, bool root);
void inherit_place(struct tracking *t, uint32_t parent, uint32_t child);

/* --- descriptor_sockets.c --- */

/** Any call that begins. */
struct err *begin_socket_call(struct tracking *t, const struct io_call *c) nodiscard;
/** sendmsg(2), recvmsg(2) that have ended, also those that failed: what descriptors they sent or
 * received. */
struct err *end_message(struct tracking *t, const struct io_call *c) nodiscard;
/** Nothing is known of the stream (number plus 1) any more: nor of descriptors on their way through
 * it. */
void give_up_parcels(struct tracking *t, uint32_t stream);
/** The task will not end the call. */
void lose_message(struct tracking *t, uint32_t call);
/** connect(2) that goes on (EINPROGRESS). */
void go_on_connecting(struct tracking *t, const struct io_call *c);
/** socket(2), socketpair(2), bind(2), connect(2), accept(2) that have succeeded. */
void end_socket_call(struct tracking *t, const struct io_call *c);
void free_sockets(struct tracking *t);

#endif
