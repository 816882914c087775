/* One instruction of each kind: what it reads and writes, and where the bytes of its results came
 * from. The many forms are compared with the CPU in native_test.c. */
#include "base/test.h"
#include "x86/isa.h"
#include "x86/x86_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PC = 0x401000 };

/* An execution to ask about, with memory and vector registers from here. */
static struct regs before, after;
static uint8_t registers[X86_REGISTER_BYTES], memory[8192];
enum { MEMORY_AT = 0x10000 };

static bool read_registers(void *ctx, unsigned start, unsigned len, uint8_t *out)
{
    memcpy(out, registers + start, len);
    return true;
}

static bool read_memory(void *ctx, bool is_after, gaddr addr, unsigned len, uint8_t *out)
{
    if (addr < MEMORY_AT || addr + len > MEMORY_AT + sizeof(memory))
        return false;
    memcpy(out, memory + addr - MEMORY_AT, len);
    return true;
}

static const struct x86_run run = {
    .before = &before, .after = &after, .registers = read_registers, .memory = read_memory};

static int reset(void **state)
{
    memset(registers, 0, sizeof(registers));
    memset(memory, 0, sizeof(memory));
    memset(&before, 0, sizeof(before));
    for (int i = 0; i < UREG_COUNT; i++)
        before.r[i] = 0x10100 + 0x100 * (uint64_t)i;
    before.r[UREG_EFLAGS] = 0x202;
    after = before;
    return 0;
}

/* The instruction with these bytes, in hex. */
static struct x86_insn insn(const char *hex)
{
    uint8_t bytes[15];
    size_t len = strlen(hex) / 2;
    for (size_t i = 0; i < len; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], 0};
        bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    struct x86_insn in;
    assert_true(x86_decode(bytes, len, PC, &in));
    assert_int_equal(in.len, len);
    return in;
}

/* Bytes of a register by name, plus `byte`. */
static struct x86_place reg(const char *name, unsigned byte)
{
    struct x86_span s;
    assert_true(x86_register_by_name(name, &s));
    return (struct x86_place){false, s.start + byte};
}

static struct x86_place mem(gaddr at)
{
    return (struct x86_place){true, at};
}

static void assert_copy(const struct x86_insn *in, struct x86_place to, struct x86_place from)
{
    struct x86_origin o = x86_origin_of(in, &run, to);
    assert_int_equal(o.kind, X86_COPY);
    assert_int_equal(o.from.memory, from.memory);
    assert_int_equal(o.from.at, from.at);
}

static void assert_constant(const struct x86_insn *in, struct x86_place to, unsigned value)
{
    struct x86_origin o = x86_origin_of(in, &run, to);
    assert_int_equal(o.kind, X86_CONST);
    assert_int_equal(o.value, value);
}

static void assert_kind(const struct x86_insn *in, struct x86_place to, enum x86_origin_kind kind)
{
    assert_int_equal(x86_origin_of(in, &run, to).kind, kind);
}

static bool has_input(const struct x86_insn *in, struct x86_place to, struct x86_place from,
                      uint32_t len)
{
    struct x86_input inputs[16];
    size_t n = x86_inputs_of(in, &run, to, inputs, 16);
    for (size_t i = 0; i < n; i++) {
        if (inputs[i].from.memory == from.memory && inputs[i].from.at == from.at &&
            inputs[i].len == len)
            return true;
    }
    return false;
}

TEST(a_move_to_32_bits_clears_the_upper_half)
{
    struct x86_insn in = insn("89d8"); // mov eax, ebx
    assert_copy(&in, reg("rax", 3), reg("rbx", 3));
    assert_constant(&in, reg("rax", 4), 0);
    assert_kind(&in, reg("rbx", 0), X86_UNTOUCHED);
    assert_true(in.written == x86_unit(X86_GPR));
}

TEST(a_move_to_16_or_8_bits_leaves_the_rest)
{
    struct x86_insn in = insn("88e0"); // mov al, ah
    assert_copy(&in, reg("rax", 0), reg("ah", 0));
    assert_kind(&in, reg("rax", 1), X86_UNTOUCHED);
    in = insn("6689d8"); // mov ax, bx
    assert_kind(&in, reg("rax", 2), X86_UNTOUCHED);
}

