/* A trace as text, in the words and the layout of `rr dump`, `rr ps` and `rr traceinfo` (rr 5.6.0),
 * so that the outputs can be compared and scripts written for one work with the other. */
#ifndef TRACE_DUMP_H
#define TRACE_DUMP_H

#include "trace/trace.h"

#include <stdio.h>

struct dump_options {
    bool syscallbuf;  /* -b: records of flushed system call buffers */
    bool task_events; /* -e */
    bool metadata;    /* -m: memory writes, without their bytes */
    bool mmaps;       /* -p */
    bool raw;         /* -r: one line of numbers per frame */
    bool statistics;  /* -s */
    int32_t only_tid; /* -t: 0 for all */
};

/**
 * Dumps the frames named by `specs`: "127", "1000-5000", "1000-", "end"; all if there are none.
 * Each spec is looked up from the start of the trace (rr goes on where the one before stopped).
 */
struct err *trace_dump(const struct trace *t, const struct dump_options *options,
                       char *const *specs, size_t spec_count, FILE *out) nodiscard;
/** The table of processes: pid, parent, exit code (negative: signal), command line. */
struct err *trace_print_processes(const struct trace *t, FILE *out) nodiscard;
/** The header as JSON, and the environment of the first program. */
struct err *trace_print_info(const struct trace *t, FILE *out) nodiscard;

#endif
