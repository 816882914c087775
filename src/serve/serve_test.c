/* The server as its clients see it: a child process serves a stub engine (query_stub.c); the tests
 * speak HTTP and WebSocket to it over plain sockets, so that they can also say what no browser
 * would. */
#include "serve/serve.h"

#include "base/buf.h"
#include "base/test.h"
#include "trace/small_trace.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { PATIENCE_SECONDS = 20 };

/* --- a server --- */

struct server {
    char *trace, *storage;
    pid_t pid;
    int port;
};

static void make_file(const char *dir, const char *name, const char *text)
{
    cleanup(freep) char *path = str_format("%s/%s", dir, name);
    cleanup(fclosep) FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
}

/* Starts serving s->trace; the client's files are there, too. */
static void start(struct server *s)
{
    int out[2];
    assert_int_equal(pipe(out), 0);
    fflush(NULL);
    s->pid = fork();
    if (s->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out[1], 1);
        close(out[0]);
        const struct serve_options o = {.trace_dir = s->trace,
                                        .storage_dir = s->storage,
                                        .port = -1,
                                        .tunnel_address = "127.0.0.1",
                                        .web_dir = s->trace};
        struct err *e = serve_run(&o);
        if (e)
            fprintf(stderr, "%s\n", err_message(e));
        exit(e ? 1 : 0); // and not _exit, so that leaks are found
    }
    close(out[1]);
    cleanup(fclosep) FILE *f = fdopen(out[0], "r");
    assert_int_equal(fscanf(f, "Appserver launched at http://127.0.0.1:%d/index.html", &s->port),
                     1);
}

static void stop(struct server *s, int signo)
{
    int status;
    kill(s->pid, signo);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int set_up(void **state)
{
    struct server *s = xnew(struct server);
    s->trace = small_trace_create(4096);
    make_file(s->trace, "index.html", "the page");
    make_file(s->trace, "a.c", "int main;\n");
    make_file(s->trace, "secret", "secret");
    cleanup(freep) char *assets = str_format("%s/assets", s->trace);
    assert_int_equal(mkdir(assets, 0700), 0);
    make_file(assets, "a.js", "1");
    start(s);
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct server *s = *state;
    stop(s, SIGTERM);
    cleanup(freep) char *remove_assets =
        str_format("rm -rf '%s/assets' '%s/storage'", s->trace, s->trace);
    assert_int_equal(system(remove_assets), 0);
    small_trace_destroy(s->trace);
    free(s->storage);
    free(s);
    return 0;
}

/* --- HTTP --- */

static int connect_to(const struct server *s)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)s->port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static void send_all(int fd, const void *data, size_t len)
{
    for (const char *p = data; len;) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n <= 0)
            return; // the other side has closed; what it said before is what matters
        p += n;
        len -= (size_t)n;
    }
}

/* The whole answer to a request as it stands. */
static char *raw_request(const struct server *s, const char *request, size_t len)
{
    cleanup(closep) int fd = connect_to(s);
    send_all(fd, request, len);
    struct buf answer = {0};
    char part[4096];
    ssize_t n;
    while ((n = recv(fd, part, sizeof(part), 0)) > 0)
        buf_add(&answer, part, (size_t)n);
    return buf_steal_str(&answer);
}

