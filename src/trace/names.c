#include "trace/trace_int.h"

#include "base/bytes.h"

static const char *const frame_names[FRAME_KIND_COUNT] = {
    [FRAME_INSTRUCTION_TRAP] = "INSTRUCTION_TRAP",
    [FRAME_PATCH_SYSCALL] = "PATCH_SYSCALL",
    [FRAME_SYSCALLBUF_ABORT_COMMIT] = "SYSCALLBUF_ABORT_COMMIT",
    [FRAME_SYSCALLBUF_RESET] = "SYSCALLBUF_RESET",
    [FRAME_SCHED] = "SCHED",
    [FRAME_GROW_MAP] = "GROW_MAP",
    [FRAME_SIGNAL] = "SIGNAL",
    [FRAME_SIGNAL_DELIVERY] = "SIGNAL_DELIVERY",
    [FRAME_SIGNAL_HANDLER] = "SIGNAL_HANDLER",
    [FRAME_EXIT] = "EXIT",
    [FRAME_SYSCALLBUF_FLUSH] = "SYSCALLBUF_FLUSH",
    [FRAME_SYSCALL] = "SYSCALL",
    [FRAME_PATCH_AFTER_SYSCALL] = "PATCH_AFTER_SYSCALL",
    [FRAME_PATCH_VSYSCALL] = "PATCH_VSYSCALL",
    [FRAME_PATCH_TRAPPING_INSTRUCTION] = "PATCH_TRAPPING_INSTRUCTION",
};

const char *trace_frame_name(enum frame_kind kind)
{
    return (unsigned)kind < FRAME_KIND_COUNT ? frame_names[kind] : "?";
}

static const char *const signal_names[] = {
    [1] = "SIGHUP",     [2] = "SIGINT",   [3] = "SIGQUIT",   [4] = "SIGILL",   [5] = "SIGTRAP",
    [6] = "SIGABRT",    [7] = "SIGBUS",   [8] = "SIGFPE",    [9] = "SIGKILL",  [10] = "SIGUSR1",
    [11] = "SIGSEGV",   [12] = "SIGUSR2", [13] = "SIGPIPE",  [14] = "SIGALRM", [15] = "SIGTERM",
    [16] = "SIGSTKFLT", [17] = "SIGCHLD", [18] = "SIGCONT",  [19] = "SIGSTOP", [20] = "SIGTSTP",
    [21] = "SIGTTIN",   [22] = "SIGTTOU", [23] = "SIGURG",   [24] = "SIGXCPU", [25] = "SIGXFSZ",
    [26] = "SIGVTALRM", [27] = "SIGPROF", [28] = "SIGWINCH", [29] = "SIGIO",   [30] = "SIGPWR",
    [31] = "SIGSYS",
};

char *trace_signal_name(int signo)
{
    if (signo >= 32 && signo <= 64)
        return str_format("SIGRT%d", signo);
    if (signo > 0 && signo < 32)
        return xstrdup(signal_names[signo]);
    return str_format("signal(%d)", signo);
}

char *trace_frame_describe(const struct trace *t, const struct frame *f)
{
    const char *kind = trace_frame_name(f->kind);
    switch (f->kind) {
    case FRAME_SYSCALL: {
        const char *name = trace_syscall_name(t, f->syscall_arch, f->syscall_no);
        return name ? str_format("%s: %s", kind, name)
                    : str_format("%s: <unknown-syscall-%d>", kind, f->syscall_no);
    }
    case FRAME_SIGNAL:
    case FRAME_SIGNAL_DELIVERY:
    case FRAME_SIGNAL_HANDLER: {
        cleanup(freep) char *name = trace_signal_name((int)load_u32(f->siginfo));
        return str_format("%s: %s(%s)", kind, name, f->signal_deterministic ? "det" : "async");
    }
    case FRAME_PATCH_AFTER_SYSCALL:
    case FRAME_PATCH_VSYSCALL:
    case FRAME_PATCH_TRAPPING_INSTRUCTION:
        return xstrdup(trace_frame_name(FRAME_PATCH_SYSCALL)); // rr does not tell them apart
    default:
        return xstrdup(kind);
    }
}
