/* Words of the domain: addresses, tasks, points in time, register files. */
#ifndef BASE_TYPES_H
#define BASE_TYPES_H

#include <stdbool.h>
#include <stdint.h>

/* An address in the recorded program; never a host pointer. */
typedef uint64_t gaddr;
/* Number of a frame of the trace: 1-based; 0 is "before the first". */
typedef uint64_t event_no;

/* A point in time: `icount` instructions after event `event` took effect, executed by the task of
 * event + 1. A total order over the whole recording, since rr runs one task at a time. A `rep`
 * string instruction counts once, when it completes. */
struct moment {
    event_no event;
    uint64_t icount;
};

static inline int moment_cmp(struct moment a, struct moment b)
{
    if (a.event != b.event)
        return a.event < b.event ? -1 : 1;
    return a.icount == b.icount ? 0 : a.icount < b.icount ? -1 : 1;
}

struct addr_range {
    gaddr start, end; /* half-open */
};

#define PAGE_SIZE 4096u

/* (Named UREG_, since <sys/ucontext.h> claims REG_.)
 * User registers of x86-64 in the order of the kernel's user_regs_struct, which is also that of
 * rr's frames. */
enum reg {
    UREG_R15,
    UREG_R14,
    UREG_R13,
    UREG_R12,
    UREG_RBP,
    UREG_RBX,
    UREG_R11,
    UREG_R10,
    UREG_R9,
    UREG_R8,
    UREG_RAX,
    UREG_RCX,
    UREG_RDX,
    UREG_RSI,
    UREG_RDI,
    UREG_ORIG_RAX,
    UREG_RIP,
    UREG_CS,
    UREG_EFLAGS,
    UREG_RSP,
    UREG_SS,
    UREG_FS_BASE,
    UREG_GS_BASE,
    UREG_DS,
    UREG_ES,
    UREG_FS,
    UREG_GS,
    UREG_COUNT
};

struct regs {
    uint64_t r[UREG_COUNT];
};

/* x87, SSE, AVX, AVX-512 state: the standard (non-compacted) XSAVE image in the layout of *this*
 * CPU (CPUID leaf 0xD). len is the size of that image, at most XSTATE_MAX. */
#define XSTATE_MAX 4096
struct xstate {
    uint32_t len;
    uint8_t data[XSTATE_MAX] __attribute__((aligned(64)));
};

#endif
