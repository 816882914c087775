/* Opening a module: the ELF file, its segments and build id. */
#include "sym/sym_int.h"

#include <fcntl.h>

bool find_section(Elf *elf, const char *name, GElf_Shdr *header, Elf_Data **data_out)
{
    size_t names = 0;
    if (!elf || elf_getshdrstrndx(elf, &names) != 0)
        return false;
    for (Elf_Scn *scn = elf_nextscn(elf, NULL); scn; scn = elf_nextscn(elf, scn)) {
        GElf_Shdr h;
        if (!gelf_getshdr(scn, &h))
            continue;
        const char *n = elf_strptr(elf, names, h.sh_name);
        if (!n || !str_eq(n, name))
            continue;
        if (header)
            *header = h;
        if (data_out) {
            Elf_Data *data = h.sh_type == SHT_NOBITS ? NULL : elf_getdata(scn, NULL);
            if (!data || !data->d_buf)
                return false;
            *data_out = data;
        }
        return true;
    }
    return false;
}

char *hex_of(const uint8_t *data, size_t len)
{
    struct buf b = {0};
    for (size_t i = 0; i < len; i++)
        buf_printf(&b, "%02x", data[i]);
    return buf_steal_str(&b);
}

char *read_build_id(Elf *elf)
{
    for (Elf_Scn *scn = elf_nextscn(elf, NULL); scn; scn = elf_nextscn(elf, scn)) {
        GElf_Shdr h;
        if (!gelf_getshdr(scn, &h) || h.sh_type != SHT_NOTE)
            continue;
        Elf_Data *data = elf_getdata(scn, NULL);
        GElf_Nhdr note;
        size_t name_off, desc_off;
        for (size_t off = 0, next;
             data && (next = gelf_getnote(data, off, &note, &name_off, &desc_off)) > 0; off = next)
            if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && note.n_descsz >= 2 &&
                note.n_descsz <= 64 && memcmp((const char *)data->d_buf + name_off, "GNU", 4) == 0)
                return hex_of((const uint8_t *)data->d_buf + desc_off, note.n_descsz);
    }
    return NULL;
}

static struct err *read_segments(struct sym_module *m)
{
    GElf_Ehdr header;
    if (elf_kind(m->elf) != ELF_K_ELF || !gelf_getehdr(m->elf, &header))
        return err_new(ERR_FORMAT, "%s: not an ELF file", m->path);
    if (header.e_machine != EM_X86_64 || gelf_getclass(m->elf) != ELFCLASS64)
        return err_new(ERR_UNSUPPORTED, "%s: not for x86-64 (ELF machine %u)", m->path,
                       header.e_machine);
    size_t count = 0;
    if (elf_getphdrnum(m->elf, &count) != 0)
        return err_new(ERR_FORMAT, "%s: damaged program headers: %s", m->path, elf_errmsg(-1));
    for (size_t i = 0; i < count && i < INT32_MAX; i++) {
        GElf_Phdr p;
        if (gelf_getphdr(m->elf, (int)i, &p) && p.p_type == PT_LOAD && (p.p_flags & PF_X))
            vec_push(&m->code, (struct sym_range){p.p_vaddr, p.p_vaddr + p.p_memsz});
    }
    return NULL;
}

struct err *sym_module_open(const char *path, const char *debug_dir, struct sym_module **out)
{
    elf_version(EV_CURRENT);
    cleanup(sym_module_closep) struct sym_module *m = xnew(struct sym_module);
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&m->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    m->path = xstrdup(path);
    m->debug_dir = debug_dir ? xstrdup(debug_dir) : NULL;
    m->debug_fd = m->alternate_fd = -1;
    m->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (m->fd < 0)
        return err_os("cannot open %s", path);
    m->elf = elf_begin(m->fd, ELF_C_READ_MMAP_PRIVATE, NULL); // split.c writes into the copy
    if (!m->elf)
        return err_new(ERR_FORMAT, "%s: %s", path, elf_errmsg(-1));
    TRY(read_segments(m));
    m->build_id = read_build_id(m->elf);
    *out = steal(m);
    return NULL;
}

static void unit_deinit(struct unit *u)
{
    vec_deinit(&u->functions);
    scan_deinit(&u->scan);
    vec_deinit(&u->rows);
}

