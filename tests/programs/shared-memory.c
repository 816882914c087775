/* Memory that several mappings and processes share: a memfd mapped twice and in parts, written to with write(2), resized and
 * punched; System V segments; /dev/zero. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

int main(void)
{
    int fd = memfd_create("shared", 0);
    ftruncate(fd, 4 * PAGE);
    char *a = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *b = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, PAGE);
    char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    int id = shmget(IPC_PRIVATE, 3 * PAGE, IPC_CREAT | 0600);
    char *s = shmat(id, NULL, 0), *t = shmat(id, NULL, SHM_RDONLY);
    char *z = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, open("/dev/zero", O_RDWR), 0);
    p[0] = 'p';
    strcpy(a + PAGE, "first");
    pwrite(fd, "W", 1, PAGE + 1);
    munmap(a + 2 * PAGE, PAGE);
    if (!fork()) {
        strcpy(b + PAGE, "from the child");
        strcpy(s + PAGE, "segment");
        strcpy(z, "zero");
        char *late = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 3 * PAGE);
        strcpy(late, "late");
        shmdt(s);
        _exit(0);
    }
    wait(NULL);
    printf("%s %s %s %s %s %c\n", b, b + PAGE, t + PAGE, z, a + 3 * PAGE, p[0]);
    ftruncate(fd, 8 * PAGE);
    char *grown = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    strcpy(grown + 7 * PAGE, "grown");
    madvise(b, PAGE, MADV_REMOVE);
    madvise(b + PAGE, PAGE, MADV_DONTNEED); // shared memory keeps its contents
    printf("%s, removed %d, kept %s\n", grown + 7 * PAGE, a[PAGE], grown + 2 * PAGE);
    shmdt(t);
    shmctl(id, IPC_RMID, NULL);
    printf("%d\n", s[0] + s[PAGE]);
    return 0;
}
