/* `pernosco query TRACE NAME [ARGS]`: the protocol's queries from the command line. */
#include "cli/cli.h"

#include "base/confine.h"
#include "query/query.h"

#include <stdio.h>
#include <string.h>

struct arguments {
    const char *words[3];
    unsigned count;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    if (a->count == 3)
        argp_error(state, "too many arguments");
    a->words[a->count++] = arg;
    return 0;
}

static const struct argp argp = {NULL,
                                 parse,
                                 "TRACE NAME [ARGS]",
                                 "Asks one question (docs/protocol.md) and prints each row as a "
                                 "line of JSON. ARGS is the object of "
                                 "the query's parameters.",
                                 NULL,
                                 NULL,
                                 NULL};

static bool print_row(void *ctx, json_t *row)
{
    json_dumpf(row, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(row);
    return !ferror(stdout);
}

static struct err *ask(const struct arguments *a)
{
    json_error_t why;
    json_t *params = a->count == 3 ? json_loads(a->words[2], 0, &why) : json_object();
    if (!params)
        return err_new(ERR_USAGE, "ARGS: %s at column %d", why.text, why.column);
    cleanup(query_engine_closep) struct query_engine *q = NULL;
    struct err *e = confine(NULL, 0);
    if (!e)
        e = query_engine_open(a->words[0], NULL, &q);
    if (!e)
        e = query_engine_confine(q, NULL, 0);
    struct query_sink sink = {.row = print_row};
    if (!e)
        e = query_run(q, a->words[1], params, &sink);
    json_decref(params);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        err_free(e);
        e = err_os("cannot write the rows");
    }
    return e;
}

int cmd_query(int argc, char **argv)
{
    struct arguments a = {0};
    cli_parse(&argp, argc, argv, &a);
    if (a.count < 2) {
        fputs("pernosco: query TRACE NAME [ARGS]\n", stderr);
        return 2;
    }
    struct err *e = ask(&a);
    return e ? cli_fail(e) : 0;
}
