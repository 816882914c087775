/* How far a build is. The recording says how many conditional branches (ticks) each task retired by
 * each event; so it is known beforehand how many there are in all, and at any moment how many are
 * done. */
#ifndef INDEX_PROGRESS_H
#define INDEX_PROGRESS_H

#include "index/build.h"
#include "replay/replay.h"

#include <time.h>

struct progress {
    event_no event_total;
    uint64_t tick_total;
    VEC(int64_t) ticks; /* of each task when it was last seen, by serial - 1 */
    struct timespec started;
    double share_at_start; /* of a build that goes on from an interrupted one */
    uint64_t instructions_at_start;
};

/** Counts the trace's events and ticks. */
struct err *progress_init(struct progress *p, struct trace *t) nodiscard;
void progress_deinit(struct progress *p);
/** The work begins where `r` stands: time is counted from now on. */
void progress_start(struct progress *p, struct replay *r);
/** How much of the work is done, 0 to 1. */
double progress_share(struct progress *p, struct replay *r);
void progress_tell(struct progress *p, struct replay *r, struct build_progress *out);
double progress_seconds(const struct progress *p);

#endif