static char *get(const struct server *s, const char *path)
{
    cleanup(freep) char *request = str_format(
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n", path, s->port);
    return raw_request(s, request, strlen(request));
}

static void assert_contains(const char *text, const char *part)
{
    if (!strcasestr(text, part))
        fail_msg("%s is not in: %s", part, text);
}

static void assert_status(const char *answer, int status)
{
    int got = 0;
    if (sscanf(answer, "HTTP/1.%*d %d", &got) != 1 || got != status)
        fail_msg("not status %d: %s", status, answer);
    assert_contains(answer, "content-security-policy: default-src 'none';");
    assert_contains(answer, "x-content-type-options: nosniff");
    assert_contains(answer, "referrer-policy: no-referrer");
}

TEST(files_of_the_client_are_served)
{
    cleanup(freep) char *root = get(*state, "/"), *script = get(*state, "/assets/a.js?v=1"),
                        *secret = get(*state, "/secret"), *folder = get(*state, "/assets/");
    assert_status(root, 200);
    assert_contains(root, "the page");
    assert_contains(root, "cache-control: no-store");
    assert_status(script, 200);
    assert_contains(script, "content-type: text/javascript");
    assert_contains(script, "cache-control: public, max-age=31536000, immutable\r\n");
    assert_status(secret, 404);
    assert_status(folder, 404);
}

TEST(offered_sources_are_plain_text)
{
    cleanup(freep) char *answer = get(*state, "/sources/offered/a.c");
    assert_status(answer, 200);
    assert_contains(answer, "content-type: text/plain");
    assert_contains(answer, "int main;");
    assert_null(strstr(answer, "text/html"));
}

TEST(paths_do_not_lead_out)
{
    static const char *const paths[] = {
        "/assets/../secret",
        "/assets/%2e%2e/secret",
        "/assets/..%2fsecret",
        "/assets//../secret",
        "/..%2f..%2fetc/passwd",
        "/sources/etc/passwd",
        "/sources/offered/../../etc/passwd",
        "/sources/offered/%2e%2e/%2e%2e/etc/passwd",
        "/sources//etc/passwd",
        "/sources/",
        "/sources",
        "/sources/offered/",
        "/ws/../secret",
        "/sources/offered/..",
    };
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        cleanup(freep) char *answer = get(*state, paths[i]);
        assert_null(strstr(answer, "root:"));
        assert_null(strstr(answer, "\r\n\r\nsecret"));
        assert_null(strstr(answer, " 200 "));
    }
}

TEST(a_source_that_is_too_large_is_refused)
{
    const struct server *s = *state;
    cleanup(freep) char *path = str_format("%s/large.c", s->trace);
    make_file(s->trace, "large.c", "");
    assert_int_equal(truncate(path, 17 << 20), 0);
    cleanup(freep) char *answer = get(s, "/sources/offered/large.c");
    assert_status(answer, 413);
}

TEST(a_foreign_host_name_gets_nothing)
{
    static const char request[] =
        "GET / HTTP/1.1\r\nHost: rebound.example:3000\r\nConnection: close\r\n\r\n";
    cleanup(freep) char *answer = raw_request(*state, request, strlen(request));
    assert_status(answer, 403);
    static const char no_host[] = "GET / HTTP/1.0\r\n\r\n";
    free(answer);
    answer = raw_request(*state, no_host, strlen(no_host));
    assert_status(answer, 403);
}

TEST(only_get_and_head)
{
    static const char request[] =
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
    cleanup(freep) char *answer = raw_request(*state, request, strlen(request));
    assert_status(answer, 405);
}

TEST(noise_does_no_harm)
{
    srand(1);
    for (int round = 0; round < 50; round++) {
        uint8_t noise[512];
        for (size_t i = 0; i < sizeof(noise); i++)
            noise[i] = (uint8_t)rand();
        cleanup(closep) int fd = connect_to(*state);
        send_all(fd, round % 2 ? "GET / HTTP/1.1\r\n" : "", round % 2 ? 16 : 0);
        send_all(fd, noise, sizeof(noise));
    }
    cleanup(freep) char *large = xmalloc(200000);
    memset(large, 'a', 200000);
    memcpy(large, "GET / HTTP/1.1\r\nX: ", 19);
    cleanup(freep) char *refused = raw_request(*state, large, 200000);
    assert_null(strstr(refused, " 200 "));
    memcpy(large, "GET /", 5);
    memset(large + 5, 'a', 100);
    free(refused);
    refused = raw_request(*state, large, 200000);
    assert_null(strstr(refused, " 200 "));
    cleanup(freep) char *answer = get(*state, "/");
    assert_status(answer, 200);
}

/* --- WebSocket (RFC 6455) --- */

