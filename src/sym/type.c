/* Types: what an entry of debug information says, cached per module, with its name in C's notation.
 */
#include "sym/sym_int.h"

static bool is_qualifier(int tag)
{
    return tag == DW_TAG_const_type || tag == DW_TAG_volatile_type || tag == DW_TAG_restrict_type ||
           tag == DW_TAG_atomic_type;
}

/* ---- Namespaces, and definitions for declarations ---- */

static bool is_scoped_type(int tag)
{
    return tag == DW_TAG_structure_type || tag == DW_TAG_class_type || tag == DW_TAG_union_type ||
           tag == DW_TAG_enumeration_type || tag == DW_TAG_typedef;
}

static void scan_scope(struct sym_module *m, Dwarf_Die *parent, const char *scope, unsigned depth)
{
    Dwarf_Die die;
    if (depth > MAX_DEPTH || !die_child(parent, &die))
        return;
    do {
        int tag = dwarf_tag(&die);
        bool is_type = is_scoped_type(tag);
        if (!is_type && tag != DW_TAG_namespace && tag != DW_TAG_module)
            continue;
        const char *name = dwarf_diename(&die);
        if (is_type && *scope)
            sym_table_put(&m->scopes, (uintptr_t)die.addr, sym_pool_str(&m->pool, scope));
        if (tag == DW_TAG_typedef || tag == DW_TAG_enumeration_type)
            continue;
        cleanup(freep) char *full = str_format("%s%s%s", scope, *scope ? "::" : "",
                                               name      ? name
                                               : is_type ? ""
                                                         : "(anonymous namespace)");
        if (is_type && name && !die_flag(&die, DW_AT_declaration)) {
            Dwarf_Die *kept = sym_pool_alloc(&m->pool, sizeof(*kept));
            *kept = die;
            sym_table_put(&m->complete, str_hash(full), kept);
        }
        if (name || !is_type)
            scan_scope(m, &die, full, depth + 1);
    } while (die_sibling(&die, &die));
}

/* Fills `scopes` and `complete` from the unit that holds `die`. */
static void load_scopes(struct sym_module *m, Dwarf_Die *die)
{
    Dwarf_Die unit;
    if (!dwarf_diecu(die, &unit, NULL, NULL) ||
        sym_table_get(&m->scoped_units, (uintptr_t)unit.addr))
        return;
    sym_table_put(&m->scoped_units, (uintptr_t)unit.addr, m);
    scan_scope(m, &unit, "", 0);
}

char *type_full_name(struct sym_module *m, Dwarf_Die *die)
{
    load_scopes(m, die);
    const char *name = dwarf_diename(die), *scope = sym_table_get(&m->scopes, (uintptr_t)die->addr);
    if (!name)
        return NULL;
    return scope ? str_format("%s::%s", scope, name) : xstrdup(name);
}

void complete_type(struct sym_module *m, Dwarf_Die *die)
{
    if (!die_flag(die, DW_AT_declaration))
        return;
    cleanup(freep) char *name = type_full_name(m, die);
    if (!name)
        return;
    const char *base = dwarf_diename(die);
    Dwarf_Die *found = sym_table_get(&m->complete, str_hash(name));
    scan_all(m);
    for (size_t i = 0; i < m->unit_count && !found; i++) {
        if (!may_name(&m->units[i], base))
            continue;
        load_scopes(m, &m->units[i].die);
        found = sym_table_get(&m->complete, str_hash(name));
    }
    const char *found_base = found ? dwarf_diename(found) : NULL;
    if (found_base && str_eq(base, found_base))
        *die = *found;
}

/* ---- Names ---- */

static const struct type unknown = {.pub = {.kind = SYM_UNKNOWN_TYPE, .name = "<type not found>"}};

/* For an entry of which die_type() finds nothing: whether it has a type all the same, which is
 * damaged or in a file (of dwz) that was not found. */
static bool is_dangling(Dwarf_Die *die)
{
    return dwarf_hasattr_integrate(die, DW_AT_type);
}

