/* Rules written by hand, some by an attacker, in a directory that stands for a trace. */
#include "base/buf.h"
#include "base/test.h"
#include "sources/archive.h"
#include "sources/sources.h"

#include <fcntl.h>
#include <sys/stat.h>

static char dir[] = "/tmp/sources-test-XXXXXX";

static void write_text(const char *name, const char *text)
{
    cleanup(freep) char *path = str_format("%s/%s", dir, name);
    cleanup(fclosep) FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
}

/* An archive of one file. */
static void write_archive(const char *name, const char *file, const char *text)
{
    cleanup(freep) char *path = str_format("%s/%s", dir, name);
    cleanup(archive_writer_closep) struct archive_writer *w = NULL;
    assert_ok(archive_create(path, &w));
    assert_ok(archive_add(w, file, text, strlen(text)));
    assert_ok(archive_finish(w));
}

static const char *const binaries[] = {"mmap_pack_0_prog", "mmap_pack_1_lib.so"};
static unsigned ids_asked;

static const char *binary_name(void *ctx, size_t idx)
{
    return binaries[idx];
}

static const char *build_id(void *ctx, size_t idx)
{
    ids_asked++;
    return idx == 1 ? "c0ffee" : NULL;
}

static struct sources *open_rules(const char *offered)
{
    const struct sources_programs p = {.count = 2, .binary = binary_name, .build_id = build_id};
    const char *const pairs[] = {"/offered", offered};
    return sources_open(dir, &p, pairs, offered ? 1 : 0);
}

/* What is found of a file, as one text: "TEXT" or "at ADDRESS" or "not found: WHY"; with a "-"
 * before if it is not relevant. */
static void assert_found(struct sources *s, const char *path, const char *expected)
{
    struct source_place place = {.fd = -1, .is_relevant = true};
    char text[1000] = "";
    cleanup(freep) char *found = NULL;
    struct err *e = sources_find(s, path, &place);
    if (e)
        found = str_format("not found: %s", err_message(e));
    else if (place.fd < 0)
        found = str_format("%sat %s", place.is_relevant ? "" : "-", place.url);
    else if (pread(place.fd, text, sizeof(text) - 1, 0) >= 0)
        found = str_format("%s%s", place.is_relevant ? "" : "-", text);
    if (!strstr(found, expected) || (!e && !str_eq(found, expected)))
        fail_msg("%s: %s", path, found);
    assert_int_equal(sources_is_relevant(s, path), place.is_relevant);
    if (!e)
        free(place.url);
    if (place.fd >= 0)
        close(place.fd);
    err_free(e);
}

static void assert_one(const char *rules, const char *path, const char *expected)
{
    write_text("sources.user", rules);
    struct sources *s = open_rules(NULL);
    assert_found(s, path, expected);
    sources_close(s);
}

static void set_up(void)
{
    cleanup(freep) char *command =
        str_format("rm -rf %s && mkdir -p %s/files.user %s/offered/sub", dir, dir, dir);
    assert_int_equal(system(command), 0);
    write_archive("files.user/a.zip", "/src/a.c", "text a");
    write_archive("files.user/b.zip", "/src/a.c", "text b");
    write_text("offered/sub/o.c", "text o");
}

#define A "{\"archive\": \"files.user/a.zip\", \"at\": \"/\"}"
#define B "{\"archive\": \"files.user/b.zip\", \"at\": \"/\"}"

TEST(a_later_mount_lies_over_an_earlier_one)
{
    set_up();
    assert_one("[{\"files\": [" A "]}]", "/src/a.c", "text a");
    assert_one("[{\"files\": [" A ", " B "]}]", "/src/a.c", "text b");
    assert_one("[{\"files\": [" B ", " A "]}]", "/src/a.c", "text a");
    assert_one("[{\"files\": [" A "]}, {\"files\": [" B "]}]", "/src/a.c", "text b");
    assert_one("[{\"files\": [" A "]}]", "/src/b.c", "not in files.user/a.zip");
}

TEST(a_higher_priority_comes_first)
{
    set_up();
    assert_one("[{\"files\": [" A "], \"priority\": 2}, {\"files\": [" B "], \"priority\": 1}]",
               "/src/a.c", "text a");
    assert_one("[{\"files\": [" A "], \"priority\": -2}, {\"files\": [" B "], \"priority\": -1}]",
               "/src/a.c", "text b");
    assert_one("[{\"files\": [" A "]}, {\"files\": [" B "], \"priority\": -1}]", "/src/a.c",
               "text a");
}

