/* Expressions of C, C++ and Rust, as a user types them, compiled at a place of the code to a small program (base/program.h) over the
 * registers and memory there. */
#ifndef SYM_EXPRESSION_H
#define SYM_EXPRESSION_H

#include "base/program.h"
#include "sym/sym.h"

/* A compiled expression. Deinit with sym_expression_deinit(); its module must stay open. */
struct sym_expression {
    struct program program;      /* owned; its result is the value if `in_out` is false. Checked by program_check() */
    const struct sym_type *type; /* of the value; never NULL */
    bool in_out;                 /* the value's bytes are the first type->size (at most SYM_EXPRESSION_MAX) bytes of the output */
    bool in_memory;              /* it is an lvalue in memory: the program's result is its address */
    uint16_t text_at, text_len;  /* text_len not 0: a pointer to characters, and the string is there in the output */
};
enum { SYM_EXPRESSION_MAX = 256, SYM_EXPRESSION_TEXT = 128 };

struct sym_expression_request {
    const char *text;
    vaddr addr;       /* the code address at which names are looked up and values read */
    size_t inlined;   /* which frame of sym_inline_chain() */
    const struct sym_inlined *call; /* Optional: the inlined call that begins at addr, whose parameters hide other names */
    uint64_t bias;    /* of the module where it runs */
    uint64_t tls_offset; /* of that module, as in struct sym_context */
    bool at_entry;    /* addr is a function's first instruction: parameters are where the calling convention has them, variables have no value */
    bool condition;   /* a truth value is wanted: the result is 1 or 0, and there is no output */
    /* Optional: the program is to run once, at this state. What a program cannot compute (values at entry,
     * registers of outer frames) is then read now, and is a constant of the program. NULL: it is to run at any execution of addr. */
    struct sym_context *now;
};

/**
 * Errors: ERR_USAGE (syntax; the message has the column, from 1), ERR_NOT_FOUND (no such variable, member, type; optimized out at
 * this place), ERR_UNSUPPORTED (calls, assignments, what a program cannot compute), ERR_LIMIT (too long).
 */
struct err *sym_expression_compile(struct sym_module *m, const struct sym_expression_request *request, struct sym_expression *out) nodiscard;
void sym_expression_deinit(struct sym_expression *e);

/** Why a run gave nothing. end: not PROGRAM_OK. ERR_FAULT with the address, or ERR_NOT_FOUND. */
struct err *sym_expression_failure(enum program_end end, uint64_t result) nodiscard;

/**
 * What a run gave as a value that sym_format_value() and sym_value_children() understand.
 *
 * end, result, output: of program_run(). Errors: ERR_FAULT with the address, ERR_NOT_FOUND, ERR_UNSUPPORTED: why there is none.
 */
struct err *sym_expression_value(struct sym_module *m, const struct sym_expression *e, enum program_end end, uint64_t result,
                                 const uint8_t *output, struct sym_value *out) nodiscard;

/* Memory of the recorded program for sym_format_value(): the string that the expression's program took along, else another context's. */
struct sym_expression_context {
    struct sym_context base;
    struct sym_context *otherwise;
    gaddr text_addr;
    const uint8_t *text;
    size_t text_len;
};
/** otherwise: may be NULL. Borrows e, output and otherwise. */
void sym_expression_context_init(struct sym_expression_context *c, const struct sym_expression *e, enum program_end end,
                                 const uint8_t *output, struct sym_context *otherwise);

#endif
