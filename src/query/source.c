/* Queries about sources: search, files, functions in a file, the lines that the present call
 * executed. */
#include "query/query_int.h"
#include "x86/x86.h"

#include "worker/worker.h"

#include <ctype.h>

/* --- source --- */

struct err *query_source(struct query_engine *q, json_t *params)
{
    const char *file;
    struct source_place place = {.fd = -1, .is_relevant = true};
    TRY(param_string(params, "file", &file));
    struct err *e = sources_find(q->sources, file, &place);
    cleanup(closep) int fd = place.fd;
    cleanup(freep) char *address = place.url, *url = str_format("/sources%s", file), *why = NULL;
    if (e)
        why = xstrdup(err_message(e));
    else if (address)
        why = xstrdup("this file is on the web, from where the server fetches nothing");
    err_free(e);
    json_t *row =
        json_pack("{so, so, sb, sb}", "file", json_text(file, strlen(file)), "url",
                  json_text(url, strlen(url)), "found", !why, "relevant", place.is_relevant);
    if (why)
        json_object_set_new(row, "why", json_text(why, strlen(why)));
    if (address)
        json_object_set_new(row, "address", json_text(address, strlen(address)));
    return give(q, row);
}

/* Functions in the order in which their rows come, each perhaps several times. */
struct functions {
    VEC(struct seen_function {
        const struct sym_function *f;
        size_t order;
    }) seen;
};

static bool visit_row(void *arg, const struct sym_line *row, const struct sym_function *fn)
{
    struct functions *f = arg;
    size_t count = f->seen.count;
    if (fn && (!count || f->seen.items[count - 1].f != fn))
        vec_push(&f->seen, (struct seen_function){fn, count});
    return true;
}

