/* The query engine against a naive oracle: the recording is replayed one instruction at a time, with nothing of the database, and
 * what is seen is held against the engine's answers.
 *
 *   registers and memory   at random moments
 *   writes                 probes are compared after every instruction: each change has a row, each row that says so is a change
 *   executions             every moment at which rip was at an address
 *   stacks                 calls and returns seen by what they do to rsp
 *   steps                  the next and last moment of the same task
 *
 * Answers have to be the same for any size of segment, number of shards and compression level.
 *
 * oracle TRACE_DIR: a copy of a small recording; databases are made in it. */
#include "index/build.h"
#include "query/query.h"
#include "replay/replay.h"

#include <stdio.h>

enum { PROBES = 40, PROBE_LEN = 8, MAX_STEPS = 400000, SAMPLE_EVERY = 997 };

struct seen {
    struct moment m;
    uint32_t task, space;
    gaddr rip, rsp, rax;
};

struct change {
    struct moment m; /* before the write */
    uint32_t probe;
    uint64_t before, after;
};

struct shadow_call {
    gaddr return_addr, sp;
};

/* The state of one task at a sampled moment. */
struct sample {
    struct moment m;
    uint32_t task;
    struct regs regs;
    uint64_t probes[PROBES];
    bool mapped[PROBES];
};

static VEC(struct seen) steps;
static VEC(struct change) changes;
static VEC(struct sample) samples;
static gaddr probes[PROBES];
static unsigned probe_count;
static uint32_t probe_space;
static unsigned failures, checks;

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        checks++;                                                                                  \
        if (!(condition) && failures++ < 30) {                                                     \
            printf("FAIL: " __VA_ARGS__);                                                          \
            putchar('\n');                                                                         \
        }                                                                                          \
    } while (0)

static void must(struct err *e)
{
    if (!e)
        return;
    printf("FAIL: %s\n", err_message(e));
    exit(1);
}

static uint64_t random_state = 88172645463325252ull;
static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* --- the naive pass --- */

/* Addresses worth watching: around the stack pointers and written data of the middle of the run. */
static void choose_probes(struct trace *t)
{
    cleanup(replay_closep) struct replay *r = NULL;
    must(replay_open(t, &r));
    unsigned n = 0;
    while (!replay_at_end(r) && n < PROBES) {
        must(replay_run(r, MOMENT_END, 300 + next_random() % 600, NULL));
        uint32_t task = replay_running(r);
        struct regs regs;
        if (!task)
            continue;
        must(replay_regs(r, task, &regs));
        size_t count;
        const struct task_info *tasks = replay_tasks(r, &count);
        if (!probe_space)
            probe_space = tasks[0].space;
        // Straddles granules and pages now and then.
        gaddr at = regs.r[UREG_RSP] - 64 + next_random() % 128;
        if (n % 4 == 1)
            at = (regs.r[UREG_RSP] & ~(gaddr)4095) - 3;
        if (n % 4 == 3)
            at = regs.r[UREG_RDI] + next_random() % 16;
        uint64_t there;
        struct err *e = replay_read(r, probe_space, at, &there, PROBE_LEN, NULL);
        if (!e || n % 8 == 7) // now and then something that may come or go
            probes[n++] = at;
        err_free(e);
    }
    probe_count = n;
}

/* Memory that holds probes: read in one go, since every step asks for it. */
struct span {
    gaddr start;
    size_t len;
};
static struct span spans[PROBES];
static unsigned span_count;

static int by_address(const void *a, const void *b)
{
    gaddr x = *(const gaddr *)a, y = *(const gaddr *)b;
    return x < y ? -1 : x > y;
}

static void choose_spans(void)
{
    enum { MOST = 1024 };
    gaddr sorted[PROBES];
    memcpy(sorted, probes, sizeof(probes));
    qsort(sorted, probe_count, sizeof(sorted[0]), by_address);
    for (unsigned i = 0; i < probe_count; i++) {
        struct span *last = span_count ? &spans[span_count - 1] : NULL;
        if (last && sorted[i] + PROBE_LEN - last->start <= MOST)
            last->len = sorted[i] + PROBE_LEN - last->start;
        else
            spans[span_count++] = (struct span){sorted[i], PROBE_LEN};
    }
}

