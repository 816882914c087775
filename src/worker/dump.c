#include "worker/dump.h"

#include "worker/code.h"
#include "worker/rows.h"

static struct rows rows;

/* What does not fit is left out: nobody has taken the rows for a long time. */
static void add_block(const struct translation *t)
{
    static const uint8_t padding[8];
    static uint8_t guest[MAX_BLOCK_INSNS * 15];
    struct block_dump d = {.pc = t->pc,
                           .host = (uint64_t)(uintptr_t)t->hot,
                           .stubs = (uint64_t)(uintptr_t)t->cold,
                           .host_len = (uint32_t)(t->hot_out - t->hot),
                           .stubs_len = (uint32_t)(t->cold_out - t->cold),
                           .insn_count = t->info.insn_count,
                           .mode = (uint8_t)t->mode,
                           .exact = t->exact};
    d.guest_len = (uint32_t)engine_copy_from_guest(guest, t->pc, t->info.byte_len);
    uint64_t len =
        d.insn_count * sizeof(struct block_dump_insn) + d.guest_len + d.host_len + d.stubs_len;
    d.padding = (uint8_t)(-len % 8);
    if (rows.len + sizeof(d) + len + d.padding > ROWS_LEN)
        return;
    rows_add(&rows, &d, sizeof(d));
    for (unsigned i = 0; i < d.insn_count; i++) {
        struct block_dump_insn insn = {(uint32_t)(t->insn_pc[i] - t->pc), t->insn_host[i]};
        rows_add(&rows, &insn, sizeof(insn));
    }
    rows_add(&rows, guest, d.guest_len);
    rows_add(&rows, t->hot, d.host_len);
    rows_add(&rows, t->cold, d.stubs_len);
    rows_add(&rows, padding, d.padding);
}

void dump_select(bool on)
{
    if (on && !rows.data)
        rows_init(&rows);
    rows_clear(&rows);
    code.translated = on ? add_block : NULL;
}

uint64_t dump_take(uint8_t *window, uint64_t len, uint64_t *left_out)
{
    return rows_take(&rows, window, len, left_out);
}
