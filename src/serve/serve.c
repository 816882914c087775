/* HTTP and WebSocket. One thread runs libwebsockets; queries run in the asker's threads and come
 * back by waking this one. */
#include "serve/serve.h"

#include "base/buf.h"
#include "base/confine.h"
#include "base/log.h"
#include "gdbstub/launcher.h"
#include "serve/asker.h"
#include "serve/gdbs.h"
#include "serve/http.h"
#include "serve/storage.h"
#include "trace/trace.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libwebsockets.h>
#include <signal.h>
#include <stdio.h>

enum { MAX_REQUEST = 64 << 10, MAX_OUTGOING = 64 << 20, MAX_KEY = 200, PROTOCOL_VERSION = 1 };

struct message {
    struct message *next;
    size_t len;
    char text[]; /* LWS_PRE bytes of room first */
};

/* A window. in: the request so far. doomed: its connection is about to be closed, nothing more is
 * sent. too_large: the rest of the request that is coming in is thrown away. */
struct client {
    struct server *server;
    struct lws *wsi;
    uint32_t number;
    struct message *out, **out_end;
    size_t out_bytes;
    struct buf in;
    bool doomed, too_large;
};

struct server {
    const struct serve_options *options;
    struct lws_context *context;
    struct query_engine *q, *for_searches;
    struct asker *asker;
    struct gdb_launcher *launcher;
    struct gdbs *gdbs;
    struct storage *storage;
    char *web_dir;
    VEC(struct client *) clients;
    uint32_t last_client;
};

static struct lws_context *volatile running; /* for the signal handler */
static volatile sig_atomic_t stop_requested;

static void on_stop(int signo)
{
    if (stop_requested)
        _exit(1);
    stop_requested = 1;
    if (running)
        lws_cancel_service(running);
}

/* --- messages to clients --- */

static void send_text(struct client *c, const char *text)
{
    size_t len = strlen(text);
    if (c->doomed)
        return;
    if (len > MAX_OUTGOING - c->out_bytes) { // it does not read: let it come again
        c->doomed = true;
        asker_forget(c->server->asker, c->number);
        gdbs_forget(c->server->gdbs, c->number);
        lws_set_timeout(c->wsi, PENDING_TIMEOUT_CLOSE_SEND, LWS_TO_KILL_ASYNC);
        return;
    }
    struct message *m = xmalloc(sizeof(*m) + LWS_PRE + len);
    m->next = NULL;
    m->len = len;
    memcpy(m->text + LWS_PRE, text, len);
    *c->out_end = m;
    c->out_end = &m->next;
    c->out_bytes += len;
    lws_callback_on_writable(c->wsi);
}

static void send_json(struct client *c, json_t *message)
{
    char *text = json_dumps(message, JSON_COMPACT);
    if (text)
        send_text(c, text);
    free(text);
    json_decref(message);
}

static void broadcast(struct server *s, json_t *message)
{
    char *text = json_dumps(message, JSON_COMPACT);
    vec_each (c, &s->clients) {
        if (text)
            send_text(*c, text);
    }
    free(text);
    json_decref(message);
}

static json_t *stored_message(const char *key, const char *value, int64_t created)
{
    json_t *v = json_loads(value, JSON_DECODE_ANY, NULL);
    return json_pack("{s{ss, so, sI}}", "stored", "key", key, "value", v ? v : json_null(),
                     "created", (json_int_t)created);
}

static void send_stored(void *ctx, const char *key, const char *value, int64_t created)
{
    send_json(ctx, stored_message(key, value, created));
}

static void greet(struct server *s, struct client *c)
{
    send_json(c, json_pack("{s{si, ss, sb}}", "hello", "version", PROTOCOL_VERSION, "title",
                           query_title(s->q), "persistent", s->options->storage_dir != NULL));
    struct err *e = storage_each(s->storage, send_stored, c);
    if (e)
        log_error("%s", err_message(e));
    err_free(e);
    send_text(c, "{\"storedAll\":true}");
}

/* --- requests --- */

static void refuse(struct client *c, int64_t id, enum err_kind kind, const char *why)
{
    cleanup(err_freep) struct err *e = err_new(kind, "%s", why);
    char *text = asker_error_text(id, e);
    if (text)
        send_text(c, text);
    free(text);
}

static void put(struct server *s, struct client *c, const char *key, json_t *value)
{
    cleanup(freep) char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    int64_t created = 0;
    cleanup(err_freep) struct err *e = NULL;
    if (!text || !*key || strlen(key) > MAX_KEY)
        e = err_new(ERR_LIMIT, "a key has 1 to %d bytes", MAX_KEY);
    else
        e = storage_put(s->storage, key, text, &created);
    if (e)
        refuse(c, 0, err_kind(e), err_message(e));
    else
        broadcast(s, stored_message(key, text, created));
}

