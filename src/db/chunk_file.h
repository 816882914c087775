/* The container of every database file: a header, then chunks, each compressed and checksummed. docs/format.md, "chunks".
 *
 *   header   8 bytes "PERNOSCO", u32 DB_VERSION, u32 zero
 *   chunk    u32 kind, u32 zero, u64 length in the file, u64 length unpacked, u64 XXH3 of the 24 bytes before and the data;
 *            then the data: one zstd frame */
#ifndef DB_CHUNK_FILE_H
#define DB_CHUNK_FILE_H

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"

enum { DB_VERSION = 1 };

/* --- writing --- */

struct chunk_writer;
/** Creates `path`; it must not exist. level: 1..22. */
struct err *chunk_writer_create(const char *path, int level, struct chunk_writer **out) nodiscard;
struct err *chunk_writer_add(struct chunk_writer *w, uint32_t kind, const struct buf *data) nodiscard;
/** Flushes and closes; *bytes_out (may be NULL) is the file's size. Frees the writer in any case. */
struct err *chunk_writer_finish(struct chunk_writer *w, uint64_t *bytes_out) nodiscard;
/** Closes and removes an unfinished file. NULL is fine. */
void chunk_writer_abandon(struct chunk_writer *w);

/* --- reading --- */

/* Immutable after open; any thread. */
struct chunk_file;
/** Reads header and chunk table. ERR_FORMAT with file and offset; ERR_UNSUPPORTED for another version. */
struct err *chunk_file_open(const char *path, struct chunk_file **out) nodiscard;
void chunk_file_close(struct chunk_file *f);
DEFINE_CLEANUP(struct chunk_file *, chunk_file_close)
/** Unpacks the chunk of a kind into *out (appended), its checksum verified. ERR_NOT_FOUND if there is none. */
struct err *chunk_file_read(struct chunk_file *f, uint32_t kind, struct buf *out) nodiscard;
/** The same for the idx-th chunk of that kind, from 0. */
struct err *chunk_file_read_nth(struct chunk_file *f, uint32_t kind, size_t idx, struct buf *out) nodiscard;
const char *chunk_file_path(const struct chunk_file *f);
uint64_t chunk_file_bytes(const struct chunk_file *f);
/** Bytes in the file of a kind of chunk. */
uint64_t chunk_file_kind_bytes(const struct chunk_file *f, uint32_t kind);

#endif
