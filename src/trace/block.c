#include "trace/block.h"

#include <brotli/decode.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/bytes.h"

/* Reads exactly `len` bytes; a file that ends early (it shrank since it was opened) is ERR_FORMAT.
 */
static struct err *read_at(const struct block_file *f, uint64_t off, void *out, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(f->fd, (uint8_t *)out + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_os("%s: cannot read at 0x%" PRIx64, f->name, off);
        if (n == 0)
            return err_new(ERR_FORMAT, "%s: file ends at 0x%" PRIx64 ", in the middle of a block",
                           f->name, off + done);
        done += (size_t)n;
    }
    return NULL;
}

static struct err *read_block_table(struct block_file *f)
{
    VEC(struct block) blocks = {0};
    struct err *e = NULL;
    uint64_t off = 0;
    while (!e && off < f->file_len) {
        size_t idx = blocks.count;
        uint64_t left = f->file_len - off;
        uint8_t header[BLOCK_HEADER_LEN];
        if (left < sizeof(header)) {
            e = err_new(ERR_FORMAT, "%s: block %zu at 0x%" PRIx64 ": header truncated", f->name,
                        idx, off);
            break;
        }
        e = read_at(f, off, header, sizeof(header));
        if (e)
            break;
        struct block b = {.file_off = off,
                          .stream_off = f->size,
                          .len = load_u32(header),
                          .size = load_u32(header + 4)};
        if (b.len > left - sizeof(header))
            e = err_new(ERR_FORMAT,
                        "%s: block %zu at 0x%" PRIx64 ": truncated: %u bytes wanted, %" PRIu64
                        " left",
                        f->name, idx, off, b.len, left - sizeof(header));
        else if (b.size > BLOCK_MAX_SIZE)
            e = err_new(ERR_FORMAT, "%s: block %zu at 0x%" PRIx64 ": unlikely size %u", f->name,
                        idx, off, b.size);
        else
            vec_push(&blocks, b);
        off += sizeof(header) + b.len;
        f->size += b.size;
    }
    f->blocks = blocks.items;
    f->count = blocks.count;
    return e;
}

struct err *block_file_open(const char *dir, const char *name, struct block_file *out)
{
    struct block_file f = {.name = xstrdup(name)};
    cleanup(freep) char *path = str_format("%s/%s", dir, name);
    f.fd = open(path, O_RDONLY | O_CLOEXEC);
    struct err *e = NULL;
    struct stat st;
    if (f.fd < 0)
        e = err_os("cannot open %s", path);
    else if (fstat(f.fd, &st) < 0)
        e = err_os("cannot stat %s", path);
    else if (!S_ISREG(st.st_mode))
        e = err_new(ERR_FORMAT, "%s: not a regular file", name);
    if (!e) {
        f.file_len = (uint64_t)st.st_size;
        e = read_block_table(&f);
    }
    if (e)
        block_file_close(&f);
    else
        *out = f;
    return e;
}

void block_file_close(struct block_file *f)
{
    if (f->name && f->fd >= 0)
        close(f->fd);
    free(f->blocks);
    free(f->name);
    *f = (struct block_file){.fd = -1};
}

void block_reader_init(struct block_reader *r, const struct block_file *file)
{
    *r = (struct block_reader){.file = file};
}

void block_reader_deinit(struct block_reader *r)
{
    for (size_t i = 0; i < BLOCK_SLOTS; i++)
        free(r->slots[i].data);
    *r = (struct block_reader){0};
}

/* The last block that begins at or before `off`: the one holding it, as off < file->size. */
static size_t find_block(const struct block_file *f, uint64_t off)
{
    size_t start = 0, end = f->count;
    while (end - start > 1) {
        size_t mid = start + (end - start) / 2;
        if (f->blocks[mid].stream_off <= off)
            start = mid;
        else
            end = mid;
    }
    return start;
}

static struct err *decompress(const struct block_file *f, size_t idx, uint8_t **out)
{
    const struct block *b = &f->blocks[idx];
    cleanup(freep) uint8_t *packed = malloc(b->len ? b->len : 1);
    cleanup(freep) uint8_t *data = malloc(b->size ? b->size : 1);
    if (!packed || !data)
        return err_new(ERR_LIMIT, "%s: block %zu at 0x%" PRIx64 ": no memory for %u bytes", f->name,
                       idx, b->file_off, b->size);
    TRY(read_at(f, b->file_off + BLOCK_HEADER_LEN, packed, b->len));

    BrotliDecoderState *state = BrotliDecoderCreateInstance(NULL, NULL, NULL);
    if (!state)
        return err_new(ERR_LIMIT, "%s: no memory for a brotli decoder", f->name);
    size_t in_left = b->len, out_left = b->size;
    const uint8_t *in = packed;
    uint8_t *to = data;
    BrotliDecoderResult result =
        BrotliDecoderDecompressStream(state, &in_left, &in, &out_left, &to, NULL);
    const char *why = result == BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT ? "brotli stream truncated"
                      : result == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT
                          ? "more data than its header says"
                      : result == BROTLI_DECODER_RESULT_ERROR ? "brotli stream damaged"
                      : out_left                              ? "less data than its header says"
                      : in_left ? "bytes left over after the brotli stream"
                                : NULL;
    BrotliDecoderDestroyInstance(state);
    if (why)
        return err_new(ERR_FORMAT, "%s: block %zu at 0x%" PRIx64 ": %s", f->name, idx, b->file_off,
                       why);
    *out = steal(data);
    return NULL;
}

static struct err *find_slot(struct block_reader *r, size_t idx, const uint8_t **out)
{
    struct block_slot *oldest = &r->slots[0];
    r->clock++;
    for (struct block_slot *s = r->slots; s < r->slots + BLOCK_SLOTS; s++) {
        if (s->data && s->idx == idx) {
            s->used = r->clock;
            *out = s->data;
            return NULL;
        }
        if (s->used < oldest->used)
            oldest = s;
    }
    uint8_t *data = NULL;
    TRY(decompress(r->file, idx, &data));
    free(oldest->data);
    *oldest = (struct block_slot){.data = data, .idx = idx, .used = r->clock};
    *out = data;
    return NULL;
}

struct err *block_reader_at(struct block_reader *r, uint64_t off, const uint8_t **out,
                            size_t *len_out)
{
    if (off >= r->file->size) {
        *out = NULL;
        *len_out = 0;
        return NULL;
    }
    size_t idx = find_block(r->file, off);
    const struct block *b = &r->file->blocks[idx];
    const uint8_t *data;
    TRY(find_slot(r, idx, &data));
    *out = data + (off - b->stream_off);
    *len_out = (size_t)(b->stream_off + b->size - off);
    return NULL;
}

struct err *block_reader_copy(struct block_reader *r, uint64_t off, void *out, size_t len)
{
    if (off > r->file->size || len > r->file->size - off)
        return err_new(ERR_FORMAT, "%s: ends at 0x%" PRIx64 ", %zu bytes wanted at 0x%" PRIx64,
                       r->file->name, r->file->size, len, off);
    for (uint8_t *to = out; len;) {
        const uint8_t *p;
        size_t n;
        TRY(block_reader_at(r, off, &p, &n));
        if (n > len)
            n = len;
        memcpy(to, p, n);
        to += n;
        off += n;
        len -= n;
    }
    return NULL;
}