static void take_away(struct server *s, struct client *c, const char *key)
{
    cleanup(err_freep) struct err *e = storage_delete(s->storage, key);
    if (e)
        refuse(c, 0, err_kind(e), err_message(e));
    else
        broadcast(s, json_pack("{s{ss}}", "removed", "key", key));
}

static void ask(struct server *s, struct client *c, int64_t id, const char *query, json_t *params)
{
    if (params && !json_is_object(params)) {
        refuse(c, id, ERR_USAGE, "params is not an object");
        return;
    }
    // A copy: the request's values die on this thread while the query runs on another.
    if (!asker_ask(s->asker, c->number, id, query, params ? json_deep_copy(params) : json_object()))
        refuse(c, id, ERR_LIMIT, "too many queries at a time");
}

static void ask_gdb(struct server *s, struct client *c, int64_t id, const json_t *message)
{
    cleanup(err_freep) struct err *e = gdbs_handle(s->gdbs, c->number, id, message);
    if (e && json_object_get(message, "open"))
        send_json(c, json_pack("{sI, ss}", "gdb", (json_int_t)id, "closed", err_message(e)));
    else if (e)
        send_json(c, json_pack("{sI, s{ss, ss}}", "gdb", (json_int_t)id, "error", "kind",
                               err_kind_name(err_kind(e)), "message", err_message(e)));
}

static void handle_request(struct server *s, struct client *c, const char *text, size_t len)
{
    json_error_t why;
    json_t *r = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(r)) {
        cleanup(freep) char *message =
            r ? xstrdup("a request is a JSON object")
              : str_format("no JSON: byte %d: %s", why.position, why.text);
        refuse(c, 0, ERR_USAGE, message);
        json_decref(r);
        return;
    }
    json_t *id = json_object_get(r, "id"), *cancel = json_object_get(r, "cancel"),
           *value = json_object_get(r, "value"), *gdb = json_object_get(r, "gdb");
    const char *query = json_string_value(json_object_get(r, "query")),
               *key = json_string_value(json_object_get(r, "put")),
               *gone = json_string_value(json_object_get(r, "delete"));
    if (query && json_is_integer(id))
        ask(s, c, json_integer_value(id), query, json_object_get(r, "params"));
    else if (json_is_integer(cancel))
        asker_cancel(s->asker, c->number, json_integer_value(cancel));
    else if (json_is_integer(gdb))
        ask_gdb(s, c, json_integer_value(gdb), r);
    else if (key && value)
        put(s, c, key, value);
    else if (gone)
        take_away(s, c, gone);
    else
        refuse(c, json_is_integer(id) ? json_integer_value(id) : 0, ERR_USAGE,
               "request not understood");
    json_decref(r);
}

static void deliver(struct server *s, struct answer *messages)
{
    for (struct answer *a = messages; a;) {
        vec_each (c, &s->clients) {
            if ((*c)->number == a->client && a->text)
                send_text(*c, a->text);
        }
        struct answer *next = a->next;
        free(a->text);
        free(a);
        a = next;
    }
}

/* --- the callback --- */

static struct client *client_of(struct server *s, struct lws *wsi)
{
    vec_each (c, &s->clients) {
        if ((*c)->wsi == wsi)
            return *c;
    }
    return NULL;
}

static void drop_client(struct server *s, struct lws *wsi)
{
    for (size_t i = 0; i < s->clients.count; i++) {
        struct client *c = s->clients.items[i];
        if (c->wsi != wsi)
            continue;
        if (s->asker)
            asker_forget(s->asker, c->number);
        if (s->gdbs)
            gdbs_forget(s->gdbs, c->number);
        while (c->out) {
            struct message *next = c->out->next;
            free(c->out);
            c->out = next;
        }
        buf_deinit(&c->in);
        free(c);
        s->clients.items[i] = s->clients.items[--s->clients.count];
        return;
    }
}

static int write_one(struct client *c)
{
    struct message *m = c->out;
    if (!m)
        return 0;
    c->out = m->next;
    if (!c->out)
        c->out_end = &c->out;
    c->out_bytes -= m->len;
    int n = lws_write(c->wsi, (unsigned char *)m->text + LWS_PRE, m->len, LWS_WRITE_TEXT);
    bool failed = n < (int)m->len;
    free(m);
    if (c->out)
        lws_callback_on_writable(c->wsi);
    return failed ? -1 : 0;
}

