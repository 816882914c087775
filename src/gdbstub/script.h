/* What a gdb is told first, and the directory where it finds the recording's sources. */
#ifndef GDBSTUB_SCRIPT_H
#define GDBSTUB_SCRIPT_H

#include "base/buf.h"
#include "base/err.h"

/** Appends settings that a gdb on the past needs, and commands of its own: goto, when. Files of the
 * recording are those that query_lay_out_modules() has made below `dir`, if it has, which is much
 * faster than to have them sent by the stub. */
void script_begin(struct buf *out, const char *dir);
/** Appends that sources below directory `from` are below `to`; of several rules the first that fits
 * counts. */
void script_map_sources(struct buf *out, const char *from, const char *to);
/** The same for all that query_lay_out_sources() has made below `root`. */
void script_map_tree(struct buf *out, const char *root);
/** Scripts of their own, as what fails in one is not to keep gdb from the others: printers of
 * libstdc++ that are installed with the compiler here (gdb finds them by itself only for libraries
 * that are files of this machine); */
void script_printers(struct buf *out);
/** and what source_directory_add_init() has put into directory `dir`, if it has. */
void script_of_trace(struct buf *out, const char *dir);
/** A file that holds the text and is nowhere, to be read as /proc/self/fd/N. */
struct err *script_file(const struct buf *text, int *out) nodiscard;

/** A new directory that nobody else can enter; *out a heap string. */
struct err *source_directory_make(char **out) nodiscard;
/** Puts the scripts for gdb there that the trace holds (gdbinit/, docs/trace-sources.md). They may
 * do what gdb may do. */
struct err *source_directory_add_init(const char *dir, const char *trace_dir) nodiscard;
/** Removes it with all that is in it. NULL is fine. */
void source_directory_remove(const char *dir);

#endif
