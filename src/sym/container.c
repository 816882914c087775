/* Values of the standard libraries of C++ (GNU's; of LLVM's the simplest) and of Rust, as their
 * users think of them: characters, elements, what a smart pointer points to, the variant of an
 * enum. Known by the names of types and members; what is no member is as laid out in libstdc++'s
 * headers (bits/stl_list.h, stl_tree.h, hashtable_policy.h, stl_deque.h), which the C++ ABI
 * freezes. */
#include "base/bytes.h"
#include "sym/sym_int.h"

enum { MAX_STEPS = 1 << 20, MAX_COUNTED = 1 << 16, MAX_TUPLE = 16, WORD = 8 };

/* libstdc++'s _List_node_base, _Rb_tree_node_base, _Hash_node_base. */
enum {
    LIST_NODE = 16,
    TREE_PARENT = 8,
    TREE_LEFT = 16,
    TREE_RIGHT = 24,
    TREE_NODE = 32,
    TREE_COUNT = 32,
    HASH_NODE = 8
};

/* --- small reads --- */

static bool read_pointer(struct sym_context *ctx, gaddr at, gaddr *out)
{
    struct err *e = ctx->read_memory(ctx, at, out, WORD);
    bool ok = !e;
    err_free(e);
    return ok;
}

/* A member by a path of names, "a.b.c". byte_off is from the start of `type`. */
static bool member_at(struct sym_module *m, const struct sym_type *type, const char *path,
                      struct member *out)
{
    uint64_t off = 0;
    *out = (struct member){.type = type};
    for (const char *at = path; *at;) {
        size_t len = strcspn(at, ".");
        cleanup(freep) char *name = str_format("%.*s", (int)len, at);
        if (!is_record(out->type) || !find_member(m, out->type, name, out, 0) || out->is_virtual ||
            out->bit_size)
            return false;
        off += out->byte_off;
        at += len + (at[len] == '.');
    }
    out->byte_off = off;
    return true;
}

/* Up to a word of the value's own bytes. */
static bool number_at(const struct sym_value *v, const struct member *member, uint64_t *out)
{
    size_t size = member->type->size;
    if (!size || size > WORD || member->byte_off > v->len || size > v->len - member->byte_off)
        return false;
    *out = (uint64_t)load_integer(v->bytes + member->byte_off, size, false);
    return true;
}

static bool number_of(struct sym_module *m, const struct sym_value *v, const char *path,
                      uint64_t *out)
{
    struct member member;
    return member_at(m, v->type, path, &member) && number_at(v, &member, out);
}

/* The n-th type among a template's arguments, 0 the first. */
static const struct sym_type *template_type(struct sym_module *m, const struct sym_type *type,
                                            unsigned n)
{
    Dwarf_Die die, parent = type_of(type)->die;
    if (!type_of(type)->has_die || !die_child(&parent, &die))
        return NULL;
    do {
        if (dwarf_tag(&die) == DW_TAG_template_type_parameter && n-- == 0)
            return type_of_die(m, &die);
    } while (die_sibling(&die, &die));
    return NULL;
}

static uint64_t alignment_of(struct sym_module *m, const struct sym_type *type, unsigned depth)
{
    uint64_t most = 1, explicit_one;
    Dwarf_Die die = type_of(type)->die;
    if (type_of(type)->has_die && die_unsigned(&die, DW_AT_alignment, &explicit_one) &&
        explicit_one)
        return explicit_one;
    if (type->kind == SYM_ARRAY && type->target && depth < MAX_DEPTH)
        return alignment_of(m, type->target, depth + 1);
    if (!is_record(type))
        return type->size == 0 || type->size > 16 || (type->size & (type->size - 1)) ? 1
                                                                                     : type->size;
    struct members members;
    members_of(m, type, &members);
    vec_each (member, &members) {
        uint64_t a = depth < MAX_DEPTH ? alignment_of(m, member->type, depth + 1) : 1;
        most = a > most ? a : most;
    }
    vec_deinit(&members);
    return most;
}

