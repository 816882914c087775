/* Reading values: from where a DWARF location says, into bytes; and taking them apart. */
#include "base/bytes.h"
#include "sym/sym_int.h"

void sym_value_deinit(struct sym_value *v)
{
    free(v->bytes);
    *v = (struct sym_value){0};
}

void sym_children_deinit(struct sym_children *c)
{
    vec_each (child, c) {
        free(child->name);
        free(child->access);
        sym_value_deinit(&child->value);
        err_free(child->reason);
    }
    vec_deinit(c);
}

struct err *read_word(struct sym_context *ctx, unsigned dwarf_reg, uint64_t *out)
{
    uint64_t v = 0;
    TRY(ctx->read_register(ctx, dwarf_reg, &v, sizeof(v)));
    *out = v;
    return NULL;
}

int64_t load_integer(const uint8_t *bytes, size_t len, bool is_signed)
{
    uint64_t v = 0;
    len = len > 8 ? 8 : len;
    memcpy(&v, bytes, len);
    if (is_signed && len && len < 8)
        return (int64_t)(v << (64 - 8 * len)) >> (64 - 8 * len);
    return (int64_t)v;
}

/* ---- From locations to bytes ---- */

static struct err *no_size(const struct sym_type *type)
{
    return err_new(ERR_NOT_FOUND, "the size of %s is not known", type->name);
}

/* Reads the first `len` bytes of what is at a location. */
static struct err *read_location(struct frame *f, const struct location *l, uint8_t *bytes,
                                 size_t len)
{
    memset(bytes, 0, len);
    switch (l->kind) {
    case LOCATION_MEMORY:
        return f->ctx->read_memory(f->ctx, l->value, bytes, len);
    case LOCATION_REGISTER: {
        size_t most = l->value <= SYM_RIP                          ? 8
                      : l->value >= SYM_ST0 && l->value <= SYM_ST7 ? 10
                                                                   : 64;
        return f->ctx->read_register(f->ctx, (unsigned)l->value, bytes, len < most ? len : most);
    }
    case LOCATION_VALUE:
        memcpy(bytes, &l->value, len < 8 ? len : 8);
        return NULL;
    default:
        memcpy(bytes, l->bytes, len < l->bytes_len ? len : l->bytes_len);
        return NULL;
    }
}

static void copy_bits(uint8_t *to, uint64_t to_bit, const uint8_t *from, uint64_t from_bit,
                      uint64_t bits)
{
    if (to_bit % 8 == 0 && from_bit % 8 == 0 && bits % 8 == 0) {
        memcpy(to + to_bit / 8, from + from_bit / 8, bits / 8);
        return;
    }
    for (uint64_t i = 0; i < bits; i++) {
        unsigned bit = (from[(from_bit + i) / 8] >> ((from_bit + i) % 8)) & 1;
        to[(to_bit + i) / 8] = (uint8_t)(to[(to_bit + i) / 8] | bit << ((to_bit + i) % 8));
    }
}

static struct err *join_pieces(struct frame *f, const struct pieces *pieces, uint8_t *bytes,
                               size_t len)
{
    uint64_t at = 0, end = (uint64_t)len * 8;
    memset(bytes, 0, len);
    vec_each (p, pieces) {
        uint64_t bits = p->bits < end - at ? p->bits : end - at;
        if (!bits)
            break;
        if (p->is_missing)
            return err_new(ERR_NOT_FOUND, "partly optimized out at 0x%jx", (uintmax_t)f->addr);
        size_t need = (size_t)((p->bit_off + bits + 7) / 8);
        if (p->bit_off > UINT16_MAX)
            return err_new(ERR_FORMAT, "%s: bad piece of a location", f->m->path);
        cleanup(freep) uint8_t *part = xmalloc(need + 1);
        TRY(read_location(f, &p->location, part, need));
        copy_bits(bytes, at, part, p->bit_off, bits);
        at += bits;
    }
    return at == end ? NULL
                     : err_new(ERR_NOT_FOUND, "partly optimized out at 0x%jx", (uintmax_t)f->addr);
}

