/* Overlays made here by tar and xz, some by hand, unpacked into the trace of a program. */
#include "base/buf.h"
#include "pack/overlays.h"
#include "pack/test_world.h"

#include <sys/stat.h>

static char *build_id_of(const struct world *w)
{
    cleanup(programs_closep) struct programs *p = NULL;
    assert_ok(programs_open(w->trace, NULL, NULL, &p));
    return xstrdup(sym_module_build_id(p->files.items[0].sym));
}

/* A trace of a program without debug information: one of the system's. */
static struct world make_world(void)
{
    struct world w = world_make();
    world_run(&w, "mkdir repo in && cp /bin/true prog");
    world_map(&w, (const char *const[]){"prog"}, 1);
    return w;
}

static void write_manifest(const struct world *w, const char *text)
{
    small_trace_write(w->made, "manifest", text, strlen(text));
    world_run(w, "xz -0 -c manifest >repo/trace-overlay.manifest.xz");
}

static struct err *unpack(struct world *w)
{
    cleanup(programs_closep) struct programs *p = NULL;
    cleanup(freep) char *repo = str_format("%s/repo", w->made);
    const struct pack_listener listener = world_listener(w, true);
    free(steal(w->said));
    assert_ok(programs_open(w->trace, NULL, NULL, &p));
    return pack_overlays(w->trace, p, repo, &listener);
}

static void assert_fails(struct err *e, enum err_kind kind, const char *words)
{
    assert_non_null(e);
    if (err_kind(e) != kind || !strstr(err_message(e), words))
        fail_msg("%s", err_message(e));
    err_free(e);
}

TEST(overlays_that_have_a_programs_build_id_are_unpacked_in_order)
{
    cleanup(world_deinit) struct world w = make_world();
    world_run(
        &w, "echo 'int twice(int x) { return 2 * x; } int main(void) { return twice(1); }' >a.c && "
            "gcc -g -Wl,--build-id -o prog a.c && cp prog whole && strip prog");
    world_map(&w, (const char *const[]){"prog"}, 1);
    cleanup(freep) char *id = build_id_of(&w);
    world_run(&w,
              "mkdir -p in/debug/.build-id/%.2s && objcopy --only-keep-debug whole "
              "in/debug/.build-id/%.2s/%s.debug && "
              "echo first >in/debug/note && XZ_OPT=-0 tar -C in -cJf repo/one.tar.xz ./debug && "
              "echo second >in/debug/note && "
              "ln -s note in/debug/link && ln in/debug/note in/debug/same && XZ_OPT=-0 tar -C in "
              "-cJf repo/two.tar.xz debug && echo damaged >repo/other.tar.xz",
              id, id, id + 2);
    cleanup(freep) char *manifest = str_format(
        "{\"overlays\": {\"two.tar.xz\": [\"00\", \"%s\"], \"other.tar.xz\": [\"0123\"], "
        "\"one.tar.xz\": [\"%s\"]}}",
        id, id);
    write_manifest(&w, manifest);
    assert_ok(unpack(&w));
    cleanup(freep) char *said = str_format(
        "Unpacking %s/repo/one.tar.xz into trace...\nUnpacking %s/repo/two.tar.xz into trace...\n",
        w.made, w.made);
    assert_string_equal(w.said, said);
    world_check("test $(cat %s/debug/note %s/debug/link %s/debug/same | grep -c second) = 3",
                w.trace, w.trace, w.trace);
    cleanup(freep) char *path = str_format("%s/mmap_pack_0_prog", w.trace),
                        *debug = str_format("%s/debug", w.trace);
    cleanup(sym_module_closep) struct sym_module *m = NULL;
    assert_ok(sym_module_open(path, debug, &m));
    assert_null(sym_module_no_dwarf(m));
    assert_ok(unpack(&w)); // again: replaced
}

TEST(only_directories_are_read)
{
    cleanup(world_deinit) struct world w = make_world();
    const struct package_options o = {.skip_mapped_files = true,
                                      .system_debuginfo = (const char *const[]){"s3://bucket/x"},
                                      .system_debuginfo_count = 1};
    assert_fails(package_trace(w.trace, &o), ERR_USAGE, "s3://bucket/x: only directories are read");
}

