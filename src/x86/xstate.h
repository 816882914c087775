/* Where XSAVE images of this machine have the parts of vector state. Freestanding. */
#ifndef X86_XSTATE_H
#define X86_XSTATE_H

#include <stdint.h>

/* State components (SDM 1, 13.1). */
enum { XSTATE_X87, XSTATE_SSE, XSTATE_AVX, XSTATE_OPMASK = 5, XSTATE_ZMM_HI256, XSTATE_HI16_ZMM, XSTATE_PKRU = 9 };
#define XSTATE_AVX512 (1u << XSTATE_OPMASK | 1u << XSTATE_ZMM_HI256 | 1u << XSTATE_HI16_ZMM)

/**
 * Offset of a component in the standard format of an image (SDM 1, 13.4.3), by this CPU's CPUID. Those of AVX-512, which are kept even if
 * the CPU has not got them, are then where Intel's CPUs have them: nothing else that is in use is there (MPX ends at 1088, PKRU
 * is at 832 or 2688). 0: no such component.
 */
static inline uint32_t xstate_offset(unsigned component)
{
    uint32_t a = 0xd, b, c = component, d;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (a)
        return b;
    return component == XSTATE_OPMASK ? 1088 : component == XSTATE_ZMM_HI256 ? 1152 : component == XSTATE_HI16_ZMM ? 1664 : 0;
}

/** Bytes of a component; 0: no such component. */
static inline uint32_t xstate_component_len(unsigned component)
{
    uint32_t a = 0xd, b, c = component, d;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (a)
        return a;
    return component == XSTATE_OPMASK ? 64 : component == XSTATE_ZMM_HI256 ? 512 : component == XSTATE_HI16_ZMM ? 1024 : 0;
}

/** Bytes of an image with all components that the CPU has, or that are kept. */
static inline uint32_t xstate_len(void)
{
    uint32_t a = 0xd, b, c = 0, d, end = xstate_offset(XSTATE_HI16_ZMM) + 1024;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return b < end ? end : b;
}

#endif
