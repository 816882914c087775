#include "db/history.h"

#include <errno.h>
#include <sys/stat.h>

/* A version of a page: what it held at the end of a segment. */
struct version {
    uint32_t object, space; /* sorted by object, space, page, segment */
    uint64_t page;
    uint32_t segment;
    uint64_t data_off; /* in the segment's page data; UINT64_MAX: zeros */
};

/* A range whose older contents are void. */
struct voided {
    uint32_t space, segment;
    gaddr start, end;
};

enum { CACHE_SLOTS = 64 };
struct cached {
    size_t segment;
    enum segment_part part;
    bool stacks, full;
    uint64_t used;
    struct segment s;
};

struct history {
    char *dir;
    VEC(struct history_segment) segments;
    VEC(struct history_block) blocks;
    VEC(struct history_run) runs;
    VEC(struct version) versions;
    VEC(struct voided) voids;
    VEC(struct db_space) spaces;
    VEC(uint32_t) space_segments; /* segment in which a space began */
    uint64_t bytes;
    struct cached cache[CACHE_SLOTS];
    uint64_t clock;
};

char *history_segment_path(const char *dir, size_t idx)
{
    return str_format("%s/%06zu", dir, idx);
}

/* --- joining segments --- */

static int compare_versions(const void *a, const void *b)
{
    const struct version *x = a, *y = b;
    if (x->object != y->object)
        return x->object < y->object ? -1 : 1;
    if (x->space != y->space)
        return x->space < y->space ? -1 : 1;
    if (x->page != y->page)
        return x->page < y->page ? -1 : 1;
    return x->segment < y->segment ? -1 : x->segment > y->segment;
}

struct joining {
    VEC(struct history_segment) segments;
    VEC(struct db_block) blocks;
    VEC(uint32_t) block_segments;
    VEC(struct version) versions;
    VEC(struct voided) voids;
    VEC(struct db_space) spaces;
    VEC(uint32_t) space_segments;
    VEC(struct db_call) stacks; /* at the end of what was joined so far */
};

/* Applies what a segment did to the calls from before it. */
static void compose_stacks(struct joining *j, const struct segment *s, const struct segment *events)
{
    vec_each (e, &s->execs) {
        size_t kept = 0;
        vec_each (c, &j->stacks) {
            if (c->task != *e)
                j->stacks.items[kept++] = *c;
        }
        j->stacks.count = kept;
    }
    vec_each (f, &s->floors) {
        size_t kept = 0;
        vec_each (c, &j->stacks) {
            if (c->task != f->task || c->sp < f->start || c->sp >= f->end || c->sp > f->floor)
                j->stacks.items[kept++] = *c;
        }
        j->stacks.count = kept;
    }
    vec_each (c, &s->stacks)
        vec_push(&j->stacks, *c);
    vec_each (e, &events->events) {
        if (!e->ended_task)
            continue;
        size_t kept = 0;
        vec_each (c, &j->stacks) {
            if (c->task != e->ended_task)
                j->stacks.items[kept++] = *c;
        }
        j->stacks.count = kept;
    }
}

/* A process made by fork begins with its parent's calls; what it and, before the fork, the parent did since the segment began is
 * in its own record of the segment. */
static void inherit_stacks(struct joining *j, const struct segment *s)
{
    vec_each (f, &s->forks) {
        size_t count = j->stacks.count;
        for (size_t i = 0; i < count; i++) {
            struct db_call c = j->stacks.items[i];
            if (c.task != f->parent)
                continue;
            c.task = f->child;
            vec_push(&j->stacks, c);
        }
    }
}

