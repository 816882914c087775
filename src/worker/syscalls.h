/* Raw system calls for freestanding code. Results are as the kernel gives them: -errno on failure.
 */
#ifndef WORKER_SYSCALLS_H
#define WORKER_SYSCALLS_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t sys_call6(uint64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                                 uint64_t e, uint64_t f)
{
    uint64_t result;
    register uint64_t r10 __asm__("r10") = d;
    register uint64_t r8 __asm__("r8") = e;
    register uint64_t r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static inline uint64_t sys_mmap(uint64_t addr, uint64_t len, int prot, int flags, int fd,
                                uint64_t offset)
{
    return sys_call6(9, addr, len, (uint64_t)prot, (uint64_t)flags, (uint64_t)(int64_t)fd, offset);
}

static inline int64_t sys_mprotect(uint64_t addr, uint64_t len, int prot)
{
    return (int64_t)sys_call6(10, addr, len, (uint64_t)prot, 0, 0, 0);
}

static inline int64_t sys_munmap(uint64_t addr, uint64_t len)
{
    return (int64_t)sys_call6(11, addr, len, 0, 0, 0, 0);
}

/* madvise(MADV_POPULATE_WRITE): pages that will be written are made present in one go, which costs
 * a fraction of the faults of their first writes. Where it is not possible (older kernels,
 * read-only pages) nothing is lost. */
static inline void sys_populate(uint64_t addr, uint64_t len)
{
    sys_call6(28, addr & ~4095ull, len + (addr & 4095), 23, 0, 0, 0);
}

/* madvise(MADV_HUGEPAGE): for memory that will be used as a whole, a fault for each 2 MiB instead
 * of each 4 KiB. */
static inline void sys_huge_pages(uint64_t addr, uint64_t len)
{
    sys_call6(28, addr, len, 14, 0, 0, 0);
}

/* madvise(MADV_WIPEONFORK): copies of the process find zeros there, and cost less. */
static inline void sys_wipe_on_fork(void *start, uint64_t len)
{
    sys_call6(28, (uint64_t)(uintptr_t)start, len, 18, 0, 0, 0);
}

static inline void sys_sigaltstack(void *stack, size_t len)
{
    struct {
        void *sp;
        int flags;
        size_t size;
    } ss = {stack, 0, len};
    sys_call6(131, (uint64_t)(uintptr_t)&ss, 0, 0, 0, 0, 0);
}

extern const char sys_sigreturn_stub[];

/* Handler with siginfo, on the alternate stack, with no signal blocked. */
static inline void sys_sigaction(int signo, void (*handler)(int, void *, void *))
{
    struct {
        void (*handler)(int, void *, void *);
        uint64_t flags;
        const void *restorer;
        uint64_t mask;
    } action = {handler, 0x4 | 0x04000000 | 0x08000000 | 0x40000000, sys_sigreturn_stub, 0};
    sys_call6(13, (uint64_t)signo, (uint64_t)(uintptr_t)&action, 0, 8, 0, 0);
}

#endif
