/* layouts - what releases of rr lay out differently, as their header's fields say, replayed from
 * made traces of 5.4 to 5.9: where the program sees that it is a replay (the preload library's
 * globals or the rr page), the rr page itself (from the trace's librrpage or made from nothing),
 * the size of the syscall buffer's header, and how a restartable sequence was registered (by a call
 * of its own or buffered). Genuine recordings of them can only be made with each release. Facts: rr
 * preload_interface.h and rr_page_instructions.S at each tag.
 *
 * The recorded program is machine code made here; it stands for the preload library. Each event's
 * registers prove that the replayer gave it what it reads. */
#include "replay/replay.h"
#include "trace/small_trace.h"
#include "trace/writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum {
    TID = 100,
    CODE = 0x400000,
    DATA = 0x410000,
    STACK = 0x420000,
    BUFFER = 0x440000,
    SCRATCH = 0x68000000,
    PARAMS = DATA,
    GLOBALS = DATA + 0x100,
    ARGS = DATA + 0x200,
    RSEQ = DATA + 0x300,
    SEQUENCE = DATA + 0x340,
    RR_PAGE = 0x70000000,
    THREAD_LOCALS = 0x70001000,
    LIBRRPAGE = 0x6fffd000,
    TL_RSEQ = 128,
    RECORD_LEN = 24,
    RESULT = 0x1234567,
    SIGNATURE = 0x53053053,
    RRCALL = 1000,
};

/* --- the trace --- */

struct made {
    unsigned minor;
    bool has_librrpage;
    uint32_t hdr_size;
    struct buf words, events, data, mmaps, tasks;
    struct buf code;
    struct regs regs; /* of the program, where the code has got to */
    int64_t ticks;
    uint64_t event;
    gaddr breakpoint, interrupted, abort_ip;
};

static uint64_t here(const struct made *m)
{
    return CODE + m->code.len;
}

static void mmap_of(struct made *m, gaddr start, gaddr end, int prot, int flags,
                    const char *backing)
{
    struct build_ref r = build_root(&m->words, 11, 3);
    build_u64(r, 0, m->event);
    build_u64(r, 8, start);
    build_u64(r, 16, end);
    build_data(r, 0, "", 0);
    build_u32(r, 40, (uint32_t)prot);
    build_u32(r, 44, (uint32_t)flags);
    build_u16(r, 68, backing ? MMAP_FILE : MMAP_ZERO);
    build_u64(r, 72, backing ? 5 * PAGE_SIZE : 0);
    if (backing)
        build_data(r, 1, backing, strlen(backing));
    pack_message(&m->mmaps, m->words.data, m->words.len);
}

struct write {
    gaddr addr;
    const void *data;
    size_t len;
};

/* A frame with up to two writes, before the message is packed. */
static struct build_ref frame(struct made *m, enum frame_kind kind, bool has_regs,
                              struct write first, struct write second)
{
    const struct write writes[] = {first, second};
    m->event++;
    struct build_ref f = build_root(&m->words, 7, 5);
    build_u32(f, 0, TID);
    build_u16(f, 4, ARCH_X86_64);
    build_u16(f, 6, (uint16_t)kind);
    build_u64(f, 8, (uint64_t)m->ticks);
    if (has_regs)
        build_data(build_struct(f, 1, 0, 1), 0, &m->regs, sizeof(m->regs));
    uint32_t count = (first.len > 0) + (second.len > 0);
    struct build_ref w = build_structs(f, 0, count, 3, 1);
    for (uint32_t i = 0; i < count; i++) {
        build_u32(w, 0, TID);
        build_u64(w, 8, writes[i].addr);
        build_u64(w, 16, writes[i].len);
        buf_add(&m->data, writes[i].data, writes[i].len);
        if (i + 1 < count)
            w = build_next(w);
    }
    return f;
}

static void done(struct made *m)
{
    pack_message(&m->events, m->words.data, m->words.len);
}

static const struct write none = {0};
static const struct regs at_start = {.r = {[UREG_RIP] = CODE,
                                           [UREG_RSP] = STACK + 0xf000,
                                           [UREG_RCX] = UINT64_MAX,
                                           [UREG_R11] = 0x246,
                                           [UREG_EFLAGS] = 0x246,
                                           [UREG_ORIG_RAX] = SYS_execve,
                                           [UREG_CS] = 0x33,
                                           [UREG_SS] = 0x2b}};

static void call_frame(struct made *m, enum syscall_state state, int number, struct write write)
{
    struct build_ref f = frame(m, FRAME_SYSCALL, true, write, none);
    build_u16(f, 24, ARCH_X86_64);
    build_u16(f, 26, (uint16_t)state);
    build_u32(f, 28, (uint32_t)number);
    done(m);
}

