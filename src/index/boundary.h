/* States at boundaries, from the database. */
#ifndef INDEX_BOUNDARY_H
#define INDEX_BOUNDARY_H

#include "db/history.h"
#include "replay/replay.h"

/** Rebuilds the state at the start of a segment. t is borrowed and must outlive *out; so must h,
 * from which memory is read when it is touched, unless replay_settle() comes first. help: NULL, or
 * what may save time; help->near is a replay at the start of segment near_segment, which stays as
 * it is: then only what differs costs time. */
struct err *boundary_restore(struct history *h, struct trace *t, size_t segment,
                             const struct restore_help *help, size_t near_segment,
                             struct replay **out) nodiscard;

#endif
