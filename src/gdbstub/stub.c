/* The packets of the gdb remote serial protocol ("Debugging with GDB", appendix E). gdb sees one
 * process; when the session moves to another one, or over an exec, it is told that the program
 * executed another file, and reads all symbols anew. What it asks for is the state at the moment
 * where it stands, so that nothing is kept here but that moment and its breakpoints. */
#include "gdbstub/stub_int.h"

#include "base/bytes.h"
#include "gdbstub/hex.h"
#include "gdbstub/registers.h"

/* --- numbers --- */

bool read_hex(const char **text, uint64_t *out)
{
    const char *p = *text;
    uint64_t v = 0;
    for (; hex_digit(*p) >= 0; p++)
        v = v << 4 | (unsigned)hex_digit(*p);
    bool any = p != *text;
    *text = p;
    *out = v;
    return any;
}

/* --- answers --- */

static void send_ok(struct gdb_stub *s)
{
    packet_send(s->link, "OK");
}

/* Takes over e. gdb shows the text with some packets. */
void send_error(struct gdb_stub *s, struct err *e)
{
    cleanup(freep) char *text = str_format("E.%s", err_message(e));
    for (char *p = text; *p; p++) {
        if (*p == '#' || *p == '$' || *p == '*' || *p == '}' || (unsigned char)*p < ' ')
            *p = ' ';
    }
    packet_send(s->link, text);
    err_free(e);
}

void send_text(struct gdb_stub *s, const void *text, size_t len)
{
    enum { AT_ONCE = MAX_PACKET / 2 - 64 };
    for (size_t at = 0; at < len; at += AT_ONCE) {
        s->answer.len = 0;
        buf_str(&s->answer, "O");
        hex_add_bytes(&s->answer, (const uint8_t *)text + at,
                      len - at < AT_ONCE ? len - at : AT_ONCE);
        packet_send(s->link, buf_cstr(&s->answer));
    }
}

void send_output(struct gdb_stub *s, const char *line)
{
    cleanup(freep) char *text = str_format("%s\n", line);
    send_text(s, text, strlen(text));
}

/* A part of a document, as qXfer has it: args are "OFFSET,LENGTH". */
static void send_part(struct gdb_stub *s, const char *args, const void *data, size_t len)
{
    uint64_t offset, want;
    if (!read_hex(&args, &offset) || *args++ != ',' || !read_hex(&args, &want)) {
        packet_send(s->link, "E01");
        return;
    }
    if (offset > len)
        offset = len;
    if (want > MAX_PACKET / 2)
        want = MAX_PACKET / 2;
    bool rest = want < len - offset;
    packet_send_binary(s->link, rest ? "m" : "l", (const uint8_t *)data + offset,
                       rest ? want : len - offset);
}

/* --- where the session is --- */

/* To be called before gdb hears of it, for who looks when gdb says something. */
static void show_position(struct gdb_stub *s)
{
    const struct past_task *t = past_task(&s->past, s->general);
    pthread_mutex_lock(&s->lock);
    s->shown = (struct gdb_position){s->now, s->general, t ? t->tid : 0};
    pthread_mutex_unlock(&s->lock);
}

struct gdb_position gdb_stub_position(struct gdb_stub *s)
{
    pthread_mutex_lock(&s->lock);
    struct gdb_position p = s->shown;
    pthread_mutex_unlock(&s->lock);
    return p;
}

struct err *move_to(struct gdb_stub *s, struct moment m, uint32_t task)
{
    if (!task)
        TRY(past_task_at(&s->past, m, &task));
    const struct past_task *t = past_task(&s->past, task);
    if (!t)
        return err_new(ERR_NOT_FOUND, "there is no such task");
    if (t->process != s->process) {
        vec_each (b, &s->breakpoints)
            b->ahead.valid = b->behind.valid = false;
        s->signal_ahead.valid = s->signal_behind.valid = false;
    }
    if (moment_cmp(m, s->told_signal) != 0)
        s->told_signal = (struct moment){UINT64_MAX, 0};
    s->now = m;
    s->task = s->general = task;
    s->process = t->process;
    show_position(s);
    return NULL;
}

