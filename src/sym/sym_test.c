/* Asks everything of one compiled test program, and of it while it runs under ptrace.
 * Arguments: the program, its source, "O0" or "O2". */
#include "base/test.h"
#include "sym/sym.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

static const char *program, *source, *level;
static bool optimised, is_cplusplus;
static struct sym_module *module;

/* ---- The program while it runs ---- */

struct tracee {
    struct sym_context ctx; // first: callbacks get this
    pid_t pid;
    int mem;
    struct user_regs_struct regs;
    struct user_fpregs_struct fp;
    struct user_regs_struct entry; // as the function was entered
};

static struct err *read_tracee(struct sym_context *ctx, gaddr addr, void *buf, size_t len)
{
    struct tracee *t = (struct tracee *)ctx;
    return pread(t->mem, buf, len, (off_t)addr) == (ssize_t)len ? NULL
                                                                : err_new(ERR_FAULT, "not mapped");
}

static struct err *read_tracee_register(struct sym_context *ctx, unsigned reg, void *buf,
                                        size_t len)
{
    struct tracee *t = (struct tracee *)ctx;
    const unsigned long long general[17] = {
        t->regs.rax, t->regs.rdx, t->regs.rcx, t->regs.rbx, t->regs.rsi, t->regs.rdi,
        t->regs.rbp, t->regs.rsp, t->regs.r8,  t->regs.r9,  t->regs.r10, t->regs.r11,
        t->regs.r12, t->regs.r13, t->regs.r14, t->regs.r15, t->regs.rip};
    if (reg <= SYM_RIP && len <= 8)
        memcpy(buf, &general[reg], len);
    else if (reg >= SYM_XMM0 && reg <= SYM_XMM15 && len <= 16)
        memcpy(buf, (const uint8_t *)t->fp.xmm_space + 16 * (reg - SYM_XMM0), len);
    else if (reg >= SYM_ST0 && reg <= SYM_ST7 && len <= 10)
        memcpy(buf, (const uint8_t *)t->fp.st_space + 16 * (reg - SYM_ST0), len);
    else
        return err_new(ERR_NOT_FOUND, "no register %u", reg);
    return NULL;
}

static void fetch_registers(struct tracee *t)
{
    assert_int_equal(ptrace(PTRACE_GETREGS, t->pid, NULL, &t->regs), 0);
    assert_int_equal(ptrace(PTRACE_GETFPREGS, t->pid, NULL, &t->fp), 0);
}

static void tracee_stop(struct tracee *t)
{
    kill(t->pid, SIGKILL);
    waitpid(t->pid, NULL, 0);
    close(t->mem);
}

/* The bias of the program's first mapping. */
static void find_bias(struct tracee *t)
{
    cleanup(freep) char *name = str_format("/proc/%d/maps", t->pid);
    cleanup(fclosep) FILE *f = fopen(name, "re");
    uint64_t start, off;
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%" SCNx64 "-%*x %*s %" SCNx64, &start, &off), 2);
    assert_ok(sym_module_bias(module, start, off, false, &t->ctx.bias));
}

/* Starts the program and stops it at its first instruction. Skips the test where ptrace is not
 * allowed. */
static void tracee_start(struct tracee *t)
{
    int status;
    *t =
        (struct tracee){.ctx = {.read_memory = read_tracee, .read_register = read_tracee_register}};
    t->pid = fork();
    if (t->pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(99);
        execl(program, program, (char *)NULL);
        _exit(98);
    }
    assert_int_equal(waitpid(t->pid, &status, 0), t->pid);
    if (!WIFSTOPPED(status))
        skip(); // no ptrace here
    ptrace(PTRACE_SETOPTIONS, t->pid, NULL, PTRACE_O_EXITKILL);
    cleanup(freep) char *name = str_format("/proc/%d/mem", t->pid);
    t->mem = open(name, O_RDWR | O_CLOEXEC);
    assert_true(t->mem >= 0);
    find_bias(t);
}

