/* A whole trace: read, sought in, cut short and damaged. */
#include "base/buf.h"
#include "base/test.h"
#include "trace/dump.h"
#include "trace/rewrite.h"
#include "trace/small_trace.h"
#include "trace/trace_int.h"

#include <fcntl.h>
#include <string.h>

static const char *const files[] = {"version", "events", "data", "mmaps", "tasks"};
enum { FILE_COUNT = sizeof(files) / sizeof(files[0]), SMALL_BLOCKS = 512 };

/* Reads all there is: every frame and every byte. */
static struct err *read_everything(const char *dir)
{
    cleanup(trace_closep) struct trace *t = NULL;
    TRY(trace_open(dir, &t));
    cleanup(trace_cursor_closep) struct trace_cursor *c = NULL;
    TRY(trace_cursor_open(t, &c));
    for (;;) {
        const struct frame *f;
        TRY(trace_cursor_next(c, &f));
        if (!f)
            return NULL;
        for (size_t i = 0; i < f->write_count; i++) {
            cleanup(buf_deinit) struct buf data = {0};
            TRY(trace_read_write(c, &f->writes[i], &data));
        }
    }
}

TEST(a_header_of_every_release_has_its_defaults)
{
    for (unsigned minor = 4; minor <= 9; minor++) {
        cleanup(buf_deinit) struct buf words = {0}, packed = {0};
        cleanup(pool_deinit) struct pool p = {0};
        small_trace_header(&words, minor);
        pack_message(&packed, words.data, words.len);
        struct trace_header h;
        assert_ok(header_decode(packed.data, packed.len, 3, &p, &h));
        // Since 5.0
        assert_int_equal(h.uuid[1], 2);
        assert_int_equal(h.bind_to_cpu, -1);
        assert_true(h.ok);
        assert_true(h.preload_thread_locals_recorded);
        assert_false(h.has_cpuid_faulting);
        assert_int_equal(h.rrcall_base, 1000);
        assert_int_equal(h.native_arch, ARCH_X86_64);
        assert_int_equal(h.xcr0, 7);
        assert_int_equal(h.cpuid_count, 2);
        assert_int_equal(h.cpuid[0].ecx, 2432);
        // 5.4: the quirk came with that release
        assert_false(h.explicit_proc_mem);
        // 5.5
        assert_int_equal(h.special_librrpage, minor < 5);
        assert_int_equal(h.chaos_mode, minor < 5 ? 0 : 2);
        assert_true(h.exclusion_end == (minor < 5 ? 0 : 0x140000000000));
        assert_int_equal(h.required_forward_compatibility_version, minor < 5    ? 0
                                                                   : minor == 5 ? 1
                                                                                : 3);
        // 5.6
        assert_int_equal(h.pkey_alloc_recorded_extra_regs, minor >= 6);
        assert_int_equal(h.buffered_syscall_forced_tick, minor >= 6);
        assert_int_equal(h.runtime_page_size, 4096);
        assert_int_equal(h.preload_library_page_size, 4096);
        // 5.7
        assert_int_equal(h.uses_globals_in_replay, minor < 7);
        assert_int_equal(h.syscallbuf_fds_disabled_size, minor < 7 ? 1024 : 16384);
        // 5.8
        assert_int_equal(h.syscallbuf_hdr_size, minor < 8 ? 30 : 32);
        assert_int_equal(h.uname[0] != NULL, minor >= 8);
        if (h.uname[0])
            assert_string_equal(h.uname[4], "x86_64");
        // 5.9
        assert_int_equal(h.max_virtual_address_size, minor < 9 ? 0 : 47);
    }
}

