/* segments TRACE - LAR, VERR and VERW in a replayed task: of the kernel's segments they are
 * answered, of descriptors that the program makes itself (modify_ldt, set_thread_area) they are
 * not, as those are not in a recording. */
#include "replay/replay_int.h"

#include <stdio.h>
#include <string.h>

enum { USER_DS = 0x2b, USER_CS = 0x33, KERNEL_CS = 0x10, LOCAL = 0x07, TLS = 0x63, FLAG_ZF = 0x40 };
enum { NO, YES, REFUSED };
static const struct {
    const char *code; /* of 3 bytes; the selector is in CX, or where RDI points to */
    uint8_t trap;
    uint16_t selector;
    uint8_t want; /* ZF, or REFUSED */
} cases[] = {
    {"\x0f\x02\xc1", TRAP_LAR, 0, NO},           {"\x0f\x02\xc1", TRAP_LAR, KERNEL_CS, NO},
    {"\x0f\x02\xc1", TRAP_LAR, USER_CS, YES},    {"\x0f\x02\xc1", TRAP_LAR, LOCAL, REFUSED},
    {"\x0f\x02\xc1", TRAP_LAR, TLS, REFUSED},    {"\x0f\x02\x07", TRAP_LAR, USER_DS, YES},
    {"\x0f\x00\xe1", TRAP_VERR, USER_DS, YES},   {"\x0f\x00\xe1", TRAP_VERR, KERNEL_CS, NO},
    {"\x0f\x00\xe1", TRAP_VERR, LOCAL, REFUSED}, {"\x0f\x00\x27", TRAP_VERR, USER_CS, YES},
    {"\x0f\x00\xe9", TRAP_VERW, USER_DS, YES},   {"\x0f\x00\xe9", TRAP_VERW, USER_CS, NO},
    {"\x0f\x00\xe9", TRAP_VERW, TLS, REFUSED},
};

static struct err *run(const char *dir, bool *good)
{
    cleanup(trace_closep) struct trace *t = NULL;
    cleanup(replay_closep) struct replay *r = NULL;
    TRY(trace_open(dir, &t));
    TRY(replay_open(t, &r));
    TRY(replay_run(r, MOMENT_END, 10, NULL));
    struct task *task = r->tasks.items[0];
    const struct regs regs = task->regs;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct engine_result stop = {
            .reason = STOP_TRAP, .trap = cases[i].trap, .insn_len = 3};
        bool answered;
        task->regs = regs;
        task->regs.r[UREG_RCX] = 0xabcd0000 | cases[i].selector;
        task->regs.r[UREG_RDI] = regs.r[UREG_RSP] - 8;
        task->regs.r[UREG_EFLAGS] = cases[i].want == NO ? regs.r[UREG_EFLAGS] | FLAG_ZF
                                                        : regs.r[UREG_EFLAGS] & ~(uint64_t)FLAG_ZF;
        TRY(worker_write(task->space->worker, regs.r[UREG_RIP], cases[i].code, 3));
        TRY(worker_write(task->space->worker, regs.r[UREG_RSP] - 8, &cases[i].selector, 2));
        TRY(answer_trap(r, task, &stop, &answered));
        unsigned got = !answered ? REFUSED : task->regs.r[UREG_EFLAGS] & FLAG_ZF ? YES : NO;
        bool sets = cases[i].trap == TRAP_LAR && got == YES;
        bool fine = got == cases[i].want && sets == (task->regs.r[UREG_RAX] != regs.r[UREG_RAX]) &&
                    task->regs.r[UREG_RIP] == regs.r[UREG_RIP] + (answered ? 3 : 0);
        printf("case %zu, selector %#x: %u%s\n", i, cases[i].selector, got,
               fine ? "" : ", which is wrong");
        *good &= fine;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: segments TRACE\n", stderr);
        return 2;
    }
    bool good = true;
    struct err *e = run(argv[1], &good);
    if (e)
        puts(err_message(e));
    good &= !e;
    err_free(e);
    return !good;
}
