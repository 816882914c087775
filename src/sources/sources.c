#include "sources/sources_int.h"

#include "base/buf.h"
#include "base/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { MOST_CONDITIONS_DEEP = 32, MOST_LINKS = 40, MOST_RULES_BYTES = 64 << 20 };

enum mount_kind { MOUNT_URL, MOUNT_ARCHIVE, MOUNT_LINK };

struct mount {
    enum mount_kind kind;
    char *at;     /* without a "/" at its end: "" is the root */
    char *to;     /* the URL, the archive's path, or the path that a link leads to */
    char *suffix; /* of a URL; "" */
    /* Of an archive, once it was needed. Guarded by sources.lock. */
    struct archive *archive;
    struct err *why;
};

struct rule {
    int64_t priority;
    size_t order; /* in which they were read */
    bool is_relevant;
    VEC(struct mount) mounts;
};

struct override {
    char *binary, *dir;
};

struct sources {
    char *dir;
    char *const *directories; /* pairs FROM, TO */
    size_t directory_count;   /* pairs */
    VEC(struct rule) rules;   /* those that hold, the first to be asked first */
    VEC(struct override) overrides;
    char *damaged; /* why files of rules are left out, or NULL */
    pthread_mutex_t lock;
};

/* ---- Conditions ---- */

static bool meets(const struct sources_programs *p, size_t idx, const json_t *condition, int depth)
{
    const char *key;
    json_t *value, *alternative;
    size_t i;
    if (!json_is_object(condition) || depth > MOST_CONDITIONS_DEEP)
        return false;
    json_object_foreach((json_t *)(uintptr_t)condition, key, value)
    {
        bool holds = false;
        const char *text = json_string_value(value);
        if (str_eq(key, "or")) {
            json_array_foreach(value, i, alternative) holds =
                holds || meets(p, idx, alternative, depth + 1);
        } else if (str_eq(key, "binary")) {
            holds = text && str_eq(p->binary(p->ctx, idx), text);
        } else if (str_eq(key, "build_id")) {
            const char *id = text ? p->build_id(p->ctx, idx) : NULL;
            holds = id && str_eq(id, text);
        } else if (str_eq(key, "compilationUnit")) {
            holds = text != NULL; // which unit asks is not known here
        }
        if (!holds)
            return false;
    }
    return true;
}

/* ---- Reading rules ---- */

static char *without_slashes(const char *path)
{
    char *copy = xstrdup(path);
    for (size_t len = strlen(copy); len && copy[len - 1] == '/'; len--)
        copy[len - 1] = 0;
    return copy;
}

/* A file in the trace: nothing that leads out of it. */
static bool stays_inside(const char *path)
{
    if (path[0] == '/')
        return false;
    for (const char *part = path; part; part = strchr(part, '/'), part += part != NULL)
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == 0))
            return false;
    return true;
}

static struct err *read_mount(const struct sources *s, const json_t *m, struct rule *rule)
{
    const char *at = json_string_value(json_object_get(m, "at")),
               *url = json_string_value(json_object_get(m, "url"));
    const char *archive = json_string_value(json_object_get(m, "archive")),
               *link = json_string_value(json_object_get(m, "link"));
    const char *suffix = json_string_value(json_object_get(m, "urlSuffix"));
    if (!at || at[0] != '/')
        return err_new(ERR_FORMAT, "a mount has no absolute path `at`");
    if (archive && !stays_inside(archive))
        return err_new(ERR_FORMAT, "archive %s is not in the trace", archive);
    struct mount mount = {.at = without_slashes(at), .suffix = xstrdup(suffix ? suffix : "")};
    if (archive)
        mount.kind = MOUNT_ARCHIVE, mount.to = str_format("%s/%s", s->dir, archive);
    else if (link)
        mount.kind = MOUNT_LINK, mount.to = without_slashes(link);
    else
        mount.kind = MOUNT_URL, mount.to = xstrdup(url ? url : "");
    vec_push(&rule->mounts, mount);
    return archive || link || url ? NULL
                                  : err_new(ERR_FORMAT, "a mount is none of url, archive and link");
}

static void rule_deinit(struct rule *r)
{
    vec_each (m, &r->mounts) {
        free(m->at);
        free(m->to);
        free(m->suffix);
        archive_close(m->archive);
        err_free(m->why);
    }
    vec_deinit(&r->mounts);
}

