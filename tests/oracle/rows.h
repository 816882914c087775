/* Rows of answers. */
#ifndef ORACLE_ROWS_H
#define ORACLE_ROWS_H

#include "base/types.h"

#include <jansson.h>
#include <stdbool.h>

/* A sink's function: ctx is an array, which gets the row. */
static inline bool keep_row(void *ctx, json_t *row)
{
    json_array_append_new(ctx, row);
    return true;
}

static inline struct moment moment_of(const json_t *m)
{
    return (struct moment){(uint64_t)json_integer_value(json_object_get(m, "event")),
                           (uint64_t)json_integer_value(json_object_get(m, "instr"))};
}

static inline struct moment row_moment(const json_t *row)
{
    return moment_of(json_object_get(json_object_get(row, "focus"), "moment"));
}

#endif
