/* Sources of programs made here, below several directories and repositories, packed into a trace
 * and found there by its rules. */
#include "base/buf.h"
#include "pack/sources.h"
#include "pack/test_world.h"
#include "sources/sources.h"

#include <jansson.h>
#include <sys/stat.h>

/* --- asking the trace --- */

static const char *binary_name(void *ctx, size_t idx)
{
    return ctx;
}

static const char *no_id(void *ctx, size_t idx)
{
    return NULL;
}

static struct sources *open_rules(const struct world *w)
{
    const struct sources_programs p = {.ctx = (void *)(uintptr_t) "mmap_pack_0_prog",
                                       .count = 1,
                                       .binary = binary_name,
                                       .build_id = no_id};
    return sources_open(w->trace, &p, NULL, 0);
}

/* The first bytes of a file as the trace has it; heap string. NULL: it has not, and w->said is the
 * reason or the address. */
static char *text_of(struct world *w, const char *path, bool *relevant_out)
{
    struct sources *s = open_rules(w);
    struct source_place place;
    struct err *e = sources_find(s, path, &place);
    char *text = NULL;
    free(steal(w->said));
    if (e) {
        w->said = xstrdup(err_message(e));
    } else if (place.fd < 0) {
        w->said = place.url;
    } else {
        text = xcalloc(1, 300);
        assert_true(pread(place.fd, text, 299, 0) >= 0);
        close(place.fd);
    }
    if (!e)
        *relevant_out = place.is_relevant;
    err_free(e);
    sources_close(s);
    return text;
}

static void assert_text(struct world *w, const char *path, const char *start, bool relevant)
{
    bool is_relevant;
    cleanup(freep) char *text = text_of(w, path, &is_relevant);
    if (!text)
        fail_msg("%s: %s", path, w->said);
    if (!str_starts(text, start))
        fail_msg("%s: %s", path, text);
    assert_int_equal(is_relevant, relevant);
}

static void assert_no_text(struct world *w, const char *path, const char *words)
{
    bool is_relevant;
    cleanup(freep) char *text = text_of(w, path, &is_relevant);
    assert_null(text);
    if (!strstr(w->said, words))
        fail_msg("%s: %s", path, w->said);
}

/* --- packing --- */

static void pack(struct world *w, const char *const *dirs, size_t dir_count,
                 const char *const *substitutes, size_t substitute_count)
{
    const struct package_options o = {.skip_mapped_files = true,
                                      .copy_sources = dirs,
                                      .copy_source_count = dir_count,
                                      .substitutes = substitutes,
                                      .substitute_count = substitute_count,
                                      .listener = world_listener(w, true)};
    free(steal(w->said));
    assert_ok(package_trace(w->trace, &o));
}

static void assert_said(const struct world *w, const char *words)
{
    if (!w->said || !strstr(w->said, words))
        fail_msg("not said: %s\nbut:\n%s", words, w->said);
}

/* open/ may be copied, closed/ not; the first names a header by a symbolic link. */
static struct world make_world(void)
{
    struct world w = world_make();
    world_run(&w, "mkdir open open/real closed && ln -s real open/link && echo 'int one(void);' "
                  ">open/real/one.h");
    world_run(&w, "printf '#include \"link/one.h\"\\nint two(int);\\nint main(void) { return one() "
                  "+ two(1); }\\nint one(void) { return 1; }\\n' >open/main.c");
    world_run(&w, "echo 'int two(int x) { return x; }' >closed/two.c && sed -i 's/int "
                  "one(void);/static inline int inner(void) { return 3; }\\n&/' "
                  "open/real/one.h && sed -i 's/return 1/return inner()/' open/main.c");
    world_run(&w, "gcc -g -o prog $PWD/open/main.c $PWD/closed/two.c");
    world_map(&w, (const char *const[]){"prog"}, 1);
    return w;
}

static char *in(const struct world *w, const char *name)
{
    return str_format("%s/%s", w->made, name);
}

