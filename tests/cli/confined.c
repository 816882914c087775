/* Preloaded into the program (confined.py): when it ends, tells what it may still do. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void tell(FILE *out, const char *what, int fd)
{
    fprintf(out, "%s %s\n", what,
            fd >= 0                             ? "yes"
            : errno == EACCES || errno == EPERM ? "no"
                                                : "failed");
}

static FILE *out; /* opened before anything is given up */

__attribute__((constructor)) static void begin(void)
{
    out = fopen(getenv("CONFINED_OUT"), "we");
}

__attribute__((destructor)) static void end(void)
{
    if (!out)
        return;
    tell(out, "read", open(getenv("CONFINED_READ"), O_RDONLY));
    tell(out, "write", open(getenv("CONFINED_WRITE"), O_CREAT | O_WRONLY, 0600));
    tell(out, "read-trace", open(getenv("CONFINED_TRACE"), O_RDONLY));
    tell(out, "write-trace", open(getenv("CONFINED_TRACE"), O_RDWR));
    tell(out, "connect", socket(AF_INET, SOCK_STREAM, 0));
    fclose(out);
}
