/* The register file: names of its parts, and their values in the user registers. */
#include "x86/x86_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names64[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"};
static const char *const names32[] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};
static const char *const names16[] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
static const char *const names8[] = {"al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"};
static const char *const names_high[] = {"ah", "ch", "dh", "bh"};
static const char *const flag_names[] = {"cf", "pf", "af", "zf", "sf", "df", "of", "flags"};

static const uint8_t uregs[] = {UREG_RAX, UREG_RCX, UREG_RDX, UREG_RBX, UREG_RSP, UREG_RBP,
                                UREG_RSI, UREG_RDI, UREG_R8,  UREG_R9,  UREG_R10, UREG_R11,
                                UREG_R12, UREG_R13, UREG_R14, UREG_R15};
static const uint8_t flag_bits[] = {0, 2, 4, 6, 7, 10, 11};

uint64_t x86_gpr(const struct regs *regs, unsigned number)
{
    return regs->r[uregs[number]];
}

bool x86_read_regs(const struct regs *regs, unsigned start, unsigned len, uint8_t *out)
{
    for (unsigned i = 0; i < len; i++) {
        unsigned at = start + i, shift = at % 8 * 8;
        if (at < X86_RIP)
            out[i] = (uint8_t)(regs->r[uregs[at / 8]] >> shift);
        else if (at < X86_FS_BASE)
            out[i] = (uint8_t)(regs->r[UREG_RIP] >> shift);
        else if (at < X86_FLAGS)
            out[i] = (uint8_t)(regs->r[at < X86_GS_BASE ? UREG_FS_BASE : UREG_GS_BASE] >> shift);
        else if (at < X86_FLAGS + X86_OTHER_FLAGS)
            out[i] = regs->r[UREG_EFLAGS] >> flag_bits[at - X86_FLAGS] & 1;
        else
            return false;
    }
    return true;
}

/* A whole register's name, or NULL. */
static const char *name_of(unsigned start, unsigned len, char *out, size_t out_len)
{
    unsigned number = start / 8, off = start % 8;
    if (start < X86_RIP) {
        if (number >= 8 && off == 0) {
            static const char *const suffixes[] = {"b", "w", "", "d"};
            if (len == 1 || len == 2 || len == 4 || len == 8) {
                snprintf(out, out_len, "r%u%s", number,
                         len == 8 ? "" : suffixes[len == 4 ? 3 : len - 1]);
                return out;
            }
            return NULL;
        }
        if (off == 1 && len == 1 && number < 4)
            return names_high[number];
        if (off || number >= 8)
            return NULL;
        return len == 8   ? names64[number]
               : len == 4 ? names32[number]
               : len == 2 ? names16[number]
               : len == 1 ? names8[number]
                          : NULL;
    }
    if (start == X86_RIP && len == 8)
        return "rip";
    if (start == X86_FS_BASE && len == 8)
        return "fs_base";
    if (start == X86_GS_BASE && len == 8)
        return "gs_base";
    if (start >= X86_FLAGS && start < X86_VECTOR)
        return len == 1                                      ? flag_names[start - X86_FLAGS]
               : start == X86_FLAGS && len == X86_FLAG_COUNT ? "flags"
                                                             : NULL;
    if (start >= X86_VECTOR && start < X86_MASK && (start - X86_VECTOR) % 64 == 0 &&
        (len == 16 || len == 32 || len == 64)) {
        snprintf(out, out_len, "%cmm%u",
                 len == 16   ? 'x'
                 : len == 32 ? 'y'
                             : 'z',
                 (start - X86_VECTOR) / 64);
        return out;
    }
    if (start >= X86_MASK && start < X86_X87 && (start - X86_MASK) % 8 == 0 && len == 8) {
        snprintf(out, out_len, "k%u", (start - X86_MASK) / 8);
        return out;
    }
    if (start >= X86_X87 && start < X86_MXCSR && (start - X86_X87) % 10 == 0 &&
        (len == 8 || len == 10)) {
        snprintf(out, out_len, "mm%u", (start - X86_X87) / 10);
        return out;
    }
    if (start == X86_X87 && len == 80)
        return "x87";
    if (start == X86_MXCSR && len == 4)
        return "mxcsr";
    if (start == X86_CONTROL && len == X86_REGISTER_BYTES - X86_CONTROL)
        return "control";
    return NULL;
}

