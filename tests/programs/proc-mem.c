/* Writing another process's memory: through /proc/PID/mem with pwrite, write, pwritev and a duplicated descriptor, and with
 * process_vm_writev. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static char text[5][8] = {"zero", "one", "two", "three", "four"};
static const char fixed[] = "read-only";

int main(void)
{
    int go[2], done[2];
    char c;
    if (pipe(go) || pipe(done))
        return 1;
    pid_t pid = fork();
    if (!pid) {
        write(done[1], "r", 1);
        read(go[0], &c, 1);
        for (int i = 0; i < 5; i++)
            printf("%s ", text[i]);
        printf("%s\n", (const char *)(uintptr_t)fixed);
        return 0;
    }
    read(done[0], &c, 1);
    char path[40];
    snprintf(path, sizeof(path), "/proc/%d/mem", pid);
    int fd = open(path, O_RDWR), twin;
    for (int i = 0; i < 3; i++) // the first is an event of its own, the others are buffered
        pwrite(fd, "ZERO" + i, 1, (off_t)(uintptr_t)&text[0][i]);
    twin = dup(fd);
    lseek(twin, (off_t)(uintptr_t)text[1], SEEK_SET);
    write(twin, "ONE", 3);
    struct iovec pieces[2] = {{"T", 1}, {"WO", 2}};
    pwritev(fd, pieces, 2, (off_t)(uintptr_t)text[2]);
    pwrite(twin, "READ", 4, (off_t)(uintptr_t)fixed);
    close(fd);
    close(twin);
    struct iovec to[2] = {{text[3], 2}, {text[4], 4}}, from = {"THFOUR", 6};
    printf("%zd bytes\n", process_vm_writev(pid, &from, 1, to, 2, 0));
    fflush(stdout);
    write(go[1], "g", 1);
    waitpid(pid, NULL, 0);
    fd = open("/proc/self/mem", O_RDWR);
    pwrite(fd, "SELF", 4, (off_t)(uintptr_t)fixed);
    printf("%s\n", (const char *)(uintptr_t)fixed);
    return 0;
}
