/* The threads that answer queries, and the messages they have for clients. */
#ifndef SERVE_ASKER_H
#define SERVE_ASKER_H

#include "query/query.h"

#include <stdint.h>

struct asker;

/* A message for a client, in order. */
struct answer {
    struct answer *next;
    uint32_t client;
    char *text;
};

/** wake is called (from a query thread) when there are answers. The engines, of one recording, are
 * borrowed: one answers about moments, the other searches through time meanwhile. */
struct err *asker_start(struct query_engine *now, struct query_engine *for_searches,
                        void (*wake)(void *ctx), void *ctx, struct asker **out) nodiscard;
/** Cancels everything and joins the threads. */
void asker_stop(struct asker *a);
/** Queues a query; takes over params. False: the client has too many at work. */
bool asker_ask(struct asker *a, uint32_t client, int64_t id, const char *name, json_t *params);
/** The query ends with `done` and `cancelled`: now, if it was not begun. An unknown id is fine. */
void asker_cancel(struct asker *a, uint32_t client, int64_t id);
/** Cancels all of a client, without a word. */
void asker_forget(struct asker *a, uint32_t client);
/** Takes all answers there are; the caller frees them. */
struct answer *asker_take(struct asker *a);
/** A message for a client. */
char *asker_error_text(int64_t id, const struct err *e) nodiscard;

#endif
