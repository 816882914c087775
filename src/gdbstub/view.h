/* A gdb in a view of the page: started by the launcher, answered by a stub with a query engine of
 * its own, and kept in step with the view's focus. Two threads are at work for it: one moves bytes
 * and keeps step, the other answers gdb. */
#ifndef GDBSTUB_VIEW_H
#define GDBSTUB_VIEW_H

#include "gdbstub/launcher.h"
#include "gdbstub/pilot.h"
#include "gdbstub/stub.h"
#include "query/query.h"

struct gdb_view;

/* The functions are called on a thread of the view, and must neither wait nor call the view. */
struct gdb_view_options {
    struct gdb_launcher *launcher; /* borrowed, as are the directory, maps and ctx */
    const char *trace_dir;
    struct query_options query;
    struct pilot_place place; /* where gdb begins */
    unsigned columns, rows;
    void *ctx;
    void (*output)(void *ctx, const void *bytes, size_t len);
    /** gdb has moved by itself, or its user has chosen another task or frame. */
    void (*moved)(void *ctx, const struct gdb_position *position, unsigned frame);
    /** The last call: gdb has ended, and why. */
    void (*ended)(void *ctx, const char *why);
};

/* Bytes of output that are given without having been taken. */
enum { GDB_VIEW_AHEAD = 64 << 10 };

/** Begins; what goes wrong later is told by `ended`. */
struct err *gdb_view_open(const struct gdb_view_options *options, struct gdb_view **out) nodiscard;
/** Kills gdb, waits for the threads. After `ended` that takes no time; otherwise up to that of
 * ending a query. */
void gdb_view_close(struct gdb_view *v);

/* Any thread; none waits. */

/** Asks it to end; `ended` will be called. */
void gdb_view_leave(struct gdb_view *v);
/** What is typed. False: gdb has not read what was typed before, and this is too much. */
bool gdb_view_input(struct gdb_view *v, const char *text, size_t len) nodiscard;
/** So many bytes of output have been shown. */
void gdb_view_taken(struct gdb_view *v, uint64_t bytes);
void gdb_view_resize(struct gdb_view *v, unsigned columns, unsigned rows);
/** The focus has moved: gdb goes there, if it stands at its prompt. */
void gdb_view_go(struct gdb_view *v, const struct pilot_place *place);

#endif
