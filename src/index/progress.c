#include "index/progress.h"

/* An event costs about as much as so many ticks. */
enum { TICKS_PER_EVENT = 5000 };

struct last_ticks {
    int32_t tid;
    int64_t ticks;
};

static struct err *count_ticks(struct progress *p, struct trace_cursor *c)
{
    VEC(struct last_ticks) tasks = {0};
    size_t idx = 0; // of the last frame's task
    struct err *e;
    const struct frame *f;
    while (!(e = trace_cursor_next(c, &f)) && f) {
        p->event_total = f->event;
        if (idx >= tasks.count || tasks.items[idx].tid != f->tid) {
            for (idx = 0; idx < tasks.count && tasks.items[idx].tid != f->tid; idx++) {
            }
        }
        if (idx == tasks.count)
            vec_push(&tasks, (struct last_ticks){f->tid, 0});
        struct last_ticks *task = &tasks.items[idx];
        // A number that falls is another task with the same tid.
        p->tick_total += (uint64_t)(f->ticks >= task->ticks ? f->ticks - task->ticks : f->ticks);
        task->ticks = f->ticks;
    }
    vec_deinit(&tasks);
    return e;
}

struct err *progress_init(struct progress *p, struct trace *t)
{
    *p = (struct progress){0};
    cleanup(trace_cursor_closep) struct trace_cursor *c = NULL;
    TRY(trace_cursor_open(t, &c));
    return count_ticks(p, c);
}

void progress_deinit(struct progress *p)
{
    vec_deinit(&p->ticks);
}

double progress_share(struct progress *p, struct replay *r)
{
    size_t count;
    const struct task_info *tasks = replay_tasks(r, &count);
    for (size_t i = 0; i < count; i++) {
        while (p->ticks.count < tasks[i].serial)
            vec_push(&p->ticks, 0);
        p->ticks.items[tasks[i].serial - 1] = tasks[i].ticks;
    }
    uint64_t done = replay_now(r).event * TICKS_PER_EVENT,
             total = p->event_total * TICKS_PER_EVENT + p->tick_total;
    vec_each (t, &p->ticks)
        done += (uint64_t)*t;
    return done < total ? (double)done / (double)total : 1;
}

void progress_start(struct progress *p, struct replay *r)
{
    clock_gettime(CLOCK_MONOTONIC, &p->started);
    p->share_at_start = progress_share(p, r);
    p->instructions_at_start = replay_icount_total(r);
}

double progress_seconds(const struct progress *p)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - p->started.tv_sec) +
           (double)(now.tv_nsec - p->started.tv_nsec) * 1e-9;
}

void progress_tell(struct progress *p, struct replay *r, struct build_progress *out)
{
    double elapsed = progress_seconds(p), share = progress_share(p, r),
           done = share - p->share_at_start;
    *out = (struct build_progress){.share = share,
                                   .events = replay_now(r).event,
                                   .event_total = p->event_total,
                                   .instructions = replay_icount_total(r)};
    out->ips = elapsed > 0 ? (double)(out->instructions - p->instructions_at_start) / elapsed : 0;
    out->seconds_left = done > 0.01 ? (1 - share) * elapsed / done : -1;
}