/* --- threads: "TID", or, where gdb knows of processes, "pPID.TID" --- */

static void add_thread(const struct gdb_stub *s, const struct past_task *t, struct buf *out)
{
    if (s->processes)
        buf_printf(out, "p%x.", (unsigned)s->pid);
    buf_printf(out, "%x", t ? (unsigned)t->tid : 0);
}

bool read_thread(const char **text, uint64_t *tid_out)
{
    uint64_t ignored;
    if (**text == 'p') {
        ++*text;
        if (!read_hex(text, &ignored) || *(*text)++ != '.')
            return false;
    }
    return read_hex(text, tid_out) && *tid_out;
}

const struct past_task *thread_by_tid(struct gdb_stub *s, uint64_t tid)
{
    vec_each (t, &s->past.tasks) {
        if (t->process == s->process && (uint64_t)t->tid == tid && past_alive(t, s->now))
            return t;
    }
    return NULL;
}

struct err *fetch_registers(struct gdb_stub *s)
{
    if (s->registers.len && s->registers_task == s->general &&
        moment_cmp(s->registers_at, s->now) == 0)
        return NULL;
    s->registers.len = 0;
    struct err *e = s->diversion ? past_diverted_registers(s->diversion, s->general, &s->registers)
                                 : past_registers(&s->past, s->now, s->general, &s->registers);
    if (e) {
        s->registers.len = 0;
        return e;
    }
    s->registers_at = s->now;
    s->registers_task = s->general;
    return NULL;
}

/* --- stops --- */

static void add_registers(struct gdb_stub *s, struct buf *out)
{
    static const uint8_t wanted[] = {REGISTER_RBP, REGISTER_RSP, REGISTER_RIP};
    struct err *e = fetch_registers(s);
    for (size_t i = 0; !e && i < sizeof(wanted); i++) {
        size_t at, digits;
        if (registers_find(wanted[i], &at, &digits) && at + digits <= s->registers.len)
            buf_printf(out, "%02x:%.*s;", wanted[i], (int)digits,
                       (const char *)s->registers.data + at);
    }
    err_free(e); // gdb will ask for them
}

/* Is the program another one than gdb knows of? */
static bool program_changed(struct gdb_stub *s)
{
    const struct past_exec *x = past_exec_at(&s->past, s->process, s->now);
    return s->exec_events && x && x->exe && x != s->told_exec;
}

static void send_stop(struct gdb_stub *s)
{
    static const char *const accesses[] = {[2] = "watch", [3] = "rwatch", [4] = "awatch"};
    struct buf *out = &s->answer;
    const struct past_task *t = past_task(&s->past, s->task);
    int signal = s->why == STOP_PLAIN       ? 0
                 : s->why == STOP_INTERRUPT ? gdb_signal(2)
                                            : gdb_signal(s->why == STOP_SIGNAL ? s->signal : 5);
    out->len = 0;
    buf_printf(out, "T%02xthread:", signal);
    add_thread(s, t, out);
    buf_u8(out, ';');
    add_registers(s, out);
    switch (s->why) {
    case STOP_BREAKPOINT:
        if (s->hit_kind == 0 && s->swbreak)
            buf_str(out, "swbreak:;");
        if (s->hit_kind == 1 && s->hwbreak)
            buf_str(out, "hwbreak:;");
        break;
    case STOP_ACCESS:
        buf_printf(out, "%s:%llx;", accesses[(int)s->hit_kind], (unsigned long long)s->hit_addr);
        break;
    case STOP_START:
    case STOP_END:
        buf_printf(out, "replaylog:%s;", s->why == STOP_START ? "begin" : "end");
        break;
    case STOP_EXEC:
        s->told_exec = past_exec_at(&s->past, s->process, s->now);
        buf_str(out, "exec:");
        hex_add_bytes(out, s->told_exec->exe, strlen(s->told_exec->exe));
        buf_str(out, ";");
        break;
    case STOP_ELSEWHERE:
        buf_str(out, "library:;"); // E.3: other libraries may be loaded; gdb looks, and goes on
        break;
    default:
        break;
    }
    packet_send(s->link, buf_cstr(out));
}

/* Goes on with what was recorded, if nothing stands in the way of that: a call of a function, which
 * has not returned. */
