/* What events do with values that are followed forwards: system calls that take them, memory and
 * registers that the kernel writes, tasks and processes that are copied, signals. */
#include "query/exec_strings_int.h"
#include "query/signal_frame_int.h"
#include "query/streams_int.h"
#include "query/uses_int.h"

#include "index/system_calls.h"

#include <sys/syscall.h>

/* System call instructions of the recorder's library that are recorded, and do nothing when
 * replayed (rr's page of stubs). */
enum { RECORD_ONLY = 0x7000000c, RECORD_ONLY_PRIVILEGED = 0x70000015, WITH_HELP = 0x70000018 };

static const uint8_t argument_registers[] = {7 /* rdi */, 6, 2, 10, 8, 9};
enum { ARGUMENTS = 6 };

bool is_system_call(const struct x86_insn *in)
{
    return in->class == X86_SYSCALL || in->pc == RECORD_ONLY || in->pc == RECORD_ONLY_PRIVILEGED ||
           in->pc == WITH_HELP;
}

static json_t *row_of_event(struct uses *u, const struct stretch_event *e, const char *kind)
{
    json_t *row = json_pack("{ss}", "kind", kind);
    const struct db_event *known;
    char name[64];
    struct err *failed = event_at(u->q, e->number, &known, NULL);
    if (!failed)
        json_object_set_new(row, "event",
                            json_pack("{sI, ss}", "number", (json_int_t)e->number, "name",
                                      event_name(u->q, known, name, sizeof(name))));
    err_free(failed);
    return row;
}

/* --- what system calls take --- */

/* Memory that a system call sends out. */
struct output {
    gaddr addr;
    uint64_t len;
};
enum { MOST_OUTPUTS = 64 };

static size_t read_vector(const struct execution *x, gaddr at, uint64_t count, struct output *out,
                          size_t n)
{
    for (uint64_t i = 0; i < count && n < MOST_OUTPUTS; i++) {
        uint64_t v[2];
        if (!x->run.memory(x->run.ctx, false, at + 16 * i, 16, (uint8_t *)v))
            break;
        out[n++] = (struct output){v[0], v[1]};
    }
    return n;
}

/* What it sends out (write(2), writev(2), send(2)); of other system calls it is not known which
 * memory they read. */
static size_t outputs_of(const struct execution *x, const struct regs *r,
                         struct output out[MOST_OUTPUTS])
{
    uint64_t v[2];
    size_t n = 0;
    switch (r->r[UREG_RAX]) {
    case SYS_write:
    case SYS_pwrite64:
    case SYS_sendto:
        out[0] = (struct output){r->r[UREG_RSI], r->r[UREG_RDX]};
        return 1;
    case SYS_writev:
    case SYS_pwritev:
    case SYS_process_vm_writev:
        return read_vector(x, r->r[UREG_RSI], r->r[UREG_RDX], out, 0);
    case SYS_sendmsg: // struct msghdr: iov and iovlen; struct mmsghdr has one of 56 bytes, and a
                      // length
    case SYS_sendmmsg:
        for (uint64_t i = 0;
             i < (r->r[UREG_RAX] == SYS_sendmsg ? 1 : r->r[UREG_RDX]) && n < MOST_OUTPUTS; i++) {
            if (!x->run.memory(x->run.ctx, false, r->r[UREG_RSI] + 64 * i + 16, 16, (uint8_t *)v))
                break;
            n = read_vector(x, v[0], v[1], out, n);
        }
        return n;
    default:
        return 0;
    }
}

static json_t *call_row(const struct execution *x, const struct regs *r, const char *kind)
{
    uint64_t args[6];
    system_call_args(r, args);
    cleanup(freep) char *text = system_call_text(x->q, (int32_t)r->r[UREG_RAX], args, NULL);
    json_t *row = execution_row(x, kind);
    json_object_set_new(row, "text", json_string(text));
    return row;
}

