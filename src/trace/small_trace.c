#include "trace/small_trace.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>

#include "trace/trace.h"

/* Releases that wrote a longer Header than the one before, with its sizes (rr_trace.capnp at each
 * tag). */
static const struct {
    unsigned minor;
    uint16_t data_words, ptr_count;
} header_sizes[] = {{4, 3, 2}, {5, 7, 2}, {6, 8, 2}, {7, 8, 2}, {8, 9, 3}, {9, 9, 3}};

void small_trace_header(struct buf *words, unsigned minor)
{
    struct build_ref h =
        build_root(words, header_sizes[minor - 4].data_words, header_sizes[minor - 4].ptr_count);
    uint8_t uuid[16] = {1, 2, 3};
    uint32_t cpuid[] = {0xd, 0, 7, 2432, 2432, 0, 1, UINT32_MAX, 11, 12, 13, 14};
    build_data(h, 0, uuid, sizeof(uuid));
    build_data(h, 1, cpuid, sizeof(cpuid));
    build_u32(h, 0, (uint32_t)-1);
    build_bit(h, 34, true);
    build_bit(h, 35, true); // explicitProcMem false: the default is true
    build_u64(h, 8, 7);
    build_u32(h, 20, 1000 ^ 442);
    if (minor >= 5) {
        build_bit(h, 37, true);
        build_u16(h, 28, 2);
        build_u64(h, 32, 0x100000000000);
        build_u64(h, 40, 0x140000000000);
        build_u32(h, 48, minor == 5 ? 1 : 3);
    }
    if (minor >= 6) {
        build_bit(h, 38, true);
        build_bit(h, 39, true);
    }
    if (minor >= 7) {
        build_bit(h, 40, true);
        build_u32(h, 60, 16384 ^ 1024);
    }
    if (minor >= 8) {
        build_u32(h, 64, 32 ^ 30);
        struct build_ref uname = build_struct(h, 2, 0, 6);
        build_text(uname, 0, "Linux");
        build_text(uname, 4, "x86_64");
    }
    if (minor >= 9)
        build_u8(h, 30, 47);
}

void small_trace_read(const char *dir, const char *file, struct buf *out)
{
    cleanup(freep) char *path = str_format("%s/%s", dir, file);
    cleanup(fclosep) FILE *f = fopen(path, "re");
    assert(f);
    out->len = 0;
    for (int c; (c = fgetc(f)) != EOF;)
        buf_u8(out, (uint8_t)c);
}

void small_trace_write(const char *dir, const char *file, const void *data, size_t len)
{
    cleanup(freep) char *path = str_format("%s/%s", dir, file);
    cleanup(fclosep) FILE *f = fopen(path, "we");
    assert(f);
    size_t written = fwrite(data, 1, len, f);
    assert(written == len);
}

/* Collects messages of one file. */
struct file {
    const char *name;
    struct buf stream;
};

static void add(struct file *f, const struct buf *words)
{
    pack_message(&f->stream, words->data, words->len);
}

