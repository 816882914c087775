/* Address spaces: the table of mappings, and the worker which holds them for real. The table is the
 * truth; every change goes through here and is told to the worker and the observer. Shared memory
 * lives in objects, memfds that all spaces map; they exist as long as any mapping of them. */
#include "replay/replay_int.h"

#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

static gaddr page_up(gaddr a)
{
    return (a + PAGE_SIZE - 1) & ~(gaddr)(PAGE_SIZE - 1);
}

/* --- objects --- */

struct err *object_create(struct replay *r, uint64_t device, uint64_t inode, uint64_t size,
                          struct object **out)
{
    cleanup(closep) int fd = memfd_create("pernosco-shared", MFD_CLOEXEC);
    if (fd < 0)
        return err_os("cannot make a shared memory object");
    if (ftruncate(fd, (off_t)size) != 0)
        return err_os("cannot size a shared memory object to %llu bytes", (unsigned long long)size);
    struct object *o = xnew(struct object);
    *o = (struct object){.uid = ++r->last_object,
                         .device = device,
                         .inode = inode,
                         .fd = steal_fd(&fd),
                         .size = size};
    vec_push(&r->objects, o);
    *out = o;
    return NULL;
}

void object_free(struct object *o)
{
    close(o->fd);
    free(o);
}

static struct err *object_find(struct replay *r, uint64_t device, uint64_t inode, uint64_t size,
                               struct object **out)
{
    vec_each (it, &r->objects) {
        struct object *o = *it;
        if (!o->mapping_count || o->device != device || o->inode != inode)
            continue;
        if (size > o->size) {
            if (ftruncate(o->fd, (off_t)size) != 0)
                return err_os("cannot grow a shared memory object to %llu bytes",
                              (unsigned long long)size);
            o->size = size;
        }
        *out = o;
        return NULL;
    }
    return object_create(r, device, inode, size, out);
}

/* The one that is mapped, where others of that number have ended and are kept by snapshots. */
struct object *object_by_uid(struct replay *r, uint32_t uid)
{
    struct object *found = NULL;
    vec_each (it, &r->objects) {
        if ((*it)->uid == uid && (!found || (*it)->mapping_count))
            found = *it;
    }
    return found;
}

static void end_if_unused(struct replay *r, struct object *o)
{
    if (o->mapping_count || o->keeper_count)
        return;
    for (size_t i = 0; i < r->objects.count; i++) {
        if (r->objects.items[i] == o) {
            memmove(&r->objects.items[i], &r->objects.items[i + 1],
                    (r->objects.count - i - 1) * sizeof(r->objects.items[0]));
            r->objects.count--;
            break;
        }
    }
    object_free(o);
}

void object_release(struct replay *r, struct object *o)
{
    assert(o->mapping_count > 0);
    o->mapping_count--;
    end_if_unused(r, o);
}

void object_let_go(struct replay *r, struct object *o)
{
    assert(o->keeper_count > 0);
    o->keeper_count--;
    end_if_unused(r, o);
}

/* --- the table --- */

size_t mappings_behind(const struct mapping *maps, size_t count, gaddr addr)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (maps[middle].end > addr)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static size_t first_behind(const struct space *s, gaddr addr)
{
    return mappings_behind(s->maps.items, s->maps.count, addr);
}

const struct mapping *space_mapping_at(const struct space *s, gaddr addr)
{
    size_t i = first_behind(s, addr);
    return i < s->maps.count && s->maps.items[i].start <= addr ? &s->maps.items[i] : NULL;
}

static void insert_at(struct space *s, size_t idx, struct mapping m)
{
    vec_reserve(&s->maps, 1);
    memmove(&s->maps.items[idx + 1], &s->maps.items[idx], (s->maps.count - idx) * sizeof(m));
    s->maps.items[idx] = m;
    s->maps.count++;
}

/* Makes `addr` a border between mappings. */
static void split_at(struct space *s, gaddr addr)
{
    size_t i = first_behind(s, addr);
    if (i == s->maps.count || s->maps.items[i].start >= addr)
        return;
    struct mapping upper = s->maps.items[i];
    upper.offset += addr - upper.start;
    upper.start = addr;
    if (upper.object)
        upper.object->mapping_count++;
    s->maps.items[i].end = addr;
    insert_at(s, i + 1, upper);
}

