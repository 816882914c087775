/* The build: cuts the recording into segments and has each indexed.
 *
 *   one shard:    replay in log mode, segment after segment
 *   n > 1 shards: a leader replays in count mode; at each boundary it clones the replay and forks a job, which runs the segment
 *                 behind the boundary in log mode and writes its file. At most n jobs at a time.
 *
 * At the end the segments are joined (history_join) and the new database takes the place of the old. */
#include "index/build.h"

#include "index/segment_builder.h"

#include "base/log.h"
#include "db/history.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { DEFAULT_SEGMENT_ICOUNT = 4000000, SEGMENT_EVENTS = 2000 };

struct job {
    int pid;
    int errors; /* read end: the job's error message */
    size_t segment;
};

struct build {
    const struct build_options *options;
    struct trace *trace;
    struct segment_rule rule;
    char *work_dir;
    event_no event_total;
    struct timespec started;
    VEC(struct job) jobs;
    double shard_cpu;
};

static double seconds_since(const struct timespec *t)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - t->tv_sec) + (double)(now.tv_nsec - t->tv_nsec) * 1e-9;
}

static double cpu_of(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static struct err *check_interrupt(const struct build *b)
{
    if (b->options->interrupted && *b->options->interrupted)
        return err_new(ERR_CANCELLED, "interrupted");
    return NULL;
}

static void tell_progress(const struct build *b, const struct replay *r)
{
    if (!b->options->progress)
        return;
    struct build_progress p = {.events = replay_now(r).event, .event_total = b->event_total,
                               .instructions = replay_icount_total(r)};
    double elapsed = seconds_since(&b->started);
    p.share = b->event_total ? (double)p.events / (double)b->event_total : 0;
    p.ips = elapsed > 0 ? (double)p.instructions / elapsed : 0;
    p.seconds_left = p.share > 0.02 ? elapsed / p.share - elapsed : -1;
    b->options->progress(b->options->ctx, &p);
}

static struct err *write_segment(struct build *b, struct replay *r, size_t idx)
{
    cleanup(segment_deinit) struct segment s = {0};
    TRY(segment_build(r, b->trace, &b->rule, &s));
    cleanup(freep) char *path = history_segment_path(b->work_dir, idx);
    return segment_write(&s, path, b->options->compression_level, NULL);
}

/* --- one process --- */

static struct err *build_alone(struct build *b, struct replay *r, size_t *count_out)
{
    size_t idx = 0;
    do {
        TRY(check_interrupt(b));
        TRY(write_segment(b, r, idx++));
        tell_progress(b, r);
    } while (!replay_at_end(r));
    *count_out = idx;
    return NULL;
}

/* --- leader and jobs --- */

static void run_job(struct build *b, struct replay *copy, size_t idx, int errors)
{
    struct err *e = write_segment(b, copy, idx);
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

static struct err *start_job(struct build *b, struct replay *r, size_t idx)
{
    struct replay *copy;
    TRY(replay_clone(r, &copy));
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        replay_close(copy);
        return err_os("cannot make a pipe");
    }
    fflush(NULL);
    int pid = fork();
    if (pid == 0) {
        close(ends[0]);
        run_job(b, copy, idx, ends[1]);
    }
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        replay_close(copy);
        return err_os("cannot start a shard");
    }
    replay_disown(copy);
    vec_push(&b->jobs, (struct job){pid, ends[0], idx});
    return NULL;
}

/* Waits until at most `most` jobs are left. */
static struct err *reap_jobs(struct build *b, size_t most)
{
    while (b->jobs.count > most) {
        TRY(check_interrupt(b));
        struct job j = b->jobs.items[0]; // the oldest: it ends first, as a rule
        int status;
        struct rusage u;
        int pid = wait4(j.pid, &status, 0, &u);
        if (pid < 0 && errno == EINTR)
            continue;
        b->jobs.count--;
        memmove(&b->jobs.items[0], &b->jobs.items[1], b->jobs.count * sizeof(j));
        char text[1000];
        ssize_t n = read(j.errors, text, sizeof(text) - 1);
        close(j.errors);
        if (pid < 0)
            return err_os("cannot wait for a shard");
        b->shard_cpu += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                        (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        text[n > 0 ? n : 0] = 0;
        if (WIFSIGNALED(status))
            return err_new(ERR_OS, "segment %zu: its shard was killed by signal %d", j.segment, WTERMSIG(status));
        return err_new(ERR_OS, "segment %zu: %s", j.segment, n > 0 ? text : "its shard failed");
    }
    return NULL;
}

static struct err *build_led(struct build *b, struct replay *r, size_t *count_out)
{
    size_t idx = 0;
    do {
        TRY(check_interrupt(b));
        TRY(reap_jobs(b, b->options->shards - 1));
        TRY(start_job(b, r, idx++));
        TRY(segment_skip(r, &b->rule));
        tell_progress(b, r);
    } while (!replay_at_end(r));
    TRY(reap_jobs(b, 0));
    *count_out = idx;
    return NULL;
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

/* --- files --- */

static void remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        return;
    struct dirent *entry;
    while ((entry = readdir(d))) {
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(d), entry->d_name, 0);
    }
    closedir(d);
    rmdir(dir);
}

