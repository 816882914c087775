/* Answers depend on the recording alone: not on the size of segments, the number of shards, the
 * compression level, nor on what was asked before.
 *
 * variants TRACE_DIR: a copy of a small recording; databases are made in it. */
#include "database/questions.h"
#include "index/build.h"

#include <stdio.h>

static const struct build_options variants[] = {
    {.shards = 1, .compression_level = 3},
    {.shards = 1, .compression_level = 1, .segment_icount = 10007},
    {.shards = 3, .compression_level = 19, .segment_icount = 40009},
};
enum { VARIANT_COUNT = sizeof(variants) / sizeof(variants[0]), LEAST_ANSWER = 4000 };

static struct buf answers[VARIANT_COUNT];

/* Rows or error: both are the answer. */
static void answer(struct query_engine *q, const struct question *what, struct buf *out)
{
    buf_add(out, what->name, strlen(what->name));
    buf_add(out, what->params, strlen(what->params));
    buf_u8(out, '\n');
    struct err *e = ask(q, what, out);
    if (e && err_kind(e) == ERR_USAGE)
        must(e);
    if (e)
        buf_add(out, err_message(e), strlen(err_message(e)));
    err_free(e);
    buf_u8(out, '\n');
}

static bool keep_row(void *ctx, json_t *row)
{
    json_array_append_new(ctx, row);
    return true;
}

static json_t *rows_of(struct query_engine *q, const char *name, json_t *params)
{
    json_t *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row};
    must(query_run(q, name, params, &sink));
    json_decref(params);
    return rows;
}

/* What can only be asked with a function's or address's value from another answer. */
static void answer_derived(struct query_engine *q, struct buf *out)
{
    json_t *found = rows_of(q, "search", json_pack("{ss, si}", "input", "main", "maxResults", 1));
    const char *id = NULL;
    json_unpack(json_array_get(found, 0), "{s{s{ss}}}", "action", "function", "id", &id);
    json_t *registers = rows_of(q, "registers", NULL);
    const char *sp = NULL;
    for (size_t i = 0; i < json_array_size(registers); i++) {
        json_t *row = json_array_get(registers, i);
        if (str_eq(json_string_value(json_object_get(row, "name")), "rsp"))
            sp = json_string_value(json_object_get(row, "value"));
    }
    static const char *const directions[] = {"forward", "backward"};
    for (int k = 0; k < 2; k++) {
        const char *from = k ? "" : ", \"from\": {\"event\": 0, \"instr\": 0}";
        cleanup(freep) char *calls =
            str_format("{\"function\": \"%s\", \"direction\": \"%s\", \"limit\": 20%s}", id,
                       directions[k], from);
        cleanup(freep) char *writes = str_format(
            "{\"address\": \"%s\", \"length\": 64, \"direction\": \"%s\", \"limit\": 4%s}", sp,
            directions[k], from);
        answer(q, &(struct question){"execution", calls}, out);
        answer(q, &(struct question){"watchpoint", writes}, out);
    }
    cleanup(freep) char *memory = str_format("{\"address\": \"%s\", \"length\": 4096}", sp);
    answer(q, &(struct question){"memory", memory}, out);
    json_decref(found);
    json_decref(registers);
}

static void answer_all(const char *trace_dir, size_t variant)
{
    cleanup(query_engine_closep) struct query_engine *q = NULL;
    must(query_engine_open(trace_dir, NULL, &q));
    bool backwards = variant % 2;
    struct buf *out = &answers[variant];
    cleanup(buf_deinit) struct buf derived = {0};
    if (backwards)
        answer_derived(q, &derived);
    // In one order or the other, so that other things are in the caches; put down in one.
    struct buf *each = xnew_array(struct buf, question_count);
    for (size_t k = 0; k < question_count; k++) {
        size_t i = backwards ? question_count - 1 - k : k;
        answer(q, &questions[i], &each[i]);
    }
    if (!backwards)
        answer_derived(q, &derived);
    for (size_t i = 0; i < question_count; i++) {
        buf_add(out, each[i].data, each[i].len);
        buf_deinit(&each[i]);
    }
    free(each);
    buf_add(out, derived.data, derived.len);
    buf_u8(out, 0);
}

static void print_difference(const char *a, const char *b)
{
    size_t i = 0;
    while (a[i] && a[i] == b[i])
        i++;
    while (i > 0 && a[i - 1] != '\n')
        i--;
    printf("  %.*s\n  %.*s\n", (int)strcspn(a + i, "\n"), a + i, (int)strcspn(b + i, "\n"), b + i);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    int bad = 0;
    for (size_t v = 0; v < VARIANT_COUNT; v++) {
        must(index_build(argv[1], &variants[v], NULL));
        answer_all(argv[1], v);
        if (answers[v].len == answers[0].len &&
            memcmp(answers[v].data, answers[0].data, answers[0].len) == 0)
            continue;
        printf("FAIL: variant %zu has other answers:\n", v);
        print_difference((const char *)answers[0].data, (const char *)answers[v].data);
        bad = 1;
    }
    if (answers[0].len < LEAST_ANSWER) {
        printf("FAIL: hardly any answers: %s\n", (const char *)answers[0].data);
        bad = 1;
    }
    for (size_t v = 0; v < VARIANT_COUNT; v++)
        buf_deinit(&answers[v]);
    return bad;
}
