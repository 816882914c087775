/* Stepping: the nearest moment, forward or backward, at which the program stands elsewhere. */
#include "query/query_int.h"

/* A task's state, for asking where its code stands. */
struct here {
    struct query_engine *q;
    struct replay *r;
    uint32_t space, task;
};

static bool line_of(struct here *h, gaddr pc, struct sym_line *out)
{
    struct code_place p = place_of(h->q, h->r, h->space, pc);
    if (!p.module)
        return false;
    struct err *e = sym_line_at(p.module->sym, p.link_addr, out);
    bool ok = !e;
    err_free(e);
    return ok;
}

static struct err *regs_at(struct query_engine *q, struct moment m, uint32_t task, struct here *h,
                           struct regs *out)
{
    h->q = q;
    h->task = task;
    TRY(state_at(q, m, &h->r));
    TRY(space_of_task(h->r, task, &h->space));
    return replay_regs(h->r, task, out);
}

enum kind { STEP_INSTRUCTION, STEP_LINE, STEP_OVER, STEP_OUT, STEP_ENTRY };

/* Lines are looked for instruction by instruction, up to this many. */
enum { MOST_STEPS = 20000 };

struct return_search {
    struct query_engine *q;
    uint32_t task;
    gaddr sp;
    size_t last; /* the segment in which the call ends; SIZE_MAX: not known */
    struct buf places;
    bool found;
    struct moment at;
};

static bool is_return(void *ctx, const struct hit *h)
{
    struct return_search *s = ctx;
    if (h->task != s->task || h->regs.r[UREG_RSP] <= s->sp)
        return true;
    s->found = true;
    s->at = h->moment;
    return false;
}

/* The return address, until the task has gone on behind the segment in which the call ends. */
static struct err *return_places(void *ctx, size_t *segment, const struct hit_place **out,
                                 size_t *count_out, size_t *batch_out)
{
    enum { MOST_ROWS = 64 };
    struct return_search *s = ctx;
    size_t count;
    const struct history_segment *all = history_segments(s->q->history, &count);
    bool over = *segment != SIZE_MAX && s->last<count && * segment> s->last + 1 &&
                task_ran(s->q, s->task, all[s->last + 1].start, all[*segment].start);
    *out = (const void *)s->places.data;
    *count_out = over ? 0 : s->places.len / sizeof(struct hit_place);
    *batch_out = MOST_ROWS;
    return NULL;
}

struct err *find_return(struct query_engine *q, struct moment from, uint32_t task,
                        gaddr return_addr, gaddr sp, struct moment *out, bool *found_out)
{
    static const struct hit_wants nothing;
    struct return_search s = {.q = q, .task = task, .sp = sp};
    const struct hit_source source = {&s, return_places};
    size_t count;
    bool known;
    TRY(last_live_segment(q, task, sp, from, &s.last, &known));
    struct moment start = history_segments(q->history, &count)[s.last].start;
    if (known && moment_cmp(start, from) > 0)
        from = start;
    if (!known)
        s.last = SIZE_MAX;
    places_at(q, return_addr, NULL, 0, &s.places);
    // Only above the call is of interest.
    const struct program_op ops[] = {{.code = PROGRAM_PUSH, .imm = sp},
                                     {.code = PROGRAM_REGISTER, .arg = UREG_RSP},
                                     {.code = PROGRAM_LT_U},
                                     {.code = PROGRAM_END}};
    const struct hook_programs above = {
        .condition = {.ops = ops, .count = sizeof(ops) / sizeof(ops[0])}};
    for (size_t i = 0; i < s.places.len / sizeof(struct hit_place); i++)
        ((struct hit_place *)(void *)s.places.data)[i].programs = &above;
    release_state(q);
    struct err *e = follow_hits(q, &source, from, &nothing, is_return, &s);
    buf_deinit(&s.places);
    *found_out = !e && s.found;
    if (*found_out)
        *out = s.at;
    return e;
}

/* Forward to where the call with its return address at `sp` has returned. */
static struct err *skip_callee(struct query_engine *q, struct moment m, uint32_t task,
                               gaddr return_addr, gaddr sp, struct moment *out)
{
    bool found;
    TRY(find_return(q, m, task, return_addr, sp, out, &found));
    return found ? NULL : err_new(ERR_NOT_FOUND, "the call does not return within the recording");
}

/* Steps by lines: to the next moment whose line is another one. over: calls made on the way are
 * passed in one go. */