static void run_to(struct tracee *t, vaddr addr)
{
    int status;
    gaddr at = addr + t->ctx.bias;
    uint8_t old, trap = 0xcc;
    assert_int_equal(pread(t->mem, &old, 1, (off_t)at), 1);
    assert_int_equal(pwrite(t->mem, &trap, 1, (off_t)at), 1);
    ptrace(PTRACE_CONT, t->pid, NULL, NULL);
    assert_int_equal(waitpid(t->pid, &status, 0), t->pid);
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    assert_int_equal(pwrite(t->mem, &old, 1, (off_t)at), 1);
    fetch_registers(t);
    assert_int_equal(t->regs.rip, at + 1);
    t->regs.rip = at;
    assert_int_equal(ptrace(PTRACE_SETREGS, t->pid, NULL, &t->regs), 0);
}

/* From a function's first instruction to after its return. */
static void run_out(struct tracee *t)
{
    uint64_t back;
    assert_ok(read_tracee(&t->ctx, t->regs.rsp, &back, 8));
    uint64_t sp = t->regs.rsp;
    do
        run_to(t, back - t->ctx.bias);
    while (t->regs.rsp <= sp);
}

/* ---- Asking ---- */

static unsigned line_of(const char *mark)
{
    cleanup(fclosep) FILE *f = fopen(source, "re");
    cleanup(freep) char *wanted = str_format("mark: %s */", mark);
    char text[512];
    assert_non_null(f);
    for (unsigned line = 1; fgets(text, sizeof(text), f); line++)
        if (strstr(text, wanted))
            return line;
    fail_msg("no mark %s", mark);
    return 0;
}

static const struct sym_function *function(const char *name)
{
    const struct sym_function *f[1];
    size_t count;
    assert_ok(sym_functions_named(module, name, 1, f, &count));
    return f[0];
}

static char *show(const struct sym_value *v, struct tracee *t)
{
    char *text;
    assert_ok(sym_format_value(module, v, &t->ctx, &text));
    return text;
}

#define assert_shows(value, t, expected)                 \
    do {                                                 \
        cleanup(freep) char *shown = show((value), (t)); \
        assert_string_equal(shown, (expected));          \
    } while (0)

static struct sym_variable variable(const struct sym_variables *all, const char *name)
{
    vec_each (v, all)
        if (v->name && str_eq(v->name, name))
            return *v;
    fail_msg("no variable %s", name);
    return (struct sym_variable){0};
}

static void expect_argument(struct tracee *t, const struct sym_function *f, size_t idx,
                            const char *expected)
{
    struct sym_value v;
    assert_ok(sym_read_argument_at_entry(module, f, idx, &t->ctx, &v));
    assert_shows(&v, t, expected);
    sym_value_deinit(&v);
}

static void expect_result(struct tracee *t, const struct sym_function *f, const char *expected)
{
    struct sym_value v;
    assert_ok(sym_read_return_value(module, f, &t->ctx, &v));
    assert_shows(&v, t, expected);
    sym_value_deinit(&v);
}

/* The value of a variable in scope; optimised code may have none, but must say so. */
static void expect_variable(struct tracee *t, size_t inlined, const char *name, const char *type,
                            const char *expected)
{
    vaddr addr = t->regs.rip - t->ctx.bias;
    cleanup(sym_variables_deinit) struct sym_variables all = {0};
    assert_ok(sym_variables_at(module, addr, inlined, &all));
    struct sym_variable v = variable(&all, name);
    assert_string_equal(v.type->name, type);
    struct sym_value value;
    struct err *e = sym_read_variable(module, &v, addr, &t->ctx, &value);
    if (e && optimised && err_kind(e) == ERR_NOT_FOUND) {
        assert_non_null(strstr(err_message(e), "optimized out"));
        err_free(e);
        return;
    }
    assert_ok(e);
    assert_shows(&value, t, expected);
    sym_value_deinit(&value);
}

/* ---- Tests of the file ---- */

