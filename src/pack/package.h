/* Everything that makes a trace self-contained, in order: what `pernosco package-build` does. */
#ifndef PACK_PACKAGE_H
#define PACK_PACKAGE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* Who hears what is done. */
struct pack_listener {
    void *ctx;
    void (*say)(void *ctx, const char *text);  /* progress: one line */
    void (*warn)(void *ctx, const char *text); /* something is left out: one line */
};

struct package_options {
    bool skip_mapped_files;          /* leave out pack_trace() */
    const char *const *copy_sources; /* directories of which sources may be copied */
    size_t copy_source_count;
    const char *const *substitutes; /* pairs: base name of a program or library, directory in place
                                       of its DW_AT_comp_dir */
    size_t substitute_count;
    const char *gdb_script;              /* that may say where debug information is; or NULL */
    const char *const *system_debuginfo; /* directories with overlays */
    size_t system_debuginfo_count;
    struct pack_listener listener;
};

/**
 * Makes the trace in `dir` self-contained: mapped files (pack_trace()), the debug information of
 * recorded programs and libraries that is found on this machine, and if copy_sources or substitutes
 * are given, sources. What is not found is left out. Again is fine: files are replaced. Errors:
 * those of pack_trace() and trace_open(), ERR_OS.
 */
struct err *package_trace(const char *dir, const struct package_options *options) nodiscard;

#endif