static struct err *join_segment(struct joining *j, const char *dir, uint32_t idx, int level)
{
    cleanup(freep) char *path = history_segment_path(dir, idx);
    cleanup(freep) char *stacks_path = str_format("%s.stacks", path);
    cleanup(chunk_file_closep) struct chunk_file *f = NULL;
    TRY(chunk_file_open(path, &f));
    cleanup(segment_deinit) struct segment s = {0};
    TRY(segment_read(f, PART_BOUNDARY, &s));
    TRY(segment_read(f, PART_BLOCKS, &s));
    TRY(segment_read(f, PART_PAGES, &s));
    TRY(segment_read(f, PART_STACKS, &s));
    TRY(segment_read(f, PART_EVENTS, &s));
    vec_push(&j->segments, (struct history_segment){s.start, s.end, s.icount_start, s.icount});
    vec_each (b, &s.blocks) {
        vec_push(&j->blocks, *b);
        vec_push(&j->block_segments, idx);
    }
    vec_each (p, &s.pages)
        vec_push(&j->versions, (struct version){p->object, p->space, p->page, idx, p->data_off});
    vec_each (r, &s.remaps)
        vec_push(&j->voids, (struct voided){r->space, idx, r->start, r->end});
    vec_each (p, &s.spaces) {
        vec_push(&j->spaces, *p);
        vec_push(&j->space_segments, idx);
    }
    cleanup(segment_deinit) struct segment stacks = {0};
    vec_each (c, &j->stacks)
        vec_push(&stacks.stacks, *c);
    unlink(stacks_path);
    TRY(segment_write_stacks(&stacks, stacks_path, level));
    inherit_stacks(j, &s);
    compose_stacks(j, &s, &s);
    return NULL;
}

struct keyed_block {
    struct db_block b;
    uint32_t segment;
};

static int compare_blocks(const void *a, const void *b)
{
    const struct keyed_block *x = a, *y = b;
    if (x->b.space != y->b.space)
        return x->b.space < y->b.space ? -1 : 1;
    if (x->b.pc != y->b.pc)
        return x->b.pc < y->b.pc ? -1 : 1;
    if (x->b.byte_len != y->b.byte_len)
        return x->b.byte_len < y->b.byte_len ? -1 : 1;
    return x->segment < y->segment ? -1 : x->segment > y->segment;
}

static void put_segments(const struct joining *j, const uint8_t *uuid, struct buf *b)
{
    buf_add(b, uuid, 16);
    buf_uleb(b, j->segments.count);
    vec_each (s, &j->segments) {
        buf_uleb(b, s->start.event);
        buf_uleb(b, s->start.icount);
        buf_uleb(b, s->end.event);
        buf_uleb(b, s->end.icount);
        buf_uleb(b, s->icount_start);
        buf_uleb(b, s->icount);
    }
}

static void put_block_index(const struct joining *j, struct buf *b)
{
    size_t n = j->blocks.count;
    cleanup(freep) struct keyed_block *all = xnew_array(struct keyed_block, n);
    for (size_t i = 0; i < n; i++)
        all[i] = (struct keyed_block){j->blocks.items[i], j->block_segments.items[i]};
    qsort(all, n, sizeof(all[0]), compare_blocks);
    size_t distinct = 0;
    for (size_t i = 0; i < n; i++)
        distinct += i == 0 || all[i].b.space != all[i - 1].b.space || all[i].b.pc != all[i - 1].b.pc ||
                    all[i].b.byte_len != all[i - 1].b.byte_len;
    buf_uleb(b, distinct);
    uint64_t last_pc = 0;
    for (size_t i = 0; i < n;) {
        size_t end = i + 1;
        while (end < n && all[end].b.space == all[i].b.space && all[end].b.pc == all[i].b.pc &&
               all[end].b.byte_len == all[i].b.byte_len)
            end++;
        buf_uleb(b, all[i].b.space);
        buf_uleb(b, all[i].b.pc - last_pc);
        last_pc = all[i].b.pc;
        buf_u8(b, (uint8_t)all[i].b.insn_count);
        buf_uleb(b, all[i].b.byte_len);
        buf_u8(b, (uint8_t)(all[i].b.end << 1 | all[i].b.ticks));
        buf_uleb(b, end - i);
        uint32_t last = 0;
        for (; i < end; i++) {
            buf_uleb(b, all[i].segment - last);
            last = all[i].segment;
            buf_uleb(b, all[i].b.count);
        }
    }
}

static void put_page_index(struct joining *j, struct buf *b)
{
    qsort(j->versions.items, j->versions.count, sizeof(j->versions.items[0]), compare_versions);
    buf_uleb(b, j->versions.count);
    uint64_t last = 0;
    vec_each (v, &j->versions) {
        buf_uleb(b, v->object);
        buf_uleb(b, v->space);
        buf_uleb(b, (v->page - last) / PAGE_SIZE);
        last = v->page;
        buf_uleb(b, v->segment);
        buf_uleb(b, v->data_off == UINT64_MAX ? 0 : v->data_off / PAGE_SIZE + 1);
    }
    buf_uleb(b, j->voids.count);
    vec_each (v, &j->voids) {
        buf_uleb(b, v->space);
        buf_uleb(b, v->segment);
        buf_uleb(b, v->start / PAGE_SIZE);
        buf_uleb(b, v->end / PAGE_SIZE);
    }
    buf_uleb(b, j->spaces.count);
    for (size_t i = 0; i < j->spaces.count; i++) {
        const struct db_space *s = &j->spaces.items[i];
        buf_uleb(b, s->space);
        buf_uleb(b, s->parent);
        buf_uleb(b, s->at.event);
        buf_uleb(b, s->at.icount);
        buf_uleb(b, j->space_segments.items[i]);
    }
}

