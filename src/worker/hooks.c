/* Hooks: at chosen code addresses programs are run, a row of registers, memory and what the
 * programs gave is kept, and the run goes on. All of that happens within one engine_run(): the
 * engine asks at each break address (engine_set_judge()). */
#include "worker/hooks.h"

#include "worker/calls.h"
#include "worker/consume.h"
#include "worker/rows.h"
#include "worker/snapshot.h"
#include "worker/vectors.h"

enum { MAX_HOOKS = 2048, MAX_BREAKS = 64, MAX_MEMORY = 32, MAX_PROGRAMS = 1 << 17 };

struct hook {
    uint64_t pc;
    const struct program *programs; /* condition, then prints; NULL: none */
    bool entry;                     /* of a function */
};
static struct hook hooks[MAX_HOOKS]; /* by pc */
static uint64_t break_pcs[MAX_BREAKS];
static size_t hook_count, break_count;
static bool breaks_armed, break_if_rax;
static uint64_t break_rax;
static struct hook_memory hook_memory[MAX_MEMORY];
static uint64_t print_lens[HOOK_MAX_PRINTS];
static uint64_t memory_count, print_count, hook_rows, max_rows;
static bool keep_regs, keep_last, count_only;
static bool knows_calls;   /* of the run */
static uint8_t *selection; /* what hooks_select() was given: operations and data are in there */
static struct program *programs;
static uint64_t clock_stamp, clock_base;
static uint64_t stopped_at_stamp = UINT64_MAX,
                stopped_at_icount; /* the last hit, of the hooks that are set */
static struct hook_counts counts;
static struct rows rows;

void hooks_init(void)
{
    rows_init(&rows);
    selection = engine_host_alloc(WINDOW_LEN);
    programs = engine_host_alloc(MAX_PROGRAMS * sizeof(programs[0]));
}

void hooks_clock(uint64_t stamp, uint64_t icount_base)
{
    clock_stamp = stamp;
    clock_base = icount_base;
}

static uint64_t row_len(void)
{
    uint64_t len = sizeof(struct hook_row);
    for (uint64_t i = 0; i < memory_count; i++)
        len += (hook_memory[i].len + 7u) & ~7u;
    for (uint64_t i = 0; i < print_count; i++)
        len += sizeof(struct hook_print) + print_lens[i];
    return len;
}

static void set_all_breaks(void)
{
    static uint64_t all[MAX_HOOKS + MAX_BREAKS];
    size_t n = 0;
    for (size_t i = 0; i < hook_count; i++)
        all[n++] = hooks[i].pc;
    for (size_t i = 0; i < break_count; i++)
        all[n++] = break_pcs[i];
    engine_set_breaks(all, n);
}

/* Addresses that are given up stay with the engine until there are others: as a rule they come
 * again, and a change costs translations. */
void hooks_set_breaks(const uint64_t *pcs, uint64_t count, const uint64_t *rax)
{
    breaks_armed = count != 0;
    break_if_rax = rax != NULL;
    break_rax = rax ? *rax : 0;
    if (!count ||
        (count == break_count && __builtin_memcmp(pcs, break_pcs, count * sizeof(pcs[0])) == 0))
        return;
    break_count = count < MAX_BREAKS ? count : MAX_BREAKS;
    for (size_t i = 0; i < break_count; i++)
        break_pcs[i] = pcs[i];
    set_all_breaks();
}

/* --- what is asked for --- */

/* The next `len` bytes of the selection; NULL: there are not that many. */
static const void *take_selected(uint64_t *at, uint64_t end, uint64_t len)
{
    if (len > end - *at)
        return NULL;
    const void *taken = selection + *at;
    *at += (len + 7) & ~7ull;
    return taken;
}

