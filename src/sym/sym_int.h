/* Inside of the sym room: what a module holds, and what its files offer each other. Everything here
 * is called with the module's lock held. This is the room's door to libelf and libdw. */
#ifndef SYM_SYM_INT_H
#define SYM_SYM_INT_H

#include "sym/sym.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <gelf.h>
#include <pthread.h>

/* How deep entries, types and expressions may nest: DWARF is input. */
enum { MAX_DEPTH = 48 };

/* Memory that lives as long as the module. */
struct sym_pool {
    struct sym_pool_block *blocks;
};
void *sym_pool_alloc(struct sym_pool *p, size_t len) nodiscard; /* zeroed, aligned to 16 */
char *sym_pool_str(struct sym_pool *p, const char *s) nodiscard;
void sym_pool_deinit(struct sym_pool *p);

/* An open-addressing table from a nonzero 64-bit key to a pointer. */
struct table {
    uint64_t *keys;
    void **values;
    size_t count, cap;
};
void *sym_table_get(const struct table *t, uint64_t key);
void sym_table_put(struct table *t, uint64_t key, void *value);
void sym_table_deinit(struct table *t);

/* A function with what libdw needs. die is valid if pub.source is SYM_DWARF. */
struct function {
    struct sym_function pub;
    Dwarf_Die die;
    struct unit *unit;          /* or NULL */
    unsigned preference;        /* among ELF symbols at one address: less is better */
    struct sym_range own_range; /* what pub.ranges points to if there is one */
};
static inline const struct function *function_of(const struct sym_function *f)
{
    return (const struct function *)f; // pub is the first member
}

struct function_range {
    vaddr start, end;
    struct function *function;
};
struct function_table {
    struct function_range *items; /* by start */
    size_t count, cap;
};
/** The innermost range of the table that holds `addr`, or NULL. */
const struct function *function_table_find(const struct function_table *t, vaddr addr);
void function_table_sort(struct function_table *t);

struct row {
    vaddr start, end;
    const char *file; /* interned */
    unsigned line;
    uint16_t column;
    bool is_stmt, prologue_end;
    uint32_t number; /* among the unit's rows */
};
struct row_list {
    struct row *items;
    size_t count, cap;
};

/* What a pass over a unit's entries finds (scan.c). Offsets are from the unit's own entry. */
struct scan_scope {
    uint32_t off, parent; /* of a namespace or type; the scope around it, as in scan_function */
};
struct scan_function {
    uint32_t off, scope; /* scope: its number + 1; 0: none, the unit or a function */
};
struct scan_call {
    uint32_t origin, off; /* of the inlined function's entry, of the call's */
};
struct scan_far_call {
    uintptr_t origin; /* address of an entry in another unit */
    uint32_t off;
};
struct unit_scan {
    VEC(struct scan_scope) scopes;
    VEC(struct scan_function) functions,
        abstracts;               /* with code; without, that may have been inlined */
    VEC(struct scan_call) calls; /* inlined ones, by origin */
    VEC(struct scan_far_call) far_calls;
    VEC(uint32_t) names; /* hashes of names of types and variables, rising */
    bool names_unknown;  /* there are others */
};

/* A function as those units have it that inlined calls of it: an entry without code. Its name is
 * read anew when it is needed: there are many. */
struct abstract {
    uint64_t name_hash; /* of the full and demangled name */
    uint32_t unit, off, scope;
};

/* A compilation unit. Its parts are loaded when first asked for. */
struct unit {
    Dwarf_Die die;       /* where its entries are: for split DWARF in the .dwo */
    Dwarf_Die line_die;  /* where its line table hangs */
    const char *missing; /* why `die` has no entries (a .dwo that was not found), or NULL */
    bool ranges_known, functions_loaded, rows_loaded, scanned;
    struct unit_scan scan;
    struct function_table functions;
    struct row_list rows; /* by start */
};

