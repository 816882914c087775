/* Private parts of the sources room. */
#ifndef SOURCES_SOURCES_INT_H
#define SOURCES_SOURCES_INT_H

#include "sources/archive.h"
#include "sources/sources.h"

/* Calls for all mounts of the rules that hold, those of the highest priority first. Paths without a
 * "/" at their ends; "" is the root. */
struct mount_visitor {
    void *ctx;
    /** Entries of an archive, seen below `at`. One that cannot be read is left out. */
    struct err *(*archive)(void *ctx, const char *at, const struct archive *a);
    struct err *(*link)(void *ctx, const char *at, const char *to);
    /** The directory of an overrideCompDir. */
    struct err *(*relative)(void *ctx, const char *dir);
};
struct err *sources_visit(struct sources *s, const struct mount_visitor *v) nodiscard;
/** Is it absolute, short enough, and without ".."? */
bool sources_is_plain(const char *path);

#endif
