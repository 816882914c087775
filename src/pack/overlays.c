/* An overlay is a tar archive from somewhere else, and its entries name paths. Each is unpacked
 * below the trace's directory or not at all:
 *
 * (1) names are relative, without "..", and no file that the recorder wrote is replaced; (2) the
 * directory of an entry is opened without following symbolic links (openat2(2)), so it is where its
 * name says; (3) a symbolic link's target is relative and has ".." only at its start, at most as
 * often as the link is deep. By (2) it starts inside, and
 *     from there only names lead on, of which links again lead inside. So reading never leaves the trace either. */
#include "pack/overlays.h"

#include "pack/listener.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define MANIFEST "trace-overlay.manifest.xz"

enum { MOST_MANIFEST_BYTES = 256 << 20, MOST_ENTRIES = 4 << 20, READ_SIZE = 1 << 16 };
static const int64_t most_bytes = 64ll << 30; /* of all files of one overlay */

static void archive_freep(struct archive **a)
{
    archive_read_free(*a);
}

static struct err *archive_error(struct archive *a, const char *path)
{
    const char *text = archive_error_string(a);
    return err_new(ERR_FORMAT, "%s: %s", path, text ? text : "damaged");
}

/* ---- The manifest ---- */

static struct err *read_manifest(const char *path, json_t **out)
{
    cleanup(archive_freep) struct archive *a = archive_read_new();
    struct archive_entry *entry;
    archive_read_support_format_raw(a);
    archive_read_support_filter_xz(a);
    if (access(path, R_OK) != 0)
        return err_os("cannot open %s", path);
    if (archive_read_open_filename(a, path, READ_SIZE) != ARCHIVE_OK ||
        archive_read_next_header(a, &entry) != ARCHIVE_OK)
        return archive_error(a, path);
    cleanup(buf_deinit) struct buf text = {0};
    for (;;) {
        buf_reserve(&text, READ_SIZE);
        ssize_t n = archive_read_data(a, text.data + text.len, READ_SIZE);
        if (n < 0)
            return archive_error(a, path);
        if (n == 0)
            break;
        text.len += (size_t)n;
        if (text.len > MOST_MANIFEST_BYTES)
            return err_new(ERR_LIMIT, "%s: more than %d bytes", path, MOST_MANIFEST_BYTES);
    }
    json_error_t error;
    *out = json_loadb((const char *)text.data, text.len, 0, &error);
    return *out ? NULL : err_new(ERR_FORMAT, "%s: line %d: %s", path, error.line, error.text);
}

/* Whether one of the build ids is that of a program. */
static bool fits(const struct programs *programs, json_t *ids)
{
    size_t i;
    json_t *id;
    json_array_foreach(ids, i, id)
    {
        const char *text = json_string_value(id);
        vec_each (p, &programs->files) {
            const char *own = sym_module_build_id(p->sym);
            if (text && own && strcasecmp(text, own) == 0)
                return true;
        }
    }
    return false;
}

/* ---- Names ---- */

static bool is_of_recording(const char *name)
{
    static const char *const files[] = {"events", "data",    "mmaps",
                                        "tasks",  "version", "incomplete"};
    static const char *const starts[] = {"mmap_", "cloned_data_", "db"};
    size_t len = strcspn(name, "/");
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        if (strlen(files[i]) == len && strncmp(name, files[i], len) == 0)
            return true;
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++)
        if (str_starts(name, starts[i]))
            return true;
    return false;
}

/* Splits off the next part of a path; NULL: there are no more. "." and "" are passed over. */
static const char *next_part(const char **path, size_t *len_out)
{
    for (;;) {
        *path += strspn(*path, "/");
        *len_out = strcspn(*path, "/");
        const char *part = *path;
        *path += *len_out;
        if (!*len_out)
            return NULL;
        if (*len_out != 1 || part[0] != '.')
            return part;
    }
}

