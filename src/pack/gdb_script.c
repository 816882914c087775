#include "pack/gdb_script.h"

#include "base/buf.h"
#include "pack/listener.h"

#include <ctype.h>

enum { MOST_LINE = 1 << 16, MOST_TOLD = 10 };

/* The rest of a line behind the words of `command`, which may have any blanks between them; NULL:
 * it is another command. */
static const char *behind(const char *line, const char *command)
{
    while (*command) {
        size_t len = strcspn(command, " ");
        if (strncmp(line, command, len) != 0 || !isspace((unsigned char)line[len]))
            return NULL;
        line += len + strspn(line + len, " \t");
        command += len + (command[len] == ' ');
    }
    return line;
}

struct err *gdb_script_directories(const char *path, const struct pack_listener *listener,
                                   char **out)
{
    cleanup(fclosep) FILE *f = fopen(path, "re");
    if (!f)
        return err_os("cannot open %s", path);
    cleanup(freep) char *dirs = NULL, *line = NULL;
    size_t cap = 0, told = 0, number = 0;
    for (ssize_t len; (len = getline(&line, &cap, f)) > 0;) {
        number++;
        if (len > MOST_LINE)
            return err_new(ERR_LIMIT, "%s: line %zu has more than %d bytes", path, number,
                           MOST_LINE);
        while (len && isspace((unsigned char)line[len - 1]))
            line[--len] = 0;
        const char *command = line + strspn(line, " \t"),
                   *value = behind(command, "set debug-file-directory");
        if (!*command || *command == '#')
            continue;
        if (value) {
            free(dirs);
            dirs = xstrdup(value);
        } else if (++told <= MOST_TOLD) {
            pack_warn(listener, "%s:%zu: not understood, passed over: %.80s", path, number,
                      command);
        }
    }
    if (ferror(f))
        return err_os("cannot read %s", path);
    *out = steal(dirs);
    return NULL;
}
