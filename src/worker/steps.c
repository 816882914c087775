/* Steps: a stretch run one instruction at a time, with a row of registers before each; and memory
 * captured at given moments, for which the run is cut into pieces. Both go through hooks_run(),
 * piece by piece with the clock moved on, so hooks, consumers and breaks see what they would see
 * otherwise. */
#include "worker/steps.h"

#include "worker/consume.h"
#include "worker/hooks.h"
#include "worker/rows.h"

enum { MAX_CAPTURES = WINDOW_LEN / sizeof(struct step_capture) };
static struct rows steps, memory;
static bool record_any, vectors, one_slot;
static uint32_t wanted_slot;
static uint64_t max_rows, row_count;
static struct step_capture *captures;
static uint64_t capture_count, next_capture;
static uint64_t clock_stamp, clock_base;

void steps_init(void)
{
    rows_init(&steps);
    rows_init(&memory);
    captures = engine_host_alloc(MAX_CAPTURES * sizeof(captures[0]));
}

void steps_clock(uint64_t stamp, uint64_t icount_base)
{
    clock_stamp = stamp;
    clock_base = icount_base;
}

void steps_select(const struct wire_command *c, const uint8_t *window)
{
    record_any = c->steps.record;
    one_slot = c->steps.one_slot;
    wanted_slot = c->steps.slot;
    vectors = c->steps.vectors;
    max_rows = c->steps.max_rows;
    row_count = 0;
    capture_count = c->len < MAX_CAPTURES ? c->len : MAX_CAPTURES;
    next_capture = 0;
    __builtin_memcpy(captures, window, capture_count * sizeof(captures[0]));
    rows_clear(&steps);
    rows_clear(&memory);
}

/* Appends a row. False: there is no room, or there are enough. */
static bool add_row(struct engine_task *task, uint32_t slot, uint64_t icount,
                    const struct engine_result *end)
{
    uint64_t len = sizeof(struct step_row) + (vectors ? XSTATE_MAX : 0);
    if (steps.len + len > ROWS_LEN)
        return false;
    struct step_row *row = (struct step_row *)(void *)(steps.data + steps.len);
    __builtin_memset(row, 0, sizeof(*row));
    row->stamp = clock_stamp;
    row->icount = clock_base + icount;
    row->slot = slot;
    row->regs = task->regs;
    row->code_len = (uint8_t)engine_copy_from_guest(row->code, task->regs.r[UREG_RIP], 15);
    if (end) {
        row->end = true;
        row->reason = (uint8_t)end->reason;
    }
    if (vectors) {
        engine_sync_xstate(task);
        __builtin_memcpy(row + 1, task->xstate, XSTATE_MAX);
    }
    steps.len += len;
    row_count += !end;
    return !max_rows || row_count < max_rows;
}

/* Captures what is asked for at this moment. A moment that was passed by is captured empty. */
static void capture_now(uint64_t icount)
{
    for (; next_capture < capture_count; next_capture++) {
        const struct step_capture *c = &captures[next_capture];
        uint64_t now = clock_base + icount;
        if (c->stamp > clock_stamp || (c->stamp == clock_stamp && c->icount > now))
            return;
        bool hit = c->stamp == clock_stamp && c->icount == now;
        uint64_t room = 8 + ((c->len + 7ull) & ~7ull);
        if (memory.len + room > ROWS_LEN)
            return;
        uint8_t *to = memory.data + memory.len;
        __builtin_memset(to, 0, room);
        *(uint64_t *)(void *)to = hit ? engine_copy_from_guest(to + 8, c->addr, c->len) : 0;
        memory.len += room;
    }
}

/* Instructions until the next capture of this stamp. */
static uint64_t until_capture(uint64_t icount)
{
    if (next_capture == capture_count || captures[next_capture].stamp != clock_stamp)
        return UINT64_MAX;
    return captures[next_capture].icount - (clock_base + icount);
}

void steps_run(struct engine_task *task, uint32_t slot, const struct engine_request *q,
               struct engine_result *out)
{
    bool record = record_any && (!one_slot || slot == wanted_slot);
    if (!record && next_capture == capture_count) {
        hooks_run(task, slot, q, out);
        return;
    }
    uint64_t stamp = clock_stamp, base = clock_base, icount = 0, ticks = 0;
    for (;;) {
        capture_now(icount);
        bool go_on = !record || q->max_icount == icount || add_row(task, slot, icount, NULL);
        struct engine_request piece = *q;
        uint64_t left = q->max_icount == UINT64_MAX ? UINT64_MAX : q->max_icount - icount,
                 most = until_capture(icount);
        if (record && most > 1)
            most = 1;
        piece.max_icount = left < most ? left : most;
        piece.stop_ticks = q->stop_ticks - ticks;
        consume_clock(stamp, base + icount);
        hooks_clock(stamp, base + icount);
        hooks_run(task, slot, &piece, out);
        icount += out->icount;
        ticks += out->ticks;
        if (out->reason != STOP_LIMIT || icount == q->max_icount)
            break;
        if ((q->use_ticks || q->use_match) && ticks > q->stop_ticks) {
            out->reason = STOP_TICKS;
            out->passed = true;
            break;
        }
        // The next piece would pass a break address at which it begins.
        if (hooks_is_break(&task->regs)) {
            out->reason = STOP_BREAK;
            break;
        }
        if (!go_on) {
            out->reason = STOP_CONSUMER;
            break;
        }
    }
    capture_now(icount);
    if (record)
        add_row(task, slot, icount, out);
    out->icount = icount;
    out->ticks = ticks;
}

void steps_forked(void)
{
    rows_clear(&steps);
    rows_clear(&memory);
}

uint64_t steps_take(uint32_t stream, uint8_t *window, uint64_t len, uint64_t *left_out)
{
    return rows_take(stream == STREAM_STEPS ? &steps : &memory, window, len, left_out);
}
