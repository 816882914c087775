#include "db/history.h"

#include "db/catalog.h"
#include "db/history_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <xxhash.h>

/* --- making --- */

static const struct column plan_columns[] = {
    COLUMN_PLAIN(struct history_plan, program),
    COLUMN_PLAIN(struct history_plan, segment_icount),
    COLUMN_PLAIN(struct history_plan, segment_events),
};
static const struct table plan_table = TABLE(struct history_plan, plan_columns);

static void put_plan(const struct history_plan *p, struct buf *b)
{
    buf_add(b, p->trace, sizeof(p->trace));
    table_put(&plan_table, p, 1, b);
}

static struct err *read_plan(const struct chunk_file *f, struct history_plan *out)
{
    cleanup(buf_deinit) struct buf data = {0};
    TRY(chunk_file_read(f, CHUNK_PLAN, 0, &data));
    struct bytes b = bytes_of(data.data, data.len);
    const uint8_t *trace = bytes_take(&b, sizeof(out->trace));
    void *row;
    size_t count = table_get(&plan_table, &b, &row);
    cleanup(freep) struct history_plan *plan = row;
    if (!trace || count != 1 || bytes_left(&b))
        return chunk_file_bad(f, CHUNK_PLAN, 0, b.pos);
    *out = *plan;
    memcpy(out->trace, trace, sizeof(out->trace));
    return NULL;
}

uint64_t history_this_program(void)
{
    cleanup(closep) int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    XXH3_state_t *state = XXH3_createState();
    if (fd < 0 || !state || XXH3_64bits_reset(state) != XXH_OK) {
        XXH3_freeState(state);
        return 0;
    }
    cleanup(freep) uint8_t *piece = xmalloc(1 << 16);
    ssize_t n;
    while ((n = read(fd, piece, 1 << 16)) > 0)
        (void)XXH3_64bits_update(state, piece, (size_t)n);
    uint64_t number = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return n < 0 ? 0 : number;
}

uint64_t history_build_number(const struct history_plan *plan)
{
    cleanup(buf_deinit) struct buf b = {0};
    put_plan(plan, &b);
    uint64_t number = XXH3_64bits(b.data, b.len);
    return number ? number : 1; // 0 stands for any
}

char *history_segment_path(const char *dir, size_t idx)
{
    return str_format("%s/%06zu", dir, idx);
}

struct err *history_start(const char *dir, const struct history_plan *plan)
{
    cleanup(freep) char *path = str_format("%s/plan", dir);
    cleanup(chunk_writer_abandonp) struct chunk_writer *w = NULL;
    TRY(chunk_writer_create(path, (struct file_id){history_build_number(plan), FILE_PLAN, 0}, 3,
                            &w));
    cleanup(buf_deinit) struct buf b = {0};
    put_plan(plan, &b);
    TRY(chunk_writer_add(w, CHUNK_PLAN, &b));
    return chunk_writer_finish(steal(w));
}

static struct err *open_plan(int dir, const char *shown, uint64_t build, struct history_plan *out)
{
    cleanup(freep) char *path = str_format("%s/plan", shown);
    cleanup(chunk_file_closep) struct chunk_file *f = NULL;
    TRY(chunk_file_open(dir, "plan", path, (struct file_id){build, FILE_PLAN, 0}, &f));
    TRY(read_plan(f, out));
    if (chunk_file_id(f).build != history_build_number(out))
        return err_new(ERR_FORMAT, "%s: at 0x10: the build's number is not that of this plan",
                       path);
    return NULL;
}

static struct err *open_dir(const char *path, int *out)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return err_new(ERR_NOT_FOUND, "%s: no database; run `pernosco build`", path);
    if (fd < 0)
        return err_os("cannot open %s", path);
    *out = fd;
    return NULL;
}

struct err *history_read_plan(const char *dir, struct history_plan *out)
{
    cleanup(closep) int fd = -1;
    TRY(open_dir(dir, &fd));
    return open_plan(fd, dir, 0, out);
}

static struct err *count_segments(int dir, const char *shown, uint64_t build, size_t *count_out)
{
    for (size_t i = 0;; i++) {
        cleanup(freep) char *name = str_format("%06zu", i);
        cleanup(freep) char *path = str_format("%s/%s", shown, name);
        cleanup(chunk_file_closep) struct chunk_file *f = NULL;
        struct err *e = segment_file_open(dir, name, path, build, i, &f);
        if (!e)
            continue;
        if (err_kind(e) != ERR_NOT_FOUND && err_kind(e) != ERR_FORMAT)
            return e;
        err_free(e); // not there, or cut off by a crash
        *count_out = i;
        return NULL;
    }
}

