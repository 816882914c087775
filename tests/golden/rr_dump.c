/* `pernosco rr` alone, without what replay needs. */
#include "cli/cmd_rr.h"
#include "cli/cmd_rr_replay.h"

#include <stdio.h>

int cmd_rr_replay(const char *trace, int argc, char **argv)
{
    fprintf(stderr, "rr_dump: replay is not in this program\n");
    return 2;
}

int main(int argc, char **argv)
{
    return cmd_rr(argc, argv);
}
