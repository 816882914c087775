/* XSAVE images. A trace holds the standard (non-compacted) image in the layout of the recording
 * CPU; workers want the layout of this one. Components are found by CPUID leaf 0xD of either
 * machine (SDM 1, 13.4.3). */
#include "replay/replay_int.h"

#include "x86/xstate.h"

enum {
    LEGACY_LEN = 512,
    HEADER_LEN = 64,
    MXCSR_OFFSET = 24,
    FOP_OFFSET = 6,
    FIP_OFFSET = 8,
    XMM_OFFSET = 160,
    ST_OFFSET = 32
};

uint32_t xstate_size(void)
{
    return xstate_len() < XSTATE_MAX ? xstate_len() : XSTATE_MAX;
}

/* Those that workers keep: the CPU's, and those of AVX-512, which is emulated where the CPU lacks
 * it. */
static uint64_t kept_components(void)
{
    return (xstate_xcr0() & XSTATE_KEPT) | XSTATE_AVX512;
}

void xstate_clear_x87(struct xstate *x)
{
    memset(x->data + FOP_OFFSET, 0, 2);
    memset(x->data + FIP_OFFSET, 0, 16);
}

struct err *xstate_convert(const struct trace *t, const uint8_t *image, size_t len,
                           struct xstate *out)
{
    if (len < LEGACY_LEN)
        return err_new(ERR_FORMAT, "extra registers: only %zu bytes", len);
    memset(out, 0, sizeof(*out));
    out->len = xstate_size();
    uint64_t present = (1 << XSTATE_X87) | (1 << XSTATE_SSE);
    if (len >= LEGACY_LEN + HEADER_LEN)
        present = load_u64(image + LEGACY_LEN);
    uint64_t here = kept_components();

    if (present & (1 << XSTATE_X87)) {
        memcpy(out->data, image, MXCSR_OFFSET);
        memcpy(out->data + ST_OFFSET, image + ST_OFFSET, XMM_OFFSET - ST_OFFSET);
        if (trace_header(t)->clear_fip_fdp)
            xstate_clear_x87(out);
    } else {
        uint16_t fcw = 0x37f;
        memcpy(out->data, &fcw, sizeof(fcw));
    }
    // Bits outside of MXCSR's mask would fault when loaded.
    uint32_t mxcsr = load_u32(image + MXCSR_OFFSET) & 0xffff;
    memcpy(out->data + MXCSR_OFFSET, &mxcsr, sizeof(mxcsr));
    if (present & (1 << XSTATE_SSE))
        memcpy(out->data + XMM_OFFSET, image + XMM_OFFSET, 256);

    uint64_t kept = present & 3;
    for (uint32_t i = 2; i < 63; i++) {
        if (!(present >> i & 1))
            continue;
        uint32_t recorded[4], to = xstate_offset(i);
        trace_cpuid(t, 0xd, i, recorded);
        size_t size = recorded[0], offset = recorded[1];
        if (i == XSTATE_PKRU)
            continue; // rr does not replay it either
        if (!(here >> i & 1))
            return err_new(ERR_UNSUPPORTED,
                           "the recording uses XSAVE component %u, which this CPU lacks", i);
        if (offset > len || size > len - offset || to > out->len || size > out->len - to ||
            size != xstate_component_len(i))
            return err_new(ERR_FORMAT, "extra registers: component %u does not fit", i);
        memcpy(out->data + to, image + offset, size);
        kept |= 1ull << i;
    }
    memcpy(out->data + LEGACY_LEN, &kept, sizeof(kept));
    return NULL;
}
