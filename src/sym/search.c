/* Searching names. All names of a module stand in one lower-case text, NUL between them
 * (prepare.c); a search is one memmem() walk over it. */
#include "sym/sym_int.h"

#include <ctype.h>

enum { RANKS = 4 };

static char *lower_case(const char *text)
{
    char *lower = xstrdup(text);
    for (char *c = lower; *c; c++)
        *c = lower_letter(*c);
    return lower;
}

static const struct function *function_named(struct sym_module *m, const struct search_name *n)
{
    return n->function || n->file ? n->function : abstract_function(m, n->abstract);
}

/* How well `text`, found at `at` in `name`, fits. */
static unsigned rank_of(const char *name, const char *at, size_t text_len, bool is_file)
{
    const char *base = name;
    if (is_file) {
        const char *slash = strrchr(name, '/');
        base = slash ? slash + 1 : name;
    }
    char after = at[text_len], before = at > name ? at[-1] : 0;
    bool ends = !after || after == '(' || after == '<' || after == '@';
    bool begins = at == base ||
                  (!is_file && before == ':'); // a::b::find is found by "find" as by its whole name
    if (begins)
        return ends ? 0 : 1;
    return isalnum((unsigned char)before) && isalnum((unsigned char)at[0]) ? 3 : 2;
}

struct found {
    const struct search_name *name;
    unsigned rank;
    size_t len;
};

static int compare_found(const void *x, const void *y)
{
    const struct found *a = x, *b = y;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    return a->name->off == b->name->off ? 0 : a->name->off < b->name->off ? -1 : 1;
}

static size_t name_at(const struct sym_module *m, size_t off)
{
    size_t low = 0, high = m->search_names.count; // the first name that starts after off
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (m->search_names.items[mid].off <= off)
            low = mid + 1;
        else
            high = mid;
    }
    return low - 1;
}

/* The best rank of all places where `text` stands in the name. */
static unsigned best_rank(const char *name, const char *text, size_t text_len, bool is_file)
{
    unsigned best = RANKS;
    for (const char *at = name; (at = strstr(at, text)); at++) {
        unsigned rank = rank_of(name, at, text_len, is_file);
        best = rank < best ? rank : best;
    }
    return best;
}

static bool visit_hits(struct sym_module *m, struct found *items, size_t count, bool files,
                       size_t max, sym_hit_visitor *visit, void *arg)
{
    struct table given = {0}; // a function may be found by several of its names
    bool more = true;
    for (size_t i = 0; i < count && given.count < max && more; i++) {
        const struct search_name *n = items[i].name;
        if ((n->file != NULL) != files)
            continue;
        const struct function *function = function_named(m, n);
        uint64_t key = files ? (uintptr_t)n->file : (uintptr_t)function;
        if (sym_table_get(&given, key))
            continue;
        sym_table_put(&given, key, &items[i]);
        struct sym_hit hit = {.rank = items[i].rank, .file = n->file};
        if (function) {
            hit.function = &function->pub;
            hit.file = function->pub.decl_file;
        }
        more = visit(arg, &hit);
    }
    sym_table_deinit(&given);
    return more;
}

struct err *sym_search(struct sym_module *m, const char *text, size_t max, sym_hit_visitor *visit,
                       void *arg)
{
    HOLD(m);
    prepare(m, SYM_FOR_SEARCH);
    cleanup(freep) char *lower = lower_case(text);
    size_t len = strlen(lower);
    if (!len || !m->search_names.count)
        return NULL;
    VEC(struct found) found = {0};
    const char *all = (const char *)m->search_text.data, *end = all + m->search_text.len;
    for (const char *at = all; (at = memmem(at, (size_t)(end - at), lower, len));) {
        size_t idx = name_at(m, (size_t)(at - all));
        const struct search_name *n = &m->search_names.items[idx];
        const char *name = all + n->off;
        vec_push(&found,
                 (struct found){n, best_rank(name, lower, len, n->file != NULL), strlen(name)});
        at = name + found.items[found.count - 1].len + 1; // the next name
    }
    if (found.count)
        qsort(found.items, found.count, sizeof(*found.items), compare_found);
    if (visit_hits(m, found.items, found.count, false, max, visit, arg))
        visit_hits(m, found.items, found.count, true, max, visit, arg);
    vec_deinit(&found);
    return NULL;
}

