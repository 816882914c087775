/* The run loop: finds or makes translations, enters them, and deals with every way out.
 *
 *      engine_run -> next_block -> enter stub -> [translated code, chained] -> leave stub -> handle_exit -> ...
 *                                                     |  a signal: on_signal -> landing stub -> handle_fault
 *
 * Exactness. Counted blocks may trash flags that are dead at their start, so a state with exact flags is only known at
 * their end. The last CAREFUL instructions before any limit are therefore run by exact blocks: cut translations without a
 * count, one at a time. */
#include "worker/engine_int.h"

#include "worker/emit.h"
#include "worker/syscalls.h"

enum { MAX_BLOCKS = 1 << 20, MAX_EXITS = 1 << 22, MAX_STORES = 1 << 22, HASH_SIZE = 1 << 16, EXACT_SIZE = 1 << 12,
       PAGE_HASH = 1 << 15, MAX_CACHES = 64, MAX_BREAKS = 4096 };
enum { CACHE_LEN = 16 << 20, COLD_PART = 5 << 20, STUB_ROOM = 64 };
enum { CAREFUL = 2 * MAX_BLOCK_INSNS };
#define REACH 0x78000000ull

struct cache {
    uint8_t *start, *hot, *hot_end, *cold, *cold_end;
    uint32_t *blocks; /* by rising host address */
    uint32_t block_count, block_cap;
};

/* A page of guest memory that holds translated code. */
struct code_page {
    uint64_t page;        /* 0: free */
    uint32_t first_block; /* chain, index + 1 */
    bool withheld;        /* the guest may write it, but PROT_WRITE is taken from it */
};

/* What the signal handler saw. */
struct fault {
    bool happened;
    int signo, code;
    uint64_t address, host_pc;
    uint64_t regs[16];
    uint64_t rflags;
};

static struct engine_layout layout;
static struct engine_state *state;
static struct indirect_table *tables[2];
static uint8_t *enter_stub[2], *leave_stub[2], *landing_stub;
static struct cache caches[MAX_CACHES];
static unsigned cache_count;
static struct block *blocks;
static uint32_t block_count;
static struct exit_record *exits;
static uint32_t exit_count;
static struct store_desc *stores;
static uint32_t store_count;
static uint32_t *hash[2];  /* chains of blocks by pc, index + 1 */
static uint32_t *exact[2]; /* direct-mapped exact blocks, index + 1 */
static struct code_page *pages;
static unsigned page_count;
static uint64_t breaks[MAX_BREAKS];
static size_t break_count;
static volatile struct fault fault;
static struct engine_task *loaded; /* whose vector state is in the CPU */
static uint8_t saved_vectors[XSTATE_MAX] __attribute__((aligned(64)));
static uint8_t fresh_vectors[XSTATE_MAX] __attribute__((aligned(64)));
static log_consumer *consumer;
static void *consumer_ctx;
static uint64_t log_icount; /* instructions of this run before the first record in the log */
static bool consumer_stops;
static struct engine_stats stats;

static void save_vectors(void *area)
{
    // The header's reserved bytes must be zero for xrstor; xsave writes XSTATE_BV only.
    __asm__ volatile("xsave64 (%0)" ::"r"(area), "a"(-1), "d"(-1) : "memory");
}

static void load_vectors(const void *area)
{
    __asm__ volatile("xrstor64 (%0)" ::"r"(area), "a"(-1), "d"(-1) : "memory");
}

/* --- stubs --- */

static void emit_pops_and_ret(struct emitter *e)
{
    // cld; pop r15, r14, r13, r12, rbp, rbx; ret
    emit_bytes(e, (const uint8_t[]){0xfc, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3}, 12);
}

static void make_stubs(uint8_t *at, uint8_t *end)
{
    struct emitter e = {.at = at, .limit = end};
    for (int mode = ENGINE_COUNT; mode <= ENGINE_LOG; mode++) {
        enter_stub[mode] = e.at;
        // push rbx, rbp, r12..r15
        emit_bytes(&e, (const uint8_t[]){0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57}, 10);
        emit_store(&e, &state->host_rsp, RSP);
        emit_bytes(&e, (const uint8_t[]){0xff, 0x34, 0x25}, 3); // push [rflags]; popfq
        emit32(&e, (uint32_t)(uintptr_t)&state->rflags);
        emit8(&e, 0x9d);
        for (unsigned reg = RAX; reg <= R15; reg++) {
            if (reg == RSP)
                continue;
            const void *from = &state->regs[reg];
            if (reg == R15)
                from = &state->counter;
            else if (reg == R14 && mode == ENGINE_LOG)
                from = &state->log_pos;
            emit_load(&e, reg, from);
        }
        emit_load(&e, RSP, &state->regs[RSP]);
        emit_jmp_abs(&e, &state->resume);

        leave_stub[mode] = e.at;
        for (unsigned reg = RAX; reg <= R15; reg++) {
            const void *to = &state->regs[reg];
            if (reg == R15)
                to = &state->counter;
            else if (reg == R14 && mode == ENGINE_LOG)
                to = &state->log_pos;
            emit_store(&e, to, reg);
        }
        emit_load(&e, RSP, &state->host_rsp);
        emit_bytes(&e, (const uint8_t[]){0x9c, 0x8f, 0x04, 0x25}, 4); // pushfq; pop [rflags]
        emit32(&e, (uint32_t)(uintptr_t)&state->rflags);
        emit_pops_and_ret(&e);
    }
    landing_stub = e.at; // RSP is set by on_signal()
    emit_pops_and_ret(&e);
    if (e.full)
        engine_host_fatal("no room for the engine's stubs");
}

