/* For tests of the server: an engine whose answers and pace are known.
 *
 *   count {n}, search {n}     n rows {"i": 0}, {"i": 1}...
 *   wait, watchpoint          no rows; ends when cancelled
 *   flood                     large rows until cancelled
 *   ahead                     n rows: what is left to work ahead, at first 3
 *
 * The sources are the files of the trace directory, under /offered. */
#include "query/breakpoint.h"
#include "query/diversion.h"

#include "base/buf.h"

#include <fcntl.h>

struct query_engine {
    char *dir;
    unsigned ahead; /* calls of query_work_ahead() that have something to do */
};

struct err *query_engine_open(const char *dir, const struct query_options *options,
                              struct query_engine **out)
{
    *out = xnew(struct query_engine);
    (*out)->dir = xstrdup(dir);
    (*out)->ahead = 3;
    return NULL;
}

bool query_work_ahead(struct query_engine *q, bool names)
{
    q->ahead -= q->ahead > 0;
    return q->ahead > 0;
}

void query_engine_close(struct query_engine *q)
{
    if (!q)
        return;
    free(q->dir);
    free(q);
}

struct err *query_engine_confine(const struct query_engine *q, const char *const *more,
                                 size_t more_count)
{
    return NULL;
}

const char *query_title(const struct query_engine *q)
{
    return "a stub";
}

struct err *query_open_source(const struct query_engine *q, const char *path, int *fd_out)
{
    const char *name = str_starts(path, "/offered/") ? path + strlen("/offered/") : NULL;
    if (!name)
        return err_new(ERR_NOT_FOUND, "%s: not offered", path);
    cleanup(freep) char *file = str_format("%s/%s", q->dir, name);
    *fd_out = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    return *fd_out < 0 ? err_os("cannot open %s", file) : NULL;
}

struct err *query_open_mapped(const struct query_engine *q, const char *name, int *fd_out)
{
    return err_new(ERR_NOT_FOUND, "%s: not mapped", name);
}

struct err *query_lay_out_sources(const struct query_engine *q, const char *root, bool all)
{
    return NULL;
}

struct err *query_lay_out_modules(const struct query_engine *q, const char *root, bool only_inside)
{
    return NULL;
}

struct err *query_open_debug(const struct query_engine *q, const char *name, int *fd_out)
{
    return err_new(ERR_NOT_FOUND, "%s: none", name);
}

struct err *query_find_execution(struct query_engine *q, const struct query_breakpoint *b,
                                 struct moment from, bool forward, const atomic_bool *cancelled,
                                 struct moment *moment_out, uint32_t *task_out, bool *found_out)
{
    *found_out = false;
    return NULL;
}

struct err *query_divert(struct query_engine *q, struct moment m, struct query_diversion **out)
{
    return err_new(ERR_UNSUPPORTED, "no diversions");
}

void query_diversion_end(struct query_diversion *d)
{
}

struct err *query_diversion_registers(struct query_diversion *d, uint32_t task, json_t **rows_out)
{
    return err_new(ERR_UNSUPPORTED, "no diversions");
}

struct err *query_diversion_set_register(struct query_diversion *d, uint32_t task, const char *name,
                                         size_t offset, const void *data, size_t len)
{
    return err_new(ERR_UNSUPPORTED, "no diversions");
}

struct err *query_diversion_read(struct query_diversion *d, uint32_t task, gaddr addr, void *out,
                                 size_t len, size_t *done_out)
{
    return err_new(ERR_UNSUPPORTED, "no diversions");
}

struct err *query_diversion_write(struct query_diversion *d, uint32_t task, gaddr addr,
                                  const void *data, size_t len)
{
    return err_new(ERR_UNSUPPORTED, "no diversions");
}

struct err *query_diversion_run(struct query_diversion *d, struct query_diversion_run *run)
{
    return err_new(ERR_UNSUPPORTED, "no diversions");
}

json_t *json_moment(struct moment m)
{
    return json_pack("{sI, sI}", "event", (json_int_t)m.event, "instr", (json_int_t)m.icount);
}

json_t *json_hex(uint64_t v)
{
    cleanup(freep) char *text = str_format("0x%llx", (unsigned long long)v);
    return json_string(text);
}

static struct err *cancelled(void)
{
    return err_new(ERR_CANCELLED, "cancelled");
}

struct err *query_run(struct query_engine *q, const char *name, json_t *params,
                      struct query_sink *sink)
{
    if (str_eq(name, "count") || str_eq(name, "search")) {
        json_int_t n = json_integer_value(json_object_get(params, "n"));
        for (json_int_t i = 0; i < n; i++) {
            if (!sink->row(sink->ctx, json_pack("{sI}", "i", i)))
                return cancelled();
        }
        sink->more = true;
        return NULL;
    }
    if (str_eq(name, "wait") || str_eq(name, "watchpoint")) {
        for (int i = 0; !atomic_load(sink->cancelled); i++) {
            usleep(1000);
            sink->progress(sink->ctx, 1 - 1.0 / (i + 1));
        }
        return cancelled();
    }
    if (str_eq(name, "flood")) {
        cleanup(freep) char *text = xcalloc(1, 10001);
        memset(text, 'x', 10000);
        while (sink->row(sink->ctx, json_pack("{ss}", "text", text))) {
        }
        return cancelled();
    }
    if (str_eq(name, "ahead")) {
        for (unsigned i = 0; i < q->ahead; i++) {
            if (!sink->row(sink->ctx, json_pack("{sI}", "i", (json_int_t)i)))
                return cancelled();
        }
        return NULL;
    }
    return err_new(ERR_USAGE, "there is no query %s", name);
}
