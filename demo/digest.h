/* Digests: a summary of a mailbox, written by a thread of its own. */
#pragma once

#include <stddef.h>

#include "mailbox.h"

/* Starts the thread. */
void digest_start(void);
/* Queues one member's digest. The member must live until digest_wait() returns. */
void digest_order(struct member *member);
/* Waits until all that was ordered is written; returns the number of lines written since the last call. */
size_t digest_wait(void);
/* Ends the thread. */
void digest_stop(void);
