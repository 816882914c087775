/* Git is run as a program, with a list of words and no shell. The repository may be anybody's: what
 * its configuration would have git start for these commands is turned off, and git itself refuses
 * other users' repositories. */
#include "pack/repository.h"

#include "base/log.h"
#include "pack/listener.h"

#include <fcntl.h>
#include <regex.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

char *repository_of(const char *file)
{
    cleanup(freep) char *dir = xstrdup(file);
    for (char *slash; (slash = strrchr(dir, '/')) && slash > dir;) {
        *slash = 0;
        cleanup(freep) char *git =
            str_format("%s/.git", dir); // a file in submodules and work trees
        if (access(git, F_OK) == 0)
            return steal(dir);
    }
    return NULL;
}

void repository_deinit(struct repository *r)
{
    vec_each (f, &r->files)
        free(*f);
    vec_deinit(&r->files);
    vec_deinit(&r->changed);
    free(r->path);
    free(r->url);
    free(r->suffix);
}

/* ---- Running git ---- */

/* What git prints, in parts that end in `delimiter`. */
typedef bool part_visitor(void *arg, char *part); /* false: enough */

static bool run_git(const struct repository *r, const char *const *words, int delimiter,
                    part_visitor *visit, void *arg)
{
    const char *argv[20] = {"git",
                            "-c",
                            "core.fsmonitor=false",
                            "-c",
                            "core.hooksPath=/dev/null",
                            "-c",
                            "core.pager=cat",
                            "-C",
                            r->path};
    size_t count = 9;
    for (; *words; words++)
        argv[count++] = *words;
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return false;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipes[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    pid_t pid;
    int failed = posix_spawnp(&pid, "git", &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(pipes[1]);
    FILE *out = fdopen(pipes[0], "r");
    if (failed || !out) {
        log_info("cannot run git: %s", strerror(failed));
        close(pipes[0]);
        return false;
    }
    cleanup(freep) char *part = NULL;
    size_t cap = 0;
    bool more = true;
    for (ssize_t len; more && (len = getdelim(&part, &cap, delimiter, out)) > 0;) {
        if (part[len - 1] == delimiter)
            part[len - 1] = 0;
        more = visit(arg, part);
    }
    fclose(out); // what git has still to say is refused by the pipe, and ends it
    int status = -1;
    waitpid(pid, &status, 0);
    return !more || status == 0;
}

/* ---- Hosts ---- */

/* Where a host shows the files of a revision: start, the project (part 2 of the match), middle, the
 * revision, "/". */
static const struct host {
    const char *pattern, *start, *middle, *suffix;
} hosts[] = {
    {"^(https://github\\.com/|git@github\\.com:|ssh://git@github\\.com/)([^/]+/.+)$",
     "https://raw.githubusercontent.com/", "/", NULL},
    {"^(https://gitlab\\.com/|git@gitlab\\.com:|ssh://git@gitlab\\.com/)([^/]+/.+)$",
     "https://gitlab.com/", "/raw/", NULL},
    {"^(https://)([^./]+\\.googlesource\\.com/.+)$", "https://", "/+/", "?format=TEXT"},
};

static const struct host *host_of(const char *url, char **project_out)
{
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        regex_t pattern;
        regmatch_t match[3];
        if (regcomp(&pattern, hosts[i].pattern, REG_EXTENDED) != 0)
            continue;
        bool fits = regexec(&pattern, url, 3, match, 0) == 0;
        regfree(&pattern);
        if (!fits)
            continue;
        size_t len = strlen(url);
        const char *start = url + match[2].rm_so;
        bool ends_in_git = len > 4 && str_eq(url + len - 4, ".git") && !hosts[i].suffix;
        *project_out = str_format("%.*s", (int)(url + len - (ends_in_git ? 4 : 0) - start), start);
        return &hosts[i];
    }
    return NULL;
}

struct remote {
    char *name, *project;
    const struct host *host;
};

struct remotes {
    struct remote *items;
    size_t count, cap;
};

/* "NAME\tURL (fetch)" */
static bool add_remote(void *arg, char *line)
{
    struct remotes *remotes = arg;
    char *tab = strchr(line, '\t'), *blank = tab ? strrchr(tab, ' ') : NULL;
    if (!blank || !str_eq(blank, " (fetch)"))
        return true;
    *tab = *blank = 0;
    char *project;
    const struct host *host = host_of(tab + 1, &project);
    if (host)
        vec_push(remotes, (struct remote){xstrdup(line), project, host});
    return true;
}

/* ---- The revision that a host has ---- */

struct revision {
    const struct remotes *remotes;
    char *id;
    const struct remote *remote;
};

/* "ID NAME, NAME": the first with a branch refs/remotes/REMOTE/... of a known remote. */
static bool find_revision(void *arg, char *line)
{
    static const char prefix[] = "refs/remotes/";
    struct revision *r = arg;
    char *names = strchr(line, ' ');
    for (char *at = names; at && (at = strstr(at, prefix)); at++) {
        const char *name = at + strlen(prefix);
        for (size_t i = 0; i < r->remotes->count; i++) {
            size_t len = strlen(r->remotes->items[i].name);
            if (strncmp(name, r->remotes->items[i].name, len) != 0 || name[len] != '/')
                continue;
            *names = 0;
            r->id = xstrdup(line);
            r->remote = &r->remotes->items[i];
            return false;
        }
    }
    return true;
}

/* ---- What differs ---- */

struct difference {
    struct repository *r;
    bool *differs; /* per file */
    size_t count;
    bool skip; /* the next part is a name before renaming */
};

static int compare_names(const void *x, const void *y)
{
    return strcmp(*(char *const *)x, *(char *const *)y);
}

static bool add_difference(void *arg, char *name)
{
    struct difference *d = arg;
    struct repository *r = d->r;
    char **found = r->files.count ? bsearch(&name, r->files.items, r->files.count,
                                            sizeof(*r->files.items), compare_names)
                                  : NULL;
    size_t idx = found ? (size_t)(found - r->files.items) : 0;
    if (found && !d->differs[idx]) {
        d->differs[idx] = true;
        d->count++;
    }
    return true;
}

/* "XY NAME", and after renames and copies the name before. */
static bool add_status(void *arg, char *part)
{
    struct difference *d = arg;
    bool is_old_name = d->skip;
    d->skip = !is_old_name && (part[0] == 'R' || part[0] == 'C');
    return is_old_name || strlen(part) < 4 || add_difference(arg, part + 3);
}

static void take_all(struct repository *r)
{
    for (size_t i = 0; i < r->files.count; i++)
        vec_push(&r->changed, i);
}

/* False: git failed, and nothing is known. */
static bool compare_with(struct repository *r, const struct revision *revision,
                         const struct pack_listener *listener)
{
    const struct host *host = revision->remote->host;
    cleanup(freep) char *url =
        str_format("%s%s%s%s/", host->start, revision->remote->project, host->middle, revision->id);
    cleanup(freep) bool *committed = xnew_array(bool, r->files.count + 1),
                        *changed = xnew_array(bool, r->files.count + 1);
    struct difference a = {.r = r, .differs = committed}, b = {.r = r, .differs = changed};
    if (!run_git(r,
                 (const char *const[]){"diff", "--no-ext-diff", "--no-renames", "--name-only", "-z",
                                       revision->id, "HEAD", NULL},
                 0, add_difference, &a) ||
        !run_git(r,
                 (const char *const[]){"status", "--untracked-files=all", "--ignored",
                                       "--porcelain", "-z", NULL},
                 0, add_status, &b))
        return false;
    for (size_t i = 0; i < r->files.count; i++)
        if (committed[i] || changed[i])
            vec_push(&r->changed, i);
    cleanup(freep) char *counts =
        str_format(" %zu files with committed changes, %zu files changed since HEAD, %zu overall",
                   a.count, b.count, r->changed.count);
    pack_say(listener,
             "Git repo at %s: Checking for source files changed since revision %s in remote %s "
             "(access via %s)...%s",
             r->path, revision->id, revision->remote->name, url,
             r->changed.count ? counts : " no changes");
    r->url = steal(url);
    r->suffix = host->suffix ? xstrdup(host->suffix) : NULL;
    return true;
}

void repository_compare(struct repository *r, const struct pack_listener *listener)
{
    struct remotes remotes = {0};
    struct revision revision = {.remotes = &remotes};
    bool is_known = run_git(r, (const char *const[]){"remote", "--verbose", NULL}, '\n', add_remote,
                            &remotes) &&
                    remotes.count;
    if (is_known)
        run_git(r,
                (const char *const[]){"log", "--no-show-signature", "--decorate=full",
                                      "--format=%H %D", NULL},
                '\n', find_revision, &revision);
    if (!is_known)
        pack_say(listener, "No remotes found for Git repo %s, packaging files instead...", r->path);
    if (!is_known || !revision.id || !compare_with(r, &revision, listener)) {
        if (is_known)
            pack_say(listener,
                     "Can't find usable remote master for Git repo %s, packaging files instead...",
                     r->path);
        take_all(r);
    }
    free(revision.id);
    vec_each (remote, &remotes) {
        free(remote->name);
        free(remote->project);
    }
    vec_deinit(&remotes);
}
