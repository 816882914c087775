/* What takes long with large debug information, in steps: which functions have inlined calls, and
 * the names that are searched. Who needs it waits for all steps (prepare()); who does not yet, but
 * will, has some milliseconds' worth done whenever there is time (sym_prepare()).
 *
 *     SCAN     entries of all units: scan.c
 *     ABSTRACTS  hashes of the names of functions that were inlined   ---> enough for SYM_FOR_CALLS
 *     FUNCTIONS  functions of all units
 *     FILES      their files
 *     NAMES...   the text that is searched: functions, symbols, inlined functions, files   ---> SYM_FOR_SEARCH */
#include "base/clock.h"
#include "sym/sym_int.h"

/* --- the text --- */

static struct search_name *add_name(struct sym_module *m, const char *name)
{
    size_t len = strlen(name) + 1;
    struct search_name *n = vec_add(&m->search_names);
    n->off = m->search_text.len;
    buf_reserve(&m->search_text, len);
    uint8_t *to = m->search_text.data + m->search_text.len;
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)lower_letter(name[i]);
    m->search_text.len += len;
    return n;
}

static void add_function_name(struct sym_module *m, const char *name, const struct function *f)
{
    add_name(m, name)->function = f;
    sym_table_put(&m->preparing.named, str_hash(f->pub.name), m);
}

/* --- steps --- */

static size_t scan_more(struct sym_module *m, size_t next)
{
    return scan_units(m, next, 16 << 20);
}

static size_t read_abstracts(struct sym_module *m, size_t next)
{
    struct table *hashes =
        &m->preparing.hashes; // by where the linker's name stands, which many units share
    const struct unit *u = &m->units[next];
    vec_each (f, &u->scan.abstracts) {
        struct abstract a = {.unit = (uint32_t)next, .off = f->off, .scope = f->scope};
        Dwarf_Die die = die_at(u, f->off);
        const char *linkage = linkage_name(&die);
        a.name_hash = linkage ? (uintptr_t)sym_table_get(hashes, (uintptr_t)linkage) : 0;
        if (!a.name_hash) {
            cleanup(freep) char *name = abstract_name(m, &a);
            a.name_hash = str_hash(name);
        }
        if (linkage && is_mangled(linkage))
            sym_table_put(hashes, (uintptr_t)linkage, (void *)(uintptr_t)a.name_hash);
        vec_push(&m->abstracts, a);
    }
    return next + 1;
}

static size_t read_functions(struct sym_module *m, size_t next)
{
    load_functions(m, &m->units[next]);
    return next + 1;
}

static size_t read_files(struct sym_module *m, size_t next)
{
    file_table_of(m, &m->units[next].line_die);
    return next + 1;
}

static size_t name_functions(struct sym_module *m, size_t next)
{
    vec_each (r, &m->units[next].functions)
        if (r->start == r->function->pub.start) {
            add_function_name(m, r->function->pub.name, r->function);
            sym_table_put(&m->preparing.starts, r->start + 1, r->function);
        }
    return next + 1;
}

/* Of functions known from DWARF symbols are only other names. */
static size_t name_symbol(struct sym_module *m, size_t next)
{
    const struct function *f = m->symbol_list.items[next],
                          *known = sym_table_get(&m->preparing.starts, f->pub.start + 1);
    if (!known)
        add_function_name(m, f->pub.name, f);
    else if (!str_eq(f->pub.name, known->pub.name)) // "malloc" is another name of __libc_malloc
        add_function_name(m, f->pub.name, known);
    return next + 1;
}

/* Functions of which there are only inlined calls, one of each name. */
static size_t name_inlined(struct sym_module *m, size_t next)
{
    const struct abstract *a = &m->abstracts.items[next];
    struct table *named = &m->preparing.named;
    if (sym_table_get(named, a->name_hash))
        return next + 1;
    sym_table_put(named, a->name_hash, m);
    cleanup(freep) char *name = abstract_name(m, a);
    add_name(m, name)->abstract = next;
    return next + 1;
}

