/* One call: where it was entered, how and when it was left, with what result. Calls are those of
 * the stack of calls (stack.c), known by the moment of the call instruction. A call that is on that
 * stack at one moment and not at a later one has ended in between; where exactly is found by
 * halving. As a rule it returned, which is looked for first: its return address was reached with
 * the stack above. */
#include "query/calls_int.h"

struct err *calls_at(struct query_engine *q, struct moment m, uint32_t task, call_list *out)
{
    frame_list frames = {0};
    struct err *e = stack_at(q, m, task, &frames);
    for (size_t i = 0; !e && i < frames.count; i++) {
        const struct frame_info *f = &frames.items[i];
        struct made_call c = {.task = task,
                              .call = f->call,
                              .sp = f->entry_sp,
                              .by_signal = f->by_signal,
                              .return_addr = i + 1 < frames.count ? frames.items[i + 1].pc : 0};
        if (!f->entry_sp)
            c.entry = known_task(q, task)->start;
        else
            e = next_instruction(q, f->call, task, true, &c.entry);
        if (!e)
            vec_push(out, c);
    }
    vec_deinit(&frames);
    return e;
}

/* Is the call on the task's stack at m? */
static struct err *is_live(struct query_engine *q, const struct made_call *c, struct moment m,
                           bool *out)
{
    struct replay *r;
    uint32_t space;
    struct regs regs;
    *out = false;
    TRY(check_cancel(q));
    TRY(state_at(q, m, &r));
    struct err *gone = space_of_task(r, c->task, &space);
    if (!gone)
        gone = replay_regs(r, c->task, &regs);
    if (gone && err_kind(gone) == ERR_NOT_FOUND) {
        err_free(gone);
        return NULL;
    }
    TRY(gone);
    if (!c->sp) {
        *out = true;
        return NULL;
    }
    frame_list frames = {0};
    struct err *e = stack_at(q, m, c->task, &frames);
    for (size_t i = 0; !e && i < frames.count && !*out; i++)
        *out = frames.items[i].entry_sp == c->sp && moment_cmp(frames.items[i].call, c->call) == 0;
    vec_deinit(&frames);
    return e;
}

struct err *instruction_at(struct query_engine *q, struct moment m, uint32_t task,
                           struct x86_insn *out, struct regs *regs_out)
{
    struct replay *r;
    uint32_t space;
    uint8_t code[X86_MAX_LEN];
    size_t len = 0;
    TRY(state_at(q, m, &r));
    TRY(space_of_task(r, task, &space));
    TRY(replay_regs(r, task, regs_out));
    err_free(replay_read(r, space, regs_out->r[UREG_RIP], code, sizeof(code), &len));
    if (!x86_decode(code, len, regs_out->r[UREG_RIP], out))
        return err_new(ERR_FAULT, "there is no instruction at %#llx",
                       (unsigned long long)regs_out->r[UREG_RIP]);
    return NULL;
}

/* --- the end --- */

/* Live at `low`, not at `high`: *high_out is the first moment at which it is not. */
static struct err *narrow(struct query_engine *q, const struct made_call *c, struct moment low,
                          struct moment high, struct moment *high_out)
{
    bool live;
    // First the events, with growing strides, since states near by cost less.
    for (event_no stride = 1; low.event + stride < high.event; stride *= 4) {
        struct moment m = {low.event + stride, 0};
        TRY(is_live(q, c, m, &live));
        if (!live) {
            high = m;
            break;
        }
        low = m;
    }
    while (high.event - low.event > 1) {
        struct moment m = {low.event + (high.event - low.event) / 2, 0};
        TRY(is_live(q, c, m, &live));
        *(live ? &low : &high) = m;
    }
    if (high.event > low.event && high.icount) { // (high.event, 0) lies between them
        struct moment m = {high.event, 0};
        TRY(is_live(q, c, m, &live));
        *(live ? &low : &high) = m;
    }
    if (high.event > low.event) { // high is right behind an event: did the run before it do that?
        struct moment m = {low.event, q->event_icount.items[high.event]};
        TRY(is_live(q, c, m, &live));
        if (live) {
            *high_out = high;
            return NULL;
        }
        high = m;
    }
    while (high.icount - low.icount > 1) {
        struct moment m = {low.event, low.icount + (high.icount - low.icount) / 2};
        TRY(is_live(q, c, m, &live));
        *(live ? &low : &high) = m;
    }
    *high_out = high;
    return NULL;
}

