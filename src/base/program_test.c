#include "base/program.h"
#include "base/random.h"
#include "base/test.h"

#include <string.h>

#define RUN(want_end, want, ...)                                         \
    do {                                                                 \
        struct program_op ops_[] = {__VA_ARGS__, {.code = PROGRAM_END}}; \
        expect(ops_, sizeof(ops_) / sizeof(ops_[0]), want_end, want);    \
    } while (0)

static uint8_t memory[192]; /* at MEMORY of the program */
enum { MEMORY = 0x1000 };
static uint8_t out[64];

static bool read_memory(void *ctx, uint64_t addr, void *to, size_t len)
{
    if (addr < MEMORY || addr - MEMORY > sizeof(memory) || len > sizeof(memory) - (addr - MEMORY))
        return false;
    memcpy(to, memory + (addr - MEMORY), len);
    return true;
}

static bool read_vector(void *ctx, unsigned number, unsigned off, void *to, size_t len)
{
    memset(to, (int)(number + off), len);
    return number < 16;
}

/* Number 0 adds up to three numbers, 1 fails. */
static bool call(void *ctx, uint64_t number, const uint64_t *args, size_t count, uint64_t *result)
{
    *result = 1000;
    for (size_t i = 0; i < count; i++)
        *result += args[i] << 8 * i;
    return number == 0;
}

static void expect(const struct program_op *ops, size_t count, enum program_end want_end,
                   uint64_t want)
{
    static const struct regs regs = {.r = {[UREG_RAX] = 7, [UREG_RDI] = MEMORY}};
    struct program p = {.ops = ops,
                        .count = count,
                        .data = (const uint8_t *)"needle",
                        .data_len = 6,
                        .out_len = sizeof(out),
                        .call_count = 2};
    struct program_host host = {
        .regs = &regs, .read_memory = read_memory, .read_vector = read_vector, .call = call};
    uint64_t result = 0;
    const char *wrong = program_check(&p);
    assert_string_equal(wrong ? wrong : "fine", "fine");
    enum program_end end = program_run(&p, &host, out, &result);
    assert_int_equal(end, want_end);
    if (result != want)
        fail_msg("0x%llx, want 0x%llx", (unsigned long long)result, (unsigned long long)want);
}

TEST(registers_memory_and_arithmetic)
{
    memory[8] = 0xfe;
    memory[9] = 0xff;
    RUN(PROGRAM_OK, 7, {.code = PROGRAM_REGISTER, .arg = UREG_RAX});
    RUN(PROGRAM_OK, (uint64_t)-2, {.code = PROGRAM_REGISTER, .arg = UREG_RDI},
        {.code = PROGRAM_PUSH, .imm = 8}, {.code = PROGRAM_ADD}, {.code = PROGRAM_LOAD, .size = 2},
        {.code = PROGRAM_EXTEND, .size = 2});
    RUN(PROGRAM_FAULT, 0x999, {.code = PROGRAM_PUSH, .imm = 0x999},
        {.code = PROGRAM_LOAD, .size = 8});
    RUN(PROGRAM_OK, 0x0303030303030303, {.code = PROGRAM_VECTOR, .arg = 1, .imm = 2, .size = 8});
    RUN(PROGRAM_UNKNOWN, 17, {.code = PROGRAM_VECTOR, .arg = 17, .size = 8});
    RUN(PROGRAM_DIVIDED, 0, {.code = PROGRAM_PUSH, .imm = 1}, {.code = PROGRAM_PUSH},
        {.code = PROGRAM_DIV_U});
    RUN(PROGRAM_DIVIDED, 0, {.code = PROGRAM_PUSH, .imm = 1ull << 63},
        {.code = PROGRAM_PUSH, .imm = UINT64_MAX}, {.code = PROGRAM_MOD_S});
    RUN(PROGRAM_OK, UINT64_MAX, {.code = PROGRAM_PUSH, .imm = 1ull << 63},
        {.code = PROGRAM_PUSH, .imm = 64}, {.code = PROGRAM_SAR});
}

