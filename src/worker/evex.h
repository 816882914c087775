/* AVX-512 on a CPU that has no more than AVX2: instructions with an EVEX prefix and those of
 * opmasks are emulated.
 *
 * Where the registers are. The lower halves of the first 16 vector registers are in the CPU (ymm0
 * to ymm15) while the guest runs; all the rest is in struct evex_registers, in the low 2 GiB. A VEX
 * instruction that writes ymm5 makes the upper half of zmm5 zero, for which the translator adds a
 * store of one byte: `upper[5]`.
 *
 * How an instruction is done. When it is translated, evex_prepare() makes a struct evex_insn of it,
 * which lies among the stubs of its block, and in its place stands
 *     vmovdqu [v[n]], ymm_n           for each operand of the first 16 registers
 *     mov [state->evex], the evex_insn
 *     jmp [state->call_evex]          saves the general registers, evex_execute(), loads them
 *     vmovdqu ymm_n, [v[n]]           the result
 * or, for what is frequent, code that does it with the CPU's registers (evex_inline.c); so blocks,
 * counts, marks and logs are the same as where the CPU does it itself. evex_execute() gets the
 * operands, which may fault, as does the guest's instruction then; lets `run` compute `out` from
 * them; and writes as much of that as the mask says.
 *
 * How it is computed. For most there is a VEX instruction that does the same to 256 bits. It is put
 * into `code` with ymm0, ymm1 and ymm2 for operands and executed for each half; exceptions of
 * floating point and rounding are the CPU's own then. The rest is C without vector registers. */
#ifndef WORKER_EVEX_H
#define WORKER_EVEX_H

#include "worker/engine_int.h"

enum { EVEX_VECTORS = 32, EVEX_MASKS = 8, EVEX_LEN = 64, EVEX_LOW = 32 };
/* Where the upper half of one of the first 16 registers is: in v; or it is zero, whatever v has.
 * Eight times that is the distance from v[n][32] at which it can be read. */
enum { EVEX_UPPER_KEPT = 0, EVEX_UPPER_ZERO = 4 };

struct evex_registers {
    uint8_t v[EVEX_VECTORS][EVEX_LEN + EVEX_LOW]; /* of the first 16 the lower halves are valid only
                                                     within evex_execute(); behind each are zeros */
    uint64_t k[EVEX_MASKS];
    uint8_t upper[16];
    /* For evex_inline.c. */
    uint8_t zeros[EVEX_LOW], ones[EVEX_LOW];
    uint8_t aside[3][EVEX_LOW]; /* registers that are put aside */
    uint8_t masked[16];         /* an opmask in the making */
    uint8_t low_bits[256];      /* the lowest 6 bits of each byte */
    uint8_t bits[5][EVEX_LOW];  /* elements with one bit each, as in a mask; by the logarithm of
                                   their length, and of 8 bytes the second four */
    uint8_t spread[EVEX_LOW];   /* for vpshufb: each byte of a mask of 32 bits to eight bytes */
};

enum evex_kind { EVEX_NONE, EVEX_VECTOR, EVEX_MASK, EVEX_GENERAL, EVEX_MEMORY };
struct evex_operand {
    uint8_t kind, number;
    uint8_t len;     /* bytes; with a broadcast: once it is done */
    uint8_t element; /* bytes */
};

struct evex_work;
typedef void evex_operation(struct evex_work *w);

enum evex_rounding {
    EVEX_DEFAULT,
    EVEX_NEAREST,
    EVEX_DOWN,
    EVEX_UP,
    EVEX_TO_ZERO,
    EVEX_SAE /* default, but no exceptions */
};

