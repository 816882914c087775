#include "db/chunk_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <xxhash.h>
#include <zstd.h>

enum { HEADER_LEN = 16, CHUNK_HEADER_LEN = 32 };
#define MAX_UNPACKED (4ull << 30)
static const char magic[8] = {'P', 'E', 'R', 'N', 'O', 'S', 'C', 'O'};

struct chunk_writer {
    char *path;
    int fd, level;
    uint64_t bytes;
    ZSTD_CCtx *zstd;
};

static struct err *write_all(struct chunk_writer *w, const void *data, size_t len)
{
    const uint8_t *p = data;
    while (len) {
        ssize_t n = write(w->fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_os("cannot write %s", w->path);
        p += n;
        len -= (size_t)n;
        w->bytes += (uint64_t)n;
    }
    return NULL;
}

struct err *chunk_writer_create(const char *path, int level, struct chunk_writer **out)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_os("cannot create %s", path);
    struct chunk_writer *w = xnew(struct chunk_writer);
    *w = (struct chunk_writer){.path = xstrdup(path), .fd = fd, .level = level, .zstd = ZSTD_createCCtx()};
    cleanup(buf_deinit) struct buf header = {0};
    buf_add(&header, magic, sizeof(magic));
    buf_u32(&header, DB_VERSION);
    buf_u32(&header, 0);
    struct err *e = w->zstd ? write_all(w, header.data, header.len) : err_new(ERR_LIMIT, "no memory for compression");
    if (e) {
        chunk_writer_abandon(w);
        return e;
    }
    *out = w;
    return NULL;
}

struct err *chunk_writer_add(struct chunk_writer *w, uint32_t kind, const struct buf *data)
{
    size_t bound = ZSTD_compressBound(data->len);
    cleanup(freep) uint8_t *packed = malloc(bound);
    if (!packed)
        return err_new(ERR_LIMIT, "%s: no memory for a chunk of %zu bytes", w->path, data->len);
    size_t len = ZSTD_compressCCtx(w->zstd, packed, bound, data->data, data->len, w->level);
    if (ZSTD_isError(len))
        return err_new(ERR_OS, "%s: %s", w->path, ZSTD_getErrorName(len));
    cleanup(buf_deinit) struct buf header = {0};
    buf_u32(&header, kind);
    buf_u32(&header, 0);
    buf_u64(&header, len);
    buf_u64(&header, data->len);
    buf_u64(&header, XXH3_64bits(packed, len) ^ XXH3_64bits(header.data, 24));
    TRY(write_all(w, header.data, header.len));
    return write_all(w, packed, len);
}

static void free_writer(struct chunk_writer *w)
{
    ZSTD_freeCCtx(w->zstd);
    free(w->path);
    free(w);
}

struct err *chunk_writer_finish(struct chunk_writer *w, uint64_t *bytes_out)
{
    struct err *e = NULL;
    if (close(w->fd) != 0)
        e = err_os("cannot write %s", w->path);
    if (bytes_out)
        *bytes_out = w->bytes;
    free_writer(w);
    return e;
}

void chunk_writer_abandon(struct chunk_writer *w)
{
    if (!w)
        return;
    close(w->fd);
    unlink(w->path);
    free_writer(w);
}

/* --- reading --- */

struct chunk {
    uint32_t kind;
    uint64_t off, len, unpacked, sum, header_sum;
};

struct chunk_file {
    char *path;
    int fd;
    uint64_t size;
    VEC(struct chunk) chunks;
};

