/* Dataflow, back and forth, against a naive oracle: the recording is replayed one instruction at a
 * time, and for every byte of registers and memory it is kept which instruction or event made it,
 * and from what. At random moments the ways of random bytes are written down; then the query engine
 * is asked for them.
 *
 * What is shared is only what single instructions do with their operands (x86_origin_of(), which is
 * held against the CPU in src/x86/native_test.c). A way ends, for the comparison, with the first
 * event. Of longer recordings only the last part is walked.
 *
 * dataflow_oracle TRACE_DIR [SAMPLES [SEED]]: a copy of a small recording; a database is made in
 * it. */
#include "check.h"
#include "forward.h"
#include "index/build.h"
#include "query/query.h"
#include "reads.h"
#include "replay/replay.h"
#include "rows.h"
#include "x86/x86.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>

enum { MAX_STEPS = 20000, MAX_SAMPLE = 16, MAX_WAY = 400, PAGE_HASH = 1 << 16 };

/* What made a byte. */
enum cause { BY_COPY, BY_CONSTANT, BY_SIGN, BY_COMPUTATION, BY_UNKNOWN, BY_EVENT, BY_REPLAYER };
struct node {
    struct moment at;
    enum cause cause;
    event_no event;
    const struct node *from;
};

struct shadow_page {
    uint32_t space, object;
    uint64_t page;
    const struct node *bytes[PAGE_SIZE];
    struct shadow_page *next;
};

struct shadow_task {
    uint32_t serial;
    const struct node *bytes[X86_REGISTER_BYTES];
};

struct way {
    struct moment at[MAX_WAY];
    uint8_t cause[MAX_WAY];
    event_no event[MAX_WAY];
    unsigned len;
};

struct sample {
    struct moment m;
    uint32_t task;
    bool memory;
    uint64_t at;
    unsigned len;
    struct way ways[MAX_SAMPLE];
};

static struct shadow_page *pages[PAGE_HASH];
static VEC(struct shadow_task *) tasks;
static VEC(struct sample *) samples;
static VEC(gaddr) recent; /* addresses that were accessed lately */
static struct replay *replay;
static bool event_told;

static const struct node *make_node(struct moment at, enum cause cause, event_no event,
                                    const struct node *from)
{
    static struct node *chunk;
    static size_t left;
    if (!left) {
        left = 4096;
        chunk = xnew_array(struct node, left);
    }
    left--;
    *chunk = (struct node){at, cause, event, from};
    return chunk++;
}

/* --- shadows --- */

static const struct node **shadow_at(uint32_t space, uint32_t object, uint64_t at)
{
    uint64_t page = at & ~(uint64_t)(PAGE_SIZE - 1);
    struct shadow_page **p = &pages[(page / PAGE_SIZE * 31 + space * 7 + object) % PAGE_HASH];
    for (; *p; p = &(*p)->next) {
        if ((*p)->page == page && (*p)->space == space && (*p)->object == object)
            return &(*p)->bytes[at - page];
    }
    *p = xnew(struct shadow_page);
    (*p)->space = space;
    (*p)->object = object;
    (*p)->page = page;
    return &(*p)->bytes[at - page];
}

static const struct mapping *mapping_of(uint32_t space, gaddr at)
{
    size_t count;
    const struct mapping *maps = replay_mappings(replay, space, &count);
    for (size_t i = 0; i < count; i++) {
        if (at >= maps[i].start && at < maps[i].end)
            return &maps[i];
    }
    return NULL;
}

static const struct node **memory_shadow(uint32_t space, gaddr at)
{
    const struct mapping *m = mapping_of(space, at);
    if (m && m->object)
        return shadow_at(0, object_uid(m->object), m->offset + (at - m->start));
    return shadow_at(space, 0, at);
}

static struct shadow_task *task_shadow(uint32_t serial)
{
    vec_each (t, &tasks) {
        if ((*t)->serial == serial)
            return *t;
    }
    struct shadow_task *t = xnew(struct shadow_task);
    t->serial = serial;
    vec_push(&tasks, t);
    return t;
}

