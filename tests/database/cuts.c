/* cuts TRACE - segments end where their rule says: after instructions or events, or when they have
 * written many pages. */
#include "index/segment_builder.h"

#include <stdio.h>

enum { ICOUNT = 1600000, PIECE = ICOUNT / 8, EVENTS = 500 };

static void must(struct err *e)
{
    if (!e)
        return;
    printf("FAIL: %s\n", err_message(e));
    exit(1);
}

static void check(bool ok, const char *what)
{
    if (ok)
        return;
    printf("FAIL: %s\n", what);
    exit(1);
}

/* How many segments end since they have written `pages`. */
static size_t count_cuts(struct trace *t, uint64_t pages, size_t *segments_out)
{
    const struct segment_rule rule = {ICOUNT, EVENTS, pages};
    cleanup(replay_closep) struct replay *r = NULL;
    size_t cuts = 0;
    must(replay_open(t, &r));
    for (*segments_out = 0; !replay_at_end(r); ++*segments_out) {
        cleanup(segment_deinit) struct segment s = {0};
        must(segment_build(r, &rule, NULL, &s));
        check(s.icount <= ICOUNT && s.end.event - s.start.event <= EVENTS, "a segment is too long");
        if (s.icount == ICOUNT || s.end.event - s.start.event == EVENTS || replay_at_end(r))
            continue;
        check(s.written.count >= pages && s.icount % PIECE == 0, "a segment ends for no reason");
        cuts++;
    }
    return cuts;
}

int main(int argc, char **argv)
{
    cleanup(trace_closep) struct trace *t = NULL;
    size_t all, fewer, cuts;
    must(trace_open(argv[1], &t));
    check(!count_cuts(t, UINT64_MAX, &fewer), "without a limit there are cuts");
    check((cuts = count_cuts(t, 20, &all)) > 0 && all > fewer, "there are no cuts");
    printf("%zu segments, or %zu, of which %zu are cut\n", fewer, all, cuts);
    return 0;
}