static void read_probes(struct replay *r, uint64_t *out, bool *mapped)
{
    static uint8_t bytes[1024];
    for (unsigned k = 0; k < span_count; k++) {
        const struct span *span = &spans[k];
        size_t done = 0;
        err_free(replay_read(r, probe_space, span->start, bytes, span->len, &done));
        for (unsigned i = 0; i < probe_count; i++) {
            if (probes[i] < span->start || probes[i] - span->start > span->len - PROBE_LEN)
                continue;
            size_t off = probes[i] - span->start, single = PROBE_LEN;
            memcpy(&out[i], bytes + off, PROBE_LEN);
            if (span->len == PROBE_LEN) {
                single = done;
            } else if (off + PROBE_LEN > done) { // behind a hole, or in one
                single = out[i] = 0;
                err_free(replay_read(r, probe_space, probes[i], &out[i], PROBE_LEN, &single));
            }
            mapped[i] = single == PROBE_LEN;
        }
    }
}

static void walk(struct trace *t)
{
    cleanup(replay_closep) struct replay *r = NULL;
    must(replay_open(t, &r));
    uint64_t now[PROBES] = {0}, before[PROBES] = {0};
    bool mapped[PROBES] = {0}, was_mapped[PROBES] = {0};
    struct moment last = {0};
    while (!replay_at_end(r) && steps.count < MAX_STEPS) {
        // An event is a step of its own.
        must(replay_run(r, (struct moment){replay_now(r).event + 1, 0}, 1, NULL));
        struct moment m = replay_now(r);
        read_probes(r, now, mapped);
        for (unsigned i = 0; i < probe_count; i++) {
            if (mapped[i] && was_mapped[i] && now[i] != before[i])
                vec_push(&changes, (struct change){last, i, before[i], now[i]});
        }
        memcpy(before, now, sizeof(now));
        memcpy(was_mapped, mapped, sizeof(mapped));
        last = m;
        uint32_t task = replay_running(r);
        struct regs regs;
        if (!task)
            continue;
        must(replay_regs(r, task, &regs));
        vec_push(&steps, (struct seen){m, task, 0, regs.r[UREG_RIP], regs.r[UREG_RSP], regs.r[UREG_RAX]});
        if (steps.count % SAMPLE_EVERY == 0) {
            struct sample *s = vec_add(&samples);
            s->m = m;
            s->task = task;
            s->regs = regs;
            memcpy(s->probes, now, sizeof(now));
            memcpy(s->mapped, mapped, sizeof(mapped));
        }
    }
}

/* --- asking --- */

static bool keep_row(void *ctx, json_t *row)
{
    json_array_append_new(ctx, row);
    return true;
}

/* Rows of a query; NULL if it failed (and *why_out says why). */
static json_t *ask(struct query_engine *q, const char *name, json_t *params)
{
    json_t *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row};
    struct err *e = query_run(q, name, params, &sink);
    if (e) {
        json_object_set_new(params, "failed", json_string(err_message(e)));
        json_decref(rows);
        rows = NULL;
    }
    err_free(e);
    return rows;
}

static json_t *focus_of(struct moment m, uint32_t task)
{
    return json_pack("{s{sI, sI}, s{si}}", "moment", "event", (json_int_t)m.event, "instr", (json_int_t)m.icount, "task", "serial",
                     (int)task);
}

static struct moment row_moment(json_t *row)
{
    json_t *m = json_object_get(json_object_get(row, "focus"), "moment");
    return (struct moment){(uint64_t)json_integer_value(json_object_get(m, "event")),
                           (uint64_t)json_integer_value(json_object_get(m, "instr"))};
}

