#include "table.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint32_t hash(const char *key)
{
    uint32_t h = 2166136261u; // FNV-1a
    for (; *key; key++)
        h = (h ^ (unsigned char)*key) * 16777619u;
    return h;
}

static struct table_slot *find_slot(struct table_slot *slots, size_t capacity, const char *key)
{
    size_t i = hash(key) & (capacity - 1);
    while (slots[i].key && strcmp(slots[i].key, key) != 0)
        i = (i + 1) & (capacity - 1);
    return &slots[i];
}

static void grow(struct table *table)
{
    size_t capacity = table->capacity * 2;
    struct table_slot *slots = calloc(capacity, sizeof *slots);
    for (size_t i = 0; i < table->capacity; i++)
        if (table->slots[i].key)
            *find_slot(slots, capacity, table->slots[i].key) = table->slots[i];
    free(table->slots);
    table->slots = slots;
    table->capacity = capacity;
}

void table_init(struct table *table)
{
    table->capacity = 16;
    table->count = 0;
    table->slots = calloc(table->capacity, sizeof *table->slots);
}

void table_deinit(struct table *table)
{
    free(table->slots);
}

void table_put(struct table *table, const char *key, void *value)
{
    if (table->count * 4 >= table->capacity * 3)
        grow(table);
    struct table_slot *slot = find_slot(table->slots, table->capacity, key);
    if (!slot->key)
        table->count++;
    slot->key = key;
    slot->value = value;
}

void *table_get(const struct table *table, const char *key)
{
    return find_slot(table->slots, table->capacity, key)->value;
}
