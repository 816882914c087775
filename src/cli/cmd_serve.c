/* `pernosco serve`. */
#include "cli/cli.h"

#include "base/buf.h"
#include "serve/serve.h"
#include "trace/trace.h"

#include <stdio.h>
#include <sys/stat.h>

enum { KEY_STORAGE = 256, KEY_SOURCES, KEY_TUNNEL, DEFAULT_PORT = 3000 };

struct arguments {
    struct serve_options o;
    const char *trace;
    char *address;
    VEC(const char *) maps;
    VEC(char *) owned;
    bool failed;
};

static const struct argp_option options[] = {
    {"storage", KEY_STORAGE, "DIR", 0, "Keep notebook and layout there", 0},
    {"sources", KEY_SOURCES, "DIR|FROM=TO", 0,
     "Offer sources: DIR, or TO in place of the recorded directory FROM (repeatable)", 0},
    {"tunnel", KEY_TUNNEL, "[ADDR:]PORT", 0,
     "Listen on ADDR (default 0.0.0.0: all who can reach this machine) and PORT, too; 0: any free "
     "one. Port 3000 of 127.0.0.1, "
     "where the server is otherwise found, is then left out if it is taken, if ADDR is 127.0.0.1, "
     "or PORT is 0",
     0},
    {0},
};

static void add_sources(struct arguments *a, const char *arg)
{
    const char *eq = strchr(arg, '=');
    char *from = eq ? str_format("%.*s", (int)(eq - arg), arg) : xstrdup(arg),
         *to = xstrdup(eq ? eq + 1 : arg);
    vec_push(&a->owned, from);
    vec_push(&a->owned, to);
    if (from[0] != '/' || to[0] != '/') {
        fprintf(stderr, "Source path %s is not absolute, aborting.\n", from[0] != '/' ? from : to);
        a->failed = true;
        return;
    }
    struct stat st;
    if (stat(to, &st) != 0 || !S_ISDIR(st.st_mode)) {
        fprintf(stderr, "pernosco: source path %s is not a directory\n", to);
        a->failed = true;
        return;
    }
    vec_push(&a->maps, from);
    vec_push(&a->maps, to);
}

static void set_tunnel(struct arguments *a, const char *arg)
{
    free(a->address);
    const char *wrong = cli_read_address(arg, "0.0.0.0", &a->address, &a->o.tunnel_port);
    if (wrong) {
        fprintf(stderr, "'%s' is not a valid port\n", wrong);
        a->failed = true;
        return;
    }
    a->o.tunnel_address = a->address;
    if (a->o.tunnel_port == 0 || str_eq(a->address, "127.0.0.1"))
        a->o.port = -1;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case KEY_STORAGE:
        a->o.storage_dir = arg;
        return 0;
    case KEY_SOURCES:
        add_sources(a, arg);
        return 0;
    case KEY_TUNNEL:
        set_tunnel(a, arg);
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

static const struct argp argp = {
    options,   parse,
    "[TRACE]", "Serves a recording's database to a browser. Without TRACE: the latest recording.",
    NULL,      NULL,
    NULL};

int cmd_serve(int argc, char **argv)
{
    struct arguments a = {.o = {.address = "127.0.0.1", .port = DEFAULT_PORT}};
    cli_parse(&argp, argc, argv, &a);
    if (a.failed)
        return 1;
    a.o.source_maps = a.maps.items;
    a.o.source_map_count = a.maps.count / 2;
    cleanup(freep) char *dir = NULL;
    struct err *e = trace_default_dir(a.trace, &dir);
    a.o.trace_dir = dir;
    if (!e)
        e = serve_run(&a.o);
    vec_each (s, &a.owned)
        free(*s);
    vec_deinit(&a.owned);
    vec_deinit(&a.maps);
    free(a.address);
    return e ? cli_fail(e) : 0;
}
