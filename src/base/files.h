/* Small things with files. */
#ifndef BASE_FILES_H
#define BASE_FILES_H

#include "base/err.h"

#include <stddef.h>
#include <sys/types.h>

/** Writes all of it, however often the system call takes a part or is interrupted. name: for the
 * message. ERR_OS. */
struct err *write_all(int fd, const char *name, const void *data, size_t len) nodiscard;

/** Makes the directories above the file at `path`, of which those within its first `there` bytes
 * exist. ERR_OS. */
struct err *make_directories_above(const char *path, size_t there, mode_t mode) nodiscard;

/** Removes a file or a directory with all that is in it, as far as that can be; symbolic links are
 * not followed. It need not exist. ERR_OS: something is left. */
struct err *remove_tree(const char *path) nodiscard;

#endif
