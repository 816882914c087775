/* The engine in an ordinary process: functions of this program and of libc run on the bare CPU and
 * under the engine. */
#include "worker/engine.h"
#include "x86/xstate.h"

#include "base/buf.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/test.h"
#include "worker/calls.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- hosting the engine --- */

void engine_host_fatal(const char *message)
{
    fprintf(stderr, "engine: %s\n", message);
    abort();
}

void engine_host_before_flush(void)
{
}

void engine_host_begun(const struct block_info *b, unsigned begun)
{
}

uint64_t engine_host_alias(uint64_t page, uint64_t behind)
{
    return 0;
}

bool engine_host_fetch(uint64_t addr)
{
    return false;
}

struct addr_range engine_host_region(uint64_t addr)
{
    return (struct addr_range){addr & ~0xfffffull, (addr | 0xfffff) + 1};
}

void *engine_host_alloc(size_t len)
{
    void *p =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        abort();
    return p;
}

static struct {
    uint64_t start, end;
    int prot;
} maps[256];
static size_t map_count;

static void read_maps(void)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512], prot[5];
    map_count = 0;
    while (f && fgets(line, sizeof(line), f) && map_count < 256) {
        unsigned long long start, end;
        if (sscanf(line, "%llx-%llx %4s", &start, &end, prot) != 3)
            continue;
        maps[map_count].start = start;
        maps[map_count].end = end;
        maps[map_count++].prot =
            (prot[0] == 'r' ? 1 : 0) | (prot[1] == 'w' ? 2 : 0) | (prot[2] == 'x' ? 4 : 0);
    }
    if (f)
        fclose(f);
}

int engine_host_prot(uint64_t addr)
{
    for (size_t i = 0; i < map_count; i++) {
        if (addr >= maps[i].start && addr < maps[i].end)
            return maps[i].prot;
    }
    return -1;
}

static uint8_t *guest_stack, *code; /* code: RWX scratch */
enum { STACK_LEN = 1 << 20, CODE_LEN = 1 << 16 };
static struct engine_task task;

/* Writes into the code area as the host of an engine has to: translations of it go first. */
static void put_code(size_t off, const void *bytes, size_t len)
{
    mprotect(code, CODE_LEN,
             engine_filter_prot((uint64_t)(uintptr_t)code, CODE_LEN,
                                PROT_READ | PROT_WRITE | PROT_EXEC));
    memcpy(code + off, bytes, len);
}

static int set_up(void **state __attribute__((unused)))
{
    static struct engine_layout layout;
    layout.low_area = 0x20000000;
    layout.low_area_len = ENGINE_LOW_AREA_LEN;
    layout.log_area = 0x200000000000;
    static const struct addr_range used = {PAGE_SIZE, 0x7ffffffff000};
    layout.used = &used;
    layout.used_count = 1;
    layout.shadow_base = 0x100000000000;
    layout.shadow_fd = memfd_create("marks", 0);
    if (ftruncate(layout.shadow_fd, ENGINE_SHADOW_LEN) != 0)
        return -1;
    uint64_t near_here = ((uint64_t)(uintptr_t)&set_up & ~0xfffffffull) - 0x30000000;
    uint64_t near_libc = ((uint64_t)(uintptr_t)&qsort & ~0xfffffffull) - 0x30000000;
    layout.cache_areas[0] = (struct addr_range){near_here, near_here + 0x8000000};
    layout.cache_areas[1] = (struct addr_range){near_libc, near_libc + 0x8000000};
    layout.cache_areas[2] = (struct addr_range){0x300000000000, 0x300010000000};
    layout.cache_area_count = 3;
    guest_stack = mmap(NULL, STACK_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    code = mmap(NULL, CODE_LEN, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                0);
    engine_init(&layout);
    read_maps();
    put_code(CODE_LEN - 2, "\x0f\x05", 2);
    return 0;
}

/* Prepares a call of `function`; it returns to a system call instruction, which ends the run. */
static void prepare(const void *function, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    engine_install_handlers(); // cmocka takes the signals for each test
    uint64_t sp = (uint64_t)(uintptr_t)guest_stack + STACK_LEN - 4096 - 8, fs, gs;
    uint64_t back = (uint64_t)(uintptr_t)code + CODE_LEN - 2;
    memcpy((void *)(uintptr_t)sp, &back, 8);
    syscall(SYS_arch_prctl, 0x1003, &fs);
    syscall(SYS_arch_prctl, 0x1004, &gs);
    engine_task_gone(&task);
    memset(&task.regs, 0, sizeof(task.regs));
    task.xstate_valid = false;
    task.regs.r[UREG_RDI] = a;
    task.regs.r[UREG_RSI] = b;
    task.regs.r[UREG_RDX] = c;
    task.regs.r[UREG_RCX] = d;
    task.regs.r[UREG_RSP] = sp;
    task.regs.r[UREG_RIP] = (uint64_t)(uintptr_t)function;
    task.regs.r[UREG_EFLAGS] = 0x246;
    task.regs.r[UREG_FS_BASE] = fs;
    task.regs.r[UREG_GS_BASE] = gs;
}

static struct engine_result go(enum engine_mode mode, uint64_t max_icount)
{
    struct engine_request q = {.mode = mode, .max_icount = max_icount};
    struct engine_result r;
    engine_run(&task, &q, &r);
    engine_sync_xstate(&task);
    return r;
}

#define GUEST __attribute__((noinline, noclone))

/* --- guests --- */

static int compare_ints(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return x < y ? -1 : x > y;
}

GUEST static uint64_t guest_sort(uint64_t seed, uint64_t count)
{
    static int v[1000];
    for (uint64_t i = 0; i < count; i++)
        v[i] = (int)(seed = seed * 6364136223846793005u + 1442695040888963407u) >> 4;
    qsort(v, count, sizeof(v[0]), compare_ints);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++)
        sum = sum * 31 + (unsigned)v[i];
    return sum;
}

