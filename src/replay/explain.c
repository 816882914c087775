/* How a replay that failed got there: a second one runs to shortly before the failure and goes on
 * by single instructions. */
#include "replay/replay_int.h"

#include "x86/x86.h"

static const char *const names[] = {
    [UREG_RAX] = "rax",         [UREG_RBX] = "rbx",       [UREG_RCX] = "rcx",
    [UREG_RDX] = "rdx",         [UREG_RSI] = "rsi",       [UREG_RDI] = "rdi",
    [UREG_RBP] = "rbp",         [UREG_RSP] = "rsp",       [UREG_R8] = "r8",
    [UREG_R9] = "r9",           [UREG_R10] = "r10",       [UREG_R11] = "r11",
    [UREG_R12] = "r12",         [UREG_R13] = "r13",       [UREG_R14] = "r14",
    [UREG_R15] = "r15",         [UREG_EFLAGS] = "eflags", [UREG_FS_BASE] = "fs_base",
    [UREG_GS_BASE] = "gs_base",
};
enum { NAME_COUNT = sizeof(names) / sizeof(names[0]) };

/* Registers which differ from `old` (NULL: all). */
static void print_regs(struct buf *out, const struct regs *regs, const struct regs *old)
{
    for (size_t i = 0; i < NAME_COUNT; i++) {
        if (names[i] && (!old || regs->r[i] != old->r[i]))
            buf_printf(out, " %s=%#llx", names[i], (unsigned long long)regs->r[i]);
    }
}

void replay_describe_place(struct replay *r, uint32_t space, gaddr addr, struct buf *out)
{
    struct space *s = space_by_uid(r, space);
    const struct mapping *m = s ? space_mapping_at(s, addr) : NULL;
    if (!m) {
        buf_printf(out, "%#llx (not mapped)", (unsigned long long)addr);
        return;
    }
    size_t count;
    const struct trace_mmap *records = trace_mmaps(r->trace, &count);
    const char *name =
        m->mmap_idx < count && *records[m->mmap_idx].name ? records[m->mmap_idx].name : "anonymous";
    buf_printf(out, "%#llx (%s+%#llx, mapped %#llx-%#llx %c%c%c)", (unsigned long long)addr, name,
               (unsigned long long)(m->offset + (addr - m->start)), (unsigned long long)m->start,
               (unsigned long long)m->end, m->prot & 1 ? 'r' : '-', m->prot & 2 ? 'w' : '-',
               m->prot & 4 ? 'x' : '-');
}

static void print_insn(struct replay *r, const struct space *s, const struct regs *regs,
                       struct buf *out)
{
    uint8_t code[X86_MAX_LEN] = {0};
    char text[200];
    size_t done = 0;
    err_free(worker_read(s->worker, regs->r[UREG_RIP], code, sizeof(code), &done));
    buf_printf(out, "%8llu  %#llx  %-40s", (unsigned long long)r->now.icount,
               (unsigned long long)regs->r[UREG_RIP],
               x86_format(code, done, regs->r[UREG_RIP], text, sizeof(text)));
}

/* Steps until `until`, or a step fails or makes no progress. */
static void print_steps(struct replay *r, uint64_t until, struct buf *out)
{
    struct task *task = task_by_serial(r, replay_running(r));
    if (!task)
        return;
    struct regs old = task->regs;
    buf_printf(out,
               "instructions of task %d after event %llu, and the registers each changed; "
               "before:\n         ",
               task->info.tid, (unsigned long long)r->now.event);
    print_regs(out, &old, NULL);
    buf_printf(out, "\n");
    while (r->now.icount < until) {
        uint64_t before = r->now.icount;
        print_insn(r, task->space, &old, out);
        struct err *e = replay_run(r, (struct moment){r->now.event, UINT64_MAX}, 1, NULL);
        print_regs(out, &task->regs, &old);
        buf_printf(out, "\n");
        old = task->regs;
        bool failed = e != NULL;
        err_free(e);
        if (failed || r->now.icount == before)
            return;
    }
    print_insn(r, task->space, &old, out);
    buf_printf(out, "<- here\nrip is at ");
    replay_describe_place(r, task->space->uid, old.r[UREG_RIP], out);
    buf_printf(out, "\n");
}

struct err *replay_explain(const struct replay *failed, uint64_t count, struct buf *out)
{
    cleanup(replay_closep) struct replay *r = NULL;
    uint64_t end = failed->now.icount;
    TRY(replay_open(failed->trace, &r));
    TRY(replay_run(r, (struct moment){failed->now.event, end > count ? end - count : 0}, UINT64_MAX,
                   NULL));
    print_steps(r, end, out);
    return NULL;
}
