/* Scripts for gdb that projects keep in their repositories. */
#ifndef PACK_GDBINIT_H
#define PACK_GDBINIT_H

#include "pack/package.h"

/**
 * Copies the scripts of `count` repositories (absolute paths) into the trace's gdbinit/, in place
 * of what was there: a directory for each, and a .gdbinit that reads theirs. In it the trace is
 * called /trace. Tells what it copies. ERR_OS.
 */
struct err *pack_gdbinit(const char *dir, char *const *repositories, size_t count,
                         const struct pack_listener *listener) nodiscard;

#endif
