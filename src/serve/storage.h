/* What users store: keys and JSON values, in SQLite. One thread. */
#ifndef SERVE_STORAGE_H
#define SERVE_STORAGE_H

#include "base/err.h"

#include <stdint.h>

struct storage;

/** Makes the directory if it is not there. ERR_OS: it cannot be made or written. */
struct err *storage_prepare(const char *dir) nodiscard;
/**
 * Opens (and makes) DIR/pernosco.sqlite; dir NULL: in memory, else as left by storage_prepare().
 * trace: names the trace, since one directory may serve several. ERR_OS: the file cannot be opened
 * or is no database of ours.
 */
struct err *storage_open(const char *dir, const char *trace, struct storage **out) nodiscard;
void storage_close(struct storage *s);
DEFINE_CLEANUP(struct storage *, storage_close)
/** Stores a value, on the disk when this returns; *created_out: when the key first came to be,
 * milliseconds since 1970. ERR_LIMIT when there is too much. */
struct err *storage_put(struct storage *s, const char *key, const char *value,
                        int64_t *created_out) nodiscard;
struct err *storage_delete(struct storage *s, const char *key) nodiscard;
struct err *storage_each(struct storage *s,
                         void (*visit)(void *ctx, const char *key, const char *value,
                                       int64_t created),
                         void *ctx) nodiscard;

#endif
