/* What the names of an expression mean at its place, and the type of each part, by C's rules
 * (C17 6.3.1, 6.5). References are what they refer to. Rust's expressions get the same conversions,
 * which are a superset of what it allows. */
#include "sym/expression_int.h"

#include <stdio.h>

/* --- types --- */

static const struct type builtins[] = {
    {.pub = {.kind = SYM_VOID, .name = "void"}},
    {.pub = {.kind = SYM_BOOL, .name = "bool", .size = 1}},
    {.pub = {.kind = SYM_CHAR, .name = "char", .size = 1}, .is_char = true},
    {.pub = {.kind = SYM_CHAR, .name = "const char", .size = 1}, .is_char = true},
    {.pub = {.kind = SYM_CHAR, .name = "signed char", .size = 1}, .is_char = true},
    {.pub = {.kind = SYM_CHAR, .name = "unsigned char", .size = 1}, .is_char = true},
    {.pub = {.kind = SYM_INT, .name = "short", .size = 2}},
    {.pub = {.kind = SYM_UINT, .name = "unsigned short", .size = 2}},
    {.pub = {.kind = SYM_INT, .name = "int", .size = 4}},
    {.pub = {.kind = SYM_UINT, .name = "unsigned int", .size = 4}},
    {.pub = {.kind = SYM_INT, .name = "long", .size = 8}},
    {.pub = {.kind = SYM_UINT, .name = "unsigned long", .size = 8}},
    {.pub = {.kind = SYM_FLOAT, .name = "float", .size = 4}},
    {.pub = {.kind = SYM_FLOAT, .name = "double", .size = 8}},
    {.pub = {.kind = SYM_INT, .name = "int8_t", .size = 1}},
    {.pub = {.kind = SYM_UINT, .name = "uint8_t", .size = 1}},
    {.pub = {.kind = SYM_FUNCTION_TYPE, .name = "<code>"}},
};

const struct sym_type *builtin(const char *name)
{
    for (size_t i = 0; i < sizeof(builtins) / sizeof(builtins[0]); i++) {
        if (str_eq(builtins[i].pub.name, name))
            return &builtins[i].pub;
    }
    return NULL;
}

/* Other names of these, of C and Rust. */
static const char *const aliases[][2] = {
    {"_Bool", "bool"},
    {"int16_t", "short"},
    {"uint16_t", "unsigned short"},
    {"int32_t", "int"},
    {"uint32_t", "unsigned int"},
    {"int64_t", "long"},
    {"uint64_t", "unsigned long"},
    {"size_t", "unsigned long"},
    {"ssize_t", "long"},
    {"intptr_t", "long"},
    {"uintptr_t", "unsigned long"},
    {"ptrdiff_t", "long"},
    {"i8", "int8_t"},
    {"u8", "uint8_t"},
    {"i16", "short"},
    {"u16", "unsigned short"},
    {"i32", "int"},
    {"u32", "unsigned int"},
    {"i64", "long"},
    {"u64", "unsigned long"},
    {"isize", "long"},
    {"usize", "unsigned long"},
    {"f32", "float"},
    {"f64", "double"},
};

/* "long unsigned int" and its like: words in any order. */
static const struct sym_type *type_of_words(const char *words)
{
    int longs = 0, shorts = 0, is_unsigned = 0, is_signed = 0, chars = 0, ints = 0;
    cleanup(freep) char *copy = xstrdup(words);
    char *rest = copy;
    for (char *word; (word = strsep(&rest, " "));) {
        longs += str_eq(word, "long");
        shorts += str_eq(word, "short");
        is_unsigned += str_eq(word, "unsigned");
        is_signed += str_eq(word, "signed");
        chars += str_eq(word, "char");
        ints += str_eq(word, "int");
        bool known = str_eq(word, "long") || str_eq(word, "short") || str_eq(word, "unsigned") ||
                     str_eq(word, "signed") || str_eq(word, "char") || str_eq(word, "int");
        if (!known)
            return NULL;
    }
    if (chars + ints > 1 || longs > 2 || shorts > 1 || (longs && shorts) ||
        is_unsigned + is_signed > 1 || (chars && (longs || shorts)))
        return NULL;
    if (chars)
        return builtin(is_unsigned ? "unsigned char" : is_signed ? "signed char" : "char");
    if (shorts)
        return builtin(is_unsigned ? "unsigned short" : "short");
    return longs ? builtin(is_unsigned ? "unsigned long" : "long")
                 : builtin(is_unsigned ? "unsigned int" : "int");
}

const struct sym_type *pointer_to(struct compilation *c, const struct sym_type *target)
{
    struct type *t = sym_pool_alloc(&c->m->pool, sizeof(*t)); // types live as long as the module
    cleanup(freep) char *name =
        str_format("%s%s*", target->name, target->kind == SYM_POINTER ? "" : " ");
    t->pub = (struct sym_type){
        .kind = SYM_POINTER, .name = sym_pool_str(&c->m->pool, name), .size = 8, .target = target};
    return &t->pub;
}

