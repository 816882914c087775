/* The build: cuts the recording into segments and has each indexed.
 *
 *   one shard:    replay in index mode, segment after segment
 *   n > 1 shards: a leader replays in count mode; at a boundary it clones the replay and forks a job, which runs the segments behind
 *                 the boundary in index mode and writes their files. At most n jobs at a time. The more memory the program has,
 *                 the more a clone costs (its page tables, then a fault for each page that either writes), and the more segments a
 *                 job gets.
 *
 * At the end the segments are joined (history_join) and the new database takes the place of the old (work_dir.h). */
#include "index/build.h"

#include "index/boundary.h"
#include "index/check.h"
#include "index/memory.h"
#include "index/progress.h"
#include "index/segment_builder.h"
#include "index/work_dir.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { DEFAULT_SEGMENT_ICOUNT = 4000000, SEGMENT_EVENTS = 2000 };
/* Of the memory that is allowed, this part is for what pages held before (page_base.h); without a bound it is this. */
enum { PAGE_BASE_PART = 8, PAGE_BASE_BYTES = 256 << 20 };
/* A job is started if there is room for so much. */
enum { JOB_BYTES = 64 << 20 };
/* A job gets at least so many segments, and one more for so much memory of the recorded program. With one for each job (2 shards on 2 cores):
 * md5loop 3.2 s of CPU time instead of 1.4, stream, which has 150 MB and writes all of it again and again, 115 s instead of 7. */
enum { LEAST_SEGMENTS = 8, SEGMENT_BYTES = 1 << 20, MOST_SEGMENTS = 128 };

struct job {
    int pid;
    int errors; /* read end: the job's error message */
    size_t first, count; /* segments */
};

struct build {
    const struct build_options *options;
    struct trace *trace;
    struct segment_rule rule;
    uint64_t number; /* of the build, in the files' headers */
    struct work_dir dir;
    struct progress progress;
    bool checking;
    VEC(struct job) jobs;
    uint64_t peak_memory;
    double build_seconds; /* without joining and checking */
    double waited; /* seconds that the leader did nothing but wait for jobs */
};

static double cpu_of(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

/* Of this process and all that it has waited for: workers are its children, whoever made them. */
static double cpu_used(void)
{
    return cpu_of(RUSAGE_SELF) + cpu_of(RUSAGE_CHILDREN);
}

static struct err *check_interrupt(const struct build *b)
{
    if (b->options->interrupted && *b->options->interrupted)
        return err_new(ERR_CANCELLED, "interrupted");
    return NULL;
}

static void tell_progress(struct build *b, struct replay *r)
{
    if (!b->options->progress)
        return;
    struct build_progress p;
    progress_tell(&b->progress, r, &p);
    p.checking = b->checking;
    double elapsed = progress_seconds(&b->progress);
    p.leader_share = b->options->shards > 1 && !b->checking && elapsed > 0 ? 1 - b->waited / elapsed : -1;
    b->options->progress(b->options->ctx, &p);
}

static struct page_base *make_base(const struct build *b, struct replay *start)
{
    uint64_t bytes = b->options->memory ? b->options->memory / PAGE_BASE_PART : PAGE_BASE_BYTES;
    return page_base_create(start, bytes / PAGE_SIZE);
}

/* The file gets its name when it is whole. */
static struct err *write_segment(struct build *b, struct replay *r, struct page_base *base, size_t idx)
{
    cleanup(freep) char *path = history_segment_path(b->dir.path, idx), *unfinished = str_format("%s.part", path);
    cleanup(segment_writer_abandonp) struct segment_writer *w = NULL;
    cleanup(segment_deinit) struct segment s = {0};
    TRY(segment_writer_create(unfinished, b->number, idx, b->options->compression_level, &w));
    TRY(segment_build(r, &b->rule, base, w, &s));
    TRY(segment_writer_finish(steal(w), &s));
    return rename(unfinished, path) == 0 ? NULL : err_os("cannot name %s", path);
}

/* --- one process --- */

static struct err *build_alone(struct build *b, struct replay *r, size_t *idx)
{
    cleanup(page_base_destroyp) struct page_base *base = make_base(b, NULL);
    do {
        TRY(check_interrupt(b));
        TRY(write_segment(b, r, base, *idx));
        ++*idx;
        tell_progress(b, r);
    } while (!replay_at_end(r));
    return NULL;
}

/* --- leader and jobs --- */

static struct err *do_job(struct build *b, struct replay *copy, const struct job *j)
{
    struct replay *start;
    TRY(replay_clone(copy, &start));
    cleanup(page_base_destroyp) struct page_base *base = make_base(b, start);
    for (size_t i = 0; i < j->count && !replay_at_end(copy); i++)
        TRY(err_prefix(write_segment(b, copy, base, j->first + i), "segment %zu", j->first + i));
    return NULL;
}

static void run_job(struct build *b, struct replay *copy, const struct job *j, int errors)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct err *e = do_job(b, copy, j);
    replay_close(copy);
    int status = 0;
    if (e) {
        const char *text = err_message(e);
        status = 1;
        if (write(errors, text, strlen(text)) < 0)
            status = 2;
    }
    _exit(status);
}

