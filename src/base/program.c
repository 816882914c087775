/* The interpreter. Also compiled into the worker: no libc beyond memcpy and memset, no floating
 * point in C. */
#include "base/program.h"

#define memcpy __builtin_memcpy

enum { MOST_OF_A_STRING = 4096, CHUNK = 64 };

/* How many numbers an operation takes and gives. */
static const struct {
    uint8_t takes, gives;
} effect[PROGRAM_CODE_COUNT] = {
    [PROGRAM_END] = {0, 0},
    [PROGRAM_PUSH] = {0, 1},
    [PROGRAM_REGISTER] = {0, 1},
    [PROGRAM_VECTOR] = {0, 1},
    [PROGRAM_LOAD] = {1, 1},
    [PROGRAM_EXTEND] = {1, 1},
    [PROGRAM_CUT] = {1, 1},
    [PROGRAM_ADD... PROGRAM_SAR] = {2, 1},
    [PROGRAM_NEG] = {1, 1},
    [PROGRAM_NOT] = {1, 1},
    [PROGRAM_EQ... PROGRAM_LE_U] = {2, 1},
    [PROGRAM_IS_ZERO] = {1, 1},
    [PROGRAM_F_ADD... PROGRAM_F_LE] = {2, 1},
    [PROGRAM_F_NEG... PROGRAM_F_TO_FLOAT] = {1, 1},
    [PROGRAM_COPY] = {0, 1},
    [PROGRAM_SWAP] = {2, 2},
    [PROGRAM_DROP] = {1, 0},
    [PROGRAM_JUMP] = {0, 0},
    [PROGRAM_JUMP_ZERO] = {1, 0},
    [PROGRAM_STRING_EQUAL] = {1, 1},
    [PROGRAM_STRING_FIND] = {1, 1},
    [PROGRAM_OUT] = {1, 0},
    [PROGRAM_OUT_MEMORY] = {1, 0},
    [PROGRAM_OUT_STRING] = {1, 0},
    [PROGRAM_CALL] = {0, 1}, // and takes its arg
};

static unsigned taken_by(const struct program_op *op)
{
    return op->code == PROGRAM_CALL ? op->arg : effect[op->code].takes;
}

static bool is_size(unsigned size)
{
    return size == 1 || size == 2 || size == 4 || size == 8;
}

static bool has_size(const struct program_op *op)
{
    return op->code == PROGRAM_LOAD || op->code == PROGRAM_EXTEND || op->code == PROGRAM_CUT ||
           op->code == PROGRAM_OUT || op->code == PROGRAM_VECTOR;
}

static bool within(uint64_t off, uint64_t len, uint64_t total)
{
    return off <= total && len <= total - off;
}

static const char *check_op(const struct program *p, const struct program_op *op)
{
    if (op->code >= PROGRAM_CODE_COUNT || op->reserved)
        return "an unknown operation";
    if (has_size(op) && !is_size(op->size))
        return "a bad size";
    if (op->code == PROGRAM_REGISTER && op->arg >= UREG_COUNT)
        return "an unknown register";
    if (op->code == PROGRAM_VECTOR && (op->arg >= 32 || !within(op->imm, op->size, 64)))
        return "an unknown vector register";
    if ((op->code == PROGRAM_STRING_EQUAL || op->code == PROGRAM_STRING_FIND) &&
        !within(op->arg, op->imm, p->data_len))
        return "a string that is not in its data";
    if ((op->code == PROGRAM_OUT && !within(op->arg, op->size, p->out_len)) ||
        ((op->code == PROGRAM_OUT_MEMORY || op->code == PROGRAM_OUT_STRING) &&
         !within(op->arg, op->imm, p->out_len)))
        return "output out of bounds";
    if (op->code == PROGRAM_CALL && op->imm >= p->call_count)
        return "an unknown call";
    return NULL;
}

