/* neighbours TRACE - the states at the starts of segments, made from nothing and made from the
 * state at another segment's start, near or far, earlier or later: they are the same, and go on in
 * the same way. TRACE is a copy of a recording; a database is made in it. */
#include "../replay/state_hash.h"
#include "base/random.h"
#include "db/history.h"
#include "index/boundary.h"
#include "index/build.h"

enum { PAIRS = 10, FORWARD = 20000 /* instructions */ };

static void compare(struct replay *a, struct replay *b, size_t from, size_t to, const char *when)
{
    if (state_hash(a) == state_hash(b) && moment_cmp(replay_now(a), replay_now(b)) == 0)
        return;
    printf("FAIL: segment %zu made from segment %zu is different %s\n", to, from, when);
    exit(1);
}

int main(int argc, char **argv)
{
    uint64_t random_state = 88172645463325252ull;
    cleanup(trace_closep) struct trace *t = NULL;
    cleanup(history_closep) struct history *h = NULL;
    cleanup(freep) char *dir = str_format("%s/db", argv[1]);
    const struct build_options options = {.segment_icount = 20000, .shards = 1};
    must(index_build(argv[1], &options, NULL));
    must(trace_open(argv[1], &t));
    must(history_open(dir, trace_header(t)->uuid, &h));
    size_t count;
    const struct history_segment *segments = history_segments(h, &count);
    for (unsigned i = 0; i < PAIRS; i++) {
        size_t to = 1 + next_random(&random_state) % (count - 1),
               from = next_random(&random_state) % count;
        if (i % 2)
            from = to > 1 && i % 4 == 1 ? to - 1 : to + 1 < count ? to + 1 : to;
        cleanup(replay_closep) struct replay *near = NULL, *plain = NULL, *made = NULL;
        cleanup(worker_destroyp) struct worker *spare = NULL;
        if (i % 3 == 0)
            must(replay_spare(t, &spare));
        must(boundary_restore(h, t, from, &(struct restore_help){NULL, &spare}, 0, &near));
        must(boundary_restore(h, t, to, NULL, 0, &plain));
        uint64_t hash = state_hash(near);
        must(boundary_restore(h, t, to, &(struct restore_help){near, &spare}, from, &made));
        compare(made, plain, from, to, "at its start");
        must(replay_run(made, segments[to].end, FORWARD, NULL));
        must(replay_run(plain, segments[to].end, FORWARD, NULL));
        compare(made, plain, from, to, "later");
        if (state_hash(near) != hash) {
            printf("FAIL: segment %zu has changed when segment %zu was made from it\n", from, to);
            return 1;
        }
    }
    printf("%zu segments, %u pairs\n", count, PAIRS);
    return 0;
}