static const struct sym_type *array_of(struct compilation *c, const struct sym_type *target,
                                       uint64_t count)
{
    struct type *t = sym_pool_alloc(&c->m->pool, sizeof(*t));
    cleanup(freep) char *name = str_format("%s [%ju]", target->name, (uintmax_t)count);
    t->pub = (struct sym_type){.kind = SYM_ARRAY,
                               .name = sym_pool_str(&c->m->pool, name),
                               .size = count * target->size,
                               .target = target,
                               .count = count};
    t->is_char = type_of(target)->is_char;
    return &t->pub;
}

/* Looks through namespaces and classes for an entry of one of the kinds by its full name. */
struct wanted {
    const char *name;
    bool enumerators;      /* else types */
    Dwarf_Die *parent_out; /* Optional: what the entry is within */
};

static bool full_name_is(const char *scope, const char *name, const char *wanted)
{
    size_t n = strlen(scope);
    return n ? strncmp(wanted, scope, n) == 0 && strncmp(wanted + n, "::", 2) == 0 &&
                   str_eq(wanted + n + 2, name)
             : str_eq(name, wanted);
}

static bool find_entry(Dwarf_Die *parent, const char *scope, const struct wanted *w, Dwarf_Die *out,
                       unsigned depth)
{
    Dwarf_Die die;
    if (depth > MAX_DEPTH || !die_child(parent, &die))
        return false;
    do {
        int tag = dwarf_tag(&die);
        bool is_enum = tag == DW_TAG_enumeration_type;
        bool holds = tag == DW_TAG_namespace || tag == DW_TAG_module ||
                     tag == DW_TAG_structure_type || tag == DW_TAG_class_type ||
                     tag == DW_TAG_union_type || is_enum;
        bool is_type = (holds && tag != DW_TAG_namespace && tag != DW_TAG_module) ||
                       tag == DW_TAG_typedef || tag == DW_TAG_base_type;
        if (!holds && !is_type && tag != DW_TAG_enumerator)
            continue;
        const char *name = dwarf_diename(&die);
        if (name && (w->enumerators ? tag == DW_TAG_enumerator : is_type) &&
            !die_flag(&die, DW_AT_declaration) && full_name_is(scope, name, w->name)) {
            *out = die;
            if (w->parent_out)
                *w->parent_out = *parent;
            return true;
        }
        if (!holds || (is_enum && !w->enumerators))
            continue;
        // C's enumerators are in the scope around their enumeration; by the enumeration's name they
        // can be told, too.
        if (is_enum && find_entry(&die, scope, w, out, depth + 1))
            return true;
        if (!name && !is_enum && tag != DW_TAG_namespace && !w->enumerators)
            continue;
        cleanup(freep) char *inner =
            str_format("%s%s%s", scope, *scope && name ? "::" : "", name ? name : "");
        if ((!is_enum || name) && find_entry(&die, inner, w, out, depth + 1))
            return true;
    } while (die_sibling(&die, &die));
    return false;
}

/* What stands behind the last "::" that is in no template's arguments; NULL: that cannot be told.
 */
const char *base_name(const char *name)
{
    int depth = 0;
    for (const char *at = name + strlen(name); at > name; at--) {
        depth += at[-1] == '>';
        depth -= at[-1] == '<';
        if (depth < 0)
            return NULL;
        if (depth == 0 && at[-1] == ':')
            return at;
    }
    return depth ? NULL : name;
}

/* Of the unit at the place first: static things of other files may have the same name. */
static bool find_full_name(struct compilation *c, const struct wanted *w, Dwarf_Die *out)
{
    struct sym_module *m = c->m;
    struct err *e = load_units(m);
    if (e) {
        err_free(e);
        return false;
    }
    struct unit *here = unit_at(m, c->request->addr);
    if (here && !here->missing && find_entry(&here->die, "", w, out, 0))
        return true;
    const char *base = base_name(w->name);
    scan_all(m);
    for (size_t i = 0; i < m->unit_count; i++) {
        if (&m->units[i] != here && !m->units[i].missing &&
            (!base || may_name(&m->units[i], base)) && find_entry(&m->units[i].die, "", w, out, 0))
            return true;
    }
    return false;
}

/* The scopes around the place, from within: "a::b::" in a::b::f(int), then "a::", then "". Returns
 * the length of the scope's name in the function's; SIZE_MAX: that was the last one. */
static size_t scope_around(const char *function, size_t len)
{
    int depth = 0;
    if (len == 0)
        return SIZE_MAX;
    for (size_t i = len - 2; i > 1; i--) {
        depth += function[i - 1] == '>';
        depth -= function[i - 1] == '<';
        if (depth == 0 && function[i - 1] == ':' && function[i - 2] == ':')
            return i;
    }
    return 0;
}

static const char *function_name(struct compilation *c)
{
    return c->function ? c->function->name : "";
}

/* Where the scopes begin: the length of the function's name without its parameters, as if it were
 * one. */
size_t innermost_scope(struct compilation *c)
{
    const char *name = function_name(c);
    return c->function ? scope_around(name, strcspn(name, "(") + 2) : 0;
}

size_t outer_scope(struct compilation *c, size_t len)
{
    return scope_around(function_name(c), len);
}

char *in_scope(struct compilation *c, size_t len, const char *name)
{
    return str_format("%.*s%s", (int)len, function_name(c), name);
}

