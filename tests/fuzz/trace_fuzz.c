/* Fuzz target: the decoders of a trace. The first byte of the input says which; the rest is what
 * that decoder reads, not compressed (a fuzzer does not get through brotli), except for the block
 * reader itself.
 *
 * With clang: -fsanitize=fuzzer,address and -DFUZZ_ENGINE. Without, the program runs over the files
 * and directories named as arguments, and over a number of mutations of each, so that it can be an
 * ordinary test. */
#include "base/buf.h"
#include "base/random.h"
#include "trace/packed.h"
#include "trace/trace_int.h"

#include <dirent.h>
#include <sys/mman.h>

enum { FUZZ_HEADER, FUZZ_FRAMES, FUZZ_MMAPS, FUZZ_TASKS, FUZZ_BLOCKS, FUZZ_COUNT };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct err *fuzz_messages(int kind, const uint8_t *data, size_t len)
{
    struct packed_stream s = packed_stream_of_memory("fuzz", data, len, 0);
    cleanup(message_deinit) struct message m = {0};
    cleanup(pool_deinit) struct pool p = {0};
    for (;;) {
        struct frame f;
        struct trace_mmap mmap;
        struct trace_task_event task;
        uint64_t data_len;
        bool end;
        TRY(packed_stream_next(&s, &m, &end));
        if (end)
            return NULL;
        pool_reset(&p);
        if (kind == FUZZ_FRAMES)
            TRY(frame_decode(&m, &p, &f, &data_len));
        else if (kind == FUZZ_MMAPS)
            TRY(mmap_decode(&m, &p, 0, &mmap));
        else
            TRY(task_decode(&m, &p, 0, &task));
    }
}

/* Opened by its name below /proc, as the reader wants names. */
static struct err *fuzz_blocks(const uint8_t *data, size_t len)
{
    cleanup(closep) int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len)
        return err_os("cannot make a file");
    cleanup(freep) char *name = str_format("%d", fd);
    cleanup(block_file_close) struct block_file file = {.fd = -1};
    TRY(block_file_open("/proc/self/fd", name, &file));
    cleanup(block_reader_deinit) struct block_reader r;
    block_reader_init(&r, &file);
    const uint8_t *piece;
    size_t piece_len;
    uint64_t off = 0;
    do {
        TRY(block_reader_at(&r, off, &piece, &piece_len));
        off += piece_len;
    } while (piece_len);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!len)
        return 0;
    cleanup(pool_deinit) struct pool p = {0};
    struct trace_header header;
    struct err *e;
    switch (data[0] % FUZZ_COUNT) {
    case FUZZ_HEADER:
        e = header_decode(data + 1, len - 1, 0, &p, &header);
        break;
    case FUZZ_BLOCKS:
        e = fuzz_blocks(data + 1, len - 1);
        break;
    default:
        e = fuzz_messages(data[0] % FUZZ_COUNT, data + 1, len - 1);
        break;
    }
    err_free(e);
    return 0;
}

#ifndef FUZZ_ENGINE

enum { MUTATIONS = 2000 };

/* One to four bytes replaced; now and then a piece cut off or out. */
static void mutate(struct buf *b, uint64_t *random)
{
    for (uint64_t n = 1 + next_random(random) % 4; n && b->len > 1; n--) {
        size_t at = 1 + next_random(random) % (b->len - 1);
        static const uint8_t liked[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
        switch (next_random(random) % 8) {
        case 0:
            b->len = at;
            break;
        case 1: {
            size_t len = next_random(random) % 16;
            if (len > b->len - at)
                len = b->len - at;
            memmove(b->data + at, b->data + at + len, b->len - at - len);
            b->len -= len;
            break;
        }
        case 2:
            b->data[at] = liked[next_random(random) % sizeof(liked)];
            break;
        default:
            b->data[at] = (uint8_t)next_random(random);
            break;
        }
    }
}

static void run_one(const struct buf *input)
{
    // A block of its own, so that AddressSanitizer sees a read behind the end.
    cleanup(freep) uint8_t *copy = xmemdup(input->data, input->len);
    LLVMFuzzerTestOneInput(copy, input->len);
}

static int run_file(const char *path)
{
    cleanup(fclosep) FILE *f = fopen(path, "re");
    if (!f) {
        perror(path);
        return 1;
    }
    cleanup(buf_deinit) struct buf input = {0};
    for (int c; (c = fgetc(f)) != EOF;)
        buf_u8(&input, (uint8_t)c);
    run_one(&input);
    uint64_t random = 0x9e3779b97f4a7c15;
    for (unsigned i = 0; i < MUTATIONS; i++) {
        cleanup(buf_deinit) struct buf mutant = {0};
        buf_add(&mutant, input.data, input.len);
        mutate(&mutant, &random);
        run_one(&mutant);
    }
    return 0;
}

int main(int argc, char **argv)
{
    int failed = argc < 2;
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (!d) {
            failed |= run_file(argv[i]);
            continue;
        }
        for (struct dirent *entry; (entry = readdir(d));) {
            cleanup(freep) char *path = str_format("%s/%s", argv[i], entry->d_name);
            if (entry->d_name[0] != '.')
                failed |= run_file(path);
        }
        closedir(d);
    }
    return failed;
}

#endif
