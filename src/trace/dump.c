#include "trace/dump.h"

#include <inttypes.h>

#include "base/bytes.h"
#include "trace/trace_int.h"

/* %p of glibc: "(nil)" for 0. */
static const void *as_pointer(uint64_t v)
{
    return (const void *)(uintptr_t)v;
}

/* ---- registers */

struct reg_name {
    const char *name;
    enum reg reg;
};

static const struct reg_name x86_64_names[] = {
    {"rax", UREG_RAX},
    {"rbx", UREG_RBX},
    {"rcx", UREG_RCX},
    {"rdx", UREG_RDX},
    {"rsi", UREG_RSI},
    {"rdi", UREG_RDI},
    {"rbp", UREG_RBP},
    {"rsp", UREG_RSP},
    {"r8", UREG_R8},
    {"r9", UREG_R9},
    {"r10", UREG_R10},
    {"r11", UREG_R11},
    {"r12", UREG_R12},
    {"r13", UREG_R13},
    {"r14", UREG_R14},
    {"r15", UREG_R15},
    {"rip", UREG_RIP},
    {"eflags", UREG_EFLAGS},
    {"cs", UREG_CS},
    {"ss", UREG_SS},
    {"ds", UREG_DS},
    {"es", UREG_ES},
    {"fs", UREG_FS},
    {"gs", UREG_GS},
    {"orig_rax", UREG_ORIG_RAX},
    {"fs_base", UREG_FS_BASE},
    {"gs_base", UREG_GS_BASE},
    {NULL, UREG_COUNT},
};

static const struct reg_name x86_names[] = {
    {"eax", UREG_RAX},
    {"ecx", UREG_RCX},
    {"edx", UREG_RDX},
    {"ebx", UREG_RBX},
    {"esp", UREG_RSP},
    {"ebp", UREG_RBP},
    {"esi", UREG_RSI},
    {"edi", UREG_RDI},
    {"eip", UREG_RIP},
    {"eflags", UREG_EFLAGS},
    {"xcs", UREG_CS},
    {"xss", UREG_SS},
    {"xds", UREG_DS},
    {"xes", UREG_ES},
    {"xfs", UREG_FS},
    {"xgs", UREG_GS},
    {"orig_eax", UREG_ORIG_RAX},
    {NULL, UREG_COUNT},
};

/* Flags and selectors are shown in 32 bits, whatever the image holds above. */
static bool is_wide(enum reg r)
{
    return r <= UREG_RIP || r == UREG_RSP || r == UREG_FS_BASE || r == UREG_GS_BASE;
}

static void print_regs(const struct frame *f, FILE *out)
{
    const char *space = "";
    for (const struct reg_name *n = f->arch == ARCH_X86 ? x86_names : x86_64_names; n->name; n++) {
        uint64_t v = f->regs.r[n->reg];
        fprintf(out, "%s%s:0x%" PRIx64, space, n->name, is_wide(n->reg) ? v : (uint32_t)v);
        space = " ";
    }
}

/* A little-endian number of up to 32 bytes, without leading zeros. */
static void print_wide(const char *name, unsigned idx, const uint8_t *bytes, size_t len, FILE *out)
{
    while (len > 1 && !bytes[len - 1])
        len--;
    fprintf(out, " %s%u:0x%x", name, idx, bytes[len - 1]);
    for (size_t i = len - 1; i-- > 0;)
        fprintf(out, "%02x", bytes[i]);
}

/* The XSAVE image (SDM 1 13.4): ST in the legacy area at 32, 10 of every 16 bytes; XMM at 160;
 * which components are there at 512; the upper halves of YMM at 576, all zero while component 2 is
 * not in use. */
static void print_extra_regs(const struct frame *f, FILE *out)
{
    enum { ST_OFF = 32, XMM_OFF = 160, COMPONENTS_OFF = 512, YMM_OFF = 576, YMM_COMPONENT = 4 };
    struct bytes all = bytes_of(f->extra_regs, f->extra_regs_len);
    if (all.len < COMPONENTS_OFF)
        return;
    for (unsigned i = 0; i < 8; i++)
        print_wide("st", i, all.data + ST_OFF + 16 * i, 10, out);
    bool has_ymm = all.len >= YMM_OFF + 256 && load_u64(all.data + COMPONENTS_OFF) & YMM_COMPONENT;
    unsigned count = f->arch == ARCH_X86 ? 8 : 16;
    for (unsigned i = 0; i < count; i++) {
        uint8_t ymm[32] = {0};
        memcpy(ymm, all.data + XMM_OFF + 16 * i, 16);
        if (has_ymm)
            memcpy(ymm + 16, all.data + YMM_OFF + 16 * i, 16);
        print_wide("ymm", i, ymm, sizeof(ymm), out);
    }
}

