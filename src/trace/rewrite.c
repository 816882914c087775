#include "trace/rewrite.h"

#include <inttypes.h>

#include "base/bytes.h"
#include "trace/packed.h"
#include "trace/writer.h"

/* Places in an MMap (rr_trace.capnp). */
enum { STAT_MODE = 56, STAT_UID = 60, STAT_GID = 64, STAT_MTIME = 80, BACKING_FILE_POINTER = 1 };

static void store(struct message *m, size_t off, uint64_t v, size_t len)
{
    memcpy(m->data.data + off, &v, len);
}

/* Zeroes a field, if the struct is long enough to have it. */
static void clear(struct message *m, struct message_struct s, size_t off, size_t len)
{
    if (off < s.data_len)
        store(m, (size_t)(s.data - m->data.data) + off, 0, len);
}

static uint64_t bytes_pointer(size_t from, size_t to, size_t len)
{
    return ((uint64_t)(uint32_t)(to - from - 1) << 2) | 1 | (uint64_t)2 << 32 | (uint64_t)len << 35;
}

/* Appends words to the last segment, the only one that can grow; returns their place in it. */
static struct err *append(struct message *m, size_t words, size_t *out)
{
    struct message_segment *last = &m->segments[m->segment_count - 1];
    uint8_t *to;
    TRY(message_extend(m, words, &to));
    memset(to, 0, words * 8);
    *out = last->words;
    last->words += words;
    return NULL;
}

/* Lets pointer number `idx` of `s` point to new bytes: a near pointer if the struct is in the last
 * segment, else a far pointer to a landing pad there. The old bytes stay behind, unreferenced. */
static struct err *set_data(struct message *m, struct message_struct s, unsigned idx,
                            const char *data, size_t len)
{
    if (idx >= s.ptr_count)
        return err_new(ERR_FORMAT, "mmaps: a record without room for its file's name");
    uint32_t last = m->segment_count - 1;
    size_t from = s.ptrs + idx;
    size_t from_off = (m->segments[s.segment].first + from) * 8;
    bool near = s.segment == last;
    size_t pad;
    TRY(append(m, !near + (len + 7) / 8, &pad));
    size_t base = m->segments[last].first, to = pad + !near;
    memcpy(m->data.data + (base + to) * 8, data, len);
    if (near) {
        store(m, from_off, bytes_pointer(from, to, len), 8);
        return NULL;
    }
    enum { FAR = 2 };
    store(m, (base + pad) * 8, bytes_pointer(pad, to, len), 8);
    store(m, from_off, FAR | (uint64_t)pad << 3 | (uint64_t)last << 32, 8);
    return NULL;
}

static struct err *rewrite_record(struct message *m, const char *backing_file,
                                  struct block_writer *w)
{
    struct message_struct s = message_root(m);
    TRY(message_check(m));
    clear(m, s, STAT_MODE, 4);
    clear(m, s, STAT_UID, 4);
    clear(m, s, STAT_GID, 4);
    clear(m, s, STAT_MTIME, 8);
    if (backing_file)
        TRY(set_data(m, s, BACKING_FILE_POINTER, backing_file, strlen(backing_file)));
    cleanup(buf_deinit) struct buf packed = {0};
    pack_read_message(&packed, m);
    return block_writer_add(w, packed.data, packed.len);
}

static struct err *rewrite_all(const struct block_file *file, const char *const *backing_files,
                               size_t count, struct block_writer *w)
{
    cleanup(block_reader_deinit) struct block_reader blocks;
    block_reader_init(&blocks, file);
    cleanup(message_deinit) struct message m = {0};
    struct packed_stream stream = packed_stream_of_blocks(&blocks, 0);
    for (size_t i = 0;; i++) {
        bool end;
        TRY(packed_stream_next(&stream, &m, &end));
        if (end && i == count)
            return block_writer_finish(w);
        if (end || i >= count)
            return err_new(ERR_FORMAT, "mmaps: changed while it was read");
        TRY(rewrite_record(&m, backing_files[i], w));
    }
}

struct err *mmaps_rewrite(const char *dir, const char *const *backing_files, size_t count, int fd)
{
    cleanup(block_file_close) struct block_file file = {.fd = -1};
    TRY(block_file_open(dir, "mmaps", &file));
    cleanup(block_writer_deinit) struct block_writer w = {
        .name = "mmaps", .fd = fd, .block_size = BLOCK_SIZE_MMAPS};
    return rewrite_all(&file, backing_files, count, &w);
}
