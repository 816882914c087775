#include "base/log.h"

#include "base/buf.h"

#include <string.h>
#include <time.h>

enum log_level log_threshold = LOG_WARN;
static FILE *log_file; /* NULL: stderr. Set once, before any thread starts. */

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_write(enum log_level level, const char *file, const char *format, ...)
{
    const char *base = strrchr(file, '/');
    const char *room = base ? base : file;
    while (base && room > file && room[-1] != '/')
        room--;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm tm;
    gmtime_r(&now.tv_sec, &tm);
    va_list args;
    va_start(args, format);
    cleanup(freep) char *text = str_vformat(format, args);
    va_end(args);
    fprintf(log_file ? log_file : stderr, "%02d:%02d:%02d.%03ld %s %.*s: %s\n", tm.tm_hour,
            tm.tm_min, tm.tm_sec, now.tv_nsec / 1000000, level_names[level],
            base ? (int)(base - room) : 0, room, text);
    fflush(log_file ? log_file : stderr);
}

struct err *log_configure(const char *spec)
{
    const char *colon = strchr(spec, ':');
    if (colon) {
        for (int level = LOG_ERROR; level <= LOG_DEBUG; level++) {
            if (strlen(level_names[level]) != (size_t)(colon - spec) ||
                strncmp(level_names[level], spec, (size_t)(colon - spec)) != 0)
                continue;
            FILE *f = fopen(colon + 1, "ae");
            if (!f)
                return err_os("cannot open log file %s", colon + 1);
            log_file = f;
            log_threshold = (enum log_level)level;
            return NULL;
        }
    }
    return err_new(ERR_USAGE, "Log option not understood: %s", spec);
}
