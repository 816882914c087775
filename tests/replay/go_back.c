/* go_back TRACE - runs a recording with processes that end, takes snapshots on the way, and goes
 * back to them in random order, also over ends of processes: registers and all memory are what they
 * were, and going on from there ends as it did the first time. */
#include "base/random.h"
#include "state_hash.h"

#include <sys/mman.h>

enum { VISITS = 40 };

static uint64_t random_state = 88172645463325252ull;

static void check(bool ok, const char *what, struct moment m)
{
    if (ok)
        return;
    printf("FAIL: %s at %llu:%llu\n", what, (unsigned long long)m.event,
           (unsigned long long)m.icount);
    exit(1);
}

/* Pages that were writable at the end of any event: the program may change them. By space's uid
 * - 1. */
enum { MAX_SPACES = 64 };
static VEC(uint64_t) writable[MAX_SPACES];

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void collect_pages(struct replay *r)
{
    size_t count, map_count;
    const uint32_t *spaces = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++) {
        const struct mapping *maps = replay_mappings(r, spaces[i], &map_count);
        check(spaces[i] <= MAX_SPACES, "more spaces than expected", replay_now(r));
        for (size_t k = 0; k < map_count; k++) {
            for (gaddr at = maps[k].start;
                 at < maps[k].end && (maps[k].prot & PROT_WRITE) && !maps[k].object;
                 at += PAGE_SIZE)
                vec_push(&writable[spaces[i] - 1], at);
        }
    }
}

static void sort_pages(void)
{
    for (size_t i = 0; i < MAX_SPACES; i++) {
        size_t kept = 0;
        if (writable[i].count)
            qsort(writable[i].items, writable[i].count, sizeof(uint64_t), by_value);
        vec_each (p, &writable[i]) {
            if (!kept || writable[i].items[kept - 1] != *p)
                writable[i].items[kept++] = *p;
        }
        writable[i].count = kept;
    }
}

/* Names the pages of each space, before its first snapshot. */
static void name_pages(struct replay *r)
{
    size_t count;
    const uint32_t *spaces = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++)
        must(replay_snapshot_pages(r, spaces[i], 0, writable[spaces[i] - 1].items,
                                   writable[spaces[i] - 1].count));
    const uint32_t *objects = replay_objects(r, &count);
    for (size_t i = 0; i < count; i++) {
        VEC(uint64_t) pages = {0};
        for (uint64_t at = 0; at < 16 * PAGE_SIZE; at += PAGE_SIZE)
            vec_push(&pages, at);
        must(replay_snapshot_pages(r, 0, objects[i], pages.items, pages.count));
        vec_deinit(&pages);
    }
}

int main(int argc, char **argv)
{
    struct {
        struct moment at;
        uint64_t hash;
        size_t spaces;
    } kept[WORKER_SNAPSHOTS];
    unsigned count = 0, over_ends = 0;
    cleanup(trace_closep) struct trace *t = NULL;
    cleanup(replay_closep) struct replay *r = NULL;
    must(trace_open(argv[1], &t));
    must(replay_open(t, &r));
    while (!replay_at_end(r)) {
        must(replay_run(r, (struct moment){replay_now(r).event + 1, 0}, UINT64_MAX, NULL));
        collect_pages(r);
    }
    sort_pages();
    event_no events = replay_now(r).event;
    uint64_t icount = replay_icount_total(r);
    replay_close(r);
    must(replay_open(t, &r));
    must(replay_set_mode(r, ENGINE_INDEX, NULL));
    for (event_no at = 1; !replay_at_end(r) && count < WORKER_SNAPSHOTS;
         at += events / WORKER_SNAPSHOTS + 1) {
        must(replay_run(r, (struct moment){at, next_random(&random_state) % 3000}, UINT64_MAX,
                        NULL));
        name_pages(r);
        must(replay_snapshot(r, count));
        replay_spaces(r, &kept[count].spaces);
        kept[count].at = replay_now(r);
        kept[count++].hash = state_hash(r);
    }
    must(replay_run(r, MOMENT_END, UINT64_MAX, NULL));
    for (unsigned i = 0; i < VISITS; i++) {
        unsigned k = (unsigned)(next_random(&random_state) % count);
        size_t before, after;
        bool done;
        replay_spaces(r, &before);
        must(replay_go_back(r, k, &done));
        check(done, "cannot go back", kept[k].at);
        check(moment_cmp(replay_now(r), kept[k].at) == 0, "another moment", kept[k].at);
        replay_spaces(r, &after);
        check(after == kept[k].spaces, "other processes", kept[k].at);
        check(state_hash(r) == kept[k].hash, "another state", kept[k].at);
        over_ends += after > before;
        // Some way on, or to the end.
        must(replay_run(
            r,
            i % 3 ? (struct moment){kept[k].at.event + next_random(&random_state) % 60, 100}
                  : MOMENT_END,
            UINT64_MAX, NULL));
        check(!replay_at_end(r) || replay_icount_total(r) == icount, "another end", kept[k].at);
    }
    printf("%u snapshots, %u ways back over a process's end\n", count, over_ends);
    check(over_ends > 0, "no process ended", replay_now(r));
    return 0;
}