static struct err *leave_diversion(struct gdb_stub *s, const struct resume *r, bool *goes_on)
{
    *goes_on = false;
    if (!s->diversion)
        return NULL;
    if (!s->jumps && !s->started && r->forward)
        TRY(divert_goes_on(s, goes_on));
    if (*goes_on)
        return NULL;
    divert_end(s);
    if (!s->jumps && !s->told_forgets) // once: conditions that call functions do so at each hit
        send_output(s, "[what is called or changed at a moment is forgotten when time goes on]");
    s->told_forgets |= !s->jumps;
    return NULL;
}

static void run(struct gdb_stub *s, const struct resume *r)
{
    bool diverted = false;
    struct err *e = leave_diversion(s, r, &diverted);
    if (!e && diverted) {
        e = divert_run(s, r);
    } else if (!e && s->jumps) {
        s->jumps = false;
        e = move_to(s, s->jump.moment, s->jump.task);
        s->started = !e;
        s->why = program_changed(s) ? STOP_EXEC : STOP_ELSEWHERE;
    } else if (!e && s->started) {
        s->general = s->task;
        s->why = program_changed(s)
                     ? STOP_EXEC
                     : STOP_PLAIN; // told first; then gdb goes on, to this very place
        s->started = s->why == STOP_EXEC;
    } else if (!e) {
        s->past.cancelled = packet_interrupted(s->link);
        e = resume(s, r);
        s->past.cancelled = NULL;
        if (!e && s->why == STOP_EXEC && !program_changed(s))
            s->why = STOP_STEPPED; // of a file that is not known
    }
    if (e && err_kind(e) == ERR_CANCELLED) {
        err_free(e);
        s->why = STOP_INTERRUPT;
    } else if (e) { // said, and the program stands where it was
        send_output(s, err_message(e));
        err_free(e);
        s->why = STOP_PLAIN;
    }
    send_stop(s);
}

/* --- packets --- */

static void handle_supported(struct gdb_stub *s, const char *args)
{
    s->swbreak = strstr(args, "swbreak+");
    s->hwbreak = strstr(args, "hwbreak+");
    s->exec_events = strstr(args, "exec-events+");
    s->processes = strstr(args, "multiprocess+");
    cleanup(freep) char *text = str_format(
        "PacketSize=%x;QStartNoAckMode+;QPassSignals+;ReverseStep+;ReverseContinue+;swbreak+;"
        "hwbreak+;exec-events+;vContSupported+;ConditionalBreakpoints+;multiprocess+;"
        "qXfer:siginfo:read+;qXfer:siginfo:write+;"
        "qXfer:features:read+;qXfer:auxv:read+;qXfer:exec-file:read+;qXfer:threads:read+",
        MAX_PACKET - 64);
    packet_send(s->link, text);
}

static void handle_no_acks(struct gdb_stub *s, const char *args)
{
    send_ok(s);
    packet_stop_acks(s->link);
}

static void handle_pass_signals(struct gdb_stub *s, const char *args)
{
    uint64_t number;
    s->passed = 0;
    while (read_hex(&args, &number)) {
        int signal = number < 256 ? linux_signal((int)number) : 0;
        if (signal)
            s->passed |= 1ull << (signal - 1);
        if (*args == ';')
            args++;
    }
    s->signal_ahead.valid = s->signal_behind.valid = false;
    send_ok(s);
}

static void handle_why(struct gdb_stub *s, const char *args)
{
    send_stop(s);
}

static void handle_thread(struct gdb_stub *s, const char *args)
{
    uint64_t tid;
    bool general = *args++ == 'g', one = read_thread(&args, &tid);
    if (!one && (str_starts(args, "-1") || str_eq(args, ""))) { // any of them, or all
        send_ok(s);
        return;
    }
    const struct past_task *t = one ? thread_by_tid(s, tid) : NULL;
    if (!t) {
        packet_send(s->link, "E01");
        return;
    }
    if (general) {
        s->general = t->serial;
        show_position(s);
    }
    send_ok(s);
}

