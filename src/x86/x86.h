/* What an instruction does, for those who follow values: which registers and memory it reads and
 * writes, and where each byte that it writes came from. The public header of this room.
 *
 * Decoding gives the static facts (struct x86_insn). With the registers of one execution (struct
 * x86_run) come the addresses of its accesses, and for every byte that it wrote its origin: another
 * byte of which it is a copy, a constant, or a computation of some inputs. Movements of bytes are
 * known for all instructions of the general, SSE, AVX and AVX-512 sets that make them; whatever is
 * not known to move bytes counts as computing. Everything is about user code of 64-bit programs.
 *
 * Sources: Intel SDM volume 2; the test compares every claim with the CPU. */
#ifndef X86_X86_H
#define X86_X86_H

#include "base/types.h"

#include <stddef.h>

/* The register file: each of its bytes has a number. */
enum {
    X86_GPR =
        0, /* 16 of 8 bytes, in the order of machine code: rax rcx rdx rbx rsp rbp rsi rdi r8... */
    X86_RIP = 128,
    X86_FS_BASE = 136,
    X86_GS_BASE = 144,
    X86_FLAGS = 152,  /* a byte for each of enum x86_flag */
    X86_VECTOR = 160, /* 32 of 64 bytes */
    X86_MASK = 2208,  /* k0 to k7, 8 bytes each */
    X86_X87 = 2272, /* 8 physical registers of 10 bytes; mm0 is in the first. Where st(0) is depends
                       on the stack */
    X86_MXCSR = 2352,   /* 4 bytes */
    X86_CONTROL = 2356, /* all else: x87 control and status, selectors, PKRU...; not told apart */
    X86_REGISTER_BYTES = 2384,
};
enum x86_flag {
    X86_CF,
    X86_PF,
    X86_AF,
    X86_ZF,
    X86_SF,
    X86_DF,
    X86_OF,
    X86_OTHER_FLAGS,
    X86_FLAG_COUNT
};

/* A byte: of memory, or of the register file. */
struct x86_place {
    bool memory;
    uint64_t at;
};

struct x86_span {
    uint16_t start, len;
};

enum x86_class {
    X86_PLAIN,
    X86_PUSH, /* of a register or another operand */
    X86_POP,  /* also leave, which pops rbp */
    X86_JUMP, /* conditional or not */
    X86_CALL,
    X86_RETURN,
    X86_SYSCALL,
    X86_TRAP, /* answers that come from outside of the program: rdtsc, cpuid, lsl... */
};

enum { X86_MAX_LEN = 15, X86_MAX_OPERANDS = 10, X86_MAX_ACCESSES = 34, X86_MAX_SPANS = 16 };
enum { X86_NONE = 0xff };

enum x86_operand_kind {
    X86_NO_OPERAND,
    X86_REGISTER,
    X86_MEMORY,
    X86_ADDRESS /* of lea */,
    X86_IMMEDIATE
};

/* How the address of a memory operand comes about, beyond base, index and displacement. */
enum x86_addressing {
    X86_AT_ADDRESS,
    X86_AT_PUSH,     /* below rsp */
    X86_AT_POP_DEST, /* rsp counts as it is after the pop */
    X86_AT_STRING,   /* rsi or rdi, and on from there if repeated */
    X86_AT_BIT,      /* a bit number in a register selects the word */
    X86_AT_VECTOR,   /* an element's index is in a vector register: gather, scatter */
    X86_AT_STATE,    /* an area for fxsave, xsave: its size depends */
};

struct x86_mem {
    /* General register (X86_AT_VECTOR: index is a vector register), or X86_NONE. */
    uint8_t base, index;
    uint8_t scale, segment; /* segment: 0 none, 1 FS, 2 GS */
    uint8_t how;            /* enum x86_addressing */
    uint8_t index_len;      /* bytes of the index register that count, or of a vector's index */
    bool address32;
    int64_t disp; /* includes RIP for RIP-relative operands */
};

struct x86_operand {
    uint8_t kind; /* enum x86_operand_kind */
    bool reads, writes;
    bool maybe;      /* writes under a condition */
    bool visible;    /* written in the assembly text */
    uint8_t element; /* bytes of an element; 0: no vector */
    uint16_t start;  /* X86_REGISTER: in the register file */
    uint16_t len;    /* bytes; 0: depends (X86_AT_STATE) */
    uint16_t zeroed; /* X86_REGISTER that is written: bytes behind that become zero */
    union {
        struct x86_mem mem;
        uint64_t imm;
    };
};

/* A decoded instruction. `written` and `read` have a bit for each register of which some part may
 * be written or read; see x86_unit(). */
