/* The launcher is a process with one thread and a loop: it hears requests on a socket, and holds
 * the running gdbs.
 *
 *     server --- requests: a size, with one end of the new gdb's `life` ---> launcher --- fork, confine, execve ---> gdb
 *        ^                                                                       |
 *        +---- `life`: {kind, text} with the masters of three terminals ---------+--- later a gdb_end
 *
 * A gdb that shall end (its `life` was closed, or the server is gone) is killed. It cannot leave
 * children behind, as it may make none. */
#include "gdbstub/launcher.h"

#include "base/buf.h"
#include "base/confine.h"
#include "gdbstub/script.h"
#include "query/query.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>

enum { MASTERS = 3, MOST_RUNNING = 64 };

struct gdb_launcher {
    int requests;
    pid_t pid;
    char *source_dir;
    pthread_mutex_t lock;
    bool laid_out; /* guarded by the lock: the sources have been */
};

struct request {
    unsigned columns, rows;
};
struct reply {
    int failed; /* 1 + an err_kind, of which `why` tells; 0: descriptors come with it */
    char why[200];
};

/* --- descriptors over sockets --- */

static bool send_with(int socket, const void *data, size_t len, const int *fds, size_t count)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int) * MASTERS)];
    } control = {0};
    struct iovec part = {(void *)(uintptr_t)data, len};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    if (count) {
        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        *CMSG_FIRSTHDR(&m) = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                                              .cmsg_type = SCM_RIGHTS,
                                              .cmsg_len = CMSG_LEN(sizeof(int) * count)};
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), fds, sizeof(int) * count);
    }
    return sendmsg(socket, &m, MSG_NOSIGNAL) == (ssize_t)len;
}

/* fds: `most` of them, -1 where none came. */
static bool receive_with(int socket, void *data, size_t len, int *fds, size_t most)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int) * MASTERS)];
    } control;
    struct iovec part = {data, len};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = CMSG_SPACE(sizeof(int) * most)};
    ssize_t n;
    for (size_t i = 0; i < most; i++)
        fds[i] = -1;
    do
        n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return false;
    const struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
        memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
    return n == (ssize_t)len;
}

/* --- a gdb --- */

/* slave: kept open until gdb has ended, since reading from a master fails while nobody has the
 * other side. */
struct terminal {
    int master, slave;
    char name[32];
};

