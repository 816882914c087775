/* Calls by which one process reads or writes memory of another: process_vm_readv(2),
 * process_vm_writev(2), ptrace(2), and /proc/PID/mem (proc(5)). The bytes are in that memory at the
 * moment of the call, so there is no stream between the two. */
#include "query/streams_int.h"

#include <sys/ptrace.h>
#include <sys/syscall.h>

/* The task with a tid, and its space; *space_out 0: there is none. */
static void find_task(struct replay *r, int64_t tid, uint32_t *task_out, uint32_t *space_out)
{
    size_t count;
    const struct task_info *tasks = replay_tasks(r, &count);
    *space_out = 0;
    for (size_t i = 0; i < count; i++) {
        if (tasks[i].tid == tid && !tasks[i].is_32bit) {
            *task_out = tasks[i].serial;
            *space_out = tasks[i].space;
        }
    }
}

/* Whose memory it is that a call of /proc/PID/mem is about: of the program that ran when it was
 * opened. */
static struct err *find_opened(struct query_engine *q, const struct io_call *open, struct moment m,
                               uint32_t *task_out, uint32_t *space_out)
{
    struct replay *r;
    int tid = 0;
    const char *path = open->paths[0];
    bool own = strncmp(path, "/proc/self/", 11) == 0;
    *space_out = 0;
    if (!own && sscanf(path, "/proc/%d/mem", &tid) != 1 &&
        sscanf(path, "/proc/%*d/task/%d/mem", &tid) != 1)
        return NULL;
    TRY(state_at(q, io_call_end(open), &r));
    if (own) {
        TRY(space_of_task(r, open->task, space_out));
    } else {
        find_task(r, tid, task_out, space_out);
    }
    TRY(state_at(q, m, &r));
    size_t count;
    const struct task_info *tasks = replay_tasks(r, &count);
    for (size_t i = 0; i < count; i++) {
        if (tasks[i].space == *space_out) {
            *task_out = tasks[i].serial;
            return NULL;
        }
    }
    *space_out = 0; // it is gone
    return NULL;
}

/* Both sides of a call, of which the bytes go from one to the other. */
struct sides {
    piece_list own, other;
    uint32_t own_space, other_space, other_task;
    bool gives;       /* the caller's go to the other */
    bool by_register; /* ptrace(2): they are in r10 */
};

static struct err *find_sides(struct query_engine *q, const struct io_call *c, struct sides *out)
{
    const struct descriptors *d = q->descriptors;
    struct replay *r;
    if (is_of_memory(d, c)) {
        const struct stream *s = stream_of_call(d, c);
        out->gives = io_call_writes(c->no);
        const struct transfer *x =
            !c->transfer ? NULL : &(out->gives ? &s->writes : &s->reads)->items[c->transfer - 1];
        TRY(find_opened(q, &d->io.calls.items[s->opened], c->at, &out->other_task,
                        &out->other_space));
        if (x && !x->why)
            vec_push(&out->other, (struct piece){x->offset, x->len});
        return call_pieces(q, c, 0, &out->own_space, &out->own);
    }
    TRY(state_at(q, c->at, &r));
    TRY(space_of_task(r, c->task, &out->own_space));
    find_task(r, (int32_t)c->args[c->no == SYS_ptrace], &out->other_task, &out->other_space);
    if (c->no != SYS_ptrace) {
        out->gives = c->no == SYS_process_vm_writev;
        TRY(read_pieces(r, out->own_space, c->args[1], c->args[2], &out->own));
        return read_pieces(r, out->own_space, c->args[3], c->args[4], &out->other);
    }
    out->by_register = out->gives = c->args[0] == PTRACE_POKETEXT || c->args[0] == PTRACE_POKEDATA;
    if (out->gives || c->args[0] == PTRACE_PEEKTEXT || c->args[0] == PTRACE_PEEKDATA) {
        vec_push(&out->own, (struct piece){c->args[3], 8});
        vec_push(&out->other, (struct piece){c->args[2], 8});
    }
    return NULL;
}

/* Are the bytes of both sides the same? Those of the giver before the call, of the taker behind it.
 */
static struct err *same_bytes(struct query_engine *q, const struct io_call *c,
                              const struct stream_source *from, struct moment there, uint32_t space,
                              gaddr addr, bool *out)
{
    uint8_t a[MOST_COMPARED], b[MOST_COMPARED];
    uint32_t len = from->len < MOST_COMPARED ? from->len : MOST_COMPARED;
    struct replay *r;
    TRY(state_at(q, c->at, &r));
    if (from->in_register)
        memcpy(a, (const uint8_t *)&c->args[3] + from->addr % 8, len);
    else
        TRY(replay_read(r, from->space, from->addr, a, len, NULL));
    TRY(state_at(q, there, &r));
    TRY(replay_read(r, space, addr, b, len, NULL));
    *out = memcmp(a, b, len) == 0;
    return NULL;
}

