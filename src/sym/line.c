/* Line tables: address to line, line to addresses, and the names of source files.
 *
 * File names are absolute (the compilation directory put before relative ones; unless that is
 * relative too), without ".", ".." and double slashes, and interned: within a module two files are
 * the same if and only if the pointers are equal.
 *
 * Several rows may begin at one address (DWARF 5 section 6.2.2 calls them views); the last of them
 * owns the addresses up to the next row, the others are empty. */
#include "sym/sym_int.h"

/* ---- File names ---- */

/* Removes empty, "." and ".." components in place; of a relative path (a build whose directory was
 * mapped away) not the ".." it begins with. */
static void normalise(char *path)
{
    bool is_absolute = path[0] == '/';
    char *root = path + is_absolute, *to = root;
    for (const char *from = root; *from;) {
        from += strspn(from, "/");
        size_t len = strcspn(from, "/");
        bool is_parent = len == 2 && from[0] == '.' && from[1] == '.';
        bool ends_in_parent =
            to - root >= 2 && to[-1] == '.' && to[-2] == '.' && (to - root == 2 || to[-3] == '/');
        if (is_parent && to > root && !ends_in_parent) {
            while (to > root && *--to != '/')
                ;
        } else if (len && !(len == 1 && from[0] == '.') && !(is_parent && is_absolute)) {
            if (to > root)
                *to++ = '/';
            memmove(to, from, len);
            to += len;
        }
        from += len;
    }
    *to = '\0';
}

const char *intern_file(struct sym_module *m, const char *path)
{
    cleanup(freep) char *plain = xstrdup(path);
    normalise(plain);
    for (uint64_t key = str_hash(plain);; key = key * 31 + 1) { // rehash on the rare collision
        key = key ? key : 1;
        const char *known = sym_table_get(&m->files_by_hash, key);
        if (known && str_eq(known, plain))
            return known;
        if (known)
            continue;
        char *kept = sym_pool_str(&m->pool, plain);
        sym_table_put(&m->files_by_hash, key, kept);
        vec_push(&m->file_names, kept);
        m->file_list_loaded = false; // a new name: the list needs sorting again
        return kept;
    }
}

const char *intern_source(struct sym_module *m, const char *comp_dir, const char *name)
{
    size_t len = comp_dir ? strlen(comp_dir) : 0;
    const char *dir = m->comp_dir ? m->comp_dir : comp_dir;
    cleanup(freep) char *full = NULL;
    if (m->comp_dir && len && strncmp(name, comp_dir, len) == 0 &&
        (name[len] == '/' || comp_dir[len - 1] == '/'))
        full = str_format("%s/%s", m->comp_dir, name + len); // libdw has put the directory before
    else if (name[0] != '/' && dir)
        full = str_format("%s/%s", dir, name);
    return intern_file(m, full ? full : name);
}

const char *unit_file(struct sym_module *m, struct unit *u, uint64_t idx)
{
    const struct file_table *t = file_table_of(m, &u->line_die);
    return idx < t->count ? t->items[idx] : NULL;
}