static bool find_in_units(struct compilation *c, const struct wanted *w, Dwarf_Die *out)
{
    for (size_t len = innermost_scope(c); len != SIZE_MAX; len = outer_scope(c, len)) {
        cleanup(freep) char *full = in_scope(c, len, w->name);
        if (find_full_name(c, &(struct wanted){full, w->enumerators, w->parent_out}, out))
            return true;
    }
    return false;
}

/* box<short> is box<short int> in gcc's debug information. Heap string. */
static char *as_gcc_writes(const char *name)
{
    static const char *const other[][2] = {{"short", "short int"},
                                           {"unsigned short", "short unsigned int"},
                                           {"long", "long int"},
                                           {"unsigned long", "long unsigned int"}};
    struct buf out = {0};
    for (const char *at = name; *at;) {
        size_t len = strcspn(at, "<>,");
        cleanup(freep) char *word = str_format("%.*s", (int)len, at + (at[0] == ' ' && len));
        const struct sym_type *t = at == name ? NULL : type_of_words(word);
        const char *shown = t ? t->name : NULL;
        for (size_t i = 0; shown && i < sizeof(other) / sizeof(other[0]); i++)
            shown = str_eq(other[i][0], t->name) ? other[i][1] : shown;
        if (shown)
            buf_printf(&out, "%s%s", at[0] == ' ' ? " " : "", shown);
        else
            buf_add(&out, at, len);
        at += len;
        if (*at)
            buf_u8(&out, (uint8_t)*at++);
    }
    char *result = xstrdup(buf_cstr(&out));
    buf_deinit(&out);
    return result;
}

const struct sym_type *type_named(struct compilation *c, const char *name)
{
    static const char *const keywords[] = {"struct ", "class ", "union ", "enum "};
    const struct sym_type *t = type_of_words(name);
    for (size_t i = 0; i < 4; i++)
        name += strncmp(name, keywords[i], strlen(keywords[i])) == 0 ? strlen(keywords[i]) : 0;
    while (*name == ' ')
        name++;
    Dwarf_Die die;
    if (!t && (str_eq(name, "float") || str_eq(name, "double") || str_eq(name, "void") ||
               str_eq(name, "bool")))
        t = builtin(name);
    if (!t && find_in_units(c, &(struct wanted){.name = name}, &die))
        t = type_from_die(c->m, &die);
    if (!t && strchr(name, '<')) {
        cleanup(freep) char *other = as_gcc_writes(name);
        if (find_in_units(c, &(struct wanted){.name = other}, &die))
            t = type_from_die(c->m, &die);
    }
    if (!t)
        t = builtin(name);
    for (size_t i = 0; !t && i < sizeof(aliases) / sizeof(aliases[0]); i++)
        t = str_eq(aliases[i][0], name) ? builtin(aliases[i][1]) : NULL;
    return t;
}

/* A typedef's name does not say it: uint8_t is an unsigned char. */
static bool is_signed_char(const struct sym_type *t)
{
    Dwarf_Die die = type_of(t)->die;
    uint64_t encoding;
    if (type_of(t)->has_die)
        return die_unsigned(&die, DW_AT_encoding, &encoding) && encoding == DW_ATE_signed_char;
    return !str_eq(t->name, "unsigned char");
}

bool is_signed_type(const struct sym_type *t)
{
    if (t->kind == SYM_ENUM)
        return t->target && is_signed_type(t->target);
    return t->kind == SYM_INT || (t->kind == SYM_CHAR && is_signed_char(t));
}

const struct sym_type *promoted(const struct node *n)
{
    const struct sym_type *t = n->type;
    if (!is_integer(t))
        return t;
    if (t->size < 4 || (n->bit_size && n->bit_size < 32) ||
        (n->bit_size == 32 && is_signed_type(t)))
        return builtin("int");
    return is_signed_type(t) ? builtin(t->size == 8 ? "long" : "int")
                             : builtin(t->size == 8 ? "unsigned long" : "unsigned int");
}

const struct sym_type *common_type(const struct sym_type *a, const struct sym_type *b)
{
    if (is_real(a) || is_real(b))
        return builtin((is_real(a) && a->size == 8) || (is_real(b) && b->size == 8) ? "double"
                                                                                    : "float");
    if (a->size != b->size)
        return a->size > b->size ? a : b;
    return is_signed_type(a) ? b : a;
}

/* --- names --- */

static struct sym_variable *find_local(struct compilation *c, const char *name)
{
    for (size_t i = c->variables.count; i-- > 0;) { // inner blocks come last
        if (c->variables.items[i].name && str_eq(c->variables.items[i].name, name))
            return &c->variables.items[i];
    }
    return NULL;
}

bool is_variable(struct compilation *c, const char *name)
{
    return find_local(c, name) != NULL;
}

static struct err *no_place(struct compilation *c, const struct node *n, struct err *e)
{
    enum err_kind kind = err_kind(e);
    struct err *shown = err_at(c, kind, n->column, "%s: %s", n->text, err_message(e));
    err_free(e);
    return shown;
}

/* Is it a parameter of the function whose first instruction the place is? At -O0 debug information
 * says where it will be. */
