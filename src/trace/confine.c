#include "trace/trace.h"

#include "base/confine.h"

struct err *trace_confine_reading(const struct trace *t, const char *const *more, size_t more_count)
{
    VEC(const char *) paths = {0};
    vec_push(&paths, trace_dir(t));
    for (size_t i = 0; i < more_count; i++)
        vec_push(&paths, more[i]);
    size_t count;
    const struct trace_mmap *maps = trace_mmaps(t, &count);
    for (size_t i = 0; i < count; i++) {
        if (maps[i].source == MMAP_FILE && maps[i].backing_file[0] == '/')
            vec_push(&paths, maps[i].backing_file);
    }
    struct err *e = confine_reading(paths.items, paths.count);
    vec_deinit(&paths);
    return e;
}

struct err *trace_open_confined(const char *dir, bool writes, struct trace **out)
{
    cleanup(trace_closep) struct trace *t = NULL;
    TRY(confine(&dir, writes));
    TRY(trace_open(dir, &t));
    TRY(trace_confine_reading(t, NULL, 0));
    *out = steal(t);
    return NULL;
}
