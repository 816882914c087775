/* Unwinding one frame by .eh_frame or .debug_frame. DWARF 5 section 6.4. */
#include "sym/sym_int.h"

static void load_cfi(struct sym_module *m)
{
    if (m->cfi_loaded)
        return;
    m->cfi_loaded = true;
    m->eh_frame = dwarf_getcfi_elf(m->elf);
    load_dwarf(m);
    if (m->dwarf)
        m->debug_frame = dwarf_getcfi(m->dwarf);
}

struct err *find_unwind_rules(struct frame *f, Dwarf_Frame **out)
{
    struct sym_module *m = f->m;
    load_cfi(m);
    if (m->eh_frame && dwarf_cfi_addrframe(m->eh_frame, f->addr, out) == 0)
        return NULL;
    if (m->debug_frame && dwarf_cfi_addrframe(m->debug_frame, f->addr, out) == 0)
        return NULL;
    return err_new(ERR_NOT_FOUND, "%s: no unwind information at 0x%jx", m->path,
                   (uintmax_t)f->addr);
}

static struct err *cfa_by(struct frame *f, Dwarf_Frame *rules, gaddr *out)
{
    Dwarf_Op *ops;
    size_t count;
    if (dwarf_frame_cfa(rules, &ops, &count) != 0 || count == 0)
        return err_dwarf(f->m, "unwind information");
    struct frame plain = *f;
    plain.function = NULL;
    // A CFA cannot be defined by itself; 0 keeps such an expression from recursing.
    plain.has_cfa = true;
    plain.cfa = 0;
    return location_evaluate_number(&plain, NULL, ops, count, NULL, out);
}

struct err *frame_cfa(struct frame *f, gaddr *out)
{
    if (f->has_cfa) {
        *out = f->cfa;
        return NULL;
    }
    cleanup(freep) Dwarf_Frame *rules = NULL;
    TRY(find_unwind_rules(f, &rules));
    TRY(cfa_by(f, rules, out));
    f->has_cfa = true;
    f->cfa = *out;
    return NULL;
}

/* The caller's value of one register. ERR_NOT_FOUND: not preserved. */
static struct err *caller_register(struct frame *f, Dwarf_Frame *rules, int reg, uint64_t *out)
{
    Dwarf_Op memory[3], *ops;
    size_t count;
    if (dwarf_frame_register(rules, reg, memory, &ops, &count) != 0)
        return err_dwarf(f->m, "unwind information");
    if (count == 0 && ops == NULL) // same value
        return read_word(f->ctx, (unsigned)reg, out);
    if (count == 0)
        return err_new(ERR_NOT_FOUND, "register %d is not preserved", reg);
    struct pieces pieces;
    TRY(location_evaluate(f, NULL, ops, count, NULL, &pieces));
    struct piece p = pieces.items[0];
    vec_deinit(&pieces);
    if (p.is_missing || p.bits)
        return err_new(ERR_FORMAT, "%s: bad unwind rule", f->m->path);
    switch (p.location.kind) {
    case LOCATION_MEMORY:
        return f->ctx->read_memory(f->ctx, p.location.value, out, sizeof(*out));
    case LOCATION_REGISTER:
        return read_word(f->ctx, (unsigned)p.location.value, out);
    default:
        *out = p.location.value;
        return NULL;
    }
}

struct err *sym_unwind_step(struct sym_module *m, vaddr addr, struct sym_context *ctx,
                            struct sym_registers *out)
{
    HOLD(m);
    struct frame f = {.m = m, .ctx = ctx, .addr = addr};
    cleanup(freep) Dwarf_Frame *rules = NULL;
    TRY(find_unwind_rules(&f, &rules));
    TRY(cfa_by(&f, rules, &f.cfa));
    f.has_cfa = true;
    struct sym_registers regs = {.cfa = f.cfa};
    for (int reg = SYM_RAX; reg <= SYM_RIP; reg++) {
        struct err *e = caller_register(&f, rules, reg, &regs.value[reg]);
        if (e && err_kind(e) == ERR_FAULT && reg == SYM_RIP)
            return err_prefix(e, "return address");
        if (!e)
            regs.known |= 1u << reg;
        err_free(e);
    }
    dwarf_frame_info(rules, NULL, NULL, &regs.is_signal);
    // System V psABI: the caller's stack pointer is the CFA, whatever the rule says.
    regs.value[SYM_RSP] = f.cfa;
    regs.known |= 1u << SYM_RSP;
    *out = regs;
    return NULL;
}