static int by_function(const void *a, const void *b)
{
    const struct seen_function *x = a, *y = b;
    if (x->f != y->f)
        return (uintptr_t)x->f < (uintptr_t)y->f ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static int by_order(const void *a, const void *b)
{
    const struct seen_function *x = a, *y = b;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* Leaves each once, where it came first. Of a header there can be very many. */
static void keep_first(struct functions *f)
{
    size_t kept = 0;
    if (!f->seen.count)
        return;
    qsort(f->seen.items, f->seen.count, sizeof(f->seen.items[0]), by_function);
    for (size_t i = 0; i < f->seen.count; i++) {
        if (i == 0 || f->seen.items[i].f != f->seen.items[i - 1].f)
            f->seen.items[kept++] = f->seen.items[i];
    }
    f->seen.count = kept;
    qsort(f->seen.items, kept, sizeof(f->seen.items[0]), by_order);
}

struct err *query_functions_in_file(struct query_engine *q, json_t *params)
{
    const char *file;
    TRY(param_string(params, "file", &file));
    vec_each (m, &q->modules) {
        struct sym_module *sym;
        struct functions f = {0};
        struct err *e = module_sym(q, *m, &sym);
        if (!e)
            e = sym_lines_of_file(sym, file, visit_row, &f);
        err_free(e);
        e = NULL;
        keep_first(&f);
        for (size_t i = 0; i < f.seen.count && !e; i++)
            e = give(q, json_pack("{so, si}", "function", json_function(q, *m, f.seen.items[i].f),
                                  "line", (int)f.seen.items[i].f->decl_line));
        vec_deinit(&f.seen);
        TRY(e);
    }
    return NULL;
}

/* --- search --- */

struct searching {
    struct query_engine *q;
    struct module *m;
    size_t left;
    unsigned rank; /* only hits of this rank */
    json_t *later; /* files that the trace's rules call not relevant: behind all others */
    struct err *failed;
};

static bool visit_hit(void *arg, const struct sym_hit *hit)
{
    struct searching *s = arg;
    if (hit->rank != s->rank)
        return hit->rank < s->rank;
    if (!s->left)
        return false;
    json_t *row = json_object();
    if (hit->function) {
        const struct sym_function *f = hit->function;
        cleanup(buf_deinit) struct buf places = {0};
        const char *slash = strrchr(s->m->name, '/');
        struct sym_line entry = {.file = f->decl_file, .line = f->decl_line};
        bool inlined = f->range_count == 0; // everywhere
        struct err *no_line = !inlined     ? sym_line_at(s->m->sym, f->start, &entry)
                              : entry.file ? NULL
                                           : err_new(ERR_NOT_FOUND, "no place");
        cleanup(freep) char *detail = !no_line ? str_format("%s:%u", entry.file, entry.line)
                                               : xstrdup(slash ? slash + 1 : s->m->name);
        json_t *function = json_function(s->q, s->m, f);
        json_object_set_new(row, "kind", json_string("function"));
        json_object_set_new(row, "title", json_text(f->name, strlen(f->name)));
        json_object_set_new(row, "detail", json_text(detail, strlen(detail)));
        if (inlined) {
            json_object_set_new(row, "inlined",
                                json_true()); // to find where would take too long here
        } else {
            uint64_t count = 0;
            s->failed = places_of(s->q, s->m, &f->start, 1, &places);
            if (!s->failed)
                s->failed = count_executions(s->q, (const void *)places.data,
                                             places.len / sizeof(struct hit_place), NULL, &count);
            json_object_set_new(row, "count", json_integer((json_int_t)count));
        }
        json_object_set_new(row, "action",
                            json_pack("{ss, so}", "view", "execution", "function", function));
        if (!no_line)
            json_object_set_new(row, "location", json_location(entry.file, (int)entry.line, 0));
        err_free(no_line);
    } else {
        const char *slash = strrchr(hit->file, '/');
        json_object_set_new(row, "kind", json_string("file"));
        json_object_set_new(
            row, "title",
            json_text(slash ? slash + 1 : hit->file, strlen(slash ? slash + 1 : hit->file)));
        json_object_set_new(row, "detail", json_text(hit->file, strlen(hit->file)));
        json_object_set_new(
            row, "action",
            json_pack("{ss, so}", "view", "source", "location", json_location(hit->file, 1, 0)));
        if (!sources_is_relevant(s->q->sources, hit->file)) {
            json_array_append_new(s->later, row);
            return json_array_size(s->later) < s->left;
        }
    }
    s->left--;
    if (s->failed)
        json_decref(row);
    else
        s->failed = give(s->q, row);
    return !s->failed;
}

static struct err *search_views(struct query_engine *q, const char *input, size_t *left)
{
    static const char *const views[][2] = {
        {"notebook", "Notebook"},   {"stack", "Stack"},         {"stdouterr", "Output"},
        {"task-tree", "Task tree"}, {"variables", "Variables"}, {"registers", "Registers"},
        {"signals", "Signals"},     {"alerts", "Alerts"},       {"events", "Events"},
        {"source", "Source"},       {"toolbox", "Toolbox"},
    };
    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]) && *left; i++) {
        if (!strcasestr(views[i][0], input) && !strcasestr(views[i][1], input))
            continue;
        --*left;
        TRY(give(q, json_pack("{ss, ss, ss, s{ss}}", "kind", "view", "title", views[i][1], "detail",
                              "view", "action", "view", views[i][0])));
    }
    return NULL;
}

/* "file:line" */
static struct err *search_line(struct query_engine *q, const char *input, size_t *left)
{
    const char *colon = strrchr(input, ':');
    if (!colon || colon == input || !isdigit((unsigned char)colon[1]))
        return NULL;
    cleanup(freep) char *file = str_format("%.*s", (int)(colon - input), input), *found = NULL;
    cleanup(buf_deinit) struct buf places = {0};
    uint64_t line = strtoul(colon + 1, NULL, 10), count;
    struct err *e = *left ? places_of_line(q, file, &line, &places, &found) : NULL;
    if (e && err_kind(e) != ERR_NOT_FOUND)
        return e;
    err_free(e);
    if (!found)
        return NULL;
    TRY(count_executions(q, (const void *)places.data, places.len / sizeof(struct hit_place), NULL,
                         &count));
    const char *slash = strrchr(found, '/');
    cleanup(freep) char *title = str_format("%s:%u", slash ? slash + 1 : found, (unsigned)line);
    --*left;
    return give(q, json_pack("{ss, so, so, sI, s{ss, so}}", "kind", "line", "title",
                             json_text(title, strlen(title)), "detail",
                             json_text(found, strlen(found)), "count", (json_int_t)count, "action",
                             "view", "breakpoint", "location", json_location(found, (int)line, 0)));
}

