#include "query/signal_frame_int.h"

#include "x86/x86.h"

/* Where the kernel keeps registers in a signal frame on x86-64 (arch/x86: struct rt_sigframe,
 * sigcontext_64): offsets from the stack pointer with which a handler begins, behind its return
 * address. The area for vector registers is found through a pointer. */
enum { FRAME_UCONTEXT = 8, UCONTEXT_REGS = 40, UCONTEXT_FPSTATE = 224 };
static const uint8_t registers[] = {8,           9, 10, 11, 12, 13, 14, 15,
                                    7 /* rdi */, 6, 5,  3,  2,  0,  1,  4 /* rsp */};
enum { FRAME_REGISTERS = 16, FPSTATE_XMM = 160, FPSTATE_YMM = 576 };

gaddr frame_context_at(uint64_t rsp)
{
    return rsp + FRAME_UCONTEXT;
}

gaddr frame_fpstate(gaddr context)
{
    return context + UCONTEXT_FPSTATE;
}

bool frame_register(uint64_t rsp, gaddr fpstate, gaddr at, unsigned *out, unsigned *len_out)
{
    gaddr regs = frame_context_at(rsp) + UCONTEXT_REGS;
    if (at >= regs && at < regs + 8 * FRAME_REGISTERS) {
        *out = X86_GPR + 8 * registers[(at - regs) / 8] + (unsigned)((at - regs) % 8);
        *len_out = 8 - (unsigned)((at - regs) % 8);
        return true;
    }
    if (fpstate && at >= fpstate + FPSTATE_XMM && at < fpstate + FPSTATE_XMM + 16 * 16) {
        unsigned off = (unsigned)(at - fpstate - FPSTATE_XMM);
        *out = X86_VECTOR + 64 * (off / 16) + off % 16;
        *len_out = 16 - off % 16;
        return true;
    }
    if (fpstate && at >= fpstate + FPSTATE_YMM && at < fpstate + FPSTATE_YMM + 16 * 16) {
        unsigned off = (unsigned)(at - fpstate - FPSTATE_YMM);
        *out = X86_VECTOR + 64 * (off / 16) + 16 + off % 16;
        *len_out = 16 - off % 16;
        return true;
    }
    return false;
}

bool frame_place(gaddr context, gaddr fpstate, unsigned reg, unsigned len, gaddr *out)
{
    if (reg < X86_RIP) {
        for (unsigned i = 0; i < FRAME_REGISTERS; i++) {
            if (registers[i] != reg / 8)
                continue;
            *out = context + UCONTEXT_REGS + 8 * i + reg % 8;
            return true;
        }
        return false;
    }
    if (reg < X86_VECTOR || reg >= X86_VECTOR + 16 * 64 || !fpstate)
        return false;
    unsigned number = (reg - X86_VECTOR) / 64, byte = (reg - X86_VECTOR) % 64;
    *out = fpstate +
           (byte < 16 ? FPSTATE_XMM + 16 * number + byte : FPSTATE_YMM + 16 * number + byte - 16);
    return byte + len <= 16 || (byte >= 16 && byte + len <= 32);
}