TEST(functions_are_found_by_name_and_by_address)
{
    const struct sym_function *f = function("twice"), *at;
    assert_int_equal(f->source, SYM_DWARF);
    assert_string_equal(f->name, "twice");
    assert_string_equal(f->linkage_name, "twice");
    assert_string_equal(f->decl_file, source);
    assert_int_equal(f->decl_line, line_of("twice body") - 2);
    assert_ok(sym_function_at(module, f->start, &at));
    assert_ptr_equal(at, f);
    assert_ok(sym_function_at(module, f->end - 1, &at));
    assert_ptr_equal(at, f);
    struct err *e = sym_function_at(module, 1, &at);
    assert_int_equal(err_kind(e), ERR_NOT_FOUND);
    err_free(e);
}

TEST(functions_without_dwarf_come_from_symbols)
{
    assert_int_equal(function("_start")->source, SYM_ELF);
    assert_int_equal(function("printf@plt")->source, SYM_PLT);
}

TEST(symbols_are_found_by_name_alone)
{
    const struct sym_function *f[4];
    size_t count;
    assert_ok(sym_symbols_named(module, "twice", 4, f, &count));
    assert_int_equal(count, 1);
    assert_int_equal(f[0]->source, SYM_ELF);
    assert_int_equal(f[0]->start, function("twice")->start);
    struct err *e = sym_symbols_named(module, "printf@plt", 4, f, &count); // a stub is none
    assert_int_equal(err_kind(e), ERR_NOT_FOUND);
    err_free(e);
}

static bool count_hit(void *arg, const struct sym_hit *hit)
{
    ++*(size_t *)arg;
    return true;
}

/* A module of its own, prepared in steps, has the same names as the one that was asked at once. */
TEST(names_are_prepared_in_steps)
{
    struct sym_module *other;
    double share = 0, last = 0;
    size_t here = 0, there = 0;
    assert_ok(sym_module_open(program, NULL, &other));
    while (sym_prepare(other, SYM_FOR_CALLS, &share)) {
        assert_true(share >= last && share <= 1);
        last = share;
    }
    assert_true(share == 1);
    while (sym_prepare(other, SYM_FOR_SEARCH, &share)) {
    }
    assert_false(sym_prepare(other, SYM_FOR_SEARCH, &share));
    assert_ok(sym_search(module, "t", SIZE_MAX, count_hit, &here));
    assert_ok(sym_search(other, "t", SIZE_MAX, count_hit, &there));
    assert_true(here > 5);
    assert_int_equal(here, there);
    sym_module_close(other);
}

TEST(lines_map_to_addresses_and_back)
{
    struct sym_places p;
    struct sym_line l;
    assert_ok(sym_addresses_of_line(module, "test_program.c", line_of("loop body"), &p));
    assert_string_equal(p.file, source);
    assert_int_equal(p.line, line_of("loop body"));
    assert_true(p.count >= 1);
    assert_string_equal(p.items[0].function->name, "sum_list");
    assert_ok(sym_line_at(module, p.items[0].start, &l));
    assert_string_equal(l.file, source);
    assert_int_equal(l.line, line_of("loop body"));
    assert_true(l.is_stmt);
    sym_places_deinit(&p);
}

TEST(a_line_without_code_means_the_next_that_has_some)
{
    struct sym_places p;
    assert_ok(sym_addresses_of_line(module, source, line_of("twice body") - 3, &p));
    assert_true(p.line > line_of("twice body") - 3 && p.line <= line_of("twice body"));
    sym_places_deinit(&p);
    struct err *e = sym_addresses_of_line(module, source, 100000, &p);
    assert_int_equal(err_kind(e), ERR_NOT_FOUND);
    err_free(e);
    e = sym_addresses_of_line(module, "no_such_file.c", 1, &p);
    assert_int_equal(err_kind(e), ERR_NOT_FOUND);
    err_free(e);
}

static bool count_rows(void *arg, const struct sym_line *row, const struct sym_function *fn)
{
    unsigned *seen = arg;
    assert_string_equal(row->file, source);
    if (row->line == line_of("loop body")) {
        assert_string_equal(fn->name, "sum_list");
        ++*seen;
    }
    return true;
}

