/* The file `version`: "85\n", then one packed Header message (rr TraceStream.cc, rr_trace.capnp).
 *
 * Every release of rr 5 writes the same struct with more fields than the one before. What an older
 * one lacks reads as zero here and becomes its default by the XOR that Cap'n Proto stores it with.
 */
#include "trace/trace_int.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "trace/packed.h"

/* Headers are a kilobyte or two; the file holds nothing else. */
enum { VERSION_FILE_MAX = 16 << 20 };

static enum trace_arch arch_of(struct message_struct s, size_t off, uint16_t otherwise)
{
    uint16_t arch = struct_u16(s, off) ^ otherwise;
    if (arch > ARCH_AARCH64)
        message_fail(s.m, "an unknown architecture");
    return arch > ARCH_AARCH64 ? ARCH_X86_64 : (enum trace_arch)arch;
}

static void decode_scalars(struct message_struct s, struct trace_header *h)
{
    h->bind_to_cpu = struct_i32(s, 0);
    h->has_cpuid_faulting = struct_bit(s, 32);
    h->ok = struct_bit(s, 33) ^ true;
    h->preload_thread_locals_recorded = struct_bit(s, 34);
    h->explicit_proc_mem = struct_bit(s, 35) ^ true;
    h->clear_fip_fdp = struct_bit(s, 36);
    h->special_librrpage = struct_bit(s, 37) ^ true;
    h->pkey_alloc_recorded_extra_regs = struct_bit(s, 38);
    h->buffered_syscall_forced_tick = struct_bit(s, 39);
    h->uses_globals_in_replay = struct_bit(s, 40) ^ true;
    h->syscallbuf_protocol_version = struct_u16(s, 6);
    h->xcr0 = struct_u64(s, 8);
    h->ticks_semantics = struct_u16(s, 16);
    h->native_arch = arch_of(s, 18, ARCH_X86_64);
    h->rrcall_base = struct_i32(s, 20) ^ 442;
    h->chaos_mode = struct_u16(s, 28);
    h->max_virtual_address_size = struct_u8(s, 30);
    h->exclusion_start = struct_u64(s, 32);
    h->exclusion_end = struct_u64(s, 40);
    h->required_forward_compatibility_version = struct_i32(s, 48);
    h->runtime_page_size = struct_u32(s, 52) ^ 4096;
    h->preload_library_page_size = struct_u32(s, 56) ^ 4096;
    h->syscallbuf_fds_disabled_size = struct_u32(s, 60) ^ 1024;
    h->syscallbuf_hdr_size = struct_u32(s, 64) ^ 30;
}

static void decode_cpuid(struct message_struct s, struct pool *p, struct trace_header *h)
{
    size_t len;
    const uint8_t *data = struct_data(s, 1, &len);
    struct bytes b = bytes_of(data, len);
    h->cpuid_count = len / sizeof(struct cpuid_record);
    if (len % sizeof(struct cpuid_record))
        message_fail(s.m, "cpuid records of a wrong size");
    struct cpuid_record *records = pool_alloc(p, h->cpuid_count * sizeof(*records));
    for (size_t i = 0; i < h->cpuid_count; i++)
        records[i] = (struct cpuid_record){.eax_in = bytes_u32(&b),
                                           .ecx_in = bytes_u32(&b),
                                           .eax = bytes_u32(&b),
                                           .ebx = bytes_u32(&b),
                                           .ecx = bytes_u32(&b),
                                           .edx = bytes_u32(&b)};
    h->cpuid = records;
}

