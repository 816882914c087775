/* Files over HTTP: the client's own and the recording's sources; and who may ask at all. */
#ifndef SERVE_HTTP_H
#define SERVE_HTTP_H

#include "query/query.h"

#include <libwebsockets.h>

/** Added to every answer: nothing is loaded from, or shown within a page of, any other host. */
extern const struct lws_protocol_vhost_options http_security_headers[];

/**
 * A page of another site whose name was made to resolve to this address (DNS rebinding) must get
 * nothing: only addresses, "localhost" and this machine's name are hosts of ours.
 */
bool http_host_is_ours(struct lws *wsi);
/** True also without an Origin: no browser asks then. */
bool http_origin_is_ours(struct lws *wsi);
/** Answers with a status and a line of plain text; what a callback then returns. */
int http_answer(struct lws *wsi, unsigned status, const char *text);
/** Answers a request for `uri` (decoded, without its query part). */
int http_serve(struct lws *wsi, const char *uri, const struct query_engine *q, const char *web_dir);
/** The directory of the client's files: $PERNOSCO_WEB, else beside the program as built or
 * installed. Heap string. */
char *http_find_web_dir(void) nodiscard;

#endif
