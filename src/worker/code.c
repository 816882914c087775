/* Code caches are holes of the guest's address space near its code, filled from both ends:
 * translations from the front, the stubs they leave by from the back; behind these are the counters
 * of the index variant. A block that is the next to be made after another one that ends in a jump
 * to it takes the place of that jump.
 *
 * Guest pages that hold translated code lose PROT_WRITE until they are written to: then their
 * translations go. So do pages that are the same shared memory at other addresses. */
#include "worker/code.h"

#include "worker/insn.h"
#include "worker/syscalls.h"

enum {
    MAX_BLOCKS = 1 << 20,
    MAX_EXITS = 1 << 22,
    MAX_ACCESSES = 1 << 22,
    HASH_SIZE = 1 << 16,
    EXACT_SIZE = 1 << 12,
    PAGE_HASH = 1 << 15,
    MAX_CACHES = 64,
    HUGE_PAGE = 2 << 20,
    HASHES_LEN = HUGE_PAGE
};
enum {
    CACHE_LEN = 16 << 20,
    COUNT_PART = 1 << 20,
    COLD_PART = 5 << 20,
    STUB_ROOM = 64,
    JMP_LEN = 5
};
#define REACH 0x78000000ull

/* Memory that is filled from its start: how far it has been made present. */
struct ahead {
    uint64_t until;
};

struct cache {
    uint8_t *start, *hot, *hot_end, *cold, *cold_end;
    uint64_t *counts;
    struct ahead hot_ahead, cold_ahead;
    uint32_t *blocks; /* by rising host address */
    uint32_t block_count, block_cap;
};

/* A page of guest memory that holds translated code. */
struct code_page {
    uint64_t page;        /* 0: free */
    uint32_t first_block; /* chain, index + 1 */
    bool withheld;        /* the guest may write it, but PROT_WRITE is taken from it */
};

_Static_assert(ENGINE_MODES *(HASH_SIZE + EXACT_SIZE) * sizeof(uint32_t) +
                       PAGE_HASH * sizeof(struct code_page) <=
                   HASHES_LEN,
               "hash tables");

struct code code;
static struct addr_range cache_areas[64];
static size_t cache_area_count;
static struct cache caches[MAX_CACHES];
static unsigned cache_count;
static struct access_desc *accesses;
static uint32_t access_count;
static uint32_t *hash[ENGINE_MODES];  /* chains of blocks by pc, index + 1 */
static uint32_t *exact[ENGINE_MODES]; /* direct-mapped exact blocks, index + 1 */
static struct code_page *pages;
static bool in_use[ENGINE_MODES]; /* those of which there have been translations: the tables of the
                                     others have not been touched */
static unsigned page_count;
static struct translation work;
static struct ahead blocks_ahead, exits_ahead;
static uint8_t saved_vectors[XSTATE_MAX] __attribute__((aligned(64)));

/* Zydis may be built to use SSE and AVX, but no more than that. */
enum { SSE_AND_AVX = 6 };

void vectors_save(void)
{
    __asm__ volatile("xsave64 (%0)" ::"r"(saved_vectors), "a"(SSE_AND_AVX), "d"(0) : "memory");
}

void vectors_load(void)
{
    __asm__ volatile("xrstor64 (%0)" ::"r"(saved_vectors), "a"(SSE_AND_AVX), "d"(0) : "memory");
}

/* Zydis uses vector registers. */
static void translate_bracketed(struct translation *t)
{
    vectors_save();
    translate_block(t);
    vectors_load();
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

/* --- breaks --- */

bool code_is_break(uint64_t pc)
{
    size_t low = 0, high = code.break_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code.breaks[middle] < pc)
            low = middle + 1;
        else
            high = middle;
    }
    return low < code.break_count && code.breaks[low] == pc;
}

/* --- dropping translations --- */

static void unlink_hash(struct block *b, uint32_t idx)
{
    uint32_t *at = &hash[b->mode][(b->info.pc * 0x9e3779b97f4a7c15ull) >> 48];
    while (*at && *at != idx + 1)
        at = &code.blocks[*at - 1].next_hash;
    if (*at)
        *at = b->next_hash;
}

/* Whoever still comes to the block leaves by its stale exit. */
static void make_stale(struct block *b)
{
    b->entry[0] = 0xe9;
    patch_rel32(b->entry + 1, b->cold);
}

