/* Debug information of a system, prepared by somebody for many recordings: overlays of the trace.
 */
#ifndef PACK_OVERLAYS_H
#define PACK_OVERLAYS_H

#include "pack/package.h"
#include "pack/programs.h"

/**
 * Unpacks into the trace `dir` those overlays of the directory `repository` that have debug
 * information of the programs. trace-overlay.manifest.xz there is JSON, {"overlays": {"FILE":
 * ["BUILD-ID", ...]}}; FILE is a .tar.xz there. What is in the trace under the same name is
 * replaced, but for the files of the recording itself. Errors: ERR_USAGE (not a directory, such as
 * s3://...), ERR_OS, ERR_FORMAT (damaged; an entry that would lie outside of the trace or replace a
 * file of the recording; what came before it stays), ERR_LIMIT.
 */
struct err *pack_overlays(const char *dir, const struct programs *programs, const char *repository,
                          const struct pack_listener *listener) nodiscard;

#endif
