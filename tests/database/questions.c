#include "database/questions.h"

#include <stdio.h>

#define AT(event) "{\"focus\": {\"moment\": {\"event\": " event ", \"instr\": 1}}}"
const struct question questions[] = {
    {"info", "{}"},
    {"registers", "{}"},
    {"registers", AT("40")},
    {"stack", "{}"},
    {"stack", AT("40")},
    {"variables", "{}"},
    {"evaluate", "{\"expression\": \"*(long *)$rsp\"}"},
    {"task-tree", "{}"},
    {"current-tasks", "{}"},
    {"maps", "{}"},
    {"maps", AT("40")},
    {"events", "{\"limit\": 5000}"},
    {"stdouterr", "{\"limit\": 100}"},
    {"signals", "{}"},
    {"search", "{\"input\": \"main\", \"maxResults\": 5}"},
    {"step", "{\"kind\": \"instruction\", \"direction\": \"backward\"}"},
};
const size_t question_count = sizeof(questions) / sizeof(questions[0]);

static bool keep_row(void *ctx, json_t *row)
{
    // How the database is made is not what it says.
    json_object_del(row, "segments");
    json_object_del(row, "databaseBytes");
    char *text = json_dumps(row, JSON_COMPACT | JSON_SORT_KEYS);
    buf_add(ctx, text, strlen(text));
    buf_u8(ctx, '\n');
    free(text);
    json_decref(row);
    return true;
}

struct err *ask(struct query_engine *q, const struct question *what, struct buf *out)
{
    json_t *params = json_loads(what->params, 0, NULL);
    struct query_sink sink = {.ctx = out, .row = keep_row};
    struct err *e = query_run(q, what->name, params, &sink);
    json_decref(params);
    return e;
}

void must(struct err *e)
{
    if (!e)
        return;
    printf("FAIL: %s\n", err_message(e));
    exit(1);
}