static bool take_program(uint64_t *at, uint64_t end, uint64_t most_out, struct program *out)
{
    const struct wire_program *p = take_selected(at, end, sizeof(*p));
    if (!p)
        return false;
    *out = (struct program){.count = p->op_count, .data_len = p->data_len, .out_len = p->out_len};
    out->ops = take_selected(at, end, out->count * sizeof(out->ops[0]));
    out->data = out->ops ? take_selected(at, end, out->data_len) : NULL;
    return out->data && out->out_len <= most_out && (!out->count || !program_check(out));
}

/* Sorted, as they mostly are already. */
static void add_hook(struct hook h)
{
    size_t at = hook_count++;
    for (; at && hooks[at - 1].pc > h.pc; at--)
        hooks[at] = hooks[at - 1];
    hooks[at] = h;
}

static bool take_selection(const struct wire_command *c)
{
    uint64_t at = 0, end = c->len, each = 1 + c->hooks.print_count;
    uint64_t pc_count = c->hooks.pc_count;
    if (end > WINDOW_LEN || pc_count > MAX_HOOKS || c->hooks.memory_count > MAX_MEMORY ||
        c->hooks.print_count > HOOK_MAX_PRINTS ||
        c->hooks.programs_count > MAX_PROGRAMS / (HOOK_MAX_PRINTS + 1))
        return false;
    const uint64_t *pcs = take_selected(&at, end, pc_count * sizeof(*pcs));
    const uint64_t *programs_of =
        pcs ? take_selected(&at, end, pc_count * sizeof(*programs_of)) : NULL;
    const void *memory =
        programs_of ? take_selected(&at, end, c->hooks.memory_count * sizeof(hook_memory[0]))
                    : NULL;
    const void *lens =
        memory ? take_selected(&at, end, c->hooks.print_count * sizeof(print_lens[0])) : NULL;
    if (!lens)
        return false;
    memory_count = c->hooks.memory_count;
    print_count = c->hooks.print_count;
    __builtin_memcpy(hook_memory, memory, memory_count * sizeof(hook_memory[0]));
    __builtin_memcpy(print_lens, lens, print_count * sizeof(print_lens[0]));
    for (uint64_t i = 0; i < c->hooks.programs_count * each; i++) {
        if (!take_program(&at, end, i % each ? print_lens[i % each - 1] : 0, &programs[i]))
            return false;
    }
    for (uint64_t i = 0; i < pc_count; i++) {
        if (programs_of[i] != WIRE_NO_PROGRAMS && programs_of[i] >= c->hooks.programs_count)
            return false;
        add_hook((struct hook){
            pcs[i], programs_of[i] == WIRE_NO_PROGRAMS ? NULL : &programs[programs_of[i] * each],
            i < c->hooks.entry_count});
    }
    return true;
}

bool hooks_select(const struct wire_command *c, const uint8_t *window)
{
    bool had = hook_count;
    hook_count = memory_count = print_count = 0;
    __builtin_memcpy(selection, window, c->len < WINDOW_LEN ? c->len : WINDOW_LEN);
    bool ok = take_selection(c);
    if (!ok)
        hook_count = 0;
    max_rows = c->hooks.max_rows;
    keep_last = c->hooks.keep_last;
    keep_regs = c->hooks.regs;
    count_only = c->hooks.count_only;
    hook_rows = 0;
    if (!hook_count)
        stopped_at_stamp = UINT64_MAX;
    if (!c->hooks.keep_rows) {
        rows_clear(&rows);
        counts = (struct hook_counts){0};
    } else if (rows.len)
        hook_rows = 1;
    if (had || hook_count)
        set_all_breaks();
    return ok;
}

static const struct hook *find_hook(uint64_t pc)
{
    size_t low = 0, high = hook_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (hooks[middle].pc < pc)
            low = middle + 1;
        else
            high = middle;
    }
    return low < hook_count && hooks[low].pc == pc ? &hooks[low] : NULL;
}

bool hooks_is_break(const struct regs *regs)
{
    if (!breaks_armed || (break_if_rax && regs->r[UREG_RAX] != break_rax))
        return false;
    for (size_t i = 0; i < break_count; i++) {
        if (break_pcs[i] == regs->r[UREG_RIP])
            return true;
    }
    return false;
}

