/* Source files: copies of them in the trace, and the rules that tell where others are. */
#ifndef PACK_SOURCES_H
#define PACK_SOURCES_H

#include "pack/package.h"
#include "pack/programs.h"

/**
 * Gathers the source files that the debug information of the programs names and that are on this
 * machine: those below the directories to be copied go into files.user/sources.zip, for the others
 * a remark goes into files.user/sources-placeholders.zip; of git repositories that a known host has
 * only what differs from there. The rules are written to sources.user (docs/trace-sources.md).
 * Errors: ERR_NOT_FOUND (a directory to be copied is not there), ERR_OS.
 */
struct err *pack_sources(const char *dir, struct programs *programs,
                         const struct package_options *options) nodiscard;
/** Writes sources.fallback, which leads to the server's --sources, unless it is there. */
struct err *pack_sources_fallback(const char *dir) nodiscard;

#endif
