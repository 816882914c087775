#include "pack/package.h"

#include "pack/debug_files.h"
#include "pack/pack.h"
#include "pack/programs.h"

struct err *package_trace(const char *dir, const struct package_options *options)
{
    if (!options->skip_mapped_files)
        TRY(pack_trace(dir));
    cleanup(programs_closep) struct programs *programs = NULL;
    TRY(programs_open(dir, &programs));
    TRY(pack_debug_files(dir, programs, &options->listener));
    return pack_thread_library(dir, &options->listener);
}
