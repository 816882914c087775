/* Checking a finished database against another replay of the recording. */
#ifndef INDEX_CHECK_H
#define INDEX_CHECK_H

#include "db/history.h"
#include "replay/replay.h"

/**
 * Replays the recording from its start. At each boundary the state that the database gives is held
 * against the replay's: tasks with all registers, mappings, all memory that either has present; in
 * each segment events, block counts, written granules and calls. The index over all segments is
 * held against the segments.
 *
 * each: called after every segment; an error from it ends the check. Errors: ERR_DIVERGED names the
 * segment and the first difference; ERR_FORMAT; what reading and replaying give.
 */
struct err *index_check(struct history *h, struct trace *t,
                        struct err *(*each)(void *ctx, struct replay *r), void *ctx) nodiscard;

#endif
