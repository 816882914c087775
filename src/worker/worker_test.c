/* Workers as their coordinator sees them. The recorded programs here are a few instructions written
 * by hand. */
#include "worker/worker.h"

#include "base/test.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

enum {
    CODE = 0x400000,
    CODE_LEN = 0x10000,
    DATA = 0x600000,
    DATA_LEN = 0x40000,
    RWX = PROT_READ | PROT_WRITE | PROT_EXEC
};
#define STACK       0x7ffd00000000ull
#define STACK_LEN   0x10000ull
#define SP          (STACK + STACK_LEN - 64)
#define RESERVE     0x20000000000ull /* address space that an allocator keeps for later */
#define RESERVE_LEN (64ull << 20)

static const struct addr_range used[] = {
    {CODE, CODE + CODE_LEN},          {DATA, DATA + DATA_LEN},    {0x10000000000, 0x10000100000},
    {RESERVE, RESERVE + RESERVE_LEN}, {STACK, STACK + STACK_LEN},
};

/* mov ecx, 1000; loop: dec ecx; jnz loop; syscall: 2002 instructions with the system call not
 * executed, 1000 ticks. */
static const uint8_t count_down[] = {0xb9, 0xe8, 3, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0x0f, 0x05};
/* jmp to itself */
static const uint8_t for_ever[] = {0xeb, 0xfe};

static struct worker *new_worker(void)
{
    struct worker *w;
    assert_ok(worker_create(used, sizeof(used) / sizeof(used[0]), &w));
    return w;
}

/* A worker with code, data and stack mapped. */
static struct worker *with_program(const void *code, size_t len)
{
    struct worker *w = new_worker();
    assert_ok(worker_map(w, CODE, CODE + CODE_LEN, PROT_READ | PROT_EXEC, MAP_KIND_ANON, -1, 0));
    assert_ok(worker_map(w, DATA, DATA + DATA_LEN, PROT_READ | PROT_WRITE, MAP_KIND_ANON, -1, 0));
    assert_ok(
        worker_map(w, STACK, STACK + STACK_LEN, PROT_READ | PROT_WRITE, MAP_KIND_ANON, -1, 0));
    assert_ok(worker_write(w, CODE, code, len));
    return w;
}

static struct regs at_start(void)
{
    struct regs r = {0};
    r.r[UREG_RIP] = CODE;
    r.r[UREG_RSP] = SP;
    r.r[UREG_EFLAGS] = 0x246;
    return r;
}

static struct engine_result run(struct worker *w, enum engine_mode mode, const struct regs *set,
                                uint64_t max_icount, struct regs *out)
{
    struct engine_request q = {.mode = mode, .max_icount = max_icount};
    struct engine_result result;
    assert_ok(worker_run(w, 0, &q, set, &result, out));
    return result;
}

static uint64_t word_at(struct worker *w, gaddr addr)
{
    uint64_t v;
    assert_ok(worker_read(w, addr, &v, sizeof(v), NULL));
    return v;
}

static void expect_err(struct err *e, enum err_kind kind)
{
    assert_non_null(e);
    assert_int_equal(err_kind(e), kind);
    err_free(e);
}

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* --- running --- */

TEST(a_run_stops_at_the_system_call_with_exact_counts)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    for (int mode = 0; mode < 2; mode++) {
        struct regs r = at_start(), out;
        struct engine_result stop = run(w, (enum engine_mode)mode, &r, UINT64_MAX, &out);
        assert_int_equal(stop.reason, STOP_SYSCALL);
        assert_int_equal(stop.icount, 2001);
        assert_int_equal(stop.ticks, 1000);
        assert_int_equal(stop.insn_len, 2);
        assert_int_equal(out.r[UREG_RIP], CODE + 9);
        assert_int_equal(out.r[UREG_RCX], 0);
    }
    worker_destroy(w);
}

TEST(a_run_stops_at_the_instruction_asked_for)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    for (uint64_t n = 0; n < 40; n++) {
        struct regs r = at_start(), out, again;
        struct engine_result stop = run(w, ENGINE_COUNT, &r, n, &out);
        assert_int_equal(stop.reason, STOP_LIMIT);
        assert_int_equal(stop.icount, n);
        if (n) {
            assert_int_equal(out.r[UREG_RCX], 1000 - n / 2);
            assert_int_equal(out.r[UREG_RIP], CODE + (n % 2 ? 5 : 7));
        }
        assert_ok(worker_get_regs(w, 0, &again));
        assert_memory_equal(&out, &again, sizeof(out));
        stop = run(w, ENGINE_COUNT, NULL, UINT64_MAX, &out);
        assert_int_equal(stop.icount, 2001 - n);
    }
    worker_destroy(w);
}

TEST(a_fault_is_told_with_its_address_and_the_memory_can_be_mapped_then)
{
    static const uint8_t code[] = {0xc6, 0x04, 0x25, 0,    0,
                                   0x50, 0,    7,    0x0f, 0x05}; // mov byte [0x500000], 7; syscall
    struct worker *w = with_program(code, sizeof(code));
    struct regs r = at_start(), out;
    struct engine_result stop = run(w, ENGINE_COUNT, &r, UINT64_MAX, &out);
    assert_int_equal(stop.reason, STOP_FAULT);
    assert_int_equal(stop.signo, SIGSEGV);
    assert_int_equal(stop.si_code, SEGV_MAPERR);
    assert_int_equal(stop.fault_addr, 0x500000);
    assert_int_equal(stop.icount, 0);
    assert_ok(worker_map(w, 0x500000, 0x501000, PROT_READ, MAP_KIND_ANON, -1, 0));
    stop = run(w, ENGINE_COUNT, NULL, UINT64_MAX, &out);
    assert_int_equal(stop.si_code, SEGV_ACCERR);
    assert_ok(worker_protect(w, 0x500000, 0x501000, PROT_READ | PROT_WRITE));
    stop = run(w, ENGINE_COUNT, NULL, UINT64_MAX, &out);
    assert_int_equal(stop.reason, STOP_SYSCALL);
    assert_int_equal(word_at(w, 0x500000), 7);
    worker_destroy(w);
}

TEST(new_code_is_run_after_a_write_and_after_a_mapping)
{
    uint8_t code[] = {0xb8, 1, 0, 0, 0, 0x0f, 0x05}; // mov eax, 1; syscall
    struct worker *w = with_program(code, sizeof(code));
    struct regs r = at_start(), out;
    for (uint8_t i = 1; i < 20; i++) {
        code[1] = i;
        assert_ok(worker_write(w, CODE, code, sizeof(code)));
        run(w, ENGINE_COUNT, &r, UINT64_MAX, &out);
        assert_int_equal(out.r[UREG_RAX], i);
    }
    assert_ok(worker_map(w, CODE, CODE + PAGE_SIZE, RWX, MAP_KIND_ANON, -1, 0));
    code[1] = 99;
    assert_ok(worker_write(w, CODE, code, sizeof(code)));
    run(w, ENGINE_COUNT, &r, UINT64_MAX, &out);
    assert_int_equal(out.r[UREG_RAX], 99);
    worker_destroy(w);
}

TEST(vector_state_belongs_to_the_task)
{
    static const uint8_t code[] = {0x66, 0x0f, 0xd4, 0xc1, 0x0f, 0x05}; // paddq xmm0, xmm1; syscall
    struct worker *w = with_program(code, sizeof(code));
    struct xstate x;
    for (unsigned slot = 0; slot < 3; slot++) {
        assert_ok(worker_set_xstate(w, slot, NULL));
        assert_ok(worker_get_xstate(w, slot, &x));
        x.data[160] = (uint8_t)(slot + 1); // xmm0
        x.data[176] = 10;                  // xmm1
        x.data[512] |= 2;                  // XSTATE_BV: SSE
        assert_ok(worker_set_xstate(w, slot, &x));
    }
    struct regs r = at_start();
    struct engine_request q = {.max_icount = UINT64_MAX};
    struct engine_result stop;
    for (int round = 1; round < 4; round++) {
        for (unsigned slot = 0; slot < 3; slot++)
            assert_ok(worker_run(w, slot, &q, &r, &stop, NULL));
        for (unsigned slot = 0; slot < 3; slot++) {
            assert_ok(worker_get_xstate(w, slot, &x));
            assert_int_equal(x.data[160], slot + 1 + 10 * (unsigned)round);
        }
    }
    worker_destroy(w);
}

TEST(vector_state_with_bits_that_no_processor_has_does_no_harm)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    struct xstate x;
    assert_ok(worker_get_xstate(w, 0, &x));
    memset(x.data + 512, 0xff, 64);
    memset(x.data + 24, 0xff, 4); // MXCSR
    assert_ok(worker_set_xstate(w, 0, &x));
    struct regs r = at_start(), out;
    assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, &out).reason, STOP_SYSCALL);
    worker_destroy(w);
}

/* --- memory --- */

TEST(memory_is_read_and_written_whatever_its_protection)
{
    struct worker *w = new_worker();
    uint8_t *data = xmalloc(9 << 20), *back = xmalloc(9 << 20);
    for (size_t i = 0; i < 9 << 20; i++)
        data[i] = (uint8_t)(i * 7 + (i >> 12));
    gaddr at = 0x10000000000;
    static const int prots[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC,
                                PROT_EXEC};
    for (size_t i = 0; i < sizeof(prots) / sizeof(prots[0]); i++) {
        size_t len = i == 0 ? 9 << 20 : 0x5000;
        assert_ok(worker_map(w, at, at + len, prots[i], MAP_KIND_ANON, -1, 0));
        assert_ok(worker_write(w, at + 5, data, len - 10));
        size_t done;
        assert_ok(worker_read(w, at + 5, back, len - 10, &done));
        assert_int_equal(done, len - 10);
        assert_memory_equal(data, back, len - 10);
        size_t most;
        struct err *e = worker_read(w, at + len - 3, back, 10, &most);
        expect_err(e, ERR_FAULT);
        assert_int_equal(most, 3);
        expect_err(worker_write(w, at + len - 3, back, 10), ERR_FAULT);
        assert_ok(worker_unmap(w, at, at + len));
        expect_err(worker_read(w, at, back, 1, NULL), ERR_FAULT);
    }
    free(data);
    free(back);
    worker_destroy(w);
}

/* Contents that say which page they are of, of every page but each fifth; `fails`: they cannot be
 * read any more. */
struct numbered_contents {
    struct worker_contents base;
    unsigned reads, *alive;
    bool fails;
};

static struct err *read_numbered(struct worker_contents *c, gaddr start, gaddr end,
                                 struct worker_fetch *to)
{
    struct numbered_contents *n = (struct numbered_contents *)c;
    n->reads++;
    if (n->fails)
        return err_new(ERR_FORMAT, "these contents are damaged");
    for (gaddr at = start; at < end; at += PAGE_SIZE) {
        uint8_t page[PAGE_SIZE] = {0};
        memcpy(page + 8, &at, sizeof(at));
        if (at / PAGE_SIZE % 5)
            TRY(worker_fetch_put(to, at, page, 1));
    }
    return NULL;
}

static void destroy_numbered(struct worker_contents *c)
{
    --*((struct numbered_contents *)c)->alive;
    free(c);
}

static struct numbered_contents *numbered(unsigned *alive)
{
    struct numbered_contents *n = xnew(struct numbered_contents);
    *n = (struct numbered_contents){
        .base = {.uses = 1, .read = read_numbered, .destroy = destroy_numbered}, .alive = alive};
    ++*alive;
    return n;
}

/* mov rax, [rdi + 8]; mov [rsi + 16], rax; syscall */
static const uint8_t copy_word[] = {0x48, 0x8b, 0x47, 8, 0x48, 0x89, 0x46, 16, 0x0f, 0x05};

static uint64_t expected_word(gaddr page)
{
    return page / PAGE_SIZE % 5 ? page : 0;
}