/* Removes what builds that were killed have left. */
static void remove_leftovers(const char *trace_dir)
{
    DIR *d = opendir(trace_dir);
    if (!d)
        return;
    struct dirent *entry;
    while ((entry = readdir(d))) {
        int pid;
        if (sscanf(entry->d_name, "db.tmp-%d", &pid) != 1 || (kill(pid, 0) == 0 && pid != getpid()))
            continue;
        cleanup(freep) char *path = str_format("%s/%s", trace_dir, entry->d_name);
        remove_dir(path);
    }
    closedir(d);
}

static struct err *put_in_place(const char *trace_dir, const char *work_dir)
{
    cleanup(freep) char *final = str_format("%s/db", trace_dir);
    cleanup(freep) char *old = str_format("%s/db.tmp-%d-old", trace_dir, getpid());
    bool had = rename(final, old) == 0;
    if (rename(work_dir, final) != 0) {
        struct err *e = err_os("cannot put %s in place", final);
        if (had && rename(old, final) != 0)
            e = err_prefix(e, "the old database is in %s", old);
        return e;
    }
    if (had)
        remove_dir(old);
    return NULL;
}

static uint64_t dir_bytes(const char *dir)
{
    uint64_t bytes = 0;
    DIR *d = opendir(dir);
    struct dirent *entry;
    struct stat st;
    while (d && (entry = readdir(d))) {
        if (entry->d_name[0] != '.' && fstatat(dirfd(d), entry->d_name, &st, 0) == 0)
            bytes += (uint64_t)st.st_size;
    }
    if (d)
        closedir(d);
    return bytes;
}

static struct err *build_in(struct build *b, const char *trace_dir, struct build_stats *stats)
{
    cleanup(replay_closep) struct replay *r = NULL;
    TRY(trace_event_count(b->trace, &b->event_total));
    TRY(replay_open(b->trace, &r));
    double cpu = cpu_of(RUSAGE_SELF);
    size_t count = 0;
    struct err *e = b->options->shards > 1 ? build_led(b, r, &count) : build_alone(b, r, &count);
    kill_jobs(b);
    if (e)
        return e;
    TRY(history_join(b->work_dir, count, trace_header(b->trace)->uuid, b->options->compression_level));
    if (stats)
        *stats = (struct build_stats){.instructions = replay_icount_total(r), .events = replay_now(r).event, .segments = count,
                                      .bytes = dir_bytes(b->work_dir), .leader_cpu = cpu_of(RUSAGE_SELF) - cpu,
                                      .shard_cpu = b->shard_cpu, .wall = seconds_since(&b->started)};
    return put_in_place(trace_dir, b->work_dir);
}

struct err *index_build(const char *trace_dir, const struct build_options *options, struct build_stats *stats)
{
    cleanup(trace_closep) struct trace *t = NULL;
    TRY(trace_open(trace_dir, &t));
    struct build b = {.options = options, .trace = t,
                      .rule = {options->segment_icount ? options->segment_icount : DEFAULT_SEGMENT_ICOUNT, SEGMENT_EVENTS}};
    clock_gettime(CLOCK_MONOTONIC, &b.started);
    remove_leftovers(trace_dir);
    cleanup(freep) char *dir = str_format("%s/db.tmp-%d", trace_dir, getpid());
    b.work_dir = dir;
    if (mkdir(dir, 0755) != 0)
        return err_os("cannot create %s", dir);
    struct err *e = build_in(&b, trace_dir, stats);
    if (e)
        remove_dir(dir);
    return e;
}
