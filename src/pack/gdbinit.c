#include "pack/gdbinit.h"

#include "base/buf.h"
#include "base/files.h"
#include "pack/copy.h"
#include "pack/listener.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where well-known projects have them: Mozilla, Chromium, V8, Skia. */
static const char *const places[] = {".gdbinit",
                                     ".gdbinit_python",
                                     "third_party/python/gdbpp",
                                     "tools/gdb",
                                     "third_party/libcxx-pretty-printers",
                                     "third_party/blink/tools/gdb",
                                     "third_party/skia/tools/gdb",
                                     "v8/tools/gdbinit",
                                     "v8/tools/gdb-v8-support.py"};

/* Of the walk at work: nftw(3) passes nothing along. */
static struct {
    const char *from;
    char *to;
    struct err *failed;
} walk;

static int copy_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    if (type != FTW_F || !S_ISREG(st->st_mode))
        return 0;
    cleanup(freep) char *to = str_format("%s%s", walk.to, path + strlen(walk.from));
    walk.failed = copy_file_to(path, to, 0644);
    return walk.failed != NULL;
}

enum { DESCRIPTORS = 16 };

static struct err *copy_place(const char *repository, const char *place, const char *to_dir,
                              const struct pack_listener *listener)
{
    struct stat st;
    cleanup(freep) char *from = str_format("%s/%s", repository, place),
                        *to = str_format("%s/%s", to_dir, place);
    if (lstat(from, &st) != 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
        return NULL;
    pack_say(listener,
             S_ISDIR(st.st_mode) ? "Copying tree %s into trace" : "Copying file %s into trace",
             from);
    walk.from = from;
    walk.to = to;
    walk.failed = NULL;
    if (nftw(from, copy_one, DESCRIPTORS, FTW_PHYS) != 0 && !walk.failed)
        return err_os("cannot copy %s", from);
    return walk.failed;
}

struct err *pack_gdbinit(const char *dir, char *const *repositories, size_t count,
                         const struct pack_listener *listener)
{
    cleanup(freep) char *top = str_format("%s/gdbinit", dir),
                        *init = str_format("%s/.gdbinit", top);
    cleanup(buf_deinit) struct buf text = {0};
    TRY(remove_tree(top));
    for (size_t i = 0; i < count; i++) {
        cleanup(freep) char *name = xstrdup(repositories[i]);
        for (char *p = name; *p; p++)
            *p = *p == '/' ? '_' : *p;
        cleanup(freep) char *to = str_format("%s/%s", top, name),
                            *own = str_format("%s/.gdbinit", to);
        for (size_t k = 0; k < ARRAY_COUNT(places); k++)
            TRY(copy_place(repositories[i], places[k], to, listener));
        if (access(own, F_OK) == 0 && !strchr(name, '\n'))
            buf_printf(&text, "directory /trace/gdbinit/%s\nsource /trace/gdbinit/%s/.gdbinit\n",
                       name, name);
    }
    return text.len ? write_file_at(init, text.data, text.len) : NULL;
}