static uint64_t hex_field(json_t *row, const char *name)
{
    const char *text = json_string_value(json_object_get(row, name));
    return text ? strtoull(text, NULL, 16) : 0;
}

static void check_states(struct query_engine *q)
{
    vec_each (s, &samples) {
        json_t *params = json_pack("{so}", "focus", focus_of(s->m, s->task));
        json_t *rows = ask(q, "registers", params);
        size_t i;
        json_t *row;
        CHECK(rows, "registers at %llu:%llu: %s", (unsigned long long)s->m.event, (unsigned long long)s->m.icount,
              json_string_value(json_object_get(params, "failed")));
        json_array_foreach(rows, i, row)
        {
            static const struct {
                const char *name;
                int idx;
            } some[] = {{"rip", UREG_RIP}, {"rax", UREG_RAX}, {"rsp", UREG_RSP}, {"rbp", UREG_RBP}, {"rdi", UREG_RDI},
                        {"r15", UREG_R15}, {"r14", UREG_R14}, {"r11", UREG_R11}, {"eflags", UREG_EFLAGS}, {"fs_base", UREG_FS_BASE}};
            for (size_t k = 0; k < sizeof(some) / sizeof(some[0]); k++) {
                if (strcmp(json_string_value(json_object_get(row, "name")), some[k].name) == 0)
                    CHECK(hex_field(row, "value") == s->regs.r[some[k].idx], "%s at %llu:%llu is %s, want %llx", some[k].name,
                          (unsigned long long)s->m.event, (unsigned long long)s->m.icount,
                          json_string_value(json_object_get(row, "value")), (unsigned long long)s->regs.r[some[k].idx]);
            }
        }
        json_decref(rows);
        json_decref(params);
        unsigned p = (unsigned)(next_random() % probe_count);
        if (!s->mapped[p])
            continue;
        char addr[32];
        snprintf(addr, sizeof(addr), "%#llx", (unsigned long long)probes[p]);
        params = json_pack("{so, ss, si}", "focus", focus_of(s->m, s->task), "address", addr, "length", PROBE_LEN);
        rows = ask(q, "memory", params);
        char want[17];
        for (int k = 0; k < 8; k++)
            snprintf(want + 2 * k, 3, "%02x", (unsigned)(s->probes[p] >> 8 * k & 0xff));
        const char *have = rows ? json_string_value(json_object_get(json_array_get(rows, 0), "bytes")) : "";
        CHECK(have && strcmp(have, want) == 0, "memory %s at %llu:%llu is %s, want %s", addr, (unsigned long long)s->m.event,
              (unsigned long long)s->m.icount, have ? have : "", want);
        json_decref(rows);
        json_decref(params);
    }
}

static void check_writes(struct query_engine *q, struct moment end)
{
    for (unsigned p = 0; p < probe_count; p++) {
        char addr[32];
        snprintf(addr, sizeof(addr), "%#llx", (unsigned long long)probes[p]);
        const struct sample *last = &samples.items[samples.count - 1];
        if (!last->mapped[p])
            continue;
        json_t *params = json_pack("{so, ss, si, ss, si}", "focus", focus_of(last->m, last->task), "address", addr, "length",
                                   PROBE_LEN, "direction", "backward", "limit", 100000);
        json_t *rows = ask(q, "watchpoint", params);
        CHECK(rows, "watchpoint %s: %s", addr, json_string_value(json_object_get(params, "failed")));
        size_t n = json_array_size(rows), matched = 0;
        vec_each (c, &changes) {
            if (c->probe != p || moment_cmp(c->m, last->m) >= 0)
                continue;
            bool found = false;
            for (size_t i = 0; i < n && !found; i++)
                found = moment_cmp(row_moment(json_array_get(rows, i)), c->m) == 0;
            matched += found;
            CHECK(found, "write of %s at %llu:%llu is not found", addr, (unsigned long long)c->m.event,
                  (unsigned long long)c->m.icount);
        }
        for (size_t i = 0; i < n; i++) {
            json_t *row = json_array_get(rows, i), *before = json_object_get(row, "before"), *after = json_object_get(row, "after");
            if (!json_is_string(before) || !json_is_string(after) || json_equal(before, after))
                continue;
            struct moment m = row_moment(row);
            bool found = false;
            vec_each (c, &changes)
                found |= c->probe == p && moment_cmp(c->m, m) == 0;
            CHECK(found, "%s did not change at %llu:%llu", addr, (unsigned long long)m.event, (unsigned long long)m.icount);
        }
        json_decref(rows);
        // Forward from the middle gives the same rows, the other way round.
        json_decref(params);
    }
}