/* --- code pages --- */

static struct code_page *find_page(uint64_t page, bool make)
{
    uint64_t i = (page >> 12) * 0x9e3779b97f4a7c15ull >> 49;
    for (;; i = (i + 1) % PAGE_HASH) {
        if (pages[i].page == page)
            return &pages[i];
        if (!pages[i].page) {
            if (!make)
                return NULL;
            page_count++;
            pages[i].page = page;
            return &pages[i];
        }
    }
}

/* --- dropping translations --- */

static void unlink_hash(struct block *b, uint32_t idx)
{
    uint32_t *at = &hash[b->mode][(b->info.pc * 0x9e3779b97f4a7c15ull) >> 48];
    while (*at && *at != idx + 1)
        at = &blocks[*at - 1].next_hash;
    if (*at)
        *at = b->next_hash;
}

static void kill_block(uint32_t idx)
{
    struct block *b = &blocks[idx];
    if (b->dead)
        return;
    b->dead = true;
    if (b->exact)
        return;
    unlink_hash(b, idx);
    struct indirect_table *t = tables[b->mode];
    if (t->negated[b->info.pc & 0xffff] == -b->info.pc)
        t->negated[b->info.pc & 0xffff] = (b->info.pc & 0xffff) == 0;
    // Whoever still jumps here leaves by the stale exit.
    b->entry[0] = 0xe9;
    patch_rel32(b->entry + 1, b->cold);
}

static void kill_page(struct code_page *p)
{
    uint32_t next = p->first_block;
    while (next) {
        struct block *b = &blocks[next - 1];
        uint32_t idx = next - 1;
        next = b->next_in_page[(b->info.pc & ~(uint64_t)(PAGE_SIZE - 1)) == p->page ? 0 : 1];
        kill_block(idx);
    }
    p->first_block = 0;
}

static void release_page(struct code_page *p)
{
    kill_page(p);
    if (p->withheld) {
        p->withheld = false;
        int prot = engine_host_prot(p->page);
        if (prot >= 0)
            sys_mprotect(p->page, PAGE_SIZE, prot);
    }
}

static void flush_all(void)
{
    engine_host_before_flush();
    stats.flushes++;
    for (unsigned i = 0; i < PAGE_HASH; i++) {
        if (pages[i].page)
            release_page(&pages[i]);
        pages[i] = (struct code_page){0};
    }
    page_count = 0;
    for (int mode = 0; mode < 2; mode++) {
        for (unsigned i = 0; i < HASH_SIZE; i++) {
            hash[mode][i] = 0;
            tables[mode]->negated[i] = i == 0;
        }
        for (unsigned i = 0; i < EXACT_SIZE; i++)
            exact[mode][i] = 0;
    }
    for (unsigned i = 0; i < cache_count; i++) {
        struct cache *c = &caches[i];
        c->hot = c->start;
        c->cold = c->hot_end;
        c->block_count = 0;
    }
    block_count = 0;
    exit_count = 0;
    store_count = 0;
}

void engine_memory_changed(uint64_t start, uint64_t len)
{
    uint64_t first = start & ~(uint64_t)(PAGE_SIZE - 1), end = start + len;
    if (!page_count || end <= start)
        return;
    if ((end - first) / PAGE_SIZE > PAGE_HASH) {
        for (unsigned i = 0; i < PAGE_HASH; i++) {
            if (pages[i].page >= first && pages[i].page < end && pages[i].page)
                kill_page(&pages[i]);
        }
        return;
    }
    for (uint64_t page = first; page < end; page += PAGE_SIZE) {
        struct code_page *p = find_page(page, false);
        if (p)
            kill_page(p);
    }
}

int engine_filter_prot(uint64_t start, uint64_t len, int prot)
{
    // Translations go; with them the reason to withhold anything.
    uint64_t first = start & ~(uint64_t)(PAGE_SIZE - 1), end = start + len;
    if (!page_count || end <= start)
        return prot;
    if ((end - first) / PAGE_SIZE > PAGE_HASH) {
        for (unsigned i = 0; i < PAGE_HASH; i++) {
            if (pages[i].page && pages[i].page >= first && pages[i].page < end) {
                kill_page(&pages[i]);
                pages[i].withheld = false;
            }
        }
        return prot;
    }
    for (uint64_t page = first; page < end; page += PAGE_SIZE) {
        struct code_page *p = find_page(page, false);
        if (p) {
            kill_page(p);
            p->withheld = false;
        }
    }
    return prot;
}

/* --- making translations --- */

