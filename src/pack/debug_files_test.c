/* Programs whose debug information is in other files, made here by the usual tools, and a trace of
 * them. Each test moves the files away after packing and reads from the trace. */
#include "base/buf.h"
#include "pack/copy.h"
#include "pack/debug_files.h"
#include "pack/test_world.h"
#include "sym/sym.h"

static const char main_text[] = "struct point { int x, y; };\nint twice(struct point p);\nint "
                                "main(void)\n{\n    struct point p = {1, 2};\n"
                                "    return twice(p);\n}\n";
static const char other_text[] =
    "struct point { int x, y; };\nint twice(struct point p)\n{\n    return 2 * p.x + p.y;\n}\n";

static struct world make_world(void)
{
    struct world w = world_make();
    small_trace_write(w.made, "main.c", main_text, strlen(main_text));
    small_trace_write(w.made, "other.c", other_text, strlen(other_text));
    return w;
}

/* Packs the debug information of programs made in w->made, which lie in the trace as their copies.
 */
static void pack(struct world *w, const char *const *names, size_t count)
{
    world_map(w, names, count);
    cleanup(programs_closep) struct programs *p = NULL;
    assert_ok(programs_open(w->trace, NULL, NULL, &p));
    assert_int_equal(p->files.count, count);
    const struct pack_listener listener = world_listener(w, false);
    assert_ok(pack_debug_files(w->trace, p, &listener));
}

/* As a server does it, where nothing but the trace is left. */
static struct sym_module *open_in_trace(struct world *w, const char *backing)
{
    world_forget(w);
    struct sym_module *m;
    cleanup(freep) char *path = str_format("%s/%s", w->trace, backing),
                        *debug = str_format("%s/debug", w->trace);
    assert_ok(sym_module_open(path, debug, &m));
    return m;
}

/* Everything about `twice` is there: its lines, and its parameter's type. */
static void assert_whole(struct sym_module *m)
{
    const struct sym_function *f[1];
    size_t count;
    assert_null(sym_module_no_dwarf(m));
    assert_ok(sym_functions_named(m, "twice", 1, f, &count));
    assert_int_equal(f[0]->source, SYM_DWARF);
    struct sym_line line;
    assert_ok(sym_line_at(m, f[0]->start, &line));
    assert_int_equal(line.line, 3);
    struct sym_variables v = {0};
    assert_ok(sym_function_parameters(m, f[0], &v));
    assert_int_equal(v.count, 1);
    assert_string_equal(v.items[0].type->name, "struct point");
    sym_variables_deinit(&v);
}

TEST(a_debug_file_beside_the_program_goes_into_the_trace)
{
    cleanup(world_deinit) struct world w = make_world();
    world_run(&w, "gcc -g -Wl,--build-id -o prog main.c other.c && mkdir .debug && objcopy "
                  "--only-keep-debug prog .debug/prog.dbg && "
                  "objcopy --strip-all --add-gnu-debuglink=.debug/prog.dbg prog");
    pack(&w, (const char *const[]){"prog"}, 1);
    assert_null(w.said);
    cleanup(sym_module_closep) struct sym_module *m = open_in_trace(&w, "mmap_pack_0_prog");
    assert_whole(m);
}

TEST(a_debug_file_of_another_build_does_not)
{
    cleanup(world_deinit) struct world w = make_world();
    world_run(&w, "gcc -g -Wl,--build-id -o prog main.c other.c && gcc -g -O2 -Wl,--build-id -o "
                  "later main.c other.c && "
                  "objcopy --only-keep-debug later prog.dbg && objcopy --strip-all "
                  "--add-gnu-debuglink=prog.dbg prog");
    pack(&w, (const char *const[]){"prog"}, 1);
    cleanup(sym_module_closep) struct sym_module *m = open_in_trace(&w, "mmap_pack_0_prog");
    assert_non_null(sym_module_no_dwarf(m));
}