TEST(sources_below_the_given_directories_are_copied_and_a_remark_stands_for_the_others)
{
    cleanup(world_deinit) struct world w = make_world();
    cleanup(freep) char *open_dir = in(&w, "open"), *main_c = in(&w, "open/main.c"),
                        *two_c = in(&w, "closed/two.c");
    cleanup(freep) char *linked = in(&w, "open/link/one.h"), *real = in(&w, "open/real/one.h");
    cleanup(freep) char *not_uploaded = str_format(
        "Not uploading source file %s (add an allowed source directory to the command line?)\n",
        two_c);
    cleanup(freep) char *remark = str_format("/* This file was not uploaded because the path %s is "
                                             "not under the allowed directories [\"%s\"] */",
                                             two_c, open_dir);
    pack(&w, (const char *const[]){open_dir}, 1, NULL, 0);
    assert_said(&w, "Obtaining source file list...\n");
    assert_said(&w, "Packaging 0 modified and 3 non-repository files...\n");
    assert_said(&w, not_uploaded);
    world_forget(&w);
    assert_text(&w, main_c, "#include \"link/one.h\"", true);
    assert_text(&w, two_c, remark, false);
    assert_text(&w, real, "static inline", true);
    assert_text(&w, linked, "static inline", true);
    assert_no_text(&w, "/nowhere/x.c", "not in files.user/sources.zip");
    assert_no_text(&w, "/nowhere/x.c", "no directory was given with --sources");
}

TEST(a_directory_whose_name_begins_alike_is_not_copied)
{
    cleanup(world_deinit) struct world w = make_world();
    cleanup(freep) char *dir = in(&w, "clo"), *two_c = in(&w, "closed/two.c");
    world_run(&w, "mkdir clo");
    pack(&w, (const char *const[]){dir}, 1, NULL, 0);
    assert_text(&w, two_c, "/* This file was not uploaded", false);
}

TEST(a_directory_that_is_not_there_is_an_error)
{
    cleanup(world_deinit) struct world w = make_world();
    cleanup(freep) char *dir = in(&w, "gone");
    const struct package_options o = {.skip_mapped_files = true,
                                      .copy_sources = (const char *const[]){dir},
                                      .copy_source_count = 1};
    cleanup(err_freep) struct err *e = package_trace(w.trace, &o);
    assert_non_null(e);
    assert_non_null(strstr(err_message(e), "cannot copy sources from"));
}

TEST(another_directory_may_stand_for_the_one_of_compilation)
{
    cleanup(world_deinit) struct world w = world_make();
    world_run(&w, "mkdir built && echo 'int main(void) { return 0; }' >built/main.c && cd built && "
                  "gcc -g -o ../prog main.c && cd .. && mv built moved");
    world_map(&w, (const char *const[]){"prog"}, 1);
    cleanup(freep) char *moved = in(&w, "moved"), *main_c = in(&w, "moved/main.c");
    pack(&w, (const char *const[]){moved}, 1,
         (const char *const[]){"prog", moved, "other", "/nowhere"}, 2);
    assert_said(&w, "Packaging 0 modified and 1 non-repository files...\n");
    world_forget(&w);
    assert_text(&w, main_c, "int main", true);
    struct sources *s = open_rules(&w);
    assert_string_equal(sources_comp_dir(s, "mmap_pack_0_prog"), moved);
    assert_null(sources_comp_dir(s, "mmap_pack_1_other"));
    sources_close(s);
}

TEST(many_remarks_are_told_of_once)
{
    cleanup(world_deinit) struct world w = world_make();
    world_run(&w, "for i in $(seq 13); do echo \"int f$i(void) { return $i; }\" >f$i.c; done; "
                  "mkdir -p .cargo/registry/src && "
                  "echo 'int main(void) { return 0; }' >.cargo/registry/src/main.c && gcc -g -o "
                  "prog $PWD/f*.c $PWD/.cargo/registry/src/main.c");
    world_map(&w, (const char *const[]){"prog"}, 1);
    pack(&w, NULL, 0, (const char *const[]){"other", "/nowhere"}, 1);
    assert_said(&w, "Packaging 0 modified and 14 non-repository files...\n");
    assert_said(&w, "(too many disallowed-source-file warnings, suppressing the rest)\n");
    size_t told = 0;
    for (const char *at = w.said; (at = strstr(at, "Not uploading source file")); at++)
        told++;
    assert_int_equal(told, 10);
    assert_null(strstr(w.said, "cargo"));
}

