/* Packets of the gdb remote serial protocol ("Debugging with GDB", appendix E.1) over a stream
 * socket or a pseudoterminal. A thread reads, so that gdb's interrupt is noticed while an answer is
 * sought. */
#ifndef GDBSTUB_PACKET_H
#define GDBSTUB_PACKET_H

#include "base/buf.h"
#include "base/err.h"

#include <stdatomic.h>

/* What gdb may send at once, and is told so. */
enum { MAX_PACKET = 16 << 10 };

struct packet_link;

/** Begins to read. fd: a connected stream socket, or a pseudoterminal's master; owned by the link
 * from now on, also if this fails. */
struct err *packet_link_open(int fd, struct packet_link **out) nodiscard;
/** Ends the connection. */
void packet_link_close(struct packet_link *l);
DEFINE_CLEANUP(struct packet_link *, packet_link_close)

/** Waits for the next packet: its contents, unescaped, with a NUL behind. False: gdb is gone, or
 * what it sends is no protocol. */
bool packet_receive(struct packet_link *l, struct buf *out) nodiscard;
/** Sends text, which has none of the protocol's own characters # $ } *. */
void packet_send(struct packet_link *l, const char *text);
/** Sends anything: `text`, then `len` bytes, escaped. */
void packet_send_binary(struct packet_link *l, const char *text, const void *data, size_t len);
/** From now on packets are not acknowledged. */
void packet_stop_acks(struct packet_link *l);
/** Set when gdb asks to interrupt, or is gone; cleared when the next packet comes. */
atomic_bool *packet_interrupted(struct packet_link *l);

#endif