/* ---- frames */

static const char *const state_names[] = {
    [SYSCALL_ENTERING_PTRACE] = "ENTERING_SYSCALL_PTRACE",
    [SYSCALL_ENTERING] = "ENTERING_SYSCALL",
    [SYSCALL_EXITING] = "EXITING_SYSCALL",
};

static void print_frame(const struct trace *t, const struct frame *f, FILE *out)
{
    cleanup(freep) char *name = trace_frame_describe(t, f);
    fprintf(out, "{\n  real_time:%f global_time:%" PRIu64 ", event:`%s' ", f->monotonic_sec,
            f->event, name);
    if (f->kind == FRAME_SYSCALL)
        fprintf(out, "(state:%s) ", state_names[f->syscall_state]);
    fprintf(out, "tid:%d, ticks:%" PRId64 "\n", f->tid, f->ticks);
    if (!f->has_regs)
        return;
    print_regs(f, out);
    if (f->extra_regs)
        print_extra_regs(f, out);
    fputc('\n', out);
}

/* The recorder's own numbers of events (rr Event.h), which only this format shows. */
static const int raw_event[FRAME_KIND_COUNT] = {
    [FRAME_INSTRUCTION_TRAP] = 9,
    [FRAME_PATCH_SYSCALL] = 13,
    [FRAME_SYSCALLBUF_ABORT_COMMIT] = 11,
    [FRAME_SYSCALLBUF_RESET] = 12,
    [FRAME_SCHED] = 8,
    [FRAME_GROW_MAP] = 14,
    [FRAME_SIGNAL] = 15,
    [FRAME_SIGNAL_DELIVERY] = 16,
    [FRAME_SIGNAL_HANDLER] = 17,
    [FRAME_EXIT] = 7,
    [FRAME_SYSCALLBUF_FLUSH] = 10,
    [FRAME_SYSCALL] = 18,
    [FRAME_PATCH_AFTER_SYSCALL] = 13,
    [FRAME_PATCH_VSYSCALL] = 13,
    [FRAME_PATCH_TRAPPING_INSTRUCTION] = 13,
};

/* Eleven registers of i386. rr prints a 64-bit image as if it were a 32-bit one: the columns then
 * show halves of r15 and so on; so do we, for the sake of comparison. */
static void print_raw_frame(const struct frame *f, FILE *out)
{
    static const enum reg columns32[] = {UREG_RAX, UREG_RBX, UREG_RCX,   UREG_RDX,
                                         UREG_RSI, UREG_RDI, UREG_RBP,   UREG_ORIG_RAX,
                                         UREG_RSP, UREG_RIP, UREG_EFLAGS};
    static const uint8_t columns64[] = {6, 0,  1,  2,  3, 4,
                                        5, 11, 15, 12, 14}; // 32-bit words of the image
    fprintf(out, " %" PRIu64 " %d %d %" PRId64, f->event, f->tid, raw_event[f->kind], f->ticks);
    for (size_t i = 0; f->has_regs && i < sizeof(columns64); i++) {
        uint32_t v = f->arch == ARCH_X86 ? (uint32_t)f->regs.r[columns32[i]]
                                         : load_u32((const uint8_t *)f->regs.r + 4 * columns64[i]);
        fprintf(out, " %d", (int32_t)v);
    }
    fputc('\n', out);
}

static const char *prot_text(int32_t prot, char out[4])
{
    out[0] = prot & 1 ? 'r' : '-';
    out[1] = prot & 2 ? 'w' : '-';
    out[2] = prot & 4 ? 'x' : '-';
    out[3] = 0;
    return out;
}

/* ---- what frames carry */

/* The records of a flushed buffer: a header whose size the trace tells, then {i64 ret, u16 number,
 * u8 flags (1: desched armed, 2: replayed with help), u32 size at 12}, then their data, rounded up
 * to 8 (rr preload_interface.h). */