static char *declare(struct sym_module *m, Dwarf_Die *die, unsigned dimension, const char *inner,
                     unsigned depth);

static char *declare_target(struct sym_module *m, Dwarf_Die *die, const char *inner, unsigned depth)
{
    Dwarf_Die target;
    if (die_type(die, &target))
        return declare(m, &target, 0, inner, depth + 1);
    return is_dangling(die) ? str_format("%s%s%s", unknown.pub.name, *inner ? " " : "", inner)
                            : declare(m, NULL, 0, inner, depth + 1);
}

/* The tag of what a pointer or qualifier points to, through qualifiers. */
static int target_tag(Dwarf_Die *die)
{
    Dwarf_Die target = *die;
    for (unsigned i = 0; i < MAX_DEPTH && die_type(&target, &target); i++)
        if (!is_qualifier(dwarf_tag(&target)))
            return dwarf_tag(&target);
    return 0;
}

static char *declare_pointer(struct sym_module *m, Dwarf_Die *die, const char *mark,
                             const char *inner, unsigned depth)
{
    int tag = target_tag(die);
    bool wrap = tag == DW_TAG_array_type || tag == DW_TAG_subroutine_type;
    bool space =
        *inner && *inner != '*' && *inner != '&' && *inner != ')' && *inner != '[' && *inner != '(';
    cleanup(freep) char *text =
        str_format("%s%s%s%s%s", wrap ? "(" : "", mark, space ? " " : "", inner, wrap ? ")" : "");
    return declare_target(m, die, text, depth);
}

static char *declare_qualified(struct sym_module *m, Dwarf_Die *die, const char *word,
                               const char *inner, unsigned depth)
{
    int tag = target_tag(die);
    if (tag == DW_TAG_pointer_type) { // int *const
        cleanup(freep) char *text =
            str_format("%s%s%s", word, *inner && *inner != ')' ? " " : "", inner);
        return declare_target(m, die, text, depth);
    }
    cleanup(freep) char *plain = declare_target(m, die, inner, depth);
    return str_format("%s %s", word, plain);
}

static bool array_count(Dwarf_Die *array, unsigned dimension, uint64_t *count_out)
{
    Dwarf_Die die;
    *count_out = 0;
    if (!die_child(array, &die))
        return false;
    unsigned at = 0;
    do {
        if (dwarf_tag(&die) != DW_TAG_subrange_type && dwarf_tag(&die) != DW_TAG_enumeration_type)
            continue;
        if (at++ != dimension)
            continue;
        uint64_t upper, lower = 0;
        if (die_unsigned(&die, DW_AT_count, count_out))
            return true;
        die_unsigned(&die, DW_AT_lower_bound, &lower);
        if (die_unsigned(&die, DW_AT_upper_bound, &upper) && upper != UINT64_MAX &&
            upper != UINT32_MAX && upper >= lower)
            *count_out = upper - lower + 1;
        return true;
    } while (die_sibling(&die, &die));
    return false;
}

static char *declare_array(struct sym_module *m, Dwarf_Die *die, unsigned dimension,
                           const char *inner, unsigned depth)
{
    struct buf b = {0};
    buf_str(&b, inner);
    uint64_t count;
    for (unsigned d = dimension; d < 16 && array_count(die, d, &count); d++) {
        if (count)
            buf_printf(&b, "[%ju]", (uintmax_t)count);
        else
            buf_str(&b, "[]");
    }
    char *result = declare_target(m, die, buf_cstr(&b), depth);
    buf_deinit(&b);
    return result;
}