TEST(loads_and_stores_have_addresses)
{
    before.r[UREG_RCX] = 0x20000;
    before.r[UREG_RDX] = 3;
    before.r[UREG_FS_BASE] = 0x700000;
    struct x86_insn in = insn("488b44d108"); // mov rax, [rcx+rdx*8+8]
    assert_copy(&in, reg("rax", 7), mem(0x20000 + 24 + 8 + 7));
    struct x86_access a[X86_MAX_ACCESSES];
    assert_int_equal(x86_accesses(&in, &run, a), 1);
    assert_true(a[0].reads && !a[0].writes && a[0].len == 8);
    in = insn("488b0510000000"); // mov rax, [rip+0x10]
    assert_copy(&in, reg("rax", 0), mem(PC + 7 + 0x10));
    in = insn("64488b042528000000"); // mov rax, fs:[0x28]
    assert_copy(&in, reg("rax", 0), mem(0x700028));
    in = insn("678b01"); // mov eax, [ecx]
    before.r[UREG_RCX] = 0x100020000;
    assert_copy(&in, reg("rax", 0), mem(0x20000));
    in = insn("4100450d"); // add [r13+0xd], al
    before.r[UREG_R13] = 0x5000;
    assert_kind(&in, mem(0x500d), X86_COMPUTED);
}

TEST(extensions_say_how)
{
    struct x86_insn in = insn("0fb6c3"); // movzx eax, bl
    assert_copy(&in, reg("rax", 0), reg("rbx", 0));
    assert_constant(&in, reg("rax", 1), 0);
    in = insn("480fbfc3"); // movsx rax, bx
    assert_copy(&in, reg("rax", 1), reg("rbx", 1));
    assert_kind(&in, reg("rax", 7), X86_SIGN);
    assert_int_equal(x86_origin_of(&in, &run, reg("rax", 7)).from.at, reg("rbx", 1).at);
    in = insn("4899"); // cqo
    assert_kind(&in, reg("rdx", 0), X86_SIGN);
}

TEST(immediates_are_constants)
{
    struct x86_insn in = insn("b878563412"); // mov eax, 0x12345678
    assert_constant(&in, reg("rax", 1), 0x56);
    in = insn("48c7c0ffffffff"); // mov rax, -1
    assert_constant(&in, reg("rax", 7), 0xff);
    in = insn("31c0"); // xor eax, eax
    assert_constant(&in, reg("rax", 6), 0);
    in = insn("660fefc9"); // pxor xmm1, xmm1
    assert_constant(&in, reg("xmm1", 15), 0);
    in = insn("660f76c9"); // pcmpeqd xmm1, xmm1
    assert_constant(&in, reg("xmm1", 15), 0xff);
    in = insn("6aff"); // push -1
    assert_constant(&in, mem(before.r[UREG_RSP] - 1), 0xff);
    in = insn("488d0510000000"); // lea rax, [rip+0x10]
    assert_constant(&in, reg("rax", 1), 0x10);
}

TEST(the_stack_passes_values_on)
{
    uint64_t sp = before.r[UREG_RSP];
    struct x86_insn in = insn("53"); // push rbx
    assert_int_equal(in.class, X86_PUSH);
    assert_copy(&in, mem(sp - 8), reg("rbx", 0));
    assert_kind(&in, reg("rsp", 0), X86_COMPUTED);
    assert_kind(&in, mem(sp), X86_UNTOUCHED);
    in = insn("5b"); // pop rbx
    assert_int_equal(in.class, X86_POP);
    assert_copy(&in, reg("rbx", 7), mem(sp + 7));
    in = insn("8f442408"); // pop qword ptr [rsp+8]
    assert_copy(&in, mem(sp + 16), mem(sp));
    in = insn("e800000000"); // call: the address behind it
    assert_constant(&in, mem(sp - 8), (PC + 5) & 0xff);
    assert_constant(&in, mem(sp - 7), PC >> 8 & 0xff);
    assert_int_equal(in.class, X86_CALL);
    in = insn("c9"); // leave
    assert_copy(&in, reg("rbp", 0), mem(before.r[UREG_RBP]));
    assert_true(has_input(&in, reg("rsp", 0), reg("rbp", 0), 8));
    in = insn("c3");
    assert_int_equal(in.class, X86_RETURN);
}