static struct err *terminal_open(bool raw, struct terminal *out)
{
    cleanup(closep) int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave = -1;
    struct termios settings;
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0 ||
        ptsname_r(master, out->name, sizeof(out->name)) != 0 ||
        (slave = open(out->name, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0 ||
        tcgetattr(slave, &settings) != 0)
        return err_os("cannot make a terminal");
    if (raw) {
        cfmakeraw(&settings);
        tcsetattr(slave, TCSANOW, &settings);
    }
    out->master = steal_fd(&master);
    out->slave = steal_fd(&slave);
    return NULL;
}

struct gdb {
    pid_t pid;
    int pidfd, life;
    struct terminal user, commands, link;
};

/* The process that starts them. */
struct launcher {
    const struct gdb_launcher_options *options;
    const char *source_dir;
    VEC(struct gdb *) running;
};

static void gdb_release(struct gdb *g)
{
    const int fds[] = {g->pidfd,           g->life,           g->user.master, g->user.slave,
                       g->commands.master, g->commands.slave, g->link.master, g->link.slave};
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    free(g);
}

/* What gdb does first. How the page's focus moves it: see pilot.c. */
static struct err *make_script(const struct launcher *l, const struct gdb *g, int *out)
{
    cleanup(buf_deinit) struct buf b = {0};
    script_begin(&b, l->source_dir);
    buf_str(&b, "set pagination off\n");
    script_map_tree(&b, l->source_dir);
    for (size_t i = 0; i < l->options->source_map_count; i++)
        script_map_sources(&b, l->options->source_maps[2 * i], l->options->source_maps[2 * i + 1]);
    buf_printf(&b,
               "new-ui mi2 %s\necho \\033[A\\033[2K\n" /* what that says is no news */
               "target extended-remote %s\n",
               g->commands.name, g->link.name);
    return script_file(&b, out);
}

/* The first one on the user's PATH; outside of /usr it could not be executed. NULL: there is none.
 */
static char *find_gdb(void)
{
    const char *path = getenv("PATH");
    for (size_t len; path && *path; path += len + (path[len] == ':')) {
        len = strcspn(path, ":");
        char *name = str_format("%.*s/gdb", (int)len, path);
        if (*path == '/' && access(name, X_OK) == 0)
            return name;
        free(name);
    }
    return NULL;
}

static void limit(int resource, rlim_t value)
{
    struct rlimit l = {value, value};
    setrlimit(resource, &l);
}

static struct err *confine_gdb(const struct launcher *l, const struct gdb *g)
{
    const struct gdb_launcher_options *o = l->options;
    VEC(const char *) readable = {0};
    const char *const more[] = {o->trace_dir,    l->source_dir,    "/etc/ld.so.cache",
                                "/etc/terminfo", "/etc/localtime", "/dev/urandom"};
    for (size_t i = 0; i < ARRAY_COUNT(more); i++)
        vec_push(&readable, more[i]);
    for (size_t i = 0; i < o->source_map_count; i++)
        vec_push(&readable, o->source_maps[2 * i + 1]);
    const char *const writable[] = {"/dev/null", "/dev/tty", g->user.name, g->commands.name,
                                    g->link.name};
    const struct confine_files files = {readable.items, readable.count, writable,
                                        ARRAY_COUNT(writable)};
    struct err *e = confine_program(&files);
    vec_deinit(&readable);
    return e;
}

/* Scripts that gdb reads before it connects. */
struct scripts {
    int connect, printers, of_trace;
};

static void scripts_close(struct scripts *s)
{
    closep(&s->connect);
    closep(&s->printers);
    closep(&s->of_trace);
}

static struct err *make_scripts(const struct launcher *l, const struct gdb *g, struct scripts *out)
{
    cleanup(buf_deinit) struct buf printers = {0}, of_trace = {0};
    script_printers(&printers);
    script_of_trace(&of_trace, l->source_dir);
    TRY(script_file(&printers, &out->printers));
    TRY(script_file(&of_trace, &out->of_trace));
    return make_script(l, g, &out->connect);
}

/* In the new process; only returns if it fails. */
static struct err *become_gdb(const struct launcher *l, const struct gdb *g, const char *program,
                              const struct scripts *s)
{
    enum { MEMORY_GIB = 4, FILES = 256 };
    cleanup(freep) char *connect = str_format("/proc/self/fd/%d", s->connect),
                        *printers = str_format("/proc/self/fd/%d", s->printers),
                        *of_trace = str_format("/proc/self/fd/%d", s->of_trace);
    const char *const words[] = {"gdb", "-q",     "-nx", "-ix",   printers,
                                 "-ix", of_trace, "-x",  connect, NULL};
    const char *const environment[] = {"TERM=xterm-256color",
                                       "LANG=C.UTF-8",
                                       "PATH=/usr/bin:/bin",
                                       "HOME=/nonexistent",
                                       "SHELL=/bin/sh",
                                       "INPUTRC=/dev/null",
                                       "PYTHONDONTWRITEBYTECODE=1",
                                       NULL};
    prctl(PR_SET_PDEATHSIG, SIGKILL); // if the launcher dies, of whatever
    if (setsid() < 0 || ioctl(g->user.slave, TIOCSCTTY, 0) != 0 || dup2(g->user.slave, 0) < 0 ||
        dup2(g->user.slave, 1) < 0 || dup2(g->user.slave, 2) < 0 ||
        fcntl(s->connect, F_SETFD, 0) != 0 || fcntl(s->printers, F_SETFD, 0) != 0 ||
        fcntl(s->of_trace, F_SETFD, 0) != 0)
        return err_os("cannot prepare gdb");
    limit(RLIMIT_AS, (rlim_t)MEMORY_GIB << 30);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_NOFILE, FILES);
    TRY(confine_gdb(l, g)); // to paths that may be relative
    if (chdir("/") != 0)
        return err_os("cannot leave the directory");
    execve(program, (char *const *)(uintptr_t)words, (char *const *)(uintptr_t)environment);
    return err_os("cannot start %s", program);
}