TEST(frames_carry_what_their_kind_has)
{
    cleanup(small_trace_destroyp) char *dir = small_trace_create(SMALL_BLOCKS);
    cleanup(trace_closep) struct trace *t = NULL;
    assert_ok(trace_open(dir, &t));
    cleanup(trace_cursor_closep) struct trace_cursor *c = NULL;
    assert_ok(trace_cursor_open(t, &c));
    const struct frame *f;
    for (unsigned i = 0; i < SMALL_TRACE_FRAMES; i++) {
        assert_ok(trace_cursor_next(c, &f));
        assert_non_null(f);
        assert_int_equal(f->event, i + 1);
        assert_int_equal(f->tid, 101 + i % 2);
        assert_int_equal(f->ticks, i * 10);
        assert_int_equal(f->arch, i < SMALL_TRACE_FRAMES / 2 ? ARCH_X86_64 : ARCH_X86);
        assert_int_equal(f->write_count, 2);
        assert_int_equal(f->mmap_count, i < 2 ? 2 : 0);
        assert_int_equal(f->task_count, i < SMALL_TRACE_TASKS);
        if (f->has_regs && f->arch == ARCH_X86_64)
            assert_true(f->regs.r[UREG_R14] == 0x6a635c554e474039);
        if (f->has_regs && f->arch == ARCH_X86)
            assert_int_equal(f->regs.r[UREG_RCX], 0x322b241d);
        switch (f->kind) {
        case FRAME_SYSCALL:
            assert_string_equal(trace_syscall_name(t, f->syscall_arch, f->syscall_no), "execve");
            assert_int_equal(f->exec_fd_count, 3);
            assert_int_equal(f->exec_fds[2], 5);
            break;
        case FRAME_SCHED:
            assert_int_equal(f->in_syscallbuf_hook, 0x1234);
            break;
        case FRAME_SIGNAL: {
            cleanup(freep) char *name = trace_frame_describe(t, f);
            assert_string_equal(name, "SIGNAL: SIGSEGV(det)");
            assert_int_equal(f->disposition, SIGNAL_USER_HANDLER);
            break;
        }
        case FRAME_SYSCALLBUF_FLUSH:
            assert_int_equal(f->mprotect_count, 1);
            assert_int_equal(f->mprotects[0].size, 0x2000);
            assert_int_equal(f->mprotects[0].prot, 5);
            break;
        default:
            break;
        }
    }
    assert_ok(trace_cursor_next(c, &f));
    assert_null(f);
    event_no count;
    assert_ok(trace_event_count(t, &count));
    assert_int_equal(count, SMALL_TRACE_FRAMES);
}

TEST(holes_of_a_write_read_as_zeros)
{
    cleanup(small_trace_destroyp) char *dir = small_trace_create(7); // blocks that cut every piece
    cleanup(trace_closep) struct trace *t = NULL;
    assert_ok(trace_open(dir, &t));
    cleanup(trace_cursor_closep) struct trace_cursor *c = NULL;
    assert_ok(trace_cursor_open(t, &c));
    const struct frame *f;
    assert_ok(trace_cursor_next(c, &f));
    assert_ok(trace_cursor_next(c, &f));
    assert_int_equal(f->writes[0].data_offset, 24);
    assert_int_equal(f->writes[0].data_size, 24);
    uint8_t expected[48] = {1,  2,  3,  4,  5,  6,  7,  8,  [16] = 9, 10, 11, 12,
                            13, 14, 15, 16, 17, 18, 19, 20, 21,       22, 23, 24};
    cleanup(buf_deinit) struct buf data = {0};
    assert_ok(trace_read_write(c, &f->writes[0], &data));
    assert_int_equal(data.len, sizeof(expected));
    assert_memory_equal(data.data, expected, sizeof(expected));
    assert_ok(trace_read_write(c, &f->writes[1], &data));
    assert_int_equal(data.len, sizeof(expected));
}