struct err *value_from_pieces(struct frame *f, const struct sym_type *type,
                              const struct pieces *pieces, struct sym_value *out)
{
    const struct piece *first = &pieces->items[0];
    if (pieces->count == 1 && first->is_missing)
        return err_new(ERR_NOT_FOUND, "optimized out at 0x%jx", (uintmax_t)f->addr);
    if (pieces->count == 1 && !first->bits && first->location.kind == LOCATION_MEMORY)
        return sym_read_at(f->m, type, first->location.value, f->ctx, out);
    if (!type->size)
        return no_size(type);
    struct sym_value v = {.type = type, .where = SYM_IN_PIECES};
    v.len = type->size < SYM_MAX_VALUE ? type->size : SYM_MAX_VALUE;
    cleanup(freep) uint8_t *bytes = xmalloc(v.len);
    if (pieces->count > 1 || first->bits) {
        TRY(join_pieces(f, pieces, bytes, v.len));
    } else {
        TRY(read_location(f, &first->location, bytes, v.len));
        v.where = first->location.kind == LOCATION_REGISTER ? SYM_IN_REGISTER : SYM_COMPUTED;
        v.dwarf_reg = v.where == SYM_IN_REGISTER ? (unsigned)first->location.value : 0;
    }
    v.bytes = steal(bytes);
    *out = v;
    return NULL;
}

struct err *sym_read_at(struct sym_module *m, const struct sym_type *type, gaddr addr,
                        struct sym_context *ctx, struct sym_value *out)
{
    HOLD(m);
    struct sym_value v = {.type = type, .where = SYM_IN_MEMORY, .address = addr};
    v.len = type->size < SYM_MAX_VALUE ? type->size : SYM_MAX_VALUE;
    cleanup(freep) uint8_t *bytes = xcalloc(1, v.len + 1);
    if (v.len)
        TRY(ctx->read_memory(ctx, addr, bytes, v.len));
    v.bytes = steal(bytes);
    *out = v;
    return NULL;
}

/* A variable that the compiler knows to be constant. */
static struct err *read_constant(struct sym_module *m, Dwarf_Attribute *attr,
                                 const struct sym_type *type, struct sym_value *out)
{
    Dwarf_Block block;
    Dwarf_Sword number;
    const char *text;
    if (!type->size || type->size > SYM_MAX_VALUE)
        return no_size(type);
    struct sym_value v = {.type = type, .where = SYM_COMPUTED, .len = type->size};
    cleanup(freep) uint8_t *bytes = xcalloc(1, v.len);
    if (dwarf_formblock(attr, &block) == 0) {
        memcpy(bytes, block.data, block.length < v.len ? block.length : v.len);
    } else if ((text = dwarf_formstring(attr))) {
        strncpy((char *)bytes, text, v.len);
    } else if (dwarf_formsdata(attr, &number) == 0) {
        memset(bytes, number < 0 ? 0xff : 0, v.len);
        memcpy(bytes, &number, v.len < 8 ? v.len : 8);
    } else {
        return err_dwarf(m, "constant value");
    }
    v.bytes = steal(bytes);
    *out = v;
    return NULL;
}

struct err *sym_read_variable(struct sym_module *m, const struct sym_variable *var, vaddr addr,
                              struct sym_context *ctx, struct sym_value *out)
{
    HOLD(m);
    Dwarf_Die die;
    Dwarf_Attribute attr;
    memcpy(&die, &var->die, sizeof(die));
    if (dwarf_attr_integrate(&die, DW_AT_location, &attr)) {
        struct frame f = {.m = m, .ctx = ctx, .addr = addr};
        f.function = var->function ? function_of(var->function) : NULL;
        struct pieces pieces;
        const struct sym_type *type;
        TRY(sized_array(&f, var->type, &type));
        TRY(location_evaluate_attribute(&f, &attr, &pieces));
        struct err *e = value_from_pieces(&f, type, &pieces, out);
        vec_deinit(&pieces);
        return e;
    }
    if (dwarf_attr_integrate(&die, DW_AT_const_value, &attr))
        return read_constant(m, &attr, var->type, out);
    return err_new(ERR_NOT_FOUND, "optimized out");
}

/* ---- Parts ---- */

