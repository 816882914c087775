/* Running means asking: which of the things that gdb waits for is next?
 *
 * Forward, a run from `now` ends at the earliest of: the step's end; an execution of a breakpoint
 * at or after now, before the instruction; a watched access, behind it; a signal, before the event
 * that raises it; an exec; the process' end. Backward: the latest of the same before now, with
 * accesses before them. Other tasks run in between as they did. */
#include "gdbstub/stub_int.h"

/* The nearest thing so far. */
struct candidate {
    bool any;
    struct moment moment;
    uint32_t task;
    enum stop_why why;
    int signal;
    const struct breakpoint *hit;
};

static bool nearer(bool forward, struct moment a, struct moment b)
{
    return forward ? moment_cmp(a, b) < 0 : moment_cmp(a, b) > 0;
}

static void offer(struct candidate *best, bool forward, const struct candidate *c)
{
    if (!best->any || nearer(forward, c->moment, best->moment))
        *best = *c;
}

static bool still_good(const struct nearest *n, bool forward, struct moment from)
{
    if (!n->valid)
        return false;
    if (forward)
        return moment_cmp(from, n->from) >= 0 &&
               (!n->found || moment_cmp(from, n->stop.moment) <= 0);
    return moment_cmp(from, n->from) <= 0 && (!n->found || moment_cmp(from, n->stop.moment) > 0);
}

/* Of memory as it is now: of a stack that is not there yet or any more, none is known. */
static struct err *find_access(struct gdb_stub *s, const struct breakpoint *b, bool forward,
                               struct nearest *n)
{
    static const char *const access[] = {[2] = "write", [3] = "read", [4] = "both"};
    struct err *e = past_access(&s->past, s->task, s->now, b->addr, b->len, access[(int)b->kind],
                                s->now, forward, &n->stop, &n->after, &n->found);
    if (!e || err_kind(e) != ERR_FAULT)
        return e;
    cleanup(freep) char *line = str_format("[a watchpoint is passed over: %s]", err_message(e));
    send_output(s, line);
    err_free(e);
    n->found = false;
    return NULL;
}

static struct err *find_nearest(struct gdb_stub *s, struct breakpoint *b, bool forward,
                                struct nearest **out)
{
    struct nearest *n = forward ? &b->ahead : &b->behind;
    *out = n;
    if (still_good(n, forward, s->now))
        return NULL;
    n->valid = false;
    n->from = s->now;
    const struct program condition = {.ops = b->condition.items, .count = b->condition.count};
    if (b->kind <= 1)
        TRY(past_execution(&s->past, s->process, b->addr, condition.count ? &condition : NULL,
                           s->now, forward, &n->stop, &n->found));
    else
        TRY(find_access(s, b, forward, n));
    n->valid = true;
    return NULL;
}

static struct err *offer_breakpoint(struct gdb_stub *s, struct breakpoint *b, bool forward,
                                    struct candidate *best)
{
    struct nearest *n;
    if (!b->inserted)
        return NULL;
    TRY(find_nearest(s, b, forward, &n));
    // What the kernel, or another process, wrote before this one came to be is not seen from there.
    if (!n->found || moment_cmp(n->stop.moment, past_process_start(&s->past, s->process)) < 0)
        return NULL;
    bool access = b->kind > 1;
    struct candidate c = {true,
                          access && forward ? n->after : n->stop.moment,
                          n->stop.task,
                          access ? STOP_ACCESS : STOP_BREAKPOINT,
                          0,
                          b};
    const struct past_task *t = past_task(&s->past, c.task);
    if (!t || t->process != s->process) // another process wrote to shared memory
        c.task = s->task;
    offer(best, forward, &c);
    return NULL;
}

static struct err *offer_signal(struct gdb_stub *s, bool forward, struct candidate *best)
{
    struct nearest *n = forward ? &s->signal_ahead : &s->signal_behind;
    struct moment from = s->now;
    if (forward && moment_cmp(from, s->told_signal) == 0)
        from.icount++; // this one is known
    if (!still_good(n, forward, from)) {
        n->valid = false;
        n->from = from;
        TRY(past_signal(&s->past, s->process, s->passed, from, forward, &n->stop, &n->found));
        n->valid = true;
    }
    if (n->found) {
        struct candidate c = {true,        n->stop.moment, n->stop.task,
                              STOP_SIGNAL, n->stop.signal, NULL};
        offer(best, forward, &c);
    }
    return NULL;
}

/* Over an exec gdb has to see that the program is another one. Backward: the last thing that the
 * program before did. */