/* The register that a byte is in. */
static struct x86_span whole(unsigned start)
{
    if (start < X86_FLAGS)
        return (struct x86_span){(uint16_t)(start & ~7u), 8};
    if (start < X86_VECTOR)
        return (struct x86_span){X86_FLAGS, X86_FLAG_COUNT};
    if (start < X86_MASK)
        return (struct x86_span){(uint16_t)(start - (start - X86_VECTOR) % 64), 64};
    if (start < X86_X87)
        return (struct x86_span){(uint16_t)(start - (start - X86_MASK) % 8), 8};
    if (start < X86_MXCSR)
        return (struct x86_span){(uint16_t)(start - (start - X86_X87) % 10), 10};
    if (start < X86_CONTROL)
        return (struct x86_span){X86_MXCSR, 4};
    return (struct x86_span){X86_CONTROL, X86_REGISTER_BYTES - X86_CONTROL};
}

const char *x86_register_name(unsigned start, unsigned len, char *out, size_t out_len)
{
    char text[16];
    const char *name = name_of(start, len, text, sizeof(text));
    if (name) {
        snprintf(out, out_len, "%s", name);
        return out;
    }
    struct x86_span w = whole(start);
    unsigned from = start - w.start;
    if (w.len == 64 && from + len <= 32) // the shortest name that holds it
        w.len = from + len <= 16 ? 16 : 32;
    name = name_of(w.start, w.len, text, sizeof(text));
    snprintf(out, out_len, "%s[%u..%u)", name ? name : "?", from, from + len);
    return out;
}

static bool numbered(const char *name, const char *prefix, unsigned count, unsigned *out)
{
    size_t n = strlen(prefix);
    char *end;
    if (strncmp(name, prefix, n) != 0 || name[n] < '0' || name[n] > '9' ||
        (name[n] == '0' && name[n + 1]))
        return false;
    unsigned long v = strtoul(name + n, &end, 10);
    *out = (unsigned)v;
    return v < count && !*end;
}

bool x86_register_by_name(const char *name, struct x86_span *out)
{
    static const unsigned lens[] = {8, 4, 2, 1};
    char text[16];
    for (unsigned number = 0; number < 16; number++) {
        for (unsigned k = 0; k < 4; k++) {
            const char *n = name_of(8 * number, lens[k], text, sizeof(text));
            if (n && strcmp(n, name) == 0) {
                *out = (struct x86_span){(uint16_t)(8 * number), (uint16_t)lens[k]};
                return true;
            }
        }
        if (number < 4 && strcmp(names_high[number], name) == 0) {
            *out = (struct x86_span){(uint16_t)(8 * number + 1), 1};
            return true;
        }
    }
    for (unsigned i = 0; i < X86_OTHER_FLAGS; i++) {
        if (strcmp(flag_names[i], name) == 0) {
            *out = (struct x86_span){(uint16_t)(X86_FLAGS + i), 1};
            return true;
        }
    }
    unsigned n;
    if (numbered(name, "xmm", 32, &n))
        *out = (struct x86_span){(uint16_t)(X86_VECTOR + 64 * n), 16};
    else if (numbered(name, "ymm", 32, &n))
        *out = (struct x86_span){(uint16_t)(X86_VECTOR + 64 * n), 32};
    else if (numbered(name, "zmm", 32, &n))
        *out = (struct x86_span){(uint16_t)(X86_VECTOR + 64 * n), 64};
    else if (numbered(name, "k", 8, &n))
        *out = (struct x86_span){(uint16_t)(X86_MASK + 8 * n), 8};
    else if (numbered(name, "mm", 8, &n))
        *out = (struct x86_span){(uint16_t)(X86_X87 + 10 * n), 8};
    else if (strcmp(name, "fs_base") == 0)
        *out = (struct x86_span){X86_FS_BASE, 8};
    else if (strcmp(name, "gs_base") == 0)
        *out = (struct x86_span){X86_GS_BASE, 8};
    else
        return false;
    return true;
}