struct err *part_of(struct sym_module *m, const struct sym_value *whole,
                    const struct sym_type *type, uint64_t off, struct sym_context *ctx,
                    struct sym_value *out)
{
    bool is_inside = off <= whole->len && type->size <= whole->len - off;
    if (!is_inside && whole->where == SYM_IN_MEMORY && ctx)
        return sym_read_at(m, type, whole->address + off, ctx, out);
    if (!is_inside)
        return err_new(ERR_LIMIT, "beyond the first %zu bytes", whole->len);
    *out = (struct sym_value){.type = type, .where = whole->where, .len = type->size};
    out->address = whole->where == SYM_IN_MEMORY ? whole->address + off : 0;
    out->dwarf_reg = whole->dwarf_reg;
    if (whole->where == SYM_IN_REGISTER && off)
        out->where = SYM_IN_PIECES;
    out->bytes = (uint8_t *)xcalloc(1, out->len + 1);
    memcpy(out->bytes, whole->bytes + off, out->len);
    return NULL;
}

static struct err *bitfield_of(const struct sym_value *whole, const struct member *member,
                               struct sym_value *out)
{
    size_t span = (member->bit_off + member->bit_size + 7) / 8, len = member->type->size;
    if (member->byte_off > whole->len || span > whole->len - member->byte_off || span > 9 || !len ||
        len > 8)
        return err_new(ERR_FORMAT, "a bitfield outside of its struct");
    uint8_t raw[9] = {0};
    memcpy(raw, whole->bytes + member->byte_off, span);
    uint64_t v = load_u64(raw) >> member->bit_off;
    if (member->bit_off)
        v |= (uint64_t)raw[8] << (64 - member->bit_off);
    unsigned unused = 64 - member->bit_size;
    enum sym_type_kind kind = member->type->kind;
    bool is_signed =
        kind == SYM_INT || kind == SYM_CHAR ||
        (kind == SYM_ENUM && member->type->target && member->type->target->kind == SYM_INT);
    v = is_signed ? (uint64_t)((int64_t)(v << unused) >> unused) : v << unused >> unused;
    *out = (struct sym_value){.type = member->type, .where = SYM_IN_PIECES, .len = len};
    out->bytes = xmemdup(&v, 8);
    return NULL;
}

static void add_member(struct sym_module *m, const struct sym_value *value,
                       const struct member *member, struct sym_context *ctx,
                       struct sym_children *out)
{
    struct sym_child *c = vec_add(out);
    c->name = member->is_base ? str_format("<base> %s", member->name)
                              : xstrdup(member->name ? member->name : "");
    c->access = member->is_base || !member->name ? NULL : str_format("($).%s", member->name);
    c->value.type = member->type;
    if (member->is_virtual)
        c->reason = err_new(ERR_UNSUPPORTED, "virtual base classes are not shown");
    else if (member->bit_size)
        c->reason = bitfield_of(value, member, &c->value);
    else
        c->reason = part_of(m, value, member->type, member->byte_off, ctx, &c->value);
}

static struct err *pointed_to(struct sym_module *m, const struct sym_value *value,
                              struct sym_context *ctx, struct sym_children *out)
{
    const struct sym_type *target = value->type->target;
    if (!target || target->kind == SYM_VOID || target->kind == SYM_FUNCTION_TYPE || !ctx ||
        value->len < 8)
        return NULL;
    gaddr addr = load_u64(value->bytes);
    if (!addr)
        return NULL;
    struct sym_child *c = vec_add(out);
    c->name = xstrdup("*");
    c->access = xstrdup("*($)");
    c->value.type = target;
    c->reason = sym_read_at(m, target, addr, ctx, &c->value);
    return NULL;
}

char *sym_child_expression(const struct sym_child *c, const char *whole)
{
    const char *here = c->access ? strchr(c->access, '$') : NULL;
    if (!here)
        return c->access ? xstrdup(c->access) : NULL;
    return str_format("%.*s%s%s", (int)(here - c->access), c->access, whole, here + 1);
}

static bool has_members(struct sym_module *m, const struct sym_type *type, unsigned depth)
{
    struct members members;
    bool has = depth > MAX_DEPTH;
    members_of(m, type, &members);
    vec_each (member, &members)
        has |= !member->is_base || member->is_virtual || has_members(m, member->type, depth + 1);
    vec_deinit(&members);
    return has;
}

