#include "pack/programs.h"

#include "base/log.h"
#include "trace/trace.h"

#include <sys/mman.h>

static bool is_known(const struct programs *p, const char *backing)
{
    vec_each (f, &p->files)
        if (str_eq(f->backing, backing))
            return true;
    return false;
}

static void add_program(struct programs *p, const struct trace_mmap *m, const char *debug_dir,
                        const char *system_dirs)
{
    cleanup(freep) char *path = trace_backing_path(p->trace, m);
    struct sym_module *sym;
    struct err *e = sym_module_open(path, debug_dir, &sym);
    if (e) {
        log_debug("%s", err_message(e)); // code need not be ELF
        err_free(e);
        return;
    }
    sym_module_set_origin(sym, m->name);
    if (system_dirs)
        sym_module_set_debug_directories(sym, system_dirs);
    vec_push(&p->files, (struct program_file){m->name, m->backing_file, sym});
}

struct err *programs_open(const char *dir, const char *debug_dir, const char *system_dirs,
                          struct programs **out)
{
    cleanup(programs_closep) struct programs *p = xnew(struct programs);
    TRY(trace_open(dir, &p->trace));
    size_t count;
    const struct trace_mmap *maps = trace_mmaps(p->trace, &count);
    for (size_t i = 0; i < count; i++)
        if (maps[i].source == MMAP_FILE && (maps[i].prot & PROT_EXEC) && maps[i].name[0] == '/' &&
            !is_known(p, maps[i].backing_file))
            add_program(p, &maps[i], debug_dir, system_dirs);
    *out = steal(p);
    return NULL;
}

void programs_close(struct programs *p)
{
    if (!p)
        return;
    vec_each (f, &p->files)
        sym_module_close(f->sym);
    vec_deinit(&p->files);
    trace_close(p->trace);
    free(p);
}