TEST(all_rows_of_a_file_are_visited)
{
    unsigned seen = 0;
    assert_ok(sym_lines_of_file(module, source, count_rows, &seen));
    assert_true(seen > 0);
    size_t count;
    const char *const *files = sym_file_list(module, &count);
    bool found = false;
    for (size_t i = 0; i < count; i++)
        found = found || str_eq(files[i], source);
    assert_true(found);
}

TEST(inlined_calls_are_frames_of_their_own)
{
    struct sym_places p;
    struct sym_frames f;
    assert_ok(sym_addresses_of_line(module, source, line_of("inner"), &p));
    bool found = false;
    vec_each (place, &p) {
        assert_ok(sym_inline_chain(module, place->start, &f));
        if (f.count != 3 && optimised) { // gcc puts rows of the call's set-up before it
            sym_frames_deinit(&f);
            continue;
        }
        assert_int_equal(f.count, 3);
        assert_string_equal(f.items[0].name, "inner");
        assert_int_equal(f.items[0].line, line_of("inner"));
        assert_true(f.items[0].is_inlined);
        assert_string_equal(f.items[1].name, "outer");
        assert_int_equal(f.items[1].line, line_of("outer"));
        assert_string_equal(f.items[1].file, source);
        assert_string_equal(f.items[2].name, "calls_inlined");
        assert_int_equal(f.items[2].line, line_of("calls outer"));
        assert_false(f.items[2].is_inlined);
        sym_frames_deinit(&f);
        found = true;
    }
    assert_true(found);
    sym_places_deinit(&p);
}

struct hits {
    const char *names[8];
    unsigned ranks[8];
    unsigned count, files;
};

static bool collect(void *arg, const struct sym_hit *hit)
{
    struct hits *h = arg;
    if (hit->function && h->count < 8) {
        h->ranks[h->count] = hit->rank;
        h->names[h->count++] = hit->function->name;
    }
    h->files += !hit->function;
    return true;
}

TEST(search_puts_the_best_first)
{
    struct hits h = {0};
    assert_ok(sym_search(module, "BIG", 8, collect, &h));
    assert_int_equal(h.count, 1);
    assert_string_equal(h.names[0], "make_big");
    assert_int_equal(h.ranks[0], 2);
    h = (struct hits){0};
    assert_ok(sym_search(module, "ma", 8, collect, &h));
    assert_string_equal(h.names[0], "main");
    assert_int_equal(h.ranks[0], 1);
    h = (struct hits){0};
    assert_ok(sym_search(module, "test_prog", 8, collect, &h));
    assert_int_equal(h.files, 1);
    h = (struct hits){0};
    assert_ok(sym_search(module, "no such thing", 8, collect, &h));
    assert_int_equal(h.count + h.files, 0);
}

TEST(parameters_have_names_and_types)
{
    cleanup(sym_variables_deinit) struct sym_variables v = {0};
    static const char *const types[] = {"int",        "double",      "const char *", "struct pair",
                                        "struct big", "long double", "char",         "float",
                                        "enum color", "_Bool",       "long",         "long"};
    assert_ok(sym_function_parameters(module, function("mixed"), &v));
    assert_int_equal(v.count, 12);
    for (size_t i = 0; i < v.count; i++)
        if (!str_starts(types[i], "long") || v.items[i].type->size == 16)
            assert_string_equal(v.items[i].type->name,
                                str_eq(types[i], "_Bool") ? v.items[i].type->name : types[i]);
    assert_string_equal(v.items[2].name, "c");
    assert_true(v.items[0].is_parameter);
    const struct sym_type *r;
    assert_ok(sym_return_type(module, function("mixed"), &r));
    assert_string_equal(r->name, "struct pair");
    assert_int_equal(r->size, 16);
}

/* ---- Tests of the running program ---- */

