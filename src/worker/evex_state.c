/* Registers in XSAVE images: the emulated ones in those that the worker hands out; and all in those
 * that the guest makes itself, in the layout of the recording's CPU. */
#include "worker/evex.h"
#include "worker/insn.h"

#include "x86/xstate.h"

enum {
    HEADER_AT = 512,
    COMPACTION_AT = 520,
    EXTENDED_AT = 576,
    MXCSR_AT = 24,
    MXCSR_KNOWN = 0xffff
};
enum {
    HAS_X87 = 1 << XSTATE_X87,
    HAS_SSE = 1 << XSTATE_SSE,
    HAS_AVX = 1 << XSTATE_AVX,
    HAS_OPMASK = 1 << XSTATE_OPMASK,
    HAS_ZMM_HI256 = 1 << XSTATE_ZMM_HI256,
    HAS_HI16_ZMM = 1 << XSTATE_HI16_ZMM,
    HAS_PKRU = 1 << XSTATE_PKRU
};
static const uint16_t length_of[ENGINE_COMPONENTS] = {[XSTATE_AVX] = 256,
                                                      [XSTATE_OPMASK] = 64,
                                                      [XSTATE_ZMM_HI256] = 512,
                                                      [XSTATE_HI16_ZMM] = 1024,
                                                      [XSTATE_PKRU] = 4};

static uint64_t load64(const uint8_t *p)
{
    return *(const uint64_t *)(const void *)p;
}

static void store64(uint8_t *p, uint64_t v)
{
    *(uint64_t *)(void *)p = v;
}

static void copy(uint8_t *to, const uint8_t *from, unsigned len)
{
    for (unsigned i = 0; i < len; i += 8)
        store64(to + i, load64(from + i));
}

static bool any(const uint8_t *p, unsigned len)
{
    for (unsigned i = 0; i < len; i += 8) {
        if (load64(p + i))
            return true;
    }
    return false;
}

/* --- components 5 to 7 --- */

static void get_component(unsigned component, uint8_t *out)
{
    switch (component) {
    case XSTATE_OPMASK:
        copy(out, (const uint8_t *)evex_registers->k, length_of[component]);
        break;
    case XSTATE_ZMM_HI256:
        for (unsigned n = 0; n < 16; n++)
            copy(out + n * EVEX_LOW, evex_vector(n) + EVEX_LOW, EVEX_LOW);
        break;
    default:
        for (unsigned n = 16; n < EVEX_VECTORS; n++)
            copy(out + (n - 16) * EVEX_LEN, evex_registers->v[n], EVEX_LEN);
    }
}

/* from: NULL is the initial state. */
static void set_component(unsigned component, const uint8_t *from)
{
    static const uint8_t zeros[1024];
    if (!from)
        from = zeros;
    switch (component) {
    case XSTATE_OPMASK:
        copy((uint8_t *)evex_registers->k, from, length_of[component]);
        break;
    case XSTATE_ZMM_HI256:
        for (unsigned n = 0; n < 16; n++) {
            copy(evex_registers->v[n] + EVEX_LOW, from + n * EVEX_LOW, EVEX_LOW);
            evex_registers->upper[n] = EVEX_UPPER_KEPT;
        }
        break;
    default:
        for (unsigned n = 16; n < EVEX_VECTORS; n++)
            copy(evex_registers->v[n], from + (n - 16) * EVEX_LEN, EVEX_LEN);
    }
}

void evex_to_image(uint8_t *image)
{
    uint64_t in_use = load64(image + HEADER_AT) & ~(uint64_t)XSTATE_AVX512;
    for (unsigned i = XSTATE_OPMASK; i <= XSTATE_HI16_ZMM; i++) {
        uint8_t *at = image + xstate_offset(i);
        get_component(i, at);
        if (any(at, length_of[i]))
            in_use |= 1ull << i;
    }
    store64(image + HEADER_AT, in_use);
}

void evex_from_image(const uint8_t *image)
{
    uint64_t in_use = load64(image + HEADER_AT);
    for (unsigned i = XSTATE_OPMASK; i <= XSTATE_HI16_ZMM; i++)
        set_component(i, in_use >> i & 1 ? image + xstate_offset(i) : NULL);
}

/* --- XSAVE and XRSTOR of the guest (SDM 1, 13.7 to 13.11) --- */

static uint8_t image[XSTATE_MAX] __attribute__((aligned(64)));

/* Components that the guest asks for, in EDX:EAX, of those it has. */
static uint64_t requested(void)
{
    return ((*evex_general(RAX) & UINT32_MAX) | *evex_general(RDX) << 32) & engine_isa()->xcr0;
}

/* Components that are really in this CPU, of those that an image can have here. */
static uint32_t of_cpu(void)
{
    uint32_t known = HAS_X87 | HAS_SSE | HAS_AVX | HAS_PKRU |
                     (engine_isa()->emulates_avx512 ? 0 : XSTATE_AVX512);
    return (uint32_t)xstate_xcr0() & known;
}

/* Where a component is; in the compacted format behind those of `format`, which are there. */
static uint64_t place_of(unsigned component, bool compacted, uint64_t format)
{
    const struct engine_component *c = engine_isa()->components;
    if (!compacted)
        return component < ENGINE_COMPONENTS ? c[component].offset : 0;
    uint64_t at = EXTENDED_AT;
    for (unsigned i = XSTATE_AVX; i <= component && i < ENGINE_COMPONENTS; i++) {
        if (!(format >> i & 1))
            continue;
        if (c[i].aligned)
            at = (at + 63) & ~63ull;
        if (i == component)
            return at;
        at += c[i].size;
    }
    return at;
}

