/* Gathering sources. What the debug information names is a list of paths; each that exists is
 * resolved, and symbolic links on the way are noted as rules of their own. A resolved file belongs
 * to a git repository or to none:
 *
 *     in a repository below a directory to be copied        all its files are explicit
 *     in a repository that a known host has                 a URL, and what differs from it is explicit
 *     in another repository, or in none                     explicit
 *
 * Explicit files below a directory to be copied go into the archive; for the others the archive of
 * placeholders has a remark, so that a reader sees why they are missing. Nothing leaves the machine
 * that its owner has not allowed: the trace may be given to others. */
#include "pack/sources.h"

#include "base/log.h"
#include "pack/copy.h"
#include "pack/gdbinit.h"
#include "pack/listener.h"
#include "pack/repository.h"
#include "sources/archive.h"
#include "sources/sources.h"

#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>

#define ARCHIVE      "files.user/sources.zip"
#define PLACEHOLDERS "files.user/sources-placeholders.zip"

struct link {
    char *at, *to;
};

struct gathering {
    const char *dir;
    const struct package_options *options;
    VEC(char *) allowed; /* directories, resolved */
    VEC(char *) named;   /* files as debug information names them */
    VEC(char *) files;   /* those that exist, resolved; sorted, without repetitions */
    VEC(struct link) links;
    VEC(struct repository) repositories;
    VEC(char *) explicit; /* files to be packed, or to be told of */
    size_t outside_count; /* of them: not changed in a repository */
    json_t *programs;     /* conditions: one of the programs with sources */
    json_t *overrides;    /* rules: other directories in place of DW_AT_comp_dir */
};

static void gathering_deinit(struct gathering *g)
{
    vec_each (s, &g->allowed)
        free(*s);
    vec_each (s, &g->named)
        free(*s);
    vec_each (s, &g->files)
        free(*s);
    vec_each (s, &g->explicit)
        free(*s);
    vec_each (l, &g->links) {
        free(l->at);
        free(l->to);
    }
    vec_each (r, &g->repositories)
        repository_deinit(r);
    vec_deinit(&g->allowed);
    vec_deinit(&g->named);
    vec_deinit(&g->files);
    vec_deinit(&g->links);
    vec_deinit(&g->repositories);
    vec_deinit(&g->explicit);
    json_decref(g->programs);
    json_decref(g->overrides);
}

/* ---- The files that are named ---- */

/* Whether `path` is the directory or below it. */
static bool is_below(const char *dir, const char *path)
{
    size_t len = strlen(dir);
    return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == 0 || len == 1);
}

static struct err *resolve_allowed(struct gathering *g)
{
    for (size_t i = 0; i < g->options->copy_source_count; i++) {
        char *real = realpath(g->options->copy_sources[i], NULL);
        if (!real)
            return err_os("cannot copy sources from %s", g->options->copy_sources[i]);
        vec_push(&g->allowed, real);
    }
    return NULL;
}

static void substitute(struct gathering *g, const struct program_file *p)
{
    const char *slash = strrchr(p->name, '/'), *base = slash ? slash + 1 : p->name;
    for (size_t i = 0; i < g->options->substitute_count; i++) {
        if (!str_eq(g->options->substitutes[2 * i], base))
            continue;
        const char *dir = g->options->substitutes[2 * i + 1];
        sym_module_set_comp_dir(p->sym, dir);
        json_array_append_new(g->overrides, json_pack("{s:{s:s}, s:s}", "condition", "binary",
                                                      p->backing, "overrideCompDir", dir));
        return;
    }
}

static int compare_names(const void *x, const void *y)
{
    return strcmp(*(char *const *)x, *(char *const *)y);
}

/* Sorts, and frees repetitions. */
static void sort_names(char **names, size_t *count)
{
    size_t kept = 0;
    if (*count)
        qsort(names, *count, sizeof(*names), compare_names);
    for (size_t i = 0; i < *count; i++) {
        if (kept && str_eq(names[kept - 1], names[i]))
            free(names[i]);
        else
            names[kept++] = names[i];
    }
    *count = kept;
}

static void list_files(struct gathering *g, struct programs *programs)
{
    vec_each (p, &programs->files) {
        substitute(g, p);
        size_t count;
        const char *const *names = sym_file_list(p->sym, &count);
        if (count)
            json_array_append_new(g->programs, json_pack("{s:s}", "binary", p->backing));
        for (size_t i = 0; i < count; i++)
            if (names[i][0] == '/')
                vec_push(&g->named, xstrdup(names[i]));
    }
    sort_names(g->named.items, &g->named.count);
}

/* ---- Symbolic links ---- */

static void add_link(struct gathering *g, const char *at, const char *to)
{
    vec_each (l, &g->links)
        if (str_eq(l->at, at))
            return;
    vec_push(&g->links, (struct link){xstrdup(at), xstrdup(to)});
}