/* --- events --- */

static struct err *on_event(void *ctx, struct replay *r, const struct frame *f)
{
    event_told = true;
    return NULL;
}

static event_no effect_event(void)
{
    struct moment now = replay_now(replay);
    return now.event + (now.icount == 0 && event_told);
}

static struct moment last_moment; /* that the walk reached */
static bool maps_memory;          /* the event at work makes mappings */

static void on_wrote(void *ctx, struct replay *r, uint32_t space, gaddr addr, uint64_t len,
                     uint32_t object, uint64_t offset)
{
    const struct node *n = make_node(replay_now(r), BY_EVENT, effect_event(), NULL);
    forward_memory_changed(last_moment, space, object, object ? offset : addr, len);
    for (uint64_t i = 0; i < len; i++) {
        const struct node **s =
            object ? shadow_at(0, object, offset + i) : shadow_at(space, 0, addr + i);
        if (object && maps_memory && *s)
            continue; // the recorder's snapshot of what is known already
        *s = n;
    }
}

static void on_remapped(void *ctx, struct replay *r, uint32_t space, gaddr start, gaddr end)
{
    struct moment now = replay_now(r);
    const struct node *n =
        make_node(now, now.icount ? BY_REPLAYER : BY_EVENT, effect_event(), NULL);
    forward_memory_changed(last_moment, space, 0, start, end - start);
    for (gaddr at = start; at < end; at++)
        *shadow_at(space, 0, at) = n;
}

static struct err *on_space_created(void *ctx, struct replay *r, uint32_t space, uint32_t parent)
{
    forward_space_copied(last_moment, parent);
    for (unsigned i = 0; parent && i < PAGE_HASH; i++) {
        for (struct shadow_page *p = pages[i]; p; p = p->next) {
            if (p->space == parent && !p->object)
                memcpy(shadow_at(space, 0, p->page), p->bytes, sizeof(p->bytes));
        }
    }
    return NULL;
}

static void set_registers(struct shadow_task *t, unsigned start, unsigned len, const struct node *n)
{
    uint64_t units = 0;
    for (unsigned i = 0; i < len; i++) {
        t->bytes[start + i] = n;
        units |= x86_unit(start + i);
    }
    forward_registers_changed(last_moment, t->serial, units);
}

/* The kernel's doings with registers at an event of the task. */
static void event_registers_done(uint32_t serial, const struct regs *before, struct trace *trace,
                                 const struct frame *f)
{
    struct shadow_task *t = task_shadow(serial);
    const struct node *n = make_node(replay_now(replay), BY_EVENT, f->event, NULL);
    struct regs after;
    struct err *gone = replay_regs(replay, serial, &after);
    if (gone) {
        err_free(gone);
        return;
    }
    bool exiting = f->kind == FRAME_SYSCALL && f->syscall_state == SYSCALL_EXITING, exec = false;
    for (size_t i = 0; i < f->task_count; i++)
        exec |= f->tasks[i].kind == TASK_EXEC;
    for (unsigned at = 0; at < X86_VECTOR; at++) {
        uint8_t a, b;
        if (before && x86_read_regs(before, at, 1, &a) && x86_read_regs(&after, at, 1, &b) &&
            a != b)
            set_registers(t, at, 1, n);
    }
    if (f->kind == FRAME_SYSCALL) {
        set_registers(t, 0, 8, n);
        if (!exiting) {
            set_registers(t, 8, 8, n);
            set_registers(t, 88, 8, n);
        }
    }
    if (f->kind == FRAME_INSTRUCTION_TRAP) {
        set_registers(t, 0, 8, n);
        set_registers(t, 16, 8, n);
    }
    if (f->kind == FRAME_SIGNAL_HANDLER) {
        forward_registers_changed(last_moment, serial, UINT64_MAX); // kept in its frame
        set_registers(t, 0, 8, n);
        set_registers(t, 16, 8, n);
        set_registers(t, 48, 16, n);
        set_registers(t, X86_VECTOR, X86_REGISTER_BYTES - X86_VECTOR, n);
    }
    if (exec || (exiting && f->syscall_no == SYS_rt_sigreturn))
        set_registers(t, 0, X86_REGISTER_BYTES, n);
}

