/* The coordinator's side: starts workers and talks to them. */
#include "worker/worker.h"

#include "worker/loader.h"
#include "worker/wire.h"

#include "base/log.h"
#include "x86/xstate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum {
    MEBI = 1 << 20,
    MAX_USED = 1 << 18,
    COPY_LEN = 128 << 10 /* copied at a time: the first use of each page of the window costs a fault
                            on either side */
};
#define HEAP_LEN      (64ull << 30)
#define TOP_OF_MEMORY 0x7ffffffff000ull
#define CACHE_REACH   (1ull << 30)

/* Runs that a worker was sent ahead for. */
struct ahead {
    bool writing;         /* the script */
    uint32_t script;      /* its bytes */
    uint32_t count, next; /* runs behind the first one; those before `next` have been asked for */
    uint64_t left;        /* instructions, for the next one */
    enum engine_mode mode;
    struct ahead_run {
        uint32_t queue, queue_len; /* in the script */
        uint32_t slot;
        struct regs set;
        uint64_t ticks; /* of the stop */
        uint8_t reason, insn_len;
        struct wire_stopped stopped;
    } runs[WORKER_MAX_AHEAD + 1];
    uint8_t *copy; /* of the script: the worker's own memory is not to be trusted */
    struct wire_reply last;
};

enum { MOST_OWN = 67 };
struct own_ranges {
    struct addr_range items[MOST_OWN];
    size_t count;
};

/* A worker is a child of the process that made it, as are its copies, and lives as long as that
 * holds the write end of its lifeline. */
struct worker {
    int pid, socket;
    struct own_ranges own;
    int lifeline; /* write end of a pipe */
    int window_fd;
    uint8_t *window; /* SHARED_LEN bytes shared with the worker */
    uint32_t posted; /* number of the last command */
    uint32_t queued; /* bytes in the queue */
    struct wire_patience patience;
    struct wire_peek peeks[WIRE_PEEKS];
    struct addr_range peeked[WIRE_PEEKS]; /* of these the room for peeks holds what is there now */
    struct wire_failure failure;          /* of something that was queued */
    struct ahead *ahead;
    struct worker_contents *contents; /* of its absent memory; NULL: there is none */
    struct err *unread; /* why they could not be read; the worker waits for ever, then */
    bool dead;
    bool reaped;
    int status;
};

/* --- choosing addresses --- */

static bool is_free(const struct addr_range *taken, size_t count, uint64_t start, uint64_t end)
{
    for (size_t i = 0; i < count; i++) {
        if (start < taken[i].end && end > taken[i].start)
            return false;
    }
    return true;
}

/* The lowest free place of `len` bytes at or above `from`, below `limit`; 0: none. */
static uint64_t find_hole(const struct addr_range *taken, size_t count, uint64_t from,
                          uint64_t limit, uint64_t len)
{
    uint64_t at = from;
    bool moved = true;
    while (moved) {
        moved = false;
        for (size_t i = 0; i < count; i++) {
            if (at < taken[i].end && at + len > taken[i].start) {
                if (taken[i].end >= limit)
                    return 0;
                at = (taken[i].end + MEBI - 1) & ~(uint64_t)(MEBI - 1);
                moved = true;
            }
        }
    }
    return at + len <= limit ? at : 0;
}

/* Code caches go into the gaps between what is mapped, at their ends, where the code is near. */
static void choose_caches(struct engine_layout *l, const struct addr_range *used, size_t count,
                          const struct addr_range *taken, size_t taken_count)
{
    uint64_t last = 0x10000;
    for (size_t i = 0; i <= count; i++) {
        uint64_t start = last + MEBI, end = (i < count ? used[i].start : TOP_OF_MEMORY);
        end = end > MEBI ? end - MEBI : 0;
        start = (start + MEBI - 1) & ~(uint64_t)(MEBI - 1);
        end &= ~(uint64_t)(MEBI - 1);
        if (i < count && used[i].end > last)
            last = used[i].end;
        if (end < start + 64 * MEBI)
            continue;
        struct addr_range parts[2] = {{start, end}, {0, 0}};
        if (end - start > 2 * CACHE_REACH) {
            parts[0].end = start + CACHE_REACH;
            parts[1] = (struct addr_range){end - CACHE_REACH, end};
        }
        for (int k = 0; k < 2; k++) {
            if (parts[k].start < parts[k].end && l->cache_area_count < 64 &&
                is_free(taken, taken_count, parts[k].start, parts[k].end))
                l->cache_areas[l->cache_area_count++] = parts[k];
        }
    }
}

static bool shadows_fit(uint64_t base, const struct addr_range *used, size_t count,
                        const struct addr_range *own, size_t own_count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t start = used[i].start & ~(ENGINE_SHADOW_SPAN - 1);
        uint64_t end = (used[i].end + ENGINE_SHADOW_SPAN - 1) & ~(ENGINE_SHADOW_SPAN - 1);
        if (!is_free(used, count, base + start / 8, base + end / 8) ||
            !is_free(own, own_count, base + start / 8, base + end / 8))
            return false;
    }
    return true;
}

/* Where the shadows of all that the recording uses can be; 0: nowhere. Small steps are for programs
 * that map pages all over the place. */
static uint64_t find_shadow_base(const struct addr_range *used, size_t count,
                                 const struct addr_range *own, size_t own_count)
{
    static const uint64_t steps[] = {1ull << 38, 1ull << 32};
    for (int i = 0; i < 2; i++) {
        for (uint64_t base = 1ull << 45; base < (1ull << 47) - ENGINE_SHADOW_LEN;
             base += steps[i]) {
            if (shadows_fit(base, used, count, own, own_count))
                return base;
        }
    }
    return 0;
}

/* One place for all that is there from the start. The kernel's own mappings of a new program, its
 * stack above all, are within some GiB of the top, hence above the image, and of no use when the
 * rest is mapped. */
static uint64_t find_base(const struct addr_range *used, size_t count, uint64_t len)
{
    uint64_t base = find_hole(used, count, 0x100000000000, TOP_OF_MEMORY, len);
    return base ? base : find_hole(used, count, 0x100000000, TOP_OF_MEMORY, len);
}

