/* Files: which one a path stands for, and where in it a read or write is.
 *
 * A path is taken as it is given, together with a number for the root or working directory, which
 * fork passes on and chdir(2) changes. So two paths that lead to one file by a symbolic link are
 * two files here. */
#include "query/tracking_int.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* --- offsets --- */

static bool has_offset(const struct io_call *c)
{
    bool second = c->no == SYS_preadv2 || c->no == SYS_pwritev2;
    return c->no == SYS_pread64 || c->no == SYS_pwrite64 || c->no == SYS_preadv ||
           c->no == SYS_pwritev || (second && c->args[3] != UINT64_MAX);
}

uint32_t add_file_transfer(struct tracking *t, uint32_t number, uint32_t call, bool reads,
                           uint64_t at, bool known, uint64_t len)
{
    struct stream *s = &t->d->streams.items[number - 1];
    if (!reads && !known)
        give_up_stream(t, number, "it was written to at an offset that is not known");
    vec_push(reads ? &s->reads : &s->writes,
             (struct transfer){.call = call,
                               .offset = at,
                               .len = len,
                               .why = known ? s->why : "at which offset it was read is not known"});
    if (!reads && known && at + len > s->written)
        s->written = at + len;
    return (uint32_t)(reads ? s->reads.count : s->writes.count);
}

uint32_t add_file_transfer_here(struct tracking *t, struct description *d, uint32_t call,
                                bool reads, uint64_t len)
{
    uint32_t stream = d->in ? d->in : d->out;
    const struct stream *s = &t->d->streams.items[stream - 1];
    bool appends = !reads && d->append, known = appends ? s->size_known : d->position_known;
    uint64_t at = appends ? s->written : d->position;
    uint32_t number = add_file_transfer(t, stream, call, reads, at, known, len);
    d->position = at + len;
    d->position_known = known;
    return number;
}

void transfer_file(struct tracking *t, struct io_call *c, struct description *d)
{
    bool reads = io_call_reads(c->no);
    uint64_t len = (uint64_t)c->result;
    uint32_t number = d->in ? d->in : d->out;
    const struct stream *s = &t->d->streams.items[number - 1];
    if ((c->no == SYS_preadv2 || c->no == SYS_pwritev2) && c->args[5])
        give_up_stream(t, number, "it was read or written with unusual flags");
    if (!has_offset(c))
        c->transfer = add_file_transfer_here(t, d, call_index(t, c), reads, len);
    else if (!reads && d->append) // pwrite(2), "BUGS"
        c->transfer =
            add_file_transfer(t, number, call_index(t, c), reads, s->written, s->size_known, len);
    else
        c->transfer = add_file_transfer(t, number, call_index(t, c), reads, c->args[3], true, len);
}

void map_file(struct tracking *t, struct io_call *c)
{
    c->description = c->args[3] & MAP_ANONYMOUS ? 0 : fd_at(t, c->task, c->args[4]);
    const struct description *d = &t->d->descriptions.items[c->description];
    struct stream *s = d->in ? &t->d->streams.items[d->in - 1] : NULL;
    if (!s || s->kind != STREAM_FILE)
        return;
    bool shared = c->args[3] & MAP_SHARED;
    vec_push(&s->mappings, (struct file_mapping){.call = call_index(t, c), .shared = shared});
    s->stored_to |= shared && d->writable;
}

void cut_file(struct tracking *t, uint32_t number, uint32_t call, uint64_t size)
{
    struct stream *s = &t->d->streams.items[number - 1];
    vec_push(&s->writes, (struct transfer){
                             .call = call, .offset = size, .len = UINT64_MAX - size, .cuts = true});
    s->written = size;
    s->size_known = true;
}

/* --- names --- */

static struct task_place *place_of_task(struct tracking *t, uint32_t task)
{
    while (t->places.count <= task)
        vec_add(&t->places);
    return &t->places.items[task];
}

/* What stands for the file that a call names; heap string; NULL: that cannot be told. Relative
 * paths mean the same only in the same directory. */
static char *key_of(struct tracking *t, const struct io_call *c, unsigned idx)
{
    const char *path = c->paths[idx];
    bool at = c->no == SYS_openat || c->no == SYS_openat2 || c->no == SYS_mknodat ||
              c->no == SYS_unlinkat || c->no == SYS_renameat || c->no == SYS_renameat2 ||
              c->no == SYS_linkat;
    if (!path || !path[0])
        return NULL;
    if (path[0] == '/')
        return str_format("%u:%s", place_of_task(t, c->task)->root, path);
    if (at && (int32_t)c->args[2 * idx] != AT_FDCWD)
        return NULL;
    while (path[0] == '.' && path[1] == '/')
        path += 2;
    return str_format("%u:%s", place_of_task(t, c->task)->directory, path);
}

static struct named *find_named(struct tracking *t, const char *key)
{
    uint64_t hash = str_hash(key);
    vec_each (n, &t->names) {
        if (n->hash == hash && n->path && strcmp(n->path, key) == 0)
            return n;
    }
    return NULL;
}