TEST(exchanges_go_both_ways)
{
    before.r[UREG_RCX] = MEMORY_AT;
    struct x86_insn in = insn("488701"); // xchg [rcx], rax
    assert_copy(&in, mem(MEMORY_AT), reg("rax", 0));
    assert_copy(&in, reg("rax", 3), mem(MEMORY_AT + 3));
    in = insn("f0480fc101"); // lock xadd [rcx], rax
    assert_kind(&in, mem(MEMORY_AT), X86_COMPUTED);
    assert_copy(&in, reg("rax", 0), mem(MEMORY_AT));
    in = insn("f0480fb119"); // lock cmpxchg [rcx], rbx
    after.r[UREG_EFLAGS] |= 0x40;
    assert_copy(&in, mem(MEMORY_AT + 1), reg("rbx", 1));
    assert_kind(&in, reg("rax", 0), X86_UNTOUCHED);
    after.r[UREG_EFLAGS] &= ~0x40ull;
    assert_kind(&in, mem(MEMORY_AT + 1), X86_UNTOUCHED);
    assert_copy(&in, reg("rax", 0), mem(MEMORY_AT));
    in = insn("f0480fc709"); // lock cmpxchg16b [rcx]
    assert_copy(&in, reg("rdx", 1), mem(MEMORY_AT + 9));
    after.r[UREG_EFLAGS] |= 0x40;
    assert_copy(&in, mem(MEMORY_AT + 8), reg("rcx", 0));
}

TEST(a_conditional_move_depends_on_the_flags)
{
    struct x86_insn in = insn("0f44c3"); // cmovz eax, ebx
    assert_true(in.conditional);
    assert_kind(&in, reg("rax", 0), X86_UNTOUCHED);
    assert_constant(&in, reg("rax", 4), 0);
    before.r[UREG_EFLAGS] |= 0x40;
    assert_copy(&in, reg("rax", 0), reg("rbx", 0));
}

TEST(bytes_are_found_through_shifts_and_swaps)
{
    struct x86_insn in = insn("480fc8"); // bswap rax
    assert_copy(&in, reg("rax", 0), reg("rax", 7));
    in = insn("48c1e810"); // shr rax, 16
    assert_copy(&in, reg("rax", 0), reg("rax", 2));
    assert_constant(&in, reg("rax", 6), 0);
    in = insn("48c1e820"); // shr rax, 32
    assert_copy(&in, reg("rax", 3), reg("rax", 7));
    in = insn("c1e803"); // shr eax, 3
    assert_kind(&in, reg("rax", 0), X86_COMPUTED);
    in = insn("48d3e0"); // shl rax, cl
    before.r[UREG_RCX] = 8;
    assert_copy(&in, reg("rax", 1), reg("rax", 0));
    before.r[UREG_RCX] = 64;
    assert_kind(&in, reg("rax", 0), X86_UNTOUCHED);
    assert_kind(&in, reg("zf", 0), X86_UNTOUCHED);
    in = insn("25ff00ff00"); // and eax, 0xff00ff
    assert_kind(&in, reg("rax", 0), X86_UNTOUCHED);
    assert_constant(&in, reg("rax", 1), 0);
}