static char *declare_function(struct sym_module *m, Dwarf_Die *die, const char *inner,
                              unsigned depth)
{
    struct buf b = {0};
    buf_printf(&b, "%s(", inner);
    Dwarf_Die child;
    unsigned count = 0;
    if (die_child(die, &child))
        do {
            int tag = dwarf_tag(&child);
            if (tag != DW_TAG_formal_parameter && tag != DW_TAG_unspecified_parameters)
                continue;
            if (count++)
                buf_str(&b, ", ");
            if (count > 64)
                break;
            cleanup(freep) char *type = tag == DW_TAG_formal_parameter
                                            ? declare_target(m, &child, "", depth)
                                            : xstrdup("...");
            buf_str(&b, type);
        } while (die_sibling(&child, &child));
    if (!count && die_flag(die, DW_AT_prototyped))
        buf_str(&b, "void");
    buf_str(&b, ")");
    char *result = declare_target(m, die, buf_cstr(&b), depth);
    buf_deinit(&b);
    return result;
}

static char *declare_named(struct sym_module *m, Dwarf_Die *die, const char *inner)
{
    Dwarf_Die unit;
    int language = dwarf_diecu(die, &unit, NULL, NULL) ? dwarf_srclang(&unit) : 0;
    bool is_c = !is_cplusplus(language); // or a unit made by dwz, which does not say
    const char *keyword = "";
    switch (dwarf_tag(die)) {
    case DW_TAG_structure_type:
    case DW_TAG_class_type:
        keyword = "struct ";
        break;
    case DW_TAG_union_type:
        keyword = "union ";
        break;
    case DW_TAG_enumeration_type:
        keyword = "enum ";
        break;
    default:
        break;
    }
    cleanup(freep) char *name = type_full_name(m, die);
    const char *shown = name ? name : *keyword ? "{...}" : "(no name)";
    return str_format("%s%s%s%s", is_c || !name ? keyword : "", shown,
                      *inner && *inner != '[' ? " " : "", *inner == '[' ? "" : inner);
}

/* The declaration of `inner` (a name, "*", "[3]" or nothing) as a thing of the type; die NULL is
 * void. Heap string. */
static char *declare(struct sym_module *m, Dwarf_Die *die, unsigned dimension, const char *inner,
                     unsigned depth)
{
    if (depth > MAX_DEPTH || strlen(inner) > 4096)
        return xstrdup("...");
    if (!die)
        return str_format("void%s%s", *inner ? " " : "", inner);
    switch (dwarf_tag(die)) {
    case DW_TAG_pointer_type:
        return declare_pointer(m, die, "*", inner, depth);
    case DW_TAG_reference_type:
        return declare_pointer(m, die, "&", inner, depth);
    case DW_TAG_rvalue_reference_type:
        return declare_pointer(m, die, "&&", inner, depth);
    case DW_TAG_const_type:
        return declare_qualified(m, die, "const", inner, depth);
    case DW_TAG_volatile_type:
        return declare_qualified(m, die, "volatile", inner, depth);
    case DW_TAG_restrict_type:
        return declare_qualified(m, die, "restrict", inner, depth);
    case DW_TAG_atomic_type:
        return declare_qualified(m, die, "_Atomic", inner, depth);
    case DW_TAG_array_type:
        return declare_array(m, die, dimension, inner, depth);
    case DW_TAG_subroutine_type:
        return declare_function(m, die, inner, depth);
    case DW_TAG_ptr_to_member_type: {
        Dwarf_Die holder;
        cleanup(freep) char *name =
            die_ref(die, DW_AT_containing_type, &holder) ? type_full_name(m, &holder) : NULL;
        cleanup(freep) char *text = str_format("%s::*%s", name ? name : "?", inner);
        return declare_pointer(m, die, text, "", depth);
    }
    default: {
        cleanup(freep) char *plain = declare_named(m, die, inner);
        return *inner == '[' ? str_format("%s %s", plain, inner) : xstrdup(plain);
    }
    }
}

/* ---- Types ---- */