static struct err *start_job(struct build *b, struct replay *r, size_t first, size_t count)
{
    struct replay *copy;
    TRY(replay_clone(r, &copy));
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        replay_close(copy);
        return err_os("cannot make a pipe");
    }
    fflush(NULL);
    struct job j = {.errors = ends[0], .first = first, .count = count};
    j.pid = fork();
    if (j.pid == 0) {
        close(ends[0]);
        run_job(b, copy, &j, ends[1]);
    }
    close(ends[1]);
    if (j.pid < 0) {
        close(ends[0]);
        replay_close(copy);
        return err_os("cannot start a shard");
    }
    replay_disown(copy);
    vec_push(&b->jobs, j);
    return NULL;
}

static struct err *reap_some(struct build *b, size_t most)
{
    while (b->jobs.count > most) {
        TRY(check_interrupt(b));
        struct job j = b->jobs.items[0]; // the oldest: it ends first, as a rule
        int status, pid = waitpid(j.pid, &status, 0);
        if (pid < 0 && errno == EINTR)
            continue;
        b->jobs.count--;
        memmove(&b->jobs.items[0], &b->jobs.items[1], b->jobs.count * sizeof(j));
        char text[1000];
        ssize_t n = read(j.errors, text, sizeof(text) - 1);
        close(j.errors);
        if (pid < 0)
            return err_os("cannot wait for a shard");
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        text[n > 0 ? n : 0] = 0;
        if (WIFSIGNALED(status))
            return err_new(ERR_OS, "segment %zu: its shard was killed by signal %d", j.first, WTERMSIG(status));
        return n > 0 ? err_new(ERR_OS, "%s", text) : err_new(ERR_OS, "segment %zu: its shard failed", j.first);
    }
    return NULL;
}

/* Waits until at most `most` jobs are left. */
static struct err *reap_jobs(struct build *b, size_t most)
{
    double before = progress_seconds(&b->progress);
    struct err *e = reap_some(b, most);
    b->waited += progress_seconds(&b->progress) - before;
    return e;
}

/* Waits until there is room for another job, or none is left. */
static struct err *keep_to_memory(struct build *b)
{
    for (;;) {
        uint64_t used = memory_in_use();
        if (used > b->peak_memory)
            b->peak_memory = used;
        if (!b->options->memory || !b->jobs.count || used + JOB_BYTES <= b->options->memory)
            return NULL;
        TRY(reap_jobs(b, b->jobs.count - 1));
    }
}

/* idx: segments that the leader has passed. Of those that are probably left a job gets its shard's part, so that jobs are few, and become
 * smaller towards the end, where they should end together. */
static size_t segments_of_job(struct build *b, struct replay *r, size_t idx)
{
    size_t count, more = 0;
    double share = progress_share(&b->progress, r), left = share > 0 ? (double)idx * (1 - share) / share : 0;
    const uint32_t *spaces = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++)
        more += memory_resident(worker_pid(replay_worker(r, spaces[i]))) / SEGMENT_BYTES;
    size_t least = LEAST_SEGMENTS + more < MOST_SEGMENTS ? LEAST_SEGMENTS + more : MOST_SEGMENTS;
    double part = left / b->options->shards;
    return part < (double)least ? least : part < MOST_SEGMENTS ? (size_t)part : MOST_SEGMENTS;
}

static struct err *build_led(struct build *b, struct replay *r, size_t *idx)
{
    do {
        TRY(check_interrupt(b));
        TRY(reap_jobs(b, b->options->shards - 1));
        TRY(keep_to_memory(b));
        size_t count = segments_of_job(b, r, *idx);
        TRY(start_job(b, r, *idx, count));
        for (size_t i = 0; i < count && !replay_at_end(r); i++, ++*idx) {
            TRY(check_interrupt(b));
            TRY(segment_skip(r, &b->rule));
            tell_progress(b, r);
        }
    } while (!replay_at_end(r));
    return reap_jobs(b, 0);
}

