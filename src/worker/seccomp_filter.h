/* The system calls a worker may make (seccomp(2), classic BPF). Any other kills it. */
#ifndef WORKER_SECCOMP_FILTER_H
#define WORKER_SECCOMP_FILTER_H

#include <stdint.h>

struct filter_insn {
    uint16_t code;
    uint8_t jump_true, jump_false;
    uint32_t k;
};

#define FILTER_LOAD(off)  \
    {                     \
        0x20, 0, 0, (off) \
    }
#define FILTER_ALLOW(nr)        \
    {0x15, 0, 1, (nr)},         \
    {                           \
        0x06, 0, 0, 0x7fff0000u \
    }
#define FILTER_KILL             \
    {                           \
        0x06, 0, 0, 0x80000000u \
    }

static const struct filter_insn seccomp_filter[] = {
    FILTER_LOAD(4), /* architecture */
    {0x15, 1, 0, 0xc000003e},
    FILTER_KILL,       /* x86-64 only */
    FILTER_LOAD(0),    /* number */
    FILTER_ALLOW(47),  /* recvmsg */
    FILTER_ALLOW(9),   /* mmap */
    FILTER_ALLOW(17),  /* pread64 */
    FILTER_ALLOW(10),  /* mprotect */
    FILTER_ALLOW(11),  /* munmap */
    FILTER_ALLOW(25),  /* mremap */
    FILTER_ALLOW(28),  /* madvise */
    FILTER_ALLOW(8),   /* lseek */
    FILTER_ALLOW(285), /* fallocate */
    FILTER_ALLOW(3),   /* close */
    FILTER_ALLOW(13),  /* rt_sigaction */
    FILTER_ALLOW(15),  /* rt_sigreturn */
    FILTER_ALLOW(131), /* sigaltstack */
    FILTER_ALLOW(231), /* exit_group */
    {0x15, 0, 6, 56},
    FILTER_LOAD(16),
    {0x15, 0, 3, 0x8000},
    FILTER_LOAD(20),
    {0x15, 0, 1, 0},
    {0x06, 0, 0, 0x7fff0000u}, /* clone(CLONE_PARENT) */
    FILTER_KILL,
    {0x15, 0, 5, 202},
    FILTER_LOAD(24),
    {0x15, 1, 0, 0},
    {0x15, 0, 1, 1},
    {0x06, 0, 0, 0x7fff0000u}, /* futex(FUTEX_WAIT, FUTEX_WAKE) */
    FILTER_KILL,
    FILTER_KILL,
};

#endif
