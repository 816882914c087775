/* Queries about one moment: info, complete-frame, memory, maps, stack. */
#include "query/query_int.h"

struct err *query_info(struct query_engine *q, json_t *params)
{
    size_t segments, records;
    const struct history_segment *s = history_segments(q->history, &segments);
    const struct trace_task_event *record = trace_task_events(q->trace, &records);
    struct focus first;
    bool signal;
    TRY(first_focus(q, &first, &signal));
    json_t *row = json_object(), *argv = json_array();
    json_object_set_new(row, "title", json_text(q->title, strlen(q->title)));
    for (size_t i = 0; i < records; i++) {
        if (record[i].kind != TASK_EXEC)
            continue;
        json_object_set_new(row, "exe",
                            json_text(record[i].file_name, strlen(record[i].file_name)));
        for (size_t k = 0; k < record[i].argc; k++)
            json_array_append_new(argv, json_text(record[i].argv[k], strlen(record[i].argv[k])));
        break;
    }
    json_object_set_new(row, "argv", argv);
    json_object_set_new(row, "trace", json_text(trace_dir(q->trace), strlen(trace_dir(q->trace))));
    json_object_set_new(row, "start", json_moment(s[0].start));
    json_object_set_new(row, "end", json_moment(end_of_recording(q)));
    json_object_set_new(
        row, "instructions",
        json_integer((json_int_t)(s[segments - 1].icount_start + s[segments - 1].icount)));
    json_object_set_new(row, "events", json_integer((json_int_t)q->last_event));
    json_object_set_new(row, "tasks", json_integer((json_int_t)q->tasks.count));
    json_object_set_new(row, "segments", json_integer((json_int_t)segments));
    json_object_set_new(row, "complete", json_boolean(history_complete(q->history)));
    json_object_set_new(row, "databaseBytes", json_integer((json_int_t)history_bytes(q->history)));
    json_object_set_new(row, "firstFocus", json_focus(q, first.moment, first.task, 0));
    json_object_set_new(row, "firstFocusReason", json_string(signal ? "signal" : "exit"));
    return give(q, row);
}

/* Of a 32-bit program only events are known. */
static struct err *refuse_32bit(struct replay *r, uint32_t task)
{
    size_t count;
    const struct task_info *tasks = replay_tasks(r, &count);
    for (size_t i = 0; i < count; i++) {
        if (tasks[i].serial == task && tasks[i].is_32bit)
            return err_new(ERR_UNSUPPORTED,
                           "task %d executes a 32-bit program here, which is not replayed",
                           tasks[i].tid);
    }
    return NULL;
}

struct err *focus_state(struct query_engine *q, json_t *params, struct focus *f, struct replay **r,
                        uint32_t *space)
{
    TRY(param_focus(q, params, f));
    TRY(state_at(q, f->moment, r));
    struct err *e = space_of_task(*r, f->task, space);
    const struct known_task *t = known_task(q, f->task);
    if (e && t) {
        const char *when = moment_cmp(f->moment, t->start) < 0 ? "does not exist yet" : "has ended";
        err_free(e);
        return err_new(ERR_NOT_FOUND, "task %d %s at this moment", t->tid, when);
    }
    return e ? e : refuse_32bit(*r, f->task);
}

struct err *query_complete_frame(struct query_engine *q, json_t *params)
{
    struct focus f;
    struct replay *r;
    uint32_t space;
    TRY(focus_state(q, params, &f, &r, &space));
    frame_list frames = {0};
    struct err *e = f.frame ? stack_at(q, f.moment, f.task, &frames) : NULL;
    if (!e && f.frame && f.frame >= frames.count)
        e = err_new(ERR_NOT_FOUND, "the stack has only %zu frames", frames.count);
    struct regs regs;
    if (!e)
        e = state_at(q, f.moment, &r);
    if (!e)
        e = replay_regs(r, f.task, &regs);
    gaddr pc = e ? 0 : f.frame ? frames.items[f.frame].pc : regs.r[UREG_RIP];
    bool returns = !e && f.frame && frame_returns(&frames.items[f.frame]);
    vec_deinit(&frames);
    TRY(e);
    json_t *row = json_object();
    json_object_set_new(row, "focus", json_focus(q, replay_now(r), f.task, f.frame));
    json_object_set_new(row, "task", json_task(q, f.task));
    describe_code(q, r, space, pc, returns, row);
    const struct db_event *event;
    char name[64];
    if (!(e = event_at(q, f.moment.event + 1, &event, NULL)))
        json_object_set_new(row, "event",
                            json_pack("{sI, ss}", "number", (json_int_t)event->number, "name",
                                      event_name(q, event, name, sizeof(name))));
    err_free(e);
    return give(q, row);
}

