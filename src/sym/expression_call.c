/* Calls of the program's own functions: which one is meant, and how its arguments are passed.
 *
 *     f(x)       candidates: functions of that name in the scopes around the place, from within
 *                (resolve_name() has variables)
 *     a.f(x)     methods of a's class, else of the first base class that has some; a's address is
 *                the first argument
 *     a + b      methods "operator+" of a's class, and functions of that name in the scopes of
 *                both classes and around the place
 *          |
 *          v  fits(): each argument has a way to its parameter (enum fit, the less the better)
 *          v  choose(): the one that is better than each other one for some argument, and worse
 *             for none (C++17 [over.match.best])
 *          v  make_site(): its code, or its number in the table of virtual functions, and what
 *             the calling convention does with each argument
 *
 * What is not known to debug information is left out: arguments by default, templates that nothing
 * instantiated, conversions by the program's own constructors and operators. An argument that would
 * need one fits nothing. */
#include "sym/expression_int.h"

enum { MOST_CANDIDATES = 64 };

/* How an argument comes to a parameter: C++17 [over.ics.rank], in short. */
enum fit { FIT_EXACT, FIT_QUALIFIED, FIT_PROMOTED, FIT_CONVERTED, FIT_ELLIPSIS, FIT_NOT };

/* A function that may be meant. */
struct candidate {
    const char *name; /* to be shown */
    const struct sym_type *result;
    const struct sym_type *params[SYM_CALL_MOST_ARGUMENTS]; /* with `this` */
    size_t count;
    bool more;      /* "..." */
    bool is_method; /* the first parameter is `this` */
    bool is_template, is_virtual;
    uint64_t slot;                       /* of a virtual one */
    uint64_t base_off;                   /* of the class that declares it, within the object's */
    const struct sym_type *owner;        /* that class, of methods */
    const char *linkage_name;            /* or NULL */
    Dwarf_Die die;                       /* the declaration, or the function's own entry */
    const struct sym_function *function; /* with its code; NULL: it is to be looked for */
    const char *refused;                 /* why it cannot be called, or NULL */
    enum fit fits[SYM_CALL_MOST_ARGUMENTS];
};
struct candidates {
    struct candidate *items; /* in the compilation's pool: MOST_CANDIDATES */
    size_t count;
    bool too_many;
};

/* The arguments of a call, an object first if there is one: as an object, not as its address. */
struct arguments {
    struct node *items[SYM_CALL_MOST_ARGUMENTS];
    size_t count;
    bool has_object;
};

/* --- types --- */

static bool is_const(const struct sym_type *t)
{
    return str_starts(t->name, "const ");
}

/* Is it something that may not be changed: const itself, or a part of something that is? */
static bool is_const_node(const struct node *n)
{
    return is_const(n->type) || (n->kind == NODE_MEMBER && is_const_node(n->a));
}

static unsigned longs_in(const char *name)
{
    unsigned count = 0;
    while ((name = strstr(name, "long"))) {
        name += 4;
        count++;
    }
    return count;
}

/* The name of a type without what typedefs and qualifiers make of it; heap string. */
static char *own_name(struct sym_module *m, const struct sym_type *t)
{
    Dwarf_Die die = type_of(t)->die;
    char *name = type_of(t)->has_die ? type_full_name(m, &die) : NULL;
    return name ? name : xstrdup(t->name);
}

/* But for qualifiers: the same type? Of other units, too. */
static bool same_type(struct sym_module *m, const struct sym_type *a, const struct sym_type *b,
                      unsigned depth)
{
    if (a == b || (type_of(a)->has_die && type_of(b)->has_die &&
                   type_of(a)->die.addr == type_of(b)->die.addr))
        return true;
    if (a->size != b->size || depth > MAX_DEPTH ||
        (is_record(a) ? !is_record(b) : a->kind != b->kind))
        return false;
    if (a->kind == SYM_VOID || a->kind == SYM_BOOL || a->kind == SYM_FUNCTION_TYPE)
        return true;
    if ((is_pointer(a) || a->kind == SYM_ARRAY) && a->target && b->target)
        return same_type(m, a->target, b->target, depth + 1);
    cleanup(freep) char *x = own_name(m, a), *y = own_name(m, b);
    if (a->kind == SYM_INT || a->kind == SYM_UINT)
        return longs_in(x) == longs_in(y);
    if (a->kind == SYM_CHAR || a->kind == SYM_FLOAT)
        return str_eq(str_starts(x, "const ") ? x + 6 : x, str_starts(y, "const ") ? y + 6 : y);
    return str_eq(x, y) && (is_record(a) || a->kind == SYM_ENUM);
}

/* Where `base` is in objects of class t. */
static bool find_base(struct sym_module *m, const struct sym_type *t, const struct sym_type *base,
                      uint64_t *off, unsigned depth)
{
    if (same_type(m, t, base, 0)) {
        *off = 0;
        return true;
    }
    if (depth > MAX_DEPTH || !is_record(t))
        return false;
    struct members members;
    bool found = false;
    members_of(m, t, &members);
    for (size_t i = 0; i < members.count && !found; i++) {
        const struct member *member = &members.items[i];
        if (!member->is_base || member->is_virtual ||
            !find_base(m, member->type, base, off, depth + 1))
            continue;
        *off += member->byte_off;
        found = true;
    }
    vec_deinit(&members);
    return found;
}

