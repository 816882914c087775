/* Small programs over the registers and memory of the recorded program: what a condition or a print
 * expression is compiled into. They run at each hit of a hook, inside the worker (which has neither
 * libc nor vector registers to spare), and by the same interpreter anywhere else.
 *
 * A stack machine of 64-bit numbers. Numbers narrower than that are kept zero-extended, or
 * sign-extended by PROGRAM_EXTEND; floating point is kept as the bits of a double. Jumps go forward
 * only, so a program of n operations ends after at most n. A program is untrusted only as far as it
 * is checked by program_check(); program_run() needs a checked one.
 *
 *     p->count == 3        PUSH 3 above LOAD 8 of p's location, ADD the member's offset, LOAD 4, EXTEND 4, EQ
 */
#ifndef BASE_PROGRAM_H
#define BASE_PROGRAM_H

#include "base/types.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    PROGRAM_MAX_OPS = 512,
    PROGRAM_MAX_STACK = 32,
    PROGRAM_MAX_DATA = 1024,
    PROGRAM_MAX_OUT = 4096
};

enum program_code {
    PROGRAM_END,  /* the result is the number on top, 0 if there is none. The last operation of each
                     program */
    PROGRAM_PUSH, /* -> imm */
    PROGRAM_REGISTER, /* -> register arg (enum reg) */
    PROGRAM_VECTOR,   /* -> size bytes at byte imm of vector register arg (xmm and beyond); fails
                         where it is not known */
    PROGRAM_LOAD,     /* address -> size bytes there (1, 2, 4, 8) */
    PROGRAM_EXTEND,   /* a -> the low size bytes, sign-extended */
    PROGRAM_CUT,      /* a -> the low size bytes, zero-extended */
    PROGRAM_ADD,      /* a b -> a + b; likewise: */
    PROGRAM_SUB,
    PROGRAM_MUL,
    PROGRAM_DIV_S, /* by zero, or the least number by -1: fails */
    PROGRAM_DIV_U,
    PROGRAM_MOD_S,
    PROGRAM_MOD_U,
    PROGRAM_AND,
    PROGRAM_OR,
    PROGRAM_XOR,
    PROGRAM_SHL, /* by 64 or more: 0 */
    PROGRAM_SHR,
    PROGRAM_SAR, /* by 64 or more: the sign */
    PROGRAM_NEG, /* a -> -a */
    PROGRAM_NOT, /* a -> ~a */
    PROGRAM_EQ,  /* a b -> 1 or 0 */
    PROGRAM_LT_S,
    PROGRAM_LT_U,
    PROGRAM_LE_S,
    PROGRAM_LE_U,
    PROGRAM_IS_ZERO, /* a -> 1 or 0 */
    PROGRAM_F_ADD,   /* a b -> a + b, of doubles */
    PROGRAM_F_SUB,
    PROGRAM_F_MUL,
    PROGRAM_F_DIV,
    PROGRAM_F_EQ, /* a b -> 1 or 0 */
    PROGRAM_F_LT,
    PROGRAM_F_LE,
    PROGRAM_F_NEG,
    PROGRAM_F_FROM_S, /* integer -> double */
    PROGRAM_F_FROM_U,
    PROGRAM_F_TO_S, /* double -> integer, towards zero; out of range: the least number, as CVTTSD2SI
                     */
    PROGRAM_F_FROM_FLOAT, /* bits of a float -> double */
    PROGRAM_F_TO_FLOAT,
    PROGRAM_COPY,         /* -> the number arg below the top */
    PROGRAM_SWAP,         /* a b -> b a */
    PROGRAM_DROP,         /* a -> */
    PROGRAM_JUMP,         /* skips the next imm operations */
    PROGRAM_JUMP_ZERO,    /* a -> ; skips the next imm operations if a is 0 */
    PROGRAM_STRING_EQUAL, /* address -> 1 if the zero-terminated string there is data [arg, arg +
                             imm), else 0 */
    PROGRAM_STRING_FIND,  /* address -> 1 if those bytes are in the string (of which 4096 are looked
                             at), else 0 */
    PROGRAM_OUT,          /* a -> ; the low size bytes of it to byte arg of the output */
    PROGRAM_OUT_MEMORY,   /* address -> ; imm bytes there to byte arg of the output */
    PROGRAM_OUT_STRING, /* address -> ; the string there up to its end, at most imm bytes, the rest
                           zeros, to byte arg */
    PROGRAM_CALL,       /* arg numbers -> what the host makes of them by its call number imm */
    PROGRAM_CODE_COUNT
};

struct program_op {
    uint8_t code, size;
    uint16_t arg;
    uint32_t reserved; /* 0 */
    uint64_t imm;
};

/* Borrowed by who runs it. */
struct program {
    const struct program_op *ops;
    size_t count;
    const uint8_t *data; /* constants: strings to compare with */
    size_t data_len;
    size_t out_len;    /* bytes of output */
    size_t call_count; /* calls that the host knows; 0 in programs that run at each hit of a hook */
};

/* What a program looks at. Callbacks return false where the thing is not there. */
struct program_host {
    const struct regs *regs;
    bool (*read_memory)(void *ctx, uint64_t addr, void *out, size_t len);
    bool (*read_vector)(void *ctx, unsigned number, unsigned off, void *out,
                        size_t len); /* may be NULL: not known */
    /* For PROGRAM_CALL; may be NULL if the program has none. False: it failed, of which the host
     * knows more. */
    bool (*call)(void *ctx, uint64_t number, const uint64_t *args, size_t count, uint64_t *result);
    void *ctx;
};

enum program_end {
    PROGRAM_OK,
    PROGRAM_FAULT,   /* result: the address that could not be read */
    PROGRAM_DIVIDED, /* by zero, or overflow of a division */
    PROGRAM_UNKNOWN, /* a vector register is not known; result: its number */
    PROGRAM_CALL_FAILED,
};

/** May it be run? Checks codes, sizes, registers, jumps, depth of the stack, and that output and
 * data are within bounds. Returns NULL, or what is wrong with it. */
const char *program_check(const struct program *p) __attribute__((warn_unused_result));

/** Runs a checked program. out: out_len bytes, written as far as the program came; zero them
 * before. */
enum program_end program_run(const struct program *p, const struct program_host *host, uint8_t *out,
                             uint64_t *result);

#endif
