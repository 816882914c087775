/* Small things with files. */
#ifndef BASE_FILES_H
#define BASE_FILES_H

#include "base/err.h"

#include <stddef.h>

/** Writes all of it, however often the system call takes a part or is interrupted. name: for the message. ERR_OS. */
struct err *write_all(int fd, const char *name, const void *data, size_t len) nodiscard;

#endif