static bool is_rvalue_reference(const struct sym_type *t)
{
    Dwarf_Die die = type_of(t)->die;
    return type_of(t)->has_die && dwarf_tag(&die) == DW_TAG_rvalue_reference_type;
}

/* What an argument is for a function: arrays are pointers, enumerators of their enumeration. */
static const struct sym_type *argument_type(struct compilation *c, const struct node *n)
{
    if (n->kind == NODE_CONSTANT && n->enumeration)
        return n->enumeration;
    return n->type->kind == SYM_ARRAY && n->type->target ? pointer_to(c, n->type->target) : n->type;
}

/* --- does it fit? --- */

static enum fit fit_number(struct compilation *c, const struct sym_type *from,
                           const struct sym_type *to)
{
    bool numbers =
        (is_integer(from) || is_real(from)) &&
        (is_integer(to) || to->kind == SYM_FLOAT); // also a long double, which is refused later
    if (same_type(c->m, from, to, 0))
        return FIT_EXACT;
    if (to->kind == SYM_BOOL && is_pointer(from))
        return FIT_CONVERTED;
    Dwarf_Die die = type_of(to)->die, unit;
    bool is_c = to->kind == SYM_ENUM && dwarf_diecu(&die, &unit, NULL, NULL) &&
                !is_cplusplus(dwarf_srclang(&unit));
    if (!numbers || (to->kind == SYM_ENUM && !is_c))
        return FIT_NOT;
    if (is_real(from) && to->kind == SYM_FLOAT)
        return to->size > from->size ? FIT_PROMOTED : FIT_CONVERTED;
    if (is_integer(from) && same_type(c->m, to, builtin("int"), 0) &&
        (from->size < 4 || from->kind == SYM_ENUM))
        return FIT_PROMOTED;
    return FIT_CONVERTED;
}

static enum fit fit_pointer(struct compilation *c, const struct node *n,
                            const struct sym_type *from, const struct sym_type *to)
{
    uint64_t off;
    bool zero =
        n->kind == NODE_NUMBER && n->number == 0 && (is_pointer(n->type) || is_integer(n->type));
    if (zero)
        return FIT_CONVERTED;
    if (!is_pointer(from) || !from->target || !to->target)
        return FIT_NOT;
    bool adds = is_const(to->target) && !is_const(from->target);
    if (is_const(from->target) && !is_const(to->target))
        return FIT_NOT;
    if (same_type(c->m, from->target, to->target, 0))
        return adds ? FIT_QUALIFIED : FIT_EXACT;
    if (to->target->kind == SYM_VOID)
        return FIT_CONVERTED;
    bool classes = is_record(from->target) && is_record(to->target);
    return classes && find_base(c->m, from->target, to->target, &off, 0) ? FIT_CONVERTED : FIT_NOT;
}

/* Of a value; a class only as it is. */
static enum fit fit_value(struct compilation *c, const struct node *n, const struct sym_type *to)
{
    const struct sym_type *from = argument_type(c, n);
    if (is_record(to) || is_record(from))
        return is_record(to) && is_record(from) && is_place(n) && same_type(c->m, from, to, 0)
                   ? FIT_EXACT
                   : FIT_NOT;
    return is_pointer(to) ? fit_pointer(c, n, from, to) : fit_number(c, from, to);
}

static bool is_temporary(const struct node *n)
{
    return n->kind == NODE_CALL || (n->kind == NODE_MEMBER && is_temporary(n->a)) || !is_place(n) ||
           n->bit_size;
}

static enum fit fit_reference(struct compilation *c, const struct node *n,
                              const struct sym_type *to)
{
    const struct sym_type *target = to->target;
    bool temporary = is_temporary(n),
         takes_temporaries = is_const(target) || is_rvalue_reference(to);
    uint64_t off;
    if ((temporary && !takes_temporaries) || (!temporary && is_rvalue_reference(to)) ||
        (is_const_node(n) && !is_const(target)))
        return FIT_NOT;
    enum fit same = is_const(target) && !is_const_node(n) ? FIT_QUALIFIED : FIT_EXACT;
    if (is_place(n) && same_type(c->m, n->type, target, 0))
        return same;
    if (is_record(target))
        return is_place(n) && is_record(n->type) && find_base(c->m, n->type, target, &off, 0)
                   ? FIT_CONVERTED
                   : FIT_NOT;
    enum fit value = takes_temporaries ? fit_value(c, n, target) : FIT_NOT;
    return value > same ? value : value == FIT_NOT ? value : same;
}

/* The object of a method: any, also a temporary one, but for its const. */
static enum fit fit_object(struct compilation *c, const struct node *n, const struct candidate *f)
{
    bool takes_const =
        is_pointer(f->params[0]) && f->params[0]->target && is_const(f->params[0]->target);
    if (is_const_node(n) && !takes_const)
        return FIT_NOT;
    return takes_const && !is_const_node(n) ? FIT_QUALIFIED : FIT_EXACT;
}

