/* clone in its less usual forms: memory shared but no thread, a task with its parent's descriptors only, vfork and exec, a pid
 * namespace whose first process takes its children with it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int value, pipe_ends[2];
static char stack[4][65536] __attribute__((aligned(16)));

static int shares_memory(void *arg)
{
    value = 11;
    return 1;
}

static int shares_files(void *arg)
{
    value = 22;
    close(pipe_ends[0]);
    return 2;
}

static int grandchild(void *arg)
{
    printf("second process is %d of %d\n", getpid(), getppid());
    fflush(stdout);
    for (;;)
        pause();
}

static int first_of_namespace(void *arg)
{
    int fd = open("/proc/self/mem", O_RDWR); // rr knows it by another number
    printf("first process is %d\n", getpid());
    fflush(stdout);
    value = 33;
    close(fd);
    clone(grandchild, stack[3] + sizeof(stack[3]), SIGCHLD, NULL);
    usleep(20000);
    return 3;
}

static int run(int (*f)(void *), int idx, int flags)
{
    int status;
    pid_t pid = clone(f, stack[idx] + sizeof(stack[idx]), flags | SIGCHLD, NULL);
    if (pid < 0)
        return -1;
    waitpid(pid, &status, __WALL);
    return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return 4;
    printf("%d", run(shares_memory, 0, CLONE_VM));
    printf(" %d\n", value);
    pipe(pipe_ends);
    printf("%d", run(shares_files, 1, CLONE_FILES));
    printf(" %d, descriptor %d\n", value, fcntl(pipe_ends[0], F_GETFD));
    fflush(stdout);
    printf("%d", run(first_of_namespace, 2, CLONE_NEWPID));
    printf(" %d\n", value);
    fflush(stdout);
    pid_t pid = vfork();
    if (!pid) {
        value = 44;
        execl(argv[0], argv[0], "x", (char *)NULL);
        _exit(1);
    }
    int status;
    waitpid(pid, &status, 0);
    printf("%d %d\n", WEXITSTATUS(status), value);
    return 0;
}
