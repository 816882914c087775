/* Packing a small trace whose two mapped files are hard links. */
#include "base/buf.h"
#include "base/test.h"
#include "pack/pack.h"
#include "trace/small_trace.h"
#include "trace/trace.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* The trace, and beside it what it links to. */
struct world {
    char *dir, *outside;
};

static char *in(const char *dir, const char *name)
{
    return str_format("%s/%s", dir, name);
}

static bool exists(const char *dir, const char *name)
{
    cleanup(freep) char *path = in(dir, name);
    return access(path, F_OK) == 0;
}

static void link_to(const struct world *w, const char *outside, const char *name)
{
    cleanup(freep) char *from = in(w->outside, outside), *to = in(w->dir, name);
    assert_int_equal(link(from, to), 0);
}

static void write_outside(const struct world *w, const char *name, size_t len, uint8_t first)
{
    cleanup(freep) uint8_t *data = xcalloc(1, len + 1);
    data[0] = first;
    small_trace_write(w->outside, name, data, len);
}

static struct world make_world(uint8_t second_files_first_byte)
{
    struct world w = {.dir = small_trace_create(1 << 16)};
    w.outside = str_format("%s-outside", w.dir);
    assert_int_equal(mkdir(w.outside, 0700), 0);
    write_outside(&w, "some.so", SMALL_TRACE_FILE_LEN, 1);
    write_outside(&w, "other.so", SMALL_TRACE_FILE_LEN, second_files_first_byte);
    link_to(&w, "some.so", "mmap_hardlink_2_some.so");
    link_to(&w, "other.so", "mmap_hardlink_3_some.so");
    return w;
}

static void world_deinit(struct world *w)
{
    small_trace_destroy(w->dir);
    small_trace_destroy(w->outside);
}

/* The names of the two backing files; heap strings. */
static void read_names(const char *dir, char *out[2])
{
    cleanup(trace_closep) struct trace *t = NULL;
    assert_ok(trace_open(dir, &t));
    size_t count;
    const struct trace_mmap *m = trace_mmaps(t, &count);
    assert_int_equal(count, SMALL_TRACE_MMAPS);
    for (size_t i = 0; i < 2; i++) {
        out[i] = xstrdup(m[2 + i].backing_file);
        assert_int_equal(m[2 + i].stat_mode, 0);
        assert_int_equal(m[2 + i].stat_mtime, 0);
        assert_int_equal(m[2 + i].stat_size, SMALL_TRACE_FILE_LEN);
    }
}

static void assert_names(const char *dir, const char *first, const char *second)
{
    char *names[2];
    read_names(dir, names);
    assert_string_equal(names[0], first);
    assert_string_equal(names[1], second);
    free(names[0]);
    free(names[1]);
}

TEST(links_become_copies_and_go_away)
{
    cleanup(world_deinit) struct world w = make_world(2);
    assert_ok(pack_trace(w.dir));
    assert_names(w.dir, "mmap_pack_0_some.so", "mmap_pack_1_some.so");
    assert_false(exists(w.dir, "mmap_hardlink_2_some.so"));
    assert_false(exists(w.dir, "mmap_hardlink_3_some.so"));
    assert_false(exists(w.dir, "pack_mmaps"));
    write_outside(&w, "some.so", 1,
                  9); // what happens to the original is no concern of the trace any more
    cleanup(buf_deinit) struct buf copy = {0};
    small_trace_read(w.dir, "mmap_pack_0_some.so", &copy);
    assert_int_equal(copy.len, SMALL_TRACE_FILE_LEN);
    assert_int_equal(copy.data[0], 1);
    struct stat st;
    cleanup(freep) char *path = in(w.dir, "mmap_pack_0_some.so");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_nlink, 1);
}

TEST(equal_files_are_kept_once)
{
    cleanup(world_deinit) struct world w = make_world(1);
    assert_ok(pack_trace(w.dir));
    assert_names(w.dir, "mmap_pack_0_some.so", "mmap_pack_0_some.so");
    assert_false(exists(w.dir, "mmap_pack_1_some.so"));
}

TEST(a_packed_trace_is_left_alone)
{
    cleanup(world_deinit) struct world w = make_world(2);
    assert_ok(pack_trace(w.dir));
    cleanup(freep) char *mmaps = in(w.dir, "mmaps");
    struct stat before, after;
    assert_int_equal(stat(mmaps, &before), 0);
    assert_ok(pack_trace(w.dir));
    assert_int_equal(stat(mmaps, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_true(before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
    assert_names(w.dir, "mmap_pack_0_some.so", "mmap_pack_1_some.so");
}

TEST(an_interrupted_run_is_finished_by_the_next)
{
    cleanup(world_deinit) struct world w = make_world(2);
    small_trace_write(w.dir, "mmap_pack_0_some.so", "half", 4);
    small_trace_write(w.dir, "pack_mmaps", "half", 4);
    assert_ok(pack_trace(w.dir));
    assert_names(w.dir, "mmap_pack_1_some.so", "mmap_pack_2_some.so");
    assert_false(exists(w.dir, "mmap_pack_0_some.so"));
    assert_false(exists(w.dir, "pack_mmaps"));
}

static void assert_refused(const struct world *w, enum err_kind kind, const char *words)
{
    cleanup(buf_deinit) struct buf before = {0}, after = {0};
    small_trace_read(w->dir, "mmaps", &before);
    cleanup(err_freep) struct err *e = pack_trace(w->dir);
    assert_non_null(e);
    assert_int_equal(err_kind(e), kind);
    assert_non_null(strstr(err_message(e), words));
    small_trace_read(w->dir, "mmaps", &after);
    assert_int_equal(before.len, after.len);
    assert_memory_equal(before.data, after.data, after.len);
    assert_true(exists(w->dir, "mmap_hardlink_3_some.so"));
}

TEST(a_file_that_changed_or_went_is_refused_and_nothing_is_touched)
{
    cleanup(world_deinit) struct world w = make_world(2);
    write_outside(&w, "some.so", SMALL_TRACE_FILE_LEN + 1, 1);
    assert_refused(&w, ERR_FORMAT, "changed since the recording");
    cleanup(freep) char *linked = in(w.dir, "mmap_hardlink_2_some.so");
    assert_int_equal(unlink(linked), 0);
    assert_refused(&w, ERR_NOT_FOUND, "gone");
}

TEST_MAIN(t(links_become_copies_and_go_away), t(equal_files_are_kept_once),
          t(a_packed_trace_is_left_alone), t(an_interrupted_run_is_finished_by_the_next),
          t(a_file_that_changed_or_went_is_refused_and_nothing_is_touched))