TEST(arguments_are_read_at_the_first_instruction)
{
    struct tracee t;
    tracee_start(&t);
    const struct sym_function *f = function("mixed");
    run_to(&t, f->start);
    static const char *const expected[] = {"1",
                                           "2",
                                           NULL,
                                           "{x = 0.5, y = 600}",
                                           "{v = {1, 2, 3, 4, 50}}",
                                           "4",
                                           "99 'c'",
                                           "8",
                                           "BLUE",
                                           "true",
                                           "7000",
                                           "80000"};
    for (size_t i = 0; i < 12; i++)
        if (expected[i])
            expect_argument(&t, f, i, expected[i]);
    struct sym_value text;
    assert_ok(sym_read_argument_at_entry(module, f, 2, &t.ctx, &text));
    cleanup(freep) char *shown = show(&text, &t);
    assert_non_null(strstr(shown, " \"third\""));
    sym_value_deinit(&text);
    tracee_stop(&t);
}

TEST(results_are_read_after_the_return)
{
    struct tracee t;
    tracee_start(&t);
    static const struct {
        const char *name, *result;
    } calls[] = {{"mixed", "{x = 15.5, y = 87756}"},
                 {"make_big", "{v = {11, 1, 3, 4, 5}}"},
                 {"sum_list", "12"},
                 {"calls_inlined", "70"}};
    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
        const struct sym_function *f = function(calls[i].name);
        run_to(&t, f->start);
        run_out(&t);
        expect_result(&t, f, calls[i].result);
    }
    tracee_stop(&t);
}

TEST(floating_point_results_come_from_their_registers)
{
    struct tracee t;
    static const char *const names[] = {"half", "grow"}, *const results[] = {"1.5", "4.5"};
    for (size_t i = 0; i < 2; i++) { // either may be evaluated first
        tracee_start(&t);
        run_to(&t, function(names[i])->start);
        run_out(&t);
        expect_result(&t, function(names[i]), results[i]);
        tracee_stop(&t);
    }
}

static void expect_member(const struct sym_children *c, const char *name, struct tracee *t,
                          const char *expected)
{
    vec_each (child, c)
        if (str_eq(child->name, name)) {
            assert_ok(child->reason);
            assert_shows(&child->value, t, expected);
            return;
        }
    fail_msg("no member %s", name);
}

TEST(values_of_every_kind_are_shown_in_c_notation)
{
    struct tracee t;
    struct sym_value pointer;
    cleanup(sym_children_deinit) struct sym_children target = {0};
    cleanup(sym_children_deinit) struct sym_children members = {0};
    tracee_start(&t);
    run_to(&t, function("nothing")->start);
    assert_ok(sym_read_argument_at_entry(module, function("nothing"), 0, &t.ctx, &pointer));
    assert_string_equal(pointer.type->name, "struct everything *");
    assert_ok(sym_value_children(module, &pointer, &t.ctx, 0, 10, &target));
    assert_int_equal(target.count, 1);
    assert_ok(sym_value_children(module, &target.items[0].value, &t.ctx, 0, 100, &members));
    assert_int_equal(members.count, 16);
    static const char *const expected[][2] = {{"c", "120 'x'"},
                                              {"yes", "true"},
                                              {"s", "-7"},
                                              {"f", "1.5"},
                                              {"d", "0.1"},
                                              {"ld", "2.25"},
                                              {"w", "9223372036854775808"},
                                              {"color", "GREEN"},
                                              {"flags", "FLAG_A | FLAG_C"},
                                              {"buffer", "\"inside\""},
                                              {"matrix", "{{0, 1, 2}, {3, 4, 5}}"},
                                              {"pair", "{x = 2.5, y = 9}"},
                                              {"number", "{i = 1065353216, f = 1}"},
                                              {"nothing", "0x0"}};
    for (size_t i = 0; i < sizeof(expected) / sizeof(*expected); i++)
        expect_member(&members, expected[i][0], &t, expected[i][1]);
    cleanup(freep) char *text = show(&members.items[9].value, &t);
    assert_non_null(strstr(text, "\"say \\\"hi\\\"\\n\""));
    assert_string_equal(members.items[12].value.type->name, "int (*)(int, char **)");
    assert_string_equal(members.items[11].value.type->name, "int [2][3]");
    cleanup(freep) char *pointed = show(&members.items[12].value, &t);
    assert_non_null(strstr(pointed, "<main>"));
    sym_value_deinit(&pointer);
    tracee_stop(&t);
}

