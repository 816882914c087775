#include "gdbstub/view.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

/* MOVED_MS: between two words of it, however often a script of gdb's goes somewhere. */
enum { MOST_INPUT = 256 << 10, RESIZED_MS = 50, MOVED_MS = 50 };

/* What others ask of the view; guarded by the view's lock. */
struct asked {
    struct buf input;
    uint64_t taken;
    bool leave, go, resize;
    struct pilot_place place;
    unsigned columns, rows;
};

struct gdb_view {
    struct gdb_view_options o;
    pthread_mutex_t lock;
    struct asked asked;
    struct gdb_stub *stub; /* guarded by the lock; set once, by the answering thread */
    struct err *failed;    /* guarded by the lock: why there is no stub */
    int wake;              /* an eventfd */
    pthread_t thread, answering;
    bool answers; /* `answering` has begun */
    /* The rest is the thread's own. */
    struct gdb_process process;
    struct pilot pilot;
    struct query_engine *q;
    struct buf input;
    uint64_t ahead; /* output that was given and not yet taken */
    unsigned columns, rows;
    bool terminal_open, commands_open, over;
    bool resized;      /* the terminal has another size for a moment */
    uint64_t moved_ms; /* when `moved` was last called */
    int status;        /* over: gdb's */
};

static void wake(struct gdb_view *v)
{
    uint64_t one = 1;
    (void)!write(v->wake, &one, sizeof(one));
}

/* --- the thread that answers gdb --- */

static struct err *answer_until_end(struct gdb_view *v, int link)
{
    struct gdb_stub *stub;
    const struct gdb_stub_options options = {
        .q = v->q, .moment = v->o.place.moment, .task = v->o.place.task};
    TRY(gdb_stub_create(link, &options, &stub));
    pthread_mutex_lock(&v->lock);
    v->stub = stub;
    pthread_mutex_unlock(&v->lock);
    gdb_stub_run(stub);
    return NULL;
}

static void *answer(void *arg)
{
    struct gdb_view *v = arg;
    struct err *e = answer_until_end(v, v->process.link);
    pthread_mutex_lock(&v->lock);
    v->failed = e;
    pthread_mutex_unlock(&v->lock);
    wake(v);
    return NULL;
}

/* --- the thread that moves bytes --- */

static struct err *begin(struct gdb_view *v)
{
    TRY(query_engine_open(v->o.trace_dir, &v->o.query, &v->q));
    struct err *e = gdb_launcher_lay_out(v->o.launcher, v->q, v->o.trace_dir);
    if (e)
        log_warn("%s", err_message(e));
    err_free(e);
    TRY(gdb_launch(v->o.launcher, v->columns, v->rows, &v->process));
    fcntl(v->process.terminal, F_SETFL, O_RDWR | O_NONBLOCK);
    fcntl(v->process.commands, F_SETFL, O_RDWR | O_NONBLOCK);
    v->terminal_open = v->commands_open = true;
    int status = pthread_create(&v->answering, NULL, answer, v);
    if (status) {
        errno = status;
        return err_os("cannot start a thread for gdb");
    }
    v->answers = true;
    return NULL;
}

static void give(struct gdb_view *v, const void *bytes, size_t len)
{
    v->ahead += len;
    v->o.output(v->o.ctx, bytes, len);
}

static size_t room(const struct gdb_view *v)
{
    return v->ahead < GDB_VIEW_AHEAD ? GDB_VIEW_AHEAD - v->ahead : 0;
}

static void set_size(struct gdb_view *v, unsigned columns, unsigned rows)
{
    struct winsize size = {.ws_col = (uint16_t)columns, .ws_row = (uint16_t)rows};
    ioctl(v->process.terminal, TIOCSWINSZ, &size);
}