static void joining_deinit(struct joining *j)
{
    vec_deinit(&j->segments);
    vec_deinit(&j->blocks);
    vec_deinit(&j->block_segments);
    vec_deinit(&j->versions);
    vec_deinit(&j->voids);
    vec_deinit(&j->spaces);
    vec_deinit(&j->space_segments);
    vec_deinit(&j->stacks);
}

static struct err *write_meta(struct joining *j, const uint8_t *uuid, struct chunk_writer *w)
{
    cleanup(buf_deinit) struct buf segments = {0}, blocks = {0}, pages = {0};
    put_segments(j, uuid, &segments);
    put_block_index(j, &blocks);
    put_page_index(j, &pages);
    TRY(chunk_writer_add(w, CHUNK_SEGMENTS, &segments));
    TRY(chunk_writer_add(w, CHUNK_BLOCK_INDEX, &blocks));
    return chunk_writer_add(w, CHUNK_PAGE_INDEX, &pages);
}

struct err *history_join(const char *dir, size_t count, const uint8_t *uuid, int level)
{
    cleanup(joining_deinit) struct joining j = {0};
    for (size_t i = 0; i < count; i++)
        TRY(join_segment(&j, dir, (uint32_t)i, level));
    cleanup(freep) char *path = str_format("%s/meta", dir);
    struct chunk_writer *w;
    TRY(chunk_writer_create(path, level, &w));
    struct err *e = write_meta(&j, uuid, w);
    if (e) {
        chunk_writer_abandon(w);
        return e;
    }
    return chunk_writer_finish(w, NULL);
}

/* --- opening --- */

static struct err *read_segments(struct history *h, struct chunk_file *f, const uint8_t *uuid)
{
    cleanup(buf_deinit) struct buf data = {0};
    TRY(chunk_file_read(f, CHUNK_SEGMENTS, &data));
    struct bytes b = bytes_of(data.data, data.len);
    const uint8_t *id = bytes_take(&b, 16);
    if (!id || memcmp(id, uuid, 16) != 0)
        return err_new(ERR_FORMAT, "%s: made from another trace; build it again", h->dir);
    for (size_t n = bytes_count(&b, 6); n; n--) {
        struct history_segment s;
        s.start.event = bytes_uleb(&b);
        s.start.icount = bytes_uleb(&b);
        s.end.event = bytes_uleb(&b);
        s.end.icount = bytes_uleb(&b);
        s.icount_start = bytes_uleb(&b);
        s.icount = bytes_uleb(&b);
        vec_push(&h->segments, s);
    }
    if (b.failed || !h->segments.count)
        return err_new(ERR_FORMAT, "%s: list of segments damaged", chunk_file_path(f));
    return NULL;
}

static struct err *read_block_index(struct history *h, struct chunk_file *f)
{
    cleanup(buf_deinit) struct buf data = {0};
    TRY(chunk_file_read(f, CHUNK_BLOCK_INDEX, &data));
    struct bytes b = bytes_of(data.data, data.len);
    uint64_t pc = 0;
    for (size_t n = bytes_count(&b, 7); n && !b.failed; n--) {
        struct history_block k = {.space = (uint32_t)bytes_uleb(&b)};
        pc += bytes_uleb(&b);
        k.pc = pc;
        k.insn_count = bytes_u8(&b);
        k.byte_len = (uint16_t)bytes_uleb(&b);
        uint8_t bits = bytes_u8(&b);
        k.end = bits >> 1;
        k.ticks = bits & 1;
        k.run_count = (uint32_t)bytes_count(&b, 2);
        k.first_run = (uint32_t)h->runs.count;
        uint32_t segment = 0;
        for (uint32_t i = 0; i < k.run_count; i++) {
            segment += (uint32_t)bytes_uleb(&b);
            struct history_run run = {segment, bytes_uleb(&b)};
            if (segment >= h->segments.count)
                b.failed = true;
            k.total += run.count;
            vec_push(&h->runs, run);
        }
        vec_push(&h->blocks, k);
    }
    return b.failed ? err_new(ERR_FORMAT, "%s: block index damaged", chunk_file_path(f)) : NULL;
}

