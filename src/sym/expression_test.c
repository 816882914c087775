/* Expressions against the compiler. This program opens itself as a module and evaluates the text of
 * C expressions where they stand. */
#include "sym/expression_test.h"

#include "base/random.h"
#include "sym/expression.h"

#include <link.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static struct sym_module *self;
static uint64_t bias;
static unsigned checked, wrong, absent;

/* --- the program's own state --- */

struct regs here; /* of the place at which something is checked; filled by the stubs below */

static bool read_memory(void *ctx, uint64_t addr, void *out, size_t len)
{
    struct iovec to = {out, len}, from = {(void *)addr, len};
    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == (ssize_t)len;
}

static struct err *read_memory_now(struct sym_context *ctx, gaddr addr, void *out, size_t len)
{
    return read_memory(NULL, addr, out, len)
               ? NULL
               : err_new(ERR_FAULT, "0x%jx is not mapped", (uintmax_t)addr);
}

static struct err *read_register_now(struct sym_context *ctx, unsigned reg, void *out, size_t len)
{
    static const uint8_t general[] = {UREG_RAX, UREG_RDX, UREG_RCX, UREG_RBX, UREG_RSI, UREG_RDI,
                                      UREG_RBP, UREG_RSP, UREG_R8,  UREG_R9,  UREG_R10, UREG_R11,
                                      UREG_R12, UREG_R13, UREG_R14, UREG_R15, UREG_RIP};
    if (reg >= sizeof(general))
        return err_new(ERR_NOT_FOUND, "register %u", reg);
    memcpy(out, &here.r[general[reg]], len < 8 ? len : 8);
    return NULL;
}

static struct sym_context now = {.read_memory = read_memory_now,
                                 .read_register = read_register_now};

/* What a checked call returns to, with the registers at that point that a callee must keep. */
_Static_assert(UREG_R15 == 0 && UREG_R14 == 1 && UREG_R13 == 2 && UREG_R12 == 3 && UREG_RBP == 4 &&
                   UREG_RBX == 5 && UREG_RIP == 16 && UREG_RSP == 19,
               "as in the stubs");
