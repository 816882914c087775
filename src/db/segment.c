#include "db/segment.h"

void segment_deinit(struct segment *s)
{
    buf_deinit(&s->state);
    buf_deinit(&s->page_data);
    buf_deinit(&s->output);
    vec_deinit(&s->stacks);
    vec_deinit(&s->floors);
    vec_deinit(&s->execs);
    vec_deinit(&s->forks);
    vec_deinit(&s->blocks);
    vec_deinit(&s->written);
    vec_deinit(&s->remaps);
    vec_deinit(&s->spaces);
    vec_deinit(&s->pages);
    vec_deinit(&s->events);
    vec_deinit(&s->kernel_writes);
    *s = (struct segment){0};
}

/* --- writing --- */

static void put_moment(struct buf *b, struct moment m)
{
    buf_uleb(b, m.event);
    buf_uleb(b, m.icount);
}

static void put_boundary(const struct segment *s, struct buf *b)
{
    put_moment(b, s->start);
    put_moment(b, s->end);
    buf_uleb(b, s->icount_start);
    buf_uleb(b, s->icount);
    buf_uleb(b, s->state.len);
    buf_add(b, s->state.data, s->state.len);
}

static void put_stacks(const struct segment *s, struct buf *b)
{
    buf_uleb(b, s->stacks.count);
    vec_each (c, &s->stacks) {
        buf_uleb(b, c->task);
        put_moment(b, c->at);
        buf_uleb(b, c->block);
        buf_uleb(b, c->return_addr - c->block);
        buf_uleb(b, c->sp);
    }
    buf_uleb(b, s->floors.count);
    vec_each (f, &s->floors) {
        buf_uleb(b, f->task);
        buf_uleb(b, f->start);
        buf_uleb(b, f->end - f->start);
        buf_uleb(b, f->floor);
    }
    buf_uleb(b, s->execs.count);
    vec_each (t, &s->execs)
        buf_uleb(b, *t);
    buf_uleb(b, s->forks.count);
    vec_each (f, &s->forks) {
        buf_uleb(b, f->child);
        buf_uleb(b, f->parent);
    }
}

static void put_blocks(const struct segment *s, struct buf *b)
{
    buf_uleb(b, s->blocks.count);
    gaddr last = 0;
    vec_each (k, &s->blocks) {
        buf_uleb(b, k->space);
        buf_uleb(b, k->pc - last); // wraps when a new space begins
        last = k->pc;
        buf_u8(b, (uint8_t)k->insn_count);
        buf_uleb(b, k->byte_len);
        buf_u8(b, (uint8_t)(k->end << 1 | k->ticks));
        buf_uleb(b, k->count);
    }
}

static void put_written(const struct segment *s, struct buf *b)
{
    buf_uleb(b, s->written.count);
    uint64_t last = 0;
    vec_each (w, &s->written) {
        buf_uleb(b, w->space);
        buf_uleb(b, w->object);
        buf_uleb(b, (w->page - last) / PAGE_SIZE);
        last = w->page;
    }
    vec_each (w, &s->written)
        buf_add(b, w->granules, sizeof(w->granules));
}

static void put_pages(const struct segment *s, struct buf *b)
{
    buf_uleb(b, s->pages.count);
    uint64_t last = 0;
    vec_each (p, &s->pages) {
        buf_uleb(b, p->space);
        buf_uleb(b, p->object);
        buf_uleb(b, (p->page - last) / PAGE_SIZE);
        last = p->page;
        buf_uleb(b, p->data_off == UINT64_MAX ? 0 : p->data_off / PAGE_SIZE + 1);
    }
    buf_uleb(b, s->remaps.count);
    vec_each (r, &s->remaps) {
        buf_uleb(b, r->space);
        buf_uleb(b, r->start / PAGE_SIZE);
        buf_uleb(b, r->end / PAGE_SIZE);
    }
    buf_uleb(b, s->spaces.count);
    vec_each (p, &s->spaces) {
        buf_uleb(b, p->space);
        buf_uleb(b, p->parent);
        put_moment(b, p->at);
    }
}

