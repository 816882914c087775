/* A small ELF linker (System V gABI 4.1, chapters 4 and 5; psABI x86-64, 4.4). The worker has no
 * dynamic linker and must be at an address which the recording leaves free, so the coordinator
 * links its program: an executable of type ET_EXEC in a memfd, in which the place in the file is
 * that in the image.
 *
 *   0          its own header
 *   PAGE_SIZE  worker.so
 *   behind     libZydis.so
 *
 * Both objects are our own or the distribution's, hence trusted; still nothing is read outside of
 * them. */
#include "worker/loader.h"

#include "worker_blob.h"

#include "base/buf.h"
#include "base/bytes.h"
#include "base/types.h"

#include <Zydis/Zydis.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

extern const uint8_t worker_so_start[], worker_so_end[];
__asm__(".section .rodata\n"
        ".balign 16\n"
        ".globl worker_so_start, worker_so_end\n"
        "worker_so_start:\n"
        ".incbin \"" WORKER_SO "\"\n"
        "worker_so_end:\n"
        ".previous\n");

struct object {
    const char *name;
    const uint8_t *file;
    size_t file_len;
    uint64_t off, len; /* place in the image */
    const Elf64_Phdr *phdrs;
    size_t phdr_count;
    const Elf64_Sym *symbols;
    const char *strings;
    size_t symbol_count;
};

static const void *in_file(const struct object *o, uint64_t off, uint64_t len)
{
    return off <= o->file_len && len <= o->file_len - off ? o->file + off : NULL;
}

/* Where in the file the byte at a link-time address lies. */
static const void *at_address(const struct object *o, uint64_t address, uint64_t len)
{
    for (size_t i = 0; i < o->phdr_count; i++) {
        const Elf64_Phdr *p = &o->phdrs[i];
        if (p->p_type == PT_LOAD && address >= p->p_vaddr && address - p->p_vaddr < p->p_filesz)
            return in_file(o, p->p_offset + (address - p->p_vaddr), len);
    }
    return NULL;
}

static uint64_t dynamic_value(const struct object *o, int64_t tag)
{
    for (size_t i = 0; i < o->phdr_count; i++) {
        if (o->phdrs[i].p_type != PT_DYNAMIC)
            continue;
        const Elf64_Dyn *d = in_file(o, o->phdrs[i].p_offset, o->phdrs[i].p_filesz);
        for (size_t n = o->phdrs[i].p_filesz / sizeof(*d); d && n && d->d_tag != DT_NULL;
             d++, n--) {
            if (d->d_tag == tag)
                return d->d_un.d_val;
        }
    }
    return 0;
}

static struct err *open_object(struct object *o)
{
    const Elf64_Ehdr *h = in_file(o, 0, sizeof(*h));
    if (!h || memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 || h->e_machine != EM_X86_64)
        return err_new(ERR_FORMAT, "%s: not an x86-64 ELF file", o->name);
    o->phdrs = in_file(o, h->e_phoff, (uint64_t)h->e_phnum * sizeof(Elf64_Phdr));
    o->phdr_count = o->phdrs ? h->e_phnum : 0;
    for (size_t i = 0; i < o->phdr_count; i++) {
        const Elf64_Phdr *p = &o->phdrs[i];
        if (p->p_type == PT_LOAD && p->p_vaddr + p->p_memsz > o->len)
            o->len = p->p_vaddr + p->p_memsz;
    }
    o->len = (o->len + PAGE_SIZE - 1) & ~(uint64_t)(PAGE_SIZE - 1);
    // The number of symbols is in no table of its own: the string table follows the symbol table,
    // as linkers lay them out.
    uint64_t symtab = dynamic_value(o, DT_SYMTAB), strtab = dynamic_value(o, DT_STRTAB);
    if (!symtab || strtab <= symtab)
        return err_new(ERR_FORMAT, "%s: no dynamic symbols", o->name);
    o->symbol_count = (strtab - symtab) / sizeof(Elf64_Sym);
    o->symbols = at_address(o, symtab, o->symbol_count * sizeof(Elf64_Sym));
    o->strings = at_address(o, strtab, dynamic_value(o, DT_STRSZ));
    if (!o->symbols || !o->strings)
        return err_new(ERR_FORMAT, "%s: dynamic symbols out of bounds", o->name);
    return NULL;
}

/* Offset of a defined symbol in the image, 0: none. */
static uint64_t find_symbol(const struct object *objects, size_t count, const char *name)
{
    for (size_t k = 0; k < count; k++) {
        const struct object *o = &objects[k];
        for (size_t i = 0; i < o->symbol_count; i++) {
            if (o->symbols[i].st_shndx != SHN_UNDEF &&
                strcmp(o->strings + o->symbols[i].st_name, name) == 0)
                return o->off + o->symbols[i].st_value;
        }
    }
    return 0;
}

