/* Arguments and results by the calling convention: System V psABI for x86-64, section 3.2.3.
 *
 * At a function's first instruction, -O0 debug information points to stack slots that the prologue
 * has not filled yet; the arguments are still where the caller put them. Values up to 16 bytes are
 * classified by eightbytes: INTEGER ones take the next of rdi, rsi, rdx, rcx, r8, r9; SSE ones the
 * next of xmm0 to xmm7; a value for which not enough registers are left, and everything of class
 * MEMORY, is on the stack, from rsp + 8 up. Optimised code has location lists that are right at the
 * entry, and whose clones (.constprop, .isra) have parameters of their own: there the list is asked
 * first. */
#include "sym/expression_int.h"

enum arg_class { CLASS_NONE, CLASS_INTEGER, CLASS_SSE, CLASS_SSEUP, CLASS_X87, CLASS_MEMORY };

struct classes {
    enum arg_class eightbyte[8];
    unsigned count;
    bool by_reference; /* C++: a copy is passed by its address */
};

static enum arg_class merge(enum arg_class a, enum arg_class b)
{
    if (a == b || b == CLASS_NONE)
        return a;
    if (a == CLASS_NONE)
        return b;
    if (a == CLASS_MEMORY || b == CLASS_MEMORY || a == CLASS_X87 || b == CLASS_X87)
        return CLASS_MEMORY;
    return a == CLASS_INTEGER || b == CLASS_INTEGER ? CLASS_INTEGER : CLASS_SSE;
}

static void add_class(struct classes *c, uint64_t off, uint64_t size, enum arg_class kind)
{
    for (uint64_t at = off / 8; size && at <= (off + size - 1) / 8 && at < c->count; at++)
        c->eightbyte[at] = merge(c->eightbyte[at], kind);
}

static void classify_part(struct sym_module *m, const struct sym_type *type, uint64_t off,
                          struct classes *c, unsigned depth);

/* A struct with a member that is not (packed) is in memory. */
static bool is_aligned(const struct sym_type *type, uint64_t off)
{
    uint64_t size = type->size;
    return !size || size > 16 || (size & (size - 1)) != 0 || off % size == 0;
}

static void classify_members(struct sym_module *m, const struct sym_type *type, uint64_t off,
                             struct classes *c, unsigned depth)
{
    struct members members;
    members_of(m, type, &members);
    vec_each (member, &members) {
        if (member->is_virtual)
            c->by_reference = true;
        if (member->bit_size)
            add_class(c, off + member->byte_off, (member->bit_off + member->bit_size + 7) / 8,
                      CLASS_INTEGER);
        else
            classify_part(m, member->type, off + member->byte_off, c, depth + 1);
    }
    vec_deinit(&members);
}

static void classify_part(struct sym_module *m, const struct sym_type *type, uint64_t off,
                          struct classes *c, unsigned depth)
{
    if (depth > MAX_DEPTH || off > 64)
        return;
    switch (type->kind) {
    case SYM_FLOAT:
        add_class(c, off, type->size,
                  !is_aligned(type, off) ? CLASS_MEMORY
                  : type->size > 8       ? CLASS_X87
                                         : CLASS_SSE); // __float128 is rare: taken for x87
        break;
    case SYM_COMPLEX:
        add_class(c, off, type->size, type->size > 16 ? CLASS_X87 : CLASS_SSE);
        break;
    case SYM_ARRAY: {
        Dwarf_Die die = type_of(type)->die;
        if (die_flag(&die, DW_AT_GNU_vector)) {
            add_class(c, off, 8, CLASS_SSE);
            add_class(c, off + 8, type->size > 8 ? type->size - 8 : 0, CLASS_SSEUP);
            break;
        }
        for (uint64_t i = 0; i < type->count && i < 64; i++)
            classify_part(m, type->target, off + i * type->target->size, c, depth + 1);
        break;
    }
    case SYM_STRUCT:
    case SYM_CLASS:
    case SYM_UNION:
        classify_members(m, type, off, c, depth);
        break;
    default:
        add_class(c, off, type->size, is_aligned(type, off) ? CLASS_INTEGER : CLASS_MEMORY);
        break;
    }
}

