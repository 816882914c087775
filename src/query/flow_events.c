/* Values that come from events: results and data of system calls, signal frames, mappings, new
 * tasks and programs.
 *
 * An event's effects, seen backwards: what the next event wanted in memory beforehand, then its own
 * writes, last first; then the registers of its task. */
#include "query/dataflow_int.h"
#include "query/exec_strings_int.h"
#include "query/signal_frame_int.h"
#include "query/streams_int.h"

#include "index/system_calls.h"

#include <sys/syscall.h>

static bool is_behind(const struct flow_item *item, event_no number)
{
    return item->len && !item->ahead && item->before.event >= number;
}

/* A row about an event: its number and name, the system call's arguments and result. */
static json_t *row_of_event(struct flow *f, const struct stretch_event *e, const char *kind)
{
    struct query_engine *q = f->q;
    json_t *row = json_pack("{ss}", "kind", kind);
    const struct db_event *known;
    char name[64];
    struct err *failed = event_at(q, e->number, &known, NULL);
    if (!failed)
        json_object_set_new(row, "event",
                            json_pack("{sI, ss}", "number", (json_int_t)e->number, "name",
                                      event_name(q, known, name, sizeof(name))));
    err_free(failed);
    if (e->kind == FRAME_SYSCALL && e->syscall_arch == ARCH_X86_64 &&
        e->syscall_state == SYSCALL_EXITING && e->have_after) {
        uint64_t args[6];
        system_call_args(&e->after, args);
        cleanup(freep) char *text = system_call_text(q, e->syscall_no, args, &e->after.r[UREG_RAX]);
        json_object_set_new(row, "text", json_text(text, strlen(text)));
    }
    return row;
}

/* Ends a part of an item with a row about the event. */
static struct err *end_part(struct flow *f, struct flow_item *part, const struct stretch_event *e,
                            json_t *row)
{
    f->moves++;
    return flow_give(f, part, moment_before_event(f->q, e->number), e->task, row, NULL);
}

/* Goes on with a part somewhere else, after a row. */
static struct err *move_part(struct flow *f, const struct stretch *s, struct flow_item *part,
                             const struct stretch_event *e, struct flow_item source, json_t *row)
{
    source.before = moment_before_event(f->q, e->number);
    source.held = NULL;
    source.searched = false;
    json_object_set_new(row, "from", flow_place(&source));
    f->moves++;
    TRY(flow_give(f, part, source.before, e->task, row, &source.parent));
    source.saved = 0;
    flow_add(f, s, source);
    return NULL;
}

/* --- mappings --- */

/* What a fresh mapping holds at the item's place. */
static void describe_mapping(struct flow *f, const struct stretch *s, const struct flow_item *item,
                             struct moment m, json_t *row)
{
    const struct stretch_mapping *map = stretch_mapping_at(s, item->space, item->at, m);
    size_t records;
    const struct trace_mmap *record = trace_mmaps(f->q->trace, &records);
    const struct trace_mmap *from = map && map->mmap_idx < records ? &record[map->mmap_idx] : NULL;
    uint64_t offset = map ? map->offset + (item->at - map->start) : 0;
    if (from && from->name[0] == '/' && from->source != MMAP_ZERO &&
        (int64_t)offset < from->stat_size) {
        json_object_set_new(row, "kind", json_string("file"));
        json_object_set_new(row, "path", json_text(from->name, strlen(from->name)));
        json_object_set_new(row, "fileOffset", json_integer((json_int_t)offset));
    } else {
        json_object_set_new(row, "kind", json_string("zero"));
    }
}

/* --- signal frames --- */

/* Reads 8 bytes of a space as they are after the event. */
static uint64_t word_after(struct flow *f, event_no number, uint32_t space, uint64_t at)
{
    struct replay *r;
    uint64_t v = 0;
    struct err *e = plain_state_at(f->q, (struct moment){number, 0}, &r);
    if (!e)
        e = replay_read(r, space, at, &v, 8, NULL);
    bool failed = e != NULL;
    err_free(e);
    return failed ? 0 : v;
}

