/* How a function is called:
 *
 *     stack_end  RETURN_ROOM bytes: what the function returns to, a breakpoint; nothing can be
 *                executed there
 *                texts, temporaries and results of classes: `top` falls
 *                arguments on the stack, the return address, the function's own frames
 *     stack      DIVERSION_GUARD bytes that fault
 *
 * The task's own stack is left alone, so that an overflow is one of this stack, and so that the
 * moment may be any: between a call and its first instruction, say. Registers are those of the
 * moment but for the arguments and what the psABI (3.2.1) wants at a function's entry: the
 * direction flag is clear, the x87 unit's stack empty. */
#include "query/caller.h"

#include "base/bytes.h"
#include "query/registers.h"

#include <signal.h>

enum {
    STACK_LEN = 8 << 20,
    RETURN_ROOM = 64,
    SLICE = 20000000 /* instructions, after which somebody may have cancelled */,
    NEAR_STACK = 4096
};

/* --- memory --- */

static struct err *read_diverted(struct caller *c, gaddr addr, void *buf, size_t len)
{
    struct err *e =
        replay_read(diversion_replay(c->diversion), c->frame->space, addr, buf, len, NULL);
    if (!e || err_kind(e) != ERR_FAULT)
        return e;
    err_free(e);
    return err_new(ERR_FAULT, "%#llx is not mapped", (unsigned long long)addr);
}

static struct err *read_memory(struct sym_context *base, gaddr addr, void *buf, size_t len)
{
    struct caller *c = (struct caller *)base;
    return c->diversion ? read_diverted(c, addr, buf, len)
                        : c->frame->base.read_memory(&c->frame->base, addr, buf, len);
}

static struct err *read_register(struct sym_context *base, unsigned number, void *buf, size_t len)
{
    struct caller *c = (struct caller *)base;
    return c->frame->base.read_register(&c->frame->base, number, buf, len);
}

/* Has the recording at the moment these bytes there? */
static bool is_recorded(struct caller *c, gaddr addr, const void *bytes, size_t len)
{
    cleanup(freep) uint8_t *then = xmalloc(len + 1);
    struct err *e = c->frame->base.read_memory(&c->frame->base, addr, then, len);
    bool same = !e && (!bytes || memcmp(then, bytes, len) == 0);
    err_free(e);
    return same;
}

void caller_forget_addresses(struct caller *c, const struct sym_value *v, json_t *value)
{
    if (!c->diversion)
        return;
    if (v->where == SYM_IN_MEMORY && !is_recorded(c, v->address, v->bytes, v->len)) {
        json_object_del(value, "address");
        json_object_del(value, "size");
    }
    if (json_object_get(value, "pointer") && !is_recorded(c, load_u64(v->bytes), NULL, 1))
        json_object_del(value, "pointer");
}

/* --- the diversion --- */

static struct err *begin(struct caller *c)
{
    if (c->diversion)
        return NULL;
    cleanup(diversion_endp) struct diversion *d = NULL;
    TRY(diversion_begin(c->frame->replay, &d));
    TRY(replay_regs(diversion_replay(d), c->frame->task, &c->regs));
    TRY(diversion_map(d, c->frame->task, STACK_LEN, &c->stack));
    c->stack_end = c->stack + STACK_LEN;
    c->top = c->stack_end - RETURN_ROOM;
    c->diversion = steal(d);
    return NULL;
}

static struct caller *caller_of(struct sym_caller *s)
{
    return (struct caller *)((char *)s - offsetof(struct caller, caller));
}

static struct err *place(struct sym_caller *s, const void *data, size_t len, gaddr *out)
{
    struct caller *c = caller_of(s);
    TRY(begin(c));
    if (len > (c->top - c->stack) / 2)
        return err_new(ERR_LIMIT, "too much is passed to functions");
    c->top = (c->top - len) & ~15ull;
    *out = c->top;
    return data ? diversion_write(c->diversion, c->frame->task, c->top, data, len) : NULL;
}