static struct err *start_gdb(const struct launcher *l, const struct request *r, struct gdb *g)
{
    cleanup(scripts_close) struct scripts scripts = {-1, -1, -1};
    cleanup(freep) char *program = find_gdb();
    if (!program)
        return err_new(ERR_NOT_FOUND, "there is no gdb; install the package gdb");
    TRY(terminal_open(false, &g->user));
    TRY(terminal_open(true, &g->commands));
    TRY(terminal_open(true, &g->link));
    struct winsize size = {.ws_col = (uint16_t)r->columns, .ws_row = (uint16_t)r->rows};
    ioctl(g->user.master, TIOCSWINSZ, &size);
    TRY(make_scripts(l, g, &scripts));
    g->pid = fork();
    if (g->pid < 0)
        return err_os("cannot start gdb");
    if (g->pid == 0) {
        struct err *e = become_gdb(l, g, program, &scripts);
        dprintf(g->user.slave, "%s\n", err_message(e));
        _exit(127);
    }
    g->pidfd = (int)syscall(SYS_pidfd_open, g->pid, 0);
    return NULL;
}

/* --- the loop --- */

static void end_gdb(struct launcher *l, size_t index)
{
    struct gdb *g = l->running.items[index];
    struct gdb_end end = {0};
    kill(g->pid, SIGKILL);
    while (waitpid(g->pid, &end.status, 0) < 0 && errno == EINTR) {
    }
    // What gdb wrote last can still be read from the masters, which the other side has.
    send_with(g->life, &end, sizeof(end), NULL, 0);
    gdb_release(g);
    l->running.items[index] = l->running.items[--l->running.count];
}

static void take_request(struct launcher *l, const struct request *r, int life)
{
    struct gdb *g = xnew(struct gdb);
    *g = (struct gdb){.pidfd = -1,
                      .life = life,
                      .user = {-1, -1, ""},
                      .commands = {-1, -1, ""},
                      .link = {-1, -1, ""}};
    struct err *e =
        l->running.count >= MOST_RUNNING ? err_new(ERR_LIMIT, "too many gdbs") : start_gdb(l, r, g);
    struct reply reply = {0};
    if (e) {
        reply.failed = 1 + (int)err_kind(e);
        snprintf(reply.why, sizeof(reply.why), "%s", err_message(e));
        send_with(life, &reply, sizeof(reply), NULL, 0);
        err_free(e);
        gdb_release(g);
        return;
    }
    const int masters[MASTERS] = {g->user.master, g->commands.master, g->link.master};
    send_with(life, &reply, sizeof(reply), masters, MASTERS); // if nobody hears it, life is closed
    close(g->user.master);
    close(g->user.slave);
    close(g->commands.master);
    close(g->link.master);
    g->user.master = g->user.slave = g->commands.master = g->link.master = -1;
    vec_push(&l->running, g);
}

static void launch_until_closed(struct launcher *l, int requests)
{
    for (bool open = true; open;) {
        VEC(struct pollfd) waiting = {0};
        vec_push(&waiting, (struct pollfd){requests, POLLIN, 0});
        vec_each (g, &l->running) {
            vec_push(&waiting, (struct pollfd){(*g)->life, POLLIN, 0});
            vec_push(&waiting, (struct pollfd){(*g)->pidfd, POLLIN, 0});
        }
        if (poll(waiting.items, waiting.count, -1) > 0) {
            for (size_t i = l->running.count;
                 i-- > 0;) { // last first: the last takes the place of one that ends
                if (waiting.items[1 + 2 * i].revents || waiting.items[2 + 2 * i].revents)
                    end_gdb(l, i);
            }
            struct request r;
            int life;
            if (waiting.items[0].revents) {
                open = receive_with(requests, &r, sizeof(r), &life, 1);
                if (open && life >= 0)
                    take_request(l, &r, life);
            }
        }
        vec_deinit(&waiting);
    }
    while (l->running.count)
        end_gdb(l, 0);
    vec_deinit(&l->running);
}

