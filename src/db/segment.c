#include "db/segment.h"

#include "db/page_coder.h"

#include <xxhash.h>

void segment_deinit(struct segment *s)
{
    buf_deinit(&s->state);
    vec_deinit(&s->stacks);
    vec_deinit(&s->floors);
    vec_deinit(&s->forks);
    vec_deinit(&s->execs);
    vec_deinit(&s->ends);
    vec_deinit(&s->blocks);
    vec_deinit(&s->written);
    vec_deinit(&s->pages);
    vec_deinit(&s->runs);
    vec_deinit(&s->remaps);
    vec_deinit(&s->spaces);
    vec_deinit(&s->events);
    vec_deinit(&s->kernel_writes);
    buf_deinit(&s->output);
    vec_deinit(&s->buffered_calls);
    vec_deinit(&s->call_texts);
    buf_deinit(&s->call_text);
    *s = (struct segment){0};
}

/* --- tables --- */

static const struct column call_columns[] = {
    COLUMN(struct db_call, task),
    COLUMN(struct db_call, at.event),
    COLUMN(struct db_call, at.icount),
    COLUMN(struct db_call, block),
    COLUMN_ON(struct db_call, return_addr, block),
    COLUMN(struct db_call, sp),
};
const struct table db_call_table = TABLE(struct db_call, call_columns);

static const struct column floor_columns[] = {
    COLUMN(struct db_floor, task),
    COLUMN(struct db_floor, start),
    COLUMN_ON(struct db_floor, end, start),
    COLUMN_ON(struct db_floor, floor, start),
};
static const struct table floor_table = TABLE(struct db_floor, floor_columns);

static const struct column fork_columns[] = {COLUMN(struct db_fork, child),
                                             COLUMN(struct db_fork, parent)};
static const struct table fork_table = TABLE(struct db_fork, fork_columns);

static const struct column task_columns[] = {{0, 0, sizeof(uint32_t), FROM_ABOVE}};
static const struct table task_table = TABLE(uint32_t, task_columns);

static const struct column block_columns[] = {
    COLUMN(struct db_block, space),
    COLUMN(struct db_block, pc),
    COLUMN_PLAIN(struct db_block, insn_count),
    COLUMN_PLAIN(struct db_block, byte_len),
    COLUMN_PLAIN(struct db_block, end),
    COLUMN_PLAIN(struct db_block, ticks),
    COLUMN_PLAIN(struct db_block, count),
};
static const struct table block_table = TABLE(struct db_block, block_columns);

/* Of written pages; the granules are apart. */
static const struct column written_columns[] = {
    COLUMN(struct db_written, space),
    COLUMN(struct db_written, object),
    COLUMN(struct db_written, page),
};
static const struct table written_table = TABLE(struct db_written, written_columns);

static const struct column run_columns[] = {
    COLUMN(struct db_page_run, space), COLUMN(struct db_page_run, object),
    COLUMN(struct db_page_run, page),  COLUMN_PLAIN(struct db_page_run, count),
    COLUMN(struct db_page_run, first), COLUMN_PLAIN(struct db_page_run, kind),
};
const struct table db_page_run_table = TABLE(struct db_page_run, run_columns);

static const struct column remap_columns[] = {
    COLUMN(struct db_remap, space),
    COLUMN(struct db_remap, start),
    COLUMN_ON(struct db_remap, end, start),
};
const struct table db_remap_table = TABLE(struct db_remap, remap_columns);

static const struct column space_columns[] = {
    COLUMN(struct db_space, space),
    COLUMN(struct db_space, parent),
    COLUMN(struct db_space, at.event),
    COLUMN(struct db_space, at.icount),
};
const struct table db_space_table = TABLE(struct db_space, space_columns);

