/* The query "timeline": what a drawing of the whole recording, or of a part of it, needs. The axis
 * is instructions executed, cut into columns of equal length; from the events alone, so it costs
 * the same however long the recording's code ran. */
#include "query/query_int.h"

enum { MAX_COLUMNS = 4096, MAX_LANES = 64, OTHERS = MAX_LANES };

struct axis {
    struct query_engine *q;
    struct moment from, to;
    uint64_t start, length; /* instructions before `from`, and from there to `to` */
    size_t columns;
};

/* Instructions before a moment, over the whole recording. */
static uint64_t instructions_before(const struct query_engine *q, struct moment m)
{
    uint64_t sum = m.icount;
    for (event_no e = 1; e <= m.event && e < q->event_icount.count; e++)
        sum += q->event_icount.items[e];
    return sum;
}

/* Where column `c` begins, in instructions from the axis' start. */
static uint64_t column_start(const struct axis *a, size_t c)
{
    return (uint64_t)((unsigned __int128)a->length * c / a->columns);
}

static json_t *column_moments(const struct axis *a)
{
    json_t *list = json_array();
    event_no e = a->from.event;
    uint64_t base = a->start - a->from.icount; // instructions before event e
    for (size_t c = 0; c <= a->columns; c++) {
        uint64_t want = a->start + column_start(a, c);
        while (e < a->to.event && base + a->q->event_icount.items[e + 1] <= want)
            base += a->q->event_icount.items[++e];
        struct moment m = {e, want - base};
        json_array_append_new(list, json_moment(c == a->columns ? a->to : m));
    }
    return list;
}

/* Adds instructions [start, end) of the axis to a lane's columns. */
static void add_run(const struct axis *a, uint64_t *lane, uint64_t start, uint64_t end)
{
    size_t c = (size_t)((unsigned __int128)start * a->columns / a->length);
    for (; c < a->columns && start < end; c++) {
        uint64_t next = column_start(a, c + 1), stop = end < next ? end : next;
        if (stop > start) {
            lane[c] += stop - start;
            start = stop;
        }
    }
}

/* [[first column, end column, percent]...]: neighbours with the same share together. */
static json_t *lane_runs(const struct axis *a, const uint64_t *lane)
{
    json_t *runs = json_array();
    size_t begun = 0;
    unsigned last = 0;
    for (size_t c = 0; c <= a->columns; c++) {
        unsigned percent = 0;
        if (c < a->columns && lane[c]) {
            uint64_t whole = column_start(a, c + 1) - column_start(a, c);
            percent = whole ? (unsigned)((unsigned __int128)lane[c] * 100 / whole) : 100;
            if (percent == 0)
                percent = 1;
        }
        if (percent == last && c < a->columns)
            continue;
        if (last)
            json_array_append_new(runs, json_pack("[iii]", (int)begun, (int)c, (int)last));
        begun = c;
        last = percent;
    }
    return runs;
}

static json_t *lanes_of(const struct axis *a)
{
    json_t *list = json_array();
    if (a->length == 0)
        return list;
    cleanup(freep) uint64_t *shares = xnew_array(uint64_t, (size_t)(MAX_LANES + 1) * a->columns);
    bool used[MAX_LANES + 1] = {0};
    uint64_t at = a->start - a->from.icount; // instructions before event e
    for (event_no e = a->from.event; e < a->q->last_event && at < a->start + a->length; e++) {
        uint64_t end = at + a->q->event_icount.items[e + 1];
        uint64_t first = at > a->start ? at - a->start : 0;
        uint64_t last = end - a->start < a->length ? end - a->start : a->length;
        uint32_t task = a->q->runner.items[e + 1];
        size_t lane = task >= 1 && task <= MAX_LANES ? task - 1 : OTHERS;
        at = end;
        if (end <= a->start || first >= last)
            continue;
        add_run(a, shares + lane * a->columns, first, last);
        used[lane] = true;
    }
    for (size_t i = 0; i <= MAX_LANES; i++) {
        if (!used[i])
            continue;
        json_t *lane = json_pack("{so}", "runs", lane_runs(a, shares + i * a->columns));
        if (i != OTHERS)
            json_object_set_new(lane, "task", json_task(a->q, (uint32_t)i + 1));
        json_array_append_new(list, lane);
    }
    return list;
}

/* Where each segment begins, in columns: the buckets of "counts" lie between these. */
static json_t *segment_starts(const struct axis *a)
{
    json_t *list = json_array();
    size_t count;
    const struct history_segment *s = history_segments(a->q->history, &count);
    for (size_t i = 0; i < count; i++) {
        double off = (double)s[i].icount_start - (double)a->start;
        json_array_append_new(
            list, json_real(a->length ? off * (double)a->columns / (double)a->length : 0));
    }
    return list;
}

struct err *query_timeline(struct query_engine *q, json_t *params)
{
    struct axis a = {.q = q, .to = end_of_recording(q)};
    uint64_t columns = 1000;
    if (json_object_get(params, "columns"))
        TRY(param_u64(params, "columns", &columns));
    if (columns < 1 || columns > MAX_COLUMNS)
        return err_new(ERR_USAGE, "columns is 1 to %d", MAX_COLUMNS);
    if (json_object_get(params, "from"))
        TRY(param_moment(params, "from", &a.from));
    if (json_object_get(params, "to"))
        TRY(param_moment(params, "to", &a.to));
    if (moment_cmp(a.to, end_of_recording(q)) > 0)
        a.to = end_of_recording(q);
    if (moment_cmp(a.from, a.to) > 0)
        return err_new(ERR_USAGE, "from is behind to, or behind the recording's end");
    a.columns = (size_t)columns;
    a.start = instructions_before(q, a.from);
    uint64_t end = instructions_before(q, a.to);
    a.length = end > a.start ? end - a.start : 0;
    return give(q, json_pack("{so, so, sI, so, so, so}", "from", json_moment(a.from), "to",
                             json_moment(a.to), "instructions", (json_int_t)a.length, "columns",
                             column_moments(&a), "lanes", lanes_of(&a), "segments",
                             segment_starts(&a)));
}
