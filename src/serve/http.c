#include "serve/http.h"

#include "base/buf.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { MAX_SOURCE = 16 << 20, MAX_URI = 4000 };

const struct lws_protocol_vhost_options http_security_headers[] = {
    {&http_security_headers[1], NULL, "content-security-policy:",
     "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' "
     "data:; font-src 'self'; "
     "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"},
    {&http_security_headers[2], NULL, "x-content-type-options:", "nosniff"},
    {&http_security_headers[3], NULL, "referrer-policy:", "no-referrer"},
    {NULL, NULL, "cross-origin-resource-policy:", "same-origin"},
};

/* --- who asks --- */

static bool header(struct lws *wsi, enum lws_token_indexes token, char *out, int len)
{
    out[0] = 0;
    return lws_hdr_copy(wsi, out, len, token) > 0;
}

/* Takes the port off a Host header, and the brackets off an IPv6 address. */
static void strip_port(char *host)
{
    if (host[0] == '[') {
        size_t len = strcspn(host + 1, "]");
        memmove(host, host + 1, len);
        host[len] = 0;
        return;
    }
    host[strcspn(host, ":")] = 0;
}

bool http_host_is_ours(struct lws *wsi)
{
    char host[256], own[256] = "";
    struct in6_addr six;
    struct in_addr four;
    if (!header(wsi, WSI_TOKEN_HOST, host, sizeof(host)))
        return false;
    strip_port(host);
    gethostname(own, sizeof(own) - 1);
    return strcasecmp(host, "localhost") == 0 || (*own && strcasecmp(host, own) == 0) ||
           inet_pton(AF_INET, host, &four) == 1 || inet_pton(AF_INET6, host, &six) == 1;
}

bool http_origin_is_ours(struct lws *wsi)
{
    char origin[300], host[256];
    if (!lws_hdr_total_length(wsi, WSI_TOKEN_ORIGIN))
        return true;
    if (!header(wsi, WSI_TOKEN_ORIGIN, origin, sizeof(origin)) ||
        !header(wsi, WSI_TOKEN_HOST, host, sizeof(host)))
        return false;
    return str_starts(origin, "http://") && strcasecmp(origin + strlen("http://"), host) == 0;
}

/* --- answers --- */

int http_answer(struct lws *wsi, unsigned status, const char *text)
{
    uint8_t room[LWS_PRE + 1024], *start = room + LWS_PRE, *p = start,
                                  *end = room + sizeof(room) - 1;
    size_t len = strlen(text);
    if (lws_add_http_common_headers(wsi, status, "text/plain; charset=utf-8", len, &p, end) ||
        lws_finalize_write_http_header(wsi, start, &p, end))
        return -1;
    if (!lws_hdr_total_length(wsi, WSI_TOKEN_HEAD_URI)) {
        memcpy(start, text, len); // the texts are short
        if (lws_write(wsi, start, len, LWS_WRITE_HTTP_FINAL) < 0)
            return -1;
    }
    return -1; // the connection ends with a refusal
}

static const char *mime_of(const char *path)
{
    static const char *const types[][2] = {
        {".html", "text/html; charset=utf-8"},
        {".js", "text/javascript; charset=utf-8"},
        {".css", "text/css; charset=utf-8"},
        {".svg", "image/svg+xml"},
        {".png", "image/png"},
        {".woff2", "font/woff2"},
        {".json", "application/json"},
        {".map", "application/json"},
    };
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < ARRAY_COUNT(types); i++) {
        if (str_eq(dot, types[i][0]))
            return types[i][1];
    }
    return "text/plain; charset=utf-8";
}

/* headers: whole lines of them, or NULL, which lets nobody keep the file. */
static int send_file(struct lws *wsi, const char *path, const char *mime, const char *headers)
{
    int n = lws_serve_http_file(wsi, path, mime, headers, headers ? (int)strlen(headers) : 0);
    return n < 0 || (n > 0 && lws_http_transaction_completed(wsi)) ? -1 : 0;
}

static int serve_source(struct lws *wsi, const struct query_engine *q, const char *file)
{
    cleanup(closep) int fd = -1;
    cleanup(err_freep) struct err *e = query_open_source(q, file, &fd);
    if (e) {
        cleanup(freep) char *text = str_format("no such source: %.800s\n", err_message(e));
        return http_answer(wsi, HTTP_STATUS_NOT_FOUND, text);
    }
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return http_answer(wsi, HTTP_STATUS_NOT_FOUND, "no such source\n");
    if (st.st_size > MAX_SOURCE)
        return http_answer(wsi, HTTP_STATUS_REQ_ENTITY_TOO_LARGE,
                           "this source is too large to be shown\n");
    // libwebsockets opens by name; this is the very file that was judged.
    cleanup(freep) char *path = str_format("/proc/self/fd/%d", fd);
    return send_file(wsi, path, "text/plain; charset=utf-8", NULL);
}

static int serve_client_file(struct lws *wsi, const char *web_dir, const char *name)
{
    bool index = str_eq(name, "/index.html");
    cleanup(freep) char *path = str_format("%s%s", web_dir, name);
    struct stat st;
    if ((!index && !str_starts(name, "/assets/")) || stat(path, &st) != 0 || !S_ISREG(st.st_mode) ||
        access(path, R_OK) != 0)
        return http_answer(wsi, HTTP_STATUS_NOT_FOUND,
                           index ? "the web client is not built\n" : "not found\n");
    // The names of assets hold a hash of their contents: what is in a browser's cache is right for
    // good.
    return send_file(wsi, path, mime_of(name),
                     index ? NULL : "cache-control: public, max-age=31536000, immutable\r\n");
}

/* Parts "..", which libwebsockets resolves before this; here nothing depends on that. */
static bool climbs(const char *uri)
{
    for (const char *p = uri; (p = strstr(p, "/..")); p += 3) {
        if (p[3] == '/' || p[3] == 0)
            return true;
    }
    return false;
}

int http_serve(struct lws *wsi, const char *uri, const struct query_engine *q, const char *web_dir)
{
    if (!http_host_is_ours(wsi))
        return http_answer(wsi, HTTP_STATUS_FORBIDDEN, "this name is not a name of this server\n");
    if (!lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) &&
        !lws_hdr_total_length(wsi, WSI_TOKEN_HEAD_URI))
        return http_answer(wsi, HTTP_STATUS_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    if (climbs(uri) || strlen(uri) > MAX_URI)
        return http_answer(wsi, HTTP_STATUS_NOT_FOUND, "not found\n");
    if (str_eq(uri, "/ws"))
        return http_answer(wsi, 426, "a WebSocket is spoken here\n"); // RFC 9110 15.5.22
    if (str_starts(uri, "/sources/"))
        return serve_source(wsi, q, uri + strlen("/sources"));
    return serve_client_file(wsi, web_dir, str_eq(uri, "/") ? "/index.html" : uri);
}

/* --- where the client is --- */

char *http_find_web_dir(void)
{
    const char *given = getenv("PERNOSCO_WEB");
    if (given && *given)
        return xstrdup(given);
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    exe[n > 0 ? n : 0] = 0;
    const char *slash = strrchr(exe, '/');
    static const char *const places[] = {"../web/dist", "../../../web/dist",
                                         "../share/pernosco/web"};
    for (size_t i = 0; slash && i < ARRAY_COUNT(places); i++) {
        char *dir = str_format("%.*s/%s", (int)(slash - exe), exe, places[i]);
        cleanup(freep) char *index = str_format("%s/index.html", dir);
        if (access(index, R_OK) == 0)
            return dir;
        free(dir);
    }
    return xstrdup(PERNOSCO_WEB_DIR);
}
