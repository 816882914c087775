/* .dwp files: the .dwo files of a program put together. libdw 0.188 does not read them, so their
 * units are taken out again.
 *
 * Each section holds the contributions of all units one after the other; a table says which rows of
 * columns belong to the unit with an id (DWARF 5 section 7.3.5; DWARF 4 as GCC's wiki describes it,
 * "DebugFissionDWP"):
 *
 *     .debug_cu_index   version, columns C, units U, slots S
 *                       S ids (0: none), S numbers of rows (from 1)
 *                       C kinds of sections
 *                       U rows of C offsets, U rows of C sizes
 *
 * Strings are shared by all: .debug_str_offsets of a unit lead into one .debug_str. A unit that is
 * taken out gets those it names. Type units, which have a table of their own, are not taken: a type
 * that is defined in one of them stays a declaration. */
#include "base/bytes.h"
#include "sym/sym_int.h"

#include <fcntl.h>

enum { SECTION_KINDS = 8, STRING_OFFSETS = 6 };

/* By kind (DW_SECT_*), from 1. */
static const char *const section_names[2][SECTION_KINDS + 1] = {
    {NULL, ".debug_info.dwo", ".debug_types.dwo", ".debug_abbrev.dwo", ".debug_line.dwo",
     ".debug_loc.dwo", ".debug_str_offsets.dwo", ".debug_macinfo.dwo", ".debug_macro.dwo"},
    {NULL, ".debug_info.dwo", NULL, ".debug_abbrev.dwo", ".debug_line.dwo", ".debug_loclists.dwo",
     ".debug_str_offsets.dwo", ".debug_macro.dwo", ".debug_rnglists.dwo"},
};

struct dwp_unit {
    uint64_t id;
    uint32_t row; /* from 0 */
};

struct sym_dwp {
    char *path;
    int fd;
    Elf *elf;
    bool is_dwarf5;
    uint32_t columns, rows;
    const uint8_t *kinds, *offsets, *sizes; /* of the table: columns; rows of columns; likewise */
    VEC(struct dwp_unit) units;             /* by id */
    struct bytes sections[SECTION_KINDS + 1];
    struct bytes strings;
};

static int compare_units(const void *x, const void *y)
{
    const struct dwp_unit *a = x, *b = y;
    return a->id == b->id ? 0 : a->id < b->id ? -1 : 1;
}

/* An unpacked section of the file; empty if there is none. */
static struct bytes section(Elf *elf, const char *name)
{
    Elf_Data *data = unpacked_section(elf, name);
    return data ? bytes_of(data->d_buf, data->d_size) : bytes_of("", 0);
}

static struct err *read_index(struct sym_dwp *d)
{
    struct bytes b = section(d->elf, ".debug_cu_index");
    uint32_t version = bytes_u32(&b);
    d->columns = bytes_u32(&b);
    d->rows = bytes_u32(&b);
    uint32_t slots = bytes_u32(&b);
    if (b.failed || (version != 2 && version != 5) || d->columns > SECTION_KINDS)
        return err_new(ERR_FORMAT, "%s: no .dwp file of a known version", d->path);
    d->is_dwarf5 = version == 5;
    const uint8_t *ids = bytes_take(&b, (size_t)slots * 8),
                  *rows = bytes_take(&b, (size_t)slots * 4);
    d->kinds = bytes_take(&b, (size_t)d->columns * 4);
    d->offsets = bytes_take(&b, (size_t)d->rows * d->columns * 4);
    d->sizes = bytes_take(&b, (size_t)d->rows * d->columns * 4);
    if (b.failed)
        return err_new(ERR_FORMAT, "%s: its table of units is cut off", d->path);
    for (uint32_t i = 0; i < slots; i++) {
        struct dwp_unit u = {load_u64(ids + (size_t)i * 8), load_u32(rows + (size_t)i * 4) - 1};
        if (u.id && u.row < d->rows)
            vec_push(&d->units, u);
    }
    if (d->units.count)
        qsort(d->units.items, d->units.count, sizeof(*d->units.items), compare_units);
    return NULL;
}

struct err *sym_dwp_open(const char *path, struct sym_dwp **out)
{
    elf_version(EV_CURRENT);
    cleanup(sym_dwp_closep) struct sym_dwp *d = xnew(struct sym_dwp);
    d->path = xstrdup(path);
    d->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (d->fd < 0)
        return err_os("cannot open %s", path);
    d->elf = elf_begin(d->fd, ELF_C_READ_MMAP, NULL);
    if (!d->elf || elf_kind(d->elf) != ELF_K_ELF)
        return err_new(ERR_FORMAT, "%s: not an ELF file", path);
    TRY(read_index(d));
    for (size_t kind = 1; kind <= SECTION_KINDS; kind++)
        if (section_names[d->is_dwarf5][kind])
            d->sections[kind] = section(d->elf, section_names[d->is_dwarf5][kind]);
    d->strings = section(d->elf, ".debug_str.dwo");
    *out = steal(d);
    return NULL;
}

void sym_dwp_close(struct sym_dwp *d)
{
    if (!d)
        return;
    vec_deinit(&d->units);
    if (d->elf)
        elf_end(d->elf);
    closep(&d->fd);
    free(d->path);
    free(d);
}

static const struct dwp_unit *find_unit(const struct sym_dwp *d, uint64_t id)
{
    const struct dwp_unit key = {.id = id};
    return d->units.count
               ? bsearch(&key, d->units.items, d->units.count, sizeof(key), compare_units)
               : NULL;
}

