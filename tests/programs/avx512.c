/* AVX-512 as compilers make it, and its registers across signals, fork, threads and XSAVE. Built with -march=x86-64-v4 -O3. */
#include <immintrin.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 200 };
static float a[N], b[N];
static double d[N], e[N];
static int32_t x[N], y[N];
static uint32_t u[N];
static uint64_t q[N];
static int64_t l[N];
static uint8_t c[N];
static int16_t h[N];

static void fill(void)
{
    for (int i = 0; i < N; i++) {
        a[i] = (float)i * 0.5f - 20;
        d[i] = i / 7.0 - 5;
        e[i] = 1.0 / (i + 1);
        x[i] = i * 7919 % 1000 - 500;
        u[i] = (uint32_t)i * 2654435761u;
        q[i] = (uint64_t)i * 0x9e3779b97f4a7c15;
        l[i] = (int64_t)q[i] >> 20;
        c[i] = (uint8_t)(i * 13);
        h[i] = (int16_t)(i * 331);
    }
}

static uint64_t sum(const void *p, size_t len)
{
    uint64_t s = 14695981039346656037u;
    for (size_t i = 0; i < len; i += 8)
        s = (s ^ *(const uint64_t *)((const char *)p + i)) * 1099511628211u;
    return s;
}

#define LOOP(name, what) \
    __attribute__((noinline)) static void name(void) \
    { \
        for (int i = 0; i < N; i++) \
            what; \
    }
LOOP(madd, b[i] = a[i] * 1.5f + (float)x[i])
LOOP(choose, y[i] = x[i] < -100 ? -100 : x[i] > 100 ? 100 : x[i])
LOOP(divide, if (d[i] > 0.5) e[i] = e[i] / d[i])
LOOP(to_float, b[i] = (float)u[i])
LOOP(to_double, e[i] = (double)q[i] + (double)l[i])
LOOP(to_unsigned, u[i] = (uint32_t)(d[i] < 0 ? -d[i] : d[i]))
LOOP(to_long, l[i] = (int64_t)(e[i] * 3))
LOOP(narrow, c[i] = (uint8_t)(u[i] >> 3))
LOOP(widen, h[i] = (int16_t)(c[i] * 3))
LOOP(rotate, u[i] = (u[i] << 7 | u[i] >> 25) ^ (u[i] & 0x0f0f0f0f))
LOOP(shifts, q[i] = q[i] >> (i & 63) | (uint64_t)l[i] << (x[i] & 31))
LOOP(gather, y[i] = x[(uint32_t)(i * 37) % N])
LOOP(scatter, x[(uint32_t)(i * 41) % N] = i)
LOOP(multiply, q[i] = q[i] * (uint64_t)l[i])
LOOP(least, l[i] = l[i] < (int64_t)q[i] ? l[i] : (int64_t)q[i])

static void show(const char *name)
{
    printf("%s %016lx %016lx %016lx %016lx %016lx\n", name, sum(b, sizeof(b)) ^ sum(d, sizeof(d)), sum(e, sizeof(e)), sum(x, sizeof(x)) ^ sum(y, sizeof(y)),
           sum(u, sizeof(u)) ^ sum(q, sizeof(q)) ^ sum(l, sizeof(l)), sum(c, sizeof(c)) ^ sum(h, sizeof(h)));
}

/* Registers with known values, what happens, and the same values again. */
static uint64_t pattern[8];
#define KEPT(happens) \
    do { \
        uint64_t now[8], k = 0x123456789abcdef; \
        __asm__ volatile("vmovdqu64 %0, %%zmm25\n\tvpaddq %%zmm25, %%zmm25, %%zmm7\n\tkmovq %1, %%k5" ::"m"(pattern), "r"(k) : "xmm7"); \
        happens; \
        __asm__ volatile("vpsubq %%zmm25, %%zmm7, %%zmm24\n\tvmovdqu64 %%zmm24, %0\n\tkmovq %%k5, %1" : "=m"(now), "=r"(k)); \
        kept = kept && memcmp(now, pattern, sizeof(now)) == 0 && k == 0x123456789abcdef; \
    } while (0)

static void on_signal(int signo)
{
    __asm__ volatile("vpxorq %%zmm25, %%zmm25, %%zmm25\n\tvpxord %%zmm7, %%zmm7, %%zmm7\n\tkxorq %%k5, %%k5, %%k5" ::: "xmm7");
}

static long system_call(long number, long a1, long a2)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a1), "S"(a2) : "rcx", "r11", "memory");
    return result;
}

static void *thread(void *arg)
{
    bool *all = arg, kept = true;
    for (int i = 0; i < 20; i++)
        KEPT(system_call(24, 0, 0)); // sched_yield
    *all = kept;
    return NULL;
}

static uint8_t area[4096] __attribute__((aligned(64)));

int main(void)
{
    bool kept = true, in_thread = false;
    long pid = getpid();
    fill();
    madd(), choose(), divide(), to_float(), show("floats");
    to_double(), to_unsigned(), to_long(), show("conversions");
    narrow(), widen(), rotate(), shifts(), show("integers");
    gather(), scatter(), multiply(), least(), show("elements");
    for (int i = 0; i < 8; i++)
        pattern[i] = 0x0101010101010101u * (uint64_t)(i + 1);
    signal(SIGUSR1, on_signal);
    KEPT(system_call(62, pid, SIGUSR1)); // kill
    KEPT(__asm__ volatile("xsavec64 %0\n\tvpxorq %%zmm25, %%zmm25, %%zmm25\n\tvpxord %%ymm7, %%ymm7, %%ymm7\n\tkxorq %%k5, %%k5, %%k5\n\t"
                          "xrstor64 %0" : "+m"(area) : "a"(0xe7), "d"(0) : "xmm7"));
    printf("signal, xsavec %d\n", kept);
    memset(area, 0, sizeof(area));
    KEPT(__asm__ volatile("xsave64 %0\n\tvzeroall\n\tvmovdqa64 %%zmm0, %%zmm25\n\txrstor64 %0" : "+m"(area) : "a"(0xe7), "d"(0)));
    printf("xsave %d\n", kept);
    fflush(stdout);
    KEPT(pid = system_call(57, 0, 0)); // fork
    if (pid == 0)
        _exit(kept ? 3 : 4);
    int status;
    waitpid((pid_t)pid, &status, 0);
    pthread_t t;
    pthread_create(&t, NULL, thread, &in_thread);
    for (int i = 0; i < 20; i++)
        KEPT(system_call(24, 0, 0));
    pthread_join(t, NULL);
    printf("fork %d, here %d, thread %d\n", WEXITSTATUS(status), kept, in_thread);
    return 0;
}
