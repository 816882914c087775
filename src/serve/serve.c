/* HTTP and WebSocket. One thread runs libwebsockets; queries run in the asker's thread and come back by waking this one. */
#include "serve/serve.h"

#include "base/buf.h"
#include "base/log.h"
#include "serve/asker.h"
#include "serve/storage.h"
#include "trace/trace.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libwebsockets.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

enum { MAX_REQUEST = 64 << 10, MAX_OUTGOING = 64 << 20, MAX_SOURCE = 16 << 20, MAX_KEY = 200, MAX_VALUE = 60000,
       PROTOCOL_VERSION = 1 };

struct message {
    struct message *next;
    size_t len;
    char text[]; /* LWS_PRE bytes of room first */
};

struct client {
    struct lws *wsi;
    uint32_t number;
    struct message *out, **out_end;
    size_t out_bytes;
    struct buf in;
    bool doomed;
};

struct server {
    const struct serve_options *options;
    struct lws_context *context;
    struct query_engine *q;
    struct asker *asker;
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
    if (c->out_bytes + len > MAX_OUTGOING) { // it does not read: let it come again
        c->doomed = true;
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
    return json_pack("{s{ss, so, sI}}", "stored", "key", key, "value", v ? v : json_null(), "created", (json_int_t)created);
}

static void send_stored(void *ctx, const char *key, const char *value, int64_t created)
{
    send_json(ctx, stored_message(key, value, created));
}

static void greet(struct server *s, struct client *c)
{
    send_json(c, json_pack("{s{si, ss, sb}}", "hello", "version", PROTOCOL_VERSION, "title", query_title(s->q), "persistent",
                           s->options->storage_dir != NULL));
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
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    int64_t created = 0;
    struct err *e = NULL;
    if (!text || strlen(key) > MAX_KEY || strlen(text) > MAX_VALUE)
        e = err_new(ERR_LIMIT, "stored value too large");
    else
        e = storage_put(s->storage, key, text, &created);
    if (e)
        refuse(c, 0, err_kind(e), err_message(e));
    else
        broadcast(s, stored_message(key, text, created));
    err_free(e);
    free(text);
}

static void handle_request(struct server *s, struct client *c, const char *text, size_t len)
{
    json_error_t why;
    json_t *r = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(r)) {
        refuse(c, 0, ERR_USAGE, "a request is a JSON object");
        json_decref(r);
        return;
    }
    json_t *id = json_object_get(r, "id"), *cancel = json_object_get(r, "cancel"), *params = json_object_get(r, "params");
    const char *query = json_string_value(json_object_get(r, "query")), *key = json_string_value(json_object_get(r, "put")),
               *gone = json_string_value(json_object_get(r, "delete"));
    if (query && json_is_integer(id)) {
        if (!asker_ask(s->asker, c->number, json_integer_value(id), query, params ? json_incref(params) : json_object()))
            refuse(c, json_integer_value(id), ERR_LIMIT, "too many queries at a time");
    } else if (json_is_integer(cancel)) {
        asker_cancel(s->asker, c->number, json_integer_value(cancel));
    } else if (key && json_object_get(r, "value")) {
        put(s, c, key, json_object_get(r, "value"));
    } else if (gone) {
        struct err *e = storage_delete(s->storage, gone);
        if (e)
            refuse(c, 0, err_kind(e), err_message(e));
        else
            broadcast(s, json_pack("{s{ss}}", "removed", "key", gone));
        err_free(e);
    } else {
        refuse(c, json_is_integer(id) ? json_integer_value(id) : 0, ERR_USAGE, "request not understood");
    }
    json_decref(r);
}

