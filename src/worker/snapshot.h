/* Snapshots: a worker that goes back to a state it was in, without a copy of the process. What the
 * program changes meanwhile is known in advance (snapshot_add), and what the coordinator changes is
 * noticed; copies of just those pages are kept.
 *
 * Invariants: 1. A page that is not in the set holds what it held at every snapshot at which it was
 * mapped. 2. In a worker in which nothing ran before the first snapshot, private anonymous memory
 * holds zeros, but for pages of the set and what was given (snapshot_given). When it is unmapped
 * nothing has to be kept of it, of a thread's stack say: mapped again it is what it was.
 * Freestanding. */
#ifndef WORKER_SNAPSHOT_H
#define WORKER_SNAPSHOT_H

#include "worker/engine.h"

/* Functions the host provides. */
/** Copies from or to guest memory whatever its protection; translations of what is written are
 * dropped. Reads only what the recording has mapped. Bytes copied. */
uint64_t snapshot_host_copy(uint64_t addr, uint8_t *bytes, uint64_t len, bool write);
/** The first mapped address in [addr, end), but in private mappings that were made in an era (0: in
 * all), else end. */
uint64_t snapshot_host_next_mapped(uint64_t addr, uint64_t end, uint32_t but_era);
/** The end of the private anonymous mapping at addr; 0: something else is there. */
uint64_t snapshot_host_anon_end(uint64_t addr);
/** Are the page's contents still with the coordinator (absent.h)? */
bool snapshot_host_absent(uint64_t addr);
/** Makes private anonymous memory hold zeros again, or be `absent` again. False: that cannot be. */
bool snapshot_host_discard(uint64_t start, uint64_t end, bool absent);
struct engine_task *snapshot_host_task(uint32_t slot); /* made if there is none */

void snapshot_init(void);
/** Pages that the program may change from now on. False: too many. */
bool snapshot_add(const uint64_t *pages, uint64_t count);
/** The program is about to run. */
void snapshot_ran(void);
/** [start, end) may hold anything from now on: the coordinator's contents, or what was moved there.
 */
void snapshot_given(uint64_t start, uint64_t end);
/** Something else than the program is about to write to [start, end). */
void snapshot_before_write(uint64_t start, uint64_t end);
/** Are pages of arrays to be copied, too, when they are fetched? For whoever will go back again and
 * again. */
void snapshot_keep_fetched(bool keep);
/** [start, end) was absent until now, and can be read. */
void snapshot_fetched(uint64_t start, uint64_t end);
/** [start, end) is about to be unmapped, mapped anew, or made what it was when it was mapped. */
void snapshot_before_discard(uint64_t start, uint64_t end);
/** The time in which snapshots are not forgotten; 0: there are none. A private mapping made in this
 * era holds what it held when it was made but for pages of the set, since all who write name the
 * page: made anew it is the same, and nothing of it has to be kept. */
uint32_t snapshot_era(void);
/** Keeps the pages of the set and the vector state of tasks as snapshot `idx`, 0 to
 * WORKER_SNAPSHOTS - 1. False: no room, or changes were too many to be kept since the last
 * snapshot_forget(). tasks: WORKER_MAX_TASKS. */
bool snapshot_take(uint32_t idx, struct engine_task *const *tasks);
/** From here to snapshot_restore() mappings are put back: nothing of these changes is to be kept.
 */
void snapshot_restoring(void);
/** Puts back pages, as far as they are mapped, and vector state. False: there is no such snapshot.
 */
bool snapshot_restore(uint32_t idx);
void snapshot_forget(void);
/** In a copy of the process: its tables may be zeros. */
void snapshot_forked(void);

#endif
