/* emulated TRACE [SEED] - replays a recording twice side by side, with AVX-512 by the CPU and
 * emulated, and stops both every so many instructions: all registers of all tasks, vector state and
 * memory must be the same.
 *
 * Exit 77 (skipped) where the CPU has no AVX-512. */
#include "replay/replay.h"

#include "base/random.h"
#include "x86/xstate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_INSNS = 3000, MEMORY_EVERY = 16, PIECE = 64 * PAGE_SIZE };

static unsigned stops;

static struct err *differs(const struct replay *r, const char *what, uint64_t at)
{
    struct moment now = replay_now(r);
    return err_new(ERR_DIVERGED, "event %llu, instruction %llu: %s differs (%#llx)",
                   (unsigned long long)now.event, (unsigned long long)now.icount, what,
                   (unsigned long long)at);
}

/* A component as it is, or as it is at first. */
static void component(const struct xstate *x, unsigned which, uint8_t *out, size_t *len_out)
{
    uint32_t offset = which == XSTATE_SSE ? 160 : which == XSTATE_X87 ? 32 : xstate_offset(which);
    *len_out = which == XSTATE_SSE ? 256 : which == XSTATE_X87 ? 128 : xstate_component_len(which);
    bool in_use = x->data[512] >> which & 1;
    if (in_use)
        memcpy(out, x->data + offset, *len_out);
    else
        memset(out, 0, *len_out);
}

static struct err *compare_vectors(const struct replay *r, const struct xstate *x,
                                   const struct xstate *y)
{
    static const uint8_t components[] = {XSTATE_X87,    XSTATE_SSE,       XSTATE_AVX,
                                         XSTATE_OPMASK, XSTATE_ZMM_HI256, XSTATE_HI16_ZMM};
    uint8_t a[XSTATE_MAX], b[XSTATE_MAX];
    for (size_t i = 0; i < sizeof(components); i++) {
        size_t len;
        component(x, components[i], a, &len);
        component(y, components[i], b, &len);
        if (memcmp(a, b, len) != 0)
            return differs(r, "vector state, component", components[i]);
    }
    return memcmp(x->data + 24, y->data + 24, 4) ? differs(r, "mxcsr", load_u32(y->data + 24))
                                                 : NULL;
}

static struct err *compare_tasks(struct replay *a, struct replay *b)
{
    size_t a_count, b_count;
    const struct task_info *tasks = replay_tasks(a, &a_count);
    replay_tasks(b, &b_count);
    if (a_count != b_count)
        return differs(a, "the number of tasks", b_count);
    for (size_t i = 0; i < a_count; i++) {
        struct regs p, q;
        TRY(replay_regs(a, tasks[i].serial, &p));
        TRY(replay_regs(b, tasks[i].serial, &q));
        for (unsigned k = 0; k < UREG_COUNT; k++) {
            if (p.r[k] != q.r[k])
                return differs(a, "a general register", k);
        }
        static struct xstate x, y;
        TRY(replay_xstate(a, tasks[i].serial, &x));
        TRY(replay_xstate(b, tasks[i].serial, &y));
        TRY(compare_vectors(a, &x, &y));
    }
    return NULL;
}

static struct err *compare_memory(struct replay *a, struct replay *b)
{
    static uint8_t p[PIECE], q[PIECE];
    size_t space_count, mapping_count;
    const uint32_t *spaces = replay_spaces(a, &space_count);
    for (size_t s = 0; s < space_count; s++) {
        const struct mapping *m = replay_mappings(a, spaces[s], &mapping_count);
        for (size_t i = 0; i < mapping_count; i++) {
            for (gaddr at = m[i].start; at < m[i].end && m[i].prot & 2; at += PIECE) {
                size_t len = m[i].end - at < PIECE ? m[i].end - at : PIECE, p_done = 0, q_done = 0;
                err_free(replay_read(a, spaces[s], at, p, len, &p_done));
                err_free(replay_read(b, spaces[s], at, q, len, &q_done));
                if (p_done != q_done || memcmp(p, q, p_done) != 0)
                    return differs(a, "memory", at);
            }
        }
    }
    return NULL;
}

static struct err *run_both(struct trace *t, uint64_t seed, enum engine_mode mode)
{
    cleanup(replay_closep) struct replay *a = NULL, *b = NULL;
    TRY(replay_open(t, &a));
    TRY(replay_open(t, &b));
    TRY(replay_hide_feature(b, "AVX512F"));
    if (replay_emulates_avx512(a))
        exit(77);
    if (!replay_emulates_avx512(b))
        return err_new(ERR_UNSUPPORTED, "the recording's CPU had no AVX-512");
    TRY(replay_set_mode(a, mode, NULL));
    TRY(replay_set_mode(b, mode, NULL));
    while (!replay_at_end(a)) {
        uint64_t insns = 1 + random_below(&seed, MOST_INSNS);
        TRY(replay_run(a, MOMENT_END, insns, NULL));
        TRY(replay_run(b, MOMENT_END, insns, NULL));
        if (moment_cmp(replay_now(a), replay_now(b)) != 0 ||
            replay_icount_total(a) != replay_icount_total(b))
            return differs(a, "the moment", replay_now(b).event);
        TRY(compare_tasks(a, b));
        if (stops++ % MEMORY_EVERY == 0)
            TRY(compare_memory(a, b));
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fputs("usage: emulated TRACE [SEED]\n", stderr);
        return 2;
    }
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    cleanup(trace_closep) struct trace *t = NULL;
    struct err *e = trace_open(argv[1], &t);
    static const enum engine_mode modes[] = {ENGINE_COUNT, ENGINE_INDEX, ENGINE_LOG_LOADS};
    for (size_t i = 0; !e && i < sizeof(modes) / sizeof(modes[0]); i++)
        e = run_both(t, seed + i, modes[i]);
    printf("%u stops%s%s\n", stops, e ? ": " : "", e ? err_message(e) : "");
    bool failed = e;
    err_free(e);
    return failed;
}