static void deliver_answers(struct server *s)
{
    for (struct answer *a = asker_take(s->asker); a;) {
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

/* --- HTTP --- */

static bool header(struct lws *wsi, enum lws_token_indexes token, char *out, int len)
{
    out[0] = 0;
    return lws_hdr_copy(wsi, out, len, token) > 0;
}

/* A page of another site whose name was made to resolve to this address must get nothing: only addresses and local names are hosts
 * of ours. */
static bool host_is_ours(struct lws *wsi)
{
    char host[256], plain[256];
    struct in6_addr six;
    struct in_addr four;
    if (!header(wsi, WSI_TOKEN_HOST, host, sizeof(host)))
        return false;
    snprintf(plain, sizeof(plain), "%s", host[0] == '[' ? host + 1 : host);
    char *end = host[0] == '[' ? strchr(plain, ']') : strrchr(plain, ':');
    if (end)
        *end = 0;
    char own[256] = "";
    gethostname(own, sizeof(own) - 1);
    return str_eq(plain, "localhost") || str_eq(plain, own) || inet_pton(AF_INET, plain, &four) == 1 ||
           inet_pton(AF_INET6, plain, &six) == 1;
}

static bool origin_is_ours(struct lws *wsi)
{
    char origin[300], host[256];
    if (!header(wsi, WSI_TOKEN_ORIGIN, origin, sizeof(origin)))
        return true; // no browser
    if (!header(wsi, WSI_TOKEN_HOST, host, sizeof(host)))
        return false;
    const char *rest = strstr(origin, "://");
    return rest && str_eq(rest + 3, host);
}

static const char *mime_of(const char *path)
{
    static const char *const types[][2] = {
        {".html", "text/html; charset=utf-8"}, {".js", "text/javascript; charset=utf-8"}, {".css", "text/css; charset=utf-8"},
        {".svg", "image/svg+xml"}, {".png", "image/png"}, {".woff2", "font/woff2"}, {".json", "application/json"},
        {".map", "application/json"},
    };
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < sizeof(types) / sizeof(types[0]); i++) {
        if (str_eq(dot, types[i][0]))
            return types[i][1];
    }
    return "text/plain; charset=utf-8";
}

static const struct lws_protocol_vhost_options security_headers[] = {
    {&security_headers[1], NULL, "content-security-policy:",
     "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; font-src 'self'; "
     "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"},
    {&security_headers[2], NULL, "x-content-type-options:", "nosniff"},
    {&security_headers[3], NULL, "referrer-policy:", "no-referrer"},
    {NULL, NULL, "cache-control:", "no-cache"},
};

static int answer_status(struct lws *wsi, unsigned status, const char *text)
{
    lws_return_http_status(wsi, status, text);
    return -1;
}

static int serve_http(struct server *s, struct lws *wsi, const char *uri)
{
    if (!host_is_ours(wsi))
        return answer_status(wsi, HTTP_STATUS_FORBIDDEN, "unknown host");
    if (!lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) && !lws_hdr_total_length(wsi, WSI_TOKEN_HEAD_URI))
        return answer_status(wsi, HTTP_STATUS_METHOD_NOT_ALLOWED, NULL);
    if (strstr(uri, "/../") || strstr(uri, "//") || strlen(uri) > 4000)
        return answer_status(wsi, HTTP_STATUS_NOT_FOUND, NULL);
    cleanup(freep) char *path = NULL;
    cleanup(closep) int fd = -1;
    const char *mime = "text/plain; charset=utf-8";
    if (str_starts(uri, "/sources/")) {
        struct err *e = query_open_source(s->q, uri + strlen("/sources"), &fd);
        struct stat st;
        if (!e && (fstat(fd, &st) != 0 || st.st_size > MAX_SOURCE))
            e = err_new(ERR_LIMIT, "too large");
        if (e) {
            err_free(e);
            return answer_status(wsi, HTTP_STATUS_NOT_FOUND, "no such source");
        }
        path = str_format("/proc/self/fd/%d", fd);
    } else {
        const char *name = str_eq(uri, "/") ? "/index.html" : uri;
        if (!str_eq(name, "/index.html") && !str_starts(name, "/assets/"))
            return answer_status(wsi, HTTP_STATUS_NOT_FOUND, NULL);
        path = str_format("%s%s", s->web_dir, name);
        if (access(path, R_OK) != 0)
            return answer_status(wsi, HTTP_STATUS_NOT_FOUND, str_eq(name, "/index.html") ? "the web client is not built" : NULL);
        mime = mime_of(name);
    }
    int n = lws_serve_http_file(wsi, path, mime, NULL, 0);
    return n < 0 || (n > 0 && lws_http_transaction_completed(wsi)) ? -1 : 0;
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

static int receive(struct server *s, struct client *c, const void *in, size_t len)
{
    if (!c)
        return -1;
    if (c->in.len + len > MAX_REQUEST) {
        refuse(c, 0, ERR_LIMIT, "request too large");
        lws_close_reason(c->wsi, LWS_CLOSE_STATUS_MESSAGE_TOO_LARGE, NULL, 0);
        return -1;
    }
    buf_add(&c->in, in, len);
    if (!lws_is_final_fragment(c->wsi) || lws_remaining_packet_payload(c->wsi))
        return 0;
    handle_request(s, c, (const char *)c->in.data, c->in.len);
    c->in.len = 0;
    return 0;
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct server *s = lws_context_user(lws_get_context(wsi));
    switch (reason) {
    case LWS_CALLBACK_HTTP:
        return serve_http(s, wsi, in);
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION: {
        char uri[64];
        return host_is_ours(wsi) && origin_is_ours(wsi) && header(wsi, WSI_TOKEN_GET_URI, uri, sizeof(uri)) && str_eq(uri, "/ws")
                   ? 0
                   : -1;
    }
    case LWS_CALLBACK_ESTABLISHED: {
        struct client *c = xnew(struct client);
        c->wsi = wsi;
        c->number = ++s->last_client;
        c->out_end = &c->out;
        vec_push(&s->clients, c);
        greet(s, c);
        return 0;
    }
    case LWS_CALLBACK_RECEIVE:
        return receive(s, client_of(s, wsi), in, len);
    case LWS_CALLBACK_SERVER_WRITEABLE: {
        struct client *c = client_of(s, wsi);
        return c ? write_one(c) : 0;
    }
    case LWS_CALLBACK_CLOSED:
        drop_client(s, wsi);
        return 0;
    case LWS_CALLBACK_EVENT_WAIT_CANCELLED:
        if (s->asker)
            deliver_answers(s);
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

static bool is_web_dir(const char *dir)
{
    cleanup(freep) char *index = str_format("%s/index.html", dir);
    return access(index, R_OK) == 0;
}

/* Beside the program where it is built or installed. */
static char *find_web_dir(const struct serve_options *o)
{
    const char *given = o->web_dir ? o->web_dir : getenv("PERNOSCO_WEB");
    if (given)
        return xstrdup(given);
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    exe[n > 0 ? n : 0] = 0;
    static const char *const places[] = {"../web/dist", "../../../web/dist", "../share/pernosco/web", "web"};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char *slash = strrchr(exe, '/');
        char *dir = str_format("%.*s/%s", slash ? (int)(slash - exe) : 0, exe, places[i]);
        if (is_web_dir(dir))
            return dir;
        free(dir);
    }
    return xstrdup("/usr/share/pernosco/web");
}

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
        return err_os("cannot listen on %s:%d (choose another with --tunnel)", address, port);
    return NULL;
}

static struct err *listen_on(struct server *s, const char *address, int port, int *port_out)
{
    TRY(probe_port(address, port));
    struct lws_context_creation_info info = {
        .port = port, .iface = address, .protocols = protocols, .headers = security_headers,
        .options = LWS_SERVER_OPTION_FAIL_UPON_UNABLE_TO_BIND, .vhost_name = address, .keepalive_timeout = 60,
    };
    struct lws_vhost *v = lws_create_vhost(s->context, &info);
    if (!v)
        return err_new(ERR_OS, "cannot listen on %s:%d", address, port);
    *port_out = lws_get_vhost_listen_port(v);
    return NULL;
}

static void log_lws(int level, const char *line)
{
    log_debug("%.*s", (int)strcspn(line, "\n"), line);
}

static struct err *serve(struct server *s)
{
    const struct serve_options *o = s->options;
    int port = 0, tunnel_port = 0;
    if (o->port >= 0)
        TRY(listen_on(s, o->address, o->port, &port));
    if (o->tunnel_address)
        TRY(listen_on(s, o->tunnel_address, o->tunnel_port, &tunnel_port));
    TRY(asker_start(s->q, wake, s, &s->asker));
    running = s->context;
    struct sigaction stop = {.sa_handler = on_stop};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (o->port >= 0)
        printf("Appserver launched at http://%s:%d/index.html\n", o->address, port);
    if (o->tunnel_address)
        printf("%s http://%s:%d/index.html\n", o->port >= 0 ? "Appserver tunneled to" : "Appserver launched at", o->tunnel_address,
               tunnel_port);
    fflush(stdout);
    while (!stop_requested && lws_service(s->context, 0) >= 0) {
    }
    running = NULL;
    return NULL;
}

struct err *serve_run(const struct serve_options *o)
{
    struct server s = {.options = o};
    cleanup(trace_closep) struct trace *t = NULL;
    TRY(trace_open(o->trace_dir, &t));
    cleanup(storage_closep) struct storage *storage = NULL;
    TRY(storage_open(o->storage_dir, trace_header(t)->uuid, &storage));
    s.storage = storage;
    struct query_options query = {.source_maps = o->source_maps, .source_map_count = o->source_map_count};
    cleanup(query_engine_closep) struct query_engine *q = NULL;
    TRY(query_engine_open(o->trace_dir, &query, &q));
    s.q = q;
    cleanup(freep) char *web_dir = find_web_dir(o);
    s.web_dir = web_dir;
    lws_set_log_level(LLL_ERR | LLL_WARN, log_lws);
    struct lws_context_creation_info info = {
        .options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_DISABLE_IPV6, .user = &s, .pt_serv_buf_size = 32768,
    };
    s.context = lws_create_context(&info);
    if (!s.context)
        return err_new(ERR_OS, "cannot start the server");
    struct err *e = serve(&s);
    asker_stop(s.asker);
    s.asker = NULL;
    while (s.clients.count)
        drop_client(&s, s.clients.items[0]->wsi);
    lws_context_destroy(s.context);
    vec_deinit(&s.clients);
    return e;
}
