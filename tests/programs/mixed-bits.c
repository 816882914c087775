/* Processes that execute this program again, named by an argument that begins with "32" or with "64": tests/replay/as_32bit.c makes
 * 32-bit tasks of the former in a recording. `mixed-bits`: they fork, thread, get signals and execute each other while the first one
 * goes on. `mixed-bits maps`, `memory`, `traces`: one maps what the first one has mapped, too; writes its memory; traces it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static char text[] = "text";
static char *self, *const low = (char *)0x20000000;

static int run(const char *name, const char *file)
{
    pid_t pid = fork();
    int status;
    if (!pid) {
        execl(self, self, name, file, (char *)NULL);
        _exit(1);
    }
    waitpid(pid, &status, 0);
    return status;
}

static void on_signal(int sig)
{
}

static void *thread(void *arg)
{
    return arg;
}

static char *map(const char *file, int prot)
{
    int fd = open(file, O_RDWR);
    char *at = mmap(low, 4096, prot, MAP_SHARED | MAP_FIXED, fd, 0);
    close(fd);
    return at;
}

int main(int argc, char **argv)
{
    char name[] = "/tmp/mixed-bits-XXXXXX";
    self = argv[0];
    if (argc > 1 && !strcmp(argv[1], "64")) {
        printf("64 again\n");
        return 5;
    }
    if (argc > 1 && !strcmp(argv[1], "32")) {
        pthread_t t;
        pthread_create(&t, NULL, thread, NULL);
        pthread_join(t, NULL);
        signal(SIGUSR1, on_signal);
        raise(SIGUSR1);
        map(argv[2], PROT_READ | PROT_WRITE)[1] = 'x';
        munmap(low, 4096);
        int status = run("64", NULL);
        if (vfork() == 0)
            _exit(3);
        wait(NULL);
        return WEXITSTATUS(status) + 1;
    }
    if (argc > 1 && !strcmp(argv[1], "32-maps")) {
        map(argv[2], PROT_READ)[0];
        mprotect(low, 4096, PROT_READ | PROT_WRITE);
        low[1] = 'x';
        return 0;
    }
    if (argc > 1 && !strcmp(argv[1], "32-executes")) {
        execl(self, self, "64", (char *)NULL);
        return 1;
    }
    if (argc > 1 && !strcmp(argv[1], "32-memory")) {
        snprintf(name, sizeof(name), "/proc/%d/mem", getppid());
        int fd = open(name, O_RDWR);
        pwrite(fd, "T", 1, (off_t)text);
        return 0;
    }
    if (argc > 1 && !strcmp(argv[1], "32-traces")) {
        ptrace(PTRACE_SEIZE, getppid(), 0, 0);
        return 0;
    }
    int fd = mkstemp(name);
    ftruncate(fd, 4096);
    int status;
    if (argc > 1) {
        char mode[20];
        snprintf(mode, sizeof(mode), "32-%s", argv[1]);
        map(name, PROT_READ | PROT_WRITE)[0] = 'y';
        status = run(mode, name);
        printf("%.2s %s\n", low, text);
    } else {
        status = run("32", name);
        printf("exit %d\n", WEXITSTATUS(status));
        printf("exit %d\n", WEXITSTATUS(run("32-executes", NULL)));
        printf("shared afterwards: %s\n", map(name, PROT_READ | PROT_WRITE) + 1);
    }
    unlink(name);
    return 0;
}
