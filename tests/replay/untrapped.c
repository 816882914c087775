/* untrapped TRACE - replays a good recording without the events of its time stamp counter, as it
 * would be had the recording machine not trapped RDTSC: the replay has to stop at the first one and
 * say so, in either mode.
 *
 * Linked with --wrap=trace_cursor_next, which leaves the frames out. */
#include "replay/replay.h"

#include <stdio.h>
#include <string.h>

static unsigned left_out;

struct err *__real_trace_cursor_next(struct trace_cursor *c, const struct frame **out);
struct err *__wrap_trace_cursor_next(struct trace_cursor *c, const struct frame **out);
struct err *__wrap_trace_cursor_next(struct trace_cursor *c, const struct frame **out)
{
    TRY(__real_trace_cursor_next(c, out));
    while (*out && (*out)->kind == FRAME_INSTRUCTION_TRAP) {
        left_out++;
        TRY(__real_trace_cursor_next(c, out));
    }
    return NULL;
}

static struct err *replay(const char *dir, enum engine_mode mode)
{
    cleanup(trace_closep) struct trace *t = NULL;
    cleanup(replay_closep) struct replay *r = NULL;
    TRY(trace_open(dir, &t));
    TRY(replay_open(t, &r));
    TRY(replay_set_mode(r, mode, NULL));
    return replay_run(r, MOMENT_END, UINT64_MAX, NULL);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: untrapped TRACE\n", stderr);
        return 2;
    }
    static const enum engine_mode modes[] = {ENGINE_COUNT, ENGINE_INDEX};
    bool good = true;
    for (size_t i = 0; i < 2; i++) {
        left_out = 0;
        struct err *e = replay(argv[1], modes[i]);
        puts(e ? err_message(e) : "replayed to its end");
        good &= left_out && e && err_kind(e) == ERR_DIVERGED &&
                strstr(err_message(e), "`rdtsc` at rip 0x") &&
                strstr(err_message(e), "did not trap the TSC");
        err_free(e);
    }
    return !good;
}
