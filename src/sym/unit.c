/* Compilation units and the functions they define. The ranges of units are read when the module is
 * first asked for DWARF, the functions of a unit when an address in it is first asked for: a pass
 * over its entries (scan.c) tells which are functions, libdw what they are.
 *
 * Ranges are taken from .debug_aranges (DWARF 5 section 6.1.2), which is quickly read, of units
 * that are in it; from all units' entries when an address is in none of these. */
#include "base/bytes.h"
#include "sym/sym_int.h"

bool is_cplusplus(int language)
{
    switch (language) {
    case DW_LANG_C_plus_plus:
    case DW_LANG_C_plus_plus_03:
    case DW_LANG_C_plus_plus_11:
    case DW_LANG_C_plus_plus_14:
    case DW_LANG_ObjC_plus_plus:
    case DW_LANG_Rust:
    case DW_LANG_D:
    case 0x2b: // DW_LANG_C_plus_plus_17
    case 0x2c: // DW_LANG_C_plus_plus_20
        return true;
    default:
        return false;
    }
}

int unit_language(const struct unit *u)
{
    Dwarf_Die die = u->die;
    return dwarf_srclang(&die);
}

static int compare_unit_ranges(const void *x, const void *y)
{
    const struct unit_range *a = x, *b = y;
    return a->start == b->start ? 0 : a->start < b->start ? -1 : 1;
}

static void add_range(struct sym_module *m, struct unit *u, vaddr start, vaddr end)
{
    if (end > start && is_code(m, start))
        vec_push(&m->unit_ranges, (struct unit_range){start, end, u});
}

static void add_unit(struct sym_module *m, struct unit *u)
{
    Dwarf_Addr base, start, end;
    size_t before = m->unit_ranges.count;
    for (ptrdiff_t off = 0; (off = dwarf_ranges(&u->line_die, off, &base, &start, &end)) > 0;)
        add_range(m, u, start, end);
    u->ranges_known = m->unit_ranges.count > before || dwarf_hasattr(&u->line_die, DW_AT_ranges);
    m->has_rangeless_units |= !u->ranges_known;
}

static void sort_ranges(struct sym_module *m)
{
    if (m->unit_ranges.count)
        qsort(m->unit_ranges.items, m->unit_ranges.count, sizeof(*m->unit_ranges.items),
              compare_unit_ranges);
}

