#include "index/work_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

void work_dir_deinit(struct work_dir *w)
{
    if (w->path && w->lock >= 0)
        close(w->lock);
    free(w->path);
    free(w->final);
    *w = (struct work_dir){.lock = -1};
}

/* Removes the files of a database's directory which `keep` does not want. */
static void remove_files(const char *path, bool (*keep)(const char *name, size_t count),
                         size_t count)
{
    DIR *d = opendir(path);
    if (!d)
        return;
    struct dirent *entry;
    while ((entry = readdir(d))) {
        if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, "..") &&
            !(keep && keep(entry->d_name, count)))
            unlinkat(dirfd(d), entry->d_name, 0);
    }
    closedir(d);
}

static void remove_dir(const char *path)
{
    remove_files(path, NULL, 0);
    rmdir(path);
}

static bool is_finished(const char *name, size_t count)
{
    char *end;
    return str_eq(name, "plan") ||
           (name[0] >= '0' && name[0] <= '9' && strtoul(name, &end, 10) < count && !*end);
}

void work_dir_trim(struct work_dir *w, size_t count)
{
    remove_files(w->path, is_finished, count);
    w->segments = count;
}

/* Opens and locks the directory; *lost_out: it was put in place by who had it, there is another one
 * or none by now. */
static struct err *lock_dir(struct work_dir *w, bool *lost_out)
{
    *lost_out = false;
    if (mkdir(w->path, 0755) != 0 && errno != EEXIST)
        return err_os("cannot create %s", w->path);
    w->lock = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (w->lock < 0)
        return err_os("cannot open %s", w->path);
    if (flock(w->lock, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK
                   ? err_new(ERR_LIMIT, "%s: another build of this trace is at work", w->path)
                   : err_os("cannot lock %s", w->path);
    struct stat ours, there;
    *lost_out = fstat(w->lock, &ours) != 0 || stat(w->path, &there) != 0 ||
                ours.st_ino != there.st_ino || ours.st_dev != there.st_dev;
    return NULL;
}

static bool same_plan(const struct history_plan *a, const struct history_plan *b)
{
    return memcmp(a->trace, b->trace, sizeof(a->trace)) == 0 && a->program == b->program &&
           a->segment_icount == b->segment_icount && a->segment_events == b->segment_events;
}

/* How many segments there are to go on from; 0 if something about them is odd. */
static size_t find_segments(const struct work_dir *w, const struct history_plan *plan)
{
    struct history_plan had;
    size_t count = 0;
    struct err *e = history_read_plan(w->path, &had);
    if (!e && same_plan(&had, plan))
        e = history_count_segments(w->path, plan, &count);
    err_free(e);
    return e ? 0 : count;
}

struct err *work_dir_take(const char *trace_dir, const struct history_plan *plan, bool fresh,
                          struct work_dir *out)
{
    cleanup(work_dir_deinit) struct work_dir w = {.lock = -1,
                                                  .path = str_format("%s/db.new", trace_dir),
                                                  .final = str_format("%s/db", trace_dir)};
    bool lost = true;
    while (lost) {
        if (w.lock >= 0)
            close(w.lock);
        TRY(lock_dir(&w, &lost));
    }
    size_t count = fresh ? 0 : find_segments(&w, plan);
    if (count) {
        work_dir_trim(&w, count);
    } else {
        remove_files(w.path, NULL, 0);
        struct err *e = history_start(w.path, plan);
        if (e) {
            remove_dir(w.path);
            return e;
        }
    }
    *out = w;
    w = (struct work_dir){.lock = -1};
    return NULL;
}

struct err *work_dir_finish(struct work_dir *w)
{
    if (renameat2(AT_FDCWD, w->path, AT_FDCWD, w->final, RENAME_EXCHANGE) == 0) {
        remove_dir(w->path); // the old one
        return NULL;
    }
    // There is none yet; or the file system cannot exchange, and for a moment there is none.
    cleanup(freep) char *old = str_format("%s.old", w->final);
    remove_dir(old);
    bool had = rename(w->final, old) == 0;
    if (rename(w->path, w->final) != 0) {
        struct err *e = err_os("cannot put %s in place", w->final);
        if (had && rename(old, w->final) != 0)
            e = err_prefix(e, "the old database is in %s", old);
        return e;
    }
    if (had)
        remove_dir(old);
    return NULL;
}

void work_dir_leave(struct work_dir *w, const struct history_plan *plan, bool keep)
{
    size_t count = keep ? find_segments(w, plan) : 0;
    w->segments = count;
    if (count)
        work_dir_trim(w, count);
    else
        remove_dir(w->path);
}