/* Fills f->fits. A function that is no method takes an object only as an operator does, as an
 * argument. */
static bool fits(struct compilation *c, const struct arguments *args, struct candidate *f,
                 bool is_operator)
{
    size_t skip = args->has_object && !f->is_method && !is_operator
                      ? 1
                      : 0; // a static member of the object's class
    if (args->count - skip < f->count || (args->count - skip > f->count && !f->more) ||
        (f->is_method && !args->has_object))
        return false;
    for (size_t i = skip; i < args->count; i++) {
        size_t k = i - skip;
        const struct node *n = args->items[i];
        enum fit fit = k >= f->count                         ? FIT_ELLIPSIS
                       : k == 0 && f->is_method              ? fit_object(c, n, f)
                       : f->params[k]->kind == SYM_REFERENCE ? fit_reference(c, n, f->params[k])
                                                             : fit_value(c, n, f->params[k]);
        if (fit == FIT_NOT)
            return false;
        f->fits[i] = fit;
    }
    return true;
}

static bool is_better(const struct candidate *a, const struct candidate *b, size_t count)
{
    bool better = false;
    for (size_t i = 0; i < count; i++) {
        if (a->fits[i] > b->fits[i])
            return false;
        better |= a->fits[i] < b->fits[i];
    }
    return better || (!a->is_template && b->is_template);
}

static struct err *tell(struct compilation *c, const struct node *n, const char *name,
                        const char *what, const struct candidate *const *list, size_t count)
{
    struct buf names = {0};
    for (size_t i = 0; i < count && i < 8; i++)
        buf_printf(&names, "%s%.100s", i ? "; " : "", list[i]->name);
    struct err *e = err_at(c, ERR_USAGE, n->column, "%.100s: %s: %.300s%s", name, what,
                           buf_cstr(&names), count > 8 ? "; ..." : "");
    buf_deinit(&names);
    return e;
}

/* *out NULL: none fits. */
static struct err *choose(struct compilation *c, const struct node *n, const char *name,
                          const struct arguments *args, struct candidates *all, bool is_operator,
                          struct candidate **out)
{
    const struct candidate *fit[MOST_CANDIDATES];
    size_t count = 0;
    *out = NULL;
    for (size_t i = 0; i < all->count; i++) {
        if (fits(c, args, &all->items[i], is_operator))
            fit[count++] = &all->items[i];
    }
    for (size_t i = 0; i < count; i++) {
        size_t better_than = 0;
        for (size_t k = 0; k < count; k++)
            better_than += k != i && is_better(fit[i], fit[k], args->count);
        if (better_than + 1 == count)
            *out = &all->items[fit[i] - all->items];
    }
    if (count && (!*out || all->too_many))
        return tell(c, n, name, "these functions fit equally well", fit, count);
    return NULL;
}

static struct err *nothing_fits(struct compilation *c, const struct node *n, const char *name,
                                const struct candidates *all)
{
    const struct candidate *list[MOST_CANDIDATES];
    for (size_t i = 0; i < all->count; i++)
        list[i] = &all->items[i];
    return tell(c, n, name, "the number or the types of the arguments do not fit", list,
                all->count);
}

/* --- candidates --- */

/* Its parameters and result, of a function's or a function type's entry. */
static void read_signature(struct compilation *c, Dwarf_Die *die, struct candidate *f)
{
    Dwarf_Die child, from = *die;
    for (int pass = 0; pass < 2 && !f->count; pass++) { // as sym_function_parameters()
        if (die_child(&from, &child))
            do {
                int tag = dwarf_tag(&child);
                f->more |= tag == DW_TAG_unspecified_parameters;
                if (tag != DW_TAG_formal_parameter || f->count >= SYM_CALL_MOST_ARGUMENTS)
                    continue;
                f->is_method |= f->count == 0 && dwarf_tag(die) == DW_TAG_subprogram &&
                                die_flag(&child, DW_AT_artificial);
                f->params[f->count++] = type_of_die(c->m, &child);
            } while (die_sibling(&child, &child));
        if (!die_ref(&from, DW_AT_abstract_origin, &from))
            break;
    }
    f->result = type_of_die(c->m, die);
}

static const char *refusal(Dwarf_Die *die)
{
    Dwarf_Die unit;
    uint64_t convention;
    int language = dwarf_diecu(die, &unit, NULL, NULL) ? dwarf_srclang(&unit) : 0;
    if (language == DW_LANG_Rust)
        return "functions of Rust are not called: how they take arguments is not laid down";
    if (die_unsigned(die, DW_AT_calling_convention, &convention) && convention == DW_CC_nocall)
        return "it does not keep to the calling convention";
    return NULL;
}

static struct candidate *add_candidate(struct compilation *c, struct candidates *all,
                                       const char *name)
{
    if (!all->items)
        all->items = sym_pool_alloc(&c->pool, MOST_CANDIDATES * sizeof(*all->items));
    if (all->count == MOST_CANDIDATES) {
        all->too_many = true;
        return NULL;
    }
    struct candidate *f = &all->items[all->count++];
    f->name = name;
    return f;
}

/* Behind "[abi:cxx11]", which is no part of a name. */
static const char *behind_tags(const char *at)
{
    while (str_starts(at, "[abi:") && strchr(at, ']'))
        at = strchr(at, ']') + 1;
    return at;
}

