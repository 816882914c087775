/* The processes of a trace, and its header, as text. */
#include "trace/dump.h"

#include <inttypes.h>
#include <sched.h>
#include <sys/wait.h>

#include "trace/trace_int.h"

/* ---- processes */

struct process {
    int32_t pid, parent_pid, own_ns_pid;
    size_t live_tasks;
    bool leader_gone; /* its first thread exited: nothing will exec any more */
    enum { RUNNING, EXITED, DETACHED } end; /* of its last task */
    int32_t exit_status;
    const struct trace_task_event *exec; /* the first */
};

/* Live tasks and their processes: open addressing, never removed from (a tid that is used again
 * finds its old place). */
struct task_map {
    struct task_slot {
        int32_t tid;    /* 0: free */
        size_t process; /* + 1; 0: the task is gone */
    } * slots;
    size_t mask;
};

static struct task_slot *find_task(struct task_map *m, int32_t tid)
{
    size_t i = (uint32_t)tid * 2654435761u & m->mask; // Knuth's multiplicative hash
    while (m->slots[i].tid && m->slots[i].tid != tid)
        i = (i + 1) & m->mask;
    return &m->slots[i];
}

static struct process *process_of(struct task_map *m, struct process *all, int32_t tid)
{
    struct task_slot *slot = find_task(m, tid);
    return slot->process ? &all[slot->process - 1] : NULL;
}

static void add_task(struct task_map *m, struct process *all, int32_t tid, const struct process *p)
{
    *find_task(m, tid) = (struct task_slot){.tid = tid, .process = (size_t)(p - all) + 1};
}

static void follow_clone(struct task_map *m, struct process *all, size_t *count,
                         const struct trace_task_event *e)
{
    struct process *parent = process_of(m, all, e->parent_tid);
    struct process *p = parent;
    if (!(e->clone_flags & CLONE_THREAD)) {
        p = &all[(*count)++];
        *p = (struct process){.pid = e->tid,
                              .parent_pid = parent ? parent->pid : 0,
                              .own_ns_pid = e->own_ns_tid ? e->own_ns_tid : e->tid};
    }
    if (!p)
        return;
    p->live_tasks++;
    add_task(m, all, e->tid, p);
}

static void follow_end(struct task_map *m, struct process *all, const struct trace_task_event *e)
{
    struct process *p = process_of(m, all, e->tid);
    if (!p)
        return;
    if (e->tid == p->pid)
        p->leader_gone = true;
    if (--p->live_tasks == 0) {
        p->end = e->kind == TASK_DETACH ? DETACHED : EXITED;
        p->exit_status = e->exit_status;
    }
    find_task(m, e->tid)->process = 0;
}

static void print_process(const struct process *p, bool is_first, FILE *out)
{
    fprintf(out, "%d", p->pid);
    if (p->own_ns_pid != p->pid)
        fprintf(out, " (%d)", p->own_ns_pid);
    if (is_first)
        fputs("\t--\t", out);
    else
        fprintf(out, "\t%d\t", p->parent_pid);
    if (p->end != EXITED)
        fputs(p->end == DETACHED ? "detach\t" : "none\t", out);
    else if (WIFEXITED(p->exit_status))
        fprintf(out, "%d\t", WEXITSTATUS(p->exit_status));
    else
        fprintf(out, "%d\t", WIFSIGNALED(p->exit_status) ? -WTERMSIG(p->exit_status) : 0);
    if (!p->exec)
        fputs("(forked without exec)", out);
    for (size_t i = 0; p->exec && i < p->exec->argc; i++)
        fprintf(out, "%s%s", i ? " " : "", p->exec->argv[i]);
    fputc('\n', out);
}

struct err *trace_print_processes(const struct trace *t, FILE *out)
{
    if (!t->task_count || t->tasks[0].kind != TASK_EXEC)
        return err_new(ERR_FORMAT, "tasks: does not begin with an exec");
    cleanup(freep) struct process *all = xnew_array(struct process, t->task_count);
    struct task_map m = {.mask = 15};
    while (m.mask < 4 * t->task_count)
        m.mask = m.mask * 2 + 1;
    cleanup(freep) struct task_slot *slots = xnew_array(struct task_slot, m.mask + 1);
    m.slots = slots;

    size_t count = 1;
    int32_t first = t->tasks[0].tid;
    all[0] = (struct process){.pid = first, .own_ns_pid = first, .live_tasks = 1};
    add_task(&m, all, first, &all[0]);
    for (size_t i = 0; i < t->task_count; i++) {
        const struct trace_task_event *e = &t->tasks[i];
        if (e->kind == TASK_CLONE)
            follow_clone(&m, all, &count, e);
        if (e->kind == TASK_EXIT || e->kind == TASK_DETACH)
            follow_end(&m, all, e);
        struct process *p = e->kind == TASK_EXEC ? process_of(&m, all, e->tid) : NULL;
        if (p && !p->exec && !p->leader_gone)
            p->exec = e;
    }
    fputs("PID\tPPID\tEXIT\tCMD\n", out);
    for (size_t i = 0; i < count; i++)
        print_process(&all[i], i == 0, out);
    return NULL;
}

