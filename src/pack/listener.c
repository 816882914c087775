#include "pack/listener.h"

#include "base/buf.h"

static void tell(void (*hear)(void *ctx, const char *text), void *ctx, const char *format,
                 va_list args)
{
    cleanup(freep) char *text = str_vformat(format, args);
    if (hear)
        hear(ctx, text);
}

void pack_say(const struct pack_listener *l, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    tell(l->say, l->ctx, format, args);
    va_end(args);
}

void pack_warn(const struct pack_listener *l, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    tell(l->warn, l->ctx, format, args);
    va_end(args);
}