/* --- instructions --- */

struct execution {
    uint32_t space, task;
    struct regs before, after;
    bool have_xstate;
    struct xstate xstate;
    struct {
        gaddr addr;
        uint8_t bytes[64];
        unsigned len;
    } reads[X86_MAX_ACCESSES];
    size_t read_count;
};

/* As in src/query/stretch.c, for the parts that every CPU has. */
static bool read_registers(void *ctx, unsigned start, unsigned len, uint8_t *out)
{
    const struct execution *x = ctx;
    static unsigned offsets[8];
    if (!offsets[2]) {
        for (unsigned i = 2; i < 8; i++) {
            unsigned a, b, c, d;
            __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0xd), "c"(i));
            offsets[i] = a ? b : 4000;
        }
    }
    uint64_t in_use;
    memcpy(&in_use, x->xstate.data + 512, 8);
    for (unsigned i = 0; i < len && x->have_xstate; i++) {
        unsigned at = start + i, component, offset;
        if (at >= X86_VECTOR && at < X86_MASK) {
            unsigned reg = (at - X86_VECTOR) / 64, byte = (at - X86_VECTOR) % 64;
            component = reg >= 16 ? 7 : byte < 16 ? 1 : byte < 32 ? 2 : 6;
            offset = reg >= 16   ? offsets[7] + 64 * (reg - 16) + byte
                     : byte < 16 ? 160 + 16 * reg + byte
                     : byte < 32 ? offsets[2] + 16 * reg + byte - 16
                                 : offsets[6] + 32 * reg + byte - 32;
        } else if (at >= X86_MASK && at < X86_X87) {
            component = 5;
            offset = offsets[5] + at - X86_MASK;
        } else {
            return false;
        }
        out[i] = in_use >> component & 1 ? x->xstate.data[offset] : 0;
    }
    return x->have_xstate;
}

static bool read_memory(void *ctx, bool after, gaddr addr, unsigned len, uint8_t *out)
{
    struct execution *x = ctx;
    if (after) {
        struct err *e = replay_read(replay, x->space, addr, out, len, NULL);
        bool ok = !e;
        err_free(e);
        return ok;
    }
    for (size_t i = 0; i < x->read_count; i++) {
        if (addr >= x->reads[i].addr && addr + len <= x->reads[i].addr + x->reads[i].len) {
            memcpy(out, x->reads[i].bytes + (addr - x->reads[i].addr), len);
            return true;
        }
    }
    return false;
}

static const struct node *origin_node(struct execution *x, struct moment at, struct x86_origin o,
                                      const struct node *source)
{
    static const enum cause causes[] = {[X86_COPY] = BY_COPY,
                                        [X86_CONST] = BY_CONSTANT,
                                        [X86_SIGN] = BY_SIGN,
                                        [X86_COMPUTED] = BY_COMPUTATION,
                                        [X86_UNKNOWN] = BY_UNKNOWN};
    return make_node(at, causes[o.kind], 0, o.kind == X86_COPY ? source : NULL);
}

struct change {
    const struct node **to, *node;
};
static VEC(struct change) changes; /* all read before any is made */

static void change(struct execution *x, const struct x86_insn *in, const struct x86_run *run,
                   struct moment at, struct x86_place to, const struct node **shadow)
{
    struct x86_origin o = x86_origin_of(in, run, to);
    if (o.kind == X86_UNTOUCHED)
        return;
    const struct node *source = NULL;
    if (o.kind == X86_COPY)
        source = o.from.memory ? *memory_shadow(x->space, o.from.at)
                               : task_shadow(x->task)->bytes[o.from.at];
    vec_push(&changes, (struct change){shadow, origin_node(x, at, o, source)});
}

