/* From a write to the reads that took its bytes, through as many streams as they were moved. */
#include "query/streams_int.h"

/* Bytes on their way through streams, that were all given out together. */
struct given {
    const struct stream *stream;
    const struct transfer
        *write;      /* that put them into the stream; NULL: they were stored in a file's mapping */
    uint32_t object; /* else: of the mapping, */
    struct moment since;     /* and when they were all there */
    uint64_t offset;         /* in the stream; of messages: in the message */
    uint32_t len, from;      /* from: of the bytes asked about */
    struct memory_at memory; /* where they were */
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
static struct err *add_copy(struct spreading *s, const struct given *g, const struct io_call *call,
                            struct memory_at to)
{
    bool same;
    TRY(stream_compare(s->q, &to, &g->memory, g->len, &same));
    if (!same) {
        *s->why_out = stream_not_the_same;
        return NULL;
    }
    struct stream_copy c = {.call = call,
                            .from = g->from,
                            .len = g->len,
                            .task = call->task,
                            .space = to.space,
                            .addr = to.addr,
                            .through =
                                g->write || g->move_count ? stream_through(g->stream) : "mapping",
                            .has_offset = true,
                            .offset = g->offset,
                            .move_count = g->move_count};
    memcpy(c.moves, g->moves, sizeof(c.moves));
    vec_push(s->out, c);
    return NULL;
}

/* Does the call find the first of the bytes in the file? *len: of how many that is true. */
static struct err *finds(struct query_engine *q, const struct given *g, const struct io_call *call,
                         uint32_t *len, bool *out)
{
    struct file_origin from;
    TRY(file_origin_of(q, g->stream, g->offset, call, len, &from));
    *out = !from.why && (g->write ? from.write == g->write && !from.stored
                                  : from.stored && from.object == g->object &&
                                        moment_cmp(from.store.moment, g->since) < 0);
    return NULL;
}

static struct err *spread(struct spreading *s, const struct given *g, bool anew);

/* The bytes go on to another stream. */
static struct err *move_on(struct spreading *s, const struct given *g, const struct transfer *r,
                           uint32_t skip)
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
static struct err *take_read(struct spreading *s, const struct given *g, const struct transfer *r,
                             uint64_t skip)
{
    const struct io_call *call = &s->q->descriptors->io.calls.items[r->call];
    piece_list pieces = {0};
    struct memory_at to = {.at = io_call_end(call)};
    if (r->why) {
        *s->why_out = r->why;
        return NULL;
    }
    struct err *e = r->other ? NULL
                             : call_pieces(s->q, call, message_of(s->q->descriptors, g->stream, r),
                                           &to.space, &pieces);
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
            e = r->other ? move_on(s, &part, r, (uint32_t)(skip + at))
                         : add_copy(s, &part, call, to);
    }
    vec_deinit(&pieces);
    return unless_unreadable(e, s->why_out);
}

/* Is an object mapped anywhere before the call has its effect? */
static struct err *is_live(struct query_engine *q, const struct io_call *call, uint32_t object,
                           uint64_t offset, bool *out)
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
    if (moment_cmp(call->at, g->since) < 0 || g->offset + g->len <= start ||
        g->offset >= start + len)
        return NULL;
    uint32_t object, skip = (uint32_t)(g->offset < start ? start - g->offset : 0);
    struct replay *r;
    struct memory_at to = {.at = io_call_end(call)};
    bool live = false;
    TRY(state_at(s->q, to.at, &r));
    TRY(space_of_task(r, call->task, &to.space));
    TRY(mapped_object(s->q, (uint32_t)(g->stream - s->q->descriptors->streams.items), idx,
                      &object));
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
        TRY(mapped_object(s->q, (uint32_t)(g->stream - s->q->descriptors->streams.items), i,
                          &object));
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
        uint32_t missed = (uint32_t)(!g->stream->messages && r->offset > g->offset
                                         ? least(r->offset - g->offset, g->len)
                                         : 0);
        if (moment_cmp(s->q->descriptors->io.calls.items[r->call].at, g->since) < 0 && !g->write)
            continue;
        if (g->stream->messages ? r->offset != g->write->offset || g->offset >= r->len
                                : skip >= r->len || missed >= g->len)
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

static struct err *find_copies(struct query_engine *q, const struct io_call *write, gaddr addr,
                               uint32_t len, piece_list *pieces, stream_copy_list *out,
                               const char **why_out)
{
    const struct descriptors *d = q->descriptors;
    struct given g = {.stream = stream_of_call(d, write),
                      .since = write->at,
                      .memory = {.at = write->at, .addr = addr}};
    uint64_t skip, before, here;
    g.write = g.stream ? transfer_of_call(g.stream, write) : NULL;
    if (!g.write) {
        *why_out = d->descriptions.items[write->description].why;
        return NULL;
    }
    unsigned message;
    bool found;
    TRY(find_in_call(q, write, addr, &g.memory.space, pieces, &message, &skip, &before, &here,
                     &found));
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

struct err *stream_copies_of(struct query_engine *q, const struct io_call *write, gaddr addr,
                             uint32_t len, stream_copy_list *out, const char **why_out)
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
static struct err *file_of_object(struct query_engine *q, uint32_t object,
                                  const struct stream **out)
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

struct err *stream_copies_of_stored(struct query_engine *q, uint32_t object, uint64_t offset,
                                    const uint8_t *value, uint32_t len, struct moment since,
                                    stream_copy_list *out, const char **why_out)
{
    struct given g = {.object = object,
                      .since = since,
                      .offset = offset,
                      .len = len,
                      .memory = {.at = since, .value = value}};
    struct spreading s = {q, out, why_out};
    *why_out = NULL;
    TRY(file_of_object(q, object, &g.stream));
    if (!g.stream)
        return NULL;
    TRY(spread(&s, &g, false));
    sort_copies(out);
    return NULL;
}

struct err *stream_copies_taken(struct query_engine *q, const struct io_call *call, uint32_t space,
                                gaddr addr, uint32_t len, stream_copy_list *out)
{
    const char *why;
    for (uint32_t done = 0; done < len;) {
        struct stream_copy c = {0};
        TRY(unless_unreadable(other_memory_copy(q, call, space, addr + done, len - done, &c),
                              &why));
        if (!c.len)
            return NULL;
        uint32_t next = done + c.from + c.len;
        c.from += done;
        vec_push(out, c);
        done = next;
    }
    return NULL;
}