TEST(what_dwz_moved_out_is_one_file_for_all_that_share_it)
{
    cleanup(world_deinit) struct world w = make_world();
    if (!world_has("dwz"))
        skip();
    // Enough in common that dwz moves it out.
    world_run(&w, "for i in $(seq 200); do echo \"struct common_$i { struct common_$i *next; long "
                  "value_$i; };\"; "
                  "echo \"struct common_$i *get_$i(struct common_$i *p) { return p->next; }\"; "
                  "done >common.h");
    world_run(&w, "sed -i '1i #include \"common.h\"' other.c && echo 'struct point { int x, y; }; "
                  "int twice(struct point p); int main(void) "
                  "{ return twice((struct point){3, 4}); }' >second.c");
    world_run(&w, "gcc -gdwarf-4 -Wl,--build-id -o one main.c other.c && gcc -gdwarf-4 -O1 "
                  "-Wl,--build-id -o two second.c other.c && "
                  "dwz -m common.dwz -r one two 2>/dev/null");
    pack(&w, (const char *const[]){"one", "two"}, 2);
    assert_null(w.said);
    world_check("ls -i %s/debug/.build-id/*/*.sup | cut -d' ' -f1 | uniq -c | grep -q ' 2 '",
                w.trace); // two names of one file
    cleanup(sym_module_closep) struct sym_module *m = open_in_trace(&w, "mmap_pack_0_one"),
                                                 *n = open_in_trace(&w, "mmap_pack_1_two");
    const struct sym_function *f[1];
    size_t count;
    struct sym_variables v = {0};
    struct sym_module *const modules[] = {m, n};
    for (size_t i = 0; i < 2; i++) {
        assert_ok(sym_functions_named(modules[i], "get_7", 1, f, &count));
        assert_ok(sym_function_parameters(modules[i], f[0], &v));
        assert_string_equal(v.items[0].type->name, "struct common_7 *");
        sym_variables_deinit(&v);
    }
}

static void split(const char *options)
{
    cleanup(world_deinit) struct world w = make_world();
    world_run(&w,
              "mkdir out && gcc -g -gsplit-dwarf %s -c main.c -o out/main.o && gcc -g "
              "-gsplit-dwarf %s -c other.c -o $PWD/out/other.o && "
              "gcc -o prog out/main.o out/other.o",
              options, options);
    pack(&w, (const char *const[]){"prog"}, 1);
    assert_null(w.said);
    cleanup(sym_module_closep) struct sym_module *m = open_in_trace(&w, "mmap_pack_0_prog");
    assert_whole(m);
}

TEST(split_debug_information_is_read_from_the_trace)
{
    split("-gdwarf-5");
    split("-gdwarf-4");
    split("-gdwarf-5 -gz");
}

TEST(split_debug_information_of_clang_is_read_from_the_trace)
{
    if (!world_has("clang"))
        skip();
    cleanup(world_deinit) struct world w = make_world();
    world_run(&w, "clang -gdwarf-5 -gsplit-dwarf -c main.c -o main.o && clang -gdwarf-5 "
                  "-gsplit-dwarf -c other.c -o other.o && "
                  "clang -o prog main.o other.o");
    pack(&w, (const char *const[]){"prog"}, 1);
    assert_null(w.said);
    cleanup(sym_module_closep) struct sym_module *m = open_in_trace(&w, "mmap_pack_0_prog");
    assert_whole(m);
}

TEST(a_build_whose_directory_was_mapped_away_is_found_from_the_program_upwards)
{
    cleanup(world_deinit) struct world w = make_world();
    world_run(&w, "mkdir -p out/bin && gcc -gdwarf-5 -gsplit-dwarf -fdebug-prefix-map=$PWD=. -c "
                  "main.c -o out/main.o && "
                  "gcc -gdwarf-5 -gsplit-dwarf -fdebug-prefix-map=$PWD=. -c other.c -o out/other.o "
                  "&& gcc -o out/bin/prog out/main.o out/other.o");
    char *inner = str_format("%s/out/bin", w.made), *outer = w.made;
    w.made = inner;
    pack(&w, (const char *const[]){"prog"}, 1);
    w.made = outer;
    free(inner);
    assert_null(w.said);
    cleanup(sym_module_closep) struct sym_module *m = open_in_trace(&w, "mmap_pack_0_prog");
    assert_whole(m);
}