static bool carve(struct cache *c, uint64_t pc, bool near)
{
    for (size_t i = 0; i < layout.cache_area_count; i++) {
        struct addr_range *a = &layout.cache_areas[i];
        if (a->end - a->start < CACHE_LEN)
            continue;
        // The end of the hole that is closer to the code.
        uint64_t at = a->start >= pc ? a->start : a->end - CACHE_LEN;
        uint64_t distance = at > pc ? at - pc : pc - at;
        if (near && distance > REACH)
            continue;
        if (at == a->start)
            a->start += CACHE_LEN;
        else
            a->end -= CACHE_LEN;
        if (sys_mmap(at, CACHE_LEN, 7, 0x4032, -1, 0) != at) // private, anonymous, fixed, no reserve
            engine_host_fatal("cannot map a code cache");
        c->start = c->hot = (uint8_t *)(uintptr_t)at;
        c->hot_end = c->cold = c->start + CACHE_LEN - COLD_PART;
        c->cold_end = c->start + CACHE_LEN;
        c->block_cap = CACHE_LEN / 64;
        c->blocks = engine_host_alloc(c->block_cap * sizeof(c->blocks[0]));
        return true;
    }
    return false;
}

static struct cache *cache_for(uint64_t pc)
{
    for (unsigned i = 0; i < cache_count; i++) {
        uint64_t at = (uint64_t)(uintptr_t)caches[i].start;
        if ((at > pc ? at - pc : pc - at) < REACH)
            return &caches[i];
    }
    if (cache_count < MAX_CACHES && (carve(&caches[cache_count], pc, true) || carve(&caches[cache_count], pc, false)))
        return &caches[cache_count++];
    if (!cache_count)
        engine_host_fatal("no address space for a code cache");
    return &caches[0];
}

static struct cache *cache_of_host(uint64_t host)
{
    for (unsigned i = 0; i < cache_count; i++) {
        if (host >= (uint64_t)(uintptr_t)caches[i].start && host < (uint64_t)(uintptr_t)caches[i].cold_end)
            return &caches[i];
    }
    return NULL;
}

static struct translation work;

/* Zydis uses vector registers. */
static void translate_bracketed(struct translation *t)
{
    save_vectors(saved_vectors);
    translate_block(t);
    load_vectors(saved_vectors);
}

static void watch_page(uint64_t page, uint32_t idx, int which)
{
    struct code_page *p = find_page(page, true);
    blocks[idx].next_in_page[which] = p->first_block;
    p->first_block = idx + 1;
    int prot = engine_host_prot(page);
    if (prot >= 0 && (prot & 2) && !p->withheld) {
        p->withheld = true;
        sys_mprotect(page, PAGE_SIZE, prot & ~2);
    }
}

/* Translates at pc. UINT32_MAX: everything has to be flushed first. `guard`: writes to the code are to be noticed. */
static uint32_t make_block(uint64_t pc, enum engine_mode mode, unsigned max_insns, bool is_exact, bool guard)
{
    struct cache *c = cache_for(pc);
    if (block_count == MAX_BLOCKS || exit_count + 8 > MAX_EXITS || store_count + 2 * MAX_BLOCK_INSNS > MAX_STORES ||
        c->block_count == c->block_cap || page_count > PAGE_HASH / 2)
        return UINT32_MAX;
    struct translation *t = &work;
    t->pc = pc;
    t->mode = mode;
    t->max_insns = max_insns;
    t->exact = is_exact;
    t->state = state;
    t->table = tables[mode];
    t->hot = c->hot;
    t->hot_end = c->hot_end;
    t->cold = c->cold + STUB_ROOM; // the stale exit comes first
    t->cold_end = c->cold_end;
    t->breaks = breaks;
    t->break_count = break_count;
    t->first_exit = exit_count;
    t->block_idx = block_count;
    if (c->cold_end - c->cold < 4096 || c->hot_end - c->hot < 16384)
        return UINT32_MAX;
    translate_bracketed(t);
    if (t->no_room)
        return UINT32_MAX;
    uint32_t idx = block_count++;
    struct block *b = &blocks[idx];
    *b = (struct block){.info = t->info, .entry = t->entry, .indirect_entry = t->indirect_entry, .end = t->hot_out,
                        .mode = (uint8_t)mode, .exact = is_exact, .record_len = t->record_len, .cold = c->cold,
                        .first_exit = exit_count};
    for (unsigned i = 0; i < t->exit_count; i++)
        exits[exit_count++] = t->exits[i];
    b->stale_exit = exit_count;
    exits[exit_count++] = (struct exit_record){.kind = EXIT_STALE, .pc = pc, .block = idx};
    struct emitter e = {.at = c->cold, .limit = c->cold + STUB_ROOM};
    emit_store_imm(&e, &state->exit_idx, b->stale_exit);
    emit_jmp_abs(&e, &state->leave);
    b->info.stores = &stores[store_count];
    for (unsigned i = 0; i < t->info.store_count; i++)
        stores[store_count++] = t->stores[i];
    c->blocks[c->block_count++] = idx;
    c->hot = t->hot_out;
    c->cold = t->cold_out;
    stats.blocks++;
    stats.guest_insns += b->info.insn_count;
    stats.guest_bytes += b->info.byte_len;
    stats.cache_bytes += (uint64_t)(t->hot_out - t->hot) + (uint64_t)(t->cold_out - t->cold);
    if (guard && b->info.byte_len) {
        uint64_t first = pc & ~(uint64_t)(PAGE_SIZE - 1), last = (pc + b->info.byte_len - 1) & ~(uint64_t)(PAGE_SIZE - 1);
        watch_page(first, idx, 0);
        if (last != first)
            watch_page(last, idx, 1);
    }
    return idx;
}

static void drain(uint32_t last_insns, uint64_t icount_now);

