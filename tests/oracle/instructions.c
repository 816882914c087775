/* The instruction view against states: what each row says about registers and memory before and
 * after is what the `registers` and `memory` queries say there (which oracle.c holds against a
 * naive walk); every general register that changes is in its row; no instruction is left out;
 * backwards come the same rows.
 *
 * instructions TRACE_DIR [SAMPLES [SEGMENT]]: a copy of a small recording; a database is made in
 * it. */
#include "check.h"
#include "index/build.h"
#include "query/query_int.h"
#include "rows.h"
#include "x86/x86.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 25, SHOWN = 64 };

/* Takes over params. An error gives no rows. */
static json_t *ask(struct query_engine *q, const char *name, json_t *params)
{
    json_t *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row};
    struct err *e = query_run(q, name, params, &sink);
    if (e && err_kind(e) != ERR_NOT_FOUND && err_kind(e) != ERR_FAULT)
        must(e);
    err_free(e);
    json_decref(params);
    return rows;
}

static void check(bool ok, const char *what, json_t *row, json_t *detail)
{
    checks++;
    if (ok || failures++ > 20)
        return;
    char *text = json_dumps(row, JSON_COMPACT),
         *more = detail ? json_dumps(detail, JSON_COMPACT) : NULL;
    printf("FAIL: %s: %s %s\n", what, text, more ? more : "");
    free(text);
    free(more);
}

static json_t *moment_json(json_t *row)
{
    return json_object_get(json_object_get(row, "focus"), "moment");
}

static bool is_instruction(json_t *row)
{
    return str_eq(json_string_value(json_object_get(row, "kind")), "instruction");
}

/* The row's focus, `steps` instructions later. */
static json_t *focus_of(json_t *row, int steps)
{
    json_t *m = moment_json(row);
    return json_pack("{s{sO, sI}, sO}", "moment", "event", json_object_get(m, "event"), "instr",
                     json_integer_value(json_object_get(m, "instr")) + steps, "task",
                     json_object_get(row, "task"));
}

static const char *value_in(json_t *registers, const char *name)
{
    size_t i;
    json_t *r;
    json_array_foreach(registers, i, r)
    {
        if (str_eq(json_string_value(json_object_get(r, "name")), name))
            return json_string_value(json_object_get(r, "value"));
    }
    return NULL;
}

/* Is `shown`, of the register `name`, what `registers` has? True for registers that it has not. */
static bool agrees(json_t *registers, const char *name, json_t *shown)
{
    struct x86_span span;
    char whole[32];
    const char *text = json_string_value(shown), *value;
    if (!text)
        return false;
    if (str_eq(name, "eflags") || !x86_register_by_name(name, &span) || span.start >= X86_RIP)
        return !(value = value_in(registers, name)) ||
               (text[1] == 'x' ? str_eq(text, value) : strncmp(text, value, 32) == 0);
    value = value_in(registers, x86_register_name(span.start & ~7u, 8, whole, sizeof(whole)));
    uint64_t n = value ? strtoull(value, NULL, 16) >> 8 * (span.start % 8) : 0;
    if (span.len < 8)
        n &= (1ull << 8 * span.len) - 1;
    return value && strtoull(text, NULL, 16) == n;
}

static bool is_shown_written(json_t *row, const char *name)
{
    size_t i;
    json_t *r;
    struct x86_span wanted, span;
    if (!x86_register_by_name(name, &wanted))
        return false;
    json_array_foreach(json_object_get(row, "registers"), i, r)
    {
        if (json_is_true(json_object_get(r, "written")) &&
            x86_register_by_name(json_string_value(json_object_get(r, "name")), &span) &&
            x86_unit(span.start) == x86_unit(wanted.start))
            return true;
    }
    return false;
}

static void check_bytes(struct query_engine *q, json_t *row, json_t *access, const char *key,
                        int steps)
{
    const char *shown = json_string_value(json_object_get(access, key));
    if (!shown)
        return;
    json_t *rows =
        ask(q, "memory",
            json_pack("{so, sO, si}", "focus", focus_of(row, steps), "address",
                      json_object_get(access, "address"), "length", (int)strlen(shown) / 2));
    const char *is = json_string_value(json_object_get(json_array_get(rows, 0), "bytes"));
    check(is && str_eq(is, shown), key, row, rows);
    json_decref(rows);
}

