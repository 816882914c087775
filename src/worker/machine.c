#include "worker/machine.h"

#include "worker/consume.h"
#include "worker/freestanding.h"
#include "worker/hooks.h"
#include "worker/steps.h"

static struct worker_cpuid table[WORKER_MAX_CPUID];
static uint64_t table_count;
static uint64_t clock_stamp, clock_base;

void machine_set_cpuid(const struct worker_cpuid *given, uint64_t count)
{
    table_count = count < WORKER_MAX_CPUID ? count : WORKER_MAX_CPUID;
    memcpy(table, given, table_count * sizeof(table[0]));
}

static void set_clock(uint64_t stamp, uint64_t icount_base)
{
    consume_clock(stamp, icount_base);
    hooks_clock(stamp, icount_base);
    steps_clock(stamp, icount_base);
}

void machine_clock(uint64_t stamp, uint64_t icount_base)
{
    clock_stamp = stamp;
    clock_base = icount_base;
    set_clock(stamp, icount_base);
}

/* As trace_cpuid(): zeros where no record matches. */
static void answer(struct regs *regs)
{
    uint64_t *reg = regs->r;
    struct worker_cpuid found = {0};
    for (uint64_t i = table_count; i--;) {
        if (table[i].eax_in == (uint32_t)reg[UREG_RAX] &&
            (table[i].ecx_in == UINT32_MAX || table[i].ecx_in == (uint32_t)reg[UREG_RCX]))
            found = table[i];
    }
    reg[UREG_RAX] = found.eax;
    reg[UREG_RBX] = found.ebx;
    reg[UREG_RCX] = found.ecx;
    reg[UREG_RDX] = found.edx;
}

void machine_run(struct engine_task *task, uint32_t slot, const struct engine_request *q,
                 struct engine_result *out)
{
    struct engine_request rest = *q;
    uint64_t icount = 0, ticks = 0;
    for (;;) {
        steps_run(task, slot, &rest, out);
        icount += out->icount;
        ticks += out->ticks;
        // At the limit an instruction that is answered here would be one too many.
        if (out->reason != STOP_TRAP || out->trap != TRAP_CPUID || !q->answer_cpuid ||
            !table_count || icount >= q->max_icount)
            break;
        answer(&task->regs);
        task->regs.r[UREG_RIP] += out->insn_len;
        icount++;
        if (q->max_icount != UINT64_MAX)
            rest.max_icount = q->max_icount - icount;
        rest.stop_ticks = q->stop_ticks - ticks;
        set_clock(clock_stamp, clock_base + icount);
    }
    out->icount = icount;
    out->ticks = ticks;
}
