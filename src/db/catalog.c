#include "db/catalog.h"

void catalog_deinit(struct catalog *c)
{
    vec_deinit(&c->segments);
    vec_deinit(&c->places);
    vec_deinit(&c->blocks);
    vec_deinit(&c->runs);
    vec_deinit(&c->page_runs);
    vec_deinit(&c->changed);
    vec_deinit(&c->remaps);
    vec_deinit(&c->spaces);
    vec_deinit(&c->space_segments);
    vec_each (b, &c->stacks)
        buf_deinit(b);
    vec_deinit(&c->stacks);
}

/* --- calls --- */

/* Keeps the calls which `over` does not say are over. */
static void drop_calls(call_list *calls, bool (*over)(const void *ctx, const struct db_call *c),
                       const void *ctx)
{
    size_t kept = 0;
    for (size_t i = 0; i < calls->count; i++) {
        if (!over(ctx, &calls->items[i]))
            calls->items[kept++] = calls->items[i];
    }
    calls->count = kept;
}

static bool is_of_task(const void *ctx, const struct db_call *c)
{
    return c->task == *(const uint32_t *)ctx;
}

static bool is_below_floor(const void *ctx, const struct db_call *c)
{
    const struct db_floor *f = ctx;
    return c->task == f->task && c->sp >= f->start && c->sp < f->end && c->sp <= f->floor;
}

/* A process made by fork begins with its parent's calls; what it and, before the fork, the parent
 * did since the segment began is in its own record of the segment. */
static void inherit_calls(call_list *calls, const struct db_fork *f)
{
    size_t count = calls->count;
    for (size_t i = 0; i < count; i++) {
        struct db_call c = calls->items[i];
        if (c.task != f->parent)
            continue;
        c.task = f->child;
        vec_push(calls, c);
    }
}

void compose_calls(call_list *calls, const struct segment *s)
{
    vec_each (f, &s->forks)
        inherit_calls(calls, f);
    vec_each (task, &s->execs)
        drop_calls(calls, is_of_task, task);
    vec_each (f, &s->floors)
        drop_calls(calls, is_below_floor, f);
    vec_each (c, &s->stacks)
        vec_push(calls, *c);
    vec_each (task, &s->ends)
        drop_calls(calls, is_of_task, task);
}

/* --- making --- */

/* A block of a segment. */
struct block_use {
    struct db_block block;
    uint32_t segment;
};
struct making {
    struct catalog *catalog;
    VEC(struct block_use) uses;
    call_list calls; /* at the end of what was read so far */
};

static struct err *read_parts(const struct chunk_file *f, struct segment *s)
{
    TRY(segment_read(f, PART_BOUNDARY, s));
    TRY(segment_read(f, PART_BLOCKS, s));
    TRY(segment_read(f, PART_PAGES, s));
    return segment_read(f, PART_STACKS, s);
}

static struct err *add_segment(struct making *m, const struct chunk_file *f, uint32_t idx)
{
    struct catalog *c = m->catalog;
    cleanup(segment_deinit) struct segment s = {0};
    TRY(read_parts(f, &s));
    vec_push(&c->segments, (struct history_segment){s.start, s.end, s.icount_start, s.icount});
    vec_push(&c->places, (struct catalog_place){c->page_runs.count, c->remaps.count, 0});
    vec_each (b, &s.blocks)
        vec_push(&m->uses, (struct block_use){*b, idx});
    vec_each (r, &s.runs)
        vec_push(&c->page_runs, *r);
    vec_each (r, &s.remaps)
        vec_push(&c->remaps, *r);
    vec_each (p, &s.spaces) {
        vec_push(&c->spaces, *p);
        vec_push(&c->space_segments, idx);
    }
    if (idx % STACKS_EVERY == 0)
        table_put(&db_call_table, m->calls.items, m->calls.count, vec_add(&c->stacks));
    compose_calls(&m->calls, &s);
    return NULL;
}

