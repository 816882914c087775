/* Damage to a database, asked through the query engine.
 *
 *   on the disk   a bit flipped, or the file cut, at many places: every question gets the right answer, or an error that names the
 *                 file and a place in it
 *   a lie         a chunk with other contents whose checksums are right: index_check() says so
 *
 * damage TRACE_DIR: a copy of a small recording; databases are made in it. */
#include "base/random.h"
#include "database/questions.h"
#include "index/build.h"
#include "index/check.h"

#include <fcntl.h>
#include <sys/stat.h>

enum {
    PLACES = 60 /* in each file */,
    SEGMENT_ICOUNT = 10000,
    MOST_FILES = 4,
    LEAST_QUESTIONS = 8
};

static unsigned failures;

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("FAIL: ", stdout);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
    failures++;
}

static uint64_t random_state = 88172645463325252ull;
/* --- damage on the disk --- */

/* Asks an engine that was just opened. */
static struct err *ask_fresh(const char *trace_dir, const struct question *what, struct buf *out)
{
    cleanup(query_engine_closep) struct query_engine *q = NULL;
    TRY(query_engine_open(trace_dir, NULL, &q));
    return ask(q, what, out);
}

/* Answers from the whole database. Questions that have none for this recording are left out. */
struct answer {
    const struct question *question;
    struct buf text;
};
static VEC(struct answer) right;

static void learn_answers(const char *trace_dir)
{
    for (size_t i = 0; i < question_count; i++) {
        struct answer a = {&questions[i], {0}};
        struct err *e = ask_fresh(trace_dir, a.question, &a.text);
        if (!e)
            vec_push(&right, a);
        err_free(e);
    }
    if (right.count < LEAST_QUESTIONS)
        fail("only %zu questions have answers", right.count);
}

static void ask_damaged(const char *trace_dir, const char *file, const char *how, size_t at)
{
    cleanup(freep) char *place = str_format("/%s: at 0x", file);
    // Two of the questions at each place, so that many places can be tried.
    for (int k = 0; k < 2; k++) {
        const struct answer *a = &right.items[next_random(&random_state) % right.count];
        cleanup(buf_deinit) struct buf text = {0};
        struct err *e = ask_fresh(trace_dir, a->question, &text);
        if (e && !strstr(err_message(e), place))
            fail("%s %s at %#zx: %s: %s", file, how, at, a->question->name, err_message(e));
        else if (!e && (text.len != a->text.len || memcmp(text.data, a->text.data, text.len) != 0))
            fail("%s %s at %#zx: %s: another answer", file, how, at, a->question->name);
        err_free(e);
    }
}

static void damage_file(const char *trace_dir, const char *db, const char *file)
{
    cleanup(freep) char *path = str_format("%s/%s", db, file);
    cleanup(closep) int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        fail("cannot open %s", path);
        return;
    }
    size_t len = (size_t)st.st_size;
    cleanup(freep) uint8_t *data = xmalloc(len);
    if (pread(fd, data, len, 0) != (ssize_t)len) {
        fail("cannot read %s", path);
        return;
    }
    for (int k = 0; k < PLACES; k++) {
        // Headers are at the start and, small as they are, hardly ever hit by chance.
        size_t at = k < PLACES / 4 ? next_random(&random_state) % 80 % len
                                   : next_random(&random_state) % len;
        uint8_t flipped = data[at] ^ (uint8_t)(1 << next_random(&random_state) % 8);
        bool cut = k % 5 == 4;
        bool done = cut ? ftruncate(fd, (off_t)at) == 0 : pwrite(fd, &flipped, 1, (off_t)at) == 1;
        ask_damaged(trace_dir, file, cut ? "cut" : "flipped", at);
        if (!done || pwrite(fd, data, len, 0) != (ssize_t)len)
            fail("cannot write %s", path);
    }
}

/* --- lies --- */

/* Writes a segment's file anew with one byte of an unpacked chunk changed. */
static struct err *tell_lie(const char *path, const struct chunk_file *had, uint32_t lie,
                            size_t place, size_t places)
{
    cleanup(freep) char *fresh = str_format("%s.lie", path);
    cleanup(chunk_writer_abandonp) struct chunk_writer *w = NULL;
    TRY(chunk_writer_create(fresh, chunk_file_id(had), 1, &w));
    for (uint32_t kind = CHUNK_BOUNDARY; kind <= CHUNK_PAGE_DATA; kind++) {
        size_t count;
        chunk_file_kind_bytes(had, kind, &count);
        for (size_t i = 0; i < count; i++) {
            cleanup(buf_deinit) struct buf data = {0};
            TRY(chunk_file_read(had, kind, i, &data));
            if (kind == lie && i == 0)
                data.data[data.len * (2 * place + 1) / (2 * places)] ^= 4;
            TRY(chunk_writer_add(w, kind, &data));
        }
    }
    TRY(chunk_writer_finish(steal(w)));
    return rename(fresh, path) == 0 ? NULL : err_os("cannot name %s", path);
}

static struct err *go_on(void *ctx, struct replay *r)
{
    return NULL;
}

static struct err *check(const char *db, struct trace *t)
{
    cleanup(history_closep) struct history *h = NULL;
    TRY(history_open(db, trace_header(t)->uuid, &h));
    return index_check(h, t, go_on, NULL);
}

static void check_lies(const char *db, struct trace *t)
{
    enum { LIES = 10 };
    cleanup(freep) char *path = history_segment_path(db, 1),
                        *true_path = str_format("%s.true", path);
    must(check(db, t));
    if (rename(path, true_path) != 0)
        fail("cannot rename %s", path);
    for (uint32_t kind = CHUNK_BOUNDARY; kind <= CHUNK_PAGE_DATA; kind++) {
        for (size_t place = 0; place < LIES; place++) {
            cleanup(chunk_file_closep) struct chunk_file *had = NULL;
            must(chunk_file_open(AT_FDCWD, true_path, true_path,
                                 (struct file_id){0, FILE_SEGMENT, 1}, &had));
            must(tell_lie(path, had, kind, place, LIES));
            struct err *e = check(db, t);
            if (!e)
                fail("chunk kind %u: byte %zu of %d changed and not noticed", kind, place, LIES);
            err_free(e);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    const struct build_options options = {
        .shards = 1, .compression_level = 3, .segment_icount = SEGMENT_ICOUNT};
    must(index_build(argv[1], &options, NULL));
    cleanup(freep) char *db = str_format("%s/db", argv[1]);
    learn_answers(argv[1]);
    static const char *const files[MOST_FILES] = {"plan", "meta", "000000", "000001"};
    for (size_t i = 0; i < MOST_FILES; i++)
        damage_file(argv[1], db, files[i]);
    cleanup(trace_closep) struct trace *t = NULL;
    must(trace_open(argv[1], &t));
    check_lies(db, t);
    vec_each (a, &right)
        buf_deinit(&a->text);
    vec_deinit(&right);
    return failures ? 1 : 0;
}