static const struct column event_columns[] = {
    COLUMN(struct db_event, number),
    COLUMN_PLAIN(struct db_event, kind),
    COLUMN_PLAIN(struct db_event, syscall_state),
    COLUMN_PLAIN(struct db_event, syscall_arch),
    COLUMN_PLAIN(struct db_event, syscall_no),
    COLUMN(struct db_event, task),
    COLUMN_PLAIN(struct db_event, result),
    COLUMN_PLAIN(struct db_event, icount),
    COLUMN(struct db_event, ticks),
    COLUMN(struct db_event, rip),
    COLUMN(struct db_event, time),
    COLUMN_PLAIN(struct db_event, signo),
    COLUMN_PLAIN(struct db_event, si_code),
    COLUMN_PLAIN(struct db_event, fault_addr),
    COLUMN_PLAIN(struct db_event, disposition),
    COLUMN_PLAIN(struct db_event, write_count),
    COLUMN_PLAIN(struct db_event, fd),
    COLUMN_PLAIN(struct db_event, output_len),
    COLUMN_PLAIN(struct db_event, created_task),
    COLUMN_PLAIN(struct db_event, ended_task),
};
static const struct table event_table = TABLE(struct db_event, event_columns);

static const struct column kernel_write_columns[] = {
    COLUMN(struct db_kernel_write, space),
    COLUMN(struct db_kernel_write, object),
    COLUMN(struct db_kernel_write, addr),
    COLUMN_PLAIN(struct db_kernel_write, len),
};
static const struct table kernel_write_table = TABLE(struct db_kernel_write, kernel_write_columns);

static const struct column buffered_call_columns[] = {
    COLUMN(struct db_buffered_call, at.event), COLUMN(struct db_buffered_call, at.icount),
    COLUMN(struct db_buffered_call, space),    COLUMN_PLAIN(struct db_buffered_call, no),
    COLUMN(struct db_buffered_call, args[0]),  COLUMN(struct db_buffered_call, args[1]),
    COLUMN(struct db_buffered_call, args[2]),  COLUMN(struct db_buffered_call, args[3]),
    COLUMN(struct db_buffered_call, args[4]),  COLUMN(struct db_buffered_call, args[5]),
    COLUMN(struct db_buffered_call, header),   COLUMN(struct db_buffered_call, recorded),
};
static const struct table buffered_call_table =
    TABLE(struct db_buffered_call, buffered_call_columns);

static const struct column call_text_columns[] = {
    COLUMN(struct db_call_text, at.event),
    COLUMN(struct db_call_text, at.icount),
    COLUMN_PLAIN(struct db_call_text, idx),
    COLUMN_PLAIN(struct db_call_text, len),
};
static const struct table call_text_table = TABLE(struct db_call_text, call_text_columns);

#define PUT(b, table, vec) table_put(&(table), (vec).items, (vec).count, b)

/* --- writing --- */

/* A page that is stored whole, so that equal ones need not be. */
struct known_page {
    XXH128_hash_t hash;
    uint32_t idx; /* in the page data; UINT32_MAX: free */
};

struct segment_writer {
    struct chunk_writer *file;
    uint64_t number;
    struct segment *segment;
    uint32_t stored; /* pages in the page data, those that wait included */
    struct page_image waiting[PAGES_PER_CHUNK]; /* until there are enough of them for a chunk */
    size_t waiting_count;
    struct page_coder *coder;
    struct buf chunk;
    struct known_page *known; /* hash table */
    size_t known_cap, known_count;
};

static void segment_writer_deinit(struct segment_writer *w)
{
    chunk_writer_abandon(w->file);
    page_coder_destroy(w->coder);
    buf_deinit(&w->chunk);
    free(w->known);
}

static struct err *flush_pages(struct segment_writer *w)
{
    if (!w->waiting_count)
        return NULL;
    w->chunk.len = 0;
    page_chunk_encode(w->coder, w->waiting, w->waiting_count, &w->chunk);
    w->waiting_count = 0;
    return chunk_writer_add(w->file, CHUNK_PAGE_DATA, &w->chunk);
}

/* Adds a page to the page data; *idx_out is its number there. */
static struct err *store_page(struct segment_writer *w, const uint8_t *now, const uint8_t *before,
                              uint32_t *idx_out)
{
    if (w->waiting_count == PAGES_PER_CHUNK)
        TRY(flush_pages(w));
    w->waiting[w->waiting_count++] = (struct page_image){now, before};
    *idx_out = w->stored++;
    return NULL;
}

