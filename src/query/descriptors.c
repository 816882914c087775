/* Tables of descriptors, as the kernel has them: a task's table maps numbers to descriptions; fork copies it, threads share it, exec
 * closes some. All system calls that change them are gone through once, in order of time:
 *
 *     task 1: pipe() = {3, 4}      description 1 reads stream 1, description 2 writes it
 *     task 1: fork                 task 2's table: the same descriptions
 *     task 2: dup2(4, 1), close(3) ...
 *     task 2: write(1) = 5         bytes 0 to 5 of stream 1
 *     task 1: read(3) = 2          bytes 0 to 2 of it
 *
 * What is not understood is never guessed at: a call that does more with a stream than read and write it (splice(2), a descriptor sent to
 * another process, ...) leaves a reason with the stream, and all transfers from then on have it. */
#include "query/descriptors_int.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { MOST_DESCRIPTORS = 1 << 20 };

static const char *const before_recording = "the descriptor was open before the recording began";

/* --- tables --- */

struct fd_slot {
    uint32_t description; /* 0: none, or one of which nothing is known */
    bool cloexec;
};
/* A file that is known by a path. */
struct named {
    char *path;      /* owned */
    uint64_t hash;
    uint32_t stream; /* plus 1 */
    bool fifo;
};

struct fd_table {
    VEC(struct fd_slot) slots;
    unsigned users;
};

struct tracking {
    struct query_engine *q;
    struct descriptors *d;
    VEC(struct fd_table *) tables;   /* by task serial; NULL: none. Shared ones are there more than once */
    VEC(uint32_t) inside;         /* by task serial: the call it is in, plus 1; 0: none */
    VEC(uint32_t) directory;      /* by task serial: stands for its working directory; the same number, the same directory */
    uint32_t last_directory;
    VEC(struct named) names;
};

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

static uint32_t *directory_of(struct tracking *t, uint32_t task);

/* clone(2) */
static void clone_table(struct tracking *t, uint32_t parent, uint32_t child)
{
    uint32_t directory = *directory_of(t, parent);
    *directory_of(t, child) = directory;
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

static uint32_t description_at(struct tracking *t, uint32_t task, uint64_t fd)
{
    const struct fd_table *table = table_of(t, task);
    fd = (uint32_t)fd;
    return fd < table->slots.count ? table->slots.items[fd].description : 0;
}

static void set_slot(struct tracking *t, uint32_t task, int64_t fd, uint32_t description, bool cloexec)
{
    struct fd_table *table = table_of(t, task);
    if (fd < 0 || fd >= MOST_DESCRIPTORS)
        return;
    while (table->slots.count <= (uint64_t)fd)
        vec_push(&table->slots, (struct fd_slot){0});
    table->slots.items[fd] = (struct fd_slot){description, cloexec};
}

static uint32_t add_description(struct tracking *t, struct description n)
{
    vec_push(&t->d->descriptions, n);
    return (uint32_t)t->d->descriptions.count - 1;
}

static uint32_t add_stream(struct tracking *t, enum stream_kind kind, bool messages, const char *why)
{
    vec_push(&t->d->streams, (struct stream){.kind = (uint8_t)kind, .messages = messages, .why = why});
    return (uint32_t)t->d->streams.count;
}

/* The first program of the recording. */
static void begin_recording(struct tracking *t, uint32_t task)
{
    uint32_t outside = add_description(t, (struct description){.why = before_recording});
    for (int fd = 0; fd < 3; fd++)
        set_slot(t, task, fd, outside, false);
}

/* --- what leaves a stream unknown --- */

static void give_up_stream(struct tracking *t, uint32_t stream, const char *why)
{
    if (stream && !t->d->streams.items[stream - 1].why)
        t->d->streams.items[stream - 1].why = why;
}

static void give_up(struct tracking *t, uint32_t description, const char *why)
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
    case SYS_recvfrom:
    case SYS_recvmsg:
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
    case SYS_sendto:
    case SYS_sendmsg:
        return true;
    default:
        return false;
    }
}

static bool has_offset(int32_t no)
{
    return no == SYS_pread64 || no == SYS_pwrite64 || no == SYS_preadv || no == SYS_pwritev;
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
    default:
        return 0;
    }
}