/* --- running programs --- */

/* Only what the recording has mapped: this process has memory of its own. Protection is no
 * obstacle. */
static bool read_memory(void *ctx, uint64_t addr, void *out, size_t len)
{
    uint64_t last = addr + len - 1;
    if (!len)
        return true;
    if (last < addr || engine_host_prot(addr) < 0 || engine_host_prot(last) < 0)
        return false;
    bool is_number = len == 1 || len == 2 || len == 4 || len == 8;
    if (is_number ? engine_load_from_guest(out, addr, len)
                  : engine_copy_from_guest(out, addr, len) == len)
        return true;
    return snapshot_host_copy(addr, out, len, false) == len;
}

/* Between two blocks the recorded program's vectors are in the CPU. */
static bool read_vector(void *ctx, unsigned number, unsigned off, void *out, size_t len)
{
    static uint8_t image[XSTATE_MAX] __attribute__((aligned(64)));
    uint8_t vector[VECTOR_LEN];
    if (number >= VECTOR_COUNT || off + len > VECTOR_LEN)
        return false;
    if (number < 16 && off + len <= 16) {
        vector_low(number, vector);
    } else {
        engine_save_vectors(image);
        vector_of_image(image, number, vector);
    }
    __builtin_memcpy(out, vector + off, len);
    return true;
}

static enum program_end run_program(const struct program *p, const struct engine_task *task,
                                    uint8_t *out, uint64_t *result)
{
    const struct program_host host = {
        .regs = &task->regs, .read_memory = read_memory, .read_vector = read_vector};
    *result = 0;
    return program_run(p, &host, out, result);
}

/* --- hits --- */

static uint8_t *add_memory(struct hook_row *row, const struct regs *regs, uint8_t *to)
{
    for (uint64_t i = 0; i < memory_count; i++) {
        const struct hook_memory *m = &hook_memory[i];
        uint64_t addr = (m->base < UREG_COUNT ? regs->r[m->base] : 0) + (uint64_t)m->offset;
        uint64_t pointer;
        bool ok = true;
        if (m->deref) {
            ok = read_memory(NULL, addr, &pointer, sizeof(pointer));
            addr = pointer + (uint64_t)m->offset2;
        }
        uint64_t room = (m->len + 7u) & ~7u;
        __builtin_memset(to, 0, room);
        if (!ok || !read_memory(NULL, addr, to, m->len))
            row->unreadable |= 1ull << (i & 63);
        to += room;
    }
    return to;
}

static void add_prints(const struct engine_task *task, const struct hook *hook, uint8_t *to)
{
    for (uint64_t i = 0; i < print_count; i++) {
        struct hook_print *p = (struct hook_print *)(void *)to;
        *p = (struct hook_print){.end = PROGRAM_UNKNOWN};
        __builtin_memset(p + 1, 0, print_lens[i]);
        if (hook->programs && hook->programs[1 + i].count)
            p->end = run_program(&hook->programs[1 + i], task, (uint8_t *)(p + 1), &p->result);
        to += sizeof(*p) + print_lens[i];
    }
}

static void add_calls(const struct engine_task *task, struct hook_row *row)
{
    uint64_t sp = task->regs.r[UREG_RSP];
    const struct call_entry *entered = knows_calls ? calls_last(task->calls, sp) : NULL,
                            *returned = knows_calls ? calls_over(task->calls, sp - 8) : NULL;
    row->entered.stamp = entered ? entered->stamp : 0;
    row->entered.icount = entered ? entered->time : 0;
    row->returned.stamp = returned ? returned->stamp : 0;
    row->returned.icount = returned ? returned->time : 0;
}

/* At a function's entry: is there no hook at its return address? */
static bool returns_unseen(const struct engine_task *task)
{
    uint64_t return_addr;
    return read_memory(NULL, task->regs.r[UREG_RSP], &return_addr, sizeof(return_addr)) &&
           !find_hook(return_addr);
}