static struct err *print_syscallbuf(const struct trace *t, const struct dump_options *o,
                                    struct trace_cursor *c, const struct frame *f, FILE *out)
{
    if (!f->write_count)
        return err_new(ERR_FORMAT, "frame %" PRIu64 ": a flush without its buffer", f->event);
    cleanup(buf_deinit) struct buf data = {0};
    TRY(trace_read_write(c, &f->writes[0], &data));
    struct bytes b = bytes_of(data.data, data.len);
    uint32_t left = bytes_u32(&b);
    bytes_seek(&b, t->header.syscallbuf_hdr_size);
    while (left && !b.failed) {
        int64_t ret = (int64_t)bytes_u64(&b);
        int32_t number = bytes_u16(&b);
        uint8_t flags = bytes_u8(&b);
        bytes_skip(&b, 1);
        uint32_t size = bytes_u32(&b);
        size_t stored = ((size_t)size + 7) & ~(size_t)7;
        if (b.failed || size < 16 || stored > left)
            break;
        const char *name = trace_syscall_name(t, f->arch, number);
        cleanup(freep) char *unknown = name ? NULL : str_format("<unknown-syscall-%d>", number);
        fprintf(out, "  { syscall:'%s', ret:0x%" PRIx64 ", size:0x%x%s%s }\n",
                name ? name : unknown, (uint64_t)ret, size, flags & 1 ? ", desched:1" : "",
                flags & 2 ? ", replay_assist:1" : "");
        bytes_skip(&b, stored - 16);
        left -= (uint32_t)stored;
    }
    if (left || b.failed)
        return err_new(ERR_FORMAT,
                       "frame %" PRIu64 ": records of the system call buffer are damaged",
                       f->event);
    for (size_t i = 0; o->mmaps && i < f->mprotect_count; i++) {
        char prot[4];
        fprintf(out, "  { start:'%p', size:'%" PRIx64 "', prot:%s }\n",
                as_pointer(f->mprotects[i].start), f->mprotects[i].size,
                prot_text(f->mprotects[i].prot, prot));
    }
    return NULL;
}

static void print_task_event(const struct trace_task_event *e, FILE *out)
{
    switch (e->kind) {
    case TASK_CLONE:
        fprintf(out, "  TraceTaskEvent::CLONE tid=%d parent=%d clone_flags=0x%x\n", e->tid,
                e->parent_tid, e->clone_flags);
        break;
    case TASK_EXEC:
        fprintf(out, "  TraceTaskEvent::EXEC tid=%d file=%s\n", e->tid, e->file_name);
        break;
    case TASK_EXIT:
        fprintf(out, "  TraceTaskEvent::EXIT tid=%d status=%d\n", e->tid, e->exit_status);
        break;
    case TASK_DETACH:
        fprintf(out, "  TraceTaskEvent::DETACH tid=%d\n", e->tid);
        break;
    }
}

static void print_mmap(const struct trace *t, const struct trace_mmap *m, FILE *out)
{
    enum { SHARED = 1 };
    cleanup(freep) char *file = m->source == MMAP_FILE ? trace_backing_path(t, m) : NULL;
    char prot[4];
    fprintf(out,
            "  { map_file:\"%s\", addr:%p, length:%p, prot_flags:\"%s%c\", file_offset:0x%" PRIx64
            ", device:%" PRId64 ", inode:%" PRId64 ", data_file:\"%s\", data_offset:0x%" PRIx64
            ", file_size:0x%" PRIx64 " }\n",
            m->source == MMAP_ZERO ? "<ZERO>" : m->name, as_pointer(m->start),
            as_pointer(m->end - m->start), prot_text(m->prot, prot), m->flags & SHARED ? 's' : 'p',
            (uint64_t)m->file_offset, (int64_t)m->device, (int64_t)m->inode, file ? file : "",
            file ? (uint64_t)m->file_offset : 0, (uint64_t)m->stat_size);
}

/* (The holes stand without a separator between them, as in rr.) */
static void print_write(const struct mem_write *w, FILE *out)
{
    fprintf(out, "  { tid:%d, addr:%p, length:%p", w->tid, as_pointer(w->addr),
            as_pointer(w->size));
    if (w->hole_count)
        fputs(", holes:[", out);
    for (size_t i = 0; i < w->hole_count; i++)
        fprintf(out, "%p-%p", as_pointer(w->holes[i].offset),
                as_pointer(w->holes[i].offset + w->holes[i].size));
    fputs(w->hole_count ? "] }\n" : " }\n", out);
}

