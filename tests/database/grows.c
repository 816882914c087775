/* A database in the making is followed by an engine that has it open: there is more to ask about as
 * it grows, and when it is complete the answers are those of one that was opened then.
 *
 * grows TRACE_DIR: a copy of a small recording; a database is made in it, and taken apart and put
 * together again. */
#include "database/questions.h"
#include "index/build.h"

#include <stdio.h>
#include <unistd.h>

enum { FIRST_SEGMENTS = 2, LOOK_US = 100000, MOST_LOOKS = 300 };

static const char *dir;

static void rename_in(const char *from, const char *to)
{
    cleanup(freep) char *a = str_format("%s/%s", dir, from), *b = str_format("%s/%s", dir, to);
    if (rename(a, b) != 0)
        must(err_os("cannot rename %s", a));
}

static bool keep_row(void *ctx, json_t *row)
{
    *(json_t **)ctx = row;
    return true;
}

/* Is the database complete; how many segments. */
static bool info(struct query_engine *q, json_int_t *segments)
{
    json_t *row = NULL;
    int complete = 0;
    struct query_sink sink = {.ctx = &row, .row = keep_row};
    must(query_run(q, "info", NULL, &sink));
    json_unpack(row, "{sI, sb}", "segments", segments, "complete", &complete);
    json_decref(row);
    return complete;
}

/* Growth is looked for once in a while only. */
static bool becomes(struct query_engine *q, bool complete, json_int_t segments)
{
    for (int i = 0; i < MOST_LOOKS; i++) {
        json_int_t now;
        if (info(q, &now) == complete && now == segments)
            return true;
        usleep(LOOK_US);
    }
    return false;
}

static void answer_all(struct query_engine *q, struct buf *out)
{
    for (size_t i = 0; i < question_count; i++) {
        struct err *e = ask(q, &questions[i], out);
        if (e)
            buf_add(out, err_message(e), strlen(err_message(e)));
        err_free(e);
    }
}

static void expect(bool ok, const char *what)
{
    if (!ok) {
        printf("FAIL: %s\n", what);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    dir = argv[1];
    must(index_build(dir, &(struct build_options){.shards = 1, .segment_icount = 10007}, NULL));
    json_int_t all, some;
    cleanup(query_engine_closep) struct query_engine *whole = NULL, *growing = NULL;
    must(query_engine_open(dir, NULL, &whole));
    expect(info(whole, &all) && all > FIRST_SEGMENTS + 1, "too few segments to try it with");

    rename_in("db", "db.new");
    rename_in("db.new/meta", "meta");
    char name[32], kept[32];
    for (json_int_t i = FIRST_SEGMENTS; i < all; i++) {
        snprintf(name, sizeof(name), "db.new/%06lld", (long long)i);
        snprintf(kept, sizeof(kept), "segment-%lld", (long long)i);
        rename_in(name, kept);
    }
    must(query_engine_open(dir, NULL, &growing));
    expect(!info(growing, &some) && some == FIRST_SEGMENTS, "what is there is not what is shown");
    for (json_int_t i = FIRST_SEGMENTS; i < all; i++) {
        snprintf(name, sizeof(name), "db.new/%06lld", (long long)i);
        snprintf(kept, sizeof(kept), "segment-%lld", (long long)i);
        rename_in(kept, name);
    }
    expect(becomes(growing, false, all), "new segments are not seen");
    rename_in("meta", "db.new/meta");
    rename_in("db.new", "db");
    expect(becomes(growing, true, all), "the complete database is not seen");

    struct buf a = {0}, b = {0};
    answer_all(whole, &a);
    answer_all(growing, &b);
    expect(a.len > 1000 && a.len == b.len && memcmp(a.data, b.data, a.len) == 0,
           "other answers than of a database that was opened complete");
    buf_deinit(&a);
    buf_deinit(&b);
    return 0;
}
