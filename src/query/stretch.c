#include "query/stretch_int.h"

#include "x86/xstate.h"

/* A stretch in the making. */
struct maker {
    struct query_engine *q;
    struct stretch *out;
    struct step_request request;
    uint32_t task;
    uint32_t armed_space, armed_slot; /* where `task` is recorded */
    bool event_told; /* the event of the replay's moment has been told: what changes now is for the
                        next one */
    struct err *failed; /* in a callback that cannot fail */
};

static struct err *take_rows(struct maker *m, struct replay *r, uint32_t space)
{
    struct stretch *s = m->out;
    cleanup(buf_deinit) struct buf rows = {0};
    TRY(worker_take_steps(replay_worker(r, space), &rows, NULL));
    for (size_t at = 0; at + s->row_len <= rows.len; at += s->row_len) {
        const struct step_row *row = (const void *)(rows.data + at);
        uint32_t task = task_running_at(m->q, (struct moment){row->stamp, row->icount});
        if (m->task && task != m->task)
            continue;
        if (!buf_try_reserve(&s->rows, s->row_len))
            return err_new(ERR_LIMIT, "no memory for so many instructions");
        // Rows move while the buffer grows: the offset stands for the pointer until all are there.
        vec_push(&s->steps,
                 (struct stretch_step){
                     {row->stamp, row->icount}, task, space, (const void *)(uintptr_t)s->rows.len});
        buf_add(&s->rows, row, s->row_len);
    }
    return NULL;
}

/* --- observing --- */

static void keep_maps(struct maker *m, struct replay *r, uint32_t space)
{
    struct stretch_maps *kept = vec_add(&m->out->maps);
    kept->space = space;
    kept->until = replay_now(r);
    size_t count;
    const struct mapping *maps = replay_mappings(r, space, &count);
    for (size_t i = 0; i < count; i++)
        vec_push(&kept->maps,
                 (struct stretch_mapping){maps[i].start, maps[i].end,
                                          maps[i].object ? object_uid(maps[i].object) : 0,
                                          maps[i].offset, maps[i].mmap_idx, (uint8_t)maps[i].kind});
}

static void on_sharing(void *ctx, struct replay *r, uint32_t space)
{
    keep_maps(ctx, r, space);
}

static void add_effect(struct maker *m, struct replay *r, struct stretch_effect e)
{
    e.at = replay_now(r);
    e.prepared = e.at.icount == 0 && m->event_told;
    vec_push(&m->out->effects, e);
}

static void on_wrote(void *ctx, struct replay *r, uint32_t space, gaddr addr, uint64_t len,
                     uint32_t object, uint64_t offset)
{
    add_effect(ctx, r,
               (struct stretch_effect){
                   .space = space, .object = object, .addr = addr, .len = len, .offset = offset});
}

static void on_remapped(void *ctx, struct replay *r, uint32_t space, gaddr start, gaddr end)
{
    add_effect(ctx, r,
               (struct stretch_effect){
                   .remapped = true, .space = space, .addr = start, .len = end - start});
}

static struct err *on_event(void *ctx, struct replay *r, const struct frame *f)
{
    struct maker *m = ctx;
    struct stretch *s = m->out;
    if (m->failed)
        return steal(m->failed);
    struct stretch_event *e = vec_add(&s->events);
    *e = (struct stretch_event){.number = f->event,
                                .kind = (uint8_t)f->kind,
                                .syscall_state = (uint8_t)f->syscall_state,
                                .syscall_arch = (uint8_t)f->syscall_arch,
                                .syscall_no = f->syscall_no,
                                .first_effect = s->effects.count};
    e->task = f->event < m->q->runner.count ? m->q->runner.items[f->event] : 0;
    for (size_t i = 0; i < f->task_count; i++)
        e->exec |= f->tasks[i].kind == TASK_EXEC;
    while (e->first_effect && !s->effects.items[e->first_effect - 1].prepared &&
           s->effects.items[e->first_effect - 1].at.event == f->event)
        e->first_effect--;
    e->effect_count = s->effects.count - e->first_effect;
    struct err *gone = e->task ? replay_regs(r, e->task, &e->after) : NULL;
    e->have_after = e->task && !gone;
    err_free(gone); // ended with this event
    m->event_told = true;
    return NULL;
}

