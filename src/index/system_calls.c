/* Buffered calls.
 *
 * The recorder's library makes most system calls itself, through a stub that does nothing when it
 * is replayed (rr's page: "untraced, recording only"), and writes a record of each to a buffer,
 * whose contents an event brings back before the task runs through these calls again:
 *
 *                                          records of write = 5, read = 3, close = 0 are put into the buffer
 *     ... stub: rax = write, rdi, rsi ...  the record at (buffer's header + bytes recorded so far): its result
 *     ... stub: rax = read ...
 *     ... stub: rax = close ...
 *     SYSCALLBUF_FLUSH                     which has the records in the trace
 *
 * So the arguments are the registers at executions of the stub, and small programs read there where
 * the record is, and paths. Facts: rr, src/preload/preload_interface.h (struct syscallbuf_hdr,
 * preload_thread_locals), src/preload/rr_page_instructions.S; the library buffers no call that
 * takes the address of a socket (src/preload/syscallbuf.c: syscall_hook_internal). */
#include "index/system_calls.h"

#include "base/program.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

/* rr's page: untraced, recording only; untraced, of which wanted is only the read of a cloned file;
 * untraced, with the replayer's help, by which files are written that the recorder watches, as
 * /proc/PID/mem. */
static const gaddr stub_addresses[] = {0x7000000c, 0x70000006, 0x70000018};
enum { BUFFER_POINTER = 0x70001000 + 48 }; /* thread-locals page: of the buffer's header */
enum { TEXT_BYTES = 256 };                 /* longer paths are not known */

// clang-format off
static const uint16_t kept[] = {
    SYS_read, SYS_write, SYS_open, SYS_close, SYS_lseek, SYS_mmap, SYS_ioctl, SYS_pread64, SYS_pwrite64, SYS_readv, SYS_writev,
    SYS_pipe, SYS_dup, SYS_dup2, SYS_sendfile, SYS_socket, SYS_connect, SYS_accept, SYS_sendto, SYS_recvfrom, SYS_sendmsg,
    SYS_recvmsg, SYS_shutdown, SYS_bind, SYS_listen, SYS_socketpair, SYS_fcntl, SYS_truncate, SYS_ftruncate, SYS_chdir,
    SYS_fchdir, SYS_chroot, SYS_pivot_root, SYS_setns, SYS_mount, SYS_umount2, SYS_rename, SYS_link, SYS_unlink, SYS_creat,
    SYS_mknod, SYS_openat, SYS_mknodat, SYS_unlinkat, SYS_renameat, SYS_linkat, SYS_splice, SYS_tee, SYS_vmsplice, SYS_fallocate,
    SYS_accept4, SYS_dup3, SYS_pipe2, SYS_preadv, SYS_pwritev, SYS_recvmmsg, SYS_sendmmsg, SYS_renameat2, SYS_memfd_create,
    SYS_copy_file_range, SYS_preadv2, SYS_pwritev2, SYS_unshare, SYS_close_range, SYS_openat2, SYS_pidfd_getfd, SYS_eventfd,
    SYS_eventfd2, SYS_process_vm_readv, SYS_process_vm_writev, SYS_ptrace,
};
// clang-format on
/* Calls by the argument that is their first path, and by that which is their second one. */
static const uint16_t path_is_0[] = {SYS_open,  SYS_creat, SYS_unlink, SYS_truncate,
                                     SYS_mknod, SYS_chdir, SYS_rename, SYS_link},
                      path_is_1[] = {SYS_openat,   SYS_mknodat,   SYS_unlinkat, SYS_openat2,
                                     SYS_renameat, SYS_renameat2, SYS_linkat},
                      second_is_1[] = {SYS_rename, SYS_link},
                      second_is_3[] = {SYS_renameat, SYS_renameat2, SYS_linkat},
                      address_is_1[] = {SYS_bind, SYS_connect};
#define AMONG(list, no) is_among(list, ARRAY_COUNT(list), no)
enum { WORDS = 8 };

static bool is_among(const uint16_t *list, size_t count, uint64_t no)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i] == no)
            return true;
    }
    return false;
}

bool system_call_is_kept(uint64_t no)
{
    return AMONG(kept, no);
}

/* --- programs --- */

/* Appends operations that leave 1 if rax is on the list, else 0: a bit of a mask for each number.
 */
