/* Arguments and environment: execve(2) copies them from the old program's memory onto the new one's
 * stack (System V psABI 3.4.1, "Initial Stack and Register State"), behind the pointers to them. A
 * script's interpreter is given other first arguments than execve(2) was, but the last ones are the
 * same. Only strings that are equal on both sides are told. */
#include "query/exec_strings_int.h"

#include <sys/syscall.h>

enum { MOST_STRINGS = 1 << 16, LONGEST = 1 << 17 /* MAX_ARG_STRLEN */ };

struct string {
    gaddr at;
    size_t off, len; /* in the side's bytes, with the zero at the end */
};
typedef VEC(struct string) string_list;
/* The old program, or the new one. */
struct side {
    string_list arguments, environment;
    struct buf bytes;
};

static void side_deinit(struct side *s)
{
    vec_deinit(&s->arguments);
    vec_deinit(&s->environment);
    buf_deinit(&s->bytes);
}

static struct err *read_string(struct replay *r, uint32_t space, gaddr at, struct buf *out)
{
    for (size_t len = 0; len < LONGEST;) {
        char piece[PAGE_SIZE];
        size_t n = PAGE_SIZE - (at + len) % PAGE_SIZE, got = 0;
        TRY(replay_read(r, space, at + len, piece, n, &got));
        size_t used = strnlen(piece, got);
        buf_add(out, piece, used < got ? used + 1 : used);
        if (used < got)
            return NULL;
        len += used;
    }
    return err_new(ERR_FAULT, "a string that does not end");
}

/* The strings that a list of pointers, with a zero at its end, is of. *at: the list; then what is
 * behind it. */
static struct err *read_list(struct replay *r, uint32_t space, gaddr *at, struct buf *bytes,
                             string_list *out)
{
    for (unsigned n = 0; n < MOST_STRINGS; n++) {
        struct string one = {.off = bytes->len};
        TRY(replay_read(r, space, *at, &one.at, 8, NULL));
        *at += 8;
        if (!one.at)
            return NULL;
        TRY(read_string(r, space, one.at, bytes));
        one.len = bytes->len - one.off;
        vec_push(out, one);
    }
    return err_new(ERR_FAULT, "too many strings");
}

static struct err *read_new(struct query_engine *q, event_no number, uint32_t task, struct side *s,
                            uint32_t *space_out)
{
    struct replay *r;
    struct regs regs;
    TRY(state_at(q, (struct moment){number, 0}, &r));
    TRY(space_of_task(r, task, space_out));
    TRY(replay_regs(r, task, &regs));
    gaddr at = regs.r[UREG_RSP] + 8; // behind their number
    TRY(read_list(r, *space_out, &at, &s->bytes, &s->arguments));
    return read_list(r, *space_out, &at, &s->bytes, &s->environment);
}

static struct err *read_old(struct query_engine *q, event_no number, uint32_t task, struct side *s,
                            uint32_t *space_out)
{
    struct replay *r;
    struct regs regs;
    TRY(state_at(q, moment_before_event(q, number), &r));
    TRY(space_of_task(r, task, space_out));
    TRY(replay_regs(r, task, &regs));
    bool at_directory = regs.r[UREG_ORIG_RAX] == SYS_execveat;
    gaddr arguments = regs.r[at_directory ? UREG_RDX : UREG_RSI],
          environment = regs.r[at_directory ? UREG_R10 : UREG_RDX];
    if (arguments)
        TRY(read_list(r, *space_out, &arguments, &s->bytes, &s->arguments));
    return environment ? read_list(r, *space_out, &environment, &s->bytes, &s->environment) : NULL;
}

static void add_pair(const struct side *from, const struct string *a, const struct side *to,
                     const struct string *b, struct exec_strings *out)
{
    if (a->len == b->len && memcmp(from->bytes.data + a->off, to->bytes.data + b->off, a->len) == 0)
        vec_push(&out->all, (struct exec_string){a->at, b->at, a->len});
}

struct err *exec_strings_of(struct query_engine *q, event_no number, uint32_t task,
                            struct exec_strings *out)
{
    struct side from = {0}, to = {0};
    *out = (struct exec_strings){0};
    struct err *e = read_new(q, number, task, &to, &out->new_space);
    if (!e)
        e = read_old(q, number, task, &from, &out->old_space);
    size_t count = from.arguments.count, more = to.arguments.count;
    for (size_t i = 0; i < count && i < more && !e; i++) // from the last one on
        add_pair(&from, &from.arguments.items[count - 1 - i], &to,
                 &to.arguments.items[more - 1 - i], out);
    for (size_t i = 0;
         i < from.environment.count && from.environment.count == to.environment.count && !e; i++)
        add_pair(&from, &from.environment.items[i], &to, &to.environment.items[i], out);
    side_deinit(&from);
    side_deinit(&to);
    if (e && (err_kind(e) == ERR_FAULT ||
              err_kind(e) == ERR_NOT_FOUND)) { // the first program has none before it
        err_free(e);
        e = NULL;
        out->all.count = 0;
    }
    return e;
}

void exec_strings_deinit(struct exec_strings *s)
{
    vec_deinit(&s->all);
}