/* The files that a unit's line program names, by its numbers. */
struct file_table {
    const char **items; /* interned; NULL: there is none of that number */
    size_t count, cap;
};

/* The rows of one file in a unit that has some. */
struct file_rows {
    struct unit *unit;
    struct row_list rows;
};

struct unit_range {
    vaddr start, end;
    struct unit *unit;
};

struct search_name {
    size_t off;                      /* in search.text */
    const struct function *function; /* or NULL */
    const char *file;                /* for files */
    size_t abstract; /* neither: number of a function of which all calls were inlined */
};

/* How far prepare() is. */
struct preparing {
    bool begun;
    unsigned stage;
    size_t next;                        /* of the stage's units or other things */
    struct table starts, named, hashes; /* functions by start + 1; hashes of names that are in the
                                           text; of linkers' names, by their places */
};

/* The names of the .dwo files in the trace, behind the strings of .debug_str. */
struct dwo_names {
    uint8_t *strings; /* what libdw reads in place of .debug_str; NULL: there are none */
    VEC(struct dwo_name {
        uint64_t id;
        size_t off; /* in `strings` */
    }) names;       /* by id */
};

struct sym_module {
    pthread_mutex_t lock;
    char *path, *debug_dir, *build_id;
    char *origin;                      /* where the file was when it was recorded, or NULL */
    char *system_dirs;                 /* A:B, in place of /usr/lib/debug; or NULL */
    char *comp_dir;                    /* in place of what the units say, or NULL */
    char *debug_path, *alternate_path; /* of the files opened, or NULL */
    struct dwo_names dwo_names;
    int fd, debug_fd, alternate_fd;
    Elf *elf, *debug_elf;
    uint8_t *mini_image; /* .gnu_debugdata unpacked */
    size_t mini_len;
    Elf *mini_elf;
    uint8_t *inflated_image; /* debug information that was compressed */
    Elf *inflated_elf;
    Dwarf *dwarf, *alternate; /* alternate: what dwz shares between files */
    bool dwarf_tried, symbols_loaded, units_loaded, cfi_loaded;
    char *no_dwarf;
    VEC(struct sym_range) code; /* executable segments */

    struct sym_pool pool;
    const char *row_file; /* the file whose rows are kept, the last that was asked about; or NULL */
    VEC(struct file_rows) file_rows;
    struct table file_tables;     /* address of a unit's entry -> struct file_table * */
    struct table files_by_hash;   /* hash of a path, probed on -> interned path */
    VEC(const char *) file_names; /* all interned file names; sorted when file_list is loaded */
    bool file_list_loaded;
    const char **file_list; /* a sorted copy of file_names, in the pool */

    struct unit *units;
    size_t unit_count;
    VEC(struct unit_range) unit_ranges;          /* by start */
    bool has_rangeless_units, ranges_from_index; /* .debug_aranges */

    bool clones_loaded, clones_packed; /* packed: there may be others */
    struct table clones;               /* addresses + 1 of symbols that look like a clone's */
    struct function_table symbols;
    VEC(struct function *) symbol_list; /* all, aliases included */
    struct table types;                 /* address of the type's entry -> struct type * */
    struct table scopes;       /* address of a type's entry -> the name of its namespace or class */
    struct table scoped_units; /* units whose types are in `scopes` and `complete` */
    struct table complete; /* hash of a type's full name -> Dwarf_Die * of a complete definition */

    struct table demangled; /* address of a mangled name in the file -> what it means */
    struct preparing preparing;
    VEC(struct abstract) abstracts;  /* of all units in order */
    struct table abstract_functions; /* number of one + 1 -> struct function *, without ranges */

    struct buf search_text; /* lower-case names, NUL after each */
    VEC(struct search_name) search_names;

    Dwarf_CFI *eh_frame, *debug_frame;
};

