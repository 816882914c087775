/* The instruction view: what a task executed around a moment, with the registers and memory that
 * each instruction used. */
#include "query/stretch_int.h"

#include <signal.h>
#include <stdio.h>

enum { MOST_ROWS = 1000, SHOWN_BYTES = 64 };

/* Part of the way: one piece of the recording, in one segment, in which the task runs. */
struct piece {
    struct moment from, until;
};
typedef VEC(struct piece) piece_list;

/* An access of a row, and its bytes. */
struct shown_access {
    struct x86_access access;
    uint8_t before[SHOWN_BYTES], after[SHOWN_BYTES];
    uint64_t before_len, after_len; /* that could be read */
};

struct shown_row {
    size_t step;
    struct x86_insn insn;
    bool decoded;
    struct x86_access accesses[X86_MAX_ACCESSES];
    size_t access_count, first_access; /* in shown.accesses */
};

/* Rows of an instruction that was not completed: struct step_row and vector state. */
struct attempt {
    uint8_t before[sizeof(struct step_row) + XSTATE_MAX] __attribute__((aligned(8)));
    uint8_t after[sizeof(struct step_row) + XSTATE_MAX] __attribute__((aligned(8)));
};

struct shown {
    struct query_engine *q;
    struct stretch stretch;
    uint32_t task, space;
    VEC(struct shown_row) rows;
    VEC(struct shown_access) accesses;
    struct attempt attempts[2]; /* of add_attempt(): at the piece's start, at its end */
};

static void shown_deinit(struct shown *s)
{
    stretch_deinit(&s->stretch);
    vec_deinit(&s->rows);
    vec_deinit(&s->accesses);
}

/* --- which pieces --- */

static struct moment segment_end(const struct query_engine *q, struct moment m)
{
    size_t count;
    return history_segments(q->history, &count)[history_segment_at(q->history, m)].end;
}

/* Pieces that hold the next `count` instructions and events of the task from `from` on. */
static void pieces_forward(const struct query_engine *q, uint32_t task, struct moment from,
                           uint64_t count, piece_list *out)
{
    for (event_no e = from.event; e < q->last_event && count; e++) {
        if (q->runner.items[e + 1] != task)
            continue;
        struct moment start = {e, e == from.event ? from.icount : 0},
                      until = {e, q->event_icount.items[e + 1]};
        uint64_t here = until.icount > start.icount ? until.icount - start.icount : 0;
        if (here > count)
            until.icount = start.icount + count;
        count -= here < count ? here : count;
        if (count)
            count--; // the event
        for (bool rest = true; rest;) {
            struct moment end = segment_end(q, start);
            rest = moment_cmp(end, until) < 0; // a boundary in the middle
            struct moment stop = rest ? end : until;
            struct piece *last = out->count ? &out->items[out->count - 1] : NULL;
            if (last && last->until.event + 1 == e &&
                moment_cmp(segment_end(q, last->from), end) == 0)
                last->until = stop;
            else
                vec_push(out, (struct piece){start, stop});
            start = stop;
        }
    }
}

/* Pieces that hold the last `count` instructions and events of the task before `from`; latest
 * first. */
static void pieces_backward(const struct query_engine *q, uint32_t task, struct moment from,
                            uint64_t count, piece_list *out)
{
    size_t segments;
    const struct history_segment *segment = history_segments(q->history, &segments);
    for (event_no e = from.event < q->last_event ? from.event + 1 : q->last_event;
         e-- > 0 && count;) {
        if (q->runner.items[e + 1] != task)
            continue;
        uint64_t end = q->event_icount.items[e + 1];
        if (e == from.event && from.icount < end)
            end = from.icount;
        struct moment until = {e, end}, start = {e, end > count ? end - count : 0};
        count -= end < count ? end : count;
        if (count)
            count--;
        struct piece *last = out->count ? &out->items[out->count - 1] : NULL;
        struct moment boundary = segment[history_segment_at(q->history, until)].start;
        if (moment_cmp(boundary, until) == 0 && end) // just before a boundary
            boundary = segment[history_segment_at(q->history, until) - 1].start;
        if (last && last->from.event == e + 1 && last->from.icount == 0 &&
            moment_cmp(start, boundary) >= 0 && moment_cmp(last->from, boundary) > 0 &&
            history_segment_at(q->history, last->from) == history_segment_at(q->history, start)) {
            last->from = start;
            continue;
        }
        for (; moment_cmp(start, boundary) < 0;
             boundary = segment[history_segment_at(q->history, boundary) - 1].start) {
            vec_push(out, (struct piece){boundary, until});
            until = boundary;
        }
        vec_push(out, (struct piece){start, until});
    }
}