/* Notes the links on the way to a file that exists: from left to right, each where it is once those
 * before it are resolved. */
static void note_links(struct gathering *g, const char *path)
{
    cleanup(freep) char *at = xstrdup(path);
    for (size_t end = 1; at[end - 1]; end++) {
        if (at[end] && at[end] != '/')
            continue;
        cleanup(freep) char *front = str_format("%.*s", (int)end, at);
        struct stat st;
        if (lstat(front, &st) != 0)
            return;
        if (!S_ISLNK(st.st_mode))
            continue;
        cleanup(freep) char *real = realpath(front, NULL);
        if (!real)
            return;
        add_link(g, front, real);
        char *next = str_format("%s%s", real, at + end);
        free(at);
        at = next;
        end = strlen(real);
    }
}

static void resolve_files(struct gathering *g)
{
    size_t missing = 0;
    vec_each (name, &g->named) {
        char *real = realpath(*name, NULL);
        struct stat st;
        json_t *text =
            real ? json_string(real) : NULL; // NULL: no UTF-8, which rules are written in
        if (!text || stat(real, &st) != 0 || !S_ISREG(st.st_mode)) {
            missing++;
            free(real);
        } else {
            if (!str_eq(real, *name))
                note_links(g, *name);
            vec_push(&g->files, real);
        }
        json_decref(text);
    }
    sort_names(g->files.items, &g->files.count);
    log_info("%zu source files of %zu named are not on this machine", missing, g->named.count);
}

/* ---- Repositories ---- */

static struct repository *need_repository(struct gathering *g, char *path)
{
    vec_each (r, &g->repositories) {
        if (str_eq(r->path, path)) {
            free(path);
            return r;
        }
    }
    struct repository *r = vec_add(&g->repositories);
    r->path = path;
    return r;
}

static void sort_into_repositories(struct gathering *g)
{
    cleanup(freep) char *last_dir = NULL, *last = NULL; // files of one directory stand together
    vec_each (f, &g->files) {
        size_t len = (size_t)(strrchr(*f, '/') - *f);
        if (!last_dir || strlen(last_dir) != len || strncmp(last_dir, *f, len) != 0) {
            free(last_dir);
            free(last);
            last_dir = str_format("%.*s", (int)len, *f);
            last = repository_of(*f);
        }
        if (last) {
            vec_push(&need_repository(g, xstrdup(last))->files, xstrdup(*f + strlen(last) + 1));
        } else {
            vec_push(&g->explicit, xstrdup(*f));
            g->outside_count++;
        }
    }
}

static bool is_allowed(const struct gathering *g, const char *path)
{
    vec_each (dir, &g->allowed)
        if (is_below(*dir, path))
            return true;
    return false;
}

static void choose_explicit(struct gathering *g)
{
    vec_each (r, &g->repositories) {
        bool whole = is_allowed(g, r->path);
        if (whole) {
            pack_say(&g->options->listener, "Copying all files in %s", r->path);
            g->outside_count += r->files.count;
        } else {
            repository_compare(r, &g->options->listener);
        }
        for (size_t i = 0; i < (whole ? r->files.count : r->changed.count); i++)
            vec_push(&g->explicit,
                     str_format("%s/%s", r->path, r->files.items[whole ? i : r->changed.items[i]]));
    }
    sort_names(g->explicit.items, &g->explicit.count);
}

/* ---- Archives ---- */

static struct err *read_source(const char *path, struct buf *out)
{
    cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return err_os("cannot read");
    if (!S_ISREG(st.st_mode) || (size_t)st.st_size > SOURCES_MOST_BYTES)
        return err_new(ERR_LIMIT, "no file, or more than %zu bytes", SOURCES_MOST_BYTES);
    buf_reserve(out, (size_t)st.st_size);
    for (ssize_t n; out->len < (size_t)st.st_size &&
                    (n = read(fd, out->data + out->len, (size_t)st.st_size - out->len)) != 0;
         out->len += (size_t)n)
        if (n < 0)
            return err_os("cannot read");
    return NULL;
}

static struct err *pack_allowed(const struct gathering *g)
{
    cleanup(freep) char *path = str_format("%s/" ARCHIVE, g->dir);
    cleanup(archive_writer_closep) struct archive_writer *w = NULL;
    TRY(make_dirs_above(path));
    TRY(archive_create(path, &w));
    vec_each (f, &g->explicit) {
        cleanup(buf_deinit) struct buf text = {0};
        if (!is_allowed(g, *f))
            continue;
        cleanup(err_freep) struct err *e = read_source(*f, &text);
        if (e)
            pack_warn(&g->options->listener, "Can't read source file %s, skipping: %s", *f,
                      err_message(e));
        else
            TRY(archive_add(w, *f, text.data, text.len));
    }
    return archive_finish(w);
}