struct err *header_decode(const void *data, size_t len, uint64_t off, struct pool *p,
                          struct trace_header *out)
{
    cleanup(message_deinit) struct message m = {0};
    struct packed_stream stream = packed_stream_of_memory("version", data, len, off);
    bool end;
    TRY(packed_stream_next(&stream, &m, &end));
    if (end)
        return err_new(ERR_FORMAT, "version: no header: the recording did not finish");
    struct trace_header h = {0};
    struct message_struct s = message_root(&m);
    decode_scalars(s, &h);
    decode_cpuid(s, p, &h);
    size_t uuid_len;
    const uint8_t *uuid = struct_data(s, 0, &uuid_len);
    if (uuid)
        memcpy(h.uuid, uuid, uuid_len < sizeof(h.uuid) ? uuid_len : sizeof(h.uuid));
    struct message_struct uname = struct_struct(s, 2);
    for (unsigned i = 0; uname.data && i < 6; i++)
        h.uname[i] = struct_str(uname, i, p);
    TRY(err_prefix(message_check(&m), "version: header at 0x%" PRIx64, off));
    *out = h;
    return NULL;
}

static struct err *check_supported(const char *dir, const struct trace_header *h)
{
    if (h->required_forward_compatibility_version > TRACE_FORWARD_COMPATIBILITY)
        return err_new(
            ERR_UNSUPPORTED,
            "%s: recorded by a newer rr: it asks for compatibility %d, this program has %d", dir,
            h->required_forward_compatibility_version, TRACE_FORWARD_COMPATIBILITY);
    // Zero in all releases so far; it tells how recorder and preload library talk.
    if (h->syscallbuf_protocol_version != 0)
        return err_new(ERR_UNSUPPORTED, "%s: system call buffers of an unknown version %u", dir,
                       h->syscallbuf_protocol_version);
    if (h->native_arch == ARCH_AARCH64)
        return err_new(ERR_UNSUPPORTED, "%s: recorded on aarch64, which is not supported", dir);
    return NULL;
}

/* Why there is no `version` to open: nothing there, no trace, or one whose recorder was killed. */
static struct err *explain_missing(const char *dir)
{
    struct err *missing = err_os("cannot open %s", dir);
    cleanup(freep) char *incomplete = str_format("%s/incomplete", dir);
    struct stat st;
    if (stat(dir, &st) < 0)
        return missing;
    err_free(missing);
    if (access(incomplete, F_OK) == 0)
        return err_new(ERR_FORMAT, "%s: the recording did not finish: the trace is incomplete",
                       dir);
    return err_new(ERR_FORMAT, "%s: not an rr trace: no file `version` in it", dir);
}

static struct err *read_version_file(const char *dir, struct buf *out)
{
    cleanup(freep) char *path = str_format("%s/version", dir);
    cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? explain_missing(dir)
                                                   : err_os("cannot open %s", path);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_os("cannot stat %s", path);
    if (!S_ISREG(st.st_mode) || st.st_size > VERSION_FILE_MAX)
        return err_new(ERR_FORMAT, "%s: not an rr trace's version file", path);
    size_t len = (size_t)st.st_size;
    buf_reserve(out, len + 1);
    while (out->len < len) {
        ssize_t n = read(fd, out->data + out->len, len - out->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_os("cannot read %s", path);
        if (n == 0)
            break;
        out->len += (size_t)n;
    }
    return NULL;
}

struct err *header_read(const char *dir, struct pool *p, struct trace_header *out)
{
    cleanup(buf_deinit) struct buf file = {0};
    TRY(read_version_file(dir, &file));
    const char *text = buf_cstr(&file);
    char *end;
    errno = 0;
    long version = strtol(text, &end, 10);
    if (end == text || *end != '\n' || errno)
        return err_new(ERR_FORMAT, "%s/version: does not begin with a version number", dir);
    if (version != TRACE_VERSION)
        return err_new(ERR_UNSUPPORTED, "%s: trace version %ld, only %d (rr 5) is supported", dir,
                       version, TRACE_VERSION);
    size_t off = (size_t)(end + 1 - text);
    struct trace_header h;
    TRY(err_prefix(header_decode(file.data + off, file.len - off, off, p, &h), "%s", dir));
    TRY(check_supported(dir, &h));
    *out = h;
    return NULL;
}