static void check_executions(struct query_engine *q)
{
    for (int k = 0; k < 40; k++) {
        const struct seen *s = &steps.items[next_random() % steps.count];
        struct moment from = steps.items[next_random() % steps.count].m;
        bool forward = next_random() & 1;
        char start[32], end[32];
        snprintf(start, sizeof(start), "%#llx", (unsigned long long)s->rip);
        snprintf(end, sizeof(end), "%#llx", (unsigned long long)s->rip + 1);
        json_t *params = json_pack("{ss, ss, ss, si, s{sI, sI}}", "start", start, "end", end, "direction",
                                   forward ? "forward" : "backward", "limit", 30, "from", "event", (json_int_t)from.event, "instr",
                                   (json_int_t)from.icount);
        json_t *rows = ask(q, "address-execution", params);
        CHECK(rows, "executions of %s: %s", start, json_string_value(json_object_get(params, "failed")));
        size_t at = 0;
        for (size_t i = 0; i < steps.count && at < 30; i++) {
            const struct seen *x = &steps.items[forward ? i : steps.count - 1 - i];
            if (x->rip != s->rip || (forward ? moment_cmp(x->m, from) < 0 : moment_cmp(x->m, from) >= 0))
                continue;
            // The last step before an event stands where the next one begins: only moments at which an instruction follows count.
            const struct seen *next = &steps.items[(forward ? i : steps.count - 1 - i) + 1];
            if (next >= steps.items + steps.count || next->m.event != x->m.event)
                continue;
            struct moment m = row_moment(json_array_get(rows, at));
            CHECK(at < json_array_size(rows) && moment_cmp(m, x->m) == 0,
                  "%s execution %zu of %s from %llu:%llu is at %llu:%llu, want %llu:%llu", forward ? "forward" : "backward", at, start,
                  (unsigned long long)from.event, (unsigned long long)from.icount, (unsigned long long)m.event,
                  (unsigned long long)m.icount, (unsigned long long)x->m.event, (unsigned long long)x->m.icount);
            at++;
            if (failures > 30)
                break;
        }
        json_decref(rows);
        json_decref(params);
    }
}

