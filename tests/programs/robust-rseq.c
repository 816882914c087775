/* A robust mutex whose owner dies, and a restartable sequence that is interrupted until it gets through. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/rseq.h>
#include <sys/wait.h>

static pthread_mutex_t lock;
static volatile long aborted, committed;

static void *dies_locked(void *arg)
{
    pthread_mutex_lock(&lock);
    return NULL;
}

static void run_sequence(void)
{
    struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    __asm__ volatile(".pushsection sequences, \"aw\"\n"
                     ".balign 32\n"
                     "1: .long 0, 0\n"
                     ".quad 2f, 3f - 2f, 4f\n"
                     ".popsection\n"
                     "lea 1b(%%rip), %%rax\n"
                     "mov %%rax, %0\n"
                     "2: mov $2000, %%ecx\n"
                     "5: dec %%ecx\n"
                     "jnz 5b\n"
                     "incq committed(%%rip)\n"
                     "3: jmp 6f\n"
                     ".byte 0x0f, 0xb9, 0x3d\n"
                     ".long 0x53053053\n"
                     "4: incq aborted(%%rip)\n"
                     "6: movq $0, %0\n"
                     : "+m"(area->rseq_cs)::"rax", "rcx", "memory", "cc");
}

int main(void)
{
    pthread_mutexattr_t robust;
    pthread_mutexattr_init(&robust);
    pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&lock, &robust);
    pthread_t t;
    pthread_create(&t, NULL, dies_locked, NULL);
    pthread_join(t, NULL);
    int e = pthread_mutex_lock(&lock);
    printf("owner dead: %d\n", e == EOWNERDEAD);
    if (!__rseq_size)
        return 1;
    for (int i = 0; i < 8; i++)
        run_sequence();
    printf("all runs ended: %d\n", aborted + committed == 8);
    return 0;
}
