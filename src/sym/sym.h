/* Symbols of one ELF module: functions, lines, inline chains, variables, types, values, unwinding.
 *
 * This room knows no time and no process. Addresses here are *link-time* addresses of the module
 * (`vaddr`): the caller knows where a module is mapped and converts with `vaddr = gaddr - bias`
 * (sym_module_bias). Memory and registers of the recorded program come through the callbacks of
 * struct sym_context.
 *
 * What a call returns by `const struct ... *` or `const char *` is borrowed from the module and
 * immutable until sym_module_close. Any thread may call with any module (calls on one module take
 * turns); callbacks run inside that turn.
 *
 * Errors that the user should see as a reason: ERR_NOT_FOUND ("optimized out at 0x1139", "no debug
 * information", "no function at 0x..."), ERR_FAULT ("not mapped", from the read_memory callback),
 * ERR_FORMAT (damaged ELF or DWARF), ERR_UNSUPPORTED (a DWARF operation we do not know), ERR_LIMIT.
 */
#ifndef SYM_SYM_H
#define SYM_SYM_H

#include "base/buf.h"
#include "base/err.h"
#include "base/types.h"

/* An address as the linker gave it out: relative to the module's load bias. */
typedef uint64_t vaddr;

struct sym_range {
    vaddr start, end; /* half-open */
};

/* ---- Modules ---- */

/* One ELF file, with a separate debug file where there is one. Guarded by its own lock. */
struct sym_module;

/**
 * Opens the ELF file at `path`; its debug information is looked for, when first needed, in the file
 * itself, in DEBUG_DIR/.build-id/xx/yyyy.debug, /usr/lib/debug/.build-id/..., and by .gnu_debuglink
 * in DEBUG_DIR, beside the file, in .debug/ there and below /usr/lib/debug. What dwz moved into a
 * common file (.gnu_debugaltlink) is looked for in DEBUG_DIR's .build-id/xx/yyyy.sup (of the build
 * id of this file or of that one), .debug and .dwz/, then by build id in /usr/lib/debug and where
 * the link says; split debug information in DEBUG_DIR/.dwo/ID.dwo, then where it was made.
 * Without any, names come from .symtab, .dynsym and .gnu_debugdata.
 *
 * debug_dir: a trace's debug/ directory, or NULL.
 * Errors: ERR_OS, ERR_FORMAT (not ELF), ERR_UNSUPPORTED (not x86-64). A missing debug file is not
 * an error.
 */
struct err *sym_module_open(const char *path, const char *debug_dir,
                            struct sym_module **out) nodiscard;
void sym_module_close(struct sym_module *m);
static inline void sym_module_closep(struct sym_module **m)
{
    sym_module_close(*m);
}

/** Where the file was when it was recorded, from which files beside it are looked for; else `path`.
 * Before the first question. */
void sym_module_set_origin(struct sym_module *m, const char *path);
/** Directories in place of /usr/lib/debug, separated by colons (gdb's debug-file-directory). Before
 * the first question. */
void sym_module_set_debug_directories(struct sym_module *m, const char *dirs);
/** The directory which relative names of source files begin at, in place of what the compiler left
 * (DW_AT_comp_dir). Before the first question. */
void sym_module_set_comp_dir(struct sym_module *m, const char *dir);

const char *sym_module_path(const struct sym_module *m);
/** Build id in hex, or NULL. */
const char *sym_module_build_id(const struct sym_module *m);
/** NULL if there is DWARF; else the reason why not, for showing to the user. */
const char *sym_module_no_dwarf(struct sym_module *m);

/* A file outside of the module with a part of its debug information. */
enum sym_external_kind { SYM_DEBUG_LINK, SYM_DEBUG_ALT_LINK, SYM_DWP, SYM_DWO };
struct sym_external {
    enum sym_external_kind kind;
    const char *path; /* absolute; of a .dwo that is missing: where it should be */
    /* SYM_DWO: */
    uint64_t dwo_id;
    bool is_missing;           /* no file there, or one of another build; nor in a .dwp */
    const struct sym_dwp *dwp; /* it is a unit of this, at `path`; NULL: a file of its own */
};
typedef void sym_external_visitor(void *arg, const struct sym_external *e);
/** All such files that the module's debug information is in; what is visited is borrowed during the
 * visit. None is not an error. */
