/* Private parts of the engine, shared by translator and run loop. */
#ifndef WORKER_ENGINE_INT_H
#define WORKER_ENGINE_INT_H

#include "worker/emit.h"
#include "worker/engine.h"

enum { MAX_BLOCK_INSNS = 64, MAX_BLOCK_ACCESSES = 4 * MAX_BLOCK_INSNS, ICOUNT_SHIFT = 20 };
#define MAX_BUDGET ((1u << ICOUNT_SHIFT) - 1)

/* General registers by their number in machine code. */
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* What registers are stolen for. */
enum { COUNTER = R15, WOVEN = R14, SCRATCH = R11 };
static inline uint32_t stolen_registers(enum engine_mode mode)
{
    return mode == ENGINE_COUNT ? 1u << COUNTER : 1u << COUNTER | 1u << WOVEN | 1u << SCRATCH;
}

/* The x87 unit's last instruction, in offsets from segments (x87.h). */
struct x87_pointers {
    uint64_t pc, data;
    uint32_t opcode, data_selector;
};

/* The state page: all that translated code reads and writes besides guest memory. Lives in the low
 * 2 GiB. */
struct engine_state {
    uint64_t regs[16]; /* guest registers while outside of translated code; stolen ones always */
    uint64_t rflags;
    uint64_t exit_idx;     /* which exit was taken */
    uint64_t target;       /* guest address an indirect branch goes to */
    uint64_t spill[4];     /* [0] RCX of indirect branches and sign tests, [1] RDX, [2] RAX; [0..3]
                              scratch registers */
    uint64_t counter;      /* R15 */
    uint64_t counter_copy; /* for the flag-free test of its sign */
    uint64_t woven;        /* R14: the end of the log, or of the stack of calls */
    uint64_t fs_base, gs_base; /* the guest's: its segments exist only here */
    uint64_t range_start;      /* where a store of unknown length began */
    uint64_t alignment;        /* ALIGNMENT_MASK, for the check of RSP */
    uint64_t host_rsp;         /* engine stack while in translated code */
    uint64_t leave;            /* address of the code that leaves translated code */
    uint64_t resume;           /* host address to enter */
    uint64_t hit;              /* host address an indirect branch goes on at */
    uint64_t evex;             /* the instruction that is being emulated: evex.h */
    uint64_t call_evex;        /* address of the code that calls the emulation */
    uint64_t execute_evex;     /* which is this */
    struct x87_pointers x87;   /* the guest's */
};

/* Page 1 to 7 behind this page are without access: reading at (RSP & 7) << 12 behind its start is
 * the check of RSP. */
#define ALIGNMENT_MASK 0x7000ull

/* Hash table of indirect branches, by the low 16 bits of the target: negated guest address, host
 * address. */
struct indirect_table {
    uint64_t negated[65536];
    uint64_t host[65536];
};

enum exit_kind {
    EXIT_DIRECT,   /* branch to `pc`; patch (if any) can be linked to its translation */
    EXIT_INDIRECT, /* branch to state->target */
    EXIT_RETURN, /* the same, by a return from a call that is not the last on the stack of calls; it
                    popped `pc` bytes */
    EXIT_BUDGET, /* the budget does not cover the block at `pc` */
    EXIT_STOP,   /* the instruction at `pc` is not for the engine: `stop` tells why */
    EXIT_STALE,  /* the block at `pc` has been dropped */
    EXIT_STACK,  /* RSP was set to something new; on to `pc` */
    EXIT_RANGE,  /* the instruction before `pc` stored from state->range_start on: `range` tells
                    what; on to `pc` */
    EXIT_X87, /* the instruction before `pc` shows or loads what the x87 unit did last; on to `pc`
               */
};

/* How far a store of EXIT_RANGE got. */
enum range_kind {
    RANGE_FIXED /* `size` bytes */,
    RANGE_STRING /* to RDI, elements of `size` bytes */,
    RANGE_SCATTER
};

struct exit_record {
    uint64_t pc;
    uint8_t *patch; /* rel32 of the branch to link; NULL: none */
    uint32_t block;
    uint8_t kind;
    uint8_t stop; /* enum stop_reason */
    uint8_t trap;
    uint8_t insn_len;
    uint8_t signo;
    uint8_t range; /* enum range_kind */
    bool x87;      /* EXIT_RANGE: as EXIT_X87, too */
    uint16_t size;
    int32_t si_code;
};