/* Before the step: what x86_origin_of() may want to know. */
static void look(struct execution *x, const struct x86_insn *in)
{
    x->read_count = 0;
    x->have_xstate = false;
    bool vectors = (in->read | in->written) >> 18 & ((1ull << 40) - 1);
    if (!vectors && !in->mask)
        return;
    must(replay_xstate(replay, x->task, &x->xstate));
    x->have_xstate = true;
    struct x86_run run = {.before = &x->before, .ctx = x, .registers = read_registers};
    struct x86_access a[X86_MAX_ACCESSES];
    size_t n = x86_accesses(in, &run, a);
    for (size_t i = 0; i < n; i++) {
        size_t k = x->read_count, done = 0;
        gaddr addr = a[i].len > 64 ? a[i].addr + 512 : a[i].addr; // the header of a state
        x->reads[k].addr = addr;
        err_free(replay_read(replay, x->space, addr, x->reads[k].bytes,
                             a[i].len < 64 ? a[i].len : 64, &done));
        x->reads[k].len = (unsigned)done;
        x->read_count++;
    }
}

static void apply(struct execution *x, const struct x86_insn *in, struct moment at)
{
    struct shadow_task *t = task_shadow(x->task);
    struct x86_run run = {.before = &x->before,
                          .after = &x->after,
                          .ctx = x,
                          .registers = read_registers,
                          .memory = read_memory};
    changes.count = 0;
    if (in->class != X86_SYSCALL) {
        forward_step(replay, at, x->task, x->space, in, &run);
        reads_step(replay, at, x->task, x->space, in, &run);
    }
    if (in->class == X86_SYSCALL) { // carried out by the replayer
        set_registers(t, 0, 8, make_node(at, BY_REPLAYER, 0, NULL));
        return;
    }
    for (unsigned r = 0; r < X86_REGISTER_BYTES; r++) {
        if (in->written & x86_unit(r))
            change(x, in, &run, at, (struct x86_place){false, r}, &t->bytes[r]);
    }
    struct x86_access a[X86_MAX_ACCESSES];
    size_t n = x86_accesses(in, &run, a);
    for (size_t i = 0; i < n; i++) {
        vec_push(&recent, a[i].addr);
        for (uint64_t k = 0; a[i].writes && k < a[i].len; k++) {
            size_t done;
            uint8_t byte;
            struct err *e =
                a[i].maybe ? replay_read(replay, x->space, a[i].addr + k, &byte, 1, &done) : NULL;
            bool there = !e;
            err_free(e);
            if (there)
                change(x, in, &run, at, (struct x86_place){true, a[i].addr + k},
                       memory_shadow(x->space, a[i].addr + k));
        }
    }
    vec_each (c, &changes)
        *c->to = c->node;
    if (recent.count > 4096)
        recent.count = 0;
}

/* --- samples --- */

static void write_down(const struct node *n, struct way *out)
{
    out->len = 0;
    for (; n && out->len < MAX_WAY; n = n->from) {
        out->at[out->len] = n->at;
        out->cause[out->len] = (uint8_t)n->cause;
        out->event[out->len++] = n->event;
        if (n->cause == BY_EVENT)
            break;
    }
}

static void take_sample(uint32_t task, uint32_t space)
{
    struct sample *s = xnew(struct sample);
    s->m = replay_now(replay);
    s->task = task;
    s->memory = recent.count && random_number() % 2;
    if (s->memory) {
        uint8_t bytes[MAX_SAMPLE];
        size_t done = 0;
        s->at = recent.items[random_number() % recent.count] + random_number() % 24 - 8;
        s->len = 1 + (unsigned)(random_number() % MAX_SAMPLE);
        err_free(replay_read(replay, space, s->at, bytes, s->len, &done));
        const struct mapping *m = mapping_of(space, s->at);
        if (done < s->len || !m || s->at + s->len > m->end ||
            (s->at >= 0x70000000 && s->at < 0x70002000)) {
            free(s); // the thread-locals page is another for each task
            return;
        }
    } else if (random_number() % 4 == 0) {
        s->at = X86_VECTOR + 64 * (random_number() % 8);
        s->len = 16;
    } else {
        s->at = 8 * (random_number() % 16);
        s->len = 8;
    }
    for (unsigned i = 0; i < s->len; i++)
        write_down(s->memory ? *memory_shadow(space, s->at + i)
                             : task_shadow(task)->bytes[s->at + i],
                   &s->ways[i]);
    forward_begin(replay, s->m, task, space, s->memory, s->at, s->len);
    if (s->memory)
        reads_begin(replay, s->m, task, space, s->at, s->len);
    vec_push(&samples, s);
}