static inline void unlock_module(struct sym_module **m)
{
    pthread_mutex_unlock(&(*m)->lock);
}
static inline struct sym_module *lock_module(struct sym_module *m)
{
    pthread_mutex_lock(&m->lock);
    return m;
}
/* Holds the lock until the end of the scope. */
#define HOLD(m) \
    cleanup(unlock_module) struct sym_module *held __attribute__((unused)) = lock_module(m)

/* ---- module.c, debug_file.c ---- */
/** Finds and opens the DWARF once. m->dwarf stays NULL if there is none, and m->no_dwarf says why.
 */
void load_dwarf(struct sym_module *m);
/** The DWARF of a file that has it compressed, in a file in memory at *image_out, which is to be
 * freed after it. NULL: use the file itself. */
Elf *inflate_dwarf(Elf *elf, uint8_t **image_out) nodiscard;
/** As load_dwarf; ERR_NOT_FOUND if there is none. */
struct err *need_dwarf(struct sym_module *m) nodiscard;
bool is_code(const struct sym_module *m, vaddr addr);
/** The section's header and contents by name; false if it has none. */
bool find_section(Elf *elf, const char *name, GElf_Shdr *header, Elf_Data **data_out);
char *hex_of(const uint8_t *data, size_t len) nodiscard;
char *read_build_id(Elf *elf) nodiscard; /* hex, or NULL */
/** ERR_FORMAT with libdw's last message. */
struct err *err_dwarf(const struct sym_module *m, const char *what) nodiscard;

/** The directory of the file as it was recorded; heap string. */
char *origin_dir(const struct sym_module *m) nodiscard;

/* ---- split.c: split debug information (.dwo files) ---- */
/** A section's bytes as libdw has them: unpacked, and the very ones that it reads. NULL: none. */
Elf_Data *unpacked_section(Elf *elf, const char *name);
/** Makes room in .debug_str for the names of the .dwo files in the trace. Before dwarf_begin_elf().
 */
void prepare_dwo_names(struct sym_module *m, Elf *elf);
/** Lets libdw find those in the trace. After dwarf_begin_elf(). */
void redirect_dwos(struct sym_module *m);

/* ---- symbols.c ---- */
void load_symbols(struct sym_module *m);
/** Whether the symbol at a function's start is of a clone, whose parameters are its own. */
bool is_clone(struct sym_module *m, vaddr start);
/** Demangled, in the pool, once for each place of a name; `name` itself if it is not mangled: it
 * lives as long as the module, in its files. */
const char *demangle(struct sym_module *m, const char *name);
/** The same as a heap string, not kept. */
char *demangled(const char *name);

/* ---- unit.c ---- */
struct err *load_units(struct sym_module *m) nodiscard;
void load_functions(struct sym_module *m, struct unit *u);
/** Whether names are qualified by namespaces and stand without `struct`: C++, and what resembles
 * it. */
bool is_cplusplus(int language);
/** Of a unit: it is read where it is needed, for it is dear. */
int unit_language(const struct unit *u);
/** The unit whose code holds `addr`, or NULL. */
struct unit *unit_at(struct sym_module *m, vaddr addr);
/** The function of a unit at `addr`, or NULL. */
const struct function *dwarf_function_at(struct sym_module *m, vaddr addr);
/** The name to show for a function's or inlined call's entry. */
const char *die_function_name(struct sym_module *m, Dwarf_Die *die, const char *scope);
/** The same of an entry in one of the unit's scopes (struct scan_function). */
const char *scanned_function_name(struct sym_module *m, const struct unit *u, Dwarf_Die *die,
                                  uint32_t scope);
/** The linker's name of a function's entry, or NULL. */
const char *linkage_name(Dwarf_Die *die);
static inline bool is_mangled(const char *name)
{
    return name[0] == '_' && (name[1] == 'Z' || name[1] == 'R');
}
/** The full name of a scope, "a::b"; heap string. */
char *scope_name(const struct unit *u, uint32_t scope);