/* Is it the copy or move constructor of the class: T(T &), T(const T &), T(T &&)? */
static bool is_copy_constructor(struct sym_module *m, Dwarf_Die *die, const struct sym_type *of)
{
    Dwarf_Die child;
    const struct sym_type *second = NULL;
    unsigned count = 0;
    if (!die_child(die, &child))
        return false;
    do {
        if (dwarf_tag(&child) != DW_TAG_formal_parameter)
            continue;
        if (count++ == 1)
            second = type_of_die(m, &child);
    } while (die_sibling(&child, &child));
    return count == 2 && second->kind == SYM_REFERENCE && second->target &&
           type_of(second->target)->has_die &&
           type_of(second->target)->die.addr == type_of(of)->die.addr;
}

/* Has the class, for itself, a destructor or a constructor of copies that is not trivial? (Itanium
 * C++ ABI 1.1, "non-trivial for the purposes of calls"). Those that the compiler makes are so if
 * the class has virtual functions, or by its members. */
static bool has_own_copy(struct sym_module *m, const struct sym_type *type)
{
    Dwarf_Die die = type_of(type)->die, child;
    const char *class = dwarf_diename(&die);
    size_t len = class ? strcspn(class, "<") : 0;
    if (!die_child(&die, &child))
        return false;
    do {
        uint64_t virtuality = 0, defaulted = 0;
        const char *name = dwarf_tag(&child) == DW_TAG_subprogram ? dwarf_diename(&child) : NULL;
        if (!name)
            continue;
        if (die_unsigned(&child, DW_AT_virtuality, &virtuality) && virtuality != DW_VIRTUALITY_none)
            return true;
        bool destroys = name[0] == '~',
             copies = len && strncmp(name, class, len) == 0 && (!name[len] || name[len] == '<');
        die_unsigned(&child, DW_AT_defaulted, &defaulted);
        if ((!destroys && !copies) || die_flag(&child, DW_AT_artificial) ||
            defaulted == DW_DEFAULTED_in_class)
            continue;
        if (destroys || is_copy_constructor(m, &child, type))
            return true;
    } while (die_sibling(&child, &child));
    return false;
}

/* Whether C++ passes values of a class by the address of a copy. */
static bool is_by_reference(struct sym_module *m, const struct sym_type *type, unsigned depth)
{
    Dwarf_Die die = type_of(type)->die;
    uint64_t convention;
    if (type->kind == SYM_ARRAY && type->target && depth < MAX_DEPTH)
        return is_by_reference(m, type->target, depth + 1);
    if (!is_record(type) || !type_of(type)->has_die || depth >= MAX_DEPTH)
        return false;
    if (die_unsigned(&die, DW_AT_calling_convention, &convention))
        return convention == DW_CC_pass_by_reference;
    if (has_own_copy(m, type)) // not all compilers say
        return true;
    struct members members;
    bool found = false;
    members_of(m, type, &members);
    for (size_t i = 0; i < members.count && !found; i++)
        found = members.items[i].is_virtual || is_by_reference(m, members.items[i].type, depth + 1);
    vec_deinit(&members);
    return found;
}

static void classify(struct sym_module *m, const struct sym_type *type, struct classes *c)
{
    *c = (struct classes){.count = (unsigned)(type->size > 64 ? 8 : (type->size + 7) / 8)};
    bool is_class = type->kind == SYM_STRUCT || type->kind == SYM_CLASS || type->kind == SYM_UNION;
    if (is_class && is_by_reference(m, type, 0)) {
        c->by_reference = true;
        c->count = 1;
        c->eightbyte[0] = CLASS_INTEGER;
        return;
    }
    classify_part(m, type, 0, c, 0);
    bool in_memory = type->size > 64;
    for (unsigned i = 0; i < c->count; i++) {
        in_memory = in_memory || c->eightbyte[i] == CLASS_MEMORY;
        // More than two eightbytes stay in a register only as one vector.
        in_memory = in_memory || (c->count > 2 && c->eightbyte[i] != (i ? CLASS_SSEUP : CLASS_SSE));
    }
    if (c->count && c->eightbyte[0] == CLASS_X87) { // a struct of long doubles, complex long double
        in_memory = false;
        for (unsigned i = 0; i < c->count; i++)
            c->eightbyte[i] = CLASS_X87;
    }
    if (in_memory)
        c->eightbyte[0] = CLASS_MEMORY;
}

