/* One fast pass over all entries of a unit, by the abbreviations alone (DWARF 5 section 7.5): which
 * of them are functions, inlined calls and scopes, and by what names types and variables can be
 * asked for. libdw takes ten times as long for a walk and cannot be used by two threads; here units
 * are shared out to all processors. What an entry says beyond that is read by libdw, when it is
 * asked for.
 *
 *     entry:  abbreviation's code | values of the attributes, in the abbreviation's order and forms | children, if it has any, until a code of 0
 *
 * Of most entries only their length is needed, which most abbreviations fix. */
#include "base/bytes.h"
#include "base/cpus.h"
#include "sym/sym_int.h"

#include <stdatomic.h>

enum {
    MOST_GAP = 1 << 12 /* between codes: compilers count from 1 */,
    MOST_NESTING = 512,
    NO_SCOPE = 0
};

struct attribute_spec {
    uint16_t name, form;
};

struct abbreviation {
    uint16_t tag;
    bool known, has_children;
    bool has_code, has_inline, is_declaration; /* has_inline: whether it was inlined is said by the
                                                  entry, or by inline_kind */
    uint8_t inline_kind;   /* of all its entries; 0: they differ, or it was not */
    int32_t fixed;         /* bytes of all values; -1: they differ */
    uint32_t first, count; /* in specs */
};

struct abbreviations {
    VEC(struct abbreviation) codes;
    VEC(struct attribute_spec) specs;
};

/* Where a unit's bytes are: taken from libdw before threads begin. */
struct scan_input {
    struct unit *unit;
    const uint8_t *root, *end; /* of entries */
    size_t header_len;         /* bytes from the unit's start to root */
    const uint8_t *section;    /* start of .debug_info */
    unsigned version, offset_size, address_size;
    struct bytes abbreviations;
    Elf_Data *strings, *str_offsets; /* or NULL; strings: the last one has its end */
    uint64_t str_offsets_base;
};

/* Where the pass is. */
struct pass {
    const struct scan_input *in;
    struct abbreviations table;
    struct unit_scan *out;
    struct bytes b; /* from root on */
    size_t depth;
    struct nesting {
        uint32_t scope;
        bool in_function;
    } nested[MOST_NESTING]; /* of the children at each depth */
};

/* --- abbreviations --- */

/* Bytes of a value; -1: they differ. */
static int form_len(const struct scan_input *in, unsigned form)
{
    switch (form) {
    case DW_FORM_flag_present:
    case DW_FORM_implicit_const:
        return 0;
    case DW_FORM_data1:
    case DW_FORM_flag:
    case DW_FORM_ref1:
    case DW_FORM_strx1:
    case DW_FORM_addrx1:
        return 1;
    case DW_FORM_data2:
    case DW_FORM_ref2:
    case DW_FORM_strx2:
    case DW_FORM_addrx2:
        return 2;
    case DW_FORM_strx3:
    case DW_FORM_addrx3:
        return 3;
    case DW_FORM_data4:
    case DW_FORM_ref4:
    case DW_FORM_strx4:
    case DW_FORM_addrx4:
    case DW_FORM_ref_sup4:
        return 4;
    case DW_FORM_data8:
    case DW_FORM_ref8:
    case DW_FORM_ref_sig8:
    case DW_FORM_ref_sup8:
        return 8;
    case DW_FORM_data16:
        return 16;
    case DW_FORM_addr:
        return (int)in->address_size;
    case DW_FORM_ref_addr:
        return (int)(in->version < 3 ? in->address_size : in->offset_size);
    case DW_FORM_strp:
    case DW_FORM_line_strp:
    case DW_FORM_sec_offset:
    case DW_FORM_strp_sup:
    case DW_FORM_GNU_ref_alt:
    case DW_FORM_GNU_strp_alt:
        return (int)in->offset_size;
    default:
        return -1;
    }
}

/* A signed or unsigned LEB128. */
static void skip_leb(struct bytes *b)
{
    while (bytes_u8(b) >= 0x80) {
    }
}

static void classify(struct abbreviation *a, uint64_t name)
{
    a->has_code |= name == DW_AT_low_pc || name == DW_AT_ranges;
    a->has_inline |= name == DW_AT_inline;
    a->is_declaration |= name == DW_AT_declaration;
}