/* The part of a memory item within [addr, addr + len) of the space, and where the space has it. */
static bool within(const struct execution *x, const struct use_item *item, gaddr addr, uint64_t len,
                   uint32_t *from, uint32_t *part, gaddr *at)
{
    const struct x86_access a = {.addr = addr, .len = len, .reads = true};
    gaddr base;
    if (!len || addr + len < addr ||
        !execution_touches(x, &a, item->space, item->object,
                           item->object ? item->object_at : item->at, item->len, &base))
        return false;
    uint64_t start = addr > base ? addr - base : 0,
             end = addr + len < base + item->len ? addr + len - base : item->len;
    *from = (uint32_t)start;
    *part = (uint32_t)(end - start);
    *at = base + start;
    return true;
}

/* Copies that calls make, or will have made, of bytes of an item, which lie at `at`. parent: id of
 * the row that led there; writer: the protocol's, borrowed; NULL: the item is where it was stored
 * or handed over, at `now`. */
static struct err *add_copies(struct uses *u, const struct stretch *s, struct moment now,
                              const struct use_item *item, gaddr at, uint32_t parent,
                              json_t *writer, const stream_copy_list *copies)
{
    vec_each (c, copies) {
        struct use_arrival a = {.item = use_part(item, c->from, c->len),
                                .prepared = c->call->buffered && !c->acted,
                                .acted = c->acted};
        a.event = a.prepared ? c->call->end - 1 : c->call->end;
        a.at = c->call->buffered ? c->call->at : moment_before_event(u->q, a.event);
        a.item.memory = true;
        a.item.task = c->task;
        a.item.space = c->space;
        a.item.at = c->addr;
        a.item.parent = parent;
        a.item.saved = 0;
        cleanup(freep) char *text = io_call_text(u->q, c->call);
        a.row = json_pack("{ss, ss, ss, so, so}", "kind", "transfer", "text", text, "through",
                          c->through, "from", use_place(true, at + c->from, c->len), "to",
                          use_place(true, c->addr, c->len));
        if (c->has_offset)
            json_object_set_new(a.row, "streamOffset", json_integer((json_int_t)c->offset));
        if (io_call_reads(c->call->no) || io_call_writes(c->call->no))
            json_object_set_new(a.row, "fd", json_integer((int32_t)c->call->args[0]));
        if (c->move_count)
            json_object_set_new(a.row, "moves", stream_moves(u->q, c->moves, c->move_count));
        json_object_set_new(a.row, "writer",
                            writer ? json_incref(writer)
                                   : json_pack("{so, so}", "focus",
                                               json_focus(u->q, now, item->task, 0), "task",
                                               json_task(u->q, item->task)));
        if (!a.acted && moment_cmp(use_arrival_time(u, &a), now) <=
                            0) // its own reader, of a buffer that is filled beforehand
            TRY(use_arrive(u, s, now, a.item, a.at, a.row));
        else
            vec_push(&u->arrivals, a);
    }
    return NULL;
}

/* Bytes that a system call gives out, of item idx from byte `from` on: whoever reads them has a
 * copy. row: of the system call, to which is added why that is not known; taken over. */
static struct err *send_copies(struct uses *u, const struct execution *x, size_t idx, uint32_t from,
                               uint32_t len, gaddr at, json_t *row)
{
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    stream_copy_list copies = {0};
    const struct io_call *write = NULL;
    const char *why = NULL;
    uint32_t id;
    struct err *e = u->follow ? stream_call_at(u->q, st->at, st->task, &write) : NULL;
    if (!e && write)
        e = stream_copies_of(u->q, write, at, len, &copies, &why);
    if (!e && write)
        e = stream_copies_taken(u->q, write, st->space, at, len, &copies);
    if (why)
        json_object_set_new(row, "why", json_string(why));
    if (!e)
        e = use_give(u, idx, from, len, st->at, st->task, row, &id);
    else
        json_decref(row);
    if (!e && copies.count) {
        struct use_item part = use_part(&u->items.items[idx], from, len);
        json_t *writer = stream_writer(u->q, write);
        e = add_copies(u, x->stretch, st->at, &part, at, id, writer, &copies);
        json_decref(writer);
    }
    vec_deinit(&copies);
    return e;
}

