/* Where the program went wrong, by its own account or the kernel's: fatal signals, processes that
 * ended abnormally, assertions and the like that failed. */
#include "query/query_int.h"

#include <signal.h>

/* Functions that are called when something is wrong, and what they are told: in `text`, $1s is the
 * string that the first argument points to, $3u the third as a number. */
static const struct failure {
    const char *function, *kind, *text;
} FAILURES[] = {
    // C: glibc (assert/assert.c, debug/, malloc/malloc.c) and musl
    {"__assert_fail", "assertion", "Assertion `$1s' failed at $2s:$3u ($4s)"},
    {"__assert_perror_fail", "assertion", "Unexpected error $1u at $2s:$3u ($4s)"},
    {"__fortify_fail", "corruption", "$1s"},
    {"malloc_printerr", "corruption", "$1s"},
    // C++
    {"std::terminate", "exception", "std::terminate()"},
    {"__cxa_pure_virtual", "exception", "pure virtual method called"},
    {"std::__glibcxx_assert_fail", "assertion", "Assertion `$4s' failed at $1s:$2u ($3s)"},
    {"boost::assertion_failed", "assertion", "Assertion `$1s' failed at $3s:$4u ($2s)"},
    {"boost::assertion_failed_msg", "assertion", "Assertion `$1s' failed at $4s:$5u ($3s): $2s"},
    // Rust
    {"rust_panic", "panic", "panic"},
    // GLib, Qt, LLVM, Mozilla, V8, CPython
    {"g_assertion_message", "assertion", "$2s:$3u: $4s: $5s"},
    {"qt_assert", "assertion", "Assertion `$1s' failed at $2s:$3u"},
    {"qt_assert_x", "assertion", "Assertion `$2s' failed at $3s:$4u ($1s)"},
    {"llvm::llvm_unreachable_internal", "assertion", "unreachable: $1s at $2s:$3u"},
    {"MOZ_ReportAssertionFailure", "assertion", "Assertion `$1s' failed at $2s:$3u"},
    {"MOZ_ReportCrash", "assertion", "$1s at $2s:$3u"},
    {"V8_Fatal", "assertion", "$1s:$2u: $3s"},
    {"_Py_FatalErrorFunc", "assertion", "$1s: $2s"},
    // sanitizers of gcc and LLVM: functions that programs may define for themselves
    {"__asan_on_error", "sanitizer", "AddressSanitizer reports an error"},
    {"__ubsan_on_report", "sanitizer", "UndefinedBehaviorSanitizer reports an error"},
    {"__tsan_on_report", "sanitizer", "ThreadSanitizer reports an error"},
    // tests
    {"testing::internal::AssertHelper::operator=", "test", "a check of GoogleTest failed"},
    {"cmocka_fail", "test", "$1s:$2u: a check of cmocka failed"},
    {"_cmocka_fail", "test", "$1s:$2u: a check of cmocka failed"},
};

static void add_string(struct buf *out, struct replay *r, uint32_t space, gaddr addr)
{
    enum { MOST = 400 };
    char text[MOST];
    size_t len = 0;
    err_free(replay_read(r, space, addr, text, sizeof(text), &len)); // as far as memory goes
    size_t end = strnlen(text, len);
    if (!len)
        buf_printf(out, "%#llx", (unsigned long long)addr);
    buf_add(out, text, end);
    if (end == MOST)
        buf_printf(out, "…");
}

static json_t *failure_text(const struct failure *f, struct replay *r, uint32_t space,
                            const struct regs *regs)
{
    cleanup(buf_deinit) struct buf text = {0};
    for (const char *p = f->text; *p; p++) {
        if (*p != '$') {
            buf_add(&text, p, 1);
            continue;
        }
        uint64_t value = regs->r[call_argument_registers[p[1] - '1']];
        if (p[2] == 's')
            add_string(&text, r, space, value);
        else
            buf_printf(&text, "%u", (unsigned)value);
        p += 2;
    }
    return json_text((const char *)text.data, text.len);
}

struct alert {
    struct moment moment;
    json_t *row;
    const struct failure *failure; /* NULL: the row is complete */
    uint32_t task, space;
    struct regs regs;
};

struct alerts {
    struct query_engine *q;
    const struct window *w;
    VEC(struct alert) items;
    VEC(const struct failure *) failures; /* for each of the places */
    struct buf places;                    /* struct hit_place */
};

static struct err *each_fatal(struct query_engine *q, const struct segment *s,
                              const struct db_event *e, void *ctx, bool *is_row)
{
    struct alerts *a = ctx;
    if (e->kind != FRAME_SIGNAL || e->disposition != SIGNAL_FATAL)
        return NULL;
    *is_row = true;
    json_t *row = signal_row(q, e);
    json_object_set_new(row, "kind", json_string("signal"));
    json_object_set(row, "text", json_object_get(row, "signal"));
    vec_push(&a->items, (struct alert){.moment = {e->number - 1, e->icount}, .row = row});
    return NULL;
}

