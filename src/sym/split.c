/* Split debug information: units whose entries are in .dwo files.
 *
 * The program holds a skeleton of each unit, with the name of its .dwo file and an id (DWARF 5
 * section 3.1.2). libdw looks for the file where it was made, by name only. A self-contained trace
 * has it as debug/.dwo/ID.dwo. So the names of those files are put behind the strings that libdw
 * reads, and the skeletons' names are made to point there, in memory:
 *
 *     .debug_str   | a.c\0 gcc\0 a.dwo\0 | /trace/debug/.dwo/00c0ffee00c0ffee.dwo\0 ...
 *     skeleton       DW_AT_dwo_name ------^ becomes the offset of the name with its id
 *
 * The strings must be there before libdw opens the file (it notes their size); which skeletons
 * there are is known after. */
#include "base/bytes.h"
#include "sym/sym_int.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>

enum { ID_DIGITS = 16 };

/* ---- Those in the trace ---- */

static void closedirp(DIR **d)
{
    if (*d)
        closedir(*d);
}

static int compare_ids(const void *x, const void *y)
{
    const struct dwo_name *a = x, *b = y;
    return a->id == b->id ? 0 : a->id < b->id ? -1 : 1;
}

/* The names of the files, each with its NUL; where they begin is counted from `base`. */
static void list_dwos(const char *dir, size_t base, struct buf *text, struct dwo_names *out)
{
    cleanup(closedirp) DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char *end;
        uint64_t id = strtoull(e->d_name, &end, 16);
        if (end != e->d_name + ID_DIGITS || !isxdigit((unsigned char)e->d_name[0]) ||
            !str_eq(end, ".dwo"))
            continue;
        vec_push(&out->names, (struct dwo_name){id, base + text->len});
        buf_printf(text, "%s/%s", dir, e->d_name);
        buf_u8(text, 0);
    }
    if (out->names.count)
        qsort(out->names.items, out->names.count, sizeof(*out->names.items), compare_ids);
}

static Elf_Scn *section_named(Elf *elf, const char *name)
{
    size_t names = 0;
    if (elf_getshdrstrndx(elf, &names) != 0)
        return NULL;
    for (Elf_Scn *scn = elf_nextscn(elf, NULL); scn; scn = elf_nextscn(elf, scn)) {
        GElf_Shdr h;
        const char *n = gelf_getshdr(scn, &h) ? elf_strptr(elf, names, h.sh_name) : NULL;
        if (n && str_eq(n, name) && h.sh_type != SHT_NOBITS)
            return scn;
    }
    return NULL;
}

Elf_Data *unpacked_section(Elf *elf, const char *name)
{
    Elf_Scn *scn = section_named(elf, name);
    GElf_Shdr h;
    if (!scn || !gelf_getshdr(scn, &h) ||
        ((h.sh_flags & SHF_COMPRESSED) && elf_compress(scn, 0, 0) < 0))
        return NULL;
    Elf_Data *data = elf_getdata(scn, NULL);
    return data && data->d_buf ? data : NULL;
}

void prepare_dwo_names(struct sym_module *m, Elf *elf)
{
    struct dwo_names *names = &m->dwo_names;
    cleanup(freep) char *full = m->debug_dir ? realpath(m->debug_dir, NULL) : NULL;
    cleanup(freep) char *dir = full ? str_format("%s/.dwo", full) : NULL;
    if (!dir || access(dir, F_OK) != 0)
        return;
    Elf_Data *data = unpacked_section(elf, ".debug_str");
    if (!data)
        return;
    cleanup(buf_deinit) struct buf text = {0};
    list_dwos(dir, data->d_size + 1, &text, names);
    if (!names->names.count)
        return;
    names->strings = xmalloc(data->d_size + 1 + text.len);
    memcpy(names->strings, data->d_buf, data->d_size);
    names->strings[data->d_size] = 0; // a damaged last string ends here
    memcpy(names->strings + data->d_size + 1, text.data, text.len);
    data->d_buf = names->strings;
    data->d_size += 1 + text.len;
}

/* ---- Skeletons ---- */

struct skeleton {
    Dwarf_Die die;
    Dwarf_Attribute name; /* DW_AT_dwo_name */
    uint64_t id;
    uint8_t offset_size; /* of its unit's offsets: 4 or 8 */
};