/* Calls that are at work on one stream in the same direction at the same time: in which order is not known. The last of the list ended last. */
static void find_overlaps(struct tracking *t, transfer_list *list, const char *why)
{
    struct transfer *last = &list->items[list->count - 1];
    const struct io_call *calls = t->d->io.calls.items, *call = &calls[last->call];
    for (size_t i = list->count - 1; i-- > 0;) {
        const struct io_call *other = &calls[list->items[i].call];
        struct moment ended = other->buffered ? other->at : (struct moment){other->end, 0};
        if (moment_cmp(ended, call->at) <= 0)
            return;
        last->why = list->items[i].why = why;
    }
}

static void transfer(struct tracking *t, struct io_call *c, uint32_t number)
{
    static const uint32_t harmless = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_WAITALL | MSG_CMSG_CLOEXEC | MSG_MORE | MSG_EOR | MSG_CONFIRM;
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
    transfer_list *list = reads ? &s->reads : &s->writes;
    uint64_t *position = reads ? &s->taken : &s->written;
    // Nothing is read at the end of a stream; of messages it may be an empty one.
    if (!len && (!s->messages || (reads && s->taken >= s->written)))
        return;
    vec_push(list, (struct transfer){.call = (uint32_t)(c - t->d->io.calls.items), .offset = *position, .len = len, .why = s->why});
    c->transfer = (uint32_t)list->count;
    if (!(reads && flags & MSG_PEEK))
        *position += s->messages ? 1 : len;
    find_overlaps(t, list, reads ? "several tasks read it at the same time" : "several tasks wrote to it at the same time");
}

/* Reads and writes of files, by offset. */
static void transfer_file(struct tracking *t, struct io_call *c, struct description *d)
{
    uint32_t number = d->in;
    struct stream *s = &t->d->streams.items[number - 1];
    bool reads = io_call_reads(c->no);
    uint64_t len = (uint64_t)c->result, at = has_offset(c->no) ? c->args[3] : d->position;
    bool known = has_offset(c->no) || d->position_known;
    if (!reads && d->append) {
        at = s->written;
        known = s->size_known;
    }
    if (!reads && !known)
        give_up_stream(t, number, "it was written to at an offset that is not known");
    vec_push(reads ? &s->reads : &s->writes, (struct transfer){
        .call = (uint32_t)(c - t->d->io.calls.items), .offset = at, .len = len, .why = known ? s->why : "at which offset it was read is not known"});
    c->transfer = (uint32_t)(reads ? s->reads.count : s->writes.count);
    if (!reads && known && at + len > s->written)
        s->written = at + len;
    if (!has_offset(c->no)) {
        d->position = at + len;
        d->position_known = known;
    }
}

/* The file has this size from now on. */
static void cut_file(struct tracking *t, uint32_t number, uint32_t call, uint64_t size)
{
    struct stream *s = &t->d->streams.items[number - 1];
    vec_push(&s->writes, (struct transfer){.call = call, .offset = size, .len = UINT64_MAX - size, .cuts = true});
    s->written = size;
    s->size_known = true;
}

/* A task ended in the midst of a call. */
static void end_inside(struct tracking *t, uint32_t task)
{
    uint32_t call = task < t->inside.count ? t->inside.items[task] : 0;
    if (!call)
        return;
    t->inside.items[task] = 0;
    const struct io_call *c = &t->d->io.calls.items[call - 1];
    const struct description *d = &t->d->descriptions.items[c->description];
    if (io_call_writes(c->no))
        give_up_stream(t, d->out, "a task ended while it wrote to it: how much was written is not recorded");
    if (io_call_reads(c->no))
        give_up_stream(t, d->in, "a task ended while it read it: how much was read is not recorded");
}

/* --- descriptors that leave their table --- */