static int compare_uses(const void *a, const void *b)
{
    const struct block_use *x = a, *y = b;
    if (x->block.space != y->block.space)
        return x->block.space < y->block.space ? -1 : 1;
    if (x->block.pc != y->block.pc)
        return x->block.pc < y->block.pc ? -1 : 1;
    if (x->block.byte_len != y->block.byte_len)
        return x->block.byte_len < y->block.byte_len ? -1 : 1;
    return x->segment < y->segment ? -1 : x->segment > y->segment;
}

/* From the blocks of each segment to the segments of each block. */
static void invert_blocks(struct making *m)
{
    struct catalog *c = m->catalog;
    if (m->uses.count)
        qsort(m->uses.items, m->uses.count, sizeof(m->uses.items[0]), compare_uses);
    vec_each (u, &m->uses) {
        const struct db_block *b = &u->block;
        struct history_block *last = c->blocks.count ? &c->blocks.items[c->blocks.count - 1] : NULL;
        if (!last || last->space != b->space || last->pc != b->pc ||
            last->byte_len != b->byte_len) {
            vec_push(&c->blocks,
                     (struct history_block){b->space, b->pc, b->insn_count, b->byte_len, b->end,
                                            b->ticks, (uint32_t)c->runs.count, 0, 0});
            last = &c->blocks.items[c->blocks.count - 1];
        }
        last->run_count++;
        last->total += b->count;
        vec_push(&c->runs, (struct history_run){u->segment, b->count});
    }
}

static struct err *read_all(struct making *m, int dir, const char *shown, uint64_t build,
                            size_t count)
{
    for (size_t i = 0; i < count; i++) {
        cleanup(freep) char *name = str_format("%06zu", i);
        cleanup(freep) char *path = str_format("%s/%s", shown, name);
        cleanup(chunk_file_closep) struct chunk_file *f = NULL;
        TRY(segment_file_open(dir, name, path, build, i, &f));
        TRY(add_segment(m, f, (uint32_t)i));
    }
    return NULL;
}

/* Joins the segments' runs of neighbouring pages, whatever is stored of them. */
static void find_changed(struct catalog *c)
{
    for (size_t i = 0; i < c->segments.count; i++) {
        size_t first = c->places.items[i].changed = c->changed.count;
        for (size_t k = c->places.items[i].runs; k < c->places.items[i + 1].runs; k++) {
            const struct db_page_run *r = &c->page_runs.items[k];
            struct db_page_run *last =
                c->changed.count > first ? &c->changed.items[c->changed.count - 1] : NULL;
            if (last && last->object == r->object && last->space == r->space &&
                last->page + (uint64_t)last->count * PAGE_SIZE == r->page &&
                r->count <= UINT32_MAX - last->count)
                last->count += r->count;
            else
                vec_push(&c->changed, (struct db_page_run){.space = r->space,
                                                           .object = r->object,
                                                           .page = r->page,
                                                           .count = r->count});
        }
    }
    c->places.items[c->segments.count].changed = c->changed.count;
}

struct err *catalog_make(int dir, const char *shown, uint64_t build, size_t count,
                         struct catalog *c)
{
    struct making m = {.catalog = c};
    struct err *e = read_all(&m, dir, shown, build, count);
    if (!e) {
        vec_push(&c->places, (struct catalog_place){c->page_runs.count, c->remaps.count, 0});
        find_changed(c);
        invert_blocks(&m);
    }
    vec_deinit(&m.uses);
    vec_deinit(&m.calls);
    return e;
}

/* --- writing and reading --- */