struct err *query_memory(struct query_engine *q, json_t *params)
{
    struct focus f;
    struct replay *r;
    uint32_t space;
    uint64_t addr, len;
    TRY(param_u64(params, "address", &addr));
    TRY(param_u64(params, "length", &len));
    if (len < 1 || len > 65536)
        return err_new(ERR_USAGE, "length is 1 to 65536");
    TRY(focus_state(q, params, &f, &r, &space));
    cleanup(freep) uint8_t *data = xcalloc(1, len);
    json_t *holes = json_array();
    for (uint64_t at = 0; at < len;) {
        size_t done;
        struct err *e = replay_read(r, space, addr + at, data + at, len - at, &done);
        at += done;
        if (!e)
            break;
        if (err_kind(e) != ERR_FAULT) {
            json_decref(holes);
            return e;
        }
        err_free(e);
        uint64_t end = ((addr + at) | (PAGE_SIZE - 1)) + 1 - addr;
        if (end > len)
            end = len;
        json_array_append_new(holes,
                              json_pack("[o, o]", json_hex(addr + at), json_hex(addr + end)));
        at = end;
    }
    json_t *row = json_pack("{so, so}", "address", json_hex(addr), "bytes", json_bytes(data, len));
    if (json_array_size(holes))
        json_object_set(row, "unmapped", holes);
    json_decref(holes);
    return give(q, row);
}

struct err *query_maps(struct query_engine *q, json_t *params)
{
    struct focus f;
    struct replay *r;
    uint32_t space;
    TRY(focus_state(q, params, &f, &r, &space));
    size_t count;
    const struct mapping *maps = replay_mappings(r, space, &count);
    for (size_t i = 0; i < count; i++) {
        json_t *row = json_mapping(q, &maps[i]);
        if (maps[i].kind != MAPPING_ANON)
            json_object_set_new(row, "offset", json_hex(maps[i].offset));
        TRY(give(q, row));
    }
    return NULL;
}

/* What the next event tells the task, if that is a signal. */
struct err *query_siginfo(struct query_engine *q, json_t *params)
{
    struct focus f;
    struct replay *r;
    uint32_t space;
    TRY(focus_state(q, params, &f, &r, &space));
    bool comes = replay_running(r) == f.task &&
                 moment_cmp(f.moment, moment_before_event(q, f.moment.event + 1)) == 0;
    const uint8_t *siginfo = comes ? replay_next_siginfo(r) : NULL;
    if (!siginfo)
        return err_new(ERR_NOT_FOUND, "no signal comes at this moment");
    return give(q, json_pack("{so}", "bytes", json_bytes(siginfo, SIGINFO_LEN)));
}

/* --- stack --- */

/* Entry of the frame's function: right behind the call that made it. */
static struct err *entry_of(struct query_engine *q, const struct frame_info *f, uint32_t task,
                            struct moment *out)
{
    if (!f->entry_sp)
        return err_new(ERR_NOT_FOUND, "the call is not known");
    return next_instruction(q, f->call, task, true, out);
}

/* What is known of a frame at the focus itself. */
static json_t *frame_row(struct query_engine *q, struct replay *r, uint32_t space,
                         const struct focus *focus, const struct frame_info *f, unsigned idx)
{
    json_t *row = json_object();
    json_object_set_new(row, "frame", json_integer(idx));
    describe_code(q, r, space, f->pc, frame_returns(f), row);
    json_object_set_new(row, "sp", json_hex(f->sp));
    json_object_set_new(row, "inline", json_false());
    json_object_set_new(row, "focus", json_focus(q, focus->moment, focus->task, idx));
    json_object_set_new(row, "kind",
                        json_string(!f->entry_sp   ? "start"
                                    : f->by_signal ? "signal"
                                                   : "call"));
    return row;
}

