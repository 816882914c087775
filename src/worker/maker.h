/* A block in the making: what translate.c, copy.c and weave_*.c share. */
#ifndef WORKER_MAKER_H
#define WORKER_MAKER_H

#include "worker/insn.h"

/* A range of stores with a common address: marks.c of the index. */
struct mark_group {
    uint16_t insn;       /* before which they are marked */
    uint8_t base, index; /* general registers, NO_REG: none */
    uint8_t base_version, index_version;
    const struct insn *first; /* of this instruction's operand; NULL: RSP alone */
    const ZydisDecodedOperand *op;
    int64_t rsp_moved; /* of base RSP: by how much it moved until `insn`, in this version */
    unsigned count;
    struct {
        int64_t off; /* from the operand's address, without its displacement */
        uint32_t len;
    } stores[MAX_BLOCK_INSNS];
};

/* What the count at a block's start may do. */
enum flags_at_start {
    FLAGS_LIVE, /* keep the flags */
    FLAGS_DIE,  /* use the flags: they get new values before they are used */
    FLAGS_LATE  /* keep them, and leave the test of the count to the indirect branch, or other way
                   out, at the block's end */
};

struct block_maker {
    struct translation *t;
    struct emitter hot, cold;
    struct insn insns[MAX_BLOCK_INSNS];
    unsigned count;
    uint32_t stolen; /* mask of stolen registers */
    bool weaves;     /* SCRATCH is free */
    enum flags_at_start flags;
    /* log variants */
    uint32_t slots; /* so far, while emitting */
    uint32_t record_len;
    /* index */
    struct mark_group groups[MAX_BLOCK_INSNS];
    unsigned group_count;
};

/* --- translate.c --- */

static inline void *guest_reg(const struct block_maker *m, unsigned reg)
{
    return &m->t->state->regs[reg];
}

static inline bool is_stolen(const struct block_maker *m, unsigned reg)
{
    return reg != NO_REG && m->stolen >> reg & 1;
}

/** A register that `used` leaves free. low: one of the first eight without RSP and RBP, for
 * operands that must not need REX. */
unsigned pick_scratch(uint32_t used, bool low);
/** Says that what is emitted from here on can fault, and what has to be restored then: `insn` is
 * the next to be executed. */
void add_point(struct block_maker *m, unsigned insn, const uint8_t spilled[4], bool guest);
uint32_t new_exit(struct block_maker *m, struct exit_record x);
/** A stub that leaves translated code as exit `idx`. */
void emit_exit(struct block_maker *m, struct emitter *e, uint32_t idx);
extern const uint8_t nothing_spilled[4];

/* --- copy.c --- */

/** Emits instruction `idx` of the block with its stolen registers, RIP-relative operands and
 * segments replaced. */
void emit_copy(struct block_maker *m, unsigned idx);
/** Loads the address of a memory operand into x, which may be one of its registers. `inside`,
 * `behind`: added before and after the address is cut to its width. Uses spill[3]. */
void emit_address(struct block_maker *m, const struct insn *in, const ZydisDecodedOperand *op,
                  int64_t inside, int64_t behind, unsigned x);
/** Adds to the address in SCRATCH by how much the bit number of a bit string instruction reaches
 * beyond its operand. Uses spill[1], [3]. */
void emit_bit_offset(struct block_maker *m, const struct insn *in);
const void *segment_base(const struct block_maker *m, const ZydisDecodedOperand *op);

/* --- weave_log.c --- */

/** Lists the accesses of the block, in the order in which they are logged, and the length of its
 * record. */
void plan_log(struct block_maker *m);
void emit_log_header(struct block_maker *m);
/** Emits the instruction with the logging of its accesses. */
void emit_logged(struct block_maker *m, unsigned idx);
/** Logs what the branch at the block's end reads and writes. rcx_taken: RCX does not hold the
 * guest's. */
void emit_log_end(struct block_maker *m, unsigned idx);

/* --- weave_index.c --- */

/** Groups the block's stores by their addresses. */
void plan_marks(struct block_maker *m);
/** Emits the instruction with marks of what it stores, and the check of RSP if it may leave it off
 * a multiple of 8. */
void emit_marked(struct block_maker *m, unsigned idx);
/** Marks of the groups that begin with the instruction. */
void emit_marks(struct block_maker *m, unsigned idx);
/** Puts the call that ends the block on the stack of calls; behind the push of the return address.
 */
void emit_call_entry(struct block_maker *m);
/** Takes the last call off the stack of calls if RSP, which has moved by `popped`, says that it is
 * over; goes on in RCX. */
void emit_return_entry(struct block_maker *m, int64_t popped);
/** Does the store go as far as only the run loop can tell? Then the block ends behind the
 * instruction. */
bool store_needs_range(const struct insn *in);
/** The end of a block behind a store that needs a range, or behind a new RSP. */
void emit_range_end(struct block_maker *m, unsigned idx);

#endif
