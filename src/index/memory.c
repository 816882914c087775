#include "index/memory.h"

#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A line of proc_pid_smaps(5)'s sums. */
static uint64_t sum_of(long pid, const char *name)
{
    cleanup(freep) char *path = str_format("/proc/%ld/smaps_rollup", pid);
    cleanup(fclosep) FILE *f = fopen(path, "re");
    char line[256];
    while (f && fgets(line, sizeof(line), f)) {
        if (strncmp(line, name, strlen(name)) == 0)
            return strtoull(line + strlen(name), NULL, 10) << 10;
    }
    return 0;
}

uint64_t memory_resident(long pid)
{
    return sum_of(pid, "Rss:");
}

uint64_t memory_in_use(void)
{
    long self = getpid();
    uint64_t bytes = sum_of(self, "Pss:");
    cleanup(freep) char *path = str_format("/proc/%ld/task/%ld/children", self, self);
    cleanup(fclosep) FILE *f = fopen(path, "re");
    long pid;
    while (f && fscanf(f, "%ld", &pid) == 1)
        bytes += sum_of(pid, "Pss:");
    return bytes;
}
