/* Calls against a naive oracle: every instruction of the first task is looked at. A call
 * instruction lowers rsp by 8 and begins a call, which ends when rsp is above that; a signal
 * handler is a call, too. What goes on on other stacks than the task's first is left out. Then
 * `call` and `callees` are asked about the frames of random moments, and `execution` about
 * functions.
 *
 * calls_oracle TRACE_DIR: a copy of a small recording; a database is made in it. */
#include "check.h"
#include "index/build.h"
#include "query/query.h"
#include "replay/replay.h"
#include "rows.h"
#include "x86/x86.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST_STEPS = 400000, STACK_LEN = 4 << 20, QUESTIONS = 15, FUNCTIONS = 10, AGAIN = 6 };

struct seen_call {
    struct moment call, entry, end; /* end.event 0: it does not end */
    gaddr sp;
    gaddr pc;      /* of the first instruction */
    size_t parent; /* SIZE_MAX: the first frame */
    bool by_signal;
    bool returned; /* it ended by a return instruction */
};
static VEC(struct seen_call) calls;
static VEC(size_t) live; /* innermost last */

struct question {
    struct moment m;
    VEC(size_t) frames; /* innermost first */
};
static VEC(struct question) questions;
static struct moment last_moment;

/* --- the naive pass --- */

struct walk {
    gaddr stack; /* rsp at the start */
    uint64_t steps;
    struct x86_insn in;
    struct regs regs;
    struct moment at;
    bool have; /* the step before, that ran */
};

static void begin_call(struct seen_call c)
{
    c.parent = live.count ? live.items[live.count - 1] : SIZE_MAX;
    vec_push(&live, calls.count);
    vec_push(&calls, c);
}

static void look(struct walk *w, struct moment m, const struct step_row *row)
{
    gaddr sp = row->regs.r[UREG_RSP];
    if (!w->stack)
        w->stack = sp;
    bool here = w->stack + STACK_LEN / 8 - sp < STACK_LEN;
    last_moment = m;
    while (here && live.count && calls.items[live.items[live.count - 1]].sp < sp) {
        struct seen_call *c = &calls.items[live.items[--live.count]];
        c->end = m;
        c->returned = w->have && w->in.class == X86_RETURN && w->regs.r[UREG_RSP] == c->sp;
    }
    if (here && w->have && m.event == w->at.event && w->in.class == X86_CALL &&
        sp == w->regs.r[UREG_RSP] - 8 && m.icount == w->at.icount + 1)
        begin_call(
            (struct seen_call){.call = w->at, .entry = m, .sp = sp, .pc = row->regs.r[UREG_RIP]});
    // A frame for a handler is hundreds of bytes long.
    else if (here && w->regs.r[UREG_RIP] && m.icount == 0 && sp + 500 < w->regs.r[UREG_RSP] &&
             row->regs.r[UREG_RIP] != w->regs.r[UREG_RIP])
        begin_call(
            (struct seen_call){.call = {m.event - 1, 0}, .entry = m, .sp = sp, .by_signal = true});
    w->regs = row->regs;
    w->at = m;
    w->have = !row->end && x86_decode(row->code, row->code_len, row->regs.r[UREG_RIP], &w->in);
    if (!here || row->end || ++w->steps % 997 || !live.count)
        return;
    struct question *q = vec_add(&questions);
    *q = (struct question){.m = m};
    for (size_t i = live.count; i-- > 0;)
        vec_push(&q->frames, live.items[i]);
}

static struct err *keep_clocks(void *ctx, struct replay *r, uint32_t space)
{
    return NULL;
}

static void walk(struct trace *t)
{
    struct walk w = {0};
    struct replay *r;
    must(replay_open(t, &r));
    const struct replay_observer observer = {.code_mapped =
                                                 keep_clocks}; // so that workers are told the time
    replay_set_observer(r, &observer);
    while (!replay_at_end(r) && w.steps < MOST_STEPS) {
        struct moment now = replay_now(r), next = {now.event + 1, 0};
        uint32_t space = 0;
        size_t count;
        const struct task_info *tasks = replay_tasks(r, &count);
        for (size_t i = 0; i < count; i++)
            space = tasks[i].serial == 1 ? tasks[i].space : space;
        if (replay_running(r) != 1 || !space) {
            must(replay_run(r, next, UINT64_MAX, NULL));
            continue;
        }
        struct worker *worker = replay_worker(r, space);
        must(worker_set_steps(worker, &(struct step_request){.record = true}));
        must(replay_run(r, next, UINT64_MAX, NULL));
        if (replay_worker(r, space) != worker)
            continue;
        cleanup(buf_deinit) struct buf rows = {0};
        must(worker_take_steps(worker, &rows, NULL));
        must(worker_set_steps(worker, NULL));
        const struct step_row *row = (const void *)rows.data;
        for (size_t i = 0; i < rows.len / sizeof(*row); i++)
            look(&w, (struct moment){row[i].stamp, row[i].icount}, &row[i]);
    }
    replay_close(r);
}

