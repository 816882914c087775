/* Sockets: pairs, connections between recorded tasks, and descriptors that are sent through them.
 *
 * Of connections over TCP the trace has both addresses (rr, record_syscall.cc:
 * maybe_process_new_socket), from both ends; of those for which connect(2) did not wait, from the
 * end that accepts only. These, and those of AF_UNIX, are accepted in the order in which they were
 * made; the one who connects may write before that. */
#include "query/tracking_int.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

static void make_socketpair(struct tracking *t, const struct io_call *c)
{
    uint64_t type = c->args[1] & 0xf;
    const char *why = c->args[0] == AF_UNIX &&
                              (type == SOCK_STREAM || type == SOCK_DGRAM || type == SOCK_SEQPACKET)
                          ? NULL
                          : "a pair of sockets of an unusual kind";
    uint32_t there = add_stream(t, STREAM_SOCKET, type != SOCK_STREAM, why),
             back = add_stream(t, STREAM_SOCKET, type != SOCK_STREAM, why);
    bool cloexec = c->args[1] & SOCK_CLOEXEC;
    fd_assign(t, c->task, c->fds[0],
              add_description(t, (struct description){.in = back, .out = there}), cloexec);
    fd_assign(t, c->task, c->fds[1],
              add_description(t, (struct description){.in = there, .out = back}), cloexec);
}

/* --- descriptors in messages --- */

enum { MOST_SENT = 253 }; /* the kernel's limit, SCM_MAX_FD */

/* Nobody knows who has it. */
static void lose_description(struct tracking *t, uint32_t description)
{
    give_up(t, description, "its descriptor was sent to another process");
    vec_each (l, &t->listeners) {
        if (l->description == description) {
            free(l->address);
            l->address = NULL;
        }
    }
}

/* Takes a parcel out of the list; lost: nobody knows who received it. */
static void drop_parcel(struct tracking *t, size_t idx, bool lost)
{
    struct parcel p = t->parcels.items[idx];
    t->parcels.count--;
    memmove(&t->parcels.items[idx], &t->parcels.items[idx + 1],
            (t->parcels.count - idx) * sizeof(p));
    for (size_t i = 0; lost && i < p.descriptions.count; i++)
        lose_description(t, p.descriptions.items[i]);
    vec_deinit(&p.descriptions);
}

void give_up_parcels(struct tracking *t, uint32_t stream)
{
    for (size_t i = 0; i < t->parcels.count; i++) {
        if (t->parcels.items[i].stream == stream) {
            drop_parcel(t, i, true);
            i = SIZE_MAX; // others may be gone with it
        }
    }
}

static size_t parcel_of(const struct tracking *t, uint32_t call)
{
    size_t i = 0;
    while (i < t->parcels.count && t->parcels.items[i].call != call)
        i++;
    return i;
}

void lose_message(struct tracking *t, uint32_t call)
{
    size_t i = parcel_of(t, call);
    if (i < t->parcels.count)
        drop_parcel(t, i, true);
}

/* The descriptors in the control data of the message of a call (SCM_RIGHTS, unix(7)), as it is at a
 * moment. */
static struct err *read_rights(struct tracking *t, const struct io_call *c, struct moment m,
                               uint32_t out[MOST_SENT], size_t *count_out)
{
    struct replay *r;
    uint32_t space;
    struct msghdr h;
    uint8_t control[4096];
    *count_out = 0;
    TRY(check_cancel(t->q));
    TRY(state_at(t->q, m, &r));
    TRY(space_of_task(r, c->task, &space));
    struct err *e = replay_read(r, space, c->args[1], &h, sizeof(h), NULL);
    size_t len = !e && h.msg_controllen < sizeof(control) ? h.msg_controllen
                 : e                                      ? 0
                                                          : sizeof(control);
    if (!e && len)
        e = replay_read(r, space, (gaddr)h.msg_control, control, len, NULL);
    for (size_t at = 0; !e && at < len && len - at >= sizeof(struct cmsghdr);) {
        struct cmsghdr head;
        memcpy(&head, control + at, sizeof(head));
        if (head.cmsg_len < sizeof(head) || head.cmsg_len > len - at)
            break;
        bool rights = head.cmsg_level == SOL_SOCKET && head.cmsg_type == SCM_RIGHTS;
        for (size_t i = at + sizeof(head);
             rights && i + 4 <= at + head.cmsg_len && *count_out < MOST_SENT; i += 4)
            out[(*count_out)++] = load_u32(control + i);
        at += (head.cmsg_len + 7) & ~(size_t)7;
    }
    bool fault = e && (err_kind(e) == ERR_FAULT || err_kind(e) == ERR_NOT_FOUND);
    if (!fault)
        return e;
    err_free(e); // as the call will have found
    return NULL;
}