/* ---- Arguments ---- */

struct err *sym_function_parameters(struct sym_module *m, const struct sym_function *fn,
                                    struct sym_variables *out)
{
    HOLD(m);
    if (fn->source != SYM_DWARF) {
        TRY(need_dwarf(m));
        return err_new(ERR_NOT_FOUND, "%s: no debug information for %s", m->path, fn->name);
    }
    struct sym_variables found = {0};
    Dwarf_Die parent = function_of(fn)->die, die;
    for (int pass = 0; pass < 2 && !found.count; pass++) {
        if (die_child(&parent, &die))
            do {
                if (dwarf_tag(&die) == DW_TAG_formal_parameter && found.count < 256)
                    variable_from_die(m, &die, fn, vec_add(&found));
            } while (die_sibling(&die, &die));
        // A clone may have lost all of them: name at least those of the original.
        if (!die_ref(&parent, DW_AT_abstract_origin, &parent))
            break;
    }
    *out = found;
    return NULL;
}

struct err *sym_return_type(struct sym_module *m, const struct sym_function *fn,
                            const struct sym_type **out)
{
    HOLD(m);
    if (fn->source != SYM_DWARF) {
        TRY(need_dwarf(m));
        return err_new(ERR_NOT_FOUND, "%s: no debug information for %s", m->path, fn->name);
    }
    Dwarf_Die die = function_of(fn)->die;
    *out = type_of_die(m, &die);
    return NULL;
}

/* What arguments have used up so far. */
struct used {
    unsigned integers, vectors;
    uint64_t stack;
};

static const unsigned char argument_regs[] = {SYM_RDI, SYM_RSI, SYM_RDX, SYM_RCX, SYM_R8, SYM_R9};
enum { INTEGER_ARGUMENTS = sizeof(argument_regs), VECTOR_ARGUMENTS = 8 };

static uint64_t alignment_of(struct sym_module *m, const struct sym_type *type, unsigned depth)
{
    Dwarf_Die die = type_of(type)->die;
    uint64_t align = 1;
    if (type_of(type)->has_die && die_unsigned(&die, DW_AT_alignment, &align) && align)
        return align;
    if (depth > MAX_DEPTH)
        return 1;
    if (type->kind == SYM_ARRAY && type->target)
        return alignment_of(m, type->target, depth + 1);
    if (!is_record(type))
        return type->kind == SYM_COMPLEX ? type->size / 2 : type->size;
    struct members members;
    members_of(m, type, &members);
    align = 1;
    vec_each (member, &members) {
        uint64_t of_member = alignment_of(m, member->type, depth + 1);
        if (of_member > align && member->byte_off % of_member == 0)
            align = of_member;
    }
    vec_deinit(&members);
    return align;
}

/* On the stack. */
static uint64_t alignment(struct sym_module *m, const struct sym_type *type,
                          const struct classes *c)
{
    if (c->count > 2 && c->eightbyte[1] == CLASS_SSEUP)
        return type->size;
    uint64_t align = alignment_of(m, type, 0);
    return align > 8 && (align & (align - 1)) == 0 ? align : 8;
}

/* Gives one argument its places, as pieces. */
static void place_argument(struct sym_module *m, const struct sym_type *type,
                           const struct classes *c, struct used *used, gaddr stack,
                           struct pieces *out)
{
    unsigned integers = 0, vectors = 0;
    bool in_memory = !c->count || c->eightbyte[0] == CLASS_MEMORY || c->eightbyte[0] == CLASS_X87;
    for (unsigned i = 0; i < c->count; i++) {
        integers += c->eightbyte[i] == CLASS_INTEGER;
        vectors += c->eightbyte[i] == CLASS_SSE;
    }
    if (in_memory || used->integers + integers > INTEGER_ARGUMENTS ||
        used->vectors + vectors > VECTOR_ARGUMENTS) {
        uint64_t size = c->by_reference ? 8 : type->size,
                 align = c->by_reference ? 8 : alignment(m, type, c);
        used->stack = (used->stack + align - 1) & ~(align - 1);
        struct location l = {.kind = LOCATION_MEMORY, .value = stack + used->stack};
        vec_push(out, (struct piece){.location = l});
        used->stack += (size + 7) & ~7ull;
        return;
    }
    for (unsigned i = 0; i < c->count; i++) {
        struct location l = {.kind = LOCATION_REGISTER};
        uint64_t bits = 64;
        if (c->eightbyte[i] == CLASS_INTEGER)
            l.value = argument_regs[used->integers++];
        else if (c->eightbyte[i] == CLASS_SSE)
            l.value = SYM_XMM0 + used->vectors++;
        else
            continue; // the upper part of a vector; padding
        while (i + 1 < c->count && c->eightbyte[i + 1] == CLASS_SSEUP) {
            bits += 64;
            i++;
        }
        vec_push(out, (struct piece){.location = l, .bits = bits});
    }
    if (out->count == 1)
        out->items[0].bits = 0; // the whole value
}