static char *handshake_text(const struct server *s, const char *path, const char *origin)
{
    return str_format(
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: "
        "Upgrade\r\nOrigin: %s\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        path, s->port, origin);
}

static int ws_open(const struct server *s)
{
    int fd = connect_to(s);
    cleanup(freep) char *origin = str_format("http://127.0.0.1:%d", s->port);
    cleanup(freep) char *request = handshake_text(s, "/ws", origin);
    send_all(fd, request, strlen(request));
    // Byte by byte up to the empty line: what follows belongs to the first message.
    cleanup(buf_deinit) struct buf head = {0};
    while (head.len < 4 || memcmp(head.data + head.len - 4, "\r\n\r\n", 4) != 0) {
        char c;
        assert_int_equal(recv(fd, &c, 1, 0), 1);
        buf_add(&head, &c, 1);
    }
    assert_contains(buf_cstr(&head), "HTTP/1.1 101");
    assert_contains(buf_cstr(&head), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    return fd;
}

/* One frame; the mask is zero, which is as good as any. */
static void ws_send_frame(int fd, uint8_t first, const void *data, size_t len)
{
    cleanup(buf_deinit) struct buf frame = {0};
    buf_u8(&frame, first);
    if (len < 126) {
        buf_u8(&frame, (uint8_t)(0x80 | len));
    } else {
        buf_u8(&frame, 0x80 | 127);
        for (int shift = 56; shift >= 0; shift -= 8)
            buf_u8(&frame, (uint8_t)((uint64_t)len >> shift));
    }
    buf_zeros(&frame, 4);
    buf_add(&frame, data, len);
    send_all(fd, frame.data, frame.len);
}

static void ws_send(int fd, const char *text)
{
    ws_send_frame(fd, 0x81, text, strlen(text));
}

static bool read_all(int fd, void *out, size_t len)
{
    return len == 0 || recv(fd, out, len, MSG_WAITALL) == (ssize_t)len;
}

/* The next message; NULL when the connection has ended. */
static json_t *ws_receive(int fd)
{
    cleanup(buf_deinit) struct buf text = {0};
    for (;;) {
        uint8_t head[2], more[8];
        if (!read_all(fd, head, 2) || (head[0] & 0xf) == 8)
            return NULL;
        size_t extra = (head[1] & 0x7f) == 127 ? 8 : (head[1] & 0x7f) == 126 ? 2 : 0;
        size_t len = extra ? 0 : head[1] & 0x7f;
        if (!read_all(fd, more, extra))
            return NULL;
        for (size_t i = 0; i < extra; i++)
            len = len << 8 | more[i];
        size_t before = text.len;
        buf_zeros(&text, len);
        if (!read_all(fd, text.data + before, len))
            return NULL;
        if (head[0] & 0x80)
            break;
    }
    json_t *message = json_loadb((char *)text.data, text.len, 0, NULL);
    assert_non_null(message);
    return message;
}

/* The next message must contain all of this JSON object. */
static void expect(int fd, const char *wanted)
{
    json_t *message = ws_receive(fd), *parts = json_loads(wanted, 0, NULL);
    assert_non_null(parts);
    if (!message)
        fail_msg("the connection ended; wanted %s", wanted);
    json_t *all = json_deep_copy(message);
    json_object_update_recursive(all, parts);
    if (!json_equal(all, message)) {
        cleanup(freep) char *got = json_dumps(message, JSON_COMPACT);
        fail_msg("wanted %s, got %s", wanted, got);
    }
    json_decref(all);
    json_decref(parts);
    json_decref(message);
}

/* A window that has heard all that comes first. */
static int open_window(const struct server *s)
{
    int fd = ws_open(s);
    expect(fd, s->storage
                   ? "{\"hello\": {\"version\": 1, \"title\": \"a stub\", \"persistent\": true}}"
                   : "{\"hello\": {\"version\": 1, \"title\": \"a stub\", \"persistent\": false}}");
    expect(fd, "{\"storedAll\": true}");
    return fd;
}

TEST(a_connection_begins_with_hello_and_all_that_is_stored)
{
    cleanup(closep) int fd = open_window(*state);
}

TEST(a_foreign_origin_is_refused)
{
    const struct server *s = *state;
    static const char *const origins[] = {"http://evil.example", "null", "https://127.0.0.1",
                                          "http://127.0.0.1.evil.example"};
    for (size_t i = 0; i < sizeof(origins) / sizeof(origins[0]); i++) {
        cleanup(freep) char *request = handshake_text(s, "/ws", origins[i]);
        cleanup(freep) char *answer = raw_request(s, request, strlen(request));
        assert_status(answer, 403);
    }
    cleanup(freep) char *origin = str_format("http://127.0.0.1:%d", s->port);
    cleanup(freep) char *elsewhere = handshake_text(s, "/index.html", origin);
    cleanup(freep) char *answer = raw_request(s, elsewhere, strlen(elsewhere));
    assert_status(answer, 404);
}

TEST(rows_come_in_order_and_then_done)
{
    cleanup(closep) int fd = open_window(*state);
    ws_send(fd, "{\"id\": 7, \"query\": \"count\", \"params\": {\"n\": 120}}");
    json_int_t next = 0;
    for (bool done = false; !done;) {
        json_t *message = ws_receive(fd), *row;
        assert_non_null(message);
        assert_int_equal(json_integer_value(json_object_get(message, "id")), 7);
        size_t i;
        json_array_foreach(json_object_get(message, "rows"), i, row)
            assert_int_equal(json_integer_value(json_object_get(row, "i")), next++);
        done = json_is_true(json_object_get(message, "done"));
        assert_int_equal(done, json_is_true(json_object_get(message, "more")));
        json_decref(message);
    }
    assert_int_equal(next, 120);
    ws_send(fd, "{\"id\": 8, \"query\": \"count\"}");
    expect(fd, "{\"id\": 8, \"done\": true}");
}

TEST(bad_requests_are_answered_and_harm_nothing)
{
    static const struct {
        const char *request, *answer;
    } cases[] = {
        {"", "{\"error\": {\"kind\": \"usage\"}}"},
        {"{", "{\"error\": {\"kind\": \"usage\"}}"},
        {"[]", "{\"error\": {\"kind\": \"usage\"}}"},
        {"7", "{\"error\": {\"kind\": \"usage\"}}"},
        {"{}", "{\"error\": {\"kind\": \"usage\"}}"},
        {"{} x", "{\"error\": {\"kind\": \"usage\"}}"},
        {"{\"id\": 1}", "{\"id\": 1, \"error\": {\"kind\": \"usage\"}}"},
        {"{\"id\": \"1\", \"query\": \"count\"}", "{\"error\": {\"kind\": \"usage\"}}"},
        {"{\"id\": 1.5, \"query\": \"count\"}", "{\"error\": {\"kind\": \"usage\"}}"},
        {"{\"id\": 99999999999999999999, \"query\": \"count\"}",
         "{\"error\": {\"kind\": \"usage\"}}"},
        {"{\"id\": 2, \"query\": 5}", "{\"id\": 2, \"error\": {\"kind\": \"usage\"}}"},
        {"{\"id\": 3, \"query\": \"frob\"}",
         "{\"id\": 3, \"error\": {\"kind\": \"usage\", \"message\": \"there is no query frob\"}}"},
        {"{\"id\": 4, \"query\": \"count\", \"params\": []}",
         "{\"id\": 4, \"error\": {\"kind\": \"usage\"}}"},
        {"{\"id\": 4, \"id\": 5, \"query\": \"count\"}", "{\"error\": {\"kind\": \"usage\"}}"},
        {"{\"put\": \"k\"}", "{\"error\": {\"kind\": \"usage\"}}"},
        {"{\"put\": \"\", \"value\": 1}", "{\"error\": {\"kind\": \"limit\"}}"},
        {"{\"put\": 5, \"value\": {}}", "{\"error\": {\"kind\": \"usage\"}}"},
        {"{\"delete\": 5}", "{\"error\": {\"kind\": \"usage\"}}"},
        {"{\"cancel\": \"x\"}", "{\"error\": {\"kind\": \"usage\"}}"},
        {"\xff\xfe", "{\"error\": {\"kind\": \"usage\"}}"},
    };
    cleanup(closep) int fd = open_window(*state);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ws_send(fd, cases[i].request);
        expect(fd, cases[i].answer);
    }
    cleanup(freep) char *deep = xmalloc(60001);
    memset(deep, '[', 60000);
    deep[60000] = 0;
    ws_send(fd, deep);
    expect(fd, "{\"error\": {\"kind\": \"usage\"}}");
    ws_send(fd, "{\"cancel\": 12345}"); // nothing of that number: nothing is said
    ws_send(fd, "{\"id\": 9, \"query\": \"count\"}");
    expect(fd, "{\"id\": 9, \"done\": true}");
}

TEST(a_request_may_come_in_pieces)
{
    cleanup(closep) int fd = open_window(*state);
    ws_send_frame(fd, 0x01, "{\"id\": 1, ", 10);
    ws_send_frame(fd, 0x00, "\"query\": \"co", 12);
    ws_send_frame(fd, 0x80, "unt\"}", 5);
    expect(fd, "{\"id\": 1, \"done\": true}");
}

TEST(a_request_that_is_too_large_is_refused)
{
    cleanup(closep) int fd = open_window(*state);
    cleanup(freep) char *text = xmalloc(200001);
    memset(text, ' ', 200000);
    text[200000] = 0;
    ws_send(fd, text);
    expect(fd, "{\"error\": {\"kind\": \"limit\"}}");
    ws_send(fd, "{\"id\": 1, \"query\": \"count\"}");
    expect(fd, "{\"id\": 1, \"done\": true}");
}

TEST(damaged_frames_end_only_their_own_connection)
{
    static const struct {
        size_t len;
        uint8_t bytes[16];
    } frames[] = {
        {14,
         {0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0,
          0}}, // longer than anything
        {14,
         {0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0,
          0}},                                 // a length that is negative
        {6, {0x81, 0x04, '{', '}', ' ', ' '}}, // not masked
        {6, {0x83, 0x80, 0, 0, 0, 0}},         // reserved opcodes and bits
        {6, {0xff, 0x80, 0, 0, 0, 0}},
        {6, {0x80, 0x80, 0, 0, 0, 0}},             // goes on with nothing
        {8, {0x89, 0xfe, 0x01, 0x00, 0, 0, 0, 0}}, // a ping that is too long
        {6, {0x08, 0x80, 0, 0, 0, 0}},             // a close in pieces
        {7, {0x88, 0x81, 0, 0, 0, 0, 1}},          // half a reason
        {3, {0x81, 0xfe, 0x01}},
    };
    cleanup(closep) int other = open_window(*state);
    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
        cleanup(closep) int fd = open_window(*state);
        send_all(fd, frames[i].bytes, frames[i].len);
        usleep(1000);
    }
    ws_send(other, "{\"id\": 1, \"query\": \"count\"}");
    expect(other, "{\"id\": 1, \"done\": true}");
}

