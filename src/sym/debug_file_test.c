/* Debug information in other places, and damaged. Arguments: a program with debug information,
 * objcopy, xz. */
#include "base/test.h"
#include "sym/sym_int.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

static const char *program, *objcopy, *xz;
static char dir[] = "/tmp/sym-test-XXXXXX";

__attribute__((format(printf, 1, 2))) static void run(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cleanup(freep) char *command = str_vformat(format, args);
    va_end(args);
    if (system(command) != 0)
        fail_msg("%s", command);
}

static struct sym_module *open_module(const char *name, const char *debug_dir)
{
    struct sym_module *m;
    cleanup(freep) char *path = str_format("%s/%s", dir, name);
    assert_ok(sym_module_open(path, debug_dir, &m));
    return m;
}

static void expect_source_of(struct sym_module *m, const char *name, enum sym_source source)
{
    const struct sym_function *f[1];
    size_t count;
    assert_ok(sym_functions_named(m, name, 1, f, &count));
    assert_int_equal(f[0]->source, source);
}

TEST(debug_information_is_found_by_build_id_in_the_traces_directory)
{
    cleanup(sym_module_closep) struct sym_module *whole = NULL, *stripped = NULL, *alone = NULL;
    assert_ok(sym_module_open(program, NULL, &whole));
    const char *id = sym_module_build_id(whole);
    assert_non_null(id);
    run("mkdir -p %s/debug/.build-id/%.2s", dir, id);
    run("%s --only-keep-debug %s %s/debug/.build-id/%.2s/%s.debug", objcopy, program, dir, id,
        id + 2);
    run("%s --strip-all %s %s/stripped", objcopy, program, dir);
    alone = open_module("stripped", NULL);
    assert_non_null(strstr(sym_module_no_dwarf(alone), "no debug information"));
    cleanup(freep) char *debug = str_format("%s/debug", dir);
    stripped = open_module("stripped", debug);
    assert_null(sym_module_no_dwarf(stripped));
    expect_source_of(stripped, "twice", SYM_DWARF);
    expect_source_of(stripped, "_start", SYM_ELF); // its .symtab is used as well
}

TEST(debug_information_is_found_by_its_link)
{
    cleanup(sym_module_closep) struct sym_module *m = NULL, *other = NULL;
    run("%s --only-keep-debug --remove-section=.note.gnu.build-id %s %s/linked.debug", objcopy,
        program, dir);
    run("cd %s && %s --strip-all --remove-section=.note.gnu.build-id "
        "--add-gnu-debuglink=linked.debug %s linked",
        dir, objcopy, program);
    m = open_module("linked", NULL);
    assert_null(sym_module_no_dwarf(m));
    expect_source_of(m, "sum_list", SYM_DWARF);
    run("echo >>%s/linked.debug", dir); // its CRC differs now
    other = open_module("linked", NULL);
    assert_non_null(sym_module_no_dwarf(other));
}

TEST(compressed_debug_information_is_read)
{
    cleanup(sym_module_closep) struct sym_module *m = NULL;
    run("%s --compress-debug-sections %s %s/compressed", objcopy, program, dir);
    m = open_module("compressed", NULL);
    expect_source_of(m, "sum_list", SYM_DWARF);
}

static Elf_Data *data_of(Elf *elf, const char *name)
{
    Elf_Data *data = NULL;
    assert_true(find_section(elf, name, NULL, &data));
    return data;
}