static void table_remove(struct replay *r, struct space *s, gaddr start, gaddr end)
{
    if (start >= end)
        return;
    split_at(s, start);
    split_at(s, end);
    size_t first = first_behind(s, start), last = first;
    bool shared = false;
    if (first == s->maps.count)
        return;
    while (last < s->maps.count && s->maps.items[last].start < end)
        shared |= s->maps.items[last++].object != NULL;
    if (shared && r->observer.sharing_changes)
        r->observer.sharing_changes(r->observer.ctx, r, s->uid);
    last = first;
    while (last < s->maps.count && s->maps.items[last].start < end) {
        if (s->maps.items[last].object)
            object_release(r, s->maps.items[last].object);
        last++;
    }
    memmove(&s->maps.items[first], &s->maps.items[last],
            (s->maps.count - last) * sizeof(s->maps.items[0]));
    s->maps.count -= last - first;
    s->watch_stale = true;
}

/* Takes over the caller's claim on m.object. */
static void table_add(struct replay *r, struct space *s, struct mapping m)
{
    table_remove(r, s, m.start, m.end);
    insert_at(s, first_behind(s, m.start), m);
    s->watch_stale = true;
}

static void tell_remapped(struct replay *r, struct space *s, gaddr start, gaddr end)
{
    if (r->observer.remapped)
        r->observer.remapped(r->observer.ctx, r, s->uid, start, end);
}

static struct err *tell_code(struct replay *r, struct space *s, int prot)
{
    if ((prot & PROT_EXEC) && r->observer.code_mapped)
        return r->observer.code_mapped(r->observer.ctx, r, s->uid);
    return NULL;
}

/* --- life --- */

struct space *space_create(struct replay *r, uint32_t parent)
{
    struct space *s = xnew(struct space);
    s->uid = ++r->last_space;
    s->id = ++r->last_space_id;
    vec_push(&r->spaces, s);
    return s;
}

void space_free(struct replay *r, struct space *s)
{
    worker_destroy(s->worker);
    vec_each (m, &s->maps) {
        if (m->object)
            object_release(r, m->object);
    }
    vec_deinit(&s->maps);
    free(s);
}

struct err *space_end(struct replay *r, struct space *s)
{
    if (s->is_32bit)
        outside_forget(r, s->uid);
    if (r->observer.space_ending)
        TRY(r->observer.space_ending(r->observer.ctx, r, s->uid));
    return space_retire(r, s);
}

struct space *space_by_uid(struct replay *r, uint32_t uid)
{
    vec_each (it, &r->spaces) {
        if ((*it)->uid == uid)
            return *it;
    }
    return NULL;
}

/* --- mapping --- */

struct err *space_open_file(struct replay *r, uint32_t mmap_idx, int *fd_out)
{
    size_t count;
    const struct trace_mmap *records = trace_mmaps(r->trace, &count);
    assert(mmap_idx < count);
    cleanup(freep) char *path = trace_backing_path(r->trace, &records[mmap_idx]);
    cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_os("cannot open mapped file %s", path);
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_os("cannot stat %s", path);
    if (st.st_size != records[mmap_idx].stat_size)
        return err_new(ERR_FORMAT, "%s: has %lld bytes, had %lld when it was recorded", path,
                       (long long)st.st_size, (long long)records[mmap_idx].stat_size);
    *fd_out = steal_fd(&fd);
    return NULL;
}

struct err *space_realise_one(struct replay *r, struct space *s, const struct mapping *m)
{
    switch (m->kind) {
    case MAPPING_ANON:
        return worker_map(s->worker, m->start, m->end, m->prot, MAP_KIND_ANON, -1, 0);
    case MAPPING_SHARED:
        return worker_map(s->worker, m->start, m->end, m->prot, MAP_KIND_SHARED, m->object->fd,
                          m->offset);
    case MAPPING_FILE: {
        cleanup(closep) int fd = -1;
        TRY(space_open_file(r, m->mmap_idx, &fd));
        return worker_map(s->worker, m->start, m->end, m->prot, MAP_KIND_PRIVATE_FILE, fd,
                          m->offset);
    }
    }
    return NULL;
}

struct err *space_realise_part(struct replay *r, struct space *s, const struct mapping *m,
                               gaddr start, gaddr end)
{
    struct mapping part = *m;
    part.offset += start - m->start;
    part.start = start;
    part.end = end;
    return space_realise_one(r, s, &part);
}

