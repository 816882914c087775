/* Memory that lives as long as a module, and a table keyed by 64-bit numbers. */
#include "sym/sym_int.h"

struct sym_pool_block {
    struct sym_pool_block *next;
    size_t used, cap;
    uint8_t data[] __attribute__((aligned(16)));
};

enum { POOL_BLOCK = 64 << 10 };

void *sym_pool_alloc(struct sym_pool *p, size_t len)
{
    len = (len + 15) & ~(size_t)15;
    if (!p->blocks || len > p->blocks->cap - p->blocks->used) {
        size_t cap = len > POOL_BLOCK ? len : POOL_BLOCK;
        struct sym_pool_block *b = (struct sym_pool_block *)xcalloc(1, sizeof(*b) + cap);
        b->cap = cap;
        b->next = p->blocks;
        p->blocks = b;
    }
    void *result = p->blocks->data + p->blocks->used;
    p->blocks->used += len;
    return result;
}

char *sym_pool_str(struct sym_pool *p, const char *s)
{
    size_t len = strlen(s) + 1;
    char *copy = sym_pool_alloc(p, len);
    memcpy(copy, s, len);
    return copy;
}

void sym_pool_deinit(struct sym_pool *p)
{
    while (p->blocks) {
        struct sym_pool_block *next = p->blocks->next;
        free(p->blocks);
        p->blocks = next;
    }
}

static size_t slot_of(const struct table *t, uint64_t key)
{
    size_t i = (size_t)((key * 0x9e3779b97f4a7c15u) >> 20) & (t->cap - 1);
    while (t->keys[i] && t->keys[i] != key)
        i = (i + 1) & (t->cap - 1);
    return i;
}

void *sym_table_get(const struct table *t, uint64_t key)
{
    if (!t->cap)
        return NULL;
    size_t i = slot_of(t, key);
    return t->keys[i] ? t->values[i] : NULL;
}

void sym_table_put(struct table *t, uint64_t key, void *value)
{
    if (2 * (t->count + 1) > t->cap) {
        struct table bigger = {.cap = t->cap ? 2 * t->cap : 64};
        bigger.keys = xnew_array(uint64_t, bigger.cap);
        bigger.values = xnew_array(void *, bigger.cap);
        for (size_t i = 0; i < t->cap; i++)
            if (t->keys[i])
                sym_table_put(&bigger, t->keys[i], t->values[i]);
        sym_table_deinit(t);
        *t = bigger;
    }
    size_t i = slot_of(t, key);
    t->count += !t->keys[i];
    t->keys[i] = key;
    t->values[i] = value;
}

void sym_table_deinit(struct table *t)
{
    free(t->keys);
    free(t->values);
    *t = (struct table){0};
}