/* Is it the function's shown name? "ns::f" is that of "ns::f(int)" and of "int ns::f<int>(int)";
 * anonymous namespaces do not count. */
static bool is_named(const char *shown, const char *wanted)
{
    static const char anonymous[] = "(anonymous namespace)::";
    cleanup(freep) char *name = xstrdup(shown);
    for (char *at; (at = strstr(name, anonymous));)
        memmove(at, at + strlen(anonymous), strlen(at + strlen(anonymous)) + 1);
    size_t len = strlen(wanted);
    for (const char *at = name; len && (at = strstr(at, wanted)); at++) {
        const char *behind = behind_tags(at + len),
                   *template = *behind == '<' ? template_end(behind) : NULL;
        bool typed =
            template || wanted[len - 1] == '>'; // templates' names begin with the result's type
        if (at != name && !(typed && at[-1] == ' '))
            continue;
        behind = template ? behind_tags(template) : behind;
        if (!*behind || *behind == '(')
            return true;
    }
    return false;
}

static bool is_known(const struct candidates *all, const struct sym_function *f)
{
    for (size_t i = 0; i < all->count; i++) {
        const struct sym_function *have = all->items[i].function;
        if (have &&
            (have == f || (have->range_count && f->range_count && have->start == f->start) ||
             (str_eq(have->name, f->name) && !f->range_count)))
            return true;
    }
    return false;
}

struct namesakes {
    struct compilation *c;
    const char *name;
    struct candidates *all;
    bool without_types; /* there are some that debug information does not know */
};

static bool add_function(void *arg, const struct sym_function *function)
{
    struct namesakes *names = arg;
    if (!is_named(function->name, names->name) || is_known(names->all, function))
        return true;
    names->without_types |= function->source != SYM_DWARF;
    if (function->source != SYM_DWARF)
        return true;
    struct candidate *f = add_candidate(names->c, names->all, function->name);
    if (!f)
        return false;
    f->function = function;
    f->die = function_of(function)->die;
    f->is_template = strchr(function->base_name, '<') != NULL;
    f->refused = refusal(&f->die);
    read_signature(names->c, &f->die, f);
    return true;
}

/* Functions of exactly this name. */
static bool add_functions(struct compilation *c, const char *full, struct candidates *all)
{
    struct namesakes names = {c, full, all, false};
    each_function(c->m, full, add_function, &names);
    return names.without_types;
}

/* As a name is looked up: the innermost scope that has some hides the others. */
static void add_visible_functions(struct compilation *c, const char *name, struct candidates *all)
{
    for (size_t len = innermost_scope(c); len != SIZE_MAX && !all->count;
         len = outer_scope(c, len)) {
        cleanup(freep) char *full = in_scope(c, len, name);
        add_functions(c, full, all);
    }
}

/* "square::area(int) const" */
static const char *method_name(struct compilation *c, const struct sym_type *owner,
                               const struct candidate *f, const char *name)
{
    struct buf b = {0};
    bool of_const = f->is_method && is_pointer(f->params[0]) && f->params[0]->target &&
                    is_const(f->params[0]->target);
    cleanup(freep) char *class = own_name(c->m, owner);
    buf_printf(&b, "%s::%s(", class, name);
    for (size_t i = f->is_method; i < f->count; i++)
        buf_printf(&b, "%s%s", i > f->is_method ? ", " : "", f->params[i]->name);
    buf_printf(&b, ")%s", of_const ? " const" : "");
    const char *kept = sym_pool_str(&c->pool, buf_cstr(&b));
    buf_deinit(&b);
    return kept;
}

static bool read_slot(Dwarf_Die *die, uint64_t *out)
{
    Dwarf_Attribute attr;
    Dwarf_Op *ops;
    size_t count;
    if (!dwarf_attr(die, DW_AT_vtable_elem_location, &attr))
        return false;
    if (dwarf_getlocation(&attr, &ops, &count) != 0 || count != 1 || ops[0].atom != DW_OP_constu ||
        ops[0].number > 100000)
        return false;
    *out = ops[0].number;
    return true;
}

static void add_method(struct compilation *c, const struct sym_type *owner, Dwarf_Die *die,
                       uint64_t off, const char *name, bool statically, struct candidates *all)
{
    uint64_t virtuality = 0;
    struct candidate *f = add_candidate(c, all, NULL);
    if (!f)
        return;
    f->die = *die;
    f->owner = owner;
    f->base_off = off;
    f->linkage_name = linkage_name(die);
    f->is_template = strchr(name, '<') != NULL;
    f->refused = refusal(die);
    read_signature(c, die, f);
    die_unsigned(die, DW_AT_virtuality, &virtuality);
    f->is_virtual = virtuality != DW_VIRTUALITY_none && !statically;
    if (f->is_virtual && !read_slot(die, &f->slot))
        f->refused = "where it is in the table of virtual functions is not known";
    f->name = method_name(c, owner, f, name);
}