static struct err *map_one(struct replay *r, struct space *s, struct mapping m)
{
    if (m.start >= m.end)
        return NULL;
    if (m.object) {
        m.object->mapping_count++;
        if (r->observer.sharing_changes)
            r->observer.sharing_changes(r->observer.ctx, r, s->uid);
    }
    table_add(r, s, m);
    TRY(space_realise_one(r, s, space_mapping_at(s, m.start)));
    tell_remapped(r, s, m.start, m.end);
    return NULL;
}

/* Maps everything in the table into a fresh worker. */
struct err *space_realise(struct replay *r, struct space *s)
{
    vec_each (m, &s->maps)
        TRY(space_realise_one(r, s, m));
    return NULL;
}

static struct err *check_range(gaddr start, gaddr end)
{
    if (start > end || (start | end) % PAGE_SIZE || end > USER_MEMORY_END)
        return err_new(ERR_FORMAT, "mapping %#llx-%#llx makes no sense", (unsigned long long)start,
                       (unsigned long long)end);
    return NULL;
}

struct err *space_map_zero(struct replay *r, struct space *s, gaddr start, gaddr end, int prot,
                           uint32_t mmap_idx)
{
    TRY(check_range(start, end));
    TRY(map_one(r, s,
                (struct mapping){.start = start,
                                 .end = end,
                                 .prot = prot,
                                 .flags = MAP_PRIVATE | MAP_ANONYMOUS,
                                 .kind = MAPPING_ANON,
                                 .mmap_idx = mmap_idx}));
    return tell_code(r, s, prot);
}

/* Maps what an `mmaps` record describes, or its part from `delta` bytes on. force_private: rr's own
 * buffers, which are MAP_SHARED only between rr and the program. Content from the trace comes
 * later, as the frame's writes. */
struct err *space_map_record(struct replay *r, struct space *s, const struct trace_mmap *m,
                             uint64_t delta, bool force_private)
{
    TRY(check_range(m->start, m->end));
    size_t count;
    uint32_t idx = (uint32_t)(m - trace_mmaps(r->trace, &count));
    struct mapping whole = {.start = m->start + delta,
                            .end = m->end,
                            .prot = m->prot & 7,
                            .flags = m->flags & ~(MAP_GROWSDOWN | MAP_FIXED),
                            .kind = MAPPING_ANON,
                            .offset = (uint64_t)m->file_offset + delta,
                            .mmap_idx = idx};
    gaddr file_end = whole.start;
    if (m->source == MMAP_FILE && m->stat_size > m->file_offset) {
        uint64_t file_len = page_up((uint64_t)(m->stat_size - m->file_offset));
        file_end = file_len < m->end - m->start ? m->start + file_len : m->end;
        if (file_end < whole.start)
            file_end = whole.start;
        struct mapping part = whole;
        part.end = file_end;
        part.kind = MAPPING_FILE;
        TRY(map_one(r, s, part));
    }
    struct mapping rest = whole;
    rest.offset += file_end - whole.start;
    rest.start = file_end;
    if (rest.start < rest.end && (m->flags & MAP_SHARED) && !force_private) {
        uint64_t need = rest.offset + (rest.end - rest.start);
        if (m->stat_size > 0 && (uint64_t)m->stat_size < (1ull << 46) &&
            page_up((uint64_t)m->stat_size) > need)
            need = page_up((uint64_t)m->stat_size);
        if (need > 1ull << 46 || rest.offset > need)
            return err_new(ERR_FORMAT, "shared mapping at %#llx: offset makes no sense",
                           (unsigned long long)m->start);
        rest.kind = MAPPING_SHARED;
        TRY(object_find(r, m->device, m->inode, need, &rest.object));
    }
    TRY(map_one(r, s, rest));
    return tell_code(r, s, whole.prot);
}

struct err *space_unmap(struct replay *r, struct space *s, gaddr start, gaddr end)
{
    TRY(check_range(start, end));
    if (start == end)
        return NULL;
    table_remove(r, s, start, end);
    TRY(worker_unmap(s->worker, start, end));
    tell_remapped(r, s, start, end);
    return NULL;
}

/* The end of a range given to a system call, which may lie anywhere. */
static gaddr clamp_end(gaddr start, gaddr end)
{
    if (end < start || end > USER_MEMORY_END)
        return start < USER_MEMORY_END ? USER_MEMORY_END : start;
    return page_up(end);
}