/* --- reading --- */

static bool read_vectors(void *ctx, unsigned start, unsigned len, uint8_t *out)
{
    return read_xstate((const uint8_t *)((const struct step_row *)ctx + 1), start, len, out);
}

static void decode_row(struct shown *s, size_t step)
{
    const struct stretch_step *st = &s->stretch.steps.items[step];
    bool partial;
    const struct step_row *after = stretch_after(&s->stretch, step, &partial);
    enum stop_reason reason = after ? STOP_LIMIT : stretch_stop(&s->stretch, step);
    // An instruction that a signal or a task switch came before is not shown until it is its turn.
    if (stretch_repeated(&s->stretch, step) ||
        (!after && reason != STOP_FAULT && reason != STOP_SYSCALL && reason != STOP_TRAP))
        return;
    struct shown_row *row = vec_add(&s->rows);
    row->step = step;
    row->decoded =
        x86_decode(st->row->code, st->row->code_len, st->row->regs.r[UREG_RIP], &row->insn);
    if (!row->decoded)
        return;
    struct x86_run run = {.before = &st->row->regs,
                          .after = after ? &after->regs : NULL,
                          .ctx = (void *)(uintptr_t)st->row,
                          .registers = read_vectors};
    row->access_count = x86_accesses(&row->insn, &run, row->accesses);
    row->first_access = s->accesses.count;
    for (size_t i = 0; i < row->access_count; i++) {
        struct shown_access *a = vec_add(&s->accesses);
        a->access = row->accesses[i];
    }
}

struct wanted {
    struct step_capture capture;
    size_t access;
    bool after;
};

static int by_capture_time(const void *a, const void *b)
{
    const struct wanted *x = a, *y = b;
    return moment_cmp((struct moment){x->capture.stamp, x->capture.icount},
                      (struct moment){y->capture.stamp, y->capture.icount});
}

/* Reads the bytes of all accesses, before and after, in one go. */
static struct err *read_accesses(struct shown *s)
{
    VEC(struct wanted) wanted = {0};
    vec_each (row, &s->rows) {
        const struct stretch_step *st = &s->stretch.steps.items[row->step];
        bool partial;
        const struct step_row *after = stretch_after(&s->stretch, row->step, &partial);
        for (size_t i = 0; i < row->access_count && st->space == s->space; i++) {
            const struct x86_access *a = &row->accesses[i];
            uint64_t len = a->len < SHOWN_BYTES ? a->len : SHOWN_BYTES;
            struct step_capture c = {st->at.event, st->at.icount, a->addr, len};
            vec_push(&wanted, (struct wanted){c, row->first_access + i, false});
            if (!after || !a->writes)
                continue;
            c.icount += !partial;
            vec_push(&wanted, (struct wanted){c, row->first_access + i, true});
        }
    }
    if (wanted.count)
        qsort(wanted.items, wanted.count, sizeof(wanted.items[0]), by_capture_time);
    VEC(struct step_capture) captures = {0};
    vec_each (w, &wanted)
        vec_push(&captures, w->capture);
    cleanup(buf_deinit) struct buf memory = {0};
    struct err *e = stretch_memory(s->q, s->space, captures.items, captures.count, &memory);
    size_t at = 0;
    for (size_t i = 0; !e && i < wanted.count; i++) {
        struct shown_access *a = &s->accesses.items[wanted.items[i].access];
        uint64_t len = captures.items[i].len, done = load_u64(memory.data + at);
        memcpy(wanted.items[i].after ? a->after : a->before, memory.data + at + 8, len);
        *(wanted.items[i].after ? &a->after_len : &a->before_len) = done;
        at += 8 + ((len + 7) & ~7ull);
    }
    vec_deinit(&wanted);
    vec_deinit(&captures);
    return e;
}

/* --- rows --- */

/* A register's value: numbers for those of up to 8 bytes, else bytes. */
static json_t *register_value(const struct step_row *row, struct x86_span span)
{
    uint8_t v[64];
    if (span.len > sizeof(v) || (!x86_read_regs(&row->regs, span.start, span.len, v) &&
                                 !read_xstate((const uint8_t *)(row + 1), span.start, span.len, v)))
        return json_null();
    if (span.len > 8 || span.start >= X86_X87)
        return json_bytes(v, span.len);
    uint64_t n = 0;
    memcpy(&n, v, span.len);
    return json_hex(n);
}