struct err *sym_external_files(struct sym_module *m, sym_external_visitor *visit,
                               void *arg) nodiscard;

/* A .dwp file: many .dwo in one. Immutable. */
struct sym_dwp;
/** ERR_OS, ERR_FORMAT (no ELF file, no table of units in it). */
struct err *sym_dwp_open(const char *path, struct sym_dwp **out) nodiscard;
void sym_dwp_close(struct sym_dwp *d);
static inline void sym_dwp_closep(struct sym_dwp **d)
{
    sym_dwp_close(*d);
}
bool sym_dwp_has(const struct sym_dwp *d, uint64_t id);
/** Appends the unit as the .dwo file that it was: an ELF file. ERR_NOT_FOUND, ERR_FORMAT (damaged),
 * ERR_LIMIT. */
struct err *sym_dwp_unit(const struct sym_dwp *d, uint64_t id, struct buf *out) nodiscard;

/**
 * The load bias of a module of which `file_off` is mapped at `map_start`, as code or not: gaddr =
 * vaddr + bias. Errors: ERR_NOT_FOUND if no loadable segment covers file_off.
 */
struct err *sym_module_bias(struct sym_module *m, gaddr map_start, uint64_t file_off,
                            bool executable, uint64_t *bias_out) nodiscard;

/* Room for libdw's description of an entry, which this header does not name. */
struct sym_die {
    void *opaque[4];
};

/* ---- Functions ---- */

enum sym_source { SYM_DWARF, SYM_ELF, SYM_PLT };

struct sym_function {
    const char *name;         /* full and demangled: "ns::f<int>(int)"; "memcpy@plt" */
    const char *base_name;    /* as written where defined: "f<int>"; the same as name for C */
    const char *linkage_name; /* the linker's, or NULL if not known */
    vaddr start,
        end; /* the range which begins with the entry; 0, 0: all calls of it were inlined */
    const struct sym_range *ranges; /* all ranges, that one first */
    size_t range_count;             /* 0: all calls of it were inlined */
    const char *decl_file;          /* absolute, normalised; or NULL */
    unsigned decl_line;             /* or 0 */
    enum sym_source source;
    uint64_t id; /* stable for one file: offset of its entry in .debug_info, or its start; if all
                    calls were inlined, for sym_inlined_function() */
};

/** The function (never an inlined one) whose ranges hold `addr`: from DWARF, else from the ELF
 * symbols. */
struct err *sym_function_at(struct sym_module *m, vaddr addr,
                            const struct sym_function **out) nodiscard;
/** All functions whose name, base name, linkage name, or name up to "(" is `name`; at most `max`.
 * None: ERR_NOT_FOUND. */
struct err *sym_functions_named(struct sym_module *m, const char *name, size_t max,
                                const struct sym_function **out, size_t *count_out) nodiscard;
/** The same of the linker's symbols alone, without PLT stubs: debug information is read only if
 * there are none. Inlined functions are not among them. */
struct err *sym_symbols_named(struct sym_module *m, const char *name, size_t max,
                              const struct sym_function **out, size_t *count_out) nodiscard;
/** Where the arguments have reached their -O0 homes: after the prologue. The start itself if not
 * known. */
vaddr sym_function_prologue_end(struct sym_module *m, const struct sym_function *fn);

struct sym_variables;
/* A call that was compiled into its caller. */
struct sym_inlined {
    vaddr entry; /* its first address */
    struct sym_die die;
};
struct sym_inlined_list {
    struct sym_inlined *items;
    size_t count, cap;
};
void sym_inlined_list_deinit(struct sym_inlined_list *l);
/** The function's calls that were inlined, in all units, by address. None is not an error. */
struct err *sym_inlined_copies(struct sym_module *m, const struct sym_function *f,
                               struct sym_inlined_list *out) nodiscard;
/** Parameters of such a call, as far as the compiler kept them; sym_read_variable() at its entry
 * has their values. */
struct err *sym_inlined_parameters(struct sym_module *m, const struct sym_inlined *copy,
                                   struct sym_variables *out) nodiscard;
/** A function by its id, of which all calls were inlined. */
struct err *sym_inlined_function(struct sym_module *m, uint64_t id,
                                 const struct sym_function **out) nodiscard;

/* ---- Lines ---- */

