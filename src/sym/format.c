/* Values as text. One line, at most about MAX_TEXT characters. */
#include "base/bytes.h"
#include "sym/sym_int.h"

#include <ctype.h>
#include <inttypes.h>

enum { MAX_TEXT = 1024, MAX_STRING = 64, MAX_ELEMENTS = 10, MAX_NESTING = 4 };

static void add_escaped(struct buf *b, uint8_t c, char quote)
{
    static const char from[] = "\a\b\t\n\v\f\r", to[] = "abtnvfr";
    const char *special = c ? strchr(from, c) : NULL;
    if (special)
        buf_printf(b, "\\%c", to[special - from]);
    else if (c == '\\' || c == (uint8_t)quote)
        buf_printf(b, "\\%c", c);
    else if (c >= 0x20 && c != 0x7f)
        buf_u8(b, c); // the bytes of UTF-8 pass; add_string refuses what is not UTF-8
    else
        buf_printf(b, "\\%03o", c);
}

/* The length of the UTF-8 sequence at `s`, 0 if it is not one. RFC 3629. */
static size_t utf8_len(const uint8_t *s, size_t left)
{
    size_t len = s[0] < 0x80                   ? 1
                 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
                 : (s[0] & 0xf0) == 0xe0       ? 3
                 : (s[0] & 0xf8) == 0xf0       ? 4
                                               : 0;
    if (!len || len > left || s[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool is_overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool is_surrogate = s[0] == 0xed && s[1] >= 0xa0, is_beyond = s[0] == 0xf4 && s[1] >= 0x90;
    return is_overlong || is_surrogate || is_beyond ? 0 : len;
}

static void add_string(struct buf *b, const uint8_t *s, size_t len, bool is_cut)
{
    buf_u8(b, '"');
    for (size_t i = 0; i < len;) {
        size_t n = utf8_len(s + i, len - i);
        if (n <= 1 && s[i] < 0x80) {
            add_escaped(b, s[i], '"');
            n = 1;
        } else if (n == 0) {
            buf_printf(b, "\\%03o", s[i]);
            n = 1;
        } else {
            buf_add(b, s + i, n);
        }
        i += n;
    }
    buf_str(b, is_cut ? "\"..." : "\"");
}

/* The string at `addr`, as far as it can be read. */
static void add_pointed_string(struct buf *b, struct sym_context *ctx, gaddr addr)
{
    uint8_t text[MAX_STRING + 1];
    size_t len = 0;
    for (; len <= MAX_STRING; len++) {
        struct err *e = ctx->read_memory(ctx, addr + len, text + len, 1);
        if (e) {
            err_free(e);
            if (len == 0) {
                buf_str(b, " <not mapped>");
                return;
            }
            break;
        }
        if (!text[len])
            break;
    }
    buf_u8(b, ' ');
    add_string(b, text, len > MAX_STRING ? MAX_STRING : len, len > MAX_STRING);
}

static void add_double(struct buf *b, double d, int digits)
{
    char text[64];
    for (int precision = 1; precision <= digits;
         precision++) { // the shortest that reads back the same
        snprintf(text, sizeof(text), "%.*g", precision, d);
        double back = strtod(text, NULL);
        if (digits == 9 ? (float)back == (float)d : back == d)
            break;
    }
    buf_str(b, text);
}

static void add_float(struct buf *b, const uint8_t *bytes, size_t size)
{
    if (size == 4) {
        float f;
        memcpy(&f, bytes, sizeof(f));
        add_double(b, (double)f, 9);
    } else if (size == 8) {
        double d;
        memcpy(&d, bytes, sizeof(d));
        add_double(b, d, 17);
    } else if (size == 16 || size == 10 || size == 12) {
        long double x = 0; // the 80-bit format, padded
        memcpy(&x, bytes, 10);
        buf_printf(b, "%.18Lg", x);
    } else {
        buf_printf(b, "<floating point of %zu bytes>", size);
    }
}

/* __int128. */
static void add_wide(struct buf *b, const uint8_t *bytes, bool is_signed)
{
    unsigned __int128 v;
    memcpy(&v, bytes, sizeof(v));
    char text[48];
    size_t at = sizeof(text);
    bool minus = is_signed && (__int128)v < 0;
    v = minus ? 0 - v : v;
    text[--at] = '\0';
    do {
        text[--at] = (char)('0' + (int)(v % 10));
        v /= 10;
    } while (v);
    buf_printf(b, "%s%s", minus ? "-" : "", text + at);
}

static void add_character(struct buf *b, const struct sym_type *type, const uint8_t *bytes)
{
    int64_t v = load_integer(bytes, type->size, type->size == 1 && !strstr(type->name, "unsigned"));
    buf_printf(b, "%" PRId64, v);
    if (type->size == 1 && v >= 0 && v < 0x80) {
        buf_str(b, " '");
        add_escaped(b, (uint8_t)v, '\'');
        buf_u8(b, '\'');
    }
}

/* ---- Enumerations ---- */

static void add_enum(struct buf *b, const struct sym_type *type, const uint8_t *bytes)
{
    bool is_signed =
        !type->target || type->target->kind == SYM_INT || type->target->kind == SYM_CHAR;
    int64_t v = load_integer(bytes, type->size, is_signed);
    uint64_t mask = type->size < 8 ? (1ull << (8 * type->size)) - 1 : ~0ull,
             left = (uint64_t)v & mask;
    Dwarf_Die die, parent = type_of(type)->die;
    size_t start = b->len;
    if (!type_of(type)->has_die || !die_child(&parent, &die))
        left = (uint64_t)v;
    else
        do { // an exact name, else (for flags) the names of bits
            int64_t named;
            const char *name = dwarf_diename(&die);
            if (dwarf_tag(&die) != DW_TAG_enumerator || !name || !die_enumerator(&die, &named))
                continue;
            uint64_t bits = (uint64_t)named & mask;
            if (bits == ((uint64_t)v & mask)) {
                b->len = start;
                buf_str(b, name);
                return;
            }
            if (bits && !(bits & (bits - 1)) && (left & bits)) {
                buf_printf(b, "%s%s", b->len > start ? " | " : "", name);
                left &= ~bits;
            }
        } while (die_sibling(&die, &die));
    if (left && b->len > start) {
        b->len = start;
        buf_printf(b, "%" PRId64, v);
    } else if (b->len == start) {
        buf_printf(b, "%" PRId64, v);
    }
}

/* ---- Compounds ---- */

struct formatter {
    struct sym_module *m;
    struct sym_context *ctx;
    struct buf text;
};

static void add_value(struct formatter *f, const struct sym_value *v, unsigned nesting);

static void add_child(struct formatter *f, const struct sym_child *c, bool named, unsigned nesting)
{
    if (named && *c->name)
        buf_printf(&f->text, "%s = ", c->name);
    if (c->reason)
        buf_printf(&f->text, "<%s>", err_message(c->reason));
    else
        add_value(f, &c->value, nesting + 1);
}

/* The characters of a string, of 1, 2 or 4 bytes each, as UTF-8. */
static void add_characters(struct formatter *f, const struct container *c)
{
    uint8_t raw[4 * (MAX_STRING + 1)], text[4 * MAX_STRING];
    size_t size = c->element->size, wanted = c->count < MAX_STRING ? c->count : MAX_STRING, len = 0;
    struct err *e = wanted ? f->ctx->read_memory(f->ctx, c->at, raw, wanted * size) : NULL;
    if (e) {
        buf_printf(&f->text, "<%s>", err_message(e));
        err_free(e);
        return;
    }
    if (size == 1)
        memcpy(text, raw, len = wanted);
    for (size_t i = 0; size > 1 && i < wanted; i++) {
        uint32_t code = (uint32_t)load_integer(raw + i * size, size, false);
        bool high = size == 2 && code >= 0xd800 && code < 0xdc00 && i + 1 < wanted;
        uint32_t low = high ? (uint32_t)load_integer(raw + (i + 1) * size, size, false) : 0;
        if (high && low >= 0xdc00 && low < 0xe000) { // UTF-16's pairs
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            i++;
        }
        code = code > 0x10ffff ? 0xfffd : code;
        unsigned more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
        text[len++] = (uint8_t)(lead[more] | code >> 6 * more);
        while (more--)
            text[len++] = (uint8_t)(0x80 | (code >> 6 * more & 0x3f));
    }
    add_string(&f->text, text, len, c->count > MAX_STRING);
}

static void add_elements(struct formatter *f, const struct sym_value *v, const struct container *c,
                         unsigned nesting)
{
    struct sym_children children = {0};
    if (c->shape != SHAPE_MEMBERS)
        buf_printf(&f->text, "[%" PRIu64 "]", c->count);
    if (nesting >= MAX_NESTING && c->count) {
        buf_str(&f->text, "{...}");
        return;
    }
    struct err *e = container_children(f->m, v, c, f->ctx, 0, MAX_ELEMENTS, &children);
    buf_u8(&f->text, '{');
    for (size_t i = 0; !e && i < children.count; i++) {
        const struct sym_child *child = &children.items[i];
        buf_str(&f->text, i ? ", " : "");
        if (f->text.len > MAX_TEXT)
            break;
        size_t name = strlen(child->name);
        if (c->pairs && !child->reason) // "[key]"
            buf_printf(&f->text, "%.*s: ", (int)name - 2, child->name + 1);
        add_child(f, child, false, nesting);
    }
    if (!e && (c->count > children.count || f->text.len > MAX_TEXT))
        buf_str(&f->text, ", ...");
    buf_str(&f->text, e ? err_message(e) : "");
    buf_u8(&f->text, '}');
    err_free(e);
    sym_children_deinit(&children);
}

/* Of no bytes, but known to be so. */
static bool is_complete(const struct sym_type *type)
{
    Dwarf_Die die = type_of(type)->die;
    uint64_t size;
    return type_of(type)->has_die && die_unsigned(&die, DW_AT_byte_size, &size);
}

/* Is it a struct of fields with numbers, as Rust's Some(5)? */
static bool has_numbered_fields(struct sym_module *m, const struct sym_type *type,
                                size_t *count_out)
{
    struct members members;
    if (!is_record(type))
        return false;
    members_of(m, type, &members);
    *count_out = members.count;
    bool numbered = true;
    vec_each (member, &members)
        numbered &= member->name && str_starts(member->name, "__") &&
                    isdigit((unsigned char)member->name[2]);
    vec_deinit(&members);
    return numbered;
}

static bool is_rust_tuple(struct sym_module *m, const struct sym_type *type)
{
    size_t count;
    return type->name[0] == '(' && !str_starts(type->name, "(anonymous namespace)") &&
           has_numbered_fields(m, type, &count);
}

/* Rust's (1, "two"). */
static void add_fields(struct formatter *f, const struct sym_value *v, unsigned nesting)
{
    struct sym_children fields = {0};
    struct err *e = sym_value_children(f->m, v, f->ctx, 0, MAX_ELEMENTS + 1, &fields);
    buf_u8(&f->text, '(');
    buf_str(&f->text, e ? err_message(e) : "");
    for (size_t i = 0; i < fields.count; i++) {
        buf_str(&f->text, i ? ", " : "");
        if (i == MAX_ELEMENTS || f->text.len > MAX_TEXT) {
            buf_str(&f->text, "...");
            break;
        }
        add_child(f, &fields.items[i], false, nesting);
    }
    buf_u8(&f->text, ')');
    err_free(e);
    sym_children_deinit(&fields);
}

/* The one thing that a value is shown as; a variant with its name. */
static void add_alias(struct formatter *f, const struct sym_value *v, const struct container *c,
                      unsigned nesting)
{
    struct sym_value inner = {0};
    size_t count = 1;
    struct err *e = part_of(f->m, v, c->element, c->off, f->ctx, &inner);
    if (c->label)
        buf_str(&f->text, c->label);
    if (e) {
        buf_printf(&f->text, "<%s>", err_message(e));
    } else if (!c->label) {
        add_value(f, &inner, nesting);
    } else if (!has_numbered_fields(f->m, c->element, &count)) {
        buf_u8(&f->text, ' ');
        add_value(f, &inner, nesting);
    } else if (count) {
        if (nesting < MAX_NESTING)
            add_fields(f, &inner, nesting);
        else
            buf_str(&f->text, "(...)");
    }
    err_free(e);
    sym_value_deinit(&inner);
}

/* What is a container is shown as one. */
static bool add_container(struct formatter *f, const struct sym_value *v, unsigned nesting)
{
    struct container c;
    if (!container_of(f->m, v, f->ctx, &c))
        return false;
    switch (c.shape) {
    case SHAPE_TEXT:
        add_characters(f, &c);
        break;
    case SHAPE_ALIAS:
        add_alias(f, v, &c, nesting);
        break;
    case SHAPE_EMPTY:
        buf_str(&f->text, c.label);
        break;
    default:
        add_elements(f, v, &c, nesting);
        break;
    }
    return true;
}

static void add_compound(struct formatter *f, const struct sym_value *v, unsigned nesting)
{
    bool is_array = v->type->kind == SYM_ARRAY;
    struct sym_children children = {0};
    if (nesting >= MAX_NESTING) {
        buf_str(&f->text, "{...}");
        return;
    }
    size_t max = is_array ? MAX_ELEMENTS : 64;
    struct err *e = sym_value_children(f->m, v, f->ctx, 0, max + 1, &children);
    if (e) {
        buf_printf(&f->text, "<%s>", err_message(e));
        err_free(e);
        return;
    }
    buf_u8(&f->text, '{');
    for (size_t i = 0; i < children.count; i++) {
        if (i)
            buf_str(&f->text, ", ");
        if (i == max || f->text.len > MAX_TEXT) {
            buf_str(&f->text, "...");
            break;
        }
        add_child(f, &children.items[i], !is_array, nesting);
    }
    buf_u8(&f->text, '}');
    sym_children_deinit(&children);
}

static void add_array(struct formatter *f, const struct sym_value *v, unsigned nesting)
{
    if (!v->type->count && v->len == 0) {
        buf_str(&f->text, "{}"); // a flexible or variable-length array: its size is not in the type
    } else if (type_of(v->type->target)->is_char) {
        size_t len = strnlen((const char *)v->bytes, v->len < MAX_STRING ? v->len : MAX_STRING);
        add_string(&f->text, v->bytes, len, len == MAX_STRING && v->len > MAX_STRING);
    } else {
        add_compound(f, v, nesting);
    }
}

static void add_pointer(struct formatter *f, const struct sym_value *v)
{
    gaddr addr = load_u64(v->bytes);
    const struct sym_type *target = v->type->target;
    buf_printf(&f->text, "0x%" PRIx64, addr);
    if (!target || !addr || !f->ctx)
        return;
    if (type_of(target)->is_char) {
        add_pointed_string(&f->text, f->ctx, addr);
    } else if (target->kind == SYM_FUNCTION_TYPE) {
        const struct sym_function *fn;
        struct err *e = sym_function_at(f->m, addr - f->ctx->bias, &fn);
        if (!e)
            buf_printf(&f->text, " <%s>", fn->name);
        err_free(e);
    }
}

static void add_reference(struct formatter *f, const struct sym_value *v, unsigned nesting)
{
    gaddr addr = load_u64(v->bytes);
    struct sym_value target = {0};
    buf_printf(&f->text, "@0x%" PRIx64, addr);
    if (!v->type->target || !f->ctx || nesting >= MAX_NESTING)
        return;
    struct err *e = sym_read_at(f->m, v->type->target, addr, f->ctx, &target);
    if (e) {
        buf_printf(&f->text, ": <%s>", err_message(e));
        err_free(e);
        return;
    }
    buf_str(&f->text, ": ");
    add_value(f, &target, nesting + 1);
    sym_value_deinit(&target);
}

static void add_scalar(struct formatter *f, const struct sym_value *v, unsigned nesting)
{
    struct buf *b = &f->text;
    bool is_signed = v->type->kind == SYM_INT;
    switch (v->type->kind) {
    case SYM_BOOL:
        if (v->bytes[0] > 1)
            buf_printf(b, "%u", v->bytes[0]);
        else
            buf_str(b, v->bytes[0] ? "true" : "false");
        break;
    case SYM_INT:
    case SYM_UINT:
        if (v->len == 16)
            add_wide(b, v->bytes, is_signed);
        else if (is_signed)
            buf_printf(b, "%" PRId64, load_integer(v->bytes, v->len, true));
        else
            buf_printf(b, "%" PRIu64, (uint64_t)load_integer(v->bytes, v->len, false));
        break;
    case SYM_CHAR:
        add_character(b, v->type, v->bytes);
        break;
    case SYM_FLOAT:
        add_float(b, v->bytes, v->len);
        break;
    case SYM_COMPLEX:
        add_float(b, v->bytes, v->len / 2);
        buf_str(b, " + ");
        add_float(b, v->bytes + v->len / 2, v->len / 2);
        buf_u8(b, 'i');
        break;
    case SYM_ENUM:
        add_enum(b, v->type, v->bytes);
        break;
    case SYM_REFERENCE:
        add_reference(f, v, nesting);
        break;
    case SYM_POINTER:
        add_pointer(f, v);
        break;
    default: // pointers to members, and what we do not know
        buf_str(b, "0x");
        for (size_t i = v->len < 16 ? v->len : 16; i-- > 0;)
            buf_printf(b, "%02x", v->bytes[i]);
        break;
    }
}

static void add_value(struct formatter *f, const struct sym_value *v, unsigned nesting)
{
    static const struct {
        enum sym_type_kind kind;
        size_t min_len;
    } least[] = {{SYM_POINTER, 8}, {SYM_REFERENCE, 8}};
    for (size_t i = 0; i < sizeof(least) / sizeof(*least); i++)
        if (v->type->kind == least[i].kind && v->len < least[i].min_len) {
            buf_str(&f->text, "<bad pointer size>");
            return;
        }
    switch (v->type->kind) {
    case SYM_VOID:
        buf_str(&f->text, "void");
        break;
    case SYM_STRUCT:
    case SYM_CLASS:
    case SYM_UNION:
        if (add_container(f, v, nesting))
            break;
        if (is_rust_tuple(f->m, v->type) && nesting < MAX_NESTING)
            add_fields(f, v, nesting);
        else if (v->len || v->type->size)
            add_compound(f, v, nesting);
        else
            buf_str(&f->text, is_complete(v->type) ? "{}" : "<incomplete type>");
        break;
    case SYM_ARRAY:
        add_array(f, v, nesting);
        break;
    default:
        if (v->len)
            add_scalar(f, v, nesting);
        else
            buf_str(&f->text, "<unknown size>");
        break;
    }
}

struct err *sym_format_value(struct sym_module *m, const struct sym_value *value,
                             struct sym_context *ctx, char **text_out)
{
    HOLD(m);
    struct formatter f = {.m = m, .ctx = ctx};
    add_value(&f, value, 0);
    *text_out = buf_steal_str(&f.text);
    return NULL;
}
