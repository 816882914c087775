/* Reads served from the trace's own files. Where the recording lay on a file system that clones
 * ranges (FICLONERANGE), the preload library keeps what large reads returned not in its buffer but
 * in a file of the trace, cloned_data_TID_SERIAL, one per task; the data of its reads follow each
 * other there (rr syscallbuf.c:sys_read). In replay the library makes these calls, of which only
 * replay knows: dup3(cloned, fd), then read(fd) as any buffered call, then close(fd). */
#include "replay/replay_int.h"

#include <fcntl.h>
#include <sys/syscall.h>

enum { ARGS_CLONED_FD = 4 }; /* in struct rrcall_init_buffers_params */

struct err *cloned_init(struct task *task, gaddr args)
{
    uint8_t fd[4];
    TRY(space_read(task->space, args + ARGS_CLONED_FD, fd, sizeof(fd)));
    task->cloned_fd = (int32_t)load_u32(fd);
    task->cloned_twin = -1;
    task->cloned_offset = 0;
    return NULL;
}

void cloned_replay_only_call(struct task *task)
{
    const uint64_t *reg = task->regs.r;
    if (reg[UREG_RAX] == SYS_dup3 && task->cloned_fd >= 0 &&
        (int32_t)reg[UREG_RDI] == task->cloned_fd)
        task->cloned_twin = (int32_t)reg[UREG_RSI];
    else if (reg[UREG_RAX] == SYS_close && (int32_t)reg[UREG_RDI] == task->cloned_twin)
        task->cloned_twin = -1;
}

struct err *cloned_read(struct replay *r, struct task *task, int64_t result)
{
    const uint64_t *reg = task->regs.r;
    uint64_t len = result < 0                         ? 0
                   : (uint64_t)result < reg[UREG_RDX] ? (uint64_t)result
                                                      : reg[UREG_RDX];
    if ((int32_t)reg[UREG_RDI] != task->cloned_twin || task->cloned_twin < 0)
        return err_new(ERR_FORMAT, "an untraced read of a file that is not the trace's");
    cleanup(freep) char *path = str_format("%s/cloned_data_%d_%u", trace_dir(r->trace),
                                           task->info.tid, task->recorder_serial);
    cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_os("cannot open %s", path);
    for (uint64_t done = 0; done < len;) {
        uint8_t piece[1 << 14];
        size_t want = len - done < sizeof(piece) ? (size_t)(len - done) : sizeof(piece);
        ssize_t n = pread(fd, piece, want, (off_t)(task->cloned_offset + done));
        if (n < 0)
            return err_os("cannot read %s", path);
        if (n == 0)
            return err_new(ERR_FORMAT, "%s: ends at %#llx, within a recorded read", path,
                           (unsigned long long)(task->cloned_offset + done));
        TRY(space_write(r, task->space, reg[UREG_RSI] + done, piece, (size_t)n));
        done += (size_t)n;
    }
    task->cloned_offset += reg[UREG_RDX]; // as much as was cloned, whatever was read
    return NULL;
}

void cloned_traced_read(struct task *task, const struct regs *regs)
{
    if (task->cloned_twin < 0 || (int32_t)regs->r[UREG_RDI] != task->cloned_twin ||
        (int64_t)regs->r[UREG_RAX] < 0)
        return;
    task->cloned_offset += regs->r[UREG_RAX];
    task->cloned_twin = -1;
}