static uint32_t make_or_flush(uint64_t pc, enum engine_mode mode, unsigned max_insns, bool is_exact, bool guard,
                              uint64_t icount_now)
{
    uint32_t idx = make_block(pc, mode, max_insns, is_exact, guard);
    if (idx != UINT32_MAX)
        return idx;
    if (mode == ENGINE_LOG)
        drain(UINT32_MAX, icount_now);
    flush_all();
    idx = make_block(pc, mode, max_insns, is_exact, guard);
    if (idx == UINT32_MAX)
        engine_host_fatal("a block does not fit into an empty code cache");
    return idx;
}

static uint32_t full_block(uint64_t pc, enum engine_mode mode, uint64_t icount_now)
{
    uint32_t *head = &hash[mode][(pc * 0x9e3779b97f4a7c15ull) >> 48];
    for (uint32_t i = *head; i; i = blocks[i - 1].next_hash) {
        if (blocks[i - 1].info.pc == pc)
            return i - 1;
    }
    uint32_t idx = make_or_flush(pc, mode, MAX_BLOCK_INSNS, false, true, icount_now);
    head = &hash[mode][(pc * 0x9e3779b97f4a7c15ull) >> 48];
    blocks[idx].next_hash = *head;
    *head = idx + 1;
    return idx;
}

static uint32_t exact_block(uint64_t pc, enum engine_mode mode, unsigned max_insns, uint64_t icount_now)
{
    uint32_t *slot = &exact[mode][((pc ^ (uint64_t)max_insns << 40) * 0x9e3779b97f4a7c15ull) >> 52];
    if (*slot) {
        const struct block *b = &blocks[*slot - 1];
        if (b->info.pc == pc && !b->dead && b->exact == max_insns)
            return *slot - 1;
    }
    uint32_t idx = make_or_flush(pc, mode, max_insns, true, true, icount_now);
    blocks[idx].exact = (uint8_t)max_insns;
    *slot = idx + 1;
    return idx;
}

/* Makes the branch of exit record x go straight to block b. */
static void link_exit(struct exit_record *x, const struct block *b)
{
    int64_t rel = b->entry - (x->patch + 4);
    if (rel == (int32_t)rel) {
        patch_rel32(x->patch, b->entry);
        return;
    }
    int32_t to_stub;
    __builtin_memcpy(&to_stub, x->patch, 4);
    struct emitter e = {.at = x->patch + 4 + to_stub, .limit = x->patch + 4 + to_stub + 14};
    emit_bytes(&e, (const uint8_t[]){0xff, 0x25, 0, 0, 0, 0}, 6); // jmp [rip + 0]
    emit64(&e, (uint64_t)(uintptr_t)b->entry);
}

/* --- signals --- */

/* struct ucontext of the kernel: general registers begin at byte 40, in this order. */
enum { UC_R8, UC_R9, UC_R10, UC_R11, UC_R12, UC_R13, UC_R14, UC_R15, UC_RDI, UC_RSI, UC_RBP, UC_RBX, UC_RDX, UC_RAX, UC_RCX,
       UC_RSP, UC_RIP, UC_EFLAGS };
static const uint8_t uc_of_gpr[16] = {UC_RAX, UC_RCX, UC_RDX, UC_RBX, UC_RSP, UC_RBP, UC_RSI, UC_RDI,
                                      UC_R8,  UC_R9,  UC_R10, UC_R11, UC_R12, UC_R13, UC_R14, UC_R15};

/* rep movsb from engine_copy: faults there end the copy. */
extern const char engine_copy_insn[], engine_copy_end[];
__asm__(".globl sys_sigreturn_stub\n"
        ".hidden sys_sigreturn_stub\n"
        ".text\n"
        "sys_sigreturn_stub:\n"
        "    mov $15, %eax\n"
        "    syscall\n");
__asm__(".globl engine_copy_insn, engine_copy_end\n"
        ".hidden engine_copy_insn, engine_copy_end\n"
        ".text\n"
        ".type engine_copy_bytes, @function\n"
        "engine_copy_bytes:\n" // (to, from, len): bytes left
        "    mov %rdx, %rcx\n"
        "engine_copy_insn:\n"
        "    rep movsb\n"
        "engine_copy_end:\n"
        "    mov %rcx, %rax\n"
        "    ret\n");
uint64_t engine_copy_bytes(void *to, const void *from, uint64_t len) __asm__("engine_copy_bytes");

static void on_signal(int signo, void *info, void *context)
{
    uint64_t *gregs = (uint64_t *)((uint8_t *)context + 40);
    uint64_t rip = gregs[UC_RIP];
    if (rip == (uint64_t)(uintptr_t)engine_copy_insn) {
        gregs[UC_RIP] = (uint64_t)(uintptr_t)engine_copy_end;
        return;
    }
    if (!cache_of_host(rip))
        engine_host_fatal("the engine itself faulted");
    fault.code = *(const int *)((const uint8_t *)info + 8);
    fault.address = *(const uint64_t *)((const uint8_t *)info + 16);
    fault.signo = signo;
    fault.host_pc = rip;
    for (int i = 0; i < 16; i++)
        fault.regs[i] = gregs[uc_of_gpr[i]];
    fault.rflags = gregs[UC_EFLAGS];
    fault.happened = true;
    gregs[UC_RIP] = (uint64_t)(uintptr_t)landing_stub;
    gregs[UC_RSP] = state->host_rsp; // not every kernel returns from a signal to a stack pointer that is no address
    gregs[UC_EFLAGS] &= ~0x400ull; // DF
}

