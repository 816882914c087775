/* One table makes the target description and the packet, so that they agree. Features and names are
 * gdb's standard ones
 * ("Debugging with GDB", G.5.17 i386 Features), within each in the order that they have there. */
#include "gdbstub/registers.h"

/* count: so many registers of one shape, numbered from 0, as "%d" in both names. offset: where the
 * value is within the query's. */
struct shape {
    const char *feature, *name, *type;
    unsigned bits, count;
    const char *from; /* the query's name */
    unsigned offset;
};

#define CORE     "org.gnu.gdb.i386.core"
#define SSE      "org.gnu.gdb.i386.sse"
#define LINUX    "org.gnu.gdb.i386.linux"
#define SEGMENTS "org.gnu.gdb.i386.segments"
#define AVX      "org.gnu.gdb.i386.avx"

static const struct shape shapes[] = {
    {CORE, "rax", "int64", 64, 1, "rax", 0},
    {CORE, "rbx", "int64", 64, 1, "rbx", 0},
    {CORE, "rcx", "int64", 64, 1, "rcx", 0},
    {CORE, "rdx", "int64", 64, 1, "rdx", 0},
    {CORE, "rsi", "int64", 64, 1, "rsi", 0},
    {CORE, "rdi", "int64", 64, 1, "rdi", 0},
    {CORE, "rbp", "data_ptr", 64, 1, "rbp", 0},
    {CORE, "rsp", "data_ptr", 64, 1, "rsp", 0},
    {CORE, "r8", "int64", 64, 1, "r8", 0},
    {CORE, "r9", "int64", 64, 1, "r9", 0},
    {CORE, "r10", "int64", 64, 1, "r10", 0},
    {CORE, "r11", "int64", 64, 1, "r11", 0},
    {CORE, "r12", "int64", 64, 1, "r12", 0},
    {CORE, "r13", "int64", 64, 1, "r13", 0},
    {CORE, "r14", "int64", 64, 1, "r14", 0},
    {CORE, "r15", "int64", 64, 1, "r15", 0},
    {CORE, "rip", "code_ptr", 64, 1, "rip", 0},
    {CORE, "eflags", "i386_eflags", 32, 1, "eflags", 0},
    {CORE, "cs", "int32", 32, 1, "cs", 0},
    {CORE, "ss", "int32", 32, 1, "ss", 0},
    {CORE, "ds", "int32", 32, 1, "ds", 0},
    {CORE, "es", "int32", 32, 1, "es", 0},
    {CORE, "fs", "int32", 32, 1, "fs", 0},
    {CORE, "gs", "int32", 32, 1, "gs", 0},
    {CORE, "st%d", "i387_ext", 80, 8, "st%d", 0},
    {CORE, "fctrl", "int", 32, 1, "fcw", 0},
    {CORE, "fstat", "int", 32, 1, "fsw", 0},
    {CORE, "ftag", "int", 32, 1, "ftw", 0},
    {CORE, "fiseg", "int", 32, 1, "fip", 4},
    {CORE, "fioff", "int", 32, 1, "fip", 0},
    {CORE, "foseg", "int", 32, 1, "fdp", 4},
    {CORE, "fooff", "int", 32, 1, "fdp", 0},
    {CORE, "fop", "int", 32, 1, "fop", 0},
    {SSE, "xmm%d", "vec128", 128, 16, "xmm%d", 0},
    {SSE, "mxcsr", "i386_mxcsr", 32, 1, "mxcsr", 0},
    {LINUX, "orig_rax", "int", 64, 1, "orig_rax", 0},
    {SEGMENTS, "fs_base", "int", 64, 1, "fs_base", 0},
    {SEGMENTS, "gs_base", "int", 64, 1, "gs_base", 0},
    {AVX, "ymm%dh", "uint128", 128, 16, "ymm%d", 16},
};

/* The types that the names above stand for, per feature. */
static const struct {
    const char *feature, *types;
} definitions[] = {
    {CORE,
     "<flags id=\"i386_eflags\" size=\"4\"><field name=\"CF\" start=\"0\" end=\"0\"/><field "
     "name=\"\" start=\"1\" end=\"1\"/>"
     "<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/><field "
     "name=\"ZF\" start=\"6\" end=\"6\"/>"
     "<field name=\"SF\" start=\"7\" end=\"7\"/><field name=\"TF\" start=\"8\" end=\"8\"/><field "
     "name=\"IF\" start=\"9\" end=\"9\"/>"
     "<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/>"
     "<field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" start=\"16\" end=\"16\"/>"
     "<field name=\"VM\" start=\"17\" end=\"17\"/><field name=\"AC\" start=\"18\" end=\"18\"/>"
     "<field name=\"VIF\" start=\"19\" end=\"19\"/><field name=\"VIP\" start=\"20\" end=\"20\"/>"
     "<field name=\"ID\" start=\"21\" end=\"21\"/></flags>"},
    {SSE,
     "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" "
     "count=\"2\"/>"
     "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" "
     "count=\"8\"/>"
     "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" "
     "count=\"2\"/>"
     "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" "
     "type=\"v2d\"/>"
     "<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/><field "
     "name=\"v4_int32\" type=\"v4i32\"/>"
     "<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>"
     "<flags id=\"i386_mxcsr\" size=\"4\"><field name=\"IE\" start=\"0\" end=\"0\"/><field "
     "name=\"DE\" start=\"1\" end=\"1\"/>"
     "<field name=\"ZE\" start=\"2\" end=\"2\"/><field name=\"OE\" start=\"3\" end=\"3\"/><field "
     "name=\"UE\" start=\"4\" end=\"4\"/>"
     "<field name=\"PE\" start=\"5\" end=\"5\"/><field name=\"DAZ\" start=\"6\" end=\"6\"/><field "
     "name=\"IM\" start=\"7\" end=\"7\"/>"
     "<field name=\"DM\" start=\"8\" end=\"8\"/><field name=\"ZM\" start=\"9\" end=\"9\"/><field "
     "name=\"OM\" start=\"10\" end=\"10\"/>"
     "<field name=\"UM\" start=\"11\" end=\"11\"/><field name=\"PM\" start=\"12\" "
     "end=\"12\"/><field name=\"FZ\" start=\"15\" end=\"15\"/>"
     "</flags>"},
};

enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

static void numbered(char *out, size_t len, const char *name, unsigned i)
{
    const char *mark = strstr(name, "%d");
    if (mark)
        snprintf(out, len, "%.*s%u%s", (int)(mark - name), name, i, mark + 2);
    else
        snprintf(out, len, "%s", name);
}

char *registers_description(void)
{
    struct buf b = {0};
    buf_str(&b, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM "
                "\"gdb-target.dtd\"><target><architecture>i386:x86-64</architecture>"
                "<osabi>GNU/Linux</osabi>");
    const char *feature = NULL;
    for (unsigned s = 0; s < SHAPES; s++) {
        const struct shape *shape = &shapes[s];
        if (!feature || !str_eq(feature, shape->feature)) {
            buf_printf(&b, "%s<feature name=\"%s\">", feature ? "</feature>" : "", shape->feature);
            feature = shape->feature;
            for (size_t d = 0; d < sizeof(definitions) / sizeof(definitions[0]); d++) {
                if (str_eq(definitions[d].feature, feature))
                    buf_str(&b, definitions[d].types);
            }
        }
        for (unsigned i = 0; i < shape->count; i++) {
            char name[16];
            numbered(name, sizeof(name), shape->name, i);
            buf_printf(&b, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"/>", name, shape->bits,
                       shape->type);
        }
    }
    buf_str(&b, "</feature></target>");
    return buf_steal_str(&b);
}

/* The tag word of the x87 unit in full (SDM 1, 8.1.7), of which an XSAVE image tells only which
 * registers are empty. */
static uint16_t full_tags(uint8_t abridged, unsigned top, const struct known_register *st[8])
{
    uint16_t tags = 0;
    for (unsigned physical = 0; physical < 8; physical++) {
        unsigned tag = 3; // empty
        const struct known_register *r = st[(physical - top) & 7];
        if (abridged >> physical & 1 && r && r->len >= 10) {
            uint64_t mantissa;
            uint16_t exponent;
            memcpy(&mantissa, r->value, 8);
            memcpy(&exponent, r->value + 8, 2);
            exponent &= 0x7fff;
            tag = !exponent && !mantissa                                 ? 1
                  : !exponent || exponent == 0x7fff || !(mantissa >> 63) ? 2
                                                                         : 0;
        }
        tags |= (uint16_t)(tag << (2 * physical));
    }
    return tags;
}

static const struct known_register *find(const struct known_register *known, size_t count,
                                         const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (str_eq(known[i].name, name))
            return &known[i];
    }
    return NULL;
}

/* gdb has the tag word in full. */
static bool tag_word(const struct known_register *known, size_t count, struct known_register *out)
{
    const struct known_register *st[8], *ftw = find(known, count, "ftw"),
                                        *fsw = find(known, count, "fsw");
    for (unsigned i = 0; i < 8; i++) {
        char name[8];
        numbered(name, sizeof(name), "st%d", i);
        st[i] = find(known, count, name);
    }
    if (!ftw || !fsw)
        return false;
    uint16_t tags = full_tags(ftw->value[0], fsw->value[1] >> 3 & 7, st);
    *out = (struct known_register){.name = "ftw", .len = 4};
    memcpy(out->value, &tags, sizeof(tags));
    return true;
}

void registers_packet(const struct known_register *known, size_t count, struct buf *out)
{
    for (unsigned s = 0; s < SHAPES; s++) {
        for (unsigned i = 0; i < shapes[s].count; i++) {
            char name[16];
            numbered(name, sizeof(name), shapes[s].from, i);
            const struct known_register *r = find(known, count, name);
            struct known_register tags;
            if (r && str_eq(name, "ftw") && tag_word(known, count, &tags))
                r = &tags;
            for (unsigned byte = 0; byte < shapes[s].bits / 8; byte++) {
                if (r && shapes[s].offset < r->len)
                    buf_printf(out, "%02x",
                               shapes[s].offset + byte < r->len ? r->value[shapes[s].offset + byte]
                                                                : 0);
                else
                    buf_str(out, "xx");
            }
        }
    }
}

bool registers_find(uint64_t number, size_t *at_out, size_t *digits_out)
{
    size_t at = 0;
    for (unsigned s = 0; s < SHAPES; s++) {
        size_t digits = shapes[s].bits / 4;
        if (number < shapes[s].count) {
            *at_out = at + number * digits;
            *digits_out = digits;
            return true;
        }
        number -= shapes[s].count;
        at += shapes[s].count * digits;
    }
    return false;
}

bool registers_part(uint64_t number, char name[16], size_t *offset_out, size_t *len_out)
{
    for (unsigned s = 0; s < SHAPES; s++) {
        if (number < shapes[s].count) {
            numbered(name, 16, shapes[s].from, (unsigned)number);
            *offset_out = shapes[s].offset;
            *len_out = shapes[s].bits / 8;
            return true;
        }
        number -= shapes[s].count;
    }
    return false;
}

uint8_t registers_abridge_tags(uint16_t tags)
{
    uint8_t known = 0;
    for (unsigned i = 0; i < 8; i++)
        known |= (uint8_t)(((tags >> (2 * i) & 3) != 3) << i);
    return known;
}