TEST(what_is_unpacked_here_is_what_was_compressed)
{
    static const char *const names[] = {".debug_info", ".debug_abbrev", ".debug_line",
                                        ".debug_str"};
    cleanup(freep) char *path = str_format("%s/compressed_to_compare", dir);
    run("%s --compress-debug-sections %s %s", objcopy, program, path);
    cleanup(closep) int fd = open(program, O_RDONLY | O_CLOEXEC),
                        packed_fd = open(path, O_RDONLY | O_CLOEXEC);
    Elf *elf = elf_begin(fd, ELF_C_READ_MMAP, NULL),
        *packed = elf_begin(packed_fd, ELF_C_READ_MMAP, NULL);
    uint8_t *image = NULL;
    assert_null(inflate_dwarf(elf, &image)); // nothing is compressed
    Elf *inflated = inflate_dwarf(packed, &image);
    assert_non_null(inflated);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const Elf_Data *a = data_of(elf, names[i]), *b = data_of(inflated, names[i]);
        assert_int_equal(a->d_size, b->d_size);
        assert_memory_equal(a->d_buf, b->d_buf, a->d_size);
    }
    elf_end(inflated);
    elf_end(packed);
    elf_end(elf);
    free(image);
    close(packed_fd);
}

TEST(mini_debug_information_gives_symbols)
{
    cleanup(sym_module_closep) struct sym_module *m = NULL;
    if (!*xz)
        skip(); // no xz
    run("%s --strip-debug %s %s/mini && %s -c %s/mini >%s/mini.xz", objcopy, program, dir, xz, dir,
        dir);
    run("%s --strip-all --add-section .gnu_debugdata=%s/mini.xz %s %s/with_mini", objcopy, dir,
        program, dir);
    m = open_module("with_mini", NULL);
    expect_source_of(m, "sum_list", SYM_ELF);
}

/* ---- Damage ---- */

static struct err *read_zeros(struct sym_context *ctx, gaddr addr, void *buf, size_t len)
{
    memset(buf, 0, len);
    return NULL;
}

static struct err *read_address(struct sym_context *ctx, unsigned reg, void *buf, size_t len)
{
    memset(buf, 0x11, len);
    return NULL;
}

static bool ignore_hit(void *arg, const struct sym_hit *hit)
{
    return true;
}

static bool ignore_row(void *arg, const struct sym_line *row, const struct sym_function *fn)
{
    return true;
}

static void read_all(struct sym_module *m, struct sym_context *ctx, struct sym_variables *all,
                     vaddr addr)
{
    vec_each (v, all) {
        struct sym_value value;
        char *text;
        struct err *e = sym_read_variable(m, v, addr, ctx, &value);
        if (!e) {
            assert_ok(sym_format_value(m, &value, ctx, &text));
            free(text);
            sym_value_deinit(&value);
        }
        err_free(e);
    }
}

static void ask_address(struct sym_module *m, struct sym_context *ctx, vaddr addr)
{
    struct sym_registers regs;
    struct sym_line line;
    struct sym_frames frames = {0};
    err_free(sym_unwind_step(m, addr, ctx, &regs));
    err_free(sym_line_at(m, addr, &line));
    err_free(sym_inline_chain(m, addr, &frames));
    for (size_t i = 0; i < frames.count; i++) {
        struct sym_variables all = {0};
        err_free(sym_variables_at(m, addr, i, &all));
        read_all(m, ctx, &all, addr);
        sym_variables_deinit(&all);
    }
    sym_frames_deinit(&frames);
}

static void ask_call(struct sym_module *m, struct sym_context *ctx, const struct sym_function *f)
{
    struct sym_value value = {0};
    for (size_t i = 0; i < 12; i++) {
        err_free(sym_read_argument_at_entry(m, f, i, ctx, &value));
        sym_value_deinit(&value);
    }
    err_free(sym_read_return_value(m, f, ctx, &value));
    sym_value_deinit(&value);
}

static void ask_lines(struct sym_module *m, vaddr addr)
{
    struct sym_places places = {0};
    struct sym_line line;
    struct err *e = sym_line_at(m, addr, &line);
    if (!e) {
        err_free(sym_lines_of_file(m, line.file, ignore_row, NULL));
        err_free(sym_addresses_of_line(m, line.file, line.line, &places));
        sym_places_deinit(&places);
    }
    err_free(e);
}

