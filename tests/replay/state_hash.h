/* For tests that compare states of replays. */
#ifndef TESTS_STATE_HASH_H
#define TESTS_STATE_HASH_H

#include "base/buf.h"
#include "replay/replay.h"
#include "worker/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

static inline void must(struct err *e)
{
    if (!e)
        return;
    printf("FAIL: %s\n", err_message(e));
    exit(1);
}

/* Of everything that a program can see. */
static inline uint64_t state_hash(struct replay *r)
{
    static uint8_t bytes[32 * PAGE_SIZE];
    XXH3_state_t *x = XXH3_createState();
    XXH3_64bits_reset(x);
    size_t count, map_count;
    const struct task_info *tasks = replay_tasks(r, &count);
    for (size_t i = 0; i < count; i++) {
        struct regs regs;
        must(replay_regs(r, tasks[i].serial, &regs));
        XXH3_64bits_update(x, &regs, sizeof(regs));
    }
    const uint32_t *spaces = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++) {
        const struct mapping *maps = replay_mappings(r, spaces[i], &map_count);
        XXH3_64bits_update(x, &spaces[i], sizeof(spaces[i]));
        for (size_t k = 0; k < map_count; k++) {
            XXH3_64bits_update(x, &maps[k].prot, sizeof(maps[k].prot));
            for (gaddr at = maps[k].start;
                 at < maps[k].end && maps[k].end - maps[k].start < 1 << 24;) {
                size_t done = 0,
                       len = maps[k].end - at < sizeof(bytes) ? maps[k].end - at : sizeof(bytes);
                err_free(replay_read(r, spaces[i], at, bytes, len, &done));
                XXH3_64bits_update(x, &at, sizeof(at));
                XXH3_64bits_update(x, bytes, done);
                at += done < len ? (done / PAGE_SIZE + 1) * PAGE_SIZE
                                 : len; // a page behind the end of its file
            }
        }
    }
    uint64_t hash = XXH3_64bits_digest(x);
    XXH3_freeState(x);
    return hash;
}

#endif
