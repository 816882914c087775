/* The worker's side of the wire: a loop that obeys commands. Freestanding; see engine.h. */
#include "worker/absent.h"
#include "worker/calls.h"
#include "worker/consume.h"
#include "worker/dump.h"
#include "worker/engine_int.h"
#include "worker/freestanding.h"
#include "worker/gather.h"
#include "worker/hooks.h"
#include "worker/machine.h"
#include "worker/marks.h"
#include "worker/snapshot.h"
#include "worker/steps.h"
#include "worker/syscalls.h"
#include "worker/wire.h"

#include "worker/seccomp_filter.h"

#include "x86/xstate.h"

enum { MAX_FDS = 4, PAGE_MASK = PAGE_SIZE - 1 };
#define TOP_OF_MEMORY 0x7ffffffff000ull
/* Lengths of mappings that get huge pages where there are any. */
#define LEAST_HUGE (16ull << 20)
#define MOST_HUGE  (4ull << 30)

static struct wire_boot boot;
static uint8_t *window;
static struct wire_control *control;
static uint32_t seen; /* the last command obeyed */
static uint64_t heap_at;

static void futex(uint32_t *word, int op, uint32_t value)
{
    sys_call6(202, (uint64_t)(uintptr_t)word, (uint64_t)op, value, 0, 0, 0);
}

static void publish(uint32_t number)
{
    __atomic_store_n(&control->answered, number, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&control->coordinator_sleeps, __ATOMIC_SEQ_CST))
        futex(&control->answered, 1, 1); // FUTEX_WAKE
}

void engine_host_fatal(const char *message)
{
    // The last words go into the window, where the coordinator finds them.
    size_t len = strlen(message);
    memcpy(window, message, len < 200 ? len + 1 : 200);
    publish(WIRE_DEAD);
    for (;;)
        sys_call6(231, 99, 0, 0, 0, 0, 0); // exit_group
}

/* --- what Zydis expects of libc besides freestanding.c --- */

#pragma GCC visibility push(default)
void __assert_fail(const char *what, const char *file, unsigned line, const char *function)
    __attribute__((noreturn));
void __stack_chk_fail(void) __attribute__((noreturn));
#pragma GCC visibility pop

void __assert_fail(const char *what, const char *file, unsigned line, const char *function)
{
    engine_host_fatal(what);
}

void __stack_chk_fail(void)
{
    engine_host_fatal("stack smashed");
}

void *engine_host_alloc(size_t len)
{
    uint64_t at = (heap_at + PAGE_MASK) & ~(uint64_t)PAGE_MASK;
    if (len > boot.heap + boot.heap_len - at)
        engine_host_fatal("the worker's heap is full");
    heap_at = at + len;
    return (void *)(uintptr_t)at;
}

/* --- the guest's mappings --- */

struct map_entry {
    uint64_t start, end;
    int prot;
    /* Shared memory: which, and where in it `start` is; object 0: not shared. */
    uint64_t object, offset;
    bool anon;    /* private, and of no file */
    uint32_t era; /* snapshot_era() when it was mapped; 0: it is not as it was mapped, but for pages
                     of the set */
};
enum { MAX_MAPS = 1 << 18 };
static struct map_entry *maps;
static size_t map_count;