/* Is another task about to write to the stream (number plus 1)? */
static bool is_written(const struct tracking *t, uint32_t stream, uint32_t task)
{
    for (uint32_t other = 0; other < t->inside.count; other++) {
        const struct io_call *c = t->inside.items[other] && other != task
                                      ? &t->d->io.calls.items[t->inside.items[other] - 1]
                                      : NULL;
        if (c && io_call_writes(c->no) && t->d->descriptions.items[c->description].out == stream)
            return true;
    }
    return false;
}

/* sendmsg(2) begins: the descriptions of what it sends. They may be received before it ends. */
static struct err *pack_descriptors(struct tracking *t, const struct io_call *c)
{
    uint32_t fds[MOST_SENT];
    size_t count;
    TRY(read_rights(t, c, c->at, fds, &count));
    if (!count)
        return NULL;
    struct parcel *p = vec_add(&t->parcels);
    p->call = call_index(t, c);
    for (size_t i = 0; i < count; i++)
        vec_push(&p->descriptions, fd_at(t, c->task, fds[i]));
    p->stream = t->d->descriptions.items[c->description].out;
    const struct stream *s = p->stream ? &t->d->streams.items[p->stream - 1] : NULL;
    if (s && !s->why && !is_written(t, p->stream, c->task))
        p->offset = s->written;
    else
        drop_parcel(t, t->parcels.count - 1, true);
    return NULL;
}

/* recvmsg(2) has taken the message: the receiver has descriptors of the same descriptions. */
static struct err *unpack_descriptors(struct tracking *t, const struct io_call *c, size_t idx)
{
    uint32_t fds[MOST_SENT];
    size_t count;
    TRY(read_rights(t, c, io_call_end(c), fds, &count));
    const struct parcel *p = &t->parcels.items[idx];
    for (size_t i = 0; i < count && i < p->descriptions.count; i++)
        fd_assign(t, c->task, (int32_t)fds[i], p->descriptions.items[i],
                  c->args[2] & MSG_CMSG_CLOEXEC);
    if (!(c->args[2] & MSG_PEEK))
        drop_parcel(t, idx, false);
    return NULL;
}

struct err *end_message(struct tracking *t, const struct io_call *c)
{
    const struct description *d = &t->d->descriptions.items[c->description];
    if (c->no == SYS_sendmsg) {
        size_t idx = parcel_of(t, call_index(t, c));
        if (idx == t->parcels.count)
            return NULL;
        const struct transfer *w =
            c->result >= 0 && c->transfer
                ? &t->d->streams.items[d->out - 1].writes.items[c->transfer - 1]
                : NULL;
        if (!w || w->why || w->offset != t->parcels.items[idx].offset)
            drop_parcel(t, idx, c->result >= 0);
        return NULL;
    }
    if (c->result < 0 || !c->transfer)
        return NULL;
    const struct stream *s = &t->d->streams.items[d->in - 1];
    const struct transfer *r = &s->reads.items[c->transfer - 1];
    for (size_t i = 0; i < t->parcels.count && !r->why; i++) {
        const struct parcel *p = &t->parcels.items[i];
        if (p->stream == d->in && p->offset - r->offset < (s->messages ? 1 : r->len))
            return unpack_descriptors(t, c, i);
    }
    return NULL;
}

/* --- connections --- */

/* One in each direction. */
static uint32_t new_streams(struct tracking *t, bool messages, uint32_t *back_out)
{
    *back_out = add_stream(t, STREAM_SOCKET, messages, NULL);
    return add_stream(t, STREAM_SOCKET, messages, NULL);
}

static void make_socket(struct tracking *t, const struct io_call *c)
{
    struct description n = {
        .socket_type = c->args[1] & 0xf,
        .why = "the socket is not connected to a recorded task, as far as is known"};
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
        vec_push(&t->listeners,
                 (struct listener){.description = c->description, .address = xstrdup(c->paths[0])});
}

