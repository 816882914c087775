/* Emitting x86-64 machine code (SDM 2A, chapter 2). Addresses of the state page are below 2 GiB and
 * are encoded as absolute disp32 (ModRM 00 reg 100, SIB 0x25). */
#ifndef WORKER_EMIT_H
#define WORKER_EMIT_H

#include "base/types.h"

#include <stdbool.h>
#include <stddef.h>

struct emitter {
    uint8_t *at;
    uint8_t *limit;
    bool full;
};

static inline void emit8(struct emitter *e, uint8_t v)
{
    if (e->at >= e->limit) {
        e->full = true;
        return;
    }
    *e->at++ = v;
}

static inline void emit32(struct emitter *e, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        emit8(e, (uint8_t)(v >> 8 * i));
}

static inline void emit64(struct emitter *e, uint64_t v)
{
    emit32(e, (uint32_t)v);
    emit32(e, (uint32_t)(v >> 32));
}

static inline void emit_bytes(struct emitter *e, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        emit8(e, p[i]);
}

/* opcode with a 64-bit register and an absolute address: REX.W [+R] opcode modrm sib disp32 */
static inline void emit_abs(struct emitter *e, uint8_t opcode, unsigned reg, const void *address)
{
    emit8(e, (uint8_t)(0x48 | (reg >= 8 ? 4 : 0)));
    emit8(e, opcode);
    emit8(e, (uint8_t)(0x04 | (reg & 7) << 3));
    emit8(e, 0x25);
    emit32(e, (uint32_t)(uintptr_t)address);
}

static inline void emit_load(struct emitter *e, unsigned reg,
                             const void *address) /* mov reg, [address] */
{
    emit_abs(e, 0x8b, reg, address);
}

static inline void emit_store(struct emitter *e, const void *address,
                              unsigned reg) /* mov [address], reg */
{
    emit_abs(e, 0x89, reg, address);
}

static inline void emit_store_imm(struct emitter *e, const void *address,
                                  uint32_t v) /* mov dword [address], v */
{
    emit8(e, 0xc7);
    emit8(e, 0x04);
    emit8(e, 0x25);
    emit32(e, (uint32_t)(uintptr_t)address);
    emit32(e, v);
}

static inline void emit_jmp_abs(struct emitter *e, const void *address) /* jmp [address] */
{
    emit8(e, 0xff);
    emit8(e, 0x24);
    emit8(e, 0x25);
    emit32(e, (uint32_t)(uintptr_t)address);
}

static inline void emit_imm64(struct emitter *e, unsigned reg, uint64_t v) /* mov reg, v */
{
    if (v <= UINT32_MAX) {
        if (reg >= 8)
            emit8(e, 0x41);
        emit8(e, (uint8_t)(0xb8 | (reg & 7)));
        emit32(e, (uint32_t)v);
        return;
    }
    emit8(e, (uint8_t)(0x48 | (reg >= 8 ? 1 : 0)));
    emit8(e, (uint8_t)(0xb8 | (reg & 7)));
    emit64(e, v);
}

/* Stores the 32-bit distance from behind `field` to `target` in `field`. */
static inline void patch_rel32(uint8_t *field, const uint8_t *target)
{
    int32_t rel = (int32_t)(target - (field + 4));
    __builtin_memcpy(field, &rel, 4);
}

/* jmp/jcc rel32 with the distance still unknown; returns the field to patch. */
static inline uint8_t *emit_jmp(struct emitter *e)
{
    emit8(e, 0xe9);
    emit32(e, 0);
    return e->at - 4;
}

static inline uint8_t *emit_jcc(struct emitter *e, uint8_t condition)
{
    emit8(e, 0x0f);
    emit8(e, (uint8_t)(0x80 | condition));
    emit32(e, 0);
    return e->at - 4;
}

/* opcode with register and memory operand [base + index * scale + disp]; base and index may be
 * NO_REG. rex: its W bit. */
enum { NO_REG = 0xff };
static inline void emit_mem(struct emitter *e, uint8_t rex, uint8_t opcode, unsigned reg,
                            unsigned base, unsigned index, unsigned scale, int32_t disp)
{
    rex = (uint8_t)(rex | (reg >= 8 ? 4 : 0) | (index != NO_REG && index >= 8 ? 2 : 0) |
                    (base != NO_REG && base >= 8 ? 1 : 0));
    if (rex)
        emit8(e, (uint8_t)(0x40 | rex));
    emit8(e, opcode);
    unsigned log2 = scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
    bool needs_sib = base == NO_REG || index != NO_REG ||
                     (base & 7) == 4; // RSP and R12 as bases have no other form
    // Without a base the displacement has 32 bits; with RBP or R13 there is no form without one.
    bool narrow = base != NO_REG && disp == (int8_t)disp,
         none = narrow && disp == 0 && (base & 7) != 5;
    unsigned mod = base == NO_REG || none ? 0 : narrow ? 1 : 2;
    emit8(e, (uint8_t)(mod << 6 | (reg & 7) << 3 | (needs_sib ? 4 : base & 7)));
    if (needs_sib)
        emit8(e, (uint8_t)(log2 << 6 | (index == NO_REG ? 4 : index & 7) << 3 |
                           (base == NO_REG ? 5 : base & 7)));
    if (none)
        return;
    if (narrow)
        emit8(e, (uint8_t)disp);
    else
        emit32(e, (uint32_t)disp);
}

#endif