/* A system call that takes memory of another process. */
static struct err *take_copies(struct uses *u, const struct execution *x, size_t idx)
{
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    const struct use_item item = u->items.items[idx];
    const struct io_call *call;
    stream_copy_list copies = {0};
    gaddr at = item.at;
    TRY(stream_call_at(u->q, st->at, st->task, &call));
    if (!call || (io_call_writes(call->no) || call->no == SYS_process_vm_writev))
        return NULL; // what it gives out is told by send_copies()
    struct err *e = stream_copies_taken(u->q, call, item.space, at, item.len, &copies);
    if (!e && copies.count) {
        struct use_item told = item;
        e = use_tell(u, &u->items.items[idx]);
        told.parent = u->items.items[idx].parent;
        if (!e)
            e = add_copies(u, x->stretch, st->at, &told, at, told.parent, NULL, &copies);
    }
    vec_deinit(&copies);
    return e;
}

struct err *use_follow_files(struct uses *u, const struct stretch *s, size_t first,
                             struct moment since)
{
    size_t count = u->items.count; // those that this adds are dealt with when they are added
    for (size_t i = first; i < count && u->follow; i++) {
        const struct use_item item = u->items.items[i];
        stream_copy_list copies = {0};
        const char *why;
        if (!item.len || !item.memory || !item.object)
            continue;
        struct err *e = stream_copies_of_stored(u->q, item.object, item.object_at, item.value,
                                                item.len, since, &copies, &why);
        if (!e)
            e = add_copies(u, s, since, &item, item.at, item.parent, NULL, &copies);
        vec_deinit(&copies);
        TRY(e);
    }
    return NULL;
}

/* What the replayer did in the course of a system call that it carried out itself: it has a result,
 * and may map. */
static struct err *carried_out(struct uses *u, const struct execution *x)
{
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    bool partial;
    if (x->insn->class != X86_SYSCALL || !stretch_after(x->stretch, x->step, &partial))
        return NULL;
    for (size_t k = u->items.count; k-- > 0;) {
        struct use_item *item = &u->items.items[k];
        bool hit = item->len && !item->memory && item->task == st->task && item->at < X86_GPR + 8;
        for (size_t i = 0; i < x->stretch->effects.count && item->memory && !item->object && !hit;
             i++) {
            const struct stretch_effect *m = &x->stretch->effects.items[i];
            hit = moment_cmp(m->at, st->at) == 0 && m->at.icount && m->remapped &&
                  m->space == item->space && m->addr < item->at + item->len &&
                  m->addr + m->len > item->at;
        }
        if (hit)
            TRY(use_overwritten(u, k, 0, item->len, st->at, st->task,
                                execution_row(x, "overwritten")));
    }
    return NULL;
}

/* Is the instruction about to be replaced by a jump to the recorder's library? Then no call is made
 * here. */
static bool is_patched(const struct execution *x)
{
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    const struct db_event *next = NULL;
    err_free(event_at(x->q, st->at.event + 1, &next, NULL));
    return next && next->kind == FRAME_PATCH_SYSCALL && next->task == st->task &&
           next->rip == x->insn->pc;
}

struct err *use_system_call(struct uses *u, const struct execution *x)
{
    const struct stretch_step *st = &x->stretch->steps.items[x->step];
    const struct regs *r = &st->row->regs;
    if (is_patched(x))
        return NULL;
    struct output outputs[MOST_OUTPUTS];
    bool any = false;
    vec_each (item, &u->items)
        any |= item->len && item->memory;
    size_t count = any ? outputs_of(x, r, outputs) : 0;
    size_t items = u->items.count;
    for (size_t k = 0; k < items; k++) {
        struct use_item *item = &u->items.items[k];
        if (!item->len)
            continue;
        for (size_t i = 0; item->memory && i < count; i++) {
            uint32_t from, len;
            gaddr at;
            item = &u->items.items[k];
            if (!within(x, item, outputs[i].addr, outputs[i].len, &from, &len, &at))
                continue;
            json_t *row = call_row(x, r, "output");
            if (r->r[UREG_RAX] != SYS_process_vm_writev)
                json_object_set_new(row, "fd", json_integer((json_int_t)(int32_t)r->r[UREG_RDI]));
            TRY(send_copies(u, x, k, from, len, at, row));
        }
        if (item->memory && u->follow)
            TRY(take_copies(u, x, k));
        item = &u->items.items[k];
        if (item->memory || item->task != st->task || item->at >= X86_RIP)
            continue;
        for (int i = -1; i < ARGUMENTS; i++) {
            unsigned reg = i < 0 ? X86_GPR : 8u * argument_registers[i];
            if (item->at / 8 * 8 != reg)
                continue;
            json_t *row = call_row(x, r, "system-call");
            if (i >= 0)
                json_object_set_new(row, "argument", json_integer(i + 1));
            TRY(use_give(u, k, 0, item->len, st->at, st->task, row, NULL));
        }
    }
    return carried_out(u, x);
}

