/* `pernosco gdb [TRACE]`: gdb on a moment of the recording. */
#include "cli/cli.h"

#include "base/buf.h"
#include "gdbstub/session.h"
#include "query/query.h"
#include "trace/trace.h"

#include <stdio.h>

enum { KEY_AT = 256, KEY_TASK, KEY_LISTEN, KEY_SCRIPTS };

struct arguments {
    struct gdb_stub_options o;
    const char *trace;
    char *address; /* NULL: start gdb */
    int port;
    char **words; /* gdb's; borrowed; NULL: none */
    bool scripts; /* the trace's are executed */
};

static const struct argp_option options[] = {
    {"at", KEY_AT, "EVENT[+INSTR]", 0,
     "Begin at that moment (default: a fatal signal, else the program's end)", 0},
    {"task", KEY_TASK, "SERIAL", 0,
     "Of this task (task-tree tells its number; default: the one that runs then)", 0},
    {"listen", KEY_LISTEN, "[ADDR:]PORT", 0,
     "Start no gdb but wait for one, on ADDR (default 127.0.0.1); 0: any free port", 0},
    {"trace-scripts", KEY_SCRIPTS, NULL, 0,
     "Let gdb execute the scripts in the trace (gdbinit/): they may do whatever you may", 0},
    {0},
};

static void set_moment(struct arguments *a, const char *arg, struct argp_state *state)
{
    if (!gdb_read_moment(arg, &a->o.moment))
        argp_error(state, "a moment is EVENT or EVENT+INSTR, not %s", arg);
    a->o.at_first_focus = false;
}

static void set_task(struct arguments *a, const char *arg, struct argp_state *state)
{
    char *end;
    unsigned long task = strtoul(arg, &end, 10);
    if (*arg < '0' || *arg > '9' || *end || task > UINT32_MAX)
        argp_error(state, "'%s' is not the number of a task", arg);
    a->o.task = (uint32_t)task;
}

static void set_listen(struct arguments *a, const char *arg, struct argp_state *state)
{
    free(a->address);
    const char *wrong = cli_read_address(arg, "127.0.0.1", &a->address, &a->port);
    if (wrong)
        argp_error(state, "'%s' is not a valid port", wrong);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case KEY_AT:
        set_moment(a, arg, state);
        return 0;
    case KEY_TASK:
        set_task(a, arg, state);
        return 0;
    case KEY_SCRIPTS:
        a->scripts = true;
        return 0;
    case KEY_LISTEN:
        set_listen(a, arg, state);
        return 0;
    case ARGP_KEY_ARG:
        if (a->trace)
            argp_error(state, "only one trace; words for gdb come behind --");
        a->trace = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {options,
                                 parse,
                                 "[TRACE] [-- GDB-ARGUMENT...]",
                                 "Starts gdb on a recording. What it shows is the past: "
                                 "breakpoints, watchpoints and reverse commands work, "
                                 "functions can be called and memory changed, which is forgotten "
                                 "when time goes on. `goto EVENT[+INSTR]` goes to a "
                                 "moment, `when` tells it.",
                                 NULL,
                                 NULL,
                                 NULL};

static struct err *show(struct arguments *a, int *status)
{
    cleanup(freep) char *dir = NULL;
    cleanup(query_engine_closep) struct query_engine *q = NULL;
    TRY(trace_default_dir(a->trace, &dir));
    TRY(query_engine_open(dir, NULL, &q));
    a->o.q = q;
    a->o.scripts_of = a->scripts ? dir : NULL;
    if (a->address)
        return gdb_listen(&a->o, a->address, a->port);
    return gdb_run(&a->o, a->words, status);
}

int cmd_gdb(int argc, char **argv)
{
    struct arguments a = {.o = {.at_first_focus = true}};
    for (int i = 1; i < argc && !a.words; i++) {
        if (str_eq(argv[i], "--")) {
            a.words = argv + i + 1;
            argc = i;
        }
    }
    cli_parse(&argp, argc, argv, &a);
    int status = 0;
    struct err *e = show(&a, &status);
    free(a.address);
    return e ? cli_fail(e) : status;
}