static uint8_t signal_stack[65536] __attribute__((aligned(64)));

void engine_install_handlers(void)
{
    static const int signals[] = {4, 5, 7, 8, 11}; // SIGILL SIGTRAP SIGBUS SIGFPE SIGSEGV
    sys_sigaltstack(signal_stack, sizeof(signal_stack));
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sys_sigaction(signals[i], on_signal);
}

/* --- running --- */

struct run {
    struct engine_task *task;
    const struct engine_request *request;
    struct engine_result *result;
    uint64_t pc;
    uint64_t icount, ticks;
    uint32_t link;      /* exit record to be linked with the next block; UINT32_MAX: none */
    bool indirect;      /* the next block goes into the table of indirect branches */
    bool pass_break;    /* the next instruction is executed even if it is a break */
    bool step_fault;    /* the next instruction writes to its own page of code */
};

static void drain(uint32_t last_insns, uint64_t icount_now)
{
    uint64_t len = state->log_pos - layout.log_area;
    if (len && consumer && !consumer(consumer_ctx, (const uint8_t *)(uintptr_t)layout.log_area, len, log_icount, last_insns))
        consumer_stops = true;
    state->log_pos = layout.log_area;
    log_icount = icount_now;
}

static bool is_break(uint64_t pc)
{
    size_t low = 0, high = break_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (breaks[middle] < pc)
            low = middle + 1;
        else
            high = middle;
    }
    return low < break_count && breaks[low] == pc;
}

static void enter(struct run *run, uint8_t *host)
{
    enum engine_mode mode = run->request->mode;
    state->resume = (uint64_t)(uintptr_t)host;
    fault.happened = false;
    stats.exits++;
    ((void (*)(void))(uintptr_t)enter_stub[mode])();
}

static uint32_t block_of_host(uint64_t host)
{
    const struct cache *c = cache_of_host(host);
    uint32_t low = 0, high = c->block_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if ((uint64_t)(uintptr_t)blocks[c->blocks[middle]].indirect_entry <= host)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low || host >= (uint64_t)(uintptr_t)blocks[c->blocks[low - 1]].end)
        engine_host_fatal("a fault outside of any block");
    return c->blocks[low - 1];
}

/* A guest instruction faulted: finds which, restores the guest's registers, and says what it means. Returns true if the run
 * is over. */
static bool handle_fault(struct run *run, uint32_t *insns_done, uint32_t *block_out)
{
    uint32_t idx = block_of_host(fault.host_pc);
    struct block *b = &blocks[idx];
    struct cache *c = cache_of_host(fault.host_pc);
    // The same translation once more, for its fault points.
    struct translation *t = &work;
    t->pc = b->info.pc;
    t->mode = b->mode;
    t->max_insns = b->info.insn_count;
    t->exact = b->exact;
    t->state = state;
    t->table = tables[b->mode];
    t->hot = b->indirect_entry;
    t->hot_end = c->hot_end;
    t->cold = b->cold + STUB_ROOM;
    t->cold_end = c->cold_end;
    t->break_count = 0;
    t->first_exit = b->first_exit;
    t->block_idx = idx;
    translate_bracketed(t);
    if (t->hot_out != b->end)
        engine_host_fatal("a second translation differs from the first");
    const struct fault_point *point = NULL;
    uint32_t off = (uint32_t)(fault.host_pc - (uint64_t)(uintptr_t)b->indirect_entry);
    for (unsigned i = 0; i < t->point_count; i++) {
        if (t->points[i].host_off <= off)
            point = &t->points[i];
    }
    if (!point)
        engine_host_fatal("a fault where none can be");
    uint64_t stolen15 = state->regs[R15], stolen14 = state->regs[R14];
    for (int i = 0; i < 16; i++)
        state->regs[i] = fault.regs[i];
    for (int i = 0; i < 4; i++) {
        if (point->spilled[i] != 0xff)
            state->regs[point->spilled[i]] = state->spill[i];
    }
    state->regs[R15] = stolen15;
    state->counter = fault.regs[R15];
    if (b->mode == ENGINE_LOG) {
        state->regs[R14] = stolen14;
        state->log_pos = fault.regs[R14];
    }
    state->rflags = fault.rflags & ~0x10100ull;
    if (!b->exact)
        state->counter += ((uint64_t)(b->info.insn_count - point->insn) << ICOUNT_SHIFT) - b->info.ticks;
    *insns_done = point->insn;
    *block_out = idx;

    uint64_t pc = b->info.pc;
    run->pc = pc;
    if (b->mode == ENGINE_LOG && fault.address >= layout.log_area + ENGINE_LOG_LEN &&
        fault.address < layout.log_area + ENGINE_LOG_LEN + PAGE_SIZE && point->insn == 0) {
        *block_out = UINT32_MAX; // the log is full, nothing of the block is done
        return false;
    }
    run->pc = t->insn_pc[point->insn];
    struct code_page *p = fault.signo == 11 ? find_page(fault.address & ~(uint64_t)(PAGE_SIZE - 1), false) : NULL;
    if (p && p->withheld && fault.code == 2) {
        stats.smc_faults++;
        release_page(p);
        run->step_fault = true;
        return false;
    }
    // A write that straddles into a page of code faults there.
    run->result->reason = STOP_FAULT;
    run->result->signo = fault.signo;
    run->result->si_code = fault.code;
    // Of an illegal instruction or a failed division the address is that of the instruction.
    run->result->fault_addr = fault.signo == 4 || fault.signo == 8 ? run->pc : fault.address;
    run->result->host_pc = fault.host_pc;
    return true;
}

