/* Frame messages (rr_trace.capnp; which event carries what: rr TraceStream.cc,
 * TraceWriter::write_frame). */
#include "trace/trace_int.h"

#include "base/bytes.h"

enum { SIGINFO_LEN = 128, MPROTECT_RECORD_LEN = 24, X86_REG_COUNT = 17 };

/* Where the words of a 32-bit register image go: ebx ecx edx esi edi ebp eax ds es fs gs orig_eax
 * eip cs eflags esp ss (user_regs_struct of i386). */
static const enum reg x86_regs[X86_REG_COUNT] = {
    UREG_RBX, UREG_RCX, UREG_RDX,      UREG_RSI, UREG_RDI, UREG_RBP,    UREG_RAX, UREG_DS, UREG_ES,
    UREG_FS,  UREG_GS,  UREG_ORIG_RAX, UREG_RIP, UREG_CS,  UREG_EFLAGS, UREG_RSP, UREG_SS,
};

static enum trace_arch decode_arch(struct message_struct s, size_t off)
{
    uint16_t arch = struct_u16(s, off);
    if (arch > ARCH_X86_64)
        message_fail(s.m, "an unknown architecture");
    return arch == ARCH_X86 ? ARCH_X86 : ARCH_X86_64;
}

static void decode_regs(struct message_struct s, struct frame *f)
{
    size_t len;
    const uint8_t *raw = struct_data(struct_struct(s, 1), 0, &len);
    if (!raw)
        return;
    f->has_regs = true;
    if (f->arch == ARCH_X86_64 && len == sizeof(f->regs)) {
        memcpy(&f->regs, raw, sizeof(f->regs));
    } else if (f->arch == ARCH_X86 && len == X86_REG_COUNT * 4) {
        for (unsigned i = 0; i < X86_REG_COUNT; i++)
            f->regs.r[x86_regs[i]] = load_u32(raw + 4 * i);
    } else {
        message_fail(s.m, "registers of a wrong size");
    }
}

/* Holes are ascending ranges inside the write; returns their sum. */
static uint64_t decode_holes(struct message_struct s, struct pool *p, struct mem_write *w)
{
    struct message_list l = struct_list_of_structs(s, 0);
    struct write_hole *holes = pool_alloc(p, l.count * sizeof(*holes));
    uint64_t end = 0, sum = 0;
    for (uint32_t i = 0; i < l.count; i++) {
        struct message_struct hole = list_struct(l, i);
        holes[i] = (struct write_hole){.offset = struct_u64(hole, 0), .size = struct_u64(hole, 8)};
        if (holes[i].offset < end || holes[i].offset > w->size ||
            holes[i].size > w->size - holes[i].offset) {
            message_fail(s.m, "a hole lies outside its memory write");
            break;
        }
        end = holes[i].offset + holes[i].size;
        sum += holes[i].size;
    }
    w->holes = holes;
    w->hole_count = l.count;
    return sum;
}

static void decode_writes(struct message_struct s, struct pool *p, struct frame *f,
                          uint64_t *data_len)
{
    struct message_list l = struct_list_of_structs(s, 0);
    struct mem_write *writes = pool_alloc(p, l.count * sizeof(*writes));
    uint64_t off = 0;
    for (uint32_t i = 0; i < l.count && !s.m->why; i++) {
        struct message_struct ws = list_struct(l, i);
        struct mem_write *w = &writes[i];
        *w = (struct mem_write){.tid = struct_i32(ws, 0),
                                .size_is_conservative = struct_bit(ws, 32),
                                .addr = struct_u64(ws, 8),
                                .size = struct_u64(ws, 16),
                                .data_offset = off};
        if (w->tid <= 0)
            message_fail(s.m, "a task id that is none");
        w->data_size = w->size - decode_holes(ws, p, w);
        if (w->data_size > INT64_MAX - off)
            message_fail(s.m, "memory writes of an unlikely size");
        else
            off += w->data_size;
    }
    f->writes = writes;
    f->write_count = l.count;
    *data_len = off;
}

static void decode_signal(struct message_struct frame, struct frame *f)
{
    struct message_struct s = struct_struct(frame, 3);
    size_t len;
    f->siginfo = struct_data(s, 0, &len);
    if (len != SIGINFO_LEN)
        message_fail(frame.m, "a siginfo of a wrong size");
    f->signal_deterministic = struct_bit(s, 16);
    uint16_t disposition = struct_u16(s, 4);
    if (disposition > SIGNAL_IGNORED)
        message_fail(frame.m, "an unknown signal disposition");
    else
        f->disposition = (enum signal_disposition)disposition;
}

static void decode_flush(struct message_struct s, struct pool *p, struct frame *f)
{
    size_t len;
    const uint8_t *data = struct_data(s, 3, &len);
    if (len % MPROTECT_RECORD_LEN)
        message_fail(s.m, "mprotect records of a wrong size");
    f->mprotect_count = len / MPROTECT_RECORD_LEN;
    struct mprotect_record *records = pool_alloc(p, f->mprotect_count * sizeof(*records));
    for (size_t i = 0; i < f->mprotect_count; i++, data += MPROTECT_RECORD_LEN)
        records[i] = (struct mprotect_record){.start = load_u64(data),
                                              .size = load_u64(data + 8),
                                              .prot = (int32_t)load_u32(data + 16)};
    f->mprotects = records;
}

