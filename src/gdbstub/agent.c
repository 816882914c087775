/* The bytecode is that of a stack machine of 64-bit numbers, as base/program.h has one, so that
 * most operations have a counterpart. Jumps are to byte offsets; they are set when it is known at
 * which operation the bytes there became what. */
#include "gdbstub/agent.h"

#include "gdbstub/hex.h"

enum { MOST_BYTES = 4096, NO_OP = 0xffff };

/* Appendix F.2; gdb's gdbsupport/ax.def has the numbers. */
enum agent_code {
    AGENT_EXT = 0x16,
    AGENT_REF8,
    AGENT_REF16,
    AGENT_REF32,
    AGENT_REF64,
    AGENT_IF_GOTO = 0x20,
    AGENT_GOTO,
    AGENT_CONST8,
    AGENT_CONST16,
    AGENT_CONST32,
    AGENT_CONST64,
    AGENT_REG,
    AGENT_END,
    AGENT_DUP,
    AGENT_POP,
    AGENT_ZERO_EXT,
    AGENT_SWAP,
    AGENT_PICK = 0x32,
    AGENT_CODES
};

/* How many bytes follow a code. */
static const uint8_t operand_len[AGENT_CODES] = {
    [AGENT_EXT] = 1,      [AGENT_IF_GOTO] = 2, [AGENT_GOTO] = 2,    [AGENT_CONST8] = 1,
    [AGENT_CONST16] = 2,  [AGENT_CONST32] = 4, [AGENT_CONST64] = 8, [AGENT_REG] = 2,
    [AGENT_ZERO_EXT] = 1, [AGENT_PICK] = 1};

/* Those that do the same. */
static const uint8_t same[AGENT_CODES] = {
    [0x02] = PROGRAM_ADD,       [0x03] = PROGRAM_SUB,        [0x04] = PROGRAM_MUL,
    [0x05] = PROGRAM_DIV_S,     [0x06] = PROGRAM_DIV_U,      [0x07] = PROGRAM_MOD_S,
    [0x08] = PROGRAM_MOD_U,     [0x09] = PROGRAM_SHL,        [0x0a] = PROGRAM_SAR,
    [0x0b] = PROGRAM_SHR,       [0x0e] = PROGRAM_IS_ZERO,    [0x0f] = PROGRAM_AND,
    [0x10] = PROGRAM_OR,        [0x11] = PROGRAM_XOR,        [0x12] = PROGRAM_NOT,
    [0x13] = PROGRAM_EQ,        [0x14] = PROGRAM_LT_S,       [0x15] = PROGRAM_LT_U,
    [AGENT_POP] = PROGRAM_DROP, [AGENT_SWAP] = PROGRAM_SWAP,
};

/* By gdb's numbers: see registers.c. */
static const uint8_t registers[] = {UREG_RAX, UREG_RBX, UREG_RCX, UREG_RDX, UREG_RSI, UREG_RDI,
                                    UREG_RBP, UREG_RSP, UREG_R8,  UREG_R9,  UREG_R10, UREG_R11,
                                    UREG_R12, UREG_R13, UREG_R14, UREG_R15, UREG_RIP, UREG_EFLAGS};

/* A jump that has to be set: operation `op` goes to byte `to`. */
struct jump {
    size_t op, to;
};

struct compiling {
    program_ops *out;
    uint16_t op_at[MOST_BYTES]; /* operation that a byte became the first of; NO_OP: no code begins
                                   there */
    VEC(struct jump) jumps;
};

static void add(program_ops *out, enum program_code code, unsigned size, unsigned arg, uint64_t imm)
{
    vec_push(out,
             (struct program_op){
                 .code = (uint8_t)code, .size = (uint8_t)size, .arg = (uint16_t)arg, .imm = imm});
}

/* The low `bits` of the number on top, extended. Bit fields have any number of them. */
static bool add_extension(program_ops *out, uint64_t bits, bool sign)
{
    if (bits < 1 || bits > 64)
        return false;
    if (bits % 8 == 0 && (bits & (bits - 1)) == 0) {
        add(out, sign ? PROGRAM_EXTEND : PROGRAM_CUT, (unsigned)bits / 8, 0, 0);
        return true;
    }
    add(out, PROGRAM_PUSH, 0, 0, 64 - bits);
    add(out, PROGRAM_SHL, 0, 0, 0);
    add(out, PROGRAM_PUSH, 0, 0, 64 - bits);
    add(out, sign ? PROGRAM_SAR : PROGRAM_SHR, 0, 0, 0);
    return true;
}