TEST(absent_memory_comes_when_it_is_touched)
{
    unsigned alive = 0;
    struct worker *w = with_program(copy_word, sizeof(copy_word)), *copy;
    struct numbered_contents *n = numbered(&alive);
    const struct addr_range absent[] = {{RESERVE, RESERVE + (1 << 20)},
                                        {RESERVE + (4 << 20), RESERVE + RESERVE_LEN}};
    assert_ok(worker_map(w, RESERVE, RESERVE + RESERVE_LEN, PROT_READ | PROT_WRITE, MAP_KIND_ANON,
                         -1, 0));
    assert_ok(worker_set_absent(w, &n->base, absent, 2));
    assert_int_equal(n->reads, 0);
    // By the program, which reads one page and writes to another.
    struct regs r = at_start();
    gaddr from = RESERVE + (33 << 20) + PAGE_SIZE, to = RESERVE + 7 * PAGE_SIZE;
    r.r[UREG_RDI] = from;
    r.r[UREG_RSI] = to;
    assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, NULL).reason, STOP_SYSCALL);
    assert_int_equal(n->reads, 2);
    assert_int_equal(word_at(w, to + 16), expected_word(from));
    assert_int_equal(word_at(w, to + 8), expected_word(to));
    // By the coordinator, whatever the protection; between the ranges is nothing.
    assert_ok(worker_protect(w, RESERVE, RESERVE + RESERVE_LEN, PROT_NONE));
    for (gaddr at = RESERVE + (8 << 20); at < RESERVE + (8 << 20) + 20 * PAGE_SIZE; at += PAGE_SIZE)
        assert_int_equal(word_at(w, at + 8), expected_word(at));
    assert_int_equal(word_at(w, RESERVE + (2 << 20) + 8), 0);
    struct engine_result stop = run(w, ENGINE_COUNT, &r, UINT64_MAX, NULL);
    assert_int_equal(stop.reason, STOP_FAULT);
    assert_ok(worker_protect(w, RESERVE, RESERVE + RESERVE_LEN, PROT_READ | PROT_WRITE));
    // A part of a page that is written, a copy of the worker, mappings that move or go.
    uint64_t one = 1;
    gaddr written = RESERVE + (12 << 20) + PAGE_SIZE;
    assert_ok(worker_write(w, written, &one, sizeof(one)));
    assert_int_equal(word_at(w, written + 8), expected_word(written));
    assert_ok(worker_fork(w, &copy));
    assert_ok(worker_move(w, RESERVE + (16 << 20), 1 << 20, RESERVE, 1 << 20, false));
    assert_int_equal(word_at(w, RESERVE + PAGE_SIZE + 8),
                     expected_word(RESERVE + (16 << 20) + PAGE_SIZE));
    assert_ok(worker_dontneed(w, RESERVE + (20 << 20), RESERVE + (21 << 20)));
    assert_int_equal(word_at(w, RESERVE + (20 << 20) + PAGE_SIZE + 8), 0);
    assert_ok(
        worker_map(w, RESERVE + (24 << 20), RESERVE + (25 << 20), PROT_READ, MAP_KIND_ANON, -1, 0));
    assert_int_equal(word_at(w, RESERVE + (24 << 20) + PAGE_SIZE + 8), 0);
    unsigned before = n->reads;
    gaddr late = RESERVE + (40 << 20) + PAGE_SIZE;
    assert_int_equal(word_at(copy, RESERVE + (20 << 20) + PAGE_SIZE + 8),
                     expected_word(RESERVE + (20 << 20) + PAGE_SIZE));
    assert_int_equal(word_at(copy, late + 8), expected_word(late));
    assert_true(n->reads > before);
    // All of it; then the contents are not held any more, but by the copy.
    worker_contents_release(&n->base);
    assert_ok(worker_fetch_all(w));
    assert_int_equal(word_at(w, late + 8), expected_word(late));
    assert_int_equal(alive, 1);
    worker_destroy(copy);
    assert_int_equal(alive, 0);
    worker_destroy(w);
}

TEST(a_large_array_comes_in_large_pieces_to_its_end)
{
    unsigned alive = 0;
    struct worker *w = new_worker();
    struct numbered_contents *n = numbered(&alive);
    const struct addr_range absent = {RESERVE, RESERVE + (10 << 20)};
    assert_ok(worker_map(w, RESERVE, RESERVE + RESERVE_LEN, PROT_READ | PROT_WRITE, MAP_KIND_ANON,
                         -1, 0));
    assert_ok(worker_set_absent(w, &n->base, &absent, 1));
    worker_contents_release(&n->base);
    for (gaddr at = absent.start; at < absent.end; at += 16 * PAGE_SIZE)
        assert_int_equal(word_at(w, at + 8), expected_word(at));
    assert_int_equal(n->reads, 5);
    worker_destroy(w);
    assert_int_equal(alive, 0);
}

TEST(a_snapshot_keeps_absent_memory)
{
    unsigned alive = 0;
    struct worker *w = with_program(copy_word, sizeof(copy_word));
    struct numbered_contents *n = numbered(&alive);
    const struct addr_range absent = {RESERVE, RESERVE + RESERVE_LEN};
    gaddr page = RESERVE + 3 * PAGE_SIZE;
    uint64_t one = 1;
    assert_ok(worker_map(w, RESERVE, RESERVE + RESERVE_LEN, PROT_READ | PROT_WRITE, MAP_KIND_ANON,
                         -1, 0));
    assert_ok(worker_set_absent(w, &n->base, &absent, 1));
    worker_contents_release(&n->base);
    assert_ok(worker_snapshot_pages(w, &(gaddr){page + 4 * PAGE_SIZE}, 1));
    assert_ok(worker_snapshot_take(w, 0));
    assert_int_equal(n->reads, 0); // a page is copied when it is there
    assert_ok(worker_write(w, page + 8, &one, sizeof(one)));
    assert_ok(worker_write(w, page + 4 * PAGE_SIZE + 8, &one, sizeof(one)));
    assert_ok(worker_unmap(w, page + PAGE_SIZE, page + 3 * PAGE_SIZE));
    assert_ok(worker_dontneed(w, RESERVE + (20 << 20), RESERVE + (20 << 20) + PAGE_SIZE));
    assert_ok(worker_snapshot_restoring(w));
    assert_ok(worker_map(w, page + PAGE_SIZE, page + 3 * PAGE_SIZE, PROT_READ | PROT_WRITE,
                         MAP_KIND_ANON, -1, 0));
    assert_ok(worker_snapshot_restore(w, 0));
    for (gaddr at = page; at < page + 5 * PAGE_SIZE; at += PAGE_SIZE)
        assert_int_equal(word_at(w, at + 8), expected_word(at));
    assert_int_equal(word_at(w, RESERVE + (20 << 20) + 8), expected_word(RESERVE + (20 << 20)));
    worker_destroy(w);
    assert_int_equal(alive, 0);
}

static void copy_to(struct worker *w, gaddr from, gaddr to)
{
    struct regs r = at_start();
    r.r[UREG_RDI] = from;
    r.r[UREG_RSI] = to;
    assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, NULL).reason, STOP_SYSCALL);
}

/* What is written as a whole is not copied, but fetched again; what never held anything is emptied
 * again. */
TEST(a_snapshot_copies_no_arrays)
{
    unsigned alive = 0;
    struct worker *w = with_program(copy_word, sizeof(copy_word));
    struct numbered_contents *n = numbered(&alive);
    const uint64_t array_len = 2 << 20, one = 1;
    const struct addr_range absent = {RESERVE, RESERVE + 16 * array_len};
    gaddr array = absent.end - array_len, empty = absent.end, list[1024],
          places[] = {array, array + array_len - PAGE_SIZE, empty};
    for (size_t i = 0; i < 512; i++) {
        list[i] = array + i * PAGE_SIZE;
        list[512 + i] = empty + i * PAGE_SIZE;
    }
    assert_ok(worker_map(w, RESERVE, RESERVE + RESERVE_LEN, PROT_READ | PROT_WRITE, MAP_KIND_ANON,
                         -1, 0));
    assert_ok(worker_set_absent(w, &n->base, &absent, 1));
    worker_contents_release(&n->base);
    uint64_t before = worker_memory(w);
    const uint64_t tables = 3 << 20;
    assert_ok(worker_snapshot_pages(w, list, ARRAY_COUNT(list)));
    assert_ok(worker_snapshot_take(w, 0));
    assert_in_range(worker_memory(w), 0, before + tables);
    assert_int_equal(n->reads, 0);
    for (unsigned round = 0; round < 3; round++) {
        // By the program, and by the coordinator before anything has run.
        if (round)
            copy_to(w, array + PAGE_SIZE, array);
        for (size_t i = 0; i < ARRAY_COUNT(places); i++)
            assert_ok(worker_write(w, places[i] + 8, &one, sizeof(one)));
        assert_int_equal(n->reads, round + 1);
        if (!round)
            assert_in_range(worker_memory(w), 0,
                            before + tables + 2 * array_len); // both may be large pages
        assert_ok(worker_snapshot_take(w, 1));
        assert_ok(worker_snapshot_restoring(w));
        assert_ok(worker_snapshot_restore(w, round ? 0 : 1));
        for (size_t i = 0; i < ARRAY_COUNT(places) && !round; i++)
            assert_int_equal(word_at(w, places[i] + 8), 1);
        assert_ok(worker_snapshot_restoring(w));
        assert_ok(worker_snapshot_restore(w, 0));
        assert_int_equal(n->reads, round + 1);
        if (round == 2) {
            for (size_t i = 0; i < ARRAY_COUNT(places); i++)
                assert_int_equal(word_at(w, places[i] + 8),
                                 places[i] == empty ? 0 : expected_word(places[i]));
        }
    }
    // Somebody who comes back again and again has it kept.
    assert_ok(worker_snapshot_fetched(w, true));
    assert_ok(worker_snapshot_restoring(w));
    assert_ok(worker_snapshot_restore(w, 0));
    before = n->reads;
    for (unsigned round = 0; round < 3; round++) {
        copy_to(w, array + PAGE_SIZE, array);
        assert_int_equal(n->reads, before + 1);
        assert_ok(worker_snapshot_restoring(w));
        assert_ok(worker_snapshot_restore(w, 0));
        assert_int_equal(word_at(w, array + 8), expected_word(array));
        assert_int_equal(word_at(w, array + 16), 0); // where the program wrote
    }
    assert_int_equal(n->reads, before + 1);
    worker_destroy(w);
    assert_int_equal(alive, 0);
}

TEST(pages_of_a_file_can_be_absent)
{
    enum { PAGES = 8 };
    unsigned alive = 0;
    struct worker *w = with_program(copy_word, sizeof(copy_word));
    struct numbered_contents *n = numbered(&alive);
    cleanup(closep) int fd = memfd_create("file", MFD_CLOEXEC);
    const gaddr base = RESERVE + 5 * PAGE_SIZE; // contents are given of the next four pages
    for (uint64_t i = 1; i <= PAGES; i++)
        assert_int_equal(pwrite(fd, &i, sizeof(i), (off_t)(i - 1) * PAGE_SIZE + 8), sizeof(i));
    assert_ok(
        worker_map(w, base, base + PAGES * PAGE_SIZE, PROT_READ, MAP_KIND_PRIVATE_FILE, fd, 0));
    assert_ok(worker_set_absent(w, &n->base,
                                &(struct addr_range){base + PAGE_SIZE, base + 3 * PAGE_SIZE}, 1));
    worker_contents_release(&n->base);
    assert_ok(worker_snapshot_take(w, 0));
    for (int round = 0; round < 2; round++) {
        copy_to(w, base + PAGE_SIZE, DATA);
        assert_int_equal(word_at(w, DATA + 16), base + PAGE_SIZE);
        assert_int_equal(word_at(w, base + 2 * PAGE_SIZE + 8), base + 2 * PAGE_SIZE);
        assert_int_equal(word_at(w, base + 8), 1);
        assert_int_equal(word_at(w, base + 3 * PAGE_SIZE + 8), 4);
        // It is as protected as before; given back it is the file's, and after that what it was.
        struct regs r = at_start();
        r.r[UREG_RDI] = DATA;
        r.r[UREG_RSI] = base + PAGE_SIZE;
        assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, NULL).reason, STOP_FAULT);
        assert_ok(worker_dontneed(w, base, base + PAGES * PAGE_SIZE));
        assert_int_equal(word_at(w, base + PAGE_SIZE + 8), 2);
        assert_ok(worker_snapshot_restoring(w));
        assert_ok(worker_snapshot_restore(w, 0));
    }
    assert_int_equal(n->reads, 1);
    worker_destroy(w);
    assert_int_equal(alive, 0);
}

TEST(absent_memory_that_the_kernel_does_not_withhold_is_an_error)
{
    enum { MOST = 100000 };
    const gaddr start = 0x50000000000;
    unsigned alive = 0, most = 0;
    cleanup(fclosep) FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
    if (!f || fscanf(f, "%u", &most) != 1 || most > MOST)
        skip(); // it would take too long to have so many mappings
    struct worker *w = new_worker();
    struct numbered_contents *n = numbered(&alive);
    cleanup(freep) struct addr_range *every_other = xnew_array(struct addr_range, MOST / 2);
    for (gaddr i = 0; i < MOST / 2; i++)
        every_other[i] =
            (struct addr_range){start + 2 * i * PAGE_SIZE, start + (2 * i + 1) * PAGE_SIZE};
    assert_ok(worker_map(w, start, start + (gaddr)MOST * PAGE_SIZE, PROT_READ | PROT_WRITE,
                         MAP_KIND_ANON, -1, 0));
    expect_err(worker_set_absent(w, &n->base, every_other, MOST / 2), ERR_OS);
    worker_destroy(w);
    worker_contents_release(&n->base);
    assert_int_equal(alive, 0);
}

/* Puts back a mapping that went, and snapshot 0. */
static void go_back_to_first(struct worker *w, gaddr start, gaddr end)
{
    assert_ok(worker_snapshot_restoring(w));
    assert_ok(worker_map(w, start, end, PROT_READ | PROT_WRITE, MAP_KIND_ANON, -1, 0));
    assert_ok(worker_snapshot_restore(w, 0));
}