/* sendmsg(2) with SCM_RIGHTS (unix(7)): whoever gets them can read and write the same streams. */
static struct err *send_descriptors(struct tracking *t, const struct io_call *c)
{
    struct replay *r;
    uint32_t space;
    struct msghdr m;
    uint8_t control[4096];
    static const char why[] = "its descriptor was sent to another process";
    TRY(check_cancel(t->q));
    TRY(state_at(t->q, c->at, &r));
    TRY(space_of_task(r, c->task, &space));
    struct err *e = replay_read(r, space, c->args[1], &m, sizeof(m), NULL);
    if (!e && m.msg_controllen) {
        size_t len = m.msg_controllen < sizeof(control) ? m.msg_controllen : sizeof(control);
        e = replay_read(r, space, (gaddr)m.msg_control, control, len, NULL);
        for (size_t at = 0; !e && len - at >= sizeof(struct cmsghdr);) {
            struct cmsghdr head;
            memcpy(&head, control + at, sizeof(head));
            if (head.cmsg_len < sizeof(head) || head.cmsg_len > len - at)
                break;
            bool rights = head.cmsg_level == SOL_SOCKET && head.cmsg_type == SCM_RIGHTS;
            for (size_t i = at + sizeof(head); rights && i + 4 <= at + head.cmsg_len; i += 4)
                give_up(t, description_at(t, c->task, load_u32(control + i)), why);
            at += (head.cmsg_len + 7) & ~(size_t)7;
            if (at > len)
                break;
        }
    }
    bool fault = e && (err_kind(e) == ERR_FAULT || err_kind(e) == ERR_NOT_FOUND);
    if (!fault)
        return e;
    err_free(e); // as the call will have found
    return NULL;
}

/* --- calls --- */

static void make_pipe(struct tracking *t, const struct io_call *c)
{
    uint64_t flags = c->no == SYS_pipe2 ? c->args[1] : 0;
    uint32_t stream = add_stream(t, STREAM_PIPE, false, flags & O_DIRECT ? "a pipe with O_DIRECT" : NULL);
    set_slot(t, c->task, c->fds[0], add_description(t, (struct description){.in = stream}), flags & O_CLOEXEC);
    set_slot(t, c->task, c->fds[1], add_description(t, (struct description){.out = stream}), flags & O_CLOEXEC);
}

/* --- files --- */

static uint32_t *directory_of(struct tracking *t, uint32_t task)
{
    while (t->directory.count <= task)
        vec_push(&t->directory, 0);
    return &t->directory.items[task];
}

/* What stands for the file that a call names; heap string; NULL: that cannot be told. Relative paths mean the same only in the same directory. */
static char *key_of(struct tracking *t, const struct io_call *c, unsigned idx)
{
    const char *path = c->paths[idx];
    bool at = c->no == SYS_openat || c->no == 437 || c->no == SYS_mknodat || c->no == SYS_unlinkat || c->no == SYS_renameat ||
              c->no == SYS_renameat2 || c->no == SYS_linkat;
    if (!path || !path[0])
        return NULL;
    if (path[0] == '/')
        return xstrdup(path);
    if (at && (int32_t)c->args[2 * idx] != AT_FDCWD)
        return NULL;
    while (path[0] == '.' && path[1] == '/')
        path += 2;
    return str_format("%u:%s", *directory_of(t, c->task), path);
}

static uint64_t hash_of(const char *s)
{
    uint64_t h = 14695981039346656037ull; // FNV-1a
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 1099511628211ull;
    return h;
}

static struct named *find_named(struct tracking *t, const char *key)
{
    uint64_t hash = hash_of(key);
    vec_each (n, &t->names) {
        if (n->hash == hash && n->path && strcmp(n->path, key) == 0)
            return n;
    }
    return NULL;
}

/* Takes over key. */
static struct named *add_named(struct tracking *t, char *key, uint32_t stream, bool fifo)
{
    vec_push(&t->names, (struct named){key, hash_of(key), stream, fifo});
    return &t->names.items[t->names.count - 1];
}

static void forget_name(struct tracking *t, const char *key)
{
    struct named *n = key ? find_named(t, key) : NULL;
    if (!n)
        return;
    free(n->path);
    *n = t->names.items[--t->names.count];
}