static const struct x86_span *find_span(const struct x86_span *spans, size_t n,
                                        struct x86_span what)
{
    for (size_t i = 0; i < n; i++) {
        if (x86_unit(spans[i].start) == x86_unit(what.start))
            return &spans[i];
    }
    return NULL;
}

static bool is_flag(struct x86_span s)
{
    return s.start >= X86_FLAGS && s.start < X86_VECTOR;
}

static json_t *flags_row(const struct x86_insn *in, const struct step_row *before,
                         const struct step_row *after)
{
    json_t *o =
        json_pack("{ss, sb, sb, so}", "name", "eflags", "read", in->flags_read != 0, "written",
                  in->flags_written != 0, "before", json_hex(before->regs.r[UREG_EFLAGS]));
    if (after && in->flags_written)
        json_object_set_new(o, "after", json_hex(after->regs.r[UREG_EFLAGS]));
    return o;
}

static json_t *register_rows(const struct x86_insn *in, const struct step_row *before,
                             const struct step_row *after)
{
    json_t *list = json_array();
    struct x86_span reads[X86_MAX_SPANS], writes[X86_MAX_SPANS];
    size_t read_count = x86_registers_read(in, reads),
           write_count = x86_registers_written(in, writes);
    char name[32];
    for (size_t i = 0; i < read_count + write_count; i++) {
        bool is_write = i >= read_count;
        struct x86_span span = is_write ? writes[i - read_count] : reads[i];
        if (is_flag(span))
            continue;
        const struct x86_span *written = is_write ? &span : find_span(writes, write_count, span);
        if (is_write && find_span(reads, read_count, span))
            continue; // shown with what was read
        if (written && written->len > span.len)
            span = *written;
        json_t *o = json_pack(
            "{ss, sb, sb, so}", "name", x86_register_name(span.start, span.len, name, sizeof(name)),
            "read", !is_write, "written", written != NULL, "before", register_value(before, span));
        if (written && after)
            json_object_set_new(o, "after", register_value(after, span));
        json_array_append_new(list, o);
    }
    if (in->flags_read | in->flags_written)
        json_array_append_new(list, flags_row(in, before, after));
    return list;
}

