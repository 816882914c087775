/* Framing: $CONTENTS#SUM, where SUM is the sum of the contents' bytes modulo 256 in hex; } escapes
 * a byte, which is then xored with 0x20. Each packet is acknowledged by + or -, until both sides
 * agree not to (E.1 Overview, E.4.1). */
#include "gdbstub/packet.h"

#include "gdbstub/hex.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

struct packet {
    struct packet *next;
    struct buf contents;
};

/* first, last, waiting, closed are guarded by lock; `sent` and `acks` belong to the thread that
 * sends, but for resends: under send_lock. */
struct packet_link {
    int fd, stop; /* stop: an eventfd */
    pthread_t reader;
    pthread_mutex_t lock, send_lock;
    pthread_cond_t arrived;
    struct packet *first, **last;
    size_t waiting;
    bool closed;
    atomic_bool interrupted, acks;
    struct buf sent; /* the last packet, for a resend */
};

static void send_bytes(struct packet_link *l, const void *data, size_t len)
{
    const uint8_t *p = data;
    while (len) {
        ssize_t n = send(l->fd, p, len, MSG_NOSIGNAL);
        if (n < 0 && errno == ENOTSOCK)
            n = write(l->fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; // the reader will see that gdb is gone
        p += n;
        len -= (size_t)n;
    }
}

static void resend(struct packet_link *l)
{
    pthread_mutex_lock(&l->send_lock);
    send_bytes(l, l->sent.data, l->sent.len);
    pthread_mutex_unlock(&l->send_lock);
}

/* False: it sends more and more without waiting for answers. */
static bool enqueue(struct packet_link *l, struct buf *contents)
{
    enum { MOST_WAITING = 64 };
    struct packet *p = xnew(struct packet);
    p->contents = *contents;
    *contents = (struct buf){0};
    atomic_store(&l->interrupted,
                 false); // one that came before this packet came too late for the run it meant
    pthread_mutex_lock(&l->lock);
    *l->last = p;
    l->last = &p->next;
    bool fits = ++l->waiting <= MOST_WAITING;
    pthread_cond_signal(&l->arrived);
    pthread_mutex_unlock(&l->lock);
    return fits;
}

/* Where the reader is within the stream.
 *
 *     BETWEEN --$--> CONTENTS --#--> SUM1 --> SUM2 --> BETWEEN
 */
enum state { BETWEEN, CONTENTS, SUM1, SUM2 };

struct reading {
    enum state state;
    struct buf contents;
    uint8_t sum, told;
    bool escaped;
};

static bool finish_packet(struct packet_link *l, struct reading *r)
{
    bool good = r->sum == r->told;
    if (atomic_load(&l->acks))
        send_bytes(l, good ? "+" : "-", 1);
    return good || !atomic_load(&l->acks) ? enqueue(l, &r->contents) : true;
}

/* False: this is no packet of a size that was agreed upon. */
static bool take_byte(struct packet_link *l, struct reading *r, uint8_t c)
{
    switch (r->state) {
    case BETWEEN:
        if (c == '$') {
            buf_deinit(&r->contents);
            r->sum = 0;
            r->escaped = false;
            r->state = CONTENTS;
        } else if (c == 3) {
            atomic_store(&l->interrupted, true);
        } else if (c == '-' && atomic_load(&l->acks)) {
            resend(l);
        }
        return true;
    case CONTENTS:
        if (c == '#' && !r->escaped) {
            r->state = SUM1;
            return true;
        }
        r->sum = (uint8_t)(r->sum + c);
        if (c == '}' && !r->escaped) {
            r->escaped = true;
            return true;
        }
        buf_u8(&r->contents, r->escaped ? c ^ 0x20 : c);
        r->escaped = false;
        return r->contents.len <= MAX_PACKET;
    case SUM1:
    case SUM2: {
        int digit = hex_digit((char)c);
        if (digit < 0)
            return false;
        r->told = (uint8_t)(r->told << 4 | digit);
        if (r->state == SUM1) {
            r->state = SUM2;
            return true;
        }
        r->state = BETWEEN;
        return finish_packet(l, r);
    }
    }
    return false;
}

static void *read_packets(void *arg)
{
    struct packet_link *l = arg;
    struct reading r = {0};
    bool good = true;
    while (good) {
        uint8_t in[4096];
        struct pollfd waiting[] = {{l->fd, POLLIN, 0}, {l->stop, POLLIN, 0}};
        if (poll(waiting, 2, -1) < 0 && errno == EINTR)
            continue;
        if (waiting[1].revents)
            break;
        ssize_t n = read(l->fd, in, sizeof(in));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        for (ssize_t i = 0; good && i < n; i++)
            good = take_byte(l, &r, in[i]);
    }
    buf_deinit(&r.contents);
    shutdown(l->fd, SHUT_RDWR); // if it is not gone, it is to go
    atomic_store(&l->interrupted, true);
    pthread_mutex_lock(&l->lock);
    l->closed = true;
    pthread_cond_signal(&l->arrived);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

struct err *packet_link_open(int fd, struct packet_link **out)
{
    struct packet_link *l = xnew(struct packet_link);
    l->fd = fd;
    l->last = &l->first;
    atomic_store(&l->acks, true);
    pthread_mutex_init(&l->lock, NULL);
    pthread_mutex_init(&l->send_lock, NULL);
    pthread_cond_init(&l->arrived, NULL);
    l->stop = eventfd(0, EFD_CLOEXEC);
    int failed = l->stop < 0 ? errno : pthread_create(&l->reader, NULL, read_packets, l);
    if (failed) {
        close(fd);
        if (l->stop >= 0)
            close(l->stop);
        free(l);
        errno = failed;
        return err_os("cannot start a thread for gdb");
    }
    *out = l;
    return NULL;
}

void packet_link_close(struct packet_link *l)
{
    if (!l)
        return;
    uint64_t one = 1;
    (void)!write(l->stop, &one, sizeof(one)); // wakes the reader
    pthread_join(l->reader, NULL);
    close(l->fd);
    close(l->stop);
    while (l->first) {
        struct packet *p = l->first;
        l->first = p->next;
        buf_deinit(&p->contents);
        free(p);
    }
    buf_deinit(&l->sent);
    pthread_cond_destroy(&l->arrived);
    pthread_mutex_destroy(&l->send_lock);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

bool packet_receive(struct packet_link *l, struct buf *out)
{
    pthread_mutex_lock(&l->lock);
    while (!l->first && !l->closed)
        pthread_cond_wait(&l->arrived, &l->lock);
    struct packet *p = l->first;
    if (p) {
        l->waiting--;
        l->first = p->next;
        if (!l->first)
            l->last = &l->first;
    }
    pthread_mutex_unlock(&l->lock);
    if (!p)
        return false;
    buf_deinit(out);
    *out = p->contents;
    free(p);
    buf_cstr(out);
    return true;
}

void packet_send_binary(struct packet_link *l, const char *text, const void *data, size_t len)
{
    pthread_mutex_lock(&l->send_lock);
    l->sent.len = 0;
    buf_u8(&l->sent, '$');
    buf_str(&l->sent, text);
    for (size_t i = 0; i < len; i++) {
        uint8_t c = ((const uint8_t *)data)[i];
        if (c == '#' || c == '$' || c == '}' || c == '*') {
            buf_u8(&l->sent, '}');
            c ^= 0x20;
        }
        buf_u8(&l->sent, c);
    }
    uint8_t sum = 0;
    for (size_t i = 1; i < l->sent.len; i++)
        sum = (uint8_t)(sum + l->sent.data[i]);
    buf_printf(&l->sent, "#%02x", sum);
    send_bytes(l, l->sent.data, l->sent.len);
    pthread_mutex_unlock(&l->send_lock);
}

void packet_send(struct packet_link *l, const char *text)
{
    packet_send_binary(l, text, NULL, 0);
}

void packet_stop_acks(struct packet_link *l)
{
    atomic_store(&l->acks, false);
}

atomic_bool *packet_interrupted(struct packet_link *l)
{
    return &l->interrupted;
}
