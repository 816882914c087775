/* Operations that the CPU does itself: by a VEX instruction, for 128 or 256 bits at a time. */
#include "worker/evex.h"

/* What goes into `code` and comes out: ymm0 to ymm2 and RAX. */
struct native {
    uint8_t in[3][EVEX_LOW], out[EVEX_LOW], kept[3][EVEX_LOW];
    uint64_t rax;
};

/* The guest's registers are in the CPU: those that `code` uses are kept. */
uint64_t evex_run_native(const uint8_t *code, struct native *n) __asm__("evex_run_native");
__asm__(".text\n"
        ".type evex_run_native, @function\n"
        "evex_run_native:\n" // (code, native): the flags
        "    vmovdqu %ymm0, 128(%rsi)\n"
        "    vmovdqu %ymm1, 160(%rsi)\n"
        "    vmovdqu %ymm2, 192(%rsi)\n"
        "    vmovdqu (%rsi), %ymm0\n"
        "    vmovdqu 32(%rsi), %ymm1\n"
        "    vmovdqu 64(%rsi), %ymm2\n"
        "    mov 224(%rsi), %rax\n"
        "    call *%rdi\n"
        "    mov %rax, 224(%rsi)\n"
        "    pushfq\n"
        "    pop %rax\n"
        "    vmovdqu %ymm0, 96(%rsi)\n"
        "    vmovdqu 128(%rsi), %ymm0\n"
        "    vmovdqu 160(%rsi), %ymm1\n"
        "    vmovdqu 192(%rsi), %ymm2\n"
        "    ret\n"
        ".type evex_load_lane, @function\n"
        "evex_load_lane:\n" // (n, from): ymm_n
        "    lea 1f(%rip), %rax\n"
        "    lea (%rax, %rdi, 8), %rax\n"
        "    jmp *%rax\n"
        ".p2align 3\n"
        "1:\n"
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
        ".p2align 3\n"
        "    vmovdqu (%rsi), %ymm\\n\n"
        "    ret\n"
        ".endr\n");
void evex_load_lane(uint64_t n, const uint8_t *from) __asm__("evex_load_lane");
_Static_assert(offsetof(struct native, out) == 96 && offsetof(struct native, kept) == 128 &&
                   offsetof(struct native, rax) == 224,
               "evex_run_native has these offsets");

static struct native native;

void evex_load_low(unsigned n)
{
    evex_load_lane(n, evex_registers->v[n]);
}

void evex_load_aside(unsigned n, unsigned aside)
{
    evex_load_lane(n, evex_registers->aside[aside]);
}

static void move_low(uint8_t *to, const uint8_t *from)
{
    for (unsigned i = 0; i < EVEX_LOW; i += 8)
        *(uint64_t *)(void *)(to + i) = *(const uint64_t *)(const void *)(from + i);
}

static uint32_t get_mxcsr(void)
{
    uint32_t v;
    __asm__ volatile("stmxcsr %0" : "=m"(v));
    return v;
}

static void set_mxcsr(uint32_t v)
{
    __asm__ volatile("ldmxcsr %0" ::"m"(v));
}

static void put_one(uint8_t *at, unsigned element)
{
    if (element == 8)
        *(uint64_t *)(void *)at = 0x3ff0000000000000;
    else if (element == 4)
        *(uint32_t *)(void *)at = 0x3f800000;
    else
        *(uint16_t *)(void *)at = 0x3c00;
}

/* Elements that are masked off become 1.0, with which nothing raises an exception. As integers
 * these are small enough to be exact. */
static void replace_masked(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    for (unsigned i = 0; i < in->count; i++) {
        if (w->mask >> i & 1)
            continue;
        for (unsigned s = 0; s < 2; s++) {
            if (in->src[s].kind == EVEX_VECTOR || in->src[s].kind == EVEX_MEMORY)
                put_one(w->src[s] + i * in->src[s].element, in->src[s].element);
        }
        if (in->dst.kind == EVEX_VECTOR && in->dst.element >= 4)
            put_one(w->old + i * in->dst.element, in->dst.element);
    }
}

enum { ALL_MASKED = 0x1f80, ROUNDING_AT = 13, ROUNDING_BITS = 3 << ROUNDING_AT };

/* Sets rounding and masks of exceptions as the instruction asks for; what leave_float() restores.
 */
static uint32_t enter_float(const struct evex_insn *in)
{
    uint32_t mxcsr = get_mxcsr();
    if (!in->rounding) {
        // Exceptions of all elements would have to be known before the first one is raised.
        if ((mxcsr & ALL_MASKED) != ALL_MASKED)
            evex_give_up();
        return mxcsr;
    }
    uint32_t wanted = mxcsr | ALL_MASKED;
    if (in->rounding != EVEX_SAE)
        wanted = (wanted & ~(uint32_t)ROUNDING_BITS) | (uint32_t)(in->rounding - EVEX_NEAREST)
                                                           << ROUNDING_AT;
    set_mxcsr(wanted);
    return mxcsr;
}

static void leave_float(const struct evex_insn *in, uint32_t mxcsr)
{
    if (in->rounding)
        set_mxcsr(mxcsr);
}