static struct err *step_line(struct query_engine *q, const struct focus *f, bool over, bool forward,
                             struct moment *out)
{
    struct here h;
    struct regs regs;
    struct sym_line start = {0}, line;
    TRY(regs_at(q, f->moment, f->task, &h, &regs));
    bool had_line = line_of(&h, regs.r[UREG_RIP], &start);
    gaddr sp0 = regs.r[UREG_RSP];
    struct moment m = f->moment, last = f->moment;
    bool left = false;
    for (unsigned i = 0; i < MOST_STEPS; i++) {
        TRY(check_cancel(q));
        gaddr pc_before = regs.r[UREG_RIP], sp_before = regs.r[UREG_RSP];
        struct err *e = next_instruction(q, m, f->task, forward, &m);
        if (e && left && !forward) { // the start of the task is the start of its first line
            err_free(e);
            *out = last;
            return NULL;
        }
        TRY(e);
        TRY(regs_at(q, m, f->task, &h, &regs));
        if (over && forward && regs.r[UREG_RSP] < sp_before && regs.r[UREG_RSP] + 8 == sp_before) {
            // Was that a call? Then the pushed word is an address behind the instruction before.
            uint64_t pushed;
            e = replay_read(h.r, h.space, regs.r[UREG_RSP], &pushed, 8, NULL);
            if (!e && pushed > pc_before && pushed <= pc_before + 15 &&
                regs.r[UREG_RIP] != pushed) {
                TRY(skip_callee(q, m, f->task, pushed, regs.r[UREG_RSP], &m));
                TRY(regs_at(q, m, f->task, &h, &regs));
            }
            err_free(e);
        }
        if (over && !forward && regs.r[UREG_RSP] < sp0 - 128 && i > 0) {
            // Inside of something called from here: back to before that call, by the stack.
            frame_list frames = {0};
            TRY(stack_at(q, m, f->task, &frames));
            struct moment call = m;
            for (size_t k = 0; k < frames.count; k++) {
                if (frames.items[k].entry_sp && frames.items[k].entry_sp < sp0)
                    call = frames.items[k].call;
            }
            vec_deinit(&frames);
            m = call;
            TRY(regs_at(q, m, f->task, &h, &regs));
        }
        if (!line_of(&h, regs.r[UREG_RIP], &line))
            continue;
        bool same = had_line && line.line == start.line && str_eq(line.file, start.file);
        if (forward && !same &&
            line.start == regs.r[UREG_RIP] - place_of(q, h.r, h.space, regs.r[UREG_RIP]).bias) {
            *out = m;
            return NULL;
        }
        if (forward && !same && i > 200) {
            *out = m;
            return NULL;
        }
        if (forward)
            continue;
        // Backward: leave this line, then go on to the start of the line before.
        if (!left) {
            if (!same) {
                left = true;
                start = line;
                had_line = true;
            }
        } else if (!same) {
            *out = last;
            return NULL;
        }
        last = m;
    }
    *out = left ? last : m;
    return NULL;
}

static struct err *step_frame(struct query_engine *q, const struct focus *f, enum kind kind,
                              bool forward, struct moment *out)
{
    frame_list frames = {0};
    struct err *e = stack_at(q, f->moment, f->task, &frames);
    struct frame_info frame = {0};
    if (!e && f->frame >= frames.count)
        e = err_new(ERR_NOT_FOUND, "the stack has only %zu frames", frames.count);
    if (!e)
        frame = frames.items[f->frame];
    vec_deinit(&frames);
    TRY(e);
    if (!frame.entry_sp)
        return err_new(ERR_NOT_FOUND, "this frame was not called");
    if (kind == STEP_ENTRY)
        return next_instruction(q, frame.call, f->task, true, out);
    if (!forward) {
        *out = frame.call;
        return NULL;
    }
    struct here h;
    struct regs regs;
    uint64_t return_addr;
    TRY(regs_at(q, f->moment, f->task, &h, &regs));
    TRY(replay_read(h.r, h.space, frame.entry_sp, &return_addr, 8, NULL));
    return skip_callee(q, f->moment, f->task, return_addr, frame.entry_sp, out);
}

struct err *query_step(struct query_engine *q, json_t *params)
{
    static const char *const names[] = {"instruction", "line", "over", "out", "entry"};
    struct focus f;
    const char *text, *direction;
    TRY(param_focus(q, params, &f));
    TRY(param_string(params, "kind", &text));
    TRY(param_string(params, "direction", &direction));
    bool forward = str_eq(direction, "forward");
    if (!forward && !str_eq(direction, "backward"))
        return err_new(ERR_USAGE, "direction is \"forward\" or \"backward\"");
    size_t kind = 0;
    while (kind < 5 && !str_eq(names[kind], text))
        kind++;
    struct moment m;
    switch (kind) {
    case STEP_INSTRUCTION:
        TRY(next_instruction(q, f.moment, f.task, forward, &m));
        break;
    case STEP_LINE:
    case STEP_OVER:
        TRY(step_line(q, &f, kind == STEP_OVER, forward, &m));
        break;
    case STEP_OUT:
    case STEP_ENTRY:
        TRY(step_frame(q, &f, (enum kind)kind, forward, &m));
        break;
    default:
        return err_new(ERR_USAGE, "there is no step %.20s", text);
    }
    struct here h;
    struct regs regs;
    TRY(regs_at(q, m, f.task, &h, &regs));
    json_t *row = json_object();
    json_object_set_new(row, "focus", json_focus(q, m, f.task, 0));
    describe_code(q, h.r, h.space, regs.r[UREG_RIP], false, row);
    return give(q, row);
}