static struct err *dump_frame(const struct trace *t, const struct dump_options *o,
                              struct trace_cursor *c, const struct frame *f, FILE *out)
{
    if (o->raw)
        print_raw_frame(f, out);
    else
        print_frame(t, f, out);
    bool flush = o->syscallbuf && f->kind == FRAME_SYSCALLBUF_FLUSH;
    if (flush)
        TRY(print_syscallbuf(t, o, c, f, out));
    for (size_t i = 0; o->task_events && i < f->task_count; i++)
        print_task_event(&f->tasks[i], out);
    for (size_t i = 0; o->mmaps && i < f->mmap_count; i++)
        print_mmap(t, &f->mmaps[i], out);
    // The buffer that was just shown as records is not shown again as a write.
    for (size_t i = flush ? 1 : 0; o->metadata && i < f->write_count; i++)
        print_write(&f->writes[i], out);
    if (!o->raw)
        fputs("}\n", out);
    return NULL;
}

/* ---- which frames */

struct span {
    event_no first, last;
    bool only_end;
};

static struct err *parse_spec(const char *spec, struct span *out)
{
    *out = (struct span){.last = UINT64_MAX};
    if (str_eq(spec, "end")) {
        out->only_end = true;
        return NULL;
    }
    char *end;
    out->first = strtoull(spec, &end, 10);
    if (end == spec || *spec == '-')
        return err_new(ERR_USAGE, "%s: not an event: want `127', `1000-5000', `1000-' or `end'",
                       spec);
    if (!*end) {
        out->last = out->first;
        return NULL;
    }
    const char *last = end + 1;
    if (*end == '-' && !*last)
        return NULL;
    out->last = strtoull(last, &end, 10);
    if (last[-1] != '-' || end == last || *end || *last == '-')
        return err_new(ERR_USAGE, "%s: not a range of events: want `1000-5000'", spec);
    return NULL;
}

static struct err *dump_span(const struct trace *t, const struct dump_options *o, struct span span,
                             FILE *out)
{
    cleanup(trace_cursor_closep) struct trace_cursor *c = NULL;
    TRY(trace_cursor_open(t, &c));
    for (;;) {
        const struct frame *f;
        TRY(trace_cursor_next(c, &f));
        if (!f || f->event > span.last || ferror(out))
            return NULL;
        bool wanted = span.only_end
                          ? trace_cursor_position(c).events_offset == t->events.size
                          : f->event >= span.first && (!o->only_tid || f->tid == o->only_tid);
        if (wanted)
            TRY(dump_frame(t, o, c, f, out));
    }
}

static struct err *print_statistics(const struct trace *t, FILE *out)
{
    uint64_t size = t->events.size + t->data.size, len = t->events.file_len + t->data.file_len;
    static const char *const others[] = {"mmaps", "tasks"};
    for (size_t i = 0; i < 2; i++) {
        struct block_file f;
        TRY(block_file_open(t->dir, others[i], &f));
        size += f.size;
        len += f.file_len;
        block_file_close(&f);
    }
    fprintf(out, "// Uncompressed bytes %" PRIu64 ", compressed bytes %" PRIu64 ", ratio %.2fx\n",
            size, len, len ? (double)size / (double)len : 0);
    return NULL;
}

struct err *trace_dump(const struct trace *t, const struct dump_options *options,
                       char *const *specs, size_t spec_count, FILE *out)
{
    struct span span = {.last = UINT64_MAX};
    for (size_t i = 0; i < spec_count; i++)
        TRY(parse_spec(specs[i], &span));
    if (options->raw)
        fputs("global_time tid reason ticks hw_interrupts page_faults instructions eax ebx ecx edx "
              "esi edi ebp orig_eax "
              "esp eip eflags\n",
              out);
    if (!spec_count)
        TRY(dump_span(t, options, span, out));
    for (size_t i = 0; i < spec_count; i++) {
        TRY(parse_spec(specs[i], &span));
        TRY(dump_span(t, options, span, out));
    }
    return options->statistics ? print_statistics(t, out) : NULL;
}
