/* Line programs, versions 2 to 5 (DWARF 5 section 6.2, DWARF 4 section 6.2): the files that their
 * headers name, and their rows. libdw reads both together and keeps them; most questions are about
 * names of files only, or about the rows of one file in many units. */
#include "base/bytes.h"
#include "sym/sym_int.h"

enum { MOST_FORMATS = 16, MOST_FILES = 1 << 20 };

struct dir_list {
    const char **items;
    size_t count, cap;
};

/* What the header is read with. */
struct reading {
    struct sym_module *m;
    Elf *elf;
    struct bytes b;
    bool is_split; /* sections are those of a .dwo */
    unsigned version, offset_size;
    const char *comp_dir;
    struct dir_list dirs;
    struct file_table *out;
    /* of the program: */
    size_t program; /* offset in b */
    uint8_t min_instruction_len, opcode_base, line_range;
    int8_t line_base;
    bool default_is_stmt;
    uint8_t operands[UINT8_MAX + 1]; /* of the standard opcodes */
};

static uint64_t read_offset(struct reading *r)
{
    return r->offset_size == 8 ? bytes_u64(&r->b) : bytes_u32(&r->b);
}

/* The string that begins here; "" if it has no end. */
static const char *read_string(struct bytes *b)
{
    const char *s = (const char *)b->data + b->pos;
    size_t left = bytes_left(b), len = left ? strnlen(s, left) : 0;
    bytes_skip(b, len + 1);
    return b->failed ? "" : s;
}

static const char *string_in(const struct reading *r, const char *section, uint64_t off)
{
    Elf_Data *data = unpacked_section(r->elf, section);
    if (!data || off >= data->d_size ||
        !memchr((const char *)data->d_buf + off, 0, data->d_size - off))
        return NULL;
    return (const char *)data->d_buf + off;
}

static void add_file(struct reading *r, const char *name, uint64_t dir_idx)
{
    const char *dir = dir_idx < r->dirs.count ? r->dirs.items[dir_idx] : NULL;
    if (r->out->count >= MOST_FILES)
        return;
    if (!name) {
        vec_push(r->out, NULL);
        return;
    }
    cleanup(freep) char *full =
        name[0] != '/' && dir ? str_format("%s/%s", dir, name) : NULL; // as libdw has it
    vec_push(r->out, intern_source(r->m, r->comp_dir, full ? full : name));
}

/* Of one entry: the path and the directory's index; whatever else there is is passed over. False: a
 * form that is not known. */
static bool read_field(struct reading *r, uint64_t content, uint64_t form, const char **path,
                       uint64_t *dir_idx)
{
    const char *string = NULL;
    uint64_t number = 0;
    switch (form) {
    case DW_FORM_string:
        string = read_string(&r->b);
        break;
    case DW_FORM_line_strp:
        string =
            string_in(r, r->is_split ? ".debug_line_str.dwo" : ".debug_line_str", read_offset(r));
        break;
    case DW_FORM_strp:
        string = string_in(r, r->is_split ? ".debug_str.dwo" : ".debug_str", read_offset(r));
        break;
    case DW_FORM_udata:
        number = bytes_uleb(&r->b);
        break;
    case DW_FORM_data1:
        number = bytes_u8(&r->b);
        break;
    case DW_FORM_data2:
        number = bytes_u16(&r->b);
        break;
    case DW_FORM_data4:
        number = bytes_u32(&r->b);
        break;
    case DW_FORM_data8:
        number = bytes_u64(&r->b);
        break;
    case DW_FORM_data16:
        bytes_skip(&r->b, 16);
        break;
    case DW_FORM_block:
        bytes_skip(&r->b, bytes_uleb(&r->b));
        break;
    default:
        return false;
    }
    if (content == DW_LNCT_path)
        *path = string;
    if (content == DW_LNCT_directory_index)
        *dir_idx = number;
    return true;
}

/* The directories or the files of version 5, in the formats that stand before them. */
static bool read_entries(struct reading *r, bool are_files)
{
    uint64_t formats[MOST_FORMATS][2];
    size_t format_count = bytes_u8(&r->b);
    if (format_count > MOST_FORMATS)
        return false;
    for (size_t i = 0; i < format_count; i++) {
        formats[i][0] = bytes_uleb(&r->b);
        formats[i][1] = bytes_uleb(&r->b);
    }
    uint64_t count = bytes_uleb(&r->b);
    for (uint64_t i = 0; i < count && format_count && !r->b.failed; i++) {
        const char *path = NULL;
        uint64_t dir_idx = 0;
        for (size_t k = 0; k < format_count; k++) {
            if (!read_field(r, formats[k][0], formats[k][1], &path, &dir_idx))
                return false;
        }
        if (r->b.failed)
            return false;
        if (are_files)
            add_file(r, path, dir_idx);
        else
            vec_push(&r->dirs, path);
    }
    return !r->b.failed;
}