static size_t first_behind(uint64_t addr)
{
    size_t low = 0, high = map_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (maps[middle].end > addr)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

int engine_host_prot(uint64_t addr)
{
    size_t i = first_behind(addr);
    return i < map_count && maps[i].start <= addr ? maps[i].prot : -1;
}

static void insert(size_t idx, struct map_entry m)
{
    if (map_count == MAX_MAPS)
        engine_host_fatal("too many mappings");
    memmove(&maps[idx + 1], &maps[idx], (map_count - idx) * sizeof(m));
    maps[idx] = m;
    map_count++;
}

static void split(uint64_t addr)
{
    size_t i = first_behind(addr);
    if (i == map_count || maps[i].start >= addr)
        return;
    struct map_entry upper = maps[i];
    upper.start = addr;
    upper.offset += addr - maps[i].start;
    maps[i].end = addr;
    insert(i + 1, upper);
}

static void table_remove(uint64_t start, uint64_t end)
{
    split(start);
    split(end);
    size_t first = first_behind(start), last = first;
    while (last < map_count && maps[last].start < end)
        last++;
    memmove(&maps[first], &maps[last], (map_count - last) * sizeof(maps[0]));
    map_count -= last - first;
}

static void table_set(struct map_entry m)
{
    table_remove(m.start, m.end);
    insert(first_behind(m.start), m);
}

static void table_protect(uint64_t start, uint64_t end, int prot)
{
    split(start);
    split(end);
    for (size_t i = first_behind(start); i < map_count && maps[i].start < end; i++)
        maps[i].prot = prot;
}

uint64_t engine_host_alias(uint64_t page, uint64_t behind)
{
    size_t i = first_behind(page);
    if (i == map_count || maps[i].start > page || !maps[i].object)
        return 0;
    uint64_t offset = maps[i].offset + (page - maps[i].start);
    for (size_t j = first_behind(behind); j < map_count; j++) {
        const struct map_entry *m = &maps[j];
        if (m->object != maps[i].object || offset < m->offset ||
            offset - m->offset >= m->end - m->start)
            continue;
        uint64_t at = m->start + (offset - m->offset);
        if (at > behind && at != page)
            return at;
    }
    return 0;
}

/* Shared memory in [start, end) was written or may now be: translations of it, wherever it is
 * mapped, go. */
static void forget_shared_code(uint64_t start, uint64_t end)
{
    for (size_t i = first_behind(start); i < map_count && maps[i].start < end; i++) {
        if (!maps[i].object)
            continue;
        uint64_t from = maps[i].start > start ? maps[i].start : start,
                 to = maps[i].end < end ? maps[i].end : end;
        uint64_t first = maps[i].offset + (from - maps[i].start), last = first + (to - from);
        for (size_t j = 0; j < map_count; j++) {
            const struct map_entry *m = &maps[j];
            if (m->object != maps[i].object || !(m->prot & 4))
                continue;
            uint64_t m_end = m->offset + (m->end - m->start);
            uint64_t low = m->offset > first ? m->offset : first,
                     high = m_end < last ? m_end : last;
            if (low < high)
                engine_memory_changed(m->start + (low - m->offset), high - low);
        }
    }
}

struct addr_range engine_host_region(uint64_t addr)
{
    size_t i = first_behind(addr);
    if (i == map_count || maps[i].start > addr)
        return (struct addr_range){addr & ~(uint64_t)PAGE_MASK, (addr | PAGE_MASK) + 1};
    size_t first = i, last = i;
    while (first && maps[first - 1].end == maps[first].start && (maps[first - 1].prot & 2))
        first--;
    while (last + 1 < map_count && maps[last].end == maps[last + 1].start &&
           (maps[last + 1].prot & 2))
        last++;
    return (struct addr_range){maps[first].start, maps[last].end};
}

/* --- tasks --- */

static struct engine_task **tasks;
static struct engine_task *free_task;

static struct engine_task *task_at(uint32_t slot)
{
    if (!tasks[slot]) {
        if (free_task) {
            tasks[slot] = free_task;
            free_task = NULL;
            memset(tasks[slot], 0, sizeof(struct engine_task));
        } else {
            tasks[slot] = engine_host_alloc(sizeof(struct engine_task));
        }
    }
    return tasks[slot];
}

struct engine_task *snapshot_host_task(uint32_t slot)
{
    return task_at(slot);
}

/* Clears what XRSTOR would refuse (SDM 1, 13.8): state this CPU has not, the compacted format,
 * unknown bits of MXCSR. */
static void make_loadable(uint8_t *xstate)
{
    uint64_t *header = (uint64_t *)(void *)(xstate + 512);
    uint32_t *mxcsr = (uint32_t *)(void *)(xstate + 24);
    header[0] &=
        (xstate_xcr0() & XSTATE_KEPT) | (engine_isa()->emulates_avx512 ? XSTATE_AVX512 : 0);
    memset(&header[1], 0, 56);
    *mxcsr &= 0xffff;
}

/* --- commands --- */

static int64_t kernel_error(uint64_t result)
{
    return (int64_t)result < 0 && (int64_t)result > -4096 ? -(int64_t)result : 0;
}

/* Guest memory ranges must not touch the worker's own. */
static bool foreign(uint64_t start, uint64_t end)
{
    return start < end && end <= TOP_OF_MEMORY + PAGE_SIZE &&
           (end <= boot.keep.start || start >= boot.keep.end) &&
           (end <= boot.layout.low_area ||
            start >= boot.layout.low_area + boot.layout.low_area_len) &&
           (end <= boot.layout.log_area ||
            start >= boot.layout.log_area + ENGINE_LOG_LEN + PAGE_SIZE);
}

/* Guest code is never executed in place, only read; so its pages need no PROT_EXEC, which files on
 * a noexec mount could not have. On x86 what may be written or executed may be read, too. */
static int real_prot(int prot)
{
    return prot & 4 ? (prot & ~4) | 1 : prot;
}

/* Gives pages the protections of the table, after the engine has forgotten what it withheld. */
static void restore_protection(uint64_t start, uint64_t end)
{
    for (size_t i = first_behind(start); i < map_count && maps[i].start < end; i++) {
        uint64_t from = maps[i].start > start ? maps[i].start : start,
                 to = maps[i].end < end ? maps[i].end : end;
        sys_mprotect(from, to - from, real_prot(maps[i].prot));
    }
}

/* --- contents that the coordinator has --- */

/* Takes contents that are in the window's file, `off` bytes behind those of the chunk's start. */
static void read_fetched(uint64_t addr, uint64_t off, uint64_t len)
{
    sys_populate(addr, len);
    if (off < WIRE_FETCH_NEAR && len <= WIRE_FETCH_NEAR - off) {
        memcpy((void *)(uintptr_t)addr, window + FETCH_AT + off, len);
        return;
    }
    while (len) {
        uint64_t n =
            sys_call6(17, (uint64_t)boot.window_fd, addr, len, FETCH_AT + off, 0, 0); // pread64
        if (kernel_error(n) || !n)
            engine_host_fatal("the program's memory cannot be read");
        addr += n;
        off += n;
        len -= n;
    }
}

static bool is_present(uint64_t page)
{
    return control->fetch_present[page / 64] >> page % 64 & 1;
}

/* Asks for a chunk, and waits. */
static void fetch(struct addr_range chunk)
{
    static struct wire_patience patience;
    uint32_t before = __atomic_load_n(&control->fetched, __ATOMIC_SEQ_CST);
    control->fetch_start = chunk.start;
    control->fetch_end = chunk.end;
    publish(WIRE_WANTS);
    while (__atomic_load_n(&control->fetched, __ATOMIC_ACQUIRE) == before) {
        if (!wire_spin(&control->fetched, before, &patience))
            futex(&control->fetched, 0, before); // FUTEX_WAIT
    }
    if (!absent_drop(chunk.start, chunk.end) ||
        sys_mprotect(chunk.start, chunk.end - chunk.start, 3) != 0)
        engine_host_fatal("no room for the program's memory");
    uint64_t count = (chunk.end - chunk.start) / PAGE_SIZE, run;
    for (uint64_t i = 0; i < count; i += run + 1) {
        for (run = 0; i + run < count && is_present(i + run); run++) {
        }
        if (run)
            read_fetched(chunk.start + i * PAGE_SIZE, i * PAGE_SIZE, run * PAGE_SIZE);
    }
    snapshot_fetched(chunk.start, chunk.end);
    restore_protection(chunk.start, chunk.end);
}

bool engine_host_fetch(uint64_t addr)
{
    struct addr_range chunk;
    if (!absent_chunk(addr, &chunk))
        return false;
    fetch(chunk);
    return true;
}

/* All of [start, end) is wanted. */
static void fetch_all(uint64_t start, uint64_t end)
{
    struct addr_range r;
    while (absent_next(start, end, &r))
        engine_host_fetch(r.start);
}

/* What is absent in [start, end) is not wanted any more. */
static void forget_absent(uint64_t start, uint64_t end)
{
    if (!absent_drop(start, end))
        engine_host_fatal("too many ranges of absent memory");
}

/* The same of memory that stays mapped. */
static void discard_absent(uint64_t start, uint64_t end)
{
    struct addr_range r;
    while (absent_next(start, end, &r)) {
        forget_absent(r.start, r.end);
        restore_protection(r.start, r.end);
    }
}

/* Nobody may touch what is absent, whatever the program's protections. False: the kernel has too
 * many mappings. */
static bool withhold_absent(uint64_t start, uint64_t end)
{
    struct addr_range r;
    for (uint64_t at = start; absent_next(at, end, &r); at = r.end) {
        if (sys_mprotect(r.start, r.end - r.start, 0) != 0)
            return false;
    }
    return true;
}

static bool discard(uint64_t start, uint64_t end)
{
    return sys_call6(28, start, end - start, 4, 0, 0, 0) == 0; // madvise(MADV_DONTNEED)
}

/* Makes memory absent. False: there is no room in a table. */
static bool leave_out(uint64_t start, uint64_t end)
{
    engine_memory_changed(start, end - start);
    engine_filter_prot(start, end - start, 0);
    return discard(start, end) && absent_add(start, end) && withhold_absent(start, end);
}

bool snapshot_host_absent(uint64_t addr)
{
    struct addr_range r;
    return absent_next(addr, addr + PAGE_SIZE, &r);
}

bool snapshot_host_discard(uint64_t start, uint64_t end, bool absent)
{
    if (absent)
        return leave_out(start, end);
    engine_memory_changed(start, end - start);
    return discard(start, end);
}

static int64_t do_absent(const struct wire_command *c)
{
    const struct addr_range *r = (const struct addr_range *)(void *)window;
    if (c->len > WINDOW_LEN)
        return 22;
    for (uint64_t i = 0; i < c->len / sizeof(*r); i++) {
        uint64_t start = r[i].start, end = r[i].end;
        if (!foreign(start, end) || (start | end) & PAGE_MASK)
            return 22;
        if (!leave_out(start, end))
            return 12;
        snapshot_given(start, end);
    }
    return 0;
}

static int64_t do_map(uint64_t start, const struct wire_range *r, int fd)
{
    if (!foreign(start, r->end))
        return 22;
    int flags = 0x10 | 0x4000; // fixed, no reserve
    flags |= r->kind == MAP_KIND_SHARED ? 0x01 : 0x02;
    if (r->kind == MAP_KIND_ANON)
        flags |= 0x20;
    snapshot_before_discard(start, r->end);
    forget_absent(start, r->end);
    engine_memory_changed(start, r->end - start);
    engine_filter_prot(start, r->end - start, r->prot);
    uint64_t at = sys_mmap(start, r->end - start, real_prot(r->prot), flags,
                           r->kind == MAP_KIND_ANON ? -1 : fd, r->offset);
    if (kernel_error(at))
        return kernel_error(at);
    // An array, as a rule: page faults and copies of page tables cost more than what a huge page
    // wastes. Not a stack of a thread, and not address space that was taken in advance.
    uint64_t len = r->end - start;
    if (r->kind == MAP_KIND_ANON && len >= LEAST_HUGE && len <= MOST_HUGE)
        sys_call6(28, start, len, 14, 0, 0, 0); // madvise(MADV_HUGEPAGE)
    bool shared = r->kind == MAP_KIND_SHARED;
    table_set((struct map_entry){start, r->end, r->prot, shared ? r->object : 0, r->offset,
                                 r->kind == MAP_KIND_ANON, shared ? 0 : snapshot_era()});
    forget_shared_code(start, r->end);
    return 0;
}

static void receive(int fds[MAX_FDS]);

static int64_t map_range(uint64_t start, const struct wire_range *r)
{
    int fds[MAX_FDS] = {-1, -1, -1, -1};
    if (r->kind == MAP_KIND_ANON)
        return do_map(start, r, -1);
    receive(fds);
    int64_t error = do_map(start, r, fds[0]);
    sys_call6(3, (uint64_t)fds[0], 0, 0, 0, 0, 0);
    return error;
}

static int64_t do_unmap(const struct wire_command *c)
{
    if (!foreign(c->start, c->end))
        return 22;
    snapshot_before_discard(c->start, c->end);
    forget_absent(c->start, c->end);
    engine_memory_changed(c->start, c->end - c->start);
    engine_filter_prot(c->start, c->end - c->start, 0);
    table_remove(c->start, c->end);
    return -sys_munmap(c->start, c->end - c->start);
}

static int64_t do_protect(const struct wire_command *c)
{
    if (!foreign(c->start, c->end))
        return 22;
    int prot = engine_filter_prot(c->start, c->end - c->start, c->prot);
    int64_t result = sys_mprotect(c->start, c->end - c->start, real_prot(prot));
    if (result == 0) {
        table_protect(c->start, c->end, c->prot);
        forget_shared_code(c->start, c->end);
    }
    if (result == 0 && !withhold_absent(c->start, c->end))
        return 12;
    return -result;
}

/* mremap(2) moves one mapping of the kernel's at a time, and the kernel's may be smaller than ours.
 */
static int64_t move_piece(uint64_t from, uint64_t to, uint64_t len, bool keep)
{
    uint64_t result = sys_call6(25, from, len, len, 1 | 2 | (keep ? 4u : 0), to, 0);
    int64_t error = kernel_error(result);
    if (error != 14 || len <= PAGE_SIZE)
        return error;
    uint64_t half = len / 2 & ~(uint64_t)PAGE_MASK;
    error = move_piece(from, to, half, keep);
    return error ? error : move_piece(from + half, to + half, len - half, keep);
}

static int64_t do_move(const struct wire_command *c)
{
    uint64_t from = c->start, from_len = c->len, to = c->offset, to_len = c->end;
    if (!foreign(from, from + from_len) || !foreign(to, to + to_len))
        return 22;
    fetch_all(from, from + from_len);
    snapshot_before_discard(from, from + from_len);
    snapshot_before_discard(to, to + to_len);
    forget_absent(to, to + to_len);
    engine_memory_changed(from, from_len);
    engine_filter_prot(from, from_len, 0);
    engine_memory_changed(to, to_len);
    engine_filter_prot(to, to_len, 0);
    restore_protection(from, from + from_len);
    uint64_t done = 0;
    table_remove(to, to + to_len);
    while (done < from_len) {
        split(from);
        split(from + from_len);
        size_t i = first_behind(from + done);
        if (i == map_count || maps[i].start > from + done)
            return 14;
        struct map_entry m = maps[i];
        uint64_t len = m.end - m.start;
        int64_t error = move_piece(m.start, to + done, len, c->kind);
        if (error)
            return error;
        table_set(
            (struct map_entry){to + done, to + done + len, m.prot, m.object, m.offset, m.anon, 0});
        if (!c->kind)
            table_remove(m.start, m.end);
        done += len;
    }
    snapshot_given(to, to + to_len);
    forget_shared_code(to, to + to_len);
    return 0;
}

uint64_t snapshot_host_next_mapped(uint64_t addr, uint64_t end, uint32_t but_era)
{
    size_t i = first_behind(addr);
    while (but_era && i < map_count && maps[i].era == but_era)
        i++;
    if (i == map_count || maps[i].start >= end)
        return end;
    return maps[i].start > addr ? maps[i].start : addr;
}

uint64_t snapshot_host_anon_end(uint64_t addr)
{
    size_t i = first_behind(addr);
    return i < map_count && maps[i].start <= addr && maps[i].anon ? maps[i].end : 0;
}

/* How much from addr on, at most len, the recording has mapped: behind that may be memory of this
 * process itself. */
static uint64_t mapped_len(uint64_t addr, uint64_t len)
{
    uint64_t at = addr;
    for (size_t i = first_behind(addr); i < map_count && maps[i].start <= at && at - addr < len;
         i++)
        at = maps[i].end;
    return at - addr < len ? at - addr : len;
}

/* How far the memory at addr is protected alike: to the end of its mapping, or of the page where
 * single pages may have been withheld. */
static uint64_t protected_end(uint64_t addr)
{
    const struct map_entry *m = &maps[first_behind(addr)];
    return m->prot & 2 ? (addr & ~(uint64_t)PAGE_MASK) + PAGE_SIZE : m->end;
}

uint64_t snapshot_host_copy(uint64_t addr, uint8_t *bytes, uint64_t len, bool write)
{
    uint64_t done = 0;
    len = write ? len : mapped_len(addr, len);
    fetch_all(addr, addr + len);
    if (write) {
        engine_memory_changed(addr, len);
        forget_shared_code(addr, addr + len);
    }
    while (done < len) {
        uint64_t at = addr + done;
        done += write ? engine_copy_to_guest(at, bytes + done, len - done)
                      : engine_copy_from_guest(bytes + done, at, len - done);
        if (done == len)
            break;
        at = addr + done;
        int prot = engine_host_prot(at);
        if (prot < 0)
            break;
        uint64_t page = at & ~(uint64_t)PAGE_MASK, part = len - done, end = protected_end(at);
        if (part > end - at)
            part = end - at;
        uint64_t whole = ((at + part + PAGE_MASK) & ~(uint64_t)PAGE_MASK) - page;
        if (sys_mprotect(page, whole, 3) != 0)
            break;
        size_t n = write ? engine_copy_to_guest(at, bytes + done, part)
                         : engine_copy_from_guest(bytes + done, at, part);
        sys_mprotect(page, whole, real_prot(engine_filter_prot(page, whole, prot)));
        done += n;
        if (n < part)
            break;
    }
    return done;
}

/* Copies to and from guest memory, whatever its protection. */
static int64_t do_read(const struct wire_command *c, uint64_t *done_out)
{
    if (c->len > WINDOW_LEN)
        return 22;
    *done_out = snapshot_host_copy(c->start, window, c->len, false);
    return *done_out == c->len ? 0 : 14;
}

static int64_t do_write(uint64_t start, uint64_t len, uint8_t *bytes, uint64_t *done_out)
{
    if (len > WINDOW_LEN || !foreign(start, start + len))
        return 22;
    snapshot_before_write(start, start + len);
    if (len > PAGE_SIZE)
        sys_populate(start, len);
    *done_out = snapshot_host_copy(start, bytes, len, true);
    return *done_out == len ? 0 : 14;
}

/* Pages that are about to be written as a whole: what they hold, which may be shared with a copy of
 * this process, need not be copied first, and large pages will do. */
static void do_expect(uint64_t start, uint64_t len)
{
    const uint64_t mask = (2 << 20) - 1;
    uint64_t from = (start + mask) & ~mask, to = (start + len) & ~mask;
    if (!foreign(start, start + len))
        return;
    snapshot_before_write(start, start + len);
    discard_absent(start, start + len);
    discard(start, start + len);
    if (to > from)
        sys_huge_pages(from, to - from);
}

static int64_t do_dontneed(const struct wire_command *c)
{
    if (!foreign(c->start, c->end))
        return 22;
    snapshot_before_discard(c->start, c->end);
    discard_absent(c->start, c->end);
    engine_memory_changed(c->start, c->end - c->start);
    forget_shared_code(c->start, c->end);
    return kernel_error(sys_call6(28, c->start, c->end - c->start, 4, 0, 0, 0));
}

static int64_t do_range(uint32_t op, uint64_t start, const struct wire_range *r)
{
    const struct wire_command c = {.op = op, .start = start, .end = r->end, .prot = r->prot};
    switch (op) {
    case WIRE_MAP:
        return map_range(start, r);
    case WIRE_UNMAP:
        return do_unmap(&c);
    case WIRE_PROTECT:
        return do_protect(&c);
    default:
        return do_dontneed(&c);
    }
}

static void set_xstate(uint32_t slot, const uint8_t *image)
{
    struct engine_task *t = task_at(slot);
    engine_xstate_changed(t);
    t->xstate_valid = image != NULL;
    if (image) {
        memcpy(t->xstate, image, XSTATE_MAX);
        make_loadable(t->xstate);
    }
}

static void obey_one(const struct wire_queued *q, uint8_t *data)
{
    struct wire_failure failure = {.op = q->op, .start = q->start};
    uint64_t value = 0, done = 0;
    struct wire_breaks breaks;
    struct wire_range range = {0};
    switch (q->op) {
    case WIRE_BREAKS:
        memcpy(&breaks, data, sizeof(breaks));
        hooks_set_breaks((const uint64_t *)(void *)(data + sizeof(breaks)),
                         (q->len - sizeof(breaks)) / sizeof(uint64_t),
                         breaks.if_rax ? &breaks.rax : NULL);
        return;
    case WIRE_CLOCK:
        memcpy(&value, data, sizeof(value));
        machine_clock(q->start, value);
        return;
    case WIRE_EXPECT:
        memcpy(&value, data, sizeof(value));
        do_expect(q->start, value);
        return;
    case WIRE_ISA:
        engine_set_isa((const struct engine_isa *)(void *)data);
        return;
    case WIRE_CPUID:
        machine_set_cpuid((const struct worker_cpuid *)(void *)data,
                          q->len / sizeof(struct worker_cpuid));
        return;
    case WIRE_SET_XSTATE:
        set_xstate((uint32_t)q->start, q->len ? data : NULL);
        return;
    case WIRE_WRITE:
        failure.error = (int32_t)do_write(q->start, q->len, data, &done);
        failure.start += done;
        break;
    default:
        memcpy(&range, data, sizeof(range));
        failure.end = range.end;
        failure.error = (int32_t)do_range(q->op, q->start, &range);
    }
    if (failure.error && !control->failure.error)
        control->failure = failure;
}

static void obey_queued(uint32_t len)
{
    uint8_t *queue = window + QUEUE_AT;
    struct wire_queued q;
    for (uint32_t at = 0; len <= QUEUE_LEN && len - at >= sizeof(q);) {
        memcpy(&q, queue + at, sizeof(q));
        at += sizeof(q);
        if (q.len > len - at)
            break;
        obey_one(&q, queue + at);
        at += (q.len + 7) & ~7u;
    }
}

static int64_t do_snapshot(const struct wire_command *c)
{
    bool ok = true;
    switch (c->kind) {
    case SNAPSHOT_ADD:
        ok = c->len <= WINDOW_LEN &&
             snapshot_add((const uint64_t *)(void *)window, c->len / sizeof(uint64_t));
        break;
    case SNAPSHOT_TAKE:
        ok = snapshot_take(c->slot, tasks);
        break;
    case SNAPSHOT_RESTORING:
        snapshot_restoring();
        break;
    case SNAPSHOT_RESTORE:
        ok = snapshot_restore(c->slot);
        break;
    case SNAPSHOT_FETCHED:
        snapshot_keep_fetched(c->slot);
        break;
    default:
        snapshot_forget();
    }
    return ok ? 0 : 12; // ENOMEM
}

static void do_run(const struct wire_command *c, struct wire_reply *reply)
{
    snapshot_ran();
    struct engine_task *task = task_at(c->slot);
    if (c->run.set_regs)
        task->regs = c->run.regs;
    if (c->run.request.clear_x87)
        engine_clear_x87(task);
    machine_run(task, c->slot, &c->run.request, &reply->result);
    reply->regs = task->regs;
}

static void do_peeks(const struct wire_command *c, struct wire_reply *reply)
{
    for (int i = 0; i < WIRE_PEEKS; i++) {
        const struct wire_peek *p = &c->run.peeks[i];
        if (p->len && p->at <= PEEK_LEN && p->len <= PEEK_LEN - p->at)
            reply->peeked[i] =
                (uint32_t)snapshot_host_copy(p->addr, window + PEEK_AT + p->at, p->len, false);
    }
}

static bool is_as_expected(const struct worker_stop *want, const struct wire_reply *have)
{
    if (have->result.reason != want->reason || have->result.insn_len != want->insn_len ||
        have->result.ticks != want->ticks)
        return false;
    for (unsigned i = 0; i < UREG_COUNT; i++) {
        if ((want->mask >> i & 1) && have->regs.r[i] != want->regs.r[i])
            return false;
    }
    return true;
}

/* Goes on from stop to stop by the script at `at` in the queue. A run that used up its limit is the
 * last one. */
static void run_script(struct wire_command *c, struct wire_reply *reply, uint32_t at, uint32_t end)
{
    struct wire_stopped *stopped = (struct wire_stopped *)(void *)window;
    struct worker_stop want;
    struct wire_queued q;
    uint64_t *left = &c->run.request.max_icount;
    for (; at <= end && end <= QUEUE_LEN && end - at >= sizeof(q); at += (q.len + 7) & ~7u) {
        uint8_t *data = window + QUEUE_AT + at + sizeof(q);
        memcpy(&q, window + QUEUE_AT + at, sizeof(q));
        at += sizeof(q);
        if (q.len > end - at)
            return;
        if (q.op == WIRE_STOPPED) {
            memcpy(&want, data, sizeof(want));
            if (!is_as_expected(&want, reply) || reply->result.icount >= *left ||
                reply->stopped == WORKER_MAX_AHEAD)
                return;
            if (*left != UINT64_MAX)
                *left -= reply->result.icount;
            stopped[reply->stopped++] = (struct wire_stopped){reply->result.icount, reply->regs};
        } else if (q.op == WIRE_GO) {
            c->slot = (uint32_t)q.start;
            c->run.request.clear_x87 = engine_isa()->x87_saves_pending; // an event is in between
            memcpy(&c->run.regs, data, sizeof(c->run.regs));
            do_run(c, reply);
        } else {
            obey_one(&q, data);
            if (control->failure.error)
                return;
        }
    }
}

static void await_go(void);

/* A copy of this process that obeys the socket fds[0] with the window fds[1] and the lifeline
 * fds[2]; the memory of its marks is fds[3]. */
static int64_t do_fork(const int fds[MAX_FDS], uint64_t *pid_out)
{
    uint64_t pid =
        sys_call6(56, 0x8000, 0, 0, 0, 0, 0); // clone(CLONE_PARENT), no signal at its end
    if (kernel_error(pid))
        return kernel_error(pid);
    if (pid) {
        *pid_out = pid;
        return 0;
    }
    sys_call6(3, (uint64_t)boot.socket, 0, 0, 0, 0, 0);
    sys_call6(3, (uint64_t)boot.lifeline, 0, 0, 0, 0, 0);
    sys_call6(3, (uint64_t)boot.layout.shadow_fd, 0, 0, 0, 0, 0);
    sys_call6(3, (uint64_t)boot.window_fd, 0, 0, 0, 0, 0);
    boot.socket = fds[0];
    boot.window_fd = fds[1];
    boot.lifeline = fds[2];
    boot.layout.shadow_fd = fds[3];
    marks_forked(fds[3]);
    gather_reset();
    if (sys_mmap((uint64_t)(uintptr_t)window, MAPPED_LEN, 3, 0x11, fds[1], 0) !=
        (uint64_t)(uintptr_t)window)
        sys_call6(231, 98, 0, 0, 0, 0, 0);
    seen = 0;
    snapshot_forked();
    steps_forked();
    dump_select(false);
    await_go();
    return -1;
}

static uint64_t take(uint32_t stream, uint64_t *left_out)
{
    if (stream < STREAM_LOGGED)
        return consume_take(stream, window, WINDOW_LEN, left_out);
    if (stream == STREAM_HOOKS)
        return hooks_take(window, WINDOW_LEN, left_out);
    if (stream == STREAM_HOOK_COUNTS)
        return hooks_take_counts(window, left_out);
    if (stream == STREAM_DUMP)
        return dump_take(window, WINDOW_LEN, left_out);
    if (stream > STREAM_HOOK_COUNTS)
        return steps_take(stream, window, WINDOW_LEN, left_out);
    if (stream == STREAM_STACK || stream == STREAM_FLOORS)
        return gather_take_stacks(stream, tasks, window, WINDOW_LEN, left_out);
    return gather_take(stream, window, WINDOW_LEN, left_out);
}

static void obey(struct wire_command *c, const int fds[MAX_FDS], struct wire_reply *reply)
{
    if (c->slot >= WORKER_MAX_TASKS) {
        reply->error = 22;
        return;
    }
    switch (c->op) {
    case WIRE_MOVE:
        reply->error = do_move(c);
        break;
    case WIRE_READ:
        reply->error = do_read(c, &reply->done);
        break;
    case WIRE_WRITE:
        reply->error = do_write(c->start, c->len, window, &reply->done);
        break;
    case WIRE_SET_REGS:
        task_at(c->slot)->regs = c->regs;
        break;
    case WIRE_GET_REGS:
        reply->regs = task_at(c->slot)->regs;
        break;
    case WIRE_GET_XSTATE: {
        struct engine_task *t = task_at(c->slot);
        engine_sync_xstate(t);
        memcpy(window, t->xstate, XSTATE_MAX);
        break;
    }
    case WIRE_DROP_TASK:
        if (tasks[c->slot]) {
            engine_task_gone(tasks[c->slot]);
            free_task = tasks[c->slot];
            tasks[c->slot] = NULL;
        }
        break;
    case WIRE_RUN:
        do_run(c, reply);
        run_script(c, reply, control->queued, control->queued + control->script);
        do_peeks(c, reply);
        break;
    case WIRE_CONSUME:
        consume_select(c, window);
        break;
    case WIRE_TAKE:
        reply->value = take(c->kind, &reply->done);
        break;
    case WIRE_HOOKS:
        reply->error = hooks_select(c, window) ? 0 : 22;
        break;
    case WIRE_DUMP:
        dump_select(c->kind);
        break;
    case WIRE_STEPS:
        steps_select(c, window);
        break;
    case WIRE_SET_STACK:
        gather_set_stack(task_at(c->slot), window, c->len);
        break;
    case WIRE_PUSH_CALL:
        gather_push_call(task_at(c->slot), window);
        break;
    case WIRE_RESET_INDEX:
        gather_reset();
        for (unsigned i = 0; c->kind && i < WORKER_MAX_TASKS; i++) {
            if (tasks[i] && tasks[i]->calls)
                calls_clear(tasks[i]->calls);
        }
        break;
    case WIRE_STATS:
        engine_get_stats((struct engine_stats *)(void *)window);
        break;
    case WIRE_FORK:
        reply->error = do_fork(fds, &reply->value);
        break;
    case WIRE_SNAPSHOT:
        reply->error = do_snapshot(c);
        break;
    case WIRE_ABSENT:
        reply->error = do_absent(c);
        break;
    case WIRE_FETCH_ALL:
        fetch_all(0, UINT64_MAX);
        break;
    case WIRE_PROBE: // tries a system call that the filter forbids; for the tests of the filter
        reply->value = sys_call6(c->start, 0, 0, 0, 0, 0, 0);
        break;
    default:
        reply->error = 38;
    }
}

/* --- the loop --- */

struct message {
    void *name;
    uint32_t name_len;
    struct {
        void *base;
        size_t len;
    } * iov;
    size_t iov_len;
    void *control;
    size_t control_len;
    int flags;
};

/* Takes a message from the socket, and the descriptors that came with it. */
static void receive(int fds[MAX_FDS])
{
    uint8_t byte;
    struct {
        void *base;
        size_t len;
    } iov = {&byte, 1};
    uint8_t header[64] __attribute__((aligned(8))) = {0};
    struct message m = {
        .iov = (void *)&iov, .iov_len = 1, .control = header, .control_len = sizeof(header)};
    for (int i = 0; i < MAX_FDS; i++)
        fds[i] = -1;
    int64_t n;
    while ((n = (int64_t)sys_call6(47, (uint64_t)boot.socket, (uint64_t)(uintptr_t)&m, 0, 0, 0,
                                   0)) == -4) {
    }
    if (n <= 0)
        sys_call6(231, 0, 0, 0, 0, 0, 0);
    uint64_t len = *(uint64_t *)(void *)header;
    for (unsigned i = 0; i < MAX_FDS && 20 + 4 * i <= m.control_len && 20 + 4 * i <= len; i++)
        memcpy(&fds[i], header + 16 + 4 * i, 4); // behind struct cmsghdr
}

/* Waits until the coordinator has armed the lifeline. From then on its end is the end of this
 * process. */
static void await_go(void)
{
    int fds[MAX_FDS];
    receive(fds);
}

static void await_command(void)
{
    static struct wire_patience patience;
    if (wire_spin(&control->posted, seen, &patience))
        return;
    __atomic_store_n(&control->worker_sleeps, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&control->posted, __ATOMIC_SEQ_CST) == seen)
        futex(&control->posted, 0, seen); // FUTEX_WAIT
    __atomic_store_n(&control->worker_sleeps, 0, __ATOMIC_SEQ_CST);
}

