/* What gdb changes. The past cannot be changed, so the first write begins a diversion
 * (query/diversion.h): a copy of this moment, of which registers and memory are shown from then on,
 * and in which functions of the program run.
 *
 *     recorded --- a register or memory is written ---> diverted --- run, while registers differ from the recorded ones ---> diverted
 *         ^                                                |
 *         +------- run: gdb has put all registers back; run backward; going to another moment ------+
 *
 * When gdb calls a function, it writes registers and the stack, runs up to a breakpoint at the
 * return address, and writes the registers back. What such calls and `set var` left in memory is
 * seen by later ones, until time goes on. */
#include "gdbstub/stub_int.h"

#include "gdbstub/hex.h"
#include "gdbstub/registers.h"
#include "query/diversion.h"

static struct err *begin(struct gdb_stub *s)
{
    if (s->diversion)
        return NULL;
    TRY(query_divert(s->past.q, s->now, &s->diversion));
    s->registers.len = 0;
    return NULL;
}

void divert_end(struct gdb_stub *s)
{
    query_diversion_end(s->diversion);
    s->diversion = NULL;
    s->diverted = 0;
    s->registers.len = 0;
}

/* --- registers --- */

static struct err *set_register(struct gdb_stub *s, uint64_t number, const struct buf *bytes)
{
    char name[16];
    size_t offset, len;
    uint8_t tags[4] = {0};
    if (!registers_part(number, name, &offset, &len) || bytes->len != len)
        return err_new(ERR_USAGE, "there is no such register");
    TRY(begin(s));
    const uint8_t *data = bytes->data;
    if (str_eq(name, "ftw")) {
        tags[0] = registers_abridge_tags((uint16_t)(data[0] | data[1] << 8));
        data = tags;
    }
    TRY(query_diversion_set_register(s->diversion, s->general, name, offset, data, len));
    s->diverted = s->general;
    s->registers.len = 0;
    return NULL;
}

/* orig_rax tells the kernel whether a system call is to be restarted: nobody else asks for it. */
struct err *divert_write_register(struct gdb_stub *s, uint64_t number, const char *digits)
{
    size_t at, count;
    cleanup(buf_deinit) struct buf bytes = {0};
    if (!registers_find(number, &at, &count) || strlen(digits) < count)
        return err_new(ERR_USAGE, "there is no such register");
    TRY(fetch_registers(s));
    hex_read_bytes(digits, &bytes);
    if (number == REGISTER_ORIG_RAX ||
        strncmp(digits, (const char *)s->registers.data + at, count) == 0)
        return NULL;
    if (bytes.len < count / 2)
        return err_new(ERR_USAGE, "the register's value is not known");
    bytes.len = count / 2;
    return set_register(s, number, &bytes);
}

struct err *divert_write_registers(struct gdb_stub *s, const char *digits)
{
    size_t at, count, len = strlen(digits);
    for (uint64_t number = 0; registers_find(number, &at, &count) && at + count <= len; number++) {
        if (digits[at] != 'x')
            TRY(divert_write_register(s, number, digits + at));
    }
    return NULL;
}

/* --- memory --- */

struct err *divert_read_memory(struct gdb_stub *s, gaddr addr, size_t len, struct buf *out)
{
    size_t done;
    cleanup(freep) uint8_t *data = xmalloc(len);
    TRY(query_diversion_read(s->diversion, s->general, addr, data, len, &done));
    if (!done)
        return err_new(ERR_FAULT, "nothing is mapped at 0x%llx", (unsigned long long)addr);
    buf_add(out, data, done);
    return NULL;
}

struct err *divert_write_memory(struct gdb_stub *s, gaddr addr, const void *data, size_t len)
{
    cleanup(buf_deinit) struct buf now = {0};
    if (!len)
        return NULL;
    if (!s->diversion && len <= MAX_PACKET) {
        TRY(past_memory(&s->past, s->now, s->general, addr, len, &now));
        if (now.len == len && memcmp(now.data, data, len) == 0)
            return NULL;
    }
    TRY(begin(s));
    return query_diversion_write(s->diversion, s->general, addr, data, len);
}

/* --- running --- */