static const struct sym_function *function_in(const struct code_place *place)
{
    const struct sym_function *fn = NULL;
    struct err *e = place->module && place->module->sym
                        ? sym_function_at(place->module->sym, place->link_addr, &fn)
                        : NULL;
    err_free(e);
    return fn && fn->source == SYM_DWARF ? fn : NULL;
}

/* The frame's function, with symbols that tell its parameters, in *place. NULL: none. */
static const struct sym_function *function_of(struct query_engine *q, struct replay *r,
                                              uint32_t space, const struct frame_info *f,
                                              struct code_place *place)
{
    *place = place_of(q, r, space, f->pc - frame_returns(f));
    return function_in(place);
}

static bool has_parameters(struct code_place *p, const struct sym_function *fn)
{
    struct sym_variables params = {0};
    struct err *e = sym_function_parameters(p->module->sym, fn, &params);
    bool any = !e && params.count;
    err_free(e);
    sym_variables_deinit(&params);
    return any;
}

/* A row about to be given. */
struct stack_row {
    const struct frame_info *frame;
    json_t *row; /* owned; NULL: given */
    struct code_place place;
    const struct sym_function *fn;
    struct moment entry;
    bool wants_arguments; /* at the entry */
};

/* The call that made the frame, and "args", its arguments, if they are known already. */
static void add_call(struct query_engine *q, uint32_t task, struct stack_row *s)
{
    struct err *e = entry_of(q, s->frame, task, &s->entry);
    if (e) {
        err_free(e);
        return;
    }
    json_object_set_new(s->row, "callMoment", json_moment(s->frame->call));
    json_object_set_new(s->row, "entry", json_focus(q, s->entry, task, 0));
    if (!s->fn || !has_parameters(&s->place, s->fn))
        return;
    json_t *known = recall_arguments(q, s->entry, s->fn);
    if (known)
        json_object_set(s->row, "args", known);
    else
        s->wants_arguments = true;
}

static struct err *add_arguments(struct query_engine *q, uint32_t task, struct stack_row *s)
{
    struct replay *r;
    struct frame_context c;
    TRY(state_at(q, s->entry, &r));
    struct err *e = frame_context(q, r, task, &c);
    if (e && err_kind(e) == ERR_NOT_FOUND) {
        err_free(e);
        return NULL;
    }
    TRY(e);
    struct code_place here = place_of(q, r, c.space, c.regs.r[UREG_RIP]);
    c.base.bias = s->place.bias;
    if (here.module == s->place.module && here.link_addr == s->fn->start)
        json_object_set_new(s->row, "args",
                            arguments_at(q, s->entry, s->place.module, s->fn, &c.base));
    return NULL;
}

/* The calls of the focus' task that had not returned when its segment began, outermost first. */
typedef VEC(struct db_call) call_list;
static struct err *calls_before(struct query_engine *q, const struct focus *f, call_list *out)
{
    const struct segment *s;
    pthread_mutex_lock(&q->history_lock);
    struct err *e = history_stacks(q->history, history_segment_at(q->history, f->moment), &s);
    for (size_t i = 0; !e && i < s->stacks.count; i++) {
        if (s->stacks.items[i].task == f->task)
            vec_push(out, s->stacks.items[i]);
    }
    pthread_mutex_unlock(&q->history_lock);
    return e;
}

/* Where there is no state yet, those at the entries of frames are begun beside that of the focus
 * itself. Which they will be is a guess: a call that lasted for more than a segment until the
 * focus' own began has not returned in that either, as a rule, and what it called is where the next
 * call is. In a recursion there is no telling. */
static struct err *begin_entries(struct query_engine *q, const struct focus *f, uint64_t limit,
                                 struct states_ahead *ahead)
{
    call_list calls = {0};
    if (has_state_in(q, ahead->here))
        return NULL;
    struct err *e = calls_before(q, f, &calls);
    for (size_t i = 0; !e && i + 1 < calls.count && calls.count <= limit / 2; i++) {
        if (history_segment_at(q->history, calls.items[i].at) + 1 >= ahead->here)
            break;
        struct code_place place =
            place_by_records(q, f->moment, calls.items[i + 1].return_addr - 1);
        const struct sym_function *fn = function_in(&place);
        struct moment entry;
        if (!fn || !has_parameters(&place, fn))
            continue;
        e = next_instruction(q, calls.items[i].at, f->task, true, &entry);
        if (!e && !recall_arguments(q, entry, fn))
            states_ahead_add(ahead, entry);
    }
    vec_deinit(&calls);
    states_ahead_begin(ahead, false);
    return e;
}