static bool is_argument(struct compilation *c, const struct sym_variable *v, size_t *idx_out)
{
    const struct sym_expression_request *r = c->request;
    if (!v->is_parameter || !v->function || r->addr != v->function->start || r->inlined != 0)
        return false;
    for (*idx_out = 0; *idx_out < c->variables.count; ++*idx_out) {
        if (memcmp(&c->variables.items[*idx_out].die, &v->die, sizeof(v->die)) == 0)
            return true;
    }
    return false;
}

/* The value as it is now, as constants. */
static struct err *place_now(struct compilation *c, const struct sym_variable *v,
                             const struct sym_type **type, struct place *out)
{
    struct sym_value value = {0};
    size_t idx;
    if (is_argument(c, v, &idx))
        TRY(sym_read_argument_at_entry(c->m, v->function, idx, c->request->now, &value));
    else
        TRY(sym_read_variable(c->m, v, c->request->addr, c->request->now, &value));
    *type = value.type; // arrays have their length now
    *out = (struct place){.kind = PLACE_PARTS, .part_count = 1};
    if (value.where == SYM_IN_MEMORY) {
        out->kind = PLACE_MEMORY;
        out->ops[out->count++] = (struct program_op){.code = PROGRAM_PUSH, .imm = value.address};
    } else {
        uint8_t *kept = sym_pool_alloc(&c->pool, value.len + 1);
        memcpy(kept, value.bytes, value.len);
        out->parts[0] = (struct part){.len = value.len, .bytes = kept, .vector = -1};
    }
    sym_value_deinit(&value);
    return NULL;
}

static struct err *place_of(struct compilation *c, const struct sym_variable *v,
                            const struct sym_type **type, struct place *out)
{
    const struct sym_expression_request *r = c->request;
    size_t idx;
    if (r->at_entry && v->function && !v->is_parameter)
        return err_new(ERR_NOT_FOUND, "it has no value yet at the function's entry");
    if (r->now)
        return place_now(c, v, type, out);
    Dwarf_Die die;
    Dwarf_Attribute attr;
    memcpy(&die, &v->die, sizeof(die));
    if (is_argument(c, v, &idx)) {
        struct err *e = argument_compile(c->m, v->function, idx, out);
        if (!e || err_kind(e) != ERR_NOT_FOUND)
            return e;
        err_free(e);
    }
    if (dwarf_attr_integrate(&die, DW_AT_location, &attr)) {
        struct sym_context only_bias = {.bias = r->bias, .tls_offset = r->tls_offset};
        struct frame f = {.m = c->m, .ctx = &only_bias, .addr = r->addr};
        f.function = v->function ? function_of(v->function) : NULL;
        return location_compile(&f, &attr, v->type->size, out);
    }
    if (dwarf_hasattr_integrate(&die, DW_AT_const_value)) { // needs no context
        struct sym_value value = {0};
        TRY(sym_read_variable(c->m, v, r->addr, NULL, &value));
        uint8_t *kept = sym_pool_alloc(&c->pool, value.len + 1);
        memcpy(kept, value.bytes, value.len);
        *out = (struct place){.kind = PLACE_PARTS,
                              .part_count = 1,
                              .parts = {{.len = value.len, .bytes = kept, .vector = -1}}};
        sym_value_deinit(&value);
        return NULL;
    }
    return err_new(ERR_NOT_FOUND, "optimized out");
}

static struct err *use_variable(struct compilation *c, struct node *n, const struct sym_variable *v)
{
    struct sym_variable copy = *v;
    n->place = sym_pool_alloc(&c->pool, sizeof(*n->place));
    n->type = v->type;
    struct err *e = place_of(c, &copy, &n->type, n->place);
    return e ? no_place(c, n, e) : NULL;
}

/* An unnamed function's `this->name`. */
bool is_member_of_this(struct compilation *c, const char *name)
{
    struct sym_variable *self = find_local(c, "this");
    struct member member;
    return self && is_pointer(self->type) && is_record(self->type->target) &&
           find_member(c->m, self->type->target, name, &member, 0);
}

/* A global or static variable: of the scopes around the place, and of this file, first. */
static struct err *find_global_variable(struct compilation *c, const char *name,
                                        struct sym_variable *out)
{
    struct unit *here = unit_at(c->m, c->request->addr);
    Dwarf_Die die;
    for (size_t len = innermost_scope(c); here && !here->missing && len != SIZE_MAX;
         len = outer_scope(c, len)) {
        cleanup(freep) char *full = in_scope(c, len, name);
        if (find_global(c->m, &here->die, "", full, &die, 0)) {
            variable_from_die(c->m, &die, NULL, out);
            return NULL;
        }
    }
    return sym_global_named(c->m, name, out);
}

bool is_known_variable(struct compilation *c, const char *name)
{
    struct sym_variable global;
    if (is_variable(c, name))
        return true;
    struct err *e = need_dwarf(c->m);
    if (!e)
        e = load_units(c->m);
    if (!e)
        e = find_global_variable(c, name, &global);
    bool found = !e;
    err_free(e);
    return found;
}

