/* The users' questions. One function answers all of them: a name, parameters, and a sink for rows;
 * used alike by the server, the command line and tests. See docs/protocol.md for names, parameters
 * and rows. */
#ifndef QUERY_QUERY_H
#define QUERY_QUERY_H

#include "base/err.h"
#include "base/types.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct query_engine;

struct query_options {
    const char *const *source_maps; /* pairs FROM, TO of absolute directories; may be NULL */
    size_t source_map_count;
    uint64_t memory_bytes; /* of the processes kept for answers, about; 0: a default */
    unsigned parts; /* in which executions that lie far apart are looked for at the same time; 0: as
                       many as pay */
};

/** Opens the database within the trace directory `dir`. ERR_NOT_FOUND "DIR: no database; run
 * `pernosco build`". */
struct err *query_engine_open(const char *dir, const struct query_options *options,
                              struct query_engine **out) nodiscard;
void query_engine_close(struct query_engine *q);
/** confine_reading() (base/confine.h) to what any engine with the same trace and sources reads, and
 * `more` (count paths). */
struct err *query_engine_confine(const struct query_engine *q, const char *const *more,
                                 size_t more_count) nodiscard;
DEFINE_CLEANUP(struct query_engine *, query_engine_close)

/* Who asks. Rows arrive on the thread that called query_run, in order. */
struct query_sink {
    void *ctx;
    /** Takes ownership of `row`. Returns false to stop the query (ERR_CANCELLED). */
    bool (*row)(void *ctx, json_t *row);
    /** May be NULL. share: 0..1 */
    void (*progress)(void *ctx, double share);
    /** Set by another thread to stop the query; may be NULL. */
    const atomic_bool *cancelled;
    /** Set by the query at its end: the limit was reached and there is more. */
    bool more;
};

/** Runs query `name`. params: borrowed object or NULL. ERR_USAGE for unknown names and bad
 * parameters. One query at a time for an engine: calls from several threads wait for each other
 * (the server has one query thread). */
struct err *query_run(struct query_engine *q, const char *name, json_t *params,
                      struct query_sink *sink) nodiscard;

/** Does some 20 ms of what questions will need that have not been asked: that executions be found
 * where calls were inlined; names: besides, that names be found. With large debug information all
 * of it takes seconds. False: nothing is left. On the thread that asks. */
bool query_work_ahead(struct query_engine *q, bool names);

/** Title of the session: program name and arguments, shortened. Borrowed. */
const char *query_title(const struct query_engine *q);
/** Opens a source file through the mappings; ERR_NOT_FOUND. `path` as in locations. fd owned by the
 * caller. */
struct err *query_open_source(const struct query_engine *q, const char *path,
                              int *fd_out) nodiscard;
/** Makes files below the empty directory `root` of the sources that the trace holds, and links
 * beside them to what --sources has there, or, if `all` is set, to this machine's files at their
 * own paths: see sources/tree.h. Relative names begin at root/QUERY_RELATIVE_SOURCES/0, 1... */
#define QUERY_RELATIVE_SOURCES ".relative"
/** Makes links below `root` to the files that were mapped with code in them:
 * root/QUERY_SYSROOT/NAME by their names in the recorded program's maps, and
 * root/QUERY_BY_NAME/BASE by the last part of these, also without version numbers, where there is
 * but one; and to the trace's debug information, where gdb looks for it. only_inside: none is made
 * unless all of the files are in the trace. */
struct err *query_lay_out_modules(const struct query_engine *q, const char *root,
                                  bool only_inside) nodiscard;
#define QUERY_SYSROOT ".sysroot"
#define QUERY_BY_NAME ".by-name"
struct err *query_lay_out_sources(const struct query_engine *q, const char *root,
                                  bool all) nodiscard;
/** Opens a file of the trace's debug information by its build id, as gdb names it below a directory
 * of such files:
 * ".../.build-id/12/3456.debug". ERR_NOT_FOUND. fd owned by the caller. */
struct err *query_open_debug(const struct query_engine *q, const char *name, int *fd_out) nodiscard;
/** Opens a file that was mapped with code in it, by its name in the recorded program's maps, or by
 * another path that ends alike if there is but one such file; ERR_NOT_FOUND. fd owned by the
 * caller. */
struct err *query_open_mapped(const struct query_engine *q, const char *name,
                              int *fd_out) nodiscard;

/** Values of the protocol, for parameters: {event, instr}; "0x1f". The caller's. */
json_t *json_moment(struct moment m);
json_t *json_hex(uint64_t v);
/** And back, of one that this program made. */
static inline struct moment moment_of_json(const json_t *m)
{
    return (struct moment){(event_no)json_integer_value(json_object_get(m, "event")),
                           (uint64_t)json_integer_value(json_object_get(m, "instr"))};
}

#endif
