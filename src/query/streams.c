/* From a read to the write that its bytes came from.
 *
 *     write(4, "abcde", 5)     write(4, "fgh", 3)             offsets 0 to 5, 5 to 8 of the stream
 *     read(3, buf, 2) = 2      read(3, buf, 100) = 6          offsets 0 to 2, 2 to 8: the second one has bytes of both writes
 *
 * descriptors.c has the offsets; which bytes of memory they are the calls' arguments say, as they are in memory when the call begins. That
 * nobody but recorded tasks wrote to the stream, and that the writer's memory did not change under way, is seen by comparing. */
#include "query/streams_int.h"

#include <sys/syscall.h>

enum { MOST_PIECES = 1024, COMPARED = 4096 };

/* A run of memory that a call takes or fills. */
struct piece {
    gaddr addr;
    uint64_t len;
};
typedef VEC(struct piece) piece_list;

static struct err *read_vector(struct replay *r, uint32_t space, gaddr at, uint64_t count, piece_list *out)
{
    for (uint64_t i = 0; i < count && i < MOST_PIECES; i++) {
        struct piece p;
        TRY(replay_read(r, space, at + 16 * i, &p, sizeof(p), NULL));
        vec_push(out, p);
    }
    return NULL;
}

/* The memory of a call, in the order of its bytes. */
static struct err *pieces_of(struct query_engine *q, const struct io_call *c, uint32_t *space_out, piece_list *out)
{
    struct replay *r;
    uint64_t v[2];
    bool in_memory = c->no != SYS_read && c->no != SYS_write && c->no != SYS_pread64 && c->no != SYS_pwrite64 && c->no != SYS_recvfrom &&
                     c->no != SYS_sendto;
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
        return read_vector(r, *space_out, c->args[1], c->args[2], out);
    case SYS_recvmsg: // struct msghdr: iov and iovlen
    case SYS_sendmsg:
        TRY(replay_read(r, *space_out, c->args[1] + 16, v, sizeof(v), NULL));
        return read_vector(r, *space_out, v[0], v[1], out);
    default:
        vec_push(out, (struct piece){c->args[1], c->args[2]});
        return NULL;
    }
}

/* Which of the call's bytes is at addr, and how many from it on are at neighbouring addresses; false: none. */
static bool place_of_addr(const piece_list *pieces, gaddr addr, uint64_t *offset_out, uint64_t *before_out, uint64_t *len_out)
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

static bool addr_of_place(const piece_list *pieces, uint64_t offset, gaddr *addr_out, uint64_t *before_out, uint64_t *len_out)
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

struct err *stream_read_at(struct query_engine *q, event_no number, uint32_t task, gaddr addr, const struct io_call **out)
{
    const struct descriptors *d;
    TRY(descriptors_of(q, &d));
    *out = io_call_ending(&d->io, number, task);
    if (*out && !io_call_reads((*out)->no))
        *out = NULL;
    // Records of a flush: their calls were made in the run to it.
    for (size_t i = io_call_from(&d->io, (struct moment){number - 1, 0}); !*out && i < d->io.calls.count; i++) {
        const struct io_call *c = &d->io.calls.items[i];
        if (c->at.event >= number)
            break;
        if (c->task != task || !c->buffered || !io_call_reads(c->no) || c->result <= 0)
            continue;
        piece_list pieces = {0};
        uint32_t space;
        uint64_t offset, before, len;
        struct err *e = pieces_of(q, c, &space, &pieces);
        bool holds = !e && place_of_addr(&pieces, addr, &offset, &before, &len) && offset < (uint64_t)c->result;
        vec_deinit(&pieces);
        TRY(e);
        if (holds)
            *out = c;
    }
    return NULL;
}

/* The last write to the byte at `offset` of a file before a read, or the call that cut it off; NULL: there is none. */
static const struct transfer *file_write_at(const struct descriptors *d, const struct stream *s, uint64_t offset, const struct io_call *read,
                                            uint32_t *len, const char **why_out)
{
    for (size_t i = s->writes.count; i-- > 0;) {
        const struct transfer *w = &s->writes.items[i];
        const struct io_call *c = &d->io.calls.items[w->call];
        if (moment_cmp(c->at, io_call_end(read)) >= 0)
            continue;
        if (offset - w->offset < w->len) {
            if (moment_cmp(io_call_end(c), read->at) > 0)
                *why_out = "it was written to at the same time";
            return w;
        }
        if (w->offset > offset && w->offset - offset < *len) // newer bytes behind it
            *len = (uint32_t)(w->offset - offset);
    }
    return NULL;
}