/* The unit whose header is at that offset of .debug_info, or NULL. */
static struct unit *unit_at_offset(struct sym_module *m, uint64_t off)
{
    size_t low = 0, high = m->unit_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        Dwarf_Die *die = &m->units[mid].line_die;
        uint64_t here = dwarf_dieoffset(die) - dwarf_cuoffset(die);
        if (here == off)
            return &m->units[mid];
        if (here < off)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

/* One unit's ranges; false: they make no sense. */
static bool read_arange_set(struct sym_module *m, struct bytes *b)
{
    size_t start = b->pos;
    uint64_t len = bytes_u32(b), off;
    bool is_64bit = len == UINT32_MAX;
    if (is_64bit)
        len = bytes_u64(b);
    if (len > bytes_left(b))
        return false;
    size_t end = b->pos + len;
    unsigned version = bytes_u16(b);
    off = is_64bit ? bytes_u64(b) : bytes_u32(b);
    unsigned address_size = bytes_u8(b), selector_size = bytes_u8(b);
    struct unit *u =
        version == 2 && address_size == 8 && selector_size == 0 ? unit_at_offset(m, off) : NULL;
    bytes_seek(b, start + (b->pos - start + 15) / 16 * 16); // to a multiple of a pair's size
    while (u && !b->failed && b->pos + 16 <= end) {
        vaddr first = bytes_u64(b);
        uint64_t size = bytes_u64(b);
        if (first <= UINT64_MAX - size)
            add_range(m, u, first, first + size);
        u->ranges_known = true;
    }
    bytes_seek(b, end);
    return !b->failed;
}

static void load_ranges(struct sym_module *m)
{
    Elf_Data *data = unpacked_section(dwarf_getelf(m->dwarf), ".debug_aranges");
    struct bytes b = data ? bytes_of(data->d_buf, data->d_size) : bytes_of("", 0);
    while (bytes_left(&b) && read_arange_set(m, &b)) {
    }
    for (size_t i = 0; i < m->unit_count; i++) {
        if (!m->units[i].ranges_known)
            add_unit(m, &m->units[i]);
        else
            m->ranges_from_index = true;
    }
    sort_ranges(m);
}

struct err *load_units(struct sym_module *m)
{
    TRY(need_dwarf(m));
    if (m->units_loaded)
        return NULL;
    m->units_loaded = true;
    VEC(struct unit) units = {0};
    Dwarf_CU *cu = NULL;
    Dwarf_Half version;
    uint8_t type;
    Dwarf_Die die, sub;
    while (dwarf_get_units(m->dwarf, cu, &cu, &version, &type, &die, &sub) == 0) {
        if (type != DW_UT_compile && type != DW_UT_skeleton)
            continue;
        if (!die.addr)
            continue;
        struct unit u = {.die = die, .line_die = die};
        if (type == DW_UT_skeleton) {
            if (sub.addr)
                u.die = sub;
            else
                u.missing = "its split debug information (.dwo) was not found";
        }
        vec_push(&units, u);
    }
    m->units = units.items;
    m->unit_count = units.count;
    load_ranges(m);
    return NULL;
}

/* ---- Functions ---- */

/* The linker's name of the ELF symbol that begins exactly at `addr`, or NULL. */
static const char *symbol_name_at(struct sym_module *m, vaddr addr)
{
    load_symbols(m);
    const struct function *f = function_table_find(&m->symbols, addr);
    return f && f->pub.start == addr && f->pub.source == SYM_ELF ? f->pub.linkage_name : NULL;
}

const char *linkage_name(Dwarf_Die *die)
{
    const char *name = die_string(die, DW_AT_linkage_name);
    return name ? name : die_string(die, DW_AT_MIPS_linkage_name);
}

const char *die_function_name(struct sym_module *m, Dwarf_Die *die, const char *scope)
{
    const char *linkage = linkage_name(die);
    if (linkage && is_mangled(linkage))
        return demangle(m, linkage);
    const char *name = dwarf_diename(die);
    if (!name)
        name = linkage ? linkage : "(no name)";
    if (!scope || !*scope)
        return name;
    cleanup(freep) char *full = str_format("%s::%s", scope, name);
    return sym_pool_str(&m->pool, full);
}

char *scope_name(const struct unit *u, uint32_t scope)
{
    char *inner = xstrdup("");
    for (unsigned depth = 0; scope && depth < MAX_DEPTH; depth++) {
        const struct scan_scope *s = &u->scan.scopes.items[scope - 1];
        Dwarf_Die die = die_at(u, s->off);
        const char *name = dwarf_diename(&die);
        char *outer =
            str_format("%s%s%s", name ? name : "(anonymous namespace)", *inner ? "::" : "", inner);
        free(inner);
        inner = outer;
        scope = s->parent;
    }
    return inner;
}

const char *scanned_function_name(struct sym_module *m, const struct unit *u, Dwarf_Die *die,
                                  uint32_t scope)
{
    cleanup(freep) char *name = scope ? scope_name(u, scope) : NULL;
    return die_function_name(m, die, name);
}

/* Reads the ranges, the one with the entry first. False: the entry has no code. */
static bool read_ranges(struct sym_module *m, Dwarf_Die *die, struct function *f)
{
    VEC(struct sym_range) ranges = {0};
    Dwarf_Addr base, start, end, entry = 0;
    for (ptrdiff_t off = 0;
         ranges.count < 4096 && (off = dwarf_ranges(die, off, &base, &start, &end)) > 0;)
        if (end > start && is_code(m, start) && is_code(m, end - 1))
            vec_push(&ranges, (struct sym_range){start, end});
    if (!ranges.count) {
        vec_deinit(&ranges);
        return false;
    }
    if (dwarf_hasattr(die, DW_AT_entry_pc) && dwarf_entrypc(die, &entry) == 0)
        for (size_t i = 1; i < ranges.count; i++)
            if (ranges.items[i].start == entry) {
                struct sym_range first = ranges.items[0];
                ranges.items[0] = ranges.items[i];
                ranges.items[i] = first;
            }
    size_t len = ranges.count * sizeof(*ranges.items);
    struct sym_range *kept = ranges.count == 1 ? &f->own_range : sym_pool_alloc(&m->pool, len);
    memcpy(kept, ranges.items, len);
    f->pub.ranges = kept;
    f->pub.range_count = ranges.count;
    f->pub.start = kept[0].start;
    f->pub.end = kept[0].end;
    vec_deinit(&ranges);
    return true;
}

static void add_function(struct sym_module *m, struct unit *u, const struct scan_function *found)
{
    Dwarf_Die entry = die_at(u, found->off), *die = &entry;
    struct function read = {.unit = u, .die = entry};
    if (!read_ranges(m, die, &read))
        return; // the linker dropped it
    struct function *f = sym_pool_alloc(&m->pool, sizeof(*f));
    *f = read;
    if (f->pub.range_count == 1)
        f->pub.ranges = &f->own_range;
    const char *base = dwarf_diename(die), *linkage = linkage_name(die);
    if (!linkage)
        linkage = is_cplusplus(unit_language(u)) ? symbol_name_at(m, f->pub.start) : base;
    f->pub.linkage_name = linkage;
    if (!base && !linkage)
        linkage =
            symbol_name_at(m, f->pub.start); // the name may be in a file of dwz that was not found
    if (linkage && !linkage_name(die) && (str_starts(linkage, "_Z") || !base))
        f->pub.name = demangle(m, linkage);
    else
        f->pub.name = scanned_function_name(m, u, die, found->scope);
    f->pub.base_name = base ? base : f->pub.name;
    f->pub.source = SYM_DWARF;
    f->pub.id = dwarf_dieoffset(die);
    die_declaration(m, die, &f->pub.decl_file, &f->pub.decl_line);
    for (size_t i = 0; i < f->pub.range_count; i++)
        vec_push(&u->functions,
                 (struct function_range){f->pub.ranges[i].start, f->pub.ranges[i].end, f});
}

void load_functions(struct sym_module *m, struct unit *u)
{
    if (u->functions_loaded)
        return;
    u->functions_loaded = true;
    scan_unit(u);
    vec_each (f, &u->scan.functions)
        add_function(m, u, f);
    function_table_sort(&u->functions);
}

static struct unit *find_by_range(struct sym_module *m, vaddr addr)
{
    size_t low = 0, high = m->unit_ranges.count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (m->unit_ranges.items[mid].start <= addr)
            low = mid + 1;
        else
            high = mid;
    }
    for (size_t tries = 0; low > 0 && tries < 16; tries++, low--)
        if (addr < m->unit_ranges.items[low - 1].end)
            return m->unit_ranges.items[low - 1].unit;
    return NULL;
}

