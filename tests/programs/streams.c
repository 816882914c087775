/* Bytes that go from task to task: made() is called when they are written, got() when they have been read. All bytes made under a
 * name come out in their order under that name (tests/oracle/streams.c). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

volatile size_t seen;
__attribute__((noinline)) void made(const char *name, const void *bytes, size_t len)
{
    seen += len;
}
__attribute__((noinline)) void got(const char *name, const void *bytes, size_t len)
{
    seen += len;
}

static void fill(char *buf, const char *word, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = word[i % strlen(word)] + i / strlen(word);
}

static void put(int fd, const char *name, const char *text)
{
    char buf[64];
    size_t len = strlen(text);
    fill(buf, text, len);
    made(name, buf, len);
    if (write(fd, buf, len) != (ssize_t)len)
        abort();
}

static void take(int fd, const char *name, size_t most)
{
    char buf[64];
    ssize_t n = read(fd, buf, most);
    if (n > 0)
        got(name, buf, n);
}

static void wait_all(void)
{
    while (wait(NULL) > 0)
        ;
}

/* Parent to child; partial reads across two writes. */
static void simple(void)
{
    int p[2];
    pipe(p);
    if (!fork()) {
        close(p[1]);
        take(p[0], "pipe", 3);
        take(p[0], "pipe", 64);
        take(p[0], "pipe", 64);
        _exit(0);
    }
    close(p[0]);
    put(p[1], "pipe", "hello");
    put(p[1], "pipe", "wide world");
    close(p[1]);
    wait_all();
}

/* Through a process in the middle. */
static void pipeline(void)
{
    int a[2], b[2];
    pipe2(a, O_CLOEXEC);
    pipe(b);
    if (!fork()) {
        put(a[1], "first", "through two pipes");
        _exit(0);
    }
    close(a[1]);
    if (!fork()) {
        char buf[64];
        ssize_t n = read(a[0], buf, sizeof(buf));
        made("pipeline", buf, n);
        write(b[1], buf, n);
        _exit(0);
    }
    close(a[0]);
    close(b[1]);
    take(b[0], "pipeline", 64);
    close(b[0]);
    wait_all();
}

/* Both directions, with vectors on both sides. */
static void pair(void)
{
    int s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    if (!fork()) {
        char one[4], two[40];
        struct iovec in[2] = {{one, 4}, {two, 40}};
        ssize_t n = readv(s[1], in, 2);
        got("there", one, 4);
        got("there", two, n - 4);
        put(s[1], "back", "and back again");
        _exit(0);
    }
    char x[8], y[8];
    struct iovec out[2] = {{x, 6}, {y, 8}};
    fill(x, "vector", 6);
    fill(y, "of_parts", 8);
    made("there", x, 6);
    made("there", y, 8);
    writev(s[0], out, 2);
    take(s[0], "back", 64);
    close(s[0]);
    close(s[1]);
    wait_all();
}

/* Messages: what does not fit into the reader's buffer is lost. */
static void messages(void)
{
    int s[2];
    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s);
    char a[5], b[7], in[4];
    fill(a, "short", 5);
    fill(b, "message", 7);
    made("messages", a, 4);
    made("messages", b, 4);
    struct iovec v = {a, 5};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    sendmsg(s[0], &m, 0);
    send(s[0], b, 7, MSG_NOSIGNAL);
    struct iovec w = {in, 4};
    struct msghdr n = {.msg_iov = &w, .msg_iovlen = 1};
    recvmsg(s[1], &n, 0);
    got("messages", in, 4);
    recv(s[1], in, 4, 0);
    got("messages", in, 4);
    close(s[0]);
    close(s[1]);
}

/* Two writers, one after the other; a reader that looks before it takes. */
static void writers(void)
{
    int s[2], t[2];
    char in[64];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    pipe(t);
    for (int i = 0; i < 2; i++) {
        if (!fork()) {
            put(s[1], "writers", i ? "the second one" : "the first");
            _exit(0);
        }
        wait_all();
    }
    recv(s[0], in, 10, MSG_PEEK);
    ssize_t n = recv(s[0], in, sizeof(in), MSG_DONTWAIT);
    got("writers", in, n);
    // To itself.
    fcntl(t[0], F_SETFL, O_NONBLOCK);
    read(t[0], in, 8);
    put(t[1], "self", "to myself");
    take(t[0], "self", 64);
}

