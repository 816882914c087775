/* Lives of heap memory: each call of an allocation function is reported when it is over, with what
 * it was given and what it returned; on the way moments at which a test looks. Ends by freeing a
 * block twice. */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the test reads: an allocation, the end of one, and a place to look from. Nothing is
 * allocated by what tells it. */
__attribute__((noinline)) static void made(void *p, size_t size, const char *by)
{
    __asm__ volatile("" : : "r"(p), "r"(size), "r"(by) : "memory");
}
__attribute__((noinline)) static void ended(void *p, const char *by)
{
    __asm__ volatile("" : : "r"(p), "r"(by) : "memory");
}
__attribute__((noinline)) static void look(void)
{
    __asm__ volatile("" : : : "memory");
}

static void *get(size_t size)
{
    void *p = malloc(size);
    made(p, size, "malloc");
    return p;
}

static void *get_cleared(size_t count, size_t size)
{
    void *p = calloc(count, size);
    made(p, count * size, "calloc");
    return p;
}

static void drop(void *p)
{
    ended(p, "free");
    free(p);
}

static void *resize(void *p, size_t size)
{
    ended(p, "realloc");
    p = realloc(p, size);
    made(p, size, "realloc");
    return p;
}

static void aligned(void)
{
    void *p = aligned_alloc(256, 512), *q = NULL, *r = memalign(64, 100);
    made(r, 100, "memalign");
    made(p, 512, "aligned_alloc");
    if (posix_memalign(&q, 1024, 300) == 0)
        made(q, 300, "posix_memalign");
    look();
    drop(q);
    drop(p);
    drop(r);
}

/* A failed allocation is none, nor does a failed realloc end one. */
static void failing(void)
{
    volatile size_t too_much = SIZE_MAX / 2;
    char *p = get(40);
    if (malloc(too_much) || realloc(p, too_much) || calloc(too_much, 3))
        abort();
    look();
    free(NULL);
    drop(p);
}

static void *reuse(void *given)
{
    // Memory that another thread has freed: of a size that only its arena has.
    void *p = get(200000);
    strcpy(p, "another's");
    look();
    drop(p);
    (void)given;
    return NULL;
}

static void many(unsigned seed)
{
    static void *have[40];
    for (int i = 0; i < 1500; i++) {
        seed = seed * 1103515245 + 12345;
        unsigned at = (seed >> 16) % 40, size = (seed >> 8) % 700;
        if (!have[at])
            have[at] = get(size);
        else if (seed & 0x100)
            have[at] = resize(have[at], size + 1);
        else {
            drop(have[at]);
            have[at] = NULL;
        }
        if (i % 300 == 17)
            look();
    }
}

static void child(char *inherited)
{
    drop(inherited);
    char *own = get(333);
    look();
    drop(own);
    _exit(0);
}

int main(void)
{
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    char *leaked = get(4321), *inherited = get(600), *cleared = get_cleared(7, 30);
    char *grown = get(24);
    grown = resize(grown, 24); // stays
    char *fence = get(50);
    grown = resize(grown, 5000); // moves
    look();
    drop(cleared);
    aligned();
    failing();
    char *big = get(3 << 20); // a mapping of its own
    look();
    drop(big);

    void *shared = get(200000);
    pthread_t thread;
    drop(shared);
    pthread_create(&thread, NULL, reuse, NULL);
    pthread_join(thread, NULL);

    pid_t pid = fork();
    if (!pid)
        child(inherited);
    waitpid(pid, NULL, 0);
    look();
    drop(inherited);

    many(1);
    char *stale = get(100);
    drop(stale);
    *(volatile char *)stale = 'x'; // after free
    look();
    leaked[0] = fence[0] = grown[0] = 1;
    write(1, "freeing twice\n", 14);
    drop(fence);
    drop(get(2000));
    char *twice = get(5000);
    char *keep = get(16);
    drop(twice);
    drop(twice);
    (void)keep;
    return 0;
}