static size_t test_number(const uint16_t *list, size_t count, struct program_op *ops)
{
    size_t n = 0;
    uint64_t masks[WORDS] = {0};
    for (size_t i = 0; i < count; i++)
        masks[list[i] / 64] |= 1ull << list[i] % 64;
    ops[n++] = (struct program_op){.code = PROGRAM_PUSH};
    for (unsigned i = 0; i < WORDS; i++) {
        if (!masks[i])
            continue;
        ops[n++] = (struct program_op){.code = PROGRAM_PUSH, .imm = masks[i]};
        ops[n++] = (struct program_op){.code = PROGRAM_REGISTER, .arg = UREG_RAX};
        ops[n++] = (struct program_op){.code = PROGRAM_PUSH, .imm = 64 * i};
        ops[n++] = (struct program_op){
            .code = PROGRAM_SUB}; // of another word: 64 or more, by which a shift gives 0
        ops[n++] = (struct program_op){.code = PROGRAM_SHR};
        ops[n++] = (struct program_op){.code = PROGRAM_OR};
    }
    ops[n++] = (struct program_op){.code = PROGRAM_PUSH, .imm = 1};
    ops[n++] = (struct program_op){.code = PROGRAM_AND};
    return n;
}

/* Appends: if rax is on the list, the string at the register. */
static size_t print_path(const uint16_t *list, size_t count, unsigned reg, struct program_op *ops)
{
    size_t n = test_number(list, count, ops);
    ops[n++] = (struct program_op){.code = PROGRAM_JUMP_ZERO, .imm = 2};
    ops[n++] = (struct program_op){.code = PROGRAM_REGISTER, .arg = (uint16_t)reg};
    ops[n++] = (struct program_op){.code = PROGRAM_OUT_STRING, .imm = TEXT_BYTES};
    return n;
}

/* What is gathered at the stubs: where the record is, and two paths. */
struct printed {
    struct hook_print where;
    uint64_t header;
    uint32_t recorded, unused;
    struct {
        struct hook_print print;
        char text[TEXT_BYTES];
    } paths[2];
};
static const uint32_t print_lens[] = {16, TEXT_BYTES, TEXT_BYTES};
static const struct hook_request form = {
    .print_lens = print_lens, .print_count = ARRAY_COUNT(print_lens), .regs = true};

struct err *system_calls_hook(struct replay *r, uint32_t space)
{
    static const struct program_op where[] = {{.code = PROGRAM_PUSH, .imm = BUFFER_POINTER},
                                              {.code = PROGRAM_LOAD, .size = 8},
                                              {.code = PROGRAM_COPY},
                                              {.code = PROGRAM_OUT, .size = 8},
                                              {.code = PROGRAM_LOAD, .size = 4},
                                              {.code = PROGRAM_OUT, .size = 4, .arg = 8},
                                              {.code = PROGRAM_END}};
    enum { TEST = 6 * WORDS + 3, PATH = 2 * (TEST + 3) + 1 };
    struct program_op condition[TEST + 1], first[PATH], second[PATH];
    static const struct program_op end = {.code = PROGRAM_END};
    size_t n = test_number(kept, ARRAY_COUNT(kept), condition);
    condition[n++] = end;
    size_t k = print_path(path_is_0, ARRAY_COUNT(path_is_0), UREG_RDI, first);
    k += print_path(path_is_1, ARRAY_COUNT(path_is_1), UREG_RSI, first + k);
    first[k++] = end;
    size_t m = print_path(second_is_1, ARRAY_COUNT(second_is_1), UREG_RSI, second);
    m += print_path(second_is_3, ARRAY_COUNT(second_is_3), UREG_R10, second + m);
    second[m++] = end;
    const struct program prints[] = {{.ops = where, .count = ARRAY_COUNT(where), .out_len = 12},
                                     {.ops = first, .count = k, .out_len = TEXT_BYTES},
                                     {.ops = second, .count = m, .out_len = TEXT_BYTES}};
    const struct hook_programs programs = {.condition = {.ops = condition, .count = n},
                                           .prints = prints};
    const struct hook_programs *const of_each[ARRAY_COUNT(stub_addresses)] = {&programs, &programs,
                                                                              &programs};
    struct hook_request request = form;
    request.pcs = stub_addresses;
    request.pc_count = ARRAY_COUNT(stub_addresses);
    request.programs = of_each;
    struct worker *w = replay_worker(r, space);
    return w ? worker_set_hooks(w, &request) : NULL;
}

/* --- gathering --- */

static void add_text(struct segment *out, struct moment at, unsigned idx, const void *text,
                     size_t len)
{
    if (!len)
        return;
    vec_push(&out->call_texts,
             (struct db_call_text){at, (uint8_t)idx, (uint32_t)len, (uint32_t)out->call_text.len});
    buf_add(&out->call_text, text, len);
}

