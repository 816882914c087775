/* Running gdb on a moment of the past, or waiting for one. */
#ifndef GDBSTUB_SESSION_H
#define GDBSTUB_SESSION_H

#include "gdbstub/stub.h"

/**
 * Starts the user's gdb, connected to a stub, and answers it until it ends. arguments: more words
 * for its command line, NULL at the end. gdb has the terminal and the user's rights. *status_out:
 * gdb's exit status. ERR_NOT_FOUND: there is no gdb.
 */
struct err *gdb_run(const struct gdb_stub_options *options, char *const *arguments,
                    int *status_out) nodiscard;

/** Listens on an IPv4 address and port (0: any free one), says where on stdout, and answers one gdb
 * after another until SIGINT or SIGTERM. */
struct err *gdb_listen(const struct gdb_stub_options *options, const char *address,
                       int port) nodiscard;

#endif