TEST(arithmetic_names_its_inputs)
{
    before.r[UREG_RCX] = MEMORY_AT;
    struct x86_insn in = insn("4801d8"); // add rax, rbx
    assert_kind(&in, reg("rax", 7), X86_COMPUTED);
    assert_true(has_input(&in, reg("rax", 7), reg("rax", 0), 8));
    assert_true(has_input(&in, reg("rax", 7), reg("rbx", 0), 8));
    assert_true(has_input(&in, reg("rax", 0), reg("rbx", 0), 1)); // carries go up only
    in = insn("480311");                                          // add rdx, [rcx]
    assert_true(has_input(&in, reg("rdx", 7), mem(MEMORY_AT), 8));
    assert_false(has_input(&in, reg("rdx", 7), reg("rcx", 0), 8)); // the address is no input
    in = insn("488d4403ff");                                       // lea rax, [rbx+rax-1]
    assert_true(has_input(&in, reg("rax", 7), reg("rbx", 0), 8));
    in = insn("11d8"); // adc eax, ebx
    assert_true(has_input(&in, reg("rax", 0), reg("cf", 0), 1));
    in = insn("0f94c0"); // setz al
    assert_true(has_input(&in, reg("al", 0), reg("zf", 0), 1));
    in = insn("660ffed1"); // paddd xmm2, xmm1
    assert_true(has_input(&in, reg("xmm2", 5), reg("xmm1", 4), 4));
    assert_false(has_input(&in, reg("xmm2", 5), reg("xmm1", 0), 16));
    in = insn("48f7e3"); // mul rbx
    assert_true(has_input(&in, reg("rdx", 0), reg("rax", 0), 8));
}

TEST(flags_are_written_by_arithmetic)
{
    struct x86_insn in = insn("4839d8"); // cmp rax, rbx
    assert_kind(&in, reg("zf", 0), X86_COMPUTED);
    assert_kind(&in, reg("df", 0), X86_UNTOUCHED);
    assert_true(has_input(&in, reg("zf", 0), reg("rbx", 0), 8));
    in = insn("48ffc0"); // inc rax leaves CF
    assert_kind(&in, reg("cf", 0), X86_UNTOUCHED);
    assert_kind(&in, reg("zf", 0), X86_COMPUTED);
}

TEST(a_repeated_move_copies_as_far_as_it_got)
{
    struct x86_insn in = insn("f3a4"); // rep movsb
    before.r[UREG_RSI] = 0x1000;
    before.r[UREG_RDI] = 0x2000;
    before.r[UREG_RCX] = 100;
    after = before;
    after.r[UREG_RCX] = 40;
    assert_copy(&in, mem(0x2000 + 59), mem(0x1000 + 59));
    assert_kind(&in, mem(0x2000 + 60), X86_UNTOUCHED);
    after.r[UREG_RCX] = 100;
    assert_kind(&in, mem(0x2000), X86_UNTOUCHED);
    assert_kind(&in, reg("rsi", 0), X86_UNTOUCHED);
}

TEST(an_overlapping_move_repeats_its_beginning)
{
    struct x86_insn in = insn("f3a4");
    before.r[UREG_RSI] = 0x1000;
    before.r[UREG_RDI] = 0x1003;
    before.r[UREG_RCX] = 100;
    after = before;
    after.r[UREG_RCX] = 0;
    assert_copy(&in, mem(0x1003 + 50), mem(0x1000 + 50 % 3));
    before.r[UREG_EFLAGS] |= 0x400; // downwards: nothing is read after it was written
    before.r[UREG_RSI] = 0x2000;
    before.r[UREG_RDI] = 0x2003;
    assert_copy(&in, mem(0x2003 - 99), mem(0x2000 - 99));
}

TEST(a_segment_applies_to_the_source_of_a_string_instruction)
{
    struct x86_insn in = insn("65f3a4"); // rep movsb es:[rdi], gs:[rsi]
    before.r[UREG_RSI] = 0x1000;
    before.r[UREG_RDI] = 0x2000;
    before.r[UREG_RCX] = 8;
    before.r[UREG_GS_BASE] = 0x700000;
    before.r[UREG_FS_BASE] = 0x900000;
    after = before;
    after.r[UREG_RCX] = 3;
    assert_copy(&in, mem(0x2004), mem(0x701004));
    assert_kind(&in, mem(0x2005), X86_UNTOUCHED);
    struct x86_access a[X86_MAX_ACCESSES];
    assert_int_equal(x86_accesses(&in, &run, a), 2);
    assert_int_equal(a[0].addr, 0x2000);
    assert_int_equal(a[1].addr, 0x701000);
    assert_int_equal(a[1].len, 5);
    in = insn("64ac"); // lodsb al, fs:[rsi]
    assert_copy(&in, reg("al", 0), mem(0x901000));
    in = insn("64d7"); // xlat fs:[rbx+al]
    before.r[UREG_RAX] = 0xff05;
    before.r[UREG_RBX] = 0x3000;
    assert_copy(&in, reg("al", 0), mem(0x903005));
}