/* --- the walk --- */

static uint32_t space_of(uint32_t task)
{
    size_t count;
    const struct task_info *t = replay_tasks(replay, &count);
    for (size_t i = 0; i < count; i++) {
        if (t[i].serial == task)
            return t[i].space;
    }
    return 0;
}

static uint64_t walk(struct trace *trace, size_t wanted)
{
    cleanup(trace_cursor_closep) struct trace_cursor *cursor = NULL;
    must(trace_cursor_open(trace, &cursor));
    const struct frame *f;
    must(trace_cursor_next(cursor, &f));
    uint64_t steps = 0, every = 1;
    const struct replay_observer observer = {.event = on_event,
                                             .wrote = on_wrote,
                                             .remapped = on_remapped,
                                             .space_created = on_space_created};
    must(replay_open(trace, &replay));
    must(replay_run(replay, MOMENT_END, UINT64_MAX, NULL));
    uint64_t total = replay_icount_total(replay);
    replay_close(replay);
    must(replay_open(trace, &replay));
    if (total > MAX_STEPS) { // the last part: bytes made before have no node
        must(replay_run(replay, MOMENT_END, total - MAX_STEPS, NULL));
        total = MAX_STEPS;
        while (f->event <= replay_now(replay).event)
            must(trace_cursor_next(cursor, &f));
    }
    size_t task_count;
    const struct task_info *first_tasks = replay_tasks(replay, &task_count);
    for (size_t i = 0; i < task_count; i++)
        task_shadow(first_tasks[i].serial);
    replay_set_observer(replay, &observer);
    while (!replay_at_end(replay)) {
        struct moment now = replay_now(replay);
        struct execution x = {.task = replay_running(replay)};
        struct x86_insn in;
        uint8_t code[15];
        size_t len = 0;
        bool decoded = false;
        if (x.task) {
            x.space = space_of(x.task);
            must(replay_regs(replay, x.task, &x.before));
            err_free(replay_read(replay, x.space, x.before.r[UREG_RIP], code, sizeof(code), &len));
            decoded = x86_decode(code, len, x.before.r[UREG_RIP], &in);
            if (decoded)
                look(&x, &in);
            if (samples.count < wanted && steps >= every) {
                take_sample(x.task, x.space);
                every = steps + 1 + random_number() % (2 * total / wanted + 1);
            }
        }
        last_moment = now;
        // Of the recorder's library some are replaced when replayed (rr's page of stubs).
        bool patched = f->kind == FRAME_PATCH_SYSCALL &&
                       f->regs.r[UREG_RIP] == x.before.r[UREG_RIP]; // no call is made
        if (decoded && !patched &&
            (in.class == X86_SYSCALL || in.pc == 0x7000000c || in.pc == 0x70000015))
            forward_call(replay, now, x.task, x.space, &in, &x.before);
        event_told = false;
        must(replay_run(replay, (struct moment){now.event, now.icount + 1}, UINT64_MAX, NULL));
        struct moment then = replay_now(replay);
        if (x.task)
            must(replay_regs(replay, x.task, &x.after));
        bool executed = moment_cmp(then, now) != 0;
        if (decoded &&
            (executed || (in.repeats && memcmp(&x.before, &x.after, sizeof(x.before)) != 0)))
            apply(&x, &in, now);
        if (executed) {
            steps++;
            continue;
        }
        // The next event.
        maps_memory = f->kind == FRAME_SYSCALL && f->syscall_state == SYSCALL_EXITING;
        size_t had_tasks, has_tasks;
        replay_tasks(replay, &had_tasks);
        must(replay_run(replay, (struct moment){now.event + 1, 0}, UINT64_MAX, NULL));
        if (moment_cmp(replay_now(replay), then) == 0)
            break;
        if (x.task)
            event_registers_done(x.task, &x.after, trace, f);
        const struct task_info *list = replay_tasks(replay, &has_tasks);
        for (size_t i = 0; i < has_tasks; i++) { // new ones
            bool known = false;
            vec_each (t, &tasks)
                known |= (*t)->serial == list[i].serial;
            if (!known)
                forward_registers_changed(last_moment, list[i].parent, UINT64_MAX); // copied
            if (!known)
                set_registers(task_shadow(list[i].serial), 0, X86_REGISTER_BYTES,
                              make_node(replay_now(replay), BY_EVENT, f->event, NULL));
        }
        must(trace_cursor_next(cursor, &f));
    }
    replay_close(replay);
    replay = NULL;
    return steps;
}

