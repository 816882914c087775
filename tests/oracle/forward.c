#include "forward.h"

#include "base/buf.h"
#include "rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>

enum { MOST_HELD = 512, MOST_SEEN = 120, MOST_NEW = 64 };

enum {
    USE_COPY = 1,
    USE_SIGN = 2,
    USE_COMPUTATION = 4,
    USE_FLAGS = 8,
    USE_JUMP = 16,
    USE_ADDRESS = 32,
    USE_OTHER = 64,
    USE_OVERWRITTEN = 128,
    USE_CALL = 256,
    USE_OUTPUT = 512
};
static const struct {
    const char *kind;
    unsigned use;
} kinds[] = {{"copy", USE_COPY},
             {"extension", USE_SIGN},
             {"arithmetic", USE_COMPUTATION},
             {"comparison", USE_FLAGS},
             {"jump", USE_JUMP},
             {"address", USE_ADDRESS},
             {"other", USE_OTHER},
             {"overwritten", USE_OVERWRITTEN},
             {"system-call", USE_CALL},
             {"output", USE_OUTPUT}};

struct seen {
    struct moment at;
    unsigned uses;
};

struct follower {
    struct moment m, closed;
    uint32_t task;
    bool memory;
    uint64_t at;
    unsigned len;
    VEC(struct held) held;
    VEC(struct seen) seen;
};
static VEC(struct follower *) followers;

struct held physical(struct replay *r, uint32_t task, uint32_t space, struct x86_place p)
{
    size_t count;
    const struct mapping *maps = replay_mappings(r, space, &count);
    if (!p.memory)
        return (struct held){.owner = task, .at = p.at};
    for (size_t i = 0; i < count; i++) {
        if (p.at >= maps[i].start && p.at < maps[i].end && maps[i].object)
            return (struct held){true, 0, object_uid(maps[i].object),
                                 maps[i].offset + (p.at - maps[i].start)};
    }
    return (struct held){true, space, 0, p.at};
}

static struct held *find_held(const struct follower *f, struct held h)
{
    vec_each (it, &f->held) {
        if (it->memory == h.memory && it->owner == h.owner && it->object == h.object &&
            it->at == h.at)
            return it;
    }
    return NULL;
}

/* Does it hold any of `len` bytes? */
static bool holds_any(const struct follower *f, struct held start, uint64_t len)
{
    vec_each (it, &f->held) {
        if (it->memory == start.memory && it->owner == start.owner && it->object == start.object &&
            it->at >= start.at && it->at - start.at < len)
            return true;
    }
    return false;
}

static void close_at(struct follower *f, struct moment at)
{
    if (moment_cmp(at, f->closed) < 0)
        f->closed = at;
    f->held.count = 0;
}

static void saw(struct follower *f, struct moment at, unsigned uses)
{
    struct seen *last = f->seen.count ? &f->seen.items[f->seen.count - 1] : NULL;
    if (!uses)
        return;
    if (last && moment_cmp(last->at, at) == 0)
        last->uses |= uses;
    else if (f->seen.count < MOST_SEEN)
        vec_push(&f->seen, (struct seen){at, uses});
    else
        close_at(f, at);
}

void forward_begin(struct replay *r, struct moment m, uint32_t task, uint32_t space, bool memory,
                   uint64_t at, unsigned len)
{
    struct follower *f = xnew(struct follower);
    *f = (struct follower){
        .m = m, .closed = MOMENT_END, .task = task, .memory = memory, .at = at, .len = len};
    for (unsigned i = 0; i < len; i++)
        vec_push(&f->held, physical(r, task, space, (struct x86_place){memory, at + i}));
    vec_push(&followers, f);
}

/* --- instructions --- */

struct step {
    struct replay *r;
    uint32_t task, space;
    const struct x86_insn *in;
    const struct x86_run *run;
    struct x86_access accesses[X86_MAX_ACCESSES];
    size_t access_count;
    VEC(struct x86_place) written;
};

