/* Functions of which calls were compiled into their callers, and those calls.
 *
 * Each unit that inlines a function has an entry of it without code, an abstract instance (DWARF 5 section 3.3.8.1), from which the entries of
 * the calls take name and parameters. So a function has as many of these entries as units inline it; its name is what they share. */
#include "sym/sym_int.h"

enum { ORDINAL_BITS = 32 };

void add_abstract(struct sym_module *m, struct unit *u, Dwarf_Die *die, const char *scope)
{
    uint64_t kind;
    if (!die_unsigned(die, DW_AT_inline, &kind) || (kind != DW_INL_inlined && kind != DW_INL_declared_inlined))
        return;
    struct function *f = sym_pool_alloc(&m->pool, sizeof(*f));
    *f = (struct function){.unit = u, .die = *die};
    f->pub.name = die_function_name(m, die, scope);
    const char *base = dwarf_diename(die), *linkage = die_string(die, DW_AT_linkage_name);
    f->pub.base_name = base ? sym_pool_str(&m->pool, base) : f->pub.name;
    f->pub.linkage_name = linkage ? sym_pool_str(&m->pool, linkage) : NULL;
    f->pub.source = SYM_DWARF;
    f->pub.id = (uint64_t)(u - m->units) << ORDINAL_BITS | u->abstract_count++;
    die_declaration(m, die, &f->pub.decl_file, &f->pub.decl_line);
    vec_push(&m->abstracts, f);
}

static int by_id(const void *a, const void *b)
{
    const struct function *const *x = a, *const *y = b;
    return (*x)->pub.id < (*y)->pub.id ? -1 : (*x)->pub.id > (*y)->pub.id;
}

void load_abstracts(struct sym_module *m)
{
    if (m->abstracts_sorted)
        return;
    m->abstracts_sorted = true;
    load_all_functions(m); // a unit's when it is first needed, so in any order
    if (m->abstracts.count)
        qsort(m->abstracts.items, m->abstracts.count, sizeof(m->abstracts.items[0]), by_id);
}

/* The first address of an inlined call. False: it has no code. */
static bool first_address(Dwarf_Die *die, vaddr *out)
{
    Dwarf_Addr base, start, end, entry;
    if (dwarf_hasattr(die, DW_AT_entry_pc) && dwarf_entrypc(die, &entry) == 0) {
        *out = entry;
        return true;
    }
    if (dwarf_ranges(die, 0, &base, &start, &end) <= 0)
        return false;
    *out = start;
    return true;
}

static void find_copies(struct sym_module *m, Dwarf_Die *parent, const struct table *wanted, struct sym_inlined_list *out, unsigned depth)
{
    enum { MOST = 100000 };
    Dwarf_Die die, origin;
    if (depth > MAX_DEPTH || !die_child(parent, &die))
        return;
    do {
        struct sym_inlined copy;
        switch (dwarf_tag(&die)) {
        case DW_TAG_inlined_subroutine:
            if (out->count < MOST && die_ref(&die, DW_AT_abstract_origin, &origin) && sym_table_get(wanted, (uintptr_t)origin.addr) &&
                first_address(&die, &copy.entry) && is_code(m, copy.entry)) {
                memcpy(&copy.die, &die, sizeof(die));
                vec_push(out, copy);
            }
            find_copies(m, &die, wanted, out, depth + 1);
            break;
        case DW_TAG_subprogram:
        case DW_TAG_lexical_block:
        case DW_TAG_namespace:
        case DW_TAG_module:
        case DW_TAG_class_type:
        case DW_TAG_structure_type:
            find_copies(m, &die, wanted, out, depth + 1);
            break;
        default:
            break;
        }
    } while (die_sibling(&die, &die));
}

static int by_entry(const void *a, const void *b)
{
    const struct sym_inlined *x = a, *y = b;
    return x->entry < y->entry ? -1 : x->entry > y->entry;
}

struct err *sym_inlined_copies(struct sym_module *m, const struct sym_function *f, struct sym_inlined_list *out)
{
    HOLD(m);
    struct table wanted = {0};
    struct sym_inlined_list found = {0};
    TRY(load_units(m));
    load_abstracts(m);
    vec_each (a, &m->abstracts) {
        if (str_eq((*a)->pub.name, f->name))
            sym_table_put(&wanted, (uintptr_t)(*a)->die.addr, *a);
    }
    const struct unit *last = NULL;
    vec_each (a, &m->abstracts) {
        if ((*a)->unit == last || !str_eq((*a)->pub.name, f->name))
            continue;
        last = (*a)->unit; // the abstract instances of a unit follow one another
        Dwarf_Die unit = last->die;
        find_copies(m, &unit, &wanted, &found, 0);
    }
    sym_table_deinit(&wanted);
    if (found.count)
        qsort(found.items, found.count, sizeof(found.items[0]), by_entry);
    *out = found;
    return NULL;
}

void sym_inlined_list_deinit(struct sym_inlined_list *l)
{
    vec_deinit(l);
}

/* Where the parameter is declared. */
static Dwarf_Off declared_at(const struct sym_variable *v)
{
    Dwarf_Die die, origin;
    memcpy(&die, &v->die, sizeof(die));
    return dwarf_dieoffset(die_ref(&die, DW_AT_abstract_origin, &origin) ? &origin : &die);
}

/* gcc lists a call's parameters in any order. */
static int by_declaration(const void *a, const void *b)
{
    Dwarf_Off x = declared_at(a), y = declared_at(b);
    return x < y ? -1 : x > y;
}

struct err *sym_inlined_parameters(struct sym_module *m, const struct sym_inlined *copy, struct sym_variables *out)
{
    HOLD(m);
    Dwarf_Die die, parent;
    struct sym_variables found = {0};
    const struct sym_function *in;
    TRY(sym_function_at(m, copy->entry, &in));
    memcpy(&parent, &copy->die, sizeof(parent));
    if (die_child(&parent, &die)) {
        do {
            if (dwarf_tag(&die) == DW_TAG_formal_parameter && found.count < 4096)
                variable_from_die(m, &die, in, vec_add(&found));
        } while (die_sibling(&die, &die));
    }
    if (found.count)
        qsort(found.items, found.count, sizeof(found.items[0]), by_declaration);
    *out = found;
    return NULL;
}

struct err *sym_inlined_function(struct sym_module *m, uint64_t id, const struct sym_function **out)
{
    HOLD(m);
    const struct function wanted = {.pub.id = id}, *key = &wanted;
    TRY(load_units(m));
    load_abstracts(m);
    struct function **found = m->abstracts.count ? bsearch(&key, m->abstracts.items, m->abstracts.count, sizeof(key), by_id) : NULL;
    if (!found)
        return err_new(ERR_NOT_FOUND, "%s: no inlined function %jx", m->path, (uintmax_t)id);
    *out = &(*found)->pub;
    return NULL;
}
