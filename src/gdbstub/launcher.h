/* Starting confined gdbs, for a program that may start none itself: a process that was made before
 * its maker gave up its rights. */
#ifndef GDBSTUB_LAUNCHER_H
#define GDBSTUB_LAUNCHER_H

#include "base/err.h"

#include <stddef.h>

struct gdb_launcher;
struct query_engine;

struct gdb_launcher_options {
    const char *trace_dir;          /* readable for gdb, as are the sources */
    const char *const *source_maps; /* pairs FROM, TO */
    size_t source_map_count;
};

/** Forks the launcher. Call it before confine() and before there are threads. The options are
 * needed for the call only. */
struct err *gdb_launcher_start(const struct gdb_launcher_options *options,
                               struct gdb_launcher **out) nodiscard;
/** Ends it with all gdbs that it started. */
void gdb_launcher_stop(struct gdb_launcher *l);

/* A gdb that runs. Descriptors are the caller's; pseudoterminals' masters block.
 *
 *   terminal   the user's: what gdb shows, what is typed
 *   commands   gdb's second user interface (GDB/MI), see pilot.h
 *   link       the remote protocol
 *   life       closing it kills gdb. Reads a gdb_end when gdb has ended */
struct gdb_process {
    int terminal, commands, link, life;
};
struct gdb_end {
    int status; /* as of waitpid(2) */
};

enum { GDB_MOST_COLUMNS = 1000, GDB_MOST_ROWS = 1000 };

/** A private directory, which the launcher removes at its end: the server has to be able to write
 * there. Borrowed. */
const char *gdb_launcher_source_dir(const struct gdb_launcher *l);
/** Puts the recording's sources there, and the trace's scripts for gdb, once. Any thread. Errors:
 * those of query_lay_out_sources(); gdb may start all the same. */
struct err *gdb_launcher_lay_out(struct gdb_launcher *l, const struct query_engine *q,
                                 const char *trace_dir) nodiscard;

/**
 * Starts a gdb in a terminal of this size (1 to the most). It reads /usr, the trace's directory and
 * sources, and writes nothing but its terminals; it makes no process and no connection
 * (base/confine.h). It connects to a stub at the other end of `link`, which may take its time, and
 * shows by itself where that one stands.
 *
 * Any thread. Errors: ERR_NOT_FOUND there is no gdb; ERR_UNSUPPORTED it cannot be confined; ERR_OS.
 */
struct err *gdb_launch(struct gdb_launcher *l, unsigned columns, unsigned rows,
                       struct gdb_process *out) nodiscard;
/** Kills gdb. */
void gdb_process_close(struct gdb_process *p);

#endif