static bool reads_held(const struct follower *f, const struct step *s, bool *perhaps)
{
    struct x86_span spans[X86_MAX_SPANS];
    bool found = false;
    size_t n = x86_registers_read(s->in, spans);
    for (size_t i = 0; i < n; i++)
        found |= holds_any(f, (struct held){.owner = s->task, .at = spans[i].start}, spans[i].len);
    for (size_t i = 0; i < s->access_count; i++) {
        const struct x86_access *a = &s->accesses[i];
        if (a->reads &&
            holds_any(f, physical(s->r, s->task, s->space, (struct x86_place){true, a->addr}),
                      a->len))
            *(a->maybe ? perhaps : &found) = true;
    }
    return found;
}

static bool makes_address(const struct follower *f, const struct step *s)
{
    for (size_t i = 0; i < s->access_count; i++) {
        const struct x86_mem *m = &s->in->operands[s->accesses[i].operand].mem;
        unsigned len = m->address32 ? 4 : 8;
        bool vector = m->how == X86_AT_VECTOR;
        if (m->base != X86_NONE &&
            holds_any(f, (struct held){.owner = s->task, .at = 8u * m->base}, len))
            return true;
        if (m->index != X86_NONE &&
            holds_any(f,
                      (struct held){.owner = s->task,
                                    .at = vector ? X86_VECTOR + 64u * m->index : 8u * m->index},
                      vector ? s->in->vector_len : m->index_len))
            return true;
    }
    return false;
}

static unsigned use_of(const struct follower *f, const struct step *s, struct x86_place to,
                       struct x86_origin o)
{
    struct x86_input inputs[32];
    bool same = o.from.memory == to.memory && o.from.at == to.at;
    if (o.kind == X86_COPY || o.kind == X86_SIGN) {
        if ((o.kind == X86_COPY && same) ||
            !find_held(f, physical(s->r, s->task, s->space, o.from)))
            return 0;
        bool jump = !to.memory && to.at >= X86_RIP && to.at < X86_FS_BASE;
        return jump ? USE_JUMP : o.kind == X86_COPY ? USE_COPY : USE_SIGN;
    }
    size_t n = o.kind == X86_COMPUTED ? x86_inputs_of(s->in, s->run, to, inputs, 32) : 0;
    for (size_t i = 0; i < n; i++) {
        if (holds_any(f, physical(s->r, s->task, s->space, inputs[i].from), inputs[i].len))
            return to.memory || to.at < X86_FLAGS || to.at >= X86_VECTOR ? USE_COMPUTATION
                                                                         : USE_FLAGS;
    }
    return 0;
}

static void follow_step(struct follower *f, struct step *s, struct moment at)
{
    bool perhaps = false, read = reads_held(f, s, &perhaps), only_constants = true, killed = false;
    unsigned uses = read && makes_address(f, s) ? USE_ADDRESS : 0;
    VEC(struct held) gone = {0}, come = {0};
    vec_each (to, &s->written) {
        struct held place = physical(s->r, s->task, s->space, *to);
        bool here = find_held(f, place) != NULL;
        if (!here && !read && !perhaps)
            continue;
        struct x86_origin o = x86_origin_of(s->in, s->run, *to);
        unsigned use = use_of(f, s, *to, o);
        uses |= use;
        if (use & USE_COPY)
            vec_push(&come, place);
        if (o.kind == X86_UNTOUCHED ||
            (o.kind == X86_COPY && o.from.memory == to->memory && o.from.at == to->at) || !here)
            continue;
        vec_push(&gone, place);
        killed = true;
        only_constants &= o.kind == X86_CONST;
    }
    if (uses & ~USE_FLAGS & ~USE_ADDRESS)
        uses &= ~(unsigned)USE_FLAGS;
    if (read && !uses && !(killed && only_constants))
        uses = USE_OTHER;
    saw(f, at, uses ? uses : killed ? USE_OVERWRITTEN : 0);
    vec_each (h, &gone) {
        struct held *it = find_held(f, *h);
        if (it)
            *it = f->held.items[--f->held.count];
    }
    vec_each (h, &come) {
        if (!find_held(f, *h))
            vec_push(&f->held, *h);
    }
    if (come.count > MOST_NEW || f->held.count > MOST_HELD)
        close_at(f, at);
    vec_deinit(&gone);
    vec_deinit(&come);
}

