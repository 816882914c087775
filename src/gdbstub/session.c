#include "gdbstub/session.h"

#include "base/buf.h"
#include "base/log.h"
#include "gdbstub/script.h"
#include "query/query.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

/* A socket in a directory of its own, which nobody else can enter. */
struct door {
    char *dir, *path;
    int fd;
};

static void door_close(struct door *d)
{
    if (d->fd >= 0)
        close(d->fd);
    if (d->path)
        unlink(d->path);
    if (d->dir)
        rmdir(d->dir);
    free(d->path);
    free(d->dir);
}

static struct err *door_open(struct door *d)
{
    const char *base = getenv("XDG_RUNTIME_DIR");
    struct stat st;
    if (!base || stat(base, &st) != 0 || st.st_uid != geteuid())
        base = "/tmp";
    char *dir = str_format("%s/pernosco-gdb-XXXXXX", base);
    if (!mkdtemp(dir)) {
        struct err *e = err_os("cannot make a directory in %s", base);
        free(dir);
        return e;
    }
    d->dir = dir;
    d->path = str_format("%s/socket", dir);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(d->path) >= sizeof(a.sun_path))
        return err_new(ERR_LIMIT, "%s is too long a path for a socket", d->path);
    strcpy(a.sun_path, d->path);
    d->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (d->fd < 0 || bind(d->fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(d->fd, 1) != 0)
        return err_os("cannot make the socket %s", d->path);
    return NULL;
}

enum { SCRIPTS = 3 };

static char **gdb_words(const int scripts[SCRIPTS], const char *socket_path, char *const *arguments)
{
    VEC(char *) words = {0};
    vec_push(&words, xstrdup("gdb"));
    vec_push(&words, xstrdup("-q"));
    for (int i = 0; i < SCRIPTS; i++) {
        vec_push(&words, xstrdup("-ix"));
        vec_push(&words, str_format("/proc/self/fd/%d", scripts[i]));
    }
    vec_push(&words, xstrdup("-ex"));
    vec_push(&words, str_format("target extended-remote %s", socket_path));
    for (; arguments && *arguments; arguments++)
        vec_push(&words, xstrdup(*arguments));
    vec_push(&words, NULL);
    return words.items;
}

static void free_words(char ***words)
{
    for (char **w = *words; w && *w; w++)
        free(*w);
    free(*words);
}

/* Waits for a connection, or for the child to end: fd -1 then. */
static struct err *accept_from(int listening, pid_t child, int *fd_out)
{
    for (;;) {
        struct pollfd p = {listening, POLLIN, 0};
        int n = poll(&p, 1, 200);
        if (n < 0 && errno != EINTR)
            return err_os("cannot wait for gdb");
        siginfo_t info = {0};
        if (n <= 0 && waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            info.si_pid == child) {
            *fd_out = -1;
            return NULL;
        }
        if (n > 0) {
            *fd_out = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
            return *fd_out < 0 ? err_os("cannot accept gdb's connection") : NULL;
        }
    }
}

static void remove_directory(char **dir)
{
    source_directory_remove(*dir);
    free(*dir);
}

static void close_scripts(int (*scripts)[SCRIPTS])
{
    for (int i = 0; i < SCRIPTS; i++)
        closep(&(*scripts)[i]);
}

/* Sources that the recording holds come from source_dir, others from where gdb finds them. */
static struct err *make_scripts(const struct gdb_stub_options *options, const char *source_dir,
                                int scripts[SCRIPTS])
{
    cleanup(buf_deinit) struct buf begin = {0}, printers = {0}, of_trace = {0};
    struct err *e = query_lay_out_sources(options->q, source_dir, true);
    if (e && err_kind(e) != ERR_LIMIT)
        return e;
    if (e)
        log_warn("%s", err_message(e));
    err_free(e);
    if (options->scripts_of)
        TRY(source_directory_add_init(source_dir, options->scripts_of));
    TRY(query_lay_out_modules(options->q, source_dir, false));
    script_begin(&begin, source_dir);
    script_map_tree(&begin, source_dir);
    script_printers(&printers);
    script_of_trace(&of_trace, source_dir);
    TRY(script_file(&begin, &scripts[0]));
    TRY(script_file(&printers, &scripts[1]));
    return script_file(&of_trace, &scripts[2]);
}

struct err *gdb_run(const struct gdb_stub_options *options, char *const *arguments, int *status_out)
{
    cleanup(door_close) struct door door = {.fd = -1};
    cleanup(remove_directory) char *source_dir = NULL;
    cleanup(close_scripts) int scripts[SCRIPTS] = {-1, -1, -1};
    TRY(door_open(&door));
    TRY(source_directory_make(&source_dir));
    TRY(make_scripts(options, source_dir, scripts));
    cleanup(free_words) char **words = gdb_words(scripts, door.path, arguments);
    // Keys that end a program are gdb's.
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    pid_t child = fork();
    if (child < 0)
        return err_os("cannot start gdb");
    if (child == 0) {
        signal(SIGINT, SIG_DFL);
        signal(SIGQUIT, SIG_DFL);
        signal(SIGPIPE, SIG_DFL);
        for (int i = 0; i < SCRIPTS; i++)
            fcntl(scripts[i], F_SETFD, 0);
        execvp("gdb", words);
        _exit(127);
    }
    int fd;
    struct err *e = accept_from(door.fd, child, &fd);
    cleanup(gdb_stub_destroyp) struct gdb_stub *stub = NULL;
    if (!e && fd >= 0)
        e = gdb_stub_create(fd, options, &stub);
    if (!e && fd >= 0)
        gdb_stub_run(stub);
    if (e)
        kill(child, SIGTERM);
    gdb_stub_destroy(steal(stub));
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (!e && WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return err_new(ERR_NOT_FOUND, "there is no gdb; install the package gdb");
    *status_out = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return e;
}

struct err *gdb_listen(const struct gdb_stub_options *options, const char *address, int port)
{
    cleanup(closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t len = sizeof(a);
    if (fd < 0 || inet_pton(AF_INET, address, &a.sin_addr) != 1)
        return err_new(ERR_USAGE, "cannot listen on %s: not an IPv4 address", address);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 1) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        return err_os("cannot listen on %s:%d", address, port);
    printf("gdb -iex 'set sysroot target:' -ex 'target extended-remote %s:%d'\n", address,
           ntohs(a.sin_port));
    fflush(stdout);
    for (;;) {
        int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (connection < 0)
            return err_os("cannot accept a connection");
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        cleanup(gdb_stub_destroyp) struct gdb_stub *stub = NULL;
        TRY(gdb_stub_create(connection, options, &stub));
        gdb_stub_run(stub);
    }
}