void each_function(struct sym_module *m, const char *text,
                   bool (*visit)(void *arg, const struct sym_function *f), void *arg)
{
    prepare(m, SYM_FOR_SEARCH);
    cleanup(freep) char *lower = lower_case(text);
    size_t len = strlen(lower);
    const char *all = (const char *)m->search_text.data, *end = all + m->search_text.len;
    for (const char *at = all;
         len && at < end && (at = memmem(at, (size_t)(end - at), lower, len));) {
        const struct search_name *n = &m->search_names.items[name_at(m, (size_t)(at - all))];
        const struct function *f = function_named(m, n);
        if (f && !visit(arg, &f->pub))
            return;
        at = all + n->off + strlen(all + n->off) + 1; // the next name
    }
}

static bool is_named(const struct sym_function *f, const char *name)
{
    size_t len = strlen(name);
    if (str_eq(f->name, name) || str_eq(f->base_name, name) ||
        (f->linkage_name && str_eq(f->linkage_name, name)))
        return true;
    // "find" and "a::find" name a::find(int)
    for (const char *at = f->name; len && (at = strstr(at, name)); at++)
        if ((at[len] == '(' || !at[len]) && (at == f->name || at[-1] == ':'))
            return true;
    return false;
}

static bool is_known(const struct sym_function **found, size_t count, vaddr start)
{
    for (size_t i = 0; i < count; i++)
        if (start && found[i]->start == start)
            return true;
    return false;
}

static void add_named(const struct sym_function *f, const char *name, size_t max,
                      const struct sym_function **out, size_t *count)
{
    if (*count < max && is_named(f, name) && !is_known(out, *count, f->start))
        out[(*count)++] = f;
}

/* An inlined function that need not be looked at more closely is none of the name. lower: what the
 * name means, in lower case. */
static bool may_be_named(struct sym_module *m, const struct search_name *n, const char *name,
                         const char *lower)
{
    if (n->function || n->file)
        return false;
    if (strstr((const char *)m->search_text.data + n->off, lower))
        return true;
    const struct abstract *a = &m->abstracts.items[n->abstract];
    Dwarf_Die die = die_at(&m->units[a->unit], a->off);
    const char *base = dwarf_diename(&die);
    return base && str_eq(base, name);
}

struct err *sym_functions_named(struct sym_module *m, const char *name, size_t max,
                                const struct sym_function **out, size_t *count_out)
{
    HOLD(m);
    prepare(m, SYM_FOR_SEARCH);
    size_t count = 0;
    cleanup(freep) char *plain = demangled(name), *lower = lower_case(plain);
    for (enum sym_source source = SYM_DWARF; source <= SYM_PLT; source++) { // stubs last
        vec_each (n, &m->search_names) {
            if (n->function && n->function->pub.source == source)
                add_named(&n->function->pub, name, max, out, &count);
            else if (source == SYM_DWARF && count < max && may_be_named(m, n, name, lower))
                add_named(&abstract_function(m, n->abstract)->pub, name, max, out, &count);
        }
        // Symbols that are other names of a function known from DWARF.
        vec_each (s, &m->symbol_list)
            if ((*s)->pub.source == source && is_named(&(*s)->pub, name)) {
                const struct function *better = NULL;
                if (m->units_loaded && source != SYM_PLT)
                    better = dwarf_function_at(m, (*s)->pub.start);
                bool is_alias = better && better->pub.start == (*s)->pub.start;
                if (is_alias && count < max && !is_known(out, count, better->pub.start))
                    out[count++] = &better->pub;
                else if (!is_alias)
                    add_named(&(*s)->pub, name, max, out, &count);
            }
    }
    if (!count)
        return err_new(ERR_NOT_FOUND, "%s: no function %s", m->path, name);
    *count_out = count;
    return NULL;
}

struct err *sym_symbols_named(struct sym_module *m, const char *name, size_t max,
                              const struct sym_function **out, size_t *count_out)
{
    HOLD(m);
    load_symbols(m);
    if (!m->symbol_list.count)
        return sym_functions_named(m, name, max, out, count_out);
    size_t count = 0;
    vec_each (s, &m->symbol_list)
        if ((*s)->pub.source != SYM_PLT)
            add_named(&(*s)->pub, name, max, out, &count);
    if (!count)
        return err_new(ERR_NOT_FOUND, "%s: no symbol %s", m->path, name);
    *count_out = count;
    return NULL;
}
