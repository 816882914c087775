/* as_32bit TRACE - makes 32-bit tasks in a recording of tests/programs/mixed-bits.c, in place:
 * those which execute it with an argument that begins with "32", and their children, until they
 * execute it with another. So 32-bit tasks can be tested where neither kernel nor compiler has
 * 32-bit programs. Their frames get what rr writes for such tasks (rr_trace.capnp, TraceStream.cc):
 * the architecture, registers of i386 with the arguments in their places, numbers of i386's system
 * calls. Addresses above 4 GiB are cut off. */
#include "trace/block.h"
#include "trace/packed.h"
#include "trace/trace.h"
#include "trace/writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

enum { X86_REG_COUNT = 17, ARCH_OFF = 4, SYSCALL_ARCH_OFF = 24, SYSCALL_NO_OFF = 28 };

static VEC(int32_t) tids; /* of 32-bit tasks */

static bool is_32bit(int32_t tid)
{
    vec_each (t, &tids) {
        if (*t == tid)
            return true;
    }
    return false;
}

static void set_32bit(int32_t tid, bool on)
{
    size_t kept = 0;
    vec_each (t, &tids) {
        if (*t != tid)
            tids.items[kept++] = *t;
    }
    tids.count = kept;
    if (on)
        vec_push(&tids, tid);
}

/* i386's number of a system call. */
static int32_t number32(const struct trace *t, int32_t number)
{
    const char *name = trace_syscall_name(t, ARCH_X86_64, number);
    if (number == SYS_mmap)
        return 192; // mmap2
    for (int32_t i = 0; name && i < 500; i++) {
        const char *other = trace_syscall_name(t, ARCH_X86, i);
        if (other && strcmp(other, name) == 0)
            return i;
    }
    return number;
}

static void put(struct message *m, const uint8_t *at, const void *value, size_t len)
{
    memcpy(m->data.data + (at - m->data.data), value, len);
}

static struct err *convert_regs(struct message *m, struct message_struct frame,
                                const struct frame *f)
{
    struct message_struct regs = struct_struct(frame, 1);
    size_t len;
    const uint8_t *image = struct_data(regs, 0, &len);
    if (!image)
        return NULL;
    const uint64_t *r = f->regs.r;
    const uint32_t out[X86_REG_COUNT] = {(uint32_t)r[UREG_RDI],
                                         (uint32_t)r[UREG_RSI],
                                         (uint32_t)r[UREG_RDX],
                                         (uint32_t)r[UREG_R10],
                                         (uint32_t)r[UREG_R8],
                                         (uint32_t)r[UREG_RBP],
                                         (uint32_t)r[UREG_RAX],
                                         0x2b,
                                         0x2b,
                                         0,
                                         0x63,
                                         (uint32_t)r[UREG_ORIG_RAX],
                                         (uint32_t)r[UREG_RIP],
                                         0x23,
                                         (uint32_t)r[UREG_EFLAGS],
                                         (uint32_t)r[UREG_RSP],
                                         0x2b};
    size_t pointer_off = (m->segments[regs.segment].first + regs.ptrs) * 8;
    uint64_t pointer;
    memcpy(&pointer, m->data.data + pointer_off, 8);
    if ((pointer & 3) != 1)
        return err_new(ERR_FORMAT, "registers behind a far pointer");
    pointer = (pointer & 0x7ffffffff) | (uint64_t)sizeof(out) << 35; // a list of so many bytes
    memcpy(m->data.data + pointer_off, &pointer, 8);
    put(m, image, out, sizeof(out));
    return NULL;
}

static struct err *convert(const struct trace *t, struct message *m, const struct frame *f)
{
    static const uint16_t x86 = ARCH_X86;
    struct message_struct s = message_root(m);
    put(m, s.data + ARCH_OFF, &x86, 2);
    if (f->kind == FRAME_SYSCALL) {
        int32_t number = number32(t, f->syscall_no);
        put(m, s.data + SYSCALL_ARCH_OFF, &x86, 2);
        put(m, s.data + SYSCALL_NO_OFF, &number, 4);
    }
    return convert_regs(m, s, f);
}

/* Who is a 32-bit task from this frame on. */
static void follow(const struct frame *f)
{
    for (size_t i = 0; i < f->task_count; i++) {
        const struct trace_task_event *e = &f->tasks[i];
        if (e->kind == TASK_CLONE)
            set_32bit(e->tid, is_32bit(f->tid));
        else if (e->kind == TASK_EXEC)
            set_32bit(e->tid, e->argc > 1 && strncmp(e->argv[1], "32", 2) == 0);
    }
}

static struct err *convert_all(const struct trace *t, const char *dir, struct block_writer *w)
{
    cleanup(block_file_close) struct block_file file = {.fd = -1};
    TRY(block_file_open(dir, "events", &file));
    cleanup(block_reader_deinit) struct block_reader blocks;
    block_reader_init(&blocks, &file);
    cleanup(message_deinit) struct message m = {0};
    struct packed_stream stream = packed_stream_of_blocks(&blocks, 0);
    cleanup(trace_cursor_closep) struct trace_cursor *cursor = NULL;
    TRY(trace_cursor_open(t, &cursor));
    for (;;) {
        const struct frame *f;
        bool end;
        TRY(trace_cursor_next(cursor, &f));
        TRY(packed_stream_next(&stream, &m, &end));
        if (end || !f)
            return block_writer_finish(w);
        follow(f);
        if (is_32bit(f->tid))
            TRY(convert(t, &m, f));
        if (f->kind == FRAME_EXIT)
            set_32bit(f->tid, false);
        cleanup(buf_deinit) struct buf packed = {0};
        pack_read_message(&packed, &m);
        TRY(block_writer_add(w, packed.data, packed.len));
    }
}

static struct err *convert_trace(const char *dir)
{
    cleanup(freep) char *events = str_format("%s/events", dir),
                        *beside = str_format("%s/events.new", dir);
    cleanup(trace_closep) struct trace *t = NULL;
    TRY(trace_open(dir, &t));
    cleanup(closep) int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_os("cannot write %s", beside);
    cleanup(block_writer_deinit) struct block_writer w = {
        .name = "events", .fd = fd, .block_size = BLOCK_SIZE_EVENTS};
    TRY(convert_all(t, dir, &w));
    if (rename(beside, events) != 0)
        return err_os("cannot rename %s", beside);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: as_32bit TRACE\n", stderr);
        return 2;
    }
    cleanup(err_freep) struct err *e = convert_trace(argv[1]);
    if (e)
        fprintf(stderr, "as_32bit: %s\n", err_message(e));
    vec_deinit(&tids);
    return e != NULL;
}