/* By rank, and within a rank by module. */
static struct err *search_modules(struct searching *s, const char *input)
{
    struct query_engine *q = s->q;
    vec_each (m, &q->modules) {
        struct sym_module *sym;
        struct err *e = module_sym(q, *m, &sym);
        if (!e)
            TRY(prepare_symbols(q, sym, SYM_FOR_SEARCH));
        err_free(e);
    }
    for (s->rank = 0; s->rank <= 3; s->rank++) {
        if (s->rank ==
            1) // a view whose name begins so comes before functions that merely contain it
            TRY(search_views(q, input, &s->left));
        vec_each (m, &q->modules) {
            struct sym_module *sym;
            TRY(check_cancel(q));
            struct err *e = s->left ? module_sym(q, *m, &sym) : err_new(ERR_LIMIT, "enough");
            s->m = *m;
            if (!e)
                e = sym_search(sym, input, s->left, visit_hit, s);
            err_free(e);
            if (s->failed)
                return s->failed;
        }
    }
    return NULL;
}

struct err *query_search(struct query_engine *q, json_t *params)
{
    const char *input;
    uint64_t most = 20;
    TRY(param_string(params, "input", &input));
    if (json_object_get(params, "maxResults"))
        TRY(param_u64(params, "maxResults", &most));
    if (!*input || strlen(input) > 1000)
        return NULL;
    size_t left = most < 200 ? most : 200;
    TRY(search_line(q, input, &left));
    struct searching s = {.q = q, .left = left, .later = json_array()};
    struct err *e = search_modules(&s, input);
    json_t *row;
    size_t i;
    json_array_foreach(s.later, i, row) if (!e && s.left-- > 0) e = give(q, json_incref(row));
    json_decref(s.later);
    return e;
}
/* --- the lines that the present call executed --- */

/* One execution of a piece of a line by the call. */
struct line_run {
    struct moment at; /* start of the block that ran it */
    gaddr block, pc;  /* of the block, and of the line's first instruction in it */
    unsigned line;
};

struct annotating {
    struct query_engine *q;
    const char *file;
    struct code_place place;
    const struct sym_function *fn;
    VEC(struct line_run) runs;
};

static bool line_in_file(struct annotating *a, uint64_t link_addr, unsigned *line)
{
    struct sym_line l;
    struct err *e = sym_line_at(a->place.module->sym, link_addr, &l);
    bool ok = !e && str_eq(l.file, a->file);
    if (ok)
        *line = l.line;
    err_free(e);
    return ok;
}

static bool in_function(const struct sym_function *f, uint64_t link_addr)
{
    for (size_t i = 0; i < f->range_count; i++) {
        if (link_addr >= f->ranges[i].start && link_addr < f->ranges[i].end)
            return true;
    }
    return false;
}

/* Reads off the blocks that the call itself ran: those of its function while its own frame is the
 * innermost. Whether a block belongs to this call and not to a deeper one of the same function is
 * told by the calls in between. */