/* --- asking --- */

static bool row_agrees(json_t *row, const struct way *w, unsigned i)
{
    const char *kind = json_string_value(json_object_get(row, "kind"));
    json_t *event = json_object_get(json_object_get(row, "event"), "number");
    if (w->cause[i] == BY_EVENT)
        // Of a flush the record's system call is told, too.
        return event && (event_no)json_integer_value(event) == w->event[i] &&
               (!str_eq(json_string_value(json_object_get(json_object_get(row, "event"), "name")),
                        "SYSCALLBUF_FLUSH") ||
                json_object_get(row, "text"));
    if (event || moment_cmp(row_moment(row), w->at[i]) != 0)
        return false;
    switch ((enum cause)w->cause[i]) {
    case BY_COPY:
        return str_eq(kind, "copy");
    case BY_CONSTANT:
        return str_eq(kind, "constant") || str_eq(kind, "extension");
    case BY_SIGN:
        return str_eq(kind, "extension");
    case BY_COMPUTATION:
        return str_eq(kind, "arithmetic") || str_eq(kind, "instruction");
    case BY_REPLAYER:
        return str_eq(kind, "kernel") || str_eq(kind, "zero");
    default:
        return str_eq(kind, "unknown");
    }
}

static void tell(const struct sample *s, unsigned byte, const char *what, const struct way *w,
                 unsigned i, json_t *row)
{
    static const char *const causes[] = {"copy",    "constant", "sign",    "computation",
                                         "unknown", "event",    "replayer"};
    char name[32];
    if (failures++ > 20)
        return;
    printf("FAIL: byte %u of %s", byte,
           s->memory ? "" : x86_register_name((unsigned)s->at, s->len, name, sizeof(name)));
    if (s->memory)
        printf("%#llx..%u", (unsigned long long)s->at, s->len);
    printf(" at %llu:%llu, task %u, step %u: %s", (unsigned long long)s->m.event,
           (unsigned long long)s->m.icount, s->task, i, what);
    if (i < w->len)
        printf("; want %s at %llu:%llu event %llu", causes[w->cause[i]],
               (unsigned long long)w->at[i].event, (unsigned long long)w->at[i].icount,
               (unsigned long long)w->event[i]);
    char *text = row ? json_dumps(row, JSON_COMPACT) : NULL;
    printf("; have %s\n", text ? text : "nothing");
    free(text);
}