static struct err *from_signal_frame(struct flow *f, const struct stretch *s,
                                     struct flow_item *part, const struct stretch_event *e)
{
    uint64_t rsp = e->have_after ? e->after.r[UREG_RSP] : 0;
    uint64_t fpstate =
        rsp ? word_after(f, e->number, part->space, frame_fpstate(frame_context_at(rsp))) : 0;
    const struct regs *regs = stretch_before_event(s, e->number, e->task);
    struct flow_item rest = *part;
    part->held = NULL;
    while (rest.len) {
        unsigned reg, len;
        bool saved = rsp && frame_register(rsp, fpstate, rest.at, &reg, &len);
        if (!saved)
            len = 1;
        while (!saved && len < rest.len &&
               !frame_register(rsp, fpstate, rest.at + len, &reg, &(unsigned){0}))
            len++;
        if (len > rest.len)
            len = rest.len;
        struct flow_item piece = flow_part(&rest, 0, len);
        piece.held = steal(rest.held);
        rest = flow_part(&rest, len, rest.len - len);
        json_t *row = row_of_event(f, e, saved ? "copy" : "signal");
        struct flow_item source = piece;
        source.memory = false;
        source.object = 0;
        source.at = reg;
        source.task = e->task;
        // A system call that is restarted has other registers in its frame than the task had: these
        // are the kernel's.
        uint8_t v[8];
        bool differs = saved && regs && piece.known && len <= 8 &&
                       x86_read_regs(regs, reg, len, v) && memcmp(v, piece.value, len);
        struct err *err;
        if (saved && !differs) {
            err = move_part(f, s, &piece, e, source, row);
        } else {
            json_object_set_new(row, "kind", json_string("signal"));
            err = end_part(f, &piece, e, row);
        }
        json_decref(piece.held);
        if (err) {
            json_decref(rest.held);
            return err;
        }
    }
    return NULL;
}

/* rt_sigreturn: registers come out of the frame that the stack pointer is in. */
static struct err *from_sigreturn(struct flow *f, const struct stretch *s, struct flow_item *part,
                                  const struct stretch_event *e)
{
    struct query_engine *q = f->q;
    struct replay *r;
    struct regs regs;
    TRY(plain_state_at(q, moment_before_event(q, e->number), &r));
    TRY(replay_regs(r, e->task, &regs));
    uint32_t space;
    TRY(space_of_task(r, e->task, &space));
    uint64_t context = regs.r[UREG_RSP], fpstate = 0;
    err_free(replay_read(r, space, frame_fpstate(context), &fpstate, 8, NULL));
    struct flow_item source = *part;
    source.memory = true;
    source.space = space;
    bool known = frame_place(context, fpstate, (unsigned)part->at, part->len, &source.at);
    uint8_t v[MOST_BYTES];
    if (known && part->known) {
        struct err *err = replay_read(r, space, source.at, v, part->len, NULL);
        known = !err && memcmp(v, part->value, part->len) == 0;
        err_free(err);
    }
    if (!known)
        return end_part(f, part, e, row_of_event(f, e, "signal"));
    return move_part(f, s, part, e, source, row_of_event(f, e, "copy"));
}

/* --- memory --- */

/* Is the event the recorder's snapshot of a shared mapping, which says nothing new? */
static bool is_snapshot(struct flow *f, const struct stretch_event *e, const struct flow_item *part)
{
    bool maps = e->exec || (e->kind == FRAME_SYSCALL &&
                            (e->syscall_no == SYS_mmap || e->syscall_no == SYS_shmat));
    if (!part->object || !maps || !part->known)
        return false;
    struct replay *r;
    uint8_t v[MOST_BYTES];
    struct err *err = plain_state_at(f->q, moment_before_event(f->q, e->number), &r);
    if (!err)
        err = replay_read_object(r, part->object, part->object_at, v, part->len);
    bool same = !err && memcmp(v, part->value, part->len) == 0;
    err_free(err);
    return same;
}

/* --- bytes from other tasks --- */

/* A system call that the recorder's library performed: its record, which a flush puts into the
 * buffer (rr, preload_interface.h: syscallbuf_record). */
struct buffered_record {
    int64_t result;
    int32_t no;
};

/* The record with the byte at addr, if there is one. w: what the flush puts into the buffer, record
 * after record. */
static struct err *find_record(struct flow *f, const struct stretch_effect *w, gaddr addr,
                               struct buffered_record *out, bool *found_out)
{
    enum { HEADER = 16 };
    struct replay *r;
    uint8_t head[HEADER];
    *found_out = false;
    TRY(plain_state_at(f->q, w->at, &r));
    for (gaddr at = w->addr; !*found_out && at + HEADER <= w->addr + w->len && at <= addr;) {
        TRY(replay_read(r, w->space, at, head, sizeof(head), NULL));
        uint64_t len = load_u32(head + 12);
        if (len < HEADER)
            break;
        *found_out = addr < at + len;
        *out = (struct buffered_record){(int64_t)load_u64(head), load_u16(head + 8)};
        at += (len + 7) & ~7ull;
    }
    return NULL;
}

