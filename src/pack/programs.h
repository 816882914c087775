/* The programs and libraries of a trace: files that were mapped with code in them. */
#ifndef PACK_PROGRAMS_H
#define PACK_PROGRAMS_H

#include "base/err.h"
#include "sym/sym.h"

struct program_file {
    const char *name;    /* where it was when it was recorded */
    const char *backing; /* as the trace names it: relative to its directory, or absolute */
    struct sym_module *sym;
};

struct programs {
    struct trace *trace;
    VEC(struct program_file) files;
};

/** Opens those that are ELF files for x86-64. debug_dir: the trace's debug/, NULL to leave aside
 * what is in there. system_dirs: as for sym_module_set_debug_directories(), or NULL. Errors: those
 * of trace_open(). */
struct err *programs_open(const char *dir, const char *debug_dir, const char *system_dirs,
                          struct programs **out) nodiscard;
void programs_close(struct programs *p);
DEFINE_CLEANUP(struct programs *, programs_close)

#endif
