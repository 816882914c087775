/* Values that went from task to task, of a recording of tests/programs/streams.c or flows.c: made()
 * is called with bytes that are written, got() with bytes that were read, and all bytes made under
 * a name are got in that order under it. So where a byte got came from is the very byte made, and
 * the byte made is used by who has got it. */
#include "check.h"
#include "rows.h"

#include "base/buf.h"
#include "index/build.h"
#include "query/query.h"
#include "trace/trace.h"

#include <string.h>

enum { MOST_BYTES = 64 };

/* How the bytes of a name come, or what has to be in the reason why that is not known. */
struct expectation {
    const char *name;
    const char *through; /* "fill": they are in the same memory, where fill() put them; "copy": some
                            row tells of a copy from there; "any" */
    const char *why;
    bool forward; /* also ask for uses of the first ones made */
};
static const struct expectation streams[] = {
    {"pipe", "pipe", NULL, true},         {"first", "pipe", NULL, false},
    {"pipeline", "pipe", NULL, true},     {"there", "socket", NULL, true},
    {"back", "socket", NULL, false},      {"messages", "socket", NULL, true},
    {"writers", "socket", NULL, false},   {"self", "pipe", NULL, true},
    {"exec", "pipe", NULL, false},        {"large", "pipe", NULL, false},
    {"file", "file", NULL, true},         {"file-again", "file", NULL, false},
    {"file-end", "file", NULL, false},    {"file-moved", "file", NULL, false},
    {"file-new", "file", NULL, false},    {"fifo", "pipe", NULL, false},
    {"unix", "socket", NULL, true},       {"unix-answer", "socket", NULL, false},
    {"tcp", "socket", NULL, true},        {"tcp-answer", "socket", NULL, false},
    {"passed", "pipe", NULL, true},       {"thread", "pipe", NULL, false},
    {"path", "pipe", NULL, true},         {"again", "pipe", NULL, false},
    {"exec-closed", "pipe", NULL, false}, {"memory", "file", NULL, true},
    {"datagram", "socket", NULL, false},  {"spliced", "pipe", NULL, true},
    {"zero", NULL, "a device", false},    {"crowd", NULL, "at the same time", false},
    {"cut", NULL, "cut off", false},
};
static const struct expectation flows[] = {
    {"write-private", "file", NULL, true},
    {"write-shared", "file", NULL, true},
    {"write-part", "file", NULL, false},
    {"hole", NULL, "cut off", false},
    {"store-read", "mapping", NULL, true},
    {"store-seen", "fill", NULL, false},
    {"store-private", "mapping", NULL, true},
    {"store-mixed", "any", NULL, false},
    {"piped", "pipe", NULL, true},
    {"piped-on", "mapping", NULL, true},
    {"store-again", "mapping", NULL, true},
    {"cut", NULL, "cut off", false},
    {"gone", "mapping", NULL, true},
    {"gone-part", "mapping", NULL, true},
    {"gone-over", "file", NULL, true},
    {"memfd-seen", "file", NULL, true},
    {"memfd-stored", "mapping", NULL, true},
    {"forked", "fill", NULL, true},
    {"vm-read", "process", NULL, true},
    {"vm-write", "process", NULL, true},
    {"mem-read", "process", NULL, true},
    {"mem-write", "process", NULL, true},
    {"peek", "process", NULL, true},
    {"poke", "copy", NULL, false},
    {"splice", "pipe", NULL, true},
    {"sendfile", "pipe", NULL, true},
    {"sendfile-socket", "socket", NULL, true},
    {"splice-socket", "socket", NULL, true},
    {"copy", "file", NULL, true},
    {"splice-file", "file", NULL, true},
    {"event", "eventfd", NULL, true},
    {"events", NULL, "the sum", false},
    {"event-first", NULL, "wrote as much", false},
    {"tcp", "socket", NULL, true},
    {"tcp-answer", "socket", NULL, true},
    {"unix", "socket", NULL, true},
    {"unix-answer", "socket", NULL, true},
    {"many", "socket", NULL, true},
    {"argument", "copy", NULL, true},
    {"variable", "copy", NULL, true},
};
enum { NAMES = 64 };
static const struct expectation *expected = streams;
static size_t names = sizeof(streams) / sizeof(streams[0]);

struct one_byte {
    uint64_t task, at;
};
static VEC(struct one_byte) made[NAMES], got[NAMES];

static json_t *ask(struct query_engine *q, const char *name, json_t *params)
{
    json_t *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row};
    must(query_run(q, name, params, &sink));
    json_decref(params);
    return rows;
}

static uint64_t number(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);
    return json_is_string(v) ? strtoull(json_string_value(v), NULL, 0)
                             : (uint64_t)json_integer_value(v);
}

