/* What sym_test.c looks at: compiled in several ways, run under ptrace. Lines are found by their
 * marks. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP __attribute__((noinline, noclone, used, externally_visible))
#if defined(__clang__)
#undef KEEP
#define KEEP __attribute__((noinline, used))
#endif

enum color { RED, GREEN = 5, BLUE };
enum flag { FLAG_A = 1, FLAG_B = 2, FLAG_C = 4 };
struct node {
    int value;
    struct node *next;
    unsigned low : 3, high : 7;
    signed int minus : 4;
};
union number {
    int i;
    float f;
};
struct pair {
    double x;
    long y;
};
struct big {
    long v[5];
};
typedef unsigned long word;

struct everything {
    char c;
    bool yes;
    short s;
    float f;
    double d;
    long double ld;
    word w;
    enum color color;
    enum flag flags;
    const char *text;
    char buffer[16];
    int matrix[2][3];
    int (*function)(int, char **);
    struct pair pair;
    union number number;
    void *nothing;
};

int main(int argc, char **argv);
int twice(int n);
struct pair mixed(int a, double b, const char *c, struct pair p, struct big g, long double ld,
                  char ch, float f, enum color color, bool ok, long seventh, long eighth);
struct big make_big(long first, struct node *n);
double half(float f);
long double grow(long double ld);
void nothing(struct everything *e);
int variable_length(int n);
int sum_list(struct node *list);
int calls_inlined(int n);
extern int a_global;
extern struct node a_list[3];

int a_global = 42;
struct node a_list[3] = {{1, &a_list[1], 5, 100, -3}, {2, &a_list[2], 0, 0, 0}, {3, NULL, 0, 0, 0}};
static const char *volatile sink;

KEEP int twice(int n)
{
    int result = n * 2; /* mark: twice body */
    return result;      /* mark: twice return */
}

KEEP struct pair mixed(int a, double b, const char *c, struct pair p, struct big g, long double ld,
                       char ch, float f, enum color color, bool ok, long seventh, long eighth)
{
    sink = c; /* mark: mixed body */
    struct pair r = {b + p.x + (double)ld + (double)f + (ok ? 1 : 0),
                     a + p.y + g.v[4] + ch + (long)color + seventh + eighth};
    return r;
}

KEEP struct big make_big(long first, struct node *n)
{
    struct big b = {{first, n->value, 3, 4, 5}};
    return b;
}

KEEP double half(float f)
{
    return (double)f / 2;
}

KEEP long double grow(long double ld)
{
    return ld * 3;
}

KEEP void nothing(struct everything *e)
{
    __asm__ volatile("" : : "r"(e) : "memory"); /* mark: nothing body */
}

KEEP int variable_length(int n)
{
    int squares[n];
    for (int i = 0; i < n; i++)
        squares[i] = i * i;
    __asm__ volatile("" : : "r"(squares) : "memory");
    return squares[n - 1]; /* mark: squares filled */
}

KEEP int sum_list(struct node *list)
{
    int sum = 0; /* mark: sum start */
    for (struct node *n = list; n; n = n->next) {
        int value = twice(n->value); /* mark: loop body */
        sum += value;                /* mark: loop add */
    }
    return sum; /* mark: sum end */
}

static inline __attribute__((always_inline)) int inner(int x)
{
    int y = twice(x) + 1; /* mark: inner */
    return y;
}

static inline __attribute__((always_inline)) int outer(int x)
{
    return inner(x + 10) * 3; /* mark: outer */
}

KEEP int calls_inlined(int n)
{
    int r = outer(n); /* mark: calls outer */
    return r + 1;
}

int main(int argc, char **argv)
{
    struct everything e = {.c = 'x',
                           .yes = true,
                           .s = -7,
                           .f = 1.5f,
                           .d = 0.1,
                           .ld = 2.25L,
                           .w = 1ul << 63,
                           .color = GREEN};
    e.flags = (enum flag)(FLAG_A | FLAG_C);
    e.text = "say \"hi\"\n";
    strcpy(e.buffer, "inside");
    for (int i = 0; i < 6; i++)
        e.matrix[i / 3][i % 3] = i;
    e.function = main;
    e.pair = (struct pair){2.5, 9};
    e.number.i = 0x3f800000;
    struct big g = {{1, 2, 3, 4, 50}};
    struct pair p = {0.5, 600};
    nothing(&e);
    struct pair r = mixed(1, 2.0, "third", p, g, 4.0L, 'c', 8.0f, BLUE, true, 7000, 80000);
    struct big b = make_big(11, a_list);
    int total = sum_list(a_list) + calls_inlined(argc);
    printf("%g %ld %ld %d %g %Lg\n", r.x, r.y, b.v[0], total, half(3.0f), grow(1.5L));
    return variable_length(4) - 9;
}