TEST(globals_and_bitfields_are_read)
{
    struct tracee t;
    struct sym_variable v;
    struct sym_value value;
    tracee_start(&t);
    assert_ok(sym_global_named(module, "a_global", &v));
    assert_ok(sym_read_variable(module, &v, 0, &t.ctx, &value));
    assert_shows(&value, &t, "42");
    sym_value_deinit(&value);
    run_to(&t, function("main")->start); // after relocation of the pointers
    assert_ok(sym_global_named(module, "a_list", &v));
    assert_string_equal(v.type->name, "struct node [3]");
    assert_ok(sym_read_variable(module, &v, 0, &t.ctx, &value));
    cleanup(freep) char *text = show(&value, &t);
    assert_non_null(strstr(text, "low = 5, high = 100, minus = -3}, {value = 2, "));
    assert_non_null(strstr(text, "{value = 3, next = 0x0, low = 0"));
    sym_value_deinit(&value);
    tracee_stop(&t);
}

TEST(locals_are_read_where_they_live)
{
    struct tracee t;
    struct sym_places p;
    tracee_start(&t);
    assert_ok(sym_addresses_of_line(module, source, line_of("loop add"), &p));
    run_to(&t, p.items[0].start);
    sym_places_deinit(&p);
    if (!optimised) // where the line begins, its block may not have begun
        expect_variable(&t, 0, "value", "int", "2");
    expect_variable(&t, 0, "sum", "int", "0");
    tracee_stop(&t);
}

TEST(arrays_of_variable_length_are_shown_whole)
{
    struct tracee t;
    struct sym_places p;
    tracee_start(&t);
    assert_ok(sym_addresses_of_line(module, source, line_of("squares filled"), &p));
    run_to(&t, p.items[0].start);
    sym_places_deinit(&p);
    cleanup(sym_variables_deinit) struct sym_variables all = {0};
    struct sym_value value;
    vaddr addr = t.regs.rip - t.ctx.bias;
    assert_ok(sym_variables_at(module, addr, 0, &all));
    struct sym_variable v = variable(&all, "squares");
    assert_string_equal(v.type->name, "int []");
    struct err *e = sym_read_variable(module, &v, addr, &t.ctx, &value);
    if (!e || !optimised) {
        assert_ok(e);
        assert_shows(&value, &t, "{0, 1, 4, 9}");
        sym_value_deinit(&value);
    }
    err_free(e);
    tracee_stop(&t);
}

TEST(locals_of_inlined_calls_belong_to_their_frames)
{
    struct tracee t;
    struct sym_places p;
    tracee_start(&t);
    run_to(&t, function("calls_inlined")->start);
    assert_ok(sym_addresses_of_line(module, source, line_of("inner"), &p));
    struct sym_frames f = {0};
    for (size_t i = 0; i < p.count && f.count != 3; i++) {
        sym_frames_deinit(&f);
        run_to(&t, p.items[i].start);
        assert_ok(sym_inline_chain(module, p.items[i].start, &f));
    }
    assert_int_equal(f.count, 3);
    sym_frames_deinit(&f);
    sym_places_deinit(&p);
    expect_variable(&t, 0, "x", "int", "11");
    expect_variable(&t, 1, "x", "int", "1");
    expect_variable(&t, 2, "n", "int", "1");
    tracee_stop(&t);
}

static struct err *read_entry(struct sym_context *ctx, unsigned reg, void *buf, size_t len)
{
    struct tracee *t = (struct tracee *)ctx;
    struct user_regs_struct now = t->regs;
    t->regs = t->entry;
    struct err *e = read_tracee_register(ctx, reg, buf, len);
    t->regs = now;
    return e;
}

TEST(values_of_the_entry_come_from_the_entry)
{
    struct tracee t;
    tracee_start(&t);
    run_to(&t, function("calls_inlined")->start);
    t.entry = t.regs;
    run_to(&t, function("twice")->start);
    run_out(&t);
    t.ctx.read_entry_register = read_entry;
    optimised = false; // must be there now
    cleanup(sym_frames_deinit) struct sym_frames f = {0};
    assert_ok(sym_inline_chain(module, t.regs.rip - t.ctx.bias - 1, &f));
    t.regs.rip--; // the call itself: its block
    expect_variable(&t, f.count - 1, "n", "int", "1");
    optimised = str_eq(level, "O2");
    tracee_stop(&t);
}

