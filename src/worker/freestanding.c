#include "worker/freestanding.h"

void *memcpy(void *to, const void *from, size_t len)
{
    void *result = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len)::"memory");
    return result;
}

void *memset(void *to, int c, size_t len)
{
    void *result = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(len) : "a"(c) : "memory");
    return result;
}

void *memmove(void *to, const void *from, size_t len)
{
    if ((uintptr_t)to - (uintptr_t)from >= len)
        return memcpy(to, from, len);
    uint8_t *t = (uint8_t *)to + len;
    const uint8_t *f = (const uint8_t *)from + len;
    for (; len >= 8; len -= 8) {
        uint64_t v;
        __builtin_memcpy(&v, f -= 8, 8);
        __builtin_memcpy(t -= 8, &v, 8);
    }
    while (len--)
        *--t = *--f;
    return to;
}

int memcmp(const void *a, const void *b, size_t len)
{
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < len; i++) {
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    }
    return 0;
}

size_t strlen(const char *s)
{
    size_t len = 0;
    while (s[len])
        len++;
    return len;
}