static void receive(struct server *s, struct client *c, const void *in, size_t len)
{
    c->too_large |= len > MAX_REQUEST - c->in.len;
    if (!c->too_large)
        buf_add(&c->in, in, len);
    if (!lws_is_final_fragment(c->wsi) || lws_remaining_packet_payload(c->wsi))
        return;
    if (c->too_large)
        refuse(c, 0, ERR_LIMIT, "a request has at most 64 KiB");
    else
        handle_request(s, c, (const char *)c->in.data, c->in.len);
    c->too_large = false;
    c->in.len = 0;
}

/* 0: go on. */
static int confirm_upgrade(struct lws *wsi, const char *kind)
{
    char uri[8];
    if (!str_eq(kind, "websocket") || lws_hdr_copy(wsi, uri, sizeof(uri), WSI_TOKEN_GET_URI) <= 0 ||
        !str_eq(uri, "/ws"))
        return http_answer(wsi, HTTP_STATUS_NOT_FOUND, "the WebSocket is at /ws\n");
    if (!http_host_is_ours(wsi) || !http_origin_is_ours(wsi))
        return http_answer(wsi, HTTP_STATUS_FORBIDDEN,
                           "refused: this request comes from another site\n");
    return 0;
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                  size_t len)
{
    struct server *s = lws_context_user(lws_get_context(wsi));
    switch (reason) {
    case LWS_CALLBACK_HTTP:
        return http_serve(wsi, in, s->q, s->web_dir);
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
        return confirm_upgrade(wsi, in);
    case LWS_CALLBACK_ESTABLISHED: {
        struct client *c = xnew(struct client);
        c->server = s;
        c->wsi = wsi;
        c->number = ++s->last_client;
        c->out_end = &c->out;
        vec_push(&s->clients, c);
        greet(s, c);
        return 0;
    }
    case LWS_CALLBACK_RECEIVE: {
        struct client *c = client_of(s, wsi);
        if (c)
            receive(s, c, in, len);
        return c ? 0 : -1;
    }
    case LWS_CALLBACK_SERVER_WRITEABLE: {
        struct client *c = client_of(s, wsi);
        return c ? write_one(c) : 0;
    }
    case LWS_CALLBACK_CLOSED:
        drop_client(s, wsi);
        return 0;
    case LWS_CALLBACK_EVENT_WAIT_CANCELLED:
        if (s->asker) {
            deliver(s, asker_take(s->asker));
            deliver(s, gdbs_take(s->gdbs));
        }
        return 0;
    default:
        return lws_callback_http_dummy(wsi, reason, user, in, len);
    }
}

static const struct lws_protocols protocols[] = {
    {"http", on_lws, 0, MAX_REQUEST, 0, NULL, 0},
    {NULL, NULL, 0, 0, 0, NULL, 0},
};

static void wake(void *ctx)
{
    lws_cancel_service(((struct server *)ctx)->context);
}

/* --- start and stop --- */

/* Can this be listened on? libwebsockets would only log the reason. */
static struct err *probe_port(const char *address, int port)
{
    if (port == 0)
        return NULL;
    cleanup(closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (fd < 0 || inet_pton(AF_INET, address, &a.sin_addr) != 1)
        return err_new(ERR_USAGE, "cannot listen on %s: not an IPv4 address", address);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 1) != 0)
        return err_os("cannot listen on %s:%d", address, port);
    return NULL;
}

static struct err *listen_on(struct server *s, const char *address, int port, int *port_out)
{
    TRY(probe_port(address, port));
    struct lws_context_creation_info info = {
        .port = port,
        .iface = address,
        .protocols = protocols,
        .headers = http_security_headers,
        .vhost_name = address,
        .options = LWS_SERVER_OPTION_FAIL_UPON_UNABLE_TO_BIND,
        .keepalive_timeout = 60,
        .timeout_secs = 20,
    };
    struct lws_vhost *v = lws_create_vhost(s->context, &info);
    if (!v)
        return err_new(ERR_OS, "cannot listen on %s:%d", address, port);
    *port_out = lws_get_vhost_listen_port(v);
    return NULL;
}

/* Where we listen; a port of -1: not there. */
struct places {
    int port, tunnel_port;
};

static struct err *listen_everywhere(struct server *s, struct places *out)
{
    const struct serve_options *o = s->options;
    *out = (struct places){-1, -1};
    if (!o->tunnel_address) {
        cleanup(err_freep) struct err *e = listen_on(s, o->address, o->port, &out->port);
        return e ? err_new(err_kind(e), "%s (choose another port with --tunnel)", err_message(e))
                 : NULL;
    }
    TRY(listen_on(s, o->tunnel_address, o->tunnel_port, &out->tunnel_port));
    if (o->port < 0)
        return NULL;
    if (o->port == out->tunnel_port && str_eq(o->tunnel_address, "0.0.0.0")) {
        out->port = o->port; // which that includes
        return NULL;
    }
    struct err *e = listen_on(s, o->address, o->port, &out->port);
    if (e)
        log_warn("%s: only the tunnel answers", err_message(e));
    err_free(e);
    return NULL;
}