/* The own ones of a class. */
static void add_own_methods(struct compilation *c, const struct sym_type *t, uint64_t off,
                            const char *name, bool statically, struct candidates *all)
{
    Dwarf_Die die = type_of(t)->die, child;
    if (!type_of(t)->has_die || !die_child(&die, &child))
        return;
    do {
        const char *have = dwarf_tag(&child) == DW_TAG_subprogram ? dwarf_diename(&child) : NULL;
        size_t len = strlen(name);
        bool same =
            have && (str_eq(have, name) || (str_starts(have, name) && have[len] == '<' &&
                                            template_end(have + len) == have + strlen(have)));
        if (same)
            add_method(c, t, &child, off, have, statically, all);
    } while (die_sibling(&child, &child));
}

/* A class' own ones hide those of its bases. Those of several bases hide nothing, and none is
 * better. */
static void add_methods(struct compilation *c, const struct sym_type *t, uint64_t off,
                        const char *name, bool statically, struct candidates *all,
                        bool *in_virtual_base, unsigned depth)
{
    size_t before = all->count;
    if (depth > MAX_DEPTH)
        return;
    add_own_methods(c, t, off, name, statically, all);
    if (all->count > before)
        return;
    struct members members;
    members_of(c->m, t, &members);
    vec_each (member, &members) {
        size_t had = all->count;
        if (member->is_base && is_record(member->type))
            add_methods(c, member->type, off + member->byte_off, name, statically, all,
                        in_virtual_base, depth + 1);
        for (size_t i = had; i < all->count && member->is_base && member->is_virtual; i++)
            *in_virtual_base = true;
    }
    vec_deinit(&members);
}

/* Base::f of an object: the class, and where it is. */
static bool find_class(struct compilation *c, const struct sym_type *t, const char *name,
                       size_t len, uint64_t off, const struct sym_type **out, uint64_t *off_out,
                       unsigned depth)
{
    cleanup(freep) char *own = own_name(c->m, t);
    const char *base = base_name(own);
    bool same = (strlen(own) == len && strncmp(own, name, len) == 0) ||
                (base && strlen(base) == len && strncmp(base, name, len) == 0);
    if (same) {
        *out = t;
        *off_out = off;
        return true;
    }
    struct members members;
    bool found = false;
    if (depth > MAX_DEPTH)
        return false;
    members_of(c->m, t, &members);
    for (size_t i = 0; i < members.count && !found; i++) {
        const struct member *member = &members.items[i];
        if (member->is_base && !member->is_virtual && is_record(member->type))
            found = find_class(c, member->type, name, len, off + member->byte_off, out, off_out,
                               depth + 1);
    }
    vec_deinit(&members);
    return found;
}

/* --- code --- */

static bool refers_to(const struct sym_function *f, const Dwarf_Die *declaration)
{
    Dwarf_Die die = function_of(f)->die;
    for (unsigned i = 0; i < 4; i++) {
        Dwarf_Die next;
        if (die.addr == declaration->addr)
            return true;
        if (!die_ref(&die, DW_AT_specification, &next) &&
            !die_ref(&die, DW_AT_abstract_origin, &next))
            return false;
        die = next;
    }
    return false;
}

/* The function in a class' own unit whose declaration this is: those without a linker's name (of
 * classes within functions). */
static const struct sym_function *defined_here(struct compilation *c, const Dwarf_Die *declaration)
{
    for (size_t i = 0; i < c->m->unit_count; i++) {
        struct unit *u = &c->m->units[i];
        if (u->missing || u->die.cu != declaration->cu)
            continue;
        load_functions(c->m, u);
        vec_each (range, &u->functions) {
            if (refers_to(&range->function->pub, declaration))
                return &range->function->pub;
        }
    }
    return NULL;
}

static struct err *no_code(struct compilation *c, const struct node *n, const struct candidate *f)
{
    return err_at(c, ERR_NOT_FOUND, n->column,
                  "%.200s has no code of its own in the program: the compiler put it into its "
                  "callers, or left it out",
                  f->name);
}

/* The address at which it runs. */
static struct err *find_code(struct compilation *c, const struct node *n, const struct candidate *f,
                             uint64_t *out)
{
    const struct sym_function *function = f->function;
    struct sym_caller *caller = c->request->caller;
    size_t count = 0;
    if (!function && f->linkage_name)
        err_free(sym_symbols_named(c->m, f->linkage_name, 1, &function, &count));
    if (!function && !f->linkage_name)
        function = defined_here(c, &f->die);
    if (function && function->source == SYM_PLT)
        function = NULL;
    if (!function && f->linkage_name && is_mangled(f->linkage_name) && caller->find &&
        caller->find(caller, f->linkage_name, out))
        return NULL;
    if (!function || !function->range_count)
        return no_code(c, n, f);
    if (is_clone(c->m, function->start))
        return err_at(c, ERR_UNSUPPORTED, n->column,
                      "%.200s: the compiler has changed its parameters", f->name);
    *out = function->start + c->request->bias;
    return NULL;
}

/* --- the call --- */

/* Of arguments that no parameter is for (C17 6.5.2.2). */
static const struct sym_type *default_promoted(struct compilation *c, const struct node *n)
{
    return is_real(n->type)      ? builtin("double")
           : is_integer(n->type) ? promoted(n)
                                 : argument_type(c, n);
}

