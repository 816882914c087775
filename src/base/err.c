#include "base/err.h"

#include "base/buf.h"

#include <errno.h>
#include <string.h>

struct err {
    enum err_kind kind;
    char *message;
};

static struct err *make(enum err_kind kind, char *message)
{
    struct err *e = xnew(struct err);
    e->kind = kind;
    e->message = message;
    return e;
}

struct err *err_new(enum err_kind kind, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *message = str_vformat(format, args);
    va_end(args);
    return make(kind, message);
}

struct err *err_os(const char *format, ...)
{
    int saved = errno;
    va_list args;
    va_start(args, format);
    cleanup(freep) char *what = str_vformat(format, args);
    va_end(args);
    return make(ERR_OS, str_format("%s: %s", what, strerror(saved)));
}

struct err *err_prefix(struct err *e, const char *format, ...)
{
    if (!e)
        return NULL;
    va_list args;
    va_start(args, format);
    cleanup(freep) char *prefix = str_vformat(format, args);
    va_end(args);
    char *message = str_format("%s: %s", prefix, e->message);
    free(e->message);
    e->message = message;
    return e;
}

const char *err_message(const struct err *e)
{
    return e->message;
}

enum err_kind err_kind(const struct err *e)
{
    return e->kind;
}

const char *err_kind_name(enum err_kind kind)
{
    static const char *const names[] = {
        [ERR_OS] = "os",       [ERR_FORMAT] = "format",           [ERR_NOT_FOUND] = "not-found",
        [ERR_FAULT] = "fault", [ERR_UNSUPPORTED] = "unsupported", [ERR_CANCELLED] = "cancelled",
        [ERR_LIMIT] = "limit", [ERR_DIVERGED] = "diverged",       [ERR_USAGE] = "usage",
    };
    return names[kind];
}

void err_free(struct err *e)
{
    if (!e)
        return;
    free(e->message);
    free(e);
}
