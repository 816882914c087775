#include "trace/trace_int.h"

#include <sys/stat.h>

static struct err *open_parts(struct trace *t)
{
    TRY(header_read(t->dir, &t->pool, &t->header));
    TRY(err_prefix(block_file_open(t->dir, "events", &t->events), "%s", t->dir));
    TRY(err_prefix(block_file_open(t->dir, "data", &t->data), "%s", t->dir));
    TRY(err_prefix(mmaps_read(t->dir, &t->pool, &t->mmaps, &t->mmap_count), "%s", t->dir));
    return err_prefix(tasks_read(t->dir, &t->pool, &t->tasks, &t->task_count), "%s", t->dir);
}

struct err *trace_open(const char *dir, struct trace **out)
{
    cleanup(trace_closep) struct trace *t = xnew(struct trace);
    t->events.fd = t->data.fd = -1;
    pthread_mutex_init(&t->lock, NULL);
    // Backing files are found from here later, so the name must not depend on the current
    // directory.
    t->dir = realpath(dir, NULL);
    if (!t->dir)
        return err_os("cannot open %s", dir);
    TRY(open_parts(t));
    *out = steal(t);
    return NULL;
}

void trace_close(struct trace *t)
{
    if (!t)
        return;
    block_file_close(&t->events);
    block_file_close(&t->data);
    free(t->mmaps);
    free(t->tasks);
    pool_deinit(&t->pool);
    pthread_mutex_destroy(&t->lock);
    free(t->dir);
    free(t);
}

/* Where rr keeps traces (rr TraceStream.cc, trace_save_dir). NULL if that cannot be told. */
static char *save_dir(void)
{
    const char *dir = getenv("_RR_TRACE_DIR");
    if (dir && *dir)
        return xstrdup(dir);
    const char *data_home = getenv("XDG_DATA_HOME");
    if (data_home && *data_home)
        return str_format("%s/rr", data_home);
    const char *home = getenv("HOME");
    return home && *home ? str_format("%s/.local/share/rr", home) : NULL;
}

struct err *trace_default_dir(const char *argument, char **out)
{
    cleanup(freep) char *dir = save_dir();
    if (!argument) {
        if (!dir)
            return err_new(ERR_USAGE, "Can't determine default trace dir");
        *out = str_format("%s/latest-trace", dir);
        return NULL;
    }
    // A bare name is looked up here first, then among the saved traces.
    if (dir && !strchr(argument, '/') && access(argument, F_OK) < 0) {
        char *saved = str_format("%s/%s", dir, argument);
        if (access(saved, F_OK) == 0) {
            *out = saved;
            return NULL;
        }
        free(saved);
    }
    *out = xstrdup(argument);
    return NULL;
}

const char *trace_dir(const struct trace *t)
{
    return t->dir;
}

const struct trace_header *trace_header(const struct trace *t)
{
    return &t->header;
}

const struct trace_mmap *trace_mmaps(const struct trace *t, size_t *count_out)
{
    *count_out = t->mmap_count;
    return t->mmaps;
}

const struct trace_task_event *trace_task_events(const struct trace *t, size_t *count_out)
{
    *count_out = t->task_count;
    return t->tasks;
}

char *trace_backing_path(const struct trace *t, const struct trace_mmap *m)
{
    if (m->backing_file[0] == '/')
        return xstrdup(m->backing_file);
    return str_format("%s/%s", t->dir, m->backing_file);
}

void trace_cpuid(const struct trace *t, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    memset(out, 0, 4 * sizeof(*out));
    for (size_t i = 0; i < t->header.cpuid_count; i++) {
        const struct cpuid_record *r = &t->header.cpuid[i];
        if (r->eax_in != leaf || (r->ecx_in != UINT32_MAX && r->ecx_in != subleaf))
            continue;
        out[0] = r->eax;
        out[1] = r->ebx;
        out[2] = r->ecx;
        out[3] = r->edx;
        return;
    }
}