/* What the CPU has and what is kept here, in the standard format of this machine. */
static void get_image(bool wide)
{
    static const uint32_t pkru = 0x55555554; // as Linux begins; the recorder does not tell of it
    uint32_t parts = of_cpu();
    copy(image + HEADER_AT, (const uint8_t[64]){0}, 64);
    if (wide)
        __asm__ volatile("xsave64 (%0)" ::"r"(image), "a"(parts), "d"(0) : "memory");
    else
        __asm__ volatile("xsave (%0)" ::"r"(image), "a"(parts), "d"(0) : "memory");
    if (engine_isa()->emulates_avx512)
        evex_to_image(image);
    if (!(parts & HAS_PKRU))
        *(uint32_t *)(void *)(image + xstate_offset(XSTATE_PKRU)) = pkru;
}

/* A component in its initial state. */
static void store_initial(uint64_t address, uint32_t len)
{
    static const uint8_t zeros[64];
    for (uint32_t at = 0; at < len; at += sizeof(zeros))
        evex_store(address + at, zeros, len - at < sizeof(zeros) ? len - at : sizeof(zeros));
}

void evex_save_state(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    uint64_t wanted = requested(), address = w->address;
    bool compacted = in->what == EVEX_XSAVEC;
    if (address % 64)
        evex_protection_fault();
    get_image(in->imm);
    uint64_t in_use = load64(image + HEADER_AT) | HAS_PKRU;
    if (compacted && *(const uint32_t *)(const void *)(image + MXCSR_AT) != 0x1f80)
        in_use |= HAS_SSE;
    uint64_t saved = in->what == EVEX_XSAVE ? wanted : wanted & in_use;
    if (saved >> ENGINE_COMPONENTS) // tiles: nobody knows here that so much is written
        evex_give_up();
    if (saved & HAS_X87) {
        evex_store(address, image, MXCSR_AT);
        evex_store(address + 32, image + 32, 128);
    }
    if (compacted ? saved & HAS_SSE : wanted & (HAS_SSE | HAS_AVX))
        evex_store(address + MXCSR_AT, image + MXCSR_AT, 8);
    if (saved & HAS_SSE)
        evex_store(address + 160, image + 160, 256);
    for (unsigned i = XSTATE_AVX; i < ENGINE_COMPONENTS; i++) {
        uint64_t at = address + place_of(i, compacted, wanted);
        if (saved >> i & 1 && length_of[i])
            evex_store(at, image + xstate_offset(i), length_of[i]);
        else if (saved >> i & 1)
            store_initial(at, engine_isa()->components[i].size);
    }
    uint64_t header[2];
    evex_load(header, address + HEADER_AT, sizeof(header));
    header[0] = (compacted ? 0 : header[0] & ~wanted) | (wanted & in_use);
    header[1] = 1ull << 63 | wanted;
    evex_store(address + HEADER_AT, header, compacted ? 16 : 8);
    w->done = true;
}

void evex_restore_state(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    uint64_t wanted = requested(), address = w->address, xcr0 = engine_isa()->xcr0;
    uint32_t parts = of_cpu();
    if (address % 64)
        evex_protection_fault();
    get_image(in->imm);
    uint64_t header[8];
    evex_load(header, address + HEADER_AT, sizeof(header));
    bool compacted = header[1] >> 63;
    uint64_t present = header[0], format = header[1] & ~(1ull << 63), rest = 0;
    for (unsigned i = 2; i < 8; i++)
        rest |= header[i];
    if (present & ~(compacted ? format : xcr0) || (compacted ? format & ~xcr0 : header[1]) ||
        (compacted ? rest : header[2]))
        evex_protection_fault();
    // First all that can fault.
    uint64_t loaded = wanted & present;
    if (loaded >> ENGINE_COMPONENTS)
        evex_give_up();
    uint32_t mxcsr = *(const uint32_t *)(const void *)(image + MXCSR_AT);
    bool has_mxcsr = compacted ? loaded & HAS_SSE : wanted & (HAS_SSE | HAS_AVX);
    if (has_mxcsr)
        evex_load(&mxcsr, address + MXCSR_AT, 4);
    else if (compacted && wanted & HAS_SSE)
        mxcsr = 0x1f80;
    if (mxcsr & ~(uint32_t)MXCSR_KNOWN)
        evex_protection_fault();
    if (loaded & HAS_X87) {
        evex_load(image, address, MXCSR_AT);
        evex_load(image + 32, address + 32, 128);
    }
    *(uint32_t *)(void *)(image + MXCSR_AT) = mxcsr;
    if (loaded & HAS_SSE)
        evex_load(image + 160, address + 160, 256);
    for (unsigned i = XSTATE_AVX; i < ENGINE_COMPONENTS; i++) {
        if (loaded >> i & 1 && length_of[i])
            evex_load(image + xstate_offset(i), address + place_of(i, compacted, format),
                      length_of[i]);
    }
    for (unsigned i = XSTATE_OPMASK; i <= XSTATE_HI16_ZMM && engine_isa()->emulates_avx512; i++) {
        if (wanted >> i & 1)
            set_component(i, loaded >> i & 1 ? image + xstate_offset(i) : NULL);
    }
    store64(image + HEADER_AT, loaded & parts);
    store64(image + COMPACTION_AT, 0);
    parts &= (uint32_t)wanted;
    if (in->imm)
        __asm__ volatile("xrstor64 (%0)" ::"r"(image), "a"(parts), "d"(0) : "memory");
    else
        __asm__ volatile("xrstor (%0)" ::"r"(image), "a"(parts), "d"(0) : "memory");
    w->done = true;
}