static uint64_t shift_to(struct compilation *c, const struct sym_type *from,
                         const struct sym_type *to)
{
    uint64_t off = 0;
    if (from && to && is_record(from) && is_record(to) && !find_base(c->m, from, to, &off, 0))
        off = 0;
    return off;
}

static void pass_argument(struct compilation *c, struct node *n, const struct sym_type *param,
                          struct passing *out)
{
    *out = (struct passing){.node = n, .type = param};
    if (n->kind == NODE_STRING) {
        out->how = PASS_TEXT;
    } else if (is_record(param)) {
        out->how = PASS_ADDRESS;
    } else if (param->kind == SYM_REFERENCE) {
        bool as_it_is = is_place(n) && !n->bit_size &&
                        (is_record(param->target) || same_type(c->m, n->type, param->target, 0));
        out->how = as_it_is ? PASS_ADDRESS : PASS_TEMPORARY;
        out->type = as_it_is ? param : param->target;
        out->shift = as_it_is ? shift_to(c, n->type, param->target) : 0;
    } else if (is_pointer(param)) {
        out->shift = shift_to(c, argument_type(c, n)->target, param->target);
    }
}

static struct err *add_call(struct compilation *c, const struct node *n,
                            const struct sym_call *call, size_t *idx)
{
    enum { MOST_CALLS = 64 };
    if (c->calls.count == MOST_CALLS)
        return err_at(c, ERR_LIMIT, n->column, "more than %d calls", MOST_CALLS);
    *idx = c->calls.count;
    vec_push(&c->calls, *call);
    return NULL;
}

/* Makes n the call of f. `site` has its target. first: the argument that is its first parameter's.
 */
static struct err *make_site(struct compilation *c, struct node *n, const struct candidate *f,
                             const struct arguments *args, size_t first, struct call_site *site)
{
    const struct sym_type *types[SYM_CALL_MOST_ARGUMENTS];
    struct sym_call call;
    for (size_t i = first; i < args->count; i++) {
        size_t k = i - first;
        struct passing *p = &site->args[site->count++];
        types[k] = k < f->count ? f->params[k] : default_promoted(c, args->items[i]);
        if (k == 0 && f->is_method)
            *p = (struct passing){.node = args->items[i],
                                  .how = PASS_ADDRESS,
                                  .type = types[k],
                                  .shift = f->base_off};
        else
            pass_argument(c, args->items[i], types[k], p);
    }
    struct err *e = call_compile(c->m, f->result, types, site->count, &call);
    if (e) {
        struct err *shown =
            err_at(c, err_kind(e), n->column, "%.100s: %s", f->name, err_message(e));
        err_free(e);
        return shown;
    }
    call.name = sym_pool_str(&c->m->pool, f->name);
    TRY(add_call(c, n, &call, &site->call));
    for (size_t i = 0; i < site->count; i++) {
        struct passing *p = &site->args[i];
        call = (struct sym_call){.kind = p->how == PASS_TEXT ? SYM_CALL_TEXT : SYM_CALL_TEMPORARY};
        call.text = p->how == PASS_TEXT ? p->node->text : NULL;
        call.size =
            p->how == PASS_TEXT ? (uint32_t)strlen(p->node->text) + 1 : (uint32_t)p->type->size;
        if (p->how == PASS_TEXT || p->how == PASS_TEMPORARY)
            TRY(add_call(c, n, &call, &p->call));
    }
    n->kind = NODE_CALL;
    n->site = site;
    n->type = f->result;
    return NULL;
}

/* f fits. */
static struct err *call_candidate(struct compilation *c, struct node *n, const struct candidate *f,
                                  const struct arguments *args, bool is_operator)
{
    struct call_site *site = sym_pool_alloc(&c->pool, sizeof(*site));
    if (f->refused)
        return err_at(c, ERR_UNSUPPORTED, n->column, "%.100s: %s", f->name, f->refused);
    site->kind = f->is_virtual ? TARGET_SLOT : TARGET_KNOWN;
    site->target = f->slot;
    if (!f->is_virtual)
        TRY(find_code(c, n, f, &site->target));
    return make_site(c, n, f, args, args->has_object && !f->is_method && !is_operator ? 1 : 0,
                     site);
}

static struct err *call_one_of(struct compilation *c, struct node *n, const char *name,
                               struct candidates *all, const struct arguments *args)
{
    struct candidate *f;
    TRY(choose(c, n, name, args, all, false, &f));
    if (f)
        return call_candidate(c, n, f, args, false);
    for (size_t i = 0; i < all->count; i++) {
        if (all->items[i].is_method && !args->has_object)
            return err_at(c, ERR_USAGE, n->column, "%.100s needs an object", all->items[i].name);
    }
    return nothing_fits(c, n, name, all);
}