/* --- the program --- */

static void bytes(struct made *m, const char *code, size_t len)
{
    buf_add(&m->code, code, len);
}
#define BYTES(m, code) bytes(m, code, sizeof(code) - 1)

static void put32(struct made *m, const char *code, size_t len, uint32_t value)
{
    bytes(m, code, len);
    buf_u32(&m->code, value);
}

static void load(struct made *m, enum reg reg, uint32_t value)
{
    static const char ops[UREG_COUNT] = {
        [UREG_RAX] = '\xb8', [UREG_RDX] = '\xba', [UREG_RSI] = '\xbe', [UREG_RDI] = '\xbf'};
    put32(m, &ops[reg], 1, value);
    m->regs.r[reg] = value;
}

/* [addr] = value */
static void store(struct made *m, gaddr addr, uint32_t value)
{
    put32(m, "\xc7\x04\x25", 3, (uint32_t)addr);
    buf_u32(&m->code, value);
}

/* A system call that is an event, with its two frames. */
static void call(struct made *m, uint32_t number, uint64_t result)
{
    load(m, UREG_RAX, number);
    BYTES(m, "\x0f\x05");
    m->regs.r[UREG_RIP] = here(m);
    m->regs.r[UREG_ORIG_RAX] = number;
    m->regs.r[UREG_RCX] = UINT64_MAX;
    m->regs.r[UREG_R11] = m->regs.r[UREG_EFLAGS] = 0x246;
    m->regs.r[UREG_RAX] = (uint64_t)-38;
    call_frame(m, SYSCALL_ENTERING, (int)number, none);
    m->regs.r[UREG_RAX] = result;
    if (number == RRCALL + 1) {
        m->event++;
        mmap_of(m, BUFFER, BUFFER + 0x10000, PROT_READ | PROT_WRITE, MAP_SHARED, NULL);
        m->event--;
    }
    call_frame(m, SYSCALL_EXITING, (int)number, none);
}

/* Calls a stub of the rr page that is no event: it gives 0, which goes to a register in place of
 * what was there. */
static void call_stub(struct made *m, uint32_t stub, const char *to_reg, enum reg reg)
{
    load(m, UREG_RAX, RR_PAGE + stub);
    BYTES(m, "\xff\xd0");
    bytes(m, to_reg, 3);
    m->regs.r[reg] = 0;
    m->regs.r[UREG_RAX] = 0;
}

/* What a buffered call does: its record is read, counted and committed. */
static void buffered(struct made *m)
{
    put32(m, "\x48\x8b\x1c\x25", 4, BUFFER + m->hdr_size); // mov rbx, [record.ret]
    m->regs.r[UREG_RBX] = RESULT;
    store(m, BUFFER, RECORD_LEN);
    if (m->minor >= 7) {
        store(m, THREAD_LOCALS + TL_RSEQ, RSEQ);
        store(m, THREAD_LOCALS + TL_RSEQ + 8, 32);
        store(m, THREAD_LOCALS + TL_RSEQ + 12, SIGNATURE);
    }
    load(m, UREG_RAX, RECORD_LEN / 8);
    m->breakpoint = here(m);
    BYTES(m, "\x90\x39\xc0\x75\x00"); // nop; cmp eax, eax; jne
    m->ticks++;
}

static void flush_and_reset(struct made *m)
{
    static const uint32_t no_rseq = 0;
    uint8_t buffer[64] = {RECORD_LEN};
    const uint64_t result = RESULT;
    const uint32_t len = RECORD_LEN;
    memcpy(buffer + m->hdr_size, &result, 8);
    buffer[m->hdr_size + 8] = 39;
    memcpy(buffer + m->hdr_size + 12, &len, 4);
    struct write clear = {THREAD_LOCALS + TL_RSEQ + 8, &no_rseq, 4};
    frame(m, FRAME_SYSCALLBUF_FLUSH, false,
          (struct write){BUFFER, buffer, m->hdr_size + RECORD_LEN}, m->minor >= 7 ? clear : none);
    done(m);
}

