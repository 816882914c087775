/* Tables of descriptors, as the kernel has them: a task's table maps numbers to descriptions; fork
 * copies it, threads share it, exec closes some. All system calls that change them are gone through
 * once, in order of time:
 *
 *     task 1: pipe() = {3, 4}      description 1 reads stream 1, description 2 writes it
 *     task 1: fork                 task 2's table: the same descriptions
 *     task 2: dup2(4, 1), close(3) ...
 *     task 2: write(1) = 5         bytes 0 to 5 of stream 1
 *     task 1: read(3) = 2          bytes 0 to 2 of it
 *
 * What is not understood is never guessed at: a call that does more with a stream than read, write
 * or move its bytes (tee(2), vmsplice(2), fallocate(2), ...) leaves a reason with the stream, and
 * all transfers from then on have it. */
#include "query/tracking_int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { MOST_DESCRIPTORS = 1 << 16 };

static const char *const before_recording = "the descriptor was open before the recording began";

/* --- tables --- */

static struct fd_table *table_of(struct tracking *t, uint32_t task)
{
    while (t->tables.count <= task)
        vec_push(&t->tables, NULL);
    if (!t->tables.items[task]) {
        t->tables.items[task] = xnew(struct fd_table);
        t->tables.items[task]->users = 1;
    }
    return t->tables.items[task];
}

static void drop_table(struct tracking *t, uint32_t task)
{
    struct fd_table *table = task < t->tables.count ? t->tables.items[task] : NULL;
    if (!table)
        return;
    t->tables.items[task] = NULL;
    if (--table->users)
        return;
    vec_deinit(&table->slots);
    free(table);
}

static struct fd_table *copy_of(const struct fd_table *from)
{
    struct fd_table *copy = xnew(struct fd_table);
    copy->users = 1;
    for (size_t i = 0; i < from->slots.count; i++)
        vec_push(&copy->slots, from->slots.items[i]);
    return copy;
}

/* clone(2) */
static void clone_table(struct tracking *t, uint32_t parent, uint32_t child)
{
    inherit_place(t, parent, child);
    const struct known_task *k = known_task(t->q, child);
    struct fd_table *from = table_of(t, parent);
    drop_table(t, child);
    while (t->tables.count <= child)
        vec_push(&t->tables, NULL);
    bool shares = k && k->clone_flags & CLONE_FILES;
    from->users += shares;
    t->tables.items[child] = shares ? from : copy_of(from);
}

/* unshare(2), execve(2) */
static struct fd_table *unshare_table(struct tracking *t, uint32_t task)
{
    struct fd_table *from = table_of(t, task);
    if (from->users > 1) {
        from->users--;
        t->tables.items[task] = copy_of(from);
    }
    return t->tables.items[task];
}

uint32_t fd_at(struct tracking *t, uint32_t task, uint64_t fd)
{
    const struct fd_table *table = table_of(t, task);
    fd = (uint32_t)fd;
    return fd < table->slots.count ? table->slots.items[fd].description : 0;
}

void fd_assign(struct tracking *t, uint32_t task, int64_t fd, uint32_t description, bool cloexec)
{
    struct fd_table *table = table_of(t, task);
    if (fd < 0 || fd >= MOST_DESCRIPTORS)
        return;
    while (table->slots.count <= (uint64_t)fd)
        vec_push(&table->slots, (struct fd_slot){0});
    table->slots.items[fd] = (struct fd_slot){description, cloexec};
}

uint32_t add_description(struct tracking *t, struct description n)
{
    vec_push(&t->d->descriptions, n);
    return (uint32_t)t->d->descriptions.count - 1;
}

uint32_t add_stream(struct tracking *t, enum stream_kind kind, bool messages, const char *why)
{
    vec_push(&t->d->streams,
             (struct stream){.kind = (uint8_t)kind, .messages = messages, .why = why});
    return (uint32_t)t->d->streams.count;
}

/* The first program of the recording. */
static void begin_recording(struct tracking *t, uint32_t task)
{
    uint32_t outside = add_description(t, (struct description){.why = before_recording});
    for (int fd = 0; fd < 3; fd++)
        fd_assign(t, task, fd, outside, false);
}

/* --- what leaves a stream unknown --- */