/* Adds to a row where its bytes were before. */
static void tell_source(struct flow *f, const struct stream_source *from,
                        const struct flow_item *source, json_t *row)
{
    if (!from->known) {
        if (from->why && !str_eq(json_string_value(json_object_get(row, "kind")), "zero"))
            json_object_set_new(row, "why", json_string(from->why));
        return;
    }
    json_object_set_new(row, "kind", json_string("transfer"));
    json_object_set_new(row, "from", flow_place(source));
    json_object_set_new(row, "through", json_string(from->through));
    if (from->has_offset)
        json_object_set_new(row, "streamOffset", json_integer((json_int_t)from->offset));
    if (from->move_count)
        json_object_set_new(row, "moves", stream_moves(f->q, from->moves, from->move_count));
    json_object_set_new(row, "writer",
                        from->write ? stream_writer(f->q, from->write)
                                    : json_pack("{so, so}", "focus",
                                                json_focus(f->q, from->writer, from->task, 0),
                                                "task", json_task(f->q, from->task)));
}

/* The row that tells of bytes which a call put into memory, if it is not known where they were. */
static json_t *row_of_call(struct flow *f, const struct stretch *s, const struct stretch_event *e,
                           const struct io_call *call, const struct flow_item *part)
{
    json_t *row = row_of_event(f, e, "input");
    if (call->no == SYS_mmap) {
        describe_mapping(f, s, part, (struct moment){e->number, 0}, row);
        return row;
    }
    cleanup(freep) char *text = io_call_text(f->q, call);
    json_object_set_new(row, "text", json_text(text, strlen(text)));
    if (io_call_reads(call->no) || io_call_writes(call->no))
        json_object_set_new(row, "fd", json_integer((int32_t)call->args[0]));
    return row;
}

/* Bytes that a call put into memory: on to where they were before. at: as stream_source_of() has
 * it, of the part; reached: how far back the sweep has got; there: as there. */
static struct err *from_call(struct flow *f, const struct stretch *s, struct flow_item *part,
                             const struct stretch_event *e, const struct io_call *call,
                             const struct moment *there, uint64_t at, struct moment reached)
{
    struct flow_item rest = *part;
    part->held = NULL;
    struct err *err = NULL;
    while (rest.len && !err) {
        struct stream_source from;
        err = stream_source_of(f->q, call, there, at, rest.len, &from);
        if (err)
            break;
        struct flow_item piece = flow_part(&rest, 0, from.len), source = piece;
        piece.held = steal(rest.held);
        rest = flow_part(&rest, from.len, rest.len - from.len);
        at += from.len;
        json_t *row = row_of_call(f, s, e, call, &piece);
        f->moves++;
        source.memory = !from.in_register;
        source.task = from.task;
        source.space = from.space;
        source.object = 0;
        source.at = from.addr;
        source.before = from.at;
        source.searched = false;
        source.ahead = moment_cmp(source.before, reached) > 0;
        tell_source(f, &from, &source, row);
        struct moment shown = call->buffered ? call->at : moment_before_event(f->q, e->number);
        err = flow_give(f, &piece, shown, call->task, row, &source.parent);
        json_decref(piece.held);
        source.saved = 0;
        if (!err && from.known)
            err = flow_add_at(f, source);
    }
    json_decref(rest.held);
    return err;
}

/* Is it one of the bytes of a mapping that the event made? */
static bool is_fresh(const struct stretch *s, const struct flow_item *part,
                     const struct stretch_event *e)
{
    for (size_t i = 0; i < e->effect_count; i++) {
        const struct stretch_effect *m = &s->effects.items[e->first_effect + i];
        if (m->remapped && m->space == part->space && part->at >= m->addr &&
            part->at - m->addr < m->len)
            return true;
    }
    return false;
}

/* The call by which the event put bytes at addr, if it can be told where they were before; NULL:
 * none. */