static struct err *resolve_name(struct compilation *c, struct node *n, unsigned depth)
{
    struct sym_variable *local = find_local(c, n->text), global;
    Dwarf_Die die, enumeration;
    if (local)
        return use_variable(c, n, local);
    if (is_member_of_this(c, n->text)) {
        struct node *self = new_node(c, NODE_NAME, n->column);
        self->text = "this";
        n->kind = NODE_MEMBER;
        n->arrow = true;
        n->a = self;
        return resolve(c, n, depth + 1);
    }
    struct err *e = need_dwarf(c->m);
    if (!e)
        e = load_units(c->m);
    if (!e)
        e = find_global_variable(c, n->text, &global);
    if (!e)
        return use_variable(c, n, &global);
    if (!c->m->dwarf) {
        struct err *shown = err_at(c, ERR_NOT_FOUND, n->column, "%s: %s", n->text, err_message(e));
        err_free(e);
        return shown;
    }
    err_free(e);
    int64_t value;
    if (find_in_units(c, &(struct wanted){n->text, true, &enumeration}, &die) &&
        die_enumerator(&die, &value)) {
        n->kind = NODE_CONSTANT;
        n->enumeration = type_from_die(c->m, &enumeration);
        n->number = (uint64_t)value;
        n->type = builtin(value >= INT32_MIN && value <= INT32_MAX ? "int"
                          : value >= 0 && value <= UINT32_MAX      ? "unsigned int"
                                                                   : "long");
        return NULL;
    }
    const struct sym_function *function;
    size_t count;
    e = sym_functions_named(c->m, n->text, 1, &function, &count);
    if (!e && function->source == SYM_PLT)
        return err_at(c, ERR_NOT_FOUND, n->column, "%.100s is in another module", n->text);
    if (!e) {
        n->kind = NODE_CONSTANT;
        n->number = function->start + c->request->bias;
        n->type = pointer_to(c, builtin("<code>"));
        return NULL;
    }
    err_free(e);
    return err_at(c, ERR_NOT_FOUND, n->column, "there is no %.100s here%s%s", n->text,
                  c->no_variables ? ": " : "", c->no_variables ? c->no_variables : "");
}

/* rax, eax, ax, al, ah; r8, r8d, r8w, r8b; pc, sp, fp. */
static struct err *resolve_register(struct compilation *c, struct node *n)
{
    static const struct {
        const char *name[4]; /* of 8, 4, 2, 1 bytes */
        unsigned number;
    } old[] = {
        {{"rax", "eax", "ax", "al"}, SYM_RAX},     {{"rbx", "ebx", "bx", "bl"}, SYM_RBX},
        {{"rcx", "ecx", "cx", "cl"}, SYM_RCX},     {{"rdx", "edx", "dx", "dl"}, SYM_RDX},
        {{"rsi", "esi", "si", "sil"}, SYM_RSI},    {{"rdi", "edi", "di", "dil"}, SYM_RDI},
        {{"rbp", "ebp", "bp", "bpl"}, SYM_RBP},    {{"rsp", "esp", "_", "spl"}, SYM_RSP},
        {{"sp", "_", "_", "_"}, SYM_RSP},          {{"fp", "_", "_", "_"}, SYM_RBP},
        {{"rip", "eip", "_", "_"}, SYM_RIP},       {{"pc", "_", "_", "_"}, SYM_RIP},
        {{"fs_base", "_", "_", "_"}, SYM_FS_BASE}, {{"gs_base", "_", "_", "_"}, SYM_GS_BASE}};
    static const char *const types[] = {"unsigned long", "unsigned int", "unsigned short",
                                        "uint8_t"};
    for (size_t i = 0; i < sizeof(old) / sizeof(old[0]); i++) {
        for (unsigned k = 0; k < 4; k++) {
            if (!str_eq(old[i].name[k], n->text) || n->text[0] == '_')
                continue;
            n->number = old[i].number;
            n->reg_size = 8u >> k;
            n->type = builtin(types[k]);
            return NULL;
        }
    }
    if (strlen(n->text) == 2 && n->text[1] == 'h' && strchr("abcd", n->text[0])) {
        n->number = n->text[0] == 'a'   ? SYM_RAX
                    : n->text[0] == 'b' ? SYM_RBX
                    : n->text[0] == 'c' ? SYM_RCX
                                        : SYM_RDX;
        n->reg_size = 1;
        n->reg_off = 1;
        n->type = builtin("uint8_t");
        return NULL;
    }
    unsigned number;
    char suffix[2] = "", more;
    int got = sscanf(n->text, "r%2u%1[dwb]%c", &number, suffix, &more);
    if ((got == 1 || got == 2) && number >= 8 && number <= 15 &&
        strlen(n->text) == (number > 9 ? 3u : 2u) + strlen(suffix)) {
        unsigned k = *suffix == 'd' ? 1 : *suffix == 'w' ? 2 : *suffix == 'b' ? 3 : 0;
        n->number = SYM_R8 + number - 8;
        n->reg_size = 8u >> k;
        n->type = builtin(types[k]);
        return NULL;
    }
    return err_at(c, ERR_NOT_FOUND, n->column, "there is no register $%.20s", n->text);
}

/* --- operators --- */

struct node *pointed_node(struct compilation *c, struct node *pointer)
{
    struct node *target = new_node(c, NODE_UNARY, pointer->column);
    target->op = '*';
    target->a = pointer;
    target->type = pointer->type->target;
    target->resolved = true;
    return target;
}