static bool find_symbol(struct sym_caller *s, const char *linkage_name, gaddr *out)
{
    struct caller *c = caller_of(s);
    size_t count;
    const struct mapping *maps = replay_mappings(c->frame->replay, c->frame->space, &count);
    const struct module *last = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct sym_function *f = NULL;
        size_t found = 0;
        struct code_place p = maps[i].prot & 4
                                  ? place_in(c->frame->q, maps[i].mmap_idx, maps[i].start,
                                             maps[i].offset, maps[i].start)
                                  : (struct code_place){0};
        if (!p.module || p.module == last)
            continue;
        last = p.module;
        err_free(sym_symbols_named(p.module->sym, linkage_name, 1, &f, &found));
        if (!found || f->source == SYM_PLT || !f->range_count)
            continue;
        *out = f->start + p.bias;
        return true;
    }
    return false;
}

/* --- a call --- */

/* One frame of the task's stack where it stands now, for unwinding. */
struct inner_frame {
    struct sym_context base;
    struct caller *c;
    struct sym_registers regs;
    const struct module *module; /* of the frame that go_out() has left; or NULL */
};

static struct err *read_frame_memory(struct sym_context *base, gaddr addr, void *buf, size_t len)
{
    return read_diverted(((struct inner_frame *)base)->c, addr, buf, len);
}

static struct err *read_frame_register(struct sym_context *base, unsigned number, void *buf,
                                       size_t len)
{
    const struct sym_registers *regs = &((struct inner_frame *)base)->regs;
    if (number > SYM_RIP || len > 8 || !(regs->known >> number & 1))
        return err_new(ERR_NOT_FOUND, "register not known in this frame");
    memcpy(buf, &regs->value[number], len);
    return NULL;
}

/* The frame's function, NULL if it is not known; then the frame becomes its caller's. False: that
 * is not known. */
static bool go_out(struct inner_frame *f, bool innermost, const struct sym_function **out)
{
    struct query_engine *q = f->c->frame->q;
    struct sym_registers outer;
    struct sym_module *sym;
    gaddr pc = f->regs.value[SYM_RIP] - (innermost ? 0 : 1);
    struct code_place p = place_of(q, diversion_replay(f->c->diversion), f->c->frame->space, pc);
    *out = NULL;
    f->module = p.module;
    struct err *e = p.module ? module_sym(q, p.module, &sym) : err_new(ERR_NOT_FOUND, "no module");
    if (!e) {
        f->base.bias = p.bias;
        err_free(sym_function_at(sym, p.link_addr, out));
        e = sym_unwind_step(sym, p.link_addr, &f->base, &outer);
    }
    bool ok = !e && (outer.known >> SYM_RIP & 1) && outer.cfa > f->regs.value[SYM_RSP];
    err_free(e);
    if (!ok)
        return false;
    f->regs = outer;
    f->regs.value[SYM_RSP] = outer.cfa;
    f->regs.known |= 1u << SYM_RSP;
    return true;
}

/* " in NAME": the function where the task stands, and the innermost one of the called function's
 * module that has debug information, for SIGABRT comes from the C library's depths. Heap string. */
static char *where_it_is(struct caller *c)
{
    enum { MOST_FRAMES = 64 };
    struct regs regs;
    const struct sym_function *f, *innermost = NULL;
    struct inner_frame frame = {
        .base = {.read_memory = read_frame_memory, .read_register = read_frame_register}, .c = c};
    struct err *e = replay_regs(diversion_replay(c->diversion), c->frame->task, &regs);
    bool more = !e;
    err_free(e);
    for (unsigned i = SYM_RAX; more && i <= SYM_RIP; i++)
        err_free(general_register(&regs, i, &frame.regs.value[i], sizeof(frame.regs.value[i])));
    frame.regs.known = (1u << (SYM_RIP + 1)) - 1;
    for (unsigned i = 0; more && i < MOST_FRAMES; i++) {
        more = go_out(&frame, i == 0, &f);
        innermost = innermost ? innermost : f;
        if (f && f->source == SYM_DWARF && frame.module == c->module)
            return f == innermost
                       ? str_format(" in %.200s", f->name)
                       : str_format(" in %.200s, called by %.200s", innermost->name, f->name);
    }
    return innermost ? str_format(" in %.200s", innermost->name)
                     : str_format(" at %#llx", (unsigned long long)regs.r[UREG_RIP]);
}

static void no_output(void *ctx, const void *data, size_t len)
{
}

static void note_refused(void *ctx, int64_t number)
{
    struct caller *c = ctx;
    if (c->refused)
        return;
    const char *name = trace_syscall_name(c->frame->q->trace, ARCH_X86_64, (int32_t)number);
    cleanup(freep) char *where = where_it_is(c);
    c->refused = str_format("the system call %s%s cannot be made in a recording",
                            name ? name : "that is unknown", where);
}