void give_up_stream(struct tracking *t, uint32_t stream, const char *why)
{
    if (!stream || t->d->streams.items[stream - 1].why)
        return;
    t->d->streams.items[stream - 1].why = why;
    give_up_parcels(t, stream);
}

void give_up(struct tracking *t, uint32_t description, const char *why)
{
    if (!description)
        return;
    struct description *d = &t->d->descriptions.items[description];
    give_up_stream(t, d->in, why);
    give_up_stream(t, d->out, why);
    if (!d->why)
        d->why = why;
}

static void give_up_table(struct tracking *t, uint32_t task, const char *why)
{
    struct fd_table *table = table_of(t, task);
    vec_each (s, &table->slots)
        give_up(t, s->description, why);
}

/* --- transfers --- */

bool io_call_reads(int32_t no)
{
    switch (no) {
    case SYS_read:
    case SYS_readv:
    case SYS_pread64:
    case SYS_preadv:
    case SYS_preadv2:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
        return true;
    default:
        return false;
    }
}

bool io_call_writes(int32_t no)
{
    switch (no) {
    case SYS_write:
    case SYS_writev:
    case SYS_pwrite64:
    case SYS_pwritev:
    case SYS_pwritev2:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_sendmmsg:
        return true;
    default:
        return false;
    }
}

static uint32_t flags_of(const struct io_call *c)
{
    switch (c->no) {
    case SYS_recvfrom:
    case SYS_sendto:
        return (uint32_t)c->args[3];
    case SYS_recvmsg:
    case SYS_sendmsg:
        return (uint32_t)c->args[2];
    case SYS_preadv2:
    case SYS_pwritev2:
        return c->args[5] ? MSG_OOB : 0; // flags of another kind: none is expected
    default:
        return 0;
    }
}

/* Calls that are at work on one stream in the same direction at the same time: in which order is
 * not known. Tells those of the first `count` of the list, which are in the order of their ends,
 * that ended after `call` began. */
static bool find_overlaps(struct tracking *t, transfer_list *list, size_t count,
                          const struct io_call *call, const char *why)
{
    const struct io_call *calls = t->d->io.calls.items;
    size_t i = count;
    for (; i > 0; i--) {
        const struct io_call *other = &calls[list->items[i - 1].call];
        if (moment_cmp(io_call_end(other), call->at) <= 0 || other == call)
            break;
        list->items[i - 1].why = why;
    }
    return i < count;
}

uint32_t add_transfer(struct tracking *t, uint32_t number, uint32_t call, bool reads, uint64_t len,
                      bool stays)
{
    struct stream *s = &t->d->streams.items[number - 1];
    transfer_list *list = reads ? &s->reads : &s->writes;
    uint64_t *position = reads ? &s->taken : &s->written;
    vec_push(list, (struct transfer){.call = call, .offset = *position, .len = len, .why = s->why});
    if (!stays)
        *position += s->messages ? 1 : len;
    const char *why = reads ? "several tasks read it at the same time"
                            : "several tasks wrote to it at the same time";
    if (find_overlaps(t, list, list->count - 1, &t->d->io.calls.items[call], why))
        list->items[list->count - 1].why = why;
    return (uint32_t)list->count;
}

static void transfer(struct tracking *t, struct io_call *c, uint32_t number)
{
    static const uint32_t harmless = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_WAITALL | MSG_CMSG_CLOEXEC |
                                     MSG_MORE | MSG_EOR | MSG_CONFIRM;
    bool reads = io_call_reads(c->no);
    uint64_t len = (uint64_t)c->result;
    uint32_t flags = flags_of(c);
    if (!number)
        return;
    struct stream *s = &t->d->streams.items[number - 1];
    if (flags & ~(harmless | (reads ? MSG_PEEK : 0)))
        give_up_stream(t, number, "a call with unusual flags read or wrote it before");
    if (s->messages && c->no == SYS_sendto && c->args[4])
        give_up_stream(t, number, "messages were sent to an address");
    // Nothing is read at the end of a stream; of messages it may be an empty one.
    if (!len && (!s->messages || (reads && s->taken >= s->written)))
        return;
    c->transfer = add_transfer(t, number, call_index(t, c), reads, len, reads && flags & MSG_PEEK);
}

