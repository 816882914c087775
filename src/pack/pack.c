/* Packing: the trace directory becomes all that is needed.
 *
 * A trace's `mmaps` names a backing file for every file mapping. It may be the trace's own
 * (mmap_copy_*, mmap_clone_*, and mmap_pack_* which we make), a hard link to a file that somebody
 * may still write to, or a file outside. The latter two are copied; then `mmaps` is replaced by one
 * with the new names; then files that no name leads to are removed.
 *
 * Invariants: (1) until the rename of the new `mmaps`, nothing that the old one refers to is
 * touched; afterwards nothing that the new one refers to is. So whenever it stops, the trace is
 * whole, and packing again finishes the work. (2) New files are on disk before the rename. */
#include "pack/pack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/log.h"
#include "trace/rewrite.h"
#include "trace/trace.h"

#define TEMPORARY_MMAPS "pack_mmaps" /* rr's name for the same thing */

/* A backing file as `mmaps` names it now, and the name it will have. */
struct backing {
    const char *name; /* borrowed from the trace */
    char *path;
    struct stat st;
    bool own;       /* lies in the trace, under a name and an inode of its own */
    size_t same_as; /* index of an earlier one with the same contents, or its own */
    char *packed;   /* the new name; NULL: keeps its name */
};

struct packer {
    const struct trace *trace;
    const struct trace_mmap *mmaps;
    size_t mmap_count;
    VEC(struct backing) files;
    size_t *file_of; /* per mmap: index into files */
    unsigned next_number;
};

static void packer_deinit(struct packer *p)
{
    vec_each (f, &p->files) {
        free(f->path);
        free(f->packed);
    }
    vec_deinit(&p->files);
    free(p->file_of);
}

/* ---- which files there are */

static bool is_own_name(const char *name)
{
    return !strchr(name, '/') &&
           (str_starts(name, "mmap_copy_") || str_starts(name, "mmap_clone_") ||
            str_starts(name, "mmap_pack_"));
}

static bool is_zeroed(const struct trace_mmap *m)
{
    return !m->stat_mode && !m->stat_uid && !m->stat_gid && !m->stat_mtime;
}

/* The bytes must be those of the recording. The size tells most changes; another time alone is
 * worth a warning. */
static struct err *check_unchanged(const struct backing *f, const struct trace_mmap *m)
{
    if (f->own)
        return NULL;
    if (f->st.st_size != m->stat_size)
        return err_new(ERR_FORMAT,
                       "%s: changed since the recording: %" PRId64 " bytes then, %" PRId64 " now",
                       f->path, m->stat_size, (int64_t)f->st.st_size);
    if (!is_zeroed(m) && f->st.st_mtime != m->stat_mtime)
        log_warn("%s: may have changed since the recording", f->path);
    return NULL;
}

static struct err *stat_backing(struct backing *f)
{
    struct stat link;
    if (lstat(f->path, &link) < 0 || stat(f->path, &f->st) < 0) {
        if (errno == ENOENT)
            return err_new(ERR_NOT_FOUND, "%s: mapped by the recorded program, and gone", f->path);
        return err_os("cannot stat %s", f->path);
    }
    if (!S_ISREG(f->st.st_mode))
        return err_new(ERR_FORMAT, "%s: not a regular file", f->path);
    f->own = is_own_name(f->name) && S_ISREG(link.st_mode) && link.st_nlink == 1;
    return NULL;
}

static struct err *collect_files(struct packer *p)
{
    for (size_t i = 0; i < p->mmap_count; i++) {
        const struct trace_mmap *m = &p->mmaps[i];
        if (m->source != MMAP_FILE)
            continue;
        size_t idx = 0;
        while (idx < p->files.count && !str_eq(p->files.items[idx].name, m->backing_file))
            idx++;
        p->file_of[i] = idx;
        if (idx < p->files.count)
            continue;
        struct backing *f = vec_add(&p->files);
        *f = (struct backing){
            .name = m->backing_file, .path = trace_backing_path(p->trace, m), .same_as = idx};
        TRY(stat_backing(f));
        TRY(check_unchanged(f, m));
    }
    return NULL;
}

/* ---- equal files */

static struct err *read_some(int fd, const char *path, uint8_t *out, size_t len, size_t *len_out)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = read(fd, out + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_os("cannot read %s", path);
        if (n == 0)
            break;
        done += (size_t)n;
    }
    *len_out = done;
    return NULL;
}

enum { CHUNK = 1 << 16 };