/* Where a page with this hash is, or is to be noted. */
static struct known_page *find_known(struct segment_writer *w, XXH128_hash_t hash)
{
    if (w->known_count * 2 >= w->known_cap) {
        struct known_page *old = w->known;
        size_t old_cap = w->known_cap;
        w->known_cap = old_cap ? 2 * old_cap : 256;
        w->known = xmalloc(w->known_cap * sizeof(w->known[0]));
        memset(w->known, 0xff, w->known_cap * sizeof(w->known[0]));
        for (size_t i = 0; i < old_cap; i++) {
            if (old[i].idx != UINT32_MAX)
                *find_known(w, old[i].hash) = old[i];
        }
        free(old);
    }
    for (size_t i = hash.low64;; i++) {
        struct known_page *k = &w->known[i & (w->known_cap - 1)];
        if (k->idx == UINT32_MAX || XXH128_isEqual(k->hash, hash))
            return k;
    }
}

/* A page that changes in every segment is stored whole in one of so many, so that its contents can
 * be had from few segments. */
enum { WHOLE_EVERY = 16 };
static bool whole_is_due(const struct segment_writer *w, const struct db_page *p)
{
    return (w->number + p->space + p->object + p->page / PAGE_SIZE) % WHOLE_EVERY == 0;
}

static void add_to_runs(struct segment *s, struct db_page_run page)
{
    struct db_page_run *last = s->runs.count ? &s->runs.items[s->runs.count - 1] : NULL;
    if (last && last->space == page.space && last->object == page.object &&
        last->kind == page.kind && last->page + (uint64_t)last->count * PAGE_SIZE == page.page &&
        (page.kind == RUN_ZERO || last->first + last->count == page.first))
        last->count++;
    else
        vec_push(&s->runs, page);
}

static struct err *write_page(struct segment_writer *w, const struct db_page *p)
{
    struct db_page_run run = {.space = p->space, .object = p->object, .page = p->page, .count = 1};
    enum page_form form = page_form(p->now, p->before);
    if (form == PAGE_WORDS && whole_is_due(w, p))
        form = PAGE_WHOLE;
    switch (form) {
    case PAGE_SAME:
        return NULL;
    case PAGE_ZERO:
        run.kind = RUN_ZERO;
        break;
    case PAGE_WORDS:
        run.kind = RUN_WORDS;
        TRY(store_page(w, p->now, p->before, &run.first));
        break;
    case PAGE_WHOLE: {
        run.kind = RUN_WHOLE;
        XXH128_hash_t hash = XXH3_128bits(p->now, PAGE_SIZE);
        struct known_page *known = find_known(w, hash);
        if (known->idx == UINT32_MAX) {
            TRY(store_page(w, p->now, NULL, &run.first));
            *known = (struct known_page){hash, run.first};
            w->known_count++;
        } else {
            run.first = known->idx;
        }
        break;
    }
    }
    add_to_runs(w->segment, run);
    return NULL;
}

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
    PUT(b, db_call_table, s->stacks);
    PUT(b, floor_table, s->floors);
    PUT(b, fork_table, s->forks);
    PUT(b, task_table, s->execs);
    PUT(b, task_table, s->ends);
}

static void put_blocks(const struct segment *s, struct buf *b)
{
    PUT(b, block_table, s->blocks);
}

static bool all_written(const struct db_written *w)
{
    uint64_t bits = UINT64_MAX;
    for (size_t i = 0; i < 8; i++)
        bits &= w->granules[i];
    return bits == UINT64_MAX;
}

static void put_written(const struct segment *s, struct buf *b)
{
    PUT(b, written_table, s->written);
    for (size_t i = 0; i < s->written.count; i += 8) {
        uint8_t bits = 0;
        for (size_t k = i; k < i + 8 && k < s->written.count; k++)
            bits |= (uint8_t)(all_written(&s->written.items[k]) << (k - i));
        buf_u8(b, bits);
    }
    vec_each (w, &s->written) {
        if (!all_written(w))
            buf_add(b, w->granules, sizeof(w->granules));
    }
}

