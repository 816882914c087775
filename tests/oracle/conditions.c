/* Executions with conditions and printed values against a naive walk: the recording is stepped
 * through once, to know what ran when; then each execution of some addresses is gone to, and
 * conditions are computed by this program's own code from registers and memory there. The engine's
 * answers have to be these, in both directions, from any moment, with any limit, for any size of
 * segment; so have its counts.
 *
 * conditions TRACE_DIR: a copy of a small recording; databases are made in it. */
#include "check.h"
#include "index/build.h"
#include "query/query.h"
#include "replay/replay.h"
#include "rows.h"
#include "worker/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_STEPS = 2000000, ADDRESSES = 14, QUESTIONS = 4, MOST_EXECUTIONS = 3000, WORDS = 4 };

struct seen {
    struct moment m;
    gaddr rip;
};

/* One execution of a chosen address, with what conditions may ask for. */
struct execution {
    struct moment m;
    struct regs regs;
    uint32_t stack[WORDS]; /* 4 bytes each at RSP + 8 * i */
    bool stacked[WORDS];   /* they can be read */
    uint8_t pointed;       /* the byte at RDI */
    bool points;
};

enum truth { NO, YES, FAILS };
struct condition {
    unsigned kind;
    uint64_t a, b;
    char text[160], print[80];
};

static VEC(struct seen) steps;
static gaddr addresses[ADDRESSES];
static unsigned address_count;
static VEC(struct execution) executions[ADDRESSES];
static unsigned held, failing;

/* --- the naive walk --- */

static uint32_t space_of(struct replay *r, uint32_t task)
{
    size_t count;
    const struct task_info *tasks = replay_tasks(r, &count);
    for (size_t i = 0; i < count; i++) {
        if (tasks[i].serial == task)
            return tasks[i].space;
    }
    return 0;
}

static struct err *keep_clocks(void *ctx, struct replay *r, uint32_t space)
{
    return NULL;
}

static struct replay *open_replay(struct trace *t)
{
    struct replay *r;
    must(replay_open(t, &r));
    const struct replay_observer observer = {.code_mapped = keep_clocks};
    replay_set_observer(r, &observer);
    return r;
}

static void walk(struct trace *t)
{
    cleanup(replay_closep) struct replay *r = open_replay(t);
    while (!replay_at_end(r) && steps.count < MAX_STEPS) {
        struct moment start = replay_now(r);
        uint32_t task = replay_running(r), space = task ? space_of(r, task) : 0;
        struct worker *worker = space ? replay_worker(r, space) : NULL;
        if (worker)
            must(worker_set_steps(worker, &(struct step_request){.record = true}));
        must(replay_run(r, (struct moment){start.event + 1, 0}, 20000, NULL));
        if (!worker || replay_worker(r, space) != worker)
            continue;
        cleanup(buf_deinit) struct buf rows = {0};
        must(worker_take_steps(worker, &rows, NULL));
        must(worker_set_steps(worker, NULL));
        const struct step_row *row = (const void *)rows.data;
        for (size_t i = 0; i < rows.len / sizeof(*row); i++) {
            if (!row[i].end &&
                (!steps.count || moment_cmp(steps.items[steps.count - 1].m,
                                            (struct moment){row[i].stamp, row[i].icount}) < 0))
                vec_push(&steps,
                         (struct seen){{row[i].stamp, row[i].icount}, row[i].regs.r[UREG_RIP]});
        }
    }
}

/* Executions of an address; 0 if one of them is the last before an event: whether that counts is
 * another question. */
static size_t count_steps(gaddr rip)
{
    size_t n = 0;
    for (size_t i = 0; i < steps.count; i++) {
        if (steps.items[i].rip != rip)
            continue;
        if (i + 1 == steps.count || steps.items[i + 1].m.event != steps.items[i].m.event)
            return 0;
        n++;
    }
    return n;
}

static void choose_addresses(void)
{
    for (unsigned tries = 0; tries < 400 && address_count < ADDRESSES; tries++) {
        gaddr rip = steps.items[random_below(&random_state, steps.count)].rip;
        size_t n = count_steps(rip);
        bool known = n < 2 || n > MOST_EXECUTIONS;
        for (unsigned k = 0; k < address_count; k++)
            known |= addresses[k] == rip;
        if (!known)
            addresses[address_count++] = rip;
    }
}

static void visit(struct trace *t)
{
    cleanup(replay_closep) struct replay *r = open_replay(t);
    vec_each (s, &steps) {
        unsigned k = 0;
        while (k < address_count && addresses[k] != s->rip)
            k++;
        if (k == address_count)
            continue;
        struct execution x = {.m = s->m};
        must(replay_run(r, s->m, UINT64_MAX, NULL));
        uint32_t task = replay_running(r), space = space_of(r, task);
        must(replay_regs(r, task, &x.regs));
        if (x.regs.r[UREG_RIP] != s->rip || moment_cmp(replay_now(r), s->m) != 0) {
            printf("FAIL: the walk went elsewhere\n");
            exit(1);
        }
        for (unsigned i = 0; i < WORDS; i++) {
            struct err *e = replay_read(r, space, x.regs.r[UREG_RSP] + 8 * i, &x.stack[i], 4, NULL);
            x.stacked[i] = !e;
            err_free(e);
        }
        struct err *e = replay_read(r, space, x.regs.r[UREG_RDI], &x.pointed, 1, NULL);
        x.points = !e;
        err_free(e);
        vec_push(&executions[k], x);
    }
}

