/* Files first, then links, so that no file is written through one; what is beside them last. All
 * paths are compared and made below `root`, and links of the rules lead to paths below it, too:
 * nothing of the trace gets elsewhere. */
#include "sources/tree.h"

#include "base/buf.h"
#include "base/files.h"
#include "sources/sources_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_FILES = 200000, MOST_RELATIVE = 1000 };
#define MOST_BYTES (1ull << 30)

struct layout {
    struct sources *s;
    const char *root, *relative;
    size_t files, relative_count;
    uint64_t bytes;
};

static struct err *copy_file(struct layout *l, int from, const char *to)
{
    enum { CHUNK = 1 << 16 };
    static const char name[] = "a source file";
    char bytes[CHUNK];
    cleanup(closep) int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == EEXIST || errno == EISDIR || errno == ENOTDIR
                   ? NULL
                   : err_os("cannot make %s", to);
    for (off_t at = 0;;) {
        ssize_t n = pread(from, bytes, sizeof(bytes), at);
        if (n < 0)
            return err_os("cannot read %s", name);
        if (n == 0)
            return NULL;
        TRY(write_all(fd, name, bytes, (size_t)n));
        at += n;
        l->bytes += (uint64_t)n;
    }
}

static struct err *lay_file(struct layout *l, const char *path)
{
    struct source_place place;
    if (!sources_is_plain(path) || path[strlen(path) - 1] == '/' ||
        !sources_is_relevant(l->s, path))
        return NULL;
    if (++l->files > MOST_FILES || l->bytes > MOST_BYTES)
        return err_new(ERR_LIMIT, "the trace has too many sources to make files of all");
    struct err *e = sources_find(l->s, path, &place);
    if (e) { // it is damaged: the page tells
        err_free(e);
        return NULL;
    }
    cleanup(closep) int fd = place.fd;
    free(place.url);
    cleanup(freep) char *to = str_format("%s%s", l->root, path);
    TRY(make_directories_above(to, strlen(l->root), 0700));
    return fd >= 0 ? copy_file(l, fd, to) : NULL;
}

static struct err *lay_archive(void *ctx, const char *at, const struct archive *a)
{
    for (size_t i = 0; i < archive_count(a); i++) {
        cleanup(freep) char *path = str_format("%s/%s", at, archive_name(a, i));
        TRY(lay_file(ctx, path));
    }
    return NULL;
}

/* A link to where no file of the trace is shows nothing. */
static struct err *lay_link(void *ctx, const char *at, const char *to)
{
    const struct layout *l = ctx;
    cleanup(freep) char *from = str_format("%s%s", l->root, at),
                        *target = str_format("%s%s", l->root, to);
    if (!*at || !*to || !sources_is_plain(at) || !sources_is_plain(to) || access(target, F_OK) != 0)
        return NULL;
    TRY(make_directories_above(from, strlen(l->root), 0700));
    if (symlink(target, from) != 0 && errno != EEXIST)
        return err_os("cannot make the link %s", from);
    return NULL;
}

static struct err *lay_relative(void *ctx, const char *dir)
{
    struct layout *l = ctx;
    cleanup(freep) char *to = str_format("%s%s", l->root, dir);
    if (!sources_is_plain(dir) || access(to, F_OK) != 0 || l->relative_count == MOST_RELATIVE)
        return NULL;
    cleanup(freep) char *from = str_format("%s/%s/%zu", l->root, l->relative, l->relative_count++);
    TRY(make_directories_above(from, strlen(l->root), 0700));
    return symlink(to, from) != 0 && errno != EEXIST ? err_os("cannot make the link %s", from)
                                                     : NULL;
}

/* --- what this machine has beside them --- */

static char *beside_of(const struct sources_beside *b, const char *path)
{
    for (size_t i = 0; i < b->count; i++) {
        const char *from = b->directories[2 * i], *to = b->directories[2 * i + 1];
        size_t len = strlen(from), to_len = strlen(to);
        while (len && from[len - 1] == '/')
            len--;
        while (to_len && to[to_len - 1] == '/')
            to_len--;
        if (strncmp(path, from, len) == 0 && (path[len] == '/' || !path[len]))
            return str_format("%.*s%s", (int)to_len, to, path + len);
    }
    return NULL;
}

static struct err *lay_beside(struct layout *l, const struct sources_beside *b, const char *path);

/* The directories in `dir` that are in the tree. */
static struct err *lay_beside_children(struct layout *l, const struct sources_beside *b,
                                       const char *path, DIR *dir)
{
    for (const struct dirent *e; (e = readdir(dir));) {
        if (e->d_type != DT_DIR || str_eq(e->d_name, ".") || str_eq(e->d_name, ".."))
            continue;
        cleanup(freep) char *child = str_format("%s/%s", path, e->d_name);
        TRY(lay_beside(l, b, child));
    }
    return NULL;
}

static struct err *lay_beside(struct layout *l, const struct sources_beside *b, const char *path)
{
    cleanup(freep) char *here = str_format("%s%s", l->root, path),
                        *there = *path ? beside_of(b, path) : NULL;
    DIR *dir = opendir(here);
    if (!dir)
        return err_os("cannot read %s", here);
    struct err *e = lay_beside_children(l, b, path, dir);
    closedir(dir);
    TRY(e);
    if (!there || !(dir = opendir(there)))
        return NULL;
    for (const struct dirent *d; (d = readdir(dir)) && l->files < MOST_FILES;) {
        cleanup(freep) char *link = str_format("%s/%s", here, d->d_name),
                            *target = str_format("%s/%s", there, d->d_name);
        l->files += symlink(target, link) == 0; // else the tree has it
    }
    closedir(dir);
    return NULL;
}

struct err *sources_lay_out(struct sources *s, const char *root, const char *relative,
                            const struct sources_beside *beside)
{
    struct layout l = {.s = s, .root = root, .relative = relative};
    const struct mount_visitor files = {.ctx = &l, .archive = lay_archive},
                               links = {.ctx = &l, .link = lay_link, .relative = lay_relative};
    struct err *e = sources_visit(s, &files);
    if (!e)
        e = sources_visit(s, &links);
    struct err *last = !e || err_kind(e) == ERR_LIMIT ? lay_beside(&l, beside, "") : NULL;
    if (e)
        err_free(last);
    return e ? e : last;
}