TEST(a_repeated_store_copies_a_register)
{
    struct x86_insn in = insn("f3ab"); // rep stosd
    before.r[UREG_RDI] = 0x1000;
    before.r[UREG_RCX] = 5;
    after = before;
    after.r[UREG_RCX] = 0;
    assert_copy(&in, mem(0x1000 + 18), reg("eax", 2));
    assert_kind(&in, mem(0x1000 + 20), X86_UNTOUCHED);
}

TEST(vector_moves_zero_what_their_encoding_says)
{
    struct x86_insn in = insn("0f28ca"); // movaps xmm1, xmm2
    assert_copy(&in, reg("xmm1", 15), reg("xmm2", 15));
    assert_kind(&in, reg("ymm1", 16), X86_UNTOUCHED);
    in = insn("c5f828ca"); // vmovaps xmm1, xmm2
    assert_constant(&in, reg("zmm1", 16), 0);
    assert_constant(&in, reg("zmm1", 63), 0);
    in = insn("66480f6ec8"); // movq xmm1, rax
    assert_copy(&in, reg("xmm1", 7), reg("rax", 7));
    assert_constant(&in, reg("xmm1", 8), 0);
    in = insn("f20f10ca"); // movsd xmm1, xmm2
    assert_kind(&in, reg("xmm1", 8), X86_UNTOUCHED);
    in = insn("c5f877"); // vzeroupper
    assert_constant(&in, reg("ymm5", 16), 0);
    assert_kind(&in, reg("xmm5", 15), X86_UNTOUCHED);
    in = insn("f20f58ca"); // addsd xmm1, xmm2
    assert_kind(&in, reg("xmm1", 7), X86_COMPUTED);
    assert_kind(&in, reg("xmm1", 8), X86_UNTOUCHED);
    in = insn("c5eb58cb"); // vaddsd xmm1, xmm2, xmm3
    assert_copy(&in, reg("xmm1", 8), reg("xmm2", 8));
}

TEST(shuffles_move_bytes)
{
    struct x86_insn in = insn("660f70ca1b"); // pshufd xmm1, xmm2, 0x1b
    assert_copy(&in, reg("xmm1", 0), reg("xmm2", 12));
    in = insn("660f60ca"); // punpcklbw xmm1, xmm2
    assert_copy(&in, reg("xmm1", 3), reg("xmm2", 1));
    assert_copy(&in, reg("xmm1", 4), reg("xmm1", 2));
    in = insn("660f3800ca"); // pshufb xmm1, xmm2
    registers[reg("xmm2", 0).at] = 5;
    registers[reg("xmm2", 1).at] = 0x80;
    assert_copy(&in, reg("xmm1", 0), reg("xmm1", 5));
    assert_constant(&in, reg("xmm1", 1), 0);
    in = insn("660f3a22c801"); // pinsrd xmm1, eax, 1
    assert_copy(&in, reg("xmm1", 4), reg("eax", 0));
    assert_kind(&in, reg("xmm1", 0), X86_UNTOUCHED);
    in = insn("c4e37d39d101"); // vextracti128 xmm1, ymm2, 1
    assert_copy(&in, reg("xmm1", 0), reg("ymm2", 16));
    in = insn("c4e27d78ca"); // vpbroadcastb ymm1, xmm2
    assert_copy(&in, reg("ymm1", 31), reg("xmm2", 0));
    in = insn("660f73f908"); // pslldq xmm1, 8
    assert_copy(&in, reg("xmm1", 8), reg("xmm1", 0));
    assert_constant(&in, reg("xmm1", 7), 0);
}