/* False: the table is damaged. */
static bool read_abbreviations(const struct scan_input *in, struct abbreviations *out)
{
    struct bytes b = in->abbreviations;
    for (uint64_t code; (code = bytes_uleb(&b)) != 0;) {
        struct abbreviation a = {.tag = (uint16_t)bytes_uleb(&b),
                                 .known = true,
                                 .has_children = bytes_u8(&b),
                                 .first = (uint32_t)out->specs.count};
        for (;;) {
            uint64_t name = bytes_uleb(&b), form = bytes_uleb(&b);
            size_t value = b.pos;
            if (form == DW_FORM_implicit_const)
                skip_leb(&b);
            if (form == DW_FORM_implicit_const && name == DW_AT_inline && !b.failed)
                a.inline_kind = b.data[value] & 0x7f;
            if (b.failed || (!name && !form))
                break;
            if (name > UINT16_MAX || form > UINT16_MAX)
                return false;
            int len = form_len(in, (unsigned)form);
            a.fixed = len < 0 || a.fixed < 0 ? -1 : a.fixed + len;
            classify(&a, name);
            vec_push(&out->specs, (struct attribute_spec){(uint16_t)name, (uint16_t)form});
        }
        if (b.failed || code > out->codes.count + MOST_GAP)
            return false;
        a.count = (uint32_t)out->specs.count - a.first;
        while (out->codes.count <= code)
            vec_push(&out->codes, (struct abbreviation){0});
        out->codes.items[code] = a;
    }
    return !b.failed;
}

/* --- values --- */

static void skip_value(struct pass *p, unsigned form)
{
    struct bytes *b = &p->b;
    int len = form_len(p->in, form);
    if (len >= 0) {
        bytes_skip(b, (size_t)len);
        return;
    }
    switch (form) {
    case DW_FORM_udata:
    case DW_FORM_sdata:
    case DW_FORM_ref_udata:
    case DW_FORM_strx:
    case DW_FORM_addrx:
    case DW_FORM_loclistx:
    case DW_FORM_rnglistx:
    case DW_FORM_GNU_addr_index:
    case DW_FORM_GNU_str_index:
        skip_leb(b);
        break;
    case DW_FORM_block1:
        bytes_skip(b, bytes_u8(b));
        break;
    case DW_FORM_block2:
        bytes_skip(b, bytes_u16(b));
        break;
    case DW_FORM_block4:
        bytes_skip(b, bytes_u32(b));
        break;
    case DW_FORM_block:
    case DW_FORM_exprloc:
        bytes_skip(b, bytes_uleb(b));
        break;
    case DW_FORM_string: {
        size_t left = bytes_left(b);
        bytes_skip(b, (left ? strnlen((const char *)b->data + b->pos, left) : 0) + 1);
        break;
    }
    case DW_FORM_indirect: {
        uint64_t actual = bytes_uleb(b);
        if (actual == DW_FORM_indirect || actual > UINT16_MAX)
            b->failed = true;
        else
            skip_value(p, (unsigned)actual);
        break;
    }
    default: // a form that is not known: nothing behind it can be read
        b->failed = true;
    }
}

static void skip_values(struct pass *p, const struct abbreviation *a)
{
    if (a->fixed >= 0)
        bytes_skip(&p->b, (size_t)a->fixed);
    for (uint32_t i = a->first; a->fixed < 0 && i < a->first + a->count; i++)
        skip_value(p, p->table.specs.items[i].form);
}

static uint64_t read_fixed(struct bytes *b, int len)
{
    uint64_t v = 0;
    const uint8_t *at = len > 0 && len <= 8 ? bytes_take(b, (size_t)len) : NULL;
    if (at)
        memcpy(&v, at, (size_t)len);
    return v;
}

static const char *string_at(Elf_Data *data, uint64_t off)
{
    return data && off < data->d_size ? (const char *)data->d_buf + off : NULL;
}

