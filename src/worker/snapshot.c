#include "worker/snapshot.h"

#include "worker/ranges.h"
#include "worker/syscalls.h"
#include "worker/worker.h"

enum {
    HASH_LEN = 1 << 17,
    MAX_PAGES = HASH_LEN / 2,
    MAX_COPIES = 1 << 17,
    MAX_TASK_COPIES = 1024,
    MAX_CHANGED = 4096,
    GROUP_BITS = 6,
    HUGE_PAGE = 2 << 20,
    MAX_GIVEN = 1 << 17,
    MANY_PAGES = 1024,
    MOST_COPIED = 256 /* pages of a fetched chunk */
};

/* Numbers of copies that are none. FRESH: the page holds zeros, and is discarded to hold them
 * again. ABSENT: its contents are with the coordinator (absent.h). It is copied when it is fetched,
 * but not with a chunk of which most may be written, an array: that is fetched again when it is
 * wanted again, unless somebody said that it will be (snapshot_keep_fetched()). */
static const uint32_t NO_ROOM = UINT32_MAX, ABSENT = UINT32_MAX - 1, FRESH = UINT32_MAX - 2;

/* A page of the set. copies: numbers of the copies that the snapshots hold; 0: it was not mapped.
 */
struct page {
    uint64_t addr;
    uint32_t copies[WORKER_SNAPSHOTS];
};

static struct page *pages;
static uint32_t page_count;
static uint32_t *hash; /* index in pages + 1, by address, open addressing */
static uint8_t *copies;
static uint32_t *copy_uses; /* by how many snapshots; by number of the copy */
static uint32_t *free_copies;
static uint32_t free_count, copy_count; /* copy_count: numbers ever given out; 0 is none */
static uint32_t taken;                  /* bit per snapshot */
static uint32_t newest;                 /* the one taken or restored last */
static uint32_t era = 1;                /* counts snapshot_forget() */
static bool broken, restoring, keep_fetched;

/* What memory holds that no snapshot knows. */
static const uint32_t NONE = WORKER_SNAPSHOTS;
static struct ranges given;
static bool clean = true; /* nothing ran before the first snapshot */
static bool ran;          /* since then, or since it was restored */
static uint32_t first = WORKER_SNAPSHOTS;

static struct {
    uint32_t snapshot, slot;
    bool xstate_valid;
    uint8_t xstate[XSTATE_MAX];
} * task_copies;
static uint32_t task_copy_count;

void snapshot_init(void)
{
    uint8_t *room = engine_host_alloc((size_t)MAX_COPIES * PAGE_SIZE + HASH_LEN * sizeof(hash[0]) +
                                      MAX_PAGES * sizeof(pages[0]) + HUGE_PAGE);
    copies = room + -(uintptr_t)room % HUGE_PAGE;
    sys_huge_pages((uint64_t)(uintptr_t)copies, (uint64_t)MAX_COPIES * PAGE_SIZE);
    hash = (uint32_t *)(void *)(copies + (size_t)MAX_COPIES * PAGE_SIZE);
    pages = (struct page *)(void *)(hash + HASH_LEN); // one huge page holds both tables, as a rule
    copy_uses = engine_host_alloc(MAX_COPIES * sizeof(copy_uses[0]));
    free_copies = engine_host_alloc(MAX_COPIES * sizeof(free_copies[0]));
    task_copies = engine_host_alloc(MAX_TASK_COPIES * sizeof(task_copies[0]));
    ranges_init(&given, MAX_GIVEN); // not wiped: copies have what was given, too
    sys_wipe_on_fork(copies, (uint64_t)((uint8_t *)(task_copies + MAX_TASK_COPIES) - copies));
}

void snapshot_forked(void)
{
    if (page_count && !pages[0].addr) // all is zeros
        page_count = 0;
    keep_fetched = false;
    snapshot_forget();
}

/* Neighbouring pages are neighbours in the table, which then needs few pages itself. */
static uint64_t first_slot(uint64_t addr)
{
    uint64_t page = addr >> 12,
             group = (page >> GROUP_BITS) * 0x9e3779b97f4a7c15ull >> (47 + GROUP_BITS);
    return group << GROUP_BITS | (page & ((1 << GROUP_BITS) - 1));
}