struct block {
    struct block_info info;  /* the public part */
    uint8_t *start, *end;    /* host code */
    uint8_t *entry;          /* direct branches come here */
    uint8_t *indirect_entry; /* restores RAX, RCX, RDX first; NULL: to be made */
    uint64_t *count;         /* how often it was entered, in index mode */
    uint8_t mode;            /* enum engine_mode */
    uint8_t exact;           /* a cut translation: not reached by links */
    bool calls;              /* as in struct translation */
    bool dead;
    bool falls;               /* begins where another block's last jump was */
    bool overlaid;            /* another one begins where its last jump was */
    uint32_t record_len;      /* of the log */
    uint32_t next_in_page[2]; /* chain of the blocks of a code page, by index + 1; for first and
                                 last page */
    uint32_t first_exit;      /* its exit records */
    uint32_t stale_exit;      /* taken when the block is entered after its death */
    uint8_t *cold;            /* its exit stubs */
    uint32_t next_hash;       /* index + 1 */
};

enum { FAULT_VECTORS = 3 };
/* Where an instruction's own host code begins, and which registers are put aside then: to recover
 * from faults. */
struct fault_point {
    uint32_t host_off;
    uint16_t insn;                  /* the next one to be executed */
    uint8_t spilled[4];             /* register in spill[i], or 0xff */
    uint8_t vectors[FAULT_VECTORS]; /* vector register in evex_registers->aside[i], or 0xff */
    uint8_t based; /* register to which the base of FS, or of GS, was added, or 0xff */
    bool based_in_gs;
    bool guest;   /* what faults is the instruction itself; else something woven in */
    bool hopeful; /* the instruction itself might not fault: its mask may be off where it does */
};

/* What the translator needs to know and to make. */
struct translation {
    /* in */
    uint64_t pc;
    enum engine_mode mode;
    unsigned max_insns;
    struct engine_state *state;
    struct indirect_table *table;
    uint64_t alignment_page;  /* for the check of RSP */
    uint8_t *hot, *hot_end;   /* code goes up from hot */
    uint8_t *cold, *cold_end; /* exit stubs: written upwards from cold */
    uint64_t *count;          /* counter of the block, within reach */
    const uint64_t *breaks;   /* sorted: a block ends in front of these */
    size_t break_count;
    bool exact;          /* a cut translation: no count, and its exits are not linked */
    bool calls;          /* emulated instructions are not done in place (evex_inline.c) */
    bool falls;          /* no indirect entry in front */
    uint32_t first_exit; /* number of the first exit record made */
    uint32_t block_idx;
    /* out */
    uint8_t *entry, *indirect_entry;
    uint8_t *hot_out, *cold_out;
    struct block_info info;
    struct access_desc accesses[MAX_BLOCK_ACCESSES];
    struct exit_record exits[6];
    unsigned exit_count;
    uint32_t record_len;
    struct fault_point points[4 * MAX_BLOCK_INSNS + 8];
    unsigned point_count;
    uint64_t insn_pc[MAX_BLOCK_INSNS + 1]; /* and where the block ends */
    uint32_t insn_host[MAX_BLOCK_INSNS];   /* where what is made of it begins, from `hot` */
    uint64_t also_page; /* another page whose code the translation depends on, 0: none */
    bool no_room;
};

/** True if the instruction at pc is a string instruction with a REP prefix; *size_out: bytes an
 * iteration moves by. */
bool insn_is_rep(uint64_t pc, unsigned *size_out, bool *source_out, bool *dest_out);
/** The operands of the wrfsbase or wrgsbase at pc: its register by number in machine code; GS, else
 * FS; 64 bits, else 32. */
void insn_segment_base(uint64_t pc, unsigned *reg_out, bool *gs_out, bool *wide_out);
/** What engine_set_isa() was told. */
const struct engine_isa *engine_isa(void);
/** Bytes of the first `insns` instructions of block b, as its memory is now. */
uint16_t insn_prefix_len(const struct block_info *b, unsigned insns);
/** Translates the block at t->pc. May be run again over the same place to learn the fault points:
 * it makes the same code. */
void translate_block(struct translation *t);

#endif
