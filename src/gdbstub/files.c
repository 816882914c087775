/* Files for gdb ("Debugging with GDB", E.7 Host I/O Packets): those of the recording that have code
 * in them, by their names there, and nothing else of this machine. gdb reads symbols from them when
 * its sysroot is "target:". */
#include "gdbstub/stub_int.h"

#include "gdbstub/hex.h"
#include "gdbstub/script.h"

#include <sys/stat.h>

/* Numbers of the protocol's own (E.13.6 Errno Values). */
enum { FILE_ENOENT = 2, FILE_EBADF = 9, FILE_EINVAL = 22, FILE_EMFILE = 24, FILE_EUNKNOWN = 9999 };

static void fail(struct gdb_stub *s, int number)
{
    char text[32];
    snprintf(text, sizeof(text), "F-1,%x", number);
    packet_send(s->link, text);
}

static int *file_of(struct gdb_stub *s, uint64_t number)
{
    return number < MOST_FILES && s->files[number] >= 0 ? &s->files[number] : NULL;
}

/* Behind "PREFIX NUMBER/"; NULL: path does not begin so. */
static const char *behind_number(const char *path, const char *prefix)
{
    if (!str_starts(path, prefix))
        return NULL;
    path += strlen(prefix);
    size_t digits = strspn(path, "0123456789");
    return digits && path[digits] == '/' ? path + digits + 1 : NULL;
}

/* "/proc/PID/NAME" or "/proc/PID/task/TID/NAME": its NAME; else NULL. There is one process for gdb,
 * whatever number it gives. */
static const char *of_process(const char *path)
{
    const char *name = behind_number(path, "/proc/"),
               *of_task = name ? behind_number(name, "task/") : NULL;
    return of_task ? of_task : name;
}

/* What the process' files of proc(5) would hold. A task's own maps gdb reads only to find the
 * kernel's vDSO, of which it has the address from the auxiliary vector: there is the recorder's
 * page, which is no whole ELF file in memory. */
static struct err *open_of_process(struct gdb_stub *s, const char *name, bool of_task, int *fd_out)
{
    cleanup(buf_deinit) struct buf text = {0};
    if (of_task)
        return script_file(&text, fd_out);
    const struct past_exec *x = past_exec_at(&s->past, s->process, s->now);
    if (str_eq(name, "maps"))
        TRY(past_maps(&s->past, s->now, s->general, &text));
    else if (str_eq(name, "cmdline") && x)
        buf_add(&text, x->arguments.data, x->arguments.len);
    else
        return err_new(ERR_NOT_FOUND, "%s is not known", name);
    return script_file(&text, fd_out);
}

static void open_file(struct gdb_stub *s, const char *args)
{
    cleanup(buf_deinit) struct buf name = {0};
    hex_read_bytes(args, &name);
    int fd, slot = 0;
    while (slot < MOST_FILES && s->files[slot] >= 0)
        slot++;
    if (slot == MOST_FILES) {
        fail(s, FILE_EMFILE);
        return;
    }
    const char *own = of_process(buf_cstr(&name));
    struct err *e = own ? open_of_process(s, own, strstr(buf_cstr(&name), "/task/"), &fd)
                        : past_open_file(&s->past, buf_cstr(&name), &fd);
    if (e) {
        err_free(e);
        fail(s, FILE_ENOENT);
        return;
    }
    s->files[slot] = fd;
    char text[32];
    snprintf(text, sizeof(text), "F%x", slot);
    packet_send(s->link, text);
}

static void read_file(struct gdb_stub *s, const char *args)
{
    uint64_t number, count, offset;
    int *fd;
    if (!read_hex(&args, &number) || *args++ != ',' || !read_hex(&args, &count) || *args++ != ',' ||
        !read_hex(&args, &offset)) {
        fail(s, FILE_EINVAL);
        return;
    }
    if (!(fd = file_of(s, number))) {
        fail(s, FILE_EBADF);
        return;
    }
    if (count > MAX_PACKET / 2) // each byte may need an escape
        count = MAX_PACKET / 2;
    cleanup(freep) uint8_t *data = xmalloc(count ? count : 1);
    ssize_t n = pread(*fd, data, count, (off_t)offset);
    if (n < 0) {
        fail(s, FILE_EUNKNOWN);
        return;
    }
    char text[32];
    snprintf(text, sizeof(text), "F%zx;", (size_t)n);
    packet_send_binary(s->link, text, data, (size_t)n);
}

static void put_big_endian(struct buf *b, uint64_t v, unsigned len)
{
    while (len--)
        buf_u8(b, (uint8_t)(v >> 8 * len));
}

/* struct stat as the protocol has it (E.13.3). */
static void stat_file(struct gdb_stub *s, const char *args)
{
    uint64_t number;
    int *fd = read_hex(&args, &number) ? file_of(s, number) : NULL;
    struct stat st;
    if (!fd || fstat(*fd, &st) != 0) {
        fail(s, FILE_EBADF);
        return;
    }
    cleanup(buf_deinit) struct buf b = {0};
    const uint64_t words[] = {0, 0, 0100444, 1,
                              0, 0, 0}; // device, inode, mode, links, owner, group, rdev
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        put_big_endian(&b, words[i], 4);
    put_big_endian(&b, (uint64_t)st.st_size, 8);
    put_big_endian(&b, 4096, 8);
    put_big_endian(&b, ((uint64_t)st.st_size + 511) / 512, 8);
    for (int i = 0; i < 3; i++)
        put_big_endian(&b, (uint64_t)st.st_mtime, 4);
    char text[32];
    snprintf(text, sizeof(text), "F%zx;", b.len);
    packet_send_binary(s->link, text, b.data, b.len);
}

static void close_file(struct gdb_stub *s, const char *args)
{
    uint64_t number;
    int *fd = read_hex(&args, &number) ? file_of(s, number) : NULL;
    if (!fd) {
        fail(s, FILE_EBADF);
        return;
    }
    close(*fd);
    *fd = -1;
    packet_send(s->link, "F0");
}

static void set_file_system(struct gdb_stub *s, const char *args)
{
    packet_send(s->link, "F0"); // there is one
}

/* What is mapped is no link. */
static void read_link(struct gdb_stub *s, const char *args)
{
    cleanup(buf_deinit) struct buf name = {0};
    hex_read_bytes(args, &name);
    const char *own = of_process(buf_cstr(&name));
    const struct past_exec *x = past_exec_at(&s->past, s->process, s->now);
    if (!own || !str_eq(own, "exe") || !x || !x->exe) {
        fail(s, own ? FILE_ENOENT : FILE_EINVAL);
        return;
    }
    char text[32];
    snprintf(text, sizeof(text), "F%zx;", strlen(x->exe));
    packet_send_binary(s->link, text, x->exe, strlen(x->exe));
}

void handle_file(struct gdb_stub *s, const char *args)
{
    static const struct {
        const char *name;
        void (*handle)(struct gdb_stub *s, const char *args);
    } calls[] = {{"open:", open_file},   {"pread:", read_file},       {"fstat:", stat_file},
                 {"close:", close_file}, {"setfs:", set_file_system}, {"readlink:", read_link}};
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        if (str_starts(args, calls[i].name)) {
            calls[i].handle(s, args + strlen(calls[i].name));
            return;
        }
    }
    packet_send(s->link, "");
}

void close_files(struct gdb_stub *s)
{
    for (int i = 0; i < MOST_FILES; i++) {
        if (s->files[i] >= 0)
            close(s->files[i]);
        s->files[i] = -1;
    }
}