/* ---- header */

static void print_json_string(const char *s, FILE *out)
{
    fputc('"', out);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

/* Copies of the memory writes of one frame that touch the stack. */
static struct err *read_stack(struct trace_cursor *c, const struct frame *f,
                              const struct trace_mmap *stack, struct buf *out)
{
    enum { STACK_MAX = 64 << 20 };
    uint64_t len = stack->end - stack->start;
    if (len > STACK_MAX)
        return err_new(ERR_LIMIT, "the stack of the first program is too large");
    buf_zeros(out, (size_t)len);
    for (size_t i = 0; i < f->write_count; i++) {
        const struct mem_write *w = &f->writes[i];
        if (w->addr < stack->start || w->addr >= stack->end || w->size > stack->end - w->addr)
            continue;
        cleanup(buf_deinit) struct buf piece = {0};
        TRY(trace_read_write(c, w, &piece));
        if (piece.len)
            memcpy(out->data + (w->addr - stack->start), piece.data, piece.len);
    }
    return NULL;
}

/* argc, argv..., 0, envp..., 0 stand at rsp (System V psABI 3.4.1). */
static void print_environ(const struct buf *stack, gaddr base, gaddr rsp, size_t word, FILE *out)
{
    if (rsp < base || rsp - base > stack->len)
        return;
    const char *comma = "\n";
    size_t zeros = 0;
    for (size_t off = (size_t)(rsp - base) + word;
         word <= stack->len && off <= stack->len - word && zeros < 2; off += word) {
        uint64_t p = 0;
        memcpy(&p, stack->data + off, word);
        zeros += p == 0;
        if (zeros != 1 || !p || p < base || p - base >= stack->len)
            continue;
        const char *s = (const char *)stack->data + (p - base);
        if (!memchr(s, 0, stack->len - (size_t)(p - base)))
            continue;
        fprintf(out, "%s    ", comma);
        print_json_string(s, out);
        comma = ",\n";
    }
}

static struct err *print_first_environ(const struct trace *t, FILE *out)
{
    cleanup(trace_cursor_closep) struct trace_cursor *c = NULL;
    TRY(trace_cursor_open(t, &c));
    const struct frame *f;
    do
        TRY(trace_cursor_next(c, &f));
    while (f && f->event < (t->task_count ? t->tasks[0].event : 0));
    const struct trace_mmap *stack = NULL;
    for (size_t i = 0; f && f->has_regs && i < f->mmap_count && !stack; i++)
        stack = str_eq(f->mmaps[i].name, "[stack]") ? &f->mmaps[i] : NULL;
    cleanup(buf_deinit) struct buf data = {0};
    if (stack)
        TRY(read_stack(c, f, stack, &data));
    fputs("  \"environ\":[", out);
    if (stack)
        print_environ(&data, stack->start, f->regs.r[UREG_RSP], f->arch == ARCH_X86 ? 4 : 8, out);
    fputs(stack ? "\n  ]\n" : "]\n", out);
    return NULL;
}

struct err *trace_print_info(const struct trace *t, FILE *out)
{
    enum { CHAOS = 1 }; // of unknown, true, false
    const struct trace_header *h = &t->header;
    fputs("{\n  \"uuid\":[", out);
    for (size_t i = 0; i < sizeof(h->uuid); i++)
        fprintf(out, "%s%u", i ? "," : "", h->uuid[i]);
    fprintf(out, "],\n  \"xcr0\":%" PRIu64 ",\n  \"bindToCpu\":%d,\n  \"cpuidFaulting\":%s,\n",
            h->xcr0, h->bind_to_cpu, h->has_cpuid_faulting ? "true" : "false");
    fprintf(out,
            "  \"requiredForwardCompatibilityVersion\":%d,\n  \"ticksSemantics\":\"%s\",\n  "
            "\"cpuidRecords\":[\n",
            h->required_forward_compatibility_version, h->ticks_semantics ? "branches" : "rcb");
    for (size_t i = 0; i < h->cpuid_count; i++) {
        const struct cpuid_record *r = &h->cpuid[i];
        fprintf(out, "    [%u,%u,%u,%u,%u,%u]%s\n", r->eax_in, r->ecx_in, r->eax, r->ebx, r->ecx,
                r->edx, i + 1 < h->cpuid_count ? "," : "");
    }
    fputs("  ],\n", out);
    if (h->chaos_mode)
        fprintf(out, "  \"chaosMode\":%s,\n", h->chaos_mode == CHAOS ? "true" : "false");
    if (h->chaos_mode == CHAOS && h->exclusion_start != h->exclusion_end)
        fprintf(out, "  \"exclusionRange\": { \"start\": %" PRIu64 ", \"end\": %" PRIu64 " },\n",
                h->exclusion_start, h->exclusion_end);
    TRY(print_first_environ(t, out));
    fputs("}\n", out);
    return NULL;
}