/* --- memory --- */

/* Is what was written the same bytes? The recorder's snapshot of a shared mapping says nothing new.
 */
static bool is_snapshot(struct uses *u, const struct stretch_event *e, const struct use_item *item,
                        uint32_t from, uint32_t len)
{
    bool maps = e->exec || (e->kind == FRAME_SYSCALL &&
                            (e->syscall_no == SYS_mmap || e->syscall_no == SYS_shmat));
    if (!item->object || !maps)
        return false;
    struct replay *r;
    uint8_t v[MOST_BYTES];
    struct err *err = plain_state_at(u->q, (struct moment){e->number, 0}, &r);
    if (!err)
        err = replay_read_object(r, item->object, item->object_at + from, v, len);
    bool same = !err && memcmp(v, item->value + from, len) == 0;
    err_free(err);
    return same;
}

static struct err *apply_effect(struct uses *u, size_t idx, const struct stretch_event *e,
                                const struct stretch_effect *w)
{
    const struct use_item *item = &u->items.items[idx];
    uint64_t start = w->addr, at = item->at;
    if (!item->len || !item->memory)
        return NULL;
    if (item->object) {
        if (w->remapped || w->object != item->object)
            return NULL;
        start = w->offset;
        at = item->object_at;
    } else if (w->object || w->space != item->space) {
        return NULL;
    }
    if (start >= at + item->len || start + w->len <= at)
        return NULL;
    uint32_t from = (uint32_t)(start > at ? start - at : 0);
    uint32_t to = (uint32_t)(start + w->len < at + item->len ? start + w->len - at : item->len);
    if (is_snapshot(u, e, item, from, to - from))
        return NULL;
    struct moment told =
        w->at.icount && !w->prepared ? w->at : moment_before_event(u->q, e->number);
    return use_overwritten(u, idx, from, to - from, told, e->task,
                           row_of_event(u, e, "overwritten"));
}

/* An event, also one beyond the stretch, of which the database knows what matters here. */
static const struct stretch_event *event_of(struct uses *u, const struct stretch *s,
                                            event_no number, struct stretch_event *made)
{
    const struct stretch_event *e = stretch_event(s, number);
    if (e)
        return e;
    const struct db_event *known;
    *made = (struct stretch_event){.number = number};
    struct err *err = event_at(u->q, number, &known, NULL);
    if (!err)
        *made = (struct stretch_event){.number = number,
                                       .task = known->task,
                                       .kind = known->kind,
                                       .syscall_no = known->syscall_no,
                                       .syscall_state = known->syscall_state,
                                       .syscall_arch = known->syscall_arch};
    err_free(err);
    return made;
}

/* Tells arrivals, which make others: takes over the list. */
static struct err *arrive(struct uses *u, const struct stretch *s, struct moment m,
                          arrival_list *list)
{
    struct err *e = NULL;
    vec_each (a, list) {
        if (e)
            json_decref(a->row);
        else
            e = use_arrive(u, s, m, a->item, a->at, a->row);
    }
    vec_deinit(list);
    return e;
}

/* Bytes that come now. */
static struct err *take_arrivals(struct uses *u, const struct stretch *s, event_no number,
                                 bool prepared)
{
    arrival_list now = {0};
    size_t left = 0;
    vec_each (a, &u->arrivals) {
        if (a->event == number && a->prepared == prepared && !a->acted)
            vec_push(&now, *a);
        else
            u->arrivals.items[left++] = *a;
    }
    u->arrivals.count = left;
    return arrive(u, s, (struct moment){number, 0}, &now);
}