/* Did the kernel refuse to give this mapping what it lacks? EACCES: a shared mapping of a file
 * opened for reading, or a file on a noexec mount (mprotect(2)). */
static bool refuses(const struct mapping *m, int prot, int64_t result)
{
    bool is_file = m->kind != MAPPING_ANON || m->mmap_idx != UINT32_MAX;
    return result == -EACCES && is_file &&
           (prot & ~m->prot & ((m->flags & MAP_SHARED) ? PROT_WRITE | PROT_EXEC : PROT_EXEC));
}

/* mprotect(2), which returned `result`: a failed call has changed what lies before the place where
 * it failed. */
struct err *space_protect(struct replay *r, struct space *s, gaddr start, gaddr end, int prot,
                          int64_t result)
{
    if (result == -EINVAL || start % PAGE_SIZE)
        return NULL;
    if (prot & PROT_GROWSDOWN) {
        const struct mapping *m = space_mapping_at(s, start);
        if (m)
            start = m->start;
    }
    prot &= 7;
    end = clamp_end(start, end);
    TRY(check_range(start, end));
    if (start == end)
        return NULL;
    split_at(s, start);
    split_at(s, end);
    // The kernel works upwards and stops at the first gap.
    gaddr at = start;
    for (size_t i = first_behind(s, start); i < s->maps.count && at < end; i++) {
        struct mapping *m = &s->maps.items[i];
        if (m->start != at || refuses(m, prot, result))
            break;
        m->prot = prot;
        at = m->end;
    }
    if (at > start)
        TRY(worker_protect(s->worker, start, at, prot));
    return tell_code(r, s, prot);
}

struct err *space_move(struct replay *r, struct space *s, gaddr from, uint64_t from_len, gaddr to,
                       uint64_t to_len, bool keep)
{
    uint64_t moved = from_len < to_len ? from_len : to_len;
    TRY(check_range(from, from + from_len));
    TRY(check_range(to, to + to_len));
    if (from_len == 0) {
        // mremap(2): an old size of 0 maps shared memory a second time.
        const struct mapping *m = space_mapping_at(s, from);
        if (!m || m->kind != MAPPING_SHARED)
            return err_new(ERR_UNSUPPORTED, "mremap with old size 0 of memory that is not shared");
        struct mapping twin = *m;
        twin.offset += from - m->start;
        twin.start = to;
        twin.end = to + to_len;
        return map_one(r, s, twin);
    }
    if (from != to) {
        VEC(struct mapping) pieces = {0};
        split_at(s, from);
        split_at(s, from + moved);
        for (size_t i = first_behind(s, from);
             i < s->maps.count && s->maps.items[i].start < from + moved; i++) {
            struct mapping m = s->maps.items[i];
            m.start = m.start - from + to;
            m.end = m.end - from + to;
            if (m.object)
                m.object->mapping_count++;
            vec_push(&pieces, m);
        }
        if (!keep)
            table_remove(r, s, from, from + from_len);
        vec_each (m, &pieces)
            table_add(r, s, *m);
        vec_deinit(&pieces);
        TRY(worker_move(s->worker, from, moved, to, moved, keep));
        if (!keep && from_len > moved)
            TRY(worker_unmap(s->worker, from + moved, from + from_len));
        tell_remapped(r, s, from, from + from_len);
        tell_remapped(r, s, to, to + moved);
        // The pages came along: what they hold now counts as written here.
        if (r->observer.wrote)
            r->observer.wrote(r->observer.ctx, r, s->uid, to, moved, 0, 0);
    } else if (to_len < from_len) {
        TRY(space_unmap(r, s, from + to_len, from + from_len));
    }
    return NULL;
}

