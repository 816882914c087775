/* `pernosco build`, `package-build`, `only-build`. */
#include "cli/cli.h"

#include "base/buf.h"
#include "base/cpus.h"
#include "base/log.h"
#include "index/build.h"
#include "pack/package.h"
#include "trace/trace.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

enum {
    KEY_SHARDS = 256,
    KEY_LEVEL,
    KEY_SEGMENT,
    KEY_MEMORY,
    KEY_RESTART,
    KEY_SKIP_RR,
    KEY_CHECK,
    KEY_RR_LOG,
    KEY_COPY,
    KEY_DEBUGINFO,
    KEY_SUBSTITUTE,
    KEY_GDB_SCRIPT,
    KEY_GDB_INDEX
};

struct arguments {
    unsigned shards;
    int level;
    uint64_t memory;  /* bytes */
    uint64_t segment; /* instructions */
    bool skip_rr, stats, restart, check;
    const char *log_level; /* of rr.log in the trace; NULL: there is none */
    const char *trace;
    bool refused; /* and told why */
    VEC(const char *) copy_sources;
    VEC(const char *) substitutes; /* pairs LIB, PATH */
    VEC(const char *) system_debuginfo;
    const char *gdb_script;
    VEC(char *) owned;
};

/* Of `package-build`, of `only-build`, and of both. */
static const struct argp_option package_options[] = {
    {"skip-rr", KEY_SKIP_RR, NULL, 0, "Do not copy mapped files into the trace (rr pack)", 0},
    {"copy-sources", KEY_COPY, "DIR", 0,
     "Copy the recorded programs' sources below DIR into the trace (repeatable)", 0},
    {"system-debuginfo", KEY_DEBUGINFO, "DIR", 0,
     "Unpack debug information of the recorded system's libraries, from a directory with a "
     "trace-overlay.manifest.xz (repeatable)",
     0},
    {"substitute", KEY_SUBSTITUTE, "LIB=PATH", 0,
     "Take PATH for the directory in which the program or library of that base name was compiled "
     "(repeatable)",
     0},
    {"gdb-script", KEY_GDB_SCRIPT, "FILE", 0,
     "Look for debug information where this script for gdb says (set debug-file-directory; nothing "
     "else of it counts)",
     0},
    {0},
};
static const struct argp_option index_options[] = {
    {"shards", KEY_SHARDS, "N", 0,
     "Threads that work on it (as many as there are CPUs): one replays, the others compress and "
     "write",
     0},
    {"compression-level", KEY_LEVEL, "1..22", 0, "zstd level of the database (3)", 0},
    {"segment", KEY_SEGMENT, "N", 0,
     "Instructions of a segment, at most (4000000): more make the database smaller, and first "
     "answers later",
     0},
    {"memory", KEY_MEMORY, "MB", 0,
     "Let fewer segments wait to be written if all processes together would need more than this",
     0},
    {"restart", KEY_RESTART, NULL, 0, "Begin anew, even if an interrupted build could go on", 0},
    {"stats", 's', NULL, 0, "Say at the end what the build cost, and where the database's bytes go",
     0},
    {"check-trace", KEY_CHECK, NULL, 0, "Hold the finished database against a second replay", 0},
    {"skip-gdb-add-index", KEY_GDB_INDEX, NULL, 0, "Accepted: no gdb index is made", 1},
    {"builder-rr-log", KEY_RR_LOG, "V", 0,
     "Log the replay to rr.log in the trace; V as in rr's RR_LOG, of which the levels count: "
     "all:info tells segments, all:debug events",
     0},
    {0},
};

static error_t parse_number(struct argp_state *state, const char *option, const char *arg,
                            unsigned long most, unsigned long *out)
{
    char *end;
    errno = 0;
    *out = strtoul(arg, &end, 10);
    if (*end || errno || arg[0] < '0' || arg[0] > '9' || *out < 1 || *out > most)
        argp_error(state, "%s '%s' is not in range [1, %lu]", option, arg, most);
    return 0;
}

/* The most telling of the levels in a list of MODULE:LEVEL, as rr takes it (log.cc); which of rr's
 * modules are meant, means nothing here. */
static const char *parse_rr_log(struct argp_state *state, const char *list)
{
    static const char *const levels[] = {"debug", "info", "warn", "error", "fatal"};
    size_t most = 5;
    for (const char *at = list; at; at = strchr(at, ','), at += at != NULL) {
        const char *colon = strchr(at, ':');
        size_t end = strcspn(at, ","), idx = 0;
        if (!colon || (size_t)(colon - at) > end)
            argp_error(state, "--builder-rr-log '%s' is not MODULE:LEVEL,...", list);
        size_t len = end - (size_t)(colon + 1 - at);
        while (idx < 5 && (strlen(levels[idx]) != len || strncmp(levels[idx], colon + 1, len) != 0))
            idx++;
        if (idx == 5)
            argp_error(state,
                       "--builder-rr-log '%s': levels are debug, info, warn, error and fatal",
                       list);
        most = idx < most ? idx : most;
    }
    return levels[most < 3 ? most : 3];
}