static struct err *find_call(struct flow *f, const struct stretch_event *e,
                             const struct buffered_record *record, gaddr addr,
                             const struct io_call **out)
{
    bool puts = e->kind == FRAME_SYSCALL && e->syscall_arch == ARCH_X86_64 &&
                io_call_puts(e->syscall_no) &&
                (e->syscall_state == SYSCALL_EXITING || e->syscall_no == SYS_ptrace);
    *out = NULL;
    if (record ? !io_call_puts(record->no) : !puts)
        return NULL;
    return stream_read_at(f->q, e->number, e->task, addr, out);
}

/* Ends a part of an item that an event wrote, or a call that the recorder's library made. */
static struct err *end_unknown(struct flow *f, const struct stretch *s, struct flow_item *part,
                               const struct stretch_event *e, const struct buffered_record *record)
{
    struct moment after = {e->number, 0};
    json_t *row = row_of_event(f, e, record ? "input" : "kernel");
    if (record) {
        const char *name = trace_syscall_name(f->q->trace, ARCH_X86_64, record->no);
        cleanup(freep) char *text = str_format("%s = %#llx", name ? name : "system call",
                                               (unsigned long long)record->result);
        json_object_set_new(row, "text", json_text(text, strlen(text)));
    }
    bool fresh = is_fresh(s, part, e); // the event mapped it, too
    if (fresh)
        describe_mapping(f, s, part, after, row);
    bool zero = str_eq(json_string_value(json_object_get(row, "kind")), "zero");
    if (e->exec && (!fresh || zero))
        json_object_set_new(row, "kind", json_string("start"));
    else if (fresh && zero)
        json_object_set_new(row, "kind", json_string("kernel"));
    else if (!fresh && e->kind == FRAME_SYSCALL)
        json_object_set_new(row, "kind", json_string("input"));
    return end_part(f, part, e, row);
}

/* Bytes of arguments and environment come from the program that ran before. */
static struct err *from_exec(struct flow *f, const struct stretch *s, struct flow_item *part,
                             const struct stretch_event *e)
{
    struct exec_strings strings;
    struct err *err = exec_strings_of(f->q, e->number, e->task, &strings);
    struct flow_item rest = *part;
    part->held = NULL;
    while (rest.len && !err) {
        struct flow_item source = rest;
        uint64_t len = rest.len;
        bool found = false;
        vec_each (x, &strings.all) {
            if (rest.space == strings.new_space && !found && rest.at - x->to < x->len) {
                uint64_t skip = rest.at - x->to;
                found = true;
                source.at = x->from + skip;
                len = x->len - skip < len ? x->len - skip : len;
            } else if (!found && x->to > rest.at && x->to - rest.at < len) {
                len = x->to - rest.at;
            }
        }
        struct flow_item piece = flow_part(&rest, 0, (uint32_t)len);
        piece.held = steal(rest.held);
        rest = flow_part(&rest, (uint32_t)len, rest.len - (uint32_t)len);
        source.len = piece.len;
        source.space = strings.old_space;
        err = found ? move_part(f, s, &piece, e, source, row_of_event(f, e, "copy"))
                    : end_unknown(f, s, &piece, e, NULL);
        json_decref(piece.held);
    }
    json_decref(rest.held);
    exec_strings_deinit(&strings);
    return err;
}

/* What the replayer wrote itself, in the midst of a run, to make the effect of a buffered call
 * again. */
static struct err *end_by_action(struct flow *f, const struct stretch *s, struct flow_item *part,
                                 const struct stretch_event *e, const struct stretch_effect *w,
                                 gaddr base)
{
    const struct io_call *call;
    const struct moment there = {w->at.event, w->at.icount + 1};
    TRY(stream_buffered_before(f->q, w->at, e->task, &call));
    if (call && io_call_writes(call->no))
        return from_call(f, s, part, e, call, &there, base, w->at);
    f->moves++;
    json_t *row = json_pack(
        "{ss, ss}", "kind", "kernel", "why",
        "a system call of the recorder's library, carried out in the course of a buffered one");
    return flow_give(f, part, w->at, e->task, row, NULL);
}