/* recvmmsg(2), sendmmsg(2): as many messages as they returned. How long each was is in memory only:
 * all that its pieces have room for, at most. */
static void transfer_many(struct tracking *t, struct io_call *c, uint32_t number)
{
    static const uint32_t harmless =
        MSG_DONTWAIT | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC | MSG_WAITFORONE;
    struct stream *s = number ? &t->d->streams.items[number - 1] : NULL;
    if (!s)
        return;
    if (!s->messages || s->kind != STREAM_SOCKET || (c->args[3] & ~(uint64_t)harmless)) {
        give_up_stream(t, number, "several messages were moved with one call in an unusual way");
        return;
    }
    for (int64_t i = 0; i < c->result; i++) {
        uint32_t added =
            add_transfer(t, number, call_index(t, c), io_call_reads(c->no), UINT32_MAX, false);
        c->transfer = i ? c->transfer : added;
    }
}

/* A task ended, or the recording did, in the midst of a call. */
static void end_inside(struct tracking *t, uint32_t task)
{
    uint32_t call = task < t->inside.count ? t->inside.items[task] : 0;
    if (!call)
        return;
    t->inside.items[task] = 0;
    const struct io_call *c = &t->d->io.calls.items[call - 1];
    lose_message(t, call - 1);
    const struct description *d = &t->d->descriptions.items[c->description];
    bool writes = io_call_writes(c->no);
    uint32_t number = writes ? d->out : io_call_reads(c->no) ? d->in : 0;
    if (!number)
        return;
    struct stream *s = &t->d->streams.items[number - 1];
    transfer_list *list = writes ? &s->writes : &s->reads;
    const char *why = writes ? "a write to it did not end: how much was written is not recorded"
                             : "a read of it did not end: how much was read is not recorded";
    find_overlaps(t, list, list->count, c, why);
    give_up_stream(t, number, why);
}

/* --- calls --- */

static void make_pipe(struct tracking *t, const struct io_call *c)
{
    uint64_t flags = c->no == SYS_pipe2 ? c->args[1] : 0;
    uint32_t stream =
        add_stream(t, STREAM_PIPE, false, flags & O_DIRECT ? "a pipe with O_DIRECT" : NULL);
    fd_assign(t, c->task, c->fds[0], add_description(t, (struct description){.in = stream}),
              flags & O_CLOEXEC);
    fd_assign(t, c->task, c->fds[1], add_description(t, (struct description){.out = stream}),
              flags & O_CLOEXEC);
}

static void duplicate(struct tracking *t, const struct io_call *c)
{
    bool cloexec = (c->no == SYS_dup3 && c->args[2] & O_CLOEXEC) ||
                   (c->no == SYS_fcntl && c->args[1] == F_DUPFD_CLOEXEC);
    if (c->result == (int64_t)c->args[0] && c->no == SYS_dup2)
        return;
    fd_assign(t, c->task, c->result, fd_at(t, c->task, c->args[0]), cloexec);
}

static void set_cloexec(struct tracking *t, uint32_t task, uint64_t fd, bool cloexec)
{
    struct fd_table *table = table_of(t, task);
    fd = (uint32_t)fd;
    if (fd < table->slots.count)
        table->slots.items[fd].cloexec = cloexec;
}

static void control(struct tracking *t, const struct io_call *c)
{
    switch (c->args[1]) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        duplicate(t, c);
        return;
    case F_SETFD:
        set_cloexec(t, c->task, c->args[0], c->args[2] & FD_CLOEXEC);
        return;
    case F_SETFL:
        t->d->descriptions.items[c->description].append = c->args[2] & O_APPEND;
        if (c->args[2] & O_DIRECT)
            give_up(t, c->description, "O_DIRECT was set");
        return;
    default:
        return;
    }
}

static void close_range_of(struct tracking *t, const struct io_call *c)
{
    struct fd_table *table =
        c->args[2] & CLOSE_RANGE_UNSHARE ? unshare_table(t, c->task) : table_of(t, c->task);
    for (uint64_t fd = (uint32_t)c->args[0]; fd <= (uint32_t)c->args[1] && fd < table->slots.count;
         fd++) {
        if (c->args[2] & CLOSE_RANGE_CLOEXEC)
            table->slots.items[fd].cloexec = true;
        else
            table->slots.items[fd] = (struct fd_slot){0};
    }
}

