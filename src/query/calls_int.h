/* Calls: what calls.c and callees.c share. */
#ifndef QUERY_CALLS_INT_H
#define QUERY_CALLS_INT_H

#include "query/query_int.h"
#include "x86/x86.h"

/* A call that was made, by an instruction or by a signal. */
struct made_call {
    uint32_t task;
    struct moment call, entry; /* the call instruction; the callee's first one */
    gaddr sp;                  /* where its return address is */
    gaddr return_addr;
    bool by_signal;
};

enum call_left {
    LEFT_NOT, /* not within the recording */
    LEFT_RETURN,
    LEFT_UNWOUND, /* the stack pointer was set above: longjmp, an exception */
    LEFT_EXIT,    /* the task or its program ended */
    LEFT_EVENT,   /* a system call or signal did it */
};
struct call_end {
    enum call_left left;
    struct moment at; /* right behind it */
    event_no event;   /* LEFT_EXIT, LEFT_EVENT */
};

/** The innermost calls first: those that made the task's frames at m. The frame that was not called
 * (a thread's first) has sp 0. */
typedef VEC(struct made_call) call_list;
struct err *calls_at(struct query_engine *q, struct moment m, uint32_t task,
                     call_list *out) nodiscard;
/**
 * How and when a call ended that had not at `from`.
 *
 * Cost: executions of its return address, as find_hits(); if it did not return there, some 40
 * states for looking closer and closer. ERR_UNSUPPORTED: it cannot be told.
 */
struct err *call_find_end(struct query_engine *q, const struct made_call *c, struct moment from,
                          struct call_end *out) nodiscard;
/** Adds what is at a call's first instruction (function, pc, module, args), and of its end. */
struct err *call_describe(struct query_engine *q, const struct made_call *c,
                          const struct call_end *end, json_t *row) nodiscard;
/** The instruction of a task at m, and its registers. ERR_FAULT: none. */
struct err *instruction_at(struct query_engine *q, struct moment m, uint32_t task,
                           struct x86_insn *out, struct regs *regs_out) nodiscard;

#endif
