/* Bytecode into programs: what they give for registers and memory that are known. */
#include "gdbstub/agent.h"

#include "base/random.h"
#include "base/test.h"

static uint8_t memory[64] = {1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff, 0x80};

/* Memory begins at 0x1000. */
static bool read_memory(void *ctx, uint64_t addr, void *out, size_t len)
{
    if (addr < 0x1000 || addr - 0x1000 > sizeof(memory) || len > sizeof(memory) - (addr - 0x1000))
        return false;
    memcpy(out, memory + (addr - 0x1000), len);
    return true;
}

/* ";X LENGTH,BYTECODE" of bytecode in hexadecimal digits. */
static void assert_end(const char *code, enum program_end expected, uint64_t expected_result)
{
    program_ops ops = {0};
    struct regs regs = {.r = {[UREG_RDI] = 0x1000, [UREG_RSI] = 7}};
    const struct program_host host = {.regs = &regs, .read_memory = read_memory};
    cleanup(freep) char *text = str_format(";X%zx,%s", strlen(code) / 2, code);
    assert_true(agent_compile(text, &ops));
    const struct program p = {.ops = ops.items, .count = ops.count};
    uint64_t result;
    assert_int_equal(program_run(&p, &host, NULL, &result), expected);
    if (expected != PROGRAM_DIVIDED)
        assert_int_equal(result, expected_result);
    vec_deinit(&ops);
}

static void assert_holds(const char *code)
{
    assert_end(code, PROGRAM_OK, 1);
}

static void assert_fails(const char *code)
{
    assert_end(code, PROGRAM_OK, 0);
}

static void assert_text(const char *text, uint64_t expected)
{
    program_ops ops = {0};
    struct regs regs = {0};
    const struct program_host host = {.regs = &regs, .read_memory = read_memory};
    assert_true(agent_compile(text, &ops));
    const struct program p = {.ops = ops.items, .count = ops.count};
    uint64_t result;
    assert_int_equal(program_run(&p, &host, NULL, &result), PROGRAM_OK);
    assert_int_equal(result, expected);
    vec_deinit(&ops);
}

static void refuse(const char *text)
{
    program_ops ops = {0};
    assert_false(agent_compile(text, &ops));
    vec_deinit(&ops);
}

static void refuse_code(const char *code)
{
    cleanup(freep) char *text = str_format(";X%zx,%s", strlen(code) / 2, code);
    refuse(text);
}

TEST(no_condition_is_none)
{
    program_ops ops = {0};
    assert_true(agent_compile("", &ops));
    assert_true(agent_compile(";cmds:0,X1,27", &ops));
    assert_int_equal(ops.count, 0);
}

TEST(numbers_and_registers)
{
    assert_holds("220727");
    assert_fails("220027");
    assert_holds("26000422071327"); // rsi == 7
    assert_fails("26000522071327"); // rdi == 7
    assert_fails("2400000000"
                 "0e0e"
                 "27"); // !!0
    assert_holds("22012202"
                 "03"
                 "25ffffffffffffffff"
                 "1327"); // 1 - 2 == -1
    assert_holds("22fb1608"
                 "220a1427"); // (signed char)0xfb < 10
    assert_fails("22fb"
                 "220a1527"); // 0xfb < 10
    assert_holds("220f1603"
                 "25ffffffffffffffff1327"); // a signed field of 3 bits
    assert_holds("220f2a03"
                 "22071327"); // and an unsigned one
    assert_holds("230102"
                 "2405000000"
                 "2b03"
                 "2404fffefe"
                 "1327"); // 0x5000000 - 0x102
    assert_holds("22092803"
                 "0e"
                 "27"); // 9 - 9, of one that is on the stack twice
    assert_holds("220122022203"
                 "3202"
                 "2201"
                 "132b292b2927"); // the third from the top
}

TEST(memory_is_little_endian)
{
    assert_holds("260005"
                 "19"
                 "2404030201"
                 "1327"); // *(int *)rdi
    assert_holds("260005"
                 "17"
                 "22011327"); // a byte
    assert_holds("260005"
                 "2204"
                 "02"
                 "19"
                 "1620"
                 "2200"
                 "1427"); // *(int *)(rdi + 4) < 0
    assert_holds("260005"
                 "1a"
                 "25ffffffff04030201"
                 "1327");
    assert_end("22081a27", PROGRAM_FAULT, 8);
    assert_end("220122000527", PROGRAM_DIVIDED, 0);
}

TEST(jumps_go_forward)
{
    assert_holds("260004"
                 "0e"
                 "20000c"
                 "2201"
                 "21000e"
                 "2200"
                 "27");
    assert_fails("260004"
                 "0e0e"
                 "20000d"
                 "2201"
                 "21000f"
                 "2200"
                 "27");
    refuse_code("2201"
                "210000"
                "27"); // backward
    refuse_code("2201"
                "210003"
                "27"); // into the midst of a code
    refuse_code("2201"
                "2100ff"
                "27"); // out of it
}

TEST(any_of_several_holds)
{
    assert_text(";X3,220027X3,220527", 1);
    assert_text(";X3,220027X3,220027X3,220027", 0);
    assert_text(";X 3,220127X3,220027;cmds:0,X1,27", 1);
}

TEST(what_has_no_meaning_is_refused)
{
    static const char *const texts[] = {
        ";X", ";X3", ";X3,", ";X3,2200", ";X2,220027", ";Xffffffffffffffff,27", ";X3,220127X"};
    static const char *const codes[] = {"27",       "0227",       "2201",       "2227",
                                        "26ffff27", "26001227",   "22011b27",   "22010127",
                                        "22ff00",   "2201160027", "2201164127", "2201220c0c27",
                                        "22013327", "320127",     "22012727"};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
        refuse(texts[i]);
    for (size_t i = 0; i < ARRAY_COUNT(codes); i++)
        refuse_code(codes[i]);
    struct buf deep = {0};
    buf_str(&deep, "2201");
    for (int i = 0; i < 4200; i++)
        buf_str(&deep, "28");
    refuse_code(buf_cstr(&deep));
    deep.len = 4 + 2 * 40; // within the limit of operations, but not of the stack
    buf_str(&deep, "27");
    refuse_code(buf_cstr(&deep));
    buf_deinit(&deep);
}

/* Whatever is accepted can be run. */
TEST(random_bytes_do_no_harm)
{
    uint64_t random = 12345;
    unsigned accepted = 0;
    for (int i = 0; i < 200000; i++) {
        program_ops ops = {0};
        char text[64], *at = text;
        unsigned len = 1 + (unsigned)random_below(&random, 12);
        at += sprintf(at, ";X%x,", len + 1);
        for (unsigned k = 0; k < len; k++)
            at += sprintf(at, "%02x", (unsigned)random_below(&random, 0x36));
        strcpy(at, "27");
        if (agent_compile(text, &ops)) {
            struct regs regs = {0};
            uint64_t result;
            const struct program_host host = {.regs = &regs, .read_memory = read_memory};
            const struct program p = {.ops = ops.items, .count = ops.count};
            accepted++;
            (void)!program_run(&p, &host, NULL, &result);
        }
        vec_deinit(&ops);
    }
    assert_true(accepted > 100);
}

TEST_MAIN(t(no_condition_is_none), t(numbers_and_registers), t(memory_is_little_endian),
          t(jumps_go_forward), t(any_of_several_holds), t(what_has_no_meaning_is_refused),
          t(random_bytes_do_no_harm))