TEST(memory_that_holds_nothing_goes_without_being_kept)
{
    unsigned alive = 0;
    struct worker *w = with_program(copy_word, sizeof(copy_word)), *copy;
    struct numbered_contents *n = numbered(&alive);
    const struct addr_range absent = {RESERVE + (1 << 20) + PAGE_SIZE,
                                      RESERVE + (1 << 20) + 3 * PAGE_SIZE};
    gaddr written = RESERVE + 5 * PAGE_SIZE, named = RESERVE + 9 * PAGE_SIZE,
          moved = RESERVE + 20 * PAGE_SIZE;
    uint64_t one = 1;
    assert_ok(worker_map(w, RESERVE, RESERVE + RESERVE_LEN, PROT_READ | PROT_WRITE, MAP_KIND_ANON,
                         -1, 0));
    assert_ok(worker_set_absent(w, &n->base, &absent, 1));
    worker_contents_release(&n->base);
    assert_ok(worker_write(w, written, &one, sizeof(one)));
    assert_ok(worker_write(w, DATA + 8, &one, sizeof(one)));
    assert_ok(worker_move(w, DATA, PAGE_SIZE, moved, PAGE_SIZE, false));
    assert_ok(worker_snapshot_pages(w, &named, 1));
    assert_ok(worker_snapshot_take(w, 0));
    for (int round = 0; round < 2; round++) {
        copy_to(w, absent.start, named);
        assert_int_equal(word_at(w, named + 16), expected_word(absent.start));
        assert_ok(
            worker_unmap(w, RESERVE, RESERVE + RESERVE_LEN)); // more pages than a snapshot may lose
        assert_ok(worker_snapshot_take(w, 1));
        go_back_to_first(w, RESERVE, RESERVE + RESERVE_LEN);
        assert_int_equal(word_at(w, named + 16), 0);
        assert_int_equal(word_at(w, written), 1);
        assert_int_equal(word_at(w, moved + 8), 1);
        assert_int_equal(word_at(w, absent.start + PAGE_SIZE + 8),
                         expected_word(absent.start + PAGE_SIZE));
        assert_int_equal(word_at(w, RESERVE + (2 << 20)), 0);
    }
    // A copy made here is as clean, and knows what was given.
    assert_ok(worker_fork(w, &copy));
    assert_ok(worker_snapshot_take(copy, 0));
    assert_ok(worker_unmap(copy, RESERVE, RESERVE + RESERVE_LEN));
    go_back_to_first(copy, RESERVE, RESERVE + RESERVE_LEN);
    assert_int_equal(word_at(copy, written), 1);
    assert_int_equal(word_at(copy, absent.start + 8), expected_word(absent.start));
    worker_destroy(copy);
    worker_destroy(w);
    assert_int_equal(alive, 0);
}

TEST(what_a_program_wrote_before_the_first_snapshot_is_kept)
{
    struct worker *w = with_program(copy_word, sizeof(copy_word)), *copy;
    gaddr page = RESERVE + PAGE_SIZE;
    uint64_t one = 1;
    assert_ok(worker_write(w, DATA + 8, &one, sizeof(one)));
    assert_ok(
        worker_map(w, RESERVE, RESERVE + (1 << 20), PROT_READ | PROT_WRITE, MAP_KIND_ANON, -1, 0));
    // Before it, or before a copy was made.
    assert_ok(worker_snapshot_pages(w, &page, 1));
    assert_ok(worker_snapshot_take(w, 0));
    copy_to(w, DATA, page);
    assert_ok(worker_fork(w, &copy));
    assert_ok(worker_snapshot_forget(w));
    struct worker *both[2] = {w, copy};
    for (int i = 0; i < 2; i++) {
        assert_ok(worker_snapshot_take(both[i], 0));
        assert_ok(worker_unmap(both[i], RESERVE, RESERVE + (1 << 20)));
        go_back_to_first(both[i], RESERVE, RESERVE + (1 << 20));
        assert_int_equal(word_at(both[i], page + 16), 1);
        worker_destroy(both[i]);
    }
    w = with_program(copy_word, sizeof(copy_word));
    assert_ok(worker_write(w, DATA + 8, &one, sizeof(one)));
    assert_ok(
        worker_map(w, RESERVE, RESERVE + (1 << 20), PROT_READ | PROT_WRITE, MAP_KIND_ANON, -1, 0));
    copy_to(w, DATA, page);
    assert_ok(worker_snapshot_take(w, 0));
    assert_ok(worker_unmap(w, RESERVE, RESERVE + (1 << 20)));
    go_back_to_first(w, RESERVE, RESERVE + (1 << 20));
    assert_int_equal(word_at(w, page + 16), 1);
    worker_destroy(w);
}

TEST(absent_memory_that_cannot_be_read_is_an_error)
{
    unsigned alive = 0;
    struct worker *w = with_program(copy_word, sizeof(copy_word));
    struct numbered_contents *n = numbered(&alive);
    const struct addr_range absent = {DATA, DATA + DATA_LEN};
    assert_ok(worker_set_absent(w, &n->base, &absent, 1));
    n->fails = true;
    struct regs r = at_start(), out;
    struct engine_request q = {.mode = ENGINE_COUNT, .max_icount = UINT64_MAX};
    struct engine_result result;
    r.r[UREG_RDI] = DATA;
    expect_err(worker_run(w, 0, &q, &r, &result, &out), ERR_FORMAT);
    expect_err(worker_read(w, CODE, &r, 8, NULL), ERR_OS); // it is of no use any more
    worker_contents_release(&n->base);
    worker_destroy(w);
    assert_int_equal(alive, 0);
}

TEST(writing_into_protected_memory_leaves_it_protected)
{
    static const uint8_t code[] = {0xc6, 0x04, 0x25, 0,    0,
                                   0x60, 0,    7,    0x0f, 0x05}; // mov byte [DATA], 7; syscall
    struct worker *w = with_program(code, sizeof(code));
    assert_ok(worker_protect(w, DATA, DATA + PAGE_SIZE, PROT_READ));
    assert_ok(worker_write(w, DATA, "x", 1));
    struct regs r = at_start(), out;
    assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, &out).reason, STOP_FAULT);
    assert_int_equal(word_at(w, DATA), 'x');
    worker_destroy(w);
}

TEST(a_snapshot_outlives_the_end_of_memory_that_came_after_the_first_one)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    uint64_t one = 1;
    assert_ok(worker_snapshot_take(w, 0));
    assert_ok(worker_map(w, RESERVE, RESERVE + RESERVE_LEN, PROT_READ | PROT_WRITE, MAP_KIND_ANON,
                         -1, 0));
    assert_ok(worker_write(w, RESERVE, &one, sizeof(one)));
    assert_ok(worker_snapshot_take(w, 1));
    assert_ok(
        worker_dontneed(w, RESERVE, RESERVE + RESERVE_LEN)); // more pages than a snapshot may lose
    assert_int_equal(word_at(w, RESERVE), 0);
    assert_ok(worker_snapshot_take(w, 2));
    assert_ok(worker_unmap(w, RESERVE, RESERVE + RESERVE_LEN));
    assert_ok(worker_snapshot_take(w, 3));
    for (unsigned back = 2; back > 0; back--) {
        assert_ok(worker_snapshot_restoring(w));
        if (back == 2)
            assert_ok(worker_map(w, RESERVE, RESERVE + RESERVE_LEN, PROT_READ | PROT_WRITE,
                                 MAP_KIND_ANON, -1, 0));
        assert_ok(worker_snapshot_restore(w, back));
        assert_int_equal(word_at(w, RESERVE), back == 1);
        assert_int_equal(word_at(w, RESERVE + PAGE_SIZE), 0);
    }
    worker_destroy(w);
}

TEST(a_snapshot_keeps_memory_that_was_there_before_it)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    uint64_t one = 1;
    assert_ok(worker_write(w, DATA, &one, sizeof(one)));
    assert_ok(worker_snapshot_take(w, 0));
    assert_ok(worker_snapshot_forget(
        w)); // a new era: what was mapped in the old one may have been written to
    assert_ok(
        worker_map(w, RESERVE, RESERVE + PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_KIND_ANON, -1, 0));
    assert_ok(worker_write(w, RESERVE, &one, sizeof(one)));
    assert_ok(worker_snapshot_take(w, 0));
    assert_ok(worker_unmap(w, RESERVE, RESERVE + PAGE_SIZE));
    assert_ok(worker_dontneed(w, DATA, DATA + PAGE_SIZE));
    assert_int_equal(word_at(w, DATA), 0);
    assert_ok(worker_snapshot_restoring(w));
    assert_ok(
        worker_map(w, RESERVE, RESERVE + PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_KIND_ANON, -1, 0));
    assert_ok(worker_snapshot_restore(w, 0));
    assert_int_equal(word_at(w, DATA), 1);
    assert_int_equal(word_at(w, RESERVE), 1);
    worker_destroy(w);
}

TEST(instructions_that_not_both_cpus_have_are_not_executed)
{
    struct engine_isa lacking = {.lacking = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    struct engine_isa undefined = {.undefined = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    struct regs r = at_start(), out;
    struct worker *w = with_program(count_down, sizeof(count_down)), *copy;
    assert_ok(worker_set_isa(w, &lacking));
    assert_ok(worker_fork(w, &copy));
    assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, &out).reason, STOP_UNSUPPORTED);
    assert_int_equal(out.r[UREG_RIP], CODE);
    assert_int_equal(run(copy, ENGINE_COUNT, &r, UINT64_MAX, &out).reason, STOP_UNSUPPORTED);
    worker_destroy(w);
    worker_destroy(copy);
    w = with_program(count_down, sizeof(count_down));
    assert_ok(worker_set_isa(w, &undefined));
    struct engine_result stop = run(w, ENGINE_COUNT, &r, UINT64_MAX, &out);
    assert_int_equal(stop.reason, STOP_FAULT);
    assert_int_equal(stop.signo, SIGILL);
    assert_int_equal(out.r[UREG_RIP], CODE);
    worker_destroy(w);
}

TEST(cpuid_is_answered_on_the_way_if_that_is_wanted)
{
    // mov eax, 7; xor ecx, ecx; cpuid; mov esi, ebx; mov eax, 9; cpuid; syscall
    static const uint8_t code[] = {0xb8, 7,    0, 0, 0, 0x31, 0xc9, 0x0f, 0xa2, 0x89,
                                   0xde, 0xb8, 9, 0, 0, 0,    0x0f, 0xa2, 0x0f, 0x05};
    static const struct worker_cpuid table[] = {
        {7, 1, 1, 1, 1, 1}, {7, 0, 2, 3, 4, 5}, {7, UINT32_MAX, 6, 6, 6, 6}};
    for (int mode = ENGINE_COUNT; mode <= ENGINE_LOG_LOADS; mode++) {
        struct worker *w = with_program(code, sizeof(code));
        struct regs r = at_start(), out;
        assert_int_equal(run(w, (enum engine_mode)mode, &r, UINT64_MAX, &out).reason, STOP_TRAP);
        assert_ok(worker_set_cpuid(w, table, 3));
        assert_int_equal(run(w, (enum engine_mode)mode, &r, UINT64_MAX, &out).reason, STOP_TRAP);
        for (uint64_t limit = 0; limit <= 7; limit++) {
            struct engine_request q = {.mode = (enum engine_mode)mode,
                                       .max_icount = limit < 7 ? limit : UINT64_MAX,
                                       .answer_cpuid = true};
            struct engine_result stop;
            assert_ok(worker_run(w, 0, &q, &r, &stop, &out));
            assert_int_equal(stop.icount, limit < 6 ? limit : 6);
            assert_int_equal(out.r[UREG_RSI], limit < 4 ? 0 : 3);
            if (limit == 3)
                assert_int_equal(out.r[UREG_RDX], 5);
        }
        assert_int_equal(out.r[UREG_RIP], CODE + 18);
        assert_int_equal(out.r[UREG_RAX] | out.r[UREG_RBX] | out.r[UREG_RCX] | out.r[UREG_RDX], 0);
        worker_destroy(w);
    }
}