static struct err *on_space_created(void *ctx, struct replay *r, uint32_t space, uint32_t parent)
{
    struct maker *m = ctx;
    return m->task ? NULL : worker_set_steps(replay_worker(r, space), &m->request);
}

static struct err *on_space_ending(void *ctx, struct replay *r, uint32_t space)
{
    struct maker *m = ctx;
    if (space == m->armed_space)
        m->armed_space = 0;
    keep_maps(m, r, space);
    return take_rows(m, r, space);
}

/* Has the task recorded where it is now. */
static struct err *follow_task(struct maker *m, struct replay *r)
{
    size_t count;
    const struct task_info *tasks = replay_tasks(r, &count);
    for (size_t i = 0; m->task && i < count; i++) {
        if (tasks[i].serial != m->task ||
            (tasks[i].space == m->armed_space && tasks[i].slot == m->armed_slot))
            continue;
        if (m->armed_space) {
            TRY(take_rows(m, r, m->armed_space));
            TRY(worker_set_steps(replay_worker(r, m->armed_space), NULL));
        }
        m->armed_space = tasks[i].space;
        m->armed_slot = m->request.slot = tasks[i].slot;
        m->request.one_slot = true;
        return worker_set_steps(replay_worker(r, m->armed_space), &m->request);
    }
    return NULL;
}

static struct err *on_other_space(void *ctx, struct replay *r, uint32_t space, uint32_t parent)
{
    return NULL;
}

/* --- running --- */

static int by_time(const void *a, const void *b)
{
    const struct stretch_step *x = a, *y = b;
    int order = moment_cmp(x->at, y->at);
    return order ? order : (x->row > y->row) - (x->row < y->row); // as recorded
}

static struct err *keep_initial(struct maker *m, struct replay *r)
{
    size_t count;
    const struct task_info *tasks = replay_tasks(r, &count);
    for (size_t i = 0; i < count; i++) {
        struct step_row row = {.end = true};
        struct stretch_step step = {m->out->from, tasks[i].serial, tasks[i].space, NULL};
        TRY(replay_regs(r, tasks[i].serial, &row.regs));
        step.row = (const void *)(uintptr_t)m->out->rows.len;
        buf_add(&m->out->rows, &row, sizeof(row));
        vec_push(&m->out->initial, step);
    }
    return NULL;
}

static struct err *run(struct maker *m, struct replay *r, struct moment from, struct moment until)
{
    TRY(keep_initial(m, r));
    const struct replay_observer observer = {.ctx = m,
                                             .event = on_event,
                                             .wrote = on_wrote,
                                             .remapped = on_remapped,
                                             .sharing_changes = on_sharing,
                                             .space_created = on_space_created,
                                             .space_ending = on_space_ending};
    replay_set_observer(r, &observer);
    m->event_told = true; // the event of `from` is over
    size_t count;
    const uint32_t *spaces = replay_spaces(r, &count);
    for (size_t i = 0; i < count && !m->task; i++)
        TRY(worker_set_steps(replay_worker(r, spaces[i]), &m->request));
    for (struct moment now = replay_now(r); moment_cmp(now, until) < 0;) {
        // Event by event, so that callbacks know whether an event's own effects are over.
        struct moment next = now.event < until.event ? (struct moment){now.event + 1, 0} : until;
        TRY(check_cancel(m->q));
        TRY(follow_task(m, r));
        m->event_told = false;
        TRY(replay_run(r, next, UINT64_MAX, NULL));
        if (moment_cmp(replay_now(r), now) == 0 ||
            (now.event == until.event && moment_cmp(replay_now(r), until) < 0))
            break; // the recording ends, or there is nothing more before the next event
        now = replay_now(r);
    }
    spaces = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++) {
        TRY(take_rows(m, r, spaces[i]));
        keep_maps(m, r, spaces[i]);
        m->out->maps.items[m->out->maps.count - 1].until = MOMENT_END;
    }
    return m->failed ? steal(m->failed) : NULL;
}