static bool has_location_list(const struct sym_variable *v)
{
    Dwarf_Die die;
    Dwarf_Attribute attr;
    memcpy(&die, &v->die, sizeof(die));
    if (!dwarf_attr_integrate(&die, DW_AT_location, &attr))
        return false;
    unsigned form = dwarf_whatform(&attr);
    return form == DW_FORM_sec_offset || form == DW_FORM_loclistx || form == DW_FORM_data4 ||
           form == DW_FORM_data8;
}

/* Where the calling convention puts an argument. stack: where those in memory begin. */
static struct err *find_argument(struct sym_module *m, const struct sym_function *fn,
                                 const struct sym_variables *all, size_t idx, gaddr stack,
                                 struct pieces *out, bool *by_reference_out)
{
    const struct sym_type *result;
    struct classes c;
    struct used used = {0};
    *out = (struct pieces){0};
    TRY(sym_return_type(m, fn, &result));
    classify(m, result, &c);
    if (c.by_reference || (c.count && c.eightbyte[0] == CLASS_MEMORY))
        used.integers = 1; // rdi: where the result goes
    for (size_t i = 0; i <= idx; i++) {
        out->count = 0;
        classify(m, all->items[i].type, &c);
        place_argument(m, all->items[i].type, &c, &used, stack, out);
    }
    *by_reference_out = c.by_reference;
    return NULL;
}

struct err *argument_compile(struct sym_module *m, const struct sym_function *fn, size_t idx,
                             struct place *out)
{
    HOLD(m);
    cleanup(sym_variables_deinit) struct sym_variables all = {0};
    TRY(sym_function_parameters(m, fn, &all));
    if (idx >= all.count || is_clone(m, fn->start) || has_location_list(&all.items[idx]))
        return err_new(ERR_NOT_FOUND, "%s: its debug information tells where parameter %zu is",
                       fn->name, idx + 1);
    struct pieces places;
    bool by_reference;
    TRY(find_argument(m, fn, &all, idx, 8, &places, &by_reference));
    struct err *e = place_of_arguments(&places, all.items[idx].type->size, by_reference, out);
    vec_deinit(&places);
    return e;
}

/* By the calling convention. */
static struct err *read_by_convention(struct sym_module *m, const struct sym_function *fn,
                                      const struct sym_variables *all, size_t idx,
                                      struct sym_context *ctx, struct sym_value *out)
{
    gaddr rsp;
    bool by_reference;
    struct pieces places;
    TRY(read_word(ctx, SYM_RSP, &rsp));
    TRY(find_argument(m, fn, all, idx, rsp + 8, &places, &by_reference));
    struct frame f = {.m = m, .ctx = ctx, .addr = fn->start};
    const struct sym_type *type = all->items[idx].type;
    struct err *e = NULL;
    if (by_reference) {
        gaddr addr = 0;
        const struct location *l = &places.items[0].location;
        e = l->kind == LOCATION_REGISTER ? read_word(ctx, (unsigned)l->value, &addr)
                                         : ctx->read_memory(ctx, l->value, &addr, 8);
        if (!e)
            e = sym_read_at(m, type, addr, ctx, out);
    } else if (!places.count) {
        e = err_new(ERR_NOT_FOUND, "%s has no value", type->name);
    } else {
        e = value_from_pieces(&f, type, &places, out);
    }
    vec_deinit(&places);
    return e;
}