static struct err *read_rule(struct sources *s, const struct sources_programs *p, const json_t *r)
{
    const json_t *condition = json_object_get(r, "condition"), *files = json_object_get(r, "files");
    const char *dir = json_string_value(json_object_get(r, "overrideCompDir")),
               *relevance = json_string_value(json_object_get(r, "relevance"));
    if (!json_is_object(r))
        return err_new(ERR_FORMAT, "a rule is no object");
    bool holds = !condition;
    for (size_t i = 0; condition && i < p->count; i++) {
        if (!meets(p, i, condition, 0))
            continue;
        holds = true;
        if (dir)
            vec_push(&s->overrides, (struct override){xstrdup(p->binary(p->ctx, i)), xstrdup(dir)});
    }
    if (!holds || !files)
        return NULL;
    struct rule *rule = vec_add(&s->rules);
    rule->priority = json_integer_value(json_object_get(r, "priority"));
    rule->order = s->rules.count;
    rule->is_relevant = !relevance || !str_eq(relevance, "NotRelevant");
    size_t i;
    json_t *mount;
    json_array_foreach(files, i, mount) TRY(read_mount(s, mount, rule));
    return NULL;
}

static void json_freep(json_t **j)
{
    json_decref(*j);
}

static struct err *read_rules(struct sources *s, const struct sources_programs *p, const char *path)
{
    struct stat st;
    json_error_t error;
    if (stat(path, &st) != 0)
        return err_os("cannot open");
    if (!S_ISREG(st.st_mode) || st.st_size > MOST_RULES_BYTES)
        return err_new(ERR_LIMIT, "no file, or too large");
    cleanup(json_freep) json_t *list = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!list)
        return err_new(ERR_FORMAT, "line %d: %s", error.line, error.text);
    if (!json_is_array(list))
        return err_new(ERR_FORMAT, "no list of rules");
    size_t i;
    json_t *rule;
    json_array_foreach(list, i, rule) TRY(err_prefix(read_rule(s, p, rule), "rule %zu", i + 1));
    return NULL;
}

static int compare_rules(const void *x, const void *y)
{
    const struct rule *a = x, *b = y;
    if (a->priority != b->priority)
        return a->priority > b->priority ? -1 : 1;
    return a->order > b->order ? -1 : 1; // the later lies over the earlier
}

static int is_rules_file(const struct dirent *e)
{
    return str_starts(e->d_name, "sources.") && e->d_name[strlen("sources.")];
}

struct sources *sources_open(const char *dir, const struct sources_programs *programs,
                             const char *const *directories, size_t count)
{
    struct sources *s = xnew(struct sources);
    pthread_mutex_init(&s->lock, NULL);
    s->dir = xstrdup(dir);
    char **pairs = xnew_array(char *, 2 * count + 1);
    for (size_t i = 0; i < 2 * count; i++)
        pairs[i] = xstrdup(directories[i]);
    s->directories = pairs;
    s->directory_count = count;
    struct dirent **names = NULL;
    int found = scandir(dir, &names, is_rules_file, alphasort);
    bool has_fallback = false;
    struct buf damaged = {0};
    for (int i = 0; i < found; i++) {
        cleanup(freep) char *path = str_format("%s/%s", dir, names[i]->d_name);
        has_fallback |= str_eq(names[i]->d_name, "sources.fallback");
        struct err *e = err_prefix(read_rules(s, programs, path), "%s", names[i]->d_name);
        if (e) {
            log_warn("%s", err_message(e));
            buf_printf(&damaged, "; %s", err_message(e));
        }
        err_free(e);
        free(names[i]);
    }
    free(names);
    s->damaged = damaged.len ? buf_steal_str(&damaged) : NULL;
    if (!has_fallback) { // a trace that was not packed
        struct rule *rule = vec_add(&s->rules);
        *rule = (struct rule){.priority = -10, .is_relevant = true};
        vec_push(&rule->mounts, (struct mount){MOUNT_URL, xstrdup(""), xstrdup("/sources/"),
                                               xstrdup(""), NULL, NULL});
    }
    if (s->rules.count)
        qsort(s->rules.items, s->rules.count, sizeof(*s->rules.items), compare_rules);
    return s;
}