/* The value as a string; NULL: its form is not known here. */
static const char *read_name(struct pass *p, unsigned form)
{
    struct bytes *b = &p->b;
    const struct scan_input *in = p->in;
    const char *at = (const char *)b->data + b->pos;
    uint64_t idx;
    switch (form) {
    case DW_FORM_string:
        skip_value(p, form);
        return b->failed ? NULL : at;
    case DW_FORM_strp:
        return string_at(in->strings, read_fixed(b, (int)in->offset_size));
    case DW_FORM_strx1:
    case DW_FORM_strx2:
    case DW_FORM_strx3:
    case DW_FORM_strx4:
        idx = read_fixed(b, form_len(in, form));
        break;
    case DW_FORM_strx:
    case DW_FORM_GNU_str_index:
        idx = bytes_uleb(b);
        break;
    default:
        skip_value(p, form);
        return NULL;
    }
    Elf_Data *offsets = in->str_offsets;
    if (!offsets || in->str_offsets_base > offsets->d_size ||
        idx >= (offsets->d_size - in->str_offsets_base) / in->offset_size)
        return NULL;
    struct bytes entry =
        bytes_of((const uint8_t *)offsets->d_buf + in->str_offsets_base + idx * in->offset_size,
                 in->offset_size);
    return string_at(in->strings, read_fixed(&entry, (int)in->offset_size));
}

/* A reference, as an offset from the section's start; 0: to another file. */
static uint64_t read_reference(struct pass *p, unsigned form)
{
    struct bytes *b = &p->b;
    uint64_t unit = (uint64_t)(p->in->root - p->in->section) - p->in->header_len;
    switch (form) {
    case DW_FORM_ref1:
    case DW_FORM_ref2:
    case DW_FORM_ref4:
    case DW_FORM_ref8:
        return unit + read_fixed(b, form_len(p->in, form));
    case DW_FORM_ref_udata:
        return unit + bytes_uleb(b);
    case DW_FORM_ref_addr:
        return read_fixed(b, form_len(p->in, form));
    default:
        skip_value(p, form);
        return 0;
    }
}

/* --- entries --- */

static bool is_scope(unsigned tag)
{
    return tag == DW_TAG_namespace || tag == DW_TAG_module || tag == DW_TAG_class_type ||
           tag == DW_TAG_structure_type || tag == DW_TAG_union_type;
}

/* Things outside of functions that are asked for by name: what find_global(), complete_type() and
 * expressions look for. Of static members the declaration has the name. */
static bool is_named_thing(const struct abbreviation *a)
{
    switch (a->tag) {
    case DW_TAG_variable:
    case DW_TAG_enumerator:
    case DW_TAG_typedef:
    case DW_TAG_base_type:
        return true;
    case DW_TAG_member:
        return a->is_declaration;
    case DW_TAG_class_type:
    case DW_TAG_structure_type:
    case DW_TAG_union_type:
    case DW_TAG_enumeration_type:
        return !a->is_declaration;
    default:
        return false;
    }
}

static void add_name(struct pass *p, const char *name)
{
    if (name)
        vec_push(&p->out->names, (uint32_t)str_hash(name));
    else
        p->out->names_unknown = true;
}

static void read_named_thing(struct pass *p, const struct abbreviation *a)
{
    bool has_name = false, elsewhere = false;
    for (uint32_t i = a->first; i < a->first + a->count; i++) {
        const struct attribute_spec *s = &p->table.specs.items[i];
        elsewhere |= s->name == DW_AT_specification &&
                     (s->form == DW_FORM_ref_addr || s->form == DW_FORM_GNU_ref_alt ||
                      s->form == DW_FORM_ref_sig8);
        if (s->name != DW_AT_name) {
            skip_value(p, s->form);
            continue;
        }
        has_name = true;
        add_name(p, read_name(p, s->form));
    }
    if (!has_name && elsewhere)
        p->out->names_unknown = true;
}

static void read_inlined_call(struct pass *p, const struct abbreviation *a, uint32_t off)
{
    for (uint32_t i = a->first; i < a->first + a->count; i++) {
        const struct attribute_spec *s = &p->table.specs.items[i];
        if (s->name != DW_AT_abstract_origin) {
            skip_value(p, s->form);
            continue;
        }
        uint64_t origin = read_reference(p, s->form),
                 root = (uint64_t)(p->in->root - p->in->section);
        if (origin >= root && origin - root < p->b.len)
            vec_push(&p->out->calls, (struct scan_call){(uint32_t)(origin - root), off});
        else if (origin)
            vec_push(&p->out->far_calls,
                     (struct scan_far_call){(uintptr_t)(p->in->section + origin), off});
    }
}

/* Passes over the values. Returns that of DW_AT_inline. */
static uint64_t read_inline_kind(struct pass *p, const struct abbreviation *a)
{
    uint64_t kind = a->inline_kind;
    for (uint32_t i = a->first; i < a->first + a->count; i++) {
        const struct attribute_spec *s = &p->table.specs.items[i];
        if (s->name == DW_AT_inline && s->form == DW_FORM_data1)
            kind = bytes_u8(&p->b);
        else
            skip_value(p, s->form);
    }
    return kind;
}