static void handle_alive(struct gdb_stub *s, const char *args)
{
    uint64_t tid;
    packet_send(s->link, read_thread(&args, &tid) && thread_by_tid(s, tid) ? "OK" : "E01");
}

static void handle_first_threads(struct gdb_stub *s, const char *args)
{
    struct buf *out = &s->answer;
    out->len = 0;
    vec_each (t, &s->past.tasks) {
        if (t->process != s->process || !past_alive(t, s->now))
            continue;
        buf_u8(out, out->len ? ',' : 'm');
        add_thread(s, t, out);
    }
    packet_send(s->link, out->len ? buf_cstr(out) : "l");
}

static void handle_more_threads(struct gdb_stub *s, const char *args)
{
    packet_send(s->link, "l");
}

static void handle_thread_name(struct gdb_stub *s, const char *args)
{
    uint64_t tid;
    const struct past_task *t = read_thread(&args, &tid) ? thread_by_tid(s, tid) : NULL;
    struct buf *out = &s->answer;
    out->len = 0;
    if (t && t->name)
        hex_add_bytes(out, t->name, strlen(t->name));
    packet_send(s->link, buf_cstr(out));
}

static void handle_current(struct gdb_stub *s, const char *args)
{
    struct buf *out = &s->answer;
    out->len = 0;
    buf_str(out, "QC");
    add_thread(s, past_task(&s->past, s->task), out);
    packet_send(s->link, buf_cstr(out));
}

static void handle_attached(struct gdb_stub *s, const char *args)
{
    packet_send(s->link, "1");
}

/* args: "OBJECT:read:ANNEX:OFFSET,LENGTH" */
static void handle_document(struct gdb_stub *s, const char *args)
{
    const char *part = strrchr(args, ':');
    cleanup(buf_deinit) struct buf doc = {0};
    struct err *e = NULL;
    if (!part) {
        packet_send(s->link, "E00");
        return;
    }
    if (str_starts(args, "features:read:target.xml:")) {
        cleanup(freep) char *text = registers_description();
        buf_str(&doc, text);
    } else if (str_starts(args, "auxv:read:")) {
        e = past_auxv(&s->past, s->process, s->now, &doc);
    } else if (str_starts(args, "siginfo:read:")) {
        e = past_siginfo(&s->past, s->now, s->general, &doc);
    } else if (str_starts(
                   args,
                   "siginfo:write:")) { // gdb puts back what it read before it called a function
        cleanup(freep) char *len = str_format("%zx", (size_t)(s->packet_end - part - 1));
        packet_send(s->link, len);
        return;
    } else if (str_starts(args, "exec-file:read:")) {
        const struct past_exec *x = past_exec_at(&s->past, s->process, s->now);
        if (x && x->exe)
            buf_str(&doc, x->exe);
        s->told_exec = x;
    } else if (str_starts(args, "threads:read:")) {
        buf_str(&doc, "<?xml version=\"1.0\"?><threads>");
        vec_each (t, &s->past.tasks) {
            if (t->process != s->process || !past_alive(t, s->now))
                continue;
            buf_str(&doc, "<thread id=\"");
            add_thread(s, t, &doc);
            buf_str(&doc, "\"/>");
        }
        buf_str(&doc, "</threads>");
    } else {
        packet_send(s->link, "E00");
        return;
    }
    if (e)
        send_error(s, e);
    else
        send_part(s, part + 1, doc.data, doc.len);
}

static void handle_registers(struct gdb_stub *s, const char *args)
{
    struct err *e = fetch_registers(s);
    if (e)
        send_error(s, e);
    else
        packet_send(s->link, buf_cstr(&s->registers));
}

static void handle_register(struct gdb_stub *s, const char *args)
{
    uint64_t number;
    size_t at, digits;
    if (!read_hex(&args, &number) || !registers_find(number, &at, &digits)) {
        packet_send(s->link, "E01");
        return;
    }
    struct err *e = fetch_registers(s);
    if (e) {
        send_error(s, e);
        return;
    }
    char text[128];
    snprintf(text, sizeof(text), "%.*s", (int)digits, (const char *)s->registers.data + at);
    packet_send(s->link, text);
}

static void answer_change(struct gdb_stub *s, struct err *e)
{
    if (e)
        send_error(s, e);
    else
        send_ok(s);
}

