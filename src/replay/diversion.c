#include "replay/diversion_int.h"

#include <signal.h>
#include <sys/mman.h>

/* Offsets of preload_globals.in_diversion and syscallbuf_hdr.locked with the bit of the tracer (rr
 * preload_interface.h; the same since rr 5.0). */
enum { GLOBALS_IN_DIVERSION = 1, BUFFER_LOCKED = 14, LOCKED_BY_TRACER = 2, SYSCALL_LEN = 2 };

bool diversion_covers(const struct space *s, gaddr addr, uint64_t len)
{
    if (len > USER_MEMORY_END || addr > USER_MEMORY_END - len)
        return false;
    for (gaddr end = addr + len; addr < end;) {
        const struct mapping *m = space_mapping_at(s, addr);
        if (!m)
            return false;
        addr = m->end;
    }
    return true;
}

struct err *diversion_store(const struct space *s, gaddr addr, const void *data, size_t len)
{
    if (!diversion_covers(s, addr, len))
        return err_new(ERR_FAULT, "nothing is mapped at 0x%llx", (unsigned long long)addr);
    return len ? worker_write(s->worker, addr, data, len) : NULL;
}

/* The recorder's library would take the results of system calls from its buffers, as it did when it
 * was recorded. It makes all of them in plain sight when it finds the buffer locked, and begins
 * none in a diversion. */
static struct err *stop_buffering(struct replay *r)
{
    static const uint8_t yes = 1;
    vec_each (s, &r->spaces) {
        if ((*s)->globals)
            TRY(diversion_store(*s, (*s)->globals + GLOBALS_IN_DIVERSION, &yes, 1));
    }
    vec_each (t, &r->tasks) {
        uint8_t locked;
        if (!(*t)->syscallbuf)
            continue;
        TRY(space_read((*t)->space, (*t)->syscallbuf + BUFFER_LOCKED, &locked, 1));
        locked |= LOCKED_BY_TRACER;
        TRY(diversion_store((*t)->space, (*t)->syscallbuf + BUFFER_LOCKED, &locked, 1));
    }
    return NULL;
}

struct err *diversion_begin(struct replay *at, struct diversion **out)
{
    cleanup(diversion_endp) struct diversion *d = xnew(struct diversion);
    TRY(replay_clone(at, &d->replay));
    TRY(stop_buffering(d->replay));
    *out = steal(d);
    return NULL;
}

void diversion_end(struct diversion *d)
{
    if (!d)
        return;
    replay_close(d->replay);
    free(d);
}

struct replay *diversion_replay(struct diversion *d)
{
    return d->replay;
}

static struct err *find_task(struct diversion *d, uint32_t serial, struct task **out)
{
    struct task *t = task_by_serial(d->replay, serial);
    if (!t)
        return err_new(ERR_NOT_FOUND, "task %u does not exist at this moment", serial);
    if (t->space->is_32bit)
        return err_new(ERR_UNSUPPORTED, "task %d executes a 32-bit program here, which is not run",
                       t->info.tid);
    *out = t;
    return NULL;
}

struct err *diversion_set_regs(struct diversion *d, uint32_t task, const struct regs *regs)
{
    struct task *t = NULL;
    TRY(find_task(d, task, &t));
    t->regs = *regs;
    return NULL;
}

struct err *diversion_set_xstate(struct diversion *d, uint32_t task, const struct xstate *x)
{
    struct task *t = NULL;
    TRY(find_task(d, task, &t));
    t->x87_cleared = false;
    return worker_set_xstate(t->space->worker, t->info.slot, x);
}

struct err *diversion_write(struct diversion *d, uint32_t task, gaddr addr, const void *data,
                            size_t len)
{
    struct task *t = NULL;
    TRY(find_task(d, task, &t));
    return diversion_store(t->space, addr, data, len);
}

struct err *diversion_map(struct diversion *d, uint32_t task, uint64_t len, gaddr *out)
{
    struct task *t = NULL;
    TRY(find_task(d, task, &t));
    len = (len + PAGE_SIZE - 1) & ~(uint64_t)(PAGE_SIZE - 1);
    uint64_t total = len + DIVERSION_GUARD;
    gaddr start =
        total <= DIVERSION_MOST_MAPPED - d->mapped ? diversion_find_room(t->space, total) : 0;
    if (!start)
        return err_new(ERR_LIMIT, "no room for %llu bytes more", (unsigned long long)len);
    TRY(space_map_zero(d->replay, t->space, start, start + DIVERSION_GUARD, 0, UINT32_MAX));
    TRY(space_map_zero(d->replay, t->space, start + DIVERSION_GUARD, start + total,
                       PROT_READ | PROT_WRITE, UINT32_MAX));
    d->mapped += total;
    *out = start + DIVERSION_GUARD;
    return NULL;
}

static bool is_break(const struct diversion_request *q, gaddr pc)
{
    for (size_t i = 0; i < q->break_count; i++) {
        if (q->breaks[i] == pc)
            return true;
    }
    return false;
}

/* A trapped instruction is carried out. The time stamp counter goes on from nothing that is known:
 * it counts instructions. */
