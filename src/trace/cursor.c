/* Walking the frames: one message of `events` after another, with the records of `mmaps` and
 * `tasks` that belong to it and the place of its memory writes in `data`. Frame numbers are not
 * stored; they are counted, from 1.
 *
 * Invariant: after an error the cursor stands where it stood before, so the same call gives the
 * same error. */
#include "trace/trace_int.h"

#include <inttypes.h>

#include "trace/packed.h"

/* A memory write larger than this is refused. */
#define WRITE_MAX_SIZE ((uint64_t)1 << 30)

/* A frame that was read, with what it points to. */
struct slot {
    struct message message;
    struct pool pool;
    struct frame frame;
    struct trace_position after;
};

/* The frame given last is in slots[first - 1]; the `ahead` ones behind it were read already. */
struct trace_cursor {
    const struct trace *trace;
    struct trace_position position; /* behind the frame given last */
    struct block_reader events, data;
    struct slot *slots[TRACE_AHEAD + 1]; /* NULL until it is needed */
    size_t first, ahead;
};

struct err *trace_cursor_open(const struct trace *t, struct trace_cursor **out)
{
    struct trace_cursor *c = xnew(struct trace_cursor);
    c->trace = t;
    block_reader_init(&c->events, &t->events);
    block_reader_init(&c->data, &t->data);
    *out = c;
    return NULL;
}

void trace_cursor_close(struct trace_cursor *c)
{
    if (!c)
        return;
    block_reader_deinit(&c->events);
    block_reader_deinit(&c->data);
    for (size_t i = 0; i <= TRACE_AHEAD; i++) {
        if (!c->slots[i])
            continue;
        message_deinit(&c->slots[i]->message);
        pool_deinit(&c->slots[i]->pool);
        free(c->slots[i]);
    }
    free(c);
}

struct trace_position trace_cursor_position(const struct trace_cursor *c)
{
    return c->position;
}

struct err *trace_cursor_seek(struct trace_cursor *c, struct trace_position p)
{
    const struct trace *t = c->trace;
    if (p.events_offset > t->events.size || p.data_offset > t->data.size ||
        p.mmap_idx > t->mmap_count || p.task_idx > t->task_count)
        return err_new(ERR_FORMAT, "no such position in the trace: event %" PRIu64, p.event);
    c->position = p;
    c->ahead = 0;
    return NULL;
}

static void attach_records(const struct trace *t, struct trace_position *p, struct frame *f)
{
    f->mmaps = t->mmaps + p->mmap_idx;
    while (p->mmap_idx < t->mmap_count && t->mmaps[p->mmap_idx].event <= f->event)
        p->mmap_idx++, f->mmap_count++;
    f->tasks = t->tasks + p->task_idx;
    while (p->task_idx < t->task_count && t->tasks[p->task_idx].event <= f->event)
        p->task_idx++, f->task_count++;
}

static struct err *place_writes(const struct trace *t, struct trace_position *p, struct frame *f,
                                uint64_t len)
{
    if (len > t->data.size - p->data_offset)
        return err_new(ERR_FORMAT,
                       "data: ends at 0x%" PRIx64 "; frame %" PRIu64 " wants %" PRIu64
                       " bytes at 0x%" PRIx64,
                       t->data.size, f->event, len, p->data_offset);
    // The decoder made the array in the cursor's pool and counted from 0.
    struct mem_write *writes = (struct mem_write *)(uintptr_t)f->writes;
    for (size_t i = 0; i < f->write_count; i++)
        writes[i].data_offset += p->data_offset;
    p->data_offset += len;
    return NULL;
}

/* Reads the frame at p into a slot; *end_out: there is none. */
static struct err *read_frame(struct trace_cursor *c, struct trace_position p, struct slot *to,
                              bool *end_out)
{
    struct packed_stream stream = packed_stream_of_blocks(&c->events, p.events_offset);
    TRY(packed_stream_next(&stream, &to->message, end_out));
    if (*end_out)
        return NULL;
    pool_reset(&to->pool);
    uint64_t data_len;
    TRY(err_prefix(frame_decode(&to->message, &to->pool, &to->frame, &data_len),
                   "events: frame %" PRIu64 " at 0x%" PRIx64, p.event + 1, p.events_offset));
    to->frame.event = ++p.event;
    p.events_offset = packed_stream_offset(&stream);
    TRY(place_writes(c->trace, &p, &to->frame, data_len));
    attach_records(c->trace, &p, &to->frame);
    to->after = p;
    return NULL;
}