struct sym_line {
    const char *file; /* absolute, normalised */
    unsigned line, column;
    bool is_stmt;
    vaddr start, end; /* the row's addresses; empty when another row begins at the same address */
};

/** The line table's row that holds `addr`. Rows of line 0 (compiler made) give ERR_NOT_FOUND. */
struct err *sym_line_at(struct sym_module *m, vaddr addr, struct sym_line *out) nodiscard;

/* One frame of source at one address. frames[0] is the innermost; all but the last are inlined. */
struct sym_frame {
    const char *name; /* of the function, as in sym_function.name */
    const char *file; /* where this frame is: a line row for frames[0], the place of the call for
                         the others; or NULL */
    unsigned line, column;
    bool is_inlined;
    vaddr start;           /* of this instance of the inlined function, or of the function */
    const char *decl_file; /* where the function of this frame is declared; or NULL */
    unsigned decl_line;
};
struct sym_frames {
    struct sym_frame *items;
    size_t count, cap;
};
void sym_frames_deinit(struct sym_frames *f);

/** The chain of inlined calls at `addr`, at least one frame. ERR_NOT_FOUND if no function is there.
 */
struct err *sym_inline_chain(struct sym_module *m, vaddr addr, struct sym_frames *out) nodiscard;

/* Where one line of source begins: `start` is a place to count executions of it, each execution
 * passes once. */
struct sym_place {
    vaddr start, end;                    /* the run of consecutive rows of that line */
    const struct sym_function *function; /* or NULL */
};
struct sym_places {
    const char *file; /* the file found */
    unsigned line; /* the line found: the one asked for, or the nearest later one that has code */
    struct sym_place *items; /* by address */
    size_t count, cap;
};
void sym_places_deinit(struct sym_places *p);

/**
 * The code of `file`:`line`.
 *
 * file: an absolute path as returned by this room, or a trailing part of one at a slash ("src/a.c",
 * "a.c"). Errors: ERR_NOT_FOUND (no such file here, no code at or after the line).
 */
struct err *sym_addresses_of_line(struct sym_module *m, const char *file, unsigned line,
                                  struct sym_places *out) nodiscard;

/** Called per row, in address order per compilation unit; false ends the visit. fn may be NULL. */
typedef bool sym_line_visitor(void *arg, const struct sym_line *row, const struct sym_function *fn);
/** All rows of a file, to mark lines that have code or that ran. ERR_NOT_FOUND: no such file here.
 */
struct err *sym_lines_of_file(struct sym_module *m, const char *file, sym_line_visitor *visit,
                              void *arg) nodiscard;

/** All source files, sorted. Borrowed; NULL if there are none. */
const char *const *sym_file_list(struct sym_module *m, size_t *count_out);

/* ---- Search ---- */

/* What has to be made before the first question: about a function's inlined calls, by
 * sym_inlined_copies(); by name. */
enum sym_purpose { SYM_FOR_CALLS, SYM_FOR_SEARCH };
/** Does a part of that, some 20 ms of it. False: all is done. share_out: how much, 0 to 1. With
 * large debug information all takes seconds, which the first question spends else. */
bool sym_prepare(struct sym_module *m, enum sym_purpose purpose, double *share_out);

struct sym_hit {
    const struct sym_function *function; /* or NULL: a file */
    const char *file;                    /* the file, or the function's file, or NULL */
    unsigned rank; /* 0 the whole name, 1 a prefix, 2 the start of a word, 3 anywhere */
};
typedef bool sym_hit_visitor(void *arg, const struct sym_hit *hit);
/** Functions and files which contain `text` in any case, best first, at most `max` of each. None is
 * not an error. */
struct err *sym_search(struct sym_module *m, const char *text, size_t max, sym_hit_visitor *visit,
                       void *arg) nodiscard;

/* ---- The program's state ---- */

/* DWARF register numbers, System V psABI figure 3.36. */
enum sym_reg {
    SYM_RAX,
    SYM_RDX,
    SYM_RCX,
    SYM_RBX,
    SYM_RSI,
    SYM_RDI,
    SYM_RBP,
    SYM_RSP,
    SYM_R8,
    SYM_R9,
    SYM_R10,
    SYM_R11,
    SYM_R12,
    SYM_R13,
    SYM_R14,
    SYM_R15,
    SYM_RIP,
    SYM_XMM0 = 17,
    SYM_XMM15 = 32,
    SYM_ST0 = 33,
    SYM_ST7 = 40,
    SYM_FS_BASE = 58,
    SYM_GS_BASE = 59,
};