/* The outermost was entered first: replays go forward from one entry to the next. */
static struct err *add_all_arguments(struct query_engine *q, uint32_t task, struct stack_row *rows,
                                     size_t count, struct states_ahead *ahead)
{
    struct err *e = NULL;
    for (size_t i = count; i-- > 0;) {
        add_call(q, task, &rows[i]);
        if (rows[i].wants_arguments)
            states_ahead_add(ahead, rows[i].entry);
    }
    states_ahead_begin(ahead, true);
    for (size_t i = count; i-- > 0 && !e;) {
        if (!rows[i].wants_arguments)
            continue;
        states_ahead_await(ahead, rows[i].entry);
        e = add_arguments(q, task, &rows[i]);
    }
    return e;
}

/* Gives rows with their arguments, some at a time: whoever shows them has the innermost soon. ahead
 * NULL: without. */
static struct err *give_frames(struct query_engine *q, uint32_t task, struct stack_row *rows,
                               size_t count, struct states_ahead *ahead)
{
    enum { AT_ONCE = 64 };
    for (size_t first = 0; first < count; first += AT_ONCE) {
        size_t end = first + AT_ONCE < count ? first + AT_ONCE : count;
        if (ahead)
            TRY(add_all_arguments(q, task, rows + first, end - first, ahead));
        for (size_t i = first; i < end; i++) {
            if (ahead && !json_object_get(rows[i].row, "args"))
                json_object_set_new(rows[i].row, "args", json_array());
            TRY(give(q, steal(rows[i].row)));
        }
    }
    return NULL;
}

static struct err *give_stack(struct query_engine *q, json_t *params, uint64_t first,
                              uint64_t limit, struct states_ahead *ahead)
{
    struct focus f;
    struct replay *r;
    uint32_t space;
    TRY(focus_state(q, params, &f, &r, &space));
    frame_list frames = {0};
    struct err *e = stack_at(q, f.moment, f.task, &frames);
    if (!e)
        e = state_at(q, f.moment, &r);
    size_t left = e || first > frames.count ? 0 : frames.count - first,
           count = left < limit ? left : limit;
    struct stack_row *rows = xnew_array(struct stack_row, count + 1);
    for (size_t i = 0; i < count; i++) {
        rows[i].frame = &frames.items[first + i];
        rows[i].row = frame_row(q, r, space, &f, rows[i].frame, (unsigned)(first + i));
        rows[i].fn = function_of(q, r, space, rows[i].frame, &rows[i].place);
    }
    if (!e)
        e = give_frames(q, f.task, rows, count, ahead);
    q->sink->more = !e && count < left;
    for (size_t i = 0; i < count; i++)
        json_decref(rows[i].row);
    free(rows);
    vec_deinit(&frames);
    return e;
}

enum { MOST_FRAMES = 500 };

struct err *query_frames(struct query_engine *q, json_t *params)
{
    uint64_t limit = MOST_FRAMES;
    TRY(param_limit(params, MOST_FRAMES, &limit));
    return give_stack(q, params, 0, limit, NULL);
}

struct err *query_stack(struct query_engine *q, json_t *params)
{
    struct focus f;
    uint64_t first = 0, limit = MOST_FRAMES;
    if (json_object_get(params, "first"))
        TRY(param_u64(params, "first", &first));
    TRY(param_limit(params, MOST_FRAMES, &limit));
    TRY(param_focus(q, params, &f));
    struct states_ahead ahead;
    states_ahead_init(&ahead, q, f.moment);
    struct err *e = begin_entries(q, &f, limit, &ahead);
    if (!e)
        e = give_stack(q, params, first, limit, &ahead);
    states_ahead_deinit(&ahead);
    return e;
}
