/* Calls that hand bytes to a stream or take them from one: which bytes of memory they are, and
 * which of the stream.
 *
 *     write(4, "abcde", 5)     write(4, "fgh", 3)         offsets 0 to 5, 5 to 8 of the stream
 *     read(3, buf, 2) = 2      read(3, buf, 100) = 6      offsets 0 to 2, 2 to 8: the second one
 *                                                         has bytes of both writes
 *
 * descriptors.c has the offsets; which bytes of memory they are the calls' arguments say, as they
 * are in memory when the call begins. That nobody but recorded tasks wrote to the stream, and that
 * the writer's memory did not change under way, is seen by comparing. */
#include "query/streams_int.h"

#include <sys/syscall.h>

struct err *read_pieces(struct replay *r, uint32_t space, gaddr at, uint64_t count, piece_list *out)
{
    for (uint64_t i = 0; i < count && i < MOST_PIECES; i++) {
        struct piece p;
        TRY(replay_read(r, space, at + 16 * i, &p, sizeof(p), NULL));
        vec_push(out, p);
    }
    return NULL;
}

struct err *call_pieces(struct query_engine *q, const struct io_call *c, unsigned message,
                        uint32_t *space_out, piece_list *out)
{
    struct replay *r;
    uint64_t v[2];
    bool in_memory = c->no != SYS_read && c->no != SYS_write && c->no != SYS_pread64 &&
                     c->no != SYS_pwrite64 && c->no != SYS_recvfrom && c->no != SYS_sendto;
    *space_out = c->space;
    if (in_memory || !c->space) {
        TRY(state_at(q, c->at, &r));
        TRY(space_of_task(r, c->task, space_out));
    }
    switch (c->no) {
    case SYS_readv:
    case SYS_writev:
    case SYS_preadv:
    case SYS_pwritev:
    case SYS_preadv2:
    case SYS_pwritev2:
    case SYS_process_vm_readv:
    case SYS_process_vm_writev:
        return read_pieces(r, *space_out, c->args[1], c->args[2], out);
    case SYS_recvmsg: // struct msghdr: iov and iovlen; struct mmsghdr has one of 56 bytes, and a
                      // length
    case SYS_sendmsg:
    case SYS_recvmmsg:
    case SYS_sendmmsg:
        TRY(replay_read(r, *space_out, c->args[1] + 64ull * message + 16, v, sizeof(v), NULL));
        return read_pieces(r, *space_out, v[0], v[1], out);
    default:
        vec_push(out, (struct piece){c->args[1], c->args[2]});
        return NULL;
    }
}

bool place_of_addr(const piece_list *pieces, gaddr addr, uint64_t *offset_out, uint64_t *before_out,
                   uint64_t *len_out)
{
    uint64_t offset = 0;
    vec_each (p, pieces) {
        if (addr - p->addr < p->len) {
            *before_out = addr - p->addr;
            *offset_out = offset + *before_out;
            *len_out = p->len - *before_out;
            return true;
        }
        offset += p->len;
    }
    return false;
}

bool addr_of_place(const piece_list *pieces, uint64_t offset, gaddr *addr_out, uint64_t *before_out,
                   uint64_t *len_out)
{
    vec_each (p, pieces) {
        if (offset < p->len) {
            *before_out = offset;
            *addr_out = p->addr + offset;
            *len_out = p->len - offset;
            return true;
        }
        offset -= p->len;
    }
    return false;
}

bool io_call_puts(int32_t no)
{
    return io_call_reads(no) || io_call_writes(no) || no == SYS_mmap ||
           no == SYS_process_vm_readv || no == SYS_process_vm_writev || no == SYS_ptrace;
}

const struct stream *stream_of_call(const struct descriptors *d, const struct io_call *c)
{
    const struct description *of = &d->descriptions.items[c->description];
    uint32_t number = io_call_writes(c->no) ? of->out : of->in;
    return number ? &d->streams.items[number - 1] : NULL;
}

const struct transfer *transfer_of_call(const struct stream *s, const struct io_call *c)
{
    return c->transfer ? &(io_call_writes(c->no) ? &s->writes : &s->reads)->items[c->transfer - 1]
                       : NULL;
}

static bool has_many(const struct io_call *c)
{
    return c->no == SYS_recvmmsg || c->no == SYS_sendmmsg;
}

unsigned message_of(const struct descriptors *d, const struct stream *s, const struct transfer *t)
{
    const struct io_call *c = &d->io.calls.items[t->call];
    return has_many(c) ? (unsigned)(t - transfer_of_call(s, c)) : 0;
}

uint64_t size_of_call(const struct io_call *c)
{
    if (has_many(c))
        return UINT32_MAX;
    return c->no == SYS_ptrace ? 8 : (uint64_t)c->result;
}

struct err *find_in_call(struct query_engine *q, const struct io_call *c, gaddr addr,
                         uint32_t *space_out, piece_list *pieces, unsigned *message_out,
                         uint64_t *at_out, uint64_t *before_out, uint64_t *here_out,
                         bool *found_out)
{
    unsigned count = has_many(c) ? (unsigned)c->result : 1;
    *found_out = false;
    for (unsigned i = 0; i < count && !*found_out; i++) {
        pieces->count = 0;
        TRY(call_pieces(q, c, i, space_out, pieces));
        *message_out = i;
        *found_out =
            place_of_addr(pieces, addr, at_out, before_out, here_out) && *at_out < size_of_call(c);
    }
    return NULL;
}

