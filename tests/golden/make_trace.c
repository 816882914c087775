/* usage: make_trace DIR: makes the small trace of src/trace/small_trace.c, which has every kind of
 * event and both architectures, for comparison with what the real rr says of it. */
#include "trace/small_trace.h"

#include <stdio.h>
#include <sys/stat.h>

int main(int argc, char **argv)
{
    if (argc != 2 || (mkdir(argv[1], 0755) < 0 && access(argv[1], W_OK) < 0)) {
        fprintf(stderr, "usage: make_trace DIR\n");
        return 2;
    }
    small_trace_fill(argv[1], 1 << 16);
    return 0;
}