/* What to do about a hit, `icount` behind the stamp. The length of rows depends on the selection
 * only, so they can be dropped from the front. False: stop. */
static bool hit(const struct engine_task *task, uint32_t slot, uint64_t icount,
                const struct hook *hook)
{
    uint64_t size = row_len(), result = 0;
    enum program_end end = PROGRAM_OK;
    if (!count_only && rows.len + size > ROWS_LEN && !(max_rows && keep_last)) {
        stopped_at_stamp = UINT64_MAX; // the next run begins with it
        return false;
    }
    counts.hits++;
    if (hook->programs && hook->programs->count) {
        end = run_program(hook->programs, task, NULL, &result);
        if (end == PROGRAM_OK && !result)
            return true;
    }
    *(end == PROGRAM_OK ? &counts.held : &counts.failed) += 1;
    if (count_only)
        return true;
    if (max_rows && keep_last)
        rows_keep_last(&rows, max_rows, size);
    if (rows.len + size > ROWS_LEN)
        return false;
    struct hook_row *row = (struct hook_row *)(void *)(rows.data + rows.len);
    row->stamp = clock_stamp;
    row->icount = icount;
    row->slot = slot;
    row->data_len = (uint32_t)(size - sizeof(*row));
    row->unreadable = 0;
    row->condition = end;
    row->condition_result = end == PROGRAM_OK ? 0 : result;
    if (keep_regs)
        row->regs = task->regs;
    else {
        row->regs.r[UREG_RIP] = task->regs.r[UREG_RIP];
        row->regs.r[UREG_RSP] = task->regs.r[UREG_RSP];
    }
    add_calls(task, row);
    add_prints(task, hook, add_memory(row, &task->regs, (uint8_t *)(row + 1)));
    rows.len += size;
    hook_rows++;
    return (!max_rows || keep_last || hook_rows < max_rows) &&
           !(hook->entry && returns_unseen(task));
}

struct hooked_run {
    uint32_t slot;
    bool enough;
};

/* The engine is at a break address: a hook's, or one to stop at, or both. */
static bool at_break(void *ctx, const struct engine_task *task, uint64_t icount)
{
    struct hooked_run *run = ctx;
    uint64_t pc = task->regs.r[UREG_RIP], now = clock_base + icount;
    const struct hook *hook = find_hook(pc);
    run->enough = false;
    // A run that begins at a hook has not hit it yet, unless another one stopped there.
    if (hook && (icount || stopped_at_stamp != clock_stamp || stopped_at_icount != now)) {
        stopped_at_stamp = clock_stamp;
        stopped_at_icount = now;
        run->enough = !hit(task, run->slot, now, hook);
    }
    if (icount && hooks_is_break(&task->regs)) {
        run->enough = false;
        return true;
    }
    return run->enough;
}

void hooks_run(struct engine_task *task, uint32_t slot, const struct engine_request *q,
               struct engine_result *out)
{
    struct hooked_run run = {.slot = slot};
    struct engine_request request = *q;
    request.stamp = clock_stamp;
    request.icount_base = clock_base;
    request.judge_start = true;
    knows_calls = engine_keeps_calls(q->mode);
    engine_set_judge(at_break, &run);
    consume_begin(slot, 0);
    engine_run(task, &request, out);
    consume_end(task);
    engine_set_judge(NULL, NULL);
    if (out->reason == STOP_BREAK && run.enough)
        out->reason = STOP_CONSUMER;
}

uint64_t hooks_take(uint8_t *window, uint64_t len, uint64_t *left_out)
{
    // Of rows of which only the last are kept there may be more than were asked for.
    uint64_t most = keep_last && max_rows ? max_rows * row_len() : UINT64_MAX;
    if (rows.taken == 0 && rows.len > most)
        rows.taken = rows.len - most;
    return rows_take(&rows, window, len, left_out);
}

uint64_t hooks_take_counts(uint8_t *window, uint64_t *left_out)
{
    __builtin_memcpy(window, &counts, sizeof(counts));
    *left_out = 0;
    return sizeof(counts);
}