/* The name without "." and double slashes; heap string. depth_out: directories above it. */
static struct err *plain_name(const char *name, char **out, size_t *depth_out)
{
    cleanup(buf_deinit) struct buf plain = {0};
    size_t len, count = 0;
    const char *at = name ? name : "/";
    if (at[0] == '/')
        return err_new(ERR_FORMAT, "entry %.200s has no relative name", at);
    for (const char *part; (part = next_part(&at, &len)); count++) {
        if (len == 2 && part[0] == '.' && part[1] == '.')
            return err_new(ERR_FORMAT, "entry %.200s would lie outside of the trace", name);
        buf_printf(&plain, "%s%.*s", plain.len ? "/" : "", (int)len, part);
    }
    if (plain.len && is_of_recording(buf_cstr(&plain)))
        return err_new(ERR_FORMAT, "entry %.200s would replace a file of the recording", name);
    *out = buf_steal_str(&plain);
    *depth_out = count ? count - 1 : 0;
    return NULL;
}

static struct err *check_target(const char *name, const char *target, size_t depth)
{
    bool has_name = false;
    size_t len;
    const char *at = target;
    bool is_inside = target[0] && target[0] != '/';
    for (const char *part; is_inside && (part = next_part(&at, &len));) {
        bool is_up = len == 2 && part[0] == '.' && part[1] == '.';
        if (is_up && (has_name || depth-- == 0))
            is_inside = false;
        has_name |= !is_up;
    }
    return is_inside
               ? NULL
               : err_new(ERR_FORMAT, "entry %.200s is a link that may lead out of the trace", name);
}

/* ---- Unpacking ---- */

struct unpacking {
    struct archive *archive;
    const char *path; /* of the overlay */
    int dir;          /* the trace's */
    int64_t bytes;
};

/* Opens a directory below the trace's, without following links; makes what is not there. */
static struct err *open_directory(const struct unpacking *u, const char *name, int *out)
{
    cleanup(closep) int dir = fcntl(u->dir, F_DUPFD_CLOEXEC, 0);
    const char *at = name;
    size_t len;
    for (const char *part; dir >= 0 && (part = next_part(&at, &len));) {
        cleanup(freep) char *one = str_format("%.*s", (int)len, part);
        const struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                                     .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH};
        if (mkdirat(dir, one, 0777) != 0 && errno != EEXIST)
            return err_os("cannot make directory %s", name);
        int next = (int)syscall(SYS_openat2, dir, one, &how, sizeof(how));
        if (next < 0)
            return err_os("cannot open directory %s", name);
        close(dir);
        dir = next;
    }
    if (dir < 0)
        return err_os("cannot open directory %s", name);
    *out = steal_fd(&dir);
    return NULL;
}

/* Opens the directory of a name, and yields its last part. */
static struct err *open_parent(const struct unpacking *u, const char *name, int *out,
                               const char **base_out)
{
    const char *slash = strrchr(name, '/');
    cleanup(freep) char *parent = str_format("%.*s", slash ? (int)(slash - name) : 0, name);
    *base_out = slash ? slash + 1 : name;
    return open_directory(u, parent, out);
}

static struct err *write_data(struct unpacking *u, int fd, const char *name)
{
    const void *block;
    size_t len;
    int64_t off;
    int status;
    while ((status = archive_read_data_block(u->archive, &block, &len, &off)) == ARCHIVE_OK) {
        if (off < 0 || (u->bytes += (int64_t)len) > most_bytes || off > most_bytes)
            return err_new(ERR_LIMIT, "more than %" PRId64 " bytes", most_bytes);
        for (size_t done = 0; done < len;) {
            ssize_t n = pwrite(fd, (const uint8_t *)block + done, len - done, off + (int64_t)done);
            if (n < 0 && errno != EINTR)
                return err_os("cannot write %s", name);
            done += n > 0 ? (size_t)n : 0;
        }
    }
    return status == ARCHIVE_EOF ? NULL : archive_error(u->archive, u->path);
}

/* Makes a file, symbolic link or hard link `base` in `parent`, where nothing has that name any
 * more. */
