/* For tests: a trace, and a directory beside it where programs for it are made. */
#ifndef PACK_TEST_WORLD_H
#define PACK_TEST_WORLD_H

#include "base/test.h"
#include "pack/package.h"
#include "trace/small_trace.h"

struct world {
    char *trace, *made; /* made: NULL once it is gone */
    char *said;         /* lines of what was told; NULL: nothing */
};

struct world world_make(void);
void world_deinit(struct world *w);
/** Runs a command line in the directory `made`, which must succeed. */
void world_run(const struct world *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/** Runs a command line, in any directory. */
void world_check(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool world_has(const char *tool);
/** Makes `names` of the directory the trace's programs, as mmap_pack_N_NAME. */
void world_map(struct world *w, const char *const *names, size_t count);
/** Removes the directory, as if the trace were on another machine. */
void world_forget(struct world *w);
/** A listener that keeps warnings, and if `all` the rest, in `said`. */
struct pack_listener world_listener(struct world *w, bool all);

#endif