static void kill_block(uint32_t idx)
{
    struct block *b = &code.blocks[idx];
    if (b->dead)
        return;
    b->dead = true;
    if (b->exact)
        return;
    unlink_hash(b, idx);
    struct indirect_table *t = code.tables[b->mode];
    if (t->negated[b->info.pc & 0xffff] == -b->info.pc)
        t->negated[b->info.pc & 0xffff] = (b->info.pc & 0xffff) == 0;
    make_stale(b);
}

static void kill_page(struct code_page *p)
{
    uint32_t next = p->first_block;
    while (next) {
        struct block *b = &code.blocks[next - 1];
        uint32_t idx = next - 1;
        next = b->next_in_page[(b->info.pc & ~(uint64_t)(PAGE_SIZE - 1)) == p->page ? 0 : 1];
        kill_block(idx);
    }
    p->first_block = 0;
}

static void release_page(struct code_page *p)
{
    kill_page(p);
    for (uint64_t at = 0; (at = engine_host_alias(p->page, at));) {
        struct code_page *alias = find_page(at, false);
        if (alias)
            kill_page(alias);
    }
    if (p->withheld) {
        p->withheld = false;
        int prot = engine_host_prot(p->page);
        if (prot >= 0)
            sys_mprotect(p->page, PAGE_SIZE, prot);
    }
}