static void handle_write_register(struct gdb_stub *s, const char *args)
{
    uint64_t number;
    if (!read_hex(&args, &number) || *args++ != '=')
        packet_send(s->link, "E01");
    else
        answer_change(s, divert_write_register(s, number, args));
}

static void handle_write_registers(struct gdb_stub *s, const char *args)
{
    answer_change(s, divert_write_registers(s, args));
}

struct err *read_memory(struct gdb_stub *s, gaddr addr, size_t len, struct buf *out)
{
    return s->diversion ? divert_read_memory(s, addr, len, out)
                        : past_memory(&s->past, s->now, s->general, addr, len, out);
}

static void handle_memory(struct gdb_stub *s, const char *args)
{
    uint64_t addr, len;
    if (!read_hex(&args, &addr) || *args++ != ',' || !read_hex(&args, &len) || !len) {
        packet_send(s->link, "E01");
        return;
    }
    if (len > MAX_PACKET / 2 - 64)
        len = MAX_PACKET / 2 - 64;
    cleanup(buf_deinit) struct buf bytes = {0};
    struct err *e = read_memory(s, addr, len, &bytes);
    if (e) {
        err_free(e);
        packet_send(s->link, "E0e"); // EFAULT: gdb says which address
        return;
    }
    s->answer.len = 0;
    hex_add_bytes(&s->answer, bytes.data, bytes.len);
    packet_send(s->link, buf_cstr(&s->answer));
}

static bool read_range(const char **args, uint64_t *addr, uint64_t *len)
{
    return read_hex(args, addr) && *(*args)++ == ',' && read_hex(args, len) && *(*args)++ == ':';
}

static void handle_write_memory(struct gdb_stub *s, const char *args)
{
    uint64_t addr, len;
    cleanup(buf_deinit) struct buf bytes = {0};
    bool good = read_range(&args, &addr, &len);
    if (good)
        hex_read_bytes(args, &bytes);
    if (!good || bytes.len != len)
        packet_send(s->link, "E01");
    else
        answer_change(s, divert_write_memory(s, addr, bytes.data, len));
}

/* As they are: escapes are gone. */
static void handle_write_binary(struct gdb_stub *s, const char *args)
{
    uint64_t addr, len;
    if (!read_range(&args, &addr, &len) || len != (size_t)(s->packet_end - args))
        packet_send(s->link, "E01");
    else
        answer_change(s, divert_write_memory(s, addr, args, len));
}

/* "TYPE,ADDRESS,LENGTH", behind which *args is left. */
static bool read_breakpoint(const char **args, struct breakpoint *out)
{
    uint64_t kind, len;
    const char *at = *args;
    *out = (struct breakpoint){0};
    if (!read_hex(&at, &kind) || kind > 4 || *at++ != ',' || !read_hex(&at, &out->addr) ||
        *at++ != ',' || !read_hex(&at, &len))
        return false;
    *args = at;
    out->kind = (char)kind;
    out->len = len;
    return kind <= 1 || (len >= 1 && len <= 4096);
}

static struct breakpoint *find_breakpoint(struct gdb_stub *s, const struct breakpoint *like)
{
    vec_each (b, &s->breakpoints) {
        if (b->kind == like->kind && b->addr == like->addr && (b->kind <= 1 || b->len == like->len))
            return b;
    }
    return NULL;
}

static void forget_removed(struct gdb_stub *s)
{
    size_t kept = 0;
    vec_each (b, &s->breakpoints) {
        if (b->inserted)
            s->breakpoints.items[kept++] = *b;
        else
            vec_deinit(&b->condition);
    }
    s->breakpoints.count = kept;
}

/* What is known of other executions is not known of those under another condition. */
static void set_condition(struct breakpoint *b, const char *text)
{
    program_ops condition = {0};
    if (b->kind > 1 || !agent_compile(text, &condition))
        condition.count = 0; // gdb tests it at each execution
    size_t len = condition.count * sizeof(condition.items[0]);
    if (condition.count != b->condition.count ||
        (len && memcmp(condition.items, b->condition.items, len) != 0))
        b->ahead.valid = b->behind.valid = false;
    vec_deinit(&b->condition);
    b->condition = condition;
}