GUEST static uint64_t guest_print(uint64_t seed, char *out)
{
    int n = 0;
    for (int i = 0; i < 20; i++)
        n += sprintf(out + n, "%d %s %.6g %llx;", i, i & 1 ? "odd" : "even", (double)seed / (i + 1),
                     (unsigned long long)seed * i);
    return (uint64_t)n + strlen(out) + (strstr(out, "odd 3") != NULL);
}

TEST(a_function_of_libc_gives_the_same_result)
{
    uint64_t want = guest_sort(42, 1000);
    prepare(guest_sort, 42, 1000, 0, 0);
    struct engine_result r = go(ENGINE_COUNT, UINT64_MAX);
    assert_int_equal(r.reason, STOP_SYSCALL);
    assert_true(task.regs.r[UREG_RAX] == want);
    prepare(guest_sort, 42, 1000, 0, 0);
    struct engine_result l = go(ENGINE_LOG, UINT64_MAX);
    assert_int_equal(l.reason, STOP_SYSCALL);
    assert_true(task.regs.r[UREG_RAX] == want);
    assert_true(l.icount == r.icount);
    assert_true(l.ticks == r.ticks);
}

TEST(floating_point_and_strings_give_the_same_result)
{
    static char a[8192], b[8192];
    uint64_t want = guest_print(123456789, a);
    for (int mode = 0; mode < ENGINE_MODES; mode++) {
        memset(b, 0, sizeof(b));
        prepare(guest_print, 123456789, (uint64_t)(uintptr_t)b, 0, 0);
        struct engine_result r = go(mode, UINT64_MAX);
        assert_int_equal(r.reason, STOP_SYSCALL);
        assert_true(task.regs.r[UREG_RAX] == want);
        assert_string_equal(a, b);
    }
}

TEST(a_run_in_pieces_adds_up_and_passes_through_the_same_states)
{
    prepare(guest_sort, 7, 50, 0, 0);
    struct engine_result whole = go(ENGINE_COUNT, UINT64_MAX);
    uint64_t result = task.regs.r[UREG_RAX];
    static const uint64_t pieces[] = {1, 2, 3, 7, 64, 65, 129, 1000, 4096};
    static uint64_t rips[1 << 20];
    for (size_t p = 0; p < sizeof(pieces) / sizeof(pieces[0]); p++) {
        for (int mode = 0; mode < ENGINE_MODES; mode++) {
            prepare(guest_sort, 7, 50, 0, 0);
            uint64_t icount = 0, ticks = 0;
            for (;;) {
                struct engine_result r = go(mode, pieces[p]);
                icount += r.icount;
                ticks += r.ticks;
                if (p == 0 && mode == 0)
                    rips[icount] = task.regs.r[UREG_RIP] * 31 + task.regs.r[UREG_RSP] +
                                   task.regs.r[UREG_EFLAGS];
                else
                    assert_true(rips[icount] == task.regs.r[UREG_RIP] * 31 + task.regs.r[UREG_RSP] +
                                                    task.regs.r[UREG_EFLAGS]);
                if (r.reason != STOP_LIMIT)
                    break;
                assert_true(r.icount == pieces[p]);
            }
            assert_true(icount == whole.icount);
            assert_true(ticks == whole.ticks);
            assert_true(task.regs.r[UREG_RAX] == result);
        }
    }
}

TEST(a_stop_at_a_tick_is_right_behind_the_branch)
{
    prepare(guest_sort, 7, 50, 0, 0);
    struct engine_result whole = go(ENGINE_COUNT, UINT64_MAX);
    for (uint64_t tick = 1; tick < whole.ticks; tick += 37) {
        prepare(guest_sort, 7, 50, 0, 0);
        struct engine_request q = {
            .mode = ENGINE_COUNT, .max_icount = UINT64_MAX, .use_ticks = true, .stop_ticks = tick};
        struct engine_result r;
        engine_run(&task, &q, &r);
        engine_sync_xstate(&task);
        assert_int_equal(r.reason, STOP_TICKS);
        assert_true(r.ticks == tick);
        // One instruction fewer has one tick fewer.
        uint64_t icount = r.icount;
        prepare(guest_sort, 7, 50, 0, 0);
        r = go(ENGINE_COUNT, icount - 1);
        assert_true(r.ticks == tick - 1);
    }
}