/* --- asking --- */

static json_t *ask(struct query_engine *q, const char *name, struct moment m, size_t frame,
                   const char *direction, struct moment from)
{
    json_t *params =
        json_pack("{s{s{sI, sI}, s{si}, si}, ss, si, s{sI, sI}}", "focus", "moment", "event",
                  (json_int_t)m.event, "instr", (json_int_t)m.icount, "task", "serial", 1, "frame",
                  (int)frame, "direction", direction, "limit", 12, "from", "event",
                  (json_int_t)from.event, "instr", (json_int_t)from.icount);
    json_t *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row};
    struct err *e = query_run(q, name, params, &sink);
    json_decref(params);
    if (e && failures++ < 10)
        printf("FAIL: %s of frame %zu at %llu:%llu: %s\n", name, frame, (unsigned long long)m.event,
               (unsigned long long)m.icount, err_message(e));
    err_free(e);
    return rows;
}

/* The moment after an event at which nothing ran is the same as that before the next; the end of a
 * call may be told either way. */
static bool same_end(const struct seen_call *c, json_t *row)
{
    struct moment end = moment_of(json_object_get(row, "end"));
    if (!c->end.event) // beyond the walk
        return json_object_get(row, "noReturn") || moment_cmp(end, last_moment) >= 0;
    return moment_cmp(end, c->end) == 0;
}

static void tell(const char *what, struct moment m, size_t frame, const struct seen_call *c,
                 json_t *row)
{
    char *text = row ? json_dumps(row, JSON_COMPACT) : NULL;
    if (failures++ < 10)
        printf("FAIL: %s of frame %zu at %llu:%llu: want %llu:%llu to %llu:%llu, have %.400s\n",
               what, frame, (unsigned long long)m.event, (unsigned long long)m.icount,
               (unsigned long long)c->entry.event, (unsigned long long)c->entry.icount,
               (unsigned long long)c->end.event, (unsigned long long)c->end.icount,
               text ? text : "nothing");
    free(text);
}

static bool is_tail(json_t *row)
{
    return strcmp(json_string_value(json_object_get(row, "kind")), "tail") == 0;
}

static void check_callees(struct query_engine *q, const struct question *a, size_t frame,
                          bool forward, struct moment from)
{
    json_t *rows = ask(q, "callees", a->m, frame, forward ? "forward" : "backward", from);
    size_t k = 0;
    for (size_t i = 0; i < calls.count; i++) {
        const struct seen_call *c = &calls.items[forward ? i : calls.count - 1 - i];
        if (c->parent != a->frames.items[frame] ||
            (forward ? moment_cmp(c->entry, from) < 0 : moment_cmp(c->entry, from) >= 0))
            continue;
        while (k < json_array_size(rows) && is_tail(json_array_get(rows, k)))
            k++;
        json_t *row = json_array_get(rows, k++);
        if (!row && json_array_size(rows) >= 12)
            break;
        checks++;
        if (!row || moment_cmp(row_moment(row), c->entry) != 0 || !same_end(c, row)) {
            tell(forward ? "callees" : "callees before", a->m, frame, c, row);
            break;
        }
    }
    while (k < json_array_size(rows) && is_tail(json_array_get(rows, k)))
        k++;
    checks++;
    struct seen_call none = {0};
    if (k < json_array_size(rows) &&
        moment_cmp(row_moment(json_array_get(rows, k)), last_moment) < 0)
        tell("one callee too many", a->m, frame, &none, json_array_get(rows, k));
    json_decref(rows);
}

static void check(struct query_engine *q, const struct question *a)
{
    for (size_t frame = 0; frame < a->frames.count && frame < 4; frame++) {
        const struct seen_call *c = &calls.items[a->frames.items[frame]];
        json_t *rows = ask(q, "call", a->m, frame, "forward", a->m), *row = json_array_get(rows, 0);
        checks++;
        if (!row || moment_cmp(row_moment(row), c->entry) != 0 || !same_end(c, row))
            tell("call", a->m, frame, c, row);
        json_decref(rows);
        check_callees(q, a, frame, true, c->entry);
        check_callees(q, a, frame, false, a->m);
    }
}

