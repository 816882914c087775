/* Telling who listens. */
#ifndef PACK_LISTENER_H
#define PACK_LISTENER_H

#include "pack/package.h"

void pack_say(const struct pack_listener *l, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void pack_warn(const struct pack_listener *l, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
