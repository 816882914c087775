#include "pack/copy.h"

#include "base/buf.h"
#include "base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static struct err *refuse_link(const char *path)
{
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
        return err_new(ERR_FORMAT, "%s: a symbolic link where files are to be put", path);
    return NULL;
}

struct err *refuse_links(const char *dir)
{
    static const char *const places[] = {
        "debug",  "debug/.dwo", "debug/.build-id", "files.user", "files.system-debuginfo",
        "gdbinit"};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        cleanup(freep) char *path = str_format("%s/%s", dir, places[i]);
        TRY(refuse_link(path));
    }
    for (unsigned i = 0; i < 256; i++) {
        cleanup(freep) char *path = str_format("%s/debug/.build-id/%02x", dir, i);
        TRY(refuse_link(path));
    }
    return NULL;
}

struct err *make_dirs_above(const char *path)
{
    return make_directories_above(path, 0, 0777);
}

/* A file under another name, beside the place it is for. */
static struct err *open_beside(const char *path, mode_t mode, char **name_out, int *fd_out)
{
    TRY(make_dirs_above(path));
    char *name = str_format("%s.new", path);
    unlink(name);
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0) {
        struct err *e = err_os("cannot create %s", name);
        free(name);
        return e;
    }
    *name_out = name;
    *fd_out = fd;
    return NULL;
}

static struct err *copy_contents(int from, const char *from_path, int to, const char *to_path)
{
    enum { CHUNK = 1 << 16 };
    cleanup(freep) uint8_t *data = xmalloc(CHUNK);
    for (;;) {
        ssize_t copied = copy_file_range(from, NULL, to, NULL, 1 << 30,
                                         0); // shares the blocks where the file system can
        if (copied > 0)
            continue;
        ssize_t n = read(from, data, CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_os("cannot read %s", from_path);
        if (n == 0)
            return NULL;
        TRY(write_all(to, to_path, data, (size_t)n));
    }
}

/* Gives the new file its place, or removes it. Takes `e` over. */
static struct err *install(struct err *e, int fd, const char *name, const char *path)
{
    if (!e && (fsync(fd) < 0 || rename(name, path) < 0))
        e = err_os("cannot write %s", path);
    if (e)
        unlink(name);
    return e;
}

struct err *copy_file_to(const char *from, const char *to, mode_t mode)
{
    cleanup(closep) int in = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK), out = -1;
    struct stat st;
    if (in < 0 || fstat(in, &st) < 0)
        return err_os("cannot open %s", from);
    if (!S_ISREG(st.st_mode))
        return err_new(ERR_FORMAT, "%s: not a regular file", from);
    cleanup(freep) char *name = NULL;
    TRY(open_beside(to, mode, &name, &out));
    return install(copy_contents(in, from, out, name), out, name, to);
}

struct err *write_file_at(const char *path, const void *data, size_t len)
{
    cleanup(freep) char *name = NULL;
    cleanup(closep) int fd = -1;
    TRY(open_beside(path, 0666, &name, &fd));
    return install(write_all(fd, name, data, len), fd, name, path);
}
