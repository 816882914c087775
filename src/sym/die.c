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

bool die_signed(Dwarf_Die *die, unsigned name, int64_t *out)
{
    Dwarf_Attribute a;
    Dwarf_Sword v;
    if (!dwarf_attr_integrate(die, name, &a) || dwarf_formsdata(&a, &v) != 0)
        return false;
    *out = v;
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

/* The directory in which the unit of `cu` was compiled, or NULL. */
static const char *compilation_dir(Dwarf_CU *cu)
{
    Dwarf_Die unit;
    return dwarf_cu_die(cu, &unit, NULL, NULL, NULL, NULL, NULL, NULL) ? die_string(&unit, DW_AT_comp_dir) : NULL;
}

void die_declaration(struct sym_module *m, Dwarf_Die *die, const char **file_out, unsigned *line_out)
{
    int line = 0;
    Dwarf_Attribute attr;
    const char *file = dwarf_decl_file(die), *dir = NULL;
    if (file && file[0] != '/' && dwarf_attr_integrate(die, DW_AT_decl_file, &attr))
        dir = compilation_dir(attr.cu);
    cleanup(freep) char *full = file && dir ? str_format("%s/%s", dir, file) : NULL;
    *file_out = full ? intern_file(m, full) : file ? intern_file(m, file) : NULL;
    *line_out = dwarf_decl_line(die, &line) == 0 && line > 0 ? (unsigned)line : 0;
}