/* In place of what .debug_aranges says. */
static void load_exact_ranges(struct sym_module *m)
{
    m->ranges_from_index = false;
    m->unit_ranges.count = 0;
    for (size_t i = 0; i < m->unit_count; i++)
        add_unit(m, &m->units[i]);
    sort_ranges(m);
}

struct unit *unit_at(struct sym_module *m, vaddr addr)
{
    struct unit *found = find_by_range(m, addr);
    if (!found && m->ranges_from_index && is_code(m, addr)) {
        load_exact_ranges(m);
        found = find_by_range(m, addr);
    }
    for (size_t i = 0; !found && m->has_rangeless_units && i < m->unit_count; i++) {
        struct unit *u = &m->units[i];
        if (u->ranges_known)
            continue;
        load_functions(m, u);
        if (function_table_find(&u->functions, addr))
            found = u;
    }
    return found;
}

const struct function *dwarf_function_at(struct sym_module *m, vaddr addr)
{
    struct unit *u = unit_at(m, addr);
    if (!u)
        return NULL;
    load_functions(m, u);
    return function_table_find(&u->functions, addr);
}

struct err *sym_function_at(struct sym_module *m, vaddr addr, const struct sym_function **out)
{
    HOLD(m);
    const struct function *f = NULL;
    if (!is_code(m, addr)) // nothing need be loaded to know
        return err_new(ERR_NOT_FOUND, "%s: no function at 0x%jx", m->path, (uintmax_t)addr);
    load_dwarf(m);
    if (m->dwarf) {
        TRY(load_units(m));
        f = dwarf_function_at(m, addr);
    }
    if (!f) {
        load_symbols(m);
        f = function_table_find(&m->symbols, addr);
    }
    if (!f)
        return err_new(ERR_NOT_FOUND, "%s: no function at 0x%jx", m->path, (uintmax_t)addr);
    *out = &f->pub;
    return NULL;
}