void snapshot_forget(void)
{
    for (uint32_t i = 0; i < page_count;
         i++) { // only what is in use is cleared: the table is large
        uint64_t at = first_slot(pages[i].addr);
        while (hash[at % HASH_LEN])
            hash[at++ % HASH_LEN] = 0;
    }
    page_count = free_count = copy_count = taken = task_copy_count = 0;
    broken = restoring = false;
    clean &= !ran;
    ran = false;
    first = NONE;
    era++;
}

void snapshot_ran(void)
{
    clean &= taken != 0;
    ran = true;
}

void snapshot_given(uint64_t start, uint64_t end)
{
    clean &= ranges_add(&given, start & ~(uint64_t)(PAGE_SIZE - 1),
                        (end + PAGE_SIZE - 1) & ~(uint64_t)(PAGE_SIZE - 1));
}

static uint32_t *hash_slot(uint64_t addr)
{
    uint64_t at = first_slot(addr);
    while (hash[at % HASH_LEN] && pages[hash[at % HASH_LEN] - 1].addr != addr)
        at++;
    return &hash[at % HASH_LEN];
}

static uint8_t *bytes_of(uint32_t copy)
{
    return copies + (uint64_t)copy * PAGE_SIZE;
}

/* Does private anonymous memory hold zeros there, since nobody ever wrote to it? */
static bool is_fresh(uint64_t addr)
{
    struct addr_range r;
    return clean && !ran && snapshot_host_anon_end(addr) &&
           !ranges_next(&given, addr, addr + PAGE_SIZE, &r);
}

/* A copy of the page as it is; 0: there is no page; or one of those that are none. */
static uint32_t copy_page(uint64_t addr)
{
    if (engine_host_prot(addr) < 0)
        return 0;
    if (snapshot_host_absent(addr))
        return ABSENT;
    if (is_fresh(addr))
        return FRESH;
    uint32_t copy;
    if (free_count)
        copy = free_copies[--free_count];
    else if (copy_count + 1 < MAX_COPIES)
        copy = ++copy_count;
    else
        return NO_ROOM;
    copy_uses[copy] = 0;
    if (snapshot_host_copy(addr, bytes_of(copy), PAGE_SIZE, false) == PAGE_SIZE)
        return copy;
    free_copies[free_count++] = copy;
    return 0; // a page behind the end of its file
}

static bool is_copy(uint32_t copy)
{
    return copy && copy < MAX_COPIES;
}

static void use(uint32_t copy)
{
    if (is_copy(copy))
        copy_uses[copy]++;
}

static void release(uint32_t copy)
{
    if (is_copy(copy) && --copy_uses[copy] == 0)
        free_copies[free_count++] = copy;
}

static bool differs(const uint8_t *a, const uint8_t *b)
{
    for (size_t i = 0; i < PAGE_SIZE; i += 32) {
        const uint64_t *x = (const uint64_t *)(const void *)(a + i),
                       *y = (const uint64_t *)(const void *)(b + i);
        if ((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]))
            return true;
    }
    return false;
}

/* Does the page hold what the copy says? */
static bool holds(uint64_t addr, uint32_t copy)
{
    static uint8_t now[PAGE_SIZE] __attribute__((aligned(8)));
    static const uint8_t zeros[PAGE_SIZE] __attribute__((aligned(8)));
    if (engine_host_prot(addr) < 0)
        return copy == 0;
    if (copy == ABSENT || snapshot_host_absent(addr))
        return copy == ABSENT && snapshot_host_absent(addr);
    if (snapshot_host_copy(addr, now, PAGE_SIZE, false) != PAGE_SIZE)
        return copy == 0;
    return copy && !differs(now, copy == FRESH ? zeros : bytes_of(copy));
}

