#include "sources/archive.h"

#include <errno.h>
#include <limits.h>
#include <minizip/unzip.h>
#include <minizip/zip.h>

/* ---- Reading ---- */

struct entry {
    char *name; /* without a "/" at the start */
    unz64_file_pos pos;
};

struct archive {
    char *path;
    VEC(struct entry) entries; /* by name */
};

static int compare_entries(const void *x, const void *y)
{
    const struct entry *a = x, *b = y;
    return strcmp(a->name, b->name);
}

static const char *plain(const char *name)
{
    return name + strspn(name, "/");
}

static void close_zip(unzFile *zip)
{
    if (*zip)
        unzClose(*zip);
}

static struct err *open_zip(const char *path, unzFile *out)
{
    if (access(path, R_OK) != 0)
        return err_os("cannot open %s", path);
    *out = unzOpen64(path);
    return *out ? NULL : err_new(ERR_FORMAT, "%s: no zip archive, or its end is damaged", path);
}

/* The entries, until the directory ends or is damaged: what there is of it lies within the file, so
 * the file bounds their number. */
static struct err *read_directory(struct archive *a)
{
    cleanup(close_zip) unzFile zip = NULL;
    TRY(open_zip(a->path, &zip));
    int status = unzGoToFirstFile(zip);
    for (; status == UNZ_OK; status = unzGoToNextFile(zip)) {
        char name[PATH_MAX];
        unz_file_info64 info;
        struct entry e;
        if (unzGetCurrentFileInfo64(zip, &info, name, sizeof(name), NULL, 0, NULL, 0) != UNZ_OK ||
            unzGetFilePos64(zip, &e.pos) != UNZ_OK)
            return err_new(ERR_FORMAT, "%s: damaged after %zu entries", a->path, a->entries.count);
        if (info.size_filename >= sizeof(name) || strlen(name) != info.size_filename)
            continue; // no name of a file
        e.name = xstrdup(plain(name));
        vec_push(&a->entries, e);
    }
    if (status != UNZ_END_OF_LIST_OF_FILE)
        return err_new(ERR_FORMAT, "%s: damaged after %zu entries", a->path, a->entries.count);
    if (a->entries.count)
        qsort(a->entries.items, a->entries.count, sizeof(*a->entries.items), compare_entries);
    return NULL;
}

struct err *archive_open(const char *path, struct archive **out)
{
    cleanup(archive_closep) struct archive *a = xnew(struct archive);
    a->path = xstrdup(path);
    TRY(read_directory(a));
    *out = steal(a);
    return NULL;
}

void archive_close(struct archive *a)
{
    if (!a)
        return;
    vec_each (e, &a->entries)
        free(e->name);
    vec_deinit(&a->entries);
    free(a->path);
    free(a);
}

static const struct entry *find_entry(const struct archive *a, const char *name)
{
    const struct entry key = {.name = (char *)(uintptr_t)plain(name)};
    return a->entries.count
               ? bsearch(&key, a->entries.items, a->entries.count, sizeof(key), compare_entries)
               : NULL;
}

bool archive_has(const struct archive *a, const char *name)
{
    return find_entry(a, name) != NULL;
}

size_t archive_count(const struct archive *a)
{
    return a->entries.count;
}

const char *archive_name(const struct archive *a, size_t idx)
{
    return a->entries.items[idx].name;
}

static struct err *unpack(unzFile zip, const struct archive *a, const char *name, size_t most,
                          struct buf *out)
{
    enum { CHUNK = 1 << 16 };
    for (size_t total = 0;;) {
        if (!buf_try_reserve(out, CHUNK))
            return err_new(ERR_LIMIT, "%s: no memory for %s", a->path, name);
        int n = unzReadCurrentFile(zip, out->data + out->len, CHUNK);
        if (n < 0)
            return err_new(ERR_FORMAT, "%s: %s is damaged", a->path, name);
        if (n == 0)
            return NULL;
        out->len += (size_t)n;
        total += (size_t)n;
        if (total > most)
            return err_new(ERR_LIMIT, "%s: %s has more than %zu bytes", a->path, name, most);
    }
}