static void read_terminal(struct gdb_view *v)
{
    char bytes[4096];
    size_t most = room(v);
    ssize_t n = read(v->process.terminal, bytes, most < sizeof(bytes) ? most : sizeof(bytes));
    if (n > 0)
        give(v, bytes, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        v->terminal_open = false; // EIO: nobody has the other side any more
}

/* Acts on what the pilot has learned. */
static void follow_pilot(struct gdb_view *v)
{
    struct pilot *p = &v->pilot;
    if (p->said.len && room(v)) {
        give(v, p->said.data, p->said.len); // at most twice the room
        p->said.len = 0;
    }
    if (p->redraw) { // only a size that has changed makes gdb show its prompt again, with what is
                     // typed there
        set_size(v, v->columns, v->rows + 1);
        v->resized = true;
        p->redraw = false;
    }
    if (p->moved && now_ms() - v->moved_ms >= MOVED_MS) {
        pthread_mutex_lock(&v->lock);
        struct gdb_stub *stub = v->stub;
        pthread_mutex_unlock(&v->lock);
        p->moved = false;
        v->moved_ms = now_ms();
        if (stub) {
            struct gdb_position at = gdb_stub_position(stub);
            v->o.moved(v->o.ctx, &at, p->moved_frame);
        }
    }
}

static void read_commands(struct gdb_view *v)
{
    char bytes[4096];
    ssize_t n = read(v->process.commands, bytes, sizeof(bytes));
    if (n > 0)
        pilot_hear(&v->pilot, bytes, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        v->commands_open = false;
}

static void write_some(int fd, struct buf *b)
{
    ssize_t n = b->len ? write(fd, b->data, b->len) : 0;
    if (n <= 0)
        return; // a side that is gone is noticed by reading
    b->len -= (size_t)n;
    memmove(b->data, b->data + n, b->len);
}

/* False: it is to end. */
static bool take_asked(struct gdb_view *v, struct err **failed_out)
{
    uint64_t ignored;
    (void)!read(v->wake, &ignored, sizeof(ignored));
    pthread_mutex_lock(&v->lock);
    struct asked *a = &v->asked;
    if (!v->input.len) {
        struct buf taken = a->input;
        a->input = v->input;
        v->input = taken;
    }
    v->ahead -= a->taken < v->ahead ? a->taken : v->ahead;
    bool go = a->go, resize = a->resize, leave = a->leave;
    struct pilot_place place = a->place;
    if (resize) {
        v->columns = a->columns;
        v->rows = a->rows;
    }
    a->go = a->resize = false;
    a->taken = 0;
    *failed_out = steal(v->failed);
    pthread_mutex_unlock(&v->lock);
    if (go)
        pilot_want(&v->pilot, &place);
    if (resize)
        set_size(v, v->columns, v->rows);
    return !leave && !*failed_out;
}

static void read_life(struct gdb_view *v)
{
    struct gdb_end end = {0};
    ssize_t n = read(v->process.life, &end, sizeof(end));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    v->over = true;
    v->status = end.status;
}

/* A command that is typed while gdb goes to a focus would find the program running: it waits. */
static short terminal_events(const struct gdb_view *v)
{
    bool goes = v->pilot.state == PILOT_GOING || v->pilot.state == PILOT_FRAMING;
    return (short)((room(v) ? POLLIN : 0) | (v->input.len && !goes ? POLLOUT : 0));
}

static struct err *converse(struct gdb_view *v)
{
    for (;;) {
        struct err *failed;
        if (!take_asked(v, &failed))
            return failed;
        if (v->over && !v->terminal_open)
            return NULL;
        short of_terminal = terminal_events(v),
              of_commands =
                  (short)((v->pilot.said.len ? 0 : POLLIN) | (v->pilot.out.len ? POLLOUT : 0));
        // A side that is gone would be told again and again.
        struct pollfd waiting[] = {
            {v->wake, POLLIN, 0},
            {v->over ? -1 : v->process.life, POLLIN, 0},
            {v->terminal_open && of_terminal ? v->process.terminal : -1, of_terminal, 0},
            {v->commands_open && of_commands ? v->process.commands : -1, of_commands, 0}};
        int n = poll(waiting, ARRAY_COUNT(waiting), v->resized || v->pilot.moved ? RESIZED_MS : -1);
        if (n < 0 && errno != EINTR)
            return err_os("cannot wait for gdb");
        if (n == 0 && v->resized) {
            set_size(v, v->columns, v->rows);
            v->resized = false;
        }
        if (waiting[1].revents)
            read_life(v);
        if (waiting[2].revents & POLLOUT)
            write_some(v->process.terminal, &v->input);
        if (waiting[2].revents & ~POLLOUT && room(v))
            read_terminal(v);
        if (waiting[3].revents & POLLOUT)
            write_some(v->process.commands, &v->pilot.out);
        if (waiting[3].revents & ~POLLOUT)
            read_commands(v);
        follow_pilot(v);
    }
}

static char *why_ended(const struct gdb_view *v, const struct err *e)
{
    if (e)
        return xstrdup(err_message(e));
    if (!v->over)
        return xstrdup("closed");
    if (WIFSIGNALED(v->status))
        return str_format("gdb was ended by signal %d (%s)", WTERMSIG(v->status),
                          strsignal(WTERMSIG(v->status)));
    return WEXITSTATUS(v->status)
               ? str_format("gdb has ended with status %d", WEXITSTATUS(v->status))
               : xstrdup("gdb has ended");
}

static void *live(void *arg)
{
    struct gdb_view *v = arg;
    cleanup(err_freep) struct err *e = begin(v);
    if (!e)
        e = converse(v);
    if (v->answers)
        v->process.link = -1; // the stub's
    gdb_process_close(&v->process);
    if (v->answers)
        pthread_join(v->answering, NULL); // gdb is gone, which ends what it asked for
    gdb_stub_destroy(v->stub);
    query_engine_close(v->q);
    cleanup(freep) char *why = why_ended(v, e);
    v->o.ended(v->o.ctx, why);
    return NULL;
}

/* --- what others ask --- */

struct err *gdb_view_open(const struct gdb_view_options *options, struct gdb_view **out)
{
    struct gdb_view *v = xnew(struct gdb_view);
    *v = (struct gdb_view){.o = *options,
                           .columns = options->columns,
                           .rows = options->rows,
                           .process = {-1, -1, -1, -1}};
    v->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&v->lock, NULL);
    pilot_init(&v->pilot, &options->place);
    // Signals are the main thread's.
    sigset_t stopping, old;
    sigemptyset(&stopping);
    sigaddset(&stopping, SIGINT);
    sigaddset(&stopping, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &stopping, &old);
    int status = v->wake < 0 ? errno : pthread_create(&v->thread, NULL, live, v);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (status) {
        pthread_mutex_destroy(&v->lock);
        if (v->wake >= 0)
            close(v->wake);
        free(v);
        errno = status;
        return err_os("cannot start a thread for gdb");
    }
    *out = v;
    return NULL;
}

void gdb_view_close(struct gdb_view *v)
{
    if (!v)
        return;
    gdb_view_leave(v);
    pthread_join(v->thread, NULL);
    pilot_deinit(&v->pilot);
    buf_deinit(&v->input);
    buf_deinit(&v->asked.input);
    err_free(v->failed);
    pthread_mutex_destroy(&v->lock);
    close(v->wake);
    free(v);
}

void gdb_view_leave(struct gdb_view *v)
{
    pthread_mutex_lock(&v->lock);
    v->asked.leave = true;
    pthread_mutex_unlock(&v->lock);
    wake(v);
}

bool gdb_view_input(struct gdb_view *v, const char *text, size_t len)
{
    pthread_mutex_lock(&v->lock);
    bool fits = len <= MOST_INPUT - v->asked.input.len;
    if (fits)
        buf_add(&v->asked.input, text, len);
    pthread_mutex_unlock(&v->lock);
    wake(v);
    return fits;
}

void gdb_view_taken(struct gdb_view *v, uint64_t bytes)
{
    pthread_mutex_lock(&v->lock);
    v->asked.taken += bytes < GDB_VIEW_AHEAD ? bytes : 2 * GDB_VIEW_AHEAD;
    pthread_mutex_unlock(&v->lock);
    wake(v);
}

void gdb_view_resize(struct gdb_view *v, unsigned columns, unsigned rows)
{
    pthread_mutex_lock(&v->lock);
    v->asked.resize = true;
    v->asked.columns = columns;
    v->asked.rows = rows;
    pthread_mutex_unlock(&v->lock);
    wake(v);
}

void gdb_view_go(struct gdb_view *v, const struct pilot_place *place)
{
    pthread_mutex_lock(&v->lock);
    v->asked.go = true;
    v->asked.place = *place;
    pthread_mutex_unlock(&v->lock);
    wake(v);
}