void sym_module_close(struct sym_module *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->unit_count; i++)
        unit_deinit(&m->units[i]);
    free(m->units);
    forget_file_rows(m);
    vec_deinit(&m->file_rows);
    vec_deinit(&m->unit_ranges);
    vec_deinit(&m->symbols);
    vec_deinit(&m->symbol_list);
    vec_deinit(&m->code);
    vec_deinit(&m->file_names);
    vec_deinit(&m->search_names);
    vec_deinit(&m->abstracts);
    preparing_deinit(&m->preparing);
    sym_table_deinit(&m->abstract_functions);
    sym_table_deinit(&m->demangled);
    sym_table_deinit(&m->clones);
    buf_deinit(&m->search_text);
    sym_table_deinit(&m->types);
    sym_table_deinit(&m->scopes);
    sym_table_deinit(&m->scoped_units);
    sym_table_deinit(&m->complete);
    sym_table_deinit(&m->file_tables);
    sym_table_deinit(&m->files_by_hash);
    sym_pool_deinit(&m->pool);
    if (m->eh_frame)
        dwarf_cfi_end(
            m->eh_frame); // the one from dwarf_getcfi_elf is ours; debug_frame belongs to m->dwarf
    if (m->dwarf)
        dwarf_end(m->dwarf);
    if (m->alternate)
        dwarf_end(m->alternate);
    if (m->mini_elf)
        elf_end(m->mini_elf);
    free(m->mini_image);
    if (m->inflated_elf)
        elf_end(m->inflated_elf);
    free(m->inflated_image);
    if (m->debug_elf)
        elf_end(m->debug_elf);
    if (m->elf)
        elf_end(m->elf);
    closep(&m->alternate_fd);
    closep(&m->debug_fd);
    closep(&m->fd);
    free(m->dwo_names.strings);
    vec_deinit(&m->dwo_names.names);
    free(m->no_dwarf);
    free(m->debug_path);
    free(m->alternate_path);
    free(m->comp_dir);
    free(m->system_dirs);
    free(m->origin);
    free(m->build_id);
    free(m->debug_dir);
    free(m->path);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

void sym_module_set_origin(struct sym_module *m, const char *path)
{
    free(m->origin);
    m->origin = xstrdup(path);
}

void sym_module_set_debug_directories(struct sym_module *m, const char *dirs)
{
    free(m->system_dirs);
    m->system_dirs = xstrdup(dirs);
}

void sym_module_set_comp_dir(struct sym_module *m, const char *dir)
{
    free(m->comp_dir);
    m->comp_dir = xstrdup(dir);
}

const char *sym_module_path(const struct sym_module *m)
{
    return m->path;
}

const char *sym_module_build_id(const struct sym_module *m)
{
    return m->build_id;
}

struct err *sym_module_bias(struct sym_module *m, gaddr map_start, uint64_t file_off,
                            bool executable, uint64_t *bias_out)
{
    HOLD(m);
    size_t count = 0;
    // lld packs segments: one page of the file may be the last of one and the first of the next.
    unsigned best = 0;
    if (elf_getphdrnum(m->elf, &count) != 0)
        return err_new(ERR_FORMAT, "%s: damaged program headers", m->path);
    for (size_t i = 0; i < count && i < INT32_MAX; i++) {
        GElf_Phdr p;
        if (!gelf_getphdr(m->elf, (int)i, &p) || p.p_type != PT_LOAD || p.p_filesz == 0)
            continue;
        // The loader maps whole pages around [p_offset, p_offset + p_filesz).
        uint64_t first_page = p.p_offset & ~(uint64_t)(PAGE_SIZE - 1);
        if (file_off < first_page ||
            file_off - first_page >= p.p_filesz + (p.p_offset - first_page))
            continue;
        unsigned fits =
            1 + (file_off == first_page) + 2 * (executable == ((p.p_flags & PF_X) != 0));
        if (fits > best)
            *bias_out = map_start - (p.p_vaddr + (file_off - p.p_offset));
        best = fits > best ? fits : best;
    }
    return best ? NULL
                : err_new(ERR_NOT_FOUND, "%s: no loadable segment at file offset 0x%jx", m->path,
                          (uintmax_t)file_off);
}

struct err *sym_module_tls_offset(struct sym_module *m, uint64_t *out)
{
    size_t count;
    *out = 0;
    if (elf_getphdrnum(m->elf, &count) != 0)
        return err_new(ERR_FORMAT, "%s: damaged program headers", m->path);
    for (size_t i = 0; i < count && i < INT32_MAX; i++) {
        GElf_Phdr p;
        if (!gelf_getphdr(m->elf, (int)i, &p) || p.p_type != PT_TLS)
            continue;
        uint64_t align = p.p_align ? p.p_align : 1,
                 first = -p.p_vaddr & (align - 1); // as far as its start is off its alignment
        if (align & (align - 1) || p.p_memsz > 1ull << 40 || align > 1ull << 30)
            return err_new(ERR_FORMAT, "%s: its thread-local storage makes no sense", m->path);
        *out = ((p.p_memsz - first + align - 1) & ~(align - 1)) + first;
    }
    return NULL;
}

bool is_code(const struct sym_module *m, vaddr addr)
{
    vec_each (r, &m->code)
        if (addr - r->start < r->end - r->start)
            return true;
    return false;
}

struct err *err_dwarf(const struct sym_module *m, const char *what)
{
    const char *message = dwarf_errmsg(-1);
    return err_new(ERR_FORMAT, "%s: %s: %s", m->path, what,
                   message ? message : "damaged debug information");
}