TEST(workers_share_a_memory_object)
{
    int fd = memfd_create("object", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 0x3000), 0);
    struct worker *a = new_worker(), *b = new_worker(), *c;
    assert_ok(worker_map(a, DATA, DATA + 0x3000, PROT_READ | PROT_WRITE, MAP_KIND_SHARED, fd, 0));
    assert_ok(worker_map(b, DATA, DATA + 0x1000, PROT_READ, MAP_KIND_SHARED, fd, 0x2000));
    assert_ok(worker_write(a, DATA + 0x2000, "12345678", 8));
    assert_memory_equal((uint64_t[]){word_at(b, DATA)}, "12345678", 8);
    assert_ok(worker_fork(a, &c));
    assert_ok(worker_write(c, DATA + 0x2000, "abc", 3));
    assert_memory_equal((uint64_t[]){word_at(b, DATA)}, "abc45678", 8);
    // A private mapping has its own copy of what it wrote.
    assert_ok(worker_map(b, DATA, DATA + 0x1000, PROT_READ, MAP_KIND_PRIVATE_FILE, fd, 0x2000));
    assert_ok(worker_write(b, DATA, "private!", 8));
    assert_memory_equal((uint64_t[]){word_at(a, DATA + 0x2000)}, "abc45678", 8);
    assert_ok(worker_map(b, DATA, DATA + 0x1000, PROT_READ, MAP_KIND_SHARED, fd, 1));
    expect_err(worker_read(b, DATA, (char[1]){0}, 1, NULL), ERR_OS);
    worker_destroy(a);
    worker_destroy(b);
    worker_destroy(c);
    close(fd);
}

TEST(code_changes_with_the_same_memory_at_another_address)
{
    // mov eax, 1; add edx, eax; mov [rdi+1], cl; dec ecx; jnz to the start; syscall
    static const uint8_t code[] = {0xb8, 1, 0,    0,    0,    0x01, 0xc2, 0x88,
                                   0x4f, 1, 0xff, 0xc9, 0x75, 0xf2, 0x0f, 0x05};
    struct regs r = at_start(), out;
    r.r[UREG_RCX] = 10;
    for (int mode = ENGINE_COUNT; mode <= ENGINE_INDEX; mode++) {
        struct worker *w = new_worker();
        int fd = memfd_create("code", MFD_CLOEXEC);
        assert_int_equal(ftruncate(fd, 0x3000), 0);
        assert_ok(
            worker_map(w, CODE, CODE + 0x2000, PROT_READ | PROT_EXEC, MAP_KIND_SHARED, fd, 0x1000));
        assert_ok(worker_map(w, DATA, DATA + 0x2000, PROT_READ, MAP_KIND_SHARED, fd, 0));
        assert_ok(
            worker_map(w, STACK, STACK + STACK_LEN, PROT_READ | PROT_WRITE, MAP_KIND_ANON, -1, 0));
        assert_ok(worker_write(w, CODE, code, sizeof(code)));
        r.r[UREG_RDI] = STACK;
        assert_int_equal(run(w, (enum engine_mode)mode, &r, UINT64_MAX, &out).reason, STOP_SYSCALL);
        assert_int_equal(out.r[UREG_RDX], 10);
        // By the host, at the other address; then by the program, which is allowed to only now.
        assert_ok(worker_write(w, DATA + 0x1001, "\2", 1));
        run(w, (enum engine_mode)mode, &r, UINT64_MAX, &out);
        assert_int_equal(out.r[UREG_RDX], 20);
        assert_ok(worker_protect(w, DATA, DATA + 0x2000, PROT_READ | PROT_WRITE));
        r.r[UREG_RDI] = DATA + 0x1000;
        run(w, (enum engine_mode)mode, &r, UINT64_MAX, &out);
        assert_int_equal(out.r[UREG_RDX], 2 + 54);
        // A third place, mapped when the code was translated and where nothing is withheld yet.
        assert_ok(worker_map(w, DATA + 0x4000, DATA + 0x5000, PROT_READ | PROT_WRITE,
                             MAP_KIND_SHARED, fd, 0x1000));
        r.r[UREG_RDI] = DATA + 0x4000;
        run(w, (enum engine_mode)mode, &r, UINT64_MAX, &out);
        assert_int_equal(out.r[UREG_RDX], 1 + 54);
        // And moved: to where the offset in the memory counts, not the address.
        assert_ok(worker_move(w, DATA, 0x2000, DATA + 0x10000, 0x2000, false));
        r.r[UREG_RDI] = DATA + 0x11000;
        run(w, (enum engine_mode)mode, &r, UINT64_MAX, &out);
        assert_int_equal(out.r[UREG_RDX], 1 + 54);
        worker_destroy(w);
        close(fd);
    }
}

TEST(a_worker_s_own_memory_is_not_the_program_s)
{
    struct worker *w = new_worker();
    char path[64], line[512];
    expect_err(worker_read(w, DATA, line, 1, NULL), ERR_FAULT); // by then it has settled
    snprintf(path, sizeof(path), "/proc/%d/maps", worker_pid(w));
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    unsigned seen = 0;
    gaddr start, end;
    while (fgets(line, sizeof(line), f)) {
        char prot[8];
        if (sscanf(line, "%lx-%lx %7s", &start, &end, prot) != 3 || prot[0] != 'r' || start >> 47)
            continue;
        expect_err(worker_read(w, start, (char[8]){0}, 8, NULL), ERR_FAULT);
        seen++;
    }
    fclose(f);
    assert_true(seen > 3);
    // Nor behind what the program has mapped.
    uint8_t both[2 * PAGE_SIZE];
    size_t done;
    assert_ok(worker_map(w, DATA, DATA + PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_KIND_ANON, -1, 0));
    expect_err(worker_read(w, DATA, both, sizeof(both), &done), ERR_FAULT);
    assert_int_equal(done, PAGE_SIZE);
    worker_destroy(w);
}

TEST(mappings_move_with_their_protections)
{
    struct worker *w = new_worker();
    gaddr from = DATA, to = 0x10000000000;
    assert_ok(worker_map(w, from, from + 0x6000, PROT_READ | PROT_WRITE, MAP_KIND_ANON, -1, 0));
    for (uint64_t i = 0; i < 6; i++)
        assert_ok(worker_write(w, from + i * PAGE_SIZE, &i, 8));
    assert_ok(worker_protect(w, from + 0x2000, from + 0x4000, PROT_NONE));
    assert_ok(worker_move(w, from, 0x6000, to, 0x6000, false));
    for (uint64_t i = 0; i < 6; i++)
        assert_int_equal(word_at(w, to + i * PAGE_SIZE), i);
    expect_err(worker_read(w, from, &to, 1, NULL), ERR_FAULT);
    assert_ok(worker_move(w, to, 0x2000, from, 0x2000, true));
    assert_int_equal(word_at(w, from + 0x1000), 1);
    assert_int_equal(word_at(w, to + 0x1000), 0);
    assert_ok(worker_dontneed(w, from, from + 0x1000));
    assert_ok(worker_dontneed(w, from + 0x1000, from + 0x2000));
    assert_int_equal(word_at(w, from + 0x1000), 0);
    worker_destroy(w);
}

TEST(a_page_of_code_can_be_written_after_it_was_moved)
{
    // mov byte [rax], 1; syscall
    static const uint8_t code[] = {0xc6, 0x00, 1, 0x0f, 0x05};
    struct worker *w = with_program(code, sizeof(code));
    gaddr to = 0x10000000000;
    assert_ok(worker_map(w, DATA, DATA + 0x3000, RWX, MAP_KIND_ANON, -1, 0));
    assert_ok(worker_write(w, DATA + 0x1000, code, sizeof(code)));
    struct regs r = at_start(), out;
    r.r[UREG_RIP] = DATA + 0x1000;
    r.r[UREG_RAX] = DATA;
    assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, &out).reason, STOP_SYSCALL);
    assert_ok(worker_move(w, DATA, 0x3000, to, 0x3000, false));
    r.r[UREG_RIP] = CODE;
    r.r[UREG_RAX] = to + 0x1100;
    assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, &out).reason, STOP_SYSCALL);
    assert_int_equal(word_at(w, to + 0x1100), 1);
    worker_destroy(w);
}

TEST(a_worker_guards_its_own_memory)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    expect_err(worker_write(w, UINT64_MAX - 2, "abcd", 4), ERR_FAULT);
    expect_err(worker_read(w, UINT64_MAX - 2, (char[4]){0}, 4, NULL), ERR_FAULT);
    struct regs r = at_start(), out;
    assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, &out).reason, STOP_SYSCALL);
    worker_destroy(w);
    // What is queued fails later, and for ever.
    static const struct addr_range everything[] = {{0, 0x7ffffffff000}, {0x10000, 0x7fffffff0000}};
    for (int i = 0; i < 6; i++) {
        gaddr start = everything[i / 3].start, end = everything[i / 3].end;
        w = with_program(count_down, sizeof(count_down));
        assert_ok(i % 3 == 0   ? worker_unmap(w, start, end)
                  : i % 3 == 1 ? worker_map(w, start, end, 0, MAP_KIND_ANON, -1, 0)
                               : worker_protect(w, start, end, 0));
        struct engine_request q = {.max_icount = UINT64_MAX};
        struct engine_result result;
        expect_err(worker_run(w, 0, &q, &r, &result, &out), ERR_OS);
        expect_err(worker_read(w, CODE, (char[4]){0}, 4, NULL), ERR_OS);
        worker_destroy(w);
    }
}

/* --- sending ahead --- */

/* syscall; add [DATA], eax; add ecx, 1; mov eax, [DATA]; jmp to the start */
static const uint8_t caller[] = {0x0f, 0x05, 0x01, 0x04, 0x25, 0, 0,    0x60, 0,    0x83, 0xc1,
                                 1,    0x8b, 0x04, 0x25, 0,    0, 0x60, 0,    0xeb, 0xeb};

/* The registers with which the program goes on behind its call number `n`. */
static struct regs behind_call(uint64_t n)
{
    struct regs r = at_start();
    r.r[UREG_RIP] = CODE + 2;
    r.r[UREG_RAX] = n;
    r.r[UREG_RCX] = n;
    return r;
}

/* Sends the worker ahead over `count` calls, of which number `wrong` is expected with another RCX.
 */
static void foretell(struct worker *w, unsigned count, unsigned wrong)
{
    assert_true(worker_ahead_begin(w));
    for (unsigned n = 1; n <= count; n++) {
        struct worker_stop stop = {
            .reason = STOP_SYSCALL, .insn_len = 2, .mask = 1u << UREG_RIP | 1u << UREG_RCX};
        stop.regs.r[UREG_RIP] = CODE;
        stop.regs.r[UREG_RCX] = n == wrong ? 0 : n;
        assert_ok(worker_ahead_stop(w, &stop));
        assert_ok(worker_queue_write(w, DATA, &(uint64_t){1000 * n}, 8));
        const struct regs r = behind_call(n);
        assert_ok(worker_ahead_run(w, 0, &r));
    }
    worker_ahead_end(w);
}

TEST(a_worker_goes_on_by_itself_as_far_as_it_was_told)
{
    enum { CALLS = 5 };
    for (unsigned wrong = 0; wrong <= CALLS; wrong++) {
        struct worker *w = with_program(caller, sizeof(caller));
        struct engine_request q = {.max_icount = UINT64_MAX};
        struct engine_result stop;
        struct regs set = behind_call(0), out;
        foretell(w, CALLS, wrong);
        unsigned made = wrong ? wrong : CALLS + 1;
        for (unsigned n = 0; n < made; n++) {
            if (n)
                assert_ok(worker_queue_write(w, DATA, &(uint64_t){1000 * n}, 8));
            assert_ok(worker_run(w, 0, &q, &set, &stop, &out));
            assert_int_equal(stop.reason, STOP_SYSCALL);
            assert_int_equal(stop.icount, 4);
            assert_int_equal(stop.insn_len, 2);
            assert_int_equal(out.r[UREG_RCX], n + 1);
            assert_int_equal(out.r[UREG_RAX], 1000 * n + n);
            set = behind_call(n + 1);
        }
        // What comes behind the last one has not been done.
        assert_int_equal(word_at(w, DATA), 1000 * (made - 1) + made - 1);
        worker_destroy(w);
    }
}

TEST(a_worker_that_was_sent_ahead_does_nothing_else)
{
    struct engine_request q = {.max_icount = UINT64_MAX};
    struct engine_result stop;
    for (int what = 0; what < 4; what++) {
        struct worker *w = with_program(caller, sizeof(caller));
        struct regs set = behind_call(0), out;
        foretell(w, 3, 0);
        assert_ok(worker_run(w, 0, &q, &set, &stop, &out));
        assert_false(worker_ahead_begin(w));
        set = behind_call(what == 1 ? 2 : 1);
        if (what == 0)
            expect_err(worker_read(w, DATA, &out, 8, NULL), ERR_OS);
        else if (what != 2)
            assert_ok(worker_queue_write(w, DATA, &(uint64_t){what == 3 ? 1 : 1000}, 8));
        expect_err(worker_run(w, 0, &q, &set, &stop, &out), ERR_OS);
        worker_destroy(w);
    }
}

TEST(a_worker_that_was_sent_ahead_stops_at_the_limit)
{
    for (uint64_t limit = 1; limit < 14; limit++) {
        struct worker *w = with_program(caller, sizeof(caller));
        struct engine_result stop;
        struct regs set = behind_call(0), out;
        uint64_t done = 0;
        foretell(w, 5, 0);
        for (unsigned n = 0; done < limit; n++) {
            struct engine_request q = {.max_icount = limit - done};
            if (n)
                assert_ok(worker_queue_write(w, DATA, &(uint64_t){1000 * n}, 8));
            assert_ok(worker_run(w, 0, &q, &set, &stop, &out));
            done += stop.icount;
            set = behind_call(n + 1);
        }
        assert_int_equal(done, limit);
        assert_int_equal(word_at(w, CODE),
                         *(const uint64_t *)(const void *)caller); // it is where it was asked to be
        worker_destroy(w);
    }
}