static struct err *set_registers(struct caller *c, const struct sym_call_frame *f, gaddr sp)
{
    static const uint8_t integers[] = {UREG_RDI, UREG_RSI, UREG_RDX, UREG_RCX, UREG_R8, UREG_R9};
    enum { DIRECTION = 1 << 10, TRAP = 1 << 8, FSW = 2, FTW = 4 }; // FLAGS; SDM 1, figure 10-2
    struct regs regs = c->regs;
    struct xstate x;
    char name[8];
    for (unsigned i = 0; i < SYM_CALL_INTEGERS; i++)
        regs.r[integers[i]] = f->integers[i];
    regs.r[UREG_RAX] = f->vector_count;
    regs.r[UREG_RSP] = sp;
    regs.r[UREG_RIP] = f->target;
    regs.r[UREG_EFLAGS] &= ~(uint64_t)(DIRECTION | TRAP);
    TRY(replay_xstate(diversion_replay(c->diversion), c->frame->task, &x));
    memset(x.data + FSW, 0, 2);
    x.data[FTW] = 0;
    for (unsigned i = 0; i < f->vector_count; i++) {
        uint64_t vector[2] = {f->vectors[i]};
        snprintf(name, sizeof(name), "xmm%u", i);
        if (!registers_set(&regs, &x, name, 0, vector, sizeof(vector)))
            return err_new(ERR_UNSUPPORTED, "vector registers cannot be set at this moment");
    }
    TRY(diversion_set_regs(c->diversion, c->frame->task, &regs));
    return diversion_set_xstate(c->diversion, c->frame->task, &x);
}

static struct err *why_it_ended(struct caller *c, const struct diversion_stop *stop)
{
    char name[32];
    struct regs regs;
    TRY(replay_regs(diversion_replay(c->diversion), c->frame->task, &regs));
    gaddr sp = regs.r[UREG_RSP];
    cleanup(freep) char *where = where_it_is(c);
    switch (stop->why) {
    case DIVERSION_SIGNAL:
        if (stop->signal == SIGSEGV && sp < c->stack + NEAR_STACK &&
            sp > c->stack - DIVERSION_GUARD)
            return err_new(ERR_LIMIT, "its stack of %d MiB overflowed%s", STACK_LEN >> 20, where);
        return err_new(ERR_UNSUPPORTED, "%s%s", signal_name(stop->signal, name, sizeof(name)),
                       where);
    case DIVERSION_ENDS:
        return err_new(ERR_UNSUPPORTED, "the program would end%s", where);
    case DIVERSION_WAITS:
        return err_new(ERR_UNSUPPORTED,
                       "it would wait%s, for something that does not happen in a recording", where);
    default:
        return err_new(ERR_LIMIT, "it did not come back within %llu million instructions; it was%s",
                       (unsigned long long)(CALLER_MOST_INSTRUCTIONS / 1000000), where);
    }
}

/* Until the function is back at `end` with this stack pointer. */
static struct err *run(struct caller *c, gaddr end, gaddr sp)
{
    struct diversion_request request = {.task = c->frame->task,
                                        .breaks = &end,
                                        .break_count = 1,
                                        .ctx = c,
                                        .output = no_output,
                                        .refused = note_refused};
    struct diversion_stop stop;
    struct regs regs;
    do {
        TRY(check_cancel(c->frame->q));
        request.max_icount = c->left < SLICE ? c->left : SLICE;
        TRY(diversion_run(c->diversion, &request, &stop));
        c->left -= stop.icount < c->left ? stop.icount : c->left;
    } while (stop.why == DIVERSION_LIMIT && c->left && !c->refused);
    if (c->refused)
        return err_new(ERR_UNSUPPORTED, "%s", c->refused);
    if (stop.why != DIVERSION_BREAK)
        return why_it_ended(c, &stop);
    TRY(replay_regs(diversion_replay(c->diversion), c->frame->task, &regs));
    return regs.r[UREG_RSP] == sp
               ? NULL
               : err_new(ERR_UNSUPPORTED, "it came back with another stack pointer");
}

