/* Where a module's debug information is.
 *
 * Order: the file itself; by build id in the trace's debug/ and in /usr/lib/debug; by
 * .gnu_debuglink in the trace's debug/, beside the file (where it was when it was recorded), in
 * .debug/ there, and below /usr/lib/debug. A candidate is taken if its build id is the module's,
 * or, where there are none, if its CRC is the one in .gnu_debuglink (GDB manual, "Debugging
 * Information in Separate Files"). What dwz moved into a common file (.gnu_debugaltlink) is found
 * alike, and is taken if it has the link's build id. */
#include "base/bytes.h"
#include "sym/sym_int.h"

#include <elfutils/libdwelf.h>
#include <fcntl.h>
#include <libgen.h>

/* The directories where debug files of all programs are, unless others are set. */
static const char system_debug_dirs[] = "/usr/lib/debug";

/* One of those, by number; NULL: there are no more. Heap string. */
static char *system_dir(const struct sym_module *m, size_t idx)
{
    const char *at = m->system_dirs ? m->system_dirs : system_debug_dirs;
    for (; at && idx; idx--)
        at = (at = strchr(at, ':')) ? at + 1 : NULL;
    return at ? str_format("%.*s", (int)strcspn(at, ":"), at) : NULL;
}

static bool has_debug_info(Elf *elf)
{
    GElf_Shdr h;
    return (find_section(elf, ".debug_info", &h, NULL) ||
            find_section(elf, ".zdebug_info", &h, NULL)) &&
           h.sh_type != SHT_NOBITS;
}

/* The CRC of .gnu_debuglink: the usual CRC-32 over the whole file. */
static uint32_t file_crc(Elf *elf)
{
    size_t len = 0;
    const uint8_t *data = (const uint8_t *)elf_rawfile(elf, &len);
    uint32_t table[256], crc = ~0u;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = (c & 1) ? 0xedb88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    for (size_t i = 0; data && i < len; i++)
        crc = table[(crc ^ data[i]) & 0xff] ^ (crc >> 8);
    return ~crc;
}

/* Takes the file at `path` as the debug file, if it fits. crc: NULL when found by build id. */
static bool take_debug_file(struct sym_module *m, const char *path, const uint32_t *crc)
{
    cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    Elf *elf = elf_begin(fd, ELF_C_READ_MMAP_PRIVATE, NULL);
    if (!elf)
        return false;
    cleanup(freep) char *id = elf_kind(elf) == ELF_K_ELF ? read_build_id(elf) : NULL;
    bool fits = m->build_id ? id && str_eq(id, m->build_id) : crc && file_crc(elf) == *crc;
    if (!fits || !has_debug_info(elf)) {
        elf_end(elf);
        return false;
    }
    m->debug_elf = elf;
    m->debug_fd = steal_fd(&fd);
    m->debug_path = xstrdup(path);
    return true;
}

static bool find_by_build_id(struct sym_module *m, const char *dir)
{
    if (!dir || !m->build_id)
        return false;
    cleanup(freep) char *path =
        str_format("%s/.build-id/%.2s/%s.debug", dir, m->build_id, m->build_id + 2);
    return take_debug_file(m, path, NULL);
}

static char *dir_of(const char *path)
{
    cleanup(freep) char *copy = xstrdup(path);
    return xstrdup(dirname(copy));
}

char *origin_dir(const struct sym_module *m)
{
    return dir_of(m->origin ? m->origin : m->path);
}

static bool find_by_link(struct sym_module *m)
{
    Elf_Data *data;
    if (!find_section(m->elf, ".gnu_debuglink", NULL, &data))
        return false;
    struct bytes b = bytes_of(data->d_buf, data->d_size);
    size_t name_len = strnlen((const char *)data->d_buf, data->d_size);
    const char *name = (const char *)data->d_buf;
    bytes_skip(&b, (name_len + 4) & ~(size_t)3);
    uint32_t crc = bytes_u32(&b);
    if (b.failed || memchr(name, '/', name_len))
        return false;
    cleanup(freep) char *dir = origin_dir(m);
    // What was installed as /lib/x is now mapped as /usr/lib/x, where the one is a link to the
    // other.
    const char *unmerged = str_starts(dir, "/usr/") ? dir + strlen("/usr") : dir;
    cleanup(freep) char *in_trace = str_format("%s/%s", m->debug_dir ? m->debug_dir : dir, name);
    cleanup(freep) char *beside = str_format("%s/%s", dir, name);
    cleanup(freep) char *below = str_format("%s/.debug/%s", dir, name);
    bool found = take_debug_file(m, in_trace, &crc) || take_debug_file(m, beside, &crc) ||
                 take_debug_file(m, below, &crc);
    for (size_t i = 0; !found; i++) {
        cleanup(freep) char *system = system_dir(m, i);
        if (!system)
            break;
        cleanup(freep) char *there = str_format("%s%s/%s", system, dir, name),
                            *as_before = str_format("%s%s/%s", system, unmerged, name);
        found = take_debug_file(m, there, &crc) || take_debug_file(m, as_before, &crc);
    }
    return found;
}