/* len: of value at most what there is. */
static struct err *read_at(struct query_engine *q, const struct memory_at *m, uint8_t *out,
                           uint64_t len)
{
    struct replay *r;
    if (m->value) {
        memcpy(out, m->value + m->addr, len);
        return NULL;
    }
    TRY(state_at(q, m->at, &r));
    return m->space ? replay_read(r, m->space, m->addr, out, len, NULL)
                    : replay_read_object(r, m->object, m->addr, out, len);
}

struct err *stream_compare(struct query_engine *q, const struct memory_at *x,
                           const struct memory_at *y, uint64_t len, bool *same_out)
{
    uint8_t a[MOST_COMPARED], b[MOST_COMPARED];
    len = len < MOST_COMPARED ? len : MOST_COMPARED;
    TRY(read_at(q, x, a, len));
    TRY(read_at(q, y, b, len));
    *same_out = memcmp(a, b, len) == 0;
    return NULL;
}

const char stream_not_the_same[] = "what was written is not what was read: somebody outside of the "
                                   "recording writes, too, or the memory changed under way";

const char *stream_through(const struct stream *s)
{
    static const char *const names[] = {[STREAM_PIPE] = "pipe",
                                        [STREAM_SOCKET] = "socket",
                                        [STREAM_FILE] = "file",
                                        [STREAM_COUNTER] = "eventfd",
                                        [STREAM_MEMORY] = "process"};
    return names[s->kind];
}

struct err *unless_unreadable(struct err *e, const char **why_out)
{
    if (!e || (err_kind(e) != ERR_FAULT && err_kind(e) != ERR_NOT_FOUND))
        return e;
    *why_out = "the memory of one of the two calls cannot be read";
    err_free(e);
    return NULL;
}

/* --- which call --- */

struct err *stream_read_at(struct query_engine *q, event_no number, uint32_t task, gaddr addr,
                           const struct io_call **out)
{
    const struct descriptors *d;
    TRY(descriptors_of(q, &d));
    *out = io_call_ending(&d->io, number, task);
    if (!*out && number) { // what ptrace(2) writes is there when it is entered
        *out = io_call_at(&d->io, moment_before_event(q, number), task);
        *out = *out && (*out)->no == SYS_ptrace && (*out)->begin == number ? *out : NULL;
    }
    if (*out && !io_call_puts((*out)->no))
        *out = NULL;
    // Records of a flush: their calls were made in the run to it.
    for (size_t i = io_call_from(&d->io, (struct moment){number - 1, 0});
         !*out && i < d->io.calls.count; i++) {
        const struct io_call *c = &d->io.calls.items[i];
        if (c->at.event >= number)
            break;
        if (c->task != task || !c->buffered ||
            (!io_call_reads(c->no) && c->no != SYS_process_vm_readv) || c->result <= 0)
            continue;
        piece_list pieces = {0};
        uint32_t space;
        unsigned message;
        uint64_t offset, before, len;
        bool holds;
        struct err *e =
            find_in_call(q, c, addr, &space, &pieces, &message, &offset, &before, &len, &holds);
        vec_deinit(&pieces);
        TRY(e);
        if (holds)
            *out = c;
    }
    return NULL;
}

struct err *stream_buffered_before(struct query_engine *q, struct moment m, uint32_t task,
                                   const struct io_call **out)
{
    const struct descriptors *d;
    TRY(descriptors_of(q, &d));
    *out = NULL;
    for (size_t i = io_call_from(&d->io, m); i-- > 0 && d->io.calls.items[i].at.event == m.event;) {
        if (d->io.calls.items[i].task != task || !d->io.calls.items[i].buffered)
            continue;
        *out = &d->io.calls.items[i];
        return NULL;
    }
    return NULL;
}

struct err *stream_call_at(struct query_engine *q, struct moment m, uint32_t task,
                           const struct io_call **out)
{
    const struct descriptors *d;
    TRY(descriptors_of(q, &d));
    *out = io_call_at(&d->io, m, task);
    return NULL;
}

/* --- as rows tell of them --- */

char *io_call_text(const struct query_engine *q, const struct io_call *c)
{
    const uint64_t result = (uint64_t)c->result;
    return system_call_text(q, c->no, c->args, &result);
}

json_t *stream_writer(const struct query_engine *q, const struct io_call *write)
{
    cleanup(freep) char *text = io_call_text(q, write);
    return json_pack("{so, so, si, ss}", "focus", json_focus(q, write->at, write->task, 0), "task",
                     json_task(q, write->task), "fd", (int)(int32_t)write->args[0], "text", text);
}

json_t *stream_moves(const struct query_engine *q, const struct io_call *const *moves,
                     unsigned count)
{
    json_t *out = json_array();
    for (unsigned i = 0; i < count; i++) {
        cleanup(freep) char *text = io_call_text(q, moves[i]);
        json_array_append_new(out, json_pack("{so, so, ss}", "focus",
                                             json_focus(q, moves[i]->at, moves[i]->task, 0), "task",
                                             json_task(q, moves[i]->task), "text", text));
    }
    return out;
}
