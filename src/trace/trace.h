/* Reading an rr trace, version 85 (rr 5.0 to 5.9): the one public header of this room.
 *
 * A trace directory is opened once; cursors walk its frames. Everything read is untrusted input:
 * errors are ERR_FORMAT with file and offset. A struct trace is immutable after trace_open and may
 * be used by any thread and by forked processes (all file access is pread); a cursor belongs to one
 * thread. */
#ifndef TRACE_TRACE_H
#define TRACE_TRACE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/types.h"

enum trace_arch { ARCH_X86, ARCH_X86_64, ARCH_AARCH64 };

struct cpuid_record {
    uint32_t eax_in, ecx_in; /* ecx_in 0xffffffff: irrelevant */
    uint32_t eax, ebx, ecx, edx;
};

/* The Header message, with the defaults of older releases filled in. */
struct trace_header {
    uint8_t uuid[16];
    int32_t bind_to_cpu;
    bool has_cpuid_faulting, ok, preload_thread_locals_recorded, clear_fip_fdp;
    /* Quirks: behaviours of the recording release. */
    bool explicit_proc_mem, special_librrpage, pkey_alloc_recorded_extra_regs,
        buffered_syscall_forced_tick, uses_globals_in_replay;
    uint16_t syscallbuf_protocol_version;
    uint64_t xcr0; /* 0: unknown */
    uint16_t ticks_semantics;
    enum trace_arch native_arch;
    int32_t rrcall_base;
    uint16_t chaos_mode;
    uint8_t max_virtual_address_size; /* 0: unknown */
    gaddr exclusion_start, exclusion_end;
    int32_t required_forward_compatibility_version;
    uint32_t runtime_page_size, preload_library_page_size, syscallbuf_fds_disabled_size,
        syscallbuf_hdr_size;
    const struct cpuid_record *cpuid;
    size_t cpuid_count;
    const char *uname[6]; /* NULL where not recorded */
};

enum mmap_source { MMAP_ZERO, MMAP_TRACE, MMAP_FILE };

struct trace_mmap {
    event_no event;
    gaddr start, end;
    const char *name; /* fsname: "[stack]", "/usr/lib/...", "" */
    uint64_t device, inode;
    int32_t prot, flags;
    int64_t file_offset;
    uint32_t stat_mode, stat_uid, stat_gid;
    int64_t stat_size, stat_mtime;
    enum mmap_source source;
    const char
        *backing_file; /* MMAP_FILE: relative to the trace directory, or absolute; else NULL */
    bool skip_monitoring;
};

enum task_event_kind { TASK_CLONE, TASK_EXEC, TASK_EXIT, TASK_DETACH };

struct trace_task_event {
    event_no event;
    int32_t tid;
    enum task_event_kind kind;
    int32_t parent_tid, own_ns_tid; /* TASK_CLONE */
    uint32_t clone_flags;
    const char *file_name; /* TASK_EXEC */
    const char *const *argv;
    size_t argc;
    gaddr exe_base, interp_base;
    const char *interp_name;
    int32_t exit_status; /* TASK_EXIT: wait status */
};

enum frame_kind { /* numbers are the trace's */
                  FRAME_INSTRUCTION_TRAP,
                  FRAME_PATCH_SYSCALL,
                  FRAME_SYSCALLBUF_ABORT_COMMIT,
                  FRAME_SYSCALLBUF_RESET,
                  FRAME_SCHED,
                  FRAME_GROW_MAP,
                  FRAME_SIGNAL,
                  FRAME_SIGNAL_DELIVERY,
                  FRAME_SIGNAL_HANDLER,
                  FRAME_EXIT,
                  FRAME_SYSCALLBUF_FLUSH,
                  FRAME_SYSCALL,
                  FRAME_PATCH_AFTER_SYSCALL,
                  FRAME_PATCH_VSYSCALL,
                  FRAME_PATCH_TRAPPING_INSTRUCTION,
                  FRAME_KIND_COUNT
};