/* Are the bytes in memory? */
static struct err *has_come(struct uses *u, const struct use_arrival *a, struct moment m, bool *out)
{
    uint8_t v[MOST_BYTES];
    struct replay *r;
    TRY(plain_state_at(u->q, m, &r));
    struct err *e = replay_read(r, a->item.space, a->item.at, v, a->item.len, NULL);
    *out = !e && memcmp(v, a->item.value, a->item.len) == 0;
    err_free(e);
    return NULL;
}

struct err *use_acted(struct uses *u, const struct stretch *s, size_t i)
{
    const struct stretch_step *st = &s->steps.items[i];
    size_t first, acted = stretch_acted(s, i, &first), left = 0;
    struct moment there = {st->at.event, st->at.icount + 1};
    const struct stretch_event e = {
        .number = st->at.event + 1, .task = st->task, .kind = FRAME_SYSCALLBUF_FLUSH};
    arrival_list now = {0};
    if (acted && stretch_repeated(s, i))
        return NULL; // it is told with the last attempt
    for (size_t w = first; w < first + acted; w++) {
        size_t count = u->items.count;
        for (size_t k = 0; k < count && !s->effects.items[w].remapped; k++)
            TRY(apply_effect(u, k, &e, &s->effects.items[w]));
    }
    for (size_t k = 0; acted && k < u->arrivals.count; k++) {
        const struct use_arrival *a = &u->arrivals.items[k];
        bool comes = false, same = false;
        for (size_t w = first; w < first + acted && a->acted; w++) {
            const struct stretch_effect *m = &s->effects.items[w];
            comes |= m->space == a->item.space && a->item.at >= m->addr &&
                     a->item.at + a->item.len <= m->addr + m->len;
        }
        if (comes)
            TRY(has_come(u, a, there, &same));
        if (comes && same)
            vec_push(&now, *a);
        else if (comes)
            json_decref(a->row);
        else
            u->arrivals.items[left++] = *a;
    }
    if (acted)
        u->arrivals.count = left;
    return arrive(u, s, there, &now);
}

struct err *use_prepared(struct uses *u, const struct stretch *s, event_no number)
{
    vec_each (w, &s->effects) {
        if (w->at.event != number || !w->prepared)
            continue;
        struct stretch_event made;
        const struct stretch_event *next = event_of(u, s, number + 1, &made);
        size_t count = u->items.count;
        for (size_t k = 0; k < count; k++)
            TRY(apply_effect(u, k, next, w));
    }
    return take_arrivals(u, s, number, true);
}

/* Adds a copy of an item that an event made. */
static struct err *copy_item(struct uses *u, const struct stretch *s, size_t idx,
                             const struct stretch_event *e, struct use_item copy)
{
    json_t *row = row_of_event(u, e, "copy");
    json_object_set_new(row, "to", use_place(copy.memory, copy.at, copy.len));
    if (copy.task != e->task)
        json_object_set_new(row, "toTask", json_task(u->q, copy.task));
    copy.saving = NULL;
    copy.saved = 0;
    TRY(use_give(u, idx, 0, copy.len, moment_before_event(u->q, e->number), e->task, row,
                 &copy.parent));
    return use_add(u, s, (struct moment){e->number, 0}, copy);
}

/* A new program has copies of the strings that it was given. */
static struct err *copy_strings(struct uses *u, const struct stretch *s,
                                const struct stretch_event *e)
{
    struct exec_strings strings;
    struct err *err = exec_strings_of(u->q, e->number, e->task, &strings);
    size_t items = u->items.count;
    for (size_t k = 0; k < items && !err; k++) {
        const struct use_item item = u->items.items[k];
        vec_each (x, &strings.all) {
            if (err || !item.len || !item.memory || item.object || item.space != strings.old_space)
                continue;
            uint64_t start = x->from > item.at ? x->from : item.at, end = x->from + x->len;
            end = end < item.at + item.len ? end : item.at + item.len;
            if (start >= end)
                continue;
            struct use_item copy =
                use_part(&item, (uint32_t)(start - item.at), (uint32_t)(end - start));
            copy.space = strings.new_space;
            copy.task = e->task;
            copy.at = x->to + (start - x->from);
            json_t *row = row_of_event(u, e, "copy");
            json_object_set_new(row, "to", use_place(true, copy.at, copy.len));
            err = use_give(u, k, (uint32_t)(start - item.at), copy.len,
                           moment_before_event(u->q, e->number), e->task, row, &copy.parent);
            copy.saved = 0;
            if (!err)
                err = use_add(u, s, (struct moment){e->number, 0}, copy);
        }
    }
    exec_strings_deinit(&strings);
    return err;
}