static void read_entry(struct pass *p, const struct abbreviation *a, uint32_t off)
{
    const struct nesting here = p->nested[p->depth];
    struct nesting inner = here;
    struct unit_scan *out = p->out;
    if (a->tag == DW_TAG_subprogram) {
        if (a->has_code)
            vec_push(&out->functions, (struct scan_function){off, here.scope});
        inner = (struct nesting){NO_SCOPE, true};
    } else if (is_scope(a->tag) && a->has_children) {
        vec_push(&out->scopes, (struct scan_scope){off, here.scope});
        inner.scope = (uint32_t)out->scopes.count; // NO_SCOPE is none of them
    }
    if (a->tag == DW_TAG_inlined_subroutine) {
        read_inlined_call(p, a, off);
    } else if (a->tag == DW_TAG_subprogram && a->has_inline && !a->has_code) {
        uint64_t kind = read_inline_kind(p, a);
        if (kind == DW_INL_inlined || kind == DW_INL_declared_inlined)
            vec_push(&out->abstracts, (struct scan_function){off, here.scope});
    } else if (is_named_thing(a) && !here.in_function) {
        read_named_thing(p, a);
    } else {
        skip_values(p, a);
    }
    if (a->has_children && p->depth + 1 < MOST_NESTING)
        p->nested[++p->depth] = inner;
    else if (a->has_children)
        p->b.failed = true;
}

