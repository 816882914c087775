/* Inside of the compiler of expressions: text -> tree (expression_parse.c) -> types and names
 * (expression_resolve.c) -> program (expression_emit.c, location_program.c). */
#ifndef SYM_EXPRESSION_INT_H
#define SYM_EXPRESSION_INT_H

#include "sym/expression.h"
#include "sym/sym_int.h"

enum { MAX_TEXT = 4096, MAX_NODES = 256, MAX_PARTS = 16 };

/* A program in the making. `full`: it became too long, which is found out at the end. */
struct emitter {
    struct program_op ops[PROGRAM_MAX_OPS];
    size_t count;
    uint8_t data[PROGRAM_MAX_DATA];
    size_t data_len;
    bool full;
};
void emit(struct emitter *em, enum program_code code, unsigned size, unsigned arg, uint64_t imm);
static inline void emit_push(struct emitter *em, uint64_t v)
{
    emit(em, PROGRAM_PUSH, 0, 0, v);
}
/** Number `dwarf_reg` (RAX to RIP; vector registers: its low `size` bytes) on the stack. */
struct err *emit_register(struct emitter *em, unsigned dwarf_reg, unsigned size) nodiscard;

/* Some bytes of a value that is not in memory as a whole. */
struct part {
    uint64_t off, len; /* bytes of the value */
    bool is_address;   /* the program gives the address where they are, else the bytes (at most 8)
                          themselves */
    bool is_missing;   /* optimized out */
    const uint8_t *bytes;     /* constants instead of a program; borrowed from the module, or from
                                 `owned` of a compilation */
    int vector;               /* a vector register instead, or -1 */
    struct program_op ops[8]; /* what puts it on the stack */
    size_t count;
};

/* Where a variable is. */
struct place {
    enum { PLACE_MEMORY, PLACE_PARTS } kind;
    struct program_op ops[64]; /* PLACE_MEMORY: what puts the address on the stack */
    size_t count;
    struct part parts[MAX_PARTS];
    size_t part_count;
};

/* location_program.c */
/** The location of a variable of `size` bytes at f->addr, for a program that runs there. f->ctx is
 * not used but for its bias. Errors: as location_evaluate_attribute(); ERR_UNSUPPORTED for what a
 * program cannot compute. */
struct err *location_compile(struct frame *f, Dwarf_Attribute *attr, uint64_t size,
                             struct place *out) nodiscard;
/** The parameter `idx` of a function at its first instruction, by the calling convention; call.c.
 * ERR_NOT_FOUND: the debug information knows better. */
struct err *argument_compile(struct sym_module *m, const struct sym_function *fn, size_t idx,
                             struct place *out) nodiscard;
/** A place that is made of `pieces`, of which those in memory are relative to the stack pointer. */
struct err *place_of_arguments(const struct pieces *pieces, uint64_t size, bool by_reference,
                               struct place *out) nodiscard;

/** How a function with parameters and a result of these types is called. Fills all of out but its
 * name. ERR_UNSUPPORTED: a value that is not passed here, with its type; ERR_LIMIT: too many.
 * call.c */
struct err *call_compile(struct sym_module *m, const struct sym_type *result,
                         const struct sym_type *const *params, size_t count,
                         struct sym_call *out) nodiscard;

/* --- the tree --- */

enum node_kind {
    NODE_NUMBER,   /* number, type */
    NODE_REAL,     /* real */
    NODE_STRING,   /* text: of a literal, unescaped */
    NODE_NAME,     /* text; resolved: variable, place */
    NODE_CONSTANT, /* a name that is a number: resolved from NODE_NAME */
    NODE_REGISTER, /* number: DWARF register, size, first byte */
    NODE_UNARY,    /* op a: - ~ ! & * + */
    NODE_BINARY,   /* a op b; also && and || and , */
    NODE_CHOICE,   /* a ? b : c */
    NODE_MEMBER,   /* a.text, or *a's */
    NODE_CAST,     /* (type)a */
    NODE_ARRAY,    /* a@number */
    NODE_STREQ,    /* a == "text"; number: 1 if it is only contained */
    NODE_CALL,     /* a(args); resolved: site */
};

#define OP2(x, y) ((unsigned)(x) | (unsigned)(y) << 8)

struct node {
    enum node_kind kind;
    unsigned op;     /* a character, or OP2() */
    unsigned column; /* from 1 */
    struct node *a, *b, *c;
    const struct sym_type *type; /* set by the parser for casts and numbers, by resolve for all */
    uint64_t number;
    double real;
    bool resolved;
    const char *text;
    bool arrow;                         /* NODE_MEMBER: -> */
    bool indexes;                       /* NODE_BINARY: a + b was written a[b] */
    uint64_t offset;                    /* resolved NODE_MEMBER: bytes */
    unsigned bit_off, bit_size;         /* a bit-field */
    struct place *place;                /* resolved NODE_NAME */
    unsigned reg_size, reg_off;         /* NODE_REGISTER */
    const struct sym_type *enumeration; /* NODE_CONSTANT: of which it is; or NULL */
    struct node **args;                 /* NODE_CALL */
    size_t arg_count;
    struct call_site *site; /* resolved NODE_CALL */
};

