/* Archives as written here, and as an attacker may have changed them. */
#include "base/test.h"
#include "sources/archive.h"

#include <fcntl.h>
#include <sys/stat.h>

static char path[] = "/tmp/archive-test-XXXXXX";

static void write_file(const uint8_t *data, size_t len)
{
    cleanup(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, data, len), len);
}

static void read_file(struct buf *out)
{
    cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    buf_reserve(out, (size_t)st.st_size);
    assert_int_equal(read(fd, out->data, (size_t)st.st_size), st.st_size);
    out->len = (size_t)st.st_size;
}

static void make_archive(void)
{
    cleanup(archive_writer_closep) struct archive_writer *w = NULL;
    cleanup(freep) char *zeros = xcalloc(1, 1 << 20);
    assert_ok(archive_create(path, &w));
    assert_ok(archive_add(w, "/src/a.c", "int a;\n", 7));
    assert_ok(archive_add(w, "/src/empty.c", NULL, 0));
    assert_ok(archive_add(w, "/src/\xc3\xa4.c", "int b;\n", 7));
    assert_ok(archive_add(w, "/src/zeros.c", zeros, 1 << 20));
    assert_ok(archive_finish(w));
}

static void assert_entry(const struct archive *a, const char *name, const char *text)
{
    cleanup(buf_deinit) struct buf out = {0};
    assert_true(archive_has(a, name));
    assert_ok(archive_read(a, name, 1000, &out));
    assert_int_equal(out.len, strlen(text));
    assert_memory_equal(out.data, text, out.len);
}

static void assert_refused(const struct archive *a, const char *name, size_t most,
                           enum err_kind kind, const char *words)
{
    cleanup(buf_deinit) struct buf out = {0};
    cleanup(err_freep) struct err *e = archive_read(a, name, most, &out);
    assert_non_null(e);
    assert_int_equal(err_kind(e), kind);
    if (!strstr(err_message(e), words))
        fail_msg("%s", err_message(e));
    assert_int_equal(out.len, 0);
}

TEST(what_was_written_is_read)
{
    cleanup(archive_closep) struct archive *a = NULL;
    make_archive();
    assert_ok(archive_open(path, &a));
    assert_entry(a, "/src/a.c", "int a;\n");
    assert_entry(a, "src/\xc3\xa4.c", "int b;\n");
    assert_entry(a, "/src/empty.c", "");
    assert_false(archive_has(a, "/src"));
    assert_false(archive_has(a, "/src/b.c"));
    assert_refused(a, "/src/b.c", 1000, ERR_NOT_FOUND, "no /src/b.c in it");
}

TEST(the_same_files_make_the_same_archive)
{
    cleanup(buf_deinit) struct buf first = {0}, second = {0};
    make_archive();
    read_file(&first);
    make_archive();
    read_file(&second);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
}

TEST(an_archive_that_was_not_finished_is_not_there)
{
    cleanup(archive_writer_closep) struct archive_writer *w = NULL;
    unlink(path);
    assert_ok(archive_create(path, &w));
    assert_ok(archive_add(w, "a.c", "x", 1));
    archive_writer_close(steal(w));
    assert_int_not_equal(access(path, F_OK), 0);
    cleanup(freep) char *temporary = str_format("%s.new", path);
    assert_int_not_equal(access(temporary, F_OK), 0);
}

/* A megabyte of zeros takes a thousandth of that. */
TEST(more_than_the_bound_is_not_unpacked)
{
    cleanup(archive_closep) struct archive *a = NULL;
    make_archive();
    assert_ok(archive_open(path, &a));
    assert_refused(a, "/src/zeros.c", 1000, ERR_LIMIT, "more than 1000 bytes");
    cleanup(buf_deinit) struct buf out = {0};
    assert_ok(archive_read(a, "/src/zeros.c", 1 << 20, &out));
    assert_int_equal(out.len, 1 << 20);
}

TEST(a_false_size_makes_no_difference)
{
    cleanup(buf_deinit) struct buf file = {0};
    cleanup(archive_closep) struct archive *a = NULL;
    make_archive();
    read_file(&file);
    for (size_t i = 0; i + 46 < file.len; i++)
        if (memcmp(file.data + i, "PK\1\2", 4) == 0)
            memset(file.data + i + 24, 0x7f, 4); // APPNOTE 4.3.12: uncompressed size
    write_file(file.data, file.len);
    assert_ok(archive_open(path, &a));
    cleanup(buf_deinit) struct buf out = {0};
    struct err *e = archive_read(a, "/src/a.c", 1000, &out);
    assert_true(e || out.len == 7);
    err_free(e);
}

TEST(damage_is_told)
{
    cleanup(buf_deinit) struct buf file = {0};
    cleanup(archive_closep) struct archive *a = NULL, *encrypted = NULL, *odd = NULL;
    make_archive();
    read_file(&file);
    uint8_t *directory = memmem(file.data, file.len, "PK\1\2", 4);
    uint8_t *local = file.data;
    directory[8] |= 1, local[6] |= 1;
    write_file(file.data, file.len);
    assert_ok(archive_open(path, &encrypted));
    assert_refused(encrypted, "/src/a.c", 1000, ERR_FORMAT, "encrypted");
    directory[8] &= 0xfe, local[6] &= 0xfe;
    directory[10] = local[8] = 14; // LZMA
    write_file(file.data, file.len);
    assert_ok(archive_open(path, &odd));
    assert_refused(odd, "/src/a.c", 1000, ERR_FORMAT, "compressed in a way that is not known");
    directory[10] = local[8] = 8;
    directory[16] ^= 1, local[14] ^= 1; // CRC-32
    write_file(file.data, file.len);
    assert_ok(archive_open(path, &a));
    assert_refused(a, "/src/a.c", 1000, ERR_FORMAT, "checksum");
}

/* Whatever the bytes: an error or an answer. */
TEST(damaged_archives_give_errors)
{
    cleanup(buf_deinit) struct buf file = {0};
    make_archive();
    read_file(&file);
    unsigned short state48[3] = {1, 2, 3};
    for (size_t i = 0; i < 400; i++) {
        cleanup(freep) uint8_t *copy = xmemdup(file.data, file.len);
        for (int k = 0; i >= 200 && k < 4; k++)
            copy[(size_t)nrand48(state48) % file.len] = (uint8_t)nrand48(state48);
        write_file(copy, i < 200 ? file.len * i / 200 : file.len);
        cleanup(archive_closep) struct archive *a = NULL;
        struct err *e = archive_open(path, &a);
        static const char *const names[] = {"src/a.c", "src/empty.c", "src/zeros.c"};
        for (size_t k = 0; !e && k < 3; k++) {
            cleanup(buf_deinit) struct buf out = {0};
            err_free(archive_read(a, names[k], 1 << 16, &out));
        }
        err_free(e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {t(what_was_written_is_read),
                                       t(the_same_files_make_the_same_archive),
                                       t(an_archive_that_was_not_finished_is_not_there),
                                       t(more_than_the_bound_is_not_unpacked),
                                       t(a_false_size_makes_no_difference),
                                       t(damage_is_told),
                                       t(damaged_archives_give_errors)};
    int fd = mkstemp(path);
    if (fd < 0)
        return 2;
    close(fd);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