static void put_pages(const struct segment *s, struct buf *b)
{
    PUT(b, db_page_run_table, s->runs);
    PUT(b, db_remap_table, s->remaps);
    PUT(b, db_space_table, s->spaces);
}

static void put_events(const struct segment *s, struct buf *b)
{
    PUT(b, event_table, s->events);
    PUT(b, kernel_write_table, s->kernel_writes);
    buf_uleb(b, s->output.len);
    buf_add(b, s->output.data, s->output.len);
}

static void put_calls(const struct segment *s, struct buf *b)
{
    PUT(b, buffered_call_table, s->buffered_calls);
    PUT(b, call_text_table, s->call_texts);
    buf_uleb(b, s->call_text.len);
    buf_add(b, s->call_text.data, s->call_text.len);
}

static int compare_remaps(const void *a, const void *b)
{
    const struct db_remap *x = a, *y = b;
    if (x->space != y->space)
        return x->space < y->space ? -1 : 1;
    return x->start < y->start ? -1 : x->start > y->start;
}

void segment_merge_remaps(struct segment *s)
{
    if (!s->remaps.count)
        return;
    qsort(s->remaps.items, s->remaps.count, sizeof(s->remaps.items[0]), compare_remaps);
    struct db_remap *last = s->remaps.items;
    for (size_t i = 1; i < s->remaps.count; i++) {
        const struct db_remap *r = &s->remaps.items[i];
        if (r->space != last->space || r->start > last->end)
            *++last = *r;
        else if (r->end > last->end)
            last->end = r->end;
    }
    s->remaps.count = (size_t)(last - s->remaps.items) + 1;
}

static struct err *add_chunk(struct chunk_writer *w, uint32_t kind, const struct segment *s,
                             void (*put)(const struct segment *s, struct buf *b))
{
    cleanup(buf_deinit) struct buf b = {0};
    put(s, &b);
    return chunk_writer_add(w, kind, &b);
}

static struct err *write_chunks(struct segment_writer *w, const struct segment *s)
{
    vec_each (p, &s->pages)
        TRY(write_page(w, p));
    TRY(flush_pages(w));
    TRY(add_chunk(w->file, CHUNK_BOUNDARY, s, put_boundary));
    TRY(add_chunk(w->file, CHUNK_BLOCKS, s, put_blocks));
    TRY(add_chunk(w->file, CHUNK_WRITTEN, s, put_written));
    TRY(add_chunk(w->file, CHUNK_PAGES, s, put_pages));
    TRY(add_chunk(w->file, CHUNK_EVENTS, s, put_events));
    TRY(add_chunk(w->file, CHUNK_STACKS, s, put_stacks));
    return add_chunk(w->file, CHUNK_CALLS, s, put_calls);
}

struct err *segment_write(const char *path, uint64_t build, uint64_t number, int level,
                          struct segment *s)
{
    cleanup(segment_writer_deinit) struct segment_writer w = {.number = number, .segment = s};
    TRY(chunk_writer_create(path, (struct file_id){build, FILE_SEGMENT, number}, level, &w.file));
    w.coder = page_coder_create();
    s->runs.count = 0;
    TRY(write_chunks(&w, s));
    return chunk_writer_finish(steal(w.file));
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
    table_get_vec(&db_call_table, b, &s->stacks);
    table_get_vec(&floor_table, b, &s->floors);
    table_get_vec(&fork_table, b, &s->forks);
    table_get_vec(&task_table, b, &s->execs);
    table_get_vec(&task_table, b, &s->ends);
}

static void get_blocks(struct bytes *b, struct segment *s)
{
    table_get_vec(&block_table, b, &s->blocks);
}