static void program(struct made *m)
{
    load(m, UREG_RDI, PARAMS);
    call(m, RRCALL, 0);
    load(m, UREG_RDI, ARGS);
    call(m, RRCALL + 1, BUFFER);
    call_stub(m, 0x0c, "\x49\x89\xc4", UREG_R12); // mov r12, rax: made in recording only
    call_stub(m, 0x09, "\x49\x89\xc5", UREG_R13); // in replay only
    buffered(m);
    flush_and_reset(m);
    call(m, SYS_getpid, TID);
    frame(m, FRAME_SYSCALLBUF_RESET, false, none, none);
    done(m);
    if (m->minor < 7) {
        load(m, UREG_RDI, RSEQ);
        load(m, UREG_RSI, 32);
        load(m, UREG_RDX, 0);
        BYTES(m, "\x41\xba"); // mov r10d
        buf_u32(&m->code, SIGNATURE);
        m->regs.r[UREG_R10] = SIGNATURE;
        call(m, SYS_rseq, 0);
    }
    // A sequence that is interrupted behind its first instruction goes on where it is aborted.
    m->interrupted = here(m) + 1;
    BYTES(m, "\x90\x90\xeb\xfc"); // else it never ends
    m->regs.r[UREG_RIP] = m->interrupted;
    build_u64(frame(m, FRAME_SCHED, true, none, none), 48, 0);
    done(m);
    buf_u32(&m->code, SIGNATURE);
    m->abort_ip = here(m);
    load(m, UREG_RDI, 7);
    call(m, SYS_getpid, TID);
}

