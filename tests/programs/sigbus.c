/* SIGBUS: reads behind the end of a mapped file, also of one that is truncated while mapped, private and shared. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096 };
static sigjmp_buf back;
static siginfo_t last;

static void on_bus(int signo, siginfo_t *info, void *context)
{
    last = *info;
    siglongjmp(back, signo);
}

static void look(const char *what, char *p, long off)
{
    if (sigsetjmp(back, 1))
        printf("%s: signal %d code %d at +%ld\n", what, last.si_signo, last.si_code, (long)((char *)last.si_addr - p));
    else
        printf("%s: %d\n", what, *(volatile char *)(p + off));
}

int main(void)
{
    sigaction(SIGBUS, &(struct sigaction){.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO}, NULL);
    int fd = open("sigbus.tmp", O_RDWR | O_CREAT | O_TRUNC, 0600);
    write(fd, "0123456789", 10);
    char *p = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    char *s = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    look("in the file", p, 5);
    look("in its last page", p, 100);
    look("private, behind", p, PAGE + 7);
    look("shared, behind", s, 2 * PAGE);
    ftruncate(fd, 2 * PAGE);
    s[PAGE] = 'g';
    look("grown", s, PAGE);
    ftruncate(fd, 0);
    look("truncated", s, 1);
    unlink("sigbus.tmp");
    return 0;
}
