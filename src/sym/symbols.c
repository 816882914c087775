/* Functions from ELF symbol tables: .symtab, .dynsym, the xz-packed .gnu_debugdata, and the names
 * of PLT stubs. */
#include "base/bytes.h"
#include "sym/sym_int.h"

// libiberty declares an xmemdup of its own, with another signature; the demanglers do not call it.
#define xmemdup libiberty_xmemdup
#include <libiberty/demangle.h>
#undef xmemdup
#include <lzma.h>

enum { MAX_MINI_IMAGE = 256 << 20 };

char *demangled(const char *name)
{
    // Not cplus_demangle(): that one brings in all of libiberty, and its allocator.
    char *plain = is_mangled(name) ? rust_demangle(name, DMGL_PARAMS) : NULL;
    if (!plain && is_mangled(name))
        plain = cplus_demangle_v3(name, DMGL_PARAMS | DMGL_ANSI);
    return plain ? plain : xstrdup(name);
}

const char *demangle(struct sym_module *m, const char *name)
{
    if (!is_mangled(name))
        return name;
    const char *known = sym_table_get(&m->demangled, (uintptr_t)name);
    if (known)
        return known;
    cleanup(freep) char *plain = demangled(name);
    known = sym_pool_str(&m->pool, plain);
    sym_table_put(&m->demangled, (uintptr_t)name, (void *)(uintptr_t)known);
    return known;
}

static int compare_ranges(const void *x, const void *y)
{
    const struct function_range *a = x, *b = y;
    if (a->start != b->start)
        return a->start < b->start ? -1 : 1;
    // Of equal starts the preferred comes last, where the search looks first.
    if (a->function->preference != b->function->preference)
        return a->function->preference > b->function->preference ? -1 : 1;
    return a->end == b->end  ? strcmp(b->function->pub.name, a->function->pub.name)
           : a->end > b->end ? -1
                             : 1;
}

void function_table_sort(struct function_table *t)
{
    if (t->count)
        qsort(t->items, t->count, sizeof(*t->items), compare_ranges);
}

const struct function *function_table_find(const struct function_table *t, vaddr addr)
{
    size_t low = 0, high = t->count; // the first range that starts after addr
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (t->items[mid].start <= addr)
            low = mid + 1;
        else
            high = mid;
    }
    // Ranges seldom nest; a bounded look back finds the enclosing one.
    for (size_t tries = 0; low > 0 && tries < 64; tries++, low--)
        if (addr < t->items[low - 1].end)
            return t->items[low - 1].function;
    return NULL;
}

static struct function *add_symbol(struct sym_module *m, const char *linkage, const char *name,
                                   vaddr start, uint64_t len, enum sym_source source)
{
    struct function *f = sym_pool_alloc(&m->pool, sizeof(*f));
    f->own_range = (struct sym_range){start, start + len};
    f->pub = (struct sym_function){.name = name,
                                   .base_name = name,
                                   .linkage_name = linkage,
                                   .start = start,
                                   .end = start + len,
                                   .ranges = &f->own_range,
                                   .range_count = 1,
                                   .source = source,
                                   .id = start};
    vec_push(&m->symbol_list, f);
    return f;
}

/* Less is better: global before weak before local names, then few leading underscores. */
static unsigned preference_of(unsigned char info, const char *name)
{
    unsigned binding = GELF_ST_BIND(info) == STB_GLOBAL ? 0
                       : GELF_ST_BIND(info) == STB_WEAK ? 1
                                                        : 2;
    return binding * 16 + (unsigned)strspn(name, "_") % 16;
}

typedef void symbol_visitor(struct sym_module *m, const GElf_Sym *s, const char *name, void *arg);

/* The named symbols in a file's tables of one type; of code, or of data. */
static void visit_symbols(struct sym_module *m, Elf *elf, unsigned type, bool data,
                          symbol_visitor *visit, void *arg)
{
    for (Elf_Scn *scn = elf_nextscn(elf, NULL); scn; scn = elf_nextscn(elf, scn)) {
        GElf_Shdr h;
        if (!gelf_getshdr(scn, &h) || h.sh_type != type || h.sh_entsize == 0)
            continue;
        Elf_Data *table = elf_getdata(scn, NULL);
        size_t count = table ? table->d_size / h.sh_entsize : 0;
        for (size_t i = 1; i < count && i < INT32_MAX; i++) {
            GElf_Sym s;
            if (!gelf_getsym(table, (int)i, &s) || s.st_shndx == SHN_UNDEF ||
                is_code(m, s.st_value) == data)
                continue;
            unsigned kind = GELF_ST_TYPE(s.st_info);
            if (data ? kind != STT_OBJECT
                     : kind != STT_FUNC && kind != STT_GNU_IFUNC && kind != STT_NOTYPE)
                continue;
            const char *name = elf_strptr(elf, h.sh_link, s.st_name);
            if (name && *name)
                visit(m, &s, name, arg);
        }
    }
}