TEST(a_dwo_file_that_is_missing_or_of_another_build_is_told_and_passed_over)
{
    cleanup(world_deinit) struct world w = make_world();
    world_run(&w, "gcc -gdwarf-5 -gsplit-dwarf -c main.c -o main.o && gcc -gdwarf-5 -gsplit-dwarf "
                  "-c other.c -o other.o && "
                  "gcc -o prog main.o other.o && rm main.dwo && gcc -gdwarf-5 -gsplit-dwarf -O2 -c "
                  "other.c -o other.o");
    cleanup(freep) char *expected = str_format(
        "Can't find DWO file %s/main.dwo, skipping\nCan't find DWO file %s/other.dwo, skipping\n",
        w.made, w.made);
    pack(&w, (const char *const[]){"prog"}, 1);
    assert_string_equal(w.said, expected);
    cleanup(sym_module_closep) struct sym_module *m = open_in_trace(&w, "mmap_pack_0_prog");
    const struct sym_function *f[1];
    size_t count;
    assert_ok(sym_functions_named(m, "twice", 1, f, &count));
    assert_int_equal(f[0]->source, SYM_ELF);
}

TEST(a_dwp_file_is_taken_if_it_is_of_this_program)
{
    cleanup(world_deinit) struct world w = make_world();
    if (!world_has("dwp"))
        skip();
    // Of DWARF 4: the dwp of binutils 2.40 does not know DWARF 5.
    world_run(&w, "gcc -gdwarf-4 -gsplit-dwarf -Wl,--build-id -c main.c -o main.o && gcc -gdwarf-4 "
                  "-gsplit-dwarf -c other.c -o other.o && "
                  "gcc -Wl,--build-id -o prog main.o other.o && dwp -e prog -o prog.dwp && rm "
                  "main.dwo other.dwo");
    world_run(&w, "gcc -gdwarf-4 -gsplit-dwarf -O2 -c other.c -o third.o && gcc -Wl,--build-id -o "
                  "stale main.o third.o && cp prog.dwp stale.dwp && "
                  "rm third.dwo && echo 'int nothing; int main(void) { return 0; }' >none.c && gcc "
                  "-g -o none none.c && cp prog.dwp none.dwp");
    cleanup(freep) char *missing =
        str_format("Can't find DWO file %s/third.dwo, skipping\n", w.made);
    pack(&w, (const char *const[]){"prog", "stale"}, 2);
    assert_string_equal(w.said, missing);
    world_check("test $(ls %s/debug/.build-id/*/*.dwp | wc -l) = 2 && rm -r %s/debug", w.trace,
                w.trace);
    pack(&w, (const char *const[]){"none"}, 1);
    world_check("test ! -e %s/debug", w.trace);
}

/* The .dwo files are gone; what the trace has is taken out of the .dwp file. */
static void assert_taken_out(struct world *w)
{
    pack(w, (const char *const[]){"prog"}, 1);
    assert_null(w->said);
    cleanup(sym_module_closep) struct sym_module *m = open_in_trace(w, "mmap_pack_0_prog");
    assert_whole(m);
}

TEST(units_of_a_dwp_file_are_read_from_the_trace)
{
    cleanup(world_deinit) struct world w = make_world();
    if (!world_has("dwp"))
        skip();
    world_run(&w, "gcc -gdwarf-4 -O1 -gsplit-dwarf -Wl,--build-id -c main.c -o main.o && gcc "
                  "-gdwarf-4 -gsplit-dwarf -c other.c -o other.o && "
                  "gcc -Wl,--build-id -o prog main.o other.o && dwp -e prog -o prog.dwp && rm "
                  "main.dwo other.dwo");
    assert_taken_out(&w);
}