static bool begins_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* A path that stands for a descriptor of the task itself (proc(5)); negative: it does not. */
static int64_t descriptor_named(const char *path)
{
    static const char *const prefixes[] = {"/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"}, *const standard[] = {
        "/dev/stdin", "/dev/stdout", "/dev/stderr"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(path, standard[i]) == 0)
            return i;
        const char *digits = path + strlen(prefixes[i]);
        if (begins_with(path, prefixes[i]) && digits[0] && digits[strspn(digits, "0123456789")] == 0)
            return strtol(digits, NULL, 10);
    }
    return -1;
}

static uint32_t process_of(const struct query_engine *q, uint32_t task)
{
    const struct known_task *k = known_task(q, task);
    while (k && k->is_thread)
        k = known_task(q, k->parent);
    return k ? k->serial : task;
}

/* A file that has nothing in it. */
static uint32_t new_file(struct tracking *t)
{
    uint32_t stream = add_stream(t, STREAM_FILE, false, NULL);
    t->d->streams.items[stream - 1].size_known = true;
    return stream;
}

static void open_stream(struct tracking *t, const struct io_call *c, uint64_t flags, uint32_t stream)
{
    struct description n = {.in = stream, .out = stream, .position_known = true, .append = flags & O_APPEND};
    if (t->d->streams.items[stream - 1].kind != STREAM_FILE) {
        n.in = (flags & O_ACCMODE) == O_WRONLY ? 0 : stream;
        n.out = (flags & O_ACCMODE) == O_RDONLY ? 0 : stream;
    }
    set_slot(t, c->task, c->result, add_description(t, n), flags & O_CLOEXEC);
}

static void open_unknown(struct tracking *t, const struct io_call *c, uint64_t flags, const char *why)
{
    set_slot(t, c->task, c->result, add_description(t, (struct description){.why = why}), flags & O_CLOEXEC);
}

static void open_file(struct tracking *t, const struct io_call *c)
{
    // openat2: flags are in memory; close-on-exec is the usual
    uint64_t flags = c->no == SYS_open ? c->args[1] : c->no == SYS_openat ? c->args[2] : c->no == SYS_creat ? O_WRONLY | O_CREAT | O_TRUNC : 0;
    cleanup(freep) char *key = key_of(t, c, 0);
    if (!key || c->no == 437) {
        open_unknown(t, c, flags, "which file was opened is not known");
        return;
    }
    if ((flags & O_TMPFILE) == O_TMPFILE) {
        open_stream(t, c, flags, new_file(t));
        return;
    }
    int64_t fd = descriptor_named(key);
    const struct description *same = fd >= 0 ? &t->d->descriptions.items[description_at(t, c->task, (uint64_t)fd)] : NULL;
    if (same && (same->in || same->out)) {
        open_stream(t, c, flags, same->in ? same->in : same->out);
        return;
    }
    if (begins_with(key, "/dev/") || begins_with(key, "/proc/") || begins_with(key, "/sys/")) {
        open_unknown(t, c, flags, same ? same->why : "it is a device, or a file that the kernel makes");
        return;
    }
    struct named *n = find_named(t, key);
    if (n && n->fifo && (flags & O_ACCMODE) != O_WRONLY && t->d->streams.items[n->stream - 1].taken)
        give_up_stream(t, n->stream, "a named pipe was opened again for reading");
    if (!n)
        n = add_named(t, steal(key), add_stream(t, STREAM_FILE, false, NULL), false);
    if (!n->fifo && (flags & O_TRUNC || (flags & O_CREAT && flags & O_EXCL)))
        cut_file(t, n->stream, (uint32_t)(c - t->d->io.calls.items), 0);
    open_stream(t, c, flags, n->stream);
}

static void make_node(struct tracking *t, const struct io_call *c)
{
    cleanup(freep) char *key = key_of(t, c, 0);
    uint64_t mode = c->args[c->no == SYS_mknodat ? 2 : 1];
    if (!key || (mode & S_IFMT) != S_IFIFO)
        return;
    forget_name(t, key);
    add_named(t, steal(key), add_stream(t, STREAM_PIPE, false, NULL), true);
}

