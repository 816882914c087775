/* Modules: the files with code in them that were mapped at any time, where they were, and their
 * symbols. */
#include "query/query_int.h"

#include "base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

bool module_is_mapped_by(const struct module *m, const struct trace_mmap *r)
{
    const struct trace_mmap *own = m->record;
    return str_eq(own->name, r->name) && own->device == r->device && own->inode == r->inode &&
           own->stat_mtime == r->stat_mtime && own->stat_size == r->stat_size;
}

static struct module *find_by_name(const struct query_engine *q, const char *name)
{
    vec_each (m, &q->modules) {
        if (str_eq((*m)->name, name))
            return *m;
    }
    return NULL;
}

/* A file has several records, the first with a file behind it tells which to read; a name may have
 * several files, one after the other. */
static struct module *find_module(const struct query_engine *q, const struct trace_mmap *record)
{
    vec_each (m, &q->modules) {
        if (module_is_mapped_by(*m, record))
            return *m;
    }
    return NULL;
}

void modules_open(struct query_engine *q)
{
    size_t count;
    const struct trace_mmap *maps = trace_mmaps(q->trace, &count);
    for (size_t i = 0; i < count; i++) {
        const struct trace_mmap *m = &maps[i];
        if (m->source != MMAP_FILE || !(m->prot & PROT_EXEC) || m->name[0] != '/' ||
            find_module(q, m))
            continue;
        struct module *module = xnew(struct module);
        module->name = xstrdup(m->name);
        module->record = m;
        module->path = trace_backing_path(q->trace, m);
        module->backing = m->backing_file;
        vec_push(&q->modules, module);
    }
}

void modules_close(struct query_engine *q)
{
    vec_each (it, &q->modules) {
        struct module *m = *it;
        sym_module_close(m->sym);
        err_free(m->why);
        vec_deinit(&m->biases);
        free(m->name);
        free(m->path);
        free(m->comp_dir);
        free(m);
    }
    vec_deinit(&q->modules);
}

/* The dynamic linker knows a library by a path that may lead over symbolic links (/lib/libz.so.1 is
 * /usr/lib/libz.so.1.2.13): then it is the one file of that base name, or of it with further
 * numbers. */
static const struct module *find_by_base_name(const struct query_engine *q, const char *path)
{
    const struct module *found = NULL;
    const char *base = strrchr(path, '/');
    size_t len = base ? strlen(base) : 0;
    for (size_t i = 0; base && i < q->modules.count; i++) {
        const struct module *m = q->modules.items[i];
        const char *end = strrchr(m->name, '/');
        if (!str_starts(end, base) || (end[len] && end[len] != '.'))
            continue;
        if (found)
            return NULL;
        found = m;
    }
    return found;
}

static struct err *lay_link(const char *root, const char *below, const char *name, const char *to)
{
    cleanup(freep) char *from = str_format("%s/%s/%s", root, below, name);
    TRY(make_directories_above(from, strlen(root), 0700));
    if (symlink(to, from) != 0 && errno != EEXIST && errno != ENOTDIR)
        return err_os("cannot make the link %s", from);
    return NULL;
}

/* By "/libx.so.1.2", and by "/libx.so.1" and "/libx.so", as the dynamic linker may know it. */
static struct err *lay_by_name(const struct query_engine *q, const char *root,
                               const struct module *m, const char *to)
{
    cleanup(freep) char *base = xstrdup(strrchr(m->name, '/'));
    do {
        if (find_by_base_name(q, base) == m)
            TRY(lay_link(root, QUERY_BY_NAME, base + 1, to));
        char *dot = strrchr(base, '.');
        if (!dot)
            break;
        *dot = 0;
    } while (strstr(base, ".so"));
    return NULL;
}

static bool is_inside(const struct query_engine *q, const struct module *m)
{
    cleanup(freep) char *trace = realpath(trace_dir(q->trace), NULL),
                        *real = m->path ? realpath(m->path, NULL) : NULL;
    return !real || (trace && str_starts(real, trace) && real[strlen(trace)] == '/');
}

struct err *query_lay_out_modules(const struct query_engine *q, const char *root, bool only_inside)
{
    cleanup(freep) char *debug = str_format("%s/debug", trace_dir(q->trace)),
                        *real_debug = realpath(debug, NULL);
    vec_each (m, &q->modules) {
        if (only_inside && !is_inside(q, *m))
            return NULL;
    }
    vec_each (m, &q->modules) {
        const char *name = (*m)->name;
        cleanup(freep) char *real = (*m)->path ? realpath((*m)->path, NULL) : NULL;
        if (!real || name[0] != '/' || strstr(name, "/../") || name[strlen(name) - 1] == '/')
            continue;
        TRY(lay_link(root, QUERY_SYSROOT, name + 1, real));
        TRY(lay_by_name(q, root, *m, real));
    }
    return real_debug ? lay_link(root, QUERY_SYSROOT, "usr/lib/debug", real_debug) : NULL;
}

/* "12/3456.debug", and nothing that leads elsewhere. */
static bool is_build_id_path(const char *text)
{
    static const char hex[] = "0123456789abcdef", letters[] = "abcdefghijklmnopqrstuvwxyz";
    size_t len = strspn(text, hex);
    if (len != 2 || text[2] != '/')
        return false;
    text += 3;
    text += strspn(text, hex);
    return *text == '.' && text[1] && !text[1 + strspn(text + 1, letters)];
}