static void end_call(struct tracking *t, struct io_call *c)
{
    if (c->no == SYS_close && c->result != -EBADF) // closed, whatever else went wrong (close(2))
        fd_assign(t, c->task, (uint32_t)c->args[0], 0, false);
    if (c->no == SYS_connect && c->result == -EINPROGRESS)
        go_on_connecting(t, c);
    if (c->result < 0)
        return;
    struct description *d = &t->d->descriptions.items[c->description];
    uint32_t stream = d->in ? d->in : d->out;
    uint8_t kind = stream ? t->d->streams.items[stream - 1].kind : STREAM_PIPE;
    bool is_file = kind == STREAM_FILE;
    if (kind == STREAM_COUNTER && (io_call_reads(c->no) || io_call_writes(c->no)))
        transfer_count(t, c, stream);
    else if ((is_file || kind == STREAM_MEMORY) && (io_call_reads(c->no) || io_call_writes(c->no)))
        transfer_file(t, c, d);
    else if (c->no == SYS_recvmmsg || c->no == SYS_sendmmsg)
        transfer_many(t, c, c->no == SYS_recvmmsg ? d->in : d->out);
    else if (io_call_reads(c->no))
        transfer(t, c, d->in);
    else if (io_call_writes(c->no))
        transfer(t, c, d->out);
    switch (c->no) {
    case SYS_open:
    case SYS_creat:
    case SYS_openat:
    case SYS_openat2:
        open_file(t, c);
        break;
    case SYS_mknod:
    case SYS_mknodat:
        make_node(t, c);
        break;
    case SYS_rename:
    case SYS_renameat:
    case SYS_renameat2:
    case SYS_link:
    case SYS_linkat:
    case SYS_unlink:
    case SYS_unlinkat:
    case SYS_truncate:
        change_name(t, c);
        break;
    case SYS_chdir:
    case SYS_fchdir:
        change_place(t, c->task, false);
        break;
    case SYS_chroot:
    case SYS_pivot_root:
    case SYS_setns:
    case SYS_mount:
    case SYS_umount2:
        change_place(t, c->task, true);
        break;
    case SYS_lseek:
        d->position = (uint64_t)c->result;
        d->position_known = true;
        break;
    case SYS_ftruncate:
        if (is_file)
            cut_file(t, d->in, call_index(t, c), c->args[1]);
        break;
    case SYS_fallocate:
        give_up(t, c->description, "fallocate changed it");
        break;
    case SYS_mmap:
        map_file(t, c);
        break;
    case SYS_pipe:
    case SYS_pipe2:
        make_pipe(t, c);
        break;
    case SYS_socket:
    case SYS_socketpair:
    case SYS_bind:
    case SYS_connect:
    case SYS_accept:
    case SYS_accept4:
        end_socket_call(t, c);
        break;
    case SYS_dup:
    case SYS_dup2:
    case SYS_dup3:
        duplicate(t, c);
        break;
    case SYS_fcntl:
        control(t, c);
        break;
    case SYS_ioctl:
        if (c->args[1] == FIOCLEX || c->args[1] == FIONCLEX)
            set_cloexec(t, c->task, c->args[0], c->args[1] == FIOCLEX);
        break;
    case SYS_close_range:
        close_range_of(t, c);
        break;
    case SYS_unshare:
        if (c->args[0] & CLONE_FILES)
            unshare_table(t, c->task);
        if (c->args[0] & CLONE_NEWNS)
            change_place(t, c->task, true);
        break;
    case SYS_splice:
    case SYS_copy_file_range:
    case SYS_sendfile:
        move_bytes(t, c);
        break;
    case SYS_tee:
        give_up(t, fd_at(t, c->task, c->args[1]), "tee copied bytes to it");
        break;
    case SYS_eventfd:
    case SYS_eventfd2:
        make_counter(t, c);
        break;
    case SYS_memfd_create:
        open_memory(t, c);
        break;
    case SYS_vmsplice:
        give_up(t, fd_at(t, c->task, c->args[0]), "vmsplice moved bytes of it");
        break;
    case SYS_pidfd_getfd:
        for (uint32_t task = 0; task < t->tables.count; task++)
            give_up_table(t, task, "a descriptor may have been taken by another process");
        break;
    default:
        break;
    }
}