/* A reference is what it refers to; arrays stay arrays. */
static void see_through(struct compilation *c, struct node **n)
{
    if ((*n)->type->kind == SYM_REFERENCE)
        *n = pointed_node(c, *n);
}

struct err *resolve_child(struct compilation *c, struct node **n, unsigned depth)
{
    TRY(resolve(c, *n, depth + 1));
    see_through(c, n);
    return NULL;
}

static struct err *resolve_to_data(struct compilation *c, struct node **n, unsigned depth);

static bool is_array(const struct sym_type *t)
{
    return t->kind == SYM_ARRAY && t->target;
}

/* What + and * see of a pointer or array: what it points to; or NULL. */
static const struct sym_type *pointee(const struct sym_type *t)
{
    return is_pointer(t) || is_array(t) ? t->target : NULL;
}

static struct err *bad_operand(struct compilation *c, const struct node *n,
                               const struct sym_type *t)
{
    char op[3] = {(char)n->op, (char)(n->op >> 8), 0};
    return err_at(c, ERR_USAGE, n->column, "%s does not go with %.100s", op, t->name);
}

/* a[b] of a class of the program: *(a + b) becomes a call. */
static struct err *resolve_index(struct compilation *c, struct node *n, unsigned depth, bool *found)
{
    struct node *sum = n->a;
    TRY(resolve_child(c, &sum->a, depth));
    TRY(resolve_to_data(c, &sum->a, depth));
    if (!is_record(sum->a->type))
        return NULL;
    TRY(resolve_child(c, &sum->b, depth));
    return resolve_operator(c, n, "operator[]", sum->a, sum->b, depth, found);
}

static struct err *resolve_unary(struct compilation *c, struct node *n, unsigned depth)
{
    bool found = false;
    if (n->op == '*' && n->a->kind == NODE_BINARY && n->a->indexes)
        TRY(resolve_index(c, n, depth, &found));
    if (found)
        return NULL;
    TRY(resolve_child(c, &n->a, depth));
    const struct sym_type *t = n->a->type;
    if (is_record(t) && strchr("*!-~+", (int)n->op)) {
        char name[] = {'o', 'p', 'e', 'r', 'a', 't', 'o', 'r', (char)n->op, 0};
        TRY(resolve_operator(c, n, name, n->a, NULL, depth, &found));
    }
    if (found)
        return NULL;
    switch (n->op) {
    case 'z':
        if (!t->size)
            return err_at(c, ERR_NOT_FOUND, n->column, "the size of %.100s is not known", t->name);
        n->type = builtin("unsigned long");
        return NULL;
    case '*':
        if (!pointee(t))
            return bad_operand(c, n, t);
        if (pointee(t)->kind == SYM_VOID || pointee(t)->kind == SYM_FUNCTION_TYPE)
            return err_at(c, ERR_USAGE, n->column, "%.100s cannot be followed; cast it first",
                          t->name);
        n->type = pointee(t);
        return NULL;
    case '&':
        n->type = pointer_to(c, t);
        return NULL;
    case '!':
        n->type = builtin("int");
        return is_scalar(t) || is_array(t) ? NULL : bad_operand(c, n, t);
    default:
        n->type = promoted(n->a);
        if (!is_integer(t) && !(is_real(t) && n->op != '~'))
            return bad_operand(c, n, t);
        return NULL;
    }
}

/* Of a container whose elements lie in a row, what holds or points to them in its place. */
static struct err *resolve_to_data(struct compilation *c, struct node **n, unsigned depth)
{
    struct member data;
    const char *path;
    if (!container_data(c->m, (*n)->type, &data, &path))
        return NULL;
    while (*path) {
        struct node *member = new_node(c, NODE_MEMBER, (*n)->column);
        size_t len = strcspn(path, ".");
        cleanup(freep) char *name = str_format("%.*s", (int)len, path);
        member->a = *n;
        member->text = sym_pool_str(&c->pool, name);
        *n = member;
        path += len + (path[len] == '.');
    }
    return resolve_child(c, n, depth);
}

/* String literals compare with characters in memory or behind a pointer; of a std::string, with its
 * characters. */
static struct err *resolve_text(struct compilation *c, struct node *n, unsigned depth)
{
    TRY(resolve_child(c, &n->a, depth));
    const struct sym_type *t = n->a->type;
    struct member member;
    if (is_record(t) &&
        find_member(c->m, t, "_M_dataplus", &member, 0)) { // ends with a NUL, unlike others
        TRY(resolve_to_data(c, &n->a, depth));
        t = n->a->type;
    }
    n->type = builtin("int");
    if (!pointee(t) || pointee(t)->size != 1)
        return err_at(c, ERR_USAGE, n->column, "%.100s is no string", t->name);
    return NULL;
}