enum syscall_state { SYSCALL_ENTERING_PTRACE, SYSCALL_ENTERING, SYSCALL_EXITING };
enum signal_disposition { SIGNAL_FATAL, SIGNAL_USER_HANDLER, SIGNAL_IGNORED };
enum syscall_extra {
    EXTRA_NONE,
    EXTRA_WRITE_OFFSET,
    EXTRA_EXEC_FDS_TO_CLOSE,
    EXTRA_OPENED_FDS,
    EXTRA_SOCKET_ADDRS,
    EXTRA_MADVISE_RANGES
};

struct opened_fd {
    int32_t fd;
    uint64_t device, inode;
    const char *path;
};

struct write_hole {
    uint64_t offset, size;
};

struct mem_write {
    int32_t tid;
    bool size_is_conservative;
    gaddr addr;
    uint64_t size;
    const struct write_hole *holes;
    size_t hole_count;
    /* Set by the cursor: where this write's bytes (size less the holes) stand in the `data`
     * substream. */
    uint64_t data_offset;
    uint64_t data_size;
};

struct mprotect_record {
    gaddr start;
    uint64_t size;
    int32_t prot;
};

struct frame {
    event_no event; /* 1-based */
    enum frame_kind kind;
    int32_t tid;
    enum trace_arch arch;
    int64_t ticks;
    double monotonic_sec;
    bool has_regs; /* regs: x86-64 order; for ARCH_X86 the 32-bit values in the places of their
                      64-bit names */
    struct regs regs;
    const uint8_t *extra_regs; /* XSAVE image in the layout of the recording CPU; NULL if none */
    size_t extra_regs_len;
    const struct mem_write *writes;
    size_t write_count;
    /* FRAME_SYSCALL */
    enum trace_arch syscall_arch;
    enum syscall_state syscall_state;
    int32_t syscall_no;
    bool failed_during_preparation;
    enum syscall_extra extra;
    int64_t write_offset;
    const int32_t *exec_fds;
    size_t exec_fd_count;
    const struct opened_fd *opened_fds;
    size_t opened_fd_count;
    const uint8_t *socket_addrs[2]; /* local and remote (struct sockaddr), of a connection that was
                                       made or accepted; NULL: none */
    size_t socket_addr_lens[2];
    const struct addr_range *madvise_ranges;
    size_t madvise_range_count;
    /* FRAME_SIGNAL* */
    const uint8_t *siginfo; /* 128 bytes */
    bool signal_deterministic;
    enum signal_disposition disposition;
    /* FRAME_SCHED: address of the preload library's hook, or 0 */
    gaddr in_syscallbuf_hook;
    /* FRAME_SYSCALLBUF_FLUSH */
    const struct mprotect_record *mprotects;
    size_t mprotect_count;
    /* All records of `mmaps` and `tasks` with this frame's number, in order. */
    const struct trace_mmap *mmaps;
    size_t mmap_count;
    const struct trace_task_event *tasks;
    size_t task_count;
};

struct trace;

/**
 * Opens the trace in directory `dir`: reads header, all of `mmaps` and `tasks`, and the block
 * tables of `events` and `data`. ERR_FORMAT (damaged; also `incomplete`), ERR_UNSUPPORTED (version,
 * forward compatibility, aarch64), ERR_OS.
 */
struct err *trace_open(const char *dir, struct trace **out) nodiscard;
void trace_close(struct trace *t);
DEFINE_CLEANUP(struct trace *, trace_close)

/** Resolves a name on the command line: the argument if not NULL, else $_RR_TRACE_DIR/latest-trace,
 * else $HOME/.local/share/rr/latest-trace, else ERR_USAGE "Can't determine default trace dir". Heap
 * string. */
struct err *trace_default_dir(const char *argument, char **out) nodiscard;

const char *trace_dir(const struct trace *t);
const struct trace_header *trace_header(const struct trace *t);
/** All mmaps and task events of the trace, in order; borrowed. */
const struct trace_mmap *trace_mmaps(const struct trace *t, size_t *count_out);
const struct trace_task_event *trace_task_events(const struct trace *t, size_t *count_out);
/** Absolute path of the backing file of a MMAP_FILE record; heap string. */
char *trace_backing_path(const struct trace *t, const struct trace_mmap *m) nodiscard;
/** confine_reading() (base/confine.h) to the trace's directory, the files outside of it that were
 * mapped, and `more` (count paths). */