/* --- conditions --- */

enum { KINDS = 7 };

static struct condition random_condition(unsigned k)
{
    const struct execution *some =
        &executions[k].items[random_below(&random_state, executions[k].count)];
    struct condition c = {.kind = (unsigned)random_below(&random_state, KINDS)};
    switch (c.kind) {
    case 0:
        c.a = some->regs.r[UREG_RAX];
        snprintf(c.text, sizeof(c.text), "(unsigned long)$rax == %#" PRIx64, c.a);
        break;
    case 1:
        c.a = random_below(&random_state, 8);
        snprintf(c.text, sizeof(c.text), "($rcx & 7) == %" PRIu64, c.a);
        break;
    case 2:
        c.a = random_below(&random_state, WORDS);
        c.b = some->stack[c.a];
        snprintf(c.text, sizeof(c.text), "*(unsigned int *)($rsp + %" PRIu64 ") <= %" PRIu64 "u",
                 8 * c.a, c.b);
        break;
    case 3: // often no pointer
        c.a = some->pointed;
        snprintf(c.text, sizeof(c.text), "*(unsigned char *)$rdi == %" PRIu64, c.a);
        break;
    case 4:
        c.a = 2 + random_below(&random_state, 5);
        snprintf(c.text, sizeof(c.text),
                 "(unsigned long)$rdx %% %" PRIu64
                 " == 1 || (unsigned long)$rsi < (unsigned long)$rdi",
                 c.a);
        break;
    case 5: // divides by zero now and then
        snprintf(c.text, sizeof(c.text), "12 / ((unsigned long)$rbx & 3) > 4");
        break;
    default: // is never true
        snprintf(c.text, sizeof(c.text), "(unsigned long)$rsp == 1");
    }
    c.b = c.kind == 2 ? c.b : random_below(&random_state, WORDS);
    snprintf(c.print, sizeof(c.print), "*(unsigned int *)($rsp + %" PRIu64 ")",
             8 * (c.kind == 2 ? c.a : c.b));
    return c;
}

static enum truth truth_of(const struct condition *c, const struct execution *x)
{
    const uint64_t *r = x->regs.r;
    switch (c->kind) {
    case 0:
        return r[UREG_RAX] == c->a;
    case 1:
        return (r[UREG_RCX] & 7) == c->a;
    case 2:
        return !x->stacked[c->a] ? FAILS : x->stack[c->a] <= c->b;
    case 3:
        return !x->points ? FAILS : x->pointed == c->a;
    case 4:
        return r[UREG_RDX] % c->a == 1 || r[UREG_RSI] < r[UREG_RDI];
    case 5:
        return !(r[UREG_RBX] & 3) ? FAILS : 12 / (r[UREG_RBX] & 3) > 4;
    default:
        return r[UREG_RSP] == 1;
    }
}

/* --- asking --- */

static json_t *ask(struct query_engine *q, const char *name, json_t *params, bool *more_out)
{
    json_t *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row};
    must(query_run(q, name, params, &sink));
    *more_out = sink.more;
    return rows;
}

static void check_row(json_t *row, const struct condition *c, const struct execution *x,
                      enum truth truth)
{
    struct moment m = row_moment(row);
    unsigned word = (unsigned)(c->kind == 2 ? c->a : c->b);
    CHECK(moment_cmp(m, x->m) == 0,
          "%s: a row at %" PRIu64 ":%" PRIu64 ", want %" PRIu64 ":%" PRIu64, c->text, m.event,
          m.icount, x->m.event, x->m.icount);
    CHECK(!json_object_get(row, "conditionError") == (truth == YES),
          "%s at %" PRIu64 ":%" PRIu64 ": %s", c->text, m.event, m.icount,
          truth == YES ? json_string_value(json_object_get(row, "conditionError"))
                       : "it fails, and the row does not say so");
    json_t *value = json_object_get(json_array_get(json_object_get(row, "prints"), 0), "value");
    const char *text = json_string_value(json_object_get(value, "text"));
    CHECK(x->stacked[word] ? text && strtoull(text, NULL, 0) == x->stack[word] : !text,
          "%s at %" PRIu64 ":%" PRIu64 " is %s, want %u", c->print, m.event, m.icount,
          text ? text : json_string_value(json_object_get(value, "why")), x->stack[word]);
}