static int compare_names(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

void load_file_list(struct sym_module *m)
{
    load_dwarf(m);
    struct err *e = load_units(m);
    if (e) {
        err_free(e); // no DWARF: no files
        return;
    }
    for (size_t i = 0; i < m->unit_count; i++)
        file_table_of(m, &m->units[i].line_die);
    if (m->file_list_loaded)
        return;
    m->file_list_loaded = true;
    if (m->file_names.count)
        qsort(m->file_names.items, m->file_names.count, sizeof(*m->file_names.items),
              compare_names);
    // The vector may grow and be sorted again later; what callers were given stays.
    m->file_list = sym_pool_alloc(&m->pool, m->file_names.count * sizeof(*m->file_list));
    if (m->file_names.count)
        memcpy(m->file_list, m->file_names.items, m->file_names.count * sizeof(*m->file_list));
}

const char *const *sym_file_list(struct sym_module *m, size_t *count_out)
{
    HOLD(m);
    load_file_list(m);
    *count_out = m->file_names.count;
    return m->file_list;
}

/* The interned name that `file` means: equal to it, else ending in it after a slash. NULL: none. */
static const char *find_file(struct sym_module *m, const char *file)
{
    load_file_list(m);
    cleanup(freep) char *plain = xstrdup(file);
    normalise(plain);
    const char *found = NULL;
    size_t len = strlen(plain);
    vec_each (name, &m->file_names) {
        if (str_eq(*name, plain))
            return *name;
        size_t name_len = strlen(*name);
        if (!found && plain[0] != '/' && name_len > len && (*name)[name_len - len - 1] == '/' &&
            str_eq(*name + name_len - len, plain))
            found = *name;
    }
    return found;
}

/* ---- Rows ---- */

static void load_rows(struct sym_module *m, struct unit *u)
{
    if (!u->rows_loaded)
        read_rows(m, u, &u->rows);
    u->rows_loaded = true;
}

const struct row *row_at(struct sym_module *m, vaddr addr, vaddr *end_out)
{
    struct unit *u = unit_at(m, addr);
    if (!u)
        return NULL;
    load_rows(m, u);
    size_t low = 0, high = u->rows.count; // the first row that starts after addr
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (u->rows.items[mid].start <= addr)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == 0 || addr >= u->rows.items[low - 1].end)
        return NULL;
    // Optimised code: of the rows at one address the last is often the rest of another line. Right
    // there, the statement that begins says more: it is where sym_addresses_of_line() counts its
    // executions.
    const struct row *r = &u->rows.items[low - 1];
    for (const struct row *p = r;
         addr == r->start && !r->is_stmt && p > u->rows.items && p[-1].start == addr; p--)
        if (p[-1].is_stmt && p[-1].line && p[-1].file == r->file) {
            *end_out = r->end;
            return p - 1;
        }
    *end_out = r->end;
    return r;
}

static struct sym_line line_of_row(const struct row *r)
{
    return (struct sym_line){.file = r->file,
                             .line = r->line,
                             .column = r->column,
                             .is_stmt = r->is_stmt,
                             .start = r->start,
                             .end = r->end};
}

struct err *sym_line_at(struct sym_module *m, vaddr addr, struct sym_line *out)
{
    HOLD(m);
    TRY(load_units(m));
    vaddr end;
    const struct row *r = row_at(m, addr, &end);
    if (!r || !r->file || !r->line)
        return err_new(ERR_NOT_FOUND, "%s: no line at 0x%jx", m->path, (uintmax_t)addr);
    *out = line_of_row(r);
    out->end = end;
    return NULL;
}

/* ---- Lines to addresses ---- */

static bool unit_has_file(struct sym_module *m, struct unit *u, const char *file)
{
    const struct file_table *t = file_table_of(m, &u->line_die);
    for (size_t i = 0; i < t->count; i++)
        if (t->items[i] == file)
            return true;
    return false;
}

void forget_file_rows(struct sym_module *m)
{
    vec_each (f, &m->file_rows)
        vec_deinit(&f->rows);
    m->file_rows.count = 0;
    m->row_file = NULL;
}

/* Fills `file_rows`. A header's rows are in very many units, which would be too much to keep. */
static void load_file_rows(struct sym_module *m, const char *file)
{
    if (m->row_file == file)
        return;
    forget_file_rows(m);
    m->row_file = file;
    for (size_t i = 0; i < m->unit_count; i++) {
        struct unit *u = &m->units[i];
        struct row_list read = {0};
        struct file_rows found = {.unit = u};
        if (!unit_has_file(m, u, file))
            continue;
        if (!u->rows_loaded)
            read_rows(m, u, &read);
        const struct row_list *all = u->rows_loaded ? &u->rows : &read;
        for (size_t k = 0; k < all->count; k++) {
            if (all->items[k].file == file && all->items[k].line)
                vec_push(&found.rows, all->items[k]);
        }
        vec_deinit(&read);
        if (found.rows.count)
            vec_push(&m->file_rows, found);
    }
}