struct err *divert_goes_on(struct gdb_stub *s, bool *out)
{
    cleanup(buf_deinit) struct buf recorded = {0}, now = {0};
    *out = false;
    if (!s->diverted)
        return NULL;
    TRY(past_registers(&s->past, s->now, s->diverted, &recorded));
    TRY(past_diverted_registers(s->diversion, s->diverted, &now));
    *out = now.len != recorded.len || memcmp(now.data, recorded.data, now.len) != 0;
    return NULL;
}

static void show_output(void *ctx, const void *data, size_t len)
{
    send_text(ctx, data, len);
}

static void show_refused(void *ctx, const char *syscall)
{
    cleanup(freep) char *line =
        str_format("[%s has no effect in a recording: it failed with ENOSYS]", syscall);
    send_output(ctx, line);
}

static const struct breakpoint *inserted_at(const struct gdb_stub *s, gaddr pc)
{
    vec_each (b, &s->breakpoints) {
        if (b->inserted && b->kind <= 1 && b->addr == pc)
            return b;
    }
    return NULL;
}

/* Why gdb is told that it stands. */
static void end_run(struct gdb_stub *s, const struct query_diversion_run *run)
{
    static const char *const said[] = {
        [DIVERTED_ENDS] = "[the program would end here]",
        [DIVERTED_WAITS] =
            "[the program would wait here for another thread; none runs in a recording]",
        [DIVERTED_TOO_LONG] =
            "[two billion instructions were executed; the program stands where it came to]",
    };
    const struct breakpoint *hit = inserted_at(s, run->pc);
    s->why = STOP_INTERRUPT;
    switch (run->why) {
    case DIVERTED_STEPPED:
        s->why = STOP_STEPPED;
        break;
    case DIVERTED_BREAK:
        s->why = STOP_BREAKPOINT;
        s->hit_kind = hit ? hit->kind : 0;
        break;
    case DIVERTED_SIGNAL:
        s->why = STOP_SIGNAL;
        s->signal = run->signal;
        break;
    default:
        send_output(s, said[run->why]);
    }
}

/* As a live program: where it stands at a breakpoint that gdb has not taken away, that is hit. */
static struct err *run_once(struct gdb_stub *s, const struct resume *r,
                            struct query_diversion_run *run)
{
    enum { MOST_STEPS = 1000 }; // gdb asks again
    if (!run->step && inserted_at(s, run->pc)) {
        run->why = DIVERTED_BREAK;
        return NULL;
    }
    for (unsigned i = 0; i < MOST_STEPS; i++) {
        TRY(query_diversion_run(s->diversion, run));
        if (!run->step || run->why != DIVERTED_STEPPED || run->pc < r->range_start ||
            run->pc >= r->range_end)
            break;
    }
    return NULL;
}

static gaddr pc_of_digits(const struct buf *registers)
{
    size_t at, count;
    uint64_t pc = 0;
    cleanup(buf_deinit) struct buf bytes = {0};
    if (registers_find(REGISTER_RIP, &at, &count) && at + count <= registers->len)
        hex_read_bytes((const char *)registers->data + at, &bytes);
    if (bytes.len >= sizeof(pc))
        memcpy(&pc, bytes.data, sizeof(pc));
    return pc;
}

/* Threads but the one that was changed stand still, unless they are stepped: gdb does so to get one
 * off the breakpoint where it stands before another runs, and takes it for a hit of that if it has
 * not moved. */
struct err *divert_run(struct gdb_stub *s, const struct resume *r)
{
    VEC(gaddr) breaks = {0};
    uint32_t task = r->step ? r->step : s->diverted;
    vec_each (b, &s->breakpoints) {
        if (b->inserted && b->kind <= 1)
            vec_push(&breaks, b->addr);
    }
    s->task = s->general = task;
    struct err *e = fetch_registers(s);
    struct query_diversion_run run = {.task = task,
                                      .breaks = breaks.items,
                                      .break_count = breaks.count,
                                      .step = r->step != 0,
                                      .cancelled = packet_interrupted(s->link),
                                      .ctx = s,
                                      .output = show_output,
                                      .refused = show_refused,
                                      .pc = pc_of_digits(&s->registers)};
    if (!e)
        e = run_once(s, r, &run);
    vec_deinit(&breaks);
    s->registers.len = 0;
    if (e && err_kind(e) != ERR_CANCELLED) {
        send_output(s, err_message(e));
        err_free(e);
        s->why = STOP_INTERRUPT;
        return NULL;
    }
    TRY(e);
    end_run(s, &run);
    return NULL;
}
