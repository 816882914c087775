/* Executing an emulated instruction: its operands, and what becomes of the result. See evex.h. */
#include "worker/evex.h"

struct evex_registers *evex_registers;
static struct engine_state *state;
static bool gave_up;

void evex_init(struct evex_registers *registers, struct engine_state *s)
{
    evex_registers = registers;
    state = s;
    for (unsigned i = 0; i < EVEX_LOW; i++)
        registers->ones[i] = 0xff;
    for (unsigned i = 0; i < sizeof(registers->low_bits); i++)
        registers->low_bits[i] = i & 63;
    for (unsigned i = 0; i < EVEX_LOW; i++) {
        registers->spread[i] = (uint8_t)(i / 8);
        registers->bits[0][i] = (uint8_t)(1 << i % 8);
    }
    for (unsigned i = 0; i < 16; i++)
        ((uint16_t *)(void *)registers->bits[1])[i] = (uint16_t)(1 << i);
    for (unsigned i = 0; i < 8; i++)
        ((uint32_t *)(void *)registers->bits[2])[i] = 1u << i;
    for (unsigned i = 0; i < 8; i++)
        ((uint64_t *)(void *)registers->bits[3])[i] = 1u << i;
}

/* --- memory of the guest --- */

/* What faults between evex_guest_begin and evex_guest_end is the guest's instruction (on_signal()
 * in engine.c). Pieces of 8 bytes are moved upwards, so the first address that faults is that of a
 * whole access. */
extern const char evex_guest_begin[], evex_guest_end[];
__asm__(".globl evex_guest_begin, evex_guest_end\n"
        ".hidden evex_guest_begin, evex_guest_end\n"
        ".text\n"
        "evex_guest_begin:\n"
        ".type evex_copy, @function\n"
        "evex_copy:\n" // (to, from, len)
        "    sub $8, %rdx\n"
        "    jb 2f\n"
        "1:  mov (%rsi), %rax\n"
        "    mov %rax, (%rdi)\n"
        "    add $8, %rsi\n"
        "    add $8, %rdi\n"
        "    sub $8, %rdx\n"
        "    jae 1b\n"
        "2:  test $4, %dl\n"
        "    jz 3f\n"
        "    mov (%rsi), %eax\n"
        "    mov %eax, (%rdi)\n"
        "    add $4, %rsi\n"
        "    add $4, %rdi\n"
        "3:  test $2, %dl\n"
        "    jz 4f\n"
        "    movzwl (%rsi), %eax\n"
        "    mov %ax, (%rdi)\n"
        "    add $2, %rsi\n"
        "    add $2, %rdi\n"
        "4:  test $1, %dl\n"
        "    jz 5f\n"
        "    movzbl (%rsi), %eax\n"
        "    mov %al, (%rdi)\n"
        "5:  ret\n"
        ".type evex_touch, @function\n"
        "evex_touch:\n" // (address): a write that changes nothing
        "    lock orb $0, (%rdi)\n"
        "    ret\n"
        ".globl evex_protect\n"
        ".hidden evex_protect\n"
        "evex_protect:\n" // general protection: no canonical address
        "    mov $1, %edi\n"
        "    ror $1, %rdi\n"
        "    mov (%rdi), %al\n"
        "evex_guest_end:\n");
extern const char evex_protect[];
void evex_copy(void *to, const void *from, uint64_t len) __asm__("evex_copy");
void evex_touch(uint64_t address) __asm__("evex_touch");

bool evex_accesses_guest(uint64_t host)
{
    return host >= (uint64_t)(uintptr_t)evex_guest_begin &&
           host < (uint64_t)(uintptr_t)evex_guest_end;
}

/* An address that is not canonical is a stack fault relative to SS, which Linux tells as SIGBUS. */
int evex_signal(const struct evex_insn *in, uint64_t host, int signo, int code)
{
    enum { SEGV = 11, BUS = 7, KERNEL = 0x80 };
    bool stack = in->in_stack && host < (uint64_t)(uintptr_t)evex_protect;
    return signo == SEGV && code == KERNEL && stack ? BUS : signo;
}

void evex_protection_fault(void)
{
    ((void (*)(void))(uintptr_t)evex_protect)();
    __builtin_unreachable();
}

bool evex_gave_up(void)
{
    bool result = gave_up;
    gave_up = false;
    return result;
}

void evex_give_up(void)
{
    gave_up = true;
    evex_protection_fault();
}

void evex_load(void *to, uint64_t address, uint64_t len)
{
    evex_copy(to, (const void *)(uintptr_t)address, len);
}

/* Faults if any of it cannot be written. */
static void touch_pages(uint64_t address, uint64_t len)
{
    evex_touch(address);
    for (uint64_t page = (address | (PAGE_SIZE - 1)) + 1; page < address + len; page += PAGE_SIZE)
        evex_touch(page);
}

