/* Zip archives of source files: written when a trace is packed, read when a file is shown. The door
 * to minizip.
 *
 * An archive to be read is untrusted: names are only compared, sizes that it claims are not
 * believed, an entry is unpacked up to a bound. */
#ifndef SOURCES_ARCHIVE_H
#define SOURCES_ARCHIVE_H

#include "base/buf.h"
#include "base/err.h"

/* An archive's table of contents. Immutable. */
struct archive;

/** Reads the table of contents. ERR_OS, ERR_FORMAT. */
struct err *archive_open(const char *path, struct archive **out) nodiscard;
void archive_close(struct archive *a);
DEFINE_CLEANUP(struct archive *, archive_close)
/** Whether it has an entry of that name; a "/" at the start of either makes no difference. */
bool archive_has(const struct archive *a, const char *name);
size_t archive_count(const struct archive *a);
/** Name of an entry, without a "/" at its start; borrowed. */
const char *archive_name(const struct archive *a, size_t idx);
/** Appends the entry's bytes. ERR_NOT_FOUND, ERR_FORMAT (damaged, encrypted), ERR_LIMIT (more than
 * `most` bytes), ERR_OS. */
struct err *archive_read(const struct archive *a, const char *name, size_t most,
                         struct buf *out) nodiscard;

struct archive_writer;

/** Begins a new archive, which has its name once it is finished. ERR_OS. */
struct err *archive_create(const char *path, struct archive_writer **out) nodiscard;
/** Adds an entry, compressed (deflate). len: less than 4 GiB. */
struct err *archive_add(struct archive_writer *w, const char *name, const void *data,
                        size_t len) nodiscard;
struct err *archive_finish(struct archive_writer *w) nodiscard;
/** Frees it; what was not finished is removed. */
void archive_writer_close(struct archive_writer *w);
DEFINE_CLEANUP(struct archive_writer *, archive_writer_close)

#endif