static struct err *choose_layout(const struct addr_range *used, size_t count, uint64_t image_len,
                                 struct wire_boot *boot)
{
    uint64_t len = image_len + MAPPED_LEN + HEAP_LEN + 16 * MEBI;
    len = (len + MEBI - 1) & ~(uint64_t)(MEBI - 1);
    uint64_t base = find_base(used, count, len);
    boot->layout.low_area = find_hole(used, count, 0x10000000, 0x7fff0000, ENGINE_LOW_AREA_LEN);
    if (!boot->layout.low_area)
        boot->layout.low_area = find_hole(used, count, 0x100000, 0x7fff0000, ENGINE_LOW_AREA_LEN);
    if (!base || !boot->layout.low_area)
        return err_new(ERR_UNSUPPORTED, "the recording leaves no address space for a worker");
    boot->layout.low_area_len = ENGINE_LOW_AREA_LEN;
    boot->keep = (struct addr_range){base, base + len};
    boot->layout.log_area = base + len - 8 * MEBI; // inside of `keep`, mapped by the engine
    // Caches avoid all of that, and nothing else of the coordinator matters by then.
    cleanup(buf_deinit) struct buf own = {0};
    struct addr_range mine[2] = {
        boot->keep, {boot->layout.low_area, boot->layout.low_area + ENGINE_LOW_AREA_LEN}};
    buf_add(&own, mine, sizeof(mine));
    boot->layout.shadow_base = find_shadow_base(used, count, mine, 2);
    if (!boot->layout.shadow_base)
        return err_new(ERR_UNSUPPORTED, "the recording leaves no address space for an index");
    boot->layout.used_count = count;
    choose_caches(&boot->layout, used, count, mine, 2);
    if (!boot->layout.cache_area_count)
        return err_new(ERR_UNSUPPORTED, "the recording leaves no address space for code caches");
    return NULL;
}

static struct own_ranges own_ranges(const struct wire_boot *boot)
{
    const struct engine_layout *l = &boot->layout;
    struct own_ranges own = {{boot->keep,
                              {l->low_area, l->low_area + l->low_area_len},
                              {l->shadow_base, l->shadow_base + ENGINE_SHADOW_LEN}},
                             3};
    for (size_t i = 0; i < l->cache_area_count; i++)
        own.items[own.count++] = l->cache_areas[i];
    return own;
}

const struct addr_range *worker_own_range(const struct worker *w, gaddr start, gaddr end)
{
    for (size_t i = 0; i < w->own.count; i++) {
        if (start < w->own.items[i].end && end > w->own.items[i].start)
            return &w->own.items[i];
    }
    return NULL;
}

/* --- birth and death --- */

static struct err *make_window(int *fd_out, uint8_t **window_out)
{
    cleanup(closep) int fd = memfd_create("pernosco-window", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, SHARED_LEN) != 0)
        return err_os("cannot make a worker's window");
    uint8_t *window = mmap(NULL, SHARED_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (window == MAP_FAILED)
        return err_os("cannot map a worker's window");
    *fd_out = steal_fd(&fd);
    *window_out = window;
    return NULL;
}

static struct err *make_shadow(int *fd_out)
{
    cleanup(closep) int fd = memfd_create("pernosco-marks", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, ENGINE_SHADOW_LEN) != 0)
        return err_os("cannot make memory for a worker's marks");
    *fd_out = steal_fd(&fd);
    return NULL;
}

static struct err *make_lifeline(int ends[2])
{
    return pipe2(ends, O_CLOEXEC) == 0 ? NULL : err_os("cannot make a worker's lifeline");
}

/* Arms the lifeline and lets the worker begin. Until then it waits on its socket and notices its
 * end. */
static void let_go(int lifeline, int pid, int socket)
{
    fcntl(lifeline, F_SETOWN, pid);
    fcntl(lifeline, F_SETSIG, SIGKILL);
    fcntl(lifeline, F_SETFL, O_ASYNC);
    while (send(socket, "", 1, MSG_NOSIGNAL) < 0 && errno == EINTR) {
    }
}

/* What the child needs to become a worker. It shares this process's memory until then, and a stack
 * of its own on the parent's. */
struct birth {
    int image, fds[4]; /* fds: kept open, the window's among them */
    char window[16];   /* number of the window's descriptor */
};

/* The child. execve(2) leaves it nothing but the program, the descriptors that are kept, and the
 * mask of signals. */
__attribute__((no_sanitize("address"))) static int become_worker(void *ctx)
{
    struct birth *b = ctx;
    char *arguments[] = {(char[]){"pernosco-worker"}, b->window, NULL}, *environment[] = {NULL};
    for (size_t i = 0; i < 4; i++)
        syscall(SYS_fcntl, b->fds[i], F_SETFD, 0);
    syscall(SYS_execveat, b->image, "", arguments, environment, AT_EMPTY_PATH);
    return WIRE_NO_EXEC;
}

/* A child without a signal at its end. Signals wait until it is on its own: their handlers would
 * run in this process's memory. The worker lets them in. */
static int start_worker(struct birth *b)
{
    enum { STACK_LEN = 64 << 10 };
    uint8_t stack[STACK_LEN] __attribute__((aligned(16)));
    sigset_t all, old;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old);
    int pid = clone(become_worker, stack + STACK_LEN, CLONE_VM | CLONE_VFORK, b);
    sigprocmask(SIG_SETMASK, &old, NULL);
    return pid;
}

static struct err *store_boot(int window_fd, const struct wire_boot *boot,
                              const struct addr_range *used)
{
    size_t len = boot->layout.used_count * sizeof(*used);
    if (pwrite(window_fd, boot, sizeof(*boot), BOOT_AT) != sizeof(*boot) ||
        pwrite(window_fd, used, len, BOOT_AT + PAGE_SIZE) != (ssize_t)len)
        return err_os("cannot tell a worker how to begin");
    return NULL;
}

struct err *worker_create(const struct addr_range *used, size_t used_count, struct worker **out)
{
    uint64_t image_len;
    if (used_count > MAX_USED)
        return err_new(ERR_LIMIT, "%zu ranges of memory; at most %d", used_count, MAX_USED);
    TRY(loader_image_len(&image_len));
    struct wire_boot boot = {0};
    TRY(choose_layout(used, used_count, image_len, &boot));
    boot.window = (boot.keep.start + image_len + MEBI - 1) & ~(uint64_t)(MEBI - 1);
    boot.heap = boot.window + MAPPED_LEN;
    boot.heap_len = HEAP_LEN;
    struct birth birth;
    TRY(loader_image_for(boot.keep.start, &birth.image));
    int ends[2], window_fd, shadow_fd;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return err_os("cannot make a worker's socket");
    cleanup(closep) int ours = ends[0], theirs = ends[1];
    TRY(make_shadow(&shadow_fd));
    cleanup(closep) int shadow_guard = shadow_fd;
    uint8_t *window;
    TRY(make_window(&window_fd, &window));
    cleanup(closep) int window_guard = window_fd;
    int life[2];
    struct err *e = make_lifeline(life);
    if (e) {
        munmap(window, SHARED_LEN);
        return e;
    }
    cleanup(closep) int life_theirs = life[0], life_ours = life[1];
    boot.socket = theirs;
    boot.lifeline = life_theirs;
    boot.layout.shadow_fd = shadow_fd;
    memcpy(birth.fds, (int[]){theirs, life_theirs, shadow_fd, window_fd}, sizeof(birth.fds));
    snprintf(birth.window, sizeof(birth.window), "%d", window_fd);
    e = store_boot(window_fd, &boot, used);
    int pid = e ? -1 : start_worker(&birth);
    if (!e && pid < 0)
        e = err_os("cannot start a worker");
    if (e) {
        munmap(window, SHARED_LEN);
        return e;
    }
    let_go(life_theirs, pid, ours);
    struct worker *w = xnew(struct worker);
    *w = (struct worker){.pid = pid,
                         .socket = steal_fd(&ours),
                         .own = own_ranges(&boot),
                         .lifeline = steal_fd(&life_ours),
                         .window_fd = steal_fd(&window_guard),
                         .window = window};
    *out = w;
    return NULL;
}