static size_t name_files(struct sym_module *m, size_t next)
{
    size_t count;
    const char *const *names = sym_file_list(m, &count);
    for (size_t i = 0; i < count; i++)
        add_name(m, names[i])->file = names[i];
    return next + 1;
}

static size_t count_units(struct sym_module *m)
{
    return m->unit_count;
}

static size_t count_symbols(struct sym_module *m)
{
    load_symbols(m);
    return m->symbol_list.count;
}

static size_t count_abstracts(struct sym_module *m)
{
    return m->abstracts.count;
}

static size_t count_one(struct sym_module *m)
{
    return 1;
}

/* In order. step: does the work from number `next` on and returns what is next. weight: of its
 * time, about, in percent. */
static const struct stage {
    size_t (*count)(struct sym_module *m);
    size_t (*step)(struct sym_module *m, size_t next);
    unsigned weight;
} stages[] = {
    {count_units, scan_more, 15},        {count_units, read_abstracts, 35},
    {count_units, read_functions, 10},   {count_units, read_files, 5},
    {count_units, name_functions, 2},    {count_symbols, name_symbol, 3},
    {count_abstracts, name_inlined, 29}, {count_one, name_files, 1},
};
enum { STAGES = sizeof(stages) / sizeof(stages[0]) };
static const unsigned stages_for[] = {[SYM_FOR_CALLS] = 2, [SYM_FOR_SEARCH] = STAGES};

static void finish(struct sym_module *m)
{
    sym_table_deinit(&m->preparing.starts);
    sym_table_deinit(&m->preparing.named);
    m->search_text.data =
        xrealloc(m->search_text.data,
                 m->search_text.len + !m->search_text.len); // it is large, and grew by doubling
    m->search_text.cap = m->search_text.len;
}

/* Returns false when the stages before `end` are done. */
static bool step(struct sym_module *m, unsigned end)
{
    struct preparing *p = &m->preparing;
    if (p->stage >= end)
        return false;
    if (!p->begun) {
        p->begun = true;
        err_free(load_units(m)); // without DWARF there are still the symbols
    }
    const struct stage *s = &stages[p->stage];
    if (p->next < s->count(m)) {
        p->next = s->step(m, p->next);
        return true;
    }
    p->next = 0;
    if (++p->stage == stages_for[SYM_FOR_CALLS])
        sym_table_deinit(&p->hashes);
    if (p->stage == STAGES)
        finish(m);
    return p->stage < end;
}

void prepare(struct sym_module *m, enum sym_purpose purpose)
{
    while (step(m, stages_for[purpose])) {
    }
}

bool sym_prepare(struct sym_module *m, enum sym_purpose purpose, double *share_out)
{
    enum { SLICE_MS = 20, STEPS_A_LOOK = 32 };
    HOLD(m);
    struct preparing *p = &m->preparing;
    uint64_t until = now_ms() + SLICE_MS;
    bool more = true;
    for (unsigned n = 1; more && (n % STEPS_A_LOOK || now_ms() < until); n++) {
        more = step(m, stages_for[purpose]);
        if (more && stages[p->stage].count == count_units && now_ms() >= until)
            break;
    }
    unsigned done = 0, all = 0;
    for (unsigned i = 0; i < stages_for[purpose]; i++) {
        all += stages[i].weight;
        done += i < p->stage ? stages[i].weight : 0;
    }
    size_t count = more ? stages[p->stage].count(m) : 0;
    double part = count ? (double)p->next / (double)count * stages[p->stage].weight : 0;
    *share_out = more ? ((double)done + part) / (double)all : 1;
    return more;
}

void preparing_deinit(struct preparing *p)
{
    sym_table_deinit(&p->starts);
    sym_table_deinit(&p->named);
    sym_table_deinit(&p->hashes);
}