static void gather_runs(struct annotating *a, const struct block_row *blocks, size_t block_count,
                        const struct call_row *calls, size_t call_count, uint32_t task,
                        gaddr frame_sp, struct moment now)
{
    size_t next_call = 0;
    struct {
        gaddr return_addr, sp;
    } open[256];
    size_t depth = 0;
    for (size_t i = 0; i < block_count; i++) {
        const struct block_row *b = &blocks[i];
        struct moment at = {b->stamp, b->icount};
        if (task_running_at(a->q, at) != task)
            continue;
        while (depth && open[depth - 1].return_addr == b->pc)
            depth--;
        if (depth == 0 && moment_cmp(at, now) > 0 && !in_function(a->fn, b->pc - a->place.bias))
            return; // the call has returned
        if (depth == 0) {
            uint64_t low = b->pc - a->place.bias, high = low + b->byte_len;
            for (uint64_t addr = low; addr < high;) {
                struct sym_line l;
                unsigned line;
                struct err *e = sym_line_at(a->place.module->sym, addr, &l);
                if (e) {
                    err_free(e);
                    break;
                }
                if (line_in_file(a, addr, &line)) {
                    struct line_run *last =
                        a->runs.count ? &a->runs.items[a->runs.count - 1] : NULL;
                    if (!last || last->line != line)
                        vec_push(&a->runs,
                                 (struct line_run){at, b->pc, addr + a->place.bias, line});
                }
                addr = l.end > addr ? l.end : addr + 1;
            }
        }
        // Calls that this block makes.
        while (next_call < call_count &&
               moment_cmp((struct moment){calls[next_call].stamp, calls[next_call].icount},
                          (struct moment){b->stamp, b->icount + b->insn_count}) < 0) {
            const struct call_row *c = &calls[next_call++];
            if (task_running_at(a->q, (struct moment){c->stamp, c->icount}) == task &&
                depth < 256 && c->sp < frame_sp) {
                open[depth].return_addr = c->return_addr;
                open[depth++].sp = c->sp;
            }
        }
    }
}

/* What a space's worker logged. */
struct stretch {
    uint32_t space;
    struct buf blocks, calls;
};

static struct err *take_stretch(void *ctx, struct replay *r, uint32_t space)
{
    struct stretch *s = ctx;
    return space == s->space
               ? worker_take_rows(replay_worker(r, space), NULL, &s->calls, &s->blocks)
               : NULL;
}

static struct err *run_stretch(struct query_engine *q, struct annotating *a, struct moment from,
                               struct moment until, uint32_t task, uint32_t space, gaddr frame_sp,
                               struct moment now)
{
    enum { MOST_ROWS = 400000 };
    struct lease lease;
    TRY(lend_replay(q, history_segment_at(q->history, from), from, &lease));
    struct replay *r = lease.replay;
    const struct consume_request consume = {.blocks = true, .calls = true, .max_rows = MOST_ROWS};
    struct stretch rows = {.space = space};
    const struct replay_observer observer = {.ctx = &rows, .space_ending = take_stretch};
    replay_set_observer(r, &observer);
    bool stopped;
    struct err *e = replay_set_mode(r, ENGINE_LOG, &consume);
    if (!e)
        e = replay_run(r, until, 3000000, &stopped);
    if (!e && replay_worker(r, space))
        e = take_stretch(&rows, r, space);
    return_replay(q, &lease, !e);
    if (!e)
        gather_runs(a, (const void *)rows.blocks.data, rows.blocks.len / sizeof(struct block_row),
                    (const void *)rows.calls.data, rows.calls.len / sizeof(struct call_row), task,
                    frame_sp, now);
    buf_deinit(&rows.blocks);
    buf_deinit(&rows.calls);
    return e;
}

/* The present iteration: from the last time before now that a line was entered by jumping back to
 * it, to the next such time. A run sequence goes back where a line number falls below the one
 * before it. */
static void present_iteration(const struct annotating *a, struct moment now, size_t *first,
                              size_t *end)
{
    size_t n = a->runs.count, at = 0;
    while (at + 1 < n && moment_cmp(a->runs.items[at + 1].at, now) <= 0)
        at++;
    *first = 0;
    *end = n;
    for (size_t i = at; i > 0; i--) {
        if (a->runs.items[i].line < a->runs.items[i - 1].line) {
            *first = i;
            break;
        }
    }
    for (size_t i = at + 1; i < n; i++) {
        if (a->runs.items[i].line < a->runs.items[i - 1].line &&
            a->runs.items[i].line <= a->runs.items[*first].line) {
            *end = i;
            break;
        }
    }
}