static void handle_insert(struct gdb_stub *s, const char *args)
{
    enum { MOST_BREAKPOINTS = 10000 };
    struct breakpoint like;
    if (!read_breakpoint(&args, &like)) {
        packet_send(s->link, "E01");
        return;
    }
    struct breakpoint *b = find_breakpoint(s, &like);
    if (!b && s->breakpoints.count >= MOST_BREAKPOINTS)
        forget_removed(s);
    if (!b && s->breakpoints.count >= MOST_BREAKPOINTS) {
        packet_send(s->link, "E01");
        return;
    }
    if (!b) {
        vec_push(&s->breakpoints, like);
        b = &s->breakpoints.items[s->breakpoints.count - 1];
    }
    set_condition(b, args);
    b->inserted = true;
    send_ok(s);
}

static void handle_remove(struct gdb_stub *s, const char *args)
{
    struct breakpoint like;
    struct breakpoint *b = read_breakpoint(&args, &like) ? find_breakpoint(s, &like) : NULL;
    if (b)
        b->inserted = false;
    send_ok(s);
}

static void handle_can_continue(struct gdb_stub *s, const char *args)
{
    packet_send(s->link, "vCont;c;C;s;S;r");
}

/* ";ACTION[:THREAD]..." of which the first that steps a thread counts: all others run on as they
 * did. */
static void handle_continue(struct gdb_stub *s, const char *args)
{
    struct resume r = {.forward = true};
    while (*args == ';' && !r.step) {
        char action = args[1];
        uint64_t ignored, tid;
        const struct past_task *t = past_task(&s->past, s->task);
        args += 2;
        if (action == 'r' &&
            (!read_hex(&args, &r.range_start) || *args++ != ',' || !read_hex(&args, &r.range_end)))
            break;
        if (action == 'C' || action == 'S')
            (void)!read_hex(&args, &ignored); // which signal is delivered is history
        if (*args == ':') {
            args++;
            if (read_thread(&args, &tid))
                t = thread_by_tid(s, tid);
        }
        args += strcspn(args, ";");
        if ((action == 's' || action == 'S' || action == 'r') && t)
            r.step = t->serial;
    }
    run(s, &r);
}

static void handle_reverse_continue(struct gdb_stub *s, const char *args)
{
    run(s, &(struct resume){.forward = false});
}

static void handle_reverse_step(struct gdb_stub *s, const char *args)
{
    run(s, &(struct resume){.forward = false, .step = s->general});
}

/* "run" in gdb goes to the process' start, "run EVENT[+INSTRUCTIONS]" to that moment. args:
 * ";FILE;ARGUMENT..." */
static void handle_run(struct gdb_stub *s, const char *args)
{
    const char *argument = *args == ';' ? strchr(args + 1, ';') : NULL;
    struct moment m = past_process_start(&s->past, s->process);
    struct err *e = NULL;
    if (argument) {
        cleanup(buf_deinit) struct buf text = {0};
        hex_read_bytes(argument + 1, &text);
        if (!gdb_read_moment(buf_cstr(&text), &m))
            e = err_new(ERR_USAGE, "a moment is EVENT or EVENT+INSTRUCTIONS");
    }
    const struct past_task *t = past_task(&s->past, s->task);
    if (!t || !past_alive(t, m))
        t = past_task(&s->past, s->process);
    if (!e && t && !past_alive(t, m))
        e = err_new(ERR_NOT_FOUND, "the process does not live at that moment");
    if (!e)
        e = move_to(s, m, t ? t->serial : 0);
    if (e) {
        send_error(s, e);
        return;
    }
    divert_end(s);
    // gdb lets what it started run at once: that is to end here.
    s->started = true;
    s->why = STOP_STEPPED;
    send_stop(s);
}

static void handle_kill(struct gdb_stub *s, const char *args)
{
    send_ok(s); // a recording does not end by that; "run" or leaving comes next
}

static void handle_detach(struct gdb_stub *s, const char *args)
{
    send_ok(s);
    s->done = true;
}

static void handle_end(struct gdb_stub *s, const char *args)
{
    s->done = true;
}

