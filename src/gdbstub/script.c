#include "gdbstub/script.h"

#include "base/files.h"
#include "query/query.h"

#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define INIT_NAME ".init-of-trace"

/* "goto" arms a jump, and any run backward makes it. Where the user has turned gdb's direction
 * around, that is another command. */
#define BACKWARD \
    "if $_gdb_setting_str(\"exec-direction\")[0] == 114\ncontinue\nelse\nreverse-continue\nend\n" /* 'r' in any language */
static const char beginning[] =
    "set debuginfod enabled off\n"
    "set confirm off\n"
    "set remotetimeout 600\n"
    "set startup-with-shell off\n"
    "define goto\n"
    "if $argc == 2\nmonitor goto $arg0 $arg1\nelse\nmonitor goto $arg0\nend\n" BACKWARD "end\n"
    "document goto\nGo to a moment: goto EVENT[+INSTRUCTIONS] [TASK]. \"when\" tells the present "
    "one.\nend\n"
    "define when\nmonitor when\nend\n"
    // As rr's gdb has them.
    "define checkpoint\nmonitor checkpoint\nend\n"
    "document checkpoint\nKeep this place; \"restart NUMBER\" comes back to it, \"monitor "
    "checkpoints\" tells of all.\nend\n"
    "define restart\nmonitor restart $arg0\n" BACKWARD "end\n"
    "document restart\nGo to a place that \"checkpoint\" has kept, by its number.\nend\n"
    "document when\nTell the moment where the program stands, as EVENT+INSTRUCTIONS.\nend\n";

void script_begin(struct buf *out, const char *dir)
{
    cleanup(freep) char *sysroot = dir ? str_format("%s/" QUERY_SYSROOT, dir) : NULL;
    if (sysroot && access(sysroot, F_OK) == 0)
        buf_printf(out, "set sysroot %s\nset solib-search-path %s/" QUERY_BY_NAME "\n", sysroot,
                   dir);
    else
        buf_str(out, "set sysroot target:\n");
    buf_str(out, beginning);
}

static void add_quoted(struct buf *b, const char *word)
{
    for (; *word; word++)
        buf_printf(b, "\\%c", *word); // gdb_buildargv: also what needs no backslash may have one
}

void script_map_sources(struct buf *out, const char *from, const char *to)
{
    if (strchr(from, '\n') || strchr(to, '\n'))
        return; // it would be two lines
    buf_str(out, "set substitute-path ");
    add_quoted(out, from);
    buf_u8(out, ' ');
    add_quoted(out, to);
    buf_u8(out, '\n');
}

typedef VEC(char *) name_list;

static void list_directory(const char *path, name_list *out)
{
    DIR *dir = opendir(path);
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        if (!str_eq(e->d_name, ".") && !str_eq(e->d_name, ".."))
            vec_push(out, xstrdup(e->d_name));
    }
    if (dir)
        closedir(dir);
}

/* Not a directory of the recorded machine. */
static bool is_own_name(const char *name)
{
    static const char *const own[] = {QUERY_RELATIVE_SOURCES, QUERY_SYSROOT, QUERY_BY_NAME,
                                      INIT_NAME};
    for (size_t i = 0; i < ARRAY_COUNT(own); i++) {
        if (str_eq(name, own[i]))
            return true;
    }
    return false;
}

void script_map_tree(struct buf *out, const char *root)
{
    cleanup(freep) char *relative = str_format("%s/" QUERY_RELATIVE_SOURCES, root);
    name_list names = {0}, directories = {0};
    list_directory(root, &names);
    list_directory(relative, &directories);
    vec_each (name, &names) {
        cleanup(freep) char *from = str_format("/%s", *name),
                            *to = str_format("%s/%s", root, *name);
        if (!is_own_name(*name))
            script_map_sources(out, from, to);
        free(*name);
    }
    vec_each (name, &directories) {
        buf_printf(out, "directory %s/%s\n", relative, *name);
        free(*name);
    }
    vec_deinit(&names);
    vec_deinit(&directories);
}

void script_printers(struct buf *out)
{
    glob_t found;
    if (glob("/usr/share/gcc*/python/libstdcxx/v6/__init__.py", 0, NULL, &found) != 0)
        return;
    const char *path = found.gl_pathv[found.gl_pathc - 1]; // the latest
    buf_printf(out,
               "python\nimport sys\nsys.path.insert(0, \"%.*s\")\nfrom libstdcxx.v6 import "
               "register_libstdcxx_printers\n"
               "try: register_libstdcxx_printers(None)\nexcept RuntimeError: pass # the user's own "
               "scripts have done so\nend\n",
               (int)(strstr(path, "/libstdcxx/") - path), path);
    globfree(&found);
}

/* Scripts in the trace call it /trace. */
struct err *source_directory_add_init(const char *dir, const char *trace_dir)
{
    static const char mark[] = "/trace/gdbinit/";
    enum { MOST = 1 << 20 };
    cleanup(freep) char *from = str_format("%s/gdbinit/.gdbinit", trace_dir),
                        *to = str_format("%s/" INIT_NAME, dir), *real = realpath(trace_dir, NULL);
    cleanup(fclosep) FILE *in = fopen(from, "re");
    if (!in || !real)
        return NULL;
    cleanup(freep) char *text = xcalloc(1, MOST);
    size_t len = fread(text, 1, MOST - 1, in);
    cleanup(buf_deinit) struct buf out = {0};
    for (const char *at = text, *next; at < text + len; at = next + strlen(mark)) {
        if (!(next = strstr(at, mark))) {
            buf_str(&out, at);
            break;
        }
        buf_add(&out, at, (size_t)(next - at));
        buf_printf(&out, "%s/gdbinit/", real);
    }
    cleanup(closep) int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_os("cannot make %s", to);
    return write_all(fd, to, out.data, out.len);
}

void script_of_trace(struct buf *out, const char *dir)
{
    cleanup(freep) char *path = str_format("%s/" INIT_NAME, dir);
    if (access(path, F_OK) == 0)
        buf_printf(out, "source %s\n", path);
}

struct err *script_file(const struct buf *text, int *out)
{
    cleanup(closep) int fd = memfd_create("gdb-text", MFD_CLOEXEC);
    if (fd < 0)
        return err_os("cannot make a file in memory");
    TRY(write_all(fd, "a file in memory", text->data, text->len));
    if (lseek(fd, 0, SEEK_SET) != 0)
        return err_os("cannot make a file in memory");
    *out = steal_fd(&fd);
    return NULL;
}

struct err *source_directory_make(char **out)
{
    const char *base = getenv("TMPDIR");
    char *dir = str_format("%s/pernosco-sources-XXXXXX", base && *base == '/' ? base : "/tmp");
    if (!mkdtemp(dir)) {
        struct err *e = err_os("cannot make a directory for sources, %s", dir);
        free(dir);
        return e;
    }
    *out = dir;
    return NULL;
}

void source_directory_remove(const char *dir)
{
    if (dir)
        err_free(remove_tree(dir)); // what is left is nobody's harm
}