static bool add_code(struct compiling *c, uint8_t code, uint64_t operand)
{
    program_ops *out = c->out;
    switch (code) {
    case AGENT_EXT:
    case AGENT_ZERO_EXT:
        return add_extension(out, operand, code == AGENT_EXT);
    case AGENT_REF8:
    case AGENT_REF16:
    case AGENT_REF32:
    case AGENT_REF64:
        add(out, PROGRAM_LOAD, 1u << (code - AGENT_REF8), 0, 0);
        return true;
    case AGENT_IF_GOTO:
        add(out, PROGRAM_IS_ZERO, 0, 0, 0);
        add(out, PROGRAM_JUMP_ZERO, 0, 0, 0);
        vec_push(&c->jumps, (struct jump){out->count - 1, operand});
        return true;
    case AGENT_GOTO:
        add(out, PROGRAM_JUMP, 0, 0, 0);
        vec_push(&c->jumps, (struct jump){out->count - 1, operand});
        return true;
    case AGENT_CONST8:
    case AGENT_CONST16:
    case AGENT_CONST32:
    case AGENT_CONST64:
        add(out, PROGRAM_PUSH, 0, 0, operand);
        return true;
    case AGENT_REG:
        if (operand >= ARRAY_COUNT(registers))
            return false;
        add(out, PROGRAM_REGISTER, 0, registers[operand], 0);
        return true;
    case AGENT_DUP:
    case AGENT_PICK:
        add(out, PROGRAM_COPY, 0, code == AGENT_PICK ? (unsigned)operand : 0, 0);
        return true;
    default:
        if (code >= AGENT_CODES || !same[code])
            return false;
        add(out, same[code], 0, 0, 0);
        return true;
    }
}

/* Jumps count from the operation behind them, and go forward only. */
static bool set_jumps(struct compiling *c, size_t len)
{
    vec_each (j, &c->jumps) {
        if (j->to >= len || c->op_at[j->to] == NO_OP || c->op_at[j->to] <= j->op)
            return false;
        c->out->items[j->op].imm = c->op_at[j->to] - j->op - 1;
    }
    return true;
}

/* One condition: leaves 1 or 0 on the stack. `end` is its last code. */
static bool add_codes(struct compiling *c, const uint8_t *code, size_t len)
{
    size_t at = 0;
    bool ended = false;
    memset(c->op_at, 0xff, sizeof(c->op_at));
    while (at < len && !ended) {
        uint64_t operand = 0;
        unsigned operands = code[at] < AGENT_CODES ? operand_len[code[at]] : 0;
        if (operands >= len - at || c->out->count >= PROGRAM_MAX_OPS)
            return false;
        for (unsigned i = 1; i <= operands; i++)
            operand = operand << 8 | code[at + i];
        c->op_at[at] = (uint16_t)c->out->count;
        ended = code[at] == AGENT_END;
        if (!ended && !add_code(c, code[at], operand))
            return false;
        at += 1 + operands;
    }
    add(c->out, PROGRAM_IS_ZERO, 0, 0, 0);
    add(c->out, PROGRAM_IS_ZERO, 0, 0, 0);
    return ended && at == len && set_jumps(c, len);
}

/* "X LENGTH,BYTECODE" at *text, which is moved behind it. */
static bool add_condition(const char **text, program_ops *out)
{
    char *comma;
    const char *digits = *text + 1 + ((*text)[1] == ' ');
    unsigned long long len = strtoull(digits, &comma, 16);
    cleanup(buf_deinit) struct buf code = {0};
    if (comma == digits || *comma != ',')
        return false;
    hex_read_bytes(comma + 1, &code);
    if (code.len != len || len > MOST_BYTES)
        return false;
    *text = comma + 1 + 2 * len;
    struct compiling *c = xnew(struct compiling);
    c->out = out;
    bool good = add_codes(c, code.data, code.len);
    vec_deinit(&c->jumps);
    free(c);
    return good;
}

bool agent_compile(const char *text, program_ops *out)
{
    bool any = false;
    while (*text == ';') {
        text++;
        while (*text == 'X') { // one right behind the other
            if (!add_condition(&text, out))
                return false;
            if (any)
                add(out, PROGRAM_OR, 0, 0, 0);
            any = true;
        }
        text += strcspn(text, ";");
    }
    if (any)
        add(out, PROGRAM_END, 0, 0, 0);
    const struct program p = {.ops = out->items, .count = out->count};
    return !any || !program_check(&p);
}
