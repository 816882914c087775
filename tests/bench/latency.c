/* How long answers take. Asks random questions of each kind about one recording with a database,
 * first of engines that were just opened (cold: nothing is kept, no symbols are read), then of one
 * that has been asked at the same places before (warm), and prints percentiles, a line of JSON for
 * each. Each kind of question has its share of the time; what does not fit in is not asked. Of
 * origins also the time by hop is told.
 *
 * latency TRACE_DIR [COLD_QUESTIONS [WARM_QUESTIONS [KIND]]] */
#include "base/allocator.h"
#include "base/random.h"
#include "db/history.h"
#include "query/query.h"

#include <stdio.h>
#include <time.h>

enum {
    KIND_MS = 800 /* of a kind of question, cold or warm */,
    CHOOSE_MS = 2500 /* of looking for places and functions, each */,
    MOST_PLACES = 50
};
enum {
    WARM_PLACES = 8
}; // the same number however long it took to get to them: what is kept of them has a bound

enum question {
    STATE,
    MEMORY,
    STACK,
    LAST_WRITE,
    NEXT_EXECUTION,
    INSTRUCTIONS,
    DATAFLOW,
    DATAFLOW_STACK,
    FUNCTION,
    QUESTIONS
};
static const char *const names[QUESTIONS] = {"state",          "memory",          "stack",
                                             "last write",     "next execution",  "20 instructions",
                                             "origin of reg.", "origin of [rsp]", "100 calls"};

/* What the questions are about: a moment and an address that is known to be of use there. */
struct place {
    json_t *focus; /* borrowed by requests */
    json_t *regs;  /* rows of `registers` */
};

static void must(struct err *e)
{
    if (!e)
        return;
    fprintf(stderr, "%s\n", err_message(e));
    exit(1);
}

static uint64_t random_state = 88172645463325252ull;
static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static bool keep_row(void *ctx, json_t *row)
{
    json_array_append_new(ctx, row);
    return true;
}

/* Rows of an answer; its time in *ms_out (may be NULL). Takes over params. */
static json_t *ask(struct query_engine *q, const char *name, json_t *params, double *ms_out)
{
    json_t *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row};
    double start = now_ms();
    struct err *e = query_run(q, name, params, &sink);
    if (ms_out)
        *ms_out = now_ms() - start;
    if (e && err_kind(e) != ERR_NOT_FOUND && err_kind(e) != ERR_FAULT)
        must(e);
    err_free(e);
    json_decref(params);
    return rows;
}

static const char *reg_of(const struct place *p, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(p->regs, i, row)
    {
        const char *value = json_string_value(json_object_get(row, "value"));
        if (strcmp(json_string_value(json_object_get(row, "name")), name) == 0)
            return strtoull(value, NULL, 16) < UINT64_MAX - 8
                       ? value
                       : "0x1000"; // what is asked about ends in the address space
    }
    return "0x1000";
}

/* From how many places to the one before a value was followed: one a row, and two for each pair of
 * push and pop that was left out. */
static double hops_of(json_t *rows)
{
    size_t i;
    json_int_t hops = 0;
    json_t *row;
    json_array_foreach(rows, i, row) hops +=
        1 + 2 * json_integer_value(json_object_get(row, "saved"));
    return hops ? (double)hops : 1;
}

