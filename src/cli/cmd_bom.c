/* `pernosco bom`, and the subcommands about containers, of which there are none. */
#include "cli/cli.h"

#include "base/buf.h"

#include <stdio.h>

static const char *const names[] = {"db_builder.json", "app_server.json"};

/* ---- bom ---- */

/* The directory of the bills that were made with the program (tools/make-bom): beside it where it
 * was built, else as installed. */
static char *find_dir(void)
{
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    exe[n > 0 ? n : 0] = 0;
    const char *slash = strrchr(exe, '/');
    static const char *const places[] = {".", "../share/pernosco/bom"};
    for (size_t i = 0; slash && i < sizeof(places) / sizeof(places[0]); i++) {
        cleanup(freep) char *dir = str_format("%.*s/%s", (int)(slash - exe), exe, places[i]);
        cleanup(freep) char *file = str_format("%s/%s", dir, names[0]);
        if (access(file, R_OK) == 0)
            return steal(dir);
    }
    return xstrdup(PERNOSCO_BOM_DIR);
}

static struct err *copy(const char *from_dir, const char *to_dir, const char *name)
{
    cleanup(freep) char *from = str_format("%s/%s", from_dir, name),
                        *to = str_format("%s/%s", to_dir, name);
    cleanup(fclosep) FILE *in = fopen(from, "re");
    if (!in)
        return err_os("cannot open %s", from);
    cleanup(fclosep) FILE *out = fopen(to, "we");
    if (!out)
        return err_os("cannot create %s", to);
    char block[1 << 14];
    for (size_t n; (n = fread(block, 1, sizeof(block), in)) > 0;)
        if (fwrite(block, 1, n, out) != n)
            return err_os("cannot write %s", to);
    return ferror(in)         ? err_os("cannot read %s", from)
           : fflush(out) != 0 ? err_os("cannot write %s", to)
                              : NULL;
}

static error_t parse_bom(int key, char *arg, struct argp_state *state)
{
    const char **dest = state->input;
    if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    if (*dest)
        argp_error(state, "only one directory");
    *dest = arg;
    return 0;
}

int cmd_bom(int argc, char **argv)
{
    static const struct argp argp = {
        NULL,
        parse_bom,
        "[DIR]",
        "Writes db_builder.json and app_server.json into DIR (the current directory): what the "
        "program, as "
        "builder and as server with its page, is made of. CycloneDX 1.5.",
        NULL,
        NULL,
        NULL};
    const char *dest = NULL;
    cli_parse(&argp, argc, argv, &dest);
    cleanup(freep) char *dir = find_dir();
    struct err *e = NULL;
    for (size_t i = 0; i < 2 && !e; i++)
        e = copy(dir, dest ? dest : ".", names[i]);
    return e ? cli_fail(e) : 0;
}

/* ---- containers ---- */

int cmd_containers(int argc, char **argv)
{
    static const struct argp pull = {
        NULL, NULL, "",  "Does nothing: there are no containers, the program is all there is.",
        NULL, NULL, NULL};
    static const struct argp others = {
        NULL, NULL,
        "",   "Refused: there are no containers. To move the program to another machine, copy it.",
        NULL, NULL,
        NULL};
    bool is_pull = str_eq(argv[0], "pull");
    cli_parse(is_pull ? &pull : &others, argc, argv, NULL);
    if (!is_pull)
        return cli_fail(
            err_new(ERR_UNSUPPORTED,
                    "%s: there are no containers; to move the program to another machine, copy it",
                    argv[0]));
    puts("nothing to pull: there are no containers, this program is all there is");
    return 0;
}