static enum sym_type_kind base_kind(Dwarf_Die *die, bool *is_char_out)
{
    uint64_t encoding = 0, size = 0;
    die_unsigned(die, DW_AT_encoding, &encoding);
    die_unsigned(die, DW_AT_byte_size, &size);
    const char *name = dwarf_diename(die);
    switch (encoding) {
    case DW_ATE_boolean:
        return SYM_BOOL;
    case DW_ATE_signed_char:
    case DW_ATE_unsigned_char:
        // int8_t and uint8_t are typedefs of these; Rust's i8 and u8 have the encoding, but are
        // numbers.
        *is_char_out = name && strstr(name, "char");
        return *is_char_out ? SYM_CHAR : encoding == DW_ATE_signed_char ? SYM_INT : SYM_UINT;
    case DW_ATE_UTF:
        *is_char_out = size == 1;
        return SYM_CHAR;
    case DW_ATE_float:
        return SYM_FLOAT;
    case DW_ATE_complex_float:
        return SYM_COMPLEX;
    case DW_ATE_signed:
        return SYM_INT;
    case DW_ATE_unsigned:
    case DW_ATE_address:
        return SYM_UINT;
    default:
        return SYM_UNKNOWN_TYPE;
    }
}

static enum sym_type_kind kind_of(Dwarf_Die *die, bool *is_char_out)
{
    switch (dwarf_tag(die)) {
    case DW_TAG_base_type:
        return base_kind(die, is_char_out);
    case DW_TAG_enumeration_type:
        return SYM_ENUM;
    case DW_TAG_pointer_type:
        return SYM_POINTER;
    case DW_TAG_reference_type:
    case DW_TAG_rvalue_reference_type:
        return SYM_REFERENCE;
    case DW_TAG_ptr_to_member_type:
        return SYM_MEMBER_POINTER;
    case DW_TAG_array_type:
        return SYM_ARRAY;
    case DW_TAG_structure_type:
        return SYM_STRUCT;
    case DW_TAG_class_type:
        return SYM_CLASS;
    case DW_TAG_union_type:
        return SYM_UNION;
    case DW_TAG_subroutine_type:
        return SYM_FUNCTION_TYPE;
    case DW_TAG_unspecified_type: // decltype(nullptr)
        return SYM_POINTER;
    default:
        return SYM_UNKNOWN_TYPE;
    }
}

static void strip(Dwarf_Die *die, bool *is_void_out)
{
    *is_void_out = false;
    for (unsigned i = 0; i < MAX_DEPTH; i++) {
        int tag = dwarf_tag(die);
        if (tag != DW_TAG_typedef && !is_qualifier(tag))
            return;
        if (!die_type(die, die)) {
            *is_void_out = true; // const void
            return;
        }
    }
}

static const struct sym_type *make_type(struct sym_module *m, Dwarf_Die *die, unsigned dimension,
                                        unsigned depth);

/* What a type is made of. Its table entry exists already, so that types may refer to themselves. */
static void fill_target(struct sym_module *m, struct type *t, unsigned depth)
{
    Dwarf_Die target;
    bool has = die_type(&t->die, &target);
    uint64_t more;
    if (t->pub.kind == SYM_ARRAY) {
        array_count(&t->die, t->dimension, &t->pub.count);
        if (t->dimension < 16 && array_count(&t->die, t->dimension + 1, &more))
            t->pub.target = make_type(m, &t->die, t->dimension + 1, depth + 1);
        else
            t->pub.target = make_type(m, has ? &target : NULL, 0, depth + 1);
        if (__builtin_mul_overflow(t->pub.count, t->pub.target->size, &t->pub.size))
            t->pub.size = 0;
        uint64_t explicit_size;
        if (t->dimension == 0 && die_unsigned(&t->die, DW_AT_byte_size, &explicit_size))
            t->pub.size = explicit_size;
    } else if (t->pub.kind == SYM_POINTER || t->pub.kind == SYM_REFERENCE) {
        t->pub.target = make_type(m, has ? &target : NULL, 0, depth + 1);
    } else if (t->pub.kind == SYM_ENUM && has) {
        t->pub.target = make_type(m, &target, 0, depth + 1); // the underlying type
    }
}

static const struct sym_type *void_type(struct sym_module *m)
{
    static const struct type the_void = {.pub = {.kind = SYM_VOID, .name = "void"}};
    return &the_void.pub;
}