/* The write with the byte at `offset` of the stream; NULL: there is none. */
static const struct transfer *write_at(const struct stream *s, uint64_t offset)
{
    size_t low = 0, high = s->writes.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct transfer *w = &s->writes.items[middle];
        if (s->messages ? w->offset < offset : w->offset + w->len <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < s->writes.count && s->writes.items[low].offset <= offset ? &s->writes.items[low] : NULL;
}

/* Is the memory of the reader after its call that of the writer before its own? */
static struct err *compare(struct query_engine *q, const struct io_call *read, uint32_t read_space, gaddr to, const struct io_call *write,
                           uint32_t write_space, gaddr from, uint64_t len, bool *same_out)
{
    uint8_t a[COMPARED], b[COMPARED];
    struct replay *r;
    len = len < COMPARED ? len : COMPARED;
    TRY(state_at(q, io_call_end(read), &r));
    TRY(replay_read(r, read_space, to, a, len, NULL));
    TRY(state_at(q, write->at, &r));
    TRY(replay_read(r, write_space, from, b, len, NULL));
    *same_out = memcmp(a, b, len) == 0;
    return NULL;
}

static const char *through(const struct stream *s)
{
    static const char *const names[] = {[STREAM_PIPE] = "pipe", [STREAM_SOCKET] = "socket", [STREAM_FILE] = "file"};
    return names[s->kind];
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Memory that is not there, as a recording may have it whatever its calls say, is a reason and no error. */
static struct err *unless_unreadable(struct err *e, const char **why_out)
{
    if (!e || (err_kind(e) != ERR_FAULT && err_kind(e) != ERR_NOT_FOUND))
        return e;
    *why_out = "the memory of one of the two calls cannot be read";
    err_free(e);
    return NULL;
}

static struct err *find_source(struct query_engine *q, const struct descriptors *d, const struct io_call *read, gaddr addr,
                               piece_list *taken, piece_list *given, struct stream_source *out)
{
    const struct description *from = &d->descriptions.items[read->description];
    uint32_t read_space;
    uint64_t at, before, here, there_before, there, skip;
    TRY(pieces_of(q, read, &read_space, taken));
    if (!place_of_addr(taken, addr, &at, &before, &here) || at >= (uint64_t)read->result) {
        out->why = "it is not the data of the call";
        return NULL;
    }
    out->len = (uint32_t)least(out->len, here);
    if (!from->in) {
        out->why = from->why;
        return NULL;
    }
    const struct stream *s = &d->streams.items[from->in - 1];
    const struct transfer *r = read->transfer ? &s->reads.items[read->transfer - 1] : NULL;
    bool is_file = s->kind == STREAM_FILE;
    out->through = through(s);
    if (!r || r->why) {
        out->why = r ? r->why : "which bytes were read is not known";
        return NULL;
    }
    const struct transfer *w = is_file ? file_write_at(d, s, r->offset + at, read, &out->len, &out->why)
                                       : write_at(s, s->messages ? r->offset : r->offset + at);
    if (!out->why)
        out->why = w ? w->why : is_file ? "no recorded task wrote this part of the file" : "no recorded task wrote as much";
    if (!out->why && w->cuts)
        out->why = "the file was cut off here before, and not written to";
    if (out->why)
        return NULL;
    const struct io_call *write = &d->io.calls.items[w->call];
    skip = s->messages ? at : r->offset + at - w->offset;
    TRY(pieces_of(q, write, &out->space, given));
    if (skip >= w->len || !addr_of_place(given, skip, &out->addr, &there_before, &there) ||
        moment_cmp(write->at, io_call_end(read)) >= 0) {
        out->why = "what was written does not fit to what was read";
        return NULL;
    }
    out->offset = s->messages ? at : r->offset + at;
    there = least(there, w->len - skip);
    out->len = (uint32_t)least(out->len, there);
    // All that this read has of this write, at neighbouring addresses, and not too much.
    uint64_t back = is_file ? 0 : least(least(before, there_before), COMPARED / 2);
    bool same;
    TRY(compare(q, read, read_space, addr - back, write, out->space, out->addr - back,
                is_file ? out->len : back + least(least(here, (uint64_t)read->result - at), there), &same));
    if (same)
        out->write = write;
    else
        out->why = "what was written is not what was read: somebody outside of the recording writes, too, or the memory changed under way";
    return NULL;
}

struct err *stream_source_of(struct query_engine *q, const struct io_call *read, gaddr addr, uint32_t len, struct stream_source *out)
{
    const struct descriptors *d;
    piece_list taken = {0}, given = {0};
    *out = (struct stream_source){.len = len};
    TRY(descriptors_of(q, &d));
    struct err *e = find_source(q, d, read, addr, &taken, &given, out);
    vec_deinit(&taken);
    vec_deinit(&given);
    return unless_unreadable(e, &out->why);
}

/* --- forward --- */

struct err *stream_call_at(struct query_engine *q, struct moment m, uint32_t task, const struct io_call **out)
{
    const struct descriptors *d;
    TRY(descriptors_of(q, &d));
    *out = io_call_at(&d->io, m, task);
    return NULL;
}

/* What is asked of a write. */
struct asked_write {
    const struct io_call *call;
    const struct stream *stream;
    const struct transfer *transfer;
    uint32_t space;
    gaddr addr;
    uint64_t skip; /* bytes of the call before those at addr */
    uint32_t len;
};

/* Adds what of the bytes a read has: as many copies as its memory has pieces. */
static struct err *add_copies(struct query_engine *q, const struct descriptors *d, const struct asked_write *w, const struct transfer *r,
                              stream_copy_list *out, const char **why_out)
{
    const struct io_call *read = &d->io.calls.items[r->call];
    const struct stream *s = w->stream;
    bool is_file = s->kind == STREAM_FILE;
    // Bytes of the read: [start, end), and how far the write's are ahead of these.
    uint64_t base = s->messages ? 0 : w->transfer->offset, first = s->messages ? 0 : r->offset;
    uint64_t start = base + w->skip > first ? base + w->skip - first : 0, stop = base + w->skip + w->len;
    uint64_t end = stop > first ? least(stop - first, r->len) : 0;
    piece_list pieces = {0};
    uint32_t space;
    struct err *e = start < end ? pieces_of(q, read, &space, &pieces) : NULL;
    for (uint64_t at = start, n; at < end && !e; at += n) {
        uint64_t before, here;
        gaddr to;
        uint32_t len;
        bool same;
        if (!addr_of_place(&pieces, at, &to, &before, &here))
            break; // a message that was cut off
        n = least(here, end - at);
        len = (uint32_t)n;
        const char *why = r->why;
        if (is_file && !why) {
            const struct transfer *last = file_write_at(d, s, first + at, read, &len, &why);
            n = len;
            if (last != w->transfer)
                continue;
        }
        if (!why && moment_cmp(w->call->at, io_call_end(read)) >= 0)
            why = "what was written does not fit to what was read";
        uint32_t from = (uint32_t)(first + at - base - w->skip);
        if (!why)
            e = compare(q, read, space, to, w->call, w->space, w->addr + from, n, &same);
        if (!e && !why && !same)
            why = "what was written is not what was read: somebody outside of the recording writes, too, or the memory changed under way";
        if (why)
            *why_out = why;
        else if (!e)
            vec_push(out, (struct stream_copy){read, from, len, space, to, through(s), s->messages ? at : first + at});
    }
    vec_deinit(&pieces);
    return e;
}

static struct err *find_copies(struct query_engine *q, const struct descriptors *d, struct asked_write *w, piece_list *given,
                               stream_copy_list *out, const char **why_out)
{
    const struct description *to = &d->descriptions.items[w->call->description];
    uint64_t before, here;
    if (!to->out || !w->call->transfer) {
        *why_out = to->why;
        return NULL;
    }
    w->stream = &d->streams.items[to->out - 1];
    w->transfer = &w->stream->writes.items[w->call->transfer - 1];
    *why_out = w->transfer->why;
    TRY(pieces_of(q, w->call, &w->space, given));
    if (*why_out || !place_of_addr(given, w->addr, &w->skip, &before, &here) || w->skip >= w->transfer->len)
        return NULL;
    w->len = (uint32_t)least(w->len, least(here, w->transfer->len - w->skip));
    vec_each (r, &w->stream->reads) {
        bool meets = w->stream->messages ? r->offset == w->transfer->offset
                                         : r->offset < w->transfer->offset + w->skip + w->len && r->offset + r->len > w->transfer->offset + w->skip;
        if (out->count >= MOST_PIECES)
            *why_out = "it was read more often than is told";
        if (meets && out->count < MOST_PIECES)
            TRY(add_copies(q, d, w, r, out, why_out));
    }
    return NULL;
}

struct err *stream_copies_of(struct query_engine *q, const struct io_call *write, gaddr addr, uint32_t len, stream_copy_list *out,
                             const char **why_out)
{
    const struct descriptors *d;
    piece_list given = {0};
    *why_out = NULL;
    TRY(descriptors_of(q, &d));
    if (!io_call_writes(write->no) || !write->done || write->result <= 0)
        return NULL;
    struct asked_write w = {.call = write, .addr = addr, .len = len};
    struct err *e = find_copies(q, d, &w, &given, out, why_out);
    vec_deinit(&given);
    return unless_unreadable(e, why_out);
}

char *io_call_text(const struct query_engine *q, const struct io_call *c)
{
    const uint64_t result = (uint64_t)c->result;
    return system_call_text(q, c->no, c->args, &result);
}

json_t *stream_writer(const struct query_engine *q, const struct io_call *write)
{
    cleanup(freep) char *text = io_call_text(q, write);
    return json_pack("{so, so, si, ss}", "focus", json_focus(q, write->at, write->task, 0), "task", json_task(q, write->task), "fd",
                     (int)(int32_t)write->args[0], "text", text);
}
