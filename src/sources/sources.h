/* Where the text of a source file is.
 *
 * A self-contained trace says it by rules, in files sources.user, sources.fallback and others named
 * sources.*: JSON, a list of rules
 *
 *     {"condition": {"or": [{"binary": "mmap_pack_3_prog"}]}, "priority": 0, "relevance": "Relevant",
 *      "files": [{"url": "https://host/repository/revision/", "at": "/home/u/project/", "urlSuffix": "?raw"},
 *                {"archive": "files.user/sources.zip", "at": "/"},
 *                {"link": "/home/u/project", "at": "/src"}]}
 *     {"condition": {"binary": "mmap_pack_4_libx.so"}, "overrideCompDir": "/home/u/libx"}
 *
 * A rule holds if one of the recording's programs meets its condition. Its mounts make up a tree of
 * files, in which a later one lies over earlier ones. A file is looked for in the rules of the
 * highest priority (0 where none is given) first. A URL that begins with /sources/ means the
 * directories given with --sources; others cannot be read from here, and are told.
 * docs/trace-sources.md has the whole.
 *
 * struct sources may be used by any thread. */
#ifndef SOURCES_SOURCES_H
#define SOURCES_SOURCES_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct sources;

/* The programs and libraries of the recording, against which conditions are held when it is opened.
 */
struct sources_programs {
    void *ctx;
    size_t count;
    /** The name of the file in the trace. Borrowed. */
    const char *(*binary)(void *ctx, size_t idx);
    /** Its build id in hex, or NULL. Borrowed. Asked only if a rule does. */
    const char *(*build_id)(void *ctx, size_t idx);
};

/**
 * Reads the rules of the trace in `dir`. Of a damaged file of rules the rest is left out, and the
 * reason is told when a source is not found. directories: pairs FROM, TO of absolute directories
 * (--sources), `count` pairs.
 */
struct sources *sources_open(const char *dir, const struct sources_programs *programs,
                             const char *const *directories, size_t count) nodiscard;
void sources_close(struct sources *s);

/** The directory which a program's relative names begin at, in place of what its compiler left;
 * NULL: no rule says. Borrowed. */
const char *sources_comp_dir(const struct sources *s, const char *binary);

/* Larger files are neither packed nor shown. */
#define SOURCES_MOST_BYTES ((size_t)16 << 20)

struct source_place {
    int fd;           /* the text; -1: it cannot be shown */
    char *url;        /* where it is if not here, or NULL; heap string */
    bool is_relevant; /* whether the rule says so that has it */
};

/** Finds a file by its name in debug information. ERR_NOT_FOUND: no rule has it, and why; others:
 * the one that has it cannot be read (ERR_FORMAT, ERR_LIMIT: more than SOURCES_MOST_BYTES, ERR_OS).
 */
struct err *sources_find(struct sources *s, const char *path, struct source_place *out) nodiscard;
/** Whether the file is one that its rule calls relevant, or that no rule has. Cheaper than finding
 * it. */
bool sources_is_relevant(struct sources *s, const char *path);

#endif