TEST(mappings_of_files_wait_with_their_descriptors)
{
    enum { COUNT = 700 }; // more than a socket takes
    struct worker *w = new_worker(), *copy;
    for (uint64_t i = 0; i < COUNT; i++) {
        int fd = memfd_create("file", MFD_CLOEXEC);
        assert_int_equal(write(fd, &i, sizeof(i)), sizeof(i));
        assert_ok(worker_map(w, 0x10000000000 + i * PAGE_SIZE, 0x10000000000 + (i + 1) * PAGE_SIZE,
                             PROT_READ, i % 2 ? MAP_KIND_SHARED : MAP_KIND_PRIVATE_FILE, fd, 0));
        close(fd);
    }
    assert_ok(worker_fork(w, &copy));
    for (uint64_t i = 0; i < 256; i++)
        assert_int_equal(word_at(i % 2 ? w : copy, 0x10000000000 + i * PAGE_SIZE), i);
    worker_destroy(copy);
    worker_destroy(w);
}

/* --- forks --- */

TEST(a_fork_goes_its_own_way)
{
    struct worker *a = with_program(count_down, sizeof(count_down)), *b, *c;
    struct regs r = at_start(), out;
    run(a, ENGINE_COUNT, &r, 500, &out);
    assert_ok(worker_fork(a, &b));
    assert_int_equal(run(b, ENGINE_COUNT, NULL, UINT64_MAX, &out).icount, 1501);
    assert_ok(worker_write(b, DATA, "b", 1));
    assert_ok(worker_fork(b, &c));
    worker_destroy(b);
    assert_int_equal(word_at(c, DATA), 'b');
    assert_int_equal(word_at(a, DATA), 0);
    assert_int_equal(run(a, ENGINE_COUNT, NULL, UINT64_MAX, &out).icount, 1501);
    assert_int_equal(run(c, ENGINE_COUNT, &r, UINT64_MAX, &out).icount, 2001);
    worker_destroy(a);
    worker_destroy(c);
}

TEST(a_worker_leaves_no_zombie)
{
    struct worker *a = new_worker(), *b;
    assert_ok(worker_fork(a, &b));
    worker_destroy(b);
    worker_destroy(a);
    assert_int_equal(waitpid(-1, NULL, __WALL | WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

/* --- consumers --- */

/*  0  mov ecx, 3
 *  5  again: call f              (ends a block of 1, then of its own)
 * 10  mov [DATA + 16], rcx
 * 18  dec ecx; jnz again
 * 22  syscall
 * 24  f: mov byte [DATA + rcx], 1
 * 31  ret */
static const uint8_t calls[] = {0xb9, 3,    0,    0,    0, 0xe8, 14,   0,    0,    0,    0x48,
                                0x89, 0x0c, 0x25, 0x10, 0, 0x60, 0,    0xff, 0xc9, 0x75, 0xef,
                                0x0f, 0x05, 0xc6, 0x81, 0, 0,    0x60, 0,    1,    0xc3};

TEST(the_index_counts_blocks_and_marks_what_was_written)
{
    struct worker *w = with_program(calls, sizeof(calls));
    struct regs r = at_start();
    for (int round = 0; round < 2; round++) {
        assert_ok(worker_reset_index(w, true));
        struct engine_result stop = run(w, ENGINE_INDEX, &r, UINT64_MAX, NULL);
        assert_int_equal(stop.icount, 1 + 3 * 6);
        cleanup(buf_deinit) struct buf counts = {0}, pages = {0};
        assert_ok(worker_take_index(w, &counts, &pages));
        uint64_t insns = 0, f_count = 0;
        const struct block_count *c = (const struct block_count *)(void *)counts.data;
        for (size_t i = 0; i < counts.len / sizeof(*c); i++) {
            insns += c[i].insn_count * c[i].count;
            if (c[i].pc == CODE + 24) {
                f_count += c[i].count;
                assert_int_equal(c[i].end, END_RET);
                assert_int_equal(c[i].byte_len, 8);
            }
        }
        assert_int_equal(insns, stop.icount + 1); // and the system call
        assert_int_equal(f_count, 3);
        assert_int_equal(pages.len, 2 * sizeof(struct written_page));
        const struct written_page *p = (const struct written_page *)(void *)pages.data;
        for (int i = 0; i < 2; i++) {
            if (p[i].page == DATA)
                assert_int_equal(p[i].granules[0], 5);
            else {
                assert_int_equal(p[i].page, STACK + STACK_LEN - PAGE_SIZE);
                assert_true(p[i].granules[7] == 1ull << (63 - 8));
            }
        }
        pages.len = counts.len = 0;
        assert_ok(worker_take_index(w, &counts, &pages));
        assert_int_equal(counts.len + pages.len, 0);
    }
    worker_destroy(w);
}

TEST(rows_tell_when_and_where)
{
    struct worker *w = with_program(calls, sizeof(calls));
    const struct addr_range watch[] = {{DATA, DATA + 2}, {DATA + 20, DATA + 21}};
    struct consume_request q = {.calls = true, .blocks = true, .watch = watch, .watch_count = 2};
    assert_ok(worker_consume(w, &q));
    assert_ok(worker_set_icount(w, 77, 1000));
    struct regs r = at_start();
    run(w, ENGINE_LOG, &r, 10, NULL);
    assert_ok(worker_set_icount(w, 78, 0));
    run(w, ENGINE_LOG, NULL, UINT64_MAX, NULL);
    cleanup(buf_deinit) struct buf writes = {0}, call_rows = {0}, blocks = {0};
    assert_ok(worker_take_rows(w, &writes, &call_rows, &blocks));

    // Call i happens 1 + 6 * i instructions after the start.
    const struct call_row *c = (const struct call_row *)(void *)call_rows.data;
    assert_int_equal(call_rows.len, 3 * sizeof(*c));
    static const uint64_t when[3][2] = {{77, 1001}, {77, 1007}, {78, 3}};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(c[i].stamp, when[i][0]);
        assert_int_equal(c[i].icount, when[i][1]);
        assert_int_equal(c[i].return_addr, CODE + 10);
        assert_int_equal(c[i].sp, SP - 8);
    }
    // The write of f at DATA + 1 in the last round; the 8 bytes at DATA + 16 in each.
    const struct access_row *x = (const struct access_row *)(void *)writes.data;
    assert_int_equal(writes.len, 4 * sizeof(*x));
    static const uint64_t written[4][4] = {{77, 1004, DATA + 16, 8},
                                           {78, 0, DATA + 16, 8},
                                           {78, 4, DATA + 1, 1},
                                           {78, 6, DATA + 16, 8}};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(x[i].stamp, written[i][0]);
        assert_int_equal(x[i].icount, written[i][1]);
        assert_int_equal(x[i].addr, written[i][2]);
        assert_int_equal(x[i].size, written[i][3]);
        assert_int_equal(x[i].kind, STORE_PLAIN);
    }
    const struct block_row *b = (const struct block_row *)(void *)blocks.data;
    uint64_t insns = 0;
    for (size_t i = 0; i < blocks.len / sizeof(*b); i++) {
        assert_int_equal(b[i].stamp == 77 ? b[i].icount - 1000 : b[i].icount + 10, insns);
        insns += b[i].insn_count;
    }
    assert_int_equal(insns, 19);
    worker_destroy(w);
}

TEST(blocks_that_are_passed_over_have_rows_only_where_they_are_cut_short)
{
    struct worker *w = with_program(calls, sizeof(calls));
    const struct addr_range watch = {DATA, DATA + 4};
    const struct passed_block passed[] = {
        {CODE + 24, 2}, {CODE + 10, 2}, {CODE + 18, 1}}; // f; two that are no whole blocks
    struct consume_request q = {
        .blocks = true, .watch = &watch, .watch_count = 1, .passed = passed, .passed_count = 3};
    assert_ok(worker_consume(w, &q));
    assert_ok(worker_set_icount(w, 77, 0));
    struct regs r = at_start();
    run(w, ENGINE_LOG, &r, 9, NULL); // within f, the second time
    assert_ok(worker_set_icount(w, 77, 9));
    run(w, ENGINE_LOG, NULL, UINT64_MAX, NULL);
    cleanup(buf_deinit) struct buf writes = {0}, blocks = {0};
    assert_ok(worker_take_rows(w, &writes, NULL, &blocks));
    const struct block_row *b = (const struct block_row *)(void *)blocks.data;
    uint64_t insns = 0, of_f = 0;
    for (size_t i = 0; i < blocks.len / sizeof(*b); i++) {
        insns += b[i].insn_count;
        of_f += b[i].pc == CODE + 24;
        assert_true(b[i].pc != CODE + 24 || (b[i].icount == 8 && b[i].insn_count == 1));
    }
    assert_int_equal(of_f, 1);
    assert_int_equal(insns, 1 + 3 * 6 - 2 * 2);                  // but two calls of f
    assert_int_equal(writes.len, 3 * sizeof(struct access_row)); // of f, all the same
    worker_destroy(w);
}

TEST(hooks_tell_which_call_is_entered_and_returned_from)
{
    struct worker *w = with_program(calls, sizeof(calls));
    struct regs r = at_start();
    gaddr pcs[] = {CODE + 24, CODE + 10}; // f, and behind its call
    struct hook_request q = {.pcs = pcs, .pc_count = 1, .entry_count = 1, .regs = true};
    assert_ok(worker_set_icount(w, 77, 0));
    assert_ok(worker_set_hooks(w, &q));
    struct engine_result stop = run(w, ENGINE_INDEX, &r, UINT64_MAX, NULL);
    assert_int_equal(stop.reason, STOP_CONSUMER); // where f returns to has no hook yet
    assert_int_equal(stop.icount, 2);
    cleanup(buf_deinit) struct buf rows = {0};
    assert_ok(worker_take_hook_rows(w, &rows));
    q.pc_count = 2;
    assert_ok(worker_set_hooks(w, &q));
    assert_ok(worker_set_icount(w, 77, 2));
    assert_int_equal(run(w, ENGINE_INDEX, NULL, UINT64_MAX, NULL).reason, STOP_SYSCALL);
    assert_ok(worker_take_hook_rows(w, &rows));
    const struct hook_row *row = (const struct hook_row *)(void *)rows.data;
    assert_int_equal(rows.len, 6 * sizeof(*row));
    for (unsigned i = 0; i < 6; i++) {
        uint64_t call = 1 + 6 * (i / 2);
        assert_int_equal(row[i].icount, call + (i % 2 ? 3 : 1));
        assert_int_equal(i % 2 ? row[i].returned.stamp : row[i].entered.stamp, 77);
        assert_int_equal(i % 2 ? row[i].returned.icount : row[i].entered.icount, call);
        assert_int_equal(i % 2 ? row[i].entered.stamp : row[i].returned.stamp, 0);
    }
    worker_destroy(w);
}

/* mov ecx, 100000; loop: mov [DATA], ecx; dec ecx; jnz loop; syscall */
static const uint8_t many_writes[] = {0xb9, 0xa0, 0x86, 1,    0,    0x89, 0x0c, 0x25, 0,
                                      0,    0x60, 0,    0xff, 0xc9, 0x75, 0xf5, 0x0f, 0x05};

TEST(a_run_ends_when_there_are_enough_rows)
{
    struct worker *w = with_program(many_writes, sizeof(many_writes));
    const struct addr_range watch = {DATA, DATA + 8};
    struct consume_request q = {.watch = &watch, .watch_count = 1, .max_rows = 10};
    assert_ok(worker_consume(w, &q));
    struct regs r = at_start(), out;
    struct engine_result stop = run(w, ENGINE_LOG, &r, UINT64_MAX, &out);
    assert_int_equal(stop.reason, STOP_CONSUMER);
    cleanup(buf_deinit) struct buf writes = {0};
    assert_ok(worker_take_rows(w, &writes, NULL, NULL));
    // No write before the stop is lost, so the search can go on from there.
    const struct access_row *x = (const struct access_row *)(void *)writes.data;
    assert_int_equal(writes.len / sizeof(*x), 100000 - out.r[UREG_RCX]);
    assert_true(writes.len / sizeof(*x) >= 10);
    for (uint64_t i = 0; i < writes.len / sizeof(*x); i++)
        assert_int_equal(x[i].icount, 1 + 3 * i);
    worker_destroy(w);
}

TEST(the_last_rows_are_kept)
{
    struct worker *w = with_program(many_writes, sizeof(many_writes));
    const struct addr_range watch = {DATA, DATA + 8};
    struct consume_request q = {
        .watch = &watch, .watch_count = 1, .max_rows = 10, .keep_last = true};
    assert_ok(worker_consume(w, &q));
    struct regs r = at_start();
    assert_int_equal(run(w, ENGINE_LOG, &r, UINT64_MAX, NULL).reason, STOP_SYSCALL);
    cleanup(buf_deinit) struct buf writes = {0};
    assert_ok(worker_take_rows(w, &writes, NULL, NULL));
    const struct access_row *x = (const struct access_row *)(void *)writes.data;
    assert_int_equal(writes.len / sizeof(*x), 10);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(x[i].icount, 1 + 3 * (100000 - 10 + i));
    worker_destroy(w);
}

/* cld; rep stosb; syscall */
static const uint8_t fill[] = {0xfc, 0xf3, 0xaa, 0x0f, 0x05};

TEST(a_string_store_is_one_write_of_all_it_stored)
{
    struct worker *w = with_program(fill, sizeof(fill));
    const struct addr_range watch = {DATA + 100, DATA + 101};
    struct consume_request q = {.watch = &watch, .watch_count = 1};
    assert_ok(worker_consume(w, &q));
    struct regs r = at_start();
    r.r[UREG_RDI] = DATA + 8;
    r.r[UREG_RCX] = 2 * PAGE_SIZE;
    assert_int_equal(run(w, ENGINE_LOG, &r, UINT64_MAX, NULL).reason, STOP_SYSCALL);
    cleanup(buf_deinit) struct buf writes = {0}, counts = {0}, pages = {0};
    assert_ok(worker_take_rows(w, &writes, NULL, NULL));
    const struct access_row *x = (const struct access_row *)(void *)writes.data;
    assert_int_equal(writes.len, sizeof(*x));
    assert_int_equal(x->addr, DATA + 8);
    assert_int_equal(x->size, 2 * PAGE_SIZE);
    assert_int_equal(x->kind, STORE_REP);
    assert_int_equal(run(w, ENGINE_INDEX, &r, UINT64_MAX, NULL).reason, STOP_SYSCALL);
    assert_ok(worker_take_index(w, &counts, &pages));
    assert_int_equal(pages.len, 3 * sizeof(struct written_page));
    worker_destroy(w);
}

TEST(what_a_string_store_wrote_before_it_faulted_is_seen)
{
    struct worker *w = with_program(fill, sizeof(fill));
    const struct addr_range watch = {DATA + DATA_LEN - 100, DATA + DATA_LEN - 99};
    struct consume_request q = {.watch = &watch, .watch_count = 1};
    assert_ok(worker_consume(w, &q));
    struct regs r = at_start(), out;
    r.r[UREG_RDI] = DATA + DATA_LEN - PAGE_SIZE;
    r.r[UREG_RCX] = 2 * PAGE_SIZE;
    r.r[UREG_RAX] = 'x';
    assert_int_equal(run(w, ENGINE_LOG, &r, UINT64_MAX, &out).reason, STOP_FAULT);
    assert_int_equal(out.r[UREG_RDI], DATA + DATA_LEN);
    cleanup(buf_deinit) struct buf writes = {0}, counts = {0}, pages = {0};
    assert_ok(worker_take_rows(w, &writes, NULL, NULL));
    assert_int_equal(writes.len, sizeof(struct access_row));
    assert_int_equal(run(w, ENGINE_INDEX, &r, UINT64_MAX, &out).reason, STOP_FAULT);
    assert_ok(worker_take_index(w, &counts, &pages));
    assert_int_equal(pages.len, sizeof(struct written_page));
    worker_destroy(w);
}

/* cld; rep movsb es:[rdi], gs:[rsi]; xlat fs:[rbx + al]; syscall */
static const uint8_t in_segments[] = {0xfc, 0x65, 0xf3, 0xa4, 0x64, 0xd7, 0x0f, 0x05};

TEST(reads_through_fs_and_gs_at_implied_registers_are_where_they_are)
{
    struct worker *w = with_program(in_segments, sizeof(in_segments));
    const struct addr_range watch = {DATA, DATA + DATA_LEN};
    struct consume_request q = {.watch = &watch, .watch_count = 1, .loads = true};
    assert_ok(worker_consume(w, &q));
    assert_ok(worker_write(w, DATA + 0x200 + 5, "x", 1));
    assert_ok(worker_write(w, DATA + 0x100, "0123456789", 10));
    struct regs r = at_start(), out;
    r.r[UREG_GS_BASE] = 0x7fff12345678;
    r.r[UREG_FS_BASE] = 0x123000;
    r.r[UREG_RSI] = DATA + 0x100 - r.r[UREG_GS_BASE];
    r.r[UREG_RDI] = DATA + 0x1000;
    r.r[UREG_RCX] = 10;
    r.r[UREG_RBX] = DATA + 0x200 - r.r[UREG_FS_BASE];
    r.r[UREG_RAX] = 0xff05;
    assert_int_equal(run(w, ENGINE_LOG_LOADS, &r, UINT64_MAX, &out).reason, STOP_SYSCALL);
    assert_int_equal(out.r[UREG_RSI], r.r[UREG_RSI] + 10);
    assert_int_equal(out.r[UREG_RDI], DATA + 0x1000 + 10);
    assert_int_equal(out.r[UREG_RBX], r.r[UREG_RBX]);
    assert_int_equal(out.r[UREG_RAX], 0xff00 + 'x');
    assert_int_equal(out.r[UREG_EFLAGS], r.r[UREG_EFLAGS]);
    assert_int_equal(word_at(w, DATA + 0x1002), 0x3938373635343332);

    // The last 8 bytes can be read, the ninth cannot.
    r.r[UREG_RSI] += DATA_LEN - 0x100 - 8;
    assert_int_equal(run(w, ENGINE_LOG_LOADS, &r, UINT64_MAX, &out).reason, STOP_FAULT);
    assert_int_equal(out.r[UREG_RSI], r.r[UREG_RSI] + 8);
    assert_int_equal(out.r[UREG_RCX], 2);

    cleanup(buf_deinit) struct buf rows = {0};
    assert_ok(worker_take_rows(w, &rows, NULL, NULL));
    static const struct access_row wanted[] = {
        {.kind = LOAD_REP, .addr = DATA + 0x100, .size = 10},
        {.kind = STORE_REP, .addr = DATA + 0x1000, .size = 10},
        {.kind = LOAD_PLAIN, .addr = DATA + 0x205, .size = 1},
        {.kind = LOAD_REP, .addr = DATA + DATA_LEN - 8, .size = 8},
        {.kind = STORE_REP, .addr = DATA + 0x1000, .size = 8}};
    const struct access_row *x = (const struct access_row *)(void *)rows.data;
    assert_int_equal(rows.len, sizeof(wanted));
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        assert_int_equal(x[i].kind, wanted[i].kind);
        assert_int_equal(x[i].addr, wanted[i].addr);
        assert_int_equal(x[i].size, wanted[i].size);
    }
    worker_destroy(w);
}