/* By how much the source moves on with each lane. */
static unsigned step_of(const struct evex_insn *in, unsigned source)
{
    unsigned len = in->src[source].len;
    if (in->src[1].kind)
        return len < in->len ? 0 : in->lane; // the count of a shift stays
    return (unsigned)in->count * in->src[0].element * in->lane / in->len;
}

void evex_native(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    uint32_t mxcsr = 0;
    uint8_t kept_old[EVEX_LEN];
    if (in->is_float) {
        if (!w->mask && in->mask) // nothing is computed
            return;
        mxcsr = enter_float(in);
        if (in->mask) {
            move_low(kept_old, w->old);
            move_low(kept_old + EVEX_LOW, w->old + EVEX_LOW);
            replace_masked(w);
        }
    }
    unsigned steps[2] = {step_of(in, 0), step_of(in, 1)};
    unsigned to = (in->dst.len < in->len ? in->dst.len : in->len) * in->lane / in->len;
    for (unsigned lane = 0; lane < in->len / in->lane; lane++) {
        move_low(native.in[0], w->old + lane * in->lane);
        move_low(native.in[1], w->src[0] + lane * steps[0]);
        move_low(native.in[2], w->src[1] + lane * steps[1]);
        evex_run_native(in->code, &native);
        move_low(w->out + lane * to, native.out);
    }
    if (in->is_float) {
        leave_float(in, mxcsr);
        if (in->mask) {
            move_low(w->old, kept_old);
            move_low(w->old + EVEX_LOW, kept_old + EVEX_LOW);
        }
    }
}

void evex_native_scalar(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    move_low(native.in[0], w->old);
    move_low(native.in[1], w->src[0]);
    move_low(native.in[2], w->src[1]);
    native.rax = *(const uint64_t *)(const void *)w->src[1];
    move_low(w->out, in->what == EVEX_KEEPS_UPPER ? w->old : w->src[0]);
    if (!(w->mask & 1))
        return;
    uint32_t mxcsr = enter_float(in);
    evex_run_native(in->code, &native);
    leave_float(in, mxcsr);
    move_low(w->out, native.out);
}

/* The highest bits of 8 bytes. */
static uint64_t signs_of_bytes(uint64_t v)
{
    return (v & 0x8080808080808080) * 0x0002040810204081 >> 56;
}

/* One bit for each element: its sign. */
uint64_t evex_signs(const uint8_t *v, unsigned element, unsigned count)
{
    uint64_t result = 0;
    if (element == 1) {
        for (unsigned i = 0; i < count; i += 8)
            result |= signs_of_bytes(*(const uint64_t *)(const void *)(v + i)) << i;
        return result;
    }
    for (unsigned i = 0; i < count; i++)
        result |= (uint64_t)(v[(i + 1) * element - 1] >> 7) << i;
    return result;
}

void evex_native_compare(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    uint32_t mxcsr = 0;
    uint64_t *out = (uint64_t *)(void *)w->out;
    if (in->is_float && !w->mask) {
        *out = 0;
        return;
    }
    if (in->is_float) {
        mxcsr = enter_float(in);
        if (in->mask)
            replace_masked(w);
    }
    uint8_t result[EVEX_LEN];
    for (unsigned at = 0; at < in->len; at += in->lane) {
        move_low(native.in[1], w->src[0] + at);
        move_low(native.in[2], w->src[1] + at);
        evex_run_native(in->code, &native);
        move_low(result + at, native.out);
    }
    if (in->is_float)
        leave_float(in, mxcsr);
    *out = evex_signs(result, in->src[0].element, in->count) & w->mask;
}

/* Compares of scalars that set flags, and conversions into a general register. */
void evex_native_flags(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    enum { ARITHMETIC = 0x8d5 };
    uint32_t mxcsr = enter_float(in);
    move_low(native.in[1], w->src[0]);
    move_low(native.in[2], w->src[1]);
    uint64_t flags = evex_run_native(in->code, &native);
    leave_float(in, mxcsr);
    *(uint64_t *)(void *)w->out = native.rax;
    if (!in->dst.kind)
        *evex_flags() = (*evex_flags() & ~(uint64_t)ARITHMETIC) | (flags & ARITHMETIC);
}

/* Pairs of products, added to the destination one after the other, each by an FMA which rounds to
 * the nearest and takes denormals for zeros (SDM 2C, VDPBF16PS). */
void evex_dot_bf16(struct evex_work *w)
{
    enum { NEAREST_WITHOUT_DENORMALS = 0x9fc0 };
    uint32_t mxcsr = get_mxcsr();
    set_mxcsr(NEAREST_WITHOUT_DENORMALS);
    for (unsigned at = 0; at < w->in->len; at += EVEX_LOW) {
        move_low(native.in[0], w->old + at);
        for (unsigned odd = 2; odd-- > 0;) {
            for (unsigned i = 0; i < EVEX_LOW / 4; i++) {
                for (unsigned s = 0; s < 2; s++) {
                    uint32_t pair = *(const uint32_t *)(const void *)(w->src[s] + at + 4 * i);
                    *(uint32_t *)(void *)(native.in[1 + s] + 4 * i) =
                        odd ? pair & 0xffff0000 : pair << 16;
                }
            }
            evex_run_native(w->in->code, &native);
            move_low(native.in[0], native.out);
        }
        move_low(w->out + at, native.out);
    }
    set_mxcsr(mxcsr);
}