static struct err *read_table(struct chunk_file *f)
{
    uint8_t header[CHUNK_HEADER_LEN];
    if (f->size < HEADER_LEN || pread(f->fd, header, HEADER_LEN, 0) != HEADER_LEN ||
        memcmp(header, magic, sizeof(magic)) != 0)
        return err_new(ERR_FORMAT, "%s: at 0x0: not a file of a pernosco database", f->path);
    if (load_u32(header + 8) != DB_VERSION)
        return err_new(ERR_UNSUPPORTED, "%s: database version %u, this program reads %d: build it again", f->path,
                       load_u32(header + 8), DB_VERSION);
    if (load_u32(header + 12) != 0)
        return err_new(ERR_FORMAT, "%s: at 0xc: not zero", f->path);
    for (uint64_t off = HEADER_LEN; off < f->size;) {
        if (f->size - off < CHUNK_HEADER_LEN ||
            pread(f->fd, header, CHUNK_HEADER_LEN, (off_t)off) != CHUNK_HEADER_LEN)
            return err_new(ERR_FORMAT, "%s: at %#llx: chunk header truncated", f->path, (unsigned long long)off);
        struct chunk c = {.kind = load_u32(header), .off = off + CHUNK_HEADER_LEN, .len = load_u64(header + 8),
                          .unpacked = load_u64(header + 16), .sum = load_u64(header + 24),
                          .header_sum = XXH3_64bits(header, 24)};
        if (c.len > f->size - c.off || c.unpacked > MAX_UNPACKED)
            return err_new(ERR_FORMAT, "%s: at %#llx: chunk length makes no sense", f->path, (unsigned long long)off);
        vec_push(&f->chunks, c);
        off = c.off + c.len;
    }
    return NULL;
}

struct err *chunk_file_open(const char *path, struct chunk_file **out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_os("cannot open %s", path);
    cleanup(chunk_file_closep) struct chunk_file *f = xnew(struct chunk_file);
    f->fd = fd;
    f->path = xstrdup(path);
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_os("cannot stat %s", path);
    f->size = (uint64_t)st.st_size;
    TRY(read_table(f));
    *out = steal(f);
    return NULL;
}

void chunk_file_close(struct chunk_file *f)
{
    if (!f)
        return;
    close(f->fd);
    free(f->path);
    vec_deinit(&f->chunks);
    free(f);
}

struct err *chunk_file_read(struct chunk_file *f, uint32_t kind, struct buf *out)
{
    return chunk_file_read_nth(f, kind, 0, out);
}

struct err *chunk_file_read_nth(struct chunk_file *f, uint32_t kind, size_t idx, struct buf *out)
{
    const struct chunk *c = NULL;
    size_t seen = 0;
    vec_each (it, &f->chunks) {
        if (it->kind == kind && seen++ == idx)
            c = it;
    }
    if (!c)
        return err_new(ERR_FORMAT, "%s: chunk %zu of kind %u is missing", f->path, idx, kind);
    cleanup(freep) uint8_t *packed = malloc(c->len + 1);
    if (!packed || !buf_try_reserve(out, c->unpacked))
        return err_new(ERR_LIMIT, "%s: at %#llx: no memory for a chunk of %llu bytes", f->path, (unsigned long long)c->off,
                       (unsigned long long)c->unpacked);
    if (pread(f->fd, packed, c->len, (off_t)c->off) != (ssize_t)c->len)
        return err_os("%s: cannot read chunk at %#llx", f->path, (unsigned long long)c->off);
    if ((XXH3_64bits(packed, c->len) ^ c->header_sum) != c->sum)
        return err_new(ERR_FORMAT, "%s: at %#llx: checksum differs, the file is damaged", f->path,
                       (unsigned long long)c->off);
    size_t n = ZSTD_decompress(out->data + out->len, c->unpacked, packed, c->len);
    if (ZSTD_isError(n) || n != c->unpacked)
        return err_new(ERR_FORMAT, "%s: at %#llx: zstd frame damaged", f->path, (unsigned long long)c->off);
    out->len += n;
    return NULL;
}

const char *chunk_file_path(const struct chunk_file *f)
{
    return f->path;
}

uint64_t chunk_file_bytes(const struct chunk_file *f)
{
    return f->size;
}

uint64_t chunk_file_kind_bytes(const struct chunk_file *f, uint32_t kind)
{
    uint64_t bytes = 0;
    vec_each (c, &f->chunks)
        bytes += c->kind == kind ? c->len + CHUNK_HEADER_LEN : 0;
    return bytes;
}