struct err *sym_lines_of_file(struct sym_module *m, const char *file, sym_line_visitor *visit,
                              void *arg)
{
    HOLD(m);
    TRY(load_units(m));
    const char *name = find_file(m, file);
    if (!name)
        return err_new(ERR_NOT_FOUND, "%s: no source file %s", m->path, file);
    load_file_rows(m, name);
    vec_each (found, &m->file_rows) {
        load_functions(m, found->unit);
        vec_each (r, &found->rows) {
            struct sym_line line = line_of_row(r);
            const struct function *f = function_table_find(&found->unit->functions, r->start);
            if (!visit(arg, &line, f ? &f->pub : NULL))
                return NULL;
        }
    }
    return NULL;
}

/* The least line >= `line` of the file whose rows are loaded that has a statement; 0 if none. */
static unsigned nearest_line(const struct sym_module *m, unsigned line)
{
    unsigned best = 0;
    vec_each (found, &m->file_rows) {
        vec_each (r, &found->rows)
            if (r->is_stmt && r->line >= line && (!best || r->line < best))
                best = r->line;
    }
    return best;
}

/* Adds the runs of consecutive rows of `line` in one unit. A run that holds no statement begins
 * nothing. Empty rows count only if `empty`: they name code that belongs to another line as well.
 */
static void add_places(struct sym_module *m, const struct file_rows *in, unsigned line, bool empty,
                       struct sym_places *out)
{
    const struct row *rows = in->rows.items;
    const struct function_table *functions = &in->unit->functions;
    for (size_t k = 0; k < in->rows.count;) {
        const struct row *r = &rows[k++];
        if (r->line != line || (r->start == r->end && !empty))
            continue;
        load_functions(m, in->unit);
        const struct function *f = function_table_find(functions, r->start);
        const struct row *begin = r->is_stmt ? r : NULL;
        for (; k < in->rows.count && rows[k].line == line &&
               rows[k].number == rows[k - 1].number + 1 && rows[k].start == rows[k - 1].end &&
               function_table_find(functions, rows[k].start) == f;
             k++)
            if (!begin && rows[k].is_stmt)
                begin = &rows[k];
        if (begin)
            vec_push(out, (struct sym_place){begin->start, rows[k - 1].end, f ? &f->pub : NULL});
    }
}

static int compare_places(const void *x, const void *y)
{
    const struct sym_place *a = x, *b = y;
    return a->start == b->start ? 0 : a->start < b->start ? -1 : 1;
}

struct err *sym_addresses_of_line(struct sym_module *m, const char *file, unsigned line,
                                  struct sym_places *out)
{
    HOLD(m);
    TRY(load_units(m));
    const char *name = find_file(m, file);
    if (!name)
        return err_new(ERR_NOT_FOUND, "%s: no source file %s", m->path, file);
    load_file_rows(m, name);
    unsigned found = nearest_line(m, line);
    if (!found)
        return err_new(ERR_NOT_FOUND, "%s: no code at or after %s:%u", m->path, name, line);
    struct sym_places places = {.file = name, .line = found};
    for (int empty = 0; empty < 2 && !places.count; empty++)
        vec_each (in, &m->file_rows)
            add_places(m, in, found, empty, &places);
    if (places.count)
        qsort(places.items, places.count, sizeof(*places.items), compare_places);
    *out = places;
    return NULL;
}

void sym_places_deinit(struct sym_places *p)
{
    vec_deinit(p);
}

vaddr sym_function_prologue_end(struct sym_module *m, const struct sym_function *fn)
{
    HOLD(m);
    struct err *e = load_units(m);
    if (e || fn->source != SYM_DWARF) {
        err_free(e);
        return fn->start;
    }
    vaddr row_end;
    const struct row *r = row_at(m, fn->start, &row_end);
    if (!r)
        return fn->start;
    struct unit *u = unit_at(m, fn->start);
    const struct row *end = u->rows.items + u->rows.count, *second = NULL;
    for (const struct row *p = r; p < end && p->start < fn->end; p++) {
        if (p->prologue_end) // clang marks it
            return p->start;
        // gcc begins a second line (or the same again) where the prologue is over
        if (!second && p->start > fn->start && p->is_stmt && p->line)
            second = p;
    }
    return second ? second->start : fn->start;
}