struct err *stretch_run(struct query_engine *q, struct moment from, struct moment until,
                        uint32_t task, bool vectors, struct stretch *out)
{
    memset(out, 0, sizeof(*out));
    struct maker m = {
        .q = q, .out = out, .task = task, .request = {.record = true, .vectors = vectors}};
    out->from = from;
    out->until = until;
    out->row_len = sizeof(struct step_row) + (vectors ? XSTATE_MAX : 0);
    struct lease lease;
    size_t segment = history_segment_at(q->history, from), count;
    // What the next segment changes the states that are kept of this one do not know of.
    if (moment_cmp(until, history_segments(q->history, &count)[segment].end) > 0)
        return err_new(ERR_LIMIT, "a stretch goes on behind its segment");
    TRY(lend_instead(q, segment, from, &lease));
    struct err *e = run(&m, lease.replay, from, until);
    return_replay(q, &lease, !e);
    if (e) {
        err_free(m.failed);
        stretch_deinit(out);
        return e;
    }
    vec_each (step, &out->steps)
        step->row = (const void *)(out->rows.data + (uintptr_t)step->row);
    vec_each (step, &out->initial)
        step->row = (const void *)(out->rows.data + (uintptr_t)step->row);
    bool sorted = true; // as they are where one worker ran
    for (size_t i = 1; i < out->steps.count && sorted; i++)
        sorted = by_time(&out->steps.items[i - 1], &out->steps.items[i]) <= 0;
    if (!sorted)
        qsort(out->steps.items, out->steps.count, sizeof(out->steps.items[0]), by_time);
    return NULL;
}

void stretch_of_state(struct query_engine *q, struct replay *r, struct stretch *out)
{
    memset(out, 0, sizeof(*out));
    struct maker m = {.q = q, .out = out};
    out->from = out->until = replay_now(r);
    size_t count;
    const uint32_t *spaces = replay_spaces(r, &count);
    for (size_t i = 0; i < count; i++) {
        keep_maps(&m, r, spaces[i]);
        out->maps.items[out->maps.count - 1].until = MOMENT_END;
    }
}

/* Runs to the last of the moments and reads on the way. */
static struct err *capture(struct replay *r, uint32_t space, const struct step_capture *captures,
                           size_t count, struct moment until, struct buf *out)
{
    const struct replay_observer observer = {.space_created = on_other_space};
    replay_set_observer(r, &observer); // so that workers are told the time
    struct worker *w = replay_worker(r, space);
    if (!w)
        return err_new(ERR_NOT_FOUND, "address space %u does not exist at this moment", space);
    struct step_request request = {.captures = captures, .capture_count = count};
    TRY(worker_set_steps(w, &request));
    TRY(replay_run(r, until, UINT64_MAX, NULL));
    // What is wanted at the very end is read directly: no run begins there any more.
    size_t had = out->len;
    w = replay_worker(r, space);
    if (!w)
        return err_new(ERR_NOT_FOUND, "the address space ends here");
    TRY(worker_take_steps(w, NULL, out));
    for (size_t i = 0, at = had; i < count; i++) {
        bool there = at + 8 <= out->len;
        uint64_t len = captures[i].len, room = 8 + ((len + 7) & ~7ull),
                 done = there ? load_u64(out->data + at) : 0;
        if (!there)
            buf_zeros(out, room);
        if (!done && captures[i].stamp == until.event && captures[i].icount == until.icount) {
            size_t got = 0;
            err_free(replay_read(r, space, captures[i].addr, out->data + at + 8, len, &got));
            done = got;
            memcpy(out->data + at, &done, 8);
        }
        at += room;
    }
    return NULL;
}