/* --- hooks --- */

static void hook_test(bool keep_last, size_t max_rows, size_t rows_wanted, uint64_t first_rcx)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    const struct hook_memory memory[] = {
        {.base = 0xff, .len = 5, .offset = DATA + 3},
        {.base = UREG_RSP, .deref = 1, .len = 8, .offset = 8, .offset2 = -2},
        {.base = 0xff, .len = 8, .offset = 0x500000},
    };
    gaddr pcs[] = {CODE + 7, DATA}, pointer = DATA + 2;
    assert_ok(worker_write(w, DATA, "0123456789", 10));
    assert_ok(worker_write(w, SP + 8, &pointer, 8));
    struct hook_request q = {.pcs = pcs,
                             .pc_count = 2,
                             .memory = memory,
                             .memory_count = 3,
                             .regs = true,
                             .max_rows = max_rows,
                             .keep_last = keep_last};
    assert_ok(worker_set_hooks(w, &q));
    assert_ok(worker_set_icount(w, 5, 100));
    struct regs r = at_start();
    struct engine_result stop = run(w, ENGINE_COUNT, &r, UINT64_MAX, NULL);
    assert_int_equal(stop.reason, max_rows && !keep_last ? STOP_CONSUMER : STOP_SYSCALL);
    cleanup(buf_deinit) struct buf rows = {0};
    assert_ok(worker_take_hook_rows(w, &rows));
    struct hit {
        struct hook_row row;
        uint8_t data[24];
    };
    const struct hit *hit = (const struct hit *)(void *)rows.data;
    assert_int_equal(rows.len, rows_wanted * sizeof(*hit));
    for (size_t i = 0; i < rows_wanted; i++, hit++) {
        uint64_t rcx = first_rcx - i;
        assert_int_equal(hit->row.stamp, 5);
        assert_int_equal(hit->row.icount, 100 + 2 * (1000 - rcx));
        assert_int_equal(hit->row.regs.r[UREG_RCX], rcx);
        assert_int_equal(hit->row.regs.r[UREG_RIP], CODE + 7);
        assert_int_equal(hit->row.data_len, 24);
        assert_int_equal(hit->row.unreadable, 4);
        assert_memory_equal(hit->data,
                            "34567\0\0\0"
                            "01234567\0\0\0\0\0\0\0\0",
                            24);
    }
    worker_destroy(w);
}

TEST(a_hook_captures_registers_and_memory_at_each_hit)
{
    hook_test(false, 0, 1000, 999);
}

TEST(hooks_end_the_run_when_there_are_enough_rows)
{
    hook_test(false, 7, 7, 999);
}

TEST(hooks_keep_the_last_rows)
{
    hook_test(true, 7, 7, 6);
}

TEST(a_hit_is_captured_once_when_runs_end_and_begin_there)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    gaddr pc = CODE + 7;
    struct hook_request q = {.pcs = &pc, .pc_count = 1};
    assert_ok(worker_set_hooks(w, &q));
    struct regs r = at_start();
    uint64_t icount = 0;
    for (;;) {
        assert_ok(worker_set_icount(w, 1, icount));
        struct engine_result stop = run(w, ENGINE_COUNT, icount ? NULL : &r, 3, NULL);
        icount += stop.icount;
        if (stop.reason == STOP_SYSCALL)
            break;
    }
    assert_int_equal(icount, 2001);
    cleanup(buf_deinit) struct buf rows = {0};
    assert_ok(worker_take_hook_rows(w, &rows));
    assert_int_equal(rows.len, 1000 * sizeof(struct hook_row));
    worker_destroy(w);
}

TEST(a_hit_at_the_start_is_captured_again_for_those_who_ask_again)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    gaddr pc = CODE;
    const struct hook_request q = {.pcs = &pc, .pc_count = 1}, none = {0};
    for (int i = 0; i < 2; i++) {
        assert_ok(worker_set_hooks(w, &q));
        assert_ok(worker_set_icount(w, 1, 0));
        struct regs r = at_start();
        assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, NULL).reason, STOP_SYSCALL);
        cleanup(buf_deinit) struct buf rows = {0};
        assert_ok(worker_take_hook_rows(w, &rows));
        assert_int_equal(rows.len, sizeof(struct hook_row));
        assert_ok(worker_set_hooks(w, &none));
    }
    worker_destroy(w);
}

TEST(hooks_and_breaks_do_not_disturb_each_other)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    gaddr hook = CODE + 7, breaks[] = {CODE + 5, CODE + 7};
    struct hook_request q = {.pcs = &hook, .pc_count = 1};
    assert_ok(worker_set_hooks(w, &q));
    assert_ok(worker_set_breaks(w, breaks, 2, NULL));
    struct regs r = at_start();
    uint64_t icount = 0, stops = 0;
    for (;;) {
        assert_ok(worker_set_icount(w, 1, icount));
        struct engine_result stop = run(w, ENGINE_COUNT, stops ? NULL : &r, UINT64_MAX, NULL);
        icount += stop.icount;
        if (stop.reason == STOP_SYSCALL)
            break;
        assert_int_equal(stop.reason, STOP_BREAK);
        stops++;
    }
    assert_int_equal(stops, 2000);
    assert_int_equal(icount, 2001);
    cleanup(buf_deinit) struct buf rows = {0};
    assert_ok(worker_take_hook_rows(w, &rows));
    assert_int_equal(rows.len, 1000 * sizeof(struct hook_row));
    worker_destroy(w);
}

/* What two hooks with programs gave: CODE + 5 before and CODE + 7 after RCX is counted down, 1000
 * times each. */
struct printed {
    struct hook_row row;
    struct hook_print first;
    uint64_t number;
    struct hook_print second;
    char text[16];
};

static struct worker *with_hooked(const struct hook_programs *at_5,
                                  const struct hook_programs *at_7, struct hook_request q,
                                  struct buf *rows)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    const gaddr pcs[] = {CODE + 7, CODE + 5};
    const struct hook_programs *programs[] = {at_7, at_5};
    static const uint32_t lens[] = {8, 16};
    q.pcs = pcs;
    q.programs = programs;
    q.pc_count = 2;
    q.print_lens = lens;
    q.print_count = at_7 && at_7->prints ? 2 : 0;
    q.regs = true;
    assert_ok(worker_write(w, DATA, "abc", 4));
    assert_ok(worker_set_hooks(w, &q));
    assert_ok(worker_set_icount(w, 5, 100));
    struct regs r = at_start();
    assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, NULL).reason,
                     q.max_rows && !q.keep_last ? STOP_CONSUMER : STOP_SYSCALL);
    assert_ok(worker_take_hook_rows(w, rows));
    assert_int_equal(rows->len % worker_hook_row_len(&q), 0);
    return w;
}