void evex_store(uint64_t address, const void *from, uint64_t len)
{
    if (address % PAGE_SIZE + len > PAGE_SIZE) // nothing is written if the second page cannot be
        touch_pages(address, len);
    evex_copy((void *)(uintptr_t)address, from, len);
}

/* Takes the lowest run of ones off the mask: where it begins, and how long it is. */
static uint64_t next_run(uint64_t *left, unsigned *count)
{
    unsigned first = (unsigned)__builtin_ctzll(*left);
    uint64_t behind = ~(*left >> first);
    *count = behind ? (unsigned)__builtin_ctzll(behind) : 64;
    *left &= first + *count >= 64 ? 0 : ~0ull << (first + *count);
    return first;
}

/* Stores the elements that are on in the mask. */
static void store_elements(uint64_t address, const uint8_t *from, unsigned element, uint64_t mask)
{
    unsigned count;
    uint64_t touched = UINT64_MAX;
    // Nothing is written if a page cannot be.
    for (uint64_t left = mask; left && address % PAGE_SIZE + EVEX_LEN > PAGE_SIZE;) {
        uint64_t at = address + next_run(&left, &count) * element;
        for (uint64_t end = at + count * element; at < end; at = (at | (PAGE_SIZE - 1)) + 1) {
            if (at / PAGE_SIZE != touched)
                evex_touch(at);
            touched = at / PAGE_SIZE;
        }
    }
    for (uint64_t left = mask; left;) {
        uint64_t at = next_run(&left, &count) * element;
        evex_copy((void *)(uintptr_t)(address + at), from + at, count * element);
    }
}

static void load_elements(uint8_t *to, uint64_t address, unsigned element, uint64_t mask)
{
    for (; mask; mask &= mask - 1) {
        unsigned at = (unsigned)__builtin_ctzll(mask) * element;
        evex_copy(to + at, (const void *)(uintptr_t)(address + at), element);
    }
}

static uint64_t address_of(const struct evex_insn *in)
{
    uint64_t address = in->displacement;
    if (in->base != NO_REG)
        address += state->regs[in->base];
    bool vsib = in->run == evex_gather || in->run == evex_scatter;
    if (in->index != NO_REG && !vsib)
        address += state->regs[in->index] * in->scale;
    if (in->narrow_address)
        address = (uint32_t)address;
    if (in->segment)
        address += in->segment == 1 ? state->fs_base : state->gs_base;
    return address;
}

/* --- registers --- */

const uint8_t *evex_vector(unsigned n)
{
    if (n < 16 && evex_registers->upper[n] != EVEX_UPPER_KEPT) {
        for (unsigned i = EVEX_LOW; i < EVEX_LEN; i += 8)
            *(uint64_t *)(void *)&evex_registers->v[n][i] = 0;
        evex_registers->upper[n] = EVEX_UPPER_KEPT;
    }
    return evex_registers->v[n];
}

uint64_t *evex_general(unsigned number)
{
    return &state->regs[number];
}

uint64_t *evex_flags(void)
{
    return &state->rflags;
}

static void copy_vector(uint8_t *to, const uint8_t *from, unsigned len)
{
    for (unsigned i = 0; i < len; i += 8)
        *(uint64_t *)(void *)(to + i) = *(const uint64_t *)(const void *)(from + i);
}

/* --- operands --- */

static uint64_t low_bits(unsigned count)
{
    return count >= 64 ? ~0ull : (1ull << count) - 1;
}

static void repeat(uint8_t *at, unsigned element, unsigned len)
{
    uint64_t v = *(const uint64_t *)(const void *)at;
    v = element == 8   ? v
        : element == 4 ? (uint32_t)v * 0x100000001ull
                       : (uint16_t)v * 0x1000100010001ull;
    for (unsigned i = 0; i < len; i += 8)
        *(uint64_t *)(void *)(at + i) = v;
}

static void load_source(struct evex_work *w, unsigned which)
{
    const struct evex_insn *in = w->in;
    const struct evex_operand *op = &in->src[which];
    uint8_t *to = w->src[which];
    switch (op->kind) {
    case EVEX_VECTOR:
        copy_vector(to,
                    op->len > EVEX_LOW ? evex_vector(op->number) : evex_registers->v[op->number],
                    op->len);
        break;
    case EVEX_MASK:
        *(uint64_t *)(void *)to = evex_registers->k[op->number];
        break;
    case EVEX_GENERAL:
        *(uint64_t *)(void *)to = state->regs[op->number];
        break;
    case EVEX_MEMORY: {
        bool some = in->suppresses && in->mask && w->mask != low_bits(in->count);
        unsigned elements = op->len / op->element;
        if ((some && !w->mask) || in->run == evex_expand)
            break;
        if (in->aligned && w->address % op->len)
            evex_protection_fault();
        if (in->broadcast) {
            evex_load(to, w->address, in->broadcast);
            repeat(to, in->broadcast, op->len);
        } else if (some && elements > 1) {
            uint64_t mask = 0; // each of them may be used several times
            for (unsigned i = 0; i < in->count; i += elements)
                mask |= w->mask >> i & low_bits(elements);
            load_elements(to, w->address, op->element, mask);
        } else {
            evex_load(to, w->address, op->len);
        }
        break;
    }
    default:
        break;
    }
}