/* Where an element stands in its node, behind `head` bytes. */
static uint64_t behind(struct sym_module *m, uint64_t head, const struct sym_type *element)
{
    uint64_t a = alignment_of(m, element, 0);
    return (head + a - 1) / a * a;
}

/* --- the shapes: each fills a container, or finds that this is none --- */

struct known {
    const char *name; /* of the type, without inline namespaces and what is within <> */
    bool (*take)(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                 const struct known *k, struct container *c);
    const char *a, *b; /* paths of members */
    bool pairs;
};

static void take_path(struct container *c, const char *path)
{
    snprintf(c->path, sizeof(c->path), "%s", strlen(path) < sizeof(c->path) ? path : "");
}

static bool take_alias(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                       const struct known *k, struct container *c)
{
    struct member member;
    if (!member_at(m, v->type, k->a, &member))
        return false;
    take_path(c, k->a);
    c->shape = SHAPE_ALIAS;
    c->element = member.type;
    c->off = member.byte_off;
    return true;
}

/* A pointer to characters and their number; the old std::string has the number in front of them. */
static bool take_text(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                      const struct known *k, struct container *c)
{
    struct member data;
    if (!ctx || !member_at(m, v->type, k->a, &data) || data.type->kind != SYM_POINTER ||
        !data.type->target || !number_at(v, &data, &c->at))
        return false;
    uint64_t size = data.type->target->size, past;
    if (!number_of(m, v, k->b, &c->count) && !read_pointer(ctx, c->at - 3 * WORD, &c->count))
        return false;
    c->shape = SHAPE_TEXT;
    c->element = data.type->target;
    return (size == 1 || size == 2 || size == 4) &&
           !__builtin_mul_overflow(c->count, size, &past) &&
           !__builtin_add_overflow(past, c->at, &past);
}

/* Elements in a row. element: NULL, the pointer tells. */
static bool take_array(struct container *c, const struct member *data,
                       const struct sym_type *element, gaddr at, uint64_t count)
{
    c->shape = SHAPE_ARRAY;
    c->element = element ? element : data->type->target;
    c->at = at;
    c->count = count;
    uint64_t past;
    return c->element && c->element->size && (at || !count) &&
           !__builtin_mul_overflow(count, c->element->size, &past) &&
           !__builtin_add_overflow(past, at, &past);
}

/* A pointer to the first element and their number. */
static bool take_counted(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                         const struct known *k, struct container *c)
{
    struct member data;
    gaddr at;
    uint64_t count;
    if (!member_at(m, v->type, k->a, &data) || data.type->kind != SYM_POINTER ||
        !number_at(v, &data, &at) || !number_of(m, v, k->b, &count))
        return false;
    take_path(c, k->a);
    return take_array(c, &data, NULL, at, count);
}

/* Rust's Vec: its pointer may be to bytes. */
static bool take_rust_vec(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                          const struct known *k, struct container *c)
{
    struct member data;
    gaddr at;
    uint64_t count;
    return member_at(m, v->type, k->a, &data) && data.type->kind == SYM_POINTER &&
           number_at(v, &data, &at) && number_of(m, v, k->b, &count) &&
           take_array(c, &data, template_type(m, v->type, 0), at, count);
}

static bool take_bits(struct sym_module *m, const struct sym_value *v, struct container *c)
{
    uint64_t start, end, start_bit, end_bit;
    if (!number_of(m, v, "_M_impl._M_start._M_p", &start) ||
        !number_of(m, v, "_M_impl._M_finish._M_p", &end) ||
        !number_of(m, v, "_M_impl._M_start._M_offset", &start_bit) ||
        !number_of(m, v, "_M_impl._M_finish._M_offset", &end_bit) || end < start ||
        start_bit > 63 || end_bit > 63 || (end - start) * 8 + end_bit < start_bit ||
        end - start > UINT64_MAX / 16)
        return false;
    c->shape = SHAPE_BITS;
    c->element = template_type(m, v->type, 0);
    c->at = start;
    c->off = start_bit;
    c->count = (end - start) * 8 + end_bit - start_bit;
    return c->element && c->element->kind == SYM_BOOL;
}