static struct err *resolve_binary(struct compilation *c, struct node *n, unsigned depth)
{
    bool equality = n->op == OP2('=', '=') || n->op == OP2('!', '=');
    if (equality && (n->a->kind == NODE_STRING || n->b->kind == NODE_STRING)) {
        struct node *literal = n->a->kind == NODE_STRING ? n->a : n->b,
                    *other = literal == n->a ? n->b : n->a;
        struct node *same = n;
        if (n->op == OP2('!', '=')) {
            same = new_node(c, NODE_STREQ, n->column);
            n->kind = NODE_UNARY;
            n->op = '!';
            n->type = builtin("int");
            n->a = same;
        }
        same->kind = NODE_STREQ;
        same->a = other;
        same->text = literal->text;
        same->number = 0;
        same->resolved = true;
        return resolve_text(c, same, depth);
    }
    TRY(resolve_child(c, &n->a, depth));
    if (n->indexes)
        TRY(resolve_to_data(c, &n->a, depth));
    TRY(resolve_child(c, &n->b, depth));
    const struct sym_type *a = n->a->type, *b = n->b->type, *pa = pointee(a), *pb = pointee(b);
    if ((is_record(a) || is_record(b)) && !n->indexes) {
        bool found;
        char name[] = {'o', 'p', 'e', 'r', 'a', 't', 'o', 'r', (char)n->op, (char)(n->op >> 8), 0};
        TRY(resolve_operator(c, n, name, n->a, n->b, depth, &found));
        if (found)
            return NULL;
    }
    bool compares = equality || n->op == '<' || n->op == '>' || n->op == OP2('<', '=') ||
                    n->op == OP2('>', '=');
    if (n->op == OP2('&', '&') || n->op == OP2('|', '|')) {
        n->type = builtin("int");
        return !(is_scalar(a) || pa)   ? bad_operand(c, n, a)
               : !(is_scalar(b) || pb) ? bad_operand(c, n, b)
                                       : NULL;
    }
    if (compares) {
        n->type = builtin("int");
        bool pointers = (pa || is_integer(a)) && (pb || is_integer(b)) && (pa || pb);
        bool numbers = (is_integer(a) || is_real(a)) && (is_integer(b) || is_real(b));
        return pointers || numbers ? NULL : bad_operand(c, n, is_scalar(a) ? b : a);
    }
    if ((n->op == '+' || n->op == '-') && (pa || pb)) {
        bool sum = pa && is_integer(b), turned = n->op == '+' && is_integer(a) && pb,
             difference = n->op == '-' && pa && pb;
        if (turned) {
            struct node *t = n->a;
            n->a = n->b;
            n->b = t;
            pa = pb;
        }
        if (!sum && !turned && !difference)
            return bad_operand(c, n, pa ? b : a);
        if (pa->kind != SYM_VOID && !pa->size)
            return err_at(c, ERR_NOT_FOUND, n->column, "the size of %.100s is not known", pa->name);
        n->type = difference ? builtin("long") : pointer_to(c, pa);
        return NULL;
    }
    bool integers = is_integer(a) && is_integer(b);
    bool needs_integers = n->op == '%' || n->op == '&' || n->op == '|' || n->op == '^' ||
                          n->op == OP2('<', '<') || n->op == OP2('>', '>');
    if (needs_integers ? !integers
                       : !((is_integer(a) || is_real(a)) && (is_integer(b) || is_real(b))))
        return bad_operand(c, n, is_integer(a) || (is_real(a) && !needs_integers) ? b : a);
    bool shifts = n->op == OP2('<', '<') || n->op == OP2('>', '>');
    n->type = shifts ? promoted(n->a) : common_type(promoted(n->a), promoted(n->b));
    return NULL;
}

static bool has_arrow_operator(const struct sym_type *t)
{
    Dwarf_Die die = type_of(t)->die, child;
    if (!type_of(t)->has_die || !die_child(&die, &child))
        return false;
    do {
        const char *name =
            dwarf_tag(&child) == DW_TAG_subprogram || dwarf_tag(&child) == DW_TAG_inheritance
                ? dwarf_diename(&child)
                : NULL;
        if (name && str_eq(name, "operator->"))
            return true;
    } while (die_sibling(&child, &child));
    return false;
}

/* The first pointer within a smart pointer. */
static bool find_pointer(struct sym_module *m, const struct sym_type *t, struct member *out,
                         unsigned depth)
{
    struct members members;
    bool found = false;
    if (depth > MAX_DEPTH)
        return false;
    members_of(m, t, &members);
    for (size_t i = 0; i < members.count && !found; i++) {
        struct member *member = &members.items[i], inner;
        if (is_pointer(member->type)) {
            *out = *member;
            found = true;
        } else if (is_record(member->type) && find_pointer(m, member->type, &inner, depth + 1)) {
            *out = inner;
            out->byte_off += member->byte_off;
            out->is_virtual |= member->is_virtual;
            found = true;
        }
    }
    vec_deinit(&members);
    return found;
}

struct node *member_node(struct compilation *c, struct node *of, const struct member *member)
{
    struct node *n = new_node(c, NODE_MEMBER, of->column);
    n->a = of;
    n->type = member->type;
    n->offset = member->byte_off;
    n->resolved = true;
    return n;
}

/* *found: it was one, and n->a is what it gives. */
static struct err *follow_arrow(struct compilation *c, struct node *n, unsigned depth, bool *found)
{
    struct node *call = new_node(c, NODE_UNARY, n->column);
    struct err *e = resolve_operator(c, call, "operator->", n->a, NULL, depth, found);
    if (e && err_kind(e) == ERR_NOT_FOUND) { // it has no code
        err_free(e);
        *found = false;
        return NULL;
    }
    TRY(e);
    if (*found) {
        call->resolved = true;
        n->a = call;
        see_through(c, &n->a);
    }
    return NULL;
}