/* A repository of which revision 1 is at a known host, as it seems from here; main.c is committed
 * since, other.c changed, new.c unknown to git, and same.c as at the host. */
static struct world make_repository(const char *remote)
{
    struct world w = world_make();
    world_run(&w,
              "mkdir repo && cd repo && git init -q . && git config user.email a@b && git config "
              "user.name a && "
              "for f in main other same; do echo \"int $f(void) { return 0; }\" >$f.c; done && git "
              "add . && git commit -qm one && "
              "git remote add origin '%s' && git update-ref refs/remotes/origin/master HEAD && git "
              "rev-parse HEAD >../revision && "
              "sed -i 's/return 0/return 1/' main.c && git commit -qam two && sed -i 's/return "
              "0/return 2/' other.c && "
              "echo 'int newer(void) { return 0; }' >new.c && gcc -g -o ../prog $PWD/*.c",
              remote);
    world_map(&w, (const char *const[]){"prog"}, 1);
    return w;
}

static char *revision_of(const struct world *w)
{
    cleanup(buf_deinit) struct buf b = {0};
    small_trace_read(w->made, "revision", &b);
    b.len = 40;
    return buf_steal_str(&b);
}

static void check_host(const char *remote, const char *start, const char *end)
{
    cleanup(world_deinit) struct world w = make_repository(remote);
    cleanup(freep) char *repo = in(&w, "repo"), *revision = revision_of(&w),
                        *unrelated = in(&w, "unrelated");
    cleanup(freep) char *same = in(&w, "repo/same.c"), *main_c = in(&w, "repo/main.c"),
                        *other = in(&w, "repo/other.c"), *newer = in(&w, "repo/new.c");
    cleanup(freep) char *said = str_format(
        "Git repo at %s: Checking for source files changed since revision %s in remote origin "
        "(access via "
        "%s%s/)... 1 files with committed changes, 2 files changed since HEAD, 3 overall\n",
        repo, revision, start, revision);
    cleanup(freep) char *address = str_format("%s%s/same.c%s", start, revision, end);
    world_run(&w, "mkdir unrelated");
    pack(&w, (const char *const[]){unrelated}, 1, NULL, 0);
    assert_said(&w, said);
    assert_said(&w, "Packaging 3 modified and 0 non-repository files...\n");
    world_forget(&w);
    assert_no_text(&w, same, address);
    assert_text(&w, main_c, "/* This file was not uploaded", false);
    assert_text(&w, other, "/* This file was not uploaded", false);
    assert_text(&w, newer, "/* This file was not uploaded", false);
}

TEST(a_known_host_is_named_for_files_that_are_as_there)
{
    if (!world_has("git"))
        skip();
    check_host("https://github.com/some/project.git",
               "https://raw.githubusercontent.com/some/project/", "");
    check_host("git@gitlab.com:some/project.git", "https://gitlab.com/some/project/raw/", "");
    check_host("https://host.googlesource.com/some/project",
               "https://host.googlesource.com/some/project/+/", "?format=TEXT");
}

TEST(changed_files_below_a_given_part_of_the_repository_are_copied)
{
    if (!world_has("git"))
        skip();
    cleanup(world_deinit) struct world w = make_repository("https://github.com/some/project");
    cleanup(freep) char *part = in(&w, "repo/part"), *changed = in(&w, "repo/part/p.c"),
                        *same = in(&w, "repo/same.c");
    world_run(&w, "cd repo && mkdir part && echo 'int part(void) { return 0; }' >part/p.c && gcc "
                  "-g -o ../prog $PWD/*.c $PWD/part/p.c");
    world_map(&w, (const char *const[]){"prog"}, 1);
    pack(&w, (const char *const[]){part}, 1, NULL, 0);
    world_forget(&w);
    assert_text(&w, changed, "int part", true);
    assert_no_text(&w, same, "https://raw.githubusercontent.com/some/project/");
}