/* rename(2), link(2), unlink(2), truncate(2): what a path stands for changes. */
static void change_name(struct tracking *t, const struct io_call *c)
{
    cleanup(freep) char *from = key_of(t, c, 0);
    bool one = c->no == SYS_unlink || c->no == SYS_unlinkat || c->no == SYS_truncate;
    cleanup(freep) char *to = one ? NULL : key_of(t, c, 1);
    if (!from || (!one && !to) || (c->no == SYS_renameat2 && c->args[4] & RENAME_EXCHANGE)) {
        // Some name stands for something else now: for which, is not known.
        vec_each (n, &t->names)
            give_up_stream(t, n->stream, "files were renamed or removed, and it is not known which");
        return;
    }
    struct named *n = find_named(t, from), was = n ? *n : (struct named){0};
    if (c->no == SYS_truncate) {
        if (n && !n->fifo)
            cut_file(t, n->stream, (uint32_t)(c - t->d->io.calls.items), c->args[1]);
        return;
    }
    bool stays = c->no == SYS_link || c->no == SYS_linkat;
    if (to)
        forget_name(t, to);
    if (to && was.stream)
        add_named(t, steal(to), was.stream, was.fifo);
    if (!stays)
        forget_name(t, from);
}

/* chdir(2): of all threads of the process. */
static void change_directory(struct tracking *t, uint32_t task)
{
    uint32_t process = process_of(t->q, task);
    t->last_directory++;
    vec_each (k, &t->q->tasks) {
        if (process_of(t->q, k->serial) == process)
            *directory_of(t, k->serial) = t->last_directory;
    }
}

/* splice(2) and the like. */
static void move_bytes(struct tracking *t, const struct io_call *c, uint64_t from, uint64_t to)
{
    static const char why[] = "splice, tee, sendfile or copy_file_range moved bytes of it";
    uint32_t source = description_at(t, c->task, from);
    struct description *d = &t->d->descriptions.items[source];
    give_up(t, description_at(t, c->task, to), why);
    if (d->in && t->d->streams.items[d->in - 1].kind == STREAM_FILE)
        d->position_known = false; // that it was read changes nothing else
    else
        give_up(t, source, why);
}

static void make_socketpair(struct tracking *t, const struct io_call *c)
{
    uint64_t type = c->args[1] & 0xf;
    const char *why = c->args[0] == AF_UNIX && (type == SOCK_STREAM || type == SOCK_DGRAM || type == SOCK_SEQPACKET)
                          ? NULL : "a pair of sockets of an unusual kind";
    uint32_t there = add_stream(t, STREAM_SOCKET, type != SOCK_STREAM, why), back = add_stream(t, STREAM_SOCKET, type != SOCK_STREAM, why);
    bool cloexec = c->args[1] & SOCK_CLOEXEC;
    set_slot(t, c->task, c->fds[0], add_description(t, (struct description){.in = back, .out = there}), cloexec);
    set_slot(t, c->task, c->fds[1], add_description(t, (struct description){.in = there, .out = back}), cloexec);
}

static void duplicate(struct tracking *t, const struct io_call *c)
{
    bool cloexec = (c->no == SYS_dup3 && c->args[2] & O_CLOEXEC) || (c->no == SYS_fcntl && c->args[1] == F_DUPFD_CLOEXEC);
    if (c->result == (int64_t)c->args[0] && c->no == SYS_dup2)
        return;
    set_slot(t, c->task, c->result, description_at(t, c->task, c->args[0]), cloexec);
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
    struct fd_table *table = c->args[2] & CLOSE_RANGE_UNSHARE ? unshare_table(t, c->task) : table_of(t, c->task);
    for (uint64_t fd = (uint32_t)c->args[0]; fd <= (uint32_t)c->args[1] && fd < table->slots.count; fd++) {
        if (c->args[2] & CLOSE_RANGE_CLOEXEC)
            table->slots.items[fd].cloexec = true;
        else
            table->slots.items[fd] = (struct fd_slot){0};
    }
}

