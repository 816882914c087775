/* A hash table from strings to pointers. Keys are borrowed: the things stored hold their own names. */
#pragma once

#include <stddef.h>

struct table {
    struct table_slot {
        const char *key;
        void *value;
    } *slots;
    size_t capacity; // a power of two
    size_t count;
};

void table_init(struct table *table);
void table_deinit(struct table *table);
void table_put(struct table *table, const char *key, void *value);
void *table_get(const struct table *table, const char *key);
