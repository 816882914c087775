/* Git repositories: which files differ from what a known host has. */
#ifndef PACK_REPOSITORY_H
#define PACK_REPOSITORY_H

#include "pack/package.h"

#include "base/buf.h"

struct repository {
    char *path;         /* without a "/" at its end */
    VEC(char *) files;  /* names of source files below, relative; sorted */
    char *url, *suffix; /* where its files are, or NULL; the suffix may be NULL */
    /* Those of `files` that are not there as they are here; all if url is NULL. */
    VEC(size_t) changed;
};

/** The repository that a file (an absolute path) belongs to: the nearest directory above with .git
 * in it. NULL: none. Heap string. */
char *repository_of(const char *file) nodiscard;
/** Fills url, suffix and changed; tells what it finds. Without git, or if git fails, there is no
 * url. */
void repository_compare(struct repository *r, const struct pack_listener *listener);
void repository_deinit(struct repository *r);

#endif
