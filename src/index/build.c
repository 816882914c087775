/* The build: cuts the recording into segments and indexes each.
 *
 * One thread replays in index mode, segment after segment, and takes what changed at each one's
 * end; encoders make files of that (encoders.h). With one shard it encodes each segment before it
 * goes on; with n, n - 1 encoders do while the replay goes on, and the replaying thread does when
 * they cannot keep up. The files are the same.
 *
 * At the end the segments are joined (history_join) and the new database takes the place of the old
 * (work_dir.h). */
#include "index/build.h"

#include "index/boundary.h"
#include "index/check.h"
#include "index/encoders.h"
#include "index/memory.h"
#include "index/progress.h"
#include "index/segment_builder.h"
#include "index/work_dir.h"

#include "base/log.h"

#include <sys/resource.h>

enum { DEFAULT_SEGMENT_ICOUNT = 4000000, SEGMENT_EVENTS = 2000 };
/* Of the memory that is allowed, this part is for what pages held before (page_base.h); without a
 * bound it is this. */
enum { PAGE_BASE_PART = 8, PAGE_BASE_BYTES = 256 << 20 };
/* A segment waits to be encoded if there is room for so much. */
enum { WAITING_BYTES = 64 << 20 };
/* How much memory is in use costs milliseconds to know: where nothing depends on it, one boundary
 * of so many has to do. */
enum { LOOK_EVERY = 16 };

struct build {
    const struct build_options *options;
    struct trace *trace;
    struct segment_rule rule;
    uint64_t number; /* of the build, in the files' headers */
    struct work_dir dir;
    struct progress progress;
    bool checking;
    uint64_t peak_memory;
    double replay_seconds;
};

static double cpu_of(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
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
    p.replay_share = !b->checking && elapsed > 0 ? b->replay_seconds / elapsed : -1;
    b->options->progress(b->options->ctx, &p);
}

/* --- segments --- */

/* Lets nothing wait if there is no room for it. */
static struct err *keep_to_memory(struct build *b, struct encoders *e, size_t idx)
{
    if (!b->options->memory && idx % LOOK_EVERY)
        return NULL;
    uint64_t used = memory_in_use();
    if (used > b->peak_memory)
        b->peak_memory = used;
    return b->options->memory && used + WAITING_BYTES > b->options->memory ? encoders_finish(e)
                                                                           : NULL;
}

static struct err *replay_segment(struct build *b, struct replay *r, struct page_base *base,
                                  struct segment *out)
{
    double before = progress_seconds(&b->progress);
    struct err *e = segment_build(r, &b->rule, base, out);
    b->replay_seconds += progress_seconds(&b->progress) - before;
    return e;
}

/* To see from a log how far a replay came, and through what. */
static void log_segment(const struct build *b, size_t idx, const struct segment *s)
{
    vec_each (e, &s->events) {
        const char *call =
            e->kind == FRAME_SYSCALL
                ? trace_syscall_name(b->trace, (enum trace_arch)e->syscall_arch, e->syscall_no)
                : NULL;
        const char *state = e->kind != FRAME_SYSCALL              ? ""
                            : e->syscall_state == SYSCALL_EXITING ? " exit"
                                                                  : " entry";
        log_debug("event %llu %s%s%s%s, task %u, ticks %lld, rip 0x%llx, %llu instructions",
                  (unsigned long long)e->number, trace_frame_name((enum frame_kind)e->kind),
                  call ? " " : "", call ? call : "", state, e->task, (long long)e->ticks,
                  (unsigned long long)e->rip, (unsigned long long)e->icount);
    }
    if (s->events.count)
        log_info("segment %zu ends with event %llu, %.3f s of replay so far", idx,
                 (unsigned long long)s->events.items[s->events.count - 1].number,
                 b->replay_seconds);
}

static struct err *build_segments(struct build *b, struct replay *r, size_t *idx)
{
    const struct build_options *o = b->options;
    cleanup(page_pool_destroyp) struct page_pool *pool = page_pool_create();
    uint64_t bytes = o->memory ? o->memory / PAGE_BASE_PART : PAGE_BASE_BYTES;
    cleanup(page_base_destroyp) struct page_base *base = page_base_create(pool, bytes / PAGE_SIZE);
    cleanup(encoders_destroyp) struct encoders *e = NULL;
    TRY(encoders_create(&(struct encoders_options){b->dir.path, b->number, o->compression_level,
                                                   pool, o->shards - 1},
                        &e));
    do {
        TRY(check_interrupt(b));
        TRY(keep_to_memory(b, e, *idx));
        cleanup(segment_deinit) struct segment s = {0};
        struct err *failed = replay_segment(b, r, base, &s);
        log_segment(b, *idx, &s);
        TRY(failed);
        TRY(encoders_add(e, (*idx)++, &s));
        tell_progress(b, r);
    } while (!replay_at_end(r));
    return encoders_finish(e);
}

/* --- the whole --- */

/* Where the work begins: at the first event, or at the last of the segments that an interrupted
 * build left: the state at its start is in the database. *idx_out: its number. */
static struct err *open_start(struct build *b, struct replay **out, size_t *idx_out)
{
    *idx_out = 0;
    if (b->dir.segments < 2)
        return replay_open(b->trace, out);
    cleanup(history_closep) struct history *h = NULL;
    TRY(history_open(b->dir.path, trace_header(b->trace)->uuid, &h));
    TRY(boundary_restore(h, b->trace, b->dir.segments - 1, NULL, 0, out));
    TRY(replay_settle(*out)); // the history is about to be closed
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
        log_warn("recorded on a CPU with %s, which this one lacks: if the programs use it, "
                 "building will end there",
                 buf_cstr(&names));
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
    TRY(build_segments(b, r, &idx));
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
    stats->replay = b->replay_seconds;
    stats->peak_memory = b->peak_memory;
    stats->wall = progress_seconds(&b->progress);
    return work_dir_finish(&b->dir);
}

struct err *index_build(const char *trace_dir, const struct build_options *options,
                        struct build_stats *stats)
{
    cleanup(trace_closep) struct trace *t = NULL;
    TRY(trace_open(trace_dir, &t));
    struct build_stats unwanted;
    struct build b = {.options = options, .trace = t};
    b.rule = (struct segment_rule){options->segment_icount ? options->segment_icount
                                                           : DEFAULT_SEGMENT_ICOUNT,
                                   SEGMENT_EVENTS, SEGMENT_PAGES};
    struct history_plan plan = {.program = history_this_program(),
                                .segment_icount = b.rule.icount,
                                .segment_events = b.rule.events};
    memcpy(plan.trace, trace_header(t)->uuid, sizeof(plan.trace));
    b.number = history_build_number(&plan);
    TRY(work_dir_take(trace_dir, &plan, options->restart, &b.dir));
    struct err *e = build_in(&b, stats ? stats : &unwanted);
    // What was stopped from outside can go on later; what failed would fail again.
    if (e)
        work_dir_leave(&b.dir, &plan, err_kind(e) == ERR_CANCELLED);
    if (e && err_kind(e) == ERR_CANCELLED && b.dir.segments) {
        err_free(e);
        e = err_new(ERR_CANCELLED,
                    "interrupted; %zu segments are done, and the next build goes on from there",
                    b.dir.segments);
    }
    work_dir_deinit(&b.dir);
    progress_deinit(&b.progress);
    return e;
}
