/* The command line: global options, then a subcommand, as in Pernosco's on-premises program. */
#include "cli/cli.h"

#include "base/allocator.h"
#include "base/buf.h"
#include "base/log.h"
#include "cli/cmd_rr.h"

#include <signal.h>
#include <stdio.h>

int cli_fail(struct err *e)
{
    int status = err_kind(e) == ERR_USAGE ? 2 : err_kind(e) == ERR_CANCELLED ? 130 : 1;
    fflush(stdout);
    fprintf(stderr, "pernosco: %s\n", err_message(e));
    err_free(e);
    return status;
}

const char *cli_read_address(const char *text, const char *otherwise, char **address_out,
                             int *port_out)
{
    const char *colon = strrchr(text, ':'), *number = colon ? colon + 1 : text;
    char *end;
    long port = strtol(number, &end, 10);
    *address_out = NULL;
    if (!*number || *end || port < 0 || port > 65535)
        return number;
    *port_out = (int)port;
    if (!colon)
        *address_out = xstrdup(otherwise);
    else if (str_starts(text, "localhost:"))
        *address_out = xstrdup("127.0.0.1");
    else
        *address_out = str_format("%.*s", (int)(colon - text), text);
    return NULL;
}

enum { KEY_NO_PULL = 256, KEY_LOG, KEY_SUFFIX, KEY_USER, KEY_RUNTIME, KEY_GCLOUD, KEY_USAGE };

static error_t parse_help(int key, char *arg, struct argp_state *state)
{
    if (key != 'h' && key != KEY_USAGE)
        return ARGP_ERR_UNKNOWN;
    argp_state_help(state, stdout,
                    key == 'h' ? ARGP_HELP_STD_HELP : ARGP_HELP_USAGE | ARGP_HELP_EXIT_OK);
    return 0;
}

static const struct argp_option help_options[] = {
    {"help", 'h', NULL, 0, "Print this", -1},
    {"usage", KEY_USAGE, NULL, 0, "Print a short usage message", -1},
    {0},
};
static const struct argp help_argp = {help_options, parse_help, NULL, NULL, NULL, NULL, NULL};

/* Our own --help stands in for argp's, which knows only -?. */
static void parse_with_help(const struct argp *argp, int argc, char **argv, unsigned flags,
                            void *input)
{
    struct argp_child children[5] = {{0}};
    size_t count = 0;
    for (const struct argp_child *c = argp->children; c && c->argp && count < 3; c++)
        children[count++] = *c;
    children[count] = (struct argp_child){&help_argp, 0, NULL, 0};
    struct argp whole = *argp;
    whole.children = children;
    argp_err_exit_status = 2;
    argp_parse(&whole, argc, argv, flags | ARGP_NO_HELP, NULL, input);
}

void cli_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    char *name = argv[0];
    cleanup(freep) char *full = str_format("pernosco %s", name);
    argv[0] = full; // messages begin with it
    parse_with_help(argp, argc, argv, 0, input);
    argv[0] = name;
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} commands[] = {
    {"build", cmd_build, "make the trace self-contained and its database"},
    {"package-build", cmd_build, "only make the trace self-contained"},
    {"only-build", cmd_build, "only make the database"},
    {"serve", cmd_serve, "show the recording in a browser"},
    {"query", cmd_query, "ask one question, answered as lines of JSON"},
    {"gdb", cmd_gdb, "start gdb on a moment of the recording"},
    {"rr", cmd_rr, "look into the trace: dump, ps, traceinfo, pack, replay -a"},
    {"bom", cmd_bom, "write what this program is made of (CycloneDX)"},
    {"pull", cmd_containers, "nothing: there are no containers"},
    {"save-containers", cmd_containers, "refused: there are no containers"},
    {"load-containers", cmd_containers, "refused: there are no containers"},
};

static const struct argp_option options[] = {
    {"version", 'V', NULL, 0, "Print the version", -1},
    {NULL, 'x', NULL, 0,
     "Echo commands that are run (there are none: everything is done in this program)", 0},
    {"log", KEY_LOG, "LEVEL:FILE", 0, "Log to FILE; LEVEL is debug, info, warn or error", 0},
    {"no-pull", KEY_NO_PULL, NULL, 0,
     "Accepted for compatibility, as the following: there are no containers", 1},
    {"container-name-suffix", KEY_SUFFIX, "S", 0, NULL, 1},
    {"user", KEY_USER, "U", 0, NULL, 1},
    {"container-runtime", KEY_RUNTIME, "R", 0, NULL, 1},
    {"gcloud", KEY_GCLOUD, NULL, 0, NULL, 1},
    {0},
};

struct arguments {
    int rest;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case KEY_LOG: {
        struct err *e = log_configure(arg);
        if (e) {
            fprintf(stderr, "%s\n", err_message(e));
            err_free(e);
            exit(1);
        }
        return 0;
    }
    case 'x':
    case KEY_NO_PULL:
    case KEY_SUFFIX:
    case KEY_USER:
    case KEY_RUNTIME:
    case KEY_GCLOUD:
        return 0;
    case 'V':
        puts("pernosco " PERNOSCO_VERSION);
        exit(0);
    case ARGP_KEY_ARG:
        a->rest = state->next - 1;
        state->next = state->argc;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static char *help_filter(int key, const char *text, void *input)
{
    if (key != ARGP_KEY_HELP_POST_DOC)
        return (char *)(uintptr_t)text;
    struct buf out = {0};
    buf_str(&out, "Subcommands (each has its own --help):\n");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        buf_printf(&out, "  %-16s %s\n", commands[i].name, commands[i].what);
    return buf_steal_str(&out);
}

static const struct argp argp = {options,
                                 parse,
                                 "SUBCOMMAND [ARGUMENT...]",
                                 "An omniscient debugger for recordings made with rr.\v ",
                                 NULL,
                                 help_filter,
                                 NULL};

/* Who reads our output has seen enough: no error. (What must be finished or cleaned up, ignores
 * SIGPIPE.) */
static void on_closed_pipe(int signo)
{
    _exit(0);
}

int main(int argc, char **argv)
{
    struct arguments a = {0};
    allocator_setup();
    struct sigaction closed = {.sa_handler = on_closed_pipe};
    sigaction(SIGPIPE, &closed, NULL);
    parse_with_help(&argp, argc, argv, ARGP_IN_ORDER, &a);
    if (!a.rest) {
        argp_help(&argp, stdout, ARGP_HELP_STD_HELP & ~(ARGP_HELP_EXIT_OK | ARGP_HELP_EXIT_ERR),
                  program_invocation_short_name);
        return 2;
    }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (!str_eq(commands[i].name, argv[a.rest]))
            continue;
        return commands[i].run(argc - a.rest, argv + a.rest);
    }
    fprintf(stderr, "pernosco: there is no subcommand %s; see pernosco --help\n", argv[a.rest]);
    return 2;
}