/* Skips progress. */
static void expect_end(int fd, const char *wanted)
{
    for (;;) {
        char peek[64] = "";
        ssize_t n = recv(fd, peek, sizeof(peek) - 1, MSG_PEEK);
        peek[n > 0 ? n : 0] = 0;
        if (n <= 2 || !memmem(peek + 2, (size_t)n - 2, "\"progress\"", 10))
            break;
        json_decref(ws_receive(fd));
    }
    expect(fd, wanted);
}

static size_t count_rows(int fd, int id, const char *name)
{
    size_t rows = 0;
    cleanup(freep) char *request = str_format("{\"id\": %d, \"query\": \"%s\"}", id, name);
    ws_send(fd, request);
    for (bool done = false; !done;) {
        json_t *message = ws_receive(fd);
        assert_non_null(message);
        rows += json_array_size(json_object_get(message, "rows"));
        done = json_is_true(json_object_get(message, "done"));
        json_decref(message);
    }
    return rows;
}

TEST(idle_engines_work_ahead_after_the_first_question)
{
    cleanup(closep) int fd = open_window(*state);
    int id = 1;
    assert_int_equal(count_rows(fd, id++, "ahead"), 3);
    for (int tries = 0; count_rows(fd, id++, "ahead") && tries < 400; tries++)
        usleep(5000);
    assert_int_equal(count_rows(fd, id, "ahead"), 0);
}