static struct err *pack_placeholders(const struct gathering *g)
{
    enum { MOST_WARNINGS = 10 };
    cleanup(freep) char *path = str_format("%s/" PLACEHOLDERS, g->dir);
    cleanup(archive_writer_closep) struct archive_writer *w = NULL;
    cleanup(buf_deinit) struct buf dirs = {0};
    vec_each (dir, &g->allowed)
        buf_printf(&dirs, "%s\"%s\"", dirs.len ? ", " : "", *dir);
    TRY(archive_create(path, &w));
    size_t warnings = 0;
    vec_each (f, &g->explicit) {
        if (is_allowed(g, *f))
            continue;
        cleanup(freep) char *text = str_format("/* This file was not uploaded because the path %s "
                                               "is not under the allowed directories [%s] */",
                                               *f, buf_cstr(&dirs));
        TRY(archive_add(w, *f, text, strlen(text)));
        if (strstr(*f, "/.cargo/registry/src/"))
            continue;
        if (++warnings <= MOST_WARNINGS)
            pack_say(&g->options->listener,
                     "Not uploading source file %s (add an allowed source directory to the command "
                     "line?)",
                     *f);
        else if (warnings == MOST_WARNINGS + 1)
            pack_say(&g->options->listener,
                     "(too many disallowed-source-file warnings, suppressing the rest)");
    }
    return archive_finish(w);
}

/* ---- Rules ---- */

static json_t *mounts_of(const struct gathering *g)
{
    json_t *mounts = json_array();
    vec_each (r, &g->repositories) {
        if (!r->url)
            continue;
        cleanup(freep) char *at = str_format("%s/", r->path);
        json_t *mount = json_pack("{s:s, s:s}", "url", r->url, "at", at);
        if (r->suffix)
            json_object_set_new(mount, "urlSuffix", json_string(r->suffix));
        json_array_append_new(mounts, mount);
    }
    json_array_append_new(mounts, json_pack("{s:s, s:s}", "archive", ARCHIVE, "at", "/"));
    vec_each (l, &g->links)
        json_array_append_new(mounts, json_pack("{s:s, s:s}", "link", l->to, "at", l->at));
    return mounts;
}

static struct err *write_rules(const char *dir, const char *name, json_t *rules)
{
    cleanup(freep) char *path = str_format("%s/%s", dir, name),
                        *text = json_dumps(rules, JSON_INDENT(2));
    struct err *e = text ? write_file_at(path, text, strlen(text))
                         : err_new(ERR_FORMAT, "%s: cannot be written as JSON", path);
    json_decref(rules);
    return e;
}

static struct err *write_user_rules(const struct gathering *g)
{
    json_t *rules = json_pack(
        "[{s:{s:O}, s:o, s:s}, {s:{s:O}, s:[{s:s, s:s}], s:s, s:i}]", "condition", "or",
        g->programs, "files", mounts_of(g), "relevance", "Relevant", "condition", "or", g->programs,
        "files", "archive", PLACEHOLDERS, "at", "/", "relevance", "NotRelevant", "priority", 1000);
    json_array_extend(rules, g->overrides);
    return write_rules(g->dir, "sources.user", rules);
}

/* Scripts for gdb of those repositories that may be copied. */
static struct err *pack_scripts(const struct gathering *g)
{
    VEC(char *) allowed = {0};
    vec_each (r, &g->repositories) {
        if (is_allowed(g, r->path))
            vec_push(&allowed, r->path);
    }
    struct err *e = pack_gdbinit(g->dir, allowed.items, allowed.count, &g->options->listener);
    vec_deinit(&allowed);
    return e;
}

struct err *pack_sources(const char *dir, struct programs *programs,
                         const struct package_options *options)
{
    cleanup(gathering_deinit) struct gathering g = {
        .dir = dir, .options = options, .programs = json_array(), .overrides = json_array()};
    TRY(resolve_allowed(&g));
    list_files(&g, programs);
    resolve_files(&g);
    sort_into_repositories(&g);
    choose_explicit(&g);
    pack_say(&options->listener, "Packaging %zu modified and %zu non-repository files...",
             g.explicit.count - g.outside_count, g.outside_count);
    TRY(pack_allowed(&g));
    TRY(pack_placeholders(&g));
    TRY(pack_scripts(&g));
    return write_user_rules(&g);
}

struct err *pack_sources_fallback(const char *dir)
{
    cleanup(freep) char *path = str_format("%s/sources.fallback", dir);
    if (access(path, F_OK) == 0)
        return NULL;
    return write_rules(dir, "sources.fallback",
                       json_pack("[{s:i, s:[{s:s, s:s}]}]", "priority", -10, "files", "url",
                                 "/sources/", "at", "/"));
}