static error_t parse_index(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    unsigned long n;
    switch (key) {
    case KEY_SHARDS:
        parse_number(state, "--shards", arg, 1000, &n);
        a->shards = (unsigned)n;
        return 0;
    case KEY_LEVEL: {
        char *end;
        a->level = (int)strtol(arg, &end, 10);
        if (*end || a->level < 1 || a->level > 22) {
            fprintf(stderr, "--compression-level '%s' is not in range [1, 22]\n", arg);
            a->refused = true;
        }
        return 0;
    }
    case KEY_SEGMENT:
        parse_number(state, "--segment", arg, 1ul << 40, &n);
        a->segment = n;
        return 0;
    case KEY_MEMORY:
        parse_number(state, "--memory", arg, 1ul << 32, &n);
        a->memory = (uint64_t)n << 20;
        return 0;
    case KEY_RESTART:
        a->restart = true;
        return 0;
    case 's':
        a->stats = true;
        return 0;
    case KEY_CHECK:
        a->check = true;
        return 0;
    case KEY_RR_LOG:
        a->log_level = parse_rr_log(state, arg);
        return 0;
    case KEY_GDB_INDEX:
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void add_substitute(struct arguments *a, const char *arg)
{
    const char *eq = strchr(arg, '=');
    if (!eq || !eq[1] || eq[1] != '/') {
        fprintf(stderr, !eq || !eq[1] ? "Missing path in %s\n" : "The path in %s is not absolute\n",
                arg);
        a->refused = true;
        return;
    }
    char *name = str_format("%.*s", (int)(eq - arg), arg);
    vec_push(&a->owned, name);
    vec_push(&a->substitutes, name);
    vec_push(&a->substitutes, eq + 1);
}

static error_t parse_package(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case KEY_SKIP_RR:
        a->skip_rr = true;
        return 0;
    case KEY_COPY:
        vec_push(&a->copy_sources, arg);
        return 0;
    case KEY_DEBUGINFO:
        vec_push(&a->system_debuginfo, arg);
        return 0;
    case KEY_SUBSTITUTE:
        add_substitute(a, arg);
        return 0;
    case KEY_GDB_SCRIPT:
        a->gdb_script = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        for (int i = 0; state->root_argp->children[i].argp; i++)
            state->child_inputs[i] = a;
        return 0;
    case ARGP_KEY_ARG:
        if (a->trace)
            argp_error(state, "only one trace");
        a->trace = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp package_argp = {
    package_options, parse_package, NULL, NULL, NULL, NULL, NULL};
static const struct argp index_argp = {index_options, parse_index, NULL, NULL, NULL, NULL, NULL};

static const struct subcommand {
    const char *name;
    bool packs, indexes;
    struct argp_child children[3];
    const char *doc;
} subcommands[] = {
    {"build",
     true,
     true,
     {{&package_argp, 0, NULL, 0}, {&index_argp, 0, NULL, 0}, {0}},
     "Makes a trace self-contained and its database. Without TRACE: the latest recording."},
    {"package-build",
     true,
     false,
     {{&package_argp, 0, NULL, 0}, {0}},
     "Makes a trace self-contained. Without TRACE: the latest recording."},
    {"only-build",
     false,
     true,
     {{&index_argp, 0, NULL, 0}, {0}},
     "Makes the database of a trace. Without TRACE: the latest recording."},
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signo)
{
    interrupted = 1;
}

/* Progress: one line on a terminal, a sparse line otherwise. */
struct display {
    bool terminal;
    struct timespec last;
};

static void show_progress(void *ctx, const struct build_progress *p)
{
    struct display *d = ctx;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double since =
        (double)(now.tv_sec - d->last.tv_sec) + (double)(now.tv_nsec - d->last.tv_nsec) * 1e-9;
    if (since < (d->terminal ? 0.1 : 10))
        return;
    d->last = now;
    char left[32] = "";
    if (p->seconds_left >= 0)
        snprintf(left, sizeof(left), ", %.0f s left", p->seconds_left);
    char replay[32] = "";
    if (p->replay_share >= 0)
        snprintf(replay, sizeof(replay), ", replay %.0f%%", p->replay_share * 100);
    fprintf(stderr, "%s%s%3.0f%%  event %llu of %llu, %.1f M instructions, %.0f M/s%s%s%s",
            d->terminal ? "\r" : "", p->checking ? "checking: " : "", p->share * 100,
            (unsigned long long)p->events, (unsigned long long)p->event_total,
            (double)p->instructions * 1e-6, p->ips * 1e-6, replay, left,
            d->terminal ? "\033[K" : "\n");
    fflush(stderr);
}

/* One line of JSON. Bytes of the database by what they hold. */
static void print_stats(const struct build_stats *s)
{
    printf("{\"instructions\": %llu, \"events\": %llu, \"segments\": %llu, \"resumed\": %llu, "
           "\"bytes\": %llu, ",
           (unsigned long long)s->instructions, (unsigned long long)s->events,
           (unsigned long long)s->segments, (unsigned long long)s->resumed,
           (unsigned long long)s->bytes);
    printf("\"wall\": %.4f, \"cpu\": %.4f, \"replay\": %.4f, \"peakMemory\": %llu, \"contents\": {",
           s->wall, s->cpu, s->replay, (unsigned long long)s->peak_memory);
    for (int i = 0; i < CONTENT_COUNT; i++)
        printf("%s\"%s\": %llu", i ? ", " : "", history_content_name((enum history_content)i),
               (unsigned long long)s->contents[i]);
    puts("}}");
}

static struct err *build(const char *dir, const struct arguments *a)
{
    if (a->log_level) {
        cleanup(freep) char *spec = str_format("%s:%s/rr.log", a->log_level, dir);
        TRY(log_configure(spec));
    }
    struct trace *t;
    TRY(trace_open_confined(dir, true, &t));
    trace_close(t); // the build opens it for itself
    struct display display = {.terminal = isatty(STDERR_FILENO)};
    clock_gettime(CLOCK_MONOTONIC, &display.last);
    struct build_options o = {.shards = a->shards,
                              .compression_level = a->level,
                              .segment_icount = a->segment,
                              .memory = a->memory,
                              .restart = a->restart,
                              .check = a->check,
                              .progress = show_progress,
                              .ctx = &display,
                              .interrupted = &interrupted};
    struct build_stats stats;
    struct sigaction stop = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    signal(SIGPIPE, SIG_IGN); // that nobody reads the progress is no reason to stop
    struct err *e = index_build(dir, &o, &stats);
    if (display.terminal)
        fputs("\r\033[K", stderr);
    TRY(e);
    printf("%llu instructions, %llu events; database of %llu bytes in %.2f s\n",
           (unsigned long long)stats.instructions, (unsigned long long)stats.events,
           (unsigned long long)stats.bytes, stats.wall);
    if (a->stats)
        print_stats(&stats);
    return NULL;
}

static void say(void *ctx, const char *text)
{
    puts(text);
    fflush(stdout);
}

static void warn(void *ctx, const char *text)
{
    fprintf(stderr, "%s\n", text);
}

static struct err *package(const char *dir, const struct arguments *a)
{
    struct package_options o = {.skip_mapped_files = a->skip_rr,
                                .copy_sources = a->copy_sources.items,
                                .copy_source_count = a->copy_sources.count,
                                .substitutes = a->substitutes.items,
                                .substitute_count = a->substitutes.count / 2,
                                .gdb_script = a->gdb_script,
                                .system_debuginfo = a->system_debuginfo.items,
                                .system_debuginfo_count = a->system_debuginfo.count,
                                .listener = {.say = say, .warn = warn}};
    return package_trace(dir, &o);
}

static struct err *run(const struct subcommand *c, const struct arguments *a)
{
    cleanup(freep) char *dir = NULL;
    TRY(trace_default_dir(a->trace, &dir));
    if (c->packs)
        TRY(package(dir, a));
    return c->indexes ? build(dir, a) : NULL;
}

int cmd_build(int argc, char **argv)
{
    const struct subcommand *c = subcommands;
    while (!str_eq(c->name, argv[0]))
        c++;
    struct arguments a = {.shards = usable_cpus(), .level = 3};
    const struct argp argp = {NULL, parse, "[TRACE]", c->doc, c->children, NULL, NULL};
    cli_parse(&argp, argc, argv, &a);
    struct err *e = a.refused ? NULL : run(c, &a);
    vec_deinit(&a.copy_sources);
    vec_deinit(&a.substitutes);
    vec_deinit(&a.system_debuginfo);
    vec_each (s, &a.owned)
        free(*s);
    vec_deinit(&a.owned);
    return e ? cli_fail(e) : a.refused ? 2 : 0;
}