struct err *resolve_object(struct compilation *c, struct node *n, unsigned depth)
{
    TRY(resolve_child(c, &n->a, depth));
    struct member member = {0};
    bool found = n->arrow;
    // Those of the standard library are known, and need not be run.
    for (unsigned i = 0;
         i < MAX_DEPTH && found && is_record(n->a->type) && !str_starts(n->a->type->name, "std::");
         i++)
        TRY(follow_arrow(c, n, depth, &found));
    const struct sym_type *t = n->a->type;
    if (n->arrow && is_record(t) && has_arrow_operator(t)) {
        if (!find_pointer(c->m, t, &member, 0) || member.is_virtual)
            return err_at(c, ERR_UNSUPPORTED, n->column, "where %.100s points is not known",
                          t->name);
        n->a = member_node(c, n->a, &member);
        t = n->a->type;
    }
    // Rust, and people, write . for both.
    if (is_pointer(t) && is_record(t->target))
        n->a = pointed_node(c, n->a);
    return NULL;
}

static struct err *resolve_member(struct compilation *c, struct node *n, unsigned depth)
{
    TRY(resolve_object(c, n, depth));
    struct member member = {0};
    const struct sym_type *t = n->a->type;
    if (!is_record(t))
        return err_at(c, ERR_USAGE, n->column, "%.100s has no members", t->name);
    if (!find_member(c->m, t, n->text, &member, 0))
        return err_at(c, ERR_NOT_FOUND, n->column, "%.100s has no member %.100s", t->name, n->text);
    if (member.is_virtual)
        return err_at(c, ERR_UNSUPPORTED, n->column, "%.100s is in a virtual base class", n->text);
    n->type = member.type;
    n->offset = member.byte_off;
    n->bit_off = member.bit_off;
    n->bit_size = member.bit_size;
    return NULL;
}

static struct err *resolve_cast(struct compilation *c, struct node *n, unsigned depth)
{
    TRY(resolve_child(c, &n->a, depth));
    const struct sym_type *from = n->a->type, *to = n->type;
    bool from_ok = is_scalar(from) || is_array(from), to_ok = is_scalar(to);
    bool pointer_and_real =
        (is_pointer(to) && is_real(from)) || (is_real(to) && !is_integer(from) && !is_real(from));
    if (!from_ok || !to_ok || pointer_and_real)
        return err_at(c, ERR_USAGE, n->column, "%.100s cannot be made %.100s", from->name,
                      to->name);
    return NULL;
}

static struct err *resolve_choice(struct compilation *c, struct node *n, unsigned depth)
{
    TRY(resolve_child(c, &n->a, depth));
    TRY(resolve_child(c, &n->b, depth));
    TRY(resolve_child(c, &n->c, depth));
    const struct sym_type *b = n->b->type, *d = n->c->type;
    bool numbers = (is_integer(b) || is_real(b)) && (is_integer(d) || is_real(d));
    bool pointers = (pointee(b) || is_integer(b)) && (pointee(d) || is_integer(d));
    if (!(is_scalar(n->a->type) || is_array(n->a->type)) || (!numbers && !pointers))
        return err_at(c, ERR_USAGE, n->column, "%.100s and %.100s are no choice", b->name, d->name);
    n->type = numbers ? common_type(promoted(n->b), promoted(n->c))
                      : pointer_to(c, pointee(b) ? pointee(b) : pointee(d));
    return NULL;
}

static struct err *resolve_kind(struct compilation *c, struct node *n, unsigned depth)
{
    switch (n->kind) {
    case NODE_NAME:
        return resolve_name(c, n, depth);
    case NODE_REGISTER:
        return resolve_register(c, n);
    case NODE_UNARY:
        return resolve_unary(c, n, depth);
    case NODE_BINARY:
        return resolve_binary(c, n, depth);
    case NODE_CHOICE:
        return resolve_choice(c, n, depth);
    case NODE_MEMBER:
        return resolve_member(c, n, depth);
    case NODE_CAST:
        return resolve_cast(c, n, depth);
    case NODE_STREQ:
        return resolve_text(c, n, depth);
    case NODE_ARRAY:
        TRY(resolve_child(c, &n->a, depth));
        if (!n->a->type->size)
            return err_at(c, ERR_NOT_FOUND, n->column, "the size of %.100s is not known",
                          n->a->type->name);
        n->type = array_of(c, n->a->type, n->number);
        return NULL;
    case NODE_CALL:
        return resolve_call(c, n, depth);
    case NODE_STRING:
        return err_at(c, ERR_UNSUPPORTED, n->column,
                      "a string can only be compared, with == or !=, or passed to a function");
    default:
        return NULL;
    }
}

struct err *resolve(struct compilation *c, struct node *n, unsigned depth)
{
    if (n->resolved)
        return NULL;
    if (depth > MAX_NODES || c->node_count > 4 * MAX_NODES)
        return err_at(c, ERR_LIMIT, n->column, "the expression is nested too deeply");
    TRY(resolve_kind(c, n, depth));
    n->resolved = true;
    return NULL;
}