void forward_step(struct replay *r, struct moment at, uint32_t task, uint32_t space,
                  const struct x86_insn *in, const struct x86_run *run)
{
    struct step s = {.r = r, .task = task, .space = space, .in = in, .run = run};
    s.access_count = x86_accesses(in, run, s.accesses);
    for (unsigned b = 0; b < X86_REGISTER_BYTES; b++) {
        if (in->written & x86_unit(b))
            vec_push(&s.written, (struct x86_place){false, b});
    }
    for (size_t i = 0; i < s.access_count; i++) {
        for (uint64_t k = 0; s.accesses[i].writes && k < s.accesses[i].len; k++)
            vec_push(&s.written, (struct x86_place){true, s.accesses[i].addr + k});
    }
    vec_each (f, &followers) {
        bool touched = false;
        vec_each (h, &(*f)->held) {
            touched |= h->memory ? s.access_count > 0
                                 : h->owner == task &&
                                       (in->read | in->written) & x86_unit((unsigned)h->at);
            if (touched)
                break;
        }
        if (touched)
            follow_step(*f, &s, at);
    }
    vec_deinit(&s.written);
}

void forward_call(struct replay *r, struct moment at, uint32_t task, uint32_t space,
                  const struct x86_insn *in, const struct regs *regs)
{
    static const uint8_t arguments[] = {0, 7, 6, 2, 10, 8, 9};
    uint64_t number = regs->r[UREG_RAX];
    bool sends = number == SYS_write || number == SYS_pwrite64 || number == SYS_sendto;
    vec_each (f, &followers) {
        unsigned uses = 0;
        for (unsigned i = 0; i < sizeof(arguments); i++) {
            if (holds_any(*f, (struct held){.owner = task, .at = 8u * arguments[i]}, 8))
                uses |= USE_CALL;
        }
        struct held start = physical(r, task, space, (struct x86_place){true, regs->r[UREG_RSI]});
        if (sends && holds_any(*f, start, regs->r[UREG_RDX]))
            uses |= USE_OUTPUT;
        saw(*f, at, uses);
        if (number == SYS_writev || number == SYS_pwritev || number == SYS_sendmsg)
            close_at(*f, at); // not looked into here
    }
}

/* --- events --- */

void forward_memory_changed(struct moment at, uint32_t space, uint32_t object, uint64_t start,
                            uint64_t len)
{
    vec_each (f, &followers) {
        if (holds_any(*f, (struct held){true, object ? 0 : space, object, start}, len))
            close_at(*f, at);
    }
}

void forward_registers_changed(struct moment at, uint32_t task, uint64_t units)
{
    vec_each (f, &followers) {
        bool hit = false;
        vec_each (h, &(*f)->held)
            hit |= !h->memory && h->owner == task && units & x86_unit((unsigned)h->at);
        if (hit)
            close_at(*f, at);
    }
}

void forward_space_copied(struct moment at, uint32_t space)
{
    vec_each (f, &followers) {
        bool hit = false;
        vec_each (h, &(*f)->held)
            hit |= h->memory && h->owner == space;
        if (hit)
            close_at(*f, at);
    }
}

/* --- asking --- */

static void tell(const struct follower *f, struct moment at, unsigned want, unsigned have)
{
    char name[32];
    printf("FAIL: uses of %s",
           f->memory ? "" : x86_register_name((unsigned)f->at, f->len, name, sizeof(name)));
    if (f->memory)
        printf("%#llx..%u", (unsigned long long)f->at, f->len);
    printf(" from %llu:%llu, task %u: at %llu:%llu want", (unsigned long long)f->m.event,
           (unsigned long long)f->m.icount, f->task, (unsigned long long)at.event,
           (unsigned long long)at.icount);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        printf("%s%s", want & kinds[i].use ? " " : "", want & kinds[i].use ? kinds[i].kind : "");
    printf("; have");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        printf("%s%s", have & kinds[i].use ? " " : "", have & kinds[i].use ? kinds[i].kind : "");
    printf("\n");
}