/* Return addresses on the stack, by watching rsp: a call lowers it by 8 and leaves an address there that is just behind it. */
static void check_stacks(struct query_engine *q, struct trace *t)
{
    cleanup(replay_closep) struct replay *r = NULL;
    must(replay_open(t, &r));
    VEC(struct shadow_call) calls = {0};
    struct seen last = {0};
    size_t asked = 0;
    for (size_t i = 0; i < steps.count && asked < 60; i++) {
        const struct seen *s = &steps.items[i];
        if (s->task != 1)
            continue;
        while (calls.count && calls.items[calls.count - 1].sp < s->rsp)
            calls.count--;
        if (last.task && s->m.event == last.m.event && s->rsp == last.rsp - 8) {
            uint64_t pushed = 0;
            must(replay_run(r, s->m, UINT64_MAX, NULL));
            size_t count, done;
            const struct task_info *tasks = replay_tasks(r, &count);
            err_free(replay_read(r, tasks[0].space, s->rsp, &pushed, 8, &done));
            if (pushed > last.rip && pushed <= last.rip + 8)
                vec_push(&calls, (struct shadow_call){pushed, s->rsp});
        }
        last = *s;
        // Stacks of the preload library's own are another matter.
        if (i % 1511 || s->rsp < 0x70002000)
            continue;
        asked++;
        json_t *params = json_pack("{so}", "focus", focus_of(s->m, 1));
        json_t *rows = ask(q, "stack", params);
        CHECK(rows && json_array_size(rows) == calls.count + 1, "the stack at %llu:%llu has %zu frames, want %zu",
              (unsigned long long)s->m.event, (unsigned long long)s->m.icount, json_array_size(rows), calls.count + 1);
        for (size_t k = 0; rows && k < calls.count && k + 1 < json_array_size(rows); k++)
            CHECK(hex_field(json_array_get(rows, k + 1), "pc") == calls.items[calls.count - 1 - k].return_addr,
                  "frame %zu at %llu:%llu is at %s, want %llx", k + 1, (unsigned long long)s->m.event, (unsigned long long)s->m.icount,
                  json_string_value(json_object_get(json_array_get(rows, k + 1), "pc")),
                  (unsigned long long)calls.items[calls.count - 1 - k].return_addr);
        json_decref(rows);
        json_decref(params);
    }
    vec_deinit(&calls);
}

static void check_steps(struct query_engine *q)
{
    for (int k = 0; k < 60; k++) {
        size_t i = next_random() % (steps.count - 1);
        const struct seen *a = &steps.items[i], *b = &steps.items[i + 1];
        if (a->task != b->task || a->m.event != b->m.event || i + 2 >= steps.count || steps.items[i + 2].m.event != b->m.event)
            continue;
        json_t *params = json_pack("{so, ss, ss}", "focus", focus_of(a->m, a->task), "kind", "instruction", "direction", "forward");
        json_t *rows = ask(q, "step", params);
        CHECK(rows && moment_cmp(row_moment(json_array_get(rows, 0)), b->m) == 0 &&
                  hex_field(json_array_get(rows, 0), "pc") == b->rip,
              "the step from %llu:%llu goes elsewhere", (unsigned long long)a->m.event, (unsigned long long)a->m.icount);
        json_decref(rows);
        json_decref(params);
        params = json_pack("{so, ss, ss}", "focus", focus_of(b->m, b->task), "kind", "instruction", "direction", "backward");
        rows = ask(q, "step", params);
        CHECK(rows && moment_cmp(row_moment(json_array_get(rows, 0)), a->m) == 0, "the step back from %llu:%llu goes elsewhere",
              (unsigned long long)b->m.event, (unsigned long long)b->m.icount);
        json_decref(rows);
        json_decref(params);
    }
}

int main(int argc, char **argv)
{
    enum { LONG = 100000 };
    static const struct build_options variants[] = {
        {.shards = 1, .compression_level = 3, .segment_icount = 7001},
        {.shards = 3, .compression_level = 1, .segment_icount = 20011},
        {.shards = 2, .compression_level = 9},
    };
    cleanup(trace_closep) struct trace *t = NULL;
    if (argc != 2)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    must(trace_open(argv[1], &t));
    choose_probes(t);
    choose_spans();
    walk(t);
    printf("%zu moments, %zu changes of %u probes, %zu samples\n", steps.count, changes.count, probe_count, samples.count);
    // Of long recordings one database: that all databases give the same answers is what database/variants is for.
    size_t count = steps.count > LONG ? 1 : sizeof(variants) / sizeof(variants[0]);
    for (size_t v = 0; v < count; v++) {
        random_state = 88172645463325252ull;
        must(index_build(argv[1], &variants[v], NULL));
        cleanup(query_engine_closep) struct query_engine *q = NULL;
        must(query_engine_open(argv[1], NULL, &q));
        check_states(q);
        check_writes(q, MOMENT_END);
        check_executions(q);
        check_stacks(q, t);
        check_steps(q);
        printf("variant %zu: %u checks, %u failures\n", v, checks, failures);
    }
    return failures ? 1 : 0;
}