TEST(a_cursor_goes_back_to_a_saved_position)
{
    cleanup(small_trace_destroyp) char *dir = small_trace_create(SMALL_BLOCKS);
    cleanup(trace_closep) struct trace *t = NULL;
    assert_ok(trace_open(dir, &t));
    cleanup(trace_cursor_closep) struct trace_cursor *c = NULL;
    assert_ok(trace_cursor_open(t, &c));
    struct trace_position positions[SMALL_TRACE_FRAMES];
    const struct frame *f;
    for (unsigned i = 0; i < SMALL_TRACE_FRAMES; i++) {
        positions[i] = trace_cursor_position(c);
        assert_ok(trace_cursor_next(c, &f));
    }
    for (unsigned i = SMALL_TRACE_FRAMES; i-- > 0;) {
        assert_ok(trace_cursor_seek(c, positions[i]));
        assert_ok(trace_cursor_next(c, &f));
        assert_int_equal(f->event, i + 1);
        assert_int_equal(f->ticks, i * 10);
        assert_int_equal(f->writes[0].data_offset, 24 * i);
        assert_int_equal(f->task_count, i < SMALL_TRACE_TASKS);
    }
    struct trace_position nowhere = {.events_offset = 1 << 30};
    cleanup(err_freep) struct err *e = trace_cursor_seek(c, nowhere);
    assert_non_null(e);
}

TEST(frames_to_come_are_seen_where_the_cursor_stands)
{
    cleanup(small_trace_destroyp) char *dir = small_trace_create(SMALL_BLOCKS);
    cleanup(trace_closep) struct trace *t = NULL;
    assert_ok(trace_open(dir, &t));
    cleanup(trace_cursor_closep) struct trace_cursor *c = NULL;
    assert_ok(trace_cursor_open(t, &c));
    struct trace_position start = trace_cursor_position(c);
    const struct frame *f = NULL, *ahead[SMALL_TRACE_FRAMES];
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < SMALL_TRACE_FRAMES; i++) {
            const struct frame *before = f;
            for (unsigned n = 0; n + i < SMALL_TRACE_FRAMES; n++) {
                ahead[n] = trace_cursor_ahead(c, n);
                assert_int_equal(ahead[n]->event, i + n + 1);
                assert_int_equal(ahead[n]->ticks, (i + n) * 10);
                assert_int_equal(ahead[n]->writes[0].data_offset, 24 * (i + n));
            }
            assert_null(trace_cursor_ahead(c, SMALL_TRACE_FRAMES - i));
            assert_null(trace_cursor_ahead(c, TRACE_AHEAD));
            assert_int_equal(trace_cursor_position(c).event, i);
            if (before)
                assert_int_equal(before->event, i);
            assert_ok(trace_cursor_next(c, &f));
            assert_ptr_equal(f, ahead[0]);
        }
        assert_ok(trace_cursor_next(c, &f));
        assert_null(f);
        assert_ok(trace_cursor_seek(c, start));
    }
    // A seek forgets what was read ahead.
    assert_non_null(trace_cursor_ahead(c, 3));
    assert_ok(trace_cursor_next(c, &f));
    assert_ok(trace_cursor_seek(c, start));
    assert_int_equal(trace_cursor_ahead(c, 0)->event, 1);
}

TEST(mmaps_and_tasks_are_read_whole)
{
    cleanup(small_trace_destroyp) char *dir = small_trace_create(SMALL_BLOCKS);
    cleanup(trace_closep) struct trace *t = NULL;
    assert_ok(trace_open(dir, &t));
    size_t count;
    const struct trace_mmap *m = trace_mmaps(t, &count);
    assert_int_equal(count, SMALL_TRACE_MMAPS);
    assert_string_equal(m[0].name, "/lib/some.so");
    assert_null(m[0].backing_file);
    cleanup(freep) char *path = trace_backing_path(t, &m[2]);
    cleanup(freep) char *expected = str_format("%s/mmap_hardlink_2_some.so", trace_dir(t));
    assert_string_equal(path, expected);
    const struct trace_task_event *e = trace_task_events(t, &count);
    assert_int_equal(count, SMALL_TRACE_TASKS);
    assert_int_equal(e[0].argc, 2);
    assert_string_equal(e[0].argv[1], "an argument");
    assert_int_equal(e[1].clone_flags, 17);
    assert_int_equal(e[3].exit_status, 0x300);
    uint32_t regs[4];
    trace_cpuid(t, 1, 99, regs);
    assert_int_equal(regs[3], 14);
    trace_cpuid(t, 0xd, 1, regs);
    assert_int_equal(regs[0], 0);
}