static void finish(const char *dir, struct file *f, size_t block_size)
{
    cleanup(freep) char *path = str_format("%s/%s", dir, f->name);
    cleanup(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cleanup(block_writer_deinit) struct block_writer w = {
        .name = f->name, .fd = fd, .block_size = block_size};
    struct err *e = block_writer_add(&w, f->stream.data, f->stream.len);
    if (!e)
        e = block_writer_finish(&w);
    assert(!e);
    buf_deinit(&f->stream);
}

static void add_regs(struct build_ref frame, enum trace_arch arch)
{
    uint8_t raw[27 * 8];
    for (size_t i = 0; i < sizeof(raw); i++)
        raw[i] = (uint8_t)(i * 7 + 1);
    build_data(build_struct(frame, 1, 0, 1), 0, raw, arch == ARCH_X86 ? 17 * 4 : sizeof(raw));
}

static bool has_regs(enum frame_kind kind)
{
    return kind != FRAME_SYSCALLBUF_ABORT_COMMIT && kind != FRAME_SYSCALLBUF_RESET &&
           kind != FRAME_SYSCALLBUF_FLUSH && kind != FRAME_GROW_MAP && kind != FRAME_EXIT;
}

static void add_payload(struct build_ref frame, enum frame_kind kind, enum trace_arch arch)
{
    static const int32_t fds[] = {3, 4, 5};
    uint8_t siginfo[128] = {11};
    uint64_t mprotect[3] = {0x1000, 0x2000, 5};
    switch (kind) {
    case FRAME_SCHED:
        build_u64(frame, 48, 0x1234);
        break;
    case FRAME_SIGNAL:
    case FRAME_SIGNAL_HANDLER: {
        struct build_ref s = build_struct(frame, 3, 1, 1);
        build_u16(s, 0, ARCH_X86_64);
        build_bit(s, 16, true);
        build_u16(s, 4, SIGNAL_USER_HANDLER);
        build_data(s, 0, siginfo, sizeof(siginfo));
        break;
    }
    case FRAME_SYSCALLBUF_FLUSH:
        build_data(frame, 3, mprotect, sizeof(mprotect));
        break;
    case FRAME_SYSCALL:
        build_u16(frame, 24, (uint16_t)arch);
        build_u16(frame, 26, SYSCALL_EXITING);
        build_u32(frame, 28, arch == ARCH_X86 ? 11 : 59);
        build_u16(frame, 34, EXTRA_EXEC_FDS_TO_CLOSE);
        build_i32s(frame, 3, fds, 3);
        break;
    default:
        break;
    }
}

/* Two writes: one of 48 bytes with holes at 8 to 16 and 32 to 48, so 24 bytes of data; one of none.
 */
static void add_writes(struct build_ref frame)
{
    struct build_ref w = build_structs(frame, 0, 2, 3, 1);
    build_u32(w, 0, 101);
    build_u64(w, 8, 0x5000);
    build_u64(w, 16, 48);
    struct build_ref hole = build_structs(w, 0, 2, 2, 0);
    build_u64(hole, 0, 8);
    build_u64(hole, 8, 8);
    hole = build_next(hole);
    build_u64(hole, 0, 32);
    build_u64(hole, 8, 16);
    build_u32(build_next(w), 0, 102);
}

static void add_frames(struct file *events, struct file *data, struct buf *words)
{
    static const enum frame_kind kinds[] = {
        FRAME_SYSCALL,          FRAME_INSTRUCTION_TRAP,
        FRAME_PATCH_SYSCALL,    FRAME_SYSCALLBUF_ABORT_COMMIT,
        FRAME_SYSCALLBUF_RESET, FRAME_SCHED,
        FRAME_GROW_MAP,         FRAME_SIGNAL,
        FRAME_SIGNAL_HANDLER,   FRAME_SYSCALLBUF_FLUSH,
        FRAME_PATCH_VSYSCALL,   FRAME_EXIT,
    };
    enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };
    static_assert(2 * KINDS == SMALL_TRACE_FRAMES, "the header says how many");
    for (unsigned i = 0; i < SMALL_TRACE_FRAMES; i++) {
        enum trace_arch arch = i < KINDS ? ARCH_X86_64 : ARCH_X86;
        enum frame_kind kind = kinds[i % KINDS];
        double seconds = 1.5 * i;
        struct build_ref f = build_root(words, 7, 5);
        build_u32(f, 0, 101 + i % 2);
        build_u16(f, 4, (uint16_t)arch);
        build_u16(f, 6, (uint16_t)kind);
        build_u64(f, 8, i * 10);
        uint64_t bits;
        memcpy(&bits, &seconds, sizeof(bits));
        build_u64(f, 16, bits);
        if (has_regs(kind))
            add_regs(f, arch);
        add_payload(f, kind, arch);
        add_writes(f);
        add(events, words);
        // A flushed buffer of zeros is one without records.
        for (unsigned k = 0; k < 24; k++)
            buf_u8(&data->stream, kind == FRAME_SYSCALLBUF_FLUSH ? 0 : (uint8_t)(i + k));
    }
}