struct err *query_open_debug(const struct query_engine *q, const char *name, int *fd_out)
{
    static const char above[] = "/.build-id/";
    const char *id = strstr(name, above);
    if (!id || !is_build_id_path(id + strlen(above)))
        return err_new(ERR_NOT_FOUND, "%.200s: no file of debug information", name);
    cleanup(freep) char *path = str_format("%s/debug%s", trace_dir(q->trace), id);
    *fd_out = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    return *fd_out < 0 ? err_new(ERR_NOT_FOUND, "%s is not in the trace", path) : NULL;
}

struct err *query_open_mapped(const struct query_engine *q, const char *name, int *fd_out)
{
    const struct module *m = find_by_name(q, name);
    if (!m)
        m = find_by_base_name(q, name);
    if (!m || !m->path)
        return err_new(ERR_NOT_FOUND, "%.200s: not among the files of the recording", name);
    int fd = open(m->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_os("cannot open %s", m->path);
    *fd_out = fd;
    return NULL;
}

static bool was_executed(const struct query_engine *q, const struct module *m)
{
    size_t count;
    const struct trace_task_event *events = trace_task_events(q->trace, &count);
    for (size_t i = 0; i < count; i++) {
        const char *exe = events[i].kind == TASK_EXEC ? exe_of(q, &events[i]) : NULL;
        if (exe && str_eq(exe, m->name))
            return true;
    }
    return false;
}

uint64_t module_tls_offset(struct query_engine *q, struct module *m)
{
    struct sym_module *sym;
    if (m->know_tls)
        return m->tls_offset;
    m->know_tls = true;
    struct err *e =
        was_executed(q, m) ? module_sym(q, m, &sym) : err_new(ERR_NOT_FOUND, "a library");
    if (!e)
        e = sym_module_tls_offset(sym, &m->tls_offset);
    err_free(e);
    return m->tls_offset;
}

size_t module_index(const struct query_engine *q, const struct module *m)
{
    for (size_t i = 0; i < q->modules.count; i++) {
        if (q->modules.items[i] == m)
            return i;
    }
    return SIZE_MAX;
}

struct err *module_sym(struct query_engine *q, struct module *m, struct sym_module **out)
{
    if (!m->sym && !m->why) {
        cleanup(freep) char *debug_dir = str_format("%s/debug", trace_dir(q->trace));
        m->why = sym_module_open(m->path, debug_dir, &m->sym);
        if (m->sym)
            sym_module_set_origin(m->sym, m->name);
        if (m->sym && m->comp_dir)
            sym_module_set_comp_dir(m->sym, m->comp_dir);
        size_t count;
        const struct trace_mmap *maps = trace_mmaps(q->trace, &count);
        for (size_t i = 0; m->sym && i < count; i++) {
            if (!(maps[i].prot & PROT_EXEC) || !module_is_mapped_by(m, &maps[i]))
                continue;
            uint64_t bias;
            struct err *e =
                sym_module_bias(m->sym, maps[i].start, (uint64_t)maps[i].file_offset, true, &bias);
            bool known = e != NULL;
            vec_each (b, &m->biases)
                known |= !e && *b == bias;
            if (!known)
                vec_push(&m->biases, bias);
            err_free(e);
        }
    }
    if (m->why)
        return err_new(err_kind(m->why), "%s", err_message(m->why));
    *out = m->sym;
    return NULL;
}

struct err *prepare_symbols(struct query_engine *q, struct sym_module *sym,
                            enum sym_purpose purpose)
{
    double share;
    while (sym_prepare(sym, purpose, &share)) {
        TRY(check_cancel(q));
        if (q->sink->progress)
            q->sink->progress(q->sink->ctx, share);
    }
    return NULL;
}

bool query_work_ahead(struct query_engine *q, bool names)
{
    for (; q->worked_ahead < q->modules.count; q->worked_ahead++) {
        struct sym_module *sym;
        double share;
        struct err *e = module_sym(q, q->modules.items[q->worked_ahead], &sym);
        bool more = !e && sym_prepare(sym, names ? SYM_FOR_SEARCH : SYM_FOR_CALLS, &share);
        err_free(e); // who asks for it will be told
        if (more)
            return true;
    }
    return false;
}

struct code_place place_in(struct query_engine *q, uint32_t mmap_idx, gaddr map_start,
                           uint64_t map_offset, gaddr pc)
{
    struct code_place p = {0};
    size_t records;
    const struct trace_mmap *record = trace_mmaps(q->trace, &records);
    if (mmap_idx >= records)
        return p;
    struct module *m = find_module(q, &record[mmap_idx]);
    struct sym_module *sym;
    uint64_t bias;
    struct err *e = m ? module_sym(q, m, &sym) : err_new(ERR_NOT_FOUND, "no file");
    if (!e)
        e = sym_module_bias(sym, map_start, map_offset, record[mmap_idx].prot & PROT_EXEC, &bias);
    if (!e)
        p = (struct code_place){m, bias, pc - bias};
    err_free(e);
    return p;
}

struct code_place place_by_records(struct query_engine *q, struct moment m, gaddr pc)
{
    size_t count;
    const struct trace_mmap *maps = trace_mmaps(q->trace, &count);
    for (size_t i = count; i-- > 0;) {
        if (maps[i].event <= m.event && pc >= maps[i].start && pc < maps[i].end)
            return place_in(q, (uint32_t)i, maps[i].start, (uint64_t)maps[i].file_offset, pc);
    }
    return (struct code_place){0};
}

struct code_place place_of(struct query_engine *q, struct replay *r, uint32_t space, gaddr pc)
{
    const struct mapping *m = replay_mapping_at(r, space, pc);
    return m ? place_in(q, m->mmap_idx, m->start, m->offset, pc) : (struct code_place){0};
}