/* Pointers to the first element and behind the last one. */
static bool take_range(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                       const struct known *k, struct container *c)
{
    struct member data;
    gaddr at, end;
    if (!member_at(m, v->type, k->a, &data))
        return false;
    if (data.type->kind != SYM_POINTER)
        return take_bits(m, v, c);
    uint64_t size = data.type->target ? data.type->target->size : 0;
    if (!size || !number_at(v, &data, &at) || !number_of(m, v, k->b, &end) || end < at ||
        (end - at) % size)
        return false;
    take_path(c, k->a);
    return take_array(c, &data, NULL, at, (end - at) / size);
}

static bool take_deque(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                       const struct known *k, struct container *c)
{
    enum { BLOCK = 512 };
    struct member first;
    uint64_t last, last_cur, last_first;
    if (!member_at(m, v->type, "_M_impl._M_start._M_cur", &first) ||
        first.type->kind != SYM_POINTER || !first.type->target->size ||
        !number_at(v, &first, &c->at) || !number_of(m, v, "_M_impl._M_start._M_last", &c->end) ||
        !number_of(m, v, "_M_impl._M_start._M_node", &c->node) ||
        !number_of(m, v, "_M_impl._M_finish._M_node", &last) ||
        !number_of(m, v, "_M_impl._M_finish._M_cur", &last_cur) ||
        !number_of(m, v, "_M_impl._M_finish._M_first", &last_first))
        return false;
    c->shape = SHAPE_DEQUE;
    c->element = first.type->target;
    uint64_t size = c->element->size, in_block = size < BLOCK ? BLOCK / size : 1;
    if (last < c->node || (last - c->node) % WORD || last_cur < last_first || c->end < c->at ||
        (last - c->node) / WORD > UINT32_MAX)
        return false;
    // Blocks between the first and the last are full.
    uint64_t blocks = (last - c->node) / WORD;
    c->count =
        blocks ? (c->end - c->at) / size + (blocks - 1) * in_block + (last_cur - last_first) / size
               : (last_cur - c->at) / size;
    return (c->end - c->at) / size <= in_block && (last_cur - last_first) / size <= in_block &&
           (blocks || last_cur >= c->at);
}

/* Nodes one behind the other. */
static bool take_chain(struct sym_module *m, const struct sym_type *element, uint64_t head,
                       struct container *c)
{
    if (!element || !element->size)
        return false;
    c->shape = SHAPE_LIST;
    c->element = element;
    c->off = behind(m, head, element);
    return true;
}

/* Follows a chain to its end, for those that have no count. */
static bool count_nodes(struct sym_context *ctx, gaddr node, gaddr end, uint64_t *count_out)
{
    for (*count_out = 0; node != end; ++*count_out) {
        if (*count_out >= MAX_COUNTED || !read_pointer(ctx, node, &node))
            return false;
    }
    return true;
}

static bool take_list(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                      const struct known *k, struct container *c)
{
    struct member head;
    if (!ctx || v->where != SYM_IN_MEMORY || !member_at(m, v->type, "_M_impl._M_node", &head) ||
        !number_of(m, v, "_M_impl._M_node._M_next", &c->at) ||
        !take_chain(m, template_type(m, v->type, 0), LIST_NODE, c))
        return false;
    return number_of(m, v, "_M_impl._M_node._M_size", &c->count) || // not in the old std::list
           count_nodes(ctx, c->at, v->address + head.byte_off, &c->count);
}

