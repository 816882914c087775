#include "index/encoders.h"

#include "db/history.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

struct waiting {
    size_t number;
    struct segment segment;
};

/* `lock` guards everything below it. */
struct encoders {
    struct encoders_options options;
    pthread_t *threads;
    unsigned thread_count; /* that run */
    pthread_mutex_t lock;
    pthread_cond_t added;        /* to the queue, or it is over */
    pthread_cond_t idle;         /* nothing is in work */
    VEC(struct waiting *) queue; /* the oldest first */
    unsigned working;            /* segments in work */
    bool over;
    struct err *failed; /* the first error */
};

static void waiting_destroy(struct encoders *e, struct waiting *w)
{
    vec_each (p, &w->segment.pages) {
        page_pool_drop(e->options.pool, p->now);
        page_pool_drop(e->options.pool, p->before);
    }
    segment_deinit(&w->segment);
    free(w);
}

/* The file gets its name when it is whole. */
static struct err *encode(const struct encoders *e, struct waiting *w)
{
    const struct encoders_options *o = &e->options;
    cleanup(freep) char *path = history_segment_path(o->dir, w->number),
                        *unfinished = str_format("%s.part", path);
    TRY(segment_write(unfinished, o->build, w->number, o->level, &w->segment));
    return rename(unfinished, path) == 0 ? NULL : err_os("cannot name %s", path);
}

static void encode_oldest_locked(struct encoders *e)
{
    struct waiting *w = e->queue.items[0];
    memmove(&e->queue.items[0], &e->queue.items[1], --e->queue.count * sizeof(w));
    e->working++;
    pthread_mutex_unlock(&e->lock);
    struct err *error = encode(e, w);
    waiting_destroy(e, w);
    pthread_mutex_lock(&e->lock);
    if (--e->working == 0)
        pthread_cond_broadcast(&e->idle);
    if (error && !e->failed)
        e->failed = error;
    else
        err_free(error);
}

static void *run_encoder(void *ctx)
{
    struct encoders *e = ctx;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        while (!e->queue.count && !e->over)
            pthread_cond_wait(&e->added, &e->lock);
        if (!e->queue.count)
            break;
        encode_oldest_locked(e);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

struct err *encoders_create(const struct encoders_options *options, struct encoders **out)
{
    cleanup(encoders_destroyp) struct encoders *e = xnew(struct encoders);
    e->options = *options;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->added, NULL);
    pthread_cond_init(&e->idle, NULL);
    e->threads = xnew_array(pthread_t, options->threads + 1);
    // Signals are for the thread that replays.
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = 0;
    while (e->thread_count < options->threads && !error) {
        error = pthread_create(&e->threads[e->thread_count], NULL, run_encoder, e);
        e->thread_count += !error;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = error;
    if (error)
        return err_os("cannot start a thread");
    *out = steal(e);
    return NULL;
}

void encoders_destroy(struct encoders *e)
{
    if (!e)
        return;
    pthread_mutex_lock(&e->lock);
    vec_each (w, &e->queue)
        waiting_destroy(e, *w);
    e->queue.count = 0;
    e->over = true;
    pthread_cond_broadcast(&e->added);
    pthread_mutex_unlock(&e->lock);
    for (unsigned i = 0; i < e->thread_count; i++)
        pthread_join(e->threads[i], NULL);
    vec_deinit(&e->queue);
    free(e->threads);
    err_free(e->failed);
    pthread_cond_destroy(&e->idle);
    pthread_cond_destroy(&e->added);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

struct err *encoders_add(struct encoders *e, size_t number, struct segment *s)
{
    struct waiting *w = xnew(struct waiting);
    *w = (struct waiting){number, *s};
    *s = (struct segment){0};
    pthread_mutex_lock(&e->lock);
    vec_push(&e->queue, w);
    pthread_cond_signal(&e->added);
    while (e->queue.count > e->thread_count)
        encode_oldest_locked(e);
    struct err *error = steal(e->failed);
    pthread_mutex_unlock(&e->lock);
    return error;
}

struct err *encoders_finish(struct encoders *e)
{
    pthread_mutex_lock(&e->lock);
    while (e->queue.count)
        encode_oldest_locked(e);
    while (e->working)
        pthread_cond_wait(&e->idle, &e->lock);
    struct err *error = steal(e->failed);
    pthread_mutex_unlock(&e->lock);
    return error;
}
