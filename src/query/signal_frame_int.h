/* The frame that the kernel puts on the stack for a signal handler, with the registers of the
 * interrupted program. */
#ifndef QUERY_SIGNAL_FRAME_INT_H
#define QUERY_SIGNAL_FRAME_INT_H

#include "base/types.h"

/** Where the context is, given the stack pointer with which a handler begins. rt_sigreturn is
 * called with the stack pointer there. */
gaddr frame_context_at(uint64_t rsp);
/** Where the address of the vector registers' area is. */
gaddr frame_fpstate(gaddr context);
/** The register (byte of the register file) that is kept at an address of the frame of a handler
 * that began with rsp, and how many of its bytes from there on. fpstate: contents of
 * frame_fpstate(); 0: not known. False: none. */
bool frame_register(uint64_t rsp, gaddr fpstate, gaddr at, unsigned *out, unsigned *len_out);
/** The other way round: where `len` bytes of the register file are kept. False: nowhere, or not
 * together. */
bool frame_place(gaddr context, gaddr fpstate, unsigned reg, unsigned len, gaddr *out);

#endif