struct err *archive_read(const struct archive *a, const char *name, size_t most, struct buf *out)
{
    const struct entry *e = find_entry(a, name);
    if (!e)
        return err_new(ERR_NOT_FOUND, "%s: no %s in it", a->path, name);
    cleanup(close_zip) unzFile zip = NULL;
    TRY(open_zip(a->path, &zip)); // each time: a handle belongs to one thread
    unz64_file_pos pos = e->pos;
    unz_file_info64 info;
    if (unzGoToFilePos64(zip, &pos) != UNZ_OK ||
        unzGetCurrentFileInfo64(zip, &info, NULL, 0, NULL, 0, NULL, 0) != UNZ_OK)
        return err_new(ERR_FORMAT, "%s: %s is damaged", a->path, name);
    if (info.flag & 1)
        return err_new(ERR_FORMAT, "%s: %s is encrypted", a->path, name);
    if (unzOpenCurrentFile(zip) != UNZ_OK)
        return err_new(ERR_FORMAT, "%s: %s is damaged, or compressed in a way that is not known",
                       a->path, name);
    size_t start = out->len;
    struct err *err = unpack(zip, a, name, most, out);
    if (unzCloseCurrentFile(zip) == UNZ_CRCERROR && !err)
        err = err_new(ERR_FORMAT, "%s: %s is damaged: its checksum is wrong", a->path, name);
    if (err)
        out->len = start;
    return err;
}

/* ---- Writing ---- */

struct archive_writer {
    char *path, *temporary;
    zipFile zip;
};

struct err *archive_create(const char *path, struct archive_writer **out)
{
    cleanup(archive_writer_closep) struct archive_writer *w = xnew(struct archive_writer);
    w->path = xstrdup(path);
    w->temporary = str_format("%s.new", path);
    w->zip = zipOpen64(w->temporary, APPEND_STATUS_CREATE);
    if (!w->zip)
        return err_os("cannot create %s", w->temporary);
    *out = steal(w);
    return NULL;
}

struct err *archive_add(struct archive_writer *w, const char *name, const void *data, size_t len)
{
    enum {
        UTF8_NAMES = 1 << 11,
        FIRST_OF_1980 = 0x210000,
        MADE_BY_UNIX = 3 << 8
    }; // APPNOTE 4.4.2, 4.4.4, 4.4.6
    zip_fileinfo info = {.dosDate =
                             FIRST_OF_1980}; // no times: the same files make the same archive
    if (len > UINT32_MAX)
        return err_new(ERR_LIMIT, "%s: %zu bytes are too many for an archive of sources", name,
                       len);
    if (zipOpenNewFileInZip4_64(w->zip, name, &info, NULL, 0, NULL, 0, NULL, Z_DEFLATED,
                                Z_DEFAULT_COMPRESSION, 0, -MAX_WBITS, DEF_MEM_LEVEL,
                                Z_DEFAULT_STRATEGY, NULL, 0, MADE_BY_UNIX, UTF8_NAMES,
                                0) != ZIP_OK ||
        zipWriteInFileInZip(w->zip, data, (unsigned)len) != ZIP_OK ||
        zipCloseFileInZip(w->zip) != ZIP_OK)
        return err_os("cannot write %s into %s", name, w->temporary);
    return NULL;
}

struct err *archive_finish(struct archive_writer *w)
{
    zipFile zip = steal(w->zip);
    if (zipClose(zip, NULL) != ZIP_OK || rename(w->temporary, w->path) != 0)
        return err_os("cannot write %s", w->path);
    free(steal(w->temporary));
    return NULL;
}

void archive_writer_close(struct archive_writer *w)
{
    if (!w)
        return;
    if (w->zip)
        zipClose(w->zip, NULL);
    if (w->temporary)
        unlink(w->temporary);
    free(w->temporary);
    free(w->path);
    free(w);
}
