/* Conditions and print expressions of executions. */
#ifndef QUERY_PROBES_H
#define QUERY_PROBES_H

#include "query/query_int.h"
#include "sym/expression.h"

enum { PROBES_MOST_PRINTS = 16 };

struct compiled;

/* What a query wants to know of each execution. Places whose programs were set point into it. */
struct probes {
    const char *condition; /* borrowed from the parameters; NULL: none */
    const char *print[PROBES_MOST_PRINTS];
    size_t print_count;
    uint32_t print_lens[PROBES_MOST_PRINTS];
    const struct sym_inlined_list
        *calls;    /* places are where these begin; NULL: they are not. Borrowed */
    bool at_entry; /* places are functions' first instructions: parameters are where the calling
                      convention has them */
    VEC(struct compiled *) compiled;
    const struct hit_place *places; /* borrowed */
    size_t place_count;
};

/** Takes "condition" and "print" from the parameters. */
struct err *probes_take(json_t *params, struct probes *out) nodiscard;
void probes_deinit(struct probes *p);
/** Sets the places' programs. An expression that compiles at none of them is an error (as of
 * sym_expression_compile()); where it does not compile the rows say so. */
struct err *probes_compile(struct query_engine *q, struct probes *p, struct hit_place *places,
                           size_t count) nodiscard;
/** Adds "prints", and "conditionError" if the condition failed or cannot be compiled there. prints:
 * of the row. ctx: for strings too long to have been printed along. */
void probes_add(struct query_engine *q, const struct probes *p, const struct hit *h,
                const uint8_t *prints, struct sym_context *ctx, json_t *row);
/** Whose names an expression has at code of module m. Code of no file (NULL) is looked at as if it
 * were of the first program, but in no function: registers, memory and globals can be named;
 * r->addr and r->bias are set to that. */
struct err *module_for_expressions(struct query_engine *q, struct module *m, struct module **out,
                                   struct sym_expression_request *r) nodiscard;
/** A value, as json_value(), of what a run of an expression's program gave. */
json_t *json_expression_value(struct sym_module *m, const struct sym_expression *e,
                              enum program_end end, uint64_t result, const uint8_t *output,
                              struct sym_context *ctx);

#endif