/* More than fits: writers wait while it is read. One of them: that is in order. Two: who knows. */
static void large(int count, const char *name)
{
    enum { SIZE = 100000, PART = 1000 };
    static char buf[SIZE];
    int p[2];
    pipe(p);
    for (int i = 0; i < count; i++) {
        if (!fork()) {
            fill(buf, i ? "a second writer" : "a large write", PART);
            for (int k = PART; k < SIZE; k += PART)
                memcpy(buf + k, buf, PART);
            for (int done = 0; done < SIZE;) { // it may be interrupted
                ssize_t n = write(p[1], buf + done, SIZE - done);
                made(name, buf + done, n);
                done += n;
            }
            _exit(0);
        }
    }
    usleep(100000);
    close(p[1]);
    for (ssize_t n; (n = read(p[0], buf, 30000)) > 0;)
        got(name, buf, n);
    close(p[0]);
    wait_all();
}

/* Descriptors that were copied, and kept over exec. */
static void executed(const char *program)
{
    int p[2];
    pipe(p);
    if (!fork()) {
        dup2(p[0], 0);
        int high = fcntl(p[0], F_DUPFD, 50);
        close(p[0]);
        close(p[1]);
        close(high);
        execl(program, program, "reader", NULL);
        _exit(1);
    }
    close(p[0]);
    int other = dup(p[1]);
    close(p[1]);
    put(other, "exec", "over exec");
    close(other);
    wait_all();
}

/* A file written by one process, read by another; then added to, under another name. */
static void file(const char *path)
{
    char in[64], other[64];
    sprintf(other, "%s-moved", path);
    int reader = open(path, O_RDONLY | O_CREAT | O_TRUNC, 0600);
    if (!fork()) {
        int fd = open(path, O_WRONLY);
        write(fd, "???", 3);
        put(fd, "file", "written to ");
        put(fd, "file", "a file, ");
        fill(in, "wri", 3);
        made("file-again", in, 3);
        pwrite(fd, in, 3, 0);
        _exit(0);
    }
    wait_all();
    ssize_t n = pread(reader, in, 64, 3);
    got("file", in, n);
    take(reader, "file-again", 3);
    int fd = open(path, O_RDWR | O_APPEND);
    put(fd, "file-end", "appended");
    lseek(reader, 22, SEEK_SET);
    take(reader, "file-end", 64);
    rename(path, other);
    put(fd, "file-moved", "and moved");
    int again = open(other, O_RDONLY);
    lseek(again, -9, SEEK_END);
    take(again, "file-moved", 64);
    unlink(other);
    fd = open(other, O_RDWR | O_CREAT, 0600);
    put(fd, "file-new", "new");
    lseek(fd, 0, SEEK_SET);
    take(fd, "file-new", 64);
    unlink(other);
    ftruncate(fd, 0);
    pwrite(fd, "x", 1, 9);
    n = pread(fd, in, 8, 0);
    got("cut", in, n);
}

static void named(const char *path)
{
    mkfifo(path, 0600);
    if (!fork()) {
        int fd = open(path, O_WRONLY);
        put(fd, "fifo", "through a name");
        _exit(0);
    }
    int fd = open(path, O_RDONLY);
    take(fd, "fifo", 64);
    wait_all();
    unlink(path);
}

static void connected(int family, const char *name, const char *answer, const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    strcpy(un.sun_path, path);
    struct sockaddr *a = family == AF_UNIX ? (void *)&un : (void *)&in;
    socklen_t len = family == AF_UNIX ? sizeof(un) : sizeof(in);
    int l = socket(family, SOCK_STREAM, 0);
    bind(l, a, len);
    getsockname(l, a, &len);
    listen(l, 5);
    if (!fork()) {
        int c = socket(family, SOCK_STREAM, 0);
        connect(c, a, len);
        put(c, name, "a request");
        take(c, answer, 64);
        _exit(0);
    }
    int c = accept(l, NULL, NULL);
    take(c, name, 64);
    put(c, answer, "an answer");
    close(c);
    close(l);
    unlink(path);
    wait_all();
}