static struct err *read_page_index(struct history *h, struct chunk_file *f)
{
    cleanup(buf_deinit) struct buf data = {0};
    TRY(chunk_file_read(f, CHUNK_PAGE_INDEX, &data));
    struct bytes b = bytes_of(data.data, data.len);
    uint64_t page = 0;
    for (size_t n = bytes_count(&b, 5); n; n--) {
        struct version v;
        v.object = (uint32_t)bytes_uleb(&b);
        v.space = (uint32_t)bytes_uleb(&b);
        page += bytes_uleb(&b) * PAGE_SIZE;
        v.page = page;
        v.segment = (uint32_t)bytes_uleb(&b);
        uint64_t off = bytes_uleb(&b);
        v.data_off = off ? (off - 1) * PAGE_SIZE : UINT64_MAX;
        if (v.segment >= h->segments.count)
            b.failed = true;
        vec_push(&h->versions, v);
    }
    for (size_t n = bytes_count(&b, 4); n; n--) {
        struct voided v;
        v.space = (uint32_t)bytes_uleb(&b);
        v.segment = (uint32_t)bytes_uleb(&b);
        v.start = bytes_uleb(&b) * PAGE_SIZE;
        v.end = bytes_uleb(&b) * PAGE_SIZE;
        vec_push(&h->voids, v);
    }
    for (size_t n = bytes_count(&b, 5); n; n--) {
        struct db_space s;
        s.space = (uint32_t)bytes_uleb(&b);
        s.parent = (uint32_t)bytes_uleb(&b);
        s.at.event = bytes_uleb(&b);
        s.at.icount = bytes_uleb(&b);
        uint32_t segment = (uint32_t)bytes_uleb(&b);
        vec_push(&h->spaces, s);
        vec_push(&h->space_segments, segment);
    }
    return b.failed ? err_new(ERR_FORMAT, "%s: page index damaged", chunk_file_path(f)) : NULL;
}

struct err *history_open(const char *dir, const uint8_t *uuid, struct history **out)
{
    cleanup(freep) char *path = str_format("%s/meta", dir);
    if (access(path, F_OK) != 0)
        return err_new(ERR_NOT_FOUND, "%s: no database; run `pernosco build`", dir);
    cleanup(history_closep) struct history *h = xnew(struct history);
    h->dir = xstrdup(dir);
    cleanup(chunk_file_closep) struct chunk_file *f = NULL;
    TRY(chunk_file_open(path, &f));
    h->bytes = chunk_file_bytes(f);
    TRY(read_segments(h, f, uuid));
    TRY(read_block_index(h, f));
    TRY(read_page_index(h, f));
    for (size_t i = 0; i < h->segments.count; i++) {
        struct stat st;
        cleanup(freep) char *segment = history_segment_path(dir, i);
        if (stat(segment, &st) != 0)
            return err_os("cannot open %s", segment);
        h->bytes += (uint64_t)st.st_size;
        cleanup(freep) char *stacks = str_format("%s.stacks", segment);
        if (stat(stacks, &st) == 0)
            h->bytes += (uint64_t)st.st_size;
    }
    *out = steal(h);
    return NULL;
}

void history_close(struct history *h)
{
    if (!h)
        return;
    for (int i = 0; i < CACHE_SLOTS; i++)
        segment_deinit(&h->cache[i].s);
    vec_deinit(&h->segments);
    vec_deinit(&h->blocks);
    vec_deinit(&h->runs);
    vec_deinit(&h->versions);
    vec_deinit(&h->voids);
    vec_deinit(&h->spaces);
    vec_deinit(&h->space_segments);
    free(h->dir);
    free(h);
}

/* --- looking --- */

const struct history_segment *history_segments(const struct history *h, size_t *count_out)
{
    *count_out = h->segments.count;
    return h->segments.items;
}

size_t history_segment_at(const struct history *h, struct moment m)
{
    size_t low = 0, high = h->segments.count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (moment_cmp(h->segments.items[middle].start, m) <= 0)
            low = middle;
        else
            high = middle;
    }
    return low;
}