/* The program at one moment, in one frame. Embed it at the start of your own struct. */
struct sym_context {
    /* Reads all `len` bytes; ERR_FAULT where nothing is mapped. */
    struct err *(*read_memory)(struct sym_context *ctx, gaddr addr, void *buf, size_t len);
    /* The first `len` bytes of a register of this frame: up to 8 for general registers, 16 (or 32,
     * 64) for SYM_XMM*, 10 for SYM_ST*. ERR_NOT_FOUND when it is not known in this frame. */
    struct err *(*read_register)(struct sym_context *ctx, unsigned dwarf_reg, void *buf,
                                 size_t len);
    /* Optional: the same at the entry of this frame's function, for DW_OP_entry_value. */
    struct err *(*read_entry_register)(struct sym_context *ctx, unsigned dwarf_reg, void *buf,
                                       size_t len);
    uint64_t bias;       /* of the module asked */
    uint64_t tls_offset; /* likewise, by sym_module_tls_offset() if it is the executable; 0: its
                            thread-local variables cannot be found */
};

/** Bytes below a thread's pointer (FS base) at which its copy of the executable's thread-local
 * variables begins; 0: it has none. So the executable's are laid out (System V psABI and Drepper,
 * "ELF Handling For Thread-Local Storage", 3.4.6); those of libraries are not. */
struct err *sym_module_tls_offset(struct sym_module *m, uint64_t *out) nodiscard;
/** The link-time address of data that the module exports by this name; ERR_NOT_FOUND. */
struct err *sym_exported_object(struct sym_module *m, const char *name, vaddr *out) nodiscard;

/* ---- Types, variables, values ---- */

enum sym_type_kind {
    SYM_VOID,
    SYM_BOOL,
    SYM_INT,
    SYM_UINT,
    SYM_CHAR,
    SYM_FLOAT,
    SYM_COMPLEX,
    SYM_ENUM,
    SYM_POINTER,
    SYM_REFERENCE,
    SYM_MEMBER_POINTER,
    SYM_ARRAY,
    SYM_STRUCT,
    SYM_UNION,
    SYM_CLASS,
    SYM_FUNCTION_TYPE,
    SYM_UNKNOWN_TYPE
};

struct sym_type {
    enum sym_type_kind kind; /* of what is left when typedefs and cv-qualifiers are stripped */
    const char
        *name;     /* as written in C or C++: "struct node *", "const char [16]", "int (*)(void)" */
    uint64_t size; /* bytes; 0 if not known */
    const struct sym_type *target; /* what pointers and references point to, array elements; NULL
                                      for void and others */
    uint64_t count;                /* elements of an array, 0 if not known */
};

struct sym_variable {
    const char *name;            /* NULL if it has none */
    const struct sym_type *type; /* never NULL */
    bool is_parameter;
    bool is_artificial; /* made by the compiler, such as `this` */
    bool has_location;  /* false: optimized out everywhere */
    const char *decl_file;
    unsigned decl_line;
    const struct sym_function *function; /* whose frame holds it; NULL for globals */
    struct sym_die die;
};
struct sym_variables {
    struct sym_variable *items;
    size_t count, cap;
};
void sym_variables_deinit(struct sym_variables *v);

/**
 * Variables in scope at `addr`: parameters first, then locals, outer blocks before inner ones.
 *
 * inlined: which frame of sym_inline_chain, 0 the innermost.
 * Errors: ERR_NOT_FOUND (no debug information, no function there).
 */
struct err *sym_variables_at(struct sym_module *m, vaddr addr, size_t inlined,
                             struct sym_variables *out) nodiscard;
/** A global or static variable by its name ("x", "ns::x"). */
struct err *sym_global_named(struct sym_module *m, const char *name,
                             struct sym_variable *out) nodiscard;

enum sym_where { SYM_IN_MEMORY, SYM_IN_REGISTER, SYM_COMPUTED, SYM_IN_PIECES };

