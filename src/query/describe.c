/* What is at a moment, in the user's terms: function, line, values, names of events. */
#include "query/query_int.h"

#include <signal.h>

/* --- a frame's registers and memory --- */

static struct err *read_memory(struct sym_context *base, gaddr addr, void *buf, size_t len)
{
    struct frame_context *c = (struct frame_context *)base;
    struct err *e = recall_failed(c->q, recall_memory(c->q, c->replay, c->space, addr, buf, len));
    if (!e || err_kind(e) != ERR_FAULT)
        return e;
    err_free(e);
    return err_new(ERR_FAULT, "%#llx is not mapped", (unsigned long long)addr);
}

struct err *general_register(const struct regs *regs, unsigned number, void *buf, size_t len)
{
    static const uint8_t uregs[] = {UREG_RAX, UREG_RDX, UREG_RCX, UREG_RBX, UREG_RSI, UREG_RDI,
                                    UREG_RBP, UREG_RSP, UREG_R8,  UREG_R9,  UREG_R10, UREG_R11,
                                    UREG_R12, UREG_R13, UREG_R14, UREG_R15, UREG_RIP};
    if (number > SYM_RIP || len > 8)
        return err_new(ERR_NOT_FOUND, "register not known in this frame");
    memcpy(buf, &regs->r[uregs[number]], len);
    return NULL;
}

static struct err *read_register(struct sym_context *base, unsigned number, void *buf, size_t len)
{
    struct frame_context *c = (struct frame_context *)base;
    if (number <= SYM_RIP)
        return general_register(&c->regs, number, buf, len);
    if (number == SYM_FS_BASE && len <= 8) {
        memcpy(buf, &c->regs.r[UREG_FS_BASE], len);
        return NULL;
    }
    if (number >= SYM_XMM0 && !c->no_xstate && !c->have_xstate) {
        TRY(recall_failed(c->q, replay_xstate(c->replay, c->task, &c->xstate)));
        c->have_xstate = true;
    }
    if (number >= SYM_XMM0 && number <= SYM_XMM15 && len <= 16 && c->have_xstate) {
        memcpy(buf, c->xstate.data + 160 + 16 * (number - SYM_XMM0), len); // SDM 1, 10.5.1
        return NULL;
    }
    if (number >= SYM_ST0 && number <= SYM_ST7 && len <= 10 && c->have_xstate) {
        memcpy(buf, c->xstate.data + 32 + 16 * (number - SYM_ST0), len);
        return NULL;
    }
    return err_new(ERR_NOT_FOUND, "register not known in this frame");
}

struct err *frame_context(struct query_engine *q, struct replay *r, uint32_t task,
                          struct frame_context *out)
{
    *out =
        (struct frame_context){.base = {.read_memory = read_memory, .read_register = read_register},
                               .q = q,
                               .replay = r,
                               .task = task};
    TRY(space_of_task(r, task, &out->space));
    return replay_regs(r, task, &out->regs);
}

const uint8_t call_argument_registers[CALL_ARGUMENT_REGISTERS] = {UREG_RDI, UREG_RSI, UREG_RDX,
                                                                  UREG_RCX, UREG_R8,  UREG_R9};

/* --- code --- */

void describe_place(struct query_engine *q, const struct code_place *p, json_t *row)
{
    json_object_set_new(row, "module", json_text(p->module->name, strlen(p->module->name)));
    struct sym_module *sym;
    struct err *e = module_sym(q, p->module, &sym);
    const struct sym_function *f;
    if (!e)
        e = sym_function_at(sym, p->link_addr, &f);
    if (!e)
        json_object_set_new(row, "function", json_function(q, p->module, f));
    err_free(e);
    struct sym_line l;
    e = module_sym(q, p->module, &sym);
    if (!e)
        e = sym_line_at(sym, p->link_addr, &l);
    if (!e)
        json_object_set_new(row, "location", json_location(l.file, (int)l.line, (int)l.column));
    err_free(e);
}

