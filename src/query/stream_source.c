/* From a read to the write that its bytes came from. */
#include "query/streams_int.h"

#include <sys/syscall.h>

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
    return low < s->writes.count && s->writes.items[low].offset <= offset ? &s->writes.items[low]
                                                                          : NULL;
}

/* Some bytes of a stream, as a call takes them. */
struct taken {
    const struct stream *stream;
    const struct transfer *read; /* NULL: it maps a file */
    const struct io_call *call;
    uint64_t at;             /* bytes of the call before it; of a call that maps: of the file */
    uint64_t before;         /* bytes at neighbouring addresses in the call's memory, */
    uint64_t here;           /* and that the call took */
    struct memory_at memory; /* where they are behind it */
};

/* The write that gave out the byte at an offset of a stream which a call took, or what else made
 * it. */
static struct err *find_giver(struct query_engine *q, const struct taken *t, uint64_t *offset,
                              struct file_origin *from, struct stream_source *out)
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
static struct err *from_store(struct query_engine *q, const struct taken *t,
                              const struct file_origin *from, uint64_t offset,
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
    TRY(stream_compare(q, &t->memory, &stored, out->len, &out->known));
    out->why = out->known ? NULL : stream_not_the_same;
    return NULL;
}

static struct err *find_source(struct query_engine *q, const struct taken *t, piece_list *given,
                               struct stream_source *out)
{
    struct file_origin from;
    uint64_t offset, there_before, there;
    out->through = stream_through(t->stream);
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
    TRY(call_pieces(q, write, out->move_count ? 0 : message_of(q->descriptors, t->stream, w),
                    &out->space, given));
    if (skip >= w->len || !addr_of_place(given, skip, &out->addr, &there_before, &there) ||
        moment_cmp(write->at, io_call_end(t->call)) >= 0) {
        out->why = "what was written does not fit to what was read";
        return NULL;
    }
    there = least(there, w->len - skip);
    out->len = (uint32_t)least(out->len, there);
    // All that this read has of this write, at neighbouring addresses, and not too much; of files,
    // and what was moved, others may be in between.
    bool alone = t->stream->kind != STREAM_FILE && !out->move_count;
    uint64_t back = alone ? least(least(t->before, there_before), MOST_COMPARED / 2) : 0;
    struct memory_at taken = t->memory,
                     put = {.at = write->at, .space = out->space, .addr = out->addr - back};
    taken.addr -= back;
    TRY(stream_compare(q, &taken, &put, alone ? back + least(t->here, there) : out->len,
                       &out->known));
    out->why = out->known ? NULL : stream_not_the_same;
    out->write = write;
    out->at = out->writer = write->at;
    out->task = write->task;
    return NULL;
}

/* Bytes that a read has put at addr. */
static struct err *find_read(struct query_engine *q, const struct io_call *read, gaddr addr,
                             piece_list *taken, piece_list *given, struct stream_source *out)
{
    const struct descriptors *d = q->descriptors;
    struct taken t = {.stream = stream_of_call(d, read),
                      .call = read,
                      .memory = {.at = io_call_end(read), .addr = addr}};
    unsigned message;
    bool found;
    TRY(find_in_call(q, read, addr, &t.memory.space, taken, &message, &t.at, &t.before, &t.here,
                     &found));
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
    out->through = stream_through(t.stream);
    out->why = "which bytes were read is not known";
    return NULL;
}

/* Bytes of a file that mmap(2) has put at addr. */
static struct err *find_mapped(struct query_engine *q, const struct io_call *map, gaddr addr,
                               piece_list *given, struct stream_source *out)
{
    struct taken t = {.stream = stream_of_call(q->descriptors, map),
                      .call = map,
                      .at = map->args[5] + (addr - (gaddr)map->result),
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
static struct err *find_written(struct query_engine *q, const struct io_call *write,
                                uint64_t offset, piece_list *given, struct stream_source *out)
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
    TRY(stream_compare(q, &put, &seen, out->len, &out->known));
    out->why = out->known ? NULL : stream_not_the_same;
    return NULL;
}

struct err *stream_source_of(struct query_engine *q, const struct io_call *call,
                             const struct moment *there, uint64_t addr, uint32_t len,
                             struct stream_source *out)
{
    const struct descriptors *d;
    piece_list taken = {0}, given = {0};
    *out = (struct stream_source){.len = len};
    TRY(descriptors_of(q, &d));
    struct err *e;
    if (call->no == SYS_process_vm_readv || call->no == SYS_process_vm_writev ||
        call->no == SYS_ptrace || is_of_memory(d, call))
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
