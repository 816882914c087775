#include "query/diversion.h"

#include "query/query_int.h"
#include "query/registers.h"
#include "replay/diversion.h"

enum {
    KNOWN_CALLS = 1024,
    SLICE = 20000000 /* instructions, after which somebody may have cancelled */
};

struct query_diversion {
    struct diversion *diversion;
    const struct trace *trace;
    struct query_diversion_run *run; /* at work */
    bool told[KNOWN_CALLS];          /* by number: it was refused before */
};

struct err *query_divert(struct query_engine *q, struct moment m, struct query_diversion **out)
{
    struct replay *r;
    struct query_sink sink = {0};
    cleanup(query_diversion_endp) struct query_diversion *d = xnew(struct query_diversion);
    d->trace = q->trace;
    TRY(engine_begin(q, &sink));
    struct err *e = state_at(q, m, &r);
    if (!e && moment_cmp(replay_now(r), m) != 0)
        e = err_new(ERR_NOT_FOUND, "there is no such moment");
    if (!e)
        e = diversion_begin(r, &d->diversion);
    engine_end(q);
    TRY(e);
    *out = steal(d);
    return NULL;
}

void query_diversion_end(struct query_diversion *d)
{
    if (!d)
        return;
    diversion_end(d->diversion);
    free(d);
}

static struct err *read_registers(struct query_diversion *d, uint32_t task, struct regs *regs,
                                  struct xstate *x)
{
    TRY(replay_regs(diversion_replay(d->diversion), task, regs));
    return replay_xstate(diversion_replay(d->diversion), task, x);
}

struct err *query_diversion_registers(struct query_diversion *d, uint32_t task, json_t **rows_out)
{
    struct regs regs;
    struct xstate x;
    TRY(read_registers(d, task, &regs, &x));
    *rows_out = registers_rows(&regs, &x, true);
    return NULL;
}

struct err *query_diversion_set_register(struct query_diversion *d, uint32_t task, const char *name,
                                         size_t offset, const void *data, size_t len)
{
    struct regs regs;
    struct xstate x;
    TRY(read_registers(d, task, &regs, &x));
    if (!registers_set(&regs, &x, name, offset, data, len))
        return err_new(ERR_USAGE, "%s cannot be changed", name);
    TRY(diversion_set_regs(d->diversion, task, &regs));
    return diversion_set_xstate(d->diversion, task, &x);
}

struct err *query_diversion_read(struct query_diversion *d, uint32_t task, gaddr addr, void *out,
                                 size_t len, size_t *done_out)
{
    struct replay *r = diversion_replay(d->diversion);
    uint32_t space;
    TRY(space_of_task(r, task, &space));
    struct err *e = replay_read(r, space, addr, out, len, done_out);
    if (e && err_kind(e) == ERR_FAULT)
        err_free(steal(e));
    return e;
}

struct err *query_diversion_write(struct query_diversion *d, uint32_t task, gaddr addr,
                                  const void *data, size_t len)
{
    return diversion_write(d->diversion, task, addr, data, len);
}

static void tell_output(void *ctx, const void *data, size_t len)
{
    struct query_diversion *d = ctx;
    d->run->output(d->run->ctx, data, len);
}

static void tell_refused(void *ctx, int64_t number)
{
    struct query_diversion *d = ctx;
    bool known = number >= 0 && number < KNOWN_CALLS;
    if (known && d->told[number])
        return;
    if (known)
        d->told[number] = true;
    const char *name = known ? trace_syscall_name(d->trace, ARCH_X86_64, (int32_t)number) : NULL;
    d->run->refused(d->run->ctx, name ? name : "an unknown system call");
}

struct err *query_diversion_run(struct query_diversion *d, struct query_diversion_run *run)
{
    static const enum query_diversion_why why[] = {[DIVERSION_LIMIT] = DIVERTED_STEPPED,
                                                   [DIVERSION_BREAK] = DIVERTED_BREAK,
                                                   [DIVERSION_SIGNAL] = DIVERTED_SIGNAL,
                                                   [DIVERSION_ENDS] = DIVERTED_ENDS,
                                                   [DIVERSION_WAITS] = DIVERTED_WAITS};
    struct diversion_request request = {.task = run->task,
                                        .breaks = run->breaks,
                                        .break_count = run->break_count,
                                        .max_icount = run->step ? 1 : SLICE,
                                        .ctx = d,
                                        .output = tell_output,
                                        .refused = tell_refused};
    struct diversion_stop stop;
    uint64_t done = 0;
    d->run = run;
    do {
        TRY(diversion_run(d->diversion, &request, &stop));
        done += stop.icount;
        if (stop.why == DIVERSION_LIMIT && !run->step && run->cancelled &&
            atomic_load(run->cancelled))
            return err_new(ERR_CANCELLED, "cancelled");
    } while (stop.why == DIVERSION_LIMIT && !run->step && done < QUERY_DIVERSION_MOST);
    run->why = stop.why == DIVERSION_LIMIT && !run->step ? DIVERTED_TOO_LONG : why[stop.why];
    run->signal = stop.signal;
    struct regs regs;
    TRY(replay_regs(diversion_replay(d->diversion), run->task, &regs));
    run->pc = regs.r[UREG_RIP];
    return NULL;
}
