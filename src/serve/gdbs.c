#include "serve/gdbs.h"

#include "base/buf.h"
#include "gdbstub/view.h"

#include <pthread.h>

/* A gdb takes some 100 MB, and its engine what it keeps of the past. */
enum { MOST_GDBS = 8, ENGINE_MEMORY = 64 << 20 };

/* The view's functions are called on its threads; `ended` is guarded by the lock of gdbs, the rest
 * does not change. */
struct session {
    struct gdbs *all;
    uint32_t client;
    int64_t id;
    struct gdb_view *view;
    bool ended;
};

/* Messages are guarded by the lock; sessions belong to the thread that handles requests. */
struct gdbs {
    struct gdbs_options o;
    VEC(struct session *) sessions;
    pthread_mutex_t lock;
    struct answer *messages, **end;
};

/* --- messages to clients, from threads of views --- */

/* A view says so much only as the client takes, so that what waits here is bounded. Takes over
 * message. */
static void tell(struct session *s, json_t *message, bool last)
{
    struct gdbs *g = s->all;
    json_object_set_new(message, "gdb", json_integer(s->id));
    struct answer *a = xnew(struct answer);
    a->client = s->client;
    a->text = json_dumps(message, JSON_COMPACT);
    json_decref(message);
    pthread_mutex_lock(&g->lock);
    *g->end = a;
    g->end = &a->next;
    s->ended |= last;
    pthread_mutex_unlock(&g->lock);
    g->o.wake(g->o.ctx);
}

static void tell_output(void *ctx, const void *bytes, size_t len)
{
    cleanup(buf_deinit) struct buf hex = {0};
    for (size_t i = 0; i < len; i++)
        buf_printf(&hex, "%02x", ((const uint8_t *)bytes)[i]);
    tell(ctx, json_pack("{ss}", "output", buf_cstr(&hex)), false);
}

static void tell_moved(void *ctx, const struct gdb_position *p, unsigned frame)
{
    tell(ctx,
         json_pack("{s{so, s{si, si}, si}}", "focus", "moment", json_moment(p->moment), "task",
                   "tid", (int)p->tid, "serial", (int)p->task, "frame", (int)frame),
         false);
}

static void tell_ended(void *ctx, const char *why)
{
    tell(ctx, json_pack("{ss}", "closed", why), true);
}

/* --- requests --- */

static struct session *find(const struct gdbs *g, uint32_t client, int64_t id)
{
    vec_each (s, &g->sessions) {
        if ((*s)->client == client && (*s)->id == id)
            return *s;
    }
    return NULL;
}

static void drop(struct gdbs *g, size_t index)
{
    struct session *s = g->sessions.items[index];
    gdb_view_close(s->view);
    free(s);
    g->sessions.items[index] = g->sessions.items[--g->sessions.count];
}

/* Of views that have ended by themselves, only the place is still taken. */
static void drop_ended(struct gdbs *g)
{
    for (size_t i = g->sessions.count; i-- > 0;) {
        pthread_mutex_lock(&g->lock);
        bool ended = g->sessions.items[i]->ended;
        pthread_mutex_unlock(&g->lock);
        if (ended)
            drop(g, i);
    }
}

static struct err *read_size(const json_t *size, unsigned *columns, unsigned *rows)
{
    json_int_t c = json_integer_value(json_array_get(size, 0)),
               r = json_integer_value(json_array_get(size, 1));
    if (c < 1 || c > GDB_MOST_COLUMNS || r < 1 || r > GDB_MOST_ROWS)
        return err_new(ERR_USAGE, "a size is [columns, rows], 1 to %d each", GDB_MOST_COLUMNS);
    *columns = (unsigned)c;
    *rows = (unsigned)r;
    return NULL;
}

static struct err *read_place(const json_t *focus, struct pilot_place *out)
{
    const json_t *moment = json_object_get(focus, "moment"),
                 *event = json_object_get(moment, "event"),
                 *instr = json_object_get(moment, "instr"),
                 *serial = json_object_get(json_object_get(focus, "task"), "serial");
    json_int_t frame = json_integer_value(json_object_get(focus, "frame"));
    if (!json_is_integer(event) || json_integer_value(event) < 0 ||
        (instr && (!json_is_integer(instr) || json_integer_value(instr) < 0)) || frame < 0 ||
        frame > INT32_MAX || json_integer_value(serial) < 0 ||
        json_integer_value(serial) > UINT32_MAX)
        return err_new(ERR_USAGE, "this is no focus");
    *out = (struct pilot_place){
        .moment = {(event_no)json_integer_value(event), (uint64_t)json_integer_value(instr)},
        .task = (uint32_t)json_integer_value(serial),
        .frame = (unsigned)frame};
    return NULL;
}

