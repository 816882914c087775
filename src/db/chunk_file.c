#include "db/chunk_file.h"

#include "base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <xxhash.h>
#include <zstd.h>

enum { HEADER_LEN = 40, CHUNK_HEADER_LEN = 40, CHUNK_END = 0 };
#define MAX_UNPACKED (1ull << 30)
static const char magic[8] = {'P', 'E', 'R', 'N', 'O', 'S', 'C', 'O'};

struct chunk_writer {
    char *path;
    int fd, level;
    uint32_t chunk_count;
    ZSTD_CCtx *zstd;
    struct buf
        waiting; /* not written yet: a call for each small chunk would cost more than the chunk */
};
enum { WRITE_AT_ONCE = 1 << 20 };

static struct err *flush(struct chunk_writer *w)
{
    TRY(write_all(w->fd, w->path, w->waiting.data, w->waiting.len));
    w->waiting.len = 0;
    return NULL;
}

static void put_header(struct chunk_writer *w, struct file_id id)
{
    cleanup(buf_deinit) struct buf header = {0};
    buf_add(&header, magic, sizeof(magic));
    buf_u32(&header, DB_VERSION);
    buf_u32(&header, id.kind);
    buf_u64(&header, id.build);
    buf_u64(&header, id.number);
    buf_u64(&header, XXH3_64bits(header.data, header.len));
    buf_add(&w->waiting, header.data, header.len);
}

struct err *chunk_writer_create(const char *path, struct file_id id, int level,
                                struct chunk_writer **out)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_os("cannot create %s", path);
    cleanup(chunk_writer_abandonp) struct chunk_writer *w = xnew(struct chunk_writer);
    *w = (struct chunk_writer){
        .path = xstrdup(path), .fd = fd, .level = level, .zstd = ZSTD_createCCtx()};
    if (!w->zstd)
        return err_new(ERR_LIMIT, "no memory for compression");
    put_header(w, id);
    *out = steal(w);
    return NULL;
}

/* The header of the next chunk, whose `len` bytes of data are at `packed`. */
static void make_chunk_header(struct chunk_writer *w, uint32_t kind, uint64_t unpacked,
                              const uint8_t *packed, size_t len, uint8_t out[CHUNK_HEADER_LEN])
{
    cleanup(buf_deinit) struct buf header = {0};
    buf_u32(&header, kind);
    buf_u32(&header, w->chunk_count++); // the end mark's is the count of chunks before it
    buf_u64(&header, len);
    buf_u64(&header, unpacked);
    buf_u64(&header, XXH3_64bits(packed, len));
    buf_u64(&header, XXH3_64bits(header.data, header.len));
    memcpy(out, header.data, CHUNK_HEADER_LEN);
}

struct err *chunk_writer_add(struct chunk_writer *w, uint32_t kind, const struct buf *data)
{
    if (data->len > MAX_UNPACKED)
        return err_new(ERR_LIMIT, "%s: a chunk of %zu bytes is too large", w->path, data->len);
    size_t bound = ZSTD_compressBound(data->len);
    if (!buf_try_reserve(&w->waiting, CHUNK_HEADER_LEN + bound))
        return err_new(ERR_LIMIT, "%s: no memory for a chunk of %zu bytes", w->path, data->len);
    uint8_t *header = w->waiting.data + w->waiting.len, *packed = header + CHUNK_HEADER_LEN;
    size_t len = ZSTD_compressCCtx(w->zstd, packed, bound, data->data, data->len, w->level);
    if (ZSTD_isError(len))
        return err_new(ERR_OS, "%s: %s", w->path, ZSTD_getErrorName(len));
    make_chunk_header(w, kind, data->len, packed, len, header);
    w->waiting.len += CHUNK_HEADER_LEN + len;
    return w->waiting.len < WRITE_AT_ONCE ? NULL : flush(w);
}

static void free_writer(struct chunk_writer *w)
{
    ZSTD_freeCCtx(w->zstd);
    buf_deinit(&w->waiting);
    free(w->path);
    free(w);
}

struct err *chunk_writer_finish(struct chunk_writer *w)
{
    uint8_t end[CHUNK_HEADER_LEN];
    make_chunk_header(w, CHUNK_END, 0, (const uint8_t *)"", 0, end);
    buf_add(&w->waiting, end, sizeof(end));
    struct err *e = flush(w);
    if (e) {
        chunk_writer_abandon(w);
        return e;
    }
    if (close(w->fd) != 0) {
        e = err_os("cannot write %s", w->path);
        unlink(w->path);
    }
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
    uint64_t off; /* of the header */
    uint64_t len, unpacked, sum;
};