static void kill_jobs(struct build *b)
{
    vec_each (j, &b->jobs) {
        kill(j->pid, SIGKILL);
        waitpid(j->pid, NULL, 0);
        close(j->errors);
    }
    vec_deinit(&b->jobs);
}

/* --- the whole --- */

/* Where the work begins: at the first event, or at the last of the segments that an interrupted build left: the state at its start is
 * in the database. *idx_out: its number. */
static struct err *open_start(struct build *b, struct replay **out, size_t *idx_out)
{
    *idx_out = 0;
    if (b->dir.segments < 2)
        return replay_open(b->trace, out);
    cleanup(history_closep) struct history *h = NULL;
    TRY(history_open(b->dir.path, trace_header(b->trace)->uuid, &h));
    TRY(boundary_restore(h, b->trace, b->dir.segments - 1, NULL, 0, out));
    *idx_out = b->dir.segments - 1;
    return NULL;
}

static struct err *on_checked(void *ctx, struct replay *r)
{
    struct build *b = ctx;
    tell_progress(b, r);
    return check_interrupt(b);
}

static struct err *check(struct build *b, struct history *h)
{
    b->checking = true;
    b->progress.ticks.count = 0;
    clock_gettime(CLOCK_MONOTONIC, &b->progress.started);
    return index_check(h, b->trace, on_checked, b);
}

static void warn_of_cpu(const struct replay *r)
{
    cleanup(buf_deinit) struct buf names = {0};
    replay_lacking(r, &names);
    if (names.len)
        log_warn("recorded on a CPU with %s, which this one lacks: if the programs use it, building will end there", buf_cstr(&names));
    if (replay_emulates_avx512(r))
        log_info("recorded on a CPU with AVX-512, which this one lacks: it is emulated");
}

static struct err *build_in(struct build *b, struct build_stats *stats)
{
    cleanup(replay_closep) struct replay *r = NULL;
    size_t idx;
    double cpu = cpu_used();
    TRY(progress_init(&b->progress, b->trace));
    TRY(open_start(b, &r, &idx));
    warn_of_cpu(r);
    progress_start(&b->progress, r);
    stats->resumed = idx;
    struct err *e = b->options->shards > 1 ? build_led(b, r, &idx) : build_alone(b, r, &idx);
    kill_jobs(b);
    TRY(e);
    b->build_seconds = progress_seconds(&b->progress);
    struct history_plan plan;
    TRY(history_read_plan(b->dir.path, &plan));
    TRY(history_join(b->dir.path, &plan, idx, b->options->compression_level));
    cleanup(history_closep) struct history *h = NULL;
    TRY(history_open(b->dir.path, plan.trace, &h));
    if (b->options->check)
        TRY(check(b, h));
    TRY(history_content_bytes(h, stats->contents));
    stats->bytes = history_bytes(h);
    stats->instructions = replay_icount_total(r);
    stats->events = replay_now(r).event;
    stats->segments = idx;
    replay_close(steal(r));
    stats->cpu = cpu_used() - cpu;
    stats->leader = b->options->shards > 1 ? b->build_seconds - b->waited : 0;
    stats->peak_memory = b->peak_memory;
    stats->wall = progress_seconds(&b->progress);
    return work_dir_finish(&b->dir);
}

struct err *index_build(const char *trace_dir, const struct build_options *options, struct build_stats *stats)
{
    cleanup(trace_closep) struct trace *t = NULL;
    TRY(trace_open(trace_dir, &t));
    struct build_stats unwanted;
    struct build b = {.options = options, .trace = t};
    b.rule = (struct segment_rule){options->segment_icount ? options->segment_icount : DEFAULT_SEGMENT_ICOUNT, SEGMENT_EVENTS};
    struct history_plan plan = {.program = history_this_program(), .segment_icount = b.rule.icount, .segment_events = b.rule.events};
    memcpy(plan.trace, trace_header(t)->uuid, sizeof(plan.trace));
    b.number = history_build_number(&plan);
    TRY(work_dir_take(trace_dir, &plan, options->restart, &b.dir));
    struct err *e = build_in(&b, stats ? stats : &unwanted);
    // What was stopped from outside can go on later; what failed would fail again.
    if (e)
        work_dir_leave(&b.dir, &plan, err_kind(e) == ERR_CANCELLED);
    if (e && err_kind(e) == ERR_CANCELLED && b.dir.segments) {
        err_free(e);
        e = err_new(ERR_CANCELLED, "interrupted; %zu segments are done, and the next build goes on from there", b.dir.segments);
    }
    work_dir_deinit(&b.dir);
    progress_deinit(&b.progress);
    return e;
}