/* --- executions of functions --- */

static json_t *function_at(struct query_engine *q, struct moment m)
{
    json_t *rows = ask(q, "complete-frame", m, 0, "forward", m);
    json_t *id =
        json_incref(json_object_get(json_object_get(json_array_get(rows, 0), "function"), "id"));
    json_decref(rows);
    return id;
}

static json_t *ask_executions(struct query_engine *q, json_t *id, struct moment from, bool forward)
{
    json_t *params = json_pack("{sO, ss, si, s{sI, sI}}", "function", id, "direction",
                               forward ? "forward" : "backward", "limit", 12, "from", "event",
                               (json_int_t)from.event, "instr", (json_int_t)from.icount);
    json_t *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row};
    struct err *e = query_run(q, "execution", params, &sink);
    json_decref(params);
    if (e && failures++ < 10)
        printf("FAIL: executions: %s\n", err_message(e));
    err_free(e);
    return rows;
}

static bool returns_as_seen(const struct seen_call *c, json_t *row)
{
    if (c->end.event && !c->returned)
        return json_is_true(json_object_get(row, "noReturn"));
    return same_end(c, row);
}

/* The calls of the function that begins with a call's first instruction: none is missing, and each
 * has returned when it did, or has not. Others may be among them: of other tasks, and by jumps. */
static void check_executions(struct query_engine *q, const struct seen_call *of, struct moment from,
                             bool forward)
{
    json_t *id = function_at(q, of->entry),
           *rows = id ? ask_executions(q, id, from, forward) : NULL, *row;
    size_t k = 0;
    for (size_t i = 0; rows && i < calls.count; i++) {
        const struct seen_call *c = &calls.items[forward ? i : calls.count - 1 - i];
        if (c->by_signal || c->pc != of->pc ||
            (forward ? moment_cmp(c->entry, from) < 0 : moment_cmp(c->entry, from) >= 0))
            continue;
        while ((row = json_array_get(rows, k)) && moment_cmp(row_moment(row), c->entry) != 0)
            k++;
        if (!row && (json_array_size(rows) >= 12))
            break;
        checks++;
        if (!row || !returns_as_seen(c, row)) {
            tell(forward ? "executions" : "executions before", from, 0, c, row);
            break;
        }
    }
    json_decref(rows);
    json_decref(id);
}

/* Is it the function's first instruction? A stub that jumps there has no function, and in a
 * symbol's midst is none. */
static bool is_function(struct query_engine *q, const struct seen_call *c)
{
    json_t *id = function_at(q, c->entry),
           *rows = id ? ask_executions(q, id, c->entry, true) : NULL;
    bool first =
        json_array_size(rows) && moment_cmp(row_moment(json_array_get(rows, 0)), c->entry) == 0;
    json_decref(rows);
    json_decref(id);
    return first;
}

int main(int argc, char **argv)
{
    static const struct build_options options = {
        .shards = 1, .compression_level = 3, .segment_icount = 9001};
    static const struct query_options in_parts = {.parts = 3};
    cleanup(trace_closep) struct trace *t = NULL;
    if (argc != 2)
        return 2;
    must(trace_open(argv[1], &t));
    walk(t);
    printf("%zu calls, %zu moments\n", calls.count, questions.count);
    must(index_build(argv[1], &options, NULL));
    cleanup(query_engine_closep) struct query_engine *q = NULL, *parted = NULL;
    must(query_engine_open(argv[1], NULL, &q));
    must(query_engine_open(argv[1], &in_parts, &parted));
    for (unsigned i = 0; i < QUESTIONS && questions.count; i++)
        check(q, &questions.items[random_number() % questions.count]);
    for (unsigned i = 0; i < FUNCTIONS && calls.count; i++) {
        const struct seen_call *of = &calls.items[random_number() % calls.count];
        struct moment from = calls.items[random_number() % calls.count].entry;
        if (of->by_signal || !is_function(q, of))
            continue;
        struct query_engine *const engines[] = {q, parted};
        for (size_t k = 0; k < 2; k++) {
            check_executions(engines[k], of, from, true);
            check_executions(engines[k], of, from, false);
            check_executions(engines[k], of, of->entry, true);
            // Of what has been told by now much is remembered.
            for (unsigned n = 0; n < AGAIN; n++) {
                struct moment other = calls.items[random_number() % calls.count].entry;
                check_executions(engines[k], of, other, n % 2);
            }
        }
    }
    printf("%u checks, %u failures\n", checks, failures);
    return failures || !checks ? 1 : 0;
}
