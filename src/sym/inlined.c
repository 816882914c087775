/* Functions of which calls were compiled into their callers, and those calls.
 *
 * Each unit that inlines a function has an entry of it without code, an abstract instance (DWARF 5
 * section 3.3.8.1), from which the entries of the calls take name and parameters. So a function has
 * as many of these entries as units inline it; its name is what they share. All of them, and which
 * calls are of which, come from one pass over the units (scan.c), which is kept. */
#include "sym/sym_int.h"

enum { ORDINAL_BITS = 32 };

char *abstract_name(struct sym_module *m, const struct abstract *a)
{
    const struct unit *u = &m->units[a->unit];
    Dwarf_Die die = die_at(u, a->off);
    const char *linkage = linkage_name(&die), *name = dwarf_diename(&die);
    if (linkage && is_mangled(linkage))
        return demangled(linkage);
    cleanup(freep) char *scope = scope_name(u, a->scope);
    return str_format("%s%s%s", scope, *scope ? "::" : "",
                      name      ? name
                      : linkage ? linkage
                                : "(no name)");
}

/* The first of a unit, or the number of all. */
static size_t first_of_unit(const struct sym_module *m, size_t unit)
{
    size_t low = 0, high = m->abstracts.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->abstracts.items[middle].unit < unit)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct function *abstract_function(struct sym_module *m, size_t idx)
{
    const struct abstract *a = &m->abstracts.items[idx];
    struct function *f = sym_table_get(&m->abstract_functions, idx + 1);
    if (f)
        return f;
    struct unit *u = &m->units[a->unit];
    f = sym_pool_alloc(&m->pool, sizeof(*f));
    *f = (struct function){.unit = u, .die = die_at(u, a->off)};
    const char *base = dwarf_diename(&f->die);
    cleanup(freep) char *name = abstract_name(m, a);
    f->pub.name = sym_pool_str(&m->pool, name);
    f->pub.base_name = base ? base : f->pub.name;
    f->pub.linkage_name = die_string(&f->die, DW_AT_linkage_name);
    f->pub.source = SYM_DWARF;
    f->pub.id = (uint64_t)a->unit << ORDINAL_BITS | (idx - first_of_unit(m, a->unit));
    die_declaration(m, &f->die, &f->pub.decl_file, &f->pub.decl_line);
    sym_table_put(&m->abstract_functions, idx + 1, f);
    return f;
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

static void add_call(struct sym_module *m, const struct unit *u, uint32_t off,
                     struct sym_inlined_list *out)
{
    enum { MOST = 100000 };
    struct sym_inlined copy;
    Dwarf_Die die = die_at(u, off);
    if (out->count == MOST || !first_address(&die, &copy.entry) || !is_code(m, copy.entry))
        return;
    memcpy(&copy.die, &die, sizeof(die));
    vec_push(out, copy);
}

/* Those whose function's entry is in the same unit. */
static void add_near_calls(struct sym_module *m, const struct abstract *a,
                           struct sym_inlined_list *out)
{
    const struct unit *u = &m->units[a->unit];
    const struct scan_call *calls = u->scan.calls.items;
    size_t low = 0, count = u->scan.calls.count, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (calls[middle].origin < a->off)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < count && calls[low].origin == a->off; low++)
        add_call(m, u, calls[low].off, out);
}

/* Those whose function's entry is in another one, as after link-time optimization. */
static void add_far_calls(struct sym_module *m, const struct table *wanted,
                          struct sym_inlined_list *out)
{
    for (size_t i = 0; i < m->unit_count; i++) {
        const struct unit *u = &m->units[i];
        vec_each (c, &u->scan.far_calls) {
            if (sym_table_get(wanted, c->origin))
                add_call(m, u, c->off, out);
        }
    }
}

static int by_entry(const void *a, const void *b)
{
    const struct sym_inlined *x = a, *y = b;
    return x->entry < y->entry ? -1 : x->entry > y->entry;
}

struct err *sym_inlined_copies(struct sym_module *m, const struct sym_function *f,
                               struct sym_inlined_list *out)
{
    HOLD(m);
    struct table wanted = {0};
    struct sym_inlined_list found = {0};
    TRY(load_units(m));
    prepare(m, SYM_FOR_CALLS);
    uint64_t hash = str_hash(f->name);
    vec_each (a, &m->abstracts) {
        cleanup(freep) char *name = a->name_hash == hash ? abstract_name(m, a) : NULL;
        if (!name || !str_eq(name, f->name))
            continue;
        sym_table_put(&wanted, (uintptr_t)die_at(&m->units[a->unit], a->off).addr, a);
        add_near_calls(m, a, &found);
    }
    if (wanted.count)
        add_far_calls(m, &wanted, &found);
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

struct err *sym_inlined_parameters(struct sym_module *m, const struct sym_inlined *copy,
                                   struct sym_variables *out)
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
    TRY(load_units(m));
    prepare(m, SYM_FOR_CALLS);
    size_t unit = id >> ORDINAL_BITS, idx = first_of_unit(m, unit);
    uint64_t ordinal = id & ((1ull << ORDINAL_BITS) - 1);
    if (ordinal >= m->abstracts.count - idx || m->abstracts.items[idx + ordinal].unit != unit)
        return err_new(ERR_NOT_FOUND, "%s: no inlined function %jx", m->path, (uintmax_t)id);
    *out = &abstract_function(m, idx + ordinal)->pub;
    return NULL;
}
