/* The subcommands. Each takes its own words (argv[0] is its name) and returns the exit status: 0
 * done, 1 failed, 2 bad usage. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/err.h"

#include <argp.h>

int cmd_build(int argc, char **argv); /* build, package-build and only-build, by argv[0] */
int cmd_serve(int argc, char **argv);
int cmd_query(int argc, char **argv);
int cmd_gdb(int argc, char **argv);
int cmd_bom(int argc, char **argv);
int cmd_containers(int argc,
                   char **argv); /* pull, save-containers and load-containers, by argv[0] */

/**
 * Parses a subcommand's words: prints its help or reports bad usage and ends the program, or
 * returns. -h is --help everywhere. argv[0] is the subcommand's name.
 */
void cli_parse(const struct argp *argp, int argc, char **argv, void *input);
/** Reads [ADDR:]PORT; localhost is 127.0.0.1, no address is `otherwise`. Returns NULL, or what
 * should be a port (0 to 65535) and is not. *address_out is a heap string, NULL if it failed. */
const char *cli_read_address(const char *text, const char *otherwise, char **address_out,
                             int *port_out);
/** Reports an error on stderr and frees it. Returns the exit status: 2 for ERR_USAGE, 130 for
 * ERR_CANCELLED (Ctrl-C), else 1. */
int cli_fail(struct err *e);

#endif