void worker_contents_release(struct worker_contents *c)
{
    if (c && atomic_fetch_sub(&c->uses, 1) == 1)
        c->destroy(c);
}

static void hold_contents(struct worker *w, struct worker_contents *c)
{
    if (c)
        atomic_fetch_add(&c->uses, 1);
    worker_contents_release(w->contents);
    w->contents = c;
}

static void release(struct worker *w)
{
    close(w->socket);
    close(w->lifeline);
    close(w->window_fd);
    munmap(w->window, SHARED_LEN);
    if (w->ahead)
        free(w->ahead->copy);
    free(w->ahead);
    hold_contents(w, NULL);
    err_free(w->unread);
    free(w);
}

void worker_destroy(struct worker *w)
{
    if (!w)
        return;
    if (!w->reaped)
        kill(w->pid, SIGKILL);
    while (!w->reaped && waitpid(w->pid, NULL, __WALL) < 0 && errno == EINTR) {
    }
    release(w);
}

uint64_t worker_memory(const struct worker *w)
{
    cleanup(freep) char *path = str_format("/proc/%d/statm", w->pid);
    cleanup(fclosep) FILE *f = fopen(path, "re");
    unsigned long size, resident, shared;
    if (!f || fscanf(f, "%lu %lu %lu", &size, &resident, &shared) != 3 || resident < shared)
        return 0;
    return (resident - shared) * PAGE_SIZE;
}

int worker_pid(const struct worker *w)
{
    return w->pid;
}

/* --- talking --- */