static void confine(void)
{
    static struct {
        uint16_t len;
        const struct filter_insn *filter;
    } program;
    program.len = sizeof(seccomp_filter) / sizeof(seccomp_filter[0]);
    program.filter = seccomp_filter;
    static const uint64_t no_core[2] = {0, 0};
    sys_call6(112, 0, 0, 0, 0, 0, 0); // setsid: the terminal's signals are not for us
    sys_call6(160, 4, (uint64_t)(uintptr_t)no_core, 0, 0, 0, 0); // setrlimit(RLIMIT_CORE)
    sys_call6(157, 4, 0, 0, 0, 0, 0);                            // prctl(PR_SET_DUMPABLE)
    sys_call6(157, 15, (uint64_t)(uintptr_t) "pernosco-worker", 0, 0, 0, 0); // prctl(PR_SET_NAME)
    sys_call6(157, 38, 1, 0, 0, 0, 0); // prctl(PR_SET_NO_NEW_PRIVS)
    // Where older kernels slow filtered processes down by default, SECCOMP_FILTER_FLAG_SPEC_ALLOW
    // (4) spares us: there is nothing to learn here but our own memory.
    if (sys_call6(317, 1, 4, (uint64_t)(uintptr_t)&program, 0, 0, 0) != 0 &&
        sys_call6(317, 1, 0, (uint64_t)(uintptr_t)&program, 0, 0, 0) != 0)
        engine_host_fatal("cannot install the seccomp filter");
}