TEST(the_rule_that_has_a_file_says_whether_it_is_relevant)
{
    set_up();
    assert_one("[{\"files\": [" A "], \"relevance\": \"NotRelevant\"}]", "/src/a.c", "-text a");
    assert_one("[{\"files\": [" A "], \"relevance\": \"Relevant\"}]", "/src/a.c", "text a");
    assert_one("[{\"files\": [{\"link\": \"/src\", \"at\": \"/l\"}]}, {\"files\": [" A
               "], \"relevance\": \"NotRelevant\"}]",
               "/l/a.c", "-text a");
    assert_one(
        "[{\"files\": [{\"url\": \"https://h/\", \"at\": \"/\"}], \"relevance\": \"NotRelevant\"}]",
        "/a.c", "-at https://h/a.c");
}

TEST(a_rule_holds_if_a_program_meets_its_condition)
{
    set_up();
    assert_one("[{\"condition\": {\"binary\": \"mmap_pack_1_lib.so\"}, \"files\": [" A "]}]",
               "/src/a.c", "text a");
    assert_one("[{\"condition\": {\"binary\": \"other\"}, \"files\": [" A "]}]", "/src/a.c",
               "not found: ");
    assert_one("[{\"condition\": {\"or\": [{\"binary\": \"other\"}, {\"binary\": "
               "\"mmap_pack_0_prog\"}]}, \"files\": [" A "]}]",
               "/src/a.c", "text a");
    assert_one("[{\"condition\": {\"or\": []}, \"files\": [" A "]}]", "/src/a.c", "not found: ");
    assert_int_equal(ids_asked, 0);
    assert_one("[{\"condition\": {\"build_id\": \"c0ffee\"}, \"files\": [" A "]}]", "/src/a.c",
               "text a");
    assert_one("[{\"condition\": {\"build_id\": \"c0ffee\", \"binary\": \"mmap_pack_0_prog\"}, "
               "\"files\": [" A "]}]",
               "/src/a.c", "not found: ");
    assert_int_not_equal(ids_asked, 0);
    assert_one("[{\"condition\": {\"weather\": \"good\"}, \"files\": [" A "]}]", "/src/a.c",
               "not found: ");
}

TEST(a_directory_of_compilation_is_for_those_that_meet_the_condition)
{
    set_up();
    write_text(
        "sources.user",
        "[{\"condition\": {\"binary\": \"mmap_pack_1_lib.so\"}, \"overrideCompDir\": \"/x\"}]");
    struct sources *s = open_rules(NULL);
    assert_string_equal(sources_comp_dir(s, "mmap_pack_1_lib.so"), "/x");
    assert_null(sources_comp_dir(s, "mmap_pack_0_prog"));
    sources_close(s);
}

TEST(addresses_are_made_of_their_parts)
{
    set_up();
    assert_one(
        "[{\"files\": [{\"url\": \"https://h/r/\", \"at\": \"/p/\", \"urlSuffix\": \"?x\"}]}]",
        "/p/d/a.c", "at https://h/r/d/a.c?x");
    assert_one("[{\"files\": [{\"url\": \"https://h/r\", \"at\": \"/p\"}]}]", "/p/a.c",
               "at https://h/r/a.c");
    assert_one("[{\"files\": [{\"url\": \"https://h/r\", \"at\": \"/p\"}]}]", "/px/a.c",
               "not found: ");
    assert_one("[{\"files\": [{\"url\": \"javascript:alert(1)/\", \"at\": \"/\"}]}]", "/a.c",
               "none of the web");
    // What can be shown is shown.
    assert_one("[{\"files\": [{\"url\": \"https://h/r\", \"at\": \"/src\"}], \"priority\": 5}, "
               "{\"files\": [" A "]}]",
               "/src/a.c", "text a");
}