/* The moment of a run's first instruction: as many instructions behind the block's start as lie
 * between in the code. */
static struct err *exact_moment(struct query_engine *q, struct moment now, uint32_t space,
                                const struct line_run *run, struct moment *out)
{
    uint8_t code[4096];
    struct replay *r;
    size_t len = run->pc - run->block, done;
    *out = run->at;
    if (len == 0)
        return NULL;
    if (len > sizeof(code))
        return err_new(ERR_LIMIT, "a block of %zu bytes", len);
    TRY(state_at(q, now, &r));
    TRY(replay_read(r, space, run->block, code, len, &done));
    for (size_t off = 0; off < len; out->icount++) {
        struct x86_insn insn;
        if (!x86_decode(code + off, len - off, run->block + off, &insn))
            return err_new(ERR_FORMAT, "no instruction at 0x%llx",
                           (unsigned long long)(run->block + off));
        off += insn.len;
    }
    return NULL;
}

struct err *query_annotations(struct query_engine *q, json_t *params)
{
    struct focus f;
    struct annotating a = {.q = q};
    TRY(param_focus(q, params, &f));
    TRY(param_string(params, "file", &a.file));
    frame_list frames = {0};
    struct err *e = stack_at(q, f.moment, f.task, &frames);
    if (!e && f.frame >= frames.count)
        e = err_new(ERR_NOT_FOUND, "the stack has only %zu frames", frames.count);
    struct frame_info frame = {0};
    if (!e)
        frame = frames.items[f.frame];
    vec_deinit(&frames);
    TRY(e);
    struct replay *r;
    uint32_t space;
    TRY(state_at(q, f.moment, &r));
    TRY(space_of_task(r, f.task, &space));
    a.place = place_of(q, r, space, frame.pc - frame_returns(&frame));
    if (!a.place.module)
        return NULL;
    TRY(sym_function_at(a.place.module->sym, a.place.link_addr, &a.fn));
    struct moment start = frame.call;
    if (!frame.entry_sp) {
        const struct known_task *t = known_task(q, f.task);
        start = t ? t->start : (struct moment){0};
    }
    // A long call is looked at around now only.
    struct moment from = start;
    size_t count, segment = history_segment_at(q->history, f.moment);
    const struct history_segment *s = history_segments(q->history, &count);
    if (moment_cmp(from, s[segment].start) < 0)
        from = s[segment].start;
    else if (frame.entry_sp)
        TRY(next_instruction(q, start, f.task, true, &from));
    struct moment now = frame.innermost ? f.moment : frame.callee_call;
    e = run_stretch(q, &a, from, s[segment].end, f.task, space,
                    frame.entry_sp ? frame.entry_sp : UINT64_MAX, now);
    size_t first = 0, last = 0;
    if (!e && a.runs.count)
        present_iteration(&a, now, &first, &last);
    for (size_t i = 0; !e && i < a.runs.count; i++) {
        // One row a line: at its run nearest to now.
        unsigned line = a.runs.items[i].line, total = 0;
        bool seen = false, strong = false;
        size_t nearest = i;
        for (size_t k = 0; k < a.runs.count; k++) {
            if (a.runs.items[k].line != line)
                continue;
            seen |= k < i;
            total++;
            strong |= k >= first && k < last;
            if (moment_cmp(a.runs.items[k].at, now) <= 0 || (k >= first && k < last))
                nearest = k;
        }
        if (seen)
            continue;
        struct moment at;
        e = exact_moment(q, f.moment, space, &a.runs.items[nearest], &at);
        if (!e)
            e = give(q, json_pack("{si, ss, so, si}", "line", (int)line, "strength",
                                  strong ? "strong" : "weak", "focus", json_focus(q, at, f.task, 0),
                                  "count", (int)total));
    }
    vec_deinit(&a.runs);
    return e;
}
