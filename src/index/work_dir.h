/* Where a database is made: TRACE/db.new, which becomes TRACE/db when it is complete. One build at
 * a time has it. What an interrupted build left there is gone on from if it was made with the same
 * plan. */
#ifndef INDEX_WORK_DIR_H
#define INDEX_WORK_DIR_H

#include "db/history.h"

struct work_dir {
    char *path, *final;
    int lock;        /* descriptor of the directory; whoever holds it has the build */
    size_t segments; /* finished ones that were found */
};

/**
 * Takes the directory, or makes it, and writes the plan. fresh: finished segments are not wanted.
 *
 * Errors: ERR_LIMIT (another build is at work), ERR_OS.
 */
struct err *work_dir_take(const char *trace_dir, const struct history_plan *plan, bool fresh,
                          struct work_dir *out) nodiscard;
/** Keeps the segments 0..count-1 and removes everything else but the plan. */
void work_dir_trim(struct work_dir *w, size_t count);
/** Puts the complete database in the place of what was there. */
struct err *work_dir_finish(struct work_dir *w) nodiscard;
/** Gives it up. keep: finished segments, if there are any, stay for the next build; w->segments
 * says how many. */
void work_dir_leave(struct work_dir *w, const struct history_plan *plan, bool keep);
void work_dir_deinit(struct work_dir *w);

#endif