static struct err *same_contents(const struct backing *a, const struct backing *b, bool *out)
{
    *out = a->st.st_dev == b->st.st_dev && a->st.st_ino == b->st.st_ino;
    if (*out || a->st.st_size != b->st.st_size)
        return NULL;
    cleanup(closep) int fd_a = open(a->path, O_RDONLY | O_CLOEXEC);
    cleanup(closep) int fd_b = open(b->path, O_RDONLY | O_CLOEXEC);
    if (fd_a < 0 || fd_b < 0)
        return err_os("cannot open %s", fd_a < 0 ? a->path : b->path);
    cleanup(freep) uint8_t *data = xmalloc(2 * CHUNK);
    for (;;) {
        size_t len_a, len_b;
        TRY(read_some(fd_a, a->path, data, CHUNK, &len_a));
        TRY(read_some(fd_b, b->path, data + CHUNK, CHUNK, &len_b));
        if (len_a != len_b || memcmp(data, data + CHUNK, len_a) != 0)
            return NULL;
        if (len_a < CHUNK) {
            *out = true;
            return NULL;
        }
    }
}

/* Of equal files the first stands for all; an own one is preferred, as it needs no copy. */
static struct err *find_duplicates(struct packer *p)
{
    for (size_t i = 0; i < p->files.count; i++) {
        for (size_t j = 0; j < i && p->files.items[i].same_as == i; j++) {
            bool same = false;
            if (p->files.items[j].same_as == j)
                TRY(same_contents(&p->files.items[j], &p->files.items[i], &same));
            if (!same)
                continue;
            bool later = p->files.items[i].own && !p->files.items[j].own;
            size_t from = later ? j : i, to = later ? i : j;
            for (size_t k = 0; k <= i; k++)
                if (p->files.items[k].same_as == from)
                    p->files.items[k].same_as = to;
            if (later)
                break;
        }
    }
    return NULL;
}

/* ---- copying */

/* The file's name proper: "mmap_hardlink_3_libc.so" is libc.so. */
static const char *base_name(const char *name)
{
    const char *slash = strrchr(name, '/');
    const char *base = slash ? slash + 1 : name;
    if (slash || !str_starts(base, "mmap_"))
        return base;
    const char *kind_end = strchr(base + strlen("mmap_"), '_');
    const char *number_end = kind_end ? strchr(kind_end + 1, '_') : NULL;
    return number_end ? number_end + 1 : base;
}

static struct err *copy_bytes(int from, int to, const struct backing *f)
{
    cleanup(freep) uint8_t *data = xmalloc(CHUNK);
    uint64_t total = 0;
    for (;;) {
        // Shares the blocks where the file system can.
        ssize_t copied = copy_file_range(from, NULL, to, NULL, 1 << 30, 0);
        if (copied > 0) {
            total += (uint64_t)copied;
            continue;
        }
        size_t len;
        TRY(read_some(from, f->path, data, CHUNK, &len));
        if (!len)
            break;
        for (size_t done = 0; done < len;) {
            ssize_t n = write(to, data + done, len - done);
            if (n < 0 && errno != EINTR)
                return err_os("cannot write a copy of %s", f->path);
            done += n > 0 ? (size_t)n : 0;
        }
        total += len;
    }
    if (total != (uint64_t)f->st.st_size)
        return err_new(ERR_FORMAT, "%s: changed while it was copied", f->path);
    return fsync(to) < 0 ? err_os("cannot write a copy of %s", f->path) : NULL;
}