static void close_all_but_ours(void)
{
    const int32_t kept[] = {boot.socket, boot.lifeline, boot.layout.shadow_fd, boot.window_fd};
    for (int32_t from = 0;;) {
        // The least of those to keep that has not been passed.
        int32_t next = INT32_MAX;
        for (int i = 0; i < 4; i++) {
            if (kept[i] >= from && kept[i] < next)
                next = kept[i];
        }
        if (next > from)
            sys_call6(436, (uint64_t)from, next == INT32_MAX ? UINT32_MAX : (uint64_t)next - 1, 0,
                      0, 0, 0); // close_range
        if (next == INT32_MAX)
            return;
        from = next + 1;
    }
}

/* The kernel begins here, with the arguments on a stack that is not to stay (psABI 3.4.1). */
static uint8_t own_stack[1 << 20] __attribute__((aligned(16), used));
__asm__(".globl worker_entry\n"
        "worker_entry:\n"
        "mov %rsp, %rdi\n"
        "lea own_stack + (1 << 20)(%rip), %rsp\n"
        "xor %ebp, %ebp\n"
        "call worker_start\n"
        "ud2\n");

static void must_be_mapped(uint64_t at)
{
    if (kernel_error(at))
        sys_call6(231, WIRE_NO_MEMORY, 0, 0, 0, 0, 0);
}

