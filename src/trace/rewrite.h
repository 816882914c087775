/* Changing where a trace says its mapped files are. */
#ifndef TRACE_REWRITE_H
#define TRACE_REWRITE_H

#include "base/err.h"

#include <stddef.h>

/**
 * Writes to `fd` the substream `mmaps` of the trace in `dir`, changed: record number i gets
 * backing_files[i] as its backing file unless that is NULL (only for records of source MMAP_FILE),
 * and the mode, owner and time of every record's file become zero, which says "do not compare" (as
 * rr PackCommand.cc does). All else stays as it is, also fields that this program does not know.
 *
 * count: of records in `mmaps`; ERR_FORMAT if it has another number of them.
 */
struct err *mmaps_rewrite(const char *dir, const char *const *backing_files, size_t count,
                          int fd) nodiscard;

#endif