/* A value read at one moment. */
struct sym_value {
    const struct sym_type *type;
    enum sym_where where;
    gaddr address;      /* SYM_IN_MEMORY */
    unsigned dwarf_reg; /* SYM_IN_REGISTER */
    uint8_t *bytes;     /* owned; the first `len` bytes of it */
    size_t len;         /* type->size, but at most SYM_MAX_VALUE */
};
#define SYM_MAX_VALUE (1u << 16)
void sym_value_deinit(struct sym_value *v);

/** The value of a variable when its frame is at `addr`. Errors: as at the top of this file. */
struct err *sym_read_variable(struct sym_module *m, const struct sym_variable *var, vaddr addr,
                              struct sym_context *ctx, struct sym_value *out) nodiscard;
/** A value of `type` at an address of the program. */
struct err *sym_read_at(struct sym_module *m, const struct sym_type *type, gaddr addr,
                        struct sym_context *ctx, struct sym_value *out) nodiscard;

/* A part of a value: a member, an array element, or what a pointer points to. */
struct sym_child {
    char *name;   /* owned: "next", "[3]", "[\"key\"]", "*", "<base> name" */
    char *access; /* owned: an expression of it, in which $ stands for the whole's; NULL: nothing
                     names it */
    struct sym_value value;
    struct err *reason; /* owned: why there is no value; NULL if there is one */
};
struct sym_children {
    struct sym_child *items;
    size_t count, cap;
};
void sym_children_deinit(struct sym_children *c);
/**
 * Parts [first, first + max) of a struct, union, class, array, or pointer; none for others. Of
 * containers of the standard libraries of C++ and Rust they are the elements, of smart pointers
 * what they point to.
 */
struct err *sym_value_children(struct sym_module *m, const struct sym_value *value,
                               struct sym_context *ctx, uint64_t first, size_t max,
                               struct sym_children *out) nodiscard;
/** Has it any? */
bool sym_value_has_children(struct sym_module *m, const struct sym_value *value,
                            struct sym_context *ctx);
/** The expression of a part of what `whole` is the expression of; heap string, NULL if nothing
 * names it. */
char *sym_child_expression(const struct sym_child *c, const char *whole);

/**
 * A value as text in C's notation: -1, 'a', 1.5, RED, 0x55d0 "abc", {a = 1, next = 0x0}; containers
 * as [3]{1, 2, 3} and [1]{"key": 5}, strings as "abc". One line, bounded; nested structs are shown,
 * pointers other than strings are not followed. ctx is used for strings and containers only, and
 * may be NULL.
 */
struct err *sym_format_value(struct sym_module *m, const struct sym_value *value,
                             struct sym_context *ctx, char **text_out) nodiscard;

/* ---- Calls (System V psABI) ---- */

/** The parameters of a function in order. ERR_NOT_FOUND without debug information. */
struct err *sym_function_parameters(struct sym_module *m, const struct sym_function *fn,
                                    struct sym_variables *out) nodiscard;
/** A parameter's value when the context is at the function's first instruction, by the calling
 * convention. */
struct err *sym_read_argument_at_entry(struct sym_module *m, const struct sym_function *fn,
                                       size_t idx, struct sym_context *ctx,
                                       struct sym_value *out) nodiscard;
/** The type of the result; kind SYM_VOID if it has none. ERR_NOT_FOUND without debug information.
 */
struct err *sym_return_type(struct sym_module *m, const struct sym_function *fn,
                            const struct sym_type **out) nodiscard;
/** The result when the context is just after the function's `ret`. Void: ERR_NOT_FOUND. */
struct err *sym_read_return_value(struct sym_module *m, const struct sym_function *fn,
                                  struct sym_context *ctx, struct sym_value *out) nodiscard;

/* ---- Unwinding ---- */

struct sym_registers {
    gaddr cfa;          /* the caller's stack pointer */
    uint64_t value[17]; /* by enum sym_reg, SYM_RAX to SYM_RIP */
    uint32_t known;     /* bit per register; SYM_RIP missing: the outermost frame */
    bool is_signal; /* the frame is a signal handler's trampoline: SYM_RIP is where the program was
                       interrupted, not where a call returns to (whose line is that of SYM_RIP - 1)
                     */
};
/** The caller's registers, by .eh_frame or .debug_frame, of a frame at `addr`. ERR_NOT_FOUND: no
 * unwind information. */
struct err *sym_unwind_step(struct sym_module *m, vaddr addr, struct sym_context *ctx,
                            struct sym_registers *out) nodiscard;

#endif
