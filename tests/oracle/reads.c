#include "reads.h"

#include "base/buf.h"
#include "forward.h"
#include "rows.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST_SEEN = 150 };

struct reader {
    struct moment m, closed; /* what is not before `closed` is not compared */
    uint32_t task;
    gaddr at;
    unsigned len;
    struct held first;
    VEC(struct moment) seen;
};
static VEC(struct reader *) readers;

void reads_begin(struct replay *r, struct moment m, uint32_t task, uint32_t space, gaddr at,
                 unsigned len)
{
    struct reader *x = xnew(struct reader);
    *x = (struct reader){.m = m,
                         .closed = MOMENT_END,
                         .task = task,
                         .at = at,
                         .len = len,
                         .first = physical(r, task, space, (struct x86_place){true, at})};
    vec_push(&readers, x);
}

static bool reads_any(struct replay *r, const struct reader *x, uint32_t task, uint32_t space,
                      const struct x86_access *a)
{
    // Page by page: a long access may cross mappings.
    for (uint64_t done = 0, n; done < a->len; done += n) {
        gaddr at = a->addr + done;
        n = PAGE_SIZE - at % PAGE_SIZE < a->len - done ? PAGE_SIZE - at % PAGE_SIZE : a->len - done;
        struct held h = physical(r, task, space, (struct x86_place){true, at});
        if (h.owner == x->first.owner && h.object == x->first.object &&
            h.at < x->first.at + x->len && h.at + n > x->first.at)
            return true;
    }
    return false;
}

void reads_step(struct replay *r, struct moment at, uint32_t task, uint32_t space,
                const struct x86_insn *in, const struct x86_run *run)
{
    struct x86_access all[X86_MAX_ACCESSES];
    if (!in->reads_memory)
        return;
    size_t count = x86_accesses(in, run, all);
    vec_each (it, &readers) {
        struct reader *x = *it;
        bool hit = false;
        for (size_t i = 0; i < count && moment_cmp(at, x->closed) < 0; i++)
            hit |= all[i].reads && !all[i].maybe && reads_any(r, x, task, space, &all[i]);
        if (hit && x->seen.count < MOST_SEEN)
            vec_push(&x->seen, at);
        else if (hit)
            x->closed = at;
    }
}

/* --- asking --- */

static json_t *ask(struct query_engine *q, const struct reader *x, const char *access,
                   const char *direction, struct moment from, int limit)
{
    char addr[32];
    snprintf(addr, sizeof(addr), "%#llx", (unsigned long long)x->at);
    json_t *params = json_pack(
        "{s{s{sI, sI}, s{si}}, ss, si, ss, ss, si, s{sI, sI}}", "focus", "moment", "event",
        (json_int_t)x->m.event, "instr", (json_int_t)x->m.icount, "task", "serial", (int)x->task,
        "address", addr, "length", (int)x->len, "access", access, "direction", direction, "limit",
        limit, "from", "event", (json_int_t)from.event, "instr", (json_int_t)from.icount);
    json_t *rows = json_array();
    struct query_sink sink = {.ctx = rows, .row = keep_row};
    struct err *e = query_run(q, "watchpoint", params, &sink);
    if (e) {
        printf("FAIL: %s\n", err_message(e));
        json_decref(rows);
        rows = NULL;
    }
    err_free(e);
    json_decref(params);
    return rows;
}

static bool is_read(const json_t *row)
{
    return str_eq(json_string_value(json_object_get(row, "access")), "read");
}

static void tell(const struct reader *x, const char *what, struct moment at)
{
    printf("FAIL: %#llx..%u from %llu:%llu, task %u: %s at %llu:%llu\n", (unsigned long long)x->at,
           x->len, (unsigned long long)x->m.event, (unsigned long long)x->m.icount, x->task, what,
           (unsigned long long)at.event, (unsigned long long)at.icount);
}

/* The reads that were seen, each once. */
static bool same_as_seen(const struct reader *x, json_t *rows, unsigned *checks)
{
    size_t k = 0;
    json_t *row;
    size_t i;
    json_array_foreach(rows, i, row)
    {
        struct moment m = row_moment(row);
        bool seen = k < x->seen.count && moment_cmp(x->seen.items[k], m) == 0;
        if (moment_cmp(m, x->closed) >= 0)
            break;
        ++*checks;
        if (json_object_get(row, "possible") && !seen)
            continue;
        if (k && !seen && moment_cmp(x->seen.items[k - 1], m) == 0)
            continue; // an instruction that reads twice
        if (!seen) {
            tell(x,
                 k < x->seen.count && moment_cmp(x->seen.items[k], m) < 0
                     ? "a read is missing before"
                     : "there is no read",
                 m);
            return false;
        }
        k++;
    }
    if (json_array_size(rows) < MOST_SEEN && k < x->seen.count) {
        tell(x, "a read is missing", x->seen.items[k]);
        return false;
    }
    return true;
}

/* Reads and writes together are the reads and the writes. */
static bool same_together(const struct reader *x, json_t *reads, json_t *writes, json_t *both,
                          unsigned *checks)
{
    size_t r = 0, w = 0, i;
    json_t *row;
    json_array_foreach(both, i, row)
    {
        json_t *want = is_read(row) ? json_array_get(reads, r++) : json_array_get(writes, w++);
        ++*checks;
        if (!want || !json_equal(want, row)) {
            tell(x, "asked together it is another row", row_moment(row));
            return false;
        }
    }
    return true;
}

static bool check(struct query_engine *q, const struct reader *x, unsigned *checks)
{
    json_t *reads = ask(q, x, "read", "forward", x->m, MOST_SEEN),
           *writes = ask(q, x, "write", "forward", x->m, MOST_SEEN);
    json_t *both = ask(q, x, "both", "forward", x->m, 20);
    bool good = reads && writes && both && same_as_seen(x, reads, checks) &&
                same_together(x, reads, writes, both, checks);
    // Back from one of them: those before.
    size_t n = json_array_size(reads), from = n > 7 ? 7 : n ? n - 1 : 0;
    json_t *back =
        n ? ask(q, x, "read", "backward", row_moment(json_array_get(reads, from)), 3) : NULL;
    for (size_t i = 0; good && i < json_array_size(back) && i < from; i++) {
        ++*checks;
        good = json_equal(json_array_get(back, i), json_array_get(reads, from - 1 - i));
        if (!good)
            tell(x, "backward it is another row", row_moment(json_array_get(back, i)));
    }
    json_decref(back);
    json_decref(both);
    json_decref(writes);
    json_decref(reads);
    return good;
}

void reads_check(struct query_engine *q, unsigned *checks, unsigned *failures)
{
    vec_each (x, &readers)
        *failures += !check(q, *x, checks);
}