/* connect(2) begins: it will wait to be accepted, if somebody listens. */
static void ask_for_connection(struct tracking *t, const struct io_call *c)
{
    struct listener *l = find_listener(t, c->paths[0]);
    struct description *d = &t->d->descriptions.items[c->description];
    if (!l || !c->description || d->in || d->out || !c->done || c->result < 0 ||
        (d->socket_type != SOCK_STREAM && d->socket_type != SOCK_SEQPACKET))
        return;
    d->out = new_streams(t, d->socket_type != SOCK_STREAM, &d->in);
    if (c->begin < l->connected)
        give_up(t, c->description, "several tasks connected at the same time");
    l->connected = c->end > l->connected ? c->end : l->connected;
    vec_push(&l->waiting, c->description);
}

/* A TCP connection that both ends know by their addresses. ends: as the one who accepts sees them;
 * taken over. */
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
    n.in = new_streams(t, false, &n.out);
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

void go_on_connecting(struct tracking *t, const struct io_call *c)
{
    struct description *d = &t->d->descriptions.items[c->description];
    if (!c->paths[0] || !c->description || d->in || d->out || d->socket_type != SOCK_STREAM)
        return;
    d->out = new_streams(t, false, &d->in);
    if (c->begin < t->connected)
        give_up(t, c->description, "several tasks connected at the same time");
    t->connected = c->end > t->connected ? c->end : t->connected;
    vec_push(&t->connecting, (struct connecting){c->description, xstrdup(c->paths[0])});
}

/* The first one that connects to the local address of "local remote"; 0: none. */
static uint32_t next_connecting(struct tracking *t, const char *ends)
{
    for (size_t i = 0; i < t->connecting.count; i++) {
        struct connecting n = t->connecting.items[i];
        size_t len = strlen(n.address);
        if (strncmp(ends, n.address, len) != 0 || ends[len] != ' ')
            continue;
        t->connecting.count--;
        memmove(&t->connecting.items[i], &t->connecting.items[i + 1],
                (t->connecting.count - i) * sizeof(n));
        free(n.address);
        return n.description;
    }
    return 0;
}

/* Is one end known by its addresses already? Or may it become known, as a task has not come back
 * from its connect(2) yet? */
static bool is_known(const struct tracking *t, const char *ends)
{
    for (uint32_t task = 0; task < t->inside.count; task++) {
        if (t->inside.items[task] &&
            t->d->io.calls.items[t->inside.items[task] - 1].no == SYS_connect)
            return true;
    }
    vec_each (n, &t->connections) {
        if (!n->taken && strcmp(n->ends, ends) == 0)
            return true;
    }
    return false;
}

/* Both ends of it; of one who accepts, the streams of who connected the other way round. */
static void join(struct description *n, const struct description *client)
{
    n->socket_type = client->socket_type;
    n->in = client->out;
    n->out = client->in;
}

static void take_connection(struct tracking *t, const struct io_call *c)
{
    struct description n = {.socket_type = SOCK_STREAM, .why = "who connected is not known"};
    struct listener *l = NULL;
    vec_each (it, &t->listeners) {
        if (it->description == c->description && it->address)
            l = it;
    }
    uint32_t client =
        c->paths[1] && !is_known(t, c->paths[1]) ? next_connecting(t, c->paths[1]) : 0;
    if (client) {
        join(&n, &t->d->descriptions.items[client]);
    } else if (c->paths[1]) {
        const struct connection *found = connection_of(t, xstrdup(c->paths[1]), true);
        n.in = found->in;
        n.out = found->out;
    } else if (l && l->waiting.count) {
        join(&n, &t->d->descriptions.items[l->waiting.items[0]]);
        memmove(l->waiting.items, l->waiting.items + 1,
                --l->waiting.count * sizeof(l->waiting.items[0]));
        if (c->begin < l->accepted) {
            give_up_stream(t, n.in, "several tasks accepted connections at the same time");
            give_up_stream(t, n.out, "several tasks accepted connections at the same time");
        }
        l->accepted = c->end > l->accepted ? c->end : l->accepted;
    }
    fd_assign(t, c->task, c->result, add_description(t, n),
              c->no == SYS_accept4 && c->args[3] & SOCK_CLOEXEC);
}

struct err *begin_socket_call(struct tracking *t, const struct io_call *c)
{
    if (c->no == SYS_connect)
        ask_for_connection(t, c);
    return c->no == SYS_sendmsg ? pack_descriptors(t, c) : NULL;
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
    vec_each (n, &t->connecting)
        free(n->address);
    vec_deinit(&t->connecting);
    vec_each (p, &t->parcels)
        vec_deinit(&p->descriptions);
    vec_deinit(&t->parcels);
}