struct err *history_count_segments(const char *dir, const struct history_plan *plan,
                                   size_t *count_out)
{
    cleanup(closep) int fd = -1;
    TRY(open_dir(dir, &fd));
    return count_segments(fd, dir, history_build_number(plan), count_out);
}

struct err *history_join(const char *dir, const struct history_plan *plan, size_t count, int level)
{
    cleanup(closep) int fd = -1;
    TRY(open_dir(dir, &fd));
    uint64_t build = history_build_number(plan);
    cleanup(catalog_deinit) struct catalog c = {0};
    TRY(catalog_make(fd, dir, build, count, &c));
    cleanup(freep) char *path = str_format("%s/meta", dir);
    cleanup(chunk_writer_abandonp) struct chunk_writer *w = NULL;
    TRY(chunk_writer_create(path, (struct file_id){build, FILE_META, 0}, level, &w));
    TRY(catalog_write(&c, w));
    return chunk_writer_finish(steal(w));
}

/* --- opening --- */

static struct err *open_meta(struct history *h)
{
    cleanup(freep) char *path = str_format("%s/meta", h->path);
    TRY(chunk_file_open(h->dir, "meta", path, (struct file_id){h->build, FILE_META, 0}, &h->meta));
    return catalog_read(h->meta, &h->catalog);
}

static struct err *open_unfinished(struct history *h)
{
    size_t count;
    TRY(count_segments(h->dir, h->path, h->build, &count));
    if (!count)
        return err_new(ERR_NOT_FOUND, "%s: the database is being made and has nothing yet",
                       h->path);
    return catalog_make(h->dir, h->path, h->build, count, &h->catalog);
}

/* More memory for chunks would cost more, page by page when it is used first, than decoding them
 * again now and then. */
enum { MOST_FILES = 32, MOST_CHUNKS = 64, MOST_CHUNK_BYTES = 8 << 20 };

static void drop_file(void *file)
{
    chunk_file_close(file);
}

struct err *history_open(const char *dir, const uint8_t *uuid, struct history **out)
{
    cleanup(history_closep) struct history *h = xnew(struct history);
    h->dir = -1;
    h->path = xstrdup(dir);
    h->files = shared_create(MOST_FILES, SIZE_MAX, drop_file);
    h->chunks = shared_create(MOST_CHUNKS, MOST_CHUNK_BYTES, page_chunk_drop);
    TRY(open_dir(dir, &h->dir));
    TRY(open_plan(h->dir, h->path, 0, &h->plan));
    if (memcmp(h->plan.trace, uuid, sizeof(h->plan.trace)) != 0)
        return err_new(ERR_FORMAT, "%s/plan: made from another trace; build it again", h->path);
    h->build = history_build_number(&h->plan);
    h->complete = faccessat(h->dir, "meta", F_OK, 0) == 0;
    if (h->complete)
        TRY(open_meta(h));
    else
        TRY(open_unfinished(h));
    *out = steal(h);
    return NULL;
}

struct err *history_open_best(const char *dir, const uint8_t *uuid, struct history **out)
{
    cleanup(freep) char *unfinished = str_format("%s.new", dir);
    bool there = access(dir, F_OK) == 0 || access(unfinished, F_OK) != 0;
    return history_open(there ? dir : unfinished, uuid, out);
}

struct err *history_check_index(const struct history *h)
{
    cleanup(catalog_deinit) struct catalog c = {0};
    TRY(catalog_make(h->dir, h->path, h->build, h->catalog.segments.count, &c));
    return h->meta ? catalog_check(&c, h->meta) : NULL;
}

void history_close(struct history *h)
{
    if (!h)
        return;
    for (int i = 0; i < CACHE_SLOTS; i++)
        segment_deinit(&h->cache[i].s);
    shared_destroy(h->chunks);
    shared_destroy(h->files);
    catalog_deinit(&h->catalog);
    chunk_file_close(h->meta);
    if (h->dir >= 0)
        close(h->dir);
    free(h->path);
    free(h);
}

/* --- looking --- */

const char *history_dir(const struct history *h)
{
    return h->path;
}

bool history_complete(const struct history *h)
{
    return h->complete;
}

bool history_grew(const struct history *h)
{
    char next[16];
    snprintf(next, sizeof(next), "%06zu", h->catalog.segments.count);
    return !h->complete &&
           (faccessat(h->dir, next, F_OK, 0) == 0 || faccessat(h->dir, "meta", F_OK, 0) == 0);
}