TEST(a_break_stops_in_front_of_the_instruction_each_time)
{
    uint64_t pc = (uint64_t)(uintptr_t)compare_ints;
    prepare(guest_sort, 7, 50, 0, 0);
    struct engine_result whole = go(ENGINE_COUNT, UINT64_MAX);
    engine_set_breaks(&pc, 1);
    prepare(guest_sort, 7, 50, 0, 0);
    uint64_t icount = 0, hits = 0;
    struct engine_result r;
    while ((r = go(ENGINE_COUNT, UINT64_MAX)).reason == STOP_BREAK) {
        assert_true(task.regs.r[UREG_RIP] == pc);
        icount += r.icount;
        hits++;
    }
    assert_true(icount + r.icount == whole.icount);
    assert_in_range(hits, 150, 400);
    engine_set_breaks(NULL, 0);
    prepare(guest_sort, 7, 50, 0, 0);
    r = go(ENGINE_COUNT, UINT64_MAX);
    assert_int_equal(r.reason, STOP_SYSCALL);
    assert_true(r.icount == whole.icount);
}

TEST(a_fault_leaves_the_exact_state_in_front_of_the_instruction)
{
    static const uint8_t program[] = {
        0x49, 0xc7, 0xc7, 0x11, 0, 0, 0, // mov r15, 0x11
        0x49, 0xc7, 0xc6, 0x22, 0, 0, 0, // mov r14, 0x22
        0x48, 0xc7, 0xc0, 0x33, 0, 0, 0, // mov rax, 0x33
        0x4f, 0x89, 0x3c, 0x3e,          // mov [r14 + r15], r15: faults
        0x48, 0x31, 0xc0,                // xor rax, rax
        0x0f, 0x05,
    };
    put_code(0, program, sizeof(program));
    for (int mode = 0; mode < ENGINE_MODES; mode++) {
        prepare(code, 0, 0, 0, 0);
        struct engine_result r = go(mode, UINT64_MAX);
        assert_int_equal(r.reason, STOP_FAULT);
        assert_int_equal(r.signo, 11);
        assert_true(r.fault_addr == 0x33);
        assert_int_equal(r.icount, 3);
        assert_true(task.regs.r[UREG_RIP] == (uint64_t)(uintptr_t)code + 21);
        assert_true(task.regs.r[UREG_RAX] == 0x33);
        assert_true(task.regs.r[UREG_R14] == 0x22);
        assert_true(task.regs.r[UREG_R15] == 0x11);
    }
}

TEST(code_that_writes_itself_runs_what_it_wrote)
{
    static const uint8_t program[] = {
        0xb9, 3,    0,    0,    0, // mov ecx, 3
        0x31, 0xc0,                // xor eax, eax
        0x83, 0xc0, 0x01,          // again: add eax, 1   <- its immediate is doubled each time
        0x8a, 0x15, 0xf9, 0xff, 0xff, 0xff, // mov dl, [the immediate]
        0x00, 0xd2,                         // add dl, dl
        0x88, 0x15, 0xf1, 0xff, 0xff, 0xff, // mov [the immediate], dl
        0xff, 0xc9,                         // dec ecx
        0x75, 0xeb,                         // jnz again
        0x0f, 0x05,
    };
    for (int mode = 0; mode < ENGINE_MODES; mode++) {
        put_code(0, program, sizeof(program));
        prepare(code, 0, 0, 0, 0);
        struct engine_result r = go(mode, UINT64_MAX);
        assert_int_equal(r.reason, STOP_SYSCALL);
        assert_int_equal(task.regs.r[UREG_RAX], 1 + 2 + 4);
        assert_int_equal(r.icount, 2 + 3 * 6);
        assert_int_equal(r.ticks, 3);
    }
}

static uint64_t logged_stores, logged_insns;
static bool count_stores(void *ctx, const uint8_t *log, size_t len, uint64_t icount,
                         uint32_t last_insns)
{
    const uint8_t *end = log + len;
    while (log < end) {
        uint32_t idx;
        memcpy(&idx, log, 4);
        const struct block_info *b = engine_block(idx);
        log += 8;
        for (unsigned i = 0; i < b->access_count; i++) {
            uint64_t addr;
            memcpy(&addr, log, 8);
            log += b->accesses[i].kind == STORE_REP ? 16 : 8;
            logged_stores +=
                addr >= (uint64_t)(uintptr_t)ctx && addr < (uint64_t)(uintptr_t)ctx + 8000;
        }
        logged_insns += b->insn_count;
    }
    return true;
}

GUEST static void guest_store(volatile uint64_t *v)
{
    for (uint64_t i = 0; i < 100000; i++)
        v[i % 1000] = i;
}

TEST(the_log_has_every_store_and_every_instruction)
{
    static uint64_t v[1000];
    engine_set_consumer(count_stores, v);
    logged_stores = logged_insns = 0;
    prepare(guest_store, (uint64_t)(uintptr_t)v, 0, 0, 0);
    struct engine_result r = go(ENGINE_LOG, UINT64_MAX);
    engine_set_consumer(NULL, NULL);
    assert_int_equal(r.reason, STOP_SYSCALL);
    assert_int_equal(logged_stores, 100000);
    assert_int_equal(logged_insns, r.icount);
}

static uint64_t marked, counted;
static void count_marks(uint64_t page, const uint64_t granules[8])
{
    for (int i = 0; i < 8; i++)
        marked += (uint64_t)__builtin_popcountll(granules[i]);
}

static void count_insns(const struct block_info *b, uint64_t count)
{
    counted += count * b->insn_count;
}