TEST(a_running_query_can_be_cancelled)
{
    cleanup(closep) int fd = open_window(*state);
    ws_send(fd, "{\"id\": 1, \"query\": \"wait\"}");
    usleep(50000);
    ws_send(fd, "{\"cancel\": 1}");
    expect_end(fd, "{\"id\": 1, \"done\": true, \"cancelled\": true}");
}

TEST(a_queued_query_that_is_cancelled_ends_at_once)
{
    cleanup(closep) int fd = open_window(*state);
    ws_send(fd, "{\"id\": 1, \"query\": \"wait\"}");
    ws_send(fd, "{\"id\": 2, \"query\": \"count\", \"params\": {\"n\": 1}}");
    ws_send(fd, "{\"id\": 3, \"query\": \"count\"}");
    ws_send(fd, "{\"cancel\": 2}");
    expect_end(fd, "{\"id\": 2, \"done\": true, \"cancelled\": true}");
    ws_send(fd, "{\"cancel\": 1}");
    expect_end(fd, "{\"id\": 1, \"done\": true, \"cancelled\": true}");
    expect_end(fd, "{\"id\": 3, \"done\": true}");
}

TEST(quick_queries_go_before_others)
{
    cleanup(closep) int fd = open_window(*state);
    ws_send(fd, "{\"id\":1,\"query\":\"wait\"}");
    usleep(50000);
    ws_send(fd, "{\"id\":2,\"query\":\"count\",\"params\":{\"n\":0}}");
    ws_send(fd, "{\"id\":3,\"query\":\"search\",\"params\":{\"n\":0}}");
    ws_send(fd, "{\"id\":4,\"query\":\"search\",\"params\":{\"n\":0}}");
    ws_send(fd, "{\"cancel\":1}");
    expect_end(fd, "{\"id\": 1, \"done\": true, \"cancelled\": true}");
    expect(fd, "{\"id\": 3, \"done\": true}");
    expect(fd, "{\"id\": 4, \"done\": true}");
    expect(fd, "{\"id\": 2, \"done\": true}");
}