static json_t *memory_rows(const struct shown *s, const struct shown_row *row)
{
    json_t *list = json_array();
    for (size_t i = 0; i < row->access_count; i++) {
        const struct shown_access *a = &s->accesses.items[row->first_access + i];
        if (!a->access.len)
            continue;
        json_t *o = json_pack("{so, sI, sb, sb}", "address", json_hex(a->access.addr), "size",
                              (json_int_t)a->access.len, "read", a->access.reads, "written",
                              a->access.writes);
        if (a->access.maybe)
            json_object_set_new(o, "possible", json_true());
        if (a->before_len)
            json_object_set_new(o, "before", json_bytes(a->before, a->before_len));
        if (a->after_len)
            json_object_set_new(o, "after", json_bytes(a->after, a->after_len));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *instruction_row(struct shown *s, const struct shown_row *row)
{
    struct query_engine *q = s->q;
    const struct stretch_step *st = &s->stretch.steps.items[row->step];
    gaddr pc = st->row->regs.r[UREG_RIP];
    bool partial;
    const struct step_row *after = stretch_after(&s->stretch, row->step, &partial);
    char text[128];
    unsigned len = row->decoded ? row->insn.len : st->row->code_len;
    json_t *o = json_pack("{so, so, ss, so, so, ss}", "focus", json_focus(q, st->at, st->task, 0),
                          "task", json_task(q, st->task), "kind", "instruction", "pc", json_hex(pc),
                          "bytes", json_bytes(st->row->code, len), "text",
                          x86_format(st->row->code, st->row->code_len, pc, text, sizeof(text)));
    const struct stretch_mapping *m = stretch_mapping_at(&s->stretch, st->space, pc, st->at);
    struct code_place p =
        m ? place_in(q, m->mmap_idx, m->start, m->offset, pc) : (struct code_place){0};
    if (p.module)
        describe_place(q, &p, o);
    if (!after && stretch_stop(&s->stretch, row->step) == STOP_FAULT)
        json_object_set_new(o, "faulted", json_true());
    if (partial)
        json_object_set_new(o, "partial", json_true());
    if (!row->decoded)
        return o;
    if (row->insn.class == X86_JUMP && row->insn.conditional && after)
        json_object_set_new(o, "taken",
                            json_boolean(after->regs.r[UREG_RIP] != pc + row->insn.len));
    json_object_set_new(o, "registers", register_rows(&row->insn, st->row, after));
    json_object_set_new(o, "memory", memory_rows(s, row));
    return o;
}

static json_t *event_row(struct query_engine *q, const struct db_event *e)
{
    char name[64];
    json_t *o = json_pack("{so, so, ss, sI, ss}", "focus",
                          json_focus(q, (struct moment){e->number - 1, e->icount}, e->task, 0),
                          "task", json_task(q, e->task), "kind", "event", "number",
                          (json_int_t)e->number, "name", event_name(q, e, name, sizeof(name)));
    if (e->kind == FRAME_SYSCALL && e->syscall_state == SYSCALL_EXITING)
        json_object_set_new(o, "result", json_hex(e->result));
    return o;
}

/* --- attempts --- */

/* Is it a signal that the instruction itself made (rr, src/RecordTask.cc: is_deterministic_signal)?
 */
static bool is_of_instruction(const struct db_event *e)
{
    bool fault = e->signo == SIGILL || e->signo == SIGTRAP || e->signo == SIGBUS ||
                 e->signo == SIGFPE || e->signo == SIGSEGV;
    return e->kind == FRAME_SIGNAL && fault && e->si_code > 0;
}

/* How the attempt at an instruction ended that led to an event; STOP_LIMIT: it was none. */
static enum stop_reason reason_of(const struct db_event *e, const struct x86_insn *in)
{
    bool enters = e->kind == FRAME_SYSCALL && e->syscall_state != SYSCALL_EXITING;
    if (is_of_instruction(e))
        return STOP_FAULT;
    if (!in)
        return STOP_LIMIT;
    if (in->class == X86_SYSCALL && ((enters && e->rip == in->pc + in->len) ||
                                     (e->kind == FRAME_PATCH_SYSCALL && e->rip == in->pc)))
        return STOP_SYSCALL;
    return e->kind == FRAME_INSTRUCTION_TRAP && e->rip == in->pc + in->len ? STOP_TRAP : STOP_LIMIT;
}

/* The state of the task as a row. */
static struct err *fill_row(struct query_engine *q, struct moment m, uint32_t task, uint8_t *out,
                            uint32_t *space_out)
{
    struct step_row *row = (void *)out;
    struct replay *r;
    struct xstate x;
    size_t len = 0;
    TRY(state_at(q, m, &r));
    TRY(space_of_task(r, task, space_out));
    TRY(replay_regs(r, task, &row->regs));
    TRY(replay_xstate(r, task, &x));
    memcpy(row + 1, x.data, XSTATE_MAX);
    err_free(replay_read(r, *space_out, row->regs.r[UREG_RIP], row->code, X86_MAX_LEN, &len));
    row->code_len = (uint8_t)len;
    row->stamp = m.event;
    row->icount = m.icount;
    return NULL;
}

/* The instruction that led to the event right behind m: a replay that stands there has nothing to
 * run until the event, and so does not attempt it again, nor one that ends there. Its rows are made
 * of the states before and behind it. */
static struct err *add_attempt(struct shown *s, struct moment m, struct attempt *a)
{
    struct query_engine *q = s->q;
    event_no next = m.event + 1;
    const struct db_event *e;
    struct stretch *st = &s->stretch;
    size_t at = 0;
    if (next > q->last_event || q->runner.items[next] != s->task ||
        m.icount < q->event_icount.items[next])
        return NULL;
    while (at < st->steps.count && moment_cmp(st->steps.items[at].at, m) < 0)
        at++;
    for (size_t i = at; i < st->steps.count && moment_cmp(st->steps.items[i].at, m) == 0; i++) {
        if (!st->steps.items[i].row->end)
            return NULL; // it came by
    }
    uint32_t space, space_after;
    TRY(event_at(q, next, &e, NULL));
    TRY(fill_row(q, m, s->task, a->before, &space));
    struct step_row *before = (void *)a->before, *after = (void *)a->after;
    struct x86_insn in;
    bool decoded = x86_decode(before->code, before->code_len, before->regs.r[UREG_RIP], &in);
    enum stop_reason reason = reason_of(e, decoded ? &in : NULL);
    if (reason == STOP_LIMIT)
        return NULL;
    memcpy(a->after, a->before, sizeof(a->before));
    if (reason == STOP_FAULT) // a string instruction may have got somewhere
        TRY(fill_row(q, (struct moment){next, 0}, s->task, a->after, &space_after));
    after->stamp = before->stamp;
    after->icount = before->icount;
    after->end = true;
    after->reason = (uint8_t)reason;
    for (unsigned i = 0; i < 2; i++) {
        vec_push(&st->steps, (struct stretch_step){0});
        memmove(&st->steps.items[at + i + 1], &st->steps.items[at + i],
                (st->steps.count - 1 - at - i) * sizeof(st->steps.items[0]));
        st->steps.items[at + i] = (struct stretch_step){m, s->task, space, i ? after : before};
    }
    return NULL;
}

/* Gives the rows of a piece, nearest first. ends: what is attempted at its end belongs to it, too.
 */
static struct err *give_piece(struct query_engine *q, uint32_t task, const struct piece *p,
                              bool ends, const struct window *w, size_t *left)
{
    bool forward = w->forward;
    cleanup(shown_deinit) struct shown s = {.q = q, .task = task};
    TRY(stretch_run(q, p->from, p->until, task, true, &s.stretch));
    TRY(add_attempt(&s, p->from, &s.attempts[0]));
    if (ends)
        TRY(add_attempt(&s, p->until, &s.attempts[1]));
    vec_each (st, &s.stretch.steps)
        s.space = st->space;
    for (size_t i = 0; i < s.stretch.steps.count; i++) {
        if (!s.stretch.steps.items[i].row->end &&
            moment_cmp(s.stretch.steps.items[i].at, p->from) >= 0)
            decode_row(&s, i);
    }
    TRY(read_accesses(&s));
    // Rows and events between them, in order of time; an event comes behind the instructions that
    // lead to it.
    size_t row = forward ? 0 : s.rows.count;
    event_no first = p->from.event + 1, last = p->until.event + 1;
    for (event_no n = first; n <= last; n++) {
        event_no number = forward ? n : last - (n - first);
        const struct db_event *e = NULL;
        struct moment at = {number - 1,
                            number <= q->last_event ? q->event_icount.items[number] : 0};
        if (number <= q->last_event && q->runner.items[number] == task &&
            moment_cmp(at, p->until) <= 0 && (forward || moment_cmp(at, w->from) < 0))
            TRY(event_at(q, number, &e, NULL));
        for (int part = 0; part < 2; part++) {
            if ((part == 0) != forward) { // the event
                if (!e)
                    continue;
                if (!*left)
                    return NULL;
                --*left;
                TRY(give(q, event_row(q, e)));
                continue;
            }
            while (forward ? row < s.rows.count : row > 0) {
                const struct shown_row *r = &s.rows.items[forward ? row : row - 1];
                if (s.stretch.steps.items[r->step].at.event != number - 1)
                    break;
                if (!*left)
                    return NULL;
                --*left;
                TRY(give(q, instruction_row(&s, r)));
                row = forward ? row + 1 : row - 1;
            }
        }
    }
    return NULL;
}

struct err *query_instructions(struct query_engine *q, json_t *params)
{
    struct focus f;
    struct window w;
    TRY(param_focus(q, params, &f));
    TRY(param_window(q, params, 50, &w));
    if (w.limit > MOST_ROWS)
        return err_new(ERR_USAGE, "limit is 1 to %d", MOST_ROWS);
    if (!json_object_get(params, "from"))
        w.from = f.moment;
    if (moment_cmp(w.from, end_of_recording(q)) > 0)
        w.from = end_of_recording(q);
    piece_list pieces = {0};
    if (w.forward)
        pieces_forward(q, f.task, w.from, w.limit + 1, &pieces);
    else
        pieces_backward(q, f.task, w.from, w.limit + 1, &pieces);
    size_t left = w.limit;
    struct err *e = NULL;
    for (size_t i = 0; i < pieces.count && left && !e; i++) {
        const struct piece *p = &pieces.items[i], *next = w.forward ? p + 1 : p - 1; // in time
        bool meets =
            (w.forward ? i + 1 < pieces.count : i > 0) && moment_cmp(next->from, p->until) == 0;
        e = give_piece(q, f.task, p, !meets && (w.forward || moment_cmp(p->until, w.from) < 0), &w,
                       &left);
    }
    q->sink->more = !e && !left;
    vec_deinit(&pieces);
    return e;
}