TEST(a_manifest_that_is_damaged_is_an_error)
{
    cleanup(world_deinit) struct world w = make_world();
    assert_fails(unpack(&w), ERR_OS, "trace-overlay.manifest.xz");
    write_manifest(&w, "{\"overlays\": ");
    assert_fails(unpack(&w), ERR_FORMAT, "line 1");
    write_manifest(&w, "[]");
    assert_fails(unpack(&w), ERR_FORMAT, "no overlays");
    world_run(&w, "truncate -s 40 repo/trace-overlay.manifest.xz");
    assert_fails(unpack(&w), ERR_FORMAT, "trace-overlay.manifest.xz");
    cleanup(freep) char *id = build_id_of(&w),
                        *outside = str_format(
                            "{\"overlays\": {\"../x.tar.xz\": [\"%s\"], \"y.tar.xz\": 1}}", id);
    write_manifest(&w, outside);
    assert_fails(unpack(&w), ERR_FORMAT, "is not in that directory");
    world_check("test ! -e %s/debug", w.trace);
}

/* ---- Entries by hand ---- */

struct entry {
    const char *name;
    char type; /* tar(5): '0' a file, '1' a hard link, '2' a symbolic link, '3' a device, '5' a
                  directory, '6' a FIFO */
    const char *target;
};

/* A header of the format ustar, and four bytes of a file. */
static void add_entry(struct buf *tar, const struct entry *e)
{
    char block[512] = "";
    unsigned sum = 0;
    strcpy(block, e->name);
    strcpy(block + 100, "0000777");
    strcpy(block + 108, "0000000");
    strcpy(block + 116, "0000000");
    strcpy(block + 124, e->type == '0' ? "00000000004" : "00000000000");
    strcpy(block + 136, "00000000000");
    memset(block + 148, ' ', 8);
    block[156] = e->type;
    strcpy(block + 157, e->target ? e->target : "");
    memcpy(block + 257, "ustar\00000", 8);
    for (size_t i = 0; i < sizeof(block); i++)
        sum += (uint8_t)block[i];
    snprintf(block + 148, 8, "%06o", sum);
    buf_add(tar, block, sizeof(block));
    if (e->type == '0') {
        buf_add(tar, "evil", 4);
        buf_zeros(tar, 508);
    }
}

static void write_overlay(const struct world *w, const struct entry *entries, size_t count)
{
    cleanup(buf_deinit) struct buf tar = {0};
    for (size_t i = 0; i < count; i++)
        add_entry(&tar, &entries[i]);
    buf_zeros(&tar, 1024);
    small_trace_write(w->made, "x.tar", tar.data, tar.len);
    world_run(w, "xz -0 -c x.tar >repo/x.tar.xz");
}

/* A world whose trace is in a directory, beside which nothing must appear or change; in the trace a
 * link leads there. */
static struct world make_enclosed_world(void)
{
    struct world w = make_world();
    cleanup(freep) char *id = build_id_of(&w),
                        *manifest = str_format("{\"overlays\": {\"x.tar.xz\": [\"%s\"]}}", id);
    write_manifest(&w, manifest);
    world_run(
        &w, "mkdir outer && mv %s outer/trace && echo kept >outer/file && ln -s .. outer/trace/up",
        w.trace);
    free(w.trace);
    w.trace = str_format("%s/outer/trace", w.made);
    return w;
}

static void enclosed_world_deinit(struct world *w)
{
    free(w->trace);
    w->trace = str_format("%s/outer", w->made);
    world_deinit(w);
}

static struct err *unpack_entries(struct world *w, const struct entry *entries, size_t count)
{
    write_overlay(w, entries, count);
    struct err *e = unpack(w);
    world_run(w, "test \"$(ls -A outer)\" = \"$(printf 'file\\ntrace')\" && test $(cat outer/file) "
                 "= kept && "
                 "test \"$(head -c 4 outer/trace/mmaps | tr -d '\\0')\" != evil && rm -rf "
                 "outer/trace/debug outer/trace/p");
    return e;
}

#define UNPACK(...)                                         \
    unpack_entries(&w, (const struct entry[]){__VA_ARGS__}, \
                   sizeof((const struct entry[]){__VA_ARGS__}) / sizeof(struct entry))