static uint64_t task_of(const json_t *o)
{
    return number(json_object_get(o, "task"), "serial");
}

static const char *argument(const json_t *call, size_t i)
{
    const char *text = json_string_value(json_object_get(
        json_object_get(json_array_get(json_object_get(call, "args"), i), "value"), "text"));
    return text ? text : "";
}

/* Which name a call of made() or got() has; NAMES: none that is tested. */
static size_t name_of(const json_t *call)
{
    const char *text = strchr(argument(call, 0), '"');
    for (size_t i = 0; text && i < names; i++) {
        size_t len = strlen(expected[i].name);
        if (strncmp(text + 1, expected[i].name, len) == 0 && text[1 + len] == '"')
            return i;
    }
    return NAMES;
}

static json_t *calls_of(struct query_engine *q, const char *function)
{
    return ask(q, "execution",
               json_pack("{ss, si, ss, s{si, si}}", "function", function, "limit", 1000,
                         "direction", "forward", "from", "event", 0, "instr", 0));
}

/* The row that tells of byte i how it came to be read, the last time before it was got: no row
 * above it is of that kind. */
static const json_t *teller(const json_t *rows, uint64_t i, const json_t *above)
{
    size_t k;
    json_t *row;
    json_array_foreach(rows, k, row)
    {
        const char *kind = json_string_value(json_object_get(row, "kind"));
        bool tells = strcmp(kind, "transfer") == 0 || strcmp(kind, "input") == 0 ||
                     strcmp(kind, "file") == 0;
        if (tells && row != above && i - number(row, "offset") < number(row, "length"))
            return row;
    }
    return NULL;
}

static void check_byte(const json_t *call, size_t name, size_t i, const json_t *row,
                       const struct one_byte *byte)
{
    struct moment m = row_moment(call);
    const char *kind = json_string_value(json_object_get(row, "kind")),
               *why = json_string_value(json_object_get(row, "why"));
    const char *through = json_string_value(json_object_get(row, "through"));
    char *text = json_dumps(row, JSON_ENCODE_ANY);
    if (expected[name].why) {
        CHECK(kind && strcmp(kind, "transfer") != 0 && why && strstr(why, expected[name].why),
              "byte %zu of %s at %llu+%llu: %s", i, expected[name].name,
              (unsigned long long)m.event, (unsigned long long)m.icount, text);
        free(text);
        return;
    }
    const json_t *writer = json_object_get(row, "writer");
    struct moment written = row_moment(writer);
    uint64_t from = number(json_object_get(row, "from"), "address") + i - number(row, "offset");
    bool any = strcmp(expected[name].through, "any") == 0;
    CHECK(through && (any || strcmp(through, expected[name].through) == 0) && from == byte->at &&
              task_of(writer) == byte->task && moment_cmp(written, m) < 0,
          "byte %zu of %s at %llu+%llu: made at %#llx by task %llu: %s", i, expected[name].name,
          (unsigned long long)m.event, (unsigned long long)m.icount, (unsigned long long)byte->at,
          (unsigned long long)byte->task, text);
    free(text);
}

/* Byte i was not moved by a call between tasks: it is where fill() put it; or a row tells of its
 * copy. */
static void check_copied(size_t name, size_t i, const json_t *rows, const struct one_byte *byte)
{
    bool fill = strcmp(expected[name].through, "fill") == 0, found = false;
    size_t k;
    json_t *row;
    json_array_foreach(rows, k, row)
    {
        const char *function =
            json_string_value(json_object_get(json_object_get(row, "function"), "name"));
        uint64_t at = i - number(row, "offset");
        if (at >= number(row, "length") || task_of(row) != byte->task || (fill && found))
            continue;
        found |= fill ? function && strcmp(function, "fill") == 0
                      : number(json_object_get(row, "from"), "address") + at == byte->at;
    }
    char *text = found ? NULL : json_dumps(rows, JSON_ENCODE_ANY);
    CHECK(found, "byte %zu of %s: made at %#llx by task %llu: %.3000s", i, expected[name].name,
          (unsigned long long)byte->at, (unsigned long long)byte->task, text);
    free(text);
}

static bool is_copied(size_t name)
{
    const char *through = expected[name].through;
    return through && (strcmp(through, "fill") == 0 || strcmp(through, "copy") == 0);
}

static void keep_bytes(const json_t *call, typeof(&made[0]) lists)
{
    uint64_t addr = strtoull(argument(call, 1), NULL, 0),
             len = strtoull(argument(call, 2), NULL, 0);
    for (uint64_t k = 0; name_of(call) < NAMES && k < len; k++)
        vec_push(&lists[name_of(call)], (struct one_byte){task_of(call), addr + k});
}

/* The bytes that the first call of made() under a name is about: where they were got they have been
 * copied to. */
