/* madvise and mprotect, where they succeed, fail half way, and matter to fork; each once as an event and once buffered. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };
static sigjmp_buf back;

static void on_fault(int signo)
{
    siglongjmp(back, signo);
}

static char access_of(char *p)
{
    if (sigsetjmp(back, 1))
        return 'n';
    volatile char c = *p;
    if (sigsetjmp(back, 1))
        return 'r';
    *(volatile char *)p = c;
    return 'w';
}

int main(int argc, char **argv)
{
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    for (int round = 0; round < 2; round++) {
        char *a = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(a, 'a', 8 * PAGE);
        munmap(a + 4 * PAGE, PAGE);
        int failed = mprotect(a + 2 * PAGE, 4 * PAGE, PROT_READ);
        printf("%d: %c %c %c\n", failed, access_of(a + PAGE), access_of(a + 3 * PAGE), access_of(a + 5 * PAGE));
        failed = madvise(a + 2 * PAGE, 4 * PAGE, MADV_DONTNEED);
        printf("%d: %d %d %d\n", failed, a[PAGE], a[3 * PAGE], a[5 * PAGE]);
        printf("%d %d\n", mprotect(a + 1, PAGE, PROT_NONE), madvise(a + 1, PAGE, MADV_DONTNEED));
        int fd = open(argv[0], O_RDONLY);
        char *f = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
        // A file that rr keeps: it does not know the contents of others afterwards.
        int large = open("/lib/x86_64-linux-gnu/libc.so.6", O_RDONLY);
        char *g = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, large, 0);
        g[1] = 'x';
        printf("%d %c\n", mprotect(f, PAGE, PROT_READ | PROT_WRITE), access_of(f));
        madvise(g, PAGE, MADV_DONTNEED);
        printf("%.3s\n", g + 1);
        close(fd);
        close(large);
        madvise(a, PAGE, MADV_DONTFORK);
        madvise(a + PAGE, PAGE, MADV_DONTFORK);
        madvise(a + PAGE, PAGE, MADV_DOFORK);
        madvise(a + 5 * PAGE, PAGE, MADV_WIPEONFORK);
        fflush(stdout);
        if (!fork()) {
            printf("%c %c %d\n", access_of(a), access_of(a + PAGE), a[5 * PAGE]);
            return 0;
        }
        wait(NULL);
    }
    return argc - 1;
}