/* --- all of them --- */

static void exec_table(struct tracking *t, uint32_t task)
{
    struct fd_table *table = unshare_table(t, task);
    vec_each (s, &table->slots) {
        if (s->cloexec)
            *s = (struct fd_slot){0};
    }
}

static struct err *track(struct tracking *t)
{
    vec_push(&t->d->descriptions,
             (struct description){.why = "how the descriptor came about is not known"});
    bool begun = false;
    vec_each (p, &t->d->io.points) {
        struct io_call *c =
            p->kind == IO_BEGIN || p->kind == IO_END ? &t->d->io.calls.items[p->call] : NULL;
        while (t->inside.count <= p->task)
            vec_push(&t->inside, 0);
        if (!begun && p->kind == IO_EXEC)
            begin_recording(t, p->task);
        begun |= p->kind == IO_EXEC;
        switch (p->kind) {
        case IO_BEGIN:
            c->description = fd_at(t, p->task, c->args[0]);
            t->inside.items[p->task] = p->call + 1;
            TRY(begin_socket_call(t, c));
            break;
        case IO_END:
            t->inside.items[p->task] = 0;
            if (c->buffered) { // it begins here, too
                c->description = fd_at(t, p->task, c->args[0]);
                TRY(begin_socket_call(t, c));
            }
            end_call(t, c);
            if (c->no == SYS_sendmsg || c->no == SYS_recvmsg)
                TRY(end_message(t, c));
            break;
        case IO_CLONE:
            clone_table(t, p->task, p->child);
            break;
        case IO_EXEC:
            t->inside.items[p->task] = 0;
            exec_table(t, p->task);
            break;
        case IO_EXIT:
            end_inside(t, p->task);
            drop_table(t, p->task);
            break;
        case IO_FOREIGN:
            give_up_table(t, p->task, "a task has it open, too, whose system calls are not known");
            break;
        default:
            break;
        }
    }
    for (uint32_t task = 0; task < t->inside.count; task++)
        end_inside(t, task);
    return NULL;
}

struct err *descriptors_of(struct query_engine *q, const struct descriptors **out)
{
    if (q->descriptors) {
        *out = q->descriptors;
        return NULL;
    }
    struct descriptors *d = xnew(struct descriptors);
    struct tracking t = {.q = q, .d = d};
    struct err *e = io_calls_read(q, &d->io);
    if (!e)
        e = track(&t);
    for (uint32_t task = 0; task < t.tables.count; task++)
        drop_table(&t, task);
    vec_deinit(&t.tables);
    vec_deinit(&t.inside);
    vec_deinit(&t.places);
    vec_each (n, &t.names)
        free(n->path);
    vec_deinit(&t.names);
    free_sockets(&t);
    if (e) {
        descriptors_free(d);
        return e;
    }
    *out = q->descriptors = d;
    return NULL;
}

struct err *mapped_object(struct query_engine *q, uint32_t stream, size_t mapping, uint32_t *out)
{
    struct file_mapping *m = &q->descriptors->streams.items[stream].mappings.items[mapping];
    const struct io_call *c = &q->descriptors->io.calls.items[m->call];
    struct replay *r;
    uint32_t space;
    if (!m->looked_up && m->shared) {
        TRY(state_at(q, io_call_end(c), &r));
        TRY(space_of_task(r, c->task, &space));
        const struct mapping *at = replay_mapping_at(r, space, (gaddr)c->result);
        m->object = at && at->object ? object_uid(at->object) : 0;
        m->looked_up = true;
    }
    *out = m->object;
    return NULL;
}

void descriptors_free(struct descriptors *d)
{
    if (!d)
        return;
    io_calls_deinit(&d->io);
    vec_each (s, &d->streams) {
        vec_deinit(&s->writes);
        vec_deinit(&s->reads);
        vec_deinit(&s->mappings);
    }
    vec_deinit(&d->streams);
    vec_deinit(&d->descriptions);
    free(d);
}