TEST(units_of_a_dwp_file_of_dwarf_5_are_read_from_the_trace)
{
    cleanup(world_deinit) struct world w = make_world();
    if (!world_has("llvm-dwp") || !world_has("clang"))
        skip();
    world_run(&w, "clang -gdwarf-5 -O1 -gsplit-dwarf -c main.c -o main.o && clang -gdwarf-5 "
                  "-gsplit-dwarf -c other.c -o other.o && "
                  "clang -Wl,--build-id -o prog main.o other.o && llvm-dwp -e prog -o prog.dwp && "
                  "rm main.dwo other.dwo");
    assert_taken_out(&w);
}

TEST(damaged_dwp_files_give_errors)
{
    cleanup(world_deinit) struct world w = make_world();
    if (!world_has("dwp"))
        skip();
    world_run(&w, "gcc -gdwarf-4 -gsplit-dwarf -c main.c -o main.o && gcc -gdwarf-4 -gsplit-dwarf "
                  "-c other.c -o other.o && "
                  "gcc -o prog main.o other.o && dwp -e prog -o prog.dwp && readelf "
                  "--debug-dump=info main.dwo 2>/dev/null | "
                  "sed -n 's/.*DW_AT_GNU_dwo_id *: *0x//p' | head -1 | tr -d '\\n' >id");
    cleanup(buf_deinit) struct buf whole = {0}, id = {0};
    small_trace_read(w.made, "prog.dwp", &whole);
    small_trace_read(w.made, "id", &id);
    uint64_t unit = strtoull(buf_cstr(&id), NULL, 16);
    cleanup(freep) char *path = str_format("%s/damaged.dwp", w.made);
    unsigned short state48[3] = {1, 2, 3};
    size_t read = 0;
    for (size_t i = 0; i < 600; i++) {
        cleanup(freep) uint8_t *copy = xmemdup(whole.data, whole.len);
        for (int k = 0; i >= 100 && k < 6; k++)
            copy[(size_t)nrand48(state48) % whole.len] = (uint8_t)nrand48(state48);
        small_trace_write(w.made, "damaged.dwp", copy,
                          i < 100 ? whole.len * (i + 1) / 100 : whole.len);
        cleanup(sym_dwp_closep) struct sym_dwp *d = NULL;
        cleanup(buf_deinit) struct buf out = {0};
        struct err *e = sym_dwp_open(path, &d);
        if (!e)
            e = sym_dwp_unit(d, unit, &out);
        read += !e;
        err_free(e);
    }
    assert_true(read > 50 && read < 600);
}

TEST(a_script_for_gdb_says_where_debug_files_are)
{
    cleanup(world_deinit) struct world w = make_world();
    world_run(&w, "gcc -g -Wl,--build-id -o prog main.c other.c && mkdir -p \"store$PWD\" && "
                  "objcopy --only-keep-debug prog \"store$PWD/prog.dbg\" && "
                  "objcopy --strip-all --add-gnu-debuglink=\"store$PWD/prog.dbg\" prog");
    world_run(&w, "printf '# ours\\nset  debug-file-directory /nowhere:%%s\\n\\npython "
                  "print(1)\\n' $PWD/store >script");
    cleanup(freep) char *script = str_format("%s/script", w.made),
                        *none = str_format("%s/none", w.made);
    cleanup(freep) char *said =
        str_format("%s:4: not understood, passed over: python print(1)\n", script);
    world_map(&w, (const char *const[]){"prog"}, 1);
    struct package_options o = {
        .skip_mapped_files = true, .gdb_script = none, .listener = world_listener(&w, false)};
    cleanup(err_freep) struct err *e = package_trace(w.trace, &o);
    assert_non_null(e);
    o.gdb_script = NULL;
    assert_ok(package_trace(w.trace, &o));
    world_check("test ! -e %s/debug", w.trace);
    o.gdb_script = script;
    assert_ok(package_trace(w.trace, &o));
    assert_string_equal(w.said, said);
    cleanup(sym_module_closep) struct sym_module *m = open_in_trace(&w, "mmap_pack_0_prog");
    assert_whole(m);
}

