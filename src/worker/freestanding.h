/* What the compiler and Zydis expect of libc. None of it touches a vector register: the guest's are
 * in the CPU. */
#ifndef WORKER_FREESTANDING_H
#define WORKER_FREESTANDING_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)
void *memcpy(void *to, const void *from, size_t len);
void *memset(void *to, int c, size_t len);
void *memmove(void *to, const void *from, size_t len);
int memcmp(const void *a, const void *b, size_t len);
size_t strlen(const char *s);
#pragma GCC visibility pop

#endif