TEST(a_repository_below_a_given_directory_is_copied_whole)
{
    if (!world_has("git"))
        skip();
    cleanup(world_deinit) struct world w = make_repository("https://github.com/some/project");
    cleanup(freep) char *made = xstrdup(w.made), *repo = in(&w, "repo"),
                        *same = in(&w, "repo/same.c");
    cleanup(freep) char *said = str_format(
        "Copying all files in %s\nPackaging 0 modified and 4 non-repository files...\n", repo);
    pack(&w, (const char *const[]){made}, 1, NULL, 0);
    assert_said(&w, said);
    world_forget(&w);
    assert_text(&w, same, "int same", true);
}

/* Of repositories that may be copied, and as they are now. */
TEST(scripts_for_gdb_come_along)
{
    if (!world_has("git"))
        skip();
    cleanup(world_deinit) struct world w = make_repository("https://github.com/some/project");
    cleanup(freep) char *made = xstrdup(w.made), *repo = in(&w, "repo"), *name = xstrdup(repo);
    for (char *p = name; *p; p++)
        *p = *p == '/' ? '_' : *p;
    cleanup(freep) char *said = str_format(
        "Copying file %s/.gdbinit into trace\nCopying tree %s/tools/gdb into trace\n", repo, repo);
    world_run(&w, "cd repo && mkdir -p tools/gdb/more && echo 'echo one' >.gdbinit && echo two "
                  ">tools/gdb/more/a.py && ln -s /etc/passwd tools/gdb/link");
    pack(&w, (const char *const[]){made}, 1, NULL, 0);
    assert_said(&w, said);
    world_check(
        "cd %s/gdbinit && test \"$(cat %s/.gdbinit)\" = 'echo one' && test \"$(cat "
        "%s/tools/gdb/more/a.py)\" = two && "
        "test ! -e %s/tools/gdb/link && grep -q '^source /trace/gdbinit/%s/.gdbinit$' .gdbinit && "
        "grep -q '^directory /trace/gdbinit/%s$' .gdbinit",
        w.trace, name, name, name, name, name);
    world_run(&w, "rm repo/tools/gdb/more/a.py repo/.gdbinit");
    pack(&w, (const char *const[]){made}, 1, NULL, 0);
    world_check("test ! -e %s/gdbinit/%s/tools/gdb/more/a.py && test ! -e %s/gdbinit/.gdbinit",
                w.trace, name, w.trace);
    world_run(&w, "echo x >repo/.gdbinit");
    pack(&w, (const char *const[]){"/usr/include"}, 1, NULL, 0);
    world_check("test ! -e %s/gdbinit", w.trace);
}

TEST(a_repository_of_no_known_host_is_packed_as_files)
{
    if (!world_has("git"))
        skip();
    cleanup(world_deinit) struct world w = make_repository("https://example.com/some/project"),
                                       v = make_repository("https://github.com/some/project");
    cleanup(freep) char *repo = in(&w, "repo"),
                        *unknown = str_format(
                            "No remotes found for Git repo %s, packaging files instead...\n", repo);
    cleanup(freep) char *same = in(&w, "repo/same.c"), *part = in(&w, "repo/.git"),
                        *other = in(&v, "repo");
    pack(&w, (const char *const[]){part}, 1, NULL, 0);
    assert_said(&w, unknown);
    assert_said(&w, "Packaging 4 modified and 0 non-repository files...\n");
    assert_text(&w, same, "/* This file was not uploaded", false);
    // A branch of our own that is named like one of the remote is none.
    cleanup(freep) char *no_master = str_format(
        "Can't find usable remote master for Git repo %s, packaging files instead...\n", other);
    world_run(
        &v, "cd repo && git update-ref -d refs/remotes/origin/master && git branch origin/master");
    pack(&v, (const char *const[]){"/usr/include"}, 1, NULL, 0);
    assert_said(&v, no_master);
}

TEST(what_a_repository_would_have_git_start_is_not_started)
{
    if (!world_has("git"))
        skip();
    cleanup(world_deinit) struct world w = make_repository("https://github.com/some/project");
    world_run(&w,
              "printf '#!/bin/sh\\ntouch %s/started\\n' >hook && chmod +x hook && cd repo && git "
              "config core.fsmonitor %s/hook && "
              "git config diff.external %s/hook && git config core.pager %s/hook",
              w.made, w.made, w.made, w.made);
    pack(&w, (const char *const[]){"/usr/include"}, 1, NULL, 0);
    assert_said(&w, "3 overall");
    world_run(&w, "test ! -e started");
}