static bool find_in_system(struct sym_module *m)
{
    bool found = false;
    for (size_t i = 0; !found; i++) {
        cleanup(freep) char *system = system_dir(m, i);
        if (!system)
            break;
        found = find_by_build_id(m, system);
    }
    return found;
}

/* ---- What dwz moved out ---- */

/* Takes the file at `path` as the one of what dwz moved out, if it has that build id. */
static bool take_alternate(struct sym_module *m, const char *path, const char *hex_id)
{
    cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    Dwarf *dwarf = fd < 0 ? NULL : dwarf_begin(fd, DWARF_C_READ);
    cleanup(freep) char *found = dwarf ? read_build_id(dwarf_getelf(dwarf)) : NULL;
    if (!found || !str_eq(found, hex_id)) {
        dwarf_end(dwarf);
        return false;
    }
    m->alternate = dwarf;
    m->alternate_fd = steal_fd(&fd);
    m->alternate_path = xstrdup(path);
    dwarf_setalt(m->dwarf, m->alternate);
    return true;
}

static bool find_alternate_in(struct sym_module *m, const char *dir, const char *id,
                              const char *hex_id)
{
    if (!id || strlen(id) < 3)
        return false;
    cleanup(freep) char *sup = str_format("%s/.build-id/%.2s/%s.sup", dir, id, id + 2);
    cleanup(freep) char *debug = str_format("%s/.build-id/%.2s/%s.debug", dir, id, id + 2);
    return take_alternate(m, sup, hex_id) || take_alternate(m, debug, hex_id);
}

/* The link's name is relative to the file that has it. */
static bool find_alternate_by_name(struct sym_module *m, const char *name, const char *hex_id)
{
    if (name[0] == '/')
        return take_alternate(m, name, hex_id);
    cleanup(freep) char *dir = m->debug_path ? dir_of(m->debug_path) : origin_dir(m);
    cleanup(freep) char *path = str_format("%s/%s", dir, name);
    return take_alternate(m, path, hex_id);
}

static void load_alternate(struct sym_module *m)
{
    const char *name;
    const void *id;
    ssize_t id_len = dwelf_dwarf_gnu_debugaltlink(m->dwarf, &name, &id);
    if (id_len < 2 || id_len > 64)
        return;
    cleanup(freep) char *hex_id = hex_of(id, (size_t)id_len);
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    if (m->debug_dir) {
        cleanup(freep) char *dwz = str_format("%s/.dwz/%s", m->debug_dir, base);
        if (find_alternate_in(m, m->debug_dir, m->build_id, hex_id) ||
            find_alternate_in(m, m->debug_dir, hex_id, hex_id) || take_alternate(m, dwz, hex_id))
            return;
    }
    for (size_t i = 0;; i++) {
        cleanup(freep) char *system = system_dir(m, i);
        if (!system)
            break;
        if (find_alternate_in(m, system, hex_id, hex_id))
            return;
    }
    find_alternate_by_name(m, name, hex_id);
}

void load_dwarf(struct sym_module *m)
{
    if (m->dwarf_tried)
        return;
    m->dwarf_tried = true;
    bool own = has_debug_info(m->elf);
    if (!own && !find_by_build_id(m, m->debug_dir) && !find_in_system(m) && !find_by_link(m)) {
        m->no_dwarf = str_format("%s: no debug information", m->path);
        return;
    }
    Elf *elf = own ? m->elf : m->debug_elf;
    m->inflated_elf = inflate_dwarf(elf, &m->inflated_image);
    elf = m->inflated_elf ? m->inflated_elf : elf;
    prepare_dwo_names(m, elf);
    m->dwarf = dwarf_begin_elf(elf, DWARF_C_READ, NULL);
    if (!m->dwarf) {
        m->no_dwarf = str_format("%s: damaged debug information: %s", m->path, dwarf_errmsg(-1));
        return;
    }
    load_alternate(m);
    redirect_dwos(m);
}

struct err *need_dwarf(struct sym_module *m)
{
    load_dwarf(m);
    return m->dwarf ? NULL : err_new(ERR_NOT_FOUND, "%s", m->no_dwarf);
}

const char *sym_module_no_dwarf(struct sym_module *m)
{
    HOLD(m);
    load_dwarf(m);
    return m->no_dwarf;
}
