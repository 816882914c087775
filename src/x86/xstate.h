/* Where XSAVE images of this machine have the parts of vector state. Freestanding. */
#ifndef X86_XSTATE_H
#define X86_XSTATE_H

#include <stdint.h>

/* State components (SDM 1, 13.1). */
enum {
    XSTATE_X87,
    XSTATE_SSE,
    XSTATE_AVX,
    XSTATE_OPMASK = 5,
    XSTATE_ZMM_HI256,
    XSTATE_HI16_ZMM,
    XSTATE_PKRU = 9
};
#define XSTATE_AVX512 (1u << XSTATE_OPMASK | 1u << XSTATE_ZMM_HI256 | 1u << XSTATE_HI16_ZMM)
/* What is kept of the CPU's: all but the tiles of AMX (17 and 18), which no program gets to use
 * here and which would take 8 KiB more. */
#define XSTATE_KEPT (~(1ull << 17 | 1ull << 18))

struct xstate_place {
    uint32_t offset, len; /* 0: no such component */
};

/* CPUID leaf 0xD, asked once for each component: it is slow where the machine is virtual. */
static inline struct xstate_place xstate_place(unsigned component)
{
    enum { COUNT = 32 };
    static struct xstate_place known[COUNT];
    static const struct xstate_place intel[COUNT] = {[XSTATE_OPMASK] = {1088, 64},
                                                     [XSTATE_ZMM_HI256] = {1152, 512},
                                                     [XSTATE_HI16_ZMM] = {1664, 1024}};
    if (component >= COUNT)
        return (struct xstate_place){0};
    if (!known[component].len) {
        uint32_t a = 0xd, b, c = component, d;
        __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        known[component] = a ? (struct xstate_place){b, a} : intel[component];
    }
    return known[component];
}

/**
 * Offset of a component in the standard format of an image (SDM 1, 13.4.3), by this CPU's CPUID.
 * Those of AVX-512, which are kept even if the CPU has not got them, are then where Intel's CPUs
 * have them: nothing else that is in use is there (MPX ends at 1088, PKRU is at 832 or 2688). 0: no
 * such component.
 */
static inline uint32_t xstate_offset(unsigned component)
{
    return xstate_place(component).offset;
}

/** Bytes of a component; 0: no such component. */
static inline uint32_t xstate_component_len(unsigned component)
{
    return xstate_place(component).len;
}

/** Components that the kernel lets programs use. */
static inline uint64_t xstate_xcr0(void)
{
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/** Bytes of an image with all components that the CPU has, or that are kept. */
static inline uint32_t xstate_len(void)
{
    static uint32_t len;
    if (!len) {
        uint32_t a = 0xd, b, c = 0, d,
                 end = xstate_offset(XSTATE_HI16_ZMM) + xstate_component_len(XSTATE_HI16_ZMM);
        __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        len = b < end ? end : b;
    }
    return len;
}

#endif