static void put_events(const struct segment *s, struct buf *b)
{
    buf_uleb(b, s->events.count);
    vec_each (e, &s->events) {
        buf_uleb(b, e->number);
        buf_u8(b, e->kind);
        buf_u8(b, (uint8_t)(e->syscall_state | e->syscall_arch << 4));
        buf_u32(b, (uint32_t)e->syscall_no);
        buf_uleb(b, e->task);
        buf_u64(b, e->result);
        buf_uleb(b, e->icount);
        buf_uleb(b, (uint64_t)e->ticks);
        buf_uleb(b, e->rip);
        uint64_t time;
        memcpy(&time, &e->time, 8);
        buf_u64(b, time);
        buf_u32(b, (uint32_t)e->signo);
        buf_u32(b, (uint32_t)e->si_code);
        buf_uleb(b, e->fault_addr);
        buf_u8(b, e->disposition);
        buf_uleb(b, e->write_count);
        buf_u8(b, e->fd);
        buf_uleb(b, e->output_len);
        buf_uleb(b, e->created_task);
        buf_uleb(b, e->ended_task);
    }
    buf_uleb(b, s->kernel_writes.count);
    vec_each (w, &s->kernel_writes) {
        buf_uleb(b, w->space);
        buf_uleb(b, w->object);
        buf_uleb(b, w->addr);
        buf_uleb(b, w->len);
    }
    buf_uleb(b, s->output.len);
    buf_add(b, s->output.data, s->output.len);
}

static struct err *add_chunk(struct chunk_writer *w, uint32_t kind, const struct segment *s,
                             void (*put)(const struct segment *s, struct buf *b))
{
    cleanup(buf_deinit) struct buf b = {0};
    put(s, &b);
    return chunk_writer_add(w, kind, &b);
}

static struct err *write_chunks(struct chunk_writer *w, const struct segment *s)
{
    TRY(add_chunk(w, CHUNK_BOUNDARY, s, put_boundary));
    TRY(add_chunk(w, CHUNK_BLOCKS, s, put_blocks));
    TRY(add_chunk(w, CHUNK_WRITTEN, s, put_written));
    TRY(add_chunk(w, CHUNK_PAGES, s, put_pages));
    TRY(add_chunk(w, CHUNK_EVENTS, s, put_events));
    TRY(add_chunk(w, CHUNK_STACKS, s, put_stacks));
    for (size_t off = 0; off < s->page_data.len;) {
        size_t len = s->page_data.len - off;
        if (len > (size_t)PAGES_PER_CHUNK * PAGE_SIZE)
            len = (size_t)PAGES_PER_CHUNK * PAGE_SIZE;
        struct buf part = {.data = s->page_data.data + off, .len = len};
        TRY(chunk_writer_add(w, CHUNK_PAGE_DATA, &part));
        off += len;
    }
    return NULL;
}

struct err *segment_write(const struct segment *s, const char *path, int level, uint64_t *bytes_out)
{
    struct chunk_writer *w;
    TRY(chunk_writer_create(path, level, &w));
    struct err *e = write_chunks(w, s);
    if (e) {
        chunk_writer_abandon(w);
        return e;
    }
    return chunk_writer_finish(w, bytes_out);
}

struct err *segment_write_stacks(const struct segment *s, const char *path, int level)
{
    struct chunk_writer *w;
    TRY(chunk_writer_create(path, level, &w));
    struct err *e = add_chunk(w, CHUNK_STACKS, s, put_stacks);
    if (e) {
        chunk_writer_abandon(w);
        return e;
    }
    return chunk_writer_finish(w, NULL);
}

/* --- reading --- */

