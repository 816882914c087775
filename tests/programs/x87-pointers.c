/* Which instruction the x87 unit executed last, and its operand: shown in registers at system calls, where they are compared with the
 * recording. Between the instruction and what shows it is no branch and no system call, so that nothing clears it in the recording; the
 * system calls do, on a CPU of AMD. */
#include <stdio.h>
#include <sys/syscall.h>

static double number = 1.5, zero;
static unsigned short unmasked = 0x37b; /* division by zero */
static unsigned char image[512] __attribute__((aligned(16)));
static unsigned environment[7];

#define SYSCALL "mov %[getpid], %%eax\nsyscall\n"

int main(void)
{
    unsigned long shown[6];
    __asm__ volatile("fninit\n"
                     "fldl %[number]\n"
                     "fnstenv %[environment]\n"
                     "mov 12+%[environment], %%r8d\n" // where the instruction is
                     "mov 20+%[environment], %%r9d\n" // and its operand
                     "mov %%r8, %%r12\nmov %%r9, %%r13\n" SYSCALL
                     "fnstenv %[environment]\n"
                     "mov 12+%[environment], %%r14d\n"
                     "mov 20+%[environment], %%r15d\n" SYSCALL
                     "fldcw %[unmasked]\n"
                     "fld1\n"
                     "fdivl %[zero]\n"
                     "fxsave64 %[image]\n" // an exception is pending: all CPUs show it there
                     "mov 8+%[image], %%rdi\n"
                     "mov 16+%[image], %%rsi\n"
                     "fnclex\n" SYSCALL "fninit\n"
                     "mov %%r12, 0(%[shown])\nmov %%r13, 8(%[shown])\nmov %%r14, 16(%[shown])\nmov %%r15, 24(%[shown])\n"
                     "mov %%rdi, 32(%[shown])\nmov %%rsi, 40(%[shown])\n"
                     : [environment] "+m"(environment), [image] "+m"(image)
                     : [number] "m"(number), [zero] "m"(zero), [unmasked] "m"(unmasked), [getpid] "i"(SYS_getpid), [shown] "b"(shown)
                     : "rax", "rcx", "rsi", "rdi", "r8", "r9", "r11", "r12", "r13", "r14", "r15", "memory");
    printf("instruction %d operand %d\n", shown[0] - (unsigned long)main < 200, shown[1] == (unsigned)(unsigned long)&number);
    printf("behind a system call %d %d\n", shown[2] == shown[0], shown[3] == shown[1]);
    printf("exception %d %d\n", shown[4] - (unsigned long)main < 300, shown[5] == (unsigned long)&zero);
    return 0;
}
