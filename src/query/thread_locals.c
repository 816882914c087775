/*
 * Where a thread's copies of the thread-local variables of a library lie, by what glibc's dynamic
 * linker holds in the program's memory. The layouts are told by glibc itself, in the descriptors
 * which it exports for debuggers (nptl_db/structs.def; each is three numbers: size in bits, count,
 * offset). The method is that of td_thr_tlsbase() in nptl_db; that of a static block is the x86-64
 * psABI's.
 */
#include "query/query_int.h"

struct loader {
    struct frame_context *c;
    gaddr fs;
    bool failed; /* something could not be read: all that follows is void */
};

static uint64_t word(struct loader *l, gaddr at)
{
    uint64_t value = 0;
    struct err *e =
        l->failed ? NULL : replay_read(l->c->replay, l->c->space, at, &value, sizeof(value), NULL);
    l->failed |= e != NULL;
    err_free(e);
    return value;
}

/* The run-time address of what glibc exports by that name. */
static gaddr exported(struct loader *l, const char *symbol)
{
    static const char *const files[] = {"ld-", "libc.so", "libc-", "libpthread"};
    size_t count, records;
    const struct mapping *maps = replay_mappings(l->c->replay, l->c->space, &count);
    const struct trace_mmap *record = trace_mmaps(l->c->q->trace, &records);
    for (size_t i = 0; i < count; i++) {
        if (maps[i].mmap_idx >= records)
            continue;
        const char *name = record[maps[i].mmap_idx].name, *slash = strrchr(name, '/');
        bool is_glibc = false;
        for (size_t k = 0; k < ARRAY_COUNT(files); k++)
            is_glibc |= slash && str_starts(slash + 1, files[k]);
        if (!is_glibc)
            continue;
        struct code_place place =
            place_in(l->c->q, maps[i].mmap_idx, maps[i].start, maps[i].offset, maps[i].start);
        struct sym_module *sym;
        vaddr addr;
        struct err *e = place.module ? module_sym(l->c->q, place.module, &sym)
                                     : err_new(ERR_NOT_FOUND, "no file");
        if (!e)
            e = sym_exported_object(sym, symbol, &addr);
        bool found = !e;
        err_free(e);
        if (found)
            return place.bias + addr;
    }
    l->failed = true;
    return 0;
}

/* Offset of a member, or size of an element, of one of glibc's structures. */
static uint64_t offset_of(struct loader *l, const char *descriptor)
{
    return word(l, exported(l, descriptor) + 8) & UINT32_MAX;
}

static gaddr link_map_of(struct loader *l, uint64_t bias)
{
    enum { MOST = 10000, R_MAP = 8, L_ADDR = 0, L_NEXT = 24 }; // <link.h>
    gaddr map = word(l, exported(l, "_r_debug") + R_MAP);
    for (size_t i = 0; map && !l->failed && i < MOST; i++) {
        if (word(l, map + L_ADDR) == bias)
            return l->failed ? 0 : map;
        map = word(l, map + L_NEXT);
    }
    l->failed = true;
    return 0;
}

/* Has the thread's vector of blocks been brought up to date since the library was loaded? Else its
 * entry is another, unloaded one's. */
static bool is_up_to_date(struct loader *l, gaddr vector, gaddr map, uint64_t id)
{
    enum { MOST = 1000 };
    gaddr list = word(l, exported(l, "_rtld_global") +
                             offset_of(l, "_thread_db_rtld_global__dl_tls_dtv_slotinfo_list"));
    uint64_t first = offset_of(l, "_thread_db_dtv_slotinfo_list_slotinfo"),
             next = offset_of(l, "_thread_db_dtv_slotinfo_list_next"),
             len_at = offset_of(l, "_thread_db_dtv_slotinfo_list_len"),
             map_at = offset_of(l, "_thread_db_dtv_slotinfo_map"),
             gen_at = offset_of(l, "_thread_db_dtv_slotinfo_gen"),
             size = word(l, exported(l, "_thread_db_sizeof_dtv_slotinfo")) & UINT32_MAX;
    for (size_t i = 0; list && !l->failed && i < MOST; i++) {
        uint64_t len = word(l, list + len_at);
        if (id >= len) {
            id -= len;
            list = word(l, list + next);
            continue;
        }
        gaddr slot = list + first + id * size;
        return word(l, slot + map_at) == map &&
               word(l, slot + gen_at) <=
                   word(l, vector + offset_of(l, "_thread_db_dtv_t_counter")) &&
               !l->failed;
    }
    return false;
}

/* Of a library that was loaded later: its block is allocated when the thread first uses it. */
static gaddr dynamic_block(struct loader *l, gaddr map)
{
    enum { ENTRY = 16 }; // dtv_t: a pointer to the block and one to free it by
    uint64_t id = word(l, map + offset_of(l, "_thread_db_link_map_l_tls_modid"));
    gaddr vector = word(l, l->fs + offset_of(l, "_thread_db_pthread_dtvp"));
    if (l->failed || !id || !is_up_to_date(l, vector, map, id) || id > word(l, vector - ENTRY))
        return 0;
    gaddr block = word(l, vector + id * ENTRY + offset_of(l, "_thread_db_dtv_t_pointer_val"));
    return l->failed || block == UINT64_MAX ? 0 : block;
}

uint64_t thread_locals_of(struct frame_context *c, struct module *m, uint64_t bias)
{
    struct sym_module *sym;
    uint64_t size = 0, executables = module_tls_offset(c->q, m);
    if (executables)
        return executables;
    struct err *e = module_sym(c->q, m, &sym);
    if (!e)
        e = sym_module_tls_offset(sym, &size);
    err_free(e);
    if (!size)
        return 0;
    struct loader l = {.c = c, .fs = c->regs.r[UREG_FS_BASE]};
    gaddr map = link_map_of(&l, bias);
    uint64_t offset = map ? word(&l, map + offset_of(&l, "_thread_db_link_map_l_tls_offset")) : 0;
    if (l.failed)
        return 0;
    if (offset && offset != UINT64_MAX) // NO_TLS_OFFSET, FORCED_DYNAMIC_TLS_OFFSET
        return offset;
    gaddr block = dynamic_block(&l, map);
    return block ? l.fs - block : 0;
}