static const struct sym_type *make_type(struct sym_module *m, Dwarf_Die *die, unsigned dimension,
                                        unsigned depth)
{
    if (!die)
        return void_type(m);
    uint64_t key = (uint64_t)(uintptr_t)die->addr | (uint64_t)dimension << 56;
    struct type *t = sym_table_get(&m->types, key);
    if (t)
        return &t->pub;
    if (depth > MAX_DEPTH)
        return &unknown.pub;
    t = sym_pool_alloc(&m->pool, sizeof(*t));
    t->die = *die;
    t->dimension = dimension;
    bool is_void;
    strip(&t->die, &is_void);
    cleanup(freep) char *name = declare(m, die, dimension, "", 0);
    t->pub.name = sym_pool_str(&m->pool, name);
    sym_table_put(&m->types, key, t);
    if (is_void) {
        t->pub.kind = SYM_VOID;
        return &t->pub;
    }
    t->has_die = true;
    complete_type(m, &t->die);
    t->pub.kind = kind_of(&t->die, &t->is_char);
    uint64_t size = 0;
    if (die_unsigned(&t->die, DW_AT_byte_size, &size))
        t->pub.size = size;
    else if (t->pub.kind == SYM_POINTER || t->pub.kind == SYM_REFERENCE)
        t->pub.size = 8;
    fill_target(m, t, depth);
    if (t->pub.kind == SYM_ENUM && !t->pub.size && t->pub.target)
        t->pub.size = t->pub.target->size;
    if (t->pub.kind == SYM_MEMBER_POINTER && !t->pub.size) {
        Dwarf_Die target;
        t->pub.size =
            die_type(&t->die, &target) && dwarf_tag(&target) == DW_TAG_subroutine_type ? 16 : 8;
    }
    return &t->pub;
}

const struct sym_type *type_from_die(struct sym_module *m, Dwarf_Die *die)
{
    return make_type(m, die, 0, 0);
}

const struct sym_type *type_of_die(struct sym_module *m, Dwarf_Die *die)
{
    Dwarf_Die target;
    if (die_type(die, &target))
        return make_type(m, &target, 0, 0);
    return is_dangling(die) ? &unknown.pub : make_type(m, NULL, 0, 0);
}

/* The value of a bound that is computed at run time: an expression, or a variable that holds it. */
static struct err *read_bound(struct frame *f, Dwarf_Die *subrange, unsigned name, uint64_t *out)
{
    Dwarf_Attribute attr, location;
    Dwarf_Die variable;
    struct pieces pieces;
    if (!dwarf_attr_integrate(subrange, name, &attr))
        return err_new(ERR_NOT_FOUND, "the array's length is not known");
    if (dwarf_formref_die(&attr, &variable)) {
        if (!dwarf_attr_integrate(&variable, DW_AT_location, &location))
            return err_new(ERR_NOT_FOUND, "the array's length is optimized out");
    } else {
        location = attr;
    }
    TRY(location_evaluate_attribute(f, &location, &pieces));
    struct sym_value value = {0};
    static const struct sym_type word = {.kind = SYM_UINT, .name = "unsigned long", .size = 8};
    struct err *e = NULL;
    struct piece *p = &pieces.items[0];
    if (!dwarf_formref_die(&attr, &variable) && pieces.count == 1 &&
        p->location.kind == LOCATION_MEMORY)
        *out = p->location.value; // an expression gives the number itself
    else if (!(e = value_from_pieces(f, &word, &pieces, &value)))
        memcpy(out, value.bytes, sizeof(*out));
    sym_value_deinit(&value);
    vec_deinit(&pieces);
    return e;
}