typedef void skeleton_visitor(struct sym_module *m, const struct skeleton *s, void *arg);

static void visit_skeletons(struct sym_module *m, skeleton_visitor *visit, void *arg)
{
    Dwarf_CU *cu = NULL;
    struct skeleton s;
    uint8_t type;
    while (dwarf_get_units(m->dwarf, cu, &cu, NULL, &type, &s.die, NULL) == 0) {
        if (type != DW_UT_skeleton ||
            dwarf_cu_info(cu, NULL, NULL, NULL, NULL, &s.id, NULL, &s.offset_size) != 0)
            continue;
        if (dwarf_attr(&s.die, DW_AT_dwo_name, &s.name) ||
            dwarf_attr(&s.die, DW_AT_GNU_dwo_name, &s.name))
            visit(m, &s, arg);
    }
}

static uint64_t index_of(const Dwarf_Attribute *a, size_t len)
{
    struct bytes b = bytes_of(a->valp, len);
    switch (a->form) {
    case DW_FORM_strx1:
        return bytes_u8(&b);
    case DW_FORM_strx2:
        return bytes_u16(&b);
    case DW_FORM_strx4:
        return bytes_u32(&b);
    default:
        return bytes_uleb(&b);
    }
}

/* Where the offset of the name stands: in the entry itself, or in its unit's table of offsets.
 * NULL: in neither (DW_FORM_string). */
static uint8_t *place_of_offset(struct sym_module *m, const struct skeleton *s)
{
    Elf *elf = dwarf_getelf(m->dwarf);
    if (s->name.form == DW_FORM_strp)
        return s->name.valp;
    if (s->name.form != DW_FORM_strx && s->name.form != DW_FORM_strx1 &&
        s->name.form != DW_FORM_strx2 && s->name.form != DW_FORM_strx4)
        return NULL;
    Elf_Data *info = unpacked_section(elf, ".debug_info"),
             *table = unpacked_section(elf, ".debug_str_offsets");
    Dwarf_Attribute attr;
    Dwarf_Word base = 0;
    Dwarf_Die die = s->die;
    const uint8_t *at = s->name.valp;
    if (!info || !table || !dwarf_attr(&die, DW_AT_str_offsets_base, &attr) ||
        dwarf_formudata(&attr, &base) != 0)
        return NULL;
    const uint8_t *start = info->d_buf;
    if (at < start || at >= start + info->d_size)
        return NULL;
    uint64_t idx = index_of(&s->name, (size_t)(start + info->d_size - at));
    if (base > table->d_size || idx >= (table->d_size - base) / s->offset_size)
        return NULL;
    return (uint8_t *)table->d_buf + base + idx * s->offset_size;
}

static void redirect(struct sym_module *m, const struct skeleton *s, void *arg)
{
    const struct dwo_names *names = &m->dwo_names;
    const struct dwo_name key = {.id = s->id}, *found;
    found = bsearch(&key, names->names.items, names->names.count, sizeof(key), compare_ids);
    uint8_t *place = found ? place_of_offset(m, s) : NULL;
    uint64_t off = found ? found->off : 0;
    if (place && (s->offset_size == 8 || off <= UINT32_MAX))
        memcpy(place, &off, s->offset_size);
}

void redirect_dwos(struct sym_module *m)
{
    if (m->dwo_names.strings)
        visit_skeletons(m, redirect, NULL);
}

/* ---- Where they are outside of the trace ---- */

/* Whether the file at `path` has the unit of that id. */
static bool holds_unit(const char *path, uint64_t id)
{
    cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    Dwarf *d = fd < 0 ? NULL : dwarf_begin(fd, DWARF_C_READ);
    Dwarf_CU *cu = NULL;
    bool found = false;
    while (d && !found && dwarf_get_units(d, cu, &cu, NULL, NULL, NULL, NULL) == 0) {
        uint64_t unit_id;
        uint8_t type;
        found = dwarf_cu_info(cu, NULL, &type, NULL, NULL, &unit_id, NULL, NULL) == 0 &&
                type == DW_UT_split_compile && unit_id == id;
    }
    dwarf_end(d);
    return found;
}

/* Looks for `name`, which is relative, in `dir` and, if `up`, in the directories above. */
static char *find_dwo_below(const char *dir, const char *name, uint64_t id, bool up)
{
    cleanup(freep) char *at = xstrdup(dir);
    for (;;) {
        cleanup(freep) char *path = str_format("%s/%s", at, name);
        if (holds_unit(path, id))
            return steal(path);
        char *slash = strrchr(at, '/');
        if (!up || !slash)
            return NULL;
        *slash = 0;
    }
}

