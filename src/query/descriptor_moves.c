/* Bytes that the kernel moves without a task's memory: splice(2) and the like, which read one
 * stream and write another; and eventfd(2), which counts what is written to it and gives out the
 * sum. */
#include "query/tracking_int.h"

#include <sys/eventfd.h>
#include <sys/syscall.h>

/* One half of a call that moves bytes. at: of a file, the offset after it, or -1: it goes by the
 * descriptor's. *stream_out: number plus 1; 0: it is not known what the descriptor stands for. */
static struct transfer *move_half(struct tracking *t, const struct io_call *c, uint32_t description,
                                  bool reads, gaddr given, int64_t after, uint32_t *stream_out)
{
    struct description *d = &t->d->descriptions.items[description];
    uint32_t number = reads ? d->in : d->out;
    uint64_t len = (uint64_t)c->result;
    *stream_out = number;
    if (!number)
        return NULL;
    struct stream *s = &t->d->streams.items[number - 1];
    transfer_list *list = reads ? &s->reads : &s->writes;
    if (s->kind != STREAM_FILE)
        add_transfer(t, number, call_index(t, c), reads, len, false);
    else if (given)
        add_file_transfer(t, number, call_index(t, c), reads, (uint64_t)after - len, after >= 0,
                          len);
    else
        add_file_transfer_here(t, d, call_index(t, c), reads, len);
    return &list->items[list->count - 1];
}

void move_bytes(struct tracking *t, const struct io_call *c)
{
    struct io_move m;
    if (!io_call_moves(c, &m) || !c->result)
        return;
    uint32_t from = fd_at(t, c->task, (uint32_t)m.from), to = fd_at(t, c->task, (uint32_t)m.to), in,
             out;
    struct transfer *r = move_half(t, c, from, true, m.offsets[0], c->offsets[0], &in);
    size_t read = in ? t->d->streams.items[in - 1].reads.count : 0;
    struct transfer *w = move_half(t, c, to, false, m.offsets[1], c->offsets[1], &out);
    if (r && t->d->streams.items[in - 1].messages)
        give_up_stream(t, in, r->why = "messages of it were moved by splice or sendfile");
    if (w && t->d->streams.items[out - 1].messages)
        give_up_stream(t, out, w->why = "messages were moved to it by splice or sendfile");
    if (w && !r)
        w->why = t->d->descriptions.items[from].why;
    if (!r || !w || r->why || w->why)
        return;
    size_t written = t->d->streams.items[out - 1].writes.count;
    r->other_stream = out;
    r->other = (uint32_t)written;
    w->other_stream = in;
    w->other = (uint32_t)read;
}

/* --- eventfd(2) --- */

void make_counter(struct tracking *t, const struct io_call *c)
{
    uint64_t flags = c->no == SYS_eventfd2 ? c->args[1] : 0;
    uint32_t stream = add_stream(t, STREAM_COUNTER, true,
                                 flags & EFD_SEMAPHORE ? "an eventfd which is a semaphore" : NULL);
    t->d->streams.items[stream - 1].written =
        (uint32_t)c->args[0] != 0; // as if it had been written before
    fd_assign(t, c->task, c->result,
              add_description(t, (struct description){.in = stream, .out = stream}),
              flags & EFD_CLOEXEC);
}

void transfer_count(struct tracking *t, struct io_call *c, uint32_t number)
{
    struct stream *s = &t->d->streams.items[number - 1];
    bool reads = io_call_reads(c->no);
    uint64_t waiting = s->written - s->taken;
    if (c->result != 8) { // a vector: of parts
        give_up_stream(t, number, "an eventfd was used in an unusual way");
        return;
    }
    c->transfer = add_transfer(t, number, call_index(t, c), reads, 8, false);
    s = &t->d->streams.items[number - 1];
    if (!reads)
        return;
    struct transfer *r = &s->reads.items[c->transfer - 1];
    if (waiting != 1 && !r->why)
        r->why = "it is the sum of several writes to an eventfd";
    s->taken = s->written;
}
