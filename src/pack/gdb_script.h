/* What a script for gdb says about where debug information is. */
#ifndef PACK_GDB_SCRIPT_H
#define PACK_GDB_SCRIPT_H

#include "pack/package.h"

/**
 * Reads the script at `path`: the last `set debug-file-directory DIR:DIR...` in it is the answer,
 * NULL if there is none; heap string. Other commands are told and passed over: they are not
 * executed. ERR_OS, ERR_LIMIT.
 */
struct err *gdb_script_directories(const char *path, const struct pack_listener *listener,
                                   char **out) nodiscard;

#endif