TEST(the_index_has_every_granule_and_every_instruction)
{
    static uint64_t v[1000];
    engine_take_marks(NULL);
    engine_take_counts(NULL);
    prepare(guest_store, (uint64_t)(uintptr_t)v, 0, 0, 0);
    struct engine_result r = go(ENGINE_INDEX, UINT64_MAX);
    assert_int_equal(r.reason, STOP_SYSCALL);
    marked = counted = 0;
    engine_take_marks(count_marks);
    engine_take_counts(count_insns);
    assert_int_equal(marked, 1000);
    assert_int_equal(counted, r.icount);
    engine_take_marks(count_marks);
    engine_take_counts(count_insns);
    assert_int_equal(marked, 1000);
}

GUEST static uint64_t guest_recurse(uint64_t n)
{
    if (n == 0) {
        __asm__ volatile("rdpmc" ::: "rax", "rdx", "memory"); // a place to stop at
        return 1;
    }
    uint64_t result = guest_recurse(n - 1);
    __asm__ volatile("" : "+r"(result)); // no loop, please
    return result + (n & 1);
}

/* setjmp and longjmp as a libc has them: a jump to the saved place, with RSP set back. */
static jmp_buf place;
__attribute__((noipa)) static void guest_leave(void)
{
    longjmp(place, 1);
}

GUEST static void guest_deep(uint64_t n)
{
    volatile uint64_t room[32];
    room[n % 32] = n;
    if (n)
        guest_deep(n - 1);
    else
        guest_leave();
    room[0]++;
}

GUEST static uint64_t guest_jumps(uint64_t n)
{
    if (!setjmp(place))
        guest_deep(n);
    return guest_recurse(3);
}

static size_t depth(void)
{
    calls_normalise(task.calls);
    return calls_count(task.calls);
}

static void check_recursion(enum engine_mode mode)
{
    engine_task_gone(&task);
    prepare(guest_recurse, 50, 0, 0, 0);
    struct engine_result r = go(mode, UINT64_MAX);
    assert_int_equal(r.reason, STOP_TRAP);
    assert_int_equal(depth(), 50);
    // The entries' return addresses are on the stack where they say.
    for (size_t i = 1; i <= depth(); i++) {
        const struct call_entry *e = &task.calls->entries[i];
        uint64_t on_stack;
        memcpy(&on_stack, (const void *)(uintptr_t)e->sp, 8);
        assert_true(on_stack == e->return_addr);
        assert_true(i == 1 || e->sp < e[-1].sp);
        assert_true(i == 1 || e->time > e[-1].time);
    }
    task.regs.r[UREG_RIP] += r.insn_len;
    r = go(mode, UINT64_MAX);
    assert_int_equal(r.reason, STOP_SYSCALL);
    assert_int_equal(task.regs.r[UREG_RAX], 26);
    assert_int_equal(depth(), 0);
}

TEST(the_stack_of_calls_is_what_has_not_returned)
{
    for (int mode = ENGINE_CALLS; mode <= ENGINE_INDEX; mode++)
        check_recursion((enum engine_mode)mode);
}

TEST(calls_that_longjmp_left_are_not_on_the_stack)
{
    for (int mode = ENGINE_CALLS; mode <= ENGINE_INDEX; mode++) {
        engine_task_gone(&task);
        prepare(guest_jumps, 20, 0, 0, 0);
        struct engine_result r = go((enum engine_mode)mode, UINT64_MAX);
        assert_int_equal(r.reason, STOP_TRAP);
        assert_int_equal(depth(), 4);
    }
}

TEST(calls_mode_marks_and_counts_nothing)
{
    static uint64_t v[1000];
    engine_take_marks(NULL);
    engine_take_counts(NULL);
    prepare(guest_store, (uint64_t)(uintptr_t)v, 0, 0, 0);
    struct engine_result r = go(ENGINE_CALLS, UINT64_MAX);
    assert_int_equal(r.reason, STOP_SYSCALL);
    marked = counted = 0;
    engine_take_marks(count_marks);
    engine_take_counts(count_insns);
    assert_int_equal(marked + counted, 0);
    prepare(guest_store, (uint64_t)(uintptr_t)v, 0, 0, 0);
    assert_int_equal(go(ENGINE_COUNT, UINT64_MAX).icount, r.icount);
}

TEST(a_match_is_found_within_a_repeated_string_instruction)
{
    static const uint8_t program[] = {0xfc, 0xf3, 0xaa, 0x0f, 0x05}; // cld; rep stosb; syscall
    static uint8_t out[200];
    put_code(0, program, sizeof(program));
    prepare(code, (uint64_t)(uintptr_t)out, 0, 0, 100);
    task.regs.r[UREG_RAX] = 7;
    struct engine_request q = {
        .mode = ENGINE_COUNT, .max_icount = UINT64_MAX, .use_match = true, .match = task.regs};
    q.match.r[UREG_RIP]++;
    q.match.r[UREG_RCX] = 60;
    q.match.r[UREG_RDI] += 40;
    struct engine_result r;
    engine_run(&task, &q, &r);
    engine_sync_xstate(&task);
    assert_int_equal(r.reason, STOP_MATCH);
    assert_int_equal(r.icount, 1);
    assert_int_equal(task.regs.r[UREG_RCX], 60);
    assert_int_equal(out[39], 7);
    assert_int_equal(out[40], 0);
    r = go(ENGINE_COUNT, UINT64_MAX);
    assert_int_equal(r.icount, 1);
    assert_int_equal(out[99], 7);
    assert_int_equal(out[100], 0);
}