static void check_row(struct query_engine *q, json_t *row, bool completed)
{
    json_t *before = ask(q, "registers", json_pack("{so}", "focus", focus_of(row, 0)));
    json_t *after = ask(q, "registers", json_pack("{so}", "focus", focus_of(row, 1)));
    size_t i;
    json_t *r;
    check(str_eq(value_in(before, "rip"), json_string_value(json_object_get(row, "pc"))), "rip",
          row, before);
    json_array_foreach(json_object_get(row, "registers"), i, r)
    {
        const char *name = json_string_value(json_object_get(r, "name"));
        check(agrees(before, name, json_object_get(r, "before")), "register before", row, r);
        check(!completed || json_is_false(json_object_get(r, "written")) ||
                  agrees(after, name, json_object_get(r, "after")),
              "register after", row, r);
    }
    for (unsigned k = 0; k < 16 && completed; k++) {
        char name[32];
        x86_register_name(X86_GPR + 8 * k, 8, name, sizeof(name));
        check(str_eq(value_in(before, name), value_in(after, name)) || is_shown_written(row, name),
              name, row, after);
    }
    json_array_foreach(json_object_get(row, "memory"), i, r)
    {
        check_bytes(q, row, r, "before", 0);
        if (completed) {
            check(!json_is_true(json_object_get(r, "written")) || json_object_get(r, "after") ||
                      json_object_get(r, "possible"),
                  "written memory has no bytes", row, r);
            check_bytes(q, row, r, "after", 1);
        }
    }
    json_decref(before);
    json_decref(after);
}

/* An instruction that ends with an event is also seen from its own moment, where nothing is left to
 * run until the event. */
static void check_own_moment(struct query_engine *q, json_t *row)
{
    json_t *own = ask(q, "instructions",
                      json_pack("{sO, si}", "focus", json_object_get(row, "focus"), "limit", 1));
    static const char *const keys[] = {
        "focus", "kind", "pc", "faulted",
        "registers"}; // memory: bytes of a faulting access come only here
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        check(json_equal(json_object_get(row, keys[i]),
                         json_object_get(json_array_get(own, 0), keys[i])) ||
                  (!json_object_get(row, keys[i]) &&
                   !json_object_get(json_array_get(own, 0), keys[i])),
              "another row from its own moment", row, own);
    json_decref(own);
}

static void check_sample(struct query_engine *q, json_t *focus)
{
    json_t *rows = ask(q, "instructions", json_pack("{sO, si}", "focus", focus, "limit", ROWS));
    size_t n = json_array_size(rows);
    json_t *last = json_array_get(rows, n - 1);
    check(n > 0, "no rows", focus, NULL);
    if (!n)
        return json_decref(rows);
    for (size_t i = 0; i < n; i++) {
        json_t *row = json_array_get(rows, i), *next = json_array_get(rows, i + 1);
        if (!is_instruction(row))
            continue;
        int64_t gap = 1;
        if (next && json_equal(json_object_get(moment_json(row), "event"),
                               json_object_get(moment_json(next), "event")))
            gap = json_integer_value(json_object_get(moment_json(next), "instr")) -
                  json_integer_value(json_object_get(moment_json(row), "instr"));
        // Right before an event is the instruction that ends with it: a system call or a fault,
        // which is not counted.
        bool before_event = next && !is_instruction(next);
        check(gap == 1 || (before_event && gap == 0), "an instruction is missing", row, next);
        if (before_event && gap == 0)
            check_own_moment(q, row);
        check_row(q, row, next && gap == 1 && !json_is_true(json_object_get(row, "faulted")));
    }
    // Backwards from behind the last instruction, or from an event's moment: what lies strictly
    // before.
    size_t from = n;
    while (from > 0 && !is_instruction(last) &&
           json_equal(moment_json(json_array_get(rows, from - 1)), moment_json(last)))
        from--;
    json_t *back = ask(q, "instructions",
                       json_pack("{so, si, ss}", "focus", focus_of(last, is_instruction(last)),
                                 "limit", (int)from + 1, "direction", "backward"));
    // An event at the moment of the last instruction comes behind it.
    size_t skip = is_instruction(last) && !is_instruction(json_array_get(back, 0));
    check(json_array_size(back) >= from, "too few rows backwards", last, back);
    for (size_t i = 0; i < from && skip + i < json_array_size(back); i++)
        check(json_equal(json_array_get(rows, from - 1 - i), json_array_get(back, skip + i)),
              "another row backwards", json_array_get(rows, from - 1 - i),
              json_array_get(back, skip + i));
    json_decref(back);
    json_decref(rows);
}

static void build(const char *trace, uint64_t segment_icount, struct query_engine **q)
{
    const struct build_options options = {
        .shards = 1, .compression_level = 3, .segment_icount = segment_icount, .restart = true};
    query_engine_close(*q);
    *q = NULL;
    must(index_build(trace, &options, NULL));
    must(query_engine_open(trace, NULL, q));
}

/* Rows from a moment of a task on, without memory: bytes of a faulting access come only if one
 * comes by. */