const char *program_check(const struct program *p)
{
    enum { UNREACHED = 0xff };
    uint8_t depth_at[PROGRAM_MAX_OPS];
    if (!p->count || p->count > PROGRAM_MAX_OPS || p->data_len > PROGRAM_MAX_DATA ||
        p->out_len > PROGRAM_MAX_OUT)
        return "too long";
    if (p->ops[p->count - 1].code != PROGRAM_END)
        return "it has no end";
    __builtin_memset(depth_at, UNREACHED, p->count);
    depth_at[0] = 0;
    for (size_t i = 0; i < p->count; i++) {
        const struct program_op *op = &p->ops[i];
        const char *wrong = check_op(p, op);
        if (wrong)
            return wrong;
        unsigned depth = depth_at[i];
        if (depth == UNREACHED)
            continue;
        if (depth < taken_by(op) || (op->code == PROGRAM_COPY && op->arg >= depth))
            return "its stack is empty";
        depth = depth - taken_by(op) + effect[op->code].gives;
        if (depth > PROGRAM_MAX_STACK)
            return "its stack overflows";
        bool jumps = op->code == PROGRAM_JUMP || op->code == PROGRAM_JUMP_ZERO;
        if (jumps && op->imm >= p->count - i - 1)
            return "a jump out of it";
        size_t to[2] = {i + 1, jumps ? i + 1 + op->imm : i + 1};
        for (unsigned k = op->code == PROGRAM_JUMP; k < 2 && op->code != PROGRAM_END; k++) {
            if (depth_at[to[k]] != UNREACHED && depth_at[to[k]] != depth)
                return "ways of different depth meet";
            depth_at[to[k]] = (uint8_t)depth;
        }
    }
    return NULL;
}

/* --- floating point: a double's bits in, a double's bits out. The worker is compiled without
 * vector registers, which belong to the recorded program there; these few instructions put back
 * what they use, and round as by default (MXCSR 0x1f80). --- */

#define WITH_TWO_VECTORS(CODE, A, B, RESULT)                                                       \
    do {                                                                                           \
        uint64_t keep_[4];                                                                         \
        uint32_t mxcsr_, plain_ = 0x1f80;                                                          \
        __asm__ volatile(                                                                          \
            "movups %%xmm0, (%[k])\n\tmovups %%xmm1, 16(%[k])\n\tstmxcsr %[m]\n\tldmxcsr "         \
            "%[p]\n\t" CODE "\n\tldmxcsr %[m]\n\tmovups (%[k]), %%xmm0\n\tmovups 16(%[k]), %%xmm1" \
            : [r] "=&r"(RESULT), [m] "=m"(mxcsr_), "=m"(keep_)                                     \
            : [a] "r"((uint64_t)(A)), [b] "r"((uint64_t)(B)), [p] "m"(plain_), [k] "r"(keep_)      \
            : "cc");                                                                               \
    } while (0)
#define BOTH  "movq %[a], %%xmm0\n\tmovq %[b], %%xmm1\n\t"
#define FIRST "movq %[a], %%xmm0\n\t"
#define GIVE  "\n\tmovq %%xmm0, %[r]"

static uint64_t float_binary(unsigned code, uint64_t a, uint64_t b)
{
    uint64_t r = 0;
    switch (code) {
    case PROGRAM_F_ADD:
        WITH_TWO_VECTORS(BOTH "addsd %%xmm1, %%xmm0" GIVE, a, b, r);
        return r;
    case PROGRAM_F_SUB:
        WITH_TWO_VECTORS(BOTH "subsd %%xmm1, %%xmm0" GIVE, a, b, r);
        return r;
    case PROGRAM_F_MUL:
        WITH_TWO_VECTORS(BOTH "mulsd %%xmm1, %%xmm0" GIVE, a, b, r);
        return r;
    case PROGRAM_F_DIV:
        WITH_TWO_VECTORS(BOTH "divsd %%xmm1, %%xmm0" GIVE, a, b, r);
        return r;
    case PROGRAM_F_EQ:
        WITH_TWO_VECTORS(BOTH "cmpeqsd %%xmm1, %%xmm0" GIVE, a, b, r);
        return r & 1;
    case PROGRAM_F_LT:
        WITH_TWO_VECTORS(BOTH "cmpltsd %%xmm1, %%xmm0" GIVE, a, b, r);
        return r & 1;
    default: // PROGRAM_F_LE
        WITH_TWO_VECTORS(BOTH "cmplesd %%xmm1, %%xmm0" GIVE, a, b, r);
        return r & 1;
    }
}

static uint64_t float_unary(unsigned code, uint64_t a)
{
    uint64_t r = 0;
    switch (code) {
    case PROGRAM_F_NEG:
        return a ^ 1ull << 63;
    case PROGRAM_F_FROM_U:
        if (a >>
            63) { // half of it, the lost bit kept sticky so that it rounds the same, and doubled
            r = float_unary(PROGRAM_F_FROM_S, a >> 1 | (a & 1));
            return float_binary(PROGRAM_F_ADD, r, r);
        }
        return float_unary(PROGRAM_F_FROM_S, a);
    case PROGRAM_F_FROM_S:
        WITH_TWO_VECTORS("cvtsi2sdq %[a], %%xmm0" GIVE, a, 0, r);
        return r;
    case PROGRAM_F_TO_S:
        WITH_TWO_VECTORS(FIRST "cvttsd2siq %%xmm0, %[r]", a, 0, r);
        return r;
    case PROGRAM_F_FROM_FLOAT:
        WITH_TWO_VECTORS(FIRST "cvtss2sd %%xmm0, %%xmm0" GIVE, a, 0, r);
        return r;
    default: // PROGRAM_F_TO_FLOAT
        WITH_TWO_VECTORS(FIRST "cvtsd2ss %%xmm0, %%xmm0" GIVE, a, 0, r);
        return (uint32_t)r;
    }
}

