/* divert TRACE - stands in the middle of a recording and at its end, makes diversions of it and
 * does things there that were never recorded: the replay itself sees nothing of it and goes on to
 * its end. What is run are a few instructions, written over the program's, and system calls. */
#include "replay/diversion.h"
#include "state_hash.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static struct diversion *d;
static struct regs start; /* of the task, in each diversion */
static uint32_t task;
static char output[64];
static unsigned refusals;
static int64_t refused;

static void check(bool ok, const char *what)
{
    if (ok)
        return;
    printf("FAIL: %s\n", what);
    exit(1);
}

static void take_output(void *ctx, const void *data, size_t len)
{
    snprintf(output, sizeof(output), "%.*s", (int)len, (const char *)data);
}

static void take_refused(void *ctx, int64_t number)
{
    refusals++;
    refused = number;
}

/* Puts code where the task stands and runs it with these registers. */
static struct diversion_stop run(const void *code, size_t len, const struct regs *regs,
                                 uint64_t most, const gaddr *break_pc)
{
    struct diversion_request q = {.task = task,
                                  .breaks = break_pc,
                                  .break_count = break_pc != NULL,
                                  .max_icount = most,
                                  .output = take_output,
                                  .refused = take_refused};
    struct diversion_stop stop;
    must(diversion_write(d, task, start.r[UREG_RIP], code, len));
    must(diversion_set_regs(d, task, regs));
    must(diversion_run(d, &q, &stop));
    return stop;
}

/* Makes a system call, behind which there is an int3; its result. */
static int64_t call(int number, uint64_t a, uint64_t b, uint64_t c, uint64_t e,
                    enum diversion_why why)
{
    static const uint8_t code[] = {0x0f, 0x05, 0xcc};
    struct regs regs = start;
    regs.r[UREG_RAX] = (uint64_t)number;
    regs.r[UREG_RDI] = a;
    regs.r[UREG_RSI] = b;
    regs.r[UREG_RDX] = c;
    regs.r[UREG_R10] = e;
    struct diversion_stop stop = run(code, sizeof(code), &regs, 100, NULL);
    must(replay_regs(diversion_replay(d), task, &regs));
    check(stop.why == why, "how a system call ends");
    bool stays = why == DIVERSION_ENDS || why == DIVERSION_WAITS;
    check(stays || why == DIVERSION_SIGNAL, "a system call goes on");
    check(regs.r[UREG_RIP] - start.r[UREG_RIP] == (stays                    ? 0
                                                   : stop.signal == SIGTRAP ? 3
                                                                            : 2),
          "where the task stands behind a system call");
    return (int64_t)regs.r[UREG_RAX];
}

static void instructions(void)
{
    static const uint8_t forever[] = {0xeb, 0xfe}, nops[] = {0x90, 0x90, 0x90, 0x0f, 0x0b},
                         counter[] = {0x0f, 0x31, 0x90};
    struct regs after;
    struct diversion_stop stop = run(forever, sizeof(forever), &start, 12345, NULL);
    check(stop.why == DIVERSION_LIMIT && stop.icount == 12345, "a loop without end ends");
    gaddr third = start.r[UREG_RIP] + 2;
    stop = run(nops, sizeof(nops), &start, 100, &third);
    must(replay_regs(diversion_replay(d), task, &after));
    check(stop.why == DIVERSION_BREAK && stop.icount == 2 && after.r[UREG_RIP] == third, "a break");
    stop = run(nops, sizeof(nops), &start, 2, &third);
    check(stop.why == DIVERSION_BREAK, "a break right at the limit");
    stop = run(nops, sizeof(nops), &start, 100, NULL);
    check(stop.why == DIVERSION_SIGNAL && stop.signal == SIGILL && stop.icount == 3,
          "an instruction that faults");
    stop = run(counter, sizeof(counter), &start, 2, NULL);
    check(stop.why == DIVERSION_LIMIT && stop.icount == 2, "a trapped instruction");
}