TEST(ways_that_part_and_meet)
{
    for (uint64_t v = 0; v < 2; v++) {
        RUN(PROGRAM_OK, v ? 10 : 20, {.code = PROGRAM_PUSH, .imm = v},
            {.code = PROGRAM_JUMP_ZERO, .imm = 2}, {.code = PROGRAM_PUSH, .imm = 10},
            {.code = PROGRAM_JUMP, .imm = 1}, {.code = PROGRAM_PUSH, .imm = 20});
    }
}

TEST(strings)
{
    static const struct {
        const char *text;
        bool equal, found;
    } cases[] = {{"needle", true, true},
                 {"needles", false, true},
                 {"needl", false, false},
                 {"a neeneedle", false, true},
                 {"", false, false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(memory, 'x', sizeof(memory));
        strcpy((char *)memory + 60, cases[i].text); // over the end of a chunk
        RUN(PROGRAM_OK, cases[i].equal, {.code = PROGRAM_PUSH, .imm = MEMORY + 60},
            {.code = PROGRAM_STRING_EQUAL, .imm = 6});
        RUN(PROGRAM_OK, cases[i].found, {.code = PROGRAM_PUSH, .imm = MEMORY + 60},
            {.code = PROGRAM_STRING_FIND, .imm = 6});
        memset(out, 0, sizeof(out));
        RUN(PROGRAM_OK, 0, {.code = PROGRAM_PUSH, .imm = MEMORY + 60},
            {.code = PROGRAM_OUT_STRING, .arg = 3, .imm = 9});
        char want[10] = "";
        strncpy(want, cases[i].text, 9);
        assert_memory_equal(out + 3, want, 9);
    }
    memset(memory, 'x', sizeof(memory)); // no end before the end of memory
    RUN(PROGRAM_FAULT, MEMORY + sizeof(memory), {.code = PROGRAM_PUSH, .imm = MEMORY + 100},
        {.code = PROGRAM_STRING_FIND, .imm = 6});
}

TEST(output)
{
    memory[0] = 0x55;
    RUN(PROGRAM_OK, 0, {.code = PROGRAM_PUSH, .imm = 0x1122334455667788},
        {.code = PROGRAM_OUT, .size = 4, .arg = 8}, {.code = PROGRAM_PUSH, .imm = MEMORY},
        {.code = PROGRAM_OUT_MEMORY, .arg = 20, .imm = 3});
    assert_int_equal(out[8], 0x88);
    assert_int_equal(out[11], 0x55);
    assert_int_equal(out[20], 0x55);
}

static uint64_t bits_of(double d)
{
    uint64_t v;
    memcpy(&v, &d, 8);
    return v;
}

TEST(floating_point_is_as_the_compiler_s)
{
    uint64_t rng = 1;
    for (int i = 0; i < 2000; i++) {
        uint64_t a = next_random(&rng), b = i % 3 ? next_random(&rng) : a;
        double x, y;
        memcpy(&x, &a, 8);
        memcpy(&y, &b, 8);
        if (x != x || y != y)
            continue;
#define TWO(code_, want)                                                                      \
    RUN(PROGRAM_OK, want, {.code = PROGRAM_PUSH, .imm = a}, {.code = PROGRAM_PUSH, .imm = b}, \
        {.code = code_})
#define ONE(code_, value, want) \
    RUN(PROGRAM_OK, want, {.code = PROGRAM_PUSH, .imm = value}, {.code = code_})
        if (x + y == x + y)
            TWO(PROGRAM_F_ADD, bits_of(x + y));
        TWO(PROGRAM_F_MUL, bits_of(x * y));
        TWO(PROGRAM_F_LT, x < y);
        TWO(PROGRAM_F_LE, x <= y);
        TWO(PROGRAM_F_EQ, x == y);
        ONE(PROGRAM_F_FROM_S, a, bits_of((double)(int64_t)a));
        ONE(PROGRAM_F_FROM_U, a, bits_of((double)a));
        float f = (float)a;
        uint32_t f_bits;
        memcpy(&f_bits, &f, 4);
        ONE(PROGRAM_F_FROM_FLOAT, f_bits, bits_of((double)f));
        ONE(PROGRAM_F_TO_FLOAT, bits_of((double)f), f_bits);
        ONE(PROGRAM_F_TO_S, bits_of((double)(int32_t)a + 0.75),
            (uint64_t)(int64_t)((double)(int32_t)a + 0.75));
    }
    RUN(PROGRAM_OK, 0, {.code = PROGRAM_PUSH, .imm = 0x7ff8000000000000}, {.code = PROGRAM_COPY},
        {.code = PROGRAM_F_EQ}); // NaN
}

TEST(calls_take_and_give_numbers)
{
    RUN(PROGRAM_OK, 1000, {.code = PROGRAM_CALL});
    RUN(PROGRAM_OK, 9 + 1000 + 0x030201, {.code = PROGRAM_PUSH, .imm = 9},
        {.code = PROGRAM_PUSH, .imm = 1}, {.code = PROGRAM_PUSH, .imm = 2},
        {.code = PROGRAM_PUSH, .imm = 3}, {.code = PROGRAM_CALL, .arg = 3}, {.code = PROGRAM_ADD});
    RUN(PROGRAM_CALL_FAILED, 0, {.code = PROGRAM_CALL, .imm = 1});
}

TEST(what_is_wrong_with_a_program_is_told)
{
    static const struct {
        struct program_op op[3];
        const char *want;
    } cases[] = {
        {{{.code = PROGRAM_ADD}}, "its stack is empty"},
        {{{.code = PROGRAM_CODE_COUNT}}, "an unknown operation"},
        {{{.code = PROGRAM_CALL}}, "an unknown call"},
        {{{.code = PROGRAM_PUSH, .reserved = 1}}, "an unknown operation"},
        {{{.code = PROGRAM_REGISTER, .arg = UREG_COUNT}}, "an unknown register"},
        {{{.code = PROGRAM_VECTOR, .size = 8, .imm = 57}}, "an unknown vector register"},
        {{{.code = PROGRAM_PUSH}, {.code = PROGRAM_LOAD, .size = 3}}, "a bad size"},
        {{{.code = PROGRAM_JUMP, .imm = 2}}, "a jump out of it"},
        {{{.code = PROGRAM_JUMP, .imm = UINT64_MAX}}, "a jump out of it"},
        {{{.code = PROGRAM_PUSH}, {.code = PROGRAM_COPY, .arg = 1}}, "its stack is empty"},
        {{{.code = PROGRAM_PUSH}, {.code = PROGRAM_OUT, .size = 8, .arg = 60}},
         "output out of bounds"},
        {{{.code = PROGRAM_PUSH}, {.code = PROGRAM_STRING_FIND, .imm = 7}},
         "a string that is not in its data"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct program p = {
            .ops = cases[i].op, .count = 3, .data = out, .data_len = 6, .out_len = 64};
        const char *wrong = program_check(&p);
        assert_string_equal(wrong ? wrong : "fine", cases[i].want);
    }
    struct program_op many[PROGRAM_MAX_STACK + 2];
    for (size_t i = 0; i < PROGRAM_MAX_STACK + 2; i++)
        many[i] = (struct program_op){.code = i <= PROGRAM_MAX_STACK ? PROGRAM_PUSH : PROGRAM_END};
    struct program p = {.ops = many, .count = PROGRAM_MAX_STACK + 2};
    assert_string_equal(program_check(&p), "its stack overflows");
    p.count = PROGRAM_MAX_STACK;
    assert_string_equal(program_check(&p), "it has no end");
    struct program_op meet[] = {{.code = PROGRAM_PUSH},
                                {.code = PROGRAM_JUMP_ZERO, .imm = 1},
                                {.code = PROGRAM_PUSH},
                                {.code = PROGRAM_END}};
    assert_string_equal(program_check(&(struct program){.ops = meet, .count = 4}),
                        "ways of different depth meet");
}

TEST_MAIN(t(registers_memory_and_arithmetic), t(ways_that_part_and_meet), t(strings), t(output),
          t(floating_point_is_as_the_compiler_s), t(calls_take_and_give_numbers),
          t(what_is_wrong_with_a_program_is_told))