static void announce(const struct serve_options *o, const struct places *p)
{
    if (p->port >= 0)
        printf("Appserver launched at http://%s:%d/index.html\n", o->address, p->port);
    if (p->tunnel_port >= 0)
        printf("Appserver %s http://%s:%d/index.html\n",
               p->port >= 0 ? "tunneled to" : "launched at", o->tunnel_address, p->tunnel_port);
    fflush(stdout);
}

static void log_lws(int level, const char *line)
{
    log_debug("%.*s", (int)strcspn(line, "\n"), line);
}

/* The trace's own name, for what is stored: its uuid, else where it lies. */
static struct err *trace_key(const char *dir, char **out)
{
    static const uint8_t unknown[16];
    cleanup(trace_closep) struct trace *t = NULL;
    TRY(trace_open(dir, &t));
    const uint8_t *uuid = trace_header(t)->uuid;
    struct buf key = {0};
    for (int i = 0; i < 16; i++)
        buf_printf(&key, "%02x", uuid[i]);
    cleanup(freep) char *path = realpath(dir, NULL);
    if (memcmp(uuid, unknown, sizeof(unknown)) == 0 && path) {
        key.len = 0;
        buf_str(&key, path);
    }
    *out = buf_steal_str(&key);
    return NULL;
}

/* From where on nothing is trusted that was recorded. */
static struct err *open_recording(struct server *s)
{
    const struct serve_options *o = s->options;
    const struct gdb_launcher_options gdb = {o->trace_dir, o->source_maps, o->source_map_count};
    if (o->storage_dir)
        TRY(storage_prepare(o->storage_dir));
    TRY(gdb_launcher_start(&gdb, &s->launcher));
    const char *const writable[] = {gdb_launcher_source_dir(s->launcher), o->storage_dir};
    TRY(confine(writable, ARRAY_COUNT(writable)));
    struct query_options query = {.source_maps = o->source_maps,
                                  .source_map_count = o->source_map_count};
    TRY(query_engine_open(o->trace_dir, &query, &s->q));
    const char *const own_dirs[] = {s->web_dir, o->storage_dir, writable[0]};
    TRY(query_engine_confine(s->q, own_dirs, ARRAY_COUNT(own_dirs)));
    TRY(query_engine_open(o->trace_dir, &query, &s->for_searches));
    cleanup(freep) char *key = NULL;
    TRY(trace_key(o->trace_dir, &key));
    return storage_open(o->storage_dir, key, &s->storage);
}

static struct err *serve(struct server *s)
{
    struct places places;
    TRY(listen_everywhere(s, &places));
    TRY(open_recording(s));
    struct sigaction stop = {.sa_handler = on_stop};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    signal(SIGPIPE, SIG_IGN);
    running = s->context;
    const struct gdbs_options gdbs = {.launcher = s->launcher,
                                      .trace_dir = s->options->trace_dir,
                                      .wake = wake,
                                      .ctx = s,
                                      .query = {.source_maps = s->options->source_maps,
                                                .source_map_count = s->options->source_map_count}};
    s->gdbs = gdbs_create(&gdbs);
    TRY(asker_start(s->q, s->for_searches, wake, s, &s->asker));
    announce(s->options, &places);
    while (!stop_requested && lws_service(s->context, 0) >= 0) {
    }
    return NULL;
}

struct err *serve_run(const struct serve_options *o)
{
    struct server s = {.options = o};
    cleanup(freep) char *web_dir = o->web_dir ? xstrdup(o->web_dir) : http_find_web_dir();
    s.web_dir = web_dir;
    lws_set_log_level(LLL_ERR | LLL_WARN, log_lws);
    struct lws_context_creation_info info = {
        .options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_DISABLE_IPV6,
        .user = &s,
        .pt_serv_buf_size = 32768,
        .ka_time = 60,
        .ka_interval = 10,
        .ka_probes = 3,
    };
    s.context = lws_create_context(&info);
    if (!s.context)
        return err_new(ERR_OS, "cannot start the server");
    struct err *e = serve(&s);
    asker_stop(s.asker);
    s.asker = NULL;
    gdbs_destroy(s.gdbs);
    s.gdbs = NULL;
    gdb_launcher_stop(s.launcher);
    running = NULL;
    lws_context_destroy(s.context); // drops the clients
    while (s.clients.count)
        drop_client(&s, s.clients.items[0]->wsi);
    vec_deinit(&s.clients);
    storage_close(s.storage);
    query_engine_close(s.for_searches);
    query_engine_close(s.q);
    return e;
}