/* Carries out wrfsbase or wrgsbase at run->pc (SDM 2B). Returns true if it faults. */
static bool write_segment_base(struct run *run, unsigned insn_len)
{
    unsigned reg;
    bool gs, wide;
    save_vectors(saved_vectors);
    insn_segment_base(run->pc, &reg, &gs, &wide);
    load_vectors(saved_vectors);
    uint64_t value = wide ? state->regs[reg] : (uint32_t)state->regs[reg];
    if ((uint64_t)((int64_t)(value << 16) >> 16) != value) {
        run->result->reason = STOP_FAULT;
        run->result->signo = 11;
        run->result->si_code = 0x80; // SI_KERNEL
        return true;
    }
    *(gs ? &state->gs_base : &state->fs_base) = value;
    run->pc += insn_len;
    run->icount++;
    return false;
}

/* What to do about exit x. Returns true if the run is over. */
static bool handle_exit(struct run *run, uint32_t idx)
{
    struct exit_record *x = &exits[idx];
    run->link = UINT32_MAX;
    run->indirect = false;
    switch (x->kind) {
    case EXIT_DIRECT:
        run->pc = x->pc;
        if (x->patch && !blocks[x->block].dead)
            run->link = idx;
        return false;
    case EXIT_INDIRECT:
        run->pc = state->target;
        run->indirect = true;
        return false;
    case EXIT_STOP:
        run->pc = x->pc;
        if (x->stop == STOP_TRAP && x->trap == TRAP_SEGMENT_BASE)
            return write_segment_base(run, x->insn_len);
        run->result->reason = x->stop;
        run->result->trap = x->trap;
        run->result->insn_len = x->insn_len;
        run->result->signo = x->signo;
        run->result->si_code = x->si_code;
        run->result->fault_addr = 0;
        if (x->stop == STOP_FAULT && x->signo == 5) // the trap is reported behind the instruction
            run->pc += x->insn_len;
        else if (x->stop == STOP_FAULT && x->si_code != 0x80)
            run->result->fault_addr = (uint64_t)(uintptr_t)x->patch;
        return true;
    default: // EXIT_BUDGET, EXIT_STALE
        run->pc = x->pc;
        return false;
    }
}

/* Runs translated code from run->pc for at most `budget` instructions, chained blocks. Returns true if the run is over. */
static bool run_chained(struct run *run, uint64_t budget)
{
    if (budget > MAX_BUDGET)
        budget = MAX_BUDGET;
    enum engine_mode mode = run->request->mode;
    uint32_t generation = (uint32_t)stats.flushes;
    uint32_t idx = full_block(run->pc, mode, run->icount);
    struct block *b = &blocks[idx];
    if (generation == (uint32_t)stats.flushes) {
        if (run->link != UINT32_MAX)
            link_exit(&exits[run->link], b);
        if (run->indirect) {
            struct indirect_table *t = tables[mode];
            t->negated[run->pc & 0xffff] = -run->pc;
            t->host[run->pc & 0xffff] = (uint64_t)(uintptr_t)b->indirect_entry;
        }
    }
    run->link = UINT32_MAX;
    run->indirect = false;
    state->counter = budget << ICOUNT_SHIFT;
    enter(run, b->entry);
    bool over;
    uint32_t done = UINT32_MAX, faulted = UINT32_MAX;
    if (fault.happened)
        over = handle_fault(run, &done, &faulted);
    else
        over = handle_exit(run, (uint32_t)state->exit_idx);
    uint64_t ran = budget - (state->counter >> ICOUNT_SHIFT);
    run->ticks += state->counter & MAX_BUDGET;
    run->icount += ran;
    if (fault.happened && mode == ENGINE_LOG)
        drain(faulted == UINT32_MAX ? UINT32_MAX : done, run->icount);
    return over;
}

/* Runs at most `max_insns` instructions of one block. */
static bool run_exact(struct run *run, uint64_t max_insns)
{
    enum engine_mode mode = run->request->mode;
    if (max_insns > MAX_BLOCK_INSNS)
        max_insns = MAX_BLOCK_INSNS;
    uint32_t idx;
    if (run->step_fault) {
        idx = make_or_flush(run->pc, mode, 1, true, false, run->icount);
        run->step_fault = false;
    } else {
        idx = exact_block(run->pc, mode, (unsigned)max_insns, run->icount);
    }
    struct block *b = &blocks[idx];
    uint32_t insns = b->info.insn_count, ticks = b->info.ticks;
    state->counter = 0;
    enter(run, b->entry);
    run->link = UINT32_MAX;
    run->indirect = false;
    if (fault.happened) {
        uint32_t done, faulted;
        bool over = handle_fault(run, &done, &faulted);
        run->icount += done;
        if (mode == ENGINE_LOG)
            drain(faulted == UINT32_MAX ? UINT32_MAX : done, run->icount);
        return over;
    }
    run->icount += insns;
    run->ticks += ticks;
    bool over = handle_exit(run, (uint32_t)state->exit_idx);
    run->link = UINT32_MAX;
    run->indirect = false;
    return over;
}

