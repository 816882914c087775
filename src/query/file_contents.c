/* What a file held: its last write, or, where it is mapped to be shared, the last store to the
 * mapping, whichever came later. Mappings of a file are one object in the replay, whose bytes are
 * the file's. */
#include "query/streams_int.h"

#include <sys/syscall.h>

const struct transfer *file_write_at(const struct descriptors *d, const struct stream *s,
                                     uint64_t offset, const struct io_call *reader, uint32_t *len,
                                     const char **why_out)
{
    for (size_t i = s->writes.count; i-- > 0;) {
        const struct transfer *w = &s->writes.items[i];
        const struct io_call *c = &d->io.calls.items[w->call];
        if (moment_cmp(c->at, io_call_end(reader)) >= 0 || c == reader)
            continue;
        if (offset - w->offset < w->len) {
            uint64_t rest = w->len - (offset - w->offset);
            *len = rest < *len ? (uint32_t)rest : *len;
            if (moment_cmp(io_call_end(c), reader->at) > 0)
                *why_out = "it was written to at the same time";
            return w;
        }
        if (w->offset > offset && w->offset - offset < *len) // newer bytes behind it
            *len = (uint32_t)(w->offset - offset);
    }
    return NULL;
}

bool place_of_object(struct replay *r, uint32_t task, uint32_t object, uint64_t offset,
                     uint32_t *space_out, gaddr *addr_out)
{
    size_t count, maps;
    const uint32_t *spaces = replay_spaces(r, &count);
    uint32_t own = 0;
    bool found = false;
    err_free(space_of_task(r, task, &own));
    for (size_t i = 0; i < count; i++) {
        const struct mapping *m = replay_mappings(r, spaces[i], &maps);
        for (size_t k = 0; k < maps; k++) {
            if (!m[k].object || object_uid(m[k].object) != object ||
                offset - m[k].offset >= m[k].end - m[k].start)
                continue;
            if (found && spaces[i] != own)
                continue;
            *space_out = spaces[i];
            *addr_out = m[k].start + (offset - m[k].offset);
            found = true;
            if (spaces[i] == own)
                return true;
        }
    }
    return found;
}

/* Is it what the recorder tells of a mapping's contents, and no store? */
static struct err *is_told(struct query_engine *q, const struct write_hit *hit, bool *out)
{
    const struct db_event *e = NULL;
    if (hit->event)
        TRY(event_at(q, hit->event, &e, NULL));
    *out =
        e && e->kind == FRAME_SYSCALL &&
        (e->syscall_no == SYS_mmap || e->syscall_no == SYS_execve || e->syscall_no == SYS_execveat);
    return NULL;
}

/* The last store to any of the bytes of an object, later than `since`. */
static struct err *last_store(struct query_engine *q, uint32_t object, uint64_t offset,
                              uint32_t len, struct moment before, struct moment since,
                              struct write_hit *out, bool *found_out)
{
    for (bool told = true; told; before = out->moment) {
        TRY(check_cancel(q));
        TRY(last_write(q, 0, object, offset, offset + len, before, out, found_out));
        *found_out = *found_out && moment_cmp(moment_behind_write(out), since) > 0;
        if (!*found_out)
            return NULL;
        TRY(is_told(q, out, &told));
    }
    return NULL;
}

/* The latest store to the byte at offset in any of the file's mappings, if it is later than
 * `since`. */
static struct err *find_store(struct query_engine *q, const struct stream *s, uint64_t offset,
                              struct moment before, struct moment since, uint32_t *len,
                              struct file_origin *out)
{
    uint32_t number = (uint32_t)(s - q->descriptors->streams.items), last = 0;
    for (size_t i = 0; i < s->mappings.count && s->stored_to; i++) {
        const struct io_call *c = &q->descriptors->io.calls.items[s->mappings.items[i].call];
        uint32_t object;
        if (moment_cmp(c->at, before) >= 0)
            break;
        TRY(mapped_object(q, number, i, &object));
        if (!object || object == last)
            continue;
        last = object;
        for (bool found = true; found;) {
            struct write_hit hit;
            TRY(last_store(q, object, offset, *len, before, since, &hit, &found));
            if (!found)
                break;
            if (hit.addr > offset) { // of bytes behind it
                *len = (uint32_t)(hit.addr - offset);
                continue;
            }
            uint64_t rest = hit.addr + hit.size - offset;
            *len = rest < *len ? (uint32_t)rest : *len;
            since = moment_behind_write(&hit);
            *out = (struct file_origin){.stored = true, .store = hit, .object = object};
            break;
        }
    }
    return NULL;
}

struct err *file_origin_of(struct query_engine *q, const struct stream *s, uint64_t offset,
                           const struct io_call *reader, uint32_t *len, struct file_origin *out)
{
    const struct io_call *calls = q->descriptors->io.calls.items;
    struct moment since = {0};
    *out = (struct file_origin){0};
    out->write = file_write_at(q->descriptors, s, offset, reader, len, &out->why);
    if (out->why)
        return NULL;
    if (out->write) {
        out->why = out->write->why    ? out->write->why
                   : out->write->cuts ? "the file was cut off here before, and not written to"
                                      : NULL;
        since = io_call_end(&calls[out->write->call]);
    } else {
        out->why = s->why ? s->why : "no recorded task wrote this part of the file";
    }
    TRY(find_store(q, s, offset, io_call_end(reader), since, len, out));
    if (out->stored && moment_cmp(out->store.moment, reader->at) >= 0)
        out->why = "it was written to at the same time";
    return NULL;
}