static void get_written(struct bytes *b, struct segment *s)
{
    table_get_vec(&written_table, b, &s->written);
    const uint8_t *full = bytes_take(b, (s->written.count + 7) / 8);
    for (size_t i = 0; full && i < s->written.count; i++) {
        struct db_written *w = &s->written.items[i];
        if (full[i / 8] >> i % 8 & 1) {
            memset(w->granules, 0xff, sizeof(w->granules));
            continue;
        }
        const uint8_t *bits = bytes_take(b, sizeof(w->granules));
        if (bits)
            memcpy(w->granules, bits, sizeof(w->granules));
    }
}

static const uint64_t address_limit = 1ull << 48;

bool page_runs_are_sound(const struct db_page_run *runs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct db_page_run *r = &runs[i], *last = i ? r - 1 : NULL;
        if (r->page % PAGE_SIZE || r->page >= address_limit || !r->count ||
            r->count > (address_limit - r->page) / PAGE_SIZE || r->kind > RUN_WORDS ||
            r->first > UINT32_MAX - r->count)
            return false;
        if (last &&
            (last->object > r->object || (last->object == r->object && last->space > r->space) ||
             (last->object == r->object && last->space == r->space &&
              last->page + (uint64_t)last->count * PAGE_SIZE > r->page)))
            return false;
    }
    return true;
}

bool remaps_are_sound(const struct db_remap *remaps, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct db_remap *r = &remaps[i], *last = i ? r - 1 : NULL;
        if (r->start > r->end || r->end > address_limit ||
            (last && (last->space > r->space || (last->space == r->space && last->end > r->start))))
            return false;
    }
    return true;
}

static void get_pages(struct bytes *b, struct segment *s)
{
    table_get_vec(&db_page_run_table, b, &s->runs);
    table_get_vec(&db_remap_table, b, &s->remaps);
    table_get_vec(&db_space_table, b, &s->spaces);
    if (!page_runs_are_sound(s->runs.items, s->runs.count) ||
        !remaps_are_sound(s->remaps.items, s->remaps.count))
        b->failed = true;
}

static void get_events(struct bytes *b, struct segment *s)
{
    table_get_vec(&event_table, b, &s->events);
    table_get_vec(&kernel_write_table, b, &s->kernel_writes);
    size_t len = bytes_count(b, 1);
    const uint8_t *text = bytes_take(b, len);
    if (text)
        buf_add(&s->output, text, len);
    uint64_t writes = 0, output = 0;
    vec_each (e, &s->events) {
        e->write_idx = (uint32_t)writes;
        e->output_off = (uint32_t)output;
        writes += e->write_count;
        output += e->output_len;
    }
    if (writes != s->kernel_writes.count || output != s->output.len)
        b->failed = true;
}

static void get_calls(struct bytes *b, struct segment *s)
{
    table_get_vec(&buffered_call_table, b, &s->buffered_calls);
    table_get_vec(&call_text_table, b, &s->call_texts);
    size_t len = bytes_count(b, 1);
    const uint8_t *text = bytes_take(b, len);
    if (text)
        buf_add(&s->call_text, text, len);
    uint64_t total = 0;
    vec_each (t, &s->call_texts) {
        t->off = (uint32_t)total;
        total += t->len;
    }
    if (total != s->call_text.len)
        b->failed = true;
}

struct err *segment_file_open(int dir, const char *name, const char *shown, uint64_t build,
                              uint64_t number, struct chunk_file **out)
{
    return chunk_file_open(dir, name, shown, (struct file_id){build, FILE_SEGMENT, number}, out);
}