TEST(masks_select_elements)
{
    before.r[UREG_RAX] = MEMORY_AT;
    struct x86_insn in = insn("62f17f496f08"); // vmovdqu8 zmm1{k1}, [rax]
    registers[reg("k1", 0).at] = 2;
    assert_kind(&in, reg("zmm1", 0), X86_UNTOUCHED);
    assert_copy(&in, reg("zmm1", 1), mem(MEMORY_AT + 1));
    in = insn("62f17fc96f08"); // vmovdqu8 zmm1{k1}{z}, [rax]
    assert_constant(&in, reg("zmm1", 0), 0);
    in = insn("62f17f497f08"); // vmovdqu8 [rax]{k1}, zmm1
    assert_copy(&in, mem(MEMORY_AT + 1), reg("zmm1", 1));
    assert_kind(&in, mem(MEMORY_AT), X86_UNTOUCHED);
    struct x86_access a[X86_MAX_ACCESSES];
    assert_int_equal(x86_accesses(&in, &run, a), 1);
    assert_true(a[0].writes && a[0].maybe && a[0].len == 64);
}

TEST(a_gather_has_an_access_for_each_element)
{
    before.r[UREG_RAX] = MEMORY_AT;
    struct x86_insn in = insn("c4e261900c90"); // vpgatherdd xmm1, [rax+xmm2*4], xmm3
    uint32_t indices[4] = {7, 1, (uint32_t)-1, 3}, mask[4] = {0x80000000, 0, 0x80000000, 0};
    memcpy(registers + reg("xmm2", 0).at, indices, 16);
    memcpy(registers + reg("xmm3", 0).at, mask, 16);
    struct x86_access a[X86_MAX_ACCESSES];
    assert_int_equal(x86_accesses(&in, &run, a), 2);
    assert_int_equal(a[0].addr, MEMORY_AT + 28);
    assert_copy(&in, reg("xmm1", 8), mem(MEMORY_AT - 4));
    assert_kind(&in, reg("xmm1", 4), X86_UNTOUCHED);
    assert_constant(&in, reg("xmm3", 0), 0);
    // Without the registers' values nothing is said.
    struct x86_run blind = {.before = &before, .after = &after};
    assert_int_equal(x86_origin_of(&in, &blind, reg("xmm1", 8)).kind, X86_UNKNOWN);
    assert_int_equal(x86_accesses(&in, &blind, a), 1);
    assert_true(a[0].maybe && a[0].len == 0);
}

TEST(saved_states_hold_vector_registers)
{
    before.r[UREG_RDI] = MEMORY_AT;
    before.r[UREG_RAX] = 7;
    before.r[UREG_RDX] = 0;
    struct x86_insn in = insn("0fc727"); // xsavec [rdi]
    memory[512] = 7;
    assert_copy(&in, mem(MEMORY_AT + 160 + 16 * 3), reg("xmm3", 0));
    assert_copy(&in, mem(MEMORY_AT + 576 + 16 * 3 + 1), reg("ymm3", 17));
    memory[512] = 3; // the upper halves were not in use and not written
    assert_kind(&in, mem(MEMORY_AT + 576 + 16 * 3), X86_UNTOUCHED);
    in = insn("0fae2f"); // xrstor [rdi]
    assert_copy(&in, reg("xmm3", 5), mem(MEMORY_AT + 160 + 16 * 3 + 5));
    assert_constant(&in, reg("ymm3", 16), 0);
    assert_true(in.written & x86_unit(X86_VECTOR));
    in = insn("0fae07"); // fxsave [rdi]
    assert_copy(&in, mem(MEMORY_AT + 160), reg("xmm0", 0));
    assert_kind(&in, mem(MEMORY_AT + 32), X86_UNKNOWN);
}

