/* Memory of this process and all that it made: workers are its children, whoever forked them
 * (worker/worker.c). */
#ifndef INDEX_MEMORY_H
#define INDEX_MEMORY_H

#include <stdint.h>

/** Bytes in use, what is shared counted once; 0 if the system does not tell. Costs a millisecond or
 * more for each process. */
uint64_t memory_in_use(void);

#endif
