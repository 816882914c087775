/* Private parts of the x86 room. */
#ifndef X86_X86_INT_H
#define X86_X86_INT_H

#include "x86/x86.h"

enum { GPR_RAX, GPR_RCX, GPR_RDX, GPR_RBX, GPR_RSP, GPR_RBP, GPR_RSI, GPR_RDI };

/** The value of a general register by its number in machine code. */
uint64_t x86_gpr(const struct regs *regs, unsigned number);
/** The operands of the text but the mask register: destination first. X86_NONE: there are not so
 * many. */
unsigned x86_visible(const struct x86_insn *in, unsigned idx);
/** Iterations that a repeated string instruction made in this run; 1 if it does not repeat. */
uint64_t x86_iterations(const struct x86_insn *in, const struct x86_run *run);

/* How an instruction moves the bytes of its destination; see flow.c. */
enum shape {
    SHAPE_COMPUTE = 0,
    SHAPE_MOVE,        /* low bytes of the last source, zeros behind */
    SHAPE_SIGN_EXTEND, /* low bytes of the source, its sign behind */
    SHAPE_SCALAR_MOVE, /* movss: as MOVE, but with three operands the rest comes from the first
                          source. a: bytes */
    SHAPE_SCALAR,      /* low `a` bytes computed, the rest from the first source */
    SHAPE_EXCHANGE,
    SHAPE_XADD,
    SHAPE_CMPXCHG,
    SHAPE_CMPXCHG_PAIR,
    SHAPE_CMOV,
    SHAPE_LEAVE,
    SHAPE_CALL,
    SHAPE_WIDEN_ACC, /* cbw, cwde, cdqe. */
    SHAPE_SIGN_ACC,  /* cwd, cdq, cqo */
    SHAPE_REVERSE,   /* bswap, movbe */
    SHAPE_LEA,
    SHAPE_CLEAR_SAME, /* zero if both sources are the same register. a: bitwise otherwise */
    SHAPE_SET_SAME,   /* ones if both sources are the same register */
    SHAPE_AND,
    SHAPE_OR,
    SHAPE_XOR, /* byte by byte with an immediate */
    SHAPE_SHIFT_LEFT,
    SHAPE_SHIFT_RIGHT,
    SHAPE_SHIFT_SIGNED,
    SHAPE_ROTATE_LEFT,
    SHAPE_ROTATE_RIGHT,
    SHAPE_DOUBLE_LEFT,
    SHAPE_DOUBLE_RIGHT, /* shld, shrd */
    SHAPE_STRING_MOVE,
    SHAPE_STRING_STORE,
    SHAPE_READ_BASE,
    SHAPE_WRITE_BASE, /* rdfsbase, wrfsbase. a: register */
    SHAPE_LOW_HALF,
    SHAPE_HIGH_HALF, /* movlps, movhlps; movhps, movlhps */
    SHAPE_REPEAT, /* movddup... a: element, b: which of each pair; 2: both from the first of a's */
    SHAPE_SHUFFLE_D,
    SHAPE_SHUFFLE_LOW,
    SHAPE_SHUFFLE_HIGH,
    SHAPE_SHUFFLE_W,
    SHAPE_SHUFFLE_PS,
    SHAPE_SHUFFLE_PD,
    SHAPE_PERMUTE_LANE, /* vpermilps, vpermilpd. a: element */
    SHAPE_PERMUTE_Q,    /* vpermq, vpermpd */
    SHAPE_PERMUTE,      /* indices in the first source. a: element */
    SHAPE_PERMUTE_2,    /* vpermi2, vpermt2. a: element, b: 1: the destination holds a table */
    SHAPE_PERMUTE_128,
    SHAPE_SHUFFLE_128,
    SHAPE_UNPACK,         /* a: element, b: high */
    SHAPE_ALIGN,          /* palignr */
    SHAPE_ALIGN_ELEMENTS, /* a: element */
    SHAPE_BYTES_LEFT,
    SHAPE_BYTES_RIGHT, /* pslldq, psrldq */
    SHAPE_SHUFFLE_BYTES,
    SHAPE_BLEND,      /* bits of the immediate. a: element */
    SHAPE_BLEND_VAR,  /* sign bits of a register. a: element */
    SHAPE_BLEND_MASK, /* a: element */
    SHAPE_INSERT_PS,
    SHAPE_INSERT,
    SHAPE_EXTRACT,   /* a: bytes */
    SHAPE_BROADCAST, /* a: bytes */
    SHAPE_EXTEND_ZERO,
    SHAPE_EXTEND_SIGN,
    SHAPE_TRUNCATE, /* a: narrow element, b: wide one */
    SHAPE_ELEMENT_LEFT,
    SHAPE_ELEMENT_RIGHT,
    SHAPE_ELEMENT_SIGNED, /* a: element */
    SHAPE_TERNARY,
    SHAPE_ZERO_UPPER,
    SHAPE_ZERO_ALL,
    SHAPE_MASK_MOVE,  /* vmaskmov: sign bits of the first source select. a: element */
    SHAPE_MASK_STORE, /* maskmovdqu */
    SHAPE_GATHER,
    SHAPE_SCATTER,
    SHAPE_COMPRESS,
    SHAPE_EXPAND,      /* a: element */
    SHAPE_MASK_UNPACK, /* a: bytes of each half */
    SHAPE_UNKNOWN,
    SHAPE_SAVE,
    SHAPE_RESTORE, /* a: 0 fxsave, 1 xsave, 2 compact, 3 may leave out what is not in use */
};
/* SHAPE_COMPUTE with an element size works on elements one by one: `a`; for bits, 1. */
struct shape_info {
    uint8_t shape, a, b;
};
extern const struct shape_info x86_shapes[];

#endif