static struct moment get_moment(struct bytes *b)
{
    struct moment m;
    m.event = bytes_uleb(b);
    m.icount = bytes_uleb(b);
    return m;
}

static void get_boundary(struct bytes *b, struct segment *s)
{
    s->start = get_moment(b);
    s->end = get_moment(b);
    s->icount_start = bytes_uleb(b);
    s->icount = bytes_uleb(b);
    size_t len = bytes_count(b, 1);
    const uint8_t *state = bytes_take(b, len);
    if (state)
        buf_add(&s->state, state, len);
}

static void get_stacks(struct bytes *b, struct segment *s)
{
    for (size_t n = bytes_count(b, 6); n; n--) {
        struct db_call c;
        c.task = (uint32_t)bytes_uleb(b);
        c.at = get_moment(b);
        c.block = bytes_uleb(b);
        c.return_addr = c.block + bytes_uleb(b);
        c.sp = bytes_uleb(b);
        vec_push(&s->stacks, c);
    }
    for (size_t n = bytes_count(b, 3); n; n--) {
        struct db_floor f;
        f.task = (uint32_t)bytes_uleb(b);
        f.start = bytes_uleb(b);
        f.end = f.start + bytes_uleb(b);
        f.floor = bytes_uleb(b);
        vec_push(&s->floors, f);
    }
    for (size_t n = bytes_count(b, 1); n; n--)
        vec_push(&s->execs, (uint32_t)bytes_uleb(b));
    for (size_t n = bytes_count(b, 2); n; n--) {
        struct db_fork f;
        f.child = (uint32_t)bytes_uleb(b);
        f.parent = (uint32_t)bytes_uleb(b);
        vec_push(&s->forks, f);
    }
}

static void get_blocks(struct bytes *b, struct segment *s)
{
    gaddr last = 0;
    for (size_t n = bytes_count(b, 6); n; n--) {
        struct db_block k;
        k.space = (uint32_t)bytes_uleb(b);
        last += bytes_uleb(b);
        k.pc = last;
        k.insn_count = bytes_u8(b);
        k.byte_len = (uint16_t)bytes_uleb(b);
        uint8_t bits = bytes_u8(b);
        k.end = bits >> 1;
        k.ticks = bits & 1;
        k.count = bytes_uleb(b);
        vec_push(&s->blocks, k);
    }
}

static void get_written(struct bytes *b, struct segment *s)
{
    uint64_t last = 0;
    for (size_t n = bytes_count(b, 3 + 64); n; n--) {
        struct db_written w = {0};
        w.space = (uint32_t)bytes_uleb(b);
        w.object = (uint32_t)bytes_uleb(b);
        last += bytes_uleb(b) * PAGE_SIZE;
        w.page = last;
        vec_push(&s->written, w);
    }
    vec_each (w, &s->written) {
        const uint8_t *bits = bytes_take(b, sizeof(w->granules));
        if (bits)
            memcpy(w->granules, bits, sizeof(w->granules));
    }
}

static void get_pages(struct bytes *b, struct segment *s)
{
    uint64_t last = 0;
    for (size_t n = bytes_count(b, 4); n; n--) {
        struct db_page p;
        p.space = (uint32_t)bytes_uleb(b);
        p.object = (uint32_t)bytes_uleb(b);
        last += bytes_uleb(b) * PAGE_SIZE;
        p.page = last;
        uint64_t data = bytes_uleb(b);
        p.data_off = data ? (data - 1) * PAGE_SIZE : UINT64_MAX;
        vec_push(&s->pages, p);
    }
    for (size_t n = bytes_count(b, 3); n; n--) {
        struct db_remap r;
        r.space = (uint32_t)bytes_uleb(b);
        r.start = bytes_uleb(b) * PAGE_SIZE;
        r.end = bytes_uleb(b) * PAGE_SIZE;
        vec_push(&s->remaps, r);
    }
    for (size_t n = bytes_count(b, 4); n; n--) {
        struct db_space p;
        p.space = (uint32_t)bytes_uleb(b);
        p.parent = (uint32_t)bytes_uleb(b);
        p.at = get_moment(b);
        vec_push(&s->spaces, p);
    }
}

