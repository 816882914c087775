#include "base/confine.h"

#include "base/buf.h"
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static char dir[64];

static int make_dirs(void **state)
{
    strcpy(dir, "/tmp/confine-test-XXXXXX");
    return !mkdtemp(dir) || chdir(dir) != 0 || mkdir("in", 0700) != 0 || mkdir("out", 0700) != 0 ||
           mkdir("in/below", 0700) != 0 || close(open("in/file", O_CREAT | O_WRONLY, 0600)) != 0 ||
           close(open("out/file", O_CREAT | O_WRONLY, 0600)) != 0;
}

static int remove_dirs(void **state)
{
    cleanup(freep) char *command = str_format("rm -r %s", dir);
    return system(command);
}

static bool has_landlock(void)
{
    return syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */) >
           0;
}

/* 0 or errno. */
static int opened(const char *path, int flags)
{
    int fd = open(path, flags, 0600);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

static int outcome(long result)
{
    return result < 0 ? errno : 0;
}

/* Each test in a process of its own, for what is given up does not come back. */
static void in_child(void (*body)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        body();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void must_be(int got, int expected, int line)
{
    if (got != expected) {
        fprintf(stderr, "line %d: %s instead of %s\n", line, strerror(got), strerror(expected));
        _exit(1);
    }
}
#define MUST_BE(got, expected) must_be(got, expected, __LINE__)

static void confine_to_in(void)
{
    const char *const writable[] = {"in", NULL};
    struct err *e = confine(writable, 2);
    if (e) {
        fprintf(stderr, "%s\n", err_message(e));
        _exit(1);
    }
}

static void write_in_and_out(void)
{
    confine_to_in();
    MUST_BE(opened("in/file", O_RDWR), 0);
    MUST_BE(opened("in/below/new", O_CREAT | O_WRONLY), 0);
    MUST_BE(outcome(rename("in/below/new", "in/new")), 0);
    MUST_BE(outcome(rename("in/below", "in/renamed")), 0);
    MUST_BE(outcome(truncate("in/file", 10)), 0);
    MUST_BE(outcome(unlink("in/new")), 0);
    MUST_BE(outcome(rmdir("in/renamed")), 0);
    MUST_BE(outcome(mkdir("in/below", 0700)), 0);
    MUST_BE(opened("out/file", O_RDONLY), 0);
    MUST_BE(opened("out/file", O_RDWR), EACCES);
    MUST_BE(opened("out/new", O_CREAT | O_WRONLY), EACCES);
    MUST_BE(outcome(unlink("out/file")), EACCES);
    MUST_BE(outcome(mkdir("out/new", 0700)), EACCES);
    MUST_BE(outcome(symlink("in/file", "out/link")), EACCES);
    MUST_BE(outcome(chmod("out/file", 0777)), EPERM);
    MUST_BE(outcome(chown("out/file", 0, 0)), EPERM);
    MUST_BE(outcome(utimensat(AT_FDCWD, "out/file", NULL, 0)), EPERM);
}

static void only_some_is_written(void **state)
{
    if (!has_landlock())
        skip();
    in_child(write_in_and_out);
}

static void read_in_and_out(void)
{
    confine_to_in();
    int before = open("out/file", O_RDONLY);
    const char *const readable[] = {"in", "not there", NULL};
    struct err *e = confine_reading(readable, 3);
    MUST_BE(e ? EINVAL : 0, 0);
    char byte;
    MUST_BE(outcome(read(before, &byte, 1)), 0);
    MUST_BE(opened("in/file", O_RDWR), 0);
    MUST_BE(opened("/proc/self/maps", O_RDONLY), 0);
    MUST_BE(opened("out/file", O_RDONLY), EACCES);
    MUST_BE(opened("out", O_RDONLY | O_DIRECTORY), EACCES);
    MUST_BE(opened("in/../out/file", O_RDONLY), EACCES);
    MUST_BE(opened("/etc/passwd", O_RDONLY), EACCES);
    MUST_BE(outcome(link("out/file", "in/link")), EXDEV);
}

static void only_some_is_read(void **state)
{
    if (!has_landlock())
        skip();
    in_child(read_in_and_out);
}

static void *idle(void *unused)
{
    return unused;
}

static void try_calls(void)
{
    int before = socket(AF_INET, SOCK_STREAM, 0), pair[2];
    confine_to_in();
    struct sockaddr any = {.sa_family = AF_INET};
    char name[] = "true", *const argv[] = {name, NULL};
    pthread_t thread;
    MUST_BE(outcome(socket(AF_INET, SOCK_STREAM, 0)), EPERM);
    MUST_BE(outcome(socket(AF_UNIX, SOCK_STREAM, 0)), EPERM);
    MUST_BE(outcome(bind(before, &any, sizeof(any))), EPERM);
    MUST_BE(outcome(connect(before, &any, sizeof(any))), EPERM);
    MUST_BE(outcome(listen(before, 1)), EPERM);
    MUST_BE(outcome(execv("/bin/true", argv)), EPERM);
    MUST_BE(outcome(syscall(SYS_execveat, AT_FDCWD, "/bin/true", argv, environ, 0)), EPERM);
    if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) > 0)
        MUST_BE(outcome(syscall(SYS_execveat, open("/bin/true", O_RDONLY), "", argv, environ,
                                AT_EMPTY_PATH)),
                EACCES);
    MUST_BE(outcome(unshare(CLONE_NEWUSER)), EPERM);
    MUST_BE(outcome(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)), EPERM);
    MUST_BE(outcome(syscall(SYS_clone3, NULL, 0)), ENOSYS);