/* Of what points to a function. */
static struct err *call_pointer(struct compilation *c, struct node *n, struct node *pointer,
                                const struct arguments *args)
{
    const struct sym_type *t = pointer->type->target;
    struct candidate f = {.name = pointer->type->name};
    struct call_site *site = sym_pool_alloc(&c->pool, sizeof(*site));
    if (!t || t->kind != SYM_FUNCTION_TYPE || !type_of(t)->has_die)
        return err_at(c, ERR_NOT_FOUND, n->column, "what parameters %.100s has is not known",
                      pointer->type->name);
    f.die = type_of(t)->die;
    f.refused = refusal(&f.die);
    read_signature(c, &f.die, &f);
    struct candidates one = {.items = &f, .count = 1};
    if (f.refused)
        return err_at(c, ERR_UNSUPPORTED, n->column, "%s", f.refused);
    if (!fits(c, args, &f, true))
        return nothing_fits(c, n, "it", &one);
    site->kind = TARGET_POINTER;
    site->pointer = pointer;
    return make_site(c, n, &f, args, 0, site);
}

static struct err *take_arguments(struct compilation *c, struct node *n, struct arguments *args,
                                  unsigned depth)
{
    for (size_t i = 0; i < n->arg_count; i++) {
        struct node *arg = n->args[i];
        if (arg->kind == NODE_STRING) {
            arg->type = pointer_to(c, builtin("const char"));
            arg->resolved = true;
        } else {
            TRY(resolve_child(c, &arg, depth));
        }
        if (args->count == SYM_CALL_MOST_ARGUMENTS)
            return err_at(c, ERR_LIMIT, n->column, "too many arguments");
        args->items[args->count++] = arg;
    }
    return NULL;
}

/* Methods of the object, which is the first argument. *found false: the class has none of that
 * name. */
static struct err *call_method(struct compilation *c, struct node *n, const char *name,
                               const struct arguments *args, bool *found)
{
    struct candidates all = {0};
    const struct sym_type *t = args->items[0]->type;
    const char *base = base_name(name);
    uint64_t off = 0;
    bool in_virtual_base = false, qualified = base && base > name + 2;
    if (qualified && !find_class(c, t, name, (size_t)(base - name) - 2, 0, &t, &off, 0))
        return err_at(c, ERR_NOT_FOUND, n->column, "%.100s has no base class of %.100s", t->name,
                      name);
    add_methods(c, t, off, qualified ? base : name, qualified, &all, &in_virtual_base, 0);
    *found = all.count > 0;
    if (in_virtual_base)
        return err_at(c, ERR_UNSUPPORTED, n->column, "%.100s is in a virtual base class", name);
    return *found ? call_one_of(c, n, name, &all, args) : NULL;
}

static struct err *call_value(struct compilation *c, struct node *n, struct node *callee,
                              const struct arguments *given)
{
    bool found;
    if (!is_record(callee->type))
        return is_pointer(callee->type)
                   ? call_pointer(c, n, callee, given)
                   : err_at(c, ERR_USAGE, n->column, "%.100s is no function", callee->type->name);
    struct arguments args = {.items = {callee}, .count = given->count + 1, .has_object = true};
    if (given->count == SYM_CALL_MOST_ARGUMENTS)
        return err_at(c, ERR_LIMIT, n->column, "too many arguments");
    memcpy(args.items + 1, given->items, given->count * sizeof(given->items[0]));
    TRY(call_method(c, n, "operator()", &args, &found));
    return found ? NULL
                 : err_at(c, ERR_USAGE, n->column, "%.100s is no function", callee->type->name);
}

/* a.f(x), p->f(x) */
static struct err *resolve_method_call(struct compilation *c, struct node *n,
                                       const struct arguments *given, unsigned depth)
{
    struct node *member = n->a;
    struct arguments args = {.count = given->count + 1, .has_object = true};
    bool found;
    if (given->count == SYM_CALL_MOST_ARGUMENTS)
        return err_at(c, ERR_LIMIT, n->column, "too many arguments");
    TRY(resolve_object(c, member, depth));
    args.items[0] = member->a;
    memcpy(args.items + 1, given->items, given->count * sizeof(given->items[0]));
    if (!is_record(member->a->type))
        return err_at(c, ERR_USAGE, member->column, "%.100s has no members", member->a->type->name);
    TRY(call_method(c, n, member->text, &args, &found));
    if (found)
        return NULL;
    struct member data;
    if (!find_member(c->m, member->a->type, member->text, &data, 0))
        return err_at(c, ERR_NOT_FOUND, member->column, "%.100s has no member %.100s",
                      member->a->type->name, member->text);
    TRY(resolve_child(c, &n->a, depth));
    return call_value(c, n, n->a, given);
}

/* An unqualified name in a method: this->name(x), if the class has such a method. */
static struct err *resolve_own_method(struct compilation *c, struct node *n,
                                      const struct arguments *given, unsigned depth, bool *found)
{
    struct node *self = new_node(c, NODE_NAME, n->column);
    struct arguments args = {.count = given->count + 1, .has_object = true};
    self->text = "this";
    *found = false;
    if (!is_variable(c, "this") || given->count == SYM_CALL_MOST_ARGUMENTS)
        return NULL;
    struct err *e = resolve_child(c, &self, depth);
    bool usable =
        !e && is_pointer(self->type) && self->type->target && is_record(self->type->target);
    err_free(e);
    if (!usable)
        return NULL;
    args.items[0] = pointed_node(c, self);
    memcpy(args.items + 1, given->items, given->count * sizeof(given->items[0]));
    return strstr(n->a->text, "::") ? NULL : call_method(c, n, n->a->text, &args, found);
}

