/* Things that are dear to make and are used again and again, by several threads: the files of
 * segments, and chunks of page data taken apart, since the pages of a state are made few at a time,
 * when they are touched, and most of them come from the same chunks. */
#ifndef DB_SHARED_H
#define DB_SHARED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Holds a bounded number of things by number, those that were used last. Any thread. A thing is
 * immutable once it is in. */
struct shared;
/** Of things that nobody uses so many are kept, at most, and of so many bytes. */
struct shared *shared_create(size_t count, size_t bytes, void (*destroy)(void *thing));
/** All things have been returned. NULL is fine. */
void shared_destroy(struct shared *s);
/** The thing of this number, to be returned; NULL: it is not there. */
void *shared_find(struct shared *s, uint64_t number);
/** Is it there? */
bool shared_has(struct shared *s, uint64_t number);
/** Takes over a thing that was just made, which the caller uses, too: to be returned. */
void shared_add(struct shared *s, uint64_t number, void *thing, size_t bytes);
/** NULL is fine. */
void shared_return(struct shared *s, void *thing);

#endif