void sources_close(struct sources *s)
{
    if (!s)
        return;
    vec_each (r, &s->rules)
        rule_deinit(r);
    vec_deinit(&s->rules);
    vec_each (o, &s->overrides) {
        free(o->binary);
        free(o->dir);
    }
    vec_deinit(&s->overrides);
    for (size_t i = 0; i < 2 * s->directory_count; i++)
        free(s->directories[i]);
    free((void *)(uintptr_t)s->directories);
    free(s->damaged);
    pthread_mutex_destroy(&s->lock);
    free(s->dir);
    free(s);
}

const char *sources_comp_dir(const struct sources *s, const char *binary)
{
    vec_each (o, &s->overrides)
        if (str_eq(o->binary, binary))
            return o->dir;
    return NULL;
}

/* ---- The directories of --sources ---- */

/* A symbolic link must not lead out of what was offered, unless into another offered directory. */
static bool is_offered(const struct sources *s, const char *real)
{
    for (size_t i = 0; i < s->directory_count; i++) {
        cleanup(freep) char *root = realpath(s->directories[2 * i + 1], NULL);
        size_t len = root ? strlen(root) : 0;
        if (root && strncmp(real, root, len) == 0 && (real[len] == '/' || len == 1))
            return true;
    }
    return false;
}

static bool open_offered(const struct sources *s, const char *path, int *fd_out)
{
    for (size_t i = 0; i < s->directory_count; i++) {
        cleanup(freep) char *from = without_slashes(s->directories[2 * i]);
        size_t len = strlen(from);
        if (strncmp(path, from, len) != 0 || path[len] != '/')
            continue;
        cleanup(freep) char *mapped = str_format("%s%s", s->directories[2 * i + 1], path + len);
        cleanup(freep) char *real = realpath(mapped, NULL);
        if (!real || !is_offered(s, real))
            continue;
        cleanup(closep) int fd = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        struct stat st;
        if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        *fd_out = steal_fd(&fd);
        return true;
    }
    return false;
}

/* ---- Finding ---- */

/* Those that were asked and did not have it, for the reason. */
struct search {
    struct sources *s;
    struct source_place *out;
    bool only_look; /* leave out->fd alone */
    size_t links;   /* followed, over all: they may lead anywhere */
    struct buf asked;
};

/* Tells who did not have it; of very many, some. */
static void asked(struct search *f, const char *reason)
{
    if (f->asked.len < 1000)
        buf_printf(&f->asked, "; %s", reason);
}

/* What is left of `path` below the mount, without a "/" at its start; NULL: it is not there. */
static const char *below(const struct mount *m, const char *path)
{
    size_t len = strlen(m->at);
    if (strncmp(path, m->at, len) != 0 || (path[len] != '/' && path[len] != 0))
        return NULL;
    return path + len + (path[len] == '/');
}

static struct err *need_archive(struct sources *s, struct mount *m)
{
    pthread_mutex_lock(&s->lock);
    if (!m->archive && !m->why)
        m->why = archive_open(m->to, &m->archive);
    struct err *e = m->why ? err_new(err_kind(m->why), "%s", err_message(m->why)) : NULL;
    pthread_mutex_unlock(&s->lock);
    return e;
}

/* A file that holds the bytes, and is nowhere. */
static struct err *file_of(const struct buf *text, int *out)
{
    cleanup(closep) int fd = memfd_create("source", MFD_CLOEXEC);
    if (fd < 0)
        return err_os("cannot make a file in memory");
    for (size_t done = 0; done < text->len;) {
        ssize_t n = pwrite(fd, text->data + done, text->len - done, (off_t)done);
        if (n < 0)
            return err_os("cannot write a file in memory");
        done += (size_t)n;
    }
    *out = steal_fd(&fd);
    return NULL;
}

static struct err *find_in_archive(struct search *f, struct mount *m, const char *rest, bool *found)
{
    struct err *e = need_archive(f->s, m);
    if (e) {
        asked(f, err_message(e));
        err_free(e);
        return NULL;
    }
    *found = archive_has(m->archive, rest);
    if (!*found) {
        cleanup(freep) char *reason = str_format("not in %s", m->to + strlen(f->s->dir) + 1);
        asked(f, reason);
        return NULL;
    }
    if (f->only_look)
        return NULL;
    cleanup(buf_deinit) struct buf text = {0};
    TRY(archive_read(m->archive, rest, SOURCES_MOST_BYTES, &text));
    return file_of(&text, &f->out->fd);
}