static void ask_function(struct sym_module *m, struct sym_context *ctx, const char *name)
{
    const struct sym_function *f[4];
    size_t count;
    struct err *e = sym_functions_named(m, name, 4, f, &count);
    for (size_t i = 0; !e && i < count; i++) {
        ask_address(m, ctx, sym_function_prologue_end(m, f[i]));
        for (vaddr addr = f[i]->start; addr < f[i]->end && addr < f[i]->start + 160; addr += 8)
            ask_address(m, ctx, addr);
        ask_call(m, ctx, f[i]);
        ask_lines(m, f[i]->start);
    }
    err_free(e);
}

/* Asks about everything in a file that may be damaged anywhere. */
static void ask_everything(const char *path)
{
    struct sym_context ctx = {.read_memory = read_zeros, .read_register = read_address};
    static const char *const functions[] = {"twice",         "mixed",   "make_big", "sum_list",
                                            "calls_inlined", "nothing", "main",     "half"};
    cleanup(sym_module_closep) struct sym_module *m = NULL;
    struct err *e = sym_module_open(path, NULL, &m);
    if (e) {
        err_free(e);
        return;
    }
    size_t count;
    uint64_t bias;
    struct sym_variable v;
    for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++)
        ask_function(m, &ctx, functions[i]);
    err_free(sym_search(m, "ma", 10, ignore_hit, NULL));
    sym_file_list(m, &count);
    err_free(sym_module_bias(m, 0x10000, 0, true, &bias));
    err_free(sym_global_named(m, "a_global", &v));
}

static uint8_t *read_whole(const char *path, size_t *len_out)
{
    struct stat st;
    cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    uint8_t *data = xmalloc((size_t)st.st_size);
    assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
    *len_out = (size_t)st.st_size;
    return data;
}

static void write_file(const char *path, const uint8_t *data, size_t len)
{
    cleanup(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && write(fd, data, len) == (ssize_t)len);
}

TEST(truncated_files_give_errors)
{
    size_t len;
    cleanup(freep) uint8_t *data = read_whole(program, &len);
    cleanup(freep) char *path = str_format("%s/damaged", dir);
    for (size_t i = 0; i < 64; i++) {
        write_file(path, data, len * i / 64);
        ask_everything(path);
    }
}

TEST(damaged_files_give_errors)
{
    size_t whole_len, len;
    cleanup(freep) uint8_t *data = read_whole(program, &whole_len);
    cleanup(freep) char *path = str_format("%s/damaged", dir);
    const char *rounds_text = getenv("SYM_TEST_ROUNDS"), *seed = getenv("SYM_TEST_SEED");
    size_t rounds = rounds_text ? strtoul(rounds_text, NULL, 10) : 200;
    unsigned short state48[3] = {seed ? (unsigned short)atoi(seed) : 1, 2, 3};
    cleanup(freep) char *packed = str_format("%s/compressed_to_damage", dir);
    run("%s --compress-debug-sections %s %s", objcopy, program, packed);
    size_t packed_len;
    cleanup(freep) uint8_t *packed_data = read_whole(packed, &packed_len);
    for (size_t i = 0; i < rounds; i++) {
        len = i % 4 < 2 ? whole_len : packed_len;
        cleanup(freep) uint8_t *copy = xmemdup(i % 4 < 2 ? data : packed_data, len);
        for (int k = 0; k < 20; k++) {
            // half of the rounds spare the program itself, so that the debug information is reached
            size_t start = i % 2 ? len / 2 : 0,
                   at = start + (size_t)nrand48(state48) % (len - start);
            copy[at] =
                (uint8_t)(k % 2 ? nrand48(state48) : copy[at] ^ (1 << (nrand48(state48) % 8)));
        }
        write_file(path, copy, len);
        ask_everything(path);
    }
}

/* As lld lays a program out: the code's segment begins in the file's page in which the one before
 * ends, and lies a page higher. */
