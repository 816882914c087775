/* Scope-bound ownership. A local that owns something is declared with cleanup(FUNCTION); giving the
 * thing away is `*out = steal(p)`. */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define cleanup(f) __attribute__((cleanup(f)))
#define nodiscard  __attribute__((warn_unused_result))

/* Takes the pointer out of the variable P, which is NULL afterwards. */
#define steal(p)                       \
    ({                                 \
        __typeof__(p) steal_tmp = (p); \
        (p) = NULL;                    \
        steal_tmp;                     \
    })

/* Takes the file descriptor out of the variable FD, which is -1 afterwards. */
static inline int steal_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

static inline void freep(void *p)
{
    free(*(void **)p);
}

static inline void fclosep(FILE **f)
{
    if (*f)
        fclose(*f);
}

static inline void closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* Defines NAME_cleanup(struct NAME **) for use with cleanup(): destroys what the variable owns. */
#define DEFINE_CLEANUP(type, destroy)      \
    static inline void destroy##p(type *p) \
    {                                      \
        destroy(*p);                       \
    }

#endif
