/* Separate debug information: copies of it in the trace. */
#ifndef PACK_DEBUG_FILES_H
#define PACK_DEBUG_FILES_H

#include "pack/package.h"
#include "pack/programs.h"

/**
 * Copies the separate debug information of the programs, as it is found on this machine, into the
 * trace `dir`: debug files, what dwz moved out and .dwp files as debug/.build-id/xx/rest.debug,
 * .sup and .dwp, by the build id of the program; .dwo files as debug/.dwo/ID.dwo, ID being 16
 * hexadecimal digits; units that are only in a .dwp file likewise, as that is not read. A missing
 * .dwo file is told and passed over, as are files of programs without a build id.
 */
struct err *pack_debug_files(const char *dir, const struct programs *programs,
                             const struct pack_listener *listener) nodiscard;
/** Copies this machine's libthread_db.so, by which gdb knows threads, to files.system-debuginfo/.
 * None is not an error. */
struct err *pack_thread_library(const char *dir, const struct pack_listener *listener) nodiscard;

#endif