/* Copies under the first free number; a number may be taken by what an interrupted run left. */
static struct err *copy_file(struct packer *p, struct backing *f)
{
    cleanup(closep) int from = open(f->path, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return err_os("cannot open %s", f->path);
    for (;;) {
        cleanup(freep) char *name =
            str_format("mmap_pack_%u_%s", p->next_number++, base_name(f->name));
        cleanup(freep) char *path = str_format("%s/%s", trace_dir(p->trace), name);
        cleanup(closep) int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
        if (to < 0 && errno == EEXIST)
            continue;
        if (to < 0)
            return err_os("cannot create %s", path);
        struct err *e = copy_bytes(from, to, f);
        if (e)
            unlink(path);
        else
            f->packed = steal(name);
        return e;
    }
}

static const char *new_name(const struct packer *p, size_t mmap_idx)
{
    const struct backing *f = &p->files.items[p->files.items[p->file_of[mmap_idx]].same_as];
    return f->packed ? f->packed : f->name;
}

/* ---- the new mmaps */

static struct err *sync_dir(const char *dir)
{
    cleanup(closep) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? err_os("cannot sync %s", dir) : NULL;
}

static struct err *write_mmaps(const struct packer *p, const char *temporary)
{
    cleanup(freep) const char **names = xnew_array(const char *, p->mmap_count);
    for (size_t i = 0; i < p->mmap_count; i++)
        if (p->mmaps[i].source == MMAP_FILE && !str_eq(new_name(p, i), p->mmaps[i].backing_file))
            names[i] = new_name(p, i);
    unlink(temporary);
    cleanup(closep) int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
    if (fd < 0)
        return err_os("cannot create %s", temporary);
    TRY(mmaps_rewrite(trace_dir(p->trace), names, p->mmap_count, fd));
    return fsync(fd) < 0 ? err_os("cannot write %s", temporary) : NULL;
}

static struct err *install_mmaps(const struct packer *p, const char *temporary)
{
    const char *dir = trace_dir(p->trace);
    cleanup(freep) char *final = str_format("%s/mmaps", dir);
    TRY(sync_dir(dir));
    if (rename(temporary, final) < 0)
        return err_os("cannot replace %s", final);
    return sync_dir(dir);
}

/* ---- what is left over */

static bool is_used(const struct packer *p, const char *name)
{
    vec_each (f, &p->files) {
        const struct backing *kept = &p->files.items[f->same_as];
        if (str_eq(name, kept->packed ? kept->packed : kept->name))
            return true;
    }
    return false;
}

static bool is_mapped_file_name(const char *name)
{
    return is_own_name(name) || str_starts(name, "mmap_hardlink_") ||
           str_starts(name, "mmap_symlink_") || str_eq(name, TEMPORARY_MMAPS);
}

static void closedirp(DIR **d)
{
    if (*d)
        closedir(*d);
}

static struct err *remove_unused(const struct packer *p)
{
    const char *dir = trace_dir(p->trace);
    cleanup(closedirp) DIR *d = opendir(dir);
    if (!d)
        return err_os("cannot read %s", dir);
    for (struct dirent *entry; (entry = readdir(d));) {
        if (!is_mapped_file_name(entry->d_name) || is_used(p, entry->d_name))
            continue;
        if (unlinkat(dirfd(d), entry->d_name, 0) < 0)
            return err_os("cannot remove %s/%s", dir, entry->d_name);
        log_debug("removed %s/%s", dir, entry->d_name);
    }
    return NULL;
}

static bool is_packed(const struct packer *p)
{
    for (size_t i = 0; i < p->mmap_count; i++)
        if (!is_zeroed(&p->mmaps[i]) ||
            (p->mmaps[i].source == MMAP_FILE && !str_eq(new_name(p, i), p->mmaps[i].backing_file)))
            return false;
    return true;
}

static struct err *copy_files(struct packer *p)
{
    for (size_t i = 0; i < p->files.count; i++)
        if (p->files.items[i].same_as == i && !p->files.items[i].own)
            TRY(copy_file(p, &p->files.items[i]));
    return NULL;
}

/* Takes back what was made so far: a full disk should not be left full. */
static void remove_copies(const struct packer *p, const char *temporary)
{
    unlink(temporary);
    vec_each (f, &p->files) {
        cleanup(freep) char *path =
            f->packed ? str_format("%s/%s", trace_dir(p->trace), f->packed) : NULL;
        if (path)
            unlink(path);
    }
}

static struct err *pack(struct packer *p)
{
    TRY(collect_files(p));
    TRY(find_duplicates(p));
    cleanup(freep) char *temporary = str_format("%s/" TEMPORARY_MMAPS, trace_dir(p->trace));
    struct err *e = copy_files(p);
    bool is_done = !e && is_packed(p);
    if (!e && !is_done)
        e = write_mmaps(p, temporary);
    if (e) {
        remove_copies(p, temporary);
        return e;
    }
    if (!is_done)
        TRY(install_mmaps(p, temporary));
    return remove_unused(p);
}

struct err *pack_trace(const char *dir)
{
    // Held until the end: two packers of one trace would remove each other's copies.
    cleanup(closep) int lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0 || flock(lock, LOCK_EX) < 0)
        return err_os("cannot open %s", dir);
    cleanup(trace_closep) struct trace *t = NULL;
    TRY(trace_open(dir, &t));
    cleanup(packer_deinit) struct packer p = {.trace = t};
    p.mmaps = trace_mmaps(t, &p.mmap_count);
    p.file_of = xnew_array(size_t, p.mmap_count);
    return pack(&p);
}