static struct err *find_at_url(struct search *f, const struct mount *m, const char *rest,
                               bool *found)
{
    const char *joint = m->to[0] && m->to[strlen(m->to) - 1] == '/' ? "" : "/";
    cleanup(freep) char *url = str_format("%s%s%s%s", m->to, *rest ? joint : "", rest, m->suffix);
    if (str_starts(url, "/sources/")) {
        cleanup(closep) int fd = -1;
        *found = open_offered(f->s, url + strlen("/sources"), &fd);
        if (*found && !f->only_look)
            f->out->fd = steal_fd(&fd);
        if (!*found)
            asked(f, f->s->directory_count ? "not found in the directories given with --sources"
                                           : "no directory was given with --sources");
        return NULL;
    }
    if (!str_starts(url, "https://") && !str_starts(url, "http://"))
        asked(f, "a rule names an address that is none of the web");
    else if (!f->out->url)
        f->out->url = steal(url); // what can be shown is preferred to it
    return NULL;
}

static struct err *find(struct search *f, const char *path, bool *found);

static struct err *find_in_rule(struct search *f, const struct rule *r, const char *path,
                                bool *found)
{
    for (size_t i = r->mounts.count; i > 0 && !*found; i--) {
        struct mount *m = &r->mounts.items[i - 1];
        const char *rest = below(m, path);
        if (!rest)
            continue;
        bool had_url = f->out->url != NULL;
        if (m->kind == MOUNT_ARCHIVE) {
            TRY(find_in_archive(f, m, rest, found));
        } else if (m->kind == MOUNT_URL) {
            TRY(find_at_url(f, m, rest, found));
        } else if (f->links++ < MOST_LINKS) {
            cleanup(freep) char *target = str_format("%s%s%s", m->to, *rest ? "/" : "", rest);
            TRY(find(f, target, found));
            continue; // the rule that has it told whether it is relevant
        }
        if (*found || (!had_url && f->out->url))
            f->out->is_relevant = r->is_relevant;
    }
    return NULL;
}

static struct err *find(struct search *f, const char *path, bool *found)
{
    for (size_t i = 0; i < f->s->rules.count && !*found; i++)
        TRY(find_in_rule(f, &f->s->rules.items[i], path, found));
    return NULL;
}

bool sources_is_plain(const char *path)
{
    size_t len = strlen(path);
    return path[0] == '/' && !strstr(path, "/../") && len < PATH_MAX &&
           (len < 3 || !str_eq(path + len - 3, "/.."));
}

struct err *sources_find(struct sources *s, const char *path, struct source_place *out)
{
    struct source_place place = {.fd = -1, .is_relevant = true};
    struct search f = {.s = s, .out = &place};
    bool found = false;
    if (!sources_is_plain(path))
        return err_new(ERR_NOT_FOUND, "%.200s: not an absolute path", path);
    struct err *e = find(&f, path, &found);
    if (found && !e)
        free(steal(place.url));
    if (!found && !place.url && !e)
        e = err_new(ERR_NOT_FOUND, "%s: %s%s", path,
                    f.asked.len ? buf_cstr(&f.asked) + 2 : "no rule has it",
                    s->damaged ? s->damaged : "");
    buf_deinit(&f.asked);
    if (e) {
        free(place.url);
        return e;
    }
    *out = place;
    return NULL;
}

bool sources_is_relevant(struct sources *s, const char *path)
{
    struct source_place place = {.fd = -1, .is_relevant = true};
    struct search f = {.s = s, .out = &place, .only_look = true};
    bool found = false;
    if (sources_is_plain(path))
        err_free(find(&f, path, &found));
    buf_deinit(&f.asked);
    free(place.url);
    return place.is_relevant;
}

struct err *sources_visit(struct sources *s, const struct mount_visitor *v)
{
    vec_each (o, &s->overrides) {
        if (v->relative)
            TRY(v->relative(v->ctx, o->dir));
    }
    vec_each (r, &s->rules) {
        for (size_t i = r->mounts.count; i > 0; i--) {
            struct mount *m = &r->mounts.items[i - 1];
            if (m->kind == MOUNT_LINK && v->link)
                TRY(v->link(v->ctx, m->at, m->to));
            if (m->kind != MOUNT_ARCHIVE || !v->archive)
                continue;
            struct err *e = need_archive(s, m);
            if (!e)
                TRY(v->archive(v->ctx, m->at, m->archive));
            err_free(e);
        }
    }
    return NULL;
}