#ifndef __SANITIZE_ADDRESS__ // see confine.c
    MUST_BE(outcome(ptrace(PTRACE_TRACEME, 0, 0, 0)), EPERM);
#endif
    MUST_BE(outcome(syscall(SYS_mq_open, "/x", 0)), EPERM); // the last of the list
    MUST_BE(outcome(socketpair(AF_UNIX, SOCK_STREAM, 0, pair)), 0);
    MUST_BE(pthread_create(&thread, NULL, idle, NULL), 0);
    MUST_BE(pthread_join(thread, NULL), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(opened("in/file", O_RDONLY) == 0 && outcome(socket(AF_INET, SOCK_STREAM, 0)) == EPERM
                  ? 0
                  : 1);
    int status = -1;
    waitpid(child, &status, 0);
    MUST_BE(status, 0);
}

static void harmful_calls_are_refused(void **state)
{
    in_child(try_calls);
}

/* At last it executes one: what is below /usr may be. */
static void be_a_program(void)
{
    const char *const readable[] = {"in", "not there", NULL}, *const writable[] = {"in/file"};
    const struct confine_files files = {
        .readable = readable, .readable_count = 3, .writable = writable, .writable_count = 1};
    char name[] = "out/file", *const argv[] = {name, NULL};
    struct err *e = confine_program(&files);
    MUST_BE(e ? EINVAL : 0, 0);
    MUST_BE(opened("in/file", O_RDWR), 0);
    MUST_BE(opened("in", O_RDONLY | O_DIRECTORY), 0);
    MUST_BE(opened("/usr/bin/env", O_RDONLY), 0);
    MUST_BE(opened("out/file", O_RDONLY), EACCES);
    MUST_BE(opened("out/new", O_CREAT | O_WRONLY), EACCES);
    MUST_BE(opened("in/new", O_CREAT | O_WRONLY), EACCES);
    MUST_BE(opened("/proc/self/maps", O_RDONLY), EACCES);
    MUST_BE(opened("/etc/passwd", O_RDONLY), EACCES);
    MUST_BE(outcome(truncate("out/file", 0)), EACCES);
    MUST_BE(outcome(chmod("in/file", 0777)), EPERM);
    MUST_BE(outcome(execv("out/file", argv)), EACCES);
    MUST_BE(outcome(socket(AF_UNIX, SOCK_STREAM, 0)), EPERM);
    MUST_BE(outcome(socket(AF_INET, SOCK_STREAM, 0)), EPERM);
    MUST_BE(outcome(fork()), EPERM);
    MUST_BE(outcome(vfork()), EPERM);
    pthread_t thread;
    MUST_BE(pthread_create(&thread, NULL, idle, NULL), EPERM);
    MUST_BE(outcome(kill(getppid(), 0)), EPERM);
    MUST_BE(outcome(syscall(SYS_tgkill, getppid(), getppid(), 0)), EPERM);
    MUST_BE(outcome(syscall(SYS_tgkill, getpid(), getpid(), 0)), 0);
    MUST_BE(outcome(syscall(SYS_prlimit64, getppid(), 0, NULL, NULL)), EPERM);
    struct rlimit limit;
    MUST_BE(outcome(getrlimit(RLIMIT_CORE, &limit)), 0);
    MUST_BE(outcome(syscall(SYS_sched_setaffinity, getppid(), 0, NULL)),
            EPERM); // the last of the list
    char env[] = "/usr/bin/env", yes[] = "/usr/bin/true", *const executes[] = {env, yes, NULL};
    execv(env, executes);
    must_be(errno, 0, __LINE__);
}

static void a_program_may_little(void **state)
{
    if (!has_landlock())
        skip();
    in_child(be_a_program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {t(only_some_is_written), t(only_some_is_read),
                                       t(harmful_calls_are_refused), t(a_program_may_little)};
    return cmocka_run_group_tests(tests, make_dirs, remove_dirs);
}
