/* The store of translations: where they are, how they are found, linked and dropped. Freestanding.
 */
#ifndef WORKER_CODE_H
#define WORKER_CODE_H

#include "worker/engine_int.h"

enum { MAX_BREAKS = 4096 };

/* Of the process. */
struct code {
    struct engine_state *state;
    struct indirect_table *tables[ENGINE_MODES];
    uint64_t alignment_page;
    struct block *blocks;
    uint32_t block_count;
    struct exit_record *exits;
    uint32_t exit_count;
    uint64_t breaks[MAX_BREAKS]; /* sorted */
    size_t break_count;
    struct engine_stats stats;
    void (*translated)(const struct translation *t); /* told of each new block; NULL: nobody */
};
extern struct code code;

/** `state`, `tables` and `alignment_page` are set. */
void code_init(const struct engine_layout *l);
/** The block at pc: found or made. `link`: the exit that leads to it and is to be linked with it,
 * UINT32_MAX: none. indirect: it is to be found by indirect branches. UINT32_MAX: there is no room;
 * code_flush() is needed. */
uint32_t code_block(uint64_t pc, enum engine_mode mode, uint32_t link, bool indirect);
/** A cut translation of at most max_insns instructions. unguarded: one to be used just once, to
 * write to its own page or with emulated instructions called. */
uint32_t code_exact(uint64_t pc, enum engine_mode mode, unsigned max_insns, bool unguarded);
/** Forgets all translations. */
void code_flush(void);
/** The block that the host address is in. */
uint32_t code_block_of_host(uint64_t host);
bool code_is_host(uint64_t host);
/** Translates block idx once more, for its fault points; borrowed until the next translation. */
const struct translation *code_fault_points(uint32_t idx);
/** Bytes of the first `insns` instructions of block b, as its memory is now. */
uint16_t code_prefix_len(const struct block_info *b, unsigned insns);
bool code_is_break(uint64_t pc);
/** If the guest's page at `address` has been made read-only for its translations: drops them and
 * gives the page back. */
bool code_release_page(uint64_t address);

/* The guest's vector registers, around code of Zydis. */
void vectors_save(void);
void vectors_load(void);

#endif