#define PROGRAM(NAME)                                        \
    {                                                        \
        .ops = NAME, .count = sizeof(NAME) / sizeof(NAME[0]) \
    }
#define OP(...)             \
    {                       \
        .code = __VA_ARGS__ \
    }

TEST(a_condition_chooses_hits_and_prints_tell_of_them)
{
    // rcx & 255 == 7, or it fails: 10 / (rcx - 500) >= 0
    static const struct program_op seven[] = {OP(PROGRAM_REGISTER, .arg = UREG_RCX),
                                              OP(PROGRAM_CUT, .size = 1),
                                              OP(PROGRAM_PUSH, .imm = 7),
                                              OP(PROGRAM_EQ),
                                              OP(PROGRAM_PUSH, .imm = 10),
                                              OP(PROGRAM_REGISTER, .arg = UREG_RCX),
                                              OP(PROGRAM_PUSH, .imm = 500),
                                              OP(PROGRAM_SUB),
                                              OP(PROGRAM_DIV_S),
                                              OP(PROGRAM_DROP),
                                              OP(PROGRAM_END)};
    // 3 * rcx, into the output; and a string, or nothing where RCX is 7
    static const struct program_op triple[] = {OP(PROGRAM_REGISTER, .arg = UREG_RCX),
                                               OP(PROGRAM_PUSH, .imm = 3),
                                               OP(PROGRAM_MUL),
                                               OP(PROGRAM_COPY),
                                               OP(PROGRAM_OUT, .size = 8),
                                               OP(PROGRAM_END)};
    static const struct program_op text[] = {OP(PROGRAM_REGISTER, .arg = UREG_RCX),
                                             OP(PROGRAM_PUSH, .imm = 7),
                                             OP(PROGRAM_EQ),
                                             OP(PROGRAM_JUMP_ZERO, .imm = 2),
                                             OP(PROGRAM_PUSH, .imm = 0x10),
                                             OP(PROGRAM_JUMP, .imm = 1),
                                             OP(PROGRAM_PUSH, .imm = DATA),
                                             OP(PROGRAM_OUT_STRING, .imm = 16),
                                             OP(PROGRAM_END)};
    struct program prints[] = {PROGRAM(triple), PROGRAM(text)}, none[2] = {0};
    prints[0].out_len = 8;
    prints[1].out_len = 16;
    const struct hook_programs at_5 = {.prints = none, .condition = PROGRAM(seven)},
                               at_7 = {.prints = prints, .condition = PROGRAM(seven)};
    cleanup(buf_deinit) struct buf rows = {0};
    struct worker *w = with_hooked(&at_5, &at_7, (struct hook_request){0}, &rows);
    const struct printed *p = (const void *)rows.data;
    static const uint64_t rcx[] = {775, 519, 500, 263, 7};
    assert_int_equal(rows.len, 2 * 5 * sizeof(*p));
    for (size_t i = 0; i < 10; i++, p++) { // RCX is counted down to it, and then still is it
        assert_int_equal(p->row.regs.r[UREG_RCX], rcx[i / 2]);
        assert_int_equal(p->row.regs.r[UREG_RIP], i % 2 ? CODE + 5 : CODE + 7);
        assert_int_equal(p->row.condition, rcx[i / 2] == 500 ? PROGRAM_DIVIDED : PROGRAM_OK);
        assert_int_equal(p->first.end, i % 2 ? PROGRAM_UNKNOWN : PROGRAM_OK);
        assert_int_equal(p->first.result, i % 2 ? 0 : 3 * rcx[i / 2]);
        assert_int_equal(p->number, p->first.result);
        bool unreadable = i % 2 == 0 && rcx[i / 2] == 7;
        assert_int_equal(p->second.end, i % 2        ? PROGRAM_UNKNOWN
                                        : unreadable ? PROGRAM_FAULT
                                                     : PROGRAM_OK);
        assert_int_equal(p->second.result, unreadable ? 0x10 : 0);
        assert_memory_equal(p->text, i % 2 || unreadable ? "\0\0\0" : "abc", 4);
    }
    struct hook_counts counts;
    assert_ok(worker_hook_counts(w, &counts));
    assert_int_equal(counts.hits, 2000);
    assert_int_equal(counts.held, 8);
    assert_int_equal(counts.failed, 2);
    worker_destroy(w);
}

static const struct program_op below_10[] = {OP(PROGRAM_REGISTER, .arg = UREG_RCX),
                                             OP(PROGRAM_PUSH, .imm = 10), OP(PROGRAM_LT_U),
                                             OP(PROGRAM_END)};

TEST(only_hits_that_are_kept_count_against_a_limit)
{
    const struct hook_programs below = {.condition = PROGRAM(below_10)};
    cleanup(buf_deinit) struct buf first = {0}, last = {0}, none = {0};
    worker_destroy(with_hooked(NULL, &below, (struct hook_request){.max_rows = 1002},
                               &first)); // 991 before the first that holds
    assert_int_equal(((const struct hook_row *)(void *)first.data)[1001].regs.r[UREG_RCX], 4);
    worker_destroy(with_hooked(&below, &below,
                               (struct hook_request){.max_rows = 3, .keep_last = true}, &last));
    assert_int_equal(last.len, 3 * sizeof(struct hook_row));
    assert_int_equal(((const struct hook_row *)(void *)last.data)->regs.r[UREG_RCX],
                     1); // 1 behind the count, 1, and 0
    struct worker *w = with_hooked(NULL, &below, (struct hook_request){.count_only = true}, &none);
    struct hook_counts counts;
    assert_ok(worker_hook_counts(w, &counts));
    assert_int_equal(none.len, 0);
    assert_int_equal(counts.hits, 2000);
    assert_int_equal(counts.held, 1010);
    worker_destroy(w);
}

TEST(programs_see_vectors_and_memory_whatever_its_protection_but_not_the_worker)
{
    static const uint8_t code[] = {0x66, 0x0f, 0x6f, 0x0f,
                                   0x90, 0x0f, 0x05}; // movdqa xmm1, [rdi]; nop; syscall
    struct worker *w = with_program(code, sizeof(code));
    assert_ok(worker_write(w, DATA, "0123456789abcdef", 16));
    struct regs r = at_start();
    r.r[UREG_RDI] = DATA;
    static const struct program_op vector[] = {OP(PROGRAM_VECTOR, .arg = 1, .size = 4, .imm = 6),
                                               OP(PROGRAM_END)},
                                   upper[] = {OP(PROGRAM_VECTOR, .arg = 1, .size = 8, .imm = 16),
                                              OP(PROGRAM_END)},
                                   hidden[] = {OP(PROGRAM_PUSH, .imm = DATA + PAGE_SIZE + 2),
                                               OP(PROGRAM_LOAD, .size = 2), OP(PROGRAM_END)},
                                   beyond[] = {OP(PROGRAM_PUSH, .imm = DATA + 3),
                                               OP(PROGRAM_OUT_MEMORY, .imm = 13), OP(PROGRAM_PUSH),
                                               OP(PROGRAM_LOAD, .size = 8), OP(PROGRAM_END)};
    struct program prints[] = {PROGRAM(vector), PROGRAM(upper), PROGRAM(hidden), PROGRAM(beyond)};
    prints[3].out_len = 13;
    static const uint32_t lens[] = {0, 0, 0, 16};
    const struct hook_programs programs = {.prints = prints}, *each = &programs;
    gaddr pc = CODE + 4;
    struct hook_request q = {
        .pcs = &pc, .pc_count = 1, .programs = &each, .print_lens = lens, .print_count = 4};
    assert_ok(worker_map(w, DATA + PAGE_SIZE, DATA + 2 * PAGE_SIZE, 3, MAP_KIND_ANON, -1, 0));
    assert_ok(worker_write(w, DATA + PAGE_SIZE, "wxyz", 4));
    assert_ok(worker_protect(w, DATA + PAGE_SIZE, DATA + 2 * PAGE_SIZE, 0));
    assert_ok(worker_set_hooks(w, &q));
    assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, NULL).reason, STOP_SYSCALL);
    cleanup(buf_deinit) struct buf rows = {0};
    assert_ok(worker_take_hook_rows(w, &rows));
    assert_int_equal(rows.len, worker_hook_row_len(&q));
    const struct hook_print *p = (const void *)(rows.data + sizeof(struct hook_row));
    assert_int_equal(p[0].end, PROGRAM_OK);
    assert_int_equal(p[0].result, 0x39383736);
    assert_int_equal(p[1].end, PROGRAM_OK); // AVX2 is needed anyway
    assert_int_equal(p[1].result, 0);
    assert_int_equal(p[2].end, PROGRAM_OK);
    assert_int_equal(p[2].result, 'z' << 8 | 'y');
    assert_int_equal(p[3].end, PROGRAM_FAULT);
    assert_int_equal(p[3].result, 0);
    assert_memory_equal(p + 4, "3456789abcdef\0\0\0", 16);
    worker_destroy(w);
}

TEST(programs_that_are_no_good_are_refused)
{
    struct worker *w = with_program(count_down, sizeof(count_down));
    static const struct program_op endless[] = {OP(PROGRAM_PUSH)},
                                   long_out[] = {OP(PROGRAM_PUSH), OP(PROGRAM_OUT_MEMORY, .imm = 9),
                                                 OP(PROGRAM_END)};
    struct program print = PROGRAM(long_out);
    print.out_len = 9;
    const struct hook_programs bad = {.condition = PROGRAM(endless)}, much = {.prints = &print},
                               *each[] = {&bad, &much};
    gaddr pc = CODE;
    static const uint32_t len = 8;
    expect_err(
        worker_set_hooks(w, &(struct hook_request){.pcs = &pc, .pc_count = 1, .programs = each}),
        ERR_USAGE);
    expect_err(worker_set_hooks(w, &(struct hook_request){.pcs = &pc,
                                                          .pc_count = 1,
                                                          .programs = each + 1,
                                                          .print_lens = &len,
                                                          .print_count = 1}),
               ERR_USAGE);
    worker_destroy(w);
}

/* --- confinement, life and death --- */

TEST(a_forbidden_system_call_ends_the_worker_and_nothing_else)
{
    // read, write, open, fork, execve, kill, ptrace, process_vm_*, sockets, mounts, namespaces,
    // bpf, io_uring...; clone other than the one that is allowed, which probing makes without
    // arguments; and the x32 numbers of calls that are allowed
    static const uint64_t forbidden[] = {0,
                                         1,
                                         2,
                                         18,
                                         29,
                                         30,
                                         39,
                                         41,
                                         42,
                                         44,
                                         46,
                                         49,
                                         56,
                                         57,
                                         58,
                                         59,
                                         61,
                                         62,
                                         86,
                                         90,
                                         101,
                                         105,
                                         154,
                                         155,
                                         157,
                                         158,
                                         161,
                                         165,
                                         169,
                                         175,
                                         200,
                                         234,
                                         257,
                                         272,
                                         298,
                                         303,
                                         304,
                                         308,
                                         310,
                                         311,
                                         312,
                                         313,
                                         317,
                                         319,
                                         320,
                                         321,
                                         322,
                                         323,
                                         424,
                                         425,
                                         428,
                                         434,
                                         435,
                                         437,
                                         438,
                                         439,
                                         450,
                                         1ull << 30,
                                         1ull << 30 | 9,
                                         1ull << 30 | 10,
                                         100000};
    for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
        struct worker *w = new_worker();
        expect_err(worker_probe(w, forbidden[i]), ERR_OS);
        expect_err(worker_set_icount(w, 0, 0), ERR_OS);
        worker_destroy(w);
    }
}

TEST(a_worker_that_is_killed_gives_an_error)
{
    struct worker *w = with_program(for_ever, sizeof(for_ever));
    kill(worker_pid(w), SIGKILL);
    struct err *e = worker_drop_task(w, 0);
    assert_non_null(e);
    assert_int_equal(err_kind(e), ERR_OS);
    assert_non_null(strstr(err_message(e), "worker died"));
    err_free(e);
    expect_err(worker_read(w, CODE, (char[1]){0}, 1, NULL), ERR_OS);
    worker_destroy(w);
}

/* True if the process is gone (or a zombie that waits for init) within a second. */
static bool gone(int pid)
{
    for (int i = 0; i < 100; i++) {
        char path[64], state = 'Z';
        snprintf(path, sizeof(path), "/proc/%d/stat", pid);
        FILE *f = fopen(path, "re");
        if (!f)
            return true;
        if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
            state = 'Z';
        fclose(f);
        if (state == 'Z' || state == 'X')
            return true;
        usleep(10000);
    }
    return false;
}

