/* Small reads of one debugging information entry. What is missing or damaged reads as absent. */
#include "sym/sym_int.h"

bool die_child(Dwarf_Die *die, Dwarf_Die *out)
{
    return dwarf_child(die, out) == 0;
}

bool die_sibling(Dwarf_Die *die, Dwarf_Die *out)
{
    Dwarf_Die next;
    if (dwarf_siblingof(die, &next) != 0 || (uintptr_t)next.addr <= (uintptr_t)die->addr)
        return false;
    *out = next;
    return true;
}

bool die_unsigned(Dwarf_Die *die, unsigned name, uint64_t *out)
{
    Dwarf_Attribute a;
    Dwarf_Word v;
    if (!dwarf_attr_integrate(die, name, &a) || dwarf_formudata(&a, &v) != 0)
        return false;
    *out = v;
    return true;
}

bool die_enumerator(Dwarf_Die *die, int64_t *out)
{
    Dwarf_Attribute a;
    Dwarf_Sword s;
    Dwarf_Word v;
    if (!dwarf_attr(die, DW_AT_const_value, &a))
        return false;
    unsigned form = dwarf_whatform(&a);
    bool is_signed = form == DW_FORM_sdata || form == DW_FORM_implicit_const;
    if (is_signed ? dwarf_formsdata(&a, &s) != 0 : dwarf_formudata(&a, &v) != 0)
        return false;
    *out = is_signed ? s : (int64_t)v;
    return true;
}

bool die_flag(Dwarf_Die *die, unsigned name)
{
    Dwarf_Attribute a;
    bool v;
    return dwarf_attr_integrate(die, name, &a) && dwarf_formflag(&a, &v) == 0 && v;
}

const char *die_string(Dwarf_Die *die, unsigned name)
{
    Dwarf_Attribute a;
    return dwarf_attr_integrate(die, name, &a) ? dwarf_formstring(&a) : NULL;
}

bool die_ref(Dwarf_Die *die, unsigned name, Dwarf_Die *out)
{
    Dwarf_Attribute a;
    Dwarf_Die target;
    if (!dwarf_attr(die, name, &a) || !dwarf_formref_die(&a, &target))
        return false;
    *out = target;
    return true;
}

bool die_type(Dwarf_Die *die, Dwarf_Die *out)
{
    Dwarf_Attribute a;
    Dwarf_Die target;
    if (!dwarf_attr_integrate(die, DW_AT_type, &a) || !dwarf_formref_die(&a, &target))
        return false;
    *out = target;
    return true;
}

/* The file of DW_AT_decl_file. */
static const char *declaring_file(struct sym_module *m, Dwarf_Die *die)
{
    Dwarf_Attribute attr;
    Dwarf_Word idx;
    Dwarf_Die unit;
    if (!dwarf_attr_integrate(die, DW_AT_decl_file, &attr) || dwarf_formudata(&attr, &idx) != 0 ||
        !dwarf_cu_die(attr.cu, &unit, NULL, NULL, NULL, NULL, NULL, NULL))
        return NULL;
    const struct file_table *t = file_table_of(m, &unit);
    return idx < t->count ? t->items[idx] : NULL;
}

void die_declaration(struct sym_module *m, Dwarf_Die *die, const char **file_out,
                     unsigned *line_out)
{
    int line = 0;
    *file_out = declaring_file(m, die);
    *line_out = dwarf_decl_line(die, &line) == 0 && line > 0 ? (unsigned)line : 0;
}