struct wanted_object {
    const char *name;
    vaddr addr;
    bool found;
};

static void look_for_object(struct sym_module *m, const GElf_Sym *s, const char *name, void *arg)
{
    struct wanted_object *w = arg;
    if (str_eq(name, w->name)) {
        w->addr = s->st_value;
        w->found = true;
    }
}

struct err *sym_exported_object(struct sym_module *m, const char *name, vaddr *out)
{
    HOLD(m);
    struct wanted_object wanted = {.name = name};
    visit_symbols(m, m->elf, SHT_DYNSYM, true, look_for_object, &wanted);
    *out = wanted.addr;
    return wanted.found ? NULL : err_new(ERR_NOT_FOUND, "%s: exports no %s", m->path, name);
}

static void add_named_symbol(struct sym_module *m, const GElf_Sym *s, const char *name, void *arg)
{
    struct table *seen = arg;
    uint64_t key = str_hash(name) ^ (s->st_value * 0x9e3779b97f4a7c15u);
    key = key ? key : 1;
    if (sym_table_get(seen, key))
        return;
    struct function *f = add_symbol(m, name, demangle(m, name), s->st_value, s->st_size, SYM_ELF);
    f->preference =
        preference_of(s->st_info, name) + (GELF_ST_TYPE(s->st_info) == STT_NOTYPE ? 64 : 0);
    sym_table_put(seen, key, f);
}

/* ---- Clones ---- */

static bool is_clones_name(const char *name)
{
    return strchr(name, '.') &&
           (strstr(name, ".isra") || strstr(name, ".constprop") || strstr(name, ".part"));
}

static void add_clone(struct sym_module *m, const GElf_Sym *s, const char *name, void *arg)
{
    if (is_clones_name(name))
        sym_table_put(&m->clones, s->st_value + 1, m);
}

/* Symbols are not loaded for this: that takes much longer, and is as a rule not needed for anything
 * else. */
static bool may_be_clone(struct sym_module *m, vaddr start)
{
    if (!m->clones_loaded) {
        m->clones_loaded = true;
        load_dwarf(m);
        visit_symbols(m, m->elf, SHT_SYMTAB, false, add_clone, NULL);
        if (m->debug_elf)
            visit_symbols(m, m->debug_elf, SHT_SYMTAB, false, add_clone, NULL);
        m->clones_packed = find_section(m->elf, ".gnu_debugdata", NULL, NULL);
    }
    return m->clones_packed || sym_table_get(&m->clones, start + 1);
}

bool is_clone(struct sym_module *m, vaddr start)
{
    if (!may_be_clone(m, start))
        return false;
    load_symbols(m);
    const struct function *s = function_table_find(&m->symbols, start);
    const char *name = s && s->pub.start == start ? s->pub.linkage_name : NULL;
    return name && is_clones_name(name);
}

/* .gnu_debugdata: an xz-packed ELF file with a .symtab of the functions that .dynsym lacks. */
static Elf *unpack_mini_elf(struct sym_module *m)
{
    Elf_Data *data;
    if (!find_section(m->elf, ".gnu_debugdata", NULL, &data))
        return NULL;
    for (size_t cap = data->d_size * 4 + 4096; cap <= MAX_MINI_IMAGE; cap *= 2) {
        uint64_t memory = 256 << 20;
        size_t in = 0, len = 0;
        uint8_t *image = malloc(cap);
        if (!image)
            return NULL;
        lzma_ret r = lzma_stream_buffer_decode(&memory, 0, NULL, data->d_buf, &in, data->d_size,
                                               image, &len, cap);
        if (r == LZMA_OK) {
            m->mini_image = image;
            m->mini_len = len;
            m->mini_elf = elf_memory((char *)image, len);
            return m->mini_elf;
        }
        free(image);
        if (r != LZMA_BUF_ERROR)
            return NULL;
    }
    return NULL;
}

