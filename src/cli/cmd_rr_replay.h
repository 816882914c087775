#ifndef CLI_CMD_RR_REPLAY_H
#define CLI_CMD_RR_REPLAY_H

/** `pernosco rr [TRACE] replay -a [--verbose] [--mode count|index] [TRACE]`; argv[0] is "replay".
 * Returns the exit status. */
int cmd_rr_replay(const char *trace, int argc, char **argv);

#endif