/* A new process has a copy of all private memory, a new task of most registers. */
static struct err *copy_to_new(struct uses *u, const struct stretch *s,
                               const struct stretch_event *e)
{
    size_t count, items = u->items.count;
    const struct db_space *spaces = history_spaces(u->q->history, &count);
    uint32_t child = 0;
    for (uint32_t t = 1; known_task(u->q, t); t++) {
        if (known_task(u->q, t)->start.event == e->number && known_task(u->q, t)->parent)
            child = t;
    }
    for (size_t i = 0; i < count; i++) {
        if (spaces[i].at.event != e->number || !spaces[i].parent)
            continue;
        for (size_t k = 0; k < items; k++) {
            struct use_item copy = u->items.items[k];
            if (!copy.len || !copy.memory || copy.object || copy.space != spaces[i].parent)
                continue;
            copy.space = spaces[i].space;
            copy.task = child;
            TRY(copy_item(u, s, k, e, copy));
        }
    }
    const struct known_task *t = known_task(u->q, child);
    for (size_t k = 0; t && k < items; k++) {
        struct use_item copy = u->items.items[k];
        uint64_t reg = copy.at / 8;
        // rax, rcx, r11 are the kernel's, rsp and the base of thread-locals may be arguments
        // (clone(2)): what is not the same is no copy.
        if (!copy.len || copy.memory || copy.task != t->parent ||
            (copy.at < X86_RIP && (reg == 0 || reg == 1 || reg == 11)) ||
            (copy.at >= X86_RIP && copy.at < X86_VECTOR))
            continue;
        struct replay *r;
        struct regs regs;
        uint8_t v[MOST_BYTES];
        TRY(plain_state_at(u->q, (struct moment){e->number, 0}, &r));
        TRY(replay_regs(r, child, &regs));
        if (x86_read_regs(&regs, (unsigned)copy.at, copy.len, v) &&
            memcmp(v, copy.value, copy.len) != 0)
            continue;
        copy.task = child;
        TRY(copy_item(u, s, k, e, copy));
    }
    return NULL;
}

/* mremap(2) takes private memory along. */
static struct err *move_memory(struct uses *u, const struct stretch *s,
                               const struct stretch_event *e)
{
    bool exiting = e->kind == FRAME_SYSCALL && e->syscall_state == SYSCALL_EXITING &&
                   e->syscall_no == SYS_mremap;
    uint64_t result = e->after.r[UREG_RAX], old = e->after.r[UREG_RDI];
    if (!exiting || !e->have_after || result > UINT64_MAX - PAGE_SIZE || result == old)
        return NULL;
    struct replay *r;
    uint32_t space;
    TRY(plain_state_at(u->q, (struct moment){e->number, 0}, &r));
    TRY(space_of_task(r, e->task, &space));
    uint64_t old_len = e->after.r[UREG_RSI], new_len = e->after.r[UREG_RDX],
             len = old_len < new_len ? old_len : new_len;
    size_t items = u->items.count;
    for (size_t k = 0; k < items; k++) {
        struct use_item copy = u->items.items[k];
        if (!copy.len || !copy.memory || copy.object || copy.space != space || copy.at < old ||
            copy.at + copy.len > old + len)
            continue;
        copy.at += result - old;
        TRY(copy_item(u, s, k, e, copy));
    }
    return NULL;
}

/* --- registers --- */

