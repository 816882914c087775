/* The sources that a trace holds, laid out as files, for programs which look for sources
 * themselves. */
#ifndef SOURCES_TREE_H
#define SOURCES_TREE_H

#include "sources/sources.h"

/* This machine's directories whose files are seen where the trace has none: pairs FROM, TO of
 * absolute directories, as for sources_open(). */
struct sources_beside {
    const char *const *directories;
    size_t count; /* pairs */
};

/**
 * Makes below the empty directory `root` a tree of the files in the trace's archives: /a/b.c is
 * ROOT/a/b.c, with what sources_find() gives for /a/b.c. Those that are not relevant are left out,
 * since they stand for files that were not copied. Links of the rules are symbolic links, and so
 * are the other files and directories, as `beside` has them, of each directory that came to be.
 * Nothing is made where the trace has no file. Links ROOT/RELATIVE/0, 1... lead to the directories
 * where relative names of some programs begin (overrideCompDir).
 *
 * ERR_LIMIT: too many files or bytes; what is there is good. ERR_OS.
 */
struct err *sources_lay_out(struct sources *s, const char *root, const char *relative,
                            const struct sources_beside *beside) nodiscard;

#endif