static bool take_forward_list(struct sym_module *m, const struct sym_value *v,
                              struct sym_context *ctx, const struct known *k, struct container *c)
{
    return ctx && number_of(m, v, "_M_impl._M_head._M_next", &c->at) &&
           take_chain(m, template_type(m, v->type, 0), WORD, c) &&
           count_nodes(ctx, c->at, 0, &c->count);
}

static bool take_hash(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                      const struct known *k, struct container *c)
{
    struct member table;
    c->pairs = k->pairs;
    return ctx && member_at(m, v->type, "_M_h", &table) &&
           number_of(m, v, "_M_h._M_before_begin._M_nxt", &c->at) &&
           number_of(m, v, "_M_h._M_element_count", &c->count) && (c->at || !c->count) &&
           take_chain(m, template_type(m, table.type, 1), HASH_NODE, c);
}

static bool take_tree(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                      const struct known *k, struct container *c)
{
    struct member tree, header;
    if (!ctx || !member_at(m, v->type, "_M_t", &tree) ||
        !member_at(m, v->type, "_M_t._M_impl._M_header", &header) || v->len < TREE_COUNT + WORD ||
        header.byte_off > v->len - TREE_COUNT - WORD)
        return false;
    const uint8_t *bytes = v->bytes + header.byte_off;
    c->shape = SHAPE_TREE;
    c->pairs = k->pairs;
    c->element = template_type(m, tree.type, 1);
    c->at = load_u64(bytes + TREE_LEFT);
    c->count = load_u64(bytes + TREE_COUNT);
    c->off = c->element ? behind(m, TREE_NODE, c->element) : 0;
    return c->element && c->element->size &&
           (load_u64(bytes + TREE_PARENT) != 0) == (c->count != 0);
}

/* The i-th level of a tuple holds its i-th element in a base of its own, _Head_base<i>, and the
 * rest in another. */
static bool take_tuple(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                       const struct known *k, struct container *c)
{
    const struct sym_type *level = v->type;
    uint64_t off = 0;
    c->shape = SHAPE_MEMBERS;
    for (bool more = true; more && c->count < MAX_TUPLE;) {
        struct members members;
        members_of(m, level, &members);
        more = false;
        const struct sym_type *rest = NULL;
        uint64_t rest_off = 0;
        vec_each (base, &members) {
            struct member head;
            if (base->is_base && strstr(base->name, "_Tuple_impl<")) {
                rest = base->type;
                rest_off = off + base->byte_off;
            } else if (base->is_base && strstr(base->name, "_Head_base<")) {
                // An empty element is a base of the base, and has no name.
                bool named = find_member(m, base->type, "_M_head_impl", &head, 0);
                c->parts[c->count] =
                    named ? head : (struct member){.type = template_type(m, base->type, 0)};
                c->parts[c->count].byte_off += off + base->byte_off;
                if (!c->parts[c->count].type)
                    rest = NULL;
                else
                    c->count++;
            }
        }
        vec_deinit(&members);
        if (rest && rest != level) {
            level = rest;
            off = rest_off;
            more = true;
        }
    }
    return true;
}

/* The pointer is the first element of a tuple of it and the deleter. */
static bool take_unique(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                        const struct known *k, struct container *c)
{
    struct member tuple;
    struct container parts = {0};
    if (!member_at(m, v->type, "_M_t._M_t", &tuple) && !member_at(m, v->type, "_M_t", &tuple))
        return false;
    struct sym_value inner = *v;
    inner.type = tuple.type;
    if (!take_tuple(m, &inner, ctx, k, &parts) || !parts.count)
        return false;
    c->shape = SHAPE_ALIAS;
    c->element = parts.parts[0].type;
    c->off = tuple.byte_off + parts.parts[0].byte_off;
    return c->element->kind == SYM_POINTER;
}

