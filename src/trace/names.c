#include "trace/trace_int.h"

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

const char *trace_syscall_name(const struct trace *t, enum trace_arch arch, int32_t number)
{
    return NULL;
}