struct err *stretch_memory(struct query_engine *q, uint32_t space,
                           const struct step_capture *captures, size_t count, struct buf *out)
{
    if (!count)
        return NULL;
    struct moment from = {captures[0].stamp, captures[0].icount},
                  until = {captures[count - 1].stamp, captures[count - 1].icount};
    struct lease lease;
    TRY(lend_instead(q, history_segment_at(q->history, from), from, &lease));
    struct err *e = capture(lease.replay, space, captures, count, until, out);
    return_replay(q, &lease, !e);
    return e;
}

void stretch_deinit(struct stretch *s)
{
    buf_deinit(&s->rows);
    vec_deinit(&s->steps);
    vec_deinit(&s->effects);
    vec_deinit(&s->events);
    vec_each (m, &s->maps)
        vec_deinit(&m->maps);
    vec_deinit(&s->maps);
    vec_deinit(&s->initial);
}

/* --- asking --- */

const struct step_row *stretch_after(const struct stretch *s, size_t i, bool *partial)
{
    const struct stretch_step *step = &s->steps.items[i], *end = s->steps.items + s->steps.count;
    const struct step_row *cut = NULL;
    *partial = false;
    for (const struct stretch_step *next = step + 1; next < end && next->at.event == step->at.event;
         next++) {
        if (next->task != step->task)
            continue;
        if (next->at.icount > step->at.icount)
            return next->row;
        if (next->row->end)
            cut = next->row;
    }
    // It was not completed. A string instruction may have got somewhere.
    if (cut && memcmp(&cut->regs, &step->row->regs, sizeof(cut->regs)) != 0 &&
        cut->regs.r[UREG_RIP] == step->row->regs.r[UREG_RIP]) {
        *partial = true;
        return cut;
    }
    return NULL;
}

bool stretch_repeated(const struct stretch *s, size_t i)
{
    const struct stretch_step *step = &s->steps.items[i];
    for (size_t k = i + 1; k < s->steps.count && moment_cmp(s->steps.items[k].at, step->at) == 0;
         k++) {
        if (!s->steps.items[k].row->end)
            return true;
    }
    return false;
}

enum stop_reason stretch_stop(const struct stretch *s, size_t i)
{
    const struct stretch_step *step = &s->steps.items[i];
    for (size_t k = i + 1; k < s->steps.count && moment_cmp(s->steps.items[k].at, step->at) == 0;
         k++) {
        if (s->steps.items[k].row->end)
            return (enum stop_reason)s->steps.items[k].row->reason;
    }
    return STOP_LIMIT;
}

const struct regs *stretch_before_event(const struct stretch *s, event_no number, uint32_t task)
{
    const struct regs *best = NULL;
    struct moment at = {0};
    vec_each (i, &s->initial) {
        if (i->task == task)
            best = &i->row->regs, at = i->at;
    }
    if (number <= s->from.event)
        return NULL;
    vec_each (e, &s->events) {
        if (e->number < number && e->task == task && e->have_after)
            best = &e->after, at = (struct moment){e->number, 0};
    }
    size_t low = 0, high = s->steps.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (s->steps.items[middle].at.event < number)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low > 0; low--) {
        const struct stretch_step *step = &s->steps.items[low - 1];
        if (step->task == task && moment_cmp(step->at, at) >= 0)
            return &step->row->regs; // the end of a run, as a rule
        if (moment_cmp(step->at, at) < 0)
            break;
    }
    return best;
}

const struct stretch_event *stretch_event(const struct stretch *s, event_no number)
{
    if (!s->events.count || number < s->events.items[0].number ||
        number - s->events.items[0].number >= s->events.count)
        return NULL;
    return &s->events.items[number - s->events.items[0].number];
}