/* --- integers --- */

static uint64_t extend(uint64_t v, unsigned size)
{
    unsigned shift = 64 - 8 * size;
    return (uint64_t)((int64_t)(v << shift) >> shift);
}

static uint64_t zero_extend(uint64_t v, unsigned size)
{
    return size == 8 ? v : v & ((1ull << 8 * size) - 1);
}

/* False: divided by zero, or too large a quotient. */
static bool divide(unsigned code, uint64_t a, uint64_t b, uint64_t *out)
{
    if (b == 0 ||
        ((code == PROGRAM_DIV_S || code == PROGRAM_MOD_S) && a == 1ull << 63 && b == UINT64_MAX))
        return false;
    *out = code == PROGRAM_DIV_S   ? (uint64_t)((int64_t)a / (int64_t)b)
           : code == PROGRAM_MOD_S ? (uint64_t)((int64_t)a % (int64_t)b)
           : code == PROGRAM_DIV_U ? a / b
                                   : a % b;
    return true;
}

static uint64_t binary(unsigned code, uint64_t a, uint64_t b)
{
    switch (code) {
    case PROGRAM_ADD:
        return a + b;
    case PROGRAM_SUB:
        return a - b;
    case PROGRAM_MUL:
        return a * b;
    case PROGRAM_AND:
        return a & b;
    case PROGRAM_OR:
        return a | b;
    case PROGRAM_XOR:
        return a ^ b;
    case PROGRAM_SHL:
        return b > 63 ? 0 : a << b;
    case PROGRAM_SHR:
        return b > 63 ? 0 : a >> b;
    case PROGRAM_SAR:
        return (uint64_t)((int64_t)a >> (b > 63 ? 63 : b));
    case PROGRAM_EQ:
        return a == b;
    case PROGRAM_LT_S:
        return (int64_t)a < (int64_t)b;
    case PROGRAM_LT_U:
        return a < b;
    case PROGRAM_LE_S:
        return (int64_t)a <= (int64_t)b;
    default: // PROGRAM_LE_U
        return a <= b;
    }
}

/* --- strings --- */

/* A string of the recorded program, read in pieces that do not go over the end of a chunk: the page
 * behind it need not be there. */
struct reading {
    const struct program_host *host;
    uint64_t addr;
    uint8_t chunk[CHUNK];
    size_t at, len;
};

/* The next byte. False: it cannot be read; r->addr is its address. */
static bool next_byte(struct reading *r, uint8_t *out)
{
    if (r->at == r->len) {
        r->len = CHUNK - r->addr % CHUNK;
        r->at = 0;
        if (!r->host->read_memory(r->host->ctx, r->addr, r->chunk, r->len))
            return false;
        r->addr += r->len;
    }
    *out = r->chunk[r->at++];
    return true;
}

static bool string_equal(struct reading *r, const uint8_t *want, size_t len, uint64_t *out)
{
    uint8_t byte = 0;
    *out = 0;
    for (size_t i = 0; i <= len; i++) {
        if (!next_byte(r, &byte))
            return false;
        if (byte != (i < len ? want[i] : 0))
            return true;
    }
    *out = 1;
    return true;
}

/* The bytes looked at last are kept in a ring as long as what is looked for. */
static bool string_find(struct reading *r, const uint8_t *want, size_t len, uint64_t *out)
{
    _Static_assert((PROGRAM_MAX_DATA & (PROGRAM_MAX_DATA - 1)) == 0, "a power of two");
    uint8_t last[PROGRAM_MAX_DATA], byte = 0;
    *out = len == 0;
    for (size_t n = 0; n < MOST_OF_A_STRING && !*out; n++) {
        if (!next_byte(r, &byte))
            return false;
        if (!byte)
            break;
        last[n % PROGRAM_MAX_DATA] = byte;
        size_t same = 0;
        while (n + 1 >= len && same < len &&
               last[(n + 1 - len + same) % PROGRAM_MAX_DATA] == want[same])
            same++;
        *out = same == len;
    }
    return true;
}