struct chunk_file {
    char *path;
    int fd;
    uint64_t size;
    struct file_id id;
    VEC(struct chunk) chunks;
    uint8_t *first; /* the file's first bytes, which are most of most files, read in one go */
    size_t first_len;
};
enum { FIRST_LEN = 32 << 10 };

static struct err *damaged(const struct chunk_file *f, uint64_t off, const char *what)
{
    return err_new(ERR_FORMAT, "%s: at 0x%llx: %s", f->path, (unsigned long long)off, what);
}

/* Reads `len` bytes; what is not there fails. */
static struct err *read_at(const struct chunk_file *f, uint64_t off, void *out, size_t len)
{
    size_t done = 0;
    if (off < f->first_len) {
        done = len < f->first_len - off ? len : f->first_len - off;
        memcpy(out, f->first + off, done);
    }
    while (done < len) {
        ssize_t n = pread(f->fd, (uint8_t *)out + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_os("%s: cannot read at 0x%llx", f->path, (unsigned long long)off);
        if (n == 0)
            return damaged(f, off + done, "the file is cut off");
        done += (size_t)n;
    }
    return NULL;
}

static struct err *read_header(struct chunk_file *f, struct file_id expect)
{
    uint8_t h[HEADER_LEN];
    if (f->size < HEADER_LEN)
        return damaged(f, f->size, "not a file of a pernosco database, or cut off");
    TRY(read_at(f, 0, h, HEADER_LEN));
    if (memcmp(h, magic, sizeof(magic)) != 0)
        return damaged(f, 0, "not a file of a pernosco database");
    uint32_t version = load_u32(h + 8);
    if (version != DB_VERSION)
        return err_new(ERR_UNSUPPORTED,
                       "%s: at 0x8: database version %u, this program reads %d: build it again",
                       f->path, version, DB_VERSION);
    if (load_u64(h + 32) != XXH3_64bits(h, 32))
        return damaged(f, 0, "checksum of the header differs, the file is damaged");
    f->id = (struct file_id){load_u64(h + 16), (enum file_kind)load_u32(h + 12), load_u64(h + 24)};
    if (f->id.kind != expect.kind || f->id.number != expect.number)
        return damaged(f, 0xc, "another file of a database in this one's place");
    if (expect.build && f->id.build != expect.build)
        return damaged(f, 0x10, "belongs to another build of the database");
    return NULL;
}

static struct err *read_table(struct chunk_file *f)
{
    uint8_t h[CHUNK_HEADER_LEN];
    for (uint64_t off = HEADER_LEN;;) {
        if (f->size - off < CHUNK_HEADER_LEN)
            return damaged(f, off, "the file is cut off");
        TRY(read_at(f, off, h, CHUNK_HEADER_LEN));
        if (load_u64(h + 32) != XXH3_64bits(h, 32))
            return damaged(f, off, "checksum of a chunk's header differs, the file is damaged");
        struct chunk c = {.kind = load_u32(h),
                          .off = off,
                          .len = load_u64(h + 8),
                          .unpacked = load_u64(h + 16),
                          .sum = load_u64(h + 24)};
        if (load_u32(h + 4) != f->chunks.count || c.unpacked > MAX_UNPACKED)
            return damaged(f, off, "a chunk's header makes no sense");
        if (c.len > f->size - off - CHUNK_HEADER_LEN)
            return damaged(f, off, "the file is cut off in this chunk");
        off += CHUNK_HEADER_LEN + c.len;
        if (c.kind == CHUNK_END)
            return off == f->size && !c.len ? NULL : damaged(f, off, "something is behind the end");
        vec_push(&f->chunks, c);
    }
}

struct err *chunk_file_open(int dir, const char *path, const char *shown, struct file_id expect,
                            struct chunk_file **out)
{
    int fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return err_new(ERR_NOT_FOUND, "%s: at 0x0: the file is not there", shown);
    if (fd < 0)
        return err_os("cannot open %s", shown);
    cleanup(chunk_file_closep) struct chunk_file *f = xnew(struct chunk_file);
    f->fd = fd;
    f->path = xstrdup(shown);
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_os("cannot stat %s", shown);
    if (!S_ISREG(st.st_mode))
        return damaged(f, 0, "not a regular file");
    f->size = (uint64_t)st.st_size;
    size_t len = f->size < FIRST_LEN ? f->size : FIRST_LEN;
    f->first = xmalloc(len + 1);
    TRY(read_at(f, 0, f->first, len));
    f->first_len = len;
    TRY(read_header(f, expect));
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
    free(f->first);
    vec_deinit(&f->chunks);
    free(f);
}

static const struct chunk *find_chunk(const struct chunk_file *f, uint32_t kind, size_t idx)
{
    vec_each (c, &f->chunks) {
        if (c->kind == kind && idx-- == 0)
            return c;
    }
    return NULL;
}

/* Decompressors that wait for the next one who needs one: to make one costs as much as to
 * decompress some 100 KB. */
enum { MOST_WAITING = 8 };
static pthread_mutex_t waiting_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the rest */
static ZSTD_DCtx *waiting[MOST_WAITING];
static size_t waiting_count;

/* NULL: there is no memory. */
static ZSTD_DCtx *take_decompressor(void)
{
    pthread_mutex_lock(&waiting_lock);
    ZSTD_DCtx *d = waiting_count ? waiting[--waiting_count] : NULL;
    pthread_mutex_unlock(&waiting_lock);
    return d ? d : ZSTD_createDCtx();
}

static void return_decompressor(ZSTD_DCtx *d)
{
    pthread_mutex_lock(&waiting_lock);
    bool kept = waiting_count < MOST_WAITING;
    if (kept)
        waiting[waiting_count++] = d;
    pthread_mutex_unlock(&waiting_lock);
    if (!kept)
        ZSTD_freeDCtx(d);
}

struct err *chunk_file_read(const struct chunk_file *f, uint32_t kind, size_t idx, struct buf *out)
{
    const struct chunk *c = find_chunk(f, kind, idx);
    if (!c)
        return err_new(ERR_FORMAT, "%s: at 0x%llx: chunk %zu of kind %u is missing", f->path,
                       (unsigned long long)f->size, idx, kind);
    cleanup(freep) uint8_t *packed = malloc(c->len + 1);
    if (!packed || !buf_try_reserve(out, c->unpacked))
        return err_new(ERR_LIMIT, "%s: at 0x%llx: no memory for a chunk of %llu bytes", f->path,
                       (unsigned long long)c->off, (unsigned long long)c->unpacked);
    TRY(read_at(f, c->off + CHUNK_HEADER_LEN, packed, c->len));
    if (XXH3_64bits(packed, c->len) != c->sum)
        return damaged(f, c->off, "checksum of a chunk differs, the file is damaged");
    ZSTD_DCtx *d = take_decompressor();
    if (!d)
        return err_new(ERR_LIMIT, "no memory to decompress");
    size_t n = ZSTD_decompressDCtx(d, out->data + out->len, c->unpacked, packed, c->len);
    return_decompressor(d);
    if (ZSTD_isError(n) || n != c->unpacked)
        return damaged(f, c->off, "a chunk's zstd frame is damaged");
    out->len += n;
    return NULL;
}

struct file_id chunk_file_id(const struct chunk_file *f)
{
    return f->id;
}

const char *chunk_file_path(const struct chunk_file *f)
{
    return f->path;
}

uint64_t chunk_file_bytes(const struct chunk_file *f)
{
    return f->size;
}

uint64_t chunk_file_kind_bytes(const struct chunk_file *f, uint32_t kind, size_t *count_out)
{
    uint64_t bytes = 0;
    size_t count = 0;
    vec_each (c, &f->chunks) {
        bytes += c->kind == kind ? c->len + CHUNK_HEADER_LEN : 0;
        count += c->kind == kind;
    }
    if (count_out)
        *count_out = count;
    return bytes;
}

struct err *chunk_file_bad(const struct chunk_file *f, uint32_t kind, size_t idx, size_t off)
{
    const struct chunk *c = find_chunk(f, kind, idx);
    return err_new(ERR_FORMAT, "%s: at 0x%llx: chunk of kind %u breaks its format at 0x%zx",
                   f->path, (unsigned long long)(c ? c->off : f->size), kind, off);
}