TEST(answers_from_outside_have_a_class)
{
    assert_int_equal(insn("0f31").class, X86_TRAP);    // rdtsc
    assert_int_equal(insn("0fa2").class, X86_TRAP);    // cpuid
    assert_int_equal(insn("0f02c1").class, X86_TRAP);  // lar eax, ecx
    assert_int_equal(insn("0f05").class, X86_SYSCALL); // syscall
    assert_int_equal(insn("cd80").class, X86_SYSCALL); // int 0x80
    assert_int_equal(insn("7405").class, X86_JUMP);    // jz
    struct x86_insn in = insn("0f31");
    assert_kind(&in, reg("rax", 0), X86_COMPUTED);
    assert_constant(&in, reg("rdx", 4), 0);
    in = insn("0f05");
    assert_int_equal(in.written, 0);
}

TEST(segment_bases_are_registers)
{
    struct x86_insn in = insn("f3480faed3"); // wrfsbase rbx
    assert_copy(&in, reg("fs_base", 7), reg("rbx", 7));
    in = insn("f3480faec0"); // rdfsbase rax
    assert_copy(&in, reg("rax", 0), reg("fs_base", 0));
}

TEST(x87_is_not_followed)
{
    before.r[UREG_RAX] = MEMORY_AT;
    struct x86_insn in = insn("dd00"); // fld qword ptr [rax]
    assert_kind(&in, (struct x86_place){false, X86_X87}, X86_UNKNOWN);
    assert_true(in.written & x86_unit(X86_X87));
    in = insn("0f6fca"); // movq mm1, mm2
    assert_copy(&in, reg("mm1", 0), reg("mm2", 0));
}

TEST(nothing_is_accessed_by_a_long_nop)
{
    struct x86_insn in = insn("660f1f440000");
    struct x86_access a[X86_MAX_ACCESSES];
    assert_int_equal(x86_accesses(&in, &run, a), 0);
    assert_int_equal(in.written, 0);
}

TEST(bad_bytes_are_refused)
{
    struct x86_insn in;
    char text[64];
    uint8_t bad[] = {0x06}, cut[] = {0x48, 0x8b};
    assert_false(x86_decode(bad, 1, PC, &in));
    assert_false(x86_decode(cut, 2, PC, &in));
    assert_false(x86_decode(bad, 0, PC, &in));
    assert_string_equal(x86_format(bad, 1, PC, text, sizeof(text)), "(bad)");
}

TEST(text_is_in_intel_syntax_with_absolute_addresses)
{
    char text[64];
    static const uint8_t load[] = {0x48, 0x8b, 0x05, 0x10, 0, 0, 0},
                         call[] = {0xe8, 0xfb, 0xff, 0xff, 0xff};
    assert_string_equal(x86_format(load, 7, PC, text, sizeof(text)), "mov rax, [0x401017]");
    assert_string_equal(x86_format(call, 5, PC, text, sizeof(text)), "call 0x401000");
}

TEST(registers_have_names)
{
    char text[32];
    static const char *const names[] = {"rax", "eax",  "ax",      "al",   "ah",
                                        "r9d", "r15b", "xmm31",   "ymm0", "zmm16",
                                        "k7",  "mm3",  "fs_base", "zf",   "sil"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct x86_span s;
        assert_true(x86_register_by_name(names[i], &s));
        assert_string_equal(x86_register_name(s.start, s.len, text, sizeof(text)), names[i]);
    }
    struct x86_span s;
    assert_false(x86_register_by_name("xmm32", &s));
    assert_false(x86_register_by_name("xmm01", &s));
    assert_false(x86_register_by_name("r16", &s));
    assert_string_equal(x86_register_name(2, 3, text, sizeof(text)), "rax[2..5)");
    assert_string_equal(x86_register_name(X86_VECTOR + 64 + 4, 4, text, sizeof(text)),
                        "xmm1[4..8)");
}

/* A CPU whose cpuid says 1 to everything but AVX512BW, and has no BMI1 either if ctx is set. */
static void fake_cpuid(void *ctx, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    for (int i = 0; i < 4; i++)
        out[i] = UINT32_MAX;
    if (leaf == 7 && subleaf == 0)
        out[1] &= ~(1u << 30) & ~(ctx ? 1u << 3 : 0);
}

