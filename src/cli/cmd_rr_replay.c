/* `pernosco rr TRACE replay -a`: the recording from first to last event with every check on. What
 * the program wrote to its stdout and stderr comes out on ours. */
#include "cli/cmd_rr_replay.h"

#include "cli/cmd_rr.h"
#include "replay/replay.h"

#include <argp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { EXPLAINED_INSTRUCTIONS = 2000, OPTION_WITHOUT = 256, OPTION_DUMP_BLOCKS };

struct options {
    bool all, verbose, quiet;
    enum engine_mode mode;
    VEC(const char *) hidden; /* CPU features */
    struct moment until;
    const char *blocks; /* file for translated blocks */
    const char *trace;  /* as given; NULL: the latest */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    char *end;
    switch (key) {
    case 'a':
        o->all = true;
        return 0;
    case 'v':
        o->verbose = true;
        return 0;
    case 'q':
        o->quiet = true;
        return 0;
    case 'm':
        if (strcmp(arg, "count") != 0 && strcmp(arg, "calls") != 0 && strcmp(arg, "index") != 0)
            argp_error(state, "mode is count, calls or index, not %s", arg);
        o->mode = strcmp(arg, "index") == 0   ? ENGINE_INDEX
                  : strcmp(arg, "calls") == 0 ? ENGINE_CALLS
                                              : ENGINE_COUNT;
        return 0;
    case 'u':
        o->until.event = strtoull(arg, &end, 10);
        o->until.icount = *end == ':' ? strtoull(end + 1, &end, 10) : 0;
        if (*end)
            argp_error(state, "a moment is EVENT or EVENT:INSTRUCTIONS, not %s", arg);
        return 0;
    case OPTION_DUMP_BLOCKS:
        o->blocks = arg;
        return 0;
    case OPTION_WITHOUT:
        vec_push(&o->hidden, arg);
        return 0;
    case ARGP_KEY_ARG:
        if (o->trace)
            argp_error(state, "only one trace");
        o->trace = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option table[] = {
    {"autopilot", 'a', NULL, 0, "Replay everything, checking each event's registers and ticks", 0},
    {"verbose", 'v', NULL, 0,
     "Tell every event on stderr, and if the replay fails the instructions before", 0},
    {"quiet", 'q', NULL, 0, "Do not pass the program's output on", 0},
    {"mode", 'm', "count|calls|index", 0, "Translation to replay with (count)", 0},
    {"until", 'u', "EVENT[:INSTRUCTIONS]", 0, "Stop there and print the running task's registers",
     0},
    {"dump-blocks", OPTION_DUMP_BLOCKS, "FILE", 0,
     "Write each translated block there: its instructions beside those made of them", 0},
    {"without", OPTION_WITHOUT, "FEATURE", 0,
     "As if this CPU lacked it, for example AVX512F; may be given several times", 0},
    {0},
};
static const struct argp argp = {
    table, parse, "[TRACE]", "The recording from first to last event, with every check on.",
    NULL,  NULL,  NULL};

/* Passes on what a task wrote. */
static struct err *pass_output(struct replay *r, const struct frame *f)
{
    if (!frame_is_output(f))
        return NULL;
    cleanup(buf_deinit) struct buf out = {0};
    TRY(replay_output(r, f, &out));
    fwrite(out.data, 1, out.len, f->regs.r[UREG_RDI] == 1 ? stdout : stderr);
    return NULL;
}

static bool looks(void *ctx, const struct frame *f)
{
    return frame_is_output(f);
}

static void write_block(void *ctx, const char *text)
{
    fputs(text, ctx);
}

struct context {
    const struct options *o;
    const struct trace *trace;
};

static struct err *on_event(void *ctx, struct replay *r, const struct frame *f)
{
    const struct context *c = ctx;
    replay_warn_32bit(f);
    if (!c->o->quiet)
        TRY(pass_output(r, f));
    if (c->o->verbose) {
        const char *call = f->kind == FRAME_SYSCALL
                               ? trace_syscall_name(c->trace, f->syscall_arch, f->syscall_no)
                               : NULL;
        fprintf(stderr, "%llu %s%s%s%s task %d ticks %lld rip %#llx, %llu instructions so far\n",
                (unsigned long long)f->event, trace_frame_name(f->kind), call ? " " : "",
                call ? call : "",
                f->kind != FRAME_SYSCALL              ? ""
                : f->syscall_state == SYSCALL_EXITING ? " exit"
                                                      : " entry",
                f->tid, (long long)f->ticks, (unsigned long long)f->regs.r[UREG_RIP],
                (unsigned long long)replay_icount_total(r));
    }
    return NULL;
}

static void print_regs(struct replay *r)
{
    static const char *const names[] = {"r15",    "r14", "r13", "r12",      "rbp",    "rbx",
                                        "r11",    "r10", "r9",  "r8",       "rax",    "rcx",
                                        "rdx",    "rsi", "rdi", "orig_rax", "rip",    "cs",
                                        "eflags", "rsp", "ss",  "fs_base",  "gs_base"};
    struct regs regs;
    struct err *e = replay_regs(r, replay_running(r), &regs);
    if (e) {
        err_free(e);
        return;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        printf("%s %#llx\n", names[i], (unsigned long long)regs.r[i]);
}

/* Tells on stderr how the program got to where replay and recording disagree. */
static struct err *explained(struct replay *r, struct err *failed, const struct options *o)
{
    cleanup(buf_deinit) struct buf text = {0};
    if (!o->verbose || err_kind(failed) == ERR_OS)
        return failed;
    struct err *e = replay_explain(r, EXPLAINED_INSTRUCTIONS, &text);
    if (e)
        buf_printf(&text, "no account of the instructions before: %s\n", err_message(e));
    err_free(e);
    fputs(buf_cstr(&text), stderr);
    return failed;
}

static struct err *replay_all(const struct options *o)
{
    cleanup(trace_closep) struct trace *t = NULL;
    cleanup(replay_closep) struct replay *r = NULL;
    cleanup(fclosep) FILE *blocks = o->blocks ? fopen(o->blocks, "we") : NULL;
    if (o->blocks && !blocks)
        return err_os("cannot write %s", o->blocks);
    TRY(cmd_rr_open_trace(o->trace, &t));
    TRY(replay_open(t, &r));
    struct context c = {o, t};
    struct replay_observer observer = {.ctx = &c, .event = on_event, .looks = looks};
    replay_set_observer(r, &observer);
    vec_each (feature, &o->hidden)
        TRY(replay_hide_feature(r, *feature));
    TRY(replay_set_mode(r, o->mode, NULL));
    if (blocks)
        TRY(replay_tell_blocks(r, write_block, blocks));
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    struct err *failed = replay_run(r, o->until, UINT64_MAX, NULL);
    if (failed)
        return explained(r, failed, o);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds =
        (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) * 1e-9;
    fflush(stdout);
    if (o->verbose)
        fprintf(stderr, "%llu events, %llu instructions, %.3f s\n",
                (unsigned long long)replay_now(r).event, (unsigned long long)replay_icount_total(r),
                seconds);
    if (moment_cmp(o->until, MOMENT_END) != 0)
        print_regs(r);
    return NULL;
}

int cmd_rr_replay(const char *trace, int argc, char **argv)
{
    struct options o = {.until = MOMENT_END, .trace = trace};
    if (argp_parse(&argp, argc, argv, ARGP_NO_EXIT, NULL, &o) != 0)
        return 2;
    if (!o.all && moment_cmp(o.until, MOMENT_END) == 0) {
        fputs("pernosco: rr replay: only with -a or --until\n", stderr);
        return 2;
    }
    cleanup(err_freep) struct err *e = replay_all(&o);
    if (!e)
        return 0;
    fflush(stdout);
    fprintf(stderr, "pernosco: %s%s\n", err_kind(e) == ERR_UNSUPPORTED ? "not supported: " : "",
            err_message(e));
    return 1;
}
