#include "digest.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

enum { QUEUE_MAX = 64, TEXT_MAX = 4096 };

/* Guarded by `lock`. */
static struct {
    struct member *orders[QUEUE_MAX];
    size_t first;
    size_t count;
    bool busy;
    bool stopping;
    size_t lines;
} queue;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_t thread;

struct text {
    char bytes[TEXT_MAX];
    size_t len;
};

static void text_add(struct text *text, const char *string)
{
    while (*string && text->len < TEXT_MAX - 1)
        text->bytes[text->len++] = *string++;
    text->bytes[text->len] = 0;
}

static void text_add_line(struct text *text, const struct message *message)
{
    const struct member *author = message->author;
    text_add(text, author->name);
    text_add(text, ": ");
    text_add(text, message->subject);
    text_add(text, "\n");
}

static size_t write_digest(struct member *member)
{
    static struct text text;
    text.len = 0;
    text_add(&text, "To: ");
    text_add(&text, member->address);
    text_add(&text, "\n\n");
    for (size_t i = 0; i < member->mailbox.count; i++)
        text_add_line(&text, mailbox_at(&member->mailbox, i));
    member->digests++;
    return member->mailbox.count;
}

static void *run(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!queue.count && !queue.stopping)
            pthread_cond_wait(&changed, &lock);
        if (!queue.count)
            break;
        struct member *member = queue.orders[queue.first];
        queue.first = (queue.first + 1) % QUEUE_MAX;
        queue.count--;
        queue.busy = true;
        pthread_mutex_unlock(&lock);
        size_t lines = write_digest(member);
        pthread_mutex_lock(&lock);
        queue.lines += lines;
        queue.busy = false;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

void digest_start(void)
{
    pthread_create(&thread, NULL, run, NULL);
}

void digest_order(struct member *member)
{
    pthread_mutex_lock(&lock);
    while (queue.count == QUEUE_MAX)
        pthread_cond_wait(&changed, &lock);
    queue.orders[(queue.first + queue.count) % QUEUE_MAX] = member;
    queue.count++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

size_t digest_wait(void)
{
    pthread_mutex_lock(&lock);
    while (queue.count || queue.busy)
        pthread_cond_wait(&changed, &lock);
    size_t lines = queue.lines;
    queue.lines = 0;
    pthread_mutex_unlock(&lock);
    return lines;
}

void digest_stop(void)
{
    pthread_mutex_lock(&lock);
    queue.stopping = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
}
