#include "pack/listener.h"

#include "base/buf.h"

void pack_say(const struct pack_listener *l, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cleanup(freep) char *text = str_vformat(format, args);
    va_end(args);
    if (l->say)
        l->say(l->ctx, text);
}

void pack_warn(const struct pack_listener *l, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cleanup(freep) char *text = str_vformat(format, args);
    va_end(args);
    if (l->warn)
        l->warn(l->ctx, text);
}
