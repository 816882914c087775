#include "base/files.h"

#include "base/buf.h"

#include <errno.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct err *write_all(int fd, const char *name, const void *data, size_t len)
{
    for (const uint8_t *p = data; len;) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_os("cannot write %s", name);
        p += n;
        len -= (size_t)n;
    }
    return NULL;
}

struct err *make_directories_above(const char *path, size_t there, mode_t mode)
{
    cleanup(freep) char *dir = xstrdup(path);
    for (char *slash = strchr(dir + there + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(dir, mode) != 0 && errno != EEXIST)
            return err_os("cannot make the directory %s", dir);
        *slash = '/';
    }
    return NULL;
}

static _Thread_local int removing_failed; /* errno; nftw(3) passes nothing along */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    if (remove(path) != 0 && !removing_failed)
        removing_failed = errno;
    return 0;
}

struct err *remove_tree(const char *path)
{
    enum { DESCRIPTORS = 16 };
    removing_failed = 0;
    if (nftw(path, remove_one, DESCRIPTORS, FTW_DEPTH | FTW_PHYS) == 0)
        errno = removing_failed;
    return errno && errno != ENOENT ? err_os("cannot remove %s", path) : NULL;
}