/* Adds a page: all snapshots hold what it holds now. */
static bool add_page(uint64_t addr)
{
    uint32_t *slot = hash_slot(addr);
    if (*slot)
        return true;
    if (page_count == MAX_PAGES)
        return false;
    uint32_t copy = taken ? copy_page(addr) : 0;
    if (copy == NO_ROOM)
        return false;
    struct page *p = &pages[page_count++];
    *slot = page_count;
    p->addr = addr;
    for (uint32_t i = 0; i < WORKER_SNAPSHOTS; i++) {
        p->copies[i] = taken >> i & 1 ? copy : 0;
        use(p->copies[i]);
    }
    return true;
}

static bool needs_no_copy(uint64_t addr)
{
    return snapshot_host_absent(addr) || is_fresh(addr);
}

bool snapshot_add(const uint64_t *list, uint64_t count)
{
    if (count >= MANY_PAGES)
        sys_huge_pages((uint64_t)(uintptr_t)hash,
                       HASH_LEN * sizeof(hash[0]) + MAX_PAGES * sizeof(pages[0]));
    for (uint64_t i = 0; i < count; i++) {
        uint64_t run = 1; // of neighbours
        while (i + run < count && list[i + run] == list[i] + run * PAGE_SIZE &&
               !needs_no_copy(list[i]))
            run++;
        if (!needs_no_copy(list[i]))
            sys_populate(list[i], run * PAGE_SIZE);
        for (uint64_t k = 0; k < run; k++) {
            if (!add_page(list[i + k]))
                broken = true;
        }
        i += run - 1;
    }
    return !broken;
}

static void add_mapped(uint64_t start, uint64_t end, uint64_t (*next)(uint64_t addr, uint64_t end))
{
    uint32_t changed = 0;
    uint64_t page = start & ~(uint64_t)(PAGE_SIZE - 1);
    if (!taken || restoring)
        return;
    while (!broken && (page = next(page, end)) < end) {
        broken = changed++ == MAX_CHANGED || !add_page(page);
        page += PAGE_SIZE;
    }
}

static uint64_t next_mapped(uint64_t addr, uint64_t end)
{
    return snapshot_host_next_mapped(addr, end, 0);
}

/* The first page in [addr, end) that would not be the same if it was mapped anew. */
static uint64_t next_of_worth(uint64_t addr, uint64_t end)
{
    for (;;) {
        addr = snapshot_host_next_mapped(addr, end, era);
        uint64_t anon_end = addr < end && clean ? snapshot_host_anon_end(addr) : 0;
        struct addr_range r;
        if (!anon_end)
            return addr;
        if (ranges_next(&given, addr, anon_end < end ? anon_end : end, &r))
            return r.start;
        if (anon_end >= end)
            return end;
        addr = anon_end;
    }
}

void snapshot_before_write(uint64_t start, uint64_t end)
{
    if (!taken || !ran)
        snapshot_given(start, end);
    add_mapped(start, end, next_mapped);
}

void snapshot_before_discard(uint64_t start, uint64_t end)
{
    add_mapped(start, end, next_of_worth);
}

uint32_t snapshot_era(void)
{
    return taken ? era : 0;
}

static void drop(uint32_t idx)
{
    if (!(taken >> idx & 1))
        return;
    first = first == idx ? NONE : first;
    for (uint32_t i = 0; i < page_count; i++) {
        release(pages[i].copies[idx]);
        pages[i].copies[idx] = 0;
    }
    for (uint32_t i = 0; i < task_copy_count;) {
        if (task_copies[i].snapshot == idx)
            task_copies[i] = task_copies[--task_copy_count];
        else
            i++;
    }
    taken &= ~(1u << idx);
}

