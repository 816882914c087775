/* hostile TRACE FIRST COUNT - replays a good recording COUNT times with some of its frames changed
 * at random, by seeds FIRST, FIRST + 1... Whatever a trace says, the replayer answers with an error
 * or gets through: it must not crash, fail an assertion or hang. Each case runs in a process of its
 * own. Prints the seeds that fail; exits 1 if there are any.
 *
 * Frames are changed between the trace's decoder, which has its own fuzzer, and the replayer
 * (changed_frames.h). */
#include "changed_frames.h"

#include "base/buf.h"
#include "base/random.h"
#include "replay/replay.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

enum { CASE_SECONDS = 60, MAX_INSTRUCTIONS = 20000000 };

static uint64_t random_state;
static event_no changed_event; /* the first frame to change; others follow */
static bool tell;

/* A number that may hurt: small, near a bound, near the old one, or any. */
static uint64_t strange(uint64_t old)
{
    static const uint64_t liked[] = {
        0,          1,          8,          0xfff,      0x1000,         0x10000,
        0x68000000, 0x70000000, 0x70000009, 0x70001000, 0x7fffffff,     0xffffffff,
        1ull << 46, 1ull << 47, 1ull << 62, 1ull << 63, UINT64_MAX - 1, UINT64_MAX};
    switch (next_random(&random_state) % 5) {
    case 0:
        return liked[next_random(&random_state) % (sizeof(liked) / sizeof(liked[0]))];
    case 1:
        return old + next_random(&random_state) % 17 - 8;
    case 2:
        return old ^ 1ull << next_random(&random_state) % 64;
    case 3:
        return old + (next_random(&random_state) % 9 - 4) * PAGE_SIZE;
    default:
        return next_random(&random_state);
    }
}

#define CHANGE(field) ((field) = (__typeof__(field))strange((uint64_t)(field)))

static void change_mmap(struct trace_mmap *m)
{
    switch (next_random(&random_state) % 8) {
    case 0:
        CHANGE(m->start);
        break;
    case 1:
        CHANGE(m->end);
        break;
    case 2:
        CHANGE(m->file_offset);
        break;
    case 3:
        CHANGE(m->stat_size);
        break;
    case 4:
        CHANGE(m->flags);
        break;
    case 5:
        CHANGE(m->prot);
        break;
    case 6:
        CHANGE(m->inode);
        break;
    default:
        m->source = m->backing_file ? (enum mmap_source)(next_random(&random_state) % 3)
                                    : (enum mmap_source)(next_random(&random_state) % 2);
    }
}

static void change_write(struct mem_write *w)
{
    switch (next_random(&random_state) % 3) {
    case 0:
        CHANGE(w->addr);
        break;
    case 1:
        CHANGE(w->tid);
        break;
    default:
        // Larger sizes would need data that is not there: that is for the decoder to refuse.
        if (!w->hole_count)
            w->size = w->size ? next_random(&random_state) % w->size : 0;
    }
}

static void change_syscall(struct frame *f)
{
    switch (next_random(&random_state) % 5) {
    case 0:
        f->syscall_state = (enum syscall_state)(next_random(&random_state) % 3);
        break;
    case 1:
        f->syscall_arch = (enum trace_arch)(next_random(&random_state) % 2);
        break;
    case 2:
        f->failed_during_preparation = !f->failed_during_preparation;
        break;
    case 3:
        f->syscall_no = (int32_t)(next_random(&random_state) % 450);
        break;
    default: {
        static const int32_t special[] = {
            SYS_mmap,  SYS_munmap, SYS_mremap, SYS_mprotect, SYS_brk,        SYS_madvise,
            SYS_shmdt, SYS_clone,  SYS_execve, SYS_exit,     SYS_exit_group, SYS_rt_sigreturn,
            SYS_rseq,  SYS_ptrace, SYS_write,  SYS_pwritev,  SYS_dup2,       219,
            1000,      1001,       1002,       1012};
        f->syscall_no =
            special[next_random(&random_state) % (sizeof(special) / sizeof(special[0]))];
    }
    }
}