const struct history_plan *history_plan(const struct history *h)
{
    return &h->plan;
}

const struct history_segment *history_segments(const struct history *h, size_t *count_out)
{
    *count_out = h->catalog.segments.count;
    return h->catalog.segments.items;
}

size_t history_segment_at(const struct history *h, struct moment m)
{
    size_t low = 0, high = h->catalog.segments.count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (moment_cmp(h->catalog.segments.items[middle].start, m) <= 0)
            low = middle;
        else
            high = middle;
    }
    return low;
}

uint64_t history_changed_pages(const struct history *h, size_t segment)
{
    uint64_t pages = 0;
    for (size_t i = h->catalog.places.items[segment].runs;
         i < h->catalog.places.items[segment + 1].runs; i++)
        pages += h->catalog.page_runs.items[i].count;
    return pages;
}

uint64_t history_bytes(const struct history *h)
{
    uint64_t bytes = 0;
    int fd = openat(h->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *entry;
    struct stat st;
    while (d && (entry = readdir(d))) {
        if (entry->d_name[0] != '.' && fstatat(dirfd(d), entry->d_name, &st, 0) == 0)
            bytes += (uint64_t)st.st_size;
    }
    if (d)
        closedir(d);
    return bytes;
}

const struct history_block *history_blocks(const struct history *h, size_t *count_out)
{
    *count_out = h->catalog.blocks.count;
    return h->catalog.blocks.items;
}

const struct history_run *history_runs(const struct history *h)
{
    return h->catalog.runs.items;
}

const struct db_space *history_spaces(const struct history *h, size_t *count_out)
{
    *count_out = h->catalog.spaces.count;
    return h->catalog.spaces.items;
}

struct err *history_open_segment(const struct history *h, size_t segment, struct chunk_file **out)
{
    cleanup(freep) char *name = str_format("%06zu", segment);
    cleanup(freep) char *path = str_format("%s/%s", h->path, name);
    return segment_file_open(h->dir, name, path, h->build, segment, out);
}

struct err *history_segment_file(const struct history *h, size_t segment, struct chunk_file **out)
{
    *out = shared_find(h->files, segment);
    if (*out)
        return NULL;
    TRY(history_open_segment(h, segment, out));
    shared_add(h->files, segment, *out, 0);
    return NULL;
}

void history_return_file(const struct history *h, struct chunk_file *f)
{
    shared_return(h->files, f);
}

/* The part of a segment that is wanted, or an empty slot for it; *found tells which. */
static struct cached *cache_slot(struct history *h, size_t segment, int part, bool *found)
{
    struct cached *slot = &h->cache[0];
    *found = false;
    for (int i = 0; i < CACHE_SLOTS; i++) {
        struct cached *c = &h->cache[i];
        if (c->full && c->segment == segment && c->part == part) {
            c->used = ++h->clock;
            *found = true;
            return c;
        }
        if (!c->full || (slot->full && c->used < slot->used))
            slot = c;
    }
    segment_deinit(&slot->s);
    slot->full = false;
    slot->segment = segment;
    slot->part = part;
    slot->used = ++h->clock;
    return slot;
}

struct err *history_part(struct history *h, size_t segment, enum segment_part part,
                         const struct segment **out)
{
    static const struct segment without_events;
    const struct history_segment *s = &h->catalog.segments.items[segment];
    if (part == PART_EVENTS &&
        s->start.event ==
            s->end.event) { // as are most where events are rare: no file is opened for that
        *out = &without_events;
        return NULL;
    }
    bool found;
    struct cached *slot = cache_slot(h, segment, (int)part, &found);
    if (!found) {
        struct chunk_file *f;
        TRY(history_segment_file(h, segment, &f));
        struct err *e = segment_read(f, part, &slot->s);
        history_return_file(h, f);
        TRY(e);
        slot->full = true;
    }
    *out = &slot->s;
    return NULL;
}

/* The calls at the start of a segment of which they are stored. */
static struct err *read_calls(struct history *h, size_t segment, call_list *out)
{
    size_t idx = segment / STACKS_EVERY;
    cleanup(buf_deinit) struct buf data = {0};
    if (h->meta)
        TRY(chunk_file_read(h->meta, CHUNK_STACKS_AT, idx, &data));
    const struct buf *table = h->meta ? &data : &h->catalog.stacks.items[idx];
    struct bytes b = bytes_of(table->data, table->len);
    table_get_vec(&db_call_table, &b, out);
    return h->meta && (b.failed || bytes_left(&b))
               ? chunk_file_bad(h->meta, CHUNK_STACKS_AT, idx, b.pos)
               : NULL;
}

static struct err *compute_calls(struct history *h, size_t segment, call_list *calls)
{
    size_t first = segment / STACKS_EVERY * STACKS_EVERY;
    TRY(read_calls(h, first, calls));
    for (size_t i = first; i < segment; i++) {
        struct chunk_file *f;
        cleanup(segment_deinit) struct segment s = {0};
        TRY(history_segment_file(h, i, &f));
        struct err *e = segment_read(f, PART_STACKS, &s);
        history_return_file(h, f);
        TRY(e);
        compose_calls(calls, &s);
    }
    return NULL;
}

struct err *history_stacks(struct history *h, size_t segment, const struct segment **out)
{
    bool found;
    struct cached *slot = cache_slot(h, segment, CACHED_CALLS, &found);
    if (!found) {
        call_list calls = {0};
        struct err *e = compute_calls(h, segment, &calls);
        slot->s.stacks.items = calls.items;
        slot->s.stacks.count = calls.count;
        slot->s.stacks.cap = calls.cap;
        TRY(e);
        slot->full = true;
    }
    *out = &slot->s;
    return NULL;
}

static int compare_written(const void *key, const void *item)
{
    const struct db_written *x = key, *y = item;
    if (x->object != y->object)
        return x->object < y->object ? -1 : 1;
    if (x->space != y->space)
        return x->space < y->space ? -1 : 1;
    return x->page < y->page ? -1 : x->page > y->page;
}

struct err *history_written(struct history *h, size_t segment, uint32_t space, uint32_t object,
                            uint64_t start, uint64_t end, bool *out)
{
    const struct segment *s;
    TRY(history_part(h, segment, PART_WRITTEN, &s));
    *out = false;
    // The first page at or behind the start's.
    struct db_written key = {
        .space = space, .object = object, .page = start & ~(uint64_t)(PAGE_SIZE - 1)};
    size_t low = 0, high = s->written.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare_written(&key, &s->written.items[middle]) <= 0)
            high = middle;
        else
            low = middle + 1;
    }
    for (const struct db_written *w = s->written.items + low;
         low < s->written.count && w->space == space && w->object == object && w->page < end;
         w++, low++) {
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

/* --- sizes --- */

const char *history_content_name(enum history_content c)
{
    static const char *const names[] = {
        [CONTENT_BOUNDARIES] = "boundaries",   [CONTENT_PAGES] = "pages",
        [CONTENT_PAGE_TABLES] = "page tables", [CONTENT_WRITTEN] = "written",
        [CONTENT_BLOCKS] = "blocks",           [CONTENT_EVENTS] = "events",
        [CONTENT_STACKS] = "stacks",           [CONTENT_OTHER] = "other",
    };
    return names[c];
}

struct err *history_content_bytes(struct history *h, uint64_t out[CONTENT_COUNT])
{
    static const struct {
        uint32_t chunk;
        enum history_content content;
    } kinds[] = {
        {CHUNK_BOUNDARY, CONTENT_BOUNDARIES}, {CHUNK_PAGE_DATA, CONTENT_PAGES},
        {CHUNK_PAGES, CONTENT_PAGE_TABLES},   {CHUNK_PAGE_INDEX, CONTENT_PAGE_TABLES},
        {CHUNK_WRITTEN, CONTENT_WRITTEN},     {CHUNK_BLOCKS, CONTENT_BLOCKS},
        {CHUNK_BLOCK_INDEX, CONTENT_BLOCKS},  {CHUNK_EVENTS, CONTENT_EVENTS},
        {CHUNK_STACKS, CONTENT_STACKS},       {CHUNK_STACKS_AT, CONTENT_STACKS},
        {CHUNK_CALLS, CONTENT_EVENTS},
    };
    memset(out, 0, CONTENT_COUNT * sizeof(out[0]));
    uint64_t rest = history_bytes(h);
    for (size_t i = 0; i <= h->catalog.segments.count; i++) {
        cleanup(chunk_file_closep) struct chunk_file *segment = NULL;
        if (i < h->catalog.segments.count)
            TRY(history_open_segment(h, i, &segment));
        const struct chunk_file *f = segment ? segment : h->meta;
        for (size_t k = 0; f && k < sizeof(kinds) / sizeof(kinds[0]); k++) {
            uint64_t bytes = chunk_file_kind_bytes(f, kinds[k].chunk, NULL);
            out[kinds[k].content] += bytes;
            rest -= bytes;
        }
    }
    out[CONTENT_OTHER] = rest;
    return NULL;
}