uint64_t history_bytes(const struct history *h)
{
    return h->bytes;
}

const struct history_block *history_blocks(const struct history *h, size_t *count_out)
{
    *count_out = h->blocks.count;
    return h->blocks.items;
}

const struct history_run *history_runs(const struct history *h)
{
    return h->runs.items;
}

const struct db_space *history_spaces(const struct history *h, size_t *count_out)
{
    *count_out = h->spaces.count;
    return h->spaces.items;
}

static struct err *load(struct history *h, size_t segment, enum segment_part part, bool stacks, const struct segment **out)
{
    struct cached *slot = &h->cache[0];
    for (int i = 0; i < CACHE_SLOTS; i++) {
        struct cached *c = &h->cache[i];
        if (c->full && c->segment == segment && c->part == part && c->stacks == stacks) {
            c->used = ++h->clock;
            *out = &c->s;
            return NULL;
        }
        if (!c->full || (slot->full && c->used < slot->used))
            slot = c;
    }
    segment_deinit(&slot->s);
    slot->full = false;
    cleanup(freep) char *path = history_segment_path(h->dir, segment);
    cleanup(freep) char *stacks_path = str_format("%s.stacks", path);
    cleanup(chunk_file_closep) struct chunk_file *f = NULL;
    TRY(chunk_file_open(stacks ? stacks_path : path, &f));
    TRY(segment_read(f, stacks ? PART_STACKS : part, &slot->s));
    slot->full = true;
    slot->segment = segment;
    slot->part = part;
    slot->stacks = stacks;
    slot->used = ++h->clock;
    *out = &slot->s;
    return NULL;
}

struct err *history_part(struct history *h, size_t segment, enum segment_part part, const struct segment **out)
{
    return load(h, segment, part, false, out);
}

struct err *history_stacks(struct history *h, size_t segment, const struct segment **out)
{
    return load(h, segment, PART_STACKS, true, out);
}

struct err *history_written(struct history *h, size_t segment, uint32_t space, uint32_t object, uint64_t start, uint64_t end,
                            bool *out)
{
    const struct segment *s;
    TRY(history_part(h, segment, PART_WRITTEN, &s));
    *out = false;
    uint64_t first = start & ~(uint64_t)(PAGE_SIZE - 1);
    vec_each (w, &s->written) {
        if (w->space != space || w->object != object || w->page < first || w->page >= end)
            continue;
        for (uint64_t g = 0; g < 512; g++) {
            uint64_t at = w->page + 8 * g;
            if (at < end && at + 8 > start && (w->granules[g / 64] >> g % 64 & 1)) {
                *out = true;
                return NULL;
            }
        }
    }
    return NULL;
}

/* --- pages --- */

