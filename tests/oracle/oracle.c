/* The query engine against a naive oracle: the recording is replayed one instruction at a time,
 * with nothing of the database, and what is seen is held against the engine's answers. The worker
 * does the stepping (struct step_request) and looks at registers and probes at every moment: a
 * round trip for each would take most of the test's time.
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
#include "check.h"
#include "index/build.h"
#include "query/query.h"
#include "replay/replay.h"
#include "rows.h"

#include <stdio.h>

enum { PROBES = 40, PROBE_LEN = 8, MAX_STEPS = 400000, SAMPLE_EVERY = 997 };

struct seen {
    struct moment m;
    uint32_t task;
    bool at_call; /* the instruction at rip is a call */
    gaddr rip, rsp;
};

struct change {
    struct moment m; /* before the write */
    uint32_t probe;
    uint64_t before, after;
};

struct shadow_call {
    gaddr return_addr, sp;
};

/* The calls of task 1 that have not returned at a moment: those of `stack_calls` from `first` on,
 * outermost first. */
struct shadow_stack {
    struct moment m;
    size_t first, count;
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
static VEC(struct shadow_stack) stacks;
static VEC(struct shadow_call) stack_calls;
static gaddr probes[PROBES];
static unsigned probe_count;
static uint32_t probe_space;

/* --- the naive pass --- */

/* Addresses worth watching: around the stack pointers and written data of the middle of the run. */
static void choose_probes(struct trace *t)
{
    cleanup(replay_closep) struct replay *r = NULL;
    must(replay_open(t, &r));
    unsigned n = 0;
    while (!replay_at_end(r) && n < PROBES) {
        must(replay_run(r, MOMENT_END, 300 + random_number() % 600, NULL));
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
        gaddr at = regs.r[UREG_RSP] - 64 + random_number() % 128;
        if (n % 4 == 1)
            at = (regs.r[UREG_RSP] & ~(gaddr)4095) - 3;
        if (n % 4 == 3)
            at = regs.r[UREG_RDI] + random_number() % 16;
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

/* What the walk holds: the last moment, and the probes as they were then. */
struct walk {
    struct replay *r;
    struct moment last;
    uint64_t before[PROBES];
    bool was_mapped[PROBES];
};

/* Is it E8 or FF /2, behind prefixes? */
static bool is_call(const uint8_t *code, size_t len)
{
    size_t i = 0;
    while (i + 1 < len &&
           (code[i] == 0x66 || code[i] == 0x67 || code[i] == 0xf2 || code[i] == 0xf3 ||
            code[i] == 0x2e || code[i] == 0x3e || (code[i] & 0xf0) == 0x40))
        i++;
    return i + 1 < len && (code[i] == 0xe8 || (code[i] == 0xff && (code[i + 1] >> 3 & 7) == 2));
}

/* Takes note of a state; task 0: nothing runs. */
static void note(struct walk *w, struct moment m, uint32_t task, const struct regs *regs,
                 const uint8_t *code, size_t code_len, const uint64_t *now, const bool *mapped)
{
    for (unsigned i = 0; i < probe_count; i++) {
        if (mapped[i] && w->was_mapped[i] && now[i] != w->before[i])
            vec_push(&changes, (struct change){w->last, i, w->before[i], now[i]});
    }
    memcpy(w->before, now, sizeof(w->before));
    memcpy(w->was_mapped, mapped, sizeof(w->was_mapped));
    w->last = m;
    if (!task)
        return;
    vec_push(&steps,
             (struct seen){m, task, is_call(code, code_len), regs->r[UREG_RIP], regs->r[UREG_RSP]});
    if (steps.count % SAMPLE_EVERY == 0) {
        struct sample *s = vec_add(&samples);
        s->m = m;
        s->task = task;
        s->regs = *regs;
        memcpy(s->probes, now, sizeof(s->probes));
        memcpy(s->mapped, mapped, sizeof(s->mapped));
    }
}

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

/* Takes note of the state in which the replay stands. */
static void note_here(struct walk *w)
{
    uint64_t now[PROBES] = {0};
    bool mapped[PROBES] = {0};
    struct regs regs = {0};
    uint8_t code[16] = {0};
    size_t code_len = 0;
    uint32_t task = replay_running(w->r);
    read_probes(w->r, now, mapped);
    if (task) {
        must(replay_regs(w->r, task, &regs));
        err_free(replay_read(w->r, space_of(w->r, task), regs.r[UREG_RIP], code, sizeof(code),
                             &code_len));
    }
    note(w, replay_now(w->r), task, &regs, code, code_len, now, mapped);
}

static bool is_mapped(struct replay *r, gaddr start, size_t len)
{
    size_t count;
    const struct mapping *maps = replay_mappings(r, probe_space, &count);
    gaddr at = start;
    for (size_t i = 0; i < count && at < start + len; i++) {
        if (at >= maps[i].start && at < maps[i].end)
            at = maps[i].end;
    }
    return at >= start + len;
}

/* What to look at before each instruction up to the next event: whole spans where they are mapped,
 * else the probes that are. */
static unsigned choose_pieces(struct replay *r, struct span out[2 * PROBES])
{
    unsigned count = 0;
    for (unsigned k = 0; k < span_count; k++) {
        if (is_mapped(r, spans[k].start, spans[k].len)) {
            out[count++] = spans[k];
            continue;
        }
        for (unsigned i = 0; i < probe_count; i++) {
            if (probes[i] >= spans[k].start && probes[i] - spans[k].start < spans[k].len &&
                is_mapped(r, probes[i], PROBE_LEN))
                out[count++] = (struct span){probes[i], PROBE_LEN};
        }
    }
    return count;
}

static size_t captured_len(const struct span *pieces, unsigned piece_count)
{
    size_t len = 0;
    for (unsigned k = 0; k < piece_count; k++)
        len += 8 + ((pieces[k].len + 7) & ~(size_t)7);
    return len;
}

/* The probes from captured pieces. */
static void unpack_probes(const uint8_t *captured, const struct span *pieces, unsigned piece_count,
                          uint64_t *now, bool *mapped)
{
    for (unsigned k = 0; k < piece_count; k++) {
        size_t done = load_u64(captured);
        for (unsigned i = 0; i < probe_count; i++) {
            if (probes[i] < pieces[k].start || probes[i] - pieces[k].start + PROBE_LEN > done)
                continue;
            now[i] = load_u64(captured + 8 + (probes[i] - pieces[k].start));
            mapped[i] = true;
        }
        captured += captured_len(&pieces[k], 1);
    }
}

/* Runs up to `most` instructions, or to the next event, in the worker of the probes. */
static void walk_stretch(struct walk *w, uint32_t task, size_t most)
{
    enum { MOST_CAPTURES = 100000 };
    static struct step_capture captures[MOST_CAPTURES];
    struct span pieces[2 * PROBES];
    unsigned piece_count = choose_pieces(w->r, pieces);
    struct moment start = replay_now(w->r);
    struct worker *worker = replay_worker(w->r, probe_space);
    size_t n = 0;
    if (piece_count && most > MOST_CAPTURES / piece_count - 1)
        most = MOST_CAPTURES / piece_count - 1;
    for (size_t i = 0; i <= most; i++) {
        for (unsigned k = 0; k < piece_count; k++)
            captures[n++] = (struct step_capture){start.event, start.icount + i, pieces[k].start,
                                                  pieces[k].len};
    }
    must(worker_set_steps(
        worker, &(struct step_request){.record = true, .captures = captures, .capture_count = n}));
    must(replay_run(w->r, (struct moment){start.event + 1, 0}, most, NULL));
    if (replay_worker(w->r, probe_space) != worker)
        return; // it has ended: what follows the event is noted, the stretch before it is not
    cleanup(buf_deinit) struct buf rows = {0}, memory = {0};
    must(worker_take_steps(worker, &rows, &memory));
    must(worker_set_steps(worker, NULL));
    const struct step_row *row = (const void *)rows.data;
    size_t stride = captured_len(pieces, piece_count);
    for (size_t i = 0; i < rows.len / sizeof(*row); i++) {
        struct moment m = {row[i].stamp, row[i].icount};
        size_t off = (size_t)(m.icount - start.icount) * stride;
        if (moment_cmp(m, w->last) <= 0)
            continue; // seen: the end of the stretch before, or a system call's entry
        uint64_t now[PROBES] = {0};
        bool mapped[PROBES] = {0};
        if (m.event != start.event || off + stride > memory.len) {
            printf("FAIL: the worker's step at %llu:%llu has no memory\n",
                   (unsigned long long)m.event, (unsigned long long)m.icount);
            exit(1);
        }
        unpack_probes(memory.data + off, pieces, piece_count, now, mapped);
        note(w, m, task, &row[i].regs, row[i].code, row[i].code_len, now, mapped);
    }
}

static struct err *keep_clocks(void *ctx, struct replay *r, uint32_t space)
{
    return NULL;
}

static void walk(struct trace *t)
{
    enum { MOST_AT_ONCE = 4096 };
    struct walk w = {0};
    must(replay_open(t, &w.r));
    const struct replay_observer observer = {.code_mapped = keep_clocks};
    replay_set_observer(w.r, &observer);
    size_t most = 64;
    while (!replay_at_end(w.r) && steps.count < MAX_STEPS) {
        uint32_t task = replay_running(w.r);
        if (task && space_of(w.r, task) == probe_space) {
            event_no event = replay_now(w.r).event;
            walk_stretch(&w, task, most);
            most = replay_now(w.r).event != event ? 64 : most < MOST_AT_ONCE ? 2 * most : most;
        } else { // an event is a step of its own
            must(replay_run(w.r, (struct moment){replay_now(w.r).event + 1, 0}, 1, NULL));
        }
        if (moment_cmp(replay_now(w.r), w.last) > 0)
            note_here(&w);
    }
    replay_close(w.r);
}

/* Stacks now and then, by watching rsp: a call lowers it by 8 and leaves an address there that is
 * just behind it. */
static void walk_stacks(struct trace *t)
{
    enum { MOST = 60, EVERY = 1511 };
    cleanup(replay_closep) struct replay *r = NULL;
    must(replay_open(t, &r));
    VEC(struct shadow_call) calls = {0};
    struct seen last = {0};
    for (size_t i = 0; i < steps.count && stacks.count < MOST; i++) {
        const struct seen *s = &steps.items[i];
        if (s->task != 1)
            continue;
        while (calls.count && calls.items[calls.count - 1].sp < s->rsp)
            calls.count--;
        if (last.at_call && s->m.event == last.m.event && s->rsp == last.rsp - 8) {
            uint64_t pushed = 0;
            must(replay_run(r, s->m, UINT64_MAX, NULL));
            must(replay_read(r, space_of(r, 1), s->rsp, &pushed, 8, NULL));
            if (pushed > last.rip && pushed <= last.rip + 15)
                vec_push(&calls, (struct shadow_call){pushed, s->rsp});
        }
        last = *s;
        // Stacks of the preload library's own are another matter.
        if (i % EVERY || s->rsp < 0x70002000)
            continue;
        vec_push(&stacks, (struct shadow_stack){s->m, stack_calls.count, calls.count});
        vec_each (c, &calls)
            vec_push(&stack_calls, *c);
    }
    vec_deinit(&calls);
}

/* --- asking --- */

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
    return json_pack("{s{sI, sI}, s{si}}", "moment", "event", (json_int_t)m.event, "instr",
                     (json_int_t)m.icount, "task", "serial", (int)task);
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
        CHECK(rows, "registers at %llu:%llu: %s", (unsigned long long)s->m.event,
              (unsigned long long)s->m.icount,
              json_string_value(json_object_get(params, "failed")));
        json_array_foreach(rows, i, row)
        {
            static const struct {
                const char *name;
                int idx;
            } some[] = {{"rip", UREG_RIP},        {"rax", UREG_RAX}, {"rsp", UREG_RSP},
                        {"rbp", UREG_RBP},        {"rdi", UREG_RDI}, {"r15", UREG_R15},
                        {"r14", UREG_R14},        {"r11", UREG_R11}, {"eflags", UREG_EFLAGS},
                        {"fs_base", UREG_FS_BASE}};
            for (size_t k = 0; k < sizeof(some) / sizeof(some[0]); k++) {
                if (strcmp(json_string_value(json_object_get(row, "name")), some[k].name) == 0)
                    CHECK(hex_field(row, "value") == s->regs.r[some[k].idx],
                          "%s at %llu:%llu is %s, want %llx", some[k].name,
                          (unsigned long long)s->m.event, (unsigned long long)s->m.icount,
                          json_string_value(json_object_get(row, "value")),
                          (unsigned long long)s->regs.r[some[k].idx]);
            }
        }
        json_decref(rows);
        json_decref(params);
        unsigned p = (unsigned)(random_number() % probe_count);
        if (!s->mapped[p])
            continue;
        char addr[32];
        snprintf(addr, sizeof(addr), "%#llx", (unsigned long long)probes[p]);
        params = json_pack("{so, ss, si}", "focus", focus_of(s->m, s->task), "address", addr,
                           "length", PROBE_LEN);
        rows = ask(q, "memory", params);
        char want[17];
        for (int k = 0; k < 8; k++)
            snprintf(want + 2 * k, 3, "%02x", (unsigned)(s->probes[p] >> 8 * k & 0xff));
        const char *have =
            rows ? json_string_value(json_object_get(json_array_get(rows, 0), "bytes")) : "";
        CHECK(have && strcmp(have, want) == 0, "memory %s at %llu:%llu is %s, want %s", addr,
              (unsigned long long)s->m.event, (unsigned long long)s->m.icount, have ? have : "",
              want);
        json_decref(rows);
        json_decref(params);
    }
}

/* The same rows, some at a time from one end of the recording: none is missing between two pages,
 * and there are more where it says so not. */
static void check_pages(struct query_engine *q, const char *addr, const struct sample *last,
                        json_t *rows, bool forward)
{
    enum { MOST = 9 };
    size_t n = json_array_size(rows), at = 0;
    struct moment from = forward ? (struct moment){0} : last->m;
    for (bool more = true; more && at < n && at < MOST;) {
        int limit = 1 + (int)(random_number() % 3);
        json_t *params = json_pack(
            "{so, ss, si, ss, si, s{sI, sI}}", "focus", focus_of(last->m, last->task), "address",
            addr, "length", PROBE_LEN, "direction", forward ? "forward" : "backward", "limit",
            limit, "from", "event", (json_int_t)from.event, "instr", (json_int_t)from.icount);
        json_t *page = json_array();
        struct query_sink sink = {.ctx = page, .row = keep_row};
        must(query_run(q, "watchpoint", params, &sink));
        more = sink.more;
        for (size_t i = 0; i < json_array_size(page); i++, at++) {
            json_t *want = json_array_get(rows, forward ? n - 1 - at : at);
            from = row_moment(json_array_get(page, i));
            if (moment_cmp(from, last->m) >= 0)
                break;
            CHECK(json_equal(json_array_get(page, i), want),
                  "write %zu of %s, %s, is another in pages", at, addr,
                  forward ? "forward" : "backward");
        }
        from.icount += forward;
        CHECK(json_array_size(page) || !more, "no write of %s, yet there are more", addr);
        more &= moment_cmp(from, last->m) < 0;
        CHECK(more || at == n, "%zu writes of %s in pages, want %zu", at, addr, n);
        json_decref(page);
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
        json_t *params =
            json_pack("{so, ss, si, ss, si}", "focus", focus_of(last->m, last->task), "address",
                      addr, "length", PROBE_LEN, "direction", "backward", "limit", 100000);
        json_t *rows = ask(q, "watchpoint", params);
        CHECK(rows, "watchpoint %s: %s", addr,
              json_string_value(json_object_get(params, "failed")));
        size_t n = json_array_size(rows), matched = 0;
        vec_each (c, &changes) {
            if (c->probe != p || moment_cmp(c->m, last->m) >= 0)
                continue;
            bool found = false;
            for (size_t i = 0; i < n && !found; i++)
                found = moment_cmp(row_moment(json_array_get(rows, i)), c->m) == 0;
            matched += found;
            CHECK(found, "write of %s at %llu:%llu is not found", addr,
                  (unsigned long long)c->m.event, (unsigned long long)c->m.icount);
        }
        for (size_t i = 0; i < n; i++) {
            json_t *row = json_array_get(rows, i), *before = json_object_get(row, "before"),
                   *after = json_object_get(row, "after");
            if (!json_is_string(before) || !json_is_string(after) || json_equal(before, after))
                continue;
            struct moment m = row_moment(row);
            bool found = false;
            vec_each (c, &changes)
                found |= c->probe == p && moment_cmp(c->m, m) == 0;
            CHECK(found, "%s did not change at %llu:%llu", addr, (unsigned long long)m.event,
                  (unsigned long long)m.icount);
        }
        check_pages(q, addr, last, rows, false);
        check_pages(q, addr, last, rows, true);
        json_decref(rows);
        json_decref(params);
    }
}

static void check_executions(struct query_engine *q)
{
    for (int k = 0; k < 40; k++) {
        const struct seen *s = &steps.items[random_number() % steps.count];
        struct moment from = steps.items[random_number() % steps.count].m;
        bool forward = random_number() & 1;
        char start[32], end[32];
        snprintf(start, sizeof(start), "%#llx", (unsigned long long)s->rip);
        snprintf(end, sizeof(end), "%#llx", (unsigned long long)s->rip + 1);
        json_t *params =
            json_pack("{ss, ss, ss, si, s{sI, sI}}", "start", start, "end", end, "direction",
                      forward ? "forward" : "backward", "limit", 30, "from", "event",
                      (json_int_t)from.event, "instr", (json_int_t)from.icount);
        json_t *rows = ask(q, "address-execution", params);
        CHECK(rows, "executions of %s: %s", start,
              json_string_value(json_object_get(params, "failed")));
        json_t *again = ask(q, "address-execution", params); // from what is kept now
        CHECK(json_equal(rows, again), "executions of %s are others when asked again", start);
        json_decref(again);
        size_t at = 0;
        for (size_t i = 0; i < steps.count && at < 30; i++) {
            const struct seen *x = &steps.items[forward ? i : steps.count - 1 - i];
            if (x->rip != s->rip ||
                (forward ? moment_cmp(x->m, from) < 0 : moment_cmp(x->m, from) >= 0))
                continue;
            // The last step before an event stands where the next one begins: only moments at which
            // an instruction follows count.
            const struct seen *next = &steps.items[(forward ? i : steps.count - 1 - i) + 1];
            if (next >= steps.items + steps.count || next->m.event != x->m.event)
                continue;
            struct moment m = row_moment(json_array_get(rows, at));
            CHECK(at < json_array_size(rows) && moment_cmp(m, x->m) == 0,
                  "%s execution %zu of %s from %llu:%llu is at %llu:%llu, want %llu:%llu",
                  forward ? "forward" : "backward", at, start, (unsigned long long)from.event,
                  (unsigned long long)from.icount, (unsigned long long)m.event,
                  (unsigned long long)m.icount, (unsigned long long)x->m.event,
                  (unsigned long long)x->m.icount);
            at++;
            if (failures > 30)
                break;
        }
        json_decref(rows);
        json_decref(params);
    }
}

static void check_stacks(struct query_engine *q)
{
    vec_each (s, &stacks) {
        json_t *params = json_pack("{so}", "focus", focus_of(s->m, 1));
        json_t *rows = ask(q, "stack", params);
        CHECK(rows && json_array_size(rows) == s->count + 1,
              "the stack at %llu:%llu has %zu frames, want %zu", (unsigned long long)s->m.event,
              (unsigned long long)s->m.icount, json_array_size(rows), s->count + 1);
        for (size_t k = 0; rows && k < s->count && k + 1 < json_array_size(rows); k++) {
            gaddr want = stack_calls.items[s->first + s->count - 1 - k].return_addr;
            CHECK(hex_field(json_array_get(rows, k + 1), "pc") == want,
                  "frame %zu at %llu:%llu is at %s, want %llx", k + 1,
                  (unsigned long long)s->m.event, (unsigned long long)s->m.icount,
                  json_string_value(json_object_get(json_array_get(rows, k + 1), "pc")),
                  (unsigned long long)want);
        }
        size_t first = s->m.icount % (s->count + 2), limit = 1 + s->m.icount % 5,
               left = s->count + 1 - (first <= s->count ? first : s->count + 1);
        json_object_set_new(params, "first", json_integer((json_int_t)first));
        json_object_set_new(params, "limit", json_integer((json_int_t)limit));
        json_t *some = ask(q, "stack", params);
        CHECK(some && json_array_size(some) == (left < limit ? left : limit),
              "%zu frames from %zu of %zu on", json_array_size(some), first, s->count + 1);
        for (size_t k = 0; some && k < json_array_size(some); k++)
            CHECK(json_equal(json_array_get(some, k), json_array_get(rows, first + k)),
                  "frame %zu is another one if asked for alone", first + k);
        json_decref(some);
        json_decref(rows);
        json_decref(params);
    }
}

static void check_steps(struct query_engine *q)
{
    for (int k = 0; k < 60; k++) {
        size_t i = random_number() % (steps.count - 1);
        const struct seen *a = &steps.items[i], *b = &steps.items[i + 1];
        if (a->task != b->task || a->m.event != b->m.event || i + 2 >= steps.count ||
            steps.items[i + 2].m.event != b->m.event)
            continue;
        json_t *params = json_pack("{so, ss, ss}", "focus", focus_of(a->m, a->task), "kind",
                                   "instruction", "direction", "forward");
        json_t *rows = ask(q, "step", params);
        CHECK(rows && moment_cmp(row_moment(json_array_get(rows, 0)), b->m) == 0 &&
                  hex_field(json_array_get(rows, 0), "pc") == b->rip,
              "the step from %llu:%llu goes elsewhere", (unsigned long long)a->m.event,
              (unsigned long long)a->m.icount);
        json_decref(rows);
        json_decref(params);
        params = json_pack("{so, ss, ss}", "focus", focus_of(b->m, b->task), "kind", "instruction",
                           "direction", "backward");
        rows = ask(q, "step", params);
        CHECK(rows && moment_cmp(row_moment(json_array_get(rows, 0)), a->m) == 0,
              "the step back from %llu:%llu goes elsewhere", (unsigned long long)b->m.event,
              (unsigned long long)b->m.icount);
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
    walk_stacks(t);
    printf("%zu moments, %zu changes of %u probes, %zu samples, %zu stacks\n", steps.count,
           changes.count, probe_count, samples.count, stacks.count);
    // Of long recordings one database: that all databases give the same answers is what
    // database/variants is for.
    size_t count = steps.count > LONG ? 1 : sizeof(variants) / sizeof(variants[0]);
    for (size_t v = 0; v < count; v++) {
        random_state = FIRST_RANDOM_STATE;
        must(index_build(argv[1], &variants[v], NULL));
        cleanup(query_engine_closep) struct query_engine *q = NULL;
        must(query_engine_open(argv[1], NULL, &q));
        check_states(q);
        check_writes(q, MOMENT_END);
        check_executions(q);
        check_stacks(q);
        check_steps(q);
        printf("variant %zu: %u checks, %u failures\n", v, checks, failures);
    }
    return failures ? 1 : 0;
}