TEST(a_trace_does_not_say_where_else_files_go)
{
    static const char *const places[] = {"files.user", "debug/.build-id/7f", "gdbinit"};
    for (size_t i = 0; i < 3; i++) {
        cleanup(world_deinit) struct world w = make_world();
        world_run(&w, "mkdir -p other %s/debug/.build-id && ln -s %s/other %s/%s", w.trace, w.made,
                  w.trace, places[i]);
        const struct package_options o = {.skip_mapped_files = true};
        cleanup(err_freep) struct err *e = package_trace(w.trace, &o);
        assert_non_null(e);
        assert_non_null(strstr(err_message(e), "a symbolic link where files are to be put"));
    }
}

TEST(without_options_there_is_only_the_fallback_and_it_is_kept)
{
    cleanup(world_deinit) struct world w = make_world();
    pack(&w, NULL, 0, NULL, 0);
    world_check("test ! -e %s/sources.user", w.trace);
    cleanup(freep) char *path = str_format("%s/sources.fallback", w.trace);
    json_t *written = json_load_file(path, 0, NULL);
    json_t *expected = json_pack("[{s:i, s:[{s:s, s:s}]}]", "priority", -10, "files", "url",
                                 "/sources/", "at", "/");
    assert_true(json_equal(written, expected));
    json_decref(written);
    json_decref(expected);
    small_trace_write(w.trace, "sources.fallback", "[]", 2);
    pack(&w, NULL, 0, NULL, 0);
    cleanup(buf_deinit) struct buf kept = {0};
    small_trace_read(w.trace, "sources.fallback", &kept);
    assert_int_equal(kept.len, 2);
}

TEST(the_rules_are_those_that_others_know)
{
    cleanup(world_deinit) struct world w = make_world();
    cleanup(freep) char *open_dir = in(&w, "open"), *path = str_format("%s/sources.user", w.trace);
    cleanup(freep) char *at = in(&w, "open/link"), *to = in(&w, "open/real");
    pack(&w, (const char *const[]){open_dir}, 1, (const char *const[]){"prog", w.made}, 1);
    json_t *written = json_load_file(path, 0, NULL);
    json_t *expected = json_pack(
        "[{s:{s:[{s:s}]}, s:[{s:s, s:s}, {s:s, s:s}], s:s}, {s:{s:[{s:s}]}, s:[{s:s, s:s}], s:s, "
        "s:i}, {s:{s:s}, s:s}]",
        "condition", "or", "binary", "mmap_pack_0_prog", "files", "archive",
        "files.user/sources.zip", "at", "/", "link", to, "at", at, "relevance", "Relevant",
        "condition", "or", "binary", "mmap_pack_0_prog", "files", "archive",
        "files.user/sources-placeholders.zip", "at", "/", "relevance", "NotRelevant", "priority",
        1000, "condition", "binary", "mmap_pack_0_prog", "overrideCompDir", w.made);
    assert_true(json_equal(written, expected));
    json_decref(written);
    json_decref(expected);
}

TEST_MAIN(t(sources_below_the_given_directories_are_copied_and_a_remark_stands_for_the_others),
          t(a_directory_whose_name_begins_alike_is_not_copied),
          t(a_directory_that_is_not_there_is_an_error),
          t(another_directory_may_stand_for_the_one_of_compilation),
          t(many_remarks_are_told_of_once), t(a_known_host_is_named_for_files_that_are_as_there),
          t(changed_files_below_a_given_part_of_the_repository_are_copied),
          t(a_repository_below_a_given_directory_is_copied_whole), t(scripts_for_gdb_come_along),
          t(a_repository_of_no_known_host_is_packed_as_files),
          t(what_a_repository_would_have_git_start_is_not_started),
          t(a_trace_does_not_say_where_else_files_go),
          t(without_options_there_is_only_the_fallback_and_it_is_kept),
          t(the_rules_are_those_that_others_know))