static bool take_optional(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                          const struct known *k, struct container *c)
{
    struct member payload;
    uint64_t engaged;
    if (!number_of(m, v, "_M_payload._M_engaged", &engaged) || engaged > 1 ||
        !(member_at(m, v->type, "_M_payload._M_payload._M_value", &payload) ||
          member_at(m, v->type, "_M_payload._M_value", &payload)))
        return false;
    c->shape = engaged ? SHAPE_ALIAS : SHAPE_EMPTY;
    c->label = engaged ? NULL : "nullopt";
    c->element = payload.type;
    c->off = payload.byte_off;
    return true;
}

/* A union of the first alternative and the rest, again and again. */
static bool take_variant(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                         const struct known *k, struct container *c)
{
    struct member rest, first, storage;
    uint64_t index, off;
    struct member tag;
    if (!member_at(m, v->type, "_M_index", &tag) || !number_at(v, &tag, &index) ||
        !member_at(m, v->type, "_M_u", &rest))
        return false;
    if (index == (tag.type->size >= 8 ? UINT64_MAX : (1ull << 8 * tag.type->size) - 1)) {
        c->shape = SHAPE_EMPTY;
        c->label = "valueless";
        return true;
    }
    off = rest.byte_off;
    for (uint64_t i = 0; i < index; i++) {
        if (i >= MAX_DEPTH || !find_member(m, rest.type, "_M_rest", &rest, 0))
            return false;
        off += rest.byte_off;
    }
    if (!find_member(m, rest.type, "_M_first", &first, 0) ||
        !find_member(m, first.type, "_M_storage", &storage, 0))
        return false;
    c->shape = SHAPE_ALIAS;
    // What has a destructor of its own is kept as mere bytes.
    const struct sym_type *alternative = template_type(m, first.type, 0);
    c->element = alternative ? alternative : storage.type;
    c->off = off + first.byte_off + storage.byte_off;
    return true;
}

static const struct known known[] = {
    {"std::basic_string", take_text, "_M_dataplus._M_p", "_M_string_length", false},
    {"std::basic_string_view", take_text, "_M_str", "_M_len", false},
    {"std::basic_string_view", take_text, "__data", "__size", false},
    {"std::basic_string_view", take_text, "__data_", "__size_", false},
    {"std::vector", take_range, "_M_impl._M_start", "_M_impl._M_finish", false},
    {"std::vector", take_range, "__begin_", "__end_", false},
    {"std::span", take_counted, "_M_ptr", "_M_extent._M_extent_value", false},
    {"std::initializer_list", take_counted, "_M_array", "_M_len", false},
    {"std::deque", take_deque, NULL, NULL, false},
    {"std::list", take_list, NULL, NULL, false},
    {"std::forward_list", take_forward_list, NULL, NULL, false},
    {"std::map", take_tree, NULL, NULL, true},
    {"std::multimap", take_tree, NULL, NULL, true},
    {"std::set", take_tree, NULL, NULL, false},
    {"std::multiset", take_tree, NULL, NULL, false},
    {"std::unordered_map", take_hash, NULL, NULL, true},
    {"std::unordered_multimap", take_hash, NULL, NULL, true},
    {"std::unordered_set", take_hash, NULL, NULL, false},
    {"std::unordered_multiset", take_hash, NULL, NULL, false},
    {"std::tuple", take_tuple, NULL, NULL, false},
    {"std::optional", take_optional, NULL, NULL, false},
    {"std::variant", take_variant, NULL, NULL, false},
    {"std::unique_ptr", take_unique, NULL, NULL, false},
    {"std::unique_ptr", take_alias, "__ptr_.__value_", NULL, false},
    {"std::shared_ptr", take_alias, "_M_ptr", NULL, false},
    {"std::shared_ptr", take_alias, "__ptr_", NULL, false},
    {"std::weak_ptr", take_alias, "_M_ptr", NULL, false},
    {"std::weak_ptr", take_alias, "__ptr_", NULL, false},
    {"std::array", take_alias, "_M_elems", NULL, false},
    {"std::array", take_alias, "__elems_", NULL, false},
    {"std::atomic", take_alias, "_M_i", NULL, false},
    {"std::atomic", take_alias, "_M_base._M_i", NULL, false},
    {"std::atomic", take_alias, "_M_b._M_p", NULL, false},
    {"std::stack", take_alias, "c", NULL, false},
    {"std::queue", take_alias, "c", NULL, false},
    {"std::priority_queue", take_alias, "c", NULL, false},
    {"std::reference_wrapper", take_alias, "_M_data", NULL, false},
    {"__gnu_cxx::__normal_iterator", take_alias, "_M_current", NULL, false},
    {"alloc::string::String", take_text, "vec.buf.inner.ptr.pointer.pointer", "vec.len", false},
    {"alloc::string::String", take_text, "vec.buf.ptr.pointer.pointer", "vec.len", false},
    {"alloc::string::String", take_text, "vec.buf.ptr.pointer", "vec.len", false},
    {"alloc::vec::Vec", take_rust_vec, "buf.inner.ptr.pointer.pointer", "len", false},
    {"alloc::vec::Vec", take_rust_vec, "buf.ptr.pointer.pointer", "len", false},
    {"alloc::vec::Vec", take_rust_vec, "buf.ptr.pointer", "len", false},
    {"alloc::rc::Rc", take_alias, "ptr.pointer", NULL, false},
    {"alloc::sync::Arc", take_alias, "ptr.pointer", NULL, false},
    {"&str", take_text, "data_ptr", "length", false},
};

