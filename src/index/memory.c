#include "index/memory.h"

#include "base/buf.h"

#include <stdio.h>
#include <unistd.h>

/* Proportional set size: proc_pid_smaps(5). */
static uint64_t memory_of(long pid)
{
    cleanup(freep) char *path = str_format("/proc/%ld/smaps_rollup", pid);
    cleanup(fclosep) FILE *f = fopen(path, "re");
    char line[256];
    unsigned long long kib = 0;
    while (f && fgets(line, sizeof(line), f) && sscanf(line, "Pss: %llu kB", &kib) != 1) {
    }
    return kib << 10;
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
