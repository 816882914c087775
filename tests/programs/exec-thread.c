/* execve by a thread that is not the first one: all others end, and it takes over the process id. Then fexecve of a script, and
 * execve that fails. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static char *self;

static void *execs(void *arg)
{
    execl("/nonexistent", "x", (char *)NULL);
    printf("failed with %d\n", errno);
    fflush(stdout);
    execl(self, self, "again", (char *)NULL);
    return NULL;
}

static void *sleeps(void *arg)
{
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    self = argv[0];
    if (argc == 1) {
        pthread_t a, b;
        pthread_create(&a, NULL, sleeps, NULL);
        pthread_create(&b, NULL, execs, NULL);
        pthread_join(b, NULL);
        return 1;
    }
    printf("leader: %d\n", getpid() == (pid_t)syscall(SYS_gettid));
    fflush(stdout);
    int fd = open("script.tmp", O_WRONLY | O_CREAT | O_TRUNC, 0700);
    static const char script[] = "#!/bin/echo from a script:\n";
    write(fd, script, sizeof(script) - 1);
    close(fd);
    execl("script.tmp", "script.tmp", "argument", (char *)NULL);
    return 1;
}
