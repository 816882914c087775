/* Hexadecimal digits, of which most packets consist, and values of the queries. */
#ifndef GDBSTUB_HEX_H
#define GDBSTUB_HEX_H

#include "base/buf.h"

/** -1: c is no digit. */
static inline int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/** Bytes as pairs of digits, up to anything else; a NUL is put behind them. */
static inline void hex_read_bytes(const char *text, struct buf *out)
{
    for (; hex_digit(text[0]) >= 0 && hex_digit(text[1]) >= 0; text += 2)
        buf_u8(out, (uint8_t)(hex_digit(text[0]) << 4 | hex_digit(text[1])));
    buf_cstr(out);
}

static inline void hex_add_bytes(struct buf *out, const void *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf_printf(out, "%02x", ((const uint8_t *)data)[i]);
}

#endif