/* The frame of the exec comes first in the trace and last here, when all addresses are known. */
static void exec(struct made *m)
{
    uint8_t data[0x400] = {0};
    const struct {
        unsigned at;
        uint64_t value;
    } words[] = {{PARAMS - DATA + 64, GLOBALS}, {PARAMS - DATA + 72, m->breakpoint},
                 {RSEQ - DATA + 8, SEQUENCE},   {SEQUENCE - DATA + 8, m->interrupted - 1},
                 {SEQUENCE - DATA + 16, 4},     {SEQUENCE - DATA + 24, m->abort_ip}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        memcpy(data + words[i].at, &words[i].value, 8);
    struct buf later = m->events, later_data = m->data, later_mmaps = m->mmaps;
    m->events = m->data = m->mmaps = (struct buf){0};
    m->event = 0;
    m->ticks = 0;
    m->regs = at_start;
    struct build_ref f =
        frame(m, FRAME_SYSCALL, true, (struct write){CODE, m->code.data, m->code.len},
              (struct write){DATA, data, sizeof(data)});
    build_u16(f, 24, ARCH_X86_64);
    build_u16(f, 26, SYSCALL_EXITING);
    build_u32(f, 28, SYS_execve);
    done(m);
    mmap_of(m, RR_PAGE, RR_PAGE + PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE, NULL);
    mmap_of(m, THREAD_LOCALS, THREAD_LOCALS + PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, NULL);
    mmap_of(m, STACK, STACK + 0x10000, PROT_READ | PROT_WRITE, MAP_PRIVATE, NULL);
    if (m->has_librrpage)
        mmap_of(m, LIBRRPAGE, LIBRRPAGE + 3 * PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE,
                "librrpage");
    mmap_of(m, CODE, CODE + PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE, NULL);
    mmap_of(m, DATA, DATA + PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, NULL);
    mmap_of(m, SCRATCH, SCRATCH + 0x10000, 7, MAP_PRIVATE, NULL);
    buf_add(&m->events, later.data, later.len);
    buf_add(&m->data, later_data.data, later_data.len);
    buf_add(&m->mmaps, later_mmaps.data, later_mmaps.len);
    buf_deinit(&later);
    buf_deinit(&later_data);
    buf_deinit(&later_mmaps);
}

static struct err *write_stream(const char *dir, const char *name, const struct buf *stream)
{
    cleanup(freep) char *path = str_format("%s/%s", dir, name);
    cleanup(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cleanup(block_writer_deinit) struct block_writer w = {
        .name = name, .fd = fd, .block_size = BLOCK_SIZE_EVENTS};
    TRY(block_writer_add(&w, stream->data, stream->len));
    return block_writer_finish(&w);
}

/* The replay page of a release: nine stubs, and what follows them. `mark` at its end tells that it
 * was used. */
static void replay_page(unsigned minor, uint8_t page[PAGE_SIZE], uint8_t mark)
{
    static const char stubs[] = "\x0f\x05\xc3\x0f\x05\xc3\x0f\x05\xc3\x0f\x05\xc3\x31\xc0\xc3\x0f"
                                "\x05\xc3\x0f\x05\xc3\x31\xc0\xc3\x90\xcc\xc3";
    memset(page, 0, PAGE_SIZE);
    memcpy(page, stubs, 27);
    if (minor >= 7)
        page[27] = 1; // in_replay
    memset(page + (minor >= 7 ? 31 : 27), 0xff, 8);
    page[PAGE_SIZE - 1] = mark;
}

static struct err *make_trace(struct made *m, const char *dir)
{
    cleanup(buf_deinit) struct buf version = {0};
    uint8_t file[5 * PAGE_SIZE] = {0};
    replay_page(m->minor, file + 4 * PAGE_SIZE, 0x5a);
    small_trace_write(dir, "librrpage", file, sizeof(file));
    m->event = 1; // the exec's
    m->regs = at_start;
    program(m);
    frame(m, FRAME_EXIT, false, none, none);
    done(m);
    exec(m);
    small_trace_header(&m->words, m->minor);
    buf_str(&version, "85\n");
    pack_message(&version, m->words.data, m->words.len);
    small_trace_write(dir, "version", version.data, version.len);
    TRY(write_stream(dir, "events", &m->events));
    TRY(write_stream(dir, "data", &m->data));
    TRY(write_stream(dir, "mmaps", &m->mmaps));
    return write_stream(dir, "tasks", &m->tasks);
}

/* --- the replay --- */

struct check {
    const struct made *made;
    unsigned seen;
};

static struct err *expect(const struct check *c, struct replay *r, gaddr addr, const void *want,
                          size_t len, const char *what)
{
    uint8_t have[PAGE_SIZE];
    TRY(replay_read(r, replay_spaces(r, &(size_t){0})[0], addr, have, len, NULL));
    for (size_t i = 0; i < len; i++) {
        if (have[i] != ((const uint8_t *)want)[i])
            return err_new(ERR_FORMAT, "%s: byte %zu is %#x, should be %#x", what, i, have[i],
                           ((const uint8_t *)want)[i]);
    }
    return NULL;
}

static struct err *on_event(void *ctx, struct replay *r, const struct frame *f)
{
    struct check *c = ctx;
    static const uint8_t zeros[64];
    uint8_t page[PAGE_SIZE];
    if (f->event == 1) {
        replay_page(c->made->minor, page, c->made->has_librrpage ? 0x5a : 0);
        TRY(expect(c, r, RR_PAGE, page, PAGE_SIZE, "the rr page"));
        uint64_t alt_stack = SCRATCH + 0x10000;
        TRY(expect(c, r, THREAD_LOCALS, &alt_stack, 8, "the alternative stack"));
    } else if (f->kind == FRAME_SYSCALL && f->syscall_no == RRCALL &&
               f->syscall_state == SYSCALL_EXITING) {
        const uint8_t in_replay = c->made->minor < 7;
        TRY(expect(c, r, GLOBALS, &in_replay, 1, "in_replay of the globals"));
    } else if (f->kind == FRAME_SYSCALLBUF_RESET) {
        TRY(expect(c, r, BUFFER, zeros, c->made->hdr_size + RECORD_LEN,
                   "the buffer after its reset"));
    } else {
        return NULL;
    }
    c->seen++;
    return NULL;
}

static struct err *check_release(unsigned minor, bool has_librrpage, enum engine_mode mode)
{
    char *dir = small_trace_create(1 << 16); // whose files are replaced
    struct made m = {
        .minor = minor, .has_librrpage = has_librrpage, .hdr_size = minor >= 8 ? 32 : 30};
    struct check c = {.made = &m};
    struct replay_observer observer = {.ctx = &c, .event = on_event};
    struct trace *t = NULL;
    struct replay *r = NULL;
    struct err *e = make_trace(&m, dir);
    if (!e)
        e = trace_open(dir, &t);
    if (!e)
        e = replay_open(t, &r);
    if (!e) {
        replay_set_observer(r, &observer);
        e = replay_set_mode(r, mode, NULL);
    }
    if (!e)
        e = replay_run(r, MOMENT_END, 10000, NULL);
    if (!e && (c.seen != 3 || !replay_at_end(r)))
        e = err_new(ERR_FORMAT, "%u of 3 places were seen, %s the end", c.seen,
                    replay_at_end(r) ? "at" : "before");
    replay_close(r);
    trace_close(t);
    small_trace_destroy(dir);
    for (struct buf *b = &m.words; b <= &m.code; b++)
        buf_deinit(b);
    return err_prefix(e, "rr 5.%u, librrpage %s the trace", minor, has_librrpage ? "in" : "not in");
}

int main(void)
{
    int bad = 0;
    for (unsigned minor = 4; minor <= 9; minor++) {
        for (int k = 0; k < 4; k++) {
            struct err *e = check_release(minor, k & 1, k & 2 ? ENGINE_INDEX : ENGINE_COUNT);
            if (e)
                printf("%s\n", err_message(e));
            bad |= e != NULL;
            err_free(e);
        }
    }
    return bad;
}
