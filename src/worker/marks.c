#include "worker/marks.h"

#include "worker/syscalls.h"

/* A chunk of shadow is what is mapped at once: CHUNK_LEN bytes, for ENGINE_SHADOW_SPAN bytes of the
 * guest's. */
enum { MAX_CHUNKS = 4096, CHUNK_LEN = ENGINE_SHADOW_SPAN / 8, GIVE_BACK_EVERY = 8 };

static struct {
    uint64_t shadow_base;
    int fd;
    const struct addr_range *used;
    size_t used_count;
    uint64_t chunks[MAX_CHUNKS]; /* numbers: guest address / ENGINE_SHADOW_SPAN */
    size_t chunk_count;
    uint32_t takes;
    bool giving_back; /* in this one */
} marks;

void marks_init(const struct engine_layout *l)
{
    marks.shadow_base = l->shadow_base;
    marks.fd = l->shadow_fd;
    marks.used = l->used;
    marks.used_count = l->used_count;
    sys_call6(158, 0x1001, l->shadow_base, 0, 0, 0, 0); // arch_prctl(ARCH_SET_GS)
}

void marks_forked(int fd)
{
    for (size_t i = 0; i < marks.chunk_count; i++)
        sys_munmap(marks.shadow_base + marks.chunks[i] * CHUNK_LEN, CHUNK_LEN);
    marks.chunk_count = 0;
    marks.fd = fd;
}

/* Does the guest use any of the memory whose shadows are in the chunk? */
static bool is_used(uint64_t chunk)
{
    uint64_t start = chunk * ENGINE_SHADOW_SPAN, end = start + ENGINE_SHADOW_SPAN;
    size_t low = 0, high = marks.used_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (marks.used[middle].end > start)
            high = middle;
        else
            low = middle + 1;
    }
    return low < marks.used_count && marks.used[low].start < end;
}

static bool map_chunk(uint64_t chunk)
{
    for (size_t i = marks.chunk_count; i-- > 0;) {
        if (marks.chunks[i] == chunk)
            return true;
    }
    if (!is_used(chunk))
        return false;
    if (marks.chunk_count == MAX_CHUNKS)
        engine_host_fatal("the program writes to too many places");
    uint64_t at = marks.shadow_base + chunk * CHUNK_LEN;
    if (sys_mmap(at, CHUNK_LEN, 3, 0x104001, marks.fd, chunk * CHUNK_LEN) !=
        at) // shared, fixed unless taken, no reserve
        engine_host_fatal("cannot map memory for marks");
    marks.chunks[marks.chunk_count++] = chunk;
    return true;
}

bool marks_fault(uint64_t address)
{
    uint64_t off = address - marks.shadow_base;
    if (address < marks.shadow_base || off / CHUNK_LEN >= (1ull << 47) / ENGINE_SHADOW_SPAN)
        return false;
    for (size_t i = 0; i < marks.chunk_count; i++) {
        if (marks.chunks[i] == off / CHUNK_LEN)
            return false; // it is there: this fault is about something else
    }
    return map_chunk(off / CHUNK_LEN);
}

void marks_range(uint64_t start, uint64_t len)
{
    uint64_t last = start + len - 1;
    if (!len || last < start || last >= 1ull << 47)
        return;
    for (uint64_t chunk = start / ENGINE_SHADOW_SPAN; chunk <= last / ENGINE_SHADOW_SPAN; chunk++) {
        if (!map_chunk(chunk))
            continue;
        uint64_t first_granule = chunk * CHUNK_LEN, last_granule = first_granule + CHUNK_LEN - 1;
        if (first_granule < start / 8)
            first_granule = start / 8;
        if (last_granule > last / 8)
            last_granule = last / 8;
        __builtin_memset((void *)(uintptr_t)(marks.shadow_base + first_granule), 1,
                         last_granule - first_granule + 1);
    }
}

/* The marks of one page of the guest's. True if there are any. */
static bool read_page(const uint64_t *shadow, uint64_t granules[8])
{
    uint64_t any = 0;
    for (int word = 0; word < 8; word++) {
        uint64_t bits = 0;
        for (int i = 0; i < 8; i++) // eight bytes of 0 or 1 become the top byte of the product
            bits |= (shadow[word * 8 + i] * 0x0102040810204080ull >> 56) << 8 * i;
        granules[word] = bits;
        any |= bits;
    }
    return any;
}

static bool is_zero(const uint64_t *p)
{
    uint64_t any = 0;
    for (size_t i = 0; i < PAGE_SIZE / 8; i++)
        any |= p[i];
    return !any;
}

/* Pages untouched since the last time need not be looked at again. Only now and then: to look at a
 * page costs far less than to give it back and to get it again with a fault. */
static void give_back(uint64_t start, uint64_t end)
{
    if (!marks.giving_back)
        return;
    sys_call6(285, (uint64_t)marks.fd, 3, start, end - start, 0,
              0); // fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
}

enum { PAGES_OF_ONE = 8 }; /* of the guest's, in a page of shadow */

/* Takes the marks in pages [start, end) of a chunk, offsets in the memfd, all of which hold data.
 */
static void take_pages(uint64_t start, uint64_t end,
                       void (*each)(uint64_t page, const uint64_t granules[8]))
{
    uint64_t zero_from = start;
    for (uint64_t at = start; at < end; at += PAGE_SIZE) {
        uint64_t *shadow = (uint64_t *)(uintptr_t)(marks.shadow_base + at), granules[8];
        if (is_zero(shadow))
            continue;
        if (at > zero_from)
            give_back(zero_from, at);
        zero_from = at + PAGE_SIZE;
        for (unsigned n = 0; each && n < PAGES_OF_ONE; n++) {
            if (read_page(shadow + n * (PAGE_SIZE / 64), granules))
                each((at * 8) + n * PAGE_SIZE, granules);
        }
        __builtin_memset(shadow, 0, PAGE_SIZE);
    }
    if (end > zero_from)
        give_back(zero_from, end);
}

void marks_take(void (*each)(uint64_t page, const uint64_t granules[8]))
{
    enum { SEEK_DATA_NO = 3, SEEK_HOLE_NO = 4 };
    marks.giving_back = each && ++marks.takes % GIVE_BACK_EVERY == 0;
    for (size_t i = 0; i < marks.chunk_count; i++) {
        uint64_t at = marks.chunks[i] * CHUNK_LEN, end = at + CHUNK_LEN;
        while (at < end) {
            uint64_t data = sys_call6(8, (uint64_t)marks.fd, at, SEEK_DATA_NO, 0, 0, 0);
            if (data >= end) // no more, or none at all: an error is a large number
                break;
            uint64_t hole = sys_call6(8, (uint64_t)marks.fd, data, SEEK_HOLE_NO, 0, 0, 0);
            if (hole <= data)
                engine_host_fatal("cannot look for marks");
            at = hole < end ? hole : end;
            take_pages(data, at, each);
        }
    }
}
