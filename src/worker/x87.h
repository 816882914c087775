/* The x87 unit's last instruction: its address, operand and opcode, which FNSTENV and relatives
 * show (SDM 1, 8.1.8 and 8.1.9).
 *
 * The CPU knows the copies in the code caches only, and AMD's forgets even these whenever XSAVE and
 * XRSTOR come by, in the kernel or here, unless an exception is pending. So translated code notes
 * the guest's own in the state page, behind each x87 instruction; and an instruction that shows or
 * sets them ends its block, and the run loop puts right what it stored or takes what it loaded.
 * XSAVE images outside of the CPU have the guest's own, too (engine_save_vectors()). Freestanding.
 */
#ifndef WORKER_X87_H
#define WORKER_X87_H

#include "worker/maker.h"

enum x87_effect {
    X87_NONE,
    X87_MOVES, /* executes on the unit: this is the last instruction now */
    X87_CLEARS,
    X87_SHOWS, /* stores them */
    X87_LOADS
};
enum x87_effect x87_effect_of(const struct insn *in);
/** Emits what notes that the instruction, just emitted, was executed. */
void x87_emit_note(struct block_maker *m, unsigned idx);
/** An instruction raised SIGFPE, and that before it in its block is at `before`: notes what
 * x87_emit_note() left to the one behind. */
void x87_note_before_fault(struct engine_state *s, uint64_t before);
/** The instruction of `len` bytes in front of `next`, which shows or loads them, was executed; all
 * guest registers are in the state page. */
void x87_executed(struct engine_state *s, uint64_t next, unsigned len);
/** To an XSAVE image, and from one. */
void x87_to_image(struct engine_state *s, uint8_t *image);
void x87_from_image(struct engine_state *s, const uint8_t *image);
/** As rr does at events. */
void x87_clear(struct engine_state *s);
void x87_clear_image(uint8_t *image);

#endif