/* What the x87 unit did last, shown in all ways. RDI: where to. */
void x87_guest(void);
extern const char x87_first[], x87_second[], x87_third[];
extern const double x87_number, x87_zero;
__asm__(".pushsection .rodata\n"
        ".align 8\n"
        "x87_number: .double 1.5\n"
        "x87_zero: .double 0\n"
        "x87_divides: .short 0x37b\n" // raises division by zero
        ".popsection\n"
        ".text\n"
        ".type x87_guest, @function\n"
        "x87_guest:\n"
        "    fninit\n"
        "x87_first:\n"
        "    fldl x87_number(%rip)\n"
        "    fnstsw %ax\n"
        "    fnstenv (%rdi)\n"
        "    fninit\n"
        "    fnstenv 0x40(%rdi)\n"
        "    fldl x87_number(%rip)\n"
        "x87_second:\n"
        "    fstpl -8(%rsp)\n"
        "    fnstenv 0x80(%rdi)\n"
        "    fxsave64 0x400(%rdi)\n"
        "    fxsave64 0x600(%rdi)\n"
        "    movabs $0x123456789abc, %rax\n"
        "    mov %rax, 0x608(%rdi)\n"
        "    movq $0x456789, 0x610(%rdi)\n"
        "    fxrstor64 0x600(%rdi)\n"
        "    fnsave 0xc0(%rdi)\n"
        "    fnstenv 0x140(%rdi)\n"
        "    fldcw x87_divides(%rip)\n"
        "    fld1\n"
        "x87_third:\n"
        "    fdivl x87_zero(%rip)\n"
        "    fxsave64 0x600(%rdi)\n"
        "    fnclex\n"
        "    fnstenv 0x180(%rdi)\n"
        "    fninit\n"
        "    ret\n"
        ".type x87_faults, @function\n"
        "x87_faults:\n"
        "    fninit\n"
        "    fldcw x87_divides(%rip)\n"
        "    fldz\n"
        "    fld1\n"
        "x87_fourth:\n"
        "    fdiv %st(1), %st\n"
        "x87_waits:\n"
        "    fld1\n"
        "    fld1\n"
        "    ret\n");
void x87_faults(void);
extern const char x87_fourth[], x87_waits[];

/* FIP, FCS, FOP, FDP, FDS of an environment. */
static void expect_environment(const uint8_t *env, const void *pc, unsigned opcode,
                               const void *data, unsigned cs, unsigned ds)
{
    assert_int_equal(load_u32(env + 12), (uint32_t)(uintptr_t)pc);
    assert_int_equal(load_u16(env + 16), cs);
    assert_int_equal(load_u16(env + 18), opcode);
    assert_int_equal(load_u32(env + 20), (uint32_t)(uintptr_t)data);
    assert_int_equal(load_u16(env + 24), ds);
}

static void expect_image(const uint8_t *image, const void *pc, unsigned opcode, const void *data)
{
    assert_int_equal(load_u16(image + 6), opcode);
    assert_int_equal(load_u64(image + 8), (uint64_t)(uintptr_t)pc);
    assert_int_equal(load_u64(image + 16), (uint64_t)(uintptr_t)data);
}

static void expect_x87(const uint8_t *out, const struct engine_isa *isa)
{
    bool every = !isa->x87_data_of_exceptions;
    unsigned cs = isa->x87_no_selectors ? 0 : 0x33, ss = isa->x87_no_selectors ? 0 : 0x2b;
    const uint8_t *top = guest_stack + STACK_LEN - 4096 - 16, *none = NULL;
    expect_environment(out, x87_first, every ? 0x505 : 0, every ? &x87_number : NULL, cs, 0);
    expect_environment(out + 0x40, none, 0, none, 0, 0);
    expect_environment(out + 0x80, x87_second, every ? 0x55c : 0, every ? top : none, cs,
                       every ? ss : 0);
    if (isa->x87_saves_pending)
        expect_image(out + 0x400, none, 0, none);
    else
        expect_image(out + 0x400, x87_second, every ? 0x55c : 0, every ? top : none);
    assert_int_equal(load_u32(out + 0xc0 + 12), 0x56789abc);
    assert_int_equal(load_u32(out + 0xc0 + 20), 0x456789);
    expect_environment(out + 0x140, none, 0, none, 0, 0);
    expect_image(out + 0x600, x87_third, 0x435, &x87_zero);
    expect_environment(out + 0x180, x87_third, 0x435, &x87_zero, cs, 0);
}