static struct err *died(struct worker *w)
{
    w->dead = true;
    if (w->unread)
        return steal(w->unread);
    int status = 0;
    char words[200];
    memcpy(words, w->window, sizeof(words) - 1);
    words[sizeof(words) - 1] = 0;
    bool told = false;
    for (int i = 0; i < 100 && !w->reaped; i++) {
        if (i)
            usleep(1000);
        w->reaped = waitpid(w->pid, &w->status, __WALL | WNOHANG) == w->pid;
    }
    if (!w->reaped)
        return err_new(ERR_OS, "worker died: it closed its socket");
    status = w->status;
    if (WIFSIGNALED(status))
        return err_new(ERR_OS, "worker died: killed by signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) == WIRE_NO_EXEC)
        return err_new(ERR_OS, "worker died: its program cannot be executed (vm.memfd_noexec, or a "
                               "filter of system calls?)");
    if (WEXITSTATUS(status) == WIRE_NO_MEMORY)
        return err_new(ERR_OS,
                       "worker died: its memory cannot be mapped (%llu GiB of address space are "
                       "reserved, few of them used)",
                       (unsigned long long)(HEAP_LEN >> 30));
    told = WEXITSTATUS(status) == 99;
    return err_new(ERR_OS, "worker died: %s (status %d)", told ? words : "it exited",
                   WEXITSTATUS(status));
}

/* Sends descriptors, which the worker takes before it obeys the next command, or the queued one
 * that they are for. Does not wait for room in the socket: errno is EAGAIN then. */
static bool send_fds(struct worker *w, const int *fds, size_t count)
{
    char byte = 0, control[CMSG_SPACE(4 * sizeof(int))] __attribute__((aligned(8))) = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *header = CMSG_FIRSTHDR(&m);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    ssize_t n;
    while ((n = sendmsg(w->socket, &m, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0 && errno == EINTR) {
    }
    return n == 1;
}

struct worker_fetch {
    int window_fd;
    gaddr start, end;
    uint64_t present[8]; /* bit per page */
};

/* By system calls on either side (pwrite(2), pread(2)): mappings of the window would cost each of
 * them a fault for each of its pages, which is more than the copies. */
struct err *worker_fetch_put(struct worker_fetch *to, gaddr addr, const uint8_t *pages,
                             size_t count)
{
    size_t len = count * PAGE_SIZE;
    if (addr < to->start || addr > to->end || len > to->end - addr)
        return err_new(ERR_FORMAT, "contents of %#llx that nobody asked for",
                       (unsigned long long)addr);
    size_t off = addr - to->start, first = off / PAGE_SIZE;
    if (pwrite(to->window_fd, pages, len, (off_t)(FETCH_AT + off)) != (ssize_t)len)
        return err_os("cannot give a worker its memory's contents");
    for (size_t i = first; i < first + count; i++)
        to->present[i / 64] |= 1ull << i % 64;
    return NULL;
}

/* The worker needs contents. It runs recorded code, and so is not to be believed. */
static struct err *serve_contents(struct worker *w, struct wire_control *control)
{
    gaddr start = control->fetch_start, end = control->fetch_end;
    if (!w->contents || start >= end || end - start > WIRE_FETCH_LEN || (start | end) % PAGE_SIZE)
        return err_new(ERR_OS, "a worker asked for memory that makes no sense");
    struct worker_fetch to = {w->window_fd, start, end, {0}};
    TRY(w->contents->read(w->contents, start, end, &to));
    memcpy(control->fetch_present, to.present, sizeof(to.present));
    __atomic_store_n(&control->answered, 0, __ATOMIC_SEQ_CST); // which is no command's number
    __atomic_fetch_add(&control->fetched, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &control->fetched, FUTEX_WAKE, 1, NULL, NULL, 0);
    return NULL;
}

/* Waits for the answer to the last command; false if the worker has died. */
static bool await_answer(struct worker *w, struct wire_control *control)
{
    static const struct timespec check_every = {.tv_nsec = 20000000};
    for (;;) {
        uint32_t answered = __atomic_load_n(&control->answered, __ATOMIC_ACQUIRE);
        if (answered == w->posted)
            return true;
        if (answered == WIRE_DEAD)
            return false;
        if (answered == WIRE_WANTS) {
            w->unread = serve_contents(w, control);
            if (w->unread)
                return false;
            continue;
        }
        if (w->contents && w->contents->work_ahead && w->contents->work_ahead(w->contents))
            continue;
        if (wire_spin(&control->answered, answered, &w->patience))
            continue;
        __atomic_store_n(&control->coordinator_sleeps, 1, __ATOMIC_SEQ_CST);
        bool timeout = syscall(SYS_futex, &control->answered, FUTEX_WAIT, answered, &check_every,
                               NULL, 0) < 0 &&
                       errno == ETIMEDOUT;
        __atomic_store_n(&control->coordinator_sleeps, 0, __ATOMIC_SEQ_CST);
        struct pollfd hangup = {.fd = w->socket};
        if (timeout && poll(&hangup, 1, 0) > 0 &&
            __atomic_load_n(&control->answered, __ATOMIC_ACQUIRE) != w->posted)
            return false;
    }
}

static struct err *queue_error(const struct wire_failure *f)
{
    static const char *const names[] = {[WIRE_MAP] = "map",
                                        [WIRE_UNMAP] = "unmap",
                                        [WIRE_PROTECT] = "protect",
                                        [WIRE_DONTNEED] = "discard"};
    if (f->op >= sizeof(names) / sizeof(names[0]) || !names[f->op])
        return err_new(ERR_FAULT, "no memory to write at %#llx", (unsigned long long)f->start);
    errno = f->error;
    return err_os("cannot %s %#llx-%#llx of the recorded program", names[f->op],
                  (unsigned long long)f->start, (unsigned long long)f->end);
}

static void forget_peeked(struct worker *w)
{
    memset(w->peeked, 0, sizeof(w->peeked));
}

static struct err *exchange_fds(struct worker *w, const struct wire_command *c, const int *fds,
                                size_t fd_count, struct wire_reply *reply)
{
    if (w->dead)
        return err_new(ERR_OS, "worker died before");
    if (w->failure.error)
        return queue_error(&w->failure);
    if (w->ahead && w->ahead->next < w->ahead->count && !w->ahead->script)
        return err_new(ERR_OS, "a worker was sent ahead, and something else is wanted of it");
    if (c->op != WIRE_READ)
        forget_peeked(w);
    if (fd_count && !send_fds(w, fds, fd_count))
        return died(w);
    struct wire_control *control = (struct wire_control *)(void *)(w->window + WINDOW_LEN);
    memcpy(&control->command, c, sizeof(*c));
    control->command.fd_count = (uint32_t)fd_count;
    control->queued = w->queued;
    control->script = w->ahead ? w->ahead->script : 0;
    control->failure = (struct wire_failure){0};
    w->queued = 0;
    if (w->ahead)
        w->ahead->script = 0;
    if (++w->posted == WIRE_WANTS)
        w->posted = 1;
    __atomic_store_n(&control->posted, w->posted, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&control->worker_sleeps, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &control->posted, FUTEX_WAKE, 1, NULL, NULL, 0);
    if (!await_answer(w, control))
        return died(w);
    memcpy(reply, &control->reply, sizeof(*reply));
    w->failure = control->failure;
    return w->failure.error ? queue_error(&w->failure) : NULL;
}

static struct err *exchange(struct worker *w, const struct wire_command *c,
                            struct wire_reply *reply)
{
    return exchange_fds(w, c, NULL, 0, reply);
}

/* Room for a queued command's data, or NULL: the queue is full, or the worker is dead. */
static void *enqueue_if_room(struct worker *w, uint32_t op, uint64_t start, size_t len)
{
    struct wire_queued q = {.op = op, .len = (uint32_t)len, .start = start};
    size_t padded = (len + 7) & ~(size_t)7;
    bool scripted = w->ahead && w->ahead->writing;
    uint32_t used = w->queued + (scripted ? w->ahead->script : 0);
    if (w->dead || len > QUEUE_LEN || sizeof(q) + padded > QUEUE_LEN - used)
        return NULL;
    uint8_t *at = w->window + QUEUE_AT + used;
    memcpy(at, &q, sizeof(q));
    if (padded > len)
        memset(at + sizeof(q) + padded - 8, 0, 8);
    *(scripted ? &w->ahead->script : &w->queued) += (uint32_t)(sizeof(q) + padded);
    return at + sizeof(q);
}

/* Has what is queued obeyed, and its descriptors taken, by a command of no effect. */
static struct err *empty_queue(struct worker *w)
{
    struct wire_command c = {.op = WIRE_GET_REGS};
    struct wire_reply reply;
    return exchange(w, &c, &reply);
}

/* The same; a full queue is emptied. */
static struct err *enqueue(struct worker *w, uint32_t op, uint64_t start, size_t len,
                           void **room_out)
{
    *room_out = enqueue_if_room(w, op, start, len);
    if (*room_out)
        return NULL;
    if (w->ahead && w->ahead->writing)
        return err_new(ERR_LIMIT, "a worker's script is too long");
    TRY(empty_queue(w));
    *room_out = enqueue_if_room(w, op, start, len);
    return *room_out ? NULL : err_new(ERR_LIMIT, "%zu bytes for a worker's queue", len);
}

static struct err *enqueue_range(struct worker *w, uint32_t op, gaddr start,
                                 const struct wire_range *range)
{
    void *room;
    TRY(enqueue(w, op, start, sizeof(*range), &room));
    memcpy(room, range, sizeof(*range));
    forget_peeked(w);
    return NULL;
}

/* A descriptor for what is queued next. */
static struct err *enqueue_fd(struct worker *w, int fd)
{
    if (!w->dead && w->queued < QUEUE_LEN / 2 && send_fds(w, &fd, 1))
        return NULL;
    TRY(empty_queue(w));
    return send_fds(w, &fd, 1) ? NULL : died(w);
}

static struct err *refused(const struct wire_reply *reply, const char *what, gaddr start, gaddr end)
{
    if (!reply->error)
        return NULL;
    errno = (int)reply->error;
    return err_os("cannot %s %#llx-%#llx of the recorded program", what, (unsigned long long)start,
                  (unsigned long long)end);
}

struct err *worker_fork(struct worker *w, struct worker **out)
{
    int ends[2], life[2], window_fd;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return err_os("cannot make a worker's socket");
    cleanup(closep) int ours = ends[0], theirs = ends[1];
    TRY(make_lifeline(life));
    cleanup(closep) int life_theirs = life[0], life_ours = life[1];
    int shadow_fd;
    TRY(make_shadow(&shadow_fd));
    cleanup(closep) int shadow_guard = shadow_fd;
    uint8_t *window;
    TRY(make_window(&window_fd, &window));
    cleanup(closep) int window_guard = window_fd;
    struct wire_command c = {.op = WIRE_FORK};
    struct wire_reply reply;
    int fds[4] = {theirs, window_fd, life_theirs, shadow_fd};
    struct err *e = w->queued ? empty_queue(w) : NULL; // its descriptors come first
    if (!e)
        e = exchange_fds(w, &c, fds, 4, &reply);
    if (!e && reply.error) {
        errno = (int)reply.error;
        e = err_os("cannot fork a worker");
    }
    if (e) {
        munmap(window, SHARED_LEN);
        return e;
    }
    let_go(life_theirs, (int)reply.value, ours);
    struct worker *copy = xnew(struct worker);
    *copy = (struct worker){.pid = (int)reply.value,
                            .socket = steal_fd(&ours),
                            .own = w->own,
                            .lifeline = steal_fd(&life_ours),
                            .window_fd = steal_fd(&window_guard),
                            .window = window};
    hold_contents(copy, w->contents);
    *out = copy;
    return NULL;
}

struct err *worker_map(struct worker *w, gaddr start, gaddr end, int prot, enum map_kind kind,
                       int fd, uint64_t offset)
{
    struct wire_range range = {.end = end, .prot = prot, .kind = kind, .offset = offset};
    struct stat st;
    if (kind == MAP_KIND_SHARED) {
        if (fstat(fd, &st) != 0)
            return err_os("cannot tell which shared memory this is");
        range.object = st.st_ino; // no two memfds have the same
    }
    if (kind != MAP_KIND_ANON)
        TRY(enqueue_fd(w, fd));
    return enqueue_range(w, WIRE_MAP, start, &range);
}

struct err *worker_set_isa(struct worker *w, const struct engine_isa *isa)
{
    void *room;
    TRY(enqueue(w, WIRE_ISA, 0, sizeof(*isa), &room));
    memcpy(room, isa, sizeof(*isa));
    return NULL;
}

struct err *worker_set_absent(struct worker *w, struct worker_contents *c,
                              const struct addr_range *ranges, size_t count)
{
    while (count) {
        size_t n = count < WINDOW_LEN / sizeof(*ranges) ? count : WINDOW_LEN / sizeof(*ranges);
        memcpy(w->window, ranges, n * sizeof(*ranges));
        struct wire_command command = {.op = WIRE_ABSENT, .len = n * sizeof(*ranges)};
        struct wire_reply reply;
        TRY(exchange(w, &command, &reply));
        TRY(refused(&reply, "leave out", ranges[0].start, ranges[n - 1].end));
        ranges += n;
        count -= n;
    }
    hold_contents(
        w, c); // not before: what was queued may have touched what is absent by an earlier call
    return NULL;
}

struct err *worker_fetch_all(struct worker *w)
{
    struct wire_command c = {.op = WIRE_FETCH_ALL};
    struct wire_reply reply;
    if (!w->contents)
        return NULL;
    TRY(exchange(w, &c, &reply));
    hold_contents(w, NULL);
    return NULL;
}

struct err *worker_set_cpuid(struct worker *w, const struct worker_cpuid *table, size_t count)
{
    void *room;
    if (count > WORKER_MAX_CPUID)
        return err_new(ERR_LIMIT, "%zu answers of CPUID; at most %d", count, WORKER_MAX_CPUID);
    TRY(enqueue(w, WIRE_CPUID, 0, count * sizeof(*table), &room));
    if (count)
        memcpy(room, table, count * sizeof(*table));
    return NULL;
}

struct err *worker_unmap(struct worker *w, gaddr start, gaddr end)
{
    return enqueue_range(w, WIRE_UNMAP, start, &(struct wire_range){.end = end});
}

struct err *worker_protect(struct worker *w, gaddr start, gaddr end, int prot)
{
    return enqueue_range(w, WIRE_PROTECT, start, &(struct wire_range){.end = end, .prot = prot});
}

struct err *worker_move(struct worker *w, gaddr old_start, uint64_t old_len, gaddr new_start,
                        uint64_t new_len, bool keep)
{
    struct wire_command c = {.op = WIRE_MOVE,
                             .start = old_start,
                             .len = old_len,
                             .offset = new_start,
                             .end = new_len,
                             .kind = keep};
    struct wire_reply reply;
    TRY(exchange(w, &c, &reply));
    return refused(&reply, "move", old_start, old_start + old_len);
}

struct err *worker_dontneed(struct worker *w, gaddr start, gaddr end)
{
    return enqueue_range(w, WIRE_DONTNEED, start, &(struct wire_range){.end = end});
}

void worker_peek(struct worker *w, const struct addr_range *ranges, size_t count)
{
    uint32_t at = 0;
    if (w->ahead && w->ahead->next < w->ahead->count)
        return; // the last of the runs made already brings along what was asked for
    forget_peeked(w);
    memset(w->peeks, 0, sizeof(w->peeks));
    for (size_t i = 0; i < count && i < WIRE_PEEKS; i++) {
        uint64_t len = ranges[i].end - ranges[i].start;
        if (len > PEEK_LEN - at)
            continue;
        w->peeks[i] = (struct wire_peek){.addr = ranges[i].start, .len = (uint32_t)len, .at = at};
        at += ((uint32_t)len + 7) & ~7u;
    }
}

static bool read_peeked(const struct worker *w, gaddr addr, void *out, size_t len)
{
    for (int i = 0; i < WIRE_PEEKS; i++) {
        const struct addr_range *p = &w->peeked[i];
        if (addr >= p->start && addr < p->end && len <= p->end - addr && !w->dead &&
            !w->failure.error) {
            memcpy(out, w->window + PEEK_AT + w->peeks[i].at + (addr - p->start), len);
            return true;
        }
    }
    return false;
}

struct err *worker_read(struct worker *w, gaddr addr, void *out, size_t len, size_t *done_out)
{
    size_t done = 0;
    if (read_peeked(w, addr, out, len)) {
        if (done_out)
            *done_out = len;
        return NULL;
    }
    if (done_out)
        *done_out = 0;
    while (done < len) {
        size_t n = len - done < COPY_LEN ? len - done : COPY_LEN;
        struct wire_command c = {.op = WIRE_READ, .start = addr + done, .len = n};
        struct wire_reply reply;
        TRY(exchange(w, &c, &reply));
        size_t got = reply.done < n ? reply.done : n;
        memcpy((uint8_t *)out + done, w->window, got);
        done += got;
        if (done_out)
            *done_out = done;
        if (got < n)
            return err_new(ERR_FAULT, "no memory at %#llx", (unsigned long long)(addr + done));
    }
    return NULL;
}

struct err *worker_write(struct worker *w, gaddr addr, const void *data, size_t len)
{
    bool whole = len >= 16 * PAGE_SIZE && !((addr | len) % PAGE_SIZE);
    if (whole) {
        void *room;
        TRY(enqueue(w, WIRE_EXPECT, addr, sizeof(uint64_t), &room));
        memcpy(room, &(uint64_t){len}, sizeof(uint64_t));
    }
    for (size_t done = 0; done < len;) {
        size_t n = len - done < COPY_LEN ? len - done : COPY_LEN;
        memcpy(w->window, (const uint8_t *)data + done, n);
        struct wire_command c = {.op = WIRE_WRITE, .start = addr + done, .len = n};
        struct wire_reply reply;
        TRY(exchange(w, &c, &reply));
        if (reply.error)
            return err_new(ERR_FAULT, "no memory to write at %#llx",
                           (unsigned long long)(addr + done + reply.done));
        done += n;
    }
    return NULL;
}

struct err *worker_queue_write(struct worker *w, gaddr addr, const void *data, size_t len)
{
    if (len > QUEUE_LEN / 4)
        return worker_write(w, addr, data, len);
    void *room;
    TRY(enqueue(w, WIRE_WRITE, addr, len, &room));
    memcpy(room, data, len);
    for (int i = 0; i < WIRE_PEEKS; i++) {
        if (addr < w->peeked[i].end && w->peeked[i].start < addr + len)
            w->peeked[i] = (struct addr_range){0, 0};
    }
    return NULL;
}

/* --- tasks --- */

struct err *worker_set_regs(struct worker *w, unsigned slot, const struct regs *regs)
{
    struct wire_command c = {.op = WIRE_SET_REGS, .slot = slot, .regs = *regs};
    struct wire_reply reply;
    return exchange(w, &c, &reply);
}

struct err *worker_get_regs(struct worker *w, unsigned slot, struct regs *out)
{
    struct wire_command c = {.op = WIRE_GET_REGS, .slot = slot};
    struct wire_reply reply;
    TRY(exchange(w, &c, &reply));
    *out = reply.regs;
    return NULL;
}

struct err *worker_set_xstate(struct worker *w, unsigned slot, const struct xstate *x)
{
    void *room;
    TRY(enqueue(w, WIRE_SET_XSTATE, slot, x ? XSTATE_MAX : 0, &room));
    if (x)
        memcpy(room, x->data, XSTATE_MAX);
    return NULL;
}

struct err *worker_get_xstate(struct worker *w, unsigned slot, struct xstate *out)
{
    struct wire_command c = {.op = WIRE_GET_XSTATE, .slot = slot};
    struct wire_reply reply;
    TRY(exchange(w, &c, &reply));
    out->len = xstate_len() < XSTATE_MAX ? xstate_len() : XSTATE_MAX;
    memcpy(out->data, w->window, XSTATE_MAX);
    return NULL;
}

struct err *worker_drop_task(struct worker *w, unsigned slot)
{
    struct wire_command c = {.op = WIRE_DROP_TASK, .slot = slot};
    struct wire_reply reply;
    return exchange(w, &c, &reply);
}

static struct err *check_result(struct wire_reply *reply)
{
    if (reply->result.reason > STOP_ERROR)
        return err_new(ERR_OS, "worker: nonsense in a reply");
    reply->result.error[sizeof(reply->result.error) - 1] = 0;
    return NULL;
}

/* What the last run of all brought along. */
static void take_peeked(struct worker *w, const struct wire_reply *reply)
{
    for (int i = 0; i < WIRE_PEEKS; i++) {
        uint64_t addr = w->peeks[i].addr,
                 len = reply->peeked[i] < w->peeks[i].len ? reply->peeked[i] : w->peeks[i].len;
        w->peeked[i] = (struct addr_range){addr, addr + len};
    }
}

/* --- sending ahead --- */

bool worker_ahead_begin(struct worker *w)
{
    if (w->dead || w->queued > QUEUE_LEN / 4)
        return false;
    if (!w->ahead) {
        w->ahead = xnew(struct ahead);
        w->ahead->copy = xmalloc(QUEUE_LEN);
    }
    struct ahead *a = w->ahead;
    if (a->next < a->count)
        return false;
    a->writing = true;
    a->script = a->count = a->next = 0;
    return true;
}

struct err *worker_ahead_stop(struct worker *w, const struct worker_stop *stop)
{
    struct ahead *a = w->ahead;
    void *room;
    TRY(enqueue(w, WIRE_STOPPED, 0, sizeof(*stop), &room));
    memcpy(room, stop, sizeof(*stop));
    a->runs[a->count].ticks = stop->ticks;
    a->runs[a->count].reason = stop->reason;
    a->runs[a->count].insn_len = stop->insn_len;
    a->runs[a->count + 1].queue = a->script;
    return NULL;
}

struct err *worker_ahead_run(struct worker *w, unsigned slot, const struct regs *regs)
{
    struct ahead *a = w->ahead;
    struct ahead_run *run = &a->runs[a->count + 1];
    run->queue_len = a->script - run->queue;
    run->slot = slot;
    run->set = *regs;
    void *room;
    TRY(enqueue(w, WIRE_GO, slot, sizeof(*regs), &room));
    memcpy(room, regs, sizeof(*regs));
    a->count++;
    return NULL;
}

void worker_ahead_end(struct worker *w)
{
    w->ahead->writing = false;
    memcpy(w->ahead->copy, w->window + QUEUE_AT + w->queued, w->ahead->script);
}

/* The result of a run that has been made: a stop as it was expected, or the last one. */
static struct err *take_result(struct worker *w, uint32_t idx, struct engine_result *result,
                               struct regs *regs_out)
{
    struct ahead *a = w->ahead;
    const struct ahead_run *run = &a->runs[idx];
    if (idx == a->count) {
        take_peeked(w, &a->last);
        *result = a->last.result;
        *regs_out = a->last.regs;
    } else {
        *result = (struct engine_result){.reason = (enum stop_reason)run->reason,
                                         .icount = run->stopped.icount,
                                         .ticks = run->ticks,
                                         .insn_len = run->insn_len};
        *regs_out = run->stopped.regs;
    }
    if (a->left != UINT64_MAX)
        a->left -= result->icount < a->left ? result->icount : a->left;
    return NULL;
}

/* The next run is asked for. It has to be the one that was made. */
static struct err *take_ahead(struct worker *w, unsigned slot, const struct engine_request *q,
                              const struct regs *set, struct engine_result *result,
                              struct regs *regs_out)
{
    struct ahead *a = w->ahead;
    const struct ahead_run *run = &a->runs[++a->next];
    bool same = run->slot == slot && set && memcmp(set, &run->set, sizeof(*set)) == 0 &&
                q->mode == a->mode && q->max_icount == a->left && !q->use_match && !q->use_ticks &&
                w->queued == run->queue_len &&
                memcmp(w->window + QUEUE_AT, a->copy + run->queue, w->queued) == 0;
    w->queued = 0;
    if (!same) {
        w->dead = true;
        return err_new(ERR_OS, "a worker was sent ahead to do something else");
    }
    return take_result(w, a->next, result, regs_out);
}

static struct err *keep_stops(struct worker *w, const struct engine_request *q,
                              const struct wire_reply *reply)
{
    struct ahead *a = w->ahead;
    if (reply->stopped > a->count)
        return err_new(ERR_OS, "worker: nonsense in a reply");
    a->count = reply->stopped;
    const struct wire_stopped *stopped = (const struct wire_stopped *)(const void *)w->window;
    for (uint32_t i = 0; i < a->count; i++)
        a->runs[i].stopped = stopped[i];
    a->last = *reply;
    a->mode = q->mode;
    a->left = q->max_icount;
    return NULL;
}

struct err *worker_run(struct worker *w, unsigned slot, const struct engine_request *request,
                       const struct regs *set, struct engine_result *result, struct regs *regs_out)
{
    struct regs regs;
    if (w->ahead && w->ahead->next < w->ahead->count && !w->ahead->script)
        return take_ahead(w, slot, request, set, result, regs_out ? regs_out : &regs);
    struct wire_command c = {.op = WIRE_RUN, .slot = slot};
    c.run.request = *request;
    c.run.set_regs = set != NULL;
    if (set)
        c.run.regs = *set;
    memcpy(c.run.peeks, w->peeks, sizeof(c.run.peeks));
    bool scripted = w->ahead && w->ahead->script;
    struct wire_reply reply;
    TRY(exchange(w, &c, &reply));
    TRY(check_result(&reply));
    if (scripted) {
        TRY(keep_stops(w, request, &reply));
        return take_result(w, 0, result, regs_out ? regs_out : &regs);
    }
    take_peeked(w, &reply);
    *result = reply.result;
    if (regs_out)
        *regs_out = reply.regs;
    return NULL;
}

struct err *worker_set_breaks(struct worker *w, const gaddr *pcs, size_t count, const uint64_t *rax)
{
    const struct wire_breaks breaks = {.rax = rax ? *rax : 0, .if_rax = rax != NULL};
    if (count > 64)
        return err_new(ERR_LIMIT, "%zu break addresses; at most 64", count);
    void *room;
    TRY(enqueue(w, WIRE_BREAKS, 0, sizeof(breaks) + count * sizeof(*pcs), &room));
    memcpy(room, &breaks, sizeof(breaks));
    if (count)
        memcpy((uint8_t *)room + sizeof(breaks), pcs, count * sizeof(*pcs));
    return NULL;
}

/* --- consumers --- */

struct err *worker_consume(struct worker *w, const struct consume_request *request)
{
    struct wire_command c = {.op = WIRE_CONSUME};
    c.consume.calls = request->calls;
    c.consume.blocks = request->blocks;
    c.consume.keep_last = request->keep_last;
    c.consume.keep_rows = request->keep_rows;
    c.consume.loads = request->loads;
    c.consume.no_stores = request->no_stores;
    c.consume.watch_count = request->watch_count;
    c.consume.max_rows = request->max_rows;
    if (request->watch_count > 1024)
        return err_new(ERR_LIMIT, "%zu watched ranges; at most 1024", request->watch_count);
    c.consume.passed_count =
        request->passed_count < WORKER_MOST_PASSED ? request->passed_count : WORKER_MOST_PASSED;
    if (request->watch_count)
        memcpy(w->window, request->watch, request->watch_count * sizeof(*request->watch));
    if (c.consume.passed_count)
        memcpy((uint8_t *)w->window + request->watch_count * sizeof(*request->watch),
               request->passed, c.consume.passed_count * sizeof(*request->passed));
    struct wire_reply reply;
    return exchange(w, &c, &reply);
}

struct err *worker_set_icount(struct worker *w, uint64_t stamp, uint64_t icount_base)
{
    void *room;
    TRY(enqueue(w, WIRE_CLOCK, stamp, sizeof(icount_base), &room));
    memcpy(room, &icount_base, sizeof(icount_base));
    return NULL;
}

/* Fetches all rows of a stream; out NULL: they are dropped. */
static struct err *take(struct worker *w, enum wire_stream stream, struct buf *out)
{
    for (;;) {
        struct wire_command c = {.op = WIRE_TAKE, .kind = stream};
        struct wire_reply reply;
        TRY(exchange(w, &c, &reply));
        if (reply.value > WINDOW_LEN)
            return err_new(ERR_OS, "worker: nonsense in a reply");
        if (out) {
            if (!buf_try_reserve(out, reply.value))
                return err_new(ERR_LIMIT, "no memory for a worker's rows");
            buf_add(out, w->window, reply.value);
        }
        if (!reply.done || !reply.value)
            return NULL;
    }
}

struct err *worker_take_rows(struct worker *w, struct buf *accesses, struct buf *calls,
                             struct buf *blocks)
{
    if (accesses)
        TRY(take(w, STREAM_ACCESSES, accesses));
    if (calls)
        TRY(take(w, STREAM_CALLS, calls));
    if (blocks)
        TRY(take(w, STREAM_BLOCKS, blocks));
    return NULL;
}

struct err *worker_reset_index(struct worker *w, bool stacks)
{
    struct wire_command c = {.op = WIRE_RESET_INDEX, .kind = stacks};
    struct wire_reply reply;
    return exchange(w, &c, &reply);
}

struct err *worker_push_call(struct worker *w, const struct stack_entry *entry)
{
    struct wire_command c = {.op = WIRE_PUSH_CALL, .slot = entry->slot};
    struct wire_reply reply;
    memcpy(w->window, entry, sizeof(*entry));
    return exchange(w, &c, &reply);
}

struct err *worker_take_index(struct worker *w, struct buf *block_counts, struct buf *written_pages)
{
    TRY(take(w, STREAM_COUNTS, block_counts));
    return take(w, STREAM_PAGES, written_pages);
}

struct err *worker_set_stack(struct worker *w, unsigned slot, const struct stack_entry *entries,
                             size_t count)
{
    size_t most = WINDOW_LEN / sizeof(*entries);
    if (count > most) {
        entries += count - most;
        count = most;
    }
    struct wire_command c = {.op = WIRE_SET_STACK, .slot = slot, .len = count * sizeof(*entries)};
    if (count)
        memcpy(w->window, entries, count * sizeof(*entries));
    struct wire_reply reply;
    return exchange(w, &c, &reply);
}

struct err *worker_take_stack(struct worker *w, struct buf *entries, struct buf *floors)
{
    TRY(take(w, STREAM_STACK, entries));
    return floors ? take(w, STREAM_FLOORS, floors) : NULL;
}

size_t worker_hook_row_len(const struct hook_request *request)
{
    size_t len = sizeof(struct hook_row);
    for (size_t i = 0; i < request->memory_count; i++)
        len += (request->memory[i].len + 7u) & ~7u;
    for (size_t i = 0; i < request->print_count; i++)
        len += sizeof(struct hook_print) + request->print_lens[i];
    return len;
}

/* Filling the window, with padding to 8 bytes behind each piece. */
struct filling {
    uint8_t *window;
    size_t len;
};

/* data NULL: zeros. */
static struct err *fill(struct filling *f, const void *data, size_t len)
{
    size_t padded = (len + 7) & ~(size_t)7;
    if (padded > WINDOW_LEN - f->len)
        return err_new(ERR_LIMIT, "hooks: their programs are too many");
    if (len && data)
        memcpy(f->window + f->len, data, len);
    f->len += padded;
    return NULL;
}

static struct err *fill_program(struct filling *f, const struct program *p, size_t most_out)
{
    const char *wrong = !p->count               ? NULL
                        : p->out_len > most_out ? "more output than there is room for"
                                                : program_check(p);
    if (wrong)
        return err_new(ERR_USAGE, "hooks: a program has %s", wrong);
    struct wire_program head = {.op_count = (uint32_t)p->count,
                                .data_len = (uint32_t)p->data_len,
                                .out_len = (uint32_t)p->out_len};
    if (!p->count)
        head = (struct wire_program){0};
    TRY(fill(f, &head, sizeof(head)));
    TRY(fill(f, p->ops, head.op_count * sizeof(*p->ops)));
    return fill(f, p->data, head.data_len);
}

/* The number of the programs of address `idx`, which are shared with an earlier one or are the
 * next. */
static uint64_t number_of_programs(const struct hook_request *request, const uint64_t *numbers,
                                   size_t idx, uint64_t next)
{
    if (!request->programs || !request->programs[idx])
        return WIRE_NO_PROGRAMS;
    for (size_t i = idx; i--;) {
        if (request->programs[i] == request->programs[idx])
            return numbers[i];
    }
    return next;
}

static struct err *fill_hooks(struct filling *f, const struct hook_request *request,
                              uint64_t *programs_count_out)
{
    uint64_t count = 0;
    TRY(fill(f, request->pcs, request->pc_count * sizeof(*request->pcs)));
    uint64_t *numbers = (uint64_t *)(void *)(f->window + f->len);
    TRY(fill(f, NULL, request->pc_count * sizeof(*numbers)));
    TRY(fill(f, request->memory, request->memory_count * sizeof(*request->memory)));
    for (size_t i = 0; i < request->print_count; i++)
        TRY(fill(f, &(uint64_t){request->print_lens[i]}, sizeof(uint64_t)));
    for (size_t i = 0; i < request->pc_count; i++) {
        numbers[i] = number_of_programs(request, numbers, i, count);
        if (numbers[i] != count)
            continue;
        count++;
        TRY(fill_program(f, &request->programs[i]->condition, 0));
        for (size_t k = 0; k < request->print_count; k++)
            TRY(fill_program(f, &request->programs[i]->prints[k], request->print_lens[k]));
    }
    *programs_count_out = count;
    return NULL;
}

struct err *worker_set_hooks(struct worker *w, const struct hook_request *request)
{
    struct wire_command c = {.op = WIRE_HOOKS};
    c.hooks.pc_count = request->pc_count;
    c.hooks.entry_count = request->entry_count;
    c.hooks.memory_count = request->memory_count;
    c.hooks.print_count = request->print_count;
    c.hooks.max_rows = request->max_rows;
    c.hooks.keep_last = request->keep_last;
    c.hooks.keep_rows = request->keep_rows;
    c.hooks.regs = request->regs;
    c.hooks.count_only = request->count_only;
    if (request->pc_count > 2048 || request->memory_count > 32 ||
        request->print_count > HOOK_MAX_PRINTS)
        return err_new(
            ERR_LIMIT,
            "%zu hooks with %zu pieces of memory and %zu prints; at most 2048, 32 and %d",
            request->pc_count, request->memory_count, request->print_count, HOOK_MAX_PRINTS);
    struct filling f = {.window = w->window};
    TRY(fill_hooks(&f, request, &c.hooks.programs_count));
    c.len = f.len;
    struct wire_reply reply;
    TRY(exchange(w, &c, &reply));
    return reply.error ? err_new(ERR_LIMIT, "hooks: their programs are too many") : NULL;
}

struct err *worker_take_hook_rows(struct worker *w, struct buf *rows)
{
    return take(w, STREAM_HOOKS, rows);
}

struct err *worker_hook_counts(struct worker *w, struct hook_counts *out)
{
    cleanup(buf_deinit) struct buf row = {0};
    TRY(take(w, STREAM_HOOK_COUNTS, &row));
    if (row.len != sizeof(*out))
        return err_new(ERR_OS, "worker: nonsense in a reply");
    memcpy(out, row.data, sizeof(*out));
    return NULL;
}

struct err *worker_set_steps(struct worker *w, const struct step_request *request)
{
    static const struct step_request nothing;
    const struct step_request *q = request ? request : &nothing;
    struct wire_command c = {.op = WIRE_STEPS, .len = q->capture_count};
    c.steps.record = q->record;
    c.steps.vectors = q->vectors;
    c.steps.one_slot = q->one_slot;
    c.steps.slot = q->slot;
    c.steps.max_rows = q->max_rows;
    if (q->capture_count > 100000)
        return err_new(ERR_LIMIT, "%zu captures; at most 100000", q->capture_count);
    for (size_t i = 0; i < q->capture_count; i++) {
        if (q->captures[i].len > 4096)
            return err_new(ERR_LIMIT, "capture of %llu bytes; at most 4096",
                           (unsigned long long)q->captures[i].len);
    }
    if (q->capture_count)
        memcpy(w->window, q->captures, q->capture_count * sizeof(*q->captures));
    struct wire_reply reply;
    return exchange(w, &c, &reply);
}

struct err *worker_take_steps(struct worker *w, struct buf *rows, struct buf *memory)
{
    if (rows)
        TRY(take(w, STREAM_STEPS, rows));
    return memory ? take(w, STREAM_STEP_MEMORY, memory) : NULL;
}

struct err *worker_dump_blocks(struct worker *w, bool on)
{
    struct wire_command c = {.op = WIRE_DUMP, .kind = on};
    struct wire_reply reply;
    return exchange(w, &c, &reply);
}

struct err *worker_take_dump(struct worker *w, struct buf *out)
{
    return take(w, STREAM_DUMP, out);
}

/* --- snapshots --- */

static struct err *snapshot(struct worker *w, enum wire_snapshot what, unsigned idx, size_t len)
{
    struct wire_command c = {.op = WIRE_SNAPSHOT, .kind = what, .slot = idx, .len = len};
    struct wire_reply reply;
    TRY(exchange(w, &c, &reply));
    return reply.error ? err_new(ERR_LIMIT, "too many pages for a snapshot") : NULL;
}

struct err *worker_snapshot_pages(struct worker *w, const gaddr *pages, size_t count)
{
    for (size_t done = 0; done < count;) {
        size_t n =
            count - done < COPY_LEN / sizeof(*pages) ? count - done : COPY_LEN / sizeof(*pages);
        memcpy(w->window, pages + done, n * sizeof(*pages));
        TRY(snapshot(w, SNAPSHOT_ADD, 0, n * sizeof(*pages)));
        done += n;
    }
    return NULL;
}

struct err *worker_snapshot_take(struct worker *w, unsigned idx)
{
    return snapshot(w, SNAPSHOT_TAKE, idx, 0);
}

struct err *worker_snapshot_restoring(struct worker *w)
{
    return snapshot(w, SNAPSHOT_RESTORING, 0, 0);
}

struct err *worker_snapshot_restore(struct worker *w, unsigned idx)
{
    return snapshot(w, SNAPSHOT_RESTORE, idx, 0);
}

struct err *worker_snapshot_fetched(struct worker *w, bool keep)
{
    return snapshot(w, SNAPSHOT_FETCHED, keep, 0);
}

struct err *worker_snapshot_forget(struct worker *w)
{
    return snapshot(w, SNAPSHOT_FORGET, 0, 0);
}

struct err *worker_stats(struct worker *w, struct engine_stats *out)
{
    struct wire_command c = {.op = WIRE_STATS};
    struct wire_reply reply;
    TRY(exchange(w, &c, &reply));
    memcpy(out, w->window, sizeof(*out));
    return NULL;
}

struct err *worker_probe(struct worker *w, uint64_t number)
{
    struct wire_command c = {.op = WIRE_PROBE, .start = number};
    struct wire_reply reply;
    return exchange(w, &c, &reply);
}