static void memory(void)
{
    enum { ANON = MAP_PRIVATE | MAP_ANONYMOUS, LEN = 1 << 20 };
    struct replay *r = diversion_replay(d);
    size_t count, done;
    uint32_t space = replay_tasks(r, &count)[0].space;
    const struct addr_range *own = worker_own_range(replay_worker(r, space), 0, 1ull << 47);
    int64_t at = call(SYS_mmap, 0, LEN, PROT_READ | PROT_WRITE, ANON, DIVERSION_SIGNAL);
    check(at > 0 && !worker_own_range(replay_worker(r, space), (gaddr)at, (gaddr)at + LEN), "mmap");
    uint8_t byte = 42;
    must(diversion_write(d, task, (gaddr)at + LEN - 1, &byte, 1));
    byte = 0;
    must(replay_read(r, space, (gaddr)at + LEN - 1, &byte, 1, &done));
    check(byte == 42, "memory that was mapped keeps what is written");
    check(call(SYS_munmap, (gaddr)at, LEN, 0, 0, DIVERSION_SIGNAL) == 0, "munmap");
    struct err *e = diversion_write(d, task, (gaddr)at, &byte, 1);
    check(e && err_kind(e) == ERR_FAULT, "memory that was unmapped");
    err_free(e);
    check(call(SYS_mmap, 0, 1ull << 40, PROT_READ, ANON, DIVERSION_SIGNAL) == -ENOMEM,
          "too much memory");
    check(own && call(SYS_mmap, own->start, LEN, PROT_READ, ANON | MAP_FIXED, DIVERSION_SIGNAL) ==
                     -ENOMEM,
          "memory of the worker's own, mapped");
    check(call(SYS_munmap, own->start, LEN, 0, 0, DIVERSION_SIGNAL) == -EINVAL,
          "memory of the worker's own, unmapped");
    check(call(SYS_mprotect, own->start, LEN, 0, 0, DIVERSION_SIGNAL) == -ENOMEM,
          "memory of the worker's own, protected");
    check(call(SYS_munmap, 123, LEN, 0, 0, DIVERSION_SIGNAL) == -EINVAL, "munmap of no page");
    int64_t end = call(SYS_brk, 0, 0, 0, 0, DIVERSION_SIGNAL);
    if (end) {
        check(call(SYS_brk, (gaddr)end + 0x3010, 0, 0, 0, DIVERSION_SIGNAL) == end + 0x3010, "brk");
        must(diversion_write(d, task, (gaddr)end + 0x3000, &byte, 1));
        check(call(SYS_brk, 1ull << 46, 0, 0, 0, DIVERSION_SIGNAL) == end + 0x3010, "brk too far");
    }
}

static void others(void)
{
    gaddr sp = start.r[UREG_RSP] & ~15ull;
    must(diversion_write(d, task, sp, "words\n\1\0\0\0", 10));
    check(call(SYS_write, 1, sp, 6, 0, DIVERSION_SIGNAL) == 6 && strcmp(output, "words\n") == 0,
          "output");
    check(call(SYS_write, 2, 8, 6, 0, DIVERSION_SIGNAL) == -EFAULT, "output of nothing");
    check(refusals == 0, "what is answered is not refused");
    check(call(SYS_write, 3, sp, 6, 0, DIVERSION_SIGNAL) == -ENOSYS && refusals == 1 &&
              refused == SYS_write,
          "a write to elsewhere");
    check(call(SYS_open, sp, 0, 0, 0, DIVERSION_SIGNAL) == -ENOSYS && refusals == 2 &&
              refused == SYS_open,
          "open");
    check(call(SYS_socket, 1, 1, 0, 0, DIVERSION_SIGNAL) == -ENOSYS && refusals == 3, "socket");
    check(call(SYS_futex, sp + 6, 0 /* FUTEX_WAIT */, 2, 0, DIVERSION_SIGNAL) == -EAGAIN,
          "a futex that has changed");
    (void)!call(SYS_futex, sp + 6, 0, 1, 0, DIVERSION_WAITS);
    (void)!call(SYS_exit_group, 0, 0, 0, 0, DIVERSION_ENDS);
    int64_t pid = call(SYS_getpid, 0, 0, 0, 0, DIVERSION_SIGNAL);
    check(call(SYS_kill, (uint64_t)pid, SIGUSR1, 0, 0, DIVERSION_SIGNAL) == 0, "kill");
    check(call(SYS_kill, (uint64_t)pid + 1, SIGUSR1, 0, 0, DIVERSION_SIGNAL) == -ENOSYS,
          "kill of others");
}

/* Changes all memory that can be written but the page where the task stands. */
static void scribble(struct replay *r)
{
    size_t count, map_count;
    const uint32_t *spaces = replay_spaces(diversion_replay(d), &count);
    const struct mapping *maps = replay_mappings(r, spaces[0], &map_count);
    for (size_t i = 0; i < map_count; i++) {
        if (maps[i].prot & PROT_WRITE) {
            static const uint64_t word = 0x5a5a5a5a5a5a5a5a;
            must(diversion_write(d, task, maps[i].start, &word, sizeof(word)));
        }
    }
}

static void at(struct replay *r)
{
    uint64_t before = state_hash(r);
    task = replay_running(r);
    check(task, "a task runs");
    must(replay_regs(r, task, &start));
    void (*const things[])(void) = {instructions, memory, others};
    for (size_t i = 0; i < ARRAY_COUNT(things); i++) {
        refusals = 0;
        must(diversion_begin(r, &d));
        check(state_hash(diversion_replay(d)) != 0, "a diversion can be looked at");
        things[i]();
        scribble(r);
        diversion_end(d);
        check(state_hash(r) == before, "the replay has changed");
    }
}

int main(int argc, char **argv)
{
    struct trace *t;
    struct replay *r;
    bool stopped;
    if (argc != 2)
        return 2;
    must(trace_open(argv[1], &t));
    must(replay_open(t, &r));
    must(replay_run(r, MOMENT_END, UINT64_MAX, &stopped));
    uint64_t total = replay_icount_total(r), last = state_hash(r);
    replay_close(r);

    must(replay_open(t, &r));
    for (uint64_t part = 1; part < 4; part++) {
        must(replay_run(r, MOMENT_END, total * part / 4 - replay_icount_total(r), &stopped));
        at(r);
    }
    must(replay_run(r, MOMENT_END, UINT64_MAX, &stopped));
    check(replay_icount_total(r) == total && state_hash(r) == last, "the replay ends as ever");
    replay_close(r);
    trace_close(t);
    return 0;
}