TEST(the_x87_unit_shows_the_programs_own_last_instruction)
{
    static uint8_t out[0x800] __attribute__((aligned(64)));
    static const struct engine_isa cpus[] = {
        {.x87_saves_pending = true},
        {.xcr0 = 0},
        {.x87_data_of_exceptions = true, .x87_no_selectors = true}};
    for (size_t i = 0; i < sizeof(cpus) / sizeof(cpus[0]); i++) {
        engine_set_isa(&cpus[i]);
        for (int mode = 0; mode < ENGINE_MODES; mode++) {
            for (uint64_t piece = 1; piece <= 1000; piece *= 1000) {
                engine_memory_changed((uint64_t)(uintptr_t)x87_guest & ~0xfffull, 2 * PAGE_SIZE);
                memset(out, 0xcc, sizeof(out));
                prepare(x87_guest, (uint64_t)(uintptr_t)out, 0, 0, 0);
                struct engine_result r;
                do
                    r = go(mode, piece);
                while (r.reason == STOP_LIMIT);
                assert_int_equal(r.reason, STOP_SYSCALL);
                expect_x87(out, &cpus[i]);
            }
        }
    }
    engine_set_isa(&cpus[1]);
}

TEST(what_the_x87_unit_did_last_is_in_images_until_it_is_cleared)
{
    static uint8_t out[0x800] __attribute__((aligned(64)));
    prepare(x87_guest, (uint64_t)(uintptr_t)out, 0, 0, 0);
    struct engine_result r = go(ENGINE_COUNT, 2);
    assert_int_equal(r.reason, STOP_LIMIT);
    expect_image(task.xstate, x87_first, 0x505, &x87_number);
    engine_clear_x87(&task);
    r = go(ENGINE_COUNT, 2);
    expect_environment(out, NULL, 0, NULL, 0, 0);
}

/* Vector state of which each component has bytes of its own. */
static void fill_vectors(uint8_t image[XSTATE_MAX])
{
    static const uint16_t lens[] = {[XSTATE_AVX] = 256,
                                    [XSTATE_OPMASK] = 64,
                                    [XSTATE_ZMM_HI256] = 512,
                                    [XSTATE_HI16_ZMM] = 1024};
    memset(image, 0, XSTATE_MAX);
    memcpy(image, (const uint8_t[]){0x7f, 2}, 2); // not its initial value
    memcpy(image + 24, (const uint8_t[]){0x80, 0x1f}, 2);
    memset(image + 160, 1, 256);
    for (unsigned i = 2; i < sizeof(lens) / sizeof(lens[0]); i++)
        memset(image + xstate_offset(i), (int)i, lens[i]);
    image[512] = 0xe7;
}

static void expect_bytes(const uint8_t *at, int value, size_t len)
{
    for (size_t i = 0; i < len; i++)
        assert_int_equal(at[i], value);
}

/* Runs one instruction of 4 bytes with the vector state given, NULL: the initial one, and RDI:
 * `out`, EAX: all ones. */
static struct engine_result go_with_vectors(const char *bytes, const uint8_t *vectors, uint8_t *out,
                                            enum engine_mode mode)
{
    put_code(0, bytes, 4);
    put_code(4, "\x0f\x05", 2);
    prepare(code, (uint64_t)(uintptr_t)out, 0, 0, 0);
    if (vectors)
        memcpy(task.xstate, vectors, XSTATE_MAX);
    task.xstate_valid = vectors != NULL;
    task.regs.r[UREG_RAX] = UINT32_MAX;
    return go(mode, UINT64_MAX);
}

/* What the program saves with this instruction is where the recording's CPU has it, and can be
 * restored from there. */
static void check_images(const char *bytes, bool compacted, const struct engine_isa *cpu,
                         enum engine_mode mode)
{
    enum { VECTORS = 0xe7 };
    static const struct engine_component compact[ENGINE_COMPONENTS] = {
        [2] = {576, 256}, [5] = {832, 64}, [6] = {896, 512}, [7] = {1408, 1024}};
    const struct engine_component *c = compacted ? compact : cpu->components;
    static uint8_t out[XSTATE_MAX] __attribute__((aligned(64))), vectors[XSTATE_MAX];
    memset(out, 0xcc, sizeof(out));
    memset(out + 512, 0, 64);
    fill_vectors(vectors);
    struct engine_result r = go_with_vectors(bytes, vectors, out, mode);
    if (!compacted && cpu->xcr0 >> ENGINE_COMPONENTS) { // 8 KiB of tiles would be written
        assert_int_equal(r.reason, STOP_UNSUPPORTED);
        return;
    }
    assert_int_equal(r.reason, STOP_SYSCALL);
    expect_bytes(out + 160, 1, 256);
    size_t end = 576;
    for (unsigned i = 2; i < ENGINE_COMPONENTS; i++) {
        if (!(cpu->xcr0 & VECTORS & 1u << i))
            continue;
        expect_bytes(out + c[i].offset, (int)i, c[i].size);
        end = c[i].offset + c[i].size;
    }
    if (cpu->xcr0 >> XSTATE_PKRU & 1)
        end = compacted ? end + 4 : c[XSTATE_PKRU].offset + 4;
    expect_bytes(out + end, 0xcc, sizeof(out) - end);
    const uint64_t header[2] = {cpu->xcr0 & (VECTORS | 1 << XSTATE_PKRU),
                                compacted ? 1ull << 63 | cpu->xcr0 : 0};
    assert_memory_equal(out + 512, header, sizeof(header));
    assert_memory_equal(out + 28, &cpu->mxcsr_mask, 4);