/* The file of a skeleton, or NULL; expected_out: where it should be. A build whose directory was
 * mapped away left relative names: then the program is looked up from, as it is often made
 * somewhere below that directory. */
static char *find_dwo(const struct sym_module *m, const struct skeleton *s, char **expected_out)
{
    Dwarf_Attribute attr = s->name;
    Dwarf_Die die = s->die;
    const char *name = dwarf_formstring(&attr),
               *dir = m->comp_dir ? m->comp_dir : die_string(&die, DW_AT_comp_dir);
    cleanup(freep) char *origin = origin_dir(m);
    if (!name)
        return *expected_out = xstrdup("?"), NULL;
    bool is_absolute = name[0] == '/';
    cleanup(freep) char *relative =
        is_absolute || !dir ? xstrdup(name) : str_format("%s/%s", dir, name);
    bool is_known = relative[0] == '/';
    *expected_out = is_known ? xstrdup(relative) : str_format("%s/%s", origin, relative);
    if (is_known && holds_unit(relative, s->id))
        return steal(relative);
    char *found = is_known ? NULL : find_dwo_below(origin, relative, s->id, true);
    return found || is_absolute ? found : find_dwo_below(origin, name, s->id, false);
}

/* The .dwp file: named after the program (also where that is a symbolic link's target) or its debug
 * file. NULL: none. */
static struct sym_dwp *find_dwp(const struct sym_module *m, char **path_out)
{
    const char *origin = m->origin ? m->origin : m->path;
    cleanup(freep) char *real = realpath(origin, NULL);
    const char *const names[] = {origin, real, m->debug_path};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        cleanup(freep) char *path = names[i] ? str_format("%s.dwp", names[i]) : NULL;
        struct sym_dwp *dwp;
        struct err *e = path ? sym_dwp_open(path, &dwp) : err_new(ERR_NOT_FOUND, "no name");
        bool found = !e;
        err_free(e);
        if (found) {
            *path_out = steal(path);
            return dwp;
        }
    }
    return NULL;
}

/* ---- All that is outside ---- */

struct visit {
    sym_external_visitor *visit;
    void *arg;
    char *dwp_path;
    struct sym_dwp *dwp; /* NULL: there is none of this program */
    bool uses_dwp;
};

static void check_dwp(struct sym_module *m, const struct skeleton *s, void *arg)
{
    struct visit *v = arg;
    v->uses_dwp |= sym_dwp_has(v->dwp, s->id);
}

static void give_dwo(struct sym_module *m, const struct skeleton *s, void *arg)
{
    struct visit *v = arg;
    cleanup(freep) char *expected = NULL;
    cleanup(freep) char *found = find_dwo(m, s, &expected);
    bool in_dwp = !found && v->dwp && sym_dwp_has(v->dwp, s->id);
    v->visit(v->arg, &(struct sym_external){.kind = SYM_DWO,
                                            .path = in_dwp  ? v->dwp_path
                                                    : found ? found
                                                            : expected,
                                            .dwo_id = s->id,
                                            .is_missing = !found && !in_dwp,
                                            .dwp = in_dwp ? v->dwp : NULL});
}

struct err *sym_external_files(struct sym_module *m, sym_external_visitor *visit, void *arg)
{
    HOLD(m);
    load_dwarf(m);
    if (!m->dwarf)
        return NULL;
    struct visit v = {.visit = visit, .arg = arg};
    if (m->debug_path)
        visit(arg, &(struct sym_external){.kind = SYM_DEBUG_LINK, .path = m->debug_path});
    if (m->alternate_path)
        visit(arg, &(struct sym_external){.kind = SYM_DEBUG_ALT_LINK, .path = m->alternate_path});
    v.dwp = find_dwp(m, &v.dwp_path);
    if (v.dwp)
        visit_skeletons(m, check_dwp, &v);
    if (v.uses_dwp)
        visit(arg, &(struct sym_external){.kind = SYM_DWP, .path = v.dwp_path});
    visit_skeletons(m, give_dwo, &v);
    sym_dwp_close(v.dwp);
    free(v.dwp_path);
    return NULL;
}