static struct err *offer_exec(struct gdb_stub *s, bool forward, struct candidate *best)
{
    if (!s->exec_events)
        return NULL;
    vec_each (x, &s->past.execs) {
        struct candidate c = {true, x->moment, s->process, STOP_EXEC, 0, NULL};
        if (x->process != s->process || (moment_cmp(x->moment, s->now) > 0) != forward)
            continue;
        if (!forward) {
            struct err *e = past_step(&s->past, x->moment, s->process, false, &c.moment, NULL);
            bool first = e && err_kind(e) == ERR_NOT_FOUND; // the process begins with it
            if (e && !first)
                return e;
            err_free(e);
            if (first)
                continue;
        }
        offer(best, forward, &c);
    }
    return NULL;
}

static struct err *offer_all(struct gdb_stub *s, bool forward, struct candidate *best)
{
    vec_each (b, &s->breakpoints)
        TRY(offer_breakpoint(s, b, forward, best));
    TRY(offer_exec(s, forward, best));
    return offer_signal(s, forward, best);
}

/* The first or the last moment of the process: nothing that was waited for happens. */
static struct err *offer_end(struct gdb_stub *s, bool forward, struct candidate *best)
{
    struct candidate c = {
        .any = true, .moment = s->now, .task = s->task, .why = forward ? STOP_END : STOP_START};
    if (forward) {
        vec_each (t, &s->past.tasks) {
            struct moment last;
            if (t->process != s->process || moment_cmp(t->end, s->now) <= 0)
                continue;
            struct err *e = past_step(&s->past, t->end, t->serial, false, &last, NULL);
            if (e && err_kind(e) != ERR_NOT_FOUND)
                return e;
            if (!e && moment_cmp(last, c.moment) > 0) {
                c.moment = last;
                c.task = t->serial;
            }
            err_free(e);
        }
    } else if (moment_cmp(past_process_start(&s->past, s->process), s->now) < 0) {
        c.moment = past_process_start(&s->past, s->process);
        c.task = s->process;
    }
    offer(best, forward, &c);
    return NULL;
}

/* One step, with what happens meanwhile. */
static struct err *step_once(struct gdb_stub *s, const struct resume *r, struct candidate *best,
                             gaddr *pc_out)
{
    struct moment next;
    struct err *e = past_step(&s->past, s->now, r->step, r->forward, &next, pc_out);
    if (e && err_kind(e) == ERR_NOT_FOUND) {
        err_free(e);
        TRY(offer_all(s, r->forward, best));
        return offer_end(s, r->forward, best);
    }
    TRY(e);
    struct candidate c = {true, next, r->step, STOP_STEPPED, 0, NULL};
    offer(best, r->forward, &c);
    // A single instruction of this task's own can meet nothing but watched memory.
    bool alone = next.event == s->now.event &&
                 (next.icount == s->now.icount + 1 || next.icount + 1 == s->now.icount);
    vec_each (b, &s->breakpoints) {
        if (b->kind > 1 || !alone)
            TRY(offer_breakpoint(s, b, r->forward, best));
    }
    if (alone)
        return NULL;
    TRY(offer_exec(s, r->forward, best));
    return offer_signal(s, r->forward, best);
}

static struct err *arrive(struct gdb_stub *s, const struct candidate *c)
{
    TRY(move_to(s, c->moment, c->task));
    s->why = c->why;
    s->signal = c->signal;
    s->hit_kind = c->hit ? c->hit->kind : 0;
    s->hit_addr = c->hit ? c->hit->addr : 0;
    if (c->why == STOP_SIGNAL)
        s->told_signal = c->moment;
    return NULL;
}

struct err *resume(struct gdb_stub *s, const struct resume *r)
{
    enum { MOST_STEPS = 1000 }; // gdb asks again
    if (!r->step) {
        struct candidate best = {0};
        TRY(offer_all(s, r->forward, &best));
        if (!best.any)
            TRY(offer_end(s, r->forward, &best));
        return arrive(s, &best);
    }
    for (unsigned i = 0;; i++) {
        struct candidate best = {0};
        gaddr pc = 0;
        TRY(step_once(s, r, &best, &pc));
        TRY(arrive(s, &best));
        if (best.why != STOP_STEPPED || pc < r->range_start || pc >= r->range_end ||
            i == MOST_STEPS)
            return NULL;
        vec_each (b, &s->breakpoints) {
            if (b->inserted && b->kind <= 1 && b->addr == pc)
                return NULL;
        }
    }
}