static void *run_for_ever(void *w)
{
    struct regs r = at_start();
    struct engine_request q = {.max_icount = UINT64_MAX};
    struct engine_result result;
    err_free(worker_run(w, 0, &q, &r, &result, NULL));
    return NULL;
}

TEST(no_worker_outlives_its_coordinator)
{
    int ends[2], pids[4];
    assert_int_equal(pipe(ends), 0);
    int coordinator = fork();
    if (coordinator == 0) {
        struct worker *w[4];
        pthread_t thread;
        for (int i = 0; i < 2; i++) {
            w[i] = with_program(for_ever, sizeof(for_ever));
            assert_ok(worker_fork(w[i], &w[2 + i]));
            pids[i] = worker_pid(w[i]);
            pids[2 + i] = worker_pid(w[2 + i]);
        }
        pthread_create(&thread, NULL, run_for_ever, w[1]);
        pthread_create(&thread, NULL, run_for_ever, w[3]);
        usleep(20000);
        if (write(ends[1], pids, sizeof(pids)) < 0)
            _exit(1);
        pause();
    }
    assert_int_equal(read(ends[0], pids, sizeof(pids)), sizeof(pids));
    kill(coordinator, SIGKILL);
    waitpid(coordinator, NULL, 0);
    for (int i = 0; i < 4; i++)
        assert_true(gone(pids[i]));
    close(ends[0]);
    close(ends[1]);
}

static void *create_one(void *out)
{
    *(struct worker **)out = with_program(count_down, sizeof(count_down));
    return NULL;
}

TEST(a_worker_outlives_the_thread_that_created_it)
{
    struct worker *w;
    pthread_t thread;
    pthread_create(&thread, NULL, create_one, &w);
    pthread_join(thread, NULL);
    usleep(20000);
    struct regs r = at_start();
    assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, NULL).icount, 2001);
    worker_destroy(w);
}

TEST(signals_for_the_coordinator_do_not_reach_its_workers)
{
    assert_true(setpgid(0, 0) == 0 || getpgrp() == getpid());
    struct worker *w = with_program(count_down, sizeof(count_down));
    signal(SIGINT, SIG_IGN);
    kill(0, SIGINT);
    signal(SIGINT, SIG_DFL);
    usleep(10000);
    struct regs r = at_start();
    assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, NULL).icount, 2001);
    worker_destroy(w);
}

TEST(workers_find_room_among_many_mappings)
{
    enum { COUNT = 3000 };
    static struct addr_range ranges[COUNT];
    for (uint64_t i = 0; i < COUNT; i++) {
        ranges[i].start = i < 8 ? 0x400000 + i * 0x8000000 : 0x100000000ull + i * 0xa00000000ull;
        ranges[i].end = ranges[i].start + 0x100000;
    }
    struct worker *w;
    assert_ok(worker_create(ranges, COUNT, &w));
    for (uint64_t i = 0; i < COUNT; i++) // the worker's own memory is in none of them
        assert_ok(worker_map(w, ranges[i].start, ranges[i].end, PROT_READ | PROT_EXEC,
                             MAP_KIND_ANON, -1, 0));
    for (uint64_t i = 0; i < COUNT; i += 250) {
        assert_ok(worker_write(w, ranges[i].start, count_down, sizeof(count_down)));
        struct regs r = at_start();
        r.r[UREG_RIP] = ranges[i].start;
        assert_int_equal(run(w, ENGINE_COUNT, &r, UINT64_MAX, NULL).icount, 2001);
    }
    worker_destroy(w);
    static const struct addr_range all = {0x10000, 0x7ffffffff000};
    expect_err(worker_create(&all, 1, &w), ERR_UNSUPPORTED);
}

TEST(the_index_finds_room_among_pages_everywhere)
{
    enum { COUNT = 64 };
    static struct addr_range ranges[COUNT];
    for (uint64_t i = 0; i < COUNT; i++) {
        ranges[i].start = i ? i << 41 : CODE;
        ranges[i].end = ranges[i].start + PAGE_SIZE;
    }
    // movabs [2 << 41], al; syscall
    static const uint8_t code[] = {0x48, 0xa3, 0, 0, 0, 0, 0, 4, 0, 0, 0x0f, 0x05};
    struct worker *w;
    assert_ok(worker_create(ranges, COUNT, &w));
    for (int i = 0; i < COUNT; i++)
        assert_ok(worker_map(w, ranges[i].start, ranges[i].end, RWX, MAP_KIND_ANON, -1, 0));
    assert_ok(worker_write(w, CODE, code, sizeof(code)));
    struct regs r = at_start();
    assert_int_equal(run(w, ENGINE_INDEX, &r, UINT64_MAX, NULL).icount, 1);
    cleanup(buf_deinit) struct buf counts = {0}, pages = {0};
    assert_ok(worker_take_index(w, &counts, &pages));
    assert_int_equal(pages.len, sizeof(struct written_page));
    const struct written_page *p = (const struct written_page *)(void *)pages.data;
    assert_int_equal(p->page, 2ull << 41);
    assert_int_equal(p->granules[0], 1);
    worker_destroy(w);
}

/* --- speed: worker_test bench --- */

static int bench(void)
{
    double t = now();
    struct worker *w = with_program(count_down, sizeof(count_down)), *copy;
    printf("first worker   %8.0f us\n", 1e6 * (now() - t));
    struct worker *more[20];
    t = now();
    for (int i = 0; i < 20; i++)
        more[i] = new_worker();
    printf("worker_create  %8.0f us\n", 1e6 / 20 * (now() - t));
    t = now();
    for (int i = 0; i < 20; i++)
        worker_destroy(more[i]);
    printf("worker_destroy %8.0f us\n", 1e6 / 20 * (now() - t));
    struct regs r = at_start(), out;
    run(w, ENGINE_COUNT, &r, UINT64_MAX, &out);
    t = now();
    for (int i = 0; i < 100; i++) {
        assert_ok(worker_fork(w, &copy));
        worker_destroy(copy);
    }
    printf("fork, destroy  %8.0f us\n", 1e6 / 100 * (now() - t));
    t = now();
    for (int i = 0; i < 20000; i++)
        run(w, ENGINE_COUNT, &r, 5, &out);
    printf("run of 5 insns %8.2f us\n", 1e6 / 20000 * (now() - t));
    t = now();
    for (int i = 0; i < 20000; i++)
        assert_ok(worker_set_icount(w, 0, 0));
    printf("round trip     %8.2f us\n", 1e6 / 20000 * (now() - t));

    assert_ok(worker_write(w, CODE, many_writes, sizeof(many_writes)));
    uint64_t insns = 0;
    t = now();
    for (int i = 0; i < 200; i++)
        insns += run(w, ENGINE_INDEX, &r, UINT64_MAX, &out).icount;
    printf("index          %8.2f ns/insn (3 insns, 1 store a block)\n",
           1e9 * (now() - t) / (double)insns);
    cleanup(buf_deinit) struct buf a = {0}, b = {0};
    t = now();
    for (int i = 0; i < 10; i++) {
        run(w, ENGINE_INDEX, &r, 1000, &out);
        assert_ok(worker_take_index(w, &a, &b));
    }
    printf("small index    %8.0f us\n", 1e6 / 10 * (now() - t));
    struct addr_range range = {DATA + 8, DATA + 16};
    struct consume_request watch = {.watch = &range, .watch_count = 1};
    assert_ok(worker_consume(w, &watch));
    insns = 0;
    t = now();
    for (int i = 0; i < 200; i++)
        insns += run(w, ENGINE_LOG, &r, UINT64_MAX, &out).icount;
    printf("watch          %8.2f ns/insn\n", 1e9 * (now() - t) / (double)insns);

    gaddr pc = CODE + 12;
    struct hook_memory memory = {.base = 0xff, .offset = DATA, .len = 8};
    struct hook_request hooks = {.pcs = &pc,
                                 .pc_count = 1,
                                 .memory = &memory,
                                 .memory_count = 1,
                                 .regs = true,
                                 .max_rows = 1000,
                                 .keep_last = true};
    assert_ok(worker_set_hooks(w, &hooks));
    t = now();
    for (int i = 0; i < 20; i++)
        run(w, ENGINE_COUNT, &r, UINT64_MAX, &out);
    printf("hook hit       %8.0f ns\n", 1e9 * (now() - t) / 20 / 100000);
    // [DATA] == 12345678
    static const struct program_op never[] = {OP(PROGRAM_PUSH, .imm = DATA),
                                              OP(PROGRAM_LOAD, .size = 4),
                                              OP(PROGRAM_EXTEND, .size = 4),
                                              OP(PROGRAM_PUSH, .imm = 12345678),
                                              OP(PROGRAM_EQ),
                                              OP(PROGRAM_END)};
    const struct hook_programs condition = {.condition = PROGRAM(never)}, *each = &condition;
    hooks.programs = &each;
    assert_ok(worker_set_hooks(w, &hooks));
    t = now();
    for (int i = 0; i < 20; i++)
        run(w, ENGINE_COUNT, &r, UINT64_MAX, &out);
    printf("false condition%8.0f ns\n", 1e9 * (now() - t) / 20 / 100000);
    worker_destroy(w);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "bench") == 0)
        return bench();
    const struct CMUnitTest tests[] = {
        t(a_run_stops_at_the_system_call_with_exact_counts),
        t(a_run_stops_at_the_instruction_asked_for),
        t(a_fault_is_told_with_its_address_and_the_memory_can_be_mapped_then),
        t(new_code_is_run_after_a_write_and_after_a_mapping),
        t(vector_state_belongs_to_the_task),
        t(vector_state_with_bits_that_no_processor_has_does_no_harm),
        t(memory_is_read_and_written_whatever_its_protection),
        t(absent_memory_comes_when_it_is_touched),
        t(a_large_array_comes_in_large_pieces_to_its_end),
        t(a_snapshot_keeps_absent_memory),
        t(a_snapshot_copies_no_arrays),
        t(pages_of_a_file_can_be_absent),
        t(absent_memory_that_the_kernel_does_not_withhold_is_an_error),
        t(memory_that_holds_nothing_goes_without_being_kept),
        t(what_a_program_wrote_before_the_first_snapshot_is_kept),
        t(absent_memory_that_cannot_be_read_is_an_error),
        t(writing_into_protected_memory_leaves_it_protected),
        t(a_snapshot_outlives_the_end_of_memory_that_came_after_the_first_one),
        t(a_snapshot_keeps_memory_that_was_there_before_it),
        t(instructions_that_not_both_cpus_have_are_not_executed),
        t(workers_share_a_memory_object),
        t(code_changes_with_the_same_memory_at_another_address),
        t(a_worker_s_own_memory_is_not_the_program_s),
        t(mappings_move_with_their_protections),
        t(a_page_of_code_can_be_written_after_it_was_moved),
        t(cpuid_is_answered_on_the_way_if_that_is_wanted),
        t(mappings_of_files_wait_with_their_descriptors),
        t(a_worker_guards_its_own_memory),
        t(a_worker_goes_on_by_itself_as_far_as_it_was_told),
        t(a_worker_that_was_sent_ahead_does_nothing_else),
        t(a_worker_that_was_sent_ahead_stops_at_the_limit),
        t(a_fork_goes_its_own_way),
        t(a_worker_leaves_no_zombie),
        t(the_index_counts_blocks_and_marks_what_was_written),
        t(rows_tell_when_and_where),
        t(a_run_ends_when_there_are_enough_rows),
        t(blocks_that_are_passed_over_have_rows_only_where_they_are_cut_short),
        t(hooks_tell_which_call_is_entered_and_returned_from),
        t(the_last_rows_are_kept),
        t(a_string_store_is_one_write_of_all_it_stored),
        t(reads_through_fs_and_gs_at_implied_registers_are_where_they_are),
        t(what_a_string_store_wrote_before_it_faulted_is_seen),
        t(a_hook_captures_registers_and_memory_at_each_hit),
        t(hooks_end_the_run_when_there_are_enough_rows),
        t(hooks_keep_the_last_rows),
        t(a_hit_is_captured_once_when_runs_end_and_begin_there),
        t(a_hit_at_the_start_is_captured_again_for_those_who_ask_again),
        t(hooks_and_breaks_do_not_disturb_each_other),
        t(a_condition_chooses_hits_and_prints_tell_of_them),
        t(only_hits_that_are_kept_count_against_a_limit),
        t(programs_see_vectors_and_memory_whatever_its_protection_but_not_the_worker),
        t(programs_that_are_no_good_are_refused),
        t(a_forbidden_system_call_ends_the_worker_and_nothing_else),
        t(a_worker_that_is_killed_gives_an_error),
        t(no_worker_outlives_its_coordinator),
        t(a_worker_outlives_the_thread_that_created_it),
        t(signals_for_the_coordinator_do_not_reach_its_workers),
        t(workers_find_room_among_many_mappings),
        t(the_index_finds_room_among_pages_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