static struct err *end_by_write(struct flow *f, const struct stretch *s, struct flow_item *part,
                                const struct stretch_event *e, const struct stretch_effect *w)
{
    gaddr base = w->addr + (part->object ? part->object_at - w->offset : part->at - w->addr);
    if (w->at.icount && !w->prepared)
        return end_by_action(f, s, part, e, w, base);
    if (e->kind == FRAME_SIGNAL_HANDLER)
        return from_signal_frame(f, s, part, e);
    if (is_snapshot(f, e, part)) {
        part->before = moment_before_event(f->q, e->number);
        vec_push(&f->items, *part);
        part->held = NULL;
        return NULL;
    }
    if (e->kind == FRAME_SYSCALL && e->syscall_no == SYS_mremap && e->have_after && !part->object) {
        struct flow_item source = *part;
        source.at = part->at - e->after.r[UREG_RAX] + e->after.r[UREG_RDI];
        return move_part(f, s, part, e, source, row_of_event(f, e, "copy"));
    }
    struct buffered_record record;
    bool buffered = false;
    if (e->kind == FRAME_SYSCALLBUF_FLUSH)
        TRY(find_record(f, w, base, &record, &buffered));
    const struct io_call *call;
    TRY(find_call(f, e, buffered ? &record : NULL, base, &call));
    if (call && !(call->no == SYS_mmap && !call->description))
        return from_call(f, s, part, e, call, NULL,
                         part->object && io_call_writes(call->no) ? part->object_at : base, w->at);
    if (e->exec && !part->object)
        return from_exec(f, s, part, e);
    return end_unknown(f, s, part, e, buffered ? &record : NULL);
}

/* Deals with the part of an item that an effect covers; what it does not cover stays an item. */
static struct err *apply_effect(struct flow *f, const struct stretch *s, size_t idx,
                                const struct stretch_event *e, const struct stretch_effect *w)
{
    struct flow_item item = f->items.items[idx];
    uint64_t start = w->addr, at = item.at;
    if (item.object) {
        if (w->remapped || w->object != item.object)
            return NULL;
        start = w->offset;
        at = item.object_at;
    } else if (w->object || w->space != item.space) {
        return NULL;
    }
    uint64_t from = start > at ? start - at : 0,
             to = start + w->len < at + item.len ? start + w->len - at : item.len;
    if (start >= at + item.len || start + w->len <= at)
        return NULL;
    f->items.items[idx].len = 0;
    f->items.items[idx].held = NULL;
    struct flow_item part = flow_part(&item, (uint32_t)from, (uint32_t)(to - from));
    part.held = steal(item.held);
    if (from) {
        struct flow_item rest = flow_part(&item, 0, (uint32_t)from);
        vec_push(&f->items, rest);
    }
    if (to < item.len) {
        struct flow_item rest = flow_part(&item, (uint32_t)to, item.len - (uint32_t)to);
        vec_push(&f->items, rest);
    }
    struct err *err;
    const struct io_call *call = NULL;
    err = w->remapped && e->syscall_no == SYS_mmap ? find_call(f, e, NULL, part.at, &call) : NULL;
    if (err) {
    } else if (w->remapped && call && call->description) {
        err = from_call(f, s, &part, e, call, NULL, part.at, w->at);
    } else if (w->remapped) {
        json_t *row = row_of_event(f, e, "zero");
        describe_mapping(f, s, &part, (struct moment){e->number, 0}, row);
        err = end_part(f, &part, e, row);
    } else {
        err = end_by_write(f, s, &part, e, w);
    }
    json_decref(part.held);
    return err;
}

/* --- registers --- */

static struct err *take_item(struct flow *f, size_t idx, struct flow_item *out)
{
    *out = f->items.items[idx];
    f->items.items[idx].len = 0;
    f->items.items[idx].held = NULL;
    return NULL;
}

/* A new task begins with its parent's registers, but for a few. */
static struct err *from_parent(struct flow *f, const struct stretch *s, size_t idx,
                               const struct known_task *t, const struct stretch_event *e)
{
    struct flow_item item;
    TRY(take_item(f, idx, &item));
    f->moves++;
    const struct regs *parent = stretch_before_event(s, e->number, t->parent);
    bool is_clone = e->kind == FRAME_SYSCALL && e->syscall_no == SYS_clone;
    uint64_t reg = item.at / 8;
    struct err *err = NULL;
    // Which registers a clone takes from its arguments: clone(2).
    int argument = is_clone && reg == 4 && parent && parent->r[UREG_RSI] ? 6 : // rsp: the stack
                       is_clone && item.at >= X86_FS_BASE && item.at < X86_GS_BASE && parent &&
                           parent->r[UREG_RDI] & 0x80000
                       ? 8
                       : -1;
    if (item.at < X86_RIP && (reg == 0 || reg == 1 || reg == 11)) {
        err = end_part(f, &item, e, row_of_event(f, e, "kernel"));
    } else {
        struct flow_item source = item;
        source.task = t->parent;
        if (argument >= 0)
            source.at = 8 * (unsigned)argument + item.at % 8;
        size_t count;
        const struct db_space *spaces = history_spaces(f->q->history, &count);
        for (size_t i = 0; i < count; i++) {
            if (spaces[i].space == item.space && spaces[i].at.event == e->number &&
                spaces[i].parent)
                source.space = spaces[i].parent;
        }
        json_t *row = row_of_event(f, e, "copy");
        json_object_set_new(row, "parentTask", json_task(f->q, t->parent));
        err = move_part(f, s, &item, e, source, row);
    }
    json_decref(item.held);
    return err;
}

