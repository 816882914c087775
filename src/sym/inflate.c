/* Compressed debug information (gABI, "Section Compression"). libdw unpacks all sections of DWARF
 * when it opens a file, one after the other with zlib; for a libc's that takes longer than most
 * questions. Here libdeflate does, on two CPUs where there are two, into an ELF file in memory that
 * has nothing but these sections. */
#include "sym/sym_int.h"

#include "base/allocator.h"
#include "base/cpus.h"

#include <libdeflate.h>
#include <stdatomic.h>

enum {
    MOST_SECTIONS = 1024,
    MOST_RATIO = 1032 /* of what deflate can do */,
    WORTH_A_THREAD = 256 << 10
};
#define MOST_BYTES (2ull << 30)

struct packed_section {
    const uint8_t *from;
    uint8_t *to;
    size_t from_len, to_len;
    uint64_t to_off; /* in the image */
    bool compressed;
};

struct inflating {
    struct packed_section sections[MOST_SECTIONS]; /* of those that are wanted; the largest first */
    size_t count;
    atomic_size_t next;
    atomic_bool failed;
};

static void *inflate_sections(void *ctx)
{
    struct inflating *work = ctx;
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    for (size_t i; (i = atomic_fetch_add(&work->next, 1)) < work->count;) {
        const struct packed_section *s = &work->sections[i];
        if (!s->compressed)
            memcpy(s->to, s->from, s->to_len);
        else if (!d || libdeflate_zlib_decompress(d, s->from, s->from_len, s->to, s->to_len,
                                                  NULL) != LIBDEFLATE_SUCCESS)
            atomic_store(&work->failed, true);
    }
    libdeflate_free_decompressor(d);
    return NULL;
}

static bool is_dwarf(const char *name)
{
    return name && (str_starts(name, ".debug_") || str_eq(name, ".gnu_debugaltlink"));
}

/* Takes a section into the work and gives its header in the image. False: it makes no sense, or
 * cannot be unpacked here. */
static bool take_section(struct inflating *work, const uint8_t *file, size_t file_len,
                         Elf64_Shdr *h, uint64_t *len)
{
    if (h->sh_offset > file_len || h->sh_size > file_len - h->sh_offset ||
        work->count == MOST_SECTIONS)
        return false;
    struct packed_section s = {.from = file + h->sh_offset,
                               .from_len = h->sh_size,
                               .to_len = h->sh_size,
                               .to_off = (*len + 63) & ~63ull};
    if (h->sh_flags & SHF_COMPRESSED) {
        Elf64_Chdr c;
        if (h->sh_size < sizeof(c))
            return false;
        memcpy(&c, s.from, sizeof(c));
        s.from += sizeof(c);
        s.from_len -= sizeof(c);
        if (c.ch_type != ELFCOMPRESS_ZLIB || c.ch_size / MOST_RATIO > s.from_len)
            return false;
        s.to_len = c.ch_size;
        s.compressed = true;
        h->sh_flags &= ~(Elf64_Xword)SHF_COMPRESSED;
        h->sh_addralign = c.ch_addralign;
    }
    h->sh_offset = s.to_off;
    h->sh_size = s.to_len;
    *len = s.to_off + s.to_len;
    work->sections[work->count++] = s;
    return *len <= MOST_BYTES;
}

static int largest_first(const void *a, const void *b)
{
    const struct packed_section *x = a, *y = b;
    return x->from_len > y->from_len ? -1 : x->from_len < y->from_len;
}

static bool inflate_all(struct inflating *work, uint8_t *image)
{
    size_t compressed = 0;
    for (size_t i = 0; i < work->count; i++) {
        work->sections[i].to = image + work->sections[i].to_off;
        compressed += work->sections[i].compressed ? work->sections[i].from_len : 0;
    }
    qsort(work->sections, work->count, sizeof(work->sections[0]), largest_first);
    pthread_t other;
    bool two = compressed >= WORTH_A_THREAD && usable_cpus() > 1 &&
               pthread_create(&other, NULL, inflate_sections, work) == 0;
    inflate_sections(work);
    if (two)
        pthread_join(other, NULL);
    return !work->failed;
}

/* Fills the headers for the image, and the work; the length of the image, or 0: nothing is
 * compressed, or libdw has to say what is wrong. */
static uint64_t plan(Elf *elf, const uint8_t *file, size_t file_len, struct inflating *work,
                     Elf64_Ehdr *header, Elf64_Shdr *headers)
{
    size_t names = 0;
    bool any = false;
    if (elf_getshdrstrndx(elf, &names) != 0 || header->e_shnum > MOST_SECTIONS ||
        header->e_shentsize != sizeof(*headers) || header->e_shoff > file_len ||
        header->e_shnum * sizeof(*headers) > file_len - header->e_shoff)
        return 0;
    memcpy(headers, file + header->e_shoff, header->e_shnum * sizeof(*headers));
    uint64_t len = sizeof(*header) + header->e_shnum * sizeof(*headers);
    for (size_t i = 0; i < header->e_shnum; i++) {
        Elf64_Shdr *h = &headers[i];
        bool dwarf = h->sh_type != SHT_NOBITS && is_dwarf(elf_strptr(elf, names, h->sh_name));
        any |= dwarf && (h->sh_flags & SHF_COMPRESSED);
        if (!dwarf && i != names)
            *h = (Elf64_Shdr){.sh_name = h->sh_name,
                              .sh_type = i ? SHT_NOBITS : SHT_NULL,
                              .sh_offset = sizeof(*header)};
        else if (!take_section(work, file, file_len, h, &len))
            return 0;
    }
    header->e_shoff = sizeof(*header);
    header->e_phnum = 0;
    header->e_phoff = 0;
    return any ? len : 0;
}

Elf *inflate_dwarf(Elf *elf, uint8_t **image_out)
{
    size_t file_len = 0;
    const uint8_t *file = (const uint8_t *)elf_rawfile(elf, &file_len);
    Elf64_Ehdr header;
    if (!file || file_len < sizeof(header) || gelf_getclass(elf) != ELFCLASS64 ||
        file[EI_DATA] != ELFDATA2LSB)
        return NULL;
    memcpy(&header, file, sizeof(header));
    cleanup(freep) struct inflating *work = xnew(struct inflating);
    cleanup(freep) Elf64_Shdr *headers = xnew_array(Elf64_Shdr, MOST_SECTIONS);
    uint64_t len = plan(elf, file, file_len, work, &header, headers);
    cleanup(freep) uint8_t *image = len ? allocate_large(len) : NULL;
    if (!image || !inflate_all(work, image))
        return NULL;
    memcpy(image, &header, sizeof(header));
    memcpy(image + sizeof(header), headers, header.e_shnum * sizeof(headers[0]));
    Elf *inflated = elf_memory((char *)image, len);
    if (inflated)
        *image_out = steal(image);
    return inflated;
}