/* Finds out where everything is to be, and maps it. */
static void settle(const uint64_t *arguments)
{
    int fd = 0;
    for (const char *digit = (const char *)(uintptr_t)arguments[2]; *digit;
         digit++) // behind the count and the name
        fd = fd * 10 + (*digit - '0');
    uint64_t given = sys_mmap(0, PAGE_SIZE, 1, 0x01, fd, BOOT_AT);
    must_be_mapped(given);
    memcpy(&boot, (const void *)(uintptr_t)given, sizeof(boot));
    boot.window_fd = fd;
    uint64_t used_len = boot.layout.used_count * sizeof(struct addr_range);
    must_be_mapped(sys_mmap(boot.window, MAPPED_LEN, 3, 0x11, fd, 0));
    must_be_mapped(sys_mmap(boot.heap, boot.heap_len, 3, 0x4032, -1,
                            0)); // private, anonymous, fixed, no reserve
    boot.layout.used = (const struct addr_range *)(uintptr_t)boot.heap;
    if (used_len) {
        given = sys_mmap(0, used_len, 1, 0x01, fd, BOOT_AT + PAGE_SIZE);
        must_be_mapped(given);
        memcpy((void *)(uintptr_t)boot.heap, (const void *)(uintptr_t)given, used_len);
    }
    static const uint64_t no_signals;
    sys_call6(14, 2, (uint64_t)(uintptr_t)&no_signals, 0, 8, 0, 0); // rt_sigprocmask(SIG_SETMASK)
}

