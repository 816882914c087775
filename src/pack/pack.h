/* Making a trace self-contained. */
#ifndef PACK_PACK_H
#define PACK_PACK_H

#include "base/err.h"

/**
 * Copies the files that the trace in `dir` refers to, and does not own, into it as mmap_pack_N_NAME
 * (one copy of equal files), rewrites `mmaps` accordingly, and removes mmap_* files that nothing
 * refers to any more. What `rr pack` does.
 *
 * A trace that is packed already is left alone. Interrupted at any point, the trace stays readable
 * and can be packed again. Errors: those of trace_open; ERR_NOT_FOUND (a mapped file is gone),
 * ERR_FORMAT (it has another size than when it was recorded), ERR_OS.
 */
struct err *pack_trace(const char *dir) nodiscard;

#endif