TEST(instruction_sets_come_from_cpuid_and_xcr0)
{
    static const uint8_t vpaddb_zmm[] = {0x62, 0xf1, 0x7d, 0x48, 0xfc, 0xc0},
                         vpaddb_xmm[] = {0xc5, 0xf9, 0xfc, 0xc0};
    static const uint8_t vpaddd_ymm16[] = {0x62, 0xa1, 0x7d, 0x20, 0xfe, 0xc0},
                         andn[] = {0xc4, 0xe2, 0x78, 0xf2, 0xc0}, nop[] = {0x90};
    struct x86_isa most, no_bmi, no_zmm, no_ymm, lacking;
    struct buf names = {0};
    x86_isa_of_cpu(fake_cpuid, NULL, UINT64_MAX, &most);
    x86_isa_of_cpu(fake_cpuid, &names, UINT64_MAX, &no_bmi);
    x86_isa_of_cpu(fake_cpuid, NULL, 7, &no_zmm);
    x86_isa_of_cpu(fake_cpuid, NULL, 3, &no_ymm);
    lacking = x86_isa_without(&most, &no_bmi);
    x86_isa_names(&lacking, &names);
    assert_string_equal(buf_cstr(&names), "BMI1");
    assert_string_equal(x86_isa_of_insn(andn, sizeof(andn), &lacking), "BMI1");
    assert_null(x86_isa_of_insn(vpaddb_xmm, sizeof(vpaddb_xmm), &lacking));
    assert_null(x86_isa_of_insn(nop, sizeof(nop), &lacking));
    assert_null(x86_isa_of_insn(andn, 2, &lacking));
    assert_true(x86_isa_is_empty(&(struct x86_isa){0}) && !x86_isa_is_empty(&lacking));
    // AVX512BW was never there.
    assert_null(x86_isa_of_insn(vpaddb_zmm, sizeof(vpaddb_zmm), &most));
    assert_string_equal(x86_isa_of_insn(vpaddd_ymm16, sizeof(vpaddd_ymm16), &most), "AVX512F");
    // What the kernel does not save cannot be used.
    assert_null(x86_isa_of_insn(vpaddd_ymm16, sizeof(vpaddd_ymm16), &no_zmm));
    assert_string_equal(x86_isa_of_insn(vpaddb_xmm, sizeof(vpaddb_xmm), &no_zmm), "AVX");
    assert_null(x86_isa_of_insn(vpaddb_xmm, sizeof(vpaddb_xmm), &no_ymm));
    // Vectors of 256 bits need AVX512VL.
    assert_true(x86_isa_remove(&most, "avx512vl"));
    assert_null(x86_isa_of_insn(vpaddd_ymm16, sizeof(vpaddd_ymm16), &most));
    assert_false(x86_isa_remove(&most, "AVX513"));
    buf_deinit(&names);
}

#define r(name) cmocka_unit_test_setup(name, reset)
TEST_MAIN(r(a_move_to_32_bits_clears_the_upper_half), r(a_move_to_16_or_8_bits_leaves_the_rest),
          r(loads_and_stores_have_addresses), r(extensions_say_how), r(immediates_are_constants),
          r(the_stack_passes_values_on), r(exchanges_go_both_ways),
          r(a_conditional_move_depends_on_the_flags), r(bytes_are_found_through_shifts_and_swaps),
          r(arithmetic_names_its_inputs), r(flags_are_written_by_arithmetic),
          r(a_repeated_move_copies_as_far_as_it_got), r(an_overlapping_move_repeats_its_beginning),
          r(a_repeated_store_copies_a_register),
          r(a_segment_applies_to_the_source_of_a_string_instruction),
          r(vector_moves_zero_what_their_encoding_says), r(shuffles_move_bytes),
          r(masks_select_elements), r(a_gather_has_an_access_for_each_element),
          r(saved_states_hold_vector_registers), r(answers_from_outside_have_a_class),
          r(segment_bases_are_registers), r(x87_is_not_followed),
          r(nothing_is_accessed_by_a_long_nop), r(bad_bytes_are_refused),
          r(text_is_in_intel_syntax_with_absolute_addresses), r(registers_have_names),
          r(instruction_sets_come_from_cpuid_and_xcr0))