/* The registers of its task that the event sets, whatever they were: as bits by x86_unit(). */
static uint64_t written_by(const struct stretch_event *e)
{
    uint64_t ax = x86_unit(X86_GPR), cx = x86_unit(X86_GPR + 8), dx = x86_unit(X86_GPR + 16),
             r11 = x86_unit(X86_GPR + 88);
    bool exiting = e->kind == FRAME_SYSCALL && e->syscall_state == SYSCALL_EXITING;
    if (e->exec || (exiting && e->syscall_arch == ARCH_X86_64 && e->syscall_no == SYS_rt_sigreturn))
        return UINT64_MAX;
    switch (e->kind) {
    case FRAME_SYSCALL:
        return exiting ? ax : ax | cx | r11;
    case FRAME_INSTRUCTION_TRAP:
        return ax | dx;
    case FRAME_SIGNAL_HANDLER: {
        uint64_t all = ax | dx | x86_unit(X86_GPR + 48) | x86_unit(X86_GPR + 56);
        for (unsigned i = X86_VECTOR; i < X86_REGISTER_BYTES;
             i++) // handlers begin with fresh vector state
            all |= x86_unit(i);
        return all;
    }
    default:
        return 0;
    }
}

static struct err *set_register(struct uses *u, size_t idx, const struct stretch_event *e)
{
    const struct use_item *item = &u->items.items[idx];
    bool hit = written_by(e) &
               (x86_unit((unsigned)item->at) | x86_unit((unsigned)item->at + item->len - 1));
    uint8_t now[MOST_BYTES];
    if (!hit && e->have_after && x86_read_regs(&e->after, (unsigned)item->at, item->len, now))
        hit = memcmp(item->value, now, item->len) != 0;
    if (!hit)
        return NULL;
    return use_overwritten(u, idx, 0, item->len, moment_before_event(u->q, e->number), e->task,
                           row_of_event(u, e, "overwritten"));
}

static bool read_after(struct uses *u, event_no number, uint32_t space, gaddr at, void *out,
                       size_t len)
{
    struct replay *r;
    struct err *e = plain_state_at(u->q, (struct moment){number, 0}, &r);
    if (!e)
        e = replay_read(r, space, at, out, len, NULL);
    bool ok = !e;
    err_free(e);
    return ok;
}

/* A handler begins: the registers are kept in its frame. */
static struct err *keep_in_frame(struct uses *u, const struct stretch *s,
                                 const struct stretch_event *e)
{
    struct replay *r;
    uint32_t space;
    uint64_t fpstate = 0;
    if (!e->have_after)
        return NULL;
    TRY(plain_state_at(u->q, (struct moment){e->number, 0}, &r));
    TRY(space_of_task(r, e->task, &space));
    gaddr context = frame_context_at(e->after.r[UREG_RSP]);
    read_after(u, e->number, space, frame_fpstate(context), &fpstate, 8);
    size_t items = u->items.count;
    for (size_t k = 0; k < items; k++) {
        struct use_item item = u->items.items[k];
        for (uint32_t from = 0, len;
             item.len && !item.memory && item.task == e->task && from < item.len; from += len) {
            uint64_t reg = item.at + from;
            uint32_t unit = reg < X86_RIP ? 8 : 16;
            len = unit - (uint32_t)(reg % unit);
            len = len < item.len - from ? len : item.len - from;
            struct use_item copy = use_part(&item, from, len);
            uint8_t v[MOST_BYTES];
            copy.memory = true;
            copy.space = space;
            if (!frame_place(context, fpstate, (unsigned)reg, len, &copy.at) ||
                !read_after(u, e->number, space, copy.at, v, len) ||
                memcmp(v, copy.value, len) != 0)
                continue;
            TRY(use_save(u, s, k, copy, moment_before_event(u->q, e->number), e->task,
                         row_of_event(u, e, "copy")));
        }
    }
    return NULL;
}