static void decode_exec_fds(struct message_struct s, struct pool *p, struct frame *f)
{
    struct message_list l = struct_list_of_i32(s, 3);
    int32_t *fds = pool_alloc(p, l.count * sizeof(*fds));
    for (uint32_t i = 0; i < l.count; i++)
        fds[i] = list_i32(l, i);
    f->exec_fds = fds;
    f->exec_fd_count = l.count;
}

static void decode_opened_fds(struct message_struct s, struct pool *p, struct frame *f)
{
    struct message_list l = struct_list_of_structs(s, 3);
    struct opened_fd *fds = pool_alloc(p, l.count * sizeof(*fds));
    for (uint32_t i = 0; i < l.count; i++) {
        struct message_struct fd = list_struct(l, i);
        fds[i] = (struct opened_fd){.fd = struct_i32(fd, 0),
                                    .device = struct_u64(fd, 8),
                                    .inode = struct_u64(fd, 16),
                                    .path = struct_str(fd, 0, p)};
    }
    f->opened_fds = fds;
    f->opened_fd_count = l.count;
}

static void decode_madvise_ranges(struct message_struct s, struct pool *p, struct frame *f)
{
    struct message_list l = struct_list_of_structs(s, 3);
    struct addr_range *ranges = pool_alloc(p, l.count * sizeof(*ranges));
    for (uint32_t i = 0; i < l.count; i++) {
        struct message_struct range = list_struct(l, i);
        ranges[i] = (struct addr_range){.start = struct_u64(range, 0), .end = struct_u64(range, 8)};
        if (ranges[i].start > ranges[i].end)
            message_fail(s.m, "a madvise range ends before it starts");
    }
    f->madvise_ranges = ranges;
    f->madvise_range_count = l.count;
}

static void decode_syscall(struct message_struct s, struct pool *p, struct frame *f)
{
    f->syscall_arch = decode_arch(s, 24);
    uint16_t state = struct_u16(s, 26);
    f->syscall_no = struct_i32(s, 28);
    f->failed_during_preparation = struct_bit(s, 256);
    uint16_t extra = struct_u16(s, 34);
    if (state > SYSCALL_EXITING || extra > EXTRA_MADVISE_RANGES) {
        message_fail(s.m, "an unknown kind of system call event");
        return;
    }
    f->syscall_state = (enum syscall_state)state;
    f->extra = (enum syscall_extra)extra;
    switch (f->extra) {
    case EXTRA_NONE:
        break;
    case EXTRA_SOCKET_ADDRS:
        for (unsigned i = 0; i < 2; i++)
            f->socket_addrs[i] = struct_data(s, 3 + i, &f->socket_addr_lens[i]);
        break;
    case EXTRA_WRITE_OFFSET:
        f->write_offset = struct_i64(s, 40);
        break;
    case EXTRA_EXEC_FDS_TO_CLOSE:
        decode_exec_fds(s, p, f);
        break;
    case EXTRA_OPENED_FDS:
        decode_opened_fds(s, p, f);
        break;
    case EXTRA_MADVISE_RANGES:
        decode_madvise_ranges(s, p, f);
        break;
    }
}

static void decode_event(struct message_struct s, struct pool *p, struct frame *f)
{
    switch (f->kind) {
    case FRAME_SCHED:
        f->in_syscallbuf_hook = struct_u64(s, 48);
        break;
    case FRAME_SIGNAL:
    case FRAME_SIGNAL_DELIVERY:
    case FRAME_SIGNAL_HANDLER:
        decode_signal(s, f);
        break;
    case FRAME_SYSCALLBUF_FLUSH:
        decode_flush(s, p, f);
        break;
    case FRAME_SYSCALL:
        decode_syscall(s, p, f);
        break;
    default:
        break;
    }
}

struct err *frame_decode(struct message *m, struct pool *p, struct frame *out,
                         uint64_t *data_len_out)
{
    struct message_struct s = message_root(m);
    uint16_t kind = struct_u16(s, 6);
    if (kind >= FRAME_KIND_COUNT) {
        message_fail(m, "an unknown kind of event");
        return message_check(m);
    }
    if (struct_i32(s, 0) <= 0)
        message_fail(m, "a task id that is none");
    *out = (struct frame){.kind = (enum frame_kind)kind,
                          .tid = struct_i32(s, 0),
                          .arch = decode_arch(s, 4),
                          .ticks = struct_i64(s, 8)};
    uint64_t seconds = struct_u64(s, 16);
    memcpy(&out->monotonic_sec, &seconds, sizeof(seconds));
    decode_regs(s, out);
    out->extra_regs = struct_data(struct_struct(s, 2), 0, &out->extra_regs_len);
    decode_writes(s, p, out, data_len_out);
    decode_event(s, p, out);
    return message_check(m);
}