static void add_mmaps(struct file *f, struct buf *words)
{
    for (unsigned i = 0; i < SMALL_TRACE_MMAPS; i++) {
        struct build_ref m = build_root(words, 11, 3);
        build_u64(m, 0, 1 + i / 2);
        build_u64(m, 8, 0x10000 * (i + 1));
        build_u64(m, 16, 0x10000 * (i + 1) + 0x2000);
        build_data(m, 0, "/lib/some.so", 12);
        build_u64(m, 24, 8);
        build_u64(m, 32, 1234);
        build_u32(m, 40, 5);
        build_u32(m, 44, 2);
        build_u64(m, 48, 0x1000);
        build_u32(m, 56, 0100755);
        build_u16(m, 68, i < MMAP_FILE ? (uint16_t)i : MMAP_FILE);
        build_u64(m, 72, SMALL_TRACE_FILE_LEN);
        build_u64(m, 80, 1700000000);
        cleanup(freep) char *backing = str_format("mmap_hardlink_%u_some.so", i);
        if (i >= MMAP_FILE)
            build_data(m, 1, backing, strlen(backing));
        add(f, words);
    }
}

void small_trace_map(const char *dir, const struct small_map *maps, size_t count)
{
    struct file mmaps = {.name = "mmaps"};
    cleanup(buf_deinit) struct buf words = {0};
    for (size_t i = 0; i < count; i++) {
        struct build_ref m = build_root(&words, 11, 3);
        build_u64(m, 0, 1);
        build_u64(m, 8, 0x100000 * (i + 1));
        build_u64(m, 16, 0x100000 * (i + 1) + 0x1000);
        build_data(m, 0, maps[i].name, strlen(maps[i].name));
        build_u32(m, 40, 5); // PROT_READ, PROT_EXEC
        build_u32(m, 44, 2); // MAP_PRIVATE
        build_u16(m, 68, MMAP_FILE);
        build_data(m, 1, maps[i].backing, strlen(maps[i].backing));
        add(&mmaps, &words);
    }
    finish(dir, &mmaps, 1 << 16);
}

static void add_tasks(struct file *f, struct buf *words)
{
    for (unsigned i = 0; i < SMALL_TRACE_TASKS; i++) {
        static const enum task_event_kind kinds[SMALL_TRACE_TASKS] = {TASK_EXEC, TASK_CLONE,
                                                                      TASK_DETACH, TASK_EXIT};
        struct build_ref t = build_root(words, 5, 4);
        build_u64(t, 0, i + 1);
        build_u32(t, 8, i == 1 || i == 2 ? 102 : 101);
        build_u16(t, 24, (uint16_t)kinds[i]);
        if (kinds[i] == TASK_EXEC) {
            build_data(t, 0, "/bin/prog", 9);
            struct build_ref args = build_pointers(t, 1, 2);
            build_data(args, 0, "prog", 4);
            build_data(args, 1, "an argument", 11);
            build_u64(t, 16, 0x1000);
            build_u64(t, 32, 0x2000);
            build_data(t, 2, "ld.so", 5);
        } else if (kinds[i] == TASK_CLONE) {
            build_u32(t, 12, 101);
            build_u32(t, 16, 17);
            build_u32(t, 20, 2);
        } else if (kinds[i] == TASK_EXIT) {
            build_u32(t, 12, 3 << 8);
        }
        add(f, words);
    }
}

static void write_version(const char *dir, struct buf *words)
{
    cleanup(buf_deinit) struct buf version = {0};
    buf_str(&version, "85\n");
    small_trace_header(words, 9);
    pack_message(&version, words->data, words->len);
    small_trace_write(dir, "version", version.data, version.len);
}

void small_trace_fill(const char *dir, size_t block_size)
{
    struct file events = {.name = "events"}, data = {.name = "data"}, mmaps = {.name = "mmaps"},
                tasks = {.name = "tasks"};
    cleanup(buf_deinit) struct buf words = {0};
    add_frames(&events, &data, &words);
    add_mmaps(&mmaps, &words);
    add_tasks(&tasks, &words);
    write_version(dir, &words);
    finish(dir, &events, block_size);
    finish(dir, &data, block_size);
    finish(dir, &mmaps, block_size);
    finish(dir, &tasks, block_size);
}

char *small_trace_create(size_t block_size)
{
    const char *tmp = getenv("TMPDIR");
    char *dir = str_format("%s/small-trace-XXXXXX", tmp ? tmp : "/tmp");
    char *made = mkdtemp(dir);
    assert(made);
    small_trace_fill(dir, block_size);
    return dir;
}

void small_trace_destroy(char *dir)
{
    if (!dir)
        return;
    DIR *d = opendir(dir);
    assert(d);
    for (struct dirent *entry; (entry = readdir(d));)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(d), entry->d_name, 0);
    closedir(d);
    rmdir(dir);
    free(dir);
}
