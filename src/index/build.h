/* Building a database: replays the trace and writes what query/ needs to find answers without doing so again. */
#ifndef INDEX_BUILD_H
#define INDEX_BUILD_H

#include "base/err.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct build_progress {
    double share; /* 0..1, of the events and their instructions as far as known */
    uint64_t events, event_total, instructions;
    double ips;          /* instructions per second so far */
    double seconds_left; /* negative: not known yet */
};

struct build_options {
    unsigned shards;         /* 1: one process does all; n > 1: a leader, and up to n segments indexed at a time */
    int compression_level;   /* 1..22 */
    uint64_t segment_icount; /* instructions of a segment; 0: default */
    void (*progress)(void *ctx, const struct build_progress *p); /* may be NULL */
    void *ctx;
    const volatile sig_atomic_t *interrupted; /* may be NULL; set: stop, leave nothing, ERR_CANCELLED */
};

/* What a build cost, for those who measure. */
struct build_stats {
    uint64_t instructions, events, segments, bytes;
    double leader_cpu, shard_cpu, wall; /* seconds */
};

/** Makes `DIR/db`, replacing one that is there; on failure what was there stays. stats may be NULL. */
struct err *index_build(const char *trace_dir, const struct build_options *options, struct build_stats *stats) nodiscard;

#endif