static struct err *open_view(struct gdbs *g, uint32_t client, int64_t id, const json_t *how)
{
    struct gdb_view_options o = {.launcher = g->o.launcher,
                                 .trace_dir = g->o.trace_dir,
                                 .query = g->o.query,
                                 .output = tell_output,
                                 .moved = tell_moved,
                                 .ended = tell_ended};
    o.query.memory_bytes = ENGINE_MEMORY;
    if (find(g, client, id))
        return err_new(ERR_USAGE, "there is a gdb %lld already", (long long)id);
    if (g->sessions.count >= MOST_GDBS)
        return err_new(ERR_LIMIT, "there are %d gdbs at work; close one of them", MOST_GDBS);
    TRY(read_place(json_object_get(how, "focus"), &o.place));
    TRY(read_size(json_object_get(how, "size"), &o.columns, &o.rows));
    struct session *s = xnew(struct session);
    *s = (struct session){.all = g, .client = client, .id = id};
    o.ctx = s;
    struct err *e = gdb_view_open(&o, &s->view);
    if (e) {
        free(s);
        return e;
    }
    vec_push(&g->sessions, s);
    return NULL;
}

static struct err *handle(struct session *s, const json_t *m)
{
    const json_t *input = json_object_get(m, "input"), *taken = json_object_get(m, "taken"),
                 *size = json_object_get(m, "size"), *focus = json_object_get(m, "focus");
    if (json_is_string(input)) {
        if (!gdb_view_input(s->view, json_string_value(input), json_string_length(input)))
            return err_new(ERR_LIMIT, "gdb does not read what is typed");
        return NULL;
    }
    if (json_is_integer(taken) && json_integer_value(taken) >= 0) {
        gdb_view_taken(s->view, (uint64_t)json_integer_value(taken));
        return NULL;
    }
    if (size) {
        unsigned columns, rows;
        TRY(read_size(size, &columns, &rows));
        gdb_view_resize(s->view, columns, rows);
        return NULL;
    }
    if (focus) {
        struct pilot_place place;
        TRY(read_place(focus, &place));
        gdb_view_go(s->view, &place);
        return NULL;
    }
    if (json_is_true(json_object_get(m, "close"))) {
        gdb_view_leave(s->view);
        return NULL;
    }
    return err_new(ERR_USAGE, "request not understood");
}

struct err *gdbs_handle(struct gdbs *g, uint32_t client, int64_t id, const json_t *message)
{
    const json_t *how = json_object_get(message, "open");
    drop_ended(g);
    if (how)
        return open_view(g, client, id, how);
    struct session *s = find(g, client, id);
    return s ? handle(s, message) : NULL; // it has ended meanwhile
}

void gdbs_forget(struct gdbs *g, uint32_t client)
{
    drop_ended(g);
    vec_each (s, &g->sessions) {
        if ((*s)->client == client)
            gdb_view_leave((*s)->view);
    }
}

struct answer *gdbs_take(struct gdbs *g)
{
    drop_ended(g);
    pthread_mutex_lock(&g->lock);
    struct answer *list = g->messages;
    g->messages = NULL;
    g->end = &g->messages;
    pthread_mutex_unlock(&g->lock);
    return list;
}

struct gdbs *gdbs_create(const struct gdbs_options *options)
{
    struct gdbs *g = xnew(struct gdbs);
    g->o = *options;
    g->end = &g->messages;
    pthread_mutex_init(&g->lock, NULL);
    return g;
}

void gdbs_destroy(struct gdbs *g)
{
    if (!g)
        return;
    vec_each (s, &g->sessions)
        gdb_view_leave((*s)->view);
    while (g->sessions.count)
        drop(g, 0);
    vec_deinit(&g->sessions);
    for (struct answer *a = gdbs_take(g); a;) {
        struct answer *next = a->next;
        free(a->text);
        free(a);
        a = next;
    }
    pthread_mutex_destroy(&g->lock);
    free(g);
}