/* The rows by moments; faults are not compared. */
static void collect(json_t *rows, struct follower *out)
{
    size_t k;
    json_t *row;
    json_array_foreach(rows, k, row)
    {
        const char *kind = json_string_value(json_object_get(row, "kind"));
        unsigned use = 1u << 31;
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
            use = str_eq(kind, kinds[i].kind) ? kinds[i].use : use;
        struct seen *last = out->seen.count ? &out->seen.items[out->seen.count - 1] : NULL;
        if (json_object_get(row, "faulted"))
            continue;
        if (last && moment_cmp(last->at, row_moment(row)) == 0)
            last->uses |= use;
        else
            vec_push(&out->seen, (struct seen){row_moment(row), use});
    }
    vec_each (s, &out->seen) {
        if (s->uses & ~(unsigned)(USE_OVERWRITTEN | USE_OTHER))
            s->uses &= ~(unsigned)(USE_OVERWRITTEN | USE_OTHER);
        if (s->uses & ~(unsigned)(USE_FLAGS | USE_ADDRESS))
            s->uses &= ~(unsigned)USE_FLAGS;
        if (s->uses & USE_OTHER)
            s->uses &= ~(unsigned)USE_OVERWRITTEN;
    }
}

static bool compare(const struct follower *f, const struct follower *have, struct moment until,
                    unsigned *checks)
{
    size_t i = 0, k = 0;
    for (;; i++, k++) {
        bool a = i < f->seen.count && moment_cmp(f->seen.items[i].at, until) < 0;
        bool b = k < have->seen.count && moment_cmp(have->seen.items[k].at, until) < 0;
        if (!a && !b)
            return true;
        ++*checks;
        struct moment at = a ? f->seen.items[i].at : have->seen.items[k].at;
        if (a && b && moment_cmp(have->seen.items[k].at, at) < 0)
            at = have->seen.items[k].at;
        unsigned want = a && moment_cmp(f->seen.items[i].at, at) == 0 ? f->seen.items[i].uses : 0;
        unsigned got =
            b && moment_cmp(have->seen.items[k].at, at) == 0 ? have->seen.items[k].uses : 0;
        if (want == got)
            continue;
        tell(f, at, want, got);
        return false;
    }
}

static void check(struct query_engine *q, const struct follower *f, unsigned *checks,
                  unsigned *failures)
{
    json_t *params = json_pack("{s{s{sI, sI}, s{si}}, sb, si}", "focus", "moment", "event",
                               (json_int_t)f->m.event, "instr", (json_int_t)f->m.icount, "task",
                               "serial", (int)f->task, "saves", 1, "limit", 2 * MOST_SEEN);
    char text[32];
    if (f->memory) {
        snprintf(text, sizeof(text), "%#llx", (unsigned long long)f->at);
        json_object_set_new(params, "address", json_string(text));
        json_object_set_new(params, "length", json_integer(f->len));
    } else {
        json_object_set_new(
            params, "register",
            json_string(x86_register_name((unsigned)f->at, f->len, text, sizeof(text))));
    }
    json_t *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row};
    struct err *e = query_run(q, "uses", params, &sink);
    struct follower have = {0};
    struct moment until = f->closed;
    collect(rows, &have);
    if (sink.more && have.seen.count &&
        moment_cmp(have.seen.items[have.seen.count - 1].at, until) < 0)
        until = have.seen.items[have.seen.count - 1].at;
    if (e)
        printf("FAIL: %s\n", err_message(e));
    if (e || !compare(f, &have, until, checks))
        ++*failures;
    err_free(e);
    vec_deinit(&have.seen);
    json_decref(rows);
    json_decref(params);
}

void forward_check(struct query_engine *q, unsigned *checks, unsigned *failures)
{
    vec_each (f, &followers)
        check(q, *f, checks, failures);
}
