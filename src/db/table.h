/* Tables: arrays of structs as they are in chunks, a column after the other, so that zstd finds
 * what repeats. One description of a struct's columns serves writing and reading. docs/format.md,
 * "tables". */
#ifndef DB_TABLE_H
#define DB_TABLE_H

#include "base/buf.h"
#include "base/bytes.h"

/* A value is coded as its difference from another one, in the two's complement of the member's
 * size. */
enum column_from {
    FROM_ABOVE, /* the same column of the row before; 0 in the first row */
    FROM_ZERO,  /* the value itself */
    FROM_MEMBER /* another column of the row, which comes earlier in the list */
};
struct column {
    uint16_t offset, base;
    uint8_t size; /* 1, 2, 4 or 8 bytes */
    enum column_from from;
};

#define SIZE_OF(type, member) sizeof(((type *)NULL)->member)
#define COLUMN(type, member)                                         \
    {                                                                \
        offsetof(type, member), 0, SIZE_OF(type, member), FROM_ABOVE \
    }
#define COLUMN_PLAIN(type, member)                                  \
    {                                                               \
        offsetof(type, member), 0, SIZE_OF(type, member), FROM_ZERO \
    }
#define COLUMN_ON(type, member, other)                                                    \
    {                                                                                     \
        offsetof(type, member), offsetof(type, other), SIZE_OF(type, member), FROM_MEMBER \
    }

struct table {
    size_t row_size, column_count;
    const struct column *columns;
};
#define TABLE(type, list)                                    \
    {                                                        \
        sizeof(type), sizeof(list) / sizeof((list)[0]), list \
    }

/** Appends: the count of rows, then each column. */
void table_put(const struct table *t, const void *rows, size_t count, struct buf *out);
/** Reads what table_put() wrote, into a new array at *rows_out (to be freed; members that are no
 * columns are 0). b fails, and *rows_out is NULL, if the bytes break the format. */
size_t table_get(const struct table *t, struct bytes *b, void **rows_out);

/** The first row in which two arrays differ in a column; SIZE_MAX: none does. */
size_t table_difference(const struct table *t, const void *a, size_t a_count, const void *b,
                        size_t b_count);

/* Into a VEC that is empty. */
#define table_get_vec(t, b, vec)                             \
    do {                                                     \
        void *rows_;                                         \
        free((vec)->items);                                  \
        (vec)->count = (vec)->cap = table_get(t, b, &rows_); \
        (vec)->items = rows_;                                \
    } while (0)

#endif