void system_call_args(const struct regs *r, uint64_t out[6])
{
    static const int order[] = {UREG_RDI, UREG_RSI, UREG_RDX, UREG_R10, UREG_R8, UREG_R9};
    for (size_t i = 0; i < ARRAY_COUNT(order); i++)
        out[i] = r->r[order[i]];
}

static void take_row(const struct hook_row *row, uint32_t space, struct segment *out)
{
    struct printed p;
    memcpy(&p, row + 1, sizeof(p));
    if (row->condition != PROGRAM_OK || p.where.end != PROGRAM_OK)
        return;
    struct db_buffered_call c = {.at = {row->stamp, row->icount},
                                 .space = space,
                                 .no = (int32_t)row->regs.r[UREG_RAX],
                                 .header = p.header,
                                 .recorded = p.recorded};
    system_call_args(&row->regs, c.args);
    vec_push(&out->buffered_calls, c);
    for (unsigned i = 0; i < ARRAY_COUNT(p.paths); i++) {
        size_t len = strnlen(p.paths[i].text, TEXT_BYTES);
        if (p.paths[i].print.end == PROGRAM_OK && len < TEXT_BYTES)
            add_text(out, c.at, i, p.paths[i].text, len);
    }
}

struct err *system_calls_take(struct replay *r, uint32_t space, struct segment *out)
{
    cleanup(buf_deinit) struct buf rows = {0};
    size_t row_len = worker_hook_row_len(&form);
    if (!replay_worker(r, space))
        return NULL;
    TRY(worker_take_hook_rows(replay_worker(r, space), &rows));
    for (size_t at = 0; at + row_len <= rows.len; at += row_len)
        take_row((const void *)(rows.data + at), space, out);
    return NULL;
}

/* The arguments of a call that are paths, or the address of a socket; negative: none. */
static void text_arguments(uint64_t no, int out[2])
{
    out[0] = AMONG(path_is_0, no) ? 0 : AMONG(path_is_1, no) || AMONG(address_is_1, no) ? 1 : -1;
    out[1] = AMONG(second_is_1, no) ? 1 : AMONG(second_is_3, no) ? 3 : -1;
}

bool system_call_names(const struct frame *f)
{
    int args[2] = {-1, -1};
    if (f->kind == FRAME_SYSCALL && f->syscall_state == SYSCALL_ENTERING &&
        f->syscall_arch == ARCH_X86_64 && f->has_regs && !f->failed_during_preparation)
        text_arguments((uint64_t)f->syscall_no, args);
    return args[0] >= 0;
}

struct err *system_calls_event(struct replay *r, const struct frame *f, uint32_t space,
                               struct moment at, struct segment *out)
{
    int args[2];
    uint64_t values[6];
    if (!system_call_names(f))
        return NULL;
    text_arguments((uint64_t)f->syscall_no, args);
    system_call_args(&f->regs, values);
    for (unsigned i = 0; i < 2 && args[i] >= 0; i++) {
        char text[TEXT_BYTES];
        size_t done = 0;
        struct err *e = replay_read(r, space, values[args[i]], text, sizeof(text), &done);
        if (e && err_kind(e) != ERR_FAULT)
            return e;
        err_free(e);
        bool is_address = AMONG(address_is_1, (uint64_t)f->syscall_no);
        size_t len = is_address ? values[2] : strnlen(text, done);
        if (is_address ? len <= done : len < done)
            add_text(out, at, i, text, len);
    }
    return NULL;
}

static int compare_calls(const void *a, const void *b)
{
    return moment_cmp(((const struct db_buffered_call *)a)->at,
                      ((const struct db_buffered_call *)b)->at);
}

static int compare_texts(const void *a, const void *b)
{
    const struct db_call_text *x = a, *y = b;
    int order = moment_cmp(x->at, y->at);
    return order ? order : (x->idx > y->idx) - (x->idx < y->idx);
}

void system_calls_sort(struct segment *out)
{
    if (out->buffered_calls.count)
        qsort(out->buffered_calls.items, out->buffered_calls.count,
              sizeof(out->buffered_calls.items[0]), compare_calls);
    if (!out->call_texts.count)
        return;
    qsort(out->call_texts.items, out->call_texts.count, sizeof(out->call_texts.items[0]),
          compare_texts);
    struct buf sorted = {0};
    vec_each (t, &out->call_texts) {
        uint32_t off = (uint32_t)sorted.len;
        buf_add(&sorted, out->call_text.data + t->off, t->len);
        t->off = off;
    }
    buf_deinit(&out->call_text);
    out->call_text = sorted;
}