struct err *sym_read_argument_at_entry(struct sym_module *m, const struct sym_function *fn,
                                       size_t idx, struct sym_context *ctx, struct sym_value *out)
{
    HOLD(m);
    cleanup(sym_variables_deinit) struct sym_variables all = {0};
    TRY(sym_function_parameters(m, fn, &all));
    if (idx >= all.count)
        return err_new(ERR_NOT_FOUND, "%s has no parameter %zu", fn->name, idx + 1);
    bool clone = is_clone(m, fn->start);
    if (clone || has_location_list(&all.items[idx])) {
        struct err *e = sym_read_variable(m, &all.items[idx], fn->start, ctx, out);
        if (!e || clone)
            return e;
        err_free(e); // the list says nothing here: the convention does
    }
    return read_by_convention(m, fn, &all, idx, ctx, out);
}

/* ---- Results ---- */

static void place_result(const struct classes *c, struct pieces *out)
{
    static const unsigned char integers[] = {SYM_RAX, SYM_RDX};
    unsigned used_integers = 0, used_vectors = 0, used_x87 = 0;
    for (unsigned i = 0; i < c->count; i++) {
        struct location l = {.kind = LOCATION_REGISTER};
        uint64_t bits = 64;
        if (c->eightbyte[i] == CLASS_INTEGER && used_integers < 2)
            l.value = integers[used_integers++];
        else if (c->eightbyte[i] == CLASS_SSE && used_vectors < 2)
            l.value = SYM_XMM0 + used_vectors++;
        else if (c->eightbyte[i] == CLASS_X87 && used_x87 < 2)
            l.value = SYM_ST0 + used_x87++;
        else
            continue;
        while (i + 1 < c->count && (c->eightbyte[i + 1] == CLASS_SSEUP ||
                                    (c->eightbyte[i] == CLASS_X87 && bits < 128))) {
            bits += 64;
            i++;
        }
        vec_push(out, (struct piece){.location = l, .bits = bits});
    }
    if (out->count == 1)
        out->items[0].bits = 0;
}

struct err *sym_read_return_value(struct sym_module *m, const struct sym_function *fn,
                                  struct sym_context *ctx, struct sym_value *out)
{
    HOLD(m);
    const struct sym_type *type;
    TRY(sym_return_type(m, fn, &type));
    if (type->kind == SYM_VOID)
        return err_new(ERR_NOT_FOUND, "%s returns nothing", fn->name);
    if (!type->size)
        return err_new(ERR_NOT_FOUND, "the size of %s is not known", type->name);
    struct classes c;
    classify(m, type, &c);
    if (c.by_reference ||
        c.eightbyte[0] == CLASS_MEMORY) { // rax holds the address that the caller gave
        gaddr addr;
        TRY(read_word(ctx, SYM_RAX, &addr));
        return sym_read_at(m, type, addr, ctx, out);
    }
    struct pieces places = {0};
    place_result(&c, &places);
    struct frame f = {.m = m, .ctx = ctx, .addr = fn->start};
    struct err *e = places.count ? value_from_pieces(&f, type, &places, out)
                                 : err_new(ERR_NOT_FOUND, "%s has no value", type->name);
    vec_deinit(&places);
    return e;
}

/* ---- Calling ---- */

static bool is_number(const struct sym_type *t)
{
    return (t->kind == SYM_BOOL || t->kind == SYM_INT || t->kind == SYM_UINT ||
            t->kind == SYM_CHAR || t->kind == SYM_ENUM || t->kind == SYM_FLOAT ||
            t->kind == SYM_POINTER || t->kind == SYM_REFERENCE) &&
           t->size && t->size <= 8;
}

static struct err *not_passed(const struct sym_type *t, const char *why)
{
    return err_new(ERR_UNSUPPORTED, "a value of type %.200s is not passed: %s", t->name, why);
}

/* Can a value be passed or returned? as_result: a class that is passed by the address of a copy is
 * returned in memory, which needs no copy. */