/* The versions of a space or object: a run of the sorted array. */
static void version_range(const struct history *h, uint32_t space, uint32_t object, size_t *first, size_t *end)
{
    struct version key = {.object = object, .space = space};
    size_t low = 0, high = h->versions.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare_versions(&h->versions.items[middle], &key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *first = low;
    while (low < h->versions.count && h->versions.items[low].object == object && h->versions.items[low].space == space)
        low++;
    *end = low;
}

static bool is_void(const struct history *h, uint32_t space, uint64_t page, int64_t after, uint32_t before)
{
    vec_each (v, &h->voids) {
        if (v->space == space && v->segment > after && v->segment < before && page >= v->start && page < v->end)
            return true;
    }
    return false;
}

static const struct db_space *find_space(const struct history *h, uint32_t space, uint32_t *segment)
{
    for (size_t i = 0; i < h->spaces.count; i++) {
        if (h->spaces.items[i].space == space) {
            *segment = h->space_segments.items[i];
            return &h->spaces.items[i];
        }
    }
    return NULL;
}

static int compare_pages(const void *a, const void *b)
{
    const struct version *x = a, *y = b;
    return x->page < y->page ? -1 : x->page > y->page;
}

/* Chooses for each page the version that holds at the start of segment `before`. A forked space has what its parent had when
 * the segment of the fork began, but for pages of which it has versions of its own or that were remapped since. */
static void choose_versions(const struct history *h, uint32_t space, uint32_t object, uint32_t before,
                            struct version **chosen, size_t *count)
{
    VEC(struct version) out = {0};
    struct {
        uint32_t space, limit; /* remaps of this space in segments below limit void what comes from its ancestors */
        uint32_t began;
    } chain[64];
    size_t depth = 0;
    while (depth < 64) {
        size_t first, end, had = out.count;
        version_range(h, space, object, &first, &end);
        uint32_t began = 0;
        const struct db_space *s = object ? NULL : find_space(h, space, &began);
        for (size_t i = first; i < end;) {
            size_t last = i;
            const struct version *best = NULL;
            for (; last < end && h->versions.items[last].page == h->versions.items[i].page; last++) {
                if (h->versions.items[last].segment < before)
                    best = &h->versions.items[last];
            }
            i = last;
            if (!best || (!object && is_void(h, space, best->page, best->segment, before)))
                continue;
            bool hidden = false;
            for (size_t k = 0; k < depth && !hidden; k++)
                hidden = is_void(h, chain[k].space, best->page, (int64_t)chain[k].began - 1, chain[k].limit);
            if (!hidden)
                vec_push(&out, *best);
        }
        // Nearer versions win, even one that is void by now: it hides the parent's.
        if (had) {
            qsort(out.items, had, sizeof(out.items[0]), compare_pages);
            size_t kept = had;
            for (size_t i = had; i < out.count; i++) {
                if (!bsearch(&out.items[i], out.items, had, sizeof(out.items[0]), compare_pages))
                    out.items[kept++] = out.items[i];
            }
            out.count = kept;
        }
        if (!s || !s->parent)
            break;
        chain[depth].space = space;
        chain[depth].limit = before;
        chain[depth++].began = began;
        space = s->parent;
        if (began < before)
            before = began;
    }
    qsort(out.items, out.count, sizeof(out.items[0]), compare_pages);
    *chosen = out.items;
    *count = out.count;
}

struct page_piece {
    uint32_t segment;
    size_t chunk;
    struct buf data;
};

struct err *history_pages(struct history *h, size_t segment, uint32_t space, uint32_t object,
                          struct err *(*put)(void *ctx, uint64_t addr, const uint8_t *pages, size_t count), void *ctx)
{
    struct version *chosen;
    size_t count;
    choose_versions(h, space, object, (uint32_t)segment, &chosen, &count);
    cleanup(freep) struct version *guard = chosen;
    VEC(struct page_piece) pieces = {0};
    cleanup(buf_deinit) struct buf run = {0};
    uint64_t run_start = 0;
    struct err *e = NULL;
    for (size_t i = 0; i < count && !e; i++) {
        const struct version *v = &guard[i];
        static const uint8_t zeros[PAGE_SIZE];
        const uint8_t *page = zeros;
        if (v->data_off != UINT64_MAX) {
            size_t chunk = v->data_off / PAGE_SIZE / PAGES_PER_CHUNK, at = v->data_off / PAGE_SIZE % PAGES_PER_CHUNK;
            struct page_piece *found = NULL;
            for (size_t k = pieces.count; k-- > 0 && !found;) {
                if (pieces.items[k].segment == v->segment && pieces.items[k].chunk == chunk)
                    found = &pieces.items[k];
            }
            if (!found) {
                cleanup(freep) char *path = history_segment_path(h->dir, v->segment);
                cleanup(chunk_file_closep) struct chunk_file *f = NULL;
                found = vec_add(&pieces);
                found->segment = v->segment;
                found->chunk = chunk;
                e = chunk_file_open(path, &f);
                if (!e)
                    e = segment_read_page_data(f, chunk, &found->data);
                if (!e && found->data.len < (at + 1) * PAGE_SIZE)
                    e = err_new(ERR_FORMAT, "%s: page data chunk %zu is short", path, chunk);
            }
            if (e)
                break;
            if (found->data.len < (at + 1) * PAGE_SIZE) {
                e = err_new(ERR_FORMAT, "%s: page data of segment %u is short", h->dir, v->segment);
                break;
            }
            page = found->data.data + at * PAGE_SIZE;
        }
        if (run.len && (run_start + run.len != v->page || run.len >= 1 << 20)) {
            e = put(ctx, run_start, run.data, run.len / PAGE_SIZE);
            run.len = 0;
        }
        if (!run.len)
            run_start = v->page;
        buf_add(&run, page, PAGE_SIZE);
    }
    if (!e && run.len)
        e = put(ctx, run_start, run.data, run.len / PAGE_SIZE);
    vec_each (p, &pieces)
        buf_deinit(&p->data);
    vec_deinit(&pieces);
    return e;
}