static struct err *make_entry(struct unpacking *u, struct archive_entry *entry, int parent,
                              const char *base, const char *name, size_t depth)
{
    const char *hard = archive_entry_hardlink(entry), *target = archive_entry_symlink(entry);
    if (hard) {
        cleanup(freep) char *other = NULL;
        cleanup(closep) int other_parent = -1;
        const char *other_base;
        size_t other_depth;
        TRY(plain_name(hard, &other, &other_depth));
        TRY(open_parent(u, other, &other_parent, &other_base));
        return linkat(other_parent, other_base, parent, base, 0) == 0
                   ? NULL
                   : err_os("cannot link %s to %s", name, hard);
    }
    if (archive_entry_filetype(entry) == AE_IFLNK) {
        TRY(check_target(name, target ? target : "", depth));
        return symlinkat(target, parent, base) == 0 ? NULL : err_os("cannot make link %s", name);
    }
    if (archive_entry_filetype(entry) != AE_IFREG)
        return err_new(ERR_FORMAT, "entry %.200s is neither file nor directory nor link", name);
    cleanup(closep) int fd = openat(parent, base, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return err_os("cannot create %s", name);
    return write_data(u, fd, name);
}

static struct err *unpack_entry(struct unpacking *u, struct archive_entry *entry)
{
    cleanup(freep) char *name = NULL;
    cleanup(closep) int parent = -1;
    const char *base;
    size_t depth;
    TRY(plain_name(archive_entry_pathname(entry), &name, &depth));
    if (!*name)
        return NULL; // the trace's directory itself
    if (archive_entry_filetype(entry) == AE_IFDIR)
        return open_directory(u, name, &parent);
    TRY(open_parent(u, name, &parent, &base));
    const char *hard = archive_entry_hardlink(entry);
    if (hard && str_eq(hard, name))
        return NULL;
    if (unlinkat(parent, base, 0) != 0 && errno != ENOENT)
        return err_os("cannot replace %s", name);
    return make_entry(u, entry, parent, base, name, depth);
}

static struct err *unpack(const char *dir, const char *path)
{
    cleanup(archive_freep) struct archive *a = archive_read_new();
    cleanup(closep) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    archive_read_support_format_tar(a);
    archive_read_support_filter_xz(a);
    if (fd < 0)
        return err_os("cannot open %s", dir);
    if (access(path, R_OK) != 0)
        return err_os("cannot open %s", path);
    if (archive_read_open_filename(a, path, READ_SIZE) != ARCHIVE_OK)
        return archive_error(a, path);
    struct unpacking u = {.archive = a, .path = path, .dir = fd};
    struct archive_entry *entry;
    int status;
    for (size_t count = 0; (status = archive_read_next_header(a, &entry)) == ARCHIVE_OK; count++) {
        if (count > MOST_ENTRIES)
            return err_new(ERR_LIMIT, "%s: more than %d entries", path, MOST_ENTRIES);
        TRY(err_prefix(unpack_entry(&u, entry), "%s", path));
    }
    return status == ARCHIVE_EOF ? NULL : archive_error(a, path);
}

/* ---- All that fit ---- */

static int compare_names(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

static void json_freep(json_t **j)
{
    json_decref(*j);
}

struct err *pack_overlays(const char *dir, const struct programs *programs, const char *repository,
                          const struct pack_listener *listener)
{
    struct stat st;
    if (strstr(repository, "://") || stat(repository, &st) != 0 || !S_ISDIR(st.st_mode))
        return err_new(ERR_USAGE,
                       "cannot take debug information from %s: only directories are read",
                       repository);
    cleanup(freep) char *path = str_format("%s/" MANIFEST, repository);
    cleanup(json_freep) json_t *manifest = NULL;
    TRY(read_manifest(path, &manifest));
    json_t *overlays = json_object_get(manifest, "overlays"), *ids;
    if (!json_is_object(overlays))
        return err_new(ERR_FORMAT, "%s: no overlays", path);
    VEC(const char *) names = {0};
    const char *name;
    json_object_foreach(overlays, name, ids) if (fits(programs, ids)) vec_push(&names, name);
    if (names.count)
        qsort(names.items, names.count, sizeof(*names.items), compare_names);
    struct err *e = NULL;
    for (size_t i = 0; i < names.count && !e; i++) {
        cleanup(freep) char *overlay = str_format("%s/%s", repository, names.items[i]);
        if (strchr(names.items[i], '/'))
            e = err_new(ERR_FORMAT, "%s: overlay %.200s is not in that directory", path,
                        names.items[i]);
        if (!e)
            pack_say(listener, "Unpacking %s into trace...", overlay);
        if (!e)
            e = unpack(dir, overlay);
    }
    vec_deinit(&names);
    return e;
}
