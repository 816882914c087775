/* Two lanes, each a thread with an engine and a queue of its own: questions about now, and searches
 * through time. So a search that takes long never holds up a window that moves on. While nobody
 * asks anything, after the first question, they prepare for what has not been asked.
 *
 * States of a query: queued --run()--> running --answer()--> ended; cancel_locked() ends a queued
 * one at once, and tells a running one to end, which it does with its own last message. Every query
 * that began ends with exactly one `done` or `error`, unless its client has gone. */
#include "serve/asker.h"

#include "base/buf.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

enum {
    MAX_AT_WORK = 64,
    ROWS_PER_MESSAGE = 50,
    ROWS_EVERY_MS = 30,
    PROGRESS_AFTER_MS = 200,
    PROGRESS_EVERY_MS = 100,
    MAX_ANSWER_BYTES = 64 << 20
};

struct job {
    struct job *next;
    uint32_t client;
    int64_t id;
    char *name;
    json_t *params;
    bool quick; /* goes before those that are not */
    atomic_bool cancelled;
};

enum { NOW, SEARCHES, LANES };

/* The searches; all others are about now. */
static const char *const searches[] = {
    "address-execution", "breakpoint",   "callees",    "dataflow",
    "execution",         "instructions", "watchpoint",
};

/* Answered from the indexes alone, in milliseconds: what a window needs first must not wait behind
 * a stack that is being found. */
static const char *const quick_queries[] = {
    "alerts", "complete-frame", "counts", "events",    "functions-in-file", "info",
    "search", "signals",        "source", "stdouterr", "task-tree",         "timeline",
};

struct lane {
    struct asker *a;
    struct query_engine *q;
    pthread_t thread;
    pthread_cond_t work;
    struct job *queue, **queue_end, *running;
    bool prepared; /* there is nothing that could be done ahead */
};

struct asker {
    void (*wake)(void *ctx);
    void *ctx;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t taken;
    struct lane lanes[LANES];
    struct answer *answers, **answers_end;
    size_t answer_bytes;
    bool asked; /* ever */
    bool stopping;
};

/* While a query runs: rows that are not sent yet. */
struct gathering {
    struct asker *a;
    struct job *job;
    json_t *rows;
    struct timespec started, sent, progressed;
};

static void push_locked(struct asker *a, uint32_t client, char *text)
{
    struct answer *x = xnew(struct answer);
    *x = (struct answer){.client = client, .text = text};
    *a->answers_end = x;
    a->answers_end = &x->next;
    a->answer_bytes += text ? strlen(text) : 0;
}

/* On a query thread. Waits when the main thread is so far behind that memory would suffer. */
static void push(struct asker *a, uint32_t client, char *text)
{
    pthread_mutex_lock(&a->lock);
    while (a->answer_bytes > MAX_ANSWER_BYTES && !a->stopping)
        pthread_cond_wait(&a->taken, &a->lock);
    push_locked(a, client, text);
    pthread_mutex_unlock(&a->lock);
    a->wake(a->ctx);
}

static char *cancelled_text(int64_t id)
{
    return str_format("{\"id\":%lld,\"done\":true,\"more\":false,\"cancelled\":true}",
                      (long long)id);
}

static double elapsed_ms(const struct timespec *t)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - t->tv_sec) * 1e3 + (double)(now.tv_nsec - t->tv_nsec) * 1e-6;
}

static void flush_rows(struct gathering *g)
{
    if (!json_array_size(g->rows))
        return;
    json_t *message = json_pack("{sI, sO}", "id", (json_int_t)g->job->id, "rows", g->rows);
    push(g->a, g->job->client, json_dumps(message, JSON_COMPACT));
    json_decref(message);
    json_array_clear(g->rows);
    clock_gettime(CLOCK_MONOTONIC, &g->sent);
}

static bool take_row(void *ctx, json_t *row)
{
    struct gathering *g = ctx;
    json_array_append_new(g->rows, row);
    if (json_array_size(g->rows) >= ROWS_PER_MESSAGE || elapsed_ms(&g->sent) > ROWS_EVERY_MS)
        flush_rows(g);
    return !atomic_load(&g->job->cancelled);
}