/* madvise with an effect on contents or on fork. */
struct err *space_discard(struct replay *r, struct space *s, gaddr start, gaddr end, int advice)
{
    end = clamp_end(start, end);
    TRY(check_range(start, end));
    switch (advice) {
    case MADV_DONTFORK:
    case MADV_DOFORK:
        split_at(s, start);
        split_at(s, end);
        for (size_t i = first_behind(s, start); i < s->maps.count && s->maps.items[i].start < end;
             i++)
            s->maps.items[i].dontfork = advice == MADV_DONTFORK;
        return NULL;
    case MADV_DONTNEED:
    case MADV_REMOVE:
    case 24: // MADV_DONTNEED_LOCKED
        break;
    default:
        return NULL;
    }
    for (size_t i = first_behind(s, start); i < s->maps.count && s->maps.items[i].start < end;
         i++) {
        const struct mapping *m = &s->maps.items[i];
        gaddr from = m->start > start ? m->start : start, to = m->end < end ? m->end : end;
        if (m->kind == MAPPING_SHARED) {
            if (advice != MADV_REMOVE)
                continue;
            uint64_t offset = m->offset + (from - m->start);
            snapshots_before_shared_write(r, m->object, offset, to - from);
            r->code_space = 0;
            if (fallocate(m->object->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                          (off_t)(to - from)) != 0)
                return err_os("cannot punch a hole into shared memory");
            if (r->observer.wrote)
                r->observer.wrote(r->observer.ctx, r, s->uid, from, to - from, m->object->uid,
                                  offset);
            continue;
        }
        TRY(worker_dontneed(s->worker, from, to));
        tell_remapped(r, s, from, to);
    }
    return NULL;
}

struct err *space_write(struct replay *r, struct space *s, gaddr addr, const void *data,
                        uint64_t len)
{
    const uint8_t *bytes = data;
    if (!len)
        return NULL;
    if (addr + len < addr)
        return err_new(ERR_FORMAT, "a write of %llu bytes at %#llx wraps around",
                       (unsigned long long)len, (unsigned long long)addr);
    gaddr known = addr; // up to here nobody else has this memory
    for (size_t i = first_behind(s, addr); i < s->maps.count && s->maps.items[i].start < addr + len;
         i++) {
        const struct mapping *m = &s->maps.items[i];
        gaddr from = m->start > addr ? m->start : addr,
              to = m->end < addr + len ? m->end : addr + len;
        if (m->object) {
            snapshots_before_shared_write(r, m->object, m->offset + (from - m->start), to - from);
            r->code_space = r->code_space == s->uid ? s->uid : 0;
        }
        if (!m->object && from == known)
            known = to;
    }
    TRY((known == addr + len ? worker_queue_write : worker_write)(s->worker, addr, bytes, len));
    space_tell_written(r, s, addr, len);
    return NULL;
}

void space_tell_written(struct replay *r, const struct space *s, gaddr addr, uint64_t len)
{
    for (gaddr at = addr; r->observer.wrote && at < addr + len;) {
        const struct mapping *m = space_mapping_at(s, at);
        gaddr end = m && m->end < addr + len ? m->end : addr + len;
        if (m && m->object)
            r->observer.wrote(r->observer.ctx, r, s->uid, at, end - at, m->object->uid,
                              m->offset + (at - m->start));
        else
            r->observer.wrote(r->observer.ctx, r, s->uid, at, end - at, 0, 0);
        at = end;
    }
}

/* Makes zeros of a range of an object which `s` maps at `addr`. What was never written reads as
 * zeros already. */
static struct err *zero_object(struct replay *r, struct space *s, struct object *o, gaddr addr,
                               uint64_t offset, uint64_t len)
{
    uint64_t end = offset + len;
    r->code_space = 0;
    for (off_t at = lseek(o->fd, (off_t)offset, SEEK_DATA); at >= 0 && (uint64_t)at < end;) {
        off_t data_end = lseek(o->fd, at, SEEK_HOLE);
        if (data_end < 0 || (uint64_t)data_end > end)
            data_end = (off_t)end;
        if (fallocate(o->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, data_end - at) != 0)
            return err_os("cannot punch a hole into shared memory");
        if (r->observer.wrote)
            r->observer.wrote(r->observer.ctx, r, s->uid, addr + ((uint64_t)at - offset),
                              (uint64_t)(data_end - at), o->uid, (uint64_t)at);
        at = lseek(o->fd, data_end, SEEK_DATA);
    }
    return worker_dontneed(s->worker, addr, addr + len); // which drops translations
}

