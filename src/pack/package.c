#include "pack/package.h"

#include "base/buf.h"
#include "pack/copy.h"
#include "pack/debug_files.h"
#include "pack/gdb_script.h"
#include "pack/listener.h"
#include "pack/overlays.h"
#include "pack/pack.h"
#include "pack/programs.h"
#include "pack/sources.h"

static struct err *package_debug_files(const char *dir, const struct package_options *options)
{
    cleanup(programs_closep) struct programs *programs = NULL;
    cleanup(freep) char *system_dirs = NULL;
    pack_say(&options->listener, "Obtaining source file list...");
    if (options->gdb_script)
        TRY(gdb_script_directories(options->gdb_script, &options->listener, &system_dirs));
    TRY(programs_open(dir, NULL, system_dirs, &programs));
    TRY(pack_debug_files(dir, programs, &options->listener));
    return pack_thread_library(dir, &options->listener);
}

static struct err *package_sources(const char *dir, const struct package_options *options)
{
    if (!options->copy_source_count && !options->substitute_count)
        return NULL;
    cleanup(programs_closep) struct programs *programs = NULL;
    cleanup(freep) char *debug_dir = str_format("%s/debug", dir);
    TRY(programs_open(dir, debug_dir, NULL, &programs));
    return pack_sources(dir, programs, options);
}

static struct err *package_overlays(const char *dir, const struct package_options *options)
{
    if (!options->system_debuginfo_count)
        return NULL;
    cleanup(programs_closep) struct programs *programs = NULL;
    TRY(programs_open(dir, NULL, NULL, &programs));
    for (size_t i = 0; i < options->system_debuginfo_count; i++)
        TRY(pack_overlays(dir, programs, options->system_debuginfo[i], &options->listener));
    return NULL;
}

struct err *package_trace(const char *dir, const struct package_options *options)
{
    TRY(refuse_links(dir));
    if (!options->skip_mapped_files)
        TRY(pack_trace(dir));
    TRY(package_debug_files(dir, options));
    TRY(package_sources(dir, options));
    TRY(package_overlays(dir, options));
    return pack_sources_fallback(dir);
}