static struct slot *slot_at(struct trace_cursor *c, size_t n)
{
    struct slot **s = &c->slots[(c->first + n) % (TRACE_AHEAD + 1)];
    if (!*s)
        *s = xnew(struct slot);
    return *s;
}

/* One more is read ahead, unless *end_out. */
static struct err *read_ahead(struct trace_cursor *c, bool *end_out)
{
    TRY(read_frame(c, c->ahead ? slot_at(c, c->ahead - 1)->after : c->position,
                   slot_at(c, c->ahead), end_out));
    c->ahead += !*end_out;
    return NULL;
}

struct err *trace_cursor_next(struct trace_cursor *c, const struct frame **out)
{
    bool end = false;
    if (!c->ahead)
        TRY(read_ahead(c, &end));
    if (end) {
        *out = NULL;
        return NULL;
    }
    struct slot *s = slot_at(c, 0);
    c->first = (c->first + 1) % (TRACE_AHEAD + 1);
    c->ahead--;
    c->position = s->after;
    *out = &s->frame;
    return NULL;
}

const struct frame *trace_cursor_ahead(struct trace_cursor *c, size_t n)
{
    bool end = false;
    while (c->ahead <= n && n < TRACE_AHEAD) {
        struct err *e = read_ahead(c, &end);
        if (e || end) {
            err_free(e); // the call that wants this frame itself gets the error
            return NULL;
        }
    }
    return n < TRACE_AHEAD ? &slot_at(c, n)->frame : NULL;
}

bool mem_write_piece(const struct mem_write *w, size_t idx, struct write_piece *out)
{
    size_t hole = idx / 2;
    if (idx > 2 * w->hole_count)
        return false;
    if (idx % 2) {
        *out = (struct write_piece){
            .offset = w->holes[hole].offset, .size = w->holes[hole].size, .hole = true};
        return true;
    }
    uint64_t start = hole ? w->holes[hole - 1].offset + w->holes[hole - 1].size : 0, skipped = 0;
    for (size_t i = 0; i < hole; i++)
        skipped += w->holes[i].size;
    uint64_t end = hole < w->hole_count ? w->holes[hole].offset : w->size;
    *out = (struct write_piece){
        .offset = start, .size = end - start, .data_offset = w->data_offset + start - skipped};
    return true;
}

struct err *trace_data_at(struct trace_cursor *c, uint64_t data_offset, const uint8_t **out,
                          size_t *len_out)
{
    TRY(block_reader_at(&c->data, data_offset, out, len_out));
    return *len_out ? NULL : err_new(ERR_FORMAT, "data: ends at 0x%" PRIx64, data_offset);
}

struct err *trace_read_data(struct trace_cursor *c, uint64_t data_offset, void *out, size_t len)
{
    return block_reader_copy(&c->data, data_offset, out, len);
}

struct err *trace_read_write(struct trace_cursor *c, const struct mem_write *w, struct buf *out)
{
    if (w->size > WRITE_MAX_SIZE)
        return err_new(ERR_LIMIT,
                       "a memory write of %" PRIu64 " bytes at 0x%" PRIx64 " is too large", w->size,
                       w->addr);
    size_t size = (size_t)w->size, start_len = out->len;
    if (!buf_try_reserve(out, size))
        return err_new(ERR_LIMIT, "no memory for a memory write of %zu bytes", size);
    uint8_t *to = out->data + start_len;
    struct write_piece piece;
    for (size_t i = 0; mem_write_piece(w, i, &piece); i++) {
        if (piece.hole)
            memset(to + piece.offset, 0, (size_t)piece.size);
        else
            TRY(trace_read_data(c, piece.data_offset, to + piece.offset, (size_t)piece.size));
    }
    out->len += size;
    return NULL;
}

struct err *trace_event_count(struct trace *t, event_no *out)
{
    pthread_mutex_lock(&t->lock);
    struct err *e = NULL;
    if (!t->event_count && t->events.size) {
        // Messages are only unpacked, not decoded: their lengths are all that is needed.
        struct block_reader blocks;
        block_reader_init(&blocks, &t->events);
        cleanup(message_deinit) struct message m = {0};
        struct packed_stream stream = packed_stream_of_blocks(&blocks, 0);
        event_no count = 0;
        for (bool end = false; !(e = packed_stream_next(&stream, &m, &end)) && !end;)
            count++;
        block_reader_deinit(&blocks);
        if (!e)
            t->event_count = count;
    }
    if (!e)
        *out = t->event_count;
    pthread_mutex_unlock(&t->lock);
    return e;
}