/* ---- scan.c ---- */
/** Fills the unit's `scan`, once. */
void scan_unit(struct unit *u);
/** The same of units from `first` on, of that many bytes or a little more, by as many threads as
 * there are processors. Returns the number of the next one. Requires: load_units(). */
size_t scan_units(struct sym_module *m, size_t first, size_t most_bytes);
void scan_all(struct sym_module *m);
void scan_deinit(struct unit_scan *s);
/** May the unit have a type that is defined, an enumerator or a variable of that name (without
 * scopes)? */
bool may_name(struct unit *u, const char *base_name);
/** An entry by its offset. */
static inline Dwarf_Die die_at(const struct unit *u, uint32_t off)
{
    return (Dwarf_Die){.addr = (uint8_t *)u->die.addr + off, .cu = u->die.cu};
}

/* ---- prepare.c ---- */
/** Does all that is needed for the purpose. SYM_FOR_CALLS: fills `abstracts`. SYM_FOR_SEARCH: also
 * the text. */
void prepare(struct sym_module *m, enum sym_purpose purpose);
void preparing_deinit(struct preparing *p);
static inline char lower_letter(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* ---- search.c ---- */
/** All functions whose shown name contains the text in any case, those that were inlined
 * everywhere, too; some more than once. false ends it. */
void each_function(struct sym_module *m, const char *text,
                   bool (*visit)(void *arg, const struct sym_function *f), void *arg);

/* ---- inlined.c ---- */
/** The name of one, as sym_function.name; heap string. */
char *abstract_name(struct sym_module *m, const struct abstract *a);
/** One of them as a function without code. */
const struct function *abstract_function(struct sym_module *m, size_t idx);

/* ---- line_program.c ---- */
/** The files of a unit (its entry, or that of its skeleton). Requires: load_units(). */
const struct file_table *file_table_of(struct sym_module *m, Dwarf_Die *unit);
/** The rows of a unit, of code that there is, by address; the caller frees them. */
void read_rows(struct sym_module *m, struct unit *u, struct row_list *out);

/* ---- line.c ---- */
void load_file_list(struct sym_module *m);
void forget_file_rows(struct sym_module *m);
/** The row to show for `addr`, or NULL. end_out: where the addresses of the line end (r->end is
 * r->start for an empty row). */
const struct row *row_at(struct sym_module *m, vaddr addr, vaddr *end_out);
/** The interned, normalised form of a path. */
const char *intern_file(struct sym_module *m, const char *path);
/** The same of a name in a unit compiled in comp_dir (or NULL): absolute if that can be told. */
const char *intern_source(struct sym_module *m, const char *comp_dir, const char *name);
const char *unit_file(struct sym_module *m, struct unit *u, uint64_t idx);

/* ---- die.c: small reads of one entry, never failing loudly ---- */
bool die_child(Dwarf_Die *die, Dwarf_Die *out);
/** The next sibling, which lies after `die` (so that walks end). in and out may be the same. */
bool die_sibling(Dwarf_Die *die, Dwarf_Die *out);
bool die_unsigned(Dwarf_Die *die, unsigned name, uint64_t *out);
/** The value of an enumerator: signed in the forms that are; compilers write 200 in one byte
 * (DW_FORM_data1). */
bool die_enumerator(Dwarf_Die *die, int64_t *out);
bool die_flag(Dwarf_Die *die, unsigned name);
const char *die_string(Dwarf_Die *die, unsigned name);
/** The entry that attribute `name` refers to. */
bool die_ref(Dwarf_Die *die, unsigned name, Dwarf_Die *out);
bool die_type(Dwarf_Die *die, Dwarf_Die *out);
void die_declaration(struct sym_module *m, Dwarf_Die *die, const char **file_out,
                     unsigned *line_out);

/* ---- type.c ---- */
struct type {
    struct sym_type pub;
    Dwarf_Die die; /* the type with typedefs and qualifiers stripped; meaningless for void */
    bool has_die;
    bool is_char;       /* a character type: arrays of it and pointers to it are strings */
    unsigned dimension; /* of an array's entry: `int a[2][3]` has elements of the same entry's
                           dimension 1 */
};
static inline const struct type *type_of(const struct sym_type *t)
{
    return (const struct type *)t; // pub is the first member
}
/** The type described by an entry; NULL is void. */
const struct sym_type *type_from_die(struct sym_module *m, Dwarf_Die *die);
/** The type an entry's DW_AT_type gives. */
const struct sym_type *type_of_die(struct sym_module *m, Dwarf_Die *die);
/** "a::b<int>", NULL if it has no name; heap string. */
char *type_full_name(struct sym_module *m, Dwarf_Die *die);
/** The entry of a complete type for a declaration, if the module has one; else unchanged. */
void complete_type(struct sym_module *m, Dwarf_Die *die);

/* ---- variable.c ---- */
void variable_from_die(struct sym_module *m, Dwarf_Die *die, const struct sym_function *fn,
                       struct sym_variable *out);
/** A variable with a location below `parent` (a unit's entry, whose scope is ""), by its full name.
 * depth: 0 */
bool find_global(struct sym_module *m, Dwarf_Die *parent, const char *scope, const char *name,
                 Dwarf_Die *out, unsigned depth);
/** The inlined calls that hold `addr`, outermost first, in a vector. */
struct dies {
    Dwarf_Die *items;
    size_t count, cap;
};
void inlined_at(struct sym_module *m, const struct function *fn, vaddr addr, struct dies *out);

/* ---- location.c: DWARF expressions ---- */

enum location_kind { LOCATION_MEMORY, LOCATION_REGISTER, LOCATION_VALUE, LOCATION_BYTES };

/* Where (a piece of) a value is. */
struct location {
    enum location_kind kind;
    uint64_t value;       /* the address, register number, or value */
    const uint8_t *bytes; /* LOCATION_BYTES: borrowed from the file */
    size_t bytes_len;
};

/* The frame in which an expression is evaluated. */
struct frame {
    struct sym_module *m;
    struct sym_context *ctx;
    const struct function *function; /* for the frame base; or NULL */
    vaddr addr;
    bool has_cfa; /* cfa given: unwind rules must not ask for it again */
    gaddr cfa;
    bool has_object; /* DW_OP_push_object_address */
    gaddr object;
};

/* One part of an object: `bits` at bit `bit_off` of the location; the whole object if bits is 0. */
struct piece {
    struct location location;
    bool is_missing; /* optimized out */
    uint64_t bits, bit_off;
};
struct pieces {
    struct piece *items;
    size_t count, cap;
};

/** Evaluates a location description. attr: where it comes from, for operations that need it; or
 * NULL (unwind rules). */
struct err *location_evaluate(struct frame *f, Dwarf_Attribute *attr, const Dwarf_Op *ops,
                              size_t count, const uint64_t *initial, struct pieces *out) nodiscard;
/** As location_evaluate, when the answer must be one location; a register's or value's location is
 * reduced to its number. */
struct err *location_evaluate_number(struct frame *f, Dwarf_Attribute *attr, const Dwarf_Op *ops,
                                     size_t count, const uint64_t *initial,
                                     uint64_t *out) nodiscard;
/** The expression valid at f->addr of a location attribute, evaluated. ERR_NOT_FOUND: optimized out
 * there. */
struct err *location_evaluate_attribute(struct frame *f, Dwarf_Attribute *attr,
                                        struct pieces *out) nodiscard;

/* ---- unwind.c ---- */
struct err *frame_cfa(struct frame *f, gaddr *out) nodiscard;
/** The rules at f->addr; free() them. */
struct err *find_unwind_rules(struct frame *f, Dwarf_Frame **out) nodiscard;

/* ---- type.c, with a frame ---- */
/** For an array whose length is computed at run time: the type with that length. Others: the type
 * itself. */
struct err *sized_array(struct frame *f, const struct sym_type *type,
                        const struct sym_type **out) nodiscard;

/* ---- value.c ---- */
struct err *read_word(struct sym_context *ctx, unsigned dwarf_reg, uint64_t *out) nodiscard;
/** Collects pieces into a value of `type`. */
struct err *value_from_pieces(struct frame *f, const struct sym_type *type,
                              const struct pieces *pieces, struct sym_value *out) nodiscard;

/* One member of a struct, for children, formatting and argument classes. */
struct member {
    const char *name; /* NULL: anonymous struct or union */
    bool is_base;
    const struct sym_type *type;
    uint64_t byte_off; /* from the start of the struct */
    /* Bitfields: little-endian bits from byte_off; bit_size 0 otherwise. */
    unsigned bit_off, bit_size;
    bool is_virtual; /* a virtual base: byte_off is not known statically */
};
struct members {
    struct member *items;
    size_t count, cap;
};
void members_of(struct sym_module *m, const struct sym_type *type, struct members *out);
static inline bool is_record(const struct sym_type *t)
{
    return t->kind == SYM_STRUCT || t->kind == SYM_CLASS || t->kind == SYM_UNION;
}
/** A member by its name, its own ones first, then those of bases and of unnamed members. byte_off
 * is from the start of `type`. depth: 0 */
bool find_member(struct sym_module *m, const struct sym_type *type, const char *name,
                 struct member *out, unsigned depth);
/** The integer in `len` (1 to 16; more is cut) little-endian bytes, sign-extended if the type is
 * signed. */
int64_t load_integer(const uint8_t *bytes, size_t len, bool is_signed);
/** A part of a value, at `off` bytes: of its bytes, or read anew. ctx may be NULL. */
struct err *part_of(struct sym_module *m, const struct sym_value *whole,
                    const struct sym_type *type, uint64_t off, struct sym_context *ctx,
                    struct sym_value *out) nodiscard;

/* ---- container.c ---- */
enum container_shape {
    SHAPE_NONE,  /* what it says is all that is known */
    SHAPE_TEXT,  /* characters */
    SHAPE_ALIAS, /* one thing, which it is shown as */
    SHAPE_EMPTY, /* an optional without a value, a variant without data: `label` is all there is to
                    see */
    SHAPE_ARRAY,
    SHAPE_BITS,
    SHAPE_DEQUE,
    SHAPE_LIST,
    SHAPE_TREE,
    SHAPE_MEMBERS /* elements */
};

/* What a value of a standard library is to its users. */
struct container {
    enum container_shape shape;
    bool pairs;                     /* the elements are pairs of a key and a value */
    const char *label;              /* of a variant: its name; borrowed */
    const struct sym_type *element; /* type of elements, characters, or of the one thing */
    uint64_t count;                 /* elements, characters */
    gaddr at;                       /* the first of them; of lists and trees its node */
    uint64_t off;    /* of the element in its node; of the one thing in the value; of bits the first
                        one's number */
    gaddr end, node; /* of a deque: the end of the first block, and where its address stands */
    struct member
        parts[16]; /* SHAPE_MEMBERS: a tuple's elements, which are elements of the value */
    char path[64]; /* members that lead to the one thing, or to the pointer at the first element;
                      "": not known */
};
/** False: no container that is known, or its contents make no sense (not constructed yet, say):
 * then it is the struct that it is. */
bool container_of(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                  struct container *out);
/** Of a type whose elements lie in a row (vectors, strings, arrays): the member that is the array
 * or points to the first, and its path of names, "a.b"; static. */
bool container_data(struct sym_module *m, const struct sym_type *type, struct member *out,
                    const char **path_out);
/** Elements [first, first + max), as sym_value_children(). Not for aliases and texts. */
struct err *container_children(struct sym_module *m, const struct sym_value *v,
                               const struct container *c, struct sym_context *ctx, uint64_t first,
                               size_t max, struct sym_children *out) nodiscard;

#endif
