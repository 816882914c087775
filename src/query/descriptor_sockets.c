/* Sockets: pairs, connections between recorded tasks, and descriptors that are sent through them.
 *
 * Of connections over TCP the trace has both addresses (rr, record_syscall.cc: maybe_process_new_socket), from both ends. Those of AF_UNIX are
 * accepted in the order in which they were made; the one who connects may write before that. */
#include "query/tracking_int.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

static void make_socketpair(struct tracking *t, const struct io_call *c)
{
    uint64_t type = c->args[1] & 0xf;
    const char *why = c->args[0] == AF_UNIX && (type == SOCK_STREAM || type == SOCK_DGRAM || type == SOCK_SEQPACKET)
                          ? NULL : "a pair of sockets of an unusual kind";
    uint32_t there = add_stream(t, STREAM_SOCKET, type != SOCK_STREAM, why), back = add_stream(t, STREAM_SOCKET, type != SOCK_STREAM, why);
    bool cloexec = c->args[1] & SOCK_CLOEXEC;
    fd_assign(t, c->task, c->fds[0], add_description(t, (struct description){.in = back, .out = there}), cloexec);
    fd_assign(t, c->task, c->fds[1], add_description(t, (struct description){.in = there, .out = back}), cloexec);
}

static void send_descriptor(struct tracking *t, uint32_t description)
{
    give_up(t, description, "its descriptor was sent to another process");
    vec_each (l, &t->listeners) {
        if (l->description == description) {
            free(l->address);
            l->address = NULL;
        }
    }
}

/* sendmsg(2) with SCM_RIGHTS (unix(7)): whoever gets them can read and write the same streams. */
static struct err *send_descriptors(struct tracking *t, const struct io_call *c)
{
    struct replay *r;
    uint32_t space;
    struct msghdr m;
    uint8_t control[4096];
    TRY(check_cancel(t->q));
    TRY(state_at(t->q, c->at, &r));
    TRY(space_of_task(r, c->task, &space));
    struct err *e = replay_read(r, space, c->args[1], &m, sizeof(m), NULL);
    if (!e && m.msg_controllen) {
        size_t len = m.msg_controllen < sizeof(control) ? m.msg_controllen : sizeof(control);
        e = replay_read(r, space, (gaddr)m.msg_control, control, len, NULL);
        for (size_t at = 0; !e && len - at >= sizeof(struct cmsghdr);) {
            struct cmsghdr head;
            memcpy(&head, control + at, sizeof(head));
            if (head.cmsg_len < sizeof(head) || head.cmsg_len > len - at)
                break;
            bool rights = head.cmsg_level == SOL_SOCKET && head.cmsg_type == SCM_RIGHTS;
            for (size_t i = at + sizeof(head); rights && i + 4 <= at + head.cmsg_len; i += 4)
                send_descriptor(t, fd_at(t, c->task, load_u32(control + i)));
            at += (head.cmsg_len + 7) & ~(size_t)7;
            if (at > len)
                break;
        }
    }
    bool fault = e && (err_kind(e) == ERR_FAULT || err_kind(e) == ERR_NOT_FOUND);
    if (!fault)
        return e;
    err_free(e); // as the call will have found
    return NULL;
}

/* --- connections --- */

static uint32_t new_streams(struct tracking *t, const struct description *d, uint32_t *back_out)
{
    bool messages = d->socket_type != SOCK_STREAM;
    *back_out = add_stream(t, STREAM_SOCKET, messages, NULL);
    return add_stream(t, STREAM_SOCKET, messages, NULL);
}

static void make_socket(struct tracking *t, const struct io_call *c)
{
    struct description n = {.socket_type = c->args[1] & 0xf, .why = "the socket is not connected to a recorded task, as far as is known"};
    fd_assign(t, c->task, c->result, add_description(t, n), c->args[1] & SOCK_CLOEXEC);
}

static struct listener *find_listener(struct tracking *t, const char *address)
{
    for (size_t i = t->listeners.count; address && i-- > 0;) {
        if (t->listeners.items[i].address && strcmp(t->listeners.items[i].address, address) == 0)
            return &t->listeners.items[i];
    }
    return NULL;
}

/* bind(2) of AF_UNIX; paths[0] is the address. */
static void name_socket(struct tracking *t, const struct io_call *c)
{
    if (c->paths[0] && c->description)
        vec_push(&t->listeners, (struct listener){.description = c->description, .address = xstrdup(c->paths[0])});
}

