/* Databases as wholes: what was put in comes out, at every boundary; damage is noticed. */
#include "db/history.h"

#include "base/test.h"
#include "db/small_history.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

enum { FILE_CAP = 1 << 20 };

/* --- directories --- */

static char *make_dir(void)
{
    char *dir = str_format("%s/db-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(dir));
    return dir;
}

static void remove_dir(char *dir)
{
    cleanup(freep) char *command = str_format("rm -rf '%s' '%s.new'", dir, dir);
    assert_int_equal(system(command), 0);
    free(dir);
}

static char *file_path(const char *dir, const char *name)
{
    return str_format("%s/%s", dir, name);
}

static size_t read_file(const char *path, uint8_t *out)
{
    cleanup(fclosep) FILE *f = fopen(path, "re");
    assert_non_null(f);
    return fread(out, 1, FILE_CAP, f);
}

static void write_file(const char *path, const uint8_t *data, size_t len)
{
    cleanup(fclosep) FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
}

/* --- comparing with the model --- */

struct gathered {
    uint8_t memory[SMALL_PAGES][PAGE_SIZE];
    uint64_t next; /* pages come in rising order */
};

static struct err *gather(void *ctx, uint64_t addr, const uint8_t *pages, size_t count)
{
    struct gathered *g = ctx;
    if (addr < g->next || addr < small_page_addr(0) ||
        addr + count * PAGE_SIZE > small_page_addr(SMALL_PAGES))
        return err_new(ERR_FORMAT, "a page at %#llx", (unsigned long long)addr);
    memcpy(g->memory[(addr - small_page_addr(0)) / PAGE_SIZE], pages, count * PAGE_SIZE);
    g->next = addr + count * PAGE_SIZE;
    return NULL;
}

static struct err *fresh(void *ctx, uint64_t addr, uint8_t *page)
{
    small_fresh_page((addr - small_page_addr(0)) / PAGE_SIZE, page);
    return NULL;
}

static struct err *memory_at(struct history *h, size_t boundary, size_t slot, struct gathered *g)
{
    bool object = slot == SMALL_SPACES;
    g->next = 0;
    for (size_t i = 0; i < SMALL_PAGES; i++) {
        if (object)
            memset(g->memory[i], 0, PAGE_SIZE);
        else
            small_fresh_page(i, g->memory[i]);
    }
    const struct page_sink sink = {g, gather, object ? NULL : fresh, NULL, NULL};
    return history_pages(h, boundary, object ? 0 : (uint32_t)slot + 1, object ? SMALL_OBJECT : 0,
                         &sink);
}

static struct err *reset(void *ctx, uint64_t start, uint64_t end)
{
    struct gathered *g = ctx;
    for (size_t i = 0; i < SMALL_PAGES; i++) {
        if (small_page_addr(i) >= start && small_page_addr(i) < end)
            small_fresh_page(i, g->memory[i]);
    }
    return NULL;
}

/* From the model's memory at another boundary, with what is said to have changed. */
static struct err *memory_from(struct history *h, const struct small_history *small, size_t from,
                               size_t to, size_t slot, struct gathered *g)
{
    const struct addr_range also = {small_page_addr(from % SMALL_PAGES),
                                    small_page_addr(from % SMALL_PAGES + 1)};
    const struct page_sink sink = {g, gather, fresh, reset, NULL};
    g->next = 0;
    memcpy(g->memory, small->at[from].memory[slot], sizeof(g->memory));
    return history_page_changes(h, from, to, (uint32_t)slot + 1, &also, 1, &sink);
}

static bool alive_between(const struct small_history *small, size_t a, size_t b, size_t slot)
{
    for (size_t i = a < b ? a : b; i <= (a < b ? b : a); i++) {
        if (!small->at[i].alive[slot])
            return false;
    }
    return true;
}

static bool same_calls(const struct segment *s, const struct small_state *state)
{
    if (s->stacks.count != state->calls.count)
        return false;
    for (size_t i = 0; i < s->stacks.count; i++) {
        const struct db_call *a = &s->stacks.items[i], *b = &state->calls.items[i];
        if (a->task != b->task || moment_cmp(a->at, b->at) != 0 || a->block != b->block ||
            a->return_addr != b->return_addr || a->sp != b->sp)
            return false;
    }
    return true;
}

/* Everything in the database against the model. *same_out: whether it agrees. */
static struct err *compare(const char *dir, const struct small_history *small, bool *same_out)
{
    *same_out = true;
    cleanup(history_closep) struct history *h = NULL;
    TRY(history_open(dir, small->plan.trace, &h));
    size_t count;
    const struct history_segment *segments = history_segments(h, &count);
    struct gathered *g = xnew(struct gathered);
    cleanup(freep) struct gathered *guard = g;
    *same_out &= count == small->count && segments[0].start.event == 0 &&
                 segments[count - 1].icount_start == 100 * (count - 1);
    for (size_t i = 0; i < count && *same_out; i++) {
        const struct segment *s;
        for (int part = PART_BOUNDARY; part <= PART_CALLS; part++)
            TRY(history_part(h, i, (enum segment_part)part, &s));
        TRY(history_part(h, i, PART_BOUNDARY, &s));
        cleanup(freep) char *state = str_format("state %zu", i);
        *same_out &=
            s->state.len == strlen(state) && memcmp(s->state.data, state, s->state.len) == 0;
        TRY(history_part(h, i, PART_EVENTS, &s));
        *same_out &= s->events.count == 1 && s->events.items[0].number == i + 1 &&
                     s->events.items[0].syscall_no == -1 &&
                     s->events.items[0].time == 1.5 + (double)i &&
                     s->kernel_writes.items[0].addr == 0x1000 * i;
        TRY(history_part(h, i, PART_CALLS, &s));
        cleanup(freep) char *second = str_format("path %zu 1", i);
        const struct db_call_text *text = &s->call_texts.items[1];
        *same_out &= s->buffered_calls.count == 1 && s->buffered_calls.items[0].args[5] == i &&
                     s->buffered_calls.items[0].recorded == 16 && s->call_texts.count == 2 &&
                     text->at.event == i && text->idx == 1 && text->len == strlen(second) &&
                     memcmp(s->call_text.data + text->off, second, text->len) == 0;
        TRY(history_part(h, i, PART_PAGES, &s));
        uint64_t changed = 0;
        vec_each (run, &s->runs)
            changed += run->count;
        *same_out &= history_changed_pages(h, i) == changed;
        TRY(history_stacks(h, i, &s));
        *same_out &= same_calls(s, &small->at[i]);
        for (size_t slot = 0; slot <= SMALL_SPACES; slot++) {
            if (!small->at[i].alive[slot])
                continue;
            TRY(memory_at(h, i, slot, g));
            *same_out &= memcmp(g->memory, small->at[i].memory[slot], sizeof(g->memory)) == 0;
            size_t other = (i * 7 + slot) % count;
            if (slot == SMALL_SPACES || !alive_between(small, i, other, slot))
                continue;
            TRY(memory_from(h, small, other, i, slot, g));
            *same_out &= memcmp(g->memory, small->at[i].memory[slot], sizeof(g->memory)) == 0;
        }
    }
    uint64_t bytes[CONTENT_COUNT];
    return history_content_bytes(h, bytes);
}

static void assert_same(const char *dir, const struct small_history *small)
{
    bool same = false;
    assert_ok(compare(dir, small, &same));
    assert_true(same);
}

/* --- tests --- */

TEST(memory_and_calls_at_every_boundary_are_those_of_the_model)
{
    for (uint64_t seed = 1; seed <= 6; seed++) {
        char *dir = make_dir();
        struct small_history *small;
        assert_ok(small_history_create(dir, seed, 40, &small));
        assert_same(dir, small); // in the making
        assert_ok(history_join(dir, &small->plan, small->count, 3));
        assert_same(dir, small);
        small_history_destroy(small);
        remove_dir(dir);
    }
}

TEST(a_database_in_the_making_is_found_beside_where_it_will_be)
{
    char *dir = make_dir();
    cleanup(freep) char *unfinished = str_format("%s.new", dir);
    assert_int_equal(rename(dir, unfinished), 0);
    struct small_history *small;
    assert_ok(small_history_create(unfinished, 5, 20, &small));
    struct history *h;
    assert_ok(history_open_best(dir, small->plan.trace, &h));
    assert_false(history_complete(h));
    history_close(h);
    // A segment that is cut off ends what there is.
    cleanup(freep) char *path = history_segment_path(unfinished, 7);
    assert_int_equal(truncate(path, 100), 0);
    assert_ok(history_open_best(dir, small->plan.trace, &h));
    size_t count;
    history_segments(h, &count);
    assert_int_equal(count, 7);
    history_close(h);
    small_history_destroy(small);
    remove_dir(dir);
}

static void assert_fails(const char *dir, const struct small_history *small, enum err_kind kind,
                         const char *words)
{
    bool same;
    struct err *e = compare(dir, small, &same);
    assert_non_null(e);
    if (err_kind(e) != kind || !strstr(err_message(e), words))
        fail_msg("%s", err_message(e));
    err_free(e);
}

TEST(files_of_other_databases_and_versions_are_refused)
{
    char *dir = make_dir(), *other_dir = make_dir();
    struct small_history *small, *other;
    assert_ok(small_history_create(dir, 3, 10, &small));
    assert_ok(history_join(dir, &small->plan, small->count, 3));
    assert_ok(small_history_create(other_dir, 4, 10, &other));
    uint8_t *data = xmalloc(FILE_CAP), *had = xmalloc(FILE_CAP);
    cleanup(freep) char *path = history_segment_path(dir, 5), *wrong = history_segment_path(dir, 6),
                        *foreign = history_segment_path(other_dir, 5);
    size_t had_len = read_file(path, had);
    write_file(path, data, read_file(foreign, data));
    assert_fails(dir, small, ERR_FORMAT, "000005: at 0x10: belongs to another build");
    write_file(path, data, read_file(wrong, data));
    assert_fails(dir, small, ERR_FORMAT, "000005: at 0xc: another file of a database");
    write_file(path, (const uint8_t *)"hello", 5);
    assert_fails(dir, small, ERR_FORMAT, "000005: at 0x5: not a file of a pernosco database");
    memcpy(data, had, had_len);
    data[8] = 1;
    write_file(path, data, had_len);
    assert_fails(dir, small, ERR_UNSUPPORTED,
                 "database version 1, this program reads 3: build it again");
    unlink(path);
    assert_fails(dir, small, ERR_NOT_FOUND, "000005: at 0x0: the file is not there");
    write_file(path, had, had_len);
    assert_same(dir, small);
    static const uint8_t trace[16] = {9};
    struct history *h;
    struct err *e = history_open(dir, trace, &h);
    assert_non_null(e);
    assert_non_null(strstr(err_message(e), "made from another trace"));
    err_free(e);
    free(data);
    free(had);
    small_history_destroy(small);
    small_history_destroy(other);
    remove_dir(dir);
    remove_dir(other_dir);
}

/* The answer is right, or an error that names the file and a place in it. */
static void check_damage(const char *dir, const struct small_history *small, const char *name,
                         const char *how, size_t at)
{
    bool same = false;
    struct err *e = compare(dir, small, &same);
    cleanup(freep) char *want = str_format("%s: at 0x", name);
    if (!e && !same)
        fail_msg("%s %s at %#zx: a wrong answer", name, how, at);
    if (e && !strstr(err_message(e), want))
        fail_msg("%s %s at %#zx: %s", name, how, at, err_message(e));
    err_free(e);
}

TEST(every_byte_of_every_file_flipped_or_cut_off_is_noticed)
{
    char *dir = make_dir();
    struct small_history *small;
    assert_ok(small_history_create(dir, 8, 2, &small));
    assert_ok(history_join(dir, &small->plan, small->count, 3));
    static const char *const names[] = {"plan", "meta", "000000", "000001"};
    uint8_t *data = xmalloc(FILE_CAP);
    for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
        cleanup(freep) char *path = file_path(dir, names[k]);
        size_t len = read_file(path, data);
        cleanup(closep) int fd = open(path, O_RDWR | O_CLOEXEC);
        // All of the small files, every thirteenth byte of the others in turn.
        for (size_t i = 0; i < len; i += len < 2000 ? 1 : 13) {
            uint8_t flipped = data[i] ^ (uint8_t)(1 << i % 8);
            assert_int_equal(pwrite(fd, &flipped, 1, (off_t)i), 1);
            check_damage(dir, small, names[k], "flipped", i);
            assert_int_equal(pwrite(fd, &data[i], 1, (off_t)i), 1);
        }
        for (size_t i = len; i-- > 0; i -= len < 2000 || i < 13 ? 0 : 12) {
            assert_int_equal(ftruncate(fd, (off_t)i), 0);
            check_damage(dir, small, names[k], "cut", i);
        }
        assert_int_equal(pwrite(fd, data, len, 0), len);
        assert_int_equal(pwrite(fd, "x", 1, (off_t)len), 1);
        check_damage(dir, small, names[k], "grown", len);
        assert_int_equal(ftruncate(fd, (off_t)len), 0);
        assert_same(dir, small);
    }
    free(data);
    small_history_destroy(small);
    remove_dir(dir);
}

TEST_MAIN(t(memory_and_calls_at_every_boundary_are_those_of_the_model),
          t(a_database_in_the_making_is_found_beside_where_it_will_be),
          t(files_of_other_databases_and_versions_are_refused),
          t(every_byte_of_every_file_flipped_or_cut_off_is_noticed))