static bool is_empty_base(struct sym_module *m, const struct member *member)
{
    return member->is_base && !member->is_virtual && !has_members(m, member->type, 0);
}

/* Parts of the one thing that the value is shown as. */
static struct err *children_of_alias(struct sym_module *m, const struct sym_value *value,
                                     const struct container *c, struct sym_context *ctx,
                                     uint64_t first, size_t max, struct sym_children *out)
{
    struct sym_value inner = {0};
    TRY(part_of(m, value, c->element, c->off, ctx, &inner));
    struct err *e = sym_value_children(m, &inner, ctx, first, max, out);
    cleanup(freep) char *whole =
        c->path[0] ? str_format("($).%s", c->path)
        : inner.where == SYM_IN_MEMORY
            ? str_format("*(%s *)0x%jx", c->element->name, (uintmax_t)inner.address)
            : NULL;
    for (size_t i = 0; !e && i < out->count; i++) {
        char *access = whole ? sym_child_expression(&out->items[i], whole) : NULL;
        free(out->items[i].access);
        out->items[i].access = access;
    }
    sym_value_deinit(&inner);
    return e;
}

bool sym_value_has_children(struct sym_module *m, const struct sym_value *v,
                            struct sym_context *ctx)
{
    HOLD(m);
    struct container c;
    switch (v->type->kind) {
    case SYM_STRUCT:
    case SYM_UNION:
    case SYM_CLASS: {
        if (!container_of(m, v, ctx, &c))
            return has_members(m, v->type, 0);
        struct sym_value inner = {0};
        struct err *e =
            c.shape == SHAPE_ALIAS ? part_of(m, v, c.element, c.off, ctx, &inner) : NULL;
        bool has = e                        ? false
                   : c.shape == SHAPE_ALIAS ? sym_value_has_children(m, &inner, ctx)
                                            : c.shape != SHAPE_TEXT && c.count > 0;
        sym_value_deinit(&inner);
        err_free(e);
        return has;
    }
    case SYM_ARRAY:
        return v->type->count > 0;
    case SYM_POINTER:
    case SYM_REFERENCE:
        return v->type->target && v->type->target->kind != SYM_VOID &&
               v->type->target->kind != SYM_FUNCTION_TYPE && v->len == 8 && load_u64(v->bytes) != 0;
    default:
        return false;
    }
}

struct err *sym_value_children(struct sym_module *m, const struct sym_value *value,
                               struct sym_context *ctx, uint64_t first, size_t max,
                               struct sym_children *out)
{
    HOLD(m);
    struct sym_children found = {0};
    const struct sym_type *type = value->type;
    switch (type->kind) {
    case SYM_STRUCT:
    case SYM_CLASS:
    case SYM_UNION: {
        struct container c;
        struct members members;
        uint64_t at = 0;
        if (container_of(m, value, ctx, &c)) {
            struct err *e =
                c.shape == SHAPE_ALIAS  ? children_of_alias(m, value, &c, ctx, first, max, &found)
                : c.shape == SHAPE_TEXT ? NULL
                                        : container_children(m, value, &c, ctx, first, max, &found);
            *out = found;
            if (e)
                sym_children_deinit(out);
            return e;
        }
        members_of(m, type, &members);
        vec_each (member, &members) {
            if (is_empty_base(m, member))
                continue;
            if (at >= first && at - first < max)
                add_member(m, value, member, ctx, &found);
            at++;
        }
        vec_deinit(&members);
        break;
    }
    case SYM_ARRAY:
        for (uint64_t i = first; i < type->count && i - first < max; i++) {
            struct sym_child *c = vec_add(&found);
            c->name = str_format("[%ju]", (uintmax_t)i);
            c->access = str_format("($)%s", c->name);
            c->value.type = type->target;
            c->reason = part_of(m, value, type->target, i * type->target->size, ctx, &c->value);
        }
        break;
    case SYM_POINTER:
    case SYM_REFERENCE: {
        struct err *e = first == 0 && max ? pointed_to(m, value, ctx, &found) : NULL;
        if (e)
            return e;
        break;
    }
    default:
        break;
    }
    *out = found;
    return NULL;
}