void describe_code(struct query_engine *q, struct replay *r, uint32_t space, gaddr pc, bool back,
                   json_t *row)
{
    json_object_set_new(row, "pc", json_hex(pc));
    struct code_place p = place_of(q, r, space, pc - (back ? 1 : 0));
    if (!p.module) {
        size_t count, records;
        const struct mapping *maps = replay_mappings(r, space, &count);
        const struct trace_mmap *record = trace_mmaps(q->trace, &records);
        for (size_t i = 0; i < count; i++) {
            if (pc >= maps[i].start && pc < maps[i].end && maps[i].mmap_idx < records &&
                record[maps[i].mmap_idx].name[0])
                json_object_set_new(row, "module",
                                    json_text(record[maps[i].mmap_idx].name,
                                              strlen(record[maps[i].mmap_idx].name)));
        }
        return;
    }
    describe_place(q, &p, row);
}

/* --- values --- */

json_t *json_value(struct sym_module *m, const struct sym_type *type, struct sym_value *v,
                   struct sym_context *c, struct err *e)
{
    json_t *o = json_object();
    char *text = NULL;
    if (!e)
        e = sym_format_value(m, v, c, &text);
    if (e) {
        json_object_set_new(o, "why", json_text(err_message(e), strlen(err_message(e))));
        err_free(e);
    } else {
        json_object_set_new(o, "text", json_text(text, strlen(text)));
        if (v->where == SYM_IN_MEMORY) {
            json_object_set_new(o, "address", json_hex(v->address));
            json_object_set_new(o, "size", json_integer((json_int_t)type->size));
        }
        if ((type->kind == SYM_POINTER || type->kind == SYM_REFERENCE) && v->len == 8)
            json_object_set_new(o, "pointer", json_hex(load_u64(v->bytes)));
    }
    free(text);
    json_object_set_new(o, "type", json_text(type->name, strlen(type->name)));
    return o;
}

json_t *json_arguments(struct module *m, const struct sym_function *f,
                       const struct sym_inlined *call, struct sym_context *c)
{
    json_t *args = json_array();
    struct sym_variables params = {0};
    struct err *e = call ? sym_inlined_parameters(m->sym, call, &params)
                         : sym_function_parameters(m->sym, f, &params);
    for (size_t i = 0; !e && i < params.count; i++) {
        struct sym_value v = {0};
        struct err *why = call ? sym_read_variable(m->sym, &params.items[i], call->entry, c, &v)
                               : sym_read_argument_at_entry(m->sym, f, i, c, &v);
        const char *name = params.items[i].name ? params.items[i].name : "";
        json_array_append_new(args,
                              json_pack("{so, so}", "name", json_text(name, strlen(name)), "value",
                                        json_value(m->sym, params.items[i].type, &v, c, why)));
        sym_value_deinit(&v);
    }
    err_free(e);
    sym_variables_deinit(&params);
    return args;
}

/* --- events --- */

char *system_call_text(const struct query_engine *q, int32_t number, const uint64_t args[6],
                       const uint64_t *result)
{
    const char *name = trace_syscall_name(q->trace, ARCH_X86_64, number);
    struct buf out = {0};
    buf_str(&out, name ? name : "system call");
    for (unsigned i = 0; i < 6; i++)
        buf_printf(&out, "%s%#llx", i ? ", " : "(", (unsigned long long)args[i]);
    buf_str(&out, ")");
    if (result)
        buf_printf(&out, " = %#llx", (unsigned long long)*result);
    return buf_steal_str(&out);
}

const char *signal_name(int signo, char *out, size_t len)
{
    const char *abbrev = sigabbrev_np(signo);
    if (abbrev)
        snprintf(out, len, "SIG%s", abbrev);
    else
        snprintf(out, len, "signal %d", signo);
    return out;
}