static const uint8_t gpr_of_ureg[] = {[UREG_R15] = R15, [UREG_R14] = R14, [UREG_R13] = R13, [UREG_R12] = R12,
                                      [UREG_RBP] = RBP, [UREG_RBX] = RBX, [UREG_R11] = R11, [UREG_R10] = R10,
                                      [UREG_R9] = R9,   [UREG_R8] = R8,   [UREG_RAX] = RAX, [UREG_RCX] = RCX,
                                      [UREG_RDX] = RDX, [UREG_RSI] = RSI, [UREG_RDI] = RDI};

static bool matches(const struct run *run)
{
    const struct regs *want = &run->request->match;
    if (run->pc != want->r[UREG_RIP])
        return false;
    for (int i = UREG_R15; i <= UREG_RDI; i++) {
        if (state->regs[gpr_of_ureg[i]] != want->r[i])
            return false;
    }
    return true;
}

/* In the midst of a `rep` string instruction: does the iterations that lead to the wanted registers, if there are any. */
static bool match_within_rep(struct run *run)
{
    const struct regs *want = &run->request->match;
    unsigned size;
    bool source, dest;
    if (run->pc != want->r[UREG_RIP])
        return false;
    uint64_t rcx = state->regs[RCX], k = rcx - want->r[UREG_RCX];
    if (rcx <= want->r[UREG_RCX])
        return false;
    save_vectors(saved_vectors);
    bool rep = insn_is_rep(run->pc, &size, &source, &dest);
    load_vectors(saved_vectors);
    if (!rep)
        return false;
    uint64_t moved = state->rflags & 0x400 ? -k * size : k * size;
    for (int i = UREG_R15; i <= UREG_RDI; i++) {
        uint64_t have = state->regs[gpr_of_ureg[i]];
        if (i == UREG_RCX || i == UREG_RAX)
            continue;
        if ((i == UREG_RSI && source) || (i == UREG_RDI && dest))
            have += moved;
        if (have != want->r[i])
            return false;
    }
    uint64_t pc = run->pc, icount = run->icount;
    state->regs[RCX] = k;
    if (run_exact(run, 1)) // faulted on the way
        return true;
    run->icount = icount;
    run->pc = pc;
    state->regs[RCX] += want->r[UREG_RCX];
    return false;
}

/* One step of a run. Returns true if it is over. */
static bool step(struct run *run)
{
    const struct engine_request *q = run->request;
    uint64_t left = q->max_icount - run->icount;
    if (left == 0) {
        run->result->reason = STOP_LIMIT;
        return true;
    }
    if (consumer_stops) {
        run->result->reason = STOP_CONSUMER;
        return true;
    }
    bool timed = q->use_ticks || q->use_match;
    uint64_t ticks_left = timed ? q->stop_ticks - run->ticks : UINT64_MAX;
    if (timed && run->ticks > q->stop_ticks) {
        run->result->reason = STOP_TICKS;
        run->result->passed = true;
        return true;
    }
    if (ticks_left == 0) {
        if (q->use_ticks) {
            run->result->reason = STOP_TICKS;
            return true;
        }
        if (matches(run)) {
            run->result->reason = STOP_MATCH;
            return true;
        }
    }
    if (break_count && !run->pass_break && !run->step_fault && is_break(run->pc)) {
        run->result->reason = STOP_BREAK;
        return true;
    }
    run->pass_break = false;
    if (run->step_fault)
        return run_exact(run, 1);
    if (ticks_left == 0) {
        if (match_within_rep(run))
            return true;
        if (matches(run)) {
            run->result->reason = STOP_MATCH;
            return true;
        }
        return run_exact(run, 1);
    }
    uint64_t most = left < ticks_left ? left : ticks_left;
    if (most > CAREFUL + MAX_BLOCK_INSNS)
        return run_chained(run, most - CAREFUL);
    return run_exact(run, most);
}

void engine_run(struct engine_task *task, const struct engine_request *request, struct engine_result *result)
{
    struct run run = {.task = task, .request = request, .result = result, .pc = task->regs.r[UREG_RIP],
                      .link = UINT32_MAX, .pass_break = true};
    __builtin_memset(result, 0, sizeof(*result));
    if (loaded != task) {
        if (loaded)
            save_vectors(loaded->xstate);
        load_vectors(task->xstate_valid ? task->xstate : fresh_vectors);
        task->xstate_valid = true;
        loaded = task;
    }
    state->leave = (uint64_t)(uintptr_t)leave_stub[request->mode];
    state->log_pos = layout.log_area;
    log_icount = 0;
    consumer_stops = false;
    for (int i = UREG_R15; i <= UREG_RDI; i++)
        state->regs[gpr_of_ureg[i]] = task->regs.r[i];
    state->regs[RSP] = task->regs.r[UREG_RSP];
    state->fs_base = task->regs.r[UREG_FS_BASE];
    state->gs_base = task->regs.r[UREG_GS_BASE];
    state->rflags = (task->regs.r[UREG_EFLAGS] & 0xcd5) | 0x202;
    while (!step(&run)) {
    }
    if (request->mode == ENGINE_LOG)
        drain(UINT32_MAX, run.icount);
    for (int i = UREG_R15; i <= UREG_RDI; i++)
        task->regs.r[i] = state->regs[gpr_of_ureg[i]];
    task->regs.r[UREG_RSP] = state->regs[RSP];
    task->regs.r[UREG_RIP] = run.pc;
    task->regs.r[UREG_FS_BASE] = state->fs_base;
    task->regs.r[UREG_GS_BASE] = state->gs_base;
    task->regs.r[UREG_EFLAGS] = (state->rflags & 0xcd5) | 0x202;
    result->icount = run.icount;
    result->ticks = run.ticks;
}

