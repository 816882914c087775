/* Values that rest in registers of run() while it calls work() again and again, which saves and restores them. r13 is never anything else. The place
 * where r14 is saved is once written to by another instruction, with the same value. */
#include <stdint.h>
#include <stdio.h>

enum { CALLS = 40000, SWAP_AT = 30000 /* calls before the end */ };

__asm__(".text\n"
        "work:   push %r13\n"
        "        push %r14\n"
        "        mov %rdi, %r13\n"
        "        mov %rdi, %r14\n"
        "        .rept 110\n"
        "        add $1, %rax\n"
        "        .endr\n"
        "        test %rdi, %rdi\n"
        "        jz 1f\n"
        "        dec %rdi\n"
        "        call work\n"
        "1:      pop %r14\n"
        "        pop %r13\n"
        "        ret\n"
        "swap:   push %r14\n"
        "        mov twin(%rip), %rax\n"
        "        mov %rax, (%rsp)\n"
        "        xor %r14d, %r14d\n"
        "        pop %r14\n"
        "        ret\n"
        ".globl run\n"
        "run:    push %rbx\n"
        "        push %r13\n"
        "        push %r14\n"
        "        mov %rdi, %r13\n"
        "        lea 1(%rdi), %r14\n"
        "        mov %rsi, %rbx\n"
        "2:      cmp %rdx, %rbx\n"
        "        jne 3f\n"
        "        call swap\n"
        "3:      mov $1, %edi\n"
        "        call work\n"
        "        dec %rbx\n"
        "        jnz 2b\n"
        "        mov %r13, %rdi\n"
        "        mov %r14, %rsi\n"
        "        mov $0, %edx\n"
        "        call done\n"
        "        pop %r14\n"
        "        pop %r13\n"
        "        pop %rbx\n"
        "        ret\n");

void run(uint64_t value, uint64_t calls, uint64_t swap_at);
void done(uint64_t kept, uint64_t swapped);
uint64_t twin;

void done(uint64_t kept, uint64_t swapped)
{
    printf("%llx %llx\n", (unsigned long long)kept, (unsigned long long)swapped);
}

int main(void)
{
    volatile uint64_t value = 0x123456789abc;
    twin = value + 1;
    run(value, CALLS, SWAP_AT);
    return 0;
}