/* Whether a file may be cut here without a trace of it: between two blocks. */
static bool is_block_boundary(const struct buf *file, size_t len)
{
    size_t off = 0;
    while (off < len) {
        uint32_t block_len;
        memcpy(&block_len, file->data + off, sizeof(block_len));
        off += 8 + block_len;
    }
    return off == len;
}

TEST(a_trace_cut_short_anywhere_is_a_format_error)
{
    cleanup(small_trace_destroyp) char *dir = small_trace_create(SMALL_BLOCKS);
    for (size_t i = 0; i < FILE_COUNT; i++) {
        cleanup(buf_deinit) struct buf file = {0};
        small_trace_read(dir, files[i], &file);
        for (size_t len = 0; len < file.len; len++) {
            small_trace_write(dir, files[i], file.data, len);
            cleanup(err_freep) struct err *e = read_everything(dir);
            bool is_clean = i > 0 && is_block_boundary(&file, len);
            if (!e && !is_clean)
                fail_msg("%s cut to %zu of %zu bytes is accepted", files[i], len, file.len);
            if (e && err_kind(e) != ERR_FORMAT)
                fail_msg("%s cut to %zu bytes: %s", files[i], len, err_message(e));
        }
        small_trace_write(dir, files[i], file.data, file.len);
    }
    assert_ok(read_everything(dir));
}

TEST(flipped_bytes_never_crash)
{
    cleanup(small_trace_destroyp) char *dir = small_trace_create(1 << 20);
    for (size_t i = 0; i < FILE_COUNT; i++) {
        cleanup(buf_deinit) struct buf file = {0};
        small_trace_read(dir, files[i], &file);
        for (size_t off = 0; off < file.len; off++) {
            static const uint8_t flips[] = {0x01, 0x80, 0xff};
            for (size_t k = 0; k < sizeof(flips); k++) {
                file.data[off] ^= flips[k];
                small_trace_write(dir, files[i], file.data, file.len);
                cleanup(err_freep) struct err *e = read_everything(dir);
                if (e && err_kind(e) == ERR_OS)
                    fail_msg("%s: %s", files[i], err_message(e));
                file.data[off] ^= flips[k];
            }
        }
        small_trace_write(dir, files[i], file.data, file.len);
    }
}

static void assert_open_fails(const char *dir, enum err_kind kind, const char *words)
{
    struct trace *t;
    cleanup(err_freep) struct err *e = trace_open(dir, &t);
    assert_non_null(e);
    if (err_kind(e) != kind || !strstr(err_message(e), words))
        fail_msg("expected \"%s\", got \"%s\"", words, err_message(e));
    assert_null(strchr(err_message(e), '\n'));
}

TEST(what_is_no_trace_is_told_in_one_line)
{
    cleanup(small_trace_destroyp) char *dir = small_trace_create(SMALL_BLOCKS);
    cleanup(buf_deinit) struct buf version = {0};
    small_trace_read(dir, "version", &version);
    assert_open_fails("/no/such/directory", ERR_OS, "No such file");

    small_trace_write(dir, "version", "84\n", 3);
    assert_open_fails(dir, ERR_UNSUPPORTED, "version 84");
    small_trace_write(dir, "version", "text\n", 5);
    assert_open_fails(dir, ERR_FORMAT, "version number");
    small_trace_write(dir, "version", "85\n", 3);
    assert_open_fails(dir, ERR_FORMAT, "did not finish");

    cleanup(freep) char *from = str_format("%s/version", dir),
                        *to = str_format("%s/incomplete", dir);
    assert_int_equal(rename(from, to), 0);
    assert_open_fails(dir, ERR_FORMAT, "incomplete");
    assert_int_equal(unlink(to), 0);
    assert_open_fails(dir, ERR_FORMAT, "not an rr trace");
    small_trace_write(dir, "version", version.data, version.len);
    assert_ok(read_everything(dir));
}

