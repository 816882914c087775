/* One executed instruction of a stretch, for those who follow values: its registers and memory as
 * the x86 room wants to know them. */
#ifndef QUERY_EXECUTION_INT_H
#define QUERY_EXECUTION_INT_H

#include "query/stretch_int.h"

enum { MOST_BYTES = 64 };

/* The bytes that a question is about. */
struct asked_bytes {
    bool memory;
    uint64_t at; /* address, or byte of the register file */
    uint32_t len, space;
    struct moment moment; /* the focus', not beyond the end */
    uint8_t value[MOST_BYTES];
};
/** Reads "register" with "start", "length", or "address" with "length" (1 to MOST_BYTES), and the
 * value there. */
struct err *param_bytes(struct query_engine *q, json_t *params, const struct focus *focus,
                        struct asked_bytes *out) nodiscard;

/* Decoded instructions by address; what was decoded is compared, as code may change. Freed with
 * free(). */
struct insn_cache;
struct insn_cache *insn_cache_create(void);
/** The instruction of a row; borrowed until the next call. NULL: it is none. */
const struct x86_insn *insn_cached(struct insn_cache *c, const struct step_row *row);

struct execution {
    struct query_engine *q;
    void *owner; /* whatever the user wants */
    const struct stretch *stretch;
    size_t step;
    const struct x86_insn *insn;
    struct x86_run run; /* `after` is the user's business */
    bool loaded;
    struct xstate xstate; /* if loaded */
};

/** Step i of the stretch. All is borrowed. */
void execution_init(struct execution *x, struct query_engine *q, void *owner,
                    const struct stretch *s, size_t i, const struct x86_insn *in);
/** May the access touch bytes of private memory of a space (object 0; `at` an address) or of a
 * shared object (`at` an offset)? *out: the address at which the instruction's space has the first
 * of them. */
bool execution_touches(const struct execution *x, const struct x86_access *a, uint32_t space,
                       uint32_t object, uint64_t at, uint32_t len, gaddr *out);
/** {kind, text, pc, module, function, location} */
json_t *execution_row(const struct execution *x, const char *kind);

#endif