static struct err *find_bytes(struct query_engine *q, const struct io_call *c, struct moment there,
                              struct sides *s, gaddr addr, struct stream_source *out)
{
    uint64_t place, before, here, more;
    out->why = "whose memory it was is not known";
    TRY(find_sides(q, c, s));
    if (!s->other_space)
        return NULL;
    out->why = "it is not the data of the call";
    const piece_list *to = s->gives ? &s->other : &s->own, *from = s->gives ? &s->own : &s->other;
    if (!place_of_addr(to, addr, &place, &before, &here) || place >= size_of_call(c) ||
        !addr_of_place(from, place, &out->addr, &before, &more))
        return NULL;
    out->len = (uint32_t)least(least(out->len, size_of_call(c) - place), least(here, more));
    out->in_register = s->by_register;
    if (out->in_register)
        out->addr = X86_GPR + 8 * 10 + place; // r10: the fourth argument
    out->task = s->gives ? c->task : s->other_task;
    out->space = s->gives ? s->own_space : s->other_space;
    out->at = out->writer = c->at;
    out->write = s->gives ? c : NULL;
    out->through = "process";
    TRY(same_bytes(q, c, out, there, s->gives ? s->other_space : s->own_space, addr, &out->known));
    out->why = out->known ? NULL : "the bytes of both sides are not the same";
    return NULL;
}

struct err *other_memory_source(struct query_engine *q, const struct io_call *call,
                                const struct moment *there, gaddr addr, struct stream_source *out)
{
    struct sides s = {0};
    struct err *e = find_bytes(q, call, there ? *there : io_call_end(call), &s, addr, out);
    vec_deinit(&s.own);
    vec_deinit(&s.other);
    return e;
}

/* The first part of [addr, addr + len) that is in one of the pieces; false: none. place_out: of the
 * call's bytes. */
static bool first_in(const piece_list *pieces, gaddr addr, uint32_t len, uint32_t *from_out,
                     uint32_t *len_out, uint64_t *place_out)
{
    uint64_t place = 0;
    bool found = false;
    vec_each (p, pieces) {
        gaddr start = p->addr > addr ? p->addr : addr,
              end = p->addr + p->len < addr + len ? p->addr + p->len : addr + len;
        if (start < end && (!found || start - addr < *from_out)) {
            *from_out = (uint32_t)(start - addr);
            *len_out = (uint32_t)(end - start);
            *place_out = place + (start - p->addr);
            found = true;
        }
        place += p->len;
    }
    return found;
}

static struct err *find_copy(struct query_engine *q, const struct io_call *c, struct sides *s,
                             uint32_t space, gaddr addr, uint32_t len, struct stream_copy *out)
{
    uint64_t place = 0, before, there;
    uint32_t part = 0;
    bool same;
    TRY(find_sides(q, c, s));
    if (!s->other_space || s->by_register || space != (s->gives ? s->own_space : s->other_space))
        return NULL;
    const piece_list *from = s->gives ? &s->own : &s->other, *to = s->gives ? &s->other : &s->own;
    if (!first_in(from, addr, len, &out->from, &part, &place) || place >= size_of_call(c) ||
        !addr_of_place(to, place, &out->addr, &before, &there))
        return NULL;
    part = (uint32_t)least(part, least(there, size_of_call(c) - place));
    out->call = c;
    out->task = s->gives ? s->other_task : c->task;
    out->space = s->gives ? s->other_space : s->own_space;
    out->through = "process";
    out->acted = s->gives && c->buffered; // the others are events
    const struct stream_source source = {.space = space, .addr = addr + out->from, .len = part};
    if (!out->acted)
        TRY(same_bytes(q, c, &source, io_call_end(c), out->space, out->addr, &same));
    out->len = out->acted || same ? part : 0;
    return NULL;
}

struct err *other_memory_copy(struct query_engine *q, const struct io_call *call, uint32_t space,
                              gaddr addr, uint32_t len, struct stream_copy *out)
{
    struct sides s = {0};
    const struct descriptors *d;
    TRY(descriptors_of(q, &d));
    bool concerns = call->no == SYS_process_vm_readv || call->no == SYS_process_vm_writev ||
                    call->no == SYS_ptrace || is_of_memory(d, call);
    struct err *e = concerns && call->done && call->result >= 0
                        ? find_copy(q, call, &s, space, addr, len, out)
                        : NULL;
    vec_deinit(&s.own);
    vec_deinit(&s.other);
    return e;
}