/* The two objects, opened once. */
static struct object objects[2];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards objects and images */
static VEC(struct image {
    uint64_t base;
    int fd;
}) images;

/* What is stored of a writable segment, while it is relocated. */
struct stored {
    uint64_t off, len;
    uint8_t *bytes;
};
enum { MAX_STORED = 8 };

static uint8_t *place_in(const struct stored *stored, size_t count, uint64_t at)
{
    for (size_t i = 0; i < count; i++) {
        if (at >= stored[i].off && stored[i].len >= 8 && at - stored[i].off <= stored[i].len - 8)
            return stored[i].bytes + (at - stored[i].off);
    }
    return NULL;
}

static struct err *relocate(const struct object *o, uint64_t table, uint64_t size, uint64_t base,
                            const struct stored *stored, size_t stored_count)
{
    const Elf64_Rela *r = size ? at_address(o, table, size) : NULL;
    for (size_t i = 0; r && i < size / sizeof(*r); i++) {
        uint64_t at = o->off + r[i].r_offset, value;
        uint64_t symbol = ELF64_R_SYM(r[i].r_info);
        switch (ELF64_R_TYPE(r[i].r_info)) {
        case R_X86_64_RELATIVE:
            value = base + o->off + (uint64_t)r[i].r_addend;
            break;
        case R_X86_64_64:
        case R_X86_64_GLOB_DAT:
        case R_X86_64_JUMP_SLOT: {
            if (symbol >= o->symbol_count)
                return err_new(ERR_FORMAT, "%s: relocation of an unknown symbol", o->name);
            const Elf64_Sym *s = &o->symbols[symbol];
            const char *name = o->strings + s->st_name;
            uint64_t found =
                s->st_shndx != SHN_UNDEF ? o->off + s->st_value : find_symbol(objects, 2, name);
            if (!found && ELF64_ST_BIND(s->st_info) != STB_WEAK)
                return err_new(ERR_UNSUPPORTED, "%s: needs %s, which a worker has not", o->name,
                               name);
            value = found ? base + found : 0;
            if (ELF64_R_TYPE(r[i].r_info) == R_X86_64_64)
                value += (uint64_t)r[i].r_addend;
            break;
        }
        default:
            return err_new(ERR_UNSUPPORTED, "%s: relocation type %u", o->name,
                           (unsigned)ELF64_R_TYPE(r[i].r_info));
        }
        uint8_t *place = place_in(stored, stored_count, at);
        if (!place)
            return err_new(ERR_FORMAT, "%s: relocation out of bounds", o->name);
        memcpy(place, &value, 8);
    }
    return NULL;
}

static struct err *open_objects_locked(void)
{
    if (objects[1].file)
        return NULL;
    Dl_info where;
    if (!dladdr((const void *)(uintptr_t)&ZydisDecoderInit, &where) || !where.dli_fname)
        return err_new(ERR_OS, "cannot find libZydis in this process");
    cleanup(closep) int fd = open(where.dli_fname, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return err_os("cannot open %s", where.dli_fname);
    void *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file == MAP_FAILED)
        return err_os("cannot map %s", where.dli_fname);
    struct object opened[2] = {
        {.name = "worker.so",
         .file = worker_so_start,
         .file_len = (size_t)(worker_so_end - worker_so_start)},
        {.name = "libZydis.so", .file = file, .file_len = (size_t)st.st_size},
    };
    for (int i = 0; i < 2; i++)
        TRY(open_object(&opened[i]));
    opened[0].off = PAGE_SIZE;
    opened[1].off = opened[0].off + opened[0].len;
    memcpy(objects, opened, sizeof(objects));
    return NULL;
}

static uint64_t image_len(void)
{
    return objects[1].off + objects[1].len;
}

/* The image while it is made. */
enum { MAX_SEGMENTS = 24 };
struct making {
    int fd;
    struct stored stored[MAX_STORED];
    size_t stored_count;
    struct {
        Elf64_Ehdr header;
        Elf64_Phdr segments[MAX_SEGMENTS];
    } head;
};
_Static_assert(sizeof(((struct making *)NULL)->head) <= PAGE_SIZE, "the header has a page");

static struct err *store(int fd, const void *bytes, uint64_t len, uint64_t off)
{
    ssize_t n = pwrite(fd, bytes, len, (off_t)off);
    if (n == (ssize_t)len)
        return NULL;
    if (n >= 0) // memory is short, or limited (RLIMIT_FSIZE)
        errno = ENOSPC;
    return err_os("cannot store the worker's image");
}

