/* The server: the web client's files, the protocol over a WebSocket, and what users store. */
#ifndef SERVE_SERVE_H
#define SERVE_SERVE_H

#include "base/err.h"

#include <stddef.h>

struct serve_options {
    const char *trace_dir;
    const char *storage_dir;        /* NULL: what users store is lost at the end */
    const char *const *source_maps; /* pairs FROM, TO */
    size_t source_map_count;
    const char *address;        /* to listen on; "127.0.0.1" */
    int port;                   /* 0: any free one */
    const char *tunnel_address; /* a second place to listen on; NULL: none */
    int tunnel_port;
    const char *web_dir; /* NULL: found beside the program */
};

/** Serves until SIGINT or SIGTERM. Prints the address on stdout when it answers. */
struct err *serve_run(const struct serve_options *options) nodiscard;

#endif