static struct err *follow_register(struct flow *f, const struct stretch *s, size_t idx,
                                   const struct stretch_event *e)
{
    struct flow_item *it = &f->items.items[idx];
    uint64_t units = x86_unit((unsigned)it->at) | x86_unit((unsigned)it->at + it->len - 1);
    bool exiting = e->kind == FRAME_SYSCALL && e->syscall_state == SYSCALL_EXITING;
    bool sigreturn = exiting && e->syscall_arch == ARCH_X86_64 && e->syscall_no == SYS_rt_sigreturn;
    uint64_t written = 0;
    if (e->kind == FRAME_SYSCALL && !e->exec && !sigreturn)
        written = exiting ? x86_unit(X86_GPR)
                          : x86_unit(X86_GPR) | x86_unit(X86_GPR + 8) | x86_unit(X86_GPR + 88);
    if (e->kind == FRAME_INSTRUCTION_TRAP)
        written = x86_unit(X86_GPR) | x86_unit(X86_GPR + 16);
    if (e->kind == FRAME_SIGNAL_HANDLER) // handlers begin with fresh vector state
        written = x86_unit(X86_GPR) | x86_unit(X86_GPR + 16) | x86_unit(X86_GPR + 48) |
                  x86_unit(X86_GPR + 56) | (it->at >= X86_VECTOR ? units : 0);
    if (e->exec || sigreturn)
        written = units;
    bool hit = written & units;
    if (!hit && e->have_after) {
        // Whatever else came out different: segment bases, a restarted system call.
        uint8_t now[MOST_BYTES], then[MOST_BYTES];
        const struct regs *regs = stretch_before_event(s, e->number, e->task);
        hit = regs && x86_read_regs(regs, (unsigned)it->at, it->len, then) &&
              x86_read_regs(&e->after, (unsigned)it->at, it->len, now) &&
              memcmp(then, now, it->len) != 0;
    }
    if (!hit)
        return NULL;
    struct flow_item item;
    TRY(take_item(f, idx, &item));
    struct err *err;
    if (sigreturn)
        err = from_sigreturn(f, s, &item, e);
    else
        err = end_part(f, &item, e,
                       row_of_event(f, e,
                                    e->exec                             ? "start"
                                    : e->kind == FRAME_INSTRUCTION_TRAP ? "instruction"
                                    : e->kind == FRAME_SIGNAL_HANDLER   ? "signal"
                                    : exiting                           ? "input"
                                                                        : "kernel"));
    json_decref(item.held);
    return err;
}

/* --- an event --- */