/* An instruction, ready to be executed. */
struct evex_insn {
    uint64_t resume; /* host address of what follows */
    evex_operation *run;
    uint64_t displacement;      /* of the memory operand; RIP-relative: its address */
    uint8_t base, index, scale; /* general registers, NO_REG: none; of gathers and scatters index is
                                   a vector register */
    uint8_t segment;            /* 0, or which base is added: 1 FS, 2 GS */
    bool narrow_address, in_stack; /* in_stack: relative to SS */
    uint8_t len;                   /* of vectors, bytes */
    uint8_t count;                 /* elements that the mask governs */
    uint8_t mask;                  /* opmask register; 0: all elements */
    bool zeroing;
    uint8_t broadcast; /* bytes of the one element in memory; 0: no broadcast */
    bool suppresses;   /* memory of elements that are masked off is not accessed */
    bool aligned;      /* memory must be aligned to its length */
    bool is_float; /* computed by floating point of the CPU: masked-off elements are replaced, and
                      MXCSR matters */
    bool scalar;   /* only the lowest element is computed, the rest of 16 bytes comes from src[0] */
    uint8_t rounding;  /* enum evex_rounding */
    uint8_t imm, what; /* for `run` */
    uint8_t insn_len;
    uint8_t lane; /* bytes that `code` does at a time */
    struct evex_operand dst, src[2];
    uint8_t code[12]; /* the VEX instruction, and a return */
};

/* What an operation works on. Buffers are longer than vectors, since whole lanes are moved. */
struct evex_work {
    const struct evex_insn *in;
    uint64_t mask; /* elements to be done */
    uint64_t address;
    uint8_t old[EVEX_LEN + EVEX_LOW]; /* the destination before */
    uint8_t src[2][EVEX_LEN + EVEX_LOW];
    uint8_t out[EVEX_LEN + EVEX_LOW];
    bool done; /* the operation has written its results itself */
};

/* --- evex.c --- */

extern struct evex_registers *evex_registers;

/** Once per process. `registers` lie in the low 2 GiB. */
void evex_init(struct evex_registers *registers, struct engine_state *state);
/** Called from translated code: does what state->evex says and sets state->resume. Does not return
 * if it faults. */
void evex_execute(const struct evex_insn *in);
/** Is this host address one at which memory of the guest is accessed for an emulated instruction?
 */
bool evex_accesses_guest(uint64_t host);
/** The signal that the guest gets for one that an access there raised. */
int evex_signal(const struct evex_insn *in, uint64_t host, int signo, int code);
/** Why evex_execute() did not return, if not for a fault: the instruction cannot be emulated with
 * the operands it has. */
bool evex_gave_up(void);
/** The address of memory operand, and its access. They do not return if they fault. */
void evex_load(void *to, uint64_t address, uint64_t len);
void evex_store(uint64_t address, const void *from, uint64_t len);
/** Raises what a general protection fault of the guest raises. */
void evex_protection_fault(void) __attribute__((noreturn));
void evex_give_up(void) __attribute__((noreturn));
/** The whole of register n, with the upper half of one that has none. */
const uint8_t *evex_vector(unsigned n);
/** Makes the lower half of v[n] the CPU's; or what was put aside. */
void evex_load_low(unsigned n);
void evex_load_aside(unsigned n, unsigned aside);
uint64_t *evex_general(unsigned number);
uint64_t *evex_flags(void);

/** Puts components 5 to 7 into an XSAVE image of the standard format in this CPU's layout, and
 * takes them from there. */
void evex_to_image(uint8_t *image);
void evex_from_image(const uint8_t *image);

/* --- evex_native.c, evex_ops.c --- */

/** One bit for each element: its highest. */
uint64_t evex_signs(const uint8_t *v, unsigned element, unsigned count);