static struct err *check_passed(struct sym_module *m, const struct sym_type *t, bool as_result,
                                struct classes *c)
{
    classify(m, t, c);
    if (is_number(t))
        return NULL;
    if (!is_record(t))
        return not_passed(t, "only numbers, pointers, references and classes are");
    if (c->by_reference && !as_result)
        return not_passed(t, "its copy constructor would have to make a copy");
    if (!t->size || t->size > SYM_CALL_MOST_STACK / 2)
        return not_passed(t, "its size is not known, or too large");
    if (!c->by_reference && alignment(m, t, c) > 16)
        return not_passed(t, "it is aligned to more than 16 bytes");
    for (unsigned i = 0; i < c->count && !c->by_reference; i++) {
        if (c->eightbyte[i] == CLASS_X87 || c->eightbyte[i] == CLASS_SSEUP)
            return not_passed(t, "it has a long double or a vector in it");
    }
    return NULL;
}

static uint8_t number_of_register(uint64_t dwarf_reg)
{
    for (uint8_t i = 0; i < INTEGER_ARGUMENTS; i++) {
        if (argument_regs[i] == dwarf_reg)
            return i;
    }
    return 0;
}

/* One part for each eightbyte, in the registers that `pieces` has for those of a class. */
static uint8_t parts_of(const struct classes *c, const struct pieces *pieces, bool of_result,
                        struct sym_call_part *parts)
{
    size_t at = 0;
    for (unsigned i = 0; i < c->count && i < 2; i++) {
        parts[i] = (struct sym_call_part){.kind = SYM_PART_NONE};
        if ((c->eightbyte[i] != CLASS_INTEGER && c->eightbyte[i] != CLASS_SSE) ||
            at >= pieces->count)
            continue;
        uint64_t reg = pieces->items[at++].location.value;
        bool vector = c->eightbyte[i] == CLASS_SSE;
        parts[i].kind = vector ? SYM_PART_VECTOR : SYM_PART_INTEGER;
        parts[i].number = vector      ? (uint8_t)(reg - SYM_XMM0)
                          : of_result ? reg == SYM_RDX
                                      : number_of_register(reg);
    }
    return (uint8_t)(c->count < 2 ? c->count : 2);
}

static struct err *compile_result(struct sym_module *m, const struct sym_type *t, struct used *used,
                                  struct sym_call *out)
{
    struct classes c;
    struct pieces pieces = {0};
    if (t->kind == SYM_VOID)
        return NULL;
    TRY(check_passed(m, t, true, &c));
    out->result_size = is_record(t) ? (uint32_t)t->size : 0;
    out->result_in_memory = c.by_reference || c.eightbyte[0] == CLASS_MEMORY;
    if (out->result_in_memory) {
        used->integers = 1;
        return NULL;
    }
    place_result(&c, &pieces);
    out->result_count = parts_of(&c, &pieces, true, out->result);
    vec_deinit(&pieces);
    return NULL;
}

static struct err *compile_argument(struct sym_module *m, const struct sym_type *t,
                                    struct used *used, struct sym_call_argument *out)
{
    struct classes c;
    struct pieces pieces = {0};
    TRY(check_passed(m, t, false, &c));
    *out = (struct sym_call_argument){.copied = is_record(t) ? (uint32_t)t->size : 0, .stack = -1};
    place_argument(m, t, &c, used, 0, &pieces);
    if (pieces.count && pieces.items[0].location.kind == LOCATION_MEMORY)
        out->stack = (int32_t)pieces.items[0].location.value;
    else
        out->part_count = parts_of(&c, &pieces, false, out->parts);
    vec_deinit(&pieces);
    return NULL;
}

struct err *call_compile(struct sym_module *m, const struct sym_type *result,
                         const struct sym_type *const *params, size_t count, struct sym_call *out)
{
    struct used used = {0};
    *out = (struct sym_call){.kind = SYM_CALL_FUNCTION};
    if (count > SYM_CALL_MOST_ARGUMENTS)
        return err_new(ERR_LIMIT, "%zu arguments; at most %d", count, SYM_CALL_MOST_ARGUMENTS);
    TRY(compile_result(m, result, &used, out));
    for (size_t i = 0; i < count; i++) {
        TRY(compile_argument(m, params[i], &used, &out->args[i]));
        if (used.stack > SYM_CALL_MOST_STACK)
            return err_new(ERR_LIMIT, "more than %d bytes of arguments", SYM_CALL_MOST_STACK);
    }
    out->arg_count = (uint8_t)count;
    out->vectors = (uint8_t)used.vectors;
    out->stack_len = (uint32_t)((used.stack + 15) & ~15ull);
    return NULL;
}