/* rt_sigreturn: registers come out of the frame that the stack pointer is in. */
static struct err *take_from_frame(struct uses *u, const struct stretch *s,
                                   const struct stretch_event *e)
{
    struct replay *r;
    struct regs regs;
    uint32_t space;
    uint64_t fpstate = 0;
    TRY(plain_state_at(u->q, moment_before_event(u->q, e->number), &r));
    TRY(replay_regs(r, e->task, &regs));
    TRY(space_of_task(r, e->task, &space));
    err_free(replay_read(r, space, frame_fpstate(regs.r[UREG_RSP]), &fpstate, 8, NULL));
    // The frame is addressed from the context; its handler began 8 bytes below.
    uint64_t handler_rsp = regs.r[UREG_RSP] - (frame_context_at(0));
    size_t items = u->items.count;
    for (size_t k = 0; k < items; k++) {
        struct use_item item = u->items.items[k];
        for (uint32_t from = 0, len = 1;
             item.len && item.memory && item.space == space && from < item.len; from += len) {
            unsigned reg, most;
            len = 1;
            if (!frame_register(handler_rsp, fpstate, item.at + from, &reg, &most))
                continue;
            len = most < item.len - from ? most : item.len - from;
            if (item.saving && from == 0 && len == item.len && reg == item.saving->reg &&
                item.saving->task == e->task) {
                TRY(use_restore(u, s, k, e->task, (struct moment){e->number, 0}));
                continue;
            }
            struct use_item copy = use_part(&item, from, len);
            copy.memory = false;
            copy.object = 0;
            copy.at = reg;
            copy.task = e->task;
            uint8_t v[MOST_BYTES];
            if (e->have_after && x86_read_regs(&e->after, reg, len, v) &&
                memcmp(v, copy.value, len) != 0)
                continue;
            json_t *row = row_of_event(u, e, "copy");
            json_object_set_new(row, "to", use_place(false, copy.at, len));
            TRY(use_give(u, k, from, len, moment_before_event(u->q, e->number), e->task, row,
                         &copy.parent));
            TRY(use_add(u, s, (struct moment){e->number, 0}, copy));
        }
    }
    return NULL;
}

/* --- an event --- */

/* A task that ended has no registers any more; a space without tasks no memory: of these nothing
 * more is to be told. */
static void drop_ended(struct uses *u, const struct stretch_event *e)
{
    vec_each (item, &u->items) {
        const struct known_task *t = known_task(u->q, item->task);
        if (!item->memory && t && t->ended && t->end.event + 1 == e->number) {
            use_drop_saving(item);
            item->len = 0;
        }
    }
}

struct err *use_event(struct uses *u, const struct stretch *s, event_no number)
{
    const struct stretch_event *e = stretch_event(s, number);
    if (!e) {
        TRY(take_arrivals(u, s, number, false));
        return use_prepared(u, s, number);
    }
    bool sigreturn = e->kind == FRAME_SYSCALL && e->syscall_state == SYSCALL_EXITING &&
                     e->syscall_arch == ARCH_X86_64 && e->syscall_no == SYS_rt_sigreturn;
    // Registers first: what comes back from a frame takes their place. What the event moves itself,
    // it does not overwrite.
    size_t count = u->items.count;
    for (size_t k = 0; k < count && sigreturn; k++) {
        if (u->items.items[k].len && !u->items.items[k].memory && u->items.items[k].task == e->task)
            TRY(set_register(u, k, e));
    }
    if (sigreturn)
        TRY(take_from_frame(u, s, e));
    size_t before = u->items.count;
    TRY(move_memory(u, s, e));
    size_t moved = u->items.count;
    TRY(copy_to_new(u, s, e));
    for (size_t i = 0; i < e->effect_count; i++) {
        for (size_t k = 0; k < u->items.count; k++) {
            if (k < before || k >= moved)
                TRY(apply_effect(u, k, e, &s->effects.items[e->first_effect + i]));
        }
    }
    if (e->exec && u->follow)
        TRY(copy_strings(u, s, e));
    if (e->kind == FRAME_SIGNAL_HANDLER)
        TRY(keep_in_frame(u, s, e));
    count = u->items.count;
    for (size_t k = 0; k < count && !sigreturn; k++) {
        if (u->items.items[k].len && !u->items.items[k].memory && u->items.items[k].task == e->task)
            TRY(set_register(u, k, e));
    }
    drop_ended(u, e);
    TRY(take_arrivals(u, s, number, false));
    return use_prepared(u, s, number);
}
