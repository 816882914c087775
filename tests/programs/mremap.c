/* mremap in the kinds that rr 5.6 can replay: grow in place and elsewhere, shrink, of private and shared memory and of a file, and an
 * old size of 0, which maps shared memory a second time. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096 };

int main(void)
{
    char *area = mmap(NULL, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *a = mmap(area, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    strcpy(a, "private");
    mprotect(a + PAGE, PAGE, PROT_READ);
    munmap(area + 2 * PAGE, 14 * PAGE);
    a = mremap(a + PAGE, PAGE, 4 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED ? NULL : a;
    char *b = mremap(a, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, area + 20 * PAGE);
    printf("%s\n", b);
    b = mremap(b, PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, area + 30 * PAGE);
    b[2 * PAGE] = 'x';
    b = mremap(b, 3 * PAGE, PAGE, 0);
    printf("%s %d\n", b, mincore(b + PAGE, PAGE, (unsigned char[1]){0}));

    char *s = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *twin = mremap(s, 0, 2 * PAGE, MREMAP_MAYMOVE);
    strcpy(s + PAGE, "shared");
    printf("%s\n", twin + PAGE);
    char *moved = mremap(s, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, area + 40 * PAGE);
    strcpy(moved, "moved");
    printf("%s %s\n", twin, moved + PAGE);

    int fd = open("mremap.tmp", O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (char c = 'a'; c < 'e'; c++) {
        char page[PAGE];
        memset(page, c, PAGE);
        write(fd, page, PAGE);
    }
    char *f = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, PAGE);
    f[1] = 'B';
    f = mremap(f, PAGE, 3 * PAGE, MREMAP_MAYMOVE);
    printf("%.2s %.2s %.2s\n", f, f + PAGE, f + 2 * PAGE);
    char *g = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    g = mremap(g, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, area + 50 * PAGE);
    g[2 * PAGE] = 'C';
    pwrite(fd, "D", 1, 3 * PAGE);
    printf("%.2s %.2s\n", g + 2 * PAGE, g + 3 * PAGE);
    unlink("mremap.tmp");
    return 0;
}
