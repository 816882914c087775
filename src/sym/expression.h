/* Expressions of C, C++ and Rust, as a user types them, compiled at a place of the code to a small
 * program (base/program.h) over the registers and memory there. */
#ifndef SYM_EXPRESSION_H
#define SYM_EXPRESSION_H

#include "base/program.h"
#include "sym/sym.h"

enum {
    SYM_CALL_MOST_ARGUMENTS = 24,
    SYM_CALL_MOST_STACK = 8192 /* bytes of arguments */,
    SYM_CALL_INTEGERS = 6,
    SYM_CALL_VECTORS = 8
};

/* A piece of up to 8 bytes of an argument or a result. */
struct sym_call_part {
    enum { SYM_PART_INTEGER, SYM_PART_VECTOR, SYM_PART_NONE /* padding */ } kind;
    uint8_t number; /* of rdi, rsi, rdx, rcx, r8, r9, or xmm0 and so on; of a result: rax, rdx */
};

/* Something that the program's machine has to do for an expression: PROGRAM_CALL's number. */
struct sym_call {
    enum {
        SYM_CALL_FUNCTION,  /* address, arguments -> the result; of a class: where it lies */
        SYM_CALL_TEXT,      /* -> the address of text */
        SYM_CALL_TEMPORARY, /* a number -> the address of `size` bytes of it */
    } kind;
    const char *name; /* of the function; borrowed from the module */
    const char *text; /* owned by the expression */
    uint32_t size;    /* of text, with its end; of a temporary */
    struct sym_call_argument {
        uint32_t copied; /* the number is the address of so many bytes, which are passed; 0: it is
                            passed itself */
        int32_t stack;   /* bytes above the return address; -1: in registers */
        struct sym_call_part parts[2];
        uint8_t part_count;
    } args[SYM_CALL_MOST_ARGUMENTS];
    uint8_t arg_count, vectors; /* vectors: registers used */
    uint32_t stack_len;         /* of arguments; a multiple of 16 */
    uint32_t result_size;       /* of a class; 0: a number, or nothing */
    bool result_in_memory;      /* rdi is where it goes */
    struct sym_call_part result[2];
    uint8_t result_count;
};

/* The machine's registers and stack before a call, and behind it. */
struct sym_call_frame {
    uint64_t target;
    uint64_t integers[SYM_CALL_INTEGERS]; /* rdi, rsi, rdx, rcx, r8, r9 */
    uint64_t vectors[SYM_CALL_VECTORS];   /* low halves of xmm0 to xmm7 */
    uint8_t vector_count;                 /* used by arguments: al */
    uint8_t stack[SYM_CALL_MOST_STACK];   /* from above the return address on */
    uint32_t stack_len;                   /* a multiple of 16 */
    uint64_t rax, rdx, xmm[2];            /* results: low halves of xmm0, xmm1 */
};

/* Who runs the program's functions. Embed it at the start of your own struct. */
struct sym_caller {
    struct sym_context *memory; /* as it is now */
    /* Puts a copy of the bytes, or zeros (NULL), into fresh memory of the program, aligned to 16,
     * that lasts as long as the caller. */
    struct err *(*place)(struct sym_caller *c, const void *data, size_t len, gaddr *out);
    /* Calls f->target. name: of the function, to tell of. */
    struct err *(*call)(struct sym_caller *c, const char *name, struct sym_call_frame *f);
    /* Optional: the address of a function that another module of the program has by the linker's
     * name. */
    bool (*find)(struct sym_caller *c, const char *linkage_name, gaddr *out);
};

/* A compiled expression. Deinit with sym_expression_deinit(); its module must stay open. */
struct sym_expression {
    struct sym_call *calls;      /* owned; program.call_count of them */
    struct program program;      /* owned; its result is the value if `in_out` is false. Checked by
                                    program_check() */
    const struct sym_type *type; /* of the value; never NULL */
    bool in_out; /* the value's bytes are the first type->size (at most SYM_EXPRESSION_MAX) bytes of
                    the output */
    bool in_memory;             /* it is an lvalue in memory: the program's result is its address */
    uint16_t text_at, text_len; /* text_len not 0: a pointer to characters, and the string is there
                                   in the output */
};
enum { SYM_EXPRESSION_MAX = 256, SYM_EXPRESSION_TEXT = 128 };

struct sym_expression_request {
    const char *text;
    vaddr addr;     /* the code address at which names are looked up and values read */
    size_t inlined; /* which frame of sym_inline_chain() */
    const struct sym_inlined *call; /* Optional: the inlined call that begins at addr, whose
                                       parameters hide other names */
    uint64_t bias;                  /* of the module where it runs */
    uint64_t tls_offset;            /* of that module, as in struct sym_context */
    bool at_entry;  /* addr is a function's first instruction: parameters are where the calling
                       convention has them, variables have no value */
    bool condition; /* a truth value is wanted: the result is 1 or 0, and there is no output */
    /* Optional: the program is to run once, at this state. What a program cannot compute (values at
     * entry, registers of outer frames) is then read now, and is a constant of the program. NULL:
     * it is to run at any execution of addr. */
    struct sym_context *now;
    struct sym_caller *caller; /* Optional: functions of the program may be called when it runs */
    bool *needs_caller; /* Optional: set if there is none and the expression calls something. It
                           fails then */
};

/**
 * Errors: ERR_USAGE (syntax; the message has the column, from 1), ERR_NOT_FOUND (no such variable,
 * member, type; optimized out at this place), ERR_UNSUPPORTED (assignments, calls without a caller,
 * what a program cannot compute), ERR_LIMIT (too long).
 */
struct err *sym_expression_compile(struct sym_module *m,
                                   const struct sym_expression_request *request,
                                   struct sym_expression *out) nodiscard;
void sym_expression_deinit(struct sym_expression *e);

/** What program_host.call is to do. number, args: of PROGRAM_CALL. Errors: of the caller. */
struct err *sym_expression_call(const struct sym_expression *e, uint64_t number,
                                const uint64_t *args, struct sym_caller *caller,
                                uint64_t *out) nodiscard;

/** Why a run gave nothing. end: not PROGRAM_OK. ERR_FAULT with the address, or ERR_NOT_FOUND. */
struct err *sym_expression_failure(enum program_end end, uint64_t result) nodiscard;

/**
 * What a run gave as a value that sym_format_value() and sym_value_children() understand.
 *
 * end, result, output: of program_run(). Errors: ERR_FAULT with the address, ERR_NOT_FOUND,
 * ERR_UNSUPPORTED: why there is none.
 */
struct err *sym_expression_value(struct sym_module *m, const struct sym_expression *e,
                                 enum program_end end, uint64_t result, const uint8_t *output,
                                 struct sym_value *out) nodiscard;

/* Memory of the recorded program for sym_format_value(): the string that the expression's program
 * took along, else another context's. */
struct sym_expression_context {
    struct sym_context base;
    struct sym_context *otherwise;
    gaddr text_addr;
    const uint8_t *text;
    size_t text_len;
};
/** otherwise: may be NULL. Borrows e, output and otherwise. */
void sym_expression_context_init(struct sym_expression_context *c, const struct sym_expression *e,
                                 enum program_end end, const uint8_t *output,
                                 struct sym_context *otherwise);

#endif