TEST(a_trace_of_a_newer_rr_is_refused)
{
    cleanup(small_trace_destroyp) char *dir = small_trace_create(SMALL_BLOCKS);
    cleanup(buf_deinit) struct buf words = {0}, version = {0};
    buf_str(&version, "85\n");
    small_trace_header(&words, 9);
    memset(words.data + 8 + 48, 4, 1);
    pack_message(&version, words.data, words.len);
    small_trace_write(dir, "version", version.data, version.len);
    assert_open_fails(dir, ERR_UNSUPPORTED, "newer rr");
}

TEST(errors_name_file_and_offset)
{
    cleanup(small_trace_destroyp) char *dir = small_trace_create(SMALL_BLOCKS);
    cleanup(buf_deinit) struct buf events = {0};
    small_trace_read(dir, "events", &events);
    uint32_t first_len;
    memcpy(&first_len, events.data, sizeof(first_len));
    memset(events.data + 8 + first_len + 8, 0xff, 16); // in the second block
    small_trace_write(dir, "events", events.data, events.len);
    cleanup(err_freep) struct err *e = read_everything(dir);
    assert_non_null(e);
    cleanup(freep) char *expected = str_format("events: block 1 at 0x%x: ", first_len + 8);
    if (!strstr(err_message(e), expected))
        fail_msg("expected \"%s...\", got \"%s\"", expected, err_message(e));
}

TEST(mmaps_are_rewritten_with_new_names_and_zero_stats)
{
    cleanup(small_trace_destroyp) char *dir = small_trace_create(SMALL_BLOCKS);
    const char *names[SMALL_TRACE_MMAPS] = {[2] = "mmap_pack_0_a_longer_name_than_before.so"};
    cleanup(freep) char *temporary = str_format("%s/new", dir),
                        *mmaps = str_format("%s/mmaps", dir);
    cleanup(closep) int fd = open(temporary, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_ok(mmaps_rewrite(dir, names, SMALL_TRACE_MMAPS, fd));
    assert_int_equal(rename(temporary, mmaps), 0);
    cleanup(trace_closep) struct trace *t = NULL;
    assert_ok(trace_open(dir, &t));
    size_t count;
    const struct trace_mmap *m = trace_mmaps(t, &count);
    assert_int_equal(count, SMALL_TRACE_MMAPS);
    assert_string_equal(m[2].backing_file, names[2]);
    assert_string_equal(m[2].name, "/lib/some.so");
    assert_int_equal(m[0].stat_mode, 0);
    assert_int_equal(m[2].stat_mtime, 0);
    assert_int_equal(m[2].stat_size, 0x1800);
    assert_int_equal(m[2].inode, 1234);
    cleanup(err_freep) struct err *e = mmaps_rewrite(dir, names, SMALL_TRACE_MMAPS - 1, fd);
    assert_non_null(e);
}

TEST(processes_are_listed_with_parent_exit_and_command)
{
    cleanup(small_trace_destroyp) char *dir = small_trace_create(SMALL_BLOCKS);
    cleanup(trace_closep) struct trace *t = NULL;
    assert_ok(trace_open(dir, &t));
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    assert_ok(trace_print_processes(t, out));
    fclose(out);
    assert_string_equal(text, "PID\tPPID\tEXIT\tCMD\n101\t--\t3\tprog an argument\n102 "
                              "(2)\t101\tdetach\t(forked without exec)\n");
    free(text);
}

TEST_MAIN(t(a_header_of_every_release_has_its_defaults), t(frames_carry_what_their_kind_has),
          t(holes_of_a_write_read_as_zeros), t(a_cursor_goes_back_to_a_saved_position),
          t(frames_to_come_are_seen_where_the_cursor_stands), t(mmaps_and_tasks_are_read_whole),
          t(a_trace_cut_short_anywhere_is_a_format_error), t(flipped_bytes_never_crash),
          t(what_is_no_trace_is_told_in_one_line), t(a_trace_of_a_newer_rr_is_refused),
          t(errors_name_file_and_offset), t(mmaps_are_rewritten_with_new_names_and_zero_stats),
          t(processes_are_listed_with_parent_exit_and_command))
