/* `pernosco rr`: what rr's own commands say about a trace, without rr and without the machine that
 * recorded it. */
#include "cli/cmd_rr.h"

#include <argp.h>
#include <ctype.h>
#include <errno.h>

#include "base/buf.h"
#include "base/err.h"
#include "cli/cmd_rr_replay.h"
#include "pack/pack.h"
#include "trace/dump.h"
#include "trace/trace.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

static int report(struct err *e)
{
    if (!e)
        return EXIT_SUCCESS;
    fprintf(stderr, "pernosco rr: %s\n", err_message(e));
    int code = err_kind(e) == ERR_USAGE ? EXIT_USAGE : EXIT_FAILED;
    err_free(e);
    return code;
}

/* A full disk is an error; a reader that has seen enough is not. */
static struct err *check_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return NULL;
    return errno == EPIPE ? NULL : err_os("cannot write the output");
}

struct err *cmd_rr_open_trace(const char *name, struct trace **out)
{
    cleanup(freep) char *dir = NULL;
    TRY(trace_default_dir(name, &dir));
    return trace_open_confined(dir, false, out);
}

/* The trace, if it was named behind the verb as rr wants it. */
static struct err *take_trace_argument(const char **trace, int argc, char **argv)
{
    if (argc > 1 && !*trace) {
        *trace = argv[1];
        argc--, argv++;
    }
    return argc > 1 ? err_new(ERR_USAGE, "%s: unexpected argument", argv[1]) : NULL;
}

/* ---- dump */

struct dump_args {
    struct dump_options options;
    const char *trace;
    char **specs;
    size_t spec_count;
};

static const struct argp_option dump_option_table[] = {
    {"syscallbuf", 'b', NULL, 0, "Show the records of flushed system call buffers", 0},
    {"task-events", 'e', NULL, 0, "Show how tasks are made, exec and exit", 0},
    {"recorded-metadata", 'm', NULL, 0, "Show where recorded data was written to memory", 0},
    {"mmaps", 'p', NULL, 0, "Show mappings", 0},
    {"raw", 'r', NULL, 0, "One line of numbers per event", 0},
    {"statistics", 's', NULL, 0, "Show sizes at the end", 0},
    {"tid", 't', "TID", 0, "Only events of this task", 0},
    {0},
};

static bool is_event_spec(const char *s)
{
    return isdigit((unsigned char)*s) || str_eq(s, "end");
}

static error_t parse_dump_option(int key, char *arg, struct argp_state *state)
{
    struct dump_args *a = state->input;
    char *end;
    switch (key) {
    case 'b':
        a->options.syscallbuf = true;
        return 0;
    case 'e':
        a->options.task_events = true;
        return 0;
    case 'm':
        a->options.metadata = true;
        return 0;
    case 'p':
        a->options.mmaps = true;
        return 0;
    case 'r':
        a->options.raw = true;
        return 0;
    case 's':
        a->options.statistics = true;
        return 0;
    case 't':
        a->options.only_tid = (int32_t)strtol(arg, &end, 10);
        if (end == arg || *end || a->options.only_tid <= 0)
            argp_error(state, "%s: not a task id", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (!a->trace && !a->spec_count && !is_event_spec(arg))
            a->trace = arg;
        else
            a->specs[a->spec_count++] = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp dump_argp = {
    .options = dump_option_table,
    .parser = parse_dump_option,
    .args_doc = "[EVENT|FIRST-LAST|end]...",
    .doc = "Show the events of a trace in the format of `rr dump`. Without event numbers, all of "
           "them.",
};

static int run_dump(const char *trace, int argc, char **argv)
{
    static char name[] = "pernosco rr dump"; // what argp calls the program in its messages
    argv[0] = name;
    cleanup(freep) char **specs = xnew_array(char *, (size_t)argc);
    struct dump_args a = {.trace = trace, .specs = specs};
    argp_parse(&dump_argp, argc, argv, 0, NULL, &a);
    cleanup(trace_closep) struct trace *t = NULL;
    struct err *e = cmd_rr_open_trace(a.trace, &t);
    if (!e)
        e = trace_dump(t, &a.options, a.specs, a.spec_count, stdout);
    return report(e ? e : check_output());
}

/* ---- ps, traceinfo, pack */

static int run_printer(const char *trace, int argc, char **argv,
                       struct err *(*print)(const struct trace *, FILE *))
{
    cleanup(trace_closep) struct trace *t = NULL;
    struct err *e = take_trace_argument(&trace, argc, argv);
    if (!e)
        e = cmd_rr_open_trace(trace, &t);
    if (!e)
        e = print(t, stdout);
    return report(e ? e : check_output());
}

static int run_ps(const char *trace, int argc, char **argv)
{
    return run_printer(trace, argc, argv, trace_print_processes);
}

static int run_traceinfo(const char *trace, int argc, char **argv)
{
    return run_printer(trace, argc, argv, trace_print_info);
}

static int run_pack(const char *trace, int argc, char **argv)
{
    cleanup(freep) char *dir = NULL;
    struct err *e = take_trace_argument(&trace, argc, argv);
    if (!e)
        e = trace_default_dir(trace, &dir);
    if (!e)
        e = pack_trace(dir);
    if (!e)
        fprintf(stderr, "pernosco rr: packed trace directory `%s'\n", dir);
    return report(e);
}

/* ---- verbs */

static const struct verb {
    const char *name;
    int (*run)(const char *trace, int argc,
               char **argv); /* trace: as given before the verb, or NULL */
    const char *help;
} verbs[] = {
    {"dump", run_dump, "show the events of a trace"},
    {"ps", run_ps, "list its processes"},
    {"traceinfo", run_traceinfo, "show its header as JSON"},
    {"pack", run_pack, "make it independent of files outside its directory"},
    {"replay", cmd_rr_replay, "run the recorded program again"},
};

static const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (str_eq(verbs[i].name, name))
            return &verbs[i];
    return NULL;
}

static void print_usage(FILE *out)
{
    fputs("Usage: pernosco rr [TRACE] VERB [ARGUMENT...]\n"
          "TRACE is a trace directory, or its name among the saved traces; the latest one if left "
          "out.\n\n",
          out);
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].help);
}

int cmd_rr(int argc, char **argv)
{
    argp_err_exit_status = EXIT_USAGE;
    if (argc > 1 && (str_eq(argv[1], "--help") || str_eq(argv[1], "-?"))) {
        print_usage(stdout);
        return EXIT_SUCCESS;
    }
    const struct verb *verb = argc > 1 ? find_verb(argv[1]) : NULL;
    if (verb)
        return verb->run(NULL, argc - 1, argv + 1);
    verb = argc > 2 ? find_verb(argv[2]) : NULL;
    if (verb)
        return verb->run(argv[1], argc - 2, argv + 2);
    print_usage(stderr);
    return EXIT_USAGE;
}