static void take_progress(void *ctx, double share)
{
    struct gathering *g = ctx;
    if (elapsed_ms(&g->sent) > ROWS_EVERY_MS)
        flush_rows(g); // a row need not wait for the next one
    if (elapsed_ms(&g->started) < PROGRESS_AFTER_MS ||
        elapsed_ms(&g->progressed) < PROGRESS_EVERY_MS)
        return;
    clock_gettime(CLOCK_MONOTONIC, &g->progressed);
    push(g->a, g->job->client,
         str_format("{\"id\":%lld,\"progress\":%.3f}", (long long)g->job->id, share));
}

char *asker_error_text(int64_t id, const struct err *e)
{
    json_t *message = json_pack("{sI, s{ss, ss}}", "id", (json_int_t)id, "error", "kind",
                                err_kind_name(err_kind(e)), "message", err_message(e));
    if (!message) // not UTF-8
        message = json_pack("{sI, s{ss, ss}}", "id", (json_int_t)id, "error", "kind",
                            err_kind_name(err_kind(e)), "message", "failed");
    char *text = json_dumps(message, JSON_COMPACT);
    json_decref(message);
    return text;
}

static void answer(struct asker *a, struct query_engine *q, struct job *job)
{
    struct gathering g = {.a = a, .job = job, .rows = json_array()};
    clock_gettime(CLOCK_MONOTONIC, &g.started);
    g.sent = g.progressed = g.started;
    struct query_sink sink = {
        .ctx = &g, .row = take_row, .progress = take_progress, .cancelled = &job->cancelled};
    cleanup(err_freep) struct err *e = atomic_load(&job->cancelled)
                                           ? err_new(ERR_CANCELLED, "cancelled")
                                           : query_run(q, job->name, job->params, &sink);
    if (!e || err_kind(e) != ERR_CANCELLED)
        flush_rows(&g);
    json_decref(g.rows);
    char *text;
    if (e && err_kind(e) == ERR_CANCELLED)
        text = cancelled_text(job->id);
    else if (e)
        text = asker_error_text(job->id, e);
    else
        text = str_format("{\"id\":%lld,\"done\":true,\"more\":%s}", (long long)job->id,
                          sink.more ? "true" : "false");
    push(a, job->client, text);
}

static void free_job(struct job *job)
{
    free(job->name);
    json_decref(job->params);
    free(job);
}

static bool all_idle_locked(const struct asker *a)
{
    bool idle = true;
    for (size_t i = 0; i < LANES; i++)
        idle &= !a->lanes[i].running && !a->lanes[i].queue;
    return idle;
}

/* Without a job. */
static void idle_locked(struct lane *l)
{
    struct asker *a = l->a;
    if (l->prepared || !a->asked || !all_idle_locked(a)) {
        pthread_cond_wait(&l->work, &a->lock);
        return;
    }
    pthread_mutex_unlock(&a->lock);
    bool more = query_work_ahead(l->q, l == &a->lanes[NOW]);
    pthread_mutex_lock(&a->lock);
    l->prepared = !more;
}