/* A row of the table of segments. */
struct segment_row {
    struct history_segment s;
    uint32_t runs, remaps, spaces;
};
static const struct column segment_columns[] = {
    COLUMN(struct segment_row, s.start.event),
    COLUMN(struct segment_row, s.start.icount),
    COLUMN_ON(struct segment_row, s.end.event, s.start.event),
    COLUMN(struct segment_row, s.end.icount),
    COLUMN(struct segment_row, s.icount_start),
    COLUMN(struct segment_row, s.icount),
    COLUMN_PLAIN(struct segment_row, runs),
    COLUMN_PLAIN(struct segment_row, remaps),
    COLUMN_PLAIN(struct segment_row, spaces),
};
static const struct table segment_table = TABLE(struct segment_row, segment_columns);

static const struct column block_columns[] = {
    COLUMN(struct history_block, space),
    COLUMN(struct history_block, pc),
    COLUMN_PLAIN(struct history_block, insn_count),
    COLUMN_PLAIN(struct history_block, byte_len),
    COLUMN_PLAIN(struct history_block, end),
    COLUMN_PLAIN(struct history_block, ticks),
    COLUMN_PLAIN(struct history_block, run_count),
};
static const struct table block_table = TABLE(struct history_block, block_columns);

static const struct column run_columns[] = {COLUMN(struct history_run, segment),
                                            COLUMN(struct history_run, count)};
static const struct table run_table = TABLE(struct history_run, run_columns);

static void put_segments(const struct catalog *c, struct buf *b)
{
    VEC(struct segment_row) rows = {0};
    size_t space = 0;
    for (size_t i = 0; i < c->segments.count; i++) {
        const struct catalog_place *at = &c->places.items[i];
        size_t first = space;
        while (space < c->spaces.count && c->space_segments.items[space] == i)
            space++;
        vec_push(&rows, (struct segment_row){
                            c->segments.items[i], (uint32_t)(at[1].runs - at[0].runs),
                            (uint32_t)(at[1].remaps - at[0].remaps), (uint32_t)(space - first)});
    }
    table_put(&segment_table, rows.items, rows.count, b);
    vec_deinit(&rows);
}

static void put_blocks(const struct catalog *c, struct buf *b)
{
    table_put(&block_table, c->blocks.items, c->blocks.count, b);
    table_put(&run_table, c->runs.items, c->runs.count, b);
}

static void put_pages(const struct catalog *c, struct buf *b)
{
    table_put(&db_page_run_table, c->page_runs.items, c->page_runs.count, b);
    table_put(&db_remap_table, c->remaps.items, c->remaps.count, b);
    table_put(&db_space_table, c->spaces.items, c->spaces.count, b);
}

static const struct {
    uint32_t kind;
    void (*put)(const struct catalog *c, struct buf *b);
} tables[] = {
    {CHUNK_SEGMENTS, put_segments}, {CHUNK_BLOCK_INDEX, put_blocks}, {CHUNK_PAGE_INDEX, put_pages}};
enum { TABLE_COUNT = sizeof(tables) / sizeof(tables[0]) };

struct err *catalog_write(const struct catalog *c, struct chunk_writer *w)
{
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        cleanup(buf_deinit) struct buf b = {0};
        tables[i].put(c, &b);
        TRY(chunk_writer_add(w, tables[i].kind, &b));
    }
    vec_each (s, &c->stacks)
        TRY(chunk_writer_add(w, CHUNK_STACKS_AT, s));
    return NULL;
}

static struct err *check_chunk(const struct chunk_file *f, uint32_t kind, size_t idx,
                               const struct buf *expected)
{
    cleanup(buf_deinit) struct buf data = {0};
    TRY(chunk_file_read(f, kind, idx, &data));
    if (data.len == expected->len &&
        (!data.len || memcmp(data.data, expected->data, data.len) == 0))
        return NULL;
    return err_prefix(chunk_file_bad(f, kind, idx, 0), "the index is not that of the segments");
}

