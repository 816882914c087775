/* The substreams `mmaps` and `tasks`: rows of MMap and TaskEvent messages (rr_trace.capnp, rr
 * TraceStream.cc), each with the number of the frame it belongs to, in that order. Both are read
 * whole: a record is about 100 bytes, and there are far fewer of them than frames. */
#include "trace/trace_int.h"

#include <inttypes.h>

#include "trace/packed.h"

enum { ADDRESS_SPACE_BITS = 57 }; /* the widest of x86-64, with five levels of page tables */

static event_no event_of(struct message_struct s, event_no previous)
{
    int64_t event = struct_i64(s, 0);
    if (event < 1 || (event_no)event < previous)
        message_fail(s.m, "its frame number is out of order");
    return (event_no)event;
}

struct err *mmap_decode(struct message *m, struct pool *p, event_no previous,
                        struct trace_mmap *out)
{
    struct message_struct s = message_root(m);
    *out = (struct trace_mmap){.event = event_of(s, previous),
                               .start = struct_u64(s, 8),
                               .end = struct_u64(s, 16),
                               .name = struct_str(s, 0, p),
                               .device = struct_u64(s, 24),
                               .inode = struct_u64(s, 32),
                               .prot = struct_i32(s, 40),
                               .flags = struct_i32(s, 44),
                               .file_offset = struct_i64(s, 48),
                               .stat_mode = struct_u32(s, 56),
                               .stat_uid = struct_u32(s, 60),
                               .stat_gid = struct_u32(s, 64),
                               .stat_size = struct_i64(s, 72),
                               .stat_mtime = struct_i64(s, 80),
                               .skip_monitoring = struct_bit(s, 560)};
    uint16_t source = struct_u16(s, 68);
    if (source > MMAP_FILE)
        message_fail(m, "an unknown source of a mapping's bytes");
    out->source = source > MMAP_FILE ? MMAP_ZERO : (enum mmap_source)source;
    if (out->source == MMAP_FILE) {
        out->backing_file = struct_str(s, 1, p);
        if (!*out->backing_file)
            message_fail(m, "a mapping of a file without a name");
    }
    if (out->start > out->end || out->end > (gaddr)1 << ADDRESS_SPACE_BITS ||
        out->start % PAGE_SIZE || out->end % PAGE_SIZE)
        message_fail(m, "a mapping's addresses make no sense");
    if (out->file_offset < 0 || out->stat_size < 0)
        message_fail(m, "a mapping's offset or size is negative");
    return message_check(m);
}

static void decode_exec(struct message_struct s, struct pool *p, struct trace_task_event *out)
{
    out->file_name = struct_str(s, 0, p);
    struct message_list argv = struct_list_of_pointers(s, 1);
    const char **args = pool_alloc(p, ((size_t)argv.count + 1) * sizeof(*args));
    for (uint32_t i = 0; i < argv.count; i++)
        args[i] = list_str(argv, i, p);
    out->argv = args;
    out->argc = argv.count;
    out->exe_base = struct_u64(s, 16);
    out->interp_base = struct_u64(s, 32);
    out->interp_name = struct_str(s, 2, p);
}

struct err *task_decode(struct message *m, struct pool *p, event_no previous,
                        struct trace_task_event *out)
{
    struct message_struct s = message_root(m);
    *out = (struct trace_task_event){.event = event_of(s, previous), .tid = struct_i32(s, 8)};
    uint16_t kind = struct_u16(s, 24);
    if (kind > TASK_DETACH)
        message_fail(m, "an unknown kind of task event");
    else
        out->kind = (enum task_event_kind)kind;
    switch (out->kind) {
    case TASK_CLONE:
        out->parent_tid = struct_i32(s, 12);
        out->clone_flags = struct_u32(s, 16);
        out->own_ns_tid = struct_i32(s, 20);
        break;
    case TASK_EXEC:
        decode_exec(s, p, out);
        break;
    case TASK_EXIT:
        out->exit_status = struct_i32(s, 12);
        break;
    case TASK_DETACH:
        break;
    }
    return message_check(m);
}

/* Hands out one message after another of a whole substream. */
struct record_reader {
    struct block_file file;
    struct block_reader blocks;
    struct packed_stream stream;
    struct message message;
    uint64_t start; /* of the message */
};

static void record_reader_deinit(struct record_reader *r)
{
    message_deinit(&r->message);
    block_reader_deinit(&r->blocks);
    block_file_close(&r->file);
}

static struct err *record_reader_init(struct record_reader *r, const char *dir, const char *name)
{
    TRY(block_file_open(dir, name, &r->file));
    block_reader_init(&r->blocks, &r->file);
    r->stream = packed_stream_of_blocks(&r->blocks, 0);
    return NULL;
}

static struct err *record_reader_next(struct record_reader *r, bool *end_out)
{
    r->start = packed_stream_offset(&r->stream);
    return packed_stream_next(&r->stream, &r->message, end_out);
}

/* Says where the record is that has the error; NULL stays NULL. */
static struct err *record_reader_error(const struct record_reader *r, struct err *e)
{
    return err_prefix(e, "%s: message at 0x%" PRIx64, r->file.name, r->start);
}

struct err *mmaps_read(const char *dir, struct pool *p, struct trace_mmap **out, size_t *count_out)
{
    cleanup(record_reader_deinit) struct record_reader r = {.file.fd = -1};
    TRY(record_reader_init(&r, dir, "mmaps"));
    VEC(struct trace_mmap) all = {0};
    struct err *e;
    bool end;
    while (!(e = record_reader_next(&r, &end)) && !end) {
        struct trace_mmap m;
        event_no previous = all.count ? all.items[all.count - 1].event : 0;
        e = record_reader_error(&r, mmap_decode(&r.message, p, previous, &m));
        if (e)
            break;
        vec_push(&all, m);
    }
    if (e) {
        vec_deinit(&all);
        return e;
    }
    *out = all.items;
    *count_out = all.count;
    return NULL;
}

struct err *tasks_read(const char *dir, struct pool *p, struct trace_task_event **out,
                       size_t *count_out)
{
    cleanup(record_reader_deinit) struct record_reader r = {.file.fd = -1};
    TRY(record_reader_init(&r, dir, "tasks"));
    VEC(struct trace_task_event) all = {0};
    struct err *e;
    bool end;
    while (!(e = record_reader_next(&r, &end)) && !end) {
        struct trace_task_event t;
        event_no previous = all.count ? all.items[all.count - 1].event : 0;
        e = record_reader_error(&r, task_decode(&r.message, p, previous, &t));
        if (e)
            break;
        vec_push(&all, t);
    }
    if (e) {
        vec_deinit(&all);
        return e;
    }
    *out = all.items;
    *count_out = all.count;
    return NULL;
}