static void *run(void *arg)
{
    struct lane *l = arg;
    struct asker *a = l->a;
    pthread_mutex_lock(&a->lock);
    while (!a->stopping) {
        struct job *job = l->queue;
        if (!job) {
            idle_locked(l);
            continue;
        }
        l->queue = job->next;
        if (!l->queue)
            l->queue_end = &l->queue;
        l->running = job;
        pthread_mutex_unlock(&a->lock);
        answer(a, l->q, job);
        pthread_mutex_lock(&a->lock);
        l->running = NULL;
        free_job(job);
        for (size_t i = 0; i < LANES; i++)
            pthread_cond_signal(&a->lanes[i].work); // all may be idle now
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

struct err *asker_start(struct query_engine *now, struct query_engine *for_searches,
                        void (*wake)(void *ctx), void *ctx, struct asker **out)
{
    struct asker *a = xnew(struct asker);
    struct query_engine *engines[LANES] = {[NOW] = now, [SEARCHES] = for_searches};
    a->wake = wake;
    a->ctx = ctx;
    a->answers_end = &a->answers;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->taken, NULL);
    // Signals are the main thread's.
    sigset_t stopping, old;
    sigemptyset(&stopping);
    sigaddset(&stopping, SIGINT);
    sigaddset(&stopping, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &stopping, &old);
    int status = 0;
    for (size_t i = 0; i < LANES && status == 0; i++) {
        struct lane *l = &a->lanes[i];
        l->a = a;
        l->queue_end = &l->queue;
        pthread_cond_init(&l->work, NULL);
        status = pthread_create(&l->thread, NULL, run, l);
        if (status == 0)
            l->q = engines[i]; // an engine: a thread that has to be joined
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (status != 0) {
        asker_stop(a);
        return err_new(ERR_OS, "cannot start the query threads: %s", strerror(status));
    }
    *out = a;
    return NULL;
}

/* Takes queued jobs out, and stops the running one. client 0: everybody's; any: whatever their id.
 */
static void cancel_in_lane(struct lane *l, uint32_t client, int64_t id, bool any)
{
    struct job **link = &l->queue;
    while (*link) {
        struct job *job = *link;
        if ((client && job->client != client) || (!any && job->id != id)) {
            link = &job->next;
            continue;
        }
        *link = job->next;
        if (!any)
            push_locked(l->a, client, cancelled_text(job->id));
        free_job(job);
    }
    l->queue_end = link;
    if (l->running && (!client || l->running->client == client) && (any || l->running->id == id))
        atomic_store(&l->running->cancelled, true);
}

static void cancel_locked(struct asker *a, uint32_t client, int64_t id, bool any)
{
    for (size_t i = 0; i < LANES; i++)
        cancel_in_lane(&a->lanes[i], client, id, any);
}

void asker_cancel(struct asker *a, uint32_t client, int64_t id)
{
    pthread_mutex_lock(&a->lock);
    cancel_locked(a, client, id, false);
    pthread_mutex_unlock(&a->lock);
    a->wake(a->ctx);
}

void asker_forget(struct asker *a, uint32_t client)
{
    pthread_mutex_lock(&a->lock);
    cancel_locked(a, client, 0, true);
    pthread_mutex_unlock(&a->lock);
}

static bool listed(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (str_eq(names[i], name))
            return true;
    }
    return false;
}

/* In order of asking, quick ones first. */
static void enqueue_locked(struct lane *l, struct job *job)
{
    struct job **link = l->queue_end;
    if (job->quick) {
        for (link = &l->queue; *link && (*link)->quick; link = &(*link)->next) {
        }
    }
    job->next = *link;
    *link = job;
    if (!job->next)
        l->queue_end = &job->next;
    pthread_cond_signal(&l->work);
}

static size_t at_work_locked(const struct asker *a, uint32_t client)
{
    size_t count = 0;
    for (size_t i = 0; i < LANES; i++) {
        const struct lane *l = &a->lanes[i];
        count += l->running && l->running->client == client;
        for (const struct job *j = l->queue; j; j = j->next)
            count += j->client == client;
    }
    return count;
}

bool asker_ask(struct asker *a, uint32_t client, int64_t id, const char *name, json_t *params)
{
    struct job *job = xnew(struct job);
    job->client = client;
    job->id = id;
    job->name = xstrdup(name);
    job->params = params;
    job->quick = listed(quick_queries, ARRAY_COUNT(quick_queries), name);
    struct lane *lane = &a->lanes[listed(searches, ARRAY_COUNT(searches), name) ? SEARCHES : NOW];
    pthread_mutex_lock(&a->lock);
    bool room = at_work_locked(a, client) < MAX_AT_WORK;
    a->asked = true;
    if (room)
        enqueue_locked(lane, job);
    pthread_mutex_unlock(&a->lock);
    if (!room)
        free_job(job);
    return room;
}

struct answer *asker_take(struct asker *a)
{
    pthread_mutex_lock(&a->lock);
    struct answer *list = a->answers;
    a->answers = NULL;
    a->answers_end = &a->answers;
    a->answer_bytes = 0;
    pthread_cond_broadcast(&a->taken);
    pthread_mutex_unlock(&a->lock);
    return list;
}

void asker_stop(struct asker *a)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    a->stopping = true;
    cancel_locked(a, 0, 0, true);
    for (size_t i = 0; i < LANES; i++)
        pthread_cond_signal(&a->lanes[i].work);
    pthread_cond_broadcast(&a->taken);
    pthread_mutex_unlock(&a->lock);
    for (size_t i = 0; i < LANES; i++) {
        if (a->lanes[i].q)
            pthread_join(a->lanes[i].thread, NULL);
        pthread_cond_destroy(&a->lanes[i].work);
    }
    for (struct answer *x = a->answers; x;) {
        struct answer *next = x->next;
        free(x->text);
        free(x);
        x = next;
    }
    pthread_cond_destroy(&a->taken);
    pthread_mutex_destroy(&a->lock);
    free(a);
}