struct err *sized_array(struct frame *f, const struct sym_type *type, const struct sym_type **out)
{
    *out = type;
    Dwarf_Die die = type_of(type)->die, subrange;
    if (type->kind != SYM_ARRAY || type->count || !type->target->size ||
        !die_child(&die, &subrange))
        return NULL;
    uint64_t bound = 0;
    if (dwarf_hasattr(&subrange, DW_AT_count)) {
        TRY(read_bound(f, &subrange, DW_AT_count, &bound));
    } else if (dwarf_hasattr(&subrange, DW_AT_upper_bound)) {
        TRY(read_bound(f, &subrange, DW_AT_upper_bound, &bound));
        bound++;
    }
    uint64_t size;
    if (bound == 0 || __builtin_mul_overflow(bound, type->target->size, &size) || size > (1u << 30))
        return NULL; // a flexible array member, or an uninitialised length
    struct type *sized = sym_pool_alloc(&f->m->pool, sizeof(*sized));
    *sized = *type_of(type);
    sized->pub.count = bound;
    sized->pub.size = size;
    *out = &sized->pub;
    return NULL;
}

/* ---- Members ---- */

/* The offset of a member: a constant, or in DWARF 2 an expression that adds one. False: not known
 * statically. */
static bool member_offset(Dwarf_Die *die, uint64_t *out)
{
    Dwarf_Attribute a;
    *out = 0;
    if (!dwarf_attr_integrate(die, DW_AT_data_member_location, &a))
        return true; // unions
    Dwarf_Word v;
    if (dwarf_formudata(&a, &v) == 0) {
        *out = v;
        return true;
    }
    Dwarf_Op *ops;
    size_t count;
    if (dwarf_getlocation(&a, &ops, &count) != 0 || count != 1 || ops[0].atom != DW_OP_plus_uconst)
        return false;
    *out = ops[0].number;
    return true;
}

static void read_bitfield(Dwarf_Die *die, struct member *member)
{
    uint64_t size, off, storage = member->type->size;
    if (!die_unsigned(die, DW_AT_bit_size, &size) || size == 0 || size > 64)
        return;
    if (die_unsigned(die, DW_AT_data_bit_offset, &off)) {
        // counted from the start of the struct
    } else if (die_unsigned(die, DW_AT_bit_offset,
                            &off)) { // DWARF 3: from the storage unit's most significant bit
        die_unsigned(die, DW_AT_byte_size, &storage);
        off = member->byte_off * 8 + storage * 8 - off - size;
    } else {
        off = member->byte_off * 8;
    }
    member->byte_off = off / 8;
    member->bit_off = (unsigned)(off % 8);
    member->bit_size = (unsigned)size;
}

void members_of(struct sym_module *m, const struct sym_type *type, struct members *out)
{
    *out = (struct members){0};
    Dwarf_Die die, parent = type_of(type)->die;
    if (!type_of(type)->has_die || !die_child(&parent, &die))
        return;
    do {
        int tag = dwarf_tag(&die);
        if ((tag != DW_TAG_member && tag != DW_TAG_inheritance) || die_flag(&die, DW_AT_external) ||
            die_flag(&die, DW_AT_declaration))
            continue;
        struct member member = {.name = dwarf_diename(&die), .type = type_of_die(m, &die)};
        member.is_base = tag == DW_TAG_inheritance;
        if (member.is_base)
            member.name = member.type->name;
        member.is_virtual = !member_offset(&die, &member.byte_off);
        read_bitfield(&die, &member);
        if (out->count >= 4096)
            break;
        vec_push(out, member);
    } while (die_sibling(&die, &die));
}

bool find_member(struct sym_module *m, const struct sym_type *type, const char *name,
                 struct member *out, unsigned depth)
{
    struct members members;
    bool found = false;
    if (depth > MAX_DEPTH)
        return false;
    members_of(m, type, &members);
    for (int pass = 0; pass < 2 && !found; pass++) { // own members hide those of bases
        vec_each (member, &members) {
            struct member inner;
            if (pass == 0 && member->name && !member->is_base && (str_eq(member->name, name))) {
                *out = *member;
                found = true;
                break;
            }
            bool looks_inside =
                pass == 1 && (member->is_base || !member->name) && is_record(member->type);
            if (looks_inside && find_member(m, member->type, name, &inner, depth + 1)) {
                *out = inner;
                out->byte_off += member->byte_off;
                out->is_virtual |= member->is_virtual;
                found = true;
                break;
            }
        }
    }
    vec_deinit(&members);
    return found;
}
