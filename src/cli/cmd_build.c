/* `pernosco build`, `package-build`, `only-build`. */
#include "cli/cli.h"

#include "base/buf.h"
#include "index/build.h"
#include "pack/pack.h"
#include "trace/trace.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

enum { KEY_SHARDS = 256, KEY_LEVEL, KEY_SKIP_RR, KEY_CHECK, KEY_RR_LOG, KEY_COPY, KEY_DEBUGINFO, KEY_SUBSTITUTE, KEY_GDB_SCRIPT,
       KEY_GDB_INDEX };

struct arguments {
    unsigned shards;
    int level;
    bool skip_rr, stats;
    const char *trace;
    const char *refused;
};

static const struct argp_option options[] = {
    {"shards", KEY_SHARDS, "N", 0, "Index up to N segments at a time (2); 1: one process does all", 0},
    {"compression-level", KEY_LEVEL, "1..22", 0, "zstd level of the database (3)", 0},
    {"skip-rr", KEY_SKIP_RR, NULL, 0, "Do not make the trace self-contained first", 0},
    {"stats", 's', NULL, 0, "Say at the end what the build cost", 0},
    {"check-trace", KEY_CHECK, NULL, 0, "Not there yet", 1},
    {"copy-sources", KEY_COPY, "DIR", 0, "Not there yet", 1},
    {"system-debuginfo", KEY_DEBUGINFO, "REPO", 0, "Not there yet", 1},
    {"substitute", KEY_SUBSTITUTE, "LIB=PATH", 0, "Not there yet", 1},
    {"gdb-script", KEY_GDB_SCRIPT, "FILE", 0, "Not there yet", 1},
    {"skip-gdb-add-index", KEY_GDB_INDEX, NULL, 0, "Accepted: no gdb index is made", 1},
    {"builder-rr-log", KEY_RR_LOG, "V", 0, "Not there yet", 1},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    char *end;
    switch (key) {
    case KEY_SHARDS: {
        long n = strtol(arg, &end, 10);
        if (*end || n < 1 || n > 1000)
            argp_error(state, "--shards '%s' is not in range [1, 1000]", arg);
        a->shards = (unsigned)n;
        return 0;
    }
    case KEY_LEVEL:
        a->level = (int)strtol(arg, &end, 10);
        if (*end || a->level < 1 || a->level > 22) {
            fprintf(stderr, "--compression-level '%s' is not in range [1, 22]\n", arg);
            a->refused = "";
        }
        return 0;
    case KEY_SKIP_RR:
        a->skip_rr = true;
        return 0;
    case 's':
        a->stats = true;
        return 0;
    case KEY_CHECK:
        a->refused = "--check-trace";
        return 0;
    case KEY_RR_LOG:
        a->refused = "--builder-rr-log";
        return 0;
    case KEY_COPY:
        a->refused = "--copy-sources";
        return 0;
    case KEY_DEBUGINFO:
        a->refused = "--system-debuginfo";
        return 0;
    case KEY_SUBSTITUTE:
        a->refused = "--substitute";
        return 0;
    case KEY_GDB_SCRIPT:
        a->refused = "--gdb-script";
        return 0;
    case KEY_GDB_INDEX:
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

static const struct argp argp = {options, parse, "[TRACE]",
                                 "Makes a trace self-contained and its database. Without TRACE: the latest recording.", NULL, NULL, NULL};

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
    double since = (double)(now.tv_sec - d->last.tv_sec) + (double)(now.tv_nsec - d->last.tv_nsec) * 1e-9;
    if (since < (d->terminal ? 0.1 : 10))
        return;
    d->last = now;
    char left[32] = "";
    if (p->seconds_left >= 0)
        snprintf(left, sizeof(left), ", %.0f s left", p->seconds_left);
    fprintf(stderr, "%s%3.0f%%  event %llu of %llu, %.1f M instructions, %.0f M/s%s%s", d->terminal ? "\r" : "", p->share * 100,
            (unsigned long long)p->events, (unsigned long long)p->event_total, (double)p->instructions * 1e-6, p->ips * 1e-6,
            left, d->terminal ? "\033[K" : "\n");
    fflush(stderr);
}

static struct err *build(const char *dir, const struct arguments *a)
{
    struct display display = {.terminal = isatty(STDERR_FILENO)};
    clock_gettime(CLOCK_MONOTONIC, &display.last);
    struct build_options o = {.shards = a->shards, .compression_level = a->level, .progress = show_progress, .ctx = &display,
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
    printf("%llu instructions, %llu events; database of %llu bytes in %.2f s\n", (unsigned long long)stats.instructions,
           (unsigned long long)stats.events, (unsigned long long)stats.bytes, stats.wall);
    if (a->stats)
        printf("{\"instructions\": %llu, \"events\": %llu, \"segments\": %llu, \"bytes\": %llu, \"wall\": %.4f, \"cpu\": %.4f}\n",
               (unsigned long long)stats.instructions, (unsigned long long)stats.events, (unsigned long long)stats.segments,
               (unsigned long long)stats.bytes, stats.wall, stats.leader_cpu + stats.shard_cpu);
    return NULL;
}

static struct err *run(const char *command, const struct arguments *a)
{
    cleanup(freep) char *dir = NULL;
    TRY(trace_default_dir(a->trace, &dir));
    if (!str_eq(command, "only-build") && !a->skip_rr)
        TRY(pack_trace(dir));
    if (str_eq(command, "package-build"))
        return NULL;
    return build(dir, a);
}

int cmd_build(int argc, char **argv)
{
    struct arguments a = {.shards = 2, .level = 3};
    cli_parse(&argp, argc, argv, &a);
    if (a.refused)
        return *a.refused ? cli_refuse(a.refused) : 2;
    struct err *e = run(argv[0], &a);
    return e ? cli_fail(e) : 0;
}