/* What the instruction or event right before `at` did, at which the call is no more. */
static struct err *judge_end(struct query_engine *q, const struct made_call *c, struct moment at,
                             struct call_end *out)
{
    struct x86_insn in;
    struct regs before, after;
    struct replay *r;
    *out = (struct call_end){.at = at};
    if (at.icount == 0) {
        const struct known_task *t = known_task(q, c->task);
        size_t count;
        const struct db_space *spaces = history_spaces(q->history, &count);
        bool exit = t->ended && t->end.event < at.event;
        for (size_t i = 0; i < count; i++)
            exit |= spaces[i].at.event == at.event && !spaces[i].parent; // another program
        out->event = at.event;
        out->left = exit ? LEFT_EXIT : LEFT_EVENT;
        return NULL;
    }
    TRY(instruction_at(q, (struct moment){at.event, at.icount - 1}, c->task, &in, &before));
    TRY(state_at(q, at, &r));
    TRY(replay_regs(r, c->task, &after));
    if (in.class == X86_RETURN && before.r[UREG_RSP] == c->sp)
        out->left = LEFT_RETURN;
    else if (after.r[UREG_RSP] > c->sp)
        out->left = LEFT_UNWOUND;
    else
        return err_new(ERR_UNSUPPORTED, "where the call made at %llu:%llu ended cannot be told",
                       (unsigned long long)c->call.event, (unsigned long long)c->call.icount);
    return NULL;
}

struct err *call_find_end(struct query_engine *q, const struct made_call *c, struct moment from,
                          struct call_end *out)
{
    struct moment before, back, high = end_of_recording(q);
    bool live, returned = false;
    *out = (struct call_end){.left = LEFT_NOT};
    if (c->return_addr)
        TRY(find_return(q, from, c->task, c->return_addr, c->sp, &back, &returned));
    if (returned) {
        high = back;
        TRY(next_instruction(q, back, c->task, false, &before));
        TRY(is_live(q, c, before, &live));
        if (live)
            return judge_end(q, c, (struct moment){before.event, before.icount + 1}, out);
        if (moment_cmp(before, from) <= 0)
            return err_new(ERR_NOT_FOUND, "the call has ended by then");
        high = before;
    } else {
        TRY(is_live(q, c, high, &live));
        if (live)
            return NULL;
    }
    TRY(is_live(q, c, from, &live));
    if (!live)
        return err_new(ERR_NOT_FOUND, "the call has ended by then");
    TRY(narrow(q, c, from, high, &high));
    return judge_end(q, c, high, out);
}

/* --- rows --- */

static const char *const left_names[] = {[LEFT_RETURN] = "return",
                                         [LEFT_UNWOUND] = "unwound",
                                         [LEFT_EXIT] = "exit",
                                         [LEFT_EVENT] = "event"};

