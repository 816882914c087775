/* Scopes: which calls are inlined at an address, and which variables can be named there. */
#include "sym/sym_int.h"

_Static_assert(sizeof(struct sym_die) >= sizeof(Dwarf_Die), "sym_die holds a Dwarf_Die");

/* ---- Inlined calls ---- */

/* Whether an inlined call whose ranges do not hold `addr` is entered there all the same: gcc gives
 * blocks whose first statement shares its code with another an empty range. The line shown at
 * `addr` must be of the call's function. */
static bool is_entered_at(struct sym_module *m, Dwarf_Die *die, vaddr addr)
{
    Dwarf_Addr entry;
    vaddr end;
    const char *file;
    unsigned line;
    if (!dwarf_hasattr(die, DW_AT_entry_pc) || dwarf_entrypc(die, &entry) != 0 || entry != addr)
        return false;
    const struct row *row = row_at(m, addr, &end);
    die_declaration(m, die, &file, &line);
    return row && row->start == addr && row->file == file && row->line >= line;
}

static void find_inlined(struct sym_module *m, Dwarf_Die *parent, vaddr addr, struct dies *out,
                         unsigned depth)
{
    Dwarf_Die die, entered;
    bool has_entered = false;
    if (depth > MAX_DEPTH || !die_child(parent, &die))
        return;
    do {
        int tag = dwarf_tag(&die);
        bool is_call = tag == DW_TAG_inlined_subroutine;
        if (!is_call && tag != DW_TAG_lexical_block)
            continue;
        if (dwarf_haspc(&die, addr) == 1) {
            if (is_call)
                vec_push(out, die);
            find_inlined(m, &die, addr, out, depth + 1);
            return;
        }
        if (is_call && !has_entered && is_entered_at(m, &die, addr)) {
            has_entered = true;
            entered = die;
        }
    } while (die_sibling(&die, &die));
    if (has_entered) {
        vec_push(out, entered);
        find_inlined(m, &entered, addr, out, depth + 1);
    }
}

void inlined_at(struct sym_module *m, const struct function *fn, vaddr addr, struct dies *out)
{
    *out = (struct dies){0};
    Dwarf_Die die = fn->die;
    if (fn->pub.source == SYM_DWARF)
        find_inlined(m, &die, addr, out, 0);
}

static struct sym_frame frame_of_inlined(struct sym_module *m, Dwarf_Die *die)
{
    struct sym_frame f = {.is_inlined = true};
    Dwarf_Addr start;
    f.name = die_function_name(m, die, "");
    if (dwarf_entrypc(die, &start) == 0)
        f.start = start;
    die_declaration(m, die, &f.decl_file, &f.decl_line);
    return f;
}

/* Sets the place of a frame to where the call `die` was inlined. */
static void set_call_place(struct sym_module *m, struct unit *u, Dwarf_Die *die,
                           struct sym_frame *f)
{
    uint64_t file, line = 0, column = 0;
    if (u && die_unsigned(die, DW_AT_call_file, &file))
        f->file = unit_file(m, u, file);
    die_unsigned(die, DW_AT_call_line, &line);
    die_unsigned(die, DW_AT_call_column, &column);
    f->line = (unsigned)line;
    f->column = (unsigned)column;
}

struct err *sym_inline_chain(struct sym_module *m, vaddr addr, struct sym_frames *out)
{
    HOLD(m);
    const struct sym_function *fn;
    TRY(sym_function_at(m, addr, &fn));
    struct dies calls;
    inlined_at(m, function_of(fn), addr, &calls);
    struct sym_frames frames = {0};
    for (size_t i = calls.count; i-- > 0;)
        vec_push(&frames, frame_of_inlined(m, &calls.items[i]));
    vec_push(&frames, (struct sym_frame){.name = fn->name,
                                         .start = fn->start,
                                         .decl_file = fn->decl_file,
                                         .decl_line = fn->decl_line});
    vaddr end;
    const struct row *row = fn->source == SYM_DWARF ? row_at(m, addr, &end) : NULL;
    if (row && row->line) {
        frames.items[0].file = row->file;
        frames.items[0].line = row->line;
        frames.items[0].column = row->column;
    }
    for (size_t i = 0; i < calls.count; i++)
        set_call_place(m, function_of(fn)->unit, &calls.items[calls.count - 1 - i],
                       &frames.items[i + 1]);
    vec_deinit(&calls);
    *out = frames;
    return NULL;
}

void sym_frames_deinit(struct sym_frames *f)
{
    vec_deinit(f);
}

/* ---- Variables ---- */