struct err *trace_confine_reading(const struct trace *t, const char *const *more,
                                  size_t more_count) nodiscard;
/** Opens a trace after confine(), then trace_confine_reading(): the process can do no more than
 * read it, and write to its directory if it `writes`. */
struct err *trace_open_confined(const char *dir, bool writes, struct trace **out) nodiscard;
/** Number of frames; found by a scan on first need and then kept. */
struct err *trace_event_count(struct trace *t, event_no *out) nodiscard;

/* A position in the frames. Small and copyable in meaning: save() gives offsets from which seek()
 * resumes. */
struct trace_cursor;
struct trace_position {
    event_no event;              /* the last frame read; 0 at the start */
    uint64_t events_offset;      /* in the uncompressed `events` stream, of the next frame */
    uint64_t data_offset;        /* in the uncompressed `data` stream, of the next frame's data */
    uint64_t mmap_idx, task_idx; /* first record of later frames */
};

struct err *trace_cursor_open(const struct trace *t, struct trace_cursor **out) nodiscard;
void trace_cursor_close(struct trace_cursor *c);
DEFINE_CLEANUP(struct trace_cursor *, trace_cursor_close)
/** Reads the next frame; *out is borrowed until the next call on this cursor; NULL at the end of
 * the trace. */
struct err *trace_cursor_next(struct trace_cursor *c, const struct frame **out) nodiscard;
/** The n-th of the frames to come, from 0, n < TRACE_AHEAD; borrowed until it has been given by
 * trace_cursor_next() and the call of that behind. NULL: there is none, or it cannot be read. The
 * position stays. */
#define TRACE_AHEAD 64
const struct frame *trace_cursor_ahead(struct trace_cursor *c, size_t n);
struct trace_position trace_cursor_position(const struct trace_cursor *c);
struct err *trace_cursor_seek(struct trace_cursor *c, struct trace_position p) nodiscard;

/* A write consists of pieces: stretches of data, and holes between them which are to become zeros.
 */
struct write_piece {
    uint64_t offset, size; /* within the write */
    bool hole;
    uint64_t data_offset; /* for trace_read_data(), unless a hole */
};
/** Yields piece `idx`, counted from 0; pieces may be empty. False: there are no more. */
bool mem_write_piece(const struct mem_write *w, size_t idx, struct write_piece *out);
/** The trace's data at a piece's data_offset or within it, as much as lies in one block, at least 1
 * byte; borrowed until the next call on this cursor. */
struct err *trace_data_at(struct trace_cursor *c, uint64_t data_offset, const uint8_t **out,
                          size_t *len_out) nodiscard;
/** Reads from there. */
struct err *trace_read_data(struct trace_cursor *c, uint64_t data_offset, void *out,
                            size_t len) nodiscard;
/** Reads the bytes of a write, holes filled with zeros: w->size bytes into `out`. ERR_LIMIT over 1
 * GiB. */
struct err *trace_read_write(struct trace_cursor *c, const struct mem_write *w,
                             struct buf *out) nodiscard;

/** Names in the vocabulary of `rr dump`: "SYSCALL: mmap", "SCHED"... ; the frame kind alone for
 * trace_frame_name. */
const char *trace_frame_name(enum frame_kind kind);
/** Name of an x86-64 system call ("mmap", "rrcall_init_preload"), or NULL. */
const char *trace_syscall_name(const struct trace *t, enum trace_arch arch, int32_t number);
/** "SIGSEGV", "SIGRT34", "signal(99)"; heap string. */
char *trace_signal_name(int signo) nodiscard;
/** What `rr dump` calls the event: "SYSCALL: mmap", "SIGNAL: SIGSEGV(det)", "SCHED"; heap string.
 */
char *trace_frame_describe(const struct trace *t, const struct frame *f) nodiscard;

/** Value of cpuid(leaf, subleaf) as recorded: {eax, ebx, ecx, edx}; zeros where no record matches.
 */
void trace_cpuid(const struct trace *t, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

#endif