struct err *catalog_check(const struct catalog *c, const struct chunk_file *f)
{
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        cleanup(buf_deinit) struct buf b = {0};
        tables[i].put(c, &b);
        TRY(check_chunk(f, tables[i].kind, 0, &b));
    }
    for (size_t i = 0; i < c->stacks.count; i++)
        TRY(check_chunk(f, CHUNK_STACKS_AT, i, &c->stacks.items[i]));
    return NULL;
}

static bool get_segments(struct bytes *b, struct catalog *c)
{
    VEC(struct segment_row) rows = {0};
    table_get_vec(&segment_table, b, &rows);
    struct catalog_place at = {0};
    for (size_t i = 0; i < rows.count; i++) {
        const struct segment_row *row = &rows.items[i];
        vec_push(&c->segments, row->s);
        vec_push(&c->places, at);
        at.runs += row->runs;
        at.remaps += row->remaps;
        if (row->spaces > UINT32_MAX - c->space_segments.count ||
            (row->spaces && c->space_segments.count > 1u << 24))
            b->failed = true;
        for (uint32_t k = 0; k < row->spaces && !b->failed; k++)
            vec_push(&c->space_segments, (uint32_t)i);
        bool follows = i == 0 || (moment_cmp(rows.items[i - 1].s.end, row->s.start) == 0 &&
                                  rows.items[i - 1].s.icount_start + rows.items[i - 1].s.icount ==
                                      row->s.icount_start);
        if (!follows || moment_cmp(row->s.start, row->s.end) > 0)
            b->failed = true;
    }
    vec_push(&c->places, at);
    if (!rows.count)
        b->failed = true;
    vec_deinit(&rows);
    return !b->failed;
}

static bool get_blocks(struct bytes *b, struct catalog *c)
{
    table_get_vec(&block_table, b, &c->blocks);
    table_get_vec(&run_table, b, &c->runs);
    uint64_t run = 0;
    vec_each (k, &c->blocks) {
        if (k->run_count > c->runs.count - run)
            return false;
        k->first_run = (uint32_t)run;
        for (uint64_t end = run + k->run_count; run < end; run++)
            k->total += c->runs.items[run].count;
    }
    vec_each (r, &c->runs) {
        if (r->segment >= c->segments.count)
            return false;
    }
    return run == c->runs.count;
}

static bool get_pages(struct bytes *b, struct catalog *c)
{
    table_get_vec(&db_page_run_table, b, &c->page_runs);
    table_get_vec(&db_remap_table, b, &c->remaps);
    table_get_vec(&db_space_table, b, &c->spaces);
    const struct catalog_place *end = &c->places.items[c->segments.count];
    if (end->runs != c->page_runs.count || end->remaps != c->remaps.count ||
        c->spaces.count != c->space_segments.count)
        return false;
    for (size_t i = 0; i < c->segments.count; i++) {
        const struct catalog_place *at = &c->places.items[i];
        if (!page_runs_are_sound(c->page_runs.items + at[0].runs, at[1].runs - at[0].runs) ||
            !remaps_are_sound(c->remaps.items + at[0].remaps, at[1].remaps - at[0].remaps))
            return false;
    }
    return true;
}

static struct err *read_chunk(const struct chunk_file *f, uint32_t kind,
                              bool (*get)(struct bytes *b, struct catalog *c), struct catalog *c)
{
    cleanup(buf_deinit) struct buf data = {0};
    TRY(chunk_file_read(f, kind, 0, &data));
    struct bytes b = bytes_of(data.data, data.len);
    bool good = get(&b, c);
    return good && !b.failed && !bytes_left(&b) ? NULL : chunk_file_bad(f, kind, 0, b.pos);
}

struct err *catalog_read(const struct chunk_file *f, struct catalog *c)
{
    TRY(read_chunk(f, CHUNK_SEGMENTS, get_segments, c));
    TRY(read_chunk(f, CHUNK_BLOCK_INDEX, get_blocks, c));
    TRY(read_chunk(f, CHUNK_PAGE_INDEX, get_pages, c));
    find_changed(c);
    return NULL;
}