void worker_start(const uint64_t *arguments) __attribute__((noreturn, used));
void worker_start(const uint64_t *arguments)
{
    settle(arguments);
    window = (uint8_t *)(uintptr_t)boot.window;
    control = (struct wire_control *)(void *)(window + WINDOW_LEN);
    heap_at = boot.heap + boot.layout.used_count * sizeof(struct addr_range);
    sys_munmap(0x1000, boot.keep.start - 0x1000);
    sys_munmap(boot.keep.end, TOP_OF_MEMORY - boot.keep.end);
    close_all_but_ours();
    static uint8_t thread_area[4096]
        __attribute__((aligned(64))); // for Zydis: the stack protector's canary is in it
    sys_call6(158, 0x1002, (uint64_t)(uintptr_t)thread_area + 2048, 0, 0, 0,
              0); // arch_prctl(ARCH_SET_FS)
    maps = engine_host_alloc(MAX_MAPS * sizeof(maps[0]));
    tasks = engine_host_alloc(WORKER_MAX_TASKS * sizeof(tasks[0]));
    consume_init();
    hooks_init();
    steps_init();
    gather_init();
    snapshot_init();
    absent_init();
    engine_init(&boot.layout);
    confine();
    await_go();
    for (;;) {
        static struct wire_command c;
        static struct wire_reply reply;
        int fds[MAX_FDS] = {-1, -1, -1, -1};
        await_command();
        seen = __atomic_load_n(&control->posted, __ATOMIC_ACQUIRE);
        memcpy(&c, &control->command, sizeof(c));
        memset(&reply, 0, sizeof(reply));
        obey_queued(control->queued);
        if (c.fd_count)
            receive(fds);
        if (!control->failure.error)
            obey(&c, fds, &reply);
        if (reply.error == -1) // the copy made by a fork: it says nothing
            continue;
        for (int i = 0; i < MAX_FDS; i++) {
            if (fds[i] >= 0)
                sys_call6(3, (uint64_t)fds[i], 0, 0, 0, 0, 0);
        }
        memcpy(&control->reply, &reply, sizeof(reply));
        publish(seen);
    }
}