void variable_from_die(struct sym_module *m, Dwarf_Die *die, const struct sym_function *fn,
                       struct sym_variable *out)
{
    const char *name = dwarf_diename(die);
    *out =
        (struct sym_variable){.name = name ? sym_pool_str(&m->pool, name) : NULL, .function = fn};
    out->type = type_of_die(m, die);
    out->is_parameter = dwarf_tag(die) == DW_TAG_formal_parameter;
    out->is_artificial = die_flag(die, DW_AT_artificial);
    out->has_location = dwarf_hasattr_integrate(die, DW_AT_location) ||
                        dwarf_hasattr_integrate(die, DW_AT_const_value);
    die_declaration(m, die, &out->decl_file, &out->decl_line);
    memcpy(&out->die, die, sizeof(*die));
}

static void add_variables(struct sym_module *m, Dwarf_Die *scope, vaddr addr,
                          const struct sym_function *fn, struct sym_variables *out, unsigned depth)
{
    Dwarf_Die die;
    if (depth > MAX_DEPTH)
        return;
    for (int pass = 0; pass < 2; pass++) { // parameters, then the rest
        if (!die_child(scope, &die))
            return;
        do {
            int tag = dwarf_tag(&die);
            bool wanted = pass == 0
                              ? tag == DW_TAG_formal_parameter
                              : tag == DW_TAG_variable && !dwarf_hasattr(&die, DW_AT_declaration);
            if (wanted && out->count < 4096)
                variable_from_die(m, &die, fn, vec_add(out));
            if (pass == 1 && tag == DW_TAG_lexical_block && dwarf_haspc(&die, addr) == 1)
                add_variables(m, &die, addr, fn, out, depth + 1);
        } while (die_sibling(&die, &die));
    }
}

/* Blocks come where they stand among the variables; put the inner blocks' variables behind. */
struct err *sym_variables_at(struct sym_module *m, vaddr addr, size_t inlined,
                             struct sym_variables *out)
{
    HOLD(m);
    TRY(load_units(m));
    const struct function *fn = dwarf_function_at(m, addr);
    if (!fn) {
        struct unit *u = unit_at(m, addr);
        if (u && u->missing)
            return err_new(ERR_NOT_FOUND, "%s: no debug information at 0x%jx: %s", m->path,
                           (uintmax_t)addr, u->missing);
        return err_new(ERR_NOT_FOUND, "%s: no debug information at 0x%jx", m->path,
                       (uintmax_t)addr);
    }
    struct dies calls;
    inlined_at(m, fn, addr, &calls);
    Dwarf_Die scope = inlined < calls.count ? calls.items[calls.count - 1 - inlined] : fn->die;
    bool exists = inlined <= calls.count;
    vec_deinit(&calls);
    if (!exists)
        return err_new(ERR_NOT_FOUND, "%s: no frame %zu at 0x%jx", m->path, inlined,
                       (uintmax_t)addr);
    struct sym_variables found = {0};
    add_variables(m, &scope, addr, &fn->pub, &found, 0);
    *out = found;
    return NULL;
}

void sym_variables_deinit(struct sym_variables *v)
{
    vec_deinit(v);
}

bool find_global(struct sym_module *m, Dwarf_Die *parent, const char *scope, const char *name,
                 Dwarf_Die *out, unsigned depth)
{
    Dwarf_Die die;
    if (depth > MAX_DEPTH || !die_child(parent, &die))
        return false;
    const char *colon = strrchr(name, ':'), *base = colon ? colon + 1 : name;
    do {
        int tag = dwarf_tag(&die);
        const char *n =
            tag == DW_TAG_variable || tag == DW_TAG_namespace ? dwarf_diename(&die) : NULL;
        if (tag == DW_TAG_namespace) {
            cleanup(freep) char *inner =
                str_format("%s%s%s", scope, *scope ? "::" : "", n ? n : "(anonymous namespace)");
            if (find_global(m, &die, inner, name, out, depth + 1))
                return true;
        }
        if (tag != DW_TAG_variable || !n || !str_eq(n, base) ||
            !dwarf_hasattr_integrate(&die, DW_AT_location))
            continue;
        // The scope of a definition outside of its namespace or class stands at its declaration:
        // take it on trust.
        size_t scope_len = strlen(scope);
        bool fits =
            !colon || dwarf_hasattr(&die, DW_AT_specification) ||
            (strlen(name) == scope_len + 2 + strlen(base) && strncmp(name, scope, scope_len) == 0);
        if (fits) {
            *out = die;
            return true;
        }
    } while (die_sibling(&die, &die));
    return false;
}

struct err *sym_global_named(struct sym_module *m, const char *name, struct sym_variable *out)
{
    HOLD(m);
    TRY(load_units(m));
    Dwarf_Die die;
    const char *colon = strrchr(name, ':'), *base = colon ? colon + 1 : name;
    scan_all(m);
    for (size_t i = 0; i < m->unit_count; i++)
        if (!m->units[i].missing && may_name(&m->units[i], base) &&
            find_global(m, &m->units[i].die, "", name, &die, 0)) {
            variable_from_die(m, &die, NULL, out);
            return NULL;
        }
    return err_new(ERR_NOT_FOUND, "%s: no global variable %s", m->path, name);
}