bool snapshot_take(uint32_t idx, struct engine_task *const *tasks)
{
    if (idx >= WORKER_SNAPSHOTS || broken)
        return false;
    drop(idx);
    bool is_first = taken == 0;
    for (uint32_t slot = 0; slot < WORKER_MAX_TASKS; slot++) {
        if (!tasks[slot])
            continue;
        if (task_copy_count == MAX_TASK_COPIES) {
            broken = true;
            return false;
        }
        engine_sync_xstate(tasks[slot]);
        task_copies[task_copy_count].snapshot = idx;
        task_copies[task_copy_count].slot = slot;
        task_copies[task_copy_count].xstate_valid = tasks[slot]->xstate_valid;
        __builtin_memcpy(task_copies[task_copy_count++].xstate, tasks[slot]->xstate, XSTATE_MAX);
    }
    for (uint32_t i = 0; i < page_count; i++) {
        // Most pages are as they were at the last snapshot.
        struct page *p = &pages[i];
        uint32_t copy = is_first ? 0 : p->copies[newest];
        if (is_first || !holds(p->addr, copy))
            copy = copy_page(p->addr);
        if (copy == NO_ROOM) {
            broken = true;
            return false;
        }
        p->copies[idx] = copy;
        use(copy);
    }
    first = is_first && !ran ? idx : first;
    taken |= 1u << idx;
    newest = idx;
    return true;
}

static uint64_t count_in_set(uint64_t start, uint64_t end)
{
    uint64_t count = 0;
    for (uint64_t addr = start; addr < end; addr += PAGE_SIZE)
        count += *hash_slot(addr) != 0;
    return count;
}

void snapshot_keep_fetched(bool keep)
{
    keep_fetched = keep;
}

void snapshot_fetched(uint64_t start, uint64_t end)
{
    bool all = keep_fetched &&
               copy_count - free_count < MAX_COPIES / 2; // the rest is for what has to be copied
    if (!taken || (!all && count_in_set(start, end) > MOST_COPIED))
        return;
    for (uint64_t addr = start; addr < end && !broken; addr += PAGE_SIZE) {
        uint32_t number = *hash_slot(addr), copy = 0;
        for (uint32_t i = 0; number && !broken && i < WORKER_SNAPSHOTS; i++) {
            uint32_t *held = &pages[number - 1].copies[i];
            if (*held != ABSENT)
                continue;
            copy = copy ? copy : copy_page(addr);
            broken = copy == NO_ROOM;
            *held = broken ? 0 : copy;
            use(*held);
        }
    }
}

/* Has the page to be discarded, for it to hold what the copy says? */
static bool is_discarded(uint64_t addr, uint32_t copy)
{
    return (copy == FRESH || (copy == ABSENT && !snapshot_host_absent(addr))) &&
           engine_host_prot(addr) >= 0;
}

/* Makes pages hold what snapshot idx says: number `at` of the set, and neighbours behind it that
 * are alike. *count_out: how many. */
static bool put_back(uint32_t at, uint32_t idx, uint32_t *count_out)
{
    uint64_t addr = pages[at].addr, count = 1;
    uint32_t copy = pages[at].copies[idx];
    *count_out = 1;
    if (is_discarded(addr, copy)) {
        while (at + count < page_count && pages[at + count].addr == addr + count * PAGE_SIZE &&
               pages[at + count].copies[idx] == copy &&
               is_discarded(addr + count * PAGE_SIZE, copy))
            count++;
        *count_out = (uint32_t)count;
        return snapshot_host_discard(addr, addr + count * PAGE_SIZE, copy == ABSENT);
    }
    if (!copy || engine_host_prot(addr) < 0 || holds(addr, copy))
        return true;
    return snapshot_host_copy(addr, bytes_of(copy), PAGE_SIZE, true) == PAGE_SIZE;
}

void snapshot_restoring(void)
{
    restoring = true;
}

bool snapshot_restore(uint32_t idx)
{
    restoring = false;
    if (idx >= WORKER_SNAPSHOTS || broken || !(taken >> idx & 1))
        return false;
    for (uint32_t i = 0, count; i < page_count; i += count) {
        if (!put_back(i, idx, &count))
            return false;
    }
    for (uint32_t i = 0; i < task_copy_count; i++) {
        if (task_copies[i].snapshot != idx)
            continue;
        struct engine_task *task = snapshot_host_task(task_copies[i].slot);
        engine_xstate_changed(task);
        task->xstate_valid = task_copies[i].xstate_valid;
        __builtin_memcpy(task->xstate, task_copies[i].xstate, XSTATE_MAX);
    }
    ran = idx != first;
    newest = idx;
    return true;
}