size_t stretch_acted(const struct stretch *s, size_t i, size_t *first_out)
{
    struct moment at = s->steps.items[i].at;
    size_t low = 0, high = s->effects.count, count = 0;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (moment_cmp(s->effects.items[middle].at, at) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *first_out = low;
    while (at.icount && low + count < s->effects.count &&
           moment_cmp(s->effects.items[low + count].at, at) == 0)
        count++;
    return count;
}

const struct stretch_mapping *stretch_mapping_at(const struct stretch *s, uint32_t space,
                                                 gaddr addr, struct moment m)
{
    vec_each (kept, &s->maps) {
        if (kept->space != space || moment_cmp(kept->until, m) < 0)
            continue;
        size_t low = 0, high = kept->maps.count;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (kept->maps.items[middle].end > addr)
                high = middle;
            else
                low = middle + 1;
        }
        return low < kept->maps.count && kept->maps.items[low].start <= addr
                   ? &kept->maps.items[low]
                   : NULL;
    }
    return NULL;
}

struct moment moment_back(const struct query_engine *q, struct moment m, uint64_t count)
{
    size_t segments, at = history_segment_at(q->history, m);
    const struct history_segment *segment = history_segments(q->history, &segments);
    if (at > 0 && moment_cmp(segment[at].start, m) >= 0)
        at--;
    struct moment start = segment[at].start;
    while (count > m.icount && m.event > start.event) {
        count -= m.icount;
        m = moment_before_event(q, m.event);
    }
    m.icount -= count < m.icount ? count : m.icount;
    return moment_cmp(m, start) < 0 ? start : m;
}

struct moment moment_forth(const struct query_engine *q, struct moment m, uint64_t count)
{
    size_t segments;
    struct moment end =
        history_segments(q->history, &segments)[history_segment_at(q->history, m)].end;
    while (m.event < end.event) {
        uint64_t last =
            m.event + 1 < q->event_icount.count ? q->event_icount.items[m.event + 1] : m.icount;
        uint64_t left = last > m.icount ? last - m.icount : 0;
        if (left > count)
            break;
        count -= left;
        if (count)
            count--; // so that many events without instructions are bounded, too
        m = (struct moment){m.event + 1, 0};
        if (!count)
            return moment_cmp(m, end) < 0 ? m : end;
    }
    m.icount += count;
    return moment_cmp(m, end) < 0 ? m : end;
}

bool read_xstate(const uint8_t *xstate, unsigned start, unsigned len, uint8_t *out)
{
    static unsigned offsets[8];
    if (!offsets[0]) {
        for (unsigned i = 2; i < 8; i++)
            offsets[i] = xstate_offset(i);
        offsets[0] = 1;
    }
    uint64_t in_use = load_u64(xstate + 512);
    for (unsigned i = 0; i < len; i++) {
        unsigned at = start + i, component, offset;
        if (at >= X86_VECTOR && at < X86_MASK) {
            unsigned reg = (at - X86_VECTOR) / 64, byte = (at - X86_VECTOR) % 64;
            component = reg >= 16 ? 7 : byte < 16 ? 1 : byte < 32 ? 2 : 6;
            offset = reg >= 16   ? offsets[7] + 64 * (reg - 16) + byte
                     : byte < 16 ? 160 + 16 * reg + byte
                     : byte < 32 ? offsets[2] + 16 * reg + byte - 16
                                 : offsets[6] + 32 * reg + byte - 32;
        } else if (at >= X86_MASK && at < X86_X87) {
            component = 5;
            offset = offsets[5] + at - X86_MASK;
        } else if (at >= X86_X87 && at < X86_MXCSR) {
            component = 0;
            offset =
                32 + 16 * (((at - X86_X87) / 10 - (xstate[3] >> 3 & 7)) & 7) + (at - X86_X87) % 10;
        } else if (at >= X86_MXCSR && at < X86_CONTROL) {
            component = 1;
            offset = 24 + at - X86_MXCSR;
            in_use |= 2;
        } else {
            return false;
        }
        if (component > 1 && !offsets[component])
            return false;
        out[i] = in_use >> component & 1 ? xstate[offset] : 0;
    }
    return true;
}