/* --- Rust's enums --- */

/* One variant of several in the same place, told by a number (DWARF 5, 5.7.10). */
static bool take_rust_enum(struct sym_module *m, const struct sym_value *v, struct container *c)
{
    Dwarf_Die die, part, parent = type_of(v->type)->die, discriminant, other = {0}, chosen = {0};
    uint64_t number = 0;
    if (!type_of(v->type)->has_die || !die_child(&parent, &part) ||
        dwarf_tag(&part) != DW_TAG_variant_part || !die_child(&part, &die))
        return false;
    bool told = die_ref(&part, DW_AT_discr, &discriminant), has_other = false, found = false;
    if (told) {
        struct member tag = {.type = type_of_die(m, &discriminant)};
        die_unsigned(&discriminant, DW_AT_data_member_location, &tag.byte_off);
        if (!number_at(v, &tag, &number))
            return false;
    }
    do {
        int64_t value;
        Dwarf_Attribute attr;
        if (dwarf_tag(&die) != DW_TAG_variant)
            continue;
        if (!dwarf_attr(&die, DW_AT_discr_value, &attr)) { // all the other numbers
            other = die;
            has_other = true;
        } else if (dwarf_formsdata(&attr, &value) == 0) {
            uint64_t mask = ~0ull;
            if (told) {
                uint64_t size = type_of_die(m, &discriminant)->size;
                mask = size && size < 8 ? (1ull << 8 * size) - 1 : ~0ull;
            }
            if (((uint64_t)value & mask) == number) {
                chosen = die;
                found = true;
            }
        }
    } while (!found && die_sibling(&die, &die));
    if (!found && !has_other)
        return false;
    if (!die_child(found ? &chosen : &other, &die))
        return false;
    while (dwarf_tag(&die) != DW_TAG_member) {
        if (!die_sibling(&die, &die))
            return false;
    }
    c->shape = SHAPE_ALIAS;
    c->label = dwarf_diename(&die);
    c->element = type_of_die(m, &die);
    return die_unsigned(&die, DW_AT_data_member_location, &c->off) && c->label;
}

/* --- which it is --- */