const char *event_name(const struct query_engine *q, const struct db_event *e, char *out,
                       size_t len)
{
    char signal[32];
    const char *call;
    switch (e->kind) {
    case FRAME_SYSCALL:
        call = trace_syscall_name(q->trace, (enum trace_arch)e->syscall_arch, e->syscall_no);
        if (call)
            snprintf(out, len, "%s %s", call,
                     e->syscall_state == SYSCALL_EXITING ? "exit" : "entry");
        else
            snprintf(out, len, "system call %d %s", e->syscall_no,
                     e->syscall_state == SYSCALL_EXITING ? "exit" : "entry");
        return out;
    case FRAME_SIGNAL:
    case FRAME_SIGNAL_DELIVERY:
    case FRAME_SIGNAL_HANDLER:
        snprintf(out, len, "%s %s", signal_name(e->signo, signal, sizeof(signal)),
                 e->kind == FRAME_SIGNAL           ? "raised"
                 : e->kind == FRAME_SIGNAL_HANDLER ? "handler"
                                                   : "delivered");
        return out;
    default:
        snprintf(out, len, "%s", trace_frame_name((enum frame_kind)e->kind));
        return out;
    }
}

struct err *event_at(struct query_engine *q, event_no number, const struct db_event **out,
                     const struct segment **segment)
{
    if (!number || number > q->last_event)
        return err_new(ERR_NOT_FOUND, "there is no event %llu", (unsigned long long)number);
    // An event belongs to the segment which is on the way when it happens.
    size_t at = history_segment_at(q->history, (struct moment){number, 0});
    for (int back = 0; back < 3; back++) {
        const struct segment *s;
        TRY(history_part(q->history, at, PART_EVENTS, &s));
        if (s->events.count && number >= s->events.items[0].number &&
            number - s->events.items[0].number < s->events.count) {
            *out = &s->events.items[number - s->events.items[0].number];
            if (segment)
                *segment = s;
            return NULL;
        }
        if (at == 0)
            break;
        at--;
    }
    return err_new(ERR_FORMAT, "event %llu is missing in the database", (unsigned long long)number);
}

/* --- moments of a task --- */

struct err *next_instruction(struct query_engine *q, struct moment m, uint32_t task, bool forward,
                             struct moment *out)
{
    if (forward) {
        if (task_running_at(q, m) == task && m.icount + 1 < q->event_icount.items[m.event + 1]) {
            *out = (struct moment){m.event, m.icount + 1};
            return NULL;
        }
        for (event_no e = m.event + 1; e < q->last_event; e++) {
            if (q->runner.items[e + 1] == task && q->event_icount.items[e + 1] > 0) {
                *out = (struct moment){e, 0};
                return NULL;
            }
        }
        return err_new(ERR_NOT_FOUND, "the task executes nothing after this");
    }
    if (task_running_at(q, m) == task && m.icount > 0) {
        *out = (struct moment){m.event, m.icount - 1};
        return NULL;
    }
    for (event_no e = m.event; e-- > 0;) {
        if (q->runner.items[e + 1] == task && q->event_icount.items[e + 1] > 0) {
            *out = (struct moment){e, q->event_icount.items[e + 1] - 1};
            return NULL;
        }
    }
    return err_new(ERR_NOT_FOUND, "the task executes nothing before this");
}

struct err *first_focus(struct query_engine *q, struct focus *out, bool *signal)
{
    size_t segments;
    history_segments(q->history, &segments);
    *out = (struct focus){0};
    *signal = false;
    for (size_t i = 0; i < segments; i++) {
        const struct segment *s;
        TRY(history_part(q->history, i, PART_EVENTS, &s));
        vec_each (e, &s->events) {
            if (e->kind != FRAME_SIGNAL || e->disposition != SIGNAL_FATAL)
                continue;
            // The first fatal signal, at the instruction that raised it.
            *out = (struct focus){{e->number - 1, e->icount}, e->task, 0};
            *signal = true;
            return NULL;
        }
    }
    const struct known_task *main_task = known_task(q, 1);
    if (!main_task)
        return err_new(ERR_NOT_FOUND, "the recording has no task");
    struct moment end = main_task->ended ? main_task->end : end_of_recording(q);
    out->task = 1;
    struct err *e = next_instruction(q, end, 1, false, &out->moment);
    err_free(e);
    return NULL;
}