/* --- results --- */

/* 0xff in those bytes whose bits are set. */
static uint64_t bytes_of_bits(uint64_t bits)
{
    uint64_t v = (bits & 0xff) * 0x0101010101010101 & 0x8040201008040201;
    return ((v + 0x7f7f7f7f7f7f7f7f) >> 7 & 0x0101010101010101) * 0xff;
}

/* Each bit of an element's mask as often as the element has bytes. */
static uint64_t byte_mask(uint64_t mask, unsigned element, unsigned at)
{
    switch (element) {
    case 1:
        return bytes_of_bits(mask >> at);
    case 2: {
        uint64_t m = mask >> at / 2;
        return (m & 1) * 0xffff | (m >> 1 & 1) * 0xffff0000 | (m >> 2 & 1) * 0xffff00000000 |
               (m >> 3 & 1) * 0xffff000000000000;
    }
    case 4: {
        uint64_t m = mask >> at / 4;
        return (m & 1) * 0xffffffff | (m >> 1 & 1) * 0xffffffff00000000;
    }
    default:
        return mask >> at / 8 & 1 ? ~0ull : 0;
    }
}

/* Leaves in `out` what the mask lets through. */
static void merge(struct evex_work *w, unsigned len)
{
    for (unsigned at = 0; at < len; at += 8) {
        uint64_t *out = (uint64_t *)(void *)(w->out + at),
                 old = *(const uint64_t *)(const void *)(w->old + at);
        uint64_t keep = byte_mask(w->mask, w->in->dst.element, at);
        *out = (*out & keep) | (w->in->zeroing ? 0 : old & ~keep);
    }
}

static void finish_vector(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    unsigned n = in->dst.number, len = in->scalar ? 16 : (unsigned)in->count * in->dst.element;
    if (in->mask && in->scalar && !(w->mask & 1)) {
        uint64_t *out = (uint64_t *)(void *)w->out,
                 keep = in->dst.element == 8 ? 0 : 0xffffffff00000000;
        *out = (*out & keep) | (in->zeroing ? 0 : *(const uint64_t *)(const void *)w->old & ~keep);
    } else if (in->mask && !in->scalar) {
        merge(w, (len + 7) & ~7u);
    }
    if (len % 8) {
        for (unsigned i = len; i % 8; i++)
            w->out[i] = 0;
    }
    len = (len + 7) & ~7u;
    uint8_t *v = evex_registers->v[n];
    copy_vector(v, w->out, len);
    for (unsigned i = len; i < EVEX_LEN; i += 8)
        *(uint64_t *)(void *)(v + i) = 0;
    if (n < 16)
        evex_registers->upper[n] = EVEX_UPPER_KEPT;
}

static void finish(struct evex_work *w)
{
    const struct evex_insn *in = w->in;
    uint64_t value = *(const uint64_t *)(const void *)w->out;
    switch (in->dst.kind) {
    case EVEX_VECTOR:
        finish_vector(w);
        break;
    case EVEX_MASK:
        evex_registers->k[in->dst.number] = value;
        break;
    case EVEX_GENERAL:
        state->regs[in->dst.number] = in->dst.len == 8 ? value : (uint32_t)value;
        break;
    case EVEX_MEMORY:
        if (in->aligned && w->mask && w->address % in->dst.len)
            evex_protection_fault();
        if (!in->mask) {
            evex_store(w->address, w->out, in->dst.len);
            break;
        }
        if (!in->suppresses)
            touch_pages(w->address, in->dst.len);
        store_elements(w->address, w->out, in->dst.element, w->mask);
        break;
    default:
        break;
    }
}

void evex_execute(const struct evex_insn *in)
{
    static struct evex_work work;
    struct evex_work *w = &work;
    w->in = in;
    w->done = false;
    w->mask = low_bits(in->count);
    if (in->mask)
        w->mask &= evex_registers->k[in->mask];
    w->address = address_of(in);
    if (in->dst.kind == EVEX_VECTOR)
        copy_vector(w->old, evex_vector(in->dst.number), EVEX_LEN);
    load_source(w, 0);
    load_source(w, 1);
    in->run(w);
    if (!w->done)
        finish(w);
    state->resume = in->resume;
}