static void check_made(struct query_engine *q, const json_t *call, size_t name)
{
    uint64_t len = strtoull(argument(call, 2), NULL, 0);
    json_t *rows = ask(q, "uses",
                       json_pack("{sO, ss#, sI, si}", "focus", json_object_get(call, "focus"),
                                 "address", argument(call, 1), (int)strcspn(argument(call, 1), " "),
                                 "length", (json_int_t)len, "limit", 20)),
           *row;
    for (size_t i = 0; i < len && i < got[name].count; i++) {
        const struct one_byte *byte = &got[name].items[i];
        bool sent = false, there = false;
        size_t k;
        json_array_foreach(rows, k, row)
        {
            const json_t *to = json_object_get(row, "to"),
                         *through = json_object_get(row, "through");
            uint64_t at = i - number(row, "offset");
            if (at >= number(row, "length") || !json_object_get(to, "address"))
                continue;
            sent |= is_copied(name) ||
                    (through && strcmp(json_string_value(through), expected[name].through) == 0);
            const json_t *task = json_object_get(row, "toTask");
            there |= sent && (task ? number(task, "serial") : task_of(row)) == byte->task &&
                     number(to, "address") + at == byte->at;
        }
        char *text = sent && there ? NULL : json_dumps(rows, JSON_ENCODE_ANY);
        CHECK(sent && there, "byte %zu of %s is to get to %#llx of task %llu: %.3000s", i,
              expected[name].name, (unsigned long long)byte->at, (unsigned long long)byte->task,
              text);
        free(text);
    }
    json_decref(rows);
}

/* Of long ones the last bytes. */
static void check_got(struct query_engine *q, const json_t *call)
{
    size_t name = name_of(call);
    uint64_t addr = strtoull(argument(call, 1), NULL, 0),
             len = strtoull(argument(call, 2), NULL, 0);
    if (name == NAMES)
        return;
    uint64_t skip = len > MOST_BYTES ? len - MOST_BYTES : 0;
    char text[32];
    snprintf(text, sizeof(text), "%#llx", (unsigned long long)(addr + skip));
    json_t *rows =
        ask(q, "dataflow",
            json_pack("{sO, ss, sI, si}", "focus", json_object_get(call, "focus"), "address", text,
                      "length", (json_int_t)(len - skip), "limit", 10000));
    size_t first = got[name].count + skip;
    keep_bytes(call, got);
    for (size_t i = 0; i < len - skip; i++) {
        if (!expected[name].why && first + i >= made[name].count) {
            CHECK(false, "more of %s was got than made", expected[name].name);
            break;
        }
        if (is_copied(name)) {
            check_copied(name, i, rows, &made[name].items[first + i]);
            continue;
        }
        const json_t *row = teller(rows, i, NULL);
        check_byte(call, name, i, row, expected[name].why ? NULL : &made[name].items[first + i]);
        if (strcmp(expected[name].name, "pipeline") == 0) // and on through the other pipe
            check_byte(call, 1, i, teller(rows, i, row), &made[1].items[first + i]);
    }
    json_decref(rows);
}

int main(int argc, char **argv)
{
    struct build_options options = {.shards = 1, .compression_level = 3, .segment_icount = 20001};
    if (argc < 2)
        return 2;
    if (argc > 2) // other segments, for who looks for errors
        options.segment_icount = strtoull(argv[2], NULL, 10);
    must(index_build(argv[1], &options, NULL));
    cleanup(query_engine_closep) struct query_engine *q = NULL;
    must(query_engine_open(argv[1], NULL, &q));
    json_t *info = ask(q, "info", json_object()), *first = json_array_get(info, 0);
    const char *exe = json_string_value(json_object_get(first, "exe"));
    if (exe && strstr(exe, "flows")) {
        expected = flows;
        names = sizeof(flows) / sizeof(flows[0]);
    }
    json_decref(info);
    json_t *makers = calls_of(q, "made"), *takers = calls_of(q, "got"), *call;
    bool asked[NAMES] = {0};
    size_t i;
    json_array_foreach(makers, i, call) keep_bytes(call, made);
    json_array_foreach(takers, i, call) check_got(q, call);
    json_array_foreach(makers, i, call)
    {
        size_t name = name_of(call);
        if (name < names && expected[name].forward && !asked[name])
            check_made(q, call, name);
        if (name < names)
            asked[name] = true;
    }
    json_decref(makers);
    json_decref(takers);
    for (size_t k = 0; k < names; k++)
        CHECK(expected[k].why || strcmp(expected[k].name, "first") == 0
                  ? true
                  : made[k].count && got[k].count == made[k].count,
              "%zu of %zu bytes of %s were got", got[k].count, made[k].count, expected[k].name);
    printf("%u checks, %u failures\n", checks, failures);
    return failures || !checks ? 1 : 0;
}