TEST(offered_directories_are_the_last_resort_or_where_a_rule_says)
{
    set_up();
    cleanup(freep) char *offered = str_format("%s/offered", dir);
    struct sources *s = open_rules(offered);
    assert_found(s, "/offered/sub/o.c", "text o");
    assert_found(s, "/offered/../sources.user", "not an absolute path");
    assert_found(s, "/offered/sub", "not found in the directories given with --sources");
    sources_close(s);
    write_text("sources.user",
               "[{\"files\": [{\"url\": \"/sources/offered/\", \"at\": \"/elsewhere\"}]}]");
    s = open_rules(offered);
    assert_found(s, "/elsewhere/sub/o.c", "text o");
    sources_close(s);
    write_text("sources.fallback", "[]");
    write_text("sources.user", "[]");
    s = open_rules(offered);
    assert_found(s, "/offered/sub/o.c", "no rule has it");
    sources_close(s);
}

TEST(a_symbolic_link_does_not_lead_out_of_an_offered_directory)
{
    set_up();
    cleanup(freep) char *offered = str_format("%s/offered", dir),
                        *link = str_format("%s/offered/out.c", dir);
    write_text("secret", "secret");
    assert_int_equal(symlink("../secret", link), 0);
    struct sources *s = open_rules(offered);
    assert_found(s, "/offered/out.c", "not found: ");
    sources_close(s);
}

TEST(links_are_followed_and_loops_end)
{
    set_up();
    assert_one("[{\"files\": [" A
               ", {\"link\": \"/src\", \"at\": \"/l\"}, {\"link\": \"/l\", \"at\": \"/m/n\"}]}]",
               "/m/n/a.c", "text a");
    assert_one("[{\"files\": [{\"link\": \"/l\", \"at\": \"/l\"}]}]", "/l/a.c", "not found: ");
    // Each would be followed by all others.
    cleanup(buf_deinit) struct buf rules = {0};
    buf_str(&rules, "[{\"files\": [" A);
    for (int i = 0; i < 1000; i++)
        buf_str(&rules, ", {\"link\": \"/\", \"at\": \"/\"}");
    buf_str(&rules, "]}]");
    assert_one(buf_cstr(&rules), "/src/b.c", "not found: ");
}

TEST(an_archive_is_one_of_the_trace)
{
    set_up();
    assert_one("[{\"files\": [{\"archive\": \"/etc/passwd\", \"at\": \"/\"}]}]", "/src/a.c",
               "archive /etc/passwd is not in the trace");
    assert_one("[{\"files\": [{\"archive\": \"files.user/../../x.zip\", \"at\": \"/\"}]}]",
               "/src/a.c", "is not in the trace");
    assert_one("[{\"files\": [{\"archive\": \"gone.zip\", \"at\": \"/\"}]}]", "/src/a.c",
               "gone.zip: No such file");
    write_text("files.user/c.zip", "no archive");
    assert_one("[{\"files\": [{\"archive\": \"files.user/c.zip\", \"at\": \"/\"}]}]", "/src/a.c",
               "no zip archive");
}

TEST(damaged_rules_are_left_out_and_told)
{
    static const char *const rules[] = {"",
                                        "[",
                                        "{}",
                                        "[1]",
                                        "[{\"files\": [{}]}]",
                                        "[{\"files\": [{\"at\": \"x\", \"url\": \"y\"}]}]",
                                        "[{\"files\": [{\"at\": \"/\"}]}]",
                                        "[{\"condition\": [], \"files\": 1}]",
                                        "\xff"};
    set_up();
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        assert_one(rules[i], "/src/a.c", "not found: ");
    assert_one("[", "/src/a.c", "sources.user: line 1: ");
    write_text("sources.extra", "[{\"files\": [" A "]}]");
    assert_one("[", "/src/a.c", "text a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        t(a_later_mount_lies_over_an_earlier_one),
        t(a_higher_priority_comes_first),
        t(the_rule_that_has_a_file_says_whether_it_is_relevant),
        t(a_rule_holds_if_a_program_meets_its_condition),
        t(a_directory_of_compilation_is_for_those_that_meet_the_condition),
        t(addresses_are_made_of_their_parts),
        t(offered_directories_are_the_last_resort_or_where_a_rule_says),
        t(a_symbolic_link_does_not_lead_out_of_an_offered_directory),
        t(links_are_followed_and_loops_end),
        t(an_archive_is_one_of_the_trace),
        t(damaged_rules_are_left_out_and_told)};
    if (!mkdtemp(dir))
        return 2;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cleanup(freep) char *command = str_format("rm -rf %s", dir);
    return system(command) != 0 || failed;
}