struct x86_insn {
    gaddr pc;
    uint8_t len, class; /* class: enum x86_class */
    uint8_t operand_count;
    bool vex;         /* VEX, EVEX or XOP: vector destinations are zeroed to their full length */
    bool repeats;     /* has a REP prefix that counts */
    bool scalar;      /* a vector instruction that works on the lowest element only */
    bool conditional; /* what it does depends on flags: cmov, setcc, jcc... */
    uint8_t mask;     /* number of the mask register that selects elements; 0: none */
    /* What is not selected: becomes zero; comes from the first source. */
    bool mask_zeroes, mask_controls;
    bool writes_memory, reads_memory;
    uint8_t flags_read, flags_written; /* bits by enum x86_flag */
    uint16_t mnemonic, vector_len;     /* mnemonic: private to this room */
    uint64_t written, read;
    struct x86_operand operands[X86_MAX_OPERANDS];
};

/** Decodes the instruction in `bytes`. False: these bytes are no instruction. */
bool x86_decode(const uint8_t *bytes, size_t len, gaddr pc, struct x86_insn *out);
/** Intel syntax, absolute addresses. "(bad)" for what cannot be decoded. Returns `out`. */
const char *x86_format(const uint8_t *bytes, size_t len, gaddr pc, char *out, size_t out_len);
/** The bit of x86_insn.written for the register that a byte of the register file belongs to. */
uint64_t x86_unit(unsigned byte);
/** Name of a part of a register: "eax", "xmm3", "ymm3", "zf"; "rax[2..5)" where there is none.
 * Returns `out`. */
const char *x86_register_name(unsigned start, unsigned len, char *out, size_t out_len);
/** The part of the register file with this name. False: there is none. */
bool x86_register_by_name(const char *name, struct x86_span *out);

/* One execution. `after` are the registers right after it (of a repeated string instruction: as far
 * as it got). */
struct x86_run {
    const struct regs *before, *after;
    void *ctx;
    /** Bytes before the instruction of registers that are not in `before`. May be NULL. False: not
     * known. */
    bool (*registers)(void *ctx, unsigned start, unsigned len, uint8_t *out);
    /** Bytes of memory before, or after, the instruction. May be NULL. False: not known. */
    bool (*memory)(void *ctx, bool after, gaddr addr, unsigned len, uint8_t *out);
};

struct x86_access {
    gaddr addr;
    uint64_t len;
    bool reads, writes;
    bool maybe; /* perhaps not all of it, or not at all */
    uint8_t operand;
};
/** The memory that an execution reads and writes. For lengths that depend on the CPU (X86_AT_STATE)
 * the longest possible. X86_AT_VECTOR without run->registers: one access of length 0 that is
 * `maybe`. Returns how many. */
size_t x86_accesses(const struct x86_insn *in, const struct x86_run *run,
                    struct x86_access out[X86_MAX_ACCESSES]);

enum x86_origin_kind {
    X86_UNTOUCHED, /* not written: its value is older */
    X86_COPY,      /* of the byte at `from`, as it was before the instruction */
    X86_CONST, /* `value`, whatever the inputs: an immediate, a zero extension, xor of a register
                  with itself... */
    X86_SIGN,  /* all bits are the top bit of the byte at `from` */
    X86_COMPUTED,
    X86_UNKNOWN, /* cannot be told: `why` */
};
struct x86_origin {
    uint8_t kind; /* enum x86_origin_kind */
    uint8_t value;
    struct x86_place from;
    const char *why;
};
/** Where the byte `to` came from, if the execution wrote it. */
struct x86_origin x86_origin_of(const struct x86_insn *in, const struct x86_run *run,
                                struct x86_place to);

/* Bytes that a computed byte depends on. */
struct x86_input {
    struct x86_place from;
    uint32_t len;
};
/** What a byte with X86_COMPUTED was computed from: without what only makes addresses. At most
 * `max`; returns how many. Vector operations that work on elements one by one give the elements in
 * question only. */
size_t x86_inputs_of(const struct x86_insn *in, const struct x86_run *run, struct x86_place to,
                     struct x86_input *out, size_t max);

/** All parts of registers that are read, or written, those for addresses included. Returns how
 * many. */
size_t x86_registers_read(const struct x86_insn *in, struct x86_span out[X86_MAX_SPANS]);
size_t x86_registers_written(const struct x86_insn *in, struct x86_span out[X86_MAX_SPANS]);

/** Reads bytes of the register file that `regs` holds: general registers, rip, bases, flags. False
 * for all others. */
bool x86_read_regs(const struct regs *regs, unsigned start, unsigned len, uint8_t *out);

#endif