/* std::__cxx11::list<int, ...> is std::list. Heap string. */
static char *plain_name(const char *full)
{
    static const char *const inlined[] = {"__cxx11::", "__1::", "__8::"};
    char *name = str_format("%.*s", (int)strcspn(full, "<"), full);
    for (size_t i = 0; i < ARRAY_COUNT(inlined); i++) {
        char *at = strstr(name, inlined[i]);
        if (at)
            memmove(at, at + strlen(inlined[i]), strlen(at + strlen(inlined[i])) + 1);
    }
    return name;
}

bool container_of(struct sym_module *m, const struct sym_value *v, struct sym_context *ctx,
                  struct container *out)
{
    if (!is_record(v->type) || !type_of(v->type)->has_die || !v->len)
        return false;
    Dwarf_Die die = type_of(v->type)->die;
    cleanup(freep) char *full = type_full_name(m, &die);
    if (!full)
        return false;
    *out = (struct container){0};
    if (take_rust_enum(m, v, out))
        return true;
    static const struct known slice = {"&[]", take_counted, "data_ptr", "length", false};
    bool is_slice = str_starts(full, "&[") || str_starts(full, "&mut [");
    *out = (struct container){0};
    if (is_slice && take_counted(m, v, ctx, &slice, out))
        return true;
    cleanup(freep) char *name = plain_name(str_eq(full, "&mut str") ? "&str" : full);
    for (size_t i = 0; i < ARRAY_COUNT(known); i++) {
        *out = (struct container){0};
        if (str_eq(known[i].name, name) && known[i].take(m, v, ctx, &known[i], out))
            return true;
    }
    return false;
}

bool container_data(struct sym_module *m, const struct sym_type *type, struct member *out,
                    const char **path_out)
{
    Dwarf_Die die = type_of(type)->die;
    cleanup(freep) char *full =
        is_record(type) && type_of(type)->has_die ? type_full_name(m, &die) : NULL;
    cleanup(freep) char *name = full ? plain_name(full) : NULL;
    for (size_t i = 0; name && i < ARRAY_COUNT(known); i++) {
        const struct known *k = &known[i];
        bool in_a_row = k->take == take_text || k->take == take_counted || k->take == take_range ||
                        k->take == take_alias;
        if (in_a_row && str_eq(k->name, name) && member_at(m, type, k->a, out) &&
            (out->type->kind == SYM_ARRAY ||
             (k->take != take_alias && out->type->kind == SYM_POINTER))) {
            *path_out = k->a;
            return true;
        }
    }
    return false;
}

/* --- elements --- */

/* The next node of a tree in order (bits/stl_tree.h, _Rb_tree_increment). */
static bool next_in_tree(struct sym_context *ctx, gaddr *node)
{
    gaddr at, above;
    if (!read_pointer(ctx, *node + TREE_RIGHT, &at))
        return false;
    unsigned steps = 0;
    if (at) {
        for (gaddr left = at; left && steps < 128; steps++) {
            at = left;
            if (!read_pointer(ctx, at + TREE_LEFT, &left))
                return false;
        }
        *node = at;
        return steps < 128;
    }
    for (at = *node; steps < 128; steps++, at = above) {
        gaddr right;
        if (!read_pointer(ctx, at + TREE_PARENT, &above) ||
            !read_pointer(ctx, above + TREE_RIGHT, &right))
            return false;
        if (right != at) {
            *node = above;
            return true;
        }
    }
    return false;
}

/* The address of the element `index`; node: of lists and trees where it is. False: it cannot be
 * found. */
static bool find_element(const struct container *c, struct sym_context *ctx, uint64_t index,
                         gaddr node, gaddr *out)
{
    uint64_t size = c->element->size;
    *out = c->shape == SHAPE_ARRAY ? c->at + index * size : node + c->off;
    if (c->shape != SHAPE_DEQUE)
        return true;
    uint64_t in_first = (c->end - c->at) / size, in_block = size < 512 ? 512 / size : 1;
    *out = c->at + index * size;
    if (index < in_first)
        return true;
    uint64_t rest = index - in_first;
    gaddr block;
    bool ok = read_pointer(ctx, c->node + WORD * (1 + rest / in_block), &block);
    *out = block + rest % in_block * size;
    return ok;
}