TEST(a_search_does_not_hold_up_questions_about_now)
{
    cleanup(closep) int fd = open_window(*state);
    ws_send(fd, "{\"id\":1,\"query\":\"watchpoint\"}");
    usleep(50000);
    ws_send(fd, "{\"id\":2,\"query\":\"count\",\"params\":{\"n\":0}}");
    expect_end(fd, "{\"id\": 2, \"done\": true}");
    ws_send(fd, "{\"cancel\":1}");
    expect_end(fd, "{\"id\": 1, \"done\": true, \"cancelled\": true}");
}

TEST(long_queries_tell_their_progress)
{
    cleanup(closep) int fd = open_window(*state);
    ws_send(fd, "{\"id\": 1, \"query\": \"wait\"}");
    json_t *message = ws_receive(fd);
    double share = json_real_value(json_object_get(message, "progress"));
    assert_true(share > 0 && share <= 1);
    json_decref(message);
    ws_send(fd, "{\"cancel\": 1}");
    expect_end(fd, "{\"id\": 1, \"done\": true, \"cancelled\": true}");
}

TEST(a_client_has_at_most_64_queries_at_work)
{
    cleanup(closep) int fd = open_window(*state);
    for (int i = 1; i <= 65; i++) {
        cleanup(freep) char *request = str_format("{\"id\": %d, \"query\": \"wait\"}", i);
        ws_send(fd, request);
    }
    expect_end(fd, "{\"id\": 65, \"error\": {\"kind\": \"limit\"}}");
}

TEST(who_goes_takes_its_queries_along)
{
    int gone = open_window(*state);
    ws_send(gone, "{\"id\": 1, \"query\": \"wait\"}");
    ws_send(gone, "{\"id\": 2, \"query\": \"wait\"}");
    usleep(20000);
    close(gone);
    cleanup(closep) int fd = open_window(*state);
    ws_send(fd, "{\"id\": 1, \"query\": \"count\"}");
    expect(fd, "{\"id\": 1, \"done\": true}");
}

TEST(who_does_not_read_is_dropped)
{
    cleanup(closep) int slow = open_window(*state), fd = open_window(*state);
    ws_send(slow, "{\"id\": 1, \"query\": \"flood\"}");
    usleep(20000);
    ws_send(fd, "{\"id\": 1, \"query\": \"count\"}"); // waits for the end of the flood
    expect(fd, "{\"id\": 1, \"done\": true}");
    char part[1 << 16];
    size_t total = 0;
    ssize_t n;
    while ((n = recv(slow, part, sizeof(part), 0)) > 0)
        total += (size_t)n;
    assert_true(total < 80u << 20);
}

