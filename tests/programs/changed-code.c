/* A function that changes while registers rest in its callers: it saves and restores r13; then, overwritten by an instruction, it sets r13 and r15,
 * to what r13 holds already; then, overwritten by a system call, it is again what it was. All in one segment of a database. With an argument the
 * function is in shared memory, which is mapped twice, and written to at the other place. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LEN = 16 };
static const char saving[] = "\x41\x55\x48\x89\xf8\x41\x5d\x90\x90\x90\x90\x90\x90\x90\x90\xc3", /* push r13; mov rax, rdi; pop r13; nops; ret */
    setting[] = "\x0f\x1f\x00\x49\x89\xfd\x66\x90\x49\x89\xff\x90\x90\x90\x90\xc3"; /* nop; mov r13, rdi; nops; mov r15, rdi; nops; ret */

__asm__(".text\n"
        ".globl run\n" /* (function, where to write it) */
        "run:    push %rbx\n"
        "        push %r12\n"
        "        push %r13\n"
        "        push %r15\n"
        "        push %rbp\n"
        "        mov %rdi, %r12\n"
        "        mov %rsi, %rbp\n"
        "        mov $1, %r13d\n"
        "        mov $1, %r15d\n"
        "        mov $3000, %ebx\n"
        "1:      mov %rbx, %rdi\n"
        "        call *%r12\n"
        "        dec %rbx\n"
        "        jnz 1b\n"
        "        movdqu setting_code(%rip), %xmm0\n"
        "        movdqu %xmm0, (%rbp)\n"
        "        mov $1, %edi\n"
        "        call *%r12\n"
        "        mov $0, %eax\n" /* read(2) */
        "        mov pipe_end(%rip), %edi\n"
        "        mov %rbp, %rsi\n"
        "        mov $16, %edx\n"
        "        syscall\n"
        "        mov $3000, %ebx\n"
        "2:      mov %rbx, %rdi\n"
        "        call *%r12\n"
        "        dec %rbx\n"
        "        jnz 2b\n"
        "        mov %r13, %rdi\n"
        "        mov %r15, %rsi\n"
        "        call done\n"
        "        pop %rbp\n"
        "        pop %r15\n"
        "        pop %r13\n"
        "        pop %r12\n"
        "        pop %rbx\n"
        "        ret\n");

void run(void *function, void *writable);
void done(uint64_t r13, uint64_t r15);
char setting_code[LEN];
int pipe_end;

void done(uint64_t r13, uint64_t r15)
{
    printf("%llu %llu\n", (unsigned long long)r13, (unsigned long long)r15);
}

int main(int argc, char **argv)
{
    int fds[2], shared = argc > 1 ? memfd_create("code", 0) : -1, flags = argc > 1 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    if (argc > 1 && ftruncate(shared, 4096))
        return 1;
    void *function = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, flags, shared, 0);
    void *writable = argc > 1 ? mmap(NULL, 4096, PROT_READ | PROT_WRITE, flags, shared, 0) : function;
    if (function == MAP_FAILED || writable == MAP_FAILED || pipe(fds) || write(fds[1], saving, LEN) != LEN)
        return 1;
    pipe_end = fds[0];
    memcpy(setting_code, setting, LEN);
    memcpy(writable, saving, LEN);
    run(function, writable);
    return 0;
}
