/* A debugger and its debuggee: the parent reads and sets the child's registers in all the ways ptrace(2) has, changes a system
 * call's number, steps, plants a breakpoint and emulates a system call. */
#define _GNU_SOURCE
#include <elf.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static __attribute__((noinline)) int target(int x)
{
    return x * 2;
}

static void child(void)
{
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    double half = 0.5;
    __asm__ volatile("movsd %0, %%xmm5\nint3\nmovsd %%xmm5, %0" : "+m"(half)::"xmm5");
    long pid = syscall(SYS_getpid);
    printf("child: half %g, getpid gave %ld, target gave %d\n", half, pid, target(4));
    fflush(stdout);
    kill(getpid(), SIGSTOP);
    long emulated = syscall(SYS_getppid);
    _exit((int)emulated);
}

static int wait_stop(pid_t pid)
{
    int status;
    waitpid(pid, &status, __WALL);
    return WIFSTOPPED(status) ? WSTOPSIG(status) : -1;
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    pid_t pid = fork();
    if (!pid)
        child();
    struct user_regs_struct regs;
    struct user_fpregs_struct fp;
    printf("stopped by %d\n", wait_stop(pid));
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD);
    ptrace(PTRACE_CONT, pid, 0, 0);
    printf("int3: %d\n", wait_stop(pid));
    struct iovec iov = {&fp, sizeof(fp)};
    ptrace(PTRACE_GETREGSET, pid, NT_PRFPREG, &iov);
    *(double *)((char *)fp.xmm_space + 5 * 16) *= 5; // 2.5
    ptrace(PTRACE_SETREGSET, pid, NT_PRFPREG, &iov);
    for (int stop; (stop = (ptrace(PTRACE_SYSCALL, pid, 0, 0), wait_stop(pid))) == (SIGTRAP | 0x80);) {
        ptrace(PTRACE_GETREGS, pid, 0, &regs);
        if (regs.orig_rax == SYS_getpid)
            break;
    }
    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.orig_rax), (long)SYS_getuid);
    ptrace(PTRACE_SYSCALL, pid, 0, 0);
    wait_stop(pid);
    ptrace(PTRACE_GETREGS, pid, 0, &regs);
    regs.rax = 4242;
    ptrace(PTRACE_SETREGS, pid, 0, &regs);
    long code = ptrace(PTRACE_PEEKTEXT, pid, (void *)target, 0);
    ptrace(PTRACE_POKETEXT, pid, (void *)target, (code & ~0xffL) | 0xcc);
    ptrace(PTRACE_CONT, pid, 0, 0);
    printf("breakpoint: %d\n", wait_stop(pid));
    ptrace(PTRACE_GETREGS, pid, 0, &regs);
    ptrace(PTRACE_POKETEXT, pid, (void *)target, code);
    regs.rip--;
    regs.rdi = 21;
    iov = (struct iovec){&regs, sizeof(regs)};
    ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &iov);
    for (int i = 0; i < 3; i++) {
        ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
        wait_stop(pid);
    }
    ptrace(PTRACE_CONT, pid, 0, 0);
    printf("stopped by %d\n", wait_stop(pid));
    ptrace(PTRACE_SYSEMU, pid, 0, 0);
    printf("system call: %d\n", wait_stop(pid) == (SIGTRAP | 0x80));
    ptrace(PTRACE_GETREGS, pid, 0, &regs);
    regs.rax = 33;
    ptrace(PTRACE_SETREGS, pid, 0, &regs);
    ptrace(PTRACE_DETACH, pid, 0, 0);
    int status;
    waitpid(pid, &status, 0);
    printf("child ended with %d\n", WEXITSTATUS(status));
    return 0;
}
