/* Stacks that grow downwards (the main one, and a MAP_GROWSDOWN mapping), overflow with a handler on an alternate stack, signals
 * nested in handlers, and a signal whose handler has no stack at all. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static sigjmp_buf back;
static char alternate[65536];

static __attribute__((noinline)) int grow(int n)
{
    volatile char frame[1000];
    memset((char *)frame, n, sizeof(frame));
    return n ? grow(n - 1) + frame[5] : 0;
}

static __attribute__((noinline)) int forever(int n)
{
    volatile char frame[8000];
    frame[0] = (char)n;
    return n < 1 << 30 ? forever(n + 1) + frame[0] : 0;
}

static void on_overflow(int signo)
{
    siglongjmp(back, signo);
}

static void on_usr(int signo)
{
    char here;
    printf("signal %d, on the %s stack\n", signo, &here >= alternate && &here < alternate + sizeof(alternate) ? "alternate" : "main");
    if (signo == SIGUSR1)
        raise(SIGUSR2);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("%d\n", grow(600));
    char *end = (char *)mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0) + 65536;
    for (int i = 1; i < 12; i++)
        end[-i * 4096] = (char)i;
    struct rlimit small = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_STACK, &small);
    sigaltstack(&(stack_t){.ss_sp = alternate, .ss_size = sizeof(alternate)}, NULL);
    sigaction(SIGSEGV, &(struct sigaction){.sa_handler = on_overflow, .sa_flags = SA_ONSTACK}, NULL);
    for (int i = 0; i < 2; i++) {
        if (sigsetjmp(back, 1))
            printf("overflow %d\n", i);
        else
            forever(0);
    }
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_usr}, NULL);
    sigaction(SIGUSR2, &(struct sigaction){.sa_handler = on_usr, .sa_flags = SA_ONSTACK}, NULL);
    raise(SIGUSR1);
    sigaction(SIGILL, &(struct sigaction){.sa_handler = on_usr}, NULL);
    if (sigsetjmp(back, 1))
        printf("no stack for the handler\n");
    else
        __asm__ volatile("mov $0x800794b90ed0, %rsp\nud2");
    return 0;
}