/* A name for an element: its number, or its key. Takes the mapped value out of a pair. */
static char *name_element(struct sym_module *m, const struct container *c, struct sym_context *ctx,
                          uint64_t index, struct sym_child *child)
{
    struct member first, second;
    struct sym_value key = {0}, value = {0};
    struct err *e = NULL;
    if (!c->pairs || child->reason || !find_member(m, c->element, "first", &first, 0) ||
        !find_member(m, c->element, "second", &second, 0))
        return str_format("[%ju]", (uintmax_t)index);
    cleanup(freep) char *text = NULL;
    e = part_of(m, &child->value, first.type, first.byte_off, ctx, &key);
    if (!e)
        e = sym_format_value(m, &key, ctx, &text);
    if (!e)
        e = part_of(m, &child->value, second.type, second.byte_off, ctx, &value);
    sym_value_deinit(&key);
    if (e) {
        err_free(e);
        return str_format("[%ju]", (uintmax_t)index);
    }
    sym_value_deinit(&child->value);
    child->value = value;
    return str_format("[%s]", text);
}

static void add_bit(const struct container *c, struct sym_context *ctx, uint64_t index,
                    struct sym_child *child)
{
    uint8_t byte = 0;
    uint64_t bit = c->off + index;
    child->reason = ctx->read_memory(ctx, c->at + bit / 8, &byte, 1);
    if (child->reason)
        return;
    child->value = (struct sym_value){
        .type = c->element, .where = SYM_IN_PIECES, .bytes = xcalloc(1, 2), .len = 1};
    child->value.bytes[0] = byte >> bit % 8 & 1;
}

struct err *container_children(struct sym_module *m, const struct sym_value *v,
                               const struct container *c, struct sym_context *ctx, uint64_t first,
                               size_t max, struct sym_children *out)
{
    bool nodes = c->shape == SHAPE_LIST || c->shape == SHAPE_TREE;
    gaddr node = c->at;
    if (first >= c->count)
        return NULL;
    if (nodes && first > MAX_STEPS)
        return err_new(ERR_LIMIT, "only the first %d elements are looked up", MAX_STEPS);
    bool ok = true;
    for (uint64_t i = 0; i < c->count && i < first + max; i++) {
        if (i && nodes && ok)
            ok = c->shape == SHAPE_LIST ? read_pointer(ctx, node, &node) : next_in_tree(ctx, &node);
        if (i < first && ok)
            continue;
        struct sym_child *child = vec_add(out);
        gaddr at = 0;
        child->value.type = c->element;
        if (ok && c->shape != SHAPE_MEMBERS && c->shape != SHAPE_BITS)
            ok = find_element(c, ctx, i, node, &at);
        if (!ok || (nodes && !node)) {
            child->name = str_format("[%ju]", (uintmax_t)i);
            child->reason = err_new(ERR_FAULT, "the chain of elements is broken");
            return NULL;
        }
        if (c->shape == SHAPE_MEMBERS) {
            child->value.type = c->parts[i].type;
            child->reason =
                part_of(m, v, c->parts[i].type, c->parts[i].byte_off, ctx, &child->value);
        } else if (c->shape == SHAPE_BITS) {
            add_bit(c, ctx, i, child);
        } else {
            child->reason = sym_read_at(m, c->element, at, ctx, &child->value);
        }
        child->name = name_element(m, c, ctx, i, child);
        if (c->shape == SHAPE_ARRAY && c->path[0])
            child->access = str_format("($).%s[%ju]", c->path, (uintmax_t)i);
        else if (child->value.where == SYM_IN_MEMORY && !child->reason)
            child->access = str_format("*(%s *)0x%jx", child->value.type->name,
                                       (uintmax_t)child->value.address);
    }
    return NULL;
}