/* Values of `what` of operations. */
enum { EVEX_KEEPS_UPPER = 1 }; /* evex_native_scalar: what is behind is that of dst */
enum {
    EVEX_LOW_HALF,
    EVEX_HIGH_HALF,
    EVEX_HIGH_TO_LOW
}; /* evex_move_half: of the result, what is set */
enum { EVEX_UNSIGNED, EVEX_SIGNED, EVEX_TRUNCATED }; /* evex_compare, evex_narrow */
enum {
    EVEX_NOT = 1,
    EVEX_INDEX_FIRST = 1,
    EVEX_WHOLE_BYTES = 1
}; /* evex_test, evex_permute_two, evex_shuffle_bits */
enum { EVEX_GALOIS_MULTIPLY, EVEX_GALOIS_AFFINE, EVEX_GALOIS_AFFINE_INVERSE }; /* evex_galois */
enum {
    EVEX_MIN,
    EVEX_MAX,
    EVEX_MIN_SIGNED,
    EVEX_MAX_SIGNED,
    EVEX_ABS,
    EVEX_MULTIPLY,
    EVEX_SRA_ALL,
    EVEX_SRA,
    EVEX_SLL,
    EVEX_SRL,
    EVEX_ROL_IMM,
    EVEX_ROR_IMM,
    EVEX_ROL,
    EVEX_ROR,
    EVEX_LEADING_ZEROS,
    EVEX_POPULATION,
    EVEX_SHLD_IMM,
    EVEX_SHRD_IMM,
    EVEX_SHLD,
    EVEX_SHRD,
    EVEX_MADD52_LOW,
    EVEX_MADD52_HIGH,
    EVEX_DOT_BYTES,
    EVEX_DOT_BYTES_SATURATED,
    EVEX_DOT_WORDS,
    EVEX_DOT_WORDS_SATURATED
}; /* evex_elements */
enum {
    EVEX_K_AND,
    EVEX_K_ANDN,
    EVEX_K_OR,
    EVEX_K_XOR,
    EVEX_K_XNOR,
    EVEX_K_NOT,
    EVEX_K_ADD,
    EVEX_K_SHIFTL,
    EVEX_K_SHIFTR,
    EVEX_K_MOV,
    EVEX_K_ORTEST,
    EVEX_K_TEST,
    EVEX_K_UNPACK
}; /* evex_mask_op, with the bytes of the mask in the upper half */
#define EVEX_MASK_OP(op, bytes) ((bytes) << 4 | (op))
enum { EVEX_XSAVE, EVEX_XSAVEOPT, EVEX_XSAVEC }; /* evex_save_state */

evex_operation evex_native, evex_native_scalar, evex_native_compare, evex_native_flags, evex_move,
    evex_blend, evex_ternary, evex_elements, evex_compare, evex_test, evex_broadcast, evex_permute,
    evex_permute_two, evex_shuffle_lanes, evex_shuffle_pairs, evex_align, evex_insert, evex_extract,
    evex_extract_element, evex_insert_element, evex_move_low, evex_move_half, evex_narrow,
    evex_mask_to_vector, evex_vector_to_mask, evex_broadcast_mask, evex_compress, evex_expand,
    evex_conflict, evex_double_sad, evex_shuffle_bits, evex_galois, evex_dot_bf16, evex_intersect,
    evex_gather, evex_scatter, evex_mask_op;

/* --- evex_float.c --- */

enum { EVEX_CONVERT_TO_INTEGER = 1, EVEX_CONVERT_SIGNED = 2, EVEX_CONVERT_TRUNCATES = 4 };
evex_operation evex_convert, evex_classify, evex_to_bf16;

/* --- evex_parts.c --- */

enum {
    EVEX_GET_EXPONENT,
    EVEX_GET_MANTISSA,
    EVEX_ROUND_SCALE,
    EVEX_REDUCE,
    EVEX_SCALE,
    EVEX_RANGE,
    EVEX_FIX_UP
};
evex_operation evex_parts;

/* --- evex_state.c --- */

evex_operation evex_save_state, evex_restore_state;

/* --- evex_decode.c --- */

struct insn;
struct block_maker;
/** Is the instruction one of those that are emulated where AVX-512 is? */
bool evex_concerns(const struct insn *in);
/** XSAVE, XRSTOR and their like. */
bool evex_saves_state(const struct insn *in);
/** False: this one cannot be emulated. */
bool evex_prepare(const struct insn *in, struct evex_insn *out);
/** Emits an emulated instruction of the block. */
void evex_emit(struct block_maker *m, unsigned idx);
/** Emits code that does the instruction without a call. False: there is none. */
bool evex_emit_inline(struct block_maker *m, unsigned idx, const struct evex_insn *p);
/** Emits what makes upper halves zero behind a copied instruction that writes vector registers. */
void evex_emit_upper(struct block_maker *m, const struct insn *in);

#endif