static void read_old_entries(struct reading *r)
{
    vec_push(&r->dirs, r->comp_dir);
    for (const char *dir; *(dir = read_string(&r->b));)
        vec_push(&r->dirs, dir);
    add_file(r, NULL, 0); // files are counted from 1
    for (const char *name; *(name = read_string(&r->b));) {
        uint64_t dir_idx = bytes_uleb(&r->b);
        bytes_uleb(&r->b); // time
        bytes_uleb(&r->b); // length
        if (!r->b.failed)
            add_file(r, name, dir_idx);
    }
}

/* Up to the list of directories. False: it cannot be read. */
static bool read_parameters(struct reading *r)
{
    uint64_t len = bytes_u32(&r->b);
    r->offset_size = len == UINT32_MAX ? 8 : 4;
    if (r->offset_size == 8)
        len = bytes_u64(&r->b);
    if (len > bytes_left(&r->b))
        return false;
    r->b.len = r->b.pos + len;
    r->version = bytes_u16(&r->b);
    if (r->version < 2 || r->version > 5)
        return false;
    if (r->version == 5)
        bytes_skip(&r->b, 2); // sizes of addresses and of segment selectors
    uint64_t header_len = read_offset(r);
    r->program = header_len <= bytes_left(&r->b) ? r->b.pos + header_len : r->b.len;
    r->min_instruction_len = bytes_u8(&r->b);
    if (r->version >= 4 && bytes_u8(&r->b) > 1)
        r->program = r->b.len; // several operations in an instruction: not on x86
    r->default_is_stmt = bytes_u8(&r->b);
    r->line_base = (int8_t)bytes_u8(&r->b);
    r->line_range = bytes_u8(&r->b);
    r->opcode_base = bytes_u8(&r->b);
    for (unsigned i = 1; i < r->opcode_base; i++)
        r->operands[i] = bytes_u8(&r->b);
    return !r->b.failed;
}

static void read_files(struct reading *r)
{
    if (r->version < 5)
        read_old_entries(r);
    else if (read_entries(r, false))
        read_entries(r, true);
}

/* The unit with the line program: of a split unit that has none of its own, its skeleton. */
static void find_program(struct sym_module *m, Dwarf_Die *unit, Elf **elf, bool *is_split,
                         Dwarf_Die *out)
{
    *out = *unit;
    *elf = dwarf_getelf(dwarf_cu_getdwarf(unit->cu));
    *is_split = false;
    for (size_t i = 0; i < m->unit_count; i++) {
        const struct unit *u = &m->units[i];
        if (u->die.addr != unit->addr || u->die.addr == u->line_die.addr)
            continue;
        *is_split = unpacked_section(*elf, ".debug_line.dwo") != NULL;
        if (*is_split)
            return;
        *out = u->line_die;
        *elf = dwarf_getelf(dwarf_cu_getdwarf(out->cu));
    }
}

/* Reads the parameters of the unit's program. False: there is none. The caller frees r->dirs. */
static bool begin(struct sym_module *m, Dwarf_Die *unit, struct reading *r)
{
    Dwarf_Die die;
    Dwarf_Attribute attr;
    Dwarf_Word off = 0;
    *r = (struct reading){.m = m};
    find_program(m, unit, &r->elf, &r->is_split, &die);
    if (!r->is_split &&
        (!dwarf_attr(&die, DW_AT_stmt_list, &attr) || dwarf_formudata(&attr, &off) != 0))
        return false;
    Elf_Data *data = unpacked_section(r->elf, r->is_split ? ".debug_line.dwo" : ".debug_line");
    if (!data || off > data->d_size)
        return false;
    r->comp_dir = die_string(&die, DW_AT_comp_dir);
    r->b = bytes_of((const uint8_t *)data->d_buf + off, data->d_size - off);
    return read_parameters(r);
}

static void load(struct sym_module *m, Dwarf_Die *unit, struct file_table *out)
{
    struct reading r;
    if (!begin(m, unit, &r))
        return;
    r.out = out;
    read_files(&r);
    vec_deinit(&r.dirs);
}

const struct file_table *file_table_of(struct sym_module *m, Dwarf_Die *unit)
{
    struct file_table *known = sym_table_get(&m->file_tables, (uintptr_t)unit->addr);
    if (known)
        return known;
    struct file_table *t = sym_pool_alloc(&m->pool, sizeof(*t)), read = {0};
    load(m, unit, &read);
    t->count = read.count;
    t->items = sym_pool_alloc(&m->pool, read.count * sizeof(*t->items));
    if (read.count)
        memcpy(t->items, read.items, read.count * sizeof(*t->items));
    vec_deinit(&read);
    sym_table_put(&m->file_tables, (uintptr_t)unit->addr, t);
    return t;
}

/* --- rows --- */

/* A row as the program makes it. */
struct made_row {
    struct row row;
    size_t number;
    bool ends; /* the sequence */
};

struct machine {
    struct reading *r;
    const struct file_table *files;
    VEC(struct made_row) rows;
    uint64_t addr, file;
    int64_t line;
    uint64_t column;
    bool is_stmt, prologue_end;
};

static void reset(struct machine *x)
{
    x->addr = 0;
    x->file = 1;
    x->line = 1;
    x->column = 0;
    x->is_stmt = x->r->default_is_stmt;
    x->prologue_end = false;
}