/* Its time; in *hops_out, of a question for an origin, how often it had to be found. */
static double question(struct query_engine *q, enum question kind, const struct place *p,
                       json_t *functions, double *hops_out)
{
    static const char *const around[] = {"rsp", "rdi", "rsi", "rbp"};
    double ms = 0;
    json_t *rows = NULL;
    switch (kind) {
    case STATE:
        rows = ask(q, "registers", json_pack("{sO}", "focus", p->focus), &ms);
        break;
    case MEMORY:
        rows = ask(q, "memory",
                   json_pack("{sO, ss, si}", "focus", p->focus, "address", reg_of(p, "rsp"),
                             "length", 256),
                   &ms);
        break;
    case STACK:
        rows = ask(q, "stack", json_pack("{sO, si}", "focus", p->focus, "limit", 64), &ms);
        break;
    case LAST_WRITE:
        rows = ask(q, "watchpoint",
                   json_pack("{sO, ss, si, ss, si}", "focus", p->focus, "address",
                             reg_of(p, around[next_random(&random_state) % 4]), "length", 8,
                             "direction", "backward", "limit", 1),
                   &ms);
        break;
    case NEXT_EXECUTION: {
        char end[32];
        snprintf(end, sizeof(end), "%#llx", strtoull(reg_of(p, "rip"), NULL, 16) + 1);
        rows = ask(q, "address-execution",
                   json_pack("{sO, ss, ss, si}", "focus", p->focus, "start", reg_of(p, "rip"),
                             "end", end, "limit", 1),
                   &ms);
        break;
    }
    case INSTRUCTIONS:
        rows = ask(q, "instructions", json_pack("{sO, si}", "focus", p->focus, "limit", 20), &ms);
        break;
    case DATAFLOW:
        rows = ask(q, "dataflow",
                   json_pack("{sO, ss, si}", "focus", p->focus, "register",
                             around[1 + next_random(&random_state) % 3], "limit", 1),
                   &ms);
        break;
    case DATAFLOW_STACK:
        rows = ask(q, "dataflow",
                   json_pack("{sO, ss, si, si}", "focus", p->focus, "address", reg_of(p, "rsp"),
                             "length", 8, "limit", 1),
                   &ms);
        break;
    default: {
        json_t *f = json_array_get(
            functions, next_random(&random_state) %
                           (json_array_size(functions) ? json_array_size(functions) : 1));
        if (!f)
            break;
        rows = ask(q, "execution",
                   json_pack("{sO, sO, si}", "focus", p->focus, "function", f, "limit", 100), &ms);
    }
    }
    *hops_out = hops_of(rows);
    json_decref(rows);
    return ms;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void print_times(const char *name, const char *of, bool warm, double *times, size_t n)
{
    qsort(times, n, sizeof(double), by_value);
    printf("{\"name\": \"%s%s, %s\", \"n\": %zu, \"p50_ms\": %.3f, \"p90_ms\": %.3f, \"p99_ms\": "
           "%.3f}\n",
           name, of, warm ? "warm" : "cold", n, times[n / 2], times[n * 9 / 10],
           times[n * 99 / 100]);
    fflush(stdout);
}

/* Asks up to `most` questions of a kind within the time. Without `warm` each of an engine of its
 * own. */
static void measure(const char *dir, enum question kind, struct query_engine *warm,
                    const struct place *places, size_t place_count, size_t most, json_t *functions)
{
    cleanup(freep) double *times = xnew_array(double, most + 1),
                          *by_hop = xnew_array(double, most + 1);
    size_t n = 0;
    double start = now_ms();
    for (; n < most && (n == 0 || now_ms() - start < KIND_MS); n++) {
        cleanup(query_engine_closep) struct query_engine *fresh = NULL;
        if (!warm)
            must(query_engine_open(dir, NULL, &fresh));
        double hops;
        times[n] = question(warm ? warm : fresh, kind,
                            &places[next_random(&random_state) % place_count], functions, &hops);
        by_hop[n] = times[n] / hops;
    }
    if (!n)
        return;
    print_times(names[kind], "", warm, times, n);
    if (kind == DATAFLOW || kind == DATAFLOW_STACK)
        print_times(names[kind], " by hop", warm, by_hop, n);
}

/* Up to `count` random moments, spread evenly over the segments' instructions as far as events
 * allow, with their registers. */
static struct place *choose_places(const char *dir, size_t count, size_t *count_out)
{
    cleanup(query_engine_closep) struct query_engine *q = NULL;
    must(query_engine_open(dir, NULL, &q));
    json_t *events = ask(q, "events", json_pack("{si}", "limit", 100000), NULL);
    // Of each event: the instructions before it, from the moment of its row.
    size_t n = json_array_size(events);
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += (uint64_t)json_integer_value(json_object_get(
            json_object_get(json_object_get(json_array_get(events, i), "focus"), "moment"),
            "instr"));
    struct place *places = xnew_array(struct place, count);
    size_t k = 0;
    double start = now_ms();
    for (; k < count && (k == 0 || now_ms() - start < CHOOSE_MS); k++) {
        uint64_t at = next_random(&random_state) % (total ? total : 1);
        for (size_t i = 0; i < n; i++) {
            json_t *moment =
                json_object_get(json_object_get(json_array_get(events, i), "focus"), "moment");
            uint64_t len = (uint64_t)json_integer_value(json_object_get(moment, "instr"));
            if (at >= len) {
                at -= len;
                continue;
            }
            places[k].focus = json_pack("{s{sO, sI}}", "moment", "event",
                                        json_object_get(moment, "event"), "instr", (json_int_t)at);
            places[k].regs = ask(q, "registers", json_pack("{sO}", "focus", places[k].focus), NULL);
            break;
        }
    }
    json_decref(events);
    *count_out = k;
    return places;
}

int main(int argc, char **argv)
{
    allocator_setup();
    if (argc < 2)
        return 2;
    const char *kind = argc > 4 ? argv[4] : NULL;
    size_t cold = argc > 2 ? strtoul(argv[2], NULL, 10) : 20,
           warm = argc > 3 ? strtoul(argv[3], NULL, 10) : 200;
    size_t count;
    struct place *places = choose_places(argv[1], MOST_PLACES, &count);
    json_t *functions = json_array();
    cleanup(query_engine_closep) struct query_engine *q = NULL;
    must(query_engine_open(argv[1], NULL, &q));
    double start = now_ms();
    for (size_t i = 0; i < count && now_ms() - start < CHOOSE_MS;
         i++) { // functions in use at the moments; this warms up, too
        json_t *frame = ask(q, "complete-frame", json_pack("{sO}", "focus", places[i].focus), NULL);
        json_t *id = json_object_get(json_object_get(json_array_get(frame, 0), "function"), "id");
        if (id)
            json_array_append(functions, id);
        json_decref(frame);
    }
    for (int k = 0; k < QUESTIONS; k++) {
        if (cold && (!kind || strcmp(names[k], kind) == 0))
            measure(argv[1], (enum question)k, NULL, places, count, cold, functions);
    }
    for (int k = 0; k < QUESTIONS; k++) {
        if (!warm || (kind && strcmp(names[k], kind) != 0))
            continue;
        start = now_ms();
        size_t near = count < WARM_PLACES ? count : WARM_PLACES;
        for (size_t i = 0; i < near && now_ms() - start < KIND_MS; i++)
            question(q, (enum question)k, &places[i], functions, &(double){0});
        measure(argv[1], (enum question)k, q, places, near, warm, functions);
    }
    json_decref(functions);
    return 0;
}