static void get_events(struct bytes *b, struct segment *s)
{
    uint32_t write_idx = 0;
    uint64_t output = 0;
    for (size_t n = bytes_count(b, 40); n; n--) {
        struct db_event e = {0};
        e.number = bytes_uleb(b);
        e.kind = bytes_u8(b);
        uint8_t bits = bytes_u8(b);
        e.syscall_state = bits & 15;
        e.syscall_arch = bits >> 4;
        e.syscall_no = (int32_t)bytes_u32(b);
        e.task = (uint32_t)bytes_uleb(b);
        e.result = bytes_u64(b);
        e.icount = bytes_uleb(b);
        e.ticks = (int64_t)bytes_uleb(b);
        e.rip = bytes_uleb(b);
        uint64_t time = bytes_u64(b);
        memcpy(&e.time, &time, 8);
        e.signo = (int32_t)bytes_u32(b);
        e.si_code = (int32_t)bytes_u32(b);
        e.fault_addr = bytes_uleb(b);
        e.disposition = bytes_u8(b);
        e.write_count = (uint32_t)bytes_uleb(b);
        e.fd = bytes_u8(b);
        e.output_len = (uint32_t)bytes_uleb(b);
        e.created_task = (uint32_t)bytes_uleb(b);
        e.ended_task = (uint32_t)bytes_uleb(b);
        e.write_idx = write_idx;
        write_idx += e.write_count;
        e.output_off = (uint32_t)output;
        output += e.output_len;
        vec_push(&s->events, e);
    }
    for (size_t n = bytes_count(b, 4); n; n--) {
        struct db_kernel_write w;
        w.space = (uint32_t)bytes_uleb(b);
        w.object = (uint32_t)bytes_uleb(b);
        w.addr = bytes_uleb(b);
        w.len = bytes_uleb(b);
        vec_push(&s->kernel_writes, w);
    }
    size_t len = bytes_count(b, 1);
    const uint8_t *text = bytes_take(b, len);
    if (text)
        buf_add(&s->output, text, len);
    if (write_idx != s->kernel_writes.count || output != s->output.len)
        b->failed = true;
}

static struct err *read_chunk(struct chunk_file *f, uint32_t kind, struct segment *s,
                              void (*get)(struct bytes *b, struct segment *s))
{
    cleanup(buf_deinit) struct buf data = {0};
    TRY(chunk_file_read(f, kind, &data));
    struct bytes b = bytes_of(data.data, data.len);
    get(&b, s);
    if (b.failed || bytes_left(&b))
        return err_new(ERR_FORMAT, "%s: chunk of kind %u breaks its format at %#zx", chunk_file_path(f), kind, b.pos);
    return NULL;
}

struct err *segment_read(struct chunk_file *f, enum segment_part part, struct segment *s)
{
    switch (part) {
    case PART_BOUNDARY:
        return read_chunk(f, CHUNK_BOUNDARY, s, get_boundary);
    case PART_BLOCKS:
        return read_chunk(f, CHUNK_BLOCKS, s, get_blocks);
    case PART_WRITTEN:
        return read_chunk(f, CHUNK_WRITTEN, s, get_written);
    case PART_PAGES:
        return read_chunk(f, CHUNK_PAGES, s, get_pages);
    case PART_EVENTS:
        return read_chunk(f, CHUNK_EVENTS, s, get_events);
    case PART_STACKS:
        return read_chunk(f, CHUNK_STACKS, s, get_stacks);
    }
    return NULL;
}

struct err *segment_read_page_data(struct chunk_file *f, size_t idx, struct buf *out)
{
    return chunk_file_read_nth(f, CHUNK_PAGE_DATA, idx, out);
}
