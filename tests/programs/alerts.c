/* Goes wrong in several ways, in children; lives on itself. Status 3. */
#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int value)
{
    assert(value == 7 && "seven is wanted");
}

/* By its name a part of the C++ runtime, which is not whom an alert is about. */
static void __cxa_check(int value)
{
    assert(value == 9);
}

static void free_twice(void)
{
    void *p = malloc(5000);
    void *volatile again = p;
    void *keep = malloc(16);
    free(p);
    free(again);
    free(keep);
}

static void overrun(volatile size_t len)
{
    char text[8];
    memset(text, 'x', len);
    printf("%.8s\n", text);
}

static void handled(int number)
{
    (void)number;
}

static void in_child(void (*wrong)(void))
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        wrong();
        _exit(0);
    }
    waitpid(child, &status, 0);
}

static void fails(void) { check(8); }
static void fails_in_runtime(void) { __cxa_check(10); }
static void exits(void) { _exit(42); }
static void ends_well(void) { check(7); }
static void smashes(void) { overrun(64); }
static void crashes(void) { *(volatile int *)16 = 1; }
static void is_killed(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

int main(void)
{
    void (*const wrong[])(void) = {ends_well, fails, fails_in_runtime, free_twice, exits, smashes, is_killed, crashes};
    signal(SIGUSR1, handled);
    raise(SIGUSR1);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        in_child(wrong[i]);
    return 3;
}
