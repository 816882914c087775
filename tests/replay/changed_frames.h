/* For programs linked with --wrap=trace_cursor_next,--wrap=trace_cursor_ahead: frames are changed
 * once, between the trace's decoder and the replayer, which may look at frames to come. */
#ifndef CHANGED_FRAMES_H
#define CHANGED_FRAMES_H

#include "trace/trace.h"

/* Each program's own. */
static void change_frame_once(struct frame *f);

static struct {
    const struct frame *frame;
    event_no event;
} changed_frames[4 * TRACE_AHEAD];

/* To be called before each replay. */
static void forget_changed_frames(void)
{
    memset(changed_frames, 0, sizeof(changed_frames));
}

static void see_frame(const struct frame *f)
{
    size_t i = f ? f->event % (4 * TRACE_AHEAD) : 0;
    if (!f || (changed_frames[i].frame == f && changed_frames[i].event == f->event))
        return;
    changed_frames[i].frame = f;
    changed_frames[i].event = f->event;
    change_frame_once((struct frame *)(uintptr_t)f);
}

struct err *__real_trace_cursor_next(struct trace_cursor *c, const struct frame **out);
struct err *__wrap_trace_cursor_next(struct trace_cursor *c, const struct frame **out);
struct err *__wrap_trace_cursor_next(struct trace_cursor *c, const struct frame **out)
{
    TRY(__real_trace_cursor_next(c, out));
    see_frame(*out);
    return NULL;
}

const struct frame *__real_trace_cursor_ahead(struct trace_cursor *c, size_t n);
const struct frame *__wrap_trace_cursor_ahead(struct trace_cursor *c, size_t n);
const struct frame *__wrap_trace_cursor_ahead(struct trace_cursor *c, size_t n)
{
    const struct frame *f = __real_trace_cursor_ahead(c, n);
    see_frame(f);
    return f;
}

#endif