static struct err *take_results(struct caller *c, struct sym_call_frame *f)
{
    enum { XMM = 160 }; // SDM 1, 10.5.1
    struct regs regs;
    struct xstate x;
    TRY(replay_regs(diversion_replay(c->diversion), c->frame->task, &regs));
    TRY(replay_xstate(diversion_replay(c->diversion), c->frame->task, &x));
    f->rax = regs.r[UREG_RAX];
    f->rdx = regs.r[UREG_RDX];
    for (unsigned i = 0; i < 2; i++)
        memcpy(&f->xmm[i], x.data + XMM + 16 * i, sizeof(f->xmm[i]));
    return NULL;
}

static struct err *call_now(struct caller *c, struct sym_call_frame *f)
{
    uint32_t task = c->frame->task;
    gaddr end = c->stack_end - RETURN_ROOM / 2, args = (c->top - f->stack_len) & ~15ull,
          sp = args - sizeof(end);
    c->module =
        place_of(c->frame->q, diversion_replay(c->diversion), c->frame->space, f->target).module;
    TRY(diversion_write(c->diversion, task, args, f->stack, f->stack_len));
    TRY(diversion_write(c->diversion, task, sp, &end, sizeof(end)));
    TRY(set_registers(c, f, sp));
    TRY(run(c, end, args));
    return take_results(c, f);
}

static struct err *call(struct sym_caller *s, const char *name, struct sym_call_frame *f)
{
    struct caller *c = caller_of(s);
    struct err *e = begin(c);
    if (!e)
        e = call_now(c, f);
    return e ? err_prefix(e, "%.200s", name) : NULL;
}

void caller_init(struct caller *c, struct frame_context *frame)
{
    *c = (struct caller){.base = {.read_memory = read_memory,
                                  .read_register = read_register,
                                  .bias = frame->base.bias,
                                  .tls_offset = frame->base.tls_offset},
                         .caller = {.place = place, .call = call, .find = find_symbol},
                         .frame = frame,
                         .left = CALLER_MOST_INSTRUCTIONS};
    c->caller.memory = &c->base;
}

void caller_deinit(struct caller *c)
{
    diversion_end(c->diversion);
    err_free(c->failed);
    free(c->refused);
    *c = (struct caller){0};
}

/* --- a run of an expression --- */

struct looking {
    struct caller *c;
    const struct sym_expression *e;
};

static bool look_at_memory(void *ctx, uint64_t addr, void *out, size_t len)
{
    struct caller *c = ((struct looking *)ctx)->c;
    struct err *e = c->base.read_memory(&c->base, addr, out, len);
    bool ok = !e;
    if (e && err_kind(e) != ERR_FAULT && !c->failed)
        c->failed = steal(e);
    err_free(e);
    return ok;
}

static bool look_at_vector(void *ctx, unsigned number, unsigned off, void *out, size_t len)
{
    struct caller *c = ((struct looking *)ctx)->c;
    uint8_t low[16];
    struct err *e = number < 16 && off + len <= sizeof(low)
                        ? c->base.read_register(&c->base, SYM_XMM0 + number, low, sizeof(low))
                        : err_new(ERR_NOT_FOUND, "not known");
    bool ok = !e;
    if (ok)
        memcpy(out, low + off, len);
    if (e && err_kind(e) != ERR_NOT_FOUND && !c->failed)
        c->failed = steal(e);
    err_free(e);
    return ok;
}

static bool call_number(void *ctx, uint64_t number, const uint64_t *args, size_t count,
                        uint64_t *result)
{
    struct looking *l = ctx;
    struct err *e = sym_expression_call(l->e, number, args, &l->c->caller, result);
    bool ok = !e;
    if (e && !l->c->failed)
        l->c->failed = steal(e);
    err_free(e);
    return ok;
}

struct err *caller_evaluate(struct caller *c, struct sym_module *sym,
                            const struct sym_expression *e, struct sym_value *out)
{
    struct looking l = {.c = c, .e = e};
    const struct program_host host = {.regs = &c->frame->regs,
                                      .read_memory = look_at_memory,
                                      .read_vector = look_at_vector,
                                      .call = call_number,
                                      .ctx = &l};
    cleanup(freep) uint8_t *output = xcalloc(1, e->program.out_len + 1);
    uint64_t result = 0;
    enum program_end end = program_run(&e->program, &host, output, &result);
    return c->failed ? steal(c->failed) : sym_expression_value(sym, e, end, result, output, out);
}