static void change_frame(struct frame *f)
{
    // The decoder made these arrays; nothing else refers to them.
    struct mem_write *writes = (struct mem_write *)(uintptr_t)f->writes;
    struct trace_task_event *tasks = (struct trace_task_event *)(uintptr_t)f->tasks;
    struct trace_mmap *mmaps = (struct trace_mmap *)(uintptr_t)f->mmaps;
    switch (next_random(&random_state) % 12) {
    case 0:
        CHANGE(f->tid);
        break;
    case 1:
        CHANGE(f->ticks);
        break;
    case 2:
        f->kind = (enum frame_kind)(next_random(&random_state) % FRAME_KIND_COUNT);
        f->siginfo = (const uint8_t[128]){11};
        break;
    case 3:
    case 4:
    case 5:
        CHANGE(f->regs.r[next_random(&random_state) % UREG_COUNT]);
        break;
    case 6:
        if (f->write_count)
            change_write(&writes[next_random(&random_state) % f->write_count]);
        break;
    case 7:
        if (f->write_count)
            f->write_count--;
        break;
    case 8:
        if (f->mmap_count)
            change_mmap(&mmaps[next_random(&random_state) % f->mmap_count]);
        break;
    case 9:
        if (f->mmap_count)
            f->mmap_count = next_random(&random_state) % f->mmap_count;
        break;
    case 10:
        if (f->task_count) {
            CHANGE(tasks[0].tid);
            CHANGE(tasks[0].clone_flags);
        } else {
            f->arch = ARCH_X86;
        }
        break;
    default:
        change_syscall(f);
    }
}

static void change_frame_once(struct frame *f)
{
    if (f->event == changed_event ||
        (f->event > changed_event && next_random(&random_state) % 64 == 0)) {
        change_frame(f);
        if (tell)
            fprintf(stderr, "changed frame %llu: %s\n", (unsigned long long)f->event,
                    trace_frame_name(f->kind));
    }
}

static struct err *replay_changed(const char *dir, uint64_t seed)
{
    cleanup(trace_closep) struct trace *t = NULL;
    cleanup(replay_closep) struct replay *r = NULL;
    random_state = (seed + 1) * 0x9e3779b97f4a7c15;
    forget_changed_frames();
    TRY(trace_open(dir, &t));
    event_no count;
    TRY(trace_event_count(t, &count));
    changed_event = next_random(&random_state) % count + 1;
    if (next_random(&random_state) % 4 == 0) {
        size_t mmap_count;
        struct trace_mmap *mmaps = (struct trace_mmap *)(uintptr_t)trace_mmaps(t, &mmap_count);
        change_mmap(&mmaps[next_random(&random_state) % mmap_count]);
    }
    TRY(replay_open(t, &r));
    if (seed % 2)
        TRY(replay_set_mode(r, ENGINE_INDEX, NULL));
    return replay_run(r, MOMENT_END, MAX_INSTRUCTIONS, NULL);
}

static bool run_case(const char *dir, uint64_t seed)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGALRM, SIG_DFL);
        alarm(CASE_SECONDS);
        struct err *e = replay_changed(dir, seed);
        if (tell)
            fprintf(stderr, "%s\n", e ? err_message(e) : "replayed to its end");
        _exit(e != NULL);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) <= 1)
        return true;
    printf("%s: seed %llu: %s %d\n", dir, (unsigned long long)seed,
           WIFEXITED(status) ? "status" : "signal",
           WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    return false;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: hostile TRACE FIRST COUNT\n", stderr);
        return 2;
    }
    uint64_t first = strtoull(argv[2], NULL, 10), count = strtoull(argv[3], NULL, 10);
    tell = count == 1;
    bool good = true;
    for (uint64_t seed = first; seed < first + count; seed++)
        good &= run_case(argv[1], seed);
    return !good;
}
