/* Putting files into a trace. */
#ifndef PACK_COPY_H
#define PACK_COPY_H

#include "base/err.h"

#include <sys/types.h>

/** ERR_FORMAT if a directory of the trace `dir` that files are put into is a symbolic link: a trace
 * that came from elsewhere must not say where on this machine they go. */
struct err *refuse_links(const char *dir) nodiscard;
/** Makes the directories above the file at `path`. ERR_OS. */
struct err *make_dirs_above(const char *path) nodiscard;
/** Copies the regular file at `from` to `to` (directories are made), replacing what is there at
 * once: never is there half a file. ERR_OS, ERR_FORMAT (not a regular file). */
struct err *copy_file_to(const char *from, const char *to, mode_t mode) nodiscard;
/** Writes a file likewise. */
struct err *write_file_at(const char *path, const void *data, size_t len) nodiscard;

#endif
