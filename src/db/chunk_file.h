/* The container of every database file: a header, chunks, each compressed and checksummed, and an
 * end mark. docs/format.md, "files and chunks", has the layout.
 *
 * The header says what the file is: a build's number, which is the same in all files of a database,
 * the file's kind and its number among those of its kind; so that a file of another database or in
 * another's place is noticed. The end mark makes a file that was cut differ from a whole one. */
#ifndef DB_CHUNK_FILE_H
#define DB_CHUNK_FILE_H

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"

enum { DB_VERSION = 3 };

enum file_kind { FILE_PLAN = 1, FILE_SEGMENT = 2, FILE_META = 3 };

struct file_id {
    uint64_t build;
    enum file_kind kind;
    uint64_t number; /* of a segment; else 0 */
};

/* --- writing --- */

struct chunk_writer;
/** Creates `path`; it must not exist. level: 1..22. */
struct err *chunk_writer_create(const char *path, struct file_id id, int level,
                                struct chunk_writer **out) nodiscard;
struct err *chunk_writer_add(struct chunk_writer *w, uint32_t kind,
                             const struct buf *data) nodiscard;
/** Ends the file and closes it. Frees the writer in any case; after an error the file is gone. */
struct err *chunk_writer_finish(struct chunk_writer *w) nodiscard;
/** Closes and removes an unfinished file. NULL is fine. */
void chunk_writer_abandon(struct chunk_writer *w);
DEFINE_CLEANUP(struct chunk_writer *, chunk_writer_abandon)

/* --- reading --- */

/* Immutable after open; any thread. */
struct chunk_file;
/**
 * Opens `path`, which is relative to the directory `dir` (AT_FDCWD: as usual), and reads header and
 * chunk table. `shown`: how messages call the file. expect->build 0: any. Errors: ERR_FORMAT with
 * file and offset; ERR_UNSUPPORTED for another version; ERR_NOT_FOUND, ERR_OS.
 */
struct err *chunk_file_open(int dir, const char *path, const char *shown, struct file_id expect,
                            struct chunk_file **out) nodiscard;
void chunk_file_close(struct chunk_file *f);
DEFINE_CLEANUP(struct chunk_file *, chunk_file_close)
/** Unpacks the idx-th chunk of a kind, from 0, into *out (appended), its checksum verified.
 * ERR_FORMAT if there is none. */
struct err *chunk_file_read(const struct chunk_file *f, uint32_t kind, size_t idx,
                            struct buf *out) nodiscard;
struct file_id chunk_file_id(const struct chunk_file *f);
const char *chunk_file_path(const struct chunk_file *f);
uint64_t chunk_file_bytes(const struct chunk_file *f);
/** Bytes in the file of a kind of chunk, and how many there are (count_out may be NULL). */
uint64_t chunk_file_kind_bytes(const struct chunk_file *f, uint32_t kind, size_t *count_out);
/** An ERR_FORMAT for what is in a chunk: file, the chunk's place, the offset in the unpacked chunk.
 */
struct err *chunk_file_bad(const struct chunk_file *f, uint32_t kind, size_t idx,
                           size_t off) nodiscard;

#endif