static json_t *rows_from(struct query_engine *q, json_t *focus, struct moment from, int limit)
{
    json_t *rows = ask(q, "instructions",
                       json_pack("{sO, s{sI, sI}, si}", "focus", focus, "from", "event",
                                 (json_int_t)from.event, "instr", (json_int_t)from.icount, "limit",
                                 limit)),
           *row;
    size_t i;
    json_array_foreach(rows, i, row) json_object_del(row, "memory");
    return rows;
}

/* A segment that begins right before an event: the rows from there are those of a database of one
 * segment, when one comes by there. */
static void check_boundary(const char *trace, struct query_engine **q, json_t *event)
{
    enum { FEW = 4 };
    json_t *focus = json_object_get(event, "focus");
    struct moment at = row_moment(event), from = {at.event, at.icount > 3 ? at.icount - 3 : 0};
    uint64_t before = at.icount, first = 0;
    size_t segments;
    for (event_no e = 1; e <= at.event; e++)
        before += (*q)->event_icount.items[e];
    build(trace, UINT64_MAX, q);
    json_t *all = rows_from(*q, focus, from, FEW + 4);
    while (first < json_array_size(all) &&
           moment_cmp(row_moment(json_array_get(all, first)), at) < 0)
        first++;
    build(trace, before, q);
    const struct history_segment *segment = history_segments((*q)->history, &segments);
    check(segments > 1 && moment_cmp(segment[1].start, at) == 0, "no segment begins there", event,
          NULL);
    json_t *rows = rows_from(*q, focus, at, FEW);
    for (size_t i = 0; i < FEW && first + i < json_array_size(all); i++)
        check(json_equal(json_array_get(rows, i), json_array_get(all, first + i)),
              "another row at a segment's start", json_array_get(all, first + i),
              json_array_get(rows, i));
    json_decref(rows);
    json_decref(all);
}

/* At some system calls and signals. */
static void check_boundaries(const char *trace, struct query_engine **q, json_t *events)
{
    static const char *const kinds[] = {" entry", " raised"};
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        size_t count = json_array_size(events), start = random_number() % count;
        for (size_t i = 0; i < count; i++) {
            json_t *event = json_array_get(events, (start + i) % count);
            const char *name = json_string_value(json_object_get(event, "name"));
            bool known =
                json_integer_value(json_object_get(json_object_get(event, "task"), "serial"));
            if (!known || !name || !strstr(name, kinds[k]) || !row_moment(event).icount)
                continue;
            check_boundary(trace, q, event);
            break;
        }
    }
}

int main(int argc, char **argv)
{
    struct build_options options = {.shards = 1, .compression_level = 3, .segment_icount = 31};
    if (argc < 2)
        return 2;
    size_t samples = argc > 2 ? (size_t)atoi(argv[2]) : 12;
    if (argc > 3) // other segments, for who looks for errors
        options.segment_icount = strtoull(argv[3], NULL, 10);
    must(index_build(argv[1], &options, NULL));
    cleanup(query_engine_closep) struct query_engine *q = NULL;
    must(query_engine_open(argv[1], NULL, &q));
    json_t *events = ask(q, "events", json_pack("{si}", "limit", 100000));
    for (size_t i = 0; i < samples; i++) {
        // Half of them at events, where instructions are cut short; the others anywhere.
        json_t *event = json_array_get(events, random_number() % json_array_size(events));
        json_t *m = moment_json(event);
        int64_t instr = json_integer_value(json_object_get(m, "instr"));
        uint64_t back = i % 2 ? random_number() % ((uint64_t)instr + 1) : random_number() % 8;
        json_t *task = json_object_get(event, "task");
        if (!json_integer_value(json_object_get(task, "serial")))
            continue; // before the program's start
        json_t *focus = json_pack(
            "{s{sO, sI}, sO}", "moment", "event", json_object_get(m, "event"), "instr",
            (json_int_t)(instr - ((int64_t)back < instr ? (int64_t)back : instr)), "task", task);
        check_sample(q, focus);
        json_decref(focus);
    }
    // What faulted is looked at in any case.
    json_t *signals = ask(q, "signals", json_pack("{si}", "limit", 4)), *row;
    size_t i;
    json_array_foreach(signals, i, row)
    {
        json_t *instr = json_object_get(moment_json(row), "instr");
        json_integer_set(instr, json_integer_value(instr) - (json_integer_value(instr) > 0));
        check_sample(q, json_object_get(row, "focus"));
    }
    json_decref(signals);
    check_boundaries(argv[1], &q, events);
    json_decref(events);
    printf("%u checks, %u failures\n", checks, failures);
    return failures || !checks ? 1 : 0;
}