static struct err *no_function(struct compilation *c, const struct node *n)
{
    const struct sym_function *function = NULL;
    struct candidates none = {0};
    size_t count = 0;
    bool known = add_functions(c, n->a->text, &none);
    cleanup(freep) char *stub = str_format("%s@plt", n->a->text);
    err_free(sym_functions_named(c->m, stub, 1, &function, &count));
    if (count)
        return err_at(c, ERR_UNSUPPORTED, n->column, "%.100s is in another module", n->a->text);
    if (known)
        return err_at(c, ERR_NOT_FOUND, n->column,
                      "what parameters %.100s has is not known: it has no debug information",
                      n->a->text);
    return err_at(c, ERR_NOT_FOUND, n->column, "there is no function %.100s here", n->a->text);
}

static struct err *resolve_named_call(struct compilation *c, struct node *n,
                                      const struct arguments *args, unsigned depth)
{
    struct candidates all = {0};
    const char *name = n->a->text;
    bool found;
    if (is_variable(c, name) || is_member_of_this(c, name)) {
        TRY(resolve_child(c, &n->a, depth));
        return call_value(c, n, n->a, args);
    }
    TRY(resolve_own_method(c, n, args, depth, &found));
    if (found)
        return NULL;
    add_visible_functions(c, name, &all);
    if (all.count)
        return call_one_of(c, n, name, &all, args);
    if (is_known_variable(c, name)) {
        TRY(resolve_child(c, &n->a, depth));
        return call_value(c, n, n->a, args);
    }
    if (type_named(c, name))
        return err_at(c, ERR_UNSUPPORTED, n->column,
                      "%.100s is a type: constructors are not called; a cast is (type)x", name);
    return no_function(c, n);
}

struct err *resolve_call(struct compilation *c, struct node *n, unsigned depth)
{
    struct arguments args = {0};
    if (!c->request->caller && c->request->needs_caller)
        *c->request->needs_caller = true;
    if (!c->request->caller)
        return err_at(c, ERR_UNSUPPORTED, n->column,
                      "functions of the program are called where one moment is looked at, not at "
                      "each execution");
    TRY(take_arguments(c, n, &args, depth));
    if (n->a->kind == NODE_NAME)
        return resolve_named_call(c, n, &args, depth);
    if (n->a->kind == NODE_MEMBER)
        return resolve_method_call(c, n, &args, depth);
    while (n->a->kind == NODE_UNARY && n->a->op == '*' && !n->a->resolved) { // (*f)(x) is f(x)
        struct node *inner = n->a->a;
        TRY(resolve_child(c, &inner, depth));
        bool of_function = is_pointer(inner->type) && inner->type->target &&
                           inner->type->target->kind == SYM_FUNCTION_TYPE;
        n->a->a = inner;
        if (!of_function)
            break;
        n->a = inner;
    }
    TRY(resolve_child(c, &n->a, depth));
    return call_value(c, n, n->a, &args);
}

/* Functions of the name in the scope of an operand's class. */
static void add_associated(struct compilation *c, const struct sym_type *t, const char *name,
                           struct candidates *all)
{
    if (!is_record(t) && t->kind != SYM_ENUM)
        return;
    cleanup(freep) char *own = own_name(c->m, t);
    const char *base = base_name(own);
    if (!base)
        return;
    cleanup(freep) char *full = str_format("%.*s%s", (int)(base - own), own, name);
    add_functions(c, full, all);
}

struct err *resolve_operator(struct compilation *c, struct node *n, const char *name,
                             struct node *a, struct node *b, unsigned depth, bool *found)
{
    struct arguments args = {.items = {a, b}, .count = b ? 2 : 1, .has_object = is_record(a->type)};
    struct candidates all = {0};
    struct candidate *f = NULL;
    bool in_virtual_base = false;
    *found = false;
    if (!c->request->caller && c->request->needs_caller)
        *c->request->needs_caller = true;
    if (!c->request->caller)
        return NULL;
    for (size_t i = 0; i < args.count; i++) {
        if (args.items[i]->kind == NODE_STRING) {
            args.items[i]->type = pointer_to(c, builtin("const char"));
            args.items[i]->resolved = true;
        }
    }
    if (is_record(a->type))
        add_methods(c, a->type, 0, name, false, &all, &in_virtual_base, 0);
    bool only_members = str_eq(name, "operator[]") || str_eq(name, "operator->");
    if (!only_members) {
        add_associated(c, a->type, name, &all);
        if (b)
            add_associated(c, b->type, name, &all);
        size_t before = all.count;
        for (size_t len = innermost_scope(c); len != SIZE_MAX && all.count == before;
             len = outer_scope(c, len)) {
            cleanup(freep) char *full = in_scope(c, len, name);
            add_functions(c, full, &all);
        }
    }
    TRY(choose(c, n, name, &args, &all, true, &f));
    if (!f)
        return NULL;
    if (in_virtual_base && f->owner)
        return err_at(c, ERR_UNSUPPORTED, n->column, "%.100s is in a virtual base class", f->name);
    *found = true;
    return call_candidate(c, n, f, &args, true);
}