#define STUB(name)                                                                               \
    __asm__(".text\n.globl " #name "\n.type " #name ", @function\n" #name ":\n"                  \
            "movq %r15, here(%rip)\nmovq %r14, here+8(%rip)\nmovq %r13, here+16(%rip)\nmovq "    \
            "%r12, here+24(%rip)\n"                                                              \
            "movq %rbp, here+32(%rip)\nmovq %rbx, here+40(%rip)\nmovq (%rsp), %rax\nmovq %rax, " \
            "here+128(%rip)\n"                                                                   \
            "leaq 8(%rsp), %rax\nmovq %rax, here+152(%rip)\njmp " #name "_c\n")
STUB(check_here);
STUB(check_perhaps);
STUB(check_call);
STUB(check_fails);
STUB(check_shown);
STUB(check_begins);
STUB(check_parts);

/* --- calls, of this program by itself --- */

/* Sets the registers and the stack, calls, and takes the results. Below the red zone of this
 * function. */
static void __attribute__((noinline)) invoke(struct sym_call_frame *f)
{
#define AT(member) [member] "i"(offsetof(struct sym_call_frame, member))
    __asm__ volatile(
        "movq %%rsp, %%r12\n\tsubq $256, %%rsp\n\tmovl %c[stack_len](%%rbx), %%ecx\n\tsubq %%rcx, "
        "%%rsp\n\tandq $-16, %%rsp\n\t"
        "leaq %c[stack](%%rbx), %%rsi\n\tmovq %%rsp, %%rdi\n\trep movsb\n\t"
        "movq %c[vectors](%%rbx), %%xmm0\n\tmovq %c[vectors]+8(%%rbx), %%xmm1\n\tmovq "
        "%c[vectors]+16(%%rbx), %%xmm2\n\t"
        "movq %c[vectors]+24(%%rbx), %%xmm3\n\tmovq %c[vectors]+32(%%rbx), %%xmm4\n\tmovq "
        "%c[vectors]+40(%%rbx), %%xmm5\n\t"
        "movq %c[vectors]+48(%%rbx), %%xmm6\n\tmovq %c[vectors]+56(%%rbx), %%xmm7\n\t"
        "movq %c[integers](%%rbx), %%rdi\n\tmovq %c[integers]+8(%%rbx), %%rsi\n\tmovq "
        "%c[integers]+16(%%rbx), %%rdx\n\t"
        "movq %c[integers]+24(%%rbx), %%rcx\n\tmovq %c[integers]+32(%%rbx), %%r8\n\tmovq "
        "%c[integers]+40(%%rbx), %%r9\n\t"
        "movzbl %c[vector_count](%%rbx), %%eax\n\tcall *%c[target](%%rbx)\n\tmovq %%r12, %%rsp\n\t"
        "movq %%rax, %c[rax](%%rbx)\n\tmovq %%rdx, %c[rdx](%%rbx)\n\tmovq %%xmm0, "
        "%c[xmm](%%rbx)\n\tmovq %%xmm1, %c[xmm]+8(%%rbx)"
        :
        : "b"(f), AT(stack_len), AT(stack), AT(vectors), AT(integers), AT(vector_count), AT(target),
          AT(rax), AT(rdx), AT(xmm)
        : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "cc", "memory",
          "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
          "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
#undef AT
}

static uint8_t placed[1 << 16] __attribute__((aligned(16)));
static size_t placed_len;

static struct err *place_here(struct sym_caller *c, const void *data, size_t len, gaddr *out)
{
    size_t room = (len + 15) & ~(size_t)15;
    if (room > sizeof(placed) - placed_len)
        return err_new(ERR_LIMIT, "too much");
    memset(placed + placed_len, 0, room);
    if (data)
        memcpy(placed + placed_len, data, len);
    *out = (gaddr)(uintptr_t)(placed + placed_len);
    placed_len += room;
    return NULL;
}

static struct err *call_here(struct sym_caller *c, const char *name, struct sym_call_frame *f)
{
    for (unsigned i = f->vector_count; i < SYM_CALL_VECTORS; i++)
        f->vectors[i] = 0x7ff4dead00000000; // no argument
    invoke(f);
    return NULL;
}

static struct err *call_nothing(struct sym_caller *c, const char *name, struct sym_call_frame *f)
{
    f->rax = (uint64_t)(uintptr_t)placed;
    return NULL;
}

static struct sym_caller self_caller = {.memory = &now, .place = place_here, .call = call_here};

/* --- one evaluation --- */

static void complain(const char *text, const char *what)
{
    wrong++;
    printf("WRONG %s: %s\n", text, what);
}

/* What happens when something is evaluated. */
struct outcome {
    uint64_t bits;
    char *shown, *why; /* heap; why: NULL if there is a value */
};

static void outcome_deinit(struct outcome *o)
{
    free(o->shown);
    free(o->why);
}

static uint64_t bits_of(const struct sym_value *v)
{
    uint64_t bits = 0;
    memcpy(&bits, v->bytes, v->len < 8 ? v->len : 8);
    enum sym_type_kind kind = v->type->kind;
    if (kind == SYM_FLOAT && v->len == 4) {
        float f;
        memcpy(&f, v->bytes, 4);
        return bits_of_double((double)f);
    }
    if (v->len < 8 && (kind == SYM_INT || (kind == SYM_CHAR && !strstr(v->type->name, "unsigned"))))
        return (uint64_t)((int64_t)(bits << (64 - 8 * v->len)) >> (64 - 8 * v->len));
    return bits;
}

static void check_part(const struct sym_child *part, const char *whole, const char *shown);

static struct err *show_parts(const char *text, const struct sym_value *v,
                              struct sym_context *context, uint64_t first, size_t max, char **out)
{
    struct sym_children parts = {0};
    struct buf list = {0};
    TRY(sym_value_children(self, v, context, first, max, &parts));
    if (first == 0 && sym_value_has_children(self, v, context) != (parts.count > 0))
        complain(text, "has parts, or not");
    struct err *e = NULL;
    for (size_t i = 0; i < parts.count && !e; i++) {
        struct sym_child *part = &parts.items[i];
        char *shown = NULL;
        e = part->reason ? steal(part->reason)
                         : sym_format_value(self, &part->value, context, &shown);
        if (!e)
            buf_printf(&list, "%s%s=%s", i ? " " : "", part->name, shown);
        if (!e)
            check_part(part, text, shown);
        free(shown);
    }
    sym_children_deinit(&parts);
    *out = buf_steal_str(&list);
    return e;
}

/* max: 0, or how many parts are shown from `first` on instead of the whole. */
struct running {
    const struct sym_expression *e;
    struct sym_caller *caller;
    struct err *failed;
};

static bool call_number(void *ctx, uint64_t number, const uint64_t *args, size_t count,
                        uint64_t *result)
{
    struct running *r = ctx;
    r->failed = sym_expression_call(r->e, number, args, r->caller, result);
    return !r->failed;
}

static struct outcome evaluate_with(const char *text, struct sym_context *context,
                                    struct sym_caller *caller, uint64_t first, size_t max)
{
    struct sym_expression_request request = {.text = text,
                                             .addr = here.r[UREG_RIP] - bias,
                                             .bias = bias,
                                             .now = context,
                                             .caller = caller};
    struct sym_expression e;
    struct running running = {.e = &e, .caller = caller};
    struct program_host host = {
        .regs = &here, .read_memory = read_memory, .call = call_number, .ctx = &running};
    uint8_t out[PROGRAM_MAX_OUT] = {0};
    uint64_t result = 0;
    struct sym_value v = {0};
    struct outcome outcome = {0};
    struct err *error = sym_expression_compile(self, &request, &e);
    if (!error) {
        enum program_end end = program_run(&e.program, &host, out, &result);
        error =
            running.failed ? running.failed : sym_expression_value(self, &e, end, result, out, &v);
        struct sym_expression_context kept;
        sym_expression_context_init(&kept, &e, end, out, &now);
        if (!error)
            error = max ? show_parts(text, &v, &now, first, max, &outcome.shown)
                        : sym_format_value(self, &v, &kept.base, &outcome.shown);
        sym_expression_deinit(&e);
    }
    if (error)
        outcome.why = xstrdup(err_message(error));
    else
        outcome.bits = bits_of(&v);
    err_free(error);
    sym_value_deinit(&v);
    return outcome;
}

static struct outcome evaluate(const char *text, struct sym_context *context, uint64_t first,
                               size_t max)
{
    return evaluate_with(text, context, NULL, first, max);
}

static void check_part(const struct sym_child *part, const char *whole, const char *shown)
{
    cleanup(freep) char *expression = sym_child_expression(part, whole);
    if (!expression)
        return;
    struct outcome o = evaluate(expression, &now, 0, 0);
    checked++;
    if (o.why || strcmp(o.shown, shown) != 0)
        complain(expression, o.why ? o.why : o.shown);
    outcome_deinit(&o);
}

static void compare(const char *text, const struct outcome *o, uint64_t want, int is_real,
                    bool may_be_absent)
{
    checked++;
    if (o->why && may_be_absent) {
        absent++;
    } else if (o->why) {
        complain(text, o->why);
    } else if (o->bits != want) {
        double a, b;
        char told[200];
        memcpy(&a, &o->bits, 8);
        memcpy(&b, &want, 8);
        snprintf(told, sizeof(told), is_real ? "%#llx (%g), want %#llx (%g)" : "%#llx, want %#llx",
                 (unsigned long long)o->bits,
                 is_real ? *(unsigned long long *)&a : (unsigned long long)want,
                 (unsigned long long)want, b);
        complain(text, told);
    }
}

static void check_both(const char *text, uint64_t want, int is_real, bool may_be_absent)
{
    struct sym_context *contexts[] = {NULL, &now}; // at any execution, and once
    for (int k = 0; k < 2; k++) {
        struct outcome o = evaluate(text, contexts[k], 0, 0);
        compare(text, &o, want, is_real, may_be_absent);
        outcome_deinit(&o);
    }
}

void check_call_c(const char *text, uint64_t bits, int is_real);
void check_call_c(const char *text, uint64_t bits, int is_real)
{
    placed_len = 0;
    struct outcome o = evaluate_with(text, &now, &self_caller, 0, 0);
    compare(text, &o, bits, is_real, false);
    outcome_deinit(&o);
}

void check_here_c(const char *text, uint64_t bits, int is_real);
void check_here_c(const char *text, uint64_t bits, int is_real)
{
    check_both(text, bits, is_real, false);
}

void check_perhaps_c(const char *text, uint64_t bits, int is_real);
void check_perhaps_c(const char *text, uint64_t bits, int is_real)
{
    check_both(text, bits, is_real, true);
}

void check_fails_c(const char *text, const char *want);
void check_fails_c(const char *text, const char *want)
{
    struct outcome o = evaluate(text, NULL, 0, 0);
    checked++;
    if (!o.why || !strstr(o.why, want))
        complain(text, o.why ? o.why : "has a value");
    outcome_deinit(&o);
}

static void check_text(const char *text, struct sym_context *context, uint64_t first, size_t max,
                       const char *want, size_t len)
{
    struct outcome o = evaluate(text, context, first, max);
    checked++;
    if (o.why || strncmp(o.shown, want, len) != 0)
        complain(text, o.why ? o.why : o.shown);
    outcome_deinit(&o);
}

void check_shown_c(const char *text, const char *want);
void check_shown_c(const char *text, const char *want)
{
    check_text(text, NULL, 0, 0, want, SIZE_MAX);
    check_text(text, &now, 0, 0, want, SIZE_MAX);
}

void check_begins_c(const char *text, const char *want);
void check_begins_c(const char *text, const char *want)
{
    check_text(text, &now, 0, 0, want, strlen(want));
}

void check_parts_c(const char *text, uint64_t first, uint64_t max, const char *want);
void check_parts_c(const char *text, uint64_t first, uint64_t max, const char *want)
{
    check_text(text, &now, first, max, want, SIZE_MAX);
}

/* --- C --- */

enum colour { RED, GREEN = 5, BLUE = -1 };
enum __attribute__((packed)) level { LOW, HIGH = 200 };
enum mask { MANY = 200, ALL = 0xffffffff };
struct inner {
    int x, y;
};
struct node {
    struct node *next;
    int value;
    const char *name;
    struct inner pair[3];
    union {
        uint32_t word;
        uint8_t byte[4];
    };
    unsigned low : 3, high : 13;
    int sign : 5;
    enum colour colour;
    double weight;
    char text[12];
    bool flag;
};
typedef struct node node_t;

static int counter = 41;
int shared_number = -7;
static struct node third = {NULL,         3,   "third", {{1, 2}, {3, 4}, {5, 6}},
                            {0x01020304}, 5,   4097,    -9,
                            GREEN,        2.5, "words", true};
static struct node second = {
    &third, -2, "second", {{7, 8}, {9, 10}, {11, 12}}, {0xff}, 1, 2, 3, BLUE, -0.125, "", false};

static int __attribute__((noinline)) function(int a)
{
    return a + 1;
}

static void __attribute__((noinline, optimize("O0")))
test_c(int argc, struct node *list, const double *reals)
{
    int i = 2, *p = &i, array[4] = {10, 20, 30, 40}, grid[2][3] = {{1, 2, 3}, {4, 5, 6}};
    unsigned u = 4000000000u;
    short s = -3;
    unsigned char c = 200;
    long l = -5000000000;
    unsigned long ul = 18000000000000000000ul;
    float f = 0.1f;
    double d = 1.5;
    void *nothing = NULL;
    const char *string = "a string";
    struct node local = second;
    struct node *walk = list;
    uint8_t byte = 200, bytes[2] = {250, 251};
    int8_t signed_byte = -100;
    enum level level = HIGH;
    enum mask mask = ALL, many = MANY;
    long above_half = (1l << 62) + (1l << 38) +
                      1; // between two floats, above the middle by less than a double tells
    unsigned long ul_above_half = (1ul << 63) + (1ul << 39) + 1;

    CHECK(byte + 1);
    CHECK(-byte);
    CHECK(byte > 100);
    CHECK(signed_byte - 1);
    CHECK(bytes[0] + bytes[1]);
    CHECK(*(uint8_t *)&byte >> 1);
    CHECK((uint8_t)200 + 1);
    CHECK((level == HIGH) + level);
    CHECK(HIGH + 1);
    CHECK((mask == ALL) + (ALL + 1 == 0));
    CHECK_REAL((float)above_half);
    CHECK_REAL((float)-above_half);
    CHECK_REAL((float)ul_above_half);
    CHECK_REAL(above_half * 1.0f);
    CHECK_REAL((float)(above_half >> 20));
    CHECK_REAL(1e-320);
    CHECK_REAL(1.00000005960464477540f); // between two floats likewise
    CHECK(i);
    CHECK(-i + 3 * (i << 2) - 7 % 4);
    CHECK(u);
    CHECK(u + 1);
    CHECK(u * 2);
    CHECK(i - u);
    CHECK(i < u);
    CHECK(-i < u);
    CHECK(-1 < i);
    CHECK(l / 3);
    CHECK(l % 7);
    CHECK(l < ul);
    CHECK(ul / 3);
    CHECK(ul >> 60);
    CHECK(l >> 3);
    CHECK(s);
    CHECK(s + c);
    CHECK(c << 24);
    CHECK((signed char)c);
    CHECK((unsigned char)(c + 100));
    CHECK((unsigned)s);
    CHECK((unsigned long)s);
    CHECK(~c);
    CHECK(!i);
    CHECK(!nothing);
    CHECK(nothing == 0);
    CHECK(*p);
    CHECK(p);
    CHECK(&i);
    CHECK(p + 3);
    CHECK(&array[3] - array);
    CHECK(array[1] + array[i]);
    CHECK(*(array + 3));
    CHECK(2 [array]);
    CHECK(grid[1][2]);
    CHECK(*grid[1]);
    CHECK(grid[1] == &grid[1][0]);
    CHECK(sizeof(grid));
    CHECK(sizeof grid[0]);
    CHECK(sizeof(struct node));
    CHECK(sizeof(node_t *));
    CHECK(i ? l : u);
    CHECK(i == 2 && u > 5 || *(int *)0 == 1);
    CHECK(i == 3 && *(int *)0 == 1);
    CHECK(argc > 100 ? 1 : argc);
    CHECK(0x7fffffff + 0u);
    CHECK(4294967295);
    CHECK(0xffffffff);
    CHECK(0777 + 0b101);
    CHECK('a' + '\n' + '\x41' + '\101');
    CHECK(1 ? -1 : 0u);
    CHECK_REAL(d);
    CHECK_REAL(f);
    CHECK_REAL(f * 3);
    CHECK_REAL(f + f * f);
    CHECK_REAL(d * f - i);
    CHECK_REAL(d / 3);
    CHECK_REAL(-d);
    CHECK_REAL((float)d / 3);
    CHECK_REAL(u * d);
    CHECK_REAL((double)ul);
    CHECK_REAL(reals[1] * 1e3);
    CHECK((int)(d * 10));
    CHECK((unsigned long)(double)ul);
    CHECK(d > 1.4 && f < d);
    CHECK(!d);
    CHECK((bool)d + (bool)u + (_Bool)0);
    CHECK(list->next == &third);
    CHECK(list->next->value + list->value);
    CHECK(list->next->pair[1].y);
    CHECK((*list).next->pair[i].x);
    CHECK(list->next->word);
    CHECK(list->next->byte[2]);
    CHECK(list->next->low * 1000 + list->next->high);
    CHECK(list->next->sign);
    CHECK(list->next->low - 6);
    CHECK(list->colour + 0);
    CHECK(list->colour == BLUE);
    CHECK(list->next->colour == GREEN ? RED : 9);
    CHECK_REAL(list->weight * list->next->weight);
    CHECK(list->next->flag);
    CHECK(local.value);
    CHECK(local.next->next == 0);
    CHECK(&local.pair[2].y);
    CHECK(((struct node *)walk)->value);
    CHECK(((const node_t *)(void *)walk)->next->value);
    CHECK((long)walk & 7);
    CHECK(*(unsigned char *)&u);
    CHECK(*(unsigned short *)((char *)&u + 1));
    CHECK(counter + shared_number);
    CHECK(third.pair[0].x);
    CHECK((uint8_t)u + (int8_t)c + (uint64_t)l);
    CHECK(function == 0);
    CHECK(function);
    CHECK(string[2]);
    CHECK(*string == 'a');
    CHECK((string + 2)[1] == 't');

    check_here("string == \"a string\"", 1, 0);
    check_here("\"a strin\" == string", 0, 0);
    check_here("list->name != \"second\"", 0, 0);
    check_here("list->next->text == \"words\"", 1, 0);
    check_here("contains(string, \"str\") && streq(list->name, \"second\")", 1, 0);
    check_here("contains(string, \"x\")", 0, 0);
    check_here("u as u8", (uint8_t)u, 0);
    check_here("$rsp == $sp && $pc == $rip", 1, 0);
    check_here("*(int *)&i + (short)$eax - (short)$eax", 2, 0);
    check_here("walk.value", (uint64_t)-2, 0);
    check_here("sizeof(list->next->pair@2)", 2 * sizeof(second.pair), 0);

    check_shown("i", "2");
    check_shown("string", ({
                    static char text[64];
                    snprintf(text, sizeof(text), "0x%lx \"a string\"", (unsigned long)string);
                    text;
                }));
    check_shown("list->next->text", "\"words\"");
    check_shown("list->next->pair[1]", "{x = 3, y = 4}");
    check_shown("array", "{10, 20, 30, 40}");
    check_shown("*p@1", "{2}");
    check_shown("list->colour", "BLUE");
    check_shown("level", "HIGH");
    check_shown("many", "MANY");
    check_shown("d * 2", "3");
    check_shown("(char)97", "97 'a'");
    check_shown("(const char *)16", "0x10 <not mapped>");

    check_fails("missing + 1", "column 1: there is no missing");
    check_fails("i + missing", "column 5");
    check_fails("list->nothing", "has no member nothing");
    check_fails("i->value", "has no members");
    check_fails("i.value", "has no members");
    check_fails("*i", "does not go with int");
    check_fails("*nothing", "cast it first");
    check_fails("i = 3", "cannot be changed");
    check_fails("i += 3", "cannot be changed");
    check_fails("i++", "cannot be changed");
    check_fails("function(3)", "are called where one moment is looked at");
    check_fails("i +", "column 4: a value is missing");
    check_fails("(i", "')' is missing");
    check_fails("i 3", "column 3");
    check_fails("'ab'", "not one character");
    check_fails("\"abc", "does not end");
    check_fails("list % 2", "% does not go with");
    check_fails("1 / (i - 2)", "division by zero");
    check_fails("*(int *)8", "0x8 cannot be read");
    check_fails("(struct nobody *)p", "there is no type struct nobody");
    check_fails("$rxx", "no register $rxx");
    check_fails("$rax@2", "has no place");
    check_fails("(i + 1)@2", "has no place");
    check_fails("&(i + 1)", "no address");
    check_fails("\"text\"", "only be compared");
    check_fails("99999999999999999999", "not a number");
    check_fails("", "a value is missing");
    check_fails("#", "column 1");
    check_fails("1e999", "not a number");
    check_fails("printf", "another module");
    check_fails("f % 2", "does not go with float");
    check_fails("local + 1", "does not go with struct node");
}

/* Optimised code: values in registers, in pieces, as constants. What is not there must say so; what
 * is there must be right. */
static int __attribute__((noinline, optimize("O2")))
test_optimised(int a, long b, double d, struct inner pair, const struct node *n)
{
    int sum = a * 3 + pair.x;
    long product = b * a, constant = 1234567;
    const struct node *last = n->next;
    for (int k = 0; k < 3; k++) {
        sum += pair.y ^ k;
        CHECK_PERHAPS(k);
        CHECK_PERHAPS(sum);
        CHECK_PERHAPS(product + constant);
        CHECK_PERHAPS(last->value);
        CHECK_PERHAPS(n->next->pair[k].x + a);
        CHECK_PERHAPS(pair.x + pair.y);
        CHECK_PERHAPS(b);
    }
    return sum + (int)product + (int)d;
}

/* Whatever the text is, there is an answer. */
static void test_soup(void)
{
    static const char *const words[] = {"i",
                                        "(",
                                        ")",
                                        "*",
                                        "&",
                                        "->",
                                        ".",
                                        "[",
                                        "]",
                                        "+",
                                        "-",
                                        "1",
                                        "0x",
                                        "\"a\"",
                                        "'b'",
                                        "$rax",
                                        "struct",
                                        "node",
                                        "?",
                                        ":",
                                        "==",
                                        "third",
                                        "<<",
                                        "sizeof",
                                        "unsigned",
                                        "@",
                                        "as",
                                        "::",
                                        "1.5e",
                                        "!",
                                        "~",
                                        "\\",
                                        "\x80",
                                        "contains",
                                        ",",
                                        "%",
                                        "counter",
                                        "value",
                                        "function_1(",
                                        "function_7(",
                                        "function_0()",
                                        "outer::",
                                        "second",
                                        "invoke",
                                        "operator"};
    uint64_t rng = 7;
    for (int n = 0; n < 20000; n++) {
        struct buf text = {0};
        for (uint64_t left = 1 + random_below(&rng, 12); left; left--)
            buf_printf(&text, "%s%s", words[random_below(&rng, sizeof(words) / sizeof(words[0]))],
                       random_below(&rng, 3) ? "" : " ");
        struct sym_caller nobody = {.memory = &now, .place = place_here, .call = call_nothing};
        placed_len = 0;
        struct outcome o =
            evaluate_with(buf_cstr(&text), n % 2 ? &now : NULL, n % 3 ? &nobody : NULL, 0, n % 4);
        outcome_deinit(&o);
        buf_deinit(&text);
    }
    struct buf deep = {0};
    for (int n = 0; n < 3000; n++)
        buf_str(&deep, "(");
    check_fails(buf_cstr(&deep), "too");
    deep.len = 0;
    for (int n = 0; n < 1000; n++)
        buf_str(&deep, "1+");
    check_fails(buf_cstr(&deep), "too");
    buf_deinit(&deep);
}

static int find_bias(struct dl_phdr_info *info, size_t size, void *ctx)
{
    bias = info->dlpi_addr; // the first is the program itself
    return 1;
}

int main(void)
{
    static const double reals[] = {0.5, 1.25};
    dl_iterate_phdr(find_bias, NULL);
    now.bias = bias;
    struct err *e = sym_module_open("/proc/self/exe", NULL, &self);
    if (e) {
        printf("%s\n", err_message(e));
        return 1;
    }
    test_c(3, &second, reals);
    (void)test_optimised(5, 1000, 2.5, (struct inner){6, 7}, &second);
    test_cplusplus();
    test_containers();
    test_random();
    test_calls();
    test_soup();
    sym_module_close(self);
    printf("%u expressions, %u optimized out, %u wrong\n", checked, absent, wrong);
    return wrong || checked < 1000 || absent > 40;
}