TEST(what_is_put_reaches_every_window)
{
    cleanup(closep) int a = open_window(*state), b = open_window(*state);
    ws_send(a, "{\"put\": \"notebook/1\", \"value\": {\"text\": \"\xc3\xa4\\u0001\\\"\"}}");
    expect(
        a,
        "{\"stored\": {\"key\": \"notebook/1\", \"value\": {\"text\": \"\xc3\xa4\\u0001\\\"\"}}}");
    expect(
        b,
        "{\"stored\": {\"key\": \"notebook/1\", \"value\": {\"text\": \"\xc3\xa4\\u0001\\\"\"}}}");
    cleanup(closep) int c = ws_open(*state);
    expect(c, "{\"hello\": {}}");
    expect(c, "{\"stored\": {\"key\": \"notebook/1\"}}");
    expect(c, "{\"storedAll\": true}");
    ws_send(c, "{\"delete\": \"notebook/1\"}");
    expect(a, "{\"removed\": {\"key\": \"notebook/1\"}}");
    expect(b, "{\"removed\": {\"key\": \"notebook/1\"}}");
}

TEST(what_is_stored_survives_a_restart_and_even_a_kill)
{
    struct server *s = *state;
    stop(s, SIGINT);
    s->storage = str_format("%s/storage", s->trace);
    start(s);
    int fd = open_window(s);
    ws_send(fd, "{\"put\": \"layout\", \"value\": {\"a\": 1}}");
    ws_send(fd, "{\"put\": \"layout\", \"value\": {\"a\": 2}}");
    expect(fd, "{\"stored\": {\"value\": {\"a\": 1}}}");
    expect(fd, "{\"stored\": {\"value\": {\"a\": 2}}}");
    kill(s->pid, SIGKILL);
    assert_int_equal(waitpid(s->pid, NULL, 0), s->pid);
    close(fd);
    start(s);
    fd = ws_open(s);
    expect(fd, "{\"hello\": {\"persistent\": true}}");
    expect(fd, "{\"stored\": {\"key\": \"layout\", \"value\": {\"a\": 2}}}");
    expect(fd, "{\"storedAll\": true}");
    close(fd);
}

TEST(it_stops_while_queries_run)
{
    struct server *s = *state;
    cleanup(closep) int fd = open_window(s);
    ws_send(fd, "{\"id\": 1, \"query\": \"wait\"}");
    ws_send(fd, "{\"id\": 2, \"query\": \"wait\"}");
    usleep(20000);
    stop(s, SIGINT);
    start(s); // for tear_down
}

#define with_server(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_server(files_of_the_client_are_served),
        with_server(offered_sources_are_plain_text),
        with_server(paths_do_not_lead_out),
        with_server(a_source_that_is_too_large_is_refused),
        with_server(a_foreign_host_name_gets_nothing),
        with_server(only_get_and_head),
        with_server(noise_does_no_harm),
        with_server(a_connection_begins_with_hello_and_all_that_is_stored),
        with_server(a_foreign_origin_is_refused),
        with_server(rows_come_in_order_and_then_done),
        with_server(bad_requests_are_answered_and_harm_nothing),
        with_server(a_request_may_come_in_pieces),
        with_server(a_request_that_is_too_large_is_refused),
        with_server(damaged_frames_end_only_their_own_connection),
        with_server(idle_engines_work_ahead_after_the_first_question),
        with_server(a_running_query_can_be_cancelled),
        with_server(a_queued_query_that_is_cancelled_ends_at_once),
        with_server(quick_queries_go_before_others),
        with_server(a_search_does_not_hold_up_questions_about_now),
        with_server(long_queries_tell_their_progress),
        with_server(a_client_has_at_most_64_queries_at_work),
        with_server(who_goes_takes_its_queries_along),
        with_server(who_does_not_read_is_dropped),
        with_server(what_is_put_reaches_every_window),
        with_server(what_is_stored_survives_a_restart_and_even_a_kill),
        with_server(it_stops_while_queries_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
