/* Which memory was written, as the index variant of translations marks it: a byte for each 8 bytes
 * of the guest's, in shadows that are mapped when first touched. They are pages of a memfd, which
 * knows what of it was ever touched, even if it is swapped out. Freestanding. */
#ifndef WORKER_MARKS_H
#define WORKER_MARKS_H

#include "worker/engine.h"

/** Once per process; sets the CPU's GS base. */
void marks_init(const struct engine_layout *l);
/** In the copy made by a fork: nothing is marked; `fd` takes the place of the layout's. */
void marks_forked(int fd);
/** A fault at `address`: maps the shadow there if it is one. True: try again. */
bool marks_fault(uint64_t address);
/** Marks [start, start + len). */
void marks_range(uint64_t start, uint64_t len);
/** As engine_take_marks(). each NULL: forgets. */
void marks_take(void (*each)(uint64_t page, const uint64_t granules[8]));

#endif
