/* Calls that are inlined, twice deep, and the same function called through a pointer: tests/cli/inlined.py. -O2, without a C library. */
#include <sys/syscall.h>

enum { ROUNDS = 40 };

struct pair {
    int a, b;
};

static volatile int seen;

static inline int scale(int value, int by)
{
    seen = value;
    seen = by;
    return (value * by + 1) % 1000;
}

static int (*volatile pointer)(int, int) = scale;

static inline int both(const struct pair *p)
{
    return scale(p->a, p->b) + scale(p->b, 3);
}

void _start(void)
{
    int sum = 0;
    for (int i = 0; i < ROUNDS; i++) {
        sum += i % 4 == 3 ? pointer(i, 100) : scale(i, 2);
        struct pair p = {i, sum % 100};
        sum += both(&p);
    }
    __asm__ volatile("syscall" : : "a"(SYS_exit), "D"(sum & 0x7f));
}
