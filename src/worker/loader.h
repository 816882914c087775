/* Builds the worker's program: worker.so and libZydis.so, relocated for an address, as files to map. */
#ifndef WORKER_LOADER_H
#define WORKER_LOADER_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { LOADER_MAX_SEGMENTS = 24 };

struct loader_segment {
    uint64_t off, len; /* page aligned, from the image's base */
    uint64_t stored;   /* page aligned: so much is in the file, the rest is zeros */
    int prot;
    int fd;            /* libZydis.so itself, or the image's memfd */
    uint64_t fd_off;   /* page aligned */
};

/* Immutable once made. */
struct loader_image {
    int fd; /* memfd: segments of worker.so, and those that are relocated */
    uint64_t len;
    uint64_t entry; /* offset of worker_start */
    struct loader_segment segments[LOADER_MAX_SEGMENTS];
    size_t segment_count;
};

/** Length of an image, whatever its address. */
struct err *loader_image_len(uint64_t *out) nodiscard;
/** The image for `base`; kept and shared between workers, borrowed for ever. Any thread. */
struct err *loader_image_for(uint64_t base, const struct loader_image **out) nodiscard;

#endif