bool sym_dwp_has(const struct sym_dwp *d, uint64_t id)
{
    return find_unit(d, id) != NULL;
}

/* ---- Writing ELF ---- */

/* An object file in the making: sections of bytes, no more. */
struct object {
    struct buf *out;
    size_t start; /* in `out` */
    struct buf names;
    VEC(Elf64_Shdr) headers;
};

static void object_begin(struct object *o)
{
    const Elf64_Ehdr room = {0};
    o->start = o->out->len;
    buf_add(o->out, &room, sizeof(room));
    buf_u8(&o->names, 0);
    vec_push(&o->headers, (Elf64_Shdr){0});
}

static void object_add(struct object *o, const char *name, Elf64_Word type, const void *data,
                       size_t len)
{
    buf_zeros(o->out, -(o->out->len - o->start) & 7);
    vec_push(&o->headers, (Elf64_Shdr){.sh_name = (Elf64_Word)o->names.len,
                                       .sh_type = type,
                                       .sh_offset = o->out->len - o->start,
                                       .sh_size = len,
                                       .sh_addralign = 1});
    buf_add(&o->names, name, strlen(name) + 1);
    buf_add(o->out, data, len);
}

static void object_end(struct object *o)
{
    cleanup(buf_deinit) struct buf names = {0};
    buf_add(&names, o->names.data, o->names.len);
    buf_add(&names, ".shstrtab", sizeof(".shstrtab"));
    object_add(o, ".shstrtab", SHT_STRTAB, names.data, names.len);
    buf_zeros(o->out, -(o->out->len - o->start) & 7);
    Elf64_Ehdr h = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_REL,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_shoff = o->out->len - o->start,
        .e_ehsize = sizeof(h),
        .e_shentsize = sizeof(Elf64_Shdr),
        .e_shnum = (Elf64_Half)o->headers.count,
        .e_shstrndx = (Elf64_Half)(o->headers.count - 1)};
    buf_add(o->out, o->headers.items, o->headers.count * sizeof(Elf64_Shdr));
    memcpy(o->out->data + o->start, &h, sizeof(h));
}

static void object_deinit(struct object *o)
{
    buf_deinit(&o->names);
    vec_deinit(&o->headers);
}

/* ---- Taking a unit out ---- */

/* Copies the strings that a unit's offsets lead to, and has them lead to the copies. DWARF 5 begins
 * with a header of 8 bytes (7.26). */
static struct err *copy_strings(const struct sym_dwp *d, struct bytes table,
                                struct buf *offsets_out, struct buf *strings_out)
{
    buf_add(offsets_out, bytes_take(&table, d->is_dwarf5 ? 8 : 0),
            d->is_dwarf5 && !table.failed ? 8 : 0);
    while (bytes_left(&table) >= 4) {
        uint32_t off = bytes_u32(&table);
        size_t most = off < d->strings.len ? d->strings.len - off : 0;
        size_t len = strnlen((const char *)d->strings.data + (most ? off : 0), most);
        if (len == most)
            return err_new(ERR_FORMAT, "%s: a string at 0x%x has no end", d->path, off);
        if (strings_out->len > UINT32_MAX - len - 1)
            return err_new(ERR_LIMIT, "%s: a unit with more than 4 GiB of strings", d->path);
        buf_u32(offsets_out, (uint32_t)strings_out->len);
        buf_add(strings_out, d->strings.data + off, len + 1);
    }
    return table.failed ? err_new(ERR_FORMAT, "%s: a unit's table of strings is cut off", d->path)
                        : NULL;
}

static struct err *add_sections(const struct sym_dwp *d, uint32_t row, struct object *o)
{
    for (uint32_t i = 0; i < d->columns; i++) {
        uint32_t kind = load_u32(d->kinds + (size_t)i * 4);
        const char *name = kind <= SECTION_KINDS ? section_names[d->is_dwarf5][kind] : NULL;
        size_t at = ((size_t)row * d->columns + i) * 4;
        uint32_t off = load_u32(d->offsets + at), size = load_u32(d->sizes + at);
        if (!name)
            continue;
        struct bytes whole = d->sections[kind];
        if (off > whole.len || size > whole.len - off)
            return err_new(ERR_FORMAT, "%s: a unit's part of %s lies outside of it", d->path, name);
        if (kind != STRING_OFFSETS) {
            object_add(o, name, SHT_PROGBITS, whole.data + off, size);
            continue;
        }
        cleanup(buf_deinit) struct buf offsets = {0}, strings = {0};
        TRY(copy_strings(d, bytes_of(whole.data + off, size), &offsets, &strings));
        object_add(o, name, SHT_PROGBITS, offsets.data, offsets.len);
        object_add(o, ".debug_str.dwo", SHT_PROGBITS, strings.data, strings.len);
    }
    return NULL;
}

struct err *sym_dwp_unit(const struct sym_dwp *d, uint64_t id, struct buf *out)
{
    const struct dwp_unit *u = find_unit(d, id);
    if (!u)
        return err_new(ERR_NOT_FOUND, "%s: no unit 0x%jx", d->path, (uintmax_t)id);
    cleanup(object_deinit) struct object o = {.out = out};
    object_begin(&o);
    struct err *e = add_sections(d, u->row, &o);
    if (e)
        out->len = o.start;
    else
        object_end(&o);
    return e;
}
