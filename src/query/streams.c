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

struct err *read_pieces(struct replay *r, uint32_t space, gaddr at, uint64_t count, piece_list *out)
{
    for (uint64_t i = 0; i < count && i < MOST_PIECES; i++) {
        struct piece p;
        TRY(replay_read(r, space, at + 16 * i, &p, sizeof(p), NULL));
        vec_push(out, p);
    }
    return NULL;
}

struct err *call_pieces(struct query_engine *q, const struct io_call *c, unsigned message, uint32_t *space_out, piece_list *out)
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
    case SYS_process_vm_readv:
    case SYS_process_vm_writev:
        return read_pieces(r, *space_out, c->args[1], c->args[2], out);
    case SYS_recvmsg: // struct msghdr: iov and iovlen; struct mmsghdr has one of 56 bytes, and a length
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

bool place_of_addr(const piece_list *pieces, gaddr addr, uint64_t *offset_out, uint64_t *before_out, uint64_t *len_out)
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

bool addr_of_place(const piece_list *pieces, uint64_t offset, gaddr *addr_out, uint64_t *before_out, uint64_t *len_out)
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
    return io_call_reads(no) || io_call_writes(no) || no == SYS_mmap || no == SYS_process_vm_readv || no == SYS_process_vm_writev ||
           no == SYS_ptrace;
}

const struct stream *stream_of_call(const struct descriptors *d, const struct io_call *c)
{
    const struct description *of = &d->descriptions.items[c->description];
    uint32_t number = io_call_writes(c->no) ? of->out : of->in;
    return number ? &d->streams.items[number - 1] : NULL;
}

/* Of a read or write; NULL: which bytes of the stream it is about is not known. */
static const struct transfer *transfer_of_call(const struct stream *s, const struct io_call *c)
{
    return c->transfer ? &(io_call_writes(c->no) ? &s->writes : &s->reads)->items[c->transfer - 1] : NULL;
}

static bool has_many(const struct io_call *c)
{
    return c->no == SYS_recvmmsg || c->no == SYS_sendmmsg;
}

/* Which of its call's messages a transfer is. */
static unsigned message_of(const struct descriptors *d, const struct stream *s, const struct transfer *t)
{
    const struct io_call *c = &d->io.calls.items[t->call];
    return has_many(c) ? (unsigned)(t - transfer_of_call(s, c)) : 0;
}

/* Bytes that a call moved, at most. */
static uint64_t size_of_call(const struct io_call *c)
{
    return has_many(c) ? UINT32_MAX : (uint64_t)c->result;
}

/* The message of a call of which a byte is at addr, and which byte it is; false: none. */
static struct err *find_in_call(struct query_engine *q, const struct io_call *c, gaddr addr, uint32_t *space_out, piece_list *pieces,
                                unsigned *message_out, uint64_t *at_out, uint64_t *before_out, uint64_t *here_out, bool *found_out)
{
    unsigned count = has_many(c) ? (unsigned)c->result : 1;
    *found_out = false;
    for (unsigned i = 0; i < count && !*found_out; i++) {
        pieces->count = 0;
        TRY(call_pieces(q, c, i, space_out, pieces));
        *message_out = i;
        *found_out = place_of_addr(pieces, addr, at_out, before_out, here_out) && *at_out < size_of_call(c);
    }
    return NULL;
}