static void add_row(struct machine *x, bool ends)
{
    struct made_row m = {.number = x->rows.count, .ends = ends};
    m.row = (struct row){.start = x->addr,
                         .end = x->addr,
                         .is_stmt = x->is_stmt,
                         .prologue_end = x->prologue_end,
                         .file = x->file < x->files->count ? x->files->items[x->file] : NULL,
                         .line = x->line > 0 && x->line <= INT32_MAX ? (unsigned)x->line : 0,
                         .column = (uint16_t)(x->column > UINT16_MAX ? UINT16_MAX : x->column)};
    vec_push(&x->rows, m);
    x->prologue_end = false;
}

static void extended(struct machine *x)
{
    struct bytes *b = &x->r->b;
    uint64_t len = bytes_uleb(b);
    size_t next = len <= bytes_left(b) ? b->pos + len : b->len;
    uint8_t opcode = len ? bytes_u8(b) : 0;
    if (opcode == DW_LNE_end_sequence) {
        add_row(x, true);
        reset(x);
    } else if (opcode == DW_LNE_set_address && len == 9) {
        x->addr = bytes_u64(b);
    }
    bytes_seek(b, next);
}

static int64_t read_sleb(struct bytes *b)
{
    uint64_t v = 0;
    uint8_t byte;
    unsigned shift = 0;
    do {
        byte = bytes_u8(b);
        v |= shift < 64 ? (uint64_t)(byte & 0x7f) << shift : 0;
        shift += 7;
    } while (byte & 0x80);
    if (shift < 64 && (byte & 0x40))
        v |= UINT64_MAX << shift;
    return (int64_t)v;
}

static void standard(struct machine *x, uint8_t opcode)
{
    struct reading *r = x->r;
    switch (opcode) {
    case DW_LNS_copy:
        add_row(x, false);
        break;
    case DW_LNS_advance_pc:
        x->addr += r->min_instruction_len * bytes_uleb(&r->b);
        break;
    case DW_LNS_advance_line:
        x->line = (int64_t)((uint64_t)x->line + (uint64_t)read_sleb(&r->b));
        break;
    case DW_LNS_set_file:
        x->file = bytes_uleb(&r->b);
        break;
    case DW_LNS_set_column:
        x->column = bytes_uleb(&r->b);
        break;
    case DW_LNS_negate_stmt:
        x->is_stmt = !x->is_stmt;
        break;
    case DW_LNS_const_add_pc:
        x->addr += r->min_instruction_len * ((255u - r->opcode_base) / r->line_range);
        break;
    case DW_LNS_fixed_advance_pc:
        x->addr += bytes_u16(&r->b);
        break;
    case DW_LNS_set_prologue_end:
        x->prologue_end = true;
        break;
    default: // of no interest here
        for (unsigned i = 0; i < r->operands[opcode]; i++)
            bytes_uleb(&r->b);
    }
}

static int by_address(const void *p, const void *q)
{
    const struct made_row *a = p, *b = q;
    if (a->row.start != b->row.start)
        return a->row.start < b->row.start ? -1 : 1;
    if (a->ends != b->ends)
        return a->ends ? -1 : 1; // what ends there comes first
    return a->number < b->number ? -1 : a->number > b->number;
}

/* Runs the program: each of its sequences goes up, but they come in any order. */
static void run(struct machine *x)
{
    struct reading *r = x->r;
    bytes_seek(&r->b, r->program);
    reset(x);
    while (bytes_left(&r->b) && r->line_range) {
        uint8_t opcode = bytes_u8(&r->b);
        if (opcode >= r->opcode_base) {
            unsigned steps = opcode - r->opcode_base;
            x->addr += r->min_instruction_len * (steps / r->line_range);
            x->line += r->line_base + (int)(steps % r->line_range);
            add_row(x, false);
        } else if (opcode) {
            standard(x, opcode);
        } else {
            extended(x);
        }
    }
    bool sorted = true;
    for (size_t i = 1; i < x->rows.count && sorted; i++)
        sorted = by_address(&x->rows.items[i - 1], &x->rows.items[i]) < 0;
    if (!sorted)
        qsort(x->rows.items, x->rows.count, sizeof(x->rows.items[0]), by_address);
    if (x->rows.count)
        x->rows.items[x->rows.count - 1].ends = true; // as it is bound to be
}

void read_rows(struct sym_module *m, struct unit *u, struct row_list *out)
{
    struct reading r;
    *out = (struct row_list){0};
    if (!begin(m, &u->line_die, &r))
        return;
    struct machine x = {.r = &r, .files = file_table_of(m, &u->line_die)};
    run(&x);
    bool was_row = false;
    vec_each (made, &x.rows) {
        if (was_row)
            out->items[out->count - 1].end = made->row.start;
        // Code that the linker dropped has addresses outside of the executable segments.
        was_row = !made->ends && is_code(m, made->row.start);
        if (was_row) {
            made->row.number = (uint32_t)out->count;
            vec_push(out, made->row);
        }
    }
    vec_deinit(&x.rows);
}