TEST(the_bias_is_told_where_segments_share_a_page)
{
    size_t len;
    cleanup(freep) uint8_t *data = read_whole(program, &len);
    cleanup(freep) char *path = str_format("%s/packed", dir);
    const Elf64_Ehdr *h = (const Elf64_Ehdr *)data;
    Elf64_Phdr *p = (Elf64_Phdr *)(data + h->e_phoff), *code = NULL;
    for (unsigned i = 1; i < h->e_phnum && !code; i++) {
        if (p[i].p_type == PT_LOAD && p[i].p_flags & PF_X)
            code = &p[i];
    }
    assert_non_null(code);
    code[-1].p_filesz = code->p_offset + 0x10 - code[-1].p_offset;
    code->p_vaddr += 0x1000;
    write_file(path, data, len);
    cleanup(sym_module_closep) struct sym_module *m = NULL;
    uint64_t bias = 0, page = code->p_offset & ~0xfffull, start = 0x550000001000 + page;
    assert_ok(sym_module_open(path, NULL, &m));
    assert_ok(sym_module_bias(m, start, page, true, &bias));
    assert_int_equal(bias, 0x550000000000);
    assert_ok(sym_module_bias(m, 0x550000000000 + page, page, false, &bias));
    assert_int_equal(bias, 0x550000000000);
}

/* The section's offset in the file. */
static size_t offset_of(const uint8_t *file, const char *section)
{
    const Elf64_Ehdr *h = (const Elf64_Ehdr *)file;
    const Elf64_Shdr *s = (const Elf64_Shdr *)(file + h->e_shoff);
    const char *names = (const char *)file + s[h->e_shstrndx].sh_offset;
    for (unsigned i = 0; i < h->e_shnum; i++) {
        if (str_eq(names + s[i].sh_name, section))
            return s[i].sh_offset;
    }
    fail_msg("no %s", section);
    return 0;
}

TEST(addresses_that_the_index_of_units_lacks_are_found_all_the_same)
{
    enum { FIRST_LEN = 24 }; // offset of the first range's length
    size_t len;
    cleanup(freep) uint8_t *data = read_whole(program, &len);
    cleanup(freep) char *path = str_format("%s/short-index", dir);
    cleanup(sym_module_closep) struct sym_module *whole = NULL, *m = NULL;
    const struct sym_function *f[1], *at;
    size_t count;
    struct sym_line line, expected;
    assert_ok(sym_module_open(program, NULL, &whole));
    assert_ok(sym_functions_named(whole, "sum_list", 1, f, &count));
    assert_ok(sym_line_at(whole, f[0]->start, &expected));
    memcpy(data + offset_of(data, ".debug_aranges") + FIRST_LEN, (uint64_t[]){1}, 8);
    write_file(path, data, len);
    assert_ok(sym_module_open(path, NULL, &m));
    assert_ok(sym_function_at(m, f[0]->start, &at));
    assert_int_equal(at->source, SYM_DWARF);
    assert_string_equal(at->name, "sum_list");
    assert_ok(sym_line_at(m, f[0]->start, &line));
    assert_int_equal(line.line, expected.line);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        t(debug_information_is_found_by_build_id_in_the_traces_directory),
        t(debug_information_is_found_by_its_link),
        t(compressed_debug_information_is_read),
        t(what_is_unpacked_here_is_what_was_compressed),
        t(mini_debug_information_gives_symbols),
        t(the_bias_is_told_where_segments_share_a_page),
        t(addresses_that_the_index_of_units_lacks_are_found_all_the_same),
        t(truncated_files_give_errors),
        t(damaged_files_give_errors)};
    if (argc != 4 || !mkdtemp(dir))
        return 2;
    cleanup(freep) char *full = realpath(argv[1], NULL); // commands change directory
    program = full ? full : argv[1];
    objcopy = argv[2];
    xz = argv[3];
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    run("rm -rf %s", dir);
    return failed;
}