static void handle_extended(struct gdb_stub *s, const char *args)
{
    send_ok(s);
}

/* By how packets begin; the first that fits. */
static const struct {
    const char *start;
    void (*handle)(struct gdb_stub *s, const char *args);
} packets[] = {
    {"qSupported", handle_supported},
    {"QStartNoAckMode", handle_no_acks},
    {"QPassSignals:", handle_pass_signals},
    {"qXfer:", handle_document},
    {"qfThreadInfo", handle_first_threads},
    {"qsThreadInfo", handle_more_threads},
    {"qThreadExtraInfo,", handle_thread_name},
    {"qC", handle_current},
    {"qAttached", handle_attached},
    {"qRcmd,", handle_monitor},
    {"qSymbol:", handle_symbol},
    {"qGetTLSAddr:", handle_thread_local},
    {"vFile:", handle_file},
    {"vCont?", handle_can_continue},
    {"vCont", handle_continue},
    {"vRun", handle_run},
    {"vKill", handle_kill},
    {"?", handle_why},
    {"!", handle_extended},
    {"H", handle_thread},
    {"T", handle_alive},
    {"g", handle_registers},
    {"p", handle_register},
    {"m", handle_memory},
    {"G", handle_write_registers},
    {"P", handle_write_register},
    {"M", handle_write_memory},
    {"X", handle_write_binary},
    {"Z", handle_insert},
    {"z", handle_remove},
    {"bc", handle_reverse_continue},
    {"bs", handle_reverse_step},
    {"D", handle_detach},
    {"k", handle_end},
};

static void handle_packet(struct gdb_stub *s, const char *text)
{
    for (size_t i = 0; i < sizeof(packets) / sizeof(packets[0]); i++) {
        size_t len = strlen(packets[i].start);
        if (strncmp(text, packets[i].start, len) == 0) {
            packets[i].handle(s, text + len);
            return;
        }
    }
    packet_send(s->link, ""); // not known
}

/* --- the session --- */

struct err *gdb_stub_create(int fd, const struct gdb_stub_options *options, struct gdb_stub **out)
{
    cleanup(gdb_stub_destroyp) struct gdb_stub *s = xnew(struct gdb_stub);
    for (int i = 0; i < MOST_FILES; i++)
        s->files[i] = -1;
    pthread_mutex_init(&s->lock, NULL);
    TRY(packet_link_open(fd, &s->link));
    TRY(past_open(&s->past, options->q));
    struct moment m = options->moment;
    uint32_t task = options->task;
    if (options->at_first_focus)
        TRY(past_first_focus(&s->past, &m, &task));
    TRY(move_to(s, m, task));
    const struct past_task *leader = past_task(&s->past, s->process);
    s->pid = leader ? leader->tid : 1;
    s->told_exec =
        past_exec_at(&s->past, s->process, s->now); // it asks for the file when it has connected
    s->why = STOP_STEPPED; // gdb expects SIGTRAP of a program that was attached to
    cleanup(buf_deinit) struct buf siginfo = {0};
    struct err *e = past_siginfo(&s->past, s->now, s->task, &siginfo);
    if (!e && siginfo.len >= sizeof(int32_t)) { // or it stands at a signal
        s->why = STOP_SIGNAL;
        s->signal = (int)load_u32(siginfo.data); // si_signo
        s->told_signal = s->now;
    }
    err_free(e);
    *out = steal(s);
    return NULL;
}

void gdb_stub_destroy(struct gdb_stub *s)
{
    if (!s)
        return;
    packet_link_close(s->link);
    divert_end(s);
    past_close(&s->past);
    close_files(s);
    vec_each (b, &s->breakpoints)
        vec_deinit(&b->condition);
    vec_deinit(&s->breakpoints);
    vec_deinit(&s->kept);
    buf_deinit(&s->registers);
    buf_deinit(&s->answer);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void gdb_stub_run(struct gdb_stub *s)
{
    cleanup(buf_deinit) struct buf packet = {0};
    while (!s->done && packet_receive(s->link, &packet)) {
        s->packet_end = (const char *)packet.data + packet.len;
        handle_packet(s, (const char *)packet.data);
    }
}