static struct err *add_segment(struct making *m, uint64_t base, const struct object *o,
                               const Elf64_Phdr *p)
{
    const uint64_t mask = PAGE_SIZE - 1;
    uint64_t in_page = p->p_vaddr & mask, start = o->off + (p->p_vaddr - in_page);
    const uint8_t *bytes = in_file(o, p->p_offset, p->p_filesz);
    if (!bytes || p->p_filesz > p->p_memsz || m->head.header.e_phnum == MAX_SEGMENTS)
        return err_new(ERR_FORMAT, "%s: segment out of bounds", o->name);
    Elf64_Phdr s = {.p_type = PT_LOAD,
                    .p_flags = p->p_flags,
                    .p_offset = start,
                    .p_vaddr = base + start,
                    .p_align = PAGE_SIZE,
                    .p_filesz = (in_page + p->p_filesz + mask) & ~mask,
                    .p_memsz = (in_page + p->p_memsz + mask) & ~mask};
    if (!(p->p_flags & PF_W)) {
        TRY(store(m->fd, bytes, p->p_filesz, start + in_page));
    } else {
        if (m->stored_count == MAX_STORED)
            return err_new(ERR_FORMAT, "%s: too many segments", o->name);
        uint8_t *copy = xcalloc(1, s.p_filesz);
        memcpy(copy + in_page, bytes, p->p_filesz);
        m->stored[m->stored_count++] = (struct stored){start, s.p_filesz, copy};
    }
    m->head.segments[m->head.header.e_phnum++] = s;
    return NULL;
}

static struct err *fill_image(struct making *m, uint64_t base)
{
    uint64_t entry = find_symbol(objects, 1, "worker_entry");
    if (!entry)
        return err_new(ERR_FORMAT, "worker.so: no entry");
    m->head.header = (Elf64_Ehdr){
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = base + entry,
        .e_phoff = sizeof(Elf64_Ehdr),
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_phentsize = sizeof(Elf64_Phdr)};
    if (ftruncate(m->fd, (off_t)image_len()) != 0)
        return err_os("cannot store the worker's image");
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < objects[k].phdr_count; i++) {
            if (objects[k].phdrs[i].p_type == PT_LOAD)
                TRY(add_segment(m, base, &objects[k], &objects[k].phdrs[i]));
        }
    }
    for (int k = 0; k < 2; k++) {
        const struct object *o = &objects[k];
        TRY(relocate(o, dynamic_value(o, DT_RELA), dynamic_value(o, DT_RELASZ), base, m->stored,
                     m->stored_count));
        TRY(relocate(o, dynamic_value(o, DT_JMPREL), dynamic_value(o, DT_PLTRELSZ), base, m->stored,
                     m->stored_count));
    }
    for (size_t i = 0; i < m->stored_count; i++)
        TRY(store(m->fd, m->stored[i].bytes, m->stored[i].len, m->stored[i].off));
    return store(m->fd, &m->head, sizeof(m->head), 0);
}

/* MFD_EXEC (memfd_create(2)) is needed where vm.memfd_noexec is 1; kernels before 6.3 do not know
 * it. */
static int make_executable_memfd(void)
{
    int fd = memfd_create("pernosco-worker", MFD_CLOEXEC | 0x10);
    return fd < 0 && errno == EINVAL ? memfd_create("pernosco-worker", MFD_CLOEXEC) : fd;
}

static struct err *make_image(uint64_t base, int *fd_out)
{
    cleanup(closep) int fd = make_executable_memfd();
    if (fd < 0)
        return err_os("cannot make the worker's image");
    struct making m = {.fd = fd};
    struct err *e = fill_image(&m, base);
    for (size_t i = 0; i < m.stored_count; i++)
        free(m.stored[i].bytes);
    TRY(e);
    *fd_out = steal_fd(&fd);
    return NULL;
}

struct err *loader_image_len(uint64_t *out)
{
    pthread_mutex_lock(&lock);
    struct err *e = open_objects_locked();
    if (!e)
        *out = image_len();
    pthread_mutex_unlock(&lock);
    return e;
}

struct err *loader_image_for(uint64_t base, int *fd_out)
{
    int fd = -1;
    pthread_mutex_lock(&lock);
    struct err *e = open_objects_locked();
    vec_each (i, &images)
        fd = i->base == base ? i->fd : fd;
    if (!e && fd < 0) {
        e = make_image(base, &fd);
        if (!e)
            vec_push(&images, (struct image){base, fd});
    }
    *fd_out = fd;
    pthread_mutex_unlock(&lock);
    return e;
}