static void end_call(struct tracking *t, struct io_call *c)
{
    if (c->result < 0)
        return;
    const struct description *d = &t->d->descriptions.items[c->description];
    bool is_file = d->in && t->d->streams.items[d->in - 1].kind == STREAM_FILE;
    if (is_file && (io_call_reads(c->no) || io_call_writes(c->no)))
        transfer_file(t, c, &t->d->descriptions.items[c->description]);
    else if (io_call_reads(c->no))
        transfer(t, c, d->in);
    else if (io_call_writes(c->no))
        transfer(t, c, d->out);
    switch (c->no) {
    case SYS_open:
    case SYS_creat:
    case SYS_openat:
    case 437: // openat2
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
        change_directory(t, c->task);
        break;
    case SYS_lseek:
        t->d->descriptions.items[c->description].position = (uint64_t)c->result;
        t->d->descriptions.items[c->description].position_known = true;
        break;
    case SYS_ftruncate:
        if (is_file)
            cut_file(t, d->in, (uint32_t)(c - t->d->io.calls.items), c->args[1]);
        break;
    case SYS_fallocate:
        give_up(t, c->description, "fallocate changed it");
        break;
    case SYS_mmap:
        if (c->args[3] & MAP_SHARED && c->args[2] & PROT_WRITE && !(c->args[3] & MAP_ANONYMOUS))
            give_up(t, description_at(t, c->task, c->args[4]), "it is changed through a mapping, too");
        break;

    case SYS_pipe:
    case SYS_pipe2:
        make_pipe(t, c);
        break;
    case SYS_socketpair:
        make_socketpair(t, c);
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
    case SYS_close:
        set_slot(t, c->task, (uint32_t)c->args[0], 0, false);
        break;
    case 436: // close_range
        close_range_of(t, c);
        break;
    case SYS_unshare:
        if (c->args[0] & CLONE_FILES)
            unshare_table(t, c->task);
        break;
    case SYS_splice:
    case SYS_copy_file_range:
        move_bytes(t, c, c->args[0], c->args[2]);
        break;
    case SYS_tee:
        move_bytes(t, c, c->args[0], c->args[1]);
        break;
    case SYS_sendfile:
        move_bytes(t, c, c->args[1], c->args[0]);
        break;
    case SYS_memfd_create:
        open_stream(t, c, c->args[1] & MFD_CLOEXEC ? O_CLOEXEC : 0, new_file(t));
        break;
    case SYS_vmsplice:
        give_up(t, description_at(t, c->task, c->args[0]), "vmsplice moved bytes of it");
        break;
    case 438: // pidfd_getfd
        for (uint32_t task = 0; task < t->tables.count; task++)
            give_up_table(t, task, "a descriptor may have been taken by another process");
        break;
    case SYS_recvmmsg:
    case SYS_sendmmsg:
        give_up(t, description_at(t, c->task, c->args[0]), "several messages were moved with one call");
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
    vec_push(&t->d->descriptions, (struct description){.why = "how the descriptor came about is not known"});
    bool begun = false;
    vec_each (p, &t->d->io.points) {
        struct io_call *c = p->kind == IO_BEGIN || p->kind == IO_END ? &t->d->io.calls.items[p->call] : NULL;
        while (t->inside.count <= p->task)
            vec_push(&t->inside, 0);
        if (!begun && p->kind == IO_EXEC)
            begin_recording(t, p->task);
        begun |= p->kind == IO_EXEC;
        switch (p->kind) {
        case IO_BEGIN:
            c->description = description_at(t, p->task, c->args[0]);
            t->inside.items[p->task] = p->call + 1;
            if (c->no == SYS_sendmsg)
                TRY(send_descriptors(t, c));
            break;
        case IO_END:
            if (c->buffered)
                c->description = description_at(t, p->task, c->args[0]);
            t->inside.items[p->task] = 0;
            if (c->buffered && c->no == SYS_sendmsg)
                TRY(send_descriptors(t, c));
            end_call(t, c);
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
            give_up_table(t, p->task, "a task with 32-bit system calls has it open, too");
            break;
        default:
            break;
        }
    }
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
    vec_deinit(&t.directory);
    vec_each (n, &t.names)
        free(n->path);
    vec_deinit(&t.names);
    if (e) {
        descriptors_free(d);
        return e;
    }
    *out = q->descriptors = d;
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
    }
    vec_deinit(&d->streams);
    vec_deinit(&d->descriptions);
    free(d);
}