/* Takes over key. */
static struct named *add_named(struct tracking *t, char *key, uint32_t stream, bool fifo)
{
    vec_push(&t->names, (struct named){key, str_hash(key), stream, fifo});
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

static bool ends_with(const char *s, const char *suffix)
{
    size_t len = strlen(s), n = strlen(suffix);
    return len >= n && strcmp(s + len - n, suffix) == 0;
}

/* A path that stands for a descriptor of the task itself (proc(5)); negative: it does not. */
static int64_t descriptor_named(const char *path)
{
    static const char *const prefixes[] = {"/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"},
                             *const standard[] = {"/dev/stdin", "/dev/stdout", "/dev/stderr"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(path, standard[i]) == 0)
            return i;
        const char *digits = path + strlen(prefixes[i]);
        if (begins_with(path, prefixes[i]) && digits[0] &&
            digits[strspn(digits, "0123456789")] == 0)
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

static void open_stream(struct tracking *t, const struct io_call *c, uint64_t flags,
                        uint32_t stream)
{
    struct description n = {.in = stream,
                            .out = stream,
                            .position_known = true,
                            .append = flags & O_APPEND,
                            .writable = (flags & O_ACCMODE) != O_RDONLY};
    if (t->d->streams.items[stream - 1].kind != STREAM_FILE) {
        n.in = (flags & O_ACCMODE) == O_WRONLY ? 0 : stream;
        n.out = (flags & O_ACCMODE) == O_RDONLY ? 0 : stream;
    }
    fd_assign(t, c->task, c->result, add_description(t, n), flags & O_CLOEXEC);
}

static void open_unknown(struct tracking *t, const struct io_call *c, uint64_t flags,
                         const char *why)
{
    fd_assign(t, c->task, c->result, add_description(t, (struct description){.why = why}),
              flags & O_CLOEXEC);
}

void open_file(struct tracking *t, const struct io_call *c)
{
    // openat2: flags are in memory; close-on-exec is the usual
    uint64_t flags = c->no == SYS_open     ? c->args[1]
                     : c->no == SYS_openat ? c->args[2]
                     : c->no == SYS_creat  ? O_WRONLY | O_CREAT | O_TRUNC
                                           : 0;
    cleanup(freep) char *key = key_of(t, c, 0);
    if (!key || c->no == SYS_openat2) {
        open_unknown(t, c, flags, "which file was opened is not known");
        return;
    }
    if ((flags & O_TMPFILE) == O_TMPFILE) {
        open_stream(t, c, flags, new_file(t));
        return;
    }
    const char *path = c->paths[0];
    int64_t fd = descriptor_named(path);
    const struct description *same =
        fd >= 0 ? &t->d->descriptions.items[fd_at(t, c->task, (uint64_t)fd)] : NULL;
    if (same && (same->in || same->out)) {
        open_stream(t, c, flags, same->in ? same->in : same->out);
        return;
    }
    if (begins_with(path, "/proc/") && ends_with(path, "/mem")) {
        uint32_t memory = add_stream(t, STREAM_MEMORY, false, NULL);
        t->d->streams.items[memory - 1].opened = call_index(t, c);
        open_stream(t, c, flags, memory);
        return;
    }
    if (begins_with(path, "/dev/") || begins_with(path, "/proc/") || begins_with(path, "/sys/")) {
        open_unknown(t, c, flags,
                     same ? same->why : "it is a device, or a file that the kernel makes");
        return;
    }
    struct named *n = find_named(t, key);
    if (n && n->fifo && (flags & O_ACCMODE) != O_WRONLY && t->d->streams.items[n->stream - 1].taken)
        give_up_stream(t, n->stream, "a named pipe was opened again for reading");
    if (!n)
        n = add_named(t, steal(key), add_stream(t, STREAM_FILE, false, NULL), false);
    if (!n->fifo && (flags & O_TRUNC || (flags & O_CREAT && flags & O_EXCL)))
        cut_file(t, n->stream, call_index(t, c), 0);
    open_stream(t, c, flags, n->stream);
}

void make_node(struct tracking *t, const struct io_call *c)
{
    cleanup(freep) char *key = key_of(t, c, 0);
    uint64_t mode = c->args[c->no == SYS_mknodat ? 2 : 1];
    if (!key || (mode & S_IFMT) != S_IFIFO)
        return;
    forget_name(t, key);
    add_named(t, steal(key), add_stream(t, STREAM_PIPE, false, NULL), true);
}

void change_name(struct tracking *t, const struct io_call *c)
{
    cleanup(freep) char *from = key_of(t, c, 0);
    bool one = c->no == SYS_unlink || c->no == SYS_unlinkat || c->no == SYS_truncate;
    cleanup(freep) char *to = one ? NULL : key_of(t, c, 1);
    if (!from || (!one && !to) || (c->no == SYS_renameat2 && c->args[4] & RENAME_EXCHANGE)) {
        // Some name stands for something else now: for which, is not known.
        vec_each (n, &t->names)
            give_up_stream(t, n->stream,
                           "files were renamed or removed, and it is not known which");
        return;
    }
    struct named *n = find_named(t, from), was = n ? *n : (struct named){0};
    if (c->no == SYS_truncate) {
        if (n && !n->fifo)
            cut_file(t, n->stream, call_index(t, c), c->args[1]);
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

void change_place(struct tracking *t, uint32_t task, bool root)
{
    uint32_t process = process_of(t->q, task);
    t->last_place++;
    vec_each (k, &t->q->tasks) {
        if (process_of(t->q, k->serial) != process)
            continue;
        place_of_task(t, k->serial)->directory = t->last_place;
        if (root)
            place_of_task(t, k->serial)->root = t->last_place;
    }
}

void open_memory(struct tracking *t, const struct io_call *c)
{
    open_stream(t, c, (c->args[1] & MFD_CLOEXEC ? O_CLOEXEC : 0) | O_RDWR, new_file(t));
}

void inherit_place(struct tracking *t, uint32_t parent, uint32_t child)
{
    struct task_place place = *place_of_task(t, parent);
    const struct known_task *k = known_task(t->q, child);
    *place_of_task(t, child) = place;
    if (k && k->clone_flags & CLONE_NEWNS)
        change_place(t, child, true);
}
