/* Trees of what rules and archives say, also where they were written to get elsewhere. */
#include "sources/tree.h"

#include "base/buf.h"
#include "base/test.h"
#include "sources/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

static char dir[] = "/tmp/sources-tree-XXXXXX";

static char *in(const char *name)
{
    return str_format("%s/%s", dir, name);
}

static void write_text(const char *name, const char *text)
{
    cleanup(freep) char *path = in(name);
    cleanup(fclosep) FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
}

/* names: pairs of a name and a text, NULL at the end. */
static void write_archive(const char *name, const char *const *names)
{
    cleanup(freep) char *path = in(name);
    cleanup(archive_writer_closep) struct archive_writer *w = NULL;
    assert_ok(archive_create(path, &w));
    for (; *names; names += 2)
        assert_ok(archive_add(w, names[0], names[1], strlen(names[1])));
    assert_ok(archive_finish(w));
}

static void assert_file(const char *path, const char *expected)
{
    cleanup(freep) char *full = str_format("%s/out%s", dir, path);
    char text[100] = "";
    cleanup(closep) int fd = open(full, O_RDONLY | O_CLOEXEC);
    if (!expected) {
        assert_int_equal(fd, -1);
        return;
    }
    assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) >= 0);
    assert_string_equal(text, expected);
}

static const char *binary_name(void *ctx, size_t idx)
{
    return "prog";
}

static void lay_out(void)
{
    cleanup(freep) char *trace = in("trace"), *out = in("out"), *mine = in("mine");
    const char *const pairs[] = {"/home/u", mine};
    const struct sources_beside beside = {pairs, 1};
    const struct sources_programs programs = {.count = 1, .binary = binary_name};
    struct sources *s = sources_open(trace, &programs, NULL, 0);
    assert_ok(sources_lay_out(s, out, ".relative", &beside));
    sources_close(s);
}

TEST(files_links_and_what_is_beside_them)
{
    static const char *const files[] = {"home/u/p/a.c",
                                        "packed a",
                                        "/home/u/p/sub/b.c",
                                        "packed b",
                                        "../up.c",
                                        "no",
                                        "home/../../up.c",
                                        "no",
                                        "x/..",
                                        "no",
                                        "home/u/p/dir/",
                                        "",
                                        "old/c.c/d.c",
                                        "d",
                                        "old/c.c",
                                        "no place left",
                                        NULL};
    static const char *const others[] = {"home/u/p/kept.c", "it was not uploaded", NULL};
    write_archive("trace/s.zip", files);
    write_archive("trace/others.zip", others);
    write_text("trace/sources.user",
               "[{\"files\": [{\"archive\": \"s.zip\", \"at\": \"/\"}, {\"link\": \"/home/u/p\", "
               "\"at\": \"/build/p\"},"
               " {\"link\": \"/nowhere\", \"at\": \"/lost\"}, {\"link\": \"/../../etc\", \"at\": "
               "\"/etc\"}, {\"link\": \"/home/u/p/sub\", \"at\": \"/home/u/p/sub\"}]},"
               " {\"overrideCompDir\": \"/home/u/p\", \"condition\": {\"binary\": \"prog\"}},"
               " {\"overrideCompDir\": \"/nowhere\", \"condition\": {\"binary\": \"prog\"}},"
               " {\"files\": [{\"archive\": \"others.zip\", \"at\": \"/\"}], \"relevance\": "
               "\"NotRelevant\", \"priority\": 1000}]");
    write_text("mine/p/a.c", "my a");
    write_text("mine/p/kept.c", "my own");
    write_text("mine/other.c", "beside");
    lay_out();
    assert_file("/home/u/p/a.c", "packed a");
    assert_file("/home/u/p/sub/b.c", "packed b");
    assert_file("/build/p/sub/b.c", "packed b");
    assert_file("/home/u/p/kept.c", "my own"); // not what stands for it
    assert_file("/home/u/other.c", "beside");
    assert_file("/.relative/0/a.c", "packed a");
    assert_file("/.relative/1", NULL);
    assert_file("/up.c", NULL);
    assert_file("/../up.c", NULL);
    assert_file("/etc/passwd", NULL);
    assert_file("/lost", NULL);
    cleanup(freep) char *up = in("up.c");
    assert_int_equal(access(up, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {t(files_links_and_what_is_beside_them)};
    if (!mkdtemp(dir))
        return 2;
    cleanup(freep) char *make = str_format("mkdir -p %s/trace %s/out %s/mine/p", dir, dir, dir),
                        *remove = str_format("rm -rf %s", dir);
    int failed = system(make) != 0 || cmocka_run_group_tests(tests, NULL, NULL);
    return system(remove) != 0 || failed;
}