/* The name of the symbol that the dynamic linker puts into each slot of the global offset table. */
static void read_slots(Elf *elf, struct table *slots)
{
    for (Elf_Scn *scn = elf_nextscn(elf, NULL); scn; scn = elf_nextscn(elf, scn)) {
        GElf_Shdr h, sym_header;
        if (!gelf_getshdr(scn, &h) || h.sh_type != SHT_RELA || h.sh_entsize == 0)
            continue;
        Elf_Scn *sym_scn = elf_getscn(elf, h.sh_link);
        Elf_Data *data = elf_getdata(scn, NULL),
                 *syms = sym_scn ? elf_getdata(sym_scn, NULL) : NULL;
        if (!data || !syms || !gelf_getshdr(sym_scn, &sym_header))
            continue;
        for (size_t i = 0; i < data->d_size / h.sh_entsize && i < INT32_MAX; i++) {
            GElf_Rela r;
            GElf_Sym s;
            if (!gelf_getrela(data, (int)i, &r) || r.r_offset == 0 ||
                (GELF_R_TYPE(r.r_info) != R_X86_64_JUMP_SLOT &&
                 GELF_R_TYPE(r.r_info) != R_X86_64_GLOB_DAT) ||
                GELF_R_SYM(r.r_info) > INT32_MAX ||
                !gelf_getsym(syms, (int)GELF_R_SYM(r.r_info), &s))
                continue;
            char *name = elf_strptr(elf, sym_header.sh_link, s.st_name);
            if (name)
                sym_table_put(slots, r.r_offset, name);
        }
    }
}

/* Stubs are 16 (or in .plt.got 8) bytes with a `jmp *disp32(%rip)` (ff 25) through the slot of
 * their function. */
static void add_plt(struct sym_module *m, const char *section, const struct table *slots)
{
    GElf_Shdr h;
    Elf_Data *data;
    if (!find_section(m->elf, section, &h, &data))
        return;
    size_t step = h.sh_entsize == 8 ? 8 : 16;
    for (size_t off = 0; data->d_size >= step && off <= data->d_size - step; off += step) {
        const uint8_t *code = (const uint8_t *)data->d_buf + off;
        for (size_t i = 0; i + 6 <= step; i++) {
            if (code[i] != 0xff || code[i + 1] != 0x25)
                continue;
            vaddr slot =
                h.sh_addr + off + i + 6 + (uint64_t)(int64_t)(int32_t)load_u32(code + i + 2);
            const char *target = slot ? sym_table_get(slots, slot) : NULL;
            if (!target)
                continue;
            cleanup(freep) char *name = str_format("%s@plt", demangle(m, target));
            struct function *f =
                add_symbol(m, target, sym_pool_str(&m->pool, name), h.sh_addr + off, step, SYM_PLT);
            f->preference = 128;
            break;
        }
    }
}

/* Symbols without a size (written in assembler) reach to the next symbol, but not out of their
 * segment. */
static void fill_sizes(struct sym_module *m)
{
    vaddr next = 0;
    for (size_t i = m->symbols.count; i-- > 0;) {
        struct function_range *r = &m->symbols.items[i];
        vaddr limit = next;
        vec_each (c, &m->code)
            if (r->start >= c->start && r->start < c->end && (limit <= r->start || limit > c->end))
                limit = c->end;
        if (r->end <= r->start && limit > r->start) {
            r->end = limit;
            r->function->pub.end = limit;
            r->function->own_range.end = limit;
        }
        if (i > 0 && m->symbols.items[i - 1].start < r->start)
            next = r->start;
    }
}

void load_symbols(struct sym_module *m)
{
    if (m->symbols_loaded)
        return;
    m->symbols_loaded = true;
    load_dwarf(m); // a separate debug file has the .symtab
    struct table seen = {0}, slots = {0};
    visit_symbols(m, m->elf, SHT_SYMTAB, false, add_named_symbol, &seen);
    if (m->debug_elf)
        visit_symbols(m, m->debug_elf, SHT_SYMTAB, false, add_named_symbol, &seen);
    visit_symbols(m, m->elf, SHT_DYNSYM, false, add_named_symbol, &seen);
    Elf *mini = unpack_mini_elf(m);
    if (mini)
        visit_symbols(m, mini, SHT_SYMTAB, false, add_named_symbol, &seen);
    read_slots(m->elf, &slots);
    static const char *const stubs[] = {".plt.sec", ".plt.got", ".plt"};
    for (size_t i = 0; i < sizeof(stubs) / sizeof(*stubs); i++)
        add_plt(m, stubs[i], &slots);
    vec_each (f, &m->symbol_list)
        vec_push(&m->symbols, (struct function_range){(*f)->pub.start, (*f)->pub.end, *f});
    function_table_sort(&m->symbols);
    fill_sizes(m);
    sym_table_deinit(&seen);
    sym_table_deinit(&slots);
}