    r = go_with_vectors("\x48\x0f\xae\x2f", NULL, out, mode); // xrstor64 [rdi]
    assert_int_equal(r.reason, STOP_SYSCALL);
    assert_memory_equal(task.xstate + 160, vectors + 160, 256);
    for (unsigned i = 2; i < ENGINE_COMPONENTS; i++) {
        if (cpu->xcr0 & VECTORS & 1u << i)
            assert_memory_equal(task.xstate + xstate_offset(i), vectors + xstate_offset(i),
                                c[i].size);
    }
}

TEST(images_that_the_program_saves_have_the_layout_of_the_recordings_cpu)
{
    enum { ALL = 0x2e7, TILES = 0x60000 };
    static const struct engine_component intel
        [] = {[2] = {576, 256},
              [5] = {1088, 64},
              [6] = {1152, 512},
              [7] = {1664, 1024},
              [9] = {2688, 8}},
   amd[] = {
       [2] = {576, 256}, [5] = {832, 64}, [6] = {896, 512}, [7] = {1408, 1024}, [9] = {2432, 8}};
    static const struct {
        uint64_t xcr0;
        const struct engine_component *components;
    } cpus[] = {{ALL, intel}, {ALL, amd}, {7, intel}, {ALL | TILES, intel}};
    for (size_t i = 0; i < sizeof(cpus) / sizeof(cpus[0]); i++) {
        for (int emulates = !__builtin_cpu_supports("avx512bw"); emulates < 2; emulates++) {
            struct engine_isa cpu = {.xcr0 = cpus[i].xcr0,
                                     .emulates_xsave = true,
                                     .emulates_avx512 = emulates,
                                     .mxcsr_mask = 0x2ffff};
            memcpy(cpu.components, cpus[i].components, sizeof(cpu.components));
            engine_set_isa(&cpu);
            for (int mode = 0; mode < ENGINE_MODES; mode++) {
                check_images("\x48\x0f\xae\x27", false, &cpu,
                             (enum engine_mode)mode); // xsave64 [rdi]
                check_images("\x48\x0f\xc7\x27", true, &cpu,
                             (enum engine_mode)mode); // xsavec64 [rdi]
            }
        }
    }
    engine_set_isa(&(struct engine_isa){.xcr0 = 0});
}

TEST(the_x87_instruction_that_raised_an_exception_is_known_when_the_next_one_faults)
{
    for (int mode = 0; mode < ENGINE_MODES; mode++) {
        for (uint64_t piece = 1; piece <= 1000; piece *= 1000) {
            prepare(x87_faults, 0, 0, 0, 0);
            struct engine_result r;
            do
                r = go(mode, piece);
            while (r.reason == STOP_LIMIT);
            assert_int_equal(r.reason, STOP_FAULT);
            assert_int_equal(r.signo, SIGFPE);
            assert_true(task.regs.r[UREG_RIP] == (uint64_t)(uintptr_t)x87_waits);
            expect_image(task.xstate, x87_fourth, 0x0f1, NULL);
        }
    }
}

/* A far return, an IRET that sets flags and RSP, and a far jump, to code below 4 GiB. RDI: where;
 * RAX: 3 if all of them happened. */
void far_guest(void);
__asm__(".text\n"
        ".type far_guest, @function\n"
        "far_guest:\n"
        "    xor %eax, %eax\n"
        "    push $0x33\n"
        "    lea 1f(%rip), %rdx\n"
        "    push %rdx\n"
        "    lretq\n"
        "    ud2\n"
        "1:  inc %eax\n"
        "    mov %rsp, %rcx\n"
        "    push $0x2b\n"
        "    push %rcx\n"
        "    push $0xad5\n" // with CF, PF, AF, ZF, SF, OF
        "    push $0x33\n"
        "    lea 2f(%rip), %rdx\n"
        "    push %rdx\n"
        "    iretq\n"
        "    ud2\n"
        "2:  pushf\n"
        "    pop %rsi\n"
        "    sub %rsp, %rcx\n"
        "    inc %eax\n"
        "    movabs $0x3300000000, %rdx\n"
        "    or %rdi, %rdx\n"
        "    mov %rdx, -8(%rsp)\n"
        "    ljmp *-8(%rsp)\n"
        "    ud2\n");

TEST(far_branches_within_the_code_segment_are_made)
{
    uint8_t *low = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    assert_true(low != MAP_FAILED);
    memcpy(low, "\xff\xc0\xc3", 3); // inc eax; ret
    read_maps();
    for (int mode = 0; mode < ENGINE_MODES; mode++) {
        for (uint64_t piece = 1; piece <= 1000; piece *= 1000) {
            prepare(far_guest, (uint64_t)(uintptr_t)low, 0, 0, 0);
            struct engine_result r;
            uint64_t icount = 0;
            do {
                r = go(mode, piece);
                icount += r.icount;
            } while (r.reason == STOP_LIMIT);
            assert_int_equal(r.reason, STOP_SYSCALL);
            assert_int_equal(icount, 24);
            assert_int_equal(task.regs.r[UREG_RAX], 3);
            assert_int_equal(task.regs.r[UREG_RCX], 0);
            assert_int_equal(task.regs.r[UREG_RSI], 0xad7);
        }
    }
    munmap(low, PAGE_SIZE);
}

/* Sets the flags in RDI, leaves the engine's code by an indirect jump, loads from RSI, and returns
 * the flags. */