static void *make_pipe(void *p)
{
    pipe(p);
    return NULL;
}

/* What changes a table of descriptors: threads, which share one; paths of descriptors; numbers that are used again. */
static void tables(const char *program)
{
    int p[2], q[2];
    pthread_t thread;
    pthread_create(&thread, NULL, make_pipe, p);
    pthread_join(thread, NULL);
    put(p[1], "thread", "by another thread");
    take(p[0], "thread", 64);
    if (!fork()) {
        char path[32];
        sprintf(path, "/dev/fd/%d", p[0]);
        int fd = open(path, O_RDONLY);
        take(fd, "path", 5);
        take(p[0], "path", 64);
        _exit(0);
    }
    put(p[1], "path", "by the path of a descriptor");
    wait_all();
    syscall(SYS_close_range, p[0], p[1], 0);
    pipe2(q, O_CLOEXEC); // the same numbers
    put(q[1], "again", "another pipe");
    take(q[0], "again", 64);
    if (!fork()) {
        dup3(q[0], 60, O_CLOEXEC);
        int fd = dup(q[0]);
        close(fd);
        execl(program, program, "reuser", NULL);
        _exit(1);
    }
    wait_all();
    close(q[0]);
    close(q[1]);
    int m = memfd_create("memory", 0);
    char x[8], y[20];
    struct iovec v[2] = {{x, 8}, {y, 20}};
    put(m, "memory", "a file without");
    put(m, "memory", " a name");
    preadv(m, v, 2, 0);
    got("memory", x, 8);
    got("memory", y, 13);
    close(m);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, q);
    put(q[0], "datagram", "one");
    put(q[0], "datagram", "and two");
    recvfrom(q[1], x, 8, 0, NULL, NULL);
    got("datagram", x, 3);
    recvfrom(q[1], x, 8, MSG_PEEK, NULL, NULL);
    recvfrom(q[1], x, 8, 0, NULL, NULL);
    got("datagram", x, 7);
    close(q[0]);
    close(q[1]);
}

/* A child gets the reading end of a pipe with a message. */
static void passed(void)
{
    int p[2], s[2];
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (!fork()) {
        int fd;
        recvmsg(s[1], &m, 0);
        memcpy(&fd, CMSG_DATA(c), sizeof(int));
        take(fd, "passed", 64);
        _exit(0);
    }
    pipe(p);
    *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(c), &p[0], sizeof(int));
    sendmsg(s[0], &m, 0);
    close(p[0]);
    put(p[1], "passed", "over a descriptor");
    wait_all();
    close(p[1]);
    close(s[0]);
    close(s[1]);
}

/* What cannot be told. */
static void unknown(void)
{
    int q[2], u[2];
    pipe(q);
    pipe(u);
    put(q[1], "spliced", "moved by the kernel");
    splice(q[0], NULL, u[1], NULL, 64, 0);
    take(u[0], "spliced", 64);
    int zero = open("/dev/zero", O_RDONLY);
    take(zero, "zero", 8);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "reader")) {
        take(0, "exec", 64);
        return 0;
    }
    if (argc > 1 && !strcmp(argv[1], "reuser")) { // descriptors that exec closed have their numbers taken
        int p[2];
        pipe(p);
        put(p[1], "exec-closed", "of another program");
        take(p[0], "exec-closed", 64);
        return 0;
    }
    char path[] = "streams.tmp";
    simple();
    pipeline();
    pair();
    messages();
    writers();
    large(1, "large");
    executed(argv[0]);
    file(path);
    named(path);
    connected(AF_UNIX, "unix", "unix-answer", path);
    connected(AF_INET, "tcp", "tcp-answer", path);
    tables(argv[0]);
    passed();
    unknown();
    if (argc > 1) // not where writes are buffered: these may be interrupted, which puts them in order
        large(2, "crowd");
    puts("streams done");
    return 0;
}
