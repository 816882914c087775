#include "index/memory.h"

#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of what processes share each counts its part: proc_pid_smaps(5). */
static uint64_t memory_of(long pid)
{
    static const char name[] = "Pss:";
    cleanup(freep) char *path = str_format("/proc/%ld/smaps_rollup", pid);
    cleanup(fclosep) FILE *f = fopen(path, "re");
    char line[256];
    while (f && fgets(line, sizeof(line), f)) {
        if (str_starts(line, name))
            return strtoull(line + strlen(name), NULL, 10) << 10;
    }
    return 0;
}

uint64_t memory_in_use(void)
{
    long self = getpid();
    uint64_t bytes = memory_of(self);
    cleanup(freep) char *path = str_format("/proc/%ld/task/%ld/children", self, self);
    cleanup(fclosep) FILE *f = fopen(path, "re");
    long pid;
    while (f && fscanf(f, "%ld", &pid) == 1)
        bytes += memory_of(pid);
    return bytes;
}