TEST(entries_do_not_leave_the_trace)
{
    cleanup(enclosed_world_deinit) struct world w = make_enclosed_world();
    assert_fails(UNPACK({"../file", '0', NULL}), ERR_FORMAT, "entry ../file would lie outside");
    assert_fails(UNPACK({"debug/../../file", '0', NULL}), ERR_FORMAT, "would lie outside");
    assert_fails(UNPACK({"/tmp/pernosco-evil", '0', NULL}), ERR_FORMAT, "no relative name");
    assert_fails(UNPACK({"up/file", '0', NULL}), ERR_OS, "cannot open directory up");
    assert_fails(UNPACK({"up/new", '5', NULL}), ERR_OS, "cannot open directory up");
    assert_fails(UNPACK({"debug", '2', ".."}), ERR_FORMAT, "may lead out");
    assert_fails(UNPACK({"debug/a", '2', "/etc"}), ERR_FORMAT, "may lead out");
    assert_fails(UNPACK({"debug/a", '2', "../.."}), ERR_FORMAT, "may lead out");
    assert_fails(UNPACK({"debug/r", '2', ".."}, {"p", '2', "debug/r/.."}), ERR_FORMAT,
                 "may lead out");
    assert_fails(UNPACK({"debug/r", '2', ".."}, {"debug/r/x", '0', NULL}), ERR_OS,
                 "cannot open directory debug/r");
    assert_fails(UNPACK({"debug/h", '1', "../file"}), ERR_FORMAT, "would lie outside");
    assert_fails(UNPACK({"debug/h", '1', "up/file"}), ERR_OS, "cannot open directory up");
    assert_ok(UNPACK({"debug/.build-id/ab/c.debug", '0', NULL},
                     {"debug/.build-id/ab/d.debug", '2', "../ab/c.debug"}));
    assert_ok(UNPACK({"./", '5', NULL}, {"./debug//x", '0', NULL}));
}

TEST(the_recording_itself_is_not_replaced)
{
    cleanup(enclosed_world_deinit) struct world w = make_enclosed_world();
    assert_fails(UNPACK({"mmaps", '0', NULL}), ERR_FORMAT, "would replace a file of the recording");
    assert_fails(UNPACK({"./events", '2', "data"}), ERR_FORMAT, "would replace");
    assert_fails(UNPACK({"mmap_pack_0_prog", '0', NULL}), ERR_FORMAT, "would replace");
    assert_fails(UNPACK({"db/meta", '0', NULL}), ERR_FORMAT, "would replace");
    assert_fails(UNPACK({"debug/h", '1', "version"}), ERR_FORMAT, "would replace");
}

TEST(other_things_than_files_are_refused)
{
    cleanup(enclosed_world_deinit) struct world w = make_enclosed_world();
    assert_fails(UNPACK({"debug/fifo", '6', NULL}), ERR_FORMAT,
                 "neither file nor directory nor link");
    assert_fails(UNPACK({"debug/dev", '3', NULL}), ERR_FORMAT,
                 "neither file nor directory nor link");
}

TEST(damaged_overlays_give_errors)
{
    cleanup(world_deinit) struct world w = make_world();
    cleanup(freep) char *id = build_id_of(&w),
                        *manifest = str_format("{\"overlays\": {\"x.tar.xz\": [\"%s\"]}}", id);
    cleanup(buf_deinit) struct buf whole = {0};
    cleanup(freep) char *repo = str_format("%s/repo", w.made);
    write_manifest(&w, manifest);
    assert_fails(unpack(&w), ERR_OS, "x.tar.xz");
    write_overlay(&w, (const struct entry[]){{"debug/a", '0', NULL}, {"debug/b", '2', "a"}}, 2);
    small_trace_read(repo, "x.tar.xz", &whole);
    size_t failed = 0;
    for (size_t len = 0; len < whole.len; len += 9) {
        small_trace_write(repo, "x.tar.xz", whole.data, len);
        struct err *e = unpack(&w);
        failed += e != NULL;
        err_free(e);
    }
    assert_int_equal(failed, (whole.len + 8) / 9);
}

TEST_MAIN(t(overlays_that_have_a_programs_build_id_are_unpacked_in_order),
          t(only_directories_are_read), t(a_manifest_that_is_damaged_is_an_error),
          t(entries_do_not_leave_the_trace), t(the_recording_itself_is_not_replaced),
          t(other_things_than_files_are_refused), t(damaged_overlays_give_errors))