void engine_sync_xstate(struct engine_task *task)
{
    if (loaded != task) {
        if (!task->xstate_valid)
            __builtin_memcpy(task->xstate, fresh_vectors, sizeof(task->xstate));
        task->xstate_valid = true;
        return;
    }
    save_vectors(task->xstate);
    loaded = NULL;
}

void engine_xstate_changed(struct engine_task *task)
{
    if (loaded == task)
        loaded = NULL;
}

void engine_task_gone(struct engine_task *task)
{
    if (loaded == task)
        loaded = NULL;
}

/* --- the rest of the interface --- */

void engine_set_consumer(log_consumer *c, void *ctx)
{
    consumer = c;
    consumer_ctx = ctx;
}

const struct block_info *engine_block(uint32_t idx)
{
    return &blocks[idx].info;
}

uint32_t engine_block_count(void)
{
    return block_count;
}

/* Drops the blocks that have `pc` within. */
static void kill_around(uint64_t pc)
{
    uint64_t page = pc & ~(uint64_t)(PAGE_SIZE - 1);
    struct code_page *p = find_page(page, false);
    for (uint32_t next = p ? p->first_block : 0; next;) {
        struct block *b = &blocks[next - 1];
        if (pc >= b->info.pc && pc < b->info.pc + b->info.byte_len)
            kill_block(next - 1);
        next = b->next_in_page[(b->info.pc & ~(uint64_t)(PAGE_SIZE - 1)) == page ? 0 : 1];
    }
}

void engine_set_breaks(const uint64_t *pcs, size_t count)
{
    if (count > MAX_BREAKS)
        count = MAX_BREAKS;
    for (size_t i = 0; i < break_count; i++)
        kill_around(breaks[i]);
    break_count = 0;
    for (size_t i = 0; i < count; i++) {
        size_t at = break_count++;
        while (at && breaks[at - 1] > pcs[i]) {
            breaks[at] = breaks[at - 1];
            at--;
        }
        breaks[at] = pcs[i];
    }
    for (size_t i = 0; i < break_count; i++)
        kill_around(breaks[i]);
}

void engine_get_stats(struct engine_stats *out)
{
    *out = stats;
}

size_t engine_copy_from_guest(void *out, uint64_t addr, size_t len)
{
    return len - engine_copy_bytes(out, (const void *)(uintptr_t)addr, len);
}

size_t engine_copy_to_guest(uint64_t addr, const void *data, size_t len)
{
    return len - engine_copy_bytes((void *)(uintptr_t)addr, data, len);
}

void engine_init(const struct engine_layout *l)
{
    layout = *l;
    if (sys_mmap(l->low_area, ENGINE_LOW_AREA_LEN, 7, 0x4032, -1, 0) != l->low_area)
        engine_host_fatal("cannot map the engine's low area");
    uint8_t *low = (uint8_t *)(uintptr_t)l->low_area;
    state = (struct engine_state *)low;
    tables[0] = (struct indirect_table *)(low + 0x10000);
    tables[1] = (struct indirect_table *)(low + 0x10000 + sizeof(struct indirect_table));
    make_stubs(low + 0x1000, low + 0x2000);
    if (sys_mmap(l->log_area, ENGINE_LOG_LEN, 3, 0x4032, -1, 0) != l->log_area ||
        sys_mmap(l->log_area + ENGINE_LOG_LEN, PAGE_SIZE, 0, 0x4032, -1, 0) != l->log_area + ENGINE_LOG_LEN)
        engine_host_fatal("cannot map the engine's log");
    blocks = engine_host_alloc(MAX_BLOCKS * sizeof(blocks[0]));
    exits = engine_host_alloc((size_t)MAX_EXITS * sizeof(exits[0]));
    stores = engine_host_alloc((size_t)MAX_STORES * sizeof(stores[0]));
    pages = engine_host_alloc(PAGE_HASH * sizeof(pages[0]));
    for (int mode = 0; mode < 2; mode++) {
        hash[mode] = engine_host_alloc(HASH_SIZE * sizeof(uint32_t));
        exact[mode] = engine_host_alloc(EXACT_SIZE * sizeof(uint32_t));
        for (unsigned i = 0; i < HASH_SIZE; i++)
            tables[mode]->negated[i] = i == 0; // matches no target: those of slot i end in i
    }
    static const uint32_t mxcsr = 0x1f80;
    static const uint16_t fcw = 0x37f;
    __builtin_memcpy(fresh_vectors, &fcw, 2);
    __builtin_memcpy(fresh_vectors + 24, &mxcsr, 4);
    translate_init();
    engine_install_handlers();
}