TEST(the_prologue_ends_where_arguments_are_at_home)
{
    struct tracee t;
    tracee_start(&t);
    run_to(&t, sym_function_prologue_end(module, function("twice")));
    expect_variable(&t, 0, "n", "int", "1");
    tracee_stop(&t);
}

TEST(unwinding_finds_the_callers)
{
    struct tracee t;
    struct sym_registers r;
    const struct sym_function *f;
    struct sym_places p;
    tracee_start(&t);
    run_to(&t, function("sum_list")->start);
    assert_ok(sym_addresses_of_line(module, source, line_of("twice return"), &p));
    run_to(&t, p.items[0].start);
    sym_places_deinit(&p);
    static const char *const callers[] = {"sum_list", "main"};
    for (size_t i = 0; i < 2; i++) {
        assert_ok(sym_unwind_step(module, t.regs.rip - t.ctx.bias - (i > 0), &t.ctx, &r));
        assert_true(r.known & 1u << SYM_RIP);
        assert_ok(sym_function_at(module, r.value[SYM_RIP] - t.ctx.bias - 1, &f));
        assert_string_equal(f->name, callers[i]);
        t.regs.rip = r.value[SYM_RIP];
        t.regs.rsp = r.value[SYM_RSP];
        t.regs.rbp = r.value[SYM_RBP];
        t.regs.rbx = r.value[SYM_RBX];
        assert_int_equal(t.regs.rsp, r.cfa);
    }
    tracee_stop(&t);
}

static struct err *read_nothing(struct sym_context *ctx, gaddr addr, void *buf, size_t len)
{
    return err_new(ERR_FAULT, "not mapped");
}

TEST(memory_that_is_missing_is_said_to_be)
{
    struct sym_context ctx = {.read_memory = read_nothing, .read_register = read_tracee_register};
    struct sym_variable v;
    struct sym_value value;
    assert_ok(sym_global_named(module, "a_global", &v));
    struct err *e = sym_read_variable(module, &v, 0, &ctx, &value);
    assert_int_equal(err_kind(e), ERR_FAULT);
    assert_string_equal(err_message(e), "not mapped");
    err_free(e);
}

/* ---- C++ ---- */

TEST(cplusplus_names_are_demangled)
{
    assert_string_equal(function("shop::judge")->name,
                        "shop::judge(shop::Item const&, shop::Mood, shop::Owner)");
    assert_string_equal(function("shop::judge")->base_name, "judge");
    assert_string_equal(function("shop::Box<double>::get")->name, "shop::Box<double>::get(int)");
    assert_non_null(strstr(function("hidden")->name, "shop::(anonymous namespace)::hidden("));
    struct hits h = {0};
    assert_ok(sym_search(module, "judge", 8, collect, &h));
    assert_string_equal(h.names[0], "shop::judge(shop::Item const&, shop::Mood, shop::Owner)");
    assert_int_equal(h.ranks[0], 0);
}

TEST(cplusplus_arguments_are_read)
{
    struct tracee t;
    struct sym_value v;
    tracee_start(&t);
    const struct sym_function *f = function("shop::judge");
    run_to(&t, f->start);
    assert_ok(sym_read_argument_at_entry(module, f, 0, &t.ctx, &v));
    assert_string_equal(v.type->name, "const shop::Item &");
    cleanup(freep) char *item = show(&v, &t);
    assert_non_null(strstr(item, "price = 7"));
    sym_value_deinit(&v);
    expect_argument(&t, f, 1, "wild");
    expect_argument(&t, f, 2, "{id = 77}");
    run_out(&t);
    expect_result(&t, f, "85");
    tracee_stop(&t);
}