static void check_window(struct query_engine *q, unsigned k, const struct condition *c)
{
    bool forward = next_random(&random_state) & 1, more;
    struct moment from = steps.items[random_below(&random_state, steps.count)].m;
    size_t limit = random_below(&random_state, 4) ? 1 + random_below(&random_state, 40) : 100000,
           at = 0, left = 0;
    const struct execution *end = forward ? NULL : &executions[k].items[executions[k].count - 1];
    char start[32], stop[32];
    snprintf(start, sizeof(start), "%#" PRIx64, addresses[k]);
    snprintf(stop, sizeof(stop), "%#" PRIx64, addresses[k] + 1);
    json_t *params = json_pack("{ss, ss, ss, sI, s{sI, sI}, ss, s[s]}", "start", start, "end", stop,
                               "direction", forward ? "forward" : "backward", "limit",
                               (json_int_t)limit, "from", "event", (json_int_t)from.event, "instr",
                               (json_int_t)from.icount, "condition", c->text, "print", c->print);
    json_t *rows = ask(q, "address-execution", params, &more);
    for (size_t i = 0; i < executions[k].count; i++) {
        const struct execution *x = end ? end - i : &executions[k].items[i];
        enum truth truth = truth_of(c, x);
        if (truth == NO || (forward ? moment_cmp(x->m, from) < 0 : moment_cmp(x->m, from) >= 0))
            continue;
        if (at == limit) {
            left++;
            continue;
        }
        json_t *row = json_array_get(rows, at++);
        if (row)
            check_row(row, c, x, truth);
        held += truth == YES;
        failing += truth == FAILS;
    }
    CHECK(json_array_size(rows) == at,
          "%s at %s %s from %" PRIu64 ":%" PRIu64 ": %zu rows, want %zu", c->text, start,
          forward ? "forward" : "backward", from.event, from.icount, json_array_size(rows), at);
    CHECK(more == (left > 0), "%s at %s: there is %smore", c->text, start, more ? "" : "no ");
    json_decref(rows);
    json_decref(params);
}

static void check_count(struct query_engine *q, unsigned k, const struct condition *c)
{
    bool more;
    char start[32], stop[32];
    snprintf(start, sizeof(start), "%#" PRIx64, addresses[k]);
    snprintf(stop, sizeof(stop), "%#" PRIx64, addresses[k] + 1);
    json_int_t yes = 0, fails = 0;
    vec_each (x, &executions[k]) {
        enum truth truth = truth_of(c, x);
        yes += truth == YES;
        fails += truth == FAILS;
    }
    json_t *params = json_pack("{ss, ss, ss}", "start", start, "end", stop, "condition", c->text);
    json_t *rows = ask(q, "counts", params, &more), *row = json_array_get(rows, 0), *bucket;
    json_int_t sum = 0;
    size_t i;
    json_array_foreach(json_object_get(row, "buckets"), i, bucket)
    {
        sum += json_integer_value(bucket);
    }
    CHECK(json_integer_value(json_object_get(row, "total")) == yes && sum == yes &&
              json_integer_value(json_object_get(row, "failed")) == fails,
          "%s at %s: %lld in all, %lld failed, want %lld and %lld", c->text, start,
          json_integer_value(json_object_get(row, "total")),
          json_integer_value(json_object_get(row, "failed")), yes, fails);
    json_decref(rows);
    json_decref(params);
}

/* A question that nobody wants any more ends as such, and the next one is answered. */
static void check_cancelled(struct query_engine *q)
{
    static const atomic_bool yes = true;
    char start[32], stop[32];
    snprintf(start, sizeof(start), "%#" PRIx64, addresses[0]);
    snprintf(stop, sizeof(stop), "%#" PRIx64, addresses[0] + 1);
    json_t *params =
               json_pack("{ss, ss, ss}", "start", start, "end", stop, "condition", "$rsp == 1"),
           *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row, .cancelled = &yes};
    struct err *e = query_run(q, "counts", params, &sink);
    CHECK(e && err_kind(e) == ERR_CANCELLED && json_array_size(rows) == 0,
          "a cancelled question ends with %s", e ? err_message(e) : "an answer");
    err_free(e);
    json_decref(rows);
    json_decref(params);
}

int main(int argc, char **argv)
{
    static const struct build_options variants[] = {
        {.shards = 1, .compression_level = 3, .segment_icount = 7001},
        {.shards = 2, .compression_level = 1, .segment_icount = 50021},
        {.shards = 2, .compression_level = 3},
    };
    cleanup(trace_closep) struct trace *t = NULL;
    if (argc != 2)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    must(trace_open(argv[1], &t));
    walk(t);
    choose_addresses();
    visit(t);
    printf("%zu moments, %u addresses\n", steps.count, address_count);
    for (size_t v = 0; v < sizeof(variants) / sizeof(variants[0]); v++) {
        random_state = FIRST_RANDOM_STATE; // the same questions to each
        must(index_build(argv[1], &variants[v], NULL));
        cleanup(query_engine_closep) struct query_engine *q = NULL;
        must(query_engine_open(argv[1], NULL, &q));
        check_cancelled(q);
        for (unsigned k = 0; k < address_count; k++) {
            for (unsigned i = 0; i < QUESTIONS; i++) {
                struct condition c = random_condition(k);
                check_window(q, k, &c);
                if (i == 0)
                    check_count(q, k, &c);
            }
        }
        printf("variant %zu: %u checks, %u held, %u could not be told, %u failures\n", v, checks,
               held, failing, failures);
    }
    CHECK(held > 100 && failing > 10, "these are hardly any");
    return failures ? 1 : 0;
}