static void check_byte(const struct sample *s, unsigned byte, json_t *rows, bool more)
{
    const struct way *w = &s->ways[byte];
    unsigned i = 0;
    size_t k;
    json_t *row;
    json_array_foreach(rows, k, row)
    {
        unsigned offset = (unsigned)json_integer_value(json_object_get(row, "offset"));
        unsigned len = (unsigned)json_integer_value(json_object_get(row, "length"));
        if (byte < offset || byte >= offset + len)
            continue;
        if (i >= w->len) {
            // A copy at the end is of what was made before the walk began.
            if (w->len && w->len < MAX_WAY && w->cause[w->len - 1] != BY_EVENT &&
                w->cause[w->len - 1] != BY_COPY)
                tell(s, byte, "too long", w, i, row);
            return;
        }
        checks++;
        if (!row_agrees(row, w, i)) {
            tell(s, byte, "another", w, i, row);
            return;
        }
        i++;
    }
    if (i < w->len && !more)
        tell(s, byte, "too short", w, i, NULL);
}

/* What was copied out of memory is what lies there just before. */
static void check_value(struct query_engine *q, const struct sample *s, json_t *row)
{
    json_t *from = json_object_get(row, "from"), *value = json_object_get(row, "value");
    if (!value || !json_object_get(from, "address") || json_object_get(row, "event") ||
        !str_eq(json_string_value(json_object_get(row, "kind")), "copy"))
        return;
    json_t *params =
        json_pack("{sO, sO, sO}", "focus", json_object_get(row, "focus"), "address",
                  json_object_get(from, "address"), "length", json_object_get(from, "length"));
    json_t *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row};
    must(query_run(q, "memory", params, &sink));
    checks++;
    if (!json_equal(json_object_get(json_array_get(rows, 0), "bytes"), value)) {
        struct way none = {0};
        tell(s, 0, "memory held another value", &none, 0, row);
    }
    json_decref(rows);
    json_decref(params);
}

static void ask(struct query_engine *q, const struct sample *s)
{
    json_t *params = json_pack("{s{s{sI, sI}, s{si}}, sb, si}", "focus", "moment", "event",
                               (json_int_t)s->m.event, "instr", (json_int_t)s->m.icount, "task",
                               "serial", (int)s->task, "saves", 1, "limit", 10000);
    char text[32];
    if (s->memory) {
        snprintf(text, sizeof(text), "%#llx", (unsigned long long)s->at);
        json_object_set_new(params, "address", json_string(text));
        json_object_set_new(params, "length", json_integer(s->len));
    } else {
        json_object_set_new(
            params, "register",
            json_string(x86_register_name((unsigned)s->at, s->len, text, sizeof(text))));
    }
    json_t *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row};
    struct err *e = query_run(q, "dataflow", params, &sink);
    if (e) {
        struct way none = {0};
        tell(s, 0, err_message(e), &none, 0, NULL);
    }
    for (unsigned i = 0; !e && i < s->len; i++)
        check_byte(s, i, rows, sink.more);
    for (size_t i = 0; !e && i < json_array_size(rows) && i < 20; i++)
        check_value(q, s, json_array_get(rows, i));
    err_free(e);
    json_decref(rows);
    json_decref(params);
}

int main(int argc, char **argv)
{
    static const struct build_options options = {
        .shards = 1, .compression_level = 3, .segment_icount = 5003};
    cleanup(trace_closep) struct trace *t = NULL;
    if (argc < 2)
        return 2;
    size_t wanted = argc > 2 ? (size_t)atoi(argv[2]) : 40;
    random_state += argc > 3 ? strtoull(argv[3], NULL, 0) * 0x9e3779b97f4a7c15ull : 0;
    must(trace_open(argv[1], &t));
    uint64_t steps = walk(t, wanted);
    printf("%llu instructions, %zu samples, %.1f s CPU\n", (unsigned long long)steps, samples.count,
           (double)clock() / CLOCKS_PER_SEC);
    must(index_build(argv[1], &options, NULL));
    cleanup(query_engine_closep) struct query_engine *q = NULL;
    must(query_engine_open(argv[1], NULL, &q));
    vec_each (s, &samples)
        ask(q, *s);
    printf("%u checks, %u failures backward\n", checks, failures);
    forward_check(q, &checks, &failures);
    printf("%u checks, %u failures with those forward\n", checks, failures);
    reads_check(q, &checks, &failures);
    printf("%u checks, %u failures\n", checks, failures);
    return failures || !checks ? 1 : 0;
}