struct err *segment_read(const struct chunk_file *f, enum segment_part part, struct segment *s)
{
    static const struct {
        uint32_t kind;
        void (*get)(struct bytes *b, struct segment *s);
    } parts[] = {
        [PART_BOUNDARY] = {CHUNK_BOUNDARY, get_boundary},
        [PART_BLOCKS] = {CHUNK_BLOCKS, get_blocks},
        [PART_WRITTEN] = {CHUNK_WRITTEN, get_written},
        [PART_PAGES] = {CHUNK_PAGES, get_pages},
        [PART_EVENTS] = {CHUNK_EVENTS, get_events},
        [PART_STACKS] = {CHUNK_STACKS, get_stacks},
        [PART_CALLS] = {CHUNK_CALLS, get_calls},
    };
    cleanup(buf_deinit) struct buf data = {0};
    TRY(chunk_file_read(f, parts[part].kind, 0, &data));
    struct bytes b = bytes_of(data.data, data.len);
    parts[part].get(&b, s);
    return b.failed || bytes_left(&b) ? chunk_file_bad(f, parts[part].kind, 0, b.pos) : NULL;
}

/* --- comparing --- */

static const struct column granule_columns[] = {
    COLUMN(struct db_written, space),       COLUMN(struct db_written, object),
    COLUMN(struct db_written, page),        COLUMN(struct db_written, granules[0]),
    COLUMN(struct db_written, granules[1]), COLUMN(struct db_written, granules[2]),
    COLUMN(struct db_written, granules[3]), COLUMN(struct db_written, granules[4]),
    COLUMN(struct db_written, granules[5]), COLUMN(struct db_written, granules[6]),
    COLUMN(struct db_written, granules[7]),
};
static const struct table granule_table = TABLE(struct db_written, granule_columns);

char *segment_difference(const struct segment *a, const struct segment *b)
{
#define VECS(member) a->member.items, a->member.count, b->member.items, b->member.count
    size_t row = table_difference(&event_table, VECS(events));
    if (row != SIZE_MAX)
        return str_format(
            "event %llu",
            (unsigned long long)(row < a->events.count ? a : b)->events.items[row].number);
    row = table_difference(&block_table, VECS(blocks));
    if (row != SIZE_MAX)
        return str_format(
            "executions of the block at %#llx",
            (unsigned long long)(row < a->blocks.count ? a : b)->blocks.items[row].pc);
    row = table_difference(&granule_table, VECS(written));
    if (row != SIZE_MAX)
        return str_format(
            "written bytes of the page at %#llx",
            (unsigned long long)(row < a->written.count ? a : b)->written.items[row].page);
    row = table_difference(&db_remap_table, VECS(remaps));
    if (row != SIZE_MAX)
        return str_format(
            "the mapping at %#llx",
            (unsigned long long)(row < a->remaps.count ? a : b)->remaps.items[row].start);
    row = table_difference(&db_call_table, VECS(stacks));
    if (row != SIZE_MAX)
        return str_format(
            "the call at %#llx",
            (unsigned long long)(row < a->stacks.count ? a : b)->stacks.items[row].return_addr);
    const struct {
        const char *what;
        size_t row;
    } others[] = {
        {"the writes of system calls", table_difference(&kernel_write_table, VECS(kernel_writes))},
        {"the spaces that began", table_difference(&db_space_table, VECS(spaces))},
        {"how far stacks came down", table_difference(&floor_table, VECS(floors))},
        {"the forks", table_difference(&fork_table, VECS(forks))},
        {"the execs", table_difference(&task_table, VECS(execs))},
        {"the tasks that ended", table_difference(&task_table, VECS(ends))},
        {"the buffered system calls", table_difference(&buffered_call_table, VECS(buffered_calls))},
        {"what arguments of system calls point to",
         table_difference(&call_text_table, VECS(call_texts))},
        {"the paths of system calls",
         a->call_text.len == b->call_text.len &&
                 memcmp(a->call_text.data, b->call_text.data, a->call_text.len) == 0
             ? SIZE_MAX
             : 0},
        {"the state at its start",
         a->state.len == b->state.len && memcmp(a->state.data, b->state.data, a->state.len) == 0
             ? SIZE_MAX
             : 0},
        {"the output", a->output.len == b->output.len &&
                               memcmp(a->output.data, b->output.data, a->output.len) == 0
                           ? SIZE_MAX
                           : 0},
    };
#undef VECS
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (others[i].row != SIZE_MAX)
            return xstrdup(others[i].what);
    }
    return NULL;
}
