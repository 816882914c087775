#ifndef CLI_CMD_RR_H
#define CLI_CMD_RR_H

/** `pernosco rr [TRACE] dump|ps|traceinfo|pack|replay ...`; argv[0] is "rr". The exit code: 0, 1 failed, 2 bad usage. */
int cmd_rr(int argc, char **argv);

#endif