static bool out_string(struct reading *r, uint8_t *out, size_t len)
{
    uint8_t byte = 0;
    for (size_t i = 0; i < len; i++) {
        if (!next_byte(r, &byte))
            return false;
        out[i] = byte;
        if (!byte)
            break;
    }
    return true;
}

enum program_end program_run(const struct program *p, const struct program_host *host, uint8_t *out,
                             uint64_t *result)
{
    uint64_t stack[PROGRAM_MAX_STACK + 1],
        *top = stack; // *top is the number on top; stack[0] stays 0
    stack[0] = 0;
    for (const struct program_op *op = p->ops;; op++) {
        switch (op->code) {
        case PROGRAM_END:
            *result = *top;
            return PROGRAM_OK;
        case PROGRAM_PUSH:
            *++top = op->imm;
            break;
        case PROGRAM_REGISTER:
            *++top = host->regs->r[op->arg];
            break;
        case PROGRAM_VECTOR:
            *++top = 0;
            if (!host->read_vector ||
                !host->read_vector(host->ctx, op->arg, (unsigned)op->imm, top, op->size)) {
                *result = op->arg;
                return PROGRAM_UNKNOWN;
            }
            break;
        case PROGRAM_LOAD: {
            uint64_t v = 0;
            if (!host->read_memory(host->ctx, *top, &v, op->size)) {
                *result = *top;
                return PROGRAM_FAULT;
            }
            *top = v;
            break;
        }
        case PROGRAM_EXTEND:
            *top = extend(*top, op->size);
            break;
        case PROGRAM_CUT:
            *top = zero_extend(*top, op->size);
            break;
        case PROGRAM_DIV_S:
        case PROGRAM_DIV_U:
        case PROGRAM_MOD_S:
        case PROGRAM_MOD_U:
            top--;
            if (!divide(op->code, top[0], top[1], top))
                return PROGRAM_DIVIDED;
            break;
        case PROGRAM_NEG:
            *top = -*top;
            break;
        case PROGRAM_NOT:
            *top = ~*top;
            break;
        case PROGRAM_IS_ZERO:
            *top = *top == 0;
            break;
        case PROGRAM_F_ADD:
        case PROGRAM_F_SUB:
        case PROGRAM_F_MUL:
        case PROGRAM_F_DIV:
        case PROGRAM_F_EQ:
        case PROGRAM_F_LT:
        case PROGRAM_F_LE:
            top--;
            *top = float_binary(op->code, top[0], top[1]);
            break;
        case PROGRAM_F_NEG:
        case PROGRAM_F_FROM_S:
        case PROGRAM_F_FROM_U:
        case PROGRAM_F_TO_S:
        case PROGRAM_F_FROM_FLOAT:
        case PROGRAM_F_TO_FLOAT:
            *top = float_unary(op->code, *top);
            break;
        case PROGRAM_COPY:
            top[1] = top[-(int)op->arg];
            top++;
            break;
        case PROGRAM_SWAP: {
            uint64_t v = top[-1];
            top[-1] = top[0];
            top[0] = v;
            break;
        }
        case PROGRAM_DROP:
            top--;
            break;
        case PROGRAM_JUMP:
            op += op->imm;
            break;
        case PROGRAM_JUMP_ZERO:
            op += *top-- ? 0 : op->imm;
            break;
        case PROGRAM_STRING_EQUAL:
        case PROGRAM_STRING_FIND: {
            struct reading r = {.host = host, .addr = *top};
            const uint8_t *want = p->data + op->arg;
            bool ok = op->code == PROGRAM_STRING_EQUAL ? string_equal(&r, want, op->imm, top)
                                                       : string_find(&r, want, op->imm, top);
            if (!ok) {
                *result = r.addr;
                return PROGRAM_FAULT;
            }
            break;
        }
        case PROGRAM_OUT:
            memcpy(out + op->arg, top--, op->size);
            break;
        case PROGRAM_OUT_MEMORY:
            if (!host->read_memory(host->ctx, *top, out + op->arg, op->imm)) {
                *result = *top;
                return PROGRAM_FAULT;
            }
            top--;
            break;
        case PROGRAM_OUT_STRING: {
            struct reading r = {.host = host, .addr = *top--};
            if (!out_string(&r, out + op->arg, op->imm)) {
                *result = r.addr;
                return PROGRAM_FAULT;
            }
            break;
        }
        case PROGRAM_CALL: {
            uint64_t v = 0;
            top -= op->arg;
            if (!host->call(host->ctx, op->imm, top + 1, op->arg, &v))
                return PROGRAM_CALL_FAILED;
            *++top = v;
            break;
        }
        default:
            top--;
            *top = binary(op->code, top[0], top[1]);
            break;
        }
    }
}
