#include "pack/debug_files.h"

#include "base/log.h"
#include "pack/copy.h"
#include "pack/listener.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

struct copied {
    char *from, *to;
};

struct copier {
    const char *dir;
    const struct pack_listener *listener;
    const struct program_file *program;
    VEC(struct copied) copied;
    struct err *failed;
};

static void copier_deinit(struct copier *c)
{
    vec_each (it, &c->copied) {
        free(it->from);
        free(it->to);
    }
    vec_deinit(&c->copied);
}

/* Copies a file; one that several programs share becomes one file of several names. */
static struct err *copy_or_link(struct copier *c, const char *from, const char *to)
{
    const char *first = NULL;
    vec_each (it, &c->copied) {
        if (str_eq(it->to, to))
            return NULL;
        if (!first && str_eq(it->from, from))
            first = it->to;
    }
    vec_push(&c->copied, (struct copied){xstrdup(from), xstrdup(to)});
    if (!first)
        return copy_file_to(from, to, 0666);
    TRY(make_dirs_above(to));
    if (unlink(to) < 0 && errno != ENOENT)
        return err_os("cannot replace %s", to);
    return link(first, to) == 0
               ? NULL
               : copy_file_to(from, to, 0666); // not all file systems have hard links
}

static struct err *take_out(const struct sym_external *e, const char *to)
{
    cleanup(buf_deinit) struct buf file = {0};
    TRY(sym_dwp_unit(e->dwp, e->dwo_id, &file));
    return write_file_at(to, file.data, file.len);
}

static void copy_external(void *arg, const struct sym_external *e)
{
    static const char *const extensions[] = {
        [SYM_DEBUG_LINK] = "debug", [SYM_DEBUG_ALT_LINK] = "sup", [SYM_DWP] = "dwp"};
    struct copier *c = arg;
    const char *id = sym_module_build_id(c->program->sym);
    if (c->failed)
        return;
    cleanup(freep) char *to = NULL;
    if (e->kind == SYM_DWO)
        to = str_format("%s/debug/.dwo/%016" PRIx64 ".dwo", c->dir, e->dwo_id);
    else if (id && strlen(id) > 2)
        to = str_format("%s/debug/.build-id/%.2s/%s.%s", c->dir, id, id + 2, extensions[e->kind]);
    if (e->is_missing)
        pack_warn(c->listener, "Can't find DWO file %s, skipping", e->path);
    else if (!to)
        pack_warn(c->listener,
                  "%s has no build id, by which its debug information %s could be found in the "
                  "trace, skipping",
                  c->program->name, e->path);
    else
        c->failed = e->dwp ? take_out(e, to) : copy_or_link(c, e->path, to);
}

struct err *pack_debug_files(const char *dir, const struct programs *programs,
                             const struct pack_listener *listener)
{
    cleanup(copier_deinit) struct copier c = {.dir = dir, .listener = listener};
    vec_each (p, &programs->files) {
        c.program = p;
        TRY(sym_external_files(p->sym, copy_external, &c));
        TRY(c.failed);
    }
    return NULL;
}

struct err *pack_thread_library(const char *dir, const struct pack_listener *listener)
{
    static const char *const places[] = {"/usr/lib64/libthread_db.so",
                                         "/usr/lib/x86_64-linux-gnu/libthread_db.so"};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        struct stat st;
        if (stat(places[i], &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        cleanup(freep) char *to = str_format("%s/files.system-debuginfo/libthread_db.so", dir);
        pack_say(listener, "Copying %s into trace...", places[i]);
        return copy_file_to(places[i], to, 0555);
    }
    return NULL;
}