static struct err *pass_trap(struct diversion *d, struct task *t, const struct engine_result *stop)
{
    char text[100];
    bool answered;
    if (stop->trap == TRAP_RDTSC || stop->trap == TRAP_RDTSCP) {
        uint64_t count = d->replay->icount_total;
        t->regs.r[UREG_RAX] = (uint32_t)count;
        t->regs.r[UREG_RDX] = count >> 32;
        if (stop->trap == TRAP_RDTSCP)
            t->regs.r[UREG_RCX] = 0;
        t->regs.r[UREG_RIP] += stop->insn_len;
        return NULL;
    }
    TRY(answer_trap(d->replay, t, stop, &answered));
    if (!answered)
        return err_new(ERR_UNSUPPORTED, "`%s` at 0x%llx: what it would give is not known",
                       describe_insn(t, text, sizeof(text)),
                       (unsigned long long)t->regs.r[UREG_RIP]);
    return NULL;
}

/* *stopped: the run is over. */
static struct err *pass_call(struct diversion *d, struct task *t, const struct diversion_request *q,
                             struct diversion_stop *out, bool *stopped)
{
    static const uint8_t syscall_insn[SYSCALL_LEN] = {0x0f, 0x05};
    uint8_t insn[SYSCALL_LEN];
    enum call_end end;
    int64_t result;
    TRY(space_read(t->space, t->regs.r[UREG_RIP], insn, sizeof(insn)));
    if (memcmp(insn, syscall_insn, sizeof(insn)) != 0)
        return err_new(ERR_UNSUPPORTED, "a 32-bit system call at 0x%llx",
                       (unsigned long long)t->regs.r[UREG_RIP]);
    TRY(diversion_call(d, t, q, &end, &result, &out->signal));
    *stopped = end != CALL_ANSWERED;
    if (end == CALL_ENDS || end == CALL_WAITS) {
        out->why = end == CALL_ENDS ? DIVERSION_ENDS : DIVERSION_WAITS;
        return NULL;
    }
    out->why = DIVERSION_SIGNAL;
    // What the instruction itself does (SDM 2B, SYSCALL).
    t->regs.r[UREG_RIP] += SYSCALL_LEN;
    t->regs.r[UREG_RCX] = t->regs.r[UREG_RIP];
    t->regs.r[UREG_R11] = t->regs.r[UREG_EFLAGS];
    t->regs.r[UREG_RAX] = (uint64_t)result;
    return NULL;
}

/* Goes on from where the engine has stopped. */
static struct err *judge(struct diversion *d, struct task *t, const struct diversion_request *q,
                         const struct engine_result *stop, struct diversion_stop *out,
                         bool *stopped)
{
    char text[100];
    *stopped = true;
    switch (stop->reason) {
    case STOP_LIMIT:
        *stopped = false;
        return NULL;
    case STOP_BREAK:
        out->why = DIVERSION_BREAK;
        return NULL;
    case STOP_FAULT: // a break where nothing can be executed, as debuggers have them on the stack,
                     // is met first
        out->why = is_break(q, t->regs.r[UREG_RIP]) ? DIVERSION_BREAK : DIVERSION_SIGNAL;
        out->signal = stop->signo;
        return NULL;
    case STOP_SYSCALL:
        TRY(pass_call(d, t, q, out, stopped));
        break;
    case STOP_TRAP:
        *stopped = false;
        TRY(pass_trap(d, t, stop));
        break;
    case STOP_UNSUPPORTED:
        return err_new(ERR_UNSUPPORTED, "`%s` at 0x%llx cannot be executed here%s%s",
                       describe_insn(t, text, sizeof(text)),
                       (unsigned long long)t->regs.r[UREG_RIP], *stop->error ? ": " : "",
                       stop->error);
    default:
        return err_new(ERR_OS, "engine: %s", stop->error);
    }
    if (*stopped && out->why != DIVERSION_SIGNAL)
        return NULL; // nothing has been executed
    out->icount++;
    d->replay->icount_total++;
    if (!*stopped && is_break(q, t->regs.r[UREG_RIP])) {
        out->why = DIVERSION_BREAK;
        *stopped = true;
    }
    return NULL;
}

struct err *diversion_run(struct diversion *d, const struct diversion_request *q,
                          struct diversion_stop *out)
{
    struct replay *r = d->replay;
    struct task *t = NULL;
    TRY(find_task(d, q->task, &t));
    struct space *s = t->space;
    if (q->break_count > DIVERSION_MOST_BREAKS)
        return err_new(ERR_LIMIT, "%zu breakpoints; at most %d where the program is changed",
                       q->break_count, DIVERSION_MOST_BREAKS);
    TRY(task_install_thread_locals(r, t));
    TRY(space_recheck_code(r, s));
    TRY(worker_set_breaks(s->worker, q->breaks, q->break_count, NULL));
    *out = (struct diversion_stop){0};
    while (out->icount < q->max_icount) {
        struct engine_request request = {.mode = ENGINE_COUNT,
                                         .max_icount = q->max_icount - out->icount,
                                         .answer_cpuid = true,
                                         .clear_x87 = t->x87_cleared};
        struct engine_result stop;
        bool stopped;
        TRY(worker_run(s->worker, t->info.slot, &request, &t->regs, &stop, &t->regs));
        t->x87_cleared = false;
        out->icount += stop.icount;
        r->icount_total += stop.icount;
        TRY(judge(d, t, q, &stop, out, &stopped));
        if (stopped)
            return NULL;
    }
    out->why = is_break(q, t->regs.r[UREG_RIP]) ? DIVERSION_BREAK : DIVERSION_LIMIT;
    return NULL;
}
