/* The gdbs in the views of clients' pages: messages about them, both ways (docs/protocol.md,
 * "gdb"). */
#ifndef SERVE_GDBS_H
#define SERVE_GDBS_H

#include "gdbstub/launcher.h"
#include "query/query.h"
#include "serve/asker.h"

struct gdbs;

/* All is borrowed. wake is called, from any thread, when there are messages. */
struct gdbs_options {
    struct gdb_launcher *launcher;
    const char *trace_dir;
    struct query_options query;
    void (*wake)(void *ctx);
    void *ctx;
};

struct gdbs *gdbs_create(const struct gdbs_options *options);
/** Ends all gdbs. */
void gdbs_destroy(struct gdbs *g);

/* On one thread: */

/** A client's message about its gdb `id`. Errors: those of what it asks for; ERR_USAGE. */
struct err *gdbs_handle(struct gdbs *g, uint32_t client, int64_t id,
                        const json_t *message) nodiscard;
/** Ends all of a client, without a word. */
void gdbs_forget(struct gdbs *g, uint32_t client);
/** Takes all messages there are; the caller frees them. */
struct answer *gdbs_take(struct gdbs *g);

#endif
