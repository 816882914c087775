/* Code that changes: in place, through a second mapping of the same memory, by another process, with pwrite, and by a thread
 * that has never executed it. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int fd;
static unsigned char *writable;

static void *patches(void *arg)
{
    writable[1] = 5;
    return NULL;
}

int main(void)
{
    static const unsigned char code[] = {0xb8, 1, 0, 0, 0, 0xc3}; // mov eax, 1; ret
    fd = memfd_create("code", 0);
    ftruncate(fd, 4096);
    writable = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unsigned char *executable = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    int (*f)(void) = (int (*)(void))executable;
    memcpy(writable, code, sizeof(code));
    int sum = 0;
    for (int i = 0; i < 100; i++) {
        sum += f();
        writable[1] = (unsigned char)i;
    }
    printf("%d\n", sum);
    if (!fork()) {
        writable[1] = 3;
        _exit(f());
    }
    int status;
    wait(&status);
    printf("%d %d", WEXITSTATUS(status), f());
    pwrite(fd, "\4", 1, 1);
    printf(" %d", f());
    pthread_t t;
    pthread_create(&t, NULL, patches, NULL);
    pthread_join(t, NULL);
    printf(" %d\n", f());
    unsigned char *both = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    // mov byte [rip+1], 7; mov eax, 0; ret: changes the instruction that comes next
    static const unsigned char self[] = {0xc6, 0x05, 1, 0, 0, 0, 7, 0xb8, 0, 0, 0, 0, 0xc3};
    memcpy(both, self, sizeof(self));
    printf("%d", ((int (*)(void))both)());
    both[8] = 8;
    both[6] = 9;
    printf(" %d\n", ((int (*)(void))both)());
    return 0;
}
