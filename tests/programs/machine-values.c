/* Instructions whose answers tell the machine: none of them may show the replaying one. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>

static sigjmp_buf back;

static void on_fault(int signo)
{
    siglongjmp(back, signo);
}

int main(void)
{
    unsigned a, b, c, d, low, high, limit = 7;
    unsigned long flags;
    for (unsigned leaf = 0; leaf < 0x20; leaf++) {
        __cpuid_count(leaf, 0, a, b, c, d);
        printf("%x: %x %x %x %x\n", leaf, a, b, c, d);
    }
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    printf("xcr0 %x:%x\n", high, low);
    __asm__ volatile("lsl %2, %0\npushf\npop %1" : "+r"(limit), "=r"(flags) : "r"(0x7b) : "cc");
    printf("cpu %x %d\n", limit, (int)(flags >> 6 & 1));
    __asm__ volatile("lsl %1, %0" : "+r"(limit) : "m"((unsigned short){0x7b}) : "cc");
    printf("cpu %u\n", limit);
    __cpuid_count(7, 0, a, b, c, d);
    if (c >> 22 & 1) {
        unsigned long cpu;
        __asm__ volatile("rdpid %0" : "=r"(cpu));
        printf("rdpid %lu\n", cpu);
    }
    unsigned long before, after;
    __asm__ volatile("pushf\npop %0\nmov $39, %%eax\nsyscall\npushf\npop %1" : "=r"(before), "=r"(after)::"rax", "rcx", "r11", "cc", "memory");
    printf("trap flag %d %d\n", (int)(before >> 8 & 1), (int)(after >> 8 & 1));
    signal(SIGSEGV, on_fault);
    if (!sigsetjmp(back, 1)) {
        __asm__ volatile("int $0x80" : : "a"(20) : "r8", "r9", "r10", "r11", "memory");
        printf("int 0x80 works\n");
    } else {
        printf("int 0x80 faults\n");
    }
    return 0;
}
