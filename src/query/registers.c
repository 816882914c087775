/* Registers by their names: the query, and where each has its bytes. */
#include "query/registers.h"

#include "query/query_int.h"
#include "x86/xstate.h"

#include <stdio.h>

enum { XMM_OFFSET = 160, ST_OFFSET = 32, VECTORS = 16 };

static const struct {
    const char *name;
    uint8_t idx; /* enum reg */
    bool few;    /* few ask for it */
} general[] = {
    {"rip", UREG_RIP, false},
    {"rax", UREG_RAX, false},
    {"rbx", UREG_RBX, false},
    {"rcx", UREG_RCX, false},
    {"rdx", UREG_RDX, false},
    {"rsi", UREG_RSI, false},
    {"rdi", UREG_RDI, false},
    {"rbp", UREG_RBP, false},
    {"rsp", UREG_RSP, false},
    {"r8", UREG_R8, false},
    {"r9", UREG_R9, false},
    {"r10", UREG_R10, false},
    {"r11", UREG_R11, false},
    {"r12", UREG_R12, false},
    {"r13", UREG_R13, false},
    {"r14", UREG_R14, false},
    {"r15", UREG_R15, false},
    {"eflags", UREG_EFLAGS, false},
    {"fs_base", UREG_FS_BASE, false},
    {"gs_base", UREG_GS_BASE, false},
    {"orig_rax", UREG_ORIG_RAX, true},
    {"cs", UREG_CS, true},
    {"ss", UREG_SS, true},
    {"ds", UREG_DS, true},
    {"es", UREG_ES, true},
    {"fs", UREG_FS, true},
    {"gs", UREG_GS, true},
};

/* Of an XSAVE image (SDM 1, 10.5.1). */
static const struct {
    const char *name;
    uint8_t offset, len;
} control[] = {{"fcw", 0, 2}, {"fsw", 2, 2},  {"ftw", 4, 1},   {"fop", 6, 2},
               {"fip", 8, 8}, {"fdp", 16, 8}, {"mxcsr", 24, 4}};

static void add_value(json_t *rows, const char *name, json_t *value)
{
    json_array_append_new(rows, json_pack("{ss, so}", "name", name, "value", value));
}

static void add_general(json_t *rows, const struct regs *regs, bool few)
{
    for (size_t i = 0; i < ARRAY_COUNT(general); i++) {
        if (general[i].few == few)
            add_value(rows, general[i].name, json_hex(regs->r[general[i].idx]));
    }
}

/* Segments, the x87 unit, and vector registers with their upper halves (SDM 1, 13.4). */
static void add_others(json_t *rows, const struct regs *regs, const struct xstate *x)
{
    add_general(rows, regs, true);
    for (size_t i = 0; i < ARRAY_COUNT(control); i++) {
        uint64_t v = 0;
        memcpy(&v, x->data + control[i].offset, control[i].len);
        add_value(rows, control[i].name, json_hex(v));
    }
    char name[8];
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof(name), "st%d", i);
        add_value(rows, name, json_bytes(x->data + ST_OFFSET + 16 * i, 10));
    }
    uint32_t high = xstate_offset(XSTATE_AVX);
    for (int i = 0; high && high + 256 <= x->len && i < VECTORS; i++) {
        uint8_t value[32];
        memcpy(value, x->data + XMM_OFFSET + 16 * i, 16);
        memcpy(value + 16, x->data + high + 16 * i, 16);
        snprintf(name, sizeof(name), "ymm%d", i);
        add_value(rows, name, json_bytes(value, sizeof(value)));
    }
}

json_t *registers_rows(const struct regs *regs, const struct xstate *x, bool all)
{
    json_t *rows = json_array();
    add_general(rows, regs, false);
    for (int i = 0; i < VECTORS; i++) {
        char name[8];
        snprintf(name, sizeof(name), "xmm%d", i);
        add_value(rows, name, json_bytes(x->data + XMM_OFFSET + 16 * i, 16));
    }
    if (all)
        add_others(rows, regs, x);
    return rows;
}

struct err *query_registers(struct query_engine *q, json_t *params)
{
    struct focus f;
    struct replay *r;
    uint32_t space;
    struct regs regs;
    struct xstate x;
    TRY(focus_state(q, params, &f, &r, &space));
    TRY(replay_regs(r, f.task, &regs));
    TRY(replay_xstate(r, f.task, &x));
    json_t *rows = registers_rows(&regs, &x, json_is_true(json_object_get(params, "all")));
    struct err *e = NULL;
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        if (!e)
            e = give(q, json_incref(row));
    }
    json_decref(rows);
    return e;
}

/* --- changing them --- */

/* Components of an image count only where their bits say that they are in use (SDM 1, 13.4.2). */
static bool put_state(struct xstate *x, unsigned component, size_t at, const void *data, size_t len)
{
    enum { HEADER = 512 };
    uint64_t used;
    if (at > x->len || len > x->len - at)
        return false;
    memcpy(&used, x->data + HEADER, sizeof(used));
    used |= 1ull << component;
    memcpy(x->data + HEADER, &used, sizeof(used));
    memcpy(x->data + at, data, len);
    return true;
}

/* "NAME<number>", below count. */
static bool numbered(const char *name, const char *prefix, unsigned count, unsigned *out)
{
    char *end;
    size_t len = strlen(prefix);
    if (!str_starts(name, prefix) || name[len] < '0' || name[len] > '9')
        return false;
    *out = (unsigned)strtoul(name + len, &end, 10);
    return !*end && *out < count;
}

static bool set_vector(struct xstate *x, unsigned number, size_t offset, const void *data,
                       size_t len)
{
    uint32_t high = xstate_offset(XSTATE_AVX);
    size_t low = offset < 16 ? (len < 16 - offset ? len : 16 - offset) : 0;
    if (low && !put_state(x, XSTATE_SSE, XMM_OFFSET + 16 * number + offset, data, low))
        return false;
    return low == len || (high && put_state(x, XSTATE_AVX, high + 16 * number + offset + low - 16,
                                            (const uint8_t *)data + low, len - low));
}

bool registers_set(struct regs *regs, struct xstate *x, const char *name, size_t offset,
                   const void *data, size_t len)
{
    unsigned number;
    for (size_t i = 0; i < ARRAY_COUNT(general); i++) {
        if (!str_eq(general[i].name, name))
            continue;
        uint64_t *value = &regs->r[general[i].idx], was = *value;
        if (offset > sizeof(*value) || len > sizeof(*value) - offset)
            return false;
        memcpy((uint8_t *)value + offset, data, len);
        bool segment = general[i].few && general[i].idx != UREG_ORIG_RAX;
        return !segment || *value == was; // what other segments would mean is the kernel's business
    }
    for (size_t i = 0; i < ARRAY_COUNT(control); i++) {
        if (!str_eq(control[i].name, name))
            continue;
        size_t most = control[i].len > offset ? control[i].len - offset : 0;
        return put_state(x, str_eq(name, "mxcsr") ? XSTATE_SSE : XSTATE_X87,
                         control[i].offset + offset, data, len < most ? len : most);
    }
    if (numbered(name, "st", 8, &number))
        return offset + len <= 10 &&
               put_state(x, XSTATE_X87, ST_OFFSET + 16 * number + offset, data, len);
    if (numbered(name, "xmm", VECTORS, &number))
        return offset + len <= 16 && set_vector(x, number, offset, data, len);
    return numbered(name, "ymm", VECTORS, &number) && offset + len <= 32 &&
           set_vector(x, number, offset, data, len);
}