static struct err *describe_end(struct query_engine *q, const struct made_call *c,
                                const struct call_end *end, struct module *m,
                                const struct sym_function *f, uint64_t bias, json_t *row)
{
    struct replay *r;
    struct frame_context ctx;
    if (end->left == LEFT_NOT) {
        json_object_set_new(row, "noReturn", json_true());
        return NULL;
    }
    json_object_set_new(row, "end", json_moment(end->at));
    json_object_set_new(row, "left", json_string(left_names[end->left]));
    if (end->event) {
        const struct db_event *e;
        char name[64];
        TRY(event_at(q, end->event, &e, NULL));
        json_object_set_new(row, "event",
                            json_pack("{sI, ss}", "number", (json_int_t)end->event, "name",
                                      event_name(q, e, name, sizeof(name))));
    }
    if (end->left != LEFT_RETURN || c->by_signal)
        return NULL;
    TRY(state_at(q, end->at, &r));
    TRY(frame_context(q, r, c->task, &ctx));
    const struct sym_type *type = NULL;
    if (f)
        err_free(sym_return_type(m->sym, f, &type));
    if (!type)
        json_object_set_new(row, "rax", json_hex(ctx.regs.r[UREG_RAX]));
    if (!type || type->kind == SYM_VOID)
        return NULL;
    struct sym_value v = {0};
    ctx.base.bias = bias;
    struct err *why = sym_read_return_value(m->sym, f, &ctx.base, &v);
    json_object_set_new(row, "result", json_value(m->sym, type, &v, &ctx.base, why));
    sym_value_deinit(&v);
    return NULL;
}

/* The function which the call was in at its end, if another: it was left by tail calls. */
static struct err *describe_tail(struct query_engine *q, const struct made_call *c,
                                 const struct call_end *end, json_t *row)
{
    struct replay *r;
    uint32_t space;
    struct regs regs;
    if (end->left != LEFT_RETURN || c->by_signal)
        return NULL;
    TRY(state_at(q, (struct moment){end->at.event, end->at.icount - 1}, &r));
    TRY(space_of_task(r, c->task, &space));
    TRY(replay_regs(r, c->task, &regs));
    json_t *last = json_object();
    describe_code(q, r, space, regs.r[UREG_RIP], false, last);
    json_t *function = json_object_get(last, "function"), *first = json_object_get(row, "function");
    if (function && !json_equal(function, first))
        json_object_set(row, "returnedFrom", function);
    json_decref(last);
    return NULL;
}

struct err *call_describe(struct query_engine *q, const struct made_call *c,
                          const struct call_end *end, json_t *row)
{
    struct replay *r;
    struct frame_context ctx;
    json_object_set_new(row, "focus", json_focus(q, c->entry, c->task, 0));
    json_object_set_new(row, "task", json_task(q, c->task));
    TRY(state_at(q, c->entry, &r));
    TRY(frame_context(q, r, c->task, &ctx));
    gaddr pc = ctx.regs.r[UREG_RIP];
    describe_code(q, r, ctx.space, pc, false, row);
    json_object_del(row, "location");
    struct code_place p = place_of(q, r, ctx.space, pc);
    const struct sym_function *f = NULL;
    if (p.module && p.module->sym)
        err_free(sym_function_at(p.module->sym, p.link_addr, &f));
    if (f && f->source != SYM_DWARF)
        f = NULL;
    ctx.base.bias = p.bias;
    bool at_start = f && f->start == p.link_addr && c->sp && !c->by_signal;
    json_object_set_new(
        row, "args", at_start ? arguments_at(q, c->entry, p.module, f, &ctx.base) : json_array());
    TRY(describe_end(q, c, end, p.module, f, p.bias, row));
    return describe_tail(q, c, end, row);
}

struct err *query_call(struct query_engine *q, json_t *params)
{
    struct focus f;
    call_list calls = {0};
    struct made_call c = {0};
    struct call_end end;
    TRY(param_focus(q, params, &f));
    struct err *e = calls_at(q, f.moment, f.task, &calls);
    if (!e && f.frame >= calls.count)
        e = err_new(ERR_NOT_FOUND, "the stack has only %zu frames", calls.count);
    if (!e)
        c = calls.items[f.frame];
    vec_deinit(&calls);
    TRY(e);
    TRY(call_find_end(q, &c, f.moment, &end));
    json_t *row = json_pack("{ss}", "kind", !c.sp ? "start" : c.by_signal ? "signal" : "call");
    if (c.sp)
        json_object_set_new(row, "callFocus", json_focus(q, c.call, c.task, 0));
    e = call_describe(q, &c, &end, row);
    if (e) {
        json_decref(row);
        return e;
    }
    return give(q, row);
}
