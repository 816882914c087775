/* Building a database: replays the trace and writes what query/ needs to find answers without doing
 * so again. */
#ifndef INDEX_BUILD_H
#define INDEX_BUILD_H

#include "base/err.h"
#include "db/history.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct build_progress {
    bool checking; /* the database is made and is being checked; the rest tells how far that is */
    double share;  /* 0..1, of the recording's conditional branches and events */
    uint64_t events, event_total, instructions;
    double ips;          /* instructions per second so far */
    double seconds_left; /* negative: not known yet */
    double replay_share; /* 0..1, of the time so far in which the recording was replayed, which one
                            process does; near 1: more shards would not help. Negative: not known */
};

struct build_options {
    unsigned shards; /* threads: one replays; the others, and it when they cannot keep up, encode
                        what it gathered; at least 1 */
    int compression_level;   /* 1..22 */
    uint64_t segment_icount; /* instructions of a segment; 0: default */
    uint64_t memory; /* bytes for all processes together: fewer segments wait to be encoded if it
                        would be more; 0: no bound. Less than the recorded program itself needs
                        cannot be kept to */
    bool check; /* hold the database against a second replay before it takes its place (check.h) */
    bool restart; /* do not go on from an interrupted build */
    void (*progress)(void *ctx, const struct build_progress *p); /* may be NULL */
    void *ctx;
    const volatile sig_atomic_t *interrupted; /* may be NULL; set: stop with ERR_CANCELLED; what is
                                                 finished stays for the next build */
};

/* What a build cost, for those who measure. */
struct build_stats {
    uint64_t instructions, events, segments, bytes;
    uint64_t contents[CONTENT_COUNT]; /* bytes by what they hold */
    uint64_t resumed;                 /* segments that an interrupted build had finished */
    uint64_t peak_memory; /* bytes, of all processes together, as seen at some boundaries */
    double wall, cpu;     /* seconds; CPU time of all processes */
    double replay; /* seconds in which the recording was replayed: no number of shards makes the
                      build shorter than that */
};

/**
 * Makes `DIR/db`, replacing one that is there; on failure what was there stays. stats may be NULL.
 *
 * Until it is complete it is in `DIR/db.new` and can be read there (db/history.h). An interrupted
 * build goes on from there when it is called again, if trace, program and segment_icount are the
 * same. Errors: ERR_LIMIT if another build is at work; what replay and files give.
 */
struct err *index_build(const char *trace_dir, const struct build_options *options,
                        struct build_stats *stats) nodiscard;

#endif