static const struct stretch_event *next_event(const struct stretch *s, event_no number,
                                              struct stretch_event *made, struct flow *f)
{
    const struct stretch_event *e = stretch_event(s, number);
    if (e)
        return e;
    // Beyond the stretch: what the database knows will do.
    const struct db_event *known;
    struct err *err = event_at(f->q, number, &known, NULL);
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

/* Before fork a copy's memory was the parent's. */
static void leave_copies(struct flow *f, event_no number)
{
    size_t count;
    const struct db_space *spaces = history_spaces(f->q->history, &count);
    for (size_t i = 0; i < count; i++) {
        if (spaces[i].at.event != number || !spaces[i].parent)
            continue;
        vec_each (item, &f->items) {
            if (!is_behind(item, number) || !item->memory || item->space != spaces[i].space)
                continue;
            item->space = spaces[i].parent;
            item->before = moment_before_event(f->q, number);
        }
    }
}

struct err *flow_event(struct flow *f, const struct stretch *s, event_no number)
{
    const struct stretch_event *e = stretch_event(s, number);
    struct stretch_event made = {0};
    // What the next event wanted beforehand.
    for (size_t i = s->effects.count; i-- > 0;) {
        const struct stretch_effect *w = &s->effects.items[i];
        if (w->at.event != number || !w->prepared)
            continue;
        const struct stretch_event *next = next_event(s, number + 1, &made, f);
        size_t count = f->items.count;
        for (size_t k = 0; k < count; k++) {
            if (is_behind(&f->items.items[k], number) && f->items.items[k].memory)
                TRY(apply_effect(f, s, k, next, w));
        }
    }
    for (size_t i = e ? e->effect_count : 0; i-- > 0;) {
        const struct stretch_effect *w = &s->effects.items[e->first_effect + i];
        size_t count = f->items.count;
        for (size_t k = 0; k < count; k++) {
            if (is_behind(&f->items.items[k], number) && f->items.items[k].memory)
                TRY(apply_effect(f, s, k, e, w));
        }
    }
    leave_copies(f, number);
    size_t count = f->items.count;
    for (size_t k = 0; k < count; k++) {
        const struct flow_item *item = &f->items.items[k];
        if (!is_behind(item, number) || item->memory)
            continue;
        const struct known_task *t = known_task(f->q, item->task);
        if (e && t && t->start.event == number && t->parent)
            TRY(from_parent(f, s, k, t, e));
        else if (e && item->task == e->task)
            TRY(follow_register(f, s, k, e));
    }
    return NULL;
}

struct err *flow_acted(struct flow *f, const struct stretch *s, size_t i)
{
    size_t first, acted = stretch_acted(s, i, &first);
    const struct stretch_event e = {.number = s->steps.items[i].at.event + 1,
                                    .task = s->steps.items[i].task,
                                    .kind = FRAME_SYSCALLBUF_FLUSH};
    for (size_t w = first + acted; w-- > first;) {
        size_t count = f->items.count;
        for (size_t k = 0; k < count && !s->effects.items[w].remapped; k++) {
            const struct flow_item *item = &f->items.items[k];
            if (item->len && item->memory && !item->ahead &&
                moment_cmp(s->effects.items[w].at, item->before) < 0)
                TRY(apply_effect(f, s, k, &e, &s->effects.items[w]));
        }
    }
    return NULL;
}

struct err *flow_carried_out(struct flow *f, const struct stretch *s, size_t i)
{
    const struct stretch_step *st = &s->steps.items[i];
    bool partial;
    if (!stretch_after(s, i, &partial))
        return NULL;
    size_t count = f->items.count;
    for (size_t k = 0; k < count; k++) {
        struct flow_item *it = &f->items.items[k];
        if (!it->len || it->ahead || moment_cmp(st->at, it->before) >= 0)
            continue;
        bool hit = !it->memory && it->task == st->task && it->at < X86_GPR + 8;
        for (size_t w = 0; w < s->effects.count && it->memory && !it->object && !hit; w++) {
            const struct stretch_effect *m = &s->effects.items[w];
            hit = moment_cmp(m->at, st->at) == 0 && m->at.icount && m->remapped &&
                  m->space == it->space && m->addr < it->at + it->len && m->addr + m->len > it->at;
        }
        if (!hit)
            continue;
        struct flow_item item;
        TRY(take_item(f, k, &item));
        f->moves++;
        json_t *row = json_pack(
            "{ss, ss}", "kind", item.memory ? "zero" : "kernel", "why",
            "a system call of the recorder's library, carried out in the course of a buffered one");
        if (item.memory)
            describe_mapping(f, s, &item, st->at, row);
        struct err *err = flow_give(f, &item, st->at, st->task, row, NULL);
        json_decref(item.held);
        TRY(err);
    }
    return NULL;
}

struct err *flow_origin(struct flow *f, const struct stretch *s, struct flow_item *item)
{
    json_t *row = json_pack("{ss}", "kind", "unknown");
    f->moves++;
    if (item->memory && s)
        describe_mapping(f, s, item, item->before, row);
    if (str_eq(json_string_value(json_object_get(row, "kind")), "zero") && !item->object)
        json_object_set_new(row, "kind", json_string("unknown"));
    if (str_eq(json_string_value(json_object_get(row, "kind")), "unknown"))
        json_object_set_new(row, "why", json_string("nothing in the recording wrote it"));
    return flow_give(f, item, item->before, item->task, row, NULL);
}
