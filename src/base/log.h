/* The log: log_debug("..."), log_info, log_warn, log_error. The room is taken from the file's
 * folder. One line per message on stderr, or in the file given by `--log LEVEL:FILE`. Off costs one
 * load and a branch. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/err.h"

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

extern enum log_level log_threshold;

void log_write(enum log_level level, const char *file, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_at(level, ...)                           \
    do {                                             \
        if ((level) <= log_threshold)                \
            log_write(level, __FILE__, __VA_ARGS__); \
    } while (0)
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)

/** Parses "debug|info|warn|error:FILE", opens FILE for appending. ERR_USAGE if not understood,
 * ERR_OS. */
struct err *log_configure(const char *spec) nodiscard;

#endif
