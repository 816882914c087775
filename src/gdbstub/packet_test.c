/* The framing of packets, against a peer that sends and reads bytes. */
#include "gdbstub/packet.h"

#include "base/test.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

struct peer {
    int fd;
    struct packet_link *link;
};

static struct peer connected(void)
{
    int fds[2];
    struct peer p;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    p.fd = fds[0];
    assert_ok(packet_link_open(fds[1], &p.link));
    return p;
}

static void finish(struct peer *p)
{
    packet_link_close(p->link);
    close(p->fd);
}

static void say(struct peer *p, const void *data, size_t len)
{
    assert_int_equal(write(p->fd, data, len), len);
}

/* What the link sends, up to len bytes, as far as it comes within a second. */
static void expect_bytes(struct peer *p, const char *want, size_t len)
{
    char got[256] = {0};
    size_t have = 0;
    struct pollfd poll_fd = {p->fd, POLLIN, 0};
    while (have < len && poll(&poll_fd, 1, 1000) > 0) {
        ssize_t n = read(p->fd, got + have, len - have);
        assert_true(n > 0);
        have += (size_t)n;
    }
    assert_int_equal(have, len);
    assert_memory_equal(got, want, len);
}

static void expect_packet(struct peer *p, const char *want, size_t len)
{
    struct buf b = {0};
    assert_true(packet_receive(p->link, &b));
    assert_int_equal(b.len, len);
    assert_memory_equal(b.data, want, len);
    buf_deinit(&b);
}

TEST(a_good_packet_is_acknowledged_and_a_bad_one_asked_for_again)
{
    struct peer p = connected();
    say(&p, "$g#67", 5);
    expect_packet(&p, "g", 1);
    expect_bytes(&p, "+", 1);
    say(&p, "+$g#68$m0,1#fa", 14);
    expect_bytes(&p, "-+", 2);
    expect_packet(&p, "m0,1", 4);
    finish(&p);
}

TEST(an_answer_is_sent_again_when_it_did_not_arrive)
{
    struct peer p = connected();
    packet_send(p.link, "OK");
    expect_bytes(&p, "$OK#9a", 6);
    say(&p, "-", 1);
    expect_bytes(&p, "$OK#9a", 6);
    finish(&p);
}

TEST(without_acknowledgements_none_are_sent)
{
    struct peer p = connected();
    packet_stop_acks(p.link);
    say(&p, "$g#67", 5);
    expect_packet(&p, "g", 1);
    packet_send(p.link, "");
    expect_bytes(&p, "$#00", 4);
    finish(&p);
}

TEST(bytes_of_the_protocol_are_escaped_both_ways)
{
    struct peer p = connected();
    packet_send_binary(p.link, "F4;", "#$}*", 4);
    expect_bytes(&p, "$F4;}\x03}\x04}]}\n#17", 15);
    say(&p, "$X}\x03}]#b2", 9);
    expect_packet(&p, "X#}", 3);
    finish(&p);
}

TEST(an_interrupt_is_noticed_and_forgotten_with_the_next_packet)
{
    struct peer p = connected();
    say(&p, "\x03", 1);
    for (int i = 0; i < 100 && !atomic_load(packet_interrupted(p.link)); i++)
        usleep(10000);
    assert_true(atomic_load(packet_interrupted(p.link)));
    say(&p, "$g#67", 5);
    expect_packet(&p, "g", 1);
    assert_false(atomic_load(packet_interrupted(p.link)));
    finish(&p);
}

TEST(a_packet_without_end_ends_the_connection)
{
    struct peer p = connected();
    struct buf b = {0};
    static const uint8_t zeros[MAX_PACKET + 16];
    say(&p, "$", 1);
    say(&p, zeros, sizeof(zeros));
    assert_false(packet_receive(p.link, &b));
    assert_true(atomic_load(packet_interrupted(p.link)));
    finish(&p);
}

TEST(packets_that_nobody_waits_for_end_the_connection)
{
    struct peer p = connected();
    struct buf b = {0};
    unsigned received = 0;
    packet_stop_acks(p.link);
    for (int i = 0; i < 1000 && send(p.fd, "$g#67", 5, MSG_NOSIGNAL) == 5; i++) {
    }
    usleep(100000);
    while (packet_receive(p.link, &b))
        received++;
    assert_true(received < 1000);
    buf_deinit(&b);
    finish(&p);
}

TEST_MAIN(t(a_good_packet_is_acknowledged_and_a_bad_one_asked_for_again),
          t(an_answer_is_sent_again_when_it_did_not_arrive),
          t(without_acknowledgements_none_are_sent), t(bytes_of_the_protocol_are_escaped_both_ways),
          t(an_interrupt_is_noticed_and_forgotten_with_the_next_packet),
          t(a_packet_without_end_ends_the_connection),
          t(packets_that_nobody_waits_for_end_the_connection))
