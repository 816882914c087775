/* Errors: the one idiom.
 *
 * A function that can fail returns `struct err *`; NULL means success. Results go to `*out`, which
 * is touched only on success. TRY() passes an error up; who handles an error reports or drops it.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/cleanup.h"

#include <stdarg.h>

enum err_kind {
    ERR_OS,          /* a system call failed */
    ERR_FORMAT,      /* input that breaks its format */
    ERR_NOT_FOUND,   /* the thing asked for does not exist */
    ERR_FAULT,       /* no memory at that address of the recorded program */
    ERR_UNSUPPORTED, /* known and not implemented, or the machine lacks it */
    ERR_CANCELLED,   /* the asker gave up */
    ERR_LIMIT,       /* a bound was reached */
    ERR_DIVERGED,    /* replay and recording disagree */
    ERR_USAGE,       /* a bad request or command line */
};

struct err;

/** A new error; printf-style message: lower case, no full stop; what was tried, on what, why not.
 * Never NULL. */
struct err *err_new(enum err_kind kind, const char *format, ...)
    __attribute__((format(printf, 2, 3))) nodiscard;
/** As err_new(ERR_OS), with ": " and the text of errno appended. */
struct err *err_os(const char *format, ...) __attribute__((format(printf, 1, 2))) nodiscard;
/** Puts "prefix: " before the message of `e`. Takes and returns ownership; NULL stays NULL. */
struct err *err_prefix(struct err *e, const char *format, ...)
    __attribute__((format(printf, 2, 3))) nodiscard;
/** The whole message; borrowed, lives as long as `e`. */
const char *err_message(const struct err *e);
enum err_kind err_kind(const struct err *e);
/** A short stable name of a kind, as used in the protocol: "format", "not-found"... */
const char *err_kind_name(enum err_kind kind);
/** Frees `e`; NULL is fine. The way to drop an error on purpose. */
void err_free(struct err *e);
static inline void err_freep(struct err **e)
{
    err_free(*e);
}

#define TRY(expression)                     \
    do {                                    \
        struct err *try_err = (expression); \
        if (try_err)                        \
            return try_err;                 \
    } while (0)

#endif
