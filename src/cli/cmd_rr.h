#ifndef CLI_CMD_RR_H
#define CLI_CMD_RR_H

#include "trace/trace.h"

/** `pernosco rr [TRACE] dump|ps|traceinfo|pack|replay ...`; argv[0] is "rr". The exit code: 0, 1
 * failed, 2 bad usage. */
int cmd_rr(int argc, char **argv);

/** Opens a trace by its directory or name (NULL: the latest), after which the process can do no
 * more than read it. */
struct err *cmd_rr_open_trace(const char *name, struct trace **out) nodiscard;

#endif