static int by_origin(const void *a, const void *b)
{
    const struct scan_call *x = a, *y = b;
    return x->origin != y->origin ? (x->origin < y->origin ? -1 : 1)
           : x->off < y->off      ? -1
                                  : x->off > y->off;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void finish(struct unit_scan *out)
{
    size_t kept = 0;
    if (out->calls.count)
        qsort(out->calls.items, out->calls.count, sizeof(out->calls.items[0]), by_origin);
    if (out->names.count)
        qsort(out->names.items, out->names.count, sizeof(out->names.items[0]), by_number);
    for (size_t i = 0; i < out->names.count; i++) {
        if (!i || out->names.items[i] != out->names.items[i - 1])
            out->names.items[kept++] = out->names.items[i];
    }
    out->names.count = kept;
}

static void scan(const struct scan_input *in)
{
    cleanup(freep) struct pass *p = xnew(struct pass);
    p->in = in;
    p->out = &in->unit->scan;
    p->b = bytes_of(in->root, (size_t)(in->end - in->root));
    bool good = read_abbreviations(in, &p->table);
    bool begun = false; // the first entry is the unit's own: its children are at depth 1
    while (good && bytes_left(&p->b)) {
        uint32_t off = (uint32_t)p->b.pos;
        uint64_t code = bytes_uleb(&p->b);
        if (!code) {
            if (p->depth <= 1)
                break;
            p->depth--;
            continue;
        }
        const struct abbreviation *a =
            code < p->table.codes.count ? &p->table.codes.items[code] : NULL;
        if (!a || !a->known)
            break;
        read_entry(p, a, off);
        if (!begun && !p->depth)
            break;
        begun = true;
        good = !p->b.failed;
    }
    vec_deinit(&p->table.codes);
    vec_deinit(&p->table.specs);
    finish(p->out);
}

/* --- units --- */

static uint64_t read_str_offsets_base(const struct unit *u, unsigned version, unsigned offset_size)
{
    Dwarf_Attribute attr;
    Dwarf_Word base;
    Dwarf_Die die = u->die;
    if (dwarf_attr(&die, DW_AT_str_offsets_base, &attr) && dwarf_formudata(&attr, &base) == 0)
        return base;
    return version >= 5 ? 2 * offset_size : 0; // DWARF 5 section 7.26: its header
}

static Elf_Data *strings_of(Elf *elf, const char *section)
{
    Elf_Data *data = unpacked_section(elf, section);
    return data && data->d_size && !((const char *)data->d_buf)[data->d_size - 1] ? data : NULL;
}

/* False: the unit has no entries, or they cannot be found. */
static bool find_bytes(struct unit *u, struct scan_input *out)
{
    Dwarf_Die die;
    Dwarf_Half version;
    Dwarf_Off abbreviations;
    uint8_t address_size, offset_size;
    if (u->missing || !dwarf_cu_die(u->die.cu, &die, &version, &abbreviations, &address_size,
                                    &offset_size, NULL, NULL))
        return false;
    Elf *elf = dwarf_getelf(dwarf_cu_getdwarf(u->die.cu));
    bool is_split = u->die.addr != u->line_die.addr;
    Elf_Data *info = unpacked_section(elf, is_split ? ".debug_info.dwo" : ".debug_info");
    Elf_Data *table = unpacked_section(elf, is_split ? ".debug_abbrev.dwo" : ".debug_abbrev");
    Dwarf_Off root = dwarf_dieoffset(&u->die), header_len = dwarf_cuoffset(&u->die);
    if (!info || !table || abbreviations > table->d_size || root > info->d_size ||
        header_len > root || (const uint8_t *)info->d_buf + root != (const uint8_t *)u->die.addr)
        return false;
    struct bytes b = bytes_of(info->d_buf, info->d_size);
    bytes_seek(&b, root - header_len);
    uint64_t len = bytes_u32(&b);
    if (len == UINT32_MAX)
        len = bytes_u64(&b);
    if (b.failed || len > bytes_left(&b) || b.pos + len < root || b.pos + len - root > UINT32_MAX)
        return false;
    *out = (struct scan_input){
        .unit = u,
        .root = u->die.addr,
        .end = (const uint8_t *)info->d_buf + b.pos + len,
        .header_len = header_len,
        .section = info->d_buf,
        .version = version,
        .offset_size = offset_size,
        .address_size = address_size,
        .abbreviations =
            bytes_of((const uint8_t *)table->d_buf + abbreviations, table->d_size - abbreviations),
        .strings = strings_of(elf, is_split ? ".debug_str.dwo" : ".debug_str"),
        .str_offsets =
            unpacked_section(elf, is_split ? ".debug_str_offsets.dwo" : ".debug_str_offsets"),
        .str_offsets_base = read_str_offsets_base(u, version, offset_size)};
    return true;
}

void scan_unit(struct unit *u)
{
    struct scan_input in;
    if (u->scanned)
        return;
    u->scanned = true;
    if (find_bytes(u, &in))
        scan(&in);
    else
        u->scan.names_unknown = true;
}

struct scanning {
    VEC(struct scan_input) inputs;
    atomic_size_t next;
};

static void *scan_some(void *ctx)
{
    struct scanning *s = ctx;
    for (size_t i; (i = atomic_fetch_add(&s->next, 1)) < s->inputs.count;)
        scan(&s->inputs.items[i]);
    return NULL;
}

size_t scan_units(struct sym_module *m, size_t first, size_t most_bytes)
{
    enum { MOST_THREADS = 16, WORTH_A_THREAD = 4 << 20 };
    struct scanning s = {0};
    size_t bytes = 0, started = 0, threads = usable_cpus(), next = first;
    pthread_t thread[MOST_THREADS];
    for (; next < m->unit_count && bytes < most_bytes; next++) {
        struct unit *u = &m->units[next];
        struct scan_input in;
        if (u->scanned)
            continue;
        u->scanned = true;
        u->scan.names_unknown = !find_bytes(u, &in);
        if (u->scan.names_unknown)
            continue;
        vec_push(&s.inputs, in);
        bytes += (size_t)(in.end - in.root);
    }
    threads = threads < MOST_THREADS ? threads : MOST_THREADS;
    for (; started + 1 < threads && bytes / WORTH_A_THREAD > started; started++) {
        if (pthread_create(&thread[started], NULL, scan_some, &s) != 0)
            break;
    }
    scan_some(&s);
    for (size_t i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    vec_deinit(&s.inputs);
    return next;
}

void scan_all(struct sym_module *m)
{
    scan_units(m, 0, SIZE_MAX);
}

void scan_deinit(struct unit_scan *s)
{
    vec_deinit(&s->scopes);
    vec_deinit(&s->functions);
    vec_deinit(&s->abstracts);
    vec_deinit(&s->calls);
    vec_deinit(&s->far_calls);
    vec_deinit(&s->names);
}

bool may_name(struct unit *u, const char *base_name)
{
    scan_unit(u);
    uint32_t hash = (uint32_t)str_hash(base_name);
    const struct unit_scan *s = &u->scan;
    return s->names_unknown || (s->names.count && bsearch(&hash, s->names.items, s->names.count,
                                                          sizeof(hash), by_number));
}
