#include "base/files.h"

#include <errno.h>
#include <stdint.h>
#include <unistd.h>

struct err *write_all(int fd, const char *name, const void *data, size_t len)
{
    for (const uint8_t *p = data; len;) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_os("cannot write %s", name);
        p += n;
        len -= (size_t)n;
    }
    return NULL;
}