TEST(packing_again_replaces_files)
{
    cleanup(world_deinit) struct world w = make_world();
    world_run(&w, "gcc -gdwarf-5 -gsplit-dwarf -c main.c -o main.o && gcc -gdwarf-5 -gsplit-dwarf "
                  "-c other.c -o other.o && gcc -o prog main.o other.o");
    pack(&w, (const char *const[]){"prog"}, 1);
    world_run(&w, "for f in %s/debug/.dwo/*; do echo damaged >$f; done", w.trace);
    pack(&w, (const char *const[]){"prog"}, 1);
    cleanup(sym_module_closep) struct sym_module *m = open_in_trace(&w, "mmap_pack_0_prog");
    assert_whole(m);
}

static void ignore(void *arg, const struct sym_external *e)
{
}

TEST(damaged_programs_and_files_give_errors)
{
    cleanup(world_deinit) struct world w = make_world();
    world_run(&w, "gcc -gdwarf-5 -gsplit-dwarf -c main.c -o main.o && gcc -gdwarf-5 -gsplit-dwarf "
                  "-c other.c -o other.o && gcc -o prog main.o other.o");
    pack(&w, (const char *const[]){"prog"}, 1);
    cleanup(freep) char *debug = str_format("%s/debug", w.trace);
    cleanup(freep) char *damaged = str_format("%s/damaged", w.trace),
                        *prog = str_format("%s/prog", damaged);
    cleanup(freep) char *debug_copy = str_format("%s/debug", damaged);
    world_run(&w, "mkdir %s && cp -r %s %s && cp %s/mmap_pack_0_prog %s", damaged, debug, damaged,
              w.trace, prog);
    cleanup(buf_deinit) struct buf whole = {0};
    small_trace_read(damaged, "prog", &whole);
    unsigned short state48[3] = {1, 2, 3};
    for (int i = 0; i < 150; i++) {
        cleanup(freep) uint8_t *copy = xmemdup(whole.data, whole.len);
        for (int k = 0; k < 20; k++) { // the second half is debug information
            size_t at = whole.len / 2 + (size_t)nrand48(state48) % (whole.len / 2);
            copy[at] =
                (uint8_t)(k % 2 ? nrand48(state48) : copy[at] ^ (1 << (nrand48(state48) % 8)));
        }
        assert_ok(write_file_at(prog, copy, whole.len));
        cleanup(sym_module_closep) struct sym_module *m = NULL;
        struct err *e = sym_module_open(prog, debug_copy, &m);
        if (!e) {
            const struct sym_function *f[1];
            size_t count;
            err_free(sym_external_files(m, ignore, NULL));
            err_free(sym_functions_named(m, "twice", 1, f, &count));
            sym_file_list(m, &count);
        }
        err_free(e);
    }
    world_run(&w, "rm -r %s", damaged);
}

TEST_MAIN(t(a_script_for_gdb_says_where_debug_files_are), t(damaged_programs_and_files_give_errors),
          t(units_of_a_dwp_file_are_read_from_the_trace),
          t(units_of_a_dwp_file_of_dwarf_5_are_read_from_the_trace),
          t(damaged_dwp_files_give_errors), t(a_debug_file_beside_the_program_goes_into_the_trace),
          t(a_debug_file_of_another_build_does_not),
          t(what_dwz_moved_out_is_one_file_for_all_that_share_it),
          t(split_debug_information_is_read_from_the_trace),
          t(split_debug_information_of_clang_is_read_from_the_trace),
          t(a_build_whose_directory_was_mapped_away_is_found_from_the_program_upwards),
          t(a_dwo_file_that_is_missing_or_of_another_build_is_told_and_passed_over),
          t(a_dwp_file_is_taken_if_it_is_of_this_program), t(packing_again_replaces_files))
