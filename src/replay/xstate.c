/* XSAVE images. A trace holds the standard (non-compacted) image in the layout of the recording CPU; workers want the layout
 * of this one. Components are found by CPUID leaf 0xD of either machine (SDM 1, 13.4.3). */
#include "replay/replay_int.h"

#include <cpuid.h>

enum { LEGACY_LEN = 512, HEADER_LEN = 64, MXCSR_OFFSET = 24, FIP_OFFSET = 8, XMM_OFFSET = 160, ST_OFFSET = 32 };
enum { COMPONENT_X87 = 0, COMPONENT_SSE = 1, COMPONENT_PKRU = 9 };

uint32_t xstate_size(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid_count(0xd, 0, &a, &b, &c, &d) || b < LEGACY_LEN + HEADER_LEN)
        return LEGACY_LEN + HEADER_LEN;
    return b < XSTATE_MAX ? b : XSTATE_MAX;
}

static uint64_t host_components(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

struct err *xstate_convert(const struct trace *t, const uint8_t *image, size_t len, struct xstate *out)
{
    if (len < LEGACY_LEN)
        return err_new(ERR_FORMAT, "extra registers: only %zu bytes", len);
    memset(out, 0, sizeof(*out));
    out->len = xstate_size();
    uint64_t present = (1 << COMPONENT_X87) | (1 << COMPONENT_SSE);
    if (len >= LEGACY_LEN + HEADER_LEN)
        present = load_u64(image + LEGACY_LEN);
    uint64_t host = host_components();

    if (present & (1 << COMPONENT_X87)) {
        memcpy(out->data, image, MXCSR_OFFSET);
        memcpy(out->data + ST_OFFSET, image + ST_OFFSET, XMM_OFFSET - ST_OFFSET);
        if (trace_header(t)->clear_fip_fdp)
            memset(out->data + FIP_OFFSET, 0, 16);
    } else {
        uint16_t fcw = 0x37f;
        memcpy(out->data, &fcw, sizeof(fcw));
    }
    // Bits outside of MXCSR's mask would fault when loaded.
    uint32_t mxcsr = load_u32(image + MXCSR_OFFSET) & 0xffff;
    memcpy(out->data + MXCSR_OFFSET, &mxcsr, sizeof(mxcsr));
    if (present & (1 << COMPONENT_SSE))
        memcpy(out->data + XMM_OFFSET, image + XMM_OFFSET, 256);

    uint64_t kept = present & 3;
    for (uint32_t i = 2; i < 63; i++) {
        if (!(present >> i & 1))
            continue;
        uint32_t recorded[4], a, b, c, d;
        trace_cpuid(t, 0xd, i, recorded);
        size_t size = recorded[0], offset = recorded[1];
        if (i == COMPONENT_PKRU)
            continue; // rr does not replay it either
        if (!(host >> i & 1))
            return err_new(ERR_UNSUPPORTED, "the recording uses XSAVE component %u, which this CPU lacks", i);
        __cpuid_count(0xd, i, a, b, c, d);
        if (offset > len || size > len - offset || b > out->len || a > out->len - b || size != a)
            return err_new(ERR_FORMAT, "extra registers: component %u does not fit", i);
        memcpy(out->data + b, image + offset, size);
        kept |= 1ull << i;
    }
    memcpy(out->data + LEGACY_LEN, &kept, sizeof(kept));
    return NULL;
}
