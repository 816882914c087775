// Functions that a debugger may call: by number and kinds of arguments, of classes, by dynamic type, by the calling convention, and such that never
// come back. The program itself calls none of those that change something.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

#define KEEP __attribute__((used)) // within a class: has code though nothing here calls it

enum colour { RED, GREEN = 5 };
enum class mode : unsigned char { off, on = 7 };

struct small {
    int a, b;
};
struct mixed {
    double d;
    long n;
};
struct floats {
    float x, y, z;
};
struct large {
    long v[5];
};
struct packed {
    char c;
    long n;
} __attribute__((packed));
struct copied { // by the address of a copy, which its constructor makes
    int value;
    copied(int v) : value(v) {}
    copied(const copied &o) : value(o.value + 1000) {}
};
union either {
    long n;
    double d;
};

int counter = 3;
int table[4] = {10, 20, 30, 40};

extern "C" int plain_c(int a, int b)
{
    return a * 10 + b;
}

int over(int a) { return 1000 + a; }
int over(long a) { return 2000 + (int)a; }
int over(double a) { return 3000 + (int)a; }
int over(const char *s) { return 4000 + (int)strlen(s); }
int over(int a, int b) { return 5000 + a + b; }
int over(colour c) { return 6000 + c; }
int unclear(long a, int b) { return 1; }
int unclear(int a, long b) { return 2; }

int bump() { return ++counter; }
int &reference_to(int i) { return table[i]; }
const char *greeting(bool polite) { return polite ? "good morning" : "hey"; }
std::string repeated(const char *s, int n)
{
    std::string out;
    for (int i = 0; i < n; i++)
        out += s;
    return out;
}
std::vector<int> squares(int n)
{
    std::vector<int> out;
    for (int i = 0; i < n; i++)
        out.push_back(i * i);
    return out;
}
int *allocated(int i) // more than the heap has: in memory of its own
{
    int *p = (int *)malloc(1 << 20);
    p[0] = i;
    return p;
}
void nothing_returned(int i) { counter = i; }
double scaled(float f, double d, short s, unsigned char c, bool b) { return f * d + s + c + b; }
float halved(float f) { return f / 2; }
mode other(mode m) { return m == mode::on ? mode::off : mode::on; }
char upper(char c) { return (char)(c - 32); }
long many(long a, long b, long c, long d, long e, long f, long g, double h, int i) { return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + (long)(8 * h) + 9 * i; }
double vectors(double a, double b, double c, double d, double e, double f, double g, double h, double i, float j)
{
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j;
}
small make_small(int a, int b) { return small{a, b}; }
mixed make_mixed(double d, long n) { return mixed{d, n}; }
floats make_floats(float x, float y, float z) { return floats{x, y, z}; }
large make_large(long first) { return large{{first, first + 1, first + 2, first + 3, first + 4}}; }
either make_either(long n)
{
    either e;
    e.n = n;
    return e;
}
copied make_copied(int v) { return copied(v); }
long take_small(small s, mixed m, floats f, large l, packed p) { return s.a + s.b * 2 + (long)m.d * 3 + m.n * 4 + (long)(f.x + f.y + f.z) * 5 + l.v[4] * 6 + p.n * 7; }
int take_copied(copied c) { return c.value; }
int take_reference(const int &i) { return i + 1; }
long length(const std::string &s) { return (long)s.size(); }
long double quadruple(long double x) { return 4 * x; }
int sum_of(int count, ...)
{
    __builtin_va_list args;
    int sum = 0;
    __builtin_va_start(args, count);
    while (count-- > 0)
        sum += __builtin_va_arg(args, int);
    __builtin_va_end(args);
    return sum;
}

namespace outer {
int hidden(int x) { return x + 7; }
namespace inner {
int hidden(int x) { return x + 70; }
} // namespace inner
} // namespace outer

struct shape {
    int id = 1;
    virtual ~shape() {}
    virtual int area() const { return 1; }
    virtual const char *name() { return "shape"; }
    KEEP int plain() const { return 100 + id; }
    KEEP int twice(int x) { return 2 * x; }
    KEEP double twice(double x) { return 2 * x + 0.5; }
    KEEP static int made(int x) { return x + 40; }
};
struct labelled {
    long padding = 4;
    virtual ~labelled() {}
    virtual int label(int x) const { return x + 1; }
};
struct square : shape, labelled {
    int side = 6;
    int area() const override { return side * side; }
    const char *name() override { return "square"; }
    int label(int x) const override { return x + side; }
    KEEP int plain() const { return 200 + id; }
};

struct number {
    int v;
    int unused(int x) { return x; } // has none
    number operator+(const number &o) const { return number{v + o.v}; }
    KEEP bool operator==(const number &o) const { return v == o.v; }
    KEEP number operator-() const { return number{-v}; }
    KEEP int operator()(int x) const { return v * x; }
    KEEP int &operator[](int i) { return table[i + v]; }
};
number operator*(const number &a, int b) { return number{a.v * b}; }
struct cursor {
    square *at;
    KEEP square &operator*() const { return *at; }
    KEEP square *operator->() const { return at; }
};
template <typename T> struct holder {
    T content;
    T get() const { return content; }
};
template <typename T> T largest(T a, T b) { return a < b ? b : a; }

// What does not come back.
int crash(int *p) { return *p; }
int forever(int x)
{
    for (volatile int i = x;; i = i + 1)
        ;
}
int deep(int x)
{
    volatile char room[1000];
    room[0] = (char)x;
    return deep(x + 1) + room[0];
}
int leaves(int status) { _exit(status); }
int throws(int x)
{
    if (x > 1)
        throw std::runtime_error("too large");
    return x;
}
int catches(int x)
{
    try {
        return throws(x);
    } catch (const std::exception &e) {
        return -(int)strlen(e.what());
    }
}
int waits() { return pause(); }
int fails_to_open() { return access("/", 0); }
static inline __attribute__((always_inline)) int everywhere(int x) { return x * 3; }

struct user {
    int member = 11;
    KEEP int helper(int x) { return x + member; }
    __attribute__((noinline)) int stop(shape *p, square &s, std::vector<int> *v)
    {
        number one{1}, two{2};
        small here{3, 4};
        packed tight{'c', 9};
        mixed both{1.5, 2};
        floats three{1, 2, 3};
        large big{{1, 2, 3, 4, 5}};
        copied special(5);
        cursor it{&s};
        labelled *l = &s;
        const shape &constant = s;
        holder<int> held{8};
        std::string text = "seven c";
        int (*pointer)(int, int) = plain_c;
        int small_number = 2, *nothing = nullptr;
        double real = 2.5;
        long sum = take_small(here, both, three, big, tight) + pointer(one.v, two.v) + everywhere(small_number) + (one + two).v + it->side + l->label(1) +
                   constant.area() + held.get() + (long)real + text.size() + special.value + largest(3, 4) + largest(2.5, real) + (nothing ? *nothing : 0);
        printf("%ld\n", sum); // stop here
        return (int)sum;
    }
};

int main()
{
    square s;
    user u;
    std::vector<int> v{5, 6, 7};
    u.stop(&s, s, &v);
    return 0;
}