/* Processes that ended with a status, or by SIGKILL, which no task ever sees. */
static void find_exits(struct alerts *a)
{
    vec_each (t, &a->q->tasks) {
        int signal = t->exit_status & 0x7f, status = t->exit_status >> 8 & 0xff;
        if (!t->ended || t->is_thread || !(signal == SIGKILL || (!signal && status)) ||
            !window_holds(a->w, t->end))
            continue;
        cleanup(freep) char *text =
            signal ? xstrdup("killed by SIGKILL") : str_format("exit status %d", status);
        json_t *row = json_pack("{so, so, ss, ss}", "focus", json_focus(a->q, t->end, t->serial, 0),
                                "task", json_task(a->q, t->serial), "kind", "exit", "text", text);
        vec_push(&a->items, (struct alert){.moment = t->end, .row = row});
    }
}

/* Where the functions of FAILURES ran. */
static struct err *list_places(struct alerts *a)
{
    vec_each (m, &a->q->modules) {
        struct sym_module *sym;
        struct err *e = module_sym(a->q, *m, &sym);
        for (size_t i = 0; !e && i < ARRAY_COUNT(FAILURES); i++) {
            enum { MOST_NAMESAKES = 16 };
            const struct sym_function *found[MOST_NAMESAKES];
            size_t count = 0;
            err_free(sym_symbols_named(sym, FAILURES[i].function, MOST_NAMESAKES, found, &count));
            for (size_t k = 0; k < count; k++) {
                if (found[k]->range_count)
                    TRY(places_of(a->q, *m, &found[k]->start, 1, &a->places));
            }
            while (a->failures.count < a->places.len / sizeof(struct hit_place))
                vec_push(&a->failures, &FAILURES[i]);
        }
        err_free(e); // a module without symbols tells nothing
    }
    return NULL;
}

static bool on_failure(void *ctx, const struct hit *h)
{
    struct alerts *a = ctx;
    const struct hit_place *places = (const void *)a->places.data;
    struct alert new = {.moment = h->moment, .task = h->task, .space = h->space, .regs = h->regs};
    for (size_t i = 0; !new.failure &&i < a->failures.count; i++) {
        if (is_hit_of(&places[i], h))
            new.failure = a->failures.items[i];
    }
    vec_push(&a->items, new);
    return true;
}

/* Of an allocator's failure: the memory that was to be freed, if it was that. */
static struct err *add_memory(struct query_engine *q, const struct alert *a)
{
    gaddr memory = 0;
    struct err *e = heap_freed_at(q, a->moment, a->task, &memory);
    if (e && err_kind(e) != ERR_NOT_FOUND)
        return e;
    err_free(e); // then it is not known
    if (memory)
        json_object_set_new(a->row, "heap", json_hex(memory));
    return NULL;
}

/* The row of a failure: whose it is, and what was told. */
static struct err *describe_failure(struct query_engine *q, struct alert *a)
{
    struct replay *r;
    a->row = json_object();
    TRY(add_own_frame(q, a->moment, a->task, a->row));
    TRY(state_at(q, a->moment, &r));
    json_object_set_new(a->row, "kind", json_string(a->failure->kind));
    json_object_set_new(a->row, "text", failure_text(a->failure, r, a->space, &a->regs));
    return str_eq(a->failure->function, "malloc_printerr") ? add_memory(q, a) : NULL;
}

static int by_moment(const void *x, const void *y)
{
    return moment_cmp(((const struct alert *)x)->moment, ((const struct alert *)y)->moment);
}

static struct err *find_alerts(struct alerts *a, bool *more_out)
{
    TRY(walk_events(a->q, a->w, each_fatal, a, more_out));
    find_exits(a);
    TRY(list_places(a));
    if (!a->failures.count)
        return NULL;
    bool more = false;
    struct err *e = find_hits(a->q, (const void *)a->places.data, a->failures.count, a->w, NULL,
                              on_failure, a, &more);
    *more_out |= more;
    return e;
}

struct err *query_alerts(struct query_engine *q, json_t *params)
{
    struct window w;
    TRY(param_window(q, params, 50, &w));
    struct alerts a = {.q = q, .w = &w};
    struct err *e = find_alerts(&a, &q->sink->more);
    if (a.items.count)
        qsort(a.items.items, a.items.count, sizeof(a.items.items[0]), by_moment);
    q->sink->more |= a.items.count > w.limit;
    for (size_t i = 0; !e && i < a.items.count && i < w.limit; i++) {
        struct alert *alert = &a.items.items[w.forward ? i : a.items.count - 1 - i];
        if (alert->failure)
            e = describe_failure(q, alert);
        if (!e)
            e = give(q, steal(alert->row));
    }
    vec_each (alert, &a.items)
        json_decref(alert->row);
    vec_deinit(&a.items);
    vec_deinit(&a.failures);
    buf_deinit(&a.places);
    return e;
}
