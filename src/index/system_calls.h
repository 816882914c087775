/* What the database keeps of system calls that have to do with descriptors, because the trace does
 * not have it: arguments of the calls which the recorder's library made itself, and paths and
 * socket addresses that arguments point to. */
#ifndef INDEX_SYSTEM_CALLS_H
#define INDEX_SYSTEM_CALLS_H

#include "db/segment.h"
#include "replay/replay.h"

/** The arguments of a system call of 64-bit code. */
void system_call_args(const struct regs *r, uint64_t out[6]);
/** Is it one of those calls, by its number for x86-64? */
bool system_call_is_kept(uint64_t no);
/** Is it a frame at which system_calls_event() looks at memory? */
bool system_call_names(const struct frame *f);
/** Has what is wanted of the library's calls gathered in a space from now on. */
struct err *system_calls_hook(struct replay *r, uint32_t space) nodiscard;
/** Adds what was gathered in a space. */
struct err *system_calls_take(struct replay *r, uint32_t space, struct segment *out) nodiscard;
/** Adds what the arguments of a call that is entered point to. at: right before it. */
struct err *system_calls_event(struct replay *r, const struct frame *f, uint32_t space,
                               struct moment at, struct segment *out) nodiscard;
/** Puts all into the order of time. */
void system_calls_sort(struct segment *out);

#endif