TEST(cplusplus_methods_have_this_and_bases)
{
    struct tracee t;
    struct sym_value v;
    cleanup(sym_variables_deinit) struct sym_variables all = {0};
    cleanup(sym_children_deinit) struct sym_children target = {0};
    tracee_start(&t);
    const struct sym_function *f = function("shop::Box<double>::get");
    run_to(&t, f->start);
    assert_ok(sym_function_parameters(module, f, &all));
    assert_string_equal(all.items[0].name, "this");
    assert_true(all.items[0].is_artificial);
    assert_ok(sym_read_argument_at_entry(module, f, 0, &t.ctx, &v));
    assert_ok(sym_value_children(module, &v, &t.ctx, 0, 1, &target));
    cleanup(freep) char *box = show(&target.items[0].value, &t);
    assert_non_null(strstr(box, "{<base> shop::Item = {"));
    assert_non_null(strstr(box, "price = 3}, content = 6.5}"));
    sym_value_deinit(&v);
    expect_argument(&t, f, 1, "4");
    run_out(&t);
    assert_ok(sym_read_return_value(module, f, &t.ctx, &v));
    cleanup(freep) char *result = show(&v, &t);
    assert_non_null(strstr(result, ": 6.5"));
    sym_value_deinit(&v);
    struct sym_variable counter;
    assert_ok(sym_global_named(module, "shop::counter", &counter));
    assert_ok(sym_read_variable(module, &counter, 0, &t.ctx, &v));
    assert_shows(&v, &t, "17");
    sym_value_deinit(&v);
    tracee_stop(&t);
}

/* ---- Files that are not what they should be ---- */

TEST(what_is_not_elf_is_refused)
{
    struct sym_module *m;
    struct err *e = sym_module_open(source, NULL, &m);
    assert_int_equal(err_kind(e), ERR_FORMAT);
    err_free(e);
    e = sym_module_open("/no/such/file", NULL, &m);
    assert_int_equal(err_kind(e), ERR_OS);
    err_free(e);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest c_tests[] = {t(functions_are_found_by_name_and_by_address),
                                         t(functions_without_dwarf_come_from_symbols),
                                         t(symbols_are_found_by_name_alone),
                                         t(names_are_prepared_in_steps),
                                         t(lines_map_to_addresses_and_back),
                                         t(a_line_without_code_means_the_next_that_has_some),
                                         t(all_rows_of_a_file_are_visited),
                                         t(inlined_calls_are_frames_of_their_own),
                                         t(search_puts_the_best_first),
                                         t(parameters_have_names_and_types),
                                         t(arguments_are_read_at_the_first_instruction),
                                         t(results_are_read_after_the_return),
                                         t(floating_point_results_come_from_their_registers),
                                         t(values_of_every_kind_are_shown_in_c_notation),
                                         t(globals_and_bitfields_are_read),
                                         t(locals_are_read_where_they_live),
                                         t(locals_of_inlined_calls_belong_to_their_frames),
                                         t(arrays_of_variable_length_are_shown_whole),
                                         t(values_of_the_entry_come_from_the_entry),
                                         t(the_prologue_ends_where_arguments_are_at_home),
                                         t(unwinding_finds_the_callers),
                                         t(memory_that_is_missing_is_said_to_be),
                                         t(what_is_not_elf_is_refused)};
    const struct CMUnitTest cplusplus_tests[] = {t(cplusplus_names_are_demangled),
                                                 t(cplusplus_arguments_are_read),
                                                 t(cplusplus_methods_have_this_and_bases)};
    if (argc != 4)
        return 2;
    program = argv[1];
    source = argv[2];
    level = argv[3];
    optimised = str_eq(level, "O2");
    is_cplusplus = strstr(source, ".cc") != NULL;
    struct err *e = sym_module_open(program, NULL, &module);
    if (e) {
        fprintf(stderr, "%s\n", err_message(e));
        err_free(e);
        return 1;
    }
    int failed = is_cplusplus ? cmocka_run_group_tests(cplusplus_tests, NULL, NULL)
                              : cmocka_run_group_tests(c_tests, NULL, NULL);
    sym_module_close(module);
    return failed;
}