/* How an argument is passed. */
struct passing {
    struct node *node;
    enum {
        PASS_NUMBER,
        PASS_ADDRESS /* of it */,
        PASS_TEXT,
        PASS_TEMPORARY /* the address of a copy */
    } how;
    const struct sym_type *type; /* what it is converted to; of a temporary, too */
    uint64_t shift;              /* to a base class within what is pointed to */
    size_t call;                 /* PASS_TEXT, PASS_TEMPORARY: of the compilation's */
};

/* A call whose function is known. */
struct call_site {
    enum { TARGET_KNOWN, TARGET_POINTER, TARGET_SLOT } kind;
    uint64_t target; /* TARGET_KNOWN: its address; TARGET_SLOT: its number in the table of virtual
                        functions of the first argument */
    struct node *pointer; /* TARGET_POINTER */
    struct passing args[SYM_CALL_MOST_ARGUMENTS];
    size_t count;
    size_t call; /* of the compilation's */
};

struct compilation {
    struct sym_module *m;
    const struct sym_expression_request *request;
    struct sym_pool pool; /* nodes, strings, places: as long as the compilation */
    unsigned node_count;
    struct sym_variables variables;      /* in scope; empty without debug information */
    char *no_variables;                  /* why there are none; or NULL */
    const struct sym_function *function; /* at request->addr; or NULL */
    struct emitter em;
    VEC(struct sym_call) calls; /* their texts are in the pool */
};

/* expression_parse.c */
struct err *parse_expression(struct compilation *c, struct node **out) nodiscard;
struct node *new_node(struct compilation *c, enum node_kind kind, unsigned column);
/** ERR_USAGE, and so on, with the column. */
struct err *err_at(const struct compilation *c, enum err_kind kind, unsigned column,
                   const char *format, ...) nodiscard __attribute__((format(printf, 4, 5)));

/* expression_resolve.c */
/** NODE_MEMBER: what it is a member of, behind pointers and the program's operators ->. */
struct err *resolve_object(struct compilation *c, struct node *n, unsigned depth) nodiscard;
struct err *resolve(struct compilation *c, struct node *n, unsigned depth) nodiscard;
/** As resolve(), and what is a reference becomes what it refers to. */
struct err *resolve_child(struct compilation *c, struct node **n, unsigned depth) nodiscard;
/** NULL: there is none of that name. Takes "unsigned long", "struct node", "ns::T", typedefs. */
const struct sym_type *type_named(struct compilation *c, const char *name);
bool is_variable(struct compilation *c, const char *name);
const struct sym_type *pointer_to(struct compilation *c, const struct sym_type *target);
const struct sym_type *builtin(const char *name);
static inline bool is_integer(const struct sym_type *t)
{
    return (t->kind == SYM_BOOL || t->kind == SYM_INT || t->kind == SYM_UINT ||
            t->kind == SYM_CHAR || t->kind == SYM_ENUM) &&
           t->size && t->size <= 8;
}
static inline bool is_real(const struct sym_type *t)
{
    return t->kind == SYM_FLOAT && (t->size == 4 || t->size == 8);
}
static inline bool is_pointer(const struct sym_type *t)
{
    return t->kind == SYM_POINTER;
}
static inline bool is_scalar(const struct sym_type *t)
{
    return is_integer(t) || is_real(t) || is_pointer(t);
}
bool is_signed_type(const struct sym_type *t);
/** Of integers and reals: what C makes of both before it computes. */
const struct sym_type *common_type(const struct sym_type *a, const struct sym_type *b);
const struct sym_type *promoted(const struct node *n);

/** The scopes around the place, from within: the length of each as a part of the function's name,
 * "a::b::" in a::b::f(int), then "a::", then "". innermost_scope(), then outer_scope() of the one
 * before; SIZE_MAX: that was the last. */
size_t innermost_scope(struct compilation *c);
size_t outer_scope(struct compilation *c, size_t len);
/** The name within such a scope; heap string. */
char *in_scope(struct compilation *c, size_t len, const char *name);
/** What stands behind the last "::" that is in no template's arguments; NULL: that cannot be told.
 */
const char *base_name(const char *name);
/** The end of template arguments "<...>" that begin at `at`, or NULL. */
const char *template_end(const char *at);
bool is_place(const struct node *n);
struct node *member_node(struct compilation *c, struct node *of, const struct member *member);
/** What a pointer points to, as a thing. */
struct node *pointed_node(struct compilation *c, struct node *pointer);
bool is_member_of_this(struct compilation *c, const char *name);
bool is_known_variable(struct compilation *c, const char *name);

/* expression_call.c */
/** NODE_CALL as it was written. */
struct err *resolve_call(struct compilation *c, struct node *n, unsigned depth) nodiscard;
/** Makes n a call of an operator of the program for its resolved operands, by its name
 * ("operator+"). *found false: there is none that fits, and nothing has changed. b: NULL for unary
 * ones. */
struct err *resolve_operator(struct compilation *c, struct node *n, const char *name,
                             struct node *a, struct node *b, unsigned depth, bool *found) nodiscard;

/* expression_emit.c */
/** The whole: fills in out's program (borrowed from c->em), type and so on. */
struct err *emit_expression(struct compilation *c, struct node *root,
                            struct sym_expression *out) nodiscard;

#endif
