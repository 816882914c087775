/* What the translator has to know of an instruction before it decides what becomes of it.
 * Freestanding; the door to Zydis. */
#ifndef WORKER_INSN_H
#define WORKER_INSN_H

#include "worker/engine_int.h"

#include <Zydis/Zydis.h>

enum {
    FLAG_MASK = ZYDIS_CPUFLAG_CF | ZYDIS_CPUFLAG_PF | ZYDIS_CPUFLAG_AF | ZYDIS_CPUFLAG_ZF |
                ZYDIS_CPUFLAG_SF | ZYDIS_CPUFLAG_OF
};

/* Of RFLAGS: what a program may set, as seen by PUSHF and POPF (SDM 1, 3.4.3): CF PF AF ZF SF DF OF
 * NT AC ID; what is always set. The trap flag is not among them: see docs/replay.md. */
enum { USER_FLAGS = 0x244cd5, FIXED_FLAGS = 0x202, FLAG_AC = 0x40000 };

struct insn {
    uint64_t pc;
    uint8_t bytes[16];
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    bool emulated; /* see evex.h */
};

/* What to do instead of executing an instruction. */
struct stop_rule {
    bool stops;
    uint8_t reason, trap; /* enum stop_reason, enum trap_insn */
    int signo, code;
};

void insn_init(void);
/** Decodes the instruction at pc. A rule that stops says that it cannot be executed; *fault_address
 * is the address of a fault of fetching it. */
struct stop_rule insn_decode(uint64_t pc, struct insn *in, uint64_t *fault_address);

/** Number of a general register in machine code, whatever part of it `reg` is; NO_REG if it is
 * none. */
unsigned gpr_number(ZydisRegister reg);
/** Mask of the general registers that the instruction names or implies. */
uint32_t registers_used(const struct insn *in);
/** Mask of the general registers that it changes, in part or whole. */
uint32_t registers_written(const struct insn *in);
/** The memory operand (not of lea and the like) that is written, or read. NULL: none. */
const ZydisDecodedOperand *memory_operand(const struct insn *in, bool written);
/** The operand that is addressed through FS or GS, or relative to RIP; NULL: none. */
const ZydisDecodedOperand *segment_operand(const struct insn *in);
const ZydisDecodedOperand *rip_operand(const struct insn *in);
uint64_t rip_address(const struct insn *in, const ZydisDecodedOperand *op);
/** Where the operand is, all guest registers being in the state page. */
uint64_t memory_address(const struct engine_state *s, const struct insn *in,
                        const ZydisDecodedOperand *op);
int64_t displacement(const ZydisDecodedOperand *op);
/** Is the address all in registers and displacement, not relative to RIP or cut to 32 bits? */
bool is_plain_address(const struct insn *in, const ZydisDecodedOperand *op);
/** Is the operand at a register that the instruction implies, and which a segment may apply to? RSI
 * of string instructions, RBX of xlat, RDI of maskmovq and maskmovdqu. (All but what is addressed
 * through ES or with RSP.) */
bool is_implied_address(const struct insn *in, const ZydisDecodedOperand *op);
/** By how much RSP has moved when the operand's address is computed: a pop addresses with RSP
 * behind what it has popped. */
int64_t popped_before(const struct insn *in, const ZydisDecodedOperand *op);
bool is_rep(const struct insn *in);
bool is_string_store(const struct insn *in);
/** bts, btr, btc with the bit number in a register, which reaches beyond the memory operand. */
bool is_bit_string(const struct insn *in);
enum block_end insn_end(const struct insn *in);

/** enum access_kind of the store to a memory operand, and the bytes it writes at most. */
uint8_t kind_of_store(const struct insn *in);
uint16_t size_of_store(const struct insn *in, const ZydisDecodedOperand *op);

/** Flags whose old values an instruction may need, and those it surely gives new values. */
void flags_of(const struct insn *in, uint32_t *needed, uint32_t *written);

/* What an instruction does to RSP besides the pushing and popping that is its purpose. */
enum rsp_effect {
    RSP_KEEPS,   /* nothing, or moves by a multiple of 8 */
    RSP_ALIGNS,  /* sets it from RBP, or by an amount not known before: may leave it off a multiple
                    of 8 */
    RSP_SWITCHES /* sets it to something else: another stack, or a longjmp */
};
enum rsp_effect rsp_effect_of(const struct insn *in);
/** By how much RSP is moved by an instruction that RSP_KEEPS; calls and returns count as 0. */
int64_t rsp_move_of(const struct insn *in);

#endif