struct err *space_zero(struct replay *r, struct space *s, gaddr addr, uint64_t len)
{
    static const uint8_t zeros[PAGE_SIZE];
    if (addr + len < addr)
        return err_new(ERR_FORMAT, "zeros at %#llx wrap around", (unsigned long long)addr);
    for (gaddr end = addr + len; addr < end;) {
        const struct mapping *m = space_mapping_at(s, addr);
        if (!m)
            return err_new(ERR_FAULT, "no memory to write at %#llx", (unsigned long long)addr);
        gaddr stop = m->end < end ? m->end : end;
        gaddr whole_end = stop & ~(gaddr)(PAGE_SIZE - 1);
        if (m->kind == MAPPING_FILE || addr % PAGE_SIZE || addr == whole_end) {
            gaddr next = (addr & ~(gaddr)(PAGE_SIZE - 1)) + PAGE_SIZE;
            stop = next < stop ? next : stop;
            TRY(space_write(r, s, addr, zeros, stop - addr));
        } else if (m->kind == MAPPING_SHARED) {
            stop = whole_end;
            TRY(zero_object(r, s, m->object, addr, m->offset + (addr - m->start), stop - addr));
        } else {
            stop = whole_end;
            TRY(worker_dontneed(s->worker, addr, stop));
            tell_remapped(r, s, addr, stop);
        }
        addr = stop;
    }
    return NULL;
}

struct err *space_read(struct space *s, gaddr addr, void *out, size_t len)
{
    return worker_read(s->worker, addr, out, len, NULL);
}

struct err *space_drop_dontfork(struct replay *r, struct space *s)
{
    for (size_t i = 0; i < s->maps.count;) {
        struct mapping m = s->maps.items[i];
        if (m.dontfork)
            TRY(space_unmap(r, s, m.start, m.end));
        else
            i++;
    }
    return NULL;
}

/* A copy as made by fork. */
struct err *space_copy(struct replay *r, struct space *parent, struct space **out)
{
    struct space *s = space_create(r, parent->uid);
    uint32_t uid = s->uid;
    uint64_t id = s->id;
    *s = *parent;
    s->uid = uid;
    s->id = id;
    s->task_count = 0;
    s->maps.items = xmemdup(parent->maps.items, parent->maps.count * sizeof(parent->maps.items[0]));
    s->maps.cap = s->maps.count = parent->maps.count;
    vec_each (m, &s->maps) {
        if (m->object)
            m->object->mapping_count++;
    }
    s->worker = NULL;
    s->watch_stale = true;
    TRY(worker_fork(parent->worker, &s->worker));
    TRY(space_instrument(r, s));
    *out = s;
    return NULL;
}

struct err *space_recheck_code(struct replay *r, struct space *s)
{
    if (r->code_space == s->uid)
        return NULL;
    r->code_space = s->uid;
    vec_each (m, &s->maps) {
        if (m->kind == MAPPING_SHARED && (m->prot & PROT_EXEC))
            TRY(worker_protect(s->worker, m->start, m->end,
                               m->prot)); // no change, but translations go
    }
    return NULL;
}

/* --- instrumentation --- */

struct err *space_refresh_watch(struct replay *r, struct space *s)
{
    if (!r->watching || !s->watch_stale)
        return NULL;
    s->watch_stale = false;
    VEC(struct addr_range) ranges = {0};
    vec_each (w, &r->watches) {
        if (!w->object) {
            if (w->space == s->uid)
                vec_push(&ranges, (struct addr_range){w->start, w->end});
            continue;
        }
        vec_each (m, &s->maps) {
            if (!m->object || m->object->uid != w->object)
                continue;
            uint64_t end = m->offset + (m->end - m->start);
            uint64_t from = w->start > m->offset ? w->start : m->offset,
                     to = w->end < end ? w->end : end;
            if (from < to)
                vec_push(&ranges, (struct addr_range){m->start + (from - m->offset),
                                                      m->start + (to - m->offset)});
        }
    }
    // Rows gathered so far have to survive a change of the ranges: the worker keeps them when only
    // `watch` differs.
    struct consume_request request = r->consume;
    request.watch = ranges.items;
    request.watch_count = ranges.count;
    request.keep_rows = true;
    struct err *e = worker_consume(s->worker, &request);
    vec_deinit(&ranges);
    return e;
}

/* Gives a new worker the current selection of consumers. */
struct err *space_instrument(struct replay *r, struct space *s)
{
    if (r->tell_block)
        TRY(worker_dump_blocks(s->worker, true));
    if (r->mode == ENGINE_COUNT)
        return NULL;
    if (engine_keeps_calls(r->mode))
        return worker_reset_index(s->worker, false); // a fork's copy begins with its parent's calls
    s->watch_stale = true;
    if (r->watching) {
        struct consume_request none = {0};
        TRY(worker_consume(s->worker, &none));
        return space_refresh_watch(r, s);
    }
    return worker_consume(s->worker, &r->consume);
}