/* connect(2) begins: it will wait to be accepted, if somebody listens. */
static void ask_for_connection(struct tracking *t, const struct io_call *c)
{
    struct listener *l = find_listener(t, c->paths[0]);
    struct description *d = &t->d->descriptions.items[c->description];
    if (!l || !c->description || d->in || d->out || !c->done || c->result < 0 ||
        (d->socket_type != SOCK_STREAM && d->socket_type != SOCK_SEQPACKET))
        return;
    d->out = new_streams(t, d, &d->in);
    if (c->begin < l->connected)
        give_up(t, c->description, "several tasks connected at the same time");
    l->connected = c->end > l->connected ? c->end : l->connected;
    vec_push(&l->waiting, c->description);
}

/* A TCP connection that both ends know by their addresses. ends: as the one who accepts sees them; taken over. */
static struct connection *connection_of(struct tracking *t, char *ends, bool accepting)
{
    for (size_t i = t->connections.count; i-- > 0;) {
        struct connection *n = &t->connections.items[i];
        if (strcmp(n->ends, ends) != 0)
            continue;
        if (accepting ? n->taken : n->made)
            break; // an older one with the same addresses
        free(ends);
        *(accepting ? &n->taken : &n->made) = true;
        return n;
    }
    struct connection n = {.ends = ends, .made = !accepting, .taken = accepting};
    n.in = new_streams(t, &(struct description){.socket_type = SOCK_STREAM}, &n.out);
    vec_push(&t->connections, n);
    return &t->connections.items[t->connections.count - 1];
}

/* connect(2) over TCP has succeeded; paths[1] is "local remote". */
static void connect_by_address(struct tracking *t, const struct io_call *c)
{
    struct description *d = &t->d->descriptions.items[c->description];
    const char *space = c->paths[1] ? strchr(c->paths[1], ' ') : NULL;
    if (!space || !c->description || d->in || d->out)
        return;
    char *ends = str_format("%s %.*s", space + 1, (int)(space - c->paths[1]), c->paths[1]);
    const struct connection *n = connection_of(t, ends, false);
    d->in = n->out;
    d->out = n->in;
}

static void take_connection(struct tracking *t, const struct io_call *c)
{
    struct description n = {.socket_type = SOCK_STREAM, .why = "who connected is not known"};
    struct listener *l = NULL;
    vec_each (it, &t->listeners) {
        if (it->description == c->description && it->address)
            l = it;
    }
    if (c->paths[1]) {
        const struct connection *found = connection_of(t, xstrdup(c->paths[1]), true);
        n.in = found->in;
        n.out = found->out;
    } else if (l && l->waiting.count) {
        const struct description *client = &t->d->descriptions.items[l->waiting.items[0]];
        n.socket_type = client->socket_type;
        n.in = client->out;
        n.out = client->in;
        memmove(l->waiting.items, l->waiting.items + 1, --l->waiting.count * sizeof(l->waiting.items[0]));
        if (c->begin < l->accepted) {
            give_up_stream(t, n.in, "several tasks accepted connections at the same time");
            give_up_stream(t, n.out, "several tasks accepted connections at the same time");
        }
        l->accepted = c->end > l->accepted ? c->end : l->accepted;
    }
    fd_assign(t, c->task, c->result, add_description(t, n), c->no == SYS_accept4 && c->args[3] & SOCK_CLOEXEC);
}

struct err *begin_socket_call(struct tracking *t, const struct io_call *c)
{
    if (c->no == SYS_connect)
        ask_for_connection(t, c);
    return c->no == SYS_sendmsg ? send_descriptors(t, c) : NULL;
}

void end_socket_call(struct tracking *t, const struct io_call *c)
{
    switch (c->no) {
    case SYS_socket:
        make_socket(t, c);
        break;
    case SYS_socketpair:
        make_socketpair(t, c);
        break;
    case SYS_bind:
        name_socket(t, c);
        break;
    case SYS_connect:
        connect_by_address(t, c);
        break;
    default:
        take_connection(t, c);
        break;
    }
}

void free_sockets(struct tracking *t)
{
    vec_each (l, &t->listeners) {
        free(l->address);
        vec_deinit(&l->waiting);
    }
    vec_deinit(&t->listeners);
    vec_each (n, &t->connections)
        free(n->ends);
    vec_deinit(&t->connections);
}