/* The new process has nothing of its maker's but the socket: no files, no listening sockets, no
 * terminal, whose ^C is the maker's. */
static void be_launcher(const struct gdb_launcher_options *options, const char *source_dir,
                        int requests)
{
    struct launcher l = {.options = options, .source_dir = source_dir};
    prctl(PR_SET_NAME, "gdb-launcher");
    setsid();
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_DFL);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), kept = 3;
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    if (requests != kept)
        dup3(requests, kept, O_CLOEXEC);
    syscall(SYS_close_range, kept + 1, ~0u, 0);
    launch_until_closed(&l, kept);
    source_directory_remove(source_dir);
}

struct err *gdb_launcher_start(const struct gdb_launcher_options *options,
                               struct gdb_launcher **out)
{
    int pair[2];
    cleanup(freep) char *source_dir = NULL;
    TRY(source_directory_make(&source_dir));
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        struct err *e = err_os("cannot make a socket for gdb");
        source_directory_remove(source_dir);
        return e;
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        struct err *e = err_os("cannot make a process for gdb");
        close(pair[0]);
        close(pair[1]);
        source_directory_remove(source_dir);
        return e;
    }
    if (pid == 0) {
        be_launcher(options, source_dir, pair[1]);
        _exit(0);
    }
    close(pair[1]);
    struct gdb_launcher *l = xnew(struct gdb_launcher);
    *l = (struct gdb_launcher){.requests = pair[0], .pid = pid, .source_dir = steal(source_dir)};
    pthread_mutex_init(&l->lock, NULL);
    *out = l;
    return NULL;
}

void gdb_launcher_stop(struct gdb_launcher *l)
{
    if (!l)
        return;
    close(l->requests);
    while (waitpid(l->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    pthread_mutex_destroy(&l->lock);
    free(l->source_dir);
    free(l);
}

const char *gdb_launcher_source_dir(const struct gdb_launcher *l)
{
    return l->source_dir;
}

struct err *gdb_launcher_lay_out(struct gdb_launcher *l, const struct query_engine *q,
                                 const char *trace_dir)
{
    pthread_mutex_lock(&l->lock);
    struct err *e = l->laid_out ? NULL : source_directory_add_init(l->source_dir, trace_dir);
    if (!e && !l->laid_out)
        e = query_lay_out_modules(q, l->source_dir, true);
    if (!e && !l->laid_out)
        e = query_lay_out_sources(q, l->source_dir, false);
    l->laid_out = true; // what is there is good
    pthread_mutex_unlock(&l->lock);
    return e;
}

struct err *gdb_launch(struct gdb_launcher *l, unsigned columns, unsigned rows,
                       struct gdb_process *out)
{
    int pair[2], masters[MASTERS];
    struct request r = {columns, rows};
    struct reply reply = {0};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return err_os("cannot make a socket for gdb");
    bool sent = send_with(l->requests, &r, sizeof(r), &pair[1], 1);
    close(pair[1]);
    if (!sent || !receive_with(pair[0], &reply, sizeof(reply), masters, MASTERS) || reply.failed ||
        masters[MASTERS - 1] < 0) {
        close(pair[0]);
        reply.why[sizeof(reply.why) - 1] = 0;
        return reply.failed ? err_new((enum err_kind)(reply.failed - 1), "%s", reply.why)
                            : err_new(ERR_OS, "what starts gdb has ended");
    }
    *out = (struct gdb_process){masters[0], masters[1], masters[2], pair[0]};
    return NULL;
}

void gdb_process_close(struct gdb_process *p)
{
    const int fds[] = {p->life, p->terminal, p->commands, p->link};
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    *p = (struct gdb_process){-1, -1, -1, -1};
}