void code_flush(void)
{
    engine_host_before_flush();
    code.stats.flushes++;
    for (unsigned i = 0; i < PAGE_HASH; i++) {
        if (pages[i].page)
            release_page(&pages[i]);
        pages[i] = (struct code_page){0};
    }
    page_count = 0;
    for (int mode = 0; mode < ENGINE_MODES; mode++) {
        for (unsigned i = 0; in_use[mode] && i < HASH_SIZE; i++) {
            hash[mode][i] = 0;
            code.tables[mode]->negated[i] = i == 0;
        }
        for (unsigned i = 0; in_use[mode] && i < EXACT_SIZE; i++)
            exact[mode][i] = 0;
    }
    for (unsigned i = 0; i < cache_count; i++) {
        struct cache *c = &caches[i];
        __builtin_memset(c->counts, 0, c->block_count * sizeof(c->counts[0]));
        c->hot = c->start;
        c->cold = c->hot_end;
        c->block_count = 0;
    }
    code.block_count = 0;
    code.exit_count = 0;
    access_count = 0;
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

/* Drops the blocks that have `pc` within. */
static void kill_around(uint64_t pc)
{
    uint64_t page = pc & ~(uint64_t)(PAGE_SIZE - 1);
    struct code_page *p = find_page(page, false);
    for (uint32_t next = p ? p->first_block : 0; next;) {
        struct block *b = &code.blocks[next - 1];
        if (pc >= b->info.pc && pc < b->info.pc + b->info.byte_len)
            kill_block(next - 1);
        next = b->next_in_page[(b->info.pc & ~(uint64_t)(PAGE_SIZE - 1)) == page ? 0 : 1];
    }
}

void engine_set_breaks(const uint64_t *pcs, size_t count)
{
    if (count > MAX_BREAKS)
        count = MAX_BREAKS;
    for (size_t i = 0; i < code.break_count; i++)
        kill_around(code.breaks[i]);
    code.break_count = 0;
    for (size_t i = 0; i < count; i++) {
        size_t at = code.break_count++;
        while (at && code.breaks[at - 1] > pcs[i]) {
            code.breaks[at] = code.breaks[at - 1];
            at--;
        }
        code.breaks[at] = pcs[i];
    }
    for (size_t i = 0; i < code.break_count; i++)
        kill_around(code.breaks[i]);
}

bool code_release_page(uint64_t address)
{
    struct code_page *p = find_page(address & ~(uint64_t)(PAGE_SIZE - 1), false);
    if (!p || !p->withheld)
        return false;
    release_page(p);
    return true;
}

/* --- making translations --- */

static bool carve(struct cache *c, uint64_t pc, bool near)
{
    for (size_t i = 0; i < cache_area_count; i++) {
        struct addr_range *a = &cache_areas[i];
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
        if (sys_mmap(at, CACHE_LEN, 7, 0x4032, -1, 0) !=
            at) // private, anonymous, fixed, no reserve
            engine_host_fatal("cannot map a code cache");
        c->start = c->hot = (uint8_t *)(uintptr_t)at;
        c->hot_end = c->cold = c->start + CACHE_LEN - COLD_PART - COUNT_PART;
        c->cold_end = c->cold + COLD_PART;
        c->counts = (uint64_t *)(void *)c->cold_end;
        c->block_cap = COUNT_PART / sizeof(c->counts[0]);
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
    if (cache_count < MAX_CACHES &&
        (carve(&caches[cache_count], pc, true) || carve(&caches[cache_count], pc, false)))
        return &caches[cache_count++];
    if (!cache_count)
        engine_host_fatal("no address space for a code cache");
    return &caches[0];
}

static struct cache *cache_of_host(uint64_t host)
{
    for (unsigned i = 0; i < cache_count; i++) {
        if (host >= (uint64_t)(uintptr_t)caches[i].start &&
            host < (uint64_t)(uintptr_t)caches[i].cold_end)
            return &caches[i];
    }
    return NULL;
}

/* Pages that are going to be filled come in pieces: faults one by one cost more. */
static void make_present(struct ahead *a, const void *at)
{
    enum { PIECE = 128 << 10, MARGIN = 16 << 10 };
    uint64_t address = (uint64_t)(uintptr_t)at;
    if (a->until && address + MARGIN <= a->until)
        return;
    if (!a->until)
        a->until = address;
    sys_populate(a->until, PIECE);
    a->until += PIECE;
}

static void withhold(uint64_t page)
{
    int prot = engine_host_prot(page);
    if (prot < 0 || !(prot & 2))
        return;
    struct code_page *p = find_page(page, true);
    if (!p->withheld) {
        p->withheld = true;
        sys_mprotect(page, PAGE_SIZE, prot & ~2);
    }
}

static void watch_page(uint64_t page, uint32_t idx, int which)
{
    struct code_page *p = find_page(page, true);
    code.blocks[idx].next_in_page[which] = p->first_block;
    p->first_block = idx + 1;
    withhold(page);
    for (uint64_t at = 0; (at = engine_host_alias(page, at));)
        withhold(at);
}

/* Is the exit's jump the last thing emitted in the cache? Then its target can take its place. */
static bool can_take_place(const struct cache *c, uint32_t link)
{
    const struct exit_record *x = link == UINT32_MAX ? NULL : &code.exits[link];
    return x && x->patch && x->patch + 4 == c->hot && x->patch[-1] == 0xe9 &&
           !code.blocks[x->block].dead;
}

/* Translates at pc. UINT32_MAX: everything has to be flushed first. `guard`: writes to the code are
 * to be noticed. `after`: the exit whose place it may take. */
static uint32_t make_block(uint64_t pc, enum engine_mode mode, unsigned max_insns, bool is_exact,
                           bool guard, uint32_t after)
{
    struct cache *c = cache_for(pc);
    if (code.block_count == MAX_BLOCKS || code.exit_count + 8 > MAX_EXITS ||
        access_count + MAX_BLOCK_ACCESSES > MAX_ACCESSES || c->block_count == c->block_cap ||
        page_count > PAGE_HASH / 2)
        return UINT32_MAX;
    if (!in_use[mode]) {
        in_use[mode] = true;
        code.tables[mode]->negated[0] = 1; // matches no target: those of slot 0 end in 0
    }
    struct translation *t = &work;
    bool falls = can_take_place(c, after);
    t->pc = pc;
    t->mode = mode;
    t->max_insns = max_insns;
    t->exact = is_exact;
    t->calls = is_exact && !guard;
    t->falls = falls;
    t->state = code.state;
    t->table = code.tables[mode];
    t->alignment_page = code.alignment_page;
    t->hot = c->hot - (falls ? JMP_LEN : 0);
    t->hot_end = c->hot_end;
    t->cold = c->cold + STUB_ROOM; // the stale exit comes first
    t->cold_end = c->cold_end;
    t->count = &c->counts[c->block_count];
    t->breaks = code.breaks;
    t->break_count = code.break_count;
    t->first_exit = code.exit_count;
    t->block_idx = code.block_count;
    if (c->cold_end - c->cold < 4096 || c->hot_end - c->hot < 32768)
        return UINT32_MAX;
    make_present(&c->hot_ahead, c->hot);
    make_present(&c->cold_ahead, c->cold);
    make_present(&blocks_ahead, &code.blocks[code.block_count]);
    make_present(&exits_ahead, &code.exits[code.exit_count]);
    translate_bracketed(t);
    if (t->no_room)
        return UINT32_MAX;
    if (code.translated)
        code.translated(t);
    if (falls) {
        code.blocks[code.exits[after].block].overlaid = true;
        code.exits[after].patch = NULL;
    }
    uint32_t idx = code.block_count++;
    struct block *b = &code.blocks[idx];
    *b = (struct block){.info = t->info,
                        .start = t->hot,
                        .entry = t->entry,
                        .indirect_entry = t->indirect_entry,
                        .end = t->hot_out,
                        .count = t->count,
                        .mode = (uint8_t)mode,
                        .exact = is_exact,
                        .calls = t->calls,
                        .record_len = t->record_len,
                        .cold = c->cold,
                        .first_exit = code.exit_count,
                        .falls = falls};
    for (unsigned i = 0; i < t->exit_count; i++)
        code.exits[code.exit_count++] = t->exits[i];
    b->stale_exit = code.exit_count;
    code.exits[code.exit_count++] =
        (struct exit_record){.kind = EXIT_STALE, .pc = pc, .block = idx};
    struct emitter e = {.at = c->cold, .limit = c->cold + STUB_ROOM};
    emit_store_imm(&e, &code.state->exit_idx, b->stale_exit);
    emit_jmp_abs(&e, &code.state->leave);
    b->info.accesses = &accesses[access_count];
    for (unsigned i = 0; i < t->info.access_count; i++)
        accesses[access_count++] = t->accesses[i];
    c->blocks[c->block_count++] = idx;
    c->hot = t->hot_out;
    c->cold = t->cold_out;
    code.stats.blocks++;
    code.stats.guest_insns += b->info.insn_count;
    code.stats.guest_bytes += b->info.byte_len;
    code.stats.cache_bytes += (uint64_t)(t->hot_out - t->hot) + (uint64_t)(t->cold_out - t->cold);
    if (guard && b->info.byte_len) {
        uint64_t first = pc & ~(uint64_t)(PAGE_SIZE - 1),
                 last = (pc + b->info.byte_len - 1) & ~(uint64_t)(PAGE_SIZE - 1);
        watch_page(first, idx, 0);
        if (last != first || t->also_page)
            watch_page(t->also_page ? t->also_page : last, idx, 1);
    }
    return idx;
}

const struct translation *code_fault_points(uint32_t idx)
{
    struct block *b = &code.blocks[idx];
    struct cache *c = cache_of_host((uint64_t)(uintptr_t)b->start);
    struct translation *t = &work;
    t->pc = b->info.pc;
    t->mode = b->mode;
    t->max_insns = b->info.insn_count;
    t->exact = b->exact;
    t->calls = b->calls;
    t->falls = b->falls;
    t->state = code.state;
    t->table = code.tables[b->mode];
    t->alignment_page = code.alignment_page;
    t->hot = b->start;
    t->hot_end = c->hot_end;
    t->cold = b->cold + STUB_ROOM;
    t->cold_end = c->cold_end;
    t->count = b->count;
    t->break_count = 0;
    t->first_exit = b->first_exit;
    t->block_idx = idx;
    // What took the place of its last jump stays there. All other links are made again when they
    // are used.
    uint8_t tail[JMP_LEN];
    __builtin_memcpy(tail, b->end - JMP_LEN, JMP_LEN);
    translate_bracketed(t);
    if (b->overlaid)
        __builtin_memcpy(b->end - JMP_LEN, tail, JMP_LEN);
    if (t->hot_out != b->end)
        engine_host_fatal("a second translation differs from the first");
    if (b->dead)
        make_stale(b);
    return t;
}

/* --- finding and linking --- */

static uint32_t *hash_slot(uint64_t pc, enum engine_mode mode)
{
    return &hash[mode][(pc * 0x9e3779b97f4a7c15ull) >> 48];
}

static uint32_t find_block(uint64_t pc, enum engine_mode mode)
{
    for (uint32_t i = *hash_slot(pc, mode); i; i = code.blocks[i - 1].next_hash) {
        if (code.blocks[i - 1].info.pc == pc)
            return i - 1;
    }
    return UINT32_MAX;
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

/* Links those exits of a new block whose targets are there. */
static void link_exits(struct block *b)
{
    for (uint32_t i = b->first_exit; i < b->stale_exit; i++) {
        struct exit_record *x = &code.exits[i];
        if (x->kind != EXIT_DIRECT || !x->patch || (code.break_count && code_is_break(x->pc)))
            continue;
        uint32_t target = find_block(x->pc, b->mode);
        if (target != UINT32_MAX)
            link_exit(x, &code.blocks[target]);
    }
}

/* Makes indirect branches find the block. */
static void enter_table(struct block *b)
{
    struct indirect_table *t = code.tables[b->mode];
    if (!b->indirect_entry) { // it is entered from the block before it; there was no room in front
                              // of it
        struct cache *c = cache_of_host((uint64_t)(uintptr_t)b->start);
        if (c->cold_end - c->cold < 4096)
            return;
        struct emitter e = {.at = c->cold, .limit = c->cold_end};
        b->indirect_entry = e.at;
        emit_load(&e, RAX, &code.state->spill[2]);
        emit_load(&e, RDX, &code.state->spill[1]);
        emit_load(&e, RCX, &code.state->spill[0]);
        patch_rel32(emit_jmp(&e), b->entry);
        c->cold = e.at;
    }
    t->negated[b->info.pc & 0xffff] = -b->info.pc;
    t->host[b->info.pc & 0xffff] = (uint64_t)(uintptr_t)b->indirect_entry;
}

uint32_t code_block(uint64_t pc, enum engine_mode mode, uint32_t link, bool indirect)
{
    uint32_t idx = find_block(pc, mode);
    if (idx == UINT32_MAX) {
        idx = make_block(pc, mode, MAX_BLOCK_INSNS, false, true, link);
        if (idx == UINT32_MAX)
            return idx;
        uint32_t *head = hash_slot(pc, mode);
        code.blocks[idx].next_hash = *head;
        *head = idx + 1;
        link_exits(&code.blocks[idx]);
    }
    if (link != UINT32_MAX && code.exits[link].patch && !code.blocks[code.exits[link].block].dead)
        link_exit(&code.exits[link], &code.blocks[idx]);
    if (indirect)
        enter_table(&code.blocks[idx]);
    return idx;
}

uint32_t code_exact(uint64_t pc, enum engine_mode mode, unsigned max_insns, bool unguarded)
{
    if (unguarded)
        return make_block(pc, mode, max_insns, true, false, UINT32_MAX);
    uint32_t *slot = &exact[mode][((pc ^ (uint64_t)max_insns << 40) * 0x9e3779b97f4a7c15ull) >> 52];
    if (*slot) {
        const struct block *b = &code.blocks[*slot - 1];
        if (b->info.pc == pc && !b->dead && b->exact == max_insns)
            return *slot - 1;
    }
    uint32_t idx = make_block(pc, mode, max_insns, true, true, UINT32_MAX);
    if (idx == UINT32_MAX)
        return idx;
    code.blocks[idx].exact = (uint8_t)max_insns;
    *slot = idx + 1;
    return idx;
}

uint16_t code_prefix_len(const struct block_info *b, unsigned insns)
{
    vectors_save();
    uint16_t len = insn_prefix_len(b, insns);
    vectors_load();
    return len;
}

bool code_is_host(uint64_t host)
{
    return cache_of_host(host) != NULL;
}

uint32_t code_block_of_host(uint64_t host)
{
    const struct cache *c = cache_of_host(host);
    uint32_t low = 0, high = c->block_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if ((uint64_t)(uintptr_t)code.blocks[c->blocks[middle]].start <= host)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low || host >= (uint64_t)(uintptr_t)code.blocks[c->blocks[low - 1]].end)
        engine_host_fatal("a fault outside of any block");
    return c->blocks[low - 1];
}

void code_init(const struct engine_layout *l)
{
    __builtin_memcpy(cache_areas, l->cache_areas, sizeof(cache_areas));
    cache_area_count = l->cache_area_count;
    code.blocks = engine_host_alloc(MAX_BLOCKS * sizeof(code.blocks[0]));
    code.exits = engine_host_alloc((size_t)MAX_EXITS * sizeof(code.exits[0]));
    accesses = engine_host_alloc((size_t)MAX_ACCESSES * sizeof(accesses[0]));
    // All over the hash tables entries are used from the first blocks on: one large page for all of
    // them.
    uint8_t *room = engine_host_alloc(HASHES_LEN + HUGE_PAGE);
    room += -(uintptr_t)room % HUGE_PAGE;
    sys_huge_pages((uint64_t)(uintptr_t)room, HASHES_LEN);
    for (int mode = 0; mode < ENGINE_MODES; mode++) {
        hash[mode] = (uint32_t *)(void *)room + mode * HASH_SIZE;
        exact[mode] = (uint32_t *)(void *)room + ENGINE_MODES * HASH_SIZE + mode * EXACT_SIZE;
    }
    pages = (struct code_page *)(void *)(room + ENGINE_MODES * (HASH_SIZE + EXACT_SIZE) *
                                                    sizeof(uint32_t));
    insn_init();
}