struct err *stream_read_at(struct query_engine *q, event_no number, uint32_t task, gaddr addr, const struct io_call **out)
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
    for (size_t i = io_call_from(&d->io, (struct moment){number - 1, 0}); !*out && i < d->io.calls.count; i++) {
        const struct io_call *c = &d->io.calls.items[i];
        if (c->at.event >= number)
            break;
        if (c->task != task || !c->buffered || (!io_call_reads(c->no) && c->no != SYS_process_vm_readv) || c->result <= 0)
            continue;
        piece_list pieces = {0};
        uint32_t space;
        unsigned message;
        uint64_t offset, before, len;
        bool holds;
        struct err *e = find_in_call(q, c, addr, &space, &pieces, &message, &offset, &before, &len, &holds);
        vec_deinit(&pieces);
        TRY(e);
        if (holds)
            *out = c;
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

/* Memory of a space, or of an object, at a moment; or bytes that are known. */
struct memory_at {
    struct moment at;
    uint32_t space, object; /* 0: not of one */
    uint64_t addr;
    const uint8_t *value;   /* NULL: not known */
};

/* len: of value at most what there is. */
static struct err *read_at(struct query_engine *q, const struct memory_at *m, uint8_t *out, uint64_t len)
{
    struct replay *r;
    if (m->value) {
        memcpy(out, m->value + m->addr, len);
        return NULL;
    }
    TRY(state_at(q, m->at, &r));
    return m->space ? replay_read(r, m->space, m->addr, out, len, NULL) : replay_read_object(r, m->object, m->addr, out, len);
}

static struct err *compare(struct query_engine *q, const struct memory_at *x, const struct memory_at *y, uint64_t len, bool *same_out)
{
    uint8_t a[COMPARED], b[COMPARED];
    len = len < COMPARED ? len : COMPARED;
    TRY(read_at(q, x, a, len));
    TRY(read_at(q, y, b, len));
    *same_out = memcmp(a, b, len) == 0;
    return NULL;
}

static const char not_the_same[] = "what was written is not what was read: somebody outside of the recording writes, too, or the memory changed under way";

static const char *through(const struct stream *s)
{
    static const char *const names[] = {[STREAM_PIPE] = "pipe", [STREAM_SOCKET] = "socket", [STREAM_FILE] = "file",
                                        [STREAM_COUNTER] = "eventfd", [STREAM_MEMORY] = "process"};
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

/* Some bytes of a stream, as a call takes them. */
struct taken {
    const struct stream *stream;
    const struct transfer *read;   /* NULL: it maps a file */
    const struct io_call *call;
    uint64_t at;                   /* bytes of the call before it; of a call that maps: of the file */
    uint64_t before, here;         /* bytes at neighbouring addresses in the call's memory, and that the call took */
    struct memory_at memory;       /* where they are behind it */
};

/* The write that gave out the byte at an offset of a stream which a call took, or what else made it. */
static struct err *find_giver(struct query_engine *q, const struct taken *t, uint64_t *offset, struct file_origin *from, struct stream_source *out)
{
    const struct descriptors *d = q->descriptors;
    const struct stream *s = t->stream;
    const struct transfer *r = t->read;
    const struct io_call *reader = t->call;
    *offset = r ? r->offset + (s->messages ? 0 : t->at) : t->at;
    for (;;) {
        *from = (struct file_origin){0};
        if (r && r->why) {
            from->why = r->why;
        } else if (s->kind == STREAM_FILE) {
            TRY(file_origin_of(q, s, *offset, reader, &out->len, from));
        } else {
            from->write = write_at(s, *offset);
            from->why = from->write ? from->write->why : "no recorded task wrote as much";
        }
        const struct transfer *w = from->write;
        if (from->why || from->stored || !w->other)
            return NULL;
        if (out->move_count == MOST_MOVES) {
            from->why = "it was moved too often";
            return NULL;
        }
        uint64_t skip = *offset - w->offset;
        out->len = (uint32_t)least(out->len, w->len - skip);
        reader = out->moves[out->move_count++] = &d->io.calls.items[w->call];
        s = &d->streams.items[w->other_stream - 1];
        r = &s->reads.items[w->other - 1];
        *offset = r->offset + skip;
    }
}

/* Bytes that a task stored to a file's mapping. */
static struct err *from_store(struct query_engine *q, const struct taken *t, const struct file_origin *from, uint64_t offset,
                              struct stream_source *out)
{
    struct replay *r;
    const struct write_hit *hit = &from->store;
    out->through = "mapping";
    out->writer = hit->moment;
    out->task = hit->task;
    out->at = moment_behind_write(hit);
    TRY(state_at(q, out->at, &r));
    if (!place_of_object(r, out->task, from->object, offset, &out->space, &out->addr)) {
        out->why = "the mapping is gone";
        return NULL;
    }
    const struct memory_at stored = {.at = out->at, .object = from->object, .addr = offset};
    TRY(compare(q, &t->memory, &stored, out->len, &out->known));
    out->why = out->known ? NULL : not_the_same;
    return NULL;
}

static struct err *find_source(struct query_engine *q, const struct taken *t, piece_list *given, struct stream_source *out)
{
    struct file_origin from;
    uint64_t offset, there_before, there;
    out->through = through(t->stream);
    TRY(find_giver(q, t, &offset, &from, out));
    out->why = from.why;
    out->has_offset = true;
    out->offset = t->stream->messages ? t->at : t->read ? t->read->offset + t->at : t->at;
    if (out->why)
        return NULL;
    if (from.stored)
        return from_store(q, t, &from, offset, out);
    const struct transfer *w = from.write;
    const struct io_call *write = &q->descriptors->io.calls.items[w->call];
    uint64_t skip = t->stream->messages ? t->at : offset - w->offset;
    // What was moved came out of another stream; of messages nothing is moved.
    TRY(call_pieces(q, write, out->move_count ? 0 : message_of(q->descriptors, t->stream, w), &out->space, given));
    if (skip >= w->len || !addr_of_place(given, skip, &out->addr, &there_before, &there) ||
        moment_cmp(write->at, io_call_end(t->call)) >= 0) {
        out->why = "what was written does not fit to what was read";
        return NULL;
    }
    there = least(there, w->len - skip);
    out->len = (uint32_t)least(out->len, there);
    // All that this read has of this write, at neighbouring addresses, and not too much; of files, and what was moved, others may be in between.
    bool alone = t->stream->kind != STREAM_FILE && !out->move_count;
    uint64_t back = alone ? least(least(t->before, there_before), COMPARED / 2) : 0;
    struct memory_at taken = t->memory, put = {.at = write->at, .space = out->space, .addr = out->addr - back};
    taken.addr -= back;
    TRY(compare(q, &taken, &put, alone ? back + least(t->here, there) : out->len, &out->known));
    out->why = out->known ? NULL : not_the_same;
    out->write = write;
    out->at = out->writer = write->at;
    out->task = write->task;
    return NULL;
}

/* Bytes that a read has put at addr. */
static struct err *find_read(struct query_engine *q, const struct io_call *read, gaddr addr, piece_list *taken, piece_list *given,
                             struct stream_source *out)
{
    const struct descriptors *d = q->descriptors;
    struct taken t = {.stream = stream_of_call(d, read), .call = read, .memory = {.at = io_call_end(read), .addr = addr}};
    unsigned message;
    bool found;
    TRY(find_in_call(q, read, addr, &t.memory.space, taken, &message, &t.at, &t.before, &t.here, &found));
    if (!found) {
        out->why = "it is not the data of the call";
        return NULL;
    }
    t.here = least(t.here, size_of_call(read) - t.at);
    out->len = (uint32_t)least(out->len, t.here);
    if (!t.stream) {
        out->why = d->descriptions.items[read->description].why;
        return NULL;
    }
    t.read = transfer_of_call(t.stream, read);
    t.read = t.read ? t.read + message : NULL;
    if (t.read)
        return find_source(q, &t, given, out);
    out->through = through(t.stream);
    out->why = "which bytes were read is not known";
    return NULL;
}

/* Bytes of a file that mmap(2) has put at addr. */
static struct err *find_mapped(struct query_engine *q, const struct io_call *map, gaddr addr, piece_list *given, struct stream_source *out)
{
    struct taken t = {.stream = stream_of_call(q->descriptors, map), .call = map, .at = map->args[5] + (addr - (gaddr)map->result),
                      .memory = {.at = io_call_end(map), .addr = addr}};
    struct replay *r;
    TRY(state_at(q, t.memory.at, &r));
    TRY(space_of_task(r, map->task, &t.memory.space));
    if (!map->description || addr < (gaddr)map->result)
        return NULL; // not of a file
    t.here = out->len;
    if (t.stream && t.stream->kind == STREAM_FILE)
        return find_source(q, &t, given, out);
    out->why = q->descriptors->descriptions.items[map->description].why;
    return NULL;
}

/* Bytes that a write has put at an offset of a file, where it is mapped. */
static struct err *find_written(struct query_engine *q, const struct io_call *write, uint64_t offset, piece_list *given, struct stream_source *out)
{
    const struct stream *s = stream_of_call(q->descriptors, write);
    const struct transfer *w = s && s->kind == STREAM_FILE ? transfer_of_call(s, write) : NULL;
    uint64_t before, there;
    uint32_t object = 0;
    if (!w || w->why || offset - w->offset >= w->len)
        return NULL;
    for (size_t i = 0; i < s->mappings.count && !object; i++)
        TRY(mapped_object(q, (uint32_t)(s - q->descriptors->streams.items), i, &object));
    TRY(call_pieces(q, write, 0, &out->space, given));
    if (!object || !addr_of_place(given, offset - w->offset, &out->addr, &before, &there))
        return NULL;
    out->through = "file";
    out->has_offset = true;
    out->offset = offset;
    out->len = (uint32_t)least(out->len, least(there, w->len - (offset - w->offset)));
    out->write = write;
    out->at = out->writer = write->at;
    out->task = write->task;
    const struct memory_at put = {.at = write->at, .space = out->space, .addr = out->addr},
                           seen = {.at = io_call_end(write), .object = object, .addr = offset};
    TRY(compare(q, &put, &seen, out->len, &out->known));
    out->why = out->known ? NULL : not_the_same;
    return NULL;
}

struct err *stream_buffered_before(struct query_engine *q, struct moment m, uint32_t task, const struct io_call **out)
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

struct err *stream_source_of(struct query_engine *q, const struct io_call *call, const struct moment *there, uint64_t addr, uint32_t len,
                             struct stream_source *out)
{
    const struct descriptors *d;
    piece_list taken = {0}, given = {0};
    *out = (struct stream_source){.len = len};
    TRY(descriptors_of(q, &d));
    struct err *e;
    if (call->no == SYS_process_vm_readv || call->no == SYS_process_vm_writev || call->no == SYS_ptrace || is_of_memory(d, call))
        e = other_memory_source(q, call, there, addr, out);
    else if (call->no == SYS_mmap)
        e = find_mapped(q, call, addr, &given, out);
    else if (io_call_writes(call->no))
        e = find_written(q, call, addr, &given, out);
    else
        e = find_read(q, call, addr, &taken, &given, out);
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

/* Bytes on their way through streams, that were all given out together. */
struct given {
    const struct stream *stream;
    const struct transfer *write;  /* that put them into the stream; NULL: they were stored in a file's mapping */
    uint32_t object;               /* else: of the mapping, */
    struct moment since;           /* and when they were all there */
    uint64_t offset;               /* in the stream; of messages: in the message */
    uint32_t len, from;            /* from: of the bytes asked about */
    struct memory_at memory;       /* where they were */
    const struct io_call *moves[MOST_MOVES];
    unsigned move_count;
};

struct spreading {
    struct query_engine *q;
    stream_copy_list *out;
    const char **why_out;
};

/* Bytes [from, from + len) of g. */
static struct given given_part(const struct given *g, uint32_t from, uint32_t len)
{
    struct given part = *g;
    part.offset += from;
    part.memory.addr += from;
    part.from += from;
    part.len = len;
    return part;
}

/* Adds a copy, if its bytes are those given. */
static struct err *add_copy(struct spreading *s, const struct given *g, const struct io_call *call, struct memory_at to)
{
    bool same;
    TRY(compare(s->q, &to, &g->memory, g->len, &same));
    if (!same) {
        *s->why_out = not_the_same;
        return NULL;
    }
    struct stream_copy c = {.call = call, .from = g->from, .len = g->len, .task = call->task, .space = to.space, .addr = to.addr,
                            .through = g->write || g->move_count ? through(g->stream) : "mapping", .has_offset = true, .offset = g->offset,
                            .move_count = g->move_count};
    memcpy(c.moves, g->moves, sizeof(c.moves));
    vec_push(s->out, c);
    return NULL;
}

/* Does the call find the first of the bytes in the file? *len: of how many that is true. */
static struct err *finds(struct query_engine *q, const struct given *g, const struct io_call *call, uint32_t *len, bool *out)
{
    struct file_origin from;
    TRY(file_origin_of(q, g->stream, g->offset, call, len, &from));
    *out = !from.why && (g->write ? from.write == g->write && !from.stored
                                  : from.stored && from.object == g->object && moment_cmp(from.store.moment, g->since) < 0);
    return NULL;
}

static struct err *spread(struct spreading *s, const struct given *g, bool anew);

/* The bytes go on to another stream. */
static struct err *move_on(struct spreading *s, const struct given *g, const struct transfer *r, uint32_t skip)
{
    const struct descriptors *d = s->q->descriptors;
    struct given next = *g;
    next.stream = &d->streams.items[r->other_stream - 1];
    next.write = &next.stream->writes.items[r->other - 1];
    next.offset = next.write->offset + skip;
    if (next.write->why || g->move_count == MOST_MOVES) {
        *s->why_out = next.write->why ? next.write->why : "it was moved too often";
        return NULL;
    }
    next.moves[next.move_count++] = &d->io.calls.items[r->call];
    return spread(s, &next, true);
}

/* A read of the stream that has some of the bytes: bytes [skip, ...) of it on. */
static struct err *take_read(struct spreading *s, const struct given *g, const struct transfer *r, uint64_t skip)
{
    const struct io_call *call = &s->q->descriptors->io.calls.items[r->call];
    piece_list pieces = {0};
    struct memory_at to = {.at = io_call_end(call)};
    if (r->why) {
        *s->why_out = r->why;
        return NULL;
    }
    struct err *e = r->other ? NULL : call_pieces(s->q, call, message_of(s->q->descriptors, g->stream, r), &to.space, &pieces);
    uint64_t most = least(g->len, r->len - skip);
    for (uint64_t at = 0, n; at < most && !e; at += n) {
        uint64_t before, here = most - at;
        if (!r->other && !addr_of_place(&pieces, skip + at, &to.addr, &before, &here))
            break; // a message that was cut off
        n = least(here, most - at);
        uint32_t len = (uint32_t)n;
        bool found = true;
        struct given part = given_part(g, (uint32_t)at, len);
        if (g->stream->kind == STREAM_FILE)
            e = finds(s->q, &part, call, &len, &found);
        n = part.len = len;
        if (!e && found)
            e = r->other ? move_on(s, &part, r, (uint32_t)(skip + at)) : add_copy(s, &part, call, to);
    }
    vec_deinit(&pieces);
    return unless_unreadable(e, s->why_out);
}

/* Is an object mapped anywhere before the call has its effect? */
static struct err *is_live(struct query_engine *q, const struct io_call *call, uint32_t object, uint64_t offset, bool *out)
{
    struct replay *r;
    uint32_t space;
    gaddr addr;
    TRY(state_at(q, call->buffered ? call->at : moment_before_event(q, call->end), &r));
    *out = place_of_object(r, 0, object, offset, &space, &addr);
    return NULL;
}

/* mmap(2) has the bytes in memory, in a mapping of its own or one to be shared. */
static struct err *take_mapping(struct spreading *s, const struct given *g, size_t idx)
{
    const struct file_mapping *m = &g->stream->mappings.items[idx];
    const struct io_call *call = &s->q->descriptors->io.calls.items[m->call];
    uint64_t start = call->args[5], len = call->args[1];
    if (moment_cmp(call->at, g->since) < 0 || g->offset + g->len <= start || g->offset >= start + len)
        return NULL;
    uint32_t object, skip = (uint32_t)(g->offset < start ? start - g->offset : 0);
    struct replay *r;
    struct memory_at to = {.at = io_call_end(call)};
    bool live = false;
    TRY(state_at(s->q, to.at, &r));
    TRY(space_of_task(r, call->task, &to.space));
    TRY(mapped_object(s->q, (uint32_t)(g->stream - s->q->descriptors->streams.items), idx, &object));
    if (object)
        TRY(is_live(s->q, call, object, g->offset + skip, &live));
    if (live)
        return NULL; // what is there has been told
    for (uint32_t n; skip < g->len && g->offset + skip < start + len; skip += n) {
        bool found;
        n = (uint32_t)least(g->len - skip, start + len - (g->offset + skip));
        struct given part = given_part(g, skip, n);
        TRY(finds(s->q, &part, call, &n, &found));
        part.len = n;
        to.addr = (gaddr)call->result + (part.offset - start);
        if (found)
            TRY(add_copy(s, &part, call, to));
    }
    return NULL;
}

/* What was written to a file is in its mappings at once. */
static struct err *take_mapped(struct spreading *s, const struct given *g)
{
    const struct io_call *write = &s->q->descriptors->io.calls.items[g->write->call];
    struct replay *r;
    for (size_t i = 0; i < g->stream->mappings.count; i++) {
        const struct file_mapping *m = &g->stream->mappings.items[i];
        uint32_t object;
        struct memory_at to = {.at = io_call_end(write)};
        if (!m->shared || moment_cmp(s->q->descriptors->io.calls.items[m->call].at, write->at) > 0)
            continue;
        TRY(mapped_object(s->q, (uint32_t)(g->stream - s->q->descriptors->streams.items), i, &object));
        TRY(state_at(s->q, to.at, &r));
        if (object && place_of_object(r, write->task, object, g->offset, &to.space, &to.addr))
            return add_copy(s, g, write, to);
    }
    return NULL;
}

/* Where else bytes of a stream are. anew: they have just been put into it. */
static struct err *spread(struct spreading *s, const struct given *g, bool anew)
{
    bool is_file = g->stream->kind == STREAM_FILE;
    if (is_file && anew)
        TRY(unless_unreadable(take_mapped(s, g), s->why_out));
    vec_each (r, &g->stream->reads) {
        uint64_t skip = g->stream->messages || r->offset > g->offset ? 0 : g->offset - r->offset;
        uint32_t missed = (uint32_t)(!g->stream->messages && r->offset > g->offset ? least(r->offset - g->offset, g->len) : 0);
        if (moment_cmp(s->q->descriptors->io.calls.items[r->call].at, g->since) < 0 && !g->write)
            continue;
        if (g->stream->messages ? r->offset != g->write->offset || g->offset >= r->len : skip >= r->len || missed >= g->len)
            continue;
        if (s->out->count >= MOST_PIECES) {
            *s->why_out = "it was read more often than is told";
            return NULL;
        }
        struct given part = given_part(g, missed, g->len - missed);
        TRY(take_read(s, &part, r, g->stream->messages ? g->offset : skip));
    }
    for (size_t i = 0; is_file && i < g->stream->mappings.count && s->out->count < MOST_PIECES; i++)
        TRY(unless_unreadable(take_mapping(s, g, i), s->why_out));
    return NULL;
}

static int by_end(const void *a, const void *b)
{
    const struct stream_copy *x = a, *y = b;
    return moment_cmp(io_call_end(x->call), io_call_end(y->call));
}

static void sort_copies(stream_copy_list *list)
{
    if (list->count)
        qsort(list->items, list->count, sizeof(list->items[0]), by_end);
}

static struct err *find_copies(struct query_engine *q, const struct io_call *write, gaddr addr, uint32_t len, piece_list *pieces,
                               stream_copy_list *out, const char **why_out)
{
    const struct descriptors *d = q->descriptors;
    struct given g = {.stream = stream_of_call(d, write), .since = write->at, .memory = {.at = write->at, .addr = addr}};
    uint64_t skip, before, here;
    g.write = g.stream ? transfer_of_call(g.stream, write) : NULL;
    if (!g.write) {
        *why_out = d->descriptions.items[write->description].why;
        return NULL;
    }
    unsigned message;
    bool found;
    TRY(find_in_call(q, write, addr, &g.memory.space, pieces, &message, &skip, &before, &here, &found));
    g.write += found ? message : 0;
    *why_out = g.write->why;
    if (*why_out || !found)
        return NULL;
    g.len = (uint32_t)least(len, least(here, g.write->len - skip));
    g.offset = g.stream->messages ? skip : g.write->offset + skip;
    struct spreading s = {q, out, why_out};
    TRY(spread(&s, &g, true));
    sort_copies(out);
    return NULL;
}

struct err *stream_copies_of(struct query_engine *q, const struct io_call *write, gaddr addr, uint32_t len, stream_copy_list *out,
                             const char **why_out)
{
    const struct descriptors *d;
    piece_list pieces = {0};
    *why_out = NULL;
    TRY(descriptors_of(q, &d));
    if (!io_call_writes(write->no) || !write->done || write->result <= 0 || is_of_memory(d, write))
        return NULL;
    struct err *e = find_copies(q, write, addr, len, &pieces, out, why_out);
    vec_deinit(&pieces);
    return unless_unreadable(e, why_out);
}

/* The file that an object is; NULL: none. */
static struct err *file_of_object(struct query_engine *q, uint32_t object, const struct stream **out)
{
    const struct descriptors *d;
    *out = NULL;
    TRY(descriptors_of(q, &d));
    for (uint32_t i = 0; i < d->streams.count; i++) {
        const struct stream *s = &d->streams.items[i];
        for (size_t k = 0; s->stored_to && k < s->mappings.count; k++) {
            uint32_t mapped;
            TRY(mapped_object(q, i, k, &mapped));
            if (mapped == object) {
                *out = s;
                return NULL;
            }
        }
    }
    return NULL;
}

struct err *stream_copies_of_stored(struct query_engine *q, uint32_t object, uint64_t offset, const uint8_t *value, uint32_t len,
                                    struct moment since, stream_copy_list *out, const char **why_out)
{
    struct given g = {.object = object, .since = since, .offset = offset, .len = len, .memory = {.at = since, .value = value}};
    struct spreading s = {q, out, why_out};
    *why_out = NULL;
    TRY(file_of_object(q, object, &g.stream));
    if (!g.stream)
        return NULL;
    TRY(spread(&s, &g, false));
    sort_copies(out);
    return NULL;
}

struct err *stream_copies_taken(struct query_engine *q, const struct io_call *call, uint32_t space, gaddr addr, uint32_t len,
                                stream_copy_list *out)
{
    const char *why;
    for (uint32_t done = 0; done < len;) {
        struct stream_copy c = {0};
        TRY(unless_unreadable(other_memory_copy(q, call, space, addr + done, len - done, &c), &why));
        if (!c.len)
            return NULL;
        uint32_t next = done + c.from + c.len;
        c.from += done;
        vec_push(out, c);
        done = next;
    }
    return NULL;
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

json_t *stream_moves(const struct query_engine *q, const struct io_call *const *moves, unsigned count)
{
    json_t *out = json_array();
    for (unsigned i = 0; i < count; i++) {
        cleanup(freep) char *text = io_call_text(q, moves[i]);
        json_array_append_new(out, json_pack("{so, so, ss}", "focus", json_focus(q, moves[i]->at, moves[i]->task, 0), "task",
                                             json_task(q, moves[i]->task), "text", text));
    }
    return out;
}