void flags_guest(void);
__asm__(".text\n"
        ".type flags_guest, @function\n"
        "flags_guest:\n"
        "    push %rdi\n"
        "    popf\n"
        "    lea 1f(%rip), %rdx\n"
        "    jmp *%rdx\n"
        "    ud2\n"
        "1:  mov (%rsi), %ecx\n"
        "    pushf\n"
        "    pop %rax\n"
        "    push $0x202\n"
        "    popf\n"
        "    ret\n");

enum { ID = 1 << 21, AC = 1 << 18, NT = 1 << 14 };

/* Is NT still set when an interrupt has been handled? In some virtual machines it is not: then no
 * program can rely on it. Long enough for several ticks of a clock of 100 Hz. */
static bool machine_keeps_nt(void)
{
    uint64_t flags, start = now_ms();
    do {
        __asm__ volatile("sub $128, %%rsp\n"
                         "pushf\n"
                         "orq %1, (%%rsp)\n"
                         "popf\n"
                         "mov $1000000, %%ecx\n"
                         "1: dec %%ecx\n"
                         "jnz 1b\n"
                         "pushf\n"
                         "pop %0\n"
                         "pushf\n"
                         "andq %2, (%%rsp)\n"
                         "popf\n"
                         "add $128, %%rsp"
                         : "=&r"(flags)
                         : "i"(NT), "i"(~NT)
                         : "rcx", "cc", "memory");
    } while (flags & NT && now_ms() - start < 50);
    return flags & NT;
}

TEST(flags_that_programs_seldom_set_are_kept_and_do_no_harm)
{
    const uint64_t kept = machine_keeps_nt() ? UINT64_MAX : ~(uint64_t)NT;
    static const uint64_t flags[] = {ID | 0x202, NT | 0x203, AC | 0x202, AC | ID | NT | 0xad7};
    static char aligned[16] __attribute__((aligned(16)));
    read_maps();
    for (int mode = 0; mode < ENGINE_MODES; mode++) {
        for (size_t i = 0; i < 2 * ARRAY_COUNT(flags); i++) {
            uint64_t set = flags[i % ARRAY_COUNT(flags)] & kept,
                     piece = i < ARRAY_COUNT(flags) ? UINT64_MAX : 1;
            for (uint64_t off = 0; off < 2; off++) { // 1: what alignment checking refuses
                prepare(flags_guest, set, (uint64_t)(uintptr_t)aligned + off, 0, 0);
                struct engine_result r;
                do
                    r = go(mode, piece);
                while (r.reason == STOP_LIMIT);
                if (off && set & AC) {
                    assert_int_equal(r.reason, STOP_FAULT);
                    assert_int_equal(r.signo, SIGBUS);
                    assert_int_equal(task.regs.r[UREG_EFLAGS], set);
                } else {
                    assert_int_equal(r.reason, STOP_SYSCALL);
                    assert_int_equal(task.regs.r[UREG_RAX], set);
                }
            }
        }
    }
}

TEST(a_far_branch_that_cannot_be_made_changes_nothing)
{
    static const struct {
        uint8_t code[16];
        enum stop_reason reason;
    } cases[] = {
        {"\x6a\x23\x6a\x00\x48\xcb", STOP_UNSUPPORTED},   // push 0x23: 32-bit code; push 0; lretq
        {"\x6a\x33\x6a\x00\x31\xe4\x48\xcb", STOP_FAULT}, // xor esp, esp; lretq
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        put_code(64 * i, cases[i].code, sizeof(cases[i].code));
        prepare(code + 64 * i, 0, 0, 0, 0);
        struct engine_result r = go(ENGINE_COUNT, UINT64_MAX);
        assert_int_equal(r.reason, cases[i].reason);
        assert_int_equal(r.icount, 2 + i);
        assert_true(task.regs.r[UREG_RIP] == (uint64_t)(uintptr_t)code + 64 * i + 4 + 2 * i);
        assert_int_equal(r.fault_addr, 0);
        if (r.reason == STOP_FAULT)
            assert_int_equal(r.si_code, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        t(a_function_of_libc_gives_the_same_result),
        t(floating_point_and_strings_give_the_same_result),
        t(a_run_in_pieces_adds_up_and_passes_through_the_same_states),
        t(a_stop_at_a_tick_is_right_behind_the_branch),
        t(a_break_stops_in_front_of_the_instruction_each_time),
        t(a_fault_leaves_the_exact_state_in_front_of_the_instruction),
        t(code_that_writes_itself_runs_what_it_wrote),
        t(the_log_has_every_store_and_every_instruction),
        t(the_index_has_every_granule_and_every_instruction),
        t(the_stack_of_calls_is_what_has_not_returned),
        t(calls_that_longjmp_left_are_not_on_the_stack),
        t(calls_mode_marks_and_counts_nothing),
        t(a_match_is_found_within_a_repeated_string_instruction),
        t(far_branches_within_the_code_segment_are_made),
        t(flags_that_programs_seldom_set_are_kept_and_do_no_harm),
        t(a_far_branch_that_cannot_be_made_changes_nothing),
        t(the_x87_unit_shows_the_programs_own_last_instruction),
        t(images_that_the_program_saves_have_the_layout_of_the_recordings_cpu),
        t(the_x87_instruction_that_raised_an_exception_is_known_when_the_next_one_faults),
        t(what_the_x87_unit_did_last_is_in_images_until_it_is_cleared),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
